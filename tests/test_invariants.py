"""What holds for every program and machine: no run beats its roofline, stalls sum to one, lines are conserved between levels, and a better machine is
not slower beyond what the order of issue can explain."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.isa.asm import assemble
from rvgpu.isa.machine import load_machine
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE, Image, write_executable

BUFFER = 1 << 16
VECTOR = ("vadd.vv v{a}, v{b}, v{c}", "vfmacc.vv v{a}, v{b}, v{c}", "vand.vv v{a}, v{b}, v{c}", "vmul.vv v{a}, v{b}, v{c}",
          "vredsum.vs v{a}, v{b}, v{c}", "vrgather.vx v{a}, v{d}, t0", "vfsqrt.v v{a}, v{b}", "vslide1down.vx v{a}, v{b}, t1",
          "vfdiv.vv v{a}, v{b}, v{c}")
MEMORY = ("vle32.v v{a}, ({p})", "vse32.v v{a}, ({p})", "vlse32.v v{a}, ({p}), s3", "ld t2, {o}({p})", "sd t3, {o}({p})")
SCALAR = ("add t0, t1, t2", "mul t1, t0, t3", "addi t2, t0, 5", "fadd.s ft0, ft1, ft2")
HEADER = """ld s0, 0(a0)
slli s1, a2, 12
add s0, s0, s1
slli s1, a2, 10
add s2, a4, s1
li s3, 192
mv s4, s0
"""
SET = "vsetvli t0, zero, e32, m4, ta, ma\n"
# every instruction stands in every program, behind its end, so that one set of handlers serves all
TAIL = SET + "".join(f"{i.format(a=4, b=8, c=12, d=16, p='s0', o=8)}\n" for i in (*VECTOR, *MEMORY, *SCALAR)) + "addi s4, s4, 640\n"


def program(seed: int, length: int) -> str:
    """Loads and stores stay within the warp's 4 KiB of the buffer and 1 KiB of scratchpad."""
    pick = random.Random(seed)
    kinds = pick.choices((VECTOR, MEMORY, SCALAR), (5, 3, 3), k=length)
    out = [HEADER + SET]
    for kind in kinds:
        a, b, c, d = (pick.choice((0, 4, 8, 12)) for _ in range(4))
        d = pick.choice([x for x in (0, 4, 8, 12) if x != a])
        text = pick.choice(kind)
        p = pick.choice(("s0", "s2"))
        if "192" in text or "s3" in text:
            p = "s0"
        out.append(text.format(a=a, b=b, c=c, d=d, p=p, o=8 * pick.randrange(100)) + "\n")
    return "".join(out) + "ret\n" + TAIL


def run(text: str, changes: dict[str, object], ctas: int = 1):
    machine = load_machine("base", {"gpu.cores": 1, "core.warps": 4, **changes})
    code = assemble(text)
    device = Device(machine, memory_bytes=1 << 24)
    loaded = device.load(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE})))
    buffer = device.alloc(BUFFER, "buffer")
    device.launch(loaded, "k", [buffer], ctas=ctas)
    return device, device.finish(), machine


MACHINES = st.fixed_dictionaries({}, optional={
    "core.warps": st.sampled_from([1, 2, 8]), "core.queue_entries": st.sampled_from([1, 3]), "vector.dlen": st.sampled_from([128, 256, 1024]),
    "dram.bytes_per_cycle": st.sampled_from([2, 8, 256]), "l2.bytes_per_cycle": st.sampled_from([8, 64]), "l1.misses": st.sampled_from([1, 4]),
    "l1.size_bytes": st.sampled_from([1024, 8192]), "l2.size_bytes": st.sampled_from([16384, 65536]), "gpu.cores": st.sampled_from([1, 3]),
    "scratchpad.bytes_per_cycle": st.sampled_from([16, 512]), "latency.vector_fp": st.sampled_from([1, 9]),
    "core.write_after_write": st.sampled_from(['"scalar"', '"all"']), "latency.reduction_passes": st.sampled_from([0, 1, 2])})


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 1 << 30), changes=MACHINES, length=st.integers(1, 60), ctas=st.integers(1, 5))
def test_rooflines_and_stalls(seed, changes, length, ctas):
    """No unit is busy for more cycles than there are, no slot issues twice a cycle, no bus moves more than its rate;
    every core-cycle has one cause."""
    device, stats, machine = run(program(seed, length), changes, ctas)
    for unit, share in stats.busy.items():
        assert 0 <= share <= 1, unit
    assert stats.instructions <= 2 * stats.cycles * machine.gpu.cores
    assert stats.dram_bytes <= stats.cycles * machine.dram.bytes_per_cycle
    g = device.gpu
    assert (g.l2_hits + g.l2_misses) * 64 <= (stats.cycles + 64) * machine.l2.bytes_per_cycle, "64: a window's requests may stand anywhere in it"
    assert sum(stats.stalls.values()) == pytest.approx(1, abs=1e-12) and min(stats.stalls.values()) >= 0


