"""Random programs of every judged instruction: QEMU's state after them is ours (tests/qemu_judge.py). Debian's qemu-user is needed."""

from __future__ import annotations

import os
import random
import struct
import time
from dataclasses import replace

import pytest

from rvgpu.isa.rows import ROWS
from tests.qemu_judge import EXCLUDED, QEMU, Case, Vtype, assemble_words, compare, draw_case, draw_vtype, fuzz, judged, prepare

pytestmark = pytest.mark.skipif(QEMU is None and not os.environ.get("CI"), reason="NOT JUDGED: qemu-riscv64 is missing (apt-get install qemu-user)")
JUDGED = [r for r in ROWS if judged(r)]


@pytest.fixture(scope="module", autouse=True)
def handlers():
    prepare(JUDGED)


@pytest.mark.slow
@pytest.mark.parametrize("vlen,seed", [(128, 1), (256, 2), (512, 3), (1024, 4)])
def test_random_programs(vlen, seed):
    """At least 4,800 instructions, or as many as 30 seconds take (`make fuzz` goes on for longer)."""
    done, seen, found = fuzz(vlen, seed * 1_000_000, time.monotonic() + 30, JUDGED, most=4800)
    assert not found, "\n".join(found)
    assert done >= 2400 and len(seen) > 0.8 * len(JUDGED)


def test_every_row_is_judged_or_excluded_for_a_reason():
    left = {r.name for r in ROWS if not judged(r)}
    assert all(EXCLUDED.values()) and len(left) < 75, sorted(left)


def test_a_wrong_instruction_is_seen():
    """`vsub` where `vadd` was meant, or one lane less: the judge sees it."""
    add = next(r for r in JUDGED if r.name == "vadd.vv")
    case = draw_case(1, 256, [add], 1)
    case = Case(Vtype(2, 8, 8), [add.match | 1 << 25 | 4 << 7 | 8 << 15 | 12 << 20], case.block, case.memory, 1)
    assert compare([case], 256) == []
    subtracts, less = [case.words[0] ^ 2 << 26], Vtype(2, 8, 7)
    for other in (Case(case.vtype, subtracts, case.block, case.memory, 1), Case(less, case.words, case.block, case.memory, 1)):
        assert len(compare([case], 256, [other])) == 1


def test_a_wrong_mode_and_a_wrong_flag_are_seen():
    """1/3 under another mode than the judge's, and with fflags left as they were."""
    divide = next(r for r in JUDGED if r.name == "fdiv.s")
    case = draw_case(1, 256, [divide], 1, True)
    block = bytearray(case.block)
    block[128:144] = struct.pack("<fIfI", 1, 0xFFFFFFFF, 3, 0xFFFFFFFF)
    up = Case(case.vtype, [divide.match | 7 << 12 | 2 << 7 | 1 << 20], bytes(block), case.memory, 1, frm=3)
    assert compare([up], 256) == []
    assert "f2:" in compare([up], 256, [replace(up, frm=1)])[0]
    cleared = replace(up, words=[*up.words, *assemble_words("csrrci zero, 0x001, 1")])
    assert "fcsr:" in compare([up], 256, [cleared])[0]


def test_vtypes_reach_every_width_and_group():
    pick = random.Random(0)
    drawn = {(v.sew, v.lmul) for v in (draw_vtype(pick, 256) for _ in range(2000))}
    assert drawn == {(s, m) for s in range(4) for m in (1, 2, 4, 8, 16, 32, 64) if 8 << s <= 8 * m}
