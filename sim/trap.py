"""Traps: what happens when an instruction cannot finish. A bare-metal program that has set `mtvec` gets it; else `ecall` is a system call of
Linux and all others are a fault of the run.

Exceptions are precise: the instruction that traps has no effect and is not counted. There are no interrupts, so `wfi` waits a little and goes on.
Source: The RISC-V Instruction Set Manual, volume II (1.12), chapter 3.
"""

from __future__ import annotations

from rvgpu.isa.prims import ld16, ld32
from rvgpu.sim.csr import MACHINE, MIE, MPIE, MPP, MPRV
from rvgpu.sim.guard import stop
from rvgpu.sim.handlers import goto
from rvgpu.sim.state import (
    CAUSE,
    F_ALIGN,
    F_BREAK,
    F_CONTROL,
    F_ILLEGAL,
    F_JUMP,
    F_LATER,
    F_MEMORY,
    F_TRAP,
    OK,
    R_CALL,
    R_FAULT,
    R_OK,
    REC_BYTES,
    Core,
    Gpu,
    Rec,
    Warp,
)
from rvgpu.sim.translate import apart, ptr

BREAK = 0  # bound
GO_ON = -1
M_LOAD, M_VLOAD = 1, 3  # plan.M_LOAD, plan.M_VLOAD
WFI_CYCLES = 64
C_UNIT, C_IDLE = CAUSE["unit"], CAUSE["idle"]
CONTROL = 0x0200_0000
LR = 0x1000_002F
SLLI, SRAI = 0x01F0_1013, 0x4070_5013  # around the ebreak of a semihosting call


@apart
def trap(c: Core, w: Warp, r: Rec, g: Gpu, e: int, fault: int) -> int:
    """An instruction at cycle e did not finish: returns GO_ON when its hart goes on (at its trap vector), else a run code. Entering a trap costs
    what a taken branch does. `F_LATER`: the core's turn ends, the instruction is tried again when no other core is behind."""
    if fault == F_LATER:
        c.time = e
        return R_OK
    epc = g.text + 2 * w.pc
    if r.size == 0:  # the instruction before was the last: what comes behind it cannot be fetched
        fault = F_JUMP
        w.fault_addr = epc
        w.retired -= 1  # (nothing has jumped)
    w.why = C_UNIT
    w.fault = fault
    c.fault_warp = w.warp
    c.time = e
    if g.bare == 0:
        return R_FAULT
    if fault == F_BREAK and is_call(r, g) or fault == F_TRAP and w.mtvec & -4 == 0:
        w.pc += 2
        w.earliest = e + 1
        w.retired += 1
        return R_CALL
    cause = 2
    value = 0
    word = ld32(g.dram + epc - g.base) if r.size == 4 else ld16(g.dram + epc - g.base) if r.size == 2 else 0
    load = r.mem == M_LOAD or r.mem == M_VLOAD or word & 0xF800_007F == LR
    if fault == F_MEMORY:
        cause = 5 if load else 7
        value = w.fault_addr
    elif fault == F_CONTROL:
        cause = 5 if load else 7
        value = CONTROL + (w.warp << 12) + w.fault_addr
    elif fault == F_ALIGN:
        cause = 4 if load else 6
        value = w.fault_addr
    elif fault == F_JUMP:  # the jump is done: what cannot be fetched is its target
        if w.fault_addr == 0 and goes_to_zero(w, g):
            w.earliest = e + 1 + g.branch
            return GO_ON
        cause = 1
        epc = w.fault_addr
        value = epc
    elif fault == F_TRAP:
        cause = 8 + w.priv
    elif fault == F_BREAK:
        cause = 3
        value = epc
    else:
        value = word
    vector = w.mtvec & -4
    if vector == 0 or goto(w, g, vector) != OK:
        w.fault_addr = value
        return R_FAULT
    if fault == F_JUMP:
        w.retired += 1
    w.mepc = epc & -2
    w.mcause = cause
    w.mtval = value
    w.mstatus = (w.mstatus & ~(MIE | MPIE | MPP)) | ((w.mstatus & MIE) << 4) | (w.priv << 11)
    w.priv = MACHINE
    w.pc = w.next
    w.earliest = e + 1 + g.branch
    return GO_ON


def is_call(r: Rec, g: Gpu) -> int:
    """Whether an ebreak is a semihosting call: `slli x0, x0, 0x1f; ebreak; srai x0, x0, 7`, none of them compressed."""
    at = r.pc - g.base
    if r.size != 4 or at < 4 or at > g.dram_size - 8:
        return 0
    return ld32(g.dram + at - 4) == SLLI and ld32(g.dram + at + 4) == SRAI


def goes_to_zero(w: Warp, g: Gpu) -> int:
    """For a kernel a jump to address 0 is its end (handlers.goto); a bare-metal program may have an instruction there."""
    at = -g.text
    if at >= 0 and at < g.text_size:
        if ptr(Rec, g.recs + (at >> 1) * REC_BYTES).size != 0:
            w.pc = at >> 1
            return 1
    return 0


# -- handlers
def exception(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """ecall and ebreak."""
    return F_BREAK if BREAK == 1 else F_TRAP


def mret(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    if w.priv != MACHINE:
        return F_ILLEGAL
    old = w.mstatus
    w.priv = (old >> 11) & 3
    w.mstatus = (old & ~(MIE | MPP)) | ((old & MPIE) >> 4) | MPIE
    if w.priv != MACHINE:
        w.mstatus = w.mstatus & ~MPRV
    return goto(w, g, w.mepc)


def wfi(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    if g.bare == 0:
        return F_ILLEGAL
    w.earliest = w.now + WFI_CYCLES
    w.why = C_IDLE
    return OK


def fence(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """All loads and stores are done when they issue, so there is nothing to wait for but the other cores' turns."""
    return F_LATER if w.now > g.fair else OK


def fence_i(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Text that was written since the last one is decoded anew: `run` returns before the next instruction."""
    if w.now > g.fair:
        return F_LATER
    if g.rewritten != 0:
        g.rewritten = 2 + w.hart
        stop(c, g)
    return OK
