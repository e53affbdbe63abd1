"""The NumPy meaning of a level K kernel: every warp of a CTA is a generator that runs to the next barrier.

Small sizes only: it is the oracle between K passes and of the code generator. Lanes at or beyond `vl` and untouched
scratchpad are poisoned (NaN, or a pattern in integers), so that a use of them shows. DMA reads when it is issued and
lands at its `dma.wait`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rvgpu.ir import meaning, numeric
from rvgpu.ir.core import Block, Op, Value
from rvgpu.ir.dims import value_of
from rvgpu.ir.numeric import Array, round_to
from rvgpu.ir.numeric import numpy_dtype as numpy_dtype
from rvgpu.ir.tile_build import CMPS, KFunc
from rvgpu.ir.tile_numeric import compare, elementwise, multiply, poison
from rvgpu.ir.types import AccType, DType, MemType, OpndType, ScalarType, VecType


@dataclass
class Mem:
    data: Array  # flat
    offset: int
    extents: list[int]
    strides: list[int]


Barrier = tuple[int, int]  # which one, for how many warps
Warp = Generator[Barrier, None, None]  # yields where it waits


def _int(op: Op, name: str, missing: int | None = None) -> int:
    value = op.attrs.get(name, missing)
    assert isinstance(value, int)
    return value


class Deadlock(AssertionError):
    pass


def run_kernel(func: KFunc, tensors: Mapping[str, Array], scalars: Mapping[str, float | int],
               dims: Mapping[str, int], *, ctas: int = 1) -> None:
    """Runs every CTA in order; output tensors are written in place (arrays must be C-contiguous)."""
    small = {n: x for n, x in tensors.items() if x.dtype.name == "int4"}
    tensors = {n: numeric.packed(x) for n, x in tensors.items()}
    tensors |= {_digits(n): _of_bytes(tensors[n]) for n in small}
    for cta in range(ctas):
        spm = np.full(func.spm_bytes, 0xFF, np.uint8)  # NaN in every float
        unplaced: dict[tuple[Op, int], Array] = {}
        _run_warps([_Warp(func, tensors, scalars, dims, spm, unplaced, cta, ctas, w).run() for w in range(func.warps)])
    for n, x in small.items():
        x[...] = tensors[_digits(n)].reshape(*x.shape[:-1], -1)[..., :x.shape[-1]] if x.size else x


def _digits(name: str) -> str:
    """Where the numbers of an i4 tensor stand one by one, beside its bytes."""
    return name + " digits"


def _of_bytes(x: Array) -> Array:
    shape = (*x.shape[:-1], 2 * x.shape[-1])
    return numeric.unpacked(x.tobytes(), shape, DType.i4)


def _run_warps(live: list[Warp]) -> None:
    """Every warp to its next barrier; a barrier lets its warps go when as many have come as it says."""
    ended, waiting = 0, defaultdict[Barrier, list[Warp]](list)
    while live:
        for g in live:
            try:
                waiting[next(g)].append(g)
            except StopIteration:
                ended += 1
        met = [at for at, arrived in waiting.items() if len(arrived) == at[1]]
        if waiting and not met:
            if len(waiting) > 1:
                raise Deadlock(f"warps wait at different barriers {sorted(at for at, _ in waiting)}")
            raise Deadlock("a warp returned while others wait at a barrier")
        live = [g for at in met for g in waiting.pop(at)]


class _Warp:
    def __init__(self, func: KFunc, tensors: Mapping[str, Array], scalars: Mapping[str, float | int],
                 dims: Mapping[str, int], spm: Array, unplaced: dict[tuple[Op, int], Array], cta: int, ctas: int, warp: int) -> None:
        self.func, self.tensors, self.scalars, self.dims, self.spm = func, tensors, scalars, dims, spm
        self.unplaced = unplaced
        self.special = {"cta": cta, "ctas": ctas, "warp": warp, "warps": func.warps, "te": func.te}
        self.env: dict[Value, Any] = {}
        self.pending: list[Callable[[], None]] = []
        self.items, self.stage, self.parity = range(0), 0, 0  # the work items of this team; the pipe's stage, the item's parity

    def run(self) -> Warp:
        yield from self.block(self.func.body)

    def block(self, block: Block) -> Generator[Barrier, None, list[Any]]:
        for op in block.ops:
            if op.name == "yield":
                return [self.env[v] for v in op.operands]
            if op.name == "for":
                yield from self.loop(op)
            elif op.name == "if":
                region = op.regions[0 if self.env[op.operands[0]] else 1]
                out = yield from self.block(region)
                self.env.update(zip(op.results, out, strict=True))
            elif op.name == "grid.work":
                yield from self.work(op)
            elif op.name == "pipe":
                yield from self.pipe(op)
            elif op.name == "bar":
                yield int(op.attrs["id"]) + sum(self.env[v] for v in op.operands), int(op.attrs.get("warps", self.func.warps))  # type: ignore[arg-type,call-overload]
            else:
                out = self.op(op)
                if op.results:
                    self.env[op.results[0]] = out
        return []

    def loop(self, op: Op) -> Warp:
        lo, hi, step, *init = (self.env[v] for v in op.operands)
        region = op.regions[0]
        if op.attrs.get("persistent"):
            self.items = range(lo, hi, step)
        i = lo
        while i < hi:
            self.env.update(zip(region.args, [i, *init], strict=True))
            init = yield from self.block(region)
            i += step
        self.env.update(zip(op.results, init, strict=True))

    def work(self, op: Op) -> Warp:
        """Every work item of this CTA's team: cta + ctas * team, that + ctas * teams, ..."""
        region, teams, ctas = op.regions[0], _int(op, "teams", 1), self.special["ctas"]
        team = self.special["warp"] // _int(op, "mates", self.func.warps // teams)
        self.items = range(self.special["cta"] + ctas * team, self.env[op.operands[0]] if team < teams else 0, ctas * teams)
        for w in self.items:
            self.env[region.args[0]] = w
            yield from self.block(region)

    def pipe(self, op: Op) -> Warp:
        """Copy, wait, meet, compute, meet: what P11 overlaps."""
        w, *carried = (self.env[v] for v in op.operands)
        _, copy, body = op.regions[:3]
        stages, private = _int(op, "stages"), bool(op.attrs["private"])
        mates = _int(op, "mates", self.func.warps // _int(op, "teams", 1))
        barrier = self.special["warp"] // mates, mates
        steps = yield from self.steps(op, w)
        for n, i in enumerate(steps):
            at = [n % stages, 0]
            after: list[int] = []
            if op.attrs.get("ahead"):
                at = [self.stage, self.parity]
                after = yield from self.ahead(op, w, steps, n)
                self.stage, self.parity = after[2:]
            else:
                yield from self.start(copy, w, i, *at)
            while self.pending:
                self.pending.pop(0)()
            if not private:
                yield barrier
            self.env.update(zip(body.args, [i, *at, *after, *carried], strict=True))
            carried = yield from self.block(body)
            if not private:
                yield barrier
        self.env.update(zip(op.results, carried, strict=True))

    def steps(self, op: Op, w: int) -> Generator[Barrier, None, range]:
        self.env[op.regions[0].args[0]] = w
        lo, hi = yield from self.block(op.regions[0])
        return range(lo, hi, _int(op, "step"))

    def start(self, region: Block, *args: int) -> Warp:
        self.env.update(zip(region.args, args, strict=True))
        yield from self.block(region)

    def ahead(self, op: Op, w: int, steps: range, n: int) -> Generator[Barrier, None, list[int]]:
        """Starts what the step after step n of item w needs, and before the very first step what that needs; (w, i, stage, wstage) of the step
        after."""
        _, copy, _, item = op.regions
        if w == self.items[0] and n == 0:
            yield from self.start(item, w, self.parity)
            yield from self.start(copy, w, steps[0], self.stage, self.parity)
        stage = (self.stage + 1) % _int(op, "stages")
        if n + 1 < len(steps):
            after = [w, steps[n + 1], stage, self.parity]
        else:
            following = w + self.items.step
            first = (yield from self.steps(op, following)).start
            after = [following, first, stage, 1 - self.parity]
            if following in self.items:
                yield from self.start(item, following, 1 - self.parity)
        if after[0] in self.items:
            yield from self.start(copy, *after)
        return after

    # -- ops
    def op(self, op: Op) -> Any:
        xs = [self.env[v] for v in op.operands]
        group, _, name = op.name.partition(".")
        if op.name in self.special:
            return self.special[op.name]
        handler = getattr(self, "op_" + op.name.replace(".", "_"), None)
        if handler is not None:
            return handler(op, xs)
        if group == "idx":
            a, b = xs
            return {"add": a + b, "sub": a - b, "mul": a * b, "min": min(a, b), "max": max(a, b),
                    "div": a // b if b else 0, "rem": a % b if b else 0}[name]
        if group == "s":
            return self.scalar_op(op, name, xs)
        if group == "vt":
            return self.vector_op(op, name, xs)
        raise AssertionError(f"no meaning for {op.name}")

    def op_idx_const(self, op: Op, xs: list[Any]) -> Any:
        return op.attrs["value"]

    def op_idx_cmp(self, op: Op, xs: list[Any]) -> Any:
        return compare(str(op.attrs["pred"]), xs[0], xs[1])

    def op_idx_select(self, op: Op, xs: list[Any]) -> Any:
        return xs[1] if xs[0] else xs[2]

    def op_dim(self, op: Op, xs: list[Any]) -> Any:
        return value_of(str(op.attrs["name"]), self.dims)

    def op_scalar(self, op: Op, xs: list[Any]) -> Any:
        return _np(op.results[0]).type(self.scalars[str(op.attrs["name"])])

    def op_sconst(self, op: Op, xs: list[Any]) -> Any:
        return _np(op.results[0]).type(op.attrs["value"])

    def op_s_cast(self, op: Op, xs: list[Any]) -> Any:
        return round_to(np.asarray(xs[0]), _dtype(op.results[0]))[()]

    def op_s_from_idx(self, op: Op, xs: list[Any]) -> Any:
        return _np(op.results[0]).type(xs[0])

    def op_idx_from_s(self, op: Op, xs: list[Any]) -> Any:
        return int(xs[0])

    def op_mem_arg(self, op: Op, xs: list[Any]) -> Any:
        n = len(xs) // 2
        name, t = str(op.attrs["name"]), op.results[0].type
        assert isinstance(t, MemType)
        return Mem(self.tensors[_digits(name) if t.dtype is DType.i4 else name].reshape(-1), 0, xs[:n], xs[n:])

    def op_spm_alloc(self, op: Op, xs: list[Any]) -> Any:
        n = len(xs) // 2
        size = int(op.attrs["size_bytes"])  # type: ignore[arg-type]
        warp = self.special["warp"] if op.attrs["per_warp"] else 0
        t = op.results[0].type
        assert isinstance(t, MemType)
        if "offset_bytes" not in op.attrs:  # before P9: a place of its own
            data = self.unplaced.setdefault((op, warp), np.full(size, 0xFF, np.uint8))
        else:
            at = int(op.attrs["offset_bytes"]) + warp * size  # type: ignore[arg-type]
            data = self.spm[at:at + size]
        return Mem(data.view(numpy_dtype(t.dtype)), 0, xs[:n], xs[n:])

    def op_spm_view(self, op: Op, xs: list[Any]) -> Any:
        m, n, t = xs[0], len(xs) // 2, op.results[0].type
        assert isinstance(t, MemType)
        return Mem(m.data[m.offset:].view(np.uint8).view(numpy_dtype(t.dtype)), 0, xs[1:1 + n], xs[1 + n:])

    def op_mem_at(self, op: Op, xs: list[Any]) -> Any:
        m, *index = xs
        offset = m.offset + sum(i * s for i, s in zip(index, m.strides, strict=True))
        return Mem(m.data, offset, [e - i for e, i in zip(m.extents, index, strict=True)], m.strides)

    def op_dma_load(self, op: Op, xs: list[Any]) -> Any:
        dst, src, rows, cols, fill_rows, fill_cols = xs
        return self._transfer(op, dst, src, rows, cols, fill_rows, fill_cols)

    def op_dma_store(self, op: Op, xs: list[Any]) -> Any:
        dst, src, rows, cols = xs
        (dr, dc), n = _axes(op, "dst_axes"), rows * cols
        assert not n or (rows <= dst.extents[dr] and cols <= dst.extents[dc]), "DMA leaves the tensor"
        return self._transfer(op, dst, src, rows, cols, rows, cols)

    def op_dma_gather(self, op: Op, xs: list[Any]) -> Any:
        dst, src, index, rows, cols, fill_rows, fill_cols = xs
        return self._transfer(op, dst, src, rows, cols, fill_rows, fill_cols, index.data[index.offset:index.offset + rows])

    def _transfer(self, op: Op, dst: Mem, src: Mem, rows: int, cols: int, fill_rows: int, fill_cols: int, at: Array | None = None) -> int:
        """Reads now, writes at its wait; nothing moves when there are no rows or columns."""
        (sr, sc), (dr, dc) = _axes(op, "src_axes"), _axes(op, "dst_axes")
        block = np.zeros((fill_rows, fill_cols), dst.data.dtype)
        if rows * cols:
            assert src.strides[sc] == 1, "the source's columns are contiguous"
            last = rows - 1 if at is None else int(at.max())
            assert last < src.extents[sr] and cols <= src.extents[sc], "DMA leaves the tensor"
            found = _grid(src, sr, sc, last + 1, cols)
            block[:rows, :cols] = found if at is None else found[at]
        if fill_rows * fill_cols:
            assert 1 in (dst.strides[dc], dst.strides[dr]), "DMA writes along one of its axes"

        def land() -> None:
            if fill_rows * fill_cols:
                _grid(dst, dr, dc, fill_rows, fill_cols)[...] = block

        self.pending.append(land)  # an empty transfer counts too
        return len(self.pending)

    def op_dma_wait(self, op: Op, xs: list[Any]) -> Any:
        left = int(op.attrs["left"]) + sum(xs)  # type: ignore[arg-type]
        while len(self.pending) > left:
            self.pending.pop(0)()

    def op_acc_alloc(self, op: Op, xs: list[Any]) -> Any:
        t = op.results[0].type
        assert isinstance(t, AccType)
        return np.full((self.func.te, self.func.te), np.nan if t.dtype.is_float else 0x5A5A, numpy_dtype(t.dtype))

    def op_acc_zero(self, op: Op, xs: list[Any]) -> Any:
        acc, tm, tn = xs
        acc[:tm, :tn] = 0

    def op_acc_read(self, op: Op, xs: list[Any]) -> Any:
        acc, i, vl = xs
        return poison((acc[i] if op.attrs["axis"] == "row" else acc[:, i]).copy(), vl)

    def op_acc_write(self, op: Op, xs: list[Any]) -> Any:
        acc, i, x, vl = xs
        (acc[i] if op.attrs["axis"] == "row" else acc[:, i])[:vl] = x[:vl]

    def op_opnd_load(self, op: Op, xs: list[Any]) -> Any:
        m, vl = xs
        k_axis, lane_axis = int(op.attrs["k_axis"]), int(op.attrs["lane_axis"])  # type: ignore[arg-type]
        t = op.results[0].type
        assert isinstance(t, OpndType) and m.strides[lane_axis] == 1
        rows = [m.data[m.offset + k * m.strides[k_axis]:][:vl] for k in range(t.k)]
        assert all(len(r) == vl for r in rows)
        return np.stack(rows)

    def op_opnd_pack(self, op: Op, xs: list[Any]) -> Any:
        return np.stack(xs)

    def op_mma(self, op: Op, xs: list[Any]) -> Any:
        acc, a, b, tm, tn = xs
        multiply(acc[:tm, :tn], a[:, :tm], b[:, :tn])

    def op_s_load(self, op: Op, xs: list[Any]) -> Any:
        return xs[0].data[xs[0].offset]

    def op_s_store(self, op: Op, xs: list[Any]) -> Any:
        xs[0].data[xs[0].offset] = xs[1]

    def op_vt_load(self, op: Op, xs: list[Any]) -> Any:
        m, vl = xs
        axis = int(op.attrs["axis"])  # type: ignore[arg-type]
        t = op.results[0].type
        assert isinstance(t, VecType) and vl <= t.lanes, "vl beyond the capacity"
        assert vl <= max(0, m.extents[axis]) or vl == 0, f"read past the extent: {vl} of {m.extents}"
        out = np.zeros(t.lanes, numpy_dtype(t.dtype))
        out[:vl] = m.data[m.offset:m.offset + (vl - 1) * m.strides[axis] + 1:max(1, m.strides[axis])] if vl else 0
        return poison(out, vl)

    def op_vt_load_masked(self, op: Op, xs: list[Any]) -> Any:
        m, mask, vl = xs
        at = np.flatnonzero(mask[:vl])
        out = np.zeros(len(mask), _np(op.results[0]))
        where = m.offset + at * m.strides[int(op.attrs["axis"])]  # type: ignore[arg-type]
        assert not len(at) or 0 <= where[0] and at[-1] < m.extents[int(op.attrs["axis"])], "a set lane lies outside"  # type: ignore[arg-type]
        out[at] = m.data[where]
        return poison(out, vl)

    def op_vt_gather(self, op: Op, xs: list[Any]) -> Any:
        m, at, vl = xs
        out = np.zeros(len(at), _np(op.results[0]))
        where = m.offset + at[:vl].astype(np.int64)
        assert np.all((at[:vl] >= 0) & (where < len(m.data))), "a gather leaves its tensor"
        out[:vl] = m.data[where]
        return poison(out, vl)

    def op_vt_store(self, op: Op, xs: list[Any]) -> Any:
        m, x, vl = xs
        axis = int(op.attrs["axis"])  # type: ignore[arg-type]
        assert vl <= max(0, m.extents[axis]) or vl == 0, "write past the extent"
        if vl:
            m.data[m.offset:m.offset + (vl - 1) * m.strides[axis] + 1:m.strides[axis]] = x[:vl]

    def op_vt_bcast(self, op: Op, xs: list[Any]) -> Any:
        t = op.results[0].type
        assert isinstance(t, VecType) and xs[1] <= t.lanes
        return poison(np.full(t.lanes, xs[0], numpy_dtype(t.dtype)), xs[1])

    def op_vt_iota(self, op: Op, xs: list[Any]) -> Any:
        t = op.results[0].type
        assert isinstance(t, VecType)
        return poison(np.arange(t.lanes, dtype=np.int32), xs[0])

    def op_vt_select(self, op: Op, xs: list[Any]) -> Any:
        return poison(np.where(xs[0], xs[1], xs[2]).astype(_np(op.results[0])), xs[3])

    def op_vt_cast(self, op: Op, xs: list[Any]) -> Any:
        return poison(np.array(round_to(xs[0], _dtype(op.results[0]))), xs[1])

    def op_vt_nibble(self, op: Op, xs: list[Any]) -> Any:
        x = xs[0] << 4 if op.attrs["half"] == 0 else xs[0]
        return poison(np.asarray(x >> 4, np.int8), xs[1])

    def op_vt_join(self, op: Op, xs: list[Any]) -> Any:
        t = op.results[0].type
        assert isinstance(t, VecType)
        out = np.zeros(t.lanes, xs[0].dtype)
        out[:sum(map(len, xs))] = np.concatenate(xs)
        return out

    def op_vt_part(self, op: Op, xs: list[Any]) -> Any:
        n = len(xs[0]) // 2
        return xs[0][n:].copy() if op.attrs["index"] else xs[0][:n].copy()

    def op_vt_tail(self, op: Op, xs: list[Any]) -> Any:
        x, fill, live, vl = xs
        out = x.copy()
        out[live:] = fill
        return poison(out, vl)

    def op_vt_xred(self, op: Op, xs: list[Any]) -> Any:
        x, vl = xs
        kind = str(op.attrs["op"])
        if vl == 0:
            return x.dtype.type(meaning.identity(kind, x.dtype))
        fns: dict[str, Callable[..., Any]] = {"sum": np.sum, "max": np.fmax.reduce, "min": np.fmin.reduce}
        return fns[kind](x[:vl]).astype(x.dtype)

    def op_vt_vote(self, op: Op, xs: list[Any]) -> Any:
        mask, vl = xs
        return bool(np.any(mask[:vl]) if op.attrs["kind"] == "any" else np.all(mask[:vl]))

    def scalar_op(self, op: Op, name: str, xs: list[Any]) -> Any:
        if name == "select":
            return xs[1] if xs[0] else xs[2]
        if name in CMPS:
            return compare(name, xs[0], xs[1])
        return round_to(np.asarray(elementwise(name, [np.asarray(x) for x in xs])), _dtype(op.results[0]))[()]

    def vector_op(self, op: Op, name: str, xs: list[Any]) -> Any:
        *xs, vl = xs
        out = compare(name, xs[0], xs[1]) if name in CMPS else elementwise(name, xs)
        return poison(np.array(round_to(np.asarray(out), _dtype(op.results[0]))), vl)


def _axes(op: Op, name: str) -> tuple[int, int]:
    axes = op.attrs[name]
    assert isinstance(axes, tuple)
    a, b = axes
    assert isinstance(a, int) and isinstance(b, int)
    return a, b


def _grid(m: Mem, row: int, col: int, rows: int, cols: int) -> Array:
    """A view of rows x cols elements of a buffer, inside its memory."""
    last = m.offset + (rows - 1) * m.strides[row] + (cols - 1) * m.strides[col]
    assert 0 <= m.offset and last < len(m.data), "DMA leaves the buffer"
    size = m.data.itemsize
    steps = (m.strides[row] * size, m.strides[col] * size)
    data = m.data[m.offset:]
    raw = data.view(f"u{data.itemsize}")  # e5m2 has no name in the array interface
    return np.lib.stride_tricks.as_strided(raw, (rows, cols), steps).view(data.dtype)


def _dtype(v: Value) -> DType:
    assert isinstance(v.type, (ScalarType, VecType))
    return v.type.dtype


def _np(v: Value) -> np.dtype[Any]:
    assert isinstance(v.type, (ScalarType, VecType))
    return numpy_dtype(v.type.dtype)
