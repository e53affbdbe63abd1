"""The reference of a level T function with a bound per element, and the comparison of a kernel's results with it.

The function as the user wrote it (macros included) is evaluated in float64 without intermediate rounding; beside each
value goes the bound of `error_rules.py`. A kernel passes when no element is further off than its bound, and NaN and
infinities stand in the same places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rvgpu.ir import meaning as m
from rvgpu.ir.core import Block, Func, Op, Value
from rvgpu.ir.error_base import EXACT, Context, exact, uncertain_edges
from rvgpu.ir.error_rules import RULES
from rvgpu.ir.evaluate import Evaluator, Inputs, Scalar, bind_dims, bind_params, input_arrays, last_uses
from rvgpu.ir.numeric import LARGEST, SATURATING, Array, is_float, overflow_edge, widen
from rvgpu.ir.slabs import by_slabs
from rvgpu.ir.types import DType

SLACK = 1e-6  # the reference's own rounding, where a kernel meets its bound exactly (half an ulp)


@dataclass(frozen=True)
class Check:
    """max_rel_error is |err| / max|ref|; bound_fraction is max |err| / bound, inf when a NaN, an infinity or an exact
    value is off."""

    passed: bool
    max_abs_error: float
    max_rel_error: float
    bound_fraction: float


def reference(func: Func, inputs: Inputs, scalars: Mapping[str, Scalar] | None = None, *,
              dims: Mapping[str, int] | None = None) -> tuple[list[Array], list[Array]]:
    """(values, bounds) per result, both float64 of the result's shape. Integers and booleans come as float64 too."""
    tensors = input_arrays(func, inputs)

    def run(arrays: list[Array], sizes: dict[str, int]) -> list[Array]:
        e = BoundEvaluator(m.Env(sizes, True), frozenset(func.results))
        values = bind_params(func, arrays, scalars or {}, True)
        e.block(func.body, values, keep=func.results)
        out, bounds = [], []
        for v, t in zip(func.results, func.result_types, strict=True):
            x = m.align(values[v], v.tensor.dims, t.dims)
            b = e.bounds.get(v, EXACT)
            out.append(widen(x).astype(np.float64))
            b = np.broadcast_to(m.align(b, v.tensor.dims, t.dims) if b.ndim else b, x.shape)
            bounds.append(b * (1 + SLACK))
        return out + bounds

    made = by_slabs(func, tensors, bind_dims(func, tensors, dims), run)
    return made[:len(func.results)], made[len(func.results):]


def compare(got: Array, ref: Array, bound: Array) -> Check:
    """Where the bound is inf nothing is promised; NaN and infinity must match in place elsewhere."""
    g = widen(np.asarray(got)).astype(np.float64)
    assert g.shape == ref.shape, f"shape {g.shape}, the reference has {ref.shape}"
    if g.size == 0:
        return Check(True, 0.0, 0.0, 0.0)
    promised = bound < np.inf
    both = np.isfinite(g) & np.isfinite(ref)
    same = both | (np.isnan(g) & np.isnan(ref)) | (g == ref)
    with np.errstate(all="ignore"):
        error = np.where(both, np.abs(g - ref), 0.0)
        fraction = np.where(error == 0, 0.0, error / bound)
    worst = float(np.max(fraction, where=promised, initial=0.0))
    if not same[promised].all():
        worst = np.inf
    scale = float(np.max(np.abs(ref), where=np.isfinite(ref), initial=0.0))
    largest = float(np.max(error))
    return Check(worst <= 1.0, largest, largest / scale if scale else float(largest > 0), worst)


class BoundEvaluator(Evaluator):
    """Evaluates in float64 and keeps a bound beside each value (absent: exact)."""

    def __init__(self, env: m.Env, finals: frozenset[Value]) -> None:
        super().__init__(env)
        self.context = Context(env, finals)
        self.bounds: dict[Value, Array] = {}

    def block(self, block: Block, values: dict[Value, Array], keep: Sequence[Value] = ()) -> list[Array]:
        dead = last_uses(block, keep)
        for n, op in enumerate(block.ops):
            assert op.name != "stream", "bounds are for the function as the user wrote it, before the cascade"
            xs = [values[v] for v in op.operands]
            values[op.result] = v = self.one(op, xs)
            bound = self.bound(op, xs, v)
            if not exact(bound):
                self.bounds[op.result] = bound
            del xs, v, bound
            for gone in dead.get(n, ()):
                values.pop(gone, None)
                self.bounds.pop(gone, None)
        return []

    def bound(self, op: Op, xs: list[Array], v: Array) -> Array:
        bs = [self.bounds.get(x, EXACT) for x in op.operands]
        with np.errstate(all="ignore"):
            b = np.asarray(RULES[op.name](self.context, op, xs, bs, v), np.float64)
            if exact(b):
                return EXACT
            return at_the_top(v, uncertain_edges(v, b) if is_float(v) else b, op.result.tensor.dtype)


def at_the_top(v: Array, b: Array, dtype: DType) -> Array:
    """No promise where the value may or may not overflow its dtype."""
    if dtype is DType.f64 or not dtype.is_float or dtype in SATURATING or v.size == 0:
        return b
    edge = overflow_edge(dtype)
    if np.max(b) < edge / 4 and not np.any(np.abs(v) > LARGEST[dtype] / 4):
        return b
    return np.where(np.isfinite(v) & (np.abs(v) + b >= edge), np.inf, b)
