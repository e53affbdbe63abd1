# The stride register was set on one path only.
# kind: undefined
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  vsetivli zero, 16, e32, m1, ta, ma
- bnez a1, skip
- beqz a1, skip
  li t2, 4
skip: vlse32.v v8, (s2), t2  # <-- here
  vse32.v v8, (s3)
out: jalr zero, ra, 0
