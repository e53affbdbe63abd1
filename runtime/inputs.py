"""Random arguments for a kernel, from a seed: what `rvgpu run` uses when no files are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rvgpu.ir.core import Func, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.types import TensorType


def random_tensor(rng: np.random.Generator, t: TensorType, binding: Mapping[str, int]) -> Any:
    """Normal floats, small integers, fair coins."""
    shape = [d.value(binding) for d in t.dims]
    if t.dtype.is_float:
        x: Any = rng.standard_normal(shape, dtype=np.float32)
    elif t.dtype.kind == "b":
        x = rng.integers(0, 2, shape)
    else:
        x = rng.integers(0 if t.dtype.kind == "u" else -8, 8, shape)
    return x.astype(numpy_dtype(t.dtype))


def random_inputs(func: Func, binding: Mapping[str, int], seed: int = 0) -> list[Any]:
    """One array per tensor parameter."""
    rng = np.random.default_rng(seed)
    out = []
    for p in func.params:
        if not p.keyword:
            x, most = random_tensor(rng, p.value.tensor, binding), _positions(func, p.value, binding)
            out.append(rng.integers(0, max(1, most), x.shape).astype(x.dtype) if most is not None else x)
    return out


def _positions(func: Func, v: Value, binding: Mapping[str, int]) -> int | None:
    """The extent that v holds positions of: it is what a `take` looks up; None for other values."""
    found = []
    for op in func.body.ops:
        dim = op.attrs.get("dim")
        if op.name == "take" and op.operands[1] is v and isinstance(dim, Dim):
            found.append(dim.value(binding))
    return min(found, default=None)


def random_scalars(func: Func, binding: Mapping[str, int]) -> dict[str, float]:
    """The scalars that have no default and a customary value: scale = D ** -0.5."""
    wanted = any(p.keyword and p.name == "scale" and p.default is None for p in func.params)
    return {"scale": binding["D"] ** -0.5} if wanted and "D" in binding else {}
