"""The cascade rule itself, in float64: any cut of the streamed dim and any merge tree gives the totals, and every mutant of the rule dies."""

from __future__ import annotations

import inspect
import random
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.ir.bounds import reference
from rvgpu.ir.evaluate import StreamRun, evaluate
from rvgpu.passes import cascade
from rvgpu.passes.context import Context
from rvgpu.passes.pipeline import PIPELINE, run_passes
from rvgpu.runtime.kernel import kernel
from tests.test_ir_tensor import cut_of
from tests.test_lowering import facts

QKV = "q: f32[S, D], k: f32[T, D], v: f32[T, D]"
KERNELS = {  # name: (arguments and result, body); the last expression is returned
    "softmax": ("x: f32[M, T]) -> f32[M, T]", "return softmax(x, over=T)"),
    "logsumexp": ("x: f32[M, T]) -> f32[M]", "return logsumexp(x, over=T)"),
    "variance": ("x: f32[M, T]) -> f32[M]", "return var(x, over=T)"),
    "third_moment": ("x: f32[M, T]) -> f32[M]", "c = x - mean(x, over=T)\n    return mean(c * c * c, over=T)"),
    "layernorm": ("x: f32[M, T], w: f32[T]) -> f32[M, T]", "c = x - mean(x, over=T)\n    return c * rsqrt(mean(c * c, over=T) + 1e-5) * w"),
    "norm_then_product": ("x: f32[M, T], w: f32[T, N]) -> f32[M, N]",
                          "c = x - mean(x, over=T)\n    h = c * rsqrt(mean(c * c, over=T) + 1e-5)\n    return h @ w"),
    "rmsnorm": ("x: f32[M, T], w: f32[T]) -> f32[M, T]", "return x * rsqrt(mean(x * x, over=T) + 1e-6) * w"),
    "entropy": ("x: f32[M, T]) -> f32[M]", "p = softmax(x, over=T)\n    return sum(p * (logsumexp(x, over=T) - x), over=T)"),
    "cross_entropy": ("x: f32[M, T], y: f32[M, T]) -> f32[M]", "return logsumexp(x, over=T) - sum(x * y, over=T)"),
    "count_of_top": ("x: f32[M, T]) -> f32[M]", "m = amax(x, over=T)\n    return sum(where(x == m, 1.0, 0.0), over=T)"),
    "count_of_least": ("x: f32[M, T], y: f32[T]) -> f32[M]", "m = amin(x, over=T)\n    return sum(where(x == m, y, 0.0), over=T)"),
    "halves": ("x: f32[M, T]) -> f32[M]", "m = amax(x, over=T)\n    return sum(exp(0.5 * (x - m)), over=T)"),
    "mirrored": ("x: f32[M, T]) -> f32[M]", "m = amin(x, over=T)\n    return sum(exp(m - x), over=T)"),
    "guarded": ("x: f32[M, T], y: f32[T]) -> f32[M]", "m = amax(x, over=T)\n    return sum(where(y > 0, exp(x - m), 0.0), over=T)"),
    "over_a_total": ("x: f32[M, T], y: f32[T]) -> f32[M]", "e = exp(x - amax(x, over=T))\n    return sum(e / (sum(e, over=T) + 1) * y, over=T)"),
    "over_an_x": ("x: f32[M, T], y: f32[T]) -> f32[M]", "return sum(exp(x - amax(x, over=T)) / (abs(y) + 1), over=T)"),
    "mean_less_x": ("x: f32[M, T], y: f32[T]) -> f32[M]", "return sum((mean(x, over=T) - x) * y, over=T)"),
    "difference": ("x: f32[M, T], y: f32[T]) -> f32[M]", "e = exp(x - amax(x, over=T))\n    return sum(e * y - e, over=T)"),
    "attention": (f"{QKV}) -> f32[S, D]", "return softmax(q @ k, over=T) @ v"),
    "causal": (f"{QKV}) -> f32[S, D]",
               "s = q @ k\n    s = where(iota(T) <= iota(S) + (size(T) - size(S)), s, -inf)\n    return softmax(s, over=T) @ v"),
    "softcap": (f"{QKV}) -> f32[S, D]", "return softmax(5.0 * tanh((q @ k) * 0.3), over=T) @ v"),
    "with_lse": (f"{QKV}) -> (f32[S, D], f32[S])", "s = q @ k\n    return softmax(s, over=T) @ v, logsumexp(s, over=T)"),
    "by_hand": (f"{QKV}) -> f32[S, D]", "s = q @ k\n    e = exp(s - amax(s, over=T))\n    return (e @ v) / sum(e, over=T)"),
}
LARGE = {"variance", "third_moment", "layernorm", "norm_then_product"}  # mean 1000 x the deviation


