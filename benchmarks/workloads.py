"""`make workloads`: attention, softmax and norms at the sizes of LLMs, checked against float64 on five machines and, on `base`, in checked mode.

    python benchmarks/workloads.py [--only TEXT] [--machine NAME ...]

benchmarks/workloads.txt holds what it found: for each machine the cycles and the largest error as a part of the propagated bound. It ends with
status 1 if a result leaves its bound, a run fails or checked mode finds something.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from rvgpu.errors import RvgpuError  # noqa: E402
from rvgpu.ir.binding import bind  # noqa: E402
from rvgpu.isa.machine import load_machine  # noqa: E402
from rvgpu.runtime.inputs import random_inputs, random_scalars  # noqa: E402
from rvgpu.runtime.kernel import Kernel, load_file  # noqa: E402

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "workloads.txt"
KERNELS = {**load_file(str(ROOT / "benchmarks" / "kernels.rvg")), **load_file(str(ROOT / "examples" / "zoo.rvg"))}
MACHINES: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("base", {}), "edge": ("edge", {}), "vlen256 te32": ("base", {"vector.vlen": 256, "matrix.te": 32}),
    "vlen1024 te64": ("base", {"vector.vlen": 1024, "matrix.te": 64}), "vlen1024 te128": ("base", {"vector.vlen": 1024, "matrix.te": 128})}
SANITIZED = "base, checked mode"
HEADS = [(1, 1, 1, 16, 16, 16), (2, 4, 1, 128, 128, 64), (1, 8, 4, 512, 512, 128), (2, 32, 1, 1024, 1024, 64), (1, 8, 4, 2048, 2048, 128),
         (1, 8, 4, 77, 1001, 128), (1, 2, 4, 200, 100, 64), (1, 8, 4, 1, 512, 128), (1, 8, 4, 1, 2048, 128), (1, 8, 4, 1, 8192, 128)]
HIDDEN = (768, 2048, 3584, 4096, 5120, 7168, 8192)
Case = tuple[str, dict[str, int]]


def cases() -> Iterator[Case]:
    """Attention by (B, kv heads, q heads for each, S, T, D): S = 200, T = 100 has rows with every key masked."""
    for b, g, r, s, t, d in HEADS:
        for name in ("attention", "attention_full") if s == t and s > 16 else ("attention",):
            yield name, {"B": b, "G": g, "R": r, "S": s, "T": t, "D": d}
    if "mla_decode" in KERNELS:
        yield "mla_decode", {"B": 1, "H": 128, "T": 1024, "L": 512, "P": 64}
    for n in (32, 128, 512, 1000, 4096, 8192, 32768):
        for name in ("row_softmax", "softmax_bf16"):
            yield name, {"M": 4096 if n <= 4096 else 256, "N": n}
    for name, m, n in (("row_softmax", 12 * 128, 40960), ("row_softmax", 4 * 384, 384), ("row_softmax", 1, 131072)):
        yield name, {"M": m, "N": n}
    for hidden in HIDDEN:
        for name in ("layernorm", "rmsnorm", "add_rmsnorm"):
            yield name, {"T": 512, "D": hidden}


def run(case: Case, machine: str) -> tuple[bool, str]:
    name, dims = case
    kernel, sanitize = Kernel(KERNELS[name]), machine == SANITIZED
    base, overrides = MACHINES["base" if sanitize else machine]
    try:
        binding = bind(kernel.func, {}, dict(dims))
        compiled = kernel.compile(load_machine(base, overrides))
        result = compiled.run(*random_inputs(kernel.func, binding), check=not sanitize, sanitize=sanitize or None,
                              **random_scalars(kernel.func, binding))
    except RvgpuError as e:
        return False, f"{e.code}: {e.message}"
    if sanitize:
        return True, "no finding"
    check = result.stats["check"]
    return bool(check["passed"]), f"{result.cycles:,} ({check['bound_fraction']:.2f})" + ("" if check["passed"] else " FAILED")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="shapes whose line contains it")
    parser.add_argument("--machine", action="append", choices=[*MACHINES, SANITIZED], default=[])
    args = parser.parse_args()
    machines = args.machine or [*MACHINES, SANITIZED]
    lines = [f"{'kernel':<16}{'dims':<36}" + "".join(f"{m:>22}" for m in machines)]
    print(lines[0], flush=True)
    begin, failed = time.perf_counter(), 0
    for case in cases():
        line = f"{case[0]:<16}{' '.join(f'{d}={n}' for d, n in case[1].items()):<36}"
        if args.only not in line:
            continue
        print(line, end="", flush=True)
        for machine in machines:
            good, said = run(case, machine)
            failed += not good
            line += f"{said:>22}"
            print(f"{said:>22}", end="", flush=True)
        print(flush=True)
        lines.append(line)
    if not args.only and not args.machine:
        RESULTS.write_text("Cycles, and the largest error as a part of its bound (`make workloads`).\n\n" + "\n".join(lines) + "\n")
    print(f"{len(lines) - 1} shapes, {failed} failures, {time.perf_counter() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
