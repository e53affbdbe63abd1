"""P14: level K to LLVM IR text. What good and correct code need of LLVM 22 is in the comments where it matters."""

from __future__ import annotations

from rvgpu.codegen_rvgpu.llvm_base import ROUNDED
from rvgpu.codegen_rvgpu.llvm_math import Lanes
from rvgpu.codegen_rvgpu.llvm_text import Val, Vec
from rvgpu.codegen_rvgpu.llvm_tiles import Tiles
from rvgpu.codegen_rvgpu.products import products_of, scheduled, varying
from rvgpu.ir.core import Block, Op, Value
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType, OpndType, VecType


def emit_llvm(func: KFunc, *, has_exp: bool = True) -> str:
    """The kernel's LLVM module as text."""
    return _Emit(func, has_exp).module()


class _Emit(Tiles):
    # -- vectors
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
