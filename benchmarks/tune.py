"""`make bench-tune`: on 20 shapes, the cycles of the model's pick beside those of the best of the 16 tilings that the tuner measures, and how long
that takes.

    python -m benchmarks.tune [--only TEXT ...] [--tables]

Where the tuner took samples, both are run whole as well (not in the tuner's time): those cycles are in the table, and the estimate's error. Cycles
are deterministic; seconds are the host's, with the processor time of all its processes over the number of processors beside them, which other load
does not change. `--tables` writes the shipped table (runtime/tuned.toml) for SHAPES and TABLES, or
those that `--only` says, instead.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.rows import ROOT, parsed
from rvgpu.ir.binding import bind
from rvgpu.ir.text import print_func
from rvgpu.passes.pipeline import print_passes
from rvgpu.runtime import tables
from rvgpu.runtime.kernel import Kernel
from rvgpu.runtime.measure import Request, Subject, measure_all
from rvgpu.runtime.tune import Problem, Tuned, Tuning, search

BAR, BAR_S = 1.06, 20.0  # the pick's cycles over the best's; seconds a shape on two cores
RESULTS, TEXT = ROOT / "benchmarks" / "tune.json", ROOT / "benchmarks" / "tune.txt"


@dataclass(frozen=True)
class Shape:
    kernel: str
    dims: Mapping[str, int]

    @property
    def title(self) -> str:
        return f"{self.kernel} {' '.join(f'{k}={v}' for k, v in self.dims.items())}"


def _gemm(m: int, n: int, k: int, kernel: str = "gemm") -> Shape:
    return Shape(kernel, {"M": m, "N": n, "K": k})


def _attention(b: int, g: int, r: int, s: int, t: int, d: int, kernel: str = "attention") -> Shape:
    return Shape(kernel, {"B": b, "G": g, "R": r, "S": s, "T": t, "D": d})


SHAPES = (
    *(_gemm(n, n, n) for n in (256, 512, 1024, 2048, 4096)), _gemm(1000, 777, 513), _gemm(540, 516, 332),
    _gemm(16, 4096, 4096), _gemm(128, 6144, 4096), _gemm(512, 4096, 4096), _gemm(128, 4096, 14336),
    _gemm(1024, 4096, 4096, "gemm_i8"), _gemm(1024, 4096, 4096, "gemm_fp8"), _gemm(1024, 1024, 1024, "gemm_gelu_tanh"),
    Shape("swiglu_mlp", {"T": 512, "D": 2048, "F": 768}),
    _attention(1, 8, 4, 512, 512, 128), _attention(1, 8, 4, 2048, 2048, 128), _attention(1, 8, 4, 1024, 1024, 128, "attention_full"),
    _attention(2, 32, 1, 1024, 1024, 64), _attention(1, 8, 4, 77, 1001, 128))
TABLES = (  # more of 60-workloads
    _gemm(81, 19, 41), *(_gemm(m, n, k) for m in (16, 128, 512) for n, k in ((6144, 4096), (4096, 4096), (4096, 14336))), _gemm(128, 28672, 4096),
    _attention(2, 4, 1, 128, 128, 64), *(_attention(1, 8, 4, s, s, 128) for s in (1024, 4096)), _attention(1, 8, 4, 2048, 2048, 64),
    _attention(2, 32, 1, 1024, 1024, 64, "attention_full"), *(_attention(1, 8, 4, 1, t, 128) for t in (512, 2048, 8192)))


def problem(shape: Shape) -> Problem:
    k = Kernel(parsed()[shape.kernel], tune="model")
    return k.compile("base").problem(bind(k.func, {}, shape.dims))


def cpu_seconds() -> float:
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def whole(p: Problem, k: Tuned, trials: list[int]) -> list[int]:
    """Cycles of these trials without sampling."""
    subject = Subject(print_func(p.func), k.kernel, p.machine, print_passes(p.passes), p.exact, p.upper, p.binding)
    done = measure_all(subject, [Request(k.trials[n].fields, 0, 0.0) for n in trials])
    return [m.cycles for m in done if m.cycles is not None]


def measure(shape: Shape) -> dict[str, Any]:
    p = problem(shape)
    begin, cpu = time.perf_counter(), cpu_seconds()
    tuning = search(p, anew=True)
    seconds, used = time.perf_counter() - begin, (cpu_seconds() - cpu) / len(os.sched_getaffinity(0))
    return {"seconds": round(seconds, 1), "cpu_s": round(used, 1), "kernels": [facts(p, k) for k in tuning.kernels]}


def facts(p: Problem, k: Tuned) -> dict[str, Any]:
    measured = [n for n, t in enumerate(k.trials) if t.cycles is not None]
    best = min(measured, key=lambda n: (k.trials[n].cycles, n))
    pick, error = 0, 0.0
    cycles = {n: k.trials[n].cycles or 0 for n in (pick, best)}
    if any(k.trials[n].sample > 1 for n in (pick, best)):
        both = sorted({pick, best})
        for n, c in zip(both, whole(p, k, both), strict=True):
            error = max(error, abs(cycles[n] / c - 1), key=abs)
            cycles[n] = c
    return {"kernel": k.kernel, "pick": dict(k.trials[pick].fields), "pick_cycles": cycles[pick], "predicted": round(k.trials[pick].predicted),
            "best": dict(k.trials[best].fields), "best_cycles": cycles[best], "kept": dict(k.trials[k.best].fields), "sample": k.trials[best].sample,
            "error": round(error, 4), "trials": len(k.trials)}


def table(known: Mapping[str, Any]) -> str:
    head = f"{'shape':48} {'pick':>12} {'best of 16':>12} {'ratio':>6} {'1.06':>5} {'sampled':>8} {'error':>6} {'s':>6} {'cpu s':>6}  pick -> best"
    lines = [head]
    for title, r in known.items():
        for n, k in enumerate(r["kernels"]):
            ratio = k["pick_cycles"] / k["best_cycles"]
            sampled = f"1 of {k['sample']}" if k["sample"] > 1 else "no"
            error = f"{k['error']:.1%}" if k["sample"] > 1 else "-"
            times = f"{r['seconds']:6.1f} {r['cpu_s']:6.1f}" if n == 0 else f"{'':6} {'':6}"
            name = title if len(r["kernels"]) == 1 else f"{title} ({k['kernel']})"
            change = _tiling(k["pick"]) + ("" if k["best"] == k["pick"] else f" -> {_tiling(k['best'])}")
            lines.append(f"{name:48} {k['pick_cycles']:12,} {k['best_cycles']:12,} {ratio:6.3f} {'met' if ratio <= BAR else 'no':>5} {sampled:>8} "
                         f"{error:>6} {times}  {change}")
    rows = [k for r in known.values() for k in r["kernels"]]
    met = sum(k["pick_cycles"] <= BAR * k["best_cycles"] for k in rows)
    lines.append(f"{met} of {len(rows)} kernels of {len(known)} shapes within 6 %; longest tuning {max(r['seconds'] for r in known.values()):.1f} s, "
                 f"{max(r['cpu_s'] for r in known.values()):.1f} s of processor time on each core (bar {BAR_S:.0f} s)")
    return "\n".join(lines) + "\n"


def _tiling(fields: Mapping[str, int]) -> str:
    return " ".join(map(str, fields.values()))


def write_tables(only: list[str]) -> None:
    """The shipped table: what the tuner keeps where that is faster than the model's pick, and the picks where it is not (for their buckets).
    Entries of shapes that are not asked for stay."""
    entries: list[tables.Entry] = []
    for shape in {s.title: s for s in (*SHAPES, *TABLES)}.values():
        if only and not any(text in shape.title for text in only):
            continue
        p = problem(shape)
        tuning: Tuning = search(p)
        entries += tables.entries_of(p.func, p.machine, p.binding, [_first(k) for k in tuning.kernels])
        print(f"{shape.title:60} {' | '.join(_tiling(k.choice.fields) for k in tuning.kernels)}  ({tuning.seconds:.1f} s)", flush=True)
    new = {e.key for e in entries}
    stay = [e for k, es in tables.read_table().items() if only and k not in new for e in es]
    tables.write_table([*stay, *entries])


def _first(k: Tuned) -> Tuned:
    """With a pick that was given up as slow as the limit that ended it."""
    limit = max((t.cycles for t in k.trials if t.cycles is not None), default=0)
    return k if k.trials[0].cycles is not None else replace(k, trials=[replace(k.trials[0], cycles=limit), *k.trials[1:]])


def save(known: Mapping[str, Any]) -> None:
    RESULTS.write_text("{\n" + ",\n".join(f"{json.dumps(t)}: {json.dumps(r)}" for t, r in known.items()) + "\n}\n")
    TEXT.write_text(table(known))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="shapes whose title contains it")
    p.add_argument("--tables", action="store_true", help="write the shipped table instead")
    args = p.parse_args()
    if args.tables:
        write_tables(args.only)
        return
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for shape in SHAPES:
        if not args.only or any(t in shape.title for t in args.only):
            known[shape.title] = r = measure(shape)
            for k in r["kernels"]:
                print(f"{shape.title:50} {k['pick_cycles']:12,} / {k['best_cycles']:12,} = {k['pick_cycles'] / k['best_cycles']:.3f}  "
                      f"{r['seconds']:.1f} s ({r['cpu_s']:.1f} s)  {_tiling(k['pick'])} -> {_tiling(k['best'])}", flush=True)
            save({s.title: known[s.title] for s in SHAPES if s.title in known})


if __name__ == "__main__":
    main()
