"""Random well-typed programs of the language and what must hold for each: `make fuzz-kernels MINUTES=n`, and a short profile in the tests.

    python -m rvgpu.testing --minutes 4 [--seed N] [--out FOLDER]

A program compiles, runs on the simulator and meets its error bounds, with the same bytes whatever the number of cores and warps; and after every
pass its NumPy meaning is still within them. What the compiler refuses with a location is counted, not a failure. A failing program shrinks and is
written as FOLDER/NAME.rvg with the command that shows the failure. Needs Hypothesis, a development dependency.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from rvgpu.errors import EXIT_REJECTED, RvgpuError
from rvgpu.ir.binding import bind
from rvgpu.ir.bounds import compare, reference
from rvgpu.ir.core import Func
from rvgpu.ir.dims import value_of
from rvgpu.ir.evaluate import evaluate
from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.tile_eval import run_kernel
from rvgpu.isa.machine import load_machine
from rvgpu.passes.context import Context, Facts
from rvgpu.passes.pipeline import PIPELINE, Pass, Unit, run_passes
from rvgpu.runtime.inputs import random_inputs
from rvgpu.runtime.kernel import Kernel, bucket, kernel

MACHINES: tuple[tuple[str, Mapping[str, int]], ...] = (
    ("base", {}), ("base", {"vector.vlen": 256, "matrix.te": 32}), ("base", {"vector.vlen": 1024, "matrix.te": 64}), ("edge", {}))
SIZES = (8, 1, 2, 3, 5, 16, 17, 33, 64, 65, 100)
SMALL = (2, 1, 3, 5, 9)
SHAPES = tuple(tuple(s) for s in ("MN", "M", "N", "NM", "MK", "KN", "NK", "BMN", "BMK", "BKN"))
STORED = ("f32", "bf16", "f16")
KINDS = ("unary", "binary", "cast", "mask", "reduce", "normalise", "contract", "structure", "attention", "norm", "gated", "integers", "literal",
         "places", "small")
UNARY = ("relu({})", "-{}", "abs({})", "exp(minimum({}, 4.0))", "tanh({})", "sigmoid({})", "silu({})", "gelu({})", "gelu({}, tanh=True)", "erf({})",
         "sqrt(abs({}) + 0.5)", "log(abs({}) + 0.5)", "rsqrt(abs({}) + 0.5)", "exp2(minimum({}, 4.0))", "log2(abs({}) + 0.5)", "floor({})",
         "round({})", "{} ** 2", "{} ** 3", "clamp({}, -1.5, 2.0)")
REFUSED = frozenset({"E302", "E303", "E304", "E305", "E306", "E310", "E314"})  # documented limits (ARCHITECTURE.md), each with a location
Choose = Callable[[int], int]  # a number below n; 0 is the simplest


@dataclass(frozen=True)
class Program:
    """One kernel's text, the dims' values, the machine, the seed of the inputs."""

    text: str
    dims: Mapping[str, int]
    machine: str = "base"
    overrides: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0

    def command(self, path: str) -> str:
        dims = "".join(f" -D {n}={v}" for n, v in self.dims.items())
        sets = "".join(f" --set {n}={v}" for n, v in self.overrides.items())
        return f"rvgpu run {path}{dims} --machine {self.machine}{sets} --seed {self.seed} --check"


@dataclass(frozen=True)
class Operand:
    name: str
    dims: tuple[str, ...]
    dtype: str = "f32"


class Grower:
    """Grows a program statement by statement; `pool` holds the values so far, all of them floats."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.params: list[Operand] = []
        self.pool: list[Operand] = []
        self.lines: list[str] = []

    def one(self, items: Sequence[Any]) -> Any:
        return items[self.choose(len(items))]

    def param(self, dims: tuple[str, ...] | None = None, dtype: str | None = None) -> Operand:
        if dims is None:
            dims = self.one(SHAPES)
        p = Operand(f"x{len(self.params)}", dims, dtype or self.one(STORED))
        self.params.append(p)
        return p

    def let(self, text: str, dims: Iterable[str], dtype: str = "f32") -> Operand:
        v = Operand(f"v{len(self.lines)}", tuple(dims), dtype)
        self.lines.append(f"{v.name} = {text}")
        self.pool.append(v)
        return v

    def pick(self, has: int = 0) -> Operand:
        """A value with at least `has` dims: an old one or a new parameter."""
        found = [v for v in self.pool if len(v.dims) >= has][::-1]
        at = self.choose(len(found) + (len(self.params) < 4)) if found else 0
        if at < len(found):
            return found[at]
        p = self.param()
        self.pool.append(p)
        return p

    def step(self) -> None:
        getattr(self, self.one(KINDS))()

    # -- statements
    def unary(self) -> None:
        x = self.pick()
        form = self.one(UNARY)
        self.let(form.format(x.name), x.dims, x.dtype if form in ("relu({})", "-{}", "abs({})") and x.dtype == "f32" else "f32")

    def literal(self) -> None:
        x = self.pick()
        self.let(self.one(("{} + 1.0", "{} * 0.5", "2.0 - {}", "{} / 3.0", "1.0 / (abs({}) + 1.0)", "maximum({}, 0.25)")).format(x.name), x.dims)

    def binary(self) -> None:
        x, y = self.pick(), self.pick()
        form = self.one(("{} + {}", "{} * {}", "{} - {}", "{} / (abs({}) + 1.0)", "maximum({} + 0.0, {})", "minimum({} + 0.0, {})"))
        self.let(form.format(x.name, y.name), dict.fromkeys((*x.dims, *y.dims)))

    def cast(self) -> None:
        x = self.pick()
        dtype = self.one(("f32", "bf16", "f16"))
        self.let(f"{dtype}({x.name})", x.dims, dtype)

    def mask(self) -> None:
        x = self.pick(1)
        d, e = self.one(x.dims), self.one(("M", "N", "K"))
        sign, c = self.one(("<=", ">", "!=")), self.choose(5) - 2
        condition = self.one((f"iota({d}) {sign} iota({e}) + {c}", f"iota({d}) {sign} {c + 3}", f"iota({d}) {sign} size({d}) - {c + 3}"))
        if self.choose(4) == 3:
            condition = f"({condition}) {self.one('&|')} ({x.name} > 0.25)"
        made = dict.fromkeys((*x.dims, *((e,) if f"iota({e})" in condition else ())))
        self.let(f"where({condition}, f32({x.name}), {self.one(('0.0', '1.0', '-2.5'))})", made)

    def reduce(self) -> None:
        x = self.pick(1)
        over = self.one([(d,) for d in x.dims[::-1]] + ([x.dims] if len(x.dims) > 1 else []))
        name = self.one(("sum", "amax", "amin", "mean", "var", "logsumexp"))
        self.let(f"{name}(f32({x.name}), over={over[0] if len(over) == 1 else '(' + ', '.join(over) + ')'})", [d for d in x.dims if d not in over])

    def normalise(self) -> None:
        """Softmax, by name or written out, sometimes under a mask."""
        x = self.pick(1)
        d = self.one(x.dims[::-1])
        s = x.name
        if self.choose(2):
            s = self.let(f"where(iota({d}) < {self.choose(6)}, f32({s}), -inf)", x.dims).name
            self.pool.pop()  # -inf would meet what is not made for it
        if self.choose(2):
            e = self.let(f"exp(f32({x.name}) - amax(f32({x.name}), over={d}))", x.dims)
            self.let(f"{e.name} / sum({e.name}, over={d})", x.dims)
        else:
            self.let(f"softmax({s}, over={d})", x.dims)

    def contract(self) -> None:
        x, y = self.pick(1), self.pick(1)
        shared = [d for d in x.dims if d in y.dims]
        if not shared:
            y = self.param(self.one([(x.dims[-1], n) for n in ("N", "M", "K") if n != x.dims[-1]]), x.dtype)
            self.pool.append(y)
            shared = [x.dims[-1]]
        k, dtype = self.one(shared), self.one(STORED)
        out = [d for d in dict.fromkeys((*x.dims, *y.dims)) if d != k]
        v = self.let(f"dot({dtype}({x.name}), {dtype}({y.name}), over={k})", out)
        if self.choose(2):
            stored = self.one(STORED)
            self.let(f"{stored}({v.name} * 0.25)", out, stored)

    def structure(self) -> None:
        """Shapes change and come back: concat, then a part."""
        x = self.pick(1)
        d = self.one(x.dims)
        if any(d != o and d in o for o in x.dims):
            return
        both = self.let(f"concat(f32({x.name}), -f32({x.name}), over={d})", x.dims)
        self.pool.pop()
        other = self.let(f"slice({both.name}, 2 * {d}, {self.one(('0', d))}, {d})", x.dims)
        self.let(f"f32({x.name}) * {other.name}", x.dims)

    def places(self) -> None:
        """Reads at another place: a gather by positions, by arithmetic, of one element; padding; where the largest stands."""
        x = self.pick(1)
        d = self.one(x.dims[::-1])
        rest = [e for e in x.dims if e != d]
        form = self.choose(5)
        if form == 0:
            self.let(f"f32({x.name}) + take({x.name}, size({d}) - 1 - iota({d}), along={d})", x.dims)
        elif form == 1:
            other = self.one([e for e in ("M", "N", "K", "B") if e != d])
            ids = self.param((other,), "u8")
            if other in x.dims:
                self.let(f"f32(take({x.name}, {ids.name}, along={d}))", rest)
            else:
                self.let(f"f32(take({x.name}, {ids.name}, along={d}))", [other if e == d else e for e in x.dims])
        elif form == 2:
            wide = self.let(f"pad({x.name}, {d}, 1, {d} + 2, value={self.one(('0', '1', '-2'))})", x.dims)
            self.pool.pop()
            self.let(f"f32({x.name}) - slice({wide.name}, {d} + 2, {self.one(('0', '2'))}, {d})", x.dims)
        elif form == 3:
            self.let(f"f32(argmax({x.name}, over={d}))", rest)
        else:
            both = self.let(f"concat(f32({x.name}), f32({x.name}) * 0.5, over={d})", rest)
            self.pool.pop()
            self.let(f"sum({both.name}, over=2 * {d})", rest)

    def small(self) -> None:
        """8-bit floats and 4-bit integers, stored or rounded to; 8-bit factors as 16-bit ones."""
        dtype = self.one(("e4m3", "e5m2", "i4", "i8"))
        if self.choose(2):
            wide = self.one(STORED[1:])
            a, b = self.param(("M", "K"), wide), self.param(("K", "N"), dtype)
            self.let(f"f32({a.name} @ {wide}({b.name})) * 0.125", ("M", "N"))
        else:
            x = self.pick(1)
            self.let(f"f32({dtype}({x.name})) + 0.5", x.dims)

    def attention(self) -> None:
        lead = self.one(((), ("B",)))
        keys = self.one((*STORED, "i8"))
        values = keys if keys in STORED and self.choose(3) < 2 else self.one(STORED)
        q, k = self.param((*lead, "M", "K"), keys), self.param((*lead, "N", "K"), keys)
        v = self.param((*lead, "N", "K"), values)
        s = self.let(f"f32({q.name} @ {k.name}) * 0.3", (*lead, "M", "N")).name
        self.pool.pop()
        form = self.choose(4)
        if form == 1:
            s = f"where(iota(N) <= iota(M) + (size(N) - size(M)), {s}, -inf)"
        elif form == 2:
            s = f"where((iota(N) <= iota(M)) & (iota(N) > iota(M) - 4), {s}, -inf)"
        elif form == 3:
            s = f"5.0 * tanh({s} / 5.0)"
        p = self.let(s, (*lead, "M", "N"))
        self.pool.pop()
        self.let(f"softmax({p.name}, over=N) @ {v.name}", (*lead, "M", "K"))
        if self.choose(3) == 2:
            self.let(f"logsumexp({p.name}, over=N)", (*lead, "M"))
            self.pool.pop()

    def norm(self) -> None:
        x = self.pick(1)
        d = x.dims[-1]
        w = self.param((d,))
        c = self.let(f"f32({x.name}) - mean(f32({x.name}), over={d})" if self.choose(2) else f"f32({x.name})", x.dims)
        self.let(f"{c.name} * rsqrt(mean({c.name} * {c.name}, over={d}) + 0.001) * {w.name}", x.dims)

    def gated(self) -> None:
        dtype = self.one(STORED[1:])
        x, a, b = self.param(("M", "K"), dtype), self.param(("K", "N"), dtype), self.param(("K", "N"), dtype)
        self.let(f"{self.one(('silu', 'gelu', 'sigmoid'))}(f32({x.name} @ {a.name}) * 0.25) * ({x.name} @ {b.name})", ("M", "N"))

    def integers(self) -> None:
        dtype = self.one(("i8", "u8"))
        a, b, scale = self.param(("M", "K"), dtype), self.param(("K", "N"), dtype), self.param((self.one("MN"),), "f32")
        self.let(f"f32({a.name} @ {b.name}) * {scale.name} * 0.01", ("M", "N"))

    def text(self) -> str:
        results = list(dict.fromkeys([v for v in self.pool if v.name.startswith("v")][:-4:-1]))[:1 + self.choose(3)]
        if not results:
            results = [self.let(f"{self.pick().name} + 1.0", self.pool[-1].dims)]
        types = [f"{self.one(STORED)}{self.brackets(v.dims, True)}" for v in results]
        head = ", ".join(f"{p.name}: {p.dtype}{self.brackets(p.dims)}" for p in self.params)
        body = "".join(f"    {line}\n" for line in self.lines)
        out = types[0] if len(types) == 1 else f"({', '.join(types)})"
        return f"def f({head}) -> {out}:\n{body}    return {', '.join(v.name for v in results)}\n"

    def brackets(self, dims: tuple[str, ...], turn: bool = False) -> str:
        """`[M, N]`, in another order now and then."""
        if turn and len(dims) > 1 and self.choose(4) == 3:
            dims = dims[::-1]
        return f"[{', '.join(dims)}]" if dims else ""


