"""Level T in float64 with error bounds: the oracle of `--check`.

Every op's value is computed without intermediate rounding; beside it runs a bound on what a correct kernel may differ: half an ulp at each
rounding cast, gamma_n times the sum of absolute values for sums of n terms, the first derivative times the input's bound for functions plus
their own error, u = 2^-24 per f32 operation. (value, bound) -> bound, as docs/ir.md lists the ops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rvgpu.ir.core import Func, Op, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import DType

Array = np.ndarray[Any, np.dtype[Any]]
U = 2.0**-24
UNIT = {DType.f32: U, DType.f16: 2.0**-11, DType.bf16: 2.0**-8, DType.f64: 2.0**-53, DType.e4m3: 2.0**-4, DType.e5m2: 2.0**-3}
TINY = {DType.f32: 2.0**-150, DType.f16: 2.0**-25, DType.bf16: 2.0**-134, DType.f64: 0.0, DType.e4m3: 2.0**-10, DType.e5m2: 2.0**-17}
FUNCTION_ULP = 4.0  # of exp, log, tanh, erf, ... as codegen_rvgpu/llvm_math.py states them
ANCHOR_FLUSH = 2.0**-92  # an anchored exp is 0 below -64


@dataclass
class Known:
    """A value with named axes and its error bound; `dims` name the axes of both."""

    value: Array
    bound: Array
    dims: tuple[Dim, ...]


def reference(func: Func, inputs: Mapping[str, Array], scalars: Mapping[str, float | int], binding: Mapping[str, int]) -> list[tuple[Array, Array]]:
    """(value, bound) of every result, axes in the declared order; inputs are the arrays that the kernel gets."""
    with np.errstate(all="ignore"):
        r = _Reference(func, binding)
        for p in func.params:
            raw = np.asarray(scalars[p.name] if p.keyword else inputs[p.name]).astype(np.float64)
            r.known[p.value] = Known(raw, np.zeros(()), p.value.tensor.dims)
        for op in func.body.ops:
            r.run(op)
        out = []
        for v, t in zip(func.results, func.result_types, strict=True):
            k = r.known[v]
            out.append((np.ascontiguousarray(r.align(k.value, k.dims, t.dims, True)), np.ascontiguousarray(r.align(k.bound, k.dims, t.dims, True))))
        return out


@dataclass(frozen=True)
class Check:
    """Result against reference: bound_fraction = max |got - reference| / bound; max_rel_error is |error| / max |reference|."""

    passed: bool
    max_abs_error: float
    max_rel_error: float
    bound_fraction: float


def compare(got: Array, want: Array, bound: Array) -> Check:
    g = got.astype(np.float64)
    with np.errstate(all="ignore"):
        finite = np.isfinite(want)
        same_special = bool(np.array_equal(np.isnan(g), np.isnan(want)) and np.array_equal(g[np.isinf(want)], want[np.isinf(want)]))
        error = np.abs(g - want)[finite]
        limit = np.broadcast_to(bound, want.shape)[finite]
        fraction = np.where(error == 0, 0, error / limit)
        worst = float(np.max(fraction, initial=0.0))
        if not same_special or np.isnan(worst):
            worst = math.inf
        most = float(np.max(error, initial=0.0)) if same_special else math.inf
        scale = float(np.max(np.abs(want[finite]), initial=0.0))
    return Check(worst <= 1, most, most / scale if scale else most, worst)


class _Reference:
    def __init__(self, func: Func, binding: Mapping[str, int]) -> None:
        self.func, self.binding = func, binding
        self.known: dict[Value, Known] = {}

    def extent(self, d: Dim) -> int:
        return d.value(self.binding)

    def align(self, x: Array, dims: tuple[Dim, ...], out: tuple[Dim, ...], full: bool = False) -> Array:
        """x with axes in the order of `out`, size 1 where it lacks a dim."""
        if x.ndim:
            x = np.transpose(x, [dims.index(d) for d in out if d in dims])
            x = x.reshape([self.extent(d) if d in dims else 1 for d in out])
        return np.broadcast_to(x, [self.extent(d) for d in out]) if full else x

    def bound_of(self, k: Known, out: tuple[Dim, ...]) -> Array:
        return self.align(k.bound, k.dims, out) if k.bound.ndim else k.bound

    def run(self, op: Op) -> None:
        handler = getattr(self, "op_" + op.name, None)
        ks = [self.known[x] for x in op.operands]
        out = op.result.tensor.dims
        if handler is not None:
            self.known[op.result] = handler(op, ks, out)
            return
        xs = [self.align(k.value, k.dims, out) for k in ks]
        bs = [self.bound_of(k, out) for k in ks]
        value, bound = elementwise(op, xs, bs)
        self.known[op.result] = Known(value, np.asarray(bound), out)

    def op_const(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        return Known(np.float64(op.attrs["value"]) + np.zeros(()), np.zeros(()), ())  # type: ignore[arg-type]

    def op_iota(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        return Known(np.arange(self.extent(out[0]), dtype=np.float64), np.zeros(()), out)

    def op_size(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        d = op.attrs["dim"]
        assert isinstance(d, Dim)
        return Known(np.asarray(float(self.extent(d))), np.zeros(()), ())

    def op_rename(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        return Known(ks[0].value, ks[0].bound, out)

    def op_slice(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        k = ks[0]
        old, start, new = op.attrs["dim"], op.attrs["start"], op.attrs["new"]
        assert isinstance(old, Dim) and isinstance(new, Dim)
        at = self.extent(start) if isinstance(start, Dim) else int(start)  # type: ignore[arg-type]
        cut = tuple(slice(at, at + self.extent(new)) if d == old else slice(None) for d in k.dims)
        return Known(k.value[cut], k.bound[cut] if k.bound.ndim else k.bound, out)

    def op_concat(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        new, d = op.attrs["new"], op.attrs["dim"]
        assert isinstance(new, Dim) and isinstance(d, Dim)
        part = tuple(d if e == new else e for e in out)
        axis = out.index(new)
        vs = [self.align(k.value, k.dims, part, True) for k in ks]
        bs = [self.align(k.bound, k.dims, part, True) if k.bound.ndim else np.broadcast_to(k.bound, v.shape) for k, v in zip(ks, vs, strict=True)]
        return Known(np.concatenate(vs, axis), np.concatenate(bs, axis), out)

    def op_contract(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        (c,) = op.attrs["dims"]  # type: ignore[misc,str-unpack]
        x, y = ks
        n = self.extent(c)  # type: ignore[arg-type]
        value = self.matmul(x.value, x.dims, y.value, y.dims, c, out)  # type: ignore[arg-type]
        size = self.matmul(np.abs(x.value), x.dims, np.abs(y.value), y.dims, c, out)  # type: ignore[arg-type]
        exact = not op.result.tensor.dtype.is_float
        bound = np.zeros(()) if exact else (n + 2) * U / (1 - (n + 2) * U) * size + n * 2.0**-149
        if x.bound.any():
            bound = bound + self.matmul(np.broadcast_to(x.bound, x.value.shape), x.dims, np.abs(y.value), y.dims, c, out)  # type: ignore[arg-type]
        if y.bound.any():
            bound = bound + self.matmul(np.abs(x.value), x.dims, np.broadcast_to(y.bound, y.value.shape), y.dims, c, out)  # type: ignore[arg-type]
        return Known(value, bound, out)

    def matmul(self, x: Array, xd: tuple[Dim, ...], y: Array, yd: tuple[Dim, ...], c: Dim, out: tuple[Dim, ...]) -> Array:
        """Contraction over c through batched matrix products."""
        batch = [d for d in out if d in xd and d in yd]
        left, right = [d for d in out if d in xd and d not in yd], [d for d in out if d in yd and d not in xd]

        def size(ds: list[Dim]) -> int:
            return math.prod(self.extent(d) for d in ds)

        a = np.transpose(x, [xd.index(d) for d in [*batch, *left, c]]).reshape(size(batch), size(left), self.extent(c))
        b = np.transpose(y, [yd.index(d) for d in [*batch, c, *right]]).reshape(size(batch), self.extent(c), size(right))
        made = (a @ b).reshape([self.extent(d) for d in [*batch, *left, *right]])
        order = [*batch, *left, *right]
        return np.transpose(made, [order.index(d) for d in out])

    def op_reduce(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        k = ks[0]
        dims = op.attrs["dims"]
        assert isinstance(dims, tuple)
        axes = tuple(k.dims.index(d) for d in dims)  # type: ignore[arg-type]
        n = math.prod([self.extent(d) for d in dims])  # type: ignore[arg-type,misc]
        b = np.broadcast_to(k.bound, k.value.shape)
        if op.attrs["op"] == "sum":
            exact = not op.result.tensor.dtype.is_float
            own = 0.0 if exact else n * U / (1 - n * U) * np.abs(k.value).sum(axes)
            return Known(k.value.sum(axes), b.sum(axes) + own, out)
        fn = np.fmax if op.attrs["op"] == "max" else np.fmin
        start = -np.inf if op.attrs["op"] == "max" else np.inf
        return Known(fn.reduce(k.value, axes, initial=start), b.max(axes, initial=0.0), out)

    def op_mean(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        k = ks[0]
        axes = tuple(k.dims.index(d) for d in op.attrs["dims"])  # type: ignore[union-attr,arg-type]
        n = math.prod(k.value.shape[a] for a in axes)
        own = (n + 2) * U * np.abs(k.value).mean(axes)
        return Known(k.value.mean(axes), np.broadcast_to(k.bound, k.value.shape).mean(axes) + own, out)

    def op_var(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        k = ks[0]
        axes = tuple(k.dims.index(d) for d in op.attrs["dims"])  # type: ignore[union-attr,arg-type]
        n = math.prod(k.value.shape[a] for a in axes)
        centred = k.value - k.value.mean(axes, keepdims=True)
        spread = np.abs(centred)
        err = np.broadcast_to(k.bound, k.value.shape) + 2 * U * spread + (n + 2) * U * np.abs(k.value).mean(axes, keepdims=True)
        return Known((centred**2).mean(axes), (2 * spread * err + err**2).mean(axes) + (n + 2) * U * (centred**2).mean(axes), out)

    def exponentials(self, k: Known, axes: tuple[int, ...]) -> tuple[Array, Array, Array, Array, Array]:
        """(e, its bound, sum, its bound, max) of exp(x - max), for any anchor within 8 of the maximum."""
        m = np.fmax.reduce(k.value, axes, keepdims=True, initial=-np.inf)
        m = np.where(np.isfinite(m), m, np.where(m == -np.inf, 0.0, m))
        n = math.prod(k.value.shape[a] for a in axes)
        e = np.exp(k.value - m)
        argument = np.where(np.isfinite(k.value), np.abs(k.value - m) + 8, 0.0) * U
        b = np.broadcast_to(k.bound, k.value.shape)
        rel = argument + np.where(np.isfinite(k.value), b, 0.0) + 2 * FUNCTION_ULP * U
        eb = e * rel + np.where(np.isfinite(k.value), ANCHOR_FLUSH, 0.0)
        total = e.sum(axes, keepdims=True)
        tb = eb.sum(axes, keepdims=True) + (n + 8) * U * total
        return e, eb, total, tb, m

    def op_softmax(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        k = ks[0]
        axes = tuple(k.dims.index(d) for d in op.attrs["dims"])  # type: ignore[union-attr,arg-type]
        e, eb, total, tb, _ = self.exponentials(k, axes)
        safe = np.where(total == 0, 1.0, total)
        p = e / safe
        return Known(p, eb / safe + p * (tb / safe + 4 * U), out)

    def op_logsumexp(self, op: Op, ks: list[Known], out: tuple[Dim, ...]) -> Known:
        k = ks[0]
        axes = tuple(k.dims.index(d) for d in op.attrs["dims"])  # type: ignore[union-attr,arg-type]
        _, _, total, tb, m = self.exponentials(k, axes)
        value = (m + np.log(total)).reshape([self.extent(d) for d in out])
        safe = np.where(total == 0, 1, total)
        own = (tb / safe + 4 * U * np.abs(np.log(safe))).reshape(value.shape)
        return Known(value, own + 2 * U * np.abs(np.where(np.isfinite(value), value, 0)), out)


def _erf(x: Array) -> Array:
    """erf to double precision by math.erf; large arrays through a rational approximation would not be an oracle."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x)).astype(np.float64)


