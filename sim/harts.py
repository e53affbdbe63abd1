"""Several harts of a bare-metal program: unlike CTAs they share data, so the core that is behind goes on (kernels: sim/rounds.py)."""

from __future__ import annotations

from rvgpu.isa.prims import imin
from rvgpu.sim.issue import SLICE, step, walk
from rvgpu.sim.rounds import QUANTUM
from rvgpu.sim.state import CORE_BYTES, R_DEADLOCK, R_OK, Core, Gpu
from rvgpu.sim.translate import ptr
from rvgpu.sim.turns import NEVER


def run_harts(g: Gpu) -> int:
    """Runs until something ends it, and says what. The core with the smallest time goes on until it is QUANTUM ahead of the others; its atomics,
    lr, sc and fences happen only up to the next core's time (`fair`), so all of them happen in order of time, then of the core's number."""
    while 1:
        best = NEVER
        pick = -1
        second = NEVER
        for i in range(g.ncores):
            c = ptr(Core, g.cores + i * CORE_BYTES)
            if c.time < best:
                second = best
                best = c.time
                pick = i
            elif c.time < second:
                second = c.time
        if pick < 0:
            return R_DEADLOCK
        c = ptr(Core, g.cores + pick * CORE_BYTES)
        g.fair = second
        code = step(c, g, imin(second + QUANTUM, NEVER - 1)) if g.timed != 0 else walk(c, g, imin(second + SLICE, NEVER - 1))
        if code != R_OK:
            g.fault_core = c.core
            g.fault_warp = c.fault_warp
            return code
    return R_OK
