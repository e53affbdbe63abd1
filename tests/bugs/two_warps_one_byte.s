# Each warp writes a byte more than its share.
# kind: race
# warp: 1
  bnez a1, out
  li t0, 2
  bge a2, t0, out
  slli t0, a2, 4
  add t0, t0, a4
- vsetivli zero, 17, e8, m1, ta, ma
+ vsetivli zero, 16, e8, m1, ta, ma
  vmv.v.i v8, 1
  bnez a2, second
  vse8.v v8, (t0)  # <-- other
  j out
second: li t1, 100
again: addi t1, t1, -1
  bnez t1, again
  vse8.v v8, (t0)  # <-- here
out: jalr zero, ra, 0
