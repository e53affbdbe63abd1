"""What error rules share: the form of a bound, the ulps of the machine's functions, rounding of a result.

A bound is an absolute error per element that any kernel for the op may make: its operands' errors carried through,
plus the rounding of f32 arithmetic in any order of summation. The bound of an i1 is 1 where the comparison may go
either way. A 0-d zero bound means exact. inf means that nothing is promised (a zero that may be a divisor, an overflow
that may or may not happen). At a NaN or infinity a finite or NaN bound means that the result is certain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rvgpu.ir.core import Op, Value
from rvgpu.ir.meaning import Env, align
from rvgpu.ir.numeric import Array, half_ulp, widen
from rvgpu.ir.types import DType

EXACT = np.zeros(())
TAU = 17.0  # an anchor may lag behind the maximum by this much (8 where it follows)
FLUSH = 2.0**-92  # an anchored exp below -64 is 0
TINY = 2.0**-120  # exp overflows inside sigmoid and its kin where their value is below this
UNDERFLOW = {DType.f32: 2.0**-150, DType.f64: 2.0**-1075, DType.i32: 0.0, DType.i64: 0.0}  # half the least product
# ulps of the functions, as codegen states and tests them
EXP_ULPS, LOG_ULPS, ERF_ULPS, TANH_ULPS, RSQRT_ULPS, DIV_ULPS = 2.6, 3.0, 3.0, 4.0, 2.0, 1.5


@dataclass(frozen=True)
class Context:
    env: Env
    finals: frozenset[Value] = field(default_factory=frozenset)  # values that leave the function as they are


Rule = Callable[[Context, Op, list[Array], list[Array], Array], Array]
Local = Callable[[Op, Sequence[Array], Sequence[Array], Array], Array]


def exact(b: Array) -> bool:
    return b.ndim == 0 and float(b) == 0.0


def rounded(v: Array, carried: Array, dtype: DType, ulps: float = 0.5) -> Array:
    """The carried bound plus `ulps` units in the last place of the result."""
    return carried + (2 * ulps) * half_ulp(np.abs(v) + carried, dtype)


def dtype_of(op: Op) -> DType:
    return op.result.tensor.dtype


def pointwise(rule: Local) -> Rule:
    """A rule on operands and bounds aligned to the result's dims; integers from exact operands are exact."""
    def apply(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
        if all(map(exact, bs)) and not dtype_of(op).is_float and op.name != "cast":
            return EXACT
        out = op.result.tensor.dims
        dims = [o.tensor.dims for o in op.operands]
        xs = [align(widen(x).astype(np.float64, copy=False), d, out) for x, d in zip(xs, dims, strict=True)]
        bs = [align(b, d, out) if b.ndim else b for b, d in zip(bs, dims, strict=True)]
        return rule(op, xs, bs, v)
    return apply


def taylor(slope: Array, bend: float, b: Array) -> Array:
    return np.asarray(slope * b) + np.where(b > 0, bend / 2 * b * b, 0.0)


def uncertain_edges(v: Array, b: Array) -> Array:
    """NaN bounds: certain at a NaN or infinity, no promise elsewhere; other bounds there count only when infinite."""
    odd = ~np.isfinite(v)
    if odd.any():
        return np.where(odd, np.where(b == np.inf, np.inf, 0.0), np.where(np.isnan(b), np.inf, b))
    return np.where(np.isnan(b), np.inf, b) if np.isnan(b).any() else b
