"""The trace of a run: what each warp did and waited for, what each unit and the DMA were busy with, written as Perfetto protobuf.

1 cycle is 1 ns in the viewer. A warp's slices tile its time from its first instruction to its last: an instruction from its issue for one
cycle, and between two instructions what the second one's operands waited for, then its wait for a slot or unit. A unit's slices are the cycles
that instructions occupy it.
Field numbers are those of perfetto/trace/trace_packet.proto and track_event.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rvgpu.sim.control import UNIT_DMA
from rvgpu.sim.state import CAUSES, TRACE_WORDS

Numbers = np.ndarray[Any, np.dtype[np.int64]]
UNIT_NAMES = {1: "vector", 2: "exp", 3: "vector memory", 4: "matrix", 5: "tile port"}
UNIT = 6  # the column of an event's unit
BEGIN, END = 1, 2
SEQUENCE = 1


@dataclass(frozen=True)
class Slice:
    track: str  # "core 0 warp 1", "core 0 matrix", "core 0 dma 3"
    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Table:
    """Slices by columns: each one's track and name (numbers into the lists), first cycle and the cycle after its last. Slices of a track stand
    in order of time."""

    tracks: list[str]
    names: list[str]
    track: Numbers
    name: Numbers
    start: Numbers
    end: Numbers


@dataclass
class Trace:
    """Events of a run in order of issue: rows of (pc, core, warp, ready, cause, issue, unit, start, end), `ready` and `cause` telling when its
    operands were there and what they waited for. `dropped` came after the buffer was full."""

    events: Numbers
    dropped: int
    mnemonic: Callable[[int], str]  # by pc
    text: Callable[[int], tuple[str, str]]  # by pc: the whole instruction, and its source line or ""

    def waits(self) -> tuple[Numbers, Numbers, Numbers]:
        """The instructions warp by warp (their rows among those of `events` that are no transfers); the cycle since which the warp waits for each,
        which is the one after its last instruction; the cycle in which its operands are there: from then until its issue it waits for its slot or
        unit. A warp's first instruction waits for nothing."""
        _, core, warp, ready, _, issue, *_ = self.events[self.events[:, UNIT] != UNIT_DMA].T
        order = np.lexsort((np.arange(len(core)), warp, core))
        core, warp, ready, issue = core[order], warp[order], ready[order], issue[order]
        before = np.where((core == np.roll(core, 1)) & (warp == np.roll(warp, 1)), np.roll(issue, 1) + 1, issue)
        before[:1] = issue[:1]
        return order, before, np.clip(ready, before, np.maximum(issue, before))

    def table(self) -> Table:
        is_dma = self.events[:, UNIT] == UNIT_DMA
        pc, core, warp, ready, cause, issue, unit, start, end = self.events[~is_dma].T
        pcs, which = np.unique(pc, return_inverse=True)
        names = sorted({*(self.mnemonic(int(p)) for p in pcs), *CAUSES})
        number = {n: i for i, n in enumerate(names)}
        instruction = np.array([number[self.mnemonic(int(p))] for p in pcs], np.int64)[which]
        causes = np.array([number[c] for c in CAUSES])[cause]
        parts: list[tuple[list[str], Numbers, Numbers, Numbers, Numbers]] = []

        # warps: an instruction from its issue on (two of one cycle: one slice), and before it the waits
        order, before, turn = self.waits()
        at, name = issue[order], instruction[order]
        of, made = np.unique(core[order] * 1000 + warp[order], return_inverse=True)
        labels = [f"core {i // 1000} warp {i % 1000}" for i in of]
        slices = [(causes[order], before, turn), (np.full(len(at), number["unit"]), turn, at), (name, np.maximum(at, before), at + 1)]
        both, name, begin, stop = (np.concatenate(x) for x in zip(*(tuple(y[end > begin] for y in (made, name, begin, end))
                                                                    for name, begin, end in slices), strict=True))
        sort = np.lexsort((begin, both))
        parts.append((labels, both[sort], name[sort], begin[sort], stop[sort]))

        # units: the cycles that instructions occupy them
        busy = (end > start) & np.isin(unit, list(UNIT_NAMES))
        of, made = np.unique(core[busy] * 1000 + unit[busy], return_inverse=True)
        labels = [f"core {i // 1000} {UNIT_NAMES[i % 1000]}" for i in of.tolist()]
        sort = np.lexsort((start[busy], made))
        parts.append((labels, made[sort], instruction[busy][sort], start[busy][sort], end[busy][sort]))
        parts.append(self._transfers(self.events[is_dma], number, names))

        tracks: list[str] = []
        numbered = []
        for labels, track, *_ in parts:
            numbered.append(track + len(tracks))
            tracks += labels
        name, begin, stop = (np.concatenate(c) for c in zip(*(p[2:] for p in parts), strict=True))
        return Table(tracks, names, np.concatenate(numbered), name, begin, stop)

    def _transfers(self, events: Numbers, number: dict[str, int], names: list[str]) -> tuple[list[str], Numbers, Numbers, Numbers, Numbers]:
        """Transfers overlap: each takes the first track of its core that is free."""
        free: dict[int, list[int]] = {}
        labels: dict[str, int] = {}
        rows = []
        for _, core, warp, *_, start, end in events.tolist():
            ends = free.setdefault(core, [])
            n = next((i for i, t in enumerate(ends) if t <= start), len(ends))
            ends[n:n + 1] = [end]
            name = f"transfer by warp {warp}"
            if name not in number:
                number[name] = len(names)
                names.append(name)
            rows.append((labels.setdefault(f"core {core} dma {n}", len(labels)), number[name], start, end))
        columns = np.array(rows, np.int64).reshape(-1, 4).T
        return list(labels), columns[0], columns[1], columns[2], columns[3]

    def slices(self) -> Iterator[Slice]:
        t = self.table()
        for track, name, start, end in zip(t.track.tolist(), t.name.tolist(), t.start.tolist(), t.end.tolist(), strict=True):
            yield Slice(t.tracks[track], t.names[name], start, end)

    def write(self, path: str) -> None:
        """A .pftrace file; open it at ui.perfetto.dev."""
        t = self.table()
        with open(path, "wb") as f:
            f.write(b"".join(_field(1, p) for p in _head(t)))
            f.write(_slices(t))


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


