"""Rows with lanes along one dim: the totals of a stream over a span of positions, wave by wave, and the sweep that stores what is left to compute.

With all positions of the span at hand every wave sees final anchors, so no re-basing is needed: per-lane partial states over full chunks, one
ragged chunk, then one reduction across lanes in a fixed tree. A span's operands may stand in scratchpad, where a warp fetches them for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

from rvgpu.ir.core import Op, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import K
from rvgpu.ir.types import DType, TensorType, VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.keep import Keep
from rvgpu.passes.kernel import REDUCE_OP, State, Stream, identity, safe_anchor
from rvgpu.passes.places import Axis, Binds, Piece, Rows, Sub
from rvgpu.passes.rows import Emitter, Staged
from rvgpu.passes.stage import ALIGN

Out = tuple[str, Value, TensorType]


class Reader(Protocol):
    """What gives some values in every chunk of lanes from `base` on."""

    def reads(self, base: Value, vl: Value, chunk: int) -> Binds: ...


@dataclass(eq=False)
class Span:
    """Positions first .. first + size - 1 of a dim."""

    first: Value
    size: Value


@dataclass(eq=False)
class Lanes:
    """The lane dim of a sweep: the dim that has the coordinate and, when results are concatenated along it, their pieces."""

    dim: Dim
    pieces: list[tuple[Value | None, Sub]]  # offset of the piece in the result, substitution to reach it


def state_bodies(em: Emitter, state: State) -> Rows:
    """The state's body for every row in scope; a contraction on this unit multiplies in the state's dtype."""
    parts = [em.emit(v) for v in state.body.yielded]
    if len(parts) == 1:
        return parts[0]
    parts = [tuple(em.apply("cast", [x], {}, state.dtype) if dtype_of(x) != state.dtype else x for x in xs) for xs in parts]
    n = max(map(len, parts))
    return tuple(em.apply("mul", [xs[u % len(xs)] for xs in parts], {}, state.dtype) for u in range(n))


def state_body(em: Emitter, state: State) -> Value:
    """The same where there is one row."""
    x, = state_bodies(em, state)
    return x


def anchor_binds(k: K, em: Emitter, stream: Stream, wave: Sequence[State], vl: Value | None = None) -> Binds:
    """Safe anchors for the bodies of a wave; the states they need are bound in scope."""
    binds: Binds = {}
    made: dict[int, Rows] = {}
    for state in wave:
        for arg, a in zip(stream.anchor_args(state), state.anchors, strict=True):
            if a not in made:
                made[a] = _safe(k, em, stream.anchors.yielded[a], vl)
            binds[arg] = made[a]
    return binds


def total_binds(stream: Stream, state: State, total: Rows) -> Binds:
    """State k stands as an argument in the anchor and finish regions."""
    return {stream.anchors.args[state.index]: total, stream.finish.args[state.index]: total}


def finish_binds(k: K, em: Emitter, stream: Stream, vl: Value | None = None) -> Binds:
    args = stream.finish.args[len(stream.states):]
    return {arg: _safe(k, em, d, vl) for arg, d in zip(args, stream.anchors.yielded, strict=True)}


def _safe(k: K, em: Emitter, anchor: Value, vl: Value | None) -> Rows:
    return tuple(safe_anchor(k, d, vl if isinstance(d.type, VecType) else None)[0] for d in em.emit(anchor))


def dtype_of(x: Value) -> DType:
    t = x.type
    assert hasattr(t, "dtype")
    out = t.dtype
    assert isinstance(out, DType)
    return out


class Sweep:
    def __init__(self, k: K, em: Emitter, limits: Limits) -> None:
        self.k, self.em = k, em
        self.chunk = max(1, limits.vlen // 8)  # lanes: LMUL 4 of f32, a function of VLEN only
        self.across = self.chunk  # lanes of a sweep that stores: changes cycles only
        self.readers: list[Reader] = []
        em.fused = True

    def whole(self, dim: Dim) -> Span:
        return Span(self.k.const(0), self.em.extent(dim))

    # -- totals
    def totals(self, stack: ExitStack, stream: Stream, span: Span, keep: Keep | None = None) -> list[Value]:
        """Every state over the span; totals and anchors are bound in scopes that the stack holds."""
        k = self.k
        out: dict[int, Value] = {}
        for n, wave in enumerate(stream.waves()):
            stack.enter_context(self.em.scope(bind=anchor_binds(k, self.em, stream, wave)))
            binds: Binds = {}
            swept = [s for s in wave if not s.counts]
            out |= {s.index: k.s_cast(k.s_from_idx(span.size), s.dtype) for s in wave if s.counts}
            for s, part in zip(swept, self._wave(stream.dim, n, swept, span, keep) if swept else [], strict=True):
                out[s.index] = k.xred(s.kind, part, k.const(self.chunk))
            for s in wave:
                binds |= total_binds(stream, s, (out[s.index],))
            stack.enter_context(self.em.scope(bind=binds))
        self.finish(stack, stream)
        return [out[n] for n in range(len(stream.states))]

    def finish(self, stack: ExitStack, stream: Stream, totals: Sequence[Value] = ()) -> None:
        """What the finish region takes: totals made elsewhere, and the anchors."""
        binds: Binds = {}
        for s, total in zip(stream.states, totals, strict=False):
            binds |= total_binds(stream, s, (total,))
        stack.enter_context(self.em.scope(bind=binds))
        stack.enter_context(self.em.scope(bind=finish_binds(self.k, self.em, stream)))

    def _wave(self, dim: Dim, n: int, wave: list[State], span: Span, keep: Keep | None) -> list[Value]:
        """Per-lane partial states."""
        k, em = self.k, self.em
        width = k.const(self.chunk)
        full = k.idx("mul", k.idx("div", span.size, width), width)
        init = [k.bcast(identity(k, s), width, self.chunk) for s in wave]
        end = k.idx("add", span.first, full)

        def chunk(base: Value, vl: Value, parts: list[Value]) -> list[Value]:
            with self._lanes(dim, n, span, base, vl, keep, self.chunk):
                out = []
                for state, part in zip(wave, parts, strict=True):
                    x = state_body(em, state)
                    if not isinstance(x.type, VecType):
                        x = k.bcast(x, vl, self.chunk)
                    if vl is not width:
                        x = k.tail(x, identity(k, state), vl, width)
                    add = state.kind == "sum"
                    out.append(em.add(part, x, vl=width) if add else k.vt(REDUCE_OP[state.kind], part, x, vl=width))
                if keep is not None:
                    keep.save(n, k.idx("sub", base, span.first), vl)
            return out

        parts = k.for_(span.first, end, self.chunk, init, lambda c, p: chunk(c, width, p))
        rest = k.idx("sub", span.size, full)
        return k.if_(k.cmp("gt", rest, 0), lambda: chunk(end, rest, parts), lambda: parts)

    def _lanes(self, dim: Dim, n: int, span: Span, base: Value, vl: Value, keep: Keep | None, lanes: int) -> AbstractContextManager[object]:
        """The scope of a chunk of sweep n."""
        reads = keep.reads(n, self.k.idx("sub", base, span.first), vl, lanes) if keep is not None else {}
        for r in self.readers:
            reads |= r.reads(base, vl, lanes)
        return self.em.scope([Axis((dim,), base, vl, lanes)], reads)

    # -- stores
    def store(self, outs: Sequence[Out], lane: Dim | None, span: Span | None = None, keep: Keep | None = None) -> None:
        """Stores results that carry the lane dim, chunk by chunk over the span (all of it when None), and the others once."""
        wide = [o for o in outs if lane is not None and lane in o[2].dims]
        for o in outs:
            if o not in wide:
                self.store_scalar(o)
        if lane is None:
            return
        groups: dict[tuple[Dim, tuple[Sub, ...]], list[tuple[Out, Lanes]]] = {}
        for o in wide:
            lanes = self.pieces(lane, o[1])
            groups.setdefault((lanes.dim, tuple(s for _, s in lanes.pieces)), []).append((o, lanes))
        for (dim, _), group in groups.items():
            def chunk(base: Value, vl: Value, dim: Dim = dim, group: list[tuple[Out, Lanes]] = group) -> None:
                with self._lanes(dim, keep.last if keep is not None else 0, span or self.whole(dim), base, vl, keep, self.across):
                    for o, lanes in group:
                        for _, sub in lanes.pieces:
                            self.store_lanes(o, sub, vl)

            self.chunks(span or self.whole(dim), chunk)

    def store_kept(self, outs: Sequence[Out], lane: Dim, keep: Keep | None) -> None:
        """The same over a whole row with what its waves kept, where that is what results need."""
        real = keep.real() if keep is not None else None
        if real is None:
            self.store(outs, lane, None, keep)
            return

        def stored(with_kept: Keep | None) -> Callable[[], Sequence[Value]]:
            def body() -> Sequence[Value]:
                self.store(outs, lane, None, with_kept)
                return []
            return body

        self.k.if_(real, stored(keep), stored(None))

    def chunks(self, span: Span, body: Callable[[Value, Value], None]) -> None:
        """body(base, live lanes) over the span; ragged in the last chunk."""
        k = self.k
        end = k.idx("add", span.first, span.size)

        def step(c: Value, _: list[Value]) -> Sequence[Value]:
            body(c, k.idx("min", k.idx("sub", end, c), self.across))
            return []

        k.for_(span.first, end, self.across, [], step)

    def pieces(self, lane: Dim, v: Value) -> Lanes:
        """The lane dim of a result, looking through elementwise ops for a concat along it."""
        seen, todo = set(), [self.em.resolve(v)]
        while todo:
            x = todo.pop()
            if x in seen or x.op is None:
                continue
            seen.add(x)
            if x.op.name == "concat" and x.op.attrs["new"] == lane:
                small = x.op.attrs["dim"]
                assert isinstance(small, Dim)
                out: list[tuple[Value | None, Sub]] = []
                size = self.em.extent(small)
                for n in range(len(x.op.operands)):
                    with self.k.at(self.em.root):
                        offset = self.k.idx("mul", size, n)
                    out.append((offset, ((lane, Piece(small, offset, n)),)))
                return Lanes(small, out)
            if x.op.name != "stream":
                todo += [self.em.resolve(o) for o in x.op.operands]
        return Lanes(lane, [(None, ())])

    def store_scalar(self, o: Out) -> None:
        name, v, t = o
        mem, lane = self.em.address(name, t.dims, t.dtype, (), 0)
        assert lane is None
        self.k.s_store(mem, self.em.one(v))

    def store_lanes(self, o: Out, sub: Sub, vl: Value) -> None:
        name, v, t = o
        x = self.em.one(v, sub)
        if not isinstance(x.type, VecType):
            x = self.k.bcast(x, vl, self.em.lane_axis().lanes)
        mem, lane = self.em.address(name, t.dims, t.dtype, sub, 0)
        assert lane is not None
        self.k.store(mem, x, vl, axis=lane)


def staged_bytes(dtype: DType, rows: int, width: int, stages: int) -> int:
    """Scratchpad of a warp's stages of `rows` rows of `width`."""
    return stages * -(-width * rows * dtype.bits // 8 // ALIGN) * ALIGN


class StagedRows:
    """An input whose rows, or pieces of them, a warp fetches by DMA: buffer[stage][row][element] per warp."""

    def __init__(self, k: K, em: Emitter, value: Value, rows: int, width: int, stages: int = 2, whole: bool = True) -> None:
        self._allocate(k, em, value, rows, width, stages)
        em.staged[value] = Staged(self.at, whole)

    def _allocate(self, k: K, em: Emitter, value: Value, rows: int, width: int, stages: int) -> None:
        self.k, self.em = k, em
        self.name, self.dims, self.dtype = em.tensors[value]
        self.stages, stage_bytes = stages, staged_bytes(self.dtype, rows, width, 1)
        with k.at(em.root):
            self.buffer = k.spm_alloc(self.dtype, [k.const(stages), k.const(rows), k.const(width)],
                                      [k.const(stage_bytes * 8 // self.dtype.bits), k.const(width), k.const(1)], name=self.name,
                                      size_bytes=stages * stage_bytes, per_warp=True)
        self.place: tuple[Value, Value, Value | None] | None = None

    def copy(self, row: Value, col: Value, rows: Value, cols: Value, stage: Value) -> None:
        """Starts the transfer of `rows` rows from `row` on, `cols` elements from `col` on; a tensor without rows has one for all."""
        k = self.k
        src = self.em.view(self.name, self.dims, self.dtype, (self.dims[:-1], self.dims[-1:]))
        zero = k.const(0)
        k.dma_load(k.mem_at(self.buffer, [stage, zero, zero]), k.mem_at(src, [row if len(self.dims) > 1 else zero, col]), rows, cols, rows, cols,
                   src_axes=(0, 1), dst_axes=(1, 2))

    def enter(self, stage: Value, row: Value, first: Value | None = None) -> None:
        """Where the coordinates in scope find it: the stage, the row in it, and the position of its first element."""
        self.place = stage, row, first

    def at(self, em: Emitter, sub: Sub, row: int) -> tuple[Value, int | None]:
        (_, axis, offset), = em.groups(self.dims[-1:], sub, row)
        col = em.k.idx("add", axis.base, offset) if offset is not None else axis.base
        return self._view(col, row), 2 if axis.vl is not None else None

    def _view(self, col: Value, row: int = 0) -> Value:
        assert self.place is not None
        stage, index, first = self.place
        index = self.k.idx("add", index, row) if row else index
        return self.k.mem_at(self.buffer, [stage, index, self.k.idx("sub", col, first) if first is not None else col])


class GatheredRows(StagedRows):
    """The row of a table that an index input says for each row (`take`)."""

    def __init__(self, k: K, em: Emitter, take: Op, width: int, total: Value) -> None:
        self.result, self.ids, self.total = take.result, em.tensors[take.operands[1]], total
        self._allocate(k, em, take.operands[0], 1, width, 2)

    def copy(self, row: Value, col: Value, rows: Value, cols: Value, stage: Value) -> None:
        k, (name, dims, dtype) = self.k, self.ids
        mem = self.em.view(name, dims, dtype, (dims,))
        x = k.s_load(k.mem_at(mem, [k.idx("min", row, k.idx("sub", self.total, 1))]))
        super().copy(k.idx_from_s(x if dtype is DType.i32 else k.s_cast(x, DType.i32)), col, rows, cols, stage)

    def reads(self, base: Value, vl: Value, chunk: int) -> Binds:
        return {self.result: lambda: (self.k.load(self._view(base), vl, axis=2, lanes=chunk),)}
