"""Host threads: what a run computes, its cycles, stalls and counts, and which fault it ends with are those of one thread."""

from __future__ import annotations

import numpy as np
import pytest

from rvgpu.errors import RvgpuError
from rvgpu.isa.asm import assemble
from rvgpu.isa.machine import load_machine
from rvgpu.runtime.kernel import Kernel
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE, Image, write_executable
from tests.test_zoo import ZOO, inputs

CASES = [("gemm", "M=200 N=136 K=96", {}), ("row_softmax", "M=70 N=300", {"gpu.cores": 3}),
         ("rmsnorm", "T=65 D=128", {"gpu.cores": 5, "core.warps": 2}),
         ("attention", "B=1 G=2 R=2 S=70 T=90 D=64", {"gpu.cores": 16, "l2.size_bytes": 65536}),
         ("gemm_bias_gelu", "M=130 N=70 K=33", {"gpu.cores": 2, "dram.bytes_per_cycle": 16})]


@pytest.mark.parametrize(("name", "dims", "machine"), CASES, ids=[c[0] for c in CASES])
def test_same_cycles_with_two_threads(name, dims, machine, monkeypatch):
    k = Kernel(ZOO[name], {})
    sizes = {d.split("=")[0]: int(d.split("=")[1]) for d in dims.split()}
    arrays, scalars = inputs(k, sizes)
    runs = []
    for threads in ("1", "2", "2"):
        monkeypatch.setenv("RVGPU_THREADS", threads)
        r = k.compile("base", overrides=machine).run(*arrays, check=False, **scalars)
        runs.append((r.raw, [np.asarray(o).tobytes() for o in r.outputs.values()]))
    assert runs[0] == runs[1] == runs[2]


# a CTA runs `work` times over, touching DRAM through L1 now and then; the one whose number stands in t3 then does something illegal
TEXT = """li t0, {base}
slli t1, a1, 12
add t0, t0, t1
slli t2, a1, 5
addi t2, t2, 40
li t3, {bad}
again: ld t4, 0(t0)
addi t0, t0, 64
addi t2, t2, -1
bnez t2, again
bne a1, t3, out
{last}
out: jalr zero, ra, 0
"""


def ends(last, bad, threads, timing, max_cycles=None):
    code = assemble(TEXT.format(base=BASE + (1 << 22), bad=bad, last=last))
    d = Device(load_machine("base", {"gpu.cores": 7}), memory_bytes=1 << 23, threads=threads, timing=timing, max_cycles=max_cycles)
    program = d.load(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE})))
    try:
        d.launch(program, "k", [], ctas=60)
    except RvgpuError as e:
        return e.render()
    return d.finish(), program.counts()


@pytest.mark.parametrize("timing", [True, False])
@pytest.mark.parametrize(("last", "bad"), [("ebreak", 0), ("ld t0, 0(zero)", 41), ("addi t0, t0, 1", 59), ("vadd.vv v0, v0, v0", 30)])
def test_same_fault_with_two_threads(last, bad, timing):
    first = ends(last, bad, 1, timing)
    assert ("error[E70" in first if "addi" not in last else first[0].instructions > 10_000)
    for _ in range(4):
        assert ends(last, bad, 2, timing) == first


def test_same_cycle_limit_with_two_threads():
    first = ends("ebreak", 100, 1, True, max_cycles=4000)
    assert "cycle limit of 4000" in first
    assert ends("ebreak", 100, 2, True, max_cycles=4000) == first


def test_number_of_threads(monkeypatch):
    monkeypatch.setenv("RVGPU_THREADS", "many")
    with pytest.raises(RvgpuError, match="RVGPU_THREADS=many: 1 or 2 needed"):
        Device(load_machine("base"), memory_bytes=1 << 20)
