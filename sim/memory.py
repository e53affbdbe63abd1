"""The memory system's timing: L1 tags, the shared L2, and DRAM as a bandwidth-and-latency queue. Caches hold tags only.

Times are cycles; the shared queues (L2, DRAM) count in 1/256 cycle so that any bandwidth fits. A line is 64 bytes.
"""

from __future__ import annotations

from rvgpu.isa.prims import ctz, imax, ld32, ld64, st32, st64, wrap
from rvgpu.isa.prims_host import prefetch, wait_for, way_of
from rvgpu.sim.state import TRACE_WORDS, Core, Gpu, Queue
from rvgpu.sim.translate import address, apart, ptr

WINDOW_BITS = 13  # a window of a shared queue has 32 cycles of 256 parts
WINDOW = 1 << WINDOW_BITS
WINDOWS = 1 << 12
WAYS = 16  # at most, of a cache


def take(q: Queue, t: int) -> int:
    """A slot of a shared queue for a request that arrives at cycle t; returns the cycle its service starts. Requests reach this function in
    the order in which cores run, not in the order of their times, so capacity is kept per window of 32 cycles: within a window requests in
    order of time are served first come, first served; one that comes out of order takes the room that is left. What would wait for more than 4,088
    windows joins a line that is served in order of its coming; while that line is not empty, so does everything else."""
    at = t << 8
    w = at >> WINDOW_BITS
    if w >= q.full_from and w < q.full_to:
        w = q.full_to
    e = q.windows + (w & (WINDOWS - 1)) * 16
    if ld32(e) == (w + 1) & 0xFFFF_FFFF and ld32(e + 4) + 2 * q.cost <= WINDOW and q.tail <= at:
        start = served(e, q.cost, imax(at - (w << WINDOW_BITS), 0))
        if start < WINDOW:
            return ((w << WINDOW_BITS) + start) >> 8
    return take_from(q, t, w)


def served(e: int, cost: int, arrives: int) -> int:
    """When the window at e starts to serve a request that arrives then, both from the window's start; WINDOW or more: not in this one."""
    used, end = ld32(e + 4), ld32(e + 12)
    start = imax(arrives, end if arrives >= ld32(e + 8) else used)
    if start < WINDOW:
        st32(e + 4, used + cost)
        if start >= end:
            st32(e + 8, arrives)
            st32(e + 12, start + cost)
    return start


@apart
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
    horizon = (at >> WINDOW_BITS) + WINDOWS - 8
    while w < horizon:
        e = q.windows + (w & (WINDOWS - 1)) * 16
        if ld32(e) != (w + 1) & 0xFFFF_FFFF:
            st32(e, w + 1)
            st32(e + 4, 0)
            st64(e + 8, 0)
        used = ld32(e + 4)
        if used + cost <= WINDOW:
            start = served(e, cost, imax(at - w * WINDOW, 0))
            if start < WINDOW:
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


# A set of a cache, 256 bytes: WAYS tags (line + 1; 0: none), the order of its ways (four bits each, the latest in front), which of them are
# dirty (a bit each), and from 128 on when each way's line has arrived.
SET_BYTES, ORDER, DIRTY, ARRIVALS = 256, 64, 72, 128


def latest(order: int, way: int) -> int:
    """The order of a set's ways after an access to `way`."""
    unlike = order ^ wrap(way * 0x1111_1111_1111_1111)
    at = ctz(wrap(unlike - 0x1111_1111_1111_1111) & ~unlike & -0x7777_7777_7777_7778) - 3  # the bit where the four that are 0 start
    return (order & wrap(-16 << at)) | wrap((order & ((1 << at) - 1)) << 4) | way


@apart
def catch_up(c: Core, g: Gpu) -> int:
    """Before a core touches what cores share: waits until all turns before its own are over (sim/rounds.py)."""
    wait_for(address(g.progress) + 8 * (16 - 16 * (c.core & 1)), c.must, g.sched_yield)
    c.must = 0
    return 0


def expect(g: Gpu, line: int) -> int:
    """The host gets its memory ready for an access to a line."""
    at = g.l2 + (line & (g.l2_sets - 1)) * SET_BYTES
    prefetch(at)
    prefetch(at + ORDER)
    prefetch(at + ARRIVALS)
    prefetch(at + ARRIVALS + 64)
    return 0


