"""Checked mode: every seeded bug of tests/bugs is found at its line, its corrected form runs without a finding, and so do correct kernels.

A file of tests/bugs is a program of hand-written assembly: lines that start with `-` are the bug's, those with `+` the correction's. Its head
says what kind of finding the bug is and of which warp; `# <-- here` marks the line that the finding must name, `# <-- other` a race's other
party. The texts of all findings are goldens.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rvgpu.cli import main
from rvgpu.errors import RvgpuError
from rvgpu.ir.parse import parse
from rvgpu.ir.text import print_funcs
from rvgpu.isa.asm import assemble
from rvgpu.isa.machine import load_machine
from rvgpu.isa.rows import ROWS
from rvgpu.passes.pipeline import parse_passes
from rvgpu.runtime.code import make_code
from rvgpu.runtime.kernel import Kernel
from rvgpu.runtime.launch import run_code
from rvgpu.sim.check import rule
from rvgpu.sim.checker import Finding
from rvgpu.sim.device import Deadlock, Device
from rvgpu.sim.elf import BASE, Image, write_executable
from rvgpu.sim.reference import Reference
from tests.test_zoo import ZOO, inputs

ROOT = Path(__file__).parents[1]
BUGS = {p.stem: p for p in sorted((ROOT / "tests" / "bugs").glob("*.s"))}
SHAPE, SCRATCHPAD = (64, 16), 8192
TENSORS = [["x", "f32", [[[], n] for n in SHAPE], False], ["y", "f32", [[[], n] for n in SHAPE], True]]
NOTE = {"version": 1, "vlen": 512, "te": 64, "temps": {}, "kernels": [{
    "name": "k", "tensors": TENSORS, "scalars": [], "dims": [], "scratchpad_bytes": SCRATCHPAD}]}


def form(path: Path, fixed: bool) -> str:
    """The bug or its correction; lines keep their numbers."""
    away = "-" if fixed else "+"
    return "".join(("" if line[:1] == away else line.lstrip("-+")) + "\n" for line in path.read_text().splitlines())


def line_program(text: str, file: str) -> bytes:
    """DWARF 4: a row for each line that has instructions."""
    labels = "".join(f"{name}:\n" for name in re.findall(r"^\s*(\w+):", text, re.M))
    ops, last = b"\0\x09\x02" + struct.pack("<Q", BASE), 1
    for n, raw in enumerate(text.splitlines(), 1):
        if words := len(assemble(labels + raw.split("#")[0].split(": ")[-1])) // 4:
            delta = n - last
            ops += b"\x03" + (bytes([delta]) if delta < 64 else bytes([delta & 127 | 128, delta >> 7])) + b"\x01\x02"
            ops += bytes([4 * words]) if words < 32 else bytes([4 * words & 127 | 128, 4 * words >> 7])
            last = n
    ops += b"\0\x01\x01"
    head = struct.pack("<BBBbBB", 1, 1, 1, -5, 14, 13) + bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1]) + b"\0" + file.encode() + b"\0\0\0\0\0"
    body = struct.pack("<HI", 4, len(head)) + head + ops
    return struct.pack("<I", len(body)) + body


def program(text: str, file: str) -> bytes:
    code = assemble(text, file=file)
    image = Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE}, None, [{".debug_line": line_program(text, file)}])
    return write_executable(image, json.dumps(NOTE).encode())


def launched(text: str, file: str = "k.s", ctas: int = 8, **options) -> Device:
    """Runs a program as `rvgpu sim` does, in checked mode."""
    dev = Device(load_machine("base"), memory_bytes=1 << 24, **{"sanitize": True, **options})
    loaded = dev.load(program(text, file))
    x = dev.alloc(4 * 64 * 16, "x", SHAPE)
    dev.write(x, np.arange(1024, dtype=np.float32))
    y = dev.alloc(4 * 64 * 16, "y", SHAPE)
    dev.loaded, dev.y = loaded, y
    dev.launch(loaded, "k", [x, y, 0, 64], ctas=ctas, scratchpad_bytes=SCRATCHPAD)
    return dev


def expected(path: Path) -> tuple[str, int, int, int | None]:
    """kind, warp, line, the other party's line."""
    lines = path.read_text().splitlines()
    marks = {word: n for n, line in enumerate(lines, 1) for word in ("here", "other") if "# <--" in line and word in line.split("# <--")[1].split()}
    head = dict(re.match(r"# (\w+): (\w.*)", line).groups() for line in lines[1:3])
    return head["kind"], int(head["warp"]), marks["here"], marks.get("other")


