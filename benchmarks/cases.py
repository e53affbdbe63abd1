"""Every case of the zoo that must pass its check, on four machines: prints one line per run and ends with a count.

    python benchmarks/cases.py [--machine NAME] [--kernel NAME]

A case passes when the simulated binary's results are within the propagated error bound of float64 (docs/ir.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import rvgpu.runtime.kernel as rt
from rvgpu.ir.binding import bind
from rvgpu.runtime.inputs import random_inputs, random_scalars

ZOO = Path(__file__).parents[1] / "examples" / "zoo.rvg"
MACHINES: dict[str, tuple[str, dict[str, int]]] = {
    "base": ("base", {}), "edge": ("edge", {}), "vlen256": ("base", {"vector.vlen": 256, "matrix.te": 32}),
    "vlen1024": ("base", {"vector.vlen": 1024, "matrix.te": 64})}
GEMMS = ["32 32 32", "81 41 19", "512 512 512", "540 516 332", "1000 777 513"]
CASES: list[tuple[str, str, str, dict[str, str]]] = [
    *(("gemm_bias_gelu", "M N K", s, d) for s in GEMMS for d in ({}, {"bf16": "f16"}, {"bf16": "f32"})),
    *(("row_softmax", "M N", s, {}) for s in ("4096 1000", "3 131072")), ("rmsnorm", "T D", "333 4096", {}),
    *(("attention", "B G R S T D", s, {}) for s in ("1 1 1 16 16 16", "1 2 4 77 1001 64", "1 8 4 512 512 128", "1 8 4 1 2048 128", "1 1 2 40 20 64")),
    ("rope", "B S H F", "2 77 4 64", {}), ("swiglu_mlp", "T D F", "64 512 1376", {})]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--machine", choices=MACHINES)
    p.add_argument("--kernel")
    args = p.parse_args()
    zoo = rt.load_file(str(ZOO))
    done = passed = 0
    for label, (machine, overrides) in MACHINES.items():
        for name, dims, sizes, dtypes in CASES:
            if args.machine not in (None, label) or args.kernel not in (None, name):
                continue
            kernel = rt.Kernel(zoo[name], dtypes)
            binding = bind(kernel.func, {}, dict(zip(dims.split(), map(int, sizes.split()), strict=True)))
            arrays, scalars = random_inputs(kernel.func, binding), random_scalars(kernel.func, binding)
            r = kernel.compile(machine, overrides=overrides).run(*arrays, check=True, **scalars)
            check = r.stats["check"]
            done, passed = done + 1, passed + check["passed"]
            print(f"{'ok  ' if check['passed'] else 'FAIL'} {label:8} {name:15} {sizes:18} {' '.join(f'{a}={b}' for a, b in dtypes.items()):9} "
                  f"{r.cycles:>10,} cycles  {check['bound_fraction']:.3f} of the bound", flush=True)
    print(f"{passed} of {done} passed")
    return 0 if passed == done else 3


if __name__ == "__main__":
    sys.exit(main())
