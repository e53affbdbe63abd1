"""The restricted Python run by CPython is the reference of the compiled engine, bit for bit and cycle for cycle (long: half of it is cases).

(a) every primitive and element meaning on special and drawn values, (b) every handler on random states, (c) whole programs on several warps
and cores: vectors, tiles, DMA, caches, barriers, faults. Nothing is written twice: sim/reference.py runs the very functions.
"""

from __future__ import annotations

import ctypes
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from benchmarks.micro import MICROS
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.errors import RvgpuError
from rvgpu.isa.asm import assemble
from rvgpu.isa.codec import FLAGS, IMM, REG, decode
from rvgpu.isa.machine import Machine, load_machine
from rvgpu.isa.meaning import meaning, saturation
from rvgpu.isa.operands import APART, operands
from rvgpu.isa.prims import PRIMS, lshr, trunc
from rvgpu.isa.prims_float import f_cvt, f_to_i, i_to_f, mm_pairs
from rvgpu.isa.rows import BY_NAME, FORMATS, ROWS, Row
from rvgpu.sim.device import Device
from rvgpu.sim.elf import BASE, Image, write_executable
from rvgpu.sim.engine import SEWS, Engine, binds, engine, legal
from rvgpu.sim.handlers_vector import ldb, stb
from rvgpu.sim.program import VECTOR_CLASSES, Key, minds_fcsr, predecode
from rvgpu.sim.reference import Reference, specialise
from rvgpu.sim.state import REC_BYTES
from rvgpu.sim.translate import Unit
from tests.test_prims_memory import TESTED

Function = Callable[..., int]
IN, OUT, W, IW, SIGNED, RM, SRC = 64, 64, 32, 32, 1, 0, 32  # bound


def OP(*operands: int) -> int:
    """Bound to the meaning, or below to a function of a primitive."""
    raise NotImplementedError


PRIM: Function = OP  # bound to a primitive's name


# -- (a) one loop over arrays of operands, as the handlers have it, so that LLVM vectorises alike
def each1(a: int, b: int, c: int, out: int, n: int) -> int:
    for i in range(n):
        stb(out, i, OUT, OP(ldb(a, i, IN)))
    return 0


def each2(a: int, b: int, c: int, out: int, n: int) -> int:
    for i in range(n):
        stb(out, i, OUT, OP(ldb(a, i, IN), ldb(b, i, IN)))
    return 0


def each3(a: int, b: int, c: int, out: int, n: int) -> int:
    for i in range(n):
        stb(out, i, OUT, OP(ldb(a, i, IN), ldb(b, i, IN), ldb(c, i, IN)))
    return 0


def plain1(a: int) -> int:
    return PRIM(a)


def plain2(a: int, b: int) -> int:
    return PRIM(a, b)


def plain3(a: int, b: int, c: int) -> int:
    return PRIM(a, b, c)


def shift(a: int, b: int) -> int:
    return PRIM(a, b & 63)


def divide(a: int, b: int) -> int:
    return PRIM(a, b) if b != 0 and b != -1 else 0


def width1(a: int) -> int:
    return PRIM(a, W)


def width2(a: int, b: int) -> int:
    return PRIM(a, b, W)


def width3(a: int, b: int, c: int) -> int:
    return PRIM(a, b, c, W)


def convert(a: int) -> int:
    return f_cvt(a, SRC, W)


def to_integer(a: int) -> int:
    return f_to_i(a, W, IW, SIGNED, RM)


def of_integer(a: int) -> int:
    return i_to_f(a, SIGNED, W)


def pair(a: int, b: int, c: int) -> int:
    """Two f32 patterns in each of a and b; the second step takes them crosswise."""
    return mm_pairs(trunc(c, 32), trunc(a, 32), trunc(b, 32), lshr(a, 32), lshr(b, 32), lshr(b, 32), trunc(a, 32), trunc(b, 32), lshr(a, 32))


@dataclass(frozen=True)
class Case:
    name: str
    fn: Function
    bound: dict[str, Any]
    sew: int  # of the operands, in bits
    out: int
    values: str  # int | f16 | f32 | f64 | bf16 | f32x2 | finite (f64)
    last: int = -1  # bits that the last operand may have

    @property
    def arity(self) -> int:
        return self.fn.__code__.co_argcount


FORMS = {16: "f16", 32: "f32", 64: "f64", -16: "bf16"}


