"""Hand-built clusters through code generation onto the simulator: the machine's numbers against NumPy, cycles repeatable."""

from __future__ import annotations

import numpy as np
import pytest

from rvgpu.codegen_rvgpu.llvm_ops import emit_llvm
from rvgpu.codegen_rvgpu.riscv import compile_llvm
from rvgpu.ir.tile_eval import numpy_dtype
from rvgpu.ir.types import DType
from rvgpu.isa.machine import load_machine
from rvgpu.passes.context import Context, Facts
from rvgpu.passes.pipeline import PIPELINE, run_passes
from rvgpu.sim.device import Device
from tests import streams


def simulate(func, arrays, dims, scalars=(), static=(), machine="base", **overrides):
    m = load_machine(machine, overrides)
    upper = {n: 1 << max(0, (v - 1).bit_length()) for n, v in dims.items()}
    kf, = run_passes([func], PIPELINE[5:], Context(Facts.of(m), {n: dims[n] for n in static}, upper))
    dev = Device(m, memory_bytes=1 << 28)
    program = dev.load(compile_llvm(emit_llvm(kf), m.vector.vlen).object)
    args, outs = [], []
    for t in kf.tensors:
        shape, dt = [d.value(dims) for d in t.dims], numpy_dtype(t.dtype)
        at = dev.alloc(int(np.prod(shape)) * dt.itemsize, t.name)
        args.append(at)
        if t.output:
            outs.append((at, shape, dt))
        else:
            dev.write(at, arrays[t.name])
    args += [0, *scalars, *(dims[n] for n in kf.dims), m.matrix.te]
    dev.launch(program, kf.name, args, ctas=m.gpu.cores, scratchpad_bytes=kf.spm_bytes)
    stats = dev.finish()
    assert abs(sum(stats.stalls.values()) - 1) < 1e-9
    return [np.frombuffer(dev.read(at, int(np.prod(s)) * d.itemsize), d).reshape(s) for at, s, d in outs], stats


def data(rng, shape, dtype=DType.bf16):
    return rng.standard_normal(shape).astype(np.float32).astype(numpy_dtype(dtype))


MACHINES = [{}, {"vector.vlen": 256, "matrix.te": 32}, {"vector.vlen": 1024, "matrix.te": 64}, {"core.warps": 1, "gpu.cores": 1}]


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("dtype", [DType.bf16, DType.f16, DType.f32])
@pytest.mark.parametrize("shape", [(81, 41, 19), (130, 70, 200)])
def test_gemm(shape, dtype, machine):
    m, n, k = shape
    rng = np.random.default_rng(1)
    a, b = data(rng, (m, k), dtype), data(rng, (k, n), dtype)
    (out,), _ = simulate(streams.gemm(dtype, DType.f32), {"a": a, "b": b}, {"M": m, "N": n, "K": k}, **machine)
    a, b = a.astype(np.float64), b.astype(np.float64)
    assert (np.abs(out - a @ b) <= k * 2.0**-23 * (np.abs(a) @ np.abs(b))).all()


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (9, 130), (3, 5000)])
def test_softmax(shape, machine):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32) * 5
    (out,), _ = simulate(streams.softmax(), {"x": x}, dict(zip("MN", shape, strict=True)), **machine)
    e = np.exp(x - x.max(1, keepdims=True).astype(np.float64))
    want = e / e.sum(1, keepdims=True)
    assert (np.abs(out - want) <= (shape[1] + 40) * 2.0**-24 * want + 1e-37).all()


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("shape", [(1, 2, 2, 77, 101, 64), (1, 1, 4, 1, 130, 128), (1, 2, 1, 20, 9, 16)])
def test_causal_attention(shape, machine):
    B, G, R, S, T, D = shape
    rng = np.random.default_rng(3)
    q, k, v = data(rng, (B, G, R, S, D)), data(rng, (B, G, T, D)), data(rng, (B, G, T, D))
    scale = np.float32(D**-0.5)
    (out,), _ = simulate(streams.attention(), {"q": q, "k": k, "v": v}, dict(zip("BGRSTD", shape, strict=True)),
                         [int(scale.view(np.uint32))], ["D"], **machine)
    s = np.einsum("bgrsd,bgtd->bgrst", q.astype(np.float64), k.astype(np.float64)) * float(scale)
    s = np.where(np.arange(T) <= np.arange(S)[:, None] + T - S, s, -np.inf)
    m = s.max(-1, keepdims=True)
    p = np.exp(s - np.where(np.isfinite(m), m, 0))
    total = p.sum(-1, keepdims=True)
    p = p / np.where(total > 0, total, 1)
    want = np.einsum("bgrst,bgtd->bgrsd", p, v.astype(np.float64))
    bound = (2.0**-7 + 2.0**-8) * np.einsum("bgrst,bgtd->bgrsd", p, np.abs(v.astype(np.float64))) + 1e-30
    assert (np.abs(out.astype(np.float64) - want) <= bound).all()


def test_cycles_repeat_and_bytes_do_not_depend_on_the_machine_size():
    rng = np.random.default_rng(4)
    a, b = data(rng, (200, 90)), data(rng, (90, 150))
    runs = [simulate(streams.gemm(), {"a": a, "b": b}, {"M": 200, "N": 150, "K": 90}, **o)
            for o in ({}, {}, {"gpu.cores": 3}, {"core.warps": 2}, {"core.warps": 8})]
    assert runs[0][1].cycles == runs[1][1].cycles
    assert len({r[0][0].tobytes() for r in runs}) == 1
