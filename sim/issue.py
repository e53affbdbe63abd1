"""Issue, scoreboard and units: the timing rules of docs/timing.md in restricted Python, and the loop that runs the machine.

Per warp the next instruction could issue at e = max(warp's earliest, operands, its slot, room in its unit's queue). The core issues the
smallest e; ties: the warp that issued last, then the one longest without issue, then the lowest number. Cores take turns in order of time.
"""

from __future__ import annotations

from rvgpu.isa.prims import at_least, fill, imax, imin, later, ld64, lshr, most, most_of, sel, wrap, zero
from rvgpu.sim.check import start_shadow
from rvgpu.sim.handlers import reshape
from rvgpu.sim.memory import catch_up, l1_load, l1_store, record
from rvgpu.sim.occupancy import class_cycles
from rvgpu.sim.operands import place
from rvgpu.sim.state import (
    ANY_SHAPE,
    CAUSE,
    DONE,
    F_ILLEGAL,
    F_JUMP,
    F_LATER,
    F_VSTART,
    F_VTYPE,
    NOTHING,
    NOWHERE,
    OK,
    PLAN_BYTES,
    R_LIMIT,
    R_OK,
    REC_BYTES,
    REGS,
    RUN,
    UNITS,
    WARP_BYTES,
    Core,
    Gpu,
    Plan,
    Rec,
    Warp,
)
from rvgpu.sim.translate import address, apart, ptr
from rvgpu.sim.trap import GO_ON, trap

SLICE = 1000  # instructions that a warp runs in its turn when nothing is timed
NEVER = 1 << 60
C_UNIT, C_DISPATCH, C_IDLE = CAUSE["unit"], CAUSE["dispatch"], CAUSE["idle"]
C_SPM, C_L1, C_DRAM, C_L2 = CAUSE["data.scratchpad"], CAUSE["data.l1"], CAUSE["data.dram"], CAUSE["data.l2"]

# what an instruction costs its unit
COST_ONE, COST_CLASS, COST_EXP, COST_MM, COST_TILE = range(5)
U_NONE, U_VALU, U_EXP, U_LSU, U_MATRIX, U_TILE = range(6)
# how an instruction goes through the issue loop: `other` is config, csr, atomics, jumps, traps
K_ALU, K_LANES, K_MULTIPLY, K_MEMORY, K_CONFIG, K_OTHER = range(6)
M_NONE, M_LOAD, M_STORE, M_VLOAD, M_VSTORE = range(5)
CHECKED, SEEDED = 0, 0  # bound when loops of their own are made: checked mode, latencies of a seed


def rule_of(w: Warp, g: Gpu) -> int:
    """The address of checked mode's rule for the warp's next instruction."""
    return ld64(g.checks + ((w.pc << 2) + w.sew) * 8)


