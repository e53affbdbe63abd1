"""Compiled code as values: what a launch of each kernel needs, the launch note of an ELF, and the disk cache.

The note and the cache hold the same JSON: names, dtypes, dim forms, scratchpad bytes, VLEN and TE. An executable with the note can be run by
anyone who has only the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rvgpu.cache import cache_folder, read_entry, source_hash, write_entry
from rvgpu.codegen_rvgpu.llvm_ops import emit_llvm
from rvgpu.codegen_rvgpu.worker import WORKER
from rvgpu.errors import RvgpuError
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType, TensorType
from rvgpu.isa.machine import Machine
from rvgpu.passes.pipeline import Unit, temporaries
from rvgpu.sim.elf import Image, link, write_executable


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: DType
    dims: tuple[Dim, ...]
    output: bool


@dataclass
class LaunchCode:
    """One kernel: its arguments in ABI order and its code (empty when only an ELF is at hand)."""

    name: str
    tensors: list[Tensor]
    scalars: list[tuple[str, DType]]
    dims: list[str]
    spm_bytes: int
    object: bytes = b""
    asm: str = ""
    llvm: str = ""


@dataclass
class Code:
    """Kernels in launch order; `temps` are workspace tensors between them."""

    kernels: list[LaunchCode]
    temps: dict[str, TensorType]
    vlen: int
    te: int
    compile_s: float = field(default=0.0, compare=False)

    def inputs(self) -> dict[str, TensorType]:
        """Tensors that the caller gives, in order of first use."""
        return {t.name: TensorType(t.dims, t.dtype) for k in self.kernels for t in k.tensors if not t.output and t.name not in self.temps}

    def results(self) -> dict[str, TensorType]:
        return {t.name: TensorType(t.dims, t.dtype) for k in self.kernels for t in k.tensors if t.output and t.name not in self.temps}

    def scalars(self) -> dict[str, DType]:
        return {n: d for k in self.kernels for n, d in k.scalars}

    def image(self) -> Image:
        return link([k.object for k in self.kernels])

    def elf(self) -> bytes:
        """A static executable with the launch note."""
        return write_executable(self.image(), json.dumps(_describe(self)).encode())


LOWERED_BY = {"grid.work": "grid", "pipe": "pipeline", "spm.alloc": "stage"}  # what code generation never sees, and the pass that it waits for


def make_code(units: Sequence[Unit], machine: Machine) -> Code:
    """Level K kernels to machine code, through LLVM in the worker."""
    kernels = []
    for kf in units:
        if not isinstance(kf, KFunc):
            raise RvgpuError("E312", f"{kf.name} is still at the tensor level: code needs the whole pipeline", kf.loc)
        for op in kf.body.walk():
            if (left := LOWERED_BY.get(op.name)) and not (op.name == "spm.alloc" and "offset_bytes" in op.attrs):
                raise RvgpuError("E312", f"{kf.name} still has {op.name}: code needs the pass {left}", op.loc or kf.loc)
        if (kf.vlen, kf.te) != (machine.vector.vlen, machine.matrix.te):
            raise RvgpuError("E313", f"{kf.name} is for VLEN {kf.vlen} and TE {kf.te}, {machine.name} has {machine.vector.vlen} and "
                             f"{machine.matrix.te}", kf.loc)
        text = emit_llvm(kf, has_exp=machine.exp.present)
        made = WORKER.compile(text, machine.vector.vlen)
        tensors = [Tensor(t.name, t.dtype, t.dims, t.output) for t in kf.tensors]
        kernels.append(LaunchCode(kf.name, tensors, list(kf.scalars), list(kf.dims), kf.spm_bytes, made.object, made.asm, text))
    return Code(kernels, temporaries(units), machine.vector.vlen, machine.matrix.te)


# -- JSON

def _dims(dims: tuple[Dim, ...]) -> list[Any]:
    return [[list(map(list, d.terms)), d.const] for d in dims]


def _undims(raw: list[Any]) -> tuple[Dim, ...]:
    return tuple(Dim(tuple((str(n), int(c)) for n, c in terms), int(const)) for terms, const in raw)


def _describe(code: Code) -> dict[str, Any]:
    return {"version": 1, "vlen": code.vlen, "te": code.te, "temps": {n: [_dims(t.dims), t.dtype.name] for n, t in code.temps.items()},
            "kernels": [{"name": k.name, "tensors": [[t.name, t.dtype.name, _dims(t.dims), t.output] for t in k.tensors],
                         "scalars": [[n, t.name] for n, t in k.scalars], "dims": k.dims, "scratchpad_bytes": k.spm_bytes} for k in code.kernels]}


def read_note(note: bytes) -> Code:
    """The launch note of an ELF; E610 when it is not what we write."""
    try:
        return _undescribe(json.loads(note))
    except (ValueError, KeyError, TypeError, IndexError) as e:
        raise RvgpuError("E610", f"malformed .rvgpu.launch note: {type(e).__name__} {e}") from None


def _undescribe(raw: Mapping[str, Any]) -> Code:
    kernels = [LaunchCode(str(k["name"]), [Tensor(str(n), DType[t], _undims(d), bool(o)) for n, t, d, o in k["tensors"]],
                          [(str(n), DType[t]) for n, t in k["scalars"]], [str(d) for d in k["dims"]], int(k["scratchpad_bytes"]))
               for k in raw["kernels"]]
    return Code(kernels, {n: TensorType(_undims(d), DType[t]) for n, (d, t) in raw["temps"].items()}, int(raw["vlen"]), int(raw["te"]))


# -- the cache

def cached(key: Sequence[Any]) -> tuple[Path, Code | None]:
    """Where code under this key (any JSON) is kept, and the code if it is there and whole."""
    digest = hashlib.sha256(json.dumps([source_hash("frontend", "ir", "passes", "codegen_rvgpu"), *key]).encode()).hexdigest()
    path = cache_folder() / f"kernel-{digest}"
    body = read_entry(path)
    if body is None:
        return path, None
    raw = json.loads(body)
    code = _undescribe(raw)
    for k, (obj, asm, llvm) in zip(code.kernels, raw["code"], strict=True):
        k.object, k.asm, k.llvm = bytes.fromhex(obj), asm, llvm
    return path, code


def write_cache(path: Path, code: Code) -> None:
    write_entry(path, json.dumps({**_describe(code), "code": [[k.object.hex(), k.asm, k.llvm] for k in code.kernels]}).encode())
