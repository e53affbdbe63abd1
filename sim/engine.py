"""The compiled engine: handlers and the issue loop translated, optimised by LLVM for this host, and cached on disk.

A program gets handlers for the instructions (and element widths) that it contains; each handler set is one object file under the hash of
its IR, so a first run compiles what it needs and every later run loads it. A process of its own compiles the issue loop meanwhile.
"""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rvgpu.cache import cache_folder, read_entry, source_hash, write_entry
from rvgpu.errors import EXIT_SIM_FAULT, RvgpuError
from rvgpu.isa import softfloat
from rvgpu.isa.meaning import meaning, saturation
from rvgpu.isa.rows import BY_NAME, Row
from rvgpu.sim import (
    csr,
    handlers,
    handlers_atomic,
    handlers_fixed,
    handlers_float,
    handlers_matrix,
    handlers_memory,
    handlers_moves,
    handlers_tiles,
    handlers_vector,
    handlers_wide,
    harts,
    rounds,
    trap,
    turns,
)
from rvgpu.sim.check import rule, rule_binds
from rvgpu.sim.program import Key
from rvgpu.sim.translate import Unit, mentioned

Function = Callable[..., Any]
SEWS = (8, 16, 32, 64)
HOMES = (handlers, csr, trap, handlers_atomic, handlers_vector, handlers_wide, handlers_fixed, handlers_moves, handlers_memory, handlers_matrix,
         handlers_tiles)
LOOP = (rounds.run, rounds.drain, turns.start_cta, harts.run_harts)
Mode = tuple[int, int]  # of the issue loop: checked, latencies of a seed
PLAIN: Mode = (0, 0)
ARCH_PRCTL, REQ_XCOMP_PERM, XTILEDATA = 158, 0x1023, 18  # x86-64 Linux


def binds(row: Row, sew: int) -> dict[str, Any]:
    """What a row's template is specialised with."""
    out: dict[str, Any] = dict(row.args)
    fn = meaning(row)
    if fn is not None:
        out["OP"] = out["OP1"] = out["OP3"] = fn
    if (sat := saturation(row)) is not None:
        out["SAT"] = sat
    if row.kind == "amo":
        out["W"] = 8 * row.args["SIZE"]
        out["SWAP"] = int(row.op == "amoswap")
    if sew >= 0:
        out["SEW"] = SEWS[sew]
        out["W"] = 2 * SEWS[sew] if row.kind.startswith(FLOAT_WIDENS) else SEWS[sew]
    return out


FLOAT_WIDENS = ("vfwiden", "vfwide2", "vfwmac", "vfwred")  # kinds whose arithmetic is of 2 SEW bits
# element widths that a row has, by the beginning of its kind, when they are not all (or for floating point all but 8)
WIDTHS = dict.fromkeys(("vwiden", "vwide2", "vwmac", "vwred", "vnarrow", "vclip", "vwcvt_if", "vncvt_fi"), (8, 16, 32)) \
    | dict.fromkeys((*FLOAT_WIDENS, "vwcvt_ff", "vwcvt_fi", "vncvt_ff", "vncvt_if", "vncvt_odd"), (16, 32)) | {"vwmaccbf": (16,)}


def legal(row: Row, sew: int) -> bool:
    """Whether the element width is one that the instruction has (others fault as illegal vtype)."""
    if sew < 0:
        return True
    bits = SEWS[sew]
    if row.op == "vfexp" or row.op.startswith("vqdot"):
        return bits == 32
    if row.args.get("BF"):
        return bits == 16
    if row.kind == "vext":
        return bits // row.args["DIV"] >= 8
    own = max((k for k in WIDTHS if row.kind.startswith(k)), key=len, default="")
    return bits in WIDTHS[own] if own else not row.args.get("FP") or bits >= 16


# (kind, SEW index) whose template is not the kind's own
OTHER = {("mm_ff", 3): "mm_dd"} | {("vtzero", s): "vtzero_of" for s in range(4)} | {(k, s): k + "_of" for k in ("vtmv_vt", "vtmv_tv") for s in (0,
                                                                                                                                                1, 3)}


def check_of(row: Row, sew: int) -> tuple[Function, dict[str, Any]]:
    """The rule of checked mode for a row; E722 when its kind has none."""
    found = rule(row)
    if found is None:
        raise RvgpuError("E722", f"checked mode has no rule for {row.name} (kind {row.kind})", exit_code=EXIT_SIM_FAULT)
    return found[0], rule_binds(row, binds(row, sew))


def template(row: Row, sew: int) -> Callable[..., Any]:
    name = OTHER.get((row.kind, sew), row.kind)
    fn: Callable[..., Any] = next(getattr(home, name) for home in HOMES if hasattr(home, name))
    return fn


def handler(key: Key) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function to specialise, and what with. `sf.vfexp.v` rounds by a rule of its own and sets no flags, whatever fcsr says."""
    row = BY_NAME[key.row]
    fn, bound = template(row, key.sew), binds(row, key.sew)
    if not key.exact:
        return fn, bound
    arithmetic = softfloat.EXACT if row.op != "vfexp" else {}
    return handlers_float.exact, {**bound, **arithmetic, "BODY": fn, "EXACT": 1}


def specialisation(key: Key, checked: bool) -> tuple[Function, dict[str, Any]]:
    """The function of a key's handler, or its rule, and what it is bound to."""
    return check_of(BY_NAME[key.row], key.sew) if checked else handler(key)


@cache
def variant(key: Key, checked: bool = False) -> Hashable:
    """What a key's handler (or rule) does: keys whose templates and bindings are equal share it."""
    fn, bound = specialisation(key, checked)
    names = mentioned(fn, bound)
    return fn, tuple(sorted((k, v if isinstance(v, int) else f"{v.__module__}.{v.__name__}") for k, v in bound.items() if k in names))


