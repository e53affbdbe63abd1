"""P4: a function becomes kernels. Totals (reductions and contractions) over one dim that depend on each other share a kernel when the cascade
accepts them; elementwise math joins the kernel whose totals it uses; what another kernel needs is stored in a workspace tensor.

A contraction over another dim that only feeds such a cascade (q @ k inside softmax) is made per block inside it when at least two totals read it:
storing it would cost more traffic than the inputs. Feeding a single contraction it is stored (h @ wd), since fusing would recompute it, unless
both are batched and nothing would be made twice (`_one_pass`); and so it is
when its readers do not share one kernel with a matrix product, or something besides them reads it. Short products of a batch are made again in
every kernel that reads them instead (`_again`, docs/adr/0015).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import count as count_from

from rvgpu.ir.core import Block, Builder, Func, Op, Param, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import DType, TensorType
from rvgpu.passes.cascade import Derivation, Reject, Term, streamed_dim
from rvgpu.passes.context import Context, Limits, Remark
from rvgpu.passes.copier import Copier, used
from rvgpu.passes.matrix_plan import NARROW, STAGING, gathered, groups_of, unpacked, widened
from rvgpu.passes.row_plan import column_part, runs_inside


@dataclass(frozen=True)
class Cluster:
    """One function becomes one function per kernel, in launch order; a workspace tensor is a result of one and a parameter of a later one."""

    name = "cluster"
    level = "tensor"

    def run(self, func: Func, context: Context) -> list[Func]:
        remarks: dict[tuple[str, Op | None], Remark] = {}
        kernels = _Clusters(one_dim_each(func, remarks), remarks, context.limits()).run()
        context.remarks += remarks.values()
        return kernels


Out = tuple[str, Value, TensorType]  # name, value, type as stored
Remarks = dict[tuple[str, Op | None], Remark]


def remark(remarks: Remarks, text: str, op: Op) -> None:
    remarks.setdefault((text, op), Remark(text, op))


def one_dim_each(func: Func, remarks: Remarks) -> Func:
    """A reduction over several dims becomes one over each, the last dim first."""
    block = Block()
    b = Builder(block)
    made: dict[Value, Value] = {}
    for op in func.body.ops:
        dims = op.attrs.get("dims", ())
        assert isinstance(dims, tuple)
        if op.name != "reduce" or len(dims) < 2:
            op.operands = [made.get(x, x) for x in op.operands]
            block.ops.append(op)
            continue
        remark(remarks, f"a reduction over {len(dims)} dims runs over one after the other", op)
        b.loc, x = op.loc, made.get(op.operands[0], op.operands[0])
        for d in reversed(dims):
            t = TensorType(tuple(e for e in x.tensor.dims if e != d), x.tensor.dtype)
            x = b.one("reduce", [x], t, **{**op.attrs, "dims": (d,)})
        made[op.result] = x
    return Func(func.name, func.params, block, [made.get(r, r) for r in func.results], func.result_types, func.loc, func.result_names)


def own_dims(contract: Op) -> tuple[frozenset[Dim], frozenset[Dim]]:
    """What only one factor has of the result's dims: rows and columns of a matrix product when neither is empty."""
    x, y = (frozenset(v.tensor.dims) for v in contract.operands)
    return x - y, y - x


MOVES = {"rename": "from", "slice": "dim", "pad": "dim", "concat": "dim", "take": "dim"}  # ops that read at another place, and along which dim
SEEN = frozenset({"rename", "slice"})  # what a transfer sees through
FEW = 64  # rows of a product that unpacks its weights for every 16
MOST_PRODUCTS = 3  # of one kernel: an operand group of eight vector registers for each beside A's, an accumulator for each beside an atom's


def matrix(group: list[Op]) -> bool:
    return any(t.name == "contract" and all(own_dims(t)) for t in group)