@st.composite
def programs(draw: st.DrawFn, steps: int = 6, sizes: Sequence[int] = SIZES) -> Program:
    """A program of up to `steps` statements; it shrinks towards fewer and simpler ones, small dims and `base`."""
    def choose(n: int) -> int:
        return draw(st.integers(0, n - 1)) if n > 1 else 0

    g = Grower(choose)
    for _ in range(1 + choose(steps)):
        g.step()
    text = g.text()
    names = dict.fromkeys(d for p in g.params for d in p.dims)
    masks = [d for d in ("M", "N", "K") if d not in names and f"iota({d})" in text]
    for d in masks:  # a dim that no argument binds
        text = text.replace("def f(", f"def f(x{len(g.params)}: f32[{d}], ", 1)
        g.params.append(Operand(f"x{len(g.params)}", (d,)))
    few = SMALL if len(names) > 3 else sizes
    dims = {d: few[choose(len(few))] if d != "B" else SMALL[choose(len(SMALL))] for d in [*names, *masks]}
    machine, overrides = MACHINES[choose(len(MACHINES))]
    return Program(text, dims, machine, overrides, choose(3))


# -- what must hold

class Failure(AssertionError):
    """A property of a program does not hold."""


def refused(e: RvgpuError) -> bool:
    """A documented limit, said with a location."""
    return e.code in REFUSED and e.exit_code == EXIT_REJECTED and e.loc is not None


