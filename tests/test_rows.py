"""Row kernels: softmax as its author writes it, norms and losses, at sizes around chunks and parts, against float64; bytes and cycles."""

from __future__ import annotations

import pytest

from rvgpu.passes.context import Context
from rvgpu.passes.pipeline import PIPELINE, run_passes
from rvgpu.runtime.kernel import Kernel, kernel, load_file
from tests.test_lowering import facts
from tests.test_zoo import inputs

ZOO = load_file("examples/zoo.rvg")
SOFTMAX = "def soft(x: {0}[M, N]) -> {0}[M, N]:\n    h = f32(x)\n    e = exp(h - amax(h, over=N))\n    return e / sum(e, over=N)"
PLAIN_SUM = "def plain(x: f32[M, N]) -> f32[M, N]:\n    return x / sum(x, over=N)"


def ops(k: Kernel) -> list[str]:
    func, = run_passes([k.func], PIPELINE[:2], Context(facts(8, 128, 2)))
    return [op.name for op in func.body.ops]  # type: ignore[union-attr]


def test_a_row_is_divided_by_its_weights_sum_once():
    assert ops(kernel(SOFTMAX.format("bf16"))).count("div") == 1 and ops(kernel(SOFTMAX.format("bf16")))[-2] == "mul"
    assert ops(kernel(PLAIN_SUM))[-1] == "div"  # a sum that may be anything


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("n", [1, 2, 3, 64, 65, 777])
def test_softmax_meets_its_bound(dtype, n):
    k = kernel(SOFTMAX.format(dtype))
    arrays, _ = inputs(k, {"M": 5, "N": n})
    arrays[0][1] = float("-inf")
    arrays[0][2, 0] = float("inf")
    assert k.compile("base").run(*arrays, check=True).stats["check"]["passed"]
