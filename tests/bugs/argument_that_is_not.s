# A sixth argument register is taken for an argument.
# kind: undefined
# warp: 0
  bnez a1, out
  bnez a2, out
- bnez a5, out  # <-- here
+ bnez a1, out
out: jalr zero, ra, 0
