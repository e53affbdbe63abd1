"""Elementwise operations on lanes: RVV instructions where there is one, and f32 functions built from fused multiply-adds.

Functions and their largest error over f32, measured by tests/test_codegen_math.py on the simulator (ulp of the result):
exp 0.9 (2.0 by the unit), exp2 0.9, log 0.9, log2 1.4, tanh 1.9, erf 1.1, rsqrt 1.5, sqrt 0.5; floor and round are exact. The error bounds
assume no less.
"""

from __future__ import annotations

from dataclasses import dataclass

from rvgpu.codegen_rvgpu.llvm_text import SCALAR, SHORT, Val, Vec, Writer, float_literal
from rvgpu.ir.types import DType

FRM = {"add": "vfadd", "sub": "vfsub", "mul": "vfmul", "div": "vfdiv"}
NO_FRM = {"max": "vfmax", "min": "vfmin"}
INT = {"add": "vadd", "sub": "vsub", "mul": "vmul", "max": "vmax", "min": "vmin", "and": "vand", "or": "vor"}
FCMP = {"lt": "vmflt", "le": "vmfle", "gt": "vmfgt", "ge": "vmfge", "eq": "vmfeq", "ne": "vmfne"}
ICMP = {"lt": "vmslt", "le": "vmsle", "gt": "vmsgt", "ge": "vmsge", "eq": "vmseq", "ne": "vmsne"}
FLOATS = {"float", "double", "half", "bfloat"}
FP8 = frozenset({DType.e4m3, DType.e5m2})
SMALL = FP8 | {DType.i4}
FUNCTIONS = frozenset({"exp", "exp2", "log", "log2", "tanh", "erf", "rsqrt", "floor", "round", "sqrt", "neg", "abs"})


