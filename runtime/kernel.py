"""Kernels in Python: compile for a machine, run on the simulator, compare with float64."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import inspect
import operator
import os
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from rvgpu.errors import EXIT_USAGE, RvgpuError, did_you_mean
from rvgpu.frontend.build import Kernel as Parsed
from rvgpu.frontend.build import lower, parse_text
from rvgpu.ir.binding import bind
from rvgpu.ir.bounds import Check, compare, reference
from rvgpu.ir.core import Func
from rvgpu.ir.evaluate import evaluate
from rvgpu.ir.meaning import fits
from rvgpu.ir.numeric import numpy_dtype
from rvgpu.ir.text import print_func, print_funcs
from rvgpu.isa.machine import Machine, load_machine
from rvgpu.passes.context import Choice, Context, Facts
from rvgpu.passes.pipeline import PIPELINE, Hook, Pass, Unit, parse_passes, print_passes, run_passes, static_dims
from rvgpu.passes.schedule import anonymous
from rvgpu.passes.tile import fields_of
from rvgpu.runtime.code import Code, cached, make_code, write_cache
from rvgpu.runtime.launch import run_code, scalar_of
from rvgpu.runtime.stats import Work, describe, statistics, work_of
from rvgpu.runtime.tables import shipped
from rvgpu.runtime.tune import Problem, Tuning, search, spaces
from rvgpu.sim.device import RunStats
from rvgpu.sim.trace import Trace

TUNE = ("shipped", "model", "search")  # where tilings come from
MOST = 1 << 31  # no dim is as large
ASSUMED = 4096  # the bucket of a dim that nothing has bound yet, where code is looked at without arrays


def bucket(n: int) -> int:
    """The power of two at or above n: kernels are compiled per bucket."""
    return 1 << max(0, (n - 1).bit_length())


def dims_of(func: Func, given: Mapping[str, Any]) -> dict[str, int]:
    """The values of dims by name; E208 for a name that the kernel has not, or a value that no dim has."""
    out, known = {}, func.dim_names()
    for name, value in given.items():
        if name not in known:
            raise RvgpuError("E208", f"{func.name} has no dim {name}", func.loc).hint(f"dims: {', '.join(known)}")
        try:
            out[name] = operator.index(value)
        except TypeError:
            out[name] = -1
        if not 0 <= out[name] < MOST:
            raise RvgpuError("E208", f"{name}={value!r}: a dim is an integer of at least 0, below 2**31", func.loc)
    return out


class Kernel:
    """A kernel of the language. Call it with NumPy arrays, or `compile()` and `run()` for cycles and their cause."""

    def __init__(self, parsed: Parsed, dtypes: Mapping[str, str] | None = None, *, tune: str = "shipped", passes: str | None = None) -> None:
        self.parsed = dataclasses.replace(parsed, dtypes={**parsed.dtypes, **(dtypes or {})})
        self.func = lower(self.parsed)
        self.__name__ = self.func.name
        if tune not in TUNE:
            raise RvgpuError("E209", f"tune={tune!r}: one of {', '.join(TUNE)} needed", self.func.loc, exit_code=EXIT_USAGE)
        self.tuning = tune
        self.passes = list(PIPELINE) if passes is None else parse_passes(passes)

    @cached_property
    def text(self) -> str:
        """The tensor IR as text, with locations: all that the code depends on besides machine, dims and passes."""
        return print_func(self.func)

    def with_dtypes(self, **dtypes: str) -> Kernel:
        """The same kernel with dtypes replaced throughout, e.g. bf16="f16"."""
        return Kernel(self.parsed, {old: str(new) for old, new in dtypes.items()}, tune=self.tuning, passes=print_passes(self.passes))

    def compile(self, machine: str | Machine | None = None, *, overrides: Mapping[str, Any] | None = None, passes: list[Pass] | None = None,
                **dims: int) -> Compiled:
        """For a machine (a shipped name, a .toml file or a Machine; RVGPU_MACHINE or `base` when not given), with `dims` compiled in."""
        machine = machine or os.environ.get("RVGPU_MACHINE") or "base"
        m = load_machine(machine, overrides) if isinstance(machine, str) else machine
        return Compiled(self, m, dims, passes)

    def tune(self, machine: str | Machine | None = None, **dims: int) -> Tuning:
        """Measures the tilings of a call with these dims (runtime/tune.py); a kernel with tune="search" finds the answer in the cache."""
        return self.compile(machine).tune(bind(self.func, {}, dims_of(self.func, dims)))

    @cached_property
    def math(self) -> str:
        """The tensor IR without the kernel's own names."""
        return anonymous(self.func)

    def __call__(self, *arrays: Any, **scalars: Any) -> Any:
        """The results as arrays: on the simulator, or by NumPy inside `rv.interpret()`."""
        if _INTERPRET[-1]:
            inputs, given = self.arguments(arrays, scalars)
            return _one_or_all(evaluate(self.func, inputs, given))
        return _one_or_all(list(self.compile().run(*arrays, **scalars).outputs.values()))

    def reference(self, *arrays: Any, **scalars: Any) -> Any:
        """float64 without intermediate rounding: the oracle of `check`."""
        inputs, given = self.arguments(arrays, scalars)
        values, _ = reference(self.func, inputs, given)
        return _one_or_all(values)

    def arguments(self, arrays: tuple[Any, ...], scalars: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arrays and scalars by name, of the declared dtypes. E205 count, E206 dtype, E207 scalars."""
        tensors = [p for p in self.func.params if not p.keyword]
        if len(arrays) != len(tensors):
            raise RvgpuError("E205", f"{self.func.name} takes {len(tensors)} tensors ({', '.join(p.name for p in tensors)}), {len(arrays)} given",
                             self.func.loc)
        inputs = {}
        for p, a in zip(tensors, arrays, strict=True):
            try:
                x, want = np.asarray(a), numpy_dtype(p.value.tensor.dtype)
            except ValueError as why:
                raise RvgpuError("E206", f"{p.name} is {p.value.tensor}, its argument is no array: {why}", p.loc) from None
            if x.dtype != want:
                raise RvgpuError("E206", f"{p.name} is {p.value.tensor.dtype}, its argument is {x.dtype}", p.loc).hint(
                    f"convert it: {p.name}.astype({want.name!r})" + (" with ml_dtypes" if want.kind == "V" else ""))
            inputs[p.name] = np.ascontiguousarray(x)
        known = {p.name for p in self.func.params if p.keyword}
        for name in scalars:
            if name not in known:
                near = did_you_mean(name, known)
                e = RvgpuError("E207", f"{self.func.name} has no scalar {name}", self.func.loc)
                raise e.hint(f"did you mean {near}?") if near else e
        given = {}
        for p in self.func.params:
            if p.keyword:
                if p.name not in scalars and p.default is None:
                    raise RvgpuError("E207", f"{self.func.name} needs the scalar {p.name}=", p.loc)
                given[p.name] = scalar_of(p.name, scalars.get(p.name, p.default), p.value.tensor.dtype, p.loc)
        return inputs, given


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


_INTERPRET = [os.environ.get("RVGPU_INTERPRET", "") not in ("", "0")]


@contextlib.contextmanager
def interpret() -> Iterator[None]:
    """Inside, calling a kernel gives the NumPy meaning of its tensor IR with declared dtypes; no machine, no cycles."""
    _INTERPRET.append(True)
    try:
        yield
    finally:
        _INTERPRET.pop()


@overload
def kernel(source: str | Callable[..., Any], *, tune: str = ..., passes: str | None = ...) -> Kernel: ...
@overload
def kernel(*, tune: str = ..., passes: str | None = ...) -> Callable[[Callable[..., Any]], Kernel]: ...
def kernel(source: str | Callable[..., Any] | None = None, *, tune: str = "shipped", passes: str | None = None) -> Any:
    """From a decorated function or from text with one kernel (of several the last). `tune`: where its tilings come from: "shipped" (the table that
    comes with rvgpu, else the model), "model", or "search" (measured at the first call of a shape, then cached); cycles depend on it, bytes do not.
    `passes`: options for this kernel, such as "+split{size=2048}"; only here can what changes bytes be set."""
    if source is None:
        return lambda f: kernel(f, tune=tune, passes=passes)
    if not isinstance(source, str) and not inspect.isfunction(source):
        raise RvgpuError("E106", f"a function or text is needed, found {type(source).__name__}", exit_code=EXIT_USAGE)
    if isinstance(source, str):
        found = parse_text(textwrap.dedent(source), "<text>")
        if not found:
            raise RvgpuError("E106", "the text holds no kernel")
        return Kernel(list(found.values())[-1], tune=tune, passes=passes)
    try:
        lines, first = inspect.getsourcelines(source)
    except OSError:
        raise RvgpuError("E106", f"the source of {source.__name__} is not in a file").hint(
            "pass the kernel as text: rv.kernel('''def ...''')") from None
    skip = next((n for n, line in enumerate(lines) if line.lstrip().startswith("def ")), 0)  # decorators may span lines
    text, first = "".join(lines[skip:]), first + skip
    indent = len(text) - len(text.lstrip())
    names = dict(source.__globals__) | {k: c.cell_contents for k, c in zip(source.__code__.co_freevars, source.__closure__ or (), strict=True)}
    names = {k: v.parsed if isinstance(v, Kernel) else v for k, v in names.items()}
    found = parse_text(textwrap.dedent(text), inspect.getsourcefile(source) or "?", first, indent, names)
    return Kernel(found[source.__name__], tune=tune, passes=passes)


def load_file(path: str) -> dict[str, Parsed]:
    """The kernels of a .rvg file."""
    return parse_text(read_text(path), path)


def read_text(path: str) -> str:
    """A file's text; E001 when it cannot be read."""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise RvgpuError("E001", f"cannot read {path}: {why}", exit_code=EXIT_USAGE) from None


@dataclass
class Result:
    """Outputs by name, cycles, the statistics of `run --json`, and the check when asked for."""

    outputs: dict[str, Any]
    cycles: int
    stats: dict[str, Any]
    raw: RunStats = field(repr=False)
    traced: Callable[[], Trace] = field(repr=False)

    @property
    def out(self) -> Any:
        return next(iter(self.outputs.values()))

    def report(self, path: str | None = None) -> str:
        """The text report; also into a file when a path is given."""
        text = describe(self.stats)
        if path is not None:
            Path(path).write_text(text + "\n")
        return text

    def trace(self, path: str) -> Trace:
        """Writes a Perfetto trace of this run: the same run once more with recording on (results and cycles are the same)."""
        trace = self.traced()
        trace.write(path)
        return trace

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.report())}</pre>"


