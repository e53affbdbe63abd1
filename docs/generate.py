"""Writes docs/timing.md, docs/isa.md, the sessions of docs/checked.md and README.md from the code: `make docs`; a test says they are current."""

from __future__ import annotations

import inspect
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from benchmarks.micro import MICROS  # noqa: E402

from rvgpu.isa.classes import COUNTS, VECTOR, resolve  # noqa: E402
from rvgpu.isa.describe import groups_of, pattern  # noqa: E402
from rvgpu.isa.gloss import gloss  # noqa: E402
from rvgpu.isa.machine import load_machine, machine_names  # noqa: E402
from rvgpu.isa.rows import FORMATS, ROWS  # noqa: E402
from rvgpu.sim import control, issue, memory, occupancy, plan, rounds, scoreboard  # noqa: E402
from rvgpu.sim.program import CLASSES, latency  # noqa: E402

NOTE = "<!-- written by docs/generate.py (`make docs`): do not edit -->\n"
COSTS = {getattr(plan, n): n.removeprefix("COST_").lower() for n in dir(plan) if n.startswith("COST_")}
UNITS = {plan.U_NONE: "-", plan.U_VALU: "vector", plan.U_EXP: "exp", plan.U_LSU: "vector memory",
         plan.U_MATRIX: "matrix", plan.U_TILE: "tile port"}


def doc(fn: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(fn) or "").split())


def table(head: list[str], rows: list[list[object]]) -> str:
    return "\n".join(["| " + " | ".join(map(str, r)) + " |" for r in [head, ["---"] * len(head), *rows]])


def number(x: float) -> str:
    return f"{x:g}"


def timing() -> str:
    base = load_machine("base")
    rules = [("Issue", issue.step), ("Operands", scoreboard.operands), ("Units", plan.unit_cost), ("Vector classes", occupancy.class_cycles),
             ("Results", scoreboard.retire), ("Loads and stores", scoreboard.memory_time), ("Data of loads", scoreboard.moved),
             ("L1", memory.l1_load),
             ("Stores", memory.l1_store), ("L2", memory.l2_line), ("Past L2", memory.l2_through), ("Shared queues", memory.take),
             ("DMA", control.dma_go), ("DMA lines", control.dma_row), ("Waiting for DMA", control.dma_wait),
             ("Barriers", control.barrier), ("Cores", rounds.run), ("End of a run", rounds.drain), ("Where the cycles went", scoreboard.blame)]
    classes = [[n, UNITS[t.unit], COSTS[t.cost], latency(base, t), "yes" if t.chain else "no", t.cause] for n, t in CLASSES.items()]
    vector = [[f"`{n}`", c.what, COUNTS[c.counts] + (", longest" if c.longest else ""), c.like,
               *(number(x) for x in resolve(n, getattr(base.classes, n), base))] for n, c in VECTOR.items()]
    micros = [[m.rule, m.name, m.predicted, m.why] for m in MICROS]
    return f"""{NOTE}
# Timing rules

The text of each rule is the docstring of the function that implements it; the models are restricted Python, run compiled by the engine and by
CPython in the tests. Timing never changes results: all effects happen at issue, caches hold tags only. Cycles count from the start of the first
launch ({base.gpu.launch_cycles} cycles on `base`, then {base.gpu.cta_dispatch_cycles} to dispatch a CTA) until the last dirty line is in DRAM.

{chr(10).join(f"- **{name}** (`{fn.__module__.rpartition('.')[2]}.{fn.__name__}`). {doc(fn)}" for name, fn in rules)}
- **Rounds** (`sim/rounds.py`). {" ".join((rounds.__doc__ or "").split())}

## Classes

Latencies are `base`'s, from `isa/machines/base.toml`, where each number cites its source or says that it is an assumption of the design.

{table(["class", "unit", "occupancy", "latency", "chains", "waiting for its result counts as"], classes)}

## Vector classes

What each of the {len(VECTOR)} vector classes holds, in what its time is counted, and `base`'s parameters: start-up, per register, per element,
factor per SEW doubling. A machine that gives nothing for a class has what it gives for the class that it is *like*, else what follows from its
DLEN and latencies (`isa/classes.py`). Machines fitted to measurements: docs/accuracy.md.

{table(["class", "instructions", "counts", "like", "start-up", "per register", "per element", "factor"], vector)}

## What is not modelled

An instruction cache, branch prediction, DRAM banks and rows, bank conflicts of unit-stride scratchpad accesses, and the limits of 1,024 lines in
flight in the DMA, L2 and DRAM (`dma.lines`, `l2.misses` and `dram.queue_lines` describe the machine; no rule uses them yet). A DMA
transfer's lines are placed in the shared queues when it starts; cores run in turns of at most {rounds.QUANTUM} cycles, and
requests that come out of order of time take the room that is left in their window.

## Micro-benchmarks

Predicted by hand, measured by `python benchmarks/micro.py`, asserted exactly by `tests/test_timing.py`; on `base` with one core and one warp
unless the rule is about more.

{table(["rule", "program", "cycles", "by hand"], micros)}
"""


