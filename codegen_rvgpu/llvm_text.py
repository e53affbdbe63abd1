"""LLVM IR as text: the writer that the op table of `llvm_ops.py` speaks through (values, blocks, RVV intrinsics, debug lines).

A `vt` of `lanes` capacity is `<vscale x lanes*64/VLEN x T>`, so LMUL follows from the capacity and the dtype.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from rvgpu.errors import Loc
from rvgpu.ir.tile_build import KFunc
from rvgpu.ir.types import DType

SCALAR = {DType.f64: "double", DType.f32: "float", DType.f16: "half", DType.bf16: "bfloat", DType.i64: "i64", DType.i32: "i32",
          DType.i16: "i16", DType.i8: "i8", DType.u8: "i8", DType.i4: "i8", DType.i1: "i1", DType.e4m3: "i8", DType.e5m2: "i8"}
SHORT = {"double": "f64", "float": "f32", "half": "f16", "bfloat": "bf16", "i64": "i64", "i32": "i32", "i16": "i16", "i8": "i8",
         "i1": "i1"}
RNE = "i64 7"  # frm: dynamic, which is 0 = to nearest even on entry
DATALAYOUT = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
TRIPLE = "riscv64-unknown-none-elf"


def float_literal(value: float) -> str:
    """An f32 constant in LLVM's hexadecimal form (which spells the double that equals it)."""
    try:
        single = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        single = float("inf") if value > 0 else float("-inf")
    return f"0x{struct.unpack('<Q', struct.pack('<d', single))[0]:016X}"


@dataclass(frozen=True)
class Vec:
    """A scalable vector type."""

    n: int
    elem: str  # LLVM scalar type

    def __str__(self) -> str:
        return f"<vscale x {self.n} x {self.elem}>"

    @property
    def mangled(self) -> str:
        return f"nxv{self.n}{SHORT[self.elem]}"

    def of(self, elem: str) -> Vec:
        return Vec(self.n, elem)


@dataclass(frozen=True)
class Val:
    """A typed LLVM value: `text` is a name or a literal."""

    type: str
    text: str
    vec: Vec | None = None

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


@dataclass(frozen=True)
class MemRef:
    """A buffer at codegen: pointer of its origin and strides in elements (int when constant). Of i4 the pointer is the tensor's, `first` the
    number of the origin's element."""

    ptr: Val
    strides: tuple[Val | int, ...]
    dtype: DType
    first: Val = Val("i64", "0")


@dataclass(frozen=True)
class Tile:
    number: int


