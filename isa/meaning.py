"""What instructions compute: a row's meaning is a function of one element, found here by the row's kind and `op`.

Meanings are restricted Python (sim/translate.py), bit patterns in and out. Scalar ones take 64-bit values. Vector ones take `a` (vs2), `b` (vs1, a
scalar or an immediate) and, for multiply-adds, `c` (old vd), zero-extended from the operand's width; `SEW` and `W` (the width of floating point) are
bound when a template is specialised. Each family has a module: meaning_scalar, meaning_float, meaning_vector, meaning_fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rvgpu.isa import meaning_fixed, meaning_float, meaning_scalar, meaning_vector
from rvgpu.isa.meaning_float import NAN_OF_32 as NAN_OF_32
from rvgpu.isa.meaning_vector import mask_bit as mask_bit
from rvgpu.isa.rows import Row

# the beginning of a row's kind -> the beginning of its meaning's name; the longest that fits counts
PREFIX = {"alu": "s_", "branch": "b_", "amo": "a_", "fp2": "fp_", "fma": "ma_", "fcmp": "fc_", "vunary": "u_", "vred": "r_", "vwred": "r_",
          "vfwred": "r_", "vmask": "k_", "vcmp": "c_", "vmac": "mac_", "vwmac": "mac_", "vfwmac": "mac_", "vfix": "x_", "vclip": "x_", "v": "v_"}
HOMES = (meaning_scalar, meaning_float, meaning_vector, meaning_fixed)


def meaning(row: Row) -> Callable[..., Any] | None:
    """The row's element function; None where the whole instruction is its template (moves, permutations, memory, configuration)."""
    if not row.op:
        return None
    name = PREFIX[max((p for p in PREFIX if row.kind.startswith(p)), key=len)] + row.op
    fn: Callable[..., Any] = next(getattr(home, name) for home in HOMES if hasattr(home, name))
    return fn


def saturation(row: Row) -> Callable[..., Any] | None:
    """Of a fixed-point row: the function that says whether an element saturates."""
    fn: Callable[..., Any] | None = getattr(meaning_fixed, f"sat_{row.op}", meaning_fixed.never) if row.kind.startswith(("vfix", "vclip")) else None
    return fn
