"""Rows against words made by independent assemblers, and against each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvgpu.isa.codec import decode, disasm, encode
from rvgpu.isa.rows import FORMATS, ROWS

DATA = Path(__file__).parent / "data" / "encodings.txt"
LATER = ("sf.vfexpa", "sf.vfwmacc.4x4x4", "sf.vq", "sf.vfnrclip", "vqdot", "sf.vc", "mop", "sf.mm.e5m2", "sf.mm.e4m3")
LINES = [line.split(maxsplit=1) for line in DATA.read_text().splitlines() if line.strip()]


@pytest.mark.parametrize("word,text", [(w, t.strip()) for w, t in LINES if not t.strip().startswith(LATER)])
def test_vendor_words(word, text):
    d = decode(int(word, 16))
    assert d is not None, text
    assert disasm(d).replace(", ", ",") == text.replace("x0", "zero").replace(", ", ",").replace("fence rw,rw", "fence rw,rw")


def test_rows_overlap_only_as_special_cases():
    """Of two rows that share words one fixes all bits that the other fixes and more: decoding takes that one."""
    for i, a in enumerate(ROWS):
        for b in ROWS[:i]:
            if (a.match ^ b.match) & a.mask & b.mask == 0:
                assert a.mask != b.mask and a.mask | b.mask in (a.mask, b.mask), (a.name, b.name)


@given(st.sampled_from(ROWS), st.data())
def test_encode_then_decode(row, data):
    fields = {}
    for f in FORMATS[row.fmt]:
        if f[0] in "xfv" and f not in ("vm", "v0"):
            fields[f] = data.draw(st.integers(0, 31))
        elif f == "vm":
            fields[f] = data.draw(st.integers(0, 1))
        elif f in ("mt", "mtd"):
            fields[f] = 4 * data.draw(st.integers(0, 3))
        elif f == "v0":
            pass
        elif f == "rm":
            fields[f] = data.draw(st.sampled_from((0, 1, 2, 3, 4, 7)))
        elif f in ("aqrl", "pred", "succ"):
            fields[f] = data.draw(st.integers(0, 3))
        elif f == "imm_u":
            fields[f] = data.draw(st.integers(0, (1 << 20) - 1)) << 12
        elif f in ("zimm11", "zimm10"):
            fields[f] = 0xD0
        else:
            fields[f] = 2 * data.draw(st.integers(0, 7))
    word = encode(row.name, **fields)
    d = decode(word)
    assert d is not None and (d.row is row or d.row.mask | row.mask == d.row.mask), (row.name, d)
    assert encode(d.row.name, **{f: v for f, v in fields.items() if f in FORMATS[d.row.fmt]}) == word