@pytest.mark.parametrize("name", BUGS)
def test_bug(name, golden):
    path = BUGS[name]
    kind, warp, here, other = expected(path)
    dev_error: RvgpuError
    with pytest.raises((Finding, Deadlock)) as caught:
        launched(form(path, False), path.name)
    dev_error = caught.value
    text = dev_error.render()
    if kind == "deadlock":
        assert isinstance(dev_error, Deadlock) and f"core 0 warp {warp} waits" in text and f"{path.name}:{here}" in text
    else:
        assert (dev_error.kind, dev_error.warp) == (kind, warp), text
        assert f"from {path.name}:{here}\n" in dev_error.notes[0].text + "\n", text
        if kind == "race":
            assert f"from {path.name}:{other}\n" in dev_error.notes[-1].text + "\n", text
    golden(f"check/{name}.txt", text + "\n")


@pytest.mark.parametrize("name", BUGS)
def test_corrected(name):
    launched(form(BUGS[name], True), BUGS[name].name).finish()


# -- compiled kernels with one thing changed in their level K text
def without(pattern: str, at: int = 0):
    """The text without the line that is hit number `at`."""
    def edit(text):
        hit = list(re.finditer(rf"^ *{pattern}.*\n", text, re.M))[at]
        return text[:hit.start()] + text[hit.end():]
    return edit


def changed(pattern: str, new: str):
    def edit(text):
        out, n = re.subn(pattern, new, text, count=1)
        assert n == 1
        return out
    return edit


def other_stage(text):
    """What is computed reads the stage that is being filled."""
    (filled,) = set(re.findall(r"(%\d+) = idx\.select\(%\d+, %\d+, %parity\)", text))
    return changed(r"(mem\.at\(%\d+, )%parity", rf"\g<1>{filled}")(text)


def rows_more(text):
    """The first transfer brings a thousand rows (N of them)."""
    return changed(r"(dma\.load\(%\d+, %\d+, )(%\d+), (%\d+), \2, \3", r"\1\3, \3, \3, \3")(text)


