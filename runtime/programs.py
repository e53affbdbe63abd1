"""`rvgpu sim` of a bare-metal program: its console, its exit code, what the run cost.

The program's own output goes to stdout as it comes (with --json: to stderr, and the first MiB of it into the object), the report to stderr.
The exit status is the program's exit code, 255 where it does not fit in 0..255; errors of ours have their own (errors.py) and print no object.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from rvgpu.errors import EXIT_USAGE, RvgpuError
from rvgpu.isa.machine import Machine
from rvgpu.sim.board import Board
from rvgpu.sim.hot import hottest, table
from rvgpu.sim.trace import Trace

CONSOLE_MOST = 1 << 20  # bytes of console output in the object


class Console:
    """Hands output on at once: what is on screen is what the program has said so far."""

    def __init__(self, to: Any) -> None:
        self.to, self.kept, self.size = to, bytearray(), 0

    def __call__(self, text: bytes) -> None:
        self.size += len(text)
        self.kept += text[:CONSOLE_MOST - len(self.kept)]
        self.to.write(text)
        if b"\n" in text:
            self.to.flush()


def traced(args: argparse.Namespace) -> bool:
    """Whether the command asks for what only a trace tells."""
    return bool(args.trace or args.hot or args.report)


def hot_rows(trace: Trace | None, args: argparse.Namespace, stats: dict[str, Any]) -> str:
    """The lines that --hot adds to the report; its rows go into the object of --json."""
    if trace is None or not args.hot:
        return ""
    rows = hottest(trace, args.hot)
    stats["hot"] = [r.json() for r in rows]
    return "\n" + table(rows)


def write_traced(trace: Trace | None, args: argparse.Namespace, stats: dict[str, Any], machine: Machine, said: TextIO | None) -> None:
    """The files that --trace and --report ask for, and a line about each where `said` is."""
    if trace is None:
        return
    if trace.dropped:
        print(f"note: the trace holds the first {len(trace.events)} of {len(trace.events) + trace.dropped} events", file=sys.stderr)
    for path, label, how, write in ((args.trace, "trace", "open it at ui.perfetto.dev", trace.write),
                                    (args.report, "report", "open it in a browser", lambda to: _page(to, args, stats, machine, trace))):
        if not path:
            continue
        try:
            write(path)
        except OSError as e:
            raise RvgpuError("E001", f"cannot write {path}: {e.strerror}", exit_code=EXIT_USAGE) from None
        if said is not None:
            print(f"  {label:12} {path} ({how})", file=said)


def _page(path: str, args: argparse.Namespace, stats: dict[str, Any], machine: Machine, trace: Trace) -> None:
    from rvgpu.runtime.report import html

    Path(path).write_text(html(stats, machine, trace, args.file), "utf-8")


def run_program(args: argparse.Namespace, machine: Machine, data: bytes) -> int:
    """Runs the executable in `data`; returns the exit status."""
    given = [o for o, v in (("-D", args.dims), ("--arg", args.arg), ("--in", args.input), ("--out", args.out),
                               ("--sanitize", args.sanitize), ("--latency-seed", args.latency_seed is not None)) if v]
    if given:
        raise RvgpuError("E002", f"{given[0]} is for kernels: {args.file} is a program that starts at its entry", exit_code=EXIT_USAGE)
    console = Console(sys.stderr.buffer if args.json else sys.stdout.buffer)
    try:
        end, stats, trace = _run(args, machine, data, console, traced(args))
    finally:
        console.to.flush()
    hot = hot_rows(trace, args, stats)
    print(json.dumps(stats) if args.json else describe(stats) + hot, file=sys.stdout if args.json else sys.stderr)
    write_traced(trace, args, stats, machine, None if args.json else sys.stderr)
    return end if 0 <= end <= 255 else 255


def measure_program(args: argparse.Namespace, machine: Machine, data: bytes) -> dict[str, Any]:
    """What a run of the executable in `data` says about itself; its console is kept, not shown."""
    return _run(args, machine, data, Console(io.BytesIO()), False)[1]


def _run(args: argparse.Namespace, machine: Machine, data: bytes, console: Console, trace: bool) -> tuple[int, dict[str, Any], Trace | None]:
    """Exit code, statistics (docs/json.md), trace."""
    started = time.perf_counter()
    board = Board(machine, data, harts=1 if args.harts is None else args.harts, memory_bytes=args.memory, timing=args.timing != "none",
                  max_cycles=args.max_cycles, trace=trace, say=console)
    ready = time.perf_counter()
    end = board.run()
    done = time.perf_counter()
    raw = board.finish()
    return end.code, {
        "program": args.file, "machine": machine.name, "harts": board.harts, "exit_code": end.code, "timed": args.timing != "none",
        "cycles": raw.cycles, "seconds": raw.cycles / (machine.gpu.clock_ghz * 1e9), "instructions": raw.instructions,
        "ipc": raw.instructions / raw.cycles, "dram_bytes": raw.dram_bytes, "utilisation": raw.busy,
        "stalls": raw.stalls if args.timing != "none" else {},
        "console": console.kept.decode("utf-8", "replace"), "console_bytes": console.size,
        "host": {"engine_s": ready - started, "simulate_s": done - ready, "total_s": done - started,
                 "mips": raw.instructions / max(done - ready, 1e-9) / 1e6}}, board.trace


def describe(s: dict[str, Any]) -> str:
    """The text report."""
    lines = [f"{s['program']} on {s['machine']}  {s['harts']} hart{'s' if s['harts'] > 1 else ''}", f"  exit code    {s['exit_code']}"]
    if not s["timed"]:
        return "\n".join([*lines, f"  instructions {s['instructions']:,} (no timing)"])
    lines.append(f"  cycles       {s['cycles']:,} ({s['seconds'] * 1e6:.1f} us), {s['instructions']:,} instructions, {s['ipc']:.2f} per cycle")
    u = s["utilisation"]
    lines.append(f"  utilisation  matrix {u['matrix']:.1%}  vector {u['vector']:.1%}  issue {u['issue']:.1%}  dram {u['dram']:.1%}")
    stalls = sorted(((v, k) for k, v in s["stalls"].items() if v >= 0.0005), reverse=True)
    return "\n".join([*lines, "  core-cycles  " + "  ".join(f"{k} {v:.1%}" for v, k in stalls)])
