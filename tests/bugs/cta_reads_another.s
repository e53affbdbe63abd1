# CTA 1 takes what CTA 0 of the same launch wrote.
# kind: race
# warp: 0
  li t0, 2
  bge a1, t0, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  vsetivli zero, 16, e32, m1, ta, ma
  bnez a1, second
  vle32.v v8, (s2)
  vse32.v v8, (s3)  # <-- other
  j out
second: li t0, 3000
again: addi t0, t0, -1
  bnez t0, again
- vle32.v v8, (s3)  # <-- here
+ vle32.v v8, (s2)
  addi s3, s3, 64
  vse32.v v8, (s3)
out: jalr zero, ra, 0
