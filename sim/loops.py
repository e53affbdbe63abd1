"""The loops of a table of measured throughputs, run on the simulator.

A row is `machine,instruction,vtype,vl,cycles_per_instruction`. The measurement (camel-cdr/rvv-bench, instructions/rvv) repeats an instruction eight
times with its registers moved on by their group, unrolled eight times, in a counted loop between two reads of the cycle counter: t0, ft0, v8, v16 and
v24 become t1.., v9.. with LMUL 1, every second with LMUL 2, v8 and v12 in turns with LMUL 4, and stay with LMUL 8, where each instruction writes the
registers of the one before. Widening and narrowing instructions move on by their wide groups, mask instructions by two.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rvgpu.errors import EXIT_USAGE, RvgpuError
from rvgpu.isa.asm import assemble
from rvgpu.isa.classes import VECTOR, WIDE
from rvgpu.isa.machine import Machine
from rvgpu.isa.rows import BY_NAME
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE, Image, write_executable
from rvgpu.sim.engine import SEWS, Engine, legal
from rvgpu.sim.occupancy import ONE, STRIDE, class_table, elements, register_bits
from rvgpu.sim.reference import Reference
from rvgpu.sim.state import ANY_SHAPE, Plan

FIELDS = ("machine", "instruction", "vtype", "vl", "cycles_per_instruction")
UNROLL, PASSES = 8, 2
BUFFER = 1 << 16
SCALARS = ("t0", "t1", "t2", "t3", "t4", "t5", "t6", "a6")
MASKS = ("vmask", "vmove_x")  # whose instructions the measurement moves on by two registers, but for vmv.x.s


@dataclass(frozen=True)
class Measured:
    """A row of the table: the instruction's text, SEW, LMUL in eighths, and cycles per instruction."""

    text: str
    sew: int
    lmul8: int
    cycles: float

    @property
    def name(self) -> str:
        return self.text.split()[0]

    @property
    def vtype(self) -> str:
        return f"e{self.sew}" + (f"m{self.lmul8 >> 3}" if self.lmul8 >= 8 else f"mf{8 // self.lmul8}")

    @property
    def cls(self) -> str:
        return BY_NAME[self.name].cls

    def unknown(self) -> str:
        """Why the simulator cannot run it, or nothing."""
        row = BY_NAME.get(self.name)
        if row is None or row.cls not in VECTOR:
            return "no such vector instruction here"
        return "" if legal(row, SEWS.index(self.sew)) else "no such element width here"


