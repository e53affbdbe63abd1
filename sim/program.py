"""Predecoding: text bytes become records with everything that issue needs, from each instruction's row and its timing class."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rvgpu.isa.classes import INDEX, VECTOR
from rvgpu.isa.codec import Decoded, decode
from rvgpu.isa.machine import Machine
from rvgpu.isa.operands import ONE, TILE_OF_MM, operands
from rvgpu.isa.rows import FORMATS, Row
from rvgpu.sim import plan
from rvgpu.sim.occupancy import REDUCTIONS
from rvgpu.sim.state import CAUSE, FS_OFF, REC_BYTES, TILE, VS_OFF, Rec, aligned

NONE, V0 = 255, 64  # on the scoreboard


@dataclass(frozen=True)
class Timing:
    """unit, what occupies it, the latency field of the machine, the cause that waiting for its result counts as, and whether it chains."""

    unit: int
    cost: int
    latency: str
    cause: str
    chain: bool = True
    memory: int = plan.M_NONE


T = Timing
CLASSES = {
    "alu": T(plan.U_NONE, plan.COST_ONE, "alu", "unit"), "mul": T(plan.U_NONE, plan.COST_ONE, "mul", "unit"),
    "div": T(plan.U_NONE, plan.COST_ONE, "div", "unit"), "jump": T(plan.U_NONE, plan.COST_ONE, "alu", "unit"),
    "branch": T(plan.U_NONE, plan.COST_ONE, "alu", "unit"), "csr": T(plan.U_NONE, plan.COST_ONE, "alu", "unit"),
    "config": T(plan.U_NONE, plan.COST_ONE, "alu", "unit"), "fp": T(plan.U_NONE, plan.COST_ONE, "fp", "unit"),
    "fdiv": T(plan.U_NONE, plan.COST_ONE, "fdiv", "unit"),
    "load": T(plan.U_NONE, plan.COST_ONE, "alu", "data.l1", memory=plan.M_LOAD),
    "store": T(plan.U_NONE, plan.COST_ONE, "alu", "data.l1", memory=plan.M_STORE),
    "amo": T(plan.U_NONE, plan.COST_ONE, "alu", "data.l1"),
    **{c: T(plan.U_VALU, plan.COST_CLASS, latency, "data.vector", chain) for names, latency, chain in (
        ("vadd vint vcmp vmask vmove_s vnarrow vwide", "vector_int", True), ("vmul vwmul", "vector_mul", True),
        ("vfp vfw vcvt vwcvt vncvt vfest", "vector_fp", True), ("vdiv vfdiv vfdiv_f vfsqrt", "vector_div", True),
        ("vred vfred vfredm vfredo viota", "reduction", False), ("vslideup vslidedown vgather vgather_x vcompress", "permute", False),
        ("vmove_x", "vector_to_scalar", False), ("vmove_f", "vector_to_float", False)) for c in names.split()},
    "vexp": T(plan.U_EXP, plan.COST_EXP, "exp", "data.exp"),
    **{c: T(plan.U_LSU, plan.COST_CLASS, "alu", "data.l1", memory=plan.M_VLOAD)
       for c in ("vload", "vstore", "vmem_strided", "vload_segment", "vstore_segment")},
    "tload": T(plan.U_TILE, plan.COST_TILE, "alu", "data.matrix", False, plan.M_VLOAD),
    "tstore": T(plan.U_TILE, plan.COST_TILE, "alu", "data.matrix", False, plan.M_VSTORE),
    "tmove": T(plan.U_TILE, plan.COST_TILE, "vector_fp", "data.matrix", False),
    "mm": T(plan.U_MATRIX, plan.COST_MM, "alu", "data.matrix", False),
}
FLOAT_CSRS = (0x001, 0x002, 0x003)
SCALAR_FLOAT = ("fp2", "fma", "fsqrt", "fcmp", "fcvt_xf", "fcvt_fx", "fcvt_ff")  # kinds; vector rows say FP
VECTOR_CLASSES = frozenset(c for c in CLASSES if c.startswith(("v", "t", "mm")))
SCALAR_FP_WIDE = {"fcvt_xf"}


class Key(NamedTuple):
    """What a handler is made for: a row's name, the index of its element width (-1: it has none), and whether it rounds by fcsr and sets flags."""

    row: str
    sew: int = -1
    exact: bool = False


def minds_fcsr(row: Row) -> bool:
    """Whether fcsr can matter to the row: vector rows that only move values ask for a valid frm."""
    return row.kind in SCALAR_FLOAT and not row.op.startswith("fsgnj") or bool(row.args.get("FP"))


def _shows_fcsr(d: Decoded) -> bool:
    """Whether an access makes flags or modes matter: not those of start-up code, which reads nothing and leaves the mode at nearest even."""
    n = d.imm & 0xFFF
    if d.row.kind != "csr" or n not in FLOAT_CSRS:
        return False
    clears = d.row.name in ("csrrw", "csrrwi") and d.rs1 == 0 or n != 0x002 and d.row.name == "csrrwi"  # (an immediate has no bits of frm in fcsr)
    return not (d.rd == 0 and clears)


