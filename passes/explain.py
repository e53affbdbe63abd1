"""What `rvgpu compile --explain` says: pass by pass the change and the predicted cycles, and how a cascade was derived.

Predicted cycles: before `cluster` every op is a launch of its own that reads its operands from DRAM and writes its result; from `cluster` on each
kernel reads its parameters and writes its results once; from `tile` on matrix kernels have the price of P7's model. A launch costs at least its DRAM
traffic, its multiply-adds at the matrix unit's rate and its elementwise work at the vector lanes' rate, whichever is longest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rvgpu.ir.core import Block, Func, Op, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import TensorType
from rvgpu.passes.context import Context
from rvgpu.passes.cost import FREE, roofline

Unit = Func | KFunc
INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "and": "&", "or": "|"}
SHOWN = 12  # kinds of ops that a change lists


class Explain:
    """A hook of the pipeline; `lines` is the text."""

    def __init__(self, func: Func, context: Context) -> None:
        self.context, self.clustered, self.said = context, False, 0
        self.rows: dict[str, float] = {}  # cycles of kernels without a model of their own
        self.ops, self.spm, self.kernels, self.tiled = count([func]), [0], 1, False
        self.cycles = self.predicted([func])
        self.lines = [f"{func.name}: {signature(func)}", f"{'as written':12} {self.price()}  {ops_of([func])}"]

    def __call__(self, name: str, units: Sequence[Unit]) -> None:
        """After the pass `name`."""
        self.clustered |= name == "cluster"
        self.cycles = self.predicted(units)
        self.lines.append(f"{name:12} {self.price()}  {self.change(units)}")
        if name == "cluster":
            self.lines += [f"    {u.name}: {signature(u)}" for u in units if isinstance(u, Func)]
        if name == "cascade":
            streams = [(u, op) for u in units if isinstance(u, Func) for op in u.body.ops if op.name == "stream"]
            self.lines += [f"    {line}" for u, op in streams for line in derivation(u, op)]
        for r in self.context.remarks[self.said:]:
            self.lines.append(f"    {f'{r.op.loc}: ' if r.op is not None and r.op.loc else ''}{r.text}")
        self.said = len(self.context.remarks)

    def price(self) -> str:
        return f"{self.cycles:>12,.0f} cycles"

    def change(self, units: Sequence[Unit]) -> str:
        """What the pass took away and added; passes change level K in place, so what was before is kept as numbers."""
        ops, spm, tiled = count(units), [u.spm_bytes for u in units if isinstance(u, KFunc)], all(isinstance(u, KFunc) for u in units)
        old, old_spm, old_kernels, entered = self.ops, self.spm, self.kernels, tiled and not self.tiled
        self.ops, self.spm, self.kernels, self.tiled = ops, spm, len(units), tiled
        if entered:
            return ops_of(units)
        parts = [f"{sign}{n} {op}" for sign, c in (("-", old - ops), ("+", ops - old)) for op, n in c.most_common(SHOWN)]
        parts += [f"{len(units)} kernels"] if len(units) != old_kernels else []
        parts += [f"{', '.join(map(str, spm))} bytes of scratchpad"] if tiled and spm != old_spm else []
        return " ".join(parts) or "nothing"

    # -- cycles
    def predicted(self, units: Iterable[Unit]) -> float:
        out = 0.0
        for u in units:
            name = u.name
            if name in self.context.planned:
                out += self.context.planned[name].price.cycles
            elif isinstance(u, KFunc):
                out += self.rows.get(name, 0.0)
            elif self.clustered:
                self.rows[name] = self.launch(u.body, [p.value for p in u.params], u.result_types)
                out += self.rows[name]
            else:
                out += sum(self.launch(Block(ops=[op]), op.operands, [r.tensor for r in op.results]) for op in u.body.ops if op.name not in FREE)
        return out

    def launch(self, body: Block, reads: Iterable[Value], writes: Iterable[TensorType]) -> float:
        return roofline(body, reads, writes, self.context.priced(), self.context.facts).cycles


def count(units: Iterable[Unit]) -> Counter[str]:
    return Counter(op.name for u in units for op in u.body.walk() if op.name not in ("yield",))


def ops_of(units: Iterable[Unit]) -> str:
    return " ".join(f"{n} {op}" for op, n in count(units).most_common(SHOWN))


def signature(f: Func) -> str:
    params = ", ".join(f"{p.name} {p.value.tensor.dtype}[{', '.join(map(str, p.value.tensor.dims))}]" for p in f.params)
    results = ", ".join(f"{n} {t.dtype}[{', '.join(map(str, t.dims))}]" for n, t in zip(f.result_names, f.result_types, strict=True))
    return f"{params} -> {results}"


# -- a cascade

def derivation(func: Func, op: Op) -> list[str]:
    """State, anchors, re-base, merge and finish of a `stream`, as formulas."""
    dim, kinds, anchor_of = op.attrs["dim"], op.attrs["kinds"], op.attrs["anchor_of"]
    assert isinstance(dim, Dim) and isinstance(kinds, tuple) and isinstance(anchor_of, tuple)
    n = len(kinds)
    states, anchors = [f"s{i}" for i in range(n)], [f"c{i}" for i in range(len(op.regions[n + 1].ops[-1].operands))]
    names: dict[Value, str] = {p.value: p.name for p in func.params}
    lines = [f"stream over {dim} of {func.name}"]
    shared = _shared(op)
    for v in shared:
        lines.append(f"  x{len([x for x in names.values() if x.startswith('x')])} = {formula(v, names)}")
        names[v] = lines[-1].split(" = ")[0].strip()
    for i, (kind, region) in enumerate(zip(kinds, op.regions[1:1 + n], strict=True)):
        made = {**names, **{a: f"c{at}" for a, at in zip(region.args, anchor_of[i], strict=True)}}  # type: ignore[arg-type]
        body = " @ ".join(formula(x, made) for x in region.ops[-1].operands)
        lines.append(f"  state    s{i} = {kind} over {dim} of {body}")
    lines += _region("anchor", op.regions[n + 1], {**names, **dict(zip(op.regions[n + 1].args, states, strict=True))}, anchors)
    moved = op.regions[n + 2]
    deltas = [f"d{i}" for i in range(len(anchors))]
    if anchors:
        changes = ", ".join(f"{d} = {c} - {c}new" for d, c in zip(deltas, anchors, strict=True))
        lines.append(f"  re-base  with {changes}; 0 where an anchor is at its bottom")
        lines += _region("", moved, {**names, **dict(zip(moved.args, states + deltas, strict=True))}, [f"{s}new" for s in states])
    signs = {"sum": "A + B", "max": "max(A, B)", "min": "min(A, B)"}
    merged = ", ".join(f"{s} {signs[str(k)]}" for s, k in zip(states, kinds, strict=True))
    lines.append(f"  merge    A and B re-based to the anchors of both: {merged}")
    lines += _region("finish", op.regions[n + 3], {**names, **dict(zip(op.regions[n + 3].args, states + anchors, strict=False))},
                     [r.hint or f"total{i}" for i, r in enumerate(op.results)])
    return lines


def _region(title: str, block: Block, names: Mapping[Value, str], outs: Sequence[str]) -> list[str]:
    return [f"  {title if i == 0 else '':8} {out} = {formula(v, names)}" for i, (out, v) in enumerate(zip(outs, block.ops[-1].operands, strict=True))]


def _shared(op: Op) -> list[Value]:
    """Values outside the bodies that several of them read, and products among what they read: named once."""
    n = len(op.regions) - 4
    reads = Counter(x for region in op.regions[1:1 + n] for o in region.ops for x in o.operands if x.op is not None and x.op not in region.ops)
    atoms = [o.result for o in op.regions[0].ops if o.name in ("contract", "reduce")]
    return [*atoms, *(v for v, k in reads.items() if k > 1 and v not in atoms and v.op is not None and v.op.name not in FREE)]


def formula(v: Value, names: Mapping[Value, str]) -> str:
    """The value as an expression of the names; infix, in the language's spelling."""
    if v in names:
        return names[v]
    if v.op is None:
        return v.hint or "?"
    op, attrs = v.op, v.op.attrs
    if op.name == "const":
        x = attrs["value"]
        return f"{x:g}" if isinstance(x, (int, float)) and math.isfinite(x) else str(x)
    if op.name in ("iota", "size"):
        return f"{op.name}({attrs['dim']})"
    xs = [formula(x, names) for x in op.operands]
    if op.name in INFIX:
        return f"{_inner(xs[0])} {INFIX[op.name]} {_inner(xs[1])}"
    if op.name == "neg":
        return f"-{_inner(xs[0])}"
    if op.name == "cast":
        return f"{attrs['dtype']}({xs[0]})"
    if op.name == "rename":
        return xs[0]
    dims = attrs.get("dims")
    over = f", over={', '.join(map(str, dims))}" if isinstance(dims, tuple) else ""
    name = {"contract": "dot", "select": "where", "reduce": str(attrs.get("op"))}.get(op.name, op.name)
    return f"{name}({', '.join(xs)}{over})"


def _inner(text: str) -> str:
    """In brackets where it has an operator outside of brackets."""
    depth = 0
    for c in text:
        depth += (c == "(") - (c == ")")
        if c == " " and depth == 0:
            return f"({text})"
    return text