class Engine:
    """Host code for the issue loop and for handlers, made on demand."""

    def __init__(self, amx: bool = True) -> None:
        """`amx`: products of bf16 by the host's matrix unit, where it has one; what they are does not depend on it."""
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.llvm = llvm
        self.machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=_host_features(llvm), opt=2, jit=True)
        self.jit = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self.machine)
        self.bound = {"AMX": int(amx and _has_amx(_host_features(llvm)))}
        self.host = f"{llvm.get_host_cpu_name()} {_host_features(llvm)} {llvm.llvm_version_info} {self.bound}"
        self.addresses: dict[Hashable, int] = {}
        self.loops: dict[Mode, dict[str, int]] = {}
        self.helper: subprocess.Popen[bytes] | None = None

    def _path(self, what: str) -> Path:
        key = f"{self.host}\n{source_hash('sim', 'isa')}\n{what}"
        return cache_folder() / f"engine-{hashlib.sha256(key.encode()).hexdigest()}.o"

    def load(self, functions: Mapping[str, tuple[Function, Mapping[str, Any]]], what: str) -> dict[str, int]:
        """Addresses of functions by symbol: (template, what it is specialised with); from the cache under the name `what` or made now."""
        path = self._path(what)
        code = read_entry(path)
        if code is None:
            unit = Unit()
            for symbol, (fn, bound) in functions.items():
                unit.add(fn, {**bound, **self.bound}, symbol)
            module = self.llvm.parse_assembly(unit.text())
            options = self.llvm.create_pipeline_tuning_options(speed_level=2)
            options.loop_vectorization = True
            options.slp_vectorization = False
            builder = self.llvm.create_pass_builder(self.machine, options)
            builder.getModulePassManager().run(module, builder)
            code = self.machine.emit_object(module)
            write_entry(path, code)
        self.jit.add_object_file(self.llvm.ObjectFileRef.from_data(code))
        self.jit.finalize_object()
        return {symbol: self.jit.get_function_address(symbol) for symbol in functions}

    def begin(self, mode: Mode = PLAIN) -> None:
        """Starts making the issue loop in a process of its own unless it is in the cache."""
        if mode not in self.loops and self.helper is None and not self._path(f"loop {mode}").exists():
            self.helper = subprocess.Popen([sys.executable, "-m", "rvgpu.sim.engine", *map(str, mode)], stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def core(self, mode: Mode = PLAIN) -> dict[str, int]:
        """Addresses of `run`, `drain` and `start_cta`."""
        if mode not in self.loops:
            if self.helper is not None:
                self.helper.wait()  # if it failed, the cache has nothing and the loop is made here
                self.helper = None
            bound = dict(zip(("CHECKED", "SEEDED"), mode, strict=True))
            symbol = "engine_{}_" + "_".join(map(str, mode))
            made = self.load({symbol.format(fn.__name__): (fn, bound) for fn in LOOP}, f"loop {mode}")
            self.loops[mode] = {fn.__name__: made[symbol.format(fn.__name__)] for fn in LOOP}
        return self.loops[mode]

    def call(self, name: str, *args: Any, mode: Mode = PLAIN) -> int:
        """`run`, `drain` or `start_cta`: numbers pass as 64-bit, structures by reference."""
        types = [ctypes.c_void_p if isinstance(a, ctypes.Structure) else ctypes.c_int64 for a in args]
        fn = ctypes.CFUNCTYPE(ctypes.c_int64, *types)(self.core(mode)[name])
        return int(fn(*(ctypes.addressof(a) if isinstance(a, ctypes.Structure) else a for a in args)))

    def handlers(self, wanted: set[Key]) -> dict[Key, int]:
        """Addresses of handlers; 0 for an element width that the row does not have. (row name, SEW index) will do for a key."""
        return self._made(wanted, False)

    def checks(self, wanted: set[Key]) -> dict[Key, int]:
        """The same of the rules of checked mode."""
        return self._made(wanted, True)

    def _made(self, wanted: set[Key], checked: bool) -> dict[Key, int]:
        kinds = {k: variant(Key(*k), checked) for k in sorted(wanted) if legal(BY_NAME[k[0]], k[1])}
        missing = {v: Key(*k) for k, v in reversed(kinds.items()) if v not in self.addresses}  # each by the first of its rows
        if missing:
            symbols = {f"h_{len(self.addresses) + n}": key for n, key in enumerate(sorted(missing.values()))}
            made = self.load({symbol: specialisation(key, checked) for symbol, key in symbols.items()}, f"{checked} {sorted(symbols.items())}")
            at = {key: made[symbol] for symbol, key in symbols.items()}
            self.addresses |= {v: at[k] for v, k in missing.items()}
        return {k: self.addresses[kinds[k]] if k in kinds else 0 for k in wanted}


def _host_features(llvm: Any) -> str:
    features = llvm.get_host_cpu_features()
    return str(features.flatten())


@cache
def _has_amx(features: str) -> bool:
    """Whether the host has AMX for bf16 and Linux lets this process use it (which it has to ask for)."""
    if "+amx-bf16" not in features or not sys.platform.startswith("linux"):
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, REQ_XCOMP_PERM, XTILEDATA) == 0


_ENGINE: list[Engine] = []


def engine() -> Engine:
    if not _ENGINE:
        _ENGINE.append(Engine())
    return _ENGINE[0]


if __name__ == "__main__":
    Engine().core((int(sys.argv[1]), int(sys.argv[2])))
