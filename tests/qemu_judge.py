"""QEMU as the judge of our instructions: the same random programs run under `qemu-riscv64` and on the simulator, and the whole state is compared.

One program holds many cases. A case loads all registers from its block, sets vl and vtype, runs a few random instructions and stores every
register, vl and vtype; its memory operands stay inside its own kilobytes. Nothing reserved is generated: what traps is tested elsewhere.
Programs with fcsr set a rounding mode for each case, read and write fcsr among its instructions and store it at its end: they run the exact
handlers of floating point. Programs without run the plain ones.
`python -m tests.qemu_judge --minutes 5 --vlen 512` is `make fuzz`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from rvgpu.isa.asm import assemble
from rvgpu.isa.codec import FLAGS, IMM, REG, decode, disasm
from rvgpu.isa.machine import load_machine
from rvgpu.isa.operands import operands
from rvgpu.isa.rows import FORMATS, ROWS, Row
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE
from rvgpu.sim.engine import engine, legal
from rvgpu.sim.handlers import SPM_BASE
from rvgpu.sim.operands import emul, place
from rvgpu.sim.program import VECTOR_CLASSES, Key, minds_fcsr, predecode
from rvgpu.sim.state import OK, Plan, Rec, Warp

QEMU = shutil.which("qemu-riscv64")
WORDS = 16  # encodings that are drawn of a row under a vtype
XS = range(5, 16)  # registers that a case may change; x16 points into its memory, x29..x31 serve the frame
MEM, STATE, VECTORS = 4096, 512, 512  # bytes of a case's memory, of scalar state in a block, offset of the vector registers
# Operands that programs do without: encodings that are reserved (tests/test_reserved.py); vstart at an element of arithmetic, where we trap, and
# from vl on, where QEMU 7.2 does not clear it (tests/test_vstart.py); addresses outside the case.
# What QEMU 7.2 does not have, or where the specification leaves the result open
EXCLUDED = {
    "sf.": "SiFive's extensions", "bf16": "QEMU 7.2 has no bf16", "redusum.": "the order of an unordered float sum is ours",
    "vqdot": "QEMU 7.2 has no Zvqdotq",
    "cvt.rtz": "QEMU 7.2 aborts (decode_save_opc)", "ctzw": "QEMU 7.2 counts beyond 32 bits (mended in 8.0)",
}
CONTROL = {"jal", "jalr", "branch", "exception", "mret", "wfi", "lr", "sc", "csr", "vsetvli", "vsetivli", "vsetvl", "auipc"}
MACHINE = load_machine("base")
VSTART = 0x00805073  # csrrwi zero, vstart, n
NEXT = 0x0040006F  # jal zero, 4: QEMU 7.2 looks at vstart where it begins to translate


def judged(row: Row) -> bool:
    return row.kind not in CONTROL and not any(part in row.name for part in EXCLUDED)


@dataclass(frozen=True)
class Vtype:
    sew: int  # index: 8 << sew bits
    lmul: int  # eighths of a register: 1, 2, .. 64
    avl: int
    policy: str = "tu, mu"  # (agnostic elements stay as they are, in QEMU 7.2 and here)

    @property
    def text(self) -> str:
        m = f"m{self.lmul // 8}" if self.lmul >= 8 else f"mf{8 // self.lmul}"
        return f"e{8 << self.sew}, {m}, {self.policy}"


@dataclass
class Case:
    vtype: Vtype
    words: list[int]
    block: bytes
    memory: bytes
    seed: int
    rows: list[str] = field(default_factory=list)
    frm: int | None = None  # None: the program has no fcsr


def draw_vtype(pick: random.Random, vlen: int) -> Vtype:
    sew = pick.randrange(4)
    lmul = pick.choice([n for n in (1, 2, 4, 8, 16, 32, 64) if 8 << sew <= 8 * n])
    most = vlen * lmul // 8 // (8 << sew)
    avl = min(most, pick.choice((0, 1, most // 2, most - 1, most, most, pick.randint(0, most))))
    return Vtype(sew, lmul, avl, pick.choice(("tu, mu", "tu, ma", "ta, mu", "ta, ma")))


def configured(vt: Vtype) -> Warp:
    return Warp(sew=vt.sew, lmul8=vt.lmul, vl=vt.avl)


def reserved(word: int, vt: Vtype) -> bool:
    """Whether the engine's own check refuses the operands under vt; were it too lax, QEMU would trap."""
    rec = predecode(word.to_bytes(4, "little"), BASE, MACHINE)[0][0]
    return place(configured(vt), rec, Plan()) != OK


