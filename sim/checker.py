"""Checked mode's host side: makes the shadow state of a device, keeps it in step with allocations and writes, and puts findings into words."""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np

from rvgpu.errors import EXIT_SIM_FAULT, RvgpuError
from rvgpu.isa.codec import F, X
from rvgpu.isa.machine import Machine
from rvgpu.sim import check_state as st
from rvgpu.sim.check_memory import STACK_SLOT
from rvgpu.sim.control import SPM
from rvgpu.sim.elf import BASE
from rvgpu.sim.state import Gpu, Warp

RED_ZONE = 1 << 16  # bytes that belong to nothing between two allocations
CTL = ("SRC", "DST", "ROWS", "ROW_BYTES", "SRC_STRIDE", "DST_STRIDE", "FILL_ROWS", "FILL_BYTES", "INDEX")
SINKS = {st.S_ADDRESS: "an address", st.S_BRANCH: "a branch's condition", st.S_OPERAND: "an operand of a matrix multiply",
         st.S_DESCRIPTOR: "a DMA descriptor", st.S_DRAM: "data of a tensor", st.S_LENGTH: "a vector length or control register",
         st.S_MASK: "the mask of a store", st.S_TILE: "what a matrix multiply adds to", st.S_JUMP: "a jump's target"}


class Finding(RvgpuError):
    """E720: what checked mode found; `kind` names it for tests and tools: undefined, agnostic, outside, race, misaligned, stack, token,
    tile-width, limit. `pc`, `core`, `warp`, `cta` say whose access it was, `other` the pc of a race's other party."""

    kind: str
    pc: int
    core: int
    warp: int
    cta: int
    other: int | None


class Where(Protocol):
    def where(self, pc: int) -> str: ...


