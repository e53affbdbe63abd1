"""Large functions are evaluated in slabs along dims that no op looks across, so that intermediates stay small.

Attention over [B,G,R,S,T] scores goes group by group (S and T are used by the mask and the sums; B, G and R by
nothing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rvgpu.ir.core import Attr, Func
from rvgpu.ir.dims import Dim, is_bound
from rvgpu.ir.numeric import Array

LIMIT = 1 << 24  # elements of the largest intermediate
Run = Callable[[list[Array], dict[str, int]], list[Array]]


def free_dims(func: Func) -> list[str]:
    """Names that occur as plain dims only and in no attribute: no op looks across them."""
    used: set[str] = set()

    def note(x: Attr) -> None:
        if isinstance(x, Dim):
            used.update(x.names)
        elif isinstance(x, tuple):
            for y in x:
                note(y)

    for op in func.body.walk():
        for value in op.attrs.values():
            note(value)
        for t in (r.tensor for r in op.results):
            used.update(n for d in t.dims if d.name is None for n in d.names)
    for p in func.params:
        used.update(n for d in p.value.tensor.dims if d.name is None for n in d.names)
    return [n for n in func.dim_names() if n not in used]


def by_slabs(func: Func, arrays: list[Array], dims: Mapping[str, int], run: Run, limit: int = LIMIT) -> list[Array]:
    """`run(arrays, dims)` gives one array per result (or several sets of them in a row); slab by slab when it is
    large."""
    types = [r.tensor for op in func.body.walk() for r in op.results]
    bound = [t.dims for t in types if all(is_bound(n, dims) for d in t.dims for n in d.names)]
    largest = max((math.prod(d.value(dims) for d in ds) for ds in bound), default=0)
    name = max(free_dims(func), key=lambda n: dims[n], default=None) if largest > limit else None
    if name is None or dims[name] < 2:
        return run(arrays, dict(dims))
    extent, dim = dims[name], Dim.of(name)
    step = max(1, extent * limit // largest)
    inputs = [p.value.tensor.dims for p in func.params if not p.keyword]
    parts: list[list[Array]] = []
    for start in range(0, extent, step):
        stop = min(start + step, extent)
        part = [_cut(x, d, dim, start, stop) for x, d in zip(arrays, inputs, strict=True)]
        parts.append(by_slabs(func, part, {**dims, name: stop - start}, run, limit))
    out = []
    for n, slabs in enumerate(zip(*parts, strict=True)):
        result = func.result_types[n % len(func.result_types)].dims
        out.append(np.concatenate(slabs, axis=result.index(dim)) if dim in result else slabs[0])
    return out


def _cut(x: Array, dims: Sequence[Dim], dim: Dim, start: int, stop: int) -> Array:
    return x[tuple(slice(start, stop) if d == dim else slice(None) for d in dims)]
