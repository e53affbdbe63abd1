"""Level T expressions become level K rows: where each dim runs (lanes, rows, a fixed coordinate) decides how a value is made.

A stack of scopes (`places`) says which dims have a coordinate so far (work item, block of the streamed dim, row, chunk of lanes). A value is
emitted in the outermost scope in which everything that it varies with is known, so whatever does not depend on an inner loop
stands before it. A row scope may hold several rows at once (`rows` > 1): every op is then repeated per row, interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rvgpu.ir.core import Op, Param, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import CMPS, K
from rvgpu.ir.types import DType, MemType, ScalarType, VecType
from rvgpu.passes.places import Axis, Piece, Places, Rows, Scope, Sub, sub_of


@dataclass(eq=False)
class Staged:
    """A tensor (or part of it) that stands in scratchpad: `at(sub, row)` gives its sub-buffer and the lane axis or None. `whole`: all
    positions of its last dim are there, not only those of the coordinates in scope."""

    at: Callable[[Emitter, Sub, int], tuple[Value, int | None]]
    whole: bool = True

    def has(self, dims: Sequence[Dim], moved: Mapping[Dim, Piece], scattered: Iterable[Dim]) -> bool:
        """Whether it holds what is asked for, seen through the pieces that lead to another place."""
        return not moved or (self.whole and set(moved) <= {dims[-1]} and not set(scattered))


COMMUTATIVE = frozenset({"add", "mul", "max", "min", "and", "or", "eq", "ne"})
INVERSE = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq"}
SWAPPED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le", "eq": "eq", "ne": "ne"}


class Emitter(Places):
    def __init__(self, k: K, params: Sequence[Param], tensors: Mapping[Value, tuple[str, tuple[Dim, ...], DType]]) -> None:
        super().__init__(k)
        self.tensors = dict(tensors)
        self.scalars = {p.value: p.name for p in params if p.keyword}
        self.alias: dict[Value, Value] = {}
        self.staged: dict[Value, Staged] = {}
        self.fused = False  # whether x * y + z is one rounding here
        self.splats = False  # whether bf16 lanes less a scalar are x * 1 + what a splat in scratchpad holds: one operation with the conversion
        self._splat: dict[tuple[Scope, Value], Value] = {}

    # -- values
    def resolve(self, v: Value) -> Value:
        while v in self.alias:
            v = self.alias[v]
        return v

    def depth(self, v: Value, sub: Sub) -> int:
        v = self.resolve(v)
        memo = self.scopes[-1].depth_memo
        if (v, sub) not in memo:
            memo[v, sub] = self._depth(v, sub)
        return memo[v, sub]

    def _depth(self, v: Value, sub: Sub) -> int:
        for n in range(len(self.scopes) - 1, -1, -1):
            if v in self.scopes[n].bind:
                return n
        if v in self.scalars:
            return 0
        lookup = dict(sub)
        if v in self.tensors:
            return max([self._piece_depth(d, lookup) for d in self.tensors[v][1]], default=0)
        assert v.op is not None, f"unbound value {v}"
        if v.op.name == "iota":
            return self._piece_depth(_dim(v.op, "dim"), lookup)
        own = [self._piece_depth(_dim(v.op, "new"), lookup)] if v.op.name in ("pad", "concat") else []
        return max(own + [self.depth(x, inner) for x, inner in self._operands(v, sub)], default=0)

    def _piece_depth(self, d: Dim, lookup: Mapping[Dim, Piece]) -> int:
        piece = lookup.get(d, Piece(d))
        return self.axis_of(piece.to)[0] if piece.ids is None else self.depth(piece.ids, piece.seen)

    def _operands(self, v: Value, sub: Sub) -> list[tuple[Value, Sub]]:
        """The operands that v needs under `sub`, and the substitution each is seen through (renames, slices, pads, concats, gathers)."""
        assert v.op is not None
        op = v.op
        lookup = dict(sub)
        if op.name == "take":
            dim, ids = _dim(op, "dim"), op.operands[1]
            own = set(op.operands[0].tensor.dims)
            table = {d: p for d, p in lookup.items() if d in own and d != dim}
            table[dim] = Piece(dim, ids=ids, seen=sub)
            return [(op.operands[0], sub_of(table)), (ids, sub)]
        if op.name not in ("rename", "slice", "pad", "concat"):
            return [(x, sub) for x in op.operands]
        old, new = (_dim(op, "from"), _dim(op, "to")) if op.name == "rename" else (_dim(op, "dim"), _dim(op, "new"))
        piece = lookup.pop(new, Piece(new))
        if op.name == "rename":
            lookup[old] = piece
        elif op.name == "slice":
            lookup[old] = self._shifted(piece, self._extent_attr(op, "start"))
        elif op.name == "pad":
            lookup[old] = replace(self._shifted(piece, self._minus(self._extent_attr(op, "before"))), guarded=True)
            return [(op.operands[0], sub_of(lookup)), (op.operands[1], ())]
        elif piece.index >= 0 and piece.to == old:
            return [(op.operands[piece.index], sub_of(lookup))]
        else:
            out = []
            for n, x in enumerate(op.operands):
                with self.k.at(self.root):
                    start = self.k.idx("mul", self.extent(old), -n)
                out.append((x, sub_of({**lookup, old: replace(self._shifted(piece, start), guarded=True)})))
            return out
        return [(op.operands[0], sub_of(lookup))]

    def _extent_attr(self, op: Op, name: str) -> Value:
        value = op.attrs[name]
        assert isinstance(value, (int, Dim))
        return self.extent(value if isinstance(value, Dim) else Dim((), value))

    def _minus(self, x: Value) -> Value:
        with self.k.at(self.root):
            return self.k.idx("sub", 0, x)

    def _shifted(self, piece: Piece, by: Value) -> Piece:
        if piece.offset is not None:
            with self.k.at(self.root):
                by = self.k.idx("add", by, piece.offset)
        return replace(piece, offset=by, index=-1)

    def emit(self, v: Value, sub: Sub = ()) -> Rows:
        """v at the coordinates in scope: one K value per row of the scope it varies in."""
        v = self.resolve(v)
        home = self.scopes[self.depth(v, sub)]
        key = (v, sub)
        if key not in home.memo:
            saved = self.k.loc
            if v.op is not None and v.op.loc is not None:
                self.k.loc = v.op.loc
            with self.k.at(home.block):
                home.memo[key] = self._make(v, sub, home)
            self.k.loc = saved
        return home.memo[key]

    def one(self, v: Value, sub: Sub = ()) -> Value:
        rows = self.emit(v, sub)
        assert len(rows) == 1
        return rows[0]

    def _make(self, v: Value, sub: Sub, home: Scope) -> Rows:
        if v in home.bind:
            b = home.bind[v]
            return b() if callable(b) else b
        k = self.k
        if v in self.scalars:
            return (k.scalar(self.scalars[v], v.tensor.dtype),)
        if v in self.tensors:
            return tuple(self._load(v, sub, row) for row in range(home.rows))
        assert v.op is not None
        op = v.op
        if op.name == "const":
            value = op.attrs["value"]
            assert isinstance(value, (int, float))
            return (k.sconst(value, v.tensor.dtype),)
        if op.name == "size":
            d = op.attrs["dim"]
            assert isinstance(d, Dim)
            return (k.s_from_idx(self.extent(d)),)
        if op.name == "iota":
            d = _dim(op, "dim")
            return self._position(dict(sub).get(d, Piece(d)), home.rows)
        xs = [self.emit(x, inner) for x, inner in self._operands(v, sub)]
        if op.name in ("rename", "slice", "take") or op.name == "concat" and len(xs) == 1:
            return xs[0]
        if op.name in ("pad", "concat"):
            new = _dim(op, "new")
            at = self._position(dict(sub).get(new, Piece(new)), home.rows)
            return self._joined(op, xs, at, v.tensor.dtype)
        n = max(len(x) for x in xs)
        return tuple(self.apply(op.name, [x[u % len(x)] for x in xs], op.attrs, v.tensor.dtype) for u in range(n))

    def _joined(self, op: Op, xs: list[Rows], at: Rows, dtype: DType) -> Rows:
        """A pad's or a concat's operands, each where the position along the new dim is its own."""
        k = self.k
        size = k.s_from_idx(self.extent(_dim(op, "dim")))
        n = max(len(x) for x in [*xs, at])
        out = []
        for u in range(n):
            here, ys = at[u % len(at)], [x[u % len(x)] for x in xs]
            if op.name == "pad":
                before = k.s_from_idx(self._extent_attr(op, "before"))
                inside = self._within(self.apply("sub", [here, before], {}, DType.i32), size)
                out.append(self.apply("select", [inside, *ys], {}, dtype))
                continue
            y = ys[-1]
            for m in range(len(ys) - 2, -1, -1):
                end = k.s("mul", size, k.sconst(m + 1, DType.i32))
                y = self.apply("select", [self.apply("lt", [here, end], {}, DType.i1), ys[m], y], {}, dtype)
            out.append(y)
        return tuple(out)

    def _within(self, at: Value, size: Value) -> Value:
        """0 <= at < size."""
        low = self.apply("ge", [at, self.k.sconst(0, DType.i32)], {}, DType.i1)
        return self.apply("and", [low, self.apply("lt", [at, size], {}, DType.i1)], {}, DType.i1)

    def ids(self, piece: Piece, row: int) -> Value:
        assert piece.ids is not None
        rows = self.emit(piece.ids, piece.seen)
        x = rows[row % len(rows)]
        return x if _dtype(x) == DType.i32 else self.apply("cast", [x], {}, DType.i32)

    def _load(self, v: Value, sub: Sub, row: int) -> Value:
        """One value, or one along lanes; nothing is read where a guarded position lies outside the tensor."""
        k = self.k
        name, dims, dtype = self.tensors[v]
        pieces = {d: p for d, p in sub if d in dims and (p.offset is not None or p.ids is not None)}
        scattered = {d: x for d, p in pieces.items() if p.ids is not None and isinstance((x := self.ids(p, row)).type, VecType)}
        if v in self.staged and self.staged[v].has(dims, pieces, scattered):
            mem, lane = self.staged[v].at(self, sub, row)
        else:
            mem, lane = self.address(name, dims, dtype, sub, row)
        inside = None
        for d, p in pieces.items():
            if p.guarded:
                at = self._position(p, row + 1)
                ok = self._within(at[row % len(at)], k.s_from_idx(self.extent(d)))
                inside = ok if inside is None else self.apply("and", [inside, ok], {}, DType.i1)
        if scattered:
            return self._gather(mem, lane, dims, scattered, inside)
        if lane is None:
            if inside is None:
                return k.s_load(mem)
            return k.if_(inside, lambda: [k.s_load(mem)], lambda: [k.sconst(0, dtype)])[0]
        axis = self.lane_axis()
        assert axis.vl is not None
        if inside is None:
            return k.load(mem, axis.vl, axis=lane, lanes=axis.lanes)
        if isinstance(inside.type, VecType):
            return k.masked_load(mem, inside, axis.vl, axis=lane)
        return k.load(mem, k.idx_select(inside, axis.vl, 0), axis=lane, lanes=axis.lanes)

    def _gather(self, mem: Value, lane: int | None, dims: tuple[Dim, ...], scattered: Mapping[Dim, Value], inside: Value | None) -> Value:
        """Elements at positions that differ from lane to lane; where `inside` says no, the first one."""
        k, axis = self.k, self.lane_axis()
        assert axis.vl is not None

        def stride(d: Dim) -> Value:
            assert isinstance(mem.type, MemType)
            return k.s_from_idx(self.stride(dims[dims.index(d) + 1:], mem.type.dtype))

        terms = [k.vt("mul", x, stride(d), vl=axis.vl) for d, x in scattered.items()]
        if lane is not None:
            inner = next(d for d in reversed(axis.dims) if d in dims)
            terms.append(k.vt("mul", k.iota(axis.vl, axis.lanes), stride(inner), vl=axis.vl))
        at = terms[0]
        for t in terms[1:]:
            at = k.vt("add", at, t, vl=axis.vl)
        if inside is not None:
            at = self.apply("select", [inside, at, k.sconst(0, DType.i32)], {}, DType.i32)
        return k.gather(mem, at, axis.vl)

    def _position(self, piece: Piece, rows: int) -> Rows:
        """Where a dim stands, as i32: a scalar for each row or lanes."""
        k = self.k
        shift = k.s_from_idx(piece.offset) if piece.offset is not None else None

        def moved(x: Value) -> Value:
            return x if shift is None else self.apply("add", [x, shift], {}, DType.i32)

        if piece.ids is not None:
            ids = self.emit(piece.ids, piece.seen)
            return tuple(moved(self.ids(piece, row)) for row in range(len(ids)))
        _, axis = self.axis_of(piece.to)
        pos = axis.dims.index(piece.to)
        inner = self.product(axis.dims[pos + 1:]) if pos + 1 < len(axis.dims) else None
        if axis.vl is None:
            out = []
            for row in range(rows if self.is_row(axis) else 1):
                at = self.coordinate(axis, row)
                at = k.idx("div", at, inner) if inner is not None else at
                at = k.idx("rem", at, self.extent(piece.to)) if pos > 0 else at
                out.append(k.s_from_idx(k.idx("add", at, piece.offset) if piece.offset is not None else at))
            return tuple(out)
        lanes = k.vt("add", k.iota(axis.vl, axis.lanes), k.s_from_idx(axis.base), vl=axis.vl)
        if inner is not None:
            lanes = k.vt("div", lanes, k.s_from_idx(inner), vl=axis.vl)
        if pos > 0:
            lanes = k.vt("mod", lanes, k.s_from_idx(self.extent(piece.to)), vl=axis.vl)
        return (moved(lanes),)

    def _inverse(self, mask: Value, vl: Value) -> Value | None:
        """The opposite of an integer comparison."""
        if mask.op is None or mask.op.name[3:] not in INVERSE:
            return None
        a, b, _ = mask.op.operands
        t = a.type
        assert isinstance(t, VecType)
        return None if t.dtype.is_float else self.k.vt(INVERSE[mask.op.name[3:]], a, b, vl=vl)

    def apply(self, name: str, xs: list[Value], attrs: Mapping[str, object], dtype: DType) -> Value:
        """One elementwise op on scalars and vectors."""
        k = self.k
        if all(isinstance(x.type, ScalarType) for x in xs):
            if name == "cast":
                return k.s_cast(xs[0], dtype)
            return k.s(name, *xs, dtype=dtype)
        axis = self.lane_axis()
        vl = axis.vl
        assert vl is not None
        if name == "cast":
            return k.cast(xs[0], dtype, vl)
        if name == "select":
            mask, x, y = xs
            if not isinstance(mask.type, VecType):
                mask = k.bcast(mask, vl, axis.lanes)
            if not isinstance(x.type, VecType) and not isinstance(y.type, VecType):
                y = k.bcast(y, vl, axis.lanes)
            if isinstance(x.type, VecType) and not isinstance(y.type, VecType):
                other = self._inverse(mask, vl)
                if other is not None:  # a merge takes its scalar where the mask is set
                    mask, x, y = other, y, x
            return k.select(mask, x, y, vl)
        if dtype == DType.i1 and name in ("and", "or"):  # masks have no scalar operand
            xs = [x if isinstance(x.type, VecType) else k.bcast(x, vl, axis.lanes) for x in xs]
        if len(xs) == 2 and isinstance(xs[0].type, ScalarType):
            if name in COMMUTATIVE or name in CMPS:
                xs, name = [xs[1], xs[0]], SWAPPED.get(name, name)
            elif name not in ("sub", "div"):
                xs = [k.bcast(xs[0], vl, axis.lanes), xs[1]]
        keep = {"anchored": bool(attrs["anchored"])} if attrs.get("anchored") else {}
        if name == "add":
            return self.add(xs[0], xs[1], vl)
        if name == "sub" and isinstance(xs[1].type, VecType) and (product := self._product(xs[0])):
            return k.vt("fms", *product, xs[1], vl=vl)
        if name == "sub" and self.splats and isinstance(xs[1].type, ScalarType) and _widened(xs[0]):
            return k.vt("fma", xs[0], k.sconst(1.0, DType.f32), self._less(xs[1], axis), vl=vl)
        return k.vt(name, *xs, vl=vl, **keep)

    def add(self, x: Value, y: Value, vl: Value) -> Value:
        """x + y, by one fused operation where one of them is a product."""
        for a, b in ((x, y), (y, x)):
            if isinstance(b.type, VecType) and (product := self._product(a)):
                return self.k.vt("fma", *product, b, vl=vl)
        return self.k.vt("add", x, y, vl=vl)

    def _less(self, x: Value, axis: Axis) -> Value:
        """-x in every lane, read from scratchpad, where it was stored outside the loop over lanes."""
        k = self.k
        home = self.scopes[next(n for n, s in enumerate(self.scopes) if axis in s.axes) - 1]
        if (home, x) not in self._splat:
            with k.at(self.root):
                mem = k.spm_alloc(DType.f32, [k.const(axis.lanes)], [k.const(1)], name="splat", size_bytes=axis.lanes * 4, per_warp=True)
            with k.at(home.block):
                lanes = k.const(axis.lanes)
                k.store(mem, k.bcast(k.s("neg", x), lanes, axis.lanes), lanes, axis=0)
            self._splat[home, x] = mem
        assert axis.vl is not None
        return k.load(self._splat[home, x], axis.vl, axis=0, lanes=axis.lanes)

    def _product(self, x: Value) -> list[Value]:
        t = x.type
        fits = self.fused and isinstance(t, VecType) and t.dtype is DType.f32 and x.op is not None and x.op.name == "vt.mul"
        return x.op.operands[:2] if fits and x.op is not None else []


def _dim(op: Op, name: str) -> Dim:
    d = op.attrs[name]
    assert isinstance(d, Dim)
    return d


def _widened(x: Value) -> bool:
    """Lanes of f32 that were bf16."""
    return x.op is not None and x.op.name == "vt.cast" and _dtype(x) is DType.f32 and _dtype(x.op.operands[0]) is DType.bf16


def _dtype(x: Value) -> DType:
    assert isinstance(x.type, (ScalarType, VecType))
    return x.type.dtype
