"""dtypes and the types of both IR levels: tensors with named dims; tiles, buffers, matrix accumulators and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from rvgpu.ir.dims import Dim


class DType(Enum):
    """name, bits in memory, kind (f float, i signed, u unsigned, b boolean)."""

    f64 = ("f64", 64, "f")
    f32 = ("f32", 32, "f")
    f16 = ("f16", 16, "f")
    bf16 = ("bf16", 16, "f")
    e4m3 = ("e4m3", 8, "f")
    e5m2 = ("e5m2", 8, "f")
    i64 = ("i64", 64, "i")
    i32 = ("i32", 32, "i")
    i16 = ("i16", 16, "i")
    i8 = ("i8", 8, "i")
    u8 = ("u8", 8, "u")
    i4 = ("i4", 4, "i")
    i1 = ("i1", 8, "b")  # a byte in memory

    @property
    def bits(self) -> int:
        return int(self.value[1])

    @property
    def kind(self) -> str:
        return str(self.value[2])

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class TensorType:
    """Level T: `tensor<[B,2*F] x bf16>`; no dims is a scalar. Dims are distinct forms; their order is semantic only at
    arguments and results (storage order)."""

    dims: tuple[Dim, ...]
    dtype: DType

    def __str__(self) -> str:
        return f"tensor<[{','.join(map(str, self.dims))}] x {self.dtype}>"


@dataclass(frozen=True)
class IdxType:
    """Level K: a 64-bit signed integer scalar used for index arithmetic (uniform over a warp)."""

    def __str__(self) -> str:
        return "idx"


@dataclass(frozen=True)
class ScalarType:
    """Level K: a warp-uniform scalar value (f32, i32, i1...)."""

    dtype: DType

    def __str__(self) -> str:
        return str(self.dtype)


@dataclass(frozen=True)
class VecType:
    """Level K: `vt<64 x f32>`: one row of `lanes` elements in vector registers. `lanes` is the *capacity* (a
    compile-time bound used to pick LMUL); how many lanes are live is the `vl` operand of the op that made it."""

    lanes: int
    dtype: DType

    def __str__(self) -> str:
        return f"vt<{self.lanes} x {self.dtype}>"


@dataclass(frozen=True)
class MemType:
    """Level K: a buffer in `dram` or `spm` with `rank` dims of `dtype`. Extents and strides are operands of the op that
    makes it (`mem.arg`, `spm.alloc`), so any of them may be dynamic."""

    space: str
    rank: int
    dtype: DType

    def __str__(self) -> str:
        return f"mem<{self.space}, {self.rank} x {self.dtype}>"


@dataclass(frozen=True)
class AccType:
    """Level K: a matrix accumulator tile, TE x TE of a 32-bit dtype, mutable; at most four live per warp."""

    dtype: DType

    def __str__(self) -> str:
        return f"acc<{self.dtype}>"


@dataclass(frozen=True)
class OpndType:
    """Level K: a matrix operand group: `k` rows (the unit's KMAX for the dtype) of TE elements in vector registers."""

    k: int
    dtype: DType

    def __str__(self) -> str:
        return f"opnd<{self.k} x {self.dtype}>"


@dataclass(frozen=True)
class TokType:
    """Level K: a DMA transfer's token (the warp's transfer count)."""

    def __str__(self) -> str:
        return "tok"


Type = TensorType | IdxType | ScalarType | VecType | MemType | AccType | OpndType | TokType
