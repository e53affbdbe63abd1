"""P5: one rule for cascaded reductions, in one file (long). Reductions over one dim whose bodies use earlier totals get a single-pass form.

A sum body is brought to F = sum_t h_t(d) * b_t. Here b_t is a product of x-atoms (free of totals), anchored differences U = X(x) - D(d) to
integer powers, exp(k U) and [X == D]; h_t moves behind the loop. When an anchor D moves to D', with delta = D - D': U' = U + delta, so
  U'^p = sum_q C(p, q) delta^(p-q) U^q,   exp(k U') = exp(k delta) exp(k U),   [X == D'] = [delta == 0] [X == D],
and the finitely many base sums E(b) are closed under that: the state. Any cut of the dim into blocks, in any order, gives the same totals.

What keeps it exact in floating point: U is never split (exp(x) / exp(m) would overflow, x^2 - 2 x mu + mu^2 would cancel); an exponential and
[X == D] take only the maximum of the same X for D, so arguments and deltas are never positive; an anchor that divides by the dim's size divides
by the count so far (the mean of a part, not a part of the mean: Chan's formula). A rounding cast on a factor stays on the b part, so h_t moves
through it: the rounding's relative error is the same, and it is in the error bound. (Not on a power of U, whose size depends on the anchor.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from rvgpu.errors import RvgpuError
from rvgpu.ir.core import Attr, Block, Builder, Func, Op, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.numeric import neutral
from rvgpu.ir.shapes import accumulator
from rvgpu.ir.tidy import tidy
from rvgpu.ir.types import DType, TensorType
from rvgpu.passes.context import Context

MAX_RANK = 16
Anchor = tuple[Value, Value]  # (X, D)


@dataclass(frozen=True)
class Term:
    """h * b: `h` the d-factors (value, inverted?), the rest makes b."""

    h: tuple[tuple[Value, bool], ...] = ()
    xs: tuple[tuple[Value, bool], ...] = ()
    powers: tuple[tuple[Anchor, int], ...] = ()
    exps: tuple[tuple[Anchor, float], ...] = ()  # exp(k (X - D))
    equal: tuple[Anchor, ...] = ()
    guards: tuple[Value, ...] = ()
    cast: DType | None = None
    sign: int = 1

    def times(self, o: Term) -> Term:
        powers = dict(self.powers)
        for a, p in o.powers:
            powers[a] = powers.get(a, 0) + p
        assert not self.cast and not o.cast, "no arithmetic on rounded values"
        return Term(self.h + o.h, self.xs + o.xs, tuple(powers.items()), self.exps + o.exps, self.equal + o.equal, self.guards + o.guards,
                    None, self.sign * o.sign)

    @property
    def base(self) -> tuple[object, ...]:
        """What distinguishes b: two terms with the same base share a state."""
        return (frozenset(Counter(self.xs).items()), frozenset(self.powers), frozenset(Counter(self.exps).items()), frozenset(self.equal),
                frozenset(self.guards), self.cast)


class Reject(Exception):
    """The rule does not apply; the text is the remark's reason."""


def bottom_stripped(d: Value) -> Value:
    """m of select(m > -inf, m, 0): streams treat an anchor at its bottom as 0 themselves."""
    if d.op is not None and d.op.name == "select":
        cond, m, zero = d.op.operands
        if cond.op is not None and cond.op.name == "gt" and cond.op.operands[0] is m and _const(zero) == 0 \
                and _const(cond.op.operands[1]) == -math.inf:
            return m
    return d


def _const(v: Value) -> float | None:
    if v.op is not None and v.op.name == "const":
        x = v.op.attrs["value"]
        assert isinstance(x, (int, float))
        return x
    return None


