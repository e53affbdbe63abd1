"""Syntax trees become level T functions: names, dims and dtypes are checked, and every implied conversion becomes a `cast`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rvgpu.errors import Loc, RvgpuError, did_you_mean
from rvgpu.frontend.parse import Source, parse
from rvgpu.ir.core import Attr, Block, Builder, Func, Param, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import DType, TensorType

UNARY = frozenset("exp exp2 log log2 sqrt rsqrt tanh erf sigmoid silu relu".split())
REDUCE = {"sum": "sum", "amax": "max", "amin": "min"}
MACRO_REDUCE = frozenset("mean var softmax logsumexp".split())
SMALL_FLOAT = frozenset({DType.f16, DType.bf16, DType.e4m3, DType.e5m2})
SMALL_INT = frozenset({DType.i4, DType.i8, DType.u8, DType.i16})
FUNCTIONS = UNARY | set(REDUCE) | MACRO_REDUCE | {"gelu", "abs", "maximum", "minimum", "where", "clamp", "floor", "round", "iota", "size",
                                                  "rename", "split", "concat", "slice", "dot"}
OPS = {"+": "add", "-": "sub", "*": "mul", "/": "div", "%": "mod", "//": "floordiv"}
COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}


@dataclass
class Kernel:
    """A parsed kernel with what its free names may mean."""

    tree: Any
    source: Source
    names: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(next(c for c in self.tree.children if getattr(c, "type", "") == "NAME"))


def parse_text(text: str, file: str = "<text>", first_line: int = 1, indent: int = 0, names: Mapping[str, Any] | None = None) -> dict[str, Kernel]:
    """Every kernel of a text, by name."""
    source = Source(text, file, first_line, indent)
    tree = parse(source)
    found: dict[str, Kernel] = {}
    for k in tree.children:
        if hasattr(k, "data"):
            kernel = Kernel(k, source, {**(names or {}), **found})
            found[kernel.name] = kernel
    return found


def lower(kernel: Kernel, dtypes: Mapping[str, str] | None = None) -> Func:
    """The level T function; `dtypes` replaces dtypes throughout ({"bf16": "f16"})."""
    return _Lower(kernel, dtypes or {}).run()


@dataclass(frozen=True)
class Literal:
    """A Python number: takes the other side's dtype."""

    value: float | int
    loc: Loc


Operand = Value | Literal


