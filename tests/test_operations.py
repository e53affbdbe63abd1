"""Every operation of the language on every dtype and operand order: result dims, result dtype, and values on the machine against float64."""

from __future__ import annotations

import numpy as np
import pytest

from rvgpu import kernel
from rvgpu.ir.dims import Dim
from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.types import DType
from rvgpu.runtime.kernel import interpret

M, N, K = 5, 37, 19
SIZES = {"M": M, "N": N, "K": K, "F": 12}
FLOATS = ["f32", "f16", "bf16", "e4m3", "e5m2"]
INTS = ["i32", "i16", "i8", "u8", "i4"]
ALL = FLOATS + INTS


def result(expression, **params):
    """dtype and dims that the language gives the expression."""
    from rvgpu.frontend.build import lower, parse_text

    args = ", ".join(f"{n}: {t}" for n, t in params.items() if "[" in t)
    scalars = ", ".join(f"{n}: {t}" for n, t in params.items() if "[" not in t)
    body = f"def f({args}{', *, ' + scalars if scalars else ''}) -> RESULT:\n    y = {expression}\n    return y\n"
    for dtype in DType.__members__:  # the declared result does not matter: look at the value before the last cast
        try:
            func = lower(parse_text(body.replace("RESULT", f"{dtype}[Z]"))["f"])
        except Exception as e:
            message = e.message
            dims = message.partition("the value has [")[2].rstrip("]")
            break
    dims = [d.strip() for d in dims.split(",") if d.strip()]
    func = lower(parse_text(body.replace("RESULT", f"f64{'[' + ', '.join(dims) + ']' if dims else ''}"))["f"])
    value = func.results[0]
    if value.op is not None and value.op.name == "cast" and value.tensor.dtype == DType.f64:
        value = value.op.operands[0]
    return value.tensor.dtype.name, ",".join(map(str, value.tensor.dims))


COMPUTING = {"f32": "f32", "f16": "f32", "bf16": "f32", "e4m3": "f32", "e5m2": "f32", "i32": "i32", "i16": "i32", "i8": "i32", "u8": "i32",
             "i4": "i32"}


@pytest.mark.parametrize("a", COMPUTING)
@pytest.mark.parametrize("b", COMPUTING)
def test_dtype_of_two(a, b):
    """Rule 5: small floats meet in f32, small integers in i32, an integer and a float in f32; `/` is f32; maximum keeps a common dtype."""
    wide = {COMPUTING[a], COMPUTING[b]}
    want = next(iter(wide)) if len(wide) == 1 else "f32"
    for op in "+ - *".split():
        assert result(f"x {op} y", x=f"{a}[M]", y=f"{b}[M]") == (want, "M")
    assert result("x / y", x=f"{a}[M]", y=f"{b}[M]") == ("f32", "M")
    assert result("x < y", x=f"{a}[M]", y=f"{b}[M]") == ("i1", "M")
    kept = a if a == b else want
    assert result("maximum(x, y)", x=f"{a}[M]", y=f"{b}[M]") == (kept, "M")
    assert result("where(x < y, x, y)", x=f"{a}[M]", y=f"{b}[M]") == (kept, "M")


@pytest.mark.parametrize("a", COMPUTING)
def test_dtype_of_one(a):
    c = COMPUTING[a]
    for text, want in {"-x": c, "abs(x)": c, "relu(x)": c, "exp(x)": "f32", "silu(x)": "f32", "floor(x)": "f32", "x + 1": c, "x * 1.5": "f32",
                       "x ** 2": c,
                       "x ** -1": "f32", "clamp(x, 0, 1)": c, "2 - x": c, "x // 2": c, "x % 2": c}.items():
        assert result(text, x=f"{a}[M]") == (want, "M"), text
    for text, want in {"sum(x, over=M)": c, "amax(x, over=M)": a, "mean(x, over=M)": "f32", "var(x, over=M)": "f32",
                       "logsumexp(x, over=M)": "f32"}.items():
        assert result(text, x=f"{a}[M]") == (want, ""), text
    assert result("softmax(x, over=M)", x=f"{a}[M]") == ("f32", "M")
    for text in ("rename(x, M=N)", "concat(x, x, over=M)", "slice(x, M, 1, N)"):
        assert result(text, x=f"{a}[M]", y="f32[N]")[0] == a, text


