"""What kernels written as Python functions import: dtypes that annotations can subscript, and the language's functions.

The functions have no meaning outside a kernel; calling one says so.
"""

from __future__ import annotations

from typing import Any

inf = float("inf")


class DimName:
    """A dim in an annotation: arithmetic on dims gives a dim."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __add__(self, other: object) -> DimName:
        return self

    __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __add__

    def __repr__(self) -> str:
        return self.name


class _Dtype:
    def __init__(self, name: str) -> None:
        self.name = name

    def __getitem__(self, dims: object) -> Any:
        return self

    def __call__(self, *args: object, **kw: object) -> Any:
        raise TypeError(f"{self.name} is part of the kernel language: it has a meaning only inside @rv.kernel")

    def __repr__(self) -> str:
        return self.name


_DTYPES = ("f64", "f32", "f16", "bf16", "e4m3", "e5m2", "i32", "i16", "i8", "u8", "i4", "i1")
_FUNCTIONS = ("exp exp2 log log2 sqrt rsqrt tanh erf sigmoid silu gelu relu abs maximum minimum where clamp floor round sum amax amin mean var "
              "softmax logsumexp argmax iota size rename split concat slice pad take dot").split()
__all__ = ["inf", *_DTYPES, *_FUNCTIONS]
for _name in (*_DTYPES, *_FUNCTIONS):
    globals()[_name] = _Dtype(_name)


def __getattr__(name: str) -> Any:  # tells type checkers that the names above exist
    raise AttributeError(name)
