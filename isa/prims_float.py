"""Primitives on floating-point bit patterns of width `w` (16, 32, 64; BF16 = -16), and the matrix unit's sums (isa/prims.py).

They round to nearest even and return canonical NaNs. The two bodies of each stand together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from rvgpu.isa.prims import BF16, FTYPE, M64, NAN, Let, ld32, ld64, prim, signed_64, st32, st64


# -- floating point on bit patterns
def _to_float(let: Let, x: str, w: int) -> str:
    """The value as an LLVM float: bf16 widens to f32 exactly."""
    if w == BF16:
        low = let(f"trunc i64 {x} to i32")
        return let(f"bitcast i32 {let(f'shl i32 {low}, 16')} to float")
    bits = abs(w)
    y = x if bits == 64 else let(f"trunc i64 {x} to i{bits}")
    return let(f"bitcast i{bits} {y} to {FTYPE[w]}")


def _from_float(let: Let, x: str, w: int) -> str:
    """The bit pattern with NaN made canonical."""
    t = FTYPE[w]
    y = let(f"bitcast {t} {x} to i{w}")
    y = let(f"select i1 {let(f'fcmp uno {t} {x}, {x}')}, i{w} {NAN[w]}, i{w} {y}")
    return y if w == 64 else let(f"zext i{w} {y} to i64")


def _arith(op: str) -> Callable[..., str]:
    def llvm(let: Let, emit: Any, dec: Any, a: str, b: str, w: str) -> str:
        n = int(w)
        return _from_float(let, let(f"{op} {FTYPE[n]} {_to_float(let, a, n)}, {_to_float(let, b, n)}"), n)
    return llvm


def as_float(x: int, w: int) -> Any:
    """The NumPy scalar of a bit pattern."""
    if w == BF16:
        return np.uint32((x & 0xFFFF) << 16).view(np.float32)
    bits: Any = {16: np.uint16, 32: np.uint32, 64: np.uint64}[w](x & ((1 << w) - 1))  # type: ignore[operator]
    return bits.view({16: np.float16, 32: np.float32, 64: np.float64}[w])


def of_float(x: Any, w: int) -> int:
    if np.isnan(x):
        return NAN[w]
    return signed_64(int(x.view({16: np.uint16, 32: np.uint32, 64: np.uint64}[w])))


def _numpy(fn: Callable[[Any, Any], Any]) -> Callable[[int, int, int], int]:
    def run(a: int, b: int, w: int) -> int:
        with np.errstate(all="ignore"):
            return of_float(fn(as_float(a, w), as_float(b, w)), w)
    return run


@prim(_arith("fadd"))
def f_add(a: int, b: int, w: int) -> int:
    return _numpy(lambda x, y: x + y)(a, b, w)


@prim(_arith("fsub"))
def f_sub(a: int, b: int, w: int) -> int:
    return _numpy(lambda x, y: x - y)(a, b, w)


@prim(_arith("fmul"))
def f_mul(a: int, b: int, w: int) -> int:
    return _numpy(lambda x, y: x * y)(a, b, w)


@prim(_arith("fdiv"))
def f_div(a: int, b: int, w: int) -> int:
    return _numpy(lambda x, y: x / y)(a, b, w)


def _sqrt(let: Let, emit: Any, dec: Any, a: str, w: str) -> str:
    n = int(w)
    s = {16: "f16", 32: "f32", 64: "f64"}[n]
    dec(f"declare {FTYPE[n]} @llvm.sqrt.{s}({FTYPE[n]})")
    return _from_float(let, let(f"call {FTYPE[n]} @llvm.sqrt.{s}({FTYPE[n]} {_to_float(let, a, n)})"), n)


@prim(_sqrt)
def f_sqrt(a: int, w: int) -> int:
    with np.errstate(all="ignore"):
        return of_float(np.sqrt(as_float(a, w)), w)


def _fma(let: Let, emit: Any, dec: Any, a: str, b: str, c: str, w: str) -> str:
    n = int(w)
    s = {16: "f16", 32: "f32", 64: "f64"}[n]
    t = FTYPE[n]
    if n == 16:  # in f64, where everything that can decide the f16 rounding fits, then to f16 through a rounding to odd
        dec("declare double @llvm.fma.f64(double, double, double)")
        wide = [let(f"fpext half {_to_float(let, v, 16)} to double") for v in (a, b, c)]
        y = let(f"call double @llvm.fma.f64(double {wide[0]}, double {wide[1]}, double {wide[2]})")
        return _from_float(let, let(f"fptrunc float {_odd_float(let, y)} to half"), 16)
    dec(f"declare {t} @llvm.fma.{s}({t}, {t}, {t})")
    x, y, z = (_to_float(let, v, n) for v in (a, b, c))
    return _from_float(let, let(f"call {t} @llvm.fma.{s}({t} {x}, {t} {y}, {t} {z})"), n)


@prim(_fma)
def f_fma(a: int, b: int, c: int, w: int) -> int:
    """a*b + c with one rounding (exact rational arithmetic in CPython)."""
    x, y, z = (as_float(v, w) for v in (a, b, c))
    with np.errstate(all="ignore"):
        if not (np.isfinite(x) and np.isfinite(y) and np.isfinite(z)):
            if np.isfinite(x) and np.isfinite(y):
                return of_float(z + z, w)  # a finite product, whatever its size, leaves an infinity or NaN as it is
            return of_float(x * y + z, w)
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        if exact == 0:
            return of_float(x * y + z, w)
        return of_float(round_fraction(exact, w), w)


def round_fraction(value: Fraction, w: int) -> Any:
    """To nearest even in format w."""
    digits, emin, emax = {16: (11, -14, 15), 32: (24, -126, 127), 64: (53, -1022, 1023)}[w]
    sign, v = (-1, -value) if value < 0 else (1, value)
    e = max(v.numerator.bit_length() - v.denominator.bit_length(), emin)
    if v < Fraction(2) ** e:
        e = max(e - 1, emin)
    elif v >= Fraction(2) ** (e + 1):
        e += 1
    ulp = Fraction(2) ** (e - digits + 1)
    n = round(v / ulp)
    t = {16: np.float16, 32: np.float32, 64: np.float64}[w]
    result = Fraction(n) * ulp
    if result >= Fraction(2) ** (emax + 1):
        return t(sign * math.inf)
    return t(sign * float(result))


def _plain(op: str) -> Callable[..., str]:
    def llvm(let: Let, emit: Any, dec: Any, *args: str) -> str:
        values = [_to_float(let, a, 64) for a in args]
        if op == "fma":
            dec("declare double @llvm.fma.f64(double, double, double)")
            y = let(f"call double @llvm.fma.f64({', '.join(f'double {v}' for v in values)})")
        else:
            y = let(f"{op} double {', '.join(values)}")
        return let(f"bitcast double {y} to i64")
    return llvm


@prim(_plain("fadd"))
def d_add(a: int, b: int) -> int:
    """a + b of f64 patterns whose sum is a number: without the step that makes NaNs canonical. So `d_sub`, `d_mul`, `d_fma`."""
    return f_add(a, b, 64)


@prim(_plain("fsub"))
def d_sub(a: int, b: int) -> int:
    return f_sub(a, b, 64)


@prim(_plain("fmul"))
def d_mul(a: int, b: int) -> int:
    return f_mul(a, b, 64)


@prim(_plain("fma"))
def d_fma(a: int, b: int, c: int) -> int:
    return f_fma(a, b, c, 64)


def _fcmp(pred: str) -> Callable[..., str]:
    def llvm(let: Let, emit: Any, dec: Any, a: str, b: str, w: str) -> str:
        n = int(w)
        t = "float" if n == BF16 else FTYPE[n]
        return let(f"zext i1 {let(f'fcmp {pred} {t} {_to_float(let, a, n)}, {_to_float(let, b, n)}')} to i64")
    return llvm


@prim(_fcmp("olt"))
def f_lt(a: int, b: int, w: int) -> int:
    return int(as_float(a, w) < as_float(b, w))


@prim(_fcmp("ole"))
def f_le(a: int, b: int, w: int) -> int:
    return int(as_float(a, w) <= as_float(b, w))


@prim(_fcmp("oeq"))
def f_eq(a: int, b: int, w: int) -> int:
    return int(as_float(a, w) == as_float(b, w))


@prim(_fcmp("uno"))
def f_unordered(a: int, b: int, w: int) -> int:
    return int(np.isnan(as_float(a, w)) or np.isnan(as_float(b, w)))


def _odd_float(let: Let, y: str) -> str:
    """A double rounded to odd in f32: a second rounding to f16 then gives the correctly rounded result (and needs no library call)."""
    r = let(f"fptrunc double {y} to float")
    back = let(f"fpext float {r} to double")
    bits = let(f"bitcast float {r} to i32")
    same = let(f"fcmp ueq double {back}, {y}")
    above = let(f"xor i1 {let(f'fcmp ogt double {back}, {y}')}, {let(f'fcmp olt double {y}, 0.0')}")
    down = let(f"sub i32 {bits}, {let(f'zext i1 {above} to i32')}")
    odd = let(f"or i32 {down}, 1")
    return let(f"bitcast i32 {let(f'select i1 {same}, i32 {bits}, i32 {odd}')} to float")


def _convert(let: Let, emit: Any, dec: Any, x: str, src: str, dst: str) -> str:
    s, d = int(src), int(dst)
    y = _to_float(let, x, s)
    t = "float" if s == BF16 else FTYPE[s]
    if d == BF16:
        assert s == 32
        bits = let(f"trunc i64 {x} to i32")
        odd = let(f"and i32 {let(f'lshr i32 {bits}, 16')}, 1")
        up = let(f"add i32 {bits}, {let(f'add i32 {odd}, 32767')}")
        r = let(f"lshr i32 {up}, 16")
        r = let(f"select i1 {let(f'fcmp uno float {y}, {y}')}, i32 {NAN[BF16]}, i32 {r}")
        return let(f"zext i32 {r} to i64")
    if t == FTYPE[d]:
        return _from_float(let, y, d)
    if s == 64 and d == 16:
        y = _odd_float(let, y)
        t = "float"
    wider = d > (32 if s == BF16 else s)
    return _from_float(let, let(f"{'fpext' if wider else 'fptrunc'} {t} {y} to {FTYPE[d]}"), d)


@prim(_convert)
def f_cvt(x: int, src: int, dst: int) -> int:
    v = as_float(x, src)
    if np.isnan(v):
        return NAN[dst]
    with np.errstate(all="ignore"):
        if dst == BF16:
            bits = int(v.view(np.uint32))
            return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF
        return of_float(v.astype({16: np.float16, 32: np.float32, 64: np.float64}[dst]), dst)


ROUND = {0: "roundeven", 1: "trunc", 2: "floor", 3: "ceil", 4: "round"}


def _to_int(let: Let, emit: Any, dec: Any, x: str, w: str, iw: str, signed: str, rm: str) -> str:
    n, bits, s = int(w), int(iw), int(signed)
    y = _to_float(let, x, n)
    t = FTYPE[n]
    short = {16: "f16", 32: "f32", 64: "f64"}[n]
    name = f"llvm.{ROUND[int(rm)]}.{short}"
    dec(f"declare {t} @{name}({t})")
    r = let(f"call {t} @{name}({t} {y})")
    sat = f"llvm.fpto{'s' if s else 'u'}i.sat.i{bits}.{short}"
    dec(f"declare i{bits} @{sat}({t})")
    i = let(f"call i{bits} @{sat}({t} {r})")
    top = (1 << (bits - 1)) - 1 if s else -1
    i = let(f"select i1 {let(f'fcmp uno {t} {y}, {y}')}, i{bits} {top}, i{bits} {i}")
    return i if bits == 64 else let(f"{'sext' if s else 'zext'} i{bits} {i} to i64")


@prim(_to_int)
def f_to_i(x: int, w: int, iw: int, signed: int, rm: int) -> int:
    """RISC-V's conversion: saturating, NaN gives the maximum. rm: 0 nearest even, 1 to zero, 2 down, 3 up, 4 nearest away."""
    v = as_float(x, w)
    lo, hi = (-(1 << (iw - 1)), (1 << (iw - 1)) - 1) if signed else (0, (1 << iw) - 1)
    if np.isnan(v) or v == np.inf:
        return signed_64(hi) if signed or iw < 64 else -1
    if v == -np.inf:
        return lo
    f = Fraction(float(v))
    away = math.floor(abs(f) + Fraction(1, 2)) * (1 if f >= 0 else -1)
    n = {0: round(f), 1: math.trunc(f), 2: math.floor(f), 3: math.ceil(f), 4: away}[rm]
    return signed_64(min(max(n, lo), hi))


