"""The control page (30-isa): identity registers, the DMA's descriptor registers, GO, WAIT and the barriers."""

from __future__ import annotations

from rvgpu.isa.prims import copy, imax, imin, ld8, ld16, ld32, ld64, sext, st8, st16, st32, st64, wrap, zero
from rvgpu.isa.prims_host import prefetch, turn_square
from rvgpu.sim.guard import may_store
from rvgpu.sim.memory import expect, l2_line, record
from rvgpu.sim.state import AT_BARRIER, CAUSE, F_ARRIVALS, F_BARRIER, F_CONTROL, F_DMA, F_MEMORY, HOST_LINE, RUN, WARP_BYTES, Core, Gpu, Warp
from rvgpu.sim.translate import address, apart, lanes, ptr

SRC, DST, ROWS, ROW_BYTES, SRC_STRIDE, DST_STRIDE, FILL_ROWS, FILL_BYTES, INDEX = 8, 9, 10, 11, 12, 13, 14, 15, 16
SPM = 0x1000_0000
TURNED = 32  # rows that are transposed together
UNIT_DMA = 15  # in a trace event: a transfer, not an instruction
C_DMA, C_BARRIER = CAUSE["data.dma"], CAUSE["barrier"]


def control_load(w: Warp, off: int) -> int:
    if off == 0:
        return w.hart
    if off == 8:
        return w.core
    if off == 16:
        return w.warp
    if off == 24:
        return w.cta
    if off == 32:
        return w.ctas
    return w.warps


def control_store(w: Warp, off: int, value: int, size: int) -> int:
    if off < 0x40 or off > 0x80 or off & 7 != 0 or size != 8:
        w.fault_addr = off
        return F_CONTROL
    w.ctl[off >> 3] = value
    return 0


def control_swap(c: Core, w: Warp, g: Gpu, off: int, value: int) -> int:
    if off == 0x88:
        return dma_go(c, w, g, value)
    if off == 0x90:
        return dma_wait(w, value)
    if off >= 0x100 and off < 0x180 and off & 7 == 0:
        return barrier(c, w, g, (off - 0x100) >> 3, value)
    w.fault = F_CONTROL
    w.fault_addr = off
    return 0


def dma_wait(w: Warp, token: int) -> int:
    """Sleeps until transfer number `token` of this warp (and so all before it) is complete."""
    if token > 0 and w.tokens > 0:
        at = w.token_last
        if token < w.tokens and w.tokens - token < 64:
            at = w.token_time[token & 63]
        if at > w.now:
            w.earliest = at
            w.why = C_DMA
    return 0


def barrier(c: Core, w: Warp, g: Gpu, i: int, n: int) -> int:
    """Releases when n warps have arrived, `barrier` cycles after the last."""
    if c.bar_count[i] == 0:
        c.bar_need[i] = n
        c.bar_time[i] = 0
    if c.bar_need[i] != n or n <= 0 or n > c.nwarps:
        w.fault = F_BARRIER if n > 0 and n <= c.nwarps else F_ARRIVALS
        w.fault_addr = i
        return 0
    c.bar_count[i] += 1
    c.bar_time[i] = imax(c.bar_time[i], w.now)
    w.state = AT_BARRIER
    w.bar = i
    if c.bar_count[i] == n:
        c.bar_count[i] = 0
        for k in range(c.nwarps):
            o = ptr(Warp, c.warps + k * WARP_BYTES)
            if o.state == AT_BARRIER and o.bar == i:
                o.state = RUN
                o.earliest = c.bar_time[i] + g.barrier
                o.why = C_BARRIER
                c.ready[k] = -1
        c.stale = 1
    return 0


def span(c: Core, w: Warp, g: Gpu, addr: int, n: int, write: int) -> int:
    """The host address of a DMA range, or 0."""
    at = addr - SPM
    if at >= 0 and n >= 0 and at <= c.spm_size - n:  # (at + n could wrap)
        return c.spm + at
    at = addr - g.base
    if at >= 0 and n >= 0 and at <= g.dram_size - n:
        off = addr - g.guard
        if write == 0 or off + n <= 0 or off >= g.guard_size or may_store(c, w, g, addr, n) != 0:
            return g.dram + at
    return 0


def row_at(w: Warp, of: int, n: int) -> int:
    """The guest address of row n of the source or destination, whose stride is four registers on."""
    return wrap(w.ctl[of] + n * w.ctl[of + 4])


def bad(w: Warp, addr: int) -> int:
    w.fault = F_MEMORY
    w.fault_addr = addr
    return 0


def element(d: int, s: int, EACH: int) -> int:
    if EACH == 1:
        st8(d, ld8(s))
    elif EACH == 2:
        st16(d, ld16(s))
    elif EACH == 4:
        st32(d, ld32(s))
    else:
        st64(d, ld64(s))
    return 0


@apart
def turn(c: Core, w: Warp, g: Gpu, end: int, n: int, fill_rows: int, nbytes: int, size: int) -> int:
    """Transposes the last n rows before number `end`, whose addresses stand in `tmp`: together, because what lies side by side at the
    destination comes from different rows."""
    if size == 1:
        return turn_elements(c, w, g, end, n, fill_rows, nbytes, 1)
    if size == 2:
        return turn_elements(c, w, g, end, n, fill_rows, nbytes, 2)
    if size == 4:
        return turn_elements(c, w, g, end, n, fill_rows, nbytes, 4)
    return turn_elements(c, w, g, end, n, fill_rows, nbytes, 8)


