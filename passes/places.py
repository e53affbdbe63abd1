"""Where things are: the coordinates in scope, the dims' extents, and the addresses of tensors at those coordinates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rvgpu.errors import RvgpuError
from rvgpu.ir.core import Block, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import K
from rvgpu.ir.types import DType, VecType

Rows = tuple[Value, ...]  # one K value per row of the scope, or a single one for all rows
Binds = dict[Value, Rows | Callable[[], Rows]]  # what values stand for, or what makes it where it is needed


@dataclass(frozen=True)
class Piece:
    """How a dim of the expression is reached from the coordinates in scope: dim `to`, shifted by `offset`; `index` picks the
    operand of a concat along the dim. `ids`: the position is what this value says (seen through `seen`), `to` counts for nothing.
    `guarded`: the position may lie outside, where nothing is read."""

    to: Dim
    offset: Value | None = None
    index: int = -1
    ids: Value | None = None
    seen: Sub = ()
    guarded: bool = False
    gathered: bool = False  # rows of a transfer: the origin, and the transfer looks up where each row stands
    start: Dim | None = None  # a further shift, by an extent


Sub = tuple[tuple[Dim, "Piece"], ...]


def sub_of(lookup: Mapping[Dim, Piece]) -> Sub:
    return tuple(sorted(lookup.items(), key=lambda kv: kv[0]))


@dataclass(eq=False)
class Axis:
    """Dims (several when merged, outermost first) that run together from `base`; along lanes when `vl` is given."""

    dims: tuple[Dim, ...]
    base: Value
    vl: Value | None = None
    lanes: int = 0


@dataclass(eq=False)
class Scope:
    block: Block
    axes: list[Axis] = field(default_factory=list)
    bind: Binds = field(default_factory=dict)
    rows: int = 1
    memo: dict[tuple[Value, Sub], Rows] = field(default_factory=dict)
    depth_memo: dict[tuple[Value, Sub], int] = field(default_factory=dict)


class Places(ABC):
    def __init__(self, k: K) -> None:
        self.k = k
        self.scopes: list[Scope] = [Scope(k.block)]
        self._extents: dict[Dim, Value] = {}
        self._views: dict[tuple[str, tuple[tuple[Dim, ...], ...]], Value] = {}

    @abstractmethod
    def ids(self, piece: Piece, row: int) -> Value:
        """The position, as an i32 scalar or vector, that a gather's table is read at (without the piece's offset)."""

    # -- scopes
    @contextmanager
    def scope(self, axes: Sequence[Axis] = (), bind: Binds | None = None,
              rows: int = 1) -> Iterator[Scope]:
        s = Scope(self.k.block, list(axes), dict(bind or {}), rows)
        self.scopes.append(s)
        yield s
        self.scopes.pop()

    @property
    def root(self) -> Block:
        return self.scopes[0].block

    def lane_axis(self) -> Axis:
        for s in reversed(self.scopes):
            for a in s.axes:
                if a.vl is not None:
                    return a
        raise AssertionError("no lane axis in scope")

    def axis_of(self, dim: Dim) -> tuple[int, Axis]:
        for depth in range(len(self.scopes) - 1, -1, -1):
            for a in self.scopes[depth].axes:
                if dim in a.dims:
                    return depth, a
        raise AssertionError(f"dim {dim} has no coordinate here")

    # -- extents and views, at the function's top
    def extent(self, dim: Dim) -> Value:
        if dim not in self._extents:
            k = self.k
            with k.at(self.root):
                v: Value | None = k.const(dim.const) if dim.const or not dim.terms else None
                for name, c in dim.terms:
                    term = self.extent(Dim.of(name)) if dim.name is None else k.dim(name)
                    term = k.idx("mul", term, c) if c != 1 else term
                    v = term if v is None else k.idx("add", v, term)
            assert v is not None
            self._extents[dim] = v
        return self._extents[dim]

    def set_extent(self, dim: Dim, value: Value) -> None:
        """The extent of a dim that no tensor of the kernel has."""
        self._extents[dim] = value

    def product(self, dims: Sequence[Dim]) -> Value:
        with self.k.at(self.root):
            out = self.extent(dims[0]) if dims else self.k.const(1)
            for d in dims[1:]:
                out = self.k.idx("mul", out, self.extent(d))
        return out

    def view(self, name: str, dims: tuple[Dim, ...], dtype: DType, groups: tuple[tuple[Dim, ...], ...]) -> Value:
        """The argument tensor with `groups` of adjacent dims merged into one axis each (they cover dims in order)."""
        key = (name, groups)
        if key not in self._views:
            assert tuple(d for g in groups for d in g) == dims, (name, groups, dims)
            with self.k.at(self.root):
                extents, strides = [], []
                for n, g in enumerate(groups):
                    extents.append(self.product(g))
                    rest = [d for later in groups[n + 1:] for d in later]
                    strides.append(self.stride(rest, dtype))
                self._views[key] = self.k.mem_arg(name, dtype, extents, strides)
        return self._views[key]

    def stride(self, rest: Sequence[Dim], dtype: DType) -> Value:
        """Elements between neighbours of a dim that `rest` stands behind; a row of i4 ends with its byte."""
        if dtype != DType.i4 or not rest:
            return self.product(rest)
        with self.k.at(self.root):
            row = self.k.idx("mul", self.k.idx("div", self.k.idx("add", self.extent(rest[-1]), 1), 2), 2)
            return self.k.idx("mul", self.product(rest[:-1]), row) if rest[1:] else row

    def groups(self, dims: tuple[Dim, ...], sub: Sub, row: int = 0) -> list[tuple[tuple[Dim, ...], Axis, Value | None]]:
        """dims cut into runs that belong to one axis each, with the axis and the shift of a substituted dim."""
        out: list[tuple[tuple[Dim, ...], Axis, Value | None]] = []
        lookup = dict(sub)
        n = 0
        while n < len(dims):
            piece = lookup.get(dims[n])
            if piece and piece.ids is not None:
                at = self.ids(piece, row)
                varies = isinstance(at.type, VecType)  # along lanes: `_gather` adds them
                out.append(((dims[n],), Axis((dims[n],), self.k.const(0) if varies else self.k.idx_from_s(at)), piece.offset))
                n += 1
                continue
            _, axis = self.axis_of(piece.to if piece else dims[n])
            if len(axis.dims) == 1:
                back = self.k.idx("sub", 0, axis.base) if piece and piece.gathered else None
                out.append(((dims[n],), axis, back or (self._offset(piece) if piece else None)))
                n += 1
                continue
            run = dims[n:n + len(axis.dims)]
            if run != axis.dims or piece:
                raise RvgpuError("E301", f"dims {','.join(map(str, dims))} cannot be cut along the merged axis "
                                 f"{','.join(map(str, axis.dims))}")
            out.append((run, axis, None))
            n += len(run)
        return out

    def _offset(self, piece: Piece) -> Value | None:
        if piece.start is None:
            return piece.offset
        start = self.extent(piece.start)
        return start if piece.offset is None else self.k.idx("add", piece.offset, start)

    def address(self, name: str, dims: tuple[Dim, ...], dtype: DType, sub: Sub, row: int) -> tuple[Value, int | None]:
        """The sub-buffer of a DRAM tensor at the coordinates in scope, and which of its axes runs along lanes."""
        parts = self.groups(dims, sub, row)
        mem = self.view(name, dims, dtype, tuple(g for g, _, _ in parts))
        index, lane = [], None
        for n, (_, axis, offset) in enumerate(parts):
            at = self.coordinate(axis, row)
            index.append(self.k.idx("add", at, offset) if offset is not None else at)
            if axis.vl is not None:
                lane = n
        return (self.k.mem_at(mem, index) if index else mem), lane

    def coordinate(self, axis: Axis, row: int) -> Value:
        return axis.base if row == 0 or axis.vl is not None or not self.is_row(axis) else self.k.idx("add", axis.base, row)

    def is_row(self, axis: Axis) -> bool:
        return any(s.rows > 1 and axis in s.axes for s in self.scopes)
