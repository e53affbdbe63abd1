"""What the commands' arguments say: files, dims, scalars, machines, passes and kernels, each checked with an error of its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rvgpu.errors import EXIT_SIM_FAULT, EXIT_USAGE, Loc, RvgpuError, did_you_mean
from rvgpu.frontend.build import parse_text
from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.types import DType, TensorType
from rvgpu.isa.machine import Machine, load_machine
from rvgpu.passes.pipeline import PIPELINE, Pass, parse_passes
from rvgpu.runtime.kernel import MOST, Compiled, Kernel, read_text
from rvgpu.runtime.launch import size_bytes
from rvgpu.sim.device import MEMORY_BYTES

Args = argparse.Namespace


def usage(message: str, code: str = "E002") -> RvgpuError:
    return RvgpuError(code, message, exit_code=EXIT_USAGE)


def pairs(items: Iterable[str], what: str) -> dict[str, str]:
    """["a=1"] to {"a": "1"}."""
    out = {}
    for item in items:
        key, sep, value = item.partition("=")
        if not sep or not key:
            raise usage(f"{what} {item}: write name=value")
        out[key] = value
    return out


def dim_values(items: Iterable[str]) -> dict[str, int]:
    out = {}
    for key, value in pairs(items, "-D").items():
        if not (value.isascii() and value.isdigit() and int(value) < MOST):
            raise usage(f"-D {key}={value}: a dim is an integer of at least 0, below 2**31")
        out[key] = int(value)
    return out


def known(names: Iterable[str], among: Iterable[str], what: str, code: str) -> None:
    """Every name is one of them, or a usage error."""
    among = list(among)
    for name in names:
        if name not in among:
            near = did_you_mean(name, among)
            raise usage(f"no {what} {name} here", code).hint(f"did you mean {near}?" if near else f"known: {', '.join(among) or 'none'}")


def scalar_values(items: Iterable[str]) -> dict[str, float]:
    out = {}
    for key, value in pairs(items, "--arg").items():
        try:
            out[key] = float(value)
        except ValueError:
            raise usage(f"--arg {key}={value}: a number needed") from None
    return out


def machine_of(args: Args) -> Machine:
    return load_machine(args.machine, pairs(args.set, "--set"))


def passes_of(args: Args, own: Sequence[Pass] = PIPELINE) -> list[Pass]:
    """--passes, else the kernel's own, cut after --stop-after."""
    passes = parse_passes(args.passes) if args.passes is not None else list(own)
    if args.stop_after is not None:
        names = [p.name for p in passes]
        if args.stop_after not in names:
            raise usage(f"--stop-after {args.stop_after}: the passes are {', '.join(names)}", "E311")
        passes = passes[:names.index(args.stop_after) + 1]
    if getattr(args, "print_after", None) not in (None, "all"):
        known([args.print_after], [p.name for p in passes], "pass", "E311")
    return passes


