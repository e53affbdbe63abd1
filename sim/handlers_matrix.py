"""Matrix handlers in restricted Python: 32-bit tiles mt0 mt4 mt8 mt12, TE x TE, rows contiguous."""

from __future__ import annotations

from rvgpu.isa.prims import copy, imin, ld8, ld16, ld32, sext, st32, zero
from rvgpu.isa.prims_float import f_cvt, mm_block, mm_one
from rvgpu.isa.prims_host import prefetch
from rvgpu.isa.prims_tile import (
    LEAST_SUM,
    MOST_SUM,
    SEEN_BYTES,
    SIDE,
    calm,
    least_half,
    most_half,
    pair_up,
    tile_block,
    tiles_begin,
    tiles_end,
)
from rvgpu.sim.handlers import host, vreg
from rvgpu.sim.state import F_MEMORY, F_TILE, F_VTYPE, MM_WAITING, OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import address, apart, lanes

SEW, EEW, AS, BS = 32, 32, 1, 1  # bound
AMX = 0  # bound: whether the host multiplies tiles itself


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
    w.mm_calm[n >> 2] = (w.tm << 20) | imin(w.vl, g.te)
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
        multiply_all(w, g, tile)
    gap, row, seen = 4 * g.vlenb, 4 * g.te, seen_at(w, g, tile)
    if w.mm_waiting[tile] == 0:
        w.mm_shape[tile] = w.shape
        for k in range(2):
            for i in lanes(SEEN_BYTES // 8):
                st32(seen + SEEN_BYTES * k + 4 * i, 0xFFFF_FFFF)
                st32(seen + SEEN_BYTES * k + SEEN_BYTES // 2 + 4 * i, 0)
    at, a1, b1 = operands_at(w, g, tile) + 2 * row * w.mm_waiting[tile], a + gap, b + gap
    if w.tk == 1:
        a1 = b1 = address(w.tmp)
        zero(a1, row)
    pair_up(at, a, a1, w.tm, seen)
    pair_up(at + row, b, b1, n, seen + SEEN_BYTES)
    w.mm_waiting[tile] += 1
    if w.mm_waiting[tile] == MM_WAITING:
        multiply_all(w, g, tile)
    return OK


def operands_at(w: Warp, g: Gpu, tile: int) -> int:
    """Where the operands stand that wait for a tile: per step TE pairs of A's numbers, then of B's."""
    return w.operands + tile * MM_WAITING * 8 * g.te


def seen_at(w: Warp, g: Gpu, tile: int) -> int:
    """What `pair_up` has seen of A, then of B."""
    return operands_at(w, g, 4) + tile * 2 * SEEN_BYTES


def wide(x: int, form: int) -> int:
    """A 16-bit number as an f32 pattern."""
    return x << 16 if form != 0 else f_cvt(x, 16, 32)


@apart
def settle(w: Warp, g: Gpu, tile: int) -> int:
    """Does the multiplies that wait for a tile; before anything else reads or writes it."""
    if w.mm_waiting[tile] != 0:
        multiply_all(w, g, tile)
    w.mm_calm[tile] = 0
    return OK


@apart
def multiply_all(w: Warp, g: Gpu, tile: int) -> int:
    steps, n, tm = w.mm_waiting[tile], w.mm_shape[tile] & 0xFFFFF, (w.mm_shape[tile] >> 20) & 0xFFFF
    w.mm_waiting[tile] = 0
    if (w.mm_shape[tile] >> 48) & 1 == 0:
        return multiply(w, g, tile, steps, tm, n, 0)
    if AMX == 1:
        if gentle(w, g, tile, tm, n) != 0:
            return multiply_blocks(w, g, tile, steps, tm, n)
        w.mm_calm[tile] = 0
    return multiply(w, g, tile, steps, tm, n, 1)


def gentle(w: Warp, g: Gpu, tile: int, tm: int, n: int) -> int:
    """Whether no number on the way to the new sums is subnormal or -0, and no product infinite or NaN: factors are far from that, and the sums are,
    or only such products came since they were (`mm_calm`: rows and columns): then they are multiples of 2^-124, as all that is added to them."""
    seen = seen_at(w, g, tile)
    least_a, least_b = (least_half(seen) + 1) >> 8, (least_half(seen + SEEN_BYTES) + 1) >> 8
    most_a, most_b = most_half(seen + SEEN_BYTES // 2) >> 8, most_half(seen + SEEN_BYTES + SEEN_BYTES // 2) >> 8
    if least_a == 0 or least_b == 0 or most_a == 255 or most_b == 255 or least_a + least_b < LEAST_SUM or most_a + most_b > MOST_SUM:
        return 0
    if w.mm_calm[tile] >> 20 < tm or w.mm_calm[tile] & 0xFFFFF < n:
        for row in range(tm):
            if calm(tile_of(w, g, tile) + row * g.te * 4, n) == 0:
                return 0
        w.mm_calm[tile] = (tm << 20) | n
    return 1


def multiply_blocks(w: Warp, g: Gpu, tile: int, steps: int, tm: int, n: int) -> int:
    """On the host's matrix unit. Blocks that are not whole are multiplied in the core's panel."""
    pitch, ops, edge = 4 * g.te, operands_at(w, g, tile), w.panel
    tiles_begin()
    for row in range(0, tm, SIDE):
        for column in range(0, n, SIDE):
            c, a, b = tile_of(w, g, tile) + row * pitch + 4 * column, ops + 4 * row, ops + pitch + 4 * column
            if row + SIDE <= tm and column + SIDE <= n:
                tile_block(c, pitch, a, b, 2 * pitch, steps)
            else:
                rows, part = imin(SIDE, tm - row), 4 * imin(SIDE, n - column)
                for k in range(rows):
                    copy(edge + 4 * SIDE * k, c + k * pitch, part)
                tile_block(edge, 4 * SIDE, a, b, 2 * pitch, steps)
                for k in range(rows):
                    copy(c + k * pitch, edge + 4 * SIDE * k, part)
    tiles_end()
    return OK


def multiply(w: Warp, g: Gpu, tile: int, steps: int, tm: int, n: int, form: int) -> int:
    """`form`: 1 bf16, 0 f16; a constant where this is called. First the operands become f32 in the core's panel: per step two rows of A, then
    of B. Blocks that are not whole are multiplied in a place of their own behind that."""
    te = g.te
    ops, a, pitch = operands_at(w, g, tile), w.panel, 4 * te
    b, edge = a + MM_WAITING * 2 * pitch, a + MM_WAITING * 4 * pitch + 128
    for s in range(steps):
        for k in range(2):
            of = ops + s * 2 * pitch + 2 * k
            of_b, to_a, to_b = of + pitch, a + (2 * s + k) * pitch, b + (2 * s + k) * pitch
            for i in lanes(tm):
                st32(to_a + 4 * i, wide(ld16(of + 4 * i), form))
            for i in lanes(n):
                st32(to_b + 4 * i, wide(ld16(of_b + 4 * i), form))
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
