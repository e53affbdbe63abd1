"""The verifier of level K: rows, dominance, scratchpad within the machine, accumulators, uniform barriers, waits.

Which values differ between the warps of a CTA is followed from `warp`, per-warp buffers and accumulators; a barrier
of all may not stand where only some warps come by (whether one of some is met is left to the evaluator). A read of a
buffer through the very view that a transfer is still filling is an error; what depends on the values of stage indices
is left to the evaluator, in which data lands at its wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from rvgpu.ir.core import Block, Op, Value
from rvgpu.ir.shapes import IllFormed
from rvgpu.ir.tensor_ops import check_attrs
from rvgpu.ir.tile_build import IDX, KFunc
from rvgpu.ir.tile_ops import K_OPS, STRUCTURE, check_op, match
from rvgpu.ir.types import Type
from rvgpu.ir.verify import Scope, VerifyError

MAX_ACCS = 4


def verify_kernel(func: KFunc, spm_bytes: int | None = None) -> KFunc:
    """Raises VerifyError; returns the kernel. `spm_bytes` is the machine's scratchpad, checked once buffers have their
    place (P9)."""
    _Kernel(func).run()
    _scratchpad(func, spm_bytes)
    _Uniform(func).run()
    _Pending(func).run()
    return func


SHAPES: dict[str, tuple[dict[str, str], tuple[str, ...], int]] = {  # attributes, leading operands, regions
    "for": ({"unroll": "int", "persistent": "bool?"}, ("idx",) * 3, 1), "if": ({}, ("i1",), 2),
    "grid.work": ({"teams": "int?", "mates": "int?"}, ("idx",), 1),
    "pipe": ({"step": "int", "private": "bool", "stages": "int", "teams": "int?", "mates": "int?", "depth": "int?", "ahead": "bool?"}, ("idx",), 3)}


class _Kernel:
    """Types, attributes, regions, dominance."""

    def __init__(self, func: KFunc) -> None:
        self.func = func

    def fail(self, op: Op | None, message: str) -> VerifyError:
        return VerifyError(self.func.name, op, message)

    def run(self) -> None:
        f = self.func
        self.block(f.body, Scope(f.name), top=True)
        accs = [op for op in f.body.walk() if op.name == "acc.alloc"]
        if len(accs) > MAX_ACCS:
            raise self.fail(accs[MAX_ACCS], f"{len(accs)} accumulators, a warp has {MAX_ACCS}")
        names = {"mem.arg": {t.name for t in f.tensors}, "scalar": {n for n, _ in f.scalars}, "dim": set(f.dims)}
        for op in f.body.walk():
            if op.name in names and op.attrs["name"] not in names[op.name]:
                raise self.fail(op, f"the kernel has no {op.name} {op.attrs['name']!r}")

    def block(self, block: Block, scope: Scope, top: bool = False) -> list[Type]:
        """Checks the ops; the types yielded."""
        for n, op in enumerate(block.ops):
            scope.use(op)
            if op.name == "yield":
                if top or n != len(block.ops) - 1:
                    raise self.fail(op, "yield ends a region")
                return [v.type for v in op.operands]
            try:
                if op.name in STRUCTURE:
                    self.structure(op, scope)
                else:
                    check_op(op)
            except IllFormed as e:
                raise self.fail(op, str(e)) from None
            scope.results(op)
        if not top:
            raise self.fail(None, "a region does not end in yield")
        return []

    def region(self, op: Op, n: int, scope: Scope, args: Sequence[Type], yields: Sequence[Type]) -> None:
        block, inner = op.regions[n], Scope(self.func.name, scope)
        inner.args(block, op)
        found = [v.type for v in block.args]
        if found != list(args):
            raise IllFormed(f"region {n} takes ({texts(args)}), found ({texts(found)})")
        found = self.block(block, inner)
        if found != list(yields):
            raise IllFormed(f"region {n} yields ({texts(yields)}), found ({texts(found)})")

    def structure(self, op: Op, scope: Scope) -> None:
        types, results = [v.type for v in op.operands], [v.type for v in op.results]
        attrs, leading, regions = SHAPES[op.name]
        check_attrs(attrs, op.attrs)
        match(leading, types[:len(leading)], "operands")
        ahead = op.name == "pipe" and bool(op.attrs.get("ahead"))
        regions += ahead
        if len(op.regions) != regions:
            raise IllFormed(f"{regions} regions needed, found {len(op.regions)}")
        carried = types[len(leading):]
        if op.name == "if":
            carried = results
            if len(types) != 1:
                raise IllFormed(f"a condition needed, found ({texts(types)})")
        if carried != results:
            raise IllFormed(f"results ({texts(carried)}) needed, found ({texts(results)})")
        if op.name == "for":
            self.region(op, 0, scope, [IDX, *carried], carried)
        elif op.name == "if":
            self.region(op, 0, scope, [], results)
            self.region(op, 1, scope, [], results)
        elif op.name == "grid.work":
            self.region(op, 0, scope, [IDX], [])
        else:
            self.region(op, 0, scope, [IDX], [IDX] * 2)
            self.region(op, 1, scope, [IDX] * 4, [])
            self.region(op, 2, scope, [IDX] * (7 if ahead else 3) + carried, carried)
            if ahead:
                self.region(op, 3, scope, [IDX] * 2, [])


def texts(types: Sequence[Type]) -> str:
    return ", ".join(map(str, types))


def _scratchpad(func: KFunc, capacity: int | None) -> None:
    """Placed buffers lie side by side within the kernel's bytes, and those within the machine's."""
    placed: list[tuple[int, int, Op]] = []
    for op in func.body.walk():
        if op.name == "spm.alloc" and "offset_bytes" in op.attrs:
            start, size = op.attrs["offset_bytes"], op.attrs["size_bytes"]
            assert isinstance(start, int) and isinstance(size, int)
            placed.append((start, start + size * (func.warps if op.attrs["per_warp"] else 1), op))
    placed.sort(key=lambda p: p[:2])
    end, last = 0, ""
    for start, stop, op in placed:
        if start < end:
            raise VerifyError(func.name, op, f"overlaps {last}, which ends at byte {end}")
        end, last = stop, str(op.attrs["name"])
    if end > func.spm_bytes:
        raise VerifyError(func.name, placed[-1][2], f"ends at byte {end} of {func.spm_bytes}")
    if capacity is not None and func.spm_bytes > capacity:
        raise VerifyError(func.name, None, f"needs {func.spm_bytes} bytes of scratchpad, the machine has {capacity}")


class _Uniform:
    """Finds the values that may differ between warps, then barriers under a condition or trip count that does."""

    def __init__(self, func: KFunc) -> None:
        self.func = func
        self.varying: set[Value] = set()

    def run(self) -> None:
        before = -1
        while len(self.varying) != before:  # carried values: to a fixpoint
            before = len(self.varying)
            self.block(self.func.body, None)

    def block(self, block: Block, under: Op | None) -> None:
        for op in block.ops:
            if op.name == "bar" and under is not None and "warps" not in op.attrs:
                where = f"a barrier inside `{under.name}`, which not every warp enters alike"
                raise VerifyError(self.func.name, op, where)
            self.op(op, under)

    def op(self, op: Op, under: Op | None) -> None:
        varies = any(v in self.varying for v in op.operands)
        if op.name in ("warp", "acc.alloc") or op.name == "spm.alloc" and op.attrs["per_warp"]:
            varies = True
        if op.name in ("for", "pipe"):
            self.loop(op, under)
            return
        if op.name == "if":
            for region in op.regions:
                self.block(region, op if varies else under)
            for n, r in enumerate(op.results):
                if varies or any(region.yielded[n] in self.varying for region in op.regions):
                    self.varying.add(r)
            return
        if op.name == "grid.work":
            self.block(op.regions[0], op if varies or {"teams", "mates"} & set(op.attrs) else under)
            return
        if varies:
            self.varying.update(op.results)

    def loop(self, op: Op, under: Op | None) -> None:
        leading = len(SHAPES[op.name][1])
        fixed, init = op.operands[:leading], op.operands[leading:]
        if op.name == "pipe":
            self.block(op.regions[0], under)
            fixed = [*fixed, *op.regions[0].yielded]
        uneven = any(v in self.varying for v in fixed)
        body = op.regions[2 if op.name == "pipe" else 0]
        carried = body.args[len(body.args) - len(init):]
        if uneven:
            self.varying.update(body.args)
        for start, arg, end, result in zip(init, carried, body.yielded, op.results, strict=True):
            if uneven or start in self.varying or end in self.varying or arg in self.varying:
                self.varying.update((arg, result))
        for region in op.regions:
            self.block(region, op if uneven else under)


def made_in(op: Op) -> set[Value]:
    """Every value defined in the op's regions."""
    out: set[Value] = set()
    for region in op.regions:
        out.update(region.args)
        for o in region.ops:
            out.update(o.results)
            out |= made_in(o)
    return out


