"""The NumPy meaning of level T ops: arrays whose axes follow the dims of the value's type, in; one such array, out.

A meaning computes in float64 (or natively in f32 where that is the correctly rounded result); whoever evaluates rounds
to the declared dtype or, for the reference, does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rvgpu.errors import RvgpuError
from rvgpu.ir.core import Attr, Op
from rvgpu.ir.dims import Dim
from rvgpu.ir.numeric import Array, erfc, is_float, round_to, widen
from rvgpu.ir.shapes import dim_attr, dims_attr


@dataclass(frozen=True)
class Env:
    """What a meaning may ask besides its operands: bound dims, and which part of a streamed dim is at hand."""

    dims: Mapping[str, int]
    exact: bool = False  # float64 throughout, no rounding to declared dtypes
    window: Mapping[Dim, tuple[int, int]] = field(default_factory=dict)  # streamed dim -> [start, stop) of this block

    def size(self, d: Dim) -> int:
        """The full extent; a form may be negative."""
        return d.value(self.dims)

    def span(self, d: Dim) -> tuple[int, int]:
        """The positions of `d` at hand."""
        return self.window.get(d) or (0, max(0, self.size(d)))

    def shape(self, dims: Sequence[Dim]) -> tuple[int, ...]:
        return tuple(b - a for a, b in map(self.span, dims))


Meaning = Callable[[Env, Op, list[Array]], Array]


def align(x: Array, dims: Sequence[Dim], out: Sequence[Dim]) -> Array:
    """x with its axes in the order of `out`, and an axis of 1 for each dim that it lacks."""
    order = [dims.index(d) for d in out if d in dims]
    x = x.transpose(order) if order != list(range(len(order))) else x
    return x if len(out) == len(dims) else x[tuple(slice(None) if d in dims else np.newaxis for d in out)]


def operands(op: Op, xs: Sequence[Array]) -> list[Array]:
    """Operands aligned to the result's dims."""
    out = op.result.tensor.dims
    return [align(x, v.tensor.dims, out) for x, v in zip(xs, op.operands, strict=True)]


def pointwise(fn: Callable[..., Any], native: bool = False) -> Meaning:
    """An element function on aligned operands. `native`: correctly rounded when computed in f32 itself."""
    def meaning(env: Env, op: Op, xs: list[Array]) -> Array:
        to = np.float32 if native and not env.exact else np.float64
        with np.errstate(all="ignore"):
            return full(env, op, fn(*(widen(x, to) for x in operands(op, xs))))
    return meaning


def full(env: Env, op: Op, x: Any) -> Array:
    """x broadcast to the result's shape."""
    shape = env.shape(op.result.tensor.dims)
    return x if isinstance(x, np.ndarray) and x.shape == shape else np.broadcast_to(np.asarray(x), shape)


# -- element functions that are more than a NumPy name

def divide(x: Array, y: Array) -> Array:
    """Floats divide; integers round towards minus infinity, x // 0 = -1 as on RISC-V."""
    if is_float(x):
        return np.asarray(np.divide(x, y))
    return np.where(y == 0, -1, np.floor_divide(x, np.where(y == 0, 1, y))).astype(x.dtype)


def modulo(x: Array, y: Array) -> Array:
    """Sign of the divisor, as Python's %; integer x % 0 = x."""
    return np.mod(x, y) if is_float(x) else np.where(y == 0, x, np.mod(x, np.where(y == 0, 1, y))).astype(x.dtype)


def power(x: Array, y: Array) -> Array:
    if is_float(x):
        return np.power(x, y)
    return np.power(x, np.maximum(y, 0))  # the language allows integer literals >= 0 here


def rsqrt(x: Array) -> Array:
    return 1.0 / np.sqrt(x)


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def silu(x: Array) -> Array:
    return np.where(x == -np.inf, -0.0, x * sigmoid(x))


