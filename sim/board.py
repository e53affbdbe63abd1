"""A bare-metal program on the machine: harts from reset to the program's exit, and what it says on its console.

The program ends itself through HTIF (the symbols `tohost` and `fromhost`, as riscv-tests, pk and Spike have them), RISC-V semihosting or, while
`mtvec` is 0, Linux's `ecall`. All give it a console and an exit code and nothing else of this computer: no files, no time of day, no input.
"""

from __future__ import annotations

import bisect
import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from rvgpu.errors import EXIT_REJECTED, EXIT_SIM_FAULT, EXIT_USAGE, RvgpuError
from rvgpu.isa.machine import Machine
from rvgpu.sim.csr import FS, MACHINE, MPP, VS
from rvgpu.sim.device import FAULTS, CycleLimit, Device, Program, RunStats, SimFault
from rvgpu.sim.elf import Image, load
from rvgpu.sim.engine import Engine
from rvgpu.sim.handlers import reshape
from rvgpu.sim.reference import Reference
from rvgpu.sim.state import (
    F_ALIGN,
    F_CONTROL,
    F_JUMP,
    F_MEMORY,
    F_TRAP,
    FS_OFF,
    PLAN_BYTES,
    R_CALL,
    R_FAULT,
    R_LIMIT,
    REC_BYTES,
    RUN,
    VS_OFF,
    Rec,
    Warp,
)

EXTRA_BYTES = 64 << 20  # of memory behind the image when a run says nothing else
MOST_BYTES = 1 << 32
SPM, CONTROL, CONTROL_BYTES = 0x1000_0000, 0x0200_0000, 16 << 12
PAUSE = 20_000_000  # cycles after which `run` returns, so that a keyboard interrupt is heard
CHUNK = 1 << 16  # bytes that are handed on at a time
EBADF, ENOSYS = 9, 38
SYS_WRITE, SYS_EXIT, SYS_EXIT_GROUP = 64, 93, 94  # of Linux and the proxy kernel
STACK_BYTES, START_BYTES = 1 << 16, 64  # from one hart's stack pointer to the next one's; zeros above it: Linux's argc, argv, envp and auxv, empty
# semihosting operations
OPEN, CLOSE, WRITEC, WRITE0, WRITE, READ, ISTTY, SEEK, FLEN, EXIT, EXIT_EXTENDED = 1, 2, 3, 4, 5, 6, 9, 0xA, 0xC, 0x18, 0x20
APPLICATION_EXIT = 0x20026
# names that OPEN knows: the console, whose mode says which handle (0 to 2), and the list of extensions: EXIT_EXTENDED, output beside errors
TERMINAL, FEATURES, FEATURES_HANDLE, FEATURE_BYTES = b":tt", b":semihosting-features", 3, b"SHFB\x03"


@dataclass(frozen=True)
class Exit:
    """The program's own exit code, and the cycle after the instruction that ended it."""

    code: int
    cycles: int


class Symbols:
    """Addresses to `name+offset`."""

    def __init__(self, image: Image) -> None:
        start, size = image.text
        named = sorted((a, n) for n, a in image.symbols.items() if start <= a < start + size and not n.startswith(("$", ".")))
        self.addresses, self.names = [a for a, _ in named], [n for _, n in named]

    def near(self, addr: int) -> str:
        n = bisect.bisect_right(self.addresses, addr) - 1
        if n < 0:
            return ""
        off = addr - self.addresses[n]
        return f"{self.names[n]}+{off:#x}" if off else self.names[n]


def _memory_bytes(image: Image, machine: Machine, wanted: int | None) -> int:
    """RAM from the image's base up. It and the kernels' map (control page, scratchpad) do not overlap: memory nobody asked for ends before it."""
    size = wanted if wanted is not None else min(image.size + EXTRA_BYTES, MOST_BYTES)
    for what, start, n in (("the scratchpad", SPM, machine.scratchpad.size_bytes), ("the control page", CONTROL, CONTROL_BYTES)):
        used = [(at, at + len(d)) for at, d in image.pieces() if len(d)] + [(a, b) for a, b, _ in image.code]
        if any(a < start + n and b > start for a, b in used):
            raise RvgpuError("E614", f"a segment overlaps {what} at {start:#x}..{start + n:#x}", exit_code=EXIT_REJECTED)
        if image.base < start < image.base + size:
            if wanted is None and image.base + image.size <= start:
                size = start - image.base
    return size


