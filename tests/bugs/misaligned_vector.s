# A row starts at half an element.
# kind: misaligned
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  vsetivli zero, 16, e32, m1, ta, ma
- addi s2, s2, 2
  vle32.v v8, (s2)  # <-- here
  vse32.v v8, (s3)
out: jalr zero, ra, 0
