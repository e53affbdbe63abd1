"""`rvgpu sweep`: each line is the run of that point alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvgpu.cli import main
from rvgpu.isa.asm import assemble
from rvgpu.runtime.sweep import points, values
from rvgpu.sim.elf import BASE, Image, write_executable

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "examples" / "zoo.rvg"
SOFTMAX = f"{ZOO} --kernel row_softmax"


def said(capsys, command):
    code = main(command.split())
    return code, capsys.readouterr().out


def table(text):
    """The lines of points, by their columns."""
    return [line.split() for line in text.splitlines()[2:]]


@given(st.lists(st.sampled_from(["1", "none", "[1,2]", "{a=[3,4],b=5}"]), min_size=1))
def test_lists_come_apart_at_their_own_commas(parts):
    assert values(",".join(parts)) == parts


def test_every_combination_the_last_list_fastest():
    found = points(["core.warps=1,2"], ["M=3,4", "N=5"])
    assert [(s["core.warps"], d["M"], d["N"]) for s, d in found] == [("1", "3", "5"), ("1", "4", "5"), ("2", "3", "5"), ("2", "4", "5")]


def test_a_point_is_a_run_of_its_own(capsys):
    code, out = said(capsys, f"sweep {SOFTMAX} -D M=64,65 -D N=100 --set core.warps=2,4 --check")
    assert code == 0
    rows = table(out)
    assert [r[:2] for r in rows] == [["2", "64"], ["2", "65"], ["4", "64"], ["4", "65"]]
    for warps, m, cycles, *_ in rows:
        alone = json.loads(said(capsys, f"run {SOFTMAX} -D M={m} -D N=100 --set core.warps={warps} --json")[1])
        assert int(cycles.replace(",", "")) == alone["cycles"]


def test_a_point_that_cannot_run_says_so_and_the_others_go_on(capsys):
    code, out = said(capsys, f"sweep {SOFTMAX} -D M=64 -D N=100 --set vector.vlen=100,512")
    assert code == 0 and table(out)[0][:2] == ["100", "E507:"] and table(out)[1][0] == "512"
    assert said(capsys, f"sweep {SOFTMAX} -D M=64 -D N=100 --set vector.vlen=100,200")[0] == 1
    assert said(capsys, f"sweep {SOFTMAX} -D M=64 -D N=10000 --max-cycles 1000")[0] == 4


def test_the_object(capsys):
    code, out = said(capsys, f"sweep {SOFTMAX} -D M=64 -D N=100 --set vector.vlen=100,512 --json")
    bad, good = json.loads(out)["points"]
    assert code == 0 and bad["error"] | {"message": ""} == {"code": "E507", "message": "", "exit_code": 1}
    assert good["set"] == {"vector.vlen": "512"} and good["dims"] == {"M": 64, "N": 100} and good["cycles"] > 0


def test_executables_stay_as_they_are(capsys, tmp_path):
    """An ELF with a launch note, and a bare-metal program: slower memory costs cycles, another VLEN is refused."""
    elf = tmp_path / "k.elf"
    assert main(f"compile {SOFTMAX} -D M=64 -D N=100 --emit elf -o {elf}".split()) == 0
    code, out = said(capsys, f"sweep {elf} -D M=64 -D N=100 --set dram.latency_cycles=100,800 --set vector.vlen=512,256")
    rows = table(out)
    assert code == 0 and [r[2] for r in rows[1::2]] == ["E313:", "E313:"]
    assert int(rows[0][2].replace(",", "")) < int(rows[2][2].replace(",", ""))


def test_a_program_that_starts_at_its_entry(capsys, tmp_path):
    code = assemble("li t0, 100\nagain: addi t0, t0, -1\nbnez t0, again\nli a7, 93\nli a0, 3\necall\n")
    elf = tmp_path / "count.elf"
    elf.write_bytes(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"_start": BASE})))
    status, out = said(capsys, f"sweep {elf} --set core.taken_branch_cycles=1,6")
    few, many = (int(r[1].replace(",", "")) for r in table(out))
    assert status == 0 and many - few == 99 * 5
    assert main(f"sweep {elf} -D M=1".split()) == 2


@pytest.mark.parametrize("command, code", [
    ("-D M=64 -D N=x", 2), ("-D M=64,,2 -D N=1", 2), ("-D M=64 -D N=10 --set core.wraps=2,4", 1), ("-D M=64", 1), ("-D M=1 -D N=1 -D Q=1", 2)])
def test_what_no_value_can_mend_ends_it(capsys, command, code):
    assert main(f"sweep {SOFTMAX} {command}".split()) == code
    assert "error[E" in capsys.readouterr().err
