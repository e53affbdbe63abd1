"""The analytic model of a tiling: what it stages and how long it takes.

step = max(matrix, vector, DMA, L2) + barrier; a core runs its share of the work items, each blocks * step + epilogue; the launch and the
first block's way through the memory system come on top, and the whole is never below DRAM's bound.
"""

from __future__ import annotations

from rvgpu.ir.dims import Dim
from rvgpu.passes.context import Facts, Limits
from rvgpu.passes.lower_matrix import Tiles
from rvgpu.passes.matrix_plan import MATRIX_DTYPES, MatrixPlan, n_lanes


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
    # one warp's products wait for its loads or vectors; 1.5: the latencies in between (measured on `base`, 1 to 4 warps)
    alone = 1.5 * (matrix + vector) / (t.wm * t.wn)
    between = f.barrier + (40 if plan.streamed_rows else 100)
    step = max(matrix, vector, dma, l2, issue, alone) + (0.35 * min(matrix, vector) if plan.streamed_rows else 0) + between
    item_dma = sum(b * (f.transpose_factor if tr else 1) for b, tr, once in operands if once) / f.dma_bytes
    epilogue = used_m * used_n * 4 * len(plan.products) / f.tile_move_bytes * 1.5
    fill = f.dram_latency + dma + item_dma
    dram = (_product(limits, plan.batch) * (m * r + n * r + m * n) * plan.dtype.bits / 8) / f.dram_bytes
    work = per_core * (-(-r // t.bk) * step + epilogue)
    return f.launch + fill + max(work, dram) + 0.1 * min(work, dram)  # a tenth of the lesser one does not hide behind the other
