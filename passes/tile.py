"""P7: a cluster becomes tiles. Every legal tiling is priced with an analytic model of the machine; the cheapest is lowered.

step = max(matrix, vector, DMA, L2) + barrier; a core runs its share of the work items, each blocks * step + epilogue; the launch and the
first block's way through the memory system come on top, and the whole is never below DRAM's bound. Tile sizes never enter the arithmetic of a
result: blocks of the streamed dim are TE rows wherever an anchor moves, and plain products run over k in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rvgpu.errors import EXIT_USAGE, RvgpuError
from rvgpu.ir.core import Func
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType, TensorType
from rvgpu.passes.context import Context, Facts, Limits, Remark
from rvgpu.passes.expand import is_macro
from rvgpu.passes.lower_matrix import Matrix, Tiles
from rvgpu.passes.lower_vector import lower_vector
from rvgpu.passes.matrix_plan import MATRIX_DTYPES, MatrixPlan, n_lanes, plan_matrix, stream_block

NO_CODE = frozenset({DType.e4m3, DType.e5m2, DType.i4})
FIELDS = ("wm", "wn", "im", "jn", "bk")


@dataclass(frozen=True)
class Tile:
    """Options pin a choice: `tile{wm=2,wn=2,im=2,jn=2,bk=64}`; 0 leaves it to the model."""

    wm: int = 0
    wn: int = 0
    im: int = 0
    jn: int = 0
    bk: int = 0

    name = "tile"
    level = "tensor"

    def run(self, func: Func, context: Context) -> list[KFunc]:
        _check(func)
        limits = context.limits()
        plan = plan_matrix(func, limits)
        if plan is None:
            context.remarks.append(Remark(f"{func.name}: rows on the vector unit"))
            return [lower_vector(func, limits)]
        missing = sorted(plan.static_dims() - set(context.exact))
        if missing:
            raise RvgpuError("E304", f"kernel {func.name} needs the value of {', '.join(missing)}: it decides the scratchpad's layout",
                             func.loc).hint(f"compile({', '.join(f'{m}=...' for m in missing)}) or -D {missing[0]}=...")
        chosen, cycles = self.choose(plan, limits, context.facts)
        context.remarks.append(Remark(f"{func.name}: {chosen.wm} x {chosen.wn} warps of {chosen.im} x {chosen.jn} tiles, blocks of {chosen.bk}; "
                                      f"{spm_bytes(plan, limits, chosen)} bytes of scratchpad, about {cycles:.0f} cycles"))
        context.predicted[func.name] = cycles
        return [Matrix(func, limits, plan, chosen).build()]

    def choose(self, plan: MatrixPlan, limits: Limits, facts: Facts) -> tuple[Tiles, float]:
        """The cheapest tiling that fits and its cycles by the model; the smallest one when none fits (P9 says what does not)."""
        best: tuple[float, Tiles] | None = None
        smallest: tuple[int, Tiles] | None = None
        for t in self.candidates(plan, limits):
            size = spm_bytes(plan, limits, t)
            if smallest is None or size < smallest[0]:
                smallest = size, t
            if size <= limits.spm_bytes:
                c = cost(plan, limits, facts, t)
                if best is None or c < best[0]:
                    best = c, t
        if best is None:
            if smallest is None:
                raise self._illegal(plan, limits)
            return smallest[1], cost(plan, limits, facts, smallest[1])
        return best[1], best[0]

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
        sides = [(wm, 1) for wm in divisors] if plan.streamed_rows else [(warps // wn, wn) for wn in divisors]
        for wm, wn in sides:
            for im in (1,) if plan.streamed_rows else (1, 2, 4):
                for jn in (1, 2, 3, 4):
                    if im * jn * per_tile + len(plan.atoms) > 4:
                        continue  # four accumulators
                    if not plan.streamed_rows and im + jn * per_tile > 4:
                        continue  # four operand groups of eight registers each
                    for bk in (stream_block(plan, limits),) if plan.streamed_rows else (32, 64, 128, 256):
                        t = Tiles(wm, wn, im, jn, bk)
                        if all(getattr(self, f) in (0, getattr(t, f)) for f in FIELDS):
                            yield t


def _check(func: Func) -> None:
    """tile takes clusters: macros expanded, at most one stream, and no reduction beside it; of dtypes that have machine code."""
    streams = 0
    values = [(p.value, p.loc) for p in func.params] + [(r, op.loc) for op in func.body.walk() for r in op.results]
    for v, loc in values:
        if isinstance(v.type, TensorType) and v.type.dtype in NO_CODE:
            raise RvgpuError("E314", f"{v.type.dtype} has no machine code yet", loc).hint("rv.interpret() runs the kernel in NumPy")
    for op in func.body.ops:
        streams += op.name == "stream"
        before = "expand" if is_macro(op) else "cascade" if op.name in ("reduce", "contract") else "cluster" if streams > 1 else ""
        if before:
            raise RvgpuError("E311", f"tile: {func.name} has a `{op.name}` that `{before}` was to take apart", op.loc, exit_code=EXIT_USAGE).hint(
                "run expand, simplify, cluster and cascade before tile; '+tile{bk=64}' is the whole pipeline with that option")


def _shape(plan: MatrixPlan, limits: Limits, t: Tiles) -> tuple[int, int]:
    return t.wm * t.im * limits.te, t.wn * t.jn * limits.te


def _operand_bytes(plan: MatrixPlan, limits: Limits, t: Tiles) -> list[tuple[int, bool, bool]]:
    """(bytes, transposed by the DMA, once per work item) of each staged operand; a tensor staged twice alike counts once."""
    bm, bn = _shape(plan, limits, t)
    size = plan.dtype.bits // 8
    out = {}
    for p in plan.products:
        if p.a is not None:
            out[p.a.value, "m"] = (t.bk * bm * size, p.a.dims[-1] == plan.stream.dim, False)
        out[p.b.value, "n"] = (t.bk * n_lanes(plan, limits, bn) * size, p.b.dims[-1] == plan.stream.dim, False)
    for a in plan.atoms:
        c = limits.bound(a.dim)
        out[a.keys.value, "r"] = (t.bk * c * size, a.keys.dims[-1] == a.dim, False)
        out[a.query.value, "q"] = (bm * c * size, a.query.dims[-1] == a.dim, True)
    return list(out.values())


def spm_bytes(plan: MatrixPlan, limits: Limits, t: Tiles) -> int:
    """Two stages of every operand, and per warp the rows of the vector states and of the factors (at most four, the plan's states)."""
    rows = 4 + (len(plan.vectors) if plan.streamed_rows else 0)
    return sum(2 * b for b, _, _ in _operand_bytes(plan, limits, t)) + 1024 + limits.warps * rows * limits.te * 4


def _product(limits: Limits, dims: tuple[Dim, ...]) -> int:
    out = 1
    for d in dims:
        out *= max(1, limits.bound(d))
    return out


def cost(plan: MatrixPlan, limits: Limits, f: Facts, t: Tiles) -> float:
    """Estimated cycles of the launch (see the module's first lines)."""
    assert plan.dtype in MATRIX_DTYPES
    bm, bn = _shape(plan, limits, t)
    m, n, r = _product(limits, plan.m), _product(limits, plan.n), max(1, limits.bound(plan.stream.dim))
    items = _product(limits, plan.batch) * -(-m // bm) * -(-n // bn)
    per_core = -(-items // f.cores)
    used_m, used_n = min(bm, m), min(bn, n)
    bk = min(t.bk, r)
    macs = f.macs[plan.dtype.name]
    # uneven warps: the busiest warp's tiles decide when the unit is not saturated by the others
    matrix = used_m * used_n * bk * len(plan.products) / macs
    vector = 0.0
    for a in plan.atoms:
        matrix += used_m * bk * limits.bound(a.dim) / macs
    if plan.streamed_rows:
        lanes = f.dlen / 32
        vector = used_m * bk / lanes * 6
    operands = _operand_bytes(plan, limits, t)
    block = [(b, tr) for b, tr, once in operands if not once]
    dma = sum(b * (f.transpose_factor if tr else 1) for b, tr in block) / f.dma_bytes
    l2 = sum(b for b, _ in block) * min(f.cores, items) / f.l2_bytes
    issue = t.wm * t.wn * (bk / 2) * (t.im * t.jn * len(plan.products) + 4 * (t.im + t.jn) + 6) / (1 if plan.streamed_rows else 1.2)
    # one warp's products and vectors wait for each other; 1.5: the latencies in between (measured on `base`, 1 to 4 warps)
    alone = 1.5 * (matrix + vector) / t.wm if plan.streamed_rows else 0.0
    step = max(matrix, vector, dma, l2, issue, alone) + (0.35 * min(matrix, vector) if plan.streamed_rows else 0) + f.barrier + 40
    item_dma = sum(b * (f.transpose_factor if tr else 1) for b, tr, once in operands if once) / f.dma_bytes
    epilogue = used_m * used_n * 4 * len(plan.products) / f.tile_move_bytes * 1.5
    fill = f.dram_latency + dma + item_dma
    dram = (_product(limits, plan.batch) * (m * r + n * r + m * n) * plan.dtype.bits / 8) / f.dram_bytes
    return f.launch + fill + max(per_core * (-(-r // t.bk) * step + epilogue), dram)
