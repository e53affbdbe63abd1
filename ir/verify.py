"""The verifier of both levels: what each op's row allows, and that every value is defined before its use.

A function that does not verify is a bug in us: `VerifyError` is an assertion, with the op's text and place. Level K's
own rules stand in `tile_verify.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rvgpu.ir.core import Block, Func, Op, Value
from rvgpu.ir.dims import Dim, parts_of
from rvgpu.ir.shapes import IllFormed, accumulator
from rvgpu.ir.tensor_ops import check_attrs, infer
from rvgpu.ir.text import print_op
from rvgpu.ir.types import TensorType

STREAM_ATTRS = {"dim": "dim", "names": "tuple?", "kinds": "tuple", "anchor_of": "tuple", "anchor_needs": "tuple", "part": "int?"}


class VerifyError(AssertionError):
    """Which op, in which function, and what was needed."""

    def __init__(self, func: str, op: Op | None, message: str) -> None:
        place = f" at {op.loc}" if op is not None and op.loc else ""
        text = f"\n  {print_op(op)}" if op is not None else ""
        super().__init__(f"{func}{place}: {message}{text}")


def verify(func: Func) -> Func:
    """Raises VerifyError; returns the function, so that it can stand in an expression."""
    TensorVerifier(func).run()
    return func


class Scope:
    """Values visible at a point: the region's own and those of the enclosing scopes."""

    def __init__(self, name: str, outer: Scope | None = None) -> None:
        self.name = name
        self.visible: set[Value] = set(outer.visible) if outer else set()
        self.defined: set[Value] = outer.defined if outer else set()  # anywhere so far: definitions are unique

    def define(self, v: Value, op: Op | None, index: int, where: Op | None) -> None:
        if v in self.defined:
            raise VerifyError(self.name, where, f"{v} is defined twice")
        if v.op is not op or v.index != index and op is not None:
            raise VerifyError(self.name, where, f"{v} does not point back to its op")
        self.defined.add(v)
        self.visible.add(v)

    def args(self, block: Block, where: Op) -> None:
        for v in block.args:
            self.define(v, None, 0, where)

    def use(self, op: Op) -> None:
        for v in op.operands:
            if v not in self.visible:
                why = "is not visible in this region" if v in self.defined else "is used before its definition"
                raise VerifyError(self.name, op, f"{v} {why}")

    def results(self, op: Op) -> None:
        for n, v in enumerate(op.results):
            self.define(v, op, n, op)


