"""Checked mode's rules of vector loads and stores, and of the matrix unit's tiles."""

from __future__ import annotations

from rvgpu.isa.meaning import mask_bit
from rvgpu.isa.prims import imax, imin, ld64, lshr, sel, wrap
from rvgpu.sim.check_lanes import active, dirty, element, group_bytes, lost, settled, tail, unknown, wrote
from rvgpu.sim.check_memory import IN_DRAM, NOWHERE, piece, reachable, span
from rvgpu.sim.check_scalar import need
from rvgpu.sim.check_state import (
    MISALIGNED,
    O_AGNOSTIC,
    O_DISCARDED,
    O_MEMORY,
    O_OUTSIDE,
    R_TILE,
    R_V,
    S_ADDRESS,
    S_DRAM,
    S_MASK,
    S_OPERAND,
    S_TILE,
    TILE_WIDTH,
    WRITE,
    Check,
    Shadow,
    finding,
    get_bits,
    low,
    lowest,
    of,
    origin,
    put,
    put_bits,
    undefined,
    vbits,
)
from rvgpu.sim.handlers import vreg
from rvgpu.sim.handlers_vector import ldb
from rvgpu.sim.state import OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import apart, ptr

SEW, EEW, N, NF, STORE, INDEXED, UNIT, FIRST = 32, 32, 1, 1, 0, 0, 0, 0  # bound


