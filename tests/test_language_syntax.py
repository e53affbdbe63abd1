"""The language is a subset of Python's syntax: every text that our parser accepts is parsed by `ast` to the same tree."""

from __future__ import annotations

import ast
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.errors import RvgpuError
from rvgpu.frontend.build import lower, parse_text
from rvgpu.frontend.scope import Kernel, Scope
from rvgpu.ir.dims import Dim

# -- one normal form for both trees


class Ours:
    """Tuples from the Lark tree."""

    def __init__(self, kernel):
        self.scope = Scope(kernel, {})
        parts = [c for c in kernel.tree.children if c is not None and getattr(c, "data", "") != "decorator"]
        params = [p for p in parts[1].children if p is not None] if parts[1].data == "params" else []
        self.tree = ("def", str(parts[0]), [self.param(p) for p in params], [self.type(t) for t in parts[-2].children if t is not None],
                     [self.statement(s) for s in parts[-1].children if hasattr(s, "data")])

    def param(self, p):
        if p.data == "star":
            return "*"
        name, ty, default = p.children
        return str(name), self.type(ty), None if default is None else self.scope.number(default)

    def type(self, t):
        name, dims = t.children
        return str(name), [] if dims is None else [self.scope.form(d) for d in dims.children if d is not None]

    def statement(self, s):
        if s.data == "docstring":
            return "nothing"
        if s.data == "return_":
            values = [self.expr(c) for c in s.children if c is not None]
            return ("return", *(values[0][1:] if len(values) == 1 and values[0][0] == "tuple" else values))
        if s.data == "typed_assign":
            return "set", str(s.children[0]), self.type(s.children[1]), self.expr(s.children[2])
        *names, value = s.children
        return "assign", [str(n) for n in names], self.expr(value)

    def expr(self, e):
        kids = [k for k in e.children if k is not None]
        if e.data == "number":
            return "number", self.scope.number(e)
        if e.data in ("true", "false", "infinite"):
            return "name", {"true": "True", "false": "False", "infinite": "inf"}[e.data]
        if e.data == "name":
            return "name", str(kids[0])
        if e.data == "paren":
            return self.expr(kids[0])
        if e.data == "tuple_":
            return ("tuple", *map(self.expr, kids))
        if e.data in ("neg", "pos", "invert"):
            return e.data, self.expr(kids[0])
        if e.data in ("binary", "compare"):
            return e.data, str(kids[1]), self.expr(kids[0]), self.expr(kids[2])
        if e.data in ("and_", "or_", "pow"):
            return "binary", {"and_": "&", "or_": "|", "pow": "**"}[e.data], self.expr(kids[0]), self.expr(kids[1])
        assert e.data == "call", e.data
        given = kids[1].children if len(kids) > 1 else []
        args = [self.expr(a.children[0]) for a in given if a.data == "positional"]
        return "call", str(kids[0]), args, [(str(a.children[0]), self.expr(a.children[1])) for a in given if a.data == "keyword"]


SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.MatMult: "@", ast.Pow: "**",
         ast.BitAnd: "&", ast.BitOr: "|", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
         ast.USub: "neg", ast.UAdd: "pos", ast.Invert: "invert"}


