"""Values along the lanes that do not vary with the row (a norm's weights): a CTA's warps fetch and convert them once, in front of all rows.

Each warp takes its share of the lanes, by DMA; the largest such expressions stand in scratchpad for everyone from then on.
"""

from __future__ import annotations

from collections.abc import Sequence

from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import K
from rvgpu.ir.types import DType, VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.keep import INDEXED
from rvgpu.passes.kernel import ceil_div, clamp
from rvgpu.passes.places import Axis, Binds, Rows, Sub
from rvgpu.passes.rows import Emitter, Staged
from rvgpu.passes.stage import ALIGN


class Shared:
    def __init__(self, k: K, em: Emitter, limits: Limits, lane: Dim, roots: Sequence[Value]) -> None:
        self.k, self.em, self.limits, self.lane = k, em, limits, lane
        self.width = max(1, limits.bound(lane))
        self.values: dict[Value, None] = {}
        self.known: dict[Value, bool] = {}
        for v in roots:
            self._visit(em.resolve(v))
        self.leaves = list(dict.fromkeys(x for v in self.values for x in self._leaves(v)))
        self.buffers: dict[Value, Value] = {}
        self.made: list[Value] = []

    def bytes(self, converted: bool) -> int:
        """Scratchpad taken, each buffer rounded up as P9 does."""
        return sum(-(-self.width * v.tensor.dtype.bits // 8 // ALIGN) * ALIGN for v in self._standing(converted))

    def _standing(self, converted: bool) -> list[Value]:
        return list(dict.fromkeys([*self.leaves, *self.values])) if converted else self.leaves

    # -- which
    def _fixed(self, v: Value) -> bool:
        """Made of arguments along the lanes and scalars alone."""
        v = self.em.resolve(v)
        if v not in self.known:
            if v in self.em.tensors:
                self.known[v] = self.em.tensors[v][1] in ((self.lane,), ()) and self.em.tensors[v][2] is not DType.i4
            elif v.op is None:
                self.known[v] = v in self.em.scalars
            else:
                self.known[v] = v.op.name not in ("iota", "stream") and all(map(self._fixed, v.op.operands))
        return self.known[v]

    def _visit(self, v: Value) -> None:
        if self._fixed(v) and v.tensor.dims == (self.lane,) and v.tensor.dtype not in (DType.i1, DType.i4) and self._leaves(v):
            self.values[v] = None
        elif v.op is not None:
            for x in v.op.operands:
                self._visit(self.em.resolve(x))

    def _leaves(self, v: Value) -> list[Value]:
        v = self.em.resolve(v)
        if v in self.em.tensors:
            return [v] if self.em.tensors[v][1] == (self.lane,) else []
        return [x for o in v.op.operands for x in self._leaves(o)] if v.op is not None else []

    # -- in front of the work
    def fetch(self, chunk: int, converted: bool) -> None:
        """Emits the transfers and, when asked to, the conversions at the cursor, before any row."""
        k, em = self.k, self.em
        self.made = [v for v in self.values if v not in self.leaves] if converted else []
        for v in self._standing(converted):
            name = em.tensors[v][0] if v in em.tensors else "shared"
            self.buffers[v] = k.spm_alloc(v.tensor.dtype, [k.const(1), k.const(self.width)], [k.const(self.width), k.const(1)], name=name,
                                          size_bytes=self.width * v.tensor.dtype.bits // 8)
        n, zero = em.extent(self.lane), k.const(0)
        share = k.idx("mul", ceil_div(k, n, chunk * self.limits.warps), chunk)
        first = k.idx("mul", k.special("warp"), share)
        size = clamp(k, k.idx("sub", n, first), share)
        rows = k.idx("min", size, 1)
        for v in self.leaves:
            name, dims, dtype = em.tensors[v]
            src = em.view(name, dims, dtype, ((), dims))
            k.dma_load(k.mem_at(self.buffers[v], [zero, first]), k.mem_at(src, [zero, first]), rows, size, rows, size,
                       src_axes=(0, 1), dst_axes=(0, 1))
            em.staged[v] = Staged(lambda em, sub, row, v=v: self._at(v, sub))  # type: ignore[misc]
        k.dma_wait(0)
        def step(c: Value, _: list[Value]) -> Sequence[Value]:
            vl = k.idx("min", k.idx("sub", end, c), chunk)
            with em.scope([Axis((self.lane,), c, vl, chunk)]):
                for v in self.made:
                    x = em.one(v)
                    k.store(k.mem_at(self.buffers[v], [zero, c]), x if isinstance(x.type, VecType) else k.bcast(x, vl, chunk), vl, axis=1)
            return []

        if self.made:
            end = k.idx("add", first, size)
            k.for_(first, end, chunk, [], step)
        k.bar(0)

    def _at(self, v: Value, sub: Sub) -> tuple[Value, int | None]:
        (_, axis, _), = self.em.groups((self.lane,), sub)
        return self.k.mem_at(self.buffers[v], [self.k.const(0), axis.base]), 1 if axis.vl is not None else None

    # -- in a chunk
    def reads(self, base: Value, vl: Value, chunk: int) -> Binds:
        def load(v: Value) -> Rows:
            return (self.k.load(self.k.mem_at(self.buffers[v], [self.k.const(0), base]), vl, axis=1, lanes=chunk),)

        return {v: lambda v=v: load(v) for v in self.made}  # type: ignore[misc]


def plan_shared(k: K, em: Emitter, func: Func, limits: Limits, lane: Dim, roots: Sequence[Value]) -> Shared | None:
    """What rows share, if anything."""
    if any(op.name in INDEXED for op in func.body.walk()):
        return None
    shared = Shared(k, em, limits, lane, roots)
    return shared if shared.values else None
