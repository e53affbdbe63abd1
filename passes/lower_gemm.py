"""Matrix products of two stored tensors: a block of the contracted dim is a run of operand loads and `mma`s."""

from __future__ import annotations

from collections.abc import Sequence

from rvgpu.ir.core import Value
from rvgpu.passes.kernel import reject
from rvgpu.passes.lower_matrix import Matrix


class Gemm(Matrix):
    def block(self, i: Value, rows: Value, carried: list[Value]) -> Sequence[Value]:
        if self.plan.vectors:
            raise reject("a matrix product beside a plain reduction in one kernel is not supported yet", self.plan.vectors[0].body.yielded[0])
        self._multiply(rows)
        return carried

    def _multiply(self, rows: Value) -> None:
        """Both factors stand in scratchpad. Whole tiles share one tile configuration; ragged ones set tm and tn for each multiply."""
        k, t = self.k, self.tiles
        live = [*self.vl_m, *self.vl_n]
        whole = k.cmp("eq", live[0], self.te)
        for v in live[1:]:
            whole = k.s("and", whole, k.cmp("eq", v, self.te))

        def run(vl_m: list[Value], vl_n: list[Value]) -> Sequence[Value]:
            self._multiply_loop(rows, vl_m, vl_n)
            return []

        k.if_(whole, lambda: run([self.te] * t.im, [self.te] * t.jn), lambda: run(self.vl_m, self.vl_n))

    def _multiply_loop(self, rows: Value, vl_m: list[Value], vl_n: list[Value]) -> None:
        """For each group of KMAX rows, im A and jn B operands, im * jn multiplies."""
        k, t, te = self.k, self.tiles, self.limits.te

        def step(kk: Value, _: list[Value]) -> Sequence[Value]:
            loaded: dict[tuple[Value, str, int], Value] = {}
            for p in self.plan.products:
                assert p.a is not None
                for leaf, lane, off, n in ((p.a, "m", self.m_off, t.im), (p.b, "n", self.n_off, t.jn)):
                    for i in range(n):
                        if (leaf.value, lane, i) not in loaded:
                            at = k.idx("add", off, i * te) if i else off
                            loaded[leaf.value, lane, i] = self._load(self.operands[leaf.value, lane], kk, at)
            for p in self.plan.products:
                assert p.a is not None
                for i in range(t.im):
                    for j in range(t.jn):
                        k.mma(self.accs[p.state.index][i][j], loaded[p.a.value, "m", i], loaded[p.b.value, "n", j],
                              vl_m[i], vl_n[j])
            return []

        k.for_(0, self._rounded(rows), self.kmax, [], step)