def _summands(v: Value, whole: Callable[[Value], bool], k: float = 1.0) -> Iterator[tuple[Value, float]]:
    """v = sum of k * leaf, through +, -, negation and constant factors, down to what counts as `whole`."""
    name, xs = ("", []) if v.op is None or whole(v) else (v.op.name, v.op.operands)
    if name in ("add", "sub"):
        yield from _summands(xs[0], whole, k)
        yield from _summands(xs[1], whole, -k if name == "sub" else k)
    elif name == "neg":
        yield from _summands(xs[0], whole, -k)
    elif name == "mul" and any(_const(x) is not None for x in xs):
        c, x = xs if _const(xs[0]) is not None else xs[::-1]
        yield from _summands(x, whole, k * (_const(c) or 0.0))
    elif name == "div" and _const(xs[1]):
        yield from _summands(xs[0], whole, k / (_const(xs[1]) or 1.0))
    else:
        yield v, k


@dataclass
class _State:
    kind: str
    term: Term | None  # sum states
    value: Value | None  # max/min body
    rhs: Value | None  # contraction's other factor
    dtype: DType
    dims: tuple[Dim, ...]
    anchors: list[int] = field(default_factory=list)


class Derivation:
    """The stream of `totals` (reduce and contract ops over `dim`, in dependency order) of one function."""

    def __init__(self, dim: Dim, totals: Sequence[Op]) -> None:
        self.dim, self.totals = dim, list(totals)
        self.results = {t.result: n for n, t in enumerate(self.totals)}
        self.uses: dict[Value, tuple[bool, bool]] = {}
        self.own: dict[tuple[object, ...], Value] = {}
        self.states: list[_State] = []
        self.anchors: list[Value] = []  # the D
        self.needs: tuple[tuple[int, ...], ...] = ()  # per anchor: the states that it is computed from
        self.formulas: list[list[tuple[Term, int]]] = []

    # -- classification
    def kind(self, v: Value) -> tuple[bool, bool]:
        """(depends on a total, carries the dim)."""
        if v not in self.uses:
            if v in self.results:
                self.uses[v] = (True, False)
            else:
                total = any(self.kind(x)[0] for x in v.op.operands) if v.op is not None else False
                self.uses[v] = (total, self.dim in v.tensor.dims)
        return self.uses[v]

    def pure_x(self, v: Value) -> bool:
        return not self.kind(v)[0]

    def pure_d(self, v: Value) -> bool:
        return not self.kind(v)[1]

    # -- values that the function does not hold: a region that uses one gets a copy of its op
    def make(self, name: str, *xs: Value, dtype: DType | None = None, **attrs: Attr) -> Value:
        dtype = dtype or xs[0].tensor.dtype
        key = (name, *xs, dtype, *attrs.items())
        if key not in self.own:
            op = Op(name, list(xs), attrs=attrs)
            op.results = [Value(TensorType(tuple(dict.fromkeys(d for x in xs for d in x.tensor.dims)), dtype), op)]
            self.own[key] = op.result
        return self.own[key]

    def local(self, b: Builder, v: Value, made: dict[Value, Value]) -> Value:
        """v in a region: what uses a total or only the rule made is copied there, the rest is seen from outside."""
        if v in made or not self.kind(v)[0] and v not in self.own.values():
            return made.get(v, v)
        assert v.op is not None, v
        xs = [self.local(b, x, made) for x in v.op.operands]
        made[v] = b.op(v.op.name, xs, [v.type], **v.op.attrs)[0]
        return made[v]

    # -- normal form
    def normal(self, v: Value) -> list[Term]:
        if self.pure_x(v):
            return [Term(xs=((v, False),))]
        if self.pure_d(v):
            return [Term(h=((v, False),))]
        assert v.op is not None
        rule: Callable[..., list[Term]] | None = getattr(self, "n_" + v.op.name, None)
        if rule is None:
            raise Reject(f"`{v.op.name}` mixes the streamed dim {self.dim} with a total")
        return rule(v, *v.op.operands)

    def difference(self, x: Value, d: Value) -> Term:
        return Term(powers=(((x, bottom_stripped(d)), 1),))

    def n_add(self, v: Value, a: Value, b: Value) -> list[Term]:
        for x, d in ((a, b), (b, a)):
            if self.pure_x(x) and self.pure_d(d):
                return [self.difference(x, self.make("neg", d))]
        return [*self.normal(a), *self.normal(b)]

    def n_sub(self, v: Value, a: Value, b: Value) -> list[Term]:
        if self.pure_x(a) and self.pure_d(b):
            return [self.difference(a, b)]
        if self.pure_d(a) and self.pure_x(b):
            return [replace(self.difference(b, a), sign=-1)]
        return [*self.normal(a), *self.n_neg(b, b)]

    def n_neg(self, v: Value, x: Value) -> list[Term]:
        return [replace(t, sign=-t.sign) for t in self.normal(x)]

    def n_mul(self, v: Value, a: Value, b: Value) -> list[Term]:
        return [s.times(t) for s in self.normal(a) for t in self.normal(b)]

    def n_div(self, v: Value, a: Value, b: Value) -> list[Term]:
        if self.pure_x(b):
            return [t.times(Term(xs=((b, True),))) for t in self.normal(a)]
        if self.pure_d(b):
            return [t.times(Term(h=((b, True),))) for t in self.normal(a)]
        raise Reject("a division by something that mixes the streamed dim and totals")

    def n_exp(self, v: Value, x: Value) -> list[Term]:
        """exp(k (X - D) + d) = exp(d) exp(k U)."""
        parts = list(_summands(x, self.pure_x))
        xs = [(y, k) for y, k in parts if self.kind(y)[1]]
        if len(xs) != 1 or not self.pure_x(xs[0][0]):
            raise Reject("exp of an argument that is not X - D")
        (y, k), rest = xs[0], [(d, c) for d, c in parts if not self.kind(d)[1]]
        for part in [(d, c) for d, c in rest if c == -k]:
            anchor = self.extreme(y, bottom_stripped(part[0]))
            if anchor is not None and (k > 0) == (anchor[0] is y):
                if abs(k) > 1:
                    raise Reject("exp of k (X - D) with k above 1")
                rest.remove(part)
                return [Term(exps=((anchor, abs(k)),), h=((self.make("exp", self.sum(rest)), False),) if rest else ())]
        raise Reject("exp of X - D where D is not the maximum of the same X")

    def sum(self, parts: Sequence[tuple[Value, float]]) -> Value:
        out: Value | None = None
        for x, k in parts:
            y = x if abs(k) == 1 else self.make("mul", x, self.make("const", dtype=x.tensor.dtype, value=abs(k)))
            out = self.make("add" if k > 0 else "sub", out, y) if out is not None else y if k > 0 else self.make("neg", y)
        assert out is not None
        return out

    def extreme(self, x: Value, d: Value) -> Anchor | None:
        """(X, D) where D is the maximum of X over the dim; the minimum is minus the maximum of -X."""
        total = self.totals[self.results[d]] if d in self.results else None
        if total is None or total.attrs.get("op") not in ("max", "min") or total.operands[0] is not x:
            return None
        return (x, d) if total.attrs["op"] == "max" else (self.make("neg", x), self.make("neg", d))

    def n_select(self, v: Value, cond: Value, x: Value, y: Value) -> list[Term]:
        if _const(y) != 0:
            raise Reject(f"`select` mixes the streamed dim {self.dim} with a total")
        where = self.condition(cond)
        return [replace(t, equal=t.equal + where.equal, guards=t.guards + where.guards) for t in self.normal(x)]

    def condition(self, cond: Value) -> Term:
        """Guards and [X == D] that a condition is made of."""
        if self.pure_x(cond):
            return Term(guards=(cond,))
        assert cond.op is not None
        name, xs = cond.op.name, cond.op.operands
        if name == "and":
            return self.condition(xs[0]).times(self.condition(xs[1]))
        if name == "eq":
            for x, d in (xs, xs[::-1]):
                anchor = self.extreme(x, bottom_stripped(d))
                if anchor is not None:
                    return Term(equal=(anchor,))
            raise Reject("[X == D] needs D to be the maximum or minimum of the same X")
        raise Reject(f"`{name}` mixes the streamed dim {self.dim} with a total")

    def n_cast(self, v: Value, x: Value) -> list[Term]:
        dtype, source = v.tensor.dtype, x.tensor.dtype
        if source == DType.i1:
            return [self.condition(x)]
        terms = self.normal(x)
        if len(terms) != 1:
            raise Reject("a conversion of a sum that uses a total")
        if terms[0].cast:
            raise Reject("a rounded value in further arithmetic: two roundings in one product")
        if not dtype.is_float or accumulator(dtype) != source:
            raise Reject(f"a conversion from {source} to {dtype} of a value that uses a total")
        if terms[0].powers:
            raise Reject("a rounding of X - D, whose size depends on the anchor")
        return [replace(terms[0], cast=dtype)]

    # -- states
    def anchor(self, d: Value) -> int:
        if d not in self.anchors:
            for v in self.sizes(d):
                self.count(v)
            self.anchors.append(d)
        return self.anchors.index(d)

    def sizes(self, d: Value) -> list[Value]:
        """The dim's size in a d-expression, converted where it is."""
        if d.op is None or d in self.results:
            return []
        of = d.op.operands[0].op if d.op.name == "cast" else d.op
        if of is not None and of.name == "size" and of.attrs["dim"] == self.dim:
            return [d]
        return [v for x in d.op.operands for v in self.sizes(x)]

    def count(self, size: Value) -> int:
        """The state that counts positions, in the dtype of `size`."""
        return self.state_of(Term(), size.tensor.dtype, (), None)

    def closure(self, term: Term) -> list[Term]:
        """Every b that a move of b's anchors brings in: all lower powers, b itself last."""
        out = [term]
        for n, (a, p) in enumerate(term.powers):
            out = [replace(t, powers=(*t.powers[:n], (a, q), *t.powers[n + 1:])) for t in out for q in range(p + 1)]
        return out

    def state_of(self, term: Term, dtype: DType, dims: tuple[Dim, ...], rhs: Value | None) -> int:
        """The state of b; it has those of `dims` that b and the contraction's other factor vary with."""
        b = replace(term, h=(), sign=1, powers=tuple((a, p) for a, p in term.powers if p))
        pairs = [*(a for a, _ in b.powers), *(a for a, _ in b.exps), *b.equal]
        parts = [*(x for x, _ in b.xs), *(v for a in pairs for v in a), *b.guards, *([rhs] if rhs else [])]
        dims = tuple(d for d in dims if any(d in v.tensor.dims for v in parts))
        for n, s in enumerate(self.states):
            if s.term is not None and s.term.base == b.base and s.rhs is rhs and s.dtype == dtype and s.dims == dims:
                return n
        used = [self.anchor(d) for d in dict.fromkeys(d for _, d in pairs)]
        if len(self.states) >= MAX_RANK:
            raise Reject(f"the state has more than {MAX_RANK} parts")
        self.states.append(_State("sum", b, None, rhs, dtype, dims, used))
        return len(self.states) - 1

    def add_total(self, t: Op) -> None:
        dims, dtype = t.result.tensor.dims, t.result.tensor.dtype
        if t.name == "contract":
            lhs, rhs = t.operands
            if not self.pure_x(rhs):
                lhs, rhs = rhs, lhs
            if not self.pure_x(rhs):
                raise Reject("both factors of a contraction use totals")
            terms = self.normal(lhs)
            self.formulas.append([(term, self._closed(term, dtype, dims, rhs)) for term in terms])
            return
        if t.attrs["op"] in ("max", "min"):
            body = t.operands[0]
            if self.pure_x(body):
                self.states.append(_State(str(t.attrs["op"]), None, body, None, dtype, dims))
            else:
                term = self.guarded(str(t.attrs["op"]), body)
                used = [self.anchor(d) for _, d in dict.fromkeys(term.equal)]
                self.states.append(_State(str(t.attrs["op"]), term, None, None, dtype, dims, used))
            self.formulas.append([(Term(), len(self.states) - 1)])
            return
        if t.attrs["op"] != "sum":
            raise Reject(f"a reduction by {t.attrs['op']}")
        self.formulas.append([(term, self._closed(term, dtype, dims, None)) for term in self.normal(t.operands[0])])

    def guarded(self, kind: str, body: Value) -> Term:
        """select([X == D], x, identity): an extreme over the positions where X is at its own. Where D moves, nothing is left of it."""
        name, xs = ("", []) if body.op is None else (body.op.name, body.op.operands)
        if name != "select" or not self.pure_x(xs[1]) or _const(xs[2]) != neutral(kind, body.tensor.dtype):
            raise Reject("a maximum whose body uses a total")
        return self.condition(xs[0]).times(Term(xs=((xs[1], False),)))

    def _closed(self, term: Term, dtype: DType, dims: tuple[Dim, ...], rhs: Value | None) -> int:
        return [self.state_of(b, dtype, dims, rhs) for b in self.closure(term)][-1]

    def lower(self, s: _State) -> list[tuple[int, Term]]:
        """The states that s is re-based from, itself last."""
        if s.kind != "sum" and s.term is not None:
            return [(self.states.index(s), s.term)]
        return [(self.state_of(t, s.dtype, s.dims, s.rhs), t) for t in self.closure(s.term)] if s.term is not None else []

    # -- the op
    def build(self, b: Builder) -> list[Value]:
        """Appends the stream; returns its results, one per total. Raises Reject."""
        for t in self.totals:
            self.add_total(t)
        n = len(self.states)
        types = [TensorType(s.dims, s.dtype) for s in self.states]
        anchor_types = [d.tensor for d in self.anchors]
        regions = [Block()]
        Builder(regions[0]).op("yield")
        for s in self.states:
            regions.append(self._body(s, anchor_types))
        self.needs, anchors = self._anchors(types)
        regions += [anchors, self._rebase(types, anchor_types), self._finish(types, anchor_types)]
        attrs: dict[str, Attr] = {"dim": self.dim, "kinds": tuple(s.kind for s in self.states), "names": tuple(f"s{i}" for i in range(n)),
                                  "anchor_of": tuple(tuple(s.anchors) for s in self.states), "anchor_needs": self.needs}
        regions[0].ops[:0] = self.atom_ops()
        return b.op("stream", [], [t.result.type for t in self.totals], regions, **attrs)

    def atom_ops(self) -> list[Op]:
        """Contractions and reductions over other dims inside the bodies: the x-atoms that the machine must make per block."""
        seen: dict[Op, None] = {}

        def walk(v: Value) -> None:
            if v.op is None or v in self.results or not self.kind(v)[1]:
                return
            for x in v.op.operands:
                walk(x)
            if v.op.name in ("contract", "reduce"):
                seen.setdefault(v.op)

        for t in self.totals:
            for x in t.operands:
                walk(x)
        return list(seen)

    def _body(self, s: _State, anchor_types: list[TensorType]) -> Block:
        args = [Value(anchor_types[a]) for a in s.anchors]
        block = Block(args)
        b = Builder(block)
        if s.value is not None:
            b.op("yield", [s.value])
            return block
        assert s.term is not None
        out = self._base(b, s.term, dict(zip((self.anchors[a] for a in s.anchors), args, strict=True)), s.dtype, neutral(s.kind, s.dtype))
        if s.rhs is None:
            b.op("yield", [out])
        elif self.dim in out.tensor.dims:
            b.op("yield", [out, s.rhs])
        else:  # nothing of b varies along the dim: a sum of the other factor
            b.op("yield", [_two(b, "mul", s.rhs, out)])
        return block

    def _base(self, b: Builder, term: Term, at: dict[Value, Value], dtype: DType, nothing: float) -> Value:
        """The value of b(x; anchors), `nothing` where a guard says no; `at` has the anchors' arguments."""
        made: dict[Value, Value] = {}
        factors: list[Value] = []

        def diff(a: Anchor) -> Value:
            return _two(b, "sub", self.local(b, a[0], made), at[a[1]])

        for a, k in term.exps:
            u = _scaled(b, diff(a), k)
            factors.append(b.op("exp", [u], [u.type], anchored=True)[0])
        for a, p in term.powers:
            factors += [diff(a)] * p
        factors += [x for x, inverse in term.xs if not inverse]
        if not factors:
            factors = [_const_of(b, 1.0 if dtype.is_float else 1, dtype)]
        out = factors[0]
        for f in factors[1:]:
            out = _two(b, "mul", out, f)
        for x, inverse in term.xs:
            if inverse:
                out = _two(b, "div", out, x)
        for g in [*term.guards, *(_two(b, "eq", self.local(b, x, made), at[d], DType.i1) for x, d in term.equal)]:
            out = _where(b, g, out, nothing)
        if term.cast is not None and out.tensor.dtype != term.cast:
            out = b.op("cast", [out], [TensorType(out.tensor.dims, term.cast)], dtype=term.cast)[0]
        return out

    def _totals_from(self, b: Builder, states: Sequence[Value], which: set[int], used: set[int], made: dict[Value, Value]) -> None:
        """The totals `which` as expressions of the states into `made`; `used` collects the states."""
        for n, (t, formula) in enumerate(zip(self.totals, self.formulas, strict=True)):
            if n not in which:
                continue
            out: Value | None = None
            for term, state in formula:
                used.add(state)
                x = states[state]
                for h, inverse in term.h:
                    x = _two(b, "div" if inverse else "mul", x, self.local(b, h, made))
                if term.sign < 0:
                    x = b.op("neg", [x], [x.type])[0]
                out = x if out is None else _two(b, "add", out, x)
            assert out is not None
            made[t.result] = out

    def _anchors(self, types: list[TensorType]) -> tuple[tuple[tuple[int, ...], ...], Block]:
        block = Block([Value(t) for t in types])
        b = Builder(block)
        needs, out = [], []
        for d in self.anchors:
            counts = {v: self.count(v) for v in self.sizes(d)}
            used = set(counts.values())
            made = {v: block.args[n] for v, n in counts.items()}
            self._totals_from(b, block.args, self._needed(d), used, made)
            out.append(self.local(b, d, made))
            needs.append(tuple(sorted(used)))
        b.op("yield", out)
        return tuple(needs), block

    def _needed(self, d: Value) -> set[int]:
        """Totals that a d-expression uses, through the factors that moved out of their bodies too."""
        out = {n for r, n in self.results.items() if self._mentions(d, r)}
        for n in list(out):
            for term, _ in self.formulas[n]:
                for h, _ in term.h:
                    out |= self._needed(h)
        return out

    def _mentions(self, v: Value, target: Value) -> bool:
        return v is target or (v.op is not None and v not in self.results and any(self._mentions(x, target) for x in v.op.operands))

    def _rebase(self, types: list[TensorType], anchor_types: list[TensorType]) -> Block:
        block = Block([Value(t) for t in [*types, *anchor_types]])
        b = Builder(block)
        states, deltas = block.args[:len(types)], block.args[len(types):]
        b.op("yield", [self._moved(b, n, s, states, deltas) for n, s in enumerate(self.states)])
        return block

    def _moved(self, b: Builder, n: int, s: _State, states: Sequence[Value], deltas: Sequence[Value]) -> Value:
        """State n at the new anchors."""
        if s.term is None or not s.anchors:
            return states[n]
        out: Value | None = None
        for below, term in self.lower(s):
            x, low = states[below], dict(term.powers)
            for a, p in s.term.powers:
                q = low.get(a, 0)
                for _ in range(p - q):
                    x = _two(b, "mul", x, deltas[self.anchor(a[1])])
                x = _scaled(b, x, float(math.comb(p, q)))
            out = x if out is None else _two(b, "add", out, x)
        assert out is not None
        for a, k in s.term.exps:
            d = _scaled(b, deltas[self.anchor(a[1])], k)
            out = _two(b, "mul", out, b.op("exp", [d], [d.type])[0])
        for _, anchor in s.term.equal:  # inf less inf is NaN, and no move
            d = deltas[self.anchor(anchor)]
            zero = _const_of(b, 0, d.tensor.dtype)
            moved = _two(b, "or", _two(b, "lt", d, zero, DType.i1), _two(b, "gt", d, zero, DType.i1))
            out = _where(b, b.op("not", [moved], [moved.type])[0], out, neutral(s.kind, s.dtype))
        return out

    def _finish(self, types: list[TensorType], anchor_types: list[TensorType]) -> Block:
        block = Block([Value(t) for t in [*types, *anchor_types]])
        b = Builder(block)
        made: dict[Value, Value] = {}
        self._totals_from(b, block.args[:len(types)], set(range(len(self.totals))), set(), made)
        b.op("yield", [made[t.result] for t in self.totals])
        return block


