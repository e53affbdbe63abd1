"""The loops that run a core, timed (`step`) and not (`walk`), in restricted Python.

Per warp the next instruction could issue at e = max(warp's earliest, operands, its slot, room in its unit's queue); the core issues the smallest
e (sim/turns.py). Cores take turns in rounds (sim/rounds.py).
"""

from __future__ import annotations

from rvgpu.isa.prims import imax, imin, ld64
from rvgpu.sim.memory import record
from rvgpu.sim.plan import K_ALU, K_CONFIG, K_LANES, K_MEMORY, K_MULTIPLY, U_NONE, plan_of
from rvgpu.sim.scoreboard import blame, moved, multiplied, operands, perturb, retire, scalar_result, scatter
from rvgpu.sim.state import CAUSE, F_JUMP, F_LATER, OK, R_OK, REC_BYTES, RUN, WARP_BYTES, Core, Gpu, Plan, Rec, Warp
from rvgpu.sim.translate import apart, ptr
from rvgpu.sim.trap import GO_ON, trap
from rvgpu.sim.turns import NEVER, choose, finish, give_turn, others, pause, take_back

SLICE = 1000  # instructions that a warp runs in its turn when nothing is timed
C_UNIT = CAUSE["unit"]
CHECKED, SEEDED = 0, 0  # bound when loops of their own are made: checked mode, latencies of a seed


def rule_of(w: Warp, g: Gpu) -> int:
    """The address of checked mode's rule for the warp's next instruction."""
    return ld64(g.checks + ((w.pc << 2) + w.sew) * 8)


