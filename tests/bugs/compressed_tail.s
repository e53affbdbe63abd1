# The elements behind what vcompress packed are stored.
# kind: agnostic
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (s2)
  vid.v v4
  li t0, 5
  vmslt.vx v0, v4, t0
  vcompress.vm v9, v8, v0
+ vsetivli zero, 5, e32, m1, ta, ma
  vse32.v v9, (s3)  # <-- here
out: jalr zero, ra, 0
