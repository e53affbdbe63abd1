"""P3: equal operations become one. Two ops are equal when name, attributes, types and operands are; all level T ops are pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rvgpu.ir.core import Block, Func, Op, Value
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
    for op in func.body.ops:
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
