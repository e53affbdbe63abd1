"""What decides how rows run on the vector unit: where lanes run, whether a row goes in parts, and whether parts are shared out over all warps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rvgpu.ir.core import Func, Op
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import DType, TensorType
from rvgpu.passes.context import Limits
from rvgpu.passes.keep import INDEXED
from rvgpu.passes.kernel import Stream, find_stream, reject


def lane_dim(stream: Stream | None, outs: Sequence[TensorType], inputs: Sequence[tuple[Dim, ...]]) -> Dim | None:
    """The streamed dim if most inputs that carry it have it innermost, else the longest result's innermost dim."""
    if stream is None:
        return outs[0].dims[-1] if outs[0].dims else None
    r = stream.dim
    last = next((t.dims[-1] for t in sorted(outs, key=lambda t: -len(t.dims)) if t.dims and t.dims[-1] != r), None)
    return r if last is None or runs_inside(r, inputs) else last


def runs_inside(r: Dim, inputs: Sequence[tuple[Dim, ...]]) -> bool:
    """Whether most inputs that carry r have it innermost; those that have it alone say nothing where there are others."""
    carry = [dims for dims in inputs if r in dims]
    carry = [dims for dims in carry if len(dims) > 1] or carry
    return 2 * sum(dims[-1] == r for dims in carry) >= max(1, len(carry))


@dataclass(frozen=True)
class Columns:
    """Lanes along `lanes` (side by side in memory, in every tensor that has one of them), one row after the other along `down`, the stream's dim."""

    stream: Stream | None
    rows: tuple[Dim, ...]
    down: Dim
    lanes: tuple[Dim, ...]
    gathers: tuple[Op, ...] = ()  # `take` ops that give a row of a stored table for each row


def column_part(limits: Limits, once: bool) -> int:
    """Rows of a part of a column, by whether each row is needed but once: those that are not stand in scratchpad together."""
    return limits.vlen if once else limits.vlen // 4


def columns(func: Func, limits: Limits) -> Columns | None:
    """The plan of a function whose lanes do not run along its stream's dim, or that stores in another order than it reads; None of any other."""
    stream = find_stream(func)
    inputs = [p.value.tensor.dims for p in func.params if not p.keyword]
    if stream is None:
        return _turned(func, inputs)
    lane = lane_dim(stream, func.result_types, inputs)
    if lane is None or lane == stream.dim:
        return None
    states = [s.dims for s in stream.states]
    stored = [*inputs, *states, *(t.dims for t in func.result_types if lane in t.dims)]
    longest = max((t.dims for t in func.result_types), key=len)
    beside = tuple(d for d in longest if d not in (stream.dim, stream.part_dim))
    for v, t in zip(func.results, func.result_types, strict=True):
        missing = [d for d in beside if d not in t.dims]
        if missing and not stream.part:  # a part's count has no lanes
            raise reject(f"results of one kernel must share their row dims; {t} lacks {missing[0]}", v)
    lanes = beside[-1:]
    if not any(op.name in INDEXED for op in func.body.walk()):
        while len(lanes) < len(beside) and all(together(beside[-len(lanes) - 1:], dims) for dims in stored):
            lanes = beside[-len(lanes) - 1:]
    return Columns(stream, beside[:-len(lanes)], stream.dim, lanes)


def columns_in_parts(func: Func, limits: Limits) -> tuple[Columns, int] | None:
    """(plan, rows of a part) of a function whose columns go in parts, by the bucket of their length."""
    plan = columns(func, limits)
    if plan is None or plan.stream is None or plan.stream.part or plan.down.name is None:
        return None
    part = column_part(limits, len(plan.stream.waves()) == 1)
    again = any(plan.down in t.dims for t in func.result_types)
    beside = {*plan.rows, *plan.lanes}
    alike = all(beside <= set(s.dims) or not set(plan.lanes) & set(s.dims) for s in plan.stream.states)
    return None if again or not alike or limits.bucket((plan.down,)) <= part else (plan, part)


