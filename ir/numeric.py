"""dtypes in NumPy: memory forms, rounding to a dtype as the machine does it, and the sizes of rounding errors.

Rounding is to nearest even; fp8 saturates, f16/bf16/f32 overflow to infinity; float to integer truncates towards zero
and saturates (NaN gives the largest integer, as RVV's vfcvt.rtz does); integers wrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from rvgpu.ir.types import DType

Array = np.ndarray[Any, np.dtype[Any]]

SMALL = frozenset({DType.bf16, DType.e4m3, DType.e5m2, DType.i4})  # from ml_dtypes
# significand bits
PRECISION = {DType.f64: 53, DType.f32: 24, DType.f16: 11, DType.bf16: 8, DType.e4m3: 4, DType.e5m2: 3}
MIN_EXPONENT = {DType.f64: -1022, DType.f32: -126, DType.f16: -14, DType.bf16: -126, DType.e4m3: -6, DType.e5m2: -14}
LARGEST = {DType.f64: float(np.finfo(np.float64).max), DType.f32: float(np.finfo(np.float32).max), DType.f16: 65504.0,
           DType.bf16: float.fromhex("0x1.fep127"), DType.e4m3: 448.0, DType.e5m2: 57344.0}
SATURATING = frozenset({DType.e4m3, DType.e5m2})


@cache
def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """The NumPy dtype of a dtype's memory form (bf16, fp8 and i4 from ml_dtypes)."""
    if dtype in SMALL:
        import ml_dtypes

        names = {DType.bf16: "bfloat16", DType.e4m3: "float8_e4m3fn", DType.e5m2: "float8_e5m2", DType.i4: "int4"}
        small: np.dtype[Any] = np.dtype(getattr(ml_dtypes, names[dtype]))
        return small
    full = {DType.i1: "bool", DType.u8: "uint8"}
    return np.dtype(full.get(dtype) or dtype.name.replace("i", "int").replace("f", "float"))


def packed(x: Array) -> Array:
    """An array as memory holds it: int4 two to a byte, the low four bits first, each row padded to a byte; others as they are."""
    if x.dtype.name != "int4":
        return x
    digits = x.astype(np.int8).view(np.uint8) & 15
    if digits.shape[-1] % 2:
        digits = np.concatenate([digits, np.zeros_like(digits[..., :1])], axis=-1)
    return np.ascontiguousarray(digits[..., ::2] | digits[..., 1::2] << 4).view(np.int8)


def unpacked(x: bytes, shape: Sequence[int], dtype: DType) -> Array:
    """An array from the memory that `packed` describes."""
    if dtype is not DType.i4:
        return np.frombuffer(x, numpy_dtype(dtype)).reshape(shape)
    pairs = np.frombuffer(x, np.int8).reshape(*shape[:-1], -1 if all(shape[:-1]) else 0)
    digits = np.stack([pairs << 4 >> 4, pairs >> 4], axis=-1).reshape(*shape[:-1], 2 * pairs.shape[-1])
    return np.ascontiguousarray(digits[..., :shape[-1]]).astype(numpy_dtype(dtype))


