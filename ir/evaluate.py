"""The NumPy meaning of a level T function: `declared` (each op rounded to its dtype, `rv.interpret()`) or `float64`.

Tensors are arrays whose axes follow the dims of the value's type. A `stream` may be cut into any blocks and merged in
any tree, which is how the cascade pass is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Union

import numpy as np

from rvgpu.errors import RvgpuError
from rvgpu.ir import meaning as m
from rvgpu.ir.binding import bind
from rvgpu.ir.core import Block, Func, Op, Value
from rvgpu.ir.dims import parts_of
from rvgpu.ir.numeric import Array, limit, numpy_dtype, round_to, widen
from rvgpu.ir.shapes import dim_attr
from rvgpu.ir.slabs import by_slabs
from rvgpu.ir.tensor_ops import OPS
from rvgpu.ir.types import DType

Cut = Sequence[Union[int, "Cut"]]  # block sizes in order; an inner list is a part of its own that is merged in
Scalar = float | int | bool
Inputs = Sequence[Array] | Mapping[str, Array]


def evaluate(func: Func, inputs: Inputs, scalars: Mapping[str, Scalar] | None = None, *, mode: str = "declared",
             dims: Mapping[str, int] | None = None, cuts: Mapping[str, Cut] | Cut | None = None) -> list[Array]:
    """The results, axes in the order of `func.result_types`. `declared` returns memory dtypes, `float64` float64
    (integers as declared). `cuts`: block sizes of streamed dims (by name, or one cut for every stream) that add up to
    the extent."""
    assert mode in ("declared", "float64"), mode
    tensors = input_arrays(func, inputs)

    def run(arrays: list[Array], sizes: dict[str, int]) -> list[Array]:
        env = m.Env(sizes, mode == "float64")
        values = bind_params(func, arrays, scalars or {}, env.exact)
        Evaluator(env, cuts).block(func.body, values, keep=func.results)
        return [m.align(values[v], v.tensor.dims, t.dims) for v, t in zip(func.results, func.result_types, strict=True)]

    return by_slabs(func, tensors, bind_dims(func, tensors, dims), run)


def input_arrays(func: Func, inputs: Inputs) -> list[Array]:
    """One array per tensor parameter, in order."""
    params = [p for p in func.params if not p.keyword]
    if isinstance(inputs, Mapping):
        missing = [p for p in params if p.name not in inputs]
        if missing:
            raise RvgpuError("E410", f"{func.name} needs argument {missing[0].name}", missing[0].loc)
        return [np.asarray(inputs[p.name]) for p in params]
    if len(inputs) != len(params):
        raise RvgpuError("E410", f"{func.name} takes {len(params)} tensors, found {len(inputs)}", func.loc)
    return [np.asarray(x) for x in inputs]


def bind_dims(func: Func, arrays: Sequence[Array], given: Mapping[str, int] | None = None) -> dict[str, int]:
    names = [p.name for p in func.params if not p.keyword]
    return bind(func, {n: x.shape for n, x in zip(names, arrays, strict=True)}, given or {})


def bind_params(func: Func, tensors: Sequence[Array], scalars: Mapping[str, Scalar], exact: bool) -> dict[Value, Array]:
    """Parameters as their dtype holds them (also in the reference: inputs are what the kernel is given)."""
    values: dict[Value, Array] = {}
    arrays = iter(tensors)
    for p in func.params:
        dtype = p.value.tensor.dtype
        if p.keyword:
            given = scalars.get(p.name, p.default)
            if given is None:
                raise RvgpuError("E410", f"{func.name} needs argument {p.name}", p.loc)
            x = np.asarray(given)
        else:
            x = next(arrays)
        x = round_to(x, dtype)
        values[p.value] = x.astype(np.float64) if exact and dtype.is_float else x
    return values


def last_uses(block: Block, keep: Sequence[Value] = ()) -> dict[int, list[Value]]:
    """For each op position, the values made in this block that no later op (or `keep`) reads, regions included."""
    last = {r: n for n, op in enumerate(block.ops) for r in op.results}
    for n, op in enumerate(block.ops):
        for user in (op, *(o for region in op.regions for o in region.walk())):
            for v in user.operands:
                if v in last:
                    last[v] = n
    out: dict[int, list[Value]] = {}
    for v, n in last.items():
        if v not in keep:
            out.setdefault(n, []).append(v)
    return out


class Seen(dict[Value, Array]):
    """The values in a region: its own, and those around it as `look` shows them."""

    def __init__(self, own: Mapping[Value, Array], look: Callable[[Value], Array]) -> None:
        super().__init__(own)
        self.look = look

    def __missing__(self, v: Value) -> Array:
        self[v] = x = self.look(v)
        return x


class Evaluator:
    def __init__(self, env: m.Env, cuts: Mapping[str, Cut] | Cut | None = None) -> None:
        self.env = env
        self.cuts = cuts

    def block(self, block: Block, values: dict[Value, Array], keep: Sequence[Value] = ()) -> list[Array]:
        """Runs the ops; a region's yielded arrays. Arrays that nobody reads any more are dropped."""
        dead = last_uses(block, keep)
        for n, op in enumerate(block.ops):
            if op.name == "yield":
                return [values[v] for v in op.operands]
            if op.name == "stream":
                values.update(zip(op.results, self.stream(op, values), strict=True))
            else:
                values[op.result] = self.one(op, [values[v] for v in op.operands])
            for v in dead.get(n, ()):
                values.pop(v, None)
        return []

    def region(self, block: Block, args: Sequence[Array], look: Callable[[Value], Array]) -> list[Array]:
        return self.block(block, Seen(dict(zip(block.args, args, strict=True)), look), block.yielded)

    def one(self, op: Op, xs: list[Array]) -> Array:
        row = OPS.get(op.name)
        assert row is not None, f"no meaning for {op.name}"
        return self.settle(np.asarray(row.meaning(self.env, op, xs)), op.result.tensor.dtype)

    def settle(self, v: Array, dtype: DType) -> Array:
        """A result as its declared dtype holds it; in the reference only its range counts."""
        if not self.env.exact or not dtype.is_float:
            return round_to(v, dtype)
        return limit(v.astype(np.float64, copy=False), dtype)

    # -- stream (docs/ir.md)
    def stream(self, op: Op, values: dict[Value, Array]) -> list[Array]:
        s = StreamRun(self, op, values)
        extent = self.env.size(s.dim)
        if "part" in op.attrs:
            return s.parts(_int(op.attrs["part"]), extent)
        cut = self.cuts.get(str(s.dim)) if isinstance(self.cuts, Mapping) else self.cuts
        cut = [extent] if cut is None else cut
        assert _total(cut) == extent, f"the cut {cut} of {s.dim} does not add up to {extent}"
        states, _ = s.part(cut, 0)
        return s.finish(states)


