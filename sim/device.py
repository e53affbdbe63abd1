"""The simulator's public face: a device with memory, programs, launches, and what a run tells about itself."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Thread
from typing import Any

import numpy as np

from rvgpu.errors import EXIT_REJECTED, EXIT_SIM_FAULT, EXIT_USAGE, RvgpuError
from rvgpu.isa.codec import decode, disasm
from rvgpu.isa.machine import Machine
from rvgpu.sim import plan
from rvgpu.sim.check_state import F_FINDING
from rvgpu.sim.checker import RED_ZONE, Checker
from rvgpu.sim.dwarf import Lines, read_lines
from rvgpu.sim.elf import BASE, Image, link, load
from rvgpu.sim.engine import Engine
from rvgpu.sim.engine import engine as compiled
from rvgpu.sim.memory import ORDER, SET_BYTES, WAYS, WINDOWS
from rvgpu.sim.occupancy import class_table
from rvgpu.sim.program import Key, predecode
from rvgpu.sim.reference import Reference
from rvgpu.sim.state import (
    AT_BARRIER,
    CAUSES,
    CORE_BYTES,
    F_ALIGN,
    F_ARRIVALS,
    F_BARRIER,
    F_BREAK,
    F_CONTROL,
    F_DMA,
    F_ILLEGAL,
    F_JUMP,
    F_MEMORY,
    F_OPERAND,
    F_TILE,
    F_TRAP,
    F_VSTART,
    F_VTYPE,
    MM_WAITING,
    PLAN_BYTES,
    R_DEADLOCK,
    R_LIMIT,
    R_OK,
    WARP_BYTES,
    Core,
    Gpu,
    Plan,
    Queue,
    Rec,
    Warp,
    aligned,
)
from rvgpu.sim.trace import Trace, buffer
from rvgpu.sim.turns import NEVER

TRACE_EVENTS = 4_000_000
THREADS = 2  # at most, on the host
MEMORY_BYTES = 1 << 31  # of DRAM when a run says nothing else
QUEUE, RING = 3, 64  # places that Core has for a unit's queue, and for transfers and misses in flight
STACK_SLOT = 36864  # 32 KiB of stack and an unmapped page's worth between warps
FAULTS = {F_ILLEGAL: "illegal instruction", F_MEMORY: "memory access out of bounds", F_JUMP: "jump to what is no instruction",
          F_CONTROL: "illegal control page access", F_TILE: "illegal tile number or index", F_TRAP: "ecall or ebreak", F_BREAK: "ecall or ebreak",
          F_VTYPE: "vector instruction under an illegal vtype", F_BARRIER: "warps disagree about a barrier's arrivals",
          F_DMA: "illegal DMA descriptor", F_ALIGN: "misaligned atomic access",
          F_ARRIVALS: "a barrier for no arrival, or for more than the core has warps",
          F_OPERAND: "reserved operands: a register group that is misaligned, too long, or overlaps another as it must not",
          F_VSTART: "vstart is not 0 at a vector instruction that always starts at element 0"}


def _host_threads() -> int:
    asked = os.environ.get("RVGPU_THREADS", "")
    if asked and asked not in [str(n + 1) for n in range(THREADS)]:
        raise RvgpuError("E507", f"RVGPU_THREADS={asked}: 1 or {THREADS} needed", exit_code=EXIT_USAGE)
    return int(asked) if asked else min(THREADS, len(os.sched_getaffinity(0)))


class SimFault(RvgpuError):
    """The program did something illegal: E701 with pc, disassembly, source line, warp, core and address."""


class Deadlock(RvgpuError):
    """E702: the wait-for graph of the warps that can never run again."""


class CycleLimit(RvgpuError):
    """E703: the run passed max_cycles."""


@dataclass
class Program:
    image: Image
    records: ctypes.Array[Rec]
    plans: ctypes.Array[Plan]  # the cores' one after the other
    lines: Lines
    memory: Any  # the device's
    base: int
    near: Callable[[int], str] = staticmethod(lambda pc: "")  # the symbol that a bare-metal program has there

    def fetch(self, pc: int) -> bytes:
        """What memory holds there, up to four bytes."""
        return bytes(self.memory[pc - self.base:pc - self.base + 4])

    def forget_plans(self) -> None:
        """Text has changed: plans are to be made anew (counts stay)."""
        raw: Any = self.plans
        np.frombuffer(raw, np.dtype(Plan))["shape"][:] = 0

    def counts(self) -> dict[int, tuple[int, int]]:
        """pc -> (how often it ran, cycles in which it took a slot) of what ran, on all cores."""
        raw: Any = self.plans
        plans = np.frombuffer(raw, np.dtype(Plan)).reshape(-1, len(self.records))
        count, free = plans["count"].sum(0), plans["free"].sum(0)
        return {self.image.text[0] + 2 * int(n): (int(count[n]), int(count[n] - free[n])) for n in np.flatnonzero(count)}

    def label(self, pc: int) -> str:
        """The instruction's name in a trace, with the symbol and the source line of a bare-metal program."""
        d = decode(int.from_bytes(self.fetch(pc), "little"))
        name, near = d.row.name if d else ".word", self.near(pc)
        return " ".join([name, near, str(self.lines.at(pc) or "")]).rstrip() if near else name

    def text(self, pc: int) -> tuple[str, str]:
        """The instruction at pc, and its source line, "" when the program does not say it."""
        raw = self.fetch(pc)
        d = decode(int.from_bytes(raw, "little"))
        return disasm(d, pc) if d else f".word {raw[::-1].hex()}", str(self.lines.at(pc) or "")

    def where(self, pc: int) -> str:
        """The instruction at pc, its symbol and its source line where the program says them."""
        (text, line), near = self.text(pc), self.near(pc)
        return f"pc {pc:#x} `{text}`" + (f" in {near}" if near else "") + (f" from {line}" if line else "")


