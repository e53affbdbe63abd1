"""P5: one rule for cascaded reductions. Reductions over one dim whose bodies use earlier totals get a single-pass form.

A sum body is brought to F = sum_t h_t(d) * b_t. Here b_t is a product of x-atoms (free of totals), anchored differences U = X(x) - D(d) to
integer powers, exp(U) and [X == D]; h_t moves behind the loop. When an anchor D moves to D', with delta = D - D': U' = U + delta, so
  U'^p = sum_q C(p, q) delta^(p-q) U^q,   exp(U') = exp(delta) exp(U),   [X == D'] = [delta == 0] [X == D],
and the finitely many base sums E(b) are closed under that: the state. Any cut of the dim into blocks, in any order, gives the same totals.
U is never split (exp(x) / exp(m) would overflow, x^2 - 2 x mu + mu^2 would cancel). A rounding cast on a factor stays on the b part, so h_t moves
through it: the rounding's relative error is the same, and it is in the error bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rvgpu.errors import RvgpuError
from rvgpu.ir.core import Attr, Block, Builder, Func, Op, Value
from rvgpu.ir.dims import Dim
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
    exps: tuple[Anchor, ...] = ()
    equal: tuple[Anchor, ...] = ()
    guards: tuple[Value, ...] = ()
    cast: DType | None = None
    sign: int = 1

    def times(self, o: Term) -> Term:
        powers = dict(self.powers)
        for a, p in o.powers:
            powers[a] = powers.get(a, 0) + p
        if self.cast and o.cast and self.cast != o.cast:
            raise Reject("two different roundings in one product")
        return Term(self.h + o.h, self.xs + o.xs, tuple(powers.items()), self.exps + o.exps, self.equal + o.equal, self.guards + o.guards,
                    self.cast or o.cast, self.sign * o.sign)

    @property
    def base(self) -> tuple[object, ...]:
        """What distinguishes b: two terms with the same base share a state."""
        return (frozenset(self.xs), frozenset(self.powers), self.exps, self.equal, self.guards, self.cast)


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
        self.states: list[_State] = []
        self.anchors: list[Anchor] = []
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

    # -- normal form
    def normal(self, v: Value) -> list[Term]:
        if self.pure_x(v):
            return [Term(xs=((v, False),))]
        if self.pure_d(v):
            return [Term(h=((v, False),))]
        assert v.op is not None
        name, xs = v.op.name, v.op.operands
        if name in ("add", "sub"):
            a, b = xs
            if name == "sub" and self.pure_x(a) and self.pure_d(b):
                return [Term(powers=(((a, bottom_stripped(b)), 1),))]
            if name == "sub" and self.pure_d(a) and self.pure_x(b):
                return [Term(powers=(((b, bottom_stripped(a)), 1),), sign=-1)]
            minus = -1 if name == "sub" else 1
            return [*self.normal(a), *(replace(t, sign=t.sign * minus) for t in self.normal(b))]
        if name == "neg":
            return [replace(t, sign=-t.sign) for t in self.normal(xs[0])]
        if name == "mul":
            return [s.times(t) for s in self.normal(xs[0]) for t in self.normal(xs[1])]
        if name == "div":
            if self.pure_d(xs[1]):
                return [t.times(Term(h=((xs[1], True),))) for t in self.normal(xs[0])]
            if self.pure_x(xs[1]):
                return [t.times(Term(xs=((xs[1], True),))) for t in self.normal(xs[0])]
            raise Reject("a division by something that mixes the streamed dim and totals")
        if name == "exp":
            return [Term(exps=(self.difference(xs[0]),))]
        if name == "cast":
            return self.through_cast(v, xs[0])
        if name == "select" and self.pure_x(xs[0]) and _const(xs[2]) == 0:
            return [replace(t, guards=(*t.guards, xs[0])) for t in self.normal(xs[1])]
        raise Reject(f"`{name}` mixes the streamed dim {self.dim} with a total")

    def through_cast(self, v: Value, x: Value) -> list[Term]:
        dtype = v.tensor.dtype
        if x.tensor.dtype == DType.i1 and x.op is not None and x.op.name == "eq":
            a, b = x.op.operands
            a, b = (a, b) if self.pure_x(a) else (b, a)
            if self.pure_x(a) and self.pure_d(b):
                source = bottom_stripped(b)
                total = self.results.get(source)
                if total is None or self.totals[total].attrs.get("op") not in ("max", "min") or self.totals[total].operands[0] is not a:
                    raise Reject("[X == D] needs D to be the maximum or minimum of the same X")
                return [Term(equal=((a, source),))]
        terms = self.normal(x)
        if not (dtype.is_float and x.tensor.dtype.is_float) or len(terms) != 1 or terms[0].cast:
            raise Reject("a conversion of a sum that uses a total")
        return [replace(terms[0], cast=dtype)]

    def difference(self, v: Value) -> Anchor:
        """exp's argument as X - D."""
        if v.op is not None and v.op.name == "sub" and self.pure_x(v.op.operands[0]) and self.pure_d(v.op.operands[1]):
            return (v.op.operands[0], bottom_stripped(v.op.operands[1]))
        raise Reject("exp of an argument that is not X - D")

    # -- states
    def anchor(self, a: Anchor) -> int:
        if a not in self.anchors:
            self.anchors.append(a)
        return self.anchors.index(a)

    def closure(self, term: Term) -> list[Term]:
        """b and every b that a move of its anchors brings in: all lower powers."""
        out = [term]
        for n, (a, p) in enumerate(term.powers):
            out = [replace(t, powers=(*t.powers[:n], (a, q), *t.powers[n + 1:])) for t in out for q in range(p + 1)]
        return out

    def state_of(self, term: Term, dtype: DType, dims: tuple[Dim, ...], rhs: Value | None) -> int:
        b = replace(term, h=(), sign=1, powers=tuple((a, p) for a, p in term.powers if p))
        for n, s in enumerate(self.states):
            if s.term is not None and s.term.base == b.base and s.rhs is rhs and s.dtype == dtype and s.dims == dims:
                return n
        if len(self.states) >= MAX_RANK:
            raise Reject(f"the state has more than {MAX_RANK} parts")
        used = [self.anchor(a) for a in dict.fromkeys([*(a for a, _ in b.powers), *b.exps, *b.equal])]
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
            if not self.pure_x(body):
                raise Reject("a maximum whose body uses a total")
            self.states.append(_State(str(t.attrs["op"]), None, body, None, dtype, dims))
            self.formulas.append([(Term(), len(self.states) - 1)])
            return
        if t.attrs["op"] != "sum":
            raise Reject(f"a reduction by {t.attrs['op']}")
        self.formulas.append([(term, self._closed(term, dtype, dims, None)) for term in self.normal(t.operands[0])])

    def _closed(self, term: Term, dtype: DType, dims: tuple[Dim, ...], rhs: Value | None) -> int:
        # lower powers first, so that a state only depends on earlier ones
        for b in self.closure(term):
            last = self.state_of(b, dtype, dims, rhs)
        return self.state_of(term, dtype, dims, rhs) if term.powers else last

    # -- the op
    def build(self, b: Builder) -> list[Value]:
        """Appends the stream; returns its results, one per total. Raises Reject."""
        for t in self.totals:
            self.add_total(t)
        n = len(self.states)
        types = [TensorType(s.dims, s.dtype) for s in self.states]
        anchor_types = [TensorType(d.tensor.dims, d.tensor.dtype) for _, d in self.anchors]
        regions = [Block()]
        Builder(regions[0]).op("yield")
        for s in self.states:
            regions.append(self._body(s, anchor_types))
        needs, anchors = self._anchors(types)
        regions += [anchors, self._rebase(types, anchor_types), self._finish(types, anchor_types)]
        attrs: dict[str, Attr] = {"dim": self.dim, "kinds": tuple(s.kind for s in self.states), "names": tuple(f"s{i}" for i in range(n)),
                                  "anchor_of": tuple(tuple(s.anchors) for s in self.states), "anchor_needs": needs}
        atoms = [op for op in self._atom_ops()]
        regions[0].ops[:0] = atoms
        return b.op("stream", [], [t.result.type for t in self.totals], regions, **attrs)

    def _atom_ops(self) -> list[Op]:
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
        at = {self.anchors[a]: arg for a, arg in zip(s.anchors, args, strict=True)}
        out = self._base(b, s.term, at, s.dtype)
        b.op("yield", [out] if s.rhs is None else [out, s.rhs])
        return block

    def _base(self, b: Builder, term: Term, at: dict[Anchor, Value], dtype: DType) -> Value:
        """The value of b(x; anchors)."""
        factors: list[Value] = []

        def diff(a: Anchor) -> Value:
            return _two(b, "sub", a[0], at[a])

        for a in term.exps:
            u = diff(a)
            factors.append(b.op("exp", [u], [u.type], anchored=True)[0])
        for a, p in term.powers:
            factors += [diff(a)] * p
        for a in term.equal:
            same = _two(b, "eq", a[0], at[a], DType.i1)
            factors.append(b.op("cast", [same], [TensorType(same.tensor.dims, dtype)], dtype=dtype)[0])
        factors += [x for x, inverse in term.xs if not inverse]
        if not factors:
            factors = [_const_of(b, 1.0, dtype)]
        out = factors[0]
        for f in factors[1:]:
            out = _two(b, "mul", out, f)
        for x, inverse in term.xs:
            if inverse:
                out = _two(b, "div", out, x)
        for g in term.guards:
            dims = _union(g, out)
            out = b.op("select", [g, out, _const_of(b, 0.0, out.tensor.dtype)], [TensorType(dims, out.tensor.dtype)])[0]
        if term.cast is not None and out.tensor.dtype != term.cast:
            out = b.op("cast", [out], [TensorType(out.tensor.dims, term.cast)], dtype=term.cast)[0]
        return out

    def _totals_from(self, b: Builder, states: Sequence[Value], which: set[int], used: set[int]) -> dict[Value, Value]:
        """The totals `which` as expressions of the states; `used` collects the states."""
        made: dict[Value, Value] = {}
        for n, (t, formula) in enumerate(zip(self.totals, self.formulas, strict=True)):
            if n not in which:
                continue
            out: Value | None = None
            for term, state in formula:
                used.add(state)
                x = states[state]
                for h, inverse in term.h:
                    x = _two(b, "div" if inverse else "mul", x, self._copy(b, h, made))
                if term.sign < 0:
                    x = b.op("neg", [x], [x.type])[0]
                out = x if out is None else _two(b, "add", out, x)
            assert out is not None
            made[t.result] = out
        return made

    def _copy(self, b: Builder, v: Value, made: dict[Value, Value]) -> Value:
        """A d-expression with totals replaced."""
        if v in made or not self.kind(v)[0]:
            return made.get(v, v)
        assert v.op is not None, v
        xs = [self._copy(b, x, made) for x in v.op.operands]
        made[v] = b.op(v.op.name, xs, [v.type], **v.op.attrs)[0]
        return made[v]

    def _anchors(self, types: list[TensorType]) -> tuple[tuple[tuple[int, ...], ...], Block]:
        block = Block([Value(t) for t in types])
        b = Builder(block)
        needs, out = [], []
        for _, d in self.anchors:
            used: set[int] = set()
            made = self._totals_from(b, block.args, self._needed(d), used)
            if any(self.states[s].anchors for s in used):
                raise Reject("an anchor that depends on an anchored total")
            out.append(self._copy(b, d, made))
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
        for lower in self.closure(s.term):
            x = states[self.state_of(lower, s.dtype, s.dims, s.rhs)]
            low = dict(lower.powers)
            for a, p in s.term.powers:
                q = low.get(a, 0)
                for _ in range(p - q):
                    x = _two(b, "mul", x, deltas[self.anchor(a)])
                if math.comb(p, q) != 1:
                    x = _two(b, "mul", x, _const_of(b, float(math.comb(p, q)), s.dtype))
            out = x if out is None else _two(b, "add", out, x)
        assert out is not None
        for a in s.term.exps:
            d = deltas[self.anchor(a)]
            out = _two(b, "mul", out, b.op("exp", [d], [d.type])[0])
        for a in s.term.equal:
            d = deltas[self.anchor(a)]
            still = _two(b, "eq", d, _const_of(b, 0.0, d.tensor.dtype), DType.i1)
            out = b.op("select", [still, out, _const_of(b, 0.0, s.dtype)], [out.type])[0]
        return out

    def _finish(self, types: list[TensorType], anchor_types: list[TensorType]) -> Block:
        block = Block([Value(t) for t in [*types, *anchor_types]])
        b = Builder(block)
        made = self._totals_from(b, block.args[:len(types)], set(range(len(self.totals))), set())
        b.op("yield", [made[t.result] for t in self.totals])
        return block


def _union(x: Value, y: Value) -> tuple[Dim, ...]:
    big, small = (x, y) if len(x.tensor.dims) >= len(y.tensor.dims) else (y, x)
    return (*(d for d in small.tensor.dims if d not in big.tensor.dims), *big.tensor.dims)


def _two(b: Builder, name: str, x: Value, y: Value, dtype: DType | None = None) -> Value:
    return b.op(name, [x, y], [TensorType(_union(x, y), dtype or x.tensor.dtype)])[0]


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
