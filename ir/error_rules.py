"""The error rule of each level T op: (values, bounds of the operands) -> bound of the result, in float64.

A bound is an absolute error per element that any kernel for the op may make: its operands' errors carried through,
plus the rounding of f32 arithmetic in any order of summation. The bound of an i1 is 1 where the comparison may go
either way. A 0-d zero bound means exact. inf means that nothing is promised (a zero that may be a divisor, an overflow
that may or may not happen). At a NaN or infinity a finite or NaN bound means that the result is certain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rvgpu.ir import meaning as m
from rvgpu.ir.core import Op, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.meaning import Env, align
from rvgpu.ir.numeric import (
    LARGEST,
    MIN_EXPONENT,
    PRECISION,
    Array,
    erf,
    gamma,
    half_ulp,
    is_float,
    round_to,
    unit,
    widen,
)
from rvgpu.ir.shapes import dims_attr
from rvgpu.ir.tensor_ops import OPS
from rvgpu.ir.types import DType

EXACT = np.zeros(())
TAU = 8.0  # an anchor may lag behind the maximum by this much
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


def _dtype(op: Op) -> DType:
    return op.result.tensor.dtype


def pointwise(rule: Local) -> Rule:
    """A rule on operands and bounds aligned to the result's dims; integers from exact operands are exact."""
    def apply(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
        if all(map(exact, bs)) and not _dtype(op).is_float and op.name != "cast":
            return EXACT
        out = op.result.tensor.dims
        dims = [o.tensor.dims for o in op.operands]
        xs = [align(widen(x).astype(np.float64, copy=False), d, out) for x, d in zip(xs, dims, strict=True)]
        bs = [align(b, d, out) if b.ndim else b for b, d in zip(bs, dims, strict=True)]
        return rule(op, xs, bs, v)
    return apply


# -- arithmetic

def unchanged(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    return bs[0]


def add(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    return rounded(v, bs[0] + bs[1], _dtype(op))


def mul(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    (x, y), (bx, by) = map(np.abs, xs), bs
    if exact(bx) and exact(by):
        return rounded(v, EXACT, _dtype(op))
    carried = x * by + y * bx + bx * by
    odd = ~np.isfinite(v)
    if odd.any():  # inf * (something that may be 0) is uncertain
        carried = np.where(odd, np.where(((y <= by) & (by > 0)) | ((x <= bx) & (bx > 0)), np.inf, 0.0), carried)
    return rounded(v, carried, _dtype(op))


def div(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    y, (bx, by) = np.abs(xs[1]), bs
    room = y - by
    carried = np.where((bx == 0) & (by == 0), 0.0, (bx + np.abs(v) * by) / room)
    carried = np.where((room <= 0) & (by > 0), np.inf, carried)
    return rounded(v, carried, _dtype(op), DIV_ULPS) if _dtype(op).is_float else carried + 1


def mod(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    """x - floor(x/y) y; where the quotient may cross an integer, anything in [0, |y|]."""
    (x, y), (bx, by) = xs, bs
    q = x / y
    slack = div(op, xs, bs, q)
    near = np.floor(q - slack) != np.floor(q + slack)
    carried: Array = bx + np.abs(np.floor(q)) * by + 4 * half_ulp(np.abs(x) + bx, _dtype(op))
    return np.where(near, np.abs(y) + by + carried, carried)


def power(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    """Repeated multiplication (and one division): (|x|+b)^n - |x|^n, or |x|^-n - (|x|-b)^-n the other way."""
    (x, n), bx = (np.abs(xs[0]), xs[1]), bs[0]
    grown = np.where(n >= 0, x + bx, np.where(x > bx, x - bx, 0.0))
    carried = np.where(bx == 0, 0.0, np.abs(np.power(grown, n) - np.power(x, n)))
    return np.asarray(carried + (np.abs(n) + 2) * half_ulp(np.abs(v) + carried, _dtype(op)))


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
    source, target = op.operands[0].tensor.dtype, _dtype(op)
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


# -- functions of one operand

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
            slack, flush = slack + TAU * unit(_dtype(op)), FLUSH
        carried = EXACT if exact(slack) else np.exp(xs[0] * scale + slack) - v
        return rounded(v, np.maximum(carried, 0.0), _dtype(op), EXP_ULPS) + flush
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
        return rounded(v, b, _dtype(op), LOG_ULPS)
    return rule


def in_domain(x: Array, b: Array, inside: Array, carried: Array) -> Array:
    """`carried` inside, nothing promised at the edge x = 0, certain (a NaN) beyond it."""
    return np.where(b == 0, 0.0, np.where(inside, carried, np.where(x < -b, 0.0, np.inf)))


def sqrt(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    x, b = xs[0], bs[0]
    if not exact(b):
        b = in_domain(x, b, x >= b, b / (v + np.sqrt(np.maximum(x - b, 0.0))))
    return rounded(v, b, _dtype(op))


def rsqrt(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    x, b = xs[0], bs[0]
    if not exact(b):
        b = in_domain(x, b, x > b, 1 / np.sqrt(np.maximum(x - b, 0.0)) - v)
    return rounded(v, b, _dtype(op), RSQRT_ULPS)


def smooth(slope: Callable[[Array], Array], bend: float, ulps: float) -> Local:
    """|f'| b + max|f''|/2 b^2, and the function's own ulps."""
    def rule(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
        b = bs[0]
        return rounded(v, EXACT if exact(b) else taylor(np.abs(slope(xs[0])), bend, b), _dtype(op), ulps)
    return rule


def taylor(slope: Array, bend: float, b: Array) -> Array:
    return np.asarray(slope * b) + np.where(b > 0, bend / 2 * b * b, 0.0)


def sigmoid(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    """1 / (1 + exp(-x))."""
    carried = EXACT if exact(bs[0]) else taylor(v * (1 - v), 0.1, bs[0])
    return carried + unit(_dtype(op)) * v * (2 * EXP_ULPS * (1 - v) + 5) + TINY


def silu(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    x, s = xs[0], m.sigmoid(xs[0])
    slope = np.abs(s + np.where(np.isinf(x), 0.0, x * s * (1 - s)))
    carried = EXACT if exact(bs[0]) else taylor(slope, 0.5, bs[0])
    return carried + unit(_dtype(op)) * np.abs(v) * (2 * EXP_ULPS * (1 - s) + 7) + TINY * np.maximum(1.0, np.abs(x))


def gelu(op: Op, xs: Sequence[Array], bs: Sequence[Array], v: Array) -> Array:
    """x/2 (1 + f(t)) with f in erf, tanh: 1 + f cancels for x < 0, so the error is a few u of |x|/2, not of the
    value."""
    x, u = xs[0], unit(_dtype(op))
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


# -- structure: bounds move as the values do

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


# -- sums

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
        return align(carried + gamma(_count(x, axes), _dtype(op)) * finite(size), _rest(op), op.result.tensor.dims)
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
    if all(map(exact, bs)) and not _dtype(op).is_float:
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
    g = gamma(n, _dtype(op))
    least = np.where(total > 0, n * UNDERFLOW[_dtype(op)], 0.0)
    if given:
        return g * finite(total) + least
    bound = total * (1 + g) + least - m.multiply(size[0], dims[0], size[1], dims[1], out)
    return bound if any(np.isinf(b).any() for b in bs) else np.where(np.isfinite(bound), bound, 0.0)


# -- macros over dims

def softmax(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    """Relative: two exps, the rounding of x - anchor (any anchor within tau), n additions, a division; an input error
    d_i moves log p_i by at most d_i + log(sum p exp(d))."""
    axes = _axes(op)
    x, b = xs[0], bs[0]
    p = align(v, op.result.tensor.dims, op.operands[0].tensor.dims)
    logs, total = _log_p(x, axes)
    slack = _exp_slack(x, p, axes, _dtype(op), own=True)
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
    axes, dtype = _axes(op), _dtype(op)
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
    bound = _mean_bound(xs[0], bs[0], _axes(op), _dtype(op)).squeeze(_axes(op))
    return rounded(v, align(bound, _rest(op), op.result.tensor.dims), _dtype(op), DIV_ULPS)


def _mean_bound(x: Array, b: Array, axes: tuple[int, ...], dtype: DType) -> Array:
    n = _count(x, axes)
    carried = EXACT if exact(b) else np.sum(np.broadcast_to(b, x.shape), axis=axes, keepdims=True)
    return (carried + gamma(n, dtype) * finite(np.sum(np.abs(x) + b, axis=axes, keepdims=True))) / max(1, n)


def var(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    """mean((x - c)^2) about a computed mean c, in one sweep (Chan's formula) or two: c's own error enters squared only,
    because the deviations from the true mean add up to 0."""
    axes, dtype, x, b = _axes(op), _dtype(op), xs[0], bs[0]
    n = max(1, _count(x, axes))
    centre = m.mean(x, axes)
    off = rounded(centre, _mean_bound(x, b, axes, dtype), dtype, DIV_ULPS)
    d = np.abs(x - centre)
    each = b + half_ulp(d + off, dtype)
    bound = np.sum(2 * d * each + np.square(each + off), axis=axes, keepdims=True) / n
    bound = (bound + 2 * gamma(n + 16, dtype) * (m.mean(np.square(d), axes) + np.square(off))).squeeze(axes)
    bound = bound + np.where(bound > 0, UNDERFLOW[dtype], 0.0)
    return rounded(v, align(finite(bound) if exact(b) else bound, _rest(op), op.result.tensor.dims), dtype, DIV_ULPS)


def _nothing(c: Context, op: Op, xs: list[Array], bs: list[Array], v: Array) -> Array:
    return EXACT


_LN2 = math.log(2)
RULES: dict[str, Rule] = {
    "const": _nothing, "iota": _nothing, "size": _nothing,
    "neg": pointwise(unchanged), "abs": pointwise(unchanged), "not": pointwise(unchanged),
    "exp": pointwise(exponential(1.0)), "exp2": pointwise(exponential(_LN2)),
    "log": pointwise(logarithm(1.0)), "log2": pointwise(logarithm(1 / _LN2)),
    "sqrt": pointwise(sqrt), "rsqrt": pointwise(rsqrt),
    "tanh": pointwise(smooth(lambda x: 1 - np.tanh(x) ** 2, 0.78, TANH_ULPS)),
    "erf": pointwise(smooth(lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x), 0.97, ERF_ULPS)),
    "floor": pointwise(monotone(np.floor)), "round": pointwise(monotone(np.rint)),
    "add": pointwise(add), "sub": pointwise(add), "mul": pointwise(mul), "div": pointwise(div), "mod": pointwise(mod),
    "pow": pointwise(power), "max": pointwise(maximum), "min": pointwise(maximum),
    "and": pointwise(logical), "or": pointwise(logical),
    **{name: pointwise(compare) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
    "select": pointwise(select), "cast": cast,
    "rename": moved, "slice": moved, "pad": moved, "concat": moved, "take": take,
    "reduce": reduce, "contract": contract,
    "softmax": softmax, "logsumexp": logsumexp, "mean": mean, "var": var,
    "sigmoid": pointwise(sigmoid), "silu": pointwise(silu), "gelu": pointwise(gelu), "relu": pointwise(relu),
    "clamp": pointwise(clamp),
}


def uncertain_edges(v: Array, b: Array) -> Array:
    """NaN bounds: certain at a NaN or infinity, no promise elsewhere; other bounds there count only when infinite."""
    odd = ~np.isfinite(v)
    if odd.any():
        return np.where(odd, np.where(b == np.inf, np.inf, 0.0), np.where(np.isnan(b), np.inf, b))
    return np.where(np.isnan(b), np.inf, b) if np.isnan(b).any() else b
