"""What identifies a kernel's tiling where it is kept: the function without its names, the machine, the dims, and the code that was measured.

Nothing here decides numbers: a tiling moves cycles and never bytes, so a stale or colliding entry costs time at most.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from rvgpu.ir.core import Func
from rvgpu.ir.text import print_func
from rvgpu.ir.tile_build import KFunc

DIGITS = 16  # of a SHA-256 in hexadecimal: 64 bits


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def anonymous(func: Func) -> str:
    """The function's text with its own names (function, parameters, results, dims) replaced by numbers: equal math has equal text."""
    return _numbered(print_func(func, locs=False, hints=False), [func.name, *func.dim_names(), *(p.name for p in func.params), *func.result_names])


def fingerprint(kernel: KFunc) -> str:
    """Of a kernel as P7 leaves it, without its names."""
    names = [kernel.name, *kernel.dims, *(t.name for t in kernel.tensors), *(n for n, _ in kernel.scalars)]
    return digest(_numbered(print_func(kernel, locs=False, hints=False), names))


def _numbered(text: str, names: Iterable[str]) -> str:
    number = {n: f"n{i}" for i, n in enumerate(dict.fromkeys(names))}
    text = text.replace("] x ", "]*")  # of types: no name
    return re.sub(r"[A-Za-z_][A-Za-z0-9_.]*", lambda m: number.get(m[0], m[0]), text)
