"""The trace of a run: what each warp did and waited for, what each unit and the DMA were busy with, written as Perfetto protobuf.

1 cycle is 1 ns in the viewer. A warp's slices tile its time from its first instruction to its last: an instruction from its issue for one
cycle, and between two instructions the cause of the second one's wait. A unit's slices are the cycles that instructions occupy it.
Field numbers are those of perfetto/trace/trace_packet.proto and track_event.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rvgpu.sim.control import UNIT_DMA
from rvgpu.sim.state import CAUSES, TRACE_WORDS

UNIT_NAMES = {1: "vector", 2: "exp", 3: "vector memory", 4: "matrix", 5: "tile port"}
BEGIN, END = 1, 2
SEQUENCE = 1


@dataclass(frozen=True)
class Slice:
    track: str  # "core 0 warp 1", "core 0 matrix", "core 0 dma 3"
    name: str
    start: int
    end: int


@dataclass
class Trace:
    """Events of a run in order of issue: rows of (pc, core, warp, issue, cause, unit, start, end). `dropped` came after the buffer was full."""

    events: np.ndarray[Any, np.dtype[np.int64]]
    dropped: int
    mnemonic: Callable[[int], str]  # by pc

    def slices(self) -> Iterator[Slice]:
        last: dict[tuple[int, int], int] = {}
        lanes: dict[int, list[int]] = {}
        for pc, core, warp, issue, cause, unit, start, end in self.events.tolist():
            if unit == UNIT_DMA:
                free = lanes.setdefault(core, [])
                n = next((i for i, t in enumerate(free) if t <= start), len(free))
                free[n:n + 1] = [end]
                yield Slice(f"core {core} dma {n}", f"transfer by warp {warp}", start, end)
                continue
            name = self.mnemonic(pc)
            track = f"core {core} warp {warp}"
            before = last.get((core, warp))
            if before is not None and issue > before:
                yield Slice(track, CAUSES[cause] if cause else "unit", before, issue)
            if before is None or issue + 1 > before:  # two instructions of one cycle (two slots): one slice
                yield Slice(track, name, issue, issue + 1)
                last[core, warp] = issue + 1
            if unit in UNIT_NAMES and end > start:
                yield Slice(f"core {core} {UNIT_NAMES[unit]}", name, start, end)

    def write(self, path: str) -> None:
        """A .pftrace file; open it at ui.perfetto.dev."""
        with open(path, "wb") as f:
            for packet in _packets(self.slices()):
                f.write(_field(1, packet))


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _packets(slices: Iterator[Slice]) -> Iterator[bytes]:
    """TracePackets: descriptors of tracks when they first occur, names interned, a begin and an end per slice, in order of time per track."""
    tracks: dict[str, int] = {}
    names: dict[str, int] = {}
    cores: dict[str, int] = {}
    yield _number(10, SEQUENCE) + _number(13, 1) + _number(8, 0)  # the sequence starts with no interned names
    for s in slices:
        core, _, label = s.track.partition(" warp ") if " warp " in s.track else (" ".join(s.track.split()[:2]), "", "")
        if core not in cores:
            cores[core] = len(cores) + 1
            process = _number(1, cores[core]) + _field(6, core.encode())
            yield _number(10, SEQUENCE) + _field(60, _number(1, _core_uuid(cores[core])) + _field(3, process))
        if s.track not in tracks:
            tracks[s.track] = len(tracks) + 1
            text = f"warp {label}" if label else s.track.removeprefix(core + " ")
            yield _number(10, SEQUENCE) + _field(60, _number(1, tracks[s.track]) + _field(2, text.encode()) + _number(5, _core_uuid(cores[core])))
        interned = b""
        if s.name not in names:
            names[s.name] = len(names) + 1
            interned = _field(12, _field(2, _number(1, names[s.name]) + _field(2, s.name.encode())))
        head = _number(10, SEQUENCE) + _number(13, 2)
        yield _number(8, s.start) + head + interned + _field(11, _number(9, BEGIN) + _number(11, tracks[s.track]) + _number(10, names[s.name]))
        yield _number(8, s.end) + head + _field(11, _number(9, END) + _number(11, tracks[s.track]))


def _core_uuid(n: int) -> int:
    return 1_000_000 + n


def buffer(events: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.zeros((events, TRACE_WORDS), np.int64)
