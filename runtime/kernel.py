"""Kernels in Python: compile for a machine, run on the simulator, compare with float64."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import struct
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rvgpu.codegen_rvgpu.llvm_ops import emit_llvm
from rvgpu.codegen_rvgpu.worker import WORKER
from rvgpu.errors import RvgpuError
from rvgpu.frontend.build import Kernel as Parsed
from rvgpu.frontend.build import lower, parse_text
from rvgpu.ir.binding import bind
from rvgpu.ir.bounds import Check, compare, reference
from rvgpu.ir.dims import Dim
from rvgpu.ir.tile_eval import numpy_dtype
from rvgpu.ir.types import DType, TensorType
from rvgpu.isa.machine import Machine, load_machine
from rvgpu.passes.pipeline import compile_program, static_dims
from rvgpu.runtime.stats import describe, statistics
from rvgpu.sim.device import Device, RunStats
from rvgpu.sim.engine import cache_folder

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class LaunchCode:
    """One compiled kernel: what a launch needs."""

    name: str
    tensors: list[tuple[str, DType, tuple[Dim, ...], bool]]
    scalars: list[tuple[str, DType]]
    dims: list[str]
    spm_bytes: int
    object: bytes
    asm: str
    llvm: str


@dataclass
class Code:
    kernels: list[LaunchCode]
    temps: dict[str, TensorType]
    compile_s: float = 0.0
    cached: bool = False


@lru_cache(maxsize=1)
def source_hash() -> str:
    """Of every file whose change may change the code: cached kernels are keyed on it."""
    h = hashlib.sha256()
    for part in ("frontend", "ir", "passes", "codegen_rvgpu"):
        for p in sorted((ROOT / part).glob("*")):
            if p.is_file() and p.suffix in (".py", ".lark"):
                h.update(p.read_bytes())
    return h.hexdigest()


def bucket(n: int) -> int:
    """The power of two at or above n: kernels are compiled per bucket."""
    return 1 << max(0, (n - 1).bit_length())


class Kernel:
    """A kernel of the language. Call it with NumPy arrays, or `compile()` and `run()` for cycles and their cause."""

    def __init__(self, parsed: Parsed, dtypes: Mapping[str, str] | None = None) -> None:
        self.parsed, self.dtypes = parsed, dict(dtypes or {})
        self.func = lower(parsed, self.dtypes)
        self.__name__ = self.func.name

    def with_dtypes(self, **dtypes: str) -> Kernel:
        """The same kernel with dtypes replaced throughout, e.g. bf16="f16"."""
        return Kernel(self.parsed, {**self.dtypes, **dtypes})

    def compile(self, machine: str | Machine = "base", *, overrides: Mapping[str, Any] | None = None, **dims: int) -> Compiled:
        m = load_machine(machine, overrides) if isinstance(machine, str) else machine
        return Compiled(self, m, dims)

    def __call__(self, *arrays: Any, **scalars: Any) -> Any:
        r = self.compile(os.environ.get("RVGPU_MACHINE", "base")).run(*arrays, **scalars)
        return r.out if len(r.outputs) == 1 else tuple(r.outputs.values())

    def reference(self, *arrays: Any, **scalars: Any) -> Any:
        """float64 without intermediate rounding."""
        inputs, given = self.arguments(arrays, scalars)
        binding = bind(self.func, {k: v.shape for k, v in inputs.items()}, {})
        out, _ = reference(self.func, inputs, given, dims=binding)
        return out[0] if len(out) == 1 else tuple(out)

    def arguments(self, arrays: tuple[Any, ...], scalars: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        tensors = [p for p in self.func.params if not p.keyword]
        if len(arrays) != len(tensors):
            raise RvgpuError("E205", f"{self.func.name} takes {len(tensors)} tensors ({', '.join(p.name for p in tensors)}), {len(arrays)} given")
        inputs = {}
        for p, a in zip(tensors, arrays, strict=True):
            x, want = np.asarray(a), numpy_dtype(p.value.tensor.dtype)
            if x.dtype != want:
                raise RvgpuError("E206", f"{p.name} is {p.value.tensor.dtype}, its argument is {x.dtype}", p.loc).hint(
                    f"convert it: {p.name}.astype({want.name!r})" + (" with ml_dtypes" if want.kind == "V" else ""))
            inputs[p.name] = np.ascontiguousarray(x)
        given = {}
        for p in self.func.params:
            if p.keyword:
                if p.name not in scalars and p.default is None:
                    raise RvgpuError("E207", f"{self.func.name} needs the scalar {p.name}=", p.loc)
                given[p.name] = scalars.get(p.name, p.default)
        unknown = set(scalars) - set(given)
        if unknown:
            raise RvgpuError("E207", f"{self.func.name} has no scalar {sorted(unknown)[0]}")
        return inputs, given


def kernel(source: str | Callable[..., Any]) -> Kernel:
    """From a decorated function or from text with one kernel."""
    if isinstance(source, str):
        found = parse_text(textwrap.dedent(source), "<text>")
        return Kernel(list(found.values())[-1])
    try:
        lines, first = inspect.getsourcelines(source)
    except OSError:
        raise RvgpuError("E106", f"the source of {source.__name__} is not in a file").hint(
            "pass the kernel as text: rv.kernel('''def ...''')") from None
    text = "".join(lines)
    indent = len(text) - len(text.lstrip())
    names = dict(source.__globals__) | {k: c.cell_contents for k, c in zip(source.__code__.co_freevars, source.__closure__ or (), strict=True)}
    names = {k: v.parsed if isinstance(v, Kernel) else v for k, v in names.items()}
    found = parse_text(textwrap.dedent(text), inspect.getsourcefile(source) or "?", first, indent, names)
    return Kernel(found[source.__name__])


def load_file(path: str) -> dict[str, Parsed]:
    """The kernels of a .rvg file."""
    try:
        text = Path(path).read_text()
    except OSError as e:
        raise RvgpuError("E001", f"cannot read {path}: {e.strerror}", exit_code=2) from None
    return parse_text(text, path)


@dataclass
class Result:
    """Outputs by name, cycles, the statistics of docs (run --json), and the check when asked for."""

    outputs: dict[str, Any]
    cycles: int
    stats: dict[str, Any]
    raw: RunStats = field(repr=False)

    @property
    def out(self) -> Any:
        return next(iter(self.outputs.values()))

    def report(self) -> str:
        return describe(self.stats)


class Compiled:
    """A kernel for one machine; code is made per bucket of the dims that are not given."""

    def __init__(self, kernel: Kernel, machine: Machine, dims: Mapping[str, int]) -> None:
        self.kernel, self.machine, self.dims = kernel, machine, dict(dims)
        unknown = set(dims) - set(kernel.func.dim_names())
        if unknown:
            raise RvgpuError("E208", f"{kernel.func.name} has no dim {sorted(unknown)[0]}", kernel.func.loc)
        self.static = static_dims(kernel.func, machine)

    def code(self, binding: Mapping[str, int]) -> Code:
        """Code that is right for these dims (and for every value of the others within their buckets); cached on disk."""
        begin = time.perf_counter()
        exact = {n: v for n, v in binding.items() if n in self.dims or n in self.static}
        upper = {n: bucket(v) for n, v in binding.items()}
        m = self.machine
        src = self.kernel.parsed.source
        key = hashlib.sha256(json.dumps([source_hash(), src.text, src.file, self.kernel.func.name, sorted(self.kernel.dtypes.items()),
                                         sorted(exact.items()), sorted(upper.items()), repr(m)]).encode()).hexdigest()
        path = cache_folder() / f"kernel-{key}"
        code = _read_cache(path)
        if code is None:
            program = compile_program(self.kernel.func, m, exact, upper)
            kernels = []
            for kf in program.kernels:
                text = emit_llvm(kf, has_exp=m.exp.present)
                made = WORKER.compile(text, m.vector.vlen)
                kernels.append(LaunchCode(kf.name, [(t.name, t.dtype, t.dims, t.output) for t in kf.tensors], kf.scalars, kf.dims, kf.spm_bytes,
                                          made.object, made.asm, text))
            code = Code(kernels, program.temps)
            _write_cache(path, code)
        code.compile_s = time.perf_counter() - begin
        return code

    def run(self, *arrays: Any, check: bool = False, max_cycles: int | None = None, timing: bool = True, **scalars: Any) -> Result:
        """Runs on the simulator with NumPy arrays in declared order."""
        begin = time.perf_counter()
        k = self.kernel
        inputs, given = k.arguments(arrays, scalars)
        binding = bind(k.func, {n: x.shape for n, x in inputs.items()}, self.dims)
        code = self.code(binding)
        started = time.perf_counter()
        dev = Device(self.machine, max_cycles=max_cycles, timing=timing)
        programs = [dev.load(c.object) for c in code.kernels]
        places: dict[str, int] = {}
        for name, x in inputs.items():
            places[name] = dev.alloc(x.nbytes, name)
            dev.write(places[name], x)
        results = {n: t for n, t in zip(k.func.result_names, k.func.result_types, strict=True)}
        for name, t in [*code.temps.items(), *results.items()]:
            size = int(np.prod([d.value(binding) for d in t.dims], dtype=np.int64)) * numpy_dtype(t.dtype).itemsize
            places[name] = dev.alloc(size, name)
        ready = time.perf_counter()
        for c, program in zip(code.kernels, programs, strict=True):
            if all(0 in [d.value(binding) for d in dims] for _, _, dims, output in c.tensors if output):
                continue
            args = [places[n] for n, *_ in c.tensors] + [0] + [_scalar(given[n], t) for n, t in c.scalars]
            args += [binding[d] for d in c.dims] + [self.machine.matrix.te]
            dev.launch(program, c.name, args, ctas=self.machine.gpu.cores, scratchpad_bytes=c.spm_bytes)
        raw = dev.finish()
        done = time.perf_counter()
        outputs = {}
        for name, t in results.items():
            shape, dt = [d.value(binding) for d in t.dims], numpy_dtype(t.dtype)
            outputs[name] = np.frombuffer(dev.read(places[name], int(np.prod(shape, dtype=np.int64)) * dt.itemsize), dt).reshape(shape)
        checks = [compare(x, v, b) for x, v, b in zip(outputs.values(), *reference(k.func, inputs, given, dims=binding), strict=True)] if check else []
        host = {"compile_s": code.compile_s, "engine_s": ready - started, "simulate_s": done - ready, "total_s": done - begin,
                "mips": raw.instructions / max(done - ready, 1e-9) / 1e6}
        stats = statistics(k.func, self.machine, binding, raw, _merged(checks), host)
        return Result(outputs, raw.cycles, stats, raw)


def _merged(checks: list[Check]) -> Check | None:
    if not checks:
        return None
    return Check(all(c.passed for c in checks), max(c.max_abs_error for c in checks), max(c.max_rel_error for c in checks),
                 max(c.bound_fraction for c in checks))


def _scalar(value: Any, dtype: DType) -> int:
    """An argument slot: float bits zero-extended, integers sign-extended."""
    if dtype == DType.f32:
        return int(struct.unpack("<I", struct.pack("<f", value))[0])
    if dtype.is_float:
        x = np.asarray(value).astype(numpy_dtype(dtype))
        return int.from_bytes(x.tobytes(), "little")
    return int(value)


def _dims(dims: tuple[Dim, ...]) -> list[Any]:
    return [[list(map(list, d.terms)), d.const] for d in dims]


def _undims(raw: list[Any]) -> tuple[Dim, ...]:
    return tuple(Dim(tuple((str(n), int(c)) for n, c in terms), const) for terms, const in raw)


def _write_cache(path: Path, code: Code) -> None:
    """Atomic: JSON with hexadecimal objects behind its SHA-256."""
    body = json.dumps({"temps": {n: [_dims(t.dims), t.dtype.name] for n, t in code.temps.items()}, "kernels": [
        {"name": c.name, "tensors": [[n, t.name, _dims(d), o] for n, t, d, o in c.tensors], "scalars": [[n, t.name] for n, t in c.scalars],
         "dims": c.dims, "spm": c.spm_bytes, "object": c.object.hex(), "asm": c.asm, "llvm": c.llvm} for c in code.kernels]}).encode()
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
        f.write(hashlib.sha256(body).digest() + body)
    os.replace(f.name, path)


def _read_cache(path: Path) -> Code | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        return None
    raw = json.loads(data[32:])
    kernels = [LaunchCode(c["name"], [(n, DType[t], _undims(d), o) for n, t, d, o in c["tensors"]], [(n, DType[t]) for n, t in c["scalars"]],
                          c["dims"], c["spm"], bytes.fromhex(c["object"]), c["asm"], c["llvm"]) for c in raw["kernels"]]
    return Code(kernels, {n: TensorType(_undims(d), DType[t]) for n, (d, t) in raw["temps"].items()}, cached=True)


