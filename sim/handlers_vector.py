"""Vector and matrix handlers in restricted Python. Tails and masked-off elements stay undisturbed.

Register groups are aligned (issue.prepare refuses others), so operands of one element width are the same group or apart, and elementwise
loops write in place; where widths differ or elements move, loops go through the warp's scratch row.
"""

from __future__ import annotations

from rvgpu.isa.meaning import NAN_OF_32, mask_bit
from rvgpu.isa.prims import (
    copy,
    cpop,
    f_cvt,
    f_fma,
    f_to_i,
    i_to_f,
    imin,
    ld8,
    ld16,
    ld32,
    ld64,
    sel,
    sext,
    st8,
    st16,
    st32,
    st64,
    trunc,
    wrap,
)
from rvgpu.sim.handlers import set_x, vreg
from rvgpu.sim.state import F_VTYPE, OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import address, lanes

SEW, W, SIGNED, BSIGNED, DIV, RM, BF, ORDERED = 32, 32, 1, 1, 2, 0, 0, 0  # bound


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
    if W == 64:
        return x
    if W == 32:
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


def merge_in(w: Warp, r: Rec, g: Gpu, d: int, t: int, n: int) -> int:
    """Writes the scratch row t to destination d, under the mask when the instruction has one."""
    if r.vm != 0:
        copy(d, t, n * (SEW >> 3))
    return masked(w, r, g, d, n)


def v_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), w.vl
    t = target(w, r, d)
    for i in lanes(n):
        st(t, i, OP(ld(a, i), ld(b, i)))
    return masked(w, r, g, d, n)


def with_scalar(w: Warp, r: Rec, g: Gpu, b: int) -> int:
    a, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rd), w.vl
    t = target(w, r, d)
    for i in lanes(n):
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
        st(t, i, OP1(ld(a, i)))
    return masked(w, r, g, d, n)


def vmac_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), w.vl
    t = target(w, r, d)
    for i in lanes(n):
        st(t, i, OP3(ld(a, i), ld(b, i), ld(d, i)))
    return masked(w, r, g, d, n)


def mac_scalar(w: Warp, r: Rec, g: Gpu, b: int) -> int:
    a, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rd), w.vl
    t = target(w, r, d)
    for i in lanes(n):
        st(t, i, OP3(ld(a, i), b, ld(d, i)))
    return masked(w, r, g, d, n)


def vmac_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return mac_scalar(w, r, g, xval(w, r))


def vmac_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return mac_scalar(w, r, g, fval(w, r))


# -- comparisons and masks
def mask_from(w: Warp, r: Rec, g: Gpu, t: int) -> int:
    """Packs vl bytes of 0/1 at t into the destination mask; bits beyond vl and masked-off bits stay."""
    d, n = vreg(w, g, r.rd), w.vl
    m = vreg(w, g, 0)
    for base in range(0, n, 8):
        most = imin(8, n - base)
        bits = 0
        for i in range(most):
            bits = bits | (ld8(t + base + i) << i)
        keep = (255 << most) & 255
        if r.vm == 0:
            keep = keep | (~ld8(m + (base >> 3)) & 255)
        old = ld8(d + (base >> 3))
        st8(d + (base >> 3), (old & keep) | (bits & ~keep))
    return OK


def vcmp_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a, b = address(w.tmp), vreg(w, g, r.rs2), vreg(w, g, r.rs1)
    for i in lanes(w.vl):
        st8(t + i, OP(ld(a, i), ld(b, i)))
    return mask_from(w, r, g, t)


def cmp_scalar(w: Warp, r: Rec, g: Gpu, b: int) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
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


