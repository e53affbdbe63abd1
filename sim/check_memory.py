"""Checked mode's memory: bounds of tensors and stacks, definedness by byte, and races by happens-before.

A line of 64 bytes has cells {epoch, bytes}: accesses that a later one may still have to be ordered after. An ordered access takes over the
bytes of older ones (writes of all, reads of reads), so a line seldom has more than one cell per warp; when it is full the oldest goes.
"""

from __future__ import annotations

from rvgpu.isa.prims import clz, imax, ld32, ld64, lshr, sext, st64, wrap
from rvgpu.sim.check_state import (
    ATOMIC,
    BY_DMA,
    CLOCKS,
    DMA_CLOCK,
    F_FINDING,
    LIMIT,
    O_MEMORY,
    OUTSIDE,
    R_CTL,
    RACE,
    S_ADDRESS,
    S_DESCRIPTOR,
    S_DRAM,
    SERIALS,
    STACK,
    TOKEN,
    WRITE,
    Check,
    Shadow,
    finding,
    get_bits,
    low,
    lowest,
    of,
    origin,
    put_bits,
    undefined,
)
from rvgpu.sim.control import DST, FILL_BYTES, FILL_ROWS, INDEX, ROW_BYTES, ROWS, SPM, SRC, row_at
from rvgpu.sim.state import AT_BARRIER, OK, STACK_BYTES, WARP_BYTES, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import apart, ptr

NOWHERE, IN_SPM, IN_DRAM, IN_STACK, IN_IMAGE = range(5)
STACK_SLOT = 36864


def serial_of(epoch: int) -> int:
    return (epoch >> 29) & (SERIALS - 1)


def ordered(k: Check, s: Shadow, old: int) -> int:
    """Whether the access `old` happens before what the warp does now."""
    serial = serial_of(old)
    if serial != s.serial:
        return serial < k.first
    actor = (old >> 24) & 31
    return s.clock[actor + DMA_CLOCK if old & BY_DMA != 0 else actor] >= lshr(old, 44)


@apart
def meet(g: Gpu, s: Shadow, at: int, mask: int, epoch: int) -> int:
    """An access to the bytes `mask` of the line whose cells are at `at`; nonzero when an older one is not ordered before it (in `other`).
    Two reads by other CTAs stand for all: whoever writes there later meets one that is not its own."""
    if ld64(at) == epoch and mask & ~ld64(at + 8) == 0:
        return 0
    k = ptr(Check, g.check)
    kept, i, mine, write = 0, 0, mask, epoch & WRITE
    reader, once, twice = -1, 0, 0
    while i < k.room:
        old = ld64(at + i)
        if old == 0:
            break
        held = ld64(at + i + 8)
        both = held & mask
        if old == epoch:
            mine = mine | held
            held = 0
        elif serial_of(old) < k.first:
            held = 0
        elif both != 0:
            if ordered(k, s, old):
                if write != 0 or old & WRITE == 0:
                    held = held & ~mask
            elif (write != 0 or old & WRITE != 0) and old & epoch & ATOMIC == 0:
                k.other = old
                k.bytes = both
                return 1
            elif serial_of(old) != s.serial:
                if reader < 0 or reader == serial_of(old):
                    reader = serial_of(old)
                    once = once | both
                else:
                    twice = twice | both
        if held != 0:
            if kept != i:
                st64(at + kept, old)
            st64(at + kept + 8, held)
            kept += 16
        i += 16
    mine = mine & ~(once & twice)
    if mine != 0:
        if kept == k.room:
            for j in range(16, kept, 8):
                st64(at + j - 16, ld64(at + j))
            kept -= 16
        st64(at + kept, epoch)
        st64(at + kept + 8, mine)
        kept += 16
    if kept < k.room:
        st64(at + kept, 0)
    return 0


def epoch_of(w: Warp, s: Shadow, how: int) -> int:
    clock = w.tokens + 1 if how & BY_DMA != 0 else s.clock[w.warp]
    return wrap(clock << 44) | (s.serial << 29) | (w.warp << 24) | how | w.pc


