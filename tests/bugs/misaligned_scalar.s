# A word is read at an odd address.
# kind: misaligned
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
- lw t0, 5(s2)  # <-- here
+ lw t0, 4(s2)
  sw t0, 0(s3)
out: jalr zero, ra, 0
