"""Level K's builder: one method per op, the one place that fixes operand order and attributes.

A kernel (`KFunc`) is SPMD over the warps of a CTA. `idx` and scalar values are uniform over the warp; a `vt` is one
row of lanes in vector registers. Every op that makes or consumes lanes takes the live lane count `vl` (an idx) as its
last operand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rvgpu.errors import Loc
from rvgpu.ir.core import Block, Op, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import AccType, DType, IdxType, MemType, OpndType, ScalarType, TokType, Type, VecType

IDX = IdxType()
I1 = ScalarType(DType.i1)


@dataclass(eq=False)
class KTensor:
    """An argument tensor of a kernel: row-major in `dims` order, unpadded."""

    name: str
    dtype: DType
    dims: tuple[Dim, ...]
    output: bool = False


@dataclass(eq=False)
class KFunc:
    """One kernel. ABI slots: inputs, then outputs (`tensors` keeps that order), workspace (0), `scalars`, `dims`,
    TE."""

    name: str
    tensors: list[KTensor]
    scalars: list[tuple[str, DType]]
    dims: list[str]
    warps: int
    body: Block = field(default_factory=Block)
    spm_bytes: int = 0
    vlen: int = 512  # the machine facts that the code depends on
    te: int = 64
    loc: Loc | None = None


class K:
    """Appends K ops at the cursor. `loc` is sticky (the user's line)."""

    def __init__(self, func: KFunc) -> None:
        self.func = func
        self.block = func.body
        self.loc: Loc | None = func.loc
        self._consts: dict[tuple[int, int], Value] = {}

    # -- plumbing
    def emit(self, name: str, operands: Sequence[Value] = (), types: Sequence[Type] = (), regions: Sequence[Block] = (),
             /, **attrs: object) -> list[Value]:
        op = Op(name, list(operands), attrs=dict(attrs), regions=list(regions), loc=self.loc)  # type: ignore[arg-type]
        op.results = [Value(t, op, i) for i, t in enumerate(types)]
        self.block.ops.append(op)
        return op.results

    def _one(self, name: str, operands: Sequence[Value], type: Type, /, **attrs: object) -> Value:
        return self.emit(name, operands, [type], **attrs)[0]

    @contextmanager
    def at(self, block: Block) -> Iterator[None]:
        saved, self.block = self.block, block
        yield
        self.block = saved

    # -- idx: floor semantics, operands >= 0 for div and rem
    def const(self, value: int) -> Value:
        return self._one("idx.const", [], IDX, value=value)

    def idx(self, op: str, x: Value | int, y: Value | int) -> Value:
        """op in add sub mul div rem min max."""
        return self._one(f"idx.{op}", [self._v(x), self._v(y)], IDX)

    def cmp(self, pred: str, x: Value | int, y: Value | int) -> Value:
        """pred in lt le gt ge eq ne (signed) -> i1 scalar."""
        return self._one("idx.cmp", [self._v(x), self._v(y)], I1, pred=pred)

    def idx_select(self, cond: Value, x: Value | int, y: Value | int) -> Value:
        return self._one("idx.select", [cond, self._v(x), self._v(y)], IDX)

    def _v(self, x: Value | int) -> Value:
        return self.const(x) if isinstance(x, int) else x

    def dim(self, name: str) -> Value:
        return self._one("dim", [], IDX, name=name)

    def special(self, name: str) -> Value:
        """name in te cta ctas warp warps."""
        return self._one(name, [], IDX)

    # -- scalars
    def scalar(self, name: str, dtype: DType) -> Value:
        return self._one("scalar", [], ScalarType(dtype), name=name)

    def sconst(self, value: float | int, dtype: DType) -> Value:
        return self._one("sconst", [], ScalarType(dtype), value=value)

    def s(self, op: str, *xs: Value, dtype: DType | None = None) -> Value:
        """Scalar arithmetic: `s.add`, ... (same names as vt ops); comparisons give i1; `and`/`or`/`not` on i1."""
        t = I1 if op in CMPS else ScalarType(dtype or _sdt(xs[-1]))
        return self._one(f"s.{op}", xs, t)

    def s_cast(self, x: Value, dtype: DType) -> Value:
        return self._one("s.cast", [x], ScalarType(dtype))

    def s_from_idx(self, x: Value, dtype: DType = DType.i32) -> Value:
        return self._one("s.from_idx", [x], ScalarType(dtype))

    # -- memory. Extents and strides in elements, one idx per axis.
    def idx_from_s(self, x: Value) -> Value:
        """An integer scalar as an index, with its sign."""
        return self._one("idx.from_s", [x], IDX)

    def mem_arg(self, name: str, dtype: DType, extents: Sequence[Value], strides: Sequence[Value]) -> Value:
        """A view of argument tensor `name`: operands extents then strides."""
        return self._one("mem.arg", [*extents, *strides], MemType("dram", len(extents), dtype), name=name)

    def spm_alloc(self, dtype: DType, extents: Sequence[Value], strides: Sequence[Value], *, name: str, size_bytes: int,
                  per_warp: bool = False) -> Value:
        """A scratchpad buffer of `size_bytes` (each warp gets its own when per_warp). P9 adds attr offset_bytes."""
        return self._one("spm.alloc", [*extents, *strides], MemType("spm", len(extents), dtype), name=name,
                         size_bytes=size_bytes, per_warp=per_warp)

    def spm_view(self, mem: Value, dtype: DType, extents: Sequence[Value], strides: Sequence[Value]) -> Value:
        """The bytes from a scratchpad buffer's origin on, seen as another dtype."""
        return self._one("spm.view", [mem, *extents, *strides], MemType("spm", len(extents), dtype))

    def mem_at(self, mem: Value, index: Sequence[Value]) -> Value:
        """The sub-buffer whose origin is `index`; same rank, strides; extents shrink by index."""
        return self._one("mem.at", [mem, *index], mem.type)

    # -- DMA: 2-D, rows along src axis `rows_axis`, columns along `cols_axis` (unit stride in src).
    def dma_load(self, dst: Value, src: Value, rows: Value, cols: Value, fill_rows: Value, fill_cols: Value, *,
                 src_axes: tuple[int, int], dst_axes: tuple[int, int], index: Value | None = None) -> Value:
        """dst[(r on dst_axes[0], c on dst_axes[1])] <- src[(r on src_axes[0], c on src_axes[1])], r < rows, c < cols,
        and 0 where r < fill_rows, c < fill_cols beyond that. src's column axis has stride 1. If dst's column axis has
        stride 1 it is a plain row copy, else dst's *row* axis has stride 1 and the transfer is an element
        transpose. `index` (i32 in DRAM): row r comes from src's row index[r]."""
        if index is not None:
            return self._one("dma.gather", [dst, src, index, rows, cols, fill_rows, fill_cols], TokType(), src_axes=src_axes, dst_axes=dst_axes)
        return self._one("dma.load", [dst, src, rows, cols, fill_rows, fill_cols], TokType(), src_axes=src_axes,
                         dst_axes=dst_axes)

    def dma_store(self, dst: Value, src: Value, rows: Value, cols: Value, *, src_axes: tuple[int, int],
                  dst_axes: tuple[int, int]) -> Value:
        """dram <- spm, same axes rule."""
        return self._one("dma.store", [dst, src, rows, cols], TokType(), src_axes=src_axes, dst_axes=dst_axes)

    def dma_wait(self, left: int | Value) -> None:
        """This warp's transfers but the last `left` are complete. (WAIT(last - left).)"""
        if isinstance(left, int):
            self.emit("dma.wait", [], left=left)
        else:
            self.emit("dma.wait", [left], left=0)

    def bar(self, id: int = 0, which: Value | None = None, warps: int | None = None) -> None:
        """Barrier `id`, or `id + which`, of all warps, or of any `warps` of them that come there."""
        self.emit("bar", [] if which is None else [which], **({"id": id} if warps is None else {"id": id, "warps": warps}))

    # -- control
    def for_(self, lo: Value | int, hi: Value | int, step: Value | int, init: Sequence[Value],
             body: Callable[[Value, list[Value]], Sequence[Value]], *, unroll: int = 1) -> list[Value]:
        """for i in lo..hi step step with carried values; body(i, carried) -> next carried. Zero trips allowed.
        `unroll=n` (n > 1): the code generator may unroll; the trip count need not divide."""
        operands = [self._v(lo), self._v(hi), self._v(step), *init]
        block = Block([Value(IDX, hint="i"), *(Value(v.type) for v in init)])
        with self.at(block):
            out = list(body(block.args[0], block.args[1:]))
            self.emit("yield", out)
        assert len(out) == len(init)
        return self.emit("for", operands, [v.type for v in init], [block], unroll=unroll)

    def if_(self, cond: Value, then: Callable[[], Sequence[Value]],
            orelse: Callable[[], Sequence[Value]] | None = None) -> list[Value]:
        """Warp-uniform branch; both sides yield the same types."""
        blocks = []
        types: list[Type] = []
        for fn in (then, orelse):
            block = Block()
            with self.at(block):
                out = list(fn()) if fn else []
                self.emit("yield", out)
            blocks.append(block)
            types = types or [v.type for v in out]
        return self.emit("if", [cond], types, blocks)

    # -- structure that later passes expand: `grid.work` (P12) and `pipe` (P11)
    def work(self, count: Value, body: Callable[[Value], None], teams: int = 1, mates: int | None = None) -> None:
        """body(w) for every work item w < count, shared out over the CTAs, and in a CTA over `teams` of neighbouring warps, `mates`
        in each (all warps by default; without `mates`; those beyond have no work)."""
        block = Block([Value(IDX, hint="w")])
        with self.at(block):
            body(block.args[0])
            self.emit("yield")
        self.emit("grid.work", [count], [], [block], **self._teams(teams, mates))

    def _teams(self, teams: int, mates: int | None) -> dict[str, int | bool]:
        whole = mates is None or teams * mates == self.func.warps
        return {**({} if teams == 1 else {"teams": teams}), **({} if whole or mates is None else {"mates": mates})}

    def pipe(self, w: Value, step: int, init: Sequence[Value], span: Callable[[Value], tuple[Value, Value]],
             copy: Callable[[Value, Value, Value, Value], None],
             body: Callable[..., Sequence[Value]], *, private: bool, stages: int = 2, teams: int = 1, mates: int | None = None, depth: int = 0,
             ahead: Callable[[Value, Value], None] | None = None) -> list[Value]:
        """lo, hi = span(w); for i in lo..hi step `step`: copy(w, i, stage, wstage) starts the transfers of that step,
        then, when they are there, body(i, stage, wstage, carried) -> next carried. `stage` goes round 0 .. stages - 1 by
        steps, `wstage` every work item; the span and copy regions use only their arguments and values from outside
        grid.work. Either every work item has a step or none has. `private`: each warp copies for itself (no
        barriers); `teams`, `mates`: those of grid.work. The transfers of one step are under way, or with `depth` of so many (then number n of
        every step is that of mate n % mates, span is the same for all items, and wstage is not used).

        `ahead`: a body may use the step after its own too, which is the next work item's first at the end of one:
        body(i, stage, wstage, carried, next w, next i, next stage, next wstage) runs when that step's transfers are there as
        well (next w is beyond the work where there is none). ahead(w, wstage) starts transfers of an item in its first step
        and before, in the last step of the item before it; each warp waits for its own before it reads what they bring."""
        sblock = Block([Value(IDX, hint="w")])
        with self.at(sblock):
            self.emit("yield", list(span(sblock.args[0])))
        cblock = Block([Value(IDX, hint=h) for h in ("w", "i", "stage", "wstage")])
        with self.at(cblock):
            copy(*cblock.args)
            self.emit("yield")
        names = ("i", "stage", "wstage", *(("next_w", "next_i", "next_stage", "next_wstage") if ahead else ()))
        bblock = Block([*(Value(IDX, hint=h) for h in names), *(Value(v.type) for v in init)])
        with self.at(bblock):
            (i, stage, wstage, *after), carried = bblock.args[:len(names)], bblock.args[len(names):]
            self.emit("yield", list(body(i, stage, wstage, carried, *after)))
        regions = [sblock, cblock, bblock]
        if ahead:
            regions.append(Block([Value(IDX, hint=h) for h in ("w", "wstage")]))
            with self.at(regions[-1]):
                ahead(*regions[-1].args)
                self.emit("yield")
        more: dict[str, int | bool] = {**self._teams(teams, mates), **({"depth": depth} if depth else {}),
                                       **({"ahead": True} if ahead else {})}
        return self.emit("pipe", [w, *init], [v.type for v in init], regions, step=step, private=private, stages=stages, **more)

    # -- matrix tiles
    def acc_alloc(self, dtype: DType = DType.f32) -> Value:
        """A matrix tile (TE x TE), contents unspecified. Allocation is static: at most four in a kernel at once."""
        return self._one("acc.alloc", [], AccType(dtype))

    def acc_zero(self, acc: Value, tm: Value, tn: Value) -> None:
        self.emit("acc.zero", [acc, tm, tn])

    def acc_read(self, acc: Value, i: Value, vl: Value, *, axis: str) -> Value:
        """Row or column i ("row" | "col") as a vt with capacity TE."""
        assert isinstance(acc.type, AccType)
        return self._one("acc.read", [acc, i, vl], VecType(self.func.te, acc.type.dtype), axis=axis)

    def acc_write(self, acc: Value, i: Value, x: Value, vl: Value, *, axis: str) -> None:
        self.emit("acc.write", [acc, i, x, vl], axis=axis)

    def opnd_load(self, mem: Value, k: int, vl: Value, *, k_axis: int, lane_axis: int) -> Value:
        """k rows (mem's origin, +1, .. along k_axis) of vl elements along lane_axis (stride 1)."""
        assert isinstance(mem.type, MemType)
        return self._one("opnd.load", [mem, vl], OpndType(k, mem.type.dtype), k_axis=k_axis, lane_axis=lane_axis)

    def opnd_pack(self, rows: Sequence[Value]) -> Value:
        """An operand group from k vts of capacity TE."""
        assert isinstance(rows[0].type, VecType)
        return self._one("opnd.pack", list(rows), OpndType(len(rows), rows[0].type.dtype))

    def mma(self, acc: Value, a: Value, b: Value, tm: Value, tn: Value) -> None:
        """acc[m][n] += sum_{k < K} a[k][m] * b[k][n], m < tm, n < tn."""
        self.emit("mma", [acc, a, b, tm, tn])

    # -- vectors
    def load(self, mem: Value, vl: Value, *, axis: int, lanes: int) -> Value:
        """vl elements from mem's origin along `axis` (unit-stride when that stride is the constant 1, else strided)."""
        assert isinstance(mem.type, MemType)
        return self._one("vt.load", [mem, vl], VecType(lanes, mem.type.dtype), axis=axis)

    def masked_load(self, mem: Value, mask: Value, vl: Value, *, axis: int) -> Value:
        """A load of the lanes where `mask` is set; the others hold 0."""
        assert isinstance(mem.type, MemType) and isinstance(mask.type, VecType)
        return self._one("vt.load.masked", [mem, mask, vl], VecType(mask.type.lanes, mem.type.dtype), axis=axis)

    def gather(self, mem: Value, at: Value, vl: Value) -> Value:
        """Lane by lane the element `at` (i32, not negative) elements behind mem's origin."""
        assert isinstance(mem.type, MemType) and isinstance(at.type, VecType)
        return self._one("vt.gather", [mem, at, vl], VecType(at.type.lanes, mem.type.dtype))

    def store(self, mem: Value, x: Value, vl: Value, *, axis: int) -> None:
        self.emit("vt.store", [mem, x, vl], axis=axis)

    def s_load(self, mem: Value) -> Value:
        """The element at mem's origin."""
        assert isinstance(mem.type, MemType)
        return self._one("s.load", [mem], ScalarType(mem.type.dtype))

    def s_store(self, mem: Value, x: Value) -> None:
        self.emit("s.store", [mem, x])

    def bcast(self, x: Value, vl: Value, lanes: int) -> Value:
        return self._one("vt.bcast", [x, vl], VecType(lanes, _sdt(x)))

    def iota(self, vl: Value, lanes: int) -> Value:
        """i32 0, 1, 2, ..."""
        return self._one("vt.iota", [vl], VecType(lanes, DType.i32))

    def vt(self, op: str, *xs: Value, vl: Value, **attrs: object) -> Value:
        """Elementwise: neg abs sqrt rsqrt exp{anchored} exp2 log log2 tanh erf floor round not | add sub mul div mod
        max min and or | lt le gt ge eq ne -> mask | fma(a, b, c) = a*b + c, fms(a, b, c) = a*b - c. The first operand is a vt; others a vt or
        a scalar of the dtype (a scalar may also stand first for sub and div)."""
        vec = next(x.type for x in xs if isinstance(x.type, VecType))
        t = VecType(vec.lanes, DType.i1) if op in CMPS else vec
        return self._one(f"vt.{op}", [*xs, vl], t, **attrs)

    def select(self, mask: Value, x: Value, y: Value, vl: Value) -> Value:
        """mask ? x : y; x or y may be a scalar (not both)."""
        t = x.type if isinstance(x.type, VecType) else y.type
        return self._one("vt.select", [mask, x, y, vl], t)

    def cast(self, x: Value, dtype: DType, vl: Value) -> Value:
        assert isinstance(x.type, VecType)
        return self._one("vt.cast", [x, vl], VecType(x.type.lanes, dtype))

    def nibble(self, x: Value, half: int, vl: Value) -> Value:
        """The low (0) or high (1) four bits of bytes, with their sign."""
        return self._one("vt.nibble", [x, vl], x.type, half=half)

    def part(self, x: Value, index: int) -> Value:
        """Half `index` of x's capacity."""
        assert isinstance(x.type, VecType)
        return self._one("vt.part", [x], VecType(x.type.lanes // 2, x.type.dtype), index=index)

    def join(self, xs: Sequence[Value]) -> Value:
        """The lanes of all, one after the other."""
        assert isinstance(xs[0].type, VecType)
        lanes = xs[0].type.lanes << (len(xs) - 1).bit_length()
        return self._one("vt.join", xs, VecType(lanes, xs[0].type.dtype))

    def tail(self, x: Value, fill: Value, live: Value, vl: Value) -> Value:
        """x in lanes < live, the scalar `fill` in lanes live..vl-1 (vl is the full count of the result)."""
        return self._one("vt.tail", [x, fill, live, vl], x.type)

    def xred(self, op: str, x: Value, vl: Value) -> Value:
        """Across lanes in a fixed tree; op in sum max min. vl = 0 gives the identity."""
        return self._one("vt.xred", [x, vl], ScalarType(x.type.dtype), op=op)  # type: ignore[union-attr]

    def vote(self, kind: str, mask: Value, vl: Value) -> Value:
        """kind any | all -> i1 scalar."""
        return self._one("vt.vote", [mask, vl], I1, kind=kind)


CMPS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


def _sdt(x: Value) -> DType:
    assert isinstance(x.type, (ScalarType, VecType)), x
    return x.type.dtype