@apart
def locate(c: Core, w: Warp, g: Gpu, addr: int, n: int, how: int) -> int:
    """Which memory n bytes are in, noted with where its shadow is; NOWHERE when in none (the handler faults). A finding is -1."""
    k = ptr(Check, g.check)
    k.region = NOWHERE
    at = addr - SPM
    if at >= 0 and at <= c.spm_size - n:
        if at + n > k.spm_used:
            finding(g, OUTSIDE, addr, n, how)
            return -1
        k.at_undefined = k.spm_undefined + c.core * (k.spm_lines + 1) * 8
        k.at_cells = k.spm_cells + c.core * k.spm_lines * k.room
        k.off = at
        k.region = IN_SPM
        return IN_SPM
    at = addr - g.base
    if at < 0 or at > g.dram_size - n:
        return NOWHERE
    k.at_undefined = k.dram_undefined
    k.at_cells = k.dram_cells
    k.off = at
    k.region = IN_DRAM
    if addr >= k.stack_low and addr < g.stack:
        top = g.stack - (c.core * 16 + w.warp) * STACK_SLOT
        if addr < top - STACK_BYTES or addr + n > top or (addr < w.x[2] and how & BY_DMA == 0):
            finding(g, STACK, addr, n, how)
            return -1
        k.region = IN_STACK
    elif addr < k.stack_low:
        k.region = IN_IMAGE
    elif (at + n + 63) >> 6 > k.dram_lines:
        finding(g, OUTSIDE, addr, n, how)
        return -1
    return k.region


@apart
def reachable(c: Core, w: Warp, g: Gpu, addr: int, n: int) -> int:
    """Whether an access to n bytes, all in one line, would find something there."""
    k = ptr(Check, g.check)
    where = locate(c, w, g, addr, n, 0)
    if where == IN_DRAM or where == IN_IMAGE:
        return wrap(low(n) << (k.off & 63)) & ~ld64(k.dram_known + 8 * (k.off >> 6)) == 0
    return where > 0


def line_access(g: Gpu, s: Shadow, addr: int, line: int, mask: int, epoch: int) -> int:
    """To bytes of one line, `addr` its address."""
    k = ptr(Check, g.check)
    if k.region != IN_SPM:
        bad = mask & ~ld64(k.dram_known + 8 * line)
        if bad != 0:
            return finding(g, OUTSIDE, addr + lowest(bad), 64 - clz(bad) - lowest(bad), epoch & (WRITE | BY_DMA))
    if k.region != IN_STACK:
        if meet(g, s, k.at_cells + line * k.room, mask, epoch):
            bad = k.bytes
            return finding(g, RACE, addr + lowest(bad), cpop_run(bad), epoch & (WRITE | BY_DMA | ATOMIC))
    return OK


def cpop_run(bits: int) -> int:
    """How many of the bits from the lowest on stand together."""
    x = lshr(bits, lowest(bits))
    return 64 if x == -1 else lowest(~x)


@apart
def span(c: Core, w: Warp, g: Gpu, addr: int, n: int, how: int) -> int:
    """Access to n bytes in a row."""
    k, s = ptr(Check, g.check), ptr(Shadow, of(w, g))
    k.region = NOWHERE
    if n <= 0:
        return OK
    where = locate(c, w, g, addr, n, how)
    if where <= 0:
        return F_FINDING if where < 0 else OK
    off, epoch = k.off, epoch_of(w, s, how)
    for line in range(off >> 6, ((off + n - 1) >> 6) + 1):
        start = line << 6
        mask = wrap(-1 << imax(off - start, 0)) & low(off + n - start)
        f = line_access(g, s, addr - off + start, line, mask, epoch)
        if f != OK:
            return f
    return OK


