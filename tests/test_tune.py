"""The tuner: tilings move cycles and never bytes, samples extrapolate within what is said, answers are deterministic and cached, tables hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.cache import cache_folder
from rvgpu.cli import main
from rvgpu.errors import RvgpuError
from rvgpu.ir.binding import bind
from rvgpu.isa.machine import load_machine
from rvgpu.passes.context import Choice, Context, Facts
from rvgpu.passes.pipeline import PIPELINE, run_passes
from rvgpu.passes.schedule import anonymous
from rvgpu.passes.tile import fields_of
from rvgpu.runtime import measure as measuring
from rvgpu.runtime import tables, tune
from rvgpu.runtime.inputs import random_inputs, random_scalars
from rvgpu.runtime.kernel import Kernel, kernel, load_file
from rvgpu.runtime.measure import Measured, measure_all, scaled
from rvgpu.runtime.tune import MARGIN, Problem, best_of, request, search, spaces

ROOT = Path(__file__).parents[1]
ZOO = load_file(str(ROOT / "examples" / "zoo.rvg"))
SMALL = load_machine("base", {"vector.vlen": 128, "vector.dlen": 128, "matrix.te": 8, "gpu.cores": 2})
TWO_DOTS = """def f(x: bf16[T, D], wg: bf16[D, F], wu: bf16[D, F], wd: bf16[F, D]) -> bf16[T, D]:
    h = bf16(silu(x @ wg) * (x @ wu))
    return h @ wd
