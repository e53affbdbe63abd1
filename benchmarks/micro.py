"""One micro-benchmark per timing rule: a few instructions, and the cycle count that the rule predicts by hand.

`python benchmarks/micro.py` measures them all; `tests/test_timing.py` asserts them exactly; docs/timing.md shows them. A count is the
distance between two marked instructions' issues (`mark:` and `end:`), or of a whole launch where there are no marks. `{n}` in a text repeats the
line n times.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from rvgpu.isa.asm import assemble
from rvgpu.isa.machine import load_machine
from rvgpu.sim.control import UNIT_DMA
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE, Image, write_executable


@dataclass(frozen=True)
class Micro:
    """`predicted` cycles on `base` with `machine` overrides; `why` is the arithmetic."""

    rule: str
    name: str
    text: str
    predicted: int
    why: str
    machine: Mapping[str, int | float | str] = field(default_factory=dict)
    ctas: int = 1
    data: int = 1 << 16  # bytes of the buffer whose address is argument 0


SET = "vsetvli t0, zero, e32, m{m}, ta, ma\n"


def vector(m: int, body: str) -> str:
    return SET.replace("{m}", str(m)) + body


def fourth(m: int, text: str, sew: str = "e32") -> str:
    """Four times the instruction, with other destinations (aligned to LMUL 4) at {}. The unit's queue holds two, so that the fourth issues when the
    second starts: one occupancy after the first."""
    names = ("mark: ", "", "", "end: ")
    return SET.replace("{m}", str(m)).replace("e32", sew) + "".join(f"{n}{text.format(16 + 4 * k)}\n" for k, n in enumerate(names))


MATRIX = """ld s0, 8(a0)
sf.vsettnt t0, s0, e16alt, w2
sf.vsettm t0, s0
li t1, 2
sf.vsettk t1, t1
"""
STORES = "ld s1, 0(a0)\n" + SET.replace("{m}", "8") + "{hint}\nvse32.v v8, (s1)\naddi s1, s1, 512\n" * 16
ONE_WARP = "bnez a2, out\n"  # the others leave
RING = """mv t0, a3
ld s1, 0(a0)
sd s1, 64(t0)
sd a4, 72(t0)
li t1, 64
sd t1, 80(t0)
li t1, {row}
sd t1, 88(t0)
sd t1, 96(t0)
sd t1, 104(t0)
sd zero, 112(t0)
sd zero, 120(t0)
sd zero, 128(t0)
addi t2, t0, 136
addi t3, t0, 144
"""


MICROS: list[Micro] = [
    Micro("issue", "independent adds", "mark:\naddi t0, a0, 1 {8}\nend: nop\n", 8, "8 scalar slots, one a cycle"),
    Micro("issue", "dependent adds", "mark:\naddi t0, t0, 1 {8}\nend: nop\n", 8, "8 x ALU latency 1"),
    Micro("latency", "dependent multiplies", "mark:\nmul t0, t0, t0 {8}\nend: addi t0, t0, 0\n", 24, "8 x mul latency 3"),
    Micro("latency", "dependent divides", "li t1, 3\nmark:\ndiv t0, t0, t1 {4}\nend: addi t0, t0, 0\n", 80, "4 x div latency 20"),
    Micro("latency", "dependent scalar FMA", "mark:\nfadd.s ft0, ft0, ft0 {8}\nend: fadd.s ft0, ft0, ft0\n", 32, "8 x fp latency 4"),
    Micro("issue", "taken branches", "li t0, 5\nmark:\nloop: addi t0, t0, -1\nbnez t0, loop\nend: nop\n", 4 * 4 + 2,
          "4 x (add 1 + branch 1 + taken 2) + the last, not taken, 2"),
    Micro("issue", "a vector and a scalar a cycle", vector(1, "vadd.vv v10, v8, v9\nmark:\n" + "".join(
        f"vadd.vv v{n}, v8, v9\naddi t1, a0, 1\n" for n in range(8)) + "end: nop\n"), 8, "8 pairs, a slot of each kind a cycle"),
    Micro("issue", "write after read", vector(8, "mark: vfadd.vv v0, v8, v8\nvfadd.vv v16, v8, v8\nend: vfadd.vv v8, v24, v24\n"), 9,
          "the second add starts to read v8 at 8; v8 may be written from 9"),
    Micro("config", "vset that changes nothing", vector(1, "mark:\naddi t1, a0, 1\n" + SET.replace("{m}", "1") + "addi t1, a0, 1\nend: nop\n"), 2,
          "the unchanged vsetvli takes no slot: two adds"),
    Micro("config", "vset that changes the type", vector(1, "mark:\n" + SET.replace("{m}", "2") + SET.replace("{m}", "1") + "end: nop\n"), 2,
          "two scalar slots"),
    Micro("lanes", "independent, LMUL 4", vector(4, "mark: vfadd.vv v0, v8, v8\n" + "".join(
        f"vfadd.vv v{n}, v8, v8\n" for n in (4, 12, 16, 20, 24, 28)) + "end: vfadd.vv v0, v8, v8\n"), 20,
          "64 lanes / 16 = 4 cycles each; two wait in the unit's queue, so the 8th issues when the 6th starts: 5 x 4"),
    Micro("lanes", "integer, 8-bit lanes", "vsetvli t0, zero, e8, m8, ta, ma\nmark: vadd.vv v0, v8, v8\nvadd.vv v16, v8, v8\nvadd.vv v24, v8, v8\n"
          "end: vadd.vv v0, v8, v8\n", 8, "512 lanes x 8 bits / 512 = 8 cycles; the 4th issues when the 2nd starts"),
    Micro("lanes", "short vl", "li t0, 5\nvsetvli t0, t0, e32, m8, ta, ma\nmark: vadd.vv v0, v8, v8\n" + "vadd.vv v16, v8, v8\n" * 7
          + "end: vadd.vv v0, v8, v8\n", 8, "ceil(5 x 32 / 512) = 1 cycle each"),
    Micro("issue", "write after write", vector(1, "mark: vle32.v v0, (a4)\nend: vfadd.vv v0, v8, v8\n"), 8 + 1 - 4,
          "the load's lanes arrive at 8; the add's first lane, 4 after its issue, comes after them"),
    Micro("chaining", "dependent FMA, LMUL 1", vector(1, "mark: vfmacc.vv v0, v8, v9\n" + "vfmacc.vv v0, v8, v9\n" * 7
                                                      + "end: vfmacc.vv v0, v8, v9\n"), 32, "8 x latency 4"),
    Micro("chaining", "dependent FMA, LMUL 8", vector(8, "mark: vfmacc.vv v0, v8, v16\n" + "vfmacc.vv v0, v8, v16\n" * 7
                                                      + "end: vfmacc.vv v0, v8, v16\n"), 60,
          "8 cycles each; the 8th starts at 56 and its first lanes are there 4 later: the 9th issues and waits in the unit's queue"),
    Micro("chaining", "a reduction does not chain", vector(4, "mark: vfadd.vv v0, v8, v8\nend: vfredusum.vs v16, v0, v16\n"), 8,
          "the sum's last lanes are written at 0 + 4 + 3; the reduction starts after that"),
    Micro("units", "exp beside the FMA unit", vector(4, "mark: vfadd.vv v0, v8, v8\nsf.vfexp.v v4, v12\nvfadd.vv v16, v8, v8\n"
                                                     "sf.vfexp.v v20, v12\nend: vfadd.vv v24, v8, v8\n"), 4,
          "one vector slot a cycle: the exps delay no add"),
    Micro("units", "exp throughput", vector(4, "mark: sf.vfexp.v v0, v8\nsf.vfexp.v v4, v8\nsf.vfexp.v v12, v8\nend: sf.vfexp.v v16, v8\n"), 8,
          "64 lanes / 8 = 8 cycles each; the 4th issues when the 2nd starts"),
    Micro("units", "vector to scalar", vector(1, "mark: vmv.x.s t1, v8\nend: addi t1, t1, 1\n"), 6, "latency 6"),
    Micro("matrix", "dependent multiplies", MATRIX + "mark: sf.mm.f.f mt0, v8, v16\n" + "sf.mm.f.f mt0, v8, v16\n" * 9
          + "end: sf.mm.f.f mt0, v8, v16\n", 8 * 16, "64 x 64 x 2 products / 512 a cycle = 16 cycles each; the 11th issues when the 9th starts"),
    Micro("matrix", "independent multiplies", MATRIX + "mark: sf.mm.f.f mt0, v8, v16\n"
          + "sf.mm.f.f mt4, v8, v16\nsf.mm.f.f mt8, v8, v16\n" * 5 + "end: sf.mm.f.f mt12, v8, v16\n", 9 * 16,
          "one unit: 16 cycles each, the 12th issues when the 10th starts"),
    Micro("matrix", "a narrow multiply", MATRIX + "li t2, 20\nsf.vsettm t2, t2\nmark: sf.mm.f.f mt0, v8, v16\n" + "sf.mm.f.f mt0, v8, v16\n" * 9
          + "end: sf.mm.f.f mt0, v8, v16\n", 8 * 8, "ceil(20 / 16) x ceil(64 / 16) = 8 cycles each"),
    Micro("matrix", "a tile move after a multiply", MATRIX + "mark: sf.mm.f.f mt0, v8, v16\nsf.vsettnt t0, s0, e32, w1\n"
          "end: sf.vtmv.v.t v24, zero\n", 16 + 16, "the multiply's 16 cycles, then matrix latency 16"),
    Micro("matrix", "a row of another tile", MATRIX + "li t3, 0x20000000\nmark: sf.mm.f.f mt0, v8, v16\nsf.vsettnt t0, s0, e32, w1\n"
          "end: sf.vtmv.v.t v24, t3\n", 1, "row 0 of mt4: nothing to wait for but the vector slot"),
    Micro("matrix", "a row into a tile after a multiply", MATRIX + "mark: sf.mm.f.f mt0, v8, v16\nsf.vsettnt t0, s0, e32, w1\n"
          "end: sf.vtmv.t.v zero, v24\n", 16 + 16, "the multiply's 16 cycles, then matrix latency 16"),
    Micro("matrix", "a row into a tile and out of it", MATRIX + "sf.vsettnt t0, s0, e32, w1\nmark: sf.vtmv.t.v zero, v24\n"
          "end: sf.vtmv.v.t v0, zero\n", 8, "64 x 4 bytes / 64 a cycle, the last 4 bytes there after latency 4 + 3; the move out starts after that"),
    Micro("matrix", "tile moves", MATRIX + "sf.vsettnt t0, s0, e32, w1\nmark: sf.vtmv.v.t v0, zero\nsf.vtmv.v.t v8, zero\n"
          "sf.vtmv.v.t v16, zero\nend: sf.vtmv.v.t v24, zero\n", 4, "64 x 4 bytes / 64 a cycle = 4 cycles each; the 4th issues when the 2nd starts"),
    Micro("scratchpad", "loads in a row", vector(4, "mv t1, a4\nmark: vle32.v v0, (t1)\nvle32.v v4, (t1)\nvle32.v v8, (t1)\n"
                                                "end: vle32.v v12, (t1)\n"), 3,
          "one vector slot a cycle; 256 bytes / 128 a cycle = 2 cycles each, the 2nd starts at 2, so the queue has room at 3"),
    Micro("scratchpad", "a stream of loads", vector(4, "mv t1, a4\nmark: vle32.v v0, (t1)\n" + "".join(
        f"vle32.v v{4 * (n % 8)}, (t1)\n" for n in range(1, 16)) + "end: vle32.v v0, (t1)\n"), 14 * 2,
          "2 cycles each; the 17th issues when the 15th starts"),
    Micro("scratchpad", "a column", vector(4, "li t2, 512\nmark: vlse32.v v0, (a4), t2\nvlse32.v v4, (a4), t2\nvlse32.v v8, (a4), t2\n"
                                           "end: vlse32.v v12, (a4), t2\n"), 64,
          "all 64 elements in one bank: 64 cycles each; the 4th issues when the 2nd starts"),
    Micro("scratchpad", "load to use", vector(1, "mark: vle32.v v0, (a4)\nend: vadd.vv v1, v0, v0\n"), 8, "latency 8"),
    Micro("scratchpad", "scalar load to use", "mark: ld t1, 0(a4)\nend: addi t1, t1, 1\n", 8, "latency 8"),
    Micro("memory", "L1 hit to use", "ld t1, 0(a0)\nmv t1, t1\nmark: ld t2, 8(a0)\nend: addi t2, t2, 1\n", 4, "hit 4"),
    Micro("memory", "L2 hit to use", "ld t1, 0(a0)\nmv t1, t1\nli t3, 8192\nadd t2, a0, t3\n" + "".join(
        "ld t4, 0(t2)\nadd t2, t2, t3\n" for _ in range(4)) + "mv t4, t4\nmark: ld t2, 0(a0)\nend: addi t2, t2, 1\n", 64,
          "four other lines of the same L1 set pushed it out: hit check 4 + L2 60"),
    Micro("memory", "DRAM to use", "mark: ld t2, 0(a0)\nend: addi t2, t2, 1\n", 464, "L1 4 + L2 60 + DRAM 400"),
    Micro("memory", "a page of lines", "mark: ld t0, 0(a0)\nld t1, 64(a0)\nld t2, 128(a0)\nld t3, 192(a0)\nadd t0, t0, t1\nadd t2, t2, t3\n"
          "end: addi t2, t2, 1\n", 468, "4 misses in flight: the last at 3 + 464; then an add"),
    Micro("memory", "store and fence", "mark: sd a0, 0(a0)\nend: sd a0, 8(a0)\n", 1, "a store takes a slot and waits for nothing"),
    Micro("memory", "stores that stay in L2", STORES.replace("{hint}", ""), 1716,
          "launch 620 + address 464, the 14 that the queue lets go first at 8 lines each, 1; 128 lines from L2 and DRAM's 400: 1,189 + 127 + 400"),
    Micro("memory", "stores past L2", STORES.replace("{hint}", "add zero, zero, t0"), 1611,
          "ntl.all: each line goes on at once: launch 620 + address 464 + 127 + DRAM 400"),
    Micro("dma", "one transfer", RING.replace("{row}", "1024") + "mark: amoswap.d t4, zero, (t2)\namoswap.d t5, t4, (t3)\nend: nop\n", 1483,
          "1,024 lines, one a cycle: the last starts at 1,023, then L2 60 and DRAM 400"),
    Micro("dma", "a stream", RING.replace("{row}", "1024") + "li s2, 16\nli s3, 65536\nmark:\nloop: amoswap.d t4, zero, (t2)\n"
          "add s1, s1, s3\nsd s1, 64(t0)\naddi s2, s2, -1\nbnez s2, loop\namoswap.d t5, t4, (t3)\nend: nop\n", 16843,
          "16 x 1,024 lines, one a cycle, no gap between transfers: 16,383 + 460; 97.3 % of DRAM's bandwidth", data=1 << 20),
    Micro("dma", "a transposing stream", RING.replace("{row}", "64") + "li t6, 5\nmark: amoswap.d t4, t6, (t2)\namoswap.d t5, t4, (t3)\nend: nop\n",
          712, "64 lines at a quarter of the rate: 63 x 4 + 460"),
    Micro("cores", "eight cores share DRAM", RING.replace("{row}", "1024").replace("sd s1, 64(t0)", "slli s2, a1, 16\nadd s1, s1, s2\nsd s1, 64(t0)")
          + "amoswap.d t4, zero, (t2)\namoswap.d t5, t4, (t3)\n", 9739,
          "GO at 1,099, in the DRAM window 1,088..1,119: 8 x 1,024 lines from 1,088 on, the last at 9,279, then 60 + 400",
          {"gpu.cores": 8}, ctas=8, data=1 << 19),
    Micro("cores", "eight cores read the same lines", RING.replace("{row}", "1024") + "amoswap.d t4, zero, (t2)\namoswap.d t5, t4, (t3)\n", 2581,
          "GO at 1,098; the first core's last line starts at 1,098 + 1,023 and is there 460 later; the other cores wait for the same fills",
          {"gpu.cores": 8}, ctas=8),
    Micro("barrier", "four warps", "mark: addi t1, a3, 256\nli t2, 4\namoswap.d t3, t2, (t1)\nend: nop\n", 37,
          "12 scalar slots, the last arrival at 11; 24 later all go on, the last to arrive first: its nop and its return", {"core.warps": 4}),
    Micro("warps", "four warps hide the FMA's latency", vector(1, "mark: vfmacc.vv v0, v8, v9\n" + "vfmacc.vv v0, v8, v9\n" * 7
          + "end: vfmacc.vv v0, v8, v9\n"), 32,
          "36 instructions of four warps: each warp issues every 4 cycles as if it were alone", {"core.warps": 4}),
    Micro("warps", "four warps share the scalar slot", "mark:\naddi t0, t0, 1 {8}\nend: nop\n", 8,
          "greedy: the warp that issued last goes on", {"core.warps": 4}),
    Micro("classes", "start-up and registers", fourth(4, "vand.vv v{}, v8, v8"), 6,
          "start-up 2 and 4 registers at 1 each: 6 cycles; the 4th issues when the 2nd starts", {"classes.vint.start_up": 2}),
    Micro("classes", "a narrow datapath", fourth(1, "vand.vv v{}, v8, v8"), 4, "512 bits / DLEN 128 = 4 passes", {"vector.dlen": 128}),
    Micro("classes", "elements", fourth(2, "vfsqrt.v v{}, v8"), 8, "32 lanes / 4 a cycle = 8 cycles each"),
    Micro("classes", "a factor per SEW doubling", fourth(2, "vmul.vv v{}, v8, v8", "e64"), 8,
          "e64: 16 elements x 1/8 x factor 4 = 8 cycles, longer than the 2 of the registers",
          {"classes.vmul.per_element": 0.125, "classes.vmul.sew_factor": 4}),
    Micro("classes", "multiplies: the longer time", fourth(2, "vmul.vv v{}, v8, v8"), 4,
          "e32: 32 elements x 1/8 = 4 cycles, longer than the 2 of the registers", {"classes.vmul.per_element": 0.125, "classes.vmul.sew_factor": 4}),
    Micro("classes", "register pairs", fourth(4, "vrgather.vv v{}, v8, v8"), 16, "4 destination x 4 source registers, 1 cycle each",
          {"classes.vgather.per_register": 1, "classes.vgather.per_element": 0}),
    Micro("classes", "a gather by elements", fourth(1, "vrgather.vv v{}, v8, v8"), 16, "16 elements, one a cycle"),
    Micro("classes", "widening", fourth(2, "vwadd.vv v{}, v8, v10"), 4, "32 lanes of 64 bits / 512 = 4 cycles"),
    Micro("classes", "narrowing", fourth(2, "vnsrl.wi v{}, v8, 3"), 4, "32 lanes of 64 bits / 512 = 4 cycles"),
    Micro("classes", "a reduction", fourth(4, "vredsum.vs v{}, v8, v8"), 8, "4 steps of the tree and 4 registers"),
    Micro("classes", "vl, not LMUL", "li t0, 65\nvsetvli t0, t0, e32, m8, ta, ma\nmark: vand.vv v0, v8, v8\nvand.vv v16, v8, v8\n"
          "vand.vv v24, v8, v8\nend: vand.vv v0, v8, v8\n", 5, "ceil(65 x 32 / 512) = 5 cycles"),
    Micro("classes", "whole-register moves", "li t0, 1\nvsetvli t0, t0, e32, m1, ta, ma\nmark: vmv8r.v v0, v8\nvmv8r.v v16, v8\nvmv8r.v v24, v8\n"
          "end: vmv8r.v v0, v8\n", 8, "8 registers, although vl is 1", {"vector.whole_moves": "registers"}),
    Micro("classes", "strided loads", "mv t1, a4\nli t2, 8\n" + fourth(1, "vlse32.v v{}, (t1), t2"), 32, "16 elements at 2 cycles each",
          {"classes.vmem_strided.per_element": 2}),
    Micro("classes", "segment loads", "mv t1, a4\n" + fourth(2, "vlseg2e32.v v{}, (t1)"), 16, "2 fields x 2 registers at 4 cycles each"),
    Micro("classes", "a class that is like another", fourth(2, "vfsqrt.v v{}, v8"), 10, "vfsqrt is like vfdiv: 2 registers at 5 cycles",
          {"classes.vfdiv.per_register": 5, "classes.vfdiv.per_element": 0}),
    Micro("results", "a scalar written again, in order", vector(1, "mark: vmv.x.s t1, v8\nend: vmv.x.s t1, v9\n"), 1,
          "the second result comes after the first: no wait"),
    Micro("results", "a scalar written again, waiting", vector(1, "mark: vmv.x.s t1, v8\nend: vmv.x.s t1, v9\n"), 6,
          "latency 6 until t1 is there", {"core.write_after_write": "scalar"}),
    Micro("results", "a reduction written again, waiting", vector(4, "mark: vredsum.vs v0, v8, v12\nend: vredsum.vs v0, v8, v12\n"), 23,
          "latency 8 and two passes of occupancy 8 - 1 until v0 is there, then the cycle after",
          {"core.write_after_write": "all", "latency.reduction_passes": 2}),
    Micro("results", "a reduction's result", vector(4, "mark: vredsum.vs v0, v8, v12\nend: vadd.vv v16, v0, v8\n"), 15,
          "latency 8 and one pass of occupancy 8 - 1: the sum is complete", {"latency.reduction_passes": 1}),
    Micro("memory", "a chain of misses", "mark: ld t0, 0(a0)\nld t2, 0(t0)\nend: addi t2, t2, 1\n", 464 + 464,
          "the second address is what the first load brings"),
    Micro("memory", "misses beyond the L1's 16", "mark: ld t0, 0(a0)\n" + "".join(
        f"ld {x}, {64 * n}(a0)\n" for n, x in enumerate(
            "s0 s1 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t1 t2 t3 t4".split(), 1)) + "end: addi t4, t4, 1\n", 464 + 460,
          "the 17th miss takes the first's slot at 464; L2 60 + DRAM 400 later it is there"),
    Micro("scratchpad", "every other bank", vector(4, "li t2, 64\nmark: vlse32.v v0, (a4), t2\nvlse32.v v4, (a4), t2\nvlse32.v v8, (a4), t2\n"
                                                   "end: vlse32.v v12, (a4), t2\n"), 32, "half of 64 elements; the 4th issues when the 2nd starts"),
    Micro("dma", "multiplies beside a transfer", RING.replace("{row}", "1024") + MATRIX + "mark: amoswap.d t4, zero, (t2)\n"
          + "sf.mm.f.f mt0, v8, v16\n" * 64 + "amoswap.d t5, t4, (t3)\nend: nop\n", 1483,
          "64 x 16 cycles of multiplies hide behind the transfer's 1,483"),
    Micro("launch", "an empty kernel", "", 620, "launch 600 + dispatch 20"),
]


def run(micro: Micro) -> int:
    """Measured cycles."""
    machine = load_machine("base", {"core.warps": 1, "gpu.cores": 1, **micro.machine})
    text = re.sub(r"^(.*?) \{(\d+)\}$", lambda m: "\n".join([m[1]] * int(m[2])), micro.text, flags=re.M)
    labels = {m[1]: None for m in re.finditer(r"^(mark|end):", text, re.M)}
    marked = text + "out: jalr zero, ra, 0\n"
    code = assemble(marked)
    elf = write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE}))
    dev = Device(machine, trace=True, memory_bytes=1 << 28)
    program = dev.load(elf)
    buffer = dev.alloc(micro.data, "buffer")
    dev.launch(program, "k", [buffer, machine.matrix.te], ctas=micro.ctas)
    stats = dev.finish()
    if not labels:
        return stats.cycles
    at = {name: _address(marked, name) for name in labels}
    issues = [(pc, issue) for pc, core, warp, _, _, issue, unit, *_ in dev.trace.events.tolist() if unit != UNIT_DMA and core == warp == 0]
    issued, last = dict(reversed(issues)), dict(issues)
    return last[at["end"]] - issued[at["mark"]]


def _address(text: str, label: str) -> int:
    before = text[:re.search(rf"^{label}:", text, re.M).start()]
    return BASE + len(assemble(re.sub(r"^(beq|bne|bnez|beqz|j|jal)\b.*", "nop", before, flags=re.M)))


def main() -> int:
    bad = 0
    for m in MICROS:
        got = run(m)
        bad += got != m.predicted
        print(f"{'  ' if got == m.predicted else '!!'} {m.rule:10} {m.name:32} predicted {m.predicted:6} measured {got:6}  {m.why}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
