"""What passes are given besides the IR: the machine as they see it, the dims' values, and where they leave their remarks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rvgpu.ir.core import Op
from rvgpu.ir.dims import Dim, is_bound, value_of
from rvgpu.isa.machine import Machine


@dataclass(frozen=True)
class Facts:
    """The machine as the model sees it; rates per cycle, of one core unless said otherwise."""

    cores: int
    warps: int
    vlen: int
    dlen: int
    te: int
    spm_bytes: int
    macs: Mapping[str, float]  # multiply-adds per cycle by dtype name
    dma_bytes: float
    transpose_factor: float  # how many times slower an element transpose is
    l2_bytes: float  # whole GPU
    dram_bytes: float  # whole GPU
    dram_latency: float
    barrier: float
    launch: float
    tile_move_bytes: float
    matrix: bool = True
    exp_lanes: float = 0.0  # 0: no exp unit
    l2_size: float = float("inf")

    @staticmethod
    def of(m: Machine) -> Facts:
        macs = {d: m.peak_macs_per_cycle(d) / m.gpu.cores for d in ("bf16", "f16", "f32", "i8", "u8", "e4m3", "e5m2")}
        return Facts(m.gpu.cores, m.core.warps, m.vector.vlen, m.vector.dlen, m.matrix.te, m.scratchpad.size_bytes, macs, m.dma.bytes_per_cycle,
                     m.dma.transpose_factor, m.l2.bytes_per_cycle, m.dram.bytes_per_cycle, m.dram.latency_cycles, m.gpu.barrier_cycles,
                     m.gpu.launch_cycles, m.matrix.tile_move_bytes_per_cycle, m.has_matrix,
                     m.exp.lanes_per_cycle if m.exp.present else 0.0, m.l2.size_bytes)


@dataclass(frozen=True)
class Limits:
    """What a kernel is specialised to: machine facts, exact extents, and upper bounds (a power of two) of the other dims."""

    vlen: int
    te: int
    warps: int
    cores: int
    spm_bytes: int
    exact: Mapping[str, int] = field(default_factory=dict)
    upper: Mapping[str, int] = field(default_factory=dict)
    matrix: bool = True  # whether there is a matrix unit

    def bound(self, dim: Dim) -> int:
        """The largest value `dim` may have in this kernel (its names are bounded; negative terms count as 0)."""
        out = dim.const
        for n, c in dim.terms:
            if is_bound(n, self.exact):
                out += c * value_of(n, self.exact)
            elif c > 0:
                out += c * value_of(n, self.upper)
        return out

    def product(self, dims: Iterable[Dim]) -> int:
        """The most elements of a tensor with these dims; an empty dim counts as one."""
        return math.prod(max(1, self.bound(d)) for d in dims)

    def bucket(self, dims: Iterable[Dim]) -> int:
        """`product` with every name at its power of two, exact or not: the same for all kernels of a bucket."""
        names = {n: 1 << max(0, (v - 1).bit_length()) for n, v in {**self.upper, **self.exact}.items()}
        return Limits(self.vlen, self.te, self.warps, self.cores, self.spm_bytes, names).product(dims)

    def known(self, dim: Dim) -> bool:
        """Whether every name of `dim` has a bound here."""
        return all(is_bound(n, self.exact) or is_bound(n, self.upper) for n in dim.names)

    def static(self, dim: Dim) -> int | None:
        return dim.value(self.exact) if all(is_bound(n, self.exact) for n in dim.names) else None


@dataclass
class Remark:
    """A fusion that was not made, a choice and its price: `--remarks` prints them at the op's line."""

    text: str
    op: Op | None = None


@dataclass(frozen=True)
class Price:
    """Estimated cycles of a launch, and for how many of them a core needs each of its resources ("chain": one warp's own latencies). `fixed`:
    what a launch costs however long its `items` take, of which a core's `teams` have one each at a time."""

    cycles: float
    busy: Mapping[str, float]
    items: int = 0
    fixed: float = 0.0
    teams: int = 1

    @property
    def limit(self) -> str:
        """The resource that is needed longest."""
        return max(self.busy, key=lambda k: self.busy[k])


@dataclass(frozen=True)
class Choice:
    """A tuned tiling: its fields, and the fingerprint (schedule.py) of the level K text that was measured; "" is any."""

    fields: Mapping[str, int]
    code: str = ""


@dataclass
class Planned:
    """What P7 decided for a kernel: the tiling in words, its price by the model, and whether a tuned choice took the model's place."""

    tile: str
    price: Price
    tuned: bool = False


@dataclass
class Context:
    """`exact` dims are compiled in; kernels are right for every value of the others up to `upper`. `extents` are the dims of the call at hand:
    tilings are priced at those."""

    facts: Facts
    exact: Mapping[str, int] = field(default_factory=dict)
    upper: Mapping[str, int] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)
    workspace: set[str] = field(default_factory=set)  # tensors that one function makes for a later one
    planned: dict[str, Planned] = field(default_factory=dict)  # by kernel, from P7 on
    extents: Mapping[str, int] = field(default_factory=dict)
    tuned: Mapping[str, Choice] = field(default_factory=dict)  # what takes the model's place, by kernel

    def limits(self) -> Limits:
        f = self.facts
        return Limits(f.vlen, f.te, f.warps, f.cores, f.spm_bytes, dict(self.exact), dict(self.upper), f.matrix)

    def priced(self) -> Limits:
        """The same with the dims of the call."""
        return replace(self.limits(), exact={**self.exact, **self.extents})
