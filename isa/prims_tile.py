"""Primitives for products of pairs of bf16: operands as pairs, and blocks of a tile on the host's own matrix unit (x86's AMX).

AMX adds a pair of products as the simulated unit does, acc = RN(acc + RN(a0 b0 + a1 b1)), but takes subnormal numbers for 0. So what it is given must
not come near them: `Seen` is the least and the greatest magnitude of operands, and `calm` looks at the sums.
"""

from __future__ import annotations

import struct
from typing import Any

from rvgpu.isa.prims import Let, ld16, ld32, pointer, prim, st16, st32
from rvgpu.isa.prims_float import mm_pairs

SIDE = 32  # rows and columns of a block: four of AMX's tiles
SEEN_BYTES = 128
LEAST_SUM, MOST_SUM = 144, 374  # of the exponents of two factors: products from 2^-110, multiples of 2^-124, to 2^121
CALM = 26  # exponent of 2^-101: a sum that is not smaller is a multiple of 2^-124 too
# palette 1; tiles 0 to 3 are sums of 16 rows of 64 bytes, 4 and 5 pairs of 16 rows, 6 and 7 pairs of 16 columns
CONFIG = struct.pack("<BB14x16H16B", 1, 0, *(64,) * 4, 4, 4, 64, 64, *(0,) * 8, *(16,) * 6, 1, 1, *(0,) * 8)


def _pair_up(let: Let, emit: Any, dec: Any, d: str, lo: str, hi: str, n: str, seen: str) -> None:
    w, h, x = "<16 x i32>", "<16 x i16>", "<32 x i16>"
    dec(f"declare {h} @llvm.masked.load.v16i16.p0(ptr, i32, <16 x i1>, {h})")
    dec(f"declare void @llvm.masked.store.v16i32.p0({w}, ptr, i32, <16 x i1>)")
    for op in ("umin", "umax"):
        dec(f"declare {x} @llvm.{op}.v32i16({x}, {x})")
    lines = ["define internal void @rv_pair_up(ptr %d, ptr %lo, ptr %hi, i64 %n, ptr %seen) nounwind {", "entry:",
             "  %most_at = getelementptr i8, ptr %seen, i64 64", f"  %least0 = load {x}, ptr %seen, align 4",
             f"  %most0 = load {x}, ptr %most_at, align 4", "  br label %test", "test:", "  %i = phi i64 [ 0, %entry ], [ %i1, %body ]",
             f"  %least = phi {x} [ %least0, %entry ], [ %least1, %body ]", f"  %most = phi {x} [ %most0, %entry ], [ %most1, %body ]",
             "  %more = icmp slt i64 %i, %n", "  br i1 %more, label %body, label %done", "body:", "  %i1 = add i64 %i, 16",
             "  %left = sub i64 %n, %i", "  %left32 = trunc i64 %left to i32", f"  %left0 = insertelement {w} poison, i32 %left32, i64 0",
             f"  %lefts = shufflevector {w} %left0, {w} poison, {w} zeroinitializer",
             f"  %live = icmp slt {w} <{', '.join(f'i32 {k}' for k in range(16))}>, %lefts",
             "  %lo_at = getelementptr i16, ptr %lo, i64 %i", "  %hi_at = getelementptr i16, ptr %hi, i64 %i",
             "  %to = getelementptr i32, ptr %d, i64 %i"]
    for k in ("lo", "hi"):
        lines += [f"  %{k}16 = call {h} @llvm.masked.load.v16i16.p0(ptr %{k}_at, i32 2, <16 x i1> %live, {h} zeroinitializer)",
                  f"  %{k}32 = zext {h} %{k}16 to {w}"]
    lines += [f"  %up = shl {w} %hi32, splat (i32 16)", f"  %pair = or {w} %up, %lo32",
              f"  call void @llvm.masked.store.v16i32.p0({w} %pair, ptr %to, i32 4, <16 x i1> %live)",
              f"  %halves = bitcast {w} %pair to {x}", f"  %size = shl {x} %halves, splat (i16 1)", f"  %below = add {x} %size, splat (i16 -1)",
              f"  %least1 = call {x} @llvm.umin.v32i16({x} %least, {x} %below)", f"  %most1 = call {x} @llvm.umax.v32i16({x} %most, {x} %size)",
              "  br label %test", "done:", f"  store {x} %least, ptr %seen, align 4", f"  store {x} %most, ptr %most_at, align 4", "  ret void", "}"]
    dec("\n".join(lines))
    emit(f"call void @rv_pair_up({', '.join('ptr ' + let(f'inttoptr i64 {x} to ptr') for x in (d, lo, hi))}, i64 {n}, ptr "
         f"{let(f'inttoptr i64 {seen} to ptr')})")


