"""What the commands of the CLI do; each takes parsed arguments and returns an exit code."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from rvgpu.errors import EXIT_CHECK_FAILED, EXIT_OK, Loc, RvgpuError
from rvgpu.ir.binding import bind
from rvgpu.ir.core import Func
from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.parse import parse as parse_ir
from rvgpu.ir.text import print_funcs
from rvgpu.isa.machine import Machine, load_machine
from rvgpu.passes.context import Context, Facts
from rvgpu.passes.explain import Explain
from rvgpu.passes.pipeline import Pass, Unit, check, run_passes
from rvgpu.runtime.arguments import (
    Args,
    arrays_of,
    compiled_of,
    dim_values,
    fits,
    kernel_of,
    known,
    machine_of,
    pairs,
    passes_of,
    place,
    read_bytes,
    scalar_values,
    source,
    usage,
    write,
)
from rvgpu.runtime.code import Code, make_code, read_note
from rvgpu.runtime.inputs import random_inputs, random_scalars, random_tensor
from rvgpu.runtime.kernel import bucket, read_text
from rvgpu.runtime.launch import Launched, run_code, scalar_of, shape
from rvgpu.runtime.programs import hot_rows, run_program, traced, write_traced
from rvgpu.runtime.remarks import compare_cycles, show_remarks
from rvgpu.runtime.stats import describe, statistics, work_of_code
from rvgpu.sim.elf import load as load_elf
from rvgpu.sim.trace import Trace

# -- compile and opt

class Watch:
    """Prints functions after passes, and the passes' times; tells `explain` what each made."""

    def __init__(self, print_after: str | None, times: bool, explain: Explain | None = None) -> None:
        self.print_after, self.times, self.explain = print_after, times, explain

    def __call__(self, p: Pass, units: Sequence[Unit], seconds: float) -> None:
        if self.explain is not None:
            self.explain(p.name, units)
        if self.print_after in ("all", p.name):
            print(f"// after {p.name}\n{print_funcs(units, locs=False)}", file=sys.stderr)
        if self.times:
            print(f"{p.name:10} {seconds * 1e3:8.2f} ms", file=sys.stderr)


def compile_(args: Args) -> int:
    kernel, machine = kernel_of(args), machine_of(args)
    passes = passes_of(args, kernel.passes)
    given = dim_values(args.dims)
    known(given, kernel.func.dim_names(), "dim", "E208")
    if args.output not in (None, "-"):
        place(args.output)
    compiled = compiled_of(args, kernel, machine, passes)
    binding = {**{n: bucket(4096) for n in kernel.func.dim_names()}, **given} if args.open else bind(kernel.func, {}, given)
    context = compiled.context(binding)
    begin = time.perf_counter()
    watch = Watch(args.print_after, args.time_passes, Explain(kernel.func, context) if args.explain else None)
    units = run_passes([kernel.func], passes, context, watch)
    if watch.explain is not None:
        print("\n".join(watch.explain.lines))
        if args.emit is None:
            return EXIT_OK
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
    return list(parse_ir(*source(path)))


def context_of(units: Sequence[Unit], machine: Machine, given: dict[str, int]) -> Context:
    return Context(Facts.of(machine), given, {n: bucket(given.get(n, 4096)) for u in units for n in _dims(u)})


def _dims(u: Unit) -> list[str]:
    return u.dim_names() if isinstance(u, Func) else u.dims


def opt(args: Args) -> int:
    units, machine, given = read_units(args.file), machine_of(args), dim_values(args.dims)
    known(given, dict.fromkeys(n for u in units for n in _dims(u)), "dim", "E208")
    context = context_of(units, machine, given)
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

def finish(args: Args, stats: dict[str, Any], machine: Machine, outputs: dict[str, Any], trace: Trace | None) -> int:
    """The report; --out files; the exit code."""
    if args.sanitize:
        stats["sanitize"] = {"findings": 0}  # one would have ended the run
    if args.out:
        import numpy as np

        for name, x in outputs.items():
            try:
                np.save(f"{args.out}{name}.npy", x)
            except OSError as e:
                raise usage(f"cannot write {args.out}{name}.npy: {e.strerror}", "E001") from None
    hot = hot_rows(trace, args, stats)
    print(json.dumps(stats) if args.json else describe(stats) + hot)
    write_traced(trace, args, stats, machine, None if args.json else sys.stdout)
    return EXIT_CHECK_FAILED if "check" in stats and not stats["check"]["passed"] else EXIT_OK


