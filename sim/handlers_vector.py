"""Vector and matrix handlers in restricted Python. Tails and masked-off elements stay undisturbed.

Register groups are aligned (plan.prepare refuses others), so operands of one element width are the same group or apart, and elementwise
loops write in place; where widths differ or elements move, loops go through the warp's scratch row.
"""

from __future__ import annotations

from rvgpu.isa.meaning import NAN_OF_32, mask_bit
from rvgpu.isa.prims import copy, cpop, imin, ld8, ld16, ld32, ld64, sel, st8, st16, st32, st64, trunc
from rvgpu.sim.handlers import set_x, vreg
from rvgpu.sim.state import OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import address, lanes

SEW, W, ORDERED, EXACT = 32, 32, 0, 0  # bound


def OP(a: int, b: int) -> int:
    """Bound to an instruction's element meaning."""
    return a + b


def OP1(a: int) -> int:
    return a


def OP3(a: int, b: int, c: int) -> int:
    return a * b + c


def ld(p: int, i: int) -> int:
    """Element i of SEW bits at host address p."""
    if SEW == 8:
        return ld8(p + i)
    if SEW == 16:
        return ld16(p + 2 * i)
    if SEW == 32:
        return ld32(p + 4 * i)
    return ld64(p + 8 * i)


def st(p: int, i: int, x: int) -> int:
    if SEW == 8:
        st8(p + i, x)
    if SEW == 16:
        st16(p + 2 * i, x)
    if SEW == 32:
        st32(p + 4 * i, x)
    if SEW == 64:
        st64(p + 8 * i, x)
    return 0


def ldb(p: int, i: int, bits: int) -> int:
    """Element i of `bits` bits, zero-extended."""
    if bits == 8:
        return ld8(p + i)
    if bits == 16:
        return ld16(p + 2 * i)
    if bits == 32:
        return ld32(p + 4 * i)
    return ld64(p + 8 * i)


def stb(p: int, i: int, bits: int, x: int) -> int:
    if bits == 8:
        st8(p + i, x)
    elif bits == 16:
        st16(p + 2 * i, x)
    elif bits == 32:
        st32(p + 4 * i, x)
    else:
        st64(p + 8 * i, x)
    return 0


def xval(w: Warp, r: Rec) -> int:
    return trunc(w.x[r.rs1], SEW)


def fval(w: Warp, r: Rec) -> int:
    x = w.f[r.rs1]
    if SEW == 64:
        return x
    if SEW == 32:
        return trunc(x, 32) if x >> 32 == -1 else NAN_OF_32
    return trunc(x, 16) if x >> 16 == -1 else 0x7E00


def target(w: Warp, r: Rec, d: int) -> int:
    """Where an elementwise loop writes: the destination, or the scratch row when a mask comes between."""
    return d if r.vm != 0 else address(w.tmp)


def masked(w: Warp, r: Rec, g: Gpu, d: int, n: int) -> int:
    """Ends an elementwise loop over `target`: what the mask allows goes to the destination."""
    if r.vm == 0:
        t, m = address(w.tmp), vreg(w, g, 0)
        for i in lanes(n):
            st(d, i, sel(mask_bit(m, i), ld(t, i), ld(d, i)))
    return OK


def idle(w: Warp, r: Rec, g: Gpu, i: int) -> int:
    """Whether the mask leaves element i out. Where flags accrue (EXACT) loops with arithmetic skip those."""
    return r.vm == 0 and mask_bit(vreg(w, g, 0), i) == 0


def merge_in(w: Warp, r: Rec, g: Gpu, d: int, t: int, n: int) -> int:
    """Writes the scratch row t to destination d, under the mask when the instruction has one."""
    if r.vm != 0:
        copy(d, t, n * (SEW >> 3))
    return masked(w, r, g, d, n)


def v_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), w.vl
    t = target(w, r, d)
    for i in lanes(n):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        st(t, i, OP(ld(a, i), ld(b, i)))
    return masked(w, r, g, d, n)


def with_scalar(w: Warp, r: Rec, g: Gpu, b: int) -> int:
    a, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rd), w.vl
    t = target(w, r, d)
    for i in lanes(n):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        st(t, i, OP(ld(a, i), b))
    return masked(w, r, g, d, n)


def v_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return with_scalar(w, r, g, xval(w, r))


def v_vi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return with_scalar(w, r, g, trunc(r.imm, SEW))


def v_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return with_scalar(w, r, g, fval(w, r))


def vunary(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rd), w.vl
    t = target(w, r, d)
    for i in lanes(n):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        st(t, i, OP1(ld(a, i)))
    return masked(w, r, g, d, n)


def vunary_rm(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """What the dynamic rounding mode matters to."""
    a, d, n, rm = vreg(w, g, r.rs2), vreg(w, g, r.rd), w.vl, (w.fcsr >> 5) & 7
    t = target(w, r, d)
    for i in lanes(n):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        st(t, i, OP(ld(a, i), rm))
    return masked(w, r, g, d, n)


def vmac_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), w.vl
    t = target(w, r, d)
    for i in lanes(n):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        st(t, i, OP3(ld(a, i), ld(b, i), ld(d, i)))
    return masked(w, r, g, d, n)


