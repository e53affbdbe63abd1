"""The text form of both IR levels: a printer whose output the parser in `ir/parse.py` reads back to an equal function.

    func @f(%x: tensor<[M,2*F] x f32>, *%eps: tensor<[] x f32> = 1e-06) -> (out: tensor<[M] x f32>) file "f.py" {
      %y = reduce(%x) {op="sum", dims=([2*F],), order="any"} : tensor<[M] x f32> @3:9+4
      return %y
    }
    kernel @k(in x: tensor<[M] x f32>, out out: tensor<[M] x f32>, scalar eps: f32, dim M) {warps=4, ...} { ... }

Every op is `results = name(operands) {attributes} ^(arguments) { region } : result types @line:column+width`. In
attributes a dim stands in brackets, a string in quotes, a dtype bare.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain

from rvgpu.errors import Loc
from rvgpu.ir.core import Attr, Block, Func, Op, Param, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType

HEADER = ("warps", "spm_bytes", "vlen", "te")  # a kernel's numbers


def print_func(func: Func | KFunc, *, locs: bool = True, hints: bool = True) -> str:
    """The text of one function; `parse` gives it back. Without `hints` values are numbered in order."""
    p = Printer(locs, hints)
    lines = p.tensor_func(func) if isinstance(func, Func) else p.kernel(func)
    return "\n".join(lines) + "\n"


def print_funcs(funcs: Sequence[Func | KFunc], *, locs: bool = True) -> str:
    return "\n".join(print_func(f, locs=locs) for f in funcs)


def print_op(op: Op) -> str:
    """One op for a message; regions are left out."""
    p = Printer(False, True)
    return p.op_line(op) + ("{ ... }" if op.regions else "") + p.tail(op)


def same(f: Func | KFunc, g: Func | KFunc) -> bool:
    """Structural equality, up to locations and the names of values."""
    return print_func(f, locs=False, hints=False) == print_func(g, locs=False, hints=False)


def attr_text(x: Attr) -> str:
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, str):
        return json.dumps(x)
    if isinstance(x, DType):
        return str(x)
    if isinstance(x, Dim):
        return f"[{x}]"
    if isinstance(x, tuple):
        return "(" + ", ".join(map(attr_text, x)) + ("," if len(x) == 1 else "") + ")"
    return number_text(x)


def number_text(x: float | int) -> str:
    """Integers as they are; floats so that they parse back to the same value."""
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, int) or hasattr(x, "dtype") and x.dtype.kind in "iu":
        return str(int(x))
    x = float(x)
    return "nan" if math.isnan(x) else repr(x)


class Printer:
    def __init__(self, locs: bool, hints: bool) -> None:
        self.locs, self.hints = locs, hints
        self.names: dict[Value, str] = {}
        self.taken: set[str] = set()
        self.count = 0
        self.file: str | None = None

    # -- names
    def name(self, v: Value) -> str:
        if v not in self.names:
            self.names[v] = self.fresh(v.hint if self.hints else "")
        return "%" + self.names[v]

    def fresh(self, hint: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", hint):
            self.count += 1
            return str(self.count - 1)
        name, n = hint, 0
        while name in self.taken:
            n += 1
            name = f"{hint}_{n}"
        self.taken.add(name)
        return name

    def values(self, vs: Sequence[Value]) -> str:
        return ", ".join(map(self.name, vs))

    # -- locations
    def loc(self, loc: Loc | None) -> str:
        if loc is None or not self.locs:
            return ""
        file = "" if loc.file == self.file else json.dumps(loc.file) + ":"
        return f" @{file}{loc.line}:{loc.col}" + (f"+{loc.width}" if loc.width != 1 else "")

    def header_file(self, own: Loc | None, params: Sequence[Param], body: Block) -> str:
        """The file most locations are in stands once, in the header."""
        if not self.locs:
            return ""
        locs: Iterator[Loc | None] = chain([own], (p.loc for p in params), (op.loc for op in body.walk()))
        first = next((x for x in locs if x is not None), None)
        if first is None:
            return ""
        self.file = first.file
        return f" file {json.dumps(first.file)}" + self.loc(own)

    # -- functions
    def tensor_func(self, f: Func) -> list[str]:
        file = self.header_file(f.loc, f.params, f.body)
        params = []
        for p in f.params:
            if self.hints:
                self.names[p.value] = p.name
                self.taken.add(p.name)
            default = "" if p.default is None else f" = {number_text(p.default)}"
            name = self.name(p.value) if self.hints else f"{self.name(p.value)} {p.name}"
            params.append(f"{'*' if p.keyword else ''}{name}: {p.value.type}{default}{self.loc(p.loc)}")
        names = [n + ": " for n in f.result_names] or [""] * len(f.result_types)
        results = ", ".join(f"{n}{t}" for n, t in zip(names, f.result_types, strict=True))
        return [f"func @{f.name}({', '.join(params)}) -> ({results}){file} {{", *self.body(f.body, 1),
                f"  return {self.values(f.results)}".rstrip(), "}"]

    def kernel(self, f: KFunc) -> list[str]:
        file = self.header_file(f.loc, [], f.body)
        parts = [f"{'out' if t.output else 'in'} {t.name}: tensor<[{','.join(map(str, t.dims))}] x {t.dtype}>"
                 for t in f.tensors]
        parts += [f"scalar {n}: {d}" for n, d in f.scalars] + [f"dim {n}" for n in f.dims]
        header = ", ".join(f"{n}={getattr(f, n)}" for n in HEADER)
        return [f"kernel @{f.name}({', '.join(parts)}) {{{header}}}{file} {{", *self.body(f.body, 1), "}"]

    # -- ops
    def body(self, block: Block, depth: int) -> Iterator[str]:
        for op in block.ops:
            yield from self.op(op, depth)

    def op(self, op: Op, depth: int) -> Iterator[str]:
        pad = "  " * depth
        head = pad + self.op_line(op)
        for region in op.regions:
            args = ", ".join(f"{self.name(a)}: {a.type}" for a in region.args)
            yield f"{head}^({args}) {{"
            yield from self.body(region, depth + 1)
            head = pad + "} "
        yield (head + self.tail(op) + self.loc(op.loc)).rstrip()

    def op_line(self, op: Op) -> str:
        operands = self.values(op.operands)  # named first: an op never sees its own results
        results = self.values(op.results) + " = " if op.results else ""
        attrs = " {" + ", ".join(f"{k}={attr_text(v)}" for k, v in op.attrs.items()) + "}" if op.attrs else ""
        return f"{results}{op.name}({operands}){attrs} "

    def tail(self, op: Op) -> str:
        return (": " + ", ".join(str(r.type) for r in op.results)) if op.results else ""
