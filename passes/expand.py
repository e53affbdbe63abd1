"""P2: macros become primitive operations, in their stable forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from rvgpu.ir.core import Block, Builder, Func, Op, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.numeric import integer_range
from rvgpu.ir.shapes import dims_attr
from rvgpu.ir.types import DType, TensorType
from rvgpu.passes.context import Context

FP8 = frozenset({DType.e4m3, DType.e5m2})


@dataclass(frozen=True)
class Expand:
    name = "expand"
    level = "tensor"

    def run(self, func: Func, context: Context) -> list[Func]:
        return [expanded(func)]


def expanded(func: Func) -> Func:
    """The same function in primitive operations; func is left as it is."""
    block = Block()
    e = _Expander(Builder(block))
    for op in func.body.ops:
        e.op(op)
    results = [e.map.get(r, r) for r in func.results]
    return Func(func.name, func.params, block, results, func.result_types, func.loc, func.result_names)


def _name(op: Op) -> str:
    return "argmax" if op.attrs.get("op") == "argmax" else op.name


def is_macro(op: Op) -> bool:
    return hasattr(_Expander, "x_" + _name(op)) and not (op.name == "mod" and not op.result.tensor.dtype.is_float)


class _Expander:
    def __init__(self, b: Builder) -> None:
        self.b = b
        self.map: dict[Value, Value] = {}

    def op(self, op: Op) -> None:
        self.b.loc = op.loc
        xs = [self.map.get(x, x) for x in op.operands]
        fn: Callable[..., Value] | None = getattr(self, "x_" + _name(op), None)
        if fn is not None:
            self.map[op.result] = fn(op, *xs)
            return
        if op.name in ("max", "min", "reduce") and op.result.tensor.dtype in FP8:  # exact in f32
            wide = [self.b.one("cast", [x], TensorType(x.tensor.dims, DType.f32), dtype=DType.f32) for x in xs]
            y = self.b.one(op.name, wide, TensorType(op.result.tensor.dims, DType.f32), **op.attrs)
            self.map[op.result] = self.b.one("cast", [y], op.result.type, dtype=op.result.tensor.dtype)
            return
        out = self.b.op(op.name, xs, [r.type for r in op.results], op.regions, **op.attrs)
        self.map.update(zip(op.results, out, strict=True))

    # -- helpers
    def const(self, value: float, dtype: DType) -> Value:
        return self.b.op("const", [], [TensorType((), dtype)], value=value)[0]

    def un(self, name: str, x: Value, **attrs: int) -> Value:
        return self.b.op(name, [x], [x.type], **attrs)[0]

    def two(self, name: str, x: Value, y: Value, dtype: DType | None = None) -> Value:
        big, small = (x, y) if len(x.tensor.dims) >= len(y.tensor.dims) else (y, x)
        dims = (*(d for d in small.tensor.dims if d not in big.tensor.dims), *big.tensor.dims)
        return self.b.op(name, [x, y], [TensorType(dims, dtype or x.tensor.dtype)])[0]

    def reduce(self, kind: str, x: Value, dims: tuple[Dim, ...]) -> Value:
        rest = tuple(d for d in x.tensor.dims if d not in dims)
        return self.b.op("reduce", [x], [TensorType(rest, x.tensor.dtype)], op=kind, dims=dims, order="any")[0]

    def above_bottom(self, m: Value) -> Value:
        """m, or 0 where it is -inf (a fully masked row): the anchor of an exponential."""
        t = m.tensor
        ok = self.two("gt", m, self.const(-math.inf, t.dtype), DType.i1)
        return self.b.op("select", [ok, m, self.const(0.0, t.dtype)], [t])[0]

    def exponentials(self, x: Value, dims: tuple[Dim, ...]) -> tuple[Value, Value, Value]:
        m = self.above_bottom(self.reduce("max", x, dims))
        e = self.un("exp", self.two("sub", x, m))
        return m, e, self.reduce("sum", e, dims)

    # -- macros
    def x_softmax(self, op: Op, x: Value) -> Value:
        dims = op.attrs["dims"]
        _, e, total = self.exponentials(x, dims)  # type: ignore[arg-type]
        t = total.tensor
        zero = self.const(0.0, t.dtype)
        inverse = self.two("div", self.const(1.0, t.dtype), total)
        empty = self.two("eq", total, zero, DType.i1)
        inverse = self.b.op("select", [empty, zero, inverse], [t])[0]
        return self.two("mul", e, inverse)

    def x_logsumexp(self, op: Op, x: Value) -> Value:
        m, _, total = self.exponentials(x, op.attrs["dims"])  # type: ignore[arg-type]
        return self.two("add", m, self.un("log", total))

    def x_argmax(self, op: Op, x: Value) -> Value:
        """The lowest position at which x equals its maximum; 0 where nothing does (a row of -inf and NaN)."""
        (d,) = dims_attr(op.attrs)
        t = x.tensor.dtype
        if t.bits < 32:  # exact, and f32 is what an anchor can be
            x = self.b.op("cast", [x], [TensorType(x.tensor.dims, DType.f32)], dtype=DType.f32)[0]
        top = self.reduce("max", x, (d,))
        none = self.const(integer_range(DType.i32)[1], DType.i32)
        at = self.b.op("iota", [], [TensorType((d,), DType.i32)], dim=d)[0]
        same = self.two("eq", x, top, DType.i1)
        first = self.reduce("min", self.b.op("select", [same, at, none], [TensorType(same.tensor.dims, DType.i32)])[0], (d,))
        found = self.two("lt", first, none, DType.i1)
        return self.b.op("select", [found, first, self.const(0, DType.i32)], [first.type])[0]

    def x_mean(self, op: Op, x: Value) -> Value:
        dims = op.attrs["dims"]
        assert isinstance(dims, tuple)
        total = self.reduce("sum", x, dims)  # type: ignore[arg-type]
        count: Value | None = None
        for d in dims:
            n = self.b.op("size", [], [TensorType((), DType.i32)], dim=d)[0]
            n = self.b.op("cast", [n], [TensorType((), x.tensor.dtype)], dtype=x.tensor.dtype)[0]
            count = n if count is None else self.two("mul", count, n)
        assert count is not None
        return self.two("div", total, count)

    def x_var(self, op: Op, x: Value) -> Value:
        centred = self.two("sub", x, self.x_mean(op, x))
        return self.x_mean(op, self.two("mul", centred, centred))

    def x_sigmoid(self, op: Op, x: Value) -> Value:
        one = self.const(1.0, x.tensor.dtype)
        return self.two("div", one, self.two("add", one, self.un("exp", self.un("neg", x))))

    def x_silu(self, op: Op, x: Value) -> Value:
        one = self.const(1.0, x.tensor.dtype)
        return self.two("div", x, self.two("add", one, self.un("exp", self.un("neg", x))))

    def x_relu(self, op: Op, x: Value) -> Value:
        return self.two("max", x, self.const(0.0 if x.tensor.dtype.is_float else 0, x.tensor.dtype))

    def x_clamp(self, op: Op, x: Value, low: Value, high: Value) -> Value:
        return self.two("min", self.two("max", x, low), high)

    def x_mod(self, op: Op, x: Value, y: Value) -> Value:
        """x - floor(x / y) y on floats; integers have an operation of their own."""
        if not x.tensor.dtype.is_float:
            return self.two("mod", x, y)
        return self.two("sub", x, self.two("mul", self.un("floor", self.two("div", x, y)), y))

    def x_gelu(self, op: Op, x: Value) -> Value:
        """x/2 (1 + erf(x / sqrt 2)), or with `tanh` x/2 (1 + tanh t) = x / (1 + exp(-2 t)), t = sqrt(2/pi) (x + 0.044715 x^3). Beyond 64 the
        exponential may be 0 or infinite: beside 1 it is nothing, and x / inf is the right 0."""
        t = x.tensor.dtype
        one = self.const(1.0, t)
        if op.attrs.get("tanh"):
            a = -2 * math.sqrt(2 / math.pi)
            slope = self.two("add", self.two("mul", self.two("mul", x, x), self.const(0.044715 * a, t)), self.const(a, t))
            e = self.b.op("exp", [self.two("mul", x, slope)], [x.type], anchored=True)[0]
            return self.two("div", x, self.two("add", one, e))
        inner = self.un("erf", self.two("mul", x, self.const(math.sqrt(0.5), t)))
        return self.two("mul", self.two("mul", x, self.const(0.5, t)), self.two("add", inner, one))
