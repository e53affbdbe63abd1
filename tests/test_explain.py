"""What --explain says, and the text after every pass, for GEMM + bias + GELU and causal attention."""

from __future__ import annotations

import re

import pytest

from rvgpu.ir.text import print_funcs
from rvgpu.isa.machine import load_machine
from rvgpu.passes.context import Context, Facts
from rvgpu.passes.explain import Explain
from rvgpu.passes.pipeline import PIPELINE, run_passes
from rvgpu.runtime.kernel import Kernel, bucket, kernel, load_file

ZOO = load_file("examples/zoo.rvg")
CASES = {"gemm_bias_gelu": {"M": 512, "N": 512, "K": 512}, "attention": {"B": 1, "G": 8, "R": 4, "S": 512, "T": 512, "D": 128}}


def explained(k, dims):
    """(the text, [(pass, IR text)], cycles after each pass)."""
    context = Context(Facts.of(load_machine("base")), {n: v for n, v in dims.items() if n == "D"}, {n: bucket(v) for n, v in dims.items()})
    e, texts, cycles = Explain(k.func, context), [], []

    def look(p, units, _seconds):
        e(p.name, units)
        texts.append((p.name, print_funcs(units, locs=False)))
        cycles.append(e.cycles)

    run_passes([k.func], PIPELINE, context, look)
    return "\n".join(e.lines) + "\n", texts, cycles


@pytest.mark.parametrize("name", CASES)
def test_goldens_after_every_pass(name, golden):
    text, texts, _ = explained(Kernel(ZOO[name]), CASES[name])
    golden(f"passes/{name}.explain.txt", re.sub(r" +[\d,]+ cycles", " N cycles", text))
    for n, (p, ir) in enumerate(texts):
        golden(f"passes/{name}.{n}-{p}.txt", ir)


def test_the_derivation_is_readable():
    text, _, cycles = explained(Kernel(ZOO["attention"]), CASES["attention"])
    for line in ("x0 = dot(q, k, over=D)", "state    s0 = max over T of x1", "state    s1 = sum over T of exp(x1 - c0)", "anchor   c0 = s0",
                 "s2new = s2 * exp(d0)", "merge    A and B re-based to the anchors of both: s0 max(A, B), s1 A + B, s2 A + B", "1 / s1"):
        assert line in text, line
    at = {p.name: c for p, c in zip(PIPELINE, cycles, strict=True)}
    assert at["cluster"] < at["expand"] / 4, "fusion saves what it saves"
    assert at["tile"] == at["stage"] > 0


def test_the_model_is_above_the_roofline():
    _, _, cycles = explained(Kernel(ZOO["gemm_bias_gelu"]), CASES["gemm_bias_gelu"])
    at = {p.name: c for p, c in zip(PIPELINE, cycles, strict=True)}
    assert at["tile"] == at["stage"] > at["cascade"]


def test_two_passes_of_chan():
    k = kernel("def f(x: f32[M, N]) -> f32[M]:\n    return var(x, over=N)\n")
    text, _, _ = explained(k, {"M": 100, "N": 1000})
    assert re.search(r"re-base +with d0 = c0 - c0new", text) and re.search(r"s\dnew = .*d0\) \* d0", text), text
