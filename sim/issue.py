"""The loops that run a core, timed (`step`) and not (`walk`), in restricted Python.

Per warp the next instruction could issue at e = max(warp's earliest, operands, its slot, room in its unit's queue); the core issues the smallest
e (sim/turns.py). Cores take turns in rounds (sim/rounds.py).
"""

from __future__ import annotations

from rvgpu.isa.prims import imax, imin, ld64
from rvgpu.isa.prims_turns import TAG_BITS, put
from rvgpu.sim.memory import record
from rvgpu.sim.plan import K_ALU, K_CONFIG, K_JUMP, K_LANES, K_MEMORY, K_MULTIPLY, U_NONE, plan_of
from rvgpu.sim.scoreboard import blame, moved, multiplied, operands, perturb, retire, scalar_operands, scalar_result, scatter
from rvgpu.sim.state import (
    ANY_SHAPE,
    CAUSE,
    F_JUMP,
    F_LATER,
    OK,
    PLAN_SHIFT,
    R_OK,
    REC_BYTES,
    RUN,
    WARP_BYTES,
    Core,
    Gpu,
    Plan,
    Rec,
    Warp,
)
from rvgpu.sim.translate import address, apart, ptr
from rvgpu.sim.trap import GO_ON, trap
from rvgpu.sim.turns import NEVER, choose, finish, give_turn, others, pause

SLICE = 1000  # instructions that a warp runs in its turn when nothing is timed
C_UNIT = CAUSE["unit"]
CHECKED, SEEDED = 0, 0  # bound when loops of their own are made: checked mode, latencies of a seed


def rule_of(w: Warp, g: Gpu) -> int:
    """The address of checked mode's rule for the warp's next instruction."""
    return ld64(g.checks + ((w.pc << 2) + w.sew) * 8)


