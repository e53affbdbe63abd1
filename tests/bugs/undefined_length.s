# vl comes from a register that was never set.
# kind: undefined
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
+ li t3, 16
  vsetvli zero, t3, e32, m1, ta, ma  # <-- here
  vle32.v v8, (s2)
  vse32.v v8, (s3)
out: jalr zero, ra, 0