def beyond_the_machine(d: Derivation) -> str:
    """Why no kernel can run this stream, though the rule derives it; "" when one can. Rows on the vector unit are one block and move no anchor."""
    if any(a.tensor.dtype is not DType.f32 for a in d.anchors):
        return "an anchor that is not f32"
    products = [t for t in d.totals if t.name == "contract"]
    inside = [o for o in d.atom_ops() if o.name == "contract"]
    if not products and len(d.totals) > 1 and any(groups_of(o, d.dim) for o in inside):
        return "a sum of products has a kernel of its own"
    if not matrix(products):
        return ""
    return _out_of_tiles(d, products, inside) or _out_of_order(d)


def _out_of_tiles(d: Derivation, products: list[Op], inside: list[Op]) -> str:
    if len({frozenset(own_dims(t)) for t in products}) > 1:
        return "contractions of one kernel must share their dims"
    if len({x.tensor.dtype for t in products + inside for x in t.operands}) > 1:
        return "matrix products of several dtypes"
    if sum(s.rhs is not None for s in d.states) > MOST_PRODUCTS:
        return f"more than {MOST_PRODUCTS} matrix products want more registers than there are"
    fed = [s.term for s in d.states if s.rhs is not None and s.term is not None]
    if len(fed) < len(d.states) and all(t == Term(xs=t.xs) and len(t.xs) == 1 and _leaf(t.xs[0][0]) for t in fed):
        return "a matrix product of stored tensors beside a reduction"
    return ""


def _out_of_order(d: Derivation) -> str:
    for s in d.states:
        below = [d.states[n] for n, _ in d.lower(s)[:-1]]
        if below and s.rhs is not None:
            return "the matrix unit moves an accumulator to a new anchor from itself only"
        if any(not set(s.anchors) <= set(x.anchors) for x in below):
            return "a block would move a state to a new anchor from a state that already has the block"
    return ""