def elements(row: Row, vt: Vtype, vlen: int) -> int:
    """How many a load or store moves."""
    if not row.kind.startswith(("vload", "vstore")):
        return 0
    return vlen * row.args["N"] // row.args["EEW"] if "N" in row.args else (vt.avl + 7) // 8 if row.kind.endswith("mask") else vt.avl


@cache
def word_of(row: Row, sew: int, lmul: int, far: bool, epoch: int, n: int) -> int | None:
    """One of the encodings of the row, legal under a vtype, that are drawn in an epoch of a million seeds."""
    return draw_word(row, random.Random(f"{row.name} {sew} {lmul} {far} {epoch} {n}"), Vtype(sew, lmul, 0), far)


def draw_word(row: Row, pick: random.Random, vt: Vtype, far: bool) -> int | None:
    """An encoding of the row that is legal under vt, or None; `far`: a stride would leave the case's memory."""
    vector = row.cls in VECTOR_CLASSES
    if vector and "N" not in row.args and not legal(row, vt.sew):
        return None
    w, vectors = configured(vt), operands(row)
    shape = Rec(arg=vectors.arg, fields=vectors.fields)
    step = {f: max(1, emul(w, shape, kind) >> 3) for f, kind in (*vectors.sources, *([vectors.dest] if vectors.dest else []))}
    for _ in range(60):
        word = row.match
        for f in FORMATS[row.fmt]:
            if f == "rm":
                word |= pick.choice((0, 1, 2, 3, 4, 7, 7)) << FLAGS[f]
            elif f in FLAGS:
                word |= pick.getrandbits(1) << FLAGS[f] if f in ("vm", "aqrl") else 0
            elif f in ("fd", "f1", "f2", "f3"):
                word |= pick.randrange(32) << REG[f]
            elif f in ("vd", "v1", "v2"):
                word |= (pick.randrange(32) // min(step[f], 8) * min(step[f], 8)) << REG[f]
            elif f == "xd":
                word |= pick.choice(XS) << REG[f]
            elif f in ("x1", "x2"):
                word |= pick.choice((0, *XS)) << REG[f]
            elif f in ("imm_i", "imm_s") and row.kind in ("load", "store", "fload", "fstore"):
                word |= IMM[f][1](pick.randrange(-128, 128))
            elif f in IMM:
                word |= IMM[f][1](pick.getrandbits(20) if f == "imm_u" else pick.getrandbits(12))
        if row.kind in ("load", "store", "fload", "fstore", "amo") or row.kind.startswith(("vload", "vstore")):
            word = word & ~(31 << 15) | 16 << 15
        if row.kind.endswith("strided"):
            word = word & ~(31 << 20) | (0 if far else pick.choice((0, 17, 18))) << 20
        d = decode(word)
        if d is not None and d.row is row and not (vector and reserved(word, vt)):
            return word
    return None


SPECIAL = {
    16: (0, 1, 0x3C00, 0x7BFF, 0x7C00, 0x7E00, 0x7D01, 0x03FF, 0x0400),
    32: (0, 1, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7FA00001, 0x007FFFFF, 0x00800000, 0x4F000000),
    64: (0, 1, 0x3FF0000000000000, 0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000, 0x7FF8000000000000, 0x7FF4000000000001, 0x000FFFFFFFFFFFFF,
         0x0010000000000000, 0x43E0000000000000)}


def draw_bytes(rng: np.random.Generator, n: int, width: int) -> bytes:
    """Elements of `width` bits: special floats, numbers near each other in size, small integers, anything."""
    count, kind = -(-8 * n // width), np.dtype(f"u{width // 8}")
    out = np.frombuffer(rng.bytes(count * width // 8), kind).copy()
    which = rng.random(count)
    if width in SPECIAL:
        mant = {16: 10, 32: 23, 64: 52}[width]
        bias = (1 << (width - 2 - mant)) - 1
        sign = out & kind.type(1 << width - 1)
        special = np.array(SPECIAL[width], kind)[rng.integers(0, len(SPECIAL[width]), count)] | sign
        near = sign | (bias + rng.integers(-4, 5, count)).astype(kind) << kind.type(mant) | out & kind.type((1 << mant) - 1)
        out = np.where(which < 0.25, special, np.where(which < 0.5, near, out))
    return np.where((which >= 0.5) & (which < 0.7), rng.integers(-20, 20, count).astype(kind), out).tobytes()[:n]


def assemble_words(text: str) -> list[int]:
    code = assemble(text)
    return [int.from_bytes(code[i:i + 4], "little") for i in range(0, len(code), 4)]


def draw_csr(pick: random.Random) -> int:
    """Some access to fflags, frm (a mode that there is) or fcsr."""
    to, some, bits = f"x{pick.choice(XS)}", f"x{pick.choice(XS)}", pick.getrandbits(5)
    return assemble_words(pick.choice((f"csrrs {to}, 0x003, zero", f"csrrw {to}, 0x001, {some}", f"csrrc {to}, 0x001, {some}",
                                       f"csrrsi {to}, 0x001, {bits}", f"csrrci {to}, 0x003, {bits}", f"csrrwi {to}, 0x003, {bits}",
                                       f"csrrwi {to}, 0x002, {bits % 5}")))[0]


def draw_case(seed: int, vlen: int, rows: list[Row], length: int, fcsr: bool = False) -> Case:
    pick, rng = random.Random(seed), np.random.default_rng(seed)
    vt = draw_vtype(pick, vlen)
    words, names = [], []
    while len(words) < length:
        if fcsr and pick.random() < 0.1:
            words.append(draw_csr(pick))
        row = pick.choice(rows)
        word = word_of(row, vt.sew, vt.lmul, vt.avl * max(24, 8 << vt.sew) > MEM // 2 - 64, seed // 1_000_000, pick.randrange(WORDS))
        if word is None:
            continue
        if row.kind.endswith("_indexed"):  # indices of their own element width, below 1024 (or 256)
            d = decode(word)
            assert d is not None
            eew = row.args["EEW"]
            lmul = vt.lmul * eew >> (vt.sew + 3)
            index = Vtype({8: 0, 16: 1, 32: 2, 64: 3}[eew], lmul, vt.avl)
            if 8 << index.sew > 8 * lmul:
                continue
            words += assemble_words(f"vsetvli zero, t4, {index.text}\nli t5, {255 if eew == 8 else 1023}\nvand.vx v{d.rs2}, v{d.rs2}, t5\n"
                                    f"vsetvli zero, t4, {vt.text}\n")
        ends = elements(row, vt, vlen)  # (from there on QEMU 7.2 does not clear vstart)
        if ends and pick.random() < 0.15:
            words += [*assemble_words(f"csrrwi zero, vstart, {pick.randrange(min(32, ends))}"), word, NEXT]
        else:
            words.append(word)
        names.append(row.name)
    width = 8 << vt.sew
    values = (pick.choice((pick.randrange(-40, 40), pick.getrandbits(64), pick.choice(SPECIAL[64]), 1 << pick.randrange(64))) for _ in XS)
    xs = b"".join((x & (1 << 64) - 1).to_bytes(8, "little") for x in values)
    drawn = {w: draw_bytes(rng, 32 * w // 8, w) for w in (16, 32, 64)}
    fs = b"".join(drawn[w][n * w // 8:(n + 1) * w // 8] + b"\xff" * (8 - w // 8) for n, w in enumerate(pick.choices((16, 32, 64), k=32)))
    block = xs.ljust(128, b"\0") + fs
    block = block.ljust(STATE, b"\0") + draw_bytes(rng, 4 * vlen, pick.choice((width, width, 8, 16, 32, 64)))
    return Case(vt, words, block, draw_bytes(rng, MEM, width), seed, names, pick.randrange(5) if fcsr else None)


def build(cases: list[Case], vlen: int, end: str) -> tuple[bytes, int, int]:
    """(the program's text, address of the data, bytes of data); data: for each case its state, results, memory."""
    size = STATE + 4 * vlen
    each = 2 * size + MEM
    lines = ["mv gp, ra"]
    # two passes: the data's address depends on the length of the text, which `li` of an address does not change within 4 GiB
    data = BASE + 0x400000
    fcsr = cases[0].frm is not None
    assert all((c.frm is not None) == fcsr for c in cases)

    def frame(way: str) -> list[str]:
        s, f = ("sd", "fsd") if way == "save" else ("ld", "fld")
        out = [f"{way}:"]
        if way == "save":
            out += ["csrrs t5, 0xc20, zero", "sd t5, 384(t6)", "csrrs t5, 0xc21, zero", "sd t5, 392(t6)", "csrrs t5, vcsr, zero", "sd t5, 400(t6)",
                    "csrrs t5, vstart, zero", "sd t5, 408(t6)"]
            out += ["csrrs t5, fcsr, zero", "sd t5, 416(t6)"] if fcsr else []
        out += [f"{s} x{n}, {8 * (n - 5)}(t6)" for n in XS] + [f"{f} f{n}, {128 + 8 * n}(t6)" for n in range(32)]
        out += [f"li t4, {vlen}", f"addi t5, t6, {VECTORS}"]
        for n in (0, 8, 16, 24):
            out += [f"{'vs8r.v' if way == 'save' else 'vl8re64.v'} v{n}, (t5)", "add t5, t5, t4"]
        return [*out, "jalr zero, ra, 0"]

    for n, c in enumerate(cases):
        at = data + n * each
        lines += [f"li t6, {at}", "jal ra, load", f"li a6, {at + 2 * size + MEM // 2}", "li a7, -24", f"li s2, {8 << c.vtype.sew}",
                  *(("csrrwi zero, fflags, 0", f"csrrwi zero, frm, {c.frm}") if fcsr else ()),
                  f"li t5, {c.vtype.avl}", f"vsetvli t4, t5, {c.vtype.text}", f"csrrwi zero, vcsr, {c.seed % 8}",
                  *(f".word {w}" for w in c.words), f"li t6, {at + size}", "jal ra, save"]
    lines += [*end.format(data=data, bytes=each * len(cases)).splitlines(), *frame("load"), *frame("save")]
    text = assemble("\n".join(lines) + "\n")
    assert len(text) <= 0x400000
    return text, data, each * len(cases)


def blob(cases: list[Case], vlen: int) -> bytes:
    size = STATE + 4 * vlen
    return b"".join(c.block + b"\0" * size + c.memory for c in cases)


def elf(text: bytes, data: int, content: bytes, empty: tuple[int, int] | None = None) -> bytes:
    """Two segments, and the sections that our loader asks for; perhaps a third of (address, bytes) of zeros."""
    names = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
    symbols = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, BASE, 0)
    at = 4096
    data_at = at + -(-len(text) // 4096) * 4096
    tables = data_at + len(content)
    strings = tables + len(symbols)
    heads = b"\0" * 64 + b"".join(struct.pack("<IIQQQQIIQQ", *h) for h in (
        (1, 1, 6, BASE, at, len(text), 0, 0, 8, 0), (7, 2, 0, 0, tables, len(symbols), 3, 1, 8, 24), (15, 3, 0, 0, strings, 3, 0, 0, 1, 0),
        (23, 3, 0, 0, strings + 3, len(names), 0, 0, 1, 0)))
    sections = -(-(strings + 3 + len(names)) // 8) * 8
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + b"\0" * 9, 2, 243, 1, BASE, 64, sections, 5, 64, 56, 2 + (empty is not None),
                       64, 5, 4)
    head += struct.pack("<IIQQQQQQ", 1, 5, at, BASE, BASE, len(text), len(text), 4096)
    head += struct.pack("<IIQQQQQQ", 1, 6, data_at, data, data, len(content), len(content), 4096)
    if empty:
        head += struct.pack("<IIQQQQQQ", 1, 6, 0, empty[0], empty[0], 0, empty[1], 4096)
    out = (head.ljust(at, b"\0") + text).ljust(data_at, b"\0") + content + symbols + b"\0k\0" + names
    return out.ljust(sections, b"\0") + heads


QEMU_END = """li a0, 1
li a1, {data}
li a2, {bytes}
li a7, 64
ecall
li a0, 0
li a7, 93
ecall
"""
SIM_END = "jalr zero, gp, 0\n"


class Refused(Exception):
    """QEMU traps where we do not."""


def run_qemu(cases: list[Case], vlen: int) -> bytes:
    text, data, n = build(cases, vlen, QEMU_END)
    return under_qemu(text, data, blob(cases, vlen)[:n], vlen)


def under_qemu(text: bytes, data: int, content: bytes, vlen: int, scratchpad: int = 0) -> bytes:
    """What the data hold when the program has ended and written them out; it may have a scratchpad where we have ours."""
    assert QEMU is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.elf"
        path.write_bytes(elf(text, data, content, (SPM_BASE, scratchpad) if scratchpad else None))
        path.chmod(0o755)
        cpu = f"rv64,v=true,vlen={vlen},elen=64,vext_spec=v1.0,Zfh=true"
        p = subprocess.run([QEMU, "-cpu", cpu, str(path)], capture_output=True, timeout=300, check=False)
    if p.returncode < 0:
        raise Refused(f"QEMU ended with signal {-p.returncode}")
    n = len(content)
    assert p.returncode == 0 and len(p.stdout) == n, f"QEMU ended with {p.returncode} and {len(p.stdout)} of {n} bytes: {p.stderr.decode()[:500]}"
    return p.stdout


def loop(instruction: str, values: np.ndarray, out: np.dtype, mode: int, end: str) -> tuple[bytes, int, bytes]:
    """(text, address of the data, data) of a program that runs `instruction` (v16 from v8; LMUL 4 for the wider of the two) on all values, a
    multiple of 512 bytes of them, under rounding mode `mode`; the results follow the values."""
    data, size = BASE + 0x400000, values.nbytes
    narrow, wide = min(values.itemsize, out.itemsize), max(values.itemsize, out.itemsize)
    n = 512 // wide
    assert len(values) % n == 0
    text = f"""mv gp, ra
li t0, {data}
li t1, {data + size}
li t3, {len(values)}
{f"csrrwi zero, frm, {mode}" if mode else ""}
loop: li t4, {n}
vsetvli t4, t4, e{8 * narrow}, m{4 * narrow // wide}, ta, ma
vle{8 * values.itemsize}.v v8, (t0)
{instruction}
vse{8 * out.itemsize}.v v16, (t1)
addi t0, t0, {n * values.itemsize}
addi t1, t1, {n * out.itemsize}
addi t3, t3, -{n}
bnez t3, loop
{end.format(data=data, bytes=size + len(values) * out.itemsize)}"""
    return assemble(text), data, values.tobytes() + bytes(len(values) * out.itemsize)


def each_by_qemu(instruction: str, values: np.ndarray, out: np.dtype, mode: int = 0) -> np.ndarray:
    return np.frombuffer(under_qemu(*loop(instruction, values, out, mode, QEMU_END), 1024)[values.nbytes:], out)


def each_by_us(instruction: str, values: np.ndarray, out: np.dtype, mode: int = 0) -> np.ndarray:
    return np.frombuffer(under_us(*loop(instruction, values, out, mode, SIM_END), 1024)[values.nbytes:], out)


def run_sim(cases: list[Case], vlen: int) -> bytes:
    text, data, n = build(cases, vlen, SIM_END)
    return under_us(text, data, blob(cases, vlen)[:n], vlen)


def under_us(text: bytes, data: int, content: bytes, vlen: int) -> bytes:
    d = Device(load_machine("base", {"vector.vlen": vlen, "vector.dlen": min(vlen, 512), "matrix.te": 16, "core.warps": 1, "gpu.cores": 1}),
               memory_bytes=1 << 26, timing=False)
    program = d.load(elf(text, data, content))
    d.launch(program, "k", [], ctas=1)
    return bytes(d.memory[data - BASE:data - BASE + len(content)])


def title(c: Case, vlen: int) -> str:
    return f"seed {c.seed} VLEN {vlen} vl {c.vtype.avl} {c.vtype.text} frm {c.frm}"


def listing(c: Case) -> str:
    return "\n".join("    " + disasm(d) for d in map(decode, c.words) if d is not None)


def compare(cases: list[Case], vlen: int, ours: list[Case] | None = None) -> list[str]:
    """What differs, said for each case that does. The simulator may be given others than QEMU."""
    try:
        judged = run_qemu(cases, vlen)
    except Refused as e:
        if len(cases) == 1:
            return [f"{title(cases[0], vlen)}: {e}\n{listing(cases[0])}"]
        half = len(cases) // 2
        return compare(cases[:half], vlen) or compare(cases[half:], vlen)
    want, got = (np.frombuffer(x, np.uint8).reshape(len(cases), -1) for x in (judged, run_sim(ours or cases, vlen)))
    size = STATE + 4 * vlen
    out = []
    for n in np.flatnonzero((want != got).any(1)):
        c = cases[n]
        first = int(np.flatnonzero(want[n] != got[n])[0]) - size
        register = f"v{(first - STATE) * 8 // vlen} byte {(first - STATE) % (vlen // 8)}"
        where = (f"x{5 + first // 8}" if first < 128 else f"f{(first - 128) // 8}" if first < 384 else
                 ("vl", "vtype", "vcsr", "vstart", "fcsr")[(first - 384) // 8] if first < STATE else
                 register if first < size else f"memory byte {first - size}")
        a, b = (bytes(x[n][first + size:first + size + 8]).hex() for x in (want, got))
        out.append(f"{title(c, vlen)}: {where}: QEMU {a}, ours {b}\n{listing(c)}")
    return out


def shrink(case: Case, vlen: int) -> Case:
    """The case with every instruction gone that it can do without (but for what keeps addresses within the case)."""
    n, wild = 0, "signal 11"
    kept = wild in compare([case], vlen)[0]
    while n < len(case.words):
        less = replace(case, words=case.words[:n] + case.words[n + 1:])
        stray = any(a & 0xFFF0707F == VSTART and (b & 0x5F != 0x07 or c != NEXT)
                    for a, b, c in zip(less.words, [*less.words[1:], 0], [*less.words[2:], 0, 0], strict=False))
        found = compare([less], vlen) if less.words and not stray else []
        if found and (wild in found[0]) == kept:
            case = less
        else:
            n += 1
    return case


def prepare(rows: list[Row]) -> None:
    """All handlers, plain and exact, in one module: one compilation for every program that follows."""
    engine().handlers({Key(r.name, s, exact) for r in rows for s in (range(4) if r.cls in VECTOR_CLASSES and "N" not in r.args else (-1,))
                       for exact in (False, True)[:1 + minds_fcsr(r)] if legal(r, s)})


def fuzz(vlen: int, seed: int, until: float, rows: list[Row], most: int = 1 << 60, cases: int = 250,
         length: int = 16) -> tuple[int, Counter[str], list[str]]:
    """(instructions run, how often each, what differed). Every other program has fcsr, and then every other instruction is floating point."""
    done, seen, found = 0, Counter[str](), []
    floats = [r for r in rows if minds_fcsr(r)]
    while time.monotonic() < until and done < most and not found:
        fcsr = seed // cases % 2 == 1 and bool(floats)
        some = rows + floats * (len(rows) // len(floats)) if fcsr else rows
        batch = [draw_case(seed + n, vlen, some, length, fcsr) for n in range(cases)]
        seed += cases
        for line in compare(batch, vlen)[:3]:
            bad = next(c for c in batch if line.startswith(f"seed {c.seed} "))
            found += compare([shrink(bad, vlen)], vlen) or [line]
        for c in batch:
            seen.update(c.rows)
            done += len(c.rows)
    return done, seen, found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--minutes", type=float, default=1, help="for all VLENs together")
    p.add_argument("--vlen", type=int, nargs="*", default=[128, 256, 512, 1024])
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--only", help="rows whose name contains this")
    p.add_argument("--vectors", type=int, help="stop at so many vector instructions per VLEN; nothing else is drawn then")
    args = p.parse_args()
    if QEMU is None:
        sys.exit("qemu-riscv64 is not here: apt-get install qemu-user")
    rows = [r for r in ROWS if judged(r) and (not args.only or args.only in r.name) and (not args.vectors or r.cls in VECTOR_CLASSES)]
    prepare(rows)
    bad = False
    for vlen in args.vlen:
        begin = time.monotonic()
        done, seen, found = fuzz(vlen, args.seed, begin + 60 * args.minutes / len(args.vlen), rows, args.vectors or 1 << 60)
        print(f"VLEN {vlen}: {done} instructions of {len(seen)} kinds (of {len(rows)}), seed {args.seed}, {time.monotonic() - begin:.0f} s: "
              f"{len(found)} differ", flush=True)
        bad |= bool(found)
        for text in found:
            print(text)
    sys.exit(bad)


if __name__ == "__main__":
    main()
