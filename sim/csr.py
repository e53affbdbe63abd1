"""Control and status registers: which exist, who may read and write them, what they hold. One place for each group:

floating point (`fflags frm fcsr`), vector (`vstart vl vtype vlenb ...`), counters, machine mode. A kernel runs in user mode (`priv` 0) and sees the
first three; a bare-metal program starts in machine mode (`priv` 3) and sees all. There is no supervisor mode: `satp`, `medeleg` and `mideleg` read 0
and ignore writes, as `pmpcfg` and `pmpaddr` keep what is written and protect nothing. `mtime` is the cycle count; no interrupt ever comes.
Sources: The RISC-V Instruction Set Manual, volume II (1.12), chapters 2 and 3.
"""

from __future__ import annotations

from rvgpu.isa.prims import wrap
from rvgpu.sim.handlers import reshape, set_x
from rvgpu.sim.state import CORE_BYTES, F_ILLEGAL, FS_OFF, OK, PLAN_BYTES, VS_OFF, Core, Gpu, Plan, Rec, Warp
from rvgpu.sim.translate import apart, ptr

MODE, IMM = 1, 0  # bound
USER, MACHINE = 0, 3
MISA = 2 << 62 | sum(1 << ord(letter) - 65 for letter in "ABCDFIMUVX")
MISA = MISA - (1 << 64)  # (MXL 2 stands in the sign bit)
MIE, MPIE, MPRV, TW = 1 << 3, 1 << 7, 1 << 17, 1 << 21  # of mstatus
VS, MPP, FS = 3 << 9, 3 << 11, 3 << 13
UXL64, SD = 2 << 32, -(1 << 63)
FLOAT, VECTOR, COUNTER = 0x001, 0x008, 0xC00  # the groups' first numbers
INHIBIT_CYCLE, INHIBIT_INSTRET = 1, 4
MHARTID = 0xF14


