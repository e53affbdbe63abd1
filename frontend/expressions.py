"""Expressions become ops: names, operators, `@`, and calls through the table of functions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from rvgpu.frontend.functions import FUNCTIONS
from rvgpu.frontend.scope import SMALL_FLOAT, Kernel, Literal, Operand, Scope, bracketed
from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.shapes import accumulator, broadcast_dims, contract_dims
from rvgpu.ir.types import DType, TensorType

OPS = {"+": "add", "-": "sub", "*": "mul", "/": "div", "%": "mod", "//": "div"}
FOLD: Mapping[str, Callable[[Any, Any], Any]] = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
                                                 "//": operator.floordiv, "%": operator.mod}
COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
WIDENED = frozenset({DType.i16, DType.i4})  # contractions of these run in i32


class Expressions(Scope):
    def __init__(self, kernel: Kernel, dtypes: Mapping[str, str], lower: Callable[[Kernel, Mapping[str, str]], Func]) -> None:
        super().__init__(kernel, dtypes)
        self.lower = lower

    def expr(self, tree: Any) -> Any:
        """A value, a Literal, or a tuple of them; ops carry the location of the expression that made them."""
        saved, self.b.loc = self.b.loc, self.src.of(tree)
        out = getattr(self, "x_" + tree.data)(tree, *tree.children)
        self.b.loc = saved
        return out

    def tensor(self, tree: Any) -> Value:
        v = self.expr(tree)
        if not isinstance(v, Value):
            raise self.err("E128", "a tensor is needed here", tree)
        return v

    def condition(self, tree: Any, who: str) -> Value:
        v = self.expr(tree)
        if not isinstance(v, Value) or v.tensor.dtype != DType.i1:
            found = f"is {v.tensor.dtype}" if isinstance(v, Value) else "is not one"
            raise self.err("E119", f"{who} needs a condition, {self.spell(tree)} {found}", tree)
        return v

    # -- leaves
    def x_number(self, tree: Any, _text: Any) -> Literal:
        return Literal(self.number(tree), self.src.of(tree))

    def x_infinite(self, tree: Any) -> Literal:
        return Literal(self.number(tree), self.src.of(tree))

    def x_true(self, tree: Any) -> Value:
        return self.op("const", [], DType.i1, (), value=1)

    def x_false(self, tree: Any) -> Value:
        return self.op("const", [], DType.i1, (), value=0)

    def x_paren(self, tree: Any, inner: Any) -> Any:
        return self.expr(inner)

    def x_tuple_(self, tree: Any, *parts: Any) -> tuple[Any, ...]:
        return tuple(self.expr(p) for p in parts if p is not None)

    def x_name(self, tree: Any, token: Any) -> Any:
        text = str(token)
        if text in self.env:
            return self.env[text]
        outer = self.kernel.names.get(text)
        if isinstance(outer, (int, float)) and not isinstance(outer, bool):
            return Literal(outer, self.src.of(token))
        if text in self.dims:
            raise self.err("E120", f"{text} is a dim, not a value", token).hint(f"size({text}) is its extent, iota({text}) its positions")
        raise self.unknown("E120", "name", text, [*self.env, *FUNCTIONS, *self.dims], token)

    # -- operators
    def x_neg(self, tree: Any, inner: Any) -> Operand:
        x = self.expr(inner)
        return Literal(-x.value, self.src.of(tree)) if isinstance(x, Literal) else self.elementwise("neg", [x])

    def x_pos(self, tree: Any, inner: Any) -> Any:
        return self.expr(inner)

    def x_invert(self, tree: Any, inner: Any) -> Value:
        x = self.condition(inner, "`~`")
        return self.op("not", [x], DType.i1, x.tensor.dims)

    def x_compare(self, tree: Any, left: Any, op: Any, right: Any) -> Value:
        return self.elementwise(COMPARE[str(op)], [self.expr(left), self.expr(right)], out=DType.i1)

    def x_and_(self, tree: Any, left: Any, right: Any) -> Value:
        return self._logic("and", "`&`", left, right)

    def x_or_(self, tree: Any, left: Any, right: Any) -> Value:
        return self._logic("or", "`|`", left, right)

    def _logic(self, name: str, sign: str, left: Any, right: Any) -> Value:
        vs = [self.condition(left, sign), self.condition(right, sign)]
        return self.op(name, vs, DType.i1, broadcast_dims([v.tensor.dims for v in vs]))

    def x_binary(self, tree: Any, left: Any, sign: Any, right: Any) -> Operand:
        a, b, op = self.expr(left), self.expr(right), str(sign)
        if op == "@":
            return self.matmul(a, b, left, right, tree)
        if isinstance(a, Literal) and isinstance(b, Literal):
            try:
                return Literal(FOLD[op](a.value, b.value), self.src.of(tree))
            except ZeroDivisionError:
                raise self.err("E121", "division by zero", tree) from None
        out = self.elementwise(OPS[op], [a, b], division=op == "/")
        return self.op("floor", [out], out.tensor.dtype, out.tensor.dims) if op == "//" and out.tensor.dtype.is_float else out

    def x_pow(self, tree: Any, left: Any, right: Any) -> Operand:
        x, n = self.expr(left), self.expr(right)
        if not isinstance(n, Literal) or not isinstance(n.value, int):
            raise self.err("E122", "the exponent is an integer literal", right)
        if isinstance(x, Literal):
            try:
                return Literal(x.value**n.value, self.src.of(tree))
            except ZeroDivisionError:
                raise self.err("E121", "division by zero", tree) from None
        base = self.common([x], keep=False)[0]
        if n.value == 0:
            return self.elementwise("add", [self.elementwise("mul", [base, Literal(0, self.src.of(tree))]), Literal(1, self.src.of(tree))])
        out = self._power(base, abs(n.value))
        return self.elementwise("div", [Literal(1, self.src.of(tree)), out], division=True) if n.value < 0 else out

    def _power(self, base: Value, n: int) -> Value:
        """By squaring: x^5 = (x^2)^2 x."""
        if n == 1:
            return base
        half = self._power(base, n // 2)
        out = self.op("mul", [half, half], base.tensor.dtype, base.tensor.dims)
        return self.op("mul", [out, base], base.tensor.dtype, base.tensor.dims) if n % 2 else out

    # -- contractions
    def matmul(self, a: Any, b: Any, left: Any, right: Any, tree: Any, over: Dim | None = None) -> Value:
        if not isinstance(a, Value) or not isinstance(b, Value):
            raise self.err("E102", f"`{self.spell(tree)}` contracts two tensors", tree)
        if not a.tensor.dims:
            raise self.err("E102", f"`{self.spell(tree)}` contracts a tensor's last dim, but {self.spell(left)} has no dims", tree)
        k = over or a.tensor.dims[-1]
        for v, other, node in ((a, b, left), (b, a, right)):
            if k not in v.tensor.dims:
                e = self.err("E103", f"`{self.spell(tree)}` contracts {k}, but {self.spell(node)} has no dim {k}", tree)
                e.note(self.describe(v, self.spell(node)))
                same = next((d for d in v.tensor.dims if d not in other.tensor.dims), None)
                raise e.hint(f"rename({self.spell(node)}, {same}={k}) if {same} is the same dim") if same else e
        x, y = self._contractible(a, b, tree)
        return self.op("contract", [x, y], accumulator(x.tensor.dtype), contract_dims(x.tensor.dims, y.tensor.dims, [k]), dims=(k,), order="any")

    def _contractible(self, a: Value, b: Value, tree: Any) -> tuple[Value, Value]:
        """Rule 5: one f32 operand is rounded to the other's 16-bit or smaller float; integers of two kinds meet in i32."""
        da, db = a.tensor.dtype, b.tensor.dtype
        if DType.i1 in (da, db):
            raise self.err("E104", "`@` multiplies numbers, not conditions", tree)
        if da == db and da not in WIDENED:
            return a, b
        if da == DType.f32 and db in SMALL_FLOAT:
            return self.cast(a, db), b
        if db == DType.f32 and da in SMALL_FLOAT:
            return a, self.cast(b, da)
        if da.is_float and db.is_float and DType.f64 not in (da, db):
            raise self.err("E105", f"`@` of {da} and {db}", tree).hint(f"convert one side: {da}(...) or f32(...)")
        to = DType.f64 if DType.f64 in (da, db) else DType.f32 if da.is_float or db.is_float else DType.i32
        return self.cast(a, to), self.cast(b, to)

    # -- calls
    def x_call(self, tree: Any, token: Any, arguments: Any) -> Any:
        name, raw = str(token), arguments.children if arguments is not None else []
        args = [a.children[0] for a in raw if a.data == "positional"]
        named: dict[str, Any] = {}
        for a in raw:
            if a.data == "keyword":
                if str(a.children[0]) in named:
                    raise self.err("E125", f"{a.children[0]} is given twice", a)
                named[str(a.children[0])] = a.children[1]
        if name in DType.__members__:
            if len(args) != 1 or named:
                raise self.err("E125", f"{name}(x) converts one value", tree)
            dtype = self.dtype(token)
            return self.cast(self.value(self.expr(args[0]), dtype), dtype)
        if isinstance(self.kernel.names.get(name), Kernel):
            return self.inline(self.kernel.names[name], args, named, tree)
        if name not in FUNCTIONS:
            raise self.unknown("E120", "function", name, [*FUNCTIONS, *DType.__members__, *(k for k, v in self.kernel.names.items()
                                                                                         if isinstance(v, Kernel))], token)
        fn = FUNCTIONS[name]
        if not fn.accepts(len(args), named):
            if fn.over and "over" not in named:
                raise self.err("E126", f"{name} needs the dim that it runs over", tree).hint(fn.usage(name))
            raise self.err("E125", f"{name} does not take these arguments", tree).hint(fn.usage(name))
        return fn.make(self, tree, *args, **named)

    def inline(self, kernel: Kernel, args: list[Any], named: dict[str, Any], tree: Any) -> Any:
        """A kernel called from a kernel: its body stands here, its dims bound by position. E131."""
        callee = self.lower(kernel, self.dtypes)
        tensors = [p for p in callee.params if not p.keyword]
        if len(args) != len(tensors):
            raise self.err("E131", f"{callee.name} takes {len(tensors)} tensor{'s' * (len(tensors) != 1)}, {len(args)} given", tree)
        mapping: dict[Value, Value] = {}
        dims: dict[str, Dim] = {}
        for p, a in zip(tensors, args, strict=True):
            v = self.tensor(a)
            want = p.value.tensor.dims
            if len(v.tensor.dims) != len(want):
                raise self.err("E131", f"{p.name} of {callee.name} is {bracketed(want)}, {self.spell(a)} is {bracketed(v.tensor.dims)}", a)
            for mine, theirs in zip(want, v.tensor.dims, strict=True):
                if mine.name is not None and dims.setdefault(mine.name, theirs) != theirs:
                    raise self.err("E131", f"dim {mine} of {callee.name} would be {dims[mine.name]} and {theirs}", a)
            for mine, theirs in zip(want, v.tensor.dims, strict=True):
                if all(n in dims for n in mine.names) and mine.subst(dims) != theirs:
                    raise self.err("E131", f"dim {mine} of {callee.name} would be {mine.subst(dims)} and {theirs}", a)
            mapping[p.value] = self.cast(v, p.value.tensor.dtype)
        scalars = {p.name: p for p in callee.params if p.keyword}
        for name in named:
            if name not in scalars:
                raise self.unknown("E131", f"scalar of {callee.name}:", name, list(scalars), tree)
        for p in scalars.values():
            given = self.expr(named[p.name]) if p.name in named else Literal(p.default, self.src.of(tree)) if p.default is not None else None
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


__all__ = ["Expressions"]
