"""All numbers of 16 bits, and chosen ones of 32 and 64, through instructions of one operand: QEMU's results are ours, in every rounding mode."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np
import pytest

from rvgpu.isa.meaning import meaning
from rvgpu.isa.rows import BY_NAME
from rvgpu.sim.engine import Engine
from rvgpu.sim.handlers_vector import ldb, stb
from rvgpu.sim.translate import Unit, lanes
from tests.qemu_judge import QEMU, each_by_qemu, each_by_us

pytestmark = pytest.mark.skipif(QEMU is None and not os.environ.get("CI"), reason="NOT JUDGED: qemu-riscv64 is missing (apt-get install qemu-user)")
SEW, RM = 32, 0  # bound


def OP(a: int, rm: int) -> int:
    raise NotImplementedError


def OP1(a: int) -> int:
    raise NotImplementedError


def each(a: int, out: int, n: int) -> int:
    for i in lanes(n):
        stb(out, i, SEW, OP1(ldb(a, i, SEW)))
    return 0


def each_rounded(a: int, out: int, n: int, rm: int) -> int:
    for i in lanes(n):
        stb(out, i, SEW, OP(ldb(a, i, SEW), rm))
    return 0


def ours(name: str, values: np.ndarray, rm: int) -> np.ndarray:
    """The row's meaning, compiled."""
    row, width, own, unit = BY_NAME[name], 8 * values.itemsize, Engine(), Unit()
    fn: Any = each_rounded if row.kind == "vunary_rm" else each
    unit.add(fn, {"OP": meaning(row), "OP1": meaning(row), "SEW": width, "W": width}, "f")
    own.jit.add_object_file(own.llvm.ObjectFileRef.from_data(own.machine.emit_object(own.llvm.parse_assembly(unit.text()))))
    own.jit.finalize_object()
    out = np.zeros_like(values)
    arguments = [values.ctypes.data, out.ctypes.data, len(values), *([rm] if fn is each_rounded else [])]
    ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(arguments))(own.jit.get_function_address("f"))(*arguments)
    return out


def numbers(width: int) -> np.ndarray:
    """All of 16 bits; of more: every exponent and sign with fractions at the ends, at each leading bit (subnormals of every size), and at random."""
    if width == 16:
        return np.arange(1 << 16, dtype=np.uint16)
    mant = {32: 23, 64: 52}[width]
    pick = np.random.default_rng(7)
    fractions = np.array([0, 1, (1 << mant) - 1, *(1 << n for n in range(mant)), *((1 << mant) - (1 << n) for n in range(mant)),
                          *pick.integers(0, 1 << mant, 64)], np.uint64)
    exponents = np.arange(1 << (width - mant), dtype=np.uint64)  # with the sign
    if width == 64:
        near = np.isin(exponents & 0x7FF, [0, 1, 2, 3, 1021, 1022, 1023, 1024, 2043, 2044, 2045, 2046, 2047])
        exponents = np.concatenate([exponents[near], pick.integers(0, 1 << 12, 230).astype(np.uint64)])
    out = (exponents[:, None] << np.uint64(mant) | fractions).ravel()
    return out[:len(out) // 256 * 256].astype(f"u{width // 8}")


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("name,modes", [("vfrec7.v", range(5)), ("vfrsqrt7.v", [0]), ("vfclass.v", [0]), ("vfsqrt.v", [0])])
def test_unary(name, modes, width):
    values = numbers(width)
    for rm in modes:
        want, got = each_by_qemu(f"{name} v16, v8", values, values.dtype, rm), ours(name, values, rm)
        bad = np.flatnonzero(want != got)
        assert not len(bad), f"{name} mode {rm} of {values[bad[0]]:#x}: QEMU {want[bad[0]]:#x}, ours {got[bad[0]]:#x} ({len(bad)} differ)"


def patterns(kind: str) -> np.ndarray:
    """Of a float format, or of an integer: all of 8 and 16 bits, else the ends, powers of two and their neighbours, and some at random."""
    width = int(kind[1:])
    if kind[0] == "f":
        return numbers(width)
    if width < 32:
        return np.tile(np.arange(1 << width, dtype=f"u{width // 8}"), 2 if width == 8 else 1)
    near = [(1 << n) + d for n in range(width) for d in (-2, -1, 0, 1, 2)] + [(3 << n) + d for n in range(width - 2) for d in (-1, 0, 1)]
    random = [int(x) >> int(s) for x, s in zip(np.random.default_rng(3).integers(0, 1 << 63, 4000), np.random.default_rng(4).integers(0, 63, 4000),
                                               strict=True)]
    values = [v * sign & (1 << width) - 1 for v in near + random for sign in (1, -1)]
    return np.array(values[:len(values) // 256 * 256], f"u{width // 8}")


CASES = []
for _way, _step in (("vf", 0), ("vfw", 1), ("vfn", -1)):
    _end = "w" if _step < 0 else "v"
    for _from in (8, 16, 32, 64):
        _to = _from * 2 if _step > 0 else _from // 2 if _step < 0 else _from
        if _to in (8, 16, 32, 64):
            if _from > 8:
                CASES += [(f"{_way}cvt.{x}.f.{_end}", f"f{_from}", _to) for x in ("x", "xu", "rtz.x", "rtz.xu")]
            if _to > 8:
                CASES += [(f"{_way}cvt.f.{x}.{_end}", f"i{_from}", _to) for x in ("x", "xu")]
            if _step and _from > 8 and _to > 8:
                CASES += [(f"{_way}cvt.f.f.{_end}", f"f{_from}", _to)] + [(f"{_way}cvt.rod.f.f.{_end}", f"f{_from}", _to)] * (_step < 0)


@pytest.mark.parametrize("name,source,to", CASES)
def test_conversions(name, source, to):
    """Towards zero: QEMU 7.2 lacks the instruction, so it runs the plain one under that mode."""
    values, out = patterns(source), np.dtype(f"u{to // 8}")
    want = each_by_qemu(f"{name.replace('rtz.', '')} v16, v8", values, out, 1 if "rtz" in name else 0)
    got = each_by_us(f"{name} v16, v8", values, out)
    bad = np.flatnonzero(want != got)
    assert not len(bad), f"{name} of {values[bad[0]]:#x}: QEMU {want[bad[0]]:#x}, ours {got[bad[0]]:#x} ({len(bad)} of {len(values)} differ)"