@apart
def move_bits(c: Core, w: Warp, g: Gpu, reg: int, at: int, which: int, store: int, width: int) -> int:
    """Between memory that was located last and 64 bytes of the group at `reg`, from its byte `at` on. A load's undefined bytes come from
    memory; a store's must not reach a tensor."""
    k, s = ptr(Check, g.check), ptr(Shadow, of(w, g))
    d = vbits(s, g, reg) + (at >> 6 << 3)
    if store != 0:
        u = ld64(d) & which
        if u != 0 and k.region == IN_DRAM:
            byte = at + lowest(u)
            return undefined(g, S_DRAM, R_V + reg + byte // g.vlenb, byte % g.vlenb // width, s.v_from[reg + byte // g.vlenb])
        put_bits(k.at_undefined, k.off, u, which)
        return OK
    u = get_bits(k.at_undefined, k.off) & which
    put(d, u, which)
    if u != 0:
        byte = at + lowest(u)
        for n in range(byte // g.vlenb, (imin(at + 64, 8 * g.vlenb) + g.vlenb - 1) // g.vlenb):
            if reg + n < 32:
                s.v_from[reg + n] = origin(O_MEMORY, w, mem_address(c, g, k) + lowest(u))
    return OK


def mem_address(c: Core, g: Gpu, k: Check) -> int:
    return k.off + (0x1000_0000 if k.region == 1 else 0x8000_0000)


@apart
def contiguous(c: Core, w: Warp, r: Rec, g: Gpu, n: int, how: int) -> int:
    """n bytes between memory and the registers from rd on."""
    addr, k, width = w.x[r.rs1], ptr(Check, g.check), EEW >> 3
    f = OK
    if w.vstart != 0:
        for i in range(w.vstart, n // width):
            f = one(c, w, g, r.rd, i, wrap(addr + i * width), width)
            if f != OK:
                return f
        return OK
    f = span(c, w, g, addr, n, how)
    if f != OK or k.region == NOWHERE:
        return f
    off = k.off
    for i in range(0, n, 64):
        k.off = off + i
        f = move_bits(c, w, g, r.rd, i, low(n - i), STORE, EEW >> 3)
        if f != OK:
            return f
    return OK


@apart
def start(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """The base address is defined and suits the elements; so is a mask."""
    s = ptr(Shadow, of(w, g))
    f = need(g, s, r.rs1, S_ADDRESS)
    if f != OK:
        return f
    if w.x[r.rs1] & ((EEW >> 3) - 1) != 0 and INDEXED == 0:
        return finding(g, MISALIGNED, w.x[r.rs1], EEW >> 3, STORE * WRITE)
    if r.vm == 0 and STORE == 1:
        for i in range(0, w.vl, 64):
            bad = unknown(s, g, 0, i) & low(w.vl - i)
            if bad != 0:
                return undefined(g, S_MASK, R_V, i + lowest(bad), s.v_from[0])
    return OK


def unit(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s, k, n, shift = ptr(Shadow, of(w, g)), ptr(Check, g.check), w.vl * (EEW >> 3), 0 if EEW == 8 else 1 if EEW == 16 else 2 if EEW == 32 else 3
    f = start(c, w, r, g)
    if f != OK or n == 0:
        return f
    if r.vm == 0 and w.vstart != 0:
        return scattered(c, w, r, g)
    if r.vm != 0:
        f = contiguous(c, w, r, g, n, STORE * WRITE)
    else:
        masked = dirty(s, g, 0, w.vl)
        for i in range(0, n, 64):
            on = active(w, g, i, shift) & low(n - i)
            f = piece(c, w, g, wrap(w.x[r.rs1] + i), on, STORE * WRITE)
            if f != OK:
                return f
            if k.region != NOWHERE:
                f = move_bits(c, w, g, r.rd, i, on, STORE, EEW >> 3)
                if f != OK:
                    return f
            if STORE == 0:
                no = lost(s, g, i, shift) if masked != 0 else 0
                rest = low(n - i) & ~on
                put(vbits(s, g, r.rd) + (i >> 3), -1, no & low(n - i))
                if w.vtype & 128 != 0:
                    put(vbits(s, g, r.rd) + (i >> 3), -1, rest)
                    if no == 0 and rest != 0:
                        s.v_from[r.rd + i // g.vlenb] = origin(O_AGNOSTIC, w, 0)
    if f == OK and STORE == 0:
        settled(w, r, g, s, EEW >> 3)
    return f


@apart
def one(c: Core, w: Warp, g: Gpu, reg: int, i: int, addr: int, width: int) -> int:
    """Element i of group `reg` of an access element by element."""
    if addr & (width - 1) != 0:
        return finding(g, MISALIGNED, addr, width, STORE * WRITE)
    f, k, at = span(c, w, g, addr, width, STORE * WRITE), ptr(Check, g.check), i * width
    if f != OK or k.region == NOWHERE:
        return f
    s, reg_at = ptr(Shadow, of(w, g)), reg + at // g.vlenb
    d, shift = vbits(s, g, reg) + (at >> 6 << 3), at & 63
    if STORE == 1:
        u = lshr(ld64(d), shift) & low(width)
        if u != 0 and k.region == IN_DRAM:
            return undefined(g, S_DRAM, R_V + reg_at, at % g.vlenb // width, s.v_from[reg_at])
        return put_bits(k.at_undefined, k.off, u, low(width))
    u = get_bits(k.at_undefined, k.off) & low(width)
    put(d, wrap(u << shift), wrap(low(width) << shift))
    if u != 0:
        s.v_from[reg_at] = origin(O_MEMORY, w, addr + lowest(u))
    return OK


@apart
def unread(w: Warp, g: Gpu, reg: int, i: int, width: int, source: int) -> int:
    """Element i of group `reg` is undefined."""
    s, at = ptr(Shadow, of(w, g)), i * width
    put(vbits(s, g, reg) + (at >> 6 << 3), -1, wrap(low(width) << (at & 63)))
    s.v_from[reg + at // g.vlenb] = source
    return OK


def scattered(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Element by element, NF fields each: strided (by x), indexed (by vs2, elements of SEW), or one after the other (UNIT). FIRST: what follows the
    first element is read as far as there is something; beyond, it is undefined."""
    s, m, width = ptr(Shadow, of(w, g)), vreg(w, g, 0), SEW >> 3 if INDEXED == 1 else EEW >> 3
    f = start(c, w, r, g)
    if f == OK and INDEXED == 0 and UNIT == 0:
        f = need(g, s, r.rs2, S_ADDRESS)
    if f != OK or w.vl == 0:
        return f
    registers, ended = imax(1, (w.lmul8 * 8 * width) >> (w.sew + 6)), 0
    for i in range(w.vstart, w.vl):
        on = 1 if r.vm != 0 else mask_bit(m, i)
        offset = 0
        if on:
            if INDEXED == 1:
                if element(s, g, r.rs2, i, EEW >> 3):
                    reg = r.rs2 + i * (EEW >> 3) // g.vlenb
                    return undefined(g, S_ADDRESS, R_V + reg, i * (EEW >> 3) % g.vlenb // (EEW >> 3), s.v_from[reg])
                offset = ldb(vreg(w, g, r.rs2), i, EEW)
            else:
                offset = i * NF * width if UNIT == 1 else i * w.x[r.rs2]
        no = 0
        if r.vm == 0:
            no = (unknown(s, g, 0, i & ~7) >> (i & 7)) & 1
        for field in range(NF):
            reg, addr = r.rd + field * registers, wrap(w.x[r.rs1] + offset + field * width)
            if on:
                if FIRST == 1 and i > 0:
                    if ended != 0 or reachable(c, w, g, addr, width) == 0:
                        ended = 1
                        unread(w, g, reg, i, width, origin(O_MEMORY, w, addr))
                if ended == 0:
                    f = one(c, w, g, reg, i, addr, width)
                    if f != OK:
                        return f
            if STORE == 0:
                if no != 0 or (on == 0 and w.vtype & 128 != 0):
                    unread(w, g, reg, i, width, s.v_from[0] if no != 0 else origin(O_AGNOSTIC, w, 0))
    if STORE == 0:
        for field in range(NF):
            wrote(s, r.rd + field * registers, registers)
            tail(w, g, s, r.rd + field * registers, w.vl * width, registers * g.vlenb)
    return OK


def whole(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    f, s = start(c, w, r, g), ptr(Shadow, of(w, g))
    if f != OK:
        return f
    f = contiguous(c, w, r, g, N * g.vlenb, STORE * WRITE)
    return f if STORE == 1 else wrote(s, r.rd, N) + f


def mask(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """vlm, vsm: bytes; a load's other bytes are its tail."""
    f, s, n = start(c, w, r, g), ptr(Shadow, of(w, g)), (w.vl + 7) >> 3
    if f != OK or n == 0:
        return f
    f = contiguous(c, w, r, g, n, STORE * WRITE)
    if f == OK and STORE == 0:
        wrote(s, r.rd, 1)
        tail(w, g, s, r.rd, n, g.vlenb)
    return f


# -- tiles
def tile_bits(s: Shadow, g: Gpu, tile: int, element_at: int) -> int:
    """The host address of the byte that holds an element's bit."""
    return s.tiles + ((tile * g.te * g.te + element_at) >> 3)


def tile_get(s: Shadow, g: Gpu, tile: int, at: int) -> int:
    return (ld64(tile_bits(s, g, tile, at)) >> (at & 7)) & 1


def tile_put(s: Shadow, g: Gpu, tile: int, at: int, u: int) -> int:
    return put(tile_bits(s, g, tile, at), -u, 1 << (at & 7))


def tew(w: Warp) -> int:
    """Tile element width of the configuration in bits: SEW x twiden."""
    return 8 << (w.sew + imax(w.twiden - 1, 0))


def row_bits(s: Shadow, g: Gpu, tile: int, row: int, u: int, first: int, end: int) -> int:
    """Columns first..end of a row."""
    for column in range(first, end):
        tile_put(s, g, tile, row * g.te + column, u)
    return OK


def row_set(s: Shadow, g: Gpu, tile: int, row: int, u: int, first: int, end: int) -> int:
    """The same by words where a row has whole ones."""
    if g.te & 63 != 0:
        return row_bits(s, g, tile, row, u, first, end)
    for i in range(first & ~63, end, 64):
        which = low(end - i)
        if i < first:
            which = which & wrap(-1 << (first - i))
        put(tile_bits(s, g, tile, row * g.te + i), -u, which)
    return OK


def made(s: Shadow, number: int, bits: int) -> int:
    """Tile `number` was written with elements of that many bits; it takes as many of the sixteen 8-bit tiles."""
    for i in range(4 if bits == 32 else 1 if bits == 8 else 2):
        s.tew[(number + i) & 15] = bits
    return OK


@apart
def other_width(w: Warp, g: Gpu, s: Shadow, number: int, bits: int, write: int) -> int:
    """Tiles that are not of 32 bits are followed by their width alone."""
    if write == 0 and s.tew[number] != bits and s.tew[number] != 0:
        return wrong_width(w, g, s, number, bits)
    made(s, number, bits)
    return OK


@apart
def zeroed(w: Warp, g: Gpu, s: Shadow, number: int) -> int:
    rows, columns, tile = w.tm, imin(w.vl, g.te), number >> 2
    if rows == 0 or columns == 0:
        return OK
    if tew(w) != 32 or number & 3 != 0:
        return other_width(w, g, s, number, tew(w), 1)
    made(s, number, 32)
    if s.rows[tile] >= rows and s.columns[tile] >= columns:
        return OK
    for row in range(rows):
        row_set(s, g, tile, row, 0, 0, columns)
    s.out_rows[tile] = imax(s.out_rows[tile], rows)
    s.out_columns[tile] = imax(s.out_columns[tile], columns)
    if rows * columns > s.rows[tile] * s.columns[tile]:
        s.rows[tile] = rows
        s.columns[tile] = columns
    return OK


def tile_zero(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return zeroed(w, g, ptr(Shadow, of(w, g)), r.rd >> 1)


@apart
def accumulate(w: Warp, g: Gpu, s: Shadow, number: int) -> int:
    """Reads tm x tn elements of the tile; those outside become agnostic."""
    rows, columns, tile = w.tm, imin(w.vl, g.te), number >> 2
    if tew(w) != 32:
        return other_width(w, g, s, number, tew(w), 0)
    if s.tew[number] != 32 and s.tew[number] != 0:
        return wrong_width(w, g, s, number, 32)
    if rows > s.rows[tile] or columns > s.columns[tile]:
        for row in range(rows):
            for column in range(columns):
                if tile_get(s, g, tile, row * g.te + column):
                    return undefined(g, S_TILE, R_TILE + tile, row * g.te + column, s.tile_from[tile])
        s.rows[tile] = rows
        s.columns[tile] = columns
    if s.out_rows[tile] > rows or s.out_columns[tile] > columns:
        for row in range(s.out_rows[tile]):
            row_set(s, g, tile, row, 1, columns if row < rows else 0, s.out_columns[tile])
        s.out_rows[tile] = rows
        s.out_columns[tile] = columns
        s.rows[tile] = imin(rows, s.rows[tile])
        s.columns[tile] = imin(columns, s.columns[tile])
        s.tile_from[tile] = origin(O_OUTSIDE, w, 0)
    return OK


def wrong_width(w: Warp, g: Gpu, s: Shadow, number: int, bits: int) -> int:
    f, k = finding(g, TILE_WIDTH, 0, 0, 0), ptr(Check, g.check)
    k.reg = number
    k.extra = s.tew[number]
    k.element = bits
    return f


def operand(w: Warp, g: Gpu, s: Shadow, reg: int, n: int) -> int:
    """The tk rows of n elements of an operand of a multiply."""
    width = SEW >> 3
    for row in range(w.tk):
        base = reg + row * 2 * width  # KMAX rows in 8 registers
        for i in range(0, n * width, 64):
            u = ld64(vbits(s, g, base) + (i >> 3)) & low(n * width - i)
            if u != 0:
                byte = i + lowest(u)
                return undefined(g, S_OPERAND, R_V + imin(31, base + byte // g.vlenb), byte % g.vlenb // width,
                                 s.v_from[imin(31, base + byte // g.vlenb)])
    return OK


def multiply(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    if w.tm == 0 or w.vl == 0 or w.tk == 0 or w.twiden == 0:
        return OK
    f = operand(w, g, s, r.rs2, w.tm)
    if f == OK:
        f = operand(w, g, s, r.rs1, w.vl)
    return f if f != OK else accumulate(w, g, s, r.rd >> 1)


def of_other_width(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """A row or column of a tile that is not of 32 bits, and memory."""
    s, n, subset = ptr(Shadow, of(w, g)), imin(w.vl, g.te), w.x[r.rs2]
    f = need(g, s, r.rs1, S_ADDRESS)
    if f == OK:
        f = need(g, s, r.rs2, S_ADDRESS)
    if f == OK and w.x[r.rs1] & ((EEW >> 3) - 1) != 0:
        return finding(g, MISALIGNED, w.x[r.rs1], EEW >> 3, STORE * WRITE)
    if f == OK:
        f = span(c, w, g, w.x[r.rs1], n * (EEW >> 3), STORE * WRITE)
    return f if f != OK else other_width(w, g, s, (subset >> 27) & 15, EEW, 1 - STORE)


def subset_ok(g: Gpu, subset: int) -> int:
    n, kind, index = (subset >> 27) & 15, (subset >> 24) & 7, subset & 0xFFFFFF
    return n & 3 == 0 and kind <= 1 and index < g.te and subset >> 31 == 0


@apart
def tile_read(w: Warp, g: Gpu, s: Shadow, subset: int, reg: int) -> int:
    """A row or column to register group `reg`."""
    tile, index, n = (subset >> 29) & 3, subset & 0xFFFFFF, imin(w.vl, g.te)
    if s.tew[4 * tile] != 32 and s.tew[4 * tile] != 0:
        return wrong_width(w, g, s, 4 * tile, 32)
    column, bad = (subset >> 24) & 1, 0
    if (index < s.columns[tile] and n <= s.rows[tile]) if column != 0 else (index < s.rows[tile] and n <= s.columns[tile]):
        for i in range(0, 4 * n, 64):
            put(vbits(s, g, reg) + (i >> 3), 0, low(4 * n - i))
        return OK
    for i in range(n):
        u = tile_get(s, g, tile, i * g.te + index if column != 0 else index * g.te + i)
        put(vbits(s, g, reg) + (i >> 4 << 3), -u, wrap(15 << (4 * i & 63)))
        bad = bad | u
    if bad != 0:
        for i in range(reg, imin(32, reg + group_bytes(w, g, 4) // g.vlenb)):
            s.v_from[i] = s.tile_from[tile]
    return OK


@apart
def tile_write(w: Warp, g: Gpu, s: Shadow, subset: int, i: int, u: int) -> int:
    """Element i of a row or column."""
    tile, index = (subset >> 29) & 3, subset & 0xFFFFFF
    column_wise = (subset >> 24) & 1
    row, column = sel(column_wise, i, index), sel(column_wise, index, i)
    tile_put(s, g, tile, row * g.te + column, u)
    made(s, 4 * tile, 32)
    s.out_rows[tile] = imax(s.out_rows[tile], row + 1)
    s.out_columns[tile] = imax(s.out_columns[tile], column + 1)
    if u != 0 and row < s.rows[tile] and column < s.columns[tile]:
        s.rows[tile] = 0
        s.columns[tile] = 0
    return OK


def tile_to_v(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    f = need(g, s, r.rs1, S_ADDRESS)
    if f != OK or subset_ok(g, w.x[r.rs1]) == 0 or w.vl == 0:
        return f
    f = tile_read(w, g, s, w.x[r.rs1], r.rd)
    return f if f != OK else settled(w, r, g, s, 4)


def v_to_tile(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    f = need(g, s, r.rs1, S_ADDRESS)
    if f != OK or subset_ok(g, w.x[r.rs1]) == 0:
        return f
    for i in range(imin(w.vl, g.te)):
        u = element(s, g, r.rs2, i, 4)
        tile_write(w, g, s, w.x[r.rs1], i, u)
        if u != 0:
            s.tile_from[(w.x[r.rs1] >> 29) & 3] = s.v_from[r.rs2 + 4 * i // g.vlenb]
    return OK


def tile_memory(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """A row or column between a tile and memory."""
    s, k, n, addr = ptr(Shadow, of(w, g)), ptr(Check, g.check), imin(w.vl, g.te), w.x[r.rs1]
    f = need(g, s, r.rs1, S_ADDRESS)
    if f == OK:
        f = need(g, s, r.rs2, S_ADDRESS)
    subset = w.x[r.rs2]
    if f != OK or subset_ok(g, subset) == 0 or EEW != 32:
        return f
    if addr & 3 != 0:
        return finding(g, MISALIGNED, addr, 4, STORE * WRITE)
    f = span(c, w, g, addr, 4 * n, STORE * WRITE)
    if f != OK or k.region == NOWHERE:
        return f
    tile, index = (subset >> 29) & 3, subset & 0xFFFFFF
    if STORE == 1 and s.tew[4 * tile] != 32 and s.tew[4 * tile] != 0:
        return wrong_width(w, g, s, 4 * tile, 32)
    for i in range(n):
        if STORE == 1:
            at = i * g.te + index if (subset >> 24) & 1 != 0 else index * g.te + i
            u = tile_get(s, g, tile, at)
            if u != 0 and k.region == IN_DRAM:
                return undefined(g, S_DRAM, R_TILE + tile, at, s.tile_from[tile])
            put_bits(k.at_undefined, k.off + 4 * i, -u, 15)
        else:
            u = get_bits(k.at_undefined, k.off + 4 * i) & 15
            tile_write(w, g, s, subset, i, u != 0)
            if u != 0:
                s.tile_from[tile] = origin(O_MEMORY, w, addr + 4 * i)
    return OK


def discard(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    for tile in range(4):
        for row in range(s.out_rows[tile]):
            row_set(s, g, tile, row, 1, 0, s.out_columns[tile])
        s.rows[tile] = 0
        s.columns[tile] = 0
        s.out_rows[tile] = 0
        s.out_columns[tile] = 0
        s.tile_from[tile] = origin(O_DISCARDED, w, 0)
    return OK
