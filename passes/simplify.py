"""P3: equal operations become one (two are when name, attributes, types and operands are; all level T ops are pure), and one identity:

    x / l = x (1 / l)    where l is a sum of exp(y - max y) over the dims of the maximum, and x has dims that l lacks

A division by one number for a whole row costs a vector unit several multiplications. It changes rounding by an ulp of f32, beside the ulps of
the sum l in the error bound; l is 0 (nothing but -inf) or from 1 to the number of its summands, so 1 / l is neither 0 nor subnormal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rvgpu.ir.core import Block, Builder, Func, Op, Value
from rvgpu.ir.types import DType, TensorType
from rvgpu.passes.cascade import bottom_stripped
from rvgpu.passes.context import Context


@dataclass(frozen=True)
class Simplify:
    """Common subexpressions; what nothing uses any more is dropped."""

    name = "simplify"
    level = "tensor"

    def run(self, func: Func, context: Context) -> list[Func]:
        return [simplified(func)]


def simplified(func: Func) -> Func:
    """The function without repeated and unused operations; those of `func` are changed in place."""
    same: dict[Any, Op] = {}
    replaced: dict[Value, Value] = {}
    ops = []
    for op in _reciprocals(func.body.ops):
        op.operands = [replaced.get(x, x) for x in op.operands]
        key = (op.name, tuple(map(id, op.operands)), tuple(sorted((k, repr(v)) for k, v in op.attrs.items())), tuple(r.type for r in op.results))
        first = same.setdefault(key, op)
        if first is op:
            ops.append(op)
        else:
            replaced.update(zip(op.results, first.results, strict=True))
    results = [replaced.get(r, r) for r in func.results]
    used = set(results)
    kept = []
    for op in reversed(ops):
        if any(r in used for r in op.results):
            kept.append(op)
            used |= set(op.operands)
    return Func(func.name, func.params, Block(func.body.args, kept[::-1]), results, func.result_types, func.loc, func.result_names)


def _reciprocals(ops: list[Op]) -> list[Op]:
    """The identity above, from left to right."""
    block = Block()
    b = Builder(block)
    for op in ops:
        if op.name == "div" and op.result.tensor.dtype is DType.f32 and _sum_of_weights(op.operands[1]) \
                and set(op.operands[0].tensor.dims) > set(op.operands[1].tensor.dims):
            b.loc = op.loc
            total = op.operands[1]
            one = b.one("const", [], TensorType((), DType.f32), value=1.0)
            op.name, op.operands = "mul", [op.operands[0], b.one("div", [one, total], total.tensor)]
        block.ops.append(op)
    return block.ops


def _sum_of_weights(v: Value) -> bool:
    """v = sum of exp(y - max y) over the same dims: one summand is 1."""
    if v.op is None or v.op.name != "reduce" or v.op.attrs["op"] != "sum":
        return False
    e = v.op.operands[0].op
    if e is None or e.name != "exp" or e.operands[0].op is None or e.operands[0].op.name != "sub":
        return False
    y, d = e.operands[0].op.operands
    top = bottom_stripped(d).op
    return top is not None and top.name == "reduce" and top.attrs["op"] == "max" and top.operands[0] is y and top.attrs["dims"] == v.op.attrs["dims"]
