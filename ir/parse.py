"""Reads the text form of both IR levels (`ir/text.py`) by recursive descent; faults are at file:line:column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from rvgpu.errors import Loc, RvgpuError, did_you_mean
from rvgpu.ir.core import Attr, Block, Func, Op, Param, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.text import HEADER
from rvgpu.ir.tile_build import KFunc, KTensor
from rvgpu.ir.types import (
    AccType,
    DType,
    IdxType,
    MemType,
    OpndType,
    ScalarType,
    TensorType,
    TokType,
    Type,
    VecType,
)

TOKEN = re.compile(r"""(?P<space>[ \t\r]+|//[^\n]*)|(?P<line>\n)
    |(?P<value>%[A-Za-z0-9_.]+)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)
    |(?P<word>[A-Za-z_][A-Za-z0-9_.]*)
    |(?P<sign>->|[@(){}\[\]<>,:=*+^-])
    """, re.VERBOSE)
DTYPES = {d.name: d for d in DType}
T = TypeVar("T")


def parse(text: str, file: str = "<text>") -> list[Func | KFunc]:
    """Every function and kernel of the text. E401 syntax, E402 unknown value, E403 unknown type or dtype, E404 defined
    twice, E405 results and types do not match."""
    return Parser(text, file).module()


def parse_func(text: str, file: str = "<text>") -> Func:
    """The text's only level T function."""
    funcs = parse(text, file)
    if len(funcs) != 1 or not isinstance(funcs[0], Func):
        raise RvgpuError("E401", f"one func needed, found {len(funcs)} of another kind or number", Loc(file, 1))
    return funcs[0]


def parse_kernel(text: str, file: str = "<text>") -> KFunc:
    """The text's only kernel."""
    funcs = parse(text, file)
    if len(funcs) != 1 or not isinstance(funcs[0], KFunc):
        raise RvgpuError("E401", f"one kernel needed, found {len(funcs)} of another kind or number", Loc(file, 1))
    return funcs[0]


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    at: int


