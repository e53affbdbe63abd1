"""Checked mode's shadow of vector registers: active elements, tails, masks, and where undefined values came from.

Under a mask-agnostic or tail-agnostic policy what an instruction does not write becomes undefined (agnostic), though the simulator leaves it
as it was. A register that an instruction wrote as a mask has a bit for each element, until something else is written there.
"""

from __future__ import annotations

from rvgpu.isa.meaning import mask_bit
from rvgpu.isa.prims import copy, imax, imin, ld8, ld64, lshr, st8, st64, wrap
from rvgpu.sim.check_state import O_AGNOSTIC, Shadow, low, origin, put, spread, vbits
from rvgpu.sim.handlers import vreg
from rvgpu.sim.state import OK, Gpu, Rec, Warp
from rvgpu.sim.translate import address, apart

MASK_BYTES = 128  # of a register's mask bits


def mask_at(s: Shadow, reg: int) -> int:
    return address(s.mask) + reg * MASK_BYTES


def unknown(s: Shadow, g: Gpu, reg: int, first: int) -> int:
    """Of 64 elements from `first` (a multiple of 8) on, which have an undefined bit in mask register `reg`."""
    if (s.masks >> reg) & 1 != 0:
        return ld64(mask_at(s, reg) + (first >> 3))
    at = vbits(s, g, reg) + (first >> 6)
    return spread(lshr(ld64(at), (first >> 3) & 7) & 255, 3)


@apart
def dirty(s: Shadow, g: Gpu, reg: int, n: int) -> int:
    """Whether any of a mask's first n bits is undefined."""
    bad = 0
    for i in range(0, n, 64):
        bad = bad | (unknown(s, g, reg, i) & low(n - i))
    return bad != 0


def active(w: Warp, g: Gpu, i: int, shift: int) -> int:
    """Bits of the bytes from byte i of a group on whose elements of 1 << shift bytes the mask lets through."""
    first = i >> shift
    return spread(lshr(ld64(vreg(w, g, 0) + (first >> 3)), first & 7), shift)


def lost(s: Shadow, g: Gpu, i: int, shift: int) -> int:
    """The same for elements whose mask bit is undefined."""
    first = i >> shift
    return spread(lshr(unknown(s, g, 0, first & ~7), first & 7), shift)


def group_bytes(w: Warp, g: Gpu, width: int) -> int:
    """Of a register group of elements of `width` bytes: whole registers."""
    return imax(g.vlenb, ((w.lmul8 * g.vlenb) >> (w.sew + 3)) * width)


def wrote(s: Shadow, reg: int, registers: int) -> int:
    """These registers hold no mask bits any more."""
    if s.masks != 0:
        s.masks = s.masks & ~wrap(low(registers) << reg)
    return OK


