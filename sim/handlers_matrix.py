"""Matrix handlers in restricted Python: 32-bit tiles mt0 mt4 mt8 mt12, TE x TE, rows contiguous."""

from __future__ import annotations

from rvgpu.isa.prims import copy, imin, ld8, ld16, ld32, sext, st32, zero
from rvgpu.isa.prims_float import f_cvt, mm_block, mm_one
from rvgpu.isa.prims_host import prefetch
from rvgpu.sim.handlers import host, vreg
from rvgpu.sim.state import F_MEMORY, F_TILE, F_VTYPE, MM_WAITING, OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import apart, lanes

SEW, EEW, AS, BS = 32, 32, 1, 1  # bound


def tile_at(w: Warp, g: Gpu, subset: int) -> int:
    """Host address of element 0 of a tile's row or column, or 0 (bad tile number or index)."""
    n, kind, index = (subset >> 27) & 15, (subset >> 24) & 7, subset & 0xFFFFFF
    if n & 3 != 0 or kind > 1 or index >= g.te or subset >> 31 != 0:
        w.fault_addr = subset
        return 0
    settle(w, g, n >> 2)
    return tile_of(w, g, n >> 2) + index * (4 if kind == 1 else 4 * g.te)


def step_of(g: Gpu, subset: int) -> int:
    return 4 * g.te if (subset >> 24) & 7 == 1 else 4


