"""Columns: lanes run along dims that stand innermost in memory, and the rows of a block, along one more dim, go by one after the other.

Sums over a dim that is not innermost keep a state for each lane; without a reduction the same blocks turn what is stored in another order than it is
read. Each warp fetches blocks of rows x lanes for itself, by DMA: what has the two dims the other way round is transposed on its way. States
of several waves need their rows more than once: then a block holds all of them, else they go by in small ones. Long columns go in
parts (`row_plan.columns`), whose states a second kernel of this kind joins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from rvgpu.ir.core import Func, Op, Value
from rvgpu.ir.tile_build import K, KFunc
from rvgpu.ir.types import DType, VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.keep import INDEXED
from rvgpu.passes.kernel import REDUCE_OP, State, ceil_div, clamp, decode, frame, identity, results
from rvgpu.passes.places import Axis, Binds, Rows, Sub
from rvgpu.passes.row_plan import Columns, columns
from rvgpu.passes.rows import Emitter, Staged
from rvgpu.passes.stage import ALIGN
from rvgpu.passes.sweep import Out, Sweep, anchor_binds, finish_binds, state_bodies, total_binds

BLOCK = 64  # rows of a block that need not hold all of them
AT_ONCE = 128  # lanes whose rows are interleaved: two rows of 64


def lower_columns(func: Func, limits: Limits) -> KFunc | None:
    """The kernel of a function that `row_plan.columns` has a plan for; else None."""
    plan = columns(func, limits)
    return None if plan is None else _Columns(func, limits, plan).build()


class _Fetched:
    """An input's blocks: buffer[stage][row][lane] per warp, with the place of the block at hand."""

    def __init__(self, k: K, em: Emitter, value: Value, plan: Columns, shape: tuple[int, int, int]) -> None:
        self.k, self.em, self.plan, self.value = k, em, plan, value
        self.name, self.dims, self.dtype = em.tensors[value]
        stages, rows, lanes = shape
        with k.at(em.root):
            self.buffer = k.spm_alloc(self.dtype, [k.const(n) for n in shape], [k.const(rows * lanes), k.const(lanes), k.const(1)], name=self.name,
                                      size_bytes=stages * rows * lanes * self.dtype.bits // 8, per_warp=True)
        self._use()

    def _use(self) -> None:
        self.em.staged[self.value] = Staged(self._at, whole=False)

    def copy(self, rows: Value, cols: Value, stage: Value, base: Value) -> None:
        """Starts the transfer of a block from the coordinates in scope on, its first lane `base`."""
        k, zero = self.k, self.k.const(0)
        parts = [g for g, _, _ in self.em.groups(self.dims, ())]
        mem, _ = self.em.address(self.name, self.dims, self.dtype, (), 0)
        down, across = (next(n for n, g in enumerate(parts) if d in g) for d in (self.plan.down, self.plan.lanes[-1]))
        to = k.mem_at(self.buffer, [stage, zero, zero])
        if across > down:
            k.dma_load(to, mem, rows, cols, rows, cols, src_axes=(down, across), dst_axes=(1, 2))
        else:
            k.dma_load(to, mem, cols, rows, cols, rows, src_axes=(across, down), dst_axes=(2, 1))

    def enter(self, stage: Value, first: Value, base: Value) -> None:
        self.place = stage, first, base

    def _at(self, em: Emitter, sub: Sub, row: int) -> tuple[Value, int | None]:
        stage, first, base = self.place
        down, across = (em.axis_of(d)[1] for d in (self.plan.down, self.plan.lanes[-1]))
        at = [stage, self.k.idx("sub", em.coordinate(down, row), first), self.k.idx("sub", across.base, base)]
        return self.k.mem_at(self.buffer, at), 2


class _Gathered(_Fetched):
    """The rows of a table that an index says, looked up by the transfer."""

    def __init__(self, k: K, em: Emitter, take: Op, plan: Columns, shape: tuple[int, int, int]) -> None:
        self.result, self.ids = take.result, em.tensors[take.operands[1]]
        super().__init__(k, em, take.operands[0], plan, shape)

    def _use(self) -> None:
        pass  # the table is read here alone

    def copy(self, rows: Value, cols: Value, stage: Value, base: Value) -> None:
        k, zero, (name, dims, dtype) = self.k, self.k.const(0), self.ids
        table = self.em.view(self.name, self.dims, self.dtype, (self.dims[:1], self.dims[1:]))
        index, _ = self.em.address(name, dims, dtype, (), 0)
        k.dma_load(k.mem_at(self.buffer, [stage, zero, zero]), k.mem_at(table, [zero, base]), rows, cols, rows, cols, src_axes=(0, 1),
                   dst_axes=(1, 2), index=index)

    def reads(self, at_once: int) -> Rows:
        """The rows at the coordinates in scope."""
        axis = self.em.lane_axis()
        assert axis.vl is not None
        return tuple(self.k.load(self._at(self.em, (), row)[0], axis.vl, axis=2, lanes=axis.lanes) for row in range(at_once))


class _Columns:
    def __init__(self, func: Func, limits: Limits, plan: Columns) -> None:
        self.func, self.limits, self.plan, self.stream = func, limits, plan, plan.stream
        self.k, self.em = frame(func, limits)
        k, em = self.k, self.em
        self.sweep, self.outs = Sweep(k, em, limits), results(func, k)
        if self.stream is not None:
            self.stream.link(em)
        self.waves = self.stream.waves() if self.stream is not None else []
        self.resident = self.stream is None or len(self.waves) > 1 or any(plan.down in o[2].dims for o in self.outs)
        self.lanes, fetched, shape = self._shape()
        self.block = shape[1]
        self.gathered = [_Gathered(k, em, op, plan, shape) for op in (plan.gathers if shape[0] else ())]
        self.fetched = [*(_Fetched(k, em, v, plan, shape) for v in fetched), *self.gathered]
        self.interleaved = max(1, AT_ONCE // self.lanes)
        self.length, self.width = em.extent(plan.down), em.product(plan.lanes)
        with k.at(em.root):
            self.zero, self.warp = k.const(0), k.special("warp")
            size = self._part()
            self.size = k.const(size) if size else self.length
            self.parts = ceil_div(k, self.length, size) if size else k.const(1)
            self.across = ceil_div(k, self.width, self.lanes)
            self.extents = [*(em.extent(d) for d in plan.rows), self.parts, self.across]
            self.items = em.product(plan.rows)
            for n in (self.parts, self.across):
                self.items = k.idx("mul", self.items, n)

    # -- decisions
    def _part(self) -> int:
        """Rows of a work item, 0 for all."""
        return self.block if self.stream is None else self.stream.part

    def _shape(self) -> tuple[int, list[Value], tuple[int, int, int]]:
        """(lanes, the inputs that are fetched, their stages, rows and lanes): the widest that fits."""
        plan, limits = self.plan, self.limits
        fits = [p.value for p in self.func.params if not p.keyword and self._fits(p.value)]
        bits = sum(v.tensor.dtype.bits for v in [*fits, *(op.result for op in plan.gathers)])
        most = max(1, limits.bound(plan.down))
        whole = self.stream is not None and self.resident
        item = min(BLOCK, most) if self.stream is None else self.stream.part or most  # rows of a work item
        high = item if whole else min(BLOCK, item)
        least, widest = max(1, limits.vlen // 32), max(1, limits.vlen // 8)
        while widest > least and (limits.product(plan.lanes) <= widest // 2 or self._items(item, widest) < limits.cores * limits.warps):
            widest //= 2
        lanes = [n for n in (widest, widest // 2, widest // 4) if n >= least]
        room = limits.spm_bytes // limits.warps - ALIGN * len(self.func.params)
        shapes = ((stages, h, n) for h in ((high,) if whole else (high, high // 2, high // 4)) for stages in (2, 1) for n in lanes)
        for shape in shapes:
            if shape[1] and math.prod(shape) * bits // 8 <= room:
                return shape[2], fits, shape
        return widest, [], (0, BLOCK, 0)

    def _items(self, rows: int, lanes: int) -> int:
        """Work items of a launch."""
        limits, plan = self.limits, self.plan
        return limits.product(plan.rows) * -(-limits.bound(plan.down) // rows) * -(-limits.product(plan.lanes) // lanes)

    def _fits(self, v: Value) -> bool:
        """Both dims, one of them innermost, and read nowhere but at its own place."""
        dims, down, lanes = v.tensor.dims, self.plan.down, self.plan.lanes
        moved = any(op.name in INDEXED and op not in self.plan.gathers for op in self.func.body.walk())
        if down not in dims or lanes[-1] not in dims or v.tensor.dtype is DType.i4 or moved:
            return False
        return dims[-len(lanes):] == lanes or (len(lanes) == 1 and dims[-1] == down)

    # -- structure
    def _place(self, w: Value) -> tuple[list[Axis], Value, Value, Value, Value]:
        """(row coordinates and the part's, the item's first row, how many it has, its first lane, whether it is there)."""
        k, plan = self.k, self.plan
        item = k.idx("add", k.idx("mul", w, self.limits.warps), self.warp)
        live = clamp(k, k.idx("sub", self.items, item), 1)
        *at, part, group = decode(k, k.idx("min", item, k.idx("sub", self.items, 1)), self.extents)  # (a warp without an item only reads)
        first = k.idx("mul", part, self.size)
        axes = [Axis((d,), c) for d, c in zip(plan.rows, at, strict=True)]
        if self.stream is not None and self.stream.part_dim is not None:
            axes.append(Axis((self.stream.part_dim,), part))
        rows = k.idx("mul", clamp(k, k.idx("sub", self.length, first), self.size), live)
        return axes, first, rows, k.idx("mul", group, self.lanes), live

    def build(self) -> KFunc:
        self.k.work(ceil_div(self.k, self.items, self.limits.warps), self._item)
        return self.k.func

    def _copy(self, w: Value, i: Value, stage: Value) -> None:
        """Starts the transfers of an item's rows from i on."""
        k = self.k
        axes, first, rows, base, live = self._place(w)
        here = clamp(k, k.idx("sub", rows, i), self.block)
        cols = k.idx("mul", self._cols(base), live)
        with self.em.scope([*axes, Axis((self.plan.down,), k.idx("add", first, i)), Axis(self.plan.lanes, base)]):
            for f in self.fetched:
                f.copy(here, cols, stage, base)

    def _cols(self, base: Value) -> Value:
        return clamp(self.k, self.k.idx("sub", self.width, base), self.lanes)

    def _item(self, w: Value) -> None:
        k = self.k
        axes, first, rows, base, live = self._place(w)
        vl = self._cols(base)

        def at(stage: Value, i: Value) -> tuple[Value, Value]:
            """Where a step finds its rows, and how many they are."""
            here = k.idx("add", first, i)
            for f in self.fetched:
                f.enter(stage, here, base)
            return here, rows if self.resident else clamp(k, k.idx("sub", rows, i), self.block)

        with self.em.scope(axes), self.em.scope([Axis(self.plan.lanes, base, vl, self.lanes)]):
            if self.resident:
                def whole(stage: Value) -> Sequence[Value]:
                    k.for_(0, live, 1, [], lambda _i, _: self._whole(*at(stage, self.zero), vl))
                    return []

                if self.fetched:
                    k.pipe(w, 1, [], lambda _: (self.zero, k.const(1)), lambda w, _i, _s, wstage: self._copy(w, self.zero, wstage),
                           lambda _i, _s, wstage, _: whole(wstage), private=True)
                else:
                    whole(self.zero)
                return
            wave, = self.waves
            init = self._init(wave, vl)

            def step(i: Value, stage: Value, parts: list[Value]) -> list[Value]:
                return self._wave(wave, *at(stage, i), vl, parts)

            if self.fetched:
                parts = k.pipe(w, self.block, init, lambda _: (self.zero, self.size), lambda w, i, s, _w: self._copy(w, i, s),
                               lambda i, s, _w, parts: step(i, s, parts), private=True)
            else:
                parts = k.for_(0, rows, self.block, init, lambda i, parts: step(i, self.zero, parts))
            with ExitStack() as stack:
                self._bind(stack, wave, parts, rows)
                k.if_(k.cmp("eq", live, 1), lambda: self._store(stack, first, rows, vl))

    # -- an item
    def _whole(self, first: Value, rows: Value, vl: Value) -> Sequence[Value]:
        with ExitStack() as stack:
            for wave in self.waves:
                assert self.stream is not None
                stack.enter_context(self.em.scope(bind=anchor_binds(self.k, self.em, self.stream, wave, vl)))
                self._bind(stack, wave, self._wave(wave, first, rows, vl, self._init(wave, vl)), rows)
            return self._store(stack, first, rows, vl)

    def _init(self, wave: list[State], vl: Value) -> list[Value]:
        """What states start from: along lanes, or one for all of them."""
        starts = [(identity(self.k, s), self.plan.lanes[-1] in s.dims) for s in wave if not s.counts]
        return [self.k.bcast(x, vl, self.lanes) if wide else x for x, wide in starts]

    def _bind(self, stack: ExitStack, wave: list[State], parts: Sequence[Value], rows: Value) -> None:
        """The wave's totals, bound in a scope that the stack holds."""
        k, totals, binds = self.k, iter(parts), Binds()
        for s in wave:
            assert self.stream is not None
            binds |= total_binds(self.stream, s, (k.s_cast(k.s_from_idx(rows), s.dtype) if s.counts else next(totals),))
        stack.enter_context(self.em.scope(bind=binds))

    def _wave(self, wave: list[State], first: Value, rows: Value, vl: Value, init: list[Value]) -> list[Value]:
        """Every state of the wave over some rows, in order."""
        k, em = self.k, self.em

        def body(at_once: int, parts: list[Value]) -> list[Value]:
            out = []
            for s, part in zip((s for s in wave if not s.counts), parts, strict=True):
                found, name = state_bodies(em, s), REDUCE_OP[s.kind]
                for u in range(at_once):
                    x = found[u % len(found)]
                    if not isinstance(part.type, VecType):
                        part = k.s(name, part, x)
                    else:
                        part = em.add(part, x, vl) if s.kind == "sum" else k.vt(name, part, x, vl=vl)
                out.append(part)
            return out

        return self._rows(first, rows, init, body)

    def _rows(self, first: Value, rows: Value, init: list[Value], body: Callable[[int, list[Value]], list[Value]]) -> list[Value]:
        """body(rows at once, carried) with the coordinate of every row in scope."""
        k = self.k

        def go(lo: Value, hi: Value, at_once: int, carried: list[Value]) -> list[Value]:
            def step(i: Value, carried: list[Value]) -> list[Value]:
                binds: Binds = {g.result: lambda g=g: g.reads(at_once) for g in self.gathered}  # type: ignore[misc]
                with self.em.scope([Axis((self.plan.down,), i)], binds, at_once):
                    return body(at_once, carried)

            return k.for_(lo, hi, at_once, carried, step)

        end = k.idx("add", first, rows)
        if self.interleaved == 1:
            return go(first, end, 1, init)
        most = k.idx("add", first, k.idx("mul", k.idx("div", rows, self.interleaved), self.interleaved))
        return go(most, end, 1, go(first, most, self.interleaved, init))

    def _store(self, stack: ExitStack, first: Value, rows: Value, vl: Value) -> Sequence[Value]:
        k, em, down = self.k, self.em, self.plan.down
        if self.stream is not None:
            stack.enter_context(em.scope(bind=finish_binds(k, em, self.stream, vl)))
        for o in self.outs:
            if down not in o[2].dims:
                self._store_once(o, vl)
        tall = [o for o in self.outs if down in o[2].dims]

        def each(at_once: int, _: list[Value]) -> list[Value]:
            for name, v, t in tall:
                found = em.emit(v)
                for u in range(at_once):
                    x = found[u % len(found)]
                    mem, lane = em.address(name, t.dims, t.dtype, (), u)
                    assert lane is not None
                    k.store(mem, x if isinstance(x.type, VecType) else k.bcast(x, vl, self.lanes), vl, axis=lane)
            return []

        if tall:
            self._rows(first, rows, [], each)
        return []

    def _store_once(self, o: Out, vl: Value) -> None:
        """A result without rows: along lanes, or (a count) by the first item of those that differ in nothing that it has."""
        k, em = self.k, self.em
        if self.plan.lanes[-1] in o[2].dims:
            self.sweep.store_lanes(o, (), vl)
            return
        mine = k.cmp("eq", em.lane_axis().base, 0)
        for d in self.plan.rows:
            if d not in o[2].dims:
                mine = k.s("and", mine, k.cmp("eq", em.axis_of(d)[1].base, 0))

        def store() -> Sequence[Value]:
            self.sweep.store_scalar(o)
            return []

        k.if_(mine, store)
