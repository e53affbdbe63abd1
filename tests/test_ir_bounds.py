"""Error bounds: right kernels pass in every order and anchor, wrong ones fail, and the rules agree with the closed forms."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.ir import bounds as bounds_module
from rvgpu.ir.bounds import compare, reference
from rvgpu.ir.evaluate import evaluate
from rvgpu.ir.generate import NAMES, random_func, random_inputs
from rvgpu.ir.numeric import gamma, half_ulp, round_to
from rvgpu.ir.slabs import by_slabs, free_dims
from rvgpu.ir.types import DType
from tests import level_t
from tests.level_t import T, dims

F32 = np.float32
U = 2.0**-24
EXP = 2 * 2.6 * U
RNG = np.random.default_rng(7)


def bf16(*shape, rng=RNG):
    return round_to(rng.standard_normal(shape), DType.bf16)


def only(func, inputs, scalars=None):
    (value,), (bound,) = reference(func, inputs, scalars)
    return value, bound


def within(x, y, factor=2.0):
    ok = (y > 0) & np.isfinite(y)
    return (x[ok] <= factor * y[ok]).all() and (y[ok] <= factor * x[ok]).all()


# -- kernels as a machine might run them

def mma(acc, a, b):
    """acc + a @ b with 16-bit products added in pairs: RN(acc + fma(a0, b0, RN(a1 b1)))."""
    for k in range(0, a.shape[-1], 2):
        first = a[..., :, k, None].astype(np.float64) * b[..., None, k, :].astype(np.float64)
        if k + 1 < a.shape[-1]:
            second = (a[..., :, k + 1, None].astype(np.float64) * b[..., None, k + 1, :].astype(np.float64)).astype(F32)
            first = (first + second).astype(F32)
        acc = (acc + first.astype(F32)).astype(F32)
    return acc


def flash(q, k, v, scale, *, block=16, tau=8.0, off=0, exp_error=0.0, forget=False, drop=False, lag=0.0):
    """Causal attention block by block with a lazy anchor, f32 state and bf16 P. `off`: the mask's shift; `forget`: O is not re-based;
    `drop`: the last key is left out; `lag`: the anchor stays below the maximum by this much."""
    S, T = q.shape[-2], k.shape[-2]
    m = np.full((*q.shape[:-1], 1), -np.inf, F32)
    total = np.zeros_like(m)
    out = np.zeros(q.shape, F32)
    for start in range(0, T - drop, block):
        stop = min(start + block, T - drop)
        kb, vb = k[..., start:stop, :], v[..., start:stop, :]
        s = mma(np.zeros((*q.shape[:-1], stop - start), F32), q, np.swapaxes(kb, -1, -2)) * F32(scale)
        ok = np.arange(start, stop) <= np.arange(S)[:, None] + T - S + off
        s = np.where(ok, s, F32(-np.inf)).astype(F32)
        top = s.max(-1, keepdims=True)
        with np.errstate(all="ignore"):
            new = np.where((m == -np.inf) | (top > m + F32(tau)), np.fmax(m, top - F32(lag)), m).astype(F32)
            grown = np.where(m == -np.inf, F32(0), np.exp((m - new).astype(F32)))
            p = np.where(s == -np.inf, F32(0), np.exp((s - np.where(new == -np.inf, F32(0), new)).astype(F32)))
        p = (p * (1 + exp_error)).astype(F32) if start else p
        total = (total * grown + p.sum(-1, keepdims=True, dtype=F32)).astype(F32)
        out = mma(out if forget else (out * grown).astype(F32), round_to(p, DType.bf16), vb)
        m = new
    with np.errstate(all="ignore"):
        return np.where(total == 0, F32(0), out * (F32(1) / total)).astype(F32)


@pytest.fixture(scope="module")
def causal():
    rng = np.random.default_rng(3)
    q, k, v = (round_to(rng.standard_normal(s) * 3, DType.bf16) for s in ((1, 1, 2, 20, 16), (1, 1, 52, 16), (1, 1, 52, 16)))
    func = level_t.attention(DType.f32)
    return (q, k, v), *only(func, [q, k, v], {"scale": 0.08})


@pytest.mark.parametrize("block", [1, 7, 16, 64])
@pytest.mark.parametrize("tau", [0.0, 8.0])
def test_flash_attention_passes(causal, block, tau):
    (q, k, v), ref, bound = causal
    kk, vv = k[:, :, None], v[:, :, None]
    for lag in (0.0, 5.0) if tau else (0.0,):
        check = compare(flash(q, kk, vv, 0.08, block=block, tau=tau, lag=lag), ref, bound)
        assert check.passed and check.bound_fraction > 0.05, check


@pytest.mark.parametrize("wrong", [{"off": 1}, {"off": -1}, {"forget": True}, {"drop": True}, {"exp_error": 2.0**-6}])
def test_wrong_attention_fails(causal, wrong):
    (q, k, v), ref, bound = causal
    tau = 0.0 if "forget" in wrong else 8.0
    assert compare(flash(q, k[:, :, None], v[:, :, None], 0.08, tau=tau, **wrong), ref, bound).bound_fraction > 1


@pytest.mark.parametrize("wrong", [{"off": 1}, {"off": -1}, {"forget": True}])
def test_wrong_attention_fails_in_bf16(wrong):
    rng = np.random.default_rng(5)
    q, k, v = (round_to(rng.standard_normal(s), DType.bf16) for s in ((1, 1, 1, 33, 32), (1, 1, 47, 32), (1, 1, 47, 32)))
    ref, bound = only(level_t.attention(), [q, k, v], {"scale": 0.4})
    kk, vv = k[:, :, None], v[:, :, None]
    assert compare(round_to(flash(q, kk, vv, 0.4), DType.bf16), ref, bound).passed
    got = flash(q, kk, vv, 0.4, tau=0.0 if "forget" in wrong else 8.0, **wrong)
    assert compare(round_to(got, DType.bf16), ref, bound).bound_fraction > 1


# -- GEMM

@pytest.mark.parametrize("out", [DType.f32, DType.bf16])
@pytest.mark.parametrize("shape", [(9, 5, 1), (33, 20, 77), (12, 40, 512)])
def test_gemm(out, shape):
    m, n, k = shape
    a, b = bf16(m, k), bf16(k, n)
    ref, bound = only(level_t.gemm(out), [a, b])
    good = mma(np.zeros((m, n), F32), a, b)
    assert compare(round_to(good, out), ref, bound).passed
    if k > 1:
        at = k // 2
        dropped = good - np.outer(a[:, at].astype(F32), b[at].astype(F32))
        assert compare(round_to(dropped, out), ref, bound).bound_fraction > 1
        acc = np.zeros((m, n), F32)
        for i in range(0, k, 2):  # accumulates in bf16
            acc = round_to(mma(acc, a[:, i:i + 2], b[i:i + 2]), DType.bf16).astype(F32)
        assert compare(round_to(acc, out), ref, bound).bound_fraction > 1
    size = np.abs(a.astype(float)) @ np.abs(b.astype(float))
    closed = gamma(k, DType.f32) * size
    assert within(bound, closed + (0 if out is DType.f32 else half_ulp(np.abs(ref) + closed, out)))


def test_large_shapes_are_quick():
    start = time.perf_counter()
    a, b = bf16(1000, 513), bf16(513, 777)
    only(level_t.gemm(), [a, b])
    q, k, v = bf16(1, 8, 1, 128, 128), bf16(1, 8, 512, 128), bf16(1, 8, 512, 128)
    only(level_t.attention(), [q, k, v], {"scale": 0.1})
    assert time.perf_counter() - start < 20


# -- softmax

def f32_softmax(x, exp_error=0.0, lag=0.0, mixed=0.0):
    with np.errstate(all="ignore"):
        m = x.max(1, keepdims=True) - F32(lag)
        m = np.where(np.isfinite(m), m, F32(0))
        e = np.exp((x - m).astype(F32)).astype(F32)
        e[:, ::2] *= F32(1 + exp_error)
        total = np.cumsum(np.exp((x - (m + F32(mixed))).astype(F32)) if mixed else e, axis=1, dtype=F32)[:, -1:]
        return np.where(total == 0, F32(0), e / total).astype(F32)


@pytest.mark.parametrize("n", [1, 5, 64, 700])
def test_softmax(n):
    x = (np.random.default_rng(n).standard_normal((6, n)) * 4).astype(F32)
    x[2, n // 2:] = -np.inf
    x[3] = -np.inf
    ref, bound = only(level_t.softmax(), [x])
    assert (ref[3] == 0).all() and (bound[3] == 0).all()
    for lag in (0.0, 3.0, 8.0):
        assert compare(f32_softmax(x, lag=lag), ref, bound).passed
    if n > 1:
        assert compare(f32_softmax(x, exp_error=2.0**-12), ref, bound).bound_fraction > 1
        assert compare(f32_softmax(x, mixed=0.01), ref, bound).bound_fraction > 1  # numerator and sum disagree on the anchor
    if n >= 64:
        closed = (2 * EXP + (n + 3) * U) * ref
        live = ref > 1e-12
        assert within(bound[live], closed[live])


def test_attention_closed_form():
    q, k, v = bf16(1, 1, 2, 40, 64), bf16(1, 1, 96, 64), bf16(1, 1, 96, 64)
    scale = 0.125
    ref, bound = only(level_t.attention(causal=False), [q, k, v], {"scale": scale})
    qf, kf, vf = (x.astype(float) for x in (q, k, v))
    s = np.einsum("bgrsd,bgtd->bgrst", qf, kf) * scale
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    weight = np.einsum("bgrst,bgtd->bgrsd", p, np.abs(vf))
    dot = np.einsum("bgrsd,bgtd->bgrst", np.abs(qf), np.abs(kf)).max() * scale
    closed = (2 * 2.0**-8 + 2 * EXP + (np.abs(s).max() + 96) * U + gamma(64, DType.f32) * dot) * weight
    assert within(bound, closed + half_ulp(np.abs(ref) + closed, DType.bf16))


# -- the rules as a whole

@settings(max_examples=80, deadline=None)
@given(st.randoms(use_true_random=False))
def test_declared_evaluation_is_within_bounds(r):
    func = random_func(r, r.randint(1, 10))
    sizes = {n: r.randint(1, 9) for n in NAMES}
    inputs = random_inputs(r, func, sizes)
    values, bounds = reference(func, inputs, dims=sizes)
    for got, ref, bound in zip(evaluate(func, inputs, dims=sizes), values, bounds, strict=True):
        check = compare(got, ref, bound)
        assert check.passed, check


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_within_bounds_at_the_edges(r):
    """NaN, infinities, no elements, overflow and underflow: certain where the reference says so."""
    func = random_func(r, r.randint(1, 7))
    sizes = {n: r.randint(0, 5) for n in NAMES}
    inputs = random_inputs(r, func, sizes, (1e-30, 1.0, 1e4, 1e19, 1e38), odd=0.1)
    values, bounds = reference(func, inputs, dims=sizes)
    for got, ref, bound in zip(evaluate(func, inputs, dims=sizes), values, bounds, strict=True):
        assert compare(got, ref, bound).passed


def test_slabs_change_nothing(monkeypatch):
    q, k, v = bf16(2, 3, 2, 5, 8), bf16(2, 3, 7, 8), bf16(2, 3, 7, 8)
    func = level_t.attention()
    assert free_dims(func) == ["B", "G", "R"]
    whole = reference(func, [q, k, v], {"scale": 0.3})
    monkeypatch.setattr(bounds_module, "by_slabs", partial(by_slabs, limit=60))
    for x, y in zip(whole, reference(func, [q, k, v], {"scale": 0.3}), strict=True):
        np.testing.assert_allclose(x[0], y[0], rtol=1e-12)


def test_uncertain_conditions():
    """A comparison within its operands' errors may go either way; an exact one may not."""
    t = T()
    x, y = t.arg("x", "N"), t.arg("y", "N")
    product = t.mul(x, x)
    unsure = t.select(t.lt(product, y), t.const(0.0), t.const(1.0))
    sure = t.select(t.lt(x, y), t.const(0.0), t.const(1.0))
    func = t.func(unsure, sure)
    a = np.array([1.1, 2.0, 3.0], F32)
    b = np.array([a[0] * a[0], 4.5, 1.0], F32)
    values, bounds = reference(func, [a, b])
    assert bounds[0] == pytest.approx([1.0, 0.0, 0.0]) and (bounds[1] == 0).all()


