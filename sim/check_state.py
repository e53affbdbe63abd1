"""Checked mode's shadow state as C structures, what a finding holds, and how an access is named.

Shadow bits say *undefined* (1) per byte: of scalar registers in a byte each, of vector registers and memory 64 to a word. An *epoch* names an
access: who did it (CTA, warp, itself or its DMA), at which instruction, and that actor's clock; two accesses are ordered when the later one's
warp has heard of the earlier one's clock through barriers and WAITs.
"""

from __future__ import annotations

import ctypes

from rvgpu.isa.prims import clz, ld64, lshr, st64, wrap
from rvgpu.sim.state import I64, U8, U64, Gpu, Warp
from rvgpu.sim.translate import address, apart, ptr

F_FINDING = 64  # fault code: the finding stands in Check

# kinds of finding
UNDEFINED, OUTSIDE, RACE, MISALIGNED, STACK, TOKEN, TILE_WIDTH, LIMIT = range(1, 9)
# where an undefined value arrived
S_ADDRESS, S_BRANCH, S_OPERAND, S_DESCRIPTOR, S_DRAM, S_LENGTH, S_MASK, S_TILE, S_JUMP = range(1, 10)
# where an undefined value came from: kind | instruction << 3 | address << 24
O_NEVER, O_AGNOSTIC, O_MEMORY, O_OUTSIDE, O_DISCARDED = range(1, 6)
# registers of a finding: x, f, v, tiles, the control page
R_X, R_F, R_V, R_TILE, R_CTL = 0, 32, 64, 96, 128

# epochs: clock << 44 | CTA serial << 29 | warp << 24 | flags | instruction
WRITE, BY_DMA, ATOMIC = 1 << 21, 1 << 22, 1 << 23
INSTRUCTION, SERIALS, CLOCKS = (1 << 21) - 1, 1 << 15, 1 << 20
DMA_CLOCK = 32  # a warp's transfers keep their clock behind the warps'
CTL_WORDS = 32


class Shadow(ctypes.Structure):
    """Of a warp. `v` holds the bits of the vector registers, each VLEN / 64 bytes long; registers that hold a mask (`masks`, a bit each) have
    bits per element in `mask`, 128 bytes each. Tiles: bits per element at `tiles`, all defined within `rows` x `columns`, all undefined outside
    `out_rows` x `out_columns`. `*_from` say where undefined values came from."""

    _fields_ = [("x", U8 * 32), ("f", U8 * 32), ("ctl", U8 * CTL_WORDS), ("x_from", I64 * 32), ("f_from", I64 * 32), ("ctl_from", I64 * CTL_WORDS),
                ("v_from", I64 * 32), ("tile_from", I64 * 4), ("masks", I64), ("tiles", U64), ("rows", I64 * 4), ("columns", I64 * 4),
                ("out_rows", I64 * 4), ("out_columns", I64 * 4), ("tew", I64 * 16), ("serial", I64), ("clock", I64 * 64),
                ("sync", I64 * 64), ("synced", I64), ("last", I64), ("v", U8 * 1024), ("mask", U8 * 4160), ("flags", U8 * 8200)]


class Check(ctypes.Structure):
    """Shared: shadow memory (per line of 64 bytes a word of undefined bits, for DRAM also one of bits that belong to something, and `room`
    bytes of cells {epoch, bytes}), the launch's first CTA serial, where the last access was found, and the finding."""

    _fields_ = [("warps", U64), ("room", I64), ("spm_undefined", U64), ("spm_cells", U64), ("spm_lines", I64), ("spm_used", I64),
                ("dram_undefined", U64), ("dram_known", U64), ("dram_cells", U64), ("dram_lines", I64), ("stack_low", I64),
                ("first", I64), ("next", I64), ("at_undefined", U64), ("at_cells", U64), ("at_known", U64), ("off", I64), ("region", I64),
                ("kind", I64), ("sink", I64), ("reg", I64), ("element", I64), ("origin", I64), ("addr", I64), ("bytes", I64), ("how", I64),
                ("other", I64), ("extra", I64)]


SHADOW_BYTES = ctypes.sizeof(Shadow)