class Board(Device):
    """One program on `harts` harts: core 0's warps first, then the next core's. Only cores with a hart are simulated. `say` takes console output.
    E601, E604, E612 to E615: a file that cannot be run."""

    def __init__(self, machine: Machine, data: bytes, *, harts: int = 1, memory_bytes: int | None = None, timing: bool = True,
                 max_cycles: int | None = None, trace: bool = False, engine: Engine | Reference | None = None,
                 say: Callable[[bytes], object] = lambda text: None) -> None:
        image = load(data, MOST_BYTES if memory_bytes is None else memory_bytes)
        if not image.executable:
            raise RvgpuError("E611", "an object is no program: link it into a static executable", exit_code=EXIT_REJECTED)
        warps = machine.core.warps
        if not 1 <= harts <= machine.gpu.cores * warps:
            raise RvgpuError("E615", f"{harts} harts: {machine.name} has {machine.gpu.cores} cores of {warps} warps", exit_code=EXIT_USAGE)
        cores = -(-harts // warps)
        super().__init__(msgspec.structs.replace(machine, gpu=msgspec.structs.replace(machine.gpu, cores=cores)), timing=timing,
                         max_cycles=max_cycles, memory_bytes=_memory_bytes(image, machine, memory_bytes), trace=trace, engine=engine, base=image.base,
                         sanitize=False)
        self.image, self.harts, self.say, self.symbols = image, harts, say, Symbols(image)
        self._features_at = self._calls_at = 0
        self._boot()

    def _boot(self) -> None:
        g, image = self.gpu, self.image
        start, size = g.text, g.text_size = image.text
        self._starts = {*image.symbols.values(), image.entry}
        program = self.program = self._program = self.place(image, image.code, self._starts)
        program.near = self.symbols.near
        g.recs, g.nrecs = ctypes.addressof(program.records), len(program.records) - 1
        entry = image.entry - start
        if entry & 1 or not 0 <= entry < size or not program.records[entry >> 1].size:
            raise RvgpuError("E613", f"the entry {image.entry:#x} is no instruction of the text, {start:#x}..{start + size:#x}",
                             exit_code=EXIT_REJECTED)
        low, high = start, start + size
        for name in ("tohost", "fromhost"):
            at = image.symbols.get(name, self.base)
            if not self.base <= at <= self.base + len(self.memory) - 8:
                raise RvgpuError("E616", f"the symbol {name} at {at:#x} is outside memory", exit_code=EXIT_REJECTED)
        if "tohost" in image.symbols:
            g.tohost = image.symbols["tohost"]
            low, high = min(low, g.tohost), max(high, g.tohost + 8)
        g.guard, g.guard_size = g.watch, g.watch_size = low, high - low
        g.bare = self.harts
        warps = self.machine.core.warps
        for n, c in enumerate(self.cores):
            c.nwarps = c.live = min(warps, self.harts - n * warps)
            c.plans = ctypes.addressof(program.plans) + n * len(program.records) * PLAN_BYTES
            c.ready[:c.nwarps] = [-1] * c.nwarps
            c.stale = 1
            for w in self.warps[n * warps:n * warps + c.nwarps]:
                w.state, w.pc, w.x[10], w.priv, w.mstatus = RUN, entry >> 1, w.hart, MACHINE, FS | VS | MPP
                w.x[2] = (self.base + len(self.memory) - START_BYTES - STACK_BYTES * w.hart) & -16
                w.vill, w.vtype, w.lmul8 = 1, -1 << 63, 8
                reshape(w)

    # -- running
    def run(self) -> Exit:
        """To the program's exit; raises SimFault, Deadlock or CycleLimit."""
        g = self.gpu
        pause = PAUSE
        while True:
            g.max_cycles = min(self.limit, pause)
            code = self.engine.call("run_harts", g)
            exit_code = None
            if code == R_CALL:
                w = self._fault_warp()
                self._calls_at = w.pc - 2
                exit_code = self._linux(w) if w.fault == F_TRAP else self._semihosting(w)
            elif code == R_LIMIT and g.htif:
                w = self.warps[g.htif - 1]
                g.htif = 0
                self._calls_at = w.pc
                exit_code = self._htif(w)
            elif code == R_LIMIT and g.rewritten < 2 and pause < self.limit:
                pause += PAUSE
            elif code != R_LIMIT or g.rewritten < 2:
                raise self._error(code, self.program)
            if exit_code is not None:
                self.time = w.earliest + (code == R_LIMIT) if g.timed else self.cores[w.core].time  # (a call is over, a store has issued)
                return Exit(exit_code, self.time)
            if g.rewritten >= 2:
                self._decode_again()

    def finish(self) -> RunStats:
        """What the run did up to the program's exit. (Nothing is written back after it.)"""
        return self.stats(max(1, self.time))

    def _decode_again(self) -> None:
        """After a fence.i: the program has written to its text."""
        program, g = self.program, self.gpu
        new = self.decoded(self.image, self.image.code, self._starts)
        ctypes.memmove(program.records, new, len(new) * REC_BYTES)
        program.forget_plans()
        self._delay(self.warps[g.rewritten - 2], len(new))  # (what the host does is paid for in cycles, so a limit of cycles holds)
        for c in self.cores:
            c.ready[:c.nwarps] = [-1] * c.nwarps
            c.stale = 1
        g.rewritten = 0

    def _fault_warp(self) -> Warp:
        g = self.gpu
        return self.warps[g.fault_core * self.machine.core.warps + g.fault_warp]

    # -- console and exit
    def _guest(self, w: Warp, addr: int, n: int) -> bytes:
        """n bytes of the program's memory; E701 when they are not there."""
        addr = self._there(w, addr, n)
        return ctypes.string_at(self.cores[w.core].spm + addr - SPM, n) if self._in_scratchpad(addr) else self.read(addr, n)

    def _in_scratchpad(self, addr: int) -> bool:
        return SPM <= addr < SPM + self.machine.scratchpad.size_bytes

    def _there(self, w: Warp, addr: int, n: int) -> int:
        """The address as it is unsigned, when n bytes are there."""
        addr &= (1 << 64) - 1
        start, size = (SPM, self.machine.scratchpad.size_bytes) if self._in_scratchpad(addr) else (self.base, len(self.memory))
        if start <= addr <= start + size - n:
            return addr
        error = SimFault("E701", "the host was asked to read memory that is not there", exit_code=EXIT_SIM_FAULT)
        raise error.note(self._place(w, self._calls_at)).note(f"{n} bytes at {addr:#x}")

    def _put(self, w: Warp, addr: int, data: bytes) -> None:
        """Into the program's memory, but not over its text."""
        addr = self._there(w, addr, len(data))
        start, size = self.image.text
        if self._in_scratchpad(addr) or addr + len(data) > start and addr < start + size:
            error = SimFault("E701", "the host was asked to write where it may not", exit_code=EXIT_SIM_FAULT)
            raise error.note(self._place(w, self._calls_at)).note(f"{len(data)} bytes at {addr:#x}")
        self.write(addr, data)

    def _say(self, w: Warp, addr: int, n: int) -> None:
        self._there(w, addr, n)
        for at in range(0, n, CHUNK):
            self.say(self._guest(w, addr + at, min(CHUNK, n - at)))
        self._delay(w, n)

    def _delay(self, w: Warp, n: int) -> None:
        """n more cycles before the hart goes on: one for each byte on the console, so that a limit of cycles limits what a program can say."""
        w.earliest += n
        if not self.gpu.timed:
            self.cores[w.core].time += n
        self.cores[w.core].ready[w.warp] = -1
        self.cores[w.core].stale = 1

    def _htif(self, w: Warp) -> int | None:
        """What a store to `tohost` asks for: device (8 bits), command (8 bits), payload. Returns the exit code, if that is what it is."""
        value, = struct.unpack("<Q", self.read(self.gpu.tohost, 8))
        if not value:
            return None
        self.write(self.gpu.tohost, bytes(8))
        device, command, payload = value >> 56, value >> 48 & 255, value & (1 << 48) - 1
        if value & 1 and (device == command == 0 or value >> 47 == (1 << 17) - 1):  # (a negative code fills the word)
            return (value - (1 << 64) if value >> 63 else value) >> 1
        if device == command == 0:
            return self._system_call(w, payload)
        if device == 1 and command == 1:
            self.say(bytes([payload & 255]))
            self._delay(w, 1)
        elif device != 1 or command:  # (a read of the keyboard waits for ever)
            raise SimFault("E704", f"HTIF device {device}, command {command} is none: 0 (exit, system calls) and 1 (console) are there",
                           exit_code=EXIT_SIM_FAULT).note(self._place(w, self._calls_at)).note(f"tohost was {value:#x}")
        return None

    def _answer(self, value: int) -> None:
        if "fromhost" in self.image.symbols:
            self.write(self.image.symbols["fromhost"], struct.pack("<Q", value))

    def _system_call(self, w: Warp, block: int) -> int | None:
        """The proxy kernel's: eight 64-bit words at `block`, number and arguments; the result goes into the first."""
        code, result = self._called(w, *struct.unpack("<4q", self._guest(w, block, 64)[:32]))
        if code is None:
            self._put(w, block, struct.pack("<q", result))
            self._answer(1)
        return code

    def _linux(self, w: Warp) -> int | None:
        """A system call of Linux: number in a7, arguments from a0 on, the result in a0. An exit code is its low byte, as for any parent there."""
        code, w.x[10] = self._called(w, w.x[17], w.x[10], w.x[11], w.x[12])
        return None if code is None else code & 255

    def _called(self, w: Warp, number: int, a0: int, a1: int, a2: int) -> tuple[int | None, int]:
        """The exit code, if the call is one, and the result."""
        if number in (SYS_EXIT, SYS_EXIT_GROUP):
            return a0, 0
        if number != SYS_WRITE:
            return None, -ENOSYS
        if a0 not in (1, 2):
            return None, -EBADF
        size = a2 & (1 << 64) - 1
        self._say(w, a1, size)
        return None, a2

    def _semihosting(self, w: Warp) -> int | None:
        """The operation in a0 with what a1 points to; the result goes to a0 (-1: there is no such operation, or it failed)."""
        operation, block = w.x[10] & 0xFFFF_FFFF, w.x[11]

        def words(n: int) -> tuple[int, ...]:
            return struct.unpack(f"<{n}q", self._guest(w, block, 8 * n))

        result = -1
        if operation in (EXIT, EXIT_EXTENDED):
            reason, code = words(2)
            return code if reason == APPLICATION_EXIT else 1
        if operation == WRITEC:
            self._say(w, block, 1)
            result = 0
        elif operation == WRITE0:
            self._say(w, block, self._text_length(w, block))
            result = 0
        elif operation == OPEN:
            name, mode, length = words(3)
            text = self._guest(w, name, length) if 0 <= length <= len(FEATURES) else b""
            if text == TERMINAL and 0 <= mode < 12:
                result = mode // 4  # 0: input, 1: output, 2: errors
            elif text == FEATURES and mode in (0, 1):
                result, self._features_at = FEATURES_HANDLE, 0
        elif operation in (CLOSE, ISTTY, FLEN):
            handle, = words(1)
            if 0 <= handle <= FEATURES_HANDLE:
                result = {CLOSE: 0, ISTTY: int(handle != FEATURES_HANDLE), FLEN: len(FEATURE_BYTES) if handle == FEATURES_HANDLE else 0}[operation]
        elif operation == SEEK:
            handle, at = words(2)
            if handle == FEATURES_HANDLE and 0 <= at <= len(FEATURE_BYTES):
                result, self._features_at = 0, at
        elif operation in (WRITE, READ):
            handle, buffer, length = words(3)
            result = length & (1 << 64) - 1  # bytes not moved: from the console nothing is ever read
            if operation == WRITE and handle in (1, 2):
                self._say(w, buffer, result)
                result = 0
            elif operation == READ and handle == FEATURES_HANDLE:
                text = FEATURE_BYTES[self._features_at:self._features_at + result]
                self._put(w, buffer, text)
                self._features_at += len(text)
                result -= len(text)
        w.x[10] = result
        return None

    def _text_length(self, w: Warp, addr: int) -> int:
        """Of a text that ends with a zero byte; E701 when the end of memory comes before it."""
        addr = self._there(w, addr, 1)
        end = SPM + self.machine.scratchpad.size_bytes if self._in_scratchpad(addr) else self.base + len(self.memory)
        at, size = addr, 64
        while at < end:
            size = min(size, end - at)
            found = self._guest(w, at, size).find(b"\0")
            if found >= 0:
                return at + found - addr
            at, size = at + size, min(2 * size, CHUNK)
        self._there(w, end, 1)
        return 0

    # -- faults
    def _place(self, w: Warp, pc: int) -> str:
        """Where a hart is; `pc` counts halfwords of text."""
        return f"hart {w.hart}{'' if w.priv == MACHINE else ' in user mode'}: {self.program.where(self.gpu.text + 2 * pc)}"

    def _error(self, code: int, program: Program) -> RvgpuError:
        if code not in (R_FAULT, R_LIMIT):
            return super()._error(code, program)
        g = self.gpu
        if code == R_LIMIT:
            error: RvgpuError = CycleLimit("E703", f"cycle limit of {self.limit} reached", exit_code=EXIT_SIM_FAULT)
            for w in self.warps[:min(self.harts, 8)]:
                error.note(self._place(w, w.pc))
            return error
        w = self._fault_warp()
        addr = w.fault_addr & (1 << 64) - 1
        to_text = w.fault == F_MEMORY and self._in_text(addr)
        said = "a store to text, which is read-only" if to_text else FAULTS.get(w.fault, f"fault {w.fault}")
        error = SimFault("E701", said, exit_code=EXIT_SIM_FAULT).note(self._place(w, w.pc))
        if w.fault in (F_MEMORY, F_JUMP, F_ALIGN, F_CONTROL):
            error.note(f"address {addr:#x}: {self._about(addr, w.fault)}")
        off = w.off & Rec.from_address(g.recs + w.pc * REC_BYTES).needs
        if off:
            error.note(" and ".join(f"mstatus.{name} is 0, so the {unit} unit is off" for bit, name, unit in (
                (FS_OFF, "FS", "floating-point"), (VS_OFF, "VS", "vector")) if off & bit))
        if near := self.symbols.near(w.x[1]):
            error.note(f"ra is {w.x[1]:#x}, in {near}")
        if w.mtvec & -4:
            error.note(f"its trap vector, mtvec {w.mtvec:#x}, is no instruction")
        else:
            error.hint("a program that sets mtvec gets this as a trap")
        return error

    def _in_text(self, addr: int) -> bool:
        return any(a < addr + 8 and addr < b for a, b, _ in self.image.code)

    def _about(self, addr: int, fault: int) -> str:
        start, size = self.image.text
        end = self.base + len(self.memory)
        if fault == F_JUMP:
            return "only executable sections hold instructions" if not start <= addr < start + size else "inside an instruction, or among data"
        if fault == F_CONTROL:
            return "of the control page"
        if self.base <= addr < end:
            return f"in {self.symbols.near(addr)}" if self._in_text(addr) else "in memory"
        return f"memory is {self.base:#x}..{end:#x}"