"""


def problem(k: Kernel, machine, **dims) -> Problem:
    return k.compile(machine).problem(bind(k.func, {}, dims))


def run_with(k: Kernel, machine, arrays, scalars, choices):
    c = k.compile(machine)
    c.choices = lambda binding: choices
    return c.run(*arrays, **scalars)


# -- bytes

KERNELS = {"gemm": (Kernel(ZOO["gemm"]), ("M", "N", "K")), "attention": (Kernel(ZOO["attention"]), ("R", "S", "T")),
           "two": (kernel(TWO_DOTS), ("T", "D", "F"))}


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_tiling_moves_cycles_and_never_bytes(name, data):
    k, free = KERNELS[name]
    dims = {d: data.draw(st.integers(1, 40), label=d) for d in free} | ({"B": 1, "G": 2, "D": 8} if name == "attention" else {})
    p = problem(k, SMALL, **dims)
    arrays, scalars = random_inputs(k.func, p.binding), random_scalars(k.func, p.binding)
    plain = run_with(k, SMALL, arrays, scalars, {})
    choices = {n: Choice(fields_of(data.draw(st.sampled_from(options), label=n)[0])) for n, options in spaces(p)}
    assert choices or dims.get("S") == 1 or "attention" in name
    tuned = run_with(k, SMALL, arrays, scalars, choices)
    for a, b in zip(plain.outputs.values(), tuned.outputs.values(), strict=True):
        assert np.array_equal(a.view(np.uint8), b.view(np.uint8))


def test_no_candidate_sets_what_changes_bytes():
    """Blocks of a streamed dim with anchors, and of parts, are the same in every candidate; parts are no field at all."""
    for dims in ({"S": 40, "T": 40}, {"S": 1, "T": 40}):
        p = problem(KERNELS["attention"][0], SMALL, B=1, G=2, R=2, D=8, **dims)
        for _, options in spaces(p):
            assert len({fields_of(t)["bk"] for t, _ in options}) == 1
            assert all(set(fields_of(t)) <= {"wm", "wn", "im", "jn", "bk", "wo", "warps"} for t, _ in options)


def test_modes_give_the_same_bytes_and_search_is_what_tune_kept():
    arrays = random_inputs(KERNELS["gemm"][0].func, {"M": 48, "N": 40, "K": 64})
    runs = {m: Kernel(ZOO["gemm"], tune=m).compile(SMALL).run(*arrays) for m in ("model", "search", "shipped")}
    assert len({r.out.tobytes() for r in runs.values()}) == 1
    tuning = KERNELS["gemm"][0].tune(SMALL, M=48, N=40, K=64)
    assert runs["search"].cycles == tuning.kernels[0].trials[tuning.kernels[0].best].cycles <= runs["model"].cycles
    assert runs["model"].cycles == tuning.kernels[0].trials[0].cycles


def test_numeric_fields_are_set_per_kernel_only():
    """A part size belongs to the kernel: it is in the passes of the kernel, and the tuner keeps it."""
    text = "def f(q: bf16[S, D], k: bf16[T, D], v: bf16[T, D]) -> bf16[S, D]:\n    s: f32 = q @ k\n    return softmax(s, over=T) @ v\n"
    k = kernel(text, passes="+split{size=32}")
    c = k.compile(SMALL)
    assert any("parts of 32" in r.text for r in _remarks(c, dict(S=1, T=80, D=8)))
    p = problem(k, SMALL, S=1, T=80, D=8)
    assert [n for n, _ in spaces(p)] in ([], ["f.parts"])
    assert k.with_dtypes(bf16="f16").passes == k.passes


def _remarks(c, binding):
    context = c.context(binding)
    run_passes([c.kernel.func], c.passes, context)
    return context.remarks


# -- samples

@pytest.mark.parametrize("name,dims", [("gemm", dict(M=1024, N=2048, K=512)), ("attention", dict(B=1, G=8, R=4, S=1024, T=1024, D=128)),
                                       ("attention_full", dict(B=4, G=8, R=4, S=1024, T=128, D=64))])
def test_a_sample_extrapolates_within_the_margin(name, dims, monkeypatch):
    machine = load_machine("base")
    monkeypatch.setattr(tune, "SAMPLED", 0)
    monkeypatch.setattr(tune, "SAMPLE_CYCLES", 100_000)
    p = problem(Kernel(ZOO[name]), machine, **dims)
    (part, options), = spaces(p)
    subject = measuring.Subject(_text(p), part, machine, "+", p.exact, p.upper, p.binding)
    parts = [r for t, price in options if (r := request(t, price, 8, None)).sample > 1][:1]
    whole = measure_all(subject, [replace(r, sample=1) for r in parts])
    assert parts
    for a, b in zip(whole, measure_all(subject, parts), strict=True):
        assert abs(b.cycles / a.cycles - 1) < MARGIN, (a, b)


def _text(p: Problem) -> str:
    from rvgpu.ir.text import print_func

    return print_func(p.func)


def test_the_formula_of_a_sample():
    assert scaled([1100] * 8, 64, 1, 100) == 1100
    assert scaled([600] * 8, 64, 2, 100) == 1100  # four of eight items took 500
    assert scaled([600] * 8, 60, 2, 100) == round(100 + 500 * (60 / 32) * (8 * 8 / 60))
    assert scaled([500, 700] * 4, 64, 2, 100) == 1100  # cores do not all take the same items


def test_what_is_kept():
    def kept(*cycles, sample=1):
        return best_of([Measured(c, "", sample) for c in cycles])

    assert kept(100, 99, 98) == 2 and kept(100, 100) == 0 and kept(None, 500) == 1
    assert kept(100, 99, sample=4) == 0 and kept(100, 90, sample=4) == 1  # an estimate must win by more than its error


# -- determinism and cache

def test_answers_do_not_depend_on_processes_and_are_cached(monkeypatch):
    p, found = problem(KERNELS["two"][0], SMALL, T=24, D=40, F=33), []
    monkeypatch.setattr(tune, "TOP", 3)
    for n in (1, 2):
        (cache_folder() / f"tuning-{tune._digest(p)}").unlink(missing_ok=True)
        monkeypatch.setattr(measuring, "processes", lambda n=n: n)
        found.append(search(p))
    assert found[0] == found[1] and found[0].seconds > 0 and len(found[0].kernels) == 2
    monkeypatch.setattr(tune, "measure_all", None)
    assert search(p) == found[0] and search(p).seconds == 0
    other = replace(p, binding={**p.binding, "T": 25})
    with pytest.raises(TypeError):
        search(other)  # other dims are another question


def test_a_failing_measurement_is_an_error_with_its_tiling():
    p = problem(KERNELS["gemm"][0], SMALL, M=16, N=16, K=16)
    subject = measuring.Subject(_text(p), "gemm", SMALL, "+", p.exact, p.upper, p.binding)
    with pytest.raises(RvgpuError, match=r"E900.*wm.*has no tiling"):
        measure_all(subject, [measuring.Request({"wm": 3}, 1, 0.0)])


# -- tables

def test_a_table_reads_back_and_holds_while_the_code_is_the_same(tmp_path, monkeypatch):
    k = KERNELS["gemm"][0]
    dims = {"M": 64, "N": 32, "K": 64}
    tuned = search(problem(k, SMALL, **dims)).kernels
    tuned = [replace(t, best=len(t.trials) - 1) for t in tuned]
    entries = tables.entries_of(k.func, SMALL, dims, tuned)
    path = tmp_path / "t.toml"
    tables.write_table(entries, path)
    read = tables.read_table.__wrapped__(path)
    assert [e for es in read.values() for e in es] == entries
    monkeypatch.setattr(tables, "read_table", lambda: read)
    c = k.compile(SMALL)
    context = c.context(dims)
    run_passes([k.func], c.passes, context)
    assert context.planned["gemm"].tuned and context.tuned["gemm"].fields == tuned[0].trials[-1].fields
    arrays = random_inputs(k.func, dims)
    assert c.run(*arrays).cycles == tuned[0].trials[-1].cycles
    assert not c.context({"M": 63, "N": 32, "K": 64}).tuned
    assert not Kernel(ZOO["gemm"], tune="model").compile(SMALL).context(dims).tuned
    assert not k.compile("base").context(dims).tuned  # another machine
    stale = Context(Facts.of(SMALL), {}, context.upper, tuned={"gemm": Choice(tuned[0].trials[-1].fields, "0" * 16)})
    run_passes([k.func], PIPELINE, stale)
    assert not stale.planned["gemm"].tuned and any("of other code" in r.text for r in stale.remarks)


def test_equal_math_under_other_names_shares_its_entry():
    other = kernel("def mine(x: bf16[R, S], y: bf16[S, T]) -> bf16[R, T]:\n    return x @ y\n")
    assert anonymous(other.func) == anonymous(Kernel(ZOO["gemm"]).func) != anonymous(Kernel(ZOO["gemm_bias_gelu"]).func)


def test_the_shipped_table_is_of_this_format():
    for entries in tables.read_table().values():
        for e in entries:
            assert e.cycles <= e.model_cycles and len(e.code) == 16 and set(e.tiling) <= {"wm", "wn", "im", "jn", "bk", "wo", "warps"}


# -- the surface

@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("k.rvg").write_text((ROOT / "examples" / "zoo.rvg").read_text())
    machine = ["--set", "vector.vlen=128", "--set", "vector.dlen=128", "--set", "matrix.te=8", "--set", "gpu.cores=2"]
    return machine


def test_the_command(here, capsys):
    assert main(["tune", "k.rvg", "gemm", "M=32", "N=24", "K=64", *here]) == 0
    said = capsys.readouterr().out
    assert "gemm on base  M=32 N=24 K=64" in said.replace("K=64 N=24", "N=24 K=64") and "<- kept" in said
    assert main(["tune", "k.rvg", "--kernel", "gemm", "-D", "M=32", "-D", "N=24", "-D", "K=64", "--json", *here]) == 0
    told = json.loads(capsys.readouterr().out)
    k, = told["kernels"]
    assert told["seconds"] == 0 and k["trials"][k["best"]]["cycles"] == min(t["cycles"] for t in k["trials"])
    assert main(["tune", "k.rvg", "row_softmax", "M=4", "N=8", *here]) == 0
    assert "no kernel with several tilings" in capsys.readouterr().out


@pytest.mark.parametrize("args,text", [
    (["gemm", "rope"], "error[E002]: one kernel is tuned at a time, gemm and rope are named"),
    (["gemm", "M=4", "X=3"], "error[E208]: no dim X here"),
    (["gemm", "M=4", "N=4"], "error[E203]: no argument binds dim K"),
    (["gemm", "M=-1"], "error[E002]: -D M=-1: a dim is an integer of at least 0"),
    (["gem"], "did you mean gemm?"),
    (["gemm", "M=4", "N=4", "K=4", "--passes", "+tile{bk=64}"], "error[E311]: the tuner needs the pass tile without options"),
    (["gemm", "M=4", "N=4", "K=4", "--passes", "+tile{size=64}"], "error[E311]: no option of tile is called size")])
def test_bad_arguments(here, capsys, args, text):
    assert main(["tune", "k.rvg", *args]) in (1, 2)
    assert text in capsys.readouterr().err


def test_a_bad_mode_is_told():
    with pytest.raises(RvgpuError, match="E209"):
        kernel("def f(x: f32[M]) -> f32[M]:\n    return x\n", tune="best")
    with pytest.raises(RvgpuError, match="E311"):
        kernel("def f(x: f32[M]) -> f32[M]:\n    return x\n", passes="+splat")


def test_remarks_say_the_limit_and_compare_cycles(here, capsys):
    dims = ["-D", "M=32", "-D", "N=24", "-D", "K=64"]
    assert main(["compile", "k.rvg", "--kernel", "gemm", *dims, *here, "--remarks", "-o", "x.s"]) == 0
    said = capsys.readouterr().err
    assert " binds" in said and "a core needs" in said and "of scratchpad" in said and "simulated" not in said
    assert main(["run", "k.rvg", "--kernel", "gemm", *dims, *here, "--remarks", "--json"]) == 0
    out = capsys.readouterr()
    launch, = json.loads(out.out)["launches"]
    assert f"gemm: {launch['cycles']:,} cycles simulated" in out.err and "predicted" in out.err and "issue slots" in out.err
