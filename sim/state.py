"""The simulator's state as C structures: what CPython's reference and the compiled engine both read and write."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

U8, U32, U64, I64 = ctypes.c_uint8, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
TRACE_WORDS = 9  # of a trace event: pc, core, warp, operands ready, what they waited for, issue, unit, start, end
REGS = 120  # scoreboard: x 0-31, f 32-63, v 64-95, tiles 96-99; where what has no destination writes to, and what nothing is written to
TILE, NOWHERE, NOTHING = 96, 104, 112
ANY_SHAPE = -1  # the shape of a plan that no vector configuration changes
UNITS = 6
CAUSES = ("issued", "data.vector", "data.matrix", "data.exp", "data.scratchpad", "data.l1", "data.l2", "data.dram", "data.dma", "unit",
          "barrier", "dispatch", "idle")
CAUSE = {name: n for n, name in enumerate(CAUSES)}
HOST_LINE = 64  # bytes of a line of the host's caches
MM_WAITING = 32  # multiplies on a tile that are done together

# what a run ends with
R_OK, R_FAULT, R_DEADLOCK, R_LIMIT, R_CALL = range(5)
# warp states
RUN, AT_BARRIER, DONE = 0, 1, 2
# fault codes
OK, F_ILLEGAL, F_MEMORY, F_JUMP, F_CONTROL, F_TILE, F_TRAP, F_VTYPE, F_BARRIER, F_DMA, F_ALIGN, F_ARRIVALS, F_OPERAND, F_VSTART = range(14)
F_BREAK, F_LATER = range(20, 22)  # F_LATER: not yet, other cores are behind
# bits of a warp's shape: mstatus has switched the floating-point or the vector unit off
FS_OFF, VS_OFF = 1 << 59, 1 << 60


class Rec(ctypes.Structure):
    """A predecoded instruction; one per halfword of text. What issue and handlers read stands together in front. `needs`: the units (FS_OFF, VS_OFF)
    that must not be off; `writable`: text that the program may change; `through`: a store behind a hint that nothing in L2 will be read again;
    `tile`: the tile that x register `subset` names is read (1) or written (2)."""

    _fields_ = [("pc", U64), ("imm", I64), ("latency", U32), ("after", ctypes.c_int32),
                *((name, U8) for name in ("size", "rd", "rs1", "rs2", "rs3", "vm", "valid", "vector", "unit", "cost", "cause", "chain", "nsrc")),
                ("src", U8 * 5),
                *((name, U8) for name in ("dst", "dstkind", "config", "mem", "needs_vtype", "arg", "kind", "cls", "counts", "fields", "overlap",
                                           "eew", "whole", "longest", "passes", "rm", "through", "tile", "subset")),
                ("srckind", U8 * 5), ("handler", U64 * 4), ("needs", I64), ("writable", I64), ("to_two_lines", I64)]


class Plan(ctypes.Structure):
    """What a core knows about an instruction under the vector configuration `shape` (ANY_SHAPE: under any): its handler (0: illegal), its unit's
    cycles, how many registers each operand spans; and how often it ran, and how often without a slot. What issue looks at for each instruction
    stands here in one line of the host's cache: scalar sources (x0 for none), `groups` sources in vector registers and after those, up to
    `waits`, in tiles (NOTHING for none), the destination (NOWHERE for none) and whose old first element comes before the new one."""

    _fields_ = [("shape", I64), ("entry", U64), ("count", I64), ("free", I64), ("cycles", U32), ("span", U8 * 5),
                *((name, U8) for name in ("dstspan", "fault", "kind", "unit", "side", "chain", "halves", "groups", "waits", "form", "x0", "x1")),
                ("base", U8 * 4), ("length", U8 * 4), ("dst", U8), ("after", U8)]


def aligned(n: int) -> Any:
    """n zero bytes that begin with a line of the host's cache: a vector of 64 bytes that is aligned in them lies in one."""
    raw = np.zeros(n + HOST_LINE, np.uint8)
    at = -int(raw.ctypes.data) % HOST_LINE
    return raw[at:at + n]