@pytest.mark.parametrize("x,y,want", [
    ("M, N", "M, N", "M,N"), ("M, N", "N", "M,N"), ("N", "M, N", "M,N"), ("M", "N", "N,M"), ("M, N", "N, M", "M,N"), ("N, M", "M, N", "N,M"),
    ("M", "N, M", "N,M"), ("T", "S, T", "S,T"), ("B, T", "S, T", "S,B,T"), ("S", "B, T", "S,B,T"), ("B, S, T", "T, K", "K,B,S,T")])
def test_dims_of_two(x, y, want):
    """Rule 3, in every operand order: the dims of the operand with the most, preceded by dims that only others have."""
    params = {"x": f"f32[{x}]", "y": f"f32[{y}]"}
    assert result("x + y", **params)[1] == want
    assert result("x < y", **params)[1] == want
    assert result("maximum(x, y)", **params)[1] == want
    assert result("where(x < y, 1.0, 0.0)", **params)[1] == want


@pytest.mark.parametrize("text,want", [
    ("where(m, x, y)", "S,T"), ("where(m, y, x)", "S,T"), ("where(v > 0, x, 0)", "S,T"), ("where(v > 0, 0, w)", "S,T"), ("where(m, 0.0, 1.0)", "S,T"),
    ("where(m, w, v)", "S,T"), ("where(w > 0, v, x)", "S,T"), ("v + x", "S,T"), ("x + v", "S,T"), ("w + x", "S,T"), ("w * v", "T,S"), ("v * w",
    "S,T")])
def test_mask_and_bias_first(text, want):
    """The mask (x, y, m over S, T; v over T, w over S) or the bias may stand first."""
    dims = result(text.replace("m,", "(x > 0),").replace("(m", "((x > 0)"), x="f32[S, T]", y="f32[S, T]", v="f32[T]", w="f32[S]")[1]
    assert dims == want


@pytest.mark.parametrize("x,y,want", [("M, K", "K, N", "M,N"), ("M, K", "N, K", "M,N"), ("B, M, K", "K, N", "B,M,N"), ("B, G, R, S, D",
                                      "B, G, T, D", "B,G,R,S,T"),
                                      ("M, K", "M, K", "M"), ("K", "K, N", "N"), ("M, K", "K", "M")])
def test_dims_of_contractions(x, y, want):
    assert result("x @ y", x=f"bf16[{x}]", y=f"bf16[{y}]") == ("f32", want)


@pytest.mark.parametrize("a,b,want", [("bf16", "bf16", "bf16 f32"), ("f16", "f32", "f16 f32"), ("f32", "bf16", "bf16 f32"), ("i8", "i8", "i8 i32"),
                                      ("u8", "u8", "u8 i32"), ("i8", "u8", "i32 i32"), ("i16", "i16", "i32 i32"), ("i32", "f32", "f32 f32"),
                                      ("e4m3", "e4m3", "e4m3 f32"), ("f64", "f32", "f64 f64")])
def test_dtype_of_contractions(a, b, want):
    from rvgpu.frontend.build import lower, parse_text

    func = lower(parse_text(f"def f(x: {a}[M, K], y: {b}[K, N]) -> f64[M, N]:\n    return x @ y\n")["f"])
    (op,) = [o for o in func.body.ops if o.name == "contract"]
    assert f"{op.operands[0].tensor.dtype} {op.result.tensor.dtype}" == want


# -- values on the machine

UNARY = ["-x", "abs(x)", "relu(x)", "exp(x)", "exp2(x)", "log(abs(x) + 0.5)", "log2(abs(x) + 0.5)", "sqrt(abs(x))", "rsqrt(abs(x) + 0.25)", "tanh(x)",
         "erf(x)", "sigmoid(x)", "silu(x)", "gelu(x)", "gelu(x, tanh=True)", "floor(x)", "round(x * 0.37)", "x ** 3", "x ** -2", "x ** 0",
         "clamp(x, -1, 2)",
         "x + 2", "3 - x", "x * 0.5", "1.5 / (x * x + 1)", "x // 3", "x % 3", "x // 0.7", "x % 0.7", "where(x > 0, x, 2 * x)",
         "where((x > 0) & (x < 2), 1, 0)",
         "where((x < 0) | ~(x != 2), x, 1)", "f32(x) + f32(bf16(x))", "x + iota(N)", "x * size(M)"]
