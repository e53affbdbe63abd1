"""Primitives of the restricted Python: each has a CPython body and an LLVM body, tested equal (long: the two bodies stand together).

Integers are signed 64-bit values; floating point works on bit patterns of width `w` (16, 32, 64; BF16 = -16), rounds to nearest even and
returns canonical NaNs. Memory is addressed by host address.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np

BF16 = -16
M64 = (1 << 64) - 1
FTYPE = {16: "half", 32: "float", 64: "double"}
NAN = {16: 0x7E00, 32: 0x7FC00000, 64: 0x7FF8000000000000, BF16: 0x7FC0}

Let = Callable[[str], str]


@dataclass(frozen=True)
class Prim:
    name: str
    python: Callable[..., Any]
    llvm: Callable[..., str | None]


PRIMS: dict[str, Prim] = {}


F = TypeVar("F", bound=Callable[..., Any])


def prim(llvm: Callable[..., str | None]) -> Callable[[F], F]:
    """Registers a primitive: the decorated function is its CPython body, `llvm` emits the other."""
    def add(fn: F) -> F:
        PRIMS[fn.__name__] = Prim(fn.__name__, fn, llvm)
        return fn
    return add


def _signed(x: int) -> int:
    x &= M64
    return x - (1 << 64) if x >> 63 else x


def apart(fn: F) -> F:
    """Compiled once and called; other functions are compiled into their callers."""
    fn.apart = True  # type: ignore[attr-defined]
    return fn


# -- integers
@prim(lambda let, emit, dec, x: x)
def wrap(x: int) -> int:
    return _signed(x)


@prim(lambda let, emit, dec, a, b: let(f"zext i1 {let(f'icmp ult i64 {a}, {b}')} to i64"))
def ult(a: int, b: int) -> int:
    return int(a & M64 < b & M64)


@prim(lambda let, emit, dec, x, n: let(f"lshr i64 {x}, {n}"))
def lshr(x: int, n: int) -> int:
    return _signed((x & M64) >> n)


@prim(lambda let, emit, dec, x, w: let(f"and i64 {x}, {_signed((1 << int(w)) - 1)}") if int(w) < 64 else x)
def trunc(x: int, w: int) -> int:
    return _signed(x & ((1 << w) - 1))


@prim(lambda let, emit, dec, x, w: let(f"sext i{w} {let(f'trunc i64 {x} to i{w}')} to i64") if int(w) < 64 else x)
def sext(x: int, w: int) -> int:
    x &= (1 << w) - 1
    return x - (1 << w) if x >> (w - 1) else x


def _wide(op: str, ext_a: str, ext_b: str) -> Callable[..., str]:
    def llvm(let: Let, emit: Any, dec: Any, a: str, b: str) -> str:
        p = let(f"{op} i128 {let(f'{ext_a} i64 {a} to i128')}, {let(f'{ext_b} i64 {b} to i128')}")
        return let(f"trunc i128 {let(f'lshr i128 {p}, 64')} to i64")
    return llvm


@prim(_wide("mul", "sext", "sext"))
def mulh(a: int, b: int) -> int:
    return _signed((a * b) >> 64)


@prim(_wide("mul", "zext", "zext"))
def mulhu(a: int, b: int) -> int:
    return _signed(((a & M64) * (b & M64)) >> 64)


@prim(_wide("mul", "sext", "zext"))
def mulhsu(a: int, b: int) -> int:
    return _signed((a * (b & M64)) >> 64)


@prim(lambda let, emit, dec, a, b: let(f"udiv i64 {a}, {b}"))
def udiv(a: int, b: int) -> int:
    return _signed((a & M64) // (b & M64))


@prim(lambda let, emit, dec, a, b: let(f"urem i64 {a}, {b}"))
def urem(a: int, b: int) -> int:
    return _signed((a & M64) % (b & M64))


@prim(lambda let, emit, dec, a, b: let(f"sdiv i64 {a}, {b}"))
def sdiv(a: int, b: int) -> int:
    q = abs(a) // abs(b)
    return _signed(-q if (a < 0) != (b < 0) else q)


@prim(lambda let, emit, dec, a, b: let(f"srem i64 {a}, {b}"))
def srem(a: int, b: int) -> int:
    r = abs(a) % abs(b)
    return -r if a < 0 else r


def _bits(name: str, flag: bool) -> Callable[..., str]:
    def llvm(let: Let, emit: Any, dec: Any, x: str) -> str:
        dec(f"declare i64 @llvm.{name}.i64(i64{', i1' if flag else ''})")
        return let(f"call i64 @llvm.{name}.i64(i64 {x}{', i1 false' if flag else ''})")
    return llvm


@prim(_bits("ctlz", True))
def clz(x: int) -> int:
    return 64 - (x & M64).bit_length()


@prim(_bits("cttz", True))
def ctz(x: int) -> int:
    x &= M64
    return (x & -x).bit_length() - 1 if x else 64


@prim(_bits("ctpop", False))
def cpop(x: int) -> int:
    return (x & M64).bit_count()


@prim(_bits("bswap", False))
def bswap(x: int) -> int:
    return _signed(int.from_bytes((x & M64).to_bytes(8, "little"), "big"))


def _minmax(name: str) -> Callable[..., str]:
    def llvm(let: Let, emit: Any, dec: Any, a: str, b: str) -> str:
        dec(f"declare i64 @llvm.{name}.i64(i64, i64)")
        return let(f"call i64 @llvm.{name}.i64(i64 {a}, i64 {b})")
    return llvm


@prim(_minmax("smin"))
def imin(a: int, b: int) -> int:
    return min(a, b)


@prim(_minmax("smax"))
def imax(a: int, b: int) -> int:
    return max(a, b)


@prim(_minmax("umin"))
def umin(a: int, b: int) -> int:
    return a if (a & M64) < (b & M64) else b


@prim(_minmax("umax"))
def umax(a: int, b: int) -> int:
    return a if (a & M64) > (b & M64) else b


@prim(lambda let, emit, dec, c, a, b: let(f"select i1 {let(f'icmp ne i64 {c}, 0')}, i64 {a}, i64 {b}"))
def sel(c: int, a: int, b: int) -> int:
    """c ? a : b without a branch."""
    return a if c else b


# -- memory
def _pointer(let: Let, a: str) -> str:
    """An address, or a pointer that the translator has made already ("ptr ..."): base and offset kept apart, LLVM vectorises loops over them."""
    return a[4:] if a.startswith("ptr ") else let(f"inttoptr i64 {a} to ptr")


def _load(bits: int, ext: str) -> Callable[..., str]:
    def llvm(let: Let, emit: Any, dec: Any, a: str) -> str:
        x = let(f"load i{bits}, ptr {_pointer(let, a)}, align 1")
        return x if bits == 64 else let(f"{ext} i{bits} {x} to i64")
    return llvm


def _store(bits: int) -> Callable[..., None]:
    def llvm(let: Let, emit: Any, dec: Any, a: str, x: str) -> None:
        p = _pointer(let, a)
        emit(f"store i{bits} {x if bits == 64 else let(f'trunc i64 {x} to i{bits}')}, ptr {p}, align 1")
    return llvm


@prim(_load(8, "zext"))
def ld8(a: int) -> int:
    return ctypes.c_uint8.from_address(a).value


@prim(_load(16, "zext"))
def ld16(a: int) -> int:
    return ctypes.c_uint16.from_address(a).value


@prim(_load(32, "zext"))
def ld32(a: int) -> int:
    return ctypes.c_uint32.from_address(a).value


@prim(_load(64, "zext"))
def ld64(a: int) -> int:
    return ctypes.c_int64.from_address(a).value


@prim(_store(8))
def st8(a: int, x: int) -> None:
    ctypes.c_uint8.from_address(a).value = x & 0xFF


@prim(_store(16))
def st16(a: int, x: int) -> None:
    ctypes.c_uint16.from_address(a).value = x & 0xFFFF


@prim(_store(32))
def st32(a: int, x: int) -> None:
    ctypes.c_uint32.from_address(a).value = x & 0xFFFFFFFF


@prim(_store(64))
def st64(a: int, x: int) -> None:
    ctypes.c_uint64.from_address(a).value = x & M64


# Loops of our own instead of calls into the C library: the JIT's linker does not always resolve those. "no-builtins" keeps LLVM from
# turning them back into calls; it vectorises them.
_COPY = """define internal void @rv_copy(ptr %d, ptr %s, i64 %n) "no-builtins" {
entry:
  %none = icmp slt i64 %n, 1
  br i1 %none, label %done, label %body
body:
  %i = phi i64 [ 0, %entry ], [ %j, %body ]
  %from = getelementptr i8, ptr %s, i64 %i
  %to = getelementptr i8, ptr %d, i64 %i
  %x = load i8, ptr %from
  store i8 %x, ptr %to
  %j = add nsw i64 %i, 1
  %more = icmp slt i64 %j, %n
  br i1 %more, label %body, label %done
done:
  ret void
}"""
_ZERO = """define internal void @rv_zero(ptr %d, i64 %n) "no-builtins" {
entry:
  %none = icmp slt i64 %n, 1
  br i1 %none, label %done, label %body
body:
  %i = phi i64 [ 0, %entry ], [ %j, %body ]
  %to = getelementptr i8, ptr %d, i64 %i
  store i8 0, ptr %to
  %j = add nsw i64 %i, 1
  %more = icmp slt i64 %j, %n
  br i1 %more, label %body, label %done
done:
  ret void
}"""


def _copy(let: Let, emit: Any, dec: Any, d: str, s: str, n: str) -> None:
    dec(_COPY)
    emit(f"call void @rv_copy(ptr {let(f'inttoptr i64 {d} to ptr')}, ptr {let(f'inttoptr i64 {s} to ptr')}, i64 {n})")


@prim(_copy)
def copy(d: int, s: int, n: int) -> None:
    """n bytes from s to d in ascending order (what overlaps ahead of s repeats)."""
    if s < d < s + n:
        for i in range(n):
            st8(d + i, ld8(s + i))
    else:
        ctypes.memmove(d, s, max(0, n))


def _fill(let: Let, emit: Any, dec: Any, d: str, n: str) -> None:
    dec(_ZERO)
    emit(f"call void @rv_zero(ptr {let(f'inttoptr i64 {d} to ptr')}, i64 {n})")


@prim(_fill)
def zero(d: int, n: int) -> None:
    ctypes.memset(d, 0, max(0, n))


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
    return _signed(int(x.view({16: np.uint16, 32: np.uint32, 64: np.uint64}[w])))


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
        return _signed(hi) if signed or iw < 64 else -1
    if v == -np.inf:
        return lo
    f = Fraction(float(v))
    away = math.floor(abs(f) + Fraction(1, 2)) * (1 if f >= 0 else -1)
    n = {0: round(f), 1: math.trunc(f), 2: math.floor(f), 3: math.ceil(f), 4: away}[rm]
    return _signed(min(max(n, lo), hi))


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


def _way_of(let: Let, emit: Any, dec: Any, p: str, x: str) -> str:
    t = "<16 x i32>"
    dec("declare i32 @llvm.cttz.i32(i32, i1)")
    low = let(f"insertelement {t} poison, i32 {let(f'trunc i64 {x} to i32')}, i64 0")
    wanted = let(f"shufflevector {t} {low}, {t} poison, {t} zeroinitializer")
    found = let(f"icmp eq {t} {let(f'load {t}, ptr {_pointer(let, p)}, align 4')}, {wanted}")
    mask = let(f"zext i16 {let(f'bitcast <16 x i1> {found} to i16')} to i32")
    bits = let(f"or i32 {mask}, 65536")
    return let(f"zext i32 {let(f'call i32 @llvm.cttz.i32(i32 {bits}, i1 true)')} to i64")


@prim(_way_of)
def way_of(p: int, x: int) -> int:
    """Where x stands among the 16 32-bit numbers at p; 16 when it does not."""
    return next((i for i in range(16) if ld32(p + 4 * i) == x & 0xFFFFFFFF), 16)



# -- between host threads
def _await(let: Let, emit: Any, dec: Any, p: str, x: str, idle: str) -> None:
    dec("""define internal void @rv_wait_for(ptr %p, i64 %x, ptr %idle) nounwind {
entry:
  br label %again
again:
  %n = phi i64 [ 0, %entry ], [ %n1, %more ], [ %n1, %rest ]
  %v = load atomic i64, ptr %p acquire, align 8
  %there = icmp sge i64 %v, %x
  br i1 %there, label %done, label %not
not:
  %n1 = add i64 %n, 1
  %low = and i64 %n1, 131071
  %long = icmp eq i64 %low, 0
  br i1 %long, label %rest, label %more
rest:
  %r = call i32 %idle()
  br label %again
more:
  br label %again
done:
  ret void
}""")
    emit(f"call void @rv_wait_for(ptr {let(f'inttoptr i64 {p} to ptr')}, i64 {x}, ptr {let(f'inttoptr i64 {idle} to ptr')})")


@prim(_await)
def wait_for(p: int, x: int, idle: int) -> None:
    """Until another thread has published at least x at p; calls the function at `idle` (sched_yield) now and then. CPython runs one thread."""
    assert ld64(p) >= x


@prim(lambda let, emit, dec, p, x: emit(f"store atomic i64 {x}, ptr {_pointer(let, p)} release, align 8"))
def publish(p: int, x: int) -> None:
    """What this thread wrote before is there for those who see x at p."""
    st64(p, x)


@prim(lambda let, emit, dec, p: let(f"load atomic i64, ptr {_pointer(let, p)} acquire, align 8"))
def observe(p: int) -> int:
    return ld64(p)


# -- groups: n neighbouring 64-bit numbers from p on, in one step where n is 1, 2, 4 or 8
def _group_step(let: Let, dec: Any, k: int, op: str, p: str, x: str) -> str:
    """The code for k numbers at pointer p: returns the greatest (`most`), or stores what becomes of them."""
    t, kind = ("i64", "i64") if k == 1 else (f"<{k} x i64>", f"v{k}i64")
    smax = f"call {t} @llvm.smax.{kind}({t}"
    dec(f"declare {t} @llvm.smax.{kind}({t}, {t})")
    if op == "most":
        old = let(f"load {t}, ptr {p}, align 8")
        if k == 1:
            return old
        dec(f"declare i64 @llvm.vector.reduce.smax.{kind}({t})")
        return let(f"call i64 @llvm.vector.reduce.smax.{kind}({t} {old})")
    if k > 1:
        x = let(f"shufflevector {t} {let(f'insertelement {t} poison, i64 {x}, i64 0')}, {t} poison, <{k} x i32> zeroinitializer")
    if op != "fill":
        old = let(f"load {t}, ptr {p}, align 8")
        if op == "later":
            old = let(f"add {t} {old}, {'1' if k == 1 else 'splat (i64 1)'}")
        x = let(f"{smax} {old}, {t} {x})")
    return f"store {t} {x}, ptr {p}, align 8"


def _group(op: str) -> Callable[..., str]:
    def llvm(let: Let, emit: Any, dec: Any, p: str, n: str, x: str = "0") -> str:
        lines = [f"define internal i64 @rv_{op}(ptr %p, i64 %n, i64 %x) alwaysinline nounwind {{",
                 "  switch i64 %n, label %loop [i64 1, label %n1 i64 2, label %n2 i64 4, label %n4 i64 8, label %n8]"]

        def name(text: str) -> str:
            lines.append(f"  %t{len(lines)} = {text}")
            return lines[-1].split()[0]

        for k in (1, 2, 4, 8):
            lines.append(f"n{k}:")
            out = _group_step(name, dec, k, op, "%p", "%x")
            lines += [f"  ret i64 {out}"] if op == "most" else [f"  {out}", "  ret i64 0"]
        lines += ["loop:", "  %none = icmp slt i64 %n, 1", "  br i1 %none, label %nothing, label %body", "nothing:", "  ret i64 0", "body:",
                  "  %i = phi i64 [ 0, %loop ], [ %j, %body ]", "  %m = phi i64 [ 0, %loop ], [ %next, %body ]",
                  "  %q = getelementptr i64, ptr %p, i64 %i"]
        out = _group_step(name, dec, 1, op, "%q", "%x")
        lines += [f"  %next = call i64 @llvm.smax.i64(i64 %m, i64 {out})"] if op == "most" else [f"  {out}", "  %next = add i64 0, 0"]
        lines += ["  %j = add nsw i64 %i, 1", "  %more = icmp slt i64 %j, %n", "  br i1 %more, label %body, label %done", "done:",
                  "  ret i64 %next", "}"]
        dec("\n".join(lines))
        return let(f"call i64 @rv_{op}(ptr {let(f'inttoptr i64 {p} to ptr')}, i64 {n}, i64 {x})")
    return llvm


@prim(_group("most"))
def most(p: int, n: int) -> int:
    """The greatest of them; 0 for none."""
    return max((ld64(p + 8 * i) for i in range(n)), default=0)


def _most_of(let: Let, emit: Any, dec: Any, p: str, q: str, r: str, n: str) -> str:
    lines = ["define internal i64 @rv_most_of(ptr %p, ptr %q, ptr %r, i64 %n) alwaysinline nounwind {",
             "  switch i64 %n, label %n1 [i64 2, label %n2 i64 4, label %n4 i64 8, label %n8]"]
    for k in (1, 2, 4, 8):
        t, kind = ("i64", "i64") if k == 1 else (f"<{k} x i64>", f"v{k}i64")
        dec(f"declare {t} @llvm.smax.{kind}({t}, {t})")
        lines += [f"n{k}:", *(f"  %{x}{k} = load {t}, ptr %{x}, align 8" for x in "pqr"),
                  f"  %m{k} = call {t} @llvm.smax.{kind}({t} %p{k}, {t} %q{k})", f"  %o{k} = call {t} @llvm.smax.{kind}({t} %m{k}, {t} %r{k})"]
        if k > 1:
            dec(f"declare i64 @llvm.vector.reduce.smax.{kind}({t})")
            lines.append(f"  %x{k} = call i64 @llvm.vector.reduce.smax.{kind}({t} %o{k})")
        lines.append(f"  ret i64 %{'o' if k == 1 else 'x'}{k}")
    dec("\n".join([*lines, "}"]))
    return let(f"call i64 @rv_most_of({', '.join('ptr ' + let(f'inttoptr i64 {x} to ptr') for x in (p, q, r))}, i64 {n})")


@prim(_most_of)
def most_of(p: int, q: int, r: int, n: int) -> int:
    """The greatest of three groups of 1, 2, 4 or 8."""
    return max(most(x, n) for x in (p, q, r))


@prim(_group("fill"))
def fill(p: int, n: int, x: int) -> int:
    """Each becomes x."""
    for i in range(n):
        st64(p + 8 * i, x)
    return 0


@prim(_group("least"))
def at_least(p: int, n: int, x: int) -> int:
    """Each becomes x if it is less."""
    for i in range(n):
        st64(p + 8 * i, max(ld64(p + 8 * i), x))
    return 0


@prim(_group("later"))
def later(p: int, n: int, x: int) -> int:
    """Each becomes x, or one more than it was if that is more."""
    for i in range(n):
        st64(p + 8 * i, max(ld64(p + 8 * i) + 1, x))
    return 0
