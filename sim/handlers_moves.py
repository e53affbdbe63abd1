"""Vector moves and permutations in restricted Python: splats, scalar moves, slides, gathers, compress."""

from __future__ import annotations

from rvgpu.isa.meaning import mask_bit
from rvgpu.isa.prims import copy, ld16, sext, st8, ult
from rvgpu.sim.handlers import set_f, set_x, vreg
from rvgpu.sim.handlers_vector import fval, ld, mask_from, masked, merge_in, st, target
from rvgpu.sim.state import OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import address, lanes

SEW, N, UP, BEFORE, AT = 32, 1, 0, 0, 0  # bound


def fill(w: Warp, r: Rec, g: Gpu, x: int) -> int:
    d = vreg(w, g, r.rd)
    for i in lanes(w.vl):
        st(d, i, x)
    return OK


def vmv_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    copy(vreg(w, g, r.rd), vreg(w, g, r.rs1), w.vl * (SEW >> 3))
    return OK


def vmv_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fill(w, r, g, w.x[r.rs1])


def vmv_vi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fill(w, r, g, r.imm)


def vmv_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fill(w, r, g, fval(w, r))


def vmv_xs(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_x(w, r, sext(ld(vreg(w, g, r.rs2), 0), SEW))


def vmv_sx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    if w.vl > 0:
        st(vreg(w, g, r.rd), 0, w.x[r.rs1])
    return OK


def vfmv_fs(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_f(w, r.rd, ld(vreg(w, g, r.rs2), 0))


def vfmv_sf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    if w.vl > 0:
        st(vreg(w, g, r.rd), 0, fval(w, r))
    return OK


def vmvr(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    copy(vreg(w, g, r.rd), vreg(w, g, r.rs2), N * g.vlenb)
    return OK


def vid(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    d, n = vreg(w, g, r.rd), w.vl
    t = target(w, r, d)
    for i in lanes(n):
        st(t, i, i)
    return masked(w, r, g, d, n)


def viota(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, t, total = vreg(w, g, r.rs2), address(w.tmp), 0
    m = vreg(w, g, 0)
    for i in range(w.vl):
        st(t, i, total)
        total += mask_bit(a, i) & (r.vm | mask_bit(m, i))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vmset(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """BEFORE in front of the first active set bit, AT there, 0 behind it."""
    a, m, t, found = vreg(w, g, r.rs2), vreg(w, g, 0), address(w.tmp), 0
    for i in range(w.vl):
        x = mask_bit(a, i) & (r.vm | mask_bit(m, i))
        st8(t + i, 0 if found else AT if x else BEFORE)
        found = found | x
    return mask_from(w, r, g, t)


def slide(w: Warp, r: Rec, g: Gpu, n: int) -> int:
    a, d, t = vreg(w, g, r.rs2), vreg(w, g, r.rd), address(w.tmp)
    most = w.lmul8 * g.vlenb // SEW
    for i in lanes(w.vl):
        j = i - n if UP == 1 else i + n
        if UP == 1:
            st(t, i, ld(a, j) if ult(i, n) == 0 else ld(d, i))
        else:
            st(t, i, ld(a, j) if ult(n, most) and j < most else 0)
    return merge_in(w, r, g, d, t, w.vl)


def vslide_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return slide(w, r, g, w.x[r.rs1])


def vslide_vi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return slide(w, r, g, r.imm)


def slide1(w: Warp, r: Rec, g: Gpu, x: int) -> int:
    a, t, n = vreg(w, g, r.rs2), address(w.tmp), w.vl
    for i in lanes(n):
        if UP == 1:
            st(t, i, ld(a, i - 1) if i > 0 else x)
        else:
            st(t, i, ld(a, i + 1) if i < n - 1 else x)
    return merge_in(w, r, g, vreg(w, g, r.rd), t, n)


def vslide1_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return slide1(w, r, g, w.x[r.rs1])


def vslide1_vf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return slide1(w, r, g, fval(w, r))


def gather(w: Warp, r: Rec, g: Gpu, j: int) -> int:
    a = vreg(w, g, r.rs2)
    return ld(a, j) if ult(j, w.lmul8 * g.vlenb // SEW) else 0


def vrgather_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    b, t = vreg(w, g, r.rs1), address(w.tmp)
    for i in lanes(w.vl):
        st(t, i, gather(w, r, g, ld(b, i)))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vrgatherei16_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    b, t = vreg(w, g, r.rs1), address(w.tmp)
    for i in lanes(w.vl):
        st(t, i, gather(w, r, g, ld16(b + 2 * i)))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vrgather_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t = address(w.tmp)
    for i in lanes(w.vl):
        st(t, i, gather(w, r, g, w.x[r.rs1]))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vrgather_vi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    t = address(w.tmp)
    for i in lanes(w.vl):
        st(t, i, gather(w, r, g, r.imm))
    return merge_in(w, r, g, vreg(w, g, r.rd), t, w.vl)


def vcompress(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    a, m, d, n = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), 0
    for i in range(w.vl):
        if mask_bit(m, i):
            st(d, n, ld(a, i))
            n += 1
    return OK
