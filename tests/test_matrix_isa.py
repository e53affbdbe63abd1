"""Products of 8- and 64-bit floats, and tiles of 8, 16 and 64 bits: NumPy, ml_dtypes and mpmath say what they are."""

from __future__ import annotations

import ctypes

import ml_dtypes
import mpmath
import numpy as np
import pytest

from rvgpu.isa.asm import assemble
from rvgpu.isa.machine import load_machine
from rvgpu.sim.device import Device, SimFault
from rvgpu.sim.elf import BASE, Image, write_executable
from rvgpu.sim.handlers_tiles import f8

TE, VLEN = 16, 256
F8 = {"e5m2": ml_dtypes.float8_e5m2, "e4m3": ml_dtypes.float8_e4m3fn}


def run(text: str, data: bytes) -> tuple[Device, bytes]:
    """`data` is at args[0]; returns them after the run."""
    code = assemble("ld s0, 0(a0)\n" + text + "\njalr zero, ra, 0\n")
    d = Device(load_machine("base", {"vector.vlen": VLEN, "vector.dlen": VLEN, "matrix.te": TE, "core.warps": 1, "gpu.cores": 1}),
               memory_bytes=1 << 20)
    program = d.load(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE})))
    buffer = d.alloc(len(data), "data")
    d.write(buffer, data)
    d.launch(program, "k", [buffer], ctas=1)
    return d, d.read(buffer, len(data))


@pytest.mark.parametrize("form", F8)
def test_every_8_bit_float(form):
    codes = np.arange(256, dtype=np.uint8)
    want = codes.view(F8[form]).astype(np.float32)
    got = np.array([f8(int(c), int(form == "e4m3")) & 0xFFFFFFFF for c in codes], np.uint32)
    assert np.array_equal(np.isnan(want), got == 0x7FC00000)
    assert np.array_equal(want[~np.isnan(want)].view(np.uint32), got[~np.isnan(want)])


def pair_sum(a0: float, b0: float, a1: float, b1: float) -> np.float32:
    """fma(a0, b0, RN(a1 b1)) in f32; the products are exact."""
    with np.errstate(all="ignore"):
        plain = np.float32(a0) * np.float32(b0) + np.float32(a1) * np.float32(b1)
    if not np.isfinite(plain) or plain == 0:
        return plain
    with mpmath.workprec(24):
        return np.float32(float(mpmath.fdot([(a0, b0), (a1, b1)])))


@pytest.mark.parametrize("a_form,b_form", [(a, b) for a in F8 for b in F8])
@pytest.mark.parametrize("tk", [4, 3, 1, 0])
def test_products_of_8_bit_floats(a_form, b_form, tk):
    """In pairs, k ascending, a missing partner counting as +0; outside tm x tn nothing changes."""
    pick = np.random.default_rng(tk)
    tm, tn = 13, 11
    a, b = (pick.integers(0, 256, (4, TE)).astype(np.uint8) for _ in range(2))
    a[:, :9] &= 0xBF  # few NaNs: products of usual size
    b[:, :8] &= 0xBF
    old = pick.standard_normal((TE, TE)).astype(np.float32)
    text = "sf.vsettnt t0, zero, e32, w1\nmv t2, s0\naddi t2, t2, 128\n"
    for row in range(TE):
        text += f"vle32.v v16, (t2)\nli t3, {1 << 29 | row}\nsf.vtmv.t.v t3, v16\naddi t2, t2, {4 * TE}\n"
    text += "sf.vsettnt t0, zero, e8, w4\n" + "".join(f"vle8.v v{2 * n}, (s0)\naddi s0, s0, {TE}\n" for n in range(8))
    text += f"li t1, {tn}\nsf.vsettn t0, t1\nli t1, {tm}\nsf.vsettm t0, t1\nli t1, {tk}\nsf.vsettk t0, t1\nsf.mm.{a_form}.{b_form} mt4, v0, v8\n"
    text += "sf.vsettnt t0, zero, e32, w1\n"
    for row in range(TE):
        text += f"li t3, {1 << 29 | row}\nsf.vtmv.v.t v16, t3\nvse32.v v16, (s0)\naddi s0, s0, {4 * TE}\n"
    _, out = run(text, a.tobytes() + b.tobytes() + old.tobytes())
    got = np.frombuffer(out[128:], np.float32).reshape(TE, TE)
    x, y = (m.view(F8[f]).astype(np.float32) for m, f in ((a, a_form), (b, b_form)))
    x[tk:], y[tk:] = 0, 0
    want = old.copy()
    for m in range(tm):
        for n in range(tn):
            for k in range(0, tk, 2):
                want[m, n] += pair_sum(float(x[k, m]), float(y[k, n]), float(x[k + 1, m]), float(y[k + 1, n]))
    assert np.array_equal(np.isnan(want), np.isnan(got)) and np.array_equal(want[~np.isnan(want)], got[~np.isnan(got)])
    assert tk == 0 or np.isfinite(want[:9, :8]).mean() > 0.5


