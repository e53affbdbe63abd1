"""The analytic model of a tiling: what it stages and how long it takes.

step = max(matrix, vector, DMA, L2, issue, one warp's own chain) + what lies between two blocks; a core runs its share of the work items, each
blocks * step + epilogue; the launch and the first block's way through the memory system come on top. The cores' work and DRAM run side by
side, but for a tenth of the lesser one. Constants without a source were measured on `base`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rvgpu.ir.core import Block, Value
from rvgpu.ir.types import TensorType
from rvgpu.passes.context import Facts, Limits, Price
from rvgpu.passes.cost_gemm import gemm_bytes, gemm_cost, gemm_stages
from rvgpu.passes.lower_matrix import Tiles
from rvgpu.passes.matrix_plan import MATRIX_DTYPES, MatrixPlan, n_lanes

FREE = frozenset({"const", "iota", "size", "rename", "slice", "yield"})  # ops that move and compute nothing


def _operand_bytes(plan: MatrixPlan, limits: Limits, t: Tiles) -> list[tuple[int, bool, bool]]:
    """(bytes, transposed by the DMA, once per work item) of each staged operand; a tensor staged twice alike counts once."""
    bm, bn = t.shape(limits.te)
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


def stages(plan: MatrixPlan, limits: Limits, t: Tiles) -> int:
    """Stages of what a block brings: a third one, where it fits, lets half the warps of a kernel with streamed rows lag (`lower_stream`)."""
    if not plan.streamed_rows:
        return gemm_stages(plan, limits, t)
    lag = plan.atoms and t.wm > 1 and limits.bound(plan.stream.dim) > 2 * t.bk
    return 3 if lag and _spm_bytes(plan, limits, t, 3) <= limits.spm_bytes else 2


def spm_bytes(plan: MatrixPlan, limits: Limits, t: Tiles) -> int:
    if not plan.streamed_rows:
        return gemm_bytes(plan, limits, t, gemm_stages(plan, limits, t))
    return _spm_bytes(plan, limits, t, stages(plan, limits, t))


def _spm_bytes(plan: MatrixPlan, limits: Limits, t: Tiles, count: int) -> int:
    """The stages of every operand (two of those of a work item), and per warp the rows of the vector states and of the factors (at most
    four, the plan's states)."""
    rows = 4 + len(plan.vectors)
    return sum((2 if once else count) * b for b, _, once in _operand_bytes(plan, limits, t)) + 1024 + limits.warps * rows * limits.te * 4


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


def cost(plan: MatrixPlan, limits: Limits, f: Facts, t: Tiles) -> Price:
    """The price of the launch (see the module's first lines)."""
    assert plan.dtype in MATRIX_DTYPES
    if not plan.streamed_rows:
        return gemm_cost(plan, limits, f, t)
    bm, bn = t.shape(limits.te)
    m, n, r, batch = (limits.product(dims) for dims in (plan.m, plan.n, (plan.stream.dim,), plan.batch))
    items = work_items(plan, limits, t)
    per_core = -(-items // f.cores)
    used_m, used_n = min(bm, m), min(bn, n)
    bk = min(t.bk, r)
    macs = f.macs[plan.dtype.name]
    matrix = used_m * used_n * bk * len(plan.products) / macs
    vector = exp = 0.0
    for a in plan.atoms:
        matrix += used_m * bk * limits.bound(a.dim) / macs
    if plan.streamed_rows:
        lanes = f.dlen / 32
        vector = used_m * bk / lanes * 4  # softmax's maximum, difference, sum and cast
        exp = used_m * bk / f.exp_lanes if f.exp_lanes else 0.0
    dma = item_dma = l2 = 0.0
    for size, transposed, once in _operand_bytes(plan, limits, t):
        cycles = size * (f.transpose_factor if transposed else 1) / f.dma_bytes
        if once:
            item_dma += cycles
        else:
            dma += cycles
            l2 += size * min(f.cores, items) / f.l2_bytes
    tile = used_m * bk * 4 * len(plan.atoms) / f.tile_move_bytes
    issue = t.wm * t.wn * (bk / 2) * (t.im * t.jn * len(plan.products) + 4 * (t.im + t.jn) + 6) / (1 if plan.streamed_rows else 1.2)
    # one warp's products wait for its loads or vectors; 1.5: the latencies in between (measured on `base`, 1 to 4 warps)
    alone = 1.5 * (matrix + vector) / (t.wm * t.wn)
    between = f.barrier + (40 if plan.streamed_rows else 100)
    apart = 0.2 if stages(plan, limits, t) == 3 else 0.5  # of the lesser of both does not run beside the other (measured on `base`)
    needs = {"matrix": matrix, "VALU": vector, "exp": exp, "tile port": tile, "DMA": dma, "L2": l2, "issue": issue, "chain": alone}
    step = max(needs.values()) + (apart * min(matrix, vector) if plan.streamed_rows else 0) + between
    move = used_m * used_n * 4 * len(plan.products) / f.tile_move_bytes
    epilogue = move * 1.5
    fill = f.dram_latency + dma + item_dma
    dram = batch * (m * r + n * r + m * n) * plan.dtype.bits / 8 / f.dram_bytes
    blocks = per_core * _blocks(plan, limits, t)
    work = blocks * step + per_core * epilogue
    cycles = f.launch + fill + max(work, dram) + 0.1 * min(work, dram)  # a tenth of the lesser one does not hide behind the other
    busy = {k: v * blocks for k, v in needs.items()}
    busy["tile port"] += per_core * move
    busy["DMA"] += per_core * item_dma
    return Price(cycles, busy | {"DRAM": dram}, items, f.launch + fill)


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
