"""What identifies a kernel's tiling where it is kept: the function without its names, the machine, the dims' bucket, and the code it became.

Nothing here decides numbers: a tiling moves cycles and never bytes, so a stale or colliding entry costs time at most.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from rvgpu.ir.core import Func
from rvgpu.ir.text import print_func
from rvgpu.ir.tile_build import KFunc

DIGITS = 16  # of a SHA-256 in hexadecimal: 64 bits


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def shape_class(func: Func, exact: Mapping[str, int], upper: Mapping[str, int]) -> str:
    """The dims in order: `=4096` compiled in, `<1024` a bucket."""
    return " ".join(f"={exact[n]}" if n in exact else f"<{upper.get(n, 0)}" for n in func.dim_names())


def anonymous(func: Func) -> str:
    """The function's text with its own names (function, parameters, results, dims) replaced by numbers: equal math has equal text."""
    names = [func.name, *func.dim_names(), *(p.name for p in func.params), *func.result_names]
    number = {n: f"n{i}" for i, n in enumerate(dict.fromkeys(names))}
    text = re.sub(r' file "[^"]*"', "", print_func(func, locs=False, hints=False))
    return re.sub(r"[A-Za-z_][A-Za-z0-9_.]*", lambda m: number.get(m[0], m[0]), text)


def key(func: Func, machine: str, exact: Mapping[str, int], upper: Mapping[str, int]) -> str:
    """Of a function before P7; `machine` is all of its text but the name."""
    return digest("\n".join([anonymous(func), machine, shape_class(func, exact, upper)]))


def fingerprint(kernel: KFunc) -> str:
    """Of a kernel as P7 leaves it, without its names."""
    text = print_func(kernel, locs=False, hints=False)
    names = dict.fromkeys([kernel.name, *kernel.dims, *(t.name for t in kernel.tensors), *(n for n, _ in kernel.scalars)])
    number = {n: f"n{i}" for i, n in enumerate(names)}
    return digest(re.sub(r"[A-Za-z_][A-Za-z0-9_.]*", lambda m: number.get(m[0], m[0]), text))
