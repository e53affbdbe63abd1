"""Rows against each other: which share words, and that the fields of a row are exactly the bits that it leaves free."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rvgpu.cli import main
from rvgpu.isa.codec import decode, encode
from rvgpu.isa.describe import describe_row
from rvgpu.isa.gloss import gloss
from rvgpu.isa.meaning import meaning
from rvgpu.isa.rows import BY_NAME, FORMATS, ROWS
from tests.test_isa_bytes import WIDTH, operands, value

SPECIAL = {("fence.tso", "fence"), ("pause", "fence"), *((f"prefetch.{n}", "ori") for n in "irw")}  # the first is a case of the second
# free bits without a field, which the specification lets a machine ignore: fm, rd and rs1 of fence, all of fence.i's
IGNORED = {"fence": 0xF00F8F80, "fence.i": 0xFFFF8F80}


def bits(f):
    return 1 if f == "vm" else 3 if f == "rm" else WIDTH[f][0] if f in WIDTH else 5


def special_case(a, b):
    """Row a fixes all bits that row b fixes, to the same values, and more."""
    return a.mask != b.mask and a.mask & b.mask == b.mask and a.match & b.mask == b.match


def test_rows_overlap_only_as_special_cases():
    """Of two rows that share words one fixes all bits that the other fixes and more: decoding takes that one."""
    assert len(BY_NAME) == len(ROWS)
    found = set()
    for a in ROWS:
        assert a.match & ~a.mask == 0, a.name
        for b in ROWS:
            if a is not b and (a.match ^ b.match) & a.mask & b.mask == 0:
                assert special_case(a, b) or special_case(b, a), (a.name, b.name)
                found |= {(a.name, b.name)} if special_case(a, b) else set()
    assert found == SPECIAL
    for a, b in SPECIAL:
        fixed = BY_NAME[a].match
        free = BY_NAME[b].mask ^ BY_NAME[a].mask  # bits that make the special case
        assert decode(fixed).row.name == a
        assert all(decode(fixed ^ 1 << n).row.name != a for n in range(32) if free >> n & 1)


def test_fields_are_the_free_bits():
    """Each bit that a row does not fix is in one of its fields."""
    for row in ROWS:
        covered = IGNORED.get(row.name, 0)
        zeros = {f: 0 for f in FORMATS[row.fmt] if f != "v0"}
        for f in zeros:
            field = encode(row.name, **zeros | {f: value(f, (1 << bits(f)) - 1)}) ^ row.match
            assert field.bit_count() == bits(f) and field & (covered | row.mask) == 0, (row.name, f)
            covered |= field
        assert covered ^ row.mask == 0xFFFFFFFF, row.name


@given(st.sampled_from(ROWS), st.data())
def test_encode_then_decode(row, data):
    fields = {f: value(f, data.draw(st.integers(0, (1 << bits(f)) - 1), f)) for f in FORMATS[row.fmt] if f != "v0"}
    word = encode(row.name, **fields)
    d = decode(word)
    if fields.get("rm") in (5, 6):
        assert d is None  # reserved rounding modes
        return
    assert d is not None and d.word == word and d.size == 4
    assert d.row is row or (d.row.name, row.name) in SPECIAL
    assert encode(d.row.name, **operands(d)) == word
    if d.row is row:
        assert operands(d) == fields


def test_a_row_s_page_says_what_it_does(capsys):
    """Of every row; with the source of its meaning, or of its handler where the whole instruction is one."""
    for row in ROWS:
        assert gloss(row) and "{" not in gloss(row), row.name
        assert f"does    {gloss(row)}\n" in describe_row(row.name)
        fn = meaning(row)
        assert fn is None or f"def {fn.__name__}(" in describe_row(row.name), row.name
    for name, said in (("vwsubu.wx", "vd[i] = wrap(vs2[i] - rs1); vs2 is unsigned, rs1 unsigned"), ("vlsseg3e16.v", "def vload_segment_strided("),
                       ("vsadd.vv", "def sat_vsadd("), ("vredsum.vs", "vd may overlap any source"), ("vzext.vf4", "groups  vd SEW, v2 SEW/4")):
        assert main(["isa", name]) == 0
        assert said in capsys.readouterr().out, name
