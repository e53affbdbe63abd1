"""`make compile-time`: cold compile times with a running worker and an empty kernel cache, against their bars (issue 4): every row of the bench
and 100 different random programs, none of them tuned.

    python -m benchmarks.compile_time [--rows]

A time is `host.compile_s` (what a user waits) and, beside it, what this process and the worker computed in it: on a computer that does other work
the second is the one to compare. The bars are for two cores of their own, for the time a user waits. Status 1 if a computed time is over its bar.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.rows import ROWS
from rvgpu.codegen_rvgpu.worker import WORKER
from rvgpu.errors import RvgpuError
from rvgpu.ir.binding import bind
from rvgpu.isa.machine import Machine, load_machine
from rvgpu.runtime.kernel import Kernel, kernel
from rvgpu.testing import Program, programs

LONGEST, MEDIAN, MANY = .5, .3, 40.0  # the bars, seconds
PROGRAMS = 100


def computed() -> float:
    """Seconds of processor time, of this process and the worker."""
    assert WORKER.process is not None
    times = Path(f"/proc/{WORKER.process.pid}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def cold(k: Kernel, machine: Machine, dims: dict[str, int]) -> tuple[float, float] | None:
    """(computed, waited) seconds; None where the compiler refuses."""
    binding = bind(k.func, {}, dims)
    begin = computed()
    try:
        waited = k.compile(machine).code(binding).compile_s
    except RvgpuError:
        return None
    return computed() - begin, waited


def rows() -> list[tuple[float, float, str]]:
    """(computed, waited, title) of every row that compiles, ascending."""
    out = []
    for row in ROWS:
        if (k := row.kernel()) is not None:
            dims = {n: v for n, v in row.dims.items() if n in k.func.dim_names()}
            if (took := cold(k, load_machine("base", row.overrides), dims)) is not None:
                out.append((*took, f"{row.title} {' '.join(f'{n}={v}' for n, v in dims.items())}"))
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


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", action="store_true", help="every row of the bench by itself too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RVGPU_CACHE_DIR"] = folder
        kernel("def f(x: f32[M]) -> f32[M]:\n    return x + 1.0\n").compile("base").code({"M": 5})  # the worker starts
        times = rows()
        if args.rows:
            for computing, waiting, title in times:
                print(f"{computing:.2f} {waiting:.2f}  {title}")
        waited = sorted(w for _, w, _ in times)
        many = [cold(kernel(p.text), load_machine(p.machine, p.overrides), dict(p.dims)) for p in random_programs(PROGRAMS)]
    made = [m for m in many if m is not None]
    figures = [(f"longest of {len(times)} kernels ({times[-1][2]})", times[-1][0], waited[-1], LONGEST),
               ("median of them", times[len(times) // 2][0], waited[len(times) // 2], MEDIAN),
               (f"{len(many)} random programs, {len(many) - len(made)} of them refused", sum(m[0] for m in made), sum(m[1] for m in made), MANY)]
    print("computed  waited     bar   cold compile, seconds")
    for what, computing, waiting, bar in figures:
        print(f"{computing:8.2f}{waiting:8.2f}{bar:8.2f}   {what}{'' if computing <= bar else ': over its bar'}")
    return int(any(computing > bar for _, computing, _, bar in figures))


if __name__ == "__main__":
    sys.exit(main())
