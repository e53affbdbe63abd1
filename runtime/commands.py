"""What the commands of the CLI do; each takes parsed arguments and returns an exit code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rvgpu.errors import EXIT_CHECK_FAILED, EXIT_OK, EXIT_USAGE, Loc, RvgpuError, did_you_mean
from rvgpu.ir.binding import bind
from rvgpu.ir.core import Func
from rvgpu.ir.parse import parse as parse_ir
from rvgpu.ir.text import print_funcs
from rvgpu.isa.machine import Machine, load_machine
from rvgpu.passes.context import Context, Facts
from rvgpu.passes.pipeline import PIPELINE, Pass, Unit, check, parse_passes, run_passes
from rvgpu.runtime.code import Code, make_code, read_note
from rvgpu.runtime.inputs import random_inputs, random_scalars, random_tensor
from rvgpu.runtime.kernel import Compiled, Kernel, bucket, load_file, read_text
from rvgpu.runtime.launch import run_code, shape
from rvgpu.runtime.stats import describe, statistics, work_of_code
from rvgpu.sim.elf import load as load_elf
from rvgpu.sim.trace import Trace

Args = argparse.Namespace


# -- arguments

def usage(message: str, code: str = "E002") -> RvgpuError:
    return RvgpuError(code, message, exit_code=EXIT_USAGE)


def pairs(items: Iterable[str], what: str) -> dict[str, str]:
    """["a=1"] to {"a": "1"}."""
    out = {}
    for item in items:
        key, sep, value = item.partition("=")
        if not sep:
            raise usage(f"{what} {item}: write name=value")
        out[key] = value
    return out


def dim_values(items: Iterable[str]) -> dict[str, int]:
    out = {}
    for key, value in pairs(items, "-D").items():
        if not value.isdigit():
            raise usage(f"-D {key}={value}: a dim is an integer of at least 0")
        out[key] = int(value)
    return out


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


def passes_of(args: Args) -> list[Pass]:
    """--passes, cut after --stop-after."""
    passes = parse_passes(args.passes) if args.passes is not None else list(PIPELINE)
    if args.stop_after is not None:
        names = [p.name for p in passes]
        if args.stop_after not in names:
            raise usage(f"--stop-after {args.stop_after}: the passes are {', '.join(names)}", "E311")
        passes = passes[:names.index(args.stop_after) + 1]
    return passes


def read_bytes(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as e:
        raise RvgpuError("E001", f"cannot read {path}: {e.strerror}", exit_code=EXIT_USAGE) from None


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
    found: dict[str, Any] = _python_kernels(args.file) if args.file.endswith(".py") else load_file(args.file)
    if not found:
        raise usage(f"{args.file} has no kernel", "E003")
    name = args.kernel or (next(iter(found)) if len(found) == 1 else None)
    if name is None:
        raise usage(f"{args.file} has several kernels", "E003").hint(f"--kernel {' | '.join(found)}")
    if name not in found:
        near = did_you_mean(name, found)
        raise usage(f"{args.file} has no kernel {name}", "E003").hint(f"did you mean {near}?" if near else f"kernels: {', '.join(found)}")
    made = found[name]
    if isinstance(made, Kernel):
        return made.with_dtypes(**dtypes) if dtypes else made
    return Kernel(made, dtypes)


def _python_kernels(path: str) -> dict[str, Kernel]:
    import runpy

    read_text(path)
    return {n: v for n, v in runpy.run_path(path, run_name="rvgpu_kernels").items() if isinstance(v, Kernel)}


def arrays_of(files: Sequence[str], names: Sequence[str]) -> list[Any]:
    """The .npy files of --in, one per tensor."""
    import numpy as np

    if len(files) != len(names):
        raise usage(f"--in needs {len(names)} files ({', '.join(names)}), {len(files)} given", "E205")
    out = []
    for f in files:
        try:
            out.append(np.load(f, allow_pickle=False))
        except (OSError, ValueError) as e:
            raise usage(f"cannot read {f}: {e.strerror if isinstance(e, OSError) else 'it is no .npy file'}", "E001") from None
    return out


# -- compile and opt

class Watch:
    """Prints functions after passes, and the passes' times."""

    def __init__(self, print_after: str | None, times: bool) -> None:
        self.print_after, self.times = print_after, times

    def __call__(self, p: Pass, units: Sequence[Unit], seconds: float) -> None:
        if self.print_after in ("all", p.name):
            print(f"// after {p.name}\n{print_funcs(units, locs=False)}", file=sys.stderr)
        if self.times:
            print(f"{p.name:10} {seconds * 1e3:8.2f} ms", file=sys.stderr)


def show_remarks(context: Context) -> None:
    for r in context.remarks:
        loc = r.op.loc if r.op is not None else None
        print(f"{f'{loc}: ' if loc else ''}remark: {r.text}", file=sys.stderr)


