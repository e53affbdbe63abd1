"""P14: level K to LLVM IR text (long: a method for each op). What good and correct code need of LLVM 22 is in the comments where it matters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rvgpu.codegen_rvgpu.llvm_math import SMALL, Lanes
from rvgpu.codegen_rvgpu.llvm_small import FORMATS, gather_nibbles, load_nibbles, store_nibbles
from rvgpu.codegen_rvgpu.llvm_text import DATALAYOUT, SCALAR, SHORT, TRIPLE, MemRef, Tile, Val, Vec, Writer, float_literal
from rvgpu.codegen_rvgpu.products import products_of, scheduled, varying
from rvgpu.errors import RvgpuError
from rvgpu.ir.core import Block, Op, Value
from rvgpu.ir.numeric import round_to
from rvgpu.ir.tile_build import CMPS, KFunc
from rvgpu.ir.types import AccType, DType, MemType, OpndType, ScalarType, VecType

ENTRY = "define void @{name}(ptr %args, i64 %cta, i64 %warp, ptr %ctl, ptr %spm) #0 !dbg !4 {{"
PAGE = {"ctas": 0x20, "SRC": 0x40, "DST": 0x48, "ROWS": 0x50, "ROW_BYTES": 0x58, "SRC_STRIDE": 0x60, "DST_STRIDE": 0x68,
        "FILL_ROWS": 0x70, "FILL_BYTES": 0x78, "INDEX": 0x80, "GO": 0x88, "WAIT": 0x90, "BAR": 0x100}
ICMP = {"lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "eq": "eq", "ne": "ne"}
FCMP = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
ROUNDED = (DType.i8, DType.u8, DType.i16, DType.i32)  # what a float is rounded to by the conversion itself
SWAP = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge", "eq": "eq", "ne": "ne"}


def emit_llvm(func: KFunc, *, has_exp: bool = True) -> str:
    """The kernel's LLVM module as text."""
    return _Emit(func, has_exp).module()


