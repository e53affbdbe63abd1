"""Vector loads and stores in restricted Python. Unit-stride ranges are checked once; masked-off elements are not touched."""

from __future__ import annotations

from rvgpu.isa.meaning import mask_bit
from rvgpu.isa.prims import copy, wrap
from rvgpu.sim.handlers import host, vreg
from rvgpu.sim.handlers_vector import ld, ldb, st, stb
from rvgpu.sim.state import F_MEMORY, OK, Core, Gpu, Rec, Warp

SEW, EEW, N = 32, 32, 1  # bound


def move(c: Core, w: Warp, r: Rec, g: Gpu, n: int, write: int) -> int:
    """n bytes between memory and the registers from rd on."""
    p = host(c, w, g, w.x[r.rs1], n, write)
    if p == 0 and n > 0:
        return F_MEMORY
    d = vreg(w, g, r.rd)
    if write == 1:
        copy(p, d, n)
    else:
        copy(d, p, n)
    w.mem_bytes = n
    return OK


def unit(c: Core, w: Warp, r: Rec, g: Gpu, write: int) -> int:
    n = w.vl * (EEW >> 3)
    if r.vm != 0:
        return move(c, w, r, g, n, write)
    p = host(c, w, g, w.x[r.rs1], n, write)
    if p == 0 and n > 0:
        return F_MEMORY
    d, m = vreg(w, g, r.rd), vreg(w, g, 0)
    for i in range(w.vl):
        if mask_bit(m, i):
            if write == 1:
                stb(p, i, EEW, ldb(d, i, EEW))
            else:
                stb(d, i, EEW, ldb(p, i, EEW))
    w.mem_bytes = n
    return OK


def vload_unit(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return unit(c, w, r, g, 0)


def vstore_unit(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return unit(c, w, r, g, 1)


def each(c: Core, w: Warp, r: Rec, g: Gpu, i: int, addr: int, write: int) -> int:
    """One element of a strided or indexed access."""
    m = vreg(w, g, 0)
    if r.vm == 0 and mask_bit(m, i) == 0:
        return OK
    bits = EEW
    p = host(c, w, g, addr, bits >> 3, write)
    if p == 0:
        return F_MEMORY
    d = vreg(w, g, r.rd)
    if write == 1:
        stb(p, 0, bits, ldb(d, i, bits))
    else:
        stb(d, i, bits, ldb(p, 0, bits))
    return OK


def strided(c: Core, w: Warp, r: Rec, g: Gpu, write: int) -> int:
    base, step = w.x[r.rs1], w.x[r.rs2]
    for i in range(w.vl):
        f = each(c, w, r, g, i, wrap(base + i * step), write)
        if f != OK:
            return f
    w.mem_bytes = EEW >> 3
    w.mem_stride = step
    w.mem_count = w.vl
    return OK


def vload_strided(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return strided(c, w, r, g, 0)


def vstore_strided(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return strided(c, w, r, g, 1)


def each_sew(c: Core, w: Warp, r: Rec, g: Gpu, i: int, addr: int, write: int) -> int:
    m = vreg(w, g, 0)
    if r.vm == 0 and mask_bit(m, i) == 0:
        return OK
    p = host(c, w, g, addr, SEW >> 3, write)
    if p == 0:
        return F_MEMORY
    d = vreg(w, g, r.rd)
    if write == 1:
        st(p, 0, ld(d, i))
    else:
        st(d, i, ld(p, 0))
    return OK


def indexed(c: Core, w: Warp, r: Rec, g: Gpu, write: int) -> int:
    base, ids = w.x[r.rs1], vreg(w, g, r.rs2)
    for i in range(w.vl):
        f = each_sew(c, w, r, g, i, wrap(base + ldb(ids, i, EEW)), write)
        if f != OK:
            return f
    w.mem_bytes = SEW >> 3
    w.mem_stride = 64
    w.mem_count = w.vl
    return OK


def vload_indexed(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return indexed(c, w, r, g, 0)


def vstore_indexed(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return indexed(c, w, r, g, 1)


def vload_whole(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return move(c, w, r, g, N * g.vlenb, 0)


def vstore_whole(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return move(c, w, r, g, N * g.vlenb, 1)


def vload_mask(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return move(c, w, r, g, (w.vl + 7) >> 3, 0)


def vstore_mask(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return move(c, w, r, g, (w.vl + 7) >> 3, 1)