def prim_cases() -> Iterator[Case]:
    for name in ("wrap", "clz", "ctz", "cpop", "bswap"):
        yield Case(name, plain1, {"PRIM": name}, 64, 64, "int")
    for name in ("ult", "mulh", "mulhu", "mulhsu", "imin", "imax", "umin", "umax"):
        yield Case(name, plain2, {"PRIM": name}, 64, 64, "int")
    for name in ("udiv", "urem", "sdiv", "srem"):
        yield Case(name, divide, {"PRIM": name}, 64, 64, "int")
    yield Case("lshr", shift, {"PRIM": "lshr"}, 64, 64, "int")
    yield Case("sel", plain3, {"PRIM": "sel"}, 64, 64, "int")
    for w in SEWS:
        yield Case(f"trunc {w}", width1, {"PRIM": "trunc", "W": w}, 64, 64, "int")
        yield Case(f"sext {w}", width1, {"PRIM": "sext", "W": w}, 64, 64, "int")
    for w in (16, 32, 64):
        for name in ("f_add", "f_sub", "f_mul", "f_div"):
            yield Case(f"{name} {w}", width2, {"PRIM": name, "W": w}, w, w, FORMS[w])
        yield Case(f"f_sqrt {w}", width1, {"PRIM": "f_sqrt", "W": w}, w, w, FORMS[w])
        yield Case(f"f_fma {w}", width3, {"PRIM": "f_fma", "W": w}, w, w, FORMS[w])
        for iw in (16, 32, 64):
            for signed in (0, 1):
                for rm in range(5):
                    yield Case(f"f_to_i {w} {iw} {signed} {rm}", to_integer, {"W": w, "IW": iw, "SIGNED": signed, "RM": rm}, w, 64, FORMS[w])
        for signed in (0, 1):
            yield Case(f"i_to_f {signed} {w}", of_integer, {"SIGNED": signed, "W": w}, 64, w, "int")
    for name in ("d_add", "d_sub", "d_mul"):
        yield Case(name, plain2, {"PRIM": name}, 64, 64, "finite")
    yield Case("d_fma", plain3, {"PRIM": "d_fma"}, 64, 64, "finite")
    for w in (16, 32, 64, -16):
        for name in ("f_lt", "f_le", "f_eq", "f_unordered"):
            yield Case(f"{name} {w}", width2, {"PRIM": name, "W": w}, abs(w), 64, FORMS[w])
        for src in (16, 32, 64, -16):
            if w != -16 or src == 32:
                yield Case(f"f_cvt {src} {w}", convert, {"SRC": src, "W": w}, abs(src), abs(w), FORMS[src])
    yield Case("mm_one", plain3, {"PRIM": "mm_one"}, 32, 32, "f32")
    yield Case("mm_pairs", pair, {}, 64, 32, "f32x2")


CONTEXT = {"f_context", "f_leave", "f_mode", "f_flags", "f_raise"}  # tests/test_softfloat.py
MEMORY = {"ld8", "ld16", "ld32", "ld64", "st8", "st16", "st32", "st64", "copy", "zero"}


def needs_vtype(row: Row) -> bool:
    return row.cls in VECTOR_CLASSES and "N" not in row.args


def meaning_cases() -> Iterator[Case]:
    seen = set()
    for row in ROWS:
        fn = meaning(row)
        for sew in range(4) if needs_vtype(row) and row.kind != "vmask" else (-1,):
            if fn is None or not legal(row, sew):
                continue
            fp = row.kind in ("fp2", "fma", "fcmp") or bool(row.args.get("FP"))
            bound = {k: v for k, v in binds(row, sew).items() if k in ("SEW", "W")}
            wide = row.kind.startswith(("vnarrow", "vclip", "vncvt"))  # its first operand is
            w = (1 + wide) * bound.get("W", SEWS[sew]) if sew >= 0 else bound["W"] if fp else 8 if row.kind == "vmask" else 64
            last = 63 if row.name == "slli.uw" else 3 if row.kind.startswith(("vfix", "vclip")) else 1 if "adc" in row.kind else \
                7 if row.kind == "vunary_rm" else -1  # the immediate, vxrm, carry, frm
            compare = row.kind.startswith("vcmp") or row.kind in ("fcmp", "branch")
            out = bound["W"] if row.kind == "amo" else 64 if compare else w
            name = f"{fn.__name__} {' '.join(f'{k}={v}' for k, v in bound.items())}"
            if name not in seen:
                seen.add(name)
                yield Case(name, fn, bound, w, out, FORMS[w] if fp else "int", last)
                if (sat := saturation(row)) is not None:
                    yield Case(f"sat {name}", sat, bound, w, 64, "int", last)


def group(case: Case) -> str:
    return "scalar" if case.fn.__name__.split("_")[0] in ("s", "b", "a", "fp", "ma", "fc", "k") else str(case.sew)


CASES: dict[str, list[Case]] = {"prims": list(prim_cases())}
for _case in meaning_cases():
    CASES.setdefault(f"meanings {group(_case)}", []).append(_case)


def llvm_functions(cases: list[Case]) -> dict[str, Any]:
    """The loops as the engine compiles its handlers."""
    own, unit = Engine(), Unit()
    for n, c in enumerate(cases):
        unit.add((each1, each2, each3)[c.arity - 1], {**c.bound, "OP": c.fn, "IN": c.sew, "OUT": c.out}, f"case_{n}")
    module = own.llvm.parse_assembly(unit.text())
    options = own.llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = True
    builder = own.llvm.create_pass_builder(own.machine, options)
    builder.getModulePassManager().run(module, builder)
    own.jit.add_object_file(own.llvm.ObjectFileRef.from_data(own.machine.emit_object(module)))
    own.jit.finalize_object()
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 5)
    return {c.name: (own, kind(own.jit.get_function_address(f"case_{n}"))) for n, c in enumerate(cases)}


