"""The language's functions: one row each with the arguments it takes and the ops it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rvgpu.frontend.scope import Literal, Operand, bracketed
from rvgpu.ir.core import Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.shapes import broadcast_dims
from rvgpu.ir.types import DType

if TYPE_CHECKING:
    from rvgpu.frontend.expressions import Expressions


@dataclass(frozen=True)
class Function:
    """`takes`: names of the positional arguments, "..." when more may follow. `over`: needs `over=`. `make(x, tree, *args, **named)`
    gets the trees of the arguments and returns values."""

    takes: tuple[str, ...]
    make: Callable[..., Any]
    over: bool = False
    named: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # names that must be given
    free_names: bool = False  # any keyword: rename(x, S=T)

    def accepts(self, count: int, named: Iterable[str]) -> bool:
        fixed = [t for t in self.takes if t != "..."]
        if not (len(fixed) <= count if "..." in self.takes else len(fixed) == count):
            return False
        needs = {*self.needs, *(["over"] if self.over else [])}
        return (self.free_names or needs | {*self.named} >= set(named)) and needs <= set(named)

    def usage(self, name: str) -> str:
        named = ["over=K"] * self.over + [f"{n}=..." for n in self.needs + self.named]
        more = [*self.takes, *named, *(["OLD=NEW"] if self.free_names else [])]
        return f"{name}({', '.join(more)})"


def unary(op: str, floats: bool) -> Callable[..., Value]:
    """floats: integers become f32 first."""
    def make(x: Expressions, tree: Any, a: Any) -> Value:
        return x.elementwise(op, [x.expr(a)], division=floats)
    return make


def folded(op: str) -> Callable[..., Value]:
    """maximum and minimum keep a dtype on which the operands agree."""
    def make(x: Expressions, tree: Any, a: Any, b: Any) -> Value:
        return x.elementwise(op, [x.expr(a), x.expr(b)], keep=True)
    return make


def gelu(x: Expressions, tree: Any, a: Any, tanh: Any = None) -> Value:
    if tanh is not None and tanh.data not in ("true", "false"):
        raise x.err("E125", "tanh is True or False", tanh)
    return x.elementwise("gelu", [x.expr(a)], division=True, tanh=int(tanh is not None and tanh.data == "true"))


def clamp(x: Expressions, tree: Any, a: Any, low: Any, high: Any) -> Value:
    return x.elementwise("clamp", [x.expr(a), x.expr(low), x.expr(high)])


def where(x: Expressions, tree: Any, cond: Any, a: Any, b: Any) -> Value:
    c = x.condition(cond, "where")
    left, right = x.common([x.expr(a), x.expr(b)], keep=True)
    return x.op("select", [c, left, right], left.tensor.dtype, broadcast_dims([v.tensor.dims for v in (c, left, right)]))


def dims_over(x: Expressions, v: Value, node: Any, over: Any, tree: Any) -> tuple[Dim, ...]:
    """The dims that `over=` names; the tensor must have them. E127."""
    dims = tuple(x.dim_of(t) for t in (over.children if over.data == "tuple_" else [over]) if t is not None)
    for d in dims:
        if d not in v.tensor.dims:
            raise x.err("E127", f"{x.spell(tree)} runs over {d}, but {x.spell(node)} has dims {bracketed(v.tensor.dims)}", tree)
    if len(set(dims)) != len(dims):
        raise x.err("E127", "a dim is named once", over)
    return dims


def reduce(op: str) -> Callable[..., Value]:
    def make(x: Expressions, tree: Any, a: Any, over: Any) -> Value:
        v = x.common([x.expr(a)], keep=op != "sum")[0]
        dims = dims_over(x, v, a, over, tree)
        return x.op("reduce", [v], v.tensor.dtype, _without(v, dims), op=op, dims=dims, order="any")
    return make


def statistic(op: str) -> Callable[..., Value]:
    """Reductions that P2 expands; integers become f32."""
    def make(x: Expressions, tree: Any, a: Any, over: Any) -> Value:
        v = x.common([x.expr(a)], keep=False, division=True)[0]
        dims = dims_over(x, v, a, over, tree)
        return x.op(op, [v], v.tensor.dtype, v.tensor.dims if op == "softmax" else _without(v, dims), dims=dims)
    return make


def _without(v: Value, dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    return tuple(d for d in v.tensor.dims if d not in dims)


def iota(x: Expressions, tree: Any, d: Any) -> Value:
    dim = x.dim_of(d)
    return x.op("iota", [], DType.i32, (dim,), dim=dim)


def size(x: Expressions, tree: Any, d: Any) -> Value:
    return x.op("size", [], DType.i32, (), dim=x.dim_of(d))


def has(x: Expressions, v: Value, d: Dim, tree: Any) -> None:
    if d not in v.tensor.dims:
        raise x.err("E127", f"no dim {d} in {bracketed(v.tensor.dims)}", tree)


def rename(x: Expressions, tree: Any, a: Any, **names: Any) -> Value:
    v = x.tensor(a)
    for old, new in names.items():
        o, n = Dim.of(old), x.dim_of(new, fresh=True)
        has(x, v, o, tree)
        if n in v.tensor.dims:
            raise x.err("E112", f"rename would put {n} into the tensor twice", tree)
        v = x.op("rename", [v], v.tensor.dtype, tuple(n if d == o else d for d in v.tensor.dims), **{"from": o, "to": n})
    return v


def slice_(x: Expressions, tree: Any, a: Any, d: Any, start: Any, new: Any) -> Value:
    v, old, at, to = x.tensor(a), x.dim_of(d), x.dim_of(start), x.dim_of(new, fresh=True)
    has(x, v, old, tree)
    if to in v.tensor.dims and to != old:
        raise x.err("E112", f"slice would put {to} into the tensor twice", tree)
    return _piece(x, v, old, at, to)


def _piece(x: Expressions, v: Value, old: Dim, at: Dim, to: Dim) -> Value:
    return x.op("slice", [v], v.tensor.dtype, tuple(to if d == old else d for d in v.tensor.dims), dim=old, start=at, new=to)


def split(x: Expressions, tree: Any, a: Any, first: Any, *rest: Any) -> tuple[Value, ...]:
    v, dims = x.tensor(a), [x.dim_of(p) for p in (first, *rest)]
    if len(dims) == 1:
        n = next((n for d in v.tensor.dims for n in range(2, 1 + max((c for _, c in d.terms), default=1)) if dims[0] * n == d), 0)
        if n == 0:
            raise x.err("E129", f"split finds no multiple of {dims[0]} in {bracketed(v.tensor.dims)}", tree)
        dims = dims * n
    whole = sum(dims[1:], dims[0])
    has(x, v, whole, tree)
    out, at = [], Dim()
    for d in dims:
        out.append(_piece(x, v, whole, at, d))
        at = at + d
    return tuple(out)


def concat(x: Expressions, tree: Any, *parts: Any, over: Any) -> Value:
    d = x.dim_of(over)
    vs = x.common([x.tensor(p) for p in parts], keep=True)
    for v, p in zip(vs, parts, strict=True):
        has(x, v, d, p)
        if set(v.tensor.dims) != set(vs[0].tensor.dims):
            raise x.err("E130", f"concat joins tensors of the same dims: {x.spell(parts[0])} is {bracketed(vs[0].tensor.dims)}, "
                        f"{x.spell(p)} is {bracketed(v.tensor.dims)}", tree)
    new = d * len(vs)
    if new in vs[0].tensor.dims and new != d:
        raise x.err("E112", f"concat would put {new} into the tensor twice", tree)
    return x.op("concat", vs, vs[0].tensor.dtype, tuple(new if e == d else e for e in vs[0].tensor.dims), dim=d, new=new)


def argmax(x: Expressions, tree: Any, a: Any, over: Any) -> Value:
    v = x.tensor(a)
    dims = dims_over(x, v, a, over, tree)
    if len(dims) != 1:
        raise x.err("E127", f"argmax runs over one dim, found {bracketed(dims)}", over)
    if v.tensor.dtype == DType.i1:
        v = x.cast(v, DType.i32)
    return x.op("reduce", [v], DType.i32, _without(v, dims), op="argmax", dims=dims)


def pad(x: Expressions, tree: Any, a: Any, d: Any, before: Any, new: Any, value: Any = None) -> Value:
    v, old, at, to = x.tensor(a), x.dim_of(d), x.dim_of(before), x.dim_of(new, fresh=True)
    has(x, v, old, tree)
    if to in v.tensor.dims and to != old:
        raise x.err("E112", f"pad would put {to} into the tensor twice", tree)
    dtype = v.tensor.dtype
    fill = x.value(x.expr(value) if value is not None else Literal(0, x.src.of(tree)), dtype)
    if fill.tensor.dims:
        raise x.err("E133", f"pad fills with one number, {x.spell(value)} is {bracketed(fill.tensor.dims)}", value)
    dims = tuple(to if e == old else e for e in v.tensor.dims)
    return x.op("pad", [v, x.cast(fill, dtype)], dtype, dims, dim=old, before=at, new=to)


def take(x: Expressions, tree: Any, a: Any, ids: Any, along: Any) -> Value:
    v, at, d = x.tensor(a), x.tensor(ids), x.dim_of(along)
    if d not in v.tensor.dims:
        raise x.err("E127", f"{x.spell(tree)} goes along {d}, but {x.spell(a)} has dims {bracketed(v.tensor.dims)}", tree)
    if at.tensor.dtype.is_float or at.tensor.dtype in (DType.i1, DType.i4):
        raise x.err("E134", f"take needs integers (i32 i16 i8 u8) for positions, {x.spell(ids)} is {at.tensor.dtype}", ids)
    n, new = v.tensor.dims.index(d), [e for e in at.tensor.dims if e not in v.tensor.dims or e == d]
    return x.op("take", [v, at], v.tensor.dtype, (*v.tensor.dims[:n], *new, *v.tensor.dims[n + 1:]), dim=d)


def dot(x: Expressions, tree: Any, a: Any, b: Any, over: Any) -> Value:
    left: Operand = x.expr(a)
    return x.matmul(left, x.expr(b), a, b, tree, x.dim_of(over))


FUNCTIONS: Mapping[str, Function] = {
    **{n: Function(("x",), unary(n, True)) for n in "exp exp2 log log2 sqrt rsqrt tanh erf sigmoid silu floor round".split()},
    "abs": Function(("x",), unary("abs", False)), "relu": Function(("x",), unary("relu", False)),
    "gelu": Function(("x",), gelu, named=("tanh",)),
    "maximum": Function(("x", "y"), folded("max")), "minimum": Function(("x", "y"), folded("min")),
    "clamp": Function(("x", "low", "high"), clamp), "where": Function(("condition", "x", "y"), where),
    "sum": Function(("x",), reduce("sum"), over=True), "amax": Function(("x",), reduce("max"), over=True),
    "amin": Function(("x",), reduce("min"), over=True),
    **{n: Function(("x",), statistic(n), over=True) for n in "mean var softmax logsumexp".split()},
    "iota": Function(("D",), iota), "size": Function(("D",), size),
    "argmax": Function(("x",), argmax, over=True), "pad": Function(("x", "D", "before", "P"), pad, named=("value",)),
    "take": Function(("table", "ids"), take, needs=("along",)),
    "rename": Function(("x",), rename, free_names=True), "slice": Function(("x", "D", "start", "P"), slice_),
    "split": Function(("x", "F", "..."), split), "concat": Function(("x", "..."), concat, over=True),
    "dot": Function(("x", "y"), dot, over=True),
}