def _of_int(let: Let, emit: Any, dec: Any, x: str, signed: str, w: str) -> str:
    n = int(w)
    op = "sitofp" if int(signed) else "uitofp"
    if n == 16:  # exact in f32 below 2^24, and infinite in f16 above: one rounding. From i32, which needs no library call.
        low, high = ("smax", "smin") if int(signed) else ("umin", "umin")
        for name in (low, high):
            dec(f"declare i64 @llvm.{name}.i64(i64, i64)")
        y = let(f"call i64 @llvm.{high}.i64(i64 {x}, i64 {1 << 30})")
        y = let(f"call i64 @llvm.smax.i64(i64 {y}, i64 {-(1 << 30)})") if int(signed) else y
        wide = let(f"sitofp i32 {let(f'trunc i64 {y} to i32')} to float")
        return _from_float(let, let(f"fptrunc float {wide} to half"), n)
    return _from_float(let, let(f"{op} i64 {x} to {FTYPE[n]}"), n)


@prim(_of_int)
def i_to_f(x: int, signed: int, w: int) -> int:
    """x is the integer, already extended to 64 bits."""
    v = x if signed else x & M64
    return 0 if v == 0 else of_float(round_fraction(Fraction(v), w), w)


# -- the context of exact arithmetic (isa/softfloat.py): two words, the rounding mode in force and the flags raised
CONTEXT = [0]  # its host address in CPython, 0 for none; compiled functions pass it on unasked (sim/translate.py)


