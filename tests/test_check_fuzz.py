"""Checked mode against an oracle that knows no rule: what it calls defined does not depend on what undefined bytes held.

Random programs (those that QEMU judges, and the matrix-free rest of the rows) start from registers and memory of which random bytes are
undefined, and run twice with different garbage there. Every byte that the shadow calls defined at the end must be the same in both runs; and
when nothing was undefined at the start, nothing is at the end.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rvgpu.isa.codec import decode, disasm
from rvgpu.isa.machine import load_machine
from rvgpu.isa.rows import ROWS
from rvgpu.sim.checker import Finding
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE
from rvgpu.sim.engine import engine
from rvgpu.sim.program import VECTOR_CLASSES, _operands
from tests.qemu_judge import CONTROL, MEM, SIM_END, STATE, Case, build, draw_case, elf, prepare

CASES, LENGTH = 40, 4
# an undefined index or mask ends the run with a finding, which tests/bugs is about
CANDIDATES = [r for r in ROWS if r.kind not in CONTROL and not r.name.startswith("sf.") and not r.kind.endswith("_indexed")]
KINDS = {r.kind: r for r in reversed(CANDIDATES)}
BY_OP = ("and", "or", "xor", "sub", "srl", "sraw", "mul", "mulw", "sext.h", "rev8", "vmandn.mm", "vmxor.mm", "vslideup.vx", "vslidedown.vi",
         "vsub.vv",
         "vl4re8.v", "vmv2r.v", "flh", "fsd", "lbu", "ld", "sb", "vse64.v")
ROWS_HERE = list({r.name: r for r in [*KINDS.values(), *(r for r in CANDIDATES if r.name in BY_OP)]}.values())
MASK_WRITERS = ("vcmp", "vmask", "vmadc", "vmset")


def run(cases: list[Case], vlen: int, blobs: list[bytes], holes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and undefined bits of the data area after a checked run that began with `holes` undefined."""
    text, data, n = build(cases, vlen, SIM_END)
    dev = Device(load_machine("base", {"vector.vlen": vlen, "vector.dlen": min(vlen, 512), "matrix.te": 16, "core.warps": 1, "gpu.cores": 1}),
                 memory_bytes=1 << 24, timing=False, sanitize=True)
    program = dev.load(elf(text, data, b"".join(blobs)))
    at = data - BASE
    bits = np.unpackbits(dev.checker.undefined.view(np.uint8), bitorder="little")
    bits[at:at + n] = holes
    dev.checker.undefined[:] = np.packbits(bits, bitorder="little").view(np.uint64)
    dev.launch(program, "k", [], ctas=1)
    after = np.unpackbits(dev.checker.undefined.view(np.uint8), bitorder="little")[at:at + n]
    return dev.memory[at:at + n].copy(), after


def aligned(word: int) -> int:
    """The offset of a scalar access suits its size."""
    d = decode(word)
    if d is None or d.row.kind not in ("load", "store", "fload", "fstore"):
        return word
    at = 20 if "load" in d.row.kind else 7
    return word & ~(d.row.args["SIZE"] - 1 << at)


def drawn(seed: int, vlen: int, agnostic: bool) -> list[Case]:
    cases = [draw_case(seed + n, vlen, ROWS_HERE, LENGTH) for n in range(CASES)]
    for c in cases:
        c.vtype = replace(c.vtype, policy="tu, mu")
    for c in cases:
        c.words = [aligned(x) for x in c.words]
        if agnostic:
            c.vtype = replace(c.vtype, policy="ta, ma")
    return cases


@pytest.fixture(scope="module", autouse=True)
def all_at_once():
    """One compilation for every program that follows."""
    prepare(ROWS_HERE)
    engine().checks({(r.name, s) for r in ROWS_HERE for s in (range(4) if r.cls in VECTOR_CLASSES and "N" not in r.args else (-1,))})


def whole_blob(c: Case, vlen: int) -> bytes:
    return c.block + b"\0" * (STATE + 4 * vlen) + c.memory


