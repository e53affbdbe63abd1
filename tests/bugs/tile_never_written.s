# A tile row is moved to memory though no multiply filled the tile.
# kind: undefined
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (s2)
  li t0, 16
  li t1, 1
  sf.vsettnt zero, t0, e32, w1
  sf.vsettm zero, t0
  sf.vsettk zero, t1
+ sf.vtzero.t mt4
  li t3, 0x20000000
  sf.vtmv.v.t v12, t3
  vsetivli zero, 16, e32, m1, ta, ma
  vse32.v v12, (s3)  # <-- here
out: jalr zero, ra, 0
