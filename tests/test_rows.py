"""Row kernels: softmax as its author writes it, norms and losses, at sizes around chunks and parts, against float64; bytes and cycles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.ir.numeric import numpy_dtype, round_to
from rvgpu.ir.types import DType
from rvgpu.passes.context import Context
from rvgpu.passes.pipeline import PIPELINE, run_passes
from rvgpu.runtime.kernel import Kernel, kernel
from rvgpu.testing import check_passes
from tests.test_lowering import facts
from tests.test_zoo import inputs

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


# -- long rows, in parts

TEXTS = {
    "soft": SOFTMAX.format("f32"),
    "narrow": SOFTMAX.format("bf16"),
    "masked": "def masked(x: f32[M, N]) -> (f32[M, N], f32[M]):\n    s = where(iota(N) % 3 == 0, -inf, x)\n"
              "    return softmax(s, over=N), logsumexp(s, over=N)",
    "norm": "def norm(x: f32[M, N], w: f32[N]) -> f32[M, N]:\n    c = x - mean(x, over=N)\n    return c * rsqrt(mean(c * c, over=N) + 1e-5) * w",
    "loss": "def loss(x: bf16[M, N], y: i32[M]) -> f32[M]:\n    h = f32(x)\n"
            "    return logsumexp(h, over=N) - sum(where(iota(N) == y, h, 0.0), over=N)",
    "taken": "def taken(x: bf16[M, N], y: i32[M]) -> f32[M]:\n"
             "    return logsumexp(x, over=N) - take(x, y, along=N)",
    "shifted": "def shifted(x: f32[M, N]) -> f32[M, N]:\n    before = slice(pad(x, N, 1, N + 1), N + 1, 0, N)\n"
               "    return x * 2.0 - before",
    "whole": "def whole(x: f32[N]) -> (f32[N], f32):\n    return x / (1.0 + amax(x, over=N)), sum(x, over=N)",
    "parallel": "def parallel(x: bf16[M, N], y: f32[M, N]) -> f32[M, N]:\n    return y * f32(x) + 1.0",
}
LONG = {n: kernel(t) for n, t in TEXTS.items()}
MACHINE = {"vector.vlen": 128, "matrix.te": 16}  # parts of 512, of rows of more than 2048


def arrays_of(k: Kernel, dims: dict[str, int]) -> list[np.ndarray]:
    arrays, _ = inputs(k, dims)
    for n, p in enumerate(k.func.params):
        if p.value.tensor.dtype is DType.i32:
            arrays[n] = (np.arange(arrays[n].size, dtype=np.int32) * 1237 % dims["N"]).reshape(arrays[n].shape)
    return arrays


def outputs(r) -> list[bytes]:
    return [x.tobytes() for x in r.outputs.values()]


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("m,n", [(1, 2049), (3, 2100), (9, 4096), (17, 2560), (2, 7777)])
def test_long_rows(name, m, n):
    k = LONG[name]
    dims = {"M": m, "N": n}
    arrays = arrays_of(k, dims)
    whole = k.compile("base", overrides=MACHINE).run(*arrays, check=True)
    assert whole.stats["check"]["passed"], whole.stats["check"]
    for change in ({"gpu.cores": "1"}, {"gpu.cores": "16", "core.warps": "2"}, {"core.warps": "3"}):  # few rows, many rows
        assert outputs(k.compile("base", overrides=MACHINE | change).run(*arrays)) == outputs(whole), change
    if m > 1:
        one = k.compile("base", overrides=MACHINE).run(*[x[1:2] if x.shape[:1] == (m,) else x for x in arrays])
        assert all(a[0].tobytes() == b[1].tobytes() for a, b in zip(one.outputs.values(), whole.outputs.values(), strict=True) if b.shape[:1] == (m,))


@pytest.mark.parametrize("name", LONG)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_long_rows_pass_by_pass(name, data):
    """The meaning of every pass is the one before; parts of 32 lanes' worth on a machine of the smallest vectors."""
    sizes = {"M": data.draw(st.integers(1, 5)), "N": data.draw(st.integers(1025, 1100))}
    rng = np.random.default_rng(1)
    k = LONG[name]
    arrays = {p.name: round_to(rng.standard_normal([d.value(sizes) for d in p.value.tensor.dims]), p.value.tensor.dtype) for p in k.func.params}
    if "y" in arrays and k.func.params[1].value.tensor.dtype is DType.i32:
        arrays["y"] = arrays_of(k, sizes)[1]
    check_passes(k, sizes, facts(8, 64, data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 8]))), arrays, {})


