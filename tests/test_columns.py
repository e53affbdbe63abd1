"""Columns: sums over a dim that is not innermost, statistics over a batch, transposes; against float64, pass by pass; bytes and cycles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.ir.numeric import round_to
from rvgpu.passes.context import Context
from rvgpu.passes.pipeline import PIPELINE, run_passes
from rvgpu.runtime.kernel import kernel
from rvgpu.testing import check_passes
from tests.test_lowering import facts
from tests.test_rows import outputs
from tests.test_zoo import inputs

TEXTS = {
    "colsum": "def colsum(x: f32[M, N]) -> f32[N]:\n    return sum(x, over=M)",
    "dbias": "def dbias(x: bf16[M, N]) -> f32[N]:\n    return sum(f32(x), over=M)",
    "colmax": "def colmax(x: bf16[M, N], w: f32[M]) -> f32[N]:\n    return amax(x * w, over=M)",
    "counted": "def counted(x: i8[M, N]) -> (i32[N], i32[N]):\n    return sum(i32(x), over=M), argmax(i32(x), over=M)",
    "stats": "def stats(x: f32[M, N]) -> (f32[N], f32[N]):\n    m = mean(x, over=M)\n    return m, mean((x - m) * (x - m), over=M)",
    "batchnorm": "def batchnorm(x: bf16[M, N], w: f32[N], b: f32[N]) -> (bf16[M, N], f32[N]):\n    m = mean(x, over=M)\n    c = x - m\n"
                 "    return c * rsqrt(mean(c * c, over=M) + 1e-5) * w + b, m",
    "soft": "def soft(x: f32[M, N]) -> f32[M, N]:\n    return softmax(x, over=M)",
    "middle": "def middle(x: f32[B, M, N]) -> f32[B, N]:\n    return sum(x * x, over=M)",
    "batch": "def batch(x: bf16[M, B, N], y: f32[B, N]) -> f32[B, N]:\n    return sum(x * y, over=M) + y",
    "masked": "def masked(x: f32[M, N]) -> f32[N]:\n    return logsumexp(where(iota(M) % 3 == 0, -inf, x), over=M)",
    "dotted": "def dotted(x: bf16[M, N], y: bf16[M, N]) -> f32[N]:\n    return dot(x, y, over=M)",
    "shared": "def shared(x: f32[B, M, N], y: f32[M, N]) -> f32[B, N]:\n    return sum(exp(x - amax(y, over=M)), over=M)",
    "joined": "def joined(x: f32[M, N]) -> f32[M, 2 * N]:\n    y = x - amax(x, over=M)\n    return concat(y, y * 2.0, over=N)",
    "turned": "def turned(x: bf16[M, N], y: f32[N]) -> f32[N, M]:\n    return x * 2.0 + y",
    "heads": "def heads(x: bf16[M, B, N], s: f32[M]) -> bf16[B, M, N]:\n    return x * s",
    "across": "def across(x: f32[B, M, N], y: f32[N, B, M]) -> f32[N, B, M]:\n    return x - y",
}
COLUMNS = {n: kernel(t) for n, t in TEXTS.items()}
SMALL = {"vector.vlen": 128, "matrix.te": 16}  # parts of 128 and 32, parts of parts above 16384 and 1024


def arrays_of(name: str, m: int, n: int, b: int = 3) -> list[np.ndarray]:
    return inputs(COLUMNS[name], {"M": m, "N": n, "B": b})[0]


def ragged(name: str, a: np.ndarray, n: int, of: int) -> np.ndarray:
    """The first `of` of n columns."""
    return a[..., :of] if a.shape[-1] == n else a


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("m,n", [(1, 1), (3, 70), (33, 5), (129, 64), (700, 37), (1300, 18)])
def test_columns(name, m, n):
    k = COLUMNS[name]
    arrays = arrays_of(name, m, n)
    whole = k.compile("base", overrides=SMALL).run(*arrays, check=True)
    assert whole.stats["check"]["passed"], whole.stats["check"]
    for change in ({"gpu.cores": "1"}, {"gpu.cores": "16", "core.warps": "2"}, {"core.warps": "3", "scratchpad.size_bytes": "16384"}):
        assert outputs(k.compile("base", overrides=SMALL | change).run(*arrays)) == outputs(whole), change


@pytest.mark.parametrize("name", ["dbias", "stats", "soft", "masked"])
def test_a_column_does_not_see_its_neighbours(name):
    k = COLUMNS[name].compile("base", overrides=SMALL)
    arrays = arrays_of(name, 300, 70)
    whole, few = k.run(*arrays), k.run(*[np.ascontiguousarray(ragged(name, a, 70, 9)) for a in arrays])
    for a, b in zip(few.outputs.values(), whole.outputs.values(), strict=True):
        assert a.tobytes() == np.ascontiguousarray(ragged(name, b, 70, 9)).tobytes()


@pytest.mark.parametrize("name", ["stats", "soft"])
def test_nothing_but_bottoms(name):
    arrays = arrays_of(name, 200, 9)
    arrays[0][:, 1], arrays[0][5, 2], arrays[0][:150, 3] = float("-inf"), float("nan"), float("-inf")
    assert COLUMNS[name].compile("base", overrides=SMALL).run(*arrays, check=True).stats["check"]["passed"]


@pytest.mark.parametrize("name", ["dbias", "batchnorm", "turned", "heads"])
def test_nothing_races(name):
    r = COLUMNS[name].compile("base", overrides=SMALL).run(*arrays_of(name, 150, 40), check=True, sanitize=True)
    assert r.stats["check"]["passed"]


@pytest.mark.parametrize("name", COLUMNS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_columns_pass_by_pass(name, data):
    """The meaning of every pass is the one before; parts of 64 and 16 on a machine of the smallest vectors."""
    sizes = {"M": data.draw(st.integers(1, 400)), "N": data.draw(st.integers(1, 40)), "B": data.draw(st.integers(1, 3))}
    rng, k = np.random.default_rng(1), COLUMNS[name]
    arrays = {p.name: round_to(rng.standard_normal([d.value(sizes) for d in p.value.tensor.dims]) * 5, p.value.tensor.dtype) for p in k.func.params}
    check_passes(k, sizes, facts(8, 64, data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 8]))), arrays, {})


def test_parts_of_parts():
    names = [f.name for f in run_passes([COLUMNS["stats"].func], PIPELINE, Context(facts(8, 128, 2), {}, {"M": 4096, "N": 64}))]
    assert names == ["stats.parts", "stats.parts.parts", "stats"]


CYCLES = [("colsum", {"M": 50000, "N": 50}, 167_000), ("colsum", {"M": 65536, "N": 8}, 38_500), ("dbias", {"M": 4096, "N": 1024}, 138_000),
          ("stats", {"M": 8192, "N": 256}, 151_500), ("batchnorm", {"M": 2048, "N": 256}, 63_500), ("middle", {"B": 16, "M": 512, "N": 256}, 136_000),
          ("turned", {"M": 1024, "N": 1024}, 101_000), ("heads", {"M": 512, "B": 16, "N": 128}, 68_000)]


@pytest.mark.parametrize("name,dims,most", CYCLES)
def test_cycles(name, dims, most):
    """Bounds on simulated cycles, a little above what was measured."""
    k = COLUMNS[name]
    assert k.compile("base").run(*inputs(k, {"B": 1, **dims})[0]).cycles <= most
