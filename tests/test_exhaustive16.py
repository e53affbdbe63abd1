"""Every 16-bit pattern through every conversion from and to 16-bit floats and through the unary 16-bit operations, in every rounding mode.

The instructions run in programs on the simulator, results and flags are those of NumPy (bf16: ml_dtypes): a 16-bit float is exact in float64,
where it is scaled so that rounding is rounding to an integer. Conversions to a 16-bit float take, for each of its values, that value, the middle
between it and the next, and what lies one unit beside those. Programs with fcsr run the exact handlers; without, and in scalar instructions
with a static mode, values alone are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from rvgpu.isa.asm import assemble
from rvgpu.isa.codec import ROUNDING
from rvgpu.isa.machine import load_machine
from rvgpu.isa.rows import BY_NAME
from rvgpu.isa.rows import FORMATS as FORMS
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE, Image, write_executable

NX, UF, OF, DZ, NV = 1, 2, 4, 8, 16
RNE, RTZ, RDN, RUP, RMM = MODES = range(5)
FORMATS: dict[str, Any] = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64}
LIMITS = {"f16": (10, -14), "bf16": (7, -126), "f32": (23, -126), "f64": (52, -1022)}  # digits of the fraction, least normal exponent
NAN = {"f16": 0x7E00, "bf16": 0x7FC0, "f32": 0x7FC00000, "f64": 0x7FF8000000000000}
Judged = tuple[np.ndarray, np.ndarray]  # patterns (uint64), flags


def bits(t: str) -> int:
    return int(t.lstrip("bfiu"))


# -- the judge
def values(patterns: np.ndarray, t: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return patterns.astype(f"u{bits(t) // 8}").view(FORMATS[t]).astype(np.float64)


def integral(q: np.ndarray, mode: int) -> np.ndarray:
    away = np.trunc(q) + np.copysign(np.abs(q - np.trunc(q)) >= 0.5, q)
    return [np.rint(q), np.trunc(q), np.floor(q), np.ceil(q), away][mode]


def rounded(x: np.ndarray, t: str, mode: int) -> Judged:
    """Float64 values, exact or with more digits than a tie can hide, in format t."""
    digits, least = LIMITS[t]
    e = np.frexp(np.where(np.isfinite(x) & (x != 0), x, 1.0))[1] - 1
    scale = np.maximum(e, least) - digits
    q = np.ldexp(x, -scale)
    n = integral(q, mode)
    y = np.ldexp(n, scale)
    inexact = (n != q) & np.isfinite(x)
    tiny = np.abs(np.ldexp(integral(np.ldexp(x, digits - e), mode), e - digits)) < 2.0 ** least  # with an exponent that has no bounds
    largest = 2.0 ** (1 - least) * (2 - 2.0 ** -digits)
    over = (np.abs(y) > largest) & np.isfinite(x)
    stays = (mode == RTZ) | (mode == RDN) & (x > 0) | (mode == RUP) & (x < 0)
    y = np.where(over, np.copysign(np.where(stays, largest, np.inf), x), y)
    out = y.astype(FORMATS[t]).view(f"u{bits(t) // 8}").astype(np.uint64)
    flags = inexact * NX | (inexact & tiny) * UF | over * (OF | NX)
    return np.where(np.isnan(x), np.uint64(NAN[t]), out), flags


def signalling(patterns: np.ndarray, t: str) -> np.ndarray:
    return np.isnan(values(patterns, t)) & (patterns >> np.uint64(LIMITS[t][0] - 1) & np.uint64(1) == 0)


def float_to_float(p: np.ndarray, src: str, dst: str, mode: int) -> Judged:
    out, flags = rounded(values(p, src), dst, mode)
    return out, flags | signalling(p, src) * NV


def float_to_int(p: np.ndarray, src: str, dst: str, mode: int) -> Judged:
    x, n, signed = values(p, src), bits(dst), dst[0] == "i"
    low, high = (-(1 << n - 1), (1 << n - 1) - 1) if signed else (0, (1 << n) - 1)
    i = integral(x, mode)
    beyond, below = (i >= float(high + 1)) | np.isnan(x), i < low
    fits = np.where(beyond | below, 0, i)
    out = fits.astype(np.int64).view(np.uint64) if signed else fits.astype(np.uint64)
    out = np.where(beyond, np.uint64(high), np.where(below, np.uint64(low & (1 << 64) - 1), out))
    return out & np.uint64((1 << n) - 1), np.where(beyond | below, NV, (i != x) * NX)


def int_to_float(p: np.ndarray, src: str, dst: str, mode: int) -> Judged:
    t = np.dtype(f"{src[0]}{bits(src) // 8}")
    whole = p.astype(f"u{bits(src) // 8}").view(t)
    assert np.array_equal(whole.astype(np.float64).astype(object), whole.astype(object))
    return rounded(whole.astype(np.float64), dst, mode)


def square_root(p: np.ndarray, src: str, dst: str, mode: int) -> Judged:
    x = values(p, src)
    out, flags = rounded(np.sqrt(x), dst, mode)
    return out, flags | (signalling(p, src) | (x < 0)) * NV


def classify(p: np.ndarray, src: str, dst: str, mode: int) -> Judged:
    x = values(p, src)
    normal, negative = np.abs(x) >= 2.0 ** LIMITS[src][1], np.signbit(x)
    which = np.select([np.isnan(x), np.isinf(x), normal, x != 0], [9 - signalling(p, src), 7 - 7 * negative, 6 - 5 * negative, 5 - 3 * negative],
                      4 - negative)
    return np.uint64(1) << which.astype(np.uint64), np.zeros(len(p), np.int64)


# -- the instructions
@dataclass(frozen=True)
class Op:
    """`{}` of a scalar text is the destination and the source; `mode` is the static one of a row that has it."""

    name: str
    src: str
    dst: str
    judge: Callable[[np.ndarray, str, str, int], Judged]
    mode: int | None = None

    @property
    def vector(self) -> bool:
        return self.name[0] == "v"


def rounds_by_itself(op: Op) -> bool:
    return "rm" in FORMS[BY_NAME[op.name].fmt]


ALL16 = np.arange(1 << 16, dtype=np.uint64)


def operations() -> list[Op]:
    h, b = "f16", "bf16"
    out = [Op("fsqrt.h", h, h, square_root), Op("fclass.h", h, "u16", classify), Op("fcvt.s.h", h, "f32", float_to_float),
           Op("fcvt.d.h", h, "f64", float_to_float), Op("fcvt.s.bf16", b, "f32", float_to_float), Op("fcvt.h.s", "f32", h, float_to_float),
           Op("fcvt.h.d", "f64", h, float_to_float), Op("fcvt.bf16.s", "f32", b, float_to_float),
           Op("vfsqrt.v", h, h, square_root), Op("vfclass.v", h, "u16", classify), Op("vfwcvt.f.f.v", h, "f32", float_to_float),
           Op("vfwcvtbf16.f.f.v", b, "f32", float_to_float), Op("vfncvt.f.f.w", "f32", h, float_to_float),
           Op("vfncvtbf16.f.f.w", "f32", b, float_to_float)]
    for i, t in (("w", "i32"), ("wu", "u32"), ("l", "i64"), ("lu", "u64")):
        out += [Op(f"fcvt.{i}.h", h, t, float_to_int), Op(f"fcvt.h.{i}", t, h, int_to_float)]
    for i, s in (("x", "i"), ("xu", "u")):
        for name, n in ((f"vfcvt.{{}}{i}.f.v", 16), (f"vfwcvt.{{}}{i}.f.v", 32), (f"vfncvt.{{}}{i}.f.w", 8)):
            out += [Op(name.format(""), h, f"{s}{n}", float_to_int), Op(name.format("rtz."), h, f"{s}{n}", float_to_int, RTZ)]
        out += [Op(f"vfcvt.f.{i}.v", f"{s}16", h, int_to_float), Op(f"vfwcvt.f.{i}.v", f"{s}8", h, int_to_float),
                Op(f"vfncvt.f.{i}.w", f"{s}32", h, int_to_float)]
    return [op for op in out if op.name in BY_NAME]


OPS = operations()


@cache
def patterns(src: str, dst: str) -> np.ndarray:
    """Operands, padded to whole blocks."""
    if bits(src) <= 16:
        return ALL16[:1 << bits(src)]
    x = np.unique(values(ALL16, dst))  # the target's numbers
    x = x[np.isfinite(x)]
    if src[0] == "f":
        digits, least = LIMITS[dst]
        past = np.ldexp(1.0, 2 - least)  # where an exponent more would begin
        x = np.concatenate([x, [past, -past]])
        x = np.concatenate([x, (x + np.roll(x, 1)) / 2, [np.inf, -np.inf, 1e30, -1e30]])
        with np.errstate(over="ignore"):
            p = x.astype(FORMATS[src]).view(f"u{bits(src) // 8}").astype(np.uint64)
        p = np.concatenate([p, p + np.uint64(1), p - np.uint64(1), np.array([NAN[src], NAN[src] - 1 ^ 1 << LIMITS[src][0] - 1], np.uint64)])
        p &= np.uint64((1 << bits(src)) - 1)
    else:
        x = x[(x == np.trunc(x)) & (x >= (-(2.0 ** (bits(src) - 1)) if src[0] == "i" else 0))]
        x = np.concatenate([x, np.trunc((x + np.roll(x, 1)) / 2), [65519, 65520, 65535, 65536, 2.0 ** (bits(src) - 2)]])
        x = np.concatenate([x, x + 1, np.maximum(x - 1, 0)])
        p = x.astype(np.int64).view(np.uint64) & np.uint64((1 << bits(src)) - 1)
    p = np.unique(p)
    return np.concatenate([p, np.repeat(p[-1:], -len(p) % 64)])


def kernel(op: Op, fcsr: bool, static: str = "") -> str:
    """Arguments: operands, results, flags, how many, mode, elements a block (vectors). Scalars stand in 8 bytes each. A static mode is written
    as `, rtz`."""
    head = "\n".join(f"ld s{n}, {8 * n}(a0)" for n in range(6))
    head += "\ncsrrw zero, 0x002, s4\nagain: csrrwi zero, 0x001, 0\n" if fcsr else "\nagain:\n"
    flags = "csrrs t1, 0x001, zero\n" if fcsr else ""
    a, d = bits(op.src), bits(op.dst)
    if op.vector:
        sew = min(a, d)
        body = (f"vsetvli t0, s5, e{a}, m4, ta, ma\nvle{a}.v v8, (s0)\nvsetvli t0, s5, e{sew}, m{4 * sew // a}, ta, ma\n{op.name} v16, v8\n"
                f"{flags}vsetvli t0, s5, e{d}, m{4 * d // a}, ta, ma\nvse{d}.v v16, (s1)\n"
                f"li t3, {a // 8}\nmul t2, s5, t3\nadd s0, s0, t2\nli t3, {d // 8}\nmul t2, s5, t3\nadd s1, s1, t2\n")
        step = "sub s3, s3, s5\n"
    else:
        load = {"f16": "flh", "bf16": "flh", "f32": "flw", "f64": "fld"}.get(op.src, "ld")
        source, target = "ft0" if load != "ld" else "t0", "ft1" if op.dst[0] in "fb" else "t2"
        body = (f"{load} {source}, 0(s0)\n{op.name} {target}, {source}{static}\n{'fsd' if target == 'ft1' else 'sd'} {target}, 0(s1)\n"
                f"{flags}addi s0, s0, 8\naddi s1, s1, 8\n")
        step = "addi s3, s3, -1\n"
    return f"{head}{body}sd t1, 0(s2)\naddi s2, s2, 8\n{step}bnez s3, again\njalr zero, ra, 0\n"


@cache
def simulator(fcsr: bool) -> tuple[Device, Any, tuple[int, ...]]:
    """One program with a kernel for each instruction, without fcsr for each static mode; (device, program, addresses of operands, results, flags)."""
    code, symbols = b"", {}
    for op in OPS:
        for n, mode in enumerate(ROUNDING[:5] if not fcsr and rounds_by_itself(op) else [""]):
            symbols[f"{op.name} {n}"] = BASE + len(code)
            code += assemble(kernel(op, fcsr, f", {mode}" if mode else ""), BASE + len(code))
    d = Device(load_machine("base", {"core.warps": 1, "gpu.cores": 1}), memory_bytes=1 << 24, timing=False)
    program = d.load(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), symbols)))
    return d, program, tuple(d.alloc(1 << 22) for _ in range(3))


def run(op: Op, p: np.ndarray, mode: int, block: int, fcsr: bool) -> Judged:
    """(result patterns, flags of each block)."""
    d, program, at = simulator(fcsr)
    d.write(at[0], p.astype(f"u{bits(op.src) // 8}") if op.vector else p)
    top = d.top
    d.launch(program, f"{op.name} {0 if fcsr else mode}", [*at, len(p), mode, block], ctas=1)
    d.top = top  # (arguments are not kept)
    out = np.frombuffer(d.read(at[1], len(p) * (bits(op.dst) // 8 if op.vector else 8)), f"u{bits(op.dst) // 8 if op.vector else 8}")
    return out.astype(np.uint64), np.frombuffer(d.read(at[2], 8 * len(p) // block), np.uint64).astype(np.int64)


def register(out: np.ndarray, t: str) -> np.ndarray:
    """The 64-bit register of a scalar result: floats NaN-boxed, words sign-extended."""
    if t[0] in "fb":
        return out | np.uint64((1 << 64) - (1 << bits(t)))
    return out.astype(np.uint32).view(np.int32).astype(np.int64).view(np.uint64) if bits(t) == 32 else out


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_pattern(op):
    p = patterns(op.src, op.dst)
    for mode in MODES:
        with np.errstate(all="ignore"):
            want, flags = op.judge(p, op.src, op.dst, mode if op.mode is None else op.mode)
        want = want if op.vector else register(want, op.dst)
        for block in (1, 64) if op.vector else (1,):
            got, raised = run(op, p, mode, block, True)
            n = int(np.argmax(got != want))
            assert np.array_equal(got, want), f"{op.name} mode {mode} of {int(p[n]):#x}: {int(got[n]):#x}, NumPy {int(want[n]):#x}"
            each = np.bitwise_or.reduce(flags.reshape(-1, block), 1)
            n = int(np.argmax(raised != each))
            assert np.array_equal(raised, each), f"{op.name} mode {mode} of {int(p[n * block]):#x}: flags {int(raised[n]):#x}, want {int(each[n]):#x}"


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_pattern_without_fcsr(op):
    p = patterns(op.src, op.dst)
    for mode in MODES if rounds_by_itself(op) else [RNE]:
        with np.errstate(all="ignore"):
            want = op.judge(p, op.src, op.dst, mode if op.mode is None else op.mode)[0]
        want = want if op.vector else register(want, op.dst)
        got = run(op, p, mode, 64, False)[0]
        n = int(np.argmax(got != want))
        assert np.array_equal(got, want), f"{op.name} mode {mode} of {int(p[n]):#x}: {int(got[n]):#x}, NumPy {int(want[n]):#x}"


def test_operands_reach_every_result():
    """The narrowing conversions give every number of the 16-bit format."""
    for op in OPS:
        if op.judge is float_to_float and bits(op.dst) == 16:
            with np.errstate(all="ignore"):
                results = op.judge(patterns(op.src, op.dst), op.src, op.dst, RNE)[0]
            assert np.array_equal(np.setdiff1d(ALL16[~np.isnan(values(ALL16, op.dst))], results), [])