def size_bytes(shape: Sequence[int], dtype: DType) -> int:
    """Bytes in memory."""
    if dtype is DType.i4 and shape:
        return math.prod(shape[:-1]) * (-(-shape[-1] // 2))
    return math.prod(shape) * numpy_dtype(dtype).itemsize


def is_float(x: Array) -> bool:
    """NumPy's own floats and ml_dtypes' (whose kind is "V" or "f"; int4's too, so its name decides)."""
    return x.dtype.kind in "fV" and not x.dtype.name.startswith(("int", "uint"))


def widen(x: Array, to: Any = np.float64) -> Array:
    """Narrow floats as `to`, int4 as int8, all else as it is."""
    if x.dtype.name == "int4":
        return x.astype(np.int8)
    return x.astype(to) if is_float(x) and x.dtype not in (to, np.float64) else x


def to_integer(x: Array, dtype: DType) -> Array:
    """A float array to an integer dtype: truncated, saturated, NaN to the largest."""
    low, high = integer_range(dtype)
    t = np.trunc(x.astype(np.float64))
    out = np.clip(np.where(np.isnan(t), high, t), low, high)
    if dtype is DType.i64:  # float64 has no 2^63 - 1
        return np.where(out >= 2.0**63, high, np.where(out >= 2.0**63, 0.0, out).astype(np.int64))
    return out.astype(np.int64).astype(numpy_dtype(dtype))


def integer_range(dtype: DType) -> tuple[int, int]:
    if dtype.kind == "u":
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


def neutral(kind: str, dtype: DType) -> float:
    """What a reduction starts from."""
    low, high = (-math.inf, math.inf) if dtype.is_float else integer_range(dtype)
    return {"sum": 0.0 if dtype.is_float else 0, "max": low, "min": high}[kind]


def round_to(x: Array, dtype: DType) -> Array:
    """x as `dtype` holds it, in its memory form."""
    target = numpy_dtype(dtype)
    if x.dtype == target:
        return x
    with np.errstate(all="ignore"):
        if dtype is DType.i1:
            return np.asarray(x != 0)
        if dtype.is_float:
            if x.dtype == np.float64 and dtype in SMALL:
                x = _to_odd_f32(x)
            if dtype in SATURATING:
                x = np.clip(widen(x, np.float32), -LARGEST[dtype], LARGEST[dtype])
            return x.astype(target)
        if is_float(x):
            return to_integer(x, dtype)
        if dtype is DType.i4:
            return (((x.astype(np.int64) & 15) ^ 8) - 8).astype(np.int8).astype(target)
        return widen(x).astype(target)


def _to_odd_f32(x: Array) -> Array:
    """float64 to float32 rounded to odd, so that a further rounding to 8 bits or fewer is the correct one."""
    y = np.atleast_1d(x.astype(np.float32))
    wide = np.atleast_1d(x)
    bits = y.view(np.uint32)
    inexact = (y != wide) & np.isfinite(y) & ((bits & 1) == 0)
    if inexact.any():
        towards = np.where(y < wide, np.float32(np.inf), np.float32(-np.inf))
        y = np.where(inexact, np.nextafter(y, towards), y)
    return y.reshape(x.shape)


def limit(v: Array, dtype: DType) -> Array:
    """A float64 array within `dtype`'s range: overflow to infinity (fp8: saturation). May write into v."""
    if dtype is DType.f64 or not dtype.is_float or v.size == 0:
        return v
    edge = overflow_edge(dtype)
    if v.max() < edge and v.min() > -edge:  # False when there are NaNs
        return v
    if dtype in SATURATING:
        return np.clip(v, -LARGEST[dtype], LARGEST[dtype])
    return np.where(v >= edge, np.inf, np.where(v <= -edge, -np.inf, v))


def overflow_edge(dtype: DType) -> float:
    """The least magnitude that rounds beyond the largest finite value: max + half an ulp."""
    top = LARGEST[dtype]
    if dtype is DType.f64:
        return math.inf
    return top if dtype in SATURATING else top + 2.0 ** (math.frexp(top)[1] - PRECISION[dtype] - 1)


def unit(dtype: DType) -> float:
    """Unit roundoff u = 2^-p; 0 for integers. f32 has u = 2^-24."""
    return 2.0 ** -PRECISION[dtype] if dtype.is_float else 0.0


def gamma(n: int, dtype: DType) -> float:
    """gamma_n = n u / (1 - n u): the relative error of a sum of n terms added in any order (Higham, ch. 3)."""
    x = n * unit(dtype)
    return x / (1 - x) if x < 0.5 else math.inf


def half_ulp(magnitude: Array, dtype: DType) -> Array:
    """Half a unit in the last place of `dtype` at the given magnitudes (>= 0); 0 at 0. f32 at 1.0 gives 2^-24."""
    if not dtype.is_float:
        return np.zeros(())
    if dtype is DType.f64:
        return np.spacing(magnitude) / 2
    with np.errstate(all="ignore"):
        ulp = np.spacing(np.minimum(magnitude, 2.0**127).astype(np.float32)).astype(np.float64)
    least = 2.0 ** (MIN_EXPONENT[dtype] - PRECISION[dtype] + 1)
    out = np.maximum(ulp * 2.0 ** (24 - PRECISION[dtype]), least) * 0.5
    return np.where(magnitude == 0, 0.0, out)


def _through_math(fn: Callable[[float], float]) -> Callable[[Array], Array]:
    def apply(x: Array) -> Array:
        flat = np.asarray(x, np.float64).ravel()
        return np.fromiter(map(fn, flat.tolist()), np.float64, flat.size).reshape(np.shape(x))
    return apply


erf = _through_math(math.erf)
erfc = _through_math(math.erfc)