def vtmv_vt(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    p = tile_at(w, g, w.x[r.rs1])
    if p == 0 or SEW != 32:
        return F_TILE
    d, step = vreg(w, g, r.rd), step_of(g, w.x[r.rs1])
    n = imin(w.vl, g.te)
    if step == 4:
        copy(d, p, 4 * n)
    else:
        for i in lanes(n):
            st32(d + 4 * i, ld32(p + i * step))
    return OK


def vtmv_tv(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    p = tile_at(w, g, w.x[r.rs1])
    if p == 0 or SEW != 32:
        return F_TILE
    s, step = vreg(w, g, r.rs2), step_of(g, w.x[r.rs1])
    n = imin(w.vl, g.te)
    if step == 4:
        copy(p, s, 4 * n)
    else:
        for i in lanes(n):
            st32(p + i * step, ld32(s + 4 * i))
    return OK


def tile_row(c: Core, w: Warp, r: Rec, g: Gpu, write: int) -> int:
    """A row or column between a tile and memory."""
    t = tile_at(w, g, w.x[r.rs2])
    n = imin(w.vl, g.te)
    if t == 0 or EEW != 32:
        return F_TILE
    p = host(c, w, g, w.x[r.rs1], 4 * n, write)
    if p == 0 and n > 0:
        return F_MEMORY
    step = step_of(g, w.x[r.rs2])
    for i in range(n):
        if write == 1:
            st32(p + 4 * i, ld32(t + i * step))
        else:
            st32(t + i * step, ld32(p + 4 * i))
    w.mem_bytes = 4 * n
    return OK


def vlte(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return tile_row(c, w, r, g, 0)


def vste(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return tile_row(c, w, r, g, 1)


def vtzero(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    n = r.rd >> 1
    if n & 3 != 0:
        return F_TILE
    settle(w, g, n >> 2)
    p = tile_of(w, g, n >> 2)
    for row in range(w.tm):
        zero(p + row * g.te * 4, 4 * imin(w.vl, g.te))
    return OK


def tile_of(w: Warp, g: Gpu, n: int) -> int:
    return w.tiles + n * g.te * g.te * 4


def mm_ff(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """f32 += f16, bf16 or f32 products; k ascending; 16-bit products in pairs. Those wait, at most MM_WAITING for each tile and all under one
    configuration, and are done together: the tile goes through the host's caches once."""
    if w.twiden != 3 - w.sew or SEW < 16 or SEW > 32:
        return F_VTYPE
    a, b, n, tile = vreg(w, g, r.rs2), vreg(w, g, r.rs1), w.vl, r.rd >> 3
    w.macs += w.tm * n * w.tk
    if w.tk == 0:
        return OK
    if SEW == 32:
        settle(w, g, tile)
        for row in range(w.tm):
            x = ld32(a + 4 * row)
            q = tile_of(w, g, tile) + row * g.te * 4
            for i in lanes(n):
                st32(q + 4 * i, mm_one(ld32(q + 4 * i), x, ld32(b + 4 * i)))
        return OK
    if w.mm_waiting[tile] > 0 and w.mm_shape[tile] != w.shape:
        settle(w, g, tile)
    gap, row = 4 * g.vlenb, 2 * g.te
    at = w.operands + (tile * MM_WAITING + w.mm_waiting[tile]) * 4 * row
    copy(at, a, 2 * w.tm)
    copy(at + 2 * row, b, 2 * n)
    if w.tk > 1:
        copy(at + row, a + gap, 2 * w.tm)
        copy(at + 3 * row, b + gap, 2 * n)
    else:
        zero(at + row, 2 * w.tm)
        zero(at + 3 * row, 2 * n)
    w.mm_shape[tile] = w.shape
    w.mm_waiting[tile] += 1
    if w.mm_waiting[tile] == MM_WAITING:
        settle(w, g, tile)
    return OK


def wide(x: int, form: int) -> int:
    """A 16-bit number as an f32 pattern."""
    return x << 16 if form != 0 else f_cvt(x, 16, 32)


@apart
def settle(w: Warp, g: Gpu, tile: int) -> int:
    """Does the multiplies that wait for a tile; before anything else reads or writes it."""
    steps = w.mm_waiting[tile]
    if steps != 0:
        w.mm_waiting[tile] = 0
        if (w.mm_shape[tile] >> 48) & 1 != 0:
            multiply(w, g, tile, steps, 1)
        else:
            multiply(w, g, tile, steps, 0)
    return OK


def multiply(w: Warp, g: Gpu, tile: int, steps: int, form: int) -> int:
    """`form`: 1 bf16, 0 f16; a constant where this is called. First the operands become f32 in the core's panel: per step two rows of A, then
    of B. Blocks that are not whole are multiplied in a place of their own behind that."""
    n, tm, te = w.mm_shape[tile] & 0xFFFFF, (w.mm_shape[tile] >> 20) & 0xFFFF, g.te
    ops, a, pitch = w.operands + tile * MM_WAITING * 8 * te, w.panel, 4 * te
    b, edge = a + MM_WAITING * 2 * pitch, a + MM_WAITING * 4 * pitch + 128
    for s in range(steps):
        for k in range(2):
            of = ops + s * 8 * te + k * 2 * te
            of_b, to_a, to_b = of + 4 * te, a + (2 * s + k) * pitch, b + (2 * s + k) * pitch
            for i in lanes(tm):
                st32(to_a + 4 * i, wide(ld16(of + 2 * i), form))
            for i in lanes(n):
                st32(to_b + 4 * i, wide(ld16(of_b + 2 * i), form))
    for row in range(0, tm, 2):
        q = tile_of(w, g, tile) + row * pitch
        for column in range(0, n, 32):
            c, x, y = q + 4 * column, a + 4 * row, b + 4 * column
            if column + 32 <= n and row + 1 < tm:
                prefetch(c + 2 * pitch)
                prefetch(c + 2 * pitch + 64)
                prefetch(c + 3 * pitch)
                prefetch(c + 3 * pitch + 64)
                mm_block(c, c + pitch, x, y, pitch, steps)
            else:
                part = 4 * imin(32, n - column)
                copy(edge, c, part)
                if row + 1 < tm:
                    copy(edge + 128, c + pitch, part)
                mm_block(edge, edge + 128, x, y, pitch, steps)
                copy(c, edge, part)
                if row + 1 < tm:
                    copy(c + pitch, edge + 128, part)
    return OK


def mm_ii(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """i32 += products of four 8-bit rows, wrapping."""
    if w.twiden != 3 or SEW != 8:
        return F_VTYPE
    a, b = vreg(w, g, r.rs2), vreg(w, g, r.rs1)
    p, n, gap = tile_of(w, g, r.rd >> 3), w.vl, 2 * g.vlenb
    settle(w, g, r.rd >> 3)
    w.macs += w.tm * n * w.tk
    for k in range(w.tk):
        for row in range(w.tm):
            x = ld8(a + k * gap + row)
            x = sext(x, 8) if AS == 1 else x
            q = p + row * g.te * 4
            for i in lanes(n):
                y = ld8(b + k * gap + i)
                st32(q + 4 * i, ld32(q + 4 * i) + x * (sext(y, 8) if BS == 1 else y))
    return OK
