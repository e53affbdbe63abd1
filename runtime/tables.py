"""The tilings that ship with the compiler: tuned.toml, written by `make tune-tables` and read here.

An entry is for a kernel's math, a machine, and the dims of a call. It holds as long as the tiling still becomes the level K text that was
measured (P7 compares); the model chooses otherwise.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from rvgpu.ir.core import Func
from rvgpu.isa.machine import Machine
from rvgpu.passes.context import Choice
from rvgpu.passes.schedule import anonymous, digest
from rvgpu.runtime.tune import Tuned

TABLE = Path(__file__).with_name("tuned.toml")
HEAD = "# Written by `make tune-tables`; read by runtime/tables.py. Cycles are those of `model`, the pick without this table, and of this tiling.\n"


@dataclass(frozen=True)
class Entry:
    """One kernel of one call: `part` is its name without the function's."""

    kernel: str
    machine: str
    dims: Mapping[str, int]
    key: str
    part: str
    tiling: Mapping[str, int]
    code: str
    model_cycles: int
    cycles: int


def entry_key(math: str, machine: Machine, dims: Iterable[int]) -> str:
    """`math` is `anonymous` of the function; the machine counts without its name, the dims in the function's order."""
    return digest("\n".join([math, repr(msgspec.structs.replace(machine, name="")), *map(str, dims)]))


def entries_of(func: Func, machine: Machine, dims: Mapping[str, int], tuned: Iterable[Tuned]) -> list[Entry]:
    named = {n: dims[n] for n in func.dim_names()}
    at = entry_key(anonymous(func), machine, named.values())
    out = []
    for k in tuned:
        first, best = k.trials[0].cycles, k.trials[k.best]
        assert first is not None and best.cycles is not None
        out.append(Entry(func.name, machine.name, named, at, k.kernel.removeprefix(func.name), best.fields, best.code, first, best.cycles))
    return out


def write_table(entries: Iterable[Entry], path: Path = TABLE) -> None:
    def table(x: Mapping[str, int]) -> str:
        return "{ " + ", ".join(f"{n} = {v}" for n, v in x.items()) + " }"

    blocks = [f'''
[[tiling]]
kernel = "{e.kernel}"
machine = "{e.machine}"
dims = {table(e.dims)}
key = "{e.key}"
part = "{e.part}"
tiling = {table(e.tiling)}
code = "{e.code}"
model_cycles = {e.model_cycles}
cycles = {e.cycles}
''' for e in entries]
    path.write_text(HEAD + "".join(blocks))


@cache
def read_table(path: Path = TABLE) -> dict[str, list[Entry]]:
    """Entries by key; none where there is no table."""
    out: dict[str, list[Entry]] = {}
    if path.exists():
        for raw in tomllib.loads(path.read_text())["tiling"]:
            out.setdefault(raw["key"], []).append(Entry(**raw))
    return out


def shipped(name: str, math: str, machine: Machine, dims: Sequence[int]) -> dict[str, Choice]:
    """Choices for a call of the function `name` with these dims."""
    table = read_table()
    found = table.get(entry_key(math, machine, dims), []) if table else []
    return {name + e.part: Choice(e.tiling, e.code) for e in found}
