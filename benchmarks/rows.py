"""The table that `make bench` measures: kernels, shapes, and per row the bar and the stretch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rvgpu.frontend.build import Kernel as Parsed
from rvgpu.runtime.kernel import Kernel, load_file

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "examples" / "zoo.rvg", ROOT / "benchmarks" / "kernels.rvg")

# what a row's figure is
PEAK = "peak"                    # required multiply-adds / (cycles * the matrix unit's rate)
ROUNDED = "rounded peak"         # the same, with M and N rounded up to 16 and K to 2
VECTOR = "vector peak"           # required multiply-adds / (cycles * f32 lanes)
DRAM = "DRAM"                    # compulsory bytes / (cycles * DRAM's bandwidth)
OVER = "over plain"              # cycles / those of the plain kernel, less 1: smaller is better


@dataclass(frozen=True)
class Row:
    """One measurement on `base`; `names` are the kernel's possible names in FILES, the first that is there is taken."""

    title: str
    names: tuple[str, ...]
    dims: Mapping[str, int]
    metric: str
    bar: float
    stretch: float
    overrides: Mapping[str, str] = field(default_factory=dict)
    check: bool = True  # against float64: left out where that takes minutes or gigabytes

    def kernel(self) -> Kernel | None:
        found = parsed()
        name = next((n for n in self.names if n in found), None)
        return None if name is None else Kernel(found[name])

    def met(self, value: float, goal: float) -> bool:
        return value <= goal if self.metric == OVER else value >= goal


@cache
def parsed() -> dict[str, Parsed]:
    out: dict[str, Parsed] = {}
    for path in reversed(FILES):
        out |= load_file(str(path))
    return out


def _mnk(m: int, n: int, k: int) -> dict[str, int]:
    return {"M": m, "N": n, "K": k}


def _heads(s: int, t: int, d: int) -> dict[str, int]:
    return {"B": 1, "G": 8, "R": 4, "S": s, "T": t, "D": d}


PLAIN = Row("GEMM bf16", ("gemm",), _mnk(1024, 1024, 1024), PEAK, .91, .94)
ROWS: tuple[Row, ...] = (
    Row("GEMM bf16", ("gemm",), _mnk(256, 256, 256), PEAK, .40, .48),
    Row("GEMM bf16", ("gemm",), _mnk(512, 512, 512), PEAK, .76, .82),
    PLAIN,
    Row("GEMM bf16", ("gemm",), _mnk(2048, 2048, 2048), PEAK, .95, .97, check=False),
    Row("GEMM bf16", ("gemm",), _mnk(4096, 4096, 4096), PEAK, .97, .985, check=False),
    Row("GEMM bf16 ragged", ("gemm",), _mnk(1000, 777, 513), ROUNDED, .83, .88),
    Row("GEMM bf16 ragged", ("gemm",), _mnk(540, 516, 332), ROUNDED, .71, .77),
    Row("GEMM int8", ("gemm_i8",), _mnk(1024, 4096, 4096), PEAK, .94, .97, check=False),
    Row("GEMM fp8", ("gemm_fp8",), _mnk(1024, 4096, 4096), PEAK, .94, .97, check=False),
    Row("GEMM f32, no matrix unit", ("gemm_f32",), _mnk(512, 512, 512), VECTOR, .95, .965, {"core.matrix": "none"}),
    Row("GEMM + bias + GELU(tanh)", ("gemm_bias_gelu_tanh", "gemm_gelu_tanh"), _mnk(1024, 1024, 1024), OVER, .08, .04),
    Row("attention causal D=128", ("attention",), _heads(512, 512, 128), PEAK, .60, .70),
    Row("attention causal D=128", ("attention",), _heads(1024, 1024, 128), PEAK, .72, .80, check=False),
    Row("attention causal D=128", ("attention",), _heads(2048, 2048, 128), PEAK, .79, .87, check=False),
    Row("attention causal D=128", ("attention",), _heads(4096, 4096, 128), PEAK, .84, .92, check=False),
    Row("attention full D=128", ("attention_full",), _heads(1024, 1024, 128), PEAK, .80, .88, check=False),
    Row("attention full D=128", ("attention_full",), _heads(4096, 4096, 128), PEAK, .87, .93, check=False),
    Row("attention causal D=64", ("attention",), _heads(2048, 2048, 64), PEAK, .64, .78, check=False),
    Row("decode S=1", ("attention",), _heads(1, 512, 128), DRAM, .80, .86),
    Row("decode S=1", ("attention",), _heads(1, 2048, 128), DRAM, .92, .96),
    Row("decode S=1", ("attention",), _heads(1, 8192, 128), DRAM, .97, .985),
    *(Row("GEMM bf16 few rows", ("gemm",), _mnk(m, 4096, 4096), DRAM, .96, .985) for m in (1, 4, 8, 16)),
    Row("int4 weights, groups of 128", ("gemm_w4a16",), {"M": 1, "N": 4096, "C": 32, "J": 128}, DRAM, .75, .90),
    Row("softmax f32", ("row_softmax",), {"M": 4096, "N": 4096}, DRAM, .95, .98),
    Row("RMSNorm bf16", ("rmsnorm",), {"T": 4096, "D": 4096}, DRAM, .88, .93),
    Row("add + RMSNorm bf16", ("add_rmsnorm",), {"T": 4096, "D": 4096}, DRAM, .94, .98),
    Row("softmax bf16", ("softmax_bf16",), {"M": 4096, "N": 4096}, DRAM, .85, .92),
    Row("softmax f32, one row", ("row_softmax",), {"M": 1, "N": 131072}, DRAM, .55, .70),
)