def turned_to(c: Core, w: Warp, g: Gpu, row: int, fill_rows: int, at: int, EACH: int) -> int:
    """Where the element goes that stands at byte `at` of a row."""
    return span(c, w, g, row_at(w, DST, at // EACH), fill_rows * EACH, 1) + row * EACH


def turn_elements(c: Core, w: Warp, g: Gpu, end: int, n: int, fill_rows: int, nbytes: int, EACH: int) -> int:
    """A line of each row comes to `tmp` first, so that rows which the host's cache keeps in one place are read once."""
    rows, lines = address(w.tmp), address(w.tmp) + 8 * TURNED
    for piece in range(0, nbytes, HOST_LINE):
        part = imin(HOST_LINE, nbytes - piece)
        for i in range(n):
            copy(lines + HOST_LINE * i, span(c, w, g, ld64(rows + 8 * i), nbytes, 0) + piece, part)
        first, last = turned_to(c, w, g, end - n, fill_rows, piece, EACH), turned_to(c, w, g, end - n, fill_rows, piece + part - EACH, EACH)
        if EACH == 2 and n == TURNED and part == HOST_LINE and last - first == (TURNED - 1) * w.ctl[DST_STRIDE]:
            turn_square(first, w.ctl[DST_STRIDE], lines)
            continue
        for at in range(0, part, EACH):
            d = turned_to(c, w, g, end - n, fill_rows, piece + at, EACH)
            for i in lanes(n):
                element(d + i * EACH, lines + HOST_LINE * i + at, EACH)
    return 0


def dma_go(c: Core, w: Warp, g: Gpu, cfg: int) -> int:
    """Starts a transfer: data move now, the token's time says when they are there."""
    rows = w.ctl[ROWS]
    nbytes = w.ctl[ROW_BYTES]
    size = 1 << (cfg & 3)
    transpose = (cfg >> 2) & 1
    fill_rows = imax(w.ctl[FILL_ROWS], rows)
    fill_bytes = imax(w.ctl[FILL_BYTES], nbytes)
    if rows < 0 or nbytes < 0 or fill_rows > 1 << 24 or fill_bytes > 1 << 30 or cfg > 7 or cfg < 0 or nbytes % size != 0 or (
            fill_rows * fill_bytes > 1 << 32):
        w.fault = F_DMA
        return 0
    ring = c.dma_n & 63
    begin = w.now
    if c.dma_n >= g.dma_transfers:
        begin = imax(begin, c.dma_ring[(c.dma_n - g.dma_transfers) & 63])
    if begin > w.now:
        w.earliest = begin
        w.why = C_DMA
    done = begin
    if transpose != 0 and fill_rows > 0:
        for k in range(fill_bytes // size):
            d = span(c, w, g, row_at(w, DST, k), fill_rows * size, 1)
            if d == 0:
                return bad(w, row_at(w, DST, k))
            zero(d, fill_rows * size)
    waiting = 0
    for row in range(fill_rows):
        d = 0
        if transpose == 0:
            d = span(c, w, g, row_at(w, DST, row), fill_bytes, 1)
            if d == 0:
                return bad(w, row_at(w, DST, row))
        if row < rows:
            index = row
            if w.ctl[INDEX] != 0:
                p = span(c, w, g, wrap(w.ctl[INDEX] + 4 * row), 4, 0)
                if p == 0:
                    turn(c, w, g, row, waiting, fill_rows, nbytes, size)
                    return bad(w, wrap(w.ctl[INDEX] + 4 * row))
                index = sext(ld32(p), 32)
            src = row_at(w, SRC, index)
            s = span(c, w, g, src, nbytes, 0)
            if s == 0:
                turn(c, w, g, row, waiting, fill_rows, nbytes, size)
                return bad(w, src)
            if transpose != 0:
                st64(address(w.tmp) + 8 * waiting, src)
                waiting += 1
                if waiting == TURNED or row == rows - 1:
                    turn(c, w, g, row + 1, waiting, fill_rows, nbytes, size)
                    waiting = 0
            else:
                copy(d, s, nbytes)
                zero(d + nbytes, fill_bytes - nbytes)
            if g.timed != 0:
                done = imax(done, dma_row(c, w, g, src, row_at(w, DST, row), nbytes, begin, transpose))
        elif transpose == 0:
            zero(d, fill_bytes)
    if g.timed != 0:
        extra = fill_rows * fill_bytes - rows * nbytes
        c.dma_free += (extra >> 6) * g.dma_per_line_256
        done = imax(done, c.dma_free >> 8)
    w.tokens += 1
    w.token_last = imax(w.token_last, done)
    if g.trace_cap != 0:
        record(g, 0, c.core, w.warp, w.now, 0, w.now, UNIT_DMA, begin, done)
    w.token_time[w.tokens & 63] = w.token_last
    c.dma_ring[ring] = w.token_last
    c.dma_n += 1
    return w.tokens


def dma_row(c: Core, w: Warp, g: Gpu, src: int, dst: int, nbytes: int, begin: int, transpose: int) -> int:
    """Time of one row: its DRAM lines at the engine's rate through L2; returns when the last has arrived. The host fetches what the next row of
    the transfer needs meanwhile."""
    if nbytes <= 0:
        return begin
    at = src - g.base
    write = 0
    if at < 0 or at >= g.dram_size:
        at = dst - g.base
        write = 1
    first = at >> 6
    last = (at + nbytes - 1) >> 6
    cost = g.dma_per_line_256 * (g.dma_factor if transpose != 0 else 1)
    done = begin
    next_row = imax(w.ctl[SRC_STRIDE if write == 0 else DST_STRIDE], 0)
    for line in range(first, last + 1):
        expect(g, line + (next_row >> 6))
        prefetch(g.dram + (line << 6) + next_row)
        start = imax(begin << 8, c.dma_free)
        c.dma_free = start + cost
        c.dma_busy += cost
        done = imax(done, imax(l2_line(c, g, line, start >> 8, write), c.dma_free >> 8))
    return done
