"""How cores share time: rounds of QUANTUM cycles, in which each core has a turn, in order of their numbers.

A core's turn goes on until its next instruction issues after the round's last cycle. Turns are numbered through all rounds; what cores share
(L2, DRAM, the CTAs that are left) is used in order of turns, so that a run's cycles do not depend on how many host threads take the turns.
With two threads one takes the even cores and one the odd ones; a core that touches shared state first waits for all turns before its own
(memory.catch_up), and most turns need none of it. CTAs are independent, so their data need no order.
"""

from __future__ import annotations

from rvgpu.isa.prims import imax, imin, ld32, st32
from rvgpu.isa.prims_host import observe, publish
from rvgpu.sim.issue import SLICE, step, walk
from rvgpu.sim.memory import DIRTY, SET_BYTES, WINDOW, catch_up, dram_moved, take_from
from rvgpu.sim.state import CORE_BYTES, R_OK, Core, Gpu, Queue
from rvgpu.sim.translate import address, ptr
from rvgpu.sim.turns import NEVER

QUANTUM = 60  # at most the L2's latency: what a core asks of L2 in a round comes after it


def run(g: Gpu, thread: int) -> int:
    """One host thread's turns of a launch, until no core has anything to run or one has faulted, as `code` says."""
    n = g.ncores
    quantum = NEVER if n == 1 else QUANTUM if g.timed != 0 else 100 * SLICE
    first = 0  # turn of the round
    core = thread
    limit = g.start + quantum
    while observe(address(g.parked)) < n and first + core <= observe(address(g.stop)):
        c = ptr(Core, g.cores + core * CORE_BYTES)
        if c.time <= limit:
            c.must = first + core if g.threads > 1 else 0
            code = step(c, g, imin(limit, NEVER - 1)) if g.timed != 0 else walk(c, g, imin(limit, NEVER - 1))
            if code != R_OK or c.time == NEVER:
                if c.must != 0:
                    catch_up(c, g)
                ended(c, g, code, first + core)
            c.must = 0
        core += g.threads
        if core >= n:
            core = thread
            first += n
            limit += quantum
        publish(address(g.progress) + 8 * 16 * thread, first + core)  # the next turn: all before it are over
    publish(address(g.progress) + 8 * 16 * thread, NEVER)
    return R_OK


def ended(c: Core, g: Gpu, code: int, turn: int) -> int:
    """A core has nothing left to run, or an instruction faulted: the first turn in which one did ends the run."""
    if code == R_OK:
        publish(address(g.parked), g.parked[0] + 1)
    elif turn < g.stop[0]:
        g.code = code
        g.fault_core = c.core
        g.fault_warp = c.fault_warp
        publish(address(g.stop), turn)
    return R_OK


def drain(g: Gpu) -> int:
    """The last dirty lines go to DRAM; returns the cycle when all is there."""
    q = ptr(Queue, g.dram_queue)
    last = g.end
    w = (g.end << 8) // WINDOW
    for i in range(g.l2_sets):
        at = g.l2 + i * SET_BYTES
        dirty = ld32(at + DIRTY)
        st32(at + DIRTY, 0)
        while dirty != 0:
            dirty = dirty & (dirty - 1)
            start = dram_moved(g, take_from(q, g.end, w))
            w = (start << 8) // WINDOW
            last = start + g.dram_latency
    return imax(last, g.dram_last)