class Parser:
    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.tokens = self.scan()
        self.n = 0
        self.values: dict[str, Value] = {}
        self.source = file  # the file that locations in the text refer to

    # -- tokens
    def scan(self) -> list[Token]:
        out, at = [], 0
        while at < len(self.text):
            found = TOKEN.match(self.text, at)
            if found is None or found.lastgroup is None:
                self.fail_at(at, "E401", f"unexpected character {self.text[at]!r}")
            if found.lastgroup not in ("space", "line"):
                out.append(Token(found.lastgroup, found.group(), at))
            at = found.end()
        return [*out, Token("end", "the end of the text", len(self.text))]

    @property
    def here(self) -> Token:
        return self.tokens[self.n]

    def fail_at(self, at: int, code: str, message: str, width: int = 1, hint: str | None = None) -> NoReturn:
        start = self.text.rfind("\n", 0, at) + 1
        line = self.text[start:].split("\n", 1)[0]
        error = RvgpuError(code, message, Loc(self.file, self.text.count("\n", 0, at) + 1, at - start + 1, width, line))
        raise error.hint(hint) if hint else error

    def fail(self, code: str, message: str, token: Token | None = None, hint: str | None = None) -> NoReturn:
        t = token or self.here
        self.fail_at(t.at, code, message, 1 if t.kind == "end" else len(t.text), hint)

    def next(self, kind: str, what: str) -> Token:
        t = self.here
        if t.kind != kind:
            self.fail("E401", f"{what} needed, found {t.text}")
        self.n += 1
        return t

    def accept(self, text: str) -> bool:
        if self.here.text == text and self.here.kind in ("sign", "word"):
            self.n += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail("E401", f"`{text}` needed, found {self.here.text}")

    def word(self, what: str) -> str:
        return self.next("word", what).text

    def list_of(self, item: Callable[[], T], end: str) -> list[T]:
        """Items separated by commas up to `end`, which is taken; a trailing comma is allowed."""
        out: list[T] = []
        while not self.accept(end):
            out.append(item())
            if not self.accept(","):
                self.expect(end)
                break
        return out

    # -- functions
    def module(self) -> list[Func | KFunc]:
        out: list[Func | KFunc] = []
        while self.here.kind != "end":
            self.values, self.source = {}, self.file
            if self.accept("func"):
                out.append(self.func())
            elif self.accept("kernel"):
                out.append(self.kernel())
            else:
                self.fail("E401", f"`func` or `kernel` needed, found {self.here.text}")
        return out

    def func(self) -> Func:
        self.expect("@")
        name = self.word("a name")
        self.expect("(")
        pending: list[tuple[Param, tuple[str | None, int, int, int] | None]] = []

        def param() -> None:
            keyword = self.accept("*")
            v = self.define_token()
            label = self.word("a name") if self.here.kind == "word" else self.tokens[self.n - 1].text[1:]
            self.expect(":")
            value = self.define(v, self.type())
            default = self.number() if self.accept("=") else None
            pending.append((Param(label, value, keyword, default), self.span()))

        self.list_of(param, ")")
        self.expect("->")
        self.expect("(")
        names: list[str] = []

        def result() -> TensorType:
            if self.here.kind == "word" and self.tokens[self.n + 1].text == ":":
                names.append(self.word("a name"))
                self.expect(":")
            t = self.type()
            if not isinstance(t, TensorType):
                self.fail("E403", f"a tensor type needed, found {t}", self.tokens[self.n - 1])
            return t

        types = self.list_of(result, ")")
        loc = self.header()
        for p, span in pending:
            p.loc = self.located(span)
        self.expect("{")
        block = self.ops()
        at = self.here
        self.expect("return")
        results: list[Value] = []
        while self.here.kind == "value":
            results.append(self.use())
            if not self.accept(","):
                break
        self.expect("}")
        if len(results) != len(types):
            self.fail("E405", f"{len(types)} results are declared, {len(results)} returned", at)
        return Func(name, [p for p, _ in pending], block, results, types, loc, names)

    def kernel(self) -> KFunc:
        self.expect("@")
        f = KFunc(self.word("a name"), [], [], [], 0)
        self.expect("(")

        def part() -> None:
            at = self.here
            kind = self.word("in, out, scalar or dim")
            name = self.word("a name")
            if kind == "dim":
                f.dims.append(name)
                return
            self.expect(":")
            t = self.type()
            if kind == "scalar" and isinstance(t, ScalarType):
                f.scalars.append((name, t.dtype))
            elif kind in ("in", "out") and isinstance(t, TensorType):
                f.tensors.append(KTensor(name, t.dtype, t.dims, kind == "out"))
            else:
                self.fail("E401", f"in, out, scalar or dim needed, found {kind} {name}: {t}", at)

        self.list_of(part, ")")
        self.expect("{")

        def number() -> None:
            at = self.here
            key = self.word("a name")
            if key not in HEADER:
                self.fail("E401", f"a kernel has no `{key}`", at, hint=f"known: {', '.join(HEADER)}")
            self.expect("=")
            setattr(f, key, int(self.number()))

        self.list_of(number, "}")
        f.loc = self.header()
        self.expect("{")
        f.body = self.ops()
        self.expect("}")
        return f

    def header(self) -> Loc | None:
        if self.accept("file"):
            self.source = json.loads(self.next("string", "a file name").text)
        return self.loc()

    # -- locations: read before the file is known, made after
    def span(self) -> tuple[str | None, int, int, int] | None:
        if not self.accept("@"):
            return None
        file = None
        if self.here.kind == "string":
            file = json.loads(self.next("string", "a file name").text)
            self.expect(":")
        line = int(self.next("number", "a line").text)
        self.expect(":")
        col = int(self.next("number", "a column").text)
        return file, line, col, int(self.next("number", "a width").text) if self.accept("+") else 1

    def located(self, span: tuple[str | None, int, int, int] | None) -> Loc | None:
        return Loc(span[0] or self.source, *span[1:]) if span else None

    def loc(self) -> Loc | None:
        return self.located(self.span())

    # -- ops
    def ops(self) -> Block:
        """Ops up to `}` or `return`, which are left."""
        block = Block()
        while self.here.text not in ("}", "return") or self.here.kind == "string":
            block.ops.append(self.op())
        return block

    def op(self) -> Op:
        targets: list[Token] = []
        if self.here.kind == "value":
            targets.append(self.define_token())
            while self.accept(","):
                targets.append(self.define_token())
            self.expect("=")
        name = self.word("an op")
        self.expect("(")
        op = Op(name, self.list_of(self.use, ")"))
        if self.accept("{"):
            def entry() -> None:
                key = self.word("an attribute's name")
                self.expect("=")
                op.attrs[key] = self.attr()

            self.list_of(entry, "}")
        while self.accept("^"):
            op.regions.append(self.region())
        at = self.here
        types = self.types() if self.accept(":") else []
        if len(types) != len(targets):
            self.fail("E405", f"{name} has {len(targets)} results and {len(types)} result types", at)
        op.loc = self.loc()
        for n, (token, t) in enumerate(zip(targets, types, strict=True)):
            value = self.define(token, t)
            value.op, value.index = op, n
            op.results.append(value)
        return op

    def types(self) -> list[Type]:
        out = [self.type()]
        while self.accept(","):
            out.append(self.type())
        return out

    def region(self) -> Block:
        self.expect("(")

        def arg() -> Value:
            token = self.define_token()
            self.expect(":")
            return self.define(token, self.type())

        args = self.list_of(arg, ")")
        self.expect("{")
        block = self.ops()
        self.expect("}")
        block.args = args
        return block

    def define_token(self) -> Token:
        return self.next("value", "a value such as %x")

    def define(self, token: Token, type: Type) -> Value:
        name = token.text[1:]
        if name in self.values:
            self.fail("E404", f"{token.text} is defined twice", token)
        self.values[name] = v = Value(type, hint="" if name[0].isdigit() else name)
        return v

    def use(self) -> Value:
        t = self.define_token()
        name = t.text[1:]
        if name not in self.values:
            near = did_you_mean(name, self.values)
            self.fail("E402", f"no value {t.text} before its use", t, hint=f"did you mean %{near}?" if near else None)
        return self.values[name]

    # -- attributes
    def attr(self) -> Attr:
        t = self.here
        if t.kind == "string":
            self.n += 1
            return str(json.loads(t.text))
        if self.accept("["):
            d = self.dim()
            self.expect("]")
            return d
        if self.accept("("):
            return tuple(self.list_of(self.attr, ")"))
        if t.kind == "word" and t.text not in ("inf", "nan"):
            self.n += 1
            if t.text in ("true", "false"):
                return t.text == "true"
            return self.dtype(t)
        return self.number()

    def number(self) -> float | int:
        minus = self.accept("-")
        t = self.here
        if t.text in ("inf", "nan"):
            self.n += 1
            x: float | int = float(t.text)
        else:
            text = self.next("number", "a number").text
            x = int(text) if text.isdigit() else float(text)
        return -x if minus else x

    def dim(self) -> Dim:
        out, sign = Dim(), 1
        if self.accept("-"):
            sign = -1
        while True:
            if self.here.kind == "number":
                t = self.next("number", "a number")
                if not t.text.isdigit():
                    self.fail("E401", f"an integer needed, found {t.text}", t)
                k = int(t.text)
                out = out + (Dim.of(self.word("a dim")) * k if self.accept("*") else Dim((), k)) * sign
            else:
                out = out + Dim.of(self.word("a dim")) * sign
            if self.accept("+"):
                sign = 1
            elif self.accept("-"):
                sign = -1
            else:
                return out

    # -- types
    def dtype(self, token: Token | None = None) -> DType:
        t = token or self.next("word", "a dtype")
        if t.text not in DTYPES:
            near = did_you_mean(t.text, DTYPES)
            self.fail("E403", f"no dtype or type is called {t.text}", t, hint=f"did you mean {near}?" if near else None)
        return DTYPES[t.text]

    def count(self) -> int:
        n = int(self.next("number", "a number").text)
        self.expect("x")
        return n

    def type(self) -> Type:
        t = self.next("word", "a type")
        if t.text == "idx":
            return IdxType()
        if t.text == "tok":
            return TokType()
        if t.text not in ("tensor", "vt", "mem", "acc", "opnd"):
            return ScalarType(self.dtype(t))
        self.expect("<")
        out: Type
        if t.text == "tensor":
            self.expect("[")
            dims = self.list_of(self.dim, "]")
            self.expect("x")
            out = TensorType(tuple(dims), self.dtype())
        elif t.text == "vt":
            out = VecType(self.count(), self.dtype())
        elif t.text == "opnd":
            out = OpndType(self.count(), self.dtype())
        elif t.text == "mem":
            space = self.word("dram or spm")
            self.expect(",")
            out = MemType(space, self.count(), self.dtype())
        else:
            out = AccType(self.dtype())
        self.expect(">")
        return out
