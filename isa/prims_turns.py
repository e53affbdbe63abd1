"""Primitives for the choice of a core's next warp (sim/turns.py): arrays of 64-bit numbers, eight in one step.

What is read as eight numbers is written as eight, because hosts do not forward narrow stores to a wide load; LLVM makes narrow stores of a changed
lane where it sees that the rest is what was loaded, so these loads are volatile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rvgpu.isa.prims import Let, ld64, prim, st64

TAG_BITS = 10  # a tag is place << 5 | number
MOST = (1 << 63) - 1
V = "<8 x i64>"
LANES = f"<{', '.join(f'i64 {i}' for i in range(8))}>"


def _all(x: str) -> str:
    """%x.all: the number %x in all lanes."""
    return (f"  %{x}.one = insertelement {V} poison, i64 %{x}, i64 0\n"
            f"  %{x}.all = shufflevector {V} %{x}.one, {V} poison, <8 x i32> zeroinitializer\n")


def _pick(name: str, op: str, a: str, b: str) -> str:
    return f"  %{name} = call {V} @llvm.{op}.v8i64({V} %{a}, {V} %{b})\n"


def _load(name: str, array: str, at: str = "%i") -> str:
    return f"  %{name}.at = getelementptr i64, ptr %{array}, i64 {at}\n  %{name} = load volatile {V}, ptr %{name}.at, align 8\n"


def _function(name: str, pointers: int, numbers: int, params: str, body: str) -> Callable[..., str]:
    """The call of a function in LLVM whose first parameters are addresses."""
    text = f"define internal i64 @{name}({params}) alwaysinline nounwind {{\nentry:\n{body}}}"

    def llvm(let: Let, emit: Any, dec: Any, *args: str) -> str:
        for op in ("smin", "smax"):
            dec(f"declare {V} @llvm.{op}.v8i64({V}, {V})")
        dec(f"declare i64 @llvm.vector.reduce.smin.v8i64({V})")
        dec(text)
        assert len(args) == pointers + numbers
        given = [f"ptr {let(f'inttoptr i64 {a} to ptr')}" if n < pointers else f"i64 {a}" for n, a in enumerate(args)]
        return let(f"call i64 @{name}({', '.join(given)})")
    return llvm


def _least(name: str, x: str) -> str:
    return f"  %{name} = call i64 @llvm.vector.reduce.smin.v8i64({V} %{x})\n"


def _groups(name: str, body: str, *least: str) -> str:
    """`body` for each group of eight below %n; %x becomes the least of all lanes of what it leaves as %x.new, for x in `least`."""
    text = f"  br label %{name}\n{name}:\n  %{name}.i = phi i64 [ 0, %{{before}} ], [ %{name}.j, %{name} ]\n"
    text += "".join(f"  %{x}.old = phi {V} [ splat (i64 {MOST}), %{{before}} ], [ %{x}.new, %{name} ]\n" for x in least)
    text += body + f"  %{name}.j = add nsw i64 %{name}.i, 8\n  %{name}.more = icmp slt i64 %{name}.j, %n\n"
    text += f"  br i1 %{name}.more, label %{name}, label %{name}.done\n{name}.done:\n"
    return text + "".join(_least(x, f"{x}.new") for x in least)


def _keys(name: str) -> str:
    """%name.issue, %name.key and %name.unit of the group."""
    text = _load(f"{name}.ready", "ready", f"%{name}.i") + _load(f"{name}.unit", "units", f"%{name}.i") + _load(f"{name}.tag", "tags", f"%{name}.i")
    free = "room0.all"
    for u in range(1, 6):
        text += f"  %{name}.is{u} = icmp eq {V} %{name}.unit, splat (i64 {u})\n"
        text += f"  %{name}.free{u} = select <8 x i1> %{name}.is{u}, {V} %room{u}.all, {V} %{free}\n"
        free = f"{name}.free{u}"
    return text + _pick(f"{name}.issue", "smax", f"{name}.ready", free) + (
        f"  %{name}.time = shl {V} %{name}.issue, splat (i64 {TAG_BITS})\n  %{name}.key = or {V} %{name}.time, %{name}.tag\n")


def _rivals() -> str:
    return f"""  %rest.other = icmp ne {V} %rest.key, %best.all
  %rest.scalar = icmp eq {V} %rest.unit, zeroinitializer
  %rest.others = select <8 x i1> %rest.other, {V} %rest.issue, {V} splat (i64 {MOST})
  %rest.a = select <8 x i1> %rest.scalar, {V} %rest.others, {V} splat (i64 {MOST})
  %rest.b = select <8 x i1> %rest.scalar, {V} splat (i64 {MOST}), {V} %rest.others
