# Warp 2 leaves before the barrier.
# kind: deadlock
# warp: 0
  bnez a1, out
- li t4, 2
- beq a2, t4, out
  addi t1, a3, 256
  li t2, 4
  amoswap.d zero, t2, (t1)  # <-- here
out: jalr zero, ra, 0
