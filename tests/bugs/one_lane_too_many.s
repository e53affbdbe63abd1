# The last row is read with 17 lanes.
# kind: outside
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  li t0, 4032
  add s2, s2, t0
- li t0, 17
+ li t0, 16
  vsetvli zero, t0, e32, m2, ta, ma
  vle32.v v8, (s2)  # <-- here
  vsetivli zero, 16, e32, m2, ta, ma
  vse32.v v8, (s3)
out: jalr zero, ra, 0