@apart
def piece(c: Core, w: Warp, g: Gpu, addr: int, bits: int, how: int) -> int:
    """Access to those of the 64 bytes from addr on that `bits` has."""
    k, s = ptr(Check, g.check), ptr(Shadow, of(w, g))
    k.region = NOWHERE
    if bits == 0:
        return OK
    where = locate(c, w, g, addr + lowest(bits), 64 - clz(bits) - lowest(bits), how)
    if where <= 0:
        return F_FINDING if where < 0 else OK
    k.off = k.off - lowest(bits)
    off, epoch = k.off, epoch_of(w, s, how)
    line, shift = off >> 6, off & 63
    if wrap(bits << shift) != 0:
        f = line_access(g, s, addr - shift, line, wrap(bits << shift), epoch)
        if f != OK:
            return f
    if shift != 0 and lshr(bits, 64 - shift) != 0:
        return line_access(g, s, addr - shift + 64, line + 1, lshr(bits, 64 - shift), epoch)
    return OK


# -- the control page
def transfer(c: Core, w: Warp, g: Gpu, addr: int, n: int, how: int) -> int:
    return span(c, w, g, addr, n, how | BY_DMA)


def go(c: Core, w: Warp, r: Rec, g: Gpu, cfg: int) -> int:
    """GO: the source is read and the destination written from now to the WAIT. Definedness moves along at once: whoever looks meanwhile is
    found by the race. Reserved descriptors are the handler's to fault."""
    s = ptr(Shadow, of(w, g))
    for i in range(SRC, INDEX + 1):
        if s.ctl[i] != 0:
            return undefined(g, S_DESCRIPTOR, R_CTL + i, 0, s.ctl_from[i])
    rows, nbytes, size, transpose = w.ctl[ROWS], w.ctl[ROW_BYTES], 1 << (cfg & 3), (cfg >> 2) & 1
    fill_rows, fill_bytes = imax(w.ctl[FILL_ROWS], rows), imax(w.ctl[FILL_BYTES], nbytes)
    if rows < 0 or nbytes < 0 or fill_rows > 1 << 24 or fill_bytes > 1 << 30 or cfg > 7 or cfg < 0 or nbytes % size != 0 or (
            fill_rows * fill_bytes > 1 << 32):
        return OK
    if w.tokens + 2 >= CLOCKS:
        return finding(g, LIMIT, 0, 0, 0)
    if transpose != 0 and fill_rows > 0:
        return go_transposed(c, w, r, g, rows, nbytes, size, fill_rows, fill_bytes)
    for row in range(fill_rows):
        take = nbytes if row < rows else 0
        src, dst = 0, row_at(w, DST, row)
        if take > 0:
            f = source_row(c, w, r, g, row)
            if f != OK:
                return f
            src = ptr(Check, g.check).extra
            f = transfer(c, w, g, src, take, 0)
            if f != OK:
                return f
        base, off = ptr(Check, g.check).at_undefined, ptr(Check, g.check).off
        if take > 0 and ptr(Check, g.check).region == NOWHERE:
            return OK
        f = transfer(c, w, g, dst, fill_bytes, WRITE)
        if f != OK:
            return f
        if fill_bytes > 0 and ptr(Check, g.check).region == NOWHERE:
            return OK
        f = move_bits(g, w, base, off, src, take, fill_bytes)
        if f != OK:
            return f
    return OK


@apart
def source_row(c: Core, w: Warp, r: Rec, g: Gpu, row: int) -> int:
    """Puts the address of a source row into `extra`."""
    index = row
    if w.ctl[INDEX] != 0:
        at = wrap(w.ctl[INDEX] + 4 * row)
        f = transfer(c, w, g, at, 4, 0)
        if f != OK:
            return f
        k = ptr(Check, g.check)
        if k.region == NOWHERE:
            k.extra = at
            return OK
        if get_bits(k.at_undefined, k.off) & 15 != 0:
            return undefined(g, S_ADDRESS, R_CTL + INDEX, row, origin(O_MEMORY, w, at))
        host = c.spm + k.off if k.region == 1 else g.dram + k.off
        index = sext(ld32(host), 32)
    ptr(Check, g.check).extra = row_at(w, SRC, index)
    return OK