def read_bytes(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as e:
        raise RvgpuError("E001", f"cannot read {path}: {e.strerror}", exit_code=EXIT_USAGE) from None


def source(path: str) -> tuple[str, str]:
    """A text and its name in messages."""
    if path != "-":
        return read_text(path), path
    try:
        return read_bytes(path).decode(), "<stdin>"
    except UnicodeDecodeError:
        raise usage("cannot read stdin: it is not UTF-8 text", "E001") from None


def place(path: str) -> None:
    """Tells before long work that a file cannot be written there."""
    if Path(path).is_dir() or not Path(path).parent.is_dir():
        raise usage(f"cannot write {path}: {'it is a folder' if Path(path).is_dir() else 'there is no such folder'}", "E001")


def write(path: str | None, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    if path in (None, "-"):
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        Path(path).write_bytes(data)
    except OSError as e:
        raise RvgpuError("E001", f"cannot write {path}: {e.strerror}", exit_code=EXIT_USAGE) from None


def kernel_of(args: Args) -> Kernel:
    """The kernel that FILE and --kernel name."""
    dtypes = pairs(args.dtype, "--dtype")
    if args.file.endswith((".tile", ".tensor")):
        raise usage(f"{args.file} is IR text, a kernel of the language is needed").hint("rvgpu opt runs passes over it, rvgpu run runs a .tile")
    try:
        found: dict[str, Any] = _python_kernels(args.file) if args.file.endswith(".py") else parse_text(*source(args.file))
    except RecursionError:
        raise _too_deep(args.file) from None
    if not found:
        raise usage(f"{args.file} has no kernel", "E003")
    name = args.kernel or (next(iter(found)) if len(found) == 1 else None)
    if name is None:
        raise usage(f"{args.file} has several kernels", "E003").hint(f"--kernel {' | '.join(found)}")
    if name not in found:
        near = did_you_mean(name, found)
        raise usage(f"{args.file} has no kernel {name}", "E003").hint(f"did you mean {near}?" if near else f"kernels: {', '.join(found)}")
    try:
        kernel = found[name] if isinstance(found[name], Kernel) else Kernel(found[name])
        for old in dtypes:
            if old in DType.__members__ and DType[old] not in (here := kernel.func.dtypes()):
                raise usage(f"--dtype {old}={dtypes[old]}: kernel {name} has no {old}").hint(f"it has {', '.join(sorted(map(str, here)))}")
        return kernel.with_dtypes(**dtypes) if dtypes else kernel
    except RecursionError:
        raise _too_deep(args.file) from None


def compiled_of(args: Args, kernel: Kernel, machine: Machine, passes: list[Pass]) -> Compiled:
    compiled = Compiled(kernel, machine, {}, passes)
    compiled.tuning = args.tune or compiled.tuning
    return compiled


def _too_deep(path: str) -> RvgpuError:
    return RvgpuError("E005", f"an expression of {path} is nested too deeply to be read").hint("give parts of it names")


def _python_kernels(path: str) -> dict[str, Kernel]:
    import runpy

    lines = read_text(path).splitlines()

    def failed(e: BaseException, line: int) -> RvgpuError:
        text = lines[line - 1] if 0 < line <= len(lines) else ""
        indent = len(text) - len(text.lstrip())
        return RvgpuError("E004", f"running {path}: {type(e).__name__}: {e.msg if isinstance(e, SyntaxError) else e}",
                          Loc(path, max(line, 1), indent + 1, len(text.strip()), text))

    try:
        found = runpy.run_path(path, run_name="rvgpu_kernels")
    except (RvgpuError, KeyboardInterrupt):
        raise
    except SyntaxError as e:
        raise failed(e, (e.lineno or 1) if e.filename == path else _line_in(path, e)) from None
    except BaseException as e:  # the user's program, which may also exit
        if os.environ.get("RVGPU_DEBUG"):
            raise
        raise failed(e, _line_in(path, e)) from None
    return {n: v for n, v in found.items() if isinstance(v, Kernel)}


def _line_in(path: str, e: BaseException) -> int:
    """The last line of the file on the way to the exception."""
    import traceback

    return next((f.lineno or 1 for f in reversed(traceback.extract_tb(e.__traceback__)) if f.filename == path), 1)


def arrays_of(files: Sequence[str], tensors: Mapping[str, TensorType]) -> dict[str, Any]:
    """The .npy files of --in, one per tensor. NumPy writes dtypes that it does not know (bf16, fp8, i4) as raw bytes: those are taken as meant."""
    import numpy as np

    if len(files) != len(tensors):
        raise usage(f"--in needs {len(tensors)} files ({', '.join(tensors)}), {len(files)} given", "E205")
    out = {}
    for f, (name, t) in zip(files, tensors.items(), strict=True):
        try:
            x = np.load(f, allow_pickle=False)
        except (OSError, ValueError, EOFError) as e:
            raise usage(f"cannot read {f}: {isinstance(e, OSError) and e.strerror or 'it is no .npy file'}", "E001") from None
        if not isinstance(x, np.ndarray):
            raise usage(f"cannot read {f}: it is an archive of arrays, not a .npy file", "E001")
        want = numpy_dtype(t.dtype)
        if x.dtype.kind == "V" and want.kind == "V" and x.dtype.names is None and x.dtype.itemsize == want.itemsize:
            x = x.view(want)
        out[name] = x
    return out


def fits(shapes: Mapping[str, TensorType], binding: Mapping[str, int]) -> None:
    """Before arrays are made: the device's memory holds them."""
    for name, t in shapes.items():
        if size_bytes(t, binding) > MEMORY_BYTES:
            raise RvgpuError("E606", f"{name} is {size_bytes(t, binding)} bytes, the device has {MEMORY_BYTES}", exit_code=EXIT_SIM_FAULT)