def _union(x: Value, y: Value) -> tuple[Dim, ...]:
    big, small = (x, y) if len(x.tensor.dims) >= len(y.tensor.dims) else (y, x)
    return (*(d for d in small.tensor.dims if d not in big.tensor.dims), *big.tensor.dims)


def _two(b: Builder, name: str, x: Value, y: Value, dtype: DType | None = None) -> Value:
    return b.op(name, [x, y], [TensorType(_union(x, y), dtype or x.tensor.dtype)])[0]


def _where(b: Builder, cond: Value, x: Value, nothing: float) -> Value:
    """x where cond holds, else `nothing`."""
    t = TensorType(_union(cond, x), x.tensor.dtype)
    return b.op("select", [cond, x, _const_of(b, nothing, t.dtype)], [t])[0]


def _scaled(b: Builder, x: Value, k: float) -> Value:
    return x if k == 1 else _two(b, "mul", x, _const_of(b, k, x.tensor.dtype))


def _const_of(b: Builder, value: float, dtype: DType) -> Value:
    return b.op("const", [], [TensorType((), dtype)], value=value)[0]


def error_of(reject: Reject, op: Op) -> RvgpuError:
    return RvgpuError("E305", f"this reduction cannot run in one pass: {reject}", op.loc)


def streamed_dim(op: Op) -> Dim:
    dims = op.attrs["dims"]
    assert isinstance(dims, tuple)
    if len(dims) != 1:
        raise RvgpuError("E306", "a reduction over several dims at once is not supported yet", op.loc).hint("reduce over one dim after the other")
    d = dims[0]
    assert isinstance(d, Dim)
    return d