def test_products_of_64_bits():
    """acc = RN(acc + RN(a b)) on TE / 2 rows and columns, four tiles of their own numbers."""
    pick = np.random.default_rng(5)
    side, numbers = TE // 2, (2, 6, 14)
    a, b = pick.standard_normal((3, side)), pick.standard_normal((3, side))
    text = f"sf.vsettnt t0, zero, e64, w1\nli t1, {side}\nsf.vsettm t0, t1\nli t1, 1\nsf.vsettk t0, t1\n"
    text += "".join(f"sf.vtzero.t mt{n}\n" for n in numbers)
    for k in range(3):
        text += f"addi t2, s0, {64 * k}\nvle64.v v0, (t2)\naddi t2, s0, {192 + 64 * k}\nvle64.v v8, (t2)\n"
        text += "".join(f"sf.mm.f.f mt{n}, v0, v8\n" for n in numbers[:k + 1])
    text += "addi s0, s0, 384\n"
    for n in numbers:
        text += "".join(f"li t3, {n << 27 | row}\nsf.vtmv.v.t v16, t3\nvse64.v v16, (s0)\naddi s0, s0, 64\n" for row in range(side))
    _, out = run(text, a.tobytes() + b.tobytes() + bytes(3 * 512))
    got = np.frombuffer(out[384:], np.float64).reshape(3, side, side)
    for i in range(3):
        want = np.zeros((side, side))
        for k in range(i, 3):
            want = want + np.outer(a[k], b[k])
        assert np.array_equal(got[i], want)


@pytest.mark.parametrize("bits,number", [(8, 0), (8, 3), (8, 15), (16, 2), (16, 14), (64, 2), (64, 12)])
def test_tiles_of_other_widths(bits, number):
    """Rows written from registers and from memory, columns read back, and the other way round; the neighbours stay as they were."""
    side, pick = TE // 2 if bits == 64 else TE, np.random.default_rng(bits)
    size = bits // 8
    matrix = pick.integers(0, 256, (side, side * size)).astype(np.uint8)
    row_bytes = side * size
    column = 1 << 24
    text = f"li t1, {side}\nvsetvli t0, t1, e{bits}, m8, ta, ma\nmv t2, s0\n"
    for row in range(side):
        text += f"li t3, {number << 27 | row}\n" + (f"vle{bits}.v v8, (t2)\nsf.vtmv.t.v t3, v8\n" if row % 2 else f"sf.vlte{bits} t3, (t2)\n")
        text += f"addi t2, t2, {row_bytes}\n"
    for n in range(side):
        text += f"li t3, {number << 27 | column | n}\n" + (f"sf.vste{bits} t3, (t2)\n" if n % 2 else f"sf.vtmv.v.t v8, t3\nvse{bits}.v v8, (t2)\n")
        text += f"addi t2, t2, {row_bytes}\n"
    d, out = run(text, matrix.tobytes() + bytes(matrix.nbytes))
    elements = np.frombuffer(out, f"u{size}").reshape(2, side, side)
    assert np.array_equal(elements[0], matrix.view(f"u{size}")) and np.array_equal(elements[1], elements[0].T)
    tiles = np.frombuffer(ctypes.string_at(d.warps[0].tiles, 16 * TE * TE), np.uint8)
    start = number * TE * TE
    assert not tiles[:start].any() and not tiles[start + matrix.nbytes:].any()


@pytest.mark.parametrize("text", ["vsetvli t0, zero, e16, m1, ta, ma\nli t3, 0x8000000\nsf.vtmv.v.t v8, t3",
                                  "li t3, 0x18000000\nvsetvli t0, zero, e64, m1, ta, ma\n"
                                  "sf.vtmv.t.v t3, v8", "vsetvli t0, zero, e8, m1, ta, ma\nli t3, 16\nsf.vlte8 t3, (s0)",
                                  "vsetvli t0, zero, e64, m1, ta, ma\nli t3, 8\nsf.vste64 t3, (s0)", "sf.vsettnt t0, zero, e64, w1\nsf.vtzero.t mt3"])
def test_tiles_that_are_not(text):
    with pytest.raises(SimFault, match="illegal tile number or index"):
        run(text, bytes(64))
