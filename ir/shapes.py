"""What is legal at level T and which types follow: dims of broadcasts and contractions, dtypes, `infer` rules.

Rules take operand types and attributes and return the result types in the language's order of dims (rule 3), or None
when the type is the op's own to state (`const`). They raise `IllFormed` with what was needed and what was found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from rvgpu.ir.core import Attr
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import DType, TensorType

Types = Sequence[TensorType]
Attrs = Mapping[str, Attr]
Infer = Callable[[Types, Attrs], tuple[TensorType, ...] | None]

FLOATS = frozenset({DType.f32, DType.f64})
ARITHMETIC = FLOATS | {DType.i32, DType.i64}  # 16-bit and narrower operands are cast first
NUMBERS = frozenset(DType) - {DType.i1}
REDUCTIONS = frozenset({"sum", "max", "min", "argmax"})


class IllFormed(ValueError):
    """An op that the level does not allow; the message says what was needed and what was found."""


def broadcast_dims(lists: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """Rule 3: the dims of the operand with the most dims (the first such), preceded by dims only others have, in order
    of appearance. Worked: [K], [M,K] -> [M,K]; [T], [S] -> [S,T]."""
    if not lists:
        return ()
    main = max(lists, key=len)  # the first of the longest
    head = dict.fromkeys(d for dims in lists for d in dims if d not in main)
    return (*head, *main)


def contract_dims(x: Sequence[Dim], y: Sequence[Dim], over: Sequence[Dim]) -> tuple[Dim, ...]:
    """x's dims without `over`, then y's dims not in x; both must have every dim of `over`."""
    for d in over:
        if d not in x or d not in y:
            raise IllFormed(f"contracts {d}, but {'the left' if d not in x else 'the right'} operand has dims "
                            f"[{','.join(map(str, x if d not in x else y))}]")
    left = [d for d in x if d not in over]
    return (*left, *(d for d in y if d not in x and d not in over))


def accumulator(dtype: DType) -> DType:
    """The dtype a contraction of `dtype` accumulates in."""
    return dtype if dtype in (DType.f64, DType.i64) else DType.f32 if dtype.is_float else DType.i32


# -- pieces of rules

def one_dtype(types: Types) -> DType:
    found = list(dict.fromkeys(t.dtype for t in types))
    if len(found) != 1:
        raise IllFormed(f"operands of one dtype needed, found {' and '.join(map(str, found))}")
    return found[0]


def among(dtype: DType, allowed: frozenset[DType]) -> DType:
    if dtype not in allowed:
        raise IllFormed(f"dtype {dtype} is not one of {', '.join(str(d) for d in DType if d in allowed)}: cast first")
    return dtype


def dim_attr(attrs: Attrs, name: str) -> Dim:
    d = attrs[name]
    assert isinstance(d, Dim)
    return d


def dims_attr(attrs: Attrs, name: str = "dims") -> tuple[Dim, ...]:
    dims = attrs[name]
    assert isinstance(dims, tuple)
    for d in dims:
        if not isinstance(d, Dim):
            raise IllFormed(f"`{name}` holds dims, found {d!r}")
    if not dims or len(set(dims)) != len(dims):
        raise IllFormed(f"`{name}` holds at least one dim, each once")
    return dims  # type: ignore[return-value]


def has(t: TensorType, dim: Dim) -> None:
    if dim not in t.dims:
        raise IllFormed(f"no dim {dim} in {t}")


def replaced(t: TensorType, old: Dim, new: Sequence[Dim]) -> TensorType:
    """t with `new` in the place of `old`."""
    has(t, old)
    n = t.dims.index(old)
    return distinct(TensorType((*t.dims[:n], *new, *t.dims[n + 1:]), t.dtype))


def distinct(t: TensorType) -> TensorType:
    if len(set(t.dims)) != len(t.dims):
        raise IllFormed(f"a dim occurs twice in {t}")
    return t


def check_order(attrs: Attrs) -> None:
    """`order` = any | seq | split(n)."""
    order = attrs.get("order")
    if not isinstance(order, str) or not re.fullmatch(r"any|seq|split\([1-9][0-9]*\)", order):
        raise IllFormed(f"order is any, seq or split(n), found {order!r}")


# -- rules

def elementwise(allowed: frozenset[DType], result: DType | None = None) -> Infer:
    """Operands of one dtype out of `allowed`, broadcast; the result has that dtype, or `result`."""
    def infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
        dtype = among(one_dtype(types), allowed)
        return (TensorType(broadcast_dims([t.dims for t in types]), result or dtype),)
    return infer


def select(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    if types[0].dtype != DType.i1:
        raise IllFormed(f"the condition is i1, found {types[0].dtype}")
    return (TensorType(broadcast_dims([t.dims for t in types]), one_dtype(types[1:])),)


def cast(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    dtype = attrs["dtype"]
    assert isinstance(dtype, DType)
    return (TensorType(types[0].dims, dtype),)


def const(types: Types, attrs: Attrs) -> None:
    return None


def iota(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    return (TensorType((dim_attr(attrs, "dim"),), DType.i32),)


def size(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    return (TensorType((), DType.i32),)


def rename(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    return (replaced(types[0], dim_attr(attrs, "from"), [dim_attr(attrs, "to")]),)


def resized(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    """slice, pad: `dim` becomes `new`."""
    if len(types) > 1 and (types[1].dims or types[1].dtype != types[0].dtype):
        raise IllFormed(f"the value is a scalar of {types[0].dtype}, found {types[1]}")
    return (replaced(types[0], dim_attr(attrs, "dim"), [dim_attr(attrs, "new")]),)


def concat(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    one_dtype(types)
    dim, new = dim_attr(attrs, "dim"), dim_attr(attrs, "new")
    for t in types:
        if set(t.dims) != set(types[0].dims):
            raise IllFormed(f"operands with the same dims needed, found {types[0]} and {t}")
    if dim * len(types) != new:
        raise IllFormed(f"{len(types)} operands joined over {dim} give {dim * len(types)}, not {new}")
    return (replaced(types[0], dim, [new]),)


def take(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    """ids' dims in the place of `dim`; dims that table and ids share are aligned (one id per row)."""
    table, ids = types
    among(ids.dtype, frozenset({DType.i32, DType.i64, DType.i16, DType.i8, DType.u8}))
    dim = dim_attr(attrs, "dim")
    return (replaced(table, dim, [d for d in ids.dims if d not in table.dims or d == dim]),)


