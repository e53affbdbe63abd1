"""Short rows: the lanes of one register group hold a whole row (or each piece of a concatenated one), its waves and what is stored go by without
a loop, and several rows are interleaved, so that one's reductions and divisions pass behind another's arithmetic. What sweeps would keep stays in
registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from rvgpu.ir.core import Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.keep import Keep
from rvgpu.passes.kernel import Stream
from rvgpu.passes.places import Axis, Binds, Rows, Sub
from rvgpu.passes.sweep import Out, Sweep, anchor_binds, finish_binds, state_bodies, total_binds

MOST_LANES = 128  # f32 lanes of VLEN 512 in the rows that are interleaved: eight registers for each of their values


class Short:
    """`pieces`: each result with what leads to each of its pieces along `dim`."""

    def __init__(self, sweep: Sweep, dim: Dim, stream: Stream | None, pieces: Sequence[tuple[Out, list[Sub]]], lanes: int, at_once: int) -> None:
        self.k, self.em, self.sweep, self.dim, self.stream, self.outs = sweep.k, sweep.em, sweep, dim, stream, pieces
        self.lanes, self.at_once = lanes, at_once
        with self.k.at(self.em.root):
            self.zero, self.vl = self.k.const(0), self.em.extent(dim)

    def axis(self) -> Axis:
        """All positions of the row."""
        return Axis((self.dim,), self.zero, self.vl, self.lanes)

    def emit(self, rows: int, keep: Keep | None) -> None:
        """`rows` rows from the coordinates in scope on, inside a scope of `axis`."""
        k, em, stream = self.k, self.em, self.stream
        reads: Binds = {}
        for r in self.sweep.readers:
            reads |= r.reads(self.zero, self.vl, self.lanes)
        with ExitStack() as stack:
            stack.enter_context(em.scope(bind=reads, rows=rows))
            for n, wave in enumerate(stream.waves() if stream is not None else ()):
                assert stream is not None
                held = keep.held(n) if keep is not None else {}
                stack.enter_context(em.scope(bind=held | anchor_binds(k, em, stream, wave), rows=rows))
                binds: Binds = {}
                for s in wave:
                    if s.counts:
                        binds |= total_binds(stream, s, (k.s_cast(k.s_from_idx(self.vl), s.dtype),))
                    else:
                        binds |= total_binds(stream, s, tuple(k.xred(s.kind, self._wide(x), self.vl) for x in state_bodies(em, s)))
                stack.enter_context(em.scope(bind=binds, rows=rows))
            if stream is not None:
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
            for (name, v, t), subs in self.outs:
                for sub in subs:
                    found: Rows = self.em.emit(v, sub)
                    for u in range(rows):
                        x = found[u % len(found)]
                        mem, lane = self.em.address(name, t.dims, t.dtype, sub, u)
                        if lane is None:
                            self.k.s_store(mem, x)
                        else:
                            self.k.store(mem, self._wide(x), self.vl, axis=lane)
        return []


def plan_short(sweep: Sweep, limits: Limits, lane: Dim, stream: Stream | None, outs: Sequence[Out], flat: bool) -> Short | None:
    """How rows of this kernel's bucket go by, where one register group (LMUL 1 to 8 of f32) holds any of them; they are interleaved where they
    have one coordinate."""
    found = [sweep.pieces(lane, v) if lane in t.dims else None for _, v, t in outs]
    dims = {x.dim for x in found if x is not None}
    dim, *more = dims or {lane}
    if more or stream is not None and dim != stream.dim:
        return None
    least = max(1, limits.vlen // 32)
    lanes = next((n for n in (least, 2 * least, 4 * least, 8 * least) if limits.bucket((dim,)) <= n), 0)
    none: list[Sub] = [()]
    pieces = [(o, [sub for _, sub in x.pieces] if x is not None else none) for o, x in zip(outs, found, strict=True)]
    return Short(sweep, dim, stream, pieces, lanes, max(1, MOST_LANES // lanes) if flat else 1) if lanes else None
