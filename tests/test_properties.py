"""Properties of whole kernels: any shape meets its bound, and nothing but the math decides a result's bytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.text import print_funcs
from rvgpu.runtime.kernel import Kernel, kernel, load_file
from tests.test_zoo import MACHINES, ZOO, inputs

ROOT = Path(__file__).parents[1]
SMALL, SIZE, HEADS = st.sampled_from([1, 2, 3, 5, 8]), st.sampled_from([1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 129]), st.integers(1, 3)
DIMS = {"gemm": "MNK", "gemm_bias_gelu": "MNK", "row_softmax": "MN", "rmsnorm": "TD", "attention": "BGRSTD", "attention_full": "BGRSTD",
        "rope": "BSHF", "swiglu_mlp": "TDF"}
SLOW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def sizes(draw, name):
    return {d: draw(HEADS if d in "BGRH" else SIZE) for d in DIMS[name]}


def any_shape(data, name):
    dims = sizes(data.draw, name)
    dtypes = data.draw(st.sampled_from([{}, {"bf16": "f16"}, {"bf16": "f32"}]))
    machine, overrides = MACHINES[data.draw(st.sampled_from(sorted(MACHINES)))]
    k = Kernel(ZOO[name], dtypes)
    arrays, scalars = inputs(k, dims)
    r = k.compile(machine, overrides=overrides).run(*arrays, check=True, **scalars)
    assert r.stats["check"]["passed"], (dims, dtypes, machine, r.stats["check"])
    assert r.stats["roofline"]["fraction"] <= 1 and abs(sum(r.stats["stalls"].values()) - 1) < 1e-9


@pytest.mark.parametrize("name", DIMS)
@settings(max_examples=5)
@given(st.data())
def test_any_shape(name, data):
    """Sizes around those of tiles, cross S != T, rows with every key masked (T < S), every dtype and machine."""
    any_shape(data, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIMS)
@SLOW
@given(st.data())
def test_any_shape_for_long(name, data):
    any_shape(data, name)


@pytest.mark.parametrize("name", DIMS)
@settings(max_examples=3)
@given(st.data())
def test_bytes_do_not_depend_on_the_machine_s_size(name, data):
    """Cores, warps and what only timing sees change cycles, never a bit."""
    dims = sizes(data.draw, name)
    k = Kernel(ZOO[name], {})
    arrays, scalars = inputs(k, dims)
    want = k.compile("base").run(*arrays, **scalars).out.tobytes()
    for _ in range(2):
        change = {"gpu.cores": data.draw(st.integers(1, 9)), "core.warps": data.draw(st.sampled_from([1, 2, 3, 4, 8])),
                  "dram.bytes_per_cycle": data.draw(st.sampled_from([16, 64, 256])), "dma.bytes_per_cycle": data.draw(st.sampled_from([16, 32, 64]))}
        assert k.compile("base", overrides=change).run(*arrays, **scalars).out.tobytes() == want, change


@pytest.mark.parametrize("name,batch", [("attention", "B"), ("attention_full", "G"), ("gemm", "M"), ("row_softmax", "M"), ("rmsnorm", "T"),
                                        ("rope", "B")])
@settings(max_examples=3)
@given(st.data())
def test_bytes_do_not_depend_on_the_neighbours(name, batch, data):
    """A part of the batch alone gives the bytes that it has in the whole batch: grid position and parallel extents do not matter."""
    dims = {**sizes(data.draw, name), batch: data.draw(st.integers(2, 70 if batch in "MT" else 4))}
    k = Kernel(ZOO[name], {})
    arrays, scalars = inputs(k, dims)
    whole = k.compile("base").run(*arrays, **scalars).out
    first = data.draw(st.integers(0, dims[batch] - 1))
    last = data.draw(st.integers(first + 1, dims[batch]))

    def cut(x, ds):
        axis = [str(d) for d in ds].index(batch) if batch in map(str, ds) else None
        return x if axis is None else np.ascontiguousarray(x[(slice(None),) * axis + (slice(first, last),)])

    parts = [cut(x, p.value.tensor.dims) for x, p in zip(arrays, k.func.params, strict=False)]
    alone = k.compile("base").run(*parts, **scalars).out
    assert alone.tobytes() == cut(whole, k.func.result_types[0].dims).tobytes()


def test_a_longer_context_is_the_shorter_one():
    """Causal attention: queries see the same bytes when more keys stand behind them, all masked."""
    k = Kernel(ZOO["attention"], {})
    dims = {"B": 1, "G": 1, "R": 2, "S": 150, "T": 150, "D": 64}
    (q, kk, v), scalars = inputs(k, dims)
    whole = k.compile("base").run(q, kk, v, **scalars).out
    shorter = map(np.ascontiguousarray, (q[:, :, :, :70], kk[:, :, :70], v[:, :, :70]))
    part = k.compile("base").run(*shorter, **scalars).out
    assert part.tobytes() == np.ascontiguousarray(whole[:, :, :, :70]).tobytes()


@pytest.mark.parametrize("size,tile", [(80, ""), (88, "+tile{wm=2}"), (128, "+tile{wm=4}")])
def test_a_small_scratchpad_holds_one_copy_of_the_queries(size, tile):
    """Where the next item's do not fit beside this one's they come between the two; bytes stay."""
    dims = {"B": 1, "G": 5, "R": 4, "S": 150, "T": 201, "D": 128}
    arrays, scalars = inputs(Kernel(ZOO["attention"], {}), dims)
    runs = []
    for kib, options, sanitize in ((256, "", False), (size, tile, True)):
        k = Kernel(ZOO["attention"], {}, passes=options or None)
        compiled = k.compile("base", overrides={"scratchpad.size_bytes": kib << 10, "gpu.cores": 2})
        runs.append(compiled.run(*arrays, sanitize=sanitize, **scalars).out.tobytes())
    assert runs[0] == runs[1]
    queries = re.search(r'{name="q", size_bytes=(\d+)', print_funcs(compiled.units(dims)))
    assert queries and int(queries[1]) == int(tile[-2] if tile else 1) * 64 * 128 * 2


def test_one_binary_for_every_size():
    """Dims that are not given to compile() are open: the code of one bucket (and tiling) is right for all its sizes."""
    k = Kernel(ZOO["gemm_bias_gelu"], {}, passes="+tile{wm=1,wn=1,im=1,jn=2,bk=64}")
    compiled = k.compile("base")
    objects = set()
    for dims in ({"M": 65, "N": 65, "K": 65}, {"M": 100, "N": 128, "K": 77}, {"M": 128, "N": 90, "K": 128}):
        arrays, _ = inputs(k, dims)
        assert compiled.run(*arrays, check=True).stats["check"]["passed"]
        objects.add(compiled.code(dims).kernels[0].object)
    assert len(objects) == 1


def test_sizes_of_0():
    """sum 0, amax -inf, a contraction 0; an empty result launches nothing."""
    f32 = np.float32
    for text, shape, want in (("sum(x, over=N)", (3, 0), 0.0), ("amax(x, over=N)", (3, 0), -np.inf), ("amin(x, over=N)", (3, 0), np.inf)):
        r = kernel(f"def f(x: f32[M, N]) -> f32[M]:\n    return {text}\n").compile("base").run(np.zeros(shape, f32), check=True)
        assert (r.out == want).all() and r.stats["check"]["passed"]
    r = kernel("def f(x: f32[M, N]) -> f32[M]:\n    return mean(x, over=N)\n").compile("base").run(np.zeros((3, 0), f32))
    assert np.isnan(r.out).all()
    gemm = Kernel(ZOO["gemm"], {})
    a = numpy_dtype(gemm.func.params[0].value.tensor.dtype)
    r = gemm.compile("base").run(np.zeros((5, 0), a), np.zeros((0, 7), a))
    assert r.out.shape == (5, 7) and not r.out.any()
    r = gemm.compile("base").run(np.zeros((0, 9), a), np.zeros((9, 7), a))
    assert r.out.shape == (0, 7) and r.stats["launches"] == []


RUN = "import json, sys; from tests.test_properties import once; print(json.dumps(once()))"


def once():
    """Cycles, instructions and result of a few kernels."""
    out = []
    for name, dims in (("gemm_bias_gelu", {"M": 81, "N": 41, "K": 19}), ("attention", {"B": 1, "G": 2, "R": 2, "S": 40, "T": 70, "D": 64}),
                       ("rmsnorm", {"T": 9, "D": 300})):
        k = Kernel(load_file(str(ROOT / "examples" / "zoo.rvg"))[name], {})
        arrays, scalars = inputs(k, dims)
        r = k.compile("base").run(*arrays, **scalars)
        out.append([r.cycles, r.stats["instructions"], r.stats["stalls"], r.out.tobytes().hex()])
    return out


def test_same_cycles_and_bytes_in_every_process():
    first = json.loads(json.dumps(once()))
    assert first == json.loads(json.dumps(once()))
    p = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(p.stdout) == first


PROGRAMS = {
    "residual_norm": ("def f(x: bf16[T, D], r: bf16[T, D], w: bf16[D]) -> (bf16[T, D], bf16[T, D]):\n    h = f32(x) + r\n"
                      "    return h, h * rsqrt(mean(h * h, over=D) + 1e-6) * w", {"T": 9, "D": 130}),
    "layernorm": ("def f(x: f32[T, D], w: f32[D], b: f32[D]) -> f32[T, D]:\n    c = x - mean(x, over=D)\n"
                  "    return c * rsqrt(mean(c * c, over=D) + 1e-5) * w + b", {"T": 9, "D": 130}),
    "transposed": ("def f(x: bf16[M, K], y: bf16[N, K]) -> bf16[M, N]:\n    return x @ y", {"M": 70, "N": 45, "K": 33}),
    "outer_first": ("def f(x: bf16[K, M], y: bf16[K, N]) -> bf16[M, N]:\n    return dot(x, y, over=K)", {"M": 70, "N": 45, "K": 33}),
    "batched": ("def f(x: bf16[B, M, K], y: bf16[B, K, N]) -> bf16[B, M, N]:\n    return x @ y", {"B": 3, "M": 20, "N": 45, "K": 33}),
    "shared_weights": ("def f(x: f16[B, M, K], y: f16[K, N]) -> f16[B, M, N]:\n    return x @ y", {"B": 3, "M": 20, "N": 45, "K": 33}),
    "row_times_matrix": ("def f(x: bf16[K], y: bf16[K, N]) -> f32[N]:\n    return x @ y", {"N": 45, "K": 133}),
    "row_dot": ("def f(x: f32[M, K], y: f32[M, K]) -> f32[M]:\n    return x @ y", {"M": 20, "K": 133}),
    "two_products": ("def f(x: bf16[M, K], y: bf16[K, N], z: bf16[N, L]) -> bf16[M, L]:\n    h = bf16(relu(x @ y))\n    return h @ z",
                     {"M": 20, "N": 45, "K": 33, "L": 50}),
    "int8": ("def f(a: i8[M, K], sa: f32[M], b: i8[K, N], sb: f32[N]) -> bf16[M, N]:\n    acc: i32 = a @ b\n    return f32(acc) * sa * sb",
             {"M": 70, "N": 45, "K": 33}),
}


@pytest.mark.parametrize("ones", [False, True], ids=["ragged", "ones"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name, ones):
    text, dims = PROGRAMS[name]
    k = kernel(text)
    rng = np.random.default_rng(7)
    dims = dict.fromkeys(dims, 1) if ones else dims
    arrays = []
    for p in k.func.params:
        shape, dtype = [d.value(dims) for d in p.value.tensor.dims], numpy_dtype(p.value.tensor.dtype)
        x = rng.integers(-100, 100, shape) if dtype.kind == "i" else rng.standard_normal(shape, dtype=np.float32)
        arrays.append(x.astype(dtype))
    r = k.compile("base").run(*arrays, check=True)
    assert r.stats["check"]["passed"], r.stats["check"]
