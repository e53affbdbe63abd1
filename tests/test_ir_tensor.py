"""Level T: what is legal, what ops mean at the edges (NaN, masks, no elements), streams in any cut and merge tree."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.errors import RvgpuError
from rvgpu.ir.dims import Dim
from rvgpu.ir.error_rules import RULES
from rvgpu.ir.evaluate import evaluate
from rvgpu.ir.numeric import PRECISION, half_ulp, numpy_dtype, round_to
from rvgpu.ir.shapes import IllFormed, broadcast_dims, contract_dims
from rvgpu.ir.tensor_ops import OPS, infer
from rvgpu.ir.types import DType, TensorType
from tests import streams
from tests.level_t import T, dims

F32 = np.float32
N = dims("N")


def one(build, *arrays, dtype=None, mode="declared", sizes=None, types="N"):
    t = T()
    xs = [t.arg(f"x{n}", types, dtype or DType.f32) for n in range(len(arrays))]
    return evaluate(t.func(build(t, *xs)), list(arrays), mode=mode, dims=sizes)[0]


def test_every_op_has_an_error_rule():
    assert set(RULES) == set(OPS)


@pytest.mark.parametrize("given_dims,want", [(["K", "M K"], "M K"), (["T", "S"], "S T"), (["M N", "N M"], "M N"), (["", "M"], "M"),
                                             (["A", "B C", "D C"], "A D B C"), ([], "")])
def test_broadcast_dims(given_dims, want):
    assert broadcast_dims([dims(d) for d in given_dims]) == dims(want)


def test_contract_dims():
    assert contract_dims(dims("B G R S D"), dims("B G T D"), dims("D")) == dims("B G R S T")
    with pytest.raises(IllFormed, match="contracts K, but the right operand has dims"):
        contract_dims(dims("M K"), dims("J N"), dims("K"))


@pytest.mark.parametrize("name,types,attrs,message", [
    ("add", ["M x f32", "M x bf16"], {}, "operands of one dtype needed, found f32 and bf16"),
    ("add", ["M x bf16", "M x bf16"], {}, "cast first"),
    ("exp", ["M x i32"], {}, "dtype i32 is not one of f64, f32"),
    ("select", ["M x f32", "M x f32", "M x f32"], {}, "the condition is i1"),
    ("reduce", ["M x f32"], {"op": "sum", "dims": dims("N"), "order": "any"}, "no dim N in"),
    ("reduce", ["M x f32"], {"op": "sum", "dims": dims("M")}, "order is any, seq or split"),
    ("reduce", ["M x f32"], {"op": "sum", "dims": dims("M"), "order": "split(0)"}, "order is any, seq or split"),
    ("contract", ["M x f32", "M x f32"], {"dims": dims("M")}, "attribute `order` is missing"),
    ("rename", ["M N x f32"], {"from": dims("M")[0], "to": N[0]}, "a dim occurs twice"),
    ("concat", ["M x f32", "M x f32"], {"dim": dims("M")[0], "new": N[0]}, "2 operands joined over M give 2*M, not N"),
    ("neg", [], {}, "neg takes 1 operands, found 0"),
    ("frob", ["M x f32"], {}, "no level T op is called frob"),
    ("neg", ["M x f32"], {"axis": 1}, "no attribute `axis` here"),
])
def test_what_is_refused(name, types, attrs, message):
    parsed = [TensorType(dims(d.rpartition(" x ")[0]), DType[d.rpartition(" x ")[2]]) for d in types]
    with pytest.raises(IllFormed) as e:
        infer(name, parsed, attrs)
    assert message in str(e.value)


# -- meaning

def test_nan_rules():
    """softmax and sum propagate NaN; amax, maximum, relu and clamp ignore it; argmax takes the lowest index of equals."""
    x = np.array([1, np.nan, 3, 3], F32)
    assert np.isnan(one(lambda t, x: t.softmax(x, dims=N), x)).all()
    assert np.isnan(one(lambda t, x: t.reduce(x, op="sum", dims=N, order="any"), x))
    assert one(lambda t, x: t.reduce(x, op="max", dims=N), x) == 3
    assert one(lambda t, x: t.reduce(x, op="argmax", dims=N), x) == 2
    assert one(lambda t, x: t.max(x, t.const(2.0)), x).tolist() == [2, 2, 3, 3]
    assert one(lambda t, x: t.relu(x), -x).tolist() == [0, 0, 0, 0]
    assert one(lambda t, x: t.clamp(x, t.const(0.0), t.const(2.0)), x).tolist() == [1, 0, 2, 2]


def test_no_elements():
    x = np.zeros(0, F32)
    assert one(lambda t, x: t.reduce(x, op="sum", dims=N, order="any"), x) == 0
    assert one(lambda t, x: t.reduce(x, op="max", dims=N), x) == -np.inf
    assert one(lambda t, x: t.reduce(x, op="min", dims=N), x) == np.inf
    assert np.isnan(one(lambda t, x: t.mean(x, dims=N), x))
    assert one(lambda t, x: t.logsumexp(x, dims=N), x) == -np.inf
    assert one(lambda t, x, y: t.contract(x, y, dims=N, order="any"), x, x) == 0
    with pytest.raises(RvgpuError, match="E422"):
        one(lambda t, x: t.reduce(x, op="argmax", dims=N), x)


@pytest.mark.parametrize("mode", ["declared", "float64"])
def test_fully_masked_softmax_is_zero(mode):
    x = np.full((2, 3), -np.inf, F32)
    x[1, 1] = 5
    out = one(lambda t, x: t.softmax(x, dims=N), x, mode=mode, types="M N")
    assert out.tolist() == [[0, 0, 0], [0, 1, 0]]
    lse = one(lambda t, x: t.logsumexp(x, dims=N), x, mode=mode, types="M N")
    assert lse.tolist() == [-np.inf, 5]


def test_macros_against_their_formulas():
    x = np.linspace(-6, 6, 41).astype(F32)
    phi = np.array([math.erf(v / math.sqrt(2)) for v in x])
    close = dict(rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(one(lambda t, x: t.gelu(x), x), 0.5 * x * (1 + phi), **close)
    inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.astype(float) ** 3))
    np.testing.assert_allclose(one(lambda t, x: t.gelu(x, tanh=True), x), 0.5 * x * (1 + inner), **close)
    np.testing.assert_allclose(one(lambda t, x: t.silu(x), x), x / (1 + np.exp(-x.astype(float))), **close)
    np.testing.assert_allclose(one(lambda t, x: t.var(x, dims=N), x), np.var(x.astype(float)), **close)
    assert one(lambda t, x: t.silu(x), np.array([-np.inf, -200, np.inf], F32)).tolist() == [0, 0, np.inf]


def test_integer_division_is_python_s():
    x, y = np.array([7, -7, 7, -7, 5], np.int32), np.array([2, 2, -2, -2, 0], np.int32)
    assert one(lambda t, x, y: t.div(x, y), x, y, dtype=DType.i32).tolist() == [3, -4, -4, 3, -1]
    assert one(lambda t, x, y: t.mod(x, y), x, y, dtype=DType.i32).tolist() == [1, 1, -1, -1, 5]


def test_structure():
    x = np.arange(12, dtype=F32).reshape(3, 4)
    t = T()
    a = t.arg("a", "M N")
    twice = t.concat(a, t.neg(a), dim=N[0], new=N[0] * 2)
    back = t.slice(twice, dim=N[0] * 2, start=N[0], new=N[0])
    padded = t.pad(a, t.const(9.0), dim=N[0], before=1, new=N[0] + 2)
    renamed = t.rename(a, **{"from": N[0], "to": Dim.of("P")})
    func = t.func(back, padded, renamed)
    func.result_types[2] = TensorType(dims("P M"), DType.f32)  # results may be stored in another order
    got = evaluate(func, [x])
    assert (got[0] == -x).all() and (got[1] == np.pad(x, ((0, 0), (1, 1)), constant_values=9)).all() and (got[2] == x.T).all()


def test_take_gathers_and_aligns_shared_dims():
    t = T()
    table, ids = t.arg("table", "V D"), t.arg("ids", "S", DType.i32)
    logits, label = t.arg("logits", "S V"), t.arg("label", "S", DType.i32)
    func = t.func(t.take(table, ids, dim=Dim.of("V")), t.take(logits, label, dim=Dim.of("V")))
    rng = np.random.default_rng(0)
    e, i, z = rng.standard_normal((5, 3)).astype(F32), np.array([4, 0, 2], np.int32), rng.standard_normal((3, 5)).astype(F32)
    got = evaluate(func, [e, i, z, i])
    assert (got[0] == e[i]).all() and (got[1] == z[np.arange(3), i]).all()
    with pytest.raises(RvgpuError, match="E421.*id 7 is outside V = 5"):
        evaluate(func, [e, i + np.array([0, 7, 0], np.int32), z, i])


def test_binding():
    t = T()
    x = t.arg("x", "B")
    x.type = TensorType((Dim.of("F") * 2,), DType.f32)
    func = t.func(t.neg(x))
    assert evaluate(func, [np.ones(6, F32)])[0].shape == (6,)
    with pytest.raises(RvgpuError, match=r"x has 2\*F = 5, which no F gives"):
        evaluate(func, [np.ones(5, F32)])


# -- rounding

@pytest.mark.parametrize("dtype", [DType.f16, DType.bf16, DType.e4m3, DType.e5m2, DType.f32])
def test_rounding_is_to_nearest_even_from_float64(dtype):
    """Against the two neighbours: never further than half an ulp, and half an ulp is what numeric.half_ulp says."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal(4000) * 2.0 ** rng.integers(-20, 8, 4000)
    got = round_to(x, dtype).astype(np.float64)
    if dtype is DType.e4m3:
        x = np.clip(x, -448, 448)
    assert (np.abs(got - x) <= half_ulp(np.abs(x), dtype) * (1 + 1e-12)).all()
    ties = np.array([1 + 2.0 ** -PRECISION[dtype], 1 + 3 * 2.0 ** -PRECISION[dtype]])  # the even neighbour
    just_above = ties + 2.0**-45
    assert round_to(ties, dtype).tolist() == [1, 1 + 4 * 2.0 ** -PRECISION[dtype]]
    assert (round_to(just_above, dtype).astype(float) > ties).all()  # not rounded twice


