"""Anchors that stay (docs/adr/0017): the bytes are those of anchors that follow, whatever the scores do, and errors stay within their bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.tile_eval import run_kernel
from rvgpu.ir.types import DType
from rvgpu.passes import lower_held, lower_stream
from rvgpu.passes.context import Context
from rvgpu.passes.pipeline import parse_passes, run_passes
from rvgpu.runtime.inputs import random_inputs
from rvgpu.runtime.kernel import Kernel, load_file
from tests.test_lowering import facts

ZOO = load_file(str(Path(__file__).parents[1] / "examples" / "zoo.rvg"))
DIMS = {"B": 1, "G": 1, "R": 2, "S": 21, "T": 43, "D": 12}


def late(rng, shape, at, size):
    """Keys of which those from `at` on are `size` times as large."""
    k = rng.standard_normal(shape).astype(np.float32)
    k[:, :, at:] *= size
    return k


SCORES = {
    "even": lambda rng, shape: rng.standard_normal(shape).astype(np.float32),
    "grown by 17": lambda rng, shape: late(rng, shape, 30, 8.0),
    "overflow": lambda rng, shape: late(rng, shape, 30, 80.0),
    "far": lambda rng, shape: 1e7 * rng.standard_normal(shape).astype(np.float32),
    "one key": lambda rng, shape: np.where(np.arange(shape[2])[:, None] == 29, 60, 1) * rng.standard_normal(shape).astype(np.float32),
    "infinite": lambda rng, shape: np.broadcast_to(np.where(np.arange(shape[2])[:, None] < 17, -np.inf, 1.0), shape).astype(np.float32),
}


def run(func, arrays, scalars, passes, warps=2):
    context = Context(facts(8, 128, warps), {"D": DIMS["D"]}, {n: 1 << (v - 1).bit_length() for n, v in DIMS.items()})
    kf, = run_passes([func], parse_passes(passes), context)
    out = np.full([d.value(DIMS) for t in kf.tensors if t.output for d in t.dims], 99, numpy_dtype(DType.bf16))
    run_kernel(kf, {**arrays, "out": out}, scalars, DIMS, ctas=2)
    return out, kf


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("name", ["attention", "attention_window", "attention_softcap"])
def test_the_bytes_are_those_of_anchors_that_follow(name, scores, monkeypatch):
    rng = np.random.default_rng(5)
    b, g, r, s, t, d = DIMS.values()
    q, v = (rng.standard_normal(shape).astype(numpy_dtype(DType.bf16)) for shape in ((b, g, r, s, d), (b, g, t, d)))
    k = SCORES[scores](rng, (b, g, t, d)).astype(numpy_dtype(DType.bf16))
    if scores == "infinite":
        q = np.abs(q)
    arrays, scalars = {"q": q, "k": k, "v": v}, {"scale": 0.5, "window": 19, "cap": 30.0}
    with np.errstate(all="ignore"):
        outs = []
        for tiling in ("", "wm=1", "wm=2,wo=0", "wm=2,wo=2"):
            outs.append(run(Kernel(ZOO[name]).func, arrays, scalars, f"+tile{{{tiling}}}" if tiling else "+tile")[0])
        monkeypatch.setattr(lower_held, "held", lambda plan, limits: None)
        monkeypatch.setattr(lower_stream, "TAU", lower_stream.HELD_TAU)
        following, kf = run(Kernel(ZOO[name]).func, arrays, scalars, "+tile")
    assert not any(op.attrs.get("name") == "behind" for op in kf.body.walk())
    assert all(out.tobytes() == following.tobytes() for out in outs)


def test_without_a_second_go_these_scores_would_be_wrong(monkeypatch):
    """What the cases above test: with no bound on the sums, the bytes differ."""
    monkeypatch.setattr(lower_held, "MOST", float("inf"))
    monkeypatch.setattr(lower_held, "FAR", float("inf"))
    with pytest.raises(AssertionError):
        test_the_bytes_are_those_of_anchors_that_follow("attention", "overflow", monkeypatch)


@pytest.mark.parametrize("dims", [{"S": 256, "T": 256, "D": 64}, {"S": 130, "T": 333, "D": 128}])
def test_on_the_simulator(dims):
    """Teams of one warp, and all warps ahead: scores that outgrow the first blocks' take another go, and both are right."""
    compiled = Kernel(ZOO["attention"]).compile("base", **dims)
    rng = np.random.default_rng(1)
    b, g, r, s, t, d = 1, 2, 4, *dims.values()
    q, v = (rng.standard_normal(shape).astype(numpy_dtype(DType.bf16)) for shape in ((b, g, r, s, d), (b, g, t, d)))
    cycles = []
    for size in (1.0, 40.0):
        k = late(rng, (b, g, t, d), t // 2, size).astype(numpy_dtype(DType.bf16))
        result = compiled.run(q, k, v, scale=d ** -0.5, check=True)
        assert result.stats["check"]["passed"]
        cycles.append(result.cycles)
    assert cycles[1] > 1.5 * cycles[0]


def test_converted_keys_take_another_go():
    """8-bit K and V are converted in place, block by block: the second go converts anew."""
    dims = {"S": 130, "T": 333, "D": 128}
    compiled = Kernel(ZOO["attention_int8kv"]).compile("base", **dims)
    binding = {"B": 1, "G": 1, "R": 4, **dims}
    inputs = random_inputs(compiled.kernel.func, binding, 3)
    cycles = [compiled.run(*inputs, scale=0.02, sanitize=True).cycles]
    inputs[2][:, :, 200:] *= 100.0  # ks
    result = compiled.run(*inputs, scale=0.02, check=True, sanitize=True)
    assert result.stats["check"]["passed"] and result.cycles > 1.5 * cycles[0]
