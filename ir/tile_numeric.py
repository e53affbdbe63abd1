"""NumPy's part in the meaning of level K: the matrix unit's products, lanes' operations, and what is behind vl."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rvgpu.ir import meaning, numeric
from rvgpu.ir.numeric import Array


def multiply(acc: Array, a: Array, b: Array) -> None:
    """acc += a^T b in the unit's rounding (docs/ir.md, 30-isa): f32 products in k order; narrower floats in pairs,
    RN(acc + fma(a0, b0, RN(a1 b1))); integers wrap."""
    if a.dtype.kind in "iu":
        acc += a.astype(np.int32).T @ b.astype(np.int32)
        return
    wide = [np.outer(a[k].astype(np.float64), b[k].astype(np.float64)) for k in range(a.shape[0])]
    step = 1 if a.dtype.itemsize == 4 else 2
    for k in range(0, len(wide), step):
        pair = wide[k:k + step]
        acc += pair[0].astype(acc.dtype) if len(pair) == 1 else (pair[0] + pair[1].astype(acc.dtype)).astype(acc.dtype)


def compare(pred: str, a: Any, b: Any) -> Any:
    return {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
            "ne": np.not_equal}[pred](a, b)


def elementwise(name: str, xs: Sequence[Any]) -> Any:
    """The op on float64 (floats) or as it is (integers, booleans); the caller rounds to the result's dtype."""
    xs = [numeric.widen(np.asarray(x)) for x in xs]
    table: dict[str, Callable[..., Any]] = {
        "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "rsqrt": meaning.rsqrt, "exp": np.exp, "exp2": np.exp2,
        "log": np.log, "log2": np.log2, "tanh": np.tanh, "erf": numeric.erf, "floor": np.floor, "round": np.rint,
        "not": np.logical_not, "add": np.add, "sub": np.subtract, "mul": np.multiply,
        "div": meaning.divide, "mod": meaning.modulo, "pow": meaning.power,
        "max": np.fmax, "min": np.fmin, "and": np.logical_and, "or": np.logical_or, "fma": lambda a, b, c: a * b + c,
        "fms": lambda a, b, c: a * b - c}
    with np.errstate(all="ignore"):
        return table[name](*xs)


def poison(x: Array, vl: int) -> Array:
    assert 0 <= vl <= len(x), f"vl {vl} beyond the capacity {len(x)}"
    if x.dtype.kind == "b":
        x[vl:] = True
    elif not numeric.is_float(x):
        x[vl:] = 5 if x.dtype.name == "int4" else 0x5A
    else:
        x[vl:] = np.nan
    return x
