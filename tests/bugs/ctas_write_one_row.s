# Two CTAs of a launch write the same row.
# kind: race
# warp: 0
  li t0, 2
  bge a1, t0, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  vsetivli zero, 16, e32, m1, ta, ma
+ slli t0, a1, 6
+ add s3, s3, t0
  vle32.v v8, (s2)
  vse32.v v8, (s3)  # <-- here other
out: jalr zero, ra, 0
