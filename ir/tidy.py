"""Tidies a level T function in place: dead ops go, and what only a stream reads of its atoms moves into it.

A pass may leave an op both in the function's block and in a stream's atoms region (the same object). Afterwards every
op stands once, so the function verifies and its text parses back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rvgpu.ir.core import Block, Func, Op, Value


def tidy(func: Func) -> Func:
    for n, op in enumerate(list(func.body.ops)):
        if op.name == "stream":
            _gather(func, op, n)
    drop_dead(func.body, func.results)
    return func


def _uses(ops: Iterable[Op]) -> set[Value]:
    """Everything the ops read, regions included."""
    return {v for op in ops for o in (op, *(i for r in op.regions for i in r.walk())) for v in o.operands}


def _gather(func: Func, stream: Op, n: int) -> None:
    """Ops of the block that depend on the stream's atoms: into the atoms region; a copy stays for readers outside."""
    atoms = stream.regions[0]
    inside = set(atoms.ops[:-1])
    made = {r for op in inside for r in op.results}
    moving: list[Op] = []
    for op in func.body.ops:
        if op in inside or op is not stream and any(v in made for v in op.operands):
            moving.append(op)
            made.update(op.results)
    read_inside = _closure(moving, _uses([stream]) | _uses(atoms.ops))
    moving = [op for op in moving if op in inside or any(r in read_inside for r in op.results)]
    if not moving:
        return
    alone = [op for op in atoms.ops[:-1] if op not in moving]  # stands in the region only
    keep = {op for op in moving}
    rest = [op for op in func.body.ops if op not in keep]
    outside = _closure(moving, _uses(op for op in rest if op is not stream) | set(func.results))
    copies: dict[Value, Value] = {}
    out: list[Op] = []
    for op in func.body.ops:
        if op not in keep:
            out.append(op)
        elif any(r in outside for r in op.results):
            out.append(_copy(op, copies))
    func.body.ops = out
    for op in rest:
        if op is not stream:
            _replace(op, copies)
    func.results = [copies.get(v, v) for v in func.results]
    atoms.ops = _ordered([*alone, *moving]) + atoms.ops[-1:]


def _closure(ops: Sequence[Op], wanted: set[Value]) -> set[Value]:
    """`wanted` and what the ops need to make it."""
    out = set(wanted)
    for op in reversed(ops):
        if any(r in out for r in op.results):
            out.update(op.operands)
    return out


def _ordered(ops: Sequence[Op]) -> list[Op]:
    """Definitions before uses, otherwise as given."""
    own = {r: op for op in ops for r in op.results}
    out: dict[Op, None] = {}

    def visit(op: Op) -> None:
        for v in op.operands:
            if v in own and own[v] not in out and own[v] is not op:
                visit(own[v])
        out.setdefault(op)

    for op in ops:
        visit(op)
    return list(out)


def _copy(op: Op, copies: dict[Value, Value]) -> Op:
    new = Op(op.name, [copies.get(v, v) for v in op.operands], attrs=dict(op.attrs), loc=op.loc)
    new.results = [Value(r.type, new, r.index, r.hint) for r in op.results]
    copies.update(zip(op.results, new.results, strict=True))
    return new


def _replace(op: Op, by: dict[Value, Value]) -> None:
    op.operands = [by.get(v, v) for v in op.operands]
    for region in op.regions:
        for o in region.walk():
            o.operands = [by.get(v, v) for v in o.operands]


def drop_dead(block: Block, results: Iterable[Value] = ()) -> None:
    """Removes ops whose results nothing reads (level T has no effects), in regions too."""
    needed = set(results)
    keep: list[Op] = []
    for op in reversed(block.ops):
        if op.name != "yield" and not any(r in needed for r in op.results):
            continue
        keep.append(op)
        for n, region in enumerate(op.regions):
            later = _uses(o for r in op.regions[n + 1:] for o in r.ops)
            drop_dead(region, later)  # bodies read the atoms region
        needed |= _uses([op])
    block.ops = keep[::-1]
