"""The verifier of level T: random functions and streams pass, each way to break one is named."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.ir.dims import Dim
from rvgpu.ir.evaluate import evaluate
from rvgpu.ir.generate import NAMES, random_func, random_inputs
from rvgpu.ir.tidy import tidy
from rvgpu.ir.types import DType, TensorType
from rvgpu.ir.verify import VerifyError, verify
from tests import level_t, streams
from tests.level_t import T, dims


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_generated_functions_verify_and_tidy_keeps_their_meaning(r):
    func = random_func(r, 8)
    verify(func)
    sizes = {n: r.randint(1, 5) for n in NAMES}
    inputs = random_inputs(r, func, sizes)
    before = evaluate(func, inputs, dims=sizes)
    count = len(func.body.ops)
    verify(tidy(func))
    assert len(func.body.ops) <= count
    for x, y in zip(before, evaluate(func, inputs, dims=sizes), strict=True):
        assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("func", [streams.softmax(), streams.attention(lse=True), streams.gemm(bias=True), level_t.attention()])
def test_hand_written_functions_verify(func):
    verify(func)


def small():
    t = T()
    x = t.arg("x", "M N")
    y = t.reduce(t.exp(x), op="sum", dims=dims("N"), order="any")
    return t.func(y), t


def test_use_before_definition():
    func, _ = small()
    func.body.ops.reverse()
    with pytest.raises(VerifyError, match="used before its definition"):
        verify(func)


def test_defined_twice():
    func, _ = small()
    func.body.ops.append(func.body.ops[0])
    with pytest.raises(VerifyError, match="defined twice"):
        verify(func)


def test_wrong_result_type_names_the_op():
    func, _ = small()
    func.body.ops[1].result.type = TensorType(dims("N"), DType.f32)
    with pytest.raises(VerifyError, match=r'the result is tensor<\[M\] x f32>.*found tensor<\[N\] x f32>\n  .*reduce\('):
        verify(func)


def test_order_of_dims_means_nothing_inside():
    func, _ = small()
    func.body.ops[0].result.type = TensorType(dims("N M"), DType.f32)
    verify(func)


def test_implicit_cast():
    t = T()
    x, y = t.arg("x", "M"), t.arg("y", "M", DType.bf16)
    v = t.b.one("add", [x, y], x.tensor)
    with pytest.raises(VerifyError, match="operands of one dtype needed, found f32 and bf16"):
        verify(t.func(v))


def test_missing_order():
    func, _ = small()
    del func.body.ops[1].attrs["order"]
    with pytest.raises(VerifyError, match="order is any, seq or split"):
        verify(func)


def test_wrong_declared_result():
    func, _ = small()
    func.result_types[0] = TensorType(dims("M"), DType.bf16)
    with pytest.raises(VerifyError, match="does not have the declared"):
        verify(func)


def broken_stream(change):
    func = streams.attention(lse=True)
    change(func.body.ops[0])
    return func


def swap_states(op):
    op.attrs["anchor_of"] = ((0,), (), (0,))


def other_dims(op):
    op.regions[2].ops[-1].operands = [op.regions[2].args[1]]


def short_rebase(op):
    op.regions[5].ops[-1].operands.pop()


def wrong_argument(op):
    op.regions[2].args[0].type = TensorType(dims("B"), DType.f32)


def drop_region(op):
    op.regions.pop()


def bad_kind(op):
    op.attrs["kinds"] = ("max", "sum", "product")


def no_yield(op):
    op.regions[1].ops.pop()


def contraction_in_bf16(op):
    for block in (op.regions[4], op.regions[5], op.regions[6]):
        block.args[2].type = TensorType(block.args[2].tensor.dims, DType.i32)


@pytest.mark.parametrize("change,message", [
    (swap_states, "state 0 uses anchor 0, which is not there before it"),
    (other_dims, "yields one value over T and its dims, or two to contract"),
    (short_rebase, "region rebase yields"),
    (wrong_argument, "region body 1 takes"),
    (drop_region, "3 states need 7 regions"),
    (bad_kind, "state 2 is a sum, max or min, found 'product'"),
    (no_yield, "region body 0 does not end in yield"),
    (contraction_in_bf16, "or two to contract"),
])
def test_streams(change, message):
    with pytest.raises(VerifyError) as e:
        verify(broken_stream(change))
    assert message in str(e.value)


def test_tidy_moves_atoms_into_their_stream():
    """An op that stands in the block and in the atoms region is kept in the region; what reads it outside gets a copy."""
    func = streams.attention(DType.f32)
    stream = func.body.ops[0]
    atoms = stream.regions[0]
    for arg, value in zip(atoms.args, stream.operands, strict=True):  # open form: regions see the values around them
        for op in atoms.ops:
            op.operands = [value if v is arg else v for v in op.operands]
    yielded = atoms.ops[-1].operands
    for body in stream.regions[1:4]:
        for op in body.ops:
            op.operands = [yielded[body.args.index(v)] if v in body.args[:len(yielded)] else v for v in op.operands]
        del body.args[:len(yielded)]
    stream.operands, atoms.args, atoms.ops[-1].operands = [], [], []
    verify(func)
    outer = atoms.ops[:-1]
    func.body.ops[0:0] = outer  # as P4 leaves it: in both places
    atoms.ops = [op for op in outer if op.name == "contract"] + atoms.ops[-1:]
    with pytest.raises(VerifyError, match="defined twice"):
        verify(func)
    verify(tidy(func))
    assert func.body.ops[-1] is stream and all(op.name != "contract" for op in func.body.ops)
    assert any(op.name == "contract" for op in atoms.ops)
    assert Dim.of("T") in stream.regions[1].yielded[0].tensor.dims
