"""Vector loads and stores in restricted Python. Unit-stride ranges are checked once; masked-off elements are not touched.

Where a range is not all accessible, or vstart is not 0, elements go one by one: those before the first that faults are done, and vstart says which it
is. A segment counts as one element.
"""

from __future__ import annotations

from rvgpu.isa.meaning import mask_bit
from rvgpu.isa.prims import copy, imax, wrap
from rvgpu.isa.prims_host import prefetch
from rvgpu.sim.handlers import host, reshape, vreg
from rvgpu.sim.handlers_vector import ld, ldb, st, stb
from rvgpu.sim.state import F_MEMORY, OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import apart

SEW, EEW, N = 32, 32, 1  # bound


def stopped(w: Warp, i: int) -> int:
    """Element i faults."""
    w.vstart = i
    reshape(w)
    return F_MEMORY


def ended(w: Warp) -> int:
    if w.vstart != 0:
        w.vstart = 0
        reshape(w)
    return OK


def move(c: Core, w: Warp, r: Rec, g: Gpu, n: int, write: int) -> int:
    """n bytes between memory and the registers from rd on."""
    p = host(c, w, g, w.x[r.rs1], n, write)
    if (p == 0 and n > 0) or w.vstart != 0:
        return move_elements(c, w, r, g, n, write)
    d = vreg(w, g, r.rd)
    if write == 1:
        copy(p, d, n)
    else:
        fetch_next(w, p)
        copy(d, p, n)
    w.mem_bytes = n
    return OK


def fetch_next(w: Warp, p: int) -> int:
    """The host fetches two of its lines from where the load that reads at p reads next, if it goes on in equal steps."""
    place = w.pc & 31
    ahead = p + w.mem_addr - w.seen[place]
    w.seen[place] = w.mem_addr
    prefetch(ahead)
    prefetch(ahead + 64)
    return 0


