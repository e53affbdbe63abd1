"""Kernels of a text become level T functions: parameters, statements, results; every implied conversion becomes a `cast`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvgpu.errors import RvgpuError
from rvgpu.frontend.expressions import Expressions
from rvgpu.frontend.functions import FUNCTIONS
from rvgpu.frontend.parse import Source, parse
from rvgpu.frontend.scope import Kernel, Operand, bracketed
from rvgpu.ir.core import Func, Param, Value
from rvgpu.ir.types import DType, TensorType


def parse_text(text: str, file: str = "<text>", first_line: int = 1, indent: int = 0, names: Mapping[str, Any] | None = None) -> dict[str, Kernel]:
    """Every kernel of a text, by name. E101 syntax, E107 a name given twice or taken."""
    source = Source(text, file, first_line, indent)
    tree = parse(source)
    found: dict[str, Kernel] = {}
    for k in tree.children:
        if hasattr(k, "data"):
            kernel = Kernel(k, source, {**(names or {}), **found})
            token = next(c for c in k.children if getattr(c, "type", "") == "NAME")
            if kernel.name in found or kernel.name in FUNCTIONS or kernel.name in DType.__members__:
                what = "a kernel above" if kernel.name in found else "the language's own"
                raise RvgpuError("E107", f"the name {kernel.name} is {what}", source.of(token))
            found[kernel.name] = kernel
    return found


def lower(kernel: Kernel, dtypes: Mapping[str, str] | None = None) -> Func:
    """The level T function; `dtypes` replaces dtypes throughout ({"bf16": "f16"})."""
    return _Function(kernel, dtypes or {}, lower).run()


class _Function(Expressions):
    def run(self) -> Func:
        parts = [c for c in self.kernel.tree.children if c is not None and getattr(c, "data", "") != "decorator"]
        name, *rest = parts
        params = self.params(rest[0].children if rest[0].data == "params" else ())
        result_tree, suite = rest[-2], rest[-1]
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

    def params(self, trees: Any) -> list[Param]:
        """Tensors by position, scalars by keyword. E108."""
        out: list[Param] = []
        star = False
        for p in trees:
            if p is None:
                continue
            if p.data == "star":
                if star or p is trees[-1] or trees[-1] is None and p is trees[-2]:
                    raise self.err("E101", "`*` stands once, before the scalars", p)
                star = True
                continue
            token, ty, default = p.children
            n, t, loc = str(token), self.type(ty), self.src.of(p)
            if n in self.env:
                raise self.err("E107", f"parameter {n} is declared twice", p)
            if star and t.dims:
                raise self.err("E108", f"{n} is a tensor: tensors stand before `*`", p)
            if not star and not t.dims:
                raise self.err("E108", f"{n} is a scalar: scalars are keyword parameters", p).hint(f"put it behind `*`: (..., *, {n}: {t.dtype})")
            if default is not None and t.dims:
                raise self.err("E108", f"tensor {n} cannot have a default", p)
            value = Value(t, hint=n)
            out.append(Param(n, value, star, None if default is None else self.number(default), loc))
            self.env[n] = value
            self.declared[value] = (n, loc)
        return out

    def statement(self, s: Any, types: list[TensorType]) -> list[Value] | None:
        if s.data == "docstring":
            return None
        self.b.loc = self.src.of(s)
        if s.data == "typed_assign":
            name, ty, expr = s.children
            want = self.type(ty)
            x = self.value(self.expr(expr), want.dtype)
            if ty.children[1] is not None and set(want.dims) != set(x.tensor.dims):
                raise self.err("E115", f"{name} is declared {bracketed(want.dims)}, its value has {bracketed(x.tensor.dims)}", ty)
            self.env[str(name)] = self.cast(x, want.dtype)
        elif s.data == "assign":
            *names, expr = s.children
            x = self.expr(expr)
            if len(names) == 1:
                self.env[str(names[0])] = x
            else:
                count = len(x) if isinstance(x, tuple) else 1
                if count != len(names):
                    raise self.err("E116", f"{len(names)} names, but the value has {count} part{'s' if count > 1 else ''}", expr)
                self.env.update({str(n): v for n, v in zip(names, x, strict=True)})
        elif s.data == "return_":
            values = [self.expr(c) for c in s.children if c is not None]
            if len(values) == 1 and isinstance(values[0], tuple):
                values = list(values[0])
            if len(values) != len(types):
                raise self.err("E117", f"{len(types)} result{'s are' if len(types) > 1 else ' is'} declared, {len(values)} returned", s)
            return [self.result(v, t, s) for v, t in zip(values, types, strict=True)]
        return None

    def result(self, v: Operand, t: TensorType, node: Any) -> Value:
        x = self.value(v, t.dtype)
        if set(x.tensor.dims) != set(t.dims):
            raise self.err("E118", f"the result is declared {bracketed(t.dims)}, the value has {bracketed(x.tensor.dims)}", node)
        return self.cast(x, t.dtype)


__all__ = ["Kernel", "lower", "parse_text"]
