"""Restricted Python to LLVM IR: the language in which meanings and models are written once (long: a method for each construct).

CPython runs the same functions as the reference. The subset:
- functions with positional parameters annotated `int` (signed 64-bit, wrapping), or a `ctypes.Structure` (a pointer to it); one in capitals takes a
  constant, to which the function is specialised;
- assignments (also `a, b = x, y`), augmented assignments, if/elif/else, while, `for i in range(...)`, break, continue, return, calls;
- `for i in lanes(n)`: iterations that do not touch what another one writes, so that LLVM vectorises them without looking;
- integers: + - * // % (of non-negative numbers) & | ^ ~ << >> (arithmetic), comparisons, and/or/not, `a if c else b`;
- struct fields `w.pc`, array fields `w.x[i]`, structs in arrays `c.warps[i].pc`, and module-level integer constants;
- names bound at specialisation: constants (`SEW`) and functions (`OP`), so that one template serves many instructions;
- primitives (`PRIMS`): memory by host address, unsigned operations, floating point on bit patterns;
- `f_context(a)`: functions called from there on find the rounding mode and the flags at `a` (`f_mode()`, `f_raise(x)`).
In CPython integers do not wrap: where a result can leave 64 bits the code says `wrap(x)`.
"""

from __future__ import annotations

import ast
import ctypes
import inspect
import operator
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rvgpu.isa import prims, prims_float, prims_host, prims_tile, prims_turns
from rvgpu.isa.prims import PRIMS, Prim
from rvgpu.isa.prims import apart as apart

INTS = {ctypes.c_uint8: "i8", ctypes.c_uint16: "i16", ctypes.c_uint32: "i32", ctypes.c_int32: "i32", ctypes.c_uint64: "i64",
        ctypes.c_int64: "i64", ctypes.c_int8: "i8", ctypes.c_int16: "i16"}
SIGNED = {ctypes.c_int8, ctypes.c_int16, ctypes.c_int32, ctypes.c_int64}
BINOPS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.FloorDiv: "sdiv", ast.Mod: "srem", ast.BitAnd: "and", ast.BitOr: "or",
          ast.BitXor: "xor", ast.LShift: "shl", ast.RShift: "ashr"}
FOLD: dict[Any, Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.LShift: operator.lshift, ast.RShift: operator.rshift}
ACCESS = re.compile(r"(%\S+ = )?(load|store|call) ")
# modules whose functions have a body in LLVM of their own
HOST = tuple(m.__name__ for m in (prims, prims_float, prims_host, prims_tile, prims_turns))
COMPARES = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge"}


def ptr(struct: Any, addr: int) -> Any:
    """The structure at a host address (in translated code: a typed pointer)."""
    return struct.from_address(addr)


def address(array: Any) -> int:
    """The host address of an array field."""
    return ctypes.addressof(array)


def lanes(n: int) -> range:
    """Iterations that are independent of each other. CPython takes them last first, so that a dependence shows against compiled code."""
    return range(n - 1, -1, -1)


class TranslateError(Exception):
    """A construct outside the subset, with the file and line of the model."""


@dataclass(frozen=True)
class V:
    """An LLVM value: i64, or a pointer to `struct`, or (with `elem`) the address of an array of that ctypes type, which belongs to `owner`."""

    text: str
    struct: Any = None
    elem: Any = None
    owner: str = ""