BINARY = ["x + y", "x - y", "x * y", "x / (abs(y) + 1)", "maximum(x, y)", "minimum(x, y)", "where(x <= y, x, y)", "x // (abs(y) + 1)",
          "x % (abs(y) + 1)",
          "where(x == y, 1, 0)", "where(x >= y, 1.5, 0)"]
REDUCE = ["sum(x, over=N)", "amax(x, over=N)", "amin(x, over=N)", "mean(x, over=N)", "var(x, over=N)", "logsumexp(x, over=N)"]


def values(rng, dtype, shape):
    d = DType[dtype]
    if d.is_float:
        return (3 * rng.standard_normal(shape)).astype(np.float32).astype(numpy_dtype(d))
    low, high = {"u8": (0, 100), "i4": (-8, 8)}.get(dtype, (-100, 100))
    return rng.integers(low, high, shape).astype(numpy_dtype(d))


def checked(text, *shapes, compile=None, **scalars):
    rng = np.random.default_rng(3)
    k = kernel(text)
    arrays = [values(rng, p.value.tensor.dtype.name, [d.value(SIZES) for d in p.value.tensor.dims]) for p in k.func.params if not p.keyword]
    r = k.compile("base", **(compile or {})).run(*arrays, check=True, **scalars)
    assert r.stats["check"]["passed"], r.stats["check"]
    if compile:  # a call has no place to name dims that no argument binds
        return r
    with interpret():
        again = k(*arrays, **scalars)
    for x, y in zip(r.outputs.values(), again if isinstance(again, tuple) else (again,), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
    return r


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("text", UNARY)
def test_unary_values(text, dtype):
    checked(f"def f(x: {dtype}[M, N]) -> f32[M, N]:\n    return {text}\n")


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("text", BINARY)
def test_binary_values(text, dtype):
    checked(f"def f(x: {dtype}[M, N], y: {dtype}[M, N]) -> f32[M, N]:\n    return {text}\n")


@pytest.mark.parametrize("x,y,out", [("M, N", "N", "M, N"), ("N", "M, N", "M, N"), ("M", "N", "M, N"), ("M, N", "N, M", "N, M"), ("K, M, N", "M",
                                     "K, M, N")])
def test_broadcast_values(x, y, out):
    checked(f"def f(x: f32[{x}], y: bf16[{y}]) -> f32[{out}]:\n    return x * 2 + y\n")


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("text", REDUCE)
def test_reduced_values(text, dtype):
    checked(f"def f(x: {dtype}[M, N]) -> f32[M]:\n    return {text}\n")
    checked(f"def f(x: {dtype}[N, M]) -> f32[M]:\n    return {text}\n")


@pytest.mark.parametrize("text", ["f32(x)", "f16(x)", "bf16(x)", "i32(x)", "i8(x)", "u8(x)", "i16(x)", "i4(x)", "e4m3(x)", "e5m2(x)"])
@pytest.mark.parametrize("dtype", ALL)
def test_casts(text, dtype):
    out = text.partition("(")[0]
    checked(f"def f(x: {dtype}[M, N]) -> {out}[M, N]:\n    return {text}\n")


@pytest.mark.parametrize("body", [
    "rename(x, N=K) + rename(x, N=K)", "softmax(x, over=N) + 1"])
def test_structure_values(body):
    out = "K" if "K" in body else "N"
    checked(f"def f(x: f32[M, N]) -> f32[M, {out}]:\n    return {body}\n", compile={"K": N} if out == "K" else None)


def test_split_and_concat_values():
    checked("def f(x: bf16[M, 2 * F]) -> bf16[M, 2 * F]:\n    a, b = split(x, F)\n    return concat(b * 2, a, over=F)\n")
    checked("def f(x: f32[M, F + K]) -> (f32[M, F], f32[M, K]):\n    a, b = split(x, F, K)\n    return a * 2, b + 1\n", compile={"F": 12})
    checked("def f(x: f32[M, N]) -> f32[M, F]:\n    return slice(x, N, 3, F)\n", compile={"F": 12})


def test_several_results_and_scalars():
    checked("def f(x: f32[M, N], *, s: f32 = 2, n: i32 = 3) -> (f32[M], f32[M, N]):\n    return sum(x * s, over=N), x + n\n", s=1.5)


def test_dims_are_forms():
    assert Dim.of("F") * 2 + Dim((), 1) == Dim((("F", 2),), 1)
