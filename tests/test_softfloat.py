"""Exact floating point (isa/softfloat.py), compiled as for handlers: Berkeley SoftFloat is its judge, and it judges the plain primitives.

Every operation and conversion in all five rounding modes, value and flags, on pairs of special values and on drawn ones. Where a conversion to
an integer is invalid RISC-V's result is compared with a rule written here. NaNs are compared as canonical.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
import softfloatpy as berkeley

from rvgpu.isa import softfloat
from rvgpu.isa.prims import BF16, ld64, st64
from rvgpu.isa.prims_float import f_context, f_leave
from rvgpu.sim.engine import Engine
from rvgpu.sim.reference import specialise
from rvgpu.sim.translate import Unit

FRACTION = {16: 10, 32: 23, 64: 52, BF16: 7}
TYPES = {16: berkeley.Float16, 32: berkeley.Float32, 64: berkeley.Float64, BF16: berkeley.BFloat16}
NAMES = {16: "f16", 32: "f32", 64: "f64", BF16: "bf16"}
MODES = range(5)
W, SRC, IW, SIGNED = 32, 32, 32, 1  # bound


def PRIM(*operands: int) -> int:
    """Bound to a primitive's name, or to its exact counterpart."""
    raise NotImplementedError


OP1 = OP2 = OP3 = PRIM  # bound to one of those below


def width1(a: int) -> int:
    return PRIM(a, W)


def width2(a: int, b: int) -> int:
    return PRIM(a, b, W)


def width3(a: int, b: int, c: int) -> int:
    return PRIM(a, b, c, W)


def convert(a: int) -> int:
    return PRIM(a, SRC, W)


def to_integer(a: int) -> int:
    return PRIM(a, W, IW, SIGNED, 0)


def of_integer(a: int) -> int:
    return PRIM(a, SIGNED, W)


def each1(a: int, b: int, c: int, out: int, flags: int, n: int, context: int) -> int:
    f_context(context)
    for i in range(n):
        st64(context + 8, ld64(context + 16))
        st64(out + 8 * i, OP1(ld64(a + 8 * i)))
        st64(flags + 8 * i, ld64(context + 8))
    f_leave()
    return 0


def each2(a: int, b: int, c: int, out: int, flags: int, n: int, context: int) -> int:
    f_context(context)
    for i in range(n):
        st64(context + 8, ld64(context + 16))
        st64(out + 8 * i, OP2(ld64(a + 8 * i), ld64(b + 8 * i)))
        st64(flags + 8 * i, ld64(context + 8))
    f_leave()
    return 0


def each3(a: int, b: int, c: int, out: int, flags: int, n: int, context: int) -> int:
    f_context(context)
    for i in range(n):
        st64(context + 8, ld64(context + 16))
        st64(out + 8 * i, OP3(ld64(a + 8 * i), ld64(b + 8 * i), ld64(c + 8 * i)))
        st64(flags + 8 * i, ld64(context + 8))
    f_leave()
    return 0


@dataclass(frozen=True)
class Op:
    """`src` is the format of the operands (0: integers), `dst` of the result; `judge` is Berkeley's function."""

    prim: str
    fn: Callable[..., int]
    src: int
    dst: int
    judge: str
    iw: int = 32
    signed: int = 1

    @property
    def arity(self) -> int:
        return self.fn.__code__.co_argcount

    @property
    def name(self) -> str:
        return f"{self.prim} {self.judge}"

    def bound(self, exact: bool) -> dict[str, Any]:
        return {"PRIM": softfloat.EXACT[self.prim] if exact else self.prim, "W": self.dst or self.src, "SRC": self.src, "IW": self.iw,
                "SIGNED": self.signed, f"OP{self.arity}": self.fn}


def operations() -> Iterator[Op]:
    for w in (16, 32, 64):
        for name in ("add", "sub", "mul", "div"):
            yield Op(f"f_{name}", width2, w, w, f"f{w}_{name}")
        yield Op("f_sqrt", width1, w, w, f"f{w}_sqrt")
        yield Op("f_fma", width3, w, w, f"f{w}_mul_add")
        for name in ("eq", "lt", "le"):
            yield Op(f"f_{name}", width2, w, 0, f"f{w}_{name}")
        for iw in (32, 64):
            for signed in (0, 1):
                i = f"{'' if signed else 'u'}i{iw}"
                yield Op("f_to_i", to_integer, w, 0, f"f{w}_to_{i}", iw, signed)
                yield Op("i_to_f", of_integer, 0, w, f"{i}_to_f{w}", iw, signed)
    for src, dst in ((16, 32), (16, 64), (32, 16), (32, 64), (64, 16), (64, 32), (32, BF16), (BF16, 32)):
        yield Op("f_cvt", convert, src, dst, f"{NAMES[src]}_to_{NAMES[dst]}")