def visible(c: Case, vlen: int, each: int) -> np.ndarray:
    """Which bytes of a case's data say all that is known of them. A mask register's bits do not once they are taken as bytes, one of which counts
    as defined when any of its bits is: what is made of those is left out."""
    out, state, coarse, stored = np.ones(each, bool), STATE + 4 * vlen, set(), False
    for d in filter(None, map(decode, c.words)):
        sources, dst = _operands(d)[:2]
        as_masks = d.row.kind.startswith(("vmask", "vmset", "vcpop", "vfirst", "viota"))
        read = {reg + n for reg, _ in sources if reg >= 64 and not as_masks for n in range(1 if reg == 64 and not d.vm else 16)}
        if coarse & read - ({64} if not d.vm else set()):
            if d.row.kind.startswith("vstore"):
                stored = True
            if dst[0] < 64:
                out[state:state + STATE] = False
            else:
                coarse |= {dst[0] + n for n in range(16)}
        if d.row.kind.startswith(MASK_WRITERS):
            coarse.add(64 + d.rd)
        if d.row.kind.startswith(("vstore_whole", "vmvr")) and coarse & {64 + d.rd + n for n in range(8)}:
            stored = True
        if stored and d.row.kind.startswith("vload"):
            coarse |= {64 + d.rd + n for n in range(16)}
        if stored and d.row.kind in ("load", "fload", "amo"):
            out[state:state + STATE] = False
    if stored:
        out[2 * state:] = False
    out[state + 384:state + STATE] = False  # sticky flags of control registers are not followed
    for reg in coarse:
        first = state + STATE + (reg - 64) * (vlen // 8)
        out[first:min(first + vlen // 8, 2 * state)] = False
    return out


def poisoned(seed: int, vlen: int, share: float, agnostic: bool) -> tuple[int, int]:
    """(bytes called undefined at the end, those of them that the garbage changed); asserts that defined ones did not change."""
    pick = np.random.default_rng(seed)
    cases = drawn(seed, vlen, agnostic)
    while cases:
        blobs = [np.frombuffer(whole_blob(c, vlen), np.uint8) for c in cases]
        size = STATE + 4 * vlen
        holes = []
        for b in blobs:
            h = np.zeros(len(b), np.uint8)
            grain = int(pick.choice([1, 2, 4, 8, 16]))
            h[:size] = np.repeat(pick.random(-(-size // grain)) < share, grain)[:size]
            h[2 * size:] = np.repeat(pick.random(MEM // grain) < share, grain)
            holes.append(h)
        flat = np.concatenate(holes)
        other = [np.where(h, pick.integers(0, 256, len(b), dtype=np.uint8), b).tobytes() for b, h in zip(blobs, holes, strict=True)]
        try:
            (one, left), (two, right) = (run(cases, vlen, x, flat) for x in ([b.tobytes() for b in blobs], other))
        except Finding as e:  # an undefined mask of a store: without that case
            assert e.kind in ("undefined", "agnostic") and "mask of a store" in e.message, e.render()
            cases = dropped(cases, vlen, e.pc)
            continue
        each = len(one) // len(cases)
        seen = np.concatenate([visible(c, vlen, each) for c in cases])
        wrong = np.flatnonzero((one != two) & (left == 0) & seen)
        if len(wrong):
            c, at = cases[wrong[0] // each], int(wrong[0] % each) - size
            listing = "\n".join("  " + disasm(d) for d in map(decode, c.words) if d)
            raise AssertionError(f"seed {c.seed} VLEN {vlen} {c.vtype}: byte {at} of the result (vectors from {STATE}, memory from {size}) is called "
                                 f"defined and depends on undefined bytes\n{listing}")
        assert (left == right).all() or (one != two).any()
        return int(left.sum()), int(((one != two) & (left == 1)).sum())
    return 0, 0


def dropped(cases: list[Case], vlen: int, pc: int) -> list[Case]:
    """The cases but the one whose code holds pc."""
    text, at = build(cases, vlen, SIM_END)[0], 0
    for n, c in enumerate(cases):
        code = b"".join(w.to_bytes(4, "little") for w in c.words)
        at = text.index(code, at) + len(code)
        if pc - BASE < at:
            return cases[:n] + cases[n + 1:]
    raise AssertionError("no case holds the finding")


@pytest.mark.parametrize("vlen", [128, 256, 512, 1024])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_defined_bytes_do_not_depend_on_undefined_ones(vlen, share):
    undefined = changed = 0
    for n in range(3):
        u, c = poisoned(1000 * n + vlen, vlen, share, n == 2)
        undefined, changed = undefined + u, changed + c
    assert undefined and changed / undefined > 0.3, "rules call too much undefined"


@pytest.mark.parametrize("vlen", [128, 256, 512, 1024])
def test_nothing_becomes_undefined_by_itself(vlen):
    cases = [c for c in drawn(vlen + 7, vlen, False) if not any(d and d.row.kind.startswith(MASK_WRITERS) for d in map(decode, c.words))]
    blobs = [whole_blob(c, vlen) for c in cases]
    _, left = run(cases, vlen, blobs, np.zeros(sum(map(len, blobs)), np.uint8))
    size, each = STATE + 4 * vlen, len(left) // len(cases)
    result = left.reshape(len(cases), each)
    assert not result.any(), [(cases[i].seed, int(j) - size) for i, j in np.argwhere(result)[:5]]
