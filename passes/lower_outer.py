"""Products on machines without a matrix unit: a warp keeps ROWS rows of one vector each in registers and adds outer products.

Per position of the contracted dim, one vector of the second factor times ROWS numbers of the first: ROWS multiply-adds of four registers for
1 + ROWS loads. Staging, work items and their order are those of matrix products (`lower_gemm`), a warp being a team of its own; the first factor
stands in scratchpad with the contracted dim innermost, where a warp reads numbers. Elements are summed one position after the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rvgpu.errors import RvgpuError
from rvgpu.ir.core import Func, Value
from rvgpu.ir.types import DType
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import ceil_div, clamp, find_stream, results
from rvgpu.passes.lower_gemm import Gemm, Lag
from rvgpu.passes.lower_matrix import Share, Tiles
from rvgpu.passes.matrix_plan import Key, MatrixPlan, plan_matrix
from rvgpu.passes.places import Axis

ROWS = 6  # vectors of sums: with one of the second factor and one that is on its way they fill the registers
LMUL = 4
UNROLL = 4  # positions of the contracted dim in a turn of the loop; zeros behind its end
STAGES = 3


def plan_outer(func: Func, limits: Limits) -> MatrixPlan | None:
    """The plan of a product for the vector unit; None where a sweep over rows does it (`lower_vector`): few rows or columns, other dtypes."""
    stream = find_stream(func)
    if stream is None or stream.anchor_needs or not all(s.contraction for s in stream.states):
        return None
    try:
        plan = plan_matrix(func, dataclasses.replace(limits, matrix=True))
    except RvgpuError:
        return None
    if plan is None or plan.atoms or plan.dtype not in (DType.f32, DType.bf16, DType.f16) or len(plan.products) > 1:
        return None
    (p,) = plan.products
    r = plan.stream.dim
    if p.a is None or {p.a.value.tensor.dtype, p.b.value.tensor.dtype} != {plan.dtype}:
        return None
    if p.a.dims[-1] not in (r, *plan.m) or p.b.dims[-1] not in plan.n or p.state.dtype is not DType.f32:
        return None
    if not all({*plan.m, *plan.n} <= {*t.dims} for t in func.result_types):
        return None
    return plan if limits.product(plan.m) >= ROWS and limits.product(plan.n) >= lanes(limits) // 2 else None


def lanes(limits: Limits) -> int:
    return LMUL * limits.vlen // 32


def lower_outer(func: Func, limits: Limits) -> Outer | None:
    plan = plan_outer(func, limits)
    if plan is None:
        return None
    each = (ROWS + lanes(limits)) * plan.dtype.bits // 8 * STAGES * limits.warps
    bk = next((n for n in (64, 32, 16) if n * each <= limits.spm_bytes), 8)
    return Outer(func, limits, plan, Tiles(1, 1, ROWS, 1, bk), STAGES, Lag(0, 0))


class Outer(Gemm):
    def _units(self) -> tuple[int, int]:
        return 1, lanes(self.limits)

    def _accumulators(self) -> None:
        self.accs = {}

    def _strides(self, lane: str, k_cap: int, lane_cap: int) -> tuple[int, int]:
        return (1, k_cap) if lane == "m" else (lane_cap, 1)

    def _share(self, w: Value) -> Share:
        k = self.k
        batch, (row, _), column = self._tile_of(w)
        live = clamp(k, k.idx("sub", self.N, column), self.bn)
        return Share(w, row, column, [], [live], batch, column, self._span(w))

    def _begin(self) -> list[Value]:
        return [self.k.bcast(self.k.sconst(0.0, DType.f32), self.vl_n[0], self.bn) for _ in range(ROWS)]

    def block(self, i: Value, rows: Value, carried: list[Value]) -> Sequence[Value]:
        k, (p,) = self.k, self.plan.products
        self._let_next_start(i)
        assert p.a is not None
        a, b = (self._stage_of(leaf.key, lane) for leaf, lane in ((p.a, "m"), (p.b, "n")))

        def turn(kk: Value, sums: list[Value]) -> Sequence[Value]:
            for u in range(UNROLL):
                at = k.idx("add", kk, u) if u else kk
                row = k.cast(k.load(k.mem_at(b, [self.zero, at, self.zero]), self.vl_n[0], axis=2, lanes=self.bn), DType.f32, self.vl_n[0])
                numbers = [k.s_cast(k.s_load(k.mem_at(a, [self.zero, at, k.const(r)])), DType.f32) for r in range(ROWS)]
                sums = [k.vt("fma", row, x, s, vl=self.vl_n[0]) for x, s in zip(numbers, sums, strict=True)]
            return sums

        return k.for_(0, k.idx("mul", ceil_div(k, rows, UNROLL), UNROLL), UNROLL, carried, turn)

    def _stage_of(self, leaf: Key, lane: str) -> Value:
        op = self.operands[leaf, lane]
        assert op.stage is not None
        return self.k.mem_at(op.buffer, [self._place(op, op.stage), self.zero, self.zero])

    def _finish(self, out: list[Value]) -> None:
        """A row after the other through the rest of the math into memory."""
        k, em, stream, (p,) = self.k, self.em, self.stream, self.plan.products
        state = p.state.index
        em.alias[stream.finish.args[state]] = stream.rebase.yielded[state]
        lane = Axis(self.plan.n, self.n0, self.vl_n[0], self.bn)

        def store(at: Value, total: Value) -> Sequence[Value]:
            with em.scope([lane, Axis(self.plan.m, at)], {stream.rebase.args[state]: (total,)}):
                for name, v, t in results(self.func, k):
                    mem, axis = em.address(name, t.dims, t.dtype, (), 0)
                    assert axis is not None
                    k.store(mem, em.one(v), self.vl_n[0], axis=axis)
            return []

        for r, total in enumerate(out):
            at = k.idx("add", self.m0, r) if r else self.m0
            k.if_(k.cmp("lt", at, self.M), lambda at=at, total=total: store(at, total))  # type: ignore[misc]
