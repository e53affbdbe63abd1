"""The operations of LLMs: every kernel fused into as many launches as the rule promises, right on the simulator and at level K on ragged sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from rvgpu.errors import RvgpuError
from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.types import DType
from rvgpu.isa.machine import load_machine
from rvgpu.passes.context import Context, Facts
from rvgpu.passes.pipeline import PIPELINE, parse_passes, run_passes, temporaries
from rvgpu.runtime.inputs import random_inputs
from rvgpu.runtime.kernel import Kernel, kernel, load_file
from tests.test_zoo import MACHINES

ZOO = load_file(str(Path(__file__).parents[1] / "examples" / "zoo.rvg"))


@dataclass(frozen=True)
class Case:
    """A kernel of the zoo, or of a text; `launches` is how many kernels it becomes."""

    name: str
    dims: dict[str, int]
    launches: int = 1
    text: str = ""
    scalars: dict[str, float] = field(default_factory=dict)

    def kernel(self) -> Kernel:
        return kernel(self.text) if self.text else Kernel(ZOO[self.name])


def body(params: str, result: str, *lines: str) -> str:
    return f"def f({params}) -> {result}:\n" + "".join(f"    {line}\n" for line in lines)


HEADS = {"B": 1, "G": 2, "R": 2, "S": 77, "T": 201, "D": 64}
STEP = {"B": 2, "G": 2, "R": 4, "S": 1, "T": 301, "D": 64}
BACK = {"B": 1, "H": 2, "S": 77, "T": 101, "D": 64, "E": 64}
CASES = [
    Case("layernorm", {"T": 37, "D": 768}), Case("add_rmsnorm", {"T": 37, "D": 771}), Case("qk_norm_rope", {"B": 2, "S": 7, "H": 5, "F": 64}),
    Case("geglu_mlp", {"T": 37, "D": 96, "F": 130}, 2), Case("embedding", {"V": 300, "D": 97, "T": 37}), Case("cross_entropy", {"V": 1001, "T": 37}),
    Case("sample", {"V": 1001, "T": 9}),
    Case("attention_window", HEADS), Case("attention_window", STEP), Case("attention_softcap", HEADS), Case("attention_alibi", HEADS),
    Case("attention_lse", HEADS), Case("attention_int8kv", HEADS), Case("attention_int8kv", {**HEADS, "R": 4, "D": 128}),
    Case("attention_int8kv", STEP),
    Case("mla_decode", {"B": 2, "H": 16, "C": 128, "P": 64, "T": 101, "E": 128}),
    Case("mla_cache", {"B": 2, "H": 16, "L": 128, "P": 64, "T": 101}), Case("mla_cache", {"B": 1, "H": 128, "L": 96, "P": 32, "T": 151}),
    Case("paged_attention", {"B": 2, "G": 2, "R": 4, "D": 64, "P": 400, "T": 101}),
    Case("paged_attention", {"B": 2, "G": 2, "R": 4, "D": 64, "P": 4000, "T": 2500}, 2),
    Case("attention_dq", BACK), Case("attention_dk", BACK), Case("attention_dv", BACK),
    Case("attention_dq_from_softmax", BACK, 2), Case("attention_backward", {"B": 1, "H": 2, "S": 77, "T": 101, "D": 64}, 3),
    Case("gemm_fp8", {"M": 37, "K": 100, "N": 65}), Case("gemm_w4", {"M": 5, "K": 300, "N": 65}), Case("gemm_w8a16", {"M": 37, "K": 100, "N": 65}),
    Case("gemm_w8a8_groups", {"M": 37, "C": 3, "J": 64, "N": 65}), Case("gemm_fp8_groups", {"M": 137, "C": 3, "J": 98, "N": 165}),
]
# gathers, pads, joins and slices of everything, by itself and inside larger expressions
PLACES = [
    Case("rows scaled", {"V": 300, "D": 96, "T": 37, "B": 2}, 1, body(
        "table: bf16[V, D], ids: i32[B, T], pos: f32[T, D]", "bf16[B, T, D]", "return take(table, ids, along=V) * 2.5 + pos")),
    Case("one of a row", {"V": 300, "T": 37}, 1, body("x: f32[T, V], ids: i16[T]", "f32[T]", "return take(x, ids, along=V)")),
    Case("along lanes", {"M": 5, "N": 37, "K": 71}, 1, body("x: f32[M, N], ids: i32[K]", "f32[M, K]", "return take(x, ids, along=N)")),
    Case("lanes of both", {"M": 91, "N": 37}, 1, body("x: bf16[N, M], ids: i8[M]", "bf16[M]", "return take(x, ids, along=N)")),
    Case("permutation", {"M": 91, "N": 37}, 1, body("x: bf16[M, N], ids: u8[M]", "bf16[M, N]", "return take(x, ids, along=M) + 1")),
    Case("sum of rows", {"B": 3, "M": 91, "N": 37, "V": 50}, 1, body(
        "x: bf16[V, N], ids: i32[B, M]", "bf16[B, N]", "return sum(f32(take(x, ids, along=V)), over=M)")),
    Case("of a softmax", {"T": 7, "V": 300}, 1, body("x: f32[T, V], ids: i32[T]", "f32[T]", "return take(softmax(x, over=V), ids, along=V)")),
    Case("of normalised rows", {"T": 7, "V": 30, "D": 50}, 2, body(
        "x: f32[V, D], ids: i32[T]", "f32[T, D]", "return take(softmax(x, over=D), ids, along=V)")),
    Case("of a product", {"M": 7, "K": 30, "N": 50, "T": 11}, 2, body(
        "a: bf16[M, K], b: bf16[K, N], ids: i32[T]", "f32[T, N]", "return take(a @ b, ids, along=M)")),
    Case("into a product", {"M": 7, "K": 30, "N": 50, "V": 11}, 2, body(
        "a: bf16[V, K], b: bf16[K, N], ids: i32[M]", "f32[M, N]", "return take(a, ids, along=V) @ b")),
    Case("of a take", {"T": 7, "V": 9, "D": 50, "S": 13}, 1, body(
        "x: f32[V, D], ids: i32[T], more: i32[S]", "f32[S, D]", "return take(x, abs(take(ids, more, along=T)), along=V)")),
    Case("a block table", {"L": 7, "V": 64, "D": 50, "T": 27}, 1, body(
        "x: f32[V, D], ids: i32[L]", "f32[T, D]", "at = take(abs(ids), iota(T) // 4, along=L) * 4 + iota(T) % 4", "return take(x, at, along=V)")),
    Case("pad", {"M": 5, "N": 137}, 1, body(
        "x: bf16[M, N]", "bf16[M + 5, N + 2]", "return pad(pad(x, N, 1, N + 2, value=1), M, 5, M + 5, value=-2)")),
    Case("a stencil", {"M": 5, "N": 37}, 1, body(
        "x: f32[M, N]", "f32[M, N]", "p = pad(x, N, 1, N + 2)", "return slice(p, N + 2, 0, N) + slice(p, N + 2, 2, N) - 2 * x")),
    Case("a sum over padding", {"M": 5, "N": 137}, 1, body(
        "x: f32[M, N]", "f32[M]", "return sum(pad(x, N, 1, N + 7, value=3) * 2, over=N + 7)")),
    Case("bytes", {"M": 5, "N": 137}, 1, body("x: i8[M, N]", "i8[M, N + 2]", "return pad(x, N, 1, N + 2, value=7)")),
    Case("pad of a product", {"M": 5, "K": 37, "N": 20}, 2, body("x: bf16[M, K], w: bf16[K, N]", "f32[M + 3, N]", "return pad(x @ w, M, 1, M + 3)")),
    Case("pad of totals", {"M": 5, "N": 20}, 2, body("x: f32[M, N]", "f32[M + 4]", "return pad(sum(x, over=N), M, 2, M + 4)")),
    Case("product of a join", {"M": 5, "F": 37, "N": 20}, 2, body(
        "a: bf16[M, F], b: bf16[M, F], w: bf16[2 * F, N]", "f32[M, N]", "return concat(a, b, over=F) @ w")),
    Case("join of rows", {"M": 5, "F": 37}, 1, body("a: bf16[M, F], b: bf16[M, F]", "bf16[2 * M, F]", "return concat(a, b * 2, over=M)")),
    Case("join of three", {"M": 5, "F": 37}, 1, body("a: i8[M, F], b: i8[M, F]", "i8[M, 3 * F]", "return concat(a, b, a, over=F)")),
    Case("softmax of a join", {"M": 5, "F": 37}, 1, body(
        "a: f32[M, F], b: f32[M, F]", "f32[M, 2 * F]", "return softmax(concat(a, b, over=F), over=2 * F)")),
    Case("joins of two kinds", {"M": 5, "F": 9}, 1, body(
        "a: f32[M, 2 * F], b: f32[M, F]", "f32[M, 4 * F]", "return concat(a, a + 1, over=2 * F) + concat(b, b, b * 2, b, over=F)")),
    Case("join of totals", {"M": 5, "N": 20}, 2, body(
        "x: f32[M, N], y: f32[M, N]", "f32[2 * M]", "return concat(sum(x, over=N), sum(y, over=N), over=M)")),
    Case("renamed total", {"M": 5, "K": 5, "N": 137}, 2, body("x: f32[M, N]", "f32[K]", "return rename(sum(x, over=N), M=K)")),
    Case("renamed product", {"M": 5, "K": 37, "N": 20, "S": 5}, 2, body("x: bf16[M, K], w: bf16[K, N]", "f32[S, N]", "return rename(x @ w, M=S)")),
    Case("slice of a product", {"M": 5, "K": 37, "N": 20}, 2, body(
        "x: bf16[M, K], w: bf16[K, N + 4]", "f32[M, N]", "return slice(x @ w, N + 4, 2, N)")),
    Case("slice of totals", {"M": 5, "N": 20}, 2, body("x: f32[M + 4, N]", "f32[M]", "return slice(sum(x, over=N), M + 4, 2, M)")),
    Case("slice of a softmax", {"M": 5, "N": 20}, 1, body("x: f32[M, N + 4]", "f32[M, N]", "return slice(softmax(x, over=N + 4), N + 4, 2, N)")),
    Case("rope of a product", {"S": 5, "D": 64, "H": 3, "F": 32}, 2, body(
        "x: bf16[S, D], w: bf16[D, H, 2 * F], cos: f32[S, F], sin: f32[S, F]", "bf16[S, H, 2 * F]",
        "x1, x2 = split(bf16(x @ w), F)", "return concat(x1 * cos - x2 * sin, x2 * cos + x1 * sin, over=F)")),
    Case("gate and up in one", {"T": 5, "D": 64, "F": 32}, 2, body(
        "x: bf16[T, D], w: bf16[D, 2 * F]", "bf16[T, F]", "g, u = split(x @ w, F)", "return silu(g) * u")),
    Case("argmax and its value", {"T": 7, "V": 300}, 1, body(
        "x: bf16[T, V]", "(i32[T], f32[T])", "i = argmax(x, over=V)", "return i, take(x, i, along=V)")),
    Case("argmax of i32", {"T": 7, "V": 300}, 2, body("x: i32[T, V]", "i32[T]", "return argmax(x, over=V)")),
    Case("argmax of a column", {"T": 7, "V": 300}, 2, body("x: i8[V, T]", "i32[T]", "return argmax(x, over=V)")),
    Case("argmax and logsumexp", {"T": 7, "V": 300}, 1, body(
        "x: bf16[T, V]", "(i32[T], f32[T])", "return argmax(x, over=V), logsumexp(x, over=V)")),
    Case("keys and values of one tensor", {"G": 2, "R": 2, "S": 37, "T": 101, "D": 64}, 1, body(
        "q: bf16[G, R, S, D], c: bf16[T, G, 2 * D]", "bf16[G, R, S, D]", "k, v = split(c, D)", "return softmax((q @ k) * 0.1, over=T) @ v")),
    *(Case("halves of a sequence", {"H": 2, "S": s, "T": t, "D": 64}, n, body(
        "q: bf16[H, S, D], k: bf16[H, 2 * T, D]", "bf16[H, S, D]", "a, b = split(k, T)", "return softmax((q @ a) * 0.1, over=T) @ b"))
      for s, t, n in ((70, 101, 1), (3, 2501, 2))),
    Case("gate and up weights in one", {"T": 37, "D": 70, "F": 90}, 1, body(
        "x: bf16[T, D], w: bf16[D, 2 * F]", "bf16[T, F]", "g, u = split(w, F)", "return silu(x @ g) * (x @ u)")),
    Case("columns of two dims, one cut", {"M": 21, "K": 40, "G": 3, "F": 37}, 1, body(
        "x: bf16[M, K], w: bf16[K, G, 2 * F]", "bf16[M, G, F]", "return x @ slice(w, 2 * F, F, F)")),
    Case("totals of scores", {"H": 2, "S": 77, "T": 101, "D": 64}, 1, body(
        "q: bf16[H, S, D], k: bf16[H, T, D], w: f32[T]", "(f32[H, S], f32[H, S], f32[H, S])",
        "s: f32 = q @ k", "return logsumexp(s, over=T), amax(s * w, over=T), sum(abs(s), over=T)")),
    Case("mean of scores", {"H": 2, "S": 77, "T": 101, "D": 64}, 2, body(
        "q: bf16[H, S, D], k: bf16[H, T, D]", "f32[H, S]", "return var(q @ k, over=T)")),
    Case("argmax of scores", {"H": 2, "S": 77, "T": 101, "D": 64}, 2, body(
        "q: bf16[H, S, D], k: bf16[H, T, D]", "i32[H, S]", "return argmax(q @ k, over=T)")),
    Case("scores and their totals", {"H": 2, "S": 77, "T": 101, "D": 64}, 2, body(
        "q: bf16[H, S, D], k: bf16[H, T, D]", "(f32[H, S, T], f32[H, S])", "s: f32 = q @ k", "return s, logsumexp(s, over=T)")),
    Case("argmax of a product", {"T": 7, "V": 300, "D": 64}, 2, body("x: bf16[T, D], w: bf16[D, V]", "i32[T]", "return argmax(x @ w, over=V)")),
]

# rows long enough to go in parts: what looks at another part of its row, results without the long dim, its size behind the parts
LONG = [
    Case("cross_entropy", {"V": 30001, "T": 17}), Case("cross_entropy", {"V": 50001, "T": 1}, 2), Case("sample", {"V": 30001, "T": 2}, 2),
    Case("argmax and its value", {"T": 17, "V": 30000}, 1, body(
        "x: bf16[T, V]", "(i32[T], f32[T])", "i = argmax(x, over=V)", "return i, take(x, i, along=V)")),
    Case("stencil", {"M": 2, "N": 50001}, 1, body(
        "x: f32[M, N]", "f32[M, N]", "p = pad(x, N, 1, N + 2)", "return slice(p, N + 2, 0, N) + slice(p, N + 2, 2, N) - 2 * x")),
    Case("stencil summed", {"M": 2, "N": 50001}, 2, body(
        "x: f32[M, N]", "f32[M]", "p = pad(x, N, 1, N + 2)", "return sum(abs(slice(p, N + 2, 0, N) + x), over=N)")),
    Case("mirrored", {"M": 17, "N": 30001}, 1, body("x: f32[M, N]", "f32[M, N]", "return x + take(x, size(N) - 1 - iota(N), along=N)")),
    *(Case(f, {"M": 3, "N": 50001}, 2, body("x: f32[M, N]", "f32[M]", f"return {f}(x, over=N)")) for f in "sum amax mean var logsumexp".split()),
    Case("loss", {"V": 50001, "T": 3}, 3, body(
        "x: bf16[T, V], ids: i32[T]", "f32", "return mean(logsumexp(x, over=V) - take(x, ids, along=V), over=T)")),
]


def run(case: Case, machine: str = "base", **more):
    k = case.kernel()
    base, overrides = MACHINES[machine]
    scalars = {"scale": 0.125, **case.scalars} if any(p.name == "scale" for p in k.func.params) else case.scalars
    dims = {n: v for n, v in case.dims.items() if n in k.func.dim_names()}
    return k.compile(base, overrides=overrides, **dims).run(*random_inputs(k.func, dims, 3), check=True, **scalars, **more)


@pytest.mark.parametrize("case", [*CASES, *PLACES, *LONG], ids=lambda c: c.name)
def test_checked(case):
    r = run(case, sanitize=True)
    assert r.stats["check"]["passed"], r.stats["check"]
    assert len(r.stats["launches"]) == case.launches


@pytest.mark.parametrize("other", [{"overrides": {"gpu.cores": 3}}, {"overrides": {"core.warps": 2}}, {"passes": "+tile{wm=4}"},
                                   {"passes": "+tile{wm=1}"}], ids=str)
def test_backward_has_the_same_bytes_however_it_runs(other):
    k = Kernel(ZOO["attention_backward"])
    inputs = random_inputs(k.func, {"B": 1, "H": 2, "S": 130, "T": 150, "D": 64}, 1)
    more = {n: parse_passes(v) if n == "passes" else v for n, v in other.items()}
    a, b = (k.compile("base", D=64, **m).run(*inputs, scale=0.125).outputs for m in ({}, more))
    assert [x.tobytes() for x in a.values()] == [x.tobytes() for x in b.values()]


@pytest.mark.parametrize("heads,launches", [(64, 3), (128, 4)])
def test_backward_stores_no_scores(heads, launches):
    """Totals of rows, then each gradient from scores made again; those of keys together where one pass has room for both."""
    k, sizes = Kernel(ZOO["attention_backward"]), {"B": 1, "H": 2, "S": 70, "T": 150, "D": heads}
    context = Context(Facts.of(load_machine("base")), sizes, sizes)
    units = run_passes([k.func], PIPELINE[:4], context)
    assert len(units) == launches
    between = temporaries(units)
    assert between and all({str(d) for d in t.dims} == {"B", "H", "S"} for t in between.values())


@pytest.mark.parametrize("machine", [m for m in MACHINES if m != "base"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_on_other_machines(case, machine):
    assert run(case, machine).stats["check"]["passed"]


def test_argmax_of_odd_rows():
    """The lowest of equals; NaN is ignored; a row without a number above -inf gives 0."""
    inf, nan = np.inf, np.nan
    x = np.full((6, 200), -inf, np.float32)
    x[1, [150, 3, 90]] = 2.5
    x[2] = nan
    x[3, 199], x[3, 4] = -7, nan
    x[4, [0, 7]] = inf
    x[5] = 0.0
    for dtype in ("f32", "bf16"):
        k = kernel(f"def f(x: {dtype}[M, N]) -> i32[M]:\n    return argmax(x, over=N)\n")
        assert k(x.astype(numpy_dtype(DType[dtype]))).tolist() == [0, 3, 0, 199, 0, 0]


@pytest.mark.parametrize("text,shapes,code", [
    ("def f(x: f32[M, N]) -> i32[M]:\n    return argmax(x, over=N)\n", [(3, 0)], "E422"),
    ("def f(x: f32[M, N]) -> f32[M, P]:\n    return pad(x, N, 3, P)\n", [(3, 7)], "E420"),
    ("def f(x: f32[M, N]) -> f32[M, P]:\n    return slice(x, N, 3, P)\n", [(3, 7)], "E420")], ids=["argmax", "pad", "slice"])
def test_sizes_that_do_not_fit(text, shapes, code):
    k = kernel(text)
    with pytest.raises(RvgpuError) as e:
        k.compile("base", **({"P": 8} if "P" in text else {})).run(*(np.ones(s, np.float32) for s in shapes))
    assert e.value.code == code and e.value.loc is not None


def test_size_zero():
    take = kernel("def f(x: f32[V, D], ids: i32[T]) -> f32[T, D]:\n    return take(x, ids, along=V)\n")
    assert take(np.ones((0, 5), np.float32), np.zeros(0, np.int32)).shape == (0, 5)
    assert take(np.ones((4, 0), np.float32), np.zeros(3, np.int32)).shape == (3, 0)
    pad = kernel("def f(x: f32[M, N]) -> f32[M, N + 2]:\n    return pad(x, N, 1, N + 2, value=4)\n")
    assert pad(np.ones((2, 0), np.float32)).tolist() == [[4, 4], [4, 4]]
