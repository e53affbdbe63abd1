"""`--hot`: what the instructions waited for adds up to the warps' time, and the names of docs/json.md are those of the object."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rvgpu.cli import main
from rvgpu.passes.pipeline import parse_passes
from rvgpu.runtime.inputs import random_inputs
from rvgpu.runtime.kernel import Kernel, load_file
from rvgpu.sim.hot import hottest
from rvgpu.sim.trace import UNIT_NAMES

ZOO = str(Path(__file__).parents[1] / "examples" / "zoo.rvg")
DIMS = {"M": 70, "N": 50, "K": 90}
SIZES = " ".join(f"-D {d}={n}" for d, n in DIMS.items())


@pytest.fixture(scope="module")
def run():
    kernel = Kernel(load_file(ZOO)["gemm_bias_gelu"])
    return kernel.compile("base", passes=parse_passes("+tile{wm=2,wn=2}")).run(*random_inputs(kernel.func, DIMS))


def test_the_rows_add_up_to_the_trace(run):
    trace = run.traced()
    rows = hottest(trace, 1 << 20)
    slices = list(trace.slices())
    assert sum(r.share for r in rows) == pytest.approx(1)
    for cause in {c for r in rows for c in r.waits}:
        assert sum(r.waits.get(cause, 0) for r in rows) == sum(s.end - s.start for s in slices if " warp " in s.track and s.name == cause), cause
    busy = sum(s.end - s.start for s in slices if s.track.split(" ", 2)[2] in UNIT_NAMES.values())
    assert sum(r.busy for r in rows if r.text.startswith(("v", "sf.v", "sf.mm"))) >= busy > 0
    assert sum(r.count for r in rows) <= run.raw.instructions  # (a vset that changes nothing takes no slot)


def test_counts_are_the_run_s(run):
    counts = {pc: c for pc, (c, cycles) in run.raw.lines.items() if cycles == c}
    rows = hottest(run.traced(), 1 << 20)
    assert {r.pc: r.count for r in rows if r.pc in counts} == counts


def test_a_warp_that_waits_at_a_barrier_is_said_to(run):
    """Its operands are there when the barrier opens; that it then waits its turn is another cause."""
    barriers = sum(r.waits.get("barrier", 0) for r in hottest(run.traced(), 1 << 20))
    assert barriers > 1000


def test_largest_first_and_no_more_than_asked(run):
    rows = hottest(run.traced(), 5)
    assert len(rows) == 5 and [r.share for r in rows] == sorted((r.share for r in rows), reverse=True)


def test_the_report(capsys):
    assert main(f"run {ZOO} --kernel gemm_bias_gelu {SIZES} --hot 3".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(n for n, text in enumerate(lines) if text.startswith("  hottest"))
    assert len(lines) == at + 4 and all(re.search(r"%  .* [0-9a-f]+: \S", text) and "zoo.rvg:" in text for text in lines[at + 1:])


def keys(found, path=""):
    return {k for k in found} | {k for v in found.values() if isinstance(v, dict) for k in keys(v)}


def test_the_object_s_names_stand_in_its_document(capsys):
    assert main(f"run {ZOO} --kernel gemm_bias_gelu {SIZES} --hot 3 --check --json".split()) == 0
    found = json.loads(capsys.readouterr().out)
    named = set(re.findall(r"`([a-z_0-9.]+)`", (Path(__file__).parents[1] / "docs" / "json.md").read_text()))
    got = keys({k: v for k, v in found.items() if k != "dims"}) | keys(found["hot"][0] | {"waits": {}}) | keys(found["launches"][0])
    assert not got - named