def _total(cut: Cut) -> int:
    return sum(c if isinstance(c, int) else _total(c) for c in cut)


class StreamRun:
    """One `stream` among the values around it: atoms once, then states block by block, part by part."""

    def __init__(self, run: Evaluator, op: Op, values: dict[Value, Array]) -> None:
        self.run, self.op, self.around = run, op, values
        self.dim = dim_attr(op.attrs, "dim")
        self.kinds = [str(k) for k in _tuple(op.attrs["kinds"])]
        self.anchor_of = [[_int(a) for a in _tuple(t)] for t in _tuple(op.attrs["anchor_of"])]
        self.needs = [[_int(a) for a in _tuple(t)] for t in _tuple(op.attrs["anchor_needs"])]
        n = len(self.kinds)
        self.atom_values = op.regions[0].yielded
        captures = [values[v] for v in op.operands]
        self.inner = Seen(dict(zip(op.regions[0].args, captures, strict=True)), values.__getitem__)
        made = [r for o in op.regions[0].ops for r in o.results]
        self.atoms = run.block(op.regions[0], self.inner, made)
        self.bodies, self.anchor_region, self.rebase_region, self.finish_region = (
            op.regions[1:1 + n], op.regions[1 + n], op.regions[2 + n], op.regions[3 + n])
        self.types = [v.tensor for v in self.finish_region.args[:n]]
        self.empty = [self._identity(k) for k in range(n)]
        self.bottom = self.region(self.anchor_region, self.empty)

    def region(self, block: Block, args: Sequence[Array]) -> list[Array]:
        return self.run.region(block, args, self.around.__getitem__)

    def _identity(self, k: int) -> Array:
        t = self.types[k]
        dtype = np.dtype(np.float64) if self.run.env.exact and t.dtype.is_float else numpy_dtype(t.dtype)
        return np.full(self.run.env.shape(t.dims), m.identity(self.kinds[k], dtype), dtype)

    # -- anchors
    def anchor(self, a: int, states: Sequence[Array]) -> Array:
        return self.region(self.anchor_region, states)[a]

    def at_bottom(self, a: int, d: Array) -> Array:
        """NaN, -inf or an infinite bottom. (At a finite one the states are the identity, which any move leaves as it is.)"""
        return np.asarray(np.isnan(d) | (d == -np.inf) | ((d == self.bottom[a]) & ~np.isfinite(self.bottom[a])))

    def safe(self, a: int, d: Array) -> Array:
        """The anchor that bodies and finish see: 0 at the bottom."""
        return np.where(self.at_bottom(a, d), d.dtype.type(0), d)

    def rebase(self, a: int, states: list[Array], old: Array, new: Array) -> list[Array]:
        """The states that use anchor a, moved from anchor `old` to `new`."""
        deltas = []
        for j, v in enumerate(self.rebase_region.args[len(states):]):
            if j == a:
                with np.errstate(all="ignore"):
                    delta = np.where(self.at_bottom(a, old), old.dtype.type(0), self.safe(a, old) - self.safe(a, new))
                deltas.append(self.run.settle(delta, v.tensor.dtype))
            else:
                deltas.append(np.zeros_like(self.bottom[j]))
        moved = self.region(self.rebase_region, [*states, *deltas])
        return [moved[k] if a in self.anchor_of[k] else s for k, s in enumerate(states)]

    def ready(self, k: int) -> list[int]:
        """The anchors whose last needed state is k."""
        return [a for a, needs in enumerate(self.needs) if max(needs) == k]

    # -- blocks and parts
    def part(self, cut: Cut, start: int) -> tuple[list[Array], int]:
        """The state of the positions from `start` that `cut` covers, and where they end."""
        states = list(self.empty)
        for c in cut:
            if isinstance(c, int):
                states = self.update(states, start, start + c)
                start += c
            else:
                other, start = self.part(c, start)
                states = self.merge(states, other)
        return states, start

    def parts(self, size: int, extent: int) -> list[Array]:
        """The states of each part of `size` positions, parts first."""
        found = [self.part([min(size, extent - start)], start)[0] for start in range(0, extent, size)]
        stacked = [np.stack([states[k] for states in found]) if found else np.empty((0, *x.shape), x.dtype) for k, x in enumerate(self.empty)]
        name = self.dim.name
        assert name is not None
        return [m.align(x, (parts_of(name, size), *t.dims), r.tensor.dims) for x, t, r in zip(stacked, self.types, self.op.results, strict=True)]

    def update(self, states: list[Array], start: int, stop: int) -> list[Array]:
        """The states with one block taken in: those before it move to the new anchors, where the block's own part is made."""
        out = list(states)
        anchors = self.region(self.anchor_region, states)

        def block(x: Array, v: Value) -> Array:
            return x[tuple(slice(start, stop) if d == self.dim else slice(None) for d in v.tensor.dims)]

        atoms = [block(x, v) for x, v in zip(self.atoms, self.atom_values, strict=True)]
        here = {**self.run.env.window, self.dim: (start, stop)}
        window = Evaluator(replace(self.run.env, window=here), self.run.cuts)
        for k, body in enumerate(self.bodies):
            given = [self.safe(a, anchors[a]) for a in self.anchor_of[k]]
            parts = window.region(body, [*atoms, *given], lambda v: block(self.inner[v], v))
            out[k] = self.combine(k, states[k], self.partial(window.env, k, body, parts))
            for a in self.ready(k):
                new = self.anchor(a, out)
                states = self.rebase(a, states, anchors[a], new)
                anchors[a] = new
        return out

    def partial(self, env: m.Env, k: int, body: Block, parts: list[Array]) -> Array:
        """State k of one block (`env` knows which)."""
        dims, dtype = self.types[k].dims, self.types[k].dtype
        types = [v.tensor for v in body.yielded]
        if len(parts) == 2:
            assert self.kinds[k] == "sum"
            product = m.multiply(parts[0], types[0].dims, parts[1], types[1].dims, dims)
            return self.run.settle(product, dtype)
        x = m.align(widen(parts[0]), types[0].dims, (self.dim, *dims))
        x = np.broadcast_to(x, env.shape((self.dim, *dims)))  # a constant counts once per position
        with np.errstate(all="ignore"):
            return self.run.settle(m.reduce_axes(self.kinds[k], x, (0,)), dtype)

    def combine(self, k: int, x: Array, y: Array) -> Array:
        fn = {"sum": np.add, "max": np.fmax, "min": np.fmin}[self.kinds[k]]
        with np.errstate(all="ignore"):
            return self.run.settle(np.asarray(fn(widen(x, np.float32), widen(y, np.float32))), self.types[k].dtype)

    def merge(self, xs: list[Array], ys: list[Array]) -> list[Array]:
        """The state of the union of two disjoint sets of positions, from theirs."""
        old_x, old_y = (self.region(self.anchor_region, s) for s in (xs, ys))
        out = list(self.empty)
        for k in range(len(self.kinds)):
            out[k] = self.combine(k, xs[k], ys[k])
            for a in self.ready(k):
                new = self.anchor(a, out)
                xs, ys = self.rebase(a, xs, old_x[a], new), self.rebase(a, ys, old_y[a], new)
        return out

    def finish(self, states: list[Array]) -> list[Array]:
        anchors = [self.safe(a, d) for a, d in enumerate(self.region(self.anchor_region, states))]
        totals = self.region(self.finish_region, [*states, *anchors])
        return [m.align(x, v.tensor.dims, r.tensor.dims)
                for x, v, r in zip(totals, self.finish_region.yielded, self.op.results, strict=True)]


def _tuple(x: object) -> tuple[object, ...]:
    assert isinstance(x, tuple), x
    return x


def _int(x: object) -> int:
    assert isinstance(x, int), x
    return x
