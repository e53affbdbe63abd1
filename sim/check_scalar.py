"""Checked mode's rules of scalar instructions: which bytes of a result are undefined, and where undefined values matter.

A rule is a template like a handler, `rule(c, w, r, g) -> fault code`, run before it. Results are exact by bit for moves, shifts by a known
amount and bitwise operations; a carry goes up from the lowest undefined byte; else one undefined byte makes the whole result undefined.
"""

from __future__ import annotations

from rvgpu.isa.prims import imax, wrap
from rvgpu.sim.check_memory import IN_DRAM, NOWHERE, arrive, go, span, wait
from rvgpu.sim.check_state import (
    ATOMIC,
    MISALIGNED,
    O_MEMORY,
    R_F,
    R_X,
    S_ADDRESS,
    S_BRANCH,
    S_DESCRIPTOR,
    S_DRAM,
    S_JUMP,
    S_LENGTH,
    WRITE,
    Check,
    Shadow,
    finding,
    get_bits,
    low,
    lowest,
    of,
    origin,
    put_bits,
    spread,
    undefined,
)
from rvgpu.sim.handlers import is_control
from rvgpu.sim.state import OK, WARP_BYTES, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import apart, ptr

W, SIZE, SIGNED, IW, IMM, LOW, SWAP, VTYPE = 64, 8, 1, 64, 0, 0, 0, 0  # bound
MOVES, BITWISE, CARRY, SELF = 0, 0, 0, 0  # what kind of operation OP is; SELF: one that gives 0 of a value and itself
INPUTS, TO_X = 1, 0


def OP(a: int, b: int) -> int:
    return a + b


def OP1(a: int) -> int:
    return a