@dataclass
class Writer:
    func: KFunc
    lines: list[str] = field(default_factory=list)
    declared: dict[str, str] = field(default_factory=dict)
    label: str = "entry"
    counter: int = 0
    locs: dict[tuple[str, int, int], int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    loc: Loc | None = None

    # -- lines
    def fresh(self, hint: str = "v") -> str:
        self.counter += 1
        return f"%{hint}{self.counter}"

    def _dbg(self) -> str:
        loc = self.loc or self.func.loc or Loc(self.func.name, 1)
        number = self.locs.setdefault((loc.file, loc.line, loc.col), len(self.locs))
        self.files.setdefault(loc.file, len(self.files))
        return f", !dbg !{100 + number}"

    def raw(self, text: str) -> None:
        self.lines.append(text)

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}{self._dbg()}")

    def let(self, type: str | Vec, text: str) -> Val:
        name = self.fresh()
        self.do(f"{name} = {text}")
        return Val(str(type), name, type if isinstance(type, Vec) else None)

    def block(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.label = label

    def new_label(self, hint: str) -> str:
        self.counter += 1
        return f"{hint}{self.counter}"

    # -- scalars
    def i64(self, value: int) -> Val:
        return Val("i64", str(value))

    def binary(self, op: str, a: Val, b: Val, type: str | None = None) -> Val:
        """With the foldings that keep addresses readable."""
        if op in ("add", "mul") and b.text.lstrip("-").isdigit() and a.text.lstrip("-").isdigit():
            x, y = int(a.text), int(b.text)
            return Val(a.type, str(x + y if op == "add" else x * y))
        if (op == "add" and b.text == "0") or (op == "mul" and b.text == "1"):
            return a
        if (op == "add" and a.text == "0") or (op == "mul" and a.text == "1"):
            return b
        if op == "mul" and "0" in (a.text, b.text):
            return Val(a.type, "0")
        return self.let(type or a.type, f"{op} {a}, {b.text}")

    # -- calls
    def call(self, type: str | Vec | None, name: str, args: Sequence[Val], *, nontemporal: bool = False) -> Val:
        """Declares and calls an intrinsic; of a store, `nontemporal`: behind ntl.all."""
        ret = "void" if type is None else str(type)
        self.declared[name] = f"declare {ret} @{name}({', '.join(a.type for a in args)})"
        text = f"call {ret} @{name}({', '.join(map(str, args))})" + ", !nontemporal !7" * nontemporal
        if type is None:
            self.do(text)
            return Val("void", "")
        return self.let(type, text)

    def poison(self, v: Vec) -> Val:
        return Val(str(v), "poison", v)

    def rvv(self, name: str, out: Vec, args: Sequence[Val], vl: Val, *, frm: bool = False, mangle: Sequence[str] = ()) -> Val:
        """An unmasked RVV operation with a poison pass-through: (passthru, args..., [frm], vl)."""
        suffix = ".".join([out.mangled, *mangle, "i64"])
        tail = [Val("i64", "7")] if frm else []
        return self.call(out, f"llvm.riscv.{name}.{suffix}", [self.poison(out), *args, *tail, vl])

    def gep(self, base: Val, offset: Val) -> Val:
        return base if offset.text == "0" else self.let("ptr", f"getelementptr i8, {base}, {offset}")

    # -- the module
    def metadata(self) -> list[str]:
        out = ["!llvm.dbg.cu = !{!0}", "!llvm.module.flags = !{!1, !2}", '!1 = !{i32 2, !"Debug Info Version", i32 3}',
               '!2 = !{i32 7, !"Dwarf Version", i32 4}', "!9 = distinct !{!9, !8}", '!8 = !{!"llvm.loop.unroll.disable"}', "!7 = !{i32 1}"]
        names = {f: 10 + n for f, n in self.files.items()} or {self.func.name: 10}
        for f, number in names.items():
            folder, _, base = f.rpartition("/")
            out.append(f'!{number} = !DIFile(filename: "{_quoted(base)}", directory: "{_quoted(folder)}")')
        first = next(iter(names.values()))
        out.append(f'!0 = distinct !DICompileUnit(language: DW_LANG_C, file: !{first}, producer: "rvgpu", isOptimized: true, '
                   'runtimeVersion: 0, emissionKind: LineTablesOnly)')
        out.append("!3 = !DISubroutineType(types: !{})")
        line = self.func.loc.line if self.func.loc else 1
        out.append(f'!4 = distinct !DISubprogram(name: "{self.func.name}", scope: !{first}, file: !{first}, line: {line}, type: !3, '
                   'unit: !0, spFlags: DISPFlagDefinition | DISPFlagOptimized)')
        scopes: dict[str, str] = {}
        for f, number in names.items():
            scopes[f] = "!4" if number == first else f"!{5000 + number}"
            if number != first:
                out.append(f"!{5000 + number} = !DILexicalBlockFile(scope: !4, file: !{number}, discriminator: 0)")
        for (f, ln, col), number in self.locs.items():
            out.append(f"!{100 + number} = !DILocation(line: {ln}, column: {col}, scope: {scopes[f]})")
        return out


def _quoted(text: str) -> str:
    return "".join(c if 32 <= ord(c) < 127 and c not in '"\\' else f"\\{b:02X}" for c in text for b in c.encode()[:1])
