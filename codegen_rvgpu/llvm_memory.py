"""P14: loads and stores, transfers, barriers."""

from __future__ import annotations

from rvgpu.codegen_rvgpu.llvm_base import Base
from rvgpu.codegen_rvgpu.llvm_math import Lanes
from rvgpu.codegen_rvgpu.llvm_small import gather_nibbles, load_nibbles, store_nibbles
from rvgpu.codegen_rvgpu.llvm_text import SCALAR, MemRef, Val, Vec
from rvgpu.errors import RvgpuError
from rvgpu.ir.core import Op
from rvgpu.ir.types import DType, MemType


class Memory(Base):
    def op_mem_arg(self, op: Op) -> MemRef:
        t = op.results[0].type
        assert isinstance(t, MemType)
        ptr = self.w.let("ptr", f"inttoptr {self.args[str(op.attrs['name'])]} to ptr")
        return MemRef(ptr, self._strides(op), t.dtype)

    def _strides(self, op: Op) -> tuple[Val | int, ...]:
        vals = [self.val(x) for x in op.operands[(len(op.operands) + 1) // 2:]]
        return tuple(int(v.text) if v.text.isdigit() else v for v in vals)

    def op_spm_alloc(self, op: Op) -> MemRef:
        t = op.results[0].type
        offset, size = op.attrs["offset_bytes"], op.attrs["size_bytes"]
        assert isinstance(t, MemType) and isinstance(offset, int) and isinstance(size, int)
        at = self.w.i64(offset)
        if op.attrs["per_warp"]:
            at = self.w.binary("add", self.w.binary("mul", Val("i64", "%warp"), self.w.i64(size)), at)
        return MemRef(self.w.gep(Val("ptr", "%spm"), at), self._strides(op), t.dtype)

    def op_spm_view(self, op: Op) -> MemRef:
        t = op.results[0].type
        assert isinstance(t, MemType)
        return MemRef(self.mem(op.operands[0]).ptr, self._strides(op), t.dtype)

    def op_mem_at(self, op: Op) -> MemRef:
        """In a loop of products what stays is added first, and frozen: LLVM's strength reduction does not see through that and counts one
        pointer for each, where it would keep the base and a number for each."""
        m, w = self.mem(op.operands[0]), self.w
        moves = [x in self.varying for x in op.operands[1:]]
        if m.dtype == DType.i4:
            return MemRef(m.ptr, m.strides, m.dtype, w.binary("add", m.first, self._offset(op, m, [True] * len(moves))))
        ptr, size = m.ptr, w.i64(m.dtype.bits // 8)
        if any(moves):
            ptr = w.let("ptr", f"freeze {w.gep(ptr, w.binary('mul', self._offset(op, m, [not x for x in moves]), size))}")
        else:
            moves = [True] * len(moves)
        return MemRef(w.gep(ptr, w.binary("mul", self._offset(op, m, moves), size)), m.strides, m.dtype)

    def _offset(self, op: Op, m: MemRef, which: list[bool]) -> Val:
        """In elements, from those indices."""
        w = self.w
        offset = w.i64(0)
        for x, stride, taken in zip(op.operands[1:], m.strides, which, strict=True):
            if taken:
                offset = w.binary("add", offset, w.binary("mul", self.val(x), w.i64(stride) if isinstance(stride, int) else stride))
        return offset

    def _stride_bytes(self, m: MemRef, axis: int) -> Val:
        s = m.strides[axis]
        return self.w.binary("mul", self.w.i64(s) if isinstance(s, int) else s, self.w.i64(m.dtype.bits // 8))

    def op_s_load(self, op: Op) -> Val:
        m = self.mem(op.operands[0])
        if m.dtype == DType.i1:
            return self.w.let("i1", f"icmp ne {self.w.let('i8', f'load i8, {m.ptr}')}, 0")
        if m.dtype == DType.i4:
            return self._nibble(m)
        return self.w.let(SCALAR[m.dtype], f"load {SCALAR[m.dtype]}, {m.ptr}, align {m.dtype.bits // 8}")

    def _nibble(self, m: MemRef) -> Val:
        w = self.w
        byte = w.let("i8", f"load i8, {w.gep(m.ptr, w.let('i64', f'lshr {m.first}, 1'))}")
        shift = w.let("i64", f"shl {w.binary('and', w.binary('xor', m.first, w.i64(1)), w.i64(1))}, 2")
        high = w.let("i8", f"shl {byte}, {w.let('i8', f'trunc {shift} to i8').text}")
        return w.let("i8", f"ashr {high}, 4")

    def op_s_store(self, op: Op) -> None:
        self._whole_bytes(op)
        m, x = self.mem(op.operands[0]), self.val(op.operands[1])
        if m.dtype == DType.i1:
            x = self.w.let("i8", f"zext {x} to i8")
        self.w.do(f"store {x}, {m.ptr}, align {m.dtype.bits // 8}")

    def _lanes_of(self, op: Op) -> tuple[MemRef, int, Vec, Vec]:
        """What a load reads, the axis along its lanes, its result's type, and that of what is loaded (a byte for each bool)."""
        m, axis, v = self.mem(op.operands[0]), op.attrs["axis"], self.vec(op.results[0])
        assert isinstance(axis, int)
        return m, axis, v, v.of("i8") if m.dtype == DType.i1 else v

    def op_vt_load(self, op: Op) -> Val:
        (m, axis, v, raw), vl = self._lanes_of(op), self.val(op.operands[1])
        if m.dtype == DType.i4:
            return self._nibbles(m, axis, v, vl, None)
        if m.strides[axis] == 1:
            x = self.w.rvv("vle", raw, [m.ptr], vl, mangle=["p0"])
        else:
            x = self.w.rvv("vlse", raw, [m.ptr, self._stride_bytes(m, axis)], vl, mangle=["p0"])
        return self._to_mask(x, vl) if m.dtype == DType.i1 else x

    def _nibbles(self, m: MemRef, axis: int, v: Vec, vl: Val, mask: Val | None) -> Val:
        """Lanes of 4-bit numbers along an axis."""
        w, stride = self.w, m.strides[axis]
        if stride == 1 and mask is None:
            return load_nibbles(w, v, m.ptr, m.first, vl, self.has_exp)
        ints = Lanes(w, v.of("i32"), vl, self.has_exp)
        step = w.let("i32", f"trunc {w.i64(stride) if isinstance(stride, int) else stride} to i32")
        at = ints.rvv("vmul", w.rvv("vid", ints.v, [], vl), step)
        return gather_nibbles(w, v, m.ptr, self._behind(ints, at, m), vl, self.has_exp, mask)

    def _behind(self, ints: Lanes, at: Val, m: MemRef) -> Val:
        return ints.rvv("vadd", at, self.w.let("i32", f"trunc {m.first} to i32"))

    def _whole_bytes(self, op: Op) -> None:
        """Numbers of 4 bits are stored in pairs, along lanes that are the innermost dim."""
        m = self.mem(op.operands[0])
        axis = op.attrs.get("axis")
        if m.dtype == DType.i4 and not (isinstance(axis, int) and m.strides[axis] == 1):
            raise RvgpuError("E314", "results of i4 are stored two to a byte: not where lanes run along another dim than the innermost", op.loc).hint(
                "return i8, and convert it in a kernel of its own")

    def op_vt_load_masked(self, op: Op) -> Val:
        (m, axis, v, raw), mask, vl = self._lanes_of(op), self.val(op.operands[1]), self.val(op.operands[2])
        if m.dtype == DType.i4:
            return self._nibbles(m, axis, v, vl, mask)
        zero = Lanes(self.w, raw, vl, self.has_exp).splat(self._zero(raw))
        unit = m.strides[axis] == 1
        args = [zero, m.ptr, *([] if unit else [self._stride_bytes(m, axis)]), mask, vl, Val("i64", "1")]  # masked off: undisturbed
        x = self.w.call(raw, f"llvm.riscv.{'vle' if unit else 'vlse'}.mask.{raw.mangled}.p0.i64", args)
        return self._to_mask(x, vl) if m.dtype == DType.i1 else x

    def _zero(self, v: Vec) -> Val:
        return Val(v.elem, "0.0" if v.elem in ("float", "double", "half", "bfloat") else "0")

    def op_vt_gather(self, op: Op) -> Val:
        m, at, vl = self.mem(op.operands[0]), self.val(op.operands[1]), self.val(op.operands[2])
        v = self.vec(op.results[0])
        raw = v.of("i8") if m.dtype == DType.i1 else v
        size = m.dtype.bits // 8 if m.dtype != DType.i1 else 1
        index = at.vec
        assert index is not None
        if m.dtype == DType.i4:
            return gather_nibbles(self.w, v, m.ptr, self._behind(Lanes(self.w, index, vl, self.has_exp), at, m), vl, self.has_exp)
        if size > 1:
            at = Lanes(self.w, index, vl, self.has_exp).rvv("vsll", at, self.w.i64(size.bit_length() - 1))
        x = self.w.call(raw, f"llvm.riscv.vluxei.{raw.mangled}.p0.{index.mangled}.i64", [self.w.poison(raw), m.ptr, at, vl])
        return self._to_mask(x, vl) if m.dtype == DType.i1 else x

    def _to_mask(self, x: Val, vl: Val) -> Val:
        assert x.vec is not None
        return self.w.call(x.vec.of("i1"), f"llvm.riscv.vmsne.{x.vec.mangled}.{x.vec.mangled[3 + len(str(x.vec.n)):]}.i64",
                           [x, Val(x.vec.elem, "0"), vl])

    def op_vt_store(self, op: Op) -> None:
        m, x, vl = self.mem(op.operands[0]), self.val(op.operands[1]), self.val(op.operands[2])
        axis = op.attrs["axis"]
        assert isinstance(axis, int) and x.vec is not None
        w = self.w
        if m.dtype == DType.i4:
            self._whole_bytes(op)
            store_nibbles(w, x, m.ptr, m.first, vl, self.has_exp)
            return
        if m.dtype == DType.i1:
            one = Lanes(w, x.vec.of("i8"), vl, self.has_exp)
            x = one.merge(x, Val("i8", "1"), one.splat(Val("i8", "0")))
        assert x.vec is not None
        if m.strides[axis] == 1:
            w.call(None, f"llvm.riscv.vse.{x.vec.mangled}.p0.i64", [x, m.ptr, vl], nontemporal=bool(op.attrs.get("nontemporal")))
        else:
            w.call(None, f"llvm.riscv.vsse.{x.vec.mangled}.p0.i64", [x, m.ptr, self._stride_bytes(m, axis), vl])

    # -- DMA and barriers: plain stores to the control page, then one ordered amoswap
    def _control(self, name: str, value: Val) -> None:
        if value.type == "ptr":
            value = self.w.let("i64", f"ptrtoint {value} to i64")
        self.w.do(f"store volatile {value}, {self._page(name)}, align 8")

    def _swap(self, name: str, value: Val, extra: int = 0) -> Val:
        return self.w.let("i64", f"atomicrmw volatile xchg {self._page(name, extra)}, {value} seq_cst")

    def _transfer(self, op: Op, src: MemRef, dst: MemRef, rows: Val, cols: Val, fill: tuple[Val, Val], index: Val | None = None) -> Val:
        (sr, sc), (dr, dc) = op.attrs["src_axes"], op.attrs["dst_axes"]  # type: ignore[misc,str-unpack]
        assert isinstance(sr, int) and isinstance(sc, int) and isinstance(dr, int) and isinstance(dc, int)
        assert src.strides[sc] == 1, "the source's columns are contiguous"
        size = src.dtype.bits // 8
        transpose = dst.strides[dc] != 1
        w = self.w
        values = {"SRC": src.ptr, "DST": dst.ptr, "ROWS": rows, "ROW_BYTES": w.binary("mul", cols, w.i64(size)),
                  "SRC_STRIDE": self._stride_bytes(src, sr), "DST_STRIDE": self._stride_bytes(dst, dc if transpose else dr),
                  "FILL_ROWS": fill[0], "FILL_BYTES": w.binary("mul", fill[1], w.i64(size)), "INDEX": index or w.i64(0)}
        for name, value in values.items():
            self._control(name, value)
        token = self._swap("GO", w.i64((size.bit_length() - 1) | (4 if transpose else 0)))
        w.do(f"store {token}, ptr %token")
        return token

    def op_dma_load(self, op: Op) -> Val:
        dst, src = self.mem(op.operands[0]), self.mem(op.operands[1])
        rows, cols, fill_rows, fill_cols = (self.val(x) for x in op.operands[2:])
        return self._transfer(op, src, dst, rows, cols, (fill_rows, fill_cols))

    def op_dma_gather(self, op: Op) -> Val:
        dst, src, index = (self.mem(x) for x in op.operands[:3])
        rows, cols, fill_rows, fill_cols = (self.val(x) for x in op.operands[3:])
        return self._transfer(op, src, dst, rows, cols, (fill_rows, fill_cols), index.ptr)

    def op_dma_store(self, op: Op) -> Val:
        dst, src = self.mem(op.operands[0]), self.mem(op.operands[1])
        rows, cols = (self.val(x) for x in op.operands[2:])
        return self._transfer(op, src, dst, rows, cols, (rows, cols))

    def op_dma_wait(self, op: Op) -> None:
        last = self.w.let("i64", "load i64, ptr %token")
        left = op.attrs["left"]
        assert isinstance(left, int)
        last = self.w.binary("add", last, self.w.i64(-left))
        for v in op.operands:
            last = self.w.binary("sub", last, self.val(v))
        self._swap("WAIT", last)

    def op_bar(self, op: Op) -> None:
        n, warps = op.attrs["id"], op.attrs.get("warps", self.f.warps)
        assert isinstance(n, int) and isinstance(warps, int)
        page = self._page("BAR", 8 * n)
        for v in op.operands:
            page = self.w.gep(page, self.w.binary("mul", self.val(v), self.w.i64(8)))
        self.w.let("i64", f"atomicrmw volatile xchg {page}, {self.w.i64(warps)} seq_cst")
