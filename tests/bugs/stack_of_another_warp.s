# An address into the neighbour's stack.
# kind: stack
# warp: 0
  bnez a1, out
  bnez a2, out
- li t0, -36864
+ li t0, -64
  add t0, t0, sp
  addi t0, t0, -64
+ addi sp, sp, -128
  sw zero, 0(t0)  # <-- here
out: jalr zero, ra, 0
