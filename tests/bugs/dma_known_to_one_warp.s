# Warp 0 waits for its transfer; warp 1 reads without hearing of it through a barrier.
# kind: race
# warp: 1
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
  amoswap.d s0, zero, (t1)  # <-- other
  addi t1, a3, 144
  amoswap.d zero, s0, (t1)
+ addi t1, a3, 256
+ amoswap.d zero, s5, (t1)
  j out
reader: addi t1, a3, 256
+ amoswap.d zero, s5, (t1)
  li t0, 3000
again: addi t0, t0, -1
  bnez t0, again
  vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (a4)  # <-- here
  vse32.v v8, (s3)
out: jalr zero, ra, 0
