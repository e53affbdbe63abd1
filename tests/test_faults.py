"""What a program does wrong ends with exit code 4 and says where, what and why; a file that is no program ends with exit code 1.

The cases run in processes of their own (a guest that could touch the host's memory would kill them); their texts are goldens of
tests/golden/faults (`pytest --accept` writes them). Broken and fuzzed files run through the reader in this process.
"""

from __future__ import annotations

import json
import os
import random
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rvgpu.cli import main
from rvgpu.errors import RvgpuError
from rvgpu.isa.asm import assemble
from rvgpu.sim.dwarf import read_lines
from rvgpu.sim.elf import BASE, Image, load, write_executable

NOTE = {"version": 1, "vlen": 512, "te": 64, "temps": {}, "kernels": [{
    "name": "k", "tensors": [["x", "f32", [[[], 64]], False]], "scalars": [], "dims": [], "scratchpad_bytes": 1024}]}
ONE = "bnez a1, out\nbnez a2, out\n"  # only warp 0 of CTA 0 goes on
DMA = """sd t0, 64(a3)
sd a4, 72(a3)
li t1, 2
sd t1, 80(a3)
li t1, 64
sd t1, 88(a3)
sd t1, 96(a3)
sd t1, 104(a3)
addi t2, a3, 136
"""
CASES = {  # name: (assembly after ONE, more arguments); `x`, 256 bytes, is at args[0]
    "load_null": ("ld t0, 8(zero)\n", ""),
    "load_past_dram": ("li t0, 0xffffffff0\nvsetvli t1, zero, e32, m8, ta, ma\nvle32.v v8, (t0)\n", ""),
    "load_where_addresses_wrap": ("li t0, 0x800000007ffffffc\nld t1, 0(t0)\n", ""),
    "store_where_addresses_wrap": ("li t0, 0x800000000ffffffc\nsd t1, 0(t0)\n", ""),
    "vector_over_scratchpad_end": ("li t0, 0x1003ffe0\nvsetvli t1, zero, e32, m1, ta, ma\nvse32.v v8, (t0)\n", ""),
    "stride_leaves_scratchpad": ("mv t0, a4\nli t2, 0x20000\nvsetivli t1, 4, e64, m1, ta, ma\nvlse64.v v8, (t0), t2\n", ""),
    "index_below_scratchpad": ("vsetivli t1, 4, e64, m1, ta, ma\nvid.v v8\nvrsub.vi v8, v8, 2\nvluxei64.v v9, (a4), v8\n", ""),
    "store_to_text": ("li t0, 0x80000000\nsw zero, 4(t0)\n", ""),
    "vector_store_reaches_text": ("li t0, 0x80000000\nvsetivli t1, 4, e8, m1, ta, ma\nvse8.v v8, (t0)\n", ""),
    "misaligned_atomic": ("ld t0, 0(a0)\naddi t0, t0, 2\namoadd.w t1, t1, (t0)\n", ""),
    "jump_to_data": ("ld t0, 0(a0)\njalr zero, t0, 0\n", ""),
    "jump_into_an_instruction": ("li t0, 0x80000002\njalr zero, t0, 0\n", ""),
    "jump_below_text": ("jal zero, 0x7ffffff0\n", ""),
    "run_off_the_end": ("beq zero, zero, last\n", ""),
    "ecall": ("ecall\n", ""),
    "reservation_in_a_kernel": ("ld t0, 0(a0)\nlr.w t1, (t0)\n", ""),
    "csr_that_is_not": ("csrrw zero, 0x300, zero\n", ""),
    "reserved_frm": ("csrrwi zero, 0x002, 5\nfadd.s ft0, ft1, ft2\n", ""),
    "reserved_frm_for_a_conversion": ("li t0, 0xff\ncsrrw zero, 0x003, t0\nfcvt.w.s t0, ft1\n", ""),
    "reserved_frm_for_vectors": ("csrrwi zero, 0x002, 7\nvsetvli t1, zero, e32, m1, ta, ma\nvfmin.vv v8, v8, v9\n", ""),
    "reserved_frm_for_a_vector_move": ("csrrwi zero, 0x002, 6\nvsetvli t1, zero, e32, m1, ta, ma\nvfmv.v.f v8, ft0\n", ""),
    "reserved_static_mode": (".word 0x5053\n", ""),
    "vector_before_vset": ("vadd.vv v0, v1, v2\n", ""),
    "element_width_that_is_not": ("li t0, 0x20\nvsetvl t1, zero, t0\naddi t1, t1, 1\nvadd.vv v8, v8, v8\n", ""),
    "tile_width_that_is_not": ("li t0, 0x238\nvsetvl t1, zero, t0\nsf.vsettm t1, t1\n", ""),
    "tile_rows_beyond_te": ("li t0, 0x3fff0408\nvsetvl t1, zero, t0\nsf.vtzero.t mt0\n", ""),
    "float_of_8_bits": ("vsetvli t1, zero, e8, m1, ta, ma\nvfadd.vv v8, v8, v8\n", ""),
    "misaligned_group": ("vsetvli t1, zero, e32, m2, ta, ma\nvadd.vv v8, v3, v4\n", ""),
    "wide_group_at_an_odd_number": ("vsetvli t1, zero, e16, m1, ta, ma\nvfwcvt.f.f.v v9, v4\n", ""),
    "group_past_the_file": ("vsetvli t1, zero, e16, m8, ta, ma\nvfwcvt.f.f.v v24, v8\n", ""),
    "whole_registers_misaligned": ("vl4re32.v v2, (a4)\n", ""),
    "masked_result_over_its_mask": ("vsetvli t1, zero, e32, m1, ta, ma\nvadd.vv v0, v3, v4, v0.t\n", ""),
    "tile_index": ("li t0, 64\nvsetvli t1, zero, e32, m4, ta, ma\nsf.vtmv.v.t v8, t0\n", ""),
    "tile_number": ("li t0, 0x8000000\nvsetvli t1, zero, e32, m4, ta, ma\nsf.vtmv.v.t v8, t0\n", ""),
    "control_store_to_identity": ("sd zero, 16(a3)\n", ""),
    "control_load_of_descriptor": ("ld t0, 64(a3)\n", ""),
    "control_narrow_load": ("lw t0, 0(a3)\n", ""),
    "control_narrow_store": ("sw t0, 64(a3)\n", ""),
    "control_vector": ("vsetivli t1, 4, e64, m1, ta, ma\nvle64.v v8, (a3)\n", ""),
    "control_other_atomic": ("addi t0, a3, 136\namoadd.d t1, zero, (t0)\n", ""),
    "control_narrow_swap": ("addi t0, a3, 144\namoswap.w t1, zero, (t0)\n", ""),
    "control_swap_elsewhere": ("addi t0, a3, 384\namoswap.d t1, zero, (t0)\n", ""),
    "control_of_another_warp": ("li t0, 0x1000\nadd t0, t0, a3\nld t1, 0(t0)\n", ""),
    "dma_source": ("li t0, 0x7ffffff0\n" + DMA + "amoswap.d t3, zero, (t2)\n", ""),
    "dma_destination": ("ld t0, 0(a0)\n" + DMA + "li t1, 0x10040000\nsd t1, 72(a3)\namoswap.d t3, zero, (t2)\n", ""),
    "dma_into_text": ("mv t0, a4\n" + DMA + "li t1, 0x80000000\nsd t1, 72(a3)\namoswap.d t3, zero, (t2)\n", ""),
    "dma_second_row": ("ld t0, 0(a0)\n" + DMA + "li t1, 0x40000\nsd t1, 104(a3)\namoswap.d t3, zero, (t2)\n", ""),
    "dma_index": ("ld t0, 0(a0)\n" + DMA + "li t1, -1\nsw t1, 512(a4)\naddi t1, a4, 512\nsd t1, 128(a3)\nli t1, 0x10000000\nsd t1, 96(a3)\n"
                  "amoswap.d t3, zero, (t2)\n", ""),
    "dma_index_outside": ("ld t0, 0(a0)\n" + DMA + "li t1, 8\nsd t1, 128(a3)\namoswap.d t3, zero, (t2)\n", ""),
    "dma_without_end": ("mv t0, a4\n" + DMA + "li t1, 0x800000\nsd t1, 80(a3)\nli t1, 0x20000\nsd t1, 88(a3)\nsd zero, 96(a3)\nsd zero, 104(a3)\n"
                        "amoswap.d t3, zero, (t2)\n", ""),
    "dma_fill": ("ld t0, 0(a0)\n" + DMA + "li t1, 0x50000\nsd t1, 120(a3)\namoswap.d t3, zero, (t2)\n", ""),
    "dma_configuration": ("ld t0, 0(a0)\n" + DMA + "li t1, 9\namoswap.d t3, t1, (t2)\n", ""),
    "dma_row_of_half_elements": ("ld t0, 0(a0)\n" + DMA + "li t1, 63\nsd t1, 88(a3)\nli t1, 2\namoswap.d t3, t1, (t2)\n", ""),
    "dma_negative_rows": ("ld t0, 0(a0)\n" + DMA + "li t1, -1\nsd t1, 80(a3)\namoswap.d t3, zero, (t2)\n", ""),
    # columns in turn in the scratchpad and in DRAM: each is checked where it is
    "dma_transpose_into_two_memories": ("ld t0, 0(a0)\n" + DMA + "ld t1, 0(a0)\nsub t1, t1, a4\nsd t1, 104(a3)\nli t1, 8\nsd t1, 88(a3)\nli t1, 6\n"
                                        "amoswap.d t3, t1, (t2)\nlw t4, 0(zero)\n", ""),
    "cycle_limit": ("again: addi t0, t0, 1\nj again\n", "--max-cycles 5000"),
    "cycle_limit_in_launch": ("nop\n", "--max-cycles 100"),
}
ALL_WARPS = {  # without ONE
    "deadlock_one_waits": ("bnez a2, out\naddi t1, a3, 256\nli t2, 4\namoswap.d t3, t2, (t1)\n", ""),
    "deadlock_one_never_comes": ("li t4, 2\nbeq a2, t4, out\naddi t1, a3, 264\nli t2, 4\namoswap.d t3, t2, (t1)\n", ""),
    # warps 0 and 1 wait at barrier 0 for three, 2 and 3 at barrier 5
    "deadlock_two_barriers": ("li t2, 3\naddi t1, a3, 256\nslti t4, a2, 2\nbnez t4, wait\naddi t1, t1, 40\nwait: amoswap.d t3, t2, (t1)\n", ""),
    "deadlock_of_one_cta": ("li t4, 2\nbne a1, t4, out\nbnez a2, out\naddi t1, a3, 256\nli t2, 2\namoswap.d t3, t2, (t1)\n", ""),
    "barrier_counts_differ": ("addi t1, a3, 256\naddi t2, a2, 2\namoswap.d t3, t2, (t1)\n", ""),
    "barrier_of_too_many": ("addi t1, a3, 256\nli t2, 5\namoswap.d t3, t2, (t1)\n", ""),
    "barrier_of_none": ("addi t1, a3, 256\namoswap.d t3, zero, (t1)\n", ""),
}


