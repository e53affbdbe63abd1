"""The memory system's timing: L1 tags, the shared L2, and DRAM as a bandwidth-and-latency queue. Caches hold tags only.

Times are cycles; the shared queues (L2, DRAM) count in 1/256 cycle so that any bandwidth fits. A line is 64 bytes.
"""

from __future__ import annotations

from rvgpu.isa.prims import ctz, imax, ld32, ld64, sel, st32, st64, wrap
from rvgpu.sim.state import TRACE_WORDS, Core, Gpu, Queue
from rvgpu.sim.translate import apart, ptr

WINDOW = 32 << 8  # cycles of a window of a shared queue, in 1/256
WINDOWS = 1 << 12
DIRTY, CLEAN = 1 << 31, (1 << 31) - 1


def take(q: Queue, t: int) -> int:
    """A slot of a shared queue for a request that arrives at cycle t; returns the cycle its service starts. Requests reach this function in
    the order in which cores run, not in the order of their times, so capacity is kept per window of 32 cycles: within a window requests in
    order of time are served first come, first served; one that comes out of order takes the room that is left. What would wait for more than 4,088
    windows joins a line that is served in order of its coming; while that line is not empty, so does everything else."""
    w = (t << 8) // WINDOW
    if w >= q.full_from and w < q.full_to:
        w = q.full_to
    return take_from(q, t, w)


def take_from(q: Queue, t: int, w: int) -> int:
    """`take` when no window before w has room. A window is four 32-bit numbers: which one it is, what is taken of it, and when its latest
    request arrived and ends, from its start."""
    at = t << 8
    cost = q.cost
    if q.tail > at:
        start = q.tail
        q.tail = start + cost
        return start >> 8
    q.tail = 0
    horizon = at // WINDOW + WINDOWS - 8
    while w < horizon:
        e = q.windows + (w & (WINDOWS - 1)) * 16
        if ld32(e) != (w + 1) & 0xFFFF_FFFF:
            st32(e, w + 1)
            st32(e + 4, 0)
            st64(e + 8, 0)
        used = ld32(e + 4)
        if used + cost <= WINDOW:
            arrives = imax(at - w * WINDOW, 0)
            end = ld32(e + 12)
            start = imax(arrives, end if arrives >= ld32(e + 8) else used)
            if start < WINDOW:
                st32(e + 4, used + cost)
                if start >= end:
                    st32(e + 8, arrives)
                    st32(e + 12, start + cost)
                if used + 2 * cost > WINDOW:
                    if w == q.full_to:
                        q.full_to = w + 1
                    elif w + 1 == q.full_from:
                        q.full_from = w
                    elif w > q.full_to:
                        q.full_from = w
                        q.full_to = w + 1
                return (w * WINDOW + start) >> 8
        w += 1
    q.tail = w * WINDOW + cost
    return (w * WINDOW) >> 8


def dram_line(g: Gpu, t: int) -> int:
    """Moves one line over the DRAM bus from cycle t on; returns the cycle its transfer starts."""
    return dram_moved(g, take(ptr(Queue, g.dram_queue), t))


def dram_moved(g: Gpu, start: int) -> int:
    g.dram_lines += 1
    g.dram_last = imax(g.dram_last, start + 1)
    return start


def recent(order: int, way: int) -> int:
    """The order of a set's ways, four bits each and the latest in front, after an access to `way`."""
    unlike = order ^ wrap(way * 0x1111_1111_1111_1111)
    at = ctz(wrap(unlike - 0x1111_1111_1111_1111) & ~unlike & -0x7777_7777_7777_7778) - 3  # the bit where the four that are 0 start
    return (order & wrap(-16 << at)) | wrap((order & ((1 << at) - 1)) << 4) | way


@apart
def l2_line(g: Gpu, line: int, t: int, write: int) -> int:
    """An access to one line at cycle t; returns when its data are there (writes: accepted). LRU, write-back; a written line is allocated
    without a fetch, because stores carry byte masks. A clean line remembers when it arrives: a second reader waits for the same fill."""
    t = take(ptr(Queue, g.l2_queue), t)
    at = line & (g.l2_sets - 1)
    tags = g.l2_tags + at * g.l2_ways * 4  # line + 1, its bit 31: dirty
    arrivals = g.l2_arrival + at * g.l2_ways * 8
    order = ld64(g.l2_order + 8 * at)
    found = 0
    for i in range(g.l2_ways):
        found = found | sel(ld32(tags + 4 * i) & CLEAN == line + 1, i + 1, 0)
    hit = found > 0
    way = sel(hit, found - 1, (order >> (4 * (g.l2_ways - 1))) & 15)
    st64(g.l2_order + 8 * at, recent(order, way))
    old = ld32(tags + 4 * way)
    g.l2_hits += hit
    g.l2_misses += 1 - hit
    if hit == 0 and old & DIRTY != 0:
        dram_line(g, t)
    if write != 0:
        st32(tags + 4 * way, (line + 1) | DIRTY)
        return t + g.l2_latency
    if hit:
        return t + g.l2_latency if old & DIRTY != 0 else imax(t + g.l2_latency, ld64(arrivals + 8 * way))
    st32(tags + 4 * way, line + 1)
    ready = dram_line(g, t) + g.l2_latency + g.dram_latency
    st64(arrivals + 8 * way, ready)
    return ready


def l1_load(c: Core, g: Gpu, addr: int, t: int) -> int:
    """A plain load's line from DRAM space at cycle t; returns when it can be used: `hit_cycles` later on a hit, on a miss that much before it
    asks L2, with one of `misses` slots taken in turn (a slot is free when its last line has arrived). LRU; a hit on a line that is still coming
    waits for it."""
    line = addr >> 6
    base = (line & (g.l1_sets - 1)) * g.l1_ways * 8
    victim = 0
    oldest = -1
    for way in range(g.l1_ways):
        at = base + way * 8
        tag = ld64(c.l1_tags + at)
        use = ld64(c.l1_use + at)
        if tag == line + 1:
            c.l1_hits += 1
            st64(c.l1_use + at, imax(use, t))
            return imax(t + g.l1_hit, use) if use > t else t + g.l1_hit
        if tag == 0:
            use = 0
        if oldest < 0 or use < oldest:
            oldest = use
            victim = at
    c.l1_misses += 1
    slot = c.mshr_n % g.l1_misses
    c.mshr_n += 1
    start = imax(t + g.l1_hit, c.mshr[slot])
    ready = l2_line(g, line, start, 0)
    c.mshr[slot] = ready
    st64(c.l1_tags + victim, line + 1)
    st64(c.l1_use + victim, ready)
    return ready


def l1_store(c: Core, g: Gpu, addr: int, t: int) -> int:
    """Write-through, no allocation: the line goes to L2; returns when L2 has taken it."""
    return l2_line(g, addr >> 6, t, 1)


def record(g: Gpu, pc: int, core: int, warp: int, issue: int, why: int, unit: int, start: int, end: int) -> int:
    """Appends a trace event; counts on when the buffer is full."""
    if g.trace_n < g.trace_cap:
        at = g.trace + g.trace_n * (8 * TRACE_WORDS)
        st64(at, pc)
        st64(at + 8, core)
        st64(at + 16, warp)
        st64(at + 24, issue)
        st64(at + 32, why)
        st64(at + 40, unit)
        st64(at + 48, start)
        st64(at + 56, end)
    g.trace_n += 1
    return 0
