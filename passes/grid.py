"""P12: `grid.work` becomes a loop over the share of the work items of a CTA, and of a team of its warps (persistent CTAs: cta, cta + ctas, ...)."""

from __future__ import annotations

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
        out: list[Op] = []
        k = K(func)
        for op in func.body.ops:
            if op.name != "grid.work":
                out.append(op)
                continue
            block = Block()
            with k.at(block):
                first, step, teams = k.special("cta"), k.special("ctas"), op.attrs.get("teams", 1)
                assert isinstance(teams, int)
                mates = op.attrs.get("mates", func.warps // teams)
                assert isinstance(mates, int)
                if mates < func.warps:
                    team = k.idx("div", k.special("warp"), mates)
                    first, step = k.idx("add", first, k.idx("mul", step, team)), k.idx("mul", step, teams)
                    if teams * mates < func.warps:  # a team beyond has no work
                        first = k.idx_select(k.cmp("lt", team, teams), first, op.operands[0])
                body = op.regions[0]
                loop = Op("for", [first, op.operands[0], step], [], {"unroll": 1, "persistent": True}, [body], op.loc)
                block.ops.append(loop)
            out += block.ops
        func.body.ops = out
        return [func]


def persistent_loops(func: KFunc) -> list[Op]:
    return [op for op in func.body.ops if op.name == "for" and op.attrs.get("persistent")]


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


