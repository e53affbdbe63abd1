"""Where vector loads and stores stop and go on: vstart, fault-only-first, masked-off elements outside memory; and the CSRs of vectors.

That an access from vstart on does what it should is QEMU's to judge (tests/qemu_judge.py); here is what happens at faults and traps.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from rvgpu.isa.asm import assemble
from rvgpu.isa.machine import load_machine
from rvgpu.sim.device import Device, SimFault
from rvgpu.sim.elf import BASE
from tests.qemu_judge import QEMU, QEMU_END, SIM_END, under_qemu, under_us
from tests.test_reserved import run

# t0: 3 elements of 32 bits before the end of the scratchpad, which holds 0, 1, 2, .. there
HEAD = """vsetivli t1, 8, e32, m2, tu, ma
li t0, 0x1003fff4
li t2, 0x1003ffc0
vsetivli t1, 16, e32, m2, tu, ma
vid.v v8
vse32.v v8, (t2)
vmv.v.i v8, -1
vmv.v.i v10, -1
vsetivli t1, 8, e32, m2, tu, ma
"""


def vector(d: Device, n: int, count: int, dtype: Any = np.uint32) -> list[int]:
    at = n * 32
    return np.frombuffer(bytes(d.warps[0].v)[at:at + count * np.dtype(dtype).itemsize], dtype).tolist()


def faulted(text: str) -> tuple[Device, str]:
    """The device as the fault left it."""
    made: list[Device] = []
    real = Device.__init__

    def remember(self: Device, *args: Any, **more: Any) -> None:
        real(self, *args, **more)
        made.append(self)

    with pytest.MonkeyPatch.context() as m, pytest.raises(SimFault) as e:
        m.setattr(Device, "__init__", remember)
        run(text)
    return made[0], e.value.render()


F = 0xFFFFFFFF


@pytest.mark.parametrize("load,start,values", [
    ("vle32.v v8, (t0)", 3, [13, 14, 15, F, F, F, F, F]),
    ("vlse32.v v8, (t0), t3", 1, [13, F, F, F]),
    ("vlseg2e32.v v8, (t0)", 1, [13, F, F, F]),
    ("vluxei32.v v8, (t0), v4", 3, [13, 14, 15, F]),
    ("vluxseg2ei32.v v8, (t0), v4", 2, [13, 14, F, F]),
    ("vl2re32.v v8, (t0)", 3, [13, 14, 15, F]),
])
def test_a_fault_says_which_element(load, start, values):
    """Elements before it are done, those behind are not."""
    d, said = faulted(HEAD + f"li t3, 12\nvid.v v4\nvsll.vi v4, v4, 2\n{load}")
    assert "memory access out of bounds" in said and f"`{load}`" in said and "0x10040000" in said, said
    assert d.warps[0].vstart == start and vector(d, 8, len(values)) == values


def test_stores_that_fault():
    d, said = faulted(HEAD + "vid.v v4\nvadd.vi v4, v4, 5\nvse32.v v4, (t0)")
    assert d.warps[0].vstart == 3 and "0x10040000" in said


def test_a_load_goes_on_where_it_stopped():
    """With vstart as the fault left it, and the base moved so that the rest is there."""
    d = run(HEAD + "csrrwi zero, vstart, 3\naddi t0, t0, -32\nvle32.v v8, (t0)\ncsrrs s0, vstart, zero")
    assert vector(d, 8, 8) == [F, F, F, 8, 9, 10, 11, 12] and d.warps[0].x[8] == 0


@pytest.mark.parametrize("load,vl", [("vle32ff.v v8, (t0)", 3), ("vlseg2e32ff.v v8, (t0)", 1), ("vle32ff.v v8, (t2)", 8),
                                     ("vle32ff.v v8, (t0), v0.t", 4)])
def test_fault_only_first(load, vl):
    """vl ends before an active element that faults; the mask leaves out element 3."""
    d = run(HEAD + f"li t4, 0xf7\nvmv.s.x v0, t4\n{load}\ncsrrs s0, vl, zero")
    assert d.warps[0].x[8] == vl and d.warps[0].vstart == 0
    first = 0 if "t2" in load else 13
    own = [first + n for n in range(8)] if "seg" not in load else [first]
    assert vector(d, 8, min(vl, 3)) == own[:min(vl, 3)] and (vl == 8 or vector(d, 8, 8)[vl:] == [F] * (8 - vl))


@pytest.mark.skipif(QEMU is None and not os.environ.get("CI"), reason="NOT JUDGED: qemu-riscv64 is missing (apt-get install qemu-user)")
def test_fault_only_first_by_qemu():
    """Every distance from the end of memory, every width, segments, masks: QEMU leaves the same vl and elements."""
    size, data, vlen = load_machine("base").scratchpad.size_bytes, BASE + 0x400000, 256
    end = 0x1000_0000 + size
    text = f"mv gp, ra\nli s0, {data}\nli t0, {end - 256}\nvsetvli t1, zero, e8, m8, ta, ma\nvid.v v8\nvse8.v v8, (t0)\n"
    loads = (("vle8ff", 8, 1), ("vle16ff", 16, 1), ("vle32ff", 32, 1), ("vle64ff", 64, 1), ("vlseg2e32ff", 32, 2), ("vlseg3e16ff", 16, 3),
             ("vlseg8e8ff", 8, 8), ("vlseg2e64ff", 64, 2))
    cases = [(*load, n, mask) for load in loads for n in (1, 2, 3, 5, 20) for mask in ("", ", v0.t")]
    for name, eew, fields, n, mask in cases:
        text += f"vsetvli t1, zero, e8, m8, ta, ma\nvmv.v.i v8, -1\nvsetivli t2, 8, e{eew}, m1, tu, mu\nvmv.v.i v0, -11\n"
        text += f"li t0, {end - n * fields * eew // 8}\n{name}.v v8, (t0){mask}\ncsrrs t1, vl, zero\nsd t1, 0(s0)\naddi s0, s0, 8\n"
        text += f"vs8r.v v8, (s0)\naddi s0, s0, {vlen}\n"
    content = bytes(-(-len(cases) * (vlen + 8) // 4096) * 4096)
    want = under_qemu(assemble(text + QEMU_END.format(data=data, bytes=len(content))), data, content, vlen, size)
    got = under_us(assemble(text + SIM_END), data, content, vlen)
    each = [np.frombuffer(x[:len(cases) * (vlen + 8)], np.uint8).reshape(len(cases), -1) for x in (want, got)]
    for case, a, b in zip(cases, *each, strict=True):
        assert np.array_equal(a, b), f"{case}: vl {a[0]} by QEMU, ours {b[0]}"
    assert len({int(a[0]) for a in each[0]}) > 4


def test_fault_only_first_of_the_first():
    d, said = faulted(HEAD + "addi t0, t0, 12\nvle32ff.v v8, (t0)")
    assert "memory access out of bounds" in said and d.warps[0].vl == 8 and d.warps[0].vstart == 0


def test_masked_off_elements_touch_no_memory():
    d = run(HEAD + "li t4, 7\nvmv.s.x v0, t4\nvle32.v v8, (t0), v0.t\nvse32.v v8, (t0), v0.t")
    assert vector(d, 8, 8) == [13, 14, 15, F, F, F, F, F]


@pytest.mark.parametrize("instruction", ["vadd.vv v8, v8, v8", "vmv1r.v v8, v9", "vredsum.vs v8, v8, v8", "vmv.x.s t1, v8", "vfirst.m t1, v8"])
def test_arithmetic_starts_at_element_0(instruction):
    d, said = faulted(HEAD + f"csrrwi zero, vstart, 1\n{instruction}")
    assert "vstart is not 0" in said and f"`{instruction}`" in said
    run(HEAD + f"csrrwi zero, vstart, 1\nvsetivli t1, 4, e32, m1, tu, ma\n{instruction}")  # every vset clears it


def test_from_vl_on_nothing_happens():
    d = run(HEAD + "csrrwi zero, vstart, 9\nvle32.v v8, (t0)\ncsrrs s0, vstart, zero")
    assert d.warps[0].x[8] == 0 and vector(d, 8, 8) == [F] * 8


def test_vector_csrs():
    """vcsr is vxrm and vxsat side by side; numbers and names are the same; vstart holds an index below VLEN."""
    d = run("csrrwi zero, vcsr, 7\ncsrrs s0, vxrm, zero\ncsrrs s1, 0x009, zero\ncsrrwi zero, vxsat, 0\ncsrrs s2, 15, zero\ncsrrwi zero, vxrm, 1\n"
            "csrrs s3, vcsr, zero\nli t0, -1\ncsrrw zero, vstart, t0\ncsrrs s4, 0x008, zero\ncsrrw zero, vcsr, t0\ncsrrs s5, vcsr, zero")
    assert [d.warps[0].x[n] for n in (8, 9, 18, 19, 20, 21)] == [3, 1, 6, 2, 255, 7]


def test_saturation_of_active_elements():
    """What the mask leaves out does not set vxsat."""
    head = "vsetivli t1, 4, e8, m1, tu, ma\nvid.v v4\nli t0, 126\nli t2, {}\nvmv.s.x v0, t2\nvsadd.vx v8, v4, t0, v0.t\ncsrrs s0, vxsat, zero"
    assert [run(head.format(mask)).warps[0].x[8] for mask in (3, 4, 0)] == [0, 1, 0]
