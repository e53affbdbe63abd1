"""Clusters with a matrix contraction become tile kernels: CTAs own tiles of m x n, warps own matrix accumulators, and the streamed
dim goes by in blocks staged by DMA.

This is the frame; what a block does comes from the plan: `lower_gemm` where both factors are stored tensors, `lower_stream` where the first
factor is an expression (softmax's p).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType
from rvgpu.passes.context import Limits
from rvgpu.passes.kernel import FLOOR, IDENTITY, ceil_div, clamp, decode, frame, reject
from rvgpu.passes.matrix_plan import KMAX, Key, Leaf, MatrixPlan, look_up, n_lanes, operand
from rvgpu.passes.matrix_results import Results
from rvgpu.passes.places import Axis, Binds


@dataclass(frozen=True)
class Tiles:
    """wm x wn warps, each im x jn accumulator tiles; bk of the streamed dim per block. `wo` of the wm warps stand side by side along the outer
    m dims, each at its own coordinate there; 0: the m dims run as one axis through warps and lanes."""

    wm: int
    wn: int
    im: int
    jn: int
    bk: int
    wo: int = 0

    def shape(self, te: int) -> tuple[int, int]:
        """Rows and columns of a work item."""
        return self.wm * self.im * te, self.wn * self.jn * te

    def inner_rows(self, te: int) -> int:
        """Rows of a work item along the innermost m dim when wo > 0."""
        return self.wm // self.wo * self.im * te


@dataclass(frozen=True)
class Share:
    """What a warp has of a work item: its first row and column, rows and columns of its tiles; the item's batch coordinates and first column, and
    the part of the streamed dim that it goes through."""

    w: Value
    m0: Value
    n0: Value
    vl_m: list[Value]
    vl_n: list[Value]
    batch: list[Value]
    column: Value
    span: tuple[Value, Value]


Where = tuple[Value, ...]  # rows of a work item: the number of their tile; of plain products the first one and how many
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
    raw: Value | None = None  # the buffer as the 8-bit numbers that a transfer brings, in the second half of each row until `_convert`
    stage: Value | None = None


def converted(plan: MatrixPlan, t: Tiles, leaf: Leaf) -> bool:
    """Whether the warps of a team convert an 8-bit operand together in scratchpad; one warp by itself does it where it loads."""
    return plan.streamed_rows and t.wm * t.wn > 1 and leaf.value.tensor.dtype != plan.dtype


@dataclass(frozen=True)
class Lanes:
    """Elements of a tensor that go to lanes `at` .. `at + cap` of a buffer: `count` of them, zeros behind. None, 0: the whole buffer."""

    axis: Axis
    count: Value
    at: Value | None = None
    cap: int = 0


class Matrix(ABC):
    """Builds the K function of one plan (see the module's first lines)."""

    def __init__(self, func: Func, limits: Limits, plan: MatrixPlan, tiles: Tiles, stages: int, teams: int | None = None,
                 copies: int = 2) -> None:
        self.func, self.limits, self.tiles = func, limits, tiles
        self.k, self.em = frame(func, limits)
        plan.stream.link(self.em)
        self.plan, self.stream = plan, plan.stream
        self.te, self.zero = self.k.special("te"), self.k.const(0)
        self.kmax = KMAX[plan.dtype.bits]
        self.warp = self.k.special("warp")
        self.M, self.N = self.em.product(plan.m), self.em.product(plan.n)
        self.R = self._positions()
        self.batch_extents = [self.em.extent(d) for d in plan.batch]
        te = limits.te
        k, (high, wide) = self.k, self._units()
        self.bm, self.bn = tiles.wm * tiles.im * high, tiles.wn * tiles.jn * wide
        self.columns: Value | int = self.bn  # of a work item, but for the last
        # teams of warps with work items of their own, and a warp's place in its team
        self.mates = tiles.wm * tiles.wn
        self.teams = limits.warps // self.mates if teams is None else teams
        parted = self.mates < limits.warps
        self.team = k.idx("div", self.warp, self.mates) if parted else self.zero
        self.mate = k.idx("rem", self.warp, self.mates) if parted else self.warp
        self.m_warp = k.idx("div", self.mate, tiles.wn)
        self.m_off = k.idx("mul", self.m_warp, tiles.im * high)
        self.n_off = k.idx("mul", k.idx("rem", self.mate, tiles.wn), tiles.jn * wide)
        # rows of a score tile, and lanes of a B operand: TE, or the block's or the buffer's where those are smaller
        self.keys = self.te if tiles.bk >= te else k.idx("min", self.te, tiles.bk)
        self.m_tiles, self.n_tiles = self._m_tiles(), ceil_div(k, self.N, self.bn)
        self.stages, self.copies = stages, copies
        self.depth = 0 if plan.streamed_rows else stages - 1
        self.operands: dict[tuple[Key, str], Operand] = {}
        for p in plan.products:
            if p.a is not None:
                self._operand(p.a, plan.inner, "m", False)
            self._operand(p.b, plan.inner, "n", False)
        for a in plan.atoms:
            self._operand(a.keys, a.dim, "r", False)
            self._operand(a.query, a.dim, "m", True)
        self._accumulators()
        # vector states stand in scratchpad between the waves where a vector takes an eighth of the register file or more
        n = len(plan.vectors)
        self.park = k.spm_alloc(DType.f32, [k.const(n), k.const(te)], [k.const(te), k.const(1)], name="states", size_bytes=n * te * 4,
                                per_warp=True) if plan.streamed_rows and len(self.stream.waves()) > 1 and 8 * te >= limits.vlen else None

    def _units(self) -> tuple[int, int]:
        """Rows and columns of one of a warp's accumulators."""
        return self.limits.te, self.limits.te

    def _positions(self) -> Value:
        """How far the block loop goes."""
        return self.em.extent(self.stream.dim)

    def _accumulators(self) -> None:
        k, t = self.k, self.tiles
        self.accs = {p.state.index: [[k.acc_alloc(p.state.dtype) for _ in range(t.jn)] for _ in range(t.im)] for p in self.plan.products}
        self.atom_accs = {a.value: k.acc_alloc(a.value.tensor.dtype) for a in self.plan.atoms}

    def _strides(self, lane: str, k_cap: int, lane_cap: int) -> tuple[int, int]:
        """Of a staged operand along the contracted dim and along lanes."""
        return lane_cap, 1

    def _operand(self, leaf: Leaf, k_dim: Dim, lane: str, per_item: bool) -> None:
        if (leaf.key, lane) in self.operands:
            return
        k = self.k
        k_cap = self.tiles.bk if k_dim == self.plan.inner else -(-self.limits.bound(k_dim) // self.kmax) * self.kmax
        lane_cap = {"m": self.bm, "n": n_lanes(self.plan, self.limits, self.bn), "r": self.tiles.bk}[lane]
        stored = self.em.tensors[leaf.value][2]
        dtype = self.plan.dtype if not per_item and converted(self.plan, self.tiles, leaf) else stored
        count = (self.copies if per_item else self.stages) * self.teams
        strides = (k_cap * lane_cap, *self._strides(lane, k_cap, lane_cap))
        buffer = k.spm_alloc(dtype, [k.const(count), k.const(k_cap), k.const(lane_cap)], [k.const(s) for s in strides],
                             name=self.em.tensors[leaf.value][0], size_bytes=count * k_cap * lane_cap * dtype.bits // 8)
        op = self.operands[leaf.key, lane] = Operand(leaf, k_dim, lane, per_item, k_cap, lane_cap, buffer)
        if dtype != stored:
            halves = [count, k_cap, 2 * lane_cap]
            op.raw = k.spm_view(buffer, stored, [k.const(x) for x in halves], [k.const(x) for x in (2 * k_cap * lane_cap, 2 * lane_cap, 1)])

    # -- the frame: work items, tile coordinates, the block loop
    def build(self) -> KFunc:
        self.k.work(self._count(), self._item, self.teams, self.mates)
        return self.k.func

    def _count(self) -> Value:
        return self.k.idx("mul", self.k.idx("mul", self.m_tiles, self.n_tiles), self.em.product(self.plan.batch))

    def _m_tiles(self) -> Value:
        return ceil_div(self.k, self.M, self.bm)

    def _tile_of(self, w: Value) -> tuple[list[Value], Where, Value]:
        """Batch coordinates, rows, first column."""
        *batch, mt, nt = decode(self.k, w, [*self.batch_extents, self.m_tiles, self.n_tiles])
        return batch, (mt,), self.k.idx("mul", nt, self.bn)

    def _rows_of(self, where: Where) -> tuple[Value, list[Value]]:
        """This warp's first row of a work item, and how many rows each of its accumulator tiles has."""
        k, te, (mt,) = self.k, self.limits.te, where
        m0 = k.idx("add", k.idx("mul", mt, self.bm), self.m_off)
        return m0, [clamp(k, k.idx("sub", self.M, k.idx("add", m0, i * te)), self.te) for i in range(self.tiles.im)]

    def _span(self, w: Value) -> tuple[Value, Value]:
        """The part of the streamed dim that work item w goes through."""
        return self.zero, self.R

    def _share(self, w: Value) -> Share:
        k, te = self.k, self.limits.te
        batch, where, column = self._tile_of(w)
        (m0, vl_m), n0 = self._rows_of(where), k.idx("add", column, self.n_off)
        vl_n = [clamp(k, k.idx("sub", self.N, k.idx("add", n0, j * te)), self.te) for j in range(self.tiles.jn)]
        return Share(w, m0, n0, vl_m, vl_n, batch, column, self._span(w))

    @contextmanager
    def _at(self, share: Share) -> Iterator[None]:
        """Code for a warp's part of a work item."""
        before = self.__dict__.get("share")
        self._stand(share)
        axes = [Axis((d,), c) for d, c in zip(self.plan.batch, share.batch, strict=True)]
        if self.plan.streamed_rows or self.plan.vectors:
            axes.append(Axis(self.plan.m, share.m0, share.vl_m[0], self.limits.te))
        with self.em.scope(axes):
            yield
        if before is not None:
            self._stand(before)

    def _stand(self, share: Share) -> None:
        self.share, self.m0, self.n0, self.vl_m, self.vl_n = share, share.m0, share.n0, share.vl_m, share.vl_n

    def _item(self, w: Value) -> None:
        with self._at(self._share(w)):
            self._go_through(w)

    def _go_through(self, w: Value) -> None:
        self._finish(self.k.pipe(w, self.tiles.bk, self._begin(), self._span, self._copy, self._block, private=self.mates == 1, stages=self.stages,
                                 teams=self.teams, mates=self.mates, depth=self.depth))

    def _finish(self, out: list[Value]) -> None:
        """The results from what the pipe leaves."""
        Results(self).store(*self._parts(out), self.share.column)

    def _begin(self) -> list[Value]:
        """Accumulators and states as an item begins; what the pipe carries."""
        k, te = self.k, self.limits.te
        for tiles in self.accs.values():
            for i, row in enumerate(tiles):
                for j, acc in enumerate(row):
                    k.acc_zero(acc, self.vl_m[i], self.vl_n[j])
        if not (self.plan.streamed_rows or self.plan.vectors):
            return []
        states = self._keep([k.bcast(k.sconst(IDENTITY[s.kind], s.dtype), self.vl_m[0], te) for s in self.plan.vectors])
        anchors = [k.bcast(k.sconst(self.bottom(a), DType.f32), self.vl_m[0], te) for a in range(len(self.stream.anchor_needs))]
        return [*(s for s in states if s is not None), *anchors]

    # -- staging
    def _copy(self, w: Value, i: Value, stage: Value, wstage: Value) -> None:
        items = [op for op in self.operands.values() if op.per_item]
        first = self.k.cmp("eq", i, self._span(w)[0]) if items else None
        self._bring(w, i, lambda op: wstage if op.per_item else stage, list(self.operands.values()), first)

    def _bring(self, w: Value, i: Value, stage: Callable[[Operand], Value], operands: Sequence[Operand], first: Value | None = None) -> None:
        """Starts the transfers of a step of item w; those of a whole item if `first`."""
        k, em = self.k, self.em
        batch, where, n0 = self._tile_of(w)
        rows, all_warps = self._staged_rows(where)
        fixed, r = self._block_at(i)
        lanes = {"m": rows, "n": Lanes(Axis(self.plan.n, n0), clamp(k, k.idx("sub", self.N, n0), self.columns)), "r": r}
        with em.scope([*(Axis((d,), c) for d, c in zip(self.plan.batch, batch, strict=True)), *fixed]):
            for number, op in enumerate(operands):
                mine = None if op.lane == "m" and all_warps else self._mover(number)
                if op.per_item and first is not None:
                    mine = first if mine is None else k.s("and", mine, first)

                def go(op: Operand = op) -> Sequence[Value]:
                    # each operand has its own roles for dims: D is contracted in q @ k and a column in p @ v
                    inner = op.k_dim == self.plan.inner
                    k_axis = r.axis if inner else Axis((op.k_dim,), k.const(0))
                    k_count = r.count if inner else em.extent(op.k_dim)
                    with em.scope([lanes[op.lane].axis, k_axis]):
                        self._transfer(op, lanes[op.lane], k_count, stage(op))
                    return []

                if mine is None:
                    go()
                else:
                    k.if_(mine, go)

    def _block_at(self, i: Value) -> tuple[list[Axis], Lanes]:
        """Coordinates that a block has, and its rows along the dim that goes by in blocks."""
        return [], Lanes(Axis((self.stream.dim,), i), clamp(self.k, self.k.idx("sub", self.R, i), self.tiles.bk))

    def _mover(self, number: int) -> Value | None:
        """Whether this warp moves operand `number`; None: every warp does."""
        return None if self.mates == 1 else self.k.cmp("eq", self.mate, number % self.mates)

    def _place(self, op: Operand, stage: Value) -> Value:
        """The stage of this warp's team among those of the buffer."""
        if self.teams == 1:
            return stage
        return self.k.idx("add", self.k.idx("mul", self.team, self.copies if op.per_item else self.stages), stage)

    def _staged_rows(self, where: Where) -> tuple[Lanes, bool]:
        """The rows that one transfer brings, and whether every warp brings its own."""
        m0 = self.k.idx("mul", where[0], self.bm)
        return Lanes(Axis(self.plan.m, m0), clamp(self.k, self.k.idx("sub", self.M, m0), self.bm)), False

    def _transfer(self, op: Operand, lanes: Lanes, rows: Value, stage: Value) -> None:
        k, em = self.k, self.em
        name, dims, dtype = em.tensors[op.leaf.value]
        parts = em.groups(dims, op.leaf.sub)
        mem, _ = em.address(name, dims, dtype, op.leaf.sub, 0)
        index = look_up(k, em, op.leaf)
        lane_at = next(n for n, (_, axis, _) in enumerate(parts) if axis is lanes.axis)
        k_at = next(n for n, (_, axis, _) in enumerate(parts) if op.k_dim in axis.dims)
        if op.raw is not None:
            dst = k.mem_at(op.raw, [self._place(op, stage), k.const(0), k.idx("add", lanes.at or 0, op.lane_cap)])
        else:
            dst = k.mem_at(op.buffer, [self._place(op, stage), k.const(0), lanes.at or k.const(0)])
        k_cap, lane_cap = k.const(op.k_cap), k.const(lanes.cap or op.lane_cap)
        if lane_at == len(parts) - 1:
            k.dma_load(dst, mem, rows, lanes.count, k_cap, lane_cap, src_axes=(k_at, lane_at), dst_axes=(1, 2), index=index)
        elif k_at == len(parts) - 1:
            k.dma_load(dst, mem, lanes.count, rows, lane_cap, k_cap, src_axes=(lane_at, k_at), dst_axes=(2, 1), index=index)
        else:
            raise reject(f"neither the contracted dim nor a free dim of {name} is innermost in memory", self.stream.op.results[0])

    def _convert(self, stage: Value, operands: Iterable[Operand], first: Value, by: int) -> Sequence[Value]:
        """Rows first, first + by, ... of what stands in `stage` as 8-bit numbers. In place: a row is read before its second half is written."""
        k, te, dtype = self.k, self.limits.te, self.plan.dtype
        for op in operands:
            if op.raw is None:
                continue
            lanes = min(te, op.lane_cap)

            def row(r: Value, _: list[Value], op: Operand = op, lanes: int = lanes) -> Sequence[Value]:
                assert op.raw is not None
                for at in range(0, op.lane_cap, lanes):
                    vl = k.const(min(lanes, op.lane_cap - at))
                    x = k.load(k.mem_at(op.raw, [self._place(op, stage), r, k.const(op.lane_cap + at)]), vl, axis=2, lanes=te)
                    k.store(k.mem_at(op.buffer, [self._place(op, stage), r, k.const(at)]), k.cast(x, dtype, vl), vl, axis=2)
                return []

            k.for_(first, op.k_cap, by, [], row)
        return []

    def _convert_all(self, stage: Value) -> Sequence[Value]:
        """Everything, by all warps of the team, which meet then."""
        self._convert(stage, self.operands.values(), self.mate, self.mates)
        self._meet()
        return []

    def _meet(self) -> None:
        """The warps of a team wait for each other."""
        if self.mates == self.limits.warps:
            self.k.bar(0)
        elif self.mates > 1:
            self.k.bar(0, self.team, self.mates)

    def _load(self, op: Operand, at: Value, lane: Value) -> Value:
        assert op.stage is not None
        vl = self.te if op.lane_cap >= self.limits.te else self.k.idx("min", self.te, op.lane_cap)
        place = self.k.mem_at(op.buffer, [self._place(op, op.stage), at, lane])
        return operand(self.k, place, self.plan.dtype, self.kmax, vl, self.limits.te)

    def _rounded(self, x: Value) -> Value:
        return self.k.idx("mul", ceil_div(self.k, x, self.kmax), self.kmax) if self.kmax > 1 else x

    # -- what the two kinds of kernel do differently
    def _block(self, i: Value, stage: Value, wstage: Value, carried: list[Value]) -> Sequence[Value]:
        rows = self._enter(i, stage, wstage)
        return self.block(i, rows, carried)

    def _enter(self, i: Value, stage: Value, wstage: Value) -> Value:
        """Operands are read from these stages from now on; the rows of the block from i on."""
        for op in self.operands.values():
            op.stage = wstage if op.per_item else stage
        return self._block_at(i)[1].count

    @abstractmethod
    def block(self, i: Value, rows: Value, carried: list[Value]) -> Sequence[Value]:
        """`rows` of the streamed dim from `i` on, by a warp that has a tile; returns the carried values."""

    def total(self, state: int, i: int, j: int, row: Value) -> Value:
        """A row of a state's tile at the end of the streamed dim."""
        return self.k.acc_read(self.accs[state][i][j], row, self.vl_n[j], axis="row")

    # -- vector states and anchors, as loops carry them
    def _parts(self, carried: list[Value]) -> tuple[States, list[Value]]:
        """The vector states and the anchors of what a loop carries."""
        n = 0 if self.park is not None else len(self.plan.vectors)
        return [*carried[:n], *[None] * (len(self.plan.vectors) - n)], list(carried[n:])

    def _keep(self, states: States) -> States:
        """Stores the states that stand in scratchpad; they may be used once more until they are dropped."""
        for m, s in enumerate(states):
            if self.park is not None and s is not None:
                self.k.store(self._parked(m), s, self.vl_m[0], axis=1)
        return self._drop(states)

    def _drop(self, states: States) -> States:
        return list(states) if self.park is None else [None] * len(states)

    def _parked(self, m: int) -> Value:
        assert self.park is not None
        return self.k.mem_at(self.park, [self.k.const(m), self.k.const(0)])

    def _state(self, states: States, m: int) -> Value:
        s = states[m]
        return s if s is not None else self.k.load(self._parked(m), self.vl_m[0], axis=1, lanes=self.limits.te)

    def bind_states(self, args: Sequence[Value], states: States) -> Binds:
        return {args[s.index]: (lambda m=m: (self._state(states, m),)) for m, s in enumerate(self.plan.vectors)}  # type: ignore[misc]

    def _lazy(self, a: int) -> bool:
        return self.stream.lazy(self.em, a)

    def bottom(self, a: int) -> float:
        return FLOOR if self._lazy(a) else float("-inf")
