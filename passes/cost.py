"""The analytic model of a tiling: what it stages and how long it takes.

step = max(matrix, vector, DMA, L2, issue, one warp's own chain) + what lies between two blocks; a core runs its share of the work items, each
blocks * step + epilogue; the launch and the first block's way through the memory system come on top. The cores' work and DRAM run side by
side, but for a tenth of the lesser one. Constants without a source were measured on `base`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rvgpu.ir.core import Block, Value
from rvgpu.ir.types import TensorType
from rvgpu.passes.context import Facts, Limits, Price
from rvgpu.passes.cost_gemm import gemm_bytes, gemm_cost, gemm_stages
from rvgpu.passes.lower_matrix import Tiles, converted
from rvgpu.passes.matrix_plan import KMAX, MATRIX_DTYPES, Leaf, MatrixPlan, held, n_lanes

SHARP = 4  # resources that are busy nearly as long delay each other: the norm that joins their times (as in cost_gemm)
FREE_RUNNING = 6  # the same for warps with work items of their own: none waits for another (measured on `base`)
START = 900  # cycles: a kernel's arguments from DRAM, its prologue
# of streamed rows, counted in listings for D = 64 and 128: scalar slots for a multiply of scores, one with a result, a row of softmax
SLOTS_SCORE, SLOTS_PRODUCT, SLOTS_ROW, SLOTS_TOP = 10, 9, 5, 3
# turns of the VALU for an element: difference, sum, cast; maximum; index, comparison, selection; division and remainder at a quarter of the rate
TURNS, TURNS_TOP, TURNS_MASK, TURNS_SPLIT = 3.5, 1, 4, 8
TURNS_CONVERT = 2.5  # of an 8-bit number to a 16-bit float: to i16, to f32, to bf16
# what a warp alone takes (measured with one warp at work): cycles for a row of softmax, its maximum, and of its products, of the matrix unit's time
LATENCY_ROW, LATENCY_TOP, LATENCY_PRODUCT, LATENCY_SPLIT = 40, 14, 0.8, 60
ENTER = 3000  # cycles until a work item whose masks are cut runs at its pace
FREE = frozenset({"const", "iota", "size", "rename", "slice", "yield"})  # ops that move and compute nothing


@dataclass(frozen=True)
class _Staged:
    """An operand in scratchpad: elements, their bytes there and on the way, whether the DMA transposes, whether once per work item."""

    elements: int
    place: int
    size: int
    across: bool
    once: bool

    def moved(self, f: Facts) -> float:
        return self.elements * self.size * (f.transpose_factor if self.across else 1)


def _staged(plan: MatrixPlan, limits: Limits, t: Tiles) -> list[_Staged]:
    """A tensor staged twice alike counts once."""
    bm, bn = t.shape(limits.te)
    wide = plan.dtype.bits // 8
    out = {}

    def stage(leaf: Leaf, lane: str, elements: int, across: bool, once: bool = False) -> None:
        size = leaf.value.tensor.dtype.bits // 8
        out[leaf.key, lane] = _Staged(elements, wide if not once and converted(plan, t, leaf) else size, size, across, once)

    for p in plan.products:
        if p.a is not None:
            stage(p.a, "m", t.bk * bm, p.a.dims[-1] == plan.stream.dim)
        stage(p.b, "n", t.bk * n_lanes(plan, limits, bn), p.b.dims[-1] == plan.stream.dim)
    for a in plan.atoms:
        c = limits.bound(a.dim)
        stage(a.keys, "r", t.bk * c, a.keys.dims[-1] == a.dim)
        stage(a.query, "q", bm * c, a.query.dims[-1] == a.dim, True)
    return list(out.values())


def stages(plan: MatrixPlan, limits: Limits, t: Tiles) -> int:
    """Stages of what a block brings: a third one, where it fits, lets half the warps of a kernel with streamed rows lag (`lower_stream`)."""
    if not plan.streamed_rows:
        return gemm_stages(plan, limits, t)
    lag = plan.atoms and t.wm > 1 and limits.bound(plan.stream.dim) > 2 * t.bk
    return 3 if lag and _spm_bytes(plan, limits, t, teams(plan, limits, t), 3) <= limits.spm_bytes else 2


def teams(plan: MatrixPlan, limits: Limits, t: Tiles) -> int:
    """Teams of a tile's warps in a kernel with streamed rows: as many as fit with two stages; other warps are idle."""
    most = limits.warps // (t.wm * t.wn)
    return next((n for n in range(most, 1, -1) if _spm_bytes(plan, limits, t, n, 2) <= limits.spm_bytes), 1)


def copies(plan: MatrixPlan, limits: Limits, t: Tiles) -> int:
    """Copies of what a work item keeps (queries): 2, the next item's arrive during this one, or 1 where two do not fit."""
    return 2 if _spm_bytes(plan, limits, t, teams(plan, limits, t), stages(plan, limits, t)) <= limits.spm_bytes else 1


