"""What falls out of the cascade rule, from text to the simulated binary, each against float64 within its bound."""

from __future__ import annotations

import numpy as np
import pytest

from rvgpu.ir.tile_eval import numpy_dtype
from rvgpu.runtime.kernel import kernel

HEAD = "q: bf16[G, R, S, D], k: bf16[G, T, D], v: bf16[G, T, D]"
ATTENTION = {"G": 2, "R": 2, "S": 13, "T": 75, "D": 32}
CASES = {
    "variance": ("def f(x: f32[M, N]) -> f32[M]:\n    return var(x, over=N)", {"M": 5, "N": 300}),
    "layernorm": ("def f(x: f32[M, N], w: f32[N], b: f32[N]) -> f32[M, N]:\n    c = x - mean(x, over=N)\n"
                  "    return c * rsqrt(mean(c * c, over=N) + 1e-5) * w + b", {"M": 5, "N": 300}),
    "logsumexp": ("def f(x: f32[M, N]) -> f32[M]:\n    return logsumexp(x, over=N)", {"M": 5, "N": 300}),
    "online": ("def f(x: f32[M, N]) -> (f32[M], f32[M]):\n    m = amax(x, over=N)\n    return m, sum(exp(x - m), over=N)", {"M": 5, "N": 300}),
    "columns": ("def f(x: f32[M, N]) -> f32[N]:\n    return sum(x * x, over=M)", {"M": 37, "N": 70}),
    "windowed": (f"def f({HEAD}) -> bf16[G, R, S, D]:\n    s: f32 = q @ k\n    near = (iota(T) <= iota(S) + 40) & (iota(S) < iota(T) + 9)\n"
                 "    s = where(near, s * 0.2, -inf)\n    return softmax(s, over=T) @ v", ATTENTION),
    "softcap": (f"def f({HEAD}) -> bf16[G, R, S, D]:\n    s: f32 = q @ k\n    return softmax(5.0 * tanh(s * 0.05), over=T) @ v", ATTENTION),
    "alibi": (f"def f({HEAD}, slope: f32[G, R]) -> bf16[G, R, S, D]:\n    s: f32 = q @ k\n"
              "    return softmax(s * 0.2 - slope * f32(iota(T)), over=T) @ v", ATTENTION),
    "with_lse": (f"def f({HEAD}) -> (bf16[G, R, S, D], f32[G, R, S]):\n    s: f32 = q @ k\n    s = s * 0.2\n"
                 "    return softmax(s, over=T) @ v, logsumexp(s, over=T)", ATTENTION),
    "by_hand": (f"def f({HEAD}) -> bf16[G, R, S, D]:\n    s: f32 = (q @ k) * 0.2\n    e = exp(s - amax(s, over=T))\n"
                "    return (e @ v) / sum(e, over=T)", ATTENTION),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("overrides", [{}, {"vector.vlen": 256, "matrix.te": 32}], ids=["base", "vlen256"])
def test_falls_out(name, overrides):
    text, dims = CASES[name]
    k = kernel(text)
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal([d.value(dims) for d in p.value.tensor.dims], dtype=np.float32).astype(numpy_dtype(p.value.tensor.dtype))
              for p in k.func.params]
    compiled = k.compile("base", overrides=overrides)
    r = compiled.run(*arrays, check=True)
    assert r.stats["check"]["passed"], r.stats["check"]
    assert len(r.stats["launches"]) == 1, "one kernel: everything over the streamed dim in one pass"


def test_variance_far_from_zero():
    """mean 1000 x std: x^2 - mean^2 would lose everything."""
    k = kernel("def f(x: f32[M, N]) -> f32[M]:\n    return var(x, over=N)")
    x = (1000 + np.random.default_rng(2).standard_normal((4, 500))).astype(np.float32)
    r = k.compile("base").run(x, check=True)
    assert r.stats["check"]["passed"]
    assert np.abs(r.out - x.astype(np.float64).var(1)).max() < 1e-3
