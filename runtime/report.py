"""A run as one HTML file: what it took, its place under the roofline, where the warps' time went by core, warp, source line and instruction, and
what the units did over time. No scripts, nothing from the network. All of it is sums over the run's trace (sim/trace.py) and its statistics
(docs/json.md)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rvgpu.isa.machine import Machine
from rvgpu.runtime.svg import GROUPS, box, drawing, legend, line, stack, text
from rvgpu.sim.control import UNIT_DMA
from rvgpu.sim.hot import Hot, hottest, waits_by
from rvgpu.sim.state import CAUSES
from rvgpu.sim.trace import UNIT, UNIT_NAMES, Numbers, Trace

WIDTH = 940
BINS = 220  # of the timeline
HOTTEST = 25  # lines and instructions in the tables
BUSY, WAITED = GROUPS[0][2], GROUPS[4][2]
STYLE = """body{font:14px/1.45 Helvetica,Arial,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2.2rem}svg{width:100%;height:auto}table{border-collapse:collapse;width:100%}
td,th{padding:.1rem .6rem .1rem 0;text-align:left;vertical-align:top;font-weight:normal}th{color:#666;white-space:nowrap;border-bottom:1px solid #ccc}
.n{text-align:right;font-variant-numeric:tabular-nums}code,pre,.code{font:12px/1.4 ui-monospace,Menlo,Consolas,monospace}.code td{white-space:pre}
p.dim,td.dim{color:#666}tr.line td{padding-top:.5rem;color:#2a6f97}"""


def html(stats: Mapping[str, Any], machine: Machine, trace: Trace, source: str = "") -> str:
    """The page. `source` is the path of the kernel's file: its lines stand beside what they became."""
    rows = hottest(trace, len(trace.events))
    name = stats.get("kernel") or stats["program"]
    lines = _source_lines(source)
    parts = [_summary(stats, trace)]
    if "roofline" in stats:
        parts.append(_section("Roofline", roofline(stats, machine), "Multiply-adds a cycle that the run reached, over required multiply-adds for "
                              "each byte that has to cross DRAM. The slope is DRAM's bandwidth."))
    parts += [_section("Where the warps' time went", warps(trace, stats["cycles"], machine), "From the run's first cycle to its last: what a warp "
                       "issued, what its next instruction waited for, and when it had none."),
              _section("Units over time", timeline(trace, stats["cycles"]), "Darker: busy for more of the time (mean of the cores). DMA: transfers "
                       "on the way, darkest where most are.")]
    if any(r.line for r in rows):
        parts.append(_section("Source lines", by_line(rows, lines), "All instructions that a line became, largest first."))
    parts += [_section("Instructions", instructions(rows[:HOTTEST]), "The largest first. Cycles of each execution: until it issued, and its unit."),
              f"<details><summary>All {len(rows)} instructions that ran, by address</summary>{listing(rows, lines)}</details>"]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)} on {escape(stats["machine"])}</title>'
            f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n")


def _source_lines(path: str) -> dict[str, str]:
    """"file:line" to the line's text; nothing where the file cannot be read again."""
    try:
        found = Path(path).read_text().splitlines() if path not in ("", "-") and not path.endswith(".elf") else []
    except (OSError, UnicodeDecodeError):
        found = []
    return {f"{Path(path).name}:{n}": t.strip() for n, t in enumerate(found, 1)}


def _section(title: str, body: str, said: str) -> str:
    return f'<h2>{escape(title)}</h2>\n<p class="dim">{escape(said)}</p>\n{body}'


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int) -> str:
    """A table, its first columns `numbers`; cells are HTML."""
    out = ["<table><tr>" + "".join(f'<th{" class=n" if n < numbers else ""}>{h}</th>' for n, h in enumerate(head)) + "</tr>"]
    out += ["<tr>" + "".join(f'<td{" class=n" if n < numbers else ""}>{c}</td>' for n, c in enumerate(r)) + "</tr>" for r in rows]
    return "\n".join(out) + "</table>"


