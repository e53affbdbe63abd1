"""P7: a cluster becomes tiles. Every legal tiling is priced with an analytic model of the machine (`cost`); the cheapest is lowered. Tile
sizes never enter the arithmetic of a result: blocks of the streamed dim are TE rows wherever an anchor moves, and plain products run over k
in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from rvgpu.errors import EXIT_USAGE, RvgpuError
from rvgpu.ir.core import Func
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType, TensorType
from rvgpu.passes.context import Context, Limits, Planned, Price, Remark
from rvgpu.passes.cost import copies, cost, roofline, spm_bytes, stages, teams
from rvgpu.passes.cost_gemm import lag
from rvgpu.passes.expand import is_macro
from rvgpu.passes.lower_columns import lower_columns
from rvgpu.passes.lower_gemm import Gemm
from rvgpu.passes.lower_groups import Grouped
from rvgpu.passes.lower_long import lower_long
from rvgpu.passes.lower_matrix import Tiles
from rvgpu.passes.lower_merge import lower_merge
from rvgpu.passes.lower_outer import lower_outer
from rvgpu.passes.lower_packed import lower_packed
from rvgpu.passes.lower_parts import FewRows, FewTiles, few_options, few_rows
from rvgpu.passes.lower_stream import Streamed
from rvgpu.passes.lower_vector import lower_vector
from rvgpu.passes.matrix_plan import MatrixPlan, plan_matrix, stream_block, unpacked
from rvgpu.passes.schedule import fingerprint

Tiling = Tiles | FewTiles
FIELDS = ("wm", "wn", "im", "jn", "bk", "wo")


@dataclass(frozen=True)
class Tile:
    """Options pin a choice: `tile{wm=2,wn=2,im=2,jn=2,bk=64}`; 0 leaves it to the model."""

    wm: int = 0
    wn: int = 0
    im: int = 0
    jn: int = 0
    bk: int = 0
    wo: int = 0

    name = "tile"
    level = "tensor"

    def run(self, func: Func, context: Context) -> list[KFunc]:
        limits = context.limits()
        _check(func)
        _check_dtypes(func)
        plan = plan_matrix(func, limits)
        if plan is None:
            outer = None if limits.matrix else lower_outer(func, limits)
            if outer is not None:
                self._say(func, context, f"outer products of {outer.tiles.im} rows in vector registers, blocks of {outer.tiles.bk}", None,
                          _roofline(func, context))
                return [outer.build()]
            packed = lower_packed(func, limits)
            if packed is None:
                _check_packed(func)
            if packed is not None:
                how, kernel = "4-bit weights, a warp for two tiles of columns", packed
            else:
                how, kernel = _rows(func, limits)
            self._say(func, context, how, None, _roofline(func, context))
            return [kernel]
        missing = sorted(plan.static_dims() - set(context.exact))
        if missing:
            raise RvgpuError("E304", f"kernel {func.name} needs the value of {', '.join(missing)}: it decides the scratchpad's layout",
                             func.loc).hint(f"compile({', '.join(f'{m}=...' for m in missing)}) or -D {missing[0]}=...")
        options = self.options(func, plan, context)
        choice = context.tuned.get(func.name) if self == Tile() else None
        found = next((o for o in options if choice is not None and fields_of(o[0]) == choice.fields), None)
        if choice is not None and found is not None:
            kernel = self._lowered(func, plan, context, *found, True)
            if not choice.code or choice.code == fingerprint(kernel):
                return [kernel]
        if choice is not None:
            context.remarks.append(Remark(f"{func.name}: the tuned tiling is of other code; the model's stays (rvgpu tune finds a new one)"))
        return [self._lowered(func, plan, context, *options[0], False)]

    def alternatives(self, func: Func, context: Context) -> list[tuple[Tiling, Price]]:
        """`options` of a function before P7; none where its kind of kernel has one tiling."""
        plan = plan_matrix(func, context.limits())
        return [] if plan is None else self.options(func, plan, context)

    def options(self, func: Func, plan: MatrixPlan, context: Context) -> list[tuple[Tiling, Price]]:
        """The tilings that fit, the model's pick first; the smallest one alone when none fits (P9 says what does not)."""
        limits = context.limits()
        if few_rows(plan, limits):
            return [(t, _roofline(func, context)) for t in few_options(plan, limits)]
        legal = list(self.candidates(plan, limits))
        if not legal:
            raise self._illegal(plan, limits)
        fit = [t for t in legal if spm_bytes(plan, limits, t) <= limits.spm_bytes]
        fit = fit or [min(legal, key=lambda t: spm_bytes(plan, limits, t))]
        return sorted(((t, cost(plan, context.priced(), context.facts, t)) for t in fit), key=lambda o: o[1].cycles)

    def _lowered(self, func: Func, plan: MatrixPlan, context: Context, t: Tiling, price: Price, tuned: bool) -> KFunc:
        limits = context.limits()
        if isinstance(t, FewTiles):
            self._say(func, context, f"few rows, {t.warps} streams at once, {t.jn} tiles, blocks of {t.bk}", None, price, tuned)
            return FewRows(func, limits, plan, t).build()
        apart = f", {t.wo} warps along {plan.m[0]}" if t.wo else ""
        self._say(func, context, f"{t.wm} x {t.wn} warps of {t.im} x {t.jn} tiles{apart}, blocks of {t.bk}", spm_bytes(plan, limits, t), price, tuned)
        if plan.streamed_rows:
            return Streamed(func, limits, plan, t, stages(plan, limits, t), teams(plan, limits, t), copies(plan, limits, t)).build()
        how = Gemm if plan.group is None else Grouped
        return how(func, limits, plan, t, stages(plan, limits, t), lag(plan, func.result_types, context.facts)).build()

    def _say(self, func: Func, context: Context, tile: str, spm: int | None, price: Price, tuned: bool = False) -> None:
        context.planned[func.name] = Planned(tile, price, tuned)
        room = f"; {spm} bytes of scratchpad" if spm is not None else ""
        context.remarks.append(Remark(f"{func.name}: {tile}{' (tuned)' if tuned else ''}{room}, about {price.cycles:.0f} cycles, "
                                      f"{price.limit} binds"))

    def _illegal(self, plan: MatrixPlan, limits: Limits) -> RvgpuError:
        legal = list(Tile().candidates(plan, limits))
        asked = ",".join(f"{f}={getattr(self, f)}" for f in FIELDS if getattr(self, f))
        error = RvgpuError("E311", f"no tiling of this kernel on this machine has {asked}", exit_code=EXIT_USAGE)
        for f in FIELDS:
            if getattr(self, f):
                error.note(f"{f}: {', '.join(map(str, sorted({getattr(t, f) for t in legal})))}")
        return error.hint("each is possible, not every combination is; --remarks prints the one that is chosen")

    def candidates(self, plan: MatrixPlan, limits: Limits) -> Iterator[Tiles]:
        warps = limits.warps
        per_tile = len(plan.products)
        divisors = [n for n in range(1, warps + 1) if warps % n == 0]
        if plan.streamed_rows:
            outer = limits.product(plan.m[:-1])
            sides = [(wm, 1, wo) for wm in divisors for wo in (0, *(d for d in divisors if wm % d == 0 and d <= outer and len(plan.m) > 1))]
        else:
            sides = [(n // wn, wn, 0) for n in divisors for wn in divisors if n % wn == 0]
        for wm, wn, wo in sides:
            for im in (1,) if plan.streamed_rows else (1, 2, 4):
                for jn in (1, 2, 3, 4) if per_tile else (1,):
                    if im * jn * per_tile + len(plan.atoms) > 4:
                        continue  # four accumulators
                    if not plan.streamed_rows and im + jn * per_tile > 4:
                        continue  # four operand groups of eight registers each
                    for bk in (stream_block(plan, limits),) if plan.streamed_rows else (16, 32, 64, 128, 256):
                        t = Tiles(wm, wn, im, jn, bk, wo)
                        if all(getattr(self, f) in (0, getattr(t, f)) for f in FIELDS):
                            yield t


def _rows(func: Func, limits: Limits) -> tuple[str, KFunc]:
    """What the vector unit does alone: the first lowering that takes it, in words, and its kernel."""
    ways: list[tuple[str, Callable[[Func, Limits], KFunc | None]]] = [
        ("columns", lower_columns), ("long rows by parts", lower_long), ("parts joined", lower_merge), ("rows", lower_vector)]
    return next((f"{how} on the vector unit", kernel) for how, lower in ways if (kernel := lower(func, limits)) is not None)


def fields_of(t: Tiling) -> dict[str, int]:
    """A tiling as numbers: what a table keeps."""
    return asdict(t)


def _roofline(func: Func, context: Context) -> Price:
    return roofline(func.body, [p.value for p in func.params], func.result_types, context.priced(), context.facts)


def _check_dtypes(func: Func) -> None:
    """E314: f64 is the reference's."""
    values = [(p.value, p.loc) for p in func.params] + [(r, op.loc) for op in func.body.walk() for r in op.results]
    for v, loc in values:
        if isinstance(v.type, TensorType) and v.type.dtype is DType.f64:
            raise RvgpuError("E314", "f64 has no machine code", loc).hint("rv.interpret() runs the kernel in NumPy; f32 has it")


def _check_packed(func: Func) -> None:
    """E314: factors of 4 bits have machine code in one layout (`lower_packed`)."""
    for op in func.body.walk():
        if op.name == "contract" and any(unpacked(x) is not None for x in op.operands) and op not in func.body.ops:
            raise RvgpuError("E314", "4-bit weights of grouped products have no machine code in this layout", op.loc).hint(
                "sum(dot(x, f16(w), over=J) * s, over=C) with w: i4[C, J, N] and x of 16-bit floats [M, C, J]")


def _check(func: Func) -> None:
    """tile takes clusters: macros expanded, at most one stream, and no reduction beside it."""
    streams = 0
    for op in func.body.ops:
        streams += op.name == "stream"
        before = "expand" if is_macro(op) else "cascade" if op.name in ("reduce", "contract") else "cluster" if streams > 1 else ""
        if before:
            raise RvgpuError("E311", f"tile: {func.name} has a `{op.name}` that `{before}` was to take apart", op.loc, exit_code=EXIT_USAGE).hint(
                "run expand, simplify, cluster and cascade before tile; '+tile{bk=64}' is the whole pipeline with that option")
