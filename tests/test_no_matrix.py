"""A machine without a matrix unit (`core.matrix = "none"`): its instructions are illegal there, and every contraction runs on the vector unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rvgpu.runtime.kernel as rt
from rvgpu.cli import main
from rvgpu.errors import RvgpuError
from rvgpu.ir.binding import bind
from rvgpu.isa.machine import load_machine
from rvgpu.runtime.inputs import random_inputs, random_scalars

ZOO = str(Path(__file__).parents[1] / "examples" / "zoo.rvg")
NONE = {"core.matrix": "none"}
CASES = {"gemm": {"M": 37, "N": 70, "K": 41}, "gemm_bias_gelu": {"M": 19, "N": 65, "K": 33}, "attention": dict(B=1, G=2, R=2, S=9, T=21, D=32),
         "attention_full": dict(B=1, G=1, R=2, S=8, T=24, D=16), "swiglu_mlp": {"T": 9, "D": 48, "F": 70}, "gemm_w8a8": {"M": 9, "K": 40, "N": 33},
         "rope": dict(B=1, S=5, H=2, F=16), "rmsnorm": {"T": 5, "D": 96}}


@pytest.mark.parametrize("name", CASES)
def test_the_zoo_without_a_matrix_unit(name: str) -> None:
    kernel = rt.Kernel(rt.load_file(ZOO)[name])
    binding = bind(kernel.func, {}, CASES[name])
    compiled = kernel.compile("base", overrides=NONE)
    r = compiled.run(*random_inputs(kernel.func, binding), check=True, **random_scalars(kernel.func, binding))
    assert r.stats["check"]["passed"] and r.stats["utilisation"]["matrix"] == 0


def product(source: str, sizes: dict[str, int], **overrides: object) -> rt.Result:
    kernel = rt.kernel(source)
    binding = bind(kernel.func, {}, sizes)
    r = kernel.compile("base", overrides={**NONE, **overrides}).run(*random_inputs(kernel.func, binding), check=True, sanitize=True)
    assert r.stats["check"]["passed"]
    return r


@pytest.mark.parametrize("sizes", [dict(M=6, N=64, K=4), dict(M=31, N=141, K=1), dict(M=13, N=33, K=67)])
def test_outer_products_on_the_vector_unit(sizes: dict[str, int]) -> None:
    """Ragged rows, columns and depths; a transposed first factor; a batch; 16-bit factors; math behind it. Bytes do not depend on the cores."""
    plain = "def f(a: f32[M, K], b: f32[K, N]) -> f32[M, N]:\n    return a @ b\n"
    assert product(plain, sizes).out.tobytes() == product(plain, sizes, **{"gpu.cores": 3, "core.warps": 2}).out.tobytes()
    product("def f(a: f32[K, M], b: f32[K, N]) -> f32[M, N]:\n    return dot(a, b, over=K)\n", sizes)
    product("def f(a: f32[B, M, K], b: f32[B, K, N]) -> f32[B, M, N]:\n    return dot(a, b, over=K)\n", {"B": 2, **sizes})
    product("def f(a: bf16[M, K], b: bf16[K, N], s: f32[M], t: f32[N]) -> bf16[M, N]:\n    c: f32 = a @ b\n    return relu(c * s + t)\n", sizes)


def test_outer_products_reach_the_lanes_peak() -> None:
    x = np.ones((192, 256), np.float32)
    kernel = rt.kernel("def f(a: f32[M, K], b: f32[K, N]) -> f32[M, N]:\n    return a @ b\n")
    r = kernel.compile("base", overrides=NONE).run(x, np.ones((256, 512), np.float32))
    assert (r.out == 256).all() and r.stats["roofline"]["of_vector_peak"] >= .95


def test_matrix_instructions_are_illegal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["-D", "M=16", "-D", "N=16", "-D", "K=16"]
    elf = str(tmp_path / "g.elf")
    assert main(["compile", ZOO, "--kernel", "gemm", *sizes, "--emit", "elf", "-o", elf]) == 0
    assert main(["sim", elf, *sizes]) == 0
    capsys.readouterr()
    assert main(["sim", elf, *sizes, "--set", "core.matrix=none"]) != 0
    said = capsys.readouterr().err
    assert "E701" in said and "illegal instruction" in said and "sf." in said and "core.matrix" in said


def test_the_peak_is_that_of_the_lanes() -> None:
    m = load_machine("base", NONE)
    assert m.peak_macs_per_cycle("f32") == m.peak_macs_per_cycle("bf16") == 8 * 16
    with pytest.raises(RvgpuError, match="matrix"):
        load_machine("base", {"core.matrix": "some"})