# -- width changes: sources are read before the destination is written, through the scratch row
def vext(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    if SEW // DIV < 8:
        return F_VTYPE
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        x = ldb(a, i, SEW // DIV)
        st(t, i, sext(x, SEW // DIV) if SIGNED == 1 else x)
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def narrow_to(w: Warp, r: Rec, g: Gpu, b: int, vector: int) -> int:
    """OP on 2*SEW elements by the low bits of b (or of vector rs1), kept to SEW. Bound with a meaning at SEW2 = 2*SEW."""
    t, a, s = address(w.tmp), vreg(w, g, r.rs2), vreg(w, g, r.rs1)
    for i in lanes(w.vl):
        n = ld(s, i) if vector == 1 else b
        x = ldb(a, i, 2 * SEW)
        st(t, i, (sext(x, 2 * SEW) if SIGNED == 1 else trunc(x, 2 * SEW)) >> (n & (2 * SEW - 1)) if SEW < 32 or SIGNED == 1
           else _lshr64(x, n & 63))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def _lshr64(x: int, n: int) -> int:
    return x if n == 0 else (x >> n) & wrap((1 << (64 - n)) - 1)


def vnarrow_wv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return narrow_to(w, r, g, 0, 1)


def vnarrow_wx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return narrow_to(w, r, g, w.x[r.rs1], 0)


def vnarrow_wi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return narrow_to(w, r, g, r.imm, 0)


def wide_ext(x: int, signed: int) -> int:
    return sext(x, SEW) if signed == 1 else x


def widen(w: Warp, r: Rec, g: Gpu, b: int, vector: int) -> int:
    t, a, s, d = address(w.tmp), vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd)
    for i in lanes(w.vl):
        y = ld(s, i) if vector == 1 else b
        stb(t, i, 2 * SEW, OP(wide_ext(ld(a, i), SIGNED), wide_ext(y, BSIGNED)))
    return merge_wide(w, r, g, d, t)


def merge_wide(w: Warp, r: Rec, g: Gpu, d: int, t: int) -> int:
    if r.vm != 0:
        copy(d, t, w.vl * (SEW >> 2))
    else:
        m = vreg(w, g, 0)
        for i in lanes(w.vl):
            stb(d, i, 2 * SEW, sel(mask_bit(m, i), ldb(t, i, 2 * SEW), ldb(d, i, 2 * SEW)))
    return OK


def vwiden_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return widen(w, r, g, 0, 1)


def vwiden_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return widen(w, r, g, xval(w, r), 0)


def vcvt_fi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        st(t, i, f_to_i(ld(a, i), W, SEW, SIGNED, RM))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vcvt_if(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        x = ld(a, i)
        st(t, i, i_to_f(sext(x, SEW) if SIGNED == 1 else x, SIGNED, W))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vwcvt_ff(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if BF == 1:
            stb(t, i, 2 * SEW, f_cvt(ld(a, i), -16, 32))
        elif SEW == 16:
            stb(t, i, 2 * SEW, f_cvt(ld(a, i), 16, 32))
        else:
            stb(t, i, 2 * SEW, f_cvt(ld(a, i), 32, 64))
    return merge_wide(w, r, g, vreg(w, g, r.rd), t)


def vncvt_ff(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if BF == 1:
            st(t, i, f_cvt(ldb(a, i, 2 * SEW), 32, -16))
        elif SEW == 16:
            st(t, i, f_cvt(ldb(a, i, 2 * SEW), 32, 16))
        else:
            st(t, i, f_cvt(ldb(a, i, 2 * SEW), 64, 32))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vwmaccbf_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, m = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), vreg(w, g, 0)
    for i in range(w.vl):
        if r.vm != 0 or mask_bit(m, i):
            st32(d + 4 * i, f_fma(f_cvt(ld16(a + 2 * i), -16, 32), f_cvt(ld16(b + 2 * i), -16, 32), ld32(d + 4 * i), 32))
    return OK


def vwmaccbf_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, d, m = vreg(w, g, r.rs2), vreg(w, g, r.rd), vreg(w, g, 0)
    x = w.f[r.rs1]
    b = f_cvt(trunc(x, 16) if x >> 16 == -1 else 0x7FC0, -16, 32)
    for i in range(w.vl):
        if r.vm != 0 or mask_bit(m, i):
            st32(d + 4 * i, f_fma(f_cvt(ld16(a + 2 * i), -16, 32), b, ld32(d + 4 * i), 32))
    return OK


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
    while live > 1:
        half = (live + 1) >> 1
        for i in lanes(live - half):
            st(t, i, OP(ld(t, i), ld(t, i + half)))
        live = half
    st(d, 0, OP(ld(b, 0), ld(t, 0)) if live == 1 else ld(b, 0))
    return OK