@apart
def l2_line(c: Core, g: Gpu, line: int, t: int, write: int) -> int:
    """An access to one line at cycle t; returns when its data are there (writes: accepted). LRU, write-back; a written line is allocated
    without a fetch, because stores carry byte masks. A clean line remembers when it arrives: a second reader waits for the same fill."""
    if c.must != 0:
        catch_up(c, g)
    t = take(ptr(Queue, g.l2_queue), t)
    at = g.l2 + (line & (g.l2_sets - 1)) * SET_BYTES
    order = ld64(at + ORDER)
    way = way_of(at, line + 1)
    if way < WAYS:
        g.l2_hits += 1
        st64(at + ORDER, latest(order, way))
        if write != 0:
            st32(at + DIRTY, ld32(at + DIRTY) | 1 << way)
            st64(at + ARRIVALS + 8 * way, 0)
            return t + g.l2_latency
        return imax(t + g.l2_latency, ld64(at + ARRIVALS + 8 * way))
    g.l2_misses += 1
    way = (order >> g.l2_oldest) & 15
    st64(at + ORDER, latest(order, way))
    dirty = ld32(at + DIRTY)
    if dirty >> way & 1 != 0:
        dram_line(g, t)
    st32(at + 4 * way, line + 1)
    ready = 0
    if write != 0:
        st32(at + DIRTY, dirty | 1 << way)
    else:
        st32(at + DIRTY, dirty & ~(1 << way))
        ready = dram_line(g, t) + g.l2_latency + g.dram_latency
    st64(at + ARRIVALS + 8 * way, ready)
    return t + g.l2_latency if write != 0 else ready


def l1_load(c: Core, g: Gpu, addr: int, t: int) -> int:
    """A plain load's line from DRAM space at cycle t; returns when it can be used: `hit_cycles` later on a hit, on a miss that much before it
    asks L2, with one of `misses` slots taken in turn (a slot is free when its last line has arrived). LRU; a hit on a line that is still coming
    waits for it."""
    line = addr >> 6
    at = c.l1 + (line & (g.l1_sets - 1)) * SET_BYTES
    order = ld64(at + ORDER)
    way = way_of(at, line + 1)
    if way < WAYS:
        st64(at + ORDER, latest(order, way))
        return imax(t + g.l1_hit, ld64(at + ARRIVALS + 8 * way))
    c.l1_misses += 1
    way = (order >> g.l1_oldest) & 15
    st64(at + ORDER, latest(order, way))
    slot = c.mshr_n
    c.mshr_n = slot + 1 if slot + 1 < g.l1_misses else 0
    ready = l2_line(c, g, line, imax(t + g.l1_hit, c.mshr[slot]), 0)
    c.mshr[slot] = ready
    st32(at + 4 * way, line + 1)
    st64(at + ARRIVALS + 8 * way, ready)
    return ready


def l1_store(c: Core, g: Gpu, addr: int, t: int) -> int:
    """Write-through, no allocation: the line goes to L2; returns when L2 has taken it."""
    return l2_line(c, g, addr >> 6, t, 1)


@apart
def l2_through(c: Core, g: Gpu, line: int, t: int) -> int:
    """A whole line written by a store after ntl.s1 or ntl.all goes on to DRAM at once: it takes no place in L2, and is clean where it has one.
    Returns when L2 has taken it. (A line that the store fills in part is an ordinary write; loads do not mind the hint.)"""
    if c.must != 0:
        catch_up(c, g)
    t = take(ptr(Queue, g.l2_queue), t)
    at = g.l2 + (line & (g.l2_sets - 1)) * SET_BYTES
    way = way_of(at, line + 1)
    if way < WAYS:
        g.l2_hits += 1
        st32(at + DIRTY, ld32(at + DIRTY) & ~(1 << way))
        st64(at + ARRIVALS + 8 * way, 0)
    else:
        g.l2_misses += 1
    g.dram_last = imax(g.dram_last, dram_line(g, t) + g.dram_latency)
    return t + g.l2_latency


def record(g: Gpu, pc: int, core: int, warp: int, ready: int, why: int, issue: int, unit: int, start: int, end: int) -> int:
    """Appends a trace event; counts on when the buffer is full."""
    if g.trace_n < g.trace_cap:
        at = g.trace + g.trace_n * (8 * TRACE_WORDS)
        st64(at, pc)
        st64(at + 8, core)
        st64(at + 16, warp)
        st64(at + 24, ready)
        st64(at + 32, why)
        st64(at + 40, issue)
        st64(at + 48, unit)
        st64(at + 56, start)
        st64(at + 64, end)
    g.trace_n += 1
    return 0
