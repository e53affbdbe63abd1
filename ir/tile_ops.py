"""The op table of level K: per op its operand kinds, attributes and result types, as `tile_build.py` makes them.

A signature reads `operands -> results`. A word is a kind of type (`idx s i1 vt mask mem spm dram acc opnd tok`); `*`
repeats the last one. What a signature cannot say (equal dtypes, ranks, capacities) stands in the row's rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rvgpu.ir.core import Op
from rvgpu.ir.shapes import IllFormed, accumulator
from rvgpu.ir.tensor_ops import check_attrs
from rvgpu.ir.tile_build import CMPS
from rvgpu.ir.types import AccType, DType, IdxType, MemType, OpndType, ScalarType, TokType, Type, VecType

KINDS: Mapping[str, Callable[[Type], bool]] = {
    "idx": lambda t: isinstance(t, IdxType),
    "s": lambda t: isinstance(t, ScalarType),
    "i1": lambda t: t == ScalarType(DType.i1),
    "vt": lambda t: isinstance(t, VecType),
    "mask": lambda t: isinstance(t, VecType) and t.dtype is DType.i1,
    "lane": lambda t: isinstance(t, (VecType, ScalarType)),
    "mem": lambda t: isinstance(t, MemType),
    "spm": lambda t: isinstance(t, MemType) and t.space == "spm",
    "dram": lambda t: isinstance(t, MemType) and t.space == "dram",
    "acc": lambda t: isinstance(t, AccType),
    "opnd": lambda t: isinstance(t, OpndType),
    "tok": lambda t: isinstance(t, TokType),
}

UNARY = ("neg", "abs", "sqrt", "rsqrt", "exp", "exp2", "log", "log2", "tanh", "erf", "floor", "round", "not")
BINARY = ("add", "sub", "mul", "div", "mod", "max", "min", "pow", "and", "or")
FLOAT_ONLY = frozenset({"sqrt", "rsqrt", "exp", "exp2", "log", "log2", "tanh", "erf", "floor", "round", "fma", "fms"})
SPECIALS = ("te", "cta", "ctas", "warp", "warps")
STRUCTURE = frozenset({"for", "if", "grid.work", "pipe", "yield"})  # ops with regions: `tile_verify.py`


@dataclass(frozen=True)
class KRow:
    name: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    attrs: Mapping[str, str] = field(default_factory=dict)
    rule: Callable[[Op], None] | None = None


def row(name: str, signature: str, rule: Callable[[Op], None] | None = None, /, **attrs: str) -> KRow:
    left, _, right = signature.partition("->")
    return KRow(name, tuple(left.split()), tuple(right.split()), attrs, rule)


# -- rules

def need(ok: bool, message: str) -> None:
    if not ok:
        raise IllFormed(message)


def dtype_of(t: Type) -> DType:
    assert isinstance(t, (ScalarType, VecType, MemType, AccType, OpndType)), t
    return t.dtype


def dtypes(op: Op, *which: int) -> list[DType]:
    return [dtype_of(op.operands[n].type) for n in which]


def equal(*found: DType) -> None:
    need(len(set(found)) == 1, f"one dtype needed, found {' and '.join(map(str, found))}")


def rank(t: Type) -> int:
    assert isinstance(t, MemType)
    return t.rank


def axis(op: Op, name: str, mem: int = 0) -> None:
    value, n = op.attrs[name], rank(op.operands[mem].type)
    need(isinstance(value, int) and 0 <= value < n, f"`{name}` is an axis below {n}, found {value!r}")


def pair(op: Op, name: str, mem: int) -> None:
    value, n = op.attrs[name], rank(op.operands[mem].type)
    ok = isinstance(value, tuple) and len(value) == 2 and all(isinstance(a, int) and 0 <= a < n for a in value)
    need(ok and value[0] != value[1], f"`{name}` is two axes below {n}, found {value!r}")  # type: ignore[index]


def one_of(op: Op, name: str, *allowed: str) -> None:
    need(op.attrs[name] in allowed, f"`{name}` is {', '.join(allowed)}, found {op.attrs[name]!r}")


def extents(op: Op) -> None:
    n = rank(op.results[0].type)
    need(len(op.operands) == 2 * n, f"rank {n} takes {n} extents and {n} strides, found {len(op.operands)} operands")


def at_most(most: int) -> Callable[[Op], None]:
    def check(op: Op) -> None:
        need(len(op.operands) <= most, f"at most {most} operand, found {len(op.operands)}")
    return check


def alloc(op: Op) -> None:
    extents(op)
    size = op.attrs["size_bytes"]
    need(isinstance(size, int) and size >= 0, f"size_bytes is at least 0, found {size!r}")


def other_view(op: Op) -> None:
    n = rank(op.results[0].type)
    need(len(op.operands) == 1 + 2 * n, f"rank {n} takes {n} extents and {n} strides, found {len(op.operands) - 1} operands")


def view(op: Op) -> None:
    mem = op.operands[0].type
    need(op.results[0].type == mem, f"a view has its buffer's type {mem}")
    need(len(op.operands) - 1 == rank(mem), f"an index per axis needed ({rank(mem)}), found {len(op.operands) - 1}")


def dma(op: Op) -> None:
    equal(*dtypes(op, 0, 1))
    pair(op, "dst_axes", 0)
    pair(op, "src_axes", 1)


def dma_gather(op: Op) -> None:
    dma(op)
    need(dtypes(op, 2) == [DType.i32], f"positions are i32, found {dtypes(op, 2)[0]}")


def acc_read(op: Op) -> None:
    one_of(op, "axis", "row", "col")
    equal(dtype_of(op.operands[0].type), dtype_of(op.results[0].type))


def acc_write(op: Op) -> None:
    one_of(op, "axis", "row", "col")
    equal(*dtypes(op, 0, 2))


def opnd_load(op: Op) -> None:
    axis(op, "k_axis")
    axis(op, "lane_axis")
    need(op.attrs["k_axis"] != op.attrs["lane_axis"], "k and lanes run along different axes")
    equal(dtype_of(op.operands[0].type), dtype_of(op.results[0].type))


def opnd_pack(op: Op) -> None:
    t = op.results[0].type
    assert isinstance(t, OpndType)
    need(len(op.operands) == t.k, f"{t} takes {t.k} rows, found {len(op.operands)}")
    equal(t.dtype, *dtypes(op, *range(len(op.operands))))


def mma(op: Op) -> None:
    acc, a, b = (v.type for v in op.operands[:3])
    assert isinstance(acc, AccType) and isinstance(a, OpndType) and isinstance(b, OpndType)
    need(a.k == b.k, f"operands of one depth needed, found {a} and {b}")
    equal(a.dtype, b.dtype)
    need(acc.dtype is accumulator(a.dtype), f"{a.dtype} accumulates in {accumulator(a.dtype)}, found {acc}")


def load(op: Op) -> None:
    if "axis" in op.attrs:
        axis(op, "axis")
    equal(dtype_of(op.operands[0].type), dtype_of(op.results[0].type))


def gather(op: Op) -> None:
    load(op)
    need(dtypes(op, 1) == [DType.i32], f"positions are i32, found {dtypes(op, 1)[0]}")
    need(lanes_of(op.operands[1].type) == lanes_of(op.results[0].type), "a position for each lane")


def store(op: Op) -> None:
    if "axis" in op.attrs:
        axis(op, "axis")
    equal(*dtypes(op, 0, 1))


def splat(op: Op) -> None:
    equal(dtype_of(op.operands[0].type), dtype_of(op.results[0].type))


def lanes_of(t: Type) -> int:
    assert isinstance(t, VecType)
    return t.lanes


def elementwise(op: Op) -> None:
    """Vectors of one capacity, vectors and scalars of one dtype; comparisons give masks."""
    name = op.name.partition(".")[2]
    xs = op.operands[:-1] if op.name.startswith("vt.") else op.operands
    result = op.results[0].type
    vectors = [v.type for v in xs if isinstance(v.type, VecType)]
    if op.name.startswith("vt."):
        need(bool(vectors), "a vt among the operands needed")
        need(len({lanes_of(t) for t in [*vectors, result]}) == 1, "vectors of one capacity needed")
    values = xs[1:] if name == "select" else xs
    found = [dtype_of(v.type) for v in values]
    equal(*found)
    want = DType.i1 if name in CMPS else found[0]
    need(dtype_of(result) is want, f"the result is {want}, found {dtype_of(result)}")
    if name in FLOAT_ONLY:
        need(found[0].is_float, f"{name} is on floats, found {found[0]}")
    if name in ("and", "or", "not"):
        need(found[0] is DType.i1, f"{name} is on i1, found {found[0]}")
    if op.attrs.get("anchored"):
        need(name == "exp", "only exp is anchored")


def cast(op: Op) -> None:
    need(lanes_of(op.operands[0].type) == lanes_of(op.results[0].type), "a cast keeps the capacity")


def nibble(op: Op) -> None:
    need(dtypes(op, 0) == [DType.i8] and op.results[0].type == op.operands[0].type, "bytes (i8) needed")
    need(op.attrs["half"] in (0, 1), f"`half` is 0 or 1, found {op.attrs['half']!r}")


def part(op: Op) -> None:
    equal(dtype_of(op.operands[0].type), dtype_of(op.results[0].type))
    need(lanes_of(op.operands[0].type) == 2 * lanes_of(op.results[0].type), "a part has half the capacity")  # type: ignore[operator]
    need(op.attrs["index"] in (0, 1), f"`index` is 0 or 1, found {op.attrs['index']!r}")


def join(op: Op) -> None:
    equal(dtype_of(op.results[0].type), *dtypes(op, *range(len(op.operands))))
    parts = [lanes_of(x.type) for x in op.operands]
    need(0 < len(set(parts)) <= 1 and sum(parts) <= lanes_of(op.results[0].type), "parts of one capacity that fit the whole needed")  # type: ignore[arg-type,operator]


def tail(op: Op) -> None:
    equal(*dtypes(op, 0, 1))
    need(op.results[0].type == op.operands[0].type, "tail keeps the type")


def xred(op: Op) -> None:
    one_of(op, "op", "sum", "max", "min")
    equal(dtype_of(op.operands[0].type), dtype_of(op.results[0].type))


def pred(op: Op) -> None:
    one_of(op, "pred", *sorted(CMPS))


def iota(op: Op) -> None:
    need(dtype_of(op.results[0].type) is DType.i32, "iota is i32")


ROWS = [
    row("idx.const", "-> idx", value="int"),
    *(row(f"idx.{n}", "idx idx -> idx") for n in ("add", "sub", "mul", "div", "rem", "min", "max")),
    row("idx.cmp", "idx idx -> i1", pred, pred="str"),
    row("idx.select", "i1 idx idx -> idx"),
    row("idx.from_s", "s -> idx"),
    row("dim", "-> idx", name="str"),
    *(row(n, "-> idx") for n in SPECIALS),
    row("scalar", "-> s", name="str"),
    row("sconst", "-> s", value="number"),
    row("s.cast", "s -> s"),
    row("s.from_idx", "idx -> s"),
    *(row(f"s.{n}", "s -> s", elementwise, anchored="bool?") for n in UNARY),
    *(row(f"s.{n}", "s s -> s", elementwise) for n in BINARY),
    *(row(f"s.{n}", "s s -> i1", elementwise) for n in sorted(CMPS)),
    row("s.fma", "s s s -> s", elementwise),
    row("s.select", "i1 s s -> s", elementwise),
    # memory
    row("mem.arg", "idx * -> dram", extents, name="str"),
    row("spm.alloc", "idx * -> spm", alloc, name="str", size_bytes="int", per_warp="bool", offset_bytes="int?"),
    row("spm.view", "spm idx * -> spm", other_view),
    row("mem.at", "mem idx * -> mem", view),
    row("dma.load", "spm dram idx idx idx idx -> tok", dma, src_axes="tuple", dst_axes="tuple"),
    row("dma.gather", "spm dram dram idx idx idx idx -> tok", dma_gather, src_axes="tuple", dst_axes="tuple"),
    row("dma.store", "dram spm idx idx -> tok", dma, src_axes="tuple", dst_axes="tuple"),
    row("dma.wait", "idx *", at_most(1), left="int"),
    row("bar", "idx *", at_most(1), id="int", warps="int?"),
    # matrix
    row("acc.alloc", "-> acc"),
    row("acc.zero", "acc idx idx"),
    row("acc.read", "acc idx idx -> vt", acc_read, axis="str"),
    row("acc.write", "acc idx vt idx", acc_write, axis="str"),
    row("opnd.load", "mem idx -> opnd", opnd_load, k_axis="int", lane_axis="int"),
    row("opnd.pack", "vt * -> opnd", opnd_pack),
    row("mma", "acc opnd opnd idx idx", mma),
    # lanes
    row("vt.load", "mem idx -> vt", load, axis="int"),
    row("vt.load.masked", "mem mask idx -> vt", load, axis="int"),
    row("vt.gather", "mem vt idx -> vt", gather),
    row("vt.store", "mem vt idx", store, axis="int", nontemporal="bool?"),
    row("s.load", "mem -> s", load),
    row("s.store", "mem s", store),
    row("vt.bcast", "s idx -> vt", splat),
    row("vt.iota", "idx -> vt", iota),
    *(row(f"vt.{n}", "vt idx -> vt", elementwise, anchored="bool?") for n in UNARY),
    *(row(f"vt.{n}", "lane lane idx -> vt", elementwise) for n in BINARY),
    *(row(f"vt.{n}", "vt lane idx -> mask", elementwise) for n in sorted(CMPS)),
    *(row(f"vt.{n}", "lane lane lane idx -> vt", elementwise) for n in ("fma", "fms")),
    row("vt.select", "mask lane lane idx -> vt", elementwise),
    row("vt.cast", "vt idx -> vt", cast),
    row("vt.nibble", "vt idx -> vt", nibble, half="int"),
    row("vt.part", "vt -> vt", part, index="int"),
    row("vt.join", "vt * -> vt", join),
    row("vt.tail", "vt s idx idx -> vt", tail),
    row("vt.xred", "vt idx -> s", xred, op="str"),
    row("vt.vote", "mask idx -> i1", lambda op: one_of(op, "kind", "any", "all"), kind="str"),
]
K_OPS: Mapping[str, KRow] = {r.name: r for r in ROWS}


def match(kinds: Sequence[str], types: Sequence[Type], what: str) -> None:
    repeat = kinds[-1:] == ("*",)
    words = list(kinds[:-1]) if repeat else list(kinds)
    if repeat:
        words += words[-1:] * (len(types) - len(words))
        if len(types) == len(words) - 1:  # `x *` also means none
            words.pop()
    if len(words) != len(types):
        raise IllFormed(f"{len(words)} {what} needed, found {len(types)}")
    for n, (word, t) in enumerate(zip(words, types, strict=True)):
        if not KINDS[word](t):
            raise IllFormed(f"{what[:-1]} {n} is {word}, found {t}")


def check_op(op: Op) -> None:
    """IllFormed unless the op (one without regions) is as its row says."""
    r = K_OPS.get(op.name)
    if r is None:
        raise IllFormed(f"no level K op is called {op.name}")
    if op.regions:
        raise IllFormed(f"{op.name} has no regions")
    match(r.operands, [v.type for v in op.operands], "operands")
    match(r.results, [v.type for v in op.results], "results")
    check_attrs(r.attrs, op.attrs)
    if r.rule:
        r.rule(op)
