# The first multiply adds to a tile that was never zeroed.
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
+ sf.vtzero.t mt0
  sf.mm.f.f mt0, v8, v8  # <-- here
out: jalr zero, ra, 0
