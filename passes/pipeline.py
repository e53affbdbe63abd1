"""The whole pipeline on one page: level T in, one level K function per kernel out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rvgpu.ir.core import Func
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import TensorType
from rvgpu.isa.machine import Machine
from rvgpu.passes.cluster import Cluster, Remark
from rvgpu.passes.expand import Expand
from rvgpu.passes.grid import Grid
from rvgpu.passes.kernel import Limits
from rvgpu.passes.matrix_plan import plan_matrix
from rvgpu.passes.pipeline_dma import PipelineDma
from rvgpu.passes.simplify import Simplify
from rvgpu.passes.stage import Stage
from rvgpu.passes.tile import Facts, Tile


@dataclass
class Compiled:
    """Level K kernels in launch order; tensors named in `temps` are workspace between them."""

    kernels: list[KFunc]
    temps: dict[str, TensorType]
    remarks: list[Remark]


def facts_of(m: Machine) -> Facts:
    """What the tile model knows of a machine; rates per core unless said otherwise."""
    macs = {d: m.peak_macs_per_cycle(d) / m.gpu.cores for d in ("bf16", "f16", "f32")}
    return Facts(m.gpu.cores, m.core.warps, m.vector.vlen, m.vector.dlen, m.matrix.te, m.scratchpad.size_bytes, macs, m.dma.bytes_per_cycle,
                 m.dma.transpose_factor, m.l2.bytes_per_cycle, m.dram.bytes_per_cycle, m.dram.latency_cycles, m.gpu.barrier_cycles,
                 m.gpu.launch_cycles, m.matrix.tile_move_bytes_per_cycle)


def static_dims(func: Func, machine: Machine) -> set[str]:
    """Dims whose exact value decides a kernel's scratchpad layout."""
    f = facts_of(machine)
    limits = Limits(f.vlen, f.te, f.warps, f.cores, f.spm_bytes, {}, {})
    out: set[str] = set()
    for k in Cluster().run(Simplify().run(Expand().run(func))).kernels:
        plan = plan_matrix(k, limits)
        out |= plan.static_dims() if plan else set()
    return out


def compile_program(func: Func, machine: Machine, exact: Mapping[str, int], upper: Mapping[str, int]) -> Compiled:
    """`exact` dims are compiled in; the kernels are right for every value of the others up to `upper`."""
    program = Cluster().run(Simplify().run(Expand().run(func)))
    facts = facts_of(machine)
    kernels = []
    for k in program.kernels:
        tiled = Tile(facts, exact, upper).run(k)
        kernels.append(Stage(facts.spm_bytes).run(PipelineDma().run(Grid().run(tiled))))
    return Compiled(kernels, program.temps, program.remarks)
