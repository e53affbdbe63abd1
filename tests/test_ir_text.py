"""The text form of both levels: what prints parses back, and faults are at their place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.errors import Loc, RvgpuError
from rvgpu.ir.core import Block, Builder, Func, Op, Param, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.evaluate import evaluate
from rvgpu.ir.generate import NAMES, random_func, random_inputs
from rvgpu.ir.parse import parse, parse_func, parse_kernel
from rvgpu.ir.text import attr_text, print_func, print_funcs, same
from rvgpu.ir.tile_build import KFunc, KTensor
from rvgpu.ir.types import AccType, DType, IdxType, MemType, OpndType, ScalarType, TensorType, TokType, VecType
from tests import streams

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
forms = st.builds(Dim.make, st.dictionaries(names, st.integers(-9, 9), max_size=3), st.integers(-9, 9))
dtypes = st.sampled_from(DType)
types = st.one_of(
    st.builds(TensorType, st.lists(forms, max_size=3).map(tuple), dtypes), st.just(IdxType()), st.builds(ScalarType, dtypes),
    st.builds(VecType, st.integers(1, 512), dtypes), st.builds(MemType, st.sampled_from(["dram", "spm"]), st.integers(0, 5), dtypes),
    st.builds(AccType, dtypes), st.builds(OpndType, st.integers(1, 16), dtypes), st.just(TokType()))
plain = st.one_of(st.text(max_size=8), st.integers(), st.floats(), st.booleans(), forms, dtypes)
attrs = st.dictionaries(names, st.recursive(plain, lambda x: st.lists(x, max_size=3).map(tuple), max_leaves=5), max_size=3)
locs = st.none() | st.builds(Loc, st.sampled_from(["a.rvg", "dir/b \"c\".py"]), st.integers(1, 99), st.integers(1, 99),
                             st.integers(1, 9))
op_names = st.sampled_from(["neg", "idx.add", "vt.load", "for", "return_", "inf", "func"])


@st.composite
def blocks(draw, visible=(), depth=0):
    """Any ops at all: the text form does not ask what is legal."""
    visible = list(visible)
    block = Block([Value(draw(types), hint=draw(names | st.just(""))) for _ in range(draw(st.integers(0, 2)))] if depth else [])
    visible += block.args
    for _ in range(draw(st.integers(0, 3))):
        op = Op(draw(op_names), [draw(st.sampled_from(visible)) for _ in range(draw(st.integers(0, 2)))] if visible else [],
                attrs=draw(attrs), loc=draw(locs))
        for _ in range(draw(st.integers(0, 2)) if depth < 2 else 0):
            op.regions.append(draw(blocks(visible, depth + 1)))
        op.results = [Value(draw(types), op, n, draw(names | st.just(""))) for n in range(draw(st.integers(0, 2)))]
        visible += op.results
        block.ops.append(op)
    return block


@st.composite
def funcs(draw):
    params = []
    for name in draw(st.lists(names, max_size=3, unique=True)):
        keyword = draw(st.booleans())
        value = Value(TensorType(() if keyword else tuple(draw(st.lists(forms, max_size=2))), draw(dtypes)), hint=name)
        params.append(Param(name, value, keyword, draw(st.none() | st.floats() | st.integers()) if keyword else None, draw(locs)))
    block = draw(blocks([p.value for p in params]))
    known = [p.value for p in params] + [r for op in block.ops for r in op.results]
    results = draw(st.lists(st.sampled_from(known), max_size=2)) if known else []
    result_types = [TensorType(tuple(draw(st.lists(forms, max_size=2))), draw(dtypes)) for _ in results]
    labels = [f"out{n}" for n in range(len(results))] if draw(st.booleans()) else []
    return Func(draw(names), params, block, results, result_types, draw(locs), labels)


@st.composite
def kernels(draw):
    tensors = [KTensor(draw(names), draw(dtypes), tuple(draw(st.lists(forms, max_size=2))), draw(st.booleans()))
               for _ in range(draw(st.integers(0, 2)))]
    scalars = [(draw(names), draw(dtypes)) for _ in range(draw(st.integers(0, 2)))]
    return KFunc(draw(names), tensors, scalars, draw(st.lists(names, max_size=2)), draw(st.integers(1, 8)), draw(blocks()),
                 draw(st.integers(0, 9999)), 128, 16, draw(locs))


@settings(max_examples=40, deadline=None)
@given(st.lists(funcs() | kernels(), max_size=2))
def test_round_trip(fs):
    text = print_funcs(fs)
    back = parse(text)
    assert print_funcs(back) == text
    for f, g in zip(fs, back, strict=True):
        assert same(f, g)
        short = print_func(f, locs=False)
        assert print_func(parse(short)[0], locs=False) == short


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_parsed_functions_mean_the_same(r):
    func = random_func(r, 6)
    sizes = {n: r.randint(1, 5) for n in NAMES}
    inputs = random_inputs(r, func, sizes)
    again = parse_func(print_func(func))
    for x, y in zip(evaluate(func, inputs, dims=sizes), evaluate(again, inputs, dims=sizes), strict=True):
        assert x.dtype == y.dtype and x.tobytes() == y.tobytes()


def test_streams_parse_back():
    func = streams.attention(lse=True)
    again = parse_func(print_func(func))
    assert same(func, again)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(s) for s in ((1, 1, 2, 3, 4), (1, 1, 5, 4), (1, 1, 5, 4))]
    for x, y in zip(*(evaluate(f, inputs, {"scale": 0.5}, cuts=[2, 3]) for f in (func, again)), strict=True):
        assert (x == y).all()


def test_how_it_looks():
    b = Builder(Block())
    x = Param("x", Value(TensorType((Dim.of("M"), Dim.of("F") * 2), DType.bf16), hint="x"), loc=Loc("f.py", 2, 7, 16))
    eps = Param("eps", Value(TensorType((), DType.f32), hint="eps"), True, 1e-6)
    b.loc = Loc("f.py", 3, 9, 4)
    h = b.op("cast", [x.value], [TensorType((Dim.of("M"), Dim.of("F") * 2), DType.f32)], dtype=DType.f32)[0]
    h.hint = "h"
    y = b.one("reduce", [h], TensorType((Dim.of("M"),), DType.f32), op="sum", dims=(Dim.of("F") * 2,), order="any")
    b.loc = Loc("other.rvg", 1)
    z = b.one("add", [y, eps.value], y.tensor)
    func = Func("f", [x, eps], b.block, [z], [z.tensor], Loc("f.py", 1), ["out"])
    assert print_func(func) == """\