def gelu(env: Env, op: Op, xs: list[Array]) -> Array:
    """x/2 (1 + erf(x / sqrt 2)), or with `tanh` x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), without cancellation."""
    x = widen(xs[0])
    with np.errstate(all="ignore"):
        if op.attrs.get("tanh"):
            y = x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        else:
            y = 0.5 * x * erfc(-x * math.sqrt(0.5))
        return full(env, op, align(np.where(x == -np.inf, -0.0, y), op.operands[0].tensor.dims, op.result.tensor.dims))


def clamp(x: Array, low: Array, high: Array) -> Array:
    return np.fmin(np.fmax(x, low), high)


# -- leaves

def const(env: Env, op: Op, xs: list[Array]) -> Array:
    """The value as its dtype holds it, also in the reference: a literal's type is part of the program."""
    t = op.result.tensor
    value = op.attrs["value"]
    assert isinstance(value, (int, float))
    held = round_to(np.asarray(value, np.float64 if t.dtype.is_float else np.int64), t.dtype)
    return full(env, op, held.astype(np.float64) if env.exact and t.dtype.is_float else held)


def iota(env: Env, op: Op, xs: list[Array]) -> Array:
    start, stop = env.span(dim_attr(op.attrs, "dim"))
    return np.arange(start, stop, dtype=np.int32)


def size(env: Env, op: Op, xs: list[Array]) -> Array:
    return np.asarray(env.size(dim_attr(op.attrs, "dim")), np.int32)


# -- structure

def fits(op: Op, sizes: Mapping[str, int]) -> None:
    """What an op asks of the dims' values: E420 a slice or a pad that leaves its dim, E422 an argmax of nothing."""
    def at(x: Attr) -> int:
        assert isinstance(x, (int, Dim))
        return x.value(sizes) if isinstance(x, Dim) else x

    if op.name == "slice":
        old, start, stop = op.attrs["dim"], at(op.attrs["start"]), at(op.attrs["start"]) + at(op.attrs["new"])
        if start < 0 or stop > at(old):
            raise RvgpuError("E420", f"slice takes {start}..{stop} of {old} = {at(old)}", op.loc)
    elif op.name == "pad":
        old, new, before = op.attrs["dim"], op.attrs["new"], at(op.attrs["before"])
        if before < 0 or before + at(old) > at(new):
            raise RvgpuError("E420", f"pad puts {old} = {at(old)} after {before} into {new} = {at(new)}", op.loc)
    elif op.name == "reduce" and op.attrs["op"] == "argmax":
        (dim,) = dims_attr(op.attrs)
        if dim.value(sizes) == 0:
            raise RvgpuError("E422", f"argmax over {dim} = 0 has no result", op.loc)


def moved(op: Op, x: Array, dims: Sequence[Dim]) -> Array:
    return align(x, list(dims), op.result.tensor.dims)


def cast(env: Env, op: Op, xs: list[Array]) -> Array:
    t = op.result.tensor
    x = moved(op, xs[0], op.operands[0].tensor.dims)
    if env.exact and t.dtype.is_float:
        return widen(x).astype(np.float64)
    return round_to(x, t.dtype)


def rename(env: Env, op: Op, xs: list[Array]) -> Array:
    old, new = dim_attr(op.attrs, "from"), dim_attr(op.attrs, "to")
    dims = [new if d == old else d for d in op.operands[0].tensor.dims]
    return moved(op, xs[0], dims)


def offset(env: Env, op: Op, name: str) -> int:
    value = op.attrs[name]
    assert isinstance(value, (int, Dim))
    return env.size(value) if isinstance(value, Dim) else value


def cut(env: Env, op: Op, xs: list[Array]) -> Array:
    """slice"""
    old, new = dim_attr(op.attrs, "dim"), dim_attr(op.attrs, "new")
    dims = op.operands[0].tensor.dims
    axis = dims.index(old)
    fits(op, env.dims)
    start = offset(env, op, "start")
    a, b = env.span(new)
    index = tuple(slice(start + a, start + b) if n == axis else slice(None) for n in range(len(dims)))
    return moved(op, xs[0][index], [new if d == old else d for d in dims])


