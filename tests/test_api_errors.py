"""The user's mistakes in Python: each is an RvgpuError that says what was needed and what was found."""

from __future__ import annotations

import numpy as np
import pytest

import rvgpu as rv
from rvgpu.errors import RvgpuError
from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.types import DType
from rvgpu.runtime.kernel import kernel

SOFT = kernel("def f(x: f32[M, N], *, s: f32 = 2.0, n: i32 = 1) -> f32[M, N]:\n    return softmax(x * s * n, over=N)\n")
GEMM = kernel("def g(a: bf16[M, K], b: bf16[K, N]) -> bf16[M, N]:\n    return a @ b\n")
X = np.ones((3, 4), np.float32)
BF16 = numpy_dtype(DType.bf16)
CASES = {
    "ragged": (lambda: SOFT([[1.0], [2.0, 3.0]]), "E206", "x is tensor<[M,N] x f32>, its argument is no array"),
    "no array": (lambda: SOFT(None), "E206", "its argument is object"),
    "rank": (lambda: SOFT(X[0]), "E201", "its argument has 1 dims"),
    "contradiction": (lambda: GEMM(np.ones((2, 3), BF16), np.ones((4, 5), BF16)), "E202", "K is 3 here, bound by argument a; b has K = 4"),
    "by name": (lambda: SOFT(x=X), "E205", "takes 1 tensors"),
    "scalar of text": (lambda: SOFT(X, s="a"), "E207", "s is a number (f32), found str"),
    "scalar of none": (lambda: SOFT(X, s=None), "E207", "found NoneType"),
    "scalar of several": (lambda: SOFT(X, s=np.ones(3)), "E207", "found ndarray"),
    "complex": (lambda: SOFT(X, s=1j), "E207", "found complex"),
    "half an integer": (lambda: SOFT(X, n=1.5), "E207", "n is an integer (i32), found 1.5"),
    "no integer": (lambda: SOFT(X, n=float("nan")), "E207", "found nan"),
    "large integer": (lambda: SOFT(X, n=1 << 40), "E207", "beyond the range of i32"),
    "large number": (lambda: SOFT(X, s=1e300), "E207", "beyond the range of f32"),
    "in the reference": (lambda: SOFT.reference(X, s="q"), "E207", "found str"),
    "dim of text": (lambda: SOFT.compile(M="3"), "E208", "M='3': a dim is an integer of at least 0"),
    "dim of a fraction": (lambda: SOFT.compile(M=3.5), "E208", "M=3.5"),
    "negative dim": (lambda: SOFT.compile(M=-1), "E208", "M=-1"),
    "huge dim": (lambda: SOFT.compile(M=1 << 40), "E208", "below 2**31"),
    "other dim": (lambda: SOFT.compile(Q=1), "E208", "f has no dim Q"),
    "tuned dim": (lambda: SOFT.tune(M=3, N=4, Q=5), "E208", "f has no dim Q"),
    "priced dim": (lambda: SOFT.compile().cost(Q=5), "E208", "f has no dim Q"),
    "dtype": (lambda: SOFT.with_dtypes(f32=3), "E110", "unknown dtype 3"),
    "no text": (lambda: kernel(3), "E106", "a function or text is needed, found int"),
    "built in": (lambda: kernel(len), "E106", "found builtin_function_or_method"),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake(name):
    call, code, said = CASES[name]
    with pytest.raises(RvgpuError) as e:
        call()
    assert e.value.code == code and said in e.value.message


def test_numbers_of_numpy_are_numbers():
    want = SOFT(X, s=3.0, n=2)
    assert np.array_equal(SOFT(X, s=np.float64(3), n=np.int8(2)), want) and np.array_equal(SOFT(X, s=np.array(3), n=np.array(2.0)), want)
    assert np.array_equal(SOFT.compile(M=np.int64(3)).run(X, s=3, n=2).out, want)
    with rv.interpret():
        assert SOFT(X, s=np.float32(3), n=True).shape == (3, 4)


def test_a_part_of_the_dims_has_a_price():
    assert 0 < SOFT.compile().cost(M=3)["f"] < SOFT.compile().cost(M=3, N=1 << 20)["f"]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "e4m3", "e5m2", "i64", "i32", "i16", "i8", "u8", "i4", "i1"])
def test_scalars_of_every_dtype(dtype):
    """In arithmetic, and as they are in a selection (i4 and i1 had no code)."""
    value = {"u8": 200, "i1": True}.get(dtype, 2.5 if DType[dtype].is_float else -3)
    k = kernel(f"def f(x: f32[M], *, s: {dtype}) -> f32[M]:\n    return where(x > 0.0, f32(s), 1.0) * x\n")
    assert k.compile().run(np.linspace(-2, 2, 37, dtype=np.float32), s=value, check=True).stats["check"]["passed"]
    k = kernel(f"def f(x: {dtype}[M], *, s: {dtype}) -> {dtype}[M]:\n    return where(iota(M) > 3, x, s)\n")
    assert k.compile().run(np.arange(-5, 32).astype(numpy_dtype(DType[dtype])), s=value, check=True).stats["check"]["passed"]


def test_a_trace_of_nothing():
    k = kernel("def f(x: f32[M]) -> f32[M]:\n    return x + 1\n")
    r = k.compile().run(np.ones(0, np.float32))
    assert r.stats["launches"] == [] and len(r.traced().events) == 0
