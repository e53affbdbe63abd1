"""P11: `pipe` becomes a software pipeline: while block i is computed, the transfers of the next blocks (of the next work items, at
the end) are in flight in the next stages.

Per step: wait for this warp's transfers, meet the other warps of the team (everyone has left the stage that is filled next and everyone's part
of this one has arrived), start the next copies, compute. A warp that copies for itself alone starts them before it waits. Counters for the stage
and the item's parity are carried through both loops; where more than one step is ahead, so is the place (item, block, stage) of the copies.
`ahead`: transfers start two steps before theirs, so that each step finds the next one's there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        for block, loop in persistent_loops(func):
            pipes = [op for op in loop.regions[0].ops if op.name == "pipe"]
            if pipes:
                assert len(pipes) == 1, "one pipe in a work item"
                deep = "depth" in pipes[0].attrs
                (_Ahead if pipes[0].attrs.get("ahead") else _Deep if deep else _Next)(func, block, loop, pipes[0]).expand()
        return [func]


def _inline(k: K, region: Block, args: Sequence[Value]) -> list[Value]:
    """A copy of the region at the cursor; what it yields."""
    mapping = dict(zip(region.args, args, strict=True))
    k.block.ops += clone(region, mapping)
    return [mapping.get(v, v) for v in region.yielded]


class _Pipe:
    """A pipe inside the loop over work items, and the loop that takes its place."""

    def __init__(self, func: KFunc, block: Block, loop: Op, pipe: Op) -> None:
        self.func, self.block, self.loop, self.pipe, self.k = func, block, loop, pipe, K(func)
        self.k.loc = loop.loc
        self.first, self.count, self.ctas = loop.operands[:3]
        self.span, self.copy, self.compute = pipe.regions[:3]
        step, stages, teams = pipe.attrs["step"], pipe.attrs["stages"], pipe.attrs.get("teams", 1)
        assert isinstance(step, int) and isinstance(stages, int) and isinstance(teams, int)
        mates = pipe.attrs.get("mates", func.warps // teams)
        assert isinstance(mates, int)
        self.step, self.stages, self.mates = step, stages, mates
        self.w = loop.regions[0].args[0]

    def meet(self) -> None:
        k = self.k
        if self.pipe.attrs["private"]:
            return
        if self.mates == self.func.warps:
            k.bar(0)
        else:
            k.bar(0, k.idx("div", k.special("warp"), self.mates), self.mates)

    def after(self, stage: Value) -> Value:
        k = self.k
        if self.stages == 2:
            return k.idx("sub", 1, stage)
        return k.idx_select(k.cmp("eq", stage, self.stages - 1), 0, k.idx("add", stage, 1))

    def body(self, args: Sequence[Value]) -> list[Value]:
        """The block's work, moved here."""
        mapping = dict(zip(self.compute.args, args, strict=True))
        yielded = [mapping.get(v, v) for v in self.compute.yielded]
        ops = self.compute.ops[:-1]
        substitute(Block(ops=ops), mapping)
        self.k.block.ops += ops
        return yielded

    def carry(self, hints: Sequence[str], before: Callable[[], Sequence[Value]]) -> list[Value]:
        """Values that the loop over items carries: from `before`, which stands in front of it."""
        args = [Value(IDX, hint=h) for h in hints]
        head = Block()
        with self.k.at(head):
            self.loop.operands += before()
        at = self.block.ops.index(self.loop)
        self.block.ops[at:at] = head.ops
        self.loop.regions[0].args += args
        return args

    def replace(self, inner: Block, results: Sequence[Value], carried: Sequence[Value]) -> None:
        """`inner` in place of the pipe, `results` for its results; the loop's next iteration gets `carried`."""
        body = self.loop.regions[0]
        here = body.ops.index(self.pipe)
        body.ops[here:here + 1] = inner.ops
        substitute(body, dict(zip(self.pipe.results, results, strict=True)))
        end = body.ops[-1]
        assert end.name == "yield"
        end.operands = list(carried)
        self.loop.results = [Value(IDX, self.loop, n) for n in range(len(carried))]