def line_program(text: str, file: str) -> bytes:
    """DWARF 4: one row for each instruction of the assembly, its line in the text."""
    tables = b"\0" + file.encode() + b"\0\0\0\0" + b"\0"
    head = struct.pack("<BBBbBB", 1, 1, 1, -5, 14, 13) + bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1]) + tables
    ops = b"\0\x09\x02" + struct.pack("<Q", BASE)
    line = 1
    for n, raw in enumerate(text.splitlines(), 1):
        words = len(assemble("".join(f"{name}:\n" for name in ("out", "wait", "last", "again")) + raw.split(": ")[-1])) // 4
        if words:
            ops += b"\x03" + bytes([(n - line) & 0x7F]) + b"\x01" + b"\x02" + bytes([4 * words])
            line = n
    ops += b"\0\x01\x01"
    body = struct.pack("<HI", 4, len(head)) + head + ops
    return struct.pack("<I", len(body)) + body


def executable(text: str, note: Any = NOTE, lines: bool = True) -> bytes:
    code = assemble(text)
    debug = [{".debug_line": line_program(text, "kernel.s")}] if lines else []
    return write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE}, None, debug), json.dumps(note).encode())


def sim(folder: Path, name: str, data: bytes, more: str = "") -> tuple[int, str]:
    """`rvgpu sim` as its users call it."""
    (folder / name).write_bytes(data)
    p = subprocess.run([sys.executable, "-m", "rvgpu", "sim", name, *more.split()], cwd=folder, capture_output=True, text=True, timeout=100,
                       env={k: v for k, v in os.environ.items() if k != "RVGPU_DEBUG"})
    assert "Traceback" not in p.stderr
    return p.returncode, said(name, more, p.stdout + p.stderr, p.returncode)


