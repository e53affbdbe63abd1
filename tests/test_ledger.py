"""Timing classes and their fit: every instruction has its class; the rule against a second statement of it; a fit finds the machine that made the
data; the table that is not in the repository, where it is there."""

from __future__ import annotations

import csv
import json
import math
import os
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.cli import main
from rvgpu.errors import RvgpuError
from rvgpu.isa.classes import MEMORY, PAIRS, PARAMETERS, VECTOR, WIDE, resolve, timing_class
from rvgpu.isa.machine import Classes, Occupancy, load_machine, machine_names, print_machine
from rvgpu.isa.rows import BY_NAME, FORMATS, ROWS
from rvgpu.sim.calibrate import Score, bare, errors, fit
from rvgpu.sim.loops import Loops, Measured, instances, read_table
from rvgpu.sim.occupancy import class_cycles, class_table
from rvgpu.sim.reference import Reference
from rvgpu.sim.state import Gpu, Rec, Warp

DATA = Path(os.environ.get("RVGPU_LEDGER", Path(__file__).parents[2] / "shared" / "data" / "rvv_throughput.csv"))
LEDGER = ("x280", "x60", "c908", "saturn")
NOT_OURS = {"sf.vfexp.v", "sf.vtmv.v.t", "sf.vtmv.t.v", "sf.vtzero.t", "sf.vtdiscard"}  # exp and tile units


def test_every_vector_instruction_has_its_class():
    assert len(VECTOR) <= 36
    vector = [r for r in ROWS if (r.match & 0x7F == 0x57 or r.fmt.startswith(("vload", "vwhole"))) and r.cls != "config"]
    assert {r.name for r in vector if r.cls not in VECTOR} <= NOT_OURS
    assert {r.cls for r in vector} >= set(VECTOR), "a class without an instruction"
    assert not [r.name for r in ROWS if timing_class(r.name) and r not in vector], "a name of another unit matches"


@pytest.mark.parametrize("name, cls", [
    ("vadd.vi", "vadd"), ("vadc.vvm", "vint"), ("vand.vx", "vint"), ("vmadc.vv", "vcmp"), ("vmadd.vx", "vmul"), ("vmand.mm", "vmask"),
    ("vsmul.vv", "vmul"), ("vwmaccus.vx", "vwmul"), ("vwaddu.wv", "vwide"), ("vwredsumu.vs", "vred"), ("vfwredosum.vs", "vfredo"),
    ("vfredmin.vs", "vfredm"), ("vfwredusum.vs", "vfred"), ("vfrdiv.vf", "vfdiv_f"),
    ("vfdiv.vv", "vfdiv"), ("vfncvt.rod.f.f.w", "vncvt"), ("vfmv.v.f", "vint"),
    ("vfmerge.vfm", "vint"), ("vfmv.s.f", "vmove_s"), ("vfmv.f.s", "vmove_f"), ("vfslide1up.vf", "vslideup"), ("vrgatherei16.vv", "vgather"),
    ("vl4re32.v", "vload"), ("vle8ff.v", "vload"), ("vlm.v", "vload"), ("vs2r.v", "vstore"), ("vse64.v", "vstore"), ("vsse16.v", "vmem_strided"),
    ("vluxei32.v", "vmem_strided"), ("vlseg8e64ff.v", "vload_segment"), ("vssseg2e8.v", "vstore_segment"), ("vsoxseg3ei16.v", "vstore_segment"),
    ("vsext.vf8", "vint"), ("vssrl.vi", "vint"), ("vsbc.vxm", "vint"), ("vmsbc.vxm", "vcmp"), ("vmsbf.m", "vmask"), ("vnclipu.wi", "vnarrow"),
    ("vmv8r.v", "vint"), ("vmv.x.s", "vmove_x"), ("vfclass.v", "vfp"), ("vfwmaccbf16.vv", "vfw"), ("vfrsqrt7.v", "vfest"), ("fadd.s", None),
    ("vsetvli", None), ("mul", None)])
def test_classes_by_name(name, cls):
    assert timing_class(name) == cls
    if cls:
        assert BY_NAME[name].cls == cls