def _head(t: Table) -> Iterator[bytes]:
    """TracePackets that name cores, tracks and slices; numbers count from 1."""
    sequence = _number(10, SEQUENCE)
    interned = b"".join(_field(2, _number(1, n + 1) + _field(2, name.encode())) for n, name in enumerate(t.names))
    yield sequence + _number(13, 1) + _number(8, 0) + _field(12, interned)  # 1: nothing was interned before
    cores: dict[str, int] = {}
    for n, track in enumerate(t.tracks):
        core = " ".join(track.split()[:2])
        if core not in cores:
            cores[core] = 1_000_000 + len(cores)
            process = _number(1, len(cores)) + _field(6, core.encode())
            yield sequence + _field(60, _number(1, cores[core]) + _field(3, process))
        yield sequence + _field(60, _number(1, n + 1) + _field(2, track.removeprefix(core + " ").encode()) + _number(5, cores[core]))


def _slices(t: Table) -> bytes:
    """A begin and an end packet for each slice. All are equally long: varints may carry leading zeros."""
    if not len(t.track):
        return b""

    def column(tag: int, values: Numbers) -> list[Any]:
        width = max(1, -(-int(values.max()).bit_length() // 7))
        return [tag, *(values >> 7 * i & 0x7F | (0x80 if i < width - 1 else 0) for i in range(width))]

    track = column(11 << 3, t.track + 1)
    head = [10 << 3, SEQUENCE, 13 << 3, 2]  # 2: interned names are needed
    row: list[Any] = []
    for values, event in ((t.start, [9 << 3, BEGIN, *track, *column(10 << 3, t.name + 1)]), (t.end, [9 << 3, END, *track])):
        packet = [*column(8 << 3, values), *head, 11 << 3 | 2, len(event), *event]
        row += [1 << 3 | 2, len(packet), *packet]
    out = np.empty((len(t.track), len(row)), np.uint8)
    for n, values in enumerate(row):
        out[:, n] = values
    return out.tobytes()


def buffer(events: int) -> Numbers:
    return np.zeros((events, TRACE_WORDS), np.int64)
