"""`rvgpu calibrate`: how near a machine comes to measured throughputs, and the fit of its timing classes to them; docs/accuracy.md."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rvgpu.errors import EXIT_OK, EXIT_USAGE, RvgpuError
from rvgpu.isa.classes import COUNTS, VECTOR
from rvgpu.isa.machine import FOLDER, Machine, load_machine
from rvgpu.sim.calibrate import NEAR, Score, bare, by_class, chime, classes_toml, cross_validate, errors, fit
from rvgpu.sim.loops import Loops, Measured, read_table

WORST = 12  # rows of the report


def prepare(name: str, data: str) -> tuple[Machine, Loops, list[Measured]]:
    """The machine, its loops, and the rows that it cannot run."""
    machine = load_machine(name)
    rows = read_table(data, machine.name)
    known = [r for r in rows if not r.unknown()]
    if not known:
        raise RvgpuError("E521", f"{data} has no row of {machine.name} that the simulator knows")
    return machine, Loops(machine, known), [r for r in rows if r.unknown()]


def percent(x: float) -> str:
    return f"{100 * x:.1f} %"


def calibrate(machines: Sequence[str], data: str, write: str | None, docs: str | None, seed: int, as_json: bool) -> int:
    if docs:
        Path(docs).write_text(accuracy(machines, data, seed), "utf-8")
        return EXIT_OK
    if len(machines) > 1 and write:
        raise RvgpuError("E002", "--write takes one machine", exit_code=EXIT_USAGE)
    reports = [report(name, data, write, seed) for name in machines]
    if as_json:
        print(json.dumps(reports if len(reports) > 1 else reports[0]))
        return EXIT_OK
    for r in reports:
        print(text(r))
    return EXIT_OK


def report(name: str, data: str, write: str | None, seed: int) -> dict[str, Any]:
    machine, loops, unknown = prepare(name, data)
    before = errors(loops, machine)
    fitted = fit(loops, bare(machine))
    e = errors(loops, fitted)
    scores = dict(by_class(loops, e))
    toml = classes_toml(fitted, scores)
    if write:
        source = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
        told = re.sub(r"\n*^\[classes[\].].*?(?=^\[(?!classes)|\Z)", "\n", source.read_text("utf-8"), flags=re.M | re.S)
        Path(write).write_text(f"{told.rstrip()}\n\n# Occupancy of units (isa/classes.py; docs/accuracy.md)\n{toml}", "utf-8")
    train, held = cross_validate(loops, machine, seed)
    order = sorted(range(len(e)), key=lambda n: (-abs(e[n]), n))
    return {"machine": machine.name, "rows": len(loops.rows), "unknown": dict(sorted(Counter(r.name for r in unknown).items())),
            "as_given": asdict(Score.of(before)), "fitted": asdict(Score.of(e)),
            "defaults": asdict(Score.of(errors(loops, bare(machine)))),
            "chime": asdict(Score.of(chime(machine, r) / r.cycles - 1 for r in loops.rows)),
            "cross_validation": {"seed": seed, "fitted_half": asdict(train), "other_half": asdict(held)},
            "classes": {name: asdict(s) for name, s in scores.items()}, "toml": toml,
            "worst": [{"instruction": loops.rows[n].text, "vtype": loops.rows[n].vtype, "error": e[n]} for n in order[:WORST]]}


def text(r: dict[str, Any]) -> str:
    def line(what: str, s: dict[str, Any]) -> str:
        return f"  {what:24} {s['rows']:5} rows  mean error {percent(s['mean']):>7}  within {NEAR:.0%}: {percent(s['near']):>7}"

    halves = r["cross_validation"]
    lines = [f"{r['machine']}: {r['rows']} loops run" + (f"; not known here: {sum(r['unknown'].values())} rows of "
                                                         f"{', '.join(r['unknown'])}" if r["unknown"] else ""),
             line("fitted", r["fitted"]), line("as given", r["as_given"]), line("defaults from DLEN", r["defaults"]), line("chime", r["chime"]),
             line(f"fitted half, seed {halves['seed']}", halves["fitted_half"]), line("the other half", halves["other_half"]), "", "classes:"]
    lines += [line(name, s) for name, s in r["classes"].items()]
    lines += ["", "worst rows:", *(f"  {100 * w['error']:+7.1f} %  {w['vtype']:6} {w['instruction']}" for w in r["worst"]), "", r["toml"]]
    return "\n".join(lines)


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    return "\n".join("| " + " | ".join(map(str, r)) + " |" for r in [head, ["---"] * len(head), *rows])


def accuracy(names: Sequence[str], data: str, seed: int) -> str:
    """docs/accuracy.md: the errors of the machines as they are shipped. Errors only: the measured numbers stay where they are."""
    parts = [(load_machine(n).name, *prepare(n, data)) for n in names]
    found: dict[str, list[float]] = {}
    defaults: dict[str, list[float]] = {}
    per_row: dict[tuple[str, str], dict[str, float]] = {}
    for name, machine, loops, _ in parts:
        found[name], defaults[name] = errors(loops, machine), errors(loops, bare(machine))
        for r, e in zip(loops.rows, found[name], strict=True):
            per_row.setdefault((r.text, r.vtype), {})[name] = e

    def summary(what: str, s: Score) -> list[object]:
        return [what, s.rows, percent(s.mean), percent(s.near)]

    overall = [summary(f"`{n}`", Score.of(found[n])) for n, *_ in parts]
    overall.append(summary("**all**", Score.of(x for e in found.values() for x in e)))
    rivals = []
    for name, machine, loops, _ in parts:
        halves = [cross_validate(loops, machine, seed + k) for k in range(3)]
        rivals.append([f"`{name}`", percent(Score.of(found[name]).mean), ", ".join(percent(h[1].mean) for h in halves),
                       percent(Score.of(defaults[name]).mean), percent(Score.of(chime(machine, r) / r.cycles - 1 for r in loops.rows).mean)])
    classes = []
    for c, cls in VECTOR.items():
        cells = []
        for name, _, loops, _ in parts:
            s = Score.of(x for x, r in zip(found[name], loops.rows, strict=True) if r.cls == c)
            cells.append(f"{percent(s.mean)} of {s.rows}" if s.rows else "")
        classes.append([f"`{c}`", cls.what, COUNTS[cls.counts] + (", longest" if cls.longest else ""), *cells])
    order = sorted(per_row, key=lambda k: (k[0], int(k[1][1:].partition("m")[0]), k[1]))
    rows = [[f"`{t}`", v, *(f"{100 * per_row[t, v][n]:+.1f}" if n in per_row[t, v] else "" for n, *_ in parts)] for t, v in order]
    missing = [f"`{name}`: {', '.join(f'`{i}` ({c})' for i, c in sorted(Counter(r.name for r in unknown).items()))}"
               for name, _, _, unknown in parts if unknown]
    heads = [f"`{n}`" for n, *_ in parts]
    return f"""<!-- written by `rvgpu calibrate {' '.join(names)} --data FILE --docs docs/accuracy.md`: do not edit -->