GEMM, ATTENTION = {"M": 200, "N": 200, "K": 200}, {"B": 1, "G": 1, "R": 2, "S": 40, "T": 90, "D": 32}
PASSES = {"gemm": "+tile{wm=1,wn=2,im=1,jn=2,bk=32}", "attention": "+tile{wm=4}"}  # warps that meet at barriers
MUTANTS = {  # name: kernel of the zoo, dims, the change, the finding's kind, line and the other party's line
    "gemm_without_wait": ("gemm", GEMM, without(r"dma\.wait"), "race", 3, 3),
    "gemm_without_barrier": ("gemm", GEMM, without(r"bar\(.*id=0"), "race", 3, 3),
    "gemm_without_zero": ("gemm", GEMM, without(r"acc\.zero"), "undefined", 3, None),
    "gemm_stages_of_one_size_less": ("gemm", GEMM, changed(r"offset_bytes=32768", "offset_bytes=14336"), "race", 3, 3),
    "gemm_fill_forgotten": ("gemm", {"M": 30, "N": 40, "K": 23}, lambda t: re.sub(r"(dma\.load\(%\d+, %\d+, (%\d+, %\d+), )%\d+, %\d+", r"\1\2", t),
                            "undefined", 3, None),
    "softmax_without_wait": ("row_softmax", {"M": 40, "N": 1000}, without(r"dma\.wait"), "race", 10, 10),
    "softmax_other_stage": ("row_softmax", {"M": 128, "N": 1000}, other_stage, "race", 10, 10),
    "softmax_row_more": ("row_softmax", {"M": 32, "N": 1000}, rows_more, "outside", 10, None),
    "attention_without_wait": ("attention", ATTENTION, without(r"dma\.wait"), "race", 18, 18),
    "attention_without_barrier": ("attention", ATTENTION, without(r"bar\("), "race", 18, 18),
    "attention_second_zero": ("attention", ATTENTION, without(r"acc\.zero", 1), "undefined", 18, None),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_of_a_compiled_kernel(name):
    of, dims, edit, kind, line, other = MUTANTS[name]
    kernel, machine = Kernel(ZOO[of]), load_machine("base")
    arrays, scalars = inputs(kernel, dims)
    given = dict(zip((p.name for p in kernel.func.params if not p.keyword), arrays, strict=True))
    text = print_funcs(kernel.compile("base", passes=parse_passes(PASSES.get(of, "+")), **dims).units(dims))
    run_code(make_code(list(parse(text, "k.tile")), machine), machine, dims, given, scalars, sanitize=True)
    with pytest.raises(Finding) as caught:
        run_code(make_code(list(parse(edit(text), "k.tile")), machine), machine, dims, given, scalars, sanitize=True)
    said = caught.value.render()
    assert caught.value.kind == kind and f"zoo.rvg:{line}:" in caught.value.notes[0].text, said
    assert other is None or f"zoo.rvg:{other}:" in caught.value.notes[-1].text, said


# -- what is no bug
def test_launches_are_ordered_and_scratchpad_is_not_handed_on():
    """What an earlier launch wrote may be read by any CTA; what an earlier CTA of the core left in the scratchpad may not."""
    text = "bnez a2, out\nld s2, 0(a0)\nld s3, 8(a0)\nslli t0, a1, 6\nadd s3, s3, t0\nvsetivli zero, 16, e32, m1, ta, ma\n"
    body = "vle32.v v8, (s2)\nvse32.v v8, (s3)\n"
    dev = launched(text + body + "out: jalr zero, ra, 0\n")
    dev.launch(dev.loaded, "k", [dev.y, dev.y + 512, 0, 64], ctas=8, scratchpad_bytes=SCRATCHPAD)
    left = text + "li t1, 8\nbeq a1, t1, late\n" + body.replace("s3", "a4") + "j out\nlate: " + body.replace("s2", "a4") + "out: jalr zero, ra, 0\n"
    launched(left, ctas=8)
    with pytest.raises(Finding) as caught:
        launched(left, ctas=9)
    assert (caught.value.kind, caught.value.cta) == ("undefined", 8)


def test_atomics_do_not_race():
    """Two warps add to one word; a flag that is set and asked for by ordered atomics orders what stands before and after."""
    text = """  bnez a1, out
  li t0, 2
  bge a2, t0, out
  ld s3, 8(a0)
  li t1, 1
  amoadd.w zero, t1, (s3)
  bnez a2, reader
  sw t1, 0(a4)
  addi t2, s3, 64
  amoswap.w.rl zero, t1, (t2)
  j out
reader: addi t2, s3, 64
wait: amoadd.w.aq t3, zero, (t2)
  beqz t3, wait
  lw t4, 0(a4)
  sw t4, 128(s3)
out: jalr zero, ra, 0
"""
    def run(program):
        dev = Device(load_machine("base"), memory_bytes=1 << 24, sanitize=True)
        loaded = dev.load(program_of(program))
        y = dev.alloc(4096, "y", (1024,))
        dev.write(y, bytes(4096))
        dev.launch(loaded, "k", [y, y, 0, 64], ctas=8, scratchpad_bytes=64)
        return dev.read(y + 128, 4)

    def program_of(text):
        return program(text, "k.s")

    assert run(text) == b"\1\0\0\0"
    with pytest.raises(Finding) as caught:
        run(text.replace(".aq", "").replace(".rl", ""))
    assert caught.value.kind == "race"


def test_spills_and_whole_registers_carry_what_is_undefined():
    """Registers that nothing wrote are saved, moved and taken back without a finding; a store to a tensor then has one, at its own line."""
    text = """  bnez a1, out
  bnez a2, out
  ld s3, 8(a0)
  addi sp, sp, -256
  vs2r.v v4, (sp)
  sd s7, 128(sp)
  vmv2r.v v6, v4
  vl2re8.v v8, (sp)
  ld s7, 128(sp)
  addi sp, sp, 256
  vsetivli zero, 16, e32, m1, ta, ma
"""
    launched(text + "out: jalr zero, ra, 0\n")
    for register in ("v6", "v9"):
        with pytest.raises(Finding) as caught:
            launched(text + f"  vse32.v {register}, (s3)\nout: jalr zero, ra, 0\n")
        assert caught.value.kind == "undefined" and "from k.s:12" in caught.value.notes[0].text


# -- both engines, seeds, the command line
def state_of(dev: Device) -> tuple[bytes, ...]:
    """Shadow state without host addresses."""
    shadows = [bytes(getattr(s, name)) if hasattr(getattr(s, name), "_length_") else getattr(s, name).to_bytes(8, "little", signed=name != "tiles")
               for s in dev.checker.shadows for name, *_ in s._fields_ if name not in ("tiles", "flags")]
    return (b"".join(shadows), *(a.tobytes() for a in dev.checker.arrays()))


BOTH = ("dma_missing_fill", "dma_index_out_of_range", "tile_row_outside", "stale_mask", "compressed_tail", "operand_too_short", "barrier_of_pairs",
        "spill_slot_not_written", "sum_of_one_element", "index_lanes_agnostic", "ctas_write_one_row", "float_not_loaded")


@pytest.mark.parametrize("name", BOTH)
def test_engines_agree(name):
    """CPython's run of the same rules: the same finding, and in the corrected form the same shadow state, bit for bit."""
    path = BUGS[name]
    said = []
    for make in (lambda: None, Reference):
        with pytest.raises(Finding) as caught:
            launched(form(path, False), path.name, engine=make())
        said.append(caught.value.render())
    assert said[0] == said[1]
    ours, reference = (state_of(launched(form(path, True), path.name, engine=make())) for make in (lambda: None, Reference))
    assert ours == reference


def test_latency_seeds():
    """A correct kernel gives the same bytes under every seed, at other cycles, and the same cycles under the same seed."""
    kernel = Kernel(ZOO["gemm"])
    arrays, scalars = inputs(kernel, {"M": 100, "N": 70, "K": 90})
    compiled = kernel.compile("base")
    runs = [compiled.run(*arrays, latency_seed=seed, sanitize=n == 3, **scalars) for n, seed in enumerate([None, 1, 2, 3, 1])]
    assert len({r.out.tobytes() for r in runs}) == 1
    assert len({r.cycles for r in runs[:4]}) == 4 and runs[1].cycles == runs[4].cycles
    assert abs(sum(runs[1].stats["stalls"].values()) - 1) < 1e-9


def test_latency_seeds_shake_a_race():
    """Two warps that write one byte: the plain run always gives the same, some seed gives the other order."""
    text = "bnez a1, out\nli t0, 2\nbge a2, t0, out\nld s3, 8(a0)\n" + "addi t1, a2, 1\n" * 8 + "sb t1, 0(s3)\nout: jalr zero, ra, 0\n"
    seen = {seed: dev.read(dev.y, 1) for seed in (None, *range(12)) for dev in (launched(text, sanitize=False, latency_seed=seed),)}
    assert set(seen.values()) == {b"\1", b"\2"}


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for fixed, code in ((False, 4), (True, 0)):
        (tmp_path / "dma_no_wait.elf").write_bytes(program(form(BUGS["dma_no_wait"], fixed), "dma_no_wait.s"))
        assert main(["sim", "dma_no_wait.elf", "--sanitize"]) == code
        got = capsys.readouterr()
        if fixed:
            assert "  sanitize     no finding\n" in got.out and not got.err
        else:
            assert got.err == (ROOT / "tests" / "golden" / "check" / "dma_no_wait.txt").read_text() and not got.out
    zoo = str(ROOT / "examples" / "zoo.rvg")
    assert main(["run", zoo, "--kernel", "row_softmax", "-D", "M=9", "-D", "N=70", "--check", "--sanitize", "--latency-seed", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sanitize"] == {"findings": 0}


def test_at_the_shell(tmp_path):
    (tmp_path / "b.elf").write_bytes(program(form(BUGS["stale_mask"], False), "stale_mask.s"))
    p = subprocess.run([sys.executable, "-m", "rvgpu", "sim", "b.elf", "--sanitize"], cwd=tmp_path, capture_output=True, text=True)
    assert (p.returncode, p.stdout) == (4, "") and p.stderr == (ROOT / "tests" / "golden" / "check" / "stale_mask.txt").read_text()


def test_too_many_ctas_are_refused():
    with pytest.raises(RvgpuError, match="E721"):
        launched("jalr zero, ra, 0\n", ctas=40_000)


def test_every_kind_of_instruction_has_a_rule():
    assert not {r.kind for r in ROWS if rule(r) is None}, "add the kind to sim/check.py"
