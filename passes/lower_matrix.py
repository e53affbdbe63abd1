"""Clusters with a matrix contraction become tile kernels: CTAs own tiles of m x n, warps own matrix accumulators, and the streamed
dim goes by in blocks staged by DMA.

Two loop bodies come from the plan, not from a template: where both factors are stored tensors the block is a run of operand loads and
`mma`s; where the first factor is an expression (softmax's p), its rows are made from the block's tiles in registers, lanes
along m, and go straight into the multiply. Anchors move by the cascade's re-base: vector states per lane, accumulators by columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType, VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import (
    FLOOR,
    IDENTITY,
    REDUCE_OP,
        State,
    ceil_div,
    clamp,
    decode,
    frame,
    reject,
    safe_anchor,
)
from rvgpu.passes.matrix_plan import KMAX, Leaf, MatrixPlan, n_lanes
from rvgpu.passes.matrix_results import Results
from rvgpu.passes.rows import Axis, Rows

TAU = 8.0  # a running maximum moves its anchor only when it grew by more than this (then exp's argument stays <= TAU)


@dataclass(frozen=True)
class Tiles:
    """wm x wn warps, each im x jn accumulator tiles; bk of the streamed dim per block."""

    wm: int
    wn: int
    im: int
    jn: int
    bk: int


States = list[Value | None]  # the vector states of a stream; None: it stands in scratchpad


@dataclass(eq=False)
class Operand:
    """A staged operand: buffer[stage][k][lane]; `lane` is "m", "n" or "r" (the streamed dim along lanes)."""

    leaf: Leaf
    k_dim: Dim
    lane: str
    per_item: bool
    k_cap: int
    lane_cap: int
    buffer: Value
    stage: Value | None = None


class Matrix:
    """Builds the K function of one plan (see the module's first lines)."""

    def __init__(self, func: Func, limits: Limits, plan: MatrixPlan, tiles: Tiles) -> None:
        self.func, self.limits, self.tiles = func, limits, tiles
        self.k, self.em = frame(func, limits)
        plan.stream.link(self.em)
        self.plan, self.stream = plan, plan.stream
        self.te, self.zero = self.k.special("te"), self.k.const(0)
        self.kmax = KMAX[plan.dtype.bits]
        self.warp = self.k.special("warp")
        self.M, self.N = self.em.product(plan.m), self.em.product(plan.n)
        self.R = self.em.extent(plan.stream.dim)
        self.batch_extents = [self.em.extent(d) for d in plan.batch]
        te = limits.te
        self.bm, self.bn = tiles.wm * tiles.im * te, tiles.wn * tiles.jn * te
        k = self.k
        self.m_off = k.idx("mul", k.idx("div", self.warp, tiles.wn), tiles.im * te)
        self.n_off = k.idx("mul", k.idx("rem", self.warp, tiles.wn), tiles.jn * te)
        self.working: Value | None = None  # whether this warp has a tile; None: all have one
        if tiles.wm * tiles.wn < limits.warps:
            self.working = k.cmp("lt", self.warp, tiles.wm * tiles.wn)
            self.m_off = k.idx_select(self.working, self.m_off, 0)
        # rows of a score tile, and lanes of a B operand: TE, or the block's or the buffer's where those are smaller
        self.keys = self.te if tiles.bk >= te else k.idx("min", self.te, tiles.bk)
        self.m_tiles, self.n_tiles = ceil_div(k, self.M, self.bm), ceil_div(k, self.N, self.bn)
        self.operands: dict[tuple[Value, str], Operand] = {}
        for p in plan.products:
            if p.a is not None:
                self._operand(p.a, plan.stream.dim, "m", False)
            self._operand(p.b, plan.stream.dim, "n", False)
        for a in plan.atoms:
            self._operand(a.keys, a.dim, "r", False)
            self._operand(a.query, a.dim, "m", True)
        self.accs = {p.state.index: [[k.acc_alloc(p.state.dtype) for _ in range(tiles.jn)] for _ in range(tiles.im)]
                     for p in plan.products}
        self.atom_accs = {a.value: k.acc_alloc(a.value.tensor.dtype) for a in plan.atoms}
        # vector states stand in scratchpad between the waves where a vector takes an eighth of the register file or more
        n = len(plan.vectors)
        self.park = k.spm_alloc(DType.f32, [k.const(n), k.const(te)], [k.const(te), k.const(1)], name="states", size_bytes=n * te * 4,
                                per_warp=True) if plan.streamed_rows and len(self.stream.waves()) > 1 and 8 * te >= limits.vlen else None

    def _operand(self, leaf: Leaf, k_dim: Dim, lane: str, per_item: bool) -> None:
        if (leaf.value, lane) in self.operands:
            return
        k = self.k
        k_cap = self.tiles.bk if k_dim == self.stream.dim else -(-self.limits.bound(k_dim) // self.kmax) * self.kmax
        lane_cap = {"m": self.bm, "n": n_lanes(self.plan, self.limits, self.bn), "r": self.tiles.bk}[lane]
        dtype = self.em.tensors[leaf.value][2]
        buffer = k.spm_alloc(dtype, [k.const(2), k.const(k_cap), k.const(lane_cap)],
                             [k.const(k_cap * lane_cap), k.const(lane_cap), k.const(1)],
                             name=self.em.tensors[leaf.value][0], size_bytes=2 * k_cap * lane_cap * dtype.bits // 8)
        self.operands[leaf.value, lane] = Operand(leaf, k_dim, lane, per_item, k_cap, lane_cap, buffer)

    # -- the frame: work items, tile coordinates, the block loop
    def build(self) -> KFunc:
        k = self.k
        count = k.idx("mul", k.idx("mul", self.m_tiles, self.n_tiles), self.em.product(self.plan.batch))
        k.work(count, self._item)
        return k.func

    def _tile_of(self, w: Value) -> tuple[list[Value], Value, Value]:
        *batch, mt, nt = decode(self.k, w, [*self.batch_extents, self.m_tiles, self.n_tiles])
        return batch, self.k.idx("mul", mt, self.bm), self.k.idx("mul", nt, self.bn)

    def _item(self, w: Value) -> None:
        k, em, t = self.k, self.em, self.tiles
        batch, m0, n0 = self._tile_of(w)
        self.m0, self.n0 = k.idx("add", m0, self.m_off), k.idx("add", n0, self.n_off)
        te = self.limits.te
        self.vl_m = [clamp(k, k.idx("sub", self.M, k.idx("add", self.m0, i * te)), self.te) for i in range(t.im)]
        self.vl_n = [clamp(k, k.idx("sub", self.N, k.idx("add", self.n0, j * te)), self.te) for j in range(t.jn)]
        with em.scope([Axis((d,), c) for d, c in zip(self.plan.batch, batch, strict=True)]):
            for tiles in self.accs.values():
                for i, row in enumerate(tiles):
                    for j, acc in enumerate(row):
                        k.acc_zero(acc, self.vl_m[i], self.vl_n[j])
            lane_m = Axis(self.plan.m, self.m0, self.vl_m[0], te)
            with em.scope([lane_m] if self.plan.streamed_rows or self.plan.vectors else []):
                states = self._keep([k.bcast(k.sconst(IDENTITY[s.kind], s.dtype), self.vl_m[0], te) for s in self.plan.vectors])
                init = [s for s in states if s is not None]
                init += [k.bcast(k.sconst(self.bottom(a), DType.f32), self.vl_m[0], te) for a in range(len(self.stream.anchor_needs))]
                out = k.pipe(w, self.zero, self.R, t.bk, init, self._copy, self._block, private=False)

                def end() -> Sequence[Value]:
                    Results(self).store(*self._parts(out), n0)
                    return []

                self._if_working(end, lambda: [])

    def _if_working(self, body: Callable[[], Sequence[Value]], idle: Callable[[], Sequence[Value]]) -> Sequence[Value]:
        return body() if self.working is None else self.k.if_(self.working, body, idle)

    # -- staging
    def _copy(self, w: Value, i: Value, stage: Value, wstage: Value) -> None:
        k, em = self.k, self.em
        batch, m0, n0 = self._tile_of(w)
        left_r = k.idx("sub", self.R, i)
        extent = {"m": clamp(k, k.idx("sub", self.M, m0), self.bm), "n": clamp(k, k.idx("sub", self.N, n0), self.bn),
                  "r": clamp(k, left_r, self.tiles.bk)}
        axes = {"m": Axis(self.plan.m, m0), "n": Axis(self.plan.n, n0), "r": Axis((self.stream.dim,), i)}
        with em.scope([Axis((d,), c) for d, c in zip(self.plan.batch, batch, strict=True)]):
            for number, op in enumerate(self.operands.values()):
                mine = k.cmp("eq", self.warp, number % self.limits.warps)
                if op.per_item:
                    mine = k.s("and", mine, k.cmp("eq", i, 0))

                def go(op: Operand = op) -> Sequence[Value]:
                    # each operand has its own roles for dims: D is contracted in q @ k and a column in p @ v
                    k_axis = axes["r"] if op.k_dim == self.stream.dim else Axis((op.k_dim,), k.const(0))
                    with em.scope([axes[op.lane], k_axis]):
                        self._transfer(op, axes[op.lane], extent, wstage if op.per_item else stage)
                    return []

                k.if_(mine, go)

    def _transfer(self, op: Operand, lane_axis: Axis, extent: dict[str, Value], stage: Value) -> None:
        k, em = self.k, self.em
        name, dims, dtype = em.tensors[op.leaf.value]
        parts = em.groups(dims, op.leaf.sub)
        mem, _ = em.address(name, dims, dtype, op.leaf.sub, 0)
        lane_at = next(n for n, (_, axis, _) in enumerate(parts) if axis is lane_axis)
        k_at = next(n for n, (_, axis, _) in enumerate(parts) if op.k_dim in axis.dims)
        rows = extent["r"] if op.k_dim == self.stream.dim else em.extent(op.k_dim)
        dst = k.mem_at(op.buffer, [stage, k.const(0), k.const(0)])
        k_cap, lane_cap = k.const(op.k_cap), k.const(op.lane_cap)
        if lane_at == len(parts) - 1:
            k.dma_load(dst, mem, rows, extent[op.lane], k_cap, lane_cap, src_axes=(k_at, lane_at), dst_axes=(1, 2))
        elif k_at == len(parts) - 1:
            k.dma_load(dst, mem, extent[op.lane], rows, lane_cap, k_cap, src_axes=(lane_at, k_at), dst_axes=(2, 1))
        else:
            raise reject(f"neither the contracted dim nor a free dim of {name} is innermost in memory", op.leaf.value)

    def _load(self, op: Operand, at: Value, lane: Value) -> Value:
        assert op.stage is not None
        vl = self.te if op.lane_cap >= self.limits.te else self.k.idx("min", self.te, op.lane_cap)
        return self.k.opnd_load(self.k.mem_at(op.buffer, [op.stage, at, lane]), self.kmax, vl, k_axis=1, lane_axis=2)

    def _rounded(self, x: Value) -> Value:
        return self.k.idx("mul", ceil_div(self.k, x, self.kmax), self.kmax) if self.kmax > 1 else x

    # -- one block of the streamed dim
    def _block(self, i: Value, stage: Value, wstage: Value, carried: list[Value]) -> Sequence[Value]:
        k = self.k
        for op in self.operands.values():
            op.stage = wstage if op.per_item else stage
        rows = clamp(k, k.idx("sub", self.R, i), self.tiles.bk)
        if not self.plan.streamed_rows:
            if self.plan.vectors:
                raise reject("a matrix product beside a plain reduction in one kernel is not supported yet",
                             self.plan.vectors[0].body.yielded[0])
            self._multiply(rows)
            return carried

        assert self.tiles.bk <= self.limits.te
        return self._if_working(lambda: self._streamed_tile(i, rows, carried), lambda: carried)

    def _multiply(self, rows: Value) -> None:
        """Both factors stand in scratchpad. Whole tiles share one tile configuration; ragged ones set tm and tn for each multiply."""
        k, t = self.k, self.tiles
        live = [*self.vl_m, *self.vl_n]
        whole = k.cmp("eq", live[0], self.te)
        for v in live[1:]:
            whole = k.s("and", whole, k.cmp("eq", v, self.te))

        def run(vl_m: list[Value], vl_n: list[Value]) -> Sequence[Value]:
            self._multiply_loop(rows, vl_m, vl_n)
            return []

        k.if_(whole, lambda: run([self.te] * t.im, [self.te] * t.jn), lambda: run(self.vl_m, self.vl_n))

    def _multiply_loop(self, rows: Value, vl_m: list[Value], vl_n: list[Value]) -> None:
        """For each group of KMAX rows, im A and jn B operands, im * jn multiplies."""
        k, t, te = self.k, self.tiles, self.limits.te

        def step(kk: Value, _: list[Value]) -> Sequence[Value]:
            loaded: dict[tuple[Value, str, int], Value] = {}
            for p in self.plan.products:
                assert p.a is not None
                for leaf, lane, off, n in ((p.a, "m", self.m_off, t.im), (p.b, "n", self.n_off, t.jn)):
                    for i in range(n):
                        if (leaf.value, lane, i) not in loaded:
                            at = k.idx("add", off, i * te) if i else off
                            loaded[leaf.value, lane, i] = self._load(self.operands[leaf.value, lane], kk, at)
            for p in self.plan.products:
                assert p.a is not None
                for i in range(t.im):
                    for j in range(t.jn):
                        k.mma(self.accs[p.state.index][i][j], loaded[p.a.value, "m", i], loaded[p.b.value, "n", j],
                              vl_m[i], vl_n[j])
            return []

        k.for_(0, self._rounded(rows), self.kmax, [], step)

    def _streamed_tile(self, position: Value, rows: Value, carried: list[Value]) -> list[Value]:
        """A block of at most TE rows: atoms into tiles, then the states wave by wave, anchors moved in between."""
        k, em = self.k, self.em
        for atom in self.plan.atoms:
            acc = self.atom_accs[atom.value]
            k.acc_zero(acc, self.keys, self.vl_m[0])
            keys, query = self.operands[atom.keys.value, "r"], self.operands[atom.query.value, "m"]

            def mul(c: Value, _: list[Value], acc: Value = acc, keys: Operand = keys, query: Operand = query) -> list[Value]:
                a, b = self._load(keys, c, self.zero), self._load(query, c, self.m_off)
                k.mma(acc, a, b, self.keys, self.vl_m[0])
                return []

            k.for_(0, self._rounded(em.extent(atom.dim)), self.kmax, [], mul)
        states, anchors = self._parts(carried)
        moved: set[int] = set()
        for wave in self.stream.waves():
            for a in dict.fromkeys(a for s in wave for a in s.anchors):
                if a not in moved:
                    states, anchors = self._move_anchor(a, position, states, anchors)
                    moved.add(a)
            states = self._wave(wave, position, rows, self._drop(states), anchors)
        return [*(s for s in self._drop(states) if s is not None), *anchors]

    def _parts(self, carried: list[Value]) -> tuple[States, list[Value]]:
        """The vector states and the anchors of what a loop carries."""
        n = 0 if self.park is not None else len(self.plan.vectors)
        return [*carried[:n], *[None] * (len(self.plan.vectors) - n)], list(carried[n:])

    def _keep(self, states: States) -> States:
        """Stores the states that stand in scratchpad; they may be used once more until they are dropped."""
        for m, s in enumerate(states):
            if self.park is not None and s is not None:
                self.k.store(self._place(m), s, self.vl_m[0], axis=1)
        return self._drop(states)

    def _drop(self, states: States) -> States:
        return list(states) if self.park is None else [None] * len(states)

    def _place(self, m: int) -> Value:
        assert self.park is not None
        return self.k.mem_at(self.park, [self.k.const(m), self.k.const(0)])

    def _state(self, states: States, m: int) -> Value:
        s = states[m]
        return s if s is not None else self.k.load(self._place(m), self.vl_m[0], axis=1, lanes=self.limits.te)

    def bind_states(self, args: Sequence[Value], states: States) -> dict[Value, Rows | Callable[[], Rows]]:
        return {args[s.index]: (lambda m=m: (self._state(states, m),)) for m, s in enumerate(self.plan.vectors)}  # type: ignore[misc]

    def _wave(self, wave: list[State], position: Value, rows: Value, states: States,
              anchors: list[Value]) -> States:
        """One pass over the rows of a tile: vector states accumulate per lane, rows of A go into the multiply."""
        k, em = self.k, self.em
        step = max([2, *(self.kmax for s in wave if s.contraction)])
        binds: dict[Value, Rows | Callable[[], Rows]] = {}
        for s in wave:
            for arg, a in zip(self.stream.anchor_args(s), s.anchors, strict=True):
                binds[arg] = (anchors[a] if self._lazy(a) else safe_anchor(k, anchors[a], self.vl_m[0])[0],)
        mine = [s for s in wave if not s.contraction]

        def some(t: Value, parts: list[Value], count: int) -> list[Value]:
            reads: dict[Value, Rows | Callable[[], Rows]] = {
                atom.value: (lambda atom=atom: tuple(  # type: ignore[misc]
                    k.acc_read(self.atom_accs[atom.value], k.idx("add", t, u) if u else t, self.vl_m[0], axis="row")
                    for u in range(count))) for atom in self.plan.atoms}
            out = list(parts)
            with em.scope([Axis((self.stream.dim,), k.idx("add", position, t))], reads, rows=count):
                for s in wave:
                    if s.contraction:
                        self._feed(s, t, count)
                        continue
                    xs = em.emit(s.body.yielded[0])
                    for u in range(count):
                        n = mine.index(s)
                        out[n] = k.vt(REDUCE_OP[s.kind], out[n], xs[u % len(xs)], vl=self.vl_m[0])
            return out

        with em.scope(bind=binds):
            init = [self._state(states, self.plan.vectors.index(s)) for s in mine]
            whole = k.idx("mul", k.idx("div", rows, step), step)
            parts = k.for_(0, whole, step, init, lambda t, p: some(t, p, step))
            for u in range(1, step):  # rows left over: 1 .. step - 1
                count = k.idx("sub", rows, whole)
                parts = k.if_(k.cmp("eq", count, u), lambda u=u, parts=parts: some(whole, parts, u),  # type: ignore[misc]
                              lambda parts=parts: parts)  # type: ignore[misc]
        out = list(states)
        for s, v in zip(mine, parts, strict=True):
            out[self.plan.vectors.index(s)] = v
        self._keep(out)
        return out

    def _feed(self, state: State, at: Value, count: int) -> None:
        """Rows of A from registers, padded with zero rows to KMAX; B from scratchpad (zero beyond the dim's end)."""
        k, em = self.k, self.em
        product = next(p for p in self.plan.products if p.state is state)
        xs = em.emit(product.a_value)
        te = self.limits.te
        for first in range(0, count, self.kmax):
            rows = []
            for u in range(first, first + self.kmax):
                x = xs[u % len(xs)] if u < count else k.bcast(k.sconst(0.0, self.plan.dtype), self.vl_m[0], te)
                rows.append(x if isinstance(x.type, VecType) else k.bcast(x, self.vl_m[0], te))
            a = k.opnd_pack(rows)
            b = self.operands[product.b.value, "n"]
            for j, acc in enumerate(self.accs[state.index][0]):
                lane = k.idx("add", self.n_off, j * te) if j else self.n_off
                row = k.idx("add", at, first) if first else at
                k.mma(acc, a, self._load(b, row, lane), self.vl_m[0], self.vl_n[j])

    # -- anchors
    def _lazy(self, a: int) -> bool:
        """An anchor that is a running maximum used only under exp may lag behind it by TAU. Until it moves it stands at FLOOR: nothing but
        -inf has gone by, and exp(-inf - FLOOR) is 0, so that unlike -inf it needs no test where it is used."""
        d = self.em.resolve(self.stream.anchors.yielded[a])
        if d not in self.stream.anchors.args:
            return False
        if self.stream.states[self.stream.anchors.args.index(d)].kind != "max":
            return False
        return not any(op.name == "eq" for s in self.stream.states if a in s.anchors for op in s.body.ops)

    def bottom(self, a: int) -> float:
        return FLOOR if self._lazy(a) else float("-inf")

    def _move_anchor(self, a: int, position: Value, states: States, anchors: list[Value]) -> tuple[States, list[Value]]:
        k, em, vl = self.k, self.em, self.vl_m[0]
        with em.scope(bind=self.bind_states(self.stream.anchors.args, states)):
            target = em.one(self.stream.anchors.yielded[a])
        old = anchors[a]

        def move(new: Value) -> list[Value]:
            _, zero_delta = safe_anchor(k, old, vl, self.bottom(a))
            delta = zero_delta(k.vt("sub", old, new, vl=vl))
            return [*self._rebase(a, delta, position, states), new]

        stay = [s for s in states if s is not None] if self.park is None else []

        if self._lazy(a):
            grown = k.vt("gt", target, k.vt("add", old, k.sconst(TAU, DType.f32), vl=vl), vl=vl)
            out = k.if_(k.vote("any", grown, vl), lambda: move(k.select(grown, target, old, vl)), lambda: [*stay, old])
        else:
            out = move(target)
        return self._parts(list(out))[0], [*anchors[:a], out[-1], *anchors[a + 1:]]

    def _rebase(self, a: int, delta: Value, position: Value, states: States) -> list[Value]:
        """States that use anchor a, moved by delta = old - new; the other anchors stay. Returns those that a loop carries."""
        k, em, vl = self.k, self.em, self.vl_m[0]
        r = self.stream.rebase
        n = len(self.stream.states)
        zero = k.sconst(0.0, DType.f32)
        binds = self.bind_states(r.args, states)
        binds |= {arg: ((delta if j == a else zero),) for j, arg in enumerate(r.args[n:])}
        out = self._drop(states)
        with em.scope(bind=binds):
            for m, s in enumerate(self.plan.vectors):
                if a in s.anchors:
                    x = em.one(r.yielded[s.index])
                    out[m] = x if isinstance(x.type, VecType) else k.bcast(x, vl, self.limits.te)
        products = [p for p in self.plan.products if a in p.state.anchors]

        def columns() -> Sequence[Value]:
            for p in products:
                for j, acc in enumerate(self.accs[p.state.index][0]):
                    def column(c: Value, _: list[Value], acc: Value = acc, s: State = p.state) -> Sequence[Value]:
                        read = k.acc_read(acc, c, vl, axis="col")
                        with em.scope(bind={r.args[s.index]: (read,)}):
                            k.acc_write(acc, c, em.one(r.yielded[s.index]), vl, axis="col")
                        return []

                    k.for_(0, self.vl_n[j], 1, [], column)
            return []

        with em.scope(bind=binds):
            k.if_(k.cmp("gt", position, 0), columns)  # before the first block the accumulators are zero
        return [s for s in self._keep(out) if s is not None]