def csr(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """csrrw, csrrs, csrrc and their immediate forms. A set or clear of x0 (or 0) only reads."""
    n = r.imm & 0xFFF
    w.fault = OK
    old = read_csr(c, w, g, n)
    if w.fault != OK:
        return w.fault
    if MODE == 1 or r.rs1 != 0:
        value = r.rs1 if IMM == 1 else w.x[r.rs1]
        fault = write_csr(w, g, n, value if MODE == 1 else old | value if MODE == 2 else old & ~value)
        if fault != OK:
            return fault
    return set_x(w, r, old)


@apart
def read_csr(c: Core, w: Warp, g: Gpu, n: int) -> int:
    """The register's value; sets `fault` when there is none for this hart."""
    if (n >> 8) & 3 > w.priv and (n != MHARTID or g.bare != 0):
        w.fault = F_ILLEGAL
        return 0
    if n >= 0xC00 and n < 0xC20:
        return read_counter(w, g, n)
    if n >= 0x001 and n <= 0x003:
        return read_float(w, n)
    if n >= 0x008 and n <= 0x00F or n >= 0xC20 and n <= 0xC22:
        return read_vector(w, g, n)
    return read_machine(w, n)


@apart
def write_csr(w: Warp, g: Gpu, n: int, value: int) -> int:
    """Returns a fault code. (`read_csr` has found that it exists and that this hart may see it.)"""
    if n >> 10 == 3:
        return F_ILLEGAL  # read-only by its number
    if n <= 0x003:
        return write_float(w, n, value)
    if n <= 0x00F:
        return write_vector(w, g, n, value)
    return write_machine(w, g, n, value)


# -- floating point: fflags, frm, fcsr
def read_float(w: Warp, n: int) -> int:
    if w.off & FS_OFF != 0:
        w.fault = F_ILLEGAL
    if n == 0x001:
        return w.fcsr & 31
    if n == 0x002:
        return w.fcsr >> 5
    return w.fcsr


def write_float(w: Warp, n: int, value: int) -> int:
    if n == 0x001:
        w.fcsr = (w.fcsr & 224) | (value & 31)
    elif n == 0x002:
        w.fcsr = (w.fcsr & 31) | ((value & 7) << 5)
    else:
        w.fcsr = value & 255
    return OK


# -- vector: vstart (0x008), vxsat, vxrm, vcsr (0x009, 0x00A, 0x00F), vl, vtype, vlenb (0xC20 to 0xC22)
def read_vector(w: Warp, g: Gpu, n: int) -> int:
    if w.off & VS_OFF != 0:
        w.fault = F_ILLEGAL
    if n == 0xC20:
        return w.vl
    if n == 0xC21:
        return w.vtype if w.vill != 0 else w.vtype | (w.tk << 11) | (w.tm << 16)
    if n == 0xC22:
        return g.vlenb
    if n == 0x008:
        return w.vstart
    if n == 0x009:
        return w.vxsat
    if n == 0x00A:
        return w.vxrm
    if n == 0x00F:
        return w.vxrm << 1 | w.vxsat
    w.fault = F_ILLEGAL
    return 0


def write_vector(w: Warp, g: Gpu, n: int, value: int) -> int:
    if n == 0x008:
        w.vstart = value & (8 * g.vlenb - 1)
        reshape(w)
    elif n == 0x009:
        w.vxsat = value & 1
    elif n == 0x00A:
        w.vxrm = value & 3
    else:
        w.vxsat = value & 1
        w.vxrm = (value >> 1) & 3
    return OK


# -- counters: cycle, time, instret, hpmcounter3 to 31 (0xC00 to 0xC1F)
def read_counter(w: Warp, g: Gpu, n: int) -> int:
    """User mode of a bare-metal program needs leave from mcounteren."""
    if g.bare != 0 and w.priv != MACHINE and (w.mcounteren >> (n & 31)) & 1 == 0:
        w.fault = F_ILLEGAL
        return 0
    if n == 0xC00:
        return cycles(w)
    if n == 0xC01:
        return w.now
    if n == 0xC02:
        return retired(w)
    return 0


def cycles(w: Warp) -> int:
    return w.cycle_base if w.mcountinhibit & INHIBIT_CYCLE != 0 else wrap(w.now + w.cycle_base)


def retired(w: Warp) -> int:
    return w.instret_base if w.mcountinhibit & INHIBIT_INSTRET != 0 else wrap(w.retired + w.instret_base)


def set_cycles(w: Warp, value: int) -> int:
    w.cycle_base = value if w.mcountinhibit & INHIBIT_CYCLE != 0 else wrap(value - w.now)
    return OK


def set_retired(w: Warp, value: int) -> int:
    """The next instruction reads `value`: this one is not counted on top."""
    w.instret_base = value if w.mcountinhibit & INHIBIT_INSTRET != 0 else wrap(value - w.retired - 1)
    return OK


def inhibit(w: Warp, value: int) -> int:
    """A counter goes on from where it was stopped."""
    cycle, instret = cycles(w), retired(w)
    w.mcountinhibit = value & (INHIBIT_CYCLE | INHIBIT_INSTRET)
    set_cycles(w, cycle)
    w.instret_base = instret if w.mcountinhibit & INHIBIT_INSTRET != 0 else wrap(instret - w.retired)
    return OK


# -- machine mode
def is_pmp(n: int) -> int:
    """pmpcfg0, pmpcfg2 and pmpaddr0 to 15: sixteen entries."""
    return n == 0x3A0 or n == 0x3A2 or (n >= 0x3B0 and n <= 0x3BF)


def reads_zero(n: int) -> int:
    """Registers that hold 0 and ignore writes: satp, medeleg, mideleg, mip, menvcfg, mseccfg, the triggers (none: tselect, tdata1 to 3, tcontrol,
    mcontext), mhpmevent3 to 31, mhpmcounter3 to 31; mvendorid, marchid, mimpid and mconfigptr, which say nothing."""
    return (n == 0x180 or n == 0x302 or n == 0x303 or n == 0x344 or n == 0x30A or n == 0x747 or (n >= 0x7A0 and n <= 0x7A3) or n == 0x7A5
            or n == 0x7A8 or (n >= 0x323 and n <= 0x33F) or (n >= 0xB03 and n <= 0xB1F) or (n >= 0xF11 and n <= 0xF13) or n == 0xF15)


def read_machine(w: Warp, n: int) -> int:
    if n == 0x300:
        return w.mstatus | UXL64 | (SD if w.mstatus & FS != 0 or w.mstatus & VS != 0 else 0)
    if n == 0x301:
        return MISA
    if n == 0x304:
        return w.mie
    if n == 0x305:
        return w.mtvec
    if n == 0x306:
        return w.mcounteren
    if n == 0x320:
        return w.mcountinhibit
    if n == 0x340:
        return w.mscratch
    if n == 0x341:
        return w.mepc
    if n == 0x342:
        return w.mcause
    if n == 0x343:
        return w.mtval
    if n == 0xB00:
        return cycles(w)
    if n == 0xB02:
        return retired(w)
    if n == MHARTID:
        return w.hart
    if n == 0x7A4:
        return 1  # tinfo: this trigger does not exist
    if is_pmp(n):
        return w.pmp[n & 31]
    if reads_zero(n) == 0:
        w.fault = F_ILLEGAL
    return 0


def write_machine(w: Warp, g: Gpu, n: int, value: int) -> int:
    if n == 0x300:
        write_status(w, g, value)
    elif n == 0x304:
        w.mie = value & 0x888
    elif n == 0x305:
        w.mtvec = value & -3  # direct or vectored
    elif n == 0x306:
        w.mcounteren = value & 0xFFFF_FFFF
    elif n == 0x320:
        inhibit(w, value)
    elif n == 0x340:
        w.mscratch = value
    elif n == 0x341:
        w.mepc = value & -2
    elif n == 0x342:
        w.mcause = value
    elif n == 0x343:
        w.mtval = value
    elif n == 0xB00:
        set_cycles(w, value)
    elif n == 0xB02:
        set_retired(w, value)
    elif is_pmp(n):
        w.pmp[n & 31] = value
    return OK


def write_status(w: Warp, g: Gpu, value: int) -> int:
    """MPP holds machine or user mode. FS and VS are off or dirty: any state but off may become dirty at any time. What is off is part of `shape`, so
    that plans made under one state do not serve the other."""
    new = value & (MIE | MPIE | MPRV | TW)
    new = new | (w.mstatus & MPP if (value & MPP) != 0 and (value & MPP) != MPP else value & MPP)
    w.off = 0
    if value & FS != 0:
        new = new | FS
    else:
        w.off = FS_OFF
    if value & VS != 0:
        new = new | VS
    else:
        w.off = w.off | VS_OFF
    w.mstatus = new
    if w.off != 0 and g.switched == 0:
        switch(g)
    return reshape(w)


@apart
def switch(g: Gpu) -> int:
    """A unit is off for the first time: from now on plans of scalar floating point are for a state, not for any."""
    g.switched = 1
    for i in range(g.ncores):
        plans = ptr(Core, g.cores + i * CORE_BYTES).plans
        for k in range(g.nrecs + 1):
            ptr(Plan, plans + k * PLAN_BYTES).shape = 0
    return OK
