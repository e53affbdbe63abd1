"""Functions of one f32 on the simulator against float64: no result is further off than the docstring of llvm_math.py states, with and without
the exponential unit, and zeros keep their sign."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from rvgpu import kernel
from rvgpu.codegen_rvgpu import llvm_math
from rvgpu.ir import error_base
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import K, KFunc, KTensor
from rvgpu.ir.types import DType
from rvgpu.isa.machine import load_machine
from rvgpu.runtime.code import make_code
from rvgpu.runtime.launch import run_code

STATED = {name: float(most) for name, most in re.findall(r"\b([a-z]+2?) (\d\.\d)", llvm_math.__doc__ or "")}
BY_UNIT = {name: float(most) for name, most in re.findall(r"\b([a-z]+2?) \d\.\d \((\d\.\d) by the unit\)", llvm_math.__doc__ or "")}
MEANING = {"exp": np.exp, "exp2": np.exp2, "log": np.log, "log2": np.log2, "tanh": np.tanh, "erf": np.frompyfunc(math.erf, 1, 1),
           "rsqrt": lambda x: 1 / np.sqrt(x), "sqrt": np.sqrt, "floor": np.floor, "round": np.rint}
USE_EXP = ("exp", "exp2", "tanh", "erf")
ODD = ("tanh", "erf", "sqrt", "floor", "round")  # f(-0) = -0


def around(points, width):
    """Each point and `width` neighbours on both sides."""
    bits = np.asarray(points, np.float32).view(np.int32).astype(np.int64)
    return (bits[:, None] + np.arange(-width, width + 1)).ravel().astype(np.uint32).view(np.float32)


def sample():
    """Every sign and exponent (zeros, subnormals, infinities and NaNs too) with 128 mantissas; the ranges where functions bend; neighbours of every
    point where a reduction changes its integer, of thresholds, and of the ends of the range."""
    mantissas = [0, 1, 2, 0x7FFFFF, 0x7FFFFE, 0x400000, 0x3504F2, 0x3504F3, 0x3504F4, *(n * 2654435761 >> 3 & 0x7FFFFF for n in range(119))]
    positive = (np.arange(256, dtype=np.uint32)[:, None] << 23 | np.array(mantissas, np.uint32)).ravel()
    line, n, powers = np.linspace(-1, 1, 12001), np.arange(-151, 130), 2.0 ** np.arange(-148, 128)
    edges = [1, 0.927734375, 0.55, 88.7228394, -87.3365447, -103.972077, -103.278929, 128, -126, -149, -150, 64, -64, 9.010913, 3.9192059, 8388608,
             4194304, 2147483648, 0.5, -0.5, 1.5, 2.5, -2.5]
    ends = around(edges, 64)
    parts = [positive.view(np.float32), (positive | 1 << 31).view(np.float32), ends, -ends, around((n + 0.5) * math.log(2), 4),
             around(n * math.log(2), 4), around(n + 0.5, 4), around(n[n != 0], 4), around(powers[1:], 2), around(math.sqrt(2) * powers[1:-1], 4),
             1 + line / 2, 1 + line / 1024, *(line * s for s in (1.2, 5, 100, 150))]
    return np.concatenate([np.asarray(p, np.float32) for p in parts])


X = sample()


def ulps(got, want):
    """Distance in units of the last place of the result (of the smallest normal, below it); infinite where only one is NaN or infinite."""
    with np.errstate(all="ignore"):
        unit = np.ldexp(1.0, np.maximum(np.frexp(np.abs(want))[1] - 1, -126) - 23)
        rounded = want.astype(np.float32)
        exact = (got == rounded) | np.isnan(got) & np.isnan(want)
        return np.where(np.isfinite(rounded) & np.isfinite(got), np.abs(got - want) / unit, np.where(exact, 0, np.inf))


def check(name, got, most, x=X):
    with np.errstate(all="ignore"):
        want = MEANING[name](x.astype(np.float64)).astype(np.float64)
    off = ulps(got, want)
    at = int(np.argmax(off))
    assert off[at] <= most, f"{name}({float(x[at])!r}) = {float(got[at])!r}, not {want[at]!r}: {off[at]:.2f} ulp"
    return off[at]


@pytest.mark.parametrize("name,unit", [(n, u) for n in MEANING for u in ((True, False) if n in USE_EXP else (True,))])
def test_error_is_as_stated(name, unit):
    k = kernel(f"def f(x: f32[N]) -> f32[N]:\n    return {name}(x)")
    got = k.compile("base", overrides={"exp.present": unit}).run(X).out
    most = BY_UNIT.get(name, STATED.get(name, 0.0)) if unit else STATED.get(name, 0.0)  # no number: exact
    found = check(name, got, most)
    assert unit and name not in BY_UNIT or found > most - 0.2, f"{name} is within {found:.2f} ulp: state that"
    if name in ODD:
        zero = X == 0
        assert (np.signbit(got) == np.signbit(X))[zero].all()
    if name in ("floor", "round"):
        assert not np.signbit(got[(X > 0) & (X < 1)]).any() and np.signbit(got[(X < 0) & (X > -1)]).all()


def test_every_function_is_stated():
    assert set(STATED) == set(MEANING) - {"floor", "round"} and set(MEANING) | {"neg", "abs"} == llvm_math.FUNCTIONS
    bounds = {"exp": error_base.EXP_ULPS, "exp2": error_base.EXP_ULPS, "log": error_base.LOG_ULPS, "log2": error_base.LOG_ULPS,
              "tanh": error_base.TANH_ULPS, "erf": error_base.ERF_ULPS, "rsqrt": error_base.RSQRT_ULPS}
    assert all(max(STATED[name], BY_UNIT.get(name, 0)) <= assumed for name, assumed in bounds.items())


@pytest.mark.parametrize("unit", [True, False])
def test_anchored_exponential(unit):
    """x - max(x) <= 0, and at most 8 where an anchor lags: 0 below -64 is the unit's contract, the polynomial goes on."""
    lanes, dim = 128, Dim.of("N")
    f = KFunc("k", [KTensor("x", DType.f32, (dim,)), KTensor("y", DType.f32, (dim,), True)], [], ["N"], 4, vlen=512, te=64)
    k = K(f)
    x, y = (k.mem_arg(n, DType.f32, [k.dim("N")], [k.const(1)]) for n in "xy")

    def body(i, carried):
        vl = k.idx("min", k.idx("sub", k.dim("N"), i), lanes)
        k.store(k.mem_at(y, [i]), k.vt("exp", k.load(k.mem_at(x, [i]), vl, axis=0, lanes=lanes), vl=vl, anchored=True), vl, axis=0)
        return []

    start = k.idx("add", k.idx("mul", k.special("cta"), 4), k.special("warp"))
    k.for_(k.idx("mul", start, lanes), k.dim("N"), k.idx("mul", k.special("ctas"), 4 * lanes), [], body)
    machine = load_machine("base", {"exp.present": unit})
    values = X[(X <= 8) | np.isnan(X)]
    got = run_code(make_code([f], machine), machine, {"N": values.size}, {"x": values}, {}).outputs["y"]
    low = values <= -64
    check("exp", got[~low], 0.51 if unit else STATED["exp"], values[~low])
    assert (got[low] == 0).all() if unit else (got[low] <= np.exp(np.float32(-63.99))).all()
