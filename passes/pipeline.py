"""The whole pipeline on one page: which passes run in which order, how they are written as text, and what happens between them.

`expand,simplify,cluster,cascade,split,tile,grid,pipeline,stage,nontemporal` takes one level T function to one level K kernel per launch.
A pass is a frozen dataclass whose fields are its options: `tile{wm=2,bk=64}`. After every pass each function is verified.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

from rvgpu.errors import EXIT_USAGE, RvgpuError, did_you_mean
from rvgpu.ir.core import Func
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.tile_verify import verify_kernel
from rvgpu.ir.types import TensorType
from rvgpu.ir.verify import VerifyError, verify
from rvgpu.isa.machine import Machine
from rvgpu.passes.cascade import Cascade
from rvgpu.passes.cluster import Cluster
from rvgpu.passes.context import Context, Facts
from rvgpu.passes.expand import Expand
from rvgpu.passes.grid import Grid
from rvgpu.passes.matrix_plan import plan_matrix
from rvgpu.passes.nontemporal import Nontemporal
from rvgpu.passes.pipeline_dma import PipelineDma
from rvgpu.passes.simplify import Simplify
from rvgpu.passes.split import Split
from rvgpu.passes.stage import Stage
from rvgpu.passes.tile import Tile

Unit = Func | KFunc


class Pass(Protocol):
    name: ClassVar[str]
    level: ClassVar[str]  # of the functions that it takes: "tensor" or "tile"; others pass by

    def run(self, func: Unit, context: Context) -> Sequence[Unit]: ...


PIPELINE: tuple[Pass, ...] = (
    Expand(), Simplify(), Cluster(), Cascade(), Split(), Tile(), Grid(), PipelineDma(), Stage(), Nontemporal())  # type: ignore[assignment]
PASSES: dict[str, Pass] = {p.name: p for p in PIPELINE}
Hook = Callable[[Pass, Sequence[Unit], float], None]


def run_passes(funcs: Sequence[Unit], passes: Sequence[Pass], context: Context, hook: Hook | None = None) -> list[Unit]:
    """Every pass over every function of its level, verified after each; `hook(pass, functions, seconds)` sees what it made."""
    out = list(funcs)
    for p in passes:
        context.workspace = set(temporaries(out))
        begin = time.perf_counter()
        made: list[Unit] = []
        for f in out:
            made += p.run(f, context) if level(f) == p.level else [f]
        seconds = time.perf_counter() - begin
        out = made
        for f in out:
            check(f, context, p.name)
        if hook:
            hook(p, out, seconds)
    return out


def level(f: Unit) -> str:
    return "tensor" if isinstance(f, Func) else "tile"


def check(f: Unit, context: Context, after: str) -> None:
    """The verifier of the function's level; its finding names the pass."""
    try:
        if isinstance(f, Func):
            verify(f)
        else:
            verify_kernel(f, context.facts.spm_bytes)
    except VerifyError as e:
        raise AssertionError(f"after {after}: {e}") from e


# -- text: `tile{wm=2,bk=64}`

def parse_passes(text: str) -> list[Pass]:
    """Passes in order. `+tile{bk=64}` is the whole pipeline with the named passes' options instead of the defaults. E311 unknown pass or
    option."""
    adjust = text.startswith("+")
    found: list[Pass] = []
    rest = text.removeprefix("+").strip()
    while rest:
        m = re.match(r"\s*([A-Za-z_]+)\s*(?:\{([^{}]*)\})?\s*(?:,|$)", rest)
        if m is None:
            raise _usage(f"cannot read passes at {rest!r}").hint("write name or name{option=value}, separated by commas")
        found.append(_make(m[1], m[2] or ""))
        rest = rest[m.end():]
    if not adjust:
        return found
    by_name = {p.name: p for p in found}
    return [by_name.get(p.name, p) for p in PIPELINE]


def _make(name: str, options: str) -> Pass:
    if name not in PASSES:
        raise _unknown("pass", name, PASSES)
    default = PASSES[name]
    fields = {f.name for f in dataclasses.fields(default)}  # type: ignore[arg-type]
    given = {}
    for item in filter(None, (o.strip() for o in options.split(","))):
        key, _, value = item.partition("=")
        key, value = key.strip(), value.strip()
        if key not in fields:
            raise _unknown(f"option of {name}", key, fields)
        if not value.isdigit():
            raise _usage(f"{name}{{{key}={value}}}: an integer needed")
        given[key] = int(value)
    return dataclasses.replace(default, **given)  # type: ignore[type-var]


def _unknown(what: str, name: str, known: Mapping[str, object] | set[str]) -> RvgpuError:
    near = did_you_mean(name, known)
    return _usage(f"no {what} is called {name}").hint(f"did you mean {near}?" if near else f"known: {', '.join(sorted(known)) or 'none'}")


def _usage(message: str) -> RvgpuError:
    return RvgpuError("E311", message, exit_code=EXIT_USAGE)


def print_passes(passes: Sequence[Pass]) -> str:
    """The text that `parse_passes` reads back; options at their defaults are left out."""
    def one(p: Pass) -> str:
        changed = [(f.name, getattr(p, f.name)) for f in dataclasses.fields(p) if getattr(p, f.name) != f.default]  # type: ignore[arg-type]
        return p.name + ("{" + ",".join(f"{k}={v}" for k, v in changed) + "}" if changed else "")
    return ",".join(map(one, passes))


# -- uses

def temporaries(funcs: Sequence[Unit]) -> dict[str, TensorType]:
    """Workspace tensors: results of one function that a later one takes as a parameter."""
    out: dict[str, TensorType] = {}
    made: dict[str, TensorType] = {}
    for f in funcs:
        if isinstance(f, Func):
            reads, writes = [p.name for p in f.params], dict(zip(f.result_names, f.result_types, strict=False))
        else:
            reads = [t.name for t in f.tensors if not t.output]
            writes = {t.name: TensorType(t.dims, t.dtype) for t in f.tensors if t.output}
        out |= {n: made[n] for n in reads if n in made}
        made |= writes
    return out


def static_dims(func: Func, machine: Machine) -> set[str]:
    """Dims whose exact value decides a kernel's scratchpad layout; some more where sizes decide what is fused: the smallest fuse most."""
    context = Context(Facts.of(machine), upper=dict.fromkeys(func.dim_names(), 1))
    out: set[str] = set()
    for f in run_passes([func], PIPELINE[:4], context):
        assert isinstance(f, Func)
        plan = plan_matrix(f, context.limits())
        out |= plan.static_dims() if plan else set()
    return out
