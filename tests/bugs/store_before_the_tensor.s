# A negative offset from the first row.
# kind: outside
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
- sw zero, -4(s3)  # <-- here
+ sw zero, 0(s3)
out: jalr zero, ra, 0
