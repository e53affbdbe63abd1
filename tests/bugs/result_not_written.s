# The result is added to before it was set.
# kind: undefined
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (s2)
- vle32.v v9, (s3)
+ vmv.v.i v9, 0
  vfadd.vv v9, v9, v8
  vse32.v v9, (s3)  # <-- here
out: jalr zero, ra, 0