class Pythons:
    """Tuples from the `ast` tree."""

    def __init__(self, node):
        a = node.args
        assert not (a.posonlyargs or a.vararg or a.kwarg)
        defaults = [None] * (len(a.args) - len(a.defaults)) + list(a.defaults)
        params = [self.param(p, d) for p, d in zip(a.args, defaults, strict=True)]
        params += (["*"] if a.kwonlyargs else []) + [self.param(p, d) for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
        self.tree = ("def", node.name, params, self.results(node.returns), [self.statement(s) for s in node.body])

    def param(self, p, default):
        return p.arg, self.type(p.annotation), None if default is None else eval(compile(ast.Expression(default), "", "eval"), {"inf": math.inf})

    def results(self, node):
        if isinstance(node, ast.Tuple):
            return [self.type(t) for t in node.elts]
        if isinstance(node, ast.Subscript) and node.value.id == "tuple":
            inner = node.slice
            return [self.type(t) for t in (inner.elts if isinstance(inner, ast.Tuple) else [inner])]
        return [self.type(node)]

    def type(self, node):
        if isinstance(node, ast.Name):
            return node.id, []
        inner = node.slice
        return node.value.id, [self.form(d) for d in (inner.elts if isinstance(inner, ast.Tuple) else [inner])]

    def form(self, d):
        if isinstance(d, ast.Name):
            return Dim.of(d.id)
        if isinstance(d, ast.Constant):
            return Dim((), d.value)
        left, right = self.form(d.left), self.form(d.right)
        if isinstance(d.op, ast.Mult):
            return left * right.const if not right.terms else right * left.const
        return left + right * (1 if isinstance(d.op, ast.Add) else -1)

    def statement(self, s):
        if isinstance(s, ast.Pass) or isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant):
            return "nothing"
        if isinstance(s, ast.Return):
            return ("return", *map(self.expr, s.value.elts if isinstance(s.value, ast.Tuple) else [s.value]))
        if isinstance(s, ast.AnnAssign):
            return "set", s.target.id, self.type(s.annotation), self.expr(s.value)
        (target,) = s.targets
        return "assign", [n.id for n in target.elts] if isinstance(target, ast.Tuple) else [target.id], self.expr(s.value)

    def expr(self, e):
        if isinstance(e, ast.Constant):
            return ("name", str(e.value)) if isinstance(e.value, bool) else ("number", e.value)
        if isinstance(e, ast.Name):
            return "name", e.id
        if isinstance(e, ast.Tuple):
            return ("tuple", *map(self.expr, e.elts))
        if isinstance(e, ast.UnaryOp):
            return SIGNS[type(e.op)], self.expr(e.operand)
        if isinstance(e, ast.BinOp):
            return "binary", SIGNS[type(e.op)], self.expr(e.left), self.expr(e.right)
        if isinstance(e, ast.Compare):
            assert len(e.ops) == 1
            return "compare", SIGNS[type(e.ops[0])], self.expr(e.left), self.expr(e.comparators[0])
        assert isinstance(e, ast.Call), ast.dump(e)
        return "call", e.func.id, [self.expr(a) for a in e.args], [(k.arg, self.expr(k.value)) for k in e.keywords]


def accepted(text):
    """Our trees, or None where the text is refused."""
    try:
        kernels = parse_text(text)
    except RvgpuError as e:
        assert e.code in ("E101", "E107"), e
        return None
    out = []
    for k in kernels.values():
        assert isinstance(k, Kernel)
        try:
            out.append(Ours(k).tree)
        except RvgpuError:  # a small dim
            return None
    return out


def plain(text):
    """With what we skip left out: line ends of Windows, the text of decorators."""
    head, found, rest = text.replace("\r\n", "\n").partition("def ")
    return re.sub(r"^@.*", "@d", head, flags=re.M) + found + rest


def agree(text, must=False):
    """What we accept is Python with the same tree; what is wrong only with the order of parameters is refused when the kernel is lowered."""
    ours = accepted(text)
    assert ours is not None or not must, text
    if ours is None:
        return
    try:
        theirs = [Pythons(n).tree for n in ast.parse(plain(text)).body]
    except SyntaxError as e:
        assert e.msg in ("named arguments must follow bare *", "non-default argument follows default argument"), text
        with pytest.raises(RvgpuError):
            for k in parse_text(text).values():
                lower(k)
        return
    assert ours == theirs, text


# -- texts

names = st.sampled_from(["x", "y1", "_z", "softmax", "sum", "f32", "forx", "inf", "size"])
numbers = st.sampled_from(["0", "1", "12_000", "0x1F", "0b1_0", "0o17", "1.", ".5", "1.5e-3", "1e10", "00", "1_0.2_5E+1", "3"])
dims = st.sampled_from(["M", "K", "2 * F", "F*3", "S + 1", "S - 1+T", "7", "2*A+3*B-1"])
types = st.one_of(st.sampled_from(["f32", "bf16"]), st.builds(lambda n, ds, c: f"{n}[{', '.join(ds)}{c}]", st.sampled_from(["f32", "i8"]),
                                                              st.lists(dims, min_size=1, max_size=3), st.sampled_from(["", ","])))
signs = st.sampled_from(["+", "-", "*", "/", "//", "%", "@", "**", "&", "|"])
compares = st.sampled_from(["<=", "<", ">", ">=", "==", "!="])


def call(name, args, named, comma):
    given = [*args, *(f"k{n}={v}" for n, v in enumerate(named))]
    return f"{name}({', '.join(given)}{comma if given else ''})"