@prim(lambda let, emit, dec, a: emit(f"%context = inttoptr i64 {a} to ptr"))
def f_context(a: int) -> None:
    """Names the context of everything that is called from here on, until `f_leave`."""
    CONTEXT[0] = a


@prim(lambda let, emit, dec: None)
def f_leave() -> None:
    CONTEXT[0] = 0


@prim(lambda let, emit, dec: let("load i64, ptr %context"))
def f_mode() -> int:
    """The rounding mode; 0 (nearest even) without a context."""
    return ld64(CONTEXT[0]) if CONTEXT[0] else 0


@prim(lambda let, emit, dec: let(f"load i64, ptr {let('getelementptr i8, ptr %context, i64 8')}"))
def f_flags() -> int:
    """The exception flags accrued; 0 without a context."""
    return ld64(CONTEXT[0] + 8) if CONTEXT[0] else 0


def _raise(let: Let, emit: Any, dec: Any, flags: str) -> None:
    at = let("getelementptr i8, ptr %context, i64 8")
    old = let(f"load i64, ptr {at}")
    emit(f"store i64 {let(f'or i64 {old}, {flags}')}, ptr {at}")


@prim(_raise)
def f_raise(flags: int) -> None:
    """Accrues exception flags, if there is a context."""
    if CONTEXT[0]:
        st64(CONTEXT[0] + 8, ld64(CONTEXT[0] + 8) | flags)


