"""What the two lowerings (vector rows, matrix tiles) share: the K function's frame, waves of stream states, anchors, results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rvgpu.errors import RvgpuError
from rvgpu.ir.core import Block, Func, Op, Value
from rvgpu.ir.dims import Dim, parts_of
from rvgpu.ir.numeric import neutral
from rvgpu.ir.tile_build import K, KFunc, KTensor
from rvgpu.ir.types import DType, TensorType
from rvgpu.passes.context import Limits
from rvgpu.passes.places import Binds, Rows
from rvgpu.passes.rows import Emitter

IDENTITY = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}
REDUCE_OP = {"sum": "add", "max": "max", "min": "min"}


@dataclass(eq=False)
class State:
    """One running reduction of a stream: kind, the values of its body (two: a contraction) and the anchors they use."""

    index: int
    kind: str
    body: Block
    anchors: tuple[int, ...]
    dtype: DType
    dims: tuple[Dim, ...]

    @property
    def contraction(self) -> bool:
        return len(self.body.yielded) == 2

    @property
    def counts(self) -> bool:
        """A sum of ones: how many positions there are."""
        op = self.body.yielded[0].op
        return self.kind == "sum" and not self.contraction and op is not None and op.name == "const" and op.attrs["value"] == 1


@dataclass(eq=False)
class Stream:
    """A `stream` op taken apart (docs/ir.md)."""

    op: Op
    dim: Dim
    states: list[State]
    anchor_needs: tuple[tuple[int, ...], ...]
    atoms: Block
    anchors: Block
    rebase: Block
    finish: Block
    part: int = 0  # positions of one part where the stream's results are the states of its parts, else 0

    @staticmethod
    def of(op: Op) -> Stream:
        dim = op.attrs["dim"]
        kinds = op.attrs["kinds"]
        anchor_of = op.attrs["anchor_of"]
        needs = op.attrs["anchor_needs"]
        assert isinstance(dim, Dim) and isinstance(kinds, tuple) and isinstance(anchor_of, tuple) and isinstance(needs, tuple)
        n = len(kinds)
        finish = op.regions[3 + n]
        states = []
        for k in range(n):
            t = finish.args[k].tensor
            anchors = anchor_of[k]
            assert isinstance(anchors, tuple)
            states.append(State(k, str(kinds[k]), op.regions[1 + k], tuple(int(a) for a in anchors),  # type: ignore[arg-type]
                                t.dtype, t.dims))
        return Stream(op, dim, states, tuple(tuple(int(i) for i in t) for t in needs),  # type: ignore[union-attr,arg-type]
                      op.regions[0], op.regions[1 + n], op.regions[2 + n], finish, int(op.attrs.get("part", 0)))  # type: ignore[arg-type]

    @property
    def part_dim(self) -> Dim | None:
        """The dim of the parts where there are any."""
        return parts_of(self.dim.name, self.part) if self.part and self.dim.name is not None else None

    def link(self, em: Emitter) -> None:
        """Region arguments stand for what is passed to them: captures, atoms, finished totals."""
        for arg, value in zip(self.atoms.args, self.op.operands, strict=True):
            em.alias[arg] = value
        for state in self.states:
            atoms = self.atoms.yielded
            for arg, value in zip(state.body.args[:len(atoms)], atoms, strict=True):
                em.alias[arg] = value
        for result, value in zip(self.op.results, self.finish.yielded, strict=True):
            em.alias[result] = value

    def waves(self) -> list[list[State]]:
        """States in dependency order, cut where a body needs an anchor that is not there before the wave."""
        out: list[list[State]] = []
        done: set[int] = set()
        for state in self.states:
            need = {s for a in state.anchors for s in self.anchor_needs[a]}
            if not out or not need <= done:
                done |= {s.index for s in out[-1]} if out else set()
                out.append([])
                assert need <= done, "anchors come from earlier states"
            out[-1].append(state)
        return out

    def lazy(self, em: Emitter, a: int) -> bool:
        """An anchor that is a running maximum used only under exp may lag behind it by TAU. Until it moves it stands at FLOOR: nothing but
        -inf has gone by, and exp(-inf - FLOOR) is 0, so that unlike -inf it needs no test where it is used."""
        d = em.resolve(self.anchors.yielded[a])
        if d not in self.anchors.args or self.states[self.anchors.args.index(d)].kind != "max":
            return False
        return not any(op.name == "eq" for s in self.states if a in s.anchors for op in s.body.ops)

    def witness(self, em: Emitter, masks: Collection[Value], results: Iterable[Value]) -> State | None:
        """A sum of exp(x - anchor) that shows when the only anchor, a running maximum of x, has stayed behind too far: the anchor may then stay
        where the first blocks put it. None where something else uses the maximum, or x says that it grows with the position."""
        waves = self.waves()
        if len(self.anchor_needs) != 1 or len(waves) != 2 or len(waves[0]) != 1 or not self.lazy(em, 0):
            return None
        top, = waves[0]
        used = {v for r in (*results, *self.rebase.yielded) for v in _reached(em, r, ())}
        if self.finish.args[top.index] in used or set(self.finish.args[len(self.states):]) & used:
            return None
        x = em.resolve(top.body.yielded[0])
        if any(v.op is not None and v.op.name == "iota" and v.op.attrs["dim"] == self.dim for v in _reached(em, x, masks)):
            return None
        return next((s for s in waves[1] if not s.contraction and s.kind == "sum" and self._exponential(em, s, x)), None)

    def _exponential(self, em: Emitter, state: State, x: Value) -> bool:
        """The state's body is exp(x - anchor)."""
        e = em.resolve(state.body.yielded[0]).op
        d = em.resolve(e.operands[0]).op if e is not None and e.name == "exp" else None
        return d is not None and d.name == "sub" and em.resolve(d.operands[0]) == x and d.operands[1] in self.anchor_args(state)

    def anchor_args(self, state: State) -> list[Value]:
        return state.body.args[len(self.atoms.yielded):]