def _no_reuse(d: Decoded | None, halves: int) -> bool:
    """ntl.s1 and ntl.all (Zihintntl: adds to x0): what the next instruction accesses is not worth a place in the shared cache."""
    return d is not None and d.size == 2 * halves and d.row.name == "add" and (d.rd, d.rs1) == (0, 0) and d.rs2 in (4, 5)


def _mode(d: Decoded) -> int:
    """The static rounding mode, or 7 where it is frm's."""
    return d.word >> 12 & 7 if "rm" in FORMATS[d.row.fmt] else 7


def latency(machine: Machine, timing: Timing) -> int:
    return int(getattr(machine.latency, timing.latency) or machine.latency.vector_to_scalar)


def _operands(d: Decoded) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """(sources as (register, kind of isa/operands.py)), (destination, kind)."""
    row = d.row
    at = {"x1": d.rs1, "x2": d.rs2, "f1": 32 + d.rs1, "f2": 32 + d.rs2, "f3": 32 + d.rs3, "v1": V0 + d.rs1, "v2": V0 + d.rs2, "vd": V0 + d.rd,
          "vm": V0,
          "v0": V0, "mt": TILE + (d.rd >> 3), "mt2": TILE + (d.rd >> 3), "mtd": TILE + (d.rd >> 3)}
    vectors = operands(row)
    kinds = dict(vectors.sources)
    src: list[tuple[int, int]] = []
    dst = (at[vectors.dest[0]], vectors.dest[1]) if vectors.dest else (NONE, ONE)
    for f in FORMATS[row.fmt]:
        if f in ("x1", "x2") and at[f] or f in ("f1", "f2", "f3"):
            src.append((at[f], ONE))
        elif f == "xd" and d.rd:
            dst = (d.rd, ONE)
        elif f == "fd":
            dst = (32 + d.rd, ONE)
        elif f in ("mt", "mt2", "mtd"):
            dst = (at[f], TILE_OF_MM if f == "mt2" else ONE)
            src += [dst] if f == "mtd" else []
        elif f in kinds and (f != "vm" or not d.vm):
            src.append((at[f], kinds[f]))
    assert len(src) <= 5
    return src, dst


def _imm(d: Decoded) -> int:
    if d.row.kind in SCALAR_FP_WIDE:
        return d.word >> 12 & 7
    if d.row.fmt == "amo":
        return d.word >> 25 & 3  # aq, rl
    return d.imm


Wanted = dict[Key, list[tuple[int, int]]]


