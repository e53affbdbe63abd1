"""Which dims of a contraction cluster run where: batch, tile rows (m), tile columns (n), the streamed dim, and what is staged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rvgpu.ir.core import Func, Op, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import K
from rvgpu.ir.types import DType, MemType, TensorType
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import State, Stream, find_stream, frame, reject
from rvgpu.passes.masksplit import Mask, find_masks, grows_with
from rvgpu.passes.places import Piece, Sub
from rvgpu.passes.rows import Emitter

KMAX = {8: 4, 16: 2, 32: 1, 64: 1}
NARROW = frozenset({DType.i8, DType.u8, DType.e4m3, DType.e5m2})  # only where both factors are stored
MATRIX_DTYPES = frozenset({DType.bf16, DType.f16, DType.f32}) | NARROW


Key = tuple[Value, Sub, Value | None]


@dataclass(frozen=True)
class Leaf:
    """An argument tensor, seen through renames, slices and `widened`: `dims` are its dims by the names in use, `sub` leads back to its own."""

    value: Value
    dims: tuple[Dim, ...]
    sub: Sub
    ids: Value | None = None  # i32: where each row of the table stands

    @property
    def key(self) -> Key:
        """Leaves with one key are the same elements."""
        return self.value, self.sub, self.ids

    @property
    def order(self) -> tuple[Dim | None, ...]:
        """Its dims in memory, None behind those that are cut: others do not run on from them."""
        cut = {p.to for _, p in self.sub if p.start is not None}
        return tuple(x for d in self.dims for x in ((d, None) if d in cut else (d,)))


@dataclass(eq=False)
class Product:
    """A contraction state: A (lanes m) is a leaf or an expression made row by row; B (lanes n) is a leaf."""

    state: State
    a: Leaf | None
    a_value: Value
    b: Leaf


@dataclass(eq=False)
class Atom:
    """A contraction inside the streamed body over another dim c: its result rows are the streamed dim, its lanes m."""

    value: Value
    keys: Leaf  # carries the streamed dim
    query: Leaf  # carries m
    dim: Dim


@dataclass(eq=False)
class Group:
    """A state that adds up over the streamed dim what elementwise math (`ops`) makes of a product over another dim."""

    atom: Value
    dim: Dim
    ops: list[Op]


@dataclass(eq=False)
class MatrixPlan:
    stream: Stream
    products: list[Product]
    vectors: list[State]
    atoms: list[Atom]
    batch: tuple[Dim, ...]
    m: tuple[Dim, ...]
    n: tuple[Dim, ...]
    dtype: DType  # of the operands
    masks: list[Mask]
    later_is_longer: bool  # later rows keep more of the streamed dim (causal attention)
    leaves: list[Leaf] = field(default_factory=list)
    epilogue: list[Op] = field(default_factory=list)  # what is done with each element of the products
    group: Group | None = None  # then there is one product: of each group
    witness: State | None = None  # of anchors that stay (Stream.witness)

    @property
    def streamed_rows(self) -> bool:
        """True when A is made from tiles in registers (attention), false for plain GEMM loops."""
        return any(p.a is None for p in self.products) or not self.products

    @property
    def inner(self) -> Dim:
        """The dim that products contract, block by block."""
        return self.group.dim if self.group is not None else self.stream.dim

    def static_dims(self) -> set[str]:
        """Names whose exact value the scratchpad layout needs."""
        return {n for a in self.atoms for n in a.dim.names}


def held(plan: MatrixPlan, limits: Limits) -> State | None:
    """The witness of anchors that stay, where there is more than one block."""
    return plan.witness if limits.bound(plan.stream.dim) > stream_block(plan, limits) else None


STAGING = 224 << 10  # bytes; not the machine's scratchpad: what decides a result's bytes depends on the kernel, VLEN and TE alone


def stream_block(plan: MatrixPlan, limits: Limits) -> int:
    """Rows of the streamed dim between two moves of an anchor: TE, or less where two stages of one warp's operands outgrow STAGING."""
    te, size = limits.te, plan.dtype.bits // 8
    c = sum(limits.bound(a.dim) for a in plan.atoms)
    bk = te
    while bk > KMAX[plan.dtype.bits] * 8 and 2 * size * (bk * te * len(plan.products) + bk * c + te * c) > STAGING:
        bk //= 2
    return bk


def part_block(plan: MatrixPlan, limits: Limits) -> int:
    """The same for a kernel in parts, where half of STAGING holds two stages of a warp's operands; 0 when nothing fits."""
    bk, c, size = limits.te, sum(limits.bound(a.dim) for a in plan.atoms), plan.dtype.bits // 8
    while bk and 2 * size * (bk * limits.te * len(plan.products) + bk * c + min(limits.te, 32) * c) > STAGING // 2:
        bk //= 2
    return bk if bk >= min(limits.te, KMAX[plan.dtype.bits] * 8) else 0


