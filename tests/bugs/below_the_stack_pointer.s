# A slot is read after it was given back.
# kind: stack
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  addi sp, sp, -16
  sd s3, 0(sp)
+ ld t0, 0(sp)
  addi sp, sp, 16
- ld t0, -16(sp)  # <-- here
  sw zero, 0(t0)
out: jalr zero, ra, 0