SPECIAL = {
    "int": [0, 1, 2, 3, 5, 7, 8, 31, 32, 63, 64, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 53, (1 << 53) + 1,
            (1 << 24) + 1, 65519, 65520, 2047, 2049, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2, (1 << 64) - 65520],
}
for _w, _mant in ((16, 10), (32, 23), (64, 52), (-16, 7)):
    _one = ((1 << (abs(_w) - 2 - _mant)) - 1) << _mant
    _inf = ((1 << (abs(_w) - 1 - _mant)) - 1) << _mant
    _positive = [0, 1, 2, 3, (1 << _mant) - 1, 1 << _mant, (1 << _mant) + 1, _one, _one + 1, _one - 1, _one - (1 << _mant), _one + (1 << (_mant - 1)),
                 _one + (5 << _mant - 2), _one + (3 << _mant - 1), _one + (_mant << _mant), _one + (_mant + 1 << _mant) + 1, _inf - 1, _inf, _inf + 1,
                 _inf | 1 << (_mant - 1), _inf | (1 << _mant) - 1]
    SPECIAL[FORMS[_w]] = [x | s for x in _positive for s in (0, 1 << (abs(_w) - 1))]
# f32 and f64 halfway between, and next to, values of the narrower formats
SPECIAL["f32"] += [0x38801000, 0x38803000, 0x38801001, 0x33000000, 0x33000001, 0x477FEFFF, 0x477FF000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F7F8000]
SPECIAL["f64"] += [0x3FF0000010000000, 0x3FF0000030000000, 0x3FF0000010000001, 0x3FF0020000000000, 0x3FF0020000000001, 0x3690000000000000,
                   0x3690000000000001, 0x47EFFFFFF0000000, 0x40EFFDFFFFFFFFFF, 0x43E0000000000000, 0x41DFFFFFFFE00000, 0x41E0000000000000]
SPECIAL["finite"] = SPECIAL["f64"]
SPECIAL["f32x2"] = [a << 32 | b for a in SPECIAL["f32"][::3] for b in SPECIAL["f32"][1::7]]


def same(cases: list[Case], operands: Callable[[Case], tuple[list[int], list[int], list[int]]], compiled: dict[str, Any]) -> None:
    for c in cases:
        a, b, d = operands(c)
        a, b, d = ([x & c.last for x in v] if c.arity == n else v for n, v in enumerate((a, b, d), 1))
        n = len(a)
        if c.values == "finite":
            a, b, d = ([x & ~(1 << 62) if x >> 52 & 0x7FF == 0x7FF else x for x in v] for v in (a, b, d))
        lists = [np.array([x & (1 << c.sew) - 1 for x in v], np.uint64).astype(f"u{c.sew // 8}") for v in (a, b, d)]
        out = np.zeros(n, f"u{c.out // 8}")
        compiled[c.name][1](*(x.ctypes.data for x in lists), out.ctypes.data, n)
        reference = specialise(c.fn, c.bound)
        signed = [x.view(np.int64) if c.sew == 64 else x for x in lists]
        for i, got in enumerate(out.tolist()):
            given_ = [int(x[i]) for x in signed[:c.arity]]
            want = reference(*given_) & (1 << c.out) - 1
            assert want == got, f"{c.name}({', '.join(hex(x) for x in given_)}): CPython {want:#x}, compiled {got:#x}"


@cache
def compiled_group(name: str) -> dict[str, Any]:
    return llvm_functions(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_special_values(name):
    def operands(c: Case) -> tuple[list[int], list[int], list[int]]:
        s = SPECIAL[c.values]
        if c.arity == 1:
            return s, s, s
        pick = random.Random(c.name)
        pairs = [(x, y) for x in s for y in s]
        pairs = pairs if c.arity == 2 and len(pairs) < 400 else pick.sample(pairs, min(len(pairs), 400))
        return [x for x, _ in pairs], [y for _, y in pairs], [pick.choice(s) for _ in pairs]
    same(CASES[name], operands, compiled_group(name))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=6)
@given(data=st.data())
def test_drawn_values(name, data):
    def operands(c: Case) -> tuple[list[int], list[int], list[int]]:
        near = st.builds(lambda x, d: x + d, st.sampled_from(SPECIAL[c.values]), st.integers(-3, 3))
        short = st.builds(lambda x, s: x << s, st.integers(0, 4095), st.integers(0, c.sew - 1))  # few set bits: exact results, ties
        value = st.one_of(near, short, st.integers(0, (1 << c.sew) - 1))
        rows = data.draw(st.lists(st.tuples(value, value, value), min_size=5, max_size=20), label=c.name)
        a, b, d = (list(x) for x in zip(*rows, strict=True))
        return a, b, d
    some = data.draw(st.lists(st.sampled_from(CASES[name]), min_size=12, max_size=12, unique_by=lambda c: c.name))
    same(some, operands, compiled_group(name))


def test_every_primitive_is_here():
    used = {c.bound["PRIM"] for c in CASES["prims"] if "PRIM" in c.bound} | {"f_cvt", "f_to_i", "i_to_f", "mm_pairs"}
    assert used | MEMORY | TESTED | CONTEXT == set(PRIMS)


