# A transfer refills a buffer that another warp still reads: no barrier after its use.
# kind: race
# warp: 0
  bnez a1, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  li s5, 2
  bge a2, s5, out
  bnez a2, reader
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
  amoswap.d s0, zero, (t1)
  addi t1, a3, 144
  amoswap.d zero, s0, (t1)
  addi t1, a3, 256
  li t2, 2
  amoswap.d zero, t2, (t1)
  li t0, 3000
again: addi t0, t0, -1
  bnez t0, again
+ addi t1, a3, 264
+ amoswap.d zero, s5, (t1)
  addi t1, a3, 136
  amoswap.d s0, zero, (t1)  # <-- here
  addi t1, a3, 144
  amoswap.d zero, s0, (t1)
  j out
reader: addi t1, a3, 256
  amoswap.d zero, s5, (t1)
  vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (a4)  # <-- other
  vse32.v v8, (s3)
+ addi t1, a3, 264
+ amoswap.d zero, s5, (t1)
out: jalr zero, ra, 0
