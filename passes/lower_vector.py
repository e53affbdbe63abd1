"""Clusters without a matrix contraction become row kernels: each warp takes rows, runs its states over them wave by wave in
register chunks, and stores what is left to compute.

Lanes run along the streamed dim when it is innermost in memory (per-lane partial states, then one reduction across lanes
in a fixed tree), else along the result's last dim. With a whole row at hand the block of the cascade is the row itself, so no re-basing
is needed: every wave sees final anchors. Rows that fit are fetched by DMA, double buffered, each warp for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.numeric import integer_range
from rvgpu.ir.tile_build import K, KFunc
from rvgpu.ir.types import DType, TensorType, VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import (
    IDENTITY,
    REDUCE_OP,
    State,
    Stream,
    ceil_div,
    clamp,
    decode,
    find_stream,
    frame,
    reject,
    results,
    safe_anchor,
)
from rvgpu.passes.rows import Axis, Emitter, Piece, Staged, Sub


@dataclass(eq=False)
class Lanes:
    """The lane dim of a sweep: the dim that has the coordinate and, when results are concatenated along it, their pieces."""

    dim: Dim
    pieces: list[tuple[Value | None, Sub]]  # offset of the piece in the result, substitution to reach it


def lower_vector(func: Func, limits: Limits) -> KFunc:
    k, em = frame(func, limits)
    return _Vector(func, limits, k, em).build()


class _Vector:
    def __init__(self, func: Func, limits: Limits, k: K, em: Emitter) -> None:
        self.func, self.limits, self.k, self.em = func, limits, k, em
        self.stream = find_stream(func)
        self.outs = results(func, k)
        self.chunk = max(1, limits.vlen // 8)  # lanes: LMUL 4 of f32, a function of VLEN only
        if self.stream:
            self.stream.link(em)
        self.lane = self._lane_dim()
        self.along = self.stream is not None and self.lane == self.stream.dim
        self.rows = self._row_dims()

    # -- decisions
    def _lane_dim(self) -> Dim | None:
        """The streamed dim if most inputs that carry it have it innermost, else the first result's innermost dim."""
        if self.stream:
            r = self.stream.dim
            carry = [t for t in self.k.func.tensors if not t.output and r in t.dims]
            inner = sum(1 for t in carry if t.dims[-1] == r)
            last = next((t.dims[-1] for _, _, t in self.outs if t.dims and t.dims[-1] != r), None)
            if 2 * inner >= max(1, len(carry)) or last is None:
                return r
            return last
        return self.outs[0][2].dims[-1] if self.outs[0][2].dims else None

    def _row_dims(self) -> tuple[Dim, ...]:
        longest = max((t for _, _, t in self.outs), key=lambda t: len(t.dims))
        r = self.stream.dim if self.stream else None
        rows = tuple(d for d in longest.dims if d != self.lane and d != r)
        for _, v, t in self.outs:
            missing = [d for d in rows if d not in t.dims]
            if missing:
                raise reject(f"results of one kernel must share their row dims; {t} lacks {missing[0]}", v)
        return rows

    # -- structure
    def build(self) -> KFunc:
        k, em = self.k, self.em
        total = em.product(self.rows)
        per_item, stage = self._staging()
        rows_per_cta = per_item * self.limits.warps
        count = ceil_div(k, total, rows_per_cta)
        extents = [em.extent(d) for d in self.rows]
        warp = k.special("warp")
        lo, hi = k.const(0), k.const(1)

        def first_row(w: Value) -> Value:
            return k.idx("add", k.idx("mul", w, rows_per_cta), k.idx("mul", warp, per_item))

        def item(row0: Value) -> None:
            n = clamp(k, k.idx("sub", total, row0), per_item)

            def row(i: Value, _: list[Value]) -> Sequence[Value]:
                at = decode(k, k.idx("add", row0, i), extents) if extents else []
                with em.scope([Axis((d,), c) for d, c in zip(self.rows, at, strict=True)]):
                    self.row_index = i
                    self._row()
                return []

            k.for_(0, n, 1, [], row)

        def body(w: Value) -> None:
            if not stage:
                item(first_row(w))
                return

            def copy(w: Value, _i: Value, _stage: Value, wstage: Value) -> None:
                row0 = first_row(w)
                n = clamp(k, k.idx("sub", total, row0), per_item)
                for s in stage:
                    s.copy(row0, n, wstage)

            def step(_i: Value, _stage: Value, wstage: Value, _c: list[Value]) -> Sequence[Value]:
                for s in stage:
                    s.enter(wstage)
                item(first_row(w))
                return []

            k.pipe(w, 1, [], lambda _: (lo, hi), copy, step, private=True)

        k.work(count, body)
        return k.func

    def _staging(self) -> tuple[int, list[_StagedRows]]:
        """Rows per work item and warp, and the inputs fetched by DMA: those indexed by exactly the row dims and one more."""
        fit = []
        for p in self.func.params:
            if not p.keyword:
                dims = p.value.tensor.dims
                if self.rows and dims[:-1] == self.rows and len(dims) == len(self.rows) + 1:
                    fit.append((p.value, p.name, dims, p.value.tensor.dtype))
        cost = sum(max(1, self.limits.bound(d[-1])) * t.bits // 8 for _, _, d, t in fit)
        room = (self.limits.spm_bytes - 4096) // (2 * self.limits.warps)
        if not fit or cost > room:
            return 1, []
        rows_bound = 1
        for d in self.rows:
            rows_bound *= max(1, self.limits.bound(d))
        workers = self.limits.cores * self.limits.warps
        per_item = max(1, min(room // cost, 8192 // cost, rows_bound // (2 * workers)))
        return per_item, [_StagedRows(self, v, n, d, t, per_item) for v, n, d, t in fit]

    # -- one row: everything with the row's coordinates in scope
    def _row(self) -> None:
        if self.stream is None:
            self._store_sweep(self.outs)
        elif self.along:
            self._totals_across_lanes(self.stream)
        else:
            self._lanes_beside_rows(self.stream)

    def _pieces(self, v: Value) -> Lanes:
        """The lane dim of a result, looking through elementwise ops for a concat along it."""
        assert self.lane is not None
        seen, todo = set(), [self.em.resolve(v)]
        while todo:
            x = todo.pop()
            if x in seen or x.op is None:
                continue
            seen.add(x)
            if x.op.name == "concat" and x.op.attrs["new"] == self.lane:
                small = x.op.attrs["dim"]
                assert isinstance(small, Dim)
                out: list[tuple[Value | None, Sub]] = []
                size = self.em.extent(small)
                for n in range(len(x.op.operands)):
                    with self.k.at(self.em.root):
                        offset = self.k.idx("mul", size, n)
                    out.append((offset, ((self.lane, Piece(small, offset, n)),)))
                return Lanes(small, out)
            if x.op.name != "stream":
                todo += [self.em.resolve(o) for o in x.op.operands]
        return Lanes(self.lane, [(None, ())])

    def _chunks(self, dim: Dim, body: Callable[[Value, Value], None]) -> None:
        """body(base, live lanes) over the dim; ragged in the last chunk."""
        k = self.k
        n = self.em.extent(dim)
        width = self.chunk

        def step(c: Value, _: list[Value]) -> Sequence[Value]:
            body(c, k.idx("min", k.idx("sub", n, c), width))
            return []

        k.for_(0, n, width, [], step)

    def _store_sweep(self, outs: list[tuple[str, Value, TensorType]]) -> None:
        """Stores results that carry the lane dim, chunk by chunk, and the others once."""
        k, em = self.k, self.em
        wide = [o for o in outs if self.lane is not None and self.lane in o[2].dims]
        for name, v, t in outs:
            if (name, v, t) not in wide:
                mem, lane = em.address(name, t.dims, t.dtype, (), 0)
                assert lane is None
                k.s_store(mem, em.one(v))
        shapes: dict[tuple[Dim, tuple[Sub, ...]], list[tuple[str, Value, TensorType, Lanes]]] = {}
        for name, v, t in wide:
            lanes = self._pieces(v)
            shapes.setdefault((lanes.dim, tuple(s for _, s in lanes.pieces)), []).append((name, v, t, lanes))
        for (dim, _), group in shapes.items():
            def chunk(base: Value, vl: Value, dim: Dim = dim,
                      group: list[tuple[str, Value, TensorType, Lanes]] = group) -> None:
                with em.scope([Axis((dim,), base, vl, self.chunk)]):
                    for name, v, t, lanes in group:
                        for _, sub in lanes.pieces:
                            self._store_lanes(name, v, t, sub, vl)

            self._chunks(dim, chunk)

    def _store_lanes(self, name: str, v: Value, t: TensorType, sub: Sub, vl: Value) -> None:
        k, em = self.k, self.em
        x = em.one(v, sub)
        if not isinstance(x.type, VecType):
            x = k.bcast(x, vl, self.chunk)
        mem, lane = em.address(name, t.dims, t.dtype, sub, 0)
        assert lane is not None
        k.store(mem, x, vl, axis=lane)

    # -- streams
    def _body(self, state: State) -> Value:
        """The state's body at the coordinates in scope; a contraction on this unit multiplies in the state's dtype."""
        parts = [self.em.one(v) for v in state.body.yielded]
        if len(parts) == 1:
            return parts[0]
        parts = [self.em.apply("cast", [x], {}, state.dtype) if _dtype(x) != state.dtype else x for x in parts]
        return self.em.apply("mul", parts, {}, state.dtype)

    def _identity(self, state: State) -> Value:
        value = IDENTITY[state.kind]
        if not state.dtype.is_float:
            low, high = integer_range(state.dtype)
            value = {"sum": 0, "max": low, "min": high}[state.kind]
        return self.k.sconst(value, state.dtype)

    def _anchor_binds(self, stream: Stream, wave: list[State], vl: Value | None) -> dict[Value, tuple[Value, ...]]:
        """Safe anchors for the bodies of a wave; the states they need are bound in scope."""
        binds: dict[Value, tuple[Value, ...]] = {}
        made: dict[int, Value] = {}
        for state in wave:
            for arg, a in zip(stream.anchor_args(state), state.anchors, strict=True):
                if a not in made:
                    d = self.em.one(stream.anchors.yielded[a])
                    made[a] = safe_anchor(self.k, d, vl if isinstance(d.type, VecType) else None)[0]
                binds[arg] = (made[a],)
        return binds

    def _bind_total(self, stream: Stream, state: State, total: Value) -> dict[Value, tuple[Value, ...]]:
        """State k stands as an argument in the anchor and finish regions."""
        return {stream.anchors.args[state.index]: (total,), stream.finish.args[state.index]: (total,)}

    def _finish_anchors(self, stream: Stream, vl: Value | None) -> dict[Value, tuple[Value, ...]]:
        n = len(stream.states)
        out: dict[Value, tuple[Value, ...]] = {}
        for a, arg in enumerate(stream.finish.args[n:]):
            d = self.em.one(stream.anchors.yielded[a])
            out[arg] = (safe_anchor(self.k, d, vl if isinstance(d.type, VecType) else None)[0],)
        return out

    def _nest(self, binds: list[dict[Value, tuple[Value, ...]]], then: Callable[[], None]) -> None:
        merged: dict[Value, tuple[Value, ...]] = {}
        for b in binds:
            merged.update(b)
        with self.em.scope(bind=merged):
            then()

    def _totals_across_lanes(self, stream: Stream) -> None:
        """Lanes along the streamed dim: per-lane partials over full chunks, one ragged chunk, then across lanes."""
        self._wave_across(stream, stream.waves(), 0, [])

    def _wave_across(self, stream: Stream, waves: list[list[State]], n: int, binds: list[dict[Value, tuple[Value, ...]]]) -> None:
        k, em = self.k, self.em
        if n == len(waves):
            def end() -> None:
                with em.scope(bind=self._finish_anchors(stream, None)):
                    self._store_sweep(self.outs)
            self._nest(binds, end)
            return
        wave = waves[n]

        def run() -> None:
            with em.scope(bind=self._anchor_binds(stream, wave, None)):
                width = k.const(self.chunk)
                extent = em.extent(stream.dim)
                full = k.idx("mul", k.idx("div", extent, width), width)
                init = [k.bcast(self._identity(s), width, self.chunk) for s in wave]

                def chunk(base: Value, vl: Value, parts: list[Value]) -> list[Value]:
                    with em.scope([Axis((stream.dim,), base, vl, self.chunk)]):
                        out = []
                        for state, part in zip(wave, parts, strict=True):
                            x = self._body(state)
                            if not isinstance(x.type, VecType):
                                x = k.bcast(x, vl, self.chunk)
                            if vl is not width:
                                x = k.tail(x, self._identity(state), vl, width)
                            out.append(k.vt(REDUCE_OP[state.kind], part, x, vl=width))
                    return out

                parts = k.for_(0, full, self.chunk, init, lambda c, p: chunk(c, width, p))
                rest = k.idx("sub", extent, full)
                parts = k.if_(k.cmp("gt", rest, 0), lambda: chunk(full, rest, parts), lambda: parts)
                totals = [k.xred(s.kind, p, width) for s, p in zip(wave, parts, strict=True)]
            more = [self._bind_total(stream, s, t) for s, t in zip(wave, totals, strict=True)]
            self._wave_across(stream, waves, n + 1, [*binds, *more])

        if binds:
            self._nest(binds, run)
        else:
            run()

    def _lanes_beside_rows(self, stream: Stream) -> None:
        """Lanes along another dim: the streamed dim is a loop over rows, every lane has its own states."""
        em = self.em
        assert self.lane is not None

        def chunk(base: Value, vl: Value) -> None:
            with em.scope([Axis((self.lane,), base, vl, self.chunk)]):  # type: ignore[arg-type]
                self._wave_rows(stream, stream.waves(), 0, [], vl)

        self._chunks(self.lane, chunk)

    def _wave_rows(self, stream: Stream, waves: list[list[State]], n: int, binds: list[dict[Value, tuple[Value, ...]]],
                   vl: Value) -> None:
        k, em = self.k, self.em
        if n == len(waves):
            def end() -> None:
                with em.scope(bind=self._finish_anchors(stream, vl)):
                    for name, v, t in self.outs:
                        if stream.dim in t.dims:
                            def row(i: Value, _: list[Value], name: str = name, v: Value = v, t: TensorType = t) -> list[Value]:
                                with em.scope([Axis((stream.dim,), i)]):
                                    self._store_lanes(name, v, t, (), vl)
                                return []
                            k.for_(0, em.extent(stream.dim), 1, [], row)
                        else:
                            self._store_lanes(name, v, t, (), vl)
            self._nest(binds, end)
            return
        wave = waves[n]

        def run() -> None:
            with em.scope(bind=self._anchor_binds(stream, wave, vl)):
                init = [k.bcast(self._identity(s), vl, self.chunk) for s in wave]

                def row(i: Value, parts: list[Value]) -> list[Value]:
                    with em.scope([Axis((stream.dim,), i)]):
                        return [k.vt(REDUCE_OP[s.kind], p, self._body(s), vl=vl) for s, p in zip(wave, parts, strict=True)]

                totals = k.for_(0, em.extent(stream.dim), 1, init, row)
            more = [self._bind_total(stream, s, t) for s, t in zip(wave, totals, strict=True)]
            self._wave_rows(stream, waves, n + 1, [*binds, *more], vl)

        if binds:
            self._nest(binds, run)
        else:
            run()


class _StagedRows:
    """An input whose rows a warp fetches by DMA: buffer[stage][row][element] per warp."""

    def __init__(self, low: _Vector, value: Value, name: str, dims: tuple[Dim, ...], dtype: DType, rows: int) -> None:
        self.low, self.value, self.name, self.dims, self.dtype, self.rows = low, value, name, dims, dtype, rows
        k, em = low.k, low.em
        self.width = em.extent(dims[-1])
        cap = max(1, low.limits.bound(dims[-1]))
        stage_bytes = (cap * rows * dtype.bits // 8 + 63) // 64 * 64
        with k.at(em.root):
            size = k.const(stage_bytes * 8 // dtype.bits)
            row = k.const(cap)
            self.buffer = k.spm_alloc(dtype, [k.const(2), k.const(rows), self.width], [size, row, k.const(1)],
                                      name=name, size_bytes=2 * stage_bytes, per_warp=True)
        self.stage: Value | None = None
        em.staged[value] = Staged(self.at)

    def copy(self, row0: Value, rows: Value, stage: Value) -> None:
        k, em = self.low.k, self.low.em
        src = em.view(self.name, self.dims, self.dtype, (self.dims[:-1], self.dims[-1:]))
        zero = k.const(0)
        k.dma_load(k.mem_at(self.buffer, [stage, zero, zero]), k.mem_at(src, [row0, zero]), rows, self.width, rows, self.width,
                   src_axes=(0, 1), dst_axes=(1, 2))

    def enter(self, stage: Value) -> None:
        self.stage = stage

    def at(self, em: Emitter, sub: Sub, row: int) -> tuple[Value, int | None]:
        assert self.stage is not None
        (_, axis, offset), = em.groups(self.dims[-1:], sub)
        col = em.k.idx("add", axis.base, offset) if offset is not None else axis.base
        return em.k.mem_at(self.buffer, [self.stage, self.low.row_index, col]), 2 if axis.vl is not None else None


def _dtype(x: Value) -> DType:
    t = x.type
    assert hasattr(t, "dtype")
    out = t.dtype
    assert isinstance(out, DType)
    return out
