"""Atomic memory operations and lr/sc. With several cores each is performed when no other core is behind in time (`fair`).

They are performed at the L2 (in the scratchpad: there), and their hart waits for the answer.
"""

from __future__ import annotations

from rvgpu.isa.prims import sext
from rvgpu.sim.control import control_swap
from rvgpu.sim.guard import release, reserve
from rvgpu.sim.handlers import host, is_control, load_size, set_x, store_size
from rvgpu.sim.memory import l2_line
from rvgpu.sim.state import CAUSE, F_ALIGN, F_CONTROL, F_ILLEGAL, F_LATER, F_MEMORY, OK, Core, Gpu, Rec, Warp

SIZE, SWAP = 4, 0  # bound
C_L2, C_SPM = CAUSE["data.l2"], CAUSE["data.scratchpad"]


def OP(a: int, b: int) -> int:
    """Bound to an instruction's meaning."""
    return a + b


def wait_for_answer(c: Core, w: Warp, g: Gpu, write: int) -> int:
    if g.timed != 0:
        if w.mem_kind == 1:
            w.earliest = w.now + g.spm_latency
            w.why = C_SPM
        else:
            w.earliest = l2_line(c, g, w.mem_addr >> 6, w.now, write)
            w.why = C_L2
    return OK


def amo(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    addr = w.x[r.rs1]
    if is_control(addr, w):
        w.fault_addr = addr & 4095
        if SWAP == 0 or SIZE != 8:
            return F_CONTROL
        w.fault = OK
        old = control_swap(c, w, g, addr & 4095, w.x[r.rs2])
        if w.fault != OK:
            return w.fault
        return set_x(w, r, old)
    if w.now > g.fair:
        return F_LATER
    if addr & (SIZE - 1) != 0:
        w.fault_addr = addr
        return F_ALIGN
    p = host(c, w, g, addr, SIZE, 1)
    if p == 0:
        return F_MEMORY
    old = load_size(p)
    store_size(p, OP(old, w.x[r.rs2]))
    wait_for_answer(c, w, g, 1)
    return set_x(w, r, sext(old, 8 * SIZE))


def lr(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Reserves a line of DRAM space; in the scratchpad there are no reservations. Kernels have neither lr nor sc."""
    if g.bare == 0:
        return F_ILLEGAL
    if w.now > g.fair:
        return F_LATER
    addr = w.x[r.rs1]
    w.fault_addr = addr
    if addr & (SIZE - 1) != 0:
        return F_ALIGN
    p = host(c, w, g, addr, SIZE, 0)
    if p == 0 or w.mem_kind != 2:
        return F_MEMORY
    reserve(w, g, addr)
    wait_for_answer(c, w, g, 0)
    return set_x(w, r, sext(load_size(p), 8 * SIZE))


def sc(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Stores, and gives 0, when this hart's last lr was of this address and no other hart has stored to that line since; else it gives 1."""
    if g.bare == 0:
        return F_ILLEGAL
    if w.now > g.fair:
        return F_LATER
    addr = w.x[r.rs1]
    if addr & (SIZE - 1) != 0:
        w.fault_addr = addr
        return F_ALIGN
    held = w.reserved == addr + 1
    release(w, g)
    if held == 0:
        return set_x(w, r, 1)
    p = host(c, w, g, addr, SIZE, 1)
    if p == 0:
        return F_MEMORY
    store_size(p, w.x[r.rs2])
    wait_for_answer(c, w, g, 1)
    return set_x(w, r, 0)