class _Next(_Pipe):
    """One step ahead."""

    def expand(self) -> None:
        k = self.k

        def before() -> list[Value]:
            zero = k.const(0)
            lo, hi = _inline(k, self.span, [self.first])
            some = k.s("and", k.cmp("lt", self.first, self.count), k.cmp("lt", lo, hi))
            k.if_(some, lambda: _inline(k, self.copy, [self.first, lo, zero, zero])[:0])
            return [zero, zero]

        start, parity = self.carry(("stage", "parity"), before)
        inner = Block()
        with k.at(inner):
            next_lo, _ = _inline(k, self.span, [k.idx("add", self.w, self.ctas)])
            lo, hi = _inline(k, self.span, [self.w])

            def block(i: Value, carried: list[Value]) -> list[Value]:
                stage, *states = carried
                k.dma_wait(0)
                self.meet()
                after = k.idx("add", i, self.step)
                last = k.cmp("ge", after, hi)
                next_w = k.idx_select(last, k.idx("add", self.w, self.ctas), self.w)
                next_i = k.idx_select(last, next_lo, after)
                next_stage = self.after(stage)
                next_parity = k.idx_select(last, k.idx("sub", 1, parity), parity)
                k.if_(k.cmp("lt", next_w, self.count), lambda: _inline(k, self.copy, [next_w, next_i, next_stage, next_parity])[:0])
                return [next_stage, *self.body([i, stage, parity, *states])]

            out = k.for_(lo, hi, self.step, [start, *self.pipe.operands[1:]], block)
            other = k.idx("sub", 1, parity)
        self.replace(inner, out[1:], [out[0], other])


class _Deep(_Pipe):
    """Several steps ahead. Carried: the stage that is computed, the steps under way, the next copy's item, position and stage, and what the copy
    needs of its item (tile coordinates take divisions)."""

    def expand(self) -> None:
        k, depth = self.k, self.pipe.attrs["depth"]
        transfers = sum(op.name in ("dma.load", "dma.gather") for op in self.copy.walk())
        assert isinstance(depth, int) and self.stages > depth
        self.item, self.step_ops, self.needs = _split(self.copy)

        def before() -> list[Value]:
            self.zero = zero = k.const(0)
            self.lo, self.hi = _inline(k, self.span, [self.first])
            self.end = k.idx_select(k.cmp("lt", self.lo, self.hi), self.count, 0)
            self.each = self.share(transfers)
            at = [zero, self.first, self.lo, zero, *self.of_item(self.first, [zero] * len(self.needs))]
            for _ in range(depth):
                at = self.fetch(at)
            return [zero, *at]

        carried = self.carry(("stage", "under_way", "next_w", "next_i", "next_stage", *("of_next" for _ in self.needs)), before)
        inner = Block()
        with k.at(inner):
            def block(i: Value, values: list[Value]) -> list[Value]:
                stage, *at = values[:len(carried)]
                if self.pipe.attrs["private"]:  # nobody else may still read the stage that is filled next
                    at = self.fetch(at)
                left = k.idx("sub", at[0], 1)
                at = [left, *at[1:]]
                k.dma_wait(left if self.each == 1 else k.idx("mul", left, self.each))
                if not self.pipe.attrs["private"]:
                    self.meet()
                    at = self.fetch(at)
                return [self.after(stage), *at, *self.body([i, stage, self.zero, *values[len(carried):]])]

            out = k.for_(self.lo, self.hi, self.step, [*carried, *self.pipe.operands[1:]], block)
        self.replace(inner, out[len(carried):], out[:len(carried)])

    def share(self, transfers: int) -> Value | int:
        """This warp's transfers of a step: number n is that of mate n % mates."""
        k, mates = self.k, self.mates
        if self.pipe.attrs["private"] or transfers % mates == 0:
            return transfers if self.pipe.attrs["private"] else transfers // mates
        mate = k.idx("rem", k.special("warp"), mates)
        return k.idx("div", k.idx("sub", transfers + mates - 1, mate), mates)

    def fetch(self, at: list[Value]) -> list[Value]:
        """Starts the copy at `at` (steps under way, item, position, stage, of the item) unless there is none; where the next one is."""
        k = self.k
        under_way, w, i, stage, *of_item = at

        def go() -> list[Value]:
            mapping = dict(zip([*self.copy.args, *self.needs], [w, i, stage, self.zero, *of_item], strict=True))
            k.block.ops += clone(self.step_ops, mapping)
            after = k.idx("add", i, self.step)
            last = k.cmp("ge", after, self.hi)
            next_w = k.idx_select(last, k.idx("add", w, self.ctas), w)
            next_of = k.if_(last, lambda: self.of_item(next_w, of_item), lambda: of_item)
            return [k.idx("add", under_way, 1), next_w, k.idx_select(last, self.lo, after), self.after(stage), *next_of]

        return k.if_(k.cmp("lt", w, self.end), go, lambda: at)

    def of_item(self, w: Value, old: list[Value]) -> list[Value]:
        """What copies of item w need of it; `old` where there is no such item."""
        k = self.k

        def new() -> list[Value]:
            mapping = {self.copy.args[0]: w}
            k.block.ops += clone(self.item, mapping)
            return [mapping[v] for v in self.needs]

        return k.if_(k.cmp("lt", w, self.end), new, lambda: old) if self.needs else []


