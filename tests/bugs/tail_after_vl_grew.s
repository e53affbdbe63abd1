# Eight lanes are loaded and sixteen stored.
# kind: agnostic
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
- vsetivli zero, 8, e32, m1, ta, ma
+ vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (s2)
  vsetivli zero, 16, e32, m1, ta, ma
  vadd.vi v8, v8, 1
  vse32.v v8, (s3)  # <-- here
out: jalr zero, ra, 0
