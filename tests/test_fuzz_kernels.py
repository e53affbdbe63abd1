"""A short profile of `make fuzz-kernels`: random programs hold their properties; a failure shrinks and is written as a reproducer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rvgpu.errors import RvgpuError
from rvgpu.ir.binding import bind
from rvgpu.isa.machine import load_machine
from rvgpu.passes.context import Facts
from rvgpu.runtime.inputs import random_inputs
from rvgpu.runtime.kernel import kernel
from rvgpu.testing import SMALL, Failure, Program, check_passes, check_run, fuzz, programs, refused

SHORT = settings(max_examples=40, suppress_health_check=list(HealthCheck))
LONG = settings(SHORT, max_examples=600)


@SHORT
@given(programs())
def test_a_program_meets_its_bounds_and_has_the_same_bytes_on_other_machines(p):
    check_run(p)


@SHORT
@given(programs(sizes=SMALL))
def test_every_pass_keeps_the_meaning(p):
    k = kernel(p.text)
    small = {"vector.vlen": 128, "matrix.te": 8, "core.warps": 1 + p.seed}
    check_passes(k, bind(k.func, {}, p.dims), Facts.of(load_machine("base", small)))


@pytest.mark.slow
@LONG
@given(programs(steps=10))
def test_programs_for_long(p):
    check_run(p)


@settings(max_examples=200)
@given(programs(steps=12))
def test_programs_are_well_typed(p):
    """The front end takes every one: its refusals (E1xx, E2xx) would be the generator's mistake."""
    k = kernel(p.text)
    assert set(k.func.dim_names()) == set(p.dims)


def test_a_failure_shrinks_and_is_written_with_its_command(tmp_path):
    def check(p: Program) -> str:
        kernel(p.text)
        if "softmax(" in p.text:
            raise Failure("softmax is there")
        return "ok"

    counts, found = fuzz(0.1, tmp_path, 7, check)
    assert len(found) == 1 == counts["failed"] and counts["ok"] and counts["again"], "the same failure is told once"
    softmax = found[0].read_text()
    assert softmax.startswith("# Failure: softmax is there")
    assert "rvgpu run fuzz-" in softmax.splitlines()[1] and "--check" in softmax.splitlines()[1] and f"{softmax.count('-D ')}" in "123"
    assert softmax.count("\n") <= 7, "one statement is enough"


def test_what_is_no_refusal_fails():
    assert not refused(RvgpuError("E303", "no location")) and not refused(RvgpuError("E900", "internal"))
    with pytest.raises(RvgpuError):
        check_run(Program("def f(x: f32[M]) -> f32[M]:\n    return x + yy\n", {"M": 3}))


FOUND = {  # by fuzzing, each with what was wrong
    "several_dtypes": ("def f(q: i8[M, K], k: i8[N, K], v: bf16[N, K]) -> f32[M, K]:\n"
                       "    return softmax(f32(q @ k) * 0.1, over=N) @ v\n", "other numbers"),
    "two_products": ("def f(a: bf16[M, K], b: bf16[K, N], c: i8[M, K], d: i8[K, N]) -> (f32[M, N], f32[M, N]):\n    return f32(a @ b), f32(c @ d)\n",
                     "other numbers"),
    "wider_result": ("def f(x: f32[M, N], y: f32[K]) -> (f32[M, N], f32[M, K]):\n    return x * 2.0, var(x, over=N) + y\n", "no coordinate"),
    "four_products": ("def f(a: bf16[M, K], b: bf16[K, N], c: bf16[K, N], d: bf16[M, K]) -> (f32[M, N], f32[M, N]):\n"
                      "    return f32(a @ b) * (a @ c), f32(d @ b) * (d @ c)\n", "no tiling"),
    "narrowed_i64": ("def f(x: i64[M, N], y: i64[M, N]) -> (i4[M, N], e4m3[M, N], bf16[M]):\n    v = x + y\n"
                     "    return v, v, sum(v, over=N)\n", "no code"),
    "mask_of_a_row": ("def f(x: f32[M, N], y: f32[M, N]) -> f32[M, N]:\n    return where((iota(M) > 2) & (y > 0.25), x, 0.0)\n", "no code"),
}


def test_nothing_is_read_for_an_empty_result():
    """Its roofline was that of its inputs, above the run."""
    text = "def f(x: f32[B, M, N], y: bf16[M, K], z: e4m3[K, N]) -> f32[M, N]:\n    return f32(y @ bf16(z)) * 0.125\n"
    assert check_run(Program(text, {"B": 2, "M": 5, "N": 0, "K": 9})) == "ok"


def test_a_warp_without_an_item_reads_within_the_tensors():
    k = kernel("def f(x: f16[M], y: f32[B, M, K]) -> f32[M, B, K]:\n    return x * y\n")
    dims = {"M": 5, "B": 3, "K": 2}
    assert check_passes(k, dims, Facts.of(load_machine("base"))) == "ok"
    assert k.compile().run(*random_inputs(k.func, dims), sanitize=True, check=True).stats["check"]["passed"]


def test_a_transfer_of_e5m2_has_a_meaning():
    k, dims = kernel("def f(x: f16[M, K], y: e5m2[K, N]) -> f16[M, N]:\n    return f32(x @ f16(y)) * 0.125\n"), {"M": 2, "K": 9, "N": 2}
    assert check_passes(k, dims, Facts.of(load_machine("base", {"vector.vlen": 128, "matrix.te": 8, "core.warps": 1}))) == "ok"


def test_floats_as_i64():
    """They were the largest i32 from 2^31 on."""
    x = np.array([0, -1.5, 2.0**31, -2.0**40, 2.0**62, 2.0**63, -np.inf, np.nan, 3e9], np.float32)
    r = kernel("def f(x: f32[M]) -> (i64[M], f32[M]):\n    y = i64(x)\n    return y, f32(y)\n").compile().run(x, check=True)
    assert r.stats["check"]["passed"] and r.out[2] == 2**31 and r.out[5] == r.out[7] == 2**63 - 1 and r.out[6] == -2**63


@pytest.mark.parametrize("name", FOUND)
def test_found(name):
    assert check_run(Program(FOUND[name][0], {"M": 7, "N": 9, "K": 5})) == "ok"
