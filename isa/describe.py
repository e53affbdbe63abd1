"""Rows as text for people: the table of `rvgpu isa` and the page of one instruction, with the meaning's own source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from rvgpu.errors import EXIT_USAGE, RvgpuError, did_you_mean
from rvgpu.isa.gloss import gloss
from rvgpu.isa.meaning import meaning, saturation
from rvgpu.isa.operands import OVERLAPS, operands
from rvgpu.isa.rows import BY_NAME, FORMATS, ROWS, Row


def table(rows: Iterable[Row] = ROWS) -> str:
    """One line per instruction: name, operands, timing class, fixed bits."""
    return "".join(f"{r.name:16} {', '.join(FORMATS[r.fmt]):22} {r.cls:9} {pattern(r)}\n" for r in rows)


def pattern(r: Row) -> str:
    """The 32 bits, `-` where an operand is."""
    bits = "".join(str(r.match >> n & 1) if r.mask >> n & 1 else "-" for n in range(31, -1, -1))
    return " ".join((bits[:7], bits[7:12], bits[12:17], bits[17:20], bits[20:25], bits[25:]))


def describe_row(name: str, template: Callable[[Row], Callable[..., Any]] | None = None) -> str:
    """With its meaning's source, or its handler's (`template`) where the row has no element meaning. E003 when there is no such instruction."""
    if name not in BY_NAME:
        near = did_you_mean(name, BY_NAME)
        error = RvgpuError("E003", f"no instruction is called {name}", exit_code=EXIT_USAGE)
        raise error.hint(f"did you mean {near}?") if near else error
    r = BY_NAME[name]
    lines = [f"{r.name} {', '.join(FORMATS[r.fmt])}", f"  does    {gloss(r)}", f"  bits    {pattern(r)}",
             f"  match   {r.match:#010x}  mask {r.mask:#010x}",
             f"  timing  class {r.cls}", f"  handler {r.kind}" + (f" of {r.op}" if r.op else "")]
    if groups := groups_of(r):
        lines.append(f"  groups  {groups}")
    shown = [fn for fn in (meaning(r), saturation(r)) if fn is not None] or ([template(r)] if template else [])
    for fn in shown:
        lines += ["", *("    " + line for line in inspect.getsource(fn).rstrip().splitlines())]
    return "\n".join(lines) + "\n"


def groups_of(r: Row) -> str:
    """Its vector operands: element widths, and what the destination may overlap beyond, or not even within, the general rule."""
    o = operands(r)
    kinds = dict([*o.sources, *([o.dest] if o.dest else [])])
    parts = [f"{f} {o.text(kinds[f])}" for f in FORMATS[r.fmt] if f in kinds and f not in ("vm", "v0")]
    return ", ".join(parts) + (f"; vd {OVERLAPS[o.overlap]}" if o.dest and o.overlap else "")
