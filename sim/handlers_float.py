"""Exact floating point: any handler specialised with the arithmetic of isa/softfloat.py, under a rounding mode, accruing flags in fcsr.

These serve programs that look at fcsr, and instructions with a static rounding mode other than nearest even (sim/program.py); all others run
the plain handlers, which round to nearest even and leave flags alone.
"""

from __future__ import annotations

from rvgpu.isa.prims_float import f_context, f_leave
from rvgpu.sim.state import F_ILLEGAL, OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import address

DYNAMIC = 7


def BODY(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """Bound to the row's template."""
    return OK


def exact(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """The mode is the instruction's or, where that says so, frm: 5 to 7 there are illegal for every instruction that asks."""
    mode = r.rm if r.rm != DYNAMIC else w.fcsr >> 5
    if mode > 4:
        return F_ILLEGAL
    w.rounding[0] = mode
    w.rounding[1] = w.fcsr & 31
    f_context(address(w.rounding))
    code = BODY(c, w, r, g)
    f_leave()
    w.fcsr = w.fcsr | w.rounding[1]
    return code