def spm_bytes(plan: MatrixPlan, limits: Limits, t: Tiles) -> int:
    if not plan.streamed_rows:
        return gemm_bytes(plan, limits, t, gemm_stages(plan, limits, t))
    return _spm_bytes(plan, limits, t, teams(plan, limits, t), stages(plan, limits, t), copies(plan, limits, t))


def _spm_bytes(plan: MatrixPlan, limits: Limits, t: Tiles, teams: int, count: int, copies: int = 2) -> int:
    """Each team's stages of every operand (copies of those of a work item), and per warp the rows of the vector states and of the factors (at most
    four, the plan's states)."""
    rows = 4 + len(plan.vectors)
    staged = sum((copies if s.once else count) * s.elements * s.place for s in _staged(plan, limits, t))
    return teams * staged + 1024 + limits.warps * rows * limits.te * 4


def _blocks(plan: MatrixPlan, limits: Limits, t: Tiles) -> float:
    """Blocks that a work item goes through, on average over those of a lower triangle."""
    r = limits.bound(plan.stream.dim)
    if not plan.later_is_longer:
        return -(-r // t.bk)
    inner = limits.bound(plan.m[-1])
    rows = min(inner, t.inner_rows(limits.te) if t.wo else t.shape(limits.te)[0])
    return max(t.bk, r - (inner - rows) / 2) / t.bk


def work_items(plan: MatrixPlan, limits: Limits, t: Tiles) -> int:
    """Work items of a launch."""
    bm, bn = t.shape(limits.te)
    m, n, batch = (limits.product(dims) for dims in (plan.m, plan.n, plan.batch))
    m_tiles = -(-m // bm)
    if t.wo:
        m_tiles = -(-limits.product(plan.m[:-1]) // t.wo) * -(-limits.bound(plan.m[-1]) // t.inner_rows(limits.te))
    return batch * m_tiles * -(-n // bn)


def _shapes(plan: MatrixPlan, limits: Limits, t: Tiles) -> list[tuple[int, list[int]]]:
    """Kinds of work items along m: how many there are of each, and the rows of each warp; the last one of an axis is ragged."""
    te = limits.te
    axis, high = (limits.bound(plan.m[-1]), t.inner_rows(te)) if t.wo else (limits.product(plan.m), t.shape(te)[0])
    beside = max(1, t.wo)  # warps at the same rows of other coordinates
    out = []
    for count, rows in ((axis // high, high), (1, axis % high)):
        if count and rows:
            out.append((count, [max(0, min(te, rows - w * te)) for w in range(t.wm // beside)] * beside))
    return out


def cost(plan: MatrixPlan, limits: Limits, f: Facts, t: Tiles) -> Price:
    """The price of the launch (see the module's first lines)."""
    assert plan.dtype in MATRIX_DTYPES
    if not plan.streamed_rows:
        return gemm_cost(plan, limits, f, t)
    items = work_items(plan, limits, t)
    per_core, blocks, own = -(-items // f.cores), _blocks(plan, limits, t), _blocks(plan, limits, replace(t, wm=1, wo=min(t.wo, 1)))
    at_once = per_core / -(-per_core // teams(plan, limits, t))  # work items of a core
    kinds = _shapes(plan, limits, t)
    busy: dict[str, float] = {}
    work = 0.0
    for count, rows in kinds:
        needs = _step(plan, limits, f, t, rows, own / blocks)
        needs["chain"] /= at_once
        sharp, meet = (SHARP, f.barrier / at_once) if t.wm > 1 else (FREE_RUNNING, 0)
        step = sum(v**sharp for v in needs.values()) ** (1 / sharp) + meet
        share = per_core * count / sum(n for n, _ in kinds)
        work += share * (blocks * step + _ends(plan, limits, f, t, rows) / at_once)
        for k, v in needs.items():
            busy[k] = busy.get(k, 0.0) + share * blocks * v
    m, n, r, batch = (limits.product(dims) for dims in (plan.m, plan.n, (plan.stream.dim,), plan.batch))
    wide = sum(limits.bound(a.dim) for a in plan.atoms)
    size = plan.dtype.bits / 8
    keys = r * (n * len(plan.products) + wide) * size
    again = items / batch if min(batch, f.cores * at_once) * keys > f.l2_size else 1  # each item reads them, where those at work outgrow L2
    dram = batch * (m * (n + wide) * size + keys * again) / f.dram_bytes
    staged = sum(s.moved(f) for s in _staged(plan, limits, t))
    fixed = f.launch + START + f.dram_latency + staged / f.dma_bytes
    return Price(fixed + max(work, dram) + 0.1 * min(work, dram), busy | {"DRAM": dram}, items, fixed, teams(plan, limits, t))


def _step(plan: MatrixPlan, limits: Limits, f: Facts, t: Tiles, rows: list[int], active: float) -> dict[str, float]:
    """Cycles that a core's resources are busy for a block of the streamed dim; warps take part in `active` of their item's blocks."""
    r = min(t.bk, limits.bound(plan.stream.dim))
    used_n = min(t.shape(limits.te)[1], 16 * -(-limits.product(plan.n) // 16))
    macs, lanes = f.macs[plan.dtype.name], f.dlen / 32
    across = sum(limits.bound(a.dim) for a in plan.atoms)
    kmax = KMAX[plan.dtype.bits]
    elements = sum(rows) * r
    matrix = sum(16 * -(-h // 16) for h in rows) * r * (used_n * len(plan.products) + across) / macs
    working = sum(h > 0 for h in rows)
    products = across / kmax * SLOTS_SCORE + r / kmax * t.jn * len(plan.products) * SLOTS_PRODUCT
    ragged = bool(limits.bound(plan.stream.dim) % t.bk or limits.bound(plan.m[-1]) % limits.te)
    masked = len(plan.masks) * (1 + ragged) / max(1.0, _blocks(plan, limits, t))  # of the blocks: those that a mask cuts
    split = masked if not t.wo and ragged and limits.product(plan.m[:-1]) > 1 else 0.0  # lanes run on into another coordinate
    follow = 1 / max(1.0, _blocks(plan, limits, t)) if held(plan, limits) else 1.0  # of the blocks: those whose anchors need a maximum
    dma = l2 = convert = 0.0
    for s in _staged(plan, limits, t):
        part = 1 / max(1.0, _blocks(plan, limits, t)) if s.once else 1.0
        dma += part * s.moved(f) / f.dma_bytes
        l2 += part * s.elements * s.size * f.cores / f.l2_bytes
        convert += part * s.elements * TURNS_CONVERT / lanes if s.size * 8 < plan.dtype.bits else 0.0
    turns = TURNS + TURNS_TOP * follow + TURNS_MASK * masked + TURNS_SPLIT * split
    each = {"matrix": matrix, "VALU": elements / lanes * turns + convert, "exp": elements / f.exp_lanes if f.exp_lanes else 0.0,
            "tile port": (1 + follow) * elements * 4 / f.tile_move_bytes, "issue": working * (products + r * (SLOTS_ROW + SLOTS_TOP * follow))}
    chain = LATENCY_PRODUCT * matrix / max(1, working) + r * (LATENCY_ROW + LATENCY_TOP * follow + LATENCY_SPLIT * split)
    return {**{k: v * active for k, v in each.items()}, "DMA": dma, "L2": l2, "chain": chain}


def _ends(plan: MatrixPlan, limits: Limits, f: Facts, t: Tiles, rows: list[int]) -> float:
    """A work item's last results on their way out, and what its first block waits for."""
    used_n = min(t.shape(limits.te)[1], limits.product(plan.n))
    late = 0.0
    if copies(plan, limits, t) == 1:
        late = sum(s.moved(f) for s in _staged(plan, limits, t) if s.once) / f.dma_bytes
    return sum(rows) * used_n * 4 * len(plan.products) / f.tile_move_bytes + (ENTER if plan.masks else 0) + late


def roofline(body: Block, reads: Iterable[Value], writes: Iterable[TensorType], limits: Limits, f: Facts) -> Price:
    """The least that a launch of these ops costs: its DRAM traffic, its multiply-adds at the matrix unit's rate, or its elementwise work at the
    vector lanes' rate, whichever is longest. What kernels without a tiling are priced at."""
    moved = sum(limits.product(t.dims) * t.dtype.bits / 8 for t in [*(v.tensor for v in reads), *writes])
    macs = work = 0.0
    for op in body.walk():
        if op.name == "stream":
            for region in op.regions[1:-3]:
                macs += _macs(region.yielded, limits, f) if len(region.yielded) == 2 else 0.0
        elif op.name == "contract":
            macs += _macs(op.operands, limits, f)
        elif op.name not in FREE and op.results:
            size = max(limits.product(v.tensor.dims) for v in [*op.operands, *op.results] if isinstance(v.type, TensorType))
            work += size / (f.dlen / 32) / f.cores
    busy = {"DRAM": moved / f.dram_bytes, "matrix" if f.matrix else "VALU": macs}
    busy["VALU"] = busy.get("VALU", 0.0) + work
    return Price(f.launch + f.dram_latency + max(moved / f.dram_bytes, macs, work), busy)


def _macs(factors: Sequence[Value], limits: Limits, f: Facts) -> float:
    """Cycles of a contraction of these two."""
    dims = dict.fromkeys((*factors[0].tensor.dims, *factors[1].tensor.dims))
    return limits.product(dims) / f.macs.get(factors[0].tensor.dtype.name, f.dlen / 32) / f.cores
