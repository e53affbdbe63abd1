"""Loops of products: what of them changes from step to step, and in which order their operands are loaded."""

from __future__ import annotations

from rvgpu.ir.core import Block, Op, Value


def products_of(body: Block) -> list[Op]:
    return [op for op in body.ops if op.name == "mma"]


def varying(body: Block) -> set[Value]:
    """The values of a loop's body that change with its steps, as far as index arithmetic tells."""
    out = set(body.args)
    for op in body.ops:
        if not op.name.startswith("idx.") or out & set(op.operands):
            out |= set(op.results)
    return out


def scheduled(body: Block) -> Block:
    """A loop of nothing but loads and products that share operands, with the loads in order of the products that read them last: an operand's
    registers are free when that product of the step before has started, and a warp issues in order."""
    products = products_of(body)
    if not products or any(op.name not in ("mem.at", "opnd.load", "mma", "yield") and not op.name.startswith("idx.") for op in body.ops):
        return body
    readers = {v: n for n, op in enumerate(products) for v in op.operands[1:3]}
    if len(readers) == 2 * len(products):
        return body
    loads = sorted((op for op in body.ops if op.name == "opnd.load"), key=lambda op: readers.get(op.result, len(products)))
    ops: list[Op] = []
    own = {r: op for op in body.ops for r in op.results}

    def place(op: Op) -> None:
        if op not in ops:
            for v in op.operands:
                if v in own:
                    place(own[v])
            ops.append(op)

    for op in [*loads, *body.ops]:
        place(op)
    return Block(body.args, ops)
