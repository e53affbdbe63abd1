"""Matrix products of two stored tensors: a block of the contracted dim is a run of operand loads and `mma`s."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rvgpu.ir.core import Func, Value
from rvgpu.ir.tile_build import KFunc
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import ceil_div, clamp, decode, reject
from rvgpu.passes.lower_matrix import Lanes, Matrix, Share, Tiles, Where
from rvgpu.passes.matrix_plan import Key, MatrixPlan
from rvgpu.passes.places import Axis

GRAIN = 16  # columns that matrix units take at once
QUEUE = 8  # barriers from here on: team t waits at QUEUE + t - 1 for the one before it


def group_rows(limits: Limits, bm: int, bn: int, teams: int) -> int:
    """Tiles of rows in a group: about as many elements as columns of what all cores do at once."""
    side = math.isqrt(limits.cores * teams * bn // bm)
    return 1 << max(0, side.bit_length() - 1)


@dataclass(frozen=True)
class Lag:
    """By how many positions of the streamed dim a team is behind the one before it: `store` or half an even share of all, `math` or an even
    share."""

    store: int
    math: int


class Gemm(Matrix):
    """Teams start one after the other: while one stores a tile, the others multiply, and the first blocks of all do not come at once."""

    def __init__(self, func: Func, limits: Limits, plan: MatrixPlan, tiles: Tiles, stages: int, lag: Lag) -> None:
        super().__init__(func, limits, plan, tiles, stages)
        k, self.most = self.k, lag
        if tiles.wn == 1 and tiles.jn > 1:  # a narrow rest would cost a warp as many instructions as a whole tile
            even = ceil_div(k, self.N, k.idx("max", self.n_tiles, 1))
            self.columns = k.idx("min", k.idx("mul", ceil_div(k, even, GRAIN), GRAIN), self.bn)
        self.halves = self._halves() if tiles.wm == 1 and tiles.jn > 1 else None

    def _halves(self) -> tuple[Value, Value, Value]:
        """When half the cores or less would have one of the last tiles, they are cut into two work items each (by rows: both halves need all of B,
        too much beside a single tile): whole tiles, halves, and the first work item of those."""
        k, cores = self.k, self.limits.cores
        tiles = super()._count()
        rest = k.idx("rem", tiles, cores)
        last = k.idx("sub", self.M, k.idx("mul", k.idx("sub", self.m_tiles, 1), self.bm))
        cut = k.idx_select(k.s("and", k.cmp("le", rest, cores // 2), k.cmp("gt", last, GRAIN)), rest, 0)
        whole = k.idx("sub", tiles, cut)
        return whole, k.idx("mul", cut, 2), k.idx("max", k.idx("sub", whole, cores), 0)

    def _count(self) -> Value:
        return super()._count() if self.halves is None else self.k.idx("add", self.halves[0], self.halves[1])

    def build(self) -> KFunc:
        self._start()
        return super().build()

    def _start(self) -> None:
        """Waits for the team before this one."""
        k = self.k
        if 1 < self.teams <= QUEUE:
            count, ctas = self._count(), k.special("ctas")
            self.count, self.all_ctas = count, ctas
            share = k.idx("div", self.R, 2 * self.teams)
            most = k.idx("max", k.idx("min", share, self.most.store), k.idx("min", k.idx("mul", share, 2), self.most.math))
            self.lag = k.idx("mul", k.idx("div", most, self.tiles.bk), self.tiles.bk)
            mine = k.idx("add", k.special("cta"), k.idx("mul", ctas, self.team))
            late = k.s("and", k.cmp("gt", self.team, 0), k.cmp("lt", mine, count))
            k.if_(k.s("and", late, k.cmp("gt", self.R, 0)), lambda: self._meet_team(-1))

    def _tile_of(self, w: Value) -> tuple[list[Value], Where, Value]:
        """Work items go down the rows of a group of tiles, then on to the next columns: those that run at once share factors in L2. Halves of
        tiles come before the last tiles: each step of theirs takes a turn among those of the other teams, so they take as long as a whole one."""
        k = self.k
        half = None
        if self.halves is not None:
            whole, halves, start = self.halves
            over = k.idx("max", k.idx("sub", w, start), 0)
            past = k.cmp("ge", over, halves)
            half = k.s("and", k.cmp("ge", w, start), k.cmp("lt", over, halves))
            w = k.idx_select(half, k.idx("add", whole, k.idx("div", over, 2)), k.idx("sub", w, k.idx_select(past, halves, 0)))
        *batch, tile = decode(k, w, [*self.batch_extents, k.idx("mul", self.m_tiles, self.n_tiles)])
        rows = group_rows(self.limits, self.bm, self.bn, self.teams)
        group = k.idx("mul", self.n_tiles, rows)
        above, at = k.idx("mul", k.idx("div", tile, group), rows), k.idx("rem", tile, group)
        high = k.idx("min", k.idx("sub", self.m_tiles, above), rows)
        mt, nt = k.idx("add", above, k.idx("rem", at, high)), k.idx("div", at, high)
        m0 = k.idx("mul", mt, self.bm)
        live = k.idx("min", k.idx("sub", self.M, m0), self.bm)
        if half is not None:
            upper = k.idx("mul", ceil_div(k, live, 2 * GRAIN), GRAIN)
            second = k.s("and", half, k.cmp("eq", k.idx("rem", over, 2), 1))
            m0 = k.idx("add", m0, k.idx_select(second, upper, 0))
            live = k.idx_select(second, k.idx("sub", live, upper), k.idx_select(half, upper, live))
        return batch, (m0, live), k.idx("mul", nt, self.columns)

    def _rows_of(self, where: Where) -> tuple[Value, list[Value]]:
        k, (m0, live) = self.k, where
        return k.idx("add", m0, self.m_off), [clamp(k, k.idx("sub", live, k.idx("add", self.m_off, i * self.limits.te)), self.te)
                                              for i in range(self.tiles.im)]

    def _staged_rows(self, where: Where) -> tuple[Lanes, bool]:
        return Lanes(Axis(self.plan.m, where[0]), where[1]), False

    def _share(self, w: Value) -> Share:
        k, te, whole = self.k, self.limits.te, super()._share(w)
        if isinstance(self.columns, int):
            return whole
        mine = clamp(k, k.idx("sub", self.N, whole.column), self.columns)
        return replace(whole, vl_n=[clamp(k, k.idx("sub", mine, j * te) if j else mine, self.te) for j in range(self.tiles.jn)])

    def _copy(self, w: Value, i: Value, stage: Value, wstage: Value) -> None:
        """What is not transposed comes first: it is there soon, and cores that share it do not wait for each other's transpositions."""
        self._bring(w, i, lambda _: stage, sorted(self.operands.values(), key=lambda op: op.leaf.dims[-1] == self.plan.inner))

    def _meet_team(self, which: int) -> Sequence[Value]:
        self.k.bar(QUEUE + which, self.team, 2 * self.mates)
        return []

    def _let_next_start(self, i: Value) -> None:
        """In a team's first work item: the next team may start."""
        k = self.k
        if 1 < self.teams <= QUEUE:
            first = k.cmp("lt", self.share.w, k.idx("mul", self.all_ctas, self.teams - 1))
            there = k.cmp("lt", k.idx("add", self.share.w, self.all_ctas), self.count)
            now = k.s("and", k.cmp("eq", i, self.lag), k.s("and", first, there))
            k.if_(now, lambda: self._meet_team(0))

    def block(self, i: Value, rows: Value, carried: list[Value]) -> Sequence[Value]:
        if self.plan.vectors:
            raise reject("a matrix product beside a plain reduction in one kernel is not supported yet", self.plan.vectors[0].body.yielded[0])
        self._let_next_start(i)
        self._multiply(rows)
        return carried

    def _multiply(self, rows: Value) -> None:
        """Both factors stand in scratchpad. Whole tiles share one tile configuration; ragged ones set tm and tn for each multiply, where only the
        last columns are, for those."""
        k, t = self.k, self.tiles

        def run(vl_m: list[Value], vl_n: list[Value]) -> Sequence[Value]:
            self._multiply_loop(rows, vl_m, vl_n)
            return []

        def some() -> Sequence[Value]:
            run(self.vl_m, self.vl_n)
            return []

        def most() -> Sequence[Value]:
            k.if_(self._whole([*self.vl_m, *self.vl_n[:-1]]), lambda: run([self.te] * t.im, [self.te] * (t.jn - 1) + self.vl_n[-1:]), some)
            return []

        k.if_(self._whole([*self.vl_m, *self.vl_n]), lambda: run([self.te] * t.im, [self.te] * t.jn), some if isinstance(self.columns, int) else most)

    def _whole(self, live: list[Value]) -> Value:
        k = self.k
        out = k.cmp("eq", live[0], self.te)
        for v in live[1:]:
            out = k.s("and", out, k.cmp("eq", v, self.te))
        return out

    def _multiply_loop(self, rows: Value, vl_m: list[Value], vl_n: list[Value]) -> None:
        """For each group of KMAX rows, im A and jn B operands, im * jn multiplies."""
        k, t, te = self.k, self.tiles, self.limits.te

        def step(kk: Value, _: list[Value]) -> Sequence[Value]:
            loaded: dict[tuple[Key, str, int], Value] = {}
            for p in self.plan.products:
                assert p.a is not None
                for leaf, lane, off, n in ((p.a, "m", self.m_off, t.im), (p.b, "n", self.n_off, t.jn)):
                    for i in range(n):
                        if (leaf.key, lane, i) not in loaded:
                            at = k.idx("add", off, i * te) if i else off
                            loaded[leaf.key, lane, i] = self._load(self.operands[leaf.key, lane], kk, at)
            for p in self.plan.products:
                assert p.a is not None
                for j in range(t.jn):
                    for i in range(t.im):
                        k.mma(self.accs[p.state.index][i][j], loaded[p.a.key, "m", i], loaded[p.b.key, "n", j],
                              vl_m[i], vl_n[j])
            return []

        k.for_(0, self._rounded(rows), self.kmax, [], step)
