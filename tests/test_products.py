"""Products of 8-bit numbers on the matrix unit, against exact integers or the float64 bound, on several machines and tilings."""

from __future__ import annotations

import numpy as np
import pytest

from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.types import DType
from rvgpu.passes.pipeline import parse_passes
from rvgpu.runtime.inputs import random_inputs
from rvgpu.runtime.kernel import kernel
from tests.test_zoo import MACHINES

SHAPES = [(1, 1, 1), (16, 130, 3), (70, 50, 33), (129, 65, 260)]


def product(dtype, out):
    return kernel(f"def f(a: {dtype}[M, K], b: {dtype}[K, N]) -> {out}[M, N]:\n    return a @ b")


def operands(dtype, m, n, k):
    rng = np.random.default_rng(m + n + k)
    if dtype in ("i8", "u8"):
        low = -128 if dtype == "i8" else 0
        return [rng.integers(low, low + 256, s).astype(numpy_dtype(DType[dtype])) for s in ((m, k), (k, n))]
    return [rng.standard_normal(s, dtype=np.float32).astype(numpy_dtype(DType[dtype])) for s in ((m, k), (k, n))]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_integers_are_exact(dtype, machine):
    name, overrides = MACHINES[machine]
    made = product(dtype, "i32").compile(name, overrides=overrides)
    for shape in SHAPES:
        a, b = operands(dtype, *shape)
        r = made.run(a, b, sanitize=shape == SHAPES[2])
        assert (r.out == a.astype(np.int32) @ b.astype(np.int32)).all()
        assert r.stats["macs"] > 0, "on the matrix unit"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", ["e4m3", "e5m2"])
def test_small_floats_meet_their_bound(dtype, machine):
    name, overrides = MACHINES[machine]
    made = product(dtype, "f32").compile(name, overrides=overrides)
    for shape in SHAPES:
        a, b = operands(dtype, *shape)
        r = made.run(a, b, check=True)
        assert r.stats["check"]["passed"] and r.stats["macs"] > 0


@pytest.mark.parametrize("dtype,out", [("i8", "i32"), ("e4m3", "bf16")])
@pytest.mark.parametrize("tiles", ["wm=1,wn=1,im=1,jn=2", "wm=1,wn=2,im=2,jn=2,bk=64", "wm=4,wn=1,im=1,jn=1,bk=32"])
def test_tiles_do_not_change_bytes(dtype, out, tiles):
    a, b = operands(dtype, 130, 141, 75)
    plain = product(dtype, out).compile("base").run(a, b)
    other = product(dtype, out).compile("base", passes=parse_passes(f"+tile{{{tiles}}}")).run(a, b)
    assert other.out.tobytes() == plain.out.tobytes()


def test_scales_of_rows_and_columns():
    f = kernel("def f(a: i8[M, K], sa: f32[M], b: i8[K, N], sb: f32[N]) -> bf16[M, N]:\n    acc: i32 = a @ b\n    return f32(acc) * sa * sb")
    a, b = operands("i8", 100, 90, 200)
    rng = np.random.default_rng(3)
    r = f.compile("base").run(a, rng.random(100, np.float32), b, rng.random(90, np.float32), check=True)
    assert r.stats["check"]["passed"] and r.stats["macs"] >= 100 * 90 * 200


def test_small_floats_beside_products():
    f = kernel("def f(a: e4m3[M, K], b: e4m3[K, N], c: e4m3[N]) -> e5m2[M, N]:\n    return a @ b + c")
    r = f.compile("base").run(*operands("e4m3", 20, 30, 40), operands("e4m3", 1, 30, 1)[1][0], check=True, sanitize=True)
    assert r.stats["check"]["passed"] and len(r.stats["launches"]) == 1


@pytest.mark.parametrize("small", ["i8", "u8", "e4m3", "e5m2"])
@pytest.mark.parametrize("wide", ["f16", "bf16"])
def test_8_bit_weights_are_converted_where_they_are_loaded(small, wide):
    f = kernel(f"def f(a: {wide}[M, K], b: {small}[K, N], s: f32[N]) -> f32[M, N]:\n    return (a @ {wide}(b)) * s")
    a, b = operands("e4m3", 20, 70, 90)[0].astype(np.float32), operands(small, 20, 70, 90)[1]
    r = f.compile("base").run(a.astype(numpy_dtype(DType[wide])), b, np.ones(70, np.float32), check=True, sanitize=True)
    assert r.stats["check"]["passed"] and len(r.stats["launches"]) == 1


GROUPS = {
    "zoo": "a: {0}[M, C, J], sa: f32[M, C], b: {0}[C, J, N], sb: f32[C, N]) -> bf16[M, N]:\n    return sum(f32(dot(a, b, over=J)) * sa * sb, over=C)",
    "other layouts": "a: {0}[C, M, J], sa: f32[C], b: {0}[N, C, J], sb: f32[N, C]) -> f32[M, N]:\n"
                     "    return sum(f32(dot(a, b, over=J)) * (sa * sb), over=C)",
    "behind it": "a: {0}[M, C, J], sa: f32[M, C], b: {0}[C, J, N], z: f32[N, C], y: f32[M]) -> f32[M, N]:\n"
                 "    return tanh(sum((f32(dot(a, b, over=J)) - z) * sa, over=C)) * y",
}


def groups(name, dtype):
    return kernel("def f(" + GROUPS[name].format(dtype))


@pytest.mark.parametrize("dtype", ["i8", "e4m3"])
@pytest.mark.parametrize("name", GROUPS)
def test_sums_of_groups_are_one_kernel_whose_tiles_do_not_change_bytes(name, dtype):
    f = groups(name, dtype)
    inputs = random_inputs(f.func, {"M": 70, "N": 141, "C": 3, "J": 75}, 1)
    plain = f.compile("base").run(*inputs, check=True, sanitize=True)
    assert plain.stats["check"]["passed"] and len(plain.stats["launches"]) == 1 and plain.stats["macs"] >= 70 * 141 * 225
    for tiles in ("wm=1,wn=1,im=1,jn=2,bk=32", "wm=2,wn=2,im=1,jn=1,bk=128", "wm=4,wn=1,im=1,jn=1,bk=64"):
        assert f.compile("base", J=75, passes=parse_passes(f"+tile{{{tiles}}}")).run(*inputs).out.tobytes() == plain.out.tobytes()


def test_sums_of_no_groups_and_groups_of_nothing():
    f = groups("zoo", "e4m3")
    for sizes in ({"M": 5, "N": 7, "C": 0, "J": 9}, {"M": 5, "N": 7, "C": 2, "J": 0}):
        assert not f.compile("base").run(*random_inputs(f.func, sizes, 1)).out.any()


def test_two_sums_of_groups_have_a_kernel_each():
    f = kernel("def f(a: i8[M, C, J], b: i8[C, J, N], d: i8[C, J, N], s: f32[C]) -> f32[M, N]:\n"
               "    return sum(dot(a, b, over=J) * s, over=C) * sum(dot(a, d, over=J) * s, over=C)")
    r = f.compile("base").run(*random_inputs(f.func, {"M": 20, "N": 41, "C": 3, "J": 35}, 1), check=True)
    assert r.stats["check"]["passed"] and len(r.stats["launches"]) == 2
