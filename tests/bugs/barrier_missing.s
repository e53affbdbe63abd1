# Warp 0 writes, warp 1 reads, and no barrier stands between.
# kind: race
# warp: 1
  bnez a1, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  li s5, 2
  bge a2, s5, out
  bnez a2, reader
  sw a2, 0(a4)  # <-- other
+ addi t1, a3, 256
+ amoswap.d zero, s5, (t1)
  j out
reader: addi t1, a3, 256
+ amoswap.d zero, s5, (t1)
  li t0, 100
again: addi t0, t0, -1
  bnez t0, again
  lw t3, 0(a4)  # <-- here
  sw t3, 0(s3)
out: jalr zero, ra, 0
