"""P8: what a mask says about a block of the streamed dim before it is computed: left out, whole, or neither.

A mask is a `select` whose other side makes every state's step the identity (-inf under a maximum, 0 in a sum, exp(-inf - anchor) = 0): a
block in which its condition holds nowhere may be skipped, one in which it holds everywhere needs no select. Both are decided by interval
arithmetic on the condition's linear forms, in scalar code: for a work item once (`span`), for a warp's block each time (`block`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rvgpu.ir.core import Op, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import K
from rvgpu.ir.types import DType
from rvgpu.passes.kernel import Stream
from rvgpu.passes.places import Axis
from rvgpu.passes.rows import INVERSE, SWAPPED, Emitter

Pair = tuple[Value, Value]


@dataclass(frozen=True)
class Mask:
    """`select` passes `kept` on where `condition` is `holds`, and the states' identity elsewhere."""

    select: Value
    condition: Value
    holds: bool
    kept: Value


@dataclass(frozen=True)
class Form:
    """sum of factor * leaf + const; a leaf is a dim (its iota) or an integer value of level T."""

    terms: Mapping[Value | Dim, int]
    const: int

    def plus(self, other: Form, factor: int) -> Form:
        terms = dict(self.terms)
        for v, c in other.terms.items():
            terms[v] = terms.get(v, 0) + factor * c
        return Form({v: c for v, c in terms.items() if c}, self.const + factor * other.const)

    def times(self, factor: int) -> Form:
        return Form({v: factor * c for v, c in self.terms.items() if factor}, factor * self.const)


# -- which selects are masks

def find_masks(em: Emitter, stream: Stream) -> list[Mask]:
    out = []
    for op in stream.atoms.ops:
        if op.name != "select":
            continue
        condition, x, y = op.operands
        for holds, kept, other in ((True, x, y), (False, y, x)):
            neutral = _constant(em, other)
            if neutral in (0.0, float("-inf")) and all(_identity(em, stream, op.result, neutral)):
                out.append(Mask(op.result, condition, holds, kept))
                break
    return out


def _constant(em: Emitter, v: Value) -> float | None:
    op = em.resolve(v).op
    if op is None or op.name not in ("const", "cast"):
        return None
    if op.name == "cast":
        return _constant(em, op.operands[0])
    value = op.attrs["value"]
    assert isinstance(value, (int, float))
    return float(value)


def _identity(em: Emitter, stream: Stream, select: Value, neutral: float) -> list[bool]:
    """For each state, whether an element with `select` at `neutral` leaves it as it is. Weights of 0 take what they multiply with them: a
    masked key contributes nothing, whatever stands there (side condition 5 of the cascade rule)."""
    anchors = {arg for s in stream.states for arg in stream.anchor_args(s)}

    def value(v: Value) -> float | None:
        v = em.resolve(v)
        if v is select:
            return neutral
        if v.op is None:
            return None
        xs = v.op.operands
        name = v.op.name
        if name in ("rename", "cast"):
            return value(xs[0])
        if name == "sub" and em.resolve(xs[1]) in anchors and value(xs[0]) == float("-inf"):
            return float("-inf")  # anchors are finite where they are used
        if name in ("exp", "exp2") and value(xs[0]) == float("-inf"):
            return 0.0
        if name == "exp" and v.op.attrs.get("floored") and value(em.resolve(xs[0]).op.operands[0]) == float("-inf"):  # type: ignore[union-attr]
            return 0.0
        if name == "mul" and 0.0 in (value(xs[0]), value(xs[1])):
            return 0.0
        if name == "select":
            x, y = value(xs[1]), value(xs[2])
            return x if x == y else None
        return None

    def kept(kind: str, v: list[Value]) -> bool:
        found = [value(x) for x in v]
        return 0.0 in found if kind == "sum" else kind == "max" and found == [float("-inf")]

    return [kept(s.kind, s.body.yielded) for s in stream.states]


# -- conditions as linear forms