def isa() -> str:
    rows = [[f"`{r.name}`", ", ".join(FORMATS[r.fmt]), r.cls, f"`{pattern(r)}`", f"`{gloss(r)}`".replace("|", "\\|"), groups_of(r)] for r in ROWS]
    return f"""{NOTE}
# Instructions

{len(ROWS)} rows of `isa/rows.py`. `rvgpu isa NAME` prints one with its meaning. `-` is an operand bit; operand fields stand in assembly order.

{table(["instruction", "operands", "class", "bits", "what it does", "vector operands"], rows)}
"""


def machines() -> str:
    rows = []
    for name in machine_names():
        m = load_machine(name)
        rows.append([f"`{name}`", m.gpu.cores, m.core.warps, m.vector.vlen, m.vector.dlen, m.matrix.te, f"{m.peak_macs_per_cycle('bf16'):.0f}",
                     m.scratchpad.size_bytes // 1024, m.dram.bytes_per_cycle])
    return table(["machine", "cores", "warps", "VLEN", "DLEN", "TE", "bf16 MAC/cycle", "scratchpad KiB", "DRAM B/cycle"], rows)


CHECKED = ["rvgpu compile examples/zoo.rvg --kernel gemm -D M=64 -D N=64 -D K=64 --emit tile -o gemm.tile", "sed -i '/bar()/d' gemm.tile",
           "rvgpu run gemm.tile -D M=64 -D N=64 -D K=64 --sanitize"]


def session(commands: list[str]) -> str:
    """What commands print, run one after the other in a folder of their own that has `examples`."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(DOCS.parent / "examples")
        out = ""
        for command in commands:
            words = shlex.split(command)
            run = [sys.executable, "-m", "rvgpu", *words[1:]] if words[0] == "rvgpu" else words
            p = subprocess.run(run, cwd=folder, capture_output=True, text=True)
            out += f"$ {command}\n{p.stdout}{p.stderr}"
    return out


def checked() -> str:
    """docs/checked.md: its text, with what the example's commands print now and the table of the rules."""
    path = DOCS / "checked.md"
    before, mark, rest = path.read_text().partition("<!-- session: written by `make docs` -->\n```\n")
    assert mark, "docs/checked.md has the place for the session"
    return f"{before}{mark}{session(CHECKED)}```{rest.partition('```')[2]}"


def readme() -> str:
    """README.md with what `make demo` prints now."""
    said = subprocess.run([sys.executable, "examples/demo.py"], cwd=DOCS.parent, capture_output=True, text=True, check=True).stdout
    before, mark, rest = (DOCS.parent / "README.md").read_text().partition("<!-- demo: written by `make docs` -->\n```\n")
    assert mark, "README.md has the place for the demo's output"
    return f"{before}{mark}{said}```{rest.partition('```')[2]}"


DOCUMENTS: dict[str, Callable[[], str]] = {"timing.md": timing, "isa.md": isa, "checked.md": checked, "../README.md": readme}


def main() -> None:
    for name, make in DOCUMENTS.items():
        (DOCS / name).write_text(make())


if __name__ == "__main__":
    main()