@apart
def agnostic(w: Warp, g: Gpu, s: Shadow, reg: int, start: int, end: int) -> int:
    """Bytes start..end of the group from `reg` on become undefined."""
    d = vbits(s, g, reg)
    i = start & ~63
    while i < end:
        which = low(end - i)
        if i < start:
            which = which & wrap(-1 << (start - i))
        put(d + (i >> 3), -1, which)
        i += 64
    for n in range(reg + start // g.vlenb, reg + (end + g.vlenb - 1) // g.vlenb):
        s.v_from[n] = origin(O_AGNOSTIC, w, 0)
    return OK


def tail(w: Warp, g: Gpu, s: Shadow, reg: int, start: int, end: int) -> int:
    """After elements up to byte `start` of a group of `end` bytes."""
    if start < end and w.vtype & 64 != 0:
        agnostic(w, g, s, reg, start, end)
    return OK


def settled(w: Warp, r: Rec, g: Gpu, s: Shadow, width: int) -> int:
    """Ends an instruction that wrote vl elements of `width` bytes to rd: its registers hold no masks, its tail may be agnostic."""
    total = group_bytes(w, g, width)
    wrote(s, r.rd, total // g.vlenb)
    return tail(w, g, s, r.rd, w.vl * width, total)


@apart
def first_bad(s: Shadow, g: Gpu, reg: int, nbytes: int) -> int:
    """The register of the group at `reg` (-1: no group) that has an undefined byte among its first nbytes, or -1."""
    if reg >= 0:
        for i in range(0, nbytes, g.vlenb):
            n = imin(g.vlenb, nbytes - i)
            for j in range(0, n, 64):
                if ld64(vbits(s, g, reg) + ((i + j) >> 3)) & low(n - j) != 0:
                    return reg + i // g.vlenb
    return -1


@apart
def blame(w: Warp, g: Gpu, s: Shadow, rd: int, width: int, a: int, a_width: int, b: int, b_width: int, other: int) -> int:
    """Undefined elements of rd, which has its new bits already, came from vector group a or b (-1: none), else from where `other` says, else
    from what rd held, else from the mask."""
    at = first_bad(s, g, a, w.vl * a_width) if a != rd else -1
    if at < 0 and b != rd:
        at = first_bad(s, g, b, w.vl * b_width)
    if at < 0 and other == 0 and (a == rd or b == rd):
        at = rd
    source = other
    if at >= 0:
        source = s.v_from[at]
    elif other == 0:
        source = s.v_from[0]
    for n in range(rd, rd + group_bytes(w, g, width) // g.vlenb):
        s.v_from[n] = source
    return OK


# -- one flag for each element: what is seldom, and what moves elements
def flag(s: Shadow) -> int:
    return address(s.flags)


def element(s: Shadow, g: Gpu, reg: int, i: int, width: int) -> int:
    """Whether element i of `width` bytes of a group has an undefined byte."""
    at = i * width
    return lshr(ld64(vbits(s, g, reg) + (at >> 6 << 3)), at & 63) & low(width) != 0


@apart
def flagged(w: Warp, r: Rec, g: Gpu, s: Shadow, n: int, width: int) -> int:
    """Writes flags of n elements to rd, under the mask when there is one (elements with flag 2 stay); returns whether any is undefined."""
    d, f, bad, m = vbits(s, g, r.rd), flag(s), 0, vreg(w, g, 0)
    masked = dirty(s, g, 0, n) if r.vm == 0 else 0
    for i in range(n):
        at = i * width
        which, u = wrap(low(width) << (at & 63)), ld8(f + i)
        on = 1 if r.vm != 0 else mask_bit(m, i)
        if masked != 0:
            if (unknown(s, g, 0, i & ~7) >> (i & 7)) & 1 != 0:
                on = 1
                u = 1
        if on != 0:
            if u != 2:
                put(d + (at >> 6 << 3), -u, which)
                bad = bad | u
        elif w.vtype & 128 != 0:
            put(d + (at >> 6 << 3), -1, which)
            s.v_from[r.rd + at // g.vlenb] = origin(O_AGNOSTIC, w, 0)
    return bad


@apart
def flagged_mask(w: Warp, r: Rec, g: Gpu, s: Shadow, n: int, masks: int) -> int:
    """Writes flags of n elements to mask register rd: bits beyond are agnostic; masked-off ones (when v0 `masks`) are as before, or agnostic."""
    begin_mask(s, g, r.rd)
    d, f, m = mask_at(s, r.rd), flag(s), vreg(w, g, 0)
    every = r.vm != 0 or masks == 0
    masked = 0 if every else dirty(s, g, 0, n)
    bad = 0
    for i in range(n):
        u = ld8(f + i)
        on = 1 if every else mask_bit(m, i)
        if masked != 0:
            if (unknown(s, g, 0, i & ~7) >> (i & 7)) & 1 != 0:
                on = 1
                u = 1
        if on == 0 and w.vtype & 128 != 0:
            on = 1
            u = 1
        if on != 0:
            at = d + (i >> 3)
            st8(at, (ld8(at) & ~(1 << (i & 7))) | (u << (i & 7)))
            bad = bad | u
    end_mask(w, g, s, r.rd, n)
    return bad


@apart
def begin_mask(s: Shadow, g: Gpu, reg: int) -> int:
    """The register has bits for each element from now on, at first those of its bytes."""
    if (s.masks >> reg) & 1 == 0:
        for i in range(0, g.vlenb * 8, 64):
            st64(mask_at(s, reg) + (i >> 3), unknown(s, g, reg, i))
        s.masks = s.masks | (1 << reg)
    return OK


@apart
def end_mask(w: Warp, g: Gpu, s: Shadow, reg: int, n: int) -> int:
    """Bits from n on are agnostic."""
    at = mask_at(s, reg)
    for i in range(n & ~63, g.vlenb * 8, 64):
        keep = low(n - i) if n > i else 0
        st64(at + (i >> 3), ld64(at + (i >> 3)) | ~keep)
    s.v_from[reg] = origin(O_AGNOSTIC, w, 0)
    return bytes_of_mask(g, s, reg)


def bytes_of_mask(g: Gpu, s: Shadow, reg: int) -> int:
    """A byte of a mask register counts as undefined when all its bits are."""
    at, d = mask_at(s, reg), vbits(s, g, reg)
    for i in range(g.vlenb):
        bit = (ld8(at + i) == 255) << (i & 7)
        st8(d + (i >> 3), (ld8(d + (i >> 3)) & ~(1 << (i & 7))) | bit)
    return OK


@apart
def copy_mask(w: Warp, g: Gpu, s: Shadow, rd: int, rs: int, n: int) -> int:
    """The first n bits of mask register rs; those beyond stay, or are agnostic."""
    begin_mask(s, g, rd)
    at, of = mask_at(s, rd), mask_at(s, rs)
    for i in range(0, g.vlenb * 8, 64):
        new, old = ld64(of + (i >> 3)), ld64(at + (i >> 3))
        keep = low(n - i) if n > i else 0
        st64(at + (i >> 3), (new & keep) | ((old | -((w.vtype >> 6) & 1)) & ~keep))
    s.v_from[rd] = s.v_from[rs]
    return bytes_of_mask(g, s, rd)


@apart
def defined_mask(w: Warp, g: Gpu, s: Shadow, reg: int, n: int) -> int:
    """All of a mask's first n bits are defined, the others are agnostic."""
    at, d = mask_at(s, reg), vbits(s, g, reg)
    for i in range(0, g.vlenb * 8, 64):
        st64(at + (i >> 3), ~low(n - i) if n > i else -1)
    for i in range(0, g.vlenb, 64):
        at8 = imax(0, ((n + 7) >> 3) - i)
        put(d + (i >> 3), ~low(at8), low(g.vlenb - i))
    s.masks = s.masks | (1 << reg)
    s.v_from[reg] = origin(O_AGNOSTIC, w, 0)
    return OK


@apart
def copy_registers(w: Warp, g: Gpu, s: Shadow, rd: int, rs: int, n: int) -> int:
    """Whole registers with all that is known of them."""
    copy(vbits(s, g, rd), vbits(s, g, rs), n * (g.vlenb >> 3))
    for i in range(n):
        s.v_from[rd + i] = s.v_from[rs + i]
        if (s.masks >> (rs + i)) & 1 != 0:
            copy(mask_at(s, rd + i), mask_at(s, rs + i), MASK_BYTES)
            s.masks = s.masks | (1 << (rd + i))
        else:
            s.masks = s.masks & ~(1 << (rd + i))
    return OK