def check_run(p: Program) -> str:
    """"ok", or the code of the refusal. Failure: beyond the bound, or other bytes on another number of cores and warps."""
    k = kernel(p.text)
    binding = bind(k.func, {}, p.dims)
    arrays = random_inputs(k.func, binding, p.seed)
    try:
        r = k.compile(load_machine(p.machine, p.overrides)).run(*arrays, check=True, max_cycles=20_000_000)
    except RvgpuError as e:
        if refused(e):
            return e.code
        raise
    if not r.stats["check"]["passed"]:
        raise Failure(f"check failed: {r.stats['check']['bound_fraction']:.3g} of the bound")
    if r.stats["roofline"]["fraction"] > 1:
        raise Failure("faster than the roofline")
    other = k.compile(load_machine(p.machine, {**p.overrides, "gpu.cores": 3, "core.warps": 2})).run(*arrays)
    for name, x in r.outputs.items():
        if other.outputs[name].tobytes() != x.tobytes():
            raise Failure(f"{name} has other bytes on 3 cores of 2 warps")
    return "ok"


def meaning(units: Sequence[Unit], arrays: Mapping[str, Any], scalars: Mapping[str, Any], dims: Mapping[str, int], ctas: int = 2) -> dict[str, Any]:
    """What functions of either level compute in NumPy, one after the other; all tensors by name."""
    known = dict(arrays)
    for u in units:
        if isinstance(u, Func):
            made = evaluate(u, {p.name: known[p.name] for p in u.params if not p.keyword}, dict(scalars), dims=dims)
            known.update(zip(u.result_names, made, strict=True))
            continue
        for t in u.tensors:
            if t.output:
                known[t.name] = np.zeros([d.value(dims) for d in t.dims], numpy_dtype(t.dtype))
        own = {n: scalars[n] for n, _ in u.scalars}
        run_kernel(u, {t.name: known[t.name] for t in u.tensors}, own, {n: value_of(n, dims) for n in u.dims}, ctas=ctas)
    return known


