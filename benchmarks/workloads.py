"""`make workloads`: attention, softmax and norms at the sizes of LLMs, checked against float64 on five machines and, on `base`, in checked mode.

    python -m benchmarks.workloads [--only TEXT ...] [--machine NAME ...] [--processes N]

A shape has a process of its own, two at a time; its float64 reference serves all machines. Every result is a line of benchmarks/workloads.jsonl as
soon as it is there, under a stamp of all that it depends on: machine code, machine, and the sources of `ir` (inputs' meaning and bounds), `isa` and
`sim`. A run that was stopped goes on where it was, and a changed compiler runs those shapes again whose machine code it changed.
benchmarks/workloads.txt is written from the lines. Status 1 if a result leaves its bound, a run fails or checked mode finds something.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from rvgpu.cache import source_hash
from rvgpu.errors import RvgpuError
from rvgpu.ir.binding import bind
from rvgpu.ir.bounds import compare, reference
from rvgpu.isa.machine import load_machine
from rvgpu.runtime.inputs import random_inputs, random_scalars
from rvgpu.runtime.kernel import Compiled, Kernel, load_file

ROOT = Path(__file__).parents[1]
TABLE, LINES = ROOT / "benchmarks" / "workloads.txt", ROOT / "benchmarks" / "workloads.jsonl"
MACHINES: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("base", {}), "edge": ("edge", {}), "vlen256 te32": ("base", {"vector.vlen": 256, "matrix.te": 32}),
    "vlen1024 te64": ("base", {"vector.vlen": 1024, "matrix.te": 64}), "vlen1024 te128": ("base", {"vector.vlen": 1024, "matrix.te": 128})}
SANITIZED = "base, checked mode"
COLUMNS = (*MACHINES, SANITIZED)
HEADS = [(1, 1, 1, 16, 16, 16), (2, 4, 1, 128, 128, 64), (1, 8, 4, 512, 512, 128), (2, 32, 1, 1024, 1024, 64), (1, 8, 4, 2048, 2048, 128),
         (1, 8, 4, 77, 1001, 128), (1, 2, 4, 200, 100, 64), (1, 8, 4, 1, 512, 128), (1, 8, 4, 1, 2048, 128), (1, 8, 4, 1, 8192, 128)]
HIDDEN = (768, 2048, 3584, 4096, 5120, 7168, 8192)
PIECE = 1 << 24  # elements compared at a time


@dataclass(frozen=True)
class Case:
    name: str
    dims: dict[str, int]

    def __str__(self) -> str:
        return f"{self.name:<16}{' '.join(f'{d}={n}' for d, n in self.dims.items()):<36}"


@dataclass(frozen=True)
class Found:
    """One line: what a shape gave on a machine. `said` is the cycles and the largest error as a part of its bound, or what went wrong."""

    name: str
    dims: dict[str, int]
    machine: str
    stamp: str
    good: bool
    said: str


def cases() -> Iterator[Case]:
    """Attention by (B, kv heads, q heads for each, S, T, D): S = 200, T = 100 has rows with every key masked."""
    for b, g, r, s, t, d in HEADS:
        for name in ("attention", "attention_full") if s == t and s > 16 else ("attention",):
            yield Case(name, {"B": b, "G": g, "R": r, "S": s, "T": t, "D": d})
    yield Case("mla_decode", {"B": 1, "H": 128, "C": 512, "P": 64, "T": 1024, "E": 512})
    for n in (32, 128, 512, 1000, 4096, 8192, 32768):
        for name in ("row_softmax", "softmax_bf16"):
            yield Case(name, {"M": 4096, "N": n})
    for m, n in ((12 * 128, 40960), (4 * 384, 384), (1, 131072)):
        yield Case("row_softmax", {"M": m, "N": n})
    for hidden in HIDDEN:
        for name in ("layernorm", "rmsnorm", "add_rmsnorm"):
            yield Case(name, {"T": 512, "D": hidden})


class Shape:
    """A case with its arguments and its reference, which all machines share."""

    def __init__(self, case: Case) -> None:
        kernels = {**load_file(str(ROOT / "benchmarks" / "kernels.rvg")), **load_file(str(ROOT / "examples" / "zoo.rvg"))}
        self.case, self.kernel = case, Kernel(kernels[case.name])
        self.binding = bind(self.kernel.func, {}, case.dims)
        self.scalars = random_scalars(self.kernel.func, self.binding)
        if case.name == "mla_decode":
            self.scalars = {"scale": (self.binding["C"] + self.binding["P"]) ** -0.5}

    @cached_property
    def inputs(self) -> list[Any]:
        return random_inputs(self.kernel.func, self.binding)

    @cached_property
    def reference(self) -> list[tuple[Any, Any]]:
        """(values, bounds) of each result."""
        inputs, scalars = self.kernel.arguments(tuple(self.inputs), self.scalars)
        return list(zip(*reference(self.kernel.func, inputs, scalars, dims=self.binding), strict=True))

    def stamp(self, compiled: Compiled, machine: str) -> str:
        image = bytes(compiled.code(self.binding).image().data)  # (the executable has this folder's name in its line table)
        made = [image.hex(), self.case.name, self.case.dims, repr(compiled.machine), machine == SANITIZED, source_hash("ir", "isa", "sim")]
        return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:16]

    def on(self, machine: str, known: Iterable[Found]) -> Found:
        """What is known under the same stamp, or a run."""
        stamp, good = "", False
        try:
            compiled = self.kernel.compile(load_machine(*MACHINES["base" if machine == SANITIZED else machine]))
            stamp = self.stamp(compiled, machine)
            if same := [f for f in known if f.stamp == stamp]:
                return same[-1]
            result = compiled.run(*self.inputs, sanitize=machine == SANITIZED, **self.scalars)
            if machine == SANITIZED:
                good, said = True, "no finding"
            else:
                worst = max(fraction(x, *r) for x, r in zip(result.outputs.values(), self.reference, strict=True))
                good, said = worst <= 1, f"{result.cycles:,} ({worst:.2f})"
        except RvgpuError as e:
            said = f"{e.code}: {e.message}"
        return Found(self.case.name, self.case.dims, machine, stamp, good, said)


def fraction(x: Any, ref: Any, bound: Any) -> float:
    """The largest error as a part of its bound, piece by piece: the reference of a large result has gigabytes."""
    step = max(1, PIECE * len(x) // max(1, x.size)) if np.ndim(x) else 1
    pieces = [slice(at, at + step) for at in range(0, len(x), step)] if np.ndim(x) else [...]
    return max((compare(x[p], ref[p], bound[p]).bound_fraction for p in pieces), default=0.0)


def lines() -> list[Found]:
    """Those in the file; a line that a stopped run cut off is none."""
    out = []
    for text in LINES.read_text().splitlines() if LINES.exists() else []:
        try:
            out.append(Found(**json.loads(text)))
        except (ValueError, TypeError):
            continue
    return out


def newest(case: Case, found: Iterable[Found]) -> dict[str, Found]:
    """The last line for each machine."""
    return {f.machine: f for f in found if f.name == case.name and f.dims == case.dims}


def measure(case: Case, machines: list[str]) -> tuple[Case, dict[str, Found], float]:
    """In a process of its own: every machine in turn, each new result a line at once."""
    os.environ.setdefault("RVGPU_THREADS", "1")
    begin, shape, out = time.perf_counter(), Shape(case), {}
    known = [f for f in lines() if f.name == case.name and f.dims == case.dims]
    for machine in machines:
        out[machine] = f = shape.on(machine, known)
        if f not in known:
            with LINES.open("a") as file:
                file.write(json.dumps(asdict(f)) + "\n")
    return case, out, time.perf_counter() - begin


def table(found: list[Found]) -> str:
    rows = [f"{'kernel':<16}{'dims':<36}" + "".join(f"{m:>22}" for m in COLUMNS)]
    for case in cases():
        row = newest(case, found)
        rows.append(f"{case}" + "".join(f"{_said(row[m]) if m in row else '-':>22}" for m in COLUMNS))
    said = "Cycles, and the largest error as a part of its bound (`make workloads`; workloads.jsonl holds the stamp of the code that each is of).\n\n"
    return said + "\n".join(rows) + "\n"


def _said(f: Found) -> str:
    return f.said if f.good else f"FAILED {f.said.partition(':')[0]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], help="shapes whose line contains it")
    parser.add_argument("--machine", action="append", choices=COLUMNS, default=[])
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    wanted = [c for c in cases() if not args.only or any(text in str(c) for text in args.only)]
    begin, failed = time.perf_counter(), 0
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for task in as_completed(pool.submit(measure, c, args.machine or list(COLUMNS)) for c in wanted):
            case, row, seconds = task.result()
            failed += sum(not f.good for f in row.values())
            print(f"{case}" + "".join(f"{_said(f):>22}" for f in row.values()) + f"  {seconds:.0f} s", flush=True)
    found = [f for case in cases() for f in newest(case, lines()).values()]
    LINES.write_text("".join(json.dumps(asdict(f)) + "\n" for f in found))
    TABLE.write_text(table(found))
    print(f"{len(wanted)} shapes, {failed} failures, {time.perf_counter() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