def to_line(*fields: tuple[str, Any]) -> list[tuple[str, Any]]:
    """The fields, and behind them what is missing to a whole line of the host's cache."""
    front = type("Front", (ctypes.Structure,), {"_fields_": fields})
    return [*fields, (f"before_line{len(fields)}", U8 * (-ctypes.sizeof(front) % HOST_LINE))]


class Warp(ctypes.Structure):
    """A hart. `shape` packs vl, tm, tk, vtype, vill and whether vstart is 0. The scoreboard has per register when its `first` and its `last`
    element are there, the start of its last reader (`read`) and the cause that waiting for it counts as. Each tile has room for the `operands`
    of MM_WAITING multiplies that wait; the core's warps share the `panel` in which they are done; of `mm_calm` rows and columns the host knows that
    its own matrix unit rounds them as ours does (handlers_matrix.gentle). `seen`: where vector loads read last, by the
    low bits of their place, for the host to guess where they read next. `rounding` is the context of exact floating point: mode in force, flags."""

    _fields_ = to_line(*to_line(
        ("state", I64), ("pc", I64), ("next", I64), ("now", I64), ("earliest", I64), ("why", I64), ("shape", I64),
        ("vl", I64), ("vtype", I64), ("vill", I64), ("sew", I64), ("lmul8", I64), ("altfmt", I64), ("twiden", I64),
        ("tm", I64), ("tk", I64), ("vstart", I64), ("vxrm", I64), ("vxsat", I64),
        ("tiles", U64), ("operands", U64), ("panel", U64), ("mm_waiting", I64 * 4), ("mm_shape", I64 * 4), ("mm_calm", I64 * 4),
        ("hart", I64), ("warp", I64), ("cta", I64), ("ctas", I64), ("warps", I64), ("core", I64),
        ("fault", I64), ("fault_addr", I64), ("mem_kind", I64), ("mem_addr", I64), ("mem_bytes", I64), ("mem_stride", I64),
        ("mem_count", I64), ("fcsr", I64), ("macs", I64), ("bar", I64), ("tokens", I64), ("token_last", I64),
        ("x", I64 * 32), ("f", I64 * 32), ("first", I64 * REGS), ("last", I64 * REGS), ("read", I64 * REGS),
        ("cause", U8 * REGS)), ("v", U8 * 4096), ("tmp", U8 * 8192),
        ("seen", I64 * 32), ("ctl", I64 * 32), ("token_time", I64 * 64), ("rounding", I64 * 2), ("tokens_seen", I64),
        # machine mode (sim/csr.py, sim/trap.py); `reserved` is 1 + the address of a reservation, 0: none
        *((name, I64) for name in ("priv", "off", "mstatus", "mtvec", "mepc", "mcause", "mtval", "mscratch", "mie", "mcounteren",
                                   "mcountinhibit", "cycle_base", "instret_base", "retired", "reserved")), ("pmp", I64 * 32))


class Core(ctypes.Structure):
    """In front, in lines of the host's cache, is what the choice of a warp looks at. Per warp: when the operands of its next instruction are there
    (-1: not known yet; NEVER: it does not run), the unit that it wants, and its place in turns (turns.py). Per unit, and in front for the scalar
    slot: when it takes an instruction, as far as slots and queues go."""

    _fields_ = to_line(
        ("ready", I64 * 32), ("ready_unit", I64 * 32), ("order", I64 * 32), ("before_room", I64 * 7), ("room", I64 * 9),
        ("warps", U64), ("nwarps", I64), ("plans", U64), ("spm", U64), ("spm_size", I64), ("free", I64 * UNITS),
        ("starts", I64 * (UNITS * 4)), ("busy", I64 * UNITS), ("stall", I64 * 16), ("accounted", I64), ("time", I64), ("live", I64),
        ("bar_count", I64 * 16), ("bar_need", I64 * 16), ("bar_time", I64 * 16), ("dma_ring", I64 * 64), ("dma_n", I64),
        ("dma_free", I64), ("dma_busy", I64), ("l1", U64), ("mshr", I64 * 64), ("mshr_n", I64),
        ("l1_misses", I64),
        ("core", I64), ("last_start", I64), ("last_cost", I64),
        # whether a warp's `ready` is not known; when the vector slot is free; per slot, when the first of the warps that were not chosen can
        # issue; how often each unit took work; the warp whose turn it is without timing
        ("stale", I64), ("slot", I64), ("rivals", I64 * 2), ("taken", I64 * UNITS), ("turn", I64),
        # the turn (sim/rounds.py) that this core has, when it still has to wait for the turns before it; the warp that faulted
        ("must", I64), ("fault_warp", I64), ("until", I64))