def read_table(path: str, machine: str) -> list[Measured]:
    """The machine's rows. E001 when the file cannot be read, E520 for what is not such a table, with the line."""
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise RvgpuError("E001", f"cannot read {path}: {why}", exit_code=EXIT_USAGE) from None
    table = list(csv.reader(lines))
    if not table or not set(FIELDS) <= set(table[0]):
        raise RvgpuError("E520", f"{path} is no table of throughputs: its first line names {', '.join(table[0]) if table else 'nothing'}",
                         exit_code=EXIT_USAGE).hint(f"needed: {', '.join(FIELDS)}")
    out = []
    for n, cells in enumerate(table[1:], 2):
        row = dict(zip(table[0], cells, strict=False))
        if row.get("machine") != machine or row.get("vl", "VLMAX") != "VLMAX":
            continue
        m = re.fullmatch(r"e(8|16|32|64)(mf?)([1248])", row.get("vtype", ""))
        cycles = row.get("cycles_per_instruction", "")
        if not m or not re.fullmatch(r"\d+(\.\d+)?", cycles) or float(cycles) <= 0 or not row["instruction"].split():
            raise RvgpuError("E520", f"{path}:{n}: an instruction, a vtype such as e32m4 and cycles needed, found {','.join(cells)}",
                             exit_code=EXIT_USAGE)
        text = re.sub(r"/\*.*?\*/", "", row["instruction"])
        out.append(Measured(text, int(m[1]), 8 * int(m[3]) if m[2] == "m" else 8 // int(m[3]), float(cycles)))
    if not out:
        raise RvgpuError("E521", f"{path} has no rows of a machine {machine}", exit_code=EXIT_USAGE).hint(
            f"it has: {', '.join(sorted({r[table[0].index('machine')] for r in table[1:] if r}))}")
    return out


def instances(row: Measured) -> list[str]:
    """The eight instructions of the loop."""
    emul = max(1, row.lmul8 >> 3)
    cls = VECTOR[row.cls]
    if cls.counts == WIDE:
        emul = min(8, 2 * emul) if row.lmul8 >= 8 else 1
    if row.cls in MASKS and row.name != "vmv.x.s":
        emul = 2
    out = []
    for k in range(8):
        step = k * emul % 8


        name, _, operands = row.text.partition(" ")
        out.append(f"{name} " + re.sub(r"(?<![\w(])(t)(0)\b|\b(?:ft0|v8|v16|v24)\b", partial(_moved, step), operands))
    return out


def _moved(step: int, m: re.Match[str]) -> str:
    if m[1]:
        return SCALARS[step]
    kind = m[0].rstrip("0123456789")
    return f"{kind}{int(m[0][len(kind):]) + step}"


def kernel(name: str, row: Measured) -> str:
    """Arguments: the buffer (t0), its middle (t2) and where the cycles go. The counter is read twice at the same place of the loop's body, with
    PASSES times its instructions between, so that what waits in queues is the same at both."""
    lmul = row.vtype.partition("m")[2]
    body = "\n".join(instances(row) * UNROLL)
    return f"""{name}:
ld t0, 0(a0)
ld t2, 8(a0)
ld s5, 16(a0)
li t1, -1
li t3, {row.sew // 8 * 3}
vsetvli a5, zero, e{row.sew}, m{lmul}, ta, ma
{body}
csrrs s3, 0xc00, zero
li s2, {PASSES}
{name}_loop:
{body}
addi s2, s2, -1
bnez s2, {name}_loop
csrrs s4, 0xc00, zero
sub s4, s4, s3
sd s4, 0(s5)
ret
"""


class Loops:
    """The loops of `rows` on one device. `measure` runs one; the classes' parameters may change between runs."""

    def __init__(self, machine: Machine, rows: Sequence[Measured], engine: Engine | Reference | None = None) -> None:
        self.rows = list(rows)
        texts = [kernel(f"k{n}", r) for n, r in enumerate(self.rows)]
        code, symbols = b"", {}
        for n, text in enumerate(texts):
            symbols[f"k{n}"] = BASE + len(code)
            code += assemble(text, BASE + len(code))
        self.device = Device(machine, memory_bytes=1 << 30, engine=engine)
        self.program = self.device.load(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), symbols)))
        self.buffer, self.result = self.device.alloc(BUFFER, "buffer"), self.device.alloc(8, "result")
        plans: Any = self.program.plans
        self.shapes = np.frombuffer(plans, np.dtype(Plan))["shape"]
        self.places = [next(i for i in range((symbols[f"k{n}"] - BASE) // 2, len(self.program.records))
                            if self.program.records[i].vector and not self.program.records[i].config) for n in range(len(self.rows))]
        self.known: dict[tuple[int, int], float] = {}

    def run(self, n: int) -> float:
        """Cycles per instruction of loop n under the device's present parameters."""
        self.shapes[self.shapes != ANY_SHAPE] = 0  # plans keep cycles
        self.device.launch(self.program, f"k{n}", [self.buffer, self.buffer + BUFFER // 2, self.result], ctas=1)
        return int.from_bytes(self.device.read(self.result, 8), "little") / (8 * UNROLL * PASSES)

    def machine(self, machine: Machine) -> None:
        """Takes the classes' parameters of a machine that is otherwise the same."""
        self.device.gpu.classes[:] = list(class_table(machine))

    def at(self, n: int, cycles: int) -> float:
        """Cycles per instruction of loop n if its instruction occupied its unit for `cycles`."""
        key = n, cycles
        if key not in self.known:
            table = self.device.gpu.classes
            at = self.program.records[self.places[n]].cls * STRIDE
            kept = table[at:at + STRIDE]
            table[at:at + STRIDE] = [cycles * ONE] * 4 + [0] * 5
            self.known[key] = self.run(n)
            table[at:at + STRIDE] = kept
        return self.known[key]

    def counts(self, n: int) -> tuple[int, float]:
        """Elements and full-width register passes (register bits / DLEN) of the instruction of loop n."""
        r, g, row = self.program.records[self.places[n]], self.device.gpu, self.rows[n]
        w = self.device.warps[0]
        w.sew, w.lmul8 = SEWS.index(row.sew), row.lmul8
        w.vl = g.vlenb * row.lmul8 // row.sew
        return elements(w, r), register_bits(w, r, g) / g.dlen
