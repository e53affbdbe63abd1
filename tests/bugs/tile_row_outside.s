# A row beyond tm of the multiply is moved out and stored.
# kind: agnostic
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
  sf.vtzero.t mt0
- li t2, 8
+ li t2, 16
  sf.vsettm zero, t2
  sf.vsettk zero, t1
  sf.mm.f.f mt0, v8, v8
  li t3, 12
  sf.vtmv.v.t v12, t3
  vsetivli zero, 16, e32, m1, ta, ma
  vse32.v v12, (s3)  # <-- here
out: jalr zero, ra, 0
