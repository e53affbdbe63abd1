"""The results of a tile kernel: what a row needs from the vector states becomes a table of factors, then the accumulators go row by row
through the rest of the math into memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rvgpu.ir.core import Value
from rvgpu.ir.types import DType, TensorType, VecType
from rvgpu.passes.kernel import bind_all, results, safe_anchor
from rvgpu.passes.places import Axis, Binds, Rows

if TYPE_CHECKING:
    from rvgpu.passes.lower_matrix import Matrix, States


READS = 3  # tiles' rows (a register group each) that are read before the first is needed
Factor = tuple[Value, ...]  # values of a row that multiply its elements


class Results:
    def __init__(self, low: Matrix) -> None:
        self.low, self.k, self.em, self.plan, self.stream = low, low.k, low.em, low.plan, low.stream
        self.table: Value | None = None
        self.scaled: dict[Value, tuple[Value, Factor]] = {}  # element, factor

    def store(self, states: States, anchors: list[Value], n0: Value) -> None:
        """The results from the states at the end of the streamed dim."""
        k, em, te, low = self.k, self.em, self.low.limits.te, self.low
        count = len(self.stream.states)
        binds = low.bind_states(self.stream.anchors.args, states)
        with em.scope(bind=binds):
            targets = [em.one(d) for d in self.stream.anchors.yielded]
        # a lazy anchor may lag: totals are defined at the true one, so the results see the states moved there
        deltas = []
        for a, (old, target) in enumerate(zip(anchors, targets, strict=True)):
            _, zero_delta = safe_anchor(k, old, self.low.vl_m[0], low.bottom(a))
            deltas.append((zero_delta(k.vt("sub", old, target, vl=self.low.vl_m[0])),))
        r = self.stream.rebase
        for state in range(count):
            em.alias[self.stream.finish.args[state]] = r.yielded[state]
        binds = low.bind_states(r.args, states) | bind_all(r.args[count:], deltas)
        binds |= bind_all(self.stream.finish.args[count:], [(safe_anchor(k, t, self.low.vl_m[0])[0],) for t in targets])
        factors: dict[Factor, int] = {}
        with em.scope(bind=binds):
            outs = results(low.func, k)
            for name, v, t in outs:
                if not set(self.plan.n) & set(t.dims):
                    k.if_(k.cmp("eq", n0, 0), lambda name=name, v=v, t=t: self._store_m(name, v, t))  # type: ignore[misc]
            for x in dict.fromkeys(y for _, v, t in outs if set(self.plan.n) & set(t.dims) for y in self._per_row(v)):
                factors[x] = len(factors)
            if factors:
                size = len(factors) * te
                with k.at(em.root):
                    self.table = k.spm_alloc(DType.f32, [k.const(len(factors)), k.const(te)], [k.const(te), k.const(1)],
                                             name="factors", size_bytes=size * 4, per_warp=True)
                for factor, slot in factors.items():
                    row = em.one(factor[0])
                    for other in factor[1:]:
                        row = k.vt("mul", row, em.one(other), vl=self.low.vl_m[0])
                    k.store(k.mem_at(self.table, [k.const(slot), k.const(0)]), row, self.low.vl_m[0], axis=1)
        wide = [o for o in outs if set(self.plan.n) & set(o[2].dims)]
        for i in range(self.low.tiles.im if wide else 0):
            if factors or not self._joins(wide):
                for j in range(self.low.tiles.jn):
                    self._store_tile(i, j, wide, factors)
            else:
                self._store_rows(i, wide)

    def _store_m(self, name: str, v: Value, t: TensorType) -> Sequence[Value]:
        k, em = self.k, self.em
        x = em.one(v)
        mem, lane = em.address(name, t.dims, t.dtype, (), 0)
        assert lane is not None
        k.store(mem, x if isinstance(x.type, VecType) else k.bcast(x, self.low.vl_m[0], self.low.limits.te), self.low.vl_m[0], axis=lane)
        return []

    def _uses(self, v: Value) -> tuple[bool, bool]:
        """(depends on a vector state or anchor, depends on an accumulator) of a value behind the stream."""
        v = self.em.resolve(v)
        for args in (self.stream.rebase.args, self.stream.finish.args):
            if v in args:
                n = args.index(v)
                contraction = n in self.low.accs
                return not contraction, contraction
        if v.op is None or not v.op.operands:
            return False, False
        parts = [self._uses(x) for x in v.op.operands]
        return any(p[0] for p in parts), any(p[1] for p in parts)

    def _per_row(self, v: Value) -> list[Factor]:
        """The largest subexpressions of v that are made from vector states alone: they vary with m only. What multiplies one element after
        the other is one factor: e * p * q = e * (p * q), which also rounds twice."""
        v = self.em.resolve(v)
        vector, acc = self._uses(v)
        if not vector:
            return []
        if self._is_row(v):
            return [(v,)]
        element, factor = self._scaled(v)
        if len(factor) > 1:
            self.scaled[v] = element, factor
            return [factor, *self._per_row(element)]
        assert v.op is not None
        return [x for o in v.op.operands for x in self._per_row(o)]

    def _is_row(self, v: Value) -> bool:
        return self._uses(v) == (True, False) and not set(v.tensor.dims) & set(self.plan.n)

    def _scaled(self, v: Value) -> tuple[Value, Factor]:
        """v as an element times values of its row."""
        v = self.em.resolve(v)
        if v.op is not None and v.op.name == "mul" and v.tensor.dtype == DType.f32:
            x, y = (self.em.resolve(o) for o in v.op.operands)
            x, y = (y, x) if self._is_row(x) else (x, y)
            if self._is_row(y) and not self._is_row(x):
                element, factor = self._scaled(x)
                return element, (*factor, y)
        return v, ()

    def _store_tile(self, i: int, j: int, outs: list[tuple[str, Value, TensorType]], factors: dict[Factor, int]) -> None:
        """An accumulator tile, row by row with lanes along n, through the rest of the math into memory."""
        k, em, te = self.k, self.em, self.low.limits.te
        first = k.idx("add", self.low.m0, i * te)
        lane = Axis(self.plan.n, k.idx("add", self.low.n0, j * te), self.low.vl_n[j], te)

        def some(row: Value, count: int) -> list[Value]:
            def at(u: int) -> Value:
                return k.idx("add", row, u) if u else row

            binds: Binds = {}
            for s in self.low.accs:
                binds[self.stream.rebase.args[s]] = lambda s=s: tuple(self.low.total(s, i, j, at(u)) for u in range(count))  # type: ignore[misc]
            def row_factor(slot: int) -> Rows:
                return tuple(k.s_load(k.mem_at(self._table(), [k.const(slot), at(u)])) for u in range(count))

            def scaled(element: Value, slot: int) -> Rows:
                return tuple(k.vt("mul", x, f, vl=self.low.vl_n[j]) for x, f in zip(em.emit(element), row_factor(slot), strict=True))

            for factor, slot in factors.items():
                if len(factor) == 1:
                    binds[factor[0]] = partial(row_factor, slot)
            for v, (element, factor) in self.scaled.items():
                binds[v] = partial(scaled, element, factors[factor])
            with em.scope([Axis(self.plan.m, k.idx("add", first, row))], binds, rows=count):
                for name, v, t in outs:
                    xs = em.emit(v)
                    for u in range(count):
                        x = xs[u % len(xs)]
                        x = x if isinstance(x.type, VecType) else k.bcast(x, self.low.vl_n[j], te)
                        mem, axis = em.address(name, t.dims, t.dtype, (), u)
                        assert axis is not None
                        k.store(mem, x, self.low.vl_n[j], axis=axis)
            return []

        with em.scope([lane]):
            if 4 * te >= self.low.limits.vlen:  # a vector is a quarter of the registers
                k.for_(0, self.low.vl_m[i], 1, [], lambda r, _: some(r, 1))
                return
            whole = k.idx("mul", k.idx("div", self.low.vl_m[i], 2), 2)
            k.for_(0, whole, 2, [], lambda r, _: some(r, 2))
            k.if_(k.cmp("gt", self.low.vl_m[i], whole), lambda: some(whole, 1))

    def _joins(self, outs: list[tuple[str, Value, TensorType]]) -> bool:
        """Whether tiles side by side go to memory as one row: 16-bit results (whole registers each) of nothing but the products and numbers."""
        te, n = self.low.limits.te, {*self.plan.n}
        cheap = all(n <= {*x.tensor.dims} or not n & {*x.tensor.dims} for op in self.plan.epilogue for x in op.operands)
        alone = all({*self.plan.m} <= {*x.tensor.dims} for op in self.plan.epilogue for x in op.operands if n & {*x.tensor.dims})
        return cheap and alone and all(t.dtype.bits == 16 and te * 16 % self.low.limits.vlen == 0 and
                                                                 te * 16 * self.low.tiles.jn <= 8 * self.low.limits.vlen for _, _, t in outs)

    def _store_rows(self, i: int, outs: list[tuple[str, Value, TensorType]]) -> None:
        """Accumulator tiles side by side, row by row: where rows do not begin at a line, longer stores fill more lines. Reads of tiles run ahead of
        what is done with them."""
        k, em, low, te = self.k, self.em, self.low, self.low.limits.te
        first, live = k.idx("add", low.m0, i * te), low.vl_n[0]
        for vl in low.vl_n[1:]:
            live = k.idx("add", live, vl)

        def read(r: Value, j: int) -> Binds:
            return {self.stream.rebase.args[s]: (low.total(s, i, j, r),) for s in low.accs}

        def make(r: Value, j: int, binds: Binds) -> list[Value]:
            lane = Axis(self.plan.n, k.idx("add", low.n0, j * te), low.vl_n[j], te)
            with em.scope([lane, Axis(self.plan.m, k.idx("add", first, r))], binds):
                xs = [em.one(v) for _, v, _ in outs]
                return [x if isinstance(x.type, VecType) else k.bcast(x, low.vl_n[j], te) for x in xs]

        def store(r: Value, made: list[list[Value]]) -> None:
            lane = Axis(self.plan.n, low.n0, live, te * low.tiles.jn)
            with em.scope([lane, Axis(self.plan.m, k.idx("add", first, r))]):
                for (name, _, t), *parts in zip(outs, *made, strict=True):
                    mem, axis = em.address(name, t.dims, t.dtype, (), 0)
                    assert axis is not None
                    k.store(mem, k.join(parts) if len(parts) > 1 else parts[0], live, axis=axis)

        def rows(at: Value, count: int) -> list[Value]:
            todo = [(k.idx("add", at, u) if u else at, j) for u in range(count) for j in range(low.tiles.jn)]
            ahead = max(1, READS // len(low.accs))
            got = [read(*x) for x in todo[:ahead]]
            made: list[list[Value]] = []
            for n, (r, j) in enumerate(todo):
                made.append(make(r, j, got[n]))
                got += [read(*x) for x in todo[n + ahead:n + ahead + 1]]
                if j == low.tiles.jn - 1:
                    store(r, made)
                    made = []
            return []

        together = max(2, 4 // low.tiles.jn)
        whole = k.idx("mul", k.idx("div", low.vl_m[i], together), together)
        k.for_(0, whole, together, [], lambda r, _: rows(r, together))
        k.for_(whole, low.vl_m[i], 1, [], lambda r, _: rows(r, 1))

    def _table(self) -> Value:
        assert self.table is not None
        return self.table
