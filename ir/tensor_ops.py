"""The op table of level T: one row per op with its operands, attributes, result types and NumPy meaning.

Every user of an op reads its row: the verifier (`arity`, `attrs`, `infer`), the evaluator (`meaning`), the passes
(`macro`, `elementwise`). Error rules stand in `error_rules.py`, one per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rvgpu.ir import meaning as m
from rvgpu.ir import shapes
from rvgpu.ir.core import Attr
from rvgpu.ir.dims import Dim
from rvgpu.ir.meaning import Meaning, pointwise
from rvgpu.ir.numeric import erf
from rvgpu.ir.shapes import ARITHMETIC, FLOATS, NUMBERS, IllFormed, Infer, broadcast_dims, contract_dims
from rvgpu.ir.types import DType, TensorType

BOOL = frozenset({DType.i1})
ANY = frozenset(DType)


@dataclass(frozen=True)
class OpRow:
    """`arity` -1: one or more operands. `attrs`: name -> kind (dim dims dtype number int bool str extent), "?" at the
    end when it may be missing; extent is an int or a Dim."""

    name: str
    arity: int
    infer: Infer
    meaning: Meaning
    attrs: Mapping[str, str] = field(default_factory=dict)
    elementwise: bool = False
    macro: bool = False  # P2 expands it


def _unary(name: str, fn: Meaning, allowed: frozenset[DType] = FLOATS, macro: bool = False, **attrs: str) -> OpRow:
    return OpRow(name, 1, shapes.elementwise(allowed), fn, attrs, True, macro)


def _binary(name: str, fn: Meaning, allowed: frozenset[DType] = ARITHMETIC, result: DType | None = None) -> OpRow:
    return OpRow(name, 2, shapes.elementwise(allowed, result), fn, {}, True)


COMPARISONS = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
               "ne": np.not_equal}

ROWS = [
    OpRow("const", 0, shapes.const, m.const, {"value": "number"}),
    OpRow("iota", 0, shapes.iota, m.iota, {"dim": "dim"}),
    OpRow("size", 0, shapes.size, m.size, {"dim": "dim"}),
    # one operand
    _unary("neg", pointwise(np.negative, native=True), NUMBERS),
    _unary("abs", pointwise(np.abs, native=True), NUMBERS),
    # anchored: the argument is at most 17, or the sum of such is not used; floored: what it subtracts is not -inf
    _unary("exp", pointwise(np.exp), anchored="bool?", floored="bool?"),
    _unary("exp2", pointwise(np.exp2), anchored="bool?"),
    _unary("log", pointwise(np.log)),
    _unary("log2", pointwise(np.log2)),
    _unary("sqrt", pointwise(np.sqrt, native=True)),
    _unary("rsqrt", pointwise(m.rsqrt)),
    _unary("tanh", pointwise(np.tanh)),
    _unary("erf", pointwise(erf)),
    _unary("floor", pointwise(np.floor, native=True)),
    _unary("round", pointwise(np.rint, native=True)),  # half to even
    _unary("not", pointwise(np.logical_not), BOOL),
    # two
    _binary("add", pointwise(np.add, native=True)),
    _binary("sub", pointwise(np.subtract, native=True)),
    _binary("mul", pointwise(np.multiply, native=True)),
    _binary("div", pointwise(m.divide, native=True)),
    _binary("mod", pointwise(m.modulo)),
    _binary("max", pointwise(np.fmax, native=True), NUMBERS),
    _binary("min", pointwise(np.fmin, native=True), NUMBERS),
    _binary("pow", pointwise(m.power)),
    _binary("and", pointwise(np.logical_and), BOOL),
    _binary("or", pointwise(np.logical_or), BOOL),
    *(_binary(name, pointwise(fn, native=True), ANY if name in ("eq", "ne") else NUMBERS, DType.i1)
      for name, fn in COMPARISONS.items()),
    OpRow("select", 3, shapes.select, pointwise(np.where, native=True), {}, True),
    OpRow("cast", 1, shapes.cast, m.cast, {"dtype": "dtype"}, True),
    # structure
    OpRow("rename", 1, shapes.rename, m.rename, {"from": "dim", "to": "dim"}),
    OpRow("slice", 1, shapes.resized, m.cut, {"dim": "dim", "start": "extent", "new": "dim"}),
    OpRow("pad", 2, shapes.resized, m.pad, {"dim": "dim", "before": "extent", "new": "dim"}),
    OpRow("concat", -1, shapes.concat, m.concat, {"dim": "dim", "new": "dim"}),
    OpRow("take", 2, shapes.take, m.take, {"dim": "dim"}),
    # sums
    OpRow("reduce", 1, shapes.reduce, m.reduce, {"op": "str", "dims": "dims", "order": "str?"}),
    OpRow("contract", 2, shapes.contract, m.contract, {"dims": "dims", "order": "str"}),
    # macros
    OpRow("softmax", 1, shapes.over_dims(True), m.softmax, {"dims": "dims"}, macro=True),
    OpRow("logsumexp", 1, shapes.over_dims(False), m.over(m.logsumexp), {"dims": "dims"}, macro=True),
    OpRow("mean", 1, shapes.over_dims(False), m.over(m.mean), {"dims": "dims"}, macro=True),
    OpRow("var", 1, shapes.over_dims(False), m.over(m.var), {"dims": "dims"}, macro=True),
    _unary("sigmoid", pointwise(m.sigmoid), macro=True),
    _unary("silu", pointwise(m.silu), macro=True),
    _unary("gelu", m.gelu, macro=True, tanh="bool?"),
    _unary("relu", pointwise(lambda x: np.fmax(x, x.dtype.type(0)), native=True), NUMBERS, macro=True),
    OpRow("clamp", 3, shapes.elementwise(NUMBERS), pointwise(m.clamp, native=True), {}, True, True),  # x, low, high
]
OPS: Mapping[str, OpRow] = {row.name: row for row in ROWS}
MACROS = frozenset(row.name for row in ROWS if row.macro)
ELEMENTWISE = frozenset(row.name for row in ROWS if row.elementwise)


def infer(name: str, types: Sequence[TensorType], attrs: Mapping[str, Attr]) -> tuple[TensorType, ...] | None:
    """Result types of op `name` in the language's order of dims; None when the op states its own (`const`).
    IllFormed says why not."""
    row = OPS.get(name)
    if row is None:
        raise IllFormed(f"no level T op is called {name}")
    if len(types) != row.arity and not (row.arity < 0 and types):
        raise IllFormed(f"{name} takes {row.arity if row.arity >= 0 else 'one or more'} operands, found {len(types)}")
    check_attrs(row.attrs, attrs)
    return row.infer(types, attrs)


KINDS: Mapping[str, tuple[type, ...]] = {
    "dim": (Dim,), "dims": (tuple,), "dtype": (DType,), "number": (int, float), "int": (int,), "bool": (bool, int),
    "str": (str,), "extent": (int, Dim), "tuple": (tuple,)}


def check_attrs(kinds: Mapping[str, str], attrs: Mapping[str, Attr]) -> None:
    for name, kind in kinds.items():
        if name not in attrs:
            if not kind.endswith("?"):
                raise IllFormed(f"attribute `{name}` is missing")
            continue
        allowed = KINDS[kind.rstrip("?")]
        value = attrs[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise IllFormed(f"attribute `{name}` is a {kind.rstrip('?')}, found {value!r}")
    for name in attrs:
        if name not in kinds:
            raise IllFormed(f"no attribute `{name}` here; known: {', '.join(kinds) or 'none'}")


__all__ = ["ELEMENTWISE", "MACROS", "OPS", "IllFormed", "OpRow", "broadcast_dims", "check_attrs", "contract_dims",
           "infer"]