def _summary(s: Mapping[str, Any], trace: Trace) -> str:
    dims = " ".join(f"{k}={v}" for k, v in s.get("dims", {}).items())
    facts = [("cycles", f"{s['cycles']:,} ({s['seconds'] * 1e6:,.1f} us)"), ("warp instructions", f"{s['instructions']:,}")]
    if "check" in s:
        c = s["check"]
        facts.append(("check", f"{'passed' if c['passed'] else 'FAILED'}: error {c['max_rel_error']:.2e} of the largest value, "
                      f"{c['bound_fraction']:.3f} of the bound"))
    if "roofline" in s:
        r = s["roofline"]
        facts.append(("roofline", f"{r['fraction']:.1%} of the {r['bound']} bound of {r['ideal_cycles']:,.0f} cycles"))
        facts += [("DRAM", f"{s['dram_bytes']:,} bytes moved, {s['dram_bytes_min']:,} required"),
                  ("launches", ", ".join(f"{x['name']} {x['cycles']:,}" for x in s["launches"]))]
    facts.append(("busy", "  ".join(f"{k} {v:.1%}" for k, v in s["utilisation"].items())))
    if trace.dropped:
        facts.append(("note", f"below, the first {len(trace.events):,} of {len(trace.events) + trace.dropped:,} events"))
    table = "\n".join(f"<tr><td class=dim>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in facts)
    return f"<h1>{escape(s.get('kernel') or s['program'])} on {escape(s['machine'])}</h1>\n<p>{escape(dims)}</p>\n<table>{table}</table>"


# -- pictures

def roofline(s: Mapping[str, Any], m: Machine) -> str:
    """Logarithmic both ways; nothing to place for a kernel without multiply-adds."""
    if not s["macs_min"] or not s["dram_bytes_min"]:
        return "<p>The kernel has no multiply-adds: DRAM's bandwidth is its only roof.</p>"
    reached, at = s["macs_min"] / s["cycles"], s["macs_min"] / s["dram_bytes_min"]
    by_unit = reached / (s["roofline"]["of_matrix_peak"] or s["roofline"]["of_vector_peak"])
    roofs = [("matrix peak" if m.has_matrix else "vector peak", by_unit)]
    if m.has_matrix:
        roofs.append(("vector peak", float(m.vector_macs_per_cycle())))
    left, top, width, height = 60, 12, WIDTH - 80, 240
    bandwidth, peak = m.dram.bytes_per_cycle, max(v for _, v in roofs)
    low_x, high_x = math.floor(math.log2(min(at, peak / bandwidth)) - 2), math.ceil(math.log2(max(at, peak / bandwidth)) + 2)
    low_y, high_y = math.floor(math.log2(min(reached, *(v for _, v in roofs))) - 1), math.ceil(math.log2(peak) + 1)

    def x(v: float) -> float:
        return left + (math.log2(v) - low_x) / (high_x - low_x) * width

    def y(v: float) -> float:
        return top + height - (math.log2(v) - low_y) / (high_y - low_y) * height

    parts = [line(left, top + height, left + width, top + height), line(left, top, left, top + height)]
    for n in range(low_x, high_x + 1, max(1, (high_x - low_x) // 8)):
        parts.append(text(x(2.0 ** n), top + height + 14, f"{2.0 ** n:g}", "middle"))
    for n in range(low_y, high_y + 1, max(1, (high_y - low_y) // 6)):
        parts.append(text(left - 6, y(2.0 ** n) + 4, f"{2 ** n:,}" if n >= 0 else f"{2.0 ** n:g}", "end"))
    for label, v in roofs:
        begin = max(v / bandwidth, 2.0 ** low_x)
        parts += [line(x(begin), y(v), left + width, y(v)), text(left + width, y(v) - 4, f"{label} {v:,.0f}", "end")]
    foot = max(2.0 ** low_x, 2.0 ** low_y / bandwidth)
    parts.append(line(x(foot), y(foot * bandwidth), x(peak / bandwidth), y(peak)))
    roof = min(by_unit, at * bandwidth)
    parts += [line(x(at), y(roof), x(at), y(reached), WAITED, dashed=True),
              f'<circle cx="{x(at):.1f}" cy="{y(reached):.1f}" r="5" fill="{BUSY}"/>',
              text(x(at) + 9, y(reached) + 4, f"{reached:,.0f} a cycle, {reached / roof:.1%} of its roof")]
    parts.append(text(left + width, top + height + 30, "required multiply-adds for each byte", "end"))
    return drawing(WIDTH, top + height + 38, parts)


def shares(trace: Trace) -> dict[tuple[int, int], dict[str, int]]:
    """Cycles by cause of each (core, warp), `issued` among them, from its first instruction to its last."""
    events, at, who, waits = waits_by(trace, lambda events: events[:, 1] * 1000 + events[:, 2])
    issue = events[:, 5]
    count = np.bincount(at, np.append(np.diff(issue) != 0, True) | np.append(np.diff(at) != 0, True), len(who))  # (two of a cycle: one)
    return {(int(w) // 1000, int(w) % 1000): {**{c: int(n) for c, n in zip(CAUSES, waits[k], strict=True)}, "issued": int(count[k])}
            for k, w in enumerate(who)}


def warps(trace: Trace, cycles: int, m: Machine) -> str:
    """A bar for each core, and behind a click one for each warp."""
    found = shares(trace)

    def picture(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
        parts = legend(80, 4, 130, 6)
        for n, (label, part) in enumerate(rows):
            parts += [text(74, 36 + n * 16, label, "end"), *stack(80, 27 + n * 16, WIDTH - 90, 11, part)]
        return drawing(WIDTH, 32 + len(rows) * 16, parts)

    def part(of: Sequence[tuple[int, int]], all_of_it: int) -> dict[str, float]:
        sums = {c: sum(found[k].get(c, 0) for k in of) / all_of_it for c in (*CAUSES, "issued")}
        return sums | {"idle": sums["idle"] + max(0.0, 1 - sum(sums.values()))}

    cores = sorted({c for c, _ in found})
    each = [(f"core {c}", part([k for k in found if k[0] == c], cycles * m.core.warps)) for c in cores]
    single = [(f"{c}, warp {w}", part([(c, w)], cycles)) for c, w in sorted(found)]
    return picture(each) + f"<details><summary>warp by warp</summary>{picture(single)}</details>"


def covered(start: Numbers, end: Numbers, edges: Any) -> Any:
    """Cycles of all intervals inside each bin."""
    def until(times: Numbers) -> Any:
        times = np.sort(times)
        before = np.searchsorted(times, edges)
        return before * edges - np.concatenate([[0], np.cumsum(times)])[before]

    return np.diff(until(start) - until(end))


def timeline(trace: Trace, cycles: int) -> str:
    """Strips of the units' use, means of the cores that ran."""
    events = trace.events
    edges = np.linspace(0, cycles, BINS + 1)
    cores = max(1, len(np.unique(events[:, 1])))
    strips = []
    for unit, label in [*UNIT_NAMES.items(), (UNIT_DMA, "DMA")]:
        of = events[events[:, UNIT] == unit]
        if len(of):
            used = covered(of[:, 7], of[:, 8], edges) / (edges[1] - edges[0]) / cores
            strips.append((label, used, max(1.0, float(used.max()))))
    left, height = 124, 18
    parts = []
    for n, (label, used, most) in enumerate(strips):
        parts.append(text(left - 6, 18 + n * (height + 4), f"{label} {used.mean() / most:.0%}" if most == 1 else label, "end"))
        for k, v in enumerate(used):
            if v / most >= 0.004:
                wide = (WIDTH - left - 10) / BINS
                parts.append(box(left + k * wide, 5 + n * (height + 4), wide + 0.1, height, BUSY, opacity=min(0.999, float(v) / most)))
    bottom = 5 + len(strips) * (height + 4)
    for n in range(5):
        parts.append(text(left + n * (WIDTH - left - 10) / 4, bottom + 14, f"{cycles * n / 4:,.0f}", ("start", *["middle"] * 3, "end")[n]))
    return drawing(WIDTH, bottom + 20, parts)


# -- tables

def _waits(waits: Mapping[str, int], count: int, most: int = 3) -> str:
    return " ".join(f"{c} {v / count:.1f}" for c, v in list(waits.items())[:most] if v / count >= 0.05)


def by_line(rows: Sequence[Hot], lines: Mapping[str, str]) -> str:
    sums: dict[str, tuple[float, dict[str, int], int]] = {}
    for r in rows:
        share, waits, issued = sums.get(at := r.line.rpartition(":")[0] or r.line, (0.0, {}, 0))
        for c, v in r.waits.items():
            waits[c] = waits.get(c, 0) + v
        sums[at] = share + r.share, waits, issued + r.count
    out = []
    for at, (share, waits, issued) in sorted(sums.items(), key=lambda kv: -kv[1][0])[:HOTTEST]:
        time = issued + sum(waits.values())
        parts = {"issued": issued / time} | {c: v / time for c, v in waits.items()}
        out.append((f"{share:.1%}", f"{issued:,}", f'<svg viewBox="0 0 160 11" style="width:160px">{"".join(stack(0, 0, 160, 11, parts))}</svg>',
                    escape(at or "no line"), f"<code>{escape(lines.get(at, ''))}</code>"))
    return _rows(("of the time", "executed", "", "line", ""), out, 2)


def instructions(rows: Sequence[Hot]) -> str:
    return _rows(("of the time", "executed", "waited", "unit", "instruction", "waited for", "line"),
                 [(f"{r.share:.1%}", f"{r.count:,}", f"{sum(r.waits.values()) / r.count:.1f}", f"{r.busy / r.count:.1f}",
                   f"<code>{r.pc:x}: {escape(r.text)}</code>", escape(_waits(r.waits, r.count)), escape(r.line)) for r in rows], 4)


def listing(rows: Sequence[Hot], lines: Mapping[str, str]) -> str:
    """In order of addresses, each source line above what it became; darker where more of the time went."""
    hottest_share = max((r.share for r in rows), default=0.0) or 1.0
    out, shown = ['<table class="code"><tr><th class=n>of the time</th><th class=n>executed</th><th>instruction</th><th>waited for</th></tr>'], None
    for r in sorted(rows, key=lambda r: r.pc):
        at = r.line.rpartition(":")[0] or r.line
        if at != shown and at:
            out.append(f'<tr class="line"><td colspan="4">{escape(at)}  {escape(lines.get(at, ""))}</td></tr>')
            shown = at
        heat = f' style="background:rgba(188,75,81,{0.6 * r.share / hottest_share:.2f})"' if r.share > 0.02 * hottest_share else ""
        out.append(f"<tr><td class=n{heat}>{r.share:.2%}</td><td class=n>{r.count:,}</td><td>{r.pc:x}: {escape(r.text)}</td>"
                   f"<td class=dim>{escape(_waits(r.waits, r.count))}</td></tr>")
    return "\n".join(out) + "</table>"