class TensorVerifier:
    def __init__(self, func: Func) -> None:
        self.func = func
        self.name = func.name

    def fail(self, op: Op | None, message: str) -> VerifyError:
        return VerifyError(self.name, op, message)

    def run(self) -> None:
        f, scope = self.func, Scope(self.func.name)
        if len({p.name for p in f.params}) != len(f.params):
            raise self.fail(None, "two parameters share a name")
        for p in f.params:
            if p.keyword and p.value.tensor.dims:
                raise self.fail(None, f"keyword parameter {p.name} is a scalar, found {p.value.type}")
            scope.define(p.value, None, 0, None)
            self.distinct(None, p.value)
        for op in f.body.ops:
            self.op(op, scope)
        if len(f.results) != len(f.result_types) or f.result_names and len(f.result_names) != len(f.results):
            raise self.fail(None, f"{len(f.results)} results, {len(f.result_types)} types, {len(f.result_names)} names")
        for v, t in zip(f.results, f.result_types, strict=True):
            if v not in scope.visible:
                raise self.fail(None, f"result {v} is not defined")
            if not alike(v.tensor, t):
                raise self.fail(None, f"result {v} does not have the declared {t} (up to the order of dims)")

    def distinct(self, op: Op | None, v: Value) -> None:
        if not isinstance(v.type, TensorType):
            raise self.fail(op, f"a tensor needed, found {v}")
        if len(set(v.type.dims)) != len(v.type.dims):
            raise self.fail(op, f"a dim occurs twice in {v}")

    def op(self, op: Op, scope: Scope) -> None:
        scope.use(op)
        for r in op.results:
            self.distinct(op, r)
        if op.name == "stream":
            self.stream(op, scope)
        else:
            self.plain(op)
        scope.results(op)

    def plain(self, op: Op) -> None:
        if op.regions:
            raise self.fail(op, f"{op.name} has no regions")
        if len(op.results) != 1:
            raise self.fail(op, f"{op.name} has one result, found {len(op.results)}")
        try:
            types = infer(op.name, [v.tensor for v in op.operands], op.attrs)
        except IllFormed as e:
            raise self.fail(op, str(e)) from None
        if types is None:
            value, t = op.attrs["value"], op.result.tensor
            if isinstance(value, float) and not t.dtype.is_float:
                raise self.fail(op, f"{value!r} is no value of {t.dtype}")
        elif not alike(op.result.tensor, types[0]):
            raise self.fail(op, f"the result is {types[0]} (up to the order of dims), found {op.result.type}")

    # -- stream (docs/ir.md)
    def region(self, op: Op, block: Block, what: str, inner: Scope, args: Sequence[TensorType]) -> list[TensorType]:
        """Checks a region whose arguments have the given types; the types it yields."""
        inner.args(block, op)
        found = [v.tensor for v in block.args]
        if found != list(args):
            raise self.fail(op, f"region {what} takes ({texts(args)}), found ({texts(found)})")
        if not block.ops or block.ops[-1].name != "yield":
            raise self.fail(op, f"region {what} does not end in yield")
        for o in block.ops[:-1]:
            self.op(o, inner)
        inner.use(block.ops[-1])
        return [v.tensor for v in block.yielded]

    def stream(self, op: Op, scope: Scope) -> None:
        try:
            check_attrs(STREAM_ATTRS, op.attrs)
        except IllFormed as e:
            raise self.fail(op, str(e)) from None
        dim, kinds, anchor_of, needs = (op.attrs[n] for n in ("dim", "kinds", "anchor_of", "anchor_needs"))
        assert isinstance(dim, Dim) and isinstance(kinds, tuple)
        assert isinstance(anchor_of, tuple) and isinstance(needs, tuple)
        n = len(kinds)
        if len(op.regions) != n + 4 or len(anchor_of) != n:
            raise self.fail(op, f"{n} states need {n + 4} regions and {n} entries in anchor_of, found "
                            f"{len(op.regions)} and {len(anchor_of)}")
        for k, kind in enumerate(kinds):
            if kind not in ("sum", "max", "min"):
                raise self.fail(op, f"state {k} is a sum, max or min, found {kind!r}")
        self.dependencies(op, anchor_of, needs)
        states = [v.tensor for v in op.regions[3 + n].args[:n]]
        for t in states:
            if dim in t.dims:
                raise self.fail(op, f"a state has no dim {dim}, found {t}")
        inside = Scope(self.name, scope)  # bodies see the atoms region's values
        atoms = self.region(op, op.regions[0], "atoms", inside, [v.tensor for v in op.operands])

        def region(k: int, what: str, args: list[TensorType], around: Scope = scope) -> list[TensorType]:
            return self.region(op, op.regions[k], what, Scope(self.name, around), args)

        anchors = region(1 + n, "anchors", states)
        if len(anchors) != len(needs) or any(dim in t.dims for t in anchors):
            raise self.fail(op, f"{len(needs)} anchors without dim {dim} needed, found ({texts(anchors)})")
        for k in range(n):
            used = [anchors[a] for a in anchor_of[k]]  # type: ignore[index,union-attr]
            found = region(1 + k, f"body {k}", [*atoms, *used], inside)
            self.body(op, dim, k, str(kinds[k]), states[k], found)
        self.yields(op, "rebase", region(2 + n, "rebase", [*states, *anchors]), states)
        finished = region(3 + n, "finish", [*states, *anchors])
        if "part" in op.attrs:
            finished = self.parts(op, dim, states, finished)
        self.yields(op, "finish", finished, [r.tensor for r in op.results])

    def parts(self, op: Op, dim: Dim, states: list[TensorType], finished: list[TensorType]) -> list[TensorType]:
        """What a stream in parts gives: its states, once for each part."""
        size = op.attrs["part"]
        assert isinstance(size, int)
        if dim.name is None or size < 1 or op.regions[-1].yielded != op.regions[-1].args[:len(states)]:
            raise self.fail(op, "a stream in parts cuts a plain dim into parts of at least 1 and finishes with its states")
        return [TensorType((parts_of(dim.name, size), *t.dims), t.dtype) for t in finished]

    def dependencies(self, op: Op, anchor_of: Iterable[object], needs: Iterable[object]) -> None:
        """An anchor comes from earlier states only."""
        last = []
        for a, states in enumerate(needs):
            if not isinstance(states, tuple) or not states:
                raise self.fail(op, f"anchor {a} needs at least one state")
            last.append(max(int(s) for s in states))
        for k, anchors in enumerate(anchor_of):
            assert isinstance(anchors, tuple)
            for a in anchors:
                if not 0 <= int(a) < len(last) or last[int(a)] >= k:
                    raise self.fail(op, f"state {k} uses anchor {a}, which is not there before it")

    def body(self, op: Op, dim: Dim, k: int, kind: str, state: TensorType, found: list[TensorType]) -> None:
        if len(found) == 1:
            ok = set(found[0].dims) <= {dim, *state.dims} and found[0].dtype == state.dtype
        elif len(found) == 2 and kind == "sum":
            x, y = found
            over = dim in x.dims and dim in y.dims
            rest = [d for d in dict.fromkeys((*x.dims, *y.dims)) if d != dim]
            ok = over and set(rest) == set(state.dims) and x.dtype == y.dtype and accumulator(x.dtype) == state.dtype
        else:
            ok = False
        if not ok:
            raise self.fail(op, f"body {k} of the {kind} state {state} yields one value over {dim} and "
                            f"its dims, or two to contract, found ({texts(found)})")

    def yields(self, op: Op, what: str, found: list[TensorType], needed: list[TensorType]) -> None:
        if len(found) != len(needed) or not all(map(alike, found, needed)):
            raise self.fail(op, f"region {what} yields ({texts(needed)}), found ({texts(found)})")


def alike(x: TensorType, y: TensorType) -> bool:
    """Equal up to the order of dims, which means nothing inside a function."""
    return x.dtype == y.dtype and len(x.dims) == len(y.dims) and set(x.dims) == set(y.dims)


def texts(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types))