@dataclass
class Unit:
    """One LLVM module under construction; functions are added on first use."""

    lines: list[str] = field(default_factory=list)
    declared: dict[str, str] = field(default_factory=dict)
    done: dict[tuple[Any, ...], str] = field(default_factory=dict)
    meta: list[str] = field(default_factory=lambda: ['!{!"rvgpu"}'])
    tags: dict[str, int] = field(default_factory=dict)

    def node(self, text: str) -> int:
        """Adds a metadata node; returns its number."""
        self.meta.append(text)
        return len(self.meta) - 1

    def tag(self, owner: str) -> int:
        """The alias tag of a structure's field, or of memory by host address (""): accesses with different tags never meet."""
        if owner not in self.tags:
            kind = self.node(f'!{{!"{owner or "memory"}", !0}}')
            self.tags[owner] = self.node(f"!{{!{kind}, !{kind}, i64 0}}")
        return self.tags[owner]

    def add(self, fn: Callable[..., Any], binds: Mapping[str, Any] | None = None, name: str | None = None, context: bool = False) -> str:
        """Translates fn (and what it calls) specialised to `binds`; returns its LLVM name. A `name` makes it external; with `context`
        its last parameter is that of exact arithmetic."""
        binds = dict(binds or {})
        key = (fn, tuple(sorted((k, v if not callable(v) else id(v)) for k, v in binds.items())), name, context)
        if key not in self.done:
            symbol = name or f"{fn.__name__}.{len(self.done)}"
            self.done[key] = symbol
            _Function(self, fn, binds, symbol, name is not None, context).translate()
        return self.done[key]

    def text(self) -> str:
        meta = [f"!{n} = {text}" for n, text in enumerate(self.meta)]
        return "\n".join([*self.declared.values(), *self.lines, *meta, 'attributes #0 = { nounwind "no-builtins" "prefer-vector-width"="512" }',
                          'attributes #1 = { alwaysinline nounwind "no-builtins" "prefer-vector-width"="512" }',
                          'attributes #2 = { noinline nounwind "no-builtins" "prefer-vector-width"="512" }', ""])


_SOURCES: dict[Any, tuple[ast.FunctionDef, str, int]] = {}


def _source(fn: Callable[..., Any]) -> tuple[ast.FunctionDef, str, int]:
    if fn not in _SOURCES:
        lines, first = inspect.getsourcelines(fn)
        tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
        assert isinstance(tree, ast.FunctionDef)
        _SOURCES[fn] = tree, inspect.getsourcefile(fn) or "?", first
    return _SOURCES[fn]