def pad(env: Env, op: Op, xs: list[Array]) -> Array:
    old, new = dim_attr(op.attrs, "dim"), dim_attr(op.attrs, "new")
    dims = op.operands[0].tensor.dims
    axis = dims.index(old)
    fits(op, env.dims)
    before, extent, inner = offset(env, op, "before"), env.size(new), xs[0].shape[axis]
    out = np.empty([extent if n == axis else e for n, e in enumerate(xs[0].shape)], xs[0].dtype)
    out[...] = xs[1]
    out[tuple(slice(before, before + inner) if n == axis else slice(None) for n in range(len(dims)))] = xs[0]
    a, b = env.span(new)
    out = out[tuple(slice(a, b) if n == axis else slice(None) for n in range(len(dims)))]
    return moved(op, out, [new if d == old else d for d in dims])


def concat(env: Env, op: Op, xs: list[Array]) -> Array:
    old, new = dim_attr(op.attrs, "dim"), dim_attr(op.attrs, "new")
    dims = op.operands[0].tensor.dims
    parts = [align(x, v.tensor.dims, dims) for x, v in zip(xs, op.operands, strict=True)]
    axis = dims.index(old)
    a, b = env.span(new)
    out = np.concatenate(parts, axis=axis)[tuple(slice(a, b) if n == axis else slice(None) for n in range(len(dims)))]
    return moved(op, out, [new if d == old else d for d in dims])


def take(env: Env, op: Op, xs: list[Array]) -> Array:
    """table[.., ids, ..] along `dim`; dims of both are aligned."""
    dim = dim_attr(op.attrs, "dim")
    table, ids = op.operands[0].tensor.dims, op.operands[1].tensor.dims
    extent = xs[0].shape[table.index(dim)]
    rows = widen(xs[1])
    bad = (rows < 0) | (rows >= extent)
    if bad.any():
        raise RvgpuError("E421", f"take: id {int(rows[bad].flat[0])} is outside {dim} = {extent}", op.loc)
    out = op.result.tensor.dims
    index: list[Array] = []
    for d in table:
        if d == dim:
            index.append(align(rows, ids, out))
        else:
            index.append(align(np.arange(xs[0].shape[table.index(d)]), [d], out))
    return full(env, op, xs[0][tuple(index)])


# -- reductions and contractions

IDENTITY = {"sum": 0.0, "max": -math.inf, "min": math.inf}