class Gpu(ctypes.Structure):
    """Machine parameters and the program; then, apart from what host threads only read, the shared memory system and what a run counts; then how
    far each host thread has come (sim/rounds.py)."""

    _fields_ = [("cores", U64), ("ncores", I64), ("recs", U64), ("nrecs", I64), ("text", I64), ("text_size", I64), ("dram", U64),
                ("dram_size", I64), ("vlenb", I64), ("te", I64), ("timed", I64), ("max_cycles", I64), ("l2", U64), ("l2_sets", I64),
                ("l2_oldest", I64), ("l2_queue", U64), ("l2_latency", I64), ("dram_queue", U64), ("dram_latency", I64),
                ("l1_sets", I64), ("l1_oldest", I64), ("l1_hit", I64), ("l1_misses", I64), ("dma_per_line_256", I64), ("dma_factor", I64),
                ("dma_transfers", I64), ("spm_latency", I64), ("spm_bytes", I64), ("dlen", I64), ("exp_lanes", I64),
                ("classes", I64 * (9 * 36)),
                ("tile_bytes", I64), ("mac16", I64), ("mac32", I64), ("mac8", I64), ("mm_latency", I64), ("queue", I64), ("branch", I64),
                ("barrier", I64), ("dispatch", I64), ("ncta", I64), ("grid", I64), ("entry", I64), ("args", I64), ("stack", I64),
                ("trace", U64), ("trace_cap", I64), ("threads", I64), ("sched_yield", U64), ("start", I64),
                # a bare-metal program (`bare`: its harts): atomics happen up to cycle `fair`, when no other core is behind; stores within the guard
                # get a look (guard.py); `switched`: a unit has been off (csr.py)
                *((name, I64) for name in ("base", "bare", "fair", "guard", "guard_size", "watch", "watch_size", "rewritten", "tohost", "htif",
                                           "switched", "reserved", "watched")),
                # checked mode: its Check, and host addresses of rules, four for each record (by SEW); the seed of latencies
                ("check", U64), ("checks", U64), ("seed", I64),
                ("apart0", U8 * 128), ("next_cta", I64), ("end", I64), ("l2_hits", I64), ("l2_misses", I64), ("dram_last", I64),
                ("dram_lines", I64), ("trace_n", I64), ("fault_core", I64), ("fault_warp", I64), ("code", I64),
                ("stop", I64 * 1), ("parked", I64 * 1),
                ("apart1", U8 * 128), ("progress", I64 * 32)]


class Queue(ctypes.Structure):
    """A shared queue: what is taken of each window of time (memory.take), the cost of a line in 1/256 cycle, windows known to be full, and
    the end of the line that waits beyond them."""

    _fields_ = [("windows", U64), ("cost", I64), ("full_from", I64), ("full_to", I64), ("tail", I64)]


WARP_BYTES, CORE_BYTES, REC_BYTES, PLAN_BYTES = ctypes.sizeof(Warp), ctypes.sizeof(Core), ctypes.sizeof(Rec), ctypes.sizeof(Plan)
PLAN_SHIFT = PLAN_BYTES.bit_length() - 1
assert PLAN_BYTES == HOST_LINE and REC_BYTES == 2 * HOST_LINE
STACK_BYTES = 32768