class _Lower:
    def __init__(self, kernel: Kernel, dtypes: Mapping[str, str]) -> None:
        self.kernel, self.src, self.dtypes = kernel, kernel.source, dtypes
        self.block = Block()
        self.b = Builder(self.block)
        self.env: dict[str, Any] = {}
        self.dims: dict[str, None] = {}
        self.declared: dict[Value, tuple[str, Loc]] = {}

    def err(self, code: str, message: str, node: Any) -> RvgpuError:
        return RvgpuError(code, message, node if isinstance(node, Loc) else self.src.of(node))

    # -- types
    def dtype(self, token: Any) -> DType:
        name = self.dtypes.get(str(token), str(token))
        if name not in DType.__members__:
            e = self.err("E110", f"unknown dtype {name}", token)
            near = did_you_mean(name, DType.__members__)
            raise e.hint(f"did you mean {near}?") if near else e
        return DType[name]

    def form(self, tree: Any) -> Dim:
        out, sign = Dim(), 1
        for c in tree.children:
            if hasattr(c, "data"):
                kids = [k for k in c.children if k is not None]
                names = [k for k in kids if k.type == "NAME"]
                number = next((int(k) for k in kids if k.type != "NAME"), 1 if names else 0)
                for n in names:
                    if not n[0].isupper():
                        raise self.err("E111", f"a dim is a capitalised name, {n} is not", n)
                    self.dims.setdefault(str(n))
                out = out + (Dim.of(str(names[0])) * number if names else Dim((), number)) * sign
            else:
                sign = -1 if str(c) == "-" else 1
        return out

    def type(self, tree: Any) -> TensorType:
        token, dims = tree.children
        forms = tuple(self.form(d) for d in dims.children if d is not None) if dims is not None else ()
        if len(set(forms)) != len(forms):
            raise self.err("E112", "a dim stands once in a tensor", tree)
        return TensorType(forms, self.dtype(token))

    # -- the function
    def run(self) -> Func:
        parts = [c for c in self.kernel.tree.children if c is not None and getattr(c, "data", "") != "decorator"]
        name, *rest = parts
        params_tree = rest[0] if rest[0].data == "params" else None
        result_tree, suite = rest[-2], rest[-1]
        params: list[Param] = []
        for p in params_tree.children if params_tree is not None else ():
            if p is None or p.data == "star":
                continue
            n, ty, default = p.children
            t = self.type(ty)
            loc = self.src.of(p)
            value = Value(t, hint=str(n))
            params.append(Param(str(n), value, not t.dims, None if default is None else self.number(default), loc))
            self.env[str(n)] = value
            self.declared[value] = (str(n), loc)
        params.sort(key=lambda p: p.keyword)
        types = [self.type(t) for t in result_tree.children if t is not None]
        results: list[Value] | None = None
        for s in suite.children:
            if s is None or not hasattr(s, "data"):
                continue
            if results is not None:
                raise self.err("E113", "nothing may follow return", s)
            results = self.statement(s, types)
        if results is None:
            raise self.err("E114", f"kernel {name} has no return", name)
        names = ["out"] if len(types) == 1 else [f"out{i}" for i in range(len(types))]
        return Func(str(name), params, self.block, results, types, self.src.of(name), names)

    def statement(self, s: Any, types: list[TensorType]) -> list[Value] | None:
        if s.data == "docstring":
            return None
        self.b.loc = self.src.of(s)
        if s.data == "typed_assign":
            name, ty, expr = s.children
            want = self.type(ty)
            x = self.value(self.expr(expr), want.dtype)
            if ty.children[1] is not None and set(want.dims) != set(x.tensor.dims):
                raise self.err("E115", f"{name} is declared {want}, its value is {x.tensor}", ty)
            self.env[str(name)] = self.cast(x, want.dtype)
        elif s.data == "assign":
            *names, expr = s.children
            x = self.expr(expr)
            if len(names) == 1:
                self.env[str(names[0])] = x
            else:
                if not isinstance(x, tuple) or len(x) != len(names):
                    raise self.err("E116", f"{len(names)} names, but the value has {len(x) if isinstance(x, tuple) else 1} parts", expr)
                self.env.update({str(n): v for n, v in zip(names, x, strict=True)})
        elif s.data == "return_":
            values = [self.expr(c) for c in s.children if c is not None]
            if len(values) == 1 and isinstance(values[0], tuple):
                values = list(values[0])
            if len(values) != len(types):
                raise self.err("E117", f"{len(types)} results are declared, {len(values)} returned", s)
            return [self.result(v, t, s) for v, t in zip(values, types, strict=True)]
        return None

    def result(self, v: Operand, t: TensorType, node: Any) -> Value:
        x = self.value(v, t.dtype)
        if set(x.tensor.dims) != set(t.dims):
            raise self.err("E118", f"the result is declared [{', '.join(map(str, t.dims))}], the value has "
                           f"[{', '.join(map(str, x.tensor.dims))}]", node)
        return self.cast(x, t.dtype)

    # -- values
    def number(self, tree: Any) -> float | int:
        if tree.data == "negative":
            return -self.number(tree.children[0])
        text = str(tree.children[0]).replace("_", "")
        return int(text, 0) if text.isdigit() or text[:2].lower() in ("0x", "0b", "0o") else float(text)

    def value(self, x: Operand, dtype: DType) -> Value:
        if isinstance(x, tuple):
            raise self.err("E116", "several values where one is needed", self.b.loc or Loc("?", 1))
        if isinstance(x, Literal):
            if not dtype.is_float and isinstance(x.value, float):
                dtype = DType.f32
            return self.b.op("const", [], [TensorType((), dtype)], value=x.value)[0]
        return x

    def cast(self, x: Value, dtype: DType) -> Value:
        if x.tensor.dtype == dtype:
            return x
        return self.b.op("cast", [x], [TensorType(x.tensor.dims, dtype)], dtype=dtype)[0]

    def op(self, name: str, xs: Sequence[Value], dtype: DType, dims: tuple[Dim, ...], /, **attrs: Attr) -> Value:
        return self.b.op(name, xs, [TensorType(dims, dtype)], **attrs)[0]

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

    def union(self, xs: Sequence[Value]) -> tuple[Dim, ...]:
        """The dims of the operand with the most, preceded by dims that only others have."""
        most = max(xs, key=lambda x: len(x.tensor.dims)).tensor.dims
        extra = dict.fromkeys(d for x in xs for d in x.tensor.dims if d not in most)
        return (*extra, *most)

    def elementwise(self, name: str, xs: Sequence[Operand], *, keep: bool = False, division: bool = False, out: DType | None = None) -> Value:
        vs = self.common(xs, keep=keep, division=division)
        return self.op(name, vs, out or vs[0].tensor.dtype, self.union(vs))

    # -- expressions
    def expr(self, tree: Any) -> Any:
        saved = self.b.loc
        self.b.loc = self.src.of(tree)
        out = self._expr(tree)
        self.b.loc = saved
        return out

    def _expr(self, tree: Any) -> Any:
        kind, kids = tree.data, tree.children
        if kind == "number":
            return Literal(self.number(tree), self.src.of(tree))
        if kind == "name":
            return self.name(kids[0])
        if kind == "paren":
            return self.expr(kids[0])
        if kind == "tuple_":
            return tuple(self.expr(k) for k in kids if k is not None)
        if kind == "call":
            return self.call(tree)
        if kind in ("true", "false"):
            return self.op("const", [], DType.i1, (), value=int(kind == "true"))
        if kind in ("neg", "pos", "invert"):
            return self.unary(kind, self.expr(kids[0]), tree)
        if kind == "binary":
            return self.binary(str(kids[1]), kids[0], kids[2], tree)
        if kind == "compare":
            a, op, b = kids
            return self.elementwise(COMPARE[str(op)], [self.expr(a), self.expr(b)], keep=False, out=DType.i1)
        if kind in ("and_", "or_"):
            vs = [self.expr(k) for k in kids]
            for v, k in zip(vs, kids, strict=True):
                if not isinstance(v, Value) or v.tensor.dtype != DType.i1:
                    raise self.err("E119", f"`{'&' if kind == 'and_' else '|'}` joins conditions", k)
            return self.op(kind[:-1], vs, DType.i1, self.union(vs))
        if kind == "pow":
            return self.power(tree)
        raise self.err("E101", f"{kind} is not part of the language", tree)

    def name(self, token: Any) -> Any:
        text = str(token)
        if text in self.env:
            return self.env[text]
        if text == "inf":
            return Literal(math.inf, self.src.of(token))
        outer = self.kernel.names.get(text)
        if isinstance(outer, (int, float)) and not isinstance(outer, bool):
            return Literal(outer, self.src.of(token))
        e = self.err("E120", f"unknown name {text}", token)
        near = did_you_mean(text, [*self.env, *FUNCTIONS, *self.dims])
        if near:
            e.hint(f"did you mean {near}?")
        raise e

    def unary(self, kind: str, x: Operand, tree: Any) -> Operand:
        if isinstance(x, Literal):
            return Literal(-x.value if kind == "neg" else x.value, x.loc)
        if kind == "invert":
            if x.tensor.dtype != DType.i1:
                raise self.err("E119", "`~` negates a condition", tree)
            return self.op("not", [x], DType.i1, x.tensor.dims)
        return self.elementwise("neg", [x]) if kind == "neg" else x

    def binary(self, op: str, left: Any, right: Any, tree: Any) -> Operand:
        a, b = self.expr(left), self.expr(right)
        if isinstance(a, Literal) and isinstance(b, Literal):
            table: dict[str, Callable[[Any, Any], Any]] = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y,
                                                           "/": lambda x, y: x / y, "//": lambda x, y: x // y, "%": lambda x, y: x % y}
            if op in table:
                try:
                    return Literal(table[op](a.value, b.value), a.loc)
                except ZeroDivisionError:
                    raise self.err("E121", "division by zero", tree) from None
        if op == "@":
            return self.matmul(a, b, left, right, tree)
        if op == "//":
            q = self.elementwise("div", [a, b])
            return self.op("floor", [q], q.tensor.dtype, q.tensor.dims) if q.tensor.dtype.is_float else q
        return self.elementwise(OPS[op], [a, b], division=op == "/")

    def power(self, tree: Any) -> Operand:
        x, n = self.expr(tree.children[0]), self.expr(tree.children[1])
        if not isinstance(n, Literal) or not isinstance(n.value, int):
            raise self.err("E122", "the exponent is an integer literal", tree.children[1])
        if isinstance(x, Literal):
            return Literal(x.value**n.value, x.loc)
        base = self.common([x], keep=False)[0]
        if n.value == 0:
            return Literal(1, self.src.of(tree))
        out = base
        for _ in range(abs(n.value) - 1):
            out = self.op("mul", [out, base], base.tensor.dtype, base.tensor.dims)
        return self.elementwise("div", [Literal(1, self.src.of(tree)), out], division=True) if n.value < 0 else out

    def spell(self, node: Any) -> str:
        m = node.meta
        return self.src.lines[m.line - 1][m.column - 1:m.end_column - 1] if m.line == m.end_line else "the operand"

    def describe(self, v: Value, name: str) -> str:
        where = self.declared.get(v)
        at = f", declared at {where[1]}" if where else ""
        return f"{name} is {v.tensor.dtype}[{', '.join(map(str, v.tensor.dims))}]{at}"

    def matmul(self, a: Operand, b: Operand, left: Any, right: Any, tree: Any, over: Dim | None = None) -> Value:
        if isinstance(a, Literal) or isinstance(b, Literal):
            raise self.err("E102", "`@` contracts two tensors", tree)
        if not a.tensor.dims:
            raise self.err("E102", f"`{self.spell(tree)}` contracts a tensor's last dim, but {self.spell(left)} has no dims", tree)
        k = over or a.tensor.dims[-1]
        for v, node in ((a, left), (b, right)):
            if k not in v.tensor.dims:
                e = self.err("E103", f"`{self.spell(tree)}` contracts {k}, but {self.spell(node)} has no dim {k}", tree)
                e.note(self.describe(v, self.spell(node)))
                other = next((d for d in v.tensor.dims if d not in (a if v is b else b).tensor.dims), None)
                raise e.hint(f"rename({self.spell(node)}, {other}={k}) if {other} is the same dim") if other else e
        x, y = self.contractible(a, b, tree)
        acc = DType.f64 if x.tensor.dtype == DType.f64 else DType.f32 if x.tensor.dtype.is_float else DType.i32
        dims = tuple(d for d in x.tensor.dims if d != k) + tuple(d for d in y.tensor.dims if d != k and d not in x.tensor.dims)
        return self.op("contract", [x, y], acc, dims, dims=(k,), order="any")

    def contractible(self, a: Value, b: Value, tree: Any) -> tuple[Value, Value]:
        da, db = a.tensor.dtype, b.tensor.dtype
        if da == db:
            if da == DType.i1:
                raise self.err("E104", "`@` multiplies numbers, not conditions", tree)
            return (a, b) if da not in (DType.i16, DType.i4) else (self.cast(a, DType.i32), self.cast(b, DType.i32))
        if da == DType.f32 and db in SMALL_FLOAT:
            return self.cast(a, db), b
        if db == DType.f32 and da in SMALL_FLOAT:
            return a, self.cast(b, da)
        if da.is_float != db.is_float:
            return self.cast(a, DType.f32), self.cast(b, DType.f32)
        if not da.is_float:
            return self.cast(a, DType.i32), self.cast(b, DType.i32)
        raise self.err("E105", f"`@` of {da} and {db}", tree).hint(f"convert one side: {da}(...) or f32(...)")

    # -- calls
    def dim_of(self, tree: Any) -> Dim:
        """A dim form written as an expression: names, integers, + - *."""
        if tree.data == "name":
            text = str(tree.children[0])
            if text not in self.dims:
                e = self.err("E123", f"unknown dim {text}", tree)
                near = did_you_mean(text, self.dims)
                if not text[0].isupper() or near:
                    e.hint(f"did you mean {near}?" if near else "dims are capitalised names that stand in a type")
                if text[0].isupper() and not near:
                    self.dims.setdefault(text)
                    return Dim.of(text)
                raise e
            return Dim.of(text)
        if tree.data == "number":
            return Dim((), int(self.number(tree)))
        if tree.data == "paren":
            return self.dim_of(tree.children[0])
        if tree.data == "binary":
            a, op, b = self.dim_of(tree.children[0]), str(tree.children[1]), self.dim_of(tree.children[2])
            if op == "+":
                return a + b
            if op == "-":
                return a - b
            if op == "*" and (not a.terms or not b.terms):
                return b * a.const if not a.terms else a * b.const
        raise self.err("E124", "a dim is a sum of names and integers", tree)

    def call(self, tree: Any) -> Any:
        name, *raw = tree.children
        text = str(name)
        args = [a.children[0] for a in raw if a is not None and a.data == "positional"]
        kw = {str(a.children[0]): a.children[1] for a in raw if a is not None and a.data == "keyword"}
        if text in DType.__members__ or text in self.dtypes:
            return self.cast(self.value(self.expr(args[0]), self.dtype(name)), self.dtype(name))
        if text in self.kernel.names and isinstance(self.kernel.names[text], Kernel):
            return self.inline(self.kernel.names[text], args, kw, tree)
        handler = getattr(self, "fn_" + text, None)
        if text in UNARY:
            return self.elementwise(text, [self.expr(args[0])])
        if text in REDUCE or text in MACRO_REDUCE:
            return self.reduce(text, args, kw, tree)
        if handler is None:
            e = self.err("E120", f"unknown function {text}", name)
            near = did_you_mean(text, FUNCTIONS)
            raise e.hint(f"did you mean {near}?") if near else e
        try:
            return handler(tree, *args, **kw)
        except TypeError:
            raise self.err("E125", f"{text} does not take these arguments", tree) from None

    def reduce(self, text: str, args: list[Any], kw: dict[str, Any], tree: Any) -> Value:
        if "over" not in kw or len(args) != 1:
            raise self.err("E126", f"{text} needs the dim that it runs over", tree).hint(f"{text}(x, over=K)")
        x = self.common([self.expr(args[0])], keep=False)[0]
        over = kw["over"]
        dims = tuple(self.dim_of(t) for t in (over.children if over.data == "tuple_" else [over]) if t is not None)
        for d in dims:
            if d not in x.tensor.dims:
                raise self.err("E127", f"{text} over {d}, but {self.spell(args[0])} has dims [{', '.join(map(str, x.tensor.dims))}]", tree)
        rest = tuple(d for d in x.tensor.dims if d not in dims)
        if text in REDUCE:
            return self.op("reduce", [x], x.tensor.dtype, rest, op=REDUCE[text], dims=dims, order="any")
        x = self.cast(x, DType.f32) if not x.tensor.dtype.is_float else x
        return self.op(text, [x], x.tensor.dtype, x.tensor.dims if text == "softmax" else rest, dims=dims)

    def fn_gelu(self, tree: Any, x: Any, tanh: Any = None) -> Value:
        v = self.common([self.expr(x)], keep=False)[0]
        return self.op("gelu", [v], v.tensor.dtype, v.tensor.dims, tanh=int(tanh is not None and tanh.data == "true"))

    def fn_abs(self, tree: Any, x: Any) -> Value:
        return self.elementwise("abs", [self.expr(x)])

    def fn_floor(self, tree: Any, x: Any) -> Value:
        return self.elementwise("floor", [self.expr(x)], division=True)

    def fn_round(self, tree: Any, x: Any) -> Value:
        return self.elementwise("round", [self.expr(x)], division=True)

    def fn_maximum(self, tree: Any, x: Any, y: Any) -> Value:
        return self.elementwise("max", [self.expr(x), self.expr(y)], keep=True)

    def fn_minimum(self, tree: Any, x: Any, y: Any) -> Value:
        return self.elementwise("min", [self.expr(x), self.expr(y)], keep=True)

    def fn_clamp(self, tree: Any, x: Any, lo: Any, hi: Any) -> Value:
        low = self.elementwise("max", [self.expr(x), self.expr(lo)])
        return self.elementwise("min", [low, self.expr(hi)])

    def fn_where(self, tree: Any, cond: Any, x: Any, y: Any) -> Value:
        c = self.expr(cond)
        if not isinstance(c, Value) or c.tensor.dtype != DType.i1:
            raise self.err("E119", "where takes a condition first", cond)
        a, b = self.common([self.expr(x), self.expr(y)], keep=True)
        return self.op("select", [c, a, b], a.tensor.dtype, self.union([c, a, b]))

    def fn_iota(self, tree: Any, d: Any) -> Value:
        dim = self.dim_of(d)
        return self.op("iota", [], DType.i32, (dim,), dim=dim)

    def fn_size(self, tree: Any, d: Any) -> Value:
        return self.op("size", [], DType.i32, (), dim=self.dim_of(d))

    def tensor(self, tree: Any) -> Value:
        v = self.expr(tree)
        if not isinstance(v, Value):
            raise self.err("E128", "a tensor is needed here", tree)
        return v

    def has(self, v: Value, d: Dim, tree: Any) -> None:
        if d not in v.tensor.dims:
            raise self.err("E127", f"no dim {d} in [{', '.join(map(str, v.tensor.dims))}]", tree)

    def fn_rename(self, tree: Any, x: Any, **names: Any) -> Value:
        v = self.tensor(x)
        for old, new in names.items():
            o, n = Dim.of(old), self.dim_of(new)
            self.has(v, o, tree)
            if n in v.tensor.dims:
                raise self.err("E112", f"rename would put {n} into the tensor twice", tree)
            v = self.op("rename", [v], v.tensor.dtype, tuple(n if d == o else d for d in v.tensor.dims), **{"from": o, "to": n})
        return v

    def fn_slice(self, tree: Any, x: Any, d: Any, start: Any, new: Any) -> Value:
        v, old, at, to = self.tensor(x), self.dim_of(d), self.dim_of(start), self.dim_of(new)
        self.has(v, old, tree)
        return self.piece(v, old, at, to)

    def piece(self, v: Value, old: Dim, at: Dim, to: Dim) -> Value:
        return self.op("slice", [v], v.tensor.dtype, tuple(to if d == old else d for d in v.tensor.dims), dim=old, start=at, new=to)

    def fn_split(self, tree: Any, x: Any, *parts: Any) -> tuple[Value, ...]:
        v, dims = self.tensor(x), [self.dim_of(p) for p in parts]
        if len(dims) == 1:
            n = next((d.terms[0][1] // dims[0].terms[0][1] for d in v.tensor.dims
                      if dims[0].terms and d.terms and d.terms[0][1] % dims[0].terms[0][1] == 0
                      and dims[0] * (d.terms[0][1] // dims[0].terms[0][1]) == d and d != dims[0]), 0)
            if n == 0:
                raise self.err("E129", f"split finds no dim that is a multiple of {dims[0]} in [{', '.join(map(str, v.tensor.dims))}]", tree)
            dims = dims * n
        whole = dims[0]
        for d in dims[1:]:
            whole = whole + d
        self.has(v, whole, tree)
        out, at = [], Dim()
        for d in dims:
            out.append(self.piece(v, whole, at, d))
            at = at + d
        return tuple(out)

    def fn_concat(self, tree: Any, *xs: Any, over: Any = None) -> Value:
        if over is None:
            raise self.err("E126", "concat needs the dim that it joins", tree).hint("concat(a, b, over=F)")
        d = self.dim_of(over)
        vs = self.common([self.tensor(x) for x in xs], keep=True)
        for v in vs:
            self.has(v, d, tree)
            if set(v.tensor.dims) != set(vs[0].tensor.dims):
                raise self.err("E130", "concat joins tensors of the same dims", tree)
        new = d * len(vs)
        return self.op("concat", vs, vs[0].tensor.dtype, tuple(new if e == d else e for e in vs[0].tensor.dims), dim=d, new=new)

    def fn_dot(self, tree: Any, x: Any, y: Any, over: Any = None) -> Value:
        if over is None:
            raise self.err("E126", "dot needs the dim that it contracts", tree).hint("dot(x, y, over=K)")
        return self.matmul(self.expr(x), self.expr(y), x, y, tree, self.dim_of(over))

    def inline(self, kernel: Kernel, args: list[Any], kw: dict[str, Any], tree: Any) -> Any:
        """A kernel called from a kernel: its body stands here, its dims bound by position."""
        callee = lower(kernel, self.dtypes)
        tensors = [p for p in callee.params if not p.keyword]
        if len(args) != len(tensors):
            raise self.err("E131", f"{callee.name} takes {len(tensors)} tensors, {len(args)} given", tree)
        mapping: dict[Value, Value] = {}
        dims: dict[str, Dim] = {}
        for p, a in zip(tensors, args, strict=True):
            v = self.tensor(a)
            if len(v.tensor.dims) != len(p.value.tensor.dims):
                raise self.err("E131", f"{p.name} of {callee.name} has {len(p.value.tensor.dims)} dims, {len(v.tensor.dims)} given", a)
            for mine, theirs in zip(p.value.tensor.dims, v.tensor.dims, strict=True):
                if mine.name is not None and dims.setdefault(mine.name, theirs) != theirs:
                    raise self.err("E131", f"dim {mine} of {callee.name} would be {dims[mine.name]} and {theirs}", a)
            mapping[p.value] = self.cast(v, p.value.tensor.dtype)
        for p in callee.params:
            if p.keyword:
                given = self.expr(kw[p.name]) if p.name in kw else Literal(p.default, self.src.of(tree)) if p.default is not None else None
                if given is None:
                    raise self.err("E131", f"{callee.name} needs {p.name}=", tree)
                mapping[p.value] = self.cast(self.value(given, p.value.tensor.dtype), p.value.tensor.dtype)

        def renamed(x: Any) -> Any:
            if isinstance(x, Dim):
                return x.subst(dims)
            return tuple(renamed(y) for y in x) if isinstance(x, tuple) else x

        for o in callee.body.ops:
            types = [TensorType(renamed(r.tensor.dims), r.tensor.dtype) for r in o.results]
            out = self.b.op(o.name, [mapping[x] for x in o.operands], types, **{k: renamed(v) for k, v in o.attrs.items()})
            mapping.update(zip(o.results, out, strict=True))
        out = [mapping[r] for r in callee.results]
        return out[0] if len(out) == 1 else tuple(out)
