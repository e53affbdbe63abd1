"""Measures tilings of one kernel for the tuner: compiles the kernel with a tiling, runs it alone on random inputs, or a sample of its work items.

Measurements run in processes of their own (`python -m rvgpu.runtime.measure`, with the messages of codegen_rvgpu/worker.py): no multiprocessing,
so a user's script needs no guard. A measurement depends on its request alone, never on which process takes it.

A sample: each CTA does every n-th of its work items. A core's cycles are then scaled by the items left out, less what a launch costs once:

    cycles = fixed + (mean over cores of (cycles of the core) - fixed) * items / items done * (most items of a core / mean items of a core)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import msgspec
import numpy as np

from rvgpu.codegen_rvgpu.worker import receive, send
from rvgpu.errors import EXIT_INTERNAL, RvgpuError
from rvgpu.ir.core import Func
from rvgpu.ir.parse import parse
from rvgpu.ir.tile_build import KFunc
from rvgpu.isa.machine import Machine
from rvgpu.passes.context import Choice, Context, Facts
from rvgpu.passes.pipeline import parse_passes, run_passes
from rvgpu.passes.schedule import fingerprint
from rvgpu.runtime.code import Code, make_code
from rvgpu.runtime.inputs import random_tensor
from rvgpu.runtime.launch import run_code

MOST_PROCESSES = 8


@dataclass(frozen=True)
class Subject:
    """The kernel `name` among those that the level T function `text` becomes, and where it runs. What a request of one tuning has in common."""

    text: str
    name: str
    machine: Machine
    passes: str
    exact: Mapping[str, int]
    upper: Mapping[str, int]
    binding: Mapping[str, int]

    def encode(self) -> bytes:
        return msgspec.json.encode({**{k: v for k, v in vars(self).items() if k != "machine"}, "machine": self.machine})

    @staticmethod
    def decode(data: bytes) -> Subject:
        raw = msgspec.json.decode(data)
        return Subject(**{**raw, "machine": msgspec.convert(raw["machine"], Machine)})


@dataclass(frozen=True)
class Request:
    """A tiling; `items` of the launch and `sample` n: every n-th of them; `fixed` cycles that a launch costs once; the most cycles."""

    fields: Mapping[str, int]
    items: int
    fixed: float
    sample: int = 1
    max_cycles: int | None = None


@dataclass(frozen=True)
class Measured:
    """Cycles of the whole launch (estimated where only a sample ran); None past the limit. `code` is the kernel's fingerprint."""

    cycles: int | None
    code: str
    sample: int = field(default=1)


def scaled(cores: Sequence[int], items: int, sample: int, fixed: float) -> int:
    """The module's formula."""
    n = len(cores)
    done = [len(range(c, items, n * sample)) for c in range(n)]
    mean = sum(cores) / n
    most = -(-items // n) * n / items
    return round(fixed + max(0.0, mean - fixed) * items / max(1, sum(done)) * most)


def lowered(subject: Subject, func: Func, fields: Mapping[str, int]) -> tuple[KFunc, str]:
    """The kernel with this tiling, and its fingerprint as P7 leaves it."""
    context = Context(Facts.of(subject.machine), subject.exact, subject.upper, tuned={subject.name: Choice(fields)})
    seen: list[str] = []

    def hook(p: Any, units: Sequence[Any], _: float) -> None:
        if p.name == "tile":
            seen.extend(fingerprint(u) for u in units if u.name == subject.name)

    units = run_passes([func], parse_passes(subject.passes), context, hook)
    assert context.planned[subject.name].tuned, f"{subject.name} has no tiling {dict(fields)}"
    return next(u for u in units if isinstance(u, KFunc) and u.name == subject.name), seen[0]


def arguments(func: Func, code: Code, binding: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, float]]:
    """Random tensors, and the scalars' defaults, D ** -0.5 for a scale, or 1."""
    rng = np.random.default_rng(0)
    inputs = {n: random_tensor(rng, t, binding) for n, t in code.inputs().items()}
    defaults = {p.name: p.default for p in func.params if p.keyword}
    usual = {"scale": binding["D"] ** -0.5} if "D" in binding else {}
    return inputs, {n: x if (x := defaults.get(n)) is not None else usual.get(n, 1.0) for n in code.scalars()}


