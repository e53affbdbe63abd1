"""The price of a plain product: teams of a core's warps, each with work items and stages of its own (`lower_gemm`).

A core's time is its resource that is busy longest, and a little of the others; the launch, the first block's way and the last tile's come on
top. Work is shared out by items, each as large as the average one: edges lie on all cores alike. Constants without a source were measured on
`base`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from rvgpu.ir.core import Op
from rvgpu.ir.dims import Dim
from rvgpu.ir.types import TensorType
from rvgpu.passes.context import Facts, Limits, Price
from rvgpu.passes.lower_gemm import GRAIN, Lag
from rvgpu.passes.lower_groups import group_bytes
from rvgpu.passes.lower_matrix import Tiles
from rvgpu.passes.matrix_plan import KMAX, Leaf, MatrixPlan, n_lanes

LINE = 64  # bytes
SHARP, SHARP_ALONE = 8, 16  # the norm that joins times: what is busy nearly as long as the busiest delays it, less where warps wait for none
CROWDED = 6  # the same for DRAM that reads strips again (4096^3 in five tilings: 0.98 to 1.04 of the simulated cycles)
START = 900  # cycles: a kernel's arguments from DRAM, its prologue
BLOCK = 130  # scalar instructions of a warp around a block; cycles, of the first item's
MEET = 3  # barriers' times that a core loses where a team's warps wait for each other, once a block
ROW = 12  # cycles of a warp that stores a row of a tile without further math
SLOW = {"div": 4, "exp": 16, "exp2": 16, "log": 22, "log2": 22, "sqrt": 4, "rsqrt": 8, "tanh": 20, "erf": 24}  # turns of the VALU (llvm_math)
CHAIN = 1.5  # a warp takes so much longer for a tile's math than the VALU
GROUP_ROW, GROUP_TILE = 8, 2  # scalar instructions of a row of a group's tiles, and for each tile
LATENCY = 12  # cycles that a warp alone waits for the operands of a step, beyond the queue's two multiplies


def gemm_operands(plan: MatrixPlan, t: Tiles, te: int) -> Iterator[tuple[Leaf, str, int]]:
    """Staged operands: the tensor, its lanes ("m", "n"), how many of those an item has; a tensor staged twice alike counts once."""
    bm, bn = t.shape(te)
    seen = set()
    for p in plan.products:
        for leaf, lane, size in ((p.a, "m", bm), (p.b, "n", bn)):
            assert leaf is not None
            if (leaf.key, lane) not in seen:
                seen.add((leaf.key, lane))
                yield leaf, lane, size


def gemm_bytes(plan: MatrixPlan, limits: Limits, t: Tiles, count: int) -> int:
    """Scratchpad for `count` stages of every team's operands."""
    lanes = sum(n_lanes(plan, limits, size) if lane == "n" else size for _, lane, size in gemm_operands(plan, t, limits.te))
    totals = group_bytes(plan, limits, t) if plan.group is not None else 0
    return limits.warps // (t.wm * t.wn) * count * t.bk * lanes * plan.dtype.bits // 8 + totals


def gemm_stages(plan: MatrixPlan, limits: Limits, t: Tiles) -> int:
    """As many stages as fit, four at most."""
    return next((n for n in (4, 3) if gemm_bytes(plan, limits, t, n) <= limits.spm_bytes), 2)


def _math(ops: Sequence[Op], f: Facts) -> tuple[float, float]:
    """Cycles of the VALU and of the exp unit for one element."""
    unit = sum(op.name == "exp" for op in ops) if f.exp_lanes else 0
    turns = sum(1 if op.attrs.get("anchored") and unit else SLOW.get(op.name, 1) for op in ops)
    return turns * 32 / f.dlen, unit / f.exp_lanes if unit else 0.0


def lag(plan: MatrixPlan, results: Iterable[TensorType], f: Facts) -> Lag:
    """What a core multiplies while all cores' results of a tile go to DRAM, and while a team makes its own."""
    size = sum(t.dtype.bits for t in results if set(plan.n) & set(t.dims)) / 8
    rate = f.macs[plan.dtype.name] / len(plan.products)
    return Lag(math.ceil(size * f.cores / f.dram_bytes * rate), math.ceil(CHAIN * _math(plan.epilogue, f)[0] * rate))


def _lines(limits: Limits, dims: tuple[Dim, ...], nbytes: float, bits: int) -> float:
    """Lines that a row of so many bytes touches in a tensor of these dims. Rows of unknown length begin at lines where their bound is a power of
    two, as sizes that are one mostly are the bound itself."""
    size = limits.bound(dims[-1])
    whole = size * bits // 8 % LINE == 0 if limits.static(dims[-1]) is not None else size & (size - 1) == 0
    return max(1.0, nbytes / LINE) + (0.0 if whole else 1 - 8 / LINE)


def _group(plan: MatrixPlan, f: Facts, t: Tiles, elements: float, te: int) -> dict[str, float]:
    """What the ends of groups take for so many elements of their tiles: reads, math and a sum (which one multiplication joins)."""
    if plan.group is None:
        return dict.fromkeys(("VALU", "exp", "tile port", "issue"), 0.0)
    turns, exp = _math(plan.group.ops, f)
    return {"VALU": elements * turns, "exp": elements * exp, "tile port": elements * 4 / f.tile_move_bytes,
            "issue": elements / (t.jn * te) * (GROUP_ROW + t.jn * GROUP_TILE)}


