"""Clusters through P7-P12, their K meaning against NumPy, at ragged sizes and small machines."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from rvgpu.ir.tile_eval import numpy_dtype, run_kernel
from rvgpu.ir.types import DType
from rvgpu.passes.context import Context, Facts
from rvgpu.passes.grid import Grid
from rvgpu.passes.pipeline import parse_passes, run_passes
from rvgpu.passes.pipeline_dma import PipelineDma
from rvgpu.passes.stage import Stage
from rvgpu.passes.tile import Tile
from rvgpu.runtime.kernel import Kernel, load_file
from tests import streams

ZOO = load_file(str(Path(__file__).parents[1] / "examples" / "zoo.rvg"))
BENCH = load_file(str(Path(__file__).parents[1] / "benchmarks" / "kernels.rvg"))
SPM = 1 << 18


def facts(te: int, vlen: int, warps: int, cores: int = 2) -> Facts:
    return Facts(cores, warps, vlen, vlen, te, SPM, {"bf16": 512, "f16": 512, "f32": 128}, 64, 4, 512, 64, 400, 24, 600, 64)


def run(func, arrays, dims, scalars=None, *, te=8, vlen=128, warps=2, ctas=2, static=(), **options):
    upper = {n: 1 << max(0, (v - 1).bit_length()) for n, v in dims.items()}
    context = Context(facts(te, vlen, warps), {n: dims[n] for n in static}, upper)
    kf, = run_passes([func], [Tile(**options), Grid(), PipelineDma(), Stage()], context)
    tensors = dict(arrays)
    for t in kf.tensors:
        if t.output:
            tensors[t.name] = np.full([d.value(dims) for d in t.dims], 99, numpy_dtype(t.dtype))
    run_kernel(kf, tensors, scalars or {}, dims, ctas=ctas)
    return [tensors[t.name] for t in kf.tensors if t.output], kf


def data(rng, shape, dtype=DType.bf16):
    return rng.standard_normal(shape).astype(np.float32).astype(numpy_dtype(dtype))


@pytest.mark.parametrize("dtype", [DType.bf16, DType.f32])
@pytest.mark.parametrize("shape", [(8, 8, 8), (17, 5, 3), (33, 41, 70), (1, 1, 1)])
def test_gemm(shape, dtype):
    m, n, k = shape
    rng = np.random.default_rng(1)
    a, b, bias = data(rng, (m, k), dtype), data(rng, (k, n), dtype), data(rng, (n,), dtype)
    (out,), _ = run(streams.gemm(dtype, DType.f32), {"a": a, "b": b}, {"M": m, "N": n, "K": k})
    want = a.astype(np.float64) @ b.astype(np.float64)
    assert np.abs(out - want).max() < 1e-5 * k
    (out2,), _ = run(streams.gemm(dtype, DType.f32, bias=True), {"a": a, "b": b, "bias": bias}, {"M": m, "N": n, "K": k}, warps=4)
    assert out2.shape == out.shape and np.isfinite(out2).all()


@pytest.mark.parametrize("dims", [(33, 41, 70), (70, 20, 16), (9, 100, 5), (40, 40, 0)])
def test_teams_of_warps(dims):
    """Teams of any size, with as many stages as fit, give the same bytes; the later ones wait for the ones before them."""
    m, n, k = dims
    rng = np.random.default_rng(5)
    a, b = data(rng, (m, k)), data(rng, (k, n))
    outs = []
    for wm, wn, im, jn, bk, ctas in ((2, 2, 2, 2, 16, 1), (1, 1, 1, 1, 16, 1), (1, 2, 1, 2, 16, 2), (2, 1, 1, 1, 32, 1), (1, 1, 2, 2, 32, 3)):
        (out,), kf = run(streams.gemm(DType.bf16, DType.f32), {"a": a, "b": b}, {"M": m, "N": n, "K": k}, warps=4, ctas=ctas, wm=wm, wn=wn, im=im,
                         jn=jn, bk=bk)
        assert any(op.name == "bar" and op.attrs.get("warps") == 2 * wm * wn for op in kf.body.walk()) == (wm * wn < 4)
        outs.append(out)
    assert np.abs(outs[0] - a.astype(np.float64) @ b.astype(np.float64)).max(initial=0) < 1e-5 * max(k, 1)
    assert all((out == outs[0]).all() for out in outs)


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (7, 16), (5, 130)])
def test_softmax(shape):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32) * 5
    (out,), _ = run(streams.softmax(), {"x": x}, dict(zip("MN", shape, strict=True)))
    e = np.exp(x - x.max(1, keepdims=True).astype(np.float64))
    assert np.abs(out - e / e.sum(1, keepdims=True)).max() < 1e-6


@pytest.mark.parametrize("shape", [(1, 1, 1, 8, 8, 8), (1, 2, 2, 5, 21, 12), (2, 1, 3, 9, 4, 20), (1, 1, 4, 1, 19, 8)])
def test_attention(shape):
    B, G, R, S, T, D = shape
    rng = np.random.default_rng(3)
    q, k, v = data(rng, (B, G, R, S, D)), data(rng, (B, G, T, D)), data(rng, (B, G, T, D))
    out, _ = run(streams.attention(lse=True), {"q": q, "k": k, "v": v}, dict(zip("BGRSTD", shape, strict=True)), {"scale": 0.7},
                 static=["D"])
    s = np.einsum("bgrsd,bgtd->bgrst", q.astype(np.float64), k.astype(np.float64)) * 0.7
    s = np.where(np.arange(T) <= np.arange(S)[:, None] + T - S, s, -np.inf)
    m = s.max(-1, keepdims=True)
    p = np.exp(s - np.where(np.isfinite(m), m, 0))
    total = p.sum(-1, keepdims=True)
    want = np.einsum("bgrst,bgtd->bgrsd", p / np.where(total > 0, total, 1), v.astype(np.float64))
    assert np.abs(out[0].astype(np.float64) - want).max() < 0.03
    with np.errstate(divide="ignore"):
        lse = (np.where(np.isfinite(m), m, 0) + np.log(total))[..., 0]
    ok = np.isfinite(lse)
    assert np.abs(out[1][ok] - lse[ok]).max() < 1e-4 and (out[1][~ok] == -np.inf).all()


@pytest.mark.parametrize("rows", [130, 150, 630])
@pytest.mark.parametrize("tiles", ["wm=1,wn=1,im=1,jn=2", "wm=1,wn=1,im=1,jn=3", "wm=1,wn=2,im=2,jn=2,bk=64", "wm=2,wn=1,im=1,jn=1",
                                   "wm=1,wn=4,im=1,jn=1"])
def test_a_product_on_fewer_warps_has_the_same_bytes(tiles, rows):
    """Warps without a tile copy their share and meet the barriers; tiles, and halves of the last ones, never enter the arithmetic."""
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(s, dtype=np.float32).astype(ml_dtypes.bfloat16) for s in ((rows, 75), (75, 141)))
    kernel = Kernel(ZOO["gemm"])
    plain = kernel.compile("base").run(a, b, check=True)
    assert plain.stats["check"]["passed"]
    other = kernel.compile("base", passes=parse_passes(f"+tile{{{tiles}}}")).run(a, b)
    assert other.out.tobytes() == plain.out.tobytes()


def test_small_products_use_all_cores():
    """256^3 has four tiles of 128 x 128 and eight cores: smaller ones give every core its share."""
    x = np.ones((256, 256), ml_dtypes.bfloat16)
    r = Kernel(ZOO["gemm"]).compile("base").run(x, x)
    assert r.cycles <= 10_240 and (r.out == 256).all()


def test_an_epilogue_hides_behind_the_products_of_other_warps():
    """Teams start one after the other: 1024^3 within .94 of the matrix unit's peak, bias and GELU at most 4 % more."""
    x, bias = np.ones((1024, 1024), ml_dtypes.bfloat16), np.ones(1024, ml_dtypes.bfloat16)
    plain = Kernel(ZOO["gemm"]).compile("base").run(x, x)
    gelu = Kernel(BENCH["gemm_gelu_tanh"]).compile("base").run(x, x, bias)
    assert plain.stats["roofline"]["of_matrix_peak"] >= .94 and gelu.cycles <= 1.04 * plain.cycles
    assert (plain.out == 1024).all() and (gelu.out == ml_dtypes.bfloat16(1025)).all()


def test_ragged_products_share_their_columns_evenly():
    """777 columns are five times 160 but for the last: no narrow rest, and rows leave in one store each."""
    x, y = np.ones((1000, 513), ml_dtypes.bfloat16), np.ones((513, 777), ml_dtypes.bfloat16)
    r = Kernel(ZOO["gemm"]).compile("base", passes=parse_passes("+tile{wm=1,wn=1,im=1,jn=3,bk=64}")).run(x, y)
    assert r.cycles <= 116_000 and (r.out == ml_dtypes.bfloat16(513)).all()


def test_the_last_tiles_are_cut_where_half_the_cores_would_have_none():
    """27 tiles on eight cores: the model's pick within .71 of the matrix unit's peak for multiples of its array."""
    x, y = np.ones((540, 332), ml_dtypes.bfloat16), np.ones((332, 516), ml_dtypes.bfloat16)
    r = Kernel(ZOO["gemm"], tune="model").compile("base").run(x, y)
    assert r.cycles <= 32_790 and (r.out == 332).all()
