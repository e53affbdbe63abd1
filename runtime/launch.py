"""Runs compiled code on a device: places tensors, fills argument slots, launches the kernels in order, reads the results back."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rvgpu.errors import Loc, RvgpuError
from rvgpu.ir import numeric
from rvgpu.ir.dims import value_of
from rvgpu.ir.numeric import LARGEST, integer_range, numpy_dtype, overflow_edge, packed, unpacked
from rvgpu.ir.types import DType, TensorType
from rvgpu.isa.machine import Machine
from rvgpu.runtime.code import Code
from rvgpu.sim.device import Device, RunStats
from rvgpu.sim.trace import Trace


@dataclass
class Launched:
    outputs: dict[str, Any]
    raw: RunStats
    trace: Trace | None
    engine_s: float
    simulate_s: float


def run_code(code: Code, machine: Machine, binding: Mapping[str, int], inputs: Mapping[str, Any], scalars: Mapping[str, Any], *,
             elf: bytes | None = None, max_cycles: int | None = None, timing: bool = True, trace: bool = False, sanitize: bool | None = None,
             latency_seed: int | None = None, sample: int = 1) -> Launched:
    """Inputs by name, each of its tensor's shape and dtype; `elf` is the executable when the code came from one. `sample` n: each CTA does every
    n-th of its work items only; results are incomplete."""
    started = time.perf_counter()
    dev = Device(machine, max_cycles=max_cycles, timing=timing, trace=trace, sanitize=sanitize, latency_seed=latency_seed)
    program = dev.load(elf) if elf is not None else dev.load(*(k.object for k in code.kernels))
    places: dict[str, int] = {}
    for name, x in ((n, packed(x)) for n, x in inputs.items()):
        places[name] = dev.alloc(x.nbytes, name, x.shape)
        dev.write(places[name], x)
    results = code.results()
    for name, t in [*code.temps.items(), *results.items()]:
        places[name] = dev.alloc(size_bytes(t, binding), name, shape(t, binding))
    ready = time.perf_counter()
    for k in code.kernels:
        made = [shape(TensorType(t.dims, t.dtype), binding) for t in k.tensors if t.output]
        if made and all(0 in s for s in made):
            continue  # an empty result launches nothing
        args = [places[t.name] for t in k.tensors] + [0] + [scalar_slot(scalars[n], t) for n, t in k.scalars]
        args += [value_of(d, binding) for d in k.dims] + [machine.matrix.te]
        dev.launch(program, k.name, args, ctas=machine.gpu.cores, scratchpad_bytes=k.spm_bytes,
                   grid=machine.gpu.cores * sample)
    raw = dev.finish()
    done = time.perf_counter()
    outputs = {n: unpacked(dev.read(places[n], size_bytes(t, binding)), shape(t, binding), t.dtype) for n, t in results.items()}
    return Launched(outputs, raw, dev.trace, ready - started, done - ready)


def shape(t: TensorType, binding: Mapping[str, int]) -> list[int]:
    return [d.value(binding) for d in t.dims]


def size_bytes(t: TensorType, binding: Mapping[str, int]) -> int:
    return numeric.size_bytes(shape(t, binding), t.dtype)


def scalar_of(name: str, value: Any, dtype: DType, loc: Loc | None = None) -> float | int:
    """A scalar argument as the number that its dtype holds; E207 when it is none."""
    x = value.item() if isinstance(value, np.generic | np.ndarray) and np.ndim(value) == 0 else value
    if not isinstance(x, int | float):
        raise RvgpuError("E207", f"{name} is a number ({dtype}), found {type(value).__name__}", loc)
    if dtype.is_float:
        fits = not math.isfinite(x) or abs(x) < overflow_edge(dtype) or abs(x) <= LARGEST[dtype]
    else:
        low, high = (0, 1) if dtype is DType.i1 else integer_range(dtype)
        if not math.isfinite(x) or int(x) != x:
            raise RvgpuError("E207", f"{name} is an integer ({dtype}), found {value}", loc)
        x = int(x)
        fits = low <= x <= high
    if not fits:
        raise RvgpuError("E207", f"{name} = {value} is beyond the range of {dtype}", loc)
    return x


def scalar_slot(value: float | int, dtype: DType) -> int:
    """An argument slot, of what `scalar_of` gives: float bits zero-extended, integers sign-extended."""
    if dtype == DType.f32:
        return int(struct.unpack("<I", struct.pack("<f", value))[0])
    if dtype.is_float:
        return int.from_bytes(np.asarray(value).astype(numpy_dtype(dtype)).tobytes(), "little")
    return int(value)
