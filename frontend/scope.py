"""What lowering a kernel needs everywhere: errors at the user's text, dtypes, dims, and ops whose operands get one dtype."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rvgpu.errors import EXIT_USAGE, Loc, RvgpuError, did_you_mean
from rvgpu.frontend.parse import Source
from rvgpu.ir.core import Attr, Block, Builder, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.shapes import broadcast_dims
from rvgpu.ir.types import DType, TensorType

SMALL_FLOAT = frozenset({DType.f16, DType.bf16, DType.e4m3, DType.e5m2})
SMALL_INT = frozenset({DType.i4, DType.i8, DType.u8, DType.i16})


@dataclass
class Kernel:
    """A parsed kernel with what its free names may mean; `dtypes` replaces dtypes throughout ({"bf16": "f16"})."""

    tree: Any
    source: Source
    names: Mapping[str, Any] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(next(c for c in self.tree.children if getattr(c, "type", "") == "NAME"))


@dataclass(frozen=True)
class Literal:
    """A Python number: takes the other side's dtype."""

    value: float | int
    loc: Loc


Operand = Value | Literal


class Scope:
    def __init__(self, kernel: Kernel, dtypes: Mapping[str, str]) -> None:
        self.kernel, self.src, self.dtypes = kernel, kernel.source, {**kernel.dtypes, **dtypes}
        self.block = Block()
        self.b = Builder(self.block)
        self.env: dict[str, Any] = {}
        self.dims: dict[str, None] = {}
        self.declared: dict[Value, tuple[str, Loc]] = {}
        for name in (*self.dtypes, *self.dtypes.values()):
            if name not in DType.__members__:
                raise _near(RvgpuError("E110", f"unknown dtype {name} in a replacement of dtypes", exit_code=EXIT_USAGE), name, DType.__members__)

    # -- errors
    def err(self, code: str, message: str, node: Any) -> RvgpuError:
        return RvgpuError(code, message, node if isinstance(node, Loc) else self.src.of(node))

    def unknown(self, code: str, what: str, name: str, known: Sequence[str], node: Any) -> RvgpuError:
        return _near(self.err(code, f"unknown {what} {name}", node), name, known)

    def spell(self, node: Any) -> str:
        """The text of a tree, of one line."""
        m = node.meta
        return self.src.lines[m.line - 1][m.column - 1:m.end_column - 1] if m.line == m.end_line else "the operand"

    def describe(self, v: Value, name: str) -> str:
        where = self.declared.get(v)
        at = f", declared at {where[1]}" if where else ""
        return f"{name} is {v.tensor.dtype}{bracketed(v.tensor.dims)}{at}"

    # -- types
    def dtype(self, token: Any) -> DType:
        name = self.dtypes.get(str(token), str(token))
        if name not in DType.__members__:
            raise self.unknown("E110", "dtype", name, list(DType.__members__), token)
        return DType[name]

    def form(self, tree: Any) -> Dim:
        """A dim of a type: a sum of names and integers. E111."""
        out, sign = Dim(), 1
        for c in tree.children:
            if not hasattr(c, "data"):
                sign = -1 if str(c) == "-" else 1
                continue
            kids = [k for k in c.children if k is not None]
            names = [k for k in kids if k.type == "NAME"]
            number = next((int(k) for k in kids if k.type != "NAME"), 1 if names else 0)
            for n in names:
                if not n[0].isupper():
                    raise self.err("E111", f"a dim is a capitalised name, {n} is not", n)
                self.dims.setdefault(str(n))
            out = out + (Dim.of(str(names[0])) * number if names else Dim((), number)) * sign
        return out

    def type(self, tree: Any) -> TensorType:
        token, dims = tree.children
        forms = tuple(self.form(d) for d in dims.children if d is not None) if dims is not None else ()
        if len(set(forms)) != len(forms):
            raise self.err("E112", "a dim stands once in a tensor", tree)
        return TensorType(forms, self.dtype(token))

    def dim_of(self, tree: Any, fresh: bool = False) -> Dim:
        """A dim form written as an expression: names, integers, + - *. `fresh`: a capitalised name may be new. E123, E124."""
        if tree.data == "name":
            text = str(tree.children[0])
            if text not in self.dims:
                if not (fresh and text[0].isupper()):
                    e = self.unknown("E123", "dim", text, list(self.dims), tree)
                    raise e if e.notes else e.hint("dims are capitalised names that stand in a type")
                self.dims.setdefault(text)
            return Dim.of(text)
        if tree.data == "number":
            n = self.number(tree)
            if isinstance(n, int):
                return Dim((), n)
        if tree.data == "paren":
            return self.dim_of(tree.children[0], fresh)
        if tree.data == "neg":
            return self.dim_of(tree.children[0], fresh) * -1
        if tree.data == "binary":
            a, op, b = self.dim_of(tree.children[0], fresh), str(tree.children[1]), self.dim_of(tree.children[2], fresh)
            if op in "+-":
                return a + b * (1 if op == "+" else -1)
            if op == "*" and (not a.terms or not b.terms):
                return b * a.const if not a.terms else a * b.const
        raise self.err("E124", "a dim is a sum of names and integers", tree)

    # -- values
    def number(self, tree: Any) -> float | int:
        """A number of the text; `-` and `inf` included."""
        if tree.data in ("infinite", "minus_infinite"):
            return math.inf if tree.data == "infinite" else -math.inf
        if tree.data == "negative":
            return -self.number(tree.children[0])
        text = str(tree.children[0]).replace("_", "")
        return int(text, 0) if text.isdigit() or text[:2].lower() in ("0x", "0b", "0o") else float(text)

    def op(self, name: str, xs: Sequence[Value], dtype: DType, dims: tuple[Dim, ...], /, **attrs: Attr) -> Value:
        return self.b.op(name, xs, [TensorType(dims, dtype)], **attrs)[0]

    def cast(self, x: Value, dtype: DType) -> Value:
        return x if x.tensor.dtype == dtype else self.op("cast", [x], dtype, x.tensor.dims, dtype=dtype)

    def value(self, x: Operand, dtype: DType) -> Value:
        """An operand as a value: literals become constants of `dtype` (f32 where that holds no fraction)."""
        if isinstance(x, tuple):
            raise self.err("E116", "several values where one is needed", self.b.loc or Loc("?", 1))
        if isinstance(x, Literal):
            if not dtype.is_float and isinstance(x.value, float):
                dtype = DType.f32
            if not dtype.is_float and not _fits(int(x.value), dtype):
                raise self.err("E132", f"{x.value} does not fit {dtype}", x.loc)
            return self.op("const", [], dtype, (), value=x.value)
        return x

    def computing(self, dtype: DType) -> DType:
        return DType.f32 if dtype in SMALL_FLOAT else DType.i32 if dtype in SMALL_INT or dtype == DType.i1 else dtype

    def common(self, xs: Sequence[Operand], *, keep: bool, division: bool = False) -> list[Value]:
        """Operands of one elementwise op in one dtype: `keep` leaves a dtype on which all agree."""
        kinds = [x.tensor.dtype for x in xs if isinstance(x, Value)]
        floats_written = any(isinstance(x, Literal) and isinstance(x.value, float) for x in xs)
        if not kinds:
            kinds = [DType.f32 if floats_written or division else DType.i32]
        if keep and len(set(kinds)) == 1 and not (floats_written and not kinds[0].is_float):
            dtype = kinds[0]
        else:
            wide = {self.computing(d) for d in kinds}
            dtype = next(iter(wide)) if len(wide) == 1 else DType.f64 if DType.f64 in wide else DType.f32
            if (floats_written or division) and not dtype.is_float:
                dtype = DType.f32
        return [self.cast(self.value(x, dtype), dtype) for x in xs]

    def elementwise(self, name: str, xs: Sequence[Operand], *, keep: bool = False, division: bool = False, out: DType | None = None,
                    **attrs: Attr) -> Value:
        vs = self.common(xs, keep=keep, division=division)
        return self.op(name, vs, out or vs[0].tensor.dtype, broadcast_dims([v.tensor.dims for v in vs]), **attrs)


def bracketed(dims: Sequence[Dim]) -> str:
    return f"[{', '.join(map(str, dims))}]"


def _fits(n: int, dtype: DType) -> bool:
    low, high = (0, 1) if dtype == DType.i1 else (0, 255) if dtype == DType.u8 else (-(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1)
    return low <= n <= high


def _near(e: RvgpuError, name: str, known: Any) -> RvgpuError:
    near = did_you_mean(name, known)
    return e.hint(f"did you mean {near}?") if near else e
