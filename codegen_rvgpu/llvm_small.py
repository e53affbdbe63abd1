"""Numbers that the vector unit has no type for: 8-bit floats, held as bytes, and 4-bit integers, two to a byte in memory and bytes with their
sign in registers."""

from __future__ import annotations

from dataclasses import dataclass

from rvgpu.codegen_rvgpu.llvm_math import Lanes
from rvgpu.codegen_rvgpu.llvm_text import Val, Vec, Writer, float_literal
from rvgpu.ir.types import DType


@dataclass(frozen=True)
class Format:
    """Bits of the mantissa, the exponent's bias, the largest finite number, a NaN."""

    mantissa: int
    bias: int
    largest: float
    nan: int


FORMATS = {DType.e4m3: Format(3, 7, 448.0, 0x7F), DType.e5m2: Format(2, 15, 57344.0, 0x7E)}


def fp8_to_f16(one: Lanes, x: Val, src: DType) -> Val:
    """Exact. e5m2 is the upper byte of an f16; e4m3's bits stand three below those of an f16 that is 2^8 times smaller."""
    assert x.vec is not None
    wide = one.at(x.vec.of("i16"))
    half = x.vec.of("half")
    if src == DType.e5m2:
        y = wide.rvv("vsll", one.w.rvv("vzext", wide.v, [x], one.vl, mangle=[x.vec.mangled]), one.w.i64(8))
        return one.w.let(half, f"bitcast {y} to {half}")
    y = wide.rvv("vsll", one.w.rvv("vsext", wide.v, [x], one.vl, mangle=[x.vec.mangled]), one.w.i64(7))
    y = wide.rvv("vand", y, Val("i16", str(0xBFFF - 0x10000)))  # what the sign left beside itself
    nan = one.compare("eq", one.rvv("vand", x, Val("i8", "127")), Val("i8", "127"))
    y = wide.merge(nan, Val("i16", str(0x7E00)), y)
    scaled = one.at(half)
    return scaled.rvv("vfmul", one.w.let(half, f"bitcast {y} to {half}"), Val("half", "0xH5C00"), frm=True)  # 256


def f32_to_fp8(one: Lanes, x: Val, dst: DType) -> Val:
    """To nearest even, saturating; NaN stays NaN."""
    assert x.vec is not None
    w, f, form = one.w, one, FORMATS[dst]
    ints = one.at(x.vec.of("i32"))

    def i(value: int) -> Val:
        return Val("i32", str(value))

    nan = f.compare("ne", x, x)
    most = Val("float", float_literal(form.largest))
    y = f.rvv("vfmin", f.rvv("vfmax", x, Val("float", float_literal(-form.largest))), most)
    bits = w.let(ints.v, f"bitcast {y} to {ints.v}")
    sign = ints.rvv("vand", ints.rvv("vsrl", bits, w.i64(24)), i(0x80))
    size = ints.rvv("vand", bits, i(0x7FFFFFFF))
    shift = 23 - form.mantissa
    odd = ints.rvv("vand", ints.rvv("vsrl", size, w.i64(shift)), i(1))
    rounded = ints.rvv("vadd", ints.rvv("vadd", size, i((1 << shift - 1) - 1)), odd)
    normal = ints.rvv("vsub", ints.rvv("vsrl", rounded, w.i64(shift)), i((127 - form.bias) << form.mantissa))
    magnitude = w.let(f.v, f"bitcast {size} to {f.v}")
    steps = f.rvv("vfmul", magnitude, Val("float", float_literal(2.0 ** (form.bias - 1 + form.mantissa))), frm=True)
    small = w.rvv("vfcvt.x.f.v", ints.v, [steps], one.vl, frm=True, mangle=[f.v.mangled])
    code = ints.merge(f.compare("lt", magnitude, Val("float", float_literal(2.0 ** (1 - form.bias)))), small, normal)
    code = ints.merge(nan, i(form.nan), ints.rvv("vor", code, sign))
    return ints.cast(code, DType.i32, DType.i8)


# -- 4-bit integers

def signed_nibbles(one: Lanes, x: Val) -> Val:
    """The low four bits of bytes, with their sign."""
    four = one.w.i64(4)
    return one.rvv("vsra", one.rvv("vsll", x, four), four)


def load_nibbles(w: Writer, v: Vec, base: Val, first: Val, vl: Val, has_exp: bool) -> Val:
    """`vl` numbers from number `first` on."""
    odd = w.binary("and", first, w.i64(1))
    count = w.let("i64", f"lshr {w.binary('add', w.binary('add', vl, odd), w.i64(1))}, 1")
    at = w.gep(base, w.let("i64", f"lshr {first}, 1"))
    pairs = Lanes(w, v.of("i16"), count, has_exp)
    y = w.rvv("vzext", pairs.v, [w.rvv("vle", v, [at], count, mangle=["p0"])], count, mangle=[v.mangled])
    y = pairs.rvv("vor", y, pairs.rvv("vsll", y, w.i64(4)))  # nibbles to the low halves of bytes
    double = Vec(2 * v.n, "i8")
    flat = w.let(double, f"bitcast {y} to {double}")
    more = w.binary("add", vl, w.i64(1))
    flat = w.call(double, f"llvm.riscv.vslidedown.{double.mangled}.i64", [w.poison(double), flat, odd, more, w.i64(3)])
    one = Lanes(w, v, vl, has_exp)
    return signed_nibbles(one, w.call(v, f"llvm.vector.extract.{v.mangled}.{double.mangled}", [flat, w.i64(0)]))


def gather_nibbles(w: Writer, v: Vec, base: Val, at: Val, vl: Val, has_exp: bool, mask: Val | None = None) -> Val:
    """The number `at` (i32 lanes) of each lane; 0 where the mask is not set."""
    assert at.vec is not None
    ints, one = Lanes(w, at.vec, vl, has_exp), Lanes(w, v, vl, has_exp)
    if mask is not None:
        at = ints.merge(mask, at, ints.splat(Val("i32", "0")))
    byte = w.call(v, f"llvm.riscv.vluxei.{v.mangled}.p0.{at.vec.mangled}.i64",  # type: ignore[union-attr]
                  [w.poison(v), base, ints.rvv("vsrl", at, w.i64(1)), vl])
    high = ints.compare("ne", ints.rvv("vand", at, Val("i32", "1")), Val("i32", "0"))
    x = signed_nibbles(one, one.merge(high, one.rvv("vsrl", byte, w.i64(4)), byte))
    return x if mask is None else one.merge(mask, x, one.splat(Val("i8", "0")))


def store_nibbles(w: Writer, x: Val, base: Val, first: Val, vl: Val, has_exp: bool) -> None:
    """An even number of numbers from an even place on."""
    assert x.vec is not None
    half = x.vec.n // 2
    count = w.let("i64", f"lshr {w.binary('add', vl, w.i64(1))}, 1")
    pairs = Lanes(w, Vec(half, "i16"), count, has_exp)
    y = w.let(pairs.v, f"bitcast {x} to {pairs.v}")
    y = pairs.rvv("vor", pairs.rvv("vand", y, Val("i16", "15")), pairs.rvv("vand", pairs.rvv("vsrl", y, w.i64(4)), Val("i16", "240")))
    packed = pairs.cast(y, DType.i16, DType.i8)
    w.call(None, f"llvm.riscv.vse.nxv{half}i8.p0.i64", [packed, w.gep(base, w.let("i64", f"lshr {first}, 1")), count])


__all__ = ["FORMATS", "f32_to_fp8", "fp8_to_f16", "gather_nibbles", "load_nibbles", "signed_nibbles", "store_nibbles"]
