"""Primitives of the restricted Python: each has a CPython body and an LLVM body, tested equal. Here the register of all,
integers and memory; floating point in prims_float, what serves the host in prims_host.

Integers are signed 64-bit values. Memory is addressed by host address.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

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


def signed_64(x: int) -> int:
    x &= M64
    return x - (1 << 64) if x >> 63 else x


def apart(fn: F) -> F:
    """Compiled once and called; other functions are compiled into their callers."""
    fn.apart = True  # type: ignore[attr-defined]
    return fn


# -- integers
@prim(lambda let, emit, dec, x: x)
def wrap(x: int) -> int:
    return signed_64(x)


@prim(lambda let, emit, dec, a, b: let(f"zext i1 {let(f'icmp ult i64 {a}, {b}')} to i64"))
def ult(a: int, b: int) -> int:
    return int(a & M64 < b & M64)


@prim(lambda let, emit, dec, x, n: let(f"lshr i64 {x}, {n}"))
def lshr(x: int, n: int) -> int:
    return signed_64((x & M64) >> n)


@prim(lambda let, emit, dec, x, w: let(f"and i64 {x}, {signed_64((1 << int(w)) - 1)}") if int(w) < 64 else x)
def trunc(x: int, w: int) -> int:
    return signed_64(x & ((1 << w) - 1))


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
    return signed_64((a * b) >> 64)


@prim(_wide("mul", "zext", "zext"))
def mulhu(a: int, b: int) -> int:
    return signed_64(((a & M64) * (b & M64)) >> 64)


@prim(_wide("mul", "sext", "zext"))
def mulhsu(a: int, b: int) -> int:
    return signed_64((a * (b & M64)) >> 64)


@prim(lambda let, emit, dec, a, b: let(f"udiv i64 {a}, {b}"))
def udiv(a: int, b: int) -> int:
    return signed_64((a & M64) // (b & M64))


@prim(lambda let, emit, dec, a, b: let(f"urem i64 {a}, {b}"))
def urem(a: int, b: int) -> int:
    return signed_64((a & M64) % (b & M64))


@prim(lambda let, emit, dec, a, b: let(f"sdiv i64 {a}, {b}"))
def sdiv(a: int, b: int) -> int:
    q = abs(a) // abs(b)
    return signed_64(-q if (a < 0) != (b < 0) else q)


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
    return signed_64(int.from_bytes((x & M64).to_bytes(8, "little"), "big"))


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
def pointer(let: Let, a: str) -> str:
    """An address, or a pointer that the translator has made already ("ptr ..."): base and offset kept apart, LLVM vectorises loops over them."""
    return a[4:] if a.startswith("ptr ") else let(f"inttoptr i64 {a} to ptr")


def _load(bits: int, ext: str) -> Callable[..., str]:
    def llvm(let: Let, emit: Any, dec: Any, a: str) -> str:
        x = let(f"load i{bits}, ptr {pointer(let, a)}, align 1")
        return x if bits == 64 else let(f"{ext} i{bits} {x} to i64")
    return llvm


def _store(bits: int) -> Callable[..., None]:
    def llvm(let: Let, emit: Any, dec: Any, a: str, x: str) -> None:
        p = pointer(let, a)
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
# turning them back into calls.
def _copy_loop(n: int, longer: int) -> str:
    """The part of rv_copy that goes on where steps of `longer` bytes ended, n bytes a step."""
    return f"""
  %least{n} = sub i64 %n, {n}
  %any{n} = icmp sle i64 %at{longer}, %least{n}
  br i1 %any{n}, label %body{n}, label %end{n}
body{n}:
  %i{n} = phi i64 [ %at{longer}, %end{longer} ], [ %j{n}, %body{n} ]
  %from{n} = getelementptr i8, ptr %s, i64 %i{n}
  %to{n} = getelementptr i8, ptr %d, i64 %i{n}
  %x{n} = load <{n} x i8>, ptr %from{n}, align 1
  store <{n} x i8> %x{n}, ptr %to{n}, align 1
  %j{n} = add nsw i64 %i{n}, {n}
  %more{n} = icmp sle i64 %j{n}, %least{n}
  br i1 %more{n}, label %body{n}, label %end{n}
end{n}:
  %at{n} = phi i64 [ %at{longer}, %end{longer} ], [ %j{n}, %body{n} ]"""


# (what overlaps less than a step of 64 bytes ahead of s goes byte by byte)
_COPY = f"""define internal void @rv_copy(ptr %d, ptr %s, i64 %n) "no-builtins" {{
entry:
  %d0 = ptrtoint ptr %d to i64
  %s0 = ptrtoint ptr %s to i64
  %ahead = sub i64 %d0, %s0
  %near = icmp ult i64 %ahead, 64
  br i1 %near, label %end8, label %end0
end0:
  %at0 = phi i64 [ 0, %entry ]{_copy_loop(64, 0)}{_copy_loop(16, 64)}{_copy_loop(4, 16)}
  br label %end8
end8:
  %at8 = phi i64 [ 0, %entry ], [ %at4, %end4 ]{_copy_loop(1, 8)}
  ret void
}}"""
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
