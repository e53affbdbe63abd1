"""The error rule of each level T op: (values, bounds of the operands) -> bound of the result, in float64.

Arithmetic and structure stand here, functions in `error_functions.py`, sums in `error_sums.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rvgpu.ir import error_functions as f
from rvgpu.ir import error_sums as s
from rvgpu.ir.core import Op
from rvgpu.ir.error_base import (
    DIV_ULPS,
    ERF_ULPS,
    EXACT,
    TANH_ULPS,
    Context,
    Rule,
    dtype_of,
    exact,
    pointwise,
    rounded,
)
from rvgpu.ir.meaning import align
from rvgpu.ir.numeric import LARGEST, MIN_EXPONENT, PRECISION, Array, half_ulp, round_to, unit, widen
from rvgpu.ir.tensor_ops import OPS
from rvgpu.ir.types import DType


def unchanged(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    return bs[0]


def add(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    return rounded(v, bs[0] + bs[1], dtype_of(op))


def mul(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    (x, y), (bx, by) = map(np.abs, xs), bs
    if exact(bx) and exact(by):
        return rounded(v, EXACT, dtype_of(op))
    carried = x * by + y * bx + bx * by
    odd = ~np.isfinite(v)
    if odd.any():  # inf * (something that may be 0) is uncertain
        carried = np.where(odd, np.where(((y <= by) & (by > 0)) | ((x <= bx) & (bx > 0)), np.inf, 0.0), carried)
    return rounded(v, carried, dtype_of(op))


def div(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    y, (bx, by) = np.abs(xs[1]), bs
    room = y - by
    carried = np.where((bx == 0) & (by == 0), 0.0, (bx + np.abs(v) * by) / room)
    carried = np.where((room <= 0) & (by > 0), np.inf, carried)
    return rounded(v, carried, dtype_of(op), DIV_ULPS) if dtype_of(op).is_float else carried + 1


def mod(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    """x - floor(x/y) y; where the quotient may cross an integer, anything in [0, |y|]. Product and difference are rounded once each."""
    (x, y), (bx, by) = xs, bs
    q = x / y
    slack = div(op, xs, bs, q)
    near = np.floor(q - slack) != np.floor(q + slack)
    carried: Array = bx + np.abs(np.floor(q)) * by + 2 * half_ulp(np.abs(x) + bx + np.abs(y) + by, dtype_of(op))
    return np.where(near, np.abs(y) + by + carried, carried)


def power(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    """Repeated multiplication (and one division): (|x|+b)^n - |x|^n, or |x|^-n - (|x|-b)^-n the other way."""
    (x, n), bx = (np.abs(xs[0]), xs[1]), bs[0]
    grown = np.where(n >= 0, x + bx, np.where(x > bx, x - bx, 0.0))
    carried = np.where(bx == 0, 0.0, np.abs(np.power(grown, n) - np.power(x, n)))
    return np.asarray(carried + (np.abs(n) + 2) * half_ulp(np.abs(v) + carried, dtype_of(op)))


def maximum(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    (x, y), (bx, by) = xs, bs
    sign = -1.0 if op.name == "min" else 1.0
    x, y = sign * x, sign * y
    return np.where(x - bx > y + by, bx, np.where(y - by > x + bx, by, np.maximum(bx, by)))


def compare(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    slack = bs[0] + bs[1]
    return np.asarray((slack > 0) & ((np.abs(xs[0] - xs[1]) <= slack) | (slack == np.inf)), np.float64)


def logical(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    """Uncertain where one side is uncertain and the other does not decide."""
    (x, y), (bx, by) = xs, bs
    decides = 0.0 if op.name == "and" else 1.0
    open_x, open_y = (x != decides) | (bx > 0), (y != decides) | (by > 0)
    return np.asarray(((bx > 0) & open_y) | ((by > 0) & open_x), np.float64)


def select(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    cond, x, y = xs
    unsure, bx, by = bs
    chosen = EXACT if exact(bx) and exact(by) else np.where(cond != 0, bx, by)
    if exact(unsure):
        return chosen
    gap = np.where(x == y, 0.0, np.abs(x - y))
    return np.where(unsure > 0, np.maximum(bx, by) + np.where(np.isnan(gap), np.inf, gap), chosen)


def cast(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    """Half an ulp of the target. Inside a function a kernel may hold the value scaled (softmax before its division), so
    there it is the worst half ulp of the binade: u |value|."""
    source, target = op.operands[0].tensor.dtype, dtype_of(op)
    b = align(bs[0], op.operands[0].tensor.dims, op.result.tensor.dims) if bs[0].ndim else bs[0]
    x = align(widen(xs[0]).astype(np.float64, copy=False), op.operands[0].tensor.dims, op.result.tensor.dims)
    if target is DType.i1:
        return np.asarray((b > 0) & (np.abs(x) <= b), np.float64)
    if not target.is_float:
        if exact(b) or not source.is_float:
            return b
        low, high = (round_to(x + s * b, target).astype(np.float64) for s in (-1.0, 1.0))
        return np.asarray(np.maximum(np.abs(low - v), np.abs(high - v)))
    size = np.abs(v) + b
    if not source.is_float:
        small = size <= 2.0 ** PRECISION[target]
        return b if small.all() else b + np.where(small, 0.0, half_ulp(size, target))
    if PRECISION[source] <= PRECISION[target] and MIN_EXPONENT[source] >= MIN_EXPONENT[target]:
        return b
    size = np.minimum(size, LARGEST[target])
    if op.result in c.finals:
        return b + half_ulp(size, target)
    least = 2.0 ** (MIN_EXPONENT[target] - PRECISION[target])
    return b + np.where(size == 0, 0.0, np.maximum(unit(target) * size, least))


def moved(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    if all(map(exact, bs)):
        return EXACT
    full = [np.broadcast_to(b, x.shape) for b, x in zip(bs, xs, strict=True)]
    return OPS[op.name].meaning(c.env, op, full)


def take(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    out = EXACT if exact(bs[0]) else OPS["take"].meaning(c.env, op, [np.broadcast_to(bs[0], xs[0].shape), xs[1]])
    if exact(bs[1]):
        return out
    return np.where(align(bs[1], op.operands[1].tensor.dims, op.result.tensor.dims) > 0, np.inf, out)


def _nothing(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    return EXACT


_LN2 = math.log(2)
RULES: dict[str, Rule] = {
    "const": _nothing, "iota": _nothing, "size": _nothing,
    "neg": pointwise(unchanged), "abs": pointwise(unchanged), "not": pointwise(unchanged),
    "exp": pointwise(f.exponential(1.0)), "exp2": pointwise(f.exponential(_LN2)),
    "log": pointwise(f.logarithm(1.0)), "log2": pointwise(f.logarithm(1 / _LN2)),
    "sqrt": pointwise(f.sqrt), "rsqrt": pointwise(f.rsqrt),
    "tanh": pointwise(f.smooth(lambda x: 1 - np.tanh(x) ** 2, 0.78, TANH_ULPS)),
    "erf": pointwise(f.smooth(lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x), 0.97, ERF_ULPS)),
    "floor": pointwise(f.monotone(np.floor)), "round": pointwise(f.monotone(np.rint)),
    "add": pointwise(add), "sub": pointwise(add), "mul": pointwise(mul), "div": pointwise(div), "mod": pointwise(mod),
    "pow": pointwise(power), "max": pointwise(maximum), "min": pointwise(maximum),
    "and": pointwise(logical), "or": pointwise(logical),
    **{name: pointwise(compare) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
    "select": pointwise(select), "cast": cast,
    "rename": moved, "slice": moved, "pad": moved, "concat": moved, "take": take,
    "reduce": s.reduce, "contract": s.contract,
    "softmax": s.softmax, "logsumexp": s.logsumexp, "mean": s.mean, "var": s.var,
    "sigmoid": pointwise(f.sigmoid), "silu": pointwise(f.silu), "gelu": pointwise(f.gelu), "relu": pointwise(f.relu),
    "clamp": pointwise(f.clamp),
}