func @f(%x: tensor<[M,2*F] x bf16> @2:7+16, *%eps: tensor<[] x f32> = 1e-06) -> (out: tensor<[M] x f32>) file "f.py" @1:1 {
  %h = cast(%x) {dtype=f32} : tensor<[M,2*F] x f32> @3:9+4
  %0 = reduce(%h) {op="sum", dims=([2*F],), order="any"} : tensor<[M] x f32> @3:9+4
  %1 = add(%0, %eps) : tensor<[M] x f32> @"other.rvg":1:1
  return %1
}
"""
    back = parse_func(print_func(func))
    assert back.params[0].loc == Loc("f.py", 2, 7, 16) and back.body.ops[-1].loc == Loc("other.rvg", 1)


@pytest.mark.parametrize("value,text", [(True, "true"), (1, "1"), (1.0, "1.0"), (-np.inf, "-inf"), ("a\"b", '"a\\"b"'), ((), "()"),
                                        ((DType.bf16,), "(bf16,)"), (Dim.of("F") * 2 - 1, "[2*F-1]"), (Dim((), 3), "[3]")])
def test_attributes(value, text):
    assert attr_text(value) == text


HEAD = "func @f(%x: tensor<[M] x f32>) -> (tensor<[M] x f32>) {\n"


@pytest.mark.parametrize("text,line,col,code,message", [
    (HEAD + "  %y = neg(%z) : tensor<[M] x f32>\n  return %y\n}", 2, 12, "E402", "no value %z before its use"),
    (HEAD + "  %y = neg(%x) : tensor<[M] x f23>\n  return %y\n}", 2, 31, "E403", "did you mean f32?"),
    (HEAD + "  %x = neg(%x) : tensor<[M] x f32>\n  return %x\n}", 2, 3, "E404", "%x is defined twice"),
    (HEAD + "  %y = neg(%x)\n  return %y\n}", 3, 3, "E405", "neg has 1 results and 0 result types"),
    (HEAD + "  return\n}", 2, 3, "E405", "1 results are declared, 0 returned"),
    (HEAD + "  %y = neg %x\n", 2, 12, "E401", "`(` needed, found %x"),
    (HEAD + "  ?\n", 2, 3, "E401", "unexpected character '?'"),
    (HEAD, 2, 1, "E401", "an op needed, found the end of the text"),
    ("module", 1, 1, "E401", "`func` or `kernel` needed"),
    ("kernel @k() {wraps=4} {}", 1, 14, "E401", "known: warps, spm_bytes, vlen, te"),
])
def test_faults(text, line, col, code, message):
    with pytest.raises(RvgpuError) as e:
        parse(text, "a.ir")
    assert (e.value.loc.file, e.value.loc.line, e.value.loc.col, e.value.code) == ("a.ir", line, col, code)
    assert message in str(e.value)


def test_only_one():
    with pytest.raises(RvgpuError, match="one kernel needed"):
        parse_kernel(HEAD + "  return %x\n}")
