"""SSA values, operations with regions, and functions: one structure for both IR levels.

An `Op` is its name, operands, attributes, results and regions; what it may hold is said by its row in the level's op
table (`tensor_ops.py`, `tile_ops.py`). Values are identified by object; names are only for printing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rvgpu.errors import Loc
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import DType, TensorType, Type

Attr = str | int | float | bool | Dim | DType | tuple["Attr", ...]


@dataclass(eq=False)
class Value:
    type: Type
    op: Op | None = None  # None: a block argument
    index: int = 0
    hint: str = ""  # a name for printing

    @property
    def tensor(self) -> TensorType:
        assert isinstance(self.type, TensorType), self.type
        return self.type

    def __repr__(self) -> str:
        return f"%{self.hint or hex(id(self))[-5:]}: {self.type}"


@dataclass(eq=False)
class Block:
    """A region: block arguments and operations; the last op of a non-function block is `yield`."""

    args: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)

    def walk(self) -> Iterator[Op]:
        for op in self.ops:
            yield op
            for r in op.regions:
                yield from r.walk()

    @property
    def yielded(self) -> list[Value]:
        assert self.ops and self.ops[-1].name == "yield"
        return self.ops[-1].operands


@dataclass(eq=False)
class Op:
    name: str
    operands: list[Value]
    results: list[Value] = field(default_factory=list)
    attrs: dict[str, Attr] = field(default_factory=dict)
    regions: list[Block] = field(default_factory=list)
    loc: Loc | None = None

    @property
    def result(self) -> Value:
        assert len(self.results) == 1, self.name
        return self.results[0]


@dataclass(eq=False)
class Param:
    """A kernel parameter. Tensors come first, in order; scalars (no dims) have `keyword` set and maybe a default."""

    name: str
    value: Value
    keyword: bool = False
    default: float | int | None = None
    loc: Loc | None = None


@dataclass(eq=False)
class Func:
    """A level T function. `results[i]` has the dims and dtype of `result_types[i]` up to the order of dims, which the
    type fixes (storage order of the result)."""

    name: str
    params: list[Param]
    body: Block
    results: list[Value]
    result_types: list[TensorType]
    loc: Loc | None = None
    result_names: list[str] = field(default_factory=list)  # "out" or out0, out1, ...

    def dim_names(self) -> list[str]:
        """Every dim name in order of first appearance in parameters, then results, then the body's types and attributes (the ABI's order)."""
        seen: dict[str, None] = {}
        asked = (a for op in self.body.walk() for a in op.attrs.values() if isinstance(a, Dim))  # size(N) of a kernel without an N
        for d in (*(d for t in self._types() for d in t.dims), *asked):
            for n in d.names:
                seen.setdefault(n)
        return list(seen)

    def dtypes(self) -> set[DType]:
        """Every dtype of a parameter, a result or a value in between."""
        return {t.dtype for t in self._types()}

    def _types(self) -> list[TensorType]:
        types = [p.value.type for p in self.params] + list(self.result_types) + [r.type for op in self.body.walk() for r in op.results]
        return [t for t in types if isinstance(t, TensorType)]


class Builder:
    """Appends ops to a block; `loc` is sticky."""

    def __init__(self, block: Block, loc: Loc | None = None) -> None:
        self.block = block
        self.loc = loc

    def op(self, name: str, operands: Sequence[Value] = (), types: Sequence[Type] = (), regions: Sequence[Block] = (),
           /, **attrs: Attr) -> list[Value]:
        o = Op(name, list(operands), attrs=dict(attrs), regions=list(regions), loc=self.loc)
        o.results = [Value(t, o, i) for i, t in enumerate(types)]
        self.block.ops.append(o)
        return o.results

    def one(self, name: str, operands: Sequence[Value], type: Type, /, **attrs: Attr) -> Value:
        return self.op(name, operands, [type], **attrs)[0]

    def region(self, types: Sequence[Type], body: Callable[[Builder, list[Value]], Sequence[Value]]) -> Block:
        block = Block([Value(t) for t in types])
        inner = Builder(block, self.loc)
        inner.op("yield", body(inner, block.args))
        return block
