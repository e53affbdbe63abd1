"""Long rows go in parts of a fixed size, whose states the cascade's own merge joins (`split.in_parts`): so a row's bytes are the same however many
warps share it, and its operands go through scratchpad part by part.

With few rows P12 makes two kernels: every warp takes parts and stores their states; then every warp joins all states of its row and
stores its pieces of the results. With many rows one kernel does both: the warps of a CTA go through a row's parts, leave their
states in scratchpad, and where results carry the long dim go through the parts once more. Kernels without a reduction are cut the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType
from rvgpu.passes.context import Limits
from rvgpu.passes.keep import Keep, plan_keep
from rvgpu.passes.kernel import Stream, ceil_div, clamp, decode, find_stream, frame, identity, results
from rvgpu.passes.places import Axis, Sub
from rvgpu.passes.row_plan import gathers, long_rows, part_positions, plan_pieces, rows_beside
from rvgpu.passes.rows import Emitter, Staged
from rvgpu.passes.split import in_parts
from rvgpu.passes.sweep import GatheredRows, Out, Span, StagedRows, Sweep, staged_bytes


def lower_long(func: Func, limits: Limits) -> KFunc | None:
    """The kernel of a function with long rows, of the states of parts, of their merge, or of long rows without a reduction; else None."""
    stream = long_rows(func, limits)
    if stream is not None:
        return _Shared(func, limits, rows_beside(func, stream.dim) or (), stream).build()
    plan = plan_pieces(func, limits)
    return _Pieces(func, limits, *plan).build() if plan else None


class _Parted:
    """Rows, their parts, and the operands that are fetched part by part."""

    def __init__(self, func: Func, limits: Limits, rows: tuple[Dim, ...], lane: Dim) -> None:
        self.func, self.limits, self.rows, self.lane = func, limits, rows, lane
        self.k, self.em = frame(func, limits)
        k, em = self.k, self.em
        self.sweep, self.outs = Sweep(k, em, limits), results(func, k)
        self.fetched = [p.value for p in func.params if not p.keyword and p.value.tensor.dims in ((*rows, lane), (lane,))
                        and p.value.tensor.dtype is not DType.i4]
        self.gathers = gathers(func, rows, lane)
        self.size = self._size()
        self.length = em.extent(lane)
        self.extents = [em.extent(d) for d in rows]
        self.total = em.product(rows)
        with k.at(em.root):
            self.zero, self.warp = k.const(0), k.special("warp")
            self.parts = ceil_div(k, self.length, self.size)
        self.sweep.across = 2 * self.sweep.chunk
        em.splats = self._staged() * limits.warps <= limits.spm_bytes * 3 // 4
        self.stage = [StagedRows(k, em, v, 1, self.size, whole=False) for v in self.fetched]
        gathered = [GatheredRows(k, em, op, self.size, self.total) for op in self.gathers]
        self.sweep.readers += gathered
        self.stage += gathered

    def _size(self) -> int:
        return part_positions(self.limits)

    def _staged(self) -> int:
        """Scratchpad that each warp's parts take."""
        values = [*self.fetched, *(op.result for op in self.gathers)]
        return sum(staged_bytes(v.tensor.dtype, 1, self.size, 2) for v in values)

    def span(self, p: Value) -> Span:
        first = self.k.idx("mul", p, self.size)
        return Span(first, clamp(self.k, self.k.idx("sub", self.length, first), self.size))

    def axes(self, row: Value) -> list[Axis]:
        at = decode(self.k, row, self.extents) if self.extents else []
        return [Axis((d,), c) for d, c in zip(self.rows, at, strict=True)]

    def copy(self, row: Value, p: Value, live: Value, stage: Value) -> None:
        span = self.span(p)
        for s in self.stage:
            s.copy(row, span.first, live, span.size, stage)

    def enter(self, stage: Value, span: Span) -> None:
        for s in self.stage:
            s.enter(stage, self.zero, span.first)

    def keep(self, func: Func, stream: Stream) -> Keep | None:
        """What the waves of a part leave for later ones, where a warp has room."""
        keep = plan_keep(self.k, self.em, func, stream, [[v for s in wave for v in s.body.yielded] for wave in stream.waves()])
        if keep is None or (self._staged() + keep.bytes(self.size)) * self.limits.warps > self.limits.spm_bytes * 3 // 4:
            return None
        keep.allocate(self.size)
        return keep

    def narrow(self) -> list[Out]:
        return [o for o in self.outs if self.lane not in o[2].dims]