def call_handler(h: int, c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Replaced by an indirect call in compiled code; the reference engine binds its own."""
    return 0


@apart
def seldom(c: Core, w: Warp, r: Rec, p: Plan, g: Gpu, e: int) -> int:
    """What changes more than registers and memory: configuration, control registers, atomics, jumps. Returns whether it takes a slot, -1 for the
    warp's fault."""
    after = w.pc + p.halves
    shape = w.shape
    w.now = e
    w.next = after
    w.earliest = e
    w.why = C_UNIT
    fault = call_handler(p.entry, c, w, r, g)
    if fault == OK and w.next >= g.nrecs:
        fault = F_JUMP
        w.fault_addr = g.text + 2 * w.next
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


@apart
def step(c: Core, g: Gpu, limit: int) -> int:
    """One core. A cycle has one vector slot (vector, matrix and vector-memory instructions) and one scalar slot (all others); an instruction
    takes its slot for one cycle, and a warp may use both in one cycle. A unit takes work into a queue of `queue_entries` beside what it runs.
    The smallest possible issue time goes first; of equal ones the warp that issued last, then the one longest without issue, then the lowest
    number. A taken branch or jump delays its warp's next instruction by `taken_branch_cycles`. A vset that changes nothing takes no slot.
    Runs until the core's time passes `limit` or nothing can run; returns 0 or a run code."""
    stop = imin(limit, g.max_cycles)
    traced = g.trace_cap
    bound = -1
    n = c.line[c.nwarps - 1]
    while 1:
        w = ptr(Warp, c.warps + n * WARP_BYTES)
        at = plan_of(c, w, g)
        p, r = ptr(Plan, at), ptr(Rec, g.recs + w.pc * REC_BYTES)
        t = operands(w, r, p) if w.state == RUN else NEVER
        e = imax(t, imax(c.slot[p.side], c.room[p.unit]))
        if e > bound:
            bound = others(c)
        if e > bound or c.stale != 0:
            c.ready[n] = t
            c.ready_unit[n] = p.unit
            e = choose(c, g)
            if e > imin(stop, g.max_cycles):  # (which a store can have set: guard.py)
                return pause(c, g, e, limit)
            n = give_turn(c)
            bound = -1
            continue
        if e > stop:
            c.ready[n] = t
            c.ready_unit[n] = p.unit
            c.turn = c.nwarps - 1
            return pause(c, g, e, limit)
        if p.entry == 0:
            code = trap(c, w, r, g, e, p.fault)
            if code != GO_ON:
                return code
            continue
        if CHECKED:
            fault = call_handler(rule_of(w, g), c, w, r, g)
            if fault != OK:
                return trap(c, w, r, g, e, fault)
        kind = p.kind
        pc = w.pc
        after = pc + p.halves
        why = C_UNIT
        slot = 1
        fault = OK
        waited = C_UNIT
        if (e == t and e > c.accounted) or traced != 0:
            waited = blame(w, r, p, t)
            why = waited if e == t else C_UNIT
        if kind == K_ALU:
            call_handler(p.entry, c, w, r, g)
            scalar_result(w, p, e + r.latency, r.cause)
            w.earliest = e
            w.pc = after
            if traced == 0 and SEEDED == 0:  # what follows for all, in short
                p.count += 1
                w.retired += 1
                c.slot[0] = e + 1
                if e >= c.accounted:
                    c.stall[why] += e - c.accounted
                    c.accounted = e + 1
                continue
        elif kind == K_LANES or kind == K_MULTIPLY:
            fault = call_handler(p.entry, c, w, r, g)
            if fault == OK:
                start = imax(e, c.free[p.unit])
                if kind == K_LANES:
                    first = start + r.latency + r.passes * (p.cycles - 1)
                    retire(c, w, r, p, g, start, p.cycles, first, first + p.cycles - 1, r.cause)
                else:
                    multiplied(c, w, r, p, g, start)
                w.earliest = e
                w.pc = after
        elif kind == K_MEMORY:
            w.mem_kind = 0
            w.mem_bytes = 0
            w.mem_count = 0
            fault = call_handler(p.entry, c, w, r, g)
            if fault == OK:
                moved(c, w, r, p, g, imax(e, c.free[p.unit]))
                w.earliest = e
                w.pc = after
        else:
            slot = seldom(c, w, r, p, g, e)
            fault = w.fault if slot < 0 else OK
        if fault != OK:
            w.why = why
            code = trap(c, w, r, g, e, fault)
            if code != GO_ON:
                return code
            continue
        p.count += 1
        w.retired += 1
        if slot != 0:
            c.slot[p.side] = e + 1
            if e >= c.accounted:
                c.stall[why] += e - c.accounted
                c.accounted = e + 1
            if traced != 0:
                start = c.last_start if r.unit != U_NONE else e
                record(g, r.pc, c.core, n, t, waited, e, r.unit, start, start + (c.last_cost if r.unit != U_NONE or kind == K_MEMORY else 1))
        if SEEDED:
            perturb(w, r, p, g, e, pc)
        if w.pc < 0 and g.bare != 0:  # a jump to address 0 ends kernels only
            w.pc = pc
            w.fault_addr = 0
            w.retired -= 1
            code = trap(c, w, r, g, e, F_JUMP)
            if code != GO_ON:
                return code
        elif w.pc < 0:
            if finish(c, w, g, e) != 0:
                return R_OK
            n = c.line[c.nwarps - 1]
    return R_OK


@apart
def walk(c: Core, g: Gpu, limit: int) -> int:
    """One core without timing: the warps that can run take turns of SLICE instructions, each of which counts as a cycle of the core."""
    stop = imin(limit, g.max_cycles)
    t = c.time
    while 1:
        idle = 0
        n = c.line[0]
        c.turn = 0
        give_turn(c)
        while ptr(Warp, c.warps + n * WARP_BYTES).state != RUN:
            idle += 1
            if idle >= c.nwarps:
                c.time = NEVER
                return R_OK
            n = c.line[0]
            give_turn(c)
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
                    take_back(c)
                if code != GO_ON:
                    return code
        if t > imin(stop, g.max_cycles):
            return pause(c, g, t, limit)
    return R_OK
