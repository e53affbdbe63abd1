"""Scoreboard and units: when an instruction's operands are there, and what it leaves behind (docs/timing.md), in restricted Python."""

from __future__ import annotations

from rvgpu.isa.prims import imax, ld64, lshr, wrap
from rvgpu.isa.prims_host import at_least, fill, later, most, most_of
from rvgpu.isa.prims_turns import claim
from rvgpu.sim.memory import l1_load, l1_store, l2_through
from rvgpu.sim.plan import M_LOAD, M_STORE, M_VLOAD, M_VSTORE
from rvgpu.sim.state import CAUSE, NOTHING, NOWHERE, TILE, Core, Gpu, Plan, Rec, Warp
from rvgpu.sim.translate import address, apart

C_UNIT = CAUSE["unit"]
C_SPM, C_L1, C_DRAM, C_L2 = CAUSE["data.scratchpad"], CAUSE["data.l1"], CAUSE["data.dram"], CAUSE["data.l2"]


def tile_of(w: Warp, r: Rec) -> int:
    """The scoreboard's place of the tile in which the instruction's subset lies (its number in bits 27 to 30; four to a 32-bit tile)."""
    return TILE + ((w.x[r.subset] >> 29) & 3)


def operands(w: Warp, r: Rec, p: Plan) -> int:
    """When the warp's next instruction may issue, but for its slot and its unit: when all its sources are there: a scalar, or the first element
    of a vector when the class chains (`first`), else the cycle after the last element (`last` + 1). A destination may be written from the cycle
    after its last reader started, and so that its first new element comes after the first old one; or, where `core.write_after_write` says so, once
    the old value is there (x and f registers; results of reductions); multiplies on one tile follow back to back, its moves, loads and stores
    wait for the last one's result."""
    if p.side == 0:
        return imax(w.earliest, scalar_operands(w, r, p))
    t = imax(w.earliest, imax(w.first[p.x0], w.first[p.x1]))
    if r.tile != 0:
        t = imax(t, w.last[tile_of(w, r)] + 1)
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


def scalar_operands(w: Warp, r: Rec, p: Plan) -> int:
    """The same of an instruction of the scalar slot, whenever its warp may issue."""
    return imax(imax(imax(w.first[p.x0], w.first[p.x1]), w.first[p.base[0]]), w.first[p.after] + r.after)


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
    if r.tile != 0 and w.last[tile_of(w, r)] + 1 == t:
        return w.cause[tile_of(w, r)]
    for i in range(p.dstspan):
        if w.read[p.dst + i] + 1 == t:
            return C_UNIT
        if w.first[p.after + i] + r.after == t:
            return w.cause[p.after + i]
    return C_UNIT


def occupy(c: Core, unit: int, g: Gpu, e: int, start: int, cost: int) -> int:
    """A unit takes work in order, and has room for `queue` instructions beside what it runs. All units take it from the vector slot, which is
    taken at cycle e."""
    c.last_start = start
    c.last_cost = cost
    c.free[unit] = start + cost
    c.busy[unit] += cost
    n = c.taken[unit]
    c.taken[unit] = n + 1
    c.starts[4 * unit + (n & 3)] = start
    c.slot = e + 1
    claim(address(c.room) + 8, unit - 1, imax(e + 1, c.starts[4 * unit + ((n + 1 - g.queue) & 3)]), e + 1)
    return 0


def retire(c: Core, w: Warp, r: Rec, p: Plan, g: Gpu, e: int, start: int, cost: int, first: int, last: int, cause: int) -> int:
    """What an instruction of a unit leaves on the scoreboard. Its first element is there after its class's latency (that of a reduction
    `reduction_passes` x (occupancy - 1) later still), its last occupancy - 1 later, and no earlier than its sources' last ones and its latency."""
    occupy(c, p.unit, g, e, start, cost)
    if r.tile != 0:
        tile = tile_of(w, r)
        w.read[tile] = imax(w.read[tile], start)
        if r.tile == 2:
            w.last[tile] = imax(w.last[tile], last)
            w.cause[tile] = cause
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


def multiplied(c: Core, w: Warp, r: Rec, p: Plan, g: Gpu, e: int) -> int:
    """Multiplies on one tile follow back to back; others wait for the result."""
    start = imax(e, c.free[p.unit])
    occupy(c, p.unit, g, e, start, p.cycles)
    for k in range(p.groups):
        at_least(address(w.read) + 8 * p.base[k], p.length[k], start)
    w.last[p.dst] = start + p.cycles - 1 + g.mm_latency
    w.cause[p.dst] = r.cause
    return 0


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
                if r.through != 0 and write and line << 6 >= w.mem_addr and (line + 1) << 6 <= w.mem_addr + w.mem_bytes:
                    done = imax(done, l2_through(c, g, line, t + cycles))
                else:
                    done = imax(done, l1_store(c, g, line << 6, t + cycles) if write else l1_load(c, g, line << 6, t + cycles))
                cycles += 1
        cycles = imax(1, cycles)
    w.mem_count = cycles
    return done


@apart
def moved(c: Core, w: Warp, r: Rec, p: Plan, g: Gpu, e: int) -> int:
    """What a load or store leaves: data of scratchpad come in order of their beats, of DRAM space all at once."""
    start = imax(e, c.free[p.unit])
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
        return retire(c, w, r, p, g, e, start, cost, first, last, cause)
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
    if r.dst < NOWHERE:
        for reg in range(r.dst, r.dst + p.dstspan):
            w.first[reg] += slack
            w.last[reg] += slack
    if w.tokens != w.tokens_seen:
        w.tokens_seen = w.tokens
        w.token_last += slack
        w.token_time[w.tokens & 63] = w.token_last
    w.earliest = imax(w.earliest, e) + (h >> 16 & 63 if h & 0x300_0000 == 0 else 0)
    return 0