def check_passes(k: Kernel, dims: Mapping[str, int], facts: Facts, arrays: Mapping[str, Any] | None = None, scalars: Mapping[str, Any] | None = None,
                 look: Callable[[Pass, Sequence[Unit]], None] = lambda p, units: None, first: str = "expand",
                 passes: Sequence[Pass] = PIPELINE) -> str:
    """After every pass from `first` on the meaning is within the float64 bounds of the program, and passes over level K change no bit.
    "ok", or the code of a refusal."""
    func, scalars = k.func, scalars or {}
    if arrays is None:
        arrays = dict(zip([p.name for p in func.params if not p.keyword], random_inputs(func, dims), strict=True))
    refs, bounds = reference(func, arrays, scalars, dims=dims)
    names, tiled = [p.name for p in passes], []

    def after(p: Pass, units: Sequence[Unit], _seconds: float) -> None:
        look(p, units)
        if names.index(p.name) < names.index(first):
            return
        known = meaning(units, arrays, scalars, dims)
        outs = [known[n] for n in func.result_names]
        for name, out, ref, bound in zip(func.result_names, outs, refs, bounds, strict=True):
            if not (found := compare(out, ref, bound)).passed:
                raise Failure(f"after {p.name}: {name} is {found.bound_fraction:.3g} of the bound off")
        if not isinstance(units[0], Func):
            tiled.append(b"".join(x.tobytes() for x in outs))
            if tiled[-1] != tiled[0]:
                raise Failure(f"{p.name} changes bytes: passes over level K move work in time and place, never a bit of the result")

    try:
        run_passes([func], passes, Context(facts, dict(dims), {n: bucket(v) for n, v in dims.items()}), after)
    except RvgpuError as e:
        if refused(e):
            return e.code
        raise
    return "ok"


