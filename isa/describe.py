"""Rows as text for people: the table of `rvgpu isa` and the page of one instruction, with the meaning's own source."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from rvgpu.errors import EXIT_USAGE, RvgpuError, did_you_mean
from rvgpu.isa import meaning
from rvgpu.isa.rows import BY_NAME, FORMATS, ROWS, Row


def table(rows: Iterable[Row] = ROWS) -> str:
    """One line per instruction: name, operands, timing class, fixed bits."""
    return "".join(f"{r.name:16} {', '.join(FORMATS[r.fmt]):22} {r.cls:9} {pattern(r)}\n" for r in rows)


def pattern(r: Row) -> str:
    """The 32 bits, `-` where an operand is."""
    bits = "".join(str(r.match >> n & 1) if r.mask >> n & 1 else "-" for n in range(31, -1, -1))
    return " ".join((bits[:7], bits[7:12], bits[12:17], bits[17:20], bits[20:25], bits[25:]))


def describe_row(name: str) -> str:
    """E003 when there is no such instruction."""
    if name not in BY_NAME:
        near = did_you_mean(name, BY_NAME)
        error = RvgpuError("E003", f"no instruction is called {name}", exit_code=EXIT_USAGE)
        raise error.hint(f"did you mean {near}?") if near else error
    r = BY_NAME[name]
    lines = [f"{r.name} {', '.join(FORMATS[r.fmt])}", f"  bits    {pattern(r)}", f"  match   {r.match:#010x}  mask {r.mask:#010x}",
             f"  timing  class {r.cls}", f"  handler {r.kind}" + (f" of {r.op}" if r.op else "")]
    fn = getattr(meaning, r.op, None) if r.op else None
    if fn is not None and inspect.isfunction(fn):
        lines += ["", *("    " + line for line in inspect.getsource(fn).rstrip().splitlines())]
    return "\n".join(lines) + "\n"