def combine(inner):
    return st.one_of(
        st.builds(lambda a, s, b: f"{a} {s} {b}", inner, signs, inner), st.builds(lambda a, s, b: f"({a}{s}{b})", inner, compares, inner),
        st.builds(lambda a: f"({a})", inner), st.builds(lambda s, a: s + a, st.sampled_from("-+~"), inner),
        st.builds(call, names.filter(lambda n: n != "inf"), st.lists(inner, max_size=2), st.lists(inner, max_size=2),
                  st.sampled_from(["", ",", " "])),
        st.builds(lambda a, b, c: f"({a}, {b}{c})", inner, inner, st.sampled_from(["", ","])), st.builds(lambda a: f"(\n  {a} # why\n)", inner))


exprs = st.recursive(st.one_of(names, numbers, st.sampled_from(["True", "False"])), combine, max_leaves=8)
target = st.sampled_from(["a", "b", "a_1"])
statements = st.one_of(
    st.builds(lambda n, e: f"{n} = {e}", target, exprs), st.builds(lambda n, m, e: f"{n}, {m} = {e}", target, target, exprs),
    st.builds(lambda n, t, e: f"{n}: {t} = {e}", target, types, exprs), st.just('"""text\n  more"""'), st.just("pass"), st.just("'text'"),
    st.builds(lambda e: f"return {e}", exprs), st.builds(lambda e, f, c: f"return {e}, {f}{c}", exprs, exprs, st.sampled_from(["", ","])))


@st.composite
def texts(draw):
    tensors = [f"p{n}: {t}" for n, t in enumerate(draw(st.lists(types, max_size=3)))]
    scalars = [f"s{n}: f32{d}" for n, d in enumerate(draw(st.lists(st.sampled_from(["", " = 1e-6", "=-2", "=inf", " = -inf"]), max_size=2)))]
    params = [*tensors, *(["*", *scalars] if scalars else [])]
    result = draw(st.one_of(types, st.builds(lambda a, b: f"({a}, {b})", types, types), st.builds(lambda a, b: f"tuple[{a}, {b},]", types, types)))
    comma = "," if params and draw(st.booleans()) else ""
    head = draw(st.sampled_from(["", "# comment\n", "\n\n", "@rv.kernel(tune=[1, 2])\n", "@a.b\n@c\n"]))
    def_line = f"def f({', '.join(params)}{comma}) -> {result}:"
    body = draw(st.lists(statements, min_size=1, max_size=4))
    if len(body) == 1 and draw(st.booleans()):
        text = f"{head}{def_line} {body[0]}"
    else:
        gap = draw(st.sampled_from(["\n", "\n\n", "\n    # comment\n", "  # comment\n", "\n# left\n"]))
        text = f"{head}{def_line}\n    " + f"{gap}    ".join(body)
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"]))) + draw(st.sampled_from(["", "\n", "\n\n  # end\n"]))


@settings(max_examples=200)
@given(texts())
def test_accepted_texts_are_python(text):
    agree(text, must=True)


TOKENS = re.compile(r"[A-Za-z_]\w*|[0-9.][\w.]*|\n *|->|//|\*\*|[<>=!]=|\"\"\"|\S| +")


REPLACEMENTS = ["x", "1", "01", "1__0", "(", ")", ",", "*", "=", ":", "\n", " ", "if", "not", "lambda", ".", "'", "#", "None", "\\\n", "e5"]


@settings(max_examples=1000)
@given(texts(), st.data())
def test_mutated_texts(text, data):
    """Tokens dropped, doubled, swapped or replaced: what still passes is Python, and means the same."""
    tokens = TOKENS.findall(text)
    for _ in range(data.draw(st.integers(1, 3))):
        i = data.draw(st.integers(0, len(tokens) - 1))
        how = data.draw(st.sampled_from("drop double swap replace".split()))
        if how == "drop" and len(tokens) > 1:
            del tokens[i]
        elif how == "double":
            tokens.insert(i, tokens[i])
        elif how == "swap":
            j = data.draw(st.integers(0, len(tokens) - 1))
            tokens[i], tokens[j] = tokens[j], tokens[i]
        else:
            tokens[i] = data.draw(st.sampled_from(REPLACEMENTS))
    agree("".join(tokens))


@pytest.mark.parametrize("text", ["01", "1__0", "1_", "0x", "1e", "x y", "1x", "0b2", "-", "x..y", "a if b else c"])
def test_refused_expressions(text):
    assert accepted(f"def f(x: f32[M]) -> f32[M]:\n    return {text}\n") is None
