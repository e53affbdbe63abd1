"""Copies of ops in a kernel of their own (P4)."""

from __future__ import annotations

from rvgpu.ir.core import Attr, Block, Builder, Op, Value
from rvgpu.passes.cascade import bottom_stripped


class Copier:
    """Copies the ops that a value needs into a kernel, on demand."""

    def __init__(self, b: Builder, made: dict[Value, Value]) -> None:
        self.b, self.made = b, made

    def value(self, v: Value) -> Value:
        if v in self.made or v.op is None:
            return self.made.get(v, v)
        self.op(v.op)
        return self.made[v]

    def op(self, op: Op) -> Op:
        xs = [self.value(x) for x in op.operands]
        self.b.loc = op.loc
        attrs = dict(op.attrs)
        if op.name == "exp":
            attrs |= _anchored(op)
        out = self.b.op(op.name, xs, [r.type for r in op.results], **attrs)
        self.made.update(zip(op.results, out, strict=True))
        return self.b.block.ops[-1]


def _anchored(op: Op) -> dict[str, Attr]:
    """What exp(x - max(x)) says of itself: its argument is never above 0, and (floored) max(x) with 0 for -inf is not -inf."""
    v = op.operands[0]
    if v.op is None or v.op.name != "sub":
        return {}
    x, d = v.op.operands
    top = bottom_stripped(d)
    if top.op is None or top.op.name != "reduce" or top.op.attrs["op"] != "max" or top.op.operands[0] is not x:
        return {}
    return {"anchored": True} if top is d else {"anchored": True, "floored": True}


def used(block: Block, values: list[Value]) -> set[Value]:
    """Values that the results need, through ops and stream regions."""
    seen: set[Value] = set()
    todo = list(values)
    while todo:
        v = todo.pop()
        if v in seen:
            continue
        seen.add(v)
        if v.op is not None:
            todo += v.op.operands
            for r in v.op.regions:
                for o in r.walk():
                    todo += o.operands
    return seen