def _pure(op: Op) -> bool:
    return op.name.startswith(("idx.", "s.and", "s.or")) or bool(op.results) and not op.operands and not op.regions


def _split(copy: Block) -> tuple[Block, Block, list[Value]]:
    """A copy in two: the index arithmetic that depends on its item alone, and the rest, with what the rest uses of the first. What depends on
    neither, and conditions, both have."""
    item: list[Op] = []
    rest: list[Op] = []
    of_item, varying = {copy.args[0]}, {*copy.args[1:]}
    for op in copy.ops[:-1]:
        if not _pure(op) or any(x in varying for x in op.operands):
            varying.update(op.results)
            rest.append(op)
            continue
        item.append(op)
        if any(x in of_item for x in op.operands):
            of_item.update(op.results)
        if not of_item.issuperset(op.results) or op.result.type != IDX:
            rest.append(op)
    used = {x for op in Block(ops=[op for op in rest if not _pure(op)]).walk() for x in op.operands}
    for op in reversed(rest):
        if used.intersection(op.results):
            used.update(op.operands)
    rest = [op for op in rest if not _pure(op) or used.intersection(op.results)]
    made = {x for op in rest for x in op.results}
    needs = [x for op in item for x in op.results if x in of_item and x in used and x not in made]
    end = copy.ops[-1:]
    return Block(ops=item + end), Block(ops=rest + end), needs


class _Ahead(_Pipe):
    """Carried beside stage and parity: item, position and end of the step after the one at hand, whose copies are the last that have started."""

    def expand(self) -> None:
        k = self.k

        def before() -> list[Value]:
            self.zero = zero = k.const(0)
            lo, hi = _inline(k, self.span, [self.first])

            def first() -> list[Value]:
                _inline(k, self.pipe.regions[3], [self.first, zero])
                _inline(k, self.copy, [self.first, lo, zero, zero])
                to = self.step_after(self.first, lo, hi)
                self.fetch(to[0], to[1], k.const(1))
                return to

            return [zero, zero, *k.if_(k.s("and", k.cmp("lt", self.first, self.count), k.cmp("lt", lo, hi)), first, lambda: [zero] * 3)]

        start, parity, *to = self.carry(("stage", "parity", "next_w", "next_i", "next_end"), before)
        inner = Block()
        with k.at(inner):
            lo, hi = _inline(k, self.span, [self.w])

            def block(i: Value, carried: list[Value]) -> list[Value]:
                stage, now, states = carried[0], carried[1:4], carried[4:]
                k.dma_wait(0)
                self.meet()
                to = self.step_after(*now)
                last = k.cmp("ne", now[0], self.w)
                next_stage, next_parity = self.after(stage), k.idx_select(last, k.idx("sub", 1, parity), parity)
                self.fetch(to[0], to[1], self.after(next_stage))
                item = k.s("and", last, k.cmp("lt", now[0], self.count))
                k.if_(item, lambda: _inline(k, self.pipe.regions[3], [now[0], next_parity])[:0])
                return [next_stage, *to, *self.body([i, stage, parity, *now[:2], next_stage, next_parity, *states])]

            out = k.for_(lo, hi, self.step, [start, *to, *self.pipe.operands[1:]], block)
            other = k.idx("sub", 1, parity)
        self.replace(inner, out[4:], [out[0], other, *out[1:4]])

    def step_after(self, w: Value, i: Value, end: Value) -> list[Value]:
        """The step after (w, i), and where its item ends."""
        k = self.k
        following, further = k.idx("add", w, self.ctas), k.idx("add", i, self.step)
        return k.if_(k.cmp("lt", further, end), lambda: [w, further, end], lambda: [following, *_inline(k, self.span, [following])])

    def fetch(self, w: Value, i: Value, stage: Value) -> None:
        """Starts the copies of a step, if there is such an item."""
        k = self.k
        k.if_(k.cmp("lt", w, self.count), lambda: _inline(k, self.copy, [w, i, stage, self.zero])[:0])
