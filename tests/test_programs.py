"""Bare-metal programs in C and assembly, built here: what they say and how they end, against QEMU's user mode or counted by hand.

The reference engine (CPython) must agree with the compiled one; faults of programs are documented errors whose texts are goldens.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rvgpu.cli import main
from rvgpu.isa.machine import load_machine
from rvgpu.sim.board import Board
from rvgpu.sim.reference import Reference
from tests.programs_build import gcc, linux, picolibc, zig

PLAIN = ("traps", "semihost", "counters")
DEADLINE = 20_000_000


def run(elf: Path, *, machine: str = "base", harts: int = 1, engine: Reference | None = None, **more):
    """(what it said, its exit code, cycles, instructions)"""
    said = []
    board = Board(load_machine(machine, more.pop("overrides", {})), elf.read_bytes(), harts=harts, max_cycles=DEADLINE, engine=engine,
                  say=said.append, **more)
    end = board.run()
    return b"".join(said).decode(), end.code, end.cycles, board.finish().instructions


@pytest.mark.parametrize("vlen", (128, 512))
@pytest.mark.parametrize("name", ("sort", "saxpy"))
def test_says_what_it_says_under_qemu(name, vlen):
    sizes = {"vector.vlen": vlen, "vector.dlen": min(vlen, 256), "matrix.te": 16}
    assert run(zig("crt0.S", f"{name}.c"), overrides=sizes)[:2] == linux(f"{name}.c", vlen)


@pytest.mark.parametrize("name", ("sort", "saxpy"))
def test_the_same_file_runs_under_qemu(name):
    """An executable for Linux that brings its own start: `ecall` writes and exits."""
    assert run(zig("linux.S", f"{name}.c", script=None, defines=("LINUX",)))[:2] == linux(f"{name}.c")


def test_vectors_without_fault_only_first():
    """1,000 elements: sum of 1000 - i + 1.5 i = 1,249,750."""
    assert run(zig("crt0.S", "saxpy.c", defines=("NO_FF",)))[:2] == ("wrong 0 sum 1249750 vlenb 64\n", 0)


def test_the_known_crc_and_another_compiler():
    said, code, *_ = run(zig("crt0.S", "sort.c"))
    assert "crc cbf43926" in said and code == 3  # the check value of CRC-32
    built = gcc("crt0.S", "sort.c", options=("-nostdlib", "-ffreestanding", f"-T{Path(__file__).parent / 'programs' / 'link.ld'}", "-lgcc"))
    assert run(built)[:2] == (said, 3)


@pytest.mark.parametrize("name,code", [("traps", 0), ("semihost", 42), ("counters", 0)])
@pytest.mark.parametrize("machine", ("base", "edge", "xl"))
def test_checks_itself(name, code, machine):
    """Traps, semihosting and counters: the programs compare with what the specifications say, and their exit code is the verdict."""
    said, got, *_ = run(zig(f"{name}.S"), machine=machine)
    assert (said, got) == ("hello! text\n" if name == "semihost" else "", code)


def test_text_in_writable_memory_changes_at_fence_i():
    assert run(zig("selfmod.S", script="rwx.ld"))[1] == 0


@pytest.mark.parametrize("harts", (1, 2, 4, 5, 8, 13))
def test_harts(harts):
    """Locks, counters and a stack by lr/sc, on up to four cores; the same every time."""
    elf = zig("crt0.S", "harts.c", defines=(f"HARTS={harts}",))
    first = run(elf, harts=harts)
    said = f"guarded {50 * harts} added {25 * harts * (harts - 1)} reserved {50 * harts} nodes 4\n"
    assert first[:2] == (said, 0)
    assert run(elf, harts=harts) == first
    assert run(elf, harts=harts, timing=False)[:2] == (said, 0)


def test_a_lock_that_is_none_is_seen():
    """With plain stores in place of the swap, increments get lost."""
    said, code, *_ = run(zig("crt0.S", "harts.c", defines=("HARTS=8", "NO_LOCK")), harts=8)
    assert code == 1 and "guarded 400" not in said


@pytest.mark.parametrize("timing", (True, False))
@pytest.mark.parametrize("name,harts,more", [("traps.S", 1, {}), ("semihost.S", 1, {}), ("counters.S", 1, {}), ("selfmod.S", 1, {"script": "rwx.ld"}),
                                             ("harts.c", 5, {"defines": ("HARTS=5", "ROUNDS=3")})])
def test_reference_engine_agrees(name, harts, more, timing):
    """Byte for byte and cycle for cycle."""
    elf = zig(*(("crt0.S", name) if name.endswith(".c") else (name,)), **more)
    first = run(elf, harts=harts, timing=timing)
    assert run(elf, harts=harts, engine=Reference(), timing=timing) == first
    assert first[1] in (0, 42) or not timing and name == "counters.S"  # (which counts cycles)


def test_c_library():
    """picolibc's start-up code copies .data from flash to RAM, clears .bss, sets mtvec; printf and exit go through semihosting."""
    assert run(picolibc("hello.c"))[:2] == ("hart lane tile warp: -7 1.414 3.33333333333333e+99\n", 7)


