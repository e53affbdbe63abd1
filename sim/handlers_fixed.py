"""Fixed-point and carry handlers in restricted Python: vxrm rounds, what saturates in an active element sets vxsat."""

from __future__ import annotations

from rvgpu.isa.meaning import mask_bit
from rvgpu.isa.prims import st8, trunc
from rvgpu.sim.handlers import vreg
from rvgpu.sim.handlers_vector import OP3, ld, ldb, masked, merge_in, pack, st, target, xval
from rvgpu.sim.state import OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import address, lanes

SEW = 32  # bound


def SAT(a: int, b: int, rm: int) -> int:
    """Bound to an instruction's function of whether it saturates."""
    return 0


def fixed(w: Warp, r: Rec, g: Gpu, b: int, vector: int, wide: int) -> int:
    """`wide`: vs2 has elements of 2*SEW, and the result goes through the scratch row."""
    a, s, d, m, n, rm, vm, sat = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), vreg(w, g, 0), w.vl, w.vxrm, r.vm, 0
    t = address(w.tmp) if wide == 1 else target(w, r, d)
    for i in lanes(n):
        x = ldb(a, i, 2 * SEW) if wide == 1 else ld(a, i)
        y = ld(s, i) if vector == 1 else b
        sat = sat | (SAT(x, y, rm) & (vm | mask_bit(m, i)))
        st(t, i, OP3(x, y, rm))
    w.vxsat = w.vxsat | sat
    return merge_in(w, r, g, d, t, n) if wide == 1 else masked(w, r, g, d, n)


def vfix_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fixed(w, r, g, 0, 1, 0)


def vfix_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fixed(w, r, g, xval(w, r), 0, 0)


def vfix_vi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fixed(w, r, g, trunc(r.imm, SEW), 0, 0)


def vclip_wv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fixed(w, r, g, 0, 1, 1)


def vclip_wx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fixed(w, r, g, w.x[r.rs1], 0, 1)


def vclip_wi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return fixed(w, r, g, r.imm, 0, 1)


# -- sums with carry: v0 holds the carries that come in; all elements are active
def carried(w: Warp, r: Rec, g: Gpu, b: int, vector: int) -> int:
    a, s, d, m = vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, r.rd), vreg(w, g, 0)
    for i in lanes(w.vl):
        st(d, i, OP3(ld(a, i), ld(s, i) if vector == 1 else b, mask_bit(m, i)))
    return OK


def vadc_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return carried(w, r, g, 0, 1)


def vadc_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return carried(w, r, g, xval(w, r), 0)


def vadc_vi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return carried(w, r, g, trunc(r.imm, SEW), 0)


def carries(w: Warp, r: Rec, g: Gpu, b: int, vector: int) -> int:
    """The carries that go out, as a mask; without v0 none come in."""
    t, a, s, m, use = address(w.tmp), vreg(w, g, r.rs2), vreg(w, g, r.rs1), vreg(w, g, 0), 1 - r.vm
    for i in lanes(w.vl):
        st8(t + i, OP3(ld(a, i), ld(s, i) if vector == 1 else b, mask_bit(m, i) & use))
    return pack(w, r, g, t, 0)


def vmadc_vv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return carries(w, r, g, 0, 1)


def vmadc_vx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return carries(w, r, g, xval(w, r), 0)


def vmadc_vi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return carries(w, r, g, trunc(r.imm, SEW), 0)
