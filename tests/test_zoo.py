"""The zoo through the whole house: random inputs, the simulated binary against float64 within the propagated bound, on several machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.ir.bounds import compare, reference
from rvgpu.ir.numeric import numpy_dtype
from rvgpu.runtime.kernel import Kernel, load_file

ROOT = Path(__file__).parents[1]
ZOO = load_file(str(ROOT / "examples" / "zoo.rvg"))
MACHINES = {"base": ("base", {}), "edge": ("edge", {}), "vlen256": ("base", {"vector.vlen": 256, "matrix.te": 32}),
            "vlen1024": ("base", {"vector.vlen": 1024, "matrix.te": 64})}
CASES = [
    ("gemm_bias_gelu", {"M": 32, "N": 32, "K": 32}, {}), ("gemm_bias_gelu", {"M": 81, "N": 41, "K": 19}, {}),
    ("gemm_bias_gelu", {"M": 81, "N": 41, "K": 19}, {"bf16": "f16"}), ("gemm_bias_gelu", {"M": 81, "N": 41, "K": 19}, {"bf16": "f32"}),
    ("row_softmax", {"M": 40, "N": 1000}, {}), ("rmsnorm", {"T": 9, "D": 4096}, {}),
    ("attention", {"B": 1, "G": 1, "R": 1, "S": 16, "T": 16, "D": 16}, {}), ("attention", {"B": 1, "G": 2, "R": 4, "S": 7, "T": 101, "D": 64}, {}),
    ("attention", {"B": 1, "G": 1, "R": 2, "S": 40, "T": 20, "D": 32}, {}), ("attention", {"B": 1, "G": 2, "R": 4, "S": 1, "T": 300, "D": 128}, {}),
    ("attention_full", {"B": 1, "G": 1, "R": 2, "S": 33, "T": 70, "D": 48}, {}), ("rope", {"B": 2, "S": 9, "H": 3, "F": 20}, {}),
    ("swiglu_mlp", {"T": 20, "D": 96, "F": 130}, {}),
]


def inputs(kernel, dims, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal([d.value(dims) for d in p.value.tensor.dims], dtype=np.float32).astype(numpy_dtype(p.value.tensor.dtype))
              for p in kernel.func.params if not p.keyword]
    scalars = {"scale": dims["D"] ** -0.5} if any(p.name == "scale" for p in kernel.func.params) else {}
    return arrays, scalars


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name,dims,dtypes", CASES, ids=lambda x: str(x).replace(" ", ""))
def test_checked(name, dims, dtypes, machine):
    kernel = Kernel(ZOO[name], dtypes)
    arrays, scalars = inputs(kernel, dims)
    base, overrides = MACHINES[machine]
    r = kernel.compile(base, overrides=overrides).run(*arrays, check=True, **scalars)
    assert r.stats["check"]["passed"], r.stats["check"]
    assert abs(sum(r.stats["stalls"].values()) - 1) < 1e-9


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.sampled_from(["bf16", "f16", "f32"]))
def test_ragged_gemm(m, n, k, dtype):
    kernel = Kernel(ZOO["gemm_bias_gelu"], {"bf16": dtype})
    arrays, _ = inputs(kernel, {"M": m, "N": n, "K": k})
    assert kernel.compile("base").run(*arrays, check=True).stats["check"]["passed"]


def test_bytes_do_not_depend_on_cores_or_warps():
    kernel = Kernel(ZOO["attention"])
    arrays, scalars = inputs(kernel, {"B": 1, "G": 2, "R": 2, "S": 70, "T": 90, "D": 64})
    outs = {kernel.compile("base", overrides=o).run(*arrays, **scalars).out.tobytes()
            for o in ({}, {"gpu.cores": 1}, {"gpu.cores": 3}, {"core.warps": 1}, {"core.warps": 8})}
    assert len(outs) == 1


def test_seeded_errors_leave_the_bound():
    """The bound is not a tolerance: one k dropped, bf16 accumulation, exp off by 2^-12, a mask off by one each exceed it."""
    kernel = Kernel(ZOO["gemm"], {"bf16": "f32"})
    (a, b), _ = inputs(kernel, {"M": 20, "N": 20, "K": 64})
    (want,), (bound,) = reference(kernel.func, {"a": a, "b": b}, {}, dims={"M": 20, "N": 20, "K": 64})
    assert compare(a @ b, want, bound).passed
    assert compare(a[:, :-1] @ b[:-1], want, bound).bound_fraction > 1
    rough = np.zeros((20, 20), numpy_dtype(Kernel(ZOO["gemm"]).func.params[0].value.tensor.dtype))
    for k in range(64):
        rough = (rough.astype(np.float32) + np.outer(a[:, k], b[k])).astype(rough.dtype)
    assert compare(rough, want, bound).bound_fraction > 1
    soft = Kernel(ZOO["row_softmax"])
    (x,), _ = inputs(soft, {"M": 8, "N": 64})
    (want,), (bound,) = reference(soft.func, {"x": x}, {}, dims={"M": 8, "N": 64})
    e = np.exp((x - x.max(1, keepdims=True)).astype(np.float64))
    assert compare((e / e.sum(1, keepdims=True)).astype(np.float32), want, bound).passed
    off = e * np.where(np.arange(64) % 2, 1 + 2.0**-12, 1)
    assert compare((off / off.sum(1, keepdims=True)).astype(np.float32), want, bound).bound_fraction > 1
    att = Kernel(ZOO["attention"], {"bf16": "f32"})
    dims = {"B": 1, "G": 1, "R": 1, "S": 12, "T": 12, "D": 16}
    (q, k, v), scalars = inputs(att, dims)
    (want,), (bound,) = reference(att.func, {"q": q, "k": k, "v": v}, scalars, dims=dims)
    s = np.einsum("bgrsd,bgtd->bgrst", q, k).astype(np.float64) * scalars["scale"]
    shifted = np.where(np.arange(12) <= np.arange(12)[:, None] + 1, s, -np.inf)
    p = np.exp(shifted - shifted.max(-1, keepdims=True))
    got = np.einsum("bgrst,bgtd->bgrsd", p / p.sum(-1, keepdims=True), v).astype(np.float32)
    assert compare(got, want, bound).bound_fraction > 1


def rvgpu(*args):
    return subprocess.run([sys.executable, "-m", "rvgpu", *args], capture_output=True, text=True, cwd=ROOT)


def test_json_schema():
    p = rvgpu("run", "examples/zoo.rvg", "--kernel", "gemm", "-D", "M=40", "-D", "N=30", "-D", "K=20", "--check", "--json")
    assert p.returncode == 0, p.stderr
    s = json.loads(p.stdout)
    assert s["macs_min"] == 40 * 30 * 20 and s["check"]["passed"] and s["cycles"] > 600
    assert {"utilisation", "roofline", "stalls", "host", "launches", "dram_bytes_min"} <= set(s)


@pytest.mark.parametrize("args,code,said", [
    (["run", "nothing.rvg"], 2, "error[E001]: cannot read nothing.rvg"),
    (["run", "examples/zoo.rvg", "--kernel", "gem"], 2, "did you mean gemm?"),
    (["run", "examples/zoo.rvg", "--kernel", "gemm", "-D", "M=4", "-D", "N=4"], 1, "error[E203]: no argument binds dim K"),
    (["run", "examples/zoo.rvg", "--kernel", "gemm", "-D", "M=4", "-D", "N=4", "-D", "K=4", "--set", "core.warp=2"], 1, "did you mean core.warps?"),
    (["run", "examples/zoo.rvg", "--kernel", "gemm", "-D", "M=4", "-D", "N=4", "-D", "K=4", "--machine", "bse"], 1, "did you mean base?"),
    (["run", "examples/zoo.rvg", "--kernel", "gemm", "-D", "M=4", "-D", "N=4", "-D", "K=4", "--max-cycles", "700"], 4, "error[E703]: cycle limit"),
], ids=str)
def test_bad_input(args, code, said):
    p = rvgpu(*args)
    assert p.returncode == code and said in p.stderr and "Traceback" not in p.stderr, p.stderr


@pytest.mark.parametrize("text,said", [
    ("def f(x: f32[M]) -> f32[M]:\n    for i in x:\n        y = i\n    return x\n", ":2:5: error[E101]: a `for` loop is not part of the language"),
    ("def f(x: f32[M]) -> f32[M]:\n    return x + zz\n", ":2:16: error[E120]: unknown name zz"),
    ("def f(a: f32[M, K], b: f32[J, N]) -> f32[M, N]:\n    return a @ b\n", ":2:12: error[E103]: `a @ b` contracts K, but b has no dim K"),
    ("def f(x: f23[M]) -> f32[M]:\n    return x\n", "did you mean f32?"),
    ("def f(x: f32[M]) -> f32[M]:\n    return sum(x)\n", ":2:12: error[E126]: sum needs the dim that it runs over"),
    ("def f(x: f32[M]) -> f32[M]:\n    return x if x else x\n", "use where(condition, a, b)"),
], ids=range(6))
def test_bad_kernels(tmp_path, text, said):
    path = tmp_path / "bad.rvg"
    path.write_text(text)
    p = rvgpu("run", str(path), "-D", "M=4")
    assert p.returncode == 1 and said in p.stderr and "Traceback" not in p.stderr, p.stderr


def test_an_aborting_compiler_leaves_the_process_alive():
    from rvgpu.codegen_rvgpu.worker import Worker
    from rvgpu.errors import RvgpuError

    w = Worker()
    with pytest.raises(RvgpuError) as e:
        w.compile("this is no LLVM IR", 512)
    assert e.value.exit_code == 70 and "reproducer" in e.value.render()
    w.process.kill()
    with pytest.raises(RvgpuError):
        w.compile("neither is this", 512)
    w.stop()
