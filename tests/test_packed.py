"""4-bit weights, two to a byte: against float64 at ragged sizes, the bytes in memory, and what is refused."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.errors import RvgpuError
from rvgpu.ir.bounds import compare, reference
from rvgpu.ir.numeric import packed, round_to
from rvgpu.passes.context import Context
from rvgpu.passes.pipeline import PIPELINE, run_passes
from rvgpu.runtime.kernel import Kernel, bucket, kernel, load_file
from rvgpu.testing import meaning
from tests.test_lowering import facts

ZOO = Kernel(load_file("examples/zoo.rvg")["gemm_w4a16"])
KERNELS = {
    "zoo": ZOO, "bf16": ZOO.with_dtypes(f16="bf16"),
    "plain": kernel("def f(x: bf16[M, J], w: i4[J, N], s: f32[N]) -> f32[M, N]:\n    return relu((x @ bf16(w)) * s)"),
    "epilogue": kernel("def f(x: bf16[B, S, C, J], w: i4[J, C, N], s: bf16[C, N], z: f32[C], b: f32[N]) -> f32[B, S, N]:\n"
                       "    p: f32 = dot(x, bf16(w), over=J)\n    return relu(sum(p * s + z, over=C) + b)"),
}


def arrays_of(func, sizes):
    rng = np.random.default_rng(0)
    return {p.name: round_to(rng.standard_normal([d.value(sizes) for d in p.value.tensor.dims]) * (3 if p.name == "w" else 1), p.value.tensor.dtype)
            for p in func.params}


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_against_float64(name, data):
    func = KERNELS[name].func
    sizes = {n: data.draw(st.integers(1, {"M": 20, "N": 21, "J": 9}.get(n, 4)), label=n) for n in func.dim_names()}
    arrays = arrays_of(func, sizes)
    refs, bounds = reference(func, arrays, {})
    context = Context(facts(data.draw(st.sampled_from([4, 8])), 128, data.draw(st.integers(1, 3))), {}, {n: bucket(v) for n, v in sizes.items()})
    units = run_passes([func], PIPELINE, context)
    assert len(units) == 1, "neither floats of the weights nor products of groups are stored"
    assert compare(meaning(units, arrays, {}, sizes)["out"], refs[0], bounds[0]).passed


@pytest.mark.parametrize("overrides", [{}, {"vector.vlen": 256, "matrix.te": 32}, {"vector.vlen": 1024, "matrix.te": 64}])
@pytest.mark.parametrize("name", ["zoo", "bf16"])
def test_on_the_simulator(name, overrides):
    k = KERNELS[name]
    arrays = arrays_of(k.func, {"M": 3, "C": 2, "J": 127, "N": 333})
    r = k.compile("base", overrides=overrides).run(*arrays.values(), check=True, sanitize=True)
    assert r.stats["check"]["passed"] and r.stats["check"]["bound_fraction"] > 0.05
    assert r.stats["dram_bytes_min"] < 2 * 127 * 333 * 0.5 + 12000


def test_two_to_a_byte_low_half_first():
    x = np.array([[1, -2, 7], [-8, 0, -1]], ml_dtypes.int4)
    assert packed(x).view(np.uint8).tolist() == [[0xE1, 0x07], [0x08, 0x0F]]
    assert packed(np.arange(3)).tolist() == [0, 1, 2]


def test_long_products_and_many_rows():
    """Blocks of 128 positions; beyond 64 rows the floats of the weights are stored."""
    k = KERNELS["plain"]
    for rows, launches in ((19, 1), (100, 2)):
        arrays = arrays_of(k.func, {"M": rows, "J": 300, "N": 75})
        r = k.compile("base").run(*arrays.values(), check=True, sanitize=True)
        assert r.stats["check"]["passed"] and len(r.stats["launches"]) == launches


OTHERS = {
    "rows of columns": "w: i4[N, C, J]) -> f32[M, N]:\n    return sum(dot(x, f16(w), over=J) * s, over=C)",
    "a batch": "w: i4[B, C, J, N]) -> f32[B, M, N]:\n    return sum(dot(x, f16(w), over=J) * s, over=C)",
    "groups innermost but one": "w: i4[C, N, J]) -> f32[M, N]:\n    return sum(dot(x, f16(w), over=J) * s, over=C)",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_layouts_are_unpacked_by_a_kernel(name):
    k = kernel(f"def f(x: f16[M, C, J], s: f16[C, N], {OTHERS[name]}")
    arrays = arrays_of(k.func, {"M": 13, "C": 3, "J": 27, "N": 75, "B": 2})
    r = k.compile("base").run(*arrays.values(), check=True, sanitize=True)
    assert r.stats["check"]["passed"] and len(r.stats["launches"]) == 2


def test_another_layout_in_one_kernel_is_refused_where_it_stands():
    text = "def f(x: f16[M, C, J], w: i4[N, C, J]) -> f32[M, N]:\n    return sum(dot(x, f16(w), over=J), over=C)"
    with pytest.raises(RvgpuError) as e:
        run_passes([kernel(text).func], [p for p in PIPELINE if p.name != "cluster"],
                   Context(facts(8, 128, 2), {}, {"M": 4, "N": 4, "K": 4, "C": 2, "J": 4}))
    assert e.value.code == "E314" and e.value.loc is not None
