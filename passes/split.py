"""P12, split: a cascade with at most one tile of rows runs in parts of a fixed size, for otherwise one warp would read all of the streamed dim
alone. One function becomes two, by the cascade's own rule: the first makes the states of every part, the second moves them to their common
anchor and joins them, which is the stream over the parts whose bodies are the re-based states:

    E = (+)_p A(c_p -> c) E_p

The size of a part is a function of TE alone. Whether there are parts depends on the rows' bucket too (docs/adr/0007): a kernel with more rows
shares the streamed dim between them and keeps one state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rvgpu.ir.core import Block, Builder, Func, Op, Param, Value
from rvgpu.ir.dims import Dim, parts_of
from rvgpu.ir.tidy import drop_dead
from rvgpu.ir.types import DType, TensorType
from rvgpu.passes.context import Context, Remark
from rvgpu.passes.kernel import IDENTITY, Stream
from rvgpu.passes.lower_parts import few_rows, part_size
from rvgpu.passes.matrix_plan import plan_matrix
from rvgpu.passes.row_plan import columns_in_parts, few_long_rows, long_rows, part_positions


@dataclass(frozen=True)
class Split:
    """`size` positions a part; 0 leaves it to the rule, 1 makes no parts."""

    size: int = 0

    name = "split"
    level = "tensor"

    def run(self, func: Func, context: Context) -> list[Func]:
        limits = context.limits()
        size = self.size or part_size(limits)
        plan = plan_matrix(func, limits)
        if plan is None and self.size != 1:
            return self._rows(func, context)
        if plan is None or size == 1 or not few_rows(plan, limits) or limits.bound(plan.stream.dim) <= size:
            return [func]
        stream, dim = plan.stream.op, plan.stream.dim
        if any(dim in r.tensor.dims for op in _after(func, stream) for r in op.results):
            context.remarks.append(Remark(f"{func.name}: not in parts, {dim} is needed once more behind its totals", stream))
            return [func]
        context.remarks.append(Remark(f"{func.name}: parts of {size} positions of {dim}, then their merge", stream))
        return in_parts(func, plan.stream, size, plan.n)

    def _rows(self, func: Func, context: Context) -> list[Func]:
        """Rows on the vector unit: long ones, where there are few, go in parts of their own size, which `lower_long` keeps otherwise; so do long
        columns."""
        limits = context.limits()
        found = columns_in_parts(func, limits)
        if found is not None:  # the merge is one of columns again, which may be long
            plan, size = found
            assert plan.stream is not None
            context.remarks.append(Remark(f"{func.name}: parts of {size} positions of {plan.down}, then their merge", plan.stream.op))
            local, merge = in_parts(func, plan.stream, size, plan.lanes)
            return [local, *self._rows(merge, context)]
        stream = long_rows(func, limits)
        if stream is None or not few_long_rows(func, stream, limits):
            return [func]
        size = part_positions(limits)
        context.remarks.append(Remark(f"{func.name}: parts of {size} positions of {stream.dim}, then their merge", stream.op))
        return in_parts(func, stream, size)


def in_parts(func: Func, stream: Stream, size: int, columns: tuple[Dim, ...] = ()) -> list[Func]:
    """The states of each part of `size`, then the totals from them and what follows; nothing behind the totals may carry the streamed dim.
    `columns` are the dims that stand innermost in a stored state."""
    parts = _Parts(func, stream, size, columns)
    merge = parts.merge()  # copies what it needs of the function before the first half takes it
    return [parts.local(), merge]


def _after(func: Func, stream: Op) -> list[Op]:
    """Ops that need the stream's results."""
    found = set(stream.results)
    out = []
    for op in func.body.ops:
        if op is not stream and any(x in found for x in op.operands):
            out.append(op)
            found |= set(op.results)
    return out


