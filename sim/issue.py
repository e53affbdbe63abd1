"""Issue, scoreboard and units: the timing rules of docs/timing.md in restricted Python, and the loop that runs the machine.

Per warp the next instruction could issue at e = max(warp's earliest, operands, its slot, room in its unit's queue). The core issues the
smallest e; ties: the warp that issued last, then the one longest without issue, then the lowest number. Cores take turns in order of time.
"""

from __future__ import annotations

from rvgpu.isa.prims import imax, imin, ld32, sel, st32, st64, wrap, zero
from rvgpu.sim.handlers import reshape
from rvgpu.sim.memory import CLEAN, DIRTY, WINDOW, dram_moved, l1_load, l1_store, record, take_from
from rvgpu.sim.occupancy import class_cycles
from rvgpu.sim.operands import place
from rvgpu.sim.state import (
    CAUSE,
    CORE_BYTES,
    DONE,
    F_ILLEGAL,
    F_JUMP,
    F_VSTART,
    F_VTYPE,
    OK,
    PLAN_BYTES,
    REC_BYTES,
    REGS,
    RUN,
    WARP_BYTES,
    Core,
    Gpu,
    Plan,
    Queue,
    Rec,
    Warp,
)
from rvgpu.sim.translate import address, apart, ptr

QUANTUM = 60  # cycles a core may run ahead of the others: at most the L2's latency
NEVER = 1 << 60
C_UNIT, C_DISPATCH, C_IDLE = CAUSE["unit"], CAUSE["dispatch"], CAUSE["idle"]
C_SPM, C_L1, C_DRAM, C_L2 = CAUSE["data.scratchpad"], CAUSE["data.l1"], CAUSE["data.dram"], CAUSE["data.l2"]
R_OK, R_FAULT, R_DEADLOCK, R_LIMIT = 0, 1, 2, 3

# what an instruction costs its unit
COST_ONE, COST_CLASS, COST_EXP, COST_MM, COST_TILE = range(5)
U_NONE, U_VALU, U_EXP, U_LSU, U_MATRIX, U_TILE = range(6)
LAST_UNIT = U_TILE
FIRST, LAST, READ, CAUSED = range(4)  # of a register on the board
M_NONE, M_LOAD, M_STORE, M_VLOAD, M_VSTORE = range(5)