def _form(em: Emitter, v: Value) -> Form | None:
    """`v` as a linear form; None where it is not an integer."""
    v = em.resolve(v)
    if v.tensor.dtype not in (DType.i32, DType.i16, DType.i8, DType.u8):
        return None
    op = v.op
    if op is not None and op.name == "const":
        value = op.attrs["value"]
        return Form({}, int(value)) if isinstance(value, int) else None
    if op is not None and op.name == "neg":
        x = _form(em, op.operands[0])
        return x and x.times(-1)
    if op is not None and op.name in ("add", "sub", "mul") and v.tensor.dtype == DType.i32:
        x, y = (_form(em, o) for o in op.operands)
        if x is None or y is None:
            return None
        if op.name != "mul":
            return x.plus(y, 1 if op.name == "add" else -1)
        if not y.terms:
            return x.times(y.const)
        if not x.terms:
            return y.times(x.const)
    if op is not None and op.name == "iota":
        return Form({v.tensor.dims[0]: 1}, 0)
    return Form({v: 1}, 0)


class Ranges:
    """Intervals of forms for the coordinates in scope: the streamed dim in [block lo, block hi], `rows` from its base on, `count` of them,
    `free` dims anywhere, every other dim at one coordinate."""

    def __init__(self, em: Emitter, dim: Dim, rows: Axis, count: Value, block: Pair | None = None, free: tuple[Dim, ...] = ()) -> None:
        self.em, self.k, self.dim, self.rows, self.count, self.block, self.free = em, em.k, dim, rows, count, block, free
        self._seen: dict[Value | Dim, Pair | None] = {}

    def of(self, form: Form) -> Pair | None:
        lo = hi = self.k.const(form.const)
        for leaf, c in form.terms.items():
            bounds = self._leaf(leaf)
            if bounds is None:
                return None
            a, b = bounds if c > 0 else bounds[::-1]
            lo, hi = self._add(lo, a, c), self._add(hi, b, c)
        return lo, hi

    def _add(self, x: Value, y: Value, factor: int) -> Value:
        if factor in (1, -1):
            return self.k.idx("add" if factor == 1 else "sub", x, y)
        return self.k.idx("add", x, self.k.idx("mul", y, factor))

    def _leaf(self, v: Value | Dim) -> Pair | None:
        if v not in self._seen:
            self._seen[v] = self._coordinates(v) if isinstance(v, Dim) else self._exact(v)
        return self._seen[v]

    def _coordinates(self, d: Dim) -> Pair | None:
        if d == self.dim:
            return self.block
        if d in self.rows.dims:
            return self._along_rows(d)
        if d in self.free:
            return None
        at = self.em.axis_of(d)[1].base
        return at, at

    def _exact(self, v: Value) -> Pair | None:
        if {self.dim, *self.rows.dims, *self.free} & set(v.tensor.dims):
            return None
        at = self.k.idx_from_s(self.em.one(v))
        return at, at

    def _along_rows(self, d: Dim) -> Pair:
        """Coordinates of `d` under the merged axis: exact when it is the outermost or the rows do not pass its end."""
        k, em, dims = self.k, self.em, self.rows.dims
        at = dims.index(d)
        first = self.rows.base
        last = k.idx("add", first, k.idx("max", k.idx("sub", self.count, 1), 0))
        if at + 1 < len(dims):
            inner = em.product(dims[at + 1:])
            first, last = k.idx("div", first, inner), k.idx("div", last, inner)
        if at == 0:
            return first, last
        extent = em.extent(d)
        same = k.cmp("eq", k.idx("div", first, extent), k.idx("div", last, extent))
        return (k.idx_select(same, k.idx("rem", first, extent), 0),
                k.idx_select(same, k.idx("rem", last, extent), k.idx("sub", extent, 1)))


Known = Value | None  # None: nothing is known
Test = Callable[[str, Form], Known]


def _everywhere(r: Ranges) -> Test:
    """form `op` 0 surely holds for every element."""
    def test(op: str, form: Form) -> Known:
        bounds = r.of(form)
        if bounds is None:
            return None
        lo, hi = bounds
        if op in ("lt", "le"):
            return r.k.cmp(op, hi, 0)
        if op in ("gt", "ge"):
            return r.k.cmp(op, lo, 0)
        if op == "eq":
            return r.k.s("and", r.k.cmp("eq", lo, 0), r.k.cmp("eq", hi, 0))
        return r.k.s("or", r.k.cmp("gt", lo, 0), r.k.cmp("lt", hi, 0))
    return test


def _both(k: K, x: Known, y: Known) -> Known:
    return None if x is None or y is None else k.s("and", x, y)


def _either(k: K, x: Known, y: Known) -> Known:
    return k.s("or", x, y) if x is not None and y is not None else y if x is None else x