class _Emit:
    def __init__(self, func: KFunc, has_exp: bool) -> None:
        self.f, self.w, self.has_exp = func, Writer(func), has_exp
        self.env: dict[Value, Val | MemRef | Tile] = {}
        self.tiles = 0
        self.varying: set[Value] = set()  # what changes with each step of the loop of products around
        self.volatile = ""  # " volatile" where LLVM is to leave loads of operands in their order
        self.slots = {name: n for n, name in enumerate([*(t.name for t in func.tensors), "workspace",
                                                        *(s for s, _ in func.scalars), *func.dims, "TE"])}

    def module(self) -> str:
        w = self.w
        w.raw("entry:")
        # the argument block is read once, up front: nothing of it changes, but LLVM cannot know that
        self.args = {name: self._slot(n) for name, n in self.slots.items()}
        self.te = self.args["TE"]
        self.token = Val("ptr", "%token")
        w.do("%token = alloca i64")
        w.do("store i64 0, ptr %token")
        self.ctas = w.let("i64", f"load volatile i64, {self._page('ctas')}")
        self.block(self.f.body)
        w.do("ret void")
        features = ['"tune-cpu"="sifive-x280"', '"no-builtins"', '"no-jump-tables"="true"', "nounwind",
                    f"vscale_range({self.f.vlen // 64},{self.f.vlen // 64})"]
        return "\n".join([f'source_filename = "{self.f.name}"', f'target datalayout = "{DATALAYOUT}"', f'target triple = "{TRIPLE}"',
                          ENTRY.format(name=self.f.name), *w.lines, "}", *w.declared.values(),
                          f"attributes #0 = {{ {' '.join(features)} }}", *w.metadata(), ""])

    def _slot(self, n: int) -> Val:
        return self.w.let("i64", f"load i64, {self.w.gep(Val('ptr', '%args'), self.w.i64(8 * n))}, align 8")

    def _page(self, name: str, extra: int = 0) -> Val:
        return self.w.gep(Val("ptr", "%ctl"), self.w.i64(PAGE[name] + extra))

    # -- plumbing
    def val(self, v: Value) -> Val:
        x = self.env[v]
        assert isinstance(x, Val), v
        return x

    def mem(self, v: Value) -> MemRef:
        x = self.env[v]
        assert isinstance(x, MemRef), v
        return x

    def tile(self, v: Value) -> int:
        x = self.env[v]
        assert isinstance(x, Tile), v
        return x.number

    def vec(self, v: Value) -> Vec:
        t = v.type
        assert isinstance(t, VecType)
        n = t.lanes * 64 // self.f.vlen
        assert n >= 1, f"{t} has fewer lanes than a register of {self.f.vlen} bits has 64-bit elements"
        return Vec(n, SCALAR[t.dtype])

    def block(self, block: Block) -> list[Val]:
        for op in block.ops:
            self.w.loc = op.loc or self.w.loc
            if op.name == "yield":
                return [self.val(v) for v in op.operands]
            self.op(op)
        return []

    def op(self, op: Op) -> None:
        handler: Callable[[Op], Val | MemRef | Tile | None] | None = getattr(self, "op_" + op.name.replace(".", "_"), None)
        group, _, name = op.name.partition(".")
        if handler is not None:
            out = handler(op)
        elif group == "idx":
            out = self.idx(name, op)
        elif group == "s":
            out = self.scalar(name, op)
        elif group == "vt":
            out = self.lanes(op).apply(name, [self.val(x) for x in op.operands[:-1]], bool(op.attrs.get("anchored")))
        else:
            raise AssertionError(f"no code for {op.name}")
        if out is not None:
            self.env[op.results[0]] = out

    # -- idx
    def idx(self, name: str, op: Op) -> Val:
        a, b = (self.val(x) for x in op.operands)
        if name in ("min", "max"):
            return self.w.call("i64", f"llvm.s{name}.i64", [a, b])
        if name in ("div", "rem") and b.text.isdigit() and int(b.text) & (int(b.text) - 1) == 0 and int(b.text) > 0:
            n = int(b.text)
            return self.w.binary("and", a, self.w.i64(n - 1)) if name == "rem" else self.w.let("i64", f"lshr {a}, {n.bit_length() - 1}")
        return self.w.binary({"div": "udiv", "rem": "urem"}.get(name, name), a, b)

    def op_idx_const(self, op: Op) -> Val:
        return Val("i64", str(op.attrs["value"]))

    def op_idx_cmp(self, op: Op) -> Val:
        a, b = (self.val(x) for x in op.operands)
        return self.w.let("i1", f"icmp {ICMP[str(op.attrs['pred'])]} {a}, {b.text}")

    def op_idx_select(self, op: Op) -> Val:
        c, a, b = (self.val(x) for x in op.operands)
        return self.w.let("i64", f"select {c}, {a}, {b}")

    def op_dim(self, op: Op) -> Val:
        return self.args[str(op.attrs["name"])]

    def op_te(self, op: Op) -> Val:
        return self.te

    def op_cta(self, op: Op) -> Val:
        return Val("i64", "%cta")

    def op_warp(self, op: Op) -> Val:
        return Val("i64", "%warp")

    def op_ctas(self, op: Op) -> Val:
        return self.ctas

    def op_warps(self, op: Op) -> Val:
        return self.w.i64(self.f.warps)

    # -- scalars
    def op_scalar(self, op: Op) -> Val:
        name = str(op.attrs["name"])
        t = op.results[0].type
        assert isinstance(t, ScalarType)
        slot = self.args[name]
        if t.dtype == DType.f64:
            return self.w.let("double", f"bitcast {slot} to double")
        if t.dtype == DType.i64:
            return slot
        if not t.dtype.is_float:
            return self.w.let(SCALAR[t.dtype], f"trunc {slot} to {SCALAR[t.dtype]}")
        word = self.w.let(f"i{t.dtype.bits}", f"trunc {slot} to i{t.dtype.bits}")
        return self.w.let(SCALAR[t.dtype], f"bitcast {word} to {SCALAR[t.dtype]}")

    def op_sconst(self, op: Op) -> Val:
        t = op.results[0].type
        assert isinstance(t, ScalarType)
        value = op.attrs["value"]
        assert isinstance(value, (int, float))
        if t.dtype == DType.f32:
            return Val("float", float_literal(float(value)))
        if t.dtype in FORMATS:
            return Val("i8", str(int(round_to(np.asarray(value, np.float64), t.dtype).view(np.int8))))
        if t.dtype.is_float:
            single = Val("float", float_literal(float(value)))
            return self.w.let(SCALAR[t.dtype], f"{'fpext' if t.dtype == DType.f64 else 'fptrunc'} {single} to {SCALAR[t.dtype]}")
        return Val(SCALAR[t.dtype], str(int(value)))

    def op_s_from_idx(self, op: Op) -> Val:
        t = op.results[0].type
        assert isinstance(t, ScalarType)
        x = self.val(op.operands[0])
        if t.dtype == DType.i64:
            return x
        if t.dtype.is_float:
            return self.w.let(SCALAR[t.dtype], f"sitofp {x} to {SCALAR[t.dtype]}")
        return self.w.let(SCALAR[t.dtype], f"trunc {x} to {SCALAR[t.dtype]}")

    def op_idx_from_s(self, op: Op) -> Val:
        t = op.operands[0].type
        assert isinstance(t, ScalarType)
        x = self.val(op.operands[0])
        return x if x.type == "i64" else self.w.let("i64", f"{'zext' if t.dtype == DType.u8 else 'sext'} {x} to i64")

    def op_s_cast(self, op: Op) -> Val:
        x = self.val(op.operands[0])
        src, dst = op.operands[0].type, op.results[0].type
        assert isinstance(src, ScalarType) and isinstance(dst, ScalarType)
        if {src.dtype, dst.dtype} & SMALL and src.dtype != dst.dtype:
            one = Lanes(self.w, Vec(max(1, 64 // src.dtype.bits), SCALAR[src.dtype]), self.w.i64(1), self.has_exp)
            if src.dtype == DType.i1:
                x, one = self.w.let("i8", f"zext {x} to i8"), one.at(Vec(8, "i8"))
            y = one.cast(one.splat(x), DType.i8 if src.dtype == DType.i1 else src.dtype, dst.dtype)
            assert y.vec is not None
            return one.at(y.vec).first(y)
        return scalar_cast(self.w, x, src.dtype, dst.dtype)

    def op_s_select(self, op: Op) -> Val:
        c, a, b = (self.val(x) for x in op.operands)
        return self.w.let(a.type, f"select {c}, {a}, {b}")

    def scalar(self, name: str, op: Op) -> Val:
        w = self.w
        xs = [self.val(x) for x in op.operands]
        t = op.operands[-1].type
        assert isinstance(t, ScalarType)
        if name in CMPS:
            kind = f"fcmp {FCMP[name]}" if t.dtype.is_float else f"icmp {ICMP[name] if t.dtype != DType.u8 else ICMP[name].replace('s', 'u', 1)}"
            return w.let("i1", f"{kind} {xs[0]}, {xs[1].text}")
        if t.dtype == DType.i1:
            if name == "not":
                return w.let("i1", f"xor {xs[0]}, true")
            return w.let("i1", f"{name} {xs[0]}, {xs[1].text}")
        if t.dtype in (DType.f32, DType.f64):
            if name in ("add", "sub", "mul", "div"):
                return w.let(xs[0].type, f"f{name} {xs[0]}, {xs[1].text}")
            if name == "neg":
                return w.let(xs[0].type, f"fneg {xs[0]}")
            if name in ("abs", "sqrt"):
                return w.call(xs[0].type, f"llvm.{'fabs' if name == 'abs' else 'sqrt'}.{'f32' if t.dtype == DType.f32 else 'f64'}", xs)
        elif not t.dtype.is_float and name in ("add", "sub", "mul"):
            return w.let(xs[0].type, f"{name} {xs[0]}, {xs[1].text}")
        # everything else (functions, division's and maximum's rules) on one lane of the vector unit
        one = Lanes(w, Vec(max(1, 64 // t.dtype.bits), SCALAR[t.dtype]), w.i64(1), self.has_exp, t.dtype.kind == "u")
        wide = [one.splat(x) for x in xs]
        return one.first(one.apply(name, wide, bool(op.attrs.get("anchored"))))

    # -- memory
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

    # -- control flow
    def op_for(self, op: Op) -> None:
        w = self.w
        lo, hi, step, *init = (self.val(x) for x in op.operands)
        head, body, done = (w.new_label(h) for h in ("head", "body", "done"))
        outer, self.varying = (self.varying, self.volatile), self._before_products(op.regions[0])
        self.volatile = " volatile" if len(products_of(op.regions[0])) > 2 else ""  # with two the order is worth less than it hinders
        before = w.label
        w.do(f"br label %{head}")
        w.block(head)
        at = len(w.lines)
        i = Val("i64", w.fresh("i"))
        phis = [Val(v.type, w.fresh("c"), v.vec) for v in init]
        for arg, v in zip(op.regions[0].args, [i, *phis], strict=True):
            self.env[arg] = v
        test = w.let("i1", f"icmp slt {i}, {hi.text}")
        w.do(f"br {test}, label %{body}, label %{done}")
        w.block(body)
        nexts = self.block(scheduled(op.regions[0]))
        self.varying, self.volatile = outer
        nxt = w.let("i64", f"add {i}, {step.text}")
        w.do(f"br label %{head}, !llvm.loop !9" if op.attrs.get("unroll", 1) == 1 else f"br label %{head}")
        w.lines[at:at] = [f"  {p.text} = phi {p.type} [ {a.text}, %{before} ], [ {b.text}, %{w.label} ]"
                          for p, a, b in zip([i, *phis], [lo, *init], [nxt, *nexts], strict=True)]
        w.block(done)
        for r, p in zip(op.results, phis, strict=True):
            self.env[r] = p

    def _before_products(self, body: Block) -> set[Value]:
        """What of a loop's body changes with its steps, if it is a loop of products. LLVM 22.1 aborts on a loop whose only vector state is one
        sf.mm configuration unless an RVV op stands before it: one of no rows, under that configuration if it can (all but e16alt), so that the loop
        need not set it."""
        w = self.w
        products = products_of(body)
        own = {r for x in body.ops for r in x.results}
        kinds = {(x.operands[4], str(x.operands[1].type)) for x in products}
        if len(kinds) == 1 and products[0].operands[4] not in own:
            acc, a, _, _, tn = products[0].operands
            assert isinstance(a.type, OpndType)
            sew, twiden = a.type.dtype.bits.bit_length() - 1, self._twiden(a.type)
            w.call(None, "llvm.riscv.sf.vtzero.t.i64", [w.i64(self.tile(acc)), w.i64(0), self.val(tn), w.i64(sew), w.i64(twiden)])
        elif any(x.name == "mma" for x in body.walk()):
            w.call(None, "llvm.riscv.sf.vtzero.t.i64", [w.i64(0), w.i64(0), w.i64(0), w.i64(5), w.i64(1)])
        return varying(body) if products else set()

    def op_if(self, op: Op) -> None:
        w = self.w
        cond = self.val(op.operands[0])
        labels = [w.new_label("then"), w.new_label("else")]
        join = w.new_label("join")
        w.do(f"br {cond}, label %{labels[0]}, label %{labels[1]}")
        ends = []
        for label, region in zip(labels, op.regions, strict=True):
            w.block(label)
            out = self.block(region)
            ends.append((w.label, out))
            w.do(f"br label %{join}")
        w.block(join)
        for n, r in enumerate(op.results):
            v = ends[0][1][n]
            name = w.fresh("p")
            w.raw(f"  {name} = phi {v.type} " + ", ".join(f"[ {out[n].text}, %{label} ]" for label, out in ends))
            self.env[r] = Val(v.type, name, v.vec)

    # -- matrix tiles. tm, tn and tile vls are never constants: LLVM 22.1 aborts when one equals VLEN/SEW.
    def op_acc_alloc(self, op: Op) -> Tile:
        t = op.results[0].type
        assert isinstance(t, AccType) and t.dtype.bits == 32 and self.tiles < 4, "four 32-bit tiles"
        self.tiles += 1
        return Tile(4 * (self.tiles - 1))

    def op_acc_zero(self, op: Op) -> None:
        w = self.w
        w.call(None, "llvm.riscv.sf.vtzero.t.i64", [w.i64(self.tile(op.operands[0])), *(self.val(x) for x in op.operands[1:]),
                                                    w.i64(5), w.i64(1)])

    def _subset(self, op: Op) -> Val:
        base = self.tile(op.operands[0]) << 27 | (1 << 24 if op.attrs["axis"] == "col" else 0)
        return self.w.binary("add", self.val(op.operands[1]), self.w.i64(base))

    def _wide(self, acc: Value) -> Vec:
        t = acc.type
        assert isinstance(t, AccType)
        return Vec(16, SCALAR[t.dtype])

    def op_acc_read(self, op: Op) -> Val:
        wide = self._wide(op.operands[0])
        x = self.w.call(wide, f"llvm.riscv.sf.vtmv.v.t.{wide.mangled}.i64", [self._subset(op), self.val(op.operands[2])])
        return self._part(x, self.vec(op.results[0]))

    def op_acc_write(self, op: Op) -> None:
        wide = self._wide(op.operands[0])
        x = self._insert(self.w.poison(wide), self.val(op.operands[2]), 0)
        self.w.call(None, f"llvm.riscv.sf.vtmv.t.v.{wide.mangled}.i64", [self._subset(op), x, self.val(op.operands[3])])

    def _part(self, x: Val, v: Vec) -> Val:
        assert x.vec is not None
        if x.vec.n == v.n:
            return x
        return self.w.call(v, f"llvm.vector.extract.{v.mangled}.{x.vec.mangled}", [x, self.w.i64(0)])

    def _insert(self, group: Val, row: Val, at: int) -> Val:
        assert group.vec is not None and row.vec is not None
        if group.vec.n == row.vec.n:
            return row
        return self.w.call(group.vec, f"llvm.vector.insert.{group.vec.mangled}.{row.vec.mangled}", [group, row, self.w.i64(at)])

    def _group(self, t: OpndType) -> tuple[Vec, Vec]:
        """(the LMUL 8 group, a row's own type: at least LMUL 1)."""
        per = 64 // t.dtype.bits
        return Vec(8 * per, SCALAR[t.dtype]), Vec(max(self.f.te * 64 // self.f.vlen, per), SCALAR[t.dtype])

    def op_opnd_load(self, op: Op) -> Val:
        t = op.results[0].type
        assert isinstance(t, OpndType)
        m, vl = self.mem(op.operands[0]), self.val(op.operands[1])
        k_axis, lane_axis = op.attrs["k_axis"], op.attrs["lane_axis"]
        assert isinstance(k_axis, int) and isinstance(lane_axis, int) and m.strides[lane_axis] == 1
        group, row = self._group(t)
        producer = op.operands[1].op
        whole = row.n * self.f.vlen == self.f.te * 64 and producer is not None and producer.name == "te"  # whole registers need no vl
        out = self.w.poison(group)
        for k in range(t.k):
            at = self.w.gep(m.ptr, self.w.binary("mul", self._stride_bytes(m, k_axis), self.w.i64(k)))
            load = f"load{self.volatile} {row}, {at}, align {t.dtype.bits // 8}"
            x = self.w.let(row, load) if whole else self.w.rvv("vle", row, [at], vl, mangle=["p0"])
            out = self._insert(out, x, k * group.n // t.k)
        return out

    def op_opnd_pack(self, op: Op) -> Val:
        t = op.results[0].type
        assert isinstance(t, OpndType)
        group, row = self._group(t)
        out = self.w.poison(group)
        for k, x in enumerate(op.operands):
            v = self.val(x)
            assert v.vec is not None
            v = self._insert(self.w.poison(row), v, 0) if v.vec.n < row.n else v
            out = self._insert(out, v, k * group.n // t.k)
        return out

    def op_mma(self, op: Op) -> None:
        acc, a, b, tm, tn = op.operands
        assert isinstance(a.type, OpndType)
        t, x, y = a.type, self.val(a), self.val(b)
        assert x.vec is not None
        kind = str(t.dtype) if t.dtype in (DType.e4m3, DType.e5m2) else "f" if t.dtype.is_float else "u" if t.dtype.kind == "u" else "s"
        name = f"llvm.riscv.sf.mm.{kind}.{kind}"
        suffix = f".i64.{x.vec.mangled}" + ("" if t.dtype.bits > 8 or t.dtype.is_float else f".{x.vec.mangled}")
        self.w.call(None, name + suffix, [self.w.i64(self.tile(acc)), x, y, self.val(tm), self.val(tn), self.w.i64(t.k),
                                        self.w.i64(self._twiden(t))])

    def _twiden(self, t: OpndType) -> int:
        return 32 // t.dtype.bits

    # -- vectors
    def lanes(self, op: Op) -> Lanes:
        x = next(x for x in op.operands if isinstance(x.type, VecType))
        v = self.val(x).vec
        assert v is not None and isinstance(x.type, VecType)
        return Lanes(self.w, v, self.val(op.operands[-1]), self.has_exp, x.type.dtype.kind == "u")

    def op_vt_bcast(self, op: Op) -> Val:
        v = self.vec(op.results[0])
        x = self.val(op.operands[0])
        one = Lanes(self.w, v, self.val(op.operands[1]), self.has_exp)
        return self._mask_of(x, v, one.vl) if v.elem == "i1" else one.splat(x)

    def _mask_of(self, x: Val, v: Vec, vl: Val) -> Val:
        """A mask of one truth value."""
        if x.vec is not None:
            return x
        byte = Lanes(self.w, v.of("i8"), vl, self.has_exp)
        return self._to_mask(byte.splat(self.w.let("i8", f"zext {x} to i8")), vl)

    def op_vt_iota(self, op: Op) -> Val:
        return self.w.rvv("vid", self.vec(op.results[0]), [], self.val(op.operands[0]))

    def op_vt_select(self, op: Op) -> Val:
        m, x, y, vl = (self.val(v) for v in op.operands)
        v = x.vec or y.vec
        assert v is not None
        if v.elem == "i1":
            x, y = self._mask_of(x, v, vl), self._mask_of(y, v, vl)
        return Lanes(self.w, v, vl, self.has_exp).merge(m, x, y)

    def op_vt_tail(self, op: Op) -> Val:
        x, fill, live, vl = (self.val(v) for v in op.operands)
        assert x.vec is not None
        ids = Lanes(self.w, x.vec.of("i32"), vl, self.has_exp)
        inside = ids.compare("lt", self.w.rvv("vid", x.vec.of("i32"), [], vl), self.w.let("i32", f"trunc {live} to i32"))
        return Lanes(self.w, x.vec, vl, self.has_exp).merge(inside, x, fill)

    def op_vt_cast(self, op: Op) -> Val:
        src, dst = op.operands[0].type, op.results[0].type
        assert isinstance(src, VecType) and isinstance(dst, VecType)
        x = op.operands[0]
        if x.op is not None and x.op.name == "vt.round" and src.dtype is DType.f32 and dst.dtype in ROUNDED:
            return self.lanes(op).cast(self.val(x.op.operands[0]), src.dtype, dst.dtype, nearest=True)  # one conversion does both
        return self.lanes(op).cast(self.val(x), src.dtype, dst.dtype)

    def op_vt_fma(self, op: Op) -> Val:
        """Products of what was bf16 need no conversion."""
        a, b, c, vl = op.operands
        x, one = self._narrow(a), b.op is not None and b.op.name == "sconst" and b.op.attrs["value"] == 1
        y = Val("bfloat", "1.0") if one else self._narrow(b)
        acc = self.val(c)
        if x is None or y is None or acc.vec is None:
            return self.lanes(op).apply("fma", [self.val(v) for v in (a, b, c)])
        return self.lanes(op).fma(y, x, acc, "vfwmaccbf16")

    def _narrow(self, x: Value) -> Val | None:
        """The bf16 lanes that x was made f32 from."""
        wide = x.op is not None and x.op.name == "vt.cast" and isinstance(x.type, VecType) and x.type.dtype is DType.f32
        y = self.env.get(x.op.operands[0]) if wide and x.op is not None else None
        return y if isinstance(y, Val) and y.vec is not None and y.vec.elem == "bfloat" else None

    def op_vt_nibble(self, op: Op) -> Val:
        lanes, x = self.lanes(op), self.val(op.operands[0])
        four = self.w.i64(4)
        return lanes.rvv("vsra", x if op.attrs["half"] else lanes.rvv("vsll", x, four), four)

    def op_vt_join(self, op: Op) -> Val:
        whole = self.vec(op.results[0])
        out = self.w.poison(whole)
        for n, x in enumerate(op.operands):
            out = self._insert(out, self.val(x), n * self.vec(x).n)
        return out

    def op_vt_part(self, op: Op) -> Val:
        x, v = self.val(op.operands[0]), self.vec(op.results[0])
        assert x.vec is not None
        return self.w.call(v, f"llvm.vector.extract.{v.mangled}.{x.vec.mangled}", [x, self.w.i64(v.n if op.attrs["index"] else 0)])

    def op_vt_xred(self, op: Op) -> Val:
        return self.lanes(op).reduce(str(op.attrs["op"]), self.val(op.operands[0]))

    def op_vt_vote(self, op: Op) -> Val:
        mask, vl = (self.val(v) for v in op.operands)
        assert mask.vec is not None
        count = self.w.call("i64", f"llvm.riscv.vcpop.i64.{mask.vec.mangled}", [mask, vl])
        return self.w.let("i1", f"icmp {'ne' if op.attrs['kind'] == 'any' else 'eq'} {count}, {'0' if op.attrs['kind'] == 'any' else vl.text}")


def scalar_cast(w: Writer, x: Val, src: DType, dst: DType) -> Val:
    to = SCALAR[dst]
    if src == dst:
        return x
    if src.is_float and dst.is_float:
        if dst.bits > src.bits:
            return w.let(to, f"fpext {x} to {to}")
        if dst.bits == src.bits:
            return w.let(to, f"fptrunc {w.let('float', f'fpext {x} to float')} to {to}")
        return w.let(to, f"fptrunc {x} to {to}")
    if src.is_float:
        if dst == DType.i1:
            return w.let("i1", f"fcmp une {x}, 0.0")
        return w.call(to, f"llvm.fpto{'u' if dst.kind == 'u' else 's'}i.sat.{to}.{SHORT[x.type]}", [x])
    if dst.is_float:
        return w.let(to, f"{'uitofp' if src.kind in 'ub' else 'sitofp'} {x} to {to}")
    if dst == DType.i1:
        return w.let("i1", f"icmp ne {x}, 0")
    bits = {DType.i1: 1}.get(src, src.bits)
    if dst.bits > bits:
        return w.let(to, f"{'zext' if src.kind in 'ub' else 'sext'} {x} to {to}")
    return x if dst.bits == bits else w.let(to, f"trunc {x} to {to}")
