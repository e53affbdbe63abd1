"""Products with 4-bit weights whose groups are scaled and added up: each warp streams two tiles of columns, group after group.

A byte holds the weights of two neighbouring columns. Its halves become two operands of the multiply, one tile of even and one of odd columns:
a load takes two rows at once, three operations on bytes take both halves of both, one conversion each makes the rows. Per group the tiles are
read, put in order in scratchpad, and go through the rest of the body (the scale) into totals. Bound: 7 cycles of the vector unit for 64 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType, TensorType, VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import State, ceil_div, clamp, decode, find_stream, frame, identity, results
from rvgpu.passes.matrix_plan import KMAX, Leaf, leaf_of, unpacked
from rvgpu.passes.places import Axis, Binds
from rvgpu.passes.rows import Emitter

CELLS = 1024  # rows times TE of a work item, at most 16 rows and TE: what totals and staged activations have room for
HALVES = 2
BLOCK = 128  # positions of a plain product between two moves of its tiles to the totals


@dataclass(frozen=True)
class PackedPlan:
    """sum over c of f(sum over j of x[m, c, j] w[c, j, n], ...). Without c: the sum over j, BLOCK positions after the other."""

    atom: Value | None
    x: Leaf
    w: Leaf
    m: tuple[Dim, ...]
    n: Dim
    c: Dim | None
    j: Dim
    state: State
    dtype: DType


def plan_packed(func: Func, limits: Limits) -> PackedPlan | None:
    _, em = frame(func, limits)
    stream = find_stream(func)
    if stream is None or len(stream.states) != 1 or stream.states[0].kind != "sum":
        return None
    products = [op for op in stream.atoms.ops if op.name in ("contract", "reduce")]
    stream.link(em)
    state, r = stream.states[0], stream.dim
    if state.contraction and not products:
        (x, y), dims, c = (em.resolve(v) for v in state.body.yielded), (r,), None
    elif len(products) == 1 and products[0].name == "contract" and not state.contraction:
        (x, y), dims, c = products[0].operands, products[0].attrs["dims"], r  # type: ignore[assignment]
    else:
        return None
    a, b = (y, x) if unpacked(x) is not None else (x, y)
    inner, x_leaf = unpacked(b), leaf_of(em, a)
    w_leaf = leaf_of(em, inner) if inner is not None else None
    assert isinstance(dims, tuple)
    if any(op.name != "rename" and op.results[0] is not b for op in func.body.walk() for v in op.operands if v.tensor.dtype is DType.i4):
        return None
    if x_leaf is None or w_leaf is None or len(dims) != 1 or KMAX[a.tensor.dtype.bits] != 2:
        return None
    j, n = dims[0], w_leaf.dims[-1]
    assert isinstance(j, Dim)
    inside = {j} if c is None else {c, j}
    m = tuple(d for d in x_leaf.dims if d not in inside)
    if not m or n in x_leaf.dims or {*w_leaf.dims} != {*inside, n} or len(w_leaf.dims) != len(inside) + 1 or not inside <= {*x_leaf.dims}:
        return None
    return PackedPlan(products[0].result if products else None, x_leaf, w_leaf, m, n, c, j, state, a.tensor.dtype)


def lower_packed(func: Func, limits: Limits) -> KFunc | None:
    """The kernel of such a function, None when it is none."""
    plan = plan_packed(func, limits)
    return _Packed(func, limits, plan).build() if plan else None


class _Packed:
    def __init__(self, func: Func, limits: Limits, plan: PackedPlan) -> None:
        self.func, self.limits = func, limits
        self.k, self.em = frame(func, limits)
        k, em, te = self.k, self.em, limits.te
        stream = find_stream(func)
        assert stream is not None
        stream.link(em)
        self.stream, self.outs, self.plan = stream, results(func, k), plan
        self.te, self.zero, self.warp = k.special("te"), k.const(0), k.special("warp")
        self.both = k.idx("mul", self.te, HALVES)
        self.M, self.N = em.product(plan.m), em.extent(plan.n)
        self.J = em.extent(plan.j)
        self.C = em.extent(plan.c) if plan.c is not None else ceil_div(k, self.J, BLOCK)
        self.n_tiles = ceil_div(k, self.N, HALVES * te)
        self.bm = min(16, te, CELLS // te)
        self.items = k.idx("mul", ceil_div(k, self.M, self.bm), self.n_tiles)
        self.dtype = plan.dtype
        self.kmax = KMAX[self.dtype.bits]
        self.cap = max(4, min(self.bm, 1 << (max(1, limits.product(plan.m)) - 1).bit_length()))
        self.rows = BLOCK if plan.c is None else -(-max(1, limits.bound(plan.j)) // self.kmax) * self.kmax
        self.view = self._bytes_of(em, plan.w)
        # rows of bytes stand side by side: a load may run on into the next one
        size = self.rows * te
        self.weights = k.spm_alloc(DType.i8, [k.const(2), k.const(self.rows), k.const(size)], [k.const(size), k.const(te), k.const(1)],
                                   name=em.tensors[plan.w.value][0], size_bytes=2 * size, per_warp=True)
        size = self.rows * self.cap
        self.input = k.spm_alloc(self.dtype, [k.const(2), k.const(self.rows), k.const(self.cap)], [k.const(size), k.const(self.cap), k.const(1)],
                                 name=em.tensors[plan.x.value][0], size_bytes=2 * size * self.dtype.bits // 8, per_warp=True)
        width = HALVES * te
        shape, strides = [self.cap, te, width], [width, HALVES, 1]  # pairs of columns along axis 1, columns along axis 2
        self.ordered = k.spm_alloc(DType.f32, [k.const(x) for x in shape], [k.const(x) for x in strides], name="columns",
                                   size_bytes=self.cap * width * 4, per_warp=True)
        self.totals = k.spm_alloc(DType.f32, [k.const(self.cap), k.const(width)], [k.const(width), k.const(1)], name="totals",
                                  size_bytes=self.cap * width * 4, per_warp=True)
        self.accs = [k.acc_alloc() for _ in range(HALVES)]

    def _bytes_of(self, em: Emitter, w: Leaf) -> Value:
        """The weights as bytes; each row is padded to a byte."""
        k = self.k
        name, dims, _ = em.tensors[w.value]
        extents = [em.extent(d) for d in dims[:-1]] + [ceil_div(k, em.extent(dims[-1]), HALVES)]
        strides = [k.const(1)]
        for e in extents[:0:-1]:
            strides.insert(0, k.idx("mul", strides[0], e))
        return k.mem_arg(name, DType.i8, extents, strides)

    # -- work items: a warp each
    def build(self) -> KFunc:
        self.k.work(ceil_div(self.k, self.items, self.limits.warps), self._item)
        return self.k.func

    def _place(self, w: Value) -> tuple[Value, Value, Value, Value]:
        """(first row, rows, first column, whether the item is this warp's own: a warp without one repeats the last and stores nothing)."""
        k = self.k
        item = k.idx("add", k.idx("mul", w, self.limits.warps), self.warp)
        mt, nt = decode(k, k.idx("min", item, k.idx("sub", self.items, 1)), [self.zero, self.n_tiles])
        m0 = k.idx("mul", mt, self.bm)
        return m0, clamp(k, k.idx("sub", self.M, m0), self.bm), k.idx("mul", nt, HALVES * self.limits.te), k.cmp("lt", item, self.items)

    def _item(self, w: Value) -> None:
        k = self.k
        self.m0, self.vl_m, self.n0, mine = self._place(w)
        te = self.limits.te
        self.vl_n = [clamp(k, k.idx("sub", self.N, k.idx("add", self.n0, g * te)), self.te) for g in range(HALVES)]

        def clear(q: Value, _: list[Value]) -> Sequence[Value]:
            for g in range(HALVES):
                k.store(k.mem_at(self.totals, [q, k.const(g * te)]), k.bcast(identity(k, self.plan.state), self.te, te), self.te, axis=1)
            return []

        k.for_(0, self.vl_m, 1, [], clear)
        k.pipe(w, 1, [], lambda _: (self.zero, self.C), self._copy, self._group, private=True)
        k.if_(mine, self._store)

    def _copy(self, w: Value, c: Value, stage: Value, _wstage: Value) -> None:
        k, em, plan, te = self.k, self.em, self.plan, self.limits.te
        m0, vl_m, n0, _ = self._place(w)
        name, dims, dtype = em.tensors[plan.x.value]
        group, begin, count = self._block(c)
        rows, depth = Axis(plan.m, m0), Axis((plan.j,), begin)
        with em.scope([rows, *group, depth]):
            parts = em.groups(dims, plan.x.sub)
            mem, _ = em.address(name, dims, dtype, plan.x.sub, 0)
            m_at, j_at = (next(n for n, (_, axis, _) in enumerate(parts) if axis is a) for a in (rows, depth))
            dst = k.mem_at(self.input, [stage, self.zero, self.zero])
            if j_at == len(parts) - 1:
                k.dma_load(dst, mem, vl_m, count, k.const(self.cap), k.const(self.rows), src_axes=(m_at, j_at), dst_axes=(2, 1))
            else:
                k.dma_load(dst, mem, count, vl_m, k.const(self.rows), k.const(self.cap), src_axes=(j_at, m_at), dst_axes=(1, 2))
        first = k.idx("div", n0, HALVES)
        width = clamp(k, k.idx("sub", ceil_div(k, self.N, HALVES), first), self.te)
        at = {plan.c: c, plan.j: begin, plan.n: first}
        order = list(plan.w.dims)
        k.dma_load(k.mem_at(self.weights, [stage, self.zero, self.zero]), k.mem_at(self.view, [at[d] for d in order]), count, width,
                   k.const(self.rows), k.const(te), src_axes=(order.index(plan.j), order.index(plan.n)), dst_axes=(1, 2))

    def _block(self, c: Value) -> tuple[list[Axis], Value, Value]:
        """Coordinates of group c, and its first position along the contracted dim and how many it has."""
        k, plan = self.k, self.plan
        if plan.c is not None:
            return [Axis((plan.c,), c)], self.zero, self.J
        first = k.idx("mul", c, BLOCK)
        return [], first, clamp(k, k.idx("sub", self.J, first), BLOCK)

    def _columns(self, g: int) -> Axis:
        return Axis((self.plan.n,), self.k.idx("add", self.n0, g * self.limits.te) if g else self.n0, self.vl_n[g], self.limits.te)

    # -- a group
    def _group(self, c: Value, stage: Value, _wstage: Value, _: list[Value]) -> Sequence[Value]:
        k, em = self.k, self.em
        with ExitStack() as stack:
            axes, _first, count = self._block(c)
            stack.enter_context(em.scope(axes))
            ahead = [self._scales(g) for g in range(HALVES)]  # on their way while the group is multiplied
            self._multiply(stage, count)
            k.for_(0, self.vl_m, 1, [], lambda q, _: self._order(q))
            for g in range(HALVES):
                with em.scope([self._columns(g)], ahead[g]):
                    k.for_(0, self.vl_m, 1, [], lambda q, _, g=g: self._add(q, g))  # type: ignore[misc]
        return []

    def _scales(self, g: int) -> Binds:
        """Inputs along the columns that no row decides."""
        em, plan = self.em, self.plan
        with em.scope([self._columns(g)]):
            return {p.value: em.emit(p.value) for p in self.func.params
                    if not p.keyword and plan.n in p.value.tensor.dims and set(p.value.tensor.dims) <= {plan.c, plan.n}}

    def _multiply(self, stage: Value, count: Value) -> None:
        """Even columns into the first tile, odd ones into the second."""
        k, te = self.k, self.limits.te
        for acc in self.accs:
            k.acc_zero(acc, self.vl_m, self.te)

        def step(t: Value, _: list[Value]) -> Sequence[Value]:
            a = k.opnd_load(k.mem_at(self.input, [stage, t, self.zero]), self.kmax, self.vl_m, k_axis=1, lane_axis=2)
            raw = k.load(k.mem_at(self.weights, [stage, t, self.zero]), self.both, axis=2, lanes=HALVES * te)
            digits = [k.nibble(raw, half, self.both) for half in range(HALVES)]
            rows = [[k.cast(k.part(d, u), self.dtype, self.te) for u in range(self.kmax)] for d in digits]
            operands = [k.opnd_pack(r) for r in rows]
            for acc, b in zip(self.accs, operands, strict=True):
                k.mma(acc, a, b, self.vl_m, self.te)
            return []

        k.for_(0, k.idx("mul", ceil_div(k, count, self.kmax), self.kmax), self.kmax, [], step)

    def _order(self, q: Value) -> Sequence[Value]:
        """Row q of both tiles, columns in their order, through scratchpad."""
        k = self.k
        for half, acc in enumerate(self.accs):
            k.store(k.mem_at(self.ordered, [q, self.zero, k.const(half)]), k.acc_read(acc, q, self.te, axis="row"), self.te, axis=1)
        return []

    def _add(self, q: Value, g: int) -> Sequence[Value]:
        k, em, te, vl = self.k, self.em, self.limits.te, self.vl_n[g]
        product = k.load(k.mem_at(self.ordered, [q, self.zero, k.const(g * te)]), vl, axis=2, lanes=te)
        x = product
        if self.plan.atom is not None:
            with em.scope([Axis(self.plan.m, k.idx("add", self.m0, q))], {self.plan.atom: (product,)}):
                x = em.one(self.plan.state.body.yielded[0])
        place = k.mem_at(self.totals, [q, k.const(g * te)])
        k.store(place, k.vt("add", k.load(place, vl, axis=1, lanes=te), x, vl=vl), vl, axis=1)
        return []

    def _store(self) -> Sequence[Value]:
        k, em, te = self.k, self.em, self.limits.te

        def row(q: Value, _: list[Value]) -> Sequence[Value]:
            for g, vl in enumerate(self.vl_n):
                total = k.load(k.mem_at(self.totals, [q, k.const(g * te)]), vl, axis=1, lanes=te)
                with em.scope([Axis(self.plan.m, k.idx("add", self.m0, q)), self._columns(g)], {self.stream.finish.args[0]: (total,)}):
                    for name, v, t in self.outs:
                        self._store_lanes(name, em.one(v), t, vl)
            return []

        k.for_(0, self.vl_m, 1, [], row)
        return []

    def _store_lanes(self, name: str, x: Value, t: TensorType, vl: Value) -> None:
        k, em = self.k, self.em
        mem, lane = em.address(name, t.dims, t.dtype, (), 0)
        assert lane is not None
        k.store(mem, x if isinstance(x.type, VecType) else k.bcast(x, vl, self.limits.te), vl, axis=lane)
