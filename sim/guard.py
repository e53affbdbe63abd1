"""Stores that need a look: to text, to HTIF's `tohost`, or to memory while a hart of several holds a reservation (lr/sc).

All three lie in one range, the guard, which every store is compared with anyway because text is read-only; so the fast path pays nothing for them.
The guard is `watch` (text, and what lies between it and `tohost`); while reservations are held it is all of memory.
"""

from __future__ import annotations

from rvgpu.isa.prims import imax, imin
from rvgpu.sim.state import CORE_BYTES, REC_BYTES, WARP_BYTES, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import apart, ptr

LINE = 64  # bytes: a reservation set
PATIENCE = 4096  # guarded stores before all reservations are given up: a hart that left a loop without sc must not slow the others for ever


@apart
def may_store(c: Core, w: Warp, g: Gpu, addr: int, n: int) -> int:
    """Whether n bytes at addr, which lie in memory, may be written. Text that the program may write is stale from then on, until a fence.i."""
    off = addr - g.text
    if off + n > 0 and off < g.text_size:
        for k in range(imax(off, 0) >> 1, (imin(off + n, g.text_size) + 1) >> 1):
            at = k  # the instruction that holds this halfword, if one does
            if k > 0 and ptr(Rec, g.recs + k * REC_BYTES).size == 0:
                at = k - 1
            r = ptr(Rec, g.recs + at * REC_BYTES)
            if r.size == 4 or r.size == 2 and at == k:
                if r.writable == 0:
                    return 0
                g.rewritten = 1
    if g.tohost != 0 and addr < g.tohost + 8 and addr + n > g.tohost:
        g.htif = 1
        stop(c, g)
    if g.reserved != 0:
        g.watched += 1
        for i in range(g.ncores):
            d = ptr(Core, g.cores + i * CORE_BYTES)
            for k in range(d.nwarps):
                o = ptr(Warp, d.warps + k * WARP_BYTES)
                line = (o.reserved - 1) & -LINE
                if o.reserved != 0 and (o.hart != w.hart and addr < line + LINE and addr + n > line or g.watched > PATIENCE):
                    release(o, g)
    return 1


def stop(c: Core, g: Gpu) -> int:
    """`run` returns before the next instruction: issue.step looks at max_cycles when it chooses a warp, issue.walk at the end of a turn."""
    g.max_cycles = -1
    c.stale = 1
    c.until = -1
    return 0


def reserve(w: Warp, g: Gpu, addr: int) -> int:
    if w.reserved == 0:
        g.reserved += 1
    w.reserved = addr + 1
    g.watched = 0
    if g.bare > 1:  # of one hart's reservations nobody else can take any
        g.guard = g.base
        g.guard_size = g.dram_size
    return 0


def release(w: Warp, g: Gpu) -> int:
    if w.reserved != 0:
        w.reserved = 0
        g.reserved -= 1
        if g.reserved == 0:
            g.guard = g.watch
            g.guard_size = g.watch_size
    return 0
