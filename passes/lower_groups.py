"""Sums of products: a work item goes through the groups of the streamed dim, and through each group's product block by block. At a group's
end its tiles go row by row through the rest of the math (scales) into totals in scratchpad: vector work beside the other warps' products.
"""

from __future__ import annotations

from collections.abc import Sequence

from rvgpu.ir.core import Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import DType, VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import ceil_div, clamp, identity
from rvgpu.passes.lower_gemm import Gemm
from rvgpu.passes.lower_matrix import Lanes, Tiles
from rvgpu.passes.matrix_plan import MatrixPlan
from rvgpu.passes.places import Axis, Binds


def rows_cap(plan: MatrixPlan, limits: Limits) -> int:
    """Rows of a warp's tile that totals have room for."""
    return min(limits.te, 1 << (limits.product(plan.m) - 1).bit_length())


def group_bytes(plan: MatrixPlan, limits: Limits, t: Tiles) -> int:
    """Scratchpad of all warps' totals, and of what each row of a group is scaled by."""
    return limits.warps * t.im * (rows_cap(plan, limits) * t.jn + len(plan.stream.atoms.ops)) * limits.te * 4


class Grouped(Gemm):
    def _positions(self) -> Value:
        k, group, bk = self.k, self.plan.group, self.tiles.bk
        assert group is not None
        self.group, self.J = group, self.em.extent(group.dim)
        self.whole = (self.limits.static(group.dim) or bk + 1) <= bk  # a group is one block
        self.padded = k.idx("mul", k.idx("max", ceil_div(k, self.J, bk), 1), bk)
        return k.idx("mul", self.em.extent(self.stream.dim), self.padded)

    def _accumulators(self) -> None:
        k, t, (product,) = self.k, self.tiles, self.plan.products
        self.state = product.state
        tile = self.group.atom.tensor.dtype
        self.accs = {self.state.index: [[k.acc_alloc(tile) for _ in range(t.jn)] for _ in range(t.im)]}
        self.atom_accs = {}
        cap, width = rows_cap(self.plan, self.limits), t.jn * self.limits.te
        shape = [t.im, cap, width]
        self.totals = k.spm_alloc(self.state.dtype, [k.const(x) for x in shape], [k.const(x) for x in (cap * width, width, 1)], name="totals",
                                  size_bytes=t.im * cap * width * 4, per_warp=True)
        body = self.state.body.yielded[0]
        self.by_row, self.by_column = self._parts_of(body, self.plan.m, self.plan.n), self._parts_of(body, self.plan.n, self.plan.m)
        if self.by_row:
            n, te = len(self.by_row), self.limits.te
            self.table = k.spm_alloc(DType.f32, [k.const(x) for x in (n, t.im, te)], [k.const(x) for x in (t.im * te, te, 1)], name="scales",
                                     size_bytes=n * t.im * te * 4, per_warp=True)

    def _parts_of(self, v: Value, mine: tuple[Dim, ...], others: tuple[Dim, ...]) -> list[Value]:
        """The largest f32 subexpressions of v that vary with `mine` dims of a tile and not with `others`: made once for a group, in lanes."""
        v = self.em.resolve(v)
        dims = set(v.tensor.dims)
        if v is self.group.atom:
            return []
        if dims & {*mine} and not dims & {*others} and v.tensor.dtype is DType.f32:
            return [v]
        return list(dict.fromkeys(y for x in v.op.operands for y in self._parts_of(x, mine, others))) if v.op is not None else []

    def _block_at(self, i: Value) -> tuple[list[Axis], Lanes]:
        k = self.k
        at = k.idx("rem", i, self.padded)
        group = Axis((self.stream.dim,), k.idx("div", i, self.padded))
        return [group], Lanes(Axis((self.group.dim,), at), clamp(k, k.idx("sub", self.J, at), self.tiles.bk))

    def _begin(self) -> list[Value]:
        k, te = self.k, self.limits.te
        nothing = k.bcast(identity(k, self.state), self.te, te)
        for i in range(self.tiles.im):
            def clear(r: Value, _: list[Value], i: int = i) -> Sequence[Value]:
                for j in range(self.tiles.jn):
                    k.store(self._total_at(i, j, r), nothing, self.te, axis=2)
                return []

            k.for_(0, self.vl_m[i], 1, [], clear)
        return []

    def _total_at(self, i: int, j: int, row: Value) -> Value:
        return self.k.mem_at(self.totals, [self.k.const(i), row, self.k.const(j * self.limits.te)])

    def total(self, state: int, i: int, j: int, row: Value) -> Value:
        return self.k.load(self._total_at(i, j, row), self.vl_n[j], axis=2, lanes=self.limits.te)

    def block(self, i: Value, rows: Value, carried: list[Value]) -> Sequence[Value]:
        k = self.k
        (group,), lanes = self._block_at(i)
        at = lanes.axis.base
        self._let_next_start(i)
        if self.whole:
            self._clear()
            self._multiply(rows)
            self._add(group)
        else:
            k.if_(k.cmp("eq", at, 0), self._clear)
            self._multiply(rows)
            k.if_(k.cmp("ge", k.idx("add", at, self.tiles.bk), self.J), lambda: self._add(group))
        return carried

    def _clear(self) -> Sequence[Value]:
        for i, row in enumerate(self.accs[self.state.index]):
            for j, acc in enumerate(row):
                self.k.acc_zero(acc, self.vl_m[i], self.vl_n[j])
        return []

    # -- the end of a group
    def _add(self, group: Axis) -> Sequence[Value]:
        """Every row of the group's tiles, through the math, into the totals."""
        k, em, t, te = self.k, self.em, self.tiles, self.limits.te
        lanes = [Axis(self.plan.n, k.idx("add", self.n0, j * te) if j else self.n0, self.vl_n[j], te) for j in range(t.jn)]
        with em.scope([group]):
            for i in range(t.im):
                with em.scope([Axis(self.plan.m, self._first(i), self.vl_m[i], te)]):
                    for slot, v in enumerate(self.by_row):
                        x = em.one(v)
                        x = x if isinstance(x.type, VecType) else k.bcast(x, self.vl_m[i], te)
                        k.store(k.mem_at(self.table, [k.const(slot), k.const(i), self.zero]), x, self.vl_m[i], axis=2)
            columns: list[Binds] = []
            for lane in lanes:
                with em.scope([lane]):
                    columns.append({v: em.emit(v) for v in self.by_column})
            for i in range(t.im):
                k.for_(0, self.vl_m[i], 1, [], lambda r, _, i=i: self._row(i, r, lanes, columns))  # type: ignore[misc]
        return []

    def _first(self, i: int) -> Value:
        return self.k.idx("add", self.m0, i * self.limits.te) if i else self.m0

    def _row(self, i: int, r: Value, lanes: list[Axis], columns: list[Binds]) -> Sequence[Value]:
        k, em = self.k, self.em
        accs = self.accs[self.state.index][i]
        reads = [k.acc_read(acc, r, vl, axis="row") for acc, vl in zip(accs, self.vl_n, strict=True)]
        factors: Binds = {v: (k.s_load(k.mem_at(self.table, [k.const(slot), k.const(i), r])),) for slot, v in enumerate(self.by_row)}
        em.fused = True
        with em.scope([Axis(self.plan.m, k.idx("add", self._first(i), r))], factors):
            for j, (lane, product, column) in enumerate(zip(lanes, reads, columns, strict=True)):
                place, vl = self._total_at(i, j, r), self.vl_n[j]
                with em.scope([lane], {**column, self.group.atom: (product,)}):
                    x, before = em.one(self.state.body.yielded[0]), k.load(place, vl, axis=2, lanes=lane.lanes)
                    k.store(place, em.add(x, before, vl) if isinstance(x.type, VecType) else k.vt("add", before, x, vl=vl), vl, axis=2)
        em.fused = False
        return []
