"""Products of bf16 on the host's matrix unit: the same bits as without it, where numbers are usual and where it would not round as ours."""

from __future__ import annotations

import numpy as np
import pytest

from rvgpu.isa.asm import assemble
from rvgpu.isa.machine import load_machine
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE, Image, write_executable
from rvgpu.sim.engine import Engine, engine
from rvgpu.sim.state import MM_WAITING

ENGINES = [Engine(amx=False), engine()]
TEXT = """
bnez a2, out
ld s0, 0(a0)
ld s1, 8(a0)
ld s2, 16(a0)
ld s3, 24(a0)
ld s4, 32(a0)
ld s5, 40(a0)
li s6, 64
li s7, 256
sf.vsettnt zero, s6, e32, w1
li t0, 0x20000000
addi t1, t0, 64
mv t2, s0
load:
sf.vlte32 t0, (t2)
addi t0, t0, 1
add t2, t2, s7
bne t0, t1, load
beqz s5, ready
sf.vsettnt zero, s3, e32, w1
sf.vsettm zero, s2
sf.vtzero.t mt4
ready:
mv t3, t2
step:
vsetvli zero, s6, e16, m2, ta, ma
vle16.v v8, (t3)
addi t3, t3, 128
vle16.v v12, (t3)
addi t3, t3, 128
vle16.v v16, (t3)
addi t3, t3, 128
vle16.v v20, (t3)
addi t3, t3, 128
sf.vsettnt zero, s3, e16alt, w2
sf.vsettm zero, s2
sf.vsettk zero, s4
sf.mm.f.f mt4, v8, v16
addi s1, s1, -1
bnez s1, step
sf.vsettnt zero, s6, e32, w1
li t0, 0x20000000
mv t2, s0
store:
sf.vste32 t0, (t2)
addi t0, t0, 1
add t2, t2, s7
bne t0, t1, store
out:
ret
"""
TE = 64


def run(with_: Engine, c, ops, tm: int, tn: int, tk: int, zero: bool):
    """The tile after the steps of `ops`, on rows and columns [0, tm) x [0, tn), from c or from 0."""
    d = Device(load_machine("base", {"gpu.cores": 1}), memory_bytes=1 << 22, engine=with_)
    code = assemble(TEXT)
    program = d.load(write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE})))
    at = d.alloc(c.nbytes + ops.nbytes)
    d.write(at, np.concatenate([c.view(np.uint8).ravel(), ops.view(np.uint8).ravel()]))
    d.launch(program, "k", [at, len(ops), tm, tn, tk, int(zero)], ctas=1)
    return np.frombuffer(d.read(at, c.nbytes), np.uint32).reshape(c.shape)


def bf16(x):
    return (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def numbers(kind: str, rng, shape):
    """As bf16 patterns."""
    x = bf16(rng.standard_normal(shape))
    some = rng.random(shape) < 0.02
    if kind == "zeros":
        return np.where(rng.random(shape) < 0.3, rng.choice([0, 0x8000], shape), x).astype(np.uint16)
    if kind == "wide":
        return bf16(rng.standard_normal(shape) * np.exp2(rng.integers(-60, 60, shape)))
    if kind == "subnormal":
        return np.where(some, rng.integers(1, 128, shape), x).astype(np.uint16)
    if kind == "tiny":
        return bf16(rng.standard_normal(shape) * np.exp2(rng.integers(-70, -55, shape)))
    if kind == "huge":
        return bf16(rng.choice([-1, 1], shape) * np.exp2(rng.integers(55, 68, shape)))
    if kind == "odd":
        return np.where(some, rng.choice([0x7F80, 0xFF80, 0x7FC1, 0xFFFF, 0x7F01], shape), x).astype(np.uint16)
    return rng.integers(0, 1 << 16, shape, np.uint16) if kind == "any" else x


def sums(kind: str, rng):
    c = rng.standard_normal((TE, TE)).astype(np.float32)
    few = rng.random(c.shape) < 0.01
    odd = {"tiny": [1e-45, -1e-40, 1e-38, -0.0], "odd": [np.inf, -np.inf, np.nan, 3e38]}.get(kind)
    return c if odd is None else np.where(few, rng.choice(np.array(odd, np.float32), c.shape), c)


@pytest.mark.parametrize("kind", ["usual", "zeros", "wide", "subnormal", "tiny", "huge", "odd", "any"])
@pytest.mark.parametrize("start", ["zero", "usual", "tiny", "odd"])
def test_same_bits(kind, start):
    rng = np.random.default_rng(len(kind) * 7 + len(start))
    for tm, tn, tk, steps in ((TE, TE, 2, MM_WAITING + 5), (33, 50, 2, 3), (7, TE, 1, 2), (TE, 16, 2, 2 * MM_WAITING)):
        c, ops = sums(start, rng), numbers(kind, rng, (steps, 4, TE))
        one, other = (run(e, c, ops, tm, tn, tk, start == "zero") for e in ENGINES)
        assert np.array_equal(one[:tm, :tn], other[:tm, :tn])
        outside = np.ones((TE, TE), bool)
        outside[:tm, :tn] = False
        assert np.array_equal(one[outside], c.view(np.uint32)[outside]) and np.array_equal(other[outside], one[outside])


def test_against_float64():
    """One step: both products are exact in f64, and so is their sum where exponents are near."""
    rng = np.random.default_rng(1)
    ops = numbers("usual", rng, (1, 4, TE))
    a0, a1, b0, b1 = ((x.astype(np.uint32) << 16).view(np.float32).astype(np.float64) for x in ops[0])
    want = (np.outer(a0, b0) + np.outer(a1, b1)).astype(np.float32)
    for e in ENGINES:
        assert np.array_equal(run(e, np.zeros((TE, TE), np.float32), ops, TE, TE, 2, True).view(np.float32), want)
