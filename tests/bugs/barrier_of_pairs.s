# A barrier of all four warps counts to two: two pairs pass it, and do not know of each other.
# kind: race
# warp: 3
  bnez a1, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  bnez a2, meet
  sw a2, 0(a4)  # <-- other
meet: addi t1, a3, 256
- li t2, 2
+ li t2, 4
  slli t3, a2, 5
wait: addi t3, t3, -1
  bge t3, zero, wait
  amoswap.d zero, t2, (t1)
  li t4, 3
  bne a2, t4, out
  lw t3, 0(a4)  # <-- here
  sw t3, 0(s3)
out: jalr zero, ra, 0
