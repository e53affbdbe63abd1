"""The merge of a stream's parts: a warp takes one row of the result. What varies with the part alone (maxima, sums, the factors of the re-base) runs
with lanes along the parts; the factors go to a table, and the wide states, fetched by DMA, are joined part by part with lanes along their own dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import K, KFunc
from rvgpu.ir.types import DType, TensorType, VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import REDUCE_OP, State, Stream, ceil_div, clamp, decode, find_stream, frame, identity, results, safe_anchor
from rvgpu.passes.places import Axis, Binds
from rvgpu.passes.rows import Emitter, Staged

BLOCK = 16  # parts fetched at once


def lower_merge(func: Func, limits: Limits) -> KFunc | None:
    """The kernel of a stream over parts; None when the function is none, or its states do not have this shape."""
    stream = find_stream(func)
    if stream is None or stream.dim.name is None or "." not in stream.dim.name:
        return None
    longest = max((t.dims for t in func.result_types), key=len)
    stored = [p.value.tensor.dims for p in func.params if stream.dim in p.value.tensor.dims]
    wide = [s for s in stream.states if longest and longest[-1] in s.dims] if any(longest and d[-1] == longest[-1] for d in stored) else []
    rows = longest[:-1] if wide else longest
    needs = {n for a in stream.anchor_needs for n in a}
    fits = all(set(s.dims) <= set(longest) for s in stream.states) and all(set(rows) <= set(t.dims) for t in func.result_types)
    if not fits or any(s.index in needs for s in wide):
        return None
    k, em = frame(func, limits)
    return _Merge(func, limits, stream, k, em, rows, longest[-1] if wide else None).build()


class _Merge:
    def __init__(self, func: Func, limits: Limits, stream: Stream, k: K, em: Emitter, rows: tuple[Dim, ...], lane: Dim | None) -> None:
        self.func, self.limits, self.stream, self.k, self.em = func, limits, stream, k, em
        self.rows, self.lane = rows, lane
        self.chunk = max(1, limits.vlen // 8)
        self.wide = [s for s in stream.states if lane is not None and lane in s.dims]
        stream.link(em)
        self.outs = results(func, k)
        self.parts = em.extent(stream.dim)
        self.one_chunk = limits.bound(stream.dim) <= self.chunk
        few = limits.product(rows) < limits.cores * limits.warps
        columns = limits.bound(lane) if lane is not None else 1
        self.groups = 1 if few or columns <= self.chunk else 2  # chunks of lanes in one item
        with k.at(em.root):
            self.warp, self.zero = k.special("warp"), k.const(0)
            self.across = ceil_div(k, em.extent(lane), self.groups * self.chunk) if lane is not None else k.const(1)
            self.items = k.idx("mul", em.product(rows), self.across)
            self.extents = [em.extent(d) for d in rows]

    def build(self) -> KFunc:
        self.buffers = self._buffers()
        self.k.work(ceil_div(self.k, self.items, self.limits.warps), self._item)
        return self.k.func

    def _buffers(self) -> dict[Value, Value]:
        """Two stages of BLOCK parts of each input that has both the parts and the lanes."""
        k, out = self.k, {}
        width = self.groups * self.chunk
        for p in self.func.params:
            dims = p.value.tensor.dims
            if self.lane in dims and self.stream.dim in dims:
                dtype = p.value.tensor.dtype
                out[p.value] = k.spm_alloc(dtype, [k.const(2), k.const(BLOCK), k.const(width)], [k.const(BLOCK * width), k.const(width), k.const(1)],
                                           name=p.name, size_bytes=2 * BLOCK * width * dtype.bits // 8, per_warp=True)
        return out

    # -- one item
    def _place(self, w: Value) -> tuple[list[Axis], Value, Value]:
        """(row coordinates, first lane, whether the item is this warp's own: a warp without one repeats the last and stores nothing)."""
        k = self.k
        item = k.idx("add", k.idx("mul", w, self.limits.warps), self.warp)
        mine = k.cmp("lt", item, self.items)
        *at, group = decode(k, k.idx("min", item, k.idx("sub", self.items, 1)), [*self.extents, self.across])
        return [Axis((d,), c) for d, c in zip(self.rows, at, strict=True)], k.idx("mul", group, self.groups * self.chunk), mine

    def _item(self, w: Value) -> None:
        k, em = self.k, self.em
        axes, self.base, mine = self._place(w)
        with ExitStack() as stack:
            stack.enter_context(em.scope(axes))
            if self.one_chunk:
                stack.enter_context(em.scope([self._parts_from(self.zero)]))
                for p in self.func.params:  # all in flight at once
                    if self.stream.dim in p.value.tensor.dims and self.lane not in p.value.tensor.dims:
                        em.one(p.value)
            narrow = [s for s in self.stream.states if s not in self.wide]
            for wave in self.stream.waves():
                if any(s in narrow for s in wave):
                    self._across(stack, [s for s in wave if s in narrow])
            stack.enter_context(em.scope(bind=self._anchor_binds(self.wide)))
            totals = self._join(w, self._table()) if self.wide else []
            stack.enter_context(em.scope(bind=self._finish_binds()))
            k.if_(mine, lambda: self._store(totals))

    def _parts_from(self, c: Value) -> Axis:
        """Lanes along the parts from c on."""
        return Axis((self.stream.dim,), c, self.k.idx("min", self.k.idx("sub", self.parts, c), self.chunk), self.chunk)

    def _over_parts(self, init: Sequence[Value], body: Callable[[Value, Value, list[Value]], Sequence[Value]]) -> list[Value]:
        """body(first part, live lanes, carried) with lanes along the parts, chunk by chunk."""
        if self.one_chunk:
            vl = self.em.lane_axis().vl
            assert vl is not None
            return list(body(self.zero, vl, list(init)))

        def step(c: Value, carried: list[Value]) -> Sequence[Value]:
            axis = self._parts_from(c)
            assert axis.vl is not None
            with self.em.scope([axis]):
                return body(c, axis.vl, carried)

        return self.k.for_(0, self.parts, self.chunk, init, step)

    def _across(self, stack: ExitStack, wave: list[State]) -> None:
        """Totals of states that have no lanes of their own."""
        k, em = self.k, self.em
        stack.enter_context(em.scope(bind=self._anchor_binds(wave)))
        width = k.const(self.chunk)

        def chunk(_: Value, vl: Value, parts: list[Value]) -> Sequence[Value]:
            out = []
            for s, part in zip(wave, parts, strict=True):
                x = em.one(s.body.yielded[0])
                x = x if isinstance(x.type, VecType) else k.bcast(x, vl, self.chunk)
                out.append(k.vt(REDUCE_OP[s.kind], part, k.tail(x, identity(k, s), vl, width), vl=width))
            return out

        parts = self._over_parts([k.bcast(identity(k, s), width, self.chunk) for s in wave], chunk)
        binds: Binds = {}
        for s, part in zip(wave, parts, strict=True):
            total = k.xred(s.kind, part, width)
            binds |= {self.stream.anchors.args[s.index]: (total,), self.stream.finish.args[s.index]: (total,)}
        stack.enter_context(em.scope(bind=binds))

    def _table(self) -> Binds:
        """What the wide bodies need and only the part decides: made along lanes, read back part by part."""
        k, em = self.k, self.em
        slots: dict[Value, int] = {}
        for s in self.wide:
            for v in self._per_part(s.body.yielded[0]):
                slots.setdefault(v, len(slots))
        if not slots:
            return {}
        cap = -(-max(1, self.limits.bound(self.stream.dim)) // self.chunk) * self.chunk
        with k.at(em.root):
            table = k.spm_alloc(DType.f32, [k.const(len(slots)), k.const(cap)], [k.const(cap), k.const(1)], name="factors",
                                size_bytes=len(slots) * cap * 4, per_warp=True)

        def chunk(c: Value, vl: Value, _: list[Value]) -> Sequence[Value]:
            for v, slot in slots.items():
                k.store(k.mem_at(table, [k.const(slot), c]), em.one(v), vl, axis=1)
            return []

        self._over_parts([], chunk)
        return {v: lambda slot=slot: (k.s_load(k.mem_at(table, [k.const(slot), self.at])),) for v, slot in slots.items()}  # type: ignore[misc]

    def _per_part(self, v: Value) -> list[Value]:
        """The largest subexpressions of v that vary with the part and not with the lanes."""
        v = self.em.resolve(v)
        if self.lane not in v.tensor.dims:
            return [v] if self.stream.dim in v.tensor.dims else []
        return [x for o in v.op.operands for x in self._per_part(o)] if v.op is not None else []

    def _lanes(self, g: int) -> Axis:
        k = self.k
        assert self.lane is not None
        at = k.idx("add", self.base, g * self.chunk) if g else self.base
        return Axis((self.lane,), at, clamp(k, k.idx("sub", self.em.extent(self.lane), at), self.chunk), self.chunk)

    def _join(self, w: Value, table: Binds) -> list[Value]:
        """The wide states' totals, group by group."""
        k, em = self.k, self.em
        lanes = [self._lanes(g) for g in range(self.groups)]

        def step(i: Value, stage: Value, _w: Value, carried: list[Value]) -> Sequence[Value]:
            for v, buffer in self.buffers.items():
                em.staged[v] = Staged(lambda em, sub, row, buffer=buffer: self._staged(buffer, stage, i))  # type: ignore[misc]

            def part(p: Value, accs: list[Value]) -> Sequence[Value]:
                self.at = k.idx("add", i, p)
                self.slot = p
                out = []
                with em.scope([Axis((self.stream.dim,), self.at)], table):
                    for g, axis in enumerate(lanes):
                        self.group = g
                        with em.scope([axis]):
                            for n, s in enumerate(self.wide):
                                assert axis.vl is not None
                                out.append(k.vt(REDUCE_OP[s.kind], accs[g * len(self.wide) + n], em.one(s.body.yielded[0]), vl=axis.vl))
                return out

            return k.for_(0, k.idx("min", k.idx("sub", self.parts, i), BLOCK), 1, carried, part)

        init = []
        for axis in lanes:
            assert axis.vl is not None
            init += [k.bcast(identity(k, s), axis.vl, self.chunk) for s in self.wide]
        return k.pipe(w, BLOCK, init, lambda _: (self.zero, self.parts), self._copy, step, private=True)

    def _staged(self, buffer: Value, stage: Value, first: Value) -> tuple[Value, int | None]:
        k = self.k
        return k.mem_at(buffer, [stage, self.slot, k.const(self.group * self.chunk)]), 2

    def _copy(self, w: Value, i: Value, stage: Value, _wstage: Value) -> None:
        k, em = self.k, self.em
        axes, base, _ = self._place(w)
        assert self.lane is not None
        parts, columns = Axis((self.stream.dim,), i), Axis((self.lane,), base)
        rows = k.idx("min", k.idx("sub", self.parts, i), BLOCK)
        cols = clamp(k, k.idx("sub", em.extent(self.lane), base), self.groups * self.chunk)
        with em.scope([*axes, parts, columns]):
            for v, buffer in self.buffers.items():
                name, dims, dtype = em.tensors[v]
                mem, _ = em.address(name, dims, dtype, (), 0)
                zero = k.const(0)
                k.dma_load(k.mem_at(buffer, [stage, zero, zero]), mem, rows, cols, rows, cols,
                           src_axes=(dims.index(self.stream.dim), dims.index(self.lane)), dst_axes=(1, 2))

    def _store(self, totals: list[Value]) -> Sequence[Value]:
        """The results of this item; those without lanes with its first group."""
        k, em = self.k, self.em
        narrow = [o for o in self.outs if self.lane not in o[2].dims]

        def scalars() -> Sequence[Value]:
            for name, v, t in narrow:
                mem, _ = em.address(name, t.dims, t.dtype, (), 0)
                k.s_store(mem, em.one(v))
            return []

        if narrow:
            k.if_(k.cmp("eq", self.base, 0), scalars)
        for g in range(self.groups if self.wide else 0):
            axis = self._lanes(g)
            mine = totals[g * len(self.wide):(g + 1) * len(self.wide)]
            with em.scope([axis], {self.stream.finish.args[s.index]: (x,) for s, x in zip(self.wide, mine, strict=True)}):
                for name, v, t in self.outs:
                    if self.lane in t.dims:
                        self._store_lanes(name, v, t, axis)
        return []

    def _store_lanes(self, name: str, v: Value, t: TensorType, axis: Axis) -> None:
        k, em = self.k, self.em
        x = em.one(v)
        assert axis.vl is not None
        mem, lane = em.address(name, t.dims, t.dtype, (), 0)
        assert lane is not None
        k.store(mem, x if isinstance(x.type, VecType) else k.bcast(x, axis.vl, self.chunk), axis.vl, axis=lane)

    # -- anchors
    def _anchor_binds(self, states: Sequence[State]) -> Binds:
        binds: Binds = {}
        for s in states:
            for arg, a in zip(self.stream.anchor_args(s), s.anchors, strict=True):
                binds[arg] = (safe_anchor(self.k, self.em.one(self.stream.anchors.yielded[a]), None)[0],)
        return binds

    def _finish_binds(self) -> Binds:
        args = self.stream.finish.args[len(self.stream.states):]
        return {arg: (safe_anchor(self.k, self.em.one(d), None)[0],) for arg, d in zip(args, self.stream.anchors.yielded, strict=True)}
