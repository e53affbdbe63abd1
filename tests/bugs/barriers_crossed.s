# Warps 0 and 1 wait at one barrier for all, 2 and 3 at another.
# kind: deadlock
# warp: 0
  bnez a1, out
  addi t1, a3, 256
  li t2, 4
  slti t4, a2, 2
  bnez t4, wait
- addi t1, t1, 8
wait: amoswap.d zero, t2, (t1)  # <-- here
out: jalr zero, ra, 0