def _mm16(let: Let, emit: Any, dec: Any, acc: str, *operands: str) -> str:
    dec("declare float @llvm.fma.f32(float, float, float)")
    c = _to_float(let, acc, 32)
    for n in range(0, len(operands), 4):
        x0, y0, x1, y1 = (_to_float(let, v, 32) for v in operands[n:n + 4])
        low = let(f"fmul float {x1}, {y1}")
        pair = let(f"call float @llvm.fma.f32(float {x0}, float {y0}, float {low})")
        c = let(f"fadd float {c}, {pair}")
    return _from_float(let, c, 32)  # (a NaN stays one from step to step)


@prim(_mm16)
def mm_pairs(acc: int, *operands: int) -> int:
    """acc = RN(acc + fma(a0, b0, RN(a1*b1))) on f32 patterns, for each four (a0, b0, a1, b1): the unit's rounding for two 16-bit products."""
    for n in range(0, len(operands), 4):
        a0, b0, a1, b1 = operands[n:n + 4]
        acc = f_add(acc, f_fma(a0, b0, f_mul(a1, b1, 32), 32), 32)
    return acc


def _mm_block(let: Let, emit: Any, dec: Any, c0: str, c1: str, a: str, b: str, pitch: str, steps: str) -> None:
    """Two rows of 32 columns: four vectors of sums, so that the additions of one do not wait for those of another."""
    t = "<16 x float>"
    dec(f"declare {t} @llvm.fma.v16f32({t}, {t}, {t})")
    sums, head, body, tail = ((0, 0), (0, 64), (1, 0), (1, 64)), [], [], []
    for n, (row, at) in enumerate(sums):
        head += [f"  %p{n} = getelementptr i8, ptr %c{row}, i64 {at}", f"  %first{n} = load {t}, ptr %p{n}, align 4"]
        body.append(f"  %sum{n} = phi {t} [ %first{n}, %entry ], [ %next{n}, %body ]")
    body += ["  %s = phi i64 [ 0, %entry ], [ %s1, %body ]", "  %at = phi i64 [ 0, %entry ], [ %at2, %body ]", "  %at1 = add i64 %at, %pitch",
             "  %at2 = add i64 %at1, %pitch"]
    for k, place in ((0, "%at"), (1, "%at1")):
        for half in (0, 1):
            body += [f"  %o{k}{half} = add i64 {place}, {64 * half}", f"  %q{k}{half} = getelementptr i8, ptr %b, i64 %o{k}{half}",
                     f"  %b{k}{half} = load {t}, ptr %q{k}{half}, align 4"]
        for row in (0, 1):
            body += [f"  %i{k}{row} = add i64 {place}, {4 * row}", f"  %r{k}{row} = getelementptr i8, ptr %a, i64 %i{k}{row}",
                     f"  %x{k}{row} = load float, ptr %r{k}{row}, align 4", f"  %y{k}{row} = insertelement {t} poison, float %x{k}{row}, i64 0",
                     f"  %a{k}{row} = shufflevector {t} %y{k}{row}, {t} poison, <16 x i32> zeroinitializer"]
    for n, (row, at) in enumerate(sums):
        half = at // 64
        body += [f"  %low{n} = fmul {t} %a1{row}, %b1{half}",
                 f"  %pair{n} = call {t} @llvm.fma.v16f32({t} %a0{row}, {t} %b0{half}, {t} %low{n})", f"  %next{n} = fadd {t} %sum{n}, %pair{n}"]
        tail += [f"  %nan{n} = fcmp uno {t} %next{n}, %next{n}",
                 f"  %out{n} = select <16 x i1> %nan{n}, {t} bitcast (<16 x i32> splat (i32 {NAN[32]}) to {t}), {t} %next{n}",
                 f"  store {t} %out{n}, ptr %p{n}, align 4"]
    dec("\n".join(["define internal void @rv_mm_block(ptr %c0, ptr %c1, ptr %a, ptr %b, i64 %pitch, i64 %steps) nounwind {", "entry:", *head,
                   "  br label %body", "body:", *body, "  %s1 = add i64 %s, 1", "  %more = icmp slt i64 %s1, %steps",
                   "  br i1 %more, label %body, label %done", "done:", *tail, "  ret void", "}"]))
    pointers = ", ".join(f"ptr {let(f'inttoptr i64 {x} to ptr')}" for x in (c0, c1, a, b))
    emit(f"call void @rv_mm_block({pointers}, i64 {pitch}, i64 {steps})")


