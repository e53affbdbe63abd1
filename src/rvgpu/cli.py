"""The command line: compile, run, sim-less tools. Thin: arguments in, the runtime does the work, errors and exit codes out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from rvgpu.errors import EXIT_CHECK_FAILED, EXIT_INTERNAL, EXIT_OK, EXIT_USAGE, RvgpuError

if TYPE_CHECKING:
    from rvgpu.runtime.kernel import Kernel


def _pairs(items: list[str], what: str) -> dict[str, str]:
    out = {}
    for item in items:
        key, sep, value = item.partition("=")
        if not sep:
            raise RvgpuError("E002", f"{what} {item}: write name=value", exit_code=EXIT_USAGE)
        out[key] = value
    return out


def _ints(items: list[str]) -> dict[str, int]:
    out = {}
    for key, value in _pairs(items, "-D").items():
        if not value.isdigit():
            raise RvgpuError("E002", f"-D {key}={value}: a dim is an integer of at least 0", exit_code=EXIT_USAGE)
        out[key] = int(value)
    return out


def _kernel(args: argparse.Namespace) -> Kernel:
    from rvgpu.errors import did_you_mean
    from rvgpu.runtime.kernel import Kernel, load_file

    if args.file.endswith(".py"):
        found = _python_kernels(args.file)
    else:
        found = {n: Kernel(p, _pairs(args.dtype, "--dtype")) for n, p in load_file(args.file).items() if args.kernel in (None, n)} \
            or {n: None for n in load_file(args.file)}
    name = args.kernel or (next(iter(found)) if len(found) == 1 else None)
    if name is None:
        raise RvgpuError("E003", f"{args.file} has several kernels", exit_code=EXIT_USAGE).hint(f"--kernel {' | '.join(found)}")
    if found.get(name) is None:
        error = RvgpuError("E003", f"{args.file} has no kernel {name}", exit_code=EXIT_USAGE)
        near = did_you_mean(name, found)
        raise error.hint(f"did you mean {near}?" if near else f"kernels: {', '.join(found)}")
    kernel: Kernel = found[name]
    return kernel


def _python_kernels(path: str) -> dict[str, Any]:
    import runpy

    from rvgpu.runtime.kernel import Kernel

    if not os.path.exists(path):
        raise RvgpuError("E001", f"cannot read {path}: No such file or directory", exit_code=EXIT_USAGE)
    return {n: v for n, v in runpy.run_path(path, run_name="rvgpu_kernels").items() if isinstance(v, Kernel)}


def _inputs(kernel: Kernel, binding: dict[str, int], seed: int) -> list[Any]:
    """Random tensors: normal floats, small integers, fair coins."""
    import numpy as np

    from rvgpu.ir.tile_eval import numpy_dtype

    rng = np.random.default_rng(seed)
    out = []
    for p in kernel.func.params:
        if p.keyword:
            continue
        t = p.value.tensor
        shape = [d.value(binding) for d in t.dims]
        if t.dtype.is_float:
            x: Any = rng.standard_normal(shape, dtype=np.float32)
        elif t.dtype.kind == "b":
            x = rng.integers(0, 2, shape)
        else:
            x = rng.integers(0 if t.dtype.kind == "u" else -8, 8, shape)
        out.append(x.astype(numpy_dtype(t.dtype)))
    return out


def _scalars(kernel: Kernel, args: argparse.Namespace, binding: dict[str, int]) -> dict[str, float]:
    given = {k: float(v) for k, v in _pairs(args.arg, "--arg").items()}
    for p in kernel.func.params:
        if p.keyword and p.name == "scale" and p.name not in given and p.default is None and "D" in binding:
            given[p.name] = binding["D"] ** -0.5
    return given


def run(args: argparse.Namespace) -> int:
    from rvgpu.ir.binding import bind

    kernel = _kernel(args)
    given = _ints(args.dims)
    compiled = kernel.compile(args.machine, overrides=_pairs(args.set, "--set"))
    if args.input:
        import numpy as np

        arrays = [np.load(f) for f in args.input]
        binding = bind(kernel.func, {p.name: a.shape for p, a in zip(kernel.func.params, arrays, strict=False)}, given)
    else:
        binding = bind(kernel.func, {}, given)
        arrays = _inputs(kernel, binding, args.seed)
    result = compiled.run(*arrays, check=args.check, max_cycles=args.max_cycles, **_scalars(kernel, args, binding))  # type: ignore[arg-type]
    print(json.dumps(result.stats) if args.json else result.report())
    return EXIT_CHECK_FAILED if args.check and not result.stats["check"]["passed"] else EXIT_OK


def compile_(args: argparse.Namespace) -> int:
    from rvgpu.ir.binding import bind

    kernel = _kernel(args)
    compiled = kernel.compile(args.machine, overrides=_pairs(args.set, "--set"))
    code = compiled.code(bind(kernel.func, {}, _ints(args.dims)))
    parts: list[bytes] = [c.object if args.emit == "obj" else (c.asm if args.emit == "asm" else c.llvm).encode() for c in code.kernels]
    if args.output in (None, "-"):
        for p in parts:
            sys.stdout.buffer.write(p)
        return EXIT_OK
    for n, p in enumerate(parts):
        with open(args.output if n == 0 else f"{args.output}.{n + 1}", "wb") as f:
            f.write(p)
    return EXIT_OK


def machines(args: argparse.Namespace) -> int:
    from rvgpu.isa.machine import FOLDER, load_machine, machine_names

    if args.name:
        load_machine(args.name, _pairs(args.set, "--set"))
        path = args.name if args.name.endswith(".toml") else str(FOLDER / f"{args.name}.toml")
        with open(path) as f:
            print(f.read(), end="")
        return EXIT_OK
    for name in machine_names():
        m = load_machine(name)
        print(f"{name:8} {m.gpu.cores:3} cores x {m.core.warps} warps  VLEN {m.vector.vlen}  TE {m.matrix.te}  "
              f"{m.peak_macs_per_cycle('bf16') * 2 * m.gpu.clock_ghz / 1000:.1f} Tflop/s bf16  DRAM {m.dram.bytes_per_cycle} B/cycle")
    return EXIT_OK


def disasm(args: argparse.Namespace) -> int:
    from rvgpu.isa.codec import decode, disasm
    from rvgpu.sim.elf import BASE, load

    try:
        with open(args.file, "rb") as f:
            image = load(f.read())
    except OSError as e:
        raise RvgpuError("E001", f"cannot read {args.file}: {e.strerror}", exit_code=EXIT_USAGE) from None
    names = {v: n for n, v in image.symbols.items() if not n.startswith(".")}
    at, end = image.text[0], image.text[0] + image.text[1]
    while at < end:
        if at in names:
            print(f"{names[at]}:")
        word = int.from_bytes(image.data[at - BASE:at - BASE + 4], "little")
        d = decode(word)
        size = d.size if d else (4 if word & 3 == 3 else 2)
        print(f"  {at:x}: {disasm(d, at) if d else f'.word {word:#x}'}")
        at += size
    return EXIT_OK


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="rvgpu", description="Whole-tensor math to RISC-V GPU machine code, run on a cycle-approximate simulator.")
    sub = p.add_subparsers(dest="command", required=True, metavar="command")

    def common(q: argparse.ArgumentParser) -> None:
        q.add_argument("file", help=".rvg or .py file")
        q.add_argument("--kernel", help="name of the kernel, when the file has several")
        q.add_argument("-D", dest="dims", action="append", default=[], metavar="DIM=N", help="value of a dim")
        q.add_argument("--machine", default=os.environ.get("RVGPU_MACHINE", "base"), help="shipped machine or .toml file")
        q.add_argument("--set", action="append", default=[], metavar="section.field=value", help="override a machine field")
        q.add_argument("--dtype", action="append", default=[], metavar="bf16=f16", help="replace a dtype throughout")

    q = sub.add_parser("run", help="compile, run on the simulator, report")
    common(q)
    q.add_argument("--arg", action="append", default=[], metavar="scale=0.09", help="scalar argument (scale defaults to D**-0.5)")
    q.add_argument("--in", dest="input", nargs="*", default=[], metavar="a.npy")
    q.add_argument("--seed", type=int, default=0)
    q.add_argument("--check", action="store_true", help="compare with float64 within the propagated error bound")
    q.add_argument("--max-cycles", type=int)
    q.add_argument("--json", action="store_true")
    q.set_defaults(fn=run)
    q = sub.add_parser("compile", help="print LLVM IR, assembly or an object")
    common(q)
    q.add_argument("--emit", choices=["llvm", "asm", "obj"], default="asm")
    q.add_argument("-o", dest="output")
    q.set_defaults(fn=compile_)
    q = sub.add_parser("machines", help="list machines or print one")
    q.add_argument("name", nargs="?")
    q.add_argument("--set", action="append", default=[])
    q.set_defaults(fn=machines)
    q = sub.add_parser("disasm", help="disassemble an object or ELF")
    q.add_argument("file")
    q.set_defaults(fn=disasm)
    return p


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 fine, 1 rejected, 2 usage, 3 check failed, 4 simulator fault, deadlock or limit, 70 internal."""
    args = parser().parse_args(argv)
    try:
        code: int = args.fn(args)
        return code
    except RvgpuError as e:
        print(e.render(), file=sys.stderr)
        return e.exit_code
    except BrokenPipeError:
        return EXIT_OK
    except KeyboardInterrupt:
        return 130
    except Exception as e:
        if os.environ.get("RVGPU_DEBUG") == "1":
            raise
        import tempfile
        import traceback

        with tempfile.NamedTemporaryFile("w", prefix="rvgpu-", suffix=".txt", delete=False) as f:
            f.write(" ".join(argv or sys.argv) + "\n\n" + traceback.format_exc())
        print(f"error[E999]: internal error: {type(e).__name__}: {e}\nnote: reproducer: {f.name}", file=sys.stderr)
        return EXIT_INTERNAL