def mac_scalar(w: Warp, r: Rec, g: Gpu, b: int) -> int:
    a, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rd), w.vl
    t = target(w, r, d)
    for i in lanes(n):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        st(t, i, OP3(ld(a, i), b, ld(d, i)))
    return masked(w, r, g, d, n)


def vmac_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return mac_scalar(w, r, g, xval(w, r))


def vmac_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return mac_scalar(w, r, g, fval(w, r))


# -- comparisons and masks
def mask_from(w: Warp, r: Rec, g: Gpu, t: int) -> int:
    """Packs vl bytes of 0/1 at t into the destination mask; bits beyond vl and masked-off bits stay."""
    return pack(w, r, g, t, r.vm == 0)


def pack(w: Warp, r: Rec, g: Gpu, t: int, by_mask: int) -> int:
    d, n = vreg(w, g, r.rd), w.vl
    m = vreg(w, g, 0)
    for base in range(0, n, 8):
        most = imin(8, n - base)
        bits = 0
        for i in range(most):
            bits = bits | (ld8(t + base + i) << i)
        keep = (255 << most) & 255
        if by_mask:
            keep = keep | (~ld8(m + (base >> 3)) & 255)
        old = ld8(d + (base >> 3))
        st8(d + (base >> 3), (old & keep) | (bits & ~keep))
    return OK


def vcmp_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a, b = address(w.tmp), vreg(w, g, r.rs2), vreg(w, g, r.rs1)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            st8(t + i, 0)
            continue
        st8(t + i, OP(ld(a, i), ld(b, i)))
    return mask_from(w, r, g, t)


def cmp_scalar(w: Warp, r: Rec, g: Gpu, b: int) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            st8(t + i, 0)
            continue
        st8(t + i, OP(ld(a, i), b))
    return mask_from(w, r, g, t)


def vcmp_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return cmp_scalar(w, r, g, xval(w, r))


def vcmp_vi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return cmp_scalar(w, r, g, trunc(r.imm, SEW))


def vcmp_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return cmp_scalar(w, r, g, fval(w, r))


def vmask(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), w.vl
    for i in range((n + 7) >> 3):
        x = OP(ld8(a + i), ld8(b + i)) & 255
        keep = (255 << imin(8, n - 8 * i)) & 255
        st8(d + i, (ld8(d + i) & keep) | (x & ~keep))
    return OK


def vcpop(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, m, n, total = vreg(w, g, r.rs2), vreg(w, g, 0), w.vl, 0
    for i in range((n + 7) >> 3):
        x = ld8(a + i) & ~(255 << imin(8, n - 8 * i))
        total += cpop(x if r.vm != 0 else x & ld8(m + i))
    return set_x(w, r, total)


def vfirst(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, m = vreg(w, g, r.rs2), vreg(w, g, 0)
    for i in range(w.vl):
        if mask_bit(a, i) and (r.vm != 0 or mask_bit(m, i)):
            return set_x(w, r, i)
    return set_x(w, r, -1)


def merge_vector(w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, m = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), vreg(w, g, 0)
    for i in lanes(w.vl):
        st(d, i, sel(mask_bit(m, i), ld(b, i), ld(a, i)))
    return OK


def merge_scalar(w: Warp, r: Rec, g: Gpu, b: int) -> int:
    a, d, m = vreg(w, g, r.rs2), vreg(w, g, r.rd), vreg(w, g, 0)
    for i in lanes(w.vl):
        st(d, i, sel(mask_bit(m, i), b, ld(a, i)))
    return OK


def vmerge_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return merge_vector(w, r, g)


def vmerge_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return merge_scalar(w, r, g, xval(w, r))


def vmerge_vi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return merge_scalar(w, r, g, r.imm)


def vmerge_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return merge_scalar(w, r, g, fval(w, r))


# -- reductions: a binary tree over the elements, then the scalar in front (ordered sums: one by one)
def vred(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, t, n, m = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), address(w.tmp), w.vl, vreg(w, g, 0)
    if n == 0:
        return OK
    if ORDERED == 1:
        x = ld(b, 0)
        for i in range(n):
            if r.vm != 0 or mask_bit(m, i):
                x = OP(x, ld(a, i))
        st(d, 0, x)
        return OK
    live = n
    if r.vm != 0:
        copy(t, a, n * (SEW >> 3))
    else:
        live = 0
        for i in range(n):
            if mask_bit(m, i):
                st(t, live, ld(a, i))
                live += 1
    return tree(d, b, t, live)


def tree(d: int, b: int, t: int, live: int) -> int:
    """Element 0 of d becomes that of b, and of what the first `live` elements of t come to in pairs; all of W bits."""
    while live > 1:
        half = (live + 1) >> 1
        for i in lanes(live - half):
            stb(t, i, W, OP(ldb(t, i, W), ldb(t, i + half, W)))
        live = half
    stb(d, 0, W, OP(ldb(b, 0, W), ldb(t, 0, W)) if live == 1 else ldb(b, 0, W))
    return OK
