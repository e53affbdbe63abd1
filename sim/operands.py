"""Which encodings are reserved under a vector configuration, in restricted Python: alignment, size and overlap of register groups (isa/operands.py).

The rules are RVV 1.0's: EMUL is 1/8 to 8, with all fields of a segment at most 8 registers; groups start at a multiple of their length and end within
the file (3.4.2); no register is read as elements of two widths (a mask's width is 1), and a destination overlaps a source only when their widths
are equal, or the destination is narrower and at the lowest part, or the source is a whole register or more, narrower and at the highest part (5.2); a
masked destination is not v0, unless it is a mask or a reduction's scalar (5.3). Some rows have stricter rules, and reductions none.
"""

from __future__ import annotations

from rvgpu.isa.operands import (
    ANYTHING,
    APART,
    EEW_GROUP,
    FIELDS,
    FIELDS_EEW,
    FIXED,
    GROUP,
    MASK,
    ONE,
    PART,
    ROWS_OF_MM,
    SCALAR_WIDE,
    TILE_OF_MM,
    WIDE,
)
from rvgpu.isa.prims import imax, imin
from rvgpu.sim.state import F_OPERAND, OK, REGS, Plan, Rec, Warp

V0, V_END = 64, 96  # vector registers on the scoreboard


def emul(w: Warp, r: Rec, kind: int) -> int:
    """Eighths of a register in one group."""
    if kind == GROUP or kind == FIELDS:
        return w.lmul8
    if kind == WIDE:
        return 2 * w.lmul8
    if kind == PART:
        return w.lmul8 // r.arg
    if kind == EEW_GROUP or kind == FIELDS_EEW:
        return (w.lmul8 * r.arg) >> (w.sew + 3)
    if kind == FIXED:
        return 8 * r.arg
    return 64 if kind == ROWS_OF_MM else 8


def eew(w: Warp, r: Rec, kind: int) -> int:
    """Bits of an element."""
    if kind == MASK:
        return 1
    if kind == WIDE or kind == SCALAR_WIDE:
        return 16 << w.sew
    if kind == PART:
        return (8 << w.sew) // r.arg
    if kind == EEW_GROUP or kind == FIELDS_EEW:
        return r.arg
    return 8 << w.sew


def width(w: Warp, r: Rec, kind: int) -> int:
    """Registers of an operand."""
    n = imax(1, emul(w, r, kind) >> 3)
    return n * r.fields if kind == FIELDS or kind == FIELDS_EEW else n


def fits(w: Warp, r: Rec, reg: int, kind: int) -> int:
    """Whether an operand's size and place are legal."""
    if kind == TILE_OF_MM:
        return r.rd & 4 == 0 or w.sew == 3
    if kind == ONE or reg < V0 or reg >= V_END:
        return 1
    each = emul(w, r, kind)
    if kind == ROWS_OF_MM:  # aligned to LMUL, and its last row of 8 / KMAX registers within the eight
        return (reg & 7) % imax(1, w.lmul8 >> 3) == 0 and reg & 7 < (2 if w.sew == 0 else 4 if w.sew == 1 else 8)
    if each < 1 or each > 64 or reg % imax(1, each >> 3) != 0 or reg + width(w, r, kind) > V_END:
        return 0
    return (kind != FIELDS and kind != FIELDS_EEW) or each * r.fields <= 64


def place(w: Warp, r: Rec, p: Plan) -> int:
    """Notes in the plan how many registers the operands span; F_OPERAND when the encoding is reserved."""
    fault = OK
    for k in range(r.nsrc):
        p.span[k] = imin(width(w, r, r.srckind[k]), REGS - r.src[k])
        if r.srckind[k] == ROWS_OF_MM:
            p.span[k] = 8 - (r.src[k] & 7)  # its rows stand within the eight
        if fits(w, r, r.src[k], r.srckind[k]) == 0:
            fault = F_OPERAND
    p.dstspan = 0
    if r.dst < 200:
        p.dstspan = imin(width(w, r, r.dstkind), REGS - r.dst)
        if fits(w, r, r.dst, r.dstkind) == 0:
            fault = F_OPERAND
    if r.vector != 0 and fault == OK and overlapping(w, r, p) != 0:
        fault = F_OPERAND
    return fault


def overlapping(w: Warp, r: Rec, p: Plan) -> int:
    """Whether operands overlap as they must not."""
    for k in range(r.nsrc):
        a, n = r.src[k], p.span[k]
        if a >= V0 and a < V_END and r.srckind[k] != ROWS_OF_MM:
            bits = eew(w, r, r.srckind[k])
            for j in range(k):
                b = r.src[j]
                if b >= V0 and b < V_END and a < b + p.span[j] and b < a + n and eew(w, r, r.srckind[j]) != bits:
                    return 1
            d, m = r.dst, p.dstspan
            if d >= V0 and d < V_END and a < d + m and d < a + n and r.overlap != ANYTHING:
                own = eew(w, r, r.dstkind)
                if r.overlap == APART:
                    return 1
                if r.srckind[k] == MASK and r.dstkind != MASK:
                    return 1
                if own < bits and d != a:
                    return 1
                if own > bits and (emul(w, r, r.srckind[k]) < 8 or a + n != d + m):
                    return 1
    return 0
