"""Assembly text to words, from the same rows as everything else: what `disasm` prints assembles back to the same bits.

A line is `label:` or `name operands`; `#` starts a comment. Branches take labels or absolute addresses. Of the usual aliases there are
`li mv nop ret j beqz bnez` and a bare `fence`. It is for tests and hand-written kernels; it does no relaxation and emits no compressed instructions.
It refuses what no word can hold, not what an instruction's rules forbid (overlapping groups, v0 as a masked destination).
"""

from __future__ import annotations

import re

from rvgpu.errors import Loc, RvgpuError, did_you_mean
from rvgpu.isa.codec import BASED, CSRS, FLAGS, IMM, MEMORY, ORDERING, REG, ROUNDING, F, X, unwritten_rounding
from rvgpu.isa.rows import BY_NAME, FORMATS

XREG = {n: i for i, n in enumerate(X)} | {f"x{i}": i for i in range(32)} | {"fp": 8}
FREG = {n: i for i, n in enumerate(F)} | {f"f{i}": i for i in range(32)}
VREG = {f"v{i}": i for i in range(32)}
LMUL = {"m1": 0, "m2": 1, "m4": 2, "m8": 3, "mf8": 5, "mf4": 6, "mf2": 7}


class _Line:
    def __init__(self, file: str, number: int, text: str) -> None:
        self.loc = Loc(file, number, len(text) - len(text.lstrip()) + 1, max(1, len(text.strip())), text)

    def fail(self, message: str, hint: str | None = None) -> RvgpuError:
        error = RvgpuError("E620", message, self.loc)
        return error.hint(hint) if hint else error


def assemble(text: str, base: int = 0x8000_0000, file: str = "<asm>") -> bytes:
    """The words of a text placed at `base`. E620 with the line."""
    items: list[tuple[_Line, str, list[str]]] = []
    labels: dict[str, int] = {}
    for n, raw in enumerate(text.splitlines(), 1):
        line, rest = _Line(file, n, raw), raw.split("#")[0].strip()
        while m := re.match(r"([A-Za-z_.][\w.]*):\s*", rest):
            if m[1] in labels:
                raise line.fail(f"the label {m[1]} is defined twice")
            labels[m[1]] = base + 4 * len(items)
            rest = rest[m.end():]
        if rest:
            name, _, operands = rest.partition(" ")
            ops = [o.strip() for o in operands.split(",")] if operands.strip() else []
            items += [(line, *x) for x in _alias(line, name, ops)]
    out = b""
    for line, name, ops in items:
        out += _word(line, name, ops, base + len(out), labels).to_bytes(4, "little")
    return out


def _alias(line: _Line, name: str, ops: list[str]) -> list[tuple[str, list[str]]]:
    if name == "li":
        if len(ops) != 2 or not -(1 << 63) <= (value := _number(line, ops[1])) < 1 << 64:
            raise line.fail("li takes a register and a number of 64 bits")
        return _load_immediate(ops[0], value)
    simple = {"mv": ("addi", [*ops, "0"]), "nop": ("addi", ["zero", "zero", "0"]), "ret": ("jalr", ["zero", "ra", "0"]), "j": ("jal", ["zero", *ops]),
              "fence": ("fence", ops or ["iorw", "iorw"]),
              "beqz": ("beq", [*ops[:1], "zero", *ops[1:]]), "bnez": ("bne", [*ops[:1], "zero", *ops[1:]])}
    return [simple.get(name, (name, ops))]


def _load_immediate(rd: str, value: int) -> list[tuple[str, list[str]]]:
    if -2048 <= value < 2048:
        return [("addi", [rd, "zero", str(value)])]
    if -(1 << 31) <= value < 1 << 31:
        low = (value & 0xFFF) - (0x1000 if value & 0x800 else 0)
        high = value - low >> 12 & 0xFFFFF
        return [("lui", [rd, str(high)]), ("addiw", [rd, rd, str(low)])]
    low = (value & 0xFFF) - (0x1000 if value & 0x800 else 0)
    return [*_load_immediate(rd, value - low >> 12), ("slli", [rd, rd, "12"]), ("addi", [rd, rd, str(low)])]


def _number(line: _Line, text: str) -> int:
    if not re.fullmatch(r"[-+]?(0|[1-9]\d*|0x[\da-fA-F]+|0b[01]+)", text, re.ASCII):
        raise line.fail(f"a number needed, found {text!r}")
    return int(text, 0)