def places(args: Args) -> None:
    """Where --out, --trace and --report write."""
    for path in (args.out and f"{args.out}*.npy", args.trace, args.report):
        if path:
            place(path)


def run(args: Args) -> int:
    if args.file.endswith(".tile"):
        return run_tile(args)
    kernel, given = kernel_of(args), dim_values(args.dims)
    known(given, kernel.func.dim_names(), "dim", "E208")
    places(args)
    compiled = compiled_of(args, kernel, machine_of(args), passes_of(args, kernel.passes))
    tensors = {p.name: p.value.tensor for p in kernel.func.params if not p.keyword}
    if args.input:
        files = arrays_of(args.input, tensors)
        binding, arrays = bind(kernel.func, {n: a.shape for n, a in files.items()}, given), list(files.values())
    else:
        binding = bind(kernel.func, {}, given)
        fits(tensors, binding)
        arrays = random_inputs(kernel.func, binding, args.seed)
    scalars: dict[str, Any] = {**random_scalars(kernel.func, binding), **scalar_values(args.arg)}
    if args.remarks:
        context = compiled.context(binding)
        run_passes([kernel.func], compiled.passes, context)
        show_remarks(context)
    result = compiled.run(*arrays, check=args.check, max_cycles=args.max_cycles, sanitize=args.sanitize or None,
                          latency_seed=args.latency_seed, **scalars)
    if args.remarks:
        compare_cycles(context, result.raw)
    return finish(args, result.stats, compiled.machine, result.outputs, result.traced() if traced(args) else None)


def run_tile(args: Args) -> int:
    """A .tile file: level K text, for the machine that its header names."""
    if args.check:
        raise usage("--check compares with the math, which a .tile file does not hold").hint("compare --out files")
    if args.kernel or args.dtype:
        raise usage(f"{'--kernel' if args.kernel else '--dtype'} is for kernels of the language, {args.file} is level K text")
    units, machine = read_units(args.file), machine_of(args)
    if not units:
        raise usage(f"{args.file} has no kernel", "E003")
    context = context_of(units, machine, dim_values(args.dims))
    begin = time.perf_counter()
    code = make_code(run_passes(units, [p for p in passes_of(args) if passes_given(args)], context), machine)
    return launch(args, code, machine, time.perf_counter() - begin, None)


def sim(args: Args) -> int:
    """An ELF with the launch note is launched as kernels; another executable starts at its entry."""
    data, machine = read_bytes(args.file), machine_of(args)
    places(args)
    image = load_elf(data)
    if not image.note and image.executable:
        return run_program(args, machine, data)
    if not image.note:
        raise RvgpuError("E611", f"{args.file} is an object without a .rvgpu.launch note: it does not say how it is launched").hint(
            "rvgpu compile ... --emit elf writes an executable with the note; another program needs to be linked")
    for option, value in (("--harts", args.harts), ("--memory", args.memory)):
        if value is not None:
            raise usage(f"{option} is for programs that start at their entry, {args.file} has a .rvgpu.launch note")
    return launch(args, read_note(image.note), machine, 0.0, data, args.timing != "none")


def launch(args: Args, code: Code, machine: Machine, compile_s: float, elf: bytes | None, timing: bool = True) -> int:
    """Runs code that came without its math and reports."""
    places(args)
    stats, done = run_alone(args, code, machine, dim_values(args.dims), elf, compile_s, timing)
    return finish(args, stats, machine, done.outputs, done.trace)


