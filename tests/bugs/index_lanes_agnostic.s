# Gather indices were made for eight lanes, sixteen are fetched.
# kind: agnostic
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
- vsetivli zero, 8, e32, m1, ta, ma
+ vsetivli zero, 16, e32, m1, ta, ma
  vid.v v4
  vsll.vi v4, v4, 2
  vsetivli zero, 16, e32, m1, ta, ma
  vluxei32.v v8, (s2), v4  # <-- here
  vse32.v v8, (s3)
out: jalr zero, ra, 0
