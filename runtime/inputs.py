"""Random arguments for a kernel, from a seed: what `rvgpu run` uses when no files are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rvgpu.ir.core import Func
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
    return [random_tensor(rng, p.value.tensor, binding) for p in func.params if not p.keyword]


def random_scalars(func: Func, binding: Mapping[str, int]) -> dict[str, float]:
    """The scalars that have no default and a customary value: scale = D ** -0.5."""
    wanted = any(p.keyword and p.name == "scale" and p.default is None for p in func.params)
    return {"scale": binding["D"] ** -0.5} if wanted and "D" in binding else {}
