# Two transfers into the same rows: which comes last is not said.
# kind: race
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  sd s2, 64(a3)
  sd a4, 72(a3)
  li t0, 4
  sd t0, 80(a3)
  li t0, 64
  sd t0, 88(a3)
  li t0, 64
  sd t0, 96(a3)
  li t0, 64
  sd t0, 104(a3)
  li t0, 0
  sd t0, 112(a3)
  li t0, 0
  sd t0, 120(a3)
  sd zero, 128(a3)
  addi t1, a3, 136
  amoswap.d s0, zero, (t1)  # <-- other
- addi s4, a4, 192
+ addi s4, a4, 256
  sd s2, 64(a3)
  sd s4, 72(a3)
  li t0, 4
  sd t0, 80(a3)
  li t0, 64
  sd t0, 88(a3)
  li t0, 64
  sd t0, 96(a3)
  li t0, 64
  sd t0, 104(a3)
  li t0, 0
  sd t0, 112(a3)
  li t0, 0
  sd t0, 120(a3)
  sd zero, 128(a3)
  addi t1, a3, 136
  amoswap.d s1, zero, (t1)  # <-- here
  addi t1, a3, 144
  amoswap.d zero, s1, (t1)
out: jalr zero, ra, 0
