"""What a run tells: the JSON object of `rvgpu run --json` and the text report, from the simulator's counters and the level T function."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rvgpu.ir.bounds import Check
from rvgpu.ir.core import Func, Op, Value
from rvgpu.ir.evaluate import Evaluator
from rvgpu.ir.meaning import Env
from rvgpu.ir.numeric import Array
from rvgpu.ir.types import TensorType
from rvgpu.isa.machine import Machine
from rvgpu.passes.expand import expanded
from rvgpu.passes.simplify import simplified
from rvgpu.runtime.code import Code
from rvgpu.sim.device import RunStats


def _bytes(t: TensorType, binding: Mapping[str, int]) -> int:
    return math.prod(d.value(binding) for d in t.dims) * t.dtype.bits // 8


def required_macs(func: Func, binding: Mapping[str, int]) -> int:
    """Multiply-adds that the math asks for; elements removed by a mask of indices alone are left out, exactly."""
    masks = [(op.operands[0], part) for op in func.body.ops if (part := _mask_fraction(op, func, binding)) is not None]
    total = 0
    for op in func.body.ops:
        if op.name != "contract":
            continue
        dims = set(op.result.tensor.dims) | set(op.attrs["dims"])  # type: ignore[arg-type]
        macs = math.prod([d.value(binding) for d in dims])  # type: ignore[union-attr,misc]
        for cond, (kept, size) in masks:
            if set(cond.tensor.dims) <= dims and size:
                macs = macs * kept // size
        total += macs
    return total


def _mask_fraction(op: Op, func: Func, binding: Mapping[str, int]) -> tuple[int, int] | None:
    """(kept, all) of select(indices only, x, -inf)."""
    if op.name != "select" or op.operands[2].op is None or op.operands[2].op.attrs.get("value") != -math.inf:
        return None
    run, given = Evaluator(Env(dict(binding), True)), {p.value for p in func.params}
    made: dict[Value, Array] = {}

    def make(v: Value) -> bool:
        if v in made:
            return True
        if v in given or v.op is None or v.op.name in ("contract", "reduce") or not all(make(x) for x in v.op.operands):
            return False
        made[v] = run.one(v.op, [made[x] for x in v.op.operands])
        return True

    if not make(op.operands[0]):
        return None
    kept = made[op.operands[0]]
    return int(np.count_nonzero(kept)), int(kept.size)


@dataclass(frozen=True)
class Work:
    """What a run has to do: multiply-adds and their dtype, and the bytes that must cross DRAM (every input once, every output once)."""

    macs: int
    dtype: str
    bytes: int


def work_of(func: Func, binding: Mapping[str, int]) -> Work:
    """Of what the results depend on, each equal operation once: the roofline of any correct program for this math. Nothing is read for what has no
    elements."""
    func = simplified(expanded(func))
    dtype = next((op.operands[0].tensor.dtype.name for op in func.body.ops if op.name == "contract"), "bf16")
    needed = _needed(func, binding)
    moved = sum(_read_bytes(func, needed, p.value, binding) for p in func.params if not p.keyword)
    moved += sum(_bytes(t, binding) for t in func.result_types)
    return Work(required_macs(func, binding), dtype, moved)


def _needed(func: Func, binding: Mapping[str, int]) -> list[Op]:
    """The ops that a result depends on through values with elements."""
    def some(v: Value) -> bool:
        return all(d.value(binding) for d in v.tensor.dims)

    wanted, out = {v for v in func.results if some(v)}, []
    for op in reversed(func.body.ops):
        if op.result in wanted:
            out.append(op)
            wanted |= {v for v in op.operands if some(v)}
    return out


def _read_bytes(func: Func, needed: list[Op], x: Value, binding: Mapping[str, int]) -> int:
    """Bytes of an input that must be read: what its slices and gathers keep, all of it for any other use."""
    read = _bytes(x.tensor, binding) if x in func.results else 0
    for op in needed:
        for i, operand in enumerate(op.operands):
            if operand is x:
                part = op.name in ("slice", "take") and i == 0
                read += _bytes(op.result.tensor if part else x.tensor, binding)
    return min(read, _bytes(x.tensor, binding))


def work_of_code(code: Code, binding: Mapping[str, int], raw: RunStats) -> Work:
    """Without the math: the multiply-adds that were executed, the bytes of the tensors."""
    tensors = [*code.inputs().values(), *code.results().values()]
    first = next((t.dtype.name for t in tensors if t.dtype.is_float), "bf16")
    return Work(raw.macs, first, sum(_bytes(t, binding) for t in tensors))


def statistics(kernel: str, m: Machine, binding: Mapping[str, int], work: Work, raw: RunStats, check: Check | None,
               host: dict[str, float]) -> dict[str, Any]:
    """The schema of docs/json.md."""
    macs_min, bytes_min = work.macs, work.bytes
    peak = m.peak_macs_per_cycle(work.dtype)
    by_macs, by_dram = macs_min / peak, bytes_min / m.dram.bytes_per_cycle
    ideal = max(by_macs, by_dram, 1)
    unit = "matrix" if m.has_matrix else "vector"
    out: dict[str, Any] = {
        "kernel": kernel, "machine": m.name, "dims": dict(binding), "cycles": raw.cycles, "seconds": raw.cycles / (m.gpu.clock_ghz * 1e9),
        "launches": [{"name": r.name, "grid": r.grid, "cycles": r.cycles} for r in raw.launches], "instructions": raw.instructions,
        "macs": raw.macs, "macs_min": macs_min, "flops": 2 * macs_min, "dram_bytes": raw.dram_bytes, "dram_bytes_min": bytes_min,
        "utilisation": {"matrix": raw.busy["matrix"], "vector": raw.busy["vector"], "issue": raw.busy["issue"],
                        "dram": bytes_min / (raw.cycles * m.dram.bytes_per_cycle)},
        "roofline": {"ideal_cycles": ideal, "fraction": ideal / raw.cycles, "bound": unit if by_macs >= by_dram else "dram",
                     "of_matrix_peak": by_macs / raw.cycles if m.has_matrix else 0.0,
                     "of_vector_peak": macs_min / m.vector_macs_per_cycle() / raw.cycles},
        "stalls": raw.stalls}
    if check is not None:
        out["check"] = {"passed": check.passed, "max_abs_error": check.max_abs_error, "max_rel_error": check.max_rel_error,
                        "bound_fraction": check.bound_fraction}
    out["host"] = {**host, "mips": raw.instructions / max(host["simulate_s"], 1e-9) / 1e6}
    return out


def describe(s: dict[str, Any]) -> str:
    """The text report."""
    dims = " ".join(f"{k}={v}" for k, v in s["dims"].items())
    lines = [f"{s['kernel']} on {s['machine']}  {dims}"]
    if "check" in s:
        c = s["check"]
        lines.append(f"  check        {'passed' if c['passed'] else 'FAILED'}: error {c['max_rel_error']:.2e} of the largest value, "
                     f"{c['bound_fraction']:.3f} of the bound")
    if "sanitize" in s:
        lines.append("  sanitize     no finding")
    r, u = s["roofline"], s["utilisation"]
    lines.append(f"  cycles       {s['cycles']:,} ({s['seconds'] * 1e6:.1f} us), {s['instructions']:,} warp instructions")
    unit = "vector" if r["bound"] == "vector" or not r["of_matrix_peak"] else "matrix"
    peak = f"{r[f'of_{unit}_peak']:.1%} of {unit}"
    ideal = f"{r['ideal_cycles']:,.0f}"
    lines.append(f"  roofline     {r['fraction']:.1%} of the {r['bound']} bound ({ideal} cycles); {peak} peak")
    lines.append(f"  utilisation  matrix {u['matrix']:.1%}  vector {u['vector']:.1%}  issue {u['issue']:.1%}  dram {u['dram']:.1%}")
    stalls = sorted(((v, k) for k, v in s["stalls"].items() if v >= 0.0005), reverse=True)
    lines.append("  core-cycles  " + "  ".join(f"{k} {v:.1%}" for v, k in stalls))
    return "\n".join(lines)
