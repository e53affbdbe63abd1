"""Which programs get exact floating point, and what fcsr then holds (the arithmetic is judged in test_softfloat.py and test_qemu.py)."""

from __future__ import annotations

import random
import struct

import pytest
import softfloatpy as berkeley

from rvgpu.isa.asm import assemble
from rvgpu.isa.machine import load_machine
from rvgpu.isa.rows import BY_NAME, ROWS
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE, Image, write_executable
from rvgpu.sim.program import minds_fcsr, predecode
from rvgpu.sim.reference import Reference

MACHINE = load_machine("base", {"vector.vlen": 256, "matrix.te": 16, "core.warps": 1, "gpu.cores": 1})
VECTOR = "vsetvli zero, zero, e32, m1, ta, ma\nvfadd.vv v8, v9, v10\nvfsgnj.vv v8, v9, v10\nsf.vfexp.v v8, v9\n"


def exact(text: str) -> set[str]:
    return {key.row for key in predecode(assemble(text), BASE, MACHINE)[1] if key.exact}


@pytest.mark.parametrize("text,rows", [
    ("fadd.s ft0, ft1, ft2\nfcvt.w.s t0, ft0, rtz\nfcvt.d.s ft1, ft0\nflt.s t0, ft0, ft1\n" + VECTOR, set()),
    ("fadd.s ft0, ft1, ft2, rne\nfsub.s ft0, ft1, ft2\nfmul.s ft0, ft1, ft2, rup\n" + VECTOR, {"fmul.s"}),
    ("csrrs t0, 0x003, zero\nfadd.s ft0, ft1, ft2\nfsgnj.s ft0, ft1, ft2\nfcvt.w.s t0, ft0, rtz\nfmv.x.w t0, ft0\nfclass.s t0, ft0\n"
     "flt.s t0, ft0, ft1\n" + VECTOR, {"fadd.s", "fcvt.w.s", "flt.s", "vfadd.vv", "vfsgnj.vv", "sf.vfexp.v"}),
    *((access + "\nfadd.s ft0, ft1, ft2\n", {"fadd.s"}) for access in (
        "csrrwi t0, 0x001, 0", "csrrs zero, 0x001, zero", "csrrwi zero, 0x002, 1", "csrrw zero, 0x003, t0", "csrrw zero, 0x001, t0",
        "csrrc t0, 0x003, t0", "csrrsi zero, 0x002, 4", "csrrci zero, 0x003, 1")),
    *((access + "\nfadd.s ft0, ft1, ft2\n", set()) for access in (
        "csrrw zero, 0x003, zero", "csrrwi zero, 0x003, 0", "csrrwi zero, 0x003, 31", "csrrwi zero, 0x002, 0", "csrrwi zero, 0x001, 3",
        "csrrw zero, 0x001, zero", "csrrw zero, 0x002, zero", "csrrs t0, 0xc00, zero"))])
def test_who_gets_exact_handlers(text, rows):
    assert exact(text) == rows


def test_every_row_that_rounds_is_known():
    """A row with a mode of its own rounds; so do all of the vector categories for floating point. The matrix unit does not."""
    for row in ROWS:
        if "rm" in row.fmt or row.fmt in ("fr", "fr1", "fr4", "xf", "fx"):
            assert minds_fcsr(row), row.name
        if row.match & 0x7F == 0x57 and row.match >> 12 & 7 in (1, 5):
            assert minds_fcsr(row), row.name
    assert not minds_fcsr(BY_NAME["sf.mm.f.f"])


def run(text: str, data: bytes, engine: Reference | None = None) -> bytes:
    """The buffer after the program, which finds its address in s0."""
    code = assemble("ld s0, 0(a0)\n" + text + "jalr zero, ra, 0\n")
    d = Device(MACHINE, memory_bytes=1 << 22, engine=engine)
    program = d.load(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE})))
    data = data.ljust(256, b"\0")
    at = d.alloc(len(data))
    d.write(at, data)
    d.launch(program, "k", [at], ctas=1)
    return d.read(at, len(data))


ENGINES = pytest.mark.parametrize("engine", [None, Reference()], ids=["compiled", "CPython"])
VALUES = struct.pack("<8f", 1, 0, 3, 0, 1e30, float("inf"), 7, 0)


@ENGINES
@pytest.mark.parametrize("mask,vl,flags", [(0xFF, 8, 13), (0x01, 8, 0), (0x05, 8, 1), (0x02, 8, 8), (0x02, 1, 0), (0x10, 8, 5), (0x20, 8, 0),
                                           (0, 8, 0), (0xEA, 4, 8)])
def test_elements_that_are_not_active_raise_nothing(mask, vl, flags, engine):
    """1/x and x*x of elements 0 to 7: 3, 1e30 and 7 are inexact, 1e30 overflows, 0 divides by zero."""
    text = f"""vsetivli zero, 8, e32, m1, ta, ma
vle32.v v8, (s0)
li t0, {mask}
vmv.s.x v0, t0
li t0, 0x3f800000
fmv.w.x fa0, t0
vsetivli zero, {vl}, e32, m1, ta, ma
vfrdiv.vf v9, v8, fa0, v0.t
vfmul.vv v10, v8, v8, v0.t
csrrs t1, 0x003, zero
sd t1, 128(s0)
"""
    got = struct.unpack_from("<Q", run(text, VALUES, engine), 128)[0]
    assert got == flags