def identity(kind: str, dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "iu":
        low, high = (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        return {"sum": 0, "max": low, "min": high}[kind]
    return IDENTITY[kind]


def reduce_axes(kind: str, x: Array, axes: tuple[int, ...]) -> Array:
    """sum in x's dtype; max and min ignore NaN and give the identity for no elements."""
    ufunc: Any = {"sum": np.add, "max": np.fmax, "min": np.fmin}[kind]
    if kind == "sum":
        return np.asarray(np.sum(x, axis=axes, dtype=x.dtype))
    return np.asarray(ufunc.reduce(x, axis=axes, initial=identity(kind, x.dtype)))


def reduce(env: Env, op: Op, xs: list[Array]) -> Array:
    kind, dims, types = str(op.attrs["op"]), dims_attr(op.attrs), op.operands[0].tensor.dims
    axes = tuple(types.index(d) for d in dims)
    rest = [d for d in types if d not in dims]
    x = widen(xs[0])
    if kind == "argmax":
        fits(op, env.dims)
        x = np.where(np.isnan(x), -np.inf, x) if is_float(x) else x
        return moved(op, np.argmax(x, axis=axes[0]).astype(np.int32) + env.span(dims[0])[0], rest)
    with np.errstate(all="ignore"):
        return moved(op, reduce_axes(kind, x, axes), rest)


def contract(env: Env, op: Op, xs: list[Array]) -> Array:
    a, b = op.operands
    return multiply(xs[0], a.tensor.dims, xs[1], b.tensor.dims, op.result.tensor.dims)


def multiply(x: Array, xd: Sequence[Dim], y: Array, yd: Sequence[Dim], out: Sequence[Dim],
             single: bool = False) -> Array:
    """sum of x*y over the dims that `out` lacks (both have them): one batched matrix product. Floats in float64 (or
    f32 when `single`), integers wrap at 32 bits."""
    batch = [d for d in xd if d in yd and d in out]
    over = [d for d in xd if d in yd and d not in out]
    left, right = [d for d in xd if d not in yd], [d for d in yd if d not in xd]
    extents = {**dict(zip(xd, x.shape, strict=True)), **dict(zip(yd, y.shape, strict=True))}

    def shaped(a: Array, dims: Sequence[Dim], order: Sequence[Sequence[Dim]]) -> Array:
        flat = align(a, list(dims), [d for g in order for d in g])
        return flat.reshape([math.prod(extents[d] for d in g) for g in order])

    floats = is_float(x)
    small = x.dtype.itemsize <= 2 and math.prod(extents[d] for d in over) < 1 << 20  # exact in float64
    work: Any = np.float32 if single else np.float64 if floats or small else np.int64
    a = shaped(x, xd, (batch, left, over)).astype(work, copy=False)
    b = shaped(y, yd, (batch, over, right)).astype(work, copy=False)
    with np.errstate(all="ignore"):
        r = np.einsum("bik,bki->bi", a, b)[:, :, None] if a.shape[1] == 1 == b.shape[2] else np.matmul(a, b)
    r = r if floats else r.astype(np.int64).astype(np.int32)
    dims = [*batch, *left, *right]
    return align(r.reshape([extents[d] for d in dims]), dims, out)


# -- macros over dims, in float64

@dataclass
class Normalised:
    """exp(x - max) and what it takes: the parts of softmax and logsumexp, axes kept."""

    top: Array  # the maximum, 0 where everything is masked
    e: Array
    total: Array


def exponentials(x: Array, axes: tuple[int, ...]) -> Normalised:
    top = np.fmax.reduce(x, axis=axes, initial=-np.inf, keepdims=True)
    top = np.where(top == -np.inf, 0.0, top)
    with np.errstate(all="ignore"):
        e = x - top
        np.exp(e, out=e)
    return Normalised(top, e, np.sum(e, axis=axes, keepdims=True))


def macro_axes(op: Op) -> tuple[int, ...]:
    dims = op.operands[0].tensor.dims
    return tuple(dims.index(d) for d in dims_attr(op.attrs))


def softmax(env: Env, op: Op, xs: list[Array]) -> Array:
    """A fully masked row gives 0."""
    n = exponentials(widen(xs[0]).astype(np.float64), macro_axes(op))
    with np.errstate(all="ignore"):
        return moved(op, n.e / np.where(n.total == 0, 1.0, n.total), op.operands[0].tensor.dims)


def over(fn: Callable[[Array, tuple[int, ...]], Array]) -> Meaning:
    """A macro that reduces over `dims`; fn keeps the axes."""
    def meaning(env: Env, op: Op, xs: list[Array]) -> Array:
        axes = macro_axes(op)
        with np.errstate(all="ignore"):
            out = fn(widen(xs[0]).astype(np.float64, copy=False), axes).squeeze(axes)
        dims = dims_attr(op.attrs)
        return moved(op, out, [d for d in op.operands[0].tensor.dims if d not in dims])
    return meaning


def logsumexp(x: Array, axes: tuple[int, ...]) -> Array:
    n = exponentials(x, axes)
    return n.top + np.log(n.total)


def mean(x: Array, axes: tuple[int, ...]) -> Array:
    count = math.prod(x.shape[a] for a in axes)
    return np.asarray(np.sum(x, axis=axes, keepdims=True) / np.float64(count))


def var(x: Array, axes: tuple[int, ...]) -> Array:
    """Population variance: mean((x - mean(x))^2)."""
    return mean(np.square(x - mean(x, axes)), axes)
