"""Products whose first factor is made row by row (softmax's p): the rows come from the block's tiles in registers, lanes along m, and go
straight into the multiply. Anchors move by the cascade's re-base: vector states per lane, accumulators by columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

from rvgpu.ir.core import Op, Value
from rvgpu.ir.types import DType, VecType
from rvgpu.passes.kernel import HELD_TAU, IDENTITY, REDUCE_OP, TAU, State, ceil_div, clamp, decode, safe_anchor
from rvgpu.passes.lower_held import Held
from rvgpu.passes.lower_matrix import Lanes, Matrix, Operand, Share, States, Where
from rvgpu.passes.masksplit import Mask, Ranges, nothing, span, whole
from rvgpu.passes.places import Axis, Binds, Rows

MEET = 8  # barriers from here on: even warps of team t wait for each other at MEET + t


class Streamed(Held):
    @property
    def converts(self) -> bool:
        return any(op.raw is not None for op in self.operands.values())

    # -- work items: which rows, and which part of the streamed dim
    def _m_tiles(self) -> Value:
        """Tiles of rows: all of one axis, or (wo > 0) those of the innermost m dim times groups of `wo` along the outer ones."""
        if not self.tiles.wo:
            return super()._m_tiles()
        self.inner = self.em.extent(self.plan.m[-1])
        self.outer = self.em.product(self.plan.m[:-1])
        self.groups = ceil_div(self.k, self.outer, self.tiles.wo)
        return self.k.idx("mul", ceil_div(self.k, self.inner, self.tiles.inner_rows(self.limits.te)), self.groups)

    def _tile_of(self, w: Value) -> tuple[list[Value], Where, Value]:
        if not self.plan.later_is_longer:
            return super()._tile_of(w)
        k = self.k
        mt, *batch, nt = decode(k, w, [self.m_tiles, *self.batch_extents, self.n_tiles])
        tile = k.idx("sub", k.idx("sub", self.m_tiles, 1), mt)
        if self.limits.product(self.plan.batch) % self.limits.cores == 0:
            # a core gets every tile of its batches: its start among them is free, and cores that go through different tiles use different L2 sets
            flat = k.idx("rem", k.idx("div", w, self.n_tiles), self.em.product(self.plan.batch))
            tile = k.idx("rem", k.idx("add", tile, flat), self.m_tiles)
        return batch, (tile,), k.idx("mul", nt, self.bn)

    def _inner_tile(self, where: Where) -> tuple[Value, Value]:
        """First row along the innermost m dim, and the group along the outer ones, of a tile of rows; groups are neighbours."""
        tile, group = decode(self.k, where[0], [self.zero, self.groups])
        return self.k.idx("mul", tile, self.tiles.inner_rows(self.limits.te)), group

    def _rows_of(self, where: Where) -> tuple[Value, list[Value]]:
        if not self.tiles.wo:
            return super()._rows_of(where)
        k, t = self.k, self.tiles
        first, group = self._inner_tile(where)
        apart = t.wm // t.wo
        inner = k.idx("add", first, k.idx("mul", k.idx("rem", self.m_warp, apart), self.limits.te)) if apart > 1 else first
        outer = k.idx("add", k.idx("mul", group, t.wo), k.idx("div", self.m_warp, apart))
        left = k.idx_select(k.cmp("lt", outer, self.outer), k.idx("sub", self.inner, inner), 0)
        return k.idx("add", k.idx("mul", outer, self.inner), inner), [clamp(k, left, self.te)]

    def _staged_rows(self, where: Where) -> tuple[Lanes, bool]:
        if not self.tiles.wo and self.stages == 2:
            return super()._staged_rows(where)
        m0, (count,) = self._rows_of(where)
        return Lanes(Axis(self.plan.m, m0), count, self.m_off, self.limits.te), True

    def _item_ranges(self, where: Where) -> Ranges:
        """Intervals over a tile of rows."""
        k, em, m, r = self.k, self.em, self.plan.m, self.stream.dim
        if not self.tiles.wo:
            m0 = k.idx("mul", where[0], self.bm)
            return Ranges(em, r, Axis(m, m0), clamp(k, k.idx("sub", self.M, m0), self.bm))
        first, _ = self._inner_tile(where)
        count = clamp(k, k.idx("sub", self.inner, first), self.tiles.inner_rows(self.limits.te))
        return Ranges(em, r, Axis(m[-1:], first), count, free=m[:-1])

    def _span(self, w: Value) -> tuple[Value, Value]:
        """Whole blocks between the first and the last element that no mask leaves out; one block where there is none."""
        k, em, bk = self.k, self.em, self.tiles.bk
        if not self.plan.masks:
            return super()._span(w)
        batch, where, _ = self._tile_of(w)
        with em.scope([Axis((d,), c) for d, c in zip(self.plan.batch, batch, strict=True)]):
            lo, hi = span(self.plan.masks, self._item_ranges(where))
        end = k.idx("max", k.idx("sub", self.R, 1), 0)
        lo = self.zero if lo is None else k.idx("mul", k.idx("div", clamp(k, lo, end), bk), bk)
        return lo, self.R if hi is None else k.idx("min", k.idx("max", hi, k.idx("add", lo, 1)), self.R)

    # -- with a third stage: half the warps are a product ahead
    def _go_through(self, w: Value) -> None:
        """Odd warps do a block's atoms and then its states; even warps its states, and then the atoms of the next block, which is the next item's
        at an item's end. So one half's vector work and results run beside the other's products, always."""
        if self.stages == 2:
            if self.copies == 1:
                self._bring_item(w)
            super()._go_through(w)
            return
        k, ops = self.k, list(self.operands.values())
        self.items = self._count()
        following = self._share(k.idx("add", w, k.idx("mul", k.special("ctas"), self.teams)))

        def copy(w: Value, i: Value, stage: Value, _: Value) -> None:
            self._bring(w, i, lambda _: stage, [op for op in ops if not op.per_item])

        def item(w: Value, wstage: Value) -> None:
            self._bring(w, self.zero, lambda _: wstage, [op for op in ops if op.per_item])

        def block(i: Value, stage: Value, wstage: Value, carried: list[Value], *after: Value) -> Sequence[Value]:
            return self._step(i, stage, wstage, carried, following, *after)

        k.pipe(w, self.tiles.bk, self._begin(), self._span, copy, block, private=False, stages=self.stages, teams=self.teams,
               mates=self.mates, ahead=item)

    # -- with room for one item's own operands only: they come once every warp has left those of the item before
    def _bring_item(self, w: Value) -> None:
        self._meet()
        self._bring(w, self.zero, lambda _: self.zero, [op for op in self.operands.values() if op.per_item])
        self.k.dma_wait(0)
        self._meet()

    def _copy(self, w: Value, i: Value, stage: Value, wstage: Value) -> None:
        if self.copies == 2:
            super()._copy(w, i, stage, wstage)
        else:
            self._bring(w, i, lambda _: stage, [op for op in self.operands.values() if not op.per_item])

    def _enter(self, i: Value, stage: Value, wstage: Value) -> Value:
        return super()._enter(i, stage, wstage if self.copies == 2 else self.zero)

    def _step(self, i: Value, stage: Value, wstage: Value, carried: list[Value], following: Share,
              next_w: Value, next_i: Value, next_stage: Value, next_wstage: Value) -> Sequence[Value]:
        k = self.k
        odd = k.cmp("eq", k.idx("rem", self.mate, 2), 1)
        last = k.cmp("ne", next_w, self.share.w)
        first = k.cmp("lt", self.share.w, k.idx("mul", k.special("ctas"), self.teams))
        start = k.s("and", first, k.cmp("eq", i, self.share.span[0]))
        if self.converts:
            k.if_(start, lambda: self._convert_all(stage))
        out = self._now(i, stage, wstage, k.s("or", odd, start), carried)
        if self.converts:
            k.if_(k.cmp("lt", next_w, self.items), lambda: self._convert_next(odd, next_stage))
        k.if_(last, lambda: self._end(out))
        k.if_(k.s("and", k.s("not", odd), k.cmp("lt", next_w, self.items)), lambda: self._ahead(last, following, next_i, next_stage, next_wstage))
        return out

    def _now(self, i: Value, stage: Value, wstage: Value, atoms: Value, carried: list[Value]) -> list[Value]:
        """The states of a block, and its atoms before them unless they are there."""
        k, rows = self.k, self._enter(i, stage, wstage)
        counts = self._counts(i, rows)
        k.if_(k.s("and", atoms, counts), self._atoms, lambda: [])
        return k.if_(counts, lambda: self._masked_or_not(i, rows, carried), lambda: carried)

    def _convert_next(self, odd: Value, stage: Value) -> Sequence[Value]:
        """What the next block brought: even warps convert and meet for what its atoms need, which they make next, odd warps the rest."""
        k, place = self.k, self.k.idx("div", self.mate, 2)
        keys = [op for op in self.operands.values() if op.lane == "r"]
        others = [op for op in self.operands.values() if op.lane != "r"]
        even = self.mates - self.mates // 2

        def ahead() -> Sequence[Value]:
            self._convert(stage, keys, place, even)
            if even > 1:
                k.bar(MEET, self.team if self.mates < self.limits.warps else None, even)
            return []

        k.if_(odd, lambda: self._convert(stage, others, place, self.mates // 2), ahead)
        return []

    def _end(self, carried: list[Value]) -> Sequence[Value]:
        self._finish(carried)
        return []

    def _ahead(self, ends: Value, following: Share, i: Value, stage: Value, wstage: Value) -> Sequence[Value]:
        """The atoms of the block after, which is the first of item `following` where one ends."""
        k = self.k

        def wait() -> Sequence[Value]:
            k.dma_wait(0)  # for the item's own operands
            return []

        k.if_(ends, wait)
        rows = self._enter(i, stage, wstage)
        with self._at(self._either(ends, following, self.share)):
            k.if_(self._counts(i, rows), self._atoms)
        return []

    def _either(self, condition: Value, a: Share, b: Share) -> Share:
        def of(x: Value, y: Value) -> Value:
            return self.k.idx_select(condition, x, y)

        def each(xs: Sequence[Value], ys: Sequence[Value]) -> list[Value]:
            return [of(x, y) for x, y in zip(xs, ys, strict=True)]

        lo, hi = each(a.span, b.span)
        return Share(of(a.w, b.w), of(a.m0, b.m0), of(a.n0, b.n0), each(a.vl_m, b.vl_m), each(a.vl_n, b.vl_n), each(a.batch, b.batch),
                     of(a.column, b.column), (lo, hi))

    def _ranges(self, i: Value, rows: Value) -> Ranges:
        k = self.k
        return Ranges(self.em, self.stream.dim, Axis(self.plan.m, self.m0), self.vl_m[0], (i, k.idx("sub", k.idx("add", i, rows), 1)))

    def _counts(self, i: Value, rows: Value) -> Value:
        """i1: the block has rows, and not all of it is masked."""
        k, skip = self.k, nothing(self.plan.masks, self._ranges(i, rows)) if self.plan.masks else None
        some = k.cmp("gt", rows, 0)
        return some if skip is None else k.s("and", some, k.s("not", skip))

    def block(self, i: Value, rows: Value, carried: list[Value]) -> Sequence[Value]:
        """At most TE rows: atoms into tiles, then the states wave by wave, anchors moved in between."""
        def some() -> Sequence[Value]:
            self._atoms()
            return self._masked_or_not(i, rows, carried)

        if self.converts:
            stage = next(op.stage for op in self.operands.values() if op.raw is not None)
            assert stage is not None
            self._convert_all(stage)
        return self.k.if_(self._counts(i, rows), some, lambda: carried) if self.plan.masks else some()

    def _masked_or_not(self, i: Value, rows: Value, carried: list[Value]) -> Sequence[Value]:
        if not self.plan.masks:
            return self._states(i, rows, carried, True)
        free = whole(self.plan.masks, self._ranges(i, rows))
        return self.k.if_(free, lambda: self._unmasked(i, rows, carried), lambda: self._states(i, rows, carried, False))

    def _unmasked(self, i: Value, rows: Value, carried: list[Value]) -> Sequence[Value]:
        """`_states` without the masks' selects."""
        for m in self.plan.masks:
            self.em.alias[m.select] = m.kept
        out = self._states(i, rows, carried, True)
        for m in self.plan.masks:
            del self.em.alias[m.select]
        return out

    def _atoms(self) -> list[Value]:
        """The block's products with the streamed dim along the rows of tiles."""
        k, em = self.k, self.em
        assert self.tiles.bk <= self.limits.te
        for atom in self.plan.atoms:
            acc = self.atom_accs[atom.value]
            k.acc_zero(acc, self.keys, self.vl_m[0])
            keys, query = self.operands[atom.keys.key, "r"], self.operands[atom.query.key, "m"]

            def mul(c: Value, _: list[Value], acc: Value = acc, keys: Operand = keys, query: Operand = query) -> list[Value]:
                a, b = self._load(keys, c, self.zero), self._load(query, c, self.m_off)
                k.mma(acc, a, b, self.keys, self.vl_m[0])
                return []

            k.for_(0, self._rounded(em.extent(atom.dim)), self.kmax, [], mul)
        return []

    def _states(self, i: Value, rows: Value, carried: list[Value], whole: bool) -> Sequence[Value]:
        """The states after a block. With a witness, carried last: whether a block without masks has gone by, and anchors stay."""
        states, anchors = self._parts(carried)
        waves, moved, settled = self.stream.waves(), set[int](), carried[-1:] if self.witness else []
        if settled:
            k, extreme = self.k, waves.pop(0)

            def follow() -> list[Value]:
                after = self._wave(extreme, i, rows, self._drop(states), anchors)
                return self._loop(*self._move_anchor(0, i, self._drop(after), anchors))

            moving = k.s("or", self.again, k.cmp("eq", settled[0], 0))
            states, anchors = Matrix._parts(self, k.if_(moving, follow, lambda: self._loop(states, anchors)))
            moved.add(0)
        for wave in waves:
            for a in dict.fromkeys(a for s in wave for a in s.anchors):
                if a not in moved:
                    states, anchors = self._move_anchor(a, i, states, anchors)
                    moved.add(a)
            states = self._wave(wave, i, rows, self._drop(states), anchors)
        return [*self._loop(self._drop(states), anchors), *([self.k.const(1)] if settled and whole else settled)]

    def _loop(self, states: States, anchors: list[Value]) -> list[Value]:
        """What a loop carries of these."""
        return [*(s for s in states if s is not None), *anchors]

    def _wave(self, wave: list[State], position: Value, rows: Value, states: States,
              anchors: list[Value]) -> States:
        """One pass over the rows of a tile: vector states accumulate per lane, rows of A go into the multiply."""
        mine = [s for s in wave if not s.contraction]
        init = [self._state(states, self.plan.vectors.index(s)) for s in mine]
        scaled = self._scaled(wave[0].body.yielded[0]) if len(wave) == 1 and wave[0].kind in ("max", "min") and not wave[0].anchors else None
        if scaled is None:
            parts = self._rows(wave, position, rows, init, anchors)
        else:
            parts = self._scaled_extreme(wave[0], *scaled, position, rows, init)
        out = list(states)
        for s, v in zip(mine, parts, strict=True):
            out[self.plan.vectors.index(s)] = v
        self._keep(out)
        return out

    def _scaled(self, v: Value) -> tuple[Value, Value, Value] | None:
        """(x * c, x, c) when v is x * c for a number c, perhaps under masks."""
        v = self._under_masks(v)[0]
        if v.op is None or v.op.name != "mul" or v.tensor.dtype != DType.f32:
            return None
        x, c = v.op.operands
        x, c = (c, x) if not x.tensor.dims else (x, c)
        return None if c.tensor.dims or not x.tensor.dims else (v, x, c)

    def _under_masks(self, v: Value) -> tuple[Value, list[Mask]]:
        masks = []
        by_select = {m.select: m for m in self.plan.masks}
        v = self.em.resolve(v)
        while v in by_select:
            masks.append(by_select[v])
            v = self.em.resolve(by_select[v].kept)
        return v, masks

    def _scaled_extreme(self, state: State, product: Value, x: Value, c: Value, position: Value, rows: Value, init: list[Value]) -> list[Value]:
        """max(x * c) = c * max(x) for 0 < c < inf, bit for bit: rounding is monotone."""
        k, em, vl = self.k, self.em, self.vl_m[0]
        factor = em.one(c)
        plain = k.s("and", k.s("gt", factor, k.sconst(0.0, DType.f32)), k.s("lt", factor, k.sconst(float("inf"), DType.f32)))

        def unscaled() -> Sequence[Value]:
            em.alias[product] = x
            bottom = k.bcast(k.sconst(IDENTITY[state.kind], DType.f32), vl, self.limits.te)
            part, = self._rows([state], position, rows, [bottom], [])
            del em.alias[product]
            return [k.vt(REDUCE_OP[state.kind], init[0], k.vt("mul", part, factor, vl=vl), vl=vl)]

        return list(k.if_(plain, unscaled, lambda: self._rows([state], position, rows, init, [])))

    def _differences(self, wave: list[State]) -> Binds:
        """x * c - anchor in one rounding, below the masks so that masked and whole blocks round alike."""
        out: Binds = {}
        for s in wave:
            for op in s.body.ops:
                scaled = self._scaled(op.operands[0]) if op.name == "sub" and op.operands[1] in self.stream.anchor_args(s) else None
                if scaled is not None:
                    out[op.result] = partial(self._difference, op, *scaled[1:])
        return out

    def _difference(self, sub: Op, x: Value, c: Value) -> Rows:
        k, em = self.k, self.em
        factor, anchor, bottom = em.one(c), em.one(sub.operands[1]), k.sconst(float("-inf"), DType.f32)
        out = tuple(k.vt("fms", r, factor, anchor, vl=self.vl_m[0]) for r in em.emit(x))
        for m in reversed(self._under_masks(sub.operands[0])[1]):
            holds = em.emit(m.condition)
            out = tuple(em.apply("select", [h, *((r, bottom) if m.holds else (bottom, r))], {}, DType.f32) for h, r in zip(holds, out, strict=True))
        return out

    def _rows(self, wave: list[State], position: Value, rows: Value, init: list[Value], anchors: list[Value]) -> list[Value]:
        """The wave's vector states after the block's rows."""
        k, em = self.k, self.em
        step = max([2, *(self.kmax for s in wave if s.contraction)])
        binds: Binds = {}
        for s in wave:
            for arg, a in zip(self.stream.anchor_args(s), s.anchors, strict=True):
                binds[arg] = (anchors[a] if self._lazy(a) else safe_anchor(k, anchors[a], self.vl_m[0])[0],)
        mine = [s for s in wave if not s.contraction]
        differences = self._differences(wave)

        def some(t: Value, parts: list[Value], count: int) -> list[Value]:
            reads: Binds = {
                atom.value: (lambda atom=atom: tuple(  # type: ignore[misc]
                    k.acc_read(self.atom_accs[atom.value], k.idx("add", t, u) if u else t, self.vl_m[0], axis="row")
                    for u in range(count))) for atom in self.plan.atoms}
            reads |= differences
            out = list(parts)
            with em.scope([Axis((self.stream.dim,), k.idx("add", position, t))], reads, rows=count):
                for s in wave:
                    if s.contraction:
                        self._feed(s, t, count)
                        continue
                    xs, n, times = em.emit(s.body.yielded[0]), mine.index(s), count
                    if s.kind in ("max", "min"):  # any order gives the same: a shorter chain
                        xs, times = (reduce(lambda a, b: k.vt(REDUCE_OP[s.kind], a, b, vl=self.vl_m[0]), xs),), 1
                    for u in range(times):
                        out[n] = k.vt(REDUCE_OP[s.kind], out[n], xs[u % len(xs)], vl=self.vl_m[0])
            return out

        with em.scope(bind=binds):
            whole = k.idx("mul", k.idx("div", rows, step), step)
            parts = k.for_(0, whole, step, init, lambda t, p: some(t, p, step))
            for u in range(1, step):  # rows left over: 1 .. step - 1
                count = k.idx("sub", rows, whole)
                parts = k.if_(k.cmp("eq", count, u), lambda u=u, parts=parts: some(whole, parts, u),  # type: ignore[misc]
                              lambda parts=parts: parts)  # type: ignore[misc]
        return parts

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
            b = self.operands[product.b.key, "n"]
            for j, acc in enumerate(self.accs[state.index][0]):
                lane = k.idx("add", self.n_off, j * te) if j else self.n_off
                row = k.idx("add", at, first) if first else at
                k.mma(acc, a, self._load(b, row, lane), self.vl_m[0], self.vl_n[j])

    # -- anchors
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
            grown = k.vt("gt", target, k.vt("add", old, k.sconst(HELD_TAU if self.witness else TAU, DType.f32), vl=vl), vl=vl)
            out = k.if_(k.vote("any", grown, vl), lambda: move(k.select(grown, target, old, vl)), lambda: [*stay, old])
        else:
            out = move(target)
        return Matrix._parts(self, list(out))[0], [*anchors[:a], out[-1], *anchors[a + 1:]]

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
