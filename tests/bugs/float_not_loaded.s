# A scalar factor is used that no load set.
# kind: undefined
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (s2)
+ flw ft0, 0(s2)
  vfmul.vf v8, v8, ft0
  vse32.v v8, (s3)  # <-- here
out: jalr zero, ra, 0