def compile_(args: Args) -> int:
    kernel, machine, passes = kernel_of(args), machine_of(args), passes_of(args)
    given = dim_values(args.dims)
    compiled = Compiled(kernel, machine, {}, passes)
    binding = {**{n: bucket(4096) for n in kernel.func.dim_names()}, **given} if args.open else bind(kernel.func, {}, given)
    context = compiled.context(binding)
    begin = time.perf_counter()
    units = run_passes([kernel.func], passes, context, Watch(args.print_after, args.time_passes))
    if args.remarks:
        show_remarks(context)
    tensor = args.emit == "tensor" or args.emit is None and args.stop_after is not None and all(isinstance(u, Func) for u in units)
    if tensor or args.emit == "tile" or args.emit is None and args.stop_after is not None:
        write(args.output, print_funcs(units if not tensor or passes_given(args) else [kernel.func]))
        return EXIT_OK
    write(args.output, emitted(make_code(units, machine), args.emit or "asm"))
    if args.time_passes:
        print(f"{'total':10} {(time.perf_counter() - begin) * 1e3:8.2f} ms", file=sys.stderr)
    return EXIT_OK


def passes_given(args: Args) -> bool:
    return args.passes is not None or args.stop_after is not None


def emitted(code: Code, what: str) -> str | bytes:
    if what == "llvm":
        return "\n".join(k.llvm for k in code.kernels)
    if what == "asm":
        return "\n".join(k.asm for k in code.kernels)
    if what == "obj":
        if len(code.kernels) > 1:
            raise usage(f"{len(code.kernels)} kernels are {len(code.kernels)} objects").hint("--emit elf holds them all")
        return code.kernels[0].object
    return code.elf()


def read_units(path: str) -> list[Unit]:
    text = sys.stdin.read() if path == "-" else read_text(path)
    return list(parse_ir(text, "<stdin>" if path == "-" else path))


def context_of(units: Sequence[Unit], machine: Machine, given: dict[str, int]) -> Context:
    return Context(Facts.of(machine), given, {n: bucket(given.get(n, 4096)) for u in units for n in _dims(u)})


def _dims(u: Unit) -> list[str]:
    return u.dim_names() if isinstance(u, Func) else u.dims


def opt(args: Args) -> int:
    units, machine = read_units(args.file), machine_of(args)
    context = context_of(units, machine, dim_values(args.dims))
    for u in units:
        try:
            check(u, context, "parsing")
        except AssertionError as e:
            raise RvgpuError("E406", str(e), Loc(args.file, 1)) from None
    out = run_passes(units, passes_of(args), context, Watch(args.print_after, args.time_passes))
    if args.remarks:
        show_remarks(context)
    write(args.output, print_funcs(out))
    return EXIT_OK


# -- run and sim

def finish(args: Args, stats: dict[str, Any], outputs: dict[str, Any], trace: Trace | None) -> int:
    """The report; --out files; the exit code."""
    if args.out:
        import numpy as np

        for name, x in outputs.items():
            np.save(f"{args.out}{name}.npy", x)
    print(json.dumps(stats) if args.json else describe(stats))
    if trace is not None:
        trace.write(args.trace)
        if trace.dropped:
            print(f"note: the trace holds the first {len(trace.events)} of {len(trace.events) + trace.dropped} events", file=sys.stderr)
        if not args.json:
            print(f"  trace        {args.trace} (open it at ui.perfetto.dev)")
    return EXIT_CHECK_FAILED if "check" in stats and not stats["check"]["passed"] else EXIT_OK


def run(args: Args) -> int:
    if args.file.endswith(".tile"):
        return run_tile(args)
    kernel, given = kernel_of(args), dim_values(args.dims)
    compiled = Compiled(kernel, machine_of(args), {}, passes_of(args))
    tensors = [p for p in kernel.func.params if not p.keyword]
    if args.input:
        arrays = arrays_of(args.input, [p.name for p in tensors])
        binding = bind(kernel.func, {p.name: a.shape for p, a in zip(tensors, arrays, strict=True)}, given)
    else:
        binding = bind(kernel.func, {}, given)
        arrays = random_inputs(kernel.func, binding, args.seed)
    scalars: dict[str, Any] = {**random_scalars(kernel.func, binding), **scalar_values(args.arg)}
    result = compiled.run(*arrays, check=args.check, max_cycles=args.max_cycles, **scalars)
    return finish(args, result.stats, result.outputs, result.traced() if args.trace else None)


def run_tile(args: Args) -> int:
    """A .tile file: level K text, for the machine that its header names."""
    if args.check:
        raise usage("--check compares with the math, which a .tile file does not hold").hint("compare --out files")
    units, machine = read_units(args.file), machine_of(args)
    context = context_of(units, machine, dim_values(args.dims))
    begin = time.perf_counter()
    code = make_code(run_passes(units, [p for p in passes_of(args) if passes_given(args)], context), machine)
    return launch(args, code, machine, time.perf_counter() - begin, None)