@prim(_pair_up)
def pair_up(d: int, lo: int, hi: int, n: int, seen: int) -> None:
    """n pairs to d: a 16-bit number from lo, then one from hi. At `seen` stand 32 numbers, the least of 2 |x| - 1 among every 32nd of those (0
    counts as the greatest), and 32, the greatest of 2 |x|, x as 16 bits."""
    for i in range(n):
        for k, x in enumerate((ld16(lo + 2 * i), ld16(hi + 2 * i))):
            st16(d + 4 * i + 2 * k, x)
            at, size = seen + 4 * (i % 16) + 2 * k, x << 1 & 0xFFFF
            st16(at, min(ld16(at), size - 1 & 0xFFFF))
            st16(at + 64, max(ld16(at + 64), size))


def _reduced(op: str) -> Any:
    def llvm(let: Let, emit: Any, dec: Any, p: str) -> str:
        dec(f"declare i16 @llvm.vector.reduce.{op}.v32i16(<32 x i16>)")
        x = let(f"load <32 x i16>, ptr {pointer(let, p)}, align 4")
        return let(f"zext i16 {let(f'call i16 @llvm.vector.reduce.{op}.v32i16(<32 x i16> {x})')} to i64")
    return llvm


@prim(_reduced("umin"))
def least_half(p: int) -> int:
    """The least of 32 16-bit numbers."""
    return min(ld16(p + 2 * i) for i in range(32))


@prim(_reduced("umax"))
def most_half(p: int) -> int:
    return max(ld16(p + 2 * i) for i in range(32))


def _calm(let: Let, emit: Any, dec: Any, p: str, n: str) -> str:
    w = "<16 x i32>"
    dec(f"declare {w} @llvm.masked.load.v16i32.p0(ptr, i32, <16 x i1>, {w})")
    dec(f"declare {w} @llvm.fshl.v16i32({w}, {w}, {w})")
    dec("declare i1 @llvm.vector.reduce.or.v16i1(<16 x i1>)")
    lines = ["define internal i64 @rv_calm(ptr %p, i64 %n) nounwind {", "entry:", "  br label %test", "test:",
             "  %i = phi i64 [ 0, %entry ], [ %i1, %body ]", "  %wild = phi <16 x i1> [ zeroinitializer, %entry ], [ %wild1, %body ]",
             "  %more = icmp slt i64 %i, %n", "  br i1 %more, label %body, label %done", "body:", "  %i1 = add i64 %i, 16",
             "  %left = sub i64 %n, %i", "  %left32 = trunc i64 %left to i32", f"  %left0 = insertelement {w} poison, i32 %left32, i64 0",
             f"  %lefts = shufflevector {w} %left0, {w} poison, {w} zeroinitializer",
             f"  %live = icmp slt {w} <{', '.join(f'i32 {k}' for k in range(16))}>, %lefts", "  %at = getelementptr i32, ptr %p, i64 %i",
             f"  %x = call {w} @llvm.masked.load.v16i32.p0(ptr %at, i32 4, <16 x i1> %live, {w} zeroinitializer)",
             f"  %turned = call {w} @llvm.fshl.v16i32({w} %x, {w} %x, {w} splat (i32 1))",
             f"  %from = sub {w} %turned, splat (i32 {CALM << 24})", f"  %bad = icmp uge {w} %from, splat (i32 {(255 - CALM) << 24})",
             f"  %some = icmp ne {w} %x, zeroinitializer", "  %both = and <16 x i1> %bad, %some", "  %wild1 = or <16 x i1> %wild, %both",
             "  br label %test", "done:", "  %any = call i1 @llvm.vector.reduce.or.v16i1(<16 x i1> %wild)", "  %none = xor i1 %any, true",
             "  %out = zext i1 %none to i64", "  ret i64 %out", "}"]
    dec("\n".join(lines))
    return let(f"call i64 @rv_calm(ptr {let(f'inttoptr i64 {p} to ptr')}, i64 {n})")


