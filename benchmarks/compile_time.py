"""Cold compile times with a running worker and an empty kernel cache: every row of the bench, and 100 different random programs.

    python -m benchmarks.compile_time
"""

from __future__ import annotations

import os
import tempfile
import time

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.rows import ROWS
from rvgpu.errors import RvgpuError
from rvgpu.ir.binding import bind
from rvgpu.isa.machine import load_machine
from rvgpu.runtime.kernel import kernel
from rvgpu.testing import Program, programs


def rows() -> list[tuple[float, str]]:
    """(seconds, title) of every row that compiles, ascending."""
    out = []
    for row in ROWS:
        k = row.kernel()
        if k is None:
            continue
        try:
            binding = bind(k.func, {}, {n: v for n, v in row.dims.items() if n in k.func.dim_names()})
            out.append((k.compile(load_machine("base", row.overrides)).code(binding).compile_s, f"{row.title} {dict(row.dims)}"))
        except RvgpuError:
            continue
    return sorted(out)


def random_programs(n: int) -> list[Program]:
    """Programs with n different texts."""
    found: dict[str, Program] = {}

    @seed(0)
    @settings(max_examples=20 * n, database=None, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
    @given(programs())
    def collect(p: Program) -> None:
        if len(found) < n:
            found.setdefault(p.text, p)

    collect()
    return list(found.values())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RVGPU_CACHE_DIR"] = folder
        kernel("def f(x: f32[M]) -> f32[M]:\n    return x + 1.0\n").compile("base").code({"M": 5})  # the worker starts
        times = rows()
        print(f"bench rows: median {times[len(times) // 2][0]:.2f} s, longest {times[-1][0]:.2f} s ({times[-1][1]})")
        many, made = random_programs(100), 0
        begin = time.perf_counter()
        for p in many:
            k = kernel(p.text)
            try:
                k.compile(load_machine(p.machine, p.overrides)).code(bind(k.func, {}, p.dims))
                made += 1
            except RvgpuError:
                continue
        print(f"{len(many)} random programs: {time.perf_counter() - begin:.1f} s, {made} compiled, the others refused")


if __name__ == "__main__":
    main()