def check_program(p: Program) -> str:
    """Both properties: on the simulator, and pass by pass with small tiles where sizes are small."""
    said = check_run(p)
    if said == "ok" and max(p.dims.values(), default=1) <= 33:
        k = kernel(p.text)
        small = {"vector.vlen": 128, "matrix.te": 8, "core.warps": 1 + p.seed}
        check_passes(k, bind(k.func, {}, p.dims), Facts.of(load_machine("base", small)))
    return said


# -- for long

def signature(e: BaseException) -> str:
    """What makes two failures the same."""
    said = str(e.message if isinstance(e, RvgpuError) else e).splitlines() or [""]
    return f"{e.code if isinstance(e, RvgpuError) else type(e).__name__}: {''.join(c for c in said[0] if not c.isdigit())[:60]}"


def write_reproducer(p: Program, e: BaseException, folder: Path) -> Path:
    """FOLDER/NAME.rvg: the program below its failure and the command that shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"fuzz-{hashlib.sha256(p.text.encode()).hexdigest()[:8]}.rvg"
    said = str(e).splitlines() or [""]
    path.write_text(f"# {type(e).__name__}: {said[0][:200]}\n# {p.command(path.name)}\n\n{p.text}")
    return path


def fuzz(minutes: float, folder: Path, start: int = 0, check: Callable[[Program], str] = check_program) -> tuple[Counter[str], list[Path]]:
    """Programs until the time is over: how many of each outcome, and the reproducers."""
    end, counts, found, known, batch = time.monotonic() + 60 * minutes, Counter[str](), [], set[str](), 0
    last: list[tuple[Program, BaseException]] = []

    def one(p: Program) -> None:
        if time.monotonic() > end and not last:
            return
        try:
            counts[check(p)] += 1
        except Exception as e:
            if signature(e) in known or last and signature(e) != signature(last[-1][1]):
                counts["again"] += 1
                return
            last.append((p, e))
            raise

    while time.monotonic() < end:
        run = settings(max_examples=200, database=None, deadline=None, phases=(Phase.generate, Phase.shrink), print_blob=False,
                       suppress_health_check=list(HealthCheck))(given(programs())(one))
        last.clear()
        try:
            seed(start + batch)(run)()
        except Exception:
            if not last:
                raise
            p, e = last[-1]
            known.add(signature(e))
            found.append(write_reproducer(p, e, folder))
            counts["failed"] += 1
            print(f"{found[-1]}: {signature(e)}", flush=True)
        batch += 1
    return counts, found


def main() -> int:
    a = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    a.add_argument("--minutes", type=float, default=4)
    a.add_argument("--seed", type=int, default=int(time.time()), help="by default another one each time")
    a.add_argument("--out", type=Path, default=Path("out"))
    args = a.parse_args()
    counts, found = fuzz(args.minutes, args.out, args.seed)
    print(f"seed {args.seed}: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()))
    return 3 if found else 0


if __name__ == "__main__":
    sys.exit(main())