KEPT = {
    "weights": "def weights(x: bf16[M, N]) -> (f32[M, N], bf16[M, N]):\n    h = f32(x)\n    e = exp(h - amax(h, over=N))\n"
               "    return e, e / sum(e, over=N)",
    "layernorm": "def layernorm(x: bf16[M, N], w: bf16[N], b: bf16[N]) -> (bf16[M, N], f32[M, N]):\n    h = f32(x)\n    c = h - mean(h, over=N)\n"
                 "    return c * rsqrt(mean(c * c, over=N) + 1e-5) * w + b, c",
    "entropy": "def entropy(x: f16[M, N]) -> (f32[M], f32[M, N]):\n    p = softmax(f32(x), over=N)\n"
               "    return -sum(p * log(p + 1e-9), over=N), p + 1.0",
    "added": "def added(x: bf16[M, N], r: bf16[M, N]) -> (bf16[M, N], bf16[M, N]):\n    h = f32(x) + r\n"
             "    return h, h * rsqrt(mean(h * h, over=N) + 1e-6)",
}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("n", [1, 65, 700])
def test_what_is_kept_is_what_is_computed(name, n):
    """Rows of nothing but -inf, of infinities and NaN among them: a total's bottom is not what an anchor stands at."""
    k = kernel(KEPT[name])
    arrays, _ = inputs(k, {"M": 6, "N": n})
    for x in arrays[:1]:
        x[1], x[2, 0], x[3, n // 2], x[4, 0] = float("-inf"), float("inf"), float("nan"), float("-inf")
    for change in ({}, {"scratchpad.size_bytes": 16384}, {"vector.vlen": 256, "matrix.te": 32}):
        r = k.compile("base", overrides=change).run(*arrays, check=True)
        assert r.stats["check"]["passed"], (change, r.stats["check"])


def test_a_value_needed_twice_is_kept():
    func, = run_passes([kernel(SOFTMAX.format("bf16")).func], PIPELINE, Context(facts(8, 128, 2), {}, {"M": 8, "N": 512}))
    names = [op.attrs["name"] for op in func.body.walk() if op.name == "spm.alloc"]  # type: ignore[union-attr]
    assert sorted(names) == ["kept0", "x"]  # the exponentials stand where the converted row stood
    exps = [op for op in func.body.walk() if op.name == "vt.exp"]  # type: ignore[union-attr]
    assert len(exps) == 3  # in full chunks, in the last one, and for the results of a row of nothing but -inf


HEADS = "def heads(x: bf16[B, M, N], w: bf16[N]) -> (bf16[B, M, N], f32[B, M]):\n    h = f32(x)\n    s = mean(h * h, over=N)\n" \
        "    return h * rsqrt(s + 1e-6) * w, s"


@pytest.mark.parametrize("n", [1, 15, 16, 31, 64, 65, 128])
def test_short_rows_are_interleaved(n):
    """Pairs, fours and what is left of them; alone or with others a row has the same bytes."""
    for text, dims in ((SOFTMAX.format("bf16"), {"M": 37, "N": n}), (HEADS, {"B": 3, "M": 7, "N": n}), (TEXTS["taken"], {"M": 37, "N": n})):
        k = kernel(text)
        arrays = arrays_of(k, dims)
        arrays[0][..., 1 % n] = float("-inf")
        arrays[0][2] = float("-inf")
        whole = k.compile("base").run(*arrays, check=True)
        assert whole.stats["check"]["passed"], whole.stats["check"]
        for change in ({"gpu.cores": "1"}, {"gpu.cores": "16", "core.warps": "3"}):
            assert outputs(k.compile("base", overrides=change).run(*arrays)) == outputs(whole), change


EMBED = "def embed(table: bf16[V, N], ids: i32[M], bias: f32[N]) -> f32[M, N]:\n    return take(table, ids, along=V) * 2.0 + bias"


@pytest.mark.parametrize("m,n", [(1, 300), (37, 300), (3, 4500)])
def test_rows_of_a_table_come_by_their_index(m, n):
    rng = np.random.default_rng(2)
    table, ids = rng.standard_normal((50, n)).astype(numpy_dtype(DType.bf16)), rng.integers(0, 50, m, np.int32)
    arrays = [table, ids, rng.standard_normal(n).astype(np.float32)]
    r = kernel(EMBED).compile("base").run(*arrays, check=True, sanitize=True)
    assert r.stats["check"]["passed"]


def test_a_lookup_costs_its_bytes():
    k = kernel("def embed(table: bf16[V, N], ids: i32[B, M]) -> bf16[B, M, N]:\n    return take(table, ids, along=V)")
    rng = np.random.default_rng(2)
    table, ids = rng.standard_normal((5000, 64)).astype(numpy_dtype(DType.bf16)), rng.integers(0, 5000, (4, 1024), np.int32)
    r = k.compile("base").run(table, ids)
    assert (r.out == table[ids]).all() and r.cycles <= 18_500


SWIGLU = "def swiglu(g: bf16[M, N], u: bf16[M, N]) -> bf16[M, N]:\n    return silu(f32(g)) * u"
CYCLES = [(SWIGLU, {"M": 64, "N": 14336}, 93_000), (TEXTS["soft"], {"M": 1, "N": 131072}, 23_000), (TEXTS["loss"], {"M": 1, "N": 128256}, 17_000),
          (TEXTS["soft"], {"M": 16, "N": 32768}, 72_000), (SOFTMAX.format("bf16"), {"M": 512, "N": 4096}, 134_000),
          (SOFTMAX.format("bf16"), {"M": 128, "N": 16384}, 147_500), (SOFTMAX.format("bf16"), {"M": 4096, "N": 64}, 23_000),
          (SOFTMAX.format("bf16"), {"M": 16384, "N": 32}, 53_000),
          (KEPT["layernorm"], {"M": 4096, "N": 64}, 35_500),
          (SOFTMAX.format("bf16"), {"M": 4096, "N": 128}, 35_500), (KEPT["layernorm"], {"M": 512, "N": 4096}, 270_000)]


ROPE = "def rope(x: bf16[B, S, H, 2 * N], cos: f32[S, N], sin: f32[S, N]) -> bf16[B, S, H, 2 * N]:\n    x1, x2 = split(x, N)\n" \
       "    return concat(x1 * cos - x2 * sin, x2 * cos + x1 * sin, over=N)"
CYCLES += [(ROPE, {"B": 4, "S": 256, "H": 12, "N": 32}, 55_000),
           ("def rowscale(x: bf16[M, N], s: f32[M]) -> bf16[M, N]:\n    return x * s", {"M": 16384, "N": 64}, 70_000),
           ("def quant(x: bf16[M, N]) -> (i8[M, N], f32[M]):\n    h = f32(x)\n    s = amax(abs(h), over=N) / 127.0\n"
            "    return i8(round(h / s)), s", {"M": 512, "N": 4096}, 166_000)]


@pytest.mark.parametrize("b,s,h,n", [(1, 1, 1, 1), (3, 7, 5, 19), (2, 33, 1, 64), (1, 5, 40, 130)])
def test_rows_in_runs(b, s, h, n):
    """A row's coordinates go by in runs along the last row dim; short pieces of a concatenated row stand in one register group each."""
    k = kernel(ROPE)
    arrays, _ = inputs(k, {"B": b, "S": s, "H": h, "N": n})
    whole = k.compile("base").run(*arrays, check=True, sanitize=True)
    assert whole.stats["check"]["passed"]
    assert outputs(k.compile("base", overrides={"gpu.cores": "1", "core.warps": "3"}).run(*arrays)) == outputs(whole)


@pytest.mark.parametrize("dtype", ["i8", "u8", "i32"])
def test_conversions_round_and_saturate(dtype):
    """Towards zero, and to the nearest where the number was rounded first; NaN gives the largest."""
    low, high = {"i8": (-128, 127), "u8": (0, 255), "i32": (-2**31, 2**31 - 1)}[dtype]
    x = np.array([0, .5, 1.5, 2.5, -.5, -1.5, 126.5, 127.5, 254.5, 255.5, -128.5, 32767.5, 65535.5, 1e10, -1e10, np.inf, -np.inf, np.nan], np.float32)
    for text, rounded in ((f"{dtype}(x)", np.trunc(x)), (f"{dtype}(round(x))", np.rint(x))):
        got = kernel(f"def f(x: f32[N]) -> {dtype}[N]:\n    return {text}").compile("base").run(x).out
        assert (got.astype(np.int64) == np.clip(np.nan_to_num(rounded.astype(np.float64), nan=high), low, high).astype(np.int64)).all()


@pytest.mark.parametrize("text,dims,most", CYCLES)
def test_cycles(text, dims, most):
    """Bounds on simulated cycles, a little above what was measured."""
    k = kernel(text)
    assert k.compile("base").run(*arrays_of(k, dims)).cycles <= most


@pytest.mark.parametrize("n", [1, 7, 65, 128, 129])
def test_weights_are_fetched_once_for_all_rows(n):
    """In front of the rows, by every warp its share; small rows keep everything in registers."""
    k = kernel("def scaled(x: bf16[M, N], w: bf16[N], b: f32[N], *, eps: f32 = 1e-5) -> (bf16[M, N], f32[M]):\n    h = f32(x)\n"
               "    c = h - mean(h, over=N)\n    return c * rsqrt(mean(c * c, over=N) + eps) * (w + eps) + b, sum(h * w, over=N)")
    arrays, _ = inputs(k, {"M": 70, "N": n})
    outs = set()
    for change in ({}, {"core.warps": "3"}, {"gpu.cores": "3"}, {"scratchpad.size_bytes": "4096"}):
        r = k.compile("base", overrides=change).run(*arrays, check=True, sanitize=not change)
        assert r.stats["check"]["passed"], (change, r.stats["check"])
        outs.add(tuple(outputs(r)))
    assert len(outs) == 1