def test_nan_and_infinity_match_in_place():
    t = T()
    x = t.arg("x", "N")
    func = t.func(t.log(x), t.exp(x))
    values, bounds = reference(func, [np.array([-1.0, 0.0, 1.0, 1e30], F32)])
    assert np.isnan(values[0][0]) and values[0][1] == -np.inf and values[1][3] == np.inf  # f32 overflows
    got = values[0].copy()
    assert compare(got, values[0], bounds[0]).passed
    got[1] = np.nan
    assert compare(got, values[0], bounds[0]).bound_fraction == np.inf


def test_integers_are_exact():
    t = T()
    a, b = t.arg("a", "M K", DType.i8), t.arg("b", "K N", DType.i8)
    func = t.func(t.contract(a, b, dims=dims("K"), order="any"))
    x, y = RNG.integers(-128, 128, (5, 300)).astype(np.int8), RNG.integers(-128, 128, (300, 4)).astype(np.int8)
    values, bounds = reference(func, [x, y])
    exact = x.astype(np.int64) @ y.astype(np.int64)
    assert (values[0] == exact).all() and (bounds[0] == 0).all()
    assert compare(exact + (np.arange(4) == 2), values[0], bounds[0]).bound_fraction == np.inf


def test_layernorm_far_from_zero():
    """mean 1000 x std: the mean's own error enters the variance squared only."""
    t = T()
    x = t.arg("x", "M N")
    func = t.func(t.var(x, dims=dims("N")))
    a = (1000 + np.random.default_rng(1).standard_normal((4, 500))).astype(F32)
    ref, bound = only(func, [a])
    two_pass = np.square(a - a.mean(1, keepdims=True, dtype=F32)).mean(1, dtype=F32)
    naive = (a * a).mean(1, dtype=F32) - a.mean(1, dtype=F32) ** 2
    assert compare(two_pass, ref, bound).passed
    assert compare(naive, ref, bound).bound_fraction > 1
