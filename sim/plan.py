"""Plans: what issue needs to know of an instruction under its warp's vector configuration, made once for each, in restricted Python."""

from __future__ import annotations

from rvgpu.isa.prims import imax
from rvgpu.sim.occupancy import class_cycles
from rvgpu.sim.operands import place
from rvgpu.sim.state import ANY_SHAPE, F_ILLEGAL, F_VSTART, F_VTYPE, NOTHING, NOWHERE, OK, PLAN_BYTES, REC_BYTES, Core, Gpu, Plan, Rec, Warp
from rvgpu.sim.translate import apart, ptr

# what an instruction costs its unit
COST_ONE, COST_CLASS, COST_EXP, COST_MM, COST_TILE = range(5)
U_NONE, U_VALU, U_EXP, U_LSU, U_MATRIX, U_TILE = range(6)
# how an instruction goes through the issue loop: `jump` is branches too, `other` is jumps to registers, csr, atomics, traps
K_ALU, K_LANES, K_MULTIPLY, K_MEMORY, K_CONFIG, K_OTHER, K_JUMP = range(7)
M_NONE, M_LOAD, M_STORE, M_VLOAD, M_VSTORE = range(5)


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
    if r.dst < NOWHERE and r.dst >= 64 and r.cost != COST_MM:
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
    p.dst = r.dst if r.dst < NOWHERE else NOWHERE
    p.after = r.dst if r.dst < NOWHERE and r.cost != COST_MM else NOTHING
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