def call_handler(h: int, c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Replaced by an indirect call in compiled code; the reference engine binds its own."""
    return 0


def handled(c: Core, w: Warp, r: Rec, p: Plan, g: Gpu, after: int) -> int:
    """Runs the handler of an instruction that may go on elsewhere than at `after`, where `next` stands then. Returns its fault."""
    w.next = after
    fault = call_handler(p.entry, c, w, r, g)
    if fault == OK and w.next >= g.nrecs:
        fault = F_JUMP
        w.fault_addr = g.text + 2 * w.next
    return fault


@apart
def seldom(c: Core, w: Warp, r: Rec, p: Plan, g: Gpu, e: int) -> int:
    """What changes more than registers and memory: configuration, control registers, atomics. Returns whether it takes a slot, -1 for the warp's
    fault."""
    after = w.pc + p.halves
    shape = w.shape
    w.now = e
    w.earliest = e
    w.why = C_UNIT
    fault = handled(c, w, r, p, g, after)
    if fault != OK:
        w.fault = fault
        return -1
    if w.next != after:
        w.earliest = imax(w.earliest, e + 1 + g.branch)
    w.pc = w.next
    if p.kind == K_CONFIG and w.shape == shape:
        p.free += 1
        return 0
    scalar_result(w, p, e + r.latency, r.cause)
    return 1


def issued(c: Core, e: int, why: int) -> int:
    """An instruction took a slot at cycle e; the core has waited since it took the last one."""
    if e >= c.accounted:
        c.stall[why] += e - c.accounted
        c.accounted = e + 1
    return 0


@apart
def scalars(c: Core, w: Warp, g: Gpu, e: int, why: int, most: int) -> int:
    """A scalar instruction of a warp at cycle e, for which the core has waited because of `why`, and what follows it cycle by cycle, up to cycle
    `most`. Returns the place of the last one, which issued at `now`; for a fault -1 - its code."""
    at = c.plans + (w.pc << PLAN_SHIFT)
    waited = imax(e - c.accounted, 0)
    fault = OK
    earliest = w.earliest
    last = w.pc
    n = 0
    while 1:
        p, pc = ptr(Plan, at), (at - c.plans) >> PLAN_SHIFT
        r = ptr(Rec, g.recs + pc * REC_BYTES)
        w.now = e
        after = at + (p.halves << PLAN_SHIFT)
        if p.kind == K_ALU:
            call_handler(p.entry, c, w, r, g)
            earliest = e
        else:
            fault = handled(c, w, r, p, g, pc + p.halves)
            if fault != OK:
                break
            w.why = C_UNIT
            earliest = e
            if w.next != pc + p.halves:
                earliest = e + 1 + g.branch
                after = c.plans + (w.next << PLAN_SHIFT)
        scalar_result(w, p, e + r.latency, r.cause)
        p.count += 1
        n += 1
        last = pc
        at = after
        if e >= most or at < c.plans:
            break
        q = ptr(Plan, at)
        if (q.kind != K_ALU and q.kind != K_JUMP) or q.shape != ANY_SHAPE or q.entry == 0:
            break
        e += 1
        if earliest > e or scalar_operands(w, ptr(Rec, g.recs + 2 * (at - c.plans)), q) > e:
            break
    w.pc = (at - c.plans) >> PLAN_SHIFT
    if n > 0:
        w.earliest = earliest
        w.retired += n
        c.stall[why] += waited
        c.room[0] = w.now + 1 if fault == OK else w.now
        c.accounted = imax(c.accounted, c.room[0])
    return last if fault == OK else -1 - fault


@apart
def step(c: Core, g: Gpu, limit: int) -> int:
    """One core. A cycle has one vector slot (vector, matrix and vector-memory instructions) and one scalar slot (all others); an instruction
    takes its slot for one cycle, and a warp may use both in one cycle. A unit takes work into a queue of `queue_entries` beside what it runs.
    The smallest possible issue time goes first; of equal ones the warp that issued last, then the one longest without issue, then the lowest
    number. A taken branch or jump delays its warp's next instruction by `taken_branch_cycles`. A vset that changes nothing takes no slot.
    Runs until the core's time passes `limit` or nothing can run; returns 0 or a run code."""
    stop = imin(limit, g.max_cycles)
    traced = g.trace_cap
    n = 0
    e = 0  # when the next instruction of warp n issues,
    t = 0  # when its operands are there,
    goes_on = 0  # and whether it is the next of all
    warp = c.warps
    plan = c.plans
    while 1:
        if goes_on == 0:
            goes_on = 1
            key = choose(c, g)
            e = key >> TAG_BITS
            if e > imin(stop, g.max_cycles):  # (which a store can have set: guard.py)
                return pause(c, key & 31, e, limit)
            n = give_turn(c, key)
            t = c.ready[n]
            warp = c.warps + n * WARP_BYTES
            plan = plan_of(c, ptr(Warp, warp), g)
        w, p = ptr(Warp, warp), ptr(Plan, plan)
        r = ptr(Rec, g.recs + w.pc * REC_BYTES)
        kind = p.kind
        pc = w.pc
        after = pc + p.halves
        fault = p.fault
        if p.entry != 0:
            fault = OK
            if CHECKED:
                fault = call_handler(rule_of(w, g), c, w, r, g)
        slot = 1
        waited = C_UNIT
        why = C_UNIT
        if fault == OK:
            if (e == t and e > c.accounted) or traced != 0:
                waited = blame(w, r, p, t)
                why = waited if e == t else C_UNIT
            if CHECKED == 0 and SEEDED == 0 and kind == K_ALU and traced == 0 and ptr(Plan, plan + (p.halves << PLAN_SHIFT)).side == 0:
                pc = scalars(c, w, g, e, why, imin(stop, imax(c.rivals[1], c.slot)))
                e = w.now
                fault = -1 - pc if pc < 0 else OK
                slot = -1
            elif kind == K_ALU:
                call_handler(p.entry, c, w, r, g)
                scalar_result(w, p, e + r.latency, r.cause)
                w.earliest = e
                w.pc = after
            elif kind == K_LANES or kind == K_MULTIPLY:
                fault = call_handler(p.entry, c, w, r, g)
                if fault == OK:
                    if kind == K_LANES:
                        start = imax(e, c.free[p.unit])
                        first = start + r.latency + r.passes * (p.cycles - 1)
                        retire(c, w, r, p, g, e, start, p.cycles, first, first + p.cycles - 1, r.cause)
                    else:
                        multiplied(c, w, r, p, g, e)
                    w.earliest = e
                    w.pc = after
            elif kind == K_MEMORY:
                w.mem_kind = 0
                w.mem_bytes = 0
                w.mem_count = 0
                fault = call_handler(p.entry, c, w, r, g)
                if fault == OK:
                    moved(c, w, r, p, g, e)
                    w.earliest = e
                    w.pc = after
            elif kind == K_JUMP:
                w.earliest = e
                w.why = C_UNIT
                fault = handled(c, w, r, p, g, after)
                if fault == OK:
                    if w.next != after:
                        w.earliest = e + 1 + g.branch
                    w.pc = w.next
                    scalar_result(w, p, e + r.latency, r.cause)
            else:
                slot = seldom(c, w, r, p, g, e)
                fault = w.fault if slot < 0 else OK
        if fault != OK:
            c.ready[n] = -1
            c.stale = 1
            goes_on = 0
            if p.entry != 0:
                w.why = why
            code = trap(c, w, ptr(Rec, g.recs + w.pc * REC_BYTES), g, e, fault)
            if code != GO_ON:
                return code
            continue
        if slot >= 0:
            p.count += 1
            w.retired += 1
        if slot > 0:
            if p.side == 0:
                c.room[0] = e + 1
            issued(c, e, why)
            if traced != 0:
                start = c.last_start if r.unit != U_NONE else e
                record(g, r.pc, c.core, n, t, waited, e, r.unit, start, start + (c.last_cost if r.unit != U_NONE or kind == K_MEMORY else 1))
        if SEEDED:
            perturb(w, r, p, g, e, pc)
        if w.pc < 0 and g.bare != 0:  # a jump to address 0 ends kernels only
            w.pc = pc
            w.fault_addr = 0
            w.retired -= 1
            c.ready[n] = -1
            c.stale = 1
            goes_on = 0
            code = trap(c, w, r, g, e, F_JUMP)
            if code != GO_ON:
                return code
            continue
        if w.pc < 0 and finish(c, w, g, e) != 0:
            return R_OK
        plan = plan_of(c, w, g)
        q = ptr(Plan, plan)
        t = operands(w, ptr(Rec, g.recs + w.pc * REC_BYTES), q) if w.state == RUN else NEVER
        e = imax(t, c.room[q.unit])
        if e > imin(others(c), stop) or c.stale != 0:
            goes_on = 0
            put(address(c.ready), n, t)
            put(address(c.ready_unit), n, q.unit)
    return R_OK


def after_turn(c: Core) -> int:
    """The turn of the next warp."""
    c.turn = c.turn + 1 if c.turn + 1 < c.nwarps else 0
    return c.turn


@apart
def walk(c: Core, g: Gpu, limit: int) -> int:
    """One core without timing: the warps that can run take turns of SLICE instructions, each of which counts as a cycle of the core."""
    stop = imin(limit, g.max_cycles)
    t = c.time
    while 1:
        before = c.turn
        n = after_turn(c)
        while ptr(Warp, c.warps + n * WARP_BYTES).state != RUN:
            if n == before:
                c.time = NEVER
                return R_OK
            n = after_turn(c)
        w = ptr(Warp, c.warps + n * WARP_BYTES)
        c.until = imin(t + SLICE, stop)
        if SEEDED:
            c.until = imin(t + (scatter(g.seed ^ t) & 255), stop)
        while t <= c.until:  # (a store can shorten the turn: guard.py)
            p = ptr(Plan, plan_of(c, w, g))
            r = ptr(Rec, g.recs + w.pc * REC_BYTES)
            t += 1
            fault = p.fault
            if p.entry != 0:
                if CHECKED:
                    fault = call_handler(rule_of(w, g), c, w, r, g)
                    if fault != OK:
                        return trap(c, w, r, g, t, fault)
                after = w.pc + p.halves
                p.count += 1
                w.retired += 1
                if p.kind < K_CONFIG:
                    fault = call_handler(p.entry, c, w, r, g)
                    if fault == OK:
                        w.pc = after
                else:
                    w.now = t
                    w.next = after
                    fault = call_handler(p.entry, c, w, r, g)
                    if fault == OK and w.next >= g.nrecs:
                        fault = F_JUMP
                        w.fault_addr = g.text + 2 * w.next
                    if fault == OK and w.next < 0 and g.bare != 0:
                        fault = F_JUMP
                        w.fault_addr = 0
                    if fault == OK:
                        w.pc = w.next
                        if w.pc < 0:
                            w.token_last = 0
                            if finish(c, w, g, t) != 0:
                                return R_OK
                            t = imax(t, w.earliest)
                    if w.state != RUN:
                        c.until = -1
            if fault != OK:
                if p.entry != 0:
                    p.count -= 1
                    w.retired -= 1
                code = trap(c, w, r, g, t, fault)
                if fault == F_LATER:  # it is this warp's turn when the core comes back
                    c.turn = (n if n > 0 else c.nwarps) - 1
                if code != GO_ON:
                    return code
        if t > imin(stop, g.max_cycles):
            return pause(c, n, t, limit)
    return R_OK