def call_handler(h: int, c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Replaced by an indirect call in compiled code; the reference engine binds its own."""
    return 0


@apart
def prepare(w: Warp, r: Rec, p: Plan, g: Gpu) -> int:
    """The plan of an instruction under the warp's configuration; without a handler where the encoding is reserved (operands.place). Only vector loads
    and stores can start at an element other than 0: no other instruction ever stops in the middle. vl, tm and tk decide the cycles only."""
    known = (p.shape ^ w.shape) >> 40 == 0
    legal = r.valid != 0 and (r.needs_vtype == 0 or w.vill == 0)
    p.shape = w.shape
    p.cycles = unit_cost(w, r, g) if r.unit != U_NONE and legal else 1
    p.latency = r.latency + r.passes * (p.cycles - 1)
    if known:
        return 0
    p.entry = 0
    p.fault = F_VTYPE if r.valid != 0 else F_ILLEGAL
    fault = place(w, r, p)
    if legal and fault != OK:
        p.fault = fault
    elif legal and w.vstart != 0 and r.vector != 0 and r.unit != U_LSU:
        p.fault = F_VSTART
    elif legal:
        p.entry = r.handler[w.sew]
    return 0


def find_ready(c: Core, n: int, g: Gpu) -> int:
    """Operands. The warp's next instruction may issue when all its sources are there: a scalar, or the first element of a vector when the class
    chains (`first`), else the cycle after the last element (`last` + 1). A destination may be written from the cycle after its last reader
    started, and so that its first new element comes after the first old one; or, where `core.write_after_write` says so, once the old value is
    there (x and f registers; results of reductions); multiplies on one tile follow back to back."""
    w = ptr(Warp, c.warps + n * WARP_BYTES)
    if w.state != RUN:
        c.ready[n] = NEVER
        c.ready_unit[n] = 0
        return NEVER
    r = ptr(Rec, g.recs + w.pc * REC_BYTES)
    p = ptr(Plan, c.plans + w.pc * PLAN_BYTES)
    if p.shape != w.shape:
        prepare(w, r, p, g)
    t = w.earliest
    why = w.why
    for k in range(r.nsrc):
        base = r.src[k]
        part = 0 if r.chain != 0 or base < 64 else 1  # its first or its last element
        for reg in range(base, base + p.span[k]):
            at = w.board[4 * reg + part] + part
            why = sel(at > t, w.board[4 * reg + CAUSED], why)
            t = imax(at, t)
    for reg in range(r.dst, r.dst + p.dstspan):
        at = w.board[4 * reg + READ] + 1
        why = sel(at > t, C_UNIT, why)
        t = imax(at, t)
        if r.cost != COST_MM:
            at = w.board[4 * reg + FIRST] + r.after  # the new value comes after the old one
            why = sel(at > t, w.board[4 * reg + CAUSED], why)
            t = imax(at, t)
    c.ready[n] = t
    c.ready_why[n] = why
    c.ready_unit[n] = r.unit
    return t


def unit_cost(w: Warp, r: Rec, g: Gpu) -> int:
    """Occupancy of the instruction's unit, in cycles: vector classes as `occupancy.class_cycles` says; exp: vl / exp lanes; tile: vl x 4 bytes /
    tile move rate; mm: ceil(tm / rows) x ceil(tn / columns) x ceil(tk / depth) of the array, whose sides follow from its rate (512 for bf16: 16 x
    16 x 2; f64 has a quarter of f32's rate)."""
    k = r.cost
    if k == COST_CLASS:
        return class_cycles(w, r, g)
    if k == COST_EXP:
        return imax(1, (w.vl + g.exp_lanes - 1) // g.exp_lanes)
    if k == COST_TILE and r.mem == M_NONE:
        return imax(1, (w.vl * 4 + g.tile_bytes - 1) // g.tile_bytes)
    if k == COST_MM:
        rate = g.mac16 if w.sew == 1 else g.mac32 if w.sew == 2 else imax(1, g.mac32 >> 2) if w.sew == 3 else g.mac8
        depth = 2 if w.sew == 1 else 4 if w.sew == 0 else 1
        side = 1
        while side * side * depth < rate:
            side = side * 2
        rows = side
        columns = imax(1, rate // (depth * rows))
        work = ((w.tm + rows - 1) // rows) * ((w.vl + columns - 1) // columns)
        return imax(1, work * ((w.tk + depth - 1) // depth))
    return 1


def memory_time(c: Core, w: Warp, r: Rec, g: Gpu, t: int) -> int:
    """A load or store that starts at t. Scratchpad: the bytes' beats (unit stride), an element a bank cycle (strided: the number of elements
    when the stride is a multiple of 128 bytes, else half of them), latency after the last beat. DRAM space: one line a cycle through L1
    (strided and indexed: one element a cycle), data when the last line is there. Sets mem_count to the unit's cycles; returns when the last
    data are there."""
    n = imax(1, w.mem_count)
    cycles = 1
    done = t
    if w.mem_kind == 1:
        if w.mem_count > 0:
            beats = n if w.mem_stride & 127 == 0 else imax(1, (n * w.mem_bytes + g.spm_bytes - 1) // g.spm_bytes) * 2
            cycles = imax(n >> 1, beats)
        else:
            at = w.mem_addr % g.spm_bytes
            cycles = imax(1, (at + w.mem_bytes + g.spm_bytes - 1) // g.spm_bytes)
        done = t + cycles - 1 + g.spm_latency
        w.mem_kind = 1
    elif w.mem_kind == 2:
        write = r.mem == M_STORE or r.mem == M_VSTORE
        cycles = 0
        if w.mem_count > 0:
            base = wrap(w.mem_addr - (n - 1) * w.mem_stride)
            for i in range(n):
                at = wrap(base + i * w.mem_stride)
                done = imax(done, l1_store(c, g, at, t + i) if write else l1_load(c, g, at, t + i))
            cycles = n
        elif w.mem_bytes > 0:
            first = w.mem_addr >> 6
            last = (w.mem_addr + w.mem_bytes - 1) >> 6
            for line in range(first, last + 1):
                done = imax(done, l1_store(c, g, line << 6, t + cycles) if write else l1_load(c, g, line << 6, t + cycles))
                cycles += 1
        cycles = imax(1, cycles)
    w.mem_count = cycles
    return done


def retire(c: Core, w: Warp, r: Rec, p: Plan, g: Gpu, e: int) -> int:
    """After issue at e the instruction starts when its unit is free, in order; its first element is there after the class's latency
    (for reductions `reduction_passes` x (occupancy - 1) later still), its last occupancy - 1 later, and never before its sources' last elements
    + latency. A load or store holds its unit as long as memory and its class say."""
    unit = r.unit
    start = e
    cost = p.cycles
    if unit != U_NONE:
        start = imax(e, c.free[unit])
    first = start + p.latency
    last = first + cost - 1
    cause = r.cause
    if r.mem != M_NONE:
        done = memory_time(c, w, r, g, start)
        cost = imax(w.mem_count, p.cycles)
        last = first
        if r.mem == M_LOAD or r.mem == M_VLOAD:
            if w.mem_kind == 1:
                first = start + g.spm_latency
                cause = C_SPM
            elif w.mem_kind == 2:
                first = done
                cause = C_L1 if done <= start + g.l1_hit + cost else C_DRAM if done > start + 3 * g.l2_latency else C_L2
            else:
                first = start + g.l1_hit
            last = imax(first + cost - 1, done)
    c.last_start = start
    c.last_cost = cost
    if unit == U_NONE:
        c.room[0] = e + 1
    else:
        c.free[unit] = start + cost
        c.busy[unit] += cost
        slot = unit * 4
        c.starts[slot + 2] = c.starts[slot + 1]
        c.starts[slot + 1] = c.starts[slot]
        c.starts[slot] = start
        for u in range(1, LAST_UNIT + 1):
            c.room[u] = imax(c.room[u], e + 1)
        c.room[unit] = imax(e + 1, c.starts[slot + g.queue - 1])
        for k in range(r.nsrc):
            base = r.src[k]
            if base >= 64 and base < 96:
                for reg in range(base, base + p.span[k]):
                    w.board[4 * reg + READ] = imax(w.board[4 * reg + READ], start)
                    if r.chain != 0:
                        last = imax(last, w.board[4 * reg + LAST] + r.latency)
    if r.cost == COST_MM:  # multiplies on one tile follow back to back; others wait for the result
        w.board[4 * r.dst + LAST] = start + cost - 1 + g.mm_latency
        w.board[4 * r.dst + CAUSED] = cause
    else:
        for reg in range(r.dst, r.dst + p.dstspan):
            w.board[4 * reg + FIRST] = first
            w.board[4 * reg + LAST] = imax(last, w.board[4 * reg + LAST] + 1)
            w.board[4 * reg + CAUSED] = cause
    return 0


def account(c: Core, e: int, why: int) -> int:
    """Every core-cycle has one cause: `issued` when an instruction issued in it; else what the next instruction to issue waited for last: data
    of a kind, its unit or slot (`unit`), a barrier, the dispatch of its CTA; `idle` when the core has nothing left to run."""
    if e >= c.accounted:
        c.stall[why] += e - c.accounted
        c.stall[0] += 1
        c.accounted = e + 1
    return 0


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
        zero(address(w.board), REGS * 8 * 4)
        w.state = RUN
        w.pc = g.entry
        w.earliest = t + g.dispatch
        w.why = C_DISPATCH
        c.ready[n] = -1
        w.cta = cta
        w.ctas = g.ncta
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
        w.token_last = 0
        w.fcsr = 0
        w.vstart = 0
        w.vxrm = 0
        w.vxsat = 0
        w.tm = 0
        w.tk = 0
        reshape(w)
    c.live = c.nwarps
    c.others = -1
    for i in range(16):
        c.bar_count[i] = 0
    return 1


def issue_time(c: Core, n: int) -> int:
    return imax(c.ready[n], c.room[c.ready_unit[n]])


@apart
def choose(c: Core, g: Gpu) -> int:
    """The issue time of the warp that issues next, which stands at `turn` in `line`; notes in `others` a time before which no other warp issues
    (until a barrier opens)."""
    for n in range(c.nwarps):
        if c.ready[n] < 0:
            find_ready(c, n, g)
    end = c.nwarps - 1
    best = NEVER
    others = NEVER
    at = 0
    for k in range(end):
        e = issue_time(c, c.line[k])
        others = imin(others, imax(e, best))
        at = sel(e < best, k, at)
        best = imin(e, best)
    last = issue_time(c, c.line[end])
    c.turn = sel(last <= best, end, at)
    c.others = sel(last <= best, best, imin(others, last))
    return imin(best, last)


def give_turn(c: Core) -> int:
    """Moves the warp at `turn` to the end of `line`, which holds the warps in order of issue."""
    n = c.line[c.turn]
    for k in range(c.turn, c.nwarps - 1):
        c.line[k] = c.line[k + 1]
    c.line[c.nwarps - 1] = n
    return 0


def step(c: Core, g: Gpu, limit: int) -> int:
    """One core. A cycle has one vector slot (vector, matrix and vector-memory instructions) and one scalar slot (all others); an instruction
    takes its slot for one cycle, and a warp may use both in one cycle. A unit takes work into a queue of `queue_entries` beside what it runs.
    The smallest possible issue time goes first; of equal ones the warp that issued last, then the one longest without issue, then the lowest
    number. A taken branch or jump delays its warp's next instruction by `taken_branch_cycles`. A vset that changes nothing takes no slot.
    Runs until the core's time passes `limit` or nothing can run; returns 0 or a run code."""
    end = c.nwarps - 1
    while 1:
        n = c.line[end]
        if c.ready[n] < 0:
            find_ready(c, n, g)
        e = issue_time(c, n)
        if e > c.others:
            e = choose(c, g)
            n = c.line[c.turn]
            if e <= limit:
                give_turn(c)
        if e > limit:
            c.time = e
            c.others = -1
            return R_OK
        if e > g.max_cycles:
            g.fault_core = c.core
            g.fault_warp = n
            return R_LIMIT
        w = ptr(Warp, c.warps + n * WARP_BYTES)
        pc = w.pc
        r = ptr(Rec, g.recs + pc * REC_BYTES)
        p = ptr(Plan, c.plans + pc * PLAN_BYTES)
        if p.shape != w.shape:  # another warp needed it for its own
            prepare(w, r, p, g)
        why = c.ready_why[n] if e == c.ready[n] else C_UNIT
        after = pc + (r.size >> 1)
        shape = w.shape
        w.now = e
        w.next = after
        w.earliest = e
        w.why = C_UNIT
        if r.mem != M_NONE:
            w.mem_kind = 0
            w.mem_bytes = 0
            w.mem_count = 0
        fault = p.fault
        if p.entry != 0:
            fault = call_handler(p.entry, c, w, r, g)
        if fault == OK and w.next >= g.nrecs:
            fault = F_JUMP
            w.fault_addr = g.text + 2 * w.next
        if fault != OK:
            w.fault = fault
            g.fault_core = c.core
            g.fault_warp = n
            c.time = e
            return R_FAULT
        c.instructions += 1
        p.count += 1
        if g.timed == 0:
            w.earliest = imax(w.earliest, e + 1)
        elif r.config == 0 or w.shape != shape:
            account(c, e, why)
            p.issue_cycles += 1
            retire(c, w, r, p, g, e)
            if g.trace_cap != 0:
                record(g, r.pc, c.core, n, e, why, r.unit, c.last_start, c.last_start + c.last_cost)
        if w.next != after:
            w.earliest = imax(w.earliest, e + 1 + g.branch)
        w.pc = w.next
        c.ready[n] = -1
        if w.next < 0:
            w.state = DONE
            w.pc = 0
            c.live -= 1
            g.end = imax(g.end, imax(e, w.token_last))
            if c.live == 0:
                if start_cta(c, g, imax(e + 1, w.token_last)) == 0:
                    c.time = NEVER
                    return R_OK
    return R_OK


def run(g: Gpu) -> int:
    """Runs a launch to its end: the core with the smallest time goes on until it is QUANTUM ahead of the others."""
    n = g.ncores
    while 1:
        best = NEVER
        pick = -1
        second = NEVER
        alive = 0
        for i in range(n):
            c = ptr(Core, g.cores + i * CORE_BYTES)
            if c.live > 0:
                alive += 1
                if c.time < best:
                    second = best
                    best = c.time
                    pick = i
                elif c.time < second:
                    second = c.time
        if pick < 0:
            return R_DEADLOCK if alive > 0 else R_OK
        c = ptr(Core, g.cores + pick * CORE_BYTES)
        code = step(c, g, imin(second + QUANTUM, NEVER - 1))
        if code != R_OK:
            return code
    return R_OK


def drain(g: Gpu) -> int:
    """The last dirty lines go to DRAM; returns the cycle when all is there."""
    q = ptr(Queue, g.dram_queue)
    last = g.end
    w = (g.end << 8) // WINDOW
    for i in range(g.l2_sets * g.l2_ways):
        tag = ld32(g.l2_tags + 4 * i)
        if tag & DIRTY != 0:
            st32(g.l2_tags + 4 * i, tag & CLEAN)
            st64(g.l2_arrival + 8 * i, 0)
            start = dram_moved(g, take_from(q, g.end, w))
            w = (start << 8) // WINDOW
            last = start + g.dram_latency
    return imax(last, g.dram_last)
