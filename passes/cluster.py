"""P4: a function becomes kernels. Totals (reductions and contractions) over one dim that depend on each other share a kernel when the cascade
accepts them; elementwise math joins the kernel whose totals it uses; what another kernel needs is stored in a workspace tensor.

A contraction over another dim that only feeds such a cascade (q @ k inside softmax) is made per block inside it when at least two totals read it:
storing it would cost more traffic than the inputs. Feeding a single contraction it is stored (h @ wd), since fusing would recompute it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count as count_from

from rvgpu.ir.core import Block, Builder, Func, Op, Param, Value
from rvgpu.passes.cascade import Derivation, Reject, bottom_stripped, streamed_dim
from rvgpu.passes.context import Context, Remark


@dataclass(frozen=True)
class Cluster:
    """One function becomes one function per kernel, in launch order; a workspace tensor is a result of one and a parameter of a later one."""

    name = "cluster"
    level = "tensor"

    def run(self, func: Func, context: Context) -> list[Func]:
        clusters = _Clusters(func)
        kernels = clusters.run()
        context.remarks += clusters.remarks
        return kernels


class _Clusters:
    def __init__(self, func: Func) -> None:
        self.func = func
        self.remarks: list[Remark] = []
        self.totals = [op for op in func.body.ops if op.name in ("reduce", "contract")]
        self.users: dict[Value, list[Op]] = {}
        for op in func.body.ops:
            for x in op.operands:
                self.users.setdefault(x, []).append(op)

    # -- which totals go together
    def groups(self) -> list[list[Op]]:
        """Totals grouped in launch order; a fused atom is in no group."""
        order = {op: n for n, op in enumerate(self.func.body.ops)}
        atoms = self._atoms()
        left = [t for t in self.totals if t not in atoms]
        out: list[list[Op]] = []
        while left:
            first = left[0]
            r = streamed_dim(first)
            group = [first]
            for t in left[1:]:
                if streamed_dim(t) == r and self._may_join(group, t, left, atoms):
                    group.append(t)
            out.append(group)
            left = [t for t in left if t not in group]
        for g in out:
            g.sort(key=lambda op: order[op])
        return out

    def _may_join(self, group: list[Op], t: Op, left: list[Op], atoms: set[Op]) -> bool:
        """t's other inputs are ready (no total outside the group that is still to come), its row dims agree, and the cascade accepts it."""
        for other in left:
            if other is not t and other not in group and self._depends(t, other.result):
                return False
        rows = {d for d in group[0].result.tensor.dims}
        mine = set(t.result.tensor.dims)
        related = any(self._depends(t, g.result) for g in group)
        if not related and rows != mine:
            return False
        if t.name == "contract" and group[0].name == "contract" and not related:
            a, b = group[0].operands, t.operands
            if set(a[0].tensor.dims) != set(b[0].tensor.dims) or set(a[1].tensor.dims) != set(b[1].tensor.dims):
                return False
        if t.name != group[0].name and not related:
            return False
        try:
            Derivation(streamed_dim(t), [*group, t]).build(Builder(Block()))
        except Reject as e:
            self.remarks.append(Remark(f"not fused: {e}", t))
            return False
        return True

    def _depends(self, op: Op, v: Value) -> bool:
        seen: set[Op] = set()
        todo = [op]
        while todo:
            o = todo.pop()
            for x in o.operands:
                if x is v:
                    return True
                if x.op is not None and x.op not in seen:
                    seen.add(x.op)
                    todo.append(x.op)
        return False

    def _atoms(self) -> set[Op]:
        """Contractions whose result feeds two or more totals over one of its dims, among them a reduction."""
        out = set()
        for c in self.totals:
            if c.name != "contract":
                continue
            readers = [t for t in self.totals if t is not c and self._reaches(c.result, t)]
            over = {streamed_dim(t) for t in readers if streamed_dim(t) in c.result.tensor.dims}
            if len(readers) >= 2 and len(over) == 1 and any(t.name == "contract" for t in readers) and any(t.name == "reduce" for t in readers):
                out.add(c)
        return out

    def _reaches(self, v: Value, t: Op) -> bool:
        """t reads v through elementwise math or totals over t's dim."""
        return self._depends(t, v) and streamed_dim(t) in v.tensor.dims

    # -- kernels
    def run(self) -> list[Func]:
        groups = self.groups()
        number = {t: n for n, g in enumerate(groups) for t in g}
        stage: dict[Value, int] = {p.value: -1 for p in self.func.params}
        for op in self.func.body.ops:
            s = max((stage[x] for x in op.operands), default=-1)
            s = max(s, number.get(op, -1))
            for r in op.results:
                stage[r] = s
        self.stage = stage
        count = max(1, len(groups))
        stored: dict[int, dict[Value, str]] = {n: {} for n in range(-1, count)}
        taken = {p.name for p in self.func.params} | set(self.func.result_names)
        fresh = (name for n in count_from(0) if (name := f"t{n}") not in taken)

        def store(v: Value) -> None:
            s = stage[v]
            if v not in stored[s] and all(p.value is not v for p in self.func.params):
                stored[s][v] = next(fresh)

        for op in self.func.body.ops:
            mine = max([stage[r] for r in op.results], default=-1)
            for x in op.operands:
                if mine > stage[x] >= 0:
                    store(x)
            if op.name == "contract" and op in number:
                for x in op.operands:
                    if stage[x] < number[op] and not _leaf(x):
                        store(x)  # matrix operands come from memory
        final = {r: max(stage[r], 0) for r in self.func.results}
        kernels = []
        if stored[-1]:
            kernels.append(self._kernel(-1, [], stored, {}))
        for n in range(count):
            results = {r: i for i, r in enumerate(self.func.results) if final[r] == n}
            if (groups and n < len(groups)) or results:
                kernels.append(self._kernel(n, groups[n] if groups else [], stored, results))
        return kernels

    def _kernel(self, n: int, group: list[Op], stored: dict[int, dict[Value, str]], results: dict[Value, int]) -> Func:
        """The function of stage n: earlier stored values are parameters, its stored values and the function's results are results."""
        params = [Param(p.name, p.value, p.keyword, p.default, p.loc) for p in self.func.params]
        made: dict[Value, Value] = {}
        for s in range(-1, n):
            for v, name in stored[s].items():
                value = Value(v.type, hint=name)
                made[v] = value
                params.append(Param(name, value))
        block = Block()
        b = Builder(block)
        copier = Copier(b, dict(made))
        if group:
            for t in group:
                copier.op(t)
        names, values, types = [], [], []
        for v, name in stored[n].items():
            names.append(name)
            values.append(copier.value(v))
            types.append(v.tensor)
        for v, i in results.items():
            names.append(self.func.result_names[i] if self.func.result_names else "out")
            values.append(copier.value(v))
            types.append(self.func.result_types[i])
        used = _used(block, values)
        params = [p for p in params if p.value in used]
        params.sort(key=lambda p: p.keyword)
        suffix = "" if n <= 0 and not stored[-1] else f"_{n + 1}"
        return Func(self.func.name + suffix, params, block, values, types, self.func.loc, names)