@dataclass(frozen=True)
class Cascade:
    """The totals of each kernel become one `stream`; everything after them reads its results."""

    name = "cascade"
    level = "tensor"

    def run(self, func: Func, context: Context) -> list[Func]:
        totals = [op for op in func.body.ops if op.name in ("reduce", "contract")]
        if not totals:
            return [func]
        dim = streamed_dim(totals[-1])
        group = [t for t in totals if streamed_dim(t) == dim]
        block = Block()
        b = Builder(block, group[0].loc)
        first = func.body.ops.index(group[0])
        block.ops += func.body.ops[:first]
        rest = func.body.ops[first:]
        done = set(group)
        before: set[Value] = set()
        for op in rest:  # what no total of the group is needed for stands before the stream
            if op in done or any(x.op in done or x in before for x in op.operands):
                before |= set(op.results)
        block.ops += [op for op in rest if not set(op.results) & before]
        try:
            outs = Derivation(dim, group).build(b)
        except Reject as e:
            raise error_of(e, group[0]) from None
        made = dict(zip((t.result for t in group), outs, strict=True))
        block.ops += [op for op in rest if set(op.results) & before and op not in done]
        stream = outs[0].op
        for op in block.ops:
            if op is not stream:
                op.operands = [made.get(x, x) for x in op.operands]
        results = [made.get(r, r) for r in func.results]
        return [tidy(Func(func.name, func.params, block, results, func.result_types, func.loc, func.result_names))]
