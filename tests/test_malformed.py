"""Malformed input: an error of a documented kind each time, never a crash, a hang, our traceback or a huge allocation.

Some hundred cases in every run; `make malformed` has 10,000 of each kind of file. Cases run in a process of their own
(tests/malformed.py); hypothesis prints what failed and how to repeat it.
"""

from __future__ import annotations

import json
import os
import random
import struct
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvgpu.isa.asm import assemble
from rvgpu.isa.machine import FOLDER
from rvgpu.isa.rows import ROWS
from rvgpu.sim.elf import BASE, Image, write_executable
from tests.malformed import Worker, documented
from tests.programs_build import zig

NOTE = {"version": 1, "vlen": 512, "te": 64, "temps": {}, "kernels": [{
    "name": "k", "tensors": [["x", "f32", [[[], 64]], False]], "scalars": [], "dims": [], "scratchpad_bytes": 1024}]}
FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=int(os.environ.get("RVGPU_CASES", "600")), deadline=None, suppress_health_check=list(HealthCheck))
LIMITS = ["--max-cycles", "20000"]


@pytest.fixture(scope="module")
def worker():
    w = Worker()
    yield w
    w.close()


@pytest.fixture(scope="module")
def files():
    """Valid executables: small ones, so that a flipped bit hits something; with symbols and line tables, one with kernels."""
    code = assemble("nop\njalr zero, ra, 0\n")
    kernel = write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE}), json.dumps(NOTE).encode())
    return {"program": zig("crt0.S", "sort.c").read_bytes(), "traps": zig("traps.S").read_bytes(),
            "writable": zig("selfmod.S", script="rwx.ld").read_bytes(),
            "semihosting": zig("semihost.S").read_bytes(), "kernel": kernel}