def low(n: int) -> int:
    """The lowest n bits; all 64 from n = 64 on."""
    return wrap((1 << n) - 1) if n < 64 else -1


@apart
def finding(g: Gpu, kind: int, addr: int, size: int, how: int) -> int:
    k = ptr(Check, g.check)
    k.kind = kind
    k.addr = addr
    k.bytes = size
    k.how = how
    return F_FINDING


@apart
def undefined(g: Gpu, sink: int, reg: int, element: int, origin: int) -> int:
    """An undefined value arrived where it matters."""
    k = ptr(Check, g.check)
    k.kind = UNDEFINED
    k.sink = sink
    k.reg = reg
    k.element = element
    k.origin = origin
    return F_FINDING


def origin(kind: int, w: Warp, addr: int) -> int:
    return kind | (w.pc << 3) | (addr << 24)


# -- bits of bytes
def spread(x: int, shift: int) -> int:
    """Bit i of x, one for each element of 1 << shift bytes, to the bits of the element's bytes."""
    if shift == 1:
        x = x & 0xFFFF_FFFF
        x = (x | (x << 16)) & 0x0000_FFFF_0000_FFFF
        x = (x | (x << 8)) & 0x00FF_00FF_00FF_00FF
        x = (x | (x << 4)) & 0x0F0F_0F0F_0F0F_0F0F
        x = (x | (x << 2)) & 0x3333_3333_3333_3333
        x = (x | (x << 1)) & 0x5555_5555_5555_5555
        return wrap(x * 3)
    if shift == 2:
        x = x & 0xFFFF
        x = (x | (x << 24)) & 0x0000_00FF_0000_00FF
        x = (x | (x << 12)) & 0x000F_000F_000F_000F
        x = (x | (x << 6)) & 0x0303_0303_0303_0303
        x = (x | (x << 3)) & 0x1111_1111_1111_1111
        return wrap(x * 15)
    if shift == 3:
        x = x & 0xFF
        x = (x | (x << 28)) & 0x0000_000F_0000_000F
        x = (x | (x << 14)) & 0x0003_0003_0003_0003
        x = (x | (x << 7)) & 0x0101_0101_0101_0101
        return wrap(x * 255)
    return x


def smear(u: int, shift: int) -> int:
    """An element of which any byte is undefined is undefined."""
    if shift == 1:
        return wrap(((u | lshr(u, 1)) & 0x5555_5555_5555_5555) * 3)
    if shift == 2:
        u = u | lshr(u, 1)
        return wrap(((u | lshr(u, 2)) & 0x1111_1111_1111_1111) * 15)
    if shift == 3:
        u = u | lshr(u, 1)
        u = u | lshr(u, 2)
        return wrap(((u | lshr(u, 4)) & 0x0101_0101_0101_0101) * 255)
    return u


def put(at: int, bits: int, which: int) -> int:
    """Sets those bits of the word at host address `at` that `which` has."""
    st64(at, (ld64(at) & ~which) | (bits & which))
    return 0


def get_bits(base: int, off: int) -> int:
    """The bits of the 64 bytes from offset `off` on."""
    at = base + ((off >> 6) << 3)
    shift = off & 63
    if shift == 0:
        return ld64(at)
    return lshr(ld64(at), shift) | wrap(ld64(at + 8) << (64 - shift))


def put_bits(base: int, off: int, bits: int, which: int) -> int:
    at = base + ((off >> 6) << 3)
    shift = off & 63
    put(at, wrap(bits << shift), wrap(which << shift))
    if shift != 0:
        more = lshr(which, 64 - shift)
        if more != 0:
            put(at + 8, lshr(bits, 64 - shift), more)
    return 0


def lowest(bits: int) -> int:
    return 63 - clz(bits & -bits)


def of(w: Warp, g: Gpu) -> int:
    """The host address of the warp's Shadow."""
    return ptr(Check, g.check).warps + w.hart * SHADOW_BYTES


def vbits(s: Shadow, g: Gpu, reg: int) -> int:
    """The host address of a vector register's bits."""
    return address(s.v) + reg * (g.vlenb >> 3)
