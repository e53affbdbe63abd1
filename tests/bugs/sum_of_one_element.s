# A reduction sets element 0 alone; all are stored.
# kind: agnostic
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (s2)
  vmv.v.i v9, 0
  vfredusum.vs v9, v8, v9
+ vrgather.vi v10, v9, 0
+ vmv.v.v v9, v10
  vse32.v v9, (s3)  # <-- here
out: jalr zero, ra, 0
