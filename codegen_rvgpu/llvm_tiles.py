"""P14: matrix tiles. tm, tn and tile vls are never constants: LLVM 22.1 aborts when one equals VLEN/SEW."""

from __future__ import annotations

from rvgpu.codegen_rvgpu.llvm_memory import Memory
from rvgpu.codegen_rvgpu.llvm_text import SCALAR, Tile, Val, Vec
from rvgpu.ir.core import Op, Value
from rvgpu.ir.types import AccType, DType, OpndType


class Tiles(Memory):
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
