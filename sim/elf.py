"""ELF64 for RISC-V: relocatable objects are laid out at DRAM's base, executables are placed as they say; malformed files are errors.

Every offset and count is checked before use; unknown symbols and relocations are refused. An executable's bytes are placed at its segments' physical
addresses (start-up code copies what is to be elsewhere), as QEMU does; where all of these are 0 its virtual ones count.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from rvgpu.errors import EXIT_REJECTED, RvgpuError

BASE = 0x8000_0000
MAX_SYMBOLS = 1_000_000
MAX_TEXT = 1 << 22  # bytes: each halfword has a record of some 250 bytes
MAX_NAME = 1 << 16
MAX_NAMES = 1 << 26  # bytes of all symbols' names
MAX_ADDRESS = 1 << 46
NOTE = b"rvgpu.launch"


@dataclass
class Image:
    """What is placed in memory: bytes from `base` and, of an executable, `more` of them elsewhere up to `base + size`; the range of text, and what of
    it is code; symbols, the launch note, the raw debug sections."""

    base: int
    data: bytes | bytearray | memoryview
    text: tuple[int, int]  # address, size
    symbols: dict[str, int]
    note: bytes | None = None
    debug: list[dict[str, bytes]] = field(default_factory=list)  # of each object
    entry: int = 0
    more: list[tuple[int, memoryview]] = field(default_factory=list)
    size: int = 0  # of all, where it is more than the data
    code: list[tuple[int, int, bool]] = field(default_factory=list)  # (start, end, whether the program may write it); none: all text
    executable: bool = False

    def pieces(self) -> list[tuple[int, bytes | bytearray | memoryview]]:
        return [(self.base, self.data), *self.more]

    def at(self, addr: int, n: int) -> bytes:
        """Up to n bytes of the file's contents at addr."""
        for start, data in self.pieces():
            if start <= addr < start + len(data):
                return bytes(data[addr - start:addr - start + n])
        return b""


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
    end = data.find(b"\0", at, at + MAX_NAME)
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
        return link([data], memory_bytes)
    if kind == 2:
        if phnum and _unpack("<H", data, 54) != (56,):
            raise _bad("the segments' table has entries of another size")
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
    room = MAX_NAMES
    for s in sections:
        if s.type == 2:
            if s.link >= len(sections) or s.size // 24 > MAX_SYMBOLS:
                raise _bad("symbol table")
            strings = data[sections[s.link].offset:sections[s.link].offset + sections[s.link].size]
            for n in range(s.size // 24):
                at, _info, _other, shndx, value, _size = _unpack("<IBBHQQ", data, s.offset + 24 * n)
                name = _cstr(strings, at)
                room -= len(name)
                if room < 0:
                    raise _bad(f"symbols have more than {MAX_NAMES} bytes of names")
                out.append((name, shndx, value))
    return out


Key = tuple[int, int]  # object, section


def link(objects: Sequence[bytes], memory_bytes: int = 1 << 32) -> Image:
    """Relocatable objects, each complete in itself, side by side from DRAM's base: all text first. Symbols of two objects must differ."""
    parts = [(data, _sections(data, *_section_table(data))) for data in objects]
    order = [(o, n) for o, (_, sections) in enumerate(parts) for n, s in enumerate(sections) if s.flags & 2]
    order.sort(key=lambda key: (not parts[key[0]][1][key[1]].flags & 4, key))
    places: dict[Key, int] = {}
    at = text_end = BASE
    for o, n in order:
        s = parts[o][1][n]
        align = max(1, s.align)
        if align > 4096 or s.size > memory_bytes:
            raise _bad(f"section {s.name} is too large")
        at = -(-at // align) * align
        places[o, n] = at
        at += s.size
        if s.flags & 4:
            text_end = at
    if at - BASE > memory_bytes:
        raise _bad("the image is larger than memory")
    text = _text((BASE, text_end - BASE))
    blob = bytearray(at - BASE)
    for (o, n), place in places.items():
        data, sections = parts[o]
        if sections[n].type != 8:
            blob[place - BASE:place - BASE + sections[n].size] = data[sections[n].offset:sections[n].offset + sections[n].size]
    named: dict[str, int] = {}
    debug: list[dict[str, bytes]] = []
    note = None
    for o, (data, sections) in enumerate(parts):
        symbols = _symbols(data, sections)
        mine = {n: place for (owner, n), place in places.items() if owner == o}
        own_debug = {n: bytearray(data[s.offset:s.offset + s.size]) for n, s in enumerate(sections) if s.name.startswith(".debug") and s.type == 1}
        _relocate(data, sections, symbols, mine, blob, own_debug)
        for name, i, value in symbols:
            if name and i in mine and not name.startswith((".", "$")):
                if name in named:
                    raise RvgpuError("E609", f"two objects define {name!r}", exit_code=EXIT_REJECTED)
                named[name] = mine[i] + value
        debug.append({sections[n].name: bytes(content) for n, content in own_debug.items()})
        note = note or _note(data, sections)
    return Image(BASE, blob, text, named, note, debug)


def _section_table(data: bytes) -> tuple[int, int, int]:
    shoff, = _unpack("<Q", data, 40)
    _, shnum, shstr = _unpack("<HHH", data, 58)
    return shoff, shnum, shstr


def _relocate(data: bytes, sections: list[_Section], symbols: list[tuple[str, int, int]], places: dict[int, int], blob: bytearray,
              debug: dict[int, bytearray]) -> None:
    hi: dict[int, int] = {}
    later: list[tuple[int, int, int]] = []
    for s in sections:
        if s.type != 4 or s.info not in places and s.info not in debug:
            continue
        for n in range(s.size // 24):
            offset, info, addend = _unpack("<QQq", data, s.offset + 24 * n)
            kind, index = info & 0xFFFFFFFF, info >> 32
            if kind in (51, 43):  # relax, align: nothing was relaxed
                continue
            if index >= len(symbols):
                raise _bad("a relocation names no symbol")
            name, shndx, value = symbols[index]
            if s.info in debug:
                _patch(debug[s.info], offset, kind, places.get(shndx, 0) + value + addend)
                continue
            if shndx not in places:
                raise RvgpuError("E602", f"the object needs symbol {name!r}, which nothing here defines", exit_code=EXIT_REJECTED)
            where = places[s.info] + offset
            if offset + 8 > sections[s.info].size and where - BASE + 4 > len(blob):
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


def _patch(section: bytearray, offset: int, kind: int, target: int) -> None:
    """An address in a debug section (nothing else is relocated there without relaxation)."""
    size = {1: 4, 2: 8}.get(kind, 0)
    if size and offset + size <= len(section):
        section[offset:offset + size] = (target & (1 << 8 * size) - 1).to_bytes(size, "little")


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


def _text(span: tuple[int, int]) -> tuple[int, int]:
    if span[1] > MAX_TEXT:
        raise RvgpuError("E612", f"{span[1]} bytes of text are more than {MAX_TEXT}", exit_code=EXIT_REJECTED)
    return span


@dataclass
class _Segment:
    flags: int
    virtual: int
    place: int
    size: int  # in memory
    content: memoryview


def _segments(data: bytes, phoff: int, phnum: int) -> list[_Segment]:
    """What is to be loaded; each checked alone, and that no two are at one place."""
    out, stored = [], 0
    for n in range(phnum):
        kind, flags, offset, vaddr, paddr, filesz, memsz, _ = _unpack("<IIQQQQQQ", data, phoff + 56 * n)
        if kind == 2 or kind == 3:
            raise _bad("it is linked dynamically: only static executables are read")
        if kind != 1 or memsz == 0:
            continue
        if memsz < filesz or offset + filesz > len(data):
            raise _bad("a segment leaves the file")
        if max(vaddr, paddr) + memsz > MAX_ADDRESS:
            raise RvgpuError("E604", f"a segment at {vaddr:#x} of {memsz} bytes: addresses end at {MAX_ADDRESS:#x}", exit_code=EXIT_REJECTED)
        stored += filesz
        out.append(_Segment(flags, vaddr, paddr, memsz, memoryview(data)[offset:offset + filesz]))
    if stored > 2 * len(data):
        raise _bad("segments share the file's bytes")
    if not out:
        raise _bad("nothing to load")
    if not any(s.place for s in out):
        for s in out:
            s.place = s.virtual
    for spans in ([(s.virtual, s.size) for s in out], [(s.place, len(s.content)) for s in out if s.content]):
        spans.sort()
        if any(a + n > b for (a, n), (b, _) in zip(spans, spans[1:], strict=False)):
            raise _bad("segments overlap")
    return out


def _code(segments: list[_Segment], sections: list[_Section]) -> list[tuple[int, int, bool]]:
    """Executable sections or, where the file names none, executable segments: where they start and end, and whether they lie in writable memory."""
    spans = [(s.addr, s.addr + s.size) for s in sections if s.flags & 6 == 6 and s.type == 1 and s.size]
    spans = spans or [(s.virtual, s.virtual + len(s.content)) for s in segments if s.flags & 1 and s.content]
    out: list[tuple[int, int, bool]] = []
    for start, end in sorted(spans):
        within = next((s for s in segments if s.virtual <= start and end <= s.virtual + s.size), None)
        if within is None or start & 1:
            raise _bad(f"code at {start:#x} is in no segment or at an odd address")
        if out and start < out[-1][1]:
            raise _bad("executable sections overlap")
        out.append((start, end, bool(within.flags & 2)))
    return out


def _executable(data: bytes, sections: list[_Section], entry: int, phoff: int, phnum: int, memory_bytes: int) -> Image:
    segments = _segments(data, phoff, phnum)
    low = min(min(s.virtual, s.place) for s in segments) & -4096
    end = max(max(s.virtual + s.size, s.place + len(s.content)) for s in segments)
    if end - low > memory_bytes:
        raise RvgpuError("E604", f"the program wants {low:#x}..{end:#x}, {end - low} bytes; memory has {memory_bytes}", exit_code=EXIT_REJECTED)
    code = _code(segments, sections)
    text = _text((code[0][0], code[-1][1] - code[0][0]) if code else (low, 0))
    named = {name: value for name, i, value in _symbols(data, sections) if name and i}
    pieces = sorted(((s.place, s.content) for s in segments if s.content), key=lambda p: p[0])
    if pieces and pieces[0][0] != low:  # the first piece starts at the base
        pieces.insert(0, (low, memoryview(b"")))
    return Image(low, pieces[0][1] if pieces else b"", text, named, _note(data, sections), _debug(data, sections), entry, pieces[1:], end - low, code,
                 True)


def _debug(data: bytes, sections: list[_Section]) -> list[dict[str, bytes]]:
    return [{s.name: data[s.offset:s.offset + s.size] for s in sections if s.name.startswith(".debug") and s.type == 1}]


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
    """A static executable of the image: its symbols, the launch note and the line tables (DWARF 4 line programs
    stand alone; the other debug sections are kept of a single object only)."""
    strings = b"\0"
    table = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    for name, value in sorted(image.symbols.items()):
        table += struct.pack("<IBBHQQ", len(strings), 0x12, 0, 1, value, 0)
        strings += name.encode() + b"\0"
    owner = NOTE + b"\0"
    body = struct.pack("<III", len(owner), len(note), 1) + owner + b"\0" * (-len(owner) % 4) + note + b"\0" * (-len(note) % 4)
    debug = image.debug[0] if len(image.debug) == 1 else {".debug_line": b"".join(d.get(".debug_line", b"") for d in image.debug)}
    # name, type, flags, address, content, link, entry size
    parts: list[tuple[str, int, int, int, bytes, int, int]] = [
        (".text", 1, 6, image.base, bytes(image.data), 0, 0), (".symtab", 2, 0, 0, table, 3, 24), (".strtab", 3, 0, 0, strings, 0, 0),
        (".rvgpu.launch", 7, 0, 0, body, 0, 0), *((n, 1, 0, 0, content, 0, 0) for n, content in sorted(debug.items()))]
    names = b"\0" + b"".join(p[0].encode() + b"\0" for p in parts) + b".shstrtab\0"
    parts.append((".shstrtab", 3, 0, 0, names, 0, 0))
    heads, blob, at = [b"\0" * 64], b"", 4096
    for name, kind, flags, addr, content, linked, entsize in parts:
        heads.append(struct.pack("<IIQQQQIIQQ", names.index(b"\0" + name.encode() + b"\0") + 1, kind, flags, addr, at + len(blob), len(content),
                                 linked, 1 if kind == 2 else 0, 8, entsize))
        blob += content + b"\0" * (-len(content) % 16)
    start = image.entry or image.text[0]
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + b"\0" * 9, 2, 243, 1, start, 64, at + len(blob), 5, 64, 56, 1, 64,
                       len(heads), len(heads) - 1)
    head += struct.pack("<IIQQQQQQ", 1, 7, 4096, image.base, image.base, len(image.data), len(image.data), 4096)
    return head.ljust(at, b"\0") + blob + b"".join(heads)