def elementwise(op: Op, xs: list[Array], bs: list[Array]) -> tuple[Array, Array]:
    """(value, bound) of an elementwise op."""
    name = op.name
    dtype = op.result.tensor.dtype
    if name == "cast":
        return _cast(op, xs[0], bs[0])
    if name in ("lt", "le", "gt", "ge", "eq", "ne"):
        fn = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal}[name]
        return fn(xs[0], xs[1]).astype(np.float64), np.zeros(())
    if name == "select":
        c = xs[0] != 0
        return np.where(c, xs[1], xs[2]), np.where(c, bs[1], bs[2])
    if name in ("and", "or", "not"):
        bits = [x != 0 for x in xs]
        return {"and": lambda: bits[0] & bits[1], "or": lambda: bits[0] | bits[1], "not": lambda: ~bits[0]}[name]().astype(np.float64), np.zeros(())
    u = UNIT.get(dtype, 0.0)
    value, bound, own = _arithmetic(name, xs, bs, op)
    finite = np.where(np.isfinite(value), np.abs(value), 0.0)
    return value, bound + own * u * (finite + bound)


def _cast(op: Op, x: Array, b: Array) -> tuple[Array, Array]:
    src, dst = op.operands[0].tensor.dtype, op.result.tensor.dtype
    if dst == DType.i1:
        return (x != 0).astype(np.float64), np.zeros(())
    if not dst.is_float:
        return np.trunc(x), np.where(b > 0, b + 1, 0.0)
    if src.is_float and UNIT[dst] <= UNIT[src]:
        return x, b
    size = np.where(np.isfinite(x), np.abs(x), 0.0)
    return x, b + UNIT[dst] * (size + b) + TINY[dst]