class _Function:
    def __init__(self, unit: Unit, fn: Callable[..., Any], binds: dict[str, Any], symbol: str, external: bool,
                 context: bool) -> None:
        self.unit, self.fn, self.binds, self.symbol, self.external = unit, fn, binds, symbol, external
        self.tree, self.file, self.first = _source(fn)
        self.globals = fn.__globals__
        self.out: list[str] = []
        self.entry: list[str] = []
        self.vars: dict[str, V] = {}
        self.n = 0
        self.loops: list[tuple[str, str]] = []
        self.group = -1  # the access group of the `lanes` loop around
        self.ended = False
        self.depth = 0  # branches and loops around
        self.assigned: dict[str, int] = {}  # at which depth a name became a pointer
        self.context = context

    def fail(self, node: ast.AST, message: str) -> TranslateError:
        return TranslateError(f"{self.file}:{self.first + getattr(node, 'lineno', 1) - 1}: {message}")

    def fresh(self) -> str:
        self.n += 1
        return f"%t{self.n}"

    def emit(self, text: str) -> None:
        if not self.ended:
            if self.group >= 0 and ACCESS.match(text):
                text += f", !llvm.access.group !{self.group}"
            self.out.append("  " + text)

    def let(self, text: str) -> str:
        name = self.fresh()
        self.emit(f"{name} = {text}")
        return name

    def label(self, name: str) -> None:
        if not self.ended:
            self.out.append(f"  br label %{name}")
        self.out.append(f"{name}:")
        self.ended = False

    def branch(self, cond: str, yes: str, no: str) -> None:
        self.emit(f"br i1 {cond}, label %{yes}, label %{no}")
        self.ended = True

    def jump(self, to: str) -> None:
        self.emit(f"br label %{to}")
        self.ended = True

    def names(self, *hints: str) -> list[str]:
        self.n += 1
        return [f"{h}{self.n}" for h in hints]

    # -- functions
    def annotation(self, node: ast.expr | None) -> Any:
        name = getattr(node, "id", None) or getattr(node, "value", None)
        if name in (None, "int"):
            return None
        t = self.globals.get(name)
        if isinstance(t, type) and issubclass(t, ctypes.Structure):
            return t
        raise self.fail(self.tree, f"parameter type {name}")

    def translate(self) -> None:
        params = []
        for a in self.tree.args.args:
            if a.arg in self.binds:
                continue
            struct = self.annotation(a.annotation)
            params.append(f"{'ptr' if struct else 'i64'} %p.{a.arg}")
            if struct:
                self.vars[a.arg] = V(f"%p.{a.arg}", struct)
            else:
                self.vars[a.arg] = V(self.slot(a.arg))
                self.emit(f"store i64 %p.{a.arg}, ptr {self.vars[a.arg].text}")
        if self.context:
            params.append("ptr %context")
        self.body(self.tree.body)
        self.emit("ret i64 0")
        link = "" if self.external else "internal "
        attributes = 0 if self.external else 2 if hasattr(self.fn, "apart") else 1
        self.unit.lines += [f"define {link}i64 @{self.symbol}({', '.join(params)}) #{attributes} {{", "entry:", *self.entry, *self.out, "}"]

    def slot(self, name: str) -> str:
        self.n += 1
        text = f"%v.{name}.{self.n}"
        self.entry.append(f"  {text} = alloca i64")
        return text

    # -- statements
    def body(self, nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if self.ended:
                return
            self.stmt(node)

    def stmt(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            target = node.targets[0]
            if not isinstance(target, ast.Tuple):
                raise self.fail(node, "a tuple is only assigned to names side by side")
            values = [self.expr(v) for v in node.value.elts]
            for t, v in zip(target.elts, values, strict=True):
                self.assign(t, v)
        elif isinstance(node, ast.Assign):
            value = self.expr(node.value)
            for t in node.targets:
                self.assign(t, value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self.assign(node.target, self.expr(node.value))
        elif isinstance(node, ast.AugAssign):
            load = ast.copy_location(ast.BinOp(_load(node.target), node.op, node.value), node)
            self.assign(node.target, self.expr(load))
        elif isinstance(node, ast.If):
            self.if_(node)
        elif isinstance(node, ast.While):
            self.while_(node)
        elif isinstance(node, ast.For):
            self.for_(node)
        elif isinstance(node, ast.Return):
            self.emit(f"ret i64 {self.expr(node.value).text if node.value else '0'}")
            self.ended = True
        elif isinstance(node, ast.Break):
            self.jump(self.loops[-1][1])
        elif isinstance(node, ast.Continue):
            self.jump(self.loops[-1][0])
        elif isinstance(node, ast.Expr):
            if not isinstance(node.value, ast.Constant):
                self.expr(node.value)
        elif not isinstance(node, ast.Pass):
            raise self.fail(node, f"statement {type(node).__name__} is outside the subset")

    def assign(self, target: ast.expr, value: V) -> None:
        if isinstance(target, ast.Name):
            if value.struct is not None or value.elem is not None:
                if self.depth > self.assigned.setdefault(target.id, self.depth):
                    raise self.fail(target, f"{target.id} would be one of two pointers from here on: choose between addresses instead")
                self.vars[target.id] = value
                return
            if target.id not in self.vars:
                self.vars[target.id] = V(self.slot(target.id))
            self.emit(f"store i64 {value.text}, ptr {self.vars[target.id].text}")
            return
        place = self.place(target)
        t = INTS[place.elem]
        text = value.text if t == "i64" else self.let(f"trunc i64 {value.text} to {t}")
        self.emit(f"store {t} {text}, ptr {place.text}, !tbaa !{self.unit.tag(place.owner)}")

    def const_bool(self, node: ast.expr) -> bool | None:
        """A condition over bound constants only is decided here, so that specialised-away code is never translated."""
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            a, b = self.const_int(node.left), self.const_int(node.comparators[0])
            if a is None or b is None:
                return None
            return {ast.Eq: a == b, ast.NotEq: a != b, ast.Lt: a < b, ast.LtE: a <= b, ast.Gt: a > b, ast.GtE: a >= b}[type(node.ops[0])]
        if isinstance(node, ast.BoolOp):
            parts = [self.const_bool(v) for v in node.values]
            stop = isinstance(node.op, ast.Or)
            return stop if stop in parts else None if None in parts else not stop
        c = self.const_int(node)
        return None if c is None else bool(c)

    def const_int(self, node: ast.expr) -> int | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return int(node.value)
        if isinstance(node, ast.Name) and node.id not in self.vars:
            value = self.binds.get(node.id, self.globals.get(node.id))
            return int(value) if isinstance(value, int) else None
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            x = self.const_int(node.operand)
            return None if x is None else -x
        if isinstance(node, ast.BinOp) and type(node.op) in FOLD:
            a, b = self.const_int(node.left), self.const_int(node.right)
            return None if a is None or b is None else FOLD[type(node.op)](a, b)
        return None

    def block(self, nodes: list[ast.stmt]) -> None:
        """A branch, or what a loop repeats. A pointer that it names first is known in it only."""
        self.depth += 1
        self.body(nodes)
        self.depth -= 1
        for name in [n for n, depth in self.assigned.items() if depth > self.depth]:
            del self.assigned[name], self.vars[name]

    def if_(self, node: ast.If) -> None:
        known = self.const_bool(node.test)
        if known is not None:
            self.body(node.body if known else node.orelse)
            return
        then, other, end = self.names("then", "else", "end")
        self.branch(self.truth(node.test), then, other if node.orelse else end)
        self.label(then)
        self.block(node.body)
        if not self.ended:
            self.jump(end)
        if node.orelse:
            self.label(other)
            self.block(node.orelse)
            if not self.ended:
                self.jump(end)
        self.out.append(f"{end}:")
        self.ended = False

    def while_(self, node: ast.While) -> None:
        head, body, end = self.names("head", "body", "end")
        self.label(head)
        self.branch(self.truth(node.test), body, end)
        self.label(body)
        self.loops.append((head, end))
        self.block(node.body)
        self.loops.pop()
        if not self.ended:
            self.jump(head)
        self.out.append(f"{end}:")
        self.ended = False

    def for_(self, node: ast.For) -> None:
        call = node.iter
        kind = getattr(call.func, "id", "") if isinstance(call, ast.Call) else ""
        if not (isinstance(call, ast.Call) and kind in ("range", "lanes") and isinstance(node.target, ast.Name)):
            raise self.fail(node, "only `for i in range(...)` or `lanes(n)`")
        args = [self.expr(a).text for a in call.args]
        lo, hi = ("0", args[0]) if len(args) == 1 else (args[0], args[1])
        step = args[2] if len(args) > 2 else "1"
        self.assign(node.target, V(lo))
        var = self.vars[node.target.id].text
        head, body, nxt, end = self.names("head", "body", "next", "end")
        self.label(head)
        i = self.let(f"load i64, ptr {var}")
        self.branch(self.let(f"icmp slt i64 {i}, {hi}"), body, end)
        self.label(body)
        self.loops.append((nxt, end))
        outer, loop = self.group, ""
        if kind == "lanes" and not self.context:  # (flags go to one place)
            self.group = self.unit.node("distinct !{}")
            parallel = self.unit.node(f'!{{!"llvm.loop.parallel_accesses", !{self.group}}}')
            loop = f", !llvm.loop !{self.unit.node(f'distinct !{{!{len(self.unit.meta)}, !{parallel}}}')}"
        self.block(node.body)
        self.group = outer
        self.loops.pop()
        if not self.ended:
            self.jump(nxt)
        self.out.append(f"{nxt}:")
        self.ended = False
        self.emit(f"store i64 {self.let(f'add nsw i64 {i}, {step}')}, ptr {var}")
        self.emit(f"br label %{head}{loop}")
        self.ended = True
        self.out.append(f"{end}:")
        self.ended = False

    # -- expressions
    def truth(self, node: ast.expr) -> str:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            a, b = self.expr(node.left).text, self.expr(node.comparators[0]).text
            return self.let(f"icmp {COMPARES[type(node.ops[0])]} i64 {a}, {b}")
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self.let(f"xor i1 {self.truth(node.operand)}, true")
        return self.let(f"icmp ne i64 {self.expr(node).text}, 0")

    def expr(self, node: ast.expr) -> V:
        folded = self.const_int(node)
        if folded is not None:
            folded &= (1 << 64) - 1
            return V(str(folded - (1 << 64) if folded >> 63 else folded))
        if isinstance(node, ast.Constant):
            raise self.fail(node, f"constant {node.value!r}")
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.BinOp):
            a, b = self.expr(node.left).text, self.expr(node.right).text
            return V(self.let(f"{BINOPS[type(node.op)]} i64 {a}, {b}"))
        if isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.Not):
                return V(self.let(f"zext i1 {self.truth(node)} to i64"))
            x = self.expr(node.operand).text
            return V(self.let(f"sub i64 0, {x}" if isinstance(node.op, ast.USub) else f"xor i64 {x}, -1"))
        if isinstance(node, ast.Compare):
            return V(self.let(f"zext i1 {self.truth(node)} to i64"))
        if isinstance(node, (ast.BoolOp, ast.IfExp)):
            return self.choice(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            place = self.place(node)
            if place.elem is None or isinstance(place.elem, tuple):
                return place
            t = INTS[place.elem]
            x = self.let(f"load {t}, ptr {place.text}, !tbaa !{self.unit.tag(place.owner)}")
            return V(x if t == "i64" else self.let(f"{'sext' if place.elem in SIGNED else 'zext'} {t} {x} to i64"))
        raise self.fail(node, f"expression {type(node).__name__} is outside the subset")

    def name(self, node: ast.Name) -> V:
        if node.id in self.vars:
            v = self.vars[node.id]
            return v if v.struct is not None or v.elem is not None else V(self.let(f"load i64, ptr {v.text}"))
        c = self.const_int(node)
        if c is None:
            raise self.fail(node, f"name {node.id}")
        return V(str(c - (1 << 64) if c >= 1 << 63 else c))

    def choice(self, node: ast.BoolOp | ast.IfExp) -> V:
        slot = self.slot("c")
        (end,) = self.names("end")
        if isinstance(node, ast.IfExp):
            known = self.const_bool(node.test)
            if known is not None:
                return self.expr(node.body if known else node.orelse)
            then, other = self.names("then", "else")
            self.branch(self.truth(node.test), then, other)
            for name, part in ((then, node.body), (other, node.orelse)):
                self.label(name)
                self.emit(f"store i64 {self.expr(part).text}, ptr {slot}")
                self.jump(end)
        else:
            last = len(node.values) - 1
            for n, part in enumerate(node.values):
                bit = self.truth(part)
                self.emit(f"store i64 {self.let(f'zext i1 {bit} to i64')}, ptr {slot}")
                if n == last:
                    self.jump(end)
                else:
                    (more,) = self.names("more")
                    self.branch(bit, *((more, end) if isinstance(node.op, ast.And) else (end, more)))
                    self.label(more)
        self.out.append(f"{end}:")
        self.ended = False
        return V(self.let(f"load i64, ptr {slot}"))

    def place(self, node: ast.expr) -> V:
        """The address of a field or element; `elem` is the ctypes integer there, or (array, type), or `struct` is set."""
        if isinstance(node, ast.Attribute):
            base = self.expr(node.value)
            if base.struct is None:
                raise self.fail(node, f"no struct before .{node.attr}")
            f = getattr(base.struct, node.attr, None)
            if f is None:
                raise self.fail(node, f"{base.struct.__name__} has no field {node.attr}")
            t = dict((n, t) for n, t, *_ in base.struct._fields_)[node.attr]
            return self.typed(self.let(f"getelementptr i8, ptr {base.text}, i64 {f.offset}"), t, f"{base.struct.__name__}.{node.attr}")
        if isinstance(node, ast.Subscript):
            base = self.expr(node.value)
            if not isinstance(base.elem, tuple):
                raise self.fail(node, "subscript of something that is no array field")
            t = base.elem[1]
            at = self.let(f"mul i64 {self.expr(node.slice).text}, {ctypes.sizeof(t)}")
            return self.typed(self.let(f"getelementptr i8, ptr {base.text}, i64 {at}"), t, base.owner)
        raise self.fail(node, "cannot assign to this")

    def typed(self, text: str, t: Any, owner: str) -> V:
        if isinstance(t, type) and issubclass(t, ctypes.Array):
            return V(text, elem=("array", t._type_), owner=owner)
        if isinstance(t, type) and issubclass(t, ctypes.Structure):
            return V(text, struct=t)
        return V(text, elem=t, owner=owner)

    def call(self, node: ast.Call) -> V:
        if not isinstance(node.func, ast.Name):
            raise self.fail(node, "only plain functions are called")
        name = node.func.id
        fn = self.binds.get(name, self.globals.get(name))
        if name == "ptr":
            struct = self.globals[getattr(node.args[0], "id", "")]
            return V(self.let(f"inttoptr i64 {self.expr(node.args[1]).text} to ptr"), struct)
        if name == "call_handler":
            h, *rest = (self.expr(a) for a in node.args)
            target = self.let(f"inttoptr i64 {h.text} to ptr")
            return V(self.let(f"call i64 {target}({', '.join(f'ptr {v.text}' for v in rest)})"))
        if name == "address":
            return V(self.let(f"ptrtoint ptr {self.expr(node.args[0]).text} to i64"))
        if isinstance(fn, str):  # bound to a primitive's name
            name, fn = fn, PRIMS[fn].python
        prim = PRIMS.get(getattr(fn, "__name__", name)) if fn is None or getattr(fn, "__module__", "") in HOST else None
        if prim is not None:
            return self.primitive(prim, node)
        if fn is None:
            raise self.fail(node, f"unknown function {name}")
        args = []
        inner = dict(self.binds)
        for p, a in zip(_source(fn)[0].args.args, node.args, strict=True):
            if p.arg in inner:
                continue
            if p.arg.isupper():
                inner[p.arg] = self.const_int(a)
                if inner[p.arg] is None:
                    raise self.fail(a, f"{fn.__name__} takes a constant for {p.arg}")
                continue
            v = self.expr(a)
            args.append(f"{'ptr' if v.struct is not None else 'i64'} {v.text}")
        wanted = mentioned(fn, inner)
        inner = {k: v for k, v in inner.items() if k in wanted}
        symbol = self.unit.add(fn, inner, context=self.context)
        if self.context:
            args.append("ptr %context")
        return V(self.let(f"call i64 @{symbol}({', '.join(args)})"))

    def pointer(self, node: ast.expr) -> str:
        """The address of a memory primitive: `base + offset` becomes a pointer and an index from it."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            base = self.let(f"inttoptr i64 {self.expr(node.left).text} to ptr")
            return "ptr " + self.let(f"getelementptr i8, ptr {base}, i64 {self.expr(node.right).text}")
        return self.expr(node).text

    def primitive(self, prim: Prim, node: ast.Call) -> V:
        args = [self.pointer(a) if n == 0 and prim.name[:2] in ("ld", "st") else self.expr(a).text for n, a in enumerate(node.args)]

        def declare(text: str) -> None:
            name = text.split("@")[1].split("(")[0]
            self.unit.declared[name] = text

        if prim.name[:2] in ("ld", "st"):
            tag = f", !tbaa !{self.unit.tag('')}"
            return V(prim.llvm(lambda text: self.let(text + tag * text.startswith("load")),
                               lambda text: self.emit(text + tag), declare, *args) or "0")
        if prim.name == "f_context":
            self.context = True
        elif prim.name in ("f_mode", "f_flags", "f_raise") and not self.context:
            return V("0")
        return V(prim.llvm(self.let, self.emit, declare, *args) or "0")


_FREE: dict[Any, frozenset[str]] = {}


def free_names(fn: Callable[..., Any]) -> frozenset[str]:
    """Names that fn or the functions it calls mention: which bindings matter to it."""
    if fn not in _FREE:
        _FREE[fn] = frozenset()
        names = {n.id for n in ast.walk(_source(fn)[0]) if isinstance(n, ast.Name)}
        out = set(names)
        for n in names:
            g = fn.__globals__.get(n)
            if inspect.isfunction(g) and g.__module__.startswith("rvgpu") and g.__module__ not in HOST:
                out |= free_names(g)
        _FREE[fn] = frozenset(out)
    return _FREE[fn]


def mentioned(fn: Callable[..., Any], binds: Mapping[str, Any]) -> set[str]:
    """The bindings that matter to fn: what it mentions, and what the functions mention that those are bound to."""
    seen: set[str] = set()
    todo = set(free_names(fn))
    while todo:
        name = todo.pop()
        seen.add(name)
        if inspect.isfunction(value := binds.get(name)):
            todo |= free_names(value) - seen
    return seen


def _load(node: ast.expr) -> ast.expr:
    copy = ast.copy_location(type(node)(**{f: getattr(node, f) for f in node._fields}), node)
    copy.ctx = ast.Load()  # type: ignore[attr-defined]
    return copy
