"""P12: `grid.work` becomes a loop over the share of the work items of a CTA, and of a team of its warps (persistent CTAs: cta, cta + ctas, ...)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rvgpu.ir.core import Block, Op, Value
from rvgpu.ir.tile_build import K, KFunc
from rvgpu.passes.context import Context


@dataclass(frozen=True)
class Grid:
    """Work items keep their order; CTA c of n takes c, c + n, ... so neighbours in L2 run at the same time. Its teams take turns: team t of m
    has c + n t, c + n (t + m), ..."""

    name = "grid"
    level = "tile"

    def run(self, func: KFunc, context: Context) -> list[KFunc]:
        _expand(K(func), func.body)
        return [func]


def _expand(k: K, block: Block) -> None:
    out: list[Op] = []
    for op in block.ops:
        if op.name == "grid.work":
            out += _loop(k, op)
            continue
        if op.name == "for":  # goes through all work again
            _expand(k, op.regions[0])
        out.append(op)
    block.ops = out


def _loop(k: K, op: Op) -> list[Op]:
    block, warps = Block(), k.func.warps
    with k.at(block):
        first, step, teams = k.special("cta"), k.special("ctas"), op.attrs.get("teams", 1)
        assert isinstance(teams, int)
        mates = op.attrs.get("mates", warps // teams)
        assert isinstance(mates, int)
        if mates < warps:
            team = k.idx("div", k.special("warp"), mates)
            first, step = k.idx("add", first, k.idx("mul", step, team)), k.idx("mul", step, teams)
            if teams * mates < warps:  # a team beyond has no work
                first = k.idx_select(k.cmp("lt", team, teams), first, op.operands[0])
        block.ops.append(Op("for", [first, op.operands[0], step], [], {"unroll": 1, "persistent": True}, [op.regions[0]], op.loc))
    return block.ops


def persistent_loops(func: KFunc) -> list[tuple[Block, Op]]:
    """Each loop over work items, and the block that it stands in."""
    def inside(block: Block) -> Iterator[tuple[Block, Op]]:
        for op in block.ops:
            if op.name == "for":
                yield from [(block, op)] if op.attrs.get("persistent") else inside(op.regions[0])

    return list(inside(func.body))


def substitute(block: Block, mapping: dict[Value, Value]) -> None:
    """Replaces uses inside a block, nested regions included."""
    for op in block.walk():
        op.operands = [mapping.get(x, x) for x in op.operands]


def clone(block: Block, mapping: dict[Value, Value]) -> list[Op]:
    """A copy of the block's ops without its final yield; `mapping` gives the values of its arguments and grows by the copies."""
    return [_clone_op(op, mapping) for op in block.ops[:-1]]


def _clone_op(op: Op, mapping: dict[Value, Value]) -> Op:
    new = Op(op.name, [mapping.get(x, x) for x in op.operands], attrs=dict(op.attrs), loc=op.loc)
    new.results = [Value(r.type, new, r.index, r.hint) for r in op.results]
    mapping.update(zip(op.results, new.results, strict=True))
    for region in op.regions:
        copy = Block([Value(a.type, hint=a.hint) for a in region.args])
        mapping.update(zip(region.args, copy.args, strict=True))
        copy.ops = [_clone_op(o, mapping) for o in region.ops]
        new.regions.append(copy)
    return new