def _leaf(v: Value) -> bool:
    while v.op is not None and v.op.name == "rename":
        v = v.op.operands[0]
    return v.op is None


class Copier:
    """Copies the ops that a value needs into a kernel, on demand."""

    def __init__(self, b: Builder, made: dict[Value, Value]) -> None:
        self.b, self.made = b, made

    def value(self, v: Value) -> Value:
        if v in self.made or v.op is None:
            return self.made.get(v, v)
        self.op(v.op)
        return self.made[v]

    def op(self, op: Op) -> Op:
        xs = [self.value(x) for x in op.operands]
        self.b.loc = op.loc
        attrs = dict(op.attrs)
        if op.name == "exp" and _anchored(op):
            attrs["anchored"] = True
        out = self.b.op(op.name, xs, [r.type for r in op.results], **attrs)
        self.made.update(zip(op.results, out, strict=True))
        return self.b.block.ops[-1]


def _anchored(op: Op) -> bool:
    """exp(x - max(x)): the argument is never above 0."""
    v = op.operands[0]
    if v.op is None or v.op.name != "sub":
        return False
    x, d = v.op.operands
    d = bottom_stripped(d)
    return d.op is not None and d.op.name == "reduce" and d.op.attrs["op"] == "max" and d.op.operands[0] is x


def _used(block: Block, values: list[Value]) -> set[Value]:
    """Values that the results need, through ops and stream regions."""
    seen: set[Value] = set()
    todo = list(values)
    while todo:
        v = todo.pop()
        if v in seen:
            continue
        seen.add(v)
        if v.op is not None:
            todo += v.op.operands
            for r in v.op.regions:
                for o in r.walk():
                    todo += o.operands
    return seen
