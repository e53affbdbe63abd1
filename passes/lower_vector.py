"""Clusters without a matrix contraction become row kernels: each warp takes rows, runs its states over them wave by wave in
register chunks, and stores what is left to compute.

Lanes run along the streamed dim, which is innermost in memory (`lower_columns` has the others), or along the result's last dim. Rows that fit are
fetched by DMA, double buffered, each warp for itself; long rows go in parts (`lower_long`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import K, KFunc
from rvgpu.ir.types import DType
from rvgpu.passes.context import Limits
from rvgpu.passes.keep import INDEXED, Keep, plan_keep
from rvgpu.passes.kernel import ceil_div, clamp, decode, find_stream, frame, reject, results
from rvgpu.passes.places import Axis
from rvgpu.passes.row_plan import lane_dim, together
from rvgpu.passes.rows import Emitter
from rvgpu.passes.shared import Shared, plan_shared
from rvgpu.passes.short import plan_short
from rvgpu.passes.sweep import StagedRows, Sweep, staged_bytes

# stages of the inputs that are fetched, whether what rows share stands beside them (2: converted, 1: as it is) and what sweeps keep: the first
# that fits
LAYOUTS = ((2, 2, 1), (1, 2, 1), (1, 1, 1), (2, 2, 0), (2, 1, 0), (2, 0, 0), (1, 0, 0), (0, 2, 1), (0, 0, 0))


def lower_vector(func: Func, limits: Limits) -> KFunc:
    k, em = frame(func, limits)
    return _Vector(func, limits, k, em).build()


class _Vector:
    def __init__(self, func: Func, limits: Limits, k: K, em: Emitter) -> None:
        self.func, self.limits, self.k, self.em = func, limits, k, em
        self.stream = find_stream(func)
        self.outs = results(func, k)
        self.sweep = Sweep(k, em, limits)
        self.chunk = self.sweep.chunk
        if self.stream:
            self.stream.link(em)
        self.lane = lane_dim(self.stream, func.result_types, [t.dims for t in k.func.tensors if not t.output])
        self.rows = self._row_dims()
        self.width = max(1, limits.bound(self.lane)) if self.lane is not None else 1
        self.keep: Keep | None = None
        self.flat = self._flat()
        self.short = plan_short(self.sweep, limits, self.lane, self.stream, self.outs, self.flat) if self.lane is not None else None

    # -- decisions
    def _row_dims(self) -> tuple[Dim, ...]:
        longest = max((t for _, _, t in self.outs), key=lambda t: len(t.dims))
        r = self.stream.dim if self.stream else None
        rows = tuple(d for d in longest.dims if d != self.lane and d != r)
        for _, v, t in self.outs:
            missing = [d for d in rows if d not in t.dims]
            if missing:
                raise reject(f"results of one kernel must share their row dims; {t} lacks {missing[0]}", v)
        return rows

    def _flat(self) -> bool:
        """Whether rows have one coordinate: one dim, or several that every tensor has side by side or not at all."""
        if len(self.rows) < 2:
            return len(self.rows) == 1
        stored = [t.dims for t in self.k.func.tensors] + [s.dims for s in (self.stream.states if self.stream is not None else ())]
        return all(together(self.rows, dims) for dims in stored) and not any(op.name in INDEXED for op in self.func.body.walk())

    # -- what stands in scratchpad
    def _place(self) -> tuple[int, list[StagedRows]]:
        """Rows per work item and warp, and the inputs fetched by DMA; what rows share and what sweeps keep, where there is room beside them."""
        fit = [p.value for p in self.func.params if not p.keyword and self.rows and p.value.tensor.dims[:-1] == self.rows
               and p.value.tensor.dtype is not DType.i4]
        widths = [max(1, self.limits.bound(v.tensor.dims[-1])) for v in fit]
        cost = sum(w * v.tensor.dtype.bits // 8 for v, w in zip(fit, widths, strict=True))
        most = self.limits.product(self.rows) // (2 * self.limits.cores * self.limits.warps)
        per_item = max(1, min(8192 // cost, most)) if cost else 1
        shared, keep = self._shared(), self._kept()
        fixed = (0, shared.bytes(False), shared.bytes(True)) if shared else (0, 0, 0)
        kept = keep.bytes(self.width) if keep and not self.short else 0
        for stages, share, with_kept in LAYOUTS:
            staged = sum(staged_bytes(v.tensor.dtype, per_item, w, stages) for v, w in zip(fit, widths, strict=True))
            if fixed[share] + (staged + with_kept * kept) * self.limits.warps <= self.limits.spm_bytes:
                break
        if shared is not None and share:
            shared.fetch(self.chunk, share == 2)
            self.sweep.readers.append(shared)
        if keep is not None and with_kept:
            self.keep = keep
            if not self.short:
                keep.allocate(self.width)
        if not stages:
            return 1, []
        return per_item, [StagedRows(self.k, self.em, v, per_item, w, stages) for v, w in zip(fit, widths, strict=True)]

    def _shared(self) -> Shared | None:
        if self.lane is None or not self.rows:
            return None
        roots = [v for _, v, _ in self.outs] + [v for s in (self.stream.states if self.stream else ()) for v in s.body.yielded]
        return plan_shared(self.k, self.em, self.func, self.limits, self.lane, roots)

    def _kept(self) -> Keep | None:
        if self.stream is None:
            return None
        sweeps = [[v for s in wave for v in s.body.yielded] for wave in self.stream.waves()]
        sweeps.append([v for _, v, t in self.outs if self.lane in t.dims])
        return plan_keep(self.k, self.em, self.func, self.stream, sweeps)

    # -- structure
    def build(self) -> KFunc:
        k, em = self.k, self.em
        total = em.product(self.rows)
        per_item, stage = self._place()
        rows_per_cta = per_item * self.limits.warps
        count = ceil_div(k, total, rows_per_cta)
        warp = k.special("warp")
        lo, hi = k.const(0), k.const(1)

        def first_row(w: Value) -> Value:
            return k.idx("add", k.idx("mul", w, rows_per_cta), k.idx("mul", warp, per_item))

        def item(row0: Value, at_stage: Value) -> None:
            n = clamp(k, k.idx("sub", total, row0), per_item)

            def row(i: Value, at_once: int) -> Sequence[Value]:
                for s in stage:
                    s.enter(at_stage, i)
                self._row(at_once)
                return []

            with em.scope([self.short.axis()] if self.short is not None else []):
                if self.flat:
                    self._flat_rows(row0, n, row)
                else:
                    self._runs(row0, n, row)

        def copy(w: Value, _i: Value, _stage: Value, wstage: Value) -> None:
            row0 = first_row(w)
            n = clamp(k, k.idx("sub", total, row0), per_item)
            for s in stage:
                s.copy(row0, lo, n, self.em.extent(s.dims[-1]), wstage)

        def step(w: Value, wstage: Value) -> Sequence[Value]:
            item(first_row(w), wstage)
            return []

        def body(w: Value) -> None:
            if stage and stage[0].stages == 2:
                k.pipe(w, 1, [], lambda _: (lo, hi), copy, lambda _i, _s, wstage, _c: step(w, wstage), private=True)
                return
            if stage:
                copy(w, lo, lo, lo)
                k.dma_wait(0)
            step(w, lo)

        k.work(count, body)
        return k.func

    # -- the rows of an item
    def _flat_rows(self, row0: Value, n: Value, row: Callable[[Value, int], Sequence[Value]]) -> None:
        """row(number, rows at once) for each of n, with one coordinate in scope."""
        k, at_once = self.k, self.short.at_once if self.short is not None else 1

        def go(lo: Value | int, hi: Value, at_once: int) -> None:
            def step(i: Value, _: list[Value]) -> Sequence[Value]:
                with self.em.scope([Axis(self.rows, k.idx("add", row0, i))], rows=at_once):
                    return row(i, at_once)

            k.for_(lo, hi, at_once, [], step)

        most = k.idx("mul", k.idx("div", n, at_once), at_once)
        go(0, most, at_once)
        if at_once > 1:
            go(most, n, 1)

    def _runs(self, row0: Value, n: Value, row: Callable[[Value, int], Sequence[Value]]) -> None:
        """The same with a coordinate for each row dim: runs along the last one, so that what does not vary with it is made once for a run."""
        k, extents = self.k, [self.em.extent(d) for d in self.rows]
        if not extents:
            k.for_(0, n, 1, [], lambda i, _: row(i, 1))
            return
        inner = extents[-1]
        before = k.idx("rem", row0, inner)  # rows of the first run that are not the item's
        first, end = k.idx("div", row0, inner), k.idx("add", before, n)

        def run(r: Value, _: list[Value]) -> Sequence[Value]:
            behind = k.idx("mul", r, inner)
            at = decode(k, k.idx("add", first, r), extents[:-1])
            lo = k.idx("max", k.idx("sub", before, behind), 0)

            def step(i: Value, _: list[Value]) -> Sequence[Value]:
                with self.em.scope([Axis(self.rows[-1:], i)]):
                    return row(k.idx("sub", k.idx("add", i, behind), before), 1)

            with self.em.scope([Axis((d,), c) for d, c in zip(self.rows, at, strict=False)]):
                k.for_(lo, k.idx("min", k.idx("sub", end, behind), inner), 1, [], step)
            return []

        k.for_(0, ceil_div(k, end, k.idx("max", inner, 1)), 1, [], run)

    def _row(self, at_once: int) -> None:
        """A row, or some of them that are short, at the coordinates in scope."""
        if self.short is not None:
            self.short.emit(at_once, self.keep)
            return
        with ExitStack() as stack:
            if self.stream is None or self.lane is None:
                self.sweep.store(self.outs, self.lane)
                return
            self.sweep.totals(stack, self.stream, self.sweep.whole(self.stream.dim), self.keep)
            self.sweep.store_kept(self.outs, self.lane, self.keep)
