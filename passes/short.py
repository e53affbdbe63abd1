"""Short rows: the lanes of one register group hold a whole row, its waves and what is stored go by without a loop, and several rows are
interleaved, so that one's reductions and divisions pass behind another's arithmetic. What sweeps would keep stays in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from rvgpu.ir.core import Value
from rvgpu.ir.types import VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.keep import Keep
from rvgpu.passes.kernel import Stream
from rvgpu.passes.rows import Axis, Rows
from rvgpu.passes.sweep import Binds, Out, Sweep, anchor_binds, finish_binds, state_bodies, total_binds

MOST_LANES = 128  # f32 lanes of VLEN 512 in the rows that are interleaved: eight registers for each of their values


class Short:
    def __init__(self, sweep: Sweep, stream: Stream, outs: Sequence[Out], lanes: int, at_once: int) -> None:
        self.k, self.em, self.sweep, self.stream, self.outs = sweep.k, sweep.em, sweep, stream, outs
        self.lanes, self.at_once = lanes, at_once
        with self.k.at(self.em.root):
            self.zero, self.vl = self.k.const(0), self.em.extent(stream.dim)

    def axis(self) -> Axis:
        """All positions of the row."""
        return Axis((self.stream.dim,), self.zero, self.vl, self.lanes)

    def emit(self, axes: Sequence[Axis], rows: int, keep: Keep | None) -> None:
        """`rows` rows from the coordinates `axes` on, inside a scope of `axis`."""
        k, em, stream = self.k, self.em, self.stream
        reads: Binds = {}
        for r in self.sweep.readers:
            reads |= r.reads(self.zero, self.vl, self.lanes)
        with ExitStack() as stack:
            stack.enter_context(em.scope(axes, reads, rows))
            for n, wave in enumerate(stream.waves()):
                held = keep.held(n) if keep is not None else {}
                stack.enter_context(em.scope(bind=held | anchor_binds(k, em, stream, wave), rows=rows))
                binds: Binds = {}
                for s in wave:
                    if s.counts:
                        binds |= total_binds(stream, s, (k.s_cast(k.s_from_idx(self.vl), s.dtype),))
                    else:
                        binds |= total_binds(stream, s, tuple(k.xred(s.kind, self._wide(x), self.vl) for x in state_bodies(em, s)))
                stack.enter_context(em.scope(bind=binds, rows=rows))
            stack.enter_context(em.scope(bind=finish_binds(k, em, stream), rows=rows))
            held = keep.held(keep.last) if keep is not None else {}
            real = keep.real() if keep is not None else None
            if real is None:
                self._store(held, rows)
            else:
                k.if_(real, lambda: self._store(held, rows), lambda: self._store({}, rows))

    def _wide(self, x: Value) -> Value:
        return x if isinstance(x.type, VecType) else self.k.bcast(x, self.vl, self.lanes)

    def _store(self, held: Binds, rows: int) -> Sequence[Value]:
        with self.em.scope(bind=held, rows=rows):
            for name, v, t in self.outs:
                found: Rows = self.em.emit(v)
                for u in range(rows):
                    x = found[u % len(found)]
                    mem, lane = self.em.address(name, t.dims, t.dtype, (), u)
                    if lane is None:
                        self.k.s_store(mem, x)
                    else:
                        self.k.store(mem, self._wide(x), self.vl, axis=lane)
        return []


def short_lanes(limits: Limits, stream: Stream) -> int:
    """Lanes (LMUL 1 to 8 of f32) that hold any row of this kernel's bucket, else 0."""
    least = max(1, limits.vlen // 32)
    return next((n for n in (least, 2 * least, 4 * least, 8 * least) if limits.bucket((stream.dim,)) <= n), 0)
