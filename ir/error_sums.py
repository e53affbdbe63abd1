"""Error rules of reductions, contractions and the macros over dims: gamma_n, anchored exponentials, cascades."""

from __future__ import annotations

import math

import numpy as np

from rvgpu.ir import meaning as m
from rvgpu.ir.core import Op
from rvgpu.ir.dims import Dim
from rvgpu.ir.error_base import (
    DIV_ULPS,
    EXACT,
    EXP_ULPS,
    FLUSH,
    LOG_ULPS,
    TAU,
    UNDERFLOW,
    Context,
    dtype_of,
    exact,
    rounded,
)
from rvgpu.ir.meaning import align
from rvgpu.ir.numeric import Array, gamma, half_ulp, is_float, unit, widen
from rvgpu.ir.shapes import dims_attr
from rvgpu.ir.types import DType


def finite(x: Array) -> Array:
    return np.where(np.isfinite(x), x, 0.0)


def _axes(op: Op) -> tuple[int, ...]:
    return m.macro_axes(op)


def _rest(op: Op) -> list[Dim]:
    over = dims_attr(op.attrs)
    return [d for d in op.operands[0].tensor.dims if d not in over]


def _count(x: Array, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[a] for a in axes)


def reduce(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    kind, axes, b = str(op.attrs["op"]), _axes(op), bs[0]
    x = widen(xs[0])
    if kind == "sum":
        if not is_float(x) and exact(b):
            return EXACT
        size = np.sum(np.abs(x) + b, axis=axes)
        carried = EXACT if exact(b) else np.sum(np.broadcast_to(b, x.shape), axis=axes)
        return align(carried + gamma(_count(x, axes), dtype_of(op)) * finite(size), _rest(op), op.result.tensor.dims)
    if exact(b):
        return EXACT
    x = (-1.0 if kind == "min" else 1.0) * x.astype(np.float64)
    b = np.broadcast_to(b, x.shape)
    may = x + b >= np.fmax.reduce(x - b, axis=axes, initial=-np.inf, keepdims=True)
    if kind == "argmax":
        n = x.shape[axes[0]]
        first, last = np.argmax(may, axis=axes[0]), n - 1 - np.argmax(np.flip(may, axes[0]), axis=axes[0])
        at = align(v, op.result.tensor.dims, _rest(op)) - c.env.span(dims_attr(op.attrs)[0])[0]
        return align(np.maximum(last - at, at - first).astype(np.float64), _rest(op), op.result.tensor.dims)
    return align(np.max(np.where(may, b, 0.0), axis=axes, initial=0.0), _rest(op), op.result.tensor.dims)


def moderate(x: Array) -> bool:
    """Products of such magnitudes (and zeros) neither overflow nor underflow in f32."""
    return x.size > 0 and bool(x.max() < 1e15 and np.min(x, where=x > 0, initial=1.0) > 1e-15)


def contract(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    """gamma_n sum |a||b|, and (|a| + da)(|b| + db) - |a||b| carried. Products of 16-bit floats are exact or rounded
    once in a pair, so gamma_n covers every unit."""
    if all(map(exact, bs)) and not dtype_of(op).is_float:
        return EXACT
    dims = [o.tensor.dims for o in op.operands]
    size = [np.abs(widen(x).astype(np.float64, copy=False)) for x in xs]
    grown = [x if exact(b) else x + b for x, b in zip(size, bs, strict=True)]
    n = math.prod(xs[0].shape[dims[0].index(d)] for d in dims_attr(op.attrs))
    out = op.result.tensor.dims
    given = all(map(exact, bs))
    single = given and n < 1 << 16 and all(map(moderate, size))  # f32 will do: 1.01 covers it
    total = m.multiply(grown[0], dims[0], grown[1], dims[1], out, single).astype(np.float64, copy=False)
    total = total * 1.01 if single else total
    g = gamma(n, dtype_of(op))
    least = np.where(total > 0, n * UNDERFLOW[dtype_of(op)], 0.0)
    if given:
        return g * finite(total) + least
    bound = total * (1 + g) + least - m.multiply(size[0], dims[0], size[1], dims[1], out)
    return bound if any(np.isinf(b).any() for b in bs) else np.where(np.isfinite(bound), bound, 0.0)


def softmax(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    """Relative: two exps, the rounding of x - anchor (any anchor within tau), n additions, a division; an input error
    d_i moves log p_i by at most d_i + log(sum p exp(d))."""
    axes = _axes(op)
    x, b = xs[0], bs[0]
    p = align(v, op.result.tensor.dims, op.operands[0].tensor.dims)
    logs, total = _log_p(x, axes)
    slack = _exp_slack(x, p, axes, dtype_of(op), own=True)
    if not exact(b):
        spread = np.log(np.sum(np.exp(logs + b), axis=axes, keepdims=True))
        slack = slack + b + np.where(total == 0, 0.0, spread)
    bound = np.exp(logs + slack)
    bound -= p
    bound = np.maximum(bound, 0.0) + FLUSH
    bound = np.where((total == 0) & (bound < np.inf), 0.0, bound)
    return m.moved(op, bound, op.operands[0].tensor.dims)


def _log_p(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """log softmax, -inf where masked, and the totals of the anchored exps."""
    n = m.exponentials(x, axes)
    logs = x - n.top
    logs -= np.where(n.total == 0, 0.0, np.log(n.total))
    return logs, n.total


def _exp_slack(x: Array, p: Array, axes: tuple[int, ...], dtype: DType, own: bool) -> Array:
    """Relative error of sum exp(x - anchor) and, with `own`, of one exp and the division besides."""
    u, n = unit(dtype), _count(x, axes)
    top = np.fmax.reduce(x, axis=axes, initial=-np.inf, keepdims=True)
    depth = np.where(p > 0, np.minimum(top - x, 200.0), 0.0)  # further down nothing is left in f32
    mean = np.sum(p * depth, axis=axes, keepdims=True)
    each = 2 * EXP_ULPS * u
    slack = each + gamma(n, dtype) + u * (mean + TAU)
    return np.asarray(slack + each + 4 * u + u * (depth + TAU) if own else slack)


def logsumexp(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    axes, dtype = _axes(op), dtype_of(op)
    logs, total = _log_p(xs[0], axes)
    slack = _exp_slack(xs[0], np.exp(logs), axes, dtype, own=False)
    if not exact(bs[0]):
        slack = slack + np.where(total == 0, 0.0, np.log(np.sum(np.exp(logs + bs[0]), axis=axes, keepdims=True)))
        slack = np.where((total == 0) & (np.max(bs[0], initial=0.0) == np.inf), np.inf, slack)
    log_total = np.where(total == 0, 0.0, np.abs(np.log(total))) + TAU
    slack = (slack + 2 * LOG_ULPS * half_ulp(log_total, dtype)).squeeze(axes)
    slack = align(slack, _rest(op), op.result.tensor.dims)
    return rounded(np.abs(finite(v)) + TAU, slack, dtype, 1.0)


def mean(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    bound = _mean_bound(xs[0], bs[0], _axes(op), dtype_of(op)).squeeze(_axes(op))
    return rounded(v, align(bound, _rest(op), op.result.tensor.dims), dtype_of(op), DIV_ULPS)


def _mean_bound(x: Array, b: Array, axes: tuple[int, ...], dtype: DType) -> Array:
    n = _count(x, axes)
    carried = EXACT if exact(b) else np.sum(np.broadcast_to(b, x.shape), axis=axes, keepdims=True)
    return (carried + gamma(n, dtype) * finite(np.sum(np.abs(x) + b, axis=axes, keepdims=True))) / max(1, n)


def var(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    """mean((x - c)^2) about a computed mean c, in one sweep (Chan's formula) or two: c's own error enters squared only,
    because the deviations from the true mean add up to 0."""
    axes, dtype, x, b = _axes(op), dtype_of(op), xs[0], bs[0]
    n = max(1, _count(x, axes))
    centre = m.mean(x, axes)
    off = rounded(centre, _mean_bound(x, b, axes, dtype), dtype, DIV_ULPS)
    d = np.abs(x - centre)
    each = b + half_ulp(d + off, dtype)
    bound = np.sum(2 * d * each + np.square(each + off), axis=axes, keepdims=True) / n
    bound = (bound + 2 * gamma(n + 16, dtype) * (m.mean(np.square(d), axes) + np.square(off))).squeeze(axes)
    bound = bound + np.where(bound > 0, UNDERFLOW[dtype], 0.0)
    return rounded(v, align(finite(bound) if exact(b) else bound, _rest(op), op.result.tensor.dims), dtype, DIV_ULPS)
