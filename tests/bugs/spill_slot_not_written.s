# A spilled address is taken back from the slot beside its own.
# kind: undefined
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  addi sp, sp, -32
  sd s3, 16(sp)
- ld t0, 8(sp)
+ ld t0, 16(sp)
  sw zero, 0(t0)  # <-- here
  addi sp, sp, 32
out: jalr zero, ra, 0