@apart
def move_elements(c: Core, w: Warp, r: Rec, g: Gpu, n: int, write: int) -> int:
    """`move`, of elements of EEW bits from vstart on."""
    size = EEW >> 3
    for i in range(w.vstart, n // size):
        p = host(c, w, g, wrap(w.x[r.rs1] + i * size), size, write)
        if p == 0:
            return stopped(w, i)
        d = vreg(w, g, r.rd) + i * size
        if write == 1:
            copy(p, d, size)
        else:
            copy(d, p, size)
        w.mem_bytes = size
    return ended(w)


def unit(c: Core, w: Warp, r: Rec, g: Gpu, write: int, first: int) -> int:
    """`first`: only a fault of element 0 is one; before another that faults vl ends."""
    n = w.vl * (EEW >> 3)
    if r.vm != 0 and first == 0:
        return move(c, w, r, g, n, write)
    p = host(c, w, g, w.x[r.rs1], n, write)
    if (p == 0 and n > 0) or w.vstart != 0:
        return elements(c, w, r, g, EEW >> 3, 0, EEW, write, first)
    d, m = vreg(w, g, r.rd), vreg(w, g, 0)
    if r.vm != 0:
        copy(d, p, n)
    else:
        for i in range(w.vl):
            if mask_bit(m, i):
                if write == 1:
                    stb(p, i, EEW, ldb(d, i, EEW))
                else:
                    stb(d, i, EEW, ldb(p, i, EEW))
    w.mem_bytes = n
    return OK


def vload_unit(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return unit(c, w, r, g, 0, 0)


def vstore_unit(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return unit(c, w, r, g, 1, 0)


def vload_ff(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return unit(c, w, r, g, 0, 1)


def each(c: Core, w: Warp, r: Rec, g: Gpu, i: int, addr: int, write: int) -> int:
    """One element of a strided access."""
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
    base, step, start = w.x[r.rs1], w.x[r.rs2], w.vstart
    for i in range(start, w.vl):
        if each(c, w, r, g, i, wrap(base + i * step), write) != OK:
            return stopped(w, i)
    w.mem_bytes = EEW >> 3
    w.mem_stride = step
    w.mem_count = imax(w.vl - start, 0)
    return ended(w)


def vload_strided(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return strided(c, w, r, g, 0)


def vstore_strided(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return strided(c, w, r, g, 1)


def each_sew(c: Core, w: Warp, r: Rec, g: Gpu, i: int, addr: int, write: int) -> int:
    """One element of an indexed access."""
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
    base, ids, start = w.x[r.rs1], vreg(w, g, r.rs2), w.vstart
    for i in range(start, w.vl):
        if each_sew(c, w, r, g, i, wrap(base + ldb(ids, i, EEW)), write) != OK:
            return stopped(w, i)
    w.mem_bytes = SEW >> 3
    w.mem_stride = 64
    w.mem_count = imax(w.vl - start, 0)
    return ended(w)


def vload_indexed(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return indexed(c, w, r, g, 0)


def vstore_indexed(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return indexed(c, w, r, g, 1)


# -- segments: field f of all of them is in the f-th group from rd on
def segment(c: Core, w: Warp, r: Rec, g: Gpu, i: int, addr: int, bits: int, write: int) -> int:
    size = bits >> 3
    p = host(c, w, g, addr, r.fields * size, write)
    if p == 0:
        for f in range(r.fields):  # the field that faults
            if host(c, w, g, wrap(addr + f * size), size, write) == 0:
                break
        return F_MEMORY
    d, group = vreg(w, g, r.rd), imax(1, (w.lmul8 * bits) >> (w.sew + 6)) * g.vlenb
    for f in range(r.fields):
        if write == 1:
            stb(p + f * size, 0, bits, ldb(d + f * group, i, bits))
        else:
            stb(d + f * group, i, bits, ldb(p + f * size, 0, bits))
    return OK


@apart
def elements(c: Core, w: Warp, r: Rec, g: Gpu, step: int, by_index: int, bits: int, write: int, first: int) -> int:
    """Segments (or elements) `step` bytes apart, or at the offsets in vector rs2."""
    base, m, start = w.x[r.rs1], vreg(w, g, 0), w.vstart
    for i in range(start, w.vl):
        if r.vm != 0 or mask_bit(m, i):
            addr = wrap(base + (ldb(vreg(w, g, r.rs2), i, EEW) if by_index == 1 else i * step))
            if segment(c, w, r, g, i, addr, bits, write) != OK:
                if first == 0 or i == 0:
                    return stopped(w, i)
                w.vl = i
                reshape(w)
                break
    w.mem_bytes = r.fields * (bits >> 3)
    w.mem_stride = 64 if by_index == 1 else step
    w.mem_count = imax(w.vl - start, 0)
    return ended(w)


def vload_segment(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return elements(c, w, r, g, r.fields * (EEW >> 3), 0, EEW, 0, 0)


def vload_segment_ff(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return elements(c, w, r, g, r.fields * (EEW >> 3), 0, EEW, 0, 1)


def vload_segment_strided(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return elements(c, w, r, g, w.x[r.rs2], 0, EEW, 0, 0)


def vload_segment_indexed(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return elements(c, w, r, g, 0, 1, SEW, 0, 0)


def vstore_segment(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return elements(c, w, r, g, r.fields * (EEW >> 3), 0, EEW, 1, 0)


def vstore_segment_strided(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return elements(c, w, r, g, w.x[r.rs2], 0, EEW, 1, 0)


def vstore_segment_indexed(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return elements(c, w, r, g, 0, 1, SEW, 1, 0)


# -- whole registers and masks
def vload_whole(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return move(c, w, r, g, N * g.vlenb, 0)


def vstore_whole(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return move(c, w, r, g, N * g.vlenb, 1)


def vload_mask(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return move(c, w, r, g, (w.vl + 7) >> 3, 0)


def vstore_mask(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return move(c, w, r, g, (w.vl + 7) >> 3, 1)
