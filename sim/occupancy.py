"""How long a vector instruction occupies its unit: one rule for all timing classes (isa/classes.py), in restricted Python.

Cold: it runs once per instruction and vector configuration, into `Plan.cycles` and `Plan.latency`.
"""

from __future__ import annotations

from collections.abc import Iterator

from rvgpu.isa.classes import PAIRS, VECTOR, WIDE, resolve
from rvgpu.isa.machine import Machine
from rvgpu.isa.prims import imax
from rvgpu.sim.state import Gpu, Rec, Warp

ONE = 1 << 20  # a cycle in the table of classes
STRIDE = 9  # its numbers per class: start-up and time per element for each SEW, time per register
REDUCTIONS = ("vred", "vfred", "vfredm", "vfredo")


def class_cycles(w: Warp, r: Rec, g: Gpu) -> int:
    """Occupancy of the unit of a vector instruction, in cycles: sew_factor ** log2(SEW / 32) x (start_up + per_element x elements) + per_register x
    registers x VLEN / DLEN, rounded up, at least 1 (multiplies: the longer of the two). Registers are vl x SEW / VLEN; of the wide side for
    widening and narrowing; N for whole-register loads and stores, and for moves where the machine says so (`vector.whole_moves`); a bit per element
    for mask loads and stores; pairs of a destination and a source register for gathers and compress; of all fields for segments. Parameters per
    class: `[classes]` of the machine, else what isa/classes.py derives from DLEN and latencies."""
    at = r.cls * STRIDE
    per_lane = (g.classes[at + w.sew] + g.classes[at + 4 + w.sew] * elements(w, r)) * g.dlen
    passes = g.classes[at + 8] * register_bits(w, r, g)
    total = imax(per_lane, passes) if r.longest != 0 else per_lane + passes
    return imax(1, (imax(total, 1) + ONE * g.dlen - 1) // (ONE * g.dlen))


def elements(w: Warp, r: Rec) -> int:
    """How many elements the instruction works on: vl (one, where vl is 0), of each field."""
    return imax(1, w.vl) * r.fields


def register_bits(w: Warp, r: Rec, g: Gpu) -> int:
    """The bits of the registers that its class counts, of every source register for each destination register where it counts pairs."""
    if r.whole != 0:
        return r.whole * g.vlenb * 8
    n = elements(w, r)
    bits = 8 << w.sew
    if r.counts == PAIRS:
        return n * bits * imax(1, w.lmul8 >> 3)
    if r.counts == WIDE:
        return n * bits * 2
    return n * (r.eew if r.eew != 0 else bits)


def class_table(machine: Machine) -> Iterator[int]:
    """The machine's parameters as `Gpu.classes` holds them."""
    for name in VECTOR:
        start, register, element, factor = resolve(name, getattr(machine.classes, name), machine)
        scale = [factor ** (k - 2) for k in range(4)]
        yield from (int(x * ONE) for x in [*(start * s for s in scale), *(element * s for s in scale), register])