class Checker:
    """The shadow of one device."""

    def __init__(self, g: Gpu, m: Machine) -> None:
        cores, warps, te, spm_bytes = m.gpu.cores, m.core.warps, m.matrix.te, m.scratchpad.size_bytes
        self.g = g
        self.shadows = (st.Shadow * (cores * warps))()
        self.k = k = st.Check()
        self.tensors: list[tuple[int, int, str, tuple[int, ...]]] = []
        self.spm_bytes = spm_bytes
        k.warps = ctypes.addressof(self.shadows)
        k.room, k.spm_lines, k.spm_used, k.next = 16 * (warps + 4), (spm_bytes + 63) // 64, spm_bytes, 1
        self._keep = [np.zeros(cores * (k.spm_lines + 1), np.uint64), np.zeros(cores * k.spm_lines * k.room, np.uint8)]
        k.spm_undefined, k.spm_cells = (int(a.ctypes.data) for a in self._keep)
        for s in self.shadows:
            bits = np.zeros(te * te // 2 + 8, np.uint8)
            self._keep.append(bits)
            s.tiles = int(bits.ctypes.data)
        self.undefined = self.known = np.zeros(1, np.uint64)
        self.cells = np.zeros(0, np.uint8)
        g.check = ctypes.addressof(k)

    def arrays(self) -> list[Any]:
        """Shadow memory: of scratchpads (bits, cells) and of DRAM (bits, what belongs to something, cells)."""
        return [*self._keep[:2], self.undefined, self.known, self.cells]

    # -- in step with the device
    def reach(self, size: int) -> None:
        """DRAM's shadow covers `size` bytes."""
        lines = (size + 63) // 64
        if lines > self.k.dram_lines:
            lines = max(lines, 2 * self.k.dram_lines)
            old, self.undefined = self.undefined, np.zeros(lines + 2, np.uint64)
            self.undefined[:len(old)] = old
            old, self.known = self.known, np.zeros(lines + 2, np.uint64)
            self.known[:len(old)] = old
            more, self.cells = self.cells, np.zeros(lines * self.k.room, np.uint8)
            self.cells[:len(more)] = more
            self.k.dram_undefined, self.k.dram_known = int(self.undefined.ctypes.data), int(self.known.ctypes.data)
            self.k.dram_cells, self.k.dram_lines = int(self.cells.ctypes.data), lines

    def program(self, image_bytes: int, stack_low: int, stack: int) -> None:
        """The image is defined; the stacks are there."""
        self.reach(stack)
        self.k.stack_low = BASE + stack_low
        mark(self.known, 0, image_bytes, True)
        mark(self.known, stack_low, stack - stack_low, True)
        mark(self.undefined, stack_low, stack - stack_low, True)

    def alloc(self, at: int, size: int, name: str, shape: tuple[int, ...]) -> None:
        self.reach(at + size + RED_ZONE)
        mark(self.known, at, size, True)
        mark(self.undefined, at, size, True)
        self.tensors.append((BASE + at, size, name, shape))

    def write(self, at: int, size: int) -> None:
        mark(self.undefined, at, size, False)

    def launch(self, name: str, ctas: int, scratchpad_bytes: int) -> None:
        k = self.k
        if k.next + ctas >= st.SERIALS:
            self.cells[:] = 0
            k.next = 1
        if ctas + 1 >= st.SERIALS:
            raise RvgpuError("E721", f"checked mode tells at most {st.SERIALS - 2} CTAs of a launch apart, {name} has {ctas}",
                             exit_code=EXIT_SIM_FAULT)
        k.first, k.spm_used = k.next, scratchpad_bytes or self.spm_bytes

    # -- words
    def place(self, addr: int) -> str:
        """What lies at an address: element of a tensor, byte of scratchpad or stack."""
        if SPM <= addr < SPM + self.spm_bytes:
            beyond = addr - SPM - self.k.spm_used
            return f"scratchpad byte {addr - SPM}" + (f" (the kernel has {self.k.spm_used})" if beyond >= 0 else "")
        for start, size, name, shape in self.tensors:
            if start <= addr < start + size:
                return f"{name}{index(addr - start, size, shape)}" if name else f"a buffer's byte {addr - start}"
        if self.k.stack_low <= addr < self.g.stack:
            n = (self.g.stack - addr - 1) // STACK_SLOT
            return f"the stack of core {n // 16} warp {n % 16}, {self.g.stack - n * STACK_SLOT - addr} bytes below its top"
        return f"the program's byte {addr - BASE:#x}" if BASE <= addr < self.k.stack_low else near(addr, self.tensors)

    def register(self, reg: int, element: int) -> str:
        if reg < 64:
            return (X + F)[reg]
        if reg < 96:
            return f"v{reg - 64}[{element}]"
        if reg < 128:
            return f"mt{4 * (reg - 96)}[{element // self.g.te}, {element % self.g.te}]"
        return CTL[reg - 128 - 8]

    def source(self, origin: int, program: Where) -> str:
        """Where an undefined value came from."""
        kind, at, addr = origin & 7, program.where(self.pc(origin >> 3 & st.INSTRUCTION)), origin >> 24
        if kind == st.O_AGNOSTIC:
            return f"it is agnostic: in the tail of, or masked off by, {at}"
        if kind == st.O_MEMORY:
            return f"{self.place(addr)} was undefined when {at} read it"
        if kind == st.O_OUTSIDE:
            return f"it is agnostic: outside tm x tn of {at}"
        return f"tiles were discarded at {at}" if kind == st.O_DISCARDED else "never written in this CTA"

    def pc(self, record: int) -> int:
        return self.g.text + 2 * record

    def error(self, w: Warp, program: Where) -> Finding:
        """The finding as an error."""
        k, pc = self.k, self.pc(w.pc)
        kind, message, notes = self._said(w, program)
        error = Finding("E720", message, exit_code=EXIT_SIM_FAULT)
        error.kind, error.pc, error.core, error.warp, error.cta = kind, pc, w.core, w.warp, w.cta
        error.other = self.pc(k.other & st.INSTRUCTION) if kind == "race" else None
        error.note(f"core {w.core} warp {w.warp} cta {w.cta}: {program.where(pc)}")
        for text in notes:
            error.note(text)
        return error

    def _said(self, w: Warp, program: Where) -> tuple[str, str, list[str]]:
        k = self.k
        did = "writes" if k.how & st.WRITE else "reads"
        by = "a transfer " if k.how & st.BY_DMA else ""
        what = f"{k.bytes} byte{'s' * (k.bytes != 1)} at {k.addr & (1 << 64) - 1:#x}, {self.place(k.addr)}"
        if k.kind == st.UNDEFINED:
            agnostic = k.origin & 7 in (st.O_AGNOSTIC, st.O_OUTSIDE)
            return ("agnostic" if agnostic else "undefined", f"{'an agnostic' if agnostic else 'an undefined'} value is used as {SINKS[k.sink]}",
                    [f"{self.register(k.reg, k.element)}: " * (k.reg >= 0) + self.source(k.origin, program)])
        if k.kind == st.OUTSIDE:
            return "outside", "memory access outside of what is allocated", [f"{by}{did} {what}"]
        if k.kind == st.RACE:
            return "race", "race: nothing orders two accesses to the same bytes", [f"{by}{did} {what}", self._other(w, program)]
        if k.kind == st.MISALIGNED:
            return "misaligned", f"misaligned access: not at a multiple of {k.bytes} bytes", [f"{did} {what}"]
        if k.kind == st.STACK:
            return "stack", "access below the stack pointer, or to another warp's stack", [f"{did} {what}"]
        if k.kind == st.TOKEN:
            return "token", "WAIT for a transfer that this warp did not start", [f"token {k.addr}, but it started {k.extra or 'none'}"]
        if k.kind == st.TILE_WIDTH:
            return "tile-width", "tile read with another element width than it was written with", [
                f"mt{k.reg} was written with elements of {k.extra} bits, read with {k.element}"]
        return "limit", f"checked mode counts at most {st.CLOCKS - 1} barriers or transfers of a warp in one CTA", []

    def _other(self, w: Warp, program: Where) -> str:
        """A race's other party."""
        old = self.k.other
        cta, warp, by_dma = (old >> 29 & st.SERIALS - 1) - self.k.first, old >> 24 & 31, old & st.BY_DMA
        whose = "this warp" if (cta, warp) == (w.cta, w.warp) else f"warp {warp}" + f" of cta {cta}" * (cta != w.cta)
        who = "a transfer of " * bool(by_dma) + whose
        state = ", not known here to be complete," * bool(by_dma)
        return f"{who}{state} {'writes' if old & st.WRITE else 'reads'} there: {program.where(self.pc(old & st.INSTRUCTION))}"


def mark(words: Any, at: int, size: int, on: bool) -> None:
    """Bits at..at+size of little-endian words."""
    if size <= 0:
        return
    first, last, full = at // 64, (at + size - 1) // 64, (1 << 64) - 1
    left, right = full << at % 64 & full, full >> 63 - (at + size - 1) % 64
    for n, mask in ((first, left & right),) if first == last else ((first, left), (last, right)):
        words[n] = np.uint64(int(words[n]) | mask if on else int(words[n]) & ~mask & full)
    words[first + 1:last] = np.uint64(full if on else 0)


def index(at: int, size: int, shape: tuple[int, ...]) -> str:
    """The element at byte `at` of a tensor, as an index."""
    count = int(np.prod(shape)) if shape else 0
    if not count:
        return f", byte {at}"
    return f"[{', '.join(str(int(i)) for i in np.unravel_index(at // (size // count), shape))}]"


def near(addr: int, tensors: list[tuple[int, int, str, tuple[int, ...]]]) -> str:
    best, far = "near no tensor", RED_ZONE + 1
    for start, size, name, _ in tensors:
        past, before = addr - start - size, start - addr
        if 0 <= past < far:
            best, far = f"{past} bytes past the end of {name or 'a buffer'} ({size} bytes)", past
        elif 0 < before < far:
            best, far = f"{before} bytes before {name or 'a buffer'}", before
    return best