def _read_again(f: Facts, sides: tuple[float, float], depth: float, items: float, teams: int) -> float:
    """Cycles of DRAM for the operands' strips (bytes of an item's two sides at each of `depth` positions) where those of all items under way outgrow
    L2, else 0: teams are apart, so what one reads the others of the core read anew, and only the cores' items of one team share."""
    def strips(n: int) -> float:
        return depth * min(a * sides[0] + -(-n // a) * sides[1] for a in range(1, n + 1))

    if items <= f.cores or strips(f.cores * teams) <= f.l2_size:
        return 0.0
    return items / f.cores * strips(f.cores) / f.dram_bytes


def gemm_cost(plan: MatrixPlan, limits: Limits, f: Facts, t: Tiles) -> Price:
    bm, bn = t.shape(limits.te)
    m, n, inner, batch = (limits.product(dims) for dims in (plan.m, plan.n, (plan.inner,), plan.batch))
    groups = limits.product((plan.stream.dim,)) if plan.group is not None else 1
    r = groups * inner
    bits, products, kmax = plan.dtype.bits, len(plan.products), KMAX[plan.dtype.bits]
    m_tiles, n_tiles = -(-m // bm), -(-n // bn)
    items = batch * m_tiles * n_tiles
    mates, rest = t.wm * t.wn, items % f.cores
    halves = t.wm == 1 and t.jn > 1 and 0 < rest <= f.cores // 2 and (m - 1) % bm >= GRAIN
    per_core = items // f.cores + 0.5 if halves else -(-items // f.cores)
    narrow = n % bn
    if narrow and not (t.wn == 1 and t.jn > 1):  # which share columns out evenly; a narrow rest takes a warp as many instructions as half a tile
        n = n - narrow + max(narrow, bn // 2)
    high, wide = 16 * -(-m // m_tiles // 16), 16 * -(-n // n_tiles // 16)  # of an item on average
    if per_core < m_tiles:  # some core has none of the ragged rows
        high = bm
    steps, blocks = groups * -(-inner // kmax), groups * -(-inner // t.bk)
    matrix = high * wide * r * products / f.macs[plan.dtype.name]
    dma = 0.0
    for leaf, lane, _ in gemm_operands(plan, t, limits.te):
        size = high if lane == "m" else wide
        if leaf.dims[-1] == plan.inner:
            dma += size * blocks * _lines(limits, leaf.dims, min(inner, t.bk) * bits / 8, bits) * f.transpose_factor * LINE / f.dma_bytes
        else:
            dma += r * _lines(limits, leaf.dims, size * bits / 8, bits) * LINE / f.dma_bytes
    issue = mates * (steps * (kmax * (t.im + t.jn) + 6 + 3 * (t.jn > 1)) + blocks * BLOCK)
    at_once = mates * min(limits.warps // mates, math.ceil(per_core))
    alone = (matrix + steps * mates * LATENCY + mates * blocks * BLOCK) / at_once
    group = _group(plan, f, t, groups * high * wide, limits.te)
    if plan.group is not None:  # a team's warps are in the products together and then in the ends of groups
        alone = max(alone, (max(matrix, issue) + max(group.values())) * mates / at_once)
    l2 = f.cores * r * (high + wide) * bits / 8 / f.l2_bytes
    out = high * wide * 4 * products
    tile = out / f.tile_move_bytes if plan.group is None else group["tile port"]
    valu, exp = (high * wide * x for x in _math(plan.epilogue, f))
    needs = {"matrix": matrix, "DMA": dma, "issue": issue + group["issue"], "chain": alone, "L2": l2, "tile port": tile, "VALU": valu + group["VALU"],
             "exp": exp + group["exp"]}
    needs = {k: v * per_core for k, v in needs.items()}
    dram = batch * (m * r + n * r + m * n) * bits / 8 / f.dram_bytes
    first = f.cores * (high + wide) * min(t.bk, r) * bits / 8 / 4 / f.dram_bytes  # neighbours share half, and half of it is late
    last = max(f.cores * out / 2 / f.dram_bytes, high / t.wm * math.ceil(wide / t.wn / limits.te) * ROW + CHAIN * valu)
    fixed = f.launch + START + f.dram_latency + first + blocks * BLOCK + last
    sharp = SHARP_ALONE if mates == 1 else SHARP
    work = sum(v**sharp for v in needs.values()) ** (1 / sharp)
    if mates > 1:
        work += per_core * blocks * MEET * f.barrier
    if mates == limits.warps:  # no other team multiplies meanwhile
        work += (per_core - 1) * last
    again = _read_again(f, (high * bits / 8, wide * bits / 8), r, items, limits.warps // mates)
    if again > dram:
        work = (work**CROWDED + again**CROWDED) ** (1 / CROWDED)
    return Price(fixed + max(work, dram) + 0.05 * min(work, dram), needs | {"DRAM": max(dram, again)}, items, fixed)