class _Clusters:
    def __init__(self, func: Func, remarks: Remarks, limits: Limits) -> None:
        self.func, self.limits, unit = func, limits, limits.matrix
        self.unit = unit  # whether there is a matrix unit: without one a contraction has a kernel of its own and stored factors
        self.remarks = remarks
        self.totals = [op for op in func.body.ops if op.name in ("reduce", "contract")]
        self.packed: set[Op] = set()  # atoms with 4-bit weights that `lower_packed` takes
        self.found: dict[Op, set[Op] | None] = {}
        self.users: dict[Value, list[Op]] = {}
        for op in func.body.ops:
            for x in op.operands:
                self.users.setdefault(x, []).append(op)

    # -- which totals go together
    def groups(self) -> list[list[Op]]:
        """Totals grouped in launch order; a fused atom is in no group."""
        atoms = self._atoms()
        while True:
            groups = self._grouped(atoms)
            lost = {c for c in atoms if not self._held(c, groups, atoms)}
            if not lost:
                self.atoms = atoms
                return groups
            for c in lost:
                remark(self.remarks, "stored: its readers do not share one kernel with a matrix product", c)
            atoms -= lost

    def _grouped(self, atoms: set[Op]) -> list[list[Op]]:
        order = {op: n for n, op in enumerate(self.func.body.ops)}
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

    def _held(self, c: Op, groups: list[list[Op]], atoms: set[Op]) -> bool:
        """All that reads the atom c is one kernel's totals, a matrix product of theirs among it; or of several kernels that each make it again."""
        readers = self._readers(c)
        if readers is None:
            return False
        homes = [g for g in groups if readers & set(g)]
        if c in self.packed or self._summed(c, readers):
            return len(homes) == 1
        if len(homes) == 1 and matrix([t for t in homes[0] if t in readers]):
            return True
        return self._again(c, readers) and all(self._runs(g, atoms) for g in homes)

    def _readers(self, c: Op) -> set[Op] | None:
        """The totals that read c through elementwise math; None when a result of the function does."""
        if c not in self.found:
            self.found[c] = self._find_readers(c)
        return self.found[c]

    def _find_readers(self, c: Op) -> set[Op] | None:
        readers: set[Op] = set()
        todo, seen = [c.result], {c.result}
        while todo:
            v = todo.pop()
            if v in self.func.results:
                return None
            for op in self.users.get(v, []):
                if op in self.totals:
                    readers.add(op)
                else:
                    new = [r for r in op.results if r not in seen]
                    seen |= set(new)
                    todo += new
        return readers

    def _again(self, c: Op, readers: Collection[Op]) -> bool:
        """Whether it is better to make c again in every kernel that reads it than to store it: a product of stored tensors over a dim so short
        (four tiles) that its multiplies take less time than the memory, rows and columns of a batch, with a reduction among what reads it."""
        shared = set(c.operands[0].tensor.dims) & set(c.result.tensor.dims) & set(c.operands[1].tensor.dims)
        dim = streamed_dim(c)
        rows, columns = own_dims(c)
        along = all(streamed_dim(t) in rows | columns for t in readers)
        reduced = any(t.name == "reduce" for t in readers) and c.result.tensor.dtype is DType.f32
        short = self.limits.known(dim) and self.limits.bucket((dim,)) <= 4 * self.limits.te
        return reduced and short and along and bool(shared and rows and columns) and all(_leaf(x) for x in c.operands)

    def _passes(self, group: list[Op], atoms: set[Op]) -> str:
        """Why products that share nothing but atoms do not share a kernel."""
        if len(group) < 2 or any(t.name != "contract" for t in group):
            return ""
        inside = [c for c in atoms if (self._readers(c) or set()) & set(group)]
        tiles = -(-self.limits.bucket(self._columns(group)) // self.limits.te)
        return "its columns would take several passes, each with atoms of its own" if inside and tiles * len(group) + len(inside) > 4 else ""

    def _columns(self, group: list[Op]) -> frozenset[Dim]:
        """What only the stored factors of a group's products have."""
        return frozenset[Dim]().union(*(own_dims(t)[0 if _leaf(t.operands[0]) else 1] for t in group if t.name == "contract"))

    def _runs(self, group: list[Op], atoms: set[Op]) -> bool:
        """Whether a kernel of this group can make the atoms that it reads block by block."""
        d = Derivation(streamed_dim(group[0]), group)
        try:
            d.build(Builder(Block()))
        except Reject:
            return False
        rows = [{*t.result.tensor.dims} for t in group]
        inside = [c for c in atoms if (self._readers(c) or set()) & set(group)]
        if matrix(group):
            rows = [r - self._columns(group) for r in rows]
        alike = all(r == rows[0] for r in rows) and all({*s.dims} >= rows[0] and s.dtype is DType.f32 for s in d.states)
        whole = all({*c.result.tensor.dims} == {*rows[0], d.dim} and len(c.result.tensor.dims) == len(rows[0]) + 1 for c in inside)
        dtypes = {x.tensor.dtype for c in inside for x in c.operands}
        staged = sum(2 * self.limits.te * self.limits.bucket((streamed_dim(c),)) * c.operands[0].tensor.dtype.bits // 8 for c in inside)
        fits = len(dtypes) == 1 and not dtypes & NARROW and staged <= STAGING // 2
        return alike and whole and fits and not beyond_the_machine(d) and not _out_of_order(d)

    def _may_join(self, group: list[Op], t: Op, left: list[Op], atoms: set[Op]) -> bool:
        """t's other inputs are ready (no total outside the group that is still to come), its row dims agree, and the cascade accepts it."""
        for other in left:
            if other is not t and other not in group and self._depends(t, other.result):
                return False
        rows = {d for d in group[0].result.tensor.dims}
        mine = set(t.result.tensor.dims)
        related = any(self._depends(t, g.result) for g in group)
        if not related and rows != mine or t in self.packed or group[0] in self.packed:
            return False
        if t.name == "contract" and group[0].name == "contract" and not related:
            a, b = group[0].operands, t.operands
            if set(a[0].tensor.dims) != set(b[0].tensor.dims) or set(a[1].tensor.dims) != set(b[1].tensor.dims):
                return False
        if t.name != group[0].name and not related:
            return False
        if any(self._moved(t, g) for g in group):
            remark(self.remarks, "not fused: it reads a total at another place", t)
            return False
        if not self.unit and "contract" in (t.name, group[0].name):
            remark(self.remarks, "not fused: without a matrix unit a contraction has a kernel of its own", t)
            return False
        derivation = Derivation(streamed_dim(t), [*group, t])
        try:
            derivation.build(Builder(Block()))
            why = beyond_the_machine(derivation) or self._passes([*group, t], atoms)
        except Reject as e:
            why = str(e)
        if why:
            remark(self.remarks, f"not fused: {why}", t)
        return not why

    def _moved(self, t: Op, total: Op) -> bool:
        """Whether t reads the total through an op that looks at another place of it."""
        dims = total.result.tensor.dims
        seen: set[Op] = set()
        todo = [x.op for x in t.operands if x.op is not None]
        while todo:
            o = todo.pop()
            if o in seen or o is total:
                continue
            seen.add(o)
            if o.name in MOVES and o.attrs[MOVES[o.name]] in dims and self._depends(o, total.result):
                return True
            todo += [x.op for x in o.operands if x.op is not None]
        return False

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
        out: set[Op] = set()
        for c in self.totals if self.unit else ():
            if c.name != "contract":
                continue
            readers = [t for t in self.totals if t is not c and self._reaches(c.result, t)]
            if any(self._moved(t, c) for t in readers):
                continue
            over = {streamed_dim(t) for t in readers if streamed_dim(t) in c.result.tensor.dims}
            if len(over) == 1 and len(readers) == 1 and readers[0].name == "contract" and self._one_pass(c, readers[0]):
                out.add(c)
            if self._summed(c, readers) or _packed(c, readers):
                out.add(c)  # groups: the product of each goes into the sum over them
            if _packed(c, readers) or c not in out and self._plain(c):
                self.packed.add(c)
            if len(readers) >= 2 and len(over) == 1 and any(t.name == "contract" for t in readers) and any(t.name == "reduce" for t in readers):
                out.add(c)
            if self._again(c, self._readers(c) or ()):
                out.add(c)
        return out

    def _plain(self, c: Op) -> bool:
        """Whether c is a product of few rows with 4-bit weights, columns innermost: packed they are a ninth of what storing their floats moves."""
        for x, w in (c.operands, c.operands[::-1]):
            rows = {*x.tensor.dims} - {*w.tensor.dims}
            if unpacked(w) is not None and _leaf(w) and len(w.tensor.dims) == 2 and w.tensor.dims[0] == streamed_dim(c) in x.tensor.dims:
                return bool(rows) and w.tensor.dims[1] not in x.tensor.dims and self.limits.bucket(rows) <= FEW
        return False

    def _summed(self, c: Op, readers: Collection[Op]) -> bool:
        """Whether c is a product for each of the groups that its one reader adds up."""
        t = next(iter(readers), None)
        if t is None or len(readers) != 1 or t.attrs.get("op") != "sum" or any(not _leaf(x) for x in c.operands):
            return False
        r = streamed_dim(t)
        return groups_of(c, r) and {*t.result.tensor.dims} == {*c.result.tensor.dims} - {r}

    def _one_pass(self, c: Op, reader: Op) -> bool:
        """The product c feeds one matrix product whose columns two tiles hold, so nothing is made twice, and both are batched, so there are work
        items enough (attention backward's dK and dV; an MLP's h is stored)."""
        shared = set(c.operands[0].tensor.dims) & set(c.result.tensor.dims) & set(c.operands[1].tensor.dims)
        if not shared or not all(own_dims(c)) or not all(own_dims(reader)) or any(not _leaf(x) for x in c.operands):
            return False
        x, y = reader.operands
        fed, other = (x, y) if self._depends_value(x, c) else (y, x)
        own = set(other.tensor.dims) - set(fed.tensor.dims)
        return _leaf(other) and not self._depends_value(other, c) and self.limits.bucket(own) <= 2 * self.limits.te  # type: ignore[arg-type]

    def _depends_value(self, v: Value, c: Op) -> bool:
        return v is c.result or (v.op is not None and self._depends(v.op, c.result))

    def _reaches(self, v: Value, t: Op) -> bool:
        """t reads v through elementwise math or totals over t's dim."""
        return self._depends(t, v) and streamed_dim(t) in v.tensor.dims

    # -- kernels
    def run(self) -> list[Func]:
        """Stage 2n has group n and what can be computed beside it; 2n + 1 what a matrix kernel, or one of long columns, leaves to do along its
        streamed dim; -1 what no total is needed for but must be stored."""
        groups = self.groups()
        self.number = {t: 2 * n for n, g in enumerate(groups) for t in g}
        self.swept = {2 * n: streamed_dim(g[0]) for n, g in enumerate(groups) if matrix(g) or self._long_columns(g)}
        self.stage = self._stages(groups)
        self.stored: dict[int, dict[Value, str]] = {n: {} for n in range(-1, max(1, 2 * len(groups)))}
        outs: dict[int, list[Out]] = {n: [] for n in self.stored}
        names = self.func.result_names or ["out"]
        for r, t, name in zip(self.func.results, self.func.result_types, names, strict=True):
            outs[self._result_stage(r, groups)].append((name, r, t))
        for n, g in enumerate(groups):
            self._spread(outs, 2 * n, g, n == len(groups) - 1)
        totals = {2 * n: g for n, g in enumerate(groups)}
        for n in reversed(self.stored):
            seen: set[Value] = set()
            for v in [*(t.result for t in totals.get(n, [])), *(v for _, v, _ in outs[n]), *self.stored[n]]:
                self._demand(n, v, seen)
        taken = {p.name for p in self.func.params} | set(self.func.result_names)
        fresh = (name for n in count_from(0) if (name := f"t{n}") not in taken)
        order = {r: n for n, op in enumerate(self.func.body.ops) for r in op.results}
        self.stored = {n: {v: next(fresh) for v in sorted(vs, key=lambda v: order[v])} for n, vs in self.stored.items()}
        kernels: list[Func] = []
        for n in self.stored:
            mine = [*((name, v, v.tensor) for v, name in self.stored[n].items()), *outs[n]]
            if n in totals:
                kernels.append(self._kernel(len(kernels), n, totals[n], mine))
            else:  # nothing but elementwise math: a kernel for each shape
                for dims in dict.fromkeys(frozenset(t.dims) for _, _, t in mine):
                    kernels.append(self._kernel(len(kernels), n, [], [o for o in mine if frozenset(o[2].dims) == dims]))
        return kernels

    def _stages(self, groups: list[list[Op]]) -> dict[Value, int]:
        stage, swept = {p.value: -1 for p in self.func.params}, self.swept
        for op in self.func.body.ops:
            s = self.number[op] if op in self.number else max((stage[x] for x in op.operands), default=-1)
            later = op not in self.number and s in swept and any(swept[s] in r.tensor.dims for r in op.results)
            if op.name in MOVES and s >= 0 and s % 2 == 0:  # what a kernel has at hand are the totals of its own place
                later = s in swept or any(op.attrs[MOVES[op.name]] in t.result.tensor.dims for t in groups[s // 2])
            for r in op.results:
                stage[r] = s + 1 if later else s
        return stage

    def _long_columns(self, group: list[Op]) -> bool:
        """Sums on the vector unit whose rows go by one after the other, more of them than stand in scratchpad at once."""
        r = streamed_dim(group[0])
        if not self.limits.known(r) or self.limits.bucket((r,)) <= column_part(self.limits, once=False):
            return False
        inputs, seen = [], set()
        todo = [x for t in group for x in t.operands]
        while todo:
            v = todo.pop()
            if v in seen:
                continue
            seen.add(v)
            if v.op is None or v.op in self.number and v.op not in group:
                inputs.append(v.tensor.dims)
            else:
                todo += v.op.operands
        return bool(group[0].result.tensor.dims) and not runs_inside(r, inputs)

    def _result_stage(self, r: Value, groups: list[list[Op]]) -> int:
        """A result that needs no total joins the first kernel when it has its rows."""
        if self.stage[r] >= 0 or not groups:
            return max(self.stage[r], 0)
        rows, dims = set(groups[0][0].result.tensor.dims), set(r.tensor.dims)
        return 0 if 0 not in self.swept and dims in (rows, rows | {streamed_dim(groups[0][0])}) else -1

    def _spread(self, outs: dict[int, list[Out]], n: int, group: list[Op], last: bool) -> None:
        """Results of a group's stage that have dims beyond its own are made by the next stage, unless the stage makes nothing else."""
        own = {streamed_dim(group[0])}.union(*(t.result.tensor.dims for t in group))
        wider = [o for o in outs[n] if not set(o[2].dims) <= own]
        if len(outs[n]) > 1 or not last:
            outs[n] = [o for o in outs[n] if o not in wider]
            outs[n + 1] = wider + outs[n + 1]

    def _demand(self, n: int, v: Value, seen: set[Value]) -> None:
        """Marks what earlier stages must store so that stage n can make v."""
        if v in seen or v.op is None:
            return
        seen.add(v)
        for x in v.op.operands:
            # matrix operands
            from_memory = v.op.name == "contract" and self.stage[x] < n and not (_leaf(x) and (unpacked(x) is None or v.op in self.packed))
            rows = gathered(widened(x) or x) if self.unit else None
            from_memory = from_memory and (rows is None or rows != self.swept.get(n))  # looked up by the transfer
            from_memory = from_memory and not any(c is not v.op and self._depends_value(x, c) for c in self.atoms)
            again = not from_memory and self._made_again(x)
            if (from_memory or 0 <= self.stage[x] < n) and x.op is not None and not again:
                self.stored[self.stage[x]].setdefault(x, "")
            else:
                self._demand(n, x, seen)

    def _made_again(self, v: Value) -> bool:
        """Whether v is elementwise math on an atom: what reads it makes it again."""
        if v.op is None or v.op in self.number:
            return False
        return v.op in self.atoms or any(self._made_again(x) for x in v.op.operands)

    def _kernel(self, position: int, n: int, group: list[Op], outs: list[Out]) -> Func:
        """A function of stage n: what earlier stages stored are parameters, what it stores and the function's results are results."""
        params = [Param(p.name, p.value, p.keyword, p.default, p.loc) for p in self.func.params]
        made: dict[Value, Value] = {}
        for s in range(-1, n):
            for v, name in self.stored[s].items():
                made[v] = Value(v.type, hint=name)
                params.append(Param(name, made[v]))
        block = Block()
        copier = Copier(Builder(block), dict(made))
        for t in group:
            copier.op(t)
        values = [copier.value(v) for _, v, _ in outs]
        needed = used(block, values)
        params = [p for p in params if p.value in needed]
        params.sort(key=lambda p: p.keyword)
        name = self.func.name + (f"_{position + 1}" if position else "")
        return Func(name, params, block, values, [t for _, _, t in outs], self.func.loc, [name for name, _, _ in outs])


def _packed(c: Op, readers: Collection[Op]) -> bool:
    """Whether c is a product of groups of 4-bit weights whose floats need not be stored: its one reader adds up the groups, and columns are
    innermost in memory."""
    t = next(iter(readers), None)
    if t is None or len(readers) != 1 or t.attrs.get("op") != "sum":
        return False
    r, j = streamed_dim(t), streamed_dim(c)
    for x, w in (c.operands, c.operands[::-1]):
        dims = w.tensor.dims
        if unpacked(w) is not None and _leaf(w) and len(dims) == 3 and {r, j} == {*dims[:-1]} and {r, j} < {*x.tensor.dims}:
            return True
    return False


def _leaf(v: Value) -> bool:
    while v.op is not None and (v.op.name in SEEN and v.tensor.dtype is not DType.i4 or v.op.name == "rename" or unpacked(v) or widened(v)):
        v = v.op.operands[0]
    return v.op is None