"""


def _soonest(one: bool) -> str:
    """`one`: of one group."""
    text = "".join(f"  %room{u}.at = getelementptr i64, ptr %room, i64 {u}\n  %room{u} = load i64, ptr %room{u}.at, align 8\n" + _all(f"room{u}")
                   for u in range(6))
    if one:
        text += "  %rest.i = or i64 0, 0\n" + _keys("rest") + _least("best", "rest.key") + _all("best") + _rivals()
        text += _least("a", "rest.a") + _least("b", "rest.b")
    else:
        text += _groups("all", _keys("all") + _pick("best.new", "smin", "best.old", "all.key"), "best").format(before="entry") + _all("best")
        rest = _keys("rest") + _rivals() + _pick("a.new", "smin", "a.old", "rest.a") + _pick("b.new", "smin", "b.old", "rest.b")
        text += _groups("rest", rest, "a", "b").format(before="all.done")
    return text + """  store i64 %a, ptr %rivals, align 8
  %second = getelementptr i64, ptr %rivals, i64 1
  store i64 %b, ptr %second, align 8
  ret i64 %best
"""


SOONEST = "ptr %ready, ptr %units, ptr %tags, ptr %room, ptr %rivals, i64 %n"


@prim(_function("rv_soonest", 5, 1, SOONEST, _soonest(False)))
def soonest(ready: int, units: int, tags: int, room: int, rivals: int, n: int) -> int:
    """The least max(ready, room[unit]) << TAG_BITS | tag of n warps (or a few more, to a whole group of eight). The least max(ready, room[unit])
    of the others goes to `rivals`: of those that want unit 0, and of the rest."""
    issue = [max(ld64(ready + 8 * i), ld64(room + 8 * ld64(units + 8 * i))) for i in range(n + 7 & -8)]
    keys = [t << TAG_BITS | ld64(tags + 8 * i) for i, t in enumerate(issue)]
    best = min(keys)
    others = [(t, ld64(units + 8 * i)) for i, t in enumerate(issue) if keys[i] != best]
    st64(rivals, min((t for t, u in others if u == 0), default=MOST))
    st64(rivals + 8, min((t for t, u in others if u != 0), default=MOST))
    return best


@prim(_function("rv_soonest_of_8", 5, 1, SOONEST, _soonest(True)))
def soonest_of_8(ready: int, units: int, tags: int, room: int, rivals: int, n: int) -> int:
    """`soonest` for n of at most 8."""
    return soonest(ready, units, tags, room, rivals, n)


def _promote() -> str:
    text = "  %up = add nsw i64 %n, 7\n  %lanes = and i64 %up, -8\n  %top = shl i64 %lanes, 5\n  %last = sub nsw i64 %top, 32\n"
    return text + _all("last") + _all("mine") + _groups("all", _load("tag", "tags", "%all.i") + f"""  %first = icmp slt {V} %tag, splat (i64 32)
  %behind = icmp sgt {V} %tag, %mine.all
  %own = icmp eq {V} %tag, %mine.all
  %closer = sub {V} %tag, splat (i64 32)
  %away = add {V} %tag, %last.all
  %number = and {V} %tag, splat (i64 31)
  %moved = select <8 x i1> %behind, {V} %closer, {V} %tag
  %aside = select <8 x i1> %first, {V} %away, {V} %moved
  %new = select <8 x i1> %own, {V} %number, {V} %aside
  store {V} %new, ptr %tag.at, align 8
""").format(before="entry") + "  ret i64 0\n"


@prim(_function("rv_promote", 1, 2, "ptr %tags, i64 %mine, i64 %n", _promote()))
def promote(tags: int, mine: int, n: int) -> int:
    """The warp with tag `mine` comes to place 0, and who was there to the last; who was behind `mine` moves up. Of n warps, to a whole group."""
    lanes = n + 7 & -8
    for i in range(lanes):
        tag = ld64(tags + 8 * i)
        st64(tags + 8 * i, tag & 31 if tag == mine else tag + 32 * (lanes - 1) if tag < 32 else tag - 32 if tag > mine else tag)
    return 0


def _put() -> str:
    return _all("x") + f"""  %group = and i64 %n, -8
  %lane = and i64 %n, 7
{_all("lane")}{_load("old", "p", "%group")}  %own = icmp eq {V} %lane.all, {LANES}
  %new = select <8 x i1> %own, {V} %x.all, {V} %old
  store {V} %new, ptr %old.at, align 8
  ret i64 0
"""


@prim(_function("rv_put", 1, 2, "ptr %p, i64 %n, i64 %x", _put()))
def put(p: int, n: int, x: int) -> int:
    """Number n becomes x."""
    st64(p + 8 * n, x)
    return 0


def _claim() -> str:
    text = _all("least") + _all("own") + _all("n") + _load("old", "p", "0") + _pick("later", "smax", "old", "least.all")
    return text + f"""  %is = icmp eq {V} %n.all, {LANES}
  %new = select <8 x i1> %is, {V} %own.all, {V} %later
  store {V} %new, ptr %old.at, align 8
  ret i64 0
"""


@prim(_function("rv_claim", 1, 3, "ptr %p, i64 %n, i64 %own, i64 %least", _claim()))
def claim(p: int, n: int, own: int, least: int) -> int:
    """Of eight numbers the n-th becomes `own`, the others at least `least`."""
    for i in range(8):
        st64(p + 8 * i, own if i == n else max(ld64(p + 8 * i), least))
    return 0