View = tuple[Value, tuple[Value, ...]]  # buffer, index of its view


class _Pending:
    """Transfers that are surely still under way, in order; a read through the same view is too early."""

    READS = {"vt.load": 0, "vt.load.masked": 0, "vt.gather": 0, "s.load": 0, "opnd.load": 0, "dma.store": 1}

    def __init__(self, func: KFunc) -> None:
        self.func = func

    def run(self) -> None:
        self.block(self.func.body, [])

    def view(self, v: Value) -> View:
        """The root buffer and the first index taken from it (the stage)."""
        index: tuple[Value, ...] = ()
        while v.op is not None and v.op.name in ("mem.at", "spm.view"):
            index, v = tuple(v.op.operands[1:]) if v.op.name == "mem.at" else index, v.op.operands[0]
        return v, index

    def block(self, block: Block, pending: list[View]) -> list[View]:
        for op in block.ops:
            if op.name in self.READS:
                at = self.view(op.operands[self.READS[op.name]])
                if at in pending:
                    raise VerifyError(self.func.name, op, "reads a buffer whose transfer was not waited for")
            if op.name in ("dma.load", "dma.gather"):
                pending = [*pending, self.view(op.operands[0])]
            elif op.name == "dma.store":
                pending = [*pending, self.view(op.operands[0])]  # counts as a transfer of this warp
            elif op.name == "dma.wait":
                left = op.attrs["left"]
                assert isinstance(left, int)
                pending = pending[len(pending) - left:] if left < len(pending) else pending
            elif op.name == "if":
                a, b = (self.block(region, pending) for region in op.regions)
                pending = [v for v in a if v in b]
            elif op.regions:
                after = pending
                inside = made_in(op)
                for region in (*op.regions, *op.regions):  # twice: what the end leaves under way meets the start
                    after = self.block(region, after)
                    after = [v for v in after if not inside & {v[0], *v[1]}]  # another iteration, another index
                pending = [v for v in pending if v in after]
        return pending


assert STRUCTURE.isdisjoint(K_OPS)