def run_alone(args: Args, code: Code, machine: Machine, binding: dict[str, int], elf: bytes | None, compile_s: float = 0.0,
              timing: bool = True) -> tuple[dict[str, Any], Launched]:
    """Statistics and results of code that came without its math: arguments from files or random."""
    import numpy as np

    if (code.vlen, code.te) != (machine.vector.vlen, machine.matrix.te):
        raise RvgpuError("E313", f"{args.file} is for VLEN {code.vlen} and TE {code.te}, {machine.name} has {machine.vector.vlen} and "
                         f"{machine.matrix.te}").hint(f"--set vector.vlen={code.vlen} --set matrix.te={code.te}")
    known(binding, dict.fromkeys(d for k in code.kernels for d in k.dims), "dim", "E208")
    named = code.scalars()
    known(scalar_values(args.arg), named, "scalar", "E207")
    missing = [d for k in code.kernels for d in k.dims if d not in binding]
    if missing:
        raise RvgpuError("E203", f"no argument binds dim {missing[0]}").hint(f"give it: -D {missing[0]}=...")
    inputs = code.inputs()
    if args.input:
        arrays = arrays_of(args.input, inputs)
        for n, t in inputs.items():
            if arrays[n].dtype != numpy_dtype(t.dtype):
                raise RvgpuError("E206", f"{n} is {t.dtype}, its file has {arrays[n].dtype}")
            if list(arrays[n].shape) != shape(t, binding):
                raise RvgpuError("E202", f"{n} is {t}, {shape(t, binding)} here; its file has {list(arrays[n].shape)}")
    else:
        fits(inputs, binding)
        rng = np.random.default_rng(args.seed)
        arrays = {n: random_tensor(rng, t, binding) for n, t in inputs.items()}
    given = {**dict.fromkeys(named, 1), **({"scale": binding["D"] ** -0.5} if "D" in binding else {}), **scalar_values(args.arg)}
    scalars = {n: scalar_of(n, given[n], t) for n, t in named.items()}
    done = run_code(code, machine, binding, arrays, scalars, elf=elf, max_cycles=args.max_cycles, timing=timing, trace=traced(args),
                    sanitize=args.sanitize or None, latency_seed=args.latency_seed)
    host = {"compile_s": compile_s, "engine_s": done.engine_s, "simulate_s": done.simulate_s, "total_s": compile_s + done.engine_s + done.simulate_s}
    stats = statistics(code.kernels[-1].name, machine, binding, work_of_code(code, binding, done.raw), done.raw, None, host)
    return stats, done


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
        per_mac = 2 * m.gpu.clock_ghz
        unit = f"TE {m.matrix.te}, {m.peak_macs_per_cycle('bf16') * per_mac / 1000:.1f} Tflop/s bf16" if m.has_matrix else "no matrix unit"
        print(f"{name:8} {m.gpu.cores:3} cores x {m.core.warps} warps  VLEN {m.vector.vlen:4}  "
              f"vector {m.vector_macs_per_cycle() * per_mac:5.0f} Gflop/s f32  {unit}  DRAM {m.dram.bytes_per_cycle} B/cycle")
    return EXIT_OK


def disasm(args: Args) -> int:
    from rvgpu.isa.codec import decode
    from rvgpu.isa.codec import disasm as text_of
    from rvgpu.sim.dwarf import read_lines

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
        word = int.from_bytes(image.at(at, 4), "little")
        d = decode(word)
        size = d.size if d else (4 if word & 3 == 3 else 2)
        print(f"  {at:x}: {text_of(d, at) if d else f'.word {word:#x}'}")
        at += size
    return EXIT_OK


def calibrate(args: Args) -> int:
    from rvgpu.runtime.ledger import calibrate as calibrate_machines

    return calibrate_machines(args.machine, args.data, args.write, args.docs, args.seed, args.json)


def tune(args: Args) -> int:
    from rvgpu.runtime.tuning import tune as run_tuner

    return run_tuner(args)


def sweep(args: Args) -> int:
    from rvgpu.runtime.sweep import sweep as run_points

    return run_points(args)


def isa(args: Args) -> int:
    """All instructions, or one row with its bits and its meaning."""
    from rvgpu.isa.describe import describe_row, table
    from rvgpu.sim.engine import template

    write(None, describe_row(args.name, lambda row: template(row, 2)) if args.name else table())
    return EXIT_OK