def damaged(data: bytes, seed: int) -> bytes:
    """Flipped bits, extreme numbers, a cut."""
    pick, out = random.Random(seed), bytearray(data)
    phoff, shoff = struct.unpack_from("<QQ", data, 32)
    _, phnum, _, shnum = struct.unpack_from("<HHHH", data, 54)
    places = ([*range(64), *range(phoff, phoff + 56 * phnum)], [*range(shoff, min(len(data), shoff + 64 * shnum))],
              [n for n in range(len(data)) if data[n]])
    for _ in range(pick.choice((1, 1, 2, 4, 30))):
        at = pick.choice(pick.choices(places, (2, 1, 7))[0])
        if pick.random() < 0.6:
            out[at] ^= 1 << pick.randrange(8)
        else:
            size = pick.choice((1, 2, 4, 8))
            value = pick.choice((0, 1, 0x7F, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1, BASE, BASE + 4096, 0x1000_0000, len(data)))
            at = at // size * size
            out[at:at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    if pick.random() < 0.1:
        del out[pick.randrange(len(out)):]
    return bytes(out)


def files_are_refused_or_run(files, worker, folder, how):
    names = sorted(files)
    seen = {}

    @how
    @given(st.integers(0, (1 << 64) - 1))
    def check(seed):
        name = names[seed % len(names)]
        more = (["--harts", "5"], ["--timing", "none"], ["--memory", "1M"], [])[seed // 8 % 4]
        data = damaged(files[name], seed)
        path = folder / "case.elf"
        path.write_bytes(data)
        status, said = worker(["sim", str(path), *LIMITS, *(() if name == "kernel" else more)])
        assert documented(status, said), (status, said)
        code = said.partition("[")[2][:4] or "ran"
        seen[code] = seen.get(code, 0) + 1

    check()
    print(sorted(seen.items()))
    assert len(seen) >= 6, seen  # the cases reach far: many kinds of end
    assert seen.get("ran", 0) < 0.7 * sum(seen.values())


def test_damaged_files(files, worker, tmp_path):
    files_are_refused_or_run(files, worker, tmp_path, FEW)


@pytest.mark.slow
def test_many_damaged_files(files, worker, tmp_path):
    files_are_refused_or_run(files, worker, tmp_path, MANY)


# -- text that is not what a compiler writes

def program(words: list[int], flags: int) -> bytes:
    """An executable of one segment: words of text, then 4 KiB of memory, at DRAM's base."""
    text = struct.pack(f"<{len(words)}I", *words)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + b"\0" * 9, 2, 243, 1, BASE, 64, 0, 5, 64, 56, 1, 64, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, flags, 120, BASE, BASE, len(text), len(text) + 4096, 4096) + text


def draw_words(pick: random.Random) -> list[int]:
    """Any words, and instructions with any operands; some registers hold addresses first."""
    setup = assemble("auipc s0, 1\nauipc a0, 0\nli sp, 0x10000000\nli a1, 0x02000000\nvsetvli t0, zero, e32, m1, ta, ma\nmv s1, s0\n")
    out = list(struct.unpack(f"<{len(setup) // 4}I", setup))
    for _ in range(pick.randrange(1, 40)):
        row = pick.choice(ROWS)
        out.append(pick.getrandbits(32) if pick.random() < 0.1 else row.match | pick.getrandbits(32) & ~row.mask)
    return out


def random_text_is_executed_or_faults(worker, folder, how):
    seen = {}

    @how
    @given(st.integers(0, (1 << 64) - 1))
    def check(seed):
        data = program(draw_words(random.Random(seed)), (5, 7)[seed % 2])
        more = ([], ["--harts", "6"], ["--timing", "none"])[seed % 3]
        path = folder / "case.elf"
        path.write_bytes(data)
        status, said = worker(["sim", str(path), *LIMITS, *more])
        assert documented(status, said), (status, said)
        code = said.partition("[")[2][:4] or "ran"
        seen[code] = seen.get(code, 0) + 1

    check()
    assert seen.get("E701", 0) > 0.5 * sum(seen.values()), seen


def test_random_text(worker, tmp_path):
    random_text_is_executed_or_faults(worker, tmp_path, FEW)


@pytest.mark.slow
def test_much_random_text(worker, tmp_path):
    random_text_is_executed_or_faults(worker, tmp_path, MANY)


# -- machines

BASE_MACHINE = tomllib.loads((FOLDER / "base.toml").read_text())
FIELDS = [f"{part}.{name}" for part, fields in BASE_MACHINE.items() if isinstance(fields, dict) for name in fields]
VALUES = st.one_of(st.integers(-2, 70), st.sampled_from((-1 << 63, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 63, 1 << 200, 1 << 28, 1 << 20, 4096)),
                   st.integers(0, 40).map(lambda n: 1 << n),
                   st.sampled_from(("nan", "inf", "-inf", "1e-300", "1e300", "0.5", "true", '""', "[]", "{}", "1e")))


def absurd_machines_are_refused_or_run(files, worker, folder, how):
    (folder / "traps.elf").write_bytes(files["traps"])

    @how
    @given(st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3), st.booleans())
    def check(values, as_file):
        sets = [a for k, v in values.items() for a in ("--set", f"{k}={v}")]
        if as_file:
            text = dict(BASE_MACHINE)
            lines = []
            for part, fields in text.items():
                if isinstance(fields, dict):
                    lines.append(f"[{part}]")
                    lines += [f"{n} = {values.get(f'{part}.{n}', str(x).lower())}" for n, x in fields.items()]
            (folder / "m.toml").write_text("\n".join(lines))
            sets = ["--machine", str(folder / "m.toml")]
        status, said = worker(["sim", str(folder / "traps.elf"), *LIMITS, *sets])
        assert documented(status, said), (status, said)

    check()


def test_absurd_machines(files, worker, tmp_path):
    absurd_machines_are_refused_or_run(files, worker, tmp_path, FEW)


@pytest.mark.slow
def test_many_absurd_machines(files, worker, tmp_path):
    absurd_machines_are_refused_or_run(files, worker, tmp_path, MANY)


def test_the_watch_sees_a_crash_and_a_hang(monkeypatch):
    """The judge itself: a process that dies, and one that does not answer."""
    from tests import malformed

    w = Worker()
    assert documented(*w(["sim", "/nothing/here.elf"]))
    os.kill(w.process.pid, 9)
    with pytest.raises((AssertionError, BrokenPipeError)):
        w(["sim", "/nothing/here.elf"])
    w = Worker()
    w(["sim", "/nothing/here.elf"])
    os.kill(w.process.pid, 19)  # stopped
    monkeypatch.setattr(malformed, "SECONDS", 1)
    with pytest.raises(AssertionError, match="no answer"):
        w(["sim", "/nothing/here.elf"])
    assert not documented(70, "error[E900]: internal error: x") and not documented(1, "Traceback") and documented(4, "error[E701]: x")