def measure(subject: Subject, request: Request, func: Func, kept: dict[str, Any]) -> Measured:
    """`kept` holds the inputs from one measurement of the subject to the next."""
    kernel, print_ = lowered(subject, func, request.fields)
    code = make_code([kernel], subject.machine)
    if not kept:
        kept["inputs"], kept["scalars"] = arguments(func, code, subject.binding)
    try:
        raw = run_code(code, subject.machine, subject.binding, kept["inputs"], kept["scalars"], max_cycles=request.max_cycles,
                       sample=request.sample).raw
    except RvgpuError as e:
        if e.code != "E703":
            raise
        return Measured(None, print_, request.sample)
    cycles = raw.cycles if request.sample == 1 else scaled(raw.launches[0].cores, request.items, request.sample, request.fixed)
    return Measured(cycles, print_, request.sample)


# -- processes

def processes() -> int:
    """As many as this process has processors."""
    return max(1, min(MOST_PROCESSES, len(os.sched_getaffinity(0))))


def measure_all(subject: Subject, requests: Sequence[Request]) -> list[Measured]:
    """Every request, side by side, answers in order. An error of one is raised once all others have ended."""
    todo, lock = list(enumerate(requests))[::-1], threading.Lock()
    answers: dict[int, Measured] = {}
    errors: dict[int, RvgpuError] = {}
    running: list[subprocess.Popen[bytes]] = []

    def drive() -> None:
        p = subprocess.Popen([sys.executable, "-m", "rvgpu.runtime.measure"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             env={**os.environ, "RVGPU_THREADS": "1"})
        running.append(p)
        assert p.stdin is not None and p.stdout is not None
        with p, p.stdin as out, p.stdout as back:
            send(out, subject.encode())
            while True:
                with lock:
                    if not todo:
                        return
                    n, request = todo.pop()
                send(out, json.dumps(asdict(request)).encode())
                answer = receive(back)
                if answer is None or answer[0] != b"ok":
                    errors[n] = _failed(answer, request)
                    return
                answers[n] = Measured(**json.loads(answer[1]))

    drivers = [threading.Thread(target=_quietly, args=(drive,)) for _ in range(min(processes(), len(requests)))]
    for t in drivers:
        t.start()
    try:
        for t in drivers:
            t.join()
    except BaseException:
        for p in running:
            p.kill()
        raise
    if errors or len(answers) < len(requests):
        raise errors[min(errors)] if errors else _failed(None, requests[0])
    return [answers[n] for n in range(len(requests))]


def _quietly(drive: Any) -> None:
    """A process that went away says so by its missing answer."""
    try:
        drive()
    except (BrokenPipeError, OSError):
        pass


def _failed(answer: list[bytes] | None, request: Request) -> RvgpuError:
    said = answer[1].decode() if answer else "the process ended without an answer"
    return RvgpuError("E900", f"measuring the tiling {dict(request.fields)} failed: {said}", exit_code=EXIT_INTERNAL)


@cache
def _parsed(text: str) -> Func:
    func = parse(text, "<kernel>")[0]
    assert isinstance(func, Func)
    return func


def serve() -> None:
    """Subject, then requests, until the input ends."""
    first = receive(sys.stdin.buffer)
    if first is None:
        return
    subject, kept = Subject.decode(first[0]), dict[str, Any]()
    while (message := receive(sys.stdin.buffer)) is not None:
        try:
            done = measure(subject, Request(**json.loads(message[0])), _parsed(subject.text), kept)
            send(sys.stdout.buffer, b"ok", json.dumps(asdict(done)).encode())
        except BrokenPipeError:  # whoever asked has gone
            return
        except Exception as e:
            send(sys.stdout.buffer, b"error", (e.render() if isinstance(e, RvgpuError) else f"{type(e).__name__}: {e}").encode())
            return


if __name__ == "__main__":
    serve()