def test_timing_does_not_change_results():
    """A program that reads no counter says the same on every machine; more latency, more cycles."""
    elf = zig("crt0.S", "sort.c")
    one, slow = run(elf), run(elf, overrides={"dram.latency_cycles": 4000})
    assert one[:2] == slow[:2] == run(elf, timing=False)[:2] and one[3] >= 20_000 and slow[2] > one[2]


# -- the command

def command(*args):
    p = subprocess.run([sys.executable, "-m", "rvgpu", "sim", *map(str, args)], capture_output=True, text=True, timeout=100)
    return p.returncode, p.stdout, p.stderr


def test_command_line(tmp_path):
    elf = zig("crt0.S", "sort.c")
    code, out, err = command(elf, "--trace", tmp_path / "t.pftrace")
    said, want, cycles, instructions = run(elf)
    assert (code, out) == (3, said) == (want, said) and f"exit code    {code}" in err and f"{cycles:,}" in err and "core-cycles  issued" in err
    code, out, err = command(elf, "--json")
    stats = json.loads(out)
    assert (code, err, stats["console"], stats["exit_code"], stats["cycles"], stats["instructions"]) == (3, said, said, 3, cycles, instructions)
    assert abs(sum(stats["stalls"].values()) - 1) < 1e-9 and stats["ipc"] == instructions / cycles
    trace = (tmp_path / "t.pftrace").read_bytes()
    assert b"program+" in trace and b"sort.c:" in trace  # symbols and lines
    assert command(elf, "--timing", "none", "--json")[0] == 3
    assert command(elf, "--memory", "1K")[0] == 1 and command(elf, "--harts", "33")[0] == 2 and command(elf, "-D", "M=3")[0] == 2


@pytest.mark.parametrize("case", range(1, 17))
def test_program_that_goes_wrong(case, monkeypatch, capsys, golden):
    """An error of the documented kind with the place in the source."""
    elf = zig("bad.S", defines=(f"CASE={case}",))
    monkeypatch.chdir(elf.parent)
    (elf.parent / f"bad{case}.elf").write_bytes(elf.read_bytes())
    code = main(["sim", f"bad{case}.elf", "--max-cycles", "400000", "--memory", "256K"])
    got = capsys.readouterr()
    assert code == 4 and got.err.startswith("error[E70") and not got.out, got
    golden(f"programs/bad{case}.txt", got.err.replace(str(Path(__file__).parent), "tests"))


def test_exit_codes_that_do_not_fit(capsysbinary):
    for code, status in ((0, 0), (255, 255), (256, 255), (-1, 255), (1 << 40, 255)):
        elf = zig("exit.S", defines=(f"CODE={code}",))
        assert main(["sim", str(elf), "--json"]) == status
        assert json.loads(capsysbinary.readouterr().out)["exit_code"] == code
