"""Primitives for the host's sake: tags of a set, what threads publish, groups of the scoreboard in one step (isa/prims.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rvgpu.isa.prims import Let, ld16, ld32, ld64, pointer, prim, st16, st64


def _way_of(let: Let, emit: Any, dec: Any, p: str, x: str) -> str:
    t = "<16 x i32>"
    dec("declare i32 @llvm.cttz.i32(i32, i1)")
    low = let(f"insertelement {t} poison, i32 {let(f'trunc i64 {x} to i32')}, i64 0")
    wanted = let(f"shufflevector {t} {low}, {t} poison, {t} zeroinitializer")
    found = let(f"icmp eq {t} {let(f'load {t}, ptr {pointer(let, p)}, align 4')}, {wanted}")
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


@prim(lambda let, emit, dec, p, x: emit(f"store atomic i64 {x}, ptr {pointer(let, p)} release, align 8"))
def publish(p: int, x: int) -> None:
    """What this thread wrote before is there for those who see x at p."""
    st64(p, x)


@prim(lambda let, emit, dec, p: let(f"load atomic i64, ptr {pointer(let, p)} acquire, align 8"))
def observe(p: int) -> int:
    return ld64(p)


def _prefetch(let: Let, emit: Any, dec: Any, p: str) -> None:
    dec("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    emit(f"call void @llvm.prefetch.p0(ptr {pointer(let, p)}, i32 0, i32 3, i32 1)")


@prim(_prefetch)
def prefetch(p: int) -> None:
    """Host memory at p, which need not be anyone's, will be read soon."""


def _turn_square(let: Let, emit: Any, dec: Any, d: str, step: str, s: str) -> None:
    """Five times the first half of the rows is interleaved with the second."""
    t = "<32 x i16>"
    lines = ["define internal void @rv_turn_square(ptr %d, i64 %step, ptr %s) nounwind {"]
    rows = [f"%r{k}" for k in range(32)]
    for k, row in enumerate(rows):
        lines += [f"  %s{k} = getelementptr i8, ptr %s, i64 {64 * k}", f"  {row} = load {t}, ptr %s{k}, align 4"]
    for n in range(5):
        to = []
        for k in range(16):
            for half in (0, 1):
                to.append(f"%x{n}_{k}_{half}")
                mask = ", ".join(f"i32 {16 * half + i}, i32 {32 + 16 * half + i}" for i in range(16))
                lines.append(f"  {to[-1]} = shufflevector {t} {rows[k]}, {t} {rows[k + 16]}, <32 x i32> <{mask}>")
        rows = to
    for k, row in enumerate(rows):
        lines += [f"  %o{k} = mul i64 %step, {k}", f"  %d{k} = getelementptr i8, ptr %d, i64 %o{k}", f"  store {t} {row}, ptr %d{k}, align 2"]
    dec("\n".join([*lines, "  ret void", "}"]))
    emit(f"call void @rv_turn_square(ptr {let(f'inttoptr i64 {d} to ptr')}, i64 {step}, ptr {let(f'inttoptr i64 {s} to ptr')})")


@prim(_turn_square)
def turn_square(d: int, step: int, s: int) -> None:
    """Transposes 32 x 32 16-bit numbers from s, without gaps, to rows that start `step` bytes apart from d on."""
    for row in range(32):
        for column in range(32):
            st16(d + column * step + 2 * row, ld16(s + 64 * row + 2 * column))


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