# Accuracy ledger

How far the simulator is from measured cycles per instruction, in per cent of the measurement. The table of measurements (published results of
camel-cdr/rvv-bench, commit 91f720d, for machines that others ran) is not part of this repository; this page is made where it is available. Each
row is a loop that the simulator ran: the instruction eight times with its registers moved on, unrolled eight times, between two reads of the
cycle counter (`sim/loops.py`). The machines are `isa/machines/*.toml`; their `[classes]` were fitted by `rvgpu calibrate`: {len(VECTOR)} classes,
the same on all machines, at most four parameters each, none for a single row. Vector latencies and the rules for results that are written again
and again (`core.write_after_write`, `latency.reduction_passes`) are the machines' too: with LMUL 8 each instruction of a loop writes the register
of the one before.

{_table(["machine", "rows", "mean absolute error", "within 10 %"], overall)}

## Against simpler models, and on rows that were not fitted

Cross-validation fits on a random half of the rows (seeds {seed} to {seed + 2}) and reports the mean absolute error of the other half. *Defaults*
is what a machine gets from VLEN, DLEN and a few latencies, without classes of its own (`isa/classes.py`); *chime* is LMUL x VLEN / DLEN.

{_table(["machine", "fitted", "other half", "defaults", "chime"], rivals)}

## Classes

Mean absolute error per class, and of how many rows.

{_table(["class", "instructions", "counts", *heads], classes)}

What the rules do not know: the values of operands (`vslideup.vx` of `x280` moves only what lies above its random offset; divisions by a scalar
that is no number of the width end early on `x60` and `c908`; `vfmul.vv` of 64 bits takes longer there on some operands), and the 0.14 cycles per
instruction that the measured loop itself costs on `x280`.
{chr(10) + "Rows of instructions that the simulator does not have: " + "; ".join(missing) + "." + chr(10) if missing else ""}
## Every row

Error in per cent; positive: the simulator is slower than the machine.

{_table(["instruction", "vtype", *heads], rows)}
"""
