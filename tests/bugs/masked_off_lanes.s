# Lanes that a mask-agnostic load left out are used.
# kind: agnostic
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
- vsetivli zero, 16, e32, m1, ta, ma
+ vsetivli zero, 16, e32, m1, ta, mu
  vmv.v.i v8, 0
  vid.v v4
  li t0, 5
  vmslt.vx v0, v4, t0
  vle32.v v8, (s2), v0.t
  vse32.v v8, (s3)  # <-- here
out: jalr zero, ra, 0
