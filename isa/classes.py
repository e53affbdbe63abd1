"""The timing classes of vector instructions: which instructions each holds, what its time is counted in, and what a machine has by default.

A class occupies its unit for

    ceil(sew_factor ** log2(SEW / 32) x (start_up + per_element x elements) + per_register x registers x VLEN / DLEN)

cycles, at least one (for multiplies the longer of the two terms). `per_register` is the cost of a register on a datapath as wide as a register: 1
is full rate, and a narrower DLEN needs more passes. What an instruction's elements and registers are is its class's `counts`. The four parameters
are a machine's, per class (`[classes]` of its TOML); one that it does not give is the default here, which follows from DLEN and a few latencies
alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# what registers are counted: of SEW-wide lanes; of lanes twice as wide (the wide side of widening and narrowing); pairs of a destination and a source
# register; of the memory operand (elements: those of all fields)
LANES, WIDE, PAIRS, MEMORY = range(4)
COUNTS = ("lanes", "wide lanes", "register pairs", "memory")
PARAMETERS = ("start_up", "per_register", "per_element", "sew_factor")


@dataclass(frozen=True)
class TimingClass:
    """`pattern` matches whole names of rows; a name belongs to the first class that matches. Times may follow from the machine. Where `longest`
    is set, elements and registers go through units that work at once (a multiplier array beside the datapath): the longer time counts, not
    the sum. A machine that says nothing of a class but something of the class that it is `like` means the same for both."""

    what: str
    pattern: str
    counts: int = LANES
    start_up: float = 0.0
    per_register: float | Callable[[Any], float] = 0.0
    per_element: float | Callable[[Any], float] = 0.0
    longest: bool = False
    like: str = ""


def _divider(m: Any) -> float:
    """One divider that takes so many elements a cycle, when the machine says how many."""
    lanes = m.latency.vector_div_lanes_per_cycle
    return 1 / lanes if lanes else 0.0


def _iterative(m: Any) -> float:
    """Else a divider in every lane, busy for the latency of a division."""
    return 0.0 if m.latency.vector_div_lanes_per_cycle else m.latency.vector_div


C = TimingClass
VECTOR: dict[str, TimingClass] = {
    "vload_segment": C("segment loads", r"vl(s|[uo]x)?seg\d\w*\.v", MEMORY, per_register=4),
    "vstore_segment": C("segment stores", r"vs(s|[uo]x)?seg\d\w*\.v", MEMORY, per_register=4, like="vload_segment"),
    "vmem_strided": C("strided and indexed loads and stores", r"v[ls](se|[uo]xei)\d+\.v", MEMORY, per_element=1),
    "vload": C("unit-stride, whole-register and mask loads", r"vl(e\d+(ff)?|\dre\d+|m)\.v", MEMORY, per_register=1),
    "vstore": C("unit-stride, whole-register and mask stores", r"vs(e\d+|\dr|m)\.v", MEMORY, per_register=1, like="vload"),
    "vfredo": C("ordered sums", r"vfw?redosum\.vs", start_up=4, per_element=lambda m: m.latency.vector_fp),
    "vfredm": C("FP minimum and maximum of a vector", r"vfred(min|max)\.vs", start_up=4, per_register=2, like="vfred"),
    "vfred": C("unordered FP sums", r"vfw?redusum\.vs", start_up=4, per_register=4),
    "vred": C("integer reductions", r"vw?red\w+\.vs", start_up=4, per_register=1),
    "vfdiv_f": C("FP division by or of a scalar", r"vfr?div\.vf", per_register=_iterative, per_element=_divider, like="vfdiv"),
    "vfdiv": C("FP division", r"vfdiv\.vv", per_register=_iterative, per_element=_divider),
    "vfsqrt": C("square root", r"vfsqrt\.v", per_register=_iterative, per_element=_divider, like="vfdiv"),
    "vfest": C("estimates of 1/x and 1/sqrt(x)", r"vf(rec|rsqrt)7\.v", per_register=1, like="vcvt"),
    "vwcvt": C("widening conversions", r"vfwcvt\S+", WIDE, per_register=1, like="vcvt"),
    "vncvt": C("narrowing conversions", r"vfncvt\S+", WIDE, per_register=1, like="vwcvt"),
    "vcvt": C("conversions of one width", r"vfcvt\S+", per_register=1),
    "vcmp": C("comparisons and carries into masks", r"vm(s(eq|ne|[lg][te]u?|bc)|f(eq|ne|[lg][te])|adc)\.\w+", per_register=1),
    "vmask": C("mask logic and set-before-first", r"vm(and|nand|or|xor|nor|xnor|andn|orn)\.mm|vms[bio]f\.m", start_up=1),
    "vmove_x": C("from a vector or mask to an integer register", r"vmv\.x\.s|vcpop\.m|vfirst\.m", start_up=1),
    "vmove_f": C("from a vector to an FP register", r"vfmv\.f\.s", start_up=1),
    "vmove_s": C("from a scalar register to element 0", r"vmv\.s\.x|vfmv\.s\.f", start_up=1),
    "viota": C("prefix sums of a mask", r"viota\.m", per_register=1, like="vint"),
    "vslideup": C("slides up", r"vf?slide1?up\.\w+", per_register=1, like="vint"),
    "vslidedown": C("slides down", r"vf?slide1?down\.\w+", per_register=1, like="vslideup"),
    "vgather_x": C("gathers of one element", r"vrgather\.v[xi]", per_register=1, like="vint"),
    "vgather": C("gathers", r"vrgather(ei16)?\.vv", PAIRS, per_register=2),
    "vcompress": C("compress", r"vcompress\.vm", PAIRS, per_register=1, like="vgather"),
    "vfw": C("widening FP arithmetic", r"vfw(add|sub|mul|n?m(acc|sac))\w*\.\w+", WIDE, per_register=1, like="vwmul"),
    "vwmul": C("widening multiplies", r"vw(mul|macc)\w*\.\w+", WIDE, per_register=1, longest=True),
    "vwide": C("widening addition and subtraction", r"vw(add|sub)u?\.\w+|vwsll\.\w+", WIDE, per_register=1, like="vwmul"),
    "vnarrow": C("narrowing shifts and clips", r"vn(srl|sra|clipu?)\.\w+|sf\.vfn\S+", WIDE, per_register=1, like="vint"),
    "vdiv": C("integer division", r"v(div|rem)u?\.\w+", per_register=_iterative, per_element=_divider, like="vfdiv"),
    "vmul": C("integer multiplies and multiply-adds", r"vs?mul(h|hu|hsu)?\.\w+|vn?m(acc|sac|add|sub)\.\w+|vqdot\w*\.\w+",
              per_register=1, longest=True),
    "vadd": C("integer addition and subtraction", r"v(add|r?sub)\.\w+", per_register=1),
    "vint": C("integer logic, shifts, minimum, saturation, extension, merges, moves",
              r"v(and|or|xor|s[rl][la]|ss[rl][la]|(min|max|sadd|ssub|aadd|asub)u?|adc|sbc|merge|[sz]ext)\.\w+|v?f?merge\.\w+|vf?mv\.v\.\w|"
              r"vfmerge\.\w+|vmv\dr\.v|vid\.v|v(andn|brev8?|rev8|clz|ctz|cpop|ro[lr])\.\w+", per_register=1),
    "vfp": C("FP arithmetic, sign injection, classification", r"vf\w+\.\w+", per_register=1),
}
INDEX = {name: n for n, name in enumerate(VECTOR)}
_PATTERNS = [(name, re.compile(c.pattern)) for name, c in VECTOR.items()]


def timing_class(name: str) -> str | None:
    """The vector class of the instruction called `name`, None for instructions of other units."""
    return next((c for c, p in _PATTERNS if p.fullmatch(name)), None)


def _says(name: str, machine: Any) -> bool:
    """Whether the machine gives the class, or one that it is like."""
    given = getattr(machine.classes, name)
    like = VECTOR[name].like
    return any(getattr(given, p) is not None for p in PARAMETERS) or bool(like) and _says(like, machine)


def resolve(name: str, given: Any, machine: Any) -> tuple[float, float, float, float]:
    """The four parameters of class `name`: what the machine gives, else the defaults."""
    c = VECTOR[name]
    if c.like and all(getattr(given, p) is None for p in PARAMETERS) and _says(c.like, machine):
        return resolve(c.like, getattr(machine.classes, c.like), machine)
    per_register, per_element = (x(machine) if callable(x) else x for x in (c.per_register, c.per_element))
    default = (c.start_up, per_register, per_element, 1.0)
    said = [getattr(given, p) for p in PARAMETERS]
    s, p, e, f = (float(d if x is None else x) for x, d in zip(said, default, strict=True))
    return s, p, e, f