def touched(text: str, warps: int) -> tuple[set[int], set[int]]:
    """The buffer's lines that the program reads and writes, from its text: vl is 64, vlse has a stride of 192 bytes."""
    read: set[int] = set()
    written: set[int] = set()
    for m in re.finditer(r"^(vle32|vse32|vlse32|ld|sd)\S* [^,]+, (\d*)\(s0\)", text.partition("ret\n")[0], re.M):
        offsets = {"ld": [int(m[2] or 0)], "sd": [int(m[2] or 0)], "vlse32": range(0, 64 * 192, 192)}.get(m[1], range(0, 256, 64))
        lines = {(4096 * w + o) // 64 for w in range(warps) for o in offsets}
        (written if m[1] in ("vse32", "sd") else read).update(lines)
    return read, written


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30), length=st.integers(1, 60), warps=st.sampled_from([1, 4, 8]), small=st.booleans())
def test_lines_are_conserved(seed, length, warps, small):
    """L2 serves what L1 misses and stores ask of it; DRAM moves what L2 misses and writes back. With an L2 that holds all: each line that is written
    once, and once each that is read before it is written (the arguments' line too)."""
    changes: dict[str, object] = {"core.warps": warps}
    text = program(seed, length)
    if small:
        changes |= {"l1.size_bytes": 1024, "l2.size_bytes": 16384}
    device, stats, _ = run(text, changes)
    g, misses = device.gpu, sum(c.l1_misses for c in device.cores)
    read, written = touched(text, warps)
    stores = g.l2_hits + g.l2_misses - misses
    assert stats.dram_bytes == 64 * g.dram_lines
    assert stores >= len(written) and misses >= 1
    assert len(written) + len(read - written) + 1 <= g.dram_lines <= misses + stores
    if not small:
        assert g.dram_lines <= len(written) + len(read) + 1


BETTER = {"vector.dlen": (128, 256, 512, 1024), "dram.bytes_per_cycle": (4, 16, 64, 256), "l2.bytes_per_cycle": (16, 64, 512), "l1.ways": (1, 2, 4),
          "l1.misses": (1, 4, 16), "scratchpad.bytes_per_cycle": (32, 128, 512), "core.queue_entries": (1, 2, 3),
          "latency.vector_div_lanes_per_cycle": (1, 4, 16), "classes.vgather_x.per_element": (2, 1, 0.5), "classes.vint.per_register": (4, 1)}


def _sizes(field: str, value: object) -> dict[str, object]:
    return {field: value} | ({"l1.size_bytes": 8192 * int(value)} if field == "l1.ways" else {})  # more ways of the same sets


def worst(seeds: range, warps: int) -> tuple[float, int, object]:
    """The largest slow-down by a better machine, in cycles of the run without launch and drain: found by `python -m tests.test_invariants`."""
    found: tuple[float, int, object] = (0.0, 0, None)
    for seed in seeds:
        text = program(seed, 20 + seed % 60)
        for field, values in BETTER.items():
            took = [_work(text, {**_sizes(field, v), "core.warps": warps}) for v in values]
            for (a, b), pair in zip(zip(took, took[1:], strict=False), zip(values, values[1:], strict=False), strict=True):
                if b > a:
                    found = max(found, ((b - a) / a, b - a, (seed, field, pair, a, b)), key=lambda f: f[0])
    return found


def _work(text: str, changes: dict[str, object]) -> int:
    device, _, machine = run(text, changes)
    return device.launches[0].cycles - machine.gpu.launch_cycles - machine.gpu.cta_dispatch_cycles


# One warp issues in order, so whatever comes earlier lets all behind it come earlier: no slow-down was found. Several warps share slots and units:
# an instruction that is ready earlier may go before another warp's that the rest waits for (Graham's anomaly). The worst of
# 42 programs and ten fields was 0.1 %, 3.3 % and 9.1 % with 2, 4 and 8 warps, each time queue_entries 1 to 2: a deeper queue lets long divisions of
# some warps stand before what others need.
ONE_WARP_MARGIN = 0.0
MARGIN = 0.15


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30), field=st.sampled_from(sorted(BETTER)), warps=st.sampled_from([1, 2, 4, 8]), data=st.data())
def test_better_machines_are_not_slower(seed, field, warps, data):
    values = BETTER[field]
    at = data.draw(st.integers(0, len(values) - 2))
    text = program(seed, data.draw(st.integers(5, 80)))
    slow, fast = (_work(text, {**_sizes(field, values[at + k]), "core.warps": warps}) for k in (0, 1))
    margin = ONE_WARP_MARGIN if warps == 1 else MARGIN
    assert fast <= slow * (1 + margin), (field, values[at:at + 2], slow, fast)


if __name__ == "__main__":
    for warps in (1, 2, 4, 8):
        print(warps, worst(range(60), warps))