def _word(line: _Line, name: str, ops: list[str], pc: int, labels: dict[str, int]) -> int:
    if name == "sf.vsettnt":
        return _vsettnt(line, ops)
    if name == ".word":
        if len(ops) != 1 or not -(1 << 31) <= (value := _number(line, ops[0])) < 1 << 32:
            raise line.fail(".word takes a number of 32 bits")
        return value & 0xFFFFFFFF
    amo = re.fullmatch(r"((?:amo\w+|lr|sc)\.[wd])(\.aq|\.rl|\.aqrl)", name)
    name, ordering = (amo[1], amo[2]) if amo else (name, "")
    if name not in BY_NAME:
        near = did_you_mean(name, BY_NAME)
        raise line.fail(f"no instruction is called {name}", f"did you mean {near}?" if near else None)
    row = BY_NAME[name]
    fields = FORMATS[row.fmt]
    if row.fmt in MEMORY or row.fmt in BASED:
        ops = _address(line, row.fmt, ops)
    word, rest = row.match, list(ops)
    for f in fields:
        if f == "vm":
            masked = bool(rest) and rest[-1] == "v0.t"
            if masked:
                rest.pop()
            word |= (not masked) << FLAGS[f]
        elif f == "rm":
            written = bool(rest) and rest[0] != "" and rest[0] in ROUNDING
            word |= (ROUNDING.index(rest.pop(0)) if written else unwritten_rounding(row)) << FLAGS[f]
        elif f == "aqrl":
            word |= ORDERING.index(ordering) << FLAGS[f]
        elif f in ("zimm11", "zimm10"):
            word |= _field(line, f, rest[0], pc, labels) if len(rest) == 1 and rest[0][:1].isdigit() else IMM[f][1](_vtype(line, rest))
            rest = []
        else:
            if not rest:
                raise line.fail(f"{name} takes {', '.join(fields)}; {len(ops)} operands given")
            word |= _field(line, f, rest.pop(0), pc, labels)
    if rest:
        raise line.fail(f"{name} takes {', '.join(fields)}; {', '.join(rest)} is too much")
    return word


def _address(line: _Line, fmt: str, ops: list[str]) -> list[str]:
    """The operands without the parentheses around the base, which is the last one but for a stride, an index or a mask."""
    at = next((n for n, o in enumerate(ops) if o.endswith(")")), None)
    m = re.fullmatch(r"([^()]*?)\s*\(\s*(\w+)\s*\)", ops[at]) if at is not None else None
    if at is None or not m or (fmt in BASED and m[1]):
        raise line.fail("an address such as (a0) needed" if fmt in BASED else "an address such as 8(a0) needed")
    return [*ops[:at], *([m[1] or "0"] if fmt in MEMORY else []), m[2], *ops[at + 1:]]


def _field(line: _Line, f: str, text: str, pc: int, labels: dict[str, int]) -> int:
    if f in REG and f != "uimm":
        table = {"x": XREG, "f": FREG, "v": VREG}[f[0]]
        if text not in table:
            raise line.fail(f"a register of {f[0]} needed, found {text!r}")
        return table[text] << REG[f]
    if f in ("mt", "mt2", "mtd"):
        tiles = range(0, 16, {"mt": 4, "mt2": 2, "mtd": 1}[f])
        if not re.fullmatch(r"mt(\d|1\d)", text, re.ASCII) or int(text[2:]) not in tiles:
            raise line.fail(f"a tile such as mt4 needed, found {text!r}")
        return int(text[2:]) << 8
    if f == "v0":
        if text != "v0":
            raise line.fail(f"the mask v0 needed, found {text!r}")
        return 0
    if f in ("pred", "succ"):
        if not re.fullmatch("0|(?=.)i?o?r?w?", text):
            raise line.fail(f"0 or some of iorw needed, found {text!r}")
        return sum(1 << FLAGS[f] + n for n, c in enumerate("wroi") if c in text)
    if f == "csr" and text in CSRS:
        return IMM[f][1](CSRS[text])
    value = labels[text] if f in ("imm_b", "imm_j") and text in labels else _number(line, text)
    if f in ("imm_b", "imm_j"):
        value -= pc
    if f == "imm_u":
        value = (value << 12) - (1 << 32 if value >> 19 & 1 else 0)
    back, bits = IMM["uimm5" if f == "uimm" else f]
    if back(bits(value)) != value:
        raise line.fail(f"{text} does not fit the field {f}")
    return bits(value)


def _vtype(line: _Line, parts: list[str]) -> int:
    """A part that is not written, from the right, is m1, tu, mu."""
    m = re.fullmatch(r"e(8|16|32|64)(?:,(mf?[1248])(?:,(t[au])(?:,(m[au]))?)?)?", ",".join(parts))
    if not m or m[2] and m[2] not in LMUL:
        raise line.fail(f"a vtype such as e32, m4, ta, ma needed, found {', '.join(parts)!r}")
    return (8, 16, 32, 64).index(int(m[1])) << 3 | LMUL[m[2] or "m1"] | (m[3] == "ta") << 6 | (m[4] == "ma") << 7


def _vsettnt(line: _Line, ops: list[str]) -> int:
    if len(ops) != 4 or not (m := re.fullmatch(r"e(8|16|32|64)(alt)?", ops[2])) or ops[3] not in ("w1", "w2", "w4"):
        raise line.fail("sf.vsettnt takes rd, rs1, eN[alt], w1|w2|w4")
    sew = {8: 0, 16: 1, 32: 2, 64: 3}[int(m[1])]
    z = sew << 3 | bool(m[2]) << 8 | (("w1", "w2", "w4").index(ops[3]) + 1) << 9
    word = BY_NAME["vsetvli"].match | IMM["zimm11"][1](z)
    return word | _field(line, "xd", ops[0], 0, {}) | _field(line, "x1", ops[1], 0, {})