@prim(_mm_block)
def mm_block(c0: int, c1: int, a: int, b: int, pitch: int, steps: int) -> None:
    """Sums of two rows (at c0 and c1) and 32 columns: for each of `steps` (at least one) += a[row] * b[column] for two products, rounded as in
    `mm_pairs`. The first products' operands stand at a and b as f32, the second ones' `pitch` bytes on, the next step's another `pitch` on."""
    for row, c in enumerate((c0, c1)):
        for column in range(32):
            acc = ld32(c + 4 * column)
            for s in range(steps):
                x, y = a + 2 * s * pitch + 4 * row, b + 2 * s * pitch + 4 * column
                acc = mm_pairs(acc, ld32(x), ld32(y), ld32(x + pitch), ld32(y + pitch))
            st32(c + 4 * column, acc)


def _mm32(let: Let, emit: Any, dec: Any, acc: str, a: str, b: str) -> str:
    c, x, y = (_to_float(let, v, 32) for v in (acc, a, b))
    prod = let(f"fmul float {x}, {y}")
    return _from_float(let, let(f"fadd float {c}, {prod}"), 32)


@prim(_mm32)
def mm_one(acc: int, a: int, b: int) -> int:
    """RN(acc + RN(a*b)) on f32 patterns."""
    return f_add(acc, f_mul(a, b, 32), 32)
