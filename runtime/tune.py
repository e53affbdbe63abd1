"""The tuner: of the tilings that P7 may choose, the model's best TOP are measured side by side, the fastest is kept.

A launch that the model says to take more than SAMPLED cycles is measured by a sample of its work items; its model's pick is then left only for what
is faster by more than MARGIN, the error of such an estimate (tests/test_tune.py holds it). What is found depends on the kernel, the machine, the
dims and the compiler, not on the computer: it is kept in the cache under all of them. Tilings move cycles, never bytes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rvgpu.cache import cache_folder, read_entry, source_hash, write_entry
from rvgpu.ir.core import Func
from rvgpu.ir.text import print_func
from rvgpu.isa.machine import Machine
from rvgpu.passes.context import Choice, Context, Facts, Price
from rvgpu.passes.pipeline import Pass, print_passes, run_passes
from rvgpu.passes.tile import Tile, Tiling, fields_of
from rvgpu.runtime.measure import Measured, Request, Subject, measure_all

TOP = 16
WORTH = 1.5  # times the cycles predicted for the model's pick: what is predicted to take longer is not measured
SAMPLED = 2_000_000  # predicted cycles of a launch from which on a sample is measured
SAMPLE_CYCLES = 1_000_000  # about as long is the sample
ROUNDS = 4  # work items of a core that a sample has at least
TEAM_ROUNDS = 32  # the same of a team in attention: causal items go from long to short, every n-th of k is off by up to (n - 1) / 2 k
MARGIN = 0.03
LIMIT = 3  # times the cycles predicted for the model's pick, after which a measurement is given up


@dataclass(frozen=True)
class Trial:
    """One tiling: predicted cycles, and measured ones (None: given up; an estimate where `sample` > 1)."""

    fields: Mapping[str, int]
    predicted: float
    cycles: int | None
    sample: int
    code: str


@dataclass(frozen=True)
class Tuned:
    """Of one kernel: its trials in the model's order and which one is kept."""

    kernel: str
    trials: Sequence[Trial]
    best: int

    @property
    def choice(self) -> Choice:
        t = self.trials[self.best]
        return Choice(t.fields, t.code)


@dataclass(frozen=True)
class Tuning:
    """Of all kernels that a function becomes and that have a choice; `seconds` is the host's time, 0 from the cache."""

    kernels: Sequence[Tuned]
    seconds: float = field(compare=False, default=0.0)

    @property
    def choices(self) -> dict[str, Choice]:
        return {k.kernel: k.choice for k in self.kernels}


@dataclass(frozen=True)
class Problem:
    """What is tuned: a level T function with the dims of one call, for one machine."""

    func: Func
    machine: Machine
    passes: Sequence[Pass]
    exact: Mapping[str, int]
    upper: Mapping[str, int]
    binding: Mapping[str, int]


def search(problem: Problem, say: Callable[[str], None] = lambda _: None, *, anew: bool = False) -> Tuning:
    """From the cache, or measured; `anew`: measured in any case."""
    path = cache_folder() / f"tuning-{_digest(problem)}"
    if not anew and (body := read_entry(path)) is not None:
        return _read(json.loads(body))
    begin = time.perf_counter()
    tuning = Tuning([tune_kernel(problem, name, options, say) for name, options in spaces(problem)])
    write_entry(path, json.dumps([asdict(k) for k in tuning.kernels]).encode())
    return Tuning(tuning.kernels, time.perf_counter() - begin)


def _digest(p: Problem) -> str:
    version = source_hash("frontend", "ir", "passes", "codegen_rvgpu", "isa", "sim", "runtime")
    parts = [version, print_func(p.func), repr(p.machine), print_passes(p.passes), *(sorted(x.items()) for x in (p.exact, p.upper, p.binding))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(raw: Sequence[Mapping[str, object]]) -> Tuning:
    return Tuning([Tuned(str(k["kernel"]), [Trial(**t) for t in k["trials"]], int(k["best"])) for k in raw])  # type: ignore[attr-defined,call-overload]


def spaces(p: Problem) -> list[tuple[str, list[tuple[Tiling, Price]]]]:
    """The kernels with more than one tiling, each with all of them in the model's order."""
    before = [q for q in p.passes if q.level == "tensor" and q.name != "tile"]
    tile: Tile = next((q for q in p.passes if isinstance(q, Tile)), Tile())  # type: ignore[unreachable,assignment]
    context = Context(Facts.of(p.machine), p.exact, p.upper, extents=p.binding)
    out = []
    for f in run_passes([p.func], before, context):
        assert isinstance(f, Func)
        options = tile.alternatives(f, context)
        if len(options) > 1:
            out.append((f.name, options))
    return out


def tune_kernel(p: Problem, name: str, options: Sequence[tuple[Tiling, Price]], say: Callable[[str], None]) -> Tuned:
    top = [o for o in options[:TOP] if o[1].cycles <= WORTH * options[0][1].cycles]
    say(f"{name}: {len(top)} of {len(options)} tilings")
    subject = Subject(print_func(p.func), name, p.machine, print_passes(p.passes), p.exact, p.upper, p.binding)
    measured = measure_all(subject, [request(t, price, p.machine.gpu.cores, top[0][1].cycles if n else None) for n, (t, price) in enumerate(top)])
    trials = [Trial(fields_of(t), price.cycles, m.cycles, m.sample, m.code) for (t, price), m in zip(top, measured, strict=True)]
    return Tuned(name, trials, best_of(measured))


def request(t: Tiling, price: Price, cores: int, base: float | None) -> Request:
    """How a tiling is measured: whole, or every n-th work item; `base`: cycles of the model's pick, which itself has no limit."""
    sample, rounds = 1, -(-price.items // (cores * price.teams))
    least = ROUNDS if price.teams == 1 else TEAM_ROUNDS
    if price.cycles > SAMPLED and rounds >= 2 * least:
        most = min(round(price.cycles / SAMPLE_CYCLES), rounds // least)
        sample = max((n for n in range(2, most + 1) if rounds % n == 0), default=most)  # every core's share is then represented alike
    return Request(fields_of(t), price.items, price.fixed, sample, None if base is None else round(LIMIT * base) + 20_000)


def best_of(measured: Sequence[Measured]) -> int:
    """The fastest; the first where none is faster by more than what an estimate may be wrong."""
    cycles = [float("inf") if m.cycles is None else m.cycles for m in measured]
    best = min(range(len(cycles)), key=lambda n: (cycles[n], n))
    margin = MARGIN if measured[best].sample > 1 or measured[0].sample > 1 else 0.0
    return best if cycles[best] < cycles[0] * (1 - margin) else 0
