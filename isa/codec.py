"""Bits to instructions and back: decode (compressed words through their expansion), encode, and disassembly in LLVM's spelling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rvgpu.isa.rows import BY_NAME, FORMATS, ROWS, Row

X = "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6".split()
F = "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11".split()


def _s(x: int, bits: int) -> int:
    return x - (1 << bits) if x >> (bits - 1) & 1 else x


def _b(w: int, hi: int, lo: int) -> int:
    return w >> lo & ((1 << (hi - lo + 1)) - 1)


@dataclass(frozen=True)
class Decoded:
    row: Row
    word: int
    size: int  # bytes: 2 for a compressed instruction

    @property
    def rd(self) -> int:
        return _b(self.word, 11, 7)

    @property
    def rs1(self) -> int:
        return _b(self.word, 19, 15)

    @property
    def rs2(self) -> int:
        return _b(self.word, 24, 20)

    @property
    def rs3(self) -> int:
        return _b(self.word, 31, 27)

    @property
    def vm(self) -> int:
        return _b(self.word, 25, 25)

    @property
    def imm(self) -> int:
        for f in FORMATS[self.row.fmt]:
            if f in IMM:
                return int(IMM[f][0](self.word))
        return 0


# field -> (value of the word, bits of the value)
IMM: dict[str, tuple[Callable[[int], int], Callable[[int], int]]] = {
    "imm_i": (lambda w: _s(_b(w, 31, 20), 12), lambda v: (v & 0xFFF) << 20),
    "imm_s": (lambda w: _s(_b(w, 31, 25) << 5 | _b(w, 11, 7), 12), lambda v: (v >> 5 & 0x7F) << 25 | (v & 31) << 7),
    "imm_b": (lambda w: _s(_b(w, 31, 31) << 12 | _b(w, 7, 7) << 11 | _b(w, 30, 25) << 5 | _b(w, 11, 8) << 1, 13),
              lambda v: (v >> 12 & 1) << 31 | (v >> 11 & 1) << 7 | (v >> 5 & 63) << 25 | (v >> 1 & 15) << 8),
    "imm_u": (lambda w: _s(w & 0xFFFFF000, 32), lambda v: v & 0xFFFFF000),
    "imm_j": (lambda w: _s(_b(w, 31, 31) << 20 | _b(w, 19, 12) << 12 | _b(w, 20, 20) << 11 | _b(w, 30, 21) << 1, 21),
              lambda v: (v >> 20 & 1) << 31 | (v >> 12 & 0xFF) << 12 | (v >> 11 & 1) << 20 | (v >> 1 & 0x3FF) << 21),
    "shamt6": (lambda w: _b(w, 25, 20), lambda v: (v & 63) << 20), "shamt5": (lambda w: _b(w, 24, 20), lambda v: (v & 31) << 20),
    "csr": (lambda w: _b(w, 31, 20), lambda v: (v & 0xFFF) << 20),
    "zimm11": (lambda w: _b(w, 30, 20), lambda v: (v & 0x7FF) << 20), "zimm10": (lambda w: _b(w, 29, 20), lambda v: (v & 0x3FF) << 20),
    "imm_p": (lambda w: _s(_b(w, 31, 25) << 5, 12), lambda v: (v >> 5 & 0x7F) << 25),
    "simm5": (lambda w: _s(_b(w, 19, 15), 5), lambda v: (v & 31) << 15), "uimm5": (lambda w: _b(w, 19, 15), lambda v: (v & 31) << 15),
}
REG = {"xd": 7, "fd": 7, "vd": 7, "x1": 15, "f1": 15, "v1": 15, "x2": 20, "f2": 20, "v2": 20, "f3": 27, "uimm": 15}
FLAGS = {"vm": 25, "rm": 12, "aqrl": 25, "pred": 24, "succ": 20}  # fields with a spelling of their own
ROUNDING = ("rne", "rtz", "rdn", "rup", "rmm", "", "", "dyn")
CSRS = {"fflags": 0x001, "frm": 0x002, "fcsr": 0x003, "vstart": 0x008, "vxsat": 0x009, "vxrm": 0x00A, "vcsr": 0x00F, "cycle": 0xC00, "time": 0xC01,
        "instret": 0xC02, "vl": 0xC20, "vtype": 0xC21, "vlenb": 0xC22, "mhartid": 0xF14}  # what assembly text calls them; others are numbers
CSR_NAMES = {n: name for name, n in CSRS.items()}
ORDERING = ("", ".rl", ".aq", ".aqrl")
MEMORY = ("load", "store", "fload", "fstore", "prefetch")  # the last two operands are written imm(x1)
BASED = ("vload", "vwhole", "vloads", "vloadx", "amo", "lr", "tload")  # x1 is written (x1)


def unwritten_rounding(r: Row) -> int:
    """The mode of a text that names none: dynamic, or nearest even where the result is always exact."""
    exact = r.kind == "fcvt_ff" and abs(r.args["SRC"]) < abs(r.args["W"]) or r.kind == "fcvt_fx" and r.args["W"] == 64 and r.args["IW"] == 32
    return 0 if exact else 7


_BUCKETS: dict[int, list[Row]] = {}  # by opcode; of rows that share words the one that fixes more bits comes first
for _row in sorted(ROWS, key=lambda r: -r.mask.bit_count()):
    _BUCKETS.setdefault(_row.match & 0x7F, []).append(_row)


def decode(word: int) -> Decoded | None:
    """The instruction in the low bits of `word` (16 or 32), or None when no row matches."""
    size = 4
    if word & 3 != 3:
        expanded = expand(word & 0xFFFF)
        if expanded is None:
            return None
        word, size = expanded, 2
    for r in _BUCKETS.get(word & 0x7F, ()):
        if word & r.mask == r.match:
            reserved = "rm" in FORMATS[r.fmt] and not ROUNDING[_b(word, 14, 12)]
            return None if reserved else Decoded(r, word, size)
    return None


def encode(name: str, **fields: int) -> int:
    """The word of an instruction from its row's fields (`xd`, `x1`, ..., `vm`; immediates by their field's name)."""
    r = BY_NAME[name]
    word = r.match
    for f in FORMATS[r.fmt]:
        if f == "v0":
            continue
        v = fields.pop(f, 1 if f == "vm" else unwritten_rounding(r) if f == "rm" else 0)
        if f in FLAGS:
            word |= v << FLAGS[f]
        elif f == "mtd":
            word |= v << 8
        elif f == "mt":
            word |= (v >> 2) << 10
        elif f == "mt2":
            word |= (v >> 1) << 9
        else:
            word |= IMM[f][1](v) if f in IMM else v << REG[f]
    assert not fields, f"{name} has no {list(fields)}"
    return word


def _itype(op: int, f3: int, rd: int, rs1: int, imm: int) -> int:
    return op | rd << 7 | f3 << 12 | rs1 << 15 | (imm & 0xFFF) << 20


def _stype(op: int, f3: int, rs1: int, rs2: int, imm: int) -> int:
    return op | (imm & 31) << 7 | f3 << 12 | rs1 << 15 | rs2 << 20 | (imm >> 5 & 0x7F) << 25


def expand(c: int) -> int | None:
    """A compressed instruction as the 32-bit word it stands for (RV64C)."""
    op, f3 = c & 3, c >> 13
    rd, rs2 = _b(c, 11, 7), _b(c, 6, 2)
    rdp, rs1p = 8 + _b(c, 4, 2), 8 + _b(c, 9, 7)
    if op == 0:
        if f3 == 0:
            imm = _b(c, 12, 11) << 4 | _b(c, 10, 7) << 6 | _b(c, 6, 6) << 2 | _b(c, 5, 5) << 3
            return _itype(0x13, 0, rdp, 2, imm) if imm else None
        w = _b(c, 12, 10) << 3 | _b(c, 6, 6) << 2 | _b(c, 5, 5) << 6
        d = _b(c, 12, 10) << 3 | _b(c, 6, 5) << 6
        return {1: lambda: _itype(0x07, 3, rdp, rs1p, d), 2: lambda: _itype(0x03, 2, rdp, rs1p, w), 3: lambda: _itype(0x03, 3, rdp, rs1p, d),
                5: lambda: _stype(0x27, 3, rs1p, rdp, d), 6: lambda: _stype(0x23, 2, rs1p, rdp, w), 7: lambda: _stype(0x23, 3, rs1p, rdp, d),
                4: lambda: None}[f3]()  # type: ignore[no-untyped-call]
    imm6 = _s(_b(c, 12, 12) << 5 | rs2, 6)
    if op == 1:
        if f3 == 0:
            return _itype(0x13, 0, rd, rd, imm6)
        if f3 == 1:
            return _itype(0x1B, 0, rd, rd, imm6) if rd else None
        if f3 == 2:
            return _itype(0x13, 0, rd, 0, imm6)
        if f3 == 3:
            if rd == 2:
                imm = _s(_b(c, 12, 12) << 9 | _b(c, 6, 6) << 4 | _b(c, 5, 5) << 6 | _b(c, 4, 3) << 7 | _b(c, 2, 2) << 5, 10)
                return _itype(0x13, 0, 2, 2, imm) if imm else None
            return 0x37 | rd << 7 | (imm6 & 0xFFFFF) << 12 if imm6 else None
        if f3 == 4:
            kind = _b(c, 11, 10)
            sh = _b(c, 12, 12) << 5 | rs2
            if kind == 0:
                return _itype(0x13, 5, rs1p, rs1p, sh)
            if kind == 1:
                return _itype(0x13, 5, rs1p, rs1p, sh | 0x400)
            if kind == 2:
                return _itype(0x13, 7, rs1p, rs1p, imm6)
            sel = _b(c, 12, 12) << 2 | _b(c, 6, 5)
            word = {0: 0x40000033, 1: 0x4033, 2: 0x6033, 3: 0x7033, 4: 0x4000003B, 5: 0x3B}.get(sel)
            return None if word is None else word | rs1p << 7 | rs1p << 15 | rdp << 20
        if f3 == 5:
            imm = _s(_b(c, 12, 12) << 11 | _b(c, 11, 11) << 4 | _b(c, 10, 9) << 8 | _b(c, 8, 8) << 10 | _b(c, 7, 7) << 6 | _b(c, 6, 6) << 7
                     | _b(c, 5, 3) << 1 | _b(c, 2, 2) << 5, 12)
            return 0x6F | IMM["imm_j"][1](imm)
        imm = _s(_b(c, 12, 12) << 8 | _b(c, 11, 10) << 3 | _b(c, 6, 5) << 6 | _b(c, 4, 3) << 1 | _b(c, 2, 2) << 5, 9)
        return 0x63 | (f3 & 1) << 12 | rs1p << 15 | IMM["imm_b"][1](imm)
    if f3 == 0:
        return _itype(0x13, 1, rd, rd, _b(c, 12, 12) << 5 | rs2)
    ld, lw = _b(c, 12, 12) << 5 | _b(c, 6, 5) << 3 | _b(c, 4, 2) << 6, _b(c, 12, 12) << 5 | _b(c, 6, 4) << 2 | _b(c, 3, 2) << 6
    sd, sw = _b(c, 12, 10) << 3 | _b(c, 9, 7) << 6, _b(c, 12, 9) << 2 | _b(c, 8, 7) << 6
    if f3 == 4:
        if not c >> 12 & 1:
            return (_itype(0x67, 0, 0, rd, 0) if rd else None) if rs2 == 0 else 0x33 | rd << 7 | rs2 << 20
        if rs2:
            return 0x33 | rd << 7 | rd << 15 | rs2 << 20
        return _itype(0x67, 0, 1, rd, 0) if rd else 0x00100073
    return {1: lambda: _itype(0x07, 3, rd, 2, ld), 2: lambda: _itype(0x03, 2, rd, 2, lw) if rd else None,
            3: lambda: _itype(0x03, 3, rd, 2, ld) if rd else None, 5: lambda: _stype(0x27, 3, 2, rs2, sd), 6: lambda: _stype(0x23, 2, 2, rs2, sw),
            7: lambda: _stype(0x23, 3, 2, rs2, sd)}[f3]()  # type: ignore[no-untyped-call]


def _vtype_text(z: int) -> str:
    if z >> 8 or z >> 5 & 1 or z & 7 == 4:
        return str(z)
    sew, lmul = 8 << (z >> 3 & 7), z & 7
    return f"e{sew}, m{('1', '2', '4', '8', '?', 'f8', 'f4', 'f2')[lmul]}, {'ta' if z >> 6 & 1 else 'tu'}, {'ma' if z >> 7 & 1 else 'mu'}"


def disasm(d: Decoded, pc: int = 0) -> str:
    """Assembly text; branch targets as addresses."""
    sew, alternate, widen = d.imm >> 3 & 7, d.imm >> 8 & 1, d.imm >> 9 & 3
    if d.row.name == "vsetvli" and widen and not d.imm & 0xC7 and sew + widen <= 4 and (not alternate or sew == 1):  # others: a number
        return f"sf.vsettnt {X[d.rd]}, {X[d.rs1]}, e{8 << sew}{'alt' if alternate else ''}, w{1 << (widen - 1)}"
    name, out = d.row.name, []
    for f in FORMATS[d.row.fmt]:
        if f == "vm":
            if not d.vm:
                out.append("v0.t")
        elif f == "v0":
            out.append("v0")
        elif f == "rm":
            if (mode := _b(d.word, 14, 12)) != unwritten_rounding(d.row):
                out.append(ROUNDING[mode])
        elif f == "aqrl":
            name += ORDERING[_b(d.word, 26, 25)]
        elif f in ("pred", "succ"):
            out.append("".join(c for n, c in enumerate("wroi") if d.word >> FLAGS[f] + n & 1)[::-1] or "0")
        elif f == "mtd":
            out.append(f"mt{_b(d.word, 11, 8)}")
        elif f == "mt":
            out.append(f"mt{_b(d.word, 11, 10) << 2}")
        elif f == "mt2":
            out.append(f"mt{_b(d.word, 11, 9) << 1}")
        elif f in ("zimm11", "zimm10"):
            out.append(_vtype_text(d.imm))
        elif f in ("imm_b", "imm_j"):
            out.append(hex(pc + d.imm))
        elif f == "imm_u":
            out.append(str(d.word >> 12))
        elif f == "csr":
            out.append(CSR_NAMES.get(d.imm, str(d.imm)))
        elif f in IMM:
            out.append(str(IMM[f][0](d.word)))
        elif f == "uimm":
            out.append(str(d.rs1))
        else:
            n = d.word >> REG[f] & 31
            register = {"x": X[n], "f": F[n], "v": f"v{n}"}[f[0]]
            out.append(f"({register})" if f == "x1" and d.row.fmt in BASED else register)
    if d.row.fmt in MEMORY:
        out[-2:] = [f"{out[-2]}({out[-1]})"]
    return f"{name} {', '.join(out)}".strip()