@pytest.mark.parametrize("form", ["vv", "vf"])
@pytest.mark.parametrize("mode", range(5))
def test_bf16_multiply_adds(form, mode):
    """One element at a time (QEMU has no bf16): value and flags are those of Berkeley SoftFloat's f32 fma; an idle element changes nothing."""
    pick, n = random.Random(f"{form} {mode}"), 400
    special = (0, 1, 0x7F, 0x80, 0x3F80, 0x3F81, 0x7F7F, 0x7F80, 0x7FC0, 0x7F81)

    def bf16() -> int:
        return pick.choice((pick.choice(special) ^ pick.getrandbits(1) << 15, pick.getrandbits(16), 0x3F80 + pick.randrange(-999, 999)))

    rows = [(bf16(), bf16(), (bf16() << 16 | pick.choice((0, 1, 0x8000, pick.getrandbits(16)))), pick.getrandbits(1)) for _ in range(n)]
    source = {"vv": "vsetivli zero, 1, e16, m1, ta, ma\nvle16.v v10, (t2)\n", "vf": "flh fa0, 0(t2)\n"}[form]
    text = f"""addi t2, s0, 2
addi t3, s0, 4
addi t4, s0, 8
vsetivli zero, 1, e16, m1, ta, ma
li t0, {n}
csrrwi zero, 0x002, {mode}
again: csrrwi zero, 0x001, 0
vle16.v v8, (s0)
vlm.v v0, (t4)
{source}vsetivli zero, 1, e32, m2, ta, ma
vle32.v v12, (t3)
vsetivli zero, 1, e16, m1, ta, ma
vfwmaccbf16.{form} v12, {'v10' if form == 'vv' else 'fa0'}, v8, v0.t
vsetivli zero, 1, e32, m2, ta, ma
vse32.v v12, (t3)
vsetivli zero, 1, e16, m1, ta, ma
csrrs t1, 0x001, zero
sd t1, 0(t4)
addi s0, s0, 16
addi t2, t2, 16
addi t3, t3, 16
addi t4, t4, 16
addi t0, t0, -1
bnez t0, again
"""
    got = struct.iter_unpack("<HHIQ", run(text, b"".join(struct.pack("<HHIQ", *row) for row in rows)))
    for (a, b, c, active), (_, _, value, flags) in zip(rows, got, strict=True):
        want = (c, 0)
        if active:
            berkeley.set_tininess_mode(berkeley.TininessMode.AFTER_ROUNDING)
            berkeley.set_rounding_mode(berkeley.RoundingMode(mode))
            berkeley.set_exception_flags(berkeley.ExceptionFlag(0))
            x, y, z = (berkeley.Float32.from_bytes(v.to_bytes(4, "big")) for v in (a << 16, b << 16, c))
            result = int.from_bytes(berkeley.f32_mul_add(x, y, z).to_bytes(), "big")
            want = (0x7FC00000 if result & 0x7FFFFFFF > 0x7F800000 else result, int(berkeley.get_exception_flags()))
        assert (value, flags) == want, [hex(v) for v in (a, b, c, active)]


@ENGINES
def test_exp_sets_no_flags_and_minds_no_mode(engine):
    text = """vsetivli zero, 8, e32, m1, ta, ma
vle32.v v8, (s0)
{}
sf.vfexp.v v9, v8
vse32.v v9, (s0)
csrrs t1, 0x003, zero
sd t1, 128(s0)
"""
    data = struct.pack("<8f", 1, 0.3, -70, 70, 1e30, float("inf"), -1, 0)
    near, up = (run(text.format(f"csrrwi zero, 0x002, {mode}"), data, engine) for mode in (0, 3))
    assert near[:32] == up[:32] and near[128:136] == bytes(8) and up[128:136] == bytes([3 << 5]) + bytes(7)


@ENGINES
def test_a_static_mode_in_a_program_without_fcsr(engine):
    text = "flw fa0, 0(s0)\nflw fa1, 4(s0)\n" + "".join(f"fdiv.s fa2, fa0, fa1, {m}\nfsw fa2, {8 + 4 * n}(s0)\n"
                                                        for n, m in enumerate(("rne", "rtz", "rdn", "rup", "rmm", "dyn")))
    got = struct.unpack_from("<6I", run(text, struct.pack("<2f", 1, 3), engine), 8)
    assert got == (0x3EAAAAAB, 0x3EAAAAAA, 0x3EAAAAAA, 0x3EAAAAAB, 0x3EAAAAAB, 0x3EAAAAAB)


@ENGINES
def test_fcsr_is_fflags_and_frm(engine):
    """Writes go where they belong, bits beyond eight are nothing, and a new launch starts from zero."""
    text = """csrrs t0, 0x003, zero
sd t0, 0(s0)
li t0, 0x7ffff5
csrrw zero, 0x003, t0
csrrs t0, 0x003, zero
sd t0, 8(s0)
csrrci t0, 0x002, 6
sd t0, 16(s0)
csrrsi t0, 0x001, 10
sd t0, 24(s0)
csrrs t0, 0x003, zero
sd t0, 32(s0)
"""
    assert struct.unpack_from("<5Q", run(text, b"", engine)) == (0, 0xF5, 7, 0x15, 0x3F)