def sim(args: Args) -> int:
    """An ELF with the launch note."""
    data, machine = read_bytes(args.file), machine_of(args)
    image = load_elf(data)
    if not image.note:
        raise RvgpuError("E611", f"{args.file} has no .rvgpu.launch note: it does not say how it is launched").hint(
            "rvgpu compile ... --emit elf writes one")
    code = read_note(image.note)
    if (code.vlen, code.te) != (machine.vector.vlen, machine.matrix.te):
        raise RvgpuError("E313", f"{args.file} is for VLEN {code.vlen} and TE {code.te}, {machine.name} has {machine.vector.vlen} and "
                         f"{machine.matrix.te}").hint(f"--set vector.vlen={code.vlen} --set matrix.te={code.te}")
    return launch(args, code, machine, 0.0, data)


def launch(args: Args, code: Code, machine: Machine, compile_s: float, elf: bytes | None) -> int:
    """Runs code that came without its math: arguments from files or random."""
    import numpy as np

    binding = dim_values(args.dims)
    missing = [d for k in code.kernels for d in k.dims if d not in binding]
    if missing:
        raise RvgpuError("E203", f"no argument binds dim {missing[0]}").hint(f"give it: -D {missing[0]}=...")
    inputs = code.inputs()
    if args.input:
        arrays = dict(zip(inputs, arrays_of(args.input, list(inputs)), strict=True))
        for n, t in inputs.items():
            if list(arrays[n].shape) != shape(t, binding):
                raise RvgpuError("E202", f"{n} is {t}, {shape(t, binding)} here; its file has {list(arrays[n].shape)}")
    else:
        rng = np.random.default_rng(args.seed)
        arrays = {n: random_tensor(rng, t, binding) for n, t in inputs.items()}
    scalars = {**{n: 1.0 for n in code.scalars()}, **({"scale": binding["D"] ** -0.5} if "D" in binding else {}), **scalar_values(args.arg)}
    done = run_code(code, machine, binding, arrays, scalars, elf=elf, max_cycles=args.max_cycles, trace=bool(args.trace))
    host = {"compile_s": compile_s, "engine_s": done.engine_s, "simulate_s": done.simulate_s, "total_s": compile_s + done.engine_s + done.simulate_s}
    stats = statistics(code.kernels[-1].name, machine, binding, work_of_code(code, binding, done.raw), done.raw, None, host)
    return finish(args, stats, done.outputs, done.trace)


# -- looking things up

def machines(args: Args) -> int:
    from rvgpu.isa.machine import FOLDER, machine_names

    if args.name:
        m = load_machine(args.name, pairs(args.set, "--set"))
        if args.set:
            from rvgpu.isa.machine import print_machine

            print(print_machine(m), end="")
        else:
            print(read_text(args.name if args.name.endswith(".toml") else str(FOLDER / f"{args.name}.toml")), end="")
        return EXIT_OK
    for name in machine_names():
        m = load_machine(name)
        print(f"{name:8} {m.gpu.cores:3} cores x {m.core.warps} warps  VLEN {m.vector.vlen}  TE {m.matrix.te}  "
              f"{m.peak_macs_per_cycle('bf16') * 2 * m.gpu.clock_ghz / 1000:.1f} Tflop/s bf16  DRAM {m.dram.bytes_per_cycle} B/cycle")
    return EXIT_OK


def disasm(args: Args) -> int:
    from rvgpu.isa.codec import decode
    from rvgpu.isa.codec import disasm as text_of
    from rvgpu.sim.dwarf import read_lines
    from rvgpu.sim.elf import BASE

    image = load_elf(read_bytes(args.file))
    lines = read_lines(image.debug) if args.lines else None
    names = {v: n for n, v in image.symbols.items() if not n.startswith((".", "$"))}
    at, end, shown = image.text[0], image.text[0] + image.text[1], None
    while at < end:
        if at in names:
            print(f"{names[at]}:")
        line = lines.at(at) if lines else None
        if line is not None and line != shown:
            print(f"  # {line}")
            shown = line
        word = int.from_bytes(image.data[at - BASE:at - BASE + 4], "little")
        d = decode(word)
        size = d.size if d else (4 if word & 3 == 3 else 2)
        print(f"  {at:x}: {text_of(d, at) if d else f'.word {word:#x}'}")
        at += size
    return EXIT_OK


def isa(args: Args) -> int:
    """All instructions, or one row with its bits and its meaning."""
    from rvgpu.isa.describe import describe_row, table

    write(None, describe_row(args.name) if args.name else table())
    return EXIT_OK