def made(name):
    head, body = KERNELS[name]
    return kernel(f"def f({head}:\n    {body}\n").func


def derived(func, passes=None):
    sizes = dict.fromkeys(func.dim_names(), 16)
    return run_passes([func], passes or PIPELINE[:4], Context(facts(8, 128, 2), sizes, sizes))


def drawn(name, func, r):
    sizes = {n: r.randint(1, 5) if n != "T" else r.randint(1, 13) for n in func.dim_names()}
    rng = np.random.default_rng(r.getrandbits(32))
    inputs = {}
    for p in func.params:
        x = rng.standard_normal([d.value(sizes) for d in p.value.tensor.dims]) * 4
        if name in LARGE and p.name == "x":
            x += 1000 * r.choice([0, 4, -4])
        if name in ("softmax", "logsumexp") and r.random() < 0.5:  # masks, and rows that are nothing else
            x[rng.random(x.shape) < 0.4] = -np.inf
            x[rng.random(len(x)) < 0.3] = -np.inf
        if name in ("count_of_top", "count_of_least") and p.name == "x":
            x = np.round(x / 4)
        inputs[p.name] = x.astype(np.float32)
    return sizes, inputs


def compare(name, units, func, r):
    """The derived functions against the math they came from, at a random cut and merge tree. The largest error over max |reference|."""
    sizes, inputs = drawn(name, func, r)
    refs, _ = reference(func, inputs, {}, dims=sizes)
    known = {n: x.astype(np.float64) for n, x in inputs.items()}
    for u in units:
        args = {p.name: known[p.name] for p in u.params}
        out = evaluate(u, args, {}, dims=sizes, mode="float64", cuts=cut_of(r, sizes.get("T", 0)) if "T" in u.dim_names() else None)
        known.update(zip(u.result_names, out, strict=True))
    worst = 0.0
    for n, ref in zip(func.result_names, refs, strict=True):
        got, finite = known[n], np.isfinite(ref)
        if not np.array_equal(np.isnan(got), np.isnan(ref)) or not np.array_equal(got[~finite & ~np.isnan(ref)], ref[~finite & ~np.isnan(ref)]):
            return np.inf
        scale = max(1e-3, float(np.abs(ref[finite]).max(initial=0.0)))
        worst = max(worst, float(np.abs(got[finite] - ref[finite]).max(initial=0.0)) / scale)
    return worst


def tolerance(name):
    """A mean of 4000 has an ulp of 1e-12 of it, which the third power of the rest sees. One element alone has the rest 0: what its mean rounds,
    times rsqrt(1e-5) and the weights, is all that is there, over the least scale of 1e-3."""
    if name in ("layernorm", "norm_then_product"):
        return 1e-5
    return 1e-7 if name in LARGE else 1e-12


UNITS = {}


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=40)
@given(st.randoms(use_true_random=False))
def test_any_cut_and_any_tree(name, r):
    if name not in UNITS:
        func = made(name)
        UNITS[name] = func, derived(func)
    func, units = UNITS[name]
    assert any(op.name == "stream" for u in units for op in u.body.walk()), "the rule made no stream"
    assert compare(name, units, func, r) <= tolerance(name)