def _reached(em: Emitter, v: Value, past: Collection[Value]) -> set[Value]:
    """The values that v is made of; of the selects in `past` not their conditions."""
    found, todo = set[Value](), [v]
    while todo:
        v = em.resolve(todo.pop())
        if v not in found and v.op is not None:
            todo += v.op.operands[1:] if v in past else v.op.operands
        found.add(v)
    return found


def frame(func: Func, limits: Limits) -> tuple[K, Emitter]:
    """The K function of a cluster with its ABI lists, and an emitter that knows its parameters."""
    tensors = [KTensor(p.name, p.value.tensor.dtype, p.value.tensor.dims) for p in func.params if not p.keyword]
    names = func.result_names or (["out"] if len(func.results) == 1 else [f"out{i}" for i in range(len(func.results))])
    tensors += [KTensor(n, t.dtype, t.dims, True) for n, t in zip(names, func.result_types, strict=True)]
    scalars = [(p.name, p.value.tensor.dtype) for p in func.params if p.keyword]
    kf = KFunc(func.name, tensors, scalars, func.dim_names(), limits.warps, vlen=limits.vlen, te=limits.te, loc=func.loc)
    k = K(kf)
    leaves = {p.value: (p.name, p.value.tensor.dims, p.value.tensor.dtype) for p in func.params if not p.keyword}
    return k, Emitter(k, func.params, leaves)


def find_stream(func: Func) -> Stream | None:
    ops = [op for op in func.body.ops if op.name == "stream"]
    assert len(ops) <= 1, "one stream in a cluster"
    return Stream.of(ops[0]) if ops else None


def results(func: Func, k: K) -> list[tuple[str, Value, TensorType]]:
    outs = [t for t in k.func.tensors if t.output]
    return [(t.name, v, ty) for t, v, ty in zip(outs, func.results, func.result_types, strict=True)]


def ceil_div(k: K, x: Value, y: int | Value) -> Value:
    y1 = k.const(y) if isinstance(y, int) else y
    return k.idx("div", k.idx("add", x, k.idx("sub", y1, 1)), y1)


def clamp(k: K, x: Value, most: Value | int) -> Value:
    """min(max(x, 0), most)."""
    return k.idx("min", k.idx("max", x, 0), most)


def decode(k: K, flat: Value, extents: Sequence[Value]) -> list[Value]:
    """Coordinates of a row-major flat index."""
    out: list[Value] = []
    for n, e in enumerate(reversed(extents)):
        last = n == len(extents) - 1
        out.append(flat if last else k.idx("rem", flat, e))
        flat = flat if last else k.idx("div", flat, e)
    return out[::-1]


TAU = 8.0  # a lazy anchor moves only when its maximum grew by more than this (then exp's argument stays <= TAU)
HELD_TAU = 17.0  # the same where anchors stay unless a sum of exponentials shows more than MOST: above log(MOST) by more than differences are off
MOST = 2.0**24  # such a sum: more keys than there are, unless their maximum has grown by 16.6
FAR = 2.0**20  # of an anchor: differences to larger ones are off by more
FLOOR = -float(np.finfo(np.float32).max)  # an anchor that has not moved yet, when it may be held as a finite number


def safe_anchor(k: K, d: Value, vl: Value | None, bottom: float = float("-inf")) -> tuple[Value, Callable[[Value], Value]]:
    """(D with the bottoms `bottom` and NaN replaced by 0, a function that zeroes a delta where D was at its bottom)."""
    def op(name: str, *xs: Value) -> Value:
        return k.vt(name, *xs, vl=vl) if vl is not None else k.s(name, *xs)

    def pick(cond: Value, x: Value, y: Value) -> Value:
        return k.select(cond, x, y, vl) if vl is not None else k.s("select", cond, x, y)

    zero = k.sconst(0.0, DType.f32)
    is_real = op("gt", d, k.sconst(bottom, DType.f32))
    return pick(is_real, d, zero), lambda delta: pick(is_real, delta, zero)


def identity(k: K, state: State) -> Value:
    """What a state starts from."""
    return k.sconst(neutral(state.kind, state.dtype), state.dtype)


def reject(message: str, loc_of: Value | None = None) -> RvgpuError:
    loc = loc_of.op.loc if loc_of is not None and loc_of.op is not None else None
    return RvgpuError("E303", message, loc)


def bind_all(values: Sequence[Value], rows: Sequence[Rows]) -> Binds:
    return dict(zip(values, rows, strict=True))