def predecode(text: bytes, base: int, machine: Machine, code: Sequence[tuple[int, int, bool]] = (), starts: Collection[int] = ()
              ) -> tuple[ctypes.Array[Rec], Wanted]:
    """Records, one per halfword, and which handlers they need: {key: [(record, slot)]}. Where the text does more with fflags, frm or fcsr
    than to clear them all floating point is exact; elsewhere what names another mode than nearest even (but conversions to integers, which always
    take theirs). `code` says which addresses are code and may be written (nothing: all are, none may); an instruction starts at each of `starts`,
    whatever stands before it."""
    n = len(text) // 2
    recs = (Rec * (n + 1)).from_buffer(aligned((n + 1) * REC_BYTES))
    wanted: Wanted = {}
    cache: dict[int, Decoded | None] = {}
    found: dict[int, Decoded] = {}
    for start, end, writable in code or ((base, base + 2 * n, False),):
        at = (start - base) // 2
        while at < min((end - base) // 2, n):
            word = int.from_bytes(text[2 * at:2 * at + 4], "little")
            word = word if word & 3 == 3 else word & 0xFFFF
            if word & 3 == 3 and at == n - 1:  # half an instruction
                break
            if word not in cache:
                cache[word] = decode(word)
            d = cache[word]
            recs[at].pc = base + 2 * at
            recs[at].size = 4 if word & 3 == 3 else 2
            recs[at].writable = writable
            if d is not None:
                found[at] = d
            at += 2 if word & 3 == 3 and base + 2 * at + 2 not in starts else 1
    reach = _element_widths(found)
    fcsr = any(_shows_fcsr(d) for d in found.values())
    for at, d in found.items():
        _fill(recs[at], d, machine, at + d.size // 2 >= n)
        recs[at].through = d.vm and any(_no_reuse(found.get(at - size), size) for size in (1, 2))
        exact = minds_fcsr(d.row) and (fcsr or _mode(d) not in (0, 7) and d.row.kind != "fcvt_xf")
        if exact and recs[at].kind == plan.K_ALU:  # it may trap
            recs[at].kind = plan.K_OTHER
        if recs[at].needs_vtype:
            for sew in range(4):
                if reach[at] >> sew & 1:
                    wanted.setdefault(Key(d.row.name, sew, exact), []).append((at, sew))
        else:
            wanted.setdefault(Key(d.row.name, -1, exact), []).append((at, 0))
    return recs, wanted


def _element_widths(found: dict[int, Decoded]) -> dict[int, int]:
    """Per instruction the SEW indices (a bit each) that may be set when it runs, so that no handler is compiled that cannot be reached: those
    that a vset may leave flow along falls, branches and jumps (at an entry vtype is vill). A program that calls, jumps through registers other
    than to return, or returns from traps, is not followed: there every SEW that it sets may be set anywhere."""
    kinds = {at: d.row.kind for at, d in found.items()}
    sets = {at: 1 << (d.imm >> 3 & 7) if kinds[at] in ("vsetvli", "vsetivli") else 15 for at, d in found.items() if kinds[at].startswith("vset")}
    everything = 0
    for bits in sets.values():
        everything |= bits & 15
    if any(k == "mret" or k == "jal" and found[at].rd != 0 or k == "jalr" and (found[at].rd, found[at].rs1) != (0, 1) for at, k in kinds.items()):
        return dict.fromkeys(found, everything)
    reach = dict.fromkeys(found, 0)
    todo = list(found)
    while todo:
        at = todo.pop()
        d, kind = found[at], kinds[at]
        out = sets.get(at, reach[at]) & 15
        after = [] if kind in ("jal", "jalr") else [at + d.size // 2]
        if kind == "jal" or d.row.fmt == "b":
            after.append(at + d.imm // 2)
        for to in after:
            if to in reach and out & ~reach[to]:
                reach[to] |= out
                todo.append(to)
    return reach


JUMPS = ("jal", "branch")
TRAPPING = ("exception", "wfi", "fence", "fence_i")  # scalar instructions beside these always finish


def _kind(row: Row, timing: Timing, last: bool) -> int:
    if row.cls == "config":
        return plan.K_CONFIG
    if timing.cost == plan.COST_MM:
        return plan.K_MULTIPLY
    if timing.memory:
        return plan.K_MEMORY
    if timing.unit:
        return plan.K_LANES
    if row.kind in JUMPS:
        return plan.K_JUMP
    return plan.K_OTHER if last or row.cls in ("jump", "csr", "amo") or row.kind in TRAPPING else plan.K_ALU


def _of_matrix_unit(row: Row) -> bool:
    """Rows that are illegal on a machine without a matrix unit: tiles, their shapes, their products."""
    return row.cls in ("tload", "tstore", "tmove", "mm") or row.name.startswith(("sf.vset", "sf.vtdiscard"))


def _fill(rec: Rec, d: Decoded, machine: Machine, last: bool) -> None:
    row: Row = d.row
    timing = CLASSES[row.cls]
    src, dst = _operands(d)
    vectors = operands(row)
    _fill_timing(rec, row, timing, dst[0], machine)
    legal = machine.has_matrix or not _of_matrix_unit(row)
    rec.valid, rec.rd, rec.rs1, rec.rs2, rec.rs3, rec.vm, rec.imm = int(legal), d.rd, d.rs1, d.rs2, d.rs3, d.vm, _imm(d)
    rec.rm = _mode(d)
    if row.cls in ("tload", "tstore", "tmove") and row.kind != "vtzero":
        rec.tile = 1 if row.cls == "tstore" or row.kind == "vtmv_vt" else 2
        rec.subset = d.rs1 if row.cls == "tmove" else d.rs2
    rec.vector = int(row.cls in VECTOR_CLASSES)
    rec.needs_vtype = int(row.cls in VECTOR_CLASSES and "N" not in row.args)
    rec.arg, rec.fields, rec.overlap = vectors.arg, vectors.fields, vectors.overlap
    rec.config = int(row.cls == "config")
    floats = row.args.get("FP") or any(f[0] == "f" for f in FORMATS[row.fmt])
    rec.needs = VS_OFF * (rec.vector | rec.config) | FS_OFF * bool(floats)
    rec.nsrc = len(src)
    for n, (reg, span) in enumerate(src):
        rec.src[n], rec.srckind[n] = reg, span
    rec.dst, rec.dstkind = dst
    rec.kind = _kind(row, timing, last)


def _fill_timing(rec: Rec, row: Row, timing: Timing, dst: int, machine: Machine) -> None:
    rec.unit, rec.cost, rec.latency, rec.cause = timing.unit, timing.cost, latency(machine, timing), CAUSE[timing.cause]
    rec.chain, rec.mem = int(timing.chain), timing.memory
    if timing.memory == plan.M_VLOAD and row.kind.startswith("vstore"):
        rec.mem = plan.M_VSTORE
    if row.cls in VECTOR:
        rec.cls, rec.counts = INDEX[row.cls], VECTOR[row.cls].counts
        rec.eew = 0 if row.kind.endswith("indexed") else 1 if row.kind.endswith("_mask") else row.args.get("EEW", 0)
        rec.longest = int(VECTOR[row.cls].longest)
        rec.whole = row.args.get("N", 0) if timing.memory or machine.vector.whole_moves == "registers" else 0
    rec.passes = machine.latency.reduction_passes if row.cls in REDUCTIONS else 0
    waits = machine.core.write_after_write
    rec.after = 1 - rec.latency
    if waits != "ordered":
        if dst < 64:
            rec.after = 0
        elif rec.mem == plan.M_VLOAD:
            rec.after = 1 - machine.l1.hit_cycles
        elif waits == "all" and row.cls in REDUCTIONS:
            rec.after = 1
