"""Streamed kernels with few rows (decode): DRAM bounds them, so every warp reads, with transfers of its own, and what it does for a block is small.

A work item goes through SUB interleaved streams of blocks, one warp each (a machine with fewer warps takes them in rounds), and joins them in the end
by the cascade's merge, in order. Lanes run along the streamed dim: scores are read by columns of their tile, a state is one number for each row,
and the rows of A are written to scratchpad across, where the multiply finds them. A stream in parts has an item for each part and stores its
states; `lower_merge` joins those.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim, parts_of
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType, TensorType, VecType
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import FLOOR, REDUCE_OP, TAU, State, ceil_div, clamp, decode, frame, identity, reject, results, safe_anchor
from rvgpu.passes.matrix_plan import KMAX, Atom, Key, Leaf, MatrixPlan, look_up, n_lanes, operand, part_block
from rvgpu.passes.places import Axis, Binds, Rows

MOST = 64  # rows: the states of more leave no room to stage keys beside them
SUB = 2  # streams that a work item goes through side by side


def few_rows(plan: MatrixPlan, limits: Limits) -> bool:
    """Whether a kernel runs this way: by its rows' bucket, for what a part is decides bytes."""
    few = limits.bucket(plan.m) <= min(limits.te, MOST)
    return bool(plan.products) and plan.streamed_rows and plan.stream.dim.name is not None and few and part_block(plan, limits) > 0


def part_size(limits: Limits) -> int:
    """Positions of the streamed dim in a work item."""
    return 16 * limits.te


@dataclass(frozen=True)
class FewTiles:
    """`warps` of the SUB streams at once; jn accumulator tiles side by side; bk positions in a block."""

    warps: int
    jn: int
    bk: int


@dataclass(eq=False)
class Staged:
    """An operand: buffer[warp and stage][k][lane]."""

    leaf: Leaf
    k_dim: Dim
    lane: str
    k_cap: int
    lane_cap: int
    buffer: Value


def rows_cap(plan: MatrixPlan, limits: Limits) -> int:
    """Rows that buffers have room for."""
    return max(4, 1 << (limits.product(plan.m) - 1).bit_length())