def said(name: str, more: str, text: str, code: int) -> str:
    return f"$ rvgpu sim {name}{' ' * bool(more)}{more}\n{text}exit {code}\n"


MANY = """import contextlib, io, json, sys
from rvgpu.cli import main
for command in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        code = main(command)
    print(json.dumps([code, out.getvalue()]), flush=True)
"""
GROUPS = ("barrier", "control", "deadlock", "dma", "tile", "other")


def group(name: str) -> str:
    return name.split("_")[0] if name.split("_")[0] in GROUPS else "other"


@pytest.mark.parametrize("which", GROUPS)
def test_fault(which, tmp_path, golden):
    """One process for a group of cases: starting Python is what they would take their time for."""
    names, commands = [n for n in {**CASES, **ALL_WARPS} if group(n) == which], []
    for name in names:
        text, more = {**CASES, **ALL_WARPS}[name]
        text = (ONE if name in CASES else "") + text + "out: jalr zero, ra, 0\n" + ("last: addi t0, t0, 1\n" if name == "run_off_the_end" else "")
        (tmp_path / f"{name}.elf").write_bytes(executable(text))
        commands.append(["sim", f"{name}.elf", *more.split()])
    p = subprocess.run([sys.executable, "-c", MANY], cwd=tmp_path, input=json.dumps(commands), capture_output=True, text=True, timeout=100)
    results = [json.loads(x) for x in p.stdout.splitlines()]
    assert p.returncode == 0, f"{names[len(results)]} ended the process: {p.returncode} {p.stderr}"
    for name, command, (code, text) in zip(names, commands, results, strict=True):
        assert code == 4, (name, text)
        golden(f"faults/{name}.txt", said(f"{name}.elf", " ".join(command[2:]), text, code))


