"""Checked mode's rules of vector instructions: which elements of a result are undefined.

An element is defined when all elements that it is made of are. Where operands have one width, 64 bytes are done at once; where widths differ
or elements move, that is only looked at element by element when something is undefined.
"""

from __future__ import annotations

from rvgpu.isa.meaning import mask_bit
from rvgpu.isa.prims import ld8, ld64, st8, st64, ult
from rvgpu.sim.check_lanes import (
    active,
    begin_mask,
    blame,
    copy_mask,
    copy_registers,
    defined_mask,
    dirty,
    element,
    end_mask,
    first_bad,
    flag,
    flagged,
    flagged_mask,
    group_bytes,
    lost,
    mask_at,
    settled,
    tail,
    unknown,
    wrote,
)
from rvgpu.sim.check_scalar import set_f, set_x
from rvgpu.sim.check_state import O_AGNOSTIC, Shadow, low, of, origin, put, smear, vbits
from rvgpu.sim.handlers import vreg
from rvgpu.sim.handlers_vector import ldb
from rvgpu.sim.state import OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import apart, ptr

SEW, N, DIV, UP, SELF = 32, 1, 1, 0, 0  # bound by the row; SELF: an operation that gives 0 of a value and itself
# bound by the rule: which of vs2, vs1, vd and a scalar are read, and whether v0 is carries, not a mask; how many times SEW the elements of
# vs2, vs1 and vd are wide
A, B, D, X, F, C, AW, BW, DW = 1, 0, 0, 0, 0, 0, 1, 1, 1


def OP(a: int, b: int) -> int:
    return a + b


def shift_of() -> int:
    return 0 if SEW == 8 else 1 if SEW == 16 else 2 if SEW == 32 else 3


def scalar(s: Shadow, r: Rec) -> int:
    """Whether the scalar operand is undefined, as all bits."""
    if X == 1:
        return -(s.x[r.rs1] & (255 >> (8 - (SEW >> 3))) != 0)
    if F == 1:
        return -(s.f[r.rs1] != 0)  # (the upper bytes say whether it is NaN-boxed)
    return 0


def scalar_from(s: Shadow, r: Rec) -> int:
    if X == 1:
        return s.x_from[r.rs1] if scalar(s, r) != 0 else 0
    if F == 1:
        return s.f_from[r.rs1] if scalar(s, r) != 0 else 0
    return 0