def test_conversions():
    x = np.array([500.0, -1e9, np.nan, np.inf])
    assert round_to(x, DType.e4m3).astype(float).tolist()[:2] == [448, -448]
    assert round_to(np.array([1e5, 65519.0, 65520.0]), DType.f16).tolist() == [np.inf, 65504, np.inf]
    assert round_to(np.array([2.9, -2.9, 3e9, np.nan, -np.inf]), DType.i32).tolist() == [2, -2, 2**31 - 1, 2**31 - 1, -(2**31)]
    assert round_to(np.array([300, -200], np.int32), DType.i8).tolist() == [44, 56]
    assert round_to(np.array([9, -9], np.int32), DType.i4).astype(int).tolist() == [-7, 7]
    assert numpy_dtype(DType.i4).itemsize == 1


# -- streams

def cut_of(r: random.Random, n: int, depth: int = 0):
    """A random cut of n, with parts of their own."""
    out = []
    while n:
        c = r.randint(1, n)
        n -= c
        out.append(cut_of(r, c, depth + 1) if depth < 3 and r.random() < 0.4 else c)
    return out


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_streams_do_not_depend_on_the_cut(r):
    sizes = {"B": 1, "G": r.randint(1, 2), "R": 2, "S": r.randint(1, 6), "T": r.randint(1, 12), "D": 4}
    rng = np.random.default_rng(r.getrandbits(32))
    inputs = [rng.standard_normal([sizes[n] for n in names]) * 3 for names in ("BGRSD", "BGTD", "BGTD")]
    func = streams.attention(DType.f32, lse=True)  # S > T leaves rows with every key masked
    whole = evaluate(func, inputs, {"scale": 0.5}, mode="float64")
    for _ in range(3):
        parts = evaluate(func, inputs, {"scale": 0.5}, mode="float64", cuts=cut_of(r, sizes["T"]))
        for x, y in zip(whole, parts, strict=True):
            np.testing.assert_allclose(y, x, rtol=1e-12, atol=1e-13)


def test_stream_of_nothing():
    got = evaluate(streams.gemm(DType.f32, DType.f32), [np.zeros((2, 0)), np.zeros((0, 3))])
    assert (got[0] == np.zeros((2, 3))).all()
