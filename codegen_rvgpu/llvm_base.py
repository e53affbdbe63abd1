"""P14, the ground of the emitter: the module around a kernel, values by name, index arithmetic and scalars."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rvgpu.codegen_rvgpu.llvm_math import SMALL, Lanes
from rvgpu.codegen_rvgpu.llvm_small import FORMATS
from rvgpu.codegen_rvgpu.llvm_text import DATALAYOUT, SCALAR, SHORT, TRIPLE, MemRef, Tile, Val, Vec, Writer, float_literal
from rvgpu.ir.core import Block, Op, Value
from rvgpu.ir.numeric import round_to
from rvgpu.ir.tile_build import CMPS, KFunc
from rvgpu.ir.types import DType, ScalarType, VecType

ENTRY = "define void @{name}(ptr %args, i64 %cta, i64 %warp, ptr %ctl, ptr %spm) #0 !dbg !4 {{"
PAGE = {"ctas": 0x20, "SRC": 0x40, "DST": 0x48, "ROWS": 0x50, "ROW_BYTES": 0x58, "SRC_STRIDE": 0x60, "DST_STRIDE": 0x68,
        "FILL_ROWS": 0x70, "FILL_BYTES": 0x78, "INDEX": 0x80, "GO": 0x88, "WAIT": 0x90, "BAR": 0x100}
ICMP = {"lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "eq": "eq", "ne": "ne"}
FCMP = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
ROUNDED = (DType.i8, DType.u8, DType.i16, DType.i32)  # what a float is rounded to by the conversion itself
SWAP = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge", "eq": "eq", "ne": "ne"}


class Base:
    """What each op's method finds; `op_NAME` writes the op NAME."""

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

    def lanes(self, op: Op) -> Lanes:
        x = next(x for x in op.operands if isinstance(x.type, VecType))
        v = self.val(x).vec
        assert v is not None and isinstance(x.type, VecType)
        return Lanes(self.w, v, self.val(op.operands[-1]), self.has_exp, x.type.dtype.kind == "u")

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