def nothing(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return OK


def set_x(s: Shadow, r: Rec, u: int, source: int) -> int:
    s.x[r.rd] = u
    s.x_from[r.rd] = source
    s.x[0] = 0
    return OK


def collapse(u: int) -> int:
    """Bits of bits to bits of bytes: a byte is undefined when any of its bits is."""
    out = 0
    for i in range(8):
        out = out | ((((u >> (8 * i)) & 255) != 0) << i)
    return out


def upward(u: int) -> int:
    """A carry: everything from the lowest undefined byte on."""
    return (-(u & -u)) & 255


def two(a: int, b: int, x: int, y: int) -> int:
    """Undefined bytes of OP(x, y), when those of x are a and those of y are b."""
    u = a | b
    if BITWISE == 1:
        p, q, z = spread(a, 3), spread(b, 3), OP(x, y)
        return collapse((p & (z ^ OP(~x, y))) | (q & (z ^ OP(x, ~y))) | (p & q & (z ^ OP(~x, ~y))))
    if MOVES == 1:
        return collapse(OP(spread(a, 3), y)) if b == 0 else 255
    if CARRY == 1:
        return upward(u)
    if LOW == 1:  # of 32 bits, sign-extended
        u = u & 15
        return 0 if u == 0 else upward(u)
    return 255


def alu_rr(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    a, b = s.x[r.rs1], s.x[r.rs2]
    if a | b == 0:
        s.x[r.rd] = 0
        return OK
    u = two(a, b, w.x[r.rs1], w.x[r.rs2])
    if SELF == 1 and r.rs1 == r.rs2:
        u = 0
    return set_x(s, r, u, s.x_from[r.rs1] if a != 0 else s.x_from[r.rs2])


def alu_ri(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    a = s.x[r.rs1]
    if a == 0:
        s.x[r.rd] = 0
        return OK
    return set_x(s, r, a if r.imm == 0 and CARRY == 1 and LOW == 0 else two(a, 0, w.x[r.rs1], r.imm), s.x_from[r.rs1])


def alu_r(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    a = s.x[r.rs1]
    if a == 0:
        s.x[r.rd] = 0
        return OK
    return set_x(s, r, collapse(OP1(spread(a, 3))) if MOVES == 1 else 255, s.x_from[r.rs1])


def defines(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """The result does not depend on registers."""
    ptr(Shadow, of(w, g)).x[r.rd] = 0
    return OK


def need(g: Gpu, s: Shadow, n: int, sink: int) -> int:
    """Scalar register n is defined, or a finding."""
    if s.x[n] != 0:
        return undefined(g, sink, R_X + n, 0, s.x_from[n])
    return OK


def jalr(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    f = need(g, s, r.rs1, S_JUMP)
    s.x[r.rd] = 0
    s.last = w.pc
    return f


def branch(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    f = need(g, s, r.rs1, S_BRANCH)
    return f if f != OK else need(g, s, r.rs2, S_BRANCH)


def csr(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    f = OK
    if IMM == 0:
        f = need(g, s, r.rs1, S_LENGTH)
    s.x[r.rd] = 0
    return f


# -- memory
def loaded(w: Warp, g: Gpu, addr: int) -> int:
    """The undefined bits of SIZE bytes that were located last."""
    k = ptr(Check, g.check)
    return get_bits(k.at_undefined, k.off) & low(SIZE)


def reach(c: Core, w: Warp, g: Gpu, s: Shadow, base: int, addr: int, how: int) -> int:
    f = need(g, s, base, S_ADDRESS)
    if f != OK:
        return f
    if addr & (SIZE - 1) != 0:
        return finding(g, MISALIGNED, addr, SIZE, how)
    return span(c, w, g, addr, SIZE, how)


def load(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s, addr = ptr(Shadow, of(w, g)), wrap(w.x[r.rs1] + r.imm)
    if is_control(addr, w):
        s.x[r.rd] = 0
        return need(g, s, r.rs1, S_ADDRESS)
    f = reach(c, w, g, s, r.rs1, addr, 0)
    if f != OK or ptr(Check, g.check).region == NOWHERE:
        return f
    u = loaded(w, g, addr)
    if u == 0:
        s.x[r.rd] = 0
        return OK
    if SIGNED == 1 and u >> (SIZE - 1) != 0:
        u = (u | (-1 << SIZE)) & 255
    return set_x(s, r, u, origin(O_MEMORY, w, addr + lowest(u)))


def stored(g: Gpu, reg: int, u: int, source: int) -> int:
    """SIZE bytes with undefined bits u go where the last access was."""
    k = ptr(Check, g.check)
    if k.region == NOWHERE:
        return OK
    u = u & low(SIZE)
    if u != 0 and k.region == IN_DRAM:
        return undefined(g, S_DRAM, reg, 0, source)
    put_bits(k.at_undefined, k.off, u, low(SIZE))
    return OK


def store(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s, addr = ptr(Shadow, of(w, g)), wrap(w.x[r.rs1] + r.imm)
    if is_control(addr, w):
        word = (addr & 255) >> 3
        s.ctl[word & 31] = s.x[r.rs2]
        s.ctl_from[word & 31] = s.x_from[r.rs2]
        return need(g, s, r.rs1, S_ADDRESS)
    f = reach(c, w, g, s, r.rs1, addr, WRITE)
    return f if f != OK else stored(g, R_X + r.rs2, s.x[r.rs2], s.x_from[r.rs2])


def fload(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s, addr = ptr(Shadow, of(w, g)), wrap(w.x[r.rs1] + r.imm)
    f = reach(c, w, g, s, r.rs1, addr, 0)
    if f != OK or ptr(Check, g.check).region == NOWHERE:
        return f
    u = loaded(w, g, addr)
    s.f[r.rd] = u
    if u != 0:
        s.f_from[r.rd] = origin(O_MEMORY, w, addr + lowest(u))
    return OK


def fstore(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s, addr = ptr(Shadow, of(w, g)), wrap(w.x[r.rs1] + r.imm)
    f = reach(c, w, g, s, r.rs1, addr, WRITE)
    return f if f != OK else stored(g, R_F + r.rs2, s.f[r.rs2], s.f_from[r.rs2])


@apart
def together(c: Core, w: Warp, g: Gpu, order: int) -> int:
    """An atomic access with an order: what came before the releases of the CTA's other warps came before what follows an acquire (of whatever
    address: a race between two pairs of flags is not seen)."""
    mine = ptr(Shadow, of(w, g))
    if order & 2 != 0:
        for j in range(c.nwarps):
            s = ptr(Shadow, of(ptr(Warp, c.warps + j * WARP_BYTES), g))
            if s.synced != 0 and j != w.warp:
                for a in range(64):
                    mine.clock[a] = imax(mine.clock[a], s.sync[a])
    if order & 1 != 0:
        for a in range(64):
            mine.sync[a] = mine.clock[a]
        mine.synced = 1
        mine.clock[w.warp] += 1
    return OK


def amo(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s, addr = ptr(Shadow, of(w, g)), w.x[r.rs1]
    if is_control(addr, w):
        f = need(g, s, r.rs1, S_ADDRESS)
        f = f if f != OK else need(g, s, r.rs2, S_DESCRIPTOR)
        off = addr & 4095
        if f == OK and SIZE == 8:
            if off == 0x88:
                f = go(c, w, r, g, w.x[r.rs2])
            elif off == 0x90:
                f = wait(w, g, w.x[r.rs2])
            elif off >= 0x100 and off < 0x180 and off & 7 == 0:
                f = arrive(c, w, g, (off - 0x100) >> 3, w.x[r.rs2])
        s.x[r.rd] = 0
        return f
    f = reach(c, w, g, s, r.rs1, addr, WRITE | ATOMIC)
    if f != OK or ptr(Check, g.check).region == NOWHERE:
        return f
    u = loaded(w, g, addr)
    b = s.x[r.rs2] & low(SIZE)
    source = s.x_from[r.rs2] if b != 0 else origin(O_MEMORY, w, addr + lowest(u | 256))
    f = stored(g, R_X + r.rs2, b if SWAP == 1 else 255 if u | b != 0 else 0, source)
    if SIGNED == 1 and u >> (SIZE - 1) != 0:
        u = (u | (-1 << SIZE)) & 255
    set_x(s, r, u, origin(O_MEMORY, w, addr + lowest(u | 256)))
    if f == OK and r.imm != 0:
        return together(c, w, g, r.imm)
    return f


def reserve(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """lr: an atomic read."""
    s, addr = ptr(Shadow, of(w, g)), w.x[r.rs1]
    f = reach(c, w, g, s, r.rs1, addr, ATOMIC)
    if f != OK or ptr(Check, g.check).region == NOWHERE:
        return f
    u = loaded(w, g, addr)
    if u != 0:
        u = (u | (-1 << SIZE)) & 255
    set_x(s, r, u, origin(O_MEMORY, w, addr + lowest(u | 256)))
    return together(c, w, g, r.imm)


def conditional(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """sc: an atomic write, if it comes to that."""
    s, addr = ptr(Shadow, of(w, g)), w.x[r.rs1]
    f = reach(c, w, g, s, r.rs1, addr, WRITE | ATOMIC)
    if f == OK:
        f = stored(g, R_X + r.rs2, s.x[r.rs2], s.x_from[r.rs2])
    s.x[r.rd] = 0
    return f if f != OK else together(c, w, g, r.imm)


# -- scalar floating point: a result is undefined as a whole
def set_f(s: Shadow, n: int, u: int, source: int) -> int:
    s.f[n] = u
    s.f_from[n] = source
    return OK


def fp(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """INPUTS registers to one of W bits, or to x (TO_X). All 64 bits of an input count: the upper ones say whether it is NaN-boxed."""
    s = ptr(Shadow, of(w, g))
    a = s.f[r.rs1]
    b = s.f[r.rs2] if INPUTS >= 2 else 0
    d = s.f[r.rs3] if INPUTS >= 3 else 0
    source = s.f_from[r.rs1] if a != 0 else s.f_from[r.rs2] if b != 0 else s.f_from[r.rs3]
    u = 255 if a | b | d != 0 else 0
    if TO_X == 1:
        return set_x(s, r, u, source)
    return set_f(s, r.rd, u & (255 >> (8 - ((W if W > 0 else -W) >> 3))), source)


def fcvt_fx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    a = s.x[r.rs1] & low(IW >> 3)
    return set_f(s, r.rd, 0 if a == 0 else 255 >> (8 - (W >> 3)), s.x_from[r.rs1])


def fmv_xf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    u = s.f[r.rs1] & low(W >> 3)
    if u >> ((W >> 3) - 1) != 0:
        u = (u | (-1 << (W >> 3))) & 255
    return set_x(s, r, u, s.f_from[r.rs1])


def fmv_fx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    return set_f(s, r.rd, s.x[r.rs1] & low(W >> 3), s.x_from[r.rs1])


# -- configuration: an undefined length cannot be followed further
def vset(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    f = OK
    if IMM == 0:
        f = need(g, s, r.rs1, S_LENGTH)
    if f == OK and VTYPE == 1:
        f = need(g, s, r.rs2, S_LENGTH)
    s.x[r.rd] = 0
    return f