class Compiled:
    """A kernel for one machine; code is made per bucket of the dims that are not given to `compile()`."""

    def __init__(self, kernel: Kernel, machine: Machine, dims: Mapping[str, int], passes: list[Pass] | None = None) -> None:
        self.kernel, self.machine, self.dims = kernel, machine, dims_of(kernel.func, dims)
        self.passes = kernel.passes if passes is None else passes
        self.tuning = kernel.tuning
        self._tilings: dict[Any, list[Any]] = {}

    @cached_property
    def static(self) -> set[str]:
        return static_dims(self.kernel.func, self.machine)

    def context(self, binding: Mapping[str, int]) -> Context:
        """Dims given to compile() and those that decide the scratchpad's layout are exact; the others have their bucket."""
        exact = {n: v for n, v in binding.items() if n in self.dims or n in self.static}
        return Context(Facts.of(self.machine), exact, {n: bucket(v) for n, v in binding.items()}, extents=binding, tuned=self.choices(binding))

    def problem(self, binding: Mapping[str, int]) -> Problem:
        """What the tuner looks at."""
        exact = {n: v for n, v in binding.items() if n in self.dims or n in self.static}
        return Problem(self.kernel.func, self.machine, self.passes, exact, {n: bucket(v) for n, v in binding.items()}, binding)

    def tilings(self, binding: Mapping[str, int], tuned: Mapping[str, Choice]) -> list[Any]:
        """What P7 will choose for each kernel that has a choice; calls of a bucket that agree in it share their code."""
        key = tuple(sorted(binding.items()))
        if key not in self._tilings:
            self._tilings[key] = [[name, sorted(fields_of(options[0][0]).items())] for name, options in spaces(self.problem(binding))]
        return [*self._tilings[key], *sorted([n, sorted(c.fields.items()), c.code] for n, c in tuned.items())]

    def choices(self, binding: Mapping[str, int]) -> dict[str, Choice]:
        """What takes the place of the model's tilings, by kernel."""
        if self.tuning == "search":
            return self.tune(binding).choices
        if self.tuning == "model" or self.passes != list(PIPELINE):
            return {}
        names = self.kernel.func.dim_names()
        return shipped(self.kernel.func.name, self.kernel.math, self.machine, [binding[n] for n in names])

    def tune(self, binding: Mapping[str, int], say: Callable[[str], None] = lambda _: None) -> Tuning:
        """Measured for a call with these dims, or from the cache."""
        return search(self.problem(binding), say)

    def units(self, binding: Mapping[str, int] | None = None, *, passes: list[Pass] | None = None, hook: Hook | None = None) -> list[Unit]:
        """The functions after the passes."""
        return run_passes([self.kernel.func], self.passes if passes is None else passes, self.context(self._bound(binding)), hook)

    def _bound(self, binding: Mapping[str, int] | None) -> dict[str, int]:
        if binding is not None:
            return dict(binding)
        missing = sorted((self.static if not self.dims.keys() >= self.static else set()) - set(self.dims))
        if missing:
            raise RvgpuError("E304", f"{self.kernel.func.name} needs the value of {', '.join(missing)}: it decides the scratchpad's layout",
                             self.kernel.func.loc).hint(f"compile({missing[0]}=...)")
        return {n: self.dims.get(n, ASSUMED) for n in self.kernel.func.dim_names()}

    def code(self, binding: Mapping[str, int] | None = None) -> Code:
        """Code that is right for these dims and for every value of the others within their buckets; cached on disk."""
        begin = time.perf_counter()
        context = self.context(self._bound(binding))
        path, code = cached([self.kernel.text, sorted(context.exact.items()), sorted(context.upper.items()), repr(self.machine),
                             print_passes(self.passes), self.tilings(context.extents, context.tuned)])
        if code is None:
            code = make_code(run_passes([self.kernel.func], self.passes, context), self.machine)
            write_cache(path, code)
        code.compile_s = time.perf_counter() - begin
        return code

    @property
    def ir(self) -> dict[str, str]:
        """The text of every level: "tensor" (as written), "tile", "llvm"."""
        code = self.code()
        return {"tensor": self.kernel.text, "tile": print_funcs(self.units()), "llvm": "\n".join(k.llvm for k in code.kernels)}

    @property
    def asm(self) -> str:
        return "\n".join(k.asm for k in self.code().kernels)

    @property
    def object(self) -> bytes:
        """LLVM's object; of several kernels the first one's (`elf` holds all)."""
        return self.code().kernels[0].object

    @property
    def elf(self) -> bytes:
        """A static executable with all kernels and the launch note."""
        return self.code().elf()

    def cost(self, **dims: int) -> dict[str, float]:
        """Cycles by the analytic model of P7, per kernel; dims as for `compile()`."""
        at = Compiled(self.kernel, self.machine, {**self.dims, **dims}, self.passes)
        at.tuning = self.tuning
        context = at.context(at._bound(None))
        run_passes([self.kernel.func], self.passes, context)
        return {name: p.price.cycles for name, p in context.planned.items()}

    def run(self, *arrays: Any, check: bool = False, max_cycles: int | None = None, sanitize: bool | None = None, latency_seed: int | None = None,
            **scalars: Any) -> Result:
        """Runs on the simulator with NumPy arrays in declared order; scalars by keyword. `check` compares with float64, `sanitize` runs in
        checked mode (docs/checked.md), `latency_seed` varies every latency."""
        begin = time.perf_counter()
        func = self.kernel.func
        inputs, given = self.kernel.arguments(arrays, scalars)
        binding = bind(func, {n: x.shape for n, x in inputs.items()}, self.dims)
        for op in func.body.walk():
            fits(op, binding)
        code = self.code(binding)

        def launch(trace: bool) -> Any:
            return run_code(code, self.machine, binding, inputs, given, max_cycles=max_cycles, trace=trace, sanitize=sanitize,
                            latency_seed=latency_seed)

        done = launch(False)
        outputs = {n: done.outputs[n] for n in func.result_names}
        checks = [compare(x, v, b) for x, v, b in zip(outputs.values(), *reference(func, inputs, given, dims=binding), strict=True)] if check else []
        host = {"compile_s": code.compile_s, "engine_s": done.engine_s, "simulate_s": done.simulate_s, "total_s": time.perf_counter() - begin}
        work: Work = work_of(func, binding)
        stats = statistics(func.name, self.machine, binding, work, done.raw, _merged(checks), host)
        return Result(outputs, done.raw.cycles, stats, done.raw, lambda: launch(True).trace)


def _merged(checks: list[Check]) -> Check | None:
    if not checks:
        return None
    return Check(all(c.passed for c in checks), max(c.max_abs_error for c in checks), max(c.max_rel_error for c in checks),
                 max(c.bound_fraction for c in checks))
