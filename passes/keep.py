"""What a sweep over a row leaves for later ones: values along the lanes that several sweeps need are made once and kept in scratchpad.

Two values are the same when they are the same function of inputs and totals. An anchor in a body is its total with a bottom (-inf, NaN) taken as 0;
where a result uses the total itself, `real` says whether the two are equal in this row, and the row is done without what was kept when not.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from rvgpu.ir.core import Func, Value
from rvgpu.ir.tile_build import K
from rvgpu.ir.types import DType, VecType
from rvgpu.passes.cascade import bottom_stripped
from rvgpu.passes.kernel import Stream
from rvgpu.passes.places import Binds, Rows
from rvgpu.passes.rows import Emitter
from rvgpu.passes.stage import ALIGN

Key = Hashable
INDEXED = frozenset({"rename", "slice", "concat", "pad", "take"})  # what moves coordinates: nothing is kept in a kernel with such ops


@dataclass(eq=False)
class Kept:
    """A value made in sweep `first`, read in later ones (each has its own name for it); a slot of scratchpad holds a whole row of it."""

    first: int
    dtype: DType
    values: dict[int, list[Value]] = field(default_factory=dict)  # by sweep
    slot: int = -1

    @property
    def last(self) -> int:
        return max(self.values)


class Keep:
    """The plan for sweeps with these roots, in order: a stream's waves and what is stored."""

    def __init__(self, k: K, em: Emitter, stream: Stream, sweeps: Sequence[Sequence[Value]]) -> None:
        self.k, self.em, self.stream = k, em, stream
        self.last = len(sweeps) - 1
        self.keys: dict[Value, Key] = {}
        self.anchor_of: dict[Value, int] = {}
        for s in stream.states:
            self.anchor_of.update(zip(stream.anchor_args(s), s.anchors, strict=True))
        self.anchor_of.update({arg: a for a, arg in enumerate(stream.finish.args[len(stream.states):])})
        self.tops = {self.key(d): a for a, d in enumerate(stream.anchors.yielded)}
        self.known: dict[Key, Kept] = {}
        for n, roots in enumerate(sweeps):
            for v in roots:
                self._visit(self.em.resolve(v), n)
        self.kept = [x for x in self.known.values() if len(x.values) > 1]
        self.slots = self._slots()
        self.raw = {a for x in self.kept for v in x.values.get(self.last, ()) for a in self._raw(v)}
        self.buffers: list[Value] = []

    # -- which values are the same
    def key(self, v: Value) -> Key:
        v = self.em.resolve(v)
        if v not in self.keys:
            self.keys[v] = self._key(v)
        return self.keys[v]

    def _key(self, v: Value) -> Key:
        for args in (self.stream.anchors.args, self.stream.finish.args[:len(self.stream.states)]):
            if v in args:
                state = self.stream.states[args.index(v)]
                return ("size", self.stream.dim) if state.counts else ("total", state.index)
        if v in self.anchor_of:
            return self.key(self.stream.anchors.yielded[self.anchor_of[v]])
        if (top := bottom_stripped(v)) is not v:
            return self.key(top)
        if v.op is None:
            return v
        op = v.op
        if op.name == "cast" and op.operands[0].op is not None and op.operands[0].op.name == "size" and v.tensor.dtype is DType.f32:
            return "size", op.operands[0].op.attrs["dim"]
        return op.name, tuple(sorted((n, repr(a)) for n, a in op.attrs.items())), v.tensor.dtype, tuple(map(self.key, op.operands))

    def _visit(self, v: Value, n: int) -> None:
        """Notes v as made in sweep n, or as read there when an earlier one makes it."""
        if v.op is None or v in self.anchor_of or self.stream.dim not in v.tensor.dims:
            return
        found = self.known.get(self.key(v)) if _worth_keeping(v) else None
        if found is not None and found.first < n:
            if v not in found.values.setdefault(n, []):
                found.values[n].append(v)
            return
        if _worth_keeping(v) and found is None:
            self.known[self.key(v)] = Kept(n, v.tensor.dtype, {n: [v]})
        for x in v.op.operands:
            self._visit(self.em.resolve(x), n)

    def _raw(self, v: Value) -> set[int]:
        """Anchors that v uses as they are, bottoms included."""
        v = self.em.resolve(v)
        if v in self.anchor_of or bottom_stripped(v) is not v:
            return set()
        if self.key(v) in self.tops:
            return {self.tops[self.key(v)]}
        return {a for x in v.op.operands for a in self._raw(x)} if v.op is not None else set()

    # -- where they stand
    def _slots(self) -> list[DType]:
        """Dtypes of the slots: a value may take the place of one that is read for the last time where it is made."""
        free: list[tuple[int, int]] = []  # (last sweep of the holder, slot)
        out: list[DType] = []
        for x in sorted(self.kept, key=lambda x: x.first):
            x.slot = next((s for last, s in free if last <= x.first and out[s] is x.dtype), len(out))
            if x.slot == len(out):
                out.append(x.dtype)
            free = [(last, s) for last, s in free if s != x.slot] + [(x.last, x.slot)]
        return out

    def bytes(self, width: int) -> int:
        """Scratchpad taken in each warp, each slot rounded up as P9 does."""
        return sum(-(-width * t.bits // 8 // ALIGN) * ALIGN for t in self.slots)

    def allocate(self, width: int) -> None:
        """Slots of a row of `width` for each warp."""
        k = self.k
        with k.at(self.em.root):
            self.buffers = [k.spm_alloc(t, [k.const(width)], [k.const(1)], name=f"kept{n}", size_bytes=width * t.bits // 8, per_warp=True)
                            for n, t in enumerate(self.slots)]

    # -- in a chunk of sweep n, `at` lanes behind the row's first
    def reads(self, n: int, at: Value, vl: Value, lanes: int) -> Binds:
        def load(x: Kept) -> Rows:
            return (self.k.load(self.k.mem_at(self.buffers[x.slot], [at]), vl, axis=0, lanes=lanes),)

        return {v: lambda x=x: load(x) for x in self.kept if x.first < n for v in x.values.get(n, ())}  # type: ignore[misc]

    def held(self, n: int) -> Binds:
        """What sweep n reads where earlier ones are in the same scope: the values themselves."""
        return {v: self.em.emit(x.values[x.first][0]) for x in self.kept if x.first < n for v in x.values.get(n, ())}

    def save(self, n: int, at: Value, vl: Value) -> None:
        for x in self.kept:
            if x.first == n:
                made = self.em.one(x.values[n][0])
                assert isinstance(made.type, VecType)
                self.k.store(self.k.mem_at(self.buffers[x.slot], [at]), made, vl, axis=0)

    def real(self) -> Value | None:
        """Whether the anchors that results use as they are have no bottom in the rows at hand; None when results use none."""
        out: Value | None = None
        for a in sorted(self.raw):
            for d in self.em.emit(self.stream.anchors.yielded[a]):
                is_real = self.k.s("gt", d, self.k.sconst(float("-inf"), DType.f32))
                out = is_real if out is None else self.k.s("and", out, is_real)
        return out


def _worth_keeping(v: Value) -> bool:
    """Made by an instruction at least, and no mask."""
    return v.op is not None and v.op.name not in ("iota", "const", "size", "stream") and v.tensor.dtype is not DType.i1


def plan_keep(k: K, em: Emitter, func: Func, stream: Stream, sweeps: Sequence[Sequence[Value]]) -> Keep | None:
    """What is worth keeping, if anything."""
    if any(op.name in INDEXED for op in func.body.walk()):
        return None
    keep = Keep(k, em, stream, sweeps)
    return keep if keep.kept else None
