"""Line tables: which source line an instruction came from, read from `.debug_line` (DWARF 4 and 5) with no trust in its contents.

A table that makes no sense gives no lines; it is never an error of the program that carries it.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_ROWS, MAX_NAME = 1_000_000, 1 << 16


@dataclass(frozen=True)
class Line:
    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


class Lines:
    """Addresses to source lines: each row holds from its address to the next one's."""

    def __init__(self, rows: Sequence[tuple[int, Line | None]]) -> None:
        ordered = sorted(rows, key=lambda r: (r[0], r[1] is not None))
        self.addresses = [a for a, _ in ordered]
        self.lines = [line for _, line in ordered]

    def at(self, pc: int) -> Line | None:
        n = bisect.bisect_right(self.addresses, pc) - 1
        return self.lines[n] if n >= 0 else None


class _Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def u(self, size: int) -> int:
        if self.at + size > len(self.data):
            raise ValueError("the table leaves its section")
        value = int.from_bytes(self.data[self.at:self.at + size], "little")
        self.at += size
        return value

    def leb(self, signed: bool = False) -> int:
        value = shift = 0
        while True:
            byte = self.u(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value - (1 << shift) if signed and byte & 0x40 else value
            if shift > 70:
                raise ValueError("a number without its end")

    def string(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + MAX_NAME)
        if end < 0:
            raise ValueError("a string without its end")
        text = self.data[self.at:end].decode("utf-8", "replace")
        self.at = end + 1
        return text


def read_lines(debug: Sequence[Mapping[str, bytes]]) -> Lines:
    """The rows of every line program of the objects' debug sections."""
    rows: list[tuple[int, Line | None]] = []
    for sections in debug:
        data = sections.get(".debug_line", b"")
        at = 0
        while at + 4 <= len(data) and len(rows) < MAX_ROWS:
            size = int.from_bytes(data[at:at + 4], "little")
            if size >= 0xFFFFFFF0 or size == 0:
                break
            try:
                rows += _program(_Reader(data[at + 4:at + 4 + size]), sections)
            except (ValueError, ArithmeticError, LookupError, struct.error):
                pass
            at += 4 + size
    return Lines(rows)


def _program(r: _Reader, sections: Mapping[str, bytes]) -> list[tuple[int, Line | None]]:
    version = r.u(2)
    if version not in (2, 3, 4, 5):
        return []
    if version == 5:
        r.u(2)  # address and segment sizes
    length = r.u(4)
    start = r.at + length
    step = r.u(1)
    if version >= 4:
        r.u(1)
    r.u(1)
    base, line_range, opcode_base = r.u(1), r.u(1), r.u(1)
    base -= 256 if base > 127 else 0
    lengths = [r.u(1) for _ in range(opcode_base - 1)]
    names = _files5(r, sections) if version == 5 else _files4(r)
    r.at = start
    return _rows(r, step, base, line_range, opcode_base, lengths, names)


def _files4(r: _Reader) -> list[str]:
    folders, files = [""], [""]
    while text := r.string():
        folders.append(text)
    while text := r.string():
        folder = folders[r.leb()]
        r.leb()
        r.leb()
        files.append(f"{folder}/{text}" if folder and not text.startswith("/") else text)
    return files


def _files5(r: _Reader, sections: Mapping[str, bytes]) -> list[str]:
    def form(kind: int) -> str | int:
        if kind == 0x08:
            return r.string()
        if kind in (0x1F, 0x0E):
            return _Reader(sections.get(".debug_line_str" if kind == 0x1F else ".debug_str", b""), r.u(4)).string()
        if kind == 0x1E:
            r.u(16)
            return 0
        if kind in (0x0B, 0x05, 0x06):
            return r.u({0x0B: 1, 0x05: 2, 0x06: 4}[kind])
        if kind == 0x0F:
            return r.leb()
        raise ValueError(f"form {kind:#x}")

    def table() -> list[dict[int, str | int]]:
        formats = [(r.leb(), r.leb()) for _ in range(r.u(1))]
        return [{what: form(kind) for what, kind in formats} for _ in range(r.leb() if formats else 0)]

    folders = [str(e.get(1, "")) for e in table()]
    out = []
    for e in table():
        name, folder = str(e.get(1, "")), folders[int(e.get(2, 0))]
        out.append(f"{folder}/{name}" if folder and not name.startswith("/") else name)
    return out


def _rows(r: _Reader, step: int, base: int, line_range: int, opcode_base: int, lengths: Sequence[int],
          names: Sequence[str]) -> list[tuple[int, Line | None]]:
    rows: list[tuple[int, Line | None]] = []
    address, file, line, column = 0, 1, 1, 0

    def row() -> None:
        rows.append((address, Line(names[file] if file < len(names) else "?", line, column) if line else None))

    while r.at < len(r.data) and len(rows) < MAX_ROWS:
        op = r.u(1)
        if op >= opcode_base:
            address += (op - opcode_base) // line_range * step
            line += base + (op - opcode_base) % line_range
            row()
        elif op == 0:
            size = r.leb()
            end = r.at + size
            sub = r.u(1)
            if sub == 1:
                rows.append((address, None))
                address, file, line, column = 0, 1, 1, 0
            elif sub == 2:
                address = r.u(8)
            r.at = end
        elif op == 1:
            row()
        elif op == 2:
            address += r.leb() * step
        elif op == 3:
            line += r.leb(True)
        elif op == 4:
            file = r.leb()
        elif op == 5:
            column = r.leb()
        elif op == 8:
            address += (255 - opcode_base) // line_range * step
        elif op == 9:
            address += r.u(2)
        else:
            for _ in range(lengths[op - 1]):
                r.leb()
    return rows
