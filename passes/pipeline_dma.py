"""P11: `pipe` becomes a software pipeline: while block i is computed, the transfers of the next block (of the next work item, at
the end) are in flight in the next stage.

Per step: wait for this warp's transfers, meet the other warps (everyone has left the other stage and everyone's part of this one has
arrived), start the next copies, compute. Counters for the stage and the item's parity are carried through both loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rvgpu.ir.core import Block, Op, Value
from rvgpu.ir.tile_build import IDX, K, KFunc
from rvgpu.passes.context import Context
from rvgpu.passes.grid import clone, persistent_loops, substitute


@dataclass(frozen=True)
class PipelineDma:
    name = "pipeline"
    level = "tile"

    def run(self, func: KFunc, context: Context) -> list[KFunc]:
        for loop in persistent_loops(func):
            pipes = [op for op in loop.regions[0].ops if op.name == "pipe"]
            if pipes:
                assert len(pipes) == 1, "one pipe in a work item"
                _expand(func, loop, pipes[0])
        return [func]


def _inline(k: K, region: Block, args: Sequence[Value]) -> list[Value]:
    """A copy of the region at the cursor; what it yields."""
    mapping = dict(zip(region.args, args, strict=True))
    k.block.ops += clone(region, mapping)
    return [mapping.get(v, v) for v in region.yielded]


def _expand(func: KFunc, loop: Op, pipe: Op) -> None:
    k = K(func)
    k.loc = loop.loc
    count, ctas = loop.operands[1], loop.operands[2]
    span, copy, compute = pipe.regions
    step, stages = pipe.attrs["step"], pipe.attrs["stages"]
    assert isinstance(step, int) and isinstance(stages, int)
    body = loop.regions[0]
    w = body.args[0]
    counters = [Value(IDX, hint="stage"), Value(IDX, hint="parity")]
    body.args += counters

    # before the loop: the first item's first block
    at = func.body.ops.index(loop)
    head = Block()
    with k.at(head):
        zero = k.const(0)
        lo, hi = _inline(k, span, [loop.operands[0]])
        some = k.s("and", k.cmp("lt", loop.operands[0], count), k.cmp("lt", lo, hi))

        def first() -> list[Value]:
            _inline(k, copy, [loop.operands[0], lo, zero, zero])
            return []

        k.if_(some, first)
    func.body.ops[at:at] = head.ops
    loop.operands += [zero, zero]

    # the block loop in place of the pipe
    inner = Block()
    with k.at(inner):
        next_lo, _ = _inline(k, span, [k.idx("add", w, ctas)])
        lo, hi = _inline(k, span, [w])

        def block(i: Value, carried: list[Value]) -> list[Value]:
            stage, *states = carried
            k.dma_wait(0)
            if not pipe.attrs["private"]:
                k.bar(0)
            after = k.idx("add", i, step)
            last = k.cmp("ge", after, hi)
            next_w = k.idx_select(last, k.idx("add", w, ctas), w)
            next_i = k.idx_select(last, next_lo, after)
            next_stage = k.idx("sub", 1, stage) if stages == 2 else k.idx_select(k.cmp("eq", stage, stages - 1), 0, k.idx("add", stage, 1))
            next_parity = k.idx_select(last, k.idx("sub", 1, counters[1]), counters[1])

            def ahead() -> list[Value]:
                _inline(k, copy, [next_w, next_i, next_stage, next_parity])
                return []

            k.if_(k.cmp("lt", next_w, count), ahead)
            mapping = dict(zip(compute.args, [i, stage, counters[1], *states], strict=True))
            yielded = [mapping.get(v, v) for v in compute.yielded]
            ops = compute.ops[:-1]
            inside = Block(ops=ops)
            substitute(inside, mapping)
            k.block.ops += ops
            return [next_stage, *yielded]

        out = k.for_(lo, hi, step, [counters[0], *pipe.operands[1:]], block)
        parity = k.idx("sub", 1, counters[1])
    here = body.ops.index(pipe)
    body.ops[here:here + 1] = inner.ops
    substitute(body, dict(zip(pipe.results, out[1:], strict=True)))
    end = body.ops[-1]
    assert end.name == "yield"
    end.operands = [out[0], parity]
    loop.results = [Value(IDX, loop, 0), Value(IDX, loop, 1)]
