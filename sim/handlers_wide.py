"""Handlers that change widths, in restricted Python: widening and narrowing arithmetic, extensions, conversions, widening sums.

Sources are read before the destination is written, through the scratch row: groups of different widths may overlap in part.
"""

from __future__ import annotations

from rvgpu.isa.meaning import mask_bit
from rvgpu.isa.prims import copy, ld16, ld32, sel, sext, st32, trunc
from rvgpu.isa.prims_float import f_cvt, f_fma, f_to_i, i_to_f
from rvgpu.sim.handlers import vreg
from rvgpu.sim.handlers_vector import OP, OP1, OP3, fval, idle, ld, ldb, merge_in, st, stb, tree, xval
from rvgpu.sim.state import F_VTYPE, OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import address, lanes

SEW, W, SIGNED, BSIGNED, DIV, RM, BF, ORDERED, EXACT = 32, 32, 1, 1, 2, 0, 0, 0, 0  # bound


def vext(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    if SEW // DIV < 8:
        return F_VTYPE
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        x = ldb(a, i, SEW // DIV)
        st(t, i, sext(x, SEW // DIV) if SIGNED == 1 else x)
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def narrow_to(w: Warp, r: Rec, g: Gpu, b: int, vector: int) -> int:
    """OP on 2*SEW elements and b (or vector rs1), kept to SEW."""
    t, a, s = address(w.tmp), vreg(w, g, r.rs2), vreg(w, g, r.rs1)
    for i in lanes(w.vl):
        st(t, i, OP(ldb(a, i, 2 * SEW), ld(s, i) if vector == 1 else b))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vnarrow_wv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return narrow_to(w, r, g, 0, 1)


def vnarrow_wx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return narrow_to(w, r, g, w.x[r.rs1], 0)


def vnarrow_wi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return narrow_to(w, r, g, r.imm, 0)


def wide_ext(x: int, signed: int) -> int:
    return sext(x, SEW) if signed == 1 else x


def widen(w: Warp, r: Rec, g: Gpu, b: int, vector: int, wide: int) -> int:
    """`wide`: vs2 is wide already."""
    t, a, s, d = address(w.tmp), vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd)
    for i in lanes(w.vl):
        y = ld(s, i) if vector == 1 else b
        stb(t, i, 2 * SEW, OP(ldb(a, i, 2 * SEW) if wide == 1 else wide_ext(ld(a, i), SIGNED), wide_ext(y, BSIGNED)))
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
    return widen(w, r, g, 0, 1, 0)


def vwiden_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return widen(w, r, g, xval(w, r), 0, 0)


def vwide2_wv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return widen(w, r, g, 0, 1, 1)


def vwide2_wx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return widen(w, r, g, xval(w, r), 0, 1)


def widen_mac(w: Warp, r: Rec, g: Gpu, b: int, vector: int) -> int:
    t, a, s, d = address(w.tmp), vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd)
    for i in lanes(w.vl):
        y = ld(s, i) if vector == 1 else b
        stb(t, i, 2 * SEW, OP3(wide_ext(ld(a, i), SIGNED), wide_ext(y, BSIGNED), ldb(d, i, 2 * SEW)))
    return merge_wide(w, r, g, d, t)


def vwmac_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return widen_mac(w, r, g, 0, 1)


def vwmac_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return widen_mac(w, r, g, xval(w, r), 0)


# -- floating point: operands become 2*SEW exactly, the operation rounds once there
def fwiden(w: Warp, r: Rec, g: Gpu, b: int, vector: int, wide: int) -> int:
    """`wide`: vs2 is wide already."""
    t, a, s, d = address(w.tmp), vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        y = f_cvt(ld(s, i) if vector == 1 else b, SEW, W)
        stb(t, i, W, OP(ldb(a, i, W) if wide == 1 else f_cvt(ld(a, i), SEW, W), y))
    return merge_wide(w, r, g, d, t)


def vfwiden_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fwiden(w, r, g, 0, 1, 0)


def vfwiden_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fwiden(w, r, g, fval(w, r), 0, 0)


def vfwide2_wv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fwiden(w, r, g, 0, 1, 1)


def vfwide2_wf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fwiden(w, r, g, fval(w, r), 0, 1)


def fwiden_mac(w: Warp, r: Rec, g: Gpu, b: int, vector: int) -> int:
    t, a, s, d = address(w.tmp), vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        y = f_cvt(ld(s, i) if vector == 1 else b, SEW, W)
        stb(t, i, W, OP3(f_cvt(ld(a, i), SEW, W), y, ldb(d, i, W)))
    return merge_wide(w, r, g, d, t)


def vfwmac_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fwiden_mac(w, r, g, 0, 1)


def vfwmac_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fwiden_mac(w, r, g, fval(w, r), 0)


def vwmaccbf_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, m = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), vreg(w, g, 0)
    for i in range(w.vl):
        if r.vm != 0 or mask_bit(m, i):
            st32(d + 4 * i, f_fma(f_cvt(ld16(a + 2 * i), -16, 32), f_cvt(ld16(b + 2 * i), -16, 32), ld32(d + 4 * i), 32))
    return OK


def vwmaccbf_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, d, m = vreg(w, g, r.rs2), vreg(w, g, r.rd), vreg(w, g, 0)
    x = w.f[r.rs1]
    b = trunc(x, 16) if x >> 16 == -1 else 0x7FC0
    for i in range(w.vl):
        if r.vm != 0 or mask_bit(m, i):  # (converted here: a signalling NaN is invalid when some element is active)
            st32(d + 4 * i, f_fma(f_cvt(ld16(a + 2 * i), -16, 32), f_cvt(b, -16, 32), ld32(d + 4 * i), 32))
    return OK


# -- conversions
def vcvt_fi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        st(t, i, f_to_i(ld(a, i), W, SEW, SIGNED, RM))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vcvt_if(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        x = ld(a, i)
        st(t, i, i_to_f(sext(x, SEW) if SIGNED == 1 else x, SIGNED, W))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vwcvt_ff(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            continue
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
        if EXACT == 1 and idle(w, r, g, i):
            continue
        if BF == 1:
            st(t, i, f_cvt(ldb(a, i, 2 * SEW), 32, -16))
        elif SEW == 16:
            st(t, i, f_cvt(ldb(a, i, 2 * SEW), 32, 16))
        else:
            st(t, i, f_cvt(ldb(a, i, 2 * SEW), 64, 32))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vwcvt_fi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        stb(t, i, 2 * SEW, f_to_i(ld(a, i), SEW, 2 * SEW, SIGNED, RM))
    return merge_wide(w, r, g, vreg(w, g, r.rd), t)


def vwcvt_if(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        stb(t, i, 2 * SEW, i_to_f(wide_ext(ld(a, i), SIGNED), SIGNED, 2 * SEW))
    return merge_wide(w, r, g, vreg(w, g, r.rd), t)


def vncvt_fi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        st(t, i, f_to_i(ldb(a, i, 2 * SEW), 2 * SEW, SEW, SIGNED, RM))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vncvt_if(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        x = ldb(a, i, 2 * SEW)
        st(t, i, i_to_f(sext(x, 2 * SEW) if SIGNED == 1 else x, SIGNED, SEW))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vncvt_odd(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t, a = address(w.tmp), vreg(w, g, r.rs2)
    for i in lanes(w.vl):
        if EXACT == 1 and idle(w, r, g, i):
            continue
        st(t, i, OP1(ldb(a, i, 2 * SEW)))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


# -- sums of 2*SEW: ordered ones element by element, unordered ones as a tree with the scalar in front (sim/handlers_vector.py: vred)
def vwred(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, m = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), vreg(w, g, 0)
    if w.vl > 0:
        x = ldb(b, 0, 2 * SEW)
        for i in range(w.vl):
            if r.vm != 0 or mask_bit(m, i):
                x = OP(x, wide_ext(ld(a, i), SIGNED))
        stb(d, 0, 2 * SEW, x)
    return OK


def vfwred(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, b, d, t, m = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), address(w.tmp), vreg(w, g, 0)
    if w.vl == 0:
        return OK
    if ORDERED == 1:
        x = ldb(b, 0, W)
        for i in range(w.vl):
            if r.vm != 0 or mask_bit(m, i):
                x = OP(x, f_cvt(ld(a, i), SEW, W))
        stb(d, 0, W, x)
        return OK
    live = 0
    for i in range(w.vl):
        if r.vm != 0 or mask_bit(m, i):
            stb(t, live, W, f_cvt(ld(a, i), SEW, W))
            live += 1
    return tree(d, b, t, live)
