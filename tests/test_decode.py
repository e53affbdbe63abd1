"""Cascades in parts (P12 split) and with few rows: against float64, the same bytes however the work is shared out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.ir.bounds import compare, reference
from rvgpu.ir.evaluate import evaluate
from rvgpu.ir.numeric import round_to
from rvgpu.ir.text import print_func
from rvgpu.passes.context import Context
from rvgpu.passes.kernel import find_stream
from rvgpu.passes.pipeline import PIPELINE, parse_passes, run_passes
from rvgpu.passes.split import Split, in_parts
from rvgpu.runtime.kernel import Kernel, bucket, kernel, load_file
from rvgpu.testing import meaning
from tests.test_lowering import facts

CASCADES = {
    "variance": "def f(x: f32[M, N]) -> f32[M]:\n    return var(x, over=N)",
    "lse": "def f(x: f32[M, N]) -> f32[M]:\n    return logsumexp(x, over=N)",
    "entropy": "def f(x: f32[M, N]) -> f32[M]:\n    p = softmax(x, over=N)\n    return 0.0 - sum(p * (x - logsumexp(x, over=N)), over=N)",
    "top": "def f(x: f32[M, N], y: f32[M, N]) -> f32[M]:\n    return sum(where(x == amax(x, over=N), y, 0.0), over=N)",
}
FEW = {
    "attention": Kernel(load_file("examples/zoo.rvg")["attention"]),
    "lse": kernel("def lse(q: bf16[B, S, D], k: bf16[B, T, D], v: bf16[B, T, E]) -> (bf16[B, S, E], f32[B, S]):\n    s: f32 = (q @ k) * 0.3\n"
                  "    return softmax(s, over=T) @ v, logsumexp(s, over=T)"),
    "softmin": kernel("def softmin(q: f32[S, D], k: f32[T, D], v: f32[T, E], w: f32[E]) -> f32[S, E]:\n    s = tanh(q @ k)\n"
                      "    e = exp(amin(s, over=T) - s)\n    return (e @ v) / sum(e, over=T) * w"),
    "window": kernel("def window(q: bf16[S, D], k: bf16[T, D], v: bf16[T, D]) -> bf16[S, D]:\n    s: f32 = q @ k\n"
                     "    return softmax(where(iota(T) < iota(S) * 7, s, -inf), over=T) @ v"),
}


def data(func, sizes, seed=0):
    rng = np.random.default_rng(seed)
    return {p.name: round_to(rng.standard_normal([d.value(sizes) for d in p.value.tensor.dims]), p.value.tensor.dtype)
            for p in func.params if not p.keyword}


def stream_of(text, sizes):
    func, = run_passes([kernel(text).func], PIPELINE[:4], Context(facts(8, 128, 2), sizes, sizes))
    found = find_stream(func)
    assert found is not None
    return func, found


@pytest.mark.parametrize("name", CASCADES)
@settings(max_examples=5, deadline=None)
@given(m=st.integers(1, 3), n=st.integers(1, 20), size=st.integers(1, 21))
def test_every_cascade_goes_in_parts(name, m, n, size):
    """Nothing in the split knows what it splits: states with powers, exponentials and [X == D] alike."""
    sizes = {"M": m, "N": n}
    func, stream = stream_of(CASCADES[name], sizes)
    arrays = data(func, sizes)
    if name == "variance":
        arrays["x"] += 1000
    refs, bounds = reference(kernel(CASCADES[name]).func, arrays, {})
    known = meaning(in_parts(func, stream, size), arrays, {}, sizes)
    assert compare(known["out"], refs[0], bounds[0]).passed


def run(k, sizes, *, te=4, warps=2, cores=2, ctas=2, arrays=None):
    func = k.func
    arrays = data(func, sizes) if arrays is None else arrays
    scalars = {p.name: 0.3 for p in func.params if p.keyword}
    context = Context(facts(te, 128, warps, cores), {n: v for n, v in sizes.items() if n in "DE"}, {n: bucket(v) for n, v in sizes.items()})
    units = run_passes([func], PIPELINE, context)
    known = meaning(units, arrays, scalars, sizes, ctas)
    return [known[n] for n in func.result_names], units, reference(func, arrays, scalars, dims=sizes)


@pytest.mark.parametrize("name", FEW)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_few_rows(name, data):
    """Up to three parts of 64, any number of warps."""
    sizes = {n: data.draw(st.integers(1, 2 if n in "BGRS" else 150 if n == "T" else 9), label=n) for n in FEW[name].func.dim_names()}
    outs, units, (refs, bounds) = run(FEW[name], sizes, warps=data.draw(st.integers(1, 5), label="warps"))
    assert len(units) == 1 + (sizes["T"] > 64)
    for out, ref, bound in zip(outs, refs, bounds, strict=True):
        assert compare(out, ref, bound).passed


def test_bytes_do_not_depend_on_who_does_what():
    sizes = {"B": 2, "G": 2, "R": 2, "S": 1, "T": 141, "D": 8}
    arrays = data(FEW["attention"].func, sizes)
    (first,), _, _ = run(FEW["attention"], sizes, arrays=arrays)
    for warps, cores, ctas in ((1, 1, 1), (2, 8, 8), (3, 2, 5), (4, 1, 3)):
        (out,), _, _ = run(FEW["attention"], sizes, warps=warps, cores=cores, ctas=ctas, arrays=arrays)
        assert out.tobytes() == first.tobytes(), (warps, cores, ctas)
    (one,), _, _ = run(FEW["attention"], {**sizes, "B": 1}, arrays={n: x[1:] for n, x in arrays.items()})
    assert one.tobytes() == first[1:].tobytes()


def test_a_bucket_decides_not_the_value():
    """Exact or not, a kernel of the same bucket goes in parts or does not."""
    func = FEW["window"].func
    for s, parts in ((3, True), (4, True), (5, False)):
        for exact in ({"D": 8}, {"D": 8, "S": s}):
            context = Context(facts(4, 128, 2), exact, {"S": bucket(s), "T": 256, "D": 8})
            assert (len(run_passes([func], PIPELINE[:5], context)) == 2) is parts


def test_pinned_and_left_out():
    context = Context(facts(4, 128, 2), {"D": 8}, {"S": 1, "T": 256, "D": 8})
    func = FEW["window"].func
    assert parse_passes("split{size=32}") == [Split(32)]
    local, merge = run_passes([func], [*PIPELINE[:4], Split(32)], context)
    assert "part=32" in print_func(local) and "T.32" in print_func(merge)
    assert len(run_passes([func], [*PIPELINE[:4], Split(1)], context)) == 1


def test_the_parts_of_nothing_are_no_parts():
    sizes = {"M": 2, "N": 0}
    func, stream = stream_of(CASCADES["lse"], sizes)
    local, _ = in_parts(func, stream, 4)
    assert all(x.shape == (2, 0) for x in evaluate(local, data(func, sizes), dims=sizes))