def lanes(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Elements of one width, each from those at its place."""
    s, n = ptr(Shadow, of(w, g)), w.vl * (SEW >> 3)
    if n == 0:
        return OK
    d, a, b, sc, bad = vbits(s, g, r.rd), vbits(s, g, r.rs2), vbits(s, g, r.rs1), scalar(s, r), 0
    masked = dirty(s, g, 0, w.vl) if r.vm == 0 else 0
    for i in range(0, n, 64):
        at, u, part = i >> 3, sc, low(n - i)
        if A == 1:
            u = u | ld64(a + at)
        if B == 1:
            u = u | ld64(b + at)
        if D == 1:
            u = u | ld64(d + at)
        on = part
        if C == 1:
            u = u | (lost(s, g, i, shift_of()) if masked != 0 else 0)
        elif r.vm == 0:
            on = active(w, g, i, shift_of())
            if masked != 0:
                no = lost(s, g, i, shift_of())
                on = on | no
                u = u | no
            on = on & part
        u = u & on
        if u != 0:
            u = smear(u, shift_of())
            bad = 1
        put(d + at, u, on)
        if on != part and w.vtype & 128 != 0:
            put(d + at, -1, part & ~on)
    if bad != 0:
        if SELF == 1 and r.rs1 == r.rs2:
            zero_lanes(w, r, g, s)
        else:
            blame(w, g, s, r.rd, SEW >> 3, r.rs2 if A == 1 else -1, SEW >> 3, r.rs1 if B == 1 else -1, SEW >> 3, scalar_from(s, r))
    elif C == 0 and r.vm == 0 and w.vtype & 128 != 0:
        masked_off(w, r, g, s)
    return settled(w, r, g, s, SEW >> 3)


def copied(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Elements as they are; those of a mask in one register keep what is known of each bit."""
    s = ptr(Shadow, of(w, g))
    if (s.masks >> r.rs1) & 1 == 0 or w.lmul8 > 8:
        return lanes(c, w, r, g)
    return OK if w.vl == 0 else copy_mask(w, g, s, r.rd, r.rs1, w.vl * SEW)


@apart
def zero_lanes(w: Warp, r: Rec, g: Gpu, s: Shadow) -> int:
    for i in range(w.vl):
        st8(flag(s) + i, 0)
    return flagged(w, r, g, s, w.vl, SEW >> 3)


@apart
def masked_off(w: Warp, r: Rec, g: Gpu, s: Shadow) -> int:
    for n in range(r.rd, r.rd + group_bytes(w, g, SEW >> 3) // g.vlenb):
        s.v_from[n] = origin(O_AGNOSTIC, w, 0)
    return OK


def merge(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Each element from vs1 (or the scalar) where the mask is set, else from vs2."""
    s, n = ptr(Shadow, of(w, g)), w.vl * (SEW >> 3)
    d, a, b, sc, bad = vbits(s, g, r.rd), vbits(s, g, r.rs2), vbits(s, g, r.rs1), scalar(s, r), 0
    masked = dirty(s, g, 0, w.vl)
    for i in range(0, n, 64):
        at, on = i >> 3, active(w, g, i, shift_of())
        u = (ld64(a + at) & ~on) | ((ld64(b + at) if B == 1 else sc) & on)
        if masked != 0:
            u = u | lost(s, g, i, shift_of())
        u = smear(u & low(n - i), shift_of())
        put(d + at, u, low(n - i))
        bad = bad | u
    if bad != 0:
        blame(w, g, s, r.rd, SEW >> 3, r.rs2, SEW >> 3, r.rs1 if B == 1 else -1, SEW >> 3, scalar_from(s, r))
    return OK if n == 0 else settled(w, r, g, s, SEW >> 3)


def defined(s: Shadow, g: Gpu, reg: int, nbytes: int) -> int:
    bad = 0
    for i in range(0, nbytes, 64):
        bad = bad | (ld64(vbits(s, g, reg) + (i >> 3)) & low(nbytes - i))
    return bad == 0


def clean(w: Warp, r: Rec, g: Gpu, s: Shadow) -> int:
    """Whether all that is read is defined: then so is all that is written."""
    if r.vm == 0:
        if dirty(s, g, 0, w.vl):
            return 0
    if scalar(s, r) != 0 or (A == 1 and defined(s, g, r.rs2, w.vl * a_width()) == 0):
        return 0
    if B == 1 and defined(s, g, r.rs1, w.vl * (BW * SEW >> 3)) == 0:
        return 0
    return D == 0 or defined(s, g, r.rd, w.vl * (DW * SEW >> 3))


def a_width() -> int:
    return AW * SEW // DIV >> 3


@apart
def flags(w: Warp, r: Rec, g: Gpu, s: Shadow) -> int:
    """Of each element whether it is made of an undefined one."""
    sc = scalar(s, r) & 1
    for i in range(w.vl):
        u = sc
        if A == 1:
            u = u | element(s, g, r.rs2, i, a_width())
        if B == 1:
            u = u | element(s, g, r.rs1, i, BW * SEW >> 3)
        if D == 1:
            u = u | element(s, g, r.rd, i, DW * SEW >> 3)
        st8(flag(s) + i, u)
    return OK


def converted(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Elements of other widths, each from those at its place."""
    s = ptr(Shadow, of(w, g))
    if w.vl == 0:
        return OK
    if r.vm != 0 and clean(w, r, g, s):
        n = w.vl * (DW * SEW >> 3)
        for i in range(0, n, 64):
            put(vbits(s, g, r.rd) + (i >> 3), 0, low(n - i))
        return settled(w, r, g, s, DW * SEW >> 3)
    flags(w, r, g, s)
    return by_flags(w, r, g, s, w.vl)


@apart
def by_flags(w: Warp, r: Rec, g: Gpu, s: Shadow, n: int) -> int:
    if r.vm == 0 or clean(w, r, g, s) == 0:
        blame(w, g, s, r.rd, DW * SEW >> 3, r.rs2 if A == 1 else -1, a_width(), r.rs1 if B == 1 else -1, BW * SEW >> 3, scalar_from(s, r))
    flagged(w, r, g, s, n, DW * SEW >> 3)
    return settled(w, r, g, s, DW * SEW >> 3)


def compare(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """To a mask."""
    s = ptr(Shadow, of(w, g))
    if w.vl == 0:
        return OK
    if r.vm != 0 and clean(w, r, g, s):
        return defined_mask(w, g, s, r.rd, w.vl)
    at = first_bad(s, g, r.rs2, w.vl * (SEW >> 3))
    source = s.v_from[at] if at >= 0 else scalar_from(s, r)
    if B == 1 and at < 0:
        at = first_bad(s, g, r.rs1, w.vl * (SEW >> 3))
        source = s.v_from[at] if at >= 0 else 0
    flags(w, r, g, s)
    if flagged_mask(w, r, g, s, w.vl, 1) and source != 0:
        s.v_from[r.rd] = source
    return OK


def carry_out(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """To a mask, all elements; v0 holds the carries that come in."""
    s = ptr(Shadow, of(w, g))
    if w.vl == 0:
        return OK
    if clean(w, r, g, s):
        return defined_mask(w, g, s, r.rd, w.vl)
    source = s.v_from[0]
    at = first_bad(s, g, r.rs2, w.vl * (SEW >> 3))
    if at >= 0:
        source = s.v_from[at]
    flags(w, r, g, s)
    if r.vm == 0:
        for i in range(w.vl):
            st8(flag(s) + i, ld8(flag(s) + i) | ((unknown(s, g, 0, i & ~7) >> (i & 7)) & 1))
    if flagged_mask(w, r, g, s, w.vl, 0):
        s.v_from[r.rd] = source
    return OK


def before_first(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """vmsbf, vmsif, vmsof: any bit may decide all."""
    s = ptr(Shadow, of(w, g))
    if w.vl == 0:
        return OK
    bad, source = dirty(s, g, r.rs2, w.vl), s.v_from[r.rs2]
    for i in range(w.vl):
        st8(flag(s) + i, bad)
    if flagged_mask(w, r, g, s, w.vl, 1) and bad != 0:
        s.v_from[r.rd] = source
    return OK


def mask_logic(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Bit by bit: a result bit is undefined when it would change with an undefined operand bit."""
    s, n = ptr(Shadow, of(w, g)), w.vl
    if n == 0:
        return OK
    source = s.v_from[r.rs2] if dirty(s, g, r.rs2, n) else s.v_from[r.rs1]
    bad = 0
    for i in range(0, n, 64):
        x, y = ld64(vreg(w, g, r.rs2) + (i >> 3)), ld64(vreg(w, g, r.rs1) + (i >> 3))
        p, q, z = unknown(s, g, r.rs2, i), unknown(s, g, r.rs1, i), OP(x, y)
        u = 0
        if r.rs1 != r.rs2:
            u = (p & (z ^ OP(~x, y))) | (q & (z ^ OP(x, ~y))) | (p & q & (z ^ OP(~x, ~y)))
        elif OP(5, 5) != 0 and OP(5, 5) & 15 != 15:  # the same bit twice: itself, its inverse, or a constant
            u = p
        st64(flag(s) + (i >> 3), u)
        bad = bad | (u & low(n - i))
    begin_mask(s, g, r.rd)
    for i in range(0, n, 64):
        put(mask_at(s, r.rd) + (i >> 3), ld64(flag(s) + (i >> 3)), low(n - i))
    end_mask(w, g, s, r.rd, n)
    if bad != 0:
        s.v_from[r.rd] = source
    return OK


def mask_to_x(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Count, first: of all bits that the mask lets through."""
    s, bad, source = ptr(Shadow, of(w, g)), 0, s_from(w, r, g)
    masked = dirty(s, g, 0, w.vl) if r.vm == 0 else 0
    for i in range(0, w.vl, 64):
        u = unknown(s, g, r.rs2, i)
        if r.vm == 0:
            u = u & (ld64(vreg(w, g, 0) + (i >> 3)) | (unknown(s, g, 0, i) if masked != 0 else 0))
            if masked != 0:
                u = u | (unknown(s, g, 0, i) & ld64(vreg(w, g, r.rs2) + (i >> 3)))
        bad = bad | (u & low(w.vl - i))
    return set_x(s, r, 255 if bad != 0 else 0, source)


def s_from(w: Warp, r: Rec, g: Gpu) -> int:
    return ptr(Shadow, of(w, g)).v_from[r.rs2]


def iota(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    if w.vl == 0:
        return OK
    bad, source = dirty(s, g, r.rs2, w.vl), s.v_from[r.rs2]
    for i in range(w.vl):
        st8(flag(s) + i, bad)
    if flagged(w, r, g, s, w.vl, SEW >> 3):
        for n in range(r.rd, r.rd + group_bytes(w, g, SEW >> 3) // g.vlenb):
            s.v_from[n] = source
    return settled(w, r, g, s, SEW >> 3)


def reduce(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Element 0 from all active ones and element 0 of vs1 (DW times as wide)."""
    s, m, bad = ptr(Shadow, of(w, g)), vreg(w, g, 0), 0
    if w.vl == 0:
        return OK
    wide = DW * SEW >> 3
    front = element(s, g, r.rs1, 0, wide)
    source = s.v_from[r.rs1]
    if (r.vm == 0 and dirty(s, g, 0, w.vl)) or defined(s, g, r.rs2, w.vl * (SEW >> 3)) == 0:
        masked = dirty(s, g, 0, w.vl) if r.vm == 0 else 0
        for i in range(w.vl):
            if r.vm != 0 or mask_bit(m, i):
                bad = bad | element(s, g, r.rs2, i, SEW >> 3)
            if masked != 0:
                bad = bad | ((unknown(s, g, 0, i & ~7) >> (i & 7)) & 1)
        if bad != 0:
            at = first_bad(s, g, r.rs2, w.vl * (SEW >> 3))
            source = s.v_from[at] if at >= 0 else s.v_from[0]
    return front_element(w, r, g, s, bad | front, source, wide)


@apart
def front_element(w: Warp, r: Rec, g: Gpu, s: Shadow, u: int, source: int, wide: int) -> int:
    """Writes element 0; the register's others are its tail."""
    put(vbits(s, g, r.rd), -u, low(wide))
    wrote(s, r.rd, 1)
    tail(w, g, s, r.rd, wide, g.vlenb)
    if u != 0:
        s.v_from[r.rd] = source
    return OK


def from_scalar(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """vmv.s.x, vfmv.s.f."""
    s = ptr(Shadow, of(w, g))
    return OK if w.vl == 0 else front_element(w, r, g, s, scalar(s, r) & 1, scalar_from(s, r), SEW >> 3)


def to_x(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """vmv.x.s: bytes as they are, the sign's behind them."""
    s = ptr(Shadow, of(w, g))
    u = ld64(vbits(s, g, r.rs2)) & low(SEW >> 3)
    if u >> ((SEW >> 3) - 1) != 0:
        u = (u | (-1 << (SEW >> 3))) & 255
    return set_x(s, r, u, s.v_from[r.rs2])


def to_f(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    s = ptr(Shadow, of(w, g))
    return set_f(s, r.rd, ld64(vbits(s, g, r.rs2)) & low(SEW >> 3), s.v_from[r.rs2])


def registers(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """vmv<n>r.v."""
    return copy_registers(w, g, ptr(Shadow, of(w, g)), r.rd, r.rs2, N)


# -- elements that move
def most(w: Warp, g: Gpu) -> int:
    return w.lmul8 * g.vlenb // SEW


def slide_by(w: Warp, r: Rec, g: Gpu, n: int, sc: int) -> int:
    s, a = ptr(Shadow, of(w, g)), r.rs2
    if w.vl == 0:
        return OK
    for i in range(w.vl):
        u = sc
        if UP == 1:
            u = u | (element(s, g, a, i - n, SEW >> 3) if ult(i, n) == 0 else 2 * (1 - sc))
        elif ult(n, most(w, g)) and i + n < most(w, g):
            u = u | element(s, g, a, i + n, SEW >> 3)
        st8(flag(s) + i, u)
    return moved(w, r, g, s, w.vl)


@apart
def moved(w: Warp, r: Rec, g: Gpu, s: Shadow, n: int) -> int:
    """What stands in `flags` goes to rd."""
    at = first_bad(s, g, r.rs2, group_bytes(w, g, SEW >> 3))
    source = s.v_from[at] if at >= 0 else scalar_from(s, r)
    if B == 1 and source == 0:
        at = first_bad(s, g, r.rs1, n * (BW * SEW >> 3))
        source = s.v_from[at] if at >= 0 else 0
    if flagged(w, r, g, s, n, SEW >> 3) and source != 0:
        for k in range(r.rd, r.rd + group_bytes(w, g, SEW >> 3) // g.vlenb):
            s.v_from[k] = source
    total = group_bytes(w, g, SEW >> 3)
    wrote(s, r.rd, total // g.vlenb)
    return tail(w, g, s, r.rd, n * (SEW >> 3), total)


def slide_x(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return slide_by(w, r, g, w.x[r.rs1], ptr(Shadow, of(w, g)).x[r.rs1] != 0)


def slide_i(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return slide_by(w, r, g, r.imm, 0)


def slide_one(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """slide1up, slide1down: the scalar comes in at the end."""
    s = ptr(Shadow, of(w, g))
    if w.vl == 0:
        return OK
    sc = scalar(s, r) & 1
    for i in range(w.vl):
        if UP == 1:
            st8(flag(s) + i, element(s, g, r.rs2, i - 1, SEW >> 3) if i > 0 else sc)
        else:
            st8(flag(s) + i, element(s, g, r.rs2, i + 1, SEW >> 3) if i < w.vl - 1 else sc)
    return moved(w, r, g, s, w.vl)


def gather_v(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """By indices of BW x SEW bits (of 16 bits when BW is 0)."""
    s = ptr(Shadow, of(w, g))
    if w.vl == 0:
        return OK
    bits = 16 if BW == 0 else SEW
    for i in range(w.vl):
        u = element(s, g, r.rs1, i, bits >> 3)
        j = ldb(vreg(w, g, r.rs1), i, bits)
        if u == 0 and ult(j, most(w, g)):
            u = element(s, g, r.rs2, j, SEW >> 3)
        st8(flag(s) + i, u)
    return moved(w, r, g, s, w.vl)


def gather_by(w: Warp, r: Rec, g: Gpu, j: int, sc: int) -> int:
    s = ptr(Shadow, of(w, g))
    if w.vl == 0:
        return OK
    u = sc
    if ult(j, most(w, g)):
        u = u | element(s, g, r.rs2, j, SEW >> 3)
    for i in range(w.vl):
        st8(flag(s) + i, u)
    return moved(w, r, g, s, w.vl)


def gather_x(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return gather_by(w, r, g, w.x[r.rs1], ptr(Shadow, of(w, g)).x[r.rs1] != 0)


def gather_i(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return gather_by(w, r, g, r.imm, 0)


def compress(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Elements whose mask bit is set close up; with an undefined mask all are undefined. What follows them is tail."""
    s, m, n = ptr(Shadow, of(w, g)), vreg(w, g, r.rs1), 0
    if w.vl == 0:
        return OK
    bad = dirty(s, g, r.rs1, w.vl)
    for i in range(w.vl):
        if bad != 0 or mask_bit(m, i):
            st8(flag(s) + n, bad | element(s, g, r.rs2, i, SEW >> 3))
            n += 1
    return moved(w, r, g, s, n)