OPS = list(operations())


@cache
def functions() -> tuple[Any, dict[tuple[str, bool], Any]]:
    """Compiled: (engine that holds the code, {(operation, exact): function})."""
    own, unit, keys = Engine(), Unit(), [(op, exact) for op in OPS for exact in (False, True)]
    for n, (op, exact) in enumerate(keys):
        unit.add((each1, each2, each3)[op.arity - 1], op.bound(exact), f"case_{n}")
    module = own.llvm.parse_assembly(unit.text())
    builder = own.llvm.create_pass_builder(own.machine, own.llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    own.jit.add_object_file(own.llvm.ObjectFileRef.from_data(own.machine.emit_object(module)))
    own.jit.finalize_object()
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 7)
    return own, {(op.name, exact): kind(own.jit.get_function_address(f"case_{n}")) for n, (op, exact) in enumerate(keys)}


def run(op: Op, operands: list[np.ndarray], mode: int, exact: bool = True, before: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(results, flags) for arrays of 64-bit patterns; each operation finds the flags `before`."""
    n = len(operands[0])
    a, b, c = [*operands, *[operands[0]] * (3 - len(operands))]
    out, flags, context = np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.array([mode, 0, before], np.uint64)
    functions()[1][op.name, exact](*(x.ctypes.data for x in (a, b, c, out, flags)), n, context.ctypes.data)
    return out, flags


def special(w: int) -> list[int]:
    if w == 0:
        values = [0, 1, 2, 3, 5, 127, 255, 2047, 2049, 65504, 65519, 65520, (1 << 24) + 1, (1 << 24) + 3, (1 << 25) + 2, (1 << 31) - 1, 1 << 31,
                  (1 << 32) - 1, (1 << 53) + 1, (1 << 54) + 2, (1 << 54) + 6, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 1025]
        return values + [-x & (1 << 64) - 1 for x in values]
    n, m = abs(w), FRACTION[w]
    one, inf = ((1 << (n - 2 - m)) - 1) << m, ((1 << (n - 1 - m)) - 1) << m
    positive = [0, 1, 2, 3, (1 << m) - 1, 1 << m, (1 << m) + 1, (2 << m) - 1, one - (1 << m), one - 1, one, one + 1, one + (1 << m - 1),
                one + (m << m), one + (m + 1 << m) + 1, one + (3 << m - 1), inf >> 1, inf - 1, inf, inf + 1, inf | 1 << m - 1, inf | (1 << m) - 1]
    return [x | s for x in positive for s in (0, 1 << n - 1)]


def draw(pick: random.Random, w: int) -> int:
    """Special values, numbers near each other in size with few or many digits, subnormals, anything."""
    kind = pick.random()
    if w == 0:
        return pick.getrandbits(pick.randrange(1, 65)) if kind < 0.8 else pick.choice(special(0))
    n, m = abs(w), FRACTION[w]
    bias = (1 << (n - 2 - m)) - 1
    sign = pick.getrandbits(1) << n - 1
    if kind < 0.2:
        return pick.choice(special(w))
    if kind < 0.6:
        digits = pick.choice((pick.getrandbits(m), pick.getrandbits(3), pick.getrandbits(3) << m - 3, (1 << m) - 1 ^ pick.getrandbits(2)))
        return sign | bias + pick.randrange(-6, 7) << m | digits
    if kind < 0.7:
        return sign | min(bias + pick.randrange(-3, 66), 2 * bias) << m | pick.choice((pick.getrandbits(m), 0, (1 << m) - 1, 1 << m - 1))
    if kind < 0.8:
        return sign | pick.getrandbits(m + 2)
    return pick.getrandbits(n)


def operands(op: Op, pick: random.Random, n: int) -> list[np.ndarray]:
    """Pairs of special values (of three operands and of one, all or some), then n drawn ones; sums that cancel; what is near the result's format."""
    s = special(op.src)
    rows = [[x] for x in s] if op.arity == 1 else [[x, y] for x in s for y in s] if op.arity == 2 else [
        [pick.choice(s) for _ in range(3)] for _ in range(2000)]
    for _ in range(n):
        row = [draw(pick, op.src) for _ in range(op.arity)]
        if op.prim == "f_fma" and pick.random() < 0.4:
            product = int(run(BY_NAME[f"f_mul f{op.src}_mul"], [np.array([x], np.uint64) for x in row[:2]], 0)[0][0])
            row[2] = (product ^ 1 << op.src - 1) + pick.randrange(-2, 3) & (1 << op.src) - 1
        elif op.prim in ("f_add", "f_sub") and pick.random() < 0.2:
            row[1] = row[0] + pick.randrange(-3, 4) & (1 << op.src) - 1
        elif op.prim == "f_cvt" and abs(op.dst) < op.src and pick.random() < 0.5:
            back = BY_NAME.get(f"f_cvt {NAMES[op.dst]}_to_{NAMES[op.src]}")
            assert back is not None
            near = int(run(back, [np.array([draw(pick, op.dst)], np.uint64)], 0)[0][0]) + pick.randrange(-1, 2)
            row = [(near ^ pick.getrandbits(1) << FRACTION[op.src] - FRACTION[op.dst] - 1) & (1 << op.src) - 1]
        rows.append(row)
    if op.prim == "i_to_f" and op.iw == 32:  # as the handlers extend them
        rows = [[((x & 0xFFFFFFFF ^ 1 << 31) - (1 << 31) if op.signed else x & 0xFFFFFFFF) & (1 << 64) - 1] for [x] in rows]
    return [np.array(column, np.uint64) for column in zip(*rows, strict=True)]


BY_NAME = {op.name: op for op in OPS}


def canonical(x: int, w: int) -> int:
    m = FRACTION[w]
    inf = ((1 << (abs(w) - 1 - m)) - 1) << m
    return inf | 1 << m - 1 if x & (1 << abs(w) - 1) - 1 > inf else x


def judged(op: Op, row: list[int], mode: int) -> tuple[int, int]:
    """(result as a 64-bit pattern, flags) by Berkeley SoftFloat."""
    berkeley.set_tininess_mode(berkeley.TininessMode.AFTER_ROUNDING)
    berkeley.set_rounding_mode(berkeley.RoundingMode(mode))  # numbered as frm
    berkeley.set_exception_flags(berkeley.ExceptionFlag(0))  # bits as in fflags
    if op.src:
        values = [TYPES[op.src].from_bytes(x.to_bytes(abs(op.src) // 8, "big")) for x in row]
    else:
        number = (row[0] ^ 1 << 63) - (1 << 63) if op.signed else row[0]
        values = [getattr(berkeley, f"{'' if op.signed else 'U'}Int{op.iw}").from_int(number)]
    result = getattr(berkeley, op.judge)(*values)
    flags = int(berkeley.get_exception_flags())
    if op.dst:
        return canonical(int.from_bytes(result.to_bytes(), "big"), op.dst), flags
    if op.prim != "f_to_i":
        return int(result), flags
    if flags & 16:
        low, high = (-(1 << op.iw - 1), (1 << op.iw - 1) - 1) if op.signed else (0, (1 << op.iw) - 1)
        negative = row[0] >> op.src - 1 and canonical(row[0], op.src) == row[0]
        return (low if negative else high) & (1 << 64) - 1, flags
    return result.to_int() & (1 << 64) - 1, flags


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_values_and_flags_are_those_of_berkeley_softfloat(op):
    pick = random.Random(op.name)
    columns = operands(op, pick, 2500)
    rows = list(zip(*(c.tolist() for c in columns), strict=True))
    for mode in MODES:
        values, flags = run(op, columns, mode)
        for n in range(mode, len(rows), 1 if op.arity == 1 else 5):
            want = judged(op, list(rows[n]), mode)
            got = int(values[n]), int(flags[n])
            place = f"{op.name} mode {mode} {[hex(x) for x in rows[n]]}"
            assert got == want, f"{place}: {got[0]:#x} flags {got[1]:#x}, Berkeley {want[0]:#x} {want[1]:#x}"


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_plain_primitives_are_exact_ones_to_nearest_even(op):
    """On the special values and 300,000 drawn ones; 16-bit operands of one operand: on all."""
    pick, seeds = random.Random(op.name), np.random.default_rng(len(op.name))
    columns = operands(op, pick, 1000)
    n, m = abs(op.src) or 64, FRACTION.get(op.src, 0)
    for k in range(op.arity):
        drawn = seeds.integers(0, 1 << 64, 300_000, np.uint64) & np.uint64((1 << n) - 1)
        if op.src:  # in half of them exponents near 0
            exponents = seeds.integers(-8, 9, 300_000) + (1 << n - 2 - m) - 1
            near = drawn & np.uint64((1 << m) - 1 | 1 << n - 1) | exponents.astype(np.uint64) << np.uint64(m)
            drawn = np.where(seeds.integers(0, 2, 300_000, bool), near, drawn)
        columns[k] = np.concatenate([columns[k], drawn])
    if op.arity == 1 and abs(op.src) == 16:
        columns = [np.arange(1 << 16, dtype=np.uint64)]
    if op.prim == "i_to_f" and op.iw == 32:
        columns = [(columns[0].astype(np.uint32).view(np.int32).astype(np.int64).view(np.uint64) if op.signed
                    else columns[0] & np.uint64(0xFFFFFFFF))]
    plain, exact = run(op, columns, 0, exact=False)[0], run(op, columns, 0)[0]
    n = int(np.argmax(plain != exact))
    assert np.array_equal(plain, exact), f"{op.name} {[hex(int(c[n])) for c in columns]}: plain {int(plain[n]):#x}, exact {int(exact[n]):#x}"


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_flags_that_stand_change_nothing(op):
    """Where inexactness is noted already the host's FPU may compute: values, and flags but that one, are the same."""
    columns = operands(op, random.Random(op.name), 20_000)
    for mode in MODES:
        values, flags = run(op, columns, mode)
        for before in (1, 16):
            again, raised = run(op, columns, mode, True, before)
            n = int(np.argmax((values != again) | (flags | np.uint64(before) != raised)))
            place = f"mode {mode} {[hex(int(c[n])) for c in columns]}"
            assert np.array_equal(values, again) and np.array_equal(flags | np.uint64(before), raised), place


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_cpython_runs_the_same(op):
    pick = random.Random(op.name)
    columns = operands(op, pick, 150)
    some = sorted(pick.sample(range(len(columns[0])), 150))
    columns = [c[some] for c in columns]
    reference = specialise((each1, each2, each3)[op.arity - 1], op.bound(True))
    for mode in MODES:
        before = 1 if mode == 0 else 0
        out, flags, context = np.zeros(150, np.uint64), np.zeros(150, np.uint64), np.array([mode, 0, before], np.uint64)
        a, b, c = [*columns, *[columns[0]] * (3 - len(columns))]
        reference(*(x.ctypes.data for x in (a, b, c, out, flags)), 150, context.ctypes.data)
        values, raised = run(op, columns, mode, True, before)
        assert np.array_equal(out, values) and np.array_equal(flags, raised)


def nearest_odd(x: Fraction, digits: int, emin: int) -> Fraction:
    """Towards zero, and one unit up where that is even and not exact."""
    e = x.numerator.bit_length() - x.denominator.bit_length()
    e = max(e - (abs(x) < Fraction(2) ** e), emin)
    unit = Fraction(2) ** (e - digits + 1)
    n = abs(x) // unit
    return (n | (n * unit != abs(x))) * unit * (1 if x > 0 else -1)


@pytest.mark.parametrize("src,dst", [(32, 16), (64, 32), (64, 16), (32, BF16)])
def test_rounding_to_odd(src, dst):
    """The value by fractions; and a second rounding to a format of two digits less is then right (what it is for)."""
    pick, m = random.Random(src + dst), FRACTION[dst]
    float_of = {16: np.float16, 32: np.float32, 64: np.float64}
    emin = {16: -14, 32: -126, BF16: -126}[dst]
    for _ in range(2000):
        x = draw(pick, src)
        value = float(np.array(x, f"u{src // 8}").view(float_of[src]))
        got = softfloat.convert_odd(x - (1 << 64) if src == 64 and x >> 63 else x, src, dst)
        if not np.isfinite(value) or value == 0:
            continue
        wide = np.array(got << 16 if dst == BF16 else got, "u4" if dst == BF16 else f"u{dst // 8}").view(np.float32 if dst == BF16 else float_of[dst])
        want = nearest_odd(Fraction(value), m + 1, emin)
        largest = Fraction(2 ** (m + 1) - 1) * Fraction(2) ** ((1 << (abs(dst) - 2 - m)) - 1 - m)
        assert Fraction(float(wide)) == max(-largest, min(largest, want)), hex(x)