@pytest.mark.parametrize("name", ["load_where_addresses_wrap", "deadlock_two_barriers", "cycle_limit"])
def test_fault_at_the_shell(name, tmp_path, golden):
    text, more = {**CASES, **ALL_WARPS}[name]
    code, text = sim(tmp_path, f"{name}.elf", executable((ONE if name in CASES else "") + text + "out: jalr zero, ra, 0\n"), more)
    assert code == 4
    golden(f"faults/{name}.txt", text)


def test_the_source_line_of_a_kernel(tmp_path):
    """A compiled kernel's fault names the line of the kernel's own text."""
    (tmp_path / "k.rvg").write_text("def twice(x: f32[M]) -> f32[M]:\n    return x * 2.0\n")
    p = subprocess.run([sys.executable, "-m", "rvgpu", "compile", "k.rvg", "-D", "M=4096", "--emit", "elf", "-o", "k.elf"], cwd=tmp_path)
    assert p.returncode == 0
    code, text = sim(tmp_path, "k.elf", (tmp_path / "k.elf").read_bytes(), "-D M=4096 --max-cycles 1300")
    assert code == 4 and "error[E703]: cycle limit of 1300 reached" in text and " from " in text and re.search(r"k\.rvg:[12]", text), text


# -- files that are no program
WHOLE = executable("out: jalr zero, ra, 0\n")
SECTIONS = struct.unpack_from("<Q", WHOLE, 40)[0]  # the section table is the file's end


def patched(at: int, fmt: str, *values: int) -> bytes:
    data = bytearray(WHOLE)
    struct.pack_into(fmt, data, at, *values)
    return bytes(data)


def symbol_at(value: int) -> bytes:
    image = Image(BASE, bytearray(assemble("nop\nnop\n")), (BASE, 8), {"k": value})
    return write_executable(image, json.dumps(NOTE).encode())


def long_text() -> bytes:
    words = bytearray(assemble("nop\n") * ((1 << 20) + 1))
    return write_executable(Image(BASE, words, (BASE, len(words)), {"k": BASE}), json.dumps(NOTE).encode())


