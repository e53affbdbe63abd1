"""`make bench`: what the rows of benchmarks/rows.py measure on `base`, deterministic.

    python benchmarks/run.py [--only TEXT ...]

The run's own statistics go into benchmarks/results.json; benchmarks/results.txt, docs/performance.md and docs/performance.svg are written from it.
`--only` measures the rows whose title or kernel contains the text and leaves the others as they were. Host times go to the terminal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.chart import chart  # noqa: E402
from benchmarks.performance import document, table  # noqa: E402
from benchmarks.rows import PLAIN, ROOT, ROUNDED, ROWS, VECTOR, Row  # noqa: E402
from rvgpu.errors import RvgpuError  # noqa: E402
from rvgpu.ir.binding import bind  # noqa: E402
from rvgpu.isa.codec import decode  # noqa: E402
from rvgpu.isa.machine import load_machine  # noqa: E402
from rvgpu.runtime.inputs import random_inputs, random_scalars  # noqa: E402
from rvgpu.runtime.kernel import Compiled, Result  # noqa: E402
from rvgpu.runtime.launch import run_code  # noqa: E402
from rvgpu.runtime.measure import arguments  # noqa: E402
from rvgpu.sim.plan import U_MATRIX, U_NONE  # noqa: E402
from rvgpu.sim.program import CLASSES  # noqa: E402

LIMIT = 60_000_000  # cycles: more than any row has at a third of its bar
LONG, SAMPLE = 500_000, 8  # cycles of a run of which every 8th work item is traced
CORE, ISSUE, UNIT, START = 1, 5, 6, 7  # columns of a trace's events
RESULTS = ROOT / "benchmarks" / "results.json"


def key(row: Row) -> str:
    return f"{row.title} {' '.join(f'{k}={v}' for k, v in row.dims.items())}"


def measure(row: Row) -> dict[str, Any]:
    """The row's figure and what the run says about itself; {"missing": why} where it cannot run."""
    kernel = row.kernel()
    if kernel is None:
        return {"missing": f"no kernel {' or '.join(row.names)} yet"}
    try:
        binding = bind(kernel.func, {}, {n: v for n, v in row.dims.items() if n in kernel.func.dim_names()})
        compiled = kernel.compile(load_machine("base", row.overrides))
        result = compiled.run(*random_inputs(kernel.func, binding), check=row.check, max_cycles=LIMIT,
                              **random_scalars(kernel.func, binding))
    except RvgpuError as e:
        return {"missing": f"{e.code}: {e.message}"}
    out = facts(row, compiled, result)
    if out["figure"] is None or not row.met(out["figure"], row.stretch):
        out["ends"] |= ends(compiled, result)
    return out


def ends(compiled: Compiled, result: Result) -> dict[str, int]:
    """Cycles at a run's two ends, means of the cores: `fill` from a core's first instruction until its first multiply starts (left out where no
    core makes one), `uneven` from a core's last instruction to the last of all. The first is read off a trace; a sample of a long run's work items
    begins as all of them do."""
    binding, code = result.stats["dims"], compiled.code(result.stats["dims"])
    inputs, scalars = arguments(compiled.kernel.func, code, binding)
    traced = run_code(code, compiled.machine, binding, inputs, scalars, trace=True, sample=SAMPLE if result.cycles > LONG else 1).trace
    assert traced is not None
    waits = []
    for core in range(compiled.machine.gpu.cores):
        events = traced.events[traced.events[:, CORE] == core]
        starts = events[events[:, UNIT] == U_MATRIX][:, START]
        if len(starts):
            waits.append(int(starts.min() - events[0, ISSUE]))
    uneven = sum(r.cycles - sum(r.cores) / len(r.cores) for r in result.raw.launches)
    return {"uneven": round(uneven)} | ({"fill": round(sum(waits) / len(waits))} if waits else {})


def facts(row: Row, compiled: Compiled, result: Result) -> dict[str, Any]:
    """Cycles per core of every resource, from the run's own statistics."""
    s, m, binding = result.stats, compiled.machine, result.stats["dims"]
    code = compiled.code(binding)
    image, slots = code.image(), [0, 0]
    for pc, (_, taken) in result.raw.lines.items():
        d = decode(int.from_bytes(image.at(pc, 4), "little"))
        assert d is not None, "what ran is an instruction"
        slots[CLASSES[d.row.cls].unit != U_NONE] += taken
    cycles, busy = s["cycles"], result.raw.busy
    units = {"matrix": "matrix", "vector ALU": "vector", "exp": "exp", "vector memory": "memory", "tile port": "tile", "DMA": "dma"}
    used = {label: round(busy[n] * cycles) for label, n in units.items()}
    used |= {"vector slot": slots[1] // m.gpu.cores, "scalar slot": slots[0] // m.gpu.cores, "DRAM": round(busy["dram"] * cycles)}
    ends = {"launches": len(s["launches"]) * (m.gpu.launch_cycles + m.gpu.cta_dispatch_cycles),
            "drain": cycles - sum(r["cycles"] for r in s["launches"])}
    out = {"cycles": cycles, "figure": figure(row, s, m.gpu.cores * m.vector.dlen // 32), "used": used, "ends": ends,
           "macs": s["macs"], "macs_min": s["macs_min"], "dram_bytes": s["dram_bytes"], "dram_bytes_min": s["dram_bytes_min"],
           "stalls": {k: round(v, 4) for k, v in s["stalls"].items()}, "instructions": s["instructions"]}
    return out | ({"bound": round(s["check"]["bound_fraction"], 3), "passed": s["check"]["passed"]} if row.check else {})


def figure(row: Row, s: dict[str, Any], lanes: int) -> float | None:
    """The row's figure; one that compares with another row is made when the table is written."""
    if row.metric == VECTOR:
        return float(s["macs_min"] / (s["cycles"] * lanes))
    if row.metric == ROUNDED:
        m, n, k = (-(-row.dims[d] // r) * r for d, r in (("M", 16), ("N", 16), ("K", 2)))
        return float(s["roofline"]["of_matrix_peak"] * m * n * k / s["macs_min"])
    return {"peak": s["roofline"]["of_matrix_peak"], "DRAM": s["utilisation"]["dram"]}.get(row.metric)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="rows whose title, kernel or dims contain it")
    only = p.parse_args().only
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    begin = time.perf_counter()
    for row in ROWS:
        if only and not any(t in f"{key(row)} {row.names}" for t in only):
            continue
        started = time.perf_counter()
        known[key(row)] = r = measure(row)
        said = r.get("missing") or f"{r['cycles']:,} cycles, {r['figure'] or 0:.3f} {row.metric}"
        print(f"{key(row):60} {said}   ({time.perf_counter() - started:.1f} s)", flush=True)
    known = {key(r): known[key(r)] for r in ROWS if key(r) in known}
    RESULTS.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(r)}" for k, r in known.items()) + "\n}\n")
    plain = known.get(key(PLAIN), {}).get("cycles")
    rows = [(r, known.get(key(r), {})) for r in ROWS]
    for path, writer in (("benchmarks/results.txt", table), ("docs/performance.md", document), ("docs/performance.svg", chart)):
        (ROOT / path).write_text(writer(rows, plain))
    print(f"{time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    main()