def few_options(plan: MatrixPlan, limits: Limits) -> list[FewTiles]:
    """The tilings that fit, the best by rule first: all columns at once where four accumulators do, and as many warps as fit."""
    most = (4 - len(plan.atoms)) // len(plan.products)
    wide = max(1, min(-(-limits.product(plan.n) // limits.te), most))
    options = [FewTiles(warps, jn, part_block(plan, limits)) for jn in range(wide, 0, -1) for warps in (2, 1) if warps <= limits.warps]
    return [t for t in options if few_bytes(plan, limits, t) <= limits.spm_bytes] or options[-1:]


def few_bytes(plan: MatrixPlan, limits: Limits, t: FewTiles) -> int:
    """Scratchpad: two stages of each warp's operands, the streams' states, and each warp's rows of A and states."""
    size, m = plan.dtype.bits // 8, rows_cap(plan, limits)
    n = n_lanes(plan, limits, t.jn * limits.te)
    staged = sum((t.bk + m) * limits.bound(a.dim) * size for a in plan.atoms) + len(plan.products) * t.bk * n * size
    numbers = len(plan.vectors) + len(plan.stream.anchor_needs)
    return 2 * t.warps * staged + SUB * m * (len(plan.vectors) + n * len(plan.products)) * 4 + limits.warps * m * (t.bk * size + 4 * numbers) + 4096


class FewRows:
    def __init__(self, func: Func, limits: Limits, plan: MatrixPlan, tiles: FewTiles) -> None:
        self.func, self.limits, self.plan, self.tiles, self.stream = func, limits, plan, tiles, plan.stream
        self.k, self.em = frame(func, limits)
        k, em, te = self.k, self.em, limits.te
        self.stream.link(em)
        self.outs = results(func, k)
        self.te, self.zero, self.warp = k.special("te"), k.const(0), k.special("warp")
        self.kmax, self.cap = KMAX[plan.dtype.bits], rows_cap(plan, limits)
        self.M, self.N, self.R = em.product(plan.m), em.product(plan.n), em.extent(self.stream.dim)
        self.vl_m = k.idx("min", self.M, self.te)
        self.bn = tiles.jn * te
        self.n_tiles = ceil_div(k, self.N, self.bn)
        self.batch_extents = [em.extent(d) for d in plan.batch]
        self.keys = self.te if tiles.bk >= te else k.idx("min", self.te, tiles.bk)
        self.pace = SUB * tiles.bk  # positions that one step of all streams covers
        size = self.stream.part
        most = k.idx("min", self.R, size) if size else self.R
        self.span = k.idx("mul", k.idx("max", ceil_div(k, most, self.pace), 1), self.pace)
        self.rounds = SUB // tiles.warps
        self.length = k.idx("mul", self.span, self.rounds) if self.rounds > 1 else self.span
        self.works = k.cmp("lt", self.warp, tiles.warps)
        self._buffers()

    def _buffers(self) -> None:
        k, plan, te = self.k, self.plan, self.limits.te
        self.staged: dict[tuple[Key, str], Staged] = {}
        for p in plan.products:
            self._stage(p.b, self.stream.dim, "n", self.tiles.bk, n_lanes(plan, self.limits, self.bn))
        for a in plan.atoms:
            c = -(-self.limits.bound(a.dim) // self.kmax) * self.kmax
            self._stage(a.keys, a.dim, "r", c, self.tiles.bk)
            self._stage(a.query, a.dim, "m", c, self.cap)
        self.accs = {p.state.index: [k.acc_alloc(p.state.dtype) for _ in range(self.tiles.jn)] for p in plan.products}
        self.atom_accs = {a.value: k.acc_alloc(a.value.tensor.dtype) for a in plan.atoms}
        self.rows_of_a = {p.state.index: self._alloc("a", plan.dtype, (self.tiles.bk, self.cap), True) for p in plan.products}
        self.numbers = {s.index: self._alloc("state", s.dtype, (1, self.cap), True) for s in plan.vectors}
        self.anchors = [self._alloc("anchor", DType.f32, (1, self.cap), True) for _ in self.stream.anchor_needs]
        self.slots = {s.index: self._alloc("states", s.dtype, (SUB, self.cap), False) for s in plan.vectors}
        self.wide_slots = {p.state.index: self._alloc("states", p.state.dtype, (SUB * self.cap, self.tiles.jn * te), False) for p in plan.products}

    def _alloc(self, name: str, dtype: DType, shape: tuple[int, int], per_warp: bool) -> Value:
        k, (rows, columns) = self.k, shape
        return k.spm_alloc(dtype, [k.const(rows), k.const(columns)], [k.const(columns), k.const(1)], name=name,
                           size_bytes=rows * columns * dtype.bits // 8, per_warp=per_warp)

    def _stage(self, leaf: Leaf, k_dim: Dim, lane: str, k_cap: int, lane_cap: int) -> None:
        if (leaf.key, lane) in self.staged:
            return
        k, (name, _, dtype), stages = self.k, self.em.tensors[leaf.value], 2 * self.tiles.warps
        buffer = k.spm_alloc(dtype, [k.const(stages), k.const(k_cap), k.const(lane_cap)], [k.const(k_cap * lane_cap), k.const(lane_cap), k.const(1)],
                             name=name, size_bytes=stages * k_cap * lane_cap * dtype.bits // 8)
        self.staged[leaf.key, lane] = Staged(leaf, k_dim, lane, k_cap, lane_cap, buffer)

    # -- work items
    def build(self) -> KFunc:
        self.k.work(self.k.idx("mul", self.em.product(self.plan.batch), self.n_tiles), self._item)
        return self.k.func

    def _place(self, w: Value) -> tuple[list[Axis], Value, Value]:
        """(batch coordinates, first column, where the item's share of the streamed dim begins)."""
        k, plan = self.k, self.plan
        *at, nt = decode(k, w, [*self.batch_extents, self.n_tiles])
        start, name = self.zero, self.stream.dim.name
        if self.stream.part and name is not None:
            start = k.idx("mul", at[plan.batch.index(parts_of(name, self.stream.part))], self.stream.part)
        return [Axis((d,), c) for d, c in zip(plan.batch, at, strict=True)], k.idx("mul", nt, self.bn), start

    def _item(self, w: Value) -> None:
        k, em = self.k, self.em
        axes, self.n0, self.start = self._place(w)
        te = self.limits.te
        self.vl_n = [clamp(k, k.idx("sub", self.N, k.idx("add", self.n0, j * te)), self.te) for j in range(self.tiles.jn)]
        with em.scope(axes):
            self._reset()
            k.pipe(w, self.pace, [], lambda _: (self.zero, self.length), self._copy, self._step, private=True)
            k.bar(0)
            k.for_(self.warp, self.vl_m, self.limits.warps, [], lambda q, _: self._join(q))
            k.bar(0)

    def _sub(self, i: Value) -> tuple[Value, Value]:
        """(which stream this warp is in at step i of the pipe, how far that is)."""
        k = self.k
        if self.rounds == 1:
            return self.warp, i
        return k.idx("add", k.idx("mul", k.idx("div", i, self.span), self.tiles.warps), self.warp), k.idx("rem", i, self.span)

    def _block_at(self, i: Value, start: Value) -> tuple[Value, Value]:
        """(first position of this warp's block at step i, its rows: none behind the end)."""
        k = self.k
        sub, far = self._sub(i)
        at = k.idx("add", k.idx("add", start, far), k.idx("mul", sub, self.tiles.bk))
        return at, clamp(k, k.idx("sub", self.R, at), self.tiles.bk)

    def _stage_of(self, stage: Value) -> Value:
        return self.k.idx("add", self.k.idx("mul", self.warp, 2), stage)

    def _copy(self, w: Value, i: Value, stage: Value, wstage: Value) -> None:
        k, em = self.k, self.em
        axes, n0, start = self._place(w)
        at, rows = self._block_at(i, start)
        lanes = {"m": (Axis(self.plan.m, self.zero), self.vl_m), "n": (Axis(self.plan.n, n0), clamp(k, k.idx("sub", self.N, n0), self.bn)),
                 "r": (Axis((self.stream.dim,), at), rows)}

        def transfers(once: bool) -> Sequence[Value]:
            for op in self.staged.values():
                if (op.lane == "m") is once:
                    axis, count = lanes[op.lane]
                    inner = op.k_dim == self.stream.dim
                    with em.scope([axis, lanes["r"][0] if inner else Axis((op.k_dim,), self.zero)]):
                        self._transfer(op, axis, count, rows if inner else em.extent(op.k_dim), self._stage_of(wstage if once else stage))
            return []

        with em.scope(axes):
            k.if_(k.cmp("eq", i, 0), lambda: transfers(True))
            transfers(False)

    def _transfer(self, op: Staged, lane: Axis, count: Value, rows: Value, stage: Value) -> None:
        k, em = self.k, self.em
        name, dims, dtype = em.tensors[op.leaf.value]
        parts = em.groups(dims, op.leaf.sub)
        mem, _ = em.address(name, dims, dtype, op.leaf.sub, 0)
        index = look_up(k, em, op.leaf)
        lane_at = next(n for n, (_, axis, _) in enumerate(parts) if axis is lane)
        k_at = next(n for n, (_, axis, _) in enumerate(parts) if op.k_dim in axis.dims)
        dst = k.mem_at(op.buffer, [stage, self.zero, self.zero])
        k_cap, lane_cap = k.const(op.k_cap), k.const(op.lane_cap)
        if self.tiles.warps < self.limits.warps:  # an idle warp moves nothing, but counts alike
            count, rows, k_cap, lane_cap = (k.idx_select(self.works, x, 0) for x in (count, rows, k_cap, lane_cap))
        if lane_at == len(parts) - 1:
            k.dma_load(dst, mem, rows, count, k_cap, lane_cap, src_axes=(k_at, lane_at), dst_axes=(1, 2), index=index)
        elif k_at == len(parts) - 1:
            k.dma_load(dst, mem, count, rows, lane_cap, k_cap, src_axes=(lane_at, k_at), dst_axes=(2, 1), index=index)
        else:
            raise reject(f"neither the contracted dim nor a free dim of {name} is innermost in memory", op.leaf.value)

    # -- a block
    def _reset(self) -> None:
        """Every state is the identity, every anchor at its bottom."""
        k, te = self.k, self.limits.te
        for s in self.plan.vectors:
            k.store(k.mem_at(self.numbers[s.index], [self.zero, self.zero]), k.bcast(identity(k, s), self.vl_m, te), self.vl_m, axis=1)
        for a, place in enumerate(self.anchors):
            k.store(k.mem_at(place, [self.zero, self.zero]), k.bcast(k.sconst(self._bottom(a), DType.f32), self.vl_m, te), self.vl_m, axis=1)
        for accs in self.accs.values():
            for j, acc in enumerate(accs):
                k.acc_zero(acc, self.vl_m, self.vl_n[j])

    def _bottom(self, a: int) -> float:
        return FLOOR if self.stream.lazy(self.em, a) else float("-inf")

    def _step(self, i: Value, stage: Value, wstage: Value, _: list[Value]) -> Sequence[Value]:
        k = self.k
        at, rows = self._block_at(i, self.start)
        self.stage, self.wstage = self._stage_of(stage), self._stage_of(wstage)
        sub, far = self._sub(i)
        last = k.cmp("ge", k.idx("add", far, self.pace), self.span)
        k.if_(k.s("and", self.works, k.cmp("gt", rows, 0)), lambda: self._block(at, rows))
        k.if_(k.s("and", self.works, last), lambda: self._leave(sub))
        return []

    def _block(self, at: Value, rows: Value) -> Sequence[Value]:
        k = self.k
        for atom in self.plan.atoms:
            self._scores(atom)
        k.if_(k.cmp("lt", rows, self.tiles.bk), self._clear)
        k.for_(0, self.vl_m, 1, [], lambda q, _: self._row(q, at, rows))

        def multiply(t: Value, _: list[Value]) -> Sequence[Value]:
            for p in self.plan.products:
                accs = self.accs[p.state.index]
                a = k.opnd_load(k.mem_at(self.rows_of_a[p.state.index], [t, self.zero]), self.kmax, self.vl_m, k_axis=0, lane_axis=1)
                bs = [self._load(self.staged[p.b.key, "n"], t, k.const(j * self.limits.te)) for j in range(len(accs))]
                for j, (acc, b) in enumerate(zip(accs, bs, strict=True)):
                    k.mma(acc, a, b, self.vl_m, self.vl_n[j])
            return []

        k.for_(0, self._rounded(rows), self.kmax, [], multiply)
        return []

    def _rounded(self, x: Value) -> Value:
        return self.k.idx("mul", ceil_div(self.k, x, self.kmax), self.kmax) if self.kmax > 1 else x

    def _load(self, op: Staged, at: Value, lane: Value, further: int = 0) -> Value:
        """Rows of an operand from `at` on; `further` rows on from there by a constant offset."""
        k = self.k
        vl = self.te if op.lane_cap >= self.limits.te else k.idx("min", self.te, op.lane_cap)
        place = k.mem_at(op.buffer, [self.wstage if op.lane == "m" else self.stage, at, lane])
        place = k.mem_at(place, [self.zero, k.const(further), self.zero]) if further else place
        return operand(k, place, self.plan.dtype, self.kmax, vl, self.limits.te)

    def _scores(self, atom: Atom) -> None:
        """Two steps along the contracted dim share one configuration where their number is even."""
        k = self.k
        acc, keys, query = self.atom_accs[atom.value], self.staged[atom.keys.key, "r"], self.staged[atom.query.key, "m"]
        k.acc_zero(acc, self.keys, self.vl_m)
        length = self.limits.static(atom.dim)
        both = 2 if length is not None and length % (2 * self.kmax) == 0 else 1

        def mul(c: Value, _: list[Value]) -> Sequence[Value]:
            loaded = [[self._load(op, c, self.zero, u * self.kmax) for u in range(both)] for op in (keys, query)]
            for a, b in zip(*loaded, strict=True):
                k.mma(acc, a, b, self.keys, self.vl_m)
            return []

        k.for_(0, self._rounded(self.em.extent(atom.dim)), both * self.kmax, [], mul)

    def _clear(self) -> Sequence[Value]:
        """Rows of A behind the end are zero."""
        k, te = self.k, self.limits.te
        for place in self.rows_of_a.values():
            def row(t: Value, _: list[Value], place: Value = place) -> Sequence[Value]:
                k.store(k.mem_at(place, [t, self.zero]), k.bcast(k.sconst(0.0, self.plan.dtype), self.vl_m, te), self.vl_m, axis=1)
                return []

            k.for_(0, self.tiles.bk, 1, [], row)
        return []

    def _row(self, q: Value, at: Value, rows: Value) -> Sequence[Value]:
        """One row's states take the block in, wave by wave, anchors moved in between; its row of A goes to scratchpad."""
        k, em, te = self.k, self.em, self.limits.te
        states = {s.index: k.s_load(self._number(s.index, q)) for s in self.plan.vectors}
        anchors = [k.s_load(k.mem_at(place, [self.zero, q])) for place in self.anchors]
        moved: set[int] = set()
        reads: Binds = {}
        for value, acc in self.atom_accs.items():
            reads[value] = partial(self._column, acc, q, rows)
        with em.scope([Axis(self.plan.m, q), Axis((self.stream.dim,), at, rows, te)], reads):
            for wave in self.stream.waves():
                for a in dict.fromkeys(a for s in wave for a in s.anchors):
                    if a not in moved:
                        states, anchors = self._move(a, q, states, anchors)
                        moved.add(a)
                with em.scope(bind=self._body_binds(wave, anchors)):
                    for s in wave:
                        x = em.one(s.body.yielded[0] if not s.contraction else self._factor(s))
                        x = x if isinstance(x.type, VecType) else k.bcast(x, rows, te)
                        if s.contraction:
                            k.store(k.mem_at(self.rows_of_a[s.index], [self.zero, q]), x, rows, axis=0)
                        else:
                            states[s.index] = k.s(REDUCE_OP[s.kind], states[s.index], k.xred(s.kind, x, rows))
        for s in self.plan.vectors:
            k.s_store(self._number(s.index, q), states[s.index])
        for place, d in zip(self.anchors, anchors, strict=True):
            k.s_store(k.mem_at(place, [self.zero, q]), d)
        return []

    def _column(self, acc: Value, q: Value, rows: Value) -> Rows:
        return (self.k.acc_read(acc, q, rows, axis="col"),)

    def _factor(self, s: State) -> Value:
        return next(p.a_value for p in self.plan.products if p.state is s)

    def _number(self, s: int, q: Value) -> Value:
        return self.k.mem_at(self.numbers[s], [self.zero, q])

    def _body_binds(self, wave: Sequence[State], anchors: Sequence[Value]) -> Binds:
        k, stream = self.k, self.stream
        return {arg: (anchors[a] if stream.lazy(self.em, a) else safe_anchor(k, anchors[a], None)[0],)
                for s in wave for arg, a in zip(stream.anchor_args(s), s.anchors, strict=True)}

    # -- anchors
    def _move(self, a: int, q: Value, states: dict[int, Value], anchors: list[Value]) -> tuple[dict[int, Value], list[Value]]:
        k, em, stream = self.k, self.em, self.stream
        with em.scope(bind={stream.anchors.args[s]: (x,) for s, x in states.items()}):
            target = em.one(stream.anchors.yielded[a])
        old = anchors[a]

        def move() -> Sequence[Value]:
            _, zero_delta = safe_anchor(k, old, None, self._bottom(a))
            out = self._rebased(a, q, zero_delta(k.s("sub", old, target)), states)
            return [*out.values(), target]

        if stream.lazy(em, a):
            out = k.if_(k.s("gt", target, k.s("add", old, k.sconst(TAU, DType.f32))), move, lambda: [*states.values(), old])
        else:
            out = list(move())
        return dict(zip(states, out[:-1], strict=True)), [*anchors[:a], out[-1], *anchors[a + 1:]]

    def _rebased(self, a: int, q: Value, delta: Value, states: dict[int, Value]) -> dict[int, Value]:
        """The states of row q that use anchor a, moved; the accumulators' row in place."""
        k, em, r, n = self.k, self.em, self.stream.rebase, len(self.stream.states)
        binds: Binds = {r.args[s]: (x,) for s, x in states.items()}
        binds |= {arg: (delta if j == a else k.sconst(0.0, DType.f32),) for j, arg in enumerate(r.args[n:])}
        out = dict(states)
        with em.scope(bind=binds):
            for s in self.plan.vectors:
                if a in s.anchors:
                    out[s.index] = em.one(r.yielded[s.index])
            for p in self.plan.products:
                if a in p.state.anchors:
                    for j, acc in enumerate(self.accs[p.state.index]):
                        read = k.acc_read(acc, q, self.vl_n[j], axis="row")
                        with em.scope([self._columns(j)], {r.args[p.state.index]: (read,)}):
                            k.acc_write(acc, q, em.one(r.yielded[p.state.index]), self.vl_n[j], axis="row")
        return out

    def _columns(self, j: int) -> Axis:
        return Axis(self.plan.n, self.k.idx("add", self.n0, j * self.limits.te) if j else self.n0, self.vl_n[j], self.limits.te)

    # -- the end of a stream: its states, at its true anchors, into slot `sub`
    def _leave(self, sub: Value) -> Sequence[Value]:
        k, te = self.k, self.limits.te

        def row(q: Value, _: list[Value]) -> Sequence[Value]:
            states = {s.index: k.s_load(self._number(s.index, q)) for s in self.plan.vectors}
            anchors = [k.s_load(k.mem_at(place, [self.zero, q])) for place in self.anchors]
            for a in range(len(anchors)):
                if self.stream.lazy(self.em, a):
                    states = self._catch_up(a, q, states, anchors[a])
            for s in self.plan.vectors:
                k.s_store(k.mem_at(self.slots[s.index], [sub, q]), states[s.index])
            at = k.idx("add", k.idx("mul", sub, self.cap), q)
            for index, accs in self.accs.items():
                for j, acc in enumerate(accs):
                    read = k.acc_read(acc, q, self.vl_n[j], axis="row")
                    k.store(k.mem_at(self.wide_slots[index], [at, k.const(j * te)]), read, self.vl_n[j], axis=1)
            return []

        k.for_(0, self.vl_m, 1, [], row)
        if self.rounds > 1:
            self._reset()
        return []

    def _catch_up(self, a: int, q: Value, states: dict[int, Value], old: Value) -> dict[int, Value]:
        """A lazy anchor may lag: totals are defined at the true one."""
        k, em = self.k, self.em
        with em.scope(bind={self.stream.anchors.args[s]: (x,) for s, x in states.items()}):
            target = em.one(self.stream.anchors.yielded[a])
        _, zero_delta = safe_anchor(k, old, None, self._bottom(a))
        return self._rebased(a, q, zero_delta(k.s("sub", old, target)), states)

    # -- the merge of the SUB streams, row by row
    def _join(self, q: Value) -> Sequence[Value]:
        k, em, stream = self.k, self.em, self.stream
        found = [{s.index: k.s_load(k.mem_at(self.slots[s.index], [k.const(f), q])) for s in self.plan.vectors} for f in range(SUB)]
        own = []
        for states in found:
            with em.scope(bind={stream.anchors.args[s]: (x,) for s, x in states.items()}):
                own.append([em.one(d) for d in stream.anchors.yielded])
        totals: dict[int, Value] = {}
        with ExitStack() as stack:
            stack.enter_context(em.scope([Axis(self.plan.m, q)]))
            for wave in stream.waves():
                mine = [s for s in wave if not s.contraction]
                common = self._common(totals, {a for s in mine for a in s.anchors})
                for s in mine:
                    parts = [self._at(s, states, d, common) for states, d in zip(found, own, strict=True)]
                    totals[s.index] = self._sum(s, parts, None)
            common = self._common(totals, set(range(len(own[0]))))
            binds: Binds = {stream.finish.args[s]: (x,) for s, x in totals.items()}
            args = stream.finish.args[len(stream.states):]
            binds |= {arg: (safe_anchor(k, common[a], None)[0],) for a, arg in enumerate(args)}
            stack.enter_context(em.scope(bind=binds))
            self._store_narrow()
            for j in range(self.tiles.jn):
                self._store_columns(j, q, found, own, common)
        return []

    def _common(self, totals: dict[int, Value], which: set[int]) -> dict[int, Value]:
        with self.em.scope(bind={self.stream.anchors.args[s]: (x,) for s, x in totals.items()}):
            return {a: self.em.one(self.stream.anchors.yielded[a]) for a in sorted(which)}

    def _at(self, s: State, states: dict[int, Value], own: list[Value], common: dict[int, Value], wide: Binds | None = None) -> Value:
        """State s of one stream at the common anchors."""
        k, r = self.k, self.stream.rebase
        binds: Binds = {r.args[n]: (x,) for n, x in states.items()} | (wide or {})
        for a in s.anchors:
            _, zero_delta = safe_anchor(k, own[a], None)
            binds[r.args[len(self.stream.states) + a]] = (zero_delta(k.s("sub", own[a], safe_anchor(k, common[a], None)[0])),)
        with self.em.scope(bind=binds):
            return self.em.one(r.yielded[s.index])

    def _sum(self, s: State, parts: list[Value], vl: Value | None) -> Value:
        out = parts[0]
        for x in parts[1:]:
            out = self.k.s(REDUCE_OP[s.kind], out, x) if vl is None else self.k.vt(REDUCE_OP[s.kind], out, x, vl=vl)
        return out

    def _store_narrow(self) -> None:
        """Results without columns, with the item's first ones."""
        k, em = self.k, self.em
        narrow: list[tuple[str, Value, TensorType]] = [o for o in self.outs if not set(self.plan.n) & set(o[2].dims)]

        def go() -> Sequence[Value]:
            for name, v, t in narrow:
                mem, _ = em.address(name, t.dims, t.dtype, (), 0)
                k.s_store(mem, em.one(v))
            return []

        if narrow:
            k.if_(k.cmp("eq", self.n0, 0), go)

    def _store_columns(self, j: int, q: Value, found: list[dict[int, Value]], own: list[list[Value]], common: dict[int, Value]) -> None:
        k, em, te, vl = self.k, self.em, self.limits.te, self.vl_n[j]
        with em.scope([self._columns(j)]):
            binds: Binds = {}
            for p in self.plan.products:
                parts = []
                for f in range(SUB):
                    place = k.mem_at(self.wide_slots[p.state.index], [k.idx("add", q, f * self.cap), k.const(j * te)])
                    wide: Binds = {self.stream.rebase.args[p.state.index]: (k.load(place, vl, axis=1, lanes=te),)}
                    parts.append(self._at(p.state, found[f], own[f], common, wide))
                binds[self.stream.finish.args[p.state.index]] = (self._sum(p.state, parts, vl),)
            with em.scope(bind=binds):
                for name, v, t in self.outs:
                    if set(self.plan.n) & set(t.dims):
                        x = em.one(v)
                        mem, lane = em.address(name, t.dims, t.dtype, (), 0)
                        assert lane is not None
                        k.store(mem, x if isinstance(x.type, VecType) else k.bcast(x, vl, te), vl, axis=lane)
