"""The command `rvgpu sweep`: one program on many machines or with many dims, a line for each. `--set` and `-D` take lists; every combination is run.

A kernel is compiled for each machine; an executable stays as it is. A point that cannot be compiled or run shows its error, the others go on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rvgpu.errors import EXIT_CHECK_FAILED, EXIT_OK, EXIT_USAGE, RvgpuError
from rvgpu.ir.binding import bind
from rvgpu.isa.machine import Machine, load_machine
from rvgpu.runtime.arguments import compiled_of, dim_values, fits, kernel_of, known, pairs, passes_of, read_bytes, scalar_values, usage
from rvgpu.runtime.code import read_note
from rvgpu.runtime.commands import run_alone
from rvgpu.runtime.inputs import random_inputs, random_scalars
from rvgpu.runtime.programs import measure_program
from rvgpu.sim.elf import load as load_elf

Setting = dict[str, str]
Measure = Callable[[Machine, dict[str, int]], dict[str, Any]]
MOST_POINTS = 10_000
FOR_ALL = ("E203", "E501", "E502", "E503", "E506")  # what no value of a list can mend


def values(text: str) -> list[str]:
    """"1,2,[3,4]" to ["1", "2", "[3,4]"]."""
    out, depth = [""], 0
    for c in text:
        depth += (c in "[{") - (c in "]}")
        if c == "," and depth == 0:
            out.append("")
        else:
            out[-1] += c
    return out


def points(sets: Sequence[str], dims: Sequence[str]) -> list[tuple[Setting, Setting]]:
    """Every combination, the last list fastest; fields of the machine and dims apart."""
    lists = [[(key, v) for v in values(text)] for what, items in (("--set", sets), ("-D", dims)) for key, text in pairs(items, what).items()]
    for key, v in itertools.chain(*lists):
        if not v:
            raise usage(f"{key}: a value of the list is empty")
    fields = pairs(sets, "--set").keys()
    if (count := math.prod(map(len, lists))) > MOST_POINTS:
        raise usage(f"the lists have {count} combinations, at most {MOST_POINTS} are run")
    return [({k: v for k, v in p if k in fields}, {k: v for k, v in p if k not in fields}) for p in itertools.product(*lists)]


def of_kernel(args: argparse.Namespace) -> Measure:
    kernel = kernel_of(args)
    passes, func = passes_of(args, kernel.passes), kernel.func
    known([k for k, _, _ in (d.partition("=") for d in args.dims)], func.dim_names(), "dim", "E208")

    def measure(machine: Machine, dims: dict[str, int]) -> dict[str, Any]:
        binding = bind(func, {}, dims)
        fits({p.name: p.value.tensor for p in func.params if not p.keyword}, binding)
        scalars: dict[str, Any] = {**random_scalars(func, binding), **scalar_values(args.arg)}
        return compiled_of(args, kernel, machine, passes).run(*random_inputs(func, binding, args.seed), check=args.check,
                                                              max_cycles=args.max_cycles, **scalars).stats

    return measure


def of_executable(args: argparse.Namespace) -> Measure:
    data = read_bytes(args.file)
    image = load_elf(data)
    if args.check:
        raise usage(f"--check compares with the math, which {args.file} does not hold")
    if image.note:
        code = read_note(image.note)
        return lambda machine, dims: run_alone(args, code, machine, dims, data)[0]
    if args.dims:
        raise usage(f"-D is for kernels: {args.file} is a program that starts at its entry")
    return lambda machine, _: measure_program(args, machine, data)


def sweep(args: argparse.Namespace) -> int:
    todo = points(args.set, args.dims)
    args.stop_after = None
    try:
        text = args.file.endswith((".rvg", ".py", "-"))
        measure = of_kernel(args) if text else of_executable(args)
    except RvgpuError as e:
        if not text and e.code == "E601":
            e.hint("a kernel is a .rvg or .py file, - for stdin")
        raise
    sizes = [dim_values(f"{k}={v}" for k, v in dims.items()) for _, dims in todo]
    varied = [k for k in {**todo[0][0], **todo[0][1]} if len({{**s, **d}[k] for s, d in todo}) > 1]
    widths = [max(len(k), *(len({**s, **d}[k]) for s, d in todo)) for k in varied]
    rows: list[dict[str, Any]] = []
    if not args.json:
        fixed = [f"{k}={v}" for k, v in {**todo[0][0], **todo[0][1]}.items() if k not in varied]
        print(" ".join([args.kernel or args.file, "on", args.machine, "", *fixed]).rstrip())
    for (sets, dims), size in zip(todo, sizes, strict=True):
        row: dict[str, Any] = {"set": sets, "dims": size}
        try:
            row |= measure(load_machine(args.machine, sets), size)
        except RvgpuError as e:
            if e.exit_code == EXIT_USAGE or e.code in FOR_ALL:
                raise
            row["error"] = {"code": e.code, "message": e.message, "exit_code": e.exit_code}
        rows.append(row)
        if not args.json:
            print("\n".join(lines(rows, varied, widths, {**sets, **dims})), flush=True)
    if args.json:
        print(json.dumps({"points": rows}))
    failed = [r["error"]["exit_code"] for r in rows if "error" in r]
    if len(failed) == len(rows):
        return int(failed[0])
    return EXIT_CHECK_FAILED if any("check" in r and not r["check"]["passed"] for r in rows) else EXIT_OK


def lines(rows: Sequence[Mapping[str, Any]], varied: Sequence[str], widths: Sequence[int], here: Setting) -> Iterator[str]:
    """The newest row, in front of the first one the head."""
    r = rows[-1]
    if len(rows) == 1:
        yield "  ".join([*(f"{k:>{w}}" for k, w in zip(varied, widths, strict=True)), f"{'cycles':>12}", "of the first", "roofline", " bound",
                         "matrix", "vector", " issue", "  dram", " most of the waits"])
    head = [f"{here[k]:>{w}}" for k, w in zip(varied, widths, strict=True)]
    if "error" in r:
        yield "  ".join([*head, f"{r['error']['code']}: {r['error']['message']}"])
        return
    first = next((x["cycles"] for x in rows if "cycles" in x), r["cycles"])
    roof, used = r.get("roofline"), r["utilisation"]
    waits = sorted(((v, k) for k, v in r["stalls"].items() if k != "issued" and v >= 0.01), reverse=True)[:2]
    verdict = "" if r.get("check", {"passed": True})["passed"] else "  check FAILED"
    yield "  ".join([*head, f"{r['cycles']:12,}", f"{r['cycles'] / first:12.3f}", f"{roof['fraction']:8.1%}" if roof else f"{'-':>8}",
                     f"{roof['bound'] if roof else '-':>6}", *(f"{used[k]:6.1%}" for k in ("matrix", "vector", "issue", "dram")),
                     " " + " ".join(f"{k} {v:.0%}" for v, k in waits)]) + verdict
