"""The command `rvgpu tune`: the trials of every kernel with a choice, and what is kept."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from rvgpu.errors import EXIT_OK
from rvgpu.ir.binding import bind
from rvgpu.passes.pipeline import PASSES, print_passes
from rvgpu.runtime.arguments import compiled_of, dim_values, fits, kernel_of, known, machine_of, passes_of, usage
from rvgpu.runtime.tune import Tuned, Tuning


def tune(args: argparse.Namespace) -> int:
    names = [w for w in args.what if "=" not in w]
    if len(names) + (args.kernel is not None) > 1:
        raise usage(f"one kernel is tuned at a time, {' and '.join([*names, *filter(None, [args.kernel])])} are named")
    args.kernel = args.kernel or (names[0] if names else None)
    args.tune = args.stop_after = None
    kernel, given = kernel_of(args), dim_values([*args.dims, *(w for w in args.what if "=" in w)])
    known(given, kernel.func.dim_names(), "dim", "E208")
    binding = bind(kernel.func, {}, given)
    fits({p.name: p.value.tensor for p in kernel.func.params if not p.keyword}, binding)
    passes = passes_of(args, kernel.passes)
    if PASSES["tile"] not in passes:
        raise usage(f"the tuner needs the pass tile without options, found {print_passes(passes)}", "E311").hint("tile{...} is what it chooses")
    compiled = compiled_of(args, kernel, machine_of(args), passes)
    tuning = compiled.tune(binding, (lambda text: print(text, file=sys.stderr, flush=True)) if sys.stderr.isatty() else lambda _: None)
    print(json.dumps(as_json(kernel.func.name, compiled.machine.name, binding, tuning)) if args.json else
          describe(kernel.func.name, compiled.machine.name, binding, tuning))
    return EXIT_OK


def as_json(kernel: str, machine: str, dims: dict[str, int], tuning: Tuning) -> dict[str, object]:
    """docs/json.md."""
    return {"kernel": kernel, "machine": machine, "dims": dims, "seconds": tuning.seconds,
            "kernels": [{"name": k.kernel, "best": k.best, "trials": [asdict(t) for t in k.trials]} for k in tuning.kernels]}


def describe(kernel: str, machine: str, dims: dict[str, int], tuning: Tuning) -> str:
    where = f"measured in {tuning.seconds:.1f} s" if tuning.seconds else "from the cache"
    lines = [f"{kernel} on {machine}  {' '.join(f'{k}={v}' for k, v in dims.items())}  ({where})"]
    for k in tuning.kernels:
        lines += table(k)
    return "\n".join(lines if tuning.kernels else [*lines, "  no kernel with several tilings"])


def table(k: Tuned) -> list[str]:
    lines = [f"  {k.kernel}", f"    {'predicted':>12} {'cycles':>12}  of the kept  tiling"]
    kept = k.trials[k.best].cycles or 1
    for n, t in enumerate(k.trials):
        cycles = "given up" if t.cycles is None else f"{t.cycles:,}"
        share = "" if t.cycles is None else f"{t.cycles / kept:.3f}"
        note = f"  (1 of {t.sample} work items)" if t.sample > 1 else ""
        mark = "  <- kept" if n == k.best else ""
        lines.append(f"    {t.predicted:>12,.0f} {cycles:>12} {share:>12}  {','.join(f'{f}={v}' for f, v in t.fields.items())}{note}{mark}")
    return lines