BROKEN = {
    "empty": b"", "header_only": WHOLE[:40], "cut_segments": WHOLE[:80], "cut_text": WHOLE[:4098], "cut_sections": WHOLE[:-64],
    "cut_by_one": WHOLE[:-1],
    "other_machine": patched(18, "<H", 62), "class_32": patched(4, "<B", 1), "big_endian": patched(5, "<B", 2), "shared_object": patched(16, "<H", 3),
    "segment_table_far": patched(32, "<Q", 1 << 63), "segment_offset_far": patched(64 + 8, "<Q", 1 << 62),
    "segment_past_file": patched(64 + 32, "<Q", 1 << 20),
    "segment_below_memory": patched(64 + 16, "<Q", 0x1000), "segment_beyond_memory": patched(64 + 40, "<Q", 1 << 40),
    "nothing_to_load": patched(64, "<I", 4), "section_name_table": patched(62, "<H", 77), "section_far": patched(SECTIONS + 64 + 24, "<Q", 1 << 60),
    "symbol_strings": patched(SECTIONS + 2 * 64 + 40, "<I", 99), "text_too_long": long_text(),
    "kernel_before_text": symbol_at(BASE - 4), "kernel_after_text": symbol_at(BASE + 8), "kernel_in_an_instruction": symbol_at(BASE + 2),
    "kernel_at_an_odd_address": symbol_at(BASE + 1), "kernel_far": symbol_at((1 << 64) - 4),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file(name, tmp_path, monkeypatch, capsys, golden):
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.elf").write_bytes(BROKEN[name])
    code = main(["sim", f"{name}.elf"])
    got = capsys.readouterr()
    assert code == 1 and got.err.startswith("error[E") and not got.out, got
    golden(f"faults/{name}.txt", said(f"{name}.elf", "", got.err, code))


def sources() -> list[bytes]:
    """An executable, and an object as LLVM writes them: relocations, DWARF 5, many sections."""
    from rvgpu.codegen_rvgpu.riscv import compile_llvm

    text = """target triple = "riscv64-unknown-none-elf"
@table = private constant [4 x i64] [i64 3, i64 5, i64 7, i64 11]
define i64 @far(i64 %x) noinline { ret i64 %x }
define void @k(ptr %args) { %p = getelementptr i64, ptr @table, i64 2
  %v = load volatile i64, ptr %p
  %w = call i64 @far(i64 %v)
  store i64 %w, ptr %args
  ret void }
"""
    return [executable("nop\nout: jalr zero, ra, 0\n"), compile_llvm(text, 512).object]


@pytest.mark.parametrize("which", (0, 1), ids=("executable", "object"))
def test_fuzzed_files_are_read_or_refused(which):
    data, pick, refused = sources()[which], random.Random(which), 0
    spots = [n for n in range(len(data)) if data[n]] + list(range(64)) * 4 + list(range(len(data) - 64 * 8, len(data))) * 2
    for _ in range(1500):
        bad = bytearray(data[:pick.choice((len(data),) * 4 + (pick.randrange(len(data)),))])
        for _ in range(pick.randrange(1, 4)):
            at = pick.choice(spots)
            value = pick.choice((0, 1, 0x7F, 0x80, 0xFF, pick.getrandbits(8))).to_bytes(1, "little") * pick.choice((1, 1, 2, 4, 8))
            if at + len(value) <= len(bad):
                bad[at:at + len(value)] = value
        try:
            image = load(bytes(bad), 1 << 24)
        except RvgpuError as e:
            assert e.exit_code == 1
            refused += 1
        else:
            assert len(image.data) <= 1 << 24
            read_lines(image.debug)
    assert refused > 100


def test_fuzzed_line_tables():
    """A line table can say anything: it gives lines or none, in bounded time."""
    pick = random.Random(3)
    whole = [line_program(ONE + "out: jalr zero, ra, 0\n", "kernel.s")]
    for image in (load(s) for s in sources()):
        whole += [d[".debug_line"] for d in image.debug if ".debug_line" in d]
    five = struct.pack("<HBBI", 5, 8, 0, 40) + bytes([1, 1, 1, 0xFB, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1])
    many = b"\xff" * 9 + b"\x01"  # 2^64 entries of nothing, or of forms that take no byte that is there
    whole += [struct.pack("<I", len(five) + len(t)) + five + t for t in (b"\x00" + many, b"\x01\x05\x1e" + many, b"\x01\x01\x08" + many)]
    for data in whole:
        read_lines([{".debug_line": data}]).at(BASE)
        for _ in range(400):
            bad = bytearray(data)
            for _ in range(pick.randrange(1, 4)):
                bad[pick.randrange(len(bad))] = pick.choice((0, 1, 0xFF, pick.getrandbits(8)))
            read_lines([{".debug_line": bytes(bad)}]).at(BASE)
