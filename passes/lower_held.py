"""Anchors that stay where a row's first blocks put them (docs/adr/0017): the sum of exponentials watches them, and a team that saw one fall too far
behind goes through its work items once more, with anchors that follow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, reduce

from rvgpu.ir.core import Value
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType
from rvgpu.passes.kernel import FAR, MOST, State
from rvgpu.passes.lower_matrix import Matrix, States
from rvgpu.passes.matrix_plan import held


class Held(Matrix):
    @cached_property
    def witness(self) -> State | None:
        return held(self.plan, self.limits)

    def build(self) -> KFunc:
        """Where the plan has a witness, the work items are gone through with anchors that stay, and by a team that saw one fall too far behind
        once more, with anchors that follow."""
        if self.witness is None:
            return super().build()
        k, warps, count = self.k, self.limits.warps, self._count()
        self.behind = k.spm_alloc(DType.i32, [k.const(warps)], [k.const(1)], name="behind", size_bytes=4 * warps)
        k.s_store(k.mem_at(self.behind, [self.warp]), k.sconst(0, DType.i32))

        def attempt(n: Value, _: list[Value]) -> Sequence[Value]:
            self.again = k.cmp("eq", n, 1)
            items, = k.if_(self.again, lambda: [k.idx_select(self._any_behind(), count, 0)], lambda: [count])
            k.work(items, self._item, self.teams, self.mates)
            return []

        k.for_(0, 2, 1, [], attempt)
        return k.func

    def _any_behind(self) -> Value:
        """Whether a warp of this team saw an anchor too far behind."""
        k, zero = self.k, self.k.sconst(0, DType.i32)

        def words() -> list[Value]:
            self._meet()
            first = k.idx("mul", self.team, self.mates)
            seen = [k.s_load(k.mem_at(self.behind, [k.idx("add", first, n)])) for n in range(self.mates)]
            return [reduce(lambda a, b: k.s("add", a, b), seen)]

        idle = self.teams * self.mates < self.limits.warps  # a warp of no team meets nobody
        total, = k.if_(k.cmp("lt", self.team, self.teams), words, lambda: [zero]) if idle else words()
        return k.s("gt", total, zero)

    def _watch(self, states: States, anchors: list[Value]) -> None:
        """Marks an item in which an anchor fell too far behind: its sum of exponentials outgrew MOST. So does one so large that differences to
        it are known no better than HELD_TAU is apart from MOST."""
        k, vl, witness = self.k, self.vl_m[0], self.witness
        if witness is None:
            return
        total = self._state(states, self.plan.vectors.index(witness))
        far = k.vt("and", k.vt("gt", k.vt("abs", anchors[0], vl=vl), k.sconst(FAR, DType.f32), vl=vl),
                   k.vt("gt", total, k.sconst(0.0, DType.f32), vl=vl), vl=vl)
        above = k.vt("or", far, k.vt("gt", total, k.sconst(MOST, DType.f32), vl=vl), vl=vl)

        def mark() -> Sequence[Value]:
            k.s_store(k.mem_at(self.behind, [self.warp]), k.sconst(1, DType.i32))
            return []

        k.if_(k.vote("any", above, vl), mark)

    def _begin(self) -> list[Value]:
        return [*super()._begin(), *([self.zero] if self.witness else [])]

    def _parts(self, carried: list[Value]) -> tuple[States, list[Value]]:
        return super()._parts(carried[:-1] if self.witness else carried)

    def _finish(self, out: list[Value]) -> None:
        self._watch(*self._parts(out))
        super()._finish(out)