def _surely(r: Ranges, v: Value, holds: bool) -> Known:
    """Whether the condition `v` is surely `holds` everywhere."""
    op = r.em.resolve(v).op
    if op is None:
        return None
    if op.name == "not":
        return _surely(r, op.operands[0], not holds)
    if op.name in ("and", "or"):
        join = _both if (op.name == "and") == holds else _either
        x, y = (_surely(r, o, holds) for o in op.operands)
        return join(r.k, x, y)
    comparison = _comparison(r.em, op, holds)
    return None if comparison is None else _everywhere(r)(*comparison)


def _comparison(em: Emitter, op: Op, holds: bool) -> tuple[str, Form] | None:
    """The comparison as (op, form): `form op 0`."""
    if op.name not in INVERSE:
        return None
    x, y = (_form(em, o) for o in op.operands)
    return None if x is None or y is None else (op.name if holds else INVERSE[op.name], x.plus(y, -1))


def whole(masks: list[Mask], r: Ranges) -> Value:
    """i1: no element of the block is masked."""
    found: Known = _surely(r, masks[0].condition, masks[0].holds)
    for m in masks[1:]:
        found = _both(r.k, found, _surely(r, m.condition, m.holds))
    return r.k.cmp("lt", 0, 0) if found is None else found


def nothing(masks: list[Mask], r: Ranges) -> Known:
    """i1: every element of the block is masked; None where that is never known."""
    found: Known = None
    for m in masks:
        found = _either(r.k, found, _surely(r, m.condition, not m.holds))
    return found


# -- the span of a work item

Span = tuple[Known, Known]


def span(masks: list[Mask], r: Ranges) -> Span:
    """The least lo and greatest hi of the streamed dim between which an element may be kept; None: no bound."""
    out: Span = None, None
    for m in masks:
        out = _meet(r.k, out, _span(r, m.condition, m.holds))
    return out


def _meet(k: K, x: Span, y: Span) -> Span:
    def one(op: str, a: Known, b: Known) -> Known:
        return k.idx(op, a, b) if a is not None and b is not None else b if a is None else a
    return one("max", x[0], y[0]), one("min", x[1], y[1])


def _join(k: K, x: Span, y: Span) -> Span:
    def one(op: str, a: Known, b: Known) -> Known:
        return k.idx(op, a, b) if a is not None and b is not None else None
    return one("min", x[0], y[0]), one("max", x[1], y[1])


def _span(r: Ranges, v: Value, holds: bool) -> Span:
    op = r.em.resolve(v).op
    if op is None:
        return None, None
    if op.name == "not":
        return _span(r, op.operands[0], not holds)
    if op.name in ("and", "or"):
        x, y = (_span(r, o, holds) for o in op.operands)
        return (_meet if (op.name == "and") == holds else _join)(r.k, x, y)
    comparison = _comparison(r.em, op, holds)
    if comparison is None:
        return None, None
    name, form = comparison
    factor = form.terms.get(r.dim, 0)
    if factor not in (1, -1):
        return None, None
    if factor == -1:
        name, form = SWAPPED[name], form.times(-1)
    bounds = r.of(form.plus(Form({r.dim: 1}, 0), -1))
    if bounds is None:
        return None, None
    lo, hi = (r.k.idx("sub", 0, b) for b in reversed(bounds))  # t `name` some value in [lo, hi]
    after = r.k.idx("add", hi, 1)
    return {"lt": (None, hi), "le": (None, after), "gt": (r.k.idx("add", lo, 1), None), "ge": (lo, None), "eq": (lo, after)}.get(
        name, (None, None))


def grows_with(em: Emitter, masks: list[Mask], dims: tuple[Dim, ...]) -> bool:
    """Whether more of the streamed dim is kept the later a work item is in `dims` (causal attention): those go first."""
    def scan(v: Value, holds: bool) -> bool:
        op = em.resolve(v).op
        if op is None:
            return False
        if op.name in ("and", "or", "not"):
            return any(scan(o, holds != (op.name == "not")) for o in op.operands)
        comparison = _comparison(em, op, holds)
        if comparison is None:
            return False
        name, form = comparison
        own = [form.terms.get(d, 0) for d in dims]
        t = [c for key, c in form.terms.items() if isinstance(key, Dim) and key not in dims]
        sign = -1 if name in ("gt", "ge") else 1
        return any(c * sign < 0 for c in own) and any(c * sign > 0 for c in t)
    return any(scan(m.condition, m.holds) for m in masks)