@dataclass(frozen=True)
class Lanes:
    """Operations on vectors of type `v` with `vl` live lanes."""

    w: Writer
    v: Vec
    vl: Val
    has_exp: bool
    unsigned: bool = False  # of integer elements

    def at(self, v: Vec) -> Lanes:
        return Lanes(self.w, v, self.vl, self.has_exp)

    def signed(self, name: str) -> str:
        """The instruction's name for these integers: vmin or vminu."""
        return name + "u" * self.unsigned

    def f(self, value: float) -> Val:
        return Val("float", float_literal(value))

    # -- moves
    def splat(self, x: Val) -> Val:
        if x.type == "bfloat":
            bits = self.at(self.v.of("i16")).splat(self.w.let("i16", f"bitcast {x} to i16"))
            return self.w.let(self.v, f"bitcast {bits} to {self.v}")
        name = "vfmv.v.f" if x.type in FLOATS else "vmv.v.x"
        return self.w.call(self.v, f"llvm.riscv.{name}.{self.v.mangled}.i64", [self.w.poison(self.v), x, self.vl])

    def first(self, x: Val) -> Val:
        return self.w.let(self.v.elem, f"extractelement {x}, i64 0")

    def merge(self, mask: Val, x: Val, y: Val) -> Val:
        """mask ? x : y; one of x, y may be a scalar."""
        elem = self.v.elem
        if elem == "i1":
            both = self.logic("vmand", mask, x)
            return self.logic("vmor", both, self.logic("vmandn", y, mask))
        if elem == "bfloat":
            bits = self.at(self.v.of("i16"))
            out = bits.merge(mask, self._bits(x), self._bits(y))
            return self.w.let(self.v, f"bitcast {out} to {self.v}")
        if y.vec is None:
            y = self.splat(y)
        if x.vec is None and x.type in FLOATS:
            return self.w.call(self.v, f"llvm.riscv.vfmerge.{self.v.mangled}.{SHORT[x.type]}.i64",
                               [self.w.poison(self.v), y, x, mask, self.vl])
        kind = self.v.mangled if x.vec is not None else SHORT[x.type]
        return self.w.call(self.v, f"llvm.riscv.vmerge.{self.v.mangled}.{kind}.i64", [self.w.poison(self.v), y, x, mask, self.vl])

    def _bits(self, x: Val) -> Val:
        if x.vec is None:
            return self.w.let("i16", f"bitcast {x} to i16")
        v = x.vec.of("i16")
        return self.w.let(v, f"bitcast {x} to {v}")

    def logic(self, name: str, a: Val, b: Val) -> Val:
        assert a.vec is not None
        return self.w.call(a.vec, f"llvm.riscv.{name}.{a.vec.n if False else a.vec.mangled}.i64", [a, b, self.vl])

    # -- arithmetic
    def rvv(self, name: str, *xs: Val, frm: bool = False, out: Vec | None = None) -> Val:
        """Operands after the first name their kind in the intrinsic: vector or scalar."""
        mangle = [x.vec.mangled if x.vec is not None else SHORT[x.type] for x in xs[1:]]
        return self.w.rvv(name, out or self.v, xs, self.vl, frm=frm, mangle=mangle)

    def fma(self, a: Val, b: Val, c: Val, name: str = "vfmacc") -> Val:
        """a*b + c (vfmsac: a*b - c), fused; c becomes the accumulator, a or b may be a scalar."""
        if b.vec is None:
            a, b = b, a
        if c.vec is None:
            c = self.splat(c)
        kind = a.vec.mangled if a.vec is not None else SHORT[a.type]
        if name == "vfwmaccbf16":
            assert b.vec is not None
            kind = f"{kind}.{b.vec.mangled}" if a.vec is not None else kind
        return self.w.call(self.v, f"llvm.riscv.{name}.{self.v.mangled}.{kind}.i64", [c, a, b, Val("i64", "7"), self.vl, Val("i64", "3")])

    def compare(self, pred: str, a: Val, b: Val) -> Val:
        assert a.vec is not None
        name = FCMP[pred] if a.vec.elem in FLOATS else ICMP[pred] if pred in ("eq", "ne") else self.signed(ICMP[pred])
        kind = b.vec.mangled if b.vec is not None else SHORT[b.type]
        return self.w.call(a.vec.of("i1"), f"llvm.riscv.{name}.{a.vec.mangled}.{kind}.i64", [a, b, self.vl])

    def apply(self, name: str, xs: list[Val], anchored: bool = False) -> Val:
        elem = self.v.elem
        if elem == "i1":
            return self.logic("vmnand", xs[0], xs[0]) if name == "not" else self.logic({"and": "vmand", "or": "vmor", "ne": "vmxor"}[name], *xs)
        if elem in ("half", "bfloat"):
            wide = self.at(self.v.of("float"))
            small = {"half": DType.f16, "bfloat": DType.bf16}[elem]
            ys = [wide.cast(x, small, DType.f32) if x.vec is not None else self.w.let("float", f"fpext {x} to float") for x in xs]
            y = wide.apply(name, ys, anchored)
            return y if name in FCMP else wide.cast(y, DType.f32, small)
        if name in FCMP:
            return self.compare(name, xs[0], xs[1])
        if elem not in FLOATS:
            if name == "neg":
                return self.rvv("vrsub", xs[0], Val(elem, "0"))
            if name == "abs":
                return self.rvv("vmax", xs[0], self.rvv("vrsub", xs[0], Val(elem, "0")))
            if name == "sub" and xs[0].vec is None:
                return self.rvv("vrsub", xs[1], xs[0])
            if xs[0].vec is None:
                xs = [self.splat(xs[0]), *xs[1:]]
            if name in ("div", "mod"):
                return self.divide(name, *xs)
            return self.rvv(self.signed(INT[name]) if name in ("max", "min") else INT[name], *xs)
        if name in FRM:
            if xs[0].vec is None:
                return self.rvv({"sub": "vfrsub", "div": "vfrdiv"}[name], xs[1], xs[0], frm=True)
            return self.rvv(FRM[name], *xs, frm=True)
        if name in NO_FRM:
            return self.rvv(NO_FRM[name], *xs)
        if name == "fma":
            return self.fma(xs[0], xs[1], xs[2])
        if name == "fms":
            return self.fma(xs[0], xs[1], xs[2], "vfmsac")
        if name == "exp" and anchored:
            return self.middle_exp(xs[0])
        out: Val = getattr(self, name)(*xs)
        return out

    def divide(self, name: str, a: Val, b: Val) -> Val:
        """Integers, rounded towards minus infinity: where the remainder has not the divisor's sign, one less (a // 0 = -1, a % 0 = a)."""
        rest = self.rvv(self.signed("vrem"), a, b)
        if self.unsigned:
            return rest if name == "mod" else self.rvv("vdivu", a, b)
        zero = Val(self.v.elem, "0")
        below = self.compare("lt", self.rvv("vxor", rest, b), zero)
        step = self.logic("vmand", below, self.compare("ne", rest, zero))
        divisor = b if b.vec is not None else self.splat(b)
        step = self.logic("vmand", step, self.compare("ne", divisor, zero))
        if name == "mod":
            return self.merge(step, self.rvv("vadd", rest, b), rest)
        quotient = self.rvv("vdiv", a, b)
        return self.merge(step, self.rvv("vadd", quotient, Val(self.v.elem, "-1")), quotient)

    # -- functions of one f32
    def neg(self, x: Val) -> Val:
        return self.rvv("vfsgnjn", x, x)

    def abs(self, x: Val) -> Val:
        return self.rvv("vfsgnjx", x, x)

    def sqrt(self, x: Val) -> Val:
        return self.w.rvv("vfsqrt", self.v, [x], self.vl, frm=True)

    def rsqrt(self, x: Val) -> Val:
        return self.rvv("vfrdiv", self.sqrt(x), self.f(1.0), frm=True)

    def unit_exp(self, x: Val) -> Val:
        return self.w.rvv("sf.vfexp", self.v, [x], self.vl)

    def horner(self, x: Val, coefficients: list[float]) -> Val:
        """c0*x^n + c1*x^(n-1) + ... by fused steps."""
        out = self.splat(self.f(coefficients[0]))
        for c in coefficients[1:]:
            out = self.fma(out, x, self.f(c))
        return out

    def to_int(self, x: Val) -> Val:
        """To nearest even."""
        return self.w.rvv("vfcvt.x.f.v", self.v.of("i32"), [x], self.vl, frm=True, mangle=[self.v.mangled])

    def to_float(self, x: Val) -> Val:
        assert x.vec is not None
        return self.w.rvv("vfcvt.f.x.v", self.v, [x], self.vl, frm=True, mangle=[x.vec.mangled])

    def scaled(self, x: Val, n: Val) -> Val:
        """x * 2^n for integers |n| <= 252, in two exact steps (the second may round to a subnormal or overflow)."""
        i = self.at(self.v.of("i32"))
        half = i.rvv("vsra", n, self.w.i64(1))
        rest = i.rvv("vsub", n, half)
        for part in (half, rest):
            bits = i.rvv("vsll", i.rvv("vadd", part, Val("i32", "127")), self.w.i64(23))
            x = self.rvv("vfmul", x, self.w.let(self.v, f"bitcast {bits} to {self.v}"), frm=True)
        return x

    def keep_nan(self, x: Val, out: Val) -> Val:
        return self.merge(self.compare("ne", x, x), x, out)

    def exp(self, x: Val) -> Val:
        """Full range: (e^(x/2))^2 by the unit, which has all that is needed of that; else x = n ln2 + r, e^r by a polynomial, times 2^n."""
        if self.has_exp:
            root = self.unit_exp(self.rvv("vfmul", x, self.f(0.5), frm=True))
            return self.rvv("vfmul", root, root, frm=True)
        c = self.rvv("vfmin", self.rvv("vfmax", x, self.f(-110.0)), self.f(100.0))
        n = self.to_int(self.rvv("vfmul", c, self.f(1.4426950408889634), frm=True))
        fn = self.to_float(n)
        r = self.fma(fn, self.f(-0.693145751953125), c)
        r = self.fma(fn, self.f(-1.428606765330187e-06), r)
        return self.keep_nan(x, self.scaled(self._exp_small(r), n))

    def middle_exp(self, x: Val) -> Val:
        """e^x where 0 will do below -64 and infinity above 64."""
        return self.unit_exp(x) if self.has_exp else self.exp(x)

    def _exp_small(self, r: Val) -> Val:
        """e^r, |r| <= ln2 / 2."""
        if self.has_exp:
            return self.unit_exp(r)
        return self.horner(r, [1.3820946e-3, 8.368684e-3, 4.1668266e-2, 1.6666521e-1, 0.49999994, 1.0, 1.0])

    def exp2(self, x: Val) -> Val:
        c = self.rvv("vfmin", self.rvv("vfmax", x, self.f(-160.0)), self.f(140.0))
        n = self.to_int(c)
        r = self.rvv("vfmul", self.rvv("vfsub", c, self.to_float(n), frm=True), self.f(0.6931471805599453), frm=True)
        return self.keep_nan(x, self.scaled(self._exp_small(r), n))

    def _mantissa(self, x: Val) -> tuple[Val, Val]:
        """(m in [sqrt(1/2), sqrt(2)), exponent as f32) of a positive finite x, subnormals included."""
        i = self.at(self.v.of("i32"))
        tiny = self.compare("lt", x, self.f(1.1754943508222875e-38))
        y = self.merge(tiny, self.rvv("vfmul", x, self.f(8388608.0), frm=True), x)
        bits = self.w.let(i.v, f"bitcast {y} to {i.v}")
        shifted = i.rvv("vsub", bits, Val("i32", "1060439283"))  # 0x3f3504f3, sqrt(1/2)
        e = i.rvv("vsra", shifted, self.w.i64(23))
        m = i.rvv("vsub", bits, i.rvv("vsll", e, self.w.i64(23)))
        exponent = self.to_float(e)
        exponent = self.merge(tiny, self.rvv("vfsub", exponent, self.f(23.0), frm=True), exponent)
        return self.w.let(self.v, f"bitcast {m} to {self.v}"), exponent

    def _log_parts(self, x: Val) -> tuple[Val, Val, Val]:
        """(f = m - 1, log(1 + f) - f, exponent)."""
        m, e = self._mantissa(x)
        f = self.rvv("vfsub", m, self.f(1.0), frm=True)
        z = self.rvv("vfmul", f, f, frm=True)
        poly = self.horner(f, [7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
                               -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1])
        y = self.rvv("vfmul", self.rvv("vfmul", poly, f, frm=True), z, frm=True)
        return f, self.fma(z, self.f(-0.5), y), e

    def _log_edges(self, x: Val, out: Val) -> Val:
        inf = self.f(float("inf"))
        out = self.merge(self.compare("eq", x, inf), inf, out)
        out = self.merge(self.compare("eq", x, self.f(0.0)), self.f(float("-inf")), out)
        return self.merge(self.compare("lt", x, self.f(0.0)), self.f(float("nan")), self.keep_nan(x, out))

    def log(self, x: Val) -> Val:
        f, y, e = self._log_parts(x)
        y = self.fma(e, self.f(-2.12194440e-4), y)
        return self._log_edges(x, self.fma(e, self.f(0.693359375), self.rvv("vfadd", f, y, frm=True)))

    def log2(self, x: Val) -> Val:
        f, y, e = self._log_parts(x)
        low = self.fma(y, self.f(1.4426950408889634), self.rvv("vfmul", f, self.f(0.44269504088896340), frm=True))
        return self._log_edges(x, self.rvv("vfadd", e, self.rvv("vfadd", low, f, frm=True), frm=True))

    def erf(self, x: Val) -> Val:
        t, s = self.abs(x), self.rvv("vfmul", x, x, frm=True)
        big = self.fma(self.splat(self.f(-1.72853470e-5)), t, self.f(3.83197126e-4))
        u = self.fma(self.splat(self.f(-3.88396438e-3)), t, self.f(2.42546219e-2))
        big = self.fma(big, s, u)
        for c in (-1.06777877e-1, -6.34846687e-1, -1.28717512e-1):
            big = self.fma(big, t, self.f(c))
        big = self.fma(big, t, self.neg(t))
        big = self.rvv("vfrsub", self.middle_exp(big), self.f(1.0), frm=True)
        big = self.rvv("vfsgnj", big, x)
        small = self.horner(s, [-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1])
        small = self.fma(small, x, x)
        return self.keep_nan(x, self.merge(self.compare("gt", t, self.f(0.927734375)), big, small))

    def tanh(self, x: Val) -> Val:
        t = self.abs(x)
        e = self.middle_exp(self.rvv("vfmul", t, self.f(2.0), frm=True))
        big = self.rvv("vfrdiv", self.rvv("vfadd", e, self.f(1.0), frm=True), self.f(-2.0), frm=True)
        big = self.rvv("vfsgnj", self.rvv("vfadd", big, self.f(1.0), frm=True), x)
        s = self.rvv("vfmul", x, x, frm=True)
        small = self.horner(s, [1.57394409e-2, -5.23025580e-2, 1.33152470e-1, -3.33327681e-1, 0.0])
        small = self.fma(small, x, x)
        return self.keep_nan(x, self.merge(self.compare("gt", t, self.f(0.55)), big, small))

    def floor(self, x: Val) -> Val:
        """Truncated, and one less where that is above x: no rounding mode is changed."""
        t = self.to_float(self.w.rvv("vfcvt.rtz.x.f.v", self.v.of("i32"), [x], self.vl, mangle=[self.v.mangled]))
        return self._rounded(x, self.merge(self.compare("gt", t, x), self.rvv("vfsub", t, self.f(1.0), frm=True), t))

    def round(self, x: Val) -> Val:
        return self._rounded(x, self.to_float(self.to_int(x)))

    def _rounded(self, x: Val, y: Val) -> Val:
        """The integer y where |x| < 2^23 (with the sign of x, for zeros), x itself beyond (it is an integer, inf or NaN)."""
        return self.merge(self.compare("lt", self.abs(x), self.f(8388608.0)), self.rvv("vfsgnj", y, x), x)

    # -- conversions
    def cast(self, x: Val, src: DType, dst: DType, nearest: bool = False) -> Val:
        """x as dst; from f32 to an integer towards zero, or to the nearest."""
        w = self.w
        if src == dst:
            return x
        v = x.vec
        assert v is not None
        if {src, dst} & SMALL:
            return self._small_cast(x, src, dst)
        to = v.of(SCALAR[dst])
        f32 = v.of("float")
        if dst == DType.i1:
            zero = Val("float", "0.0") if src.is_float else Val(v.elem, "0")
            y = self.cast(x, src, DType.f32) if src in (DType.f16, DType.bf16) else x
            return self.at(y.vec or v).compare("ne", y, zero)
        if src == DType.i1:
            mid = DType.i32 if dst.is_float else dst
            ints = self.at(v.of(SCALAR[mid]))
            y = ints.merge(x, Val(ints.v.elem, "1"), ints.splat(Val(ints.v.elem, "0")))
            return self.cast(y, mid, dst)
        if src.is_float and dst.is_float:
            if src == DType.f32 and dst in (DType.f16, DType.bf16):
                return w.rvv("vfncvt.f.f.w" if dst == DType.f16 else "vfncvtbf16.f.f.w", to, [x], self.vl, frm=True, mangle=[v.mangled])
            if dst == DType.f32 and src in (DType.f16, DType.bf16):
                return w.rvv("vfwcvt.f.f.v" if src == DType.f16 else "vfwcvtbf16.f.f.v", to, [x], self.vl, mangle=[v.mangled])
            if {src, dst} == {DType.f16, DType.bf16}:
                return self.cast(self.cast(x, src, DType.f32), DType.f32, dst)
            raise AssertionError(f"no vector conversion {src} -> {dst}")
        if src.is_float:
            y = self.cast(x, src, DType.f32) if src != DType.f32 else x
            if dst is DType.i64:
                return w.rvv("vfwcvt.rtz.x.f.v", to, [y], self.vl, mangle=[f32.mangled])
            return self._to_int(y, dst, nearest)
        if dst.is_float:
            if (src, dst) == (DType.i8, DType.f16):
                return w.rvv("vfwcvt.f.x.v", to, [x], self.vl, mangle=[v.mangled])
            if src is DType.i64:
                y = w.rvv("vfncvt.f.x.w", f32, [x], self.vl, frm=True, mangle=[v.mangled])
            elif src.bits < 32:
                n = self.cast(x, src, DType.i16)
                y = w.rvv("vfwcvt.f.x.v", f32, [n], self.vl, mangle=[v.of("i16").mangled])
            else:
                y = w.rvv("vfcvt.f.x.v", f32, [x], self.vl, frm=True, mangle=[v.mangled])
            return self.cast(y, DType.f32, dst)
        if dst.bits > src.bits:
            return w.rvv("vzext" if src.kind == "u" else "vsext", to, [x], self.vl, mangle=[v.mangled])
        while src.bits > dst.bits:
            half = {64: DType.i32, 32: DType.i16, 16: DType.i8}[src.bits]
            assert x.vec is not None
            x = w.rvv("vnsrl", v.of(SCALAR[half]), [x, w.i64(0)], self.vl, mangle=[x.vec.mangled, "i64"])
            src = half
        return x

    def _to_int(self, x: Val, dst: DType, nearest: bool) -> Val:
        """f32 to the integers dst has; it saturates, and NaN gives the largest."""
        assert x.vec is not None
        small, u = dst.bits < 32, "u" if dst.kind == "u" else ""
        to = x.vec.of("i16" if small else "i32")
        name = f"{'vfncvt' if small else 'vfcvt'}{'' if nearest else '.rtz'}.x{u}.f.{'w' if small else 'v'}"
        n = self.w.rvv(name, to, [x], self.vl, frm=nearest, mangle=[x.vec.mangled])
        if dst.bits != 8:
            return n
        ints = Lanes(self.w, to, self.vl, self.has_exp, bool(u))
        n = ints.rvv(ints.signed("vmin"), n, Val("i16", "255" if u else "127"))
        return self.cast(n if u else ints.rvv("vmax", n, Val("i16", "-128")), DType.i16, dst)

    def _small_cast(self, x: Val, src: DType, dst: DType) -> Val:
        """To or from 8-bit floats and 4-bit integers, by way of f16, f32 and i8."""
        from rvgpu.codegen_rvgpu.llvm_small import f32_to_fp8, fp8_to_f16, signed_nibbles

        assert x.vec is not None
        if src in FP8:
            return self.cast(fp8_to_f16(self.at(x.vec), x, src), DType.f16, dst)
        if src == DType.i4:
            return self.cast(x, DType.i8, dst)
        if dst in FP8:
            y = self.cast(x, src, DType.f32)
            return f32_to_fp8(self.at(x.vec.of("float")), y, dst)
        if src.is_float:  # saturates
            ints = self.at(x.vec.of("i8"))
            y = self.cast(x, src, DType.i8)
            return ints.rvv("vmin", ints.rvv("vmax", y, Val("i8", "-8")), Val("i8", "7"))
        return signed_nibbles(self.at(x.vec.of("i8")), self.cast(x, src, DType.i8))

    def reduce(self, kind: str, x: Val) -> Val:
        """Across lanes; sums in the tree of vfredusum, which our simulator fixes. f16 and bf16 (maxima and minima: exact) in f32."""
        v = self.v
        if v.elem in ("half", "bfloat"):
            small, wide = {"half": DType.f16, "bfloat": DType.bf16}[v.elem], self.at(v.of("float"))
            return self.w.let(v.elem, f"fptrunc {wide.reduce(kind, wide.cast(x, small, DType.f32))} to {v.elem}")
        bits = {"float": 32, "double": 64}.get(v.elem) or int(v.elem[1:])
        one = Lanes(self.w, Vec(64 // bits, v.elem), self.w.i64(1), self.has_exp)
        if v.elem in FLOATS:
            nothing = self.f({"sum": 0.0, "max": float("-inf"), "min": float("inf")}[kind])
            name = {"sum": "vfredusum", "max": "vfredmax", "min": "vfredmin"}[kind]
        else:
            low, high = (0, -1) if self.unsigned else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
            nothing = Val(v.elem, str({"sum": 0, "max": low, "min": high}[kind]))
            name = "vredsum" if kind == "sum" else self.signed(f"vred{kind}")
        frm = [Val("i64", "7")] if name == "vfredusum" else []
        args = [self.w.poison(one.v), x, one.splat(nothing), *frm, self.vl]
        out = self.w.let(v.elem, f"extractelement {self.w.call(one.v, f'llvm.riscv.{name}.{one.v.mangled}.{v.mangled}.i64', args)}, i64 0")
        # of no lanes the instruction writes nothing; tied to its destination, the first value would be made anew each time
        return self.w.let(v.elem, f"select i1 {self.w.let('i1', f'icmp eq {self.vl}, 0').text}, {nothing}, {out}")