def _old(name: str, vl: int, sew: int, m) -> int:
    """What a vector instruction cost before classes, on `base`, `edge` and `xl`: written from the rules of docs/timing.md of that day."""
    row, lanes = BY_NAME[name], max(1, -(-vl * sew // m.vector.dlen))
    if name.startswith(("vred", "vfred", "viota")):
        return lanes + 4
    if "div" in name or "sqrt" in name or name.startswith("vrem"):
        return max(1, -(-vl // m.latency.vector_div_lanes_per_cycle))
    if name.startswith(("vrgather", "vcompress")):
        return max(1, vl)
    if row.kind.startswith(("vwiden", "vnarrow", "vwcvt", "vncvt")):
        return max(1, -(-vl * 2 * sew // m.vector.dlen))
    return 1 if row.fmt == "mm" or name in ("vmv.x.s", "vfmv.f.s", "vcpop.m", "vfirst.m") else lanes


OLD = ["vadd.vv", "vand.vx", "vsll.vi", "vmul.vv", "vmacc.vx", "vfadd.vf", "vfmacc.vv", "vredsum.vs", "vfredusum.vs", "vfredosum.vs", "vfredmax.vs",
       "viota.m", "vid.v", "vdiv.vv", "vremu.vx", "vfdiv.vv", "vfrdiv.vf", "vfsqrt.v", "vrgather.vv", "vrgather.vx", "vrgather.vi", "vcompress.vm",
       "vwadd.vv",
       "vwmulu.vx", "vnsrl.wi", "vfwcvt.f.f.v", "vfncvt.f.f.w", "vmand.mm", "vmv.x.s", "vfmv.f.s", "vcpop.m", "vfirst.m", "vmseq.vv", "vmflt.vf",
       "vslideup.vx", "vslide1down.vx", "vmv.s.x", "vfmv.s.f", "vmv.v.v", "vfcvt.f.x.v", "vzext.vf2", "vmerge.vvm", "vmv4r.v"]


def _state(name: str, vl: int, sew: int, lmul8: int, m) -> tuple[Warp, Rec, Gpu]:
    from rvgpu.isa.codec import decode
    from rvgpu.sim.program import _fill

    w, r, g = Warp(), Rec(), Gpu()
    w.vl, w.sew, w.lmul8 = vl, (8, 16, 32, 64).index(sew), lmul8
    row = BY_NAME[name]
    _fill(r, decode(row.match | ("vm" in FORMATS[row.fmt]) << 25), m, False)
    g.dlen, g.vlenb = m.vector.dlen, m.vector.vlen // 8
    g.classes[:] = list(class_table(m))
    return w, r, g


@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(OLD), machine=st.sampled_from(["base", "edge", "xl"]), sew=st.sampled_from([8, 16, 32, 64]), lmul8=st.sampled_from(
    [1, 2, 4, 8, 16, 32, 64]), part=st.floats(0, 1), dlen=st.sampled_from([0, 128, 1024]), lanes=st.sampled_from([0, 1, 3, 16]))
def test_the_first_machines_keep_their_rules(name, machine, sew, lmul8, part, dlen, lanes):
    """`base`, `edge` and `xl`, also with another DLEN or other dividers, cost what they cost before there were classes."""
    changes = ({"vector.dlen": dlen} if dlen else {}) | ({"latency.vector_div_lanes_per_cycle": lanes} if lanes else {})
    m = load_machine(machine, changes)
    vl = round(part * m.vector.vlen * lmul8 // (8 * sew))
    assert class_cycles(*_state(name, vl, sew, lmul8, m)) == _old(name, vl, sew, m)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_rule_against_exact_fractions(data):
    """Any parameters, any class: the fixed-point rule is the exact one, rounded up, within a part in 2**20 of a cycle per element."""
    name = data.draw(st.sampled_from(sorted(VECTOR)))
    row = data.draw(st.sampled_from([r for r in ROWS if r.cls == name]))
    eighths = st.integers(-64, 800).map(lambda n: n / 8)
    given_ = Occupancy(data.draw(eighths), data.draw(eighths), data.draw(eighths), data.draw(st.sampled_from([0.5, 1.0, 2.0, 4.0])))
    m = load_machine(data.draw(st.sampled_from(machine_names())))
    m = msgspec.structs.replace(m, classes=Classes(**{name: given_}))
    sew, lmul8 = data.draw(st.sampled_from([8, 16, 32, 64])), data.draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64]))
    vl = data.draw(st.integers(0, m.vector.vlen * lmul8 // (8 * sew)))
    n, counts = max(1, vl) * row.args.get("NF", 1), VECTOR[name].counts
    bits = n * {WIDE: 2 * sew, MEMORY: row.args.get("EEW", sew)}.get(counts, sew)
    if row.kind.endswith("indexed"):
        bits = n * sew
    if row.kind.endswith("_mask"):
        bits = n
    if counts == PAIRS:
        bits *= max(1, lmul8 // 8)
    if "N" in row.args and (counts == MEMORY or m.vector.whole_moves == "registers"):
        bits = row.args["N"] * m.vector.vlen
    scale = Fraction(given_.sew_factor) ** ((8, 16, 32, 64).index(sew) - 2)
    lanes, datapath = scale * (Fraction(given_.start_up) + Fraction(given_.per_element) * n), Fraction(given_.per_register) * bits / m.vector.dlen
    exact = max(lanes, datapath) if VECTOR[name].longest else lanes + datapath
    assert class_cycles(*_state(row.name, vl, sew, lmul8, m)) == max(1, math.ceil(exact))


def test_a_machine_that_says_little():
    """Classes that a machine does not give follow the one they are like, else VLEN, DLEN and latencies; the TOML prints back."""
    m = load_machine("saturn", {"vector.dlen": 256})
    little = bare(m)
    assert resolve("vfdiv", little.classes.vfdiv, little)[:3] == (0, m.latency.vector_div, 0)
    assert resolve("vfredo", little.classes.vfredo, little)[2] == m.latency.vector_fp
    some = msgspec.structs.replace(little, classes=Classes(vfdiv=Occupancy(per_element=1.5), vint=Occupancy(per_register=2)))
    assert resolve("vfdiv_f", some.classes.vfdiv_f, some) == resolve("vdiv", some.classes.vdiv, some) == (0, m.latency.vector_div, 1.5, 1)
    assert resolve("vslidedown", some.classes.vslidedown, some)[1] == 2, "like vslideup, which is like vint"
    assert resolve("vfp", some.classes.vfp, some)[1] == 1


@pytest.mark.parametrize("name", machine_names())
def test_machines_print_and_load(name, tmp_path):
    m = load_machine(name)
    (tmp_path / "m.toml").write_text(print_machine(m))
    assert load_machine(str(tmp_path / "m.toml")) == m


@pytest.mark.parametrize("change, code, said", [
    ({"classes.vin.per_register": 1}, "E503", "classes.vint"), ({"classes.vint.per_registers": 1}, "E503", "classes.vint.per_register"),
    ({"classes.vint.per_register": 1e9}, "E507", "classes.vint.per_register"), ({"classes.vint.sew_factor": 0}, "E507", "classes.vint.sew_factor"),
    ({"classes.vint": 3}, "E504", "classes.vint"), ({"classes.vint.per_register": "many"}, "E504", "classes.vint.per_register"),
    ({"classes.vint.per_register": "nan"}, "E507", "nan"), ({"core.write_after_write": '"never"'}, "E504", "write_after_write"),
    ({"latency.reduction_passes": 9}, "E507", "reduction_passes"), ({"vector.whole_moves": '"half"'}, "E504", "whole_moves")])
def test_errors_name_the_field(change, code, said):
    with pytest.raises(RvgpuError) as e:
        load_machine("x60", change)
    assert e.value.code == code and said in e.value.render()


def test_the_loops_are_the_measured_ones():
    """Registers move on by the group, wide groups for widening; what does not move stays."""
    def of(text: str, sew: int, lmul: int) -> list[str]:
        return [i.partition(" ")[2] for i in instances(Measured(text, sew, 8 * lmul, 1.0))]

    assert of("vadd.vv v8,v16,v24", 32, 1)[:3] == ["v8,v16,v24", "v9,v17,v25", "v10,v18,v26"]
    assert of("vadd.vx v8,v16,t0", 32, 2)[:5] == ["v8,v16,t0", "v10,v18,t2", "v12,v20,t4", "v14,v22,t6", "v8,v16,t0"]
    assert set(of("vadd.vv v8,v16,v24", 32, 8)) == {"v8,v16,v24"}
    assert of("vwmacc.vv v8,v16,v24", 32, 2)[:3] == ["v8,v16,v24", "v12,v20,v28", "v8,v16,v24"]
    assert of("vle32.v v8,(t0)", 32, 4)[:2] == ["v8,(t0)", "v12,(t0)"]
    assert of("vfmv.f.s ft0,v8", 32, 1)[7] == "ft7,v15"


ROWS_OF_A_TABLE = [(i, f"e{s}m{m}") for i in ("vadd.vv v8,v16,v24", "vand.vv v8,v16,v24", "vfadd.vv v8,v16,v24", "vredsum.vs v8,v16,v24",
                                              "vrgather.vv v8,v16,v24", "vfdiv.vv v8,v16,v24", "vmul.vv v8,v16,v24", "vmv.x.s t0,v8")
                   for s in (16, 32, 64) for m in (1, 2, 4, 8)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A table as a known machine makes it, its cycles rounded as published ones are."""
    truth = load_machine("x60", {"classes.vint.per_register": 3, "classes.vfdiv.per_register": 0, "classes.vfdiv.per_element": 2.5,
                                 "classes.vfdiv.start_up": 5})
    path = tmp_path_factory.mktemp("ledger") / "made.csv"
    rows = [Measured(i, int(v[1:3]), 8 * int(v[4:]), 1.0) for i, v in ROWS_OF_A_TABLE]
    loops = Loops(truth, rows)
    with path.open("w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["machine", "instruction", "vtype", "vl", "cycles_per_instruction", "source"])
        out.writerows(["x60", r.text, r.vtype, "VLMAX", round(loops.run(n), 2), "made"] for n, r in enumerate(rows))
    return path


def test_a_fit_finds_what_made_the_data(made):
    rows = read_table(str(made), "x60")
    machine = load_machine("x60")
    loops = Loops(machine, rows)
    found = fit(loops, bare(machine))
    score = Score.of(errors(loops, found))
    assert score.mean < 0.01 and score.near == 1
    assert resolve("vint", found.classes.vint, found)[:3] == (0, 3, 0)
    assert resolve("vfdiv", found.classes.vfdiv, found)[2] == pytest.approx(2.5, rel=0.02)
    assert fit(loops, bare(machine)) == found, "a fit is deterministic"
    assert Score.of(errors(loops, bare(machine))).mean > 0.1, "and the defaults were not there already"


def test_calibrate_writes_a_machine(made, tmp_path, capsys):
    out = tmp_path / "new.toml"
    assert main(["calibrate", "x60", "--data", str(made), "--write", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == len(ROWS_OF_A_TABLE) and report["fitted"]["mean"] < 0.01
    m = load_machine(str(out))
    assert m.classes.vint.per_register == 3 and m.latency == load_machine("x60").latency
    loops = Loops(m, read_table(str(made), "x60"))
    assert Score.of(errors(loops, m)).mean == pytest.approx(report["fitted"]["mean"], abs=1e-6), "what is written is what was found"
    assert main(["calibrate", "x60", "--data", str(made)]) == 0
    text = capsys.readouterr().out
    assert "worst rows:" in text and "the other half" in text and "[classes]" in text
    assert main(["calibrate", "x60", "--data", str(made), "--docs", str(tmp_path / "a.md")]) == 0
    page = (tmp_path / "a.md").read_text()
    assert "`vand.vv v8,v16,v24` | e32m4" in page and "Against simpler models" in page


@pytest.mark.parametrize("content, code", [
    (None, "E001"), (b"", "E520"), (b"\xff\xfe", "E001"), (b"a,b\n1,2\n", "E520"),
    (b"machine,instruction,vtype,vl,cycles_per_instruction\nx60,vadd.vv v8,e32m1,VLMAX,1\n", "E620"),
    (b'machine,instruction,vtype,vl,cycles_per_instruction\nx60,"vadd.vv v8,v16,v24",e32m3,VLMAX,1\n', "E520"),
    (b'machine,instruction,vtype,vl,cycles_per_instruction\nx60,"vadd.vv v8,v16,v24",e32m1,VLMAX,nan\n', "E520"),
    (b'machine,instruction,vtype,vl,cycles_per_instruction\nx61,"vadd.vv v8,v16,v24",e32m1,VLMAX,1\n', "E521"),
    (b'machine,instruction,vtype,vl,cycles_per_instruction\nx60,"vfoo.vv v8,v16,v24",e32m1,VLMAX,1\n', "E521")])
def test_bad_tables(content, code, tmp_path, capsys):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    assert main(["calibrate", "x60", "--data", str(path)]) in (1, 2)
    assert f"error[{code}]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"the measured table is not part of the repository ({DATA}, or RVGPU_LEDGER)")
def test_the_bars():
    """Mean absolute error at most 8 % over all rows and 10 % on each machine; at least 85 % of the rows within 10 %."""
    total: list[float] = []
    for name in LEDGER:
        m = load_machine(name)
        rows = read_table(str(DATA), name)
        assert not [r for r in rows if r.unknown()]
        e = errors(Loops(m, rows), m)
        assert Score.of(e).mean <= 0.06, name
        total += e
    score = Score.of(total)
    assert score.rows == 1531 and score.mean <= 0.04 and score.near >= 0.95
    assert np.isfinite(total).all()


@pytest.mark.parametrize("machine", ["x60", "x280"])
def test_the_engines_agree_on_classes(machine):
    """The class rule, waits of results and memory classes: CPython's cycles are the compiled engine's."""
    texts = ("vand.vv v8,v16,v24", "vredsum.vs v8,v16,v24", "vmv.x.s t0,v8", "vmul.vv v8,v16,v24", "vse64.v v8,(t0)", "vlse64.v v8,(t2),t3")
    rows = [Measured(t, 64, lmul8, 1.0) for t in texts for lmul8 in (8, 64)]
    m = load_machine(machine)
    fast, slow = Loops(m, rows), Loops(m, rows, Reference())
    assert [fast.run(n) for n in range(len(rows))] == [slow.run(n) for n in range(len(rows))]


OTHER = DATA.with_name("x60_microbench.csv")


@pytest.mark.slow
@pytest.mark.skipif(not OTHER.exists(), reason=f"the X60's latency and load tables are not part of the repository ({OTHER})")
def test_the_x60_by_another_measurement():
    """Tables that nothing was fitted to, of another author: vadd and unit-stride loads with SEW 8 to 64 and LMUL 1/8 to 8."""
    rows = []
    with OTHER.open() as f:
        for r in csv.DictReader(f):
            text = {"vadd_vv_LMUL_x_SEW_throughput": "vadd.vv v8,v16,v24",
                    "vle_LMUL_x_SEW_throughput": f"vle{r['row'][1:]}.v v8,(t0)"}.get(r["table"])
            if text:
                lmul = r["column"][1:]
                rows.append(Measured(text, int(r["row"][1:]), 8 // int(lmul[1:]) if lmul[0] == "f" else 8 * int(lmul), float(r["value"])))
    m = load_machine("x60")
    score = Score.of(errors(Loops(m, rows), m))
    assert score.rows == 29 and score.mean <= 0.04 and score.near == 1


def test_no_more_parameters_than_four():
    assert len(PARAMETERS) == 4
    for name in LEDGER:
        for cls in VECTOR:
            assert len(msgspec.structs.fields(getattr(load_machine(name).classes, cls))) == 4
