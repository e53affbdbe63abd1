"""What the bench writes: the table of all rows, and docs/performance.md with the arithmetic of what binds in rows below their bar or stretch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.rows import OVER, Row

Facts = Mapping[str, Any]
Rows = Sequence[tuple[Row, Facts]]
NOTE = "<!-- written by benchmarks/run.py (`make bench`): do not edit -->\n"
HEAD = f"{'row':27} {'dims':36} {'figure':13} {'bar':>6} {'stretch':>7} {'measured':>9} {'bar':>4} {'stretch':>8} {'cycles':>12} {'bound used':>11}"


def number(x: float) -> str:
    return f"{x:.3f}".removeprefix("0").removesuffix("0")


def measured(row: Row, r: Facts, plain: int | None) -> float | None:
    """The row's figure, None where nothing was measured."""
    if "cycles" not in r:
        return None
    if row.metric == OVER:
        return None if plain is None else r["cycles"] / plain - 1
    return float(r["figure"])


def table(rows: Rows, plain: int | None) -> str:
    """benchmarks/results.txt; `plain` is the cycles of the GEMM that the epilogue's row is compared with."""
    lines = [HEAD]
    for row, r in rows:
        dims = " ".join(f"{k}={v}" for k, v in row.dims.items())
        head = f"{row.title:27} {dims:36} {row.metric:13} {number(row.bar):>6} {number(row.stretch):>7}"
        value = measured(row, r, plain)
        if value is None:
            lines.append(f"{head} {'-':>9}  {r.get('missing', 'not measured')}")
            continue
        met = ["met" if row.met(value, goal) else "no" for goal in (row.bar, row.stretch)]
        bound = f"{r['bound']:.3f}" if r.get("passed") else "FAILED" if "passed" in r else "-"
        lines.append(f"{head} {value:>9.3f} {met[0]:>4} {met[1]:>8} {r['cycles']:>12,} {bound:>11}")
    return "\n".join(lines) + "\n"


def document(rows: Rows, plain: int | None) -> str:
    """docs/performance.md."""
    parts, met = [], [0, 0]
    for row, r in rows:
        value = measured(row, r, plain)
        reached = [value is not None and row.met(value, goal) for goal in (row.bar, row.stretch)]
        met = [m + ok for m, ok in zip(met, reached, strict=True)]
        if value is not None and not all(reached):
            parts.append(binds(row, r, value, plain))
    missing = [f"- {row.title} {dict(row.dims)}: {r.get('missing', 'not measured')}" for row, r in rows if "cycles" not in r]
    return f"""{NOTE}
# Performance

`make bench` on `base`: {len(rows)} rows, {met[0]} at their bar, {met[1]} at their stretch. The figures are those of
`rvgpu run --json`; launch, fill and drain are in them.

```
{table(rows, plain)}```

*peak* is required multiply-adds (elements that a mask of indices removes are left out) over cycles times the matrix unit's rate; *rounded peak* the
same with M and N rounded up to 16 and K to 2; *DRAM* is compulsory bytes over cycles times DRAM's bandwidth; *over plain* is the cycles beyond those
of the GEMM without epilogue.

## What binds

One section per row below its bar or stretch, from the run's own statistics. A goal allows so many cycles; each resource was busy for so many of them
(the mean of the cores). Above 100 % the goal is out of reach with these instructions, whatever their order; below, what is left are the waits. The
slots are issue slots: one vector (with matrix and vector memory) and one scalar instruction a cycle. *Fill* is the time from a core's first
instruction until its first multiply starts, *uneven* the time from a core's last instruction to the last of all (means of the cores), *drain*
what DRAM still writes after that. Waits are shares of core-cycles.

{chr(10).join(parts)}
{"## Not measured" if missing else ""}

{chr(10).join(missing)}
""".rstrip() + "\n"


def binds(row: Row, r: Facts, value: float, plain: int | None) -> str:
    """The section of a row."""
    cycles = r["cycles"]
    allowed = [plain * (1 + goal) if row.metric == OVER and plain else cycles * value / goal for goal in (row.bar, row.stretch)]
    dims = " ".join(f"{k}={v}" for k, v in row.dims.items())
    lines = [f"### {row.title}, {dims}: {value:.3f} of {row.metric}" if row.metric != OVER else f"### {row.title}, {dims}: {value:+.1%} cycles", "",
             f"{cycles:,} cycles; the bar allows {allowed[0]:,.0f}, the stretch {allowed[1]:,.0f}.", "",
             "| resource | busy cycles | of the run | of the bar's cycles | of the stretch's |", "| --- | --- | --- | --- | --- |"]
    used = sorted(r["used"].items(), key=lambda kv: -kv[1])
    lines += [f"| {n} | {u:,} | {u / cycles:.0%} | {u / allowed[0]:.0%} | {u / allowed[1]:.0%} |" for n, u in used if u * 20 >= cycles]
    lines += ["", verdict(row, r, used, value, allowed), ""]
    return "\n".join(lines)


def verdict(row: Row, r: Facts, used: list[tuple[str, int]], value: float, allowed: list[float]) -> str:
    """What stands in the way, in one paragraph."""
    cycles, ends = r["cycles"], r["ends"]
    goal = allowed[1] if row.met(value, row.bar) else allowed[0]
    called = "stretch" if goal == allowed[1] else "bar"
    over = [f"{n} ({u:,} cycles)" for n, u in used if u > goal]
    fixed = sum(ends.values())
    apart = fixed - (ends.get("fill", 0) + ends["drain"] if used[0][0] in ("DRAM", "DMA") else 0)  # when the busiest resource has nothing to do
    busiest = used[0]
    text = [f"Out of the {called}'s reach with these instructions: {', '.join(over)}." if over else
            f"No resource is in the way of the {called}: the busiest is {busiest[0]}, {busiest[1] / goal:.0%} of its cycles"
            + (f"; with both ends {(busiest[1] + apart) / goal:.0%}." if apart * 50 > goal else ".")]
    known = [f"{label} {ends[n]:,}" for label, n in (("launch and dispatch", "launches"), ("fill", "fill"), ("uneven", "uneven"), ("drain", "drain"))
             if n in ends]
    text.append(f"Ends: {', '.join(known)} cycles ({fixed / cycles:.1%} of the run).")
    if r["macs"] > r["macs_min"] * 1.005 and r["macs_min"]:
        text.append(f"Executed multiply-adds are {r['macs'] / r['macs_min']:.2f} times the required ones.")
    if r["dram_bytes"] > r["dram_bytes_min"] * 1.02:
        text.append(f"DRAM moved {r['dram_bytes'] / r['dram_bytes_min']:.2f} times the compulsory bytes.")
    waits = sorted(((v, k) for k, v in r["stalls"].items() if k != "issued" and v >= 0.02), reverse=True)
    text.append("Waits: " + (", ".join(f"{k} {v:.0%}" for v, k in waits) or "none above 2 %") + ".")
    return " ".join(text)
