"""ELF64 for RISC-V: relocatable objects are laid out at DRAM's base, executables are placed as they say; malformed files are errors.

Every offset and count is checked before use; unknown symbols and relocations are refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from rvgpu.errors import EXIT_REJECTED, RvgpuError

BASE = 0x8000_0000
MAX_SYMBOLS = 1_000_000
NOTE = b"rvgpu.launch"


@dataclass
class Image:
    """What is placed in memory: bytes from `base`, the range of text, symbols, the launch note, the raw debug sections."""

    base: int
    data: bytearray
    text: tuple[int, int]  # address, size
    symbols: dict[str, int]
    note: bytes | None = None
    debug: dict[str, bytes] = field(default_factory=dict)
    entry: int = 0


def _bad(message: str) -> RvgpuError:
    return RvgpuError("E601", f"malformed ELF: {message}", exit_code=EXIT_REJECTED)


@dataclass
class _Section:
    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int


def _unpack(fmt: str, data: bytes, at: int) -> tuple[int, ...]:
    if at < 0 or at + struct.calcsize(fmt) > len(data):
        raise _bad(f"a table at {at:#x} leaves the file")
    return struct.unpack_from(fmt, data, at)


def _cstr(data: bytes, at: int) -> str:
    end = data.find(b"\0", at)
    if at < 0 or at > len(data) or end < 0:
        raise _bad("a name without its end")
    return data[at:end].decode("utf-8", "replace")


def load(data: bytes, memory_bytes: int = 1 << 32) -> Image:
    """Reads an object or a static executable."""
    if len(data) < 64 or data[:4] != b"\x7fELF":
        raise _bad("no ELF header")
    if data[4] != 2 or data[5] != 1:
        raise _bad("only 64-bit little-endian files are read")
    kind, arch = _unpack("<HH", data, 16)
    if arch != 243:
        raise _bad(f"machine {arch} is not RISC-V (243)")
    entry, phoff, shoff = _unpack("<QQQ", data, 24)
    phnum, _, shnum, shstr = _unpack("<HHHH", data, 56)
    sections = _sections(data, shoff, shnum, shstr)
    if kind == 1:
        return _link(data, sections, memory_bytes)
    if kind == 2:
        return _executable(data, sections, entry, phoff, phnum, memory_bytes)
    raise _bad(f"type {kind}: only relocatable objects and static executables are read")


def _sections(data: bytes, shoff: int, shnum: int, shstr: int) -> list[_Section]:
    raw = [_unpack("<IIQQQQIIQQ", data, shoff + 64 * n) for n in range(shnum)]
    for r in raw:
        if r[1] != 8 and r[4] + r[5] > len(data):
            raise _bad("a section leaves the file")
    if shnum and shstr >= shnum:
        raise _bad("no section name table")
    names = data[raw[shstr][4]:raw[shstr][4] + raw[shstr][5]] if shnum else b""
    return [_Section(_cstr(names, r[0]), *r[1:]) for r in raw]


def _symbols(data: bytes, sections: list[_Section]) -> list[tuple[str, int, int]]:
    """(name, section index, value) of the symbol table."""
    out = []
    for s in sections:
        if s.type == 2:
            if s.link >= len(sections) or s.size // 24 > MAX_SYMBOLS:
                raise _bad("symbol table")
            strings = data[sections[s.link].offset:sections[s.link].offset + sections[s.link].size]
            for n in range(s.size // 24):
                name, _info, _other, shndx, value, _size = _unpack("<IBBHQQ", data, s.offset + 24 * n)
                out.append((_cstr(strings, name), shndx, value))
    return out


def _link(data: bytes, sections: list[_Section], memory_bytes: int) -> Image:
    places: dict[int, int] = {}
    order = [n for n, s in enumerate(sections) if s.flags & 2]
    order.sort(key=lambda n: (not sections[n].flags & 4, n))  # text first
    at = BASE
    text_end = BASE
    for n in order:
        s = sections[n]
        align = max(1, s.align)
        if align > 4096 or s.size > memory_bytes:
            raise _bad(f"section {s.name} is too large")
        at = -(-at // align) * align
        places[n] = at
        at += s.size
        if s.flags & 4:
            text_end = at
    if at - BASE > memory_bytes:
        raise _bad("the image is larger than memory")
    blob = bytearray(at - BASE)
    for n in order:
        s = sections[n]
        if s.type != 8:
            blob[places[n] - BASE:places[n] - BASE + s.size] = data[s.offset:s.offset + s.size]
    symbols = _symbols(data, sections)
    _relocate(data, sections, symbols, places, blob)
    named = {name: places[i] + value for name, i, value in symbols if name and i in places}
    debug = {s.name: data[s.offset:s.offset + s.size] for s in sections if s.name.startswith(".debug") and s.type == 1}
    return Image(BASE, blob, (BASE, text_end - BASE), named, _note(data, sections), debug)


def _relocate(data: bytes, sections: list[_Section], symbols: list[tuple[str, int, int]], places: dict[int, int], blob: bytearray) -> None:
    hi: dict[int, int] = {}
    later: list[tuple[int, int, int]] = []
    for s in sections:
        if s.type != 4 or s.info not in places:
            continue
        for n in range(s.size // 24):
            offset, info, addend = _unpack("<QQq", data, s.offset + 24 * n)
            kind, index = info & 0xFFFFFFFF, info >> 32
            if kind in (51, 43):  # relax, align: nothing was relaxed
                continue
            if index >= len(symbols):
                raise _bad("a relocation names no symbol")
            name, shndx, value = symbols[index]
            if shndx not in places:
                raise RvgpuError("E602", f"the object needs symbol {name!r}, which nothing here defines", exit_code=EXIT_REJECTED)
            where = places[s.info] + offset
            if where - BASE + 4 > len(blob):
                raise _bad("a relocation leaves its section")
            target = places[shndx] + value + addend
            if kind in (24, 25):
                later.append((where, kind, places[shndx] + value))
            else:
                _apply(blob, where, kind, target, hi)
    for where, kind, label in later:
        if label not in hi:
            raise _bad("a low part without its high part")
        low = hi[label] & 0xFFF
        word = int.from_bytes(blob[where - BASE:where - BASE + 4], "little")
        word = (word & 0xFFFFF) | low << 20 if kind == 24 else (word & 0x1FFF07F) | (low >> 5) << 25 | (low & 31) << 7
        blob[where - BASE:where - BASE + 4] = word.to_bytes(4, "little")


def _apply(blob: bytearray, where: int, kind: int, target: int, hi: dict[int, int]) -> None:
    at = where - BASE
    delta = target - where

    def word() -> int:
        return int.from_bytes(blob[at:at + 4], "little")

    def put(value: int) -> None:
        blob[at:at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    if kind == 2:
        blob[at:at + 8] = target.to_bytes(8, "little")
    elif kind == 1:
        blob[at:at + 4] = (target & 0xFFFFFFFF).to_bytes(4, "little")
    elif kind in (23, 20):  # PCREL_HI20, GOT is refused
        hi[where] = delta
        put((word() & 0xFFF) | (delta + 0x800 & 0xFFFFF000))
    elif kind in (18, 19):  # CALL, CALL_PLT: auipc + jalr
        put((word() & 0xFFF) | (delta + 0x800 & 0xFFFFF000))
        second = int.from_bytes(blob[at + 4:at + 8], "little")
        blob[at + 4:at + 8] = ((second & 0xFFFFF) | (delta & 0xFFF) << 20).to_bytes(4, "little")
    else:
        raise RvgpuError("E603", f"relocation type {kind} is not one that kernels have", exit_code=EXIT_REJECTED)


def _executable(data: bytes, sections: list[_Section], entry: int, phoff: int, phnum: int, memory_bytes: int) -> Image:
    loads = []
    for n in range(phnum):
        kind, flags, offset, vaddr, _, filesz, memsz, _ = _unpack("<IIQQQQQQ", data, phoff + 56 * n)
        if kind == 1:
            if memsz < filesz or offset + filesz > len(data):
                raise _bad("a segment leaves the file")
            loads.append((vaddr, memsz, flags, data[offset:offset + filesz]))
    loads.sort(key=lambda x: x[0])
    if not loads:
        raise _bad("nothing to load")
    base = loads[0][0]
    end = max(v + m for v, m, _, _ in loads)
    if base < BASE or end - BASE > memory_bytes:
        raise RvgpuError("E604", f"the program wants {base:#x}..{end:#x}; memory is {BASE:#x} and {memory_bytes} bytes", exit_code=EXIT_REJECTED)
    for (v, m, _, _), (v2, _, _, _) in zip(loads, loads[1:], strict=False):
        if v + m > v2:
            raise _bad("segments overlap")
    blob = bytearray(end - BASE)
    text = (BASE, 0)
    for v, m, flags, content in loads:
        blob[v - BASE:v - BASE + len(content)] = content
        if flags & 1 and not text[1]:
            text = (v, m)
    named = {name: value for name, i, value in _symbols(data, sections) if name and i}
    return Image(BASE, blob, text, named, _note(data, sections), {}, entry)


def _note(data: bytes, sections: list[_Section]) -> bytes | None:
    for s in sections:
        if s.name == ".rvgpu.launch" and s.size >= 12:
            namesz, descsz, _ = _unpack("<III", data, s.offset)
            start = s.offset + 12 + (namesz + 3) // 4 * 4
            if start + descsz > len(data):
                raise _bad("the launch note leaves the file")
            return data[start:start + descsz]
    return None


def write_executable(image: Image, note: bytes = b"") -> bytes:
    """A static executable of the image, with its symbols and the launch note."""
    strings = b"\0"
    table = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    for name, value in sorted(image.symbols.items()):
        table += struct.pack("<IBBHQQ", len(strings), 0x12, 0, 1, value, 0)
        strings += name.encode() + b"\0"
    owner = NOTE + b"\0"
    body = struct.pack("<III", len(owner), len(note), 1) + owner + b"\0" * (-len(owner) % 4) + note + b"\0" * (-len(note) % 4)
    names = b"\0.text\0.symtab\0.strtab\0.shstrtab\0.rvgpu.launch\0"
    parts = [bytes(image.data), table, strings, names, body]
    offsets = []
    at = 4096
    for p in parts:
        offsets.append(at)
        at += -(-len(p) // 16) * 16

    def header(name: str, kind: int, flags: int, addr: int, n: int, link: int = 0, entsize: int = 0) -> bytes:
        return struct.pack("<IIQQQQIIQQ", names.index(name.encode()), kind, flags, addr, offsets[n], len(parts[n]), link, 1, 8, entsize)

    heads = [b"\0" * 64, header(".text", 1, 6, image.base, 0), header(".symtab", 2, 0, 0, 1, 3, 24), header(".strtab", 3, 0, 0, 2),
             header(".shstrtab", 3, 0, 0, 3), header(".rvgpu.launch", 7, 0, 0, 4)]
    start = image.entry or image.text[0]
    out = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + b"\0" * 9, 2, 243, 1, start, 64, at, 5, 64, 56, 1, 64, len(heads), 4)
    out += struct.pack("<IIQQQQQQ", 1, 7, 4096, image.base, image.base, len(parts[0]), len(parts[0]), 4096)
    blob = bytearray(at)
    blob[:len(out)] = out
    for o, p in zip(offsets, parts, strict=True):
        blob[o:o + len(p)] = p
    return bytes(blob) + b"".join(heads)
