"""Predecoding: text bytes become records with everything that issue needs, from each instruction's row and its timing class."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from rvgpu.isa.codec import Decoded, decode
from rvgpu.isa.machine import Machine
from rvgpu.isa.rows import FORMATS, Row
from rvgpu.sim import issue
from rvgpu.sim.state import CAUSE, Rec

NONE = 255


@dataclass(frozen=True)
class Timing:
    """unit, what occupies it, the latency field of the machine, the cause that waiting for its result counts as, and whether it chains."""

    unit: int
    cost: int
    latency: str
    cause: str
    chain: bool = True
    memory: int = issue.M_NONE


T = Timing
CLASSES = {
    "alu": T(issue.U_NONE, issue.COST_ONE, "alu", "unit"), "mul": T(issue.U_NONE, issue.COST_ONE, "mul", "unit"),
    "div": T(issue.U_NONE, issue.COST_ONE, "div", "unit"), "jump": T(issue.U_NONE, issue.COST_ONE, "alu", "unit"),
    "branch": T(issue.U_NONE, issue.COST_ONE, "alu", "unit"), "csr": T(issue.U_NONE, issue.COST_ONE, "alu", "unit"),
    "config": T(issue.U_NONE, issue.COST_ONE, "alu", "unit"), "fp": T(issue.U_NONE, issue.COST_ONE, "fp", "unit"),
    "fdiv": T(issue.U_NONE, issue.COST_ONE, "fdiv", "unit"),
    "load": T(issue.U_NONE, issue.COST_ONE, "alu", "data.l1", memory=issue.M_LOAD),
    "store": T(issue.U_NONE, issue.COST_ONE, "alu", "data.l1", memory=issue.M_STORE),
    "amo": T(issue.U_NONE, issue.COST_ONE, "alu", "data.l1"),
    "vint": T(issue.U_VALU, issue.COST_LANES, "vector_int", "data.vector"), "vmul": T(issue.U_VALU, issue.COST_LANES, "vector_mul", "data.vector"),
    "vfp": T(issue.U_VALU, issue.COST_LANES, "vector_fp", "data.vector"), "vmask": T(issue.U_VALU, issue.COST_ONE, "vector_int", "data.vector"),
    "vcvt": T(issue.U_VALU, issue.COST_LANES, "vector_fp", "data.vector"),
    "vdiv": T(issue.U_VALU, issue.COST_DIV, "vector_div", "data.vector"), "vfdiv": T(issue.U_VALU, issue.COST_DIV, "vector_div", "data.vector"),
    "vexp": T(issue.U_EXP, issue.COST_EXP, "exp", "data.exp"),
    "vred": T(issue.U_VALU, issue.COST_RED, "reduction", "data.vector", False),
    "vfred": T(issue.U_VALU, issue.COST_RED, "reduction", "data.vector", False),
    "vslide": T(issue.U_VALU, issue.COST_LANES, "permute", "data.vector", False),
    "vgather": T(issue.U_VALU, issue.COST_GATHER, "permute", "data.vector", False),
    "vmove_x": T(issue.U_VALU, issue.COST_ONE, "vector_to_scalar", "data.vector", False),
    "vload": T(issue.U_LSU, issue.COST_MEM, "alu", "data.l1", memory=issue.M_VLOAD),
    "vstore": T(issue.U_LSU, issue.COST_MEM, "alu", "data.l1", memory=issue.M_VSTORE),
    "tload": T(issue.U_TILE, issue.COST_TILE, "alu", "data.matrix", False, issue.M_VLOAD),
    "tstore": T(issue.U_TILE, issue.COST_TILE, "alu", "data.matrix", False, issue.M_VSTORE),
    "tmove": T(issue.U_TILE, issue.COST_TILE, "vector_fp", "data.matrix", False),
    "mm": T(issue.U_MATRIX, issue.COST_MM, "alu", "data.matrix", False),
}
VECTOR_CLASSES = frozenset(c for c in CLASSES if c.startswith(("v", "t", "mm")))
SCALAR_FP_WIDE = {"fcvt_xf"}


def latency(machine: Machine, timing: Timing) -> int:
    return int(getattr(machine.latency, timing.latency))


def _operands(d: Decoded) -> tuple[list[tuple[int, int]], tuple[int, int], int]:
    """(sources as (register, span)), (destination, span), the span argument."""
    row, fmt = d.row, d.row.fmt
    kind = row.kind
    src: list[tuple[int, int]] = []
    dst = (NONE, issue.ONE)
    group = issue.GROUP
    arg = row.args.get("EEW", 0)
    for f in FORMATS[fmt]:
        if f == "x1" and d.rs1:
            src.append((d.rs1, issue.ONE))
        elif f == "x2" and d.rs2:
            src.append((d.rs2, issue.ONE))
        elif f == "xd" and d.rd:
            dst = (d.rd, issue.ONE)
        elif f in ("f1", "f2", "f3"):
            src.append((32 + {"f1": d.rs1, "f2": d.rs2, "f3": d.rs3}[f], issue.ONE))
        elif f == "fd":
            dst = (32 + d.rd, issue.ONE)
        elif f == "v1":
            src.append((64 + d.rs1, issue.ONE if kind in ("vred", "vmask", "vcompress") else group))
        elif f == "v2":
            span = group
            if kind in ("vmask", "vcpop", "vfirst", "viota", "vmv_xs", "vfmv_fs"):
                span = issue.ONE
            elif kind.startswith(("vnarrow", "vncvt")):
                span = issue.WIDE
            elif kind == "vmvr":
                span, arg = issue.FIXED, row.args["N"]
            elif kind == "vext":
                span, arg = issue.PART, row.args["DIV"]
            elif kind in ("vload_indexed", "vstore_indexed"):
                span = issue.EEW_GROUP
            src.append((64 + d.rs2, span))
        elif f == "vd":
            span = group
            if kind.startswith("vcmp") or kind in ("vmask", "vred", "vmv_sx", "vfmv_sf", "vload_mask", "vstore_mask"):
                span = issue.ONE
            elif kind.startswith(("vwiden", "vwcvt", "vwmacc")):
                span = issue.WIDE
            elif "N" in row.args:
                span, arg = issue.FIXED, row.args["N"]
            elif kind in ("vload_unit", "vload_strided", "vstore_unit", "vstore_strided"):
                span = issue.EEW_GROUP
            if kind.startswith("vstore"):
                src.append((64 + d.rd, span))
            else:
                dst = (64 + d.rd, span)
                if kind.startswith(("vmac", "vwmacc")):
                    src.append(dst)
        elif f == "vm" and not d.vm:
            src.append((64, issue.ONE))
        elif f == "mt":
            dst = (96 + (d.rd >> 3), issue.ONE)
        elif f == "mtd":
            dst = (96 + (d.rd >> 3), issue.ONE)
            src.append(dst)
    if kind.startswith("vmerge"):
        src.append((64, issue.ONE))
    if kind == "mm_ff" or kind == "mm_ii":
        src = [(64 + d.rs2, issue.FIXED), (64 + d.rs1, issue.FIXED)]
        arg = 8
    if kind in ("vtmv_vt", "vtmv_tv"):
        src += [(96 + n, issue.ONE) for n in range(4)] if kind == "vtmv_vt" else []
    return src[:5], dst, arg


def _imm(d: Decoded) -> int:
    if d.row.kind in SCALAR_FP_WIDE:
        return d.word >> 12 & 7
    return d.imm


def predecode(text: bytes, base: int, machine: Machine) -> tuple[ctypes.Array[Rec], dict[tuple[str, int], list[tuple[int, int]]]]:
    """Records, one per halfword, and which (instruction, SEW index) handlers they need: {(row name, sew): [(record, slot)]}."""
    n = len(text) // 2
    recs = (Rec * (n + 1))()
    wanted: dict[tuple[str, int], list[tuple[int, int]]] = {}
    cache: dict[int, Decoded | None] = {}
    found: dict[int, Decoded] = {}
    at = 0
    while at < n:
        word = int.from_bytes(text[2 * at:2 * at + 4], "little")
        word = word if word & 3 == 3 else word & 0xFFFF
        if word not in cache:
            cache[word] = decode(word)
        d = cache[word]
        recs[at].pc = base + 2 * at
        recs[at].size = 4 if word & 3 == 3 else 2
        if d is not None:
            found[at] = d
        at += 2 if word & 3 == 3 else 1
    reach = _element_widths(found)
    for at, d in found.items():
        _fill(recs[at], d, machine, at + d.size // 2 >= n)
        if recs[at].needs_vtype:
            for sew in range(4):
                if reach[at] >> sew & 1:
                    wanted.setdefault((d.row.name, sew), []).append((at, sew))
        else:
            wanted.setdefault((d.row.name, -1), []).append((at, 0))
    return recs, wanted


def _element_widths(found: dict[int, Decoded]) -> dict[int, int]:
    """Per instruction the SEW indices (a bit each) that may be set when it runs, so that no handler is compiled that cannot be reached: those
    that a vset may leave flow along falls, branches and jumps (at an entry vtype is vill). A program that calls, or jumps through registers
    other than to return, is not followed: there every SEW that it sets may be set anywhere."""
    kinds = {at: d.row.kind for at, d in found.items()}
    sets = {at: 1 << (d.imm >> 3 & 7) if kinds[at] in ("vsetvli", "vsetivli") else 15 for at, d in found.items() if kinds[at].startswith("vset")}
    everything = 0
    for bits in sets.values():
        everything |= bits & 15
    if any(k == "jal" and found[at].rd != 0 or k == "jalr" and (found[at].rd, found[at].rs1) != (0, 1) for at, k in kinds.items()):
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


def _kind(row: Row, timing: Timing, last: bool) -> int:
    if row.cls == "config":
        return issue.K_CONFIG
    if timing.cost == issue.COST_MM:
        return issue.K_MULTIPLY
    if timing.memory:
        return issue.K_MEMORY
    if timing.unit:
        return issue.K_LANES
    return issue.K_OTHER if last or row.cls in ("jump", "branch", "csr", "amo") or row.kind == "trap" else issue.K_ALU


def _fill(rec: Rec, d: Decoded, machine: Machine, last: bool) -> None:
    row: Row = d.row
    timing = CLASSES[row.cls]
    src, dst, arg = _operands(d)
    rec.valid, rec.rd, rec.rs1, rec.rs2, rec.rs3, rec.vm, rec.imm = 1, d.rd, d.rs1, d.rs2, d.rs3, d.vm, _imm(d)
    rec.vector = int(row.cls in VECTOR_CLASSES)
    rec.needs_vtype = int(row.cls in VECTOR_CLASSES and "N" not in row.args)
    rec.unit, rec.cost, rec.latency, rec.cause = timing.unit, timing.cost, latency(machine, timing), CAUSE[timing.cause]
    if row.kind.startswith(("vwiden", "vwcvt", "vncvt", "vnarrow", "vwmacc")):
        rec.cost = issue.COST_WIDE
    rec.chain, rec.mem, rec.arg = int(timing.chain), timing.memory, arg
    rec.config = int(row.cls == "config")
    rec.nsrc = len(src)
    for n, (reg, span) in enumerate(src):
        rec.src[n], rec.srckind[n] = reg, span
    rec.dst, rec.dstkind = dst
    rec.kind = _kind(row, timing, last)