def _arithmetic(name: str, xs: list[Array], bs: list[Array], op: Op) -> tuple[Array, Array, float]:
    """(value, propagated bound, own error in units of roundoff)."""
    x = xs[0]
    b = bs[0]
    if len(xs) == 2:
        y, c = xs[1], bs[1]
        if name == "add":
            return x + y, b + c, 1
        if name == "sub":
            return x - y, b + c, 1
        if name == "mul":
            value = x * y
            return value, _f(np.abs(x) * c) + _f(np.abs(y) * b) + b * c, 1
        if name == "div":
            value = x / y if op.result.tensor.dtype.is_float else np.floor(x / y)
            low = np.maximum(np.abs(y) - c, np.abs(y) * 1e-3)
            return value, _f((b + np.abs(value) * c) / np.where(low == 0, np.inf, low)), 2
        if name == "mod":
            return np.mod(x, y), b + c, 1
        if name in ("max", "min"):
            return (np.fmax if name == "max" else np.fmin)(x, y), np.maximum(b, c), 0
    if name == "neg":
        return -x, b, 0
    if name in ("abs", "relu"):
        return (np.abs(x) if name == "abs" else np.fmax(x, 0)), b, 0
    if name in ("floor", "round"):
        return (np.floor(x) if name == "floor" else np.rint(x)), np.where(b > 0, b + 1, 0.0), 0
    s = 1 / (1 + np.exp(-x))
    table: dict[str, tuple[Any, Any, float]] = {
        "exp": (lambda: np.exp(x), lambda: np.exp(x) * np.expm1(b), FUNCTION_ULP * 2),
        "exp2": (lambda: np.exp2(x), lambda: np.exp2(x) * b, FUNCTION_ULP * 2),
        "log": (lambda: np.log(x), lambda: b / np.maximum(np.abs(x) - b, 1e-300), FUNCTION_ULP * 2),
        "log2": (lambda: np.log2(x), lambda: 1.5 * b / np.maximum(np.abs(x) - b, 1e-300), FUNCTION_ULP * 2),
        "sqrt": (lambda: np.sqrt(x), lambda: b / np.maximum(np.sqrt(x), 1e-300), 1),
        "rsqrt": (lambda: 1 / np.sqrt(x), lambda: 0.55 * b / np.maximum(np.abs(x) ** 1.5, 1e-300), 3),
        "tanh": (lambda: np.tanh(x), lambda: b, FUNCTION_ULP * 2), "erf": (lambda: _erf(x), lambda: 1.13 * b, FUNCTION_ULP * 2),
        "sigmoid": (lambda: s, lambda: 0.25 * b + s * U * 4, FUNCTION_ULP * 4), "silu": (lambda: x * s, lambda: 1.1 * b, FUNCTION_ULP * 4)}
    if name in table:
        value, bound, own = table[name]
        return value(), _f(bound()), own
    if name == "gelu":
        inner = _erf(x * math.sqrt(0.5)) if not op.attrs.get("tanh") else np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        # 1 + erf cancels for negative x: the error there is absolute, in units of x
        return 0.5 * x * (1 + inner), 1.13 * b + np.abs(x) * U * 8, 4
    raise AssertionError(f"no reference for {name}")


def _f(b: Array) -> Array:
    return np.where(np.isfinite(b), b, 0.0)
