"""What decides how rows run on the vector unit: where lanes run, whether a row goes in parts, and whether parts are shared out over all warps."""

from __future__ import annotations

from collections.abc import Sequence

from rvgpu.ir.core import Func, Op
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import DType, TensorType
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import Stream, find_stream


def lane_dim(stream: Stream | None, outs: Sequence[TensorType], inputs: Sequence[tuple[Dim, ...]]) -> Dim | None:
    """The streamed dim if most inputs that carry it have it innermost, else the first result's innermost dim."""
    if stream is None:
        return outs[0].dims[-1] if outs[0].dims else None
    r = stream.dim
    carry = [dims for dims in inputs if r in dims]
    inner = sum(1 for dims in carry if dims[-1] == r)
    last = next((t.dims[-1] for t in outs if t.dims and t.dims[-1] != r), None)
    return r if 2 * inner >= max(1, len(carry)) or last is None else last


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
