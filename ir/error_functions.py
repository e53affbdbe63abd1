"""Error rules of functions of one operand and of the elementwise macros."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from rvgpu.ir import meaning as m
from rvgpu.ir.core import Op
from rvgpu.ir.error_base import (
    ERF_ULPS,
    EXACT,
    EXP_ULPS,
    FLUSH,
    LOG_ULPS,
    RSQRT_ULPS,
    TANH_ULPS,
    TAU,
    TINY,
    Local,
    dtype_of,
    exact,
    rounded,
    taylor,
)
from rvgpu.ir.numeric import Array, erf, unit


def monotone(fn: Callable[[Array], Array]) -> Local:
    """Jumps of a step function within the operand's bound."""
    def rule(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
        return bs[0] if exact(bs[0]) else np.maximum(fn(xs[0] + bs[0]) - v, v - fn(xs[0] - bs[0]))
    return rule


def exponential(scale: float) -> Local:
    """exp(scale x). Anchored ones (marked, or of a difference to a maximum) may use another anchor within tau, and
    flush at -64."""
    def rule(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
        slack = bs[0] * scale
        flush = 0.0
        if anchored(op):
            slack, flush = slack + TAU * unit(dtype_of(op)), FLUSH
        carried = EXACT if exact(slack) else np.exp(xs[0] * scale + slack) - v
        return rounded(v, np.maximum(carried, 0.0), dtype_of(op), EXP_ULPS) + flush
    return rule


def anchored(op: Op) -> bool:
    """exp(x - max(..)): the argument's difference is to a maximum (looked for through selects)."""
    if op.attrs.get("anchored"):
        return True
    x = op.operands[0].op
    if x is None or x.name != "sub":
        return False
    todo = [x.operands[1]]
    while todo:
        d = todo.pop().op
        if d is not None and d.name in ("select", "max", "rename", "cast"):
            todo += d.operands
        elif d is not None and d.name == "reduce" and d.attrs["op"] == "max":
            return True
    return False


def logarithm(scale: float) -> Local:
    def rule(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
        x, b = xs[0], bs[0]
        if not exact(b):
            b = in_domain(x, b, x > b, -np.log1p(-b / x) * scale)
        return rounded(v, b, dtype_of(op), LOG_ULPS)
    return rule


def in_domain(x: Array, b: Array, inside: Array, carried: Array) -> Array:
    """`carried` inside, nothing promised at the edge x = 0, certain (a NaN) beyond it."""
    return np.where(b == 0, 0.0, np.where(inside, carried, np.where(x < -b, 0.0, np.inf)))


def sqrt(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    x, b = xs[0], bs[0]
    if not exact(b):
        b = in_domain(x, b, x >= b, b / (v + np.sqrt(np.maximum(x - b, 0.0))))
    return rounded(v, b, dtype_of(op))


def rsqrt(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    x, b = xs[0], bs[0]
    if not exact(b):
        b = in_domain(x, b, x > b, 1 / np.sqrt(np.maximum(x - b, 0.0)) - v)
    return rounded(v, b, dtype_of(op), RSQRT_ULPS)


def smooth(slope: Callable[[Array], Array], bend: float, ulps: float) -> Local:
    """|f'| b + max|f''|/2 b^2, and the function's own ulps."""
    def rule(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
        b = bs[0]
        return rounded(v, EXACT if exact(b) else taylor(np.abs(slope(xs[0])), bend, b), dtype_of(op), ulps)
    return rule


def sigmoid(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    """1 / (1 + exp(-x))."""
    carried = EXACT if exact(bs[0]) else taylor(v * (1 - v), 0.1, bs[0])
    return carried + unit(dtype_of(op)) * v * (2 * EXP_ULPS * (1 - v) + 5) + TINY


def silu(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    x, s = xs[0], m.sigmoid(xs[0])
    slope = np.abs(s + np.where(np.isinf(x), 0.0, x * s * (1 - s)))
    carried = EXACT if exact(bs[0]) else taylor(slope, 0.5, bs[0])
    return carried + unit(dtype_of(op)) * np.abs(v) * (2 * EXP_ULPS * (1 - s) + 7) + TINY * np.maximum(1.0, np.abs(x))


def gelu(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    """x/2 (1 + f(t)) with f in erf, tanh: 1 + f cancels for x < 0, so the error is a few u of |x|/2, not of the
    value."""
    x, u = xs[0], unit(dtype_of(op))
    if op.attrs.get("tanh"):
        a, ulps, steps = math.sqrt(2 / math.pi), TANH_ULPS, 5.0
        t = a * (x + 0.044715 * x**3)
        f = np.tanh(t)
        df = 1 - f * f
        slope = 0.5 * (1 + f) + 0.5 * x * df * a * (1 + 3 * 0.044715 * x * x)
    else:
        ulps, steps = ERF_ULPS, 2.0
        t = x * math.sqrt(0.5)
        f, df = erf(t), 2 / math.sqrt(math.pi) * np.exp(-t * t)
        slope = 0.5 * (1 + f) + 0.5 * x * df * math.sqrt(0.5)
    inner = np.where(df == 0, 0.0, steps * np.abs(t) * df) + 2 * ulps * np.abs(f) + 2 * np.abs(1 + f)
    carried = EXACT if exact(bs[0]) else taylor(np.abs(np.where(np.isnan(slope), 1.0, slope)), 0.9, bs[0])
    return np.asarray(carried + u * (0.5 * np.abs(x) * inner + 3 * np.abs(v)))


def relu(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    return bs[0] if exact(bs[0]) else np.where(xs[0] + bs[0] < 0, 0.0, bs[0])


def clamp(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    return EXACT if all(map(exact, bs)) else np.maximum(np.maximum(bs[0], bs[1]), bs[2])