SOURCE = inspect.getsource(cascade)
IN_RULE = [  # what is written, what the mutant writes, and a kernel that must see it
    ("math.comb(", "(lambda n, k: 1)(", "variance third_moment"), ("u = _scaled(b, diff(a), k)", "u = diff(a)", "halves"),
    ("factors += [diff(a)] * p", "factors += [diff(a)]", "variance"),
    ("if term.sign < 0:", "if False:", "mean_less_x"),
    ("for g in [*term.guards, *(", "for g in [*(", "guarded"), ('"div" if inverse else "mul", x, self.local', '"mul", x, self.local', "over_a_total"),
    ("            if inverse:\n                out = _two(b, \"div\"", "            if False:\n                out = _two(b, \"div\"", "over_an_x"),
    ("for q in range(p + 1)]", "for q in (p,)]", "third_moment variance"),
    ("return [*self.normal(a), *self.n_neg(b, b)]", "return self.normal(a)", "difference"),
    ("for x, d in term.equal)]", "for x, d in ())]", "count_of_top"), ('(self.make("neg", x), self.make("neg", d))', "(x, d)", "mirrored"),
]
IN_RUN = {  # of the evaluator's own moves
    "no re-base": ("rebase", lambda self, a, states, old, new: states), "anchors of -inf are not 0": ("safe", lambda self, a, d: d),
    "anchors never move": ("ready", lambda self, k: []),
    "the other way": ("rebase", lambda self, a, states, old, new, true=StreamRun.rebase: true(self, a, states, new, old)),
}


def killed(names, passes=None):
    """Whether some check of these kernels fails."""
    for name in names:
        try:
            func = made(name)
            units = derived(func, passes)
            for seed in range(25):
                if not compare(name, units, func, random.Random(seed)) <= tolerance(name):
                    return True
        except Exception:  # a mutant may also make what does not verify
            return True
    return False


@pytest.mark.parametrize("old,new,names", IN_RULE, ids=[o[:28] for o, _, _ in IN_RULE])
def test_mutants_of_the_rule_die(old, new, names, monkeypatch):
    assert old in SOURCE, "the rule reads differently: choose another mutant"
    module = types.ModuleType("rvgpu.passes.mutant")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(SOURCE.replace(old, new), "mutant.py", "exec"), module.__dict__)
    assert killed(names.split(), [*PIPELINE[:3], module.Cascade()]), "a wrong rule passes the tests"


@pytest.mark.parametrize("what", IN_RUN)
def test_mutants_of_the_moves_die(what, monkeypatch):
    monkeypatch.setattr(StreamRun, *IN_RUN[what])
    assert killed(["softmax", "attention", "variance", "logsumexp"]), "a wrong move passes the tests"


def test_the_tests_pass_without_a_mutant():
    assert not killed(dict.fromkeys(["softmax", "attention", "logsumexp", *(n for _, _, names in IN_RULE for n in names.split())]))


@pytest.mark.parametrize("body,why", [
    ("m = sum(x, over=T)\n    return sum(sqrt(abs(x - m)), over=T)", "mixes the streamed dim"),
    ("m = amin(x, over=T)\n    return sum(exp(x - m), over=T)", "exp of"),
    ("m = amax(x, over=T)\n    return sum(exp(2 * (x - m)), over=T)", "k above 1"),
    ("m = sum(x, over=T)\n    return sum(where(x == m, x, 0.0), over=T)", "[X == D]")])
def test_what_the_rule_refuses_has_a_reason(body, why):
    """Not fused, said why, and still right."""
    func = kernel(f"def f(x: f32[M, T]) -> f32[M]:\n    {body}\n").func
    sizes = {"M": 3, "T": 9}
    context = Context(facts(8, 128, 2), sizes, sizes)
    units = run_passes([func], PIPELINE[:4], context)
    assert len(units) > 1 and any(why in r.text for r in context.remarks), [r.text for r in context.remarks]
    x = (np.random.default_rng(0).standard_normal((3, 9))).astype(np.float32)
    known = {"x": x.astype(np.float64)}
    for u in units:
        known.update(zip(u.result_names, evaluate(u, {p.name: known[p.name] for p in u.params}, {}, dims=sizes, mode="float64"), strict=True))
    (want,), _ = reference(func, {"x": x}, {}, dims=sizes)
    np.testing.assert_allclose(known["out"], want, rtol=1e-6)  # what the first kernel stores is f32
