# A mask made for eleven lanes is moved to v0 and guards the store of sixteen; that all of its bits are one element of the move hides nothing.
# kind: agnostic
# warp: 0
  bnez a1, out
  bnez a2, out
  ld s2, 0(a0)
  ld s3, 8(a0)
  vsetivli zero, 16, e32, m1, ta, ma
  vle32.v v8, (s2)
- vsetivli zero, 11, e32, m1, ta, ma
  vmsgt.vi v9, v8, 0
  vsetivli zero, 1, e32, m1, ta, ma
  vmv.v.v v0, v9
  vsetivli zero, 16, e32, m1, ta, ma
  vse32.v v8, (s3), v0.t  # <-- here
out: jalr zero, ra, 0
