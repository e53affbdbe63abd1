# The rest of a short tile is not filled: the multiply takes what is there.
# kind: undefined
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
- li s6, 0
+ li s6, 64
  sd s2, 64(a3)
  sd a4, 72(a3)
  li t0, 1
  sd t0, 80(a3)
  li t0, 16
  sd t0, 88(a3)
  li t0, 64
  sd t0, 96(a3)
  li t0, 64
  sd t0, 104(a3)
  li t0, 0
  sd t0, 112(a3)
  mv t0, s6
  sd t0, 120(a3)
  sd zero, 128(a3)
  addi t1, a3, 136
  amoswap.d s0, zero, (t1)
  addi t1, a3, 144
  amoswap.d zero, s0, (t1)
  li t0, 16
  sf.vsettnt zero, t0, e32, w1
  sf.vsettm zero, t0
  li t1, 1
  sf.vsettk zero, t1
  sf.vtzero.t mt0
  vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (a4)
  sf.vsettnt zero, t0, e32, w1
  sf.vsettm zero, t0
  sf.vsettk zero, t1
  sf.mm.f.f mt0, v8, v8  # <-- here
out: jalr zero, ra, 0
