"""Machines as TOML: validated structures that the compiler and the simulator both read; any field can be overridden."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from rvgpu.errors import EXIT_USAGE, Loc, RvgpuError, did_you_mean
from rvgpu.isa.classes import VECTOR

FOLDER = Path(__file__).parent / "machines"


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Gpu(Part, frozen=True):
    cores: int
    clock_ghz: float
    launch_cycles: int
    cta_dispatch_cycles: int
    barrier_cycles: int


class Core(Part, frozen=True):
    """`write_after_write`: a register that another instruction still has to write takes a new value "ordered" (its first element comes after the
    old one's first); with "scalar" an x or f register waits until the old value is there; with "all" the result of a reduction too.
    `matrix`: whether there is a matrix "unit" or "none"; without one its instructions are illegal."""

    warps: int
    taken_branch_cycles: int
    queue_entries: int
    write_after_write: Literal["ordered", "scalar", "all"] = "ordered"
    matrix: Literal["unit", "none"] = "unit"


class Vector(Part, frozen=True):
    """`whole_moves`: whether vmv<n>r.v takes the time of its `registers` or of as many lanes as `vl` says."""

    vlen: int
    dlen: int
    whole_moves: Literal["registers", "vl"] = "registers"


class MatrixUnit(Part, frozen=True):
    te: int
    bf16_macs_per_cycle: int
    f32_macs_per_cycle: int
    int8_macs_per_cycle: int
    latency_cycles: int
    tile_move_bytes_per_cycle: int


class Exp(Part, frozen=True):
    present: bool
    lanes_per_cycle: int


class Scratchpad(Part, frozen=True):
    size_bytes: int
    bytes_per_cycle: int
    latency_cycles: int
    banks: int


class Dma(Part, frozen=True):
    bytes_per_cycle: int
    transfers: int
    lines: int
    transpose_factor: int


class L1(Part, frozen=True):
    size_bytes: int
    ways: int
    misses: int
    hit_cycles: int


class L2(Part, frozen=True):
    size_bytes: int
    ways: int
    bytes_per_cycle: int
    latency_cycles: int
    misses: int


class Dram(Part, frozen=True):
    bytes_per_cycle: int
    latency_cycles: int
    queue_lines: int


class Latency(Part, frozen=True):
    """First result after this many cycles, by class. `vector_to_float` 0: as `vector_to_scalar`.
    `vector_div_lanes_per_cycle` 0: a divider in every lane (isa/classes.py). The first result of a reduction comes
    `reduction_passes` x (its occupancy - 1) later still."""

    alu: int
    mul: int
    div: int
    fp: int
    fdiv: int
    vector_int: int
    vector_mul: int
    vector_fp: int
    vector_div: int
    vector_to_scalar: int
    reduction: int
    permute: int
    exp: int
    vector_to_float: int = 0
    vector_div_lanes_per_cycle: int = 0
    reduction_passes: int = 1


class Occupancy(Part, frozen=True):
    """A timing class's parameters (isa/classes.py); what is None follows from DLEN and latencies."""

    start_up: float | None = None
    per_register: float | None = None
    per_element: float | None = None
    sew_factor: float | None = None


if TYPE_CHECKING:
    class Classes(Part, frozen=True):
        def __getattr__(self, name: str) -> Occupancy: ...
else:
    Classes = msgspec.defstruct("Classes", [(name, Occupancy, Occupancy()) for name in VECTOR], bases=(Part,), frozen=True, kw_only=True,
                                forbid_unknown_fields=True)


EIGHT_BITS = frozenset({"i8", "u8", "e4m3", "e5m2"})


class Machine(Part, frozen=True):
    name: str
    gpu: Gpu
    core: Core
    vector: Vector
    matrix: MatrixUnit
    exp: Exp
    scratchpad: Scratchpad
    dma: Dma
    l1: L1
    l2: L2
    dram: Dram
    latency: Latency
    classes: Classes = Classes()

    @property
    def has_matrix(self) -> bool:
        return self.core.matrix == "unit"

    def vector_macs_per_cycle(self) -> int:
        """Vector multiply-adds per cycle of the whole GPU that accumulate in 32 bits."""
        return self.vector.dlen // 32 * self.gpu.cores

    def peak_macs_per_cycle(self, dtype: str) -> int:
        """Multiply-adds per cycle of the whole GPU: of the matrix unit, or of the vector lanes where there is none."""
        m = self.matrix
        if not self.has_matrix:
            return self.vector_macs_per_cycle()
        rate = m.f32_macs_per_cycle if dtype == "f32" else m.int8_macs_per_cycle if dtype in EIGHT_BITS else m.bf16_macs_per_cycle
        return rate * self.gpu.cores


def machine_names() -> list[str]:
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def load_machine(name: str, overrides: Mapping[str, str | int | float] | None = None) -> Machine:
    """A shipped machine by name or a TOML file by path, with `section.field` overrides; E5xx names file, line and field, or the override."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.exists():
        known = machine_names()
        error = RvgpuError("E501", f"no machine {name!r}")
        near = did_you_mean(name, known)
        raise error.hint(f"did you mean {near}?" if near else f"machines: {', '.join(known)}; or the path of a .toml file")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise RvgpuError("E001", f"cannot read {name}: {why}", exit_code=EXIT_USAGE) from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        said, _, where = str(e).partition(" (at ")
        place = [int(n) for n in re.findall(r"\d+", where)] or [len(text.splitlines()), 1]
        raise RvgpuError("E502", f"not TOML: {said}", _loc(path, text, *place)) from None
    data.setdefault("name", path.stem)
    overrides = overrides or {}
    for key, value in overrides.items():
        _override(data, key, value)

    def error_at(code: str, message: str, field: str) -> RvgpuError:
        """At the override that gave the field, else at the field's line."""
        for key, value in overrides.items():
            if f"{key}.".startswith(f"{field}."):
                return RvgpuError(code, message).note(f"override {key}={value}")
        return RvgpuError(code, message, _find(path, text, field))

    _check_names(path.stem, Machine, data, "", error_at)
    try:
        machine = msgspec.convert(data, Machine)
    except msgspec.ValidationError as e:
        field = str(e).rpartition("$.")[2].rstrip("`")
        types = re.match(r"Expected `(\w+)`, got `(\w+)`", str(e))
        raise error_at("E504", f"{field}: {types[1]} needed, found {types[2]}" if types else str(e), field) from None
    _check_values(machine, error_at)
    return machine


ErrorAt = Callable[[str, str, str], RvgpuError]  # code, message, dotted field


def _override(data: dict[str, Any], key: str, value: str | int | float) -> None:
    *sections, field = key.split(".")
    part: Any = data if sections and field else None
    for section in sections:
        part = part.setdefault(section, {}) if isinstance(part, dict) else None
    if not isinstance(part, dict):
        raise RvgpuError("E505", f"override {key}={value}: a machine field is section.field, such as core.warps", exit_code=EXIT_USAGE)
    parsed: Any = value
    if isinstance(value, str):
        try:
            parsed = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            parsed = value
    part[field] = parsed


def _check_names(machine: str, struct: type[Any], data: Mapping[str, Any], prefix: str, error_at: ErrorAt) -> None:
    fields = {f.name: f.type for f in msgspec.structs.fields(struct)}
    required = [f.name for f in msgspec.structs.fields(struct) if f.required]
    for key, value in data.items():
        if key not in fields:
            kind = "section" if isinstance(value, dict) else "field"
            error = error_at("E503", f"machine {machine} has an unknown {kind} {prefix}{key}", f"{prefix}{key}")
            near = did_you_mean(key, fields)
            raise error.hint(f"did you mean {prefix}{near}?" if near else f"known: {', '.join(fields)}")
        if isinstance(value, dict) and isinstance(fields[key], type) and issubclass(fields[key], Part):
            _check_names(machine, fields[key], value, f"{prefix}{key}.", error_at)
    missing = [f for f in required if f not in data]
    if missing:
        raise error_at("E506", f"machine {machine} lacks {prefix}{missing[0]}", prefix.rstrip(".") or missing[0])


def _find(path: Path, text: str, dotted: str) -> Loc:
    if dotted.startswith("classes.") and dotted.count(".") == 2 and f"[{dotted.rpartition('.')[0]}]" not in text:
        dotted = dotted.rpartition(".")[0]  # a class is a line of [classes]
    section, _, field = dotted.rpartition(".")
    inside = not section
    for n, line in enumerate(text.splitlines(), 1):
        if line.strip().startswith("["):
            inside = line.strip() == f"[{section}]"
            if line.strip() == f"[{field}]" and not section:
                return Loc(str(path), n, 1, len(line.strip()), line)
        elif inside and line.split("=")[0].strip() == field:
            return Loc(str(path), n, 1, len(field), line)
    return Loc(str(path), 1, 1, 1, text.splitlines()[0] if text else "")


def _loc(path: Path, text: str, line: int, col: int) -> Loc:
    lines = text.splitlines() or [""]
    return Loc(str(path), max(line, 1), col, 1, lines[min(max(line, 1), len(lines)) - 1])


def _check_values(m: Machine, error_at: ErrorAt) -> None:
    def need(ok: bool, field: str, message: str) -> None:
        if not ok:
            raise error_at("E507", f"{field}: {message}", field)

    def power(n: int) -> bool:
        return n > 0 and n & (n - 1) == 0

    v, te = m.vector, m.matrix.te
    need(power(v.vlen) and 128 <= v.vlen <= 1024, "vector.vlen", f"{v.vlen} is not a power of two in 128..1024")
    need(power(v.dlen) and v.dlen >= 64, "vector.dlen", f"{v.dlen} is not a power of two of at least 64")
    need(power(te) and 4 <= te <= v.vlen // 4, "matrix.te", f"{te} is not a power of two with 4 <= te <= vlen / 4 = {v.vlen // 4}")
    need(1 <= m.gpu.cores <= 256, "gpu.cores", f"{m.gpu.cores} is not in 1..256")
    need(1 <= m.core.warps <= 16, "core.warps", f"{m.core.warps} is not in 1..16")
    for info in msgspec.structs.fields(Machine):
        part = getattr(m, info.name)
        if isinstance(part, Part) and info.name != "classes":
            for f in msgspec.structs.fields(type(part)):
                x = getattr(part, f.name)
                least = 1 if f.required else 0
                need(isinstance(x, bool | str) or least <= x < 2**31, f"{info.name}.{f.name}",
                     f"{x} must be {'positive' if least else 'at least 0'} and below 2**31")
    need(m.latency.reduction_passes <= 8, "latency.reduction_passes", f"{m.latency.reduction_passes} is more than 8")
    for name in VECTOR:
        for f in msgspec.structs.fields(Occupancy):
            x = getattr(getattr(m.classes, name), f.name)
            low, high = (1 / 64, 64) if f.name == "sew_factor" else (-256, 4096)
            need(x is None or low <= x <= high, f"classes.{name}.{f.name}", f"{x} is not in {low}..{high}")
    need(1e-3 <= m.gpu.clock_ghz <= 1e3, "gpu.clock_ghz", f"{m.gpu.clock_ghz} is not in 0.001..1000")
    need(m.scratchpad.size_bytes % 64 == 0 and m.scratchpad.size_bytes > 0, "scratchpad.size_bytes", "must be a positive multiple of 64")
    need(m.scratchpad.size_bytes <= 1 << 28, "scratchpad.size_bytes", f"{m.scratchpad.size_bytes} is more than 2**28")
    for section in ("l1", "l2"):
        part = getattr(m, section)
        need(part.size_bytes <= 1 << 28, f"{section}.size_bytes", f"{part.size_bytes} is more than 2**28")
        need(power(part.size_bytes // (64 * part.ways)), f"{section}.size_bytes", "size / (64 B lines x ways) must be a power of two")


def print_machine(m: Machine) -> str:
    """The machine as TOML; what is printed loads back to an equal machine."""
    lines = [f'name = "{m.name}"']
    for info in msgspec.structs.fields(Machine):
        part = getattr(m, info.name)
        if isinstance(part, Part):
            said = {f.name: getattr(part, f.name) for f in msgspec.structs.fields(type(part))}
            lines += ["", f"[{info.name}]", *(f"{name} = {_toml(x)}" for name, x in said.items() if x != Occupancy())]
        elif info.name != "name":
            lines.append(f"{info.name} = {_toml(part)}")
    return "\n".join(lines) + "\n"


def _toml(x: Any) -> str:
    if isinstance(x, Occupancy):
        said = {f.name: getattr(x, f.name) for f in msgspec.structs.fields(Occupancy)}
        return "{ " + ", ".join(f"{name} = {y}" for name, y in said.items() if y is not None) + " }"
    return str(x).lower() if isinstance(x, bool) else f'"{x}"' if isinstance(x, str) else repr(x)
