"""Every pass: what it makes verifies, prints back, and means what its input meant, in NumPy, at random ragged sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.errors import RvgpuError
from rvgpu.ir.numeric import round_to
from rvgpu.ir.parse import parse
from rvgpu.ir.text import print_func, print_funcs, same
from rvgpu.passes.context import Context
from rvgpu.passes.pipeline import PASSES, PIPELINE, parse_passes, print_passes, run_passes, temporaries
from rvgpu.passes.tile import Tile
from rvgpu.runtime.kernel import Kernel, bucket, kernel, load_file
from rvgpu.testing import check_passes, meaning
from tests.test_lowering import facts

ZOO = load_file("examples/zoo.rvg")
TEXTS = {
    "layernorm": "def layernorm(x: f32[M, N], w: f32[N]) -> f32[M, N]:\n    c = x - mean(x, over=N)\n"
                 "    return c * rsqrt(mean(c * c, over=N) + 1e-5) * w",
    "lse": "def lse(q: bf16[S, D], k: bf16[T, D], v: bf16[T, D]) -> (bf16[S, D], f32[S]):\n    s: f32 = (q @ k) * 0.3\n"
           "    return softmax(s, over=T) @ v, logsumexp(s, over=T)",
    "groups": "def groups(a: bf16[B, M, C, J], w: bf16[N, J, C, P], s: f32[C, M], z: f32[C, P], b: f32[N]) -> bf16[B, M, N, P]:\n"
              "    return relu(sum(dot(a, w, over=J) * s + z * s, over=C) + b)",
    "two_steps": "def two_steps(x: f32[M, N], w: f32[N, K]) -> f32[M, K]:\n    return softmax(softmax(x, over=N) @ w, over=K)",
    "temporary_names": "def temporary_names(t0: f32[M, N], t1: f32[N, K]) -> f32[M, K]:\n    return softmax(t0 @ t1, over=K)",
}
KERNELS = {n: Kernel(ZOO[n]) for n in (
    "attention", "attention_backward", "attention_int8kv", "gemm_bias_gelu", "row_softmax", "rmsnorm", "rope", "swiglu_mlp")}
KERNELS |= {n: kernel(t) for n, t in TEXTS.items()}


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_meaning_before_is_meaning_after(name, data):
    func = KERNELS[name].func
    sizes = {n: data.draw(st.integers(1, 3 if n in "BGRH" else 19), label=n) for n in func.dim_names()}
    rng = np.random.default_rng(0)
    arrays = {p.name: round_to(rng.standard_normal([d.value(sizes) for d in p.value.tensor.dims]), p.value.tensor.dtype)
              for p in func.params if not p.keyword}
    scalars = {p.name: 0.3 if p.default is None else p.default for p in func.params if p.keyword}
    te = data.draw(st.sampled_from([4, 8]), label="te")

    def look(p, units):
        text = print_funcs(units)
        again = parse(text)
        assert print_funcs(again) == text and all(map(same, units, again)), p.name

    check_passes(KERNELS[name], sizes, facts(te, 128, data.draw(st.integers(1, 3), label="warps")), arrays, scalars, look)


@settings(max_examples=10, deadline=None)
@given(name=st.sampled_from(["attention", "attention_int8kv", "lse"]), data=st.data())
def test_warps_that_share_a_block_keep_the_meaning(name, data):
    """One team of all warps: half of them a product ahead, across work items."""
    sizes = {n: data.draw(st.integers(1, 2 if n in "BGR" else 19), label=n) for n in KERNELS[name].func.dim_names()}
    te, warps = data.draw(st.sampled_from([4, 8]), label="te"), data.draw(st.integers(2, 4), label="warps")
    scalars = {} if name == "lse" else {"scale": 0.3}
    passes = [Tile(wm=warps) if p.name == "tile" else p for p in PIPELINE]
    assert check_passes(KERNELS[name], sizes, facts(te, 128, warps), scalars=scalars, passes=passes) == "ok"


def test_pass_text_round_trip():
    assert print_passes(parse_passes("simplify, tile{bk=64 , wm=2},grid")) == "simplify,tile{wm=2,bk=64},grid"
    assert print_passes(parse_passes(print_passes(PIPELINE))) == print_passes(PIPELINE) == ",".join(PASSES)
    adjusted = parse_passes("+tile{bk=32}")
    assert [p.name for p in adjusted] == list(PASSES) and adjusted[5] == Tile(bk=32)


@pytest.mark.parametrize("text,said", [
    ("tille", "did you mean tile?"), ("tile{bq=1}", "known: bk, im, jn, wm, wn"), ("tile{bk=x}", "an integer needed"),
    ("tile{bk=1", "cannot read passes at")])
def test_bad_pass_text(text, said):
    with pytest.raises(RvgpuError) as e:
        parse_passes(text)
    assert said in e.value.render() and e.value.exit_code == 2


def test_options_pin_the_tile_and_change_no_bit():
    func = KERNELS["gemm_bias_gelu"].func
    sizes = {"M": 19, "N": 21, "K": 17}
    rng = np.random.default_rng(0)
    arrays = {p.name: round_to(rng.standard_normal([d.value(sizes) for d in p.value.tensor.dims]), p.value.tensor.dtype) for p in func.params}
    outs = set()
    for text in ("+tile", "+tile{im=1,jn=2}", "+tile{wm=1}", "+tile{wm=2,wn=1}"):
        units = run_passes([func], parse_passes(text), Context(facts(8, 128, 2), {}, {n: bucket(v) for n, v in sizes.items()}))
        outs.add(meaning(units, arrays, {}, sizes)["out"].tobytes())
    assert len(outs) == 1


def test_workspace_names_avoid_the_user_s():
    units = run_passes([KERNELS["temporary_names"].func], PIPELINE[:4], Context(facts(8, 128, 2)))
    assert len(units) == 2 and not set(temporaries(units)) & {"t0", "t1", "out"}


def test_remarks_say_what_was_chosen():
    context = Context(facts(8, 128, 2), {"D": 8}, {n: 64 for n in "BGRST"} | {"D": 8})
    run_passes([KERNELS["attention"].func], PIPELINE, context)
    assert any("warps of" in r.text and "cycles" in r.text for r in context.remarks) and context.planned["attention"].price.cycles > 0
    assert "stream" in print_func(run_passes([KERNELS["attention"].func], PIPELINE[:4], context)[0])