def move_bits(g: Gpu, w: Warp, base: int, off: int, src: int, take: int, total: int) -> int:
    """The destination was located last: `take` bytes are as their source, those behind are defined."""
    k = ptr(Check, g.check)
    to, into, tensor = k.at_undefined, k.off, k.region == IN_DRAM
    for i in range(0, total, 64):
        u = 0
        if i < take:
            u = get_bits(base, off + i) & low(take - i)
            if u != 0 and tensor != 0:
                at = src + i + lowest(u)
                k.addr = at
                return undefined(g, S_DRAM, -1, 0, origin(O_MEMORY, w, at))
        put_bits(to, into + i, u, low(total - i))
    return OK


@apart
def go_transposed(c: Core, w: Warp, r: Rec, g: Gpu, rows: int, nbytes: int, size: int, fill_rows: int, fill_bytes: int) -> int:
    """Element (row, column) goes to column * stride + row * size."""
    k, bits = ptr(Check, g.check), low(size)
    for column in range(fill_bytes // size):
        f = transfer(c, w, g, row_at(w, DST, column), fill_rows * size, WRITE)
        if f != OK:
            return f
        if k.region == NOWHERE:
            return OK
        for i in range(0, fill_rows * size, 64):
            put_bits(k.at_undefined, k.off + i, 0, low(fill_rows * size - i))
    for row in range(rows):
        f = source_row(c, w, r, g, row)
        if f != OK:
            return f
        src = k.extra
        f = transfer(c, w, g, src, nbytes, 0)
        if f != OK:
            return f
        if k.region == NOWHERE:
            return OK
        base, off = k.at_undefined, k.off
        for column in range(nbytes // size):
            u = get_bits(base, off + column * size) & bits
            if u != 0:
                if locate(c, w, g, row_at(w, DST, column) + row * size, size, WRITE | BY_DMA) == IN_DRAM:
                    k.addr = src + column * size
                    return undefined(g, S_DRAM, -1, 0, origin(O_MEMORY, w, src + column * size))
                put_bits(k.at_undefined, k.off, u, bits)
    return OK


def wait(w: Warp, g: Gpu, token: int) -> int:
    """WAIT: what the transfer did happens before what follows."""
    s = ptr(Shadow, of(w, g))
    if token > w.tokens:
        f = finding(g, TOKEN, token, 0, 0)
        ptr(Check, g.check).extra = w.tokens
        return f
    s.clock[DMA_CLOCK + w.warp] = imax(s.clock[DMA_CLOCK + w.warp], token)
    return OK


def arrive(c: Core, w: Warp, g: Gpu, i: int, n: int) -> int:
    """A barrier: when this arrival is its last, all who are there hear of each other."""
    mine = ptr(Shadow, of(w, g))
    if mine.clock[w.warp] + 1 >= CLOCKS:
        return finding(g, LIMIT, 0, 0, 0)
    if n <= 0 or n > c.nwarps or (c.bar_count[i] != 0 and c.bar_need[i] != n) or c.bar_count[i] + 1 != n:
        return OK
    for j in range(c.nwarps):
        o = ptr(Warp, c.warps + j * WARP_BYTES)
        if o.state == AT_BARRIER and o.bar == i:
            s = ptr(Shadow, of(o, g))
            for a in range(64):
                mine.clock[a] = imax(mine.clock[a], s.clock[a])
    for j in range(c.nwarps):
        o = ptr(Warp, c.warps + j * WARP_BYTES)
        if o.state == AT_BARRIER and o.bar == i:
            s = ptr(Shadow, of(o, g))
            for a in range(64):
                s.clock[a] = mine.clock[a]
            s.clock[j] += 1
    mine.clock[w.warp] += 1
    return OK