@prim(_calm)
def calm(p: int, n: int) -> int:
    """Whether each of n f32 patterns is +0, or finite with an exponent of CALM or more."""
    return int(all(x == 0 or CALM <= x >> 23 & 255 < 255 for x in (ld32(p + 4 * i) for i in range(n))))


def _begin(let: Let, emit: Any, dec: Any) -> None:
    dec(f"@rv_tiles = internal constant [64 x i8] [{', '.join(f'i8 {x}' for x in CONFIG)}]")
    dec("declare void @llvm.x86.ldtilecfg(ptr)")
    emit("call void @llvm.x86.ldtilecfg(ptr @rv_tiles)")


@prim(_begin)
def tiles_begin() -> None:
    """Before `tile_block`; `tiles_end` after the last one."""


def _end(let: Let, emit: Any, dec: Any) -> None:
    dec("declare void @llvm.x86.tilerelease()")
    emit("call void @llvm.x86.tilerelease()")


@prim(_end)
def tiles_end() -> None:
    pass


def _tile_block(let: Let, emit: Any, dec: Any, c: str, pitch: str, a: str, b: str, gap: str, steps: str) -> None:
    for name in ("tileloadd64", "tilestored64"):
        dec(f"declare void @llvm.x86.{name}(i8, ptr, i64)")
    dec("declare void @llvm.x86.tdpbf16ps(i8, i8, i8)")
    sums = ["%c", "%c1", "%c2", "%c3"]
    lines = ["define internal void @rv_tile_block(ptr %c, i64 %pitch, ptr %a, ptr %b, i64 %gap, i64 %steps) nounwind {", "entry:",
             "  %low = mul i64 %pitch, 16", "  %c1 = getelementptr i8, ptr %c, i64 64", "  %c2 = getelementptr i8, ptr %c, i64 %low",
             "  %c3 = getelementptr i8, ptr %c2, i64 64",
             *(f"  call void @llvm.x86.tileloadd64(i8 {n}, ptr {p}, i64 %pitch)" for n, p in enumerate(sums)), "  br label %body", "body:",
             "  %s = phi i64 [ 0, %entry ], [ %s1, %body ]", "  %at = phi i64 [ 0, %entry ], [ %at1, %body ]",
             "  %a0 = getelementptr i8, ptr %a, i64 %at", "  %b0 = getelementptr i8, ptr %b, i64 %at",
             "  %a1 = getelementptr i8, ptr %a0, i64 64", "  %b1 = getelementptr i8, ptr %b0, i64 64",
             *(f"  call void @llvm.x86.tileloadd64(i8 {n}, ptr %{p}, i64 {each})"
               for n, p, each in ((4, "a0", 4), (6, "b0", 64), (7, "b1", 64), (5, "a1", 4))),
             *(f"  call void @llvm.x86.tdpbf16ps(i8 {n}, i8 {4 + (n >> 1)}, i8 {6 + (n & 1)})" for n in range(4)),
             "  %s1 = add i64 %s, 1", "  %at1 = add i64 %at, %gap", "  %more = icmp slt i64 %s1, %steps", "  br i1 %more, label %body, label %done",
             "done:", *(f"  call void @llvm.x86.tilestored64(i8 {n}, ptr {p}, i64 %pitch)" for n, p in enumerate(sums)), "  ret void", "}"]
    dec("\n".join(lines))
    pointers = [f"ptr {let(f'inttoptr i64 {x} to ptr')}" for x in (c, a, b)]
    emit(f"call void @rv_tile_block({pointers[0]}, i64 {pitch}, {pointers[1]}, {pointers[2]}, i64 {gap}, i64 {steps})")


@prim(_tile_block)
def tile_block(c: int, pitch: int, a: int, b: int, gap: int, steps: int) -> None:
    """SIDE rows, `pitch` bytes apart, and columns of sums at c: for each of `steps` (at least one) += a[row] . b[column], pairs of bf16 at a and b,
    the next step's `gap` bytes on. Rounded as `mm_pairs` rounds, without subnormal numbers; NaNs as they come."""
    for row in range(SIDE):
        for column in range(SIDE):
            at = c + row * pitch + 4 * column
            acc = ld32(at)
            for s in range(steps):
                x, y = ld32(a + s * gap + 4 * row), ld32(b + s * gap + 4 * column)
                acc = mm_pairs(acc, x << 16 & 0xFFFFFFFF, y << 16 & 0xFFFFFFFF, x & 0xFFFF0000, y & 0xFFFF0000)
            st32(at, acc)