def call_handler(h: int, c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Replaced by an indirect call in compiled code; the reference engine binds its own."""
    return 0


@apart
def prepare(w: Warp, r: Rec, p: Plan, g: Gpu) -> int:
    """The plan of an instruction under the warp's configuration; without a handler where the encoding is reserved (operands.place). Only vector loads
    and stores can start at an element other than 0: no other instruction ever stops in the middle. vl, tm and tk decide the cycles only."""
    known = (p.shape ^ w.shape) >> 40 == 0
    legal = r.valid != 0 and (r.needs_vtype == 0 or w.vill == 0)
    p.shape = w.shape if r.vector != 0 or (r.needs != 0 and g.switched != 0) else ANY_SHAPE
    p.cycles = unit_cost(w, r, g) if r.unit != U_NONE and legal else 1
    if known:
        return 0
    p.entry = 0
    p.fault = F_VTYPE if r.valid != 0 else F_ILLEGAL
    fault = place(w, r, p)
    if w.shape & r.needs != 0:
        p.fault = F_ILLEGAL
    elif legal and fault != OK:
        p.fault = fault
    elif legal and w.vstart != 0 and r.vector != 0 and r.unit != U_LSU:
        p.fault = F_VSTART
    elif legal:
        p.entry = r.handler[w.sew]
    return arrange(r, p)


def arrange(r: Rec, p: Plan) -> int:
    """The part of a plan that issue reads. `form` 1, 2, 4, 8: up to three vector groups of that many registers, and a destination of as many or
    none; 0: anything else, with tiles behind the vector registers."""
    p.kind, p.unit, p.chain, p.halves = r.kind, r.unit, r.chain, r.size >> 1
    p.side = 0 if r.unit == U_NONE else 1
    p.x0, p.x1, p.groups, p.waits, p.form = 0, 0, 0, 0, 0
    p.base[0], p.base[1], p.base[2] = NOTHING, NOTHING, NOTHING
    if r.dst < 100 and r.dst >= 64 and r.cost != COST_MM:
        p.form = p.dstspan
    for k in range(r.nsrc):
        reg = r.src[k]
        if reg < 64 and p.x1 == 0:
            p.x1, p.x0 = p.x0, reg
        elif reg < 96:
            p.base[p.groups], p.length[p.groups] = reg, p.span[k]
            p.groups += 1
            p.form = p.span[k] if p.form == 0 or p.form == p.span[k] else 255
    p.waits = p.groups
    for k in range(r.nsrc):
        if r.src[k] >= 96:
            p.base[p.waits], p.length[p.waits] = r.src[k], p.span[k]
            p.waits += 1
    p.dst = r.dst if r.dst < 100 else NOWHERE
    p.after = r.dst if r.dst < 100 and r.cost != COST_MM else NOTHING
    n = p.form
    if p.waits > 3 or p.waits != p.groups or (n != 1 and n != 2 and n != 4 and n != 8):
        p.form = 0
    if p.dst == NOWHERE:
        p.dstspan = imax(p.form, 1)
    return 0


def plan_of(c: Core, w: Warp, g: Gpu) -> int:
    """The address of the plan of the warp's next instruction, made when there is none for its configuration."""
    at = c.plans + w.pc * PLAN_BYTES
    p = ptr(Plan, at)
    if p.shape != w.shape and p.shape != ANY_SHAPE:
        prepare(w, ptr(Rec, g.recs + w.pc * REC_BYTES), p, g)
    return at


def operands(w: Warp, r: Rec, p: Plan) -> int:
    """When the warp's next instruction may issue, but for its slot and its unit: when all its sources are there: a scalar, or the first element
    of a vector when the class chains (`first`), else the cycle after the last element (`last` + 1). A destination may be written from the cycle
    after its last reader started, and so that its first new element comes after the first old one; or, where `core.write_after_write` says so, once
    the old value is there (x and f registers; results of reductions); multiplies on one tile follow back to back."""
    t = imax(w.earliest, imax(w.first[p.x0], w.first[p.x1]))
    if p.side == 0:
        return imax(imax(t, w.first[p.base[0]]), w.first[p.after] + r.after)
    n = p.form
    if n == 1:
        return imax(t, groups_ready(w, r, p, 1))
    if n == 2:
        return imax(t, groups_ready(w, r, p, 2))
    if n == 4:
        return imax(t, groups_ready(w, r, p, 4))
    if n == 8:
        return imax(t, groups_ready(w, r, p, 8))
    from_ = address(w.first) if p.chain != 0 else address(w.last)
    for k in range(p.waits):
        t = imax(t, most(from_ + 8 * p.base[k], p.length[k]) + 1 - p.chain)
    if p.after != NOTHING:
        t = imax(t, most(address(w.first) + 8 * p.after, p.dstspan) + r.after)
    return imax(t, most(address(w.read) + 8 * p.dst, p.dstspan) + 1)


def groups_ready(w: Warp, r: Rec, p: Plan, n: int) -> int:
    """Of groups of n registers each, a constant where this is called."""
    first = address(w.first)
    of = first if p.chain != 0 else address(w.last)
    t = most_of(of + 8 * p.base[0], of + 8 * p.base[1], of + 8 * p.base[2], n) + 1 - p.chain
    return imax(t, imax(most(first + 8 * p.after, n) + r.after, most(address(w.read) + 8 * p.dst, n) + 1))


@apart
def blame(w: Warp, r: Rec, p: Plan, t: int) -> int:
    """The cause of a wait for operands until t: the first of what the instruction waited for longest."""
    if w.earliest == t:
        return w.why
    for k in range(r.nsrc):
        base, n = r.src[k], p.span[k]
        early = r.chain != 0 or base < 64
        of = t if early else t - 1
        at = 8 * base + (address(w.first) if early else address(w.last))
        if most(at, n) == of:
            for i in range(n):
                if ld64(at + 8 * i) == of:
                    return w.cause[base + i]
    for i in range(p.dstspan):
        if w.read[p.dst + i] + 1 == t:
            return C_UNIT
        if w.first[p.after + i] + r.after == t:
            return w.cause[p.after + i]
    return C_UNIT


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


def occupy(c: Core, unit: int, g: Gpu, start: int, cost: int) -> int:
    """A unit takes work in order, and has room for `queue` instructions beside what it runs."""
    c.last_start = start
    c.last_cost = cost
    c.free[unit] = start + cost
    c.busy[unit] += cost
    n = c.taken[unit]
    c.taken[unit] = n + 1
    c.starts[4 * unit + (n & 3)] = start
    c.room[unit] = c.starts[4 * unit + ((n + 1 - g.queue) & 3)]
    return 0


def retire(c: Core, w: Warp, r: Rec, p: Plan, g: Gpu, start: int, cost: int, first: int, last: int, cause: int) -> int:
    """What an instruction of a unit leaves on the scoreboard. Its first element is there after its class's latency (that of a reduction
    `reduction_passes` x (occupancy - 1) later still), its last occupancy - 1 later, and no earlier than its sources' last ones and its latency."""
    occupy(c, p.unit, g, start, cost)
    n = p.form
    if n == 1:
        return groups_retire(w, r, p, 1, start, first, last, cause)
    if n == 2:
        return groups_retire(w, r, p, 2, start, first, last, cause)
    if n == 4:
        return groups_retire(w, r, p, 4, start, first, last, cause)
    if n == 8:
        return groups_retire(w, r, p, 8, start, first, last, cause)
    for k in range(p.groups):
        at = 8 * p.base[k]
        at_least(address(w.read) + at, p.length[k], start)
        if p.chain != 0:
            last = imax(last, most(address(w.last) + at, p.length[k]) + r.latency)
    fill(address(w.first) + 8 * p.dst, p.dstspan, first)
    later(address(w.last) + 8 * p.dst, p.dstspan, last)
    for reg in range(p.dst, p.dst + p.dstspan):
        w.cause[reg] = cause
    return 0


def groups_retire(w: Warp, r: Rec, p: Plan, n: int, start: int, first: int, last: int, cause: int) -> int:
    of, read = address(w.last), address(w.read)
    a, b, d = 8 * p.base[0], 8 * p.base[1], 8 * p.base[2]
    if p.chain != 0:
        last = imax(last, most_of(of + a, of + b, of + d, n) + r.latency)
    at_least(read + a, n, start)
    at_least(read + b, n, start)
    at_least(read + d, n, start)
    fill(address(w.first) + 8 * p.dst, n, first)
    later(of + 8 * p.dst, n, last)
    for k in range(n):
        w.cause[p.dst + k] = cause
    return 0


def multiplied(c: Core, w: Warp, r: Rec, p: Plan, g: Gpu, start: int) -> int:
    """Multiplies on one tile follow back to back; others wait for the result."""
    occupy(c, p.unit, g, start, p.cycles)
    for k in range(p.groups):
        at_least(address(w.read) + 8 * p.base[k], p.length[k], start)
    w.last[p.dst] = start + p.cycles - 1 + g.mm_latency
    w.cause[p.dst] = r.cause
    return 0


def moved(c: Core, w: Warp, r: Rec, p: Plan, g: Gpu, start: int) -> int:
    """What a load or store leaves: data of scratchpad come in order of their beats, of DRAM space all at once."""
    done = memory_time(c, w, r, g, start)
    cost = imax(w.mem_count, p.cycles)
    first = start + r.latency
    last = first
    cause = r.cause
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
    if p.side != 0:
        return retire(c, w, r, p, g, start, cost, first, last, cause)
    c.last_cost = cost
    return scalar_result(w, p, first, cause)


def scalar_result(w: Warp, p: Plan, first: int, cause: int) -> int:
    w.first[p.dst] = first
    w.cause[p.dst] = cause
    return 0


def scatter(x: int) -> int:
    """A fixed mix of a number's bits (splitmix64's)."""
    x = wrap((x ^ lshr(x, 30)) * -0x40A7_B892_E31B_1A47)
    x = wrap((x ^ lshr(x, 27)) * -0x6B2F_B644_ECCE_EE15)
    return x ^ lshr(x, 31)


@apart
def perturb(w: Warp, r: Rec, p: Plan, g: Gpu, e: int, pc: int) -> int:
    """With a latency seed: what the instruction makes, the transfer that it started, and its warp's next issue come up to 63 cycles later,
    often none, by a hash of the seed, the instruction, how often it ran, and the warp."""
    h = scatter(wrap(g.seed * 0x1000_0001) ^ scatter(wrap((pc << 40) + (p.count << 8) + w.hart)))
    slack = h & 63 if h & 0xC0 == 0 else h >> 8 & 3
    if r.dst < 100:
        for reg in range(r.dst, r.dst + p.dstspan):
            w.first[reg] += slack
            w.last[reg] += slack
    if w.tokens != w.tokens_seen:
        w.tokens_seen = w.tokens
        w.token_last += slack
        w.token_time[w.tokens & 63] = w.token_last
    w.earliest = imax(w.earliest, e) + (h >> 16 & 63 if h & 0x300_0000 == 0 else 0)
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
        zero(address(w.first), REGS * 8)
        zero(address(w.last), REGS * 8)
        zero(address(w.read), REGS * 8)
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


def issue_time(c: Core, n: int) -> int:
    """The earliest cycle for the next instruction of warp n, whose operands are known."""
    u = c.ready_unit[n]
    return imax(c.ready[n], imax(c.slot[sel(u, 1, 0)], c.room[u]))


@apart
def choose(c: Core, g: Gpu) -> int:
    """The issue time of the warp that issues next, which stands at `turn` in `line`; notes per unit in `rival` when the first of the other warps
    is ready."""
    for n in range(c.nwarps):
        if c.ready[n] < 0:
            find_ready(c, n, g)
    c.stale = 0
    end = c.nwarps - 1
    best = NEVER
    at = 0
    for k in range(end):
        e = issue_time(c, c.line[k])
        at = sel(e < best, k, at)
        best = imin(e, best)
    last = issue_time(c, c.line[end])
    at = sel(last <= best, end, at)
    c.turn = at
    for u in range(UNITS):
        c.rival[u] = NEVER
    for k in range(end + 1):
        if k != at:
            n = c.line[k]
            u = c.ready_unit[n]
            c.rival[u] = imin(c.rival[u], c.ready[n])
    return imin(best, last)


def others(c: Core) -> int:
    """The earliest cycle for an instruction of another warp."""
    t = NEVER
    for u in range(U_VALU, UNITS):
        t = imin(t, imax(c.rival[u], c.room[u]))
    return imin(imax(t, c.slot[1]), imax(c.rival[0], c.slot[0]))


def give_turn(c: Core) -> int:
    """Moves the warp at `turn` to the end of `line`, which holds the warps in order of issue."""
    n = c.line[c.turn]
    for k in range(c.turn, c.nwarps - 1):
        c.line[k] = c.line[k + 1]
    c.line[c.nwarps - 1] = n
    return n


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
        if e == t and (e > c.accounted or traced != 0):
            why = blame(w, r, p, t)
        if kind == K_ALU:
            call_handler(p.entry, c, w, r, g)
            scalar_result(w, p, e + r.latency, r.cause)
            w.earliest = e
            w.pc = after
        elif kind == K_LANES or kind == K_MULTIPLY:
            fault = call_handler(p.entry, c, w, r, g)
            if fault != OK:
                w.why = why
                code = trap(c, w, r, g, e, fault)
                if code != GO_ON:
                    return code
                continue
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
            if fault != OK:
                w.why = why
                code = trap(c, w, r, g, e, fault)
                if code != GO_ON:
                    return code
                continue
            moved(c, w, r, p, g, imax(e, c.free[p.unit]))
            w.earliest = e
            w.pc = after
        else:
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
                w.why = why
                code = trap(c, w, r, g, e, fault)
                if code != GO_ON:
                    return code
                continue
            if kind == K_CONFIG and w.shape == shape:
                p.free += 1
                slot = 0
            else:
                scalar_result(w, p, e + r.latency, r.cause)
            if w.next != after:
                w.earliest = imax(w.earliest, e + 1 + g.branch)
            w.pc = w.next
        p.count += 1
        w.retired += 1
        if slot != 0:
            c.slot[p.side] = e + 1
            if e >= c.accounted:
                c.stall[why] += e - c.accounted
                c.accounted = e + 1
            if traced != 0:
                start = c.last_start if r.unit != U_NONE else e
                record(g, r.pc, c.core, n, e, why, r.unit, start, start + (c.last_cost if r.unit != U_NONE or kind == K_MEMORY else 1))
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


def take_back(c: Core) -> int:
    """Undoes giving the turn to the first in line."""
    n = c.line[c.nwarps - 1]
    for k in range(1, c.nwarps):
        c.line[c.nwarps - k] = c.line[c.nwarps - k - 1]
    c.line[0] = n
    return 0


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


def pause(c: Core, g: Gpu, e: int, limit: int) -> int:
    """The next instruction issues after the core's turn; or after the last cycle of the run."""
    c.stale = 1
    c.time = e
    if e > limit:
        return R_OK
    c.fault_warp = c.line[c.turn]
    return R_LIMIT