def n_lanes(plan: MatrixPlan, limits: Limits, bn: int) -> int:
    """Lanes of a staged B operand: all `bn`, but no more than the dim may have when that is less than one tile."""
    return min(bn, max(32, -(-limits.product(plan.n) // 32) * 32)) if bn == limits.te else bn


def leaf_of(em: Emitter, v: Value) -> Leaf | None:
    v = em.resolve(v)
    if v in em.tensors:
        return Leaf(v, em.tensors[v][1], ())
    row = gathered(v)
    if row is not None and v.op is not None:
        (table, ids), at = v.op.operands, v.op.attrs["dim"]
        assert isinstance(at, Dim)
        return Leaf(table, v.tensor.dims, ((at, Piece(row, gathered=True)),), ids)
    if widened(v) is not None:
        return leaf_of(em, v.op.operands[0])  # type: ignore[union-attr]
    if v.op is not None and v.op.name in ("rename", "slice"):
        inner = leaf_of(em, v.op.operands[0])
        if inner is not None and inner.ids is None:
            return _moved(em, inner, v.op)
    return None


def _moved(em: Emitter, leaf: Leaf, op: Op) -> Leaf:
    """A leaf seen through a rename or a slice."""
    old, new = (op.attrs[n] for n in (("from", "to") if op.name == "rename" else ("dim", "new")))
    first = op.attrs["start"] if op.name == "slice" else 0
    assert isinstance(old, Dim) and isinstance(new, Dim) and isinstance(first, (int, Dim))
    by = first if isinstance(first, Dim) else Dim((), first)
    seen, dims, sub = dict(leaf.sub), [], []
    for own, d in zip(em.tensors[leaf.value][1], leaf.dims, strict=True):
        start = seen[own].start if own in seen else None
        if d == old:
            d, start = new, by if start is None else start + by
        dims.append(d)
        if d != own or start is not None:
            sub.append((own, Piece(d, start=start)))
    return Leaf(leaf.value, tuple(dims), tuple(sub))


def gathered(v: Value) -> Dim | None:
    """The dim of the rows that v gathers out of a table by i32 positions, both stored: a transfer looks them up."""
    if v.op is None or v.op.name != "take" or any(x.op is not None for x in v.op.operands):
        return None
    table, ids = v.op.operands
    new = [d for d in ids.tensor.dims if d not in table.tensor.dims]
    lane = ids.tensor.dims[-1]
    if ids.tensor.dtype is not DType.i32 or v.op.attrs["dim"] == table.tensor.dims[-1] or lane not in new:
        return None
    return lane


def look_up(k: K, em: Emitter, leaf: Leaf) -> Value | None:
    """The positions of a leaf's rows from the coordinates in scope on, for a transfer."""
    if leaf.ids is None:
        return None
    name, dims, dtype = em.tensors[leaf.ids]
    return em.address(name, dims, dtype, (), 0)[0]


def widened(v: Value) -> Value | None:
    """The 8-bit numbers that v has as 16-bit floats, exactly: read as they are and converted where they are loaded."""
    cast = v.op is not None and v.op.name == "cast" and v.tensor.dtype in (DType.bf16, DType.f16)
    return v.op.operands[0] if cast and v.op is not None and v.op.operands[0].tensor.dtype in NARROW else None


def operand(k: K, place: Value, dtype: DType, count: int, vl: Value, te: int) -> Value:
    """`count` rows of `vl` elements from place[0][0][0] on, as `dtype`."""
    assert isinstance(place.type, MemType)
    if place.type.dtype == dtype:
        return k.opnd_load(place, count, vl, k_axis=1, lane_axis=2)
    rows = [k.mem_at(place, [k.const(0), k.const(u), k.const(0)]) if u else place for u in range(count)]
    return k.opnd_pack([k.cast(k.load(row, vl, axis=2, lanes=te), dtype, vl) for row in rows])


def unpacked(v: Value) -> Value | None:
    """The 4-bit weights that v has as 16-bit floats."""
    cast = v.op is not None and v.op.name == "cast" and v.tensor.dtype in (DType.bf16, DType.f16)
    return v.op.operands[0] if cast and v.op is not None and v.op.operands[0].tensor.dtype is DType.i4 else None


def plan_matrix(func: Func, limits: Limits) -> MatrixPlan | None:
    """The plan of a cluster that runs on the matrix unit, or None when it belongs on the vector unit."""
    stream = find_stream(func) if limits.matrix else None
    if stream is None:
        return None
    _, em = frame(func, limits)
    stream.link(em)
    r = stream.dim
    contractions = [s for s in stream.states if s.contraction]
    factors = [x for s in contractions for x in s.body.yielded] + [x for op in stream.atoms.ops if op.name == "contract" for x in op.operands]
    if any(unpacked(em.resolve(x)) is not None for x in factors):
        return None  # lower_packed's
    if not contractions and (group := _sum_of_groups(func, em, stream)) is not None:
        return group
    atoms = _atoms(em, stream)
    if not contractions:
        return _totals_alone(func, em, stream, atoms) if atoms else None
    lhs, rhs = contractions[0].body.yielded
    out_dims = func.result_types[0].dims
    swap = leaf_of(em, rhs) is None or (leaf_of(em, lhs) is not None and bool(out_dims)
                                        and out_dims[-1] in lhs.tensor.dims and out_dims[-1] not in rhs.tensor.dims)
    if swap:
        lhs, rhs = rhs, lhs
    m = tuple(d for d in lhs.tensor.dims if d != r and d not in rhs.tensor.dims)
    n = tuple(d for d in rhs.tensor.dims if d != r and d not in lhs.tensor.dims)
    if not m or not n:
        if atoms:
            raise reject("a fused contraction needs a dim of its own on both sides", lhs)
        return None
    if lhs.tensor.dtype not in MATRIX_DTYPES or lhs.tensor.dtype != rhs.tensor.dtype:
        return None
    if lhs.tensor.dtype in NARROW and (atoms or any(leaf_of(em, x) is None for s in contractions for x in s.body.yielded)):
        return None
    products = []
    for s in contractions:
        x, y = s.body.yielded
        x, y = (y, x) if swap else (x, y)
        b = leaf_of(em, y)
        if b is None:
            raise reject("the second factor of a fused contraction must be an argument or a stored tensor", y)
        own_m = tuple(d for d in x.tensor.dims if d != r and d not in y.tensor.dims)
        own_n = tuple(d for d in y.tensor.dims if d != r and d not in x.tensor.dims)
        if set(own_m) != set(m) or set(own_n) != set(n):
            raise reject("contractions of one kernel must share their dims", x)
        products.append(Product(s, leaf_of(em, x), x, b))
    leaves = [leaf for p in products for leaf in (p.a, p.b) if leaf] + [leaf for a in atoms for leaf in (a.keys, a.query)]
    m, n, batch = _placed(func, m, n, leaves, {r, *(a.dim for a in atoms)})
    vectors = [s for s in stream.states if not s.contraction]
    masks = find_masks(em, stream)
    witness = stream.witness(em, {m.select for m in masks}, func.results) if atoms else None
    return MatrixPlan(stream, products, vectors, atoms, batch, m, n, lhs.tensor.dtype, masks, grows_with(em, masks, m), leaves,
                      _elements(_behind(func, stream), m, n), witness=witness)


def _placed(func: Func, m: tuple[Dim, ...], n: tuple[Dim, ...], leaves: Sequence[Leaf],
            inner: set[Dim]) -> tuple[tuple[Dim, ...], tuple[Dim, ...], tuple[Dim, ...]]:
    """Rows and columns that run as one axis each, and the batch dims: all others but the `inner` ones."""
    orders = [leaf.order for leaf in leaves] + [p.value.tensor.dims for p in func.params] + [t.dims for t in func.result_types]
    m, extra_m = _mergeable(m, orders)
    n, extra_n = _mergeable(n, orders)
    every = [d for t in func.result_types for d in t.dims] + [d for leaf in leaves for d in leaf.dims]
    batch = dict.fromkeys(d for d in [*extra_m, *extra_n, *every] if d not in m and d not in n and d not in inner)
    return m, n, tuple(sorted(batch, key=lambda d: every.index(d)))


def _behind(func: Func, stream: Stream) -> list[Op]:
    return [op for op in (*func.body.ops, *stream.finish.ops) if op is not stream.op]


def _elements(ops: Sequence[Op], m: tuple[Dim, ...], n: tuple[Dim, ...]) -> list[Op]:
    """Those that make something for each element of the products."""
    return [op for op in ops if any(isinstance(x.type, TensorType) and {*m} & {*x.type.dims} and {*n} & {*x.type.dims} for x in op.results)]


def _totals_alone(func: Func, em: Emitter, stream: Stream, atoms: list[Atom]) -> MatrixPlan:
    """The plan of reductions whose bodies read products: rows and no columns."""
    m = tuple(d for d in atoms[0].query.dims if d not in atoms[0].keys.dims)
    dtypes = {x.tensor.dtype for a in atoms if a.value.op is not None for x in a.value.op.operands}
    fits = all({*a.query.dims} - {*a.keys.dims} == {*m} and {*a.keys.dims} - {*a.query.dims} == {stream.dim} for a in atoms)
    fits = fits and bool(m) and len(dtypes) == 1 and not dtypes & NARROW and dtypes <= MATRIX_DTYPES
    if not fits or any(not {*m} <= {*s.dims} or s.dtype is not DType.f32 for s in stream.states):
        raise reject("a contraction inside a reduction without a matrix result is not supported yet", atoms[0].value)
    leaves = [leaf for a in atoms for leaf in (a.keys, a.query)]
    m, n, batch = _placed(func, m, (), leaves, {stream.dim, *(a.dim for a in atoms)})
    masks = find_masks(em, stream)
    return MatrixPlan(stream, [], list(stream.states), atoms, batch, m, n, dtypes.pop(), masks, grows_with(em, masks, m), leaves)


def groups_of(c: Op, r: Dim) -> bool:
    """Whether a product is one for each position of r: of stored tensors, rows and columns and r in the result."""
    x, y = c.operands
    dims = c.attrs["dims"]
    assert isinstance(dims, tuple)
    own = [{*a.tensor.dims} - {*b.tensor.dims} for a, b in ((x, y), (y, x))]
    alike = x.tensor.dtype == y.tensor.dtype and x.tensor.dtype in MATRIX_DTYPES
    return len(dims) == 1 and all(own) and alike and r in x.tensor.dims and r in y.tensor.dims


def _sum_of_groups(func: Func, em: Emitter, stream: Stream) -> MatrixPlan | None:
    """The plan of sum over r of f(product over another dim)."""
    products = [op for op in stream.atoms.ops if op.name in ("contract", "reduce")]
    if len(products) != 1 or products[0].name != "contract" or len(stream.states) != 1 or stream.states[0].kind != "sum":
        return None
    c, state, r = products[0], stream.states[0], stream.dim
    x, y = c.operands
    a, b = leaf_of(em, x), leaf_of(em, y)
    if a is None or b is None or not groups_of(c, r) or {*state.dims} != {*c.result.tensor.dims} - {r}:
        return None
    last = func.result_types[0].dims[-1]
    if last in a.dims and last not in b.dims:
        a, b, x = b, a, y
    m = tuple(d for d in a.dims if d not in b.dims)
    n = tuple(d for d in b.dims if d not in a.dims)
    dim = c.attrs["dims"][0]  # type: ignore[index]
    assert isinstance(dim, Dim)
    m, n, batch = _placed(func, m, n, [a, b], {r, dim})
    ops = [op for op in _elements([*stream.atoms.ops, *state.body.ops], m, n) if op is not c]
    return MatrixPlan(stream, [Product(state, a, x, b)], [], [], batch, m, n, x.tensor.dtype, [], False, [a, b],
                      _elements(_behind(func, stream), m, n), Group(c.result, dim, ops))


def _mergeable(group: tuple[Dim, ...], orders: Sequence[tuple[Dim | None, ...]]) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """(dims that stand side by side in every tensor that has them and may run as one axis, the rest)."""
    order = next((tuple(d for d in o if d in group) for o in reversed(orders) if all(d in o for d in group)), group)
    for start in range(len(order)):
        run = order[start:]
        if all(not set(run) & set(o) or any(o[i:i + len(run)] == run for i in range(len(o))) for o in orders):
            return run, order[:start]
    return order[-1:], order[:-1]


def _atoms(em: Emitter, stream: Stream) -> list[Atom]:
    out = []
    for op in stream.atoms.ops:
        if op.name == "contract":
            out.append(_atom(em, stream, op))
        elif op.name == "reduce":
            raise reject("a reduction over another dim inside a streamed body is not supported yet", op.results[0])
    return out


def _atom(em: Emitter, stream: Stream, op: Op) -> Atom:
    x, y = (leaf_of(em, v) for v in op.operands)
    dims = op.attrs["dims"]
    assert isinstance(dims, tuple)
    if x is None or y is None or len(dims) != 1:
        raise reject("the factors of a fused contraction must be arguments or stored tensors", op.results[0])
    c = dims[0]
    assert isinstance(c, Dim)
    keys, query = (x, y) if stream.dim in x.dims else (y, x)
    if stream.dim in query.dims or stream.dim not in keys.dims:
        raise reject("one factor of a fused contraction carries the streamed dim, the other does not", op.results[0])
    return Atom(op.result, keys, query, c)