@dataclass(frozen=True)
class LaunchResult:
    name: str
    grid: int
    cycles: int
    cores: tuple[int, ...] = ()  # cycles until each core's last instruction


@dataclass
class RunStats:
    """Cycles count from the start of the first launch until the last dirty line is in DRAM."""

    cycles: int
    instructions: int
    macs: int
    dram_bytes: int
    busy: dict[str, float]  # of core-cycles: matrix, vector, exp, memory, tile, dma; dram of cycles; issue: slots used
    stalls: dict[str, float]
    launches: list[LaunchResult]
    lines: dict[int, tuple[int, int]] = field(default_factory=dict)  # pc -> (count, issue cycles)


class Device:
    """One GPU: allocate and write tensors, load programs, launch kernels in order, then `finish()`."""

    sanitize = False  # what a device does that is not told

    def __init__(self, machine: Machine, *, timing: bool = True, max_cycles: int | None = None, memory_bytes: int = MEMORY_BYTES,
                 trace: bool = False, engine: Engine | Reference | None = None, threads: int | None = None,
                 base: int = BASE, sanitize: bool | None = None, latency_seed: int | None = None) -> None:
        """`threads`: host threads, 1 or 2; by default RVGPU_THREADS, else 2 where the machine has several cores and the host two processors.
        What a run computes and its cycles do not depend on it."""
        self.machine, self.base = machine, base
        self.engine = engine or compiled()
        self.limit = max_cycles if max_cycles is not None else 1 << 50
        self.memory = aligned(memory_bytes + 8)[:memory_bytes]  # (an instruction's word may be read across the end)
        self.top = 0
        self.tensors: list[tuple[int, int, str]] = []
        self.launches: list[LaunchResult] = []
        self.time = 0
        self._keep: list[Any] = []
        self.gpu = self._gpu(machine, timing)
        sanitize = self.sanitize if sanitize is None else sanitize
        self.mode = int(sanitize), int(latency_seed is not None)
        self.gpu.seed = (latency_seed or 0) & (1 << 63) - 1
        self.checker = Checker(self.gpu, machine) if sanitize else None
        self.engine.begin(self.mode)
        self.stack = 0
        alone = trace or sanitize or machine.gpu.cores == 1 or isinstance(self.engine, Reference)
        self.gpu.threads = 1 if alone else threads or _host_threads()
        self.gpu.sched_yield = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
        self._program: Program | None = None
        if trace:
            self._events = buffer(TRACE_EVENTS)
            self.gpu.trace, self.gpu.trace_cap = int(self._events.ctypes.data), TRACE_EVENTS

    # -- set-up
    def _array(self, n: int, dtype: Any = np.uint8) -> int:
        a = aligned(n * np.dtype(dtype).itemsize)
        self._keep.append(a)
        return int(a.ctypes.data)

    def _cache(self, sets: int) -> int:
        """Empty; the ways of a set are taken from the highest down."""
        a = aligned(sets * SET_BYTES).view(np.uint64).reshape(sets, -1)
        a[:, ORDER // 8] = 0xFEDC_BA98_7654_3210
        self._keep.append(a)
        return int(a.ctypes.data)

    def _queue(self, bytes_per_cycle: int) -> int:
        q = Queue(self._array(WINDOWS * 4, np.uint32), max(1, 256 * 64 // bytes_per_cycle), 0, 0, 0)
        self._keep.append(q)
        return ctypes.addressof(q)

    def _gpu(self, m: Machine, timing: bool) -> Gpu:
        for what, value, most in (("core.queue_entries", m.core.queue_entries, QUEUE), ("dma.transfers", m.dma.transfers, RING),
                                  ("l1.misses", m.l1.misses, RING), ("l1.ways", m.l1.ways, WAYS), ("l2.ways", m.l2.ways, WAYS)):
            if value > most:
                raise RvgpuError("E507", f"{what}: {value} is more than {most}")
        for what, value in (("l2.bytes_per_cycle", m.l2.bytes_per_cycle), ("dram.bytes_per_cycle", m.dram.bytes_per_cycle)):
            if value < 2:
                raise RvgpuError("E507", f"{what}: {value} is less than 2")
        g = Gpu()
        te = m.matrix.te
        self.cores = (Core * m.gpu.cores).from_buffer(aligned(m.gpu.cores * CORE_BYTES))
        warps = m.gpu.cores * m.core.warps
        self.warps = (Warp * warps).from_buffer(aligned(warps * WARP_BYTES))
        l1_sets, l2_sets = m.l1.size_bytes // (64 * m.l1.ways), m.l2.size_bytes // (64 * m.l2.ways)
        for n, c in enumerate(self.cores):
            c.warps = ctypes.addressof(self.warps) + n * m.core.warps * WARP_BYTES
            c.core, c.spm_size = n, m.scratchpad.size_bytes
            c.order[:] = [33 * i for i in range(len(c.order))]  # warp 0 counts as the last that issued
            c.ready[:] = [NEVER] * len(c.ready)
            c.spm = self._array(m.scratchpad.size_bytes)
            c.l1 = self._cache(l1_sets)
        for n, w in enumerate(self.warps):
            w.core, w.warp = divmod(n, m.core.warps)
            w.hart, w.warps = n, m.core.warps
            w.tiles, w.operands = self._array(16 * te * te), self._array(32 * MM_WAITING * te + 2048)
            w.panel = self.warps[n - 1].panel if w.warp else self._array(16 * MM_WAITING * te + 8192)
        g.cores, g.ncores = ctypes.addressof(self.cores), m.gpu.cores
        g.dram, g.dram_size, g.base, g.fair = int(self.memory.ctypes.data), len(self.memory), self.base, NEVER
        g.vlenb, g.te, g.timed, g.max_cycles = m.vector.vlen // 8, te, int(timing), self.limit
        g.l2, g.l2_sets, g.l2_oldest, g.l2_latency = self._cache(l2_sets), l2_sets, 4 * (m.l2.ways - 1), m.l2.latency_cycles
        g.l2_queue, g.dram_queue = self._queue(m.l2.bytes_per_cycle), self._queue(m.dram.bytes_per_cycle)
        g.dram_latency = m.dram.latency_cycles
        g.l1_sets, g.l1_oldest, g.l1_hit, g.l1_misses = l1_sets, 4 * (m.l1.ways - 1), m.l1.hit_cycles, m.l1.misses
        g.dma_per_line_256, g.dma_factor = max(1, 256 * 64 // m.dma.bytes_per_cycle), m.dma.transpose_factor
        g.dma_transfers = m.dma.transfers
        g.spm_latency, g.spm_bytes = m.scratchpad.latency_cycles, m.scratchpad.bytes_per_cycle
        g.dlen, g.exp_lanes = m.vector.dlen, m.exp.lanes_per_cycle
        g.classes[:] = list(class_table(m))
        g.tile_bytes, g.mm_latency, g.queue = m.matrix.tile_move_bytes_per_cycle, m.matrix.latency_cycles, m.core.queue_entries
        g.mac16, g.mac32, g.mac8 = m.matrix.bf16_macs_per_cycle, m.matrix.f32_macs_per_cycle, m.matrix.int8_macs_per_cycle
        g.branch, g.barrier, g.dispatch = m.core.taken_branch_cycles, m.gpu.barrier_cycles, m.gpu.cta_dispatch_cycles
        return g

    def load(self, *files: bytes) -> Program:
        """Places a program, made of an executable or of objects, at DRAM's base with the stacks behind it. One program per device."""
        assert self.top == 0, "the program comes first"
        image = load(files[0], len(self.memory)) if len(files) == 1 else link(files, len(self.memory))
        end = image.base + max(image.size, len(image.data))
        if image.base < BASE:
            raise RvgpuError("E604", f"the program wants {image.base:#x}..{end:#x}; memory starts at {BASE:#x}", exit_code=EXIT_REJECTED)
        stacks = len(self.cores) * 16 * STACK_SLOT
        self.top = -(-(end - BASE) // 4096) * 4096 + stacks
        self.stack = BASE + self.top
        if self.top > len(self.memory):
            raise RvgpuError("E605", f"the image and the stacks need {self.top} bytes, the device has {len(self.memory)}", exit_code=EXIT_SIM_FAULT)
        if self.checker is not None:
            self.checker.program(max(image.size, len(image.data)), self.top - stacks, self.top)
        return self.place(image, (), ())

    def place(self, image: Image, code: Sequence[tuple[int, int, bool]], starts: Collection[int]) -> Program:
        """Writes the image into memory and decodes its text (program.predecode says what `code` and `starts` are)."""
        for at, data in image.pieces():
            self.write(at, bytes(data))
        records = self.decoded(image, code, starts)
        plans = (Plan * (len(records) * len(self.cores))).from_buffer(aligned(len(records) * len(self.cores) * PLAN_BYTES))
        return Program(image, records, plans, read_lines(image.debug), self.memory, self.base)

    def decoded(self, image: Image, code: Sequence[tuple[int, int, bool]], starts: Collection[int]) -> ctypes.Array[Rec]:
        """The records of what stands in memory as the image's text, with their handlers."""
        records, wanted = predecode(self.read(*image.text), image.text[0], self.machine, code, starts)
        addresses = self.engine.handlers(set(wanted))
        self.engine.core(self.mode)
        for key, places in wanted.items():
            for at, slot in places:
                if key[1] < 0:
                    records[at].handler[:] = [addresses[key]] * 4
                else:
                    records[at].handler[slot] = addresses[key]
        if self.checker is not None:
            self._rules(wanted, len(records))
        return records

    def _rules(self, wanted: dict[Key, list[tuple[int, int]]], records: int) -> None:
        """Checked mode: the rule of each record, as its handlers."""
        addresses, table = self.engine.checks(set(wanted)), np.zeros((records, 4), np.uint64)
        for key, places in wanted.items():
            for at, slot in places:
                table[at, slice(None) if key[1] < 0 else slot] = addresses[key]
        self._keep.append(table)
        self.gpu.checks = int(table.ctypes.data)

    def alloc(self, nbytes: int, name: str = "", shape: Sequence[int] = ()) -> int:
        """256-byte aligned DRAM; returns its guest address. In checked mode memory between allocations belongs to nothing, what was not
        written is undefined, and findings name elements of a tensor of this shape."""
        at = -(-self.top // 256) * 256 + (0 if self.checker is None else RED_ZONE)
        if at + nbytes > len(self.memory):
            raise RvgpuError("E606", f"device memory is full: {nbytes} bytes more for {name or 'a buffer'}", exit_code=EXIT_SIM_FAULT)
        self.top = at + nbytes
        self.tensors.append((BASE + at, nbytes, name))
        if self.checker is not None:
            self.checker.alloc(at, nbytes, name, tuple(shape))
        return BASE + at

    def write(self, addr: int, data: Any) -> None:
        raw = np.frombuffer(data, np.uint8) if isinstance(data, (bytes, bytearray)) else np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self.memory[addr - self.base:addr - self.base + len(raw)] = raw
        if self.checker is not None:
            self.checker.write(addr - self.base, len(raw))

    def read(self, addr: int, nbytes: int) -> bytes:
        return self.memory[addr - self.base:addr - self.base + nbytes].tobytes()

    @property
    def trace(self) -> Trace | None:
        """What was recorded so far, when the device was made with `trace`."""
        if not self.gpu.trace_cap:
            return None
        kept, program = min(self.gpu.trace_n, TRACE_EVENTS), self._program
        if program is None:  # nothing was launched
            return Trace(self._events[:0], 0, str, lambda pc: (str(pc), ""))
        return Trace(self._events[:kept], self.gpu.trace_n - kept, lru_cache(None)(program.label), program.text)

    # -- running
    def launch(self, program: Program, name: str, args: Sequence[int], *, ctas: int, scratchpad_bytes: int = 0,
               grid: int | None = None) -> LaunchResult:
        """Runs kernel `name` with 8-byte argument slots on `ctas` CTAs; raises SimFault, Deadlock or CycleLimit. `grid`: how many CTAs the kernel
        believes there are; with more than run, a persistent kernel does a sample of its work."""
        if name not in program.image.symbols:
            raise RvgpuError("E607", f"the program has no kernel {name!r}")
        if scratchpad_bytes > self.machine.scratchpad.size_bytes:
            raise RvgpuError("E608", f"kernel {name} wants {scratchpad_bytes} bytes of scratchpad, the machine has "
                             f"{self.machine.scratchpad.size_bytes}")
        self._program = program
        g, m = self.gpu, self.machine
        start, size = program.image.text
        entry = program.image.symbols[name] - start
        if entry & 1 or not 0 <= entry < size or not program.records[entry >> 1].size:
            raise RvgpuError("E613", f"kernel {name} at {start + entry:#x} is no instruction of the text, {start:#x}..{start + size:#x}")
        slots = self.alloc(8 * len(args), "arguments")
        self.write(slots, np.array([a & (1 << 64) - 1 for a in args], np.uint64))
        g.recs, g.nrecs = ctypes.addressof(program.records), len(program.records) - 1
        g.text, g.text_size = g.guard, g.guard_size = program.image.text
        g.entry, g.args, g.stack = entry >> 1, slots, self.stack
        g.ncta, g.grid, g.next_cta = ctas, grid or ctas, 0
        if self.checker is not None:
            self.checker.launch(name, ctas, scratchpad_bytes)
        start = self.time + m.gpu.launch_cycles
        for n, c in enumerate(self.cores):
            c.nwarps, c.live = m.core.warps, 0
            c.plans = ctypes.addressof(program.plans) + n * len(program.records) * PLAN_BYTES
            c.room[:] = [max(start, at) for at in c.room]
            self.engine.call("start_cta", c, g, start, mode=self.mode)
            c.time = start + m.gpu.cta_dispatch_cycles if c.live else NEVER
        g.start = g.end = start
        g.code, g.stop[0], g.parked[0], g.progress[:] = R_OK, NEVER, sum(not c.live for c in self.cores), [0] * len(g.progress)
        self._run()
        if g.code == R_OK and any(c.live for c in self.cores):
            g.code = R_DEADLOCK
        if g.code != R_OK:
            raise self._error(g.code, program)
        result = LaunchResult(name, ctas, g.end - self.time, tuple(max(0, c.accounted - self.time) for c in self.cores))
        self.time = g.end
        self.launches.append(result)
        return result

    def _run(self) -> None:
        """All turns of a launch, on as many host threads as there are for it."""
        self.engine.core(self.mode)
        others = [Thread(target=self.engine.call, args=("run", self.gpu, n), kwargs={"mode": self.mode}) for n in range(1, self.gpu.threads)]
        for t in others:
            t.start()
        self.engine.call("run", self.gpu, 0, mode=self.mode)
        for t in others:
            t.join()

    def _near(self, addr: int) -> str:
        best = ""
        for start, size, name in self.tensors:
            if name and start - 4096 <= addr < start + size + 4096:
                if addr >= start + size:
                    best = f"{addr - start - size} bytes past the end of {name} ({size} bytes)"
                elif addr < start:
                    best = best or f"{start - addr} bytes before {name}"
                else:
                    return f"inside {name}, at byte {addr - start}, or across its end"
        return best or "near no tensor"

    def _waits(self, w: Warp, program: Program) -> str:
        """What a warp at a barrier waits for: the wait-for graph's edges."""
        c = self.cores[w.core]
        first = w.core * self.machine.core.warps
        others = [o for o in self.warps[first:first + self.machine.core.warps] if o.state != AT_BARRIER or o.bar != w.bar]
        states = [f"warp {o.warp} " + (f"waits at barrier {o.bar}" if o.state == AT_BARRIER else f"has returned{self._returned(o, program)}")
                  for o in others]
        at = program.records[w.pc - 2].pc  # the amoswap, 4 bytes long
        return (f"warp {w.warp} waits at barrier {w.bar}, which has {c.bar_count[w.bar]} of {c.bar_need[w.bar]} arrivals: "
                f"{', '.join(states) or 'no other warp is there'}; {program.where(at)}")

    def _returned(self, w: Warp, program: Program) -> str:
        """In checked mode: where."""
        return "" if self.checker is None else f" at {program.where(self.checker.pc(self.checker.shadows[w.hart].last))}"

    def _error(self, code: int, program: Program) -> RvgpuError:
        g = self.gpu
        if code == R_DEADLOCK:
            error: RvgpuError = Deadlock("E702", "deadlock: no warp can ever run again", exit_code=EXIT_SIM_FAULT)
            said: set[str] = set()
            for w in self.warps:
                if w.state == AT_BARRIER:
                    text = self._waits(w, program)
                    if text not in said:  # the cores often stand alike
                        said.add(text)
                        error.note(f"core {w.core} {text}")
            return error
        w = self.warps[g.fault_core * self.machine.core.warps + g.fault_warp]
        place = f"core {g.fault_core} warp {g.fault_warp} cta {w.cta}: {program.where(g.text + 2 * w.pc)}"
        if code == R_LIMIT:
            return CycleLimit("E703", f"cycle limit of {self.limit} reached", exit_code=EXIT_SIM_FAULT).note(place)
        if w.fault == F_FINDING and self.checker is not None:
            return self.checker.error(w, program)
        error = SimFault("E701", FAULTS.get(w.fault, f"fault {w.fault}"), exit_code=EXIT_SIM_FAULT).note(place)
        if w.fault == F_ILLEGAL and not self.machine.has_matrix:
            error.hint(f"{self.machine.name} has no matrix unit (core.matrix): its instructions are illegal there")
        if w.fault in (F_MEMORY, F_JUMP, F_CONTROL, F_TILE, F_ALIGN):
            addr = w.fault_addr & (1 << 64) - 1
            error.note(f"address {addr:#x}: {self._near(addr)}")
        return error

    def finish(self) -> RunStats:
        """Writes the last dirty lines back and tells about the run."""
        g = self.gpu
        g.end = self.time
        return self.stats(max(1, self.engine.call("drain", g, mode=self.mode) if g.timed else self.time))

    def stats(self, cycles: int) -> RunStats:
        g, m = self.gpu, self.machine
        total = sum(max(cycles, c.accounted) for c in self.cores)
        stalls = {name: sum(c.stall[n] for c in self.cores) for n, name in enumerate(CAUSES)}
        stalls["issued"] = sum(min(c.accounted, cycles) for c in self.cores) - sum(stalls.values())  # (a run ends when its last instruction issues)
        stalls["idle"] += total - sum(stalls.values())
        instructions = sum(w.retired for w in self.warps)

        def unit(n: int) -> float:
            return sum(c.busy[n] for c in self.cores) / total

        busy = {"matrix": unit(plan.U_MATRIX), "vector": unit(plan.U_VALU), "exp": unit(plan.U_EXP), "memory": unit(plan.U_LSU),
                "tile": unit(plan.U_TILE), "dma": sum(c.dma_busy for c in self.cores) / 256 / total,
                "issue": instructions / (2 * total), "dram": g.dram_lines * 64 / (cycles * m.dram.bytes_per_cycle)}
        lines = self._program.counts() if self._program else {}
        return RunStats(cycles, instructions, sum(w.macs for w in self.warps), g.dram_lines * 64, busy,
                        {k: v / total for k, v in stalls.items()}, list(self.launches), lines)