class _Parts:
    def __init__(self, func: Func, taken: Stream, size: int, columns: tuple[Dim, ...]) -> None:
        self.func, self.stream, self.size = func, taken.op, size
        assert taken.dim.name is not None
        self.part = parts_of(taken.dim.name, size)
        self.anchors, self.rebase, self.finish = taken.anchors, taken.rebase, taken.finish
        self.anchor_of = [s.anchors for s in taken.states]
        self.n = len(taken.states)
        self.level = taken.dim.name.count(".") + 1  # of parts of parts
        self.names = [f"{func.name}{'.s' * self.level}{k}" for k in range(self.n)]
        self.types = [TensorType(self._stored(s.dims, columns), s.dtype) for s in taken.states]

    def _stored(self, dims: tuple[Dim, ...], columns: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """The parts of a row stand side by side, each with its columns."""
        return (*(d for d in dims if d not in columns), self.part, *(d for d in dims if d in columns))

    def local(self) -> Func:
        """The states of every part."""
        old = self.stream
        block = Block([Value(a.type) for a in self.finish.args])
        Builder(block, old.loc).op("yield", block.args[:self.n])
        op = Op("stream", old.operands, attrs={**old.attrs, "part": self.size}, regions=[*old.regions[:-1], block], loc=old.loc)
        op.results = [Value(t, op, k) for k, t in enumerate(self.types)]
        ops = [op if o is old else o for o in self.func.body.ops if o not in _after(self.func, old)]
        body = Block(ops=ops)
        drop_dead(body, op.results)
        used = {x for o in body.walk() for x in o.operands}
        params = [p for p in self.func.params if p.value in used]
        return Func(self.func.name + ".parts" * self.level, params, body, list(op.results), self.types, self.func.loc, self.names)

    def merge(self) -> Func:
        """The totals from the states of the parts, and what follows them."""
        given = [Param(n, Value(t)) for n, t in zip(self.names, self.types, strict=True)]
        copy = _Copy(self.func, self.part)
        b = Builder(copy.block, self.stream.loc)
        rows = [p.value for p in given]
        regions = [Block()]
        Builder(regions[0]).op("yield")
        for k in range(self.n):
            regions.append(self.body(copy, k, rows))
        regions += [copy.region(r) for r in (self.anchors, self.rebase, self.finish)]
        outs = b.op("stream", [], [r.type for r in self.stream.results], regions, **{**self.stream.attrs, "dim": self.part})
        copy.made.update(zip(self.stream.results, outs, strict=True))
        results = [copy.value(r) for r in self.func.results]
        params = [*given, *copy.params()]
        drop_dead(copy.block, results)
        return Func(self.func.name, params, copy.block, results, self.func.result_types, self.func.loc, self.func.result_names)

    def body(self, copy: _Copy, k: int, rows: list[Value]) -> Block:
        """State k of a part at the common anchor; delta is 0 where the part's anchor is at its bottom."""
        block = Block([Value(self.anchors.yielded[a].type) for a in self.anchor_of[k]])
        b = Builder(block, self.stream.loc)
        own = dict(zip(self.anchors.args, rows, strict=True))
        copy.ops(b, self.anchors, own)
        moved = dict(zip(self.rebase.args, rows, strict=False))
        for a, arg in zip(self.anchor_of[k], block.args, strict=True):
            moved[self.rebase.args[self.n + a]] = _delta(b, copy.value(self.anchors.yielded[a], own), arg)
        copy.ops(b, self.rebase, moved)
        b.op("yield", [copy.value(self.rebase.yielded[k], moved)])
        drop_dead(block)
        return block


def _delta(b: Builder, old: Value, new: Value) -> Value:
    t = old.tensor
    zero, bottom = (b.one("const", [], TensorType((), t.dtype), value=x) for x in (0.0, IDENTITY["max"]))
    real = b.one("gt", [old, bottom], TensorType(t.dims, DType.i1))
    return b.one("select", [real, b.one("sub", [old, new], t), zero], t)


class _Copy:
    """Copies of a function's ops into another one, as they are needed; a value that varies with the parts says so in its type."""

    def __init__(self, func: Func, part: Dim) -> None:
        self.func, self.part = func, part
        self.block = Block()
        self.made: dict[Value, Value] = {}
        self.used: dict[Value, Value] = {}

    def params(self) -> list[Param]:
        """Parameters of the function that the copies read, in its order."""
        return [Param(p.name, self.used[p.value], p.keyword, p.default, p.loc) for p in self.func.params if p.value in self.used]

    def value(self, v: Value, local: Mapping[Value, Value] = {}) -> Value:  # noqa: B006
        """The copy of v: in a region, a parameter, or an op of the function's block copied now."""
        if v in local or v in self.made:
            return local[v] if v in local else self.made[v]
        if v.op is None:
            return self.used.setdefault(v, Value(v.type, hint=v.hint))
        for x in v.op.operands:
            self.value(x)
        self._op(Builder(self.block, v.op.loc), v.op, self.made)
        return self.made[v]

    def ops(self, b: Builder, region: Block, local: dict[Value, Value]) -> None:
        """The ops of a region; `local` has its arguments and grows by what is made."""
        for op in region.ops[:-1]:
            if all(x in local or self._outside(x, region) for x in op.operands):
                self._op(b, op, local)

    def region(self, old: Block) -> Block:
        new = Block([Value(a.type, hint=a.hint) for a in old.args])
        local: dict[Value, Value] = dict(zip(old.args, new.args, strict=True))
        b = Builder(new)
        self.ops(b, old, local)
        b.op("yield", [self.value(v, local) for v in old.yielded])
        return new

    def _outside(self, v: Value, region: Block) -> bool:
        return v not in region.args and not any(v in op.results for op in region.ops)

    def _op(self, b: Builder, op: Op, into: dict[Value, Value]) -> None:
        xs = [self.value(x, into) for x in op.operands]
        b.loc = op.loc
        into.update(zip(op.results, b.op(op.name, xs, [self._type(r, xs) for r in op.results], **op.attrs), strict=True))

    def _type(self, old: Value, xs: Iterable[Value]) -> TensorType:
        t = old.tensor
        inside = any(self.part in x.tensor.dims for x in xs) and self.part not in t.dims
        return TensorType((self.part, *t.dims), t.dtype) if inside else t