class _Pieces(_Parted):
    def __init__(self, func: Func, limits: Limits, rows: tuple[Dim, ...], lane: Dim) -> None:
        self.stream = find_stream(func)
        super().__init__(func, limits, rows, lane)
        if self.stream is not None:
            self.stream.link(self.em)
        self.kept = self.keep(func, self.stream) if self.stream is not None and self.stream.part else None

    def _size(self) -> int:
        """A part of the stream's; else what gives every warp an item and fits twice."""
        if self.stream is not None and self.stream.part:
            return self.stream.part
        size, workers = part_positions(self.limits), self.limits.cores * self.limits.warps
        bits = sum(v.tensor.dtype.bits for v in [*self.fetched, *(op.result for op in self.gathers)])
        while size > 2 * self.sweep.chunk and (size * bits // 4 * self.limits.warps > self.limits.spm_bytes
                                               or self.limits.product(self.rows) * -(-self.limits.bound(self.lane) // size) < workers):
            size //= 2
        return size

    def build(self) -> KFunc:
        k = self.k
        items = k.idx("mul", self.total, self.parts)

        def place(w: Value) -> tuple[Value, Value, Value]:
            item = k.idx("add", k.idx("mul", w, self.limits.warps), self.warp)
            return k.idx("div", item, self.parts), k.idx("rem", item, self.parts), clamp(k, k.idx("sub", items, item), 1)

        def item(w: Value, stage: Value) -> None:
            row, p, live = place(w)

            def one(_i: Value, _: list[Value]) -> Sequence[Value]:
                span = self.span(p)
                self.enter(stage, span)
                with self.em.scope(self.axes(row)):
                    self._piece(p, span)
                return []

            k.for_(0, live, 1, [], one)

        def body(w: Value) -> None:
            if not self.stage:
                item(w, self.zero)
                return

            def step(_i: Value, _stage: Value, wstage: Value, _: list[Value]) -> Sequence[Value]:
                item(w, wstage)
                return []

            def copy(w: Value, _i: Value, _stage: Value, wstage: Value) -> None:
                self.copy(*place(w), wstage)

            k.pipe(w, 1, [], lambda _: (self.zero, k.const(1)), copy, step, private=True)

        k.work(ceil_div(k, items, self.limits.warps), body)
        return k.func

    def _piece(self, p: Value, span: Span) -> None:
        with ExitStack() as stack:
            if self.stream is not None and self.stream.part:
                part = self.outs[0][2].dims[-1]
                stack.enter_context(self.em.scope([Axis((part,), p)]))
                self.sweep.totals(stack, self.stream, span, self.kept)
                self._store_states()
                return
            if self.stream is not None:
                self.sweep.totals(stack, self.stream, self.sweep.whole(self.stream.dim))
            if self.narrow():
                self.k.if_(self.k.cmp("eq", p, 0), self._store_narrow)
            self.sweep.store([o for o in self.outs if o not in self.narrow()], self.lane, span)

    def _store_states(self) -> None:
        """Each state of the part; what does not vary with a row dim (a count) where that is 0."""
        k = self.k
        for o in self.outs:
            first: Value | None = None
            for d in self.rows:
                if d not in o[2].dims:
                    here = k.cmp("eq", self.em.axis_of(d)[1].base, 0)
                    first = here if first is None else k.s("and", first, here)

            def store(o: Out = o) -> Sequence[Value]:
                self.sweep.store([o], None)
                return []

            if first is None:
                store()
            else:
                k.if_(first, store)

    def _store_narrow(self) -> Sequence[Value]:
        self.sweep.store(self.narrow(), None)
        return []


# -- a CTA for each row

class _Shared(_Parted):
    """Steps of a warp: its parts (warp, warp + warps, ...) for their states, and once more where results carry the lane dim."""

    def __init__(self, func: Func, limits: Limits, rows: tuple[Dim, ...], stream: Stream) -> None:
        super().__init__(func, limits, rows, stream.dim)
        local, merge = in_parts(func, stream, self.size)
        self.local, self.merge = _stream_of(local, self.em), _stream_of(merge, self.em)
        self.outs = [(name, v, t) for (name, _, t), v in zip(self.outs, merge.results, strict=True)]
        self._adopt(merge)
        self.kept = self.keep(local, self.local)
        k = self.k
        with k.at(self.em.root):
            self.steps = k.idx("max", ceil_div(k, self.parts, limits.warps), 1)
            self.again = len(self.narrow()) < len(self.outs)
            self.last = k.idx("mul", self.steps, 2) if self.again else self.steps

    def _adopt(self, merge: Func) -> None:
        """The parameters of the second half: the kernel's own, and the states, which stand in tables in scratchpad."""
        k, em = self.k, self.em
        own = {p.name: p for p in self.func.params}
        cap = -(-max(1, self.limits.bound(self.lane)) // self.size) + self.limits.warps
        part = self.merge.dim
        em.set_extent(part, self.parts)
        self.tables = []
        for p in merge.params:
            if p.name not in own:
                dtype = p.value.tensor.dtype
                with k.at(em.root):
                    table = k.spm_alloc(dtype, [k.const(cap)], [k.const(1)], name=p.name, size_bytes=cap * dtype.bits // 8)
                self.tables.append(table)
                em.tensors[p.value] = p.name, p.value.tensor.dims, dtype
                em.staged[p.value] = Staged(lambda em, sub, row, table=table: self._states(table, sub))  # type: ignore[misc]
            elif p.keyword:
                em.scalars[p.value] = p.name
            else:
                em.tensors[p.value] = em.tensors[own[p.name].value]
                if own[p.name].value in em.staged:
                    em.staged[p.value] = em.staged[own[p.name].value]

    def _states(self, table: Value, sub: Sub) -> tuple[Value, int | None]:
        (_, axis, _), = self.em.groups((self.merge.dim,), sub)
        return self.k.mem_at(table, [axis.base]), 0 if axis.vl is not None else None

    def build(self) -> KFunc:
        self.k.work(self.total, self._item)
        return self.k.func

    def _item(self, w: Value) -> None:
        k = self.k
        with self.em.scope(self.axes(w)):
            init = [identity(k, s) for s in self.merge.states] if self.again else []
            k.pipe(w, 1, init, lambda _: (self.zero, self.last), self._copy, self._step, private=True)
            if not self.again:
                self._join()

    def _place(self, i: Value) -> Value:
        """The part of step i."""
        k = self.k
        at = k.idx_select(k.cmp("ge", i, self.steps), k.idx("sub", i, self.steps), i) if self.again else i
        return k.idx("add", k.idx("mul", at, self.limits.warps), self.warp)

    def _copy(self, w: Value, i: Value, stage: Value, _wstage: Value) -> None:
        k = self.k
        p = self._place(i)
        self.copy(w, p, clamp(k, k.idx("sub", self.parts, p), 1), stage)

    def _step(self, i: Value, stage: Value, _wstage: Value, totals: list[Value]) -> Sequence[Value]:
        k = self.k
        p = self._place(i)
        span = self.span(p)
        self.enter(stage, span)

        def local() -> Sequence[Value]:
            with ExitStack() as stack:
                for table, total in zip(self.tables, self.sweep.totals(stack, self.local, span, self.kept), strict=True):
                    k.s_store(k.mem_at(table, [p]), total)
            return []

        def apply() -> Sequence[Value]:
            with ExitStack() as stack:
                self.sweep.finish(stack, self.merge, totals)
                self.sweep.store([o for o in self.outs if o not in self.narrow()], self.lane, span)
            return []

        if not self.again:
            local()
            return []
        totals = k.if_(k.cmp("eq", i, self.steps), self._join, lambda before=totals: before)  # type: ignore[misc]
        k.if_(k.cmp("lt", i, self.steps), local, apply)
        return totals

    def _join(self) -> list[Value]:
        """The row's totals from the states of all parts, by every warp for itself; results without the lane dim by the first."""
        k = self.k
        k.bar(0)
        with ExitStack() as stack:
            totals = self.sweep.totals(stack, self.merge, Span(self.zero, self.parts))

            def store() -> Sequence[Value]:
                self.sweep.store(self.narrow(), None)
                return []

            if self.narrow():
                k.if_(k.cmp("eq", self.warp, 0), store)
        k.bar(0)
        return totals


def _stream_of(func: Func, em: Emitter) -> Stream:
    stream = find_stream(func)
    assert stream is not None
    stream.link(em)
    return stream