def _turned(func: Func, inputs: Sequence[tuple[Dim, ...]]) -> Columns | None:
    """The plan of elementwise math some of whose inputs have the result's dims in another order (their innermost dim is one of the two), or that
    looks up a table's rows."""
    dims = func.result_types[0].dims
    if any(t.dims != dims for t in func.result_types) or len(dims) < 2:
        return None
    moves = [op for op in func.body.walk() if op.name in INDEXED]
    if moves:
        found = [op for op in gathers(func, dims[:-1], dims[-1]) if op.operands[1].tensor.dtype is DType.i32]
        return Columns(None, dims[:-2], dims[-2], dims[-1:], tuple(found)) if len(found) == len(moves) else None
    lane = dims[-1]
    others = [x for x in inputs if len(x) > 1 and lane in x and x != dims]
    inner = {x[-1] for x in others} - {lane}
    down = inner.pop() if inner else next((d for d in reversed(dims[:-1]) if any(d in x for x in others)), None)
    if down is None or inner or not any(down in x for x in others):
        return None
    return Columns(None, tuple(d for d in dims[:-1] if d != down), down, (lane,))


def together(run: tuple[Dim, ...], dims: tuple[Dim, ...]) -> bool:
    """Whether these dims stand side by side, or none of them is there."""
    at = dims.index(run[0]) if run[0] in dims else 0
    return dims[at:at + len(run)] == run or not set(run) & set(dims)


def part_positions(limits: Limits) -> int:
    """Positions of the streamed dim in a part of a row."""
    return 4 * limits.vlen


def long_rows(func: Func, limits: Limits) -> Stream | None:
    """The stream of a function whose rows go in parts, by the bucket of their length: lanes along the streamed dim, states without lanes."""
    stream = find_stream(func)
    if stream is None or stream.part or stream.dim.name is None or "." in stream.dim.name:
        return None
    if limits.bucket((stream.dim,)) <= 4 * part_positions(limits):
        return None
    rows = rows_beside(func, stream.dim)
    if rows is None or lane_dim(stream, func.result_types, [p.value.tensor.dims for p in func.params if not p.keyword]) != stream.dim:
        return None
    return stream if all(not s.contraction and set(s.dims) <= set(rows) for s in stream.states) else None


def few_long_rows(func: Func, stream: Stream, limits: Limits) -> bool:
    """Whether a CTA for each row would leave cores without one. Changes cycles only."""
    return limits.product(rows_beside(func, stream.dim) or ()) < limits.cores


def rows_beside(func: Func, lane: Dim) -> tuple[Dim, ...] | None:
    """The row dims that all results share, beside the lane dim, which is their last where they have it; None when they do not."""
    found = {t.dims[:-1] if lane in t.dims and t.dims[-1] == lane else t.dims for t in func.result_types}
    rows, = found if len(found) == 1 else ((lane,),)
    return None if lane in rows or any(op.name == "concat" for op in func.body.walk()) else rows


def plan_pieces(func: Func, limits: Limits) -> tuple[tuple[Dim, ...], Dim] | None:
    """(row dims, lane dim) of a function whose rows warps take by the piece: the states of parts, or results along the dim that they are parts of, or
    no reduction at all."""
    stream = find_stream(func)
    longest = max((t.dims for t in func.result_types), key=len)
    if stream is not None and stream.part:
        return longest[:-1], stream.dim
    if not longest:
        return None
    lane, rows = longest[-1], rows_beside(func, longest[-1])
    if rows is None:
        return None
    if stream is None:
        few = limits.product(rows) < limits.cores * limits.warps or bool(gathers(func, rows, lane))
        return (rows, lane) if limits.bound(lane) > part_positions(limits) // (8 if few else 1) else None
    cut = "" if stream.dim.name is None else stream.dim.name.rpartition(".")[0]
    ok = cut and cut == lane.name and all(set(s.dims) <= set(rows) for s in stream.states)
    return (rows, lane) if ok else None


def gathers(func: Func, rows: tuple[Dim, ...], lane: Dim) -> list[Op]:
    """The `take` ops that give a row of a stored table for each row, by a stored index."""
    def is_one(op: Op) -> bool:
        if op.name != "take" or op.operands[0].op is not None or op.operands[1].op is not None:
            return False
        table, ids = (x.tensor.dims for x in op.operands)
        if op.result.tensor.dtype is DType.i4:
            return False
        return bool(rows) and ids == rows and len(table) == 2 and table[1] == lane and table[0] == op.attrs["dim"]

    return [op for op in func.body.ops if is_one(op)]
