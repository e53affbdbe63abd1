"""Turns: which of a core's warps issues next, and the CTAs that a core takes, in restricted Python.

Of the warps' next instructions the one that can issue first goes first; ties: the warp that issued last, then the one longest without issue, then
the lowest number.
"""

from __future__ import annotations

from rvgpu.isa.prims import imax, imin, zero
from rvgpu.isa.prims_turns import TAG_BITS, promote, soonest, soonest_of_8
from rvgpu.sim.check import start_shadow
from rvgpu.sim.handlers import reshape
from rvgpu.sim.memory import catch_up
from rvgpu.sim.plan import plan_of
from rvgpu.sim.scoreboard import operands
from rvgpu.sim.state import CAUSE, DONE, R_LIMIT, R_OK, REC_BYTES, REGS, RUN, WARP_BYTES, Core, Gpu, Plan, Rec, Warp
from rvgpu.sim.translate import address, apart, ptr

NEVER = 1 << 52
C_DISPATCH = CAUSE["dispatch"]
CHECKED = 0  # bound when loops of their own are made: checked mode


@apart
def start_cta(c: Core, g: Gpu, t: int) -> int:
    """Gives the core the next CTA in grid order at time t; 0 when none is left."""
    if g.next_cta >= g.ncta:
        return 0
    cta = g.next_cta
    g.next_cta += 1
    for n in range(c.nwarps):
        w = ptr(Warp, c.warps + n * WARP_BYTES)
        zero(address(w.x), 32 * 8)
        zero(address(w.f), 32 * 8)
        zero(address(w.first), REGS * 8)
        zero(address(w.last), REGS * 8)
        zero(address(w.read), REGS * 8)
        w.state = RUN
        w.pc = g.entry
        w.earliest = t + g.dispatch
        w.why = C_DISPATCH
        c.ready[n] = -1
        w.cta = cta
        w.ctas = g.grid
        w.x[10] = g.args
        w.x[11] = cta
        w.x[12] = n
        w.x[13] = 0x0200_0000 + (n << 12)
        w.x[14] = 0x1000_0000
        w.x[2] = g.stack - (c.core * 16 + n) * 36864
        w.vill = 1
        w.vl = 0
        w.vtype = -9223372036854775808
        w.sew = 0
        w.lmul8 = 8
        w.tokens = 0
        w.tokens_seen = 0
        w.token_last = 0
        w.fcsr = 0
        w.vstart = 0
        w.vxrm = 0
        w.vxsat = 0
        w.tm = 0
        w.tk = 0
        reshape(w)
    c.live = c.nwarps
    c.stale = 1
    for i in range(16):
        c.bar_count[i] = 0
    if CHECKED:
        start_shadow(c, g)
    return 1


def find_ready(c: Core, n: int, g: Gpu) -> int:
    w = ptr(Warp, c.warps + n * WARP_BYTES)
    c.ready[n] = NEVER
    c.ready_unit[n] = 0
    if w.state == RUN:
        p = ptr(Plan, plan_of(c, w, g))
        c.ready[n] = operands(w, ptr(Rec, g.recs + w.pc * REC_BYTES), p)
        c.ready_unit[n] = p.unit
    return 0


def find_all(c: Core, g: Gpu) -> int:
    for n in range(c.nwarps):
        if c.ready[n] < 0:
            find_ready(c, n, g)
    c.stale = 0
    return 0


@apart
def choose(c: Core, g: Gpu) -> int:
    """Which warp issues next, and when: time << TAG_BITS | its place in turns << 5 | its number. Leaves in `rivals` when the first of the
    others could."""
    if c.stale != 0:
        find_all(c, g)
    if c.nwarps <= 8:
        return soonest_of_8(address(c.ready), address(c.ready_unit), address(c.order), address(c.room), address(c.rivals), c.nwarps)
    return soonest(address(c.ready), address(c.ready_unit), address(c.order), address(c.room), address(c.rivals), c.nwarps)


def others(c: Core) -> int:
    """A cycle before which no other warp can issue: slots are taken since the choice."""
    return imin(imax(c.rivals[0], c.room[0]), imax(c.rivals[1], c.slot))


def give_turn(c: Core, key: int) -> int:
    """The number of the chosen warp, which is the one that issued last from now on."""
    tag = key & ((1 << TAG_BITS) - 1)
    if tag > 31:
        promote(address(c.order), tag, c.nwarps)
    return tag & 31


@apart
def finish(c: Core, w: Warp, g: Gpu, e: int) -> int:
    """The warp returned: with the last one its CTA ends, and the core takes another one. 1 when none is left."""
    if c.must != 0:
        catch_up(c, g)
    w.state = DONE
    w.pc = 0
    c.live -= 1
    g.end = imax(g.end, imax(e, w.token_last))
    if c.live == 0:
        if start_cta(c, g, imax(e + 1, w.token_last)) == 0:
            c.time = NEVER
            return 1
    return 0


def pause(c: Core, n: int, e: int, limit: int) -> int:
    """The next instruction, of warp n, issues after the core's turn; or after the last cycle of the run."""
    c.time = e
    if e > limit:
        return R_OK
    c.fault_warp = n
    return R_LIMIT