# -- (b), (c): two devices, one on the compiled engine and one on CPython

def fields(struct: Any, skip: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """The bytes of every field but host addresses."""
    raw, out = bytes(struct), []
    for name, kind, *_ in struct._fields_:
        at = getattr(type(struct), name).offset
        if name not in skip:
            out.append((name, raw[at:at + ctypes.sizeof(kind)]))
    return out


def state(d: Device) -> list[tuple[str, bytes]]:
    """The structures that a run changes: registers, scoreboards, counters, barriers."""
    places = ("cores", "recs", "dram", "l2", "l2_queue", "dram_queue", "trace", "threads", "progress")
    out = [(f"gpu.{n}", b) for n, b in fields(d.gpu, places)]
    for i, c in enumerate(d.cores):
        out += [(f"core {i}.{n}", b) for n, b in fields(c, ("warps", "plans", "spm", "l1", "must"))]
    for i, w in enumerate(d.warps):
        out += [(f"warp {i}.{n}", b) for n, b in fields(w, ("tiles", "operands", "panel", "mm_calm"))]
    return out


def differences(a: Device, b: Device) -> list[str]:
    out = []
    # memory, and in the order in which they were made scratchpads, tiles, tags of the caches, windows of the queues
    arrays = [[d.memory, *(x for x in d._keep if isinstance(x, np.ndarray))] for d in (a, b)]
    for i, (p, q) in enumerate(zip(*arrays, strict=True)):
        if not np.array_equal(p, q):
            out.append(f"{f'array {i}' if i else 'memory'} from element {int(np.argmax(p != q))}")
    for (name, x), (_, y) in zip(state(a), state(b), strict=True):
        if x != y:
            at = next(i for i in range(len(x)) if x[i] != y[i])
            out.append(f"{name} from byte {at}: compiled {x[at:at + 8].hex()}, CPython {y[at:at + 8].hex()}")
    return out


SMALL = {"vector.vlen": 256, "matrix.te": 16, "core.warps": 2, "gpu.cores": 1, "scratchpad.size_bytes": 8192, "l2.size_bytes": 65536}
TEXT = 4096  # bytes that the handlers' own instructions may take


def random_word(row: Row, pick: random.Random) -> int:
    """An encoding of the row: register groups that start at 0, 8, 16 or 24 (and a destination that is no mask), the rest at random."""
    word = row.match
    for f in FORMATS[row.fmt]:
        if f == "rm":
            word |= pick.choice((0, 1, 2, 3, 4, 7)) << FLAGS[f]
        elif f in FLAGS:
            word |= pick.getrandbits(1) << FLAGS[f]
        elif f in ("mt", "mtd"):
            word |= pick.randrange(4) << 10
        elif f == "mt2":
            word |= pick.randrange(8) << 9
        elif f in ("imm_b", "imm_j"):
            word |= IMM[f][1](pick.randrange(-64, 64) * 2)
        elif f == "csr":
            word |= IMM[f][1](pick.choice((0xC22, 0xC20, 0xC21, 0x008, 0x003, 0x002, 0x001, 0x009, 0x00A, 0x00F, 0xF14, 0x123)))
        elif f in IMM:
            word |= IMM[f][1](pick.getrandbits(12) if pick.getrandbits(1) else pick.choice((0, 1, 2, 8, 31, -1, -8)))
        elif f in ("vd", "v1", "v2"):
            word |= pick.choice((8, 16, 24) if f == "vd" else (0, 8, 16, 24)) << REG[f]
        elif f != "v0":
            word |= pick.randrange(32) << REG[f]
    return word


class Pair:
    """The two devices with the same state, and one row's handler on both."""

    def __init__(self, machine: Machine) -> None:
        self.reference = Reference()
        self.a, self.b = Device(machine, memory_bytes=1 << 20), Device(machine, memory_bytes=1 << 20, engine=self.reference)

    def draw(self, pick: random.Random, sew: int) -> None:
        """Registers of warp 0: vectors of special values of each width, addresses in DRAM and scratchpad and beyond their ends."""
        m = self.a.machine
        lmul = pick.choice([0, 1, 2] + [n for n in (7, 6, 5) if 8 << sew <= 64 >> (8 - n)]) if sew >= 0 else 0
        values = b""
        while len(values) < 4096:
            w = SEWS[sew] if sew >= 0 and pick.random() < 0.8 else pick.choice(SEWS)
            kind = "int" if w == 8 or pick.random() < 0.3 else "bf16" if w == 16 and pick.random() < 0.4 else f"f{w}"
            values += ((pick.choice(SPECIAL[kind]) if pick.random() < 0.6 else pick.getrandbits(w)) & (1 << w) - 1).to_bytes(w // 8, "little")
        areas = ((0x8000_0000 + TEXT, 1 << 16), (0x1000_0000, m.scratchpad.size_bytes), (0x8000_0000 + (1 << 20) - 64, 128),
                 (0x1000_0000 + m.scratchpad.size_bytes - 64, 128), (0x8000_0000, TEXT), (0x0200_0000, 0x200), (0x7FFF_FFFF_FFFF_FF00, 512))

        def x() -> int:
            if pick.random() < 0.5:
                start, size = pick.choices(areas, (8, 8, 1, 1, 1, 2, 1))[0]
                return start + pick.randrange(size) // pick.choice((1, 8)) * pick.choice((1, 8)) % size
            if pick.random() < 0.3:
                return pick.randrange(4) << 29 | pick.randrange(2) << 24 | pick.randrange(m.matrix.te + 1)  # a tile's row or column
            return pick.choice([pick.choice(SPECIAL["int"]), pick.randrange(-64, 64), pick.getrandbits(64)])

        xs = [0] + [x() for _ in range(31)]
        fs = [pick.choice([(pick.choice(SPECIAL["f32"]) | 0xFFFFFFFF << 32), pick.choice(SPECIAL["f16"]) | 0xFFFFFFFFFFFF << 16,
                           pick.choice(SPECIAL["f64"]), pick.choice(SPECIAL["bf16"]) | 0xFFFFFFFFFFFF << 16]) for _ in range(32)]
        most = (8 << lmul if lmul < 4 else 8 >> (8 - lmul)) * m.vector.vlen // 8 // SEWS[max(sew, 0)]
        widen = pick.choice((0, 3 - max(sew, 0), 3 - max(sew, 0))) if sew < 3 else 0
        vl = min(pick.choice((0, 1, most // 2 + 1, most - 1, most)), most) if not widen else min(most, pick.randrange(m.matrix.te + 1))
        chosen = {"vl": vl, "sew": max(sew, 0), "lmul8": 8 << lmul if lmul < 4 else 8 >> (8 - lmul), "vtype": max(sew, 0) << 3 | lmul, "vill": 0,
                  "twiden": widen, "altfmt": pick.getrandbits(1), "tm": pick.randrange(m.matrix.te + 1), "tk": pick.randrange((4, 2, 1, 1)[sew] + 1),
                  "now": 1000, "fault": 0, "fault_addr": 0, "pc": 0, "next": 0, "mem_kind": 0, "mem_bytes": 0, "mem_count": 0,
                  "mem_stride": 0, "state": 0, "vxrm": pick.randrange(4), "vxsat": 0, "vstart": pick.choice((0, 0, 0, 1, 5)),
                  "fcsr": pick.getrandbits(5) | (pick.randrange(5) if pick.random() < 0.9 else pick.randrange(8)) << 5}
        for d in (self.a, self.b):
            w = d.warps[0]
            ctypes.memmove(ctypes.addressof(w.v), values, 4096)
            for n in range(32):
                w.x[n], w.f[n] = xs[n], fs[n]
            for name, value in chosen.items():
                setattr(w, name, value)
            ctypes.memset(ctypes.addressof(d.cores[0].bar_count), 0, 128)

    def run(self, row: Row, sew: int, exact: bool, pick: random.Random, times: int) -> None:
        key = Key(row.name, sew, exact)
        h = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 4)(engine().handlers({key})[key])
        h2 = self.reference.table[self.reference.handlers({key})[key] - 1]
        for _ in range(times):
            word = random_word(row, pick)
            d = decode(word)
            if d is None or d.row is not row:  # a special case with a name of its own
                continue
            self.draw(pick, sew)
            text = word.to_bytes(4, "little") * 64
            records = predecode(text, BASE, self.a.machine)[0]
            for dev in (self.a, self.b):
                g = dev.gpu
                g.text, g.text_size, g.recs, g.nrecs = BASE, len(text), ctypes.addressof(records), len(records) - 1
            r, at = records[64], ctypes.addressof(records) + 64 * REC_BYTES
            code = h(ctypes.addressof(self.a.cores[0]), ctypes.addressof(self.a.warps[0]), at, ctypes.addressof(self.a.gpu))
            want = h2(self.b.cores[0], self.b.warps[0], r, self.b.gpu)
            place = f"{row.name} {word:#x} SEW {SEWS[sew] if sew >= 0 else '-'} vl {self.a.warps[0].vl} x{r.rs1} {self.a.warps[0].x[r.rs1]:#x}"
            assert code == want, f"{place}: fault {code}, CPython {want}"
            if code:  # what a faulting instruction has done so far is not promised
                ctypes.memmove(ctypes.addressof(self.b.warps[0].tmp), ctypes.addressof(self.a.warps[0].tmp), 8192)
            different = differences(self.a, self.b)
            assert not different, f"{place}:\n" + "\n".join(different)


def handler_keys(every: bool) -> list[tuple[Row, int, bool]]:
    """Each row at one of its element widths (in turn), or at all of them; plain, and exact where it has to do with fcsr."""
    out = []
    for n, row in enumerate(ROWS):
        widths = [s for s in (range(4) if needs_vtype(row) else (-1,)) if legal(row, s)]
        out += [(row, s, exact) for s in (widths if every else [widths[n % len(widths)]]) for exact in (False, True)[:1 + minds_fcsr(row)]]
    return out


CHUNKS = 8


def sweep(keys: list[tuple[Row, int, bool]], times: int) -> None:
    engine().handlers({Key(row.name, sew, exact) for row, sew, exact in keys})
    both = Pair(load_machine("base", SMALL))
    for row, sew, exact in keys:
        both.run(row, sew, exact, random.Random(f"{row.name} {sew}"), times)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_handler(chunk):
    sweep(handler_keys(False)[chunk::CHUNKS], 3)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_handler_at_every_width(chunk):
    sweep(handler_keys(True)[chunk::CHUNKS], 12)


# -- (c) whole programs: `args[0]` is a buffer of random bytes, `args[1]` TE

def run_both(text: str, machine: dict[str, Any], ctas: int = 1, nbytes: int = 1 << 14, max_cycles: int | None = None) -> Any:
    """The same program to its end (or its fault) on both engines: the whole state, the statistics and the message are equal. Returns those."""
    code = assemble(text)
    elf = write_executable(Image(BASE, bytearray(code), (BASE, len(code)), {"k": BASE}))
    data = random.Random(text).randbytes(nbytes)
    m, ends, devices = load_machine("base", machine), [], []
    for own in (None, Reference()):
        d = Device(m, memory_bytes=1 << 23, max_cycles=max_cycles, trace=True, engine=own)
        program = d.load(elf)
        buffer = d.alloc(nbytes, "buffer")
        d.write(buffer, data)
        try:
            for _ in range(2):  # the second launch meets warm caches
                d.launch(program, "k", [buffer, m.matrix.te], ctas=ctas)
            end: Any = d.finish()
        except RvgpuError as e:
            end = e.render()
        assert d.trace is not None
        ends.append((end, program.counts(), d.trace.events.tolist()))
        devices.append(d)
    assert ends[0][0] == ends[1][0]
    assert not differences(*devices)
    assert ends[0] == ends[1]
    return ends[0][0]


@pytest.mark.parametrize("micro", [m for m in MICROS if m.name != "a stream"], ids=lambda m: f"{m.rule}: {m.name}".replace(" ", "-"))
def test_timing_rules(micro):
    """The programs of the micro-benchmarks, on smaller tiles and vectors, two warps."""
    text = re.sub(r"^(.*?) \{(\d+)\}$", lambda m: "\n".join([m[1]] * int(m[2])), micro.text, flags=re.M)
    machine = {"vector.vlen": 256, "matrix.te": 16, "core.warps": 2, "gpu.cores": 1, **micro.machine}
    assert run_both(text + "out: jalr zero, ra, 0\n", machine, micro.ctas, micro.data).cycles > 600


HEAD = """ld s0, 0(a0)
slli t0, a1, 11
slli t1, a2, 9
add t0, t0, t1
add s1, s0, t0
add s2, a4, t1
"""  # s1: 512 bytes of the buffer for each warp, s2: of the scratchpad
PROGRAMS: dict[str, tuple[str, dict[str, Any], int]] = {
    "masks, tails and fractional LMUL": (HEAD + """li t3, 11
vsetvli t0, t3, e8, mf4, tu, mu
vle8.v v8, (s1)
vmsltu.vx v0, v8, t3
vadd.vx v9, v8, t3, v0.t
vsetvli t0, zero, e16, mf2, ta, ma
vle16.v v10, (s1)
vwaddu.vv v12, v10, v10
vnsrl.wi v11, v12, 3, v0.t
vsetvli t0, t3, e32, m2, tu, mu
vle32.v v16, (s1)
vmslt.vx v0, v16, t3
vfadd.vv v18, v16, v16, v0.t
vredsum.vs v20, v18, v16, v0.t
vfredusum.vs v21, v18, v16
vcompress.vm v22, v18, v0
viota.m v24, v0
vrgather.vv v26, v18, v24
vslideup.vi v28, v18, 3
vslide1down.vx v30, v18, t3
vsetvli t0, t3, e64, m4, tu, mu
vle64.v v4, (s1)
vmul.vv v8, v4, v4, v0.t
vsll.vi v12, v4, 13
vse64.v v8, (s1), v0.t
vsetvli t0, zero, e8, m8, ta, ma
vse8.v v16, (s2)
ld t1, 8(s2)
sd t1, 24(s1)
""", {"core.warps": 2}, 2),
    "strides, indices, whole registers": (HEAD + """li t2, 24
vsetivli t0, 9, e32, m1, ta, ma
vlse32.v v1, (s1), t2
vid.v v2
vsll.vi v2, v2, 4
vluxei32.v v3, (s1), v2
vsoxei32.v v1, (s2), v2
vsse32.v v3, (s1), t2
sub t3, zero, t2
addi t4, s1, 480
vlse32.v v4, (t4), t3
vlse32.v v5, (s1), zero
vl2re32.v v8, (s1)
vs2r.v v8, (s2)
vlm.v v0, (s1)
vlse32.v v6, (s2), t2, v0.t
vsm.v v0, (s1)
vs1r.v v6, (s1)
""", {"core.warps": 4, "gpu.cores": 2}, 3),
    "tiles of f16, bf16, f32 and i8": (HEAD + """ld s3, 8(a0)
li t1, 7
sf.vsettnt t0, s3, e32, w1
sf.vsettm t0, s3
sf.vtzero.t mt0
sf.vtzero.t mt4
sf.vtzero.t mt8
sf.vsettnt t0, s3, e16, w2
vle16.v v8, (s1)
vle16.v v16, (s1)
sf.vsettm t0, t1
li t2, 2
sf.vsettk t2, t2
sf.mm.f.f mt0, v8, v16
sf.mm.f.f mt0, v8, v16
sf.vsettnt t0, s3, e16alt, w2
sf.vsettm t0, s3
sf.vsettk t2, t2
sf.mm.f.f mt4, v8, v16
sf.vsettnt t0, s3, e8, w4
sf.vsettm t0, s3
li t2, 3
sf.vsettk t2, t2
sf.mm.s.u mt8, v8, v16
sf.mm.u.s mt8, v16, v8
sf.vsettnt t0, s3, e32, w1
sf.vsettm t0, t1
li t2, 1
sf.vsettk t2, t2
vle32.v v8, (s1)
sf.mm.f.f mt12, v8, v16
li t3, 2
li t4, 0x1000000
or t4, t4, t3
sf.vtmv.v.t v24, t3
vse32.v v24, (s1)
sf.vtmv.t.v t4, v8
sf.vste32 t4, (s2)
sf.vlte32 t3, (s2)
""", {"core.warps": 2}, 1),
    "DMA with fills, an index and a transpose; barriers": (HEAD + """mv t0, a3
addi t2, t0, 136
addi t3, t0, 144
sd s1, 64(t0)
sd s2, 72(t0)
li t1, 5
sd t1, 80(t0)
li t1, 20
sd t1, 88(t0)
li t4, 48
sd t4, 96(t0)
li t4, 64
sd t4, 104(t0)
li t4, 7
sd t4, 112(t0)
li t4, 32
sd t4, 120(t0)
sd zero, 128(t0)
amoswap.d t5, zero, (t2)
amoswap.d t6, t5, (t3)
lw s5, 16(s2)
li t4, 6
addi t5, s2, 1024
sd t5, 72(t0)
li t4, 16
sd t4, 104(t0)
li t4, 8
sd t4, 112(t0)
li t4, 24
sd t4, 120(t0)
li t4, 5
amoswap.d t5, t4, (t2)
addi t1, a3, 256
ld t4, 40(a3)
amoswap.d zero, t4, (t1)
amoswap.d t6, t5, (t3)
sw zero, 0(s1)
li t4, 3
sw t4, 4(s1)
sd s1, 128(t0)
li t4, 2
sd t4, 80(t0)
sd zero, 112(t0)
sd zero, 120(t0)
sd s2, 64(t0)
addi t5, s1, 256
sd t5, 72(t0)
li t4, 32
sd t4, 96(t0)
amoswap.d t5, zero, (t2)
amoswap.d t6, t5, (t3)
addi t1, a3, 264
ld t4, 40(a3)
amoswap.d zero, t4, (t1)
""", {"core.warps": 4, "gpu.cores": 2, "dma.transfers": 2}, 5),
    "caches, atomics and a loop": (HEAD + """li t0, 6
li t4, 8192
loop: ld t1, 0(s1)
add t2, t2, t1
sd t2, 8(s1)
lh t3, 130(s1)
lbu t5, 7(s1)
amoadd.w t6, t3, (s0)
amomaxu.d t6, t2, (s0)
div t2, t2, t0
mulhu t2, t2, t4
fld ft0, 0(s1)
fcvt.s.d ft1, ft0
fmadd.s ft2, ft1, ft1, ft2
fsw ft2, 256(s1)
fclass.d s6, ft0
addi s1, s1, 64
addi t0, t0, -1
bnez t0, loop
rdcycle_: csrrs s7, cycle, zero
sd s7, 0(s1)
""".replace("csrrs s7, cycle, zero", "csrrs s7, 0xc00, zero"),
        {"core.warps": 3, "gpu.cores": 3, "l1.size_bytes": 1024, "l1.ways": 2, "l1.misses": 2, "l2.size_bytes": 2048, "l2.ways": 2}, 7),
    "a fault": (HEAD + "bnez a1, out\nli t0, 0x7ffffff\nadd s1, s1, t0\nvsetvli t0, zero, e32, m8, ta, ma\nvle32.v v8, (s1)\n", {"core.warps": 2}, 2),
    "a deadlock": ("bnez a2, out\naddi t1, a3, 256\nli t2, 2\namoswap.d t3, t2, (t1)\n", {"core.warps": 2}, 3),
    "the cycle limit": ("again: addi t0, t0, 1\nj again\n", {"core.warps": 2}, 1),
    "vsetvl and what a vtype cannot hold": ("li t0, 0x40093\nli t1, 9\nvsetvl t2, t1, t0\ncsrrs t3, 0xc21, zero\nli t0, 0xd0\nvsetvl t2, t1, t0\n"
                                            "vsetvl t2, t1, t3\nli t0, 0x64e0\nvsetvl t2, t1, t0\ncsrrs t4, 0xc21, zero\naddi t5, t5, 1\n", {}, 1),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name):
    text, machine, ctas = PROGRAMS[name]
    machine = {"vector.vlen": 256, "matrix.te": 16, "core.warps": 1, "gpu.cores": 1, **machine}
    end = run_both(text + "out: jalr zero, ra, 0\n", machine, ctas, max_cycles=3000 if "limit" in name else None)
    wanted = {"a fault": "E701", "a deadlock": "E702", "the cycle limit": "E703"}
    assert wanted[name] in end if name in wanted else end.cycles > 600, end


SETS = [f"vsetvli t0, {{avl}}, e{sew}, {lmul}, {policy}\n" for sew, lmuls in (
    (8, "mf8 mf4 mf2 m1 m2"), (16, "mf4 mf2 m1 m2 m4"), (32, "mf2 m1 m4"), (64, "m1 m2 m4"))
    for lmul in lmuls.split() for policy in ("ta, ma", "tu, mu")]
LINES = ("vadd.vv {d}, {a}, {b}{m}", "vsub.vx {d}, {a}, {x}{m}", "vmul.vv {d}, {a}, {b}{m}", "vmacc.vx {d}, {x}, {b}{m}", "vsra.vi {d}, {a}, 3{m}",
         "vdivu.vv {d}, {a}, {b}{m}", "vmseq.vx v0, {a}, {x}", "vmsltu.vv v0, {a}, {b}", "vredmax.vs {d}, {a}, {b}{m}",
         "vslidedown.vi {d}, {a}, 2{m}", "vrgather.vv {d}, {a}, {b}", "vmerge.vxm {d}, {a}, {x}, v0", "vid.v {d}{m}", "vmv.x.s {x}, {a}",
         "vmv.s.x {d}, {x}", "vfirst.m {x}, v0", "vle8.v {d}, ({p}){m}", "vse8.v {a}, ({p}){m}", "vle32.v {d}, ({p}){m}", "vse32.v {a}, ({p})",
         "vlse16.v {d}, ({p}), t1{m}", "vs1r.v {a}, ({p})", "addi {x}, {x}, 77", "mul {x}, {x}, {x}", "ld {x}, 8({p})", "sd {x}, 16({p})",
         "lw {x}, 40({p})", "amoadd.d {x}, {x}, ({p})", "fadd.s ft0, ft0, ft1", "fmul.s ft1, ft0, ft0", "flw ft0, 4({p})", "fdiv.s ft1, ft0, ft1")


@cache
def compile_lines() -> None:
    """All handlers at once that a drawn program may want."""
    rows = [BY_NAME[line.split()[0]] for line in LINES]
    engine().handlers({(r.name, s) for r in rows for s in (range(4) if needs_vtype(r) else (-1,)) if legal(r, s)})


@settings(max_examples=25)
@given(data=st.data())
def test_drawn_programs(data):
    """Instructions in any order, under any vtype, by warps and cores that run beside each other and meet at barriers."""
    compile_lines()
    text = HEAD + "li t1, 6\nvsetvli t0, zero, e8, m1, ta, ma\nvle8.v v0, (s1)\nvle8.v v8, (s1)\nvle8.v v16, (s2)\nvmv.v.x v24, a2\n"
    register, pointer = st.sampled_from(("v8", "v16", "v24")), st.sampled_from(("s1", "s2"))
    for n in range(data.draw(st.integers(1, 5), label="blocks")):
        text += f"li t2, {data.draw(st.integers(0, 40))}\n"
        text += data.draw(st.sampled_from(SETS)).format(avl=data.draw(st.sampled_from(("zero", "t2"))))
        for line in data.draw(st.lists(st.sampled_from(LINES), min_size=3, max_size=14)):
            d, a, b = data.draw(register), data.draw(register), data.draw(register)
            if operands(BY_NAME[line.split()[0]]).overlap == APART:
                d = next(v for v in ("v8", "v16", "v24") if v not in (a, b))
            text += line.format(d=d, a=a, b=b, p=data.draw(pointer),
                                x=data.draw(st.sampled_from(("s3", "s4", "s5"))), m=data.draw(st.sampled_from(("", "", ", v0.t")))) + "\n"
        if data.draw(st.booleans()):
            text += f"addi t1, a3, {256 + 8 * n}\nld t2, 40(a3)\namoswap.d zero, t2, (t1)\nli t1, 6\n"
    machine = {"vector.vlen": 128, "matrix.te": 16, "core.warps": data.draw(st.integers(1, 4)), "gpu.cores": data.draw(st.integers(1, 3)),
               "core.queue_entries": data.draw(st.integers(1, 3)), "vector.dlen": data.draw(st.sampled_from((64, 128))),
               "l1.misses": data.draw(st.integers(1, 4)), "l2.bytes_per_cycle": data.draw(st.sampled_from((8, 48, 512)))}
    end = run_both(text + "jalr zero, ra, 0\n", machine, data.draw(st.integers(1, 5)))
    assert not isinstance(end, str), end