def reduce(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    op = attrs["op"]
    dims = dims_attr(attrs)
    x = types[0]
    for d in dims:
        has(x, d)
    if op not in REDUCTIONS:
        raise IllFormed(f"op is one of {', '.join(sorted(REDUCTIONS))}, found {op!r}")
    among(x.dtype, ARITHMETIC if op == "sum" else NUMBERS)
    if op == "sum":
        check_order(attrs)
    if op == "argmax" and len(dims) != 1:
        raise IllFormed("argmax is over one dim")
    return (TensorType(tuple(d for d in x.dims if d not in dims), DType.i32 if op == "argmax" else x.dtype),)


def contract(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    x, y = types
    check_order(attrs)
    dtype = among(one_dtype(types), NUMBERS)
    return (TensorType(contract_dims(x.dims, y.dims, dims_attr(attrs)), accumulator(dtype)),)


def over_dims(keeps: bool) -> Infer:
    """Macros that reduce over `dims`: the result keeps them (softmax) or not."""
    def infer(types: Types, attrs: Attrs) -> tuple[TensorType, ...]:
        x, dims = types[0], dims_attr(attrs)
        for d in dims:
            has(x, d)
        among(x.dtype, FLOATS)
        return (TensorType(x.dims if keeps else tuple(d for d in x.dims if d not in dims), x.dtype),)
    return infer
