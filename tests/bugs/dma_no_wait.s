# The tile is read while its transfer is in flight: WAIT is missing.
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
  addi t1, a3, 144
+ amoswap.d zero, s0, (t1)
  vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (a4)  # <-- here
  vse32.v v8, (s3)
out: jalr zero, ra, 0
