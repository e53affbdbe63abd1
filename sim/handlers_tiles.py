"""Matrix handlers for tiles of other than 32 bits and for products of 8- and 64-bit floats, in restricted Python (others: handlers_matrix.py).

A warp's tile storage is 16 TE x TE bytes: tile n begins at byte n TE TE, with rows of ETE elements, ETE = TE, of 64-bit ones TE / 2. Tiles of 8 bits
may have any number, of 16 and 64 bits an even one, of 32 bits a multiple of four.
"""

from __future__ import annotations

from rvgpu.isa.prims import imax, imin, ld8, ld32, ld64, sel, st32, st64, zero
from rvgpu.isa.prims_float import f_add, f_cvt, f_mul, mm_pairs
from rvgpu.sim.handlers import host, vreg
from rvgpu.sim.handlers_matrix import settle, tile_of, vtzero
from rvgpu.sim.handlers_vector import ldb, stb
from rvgpu.sim.state import F_MEMORY, F_TILE, F_VTYPE, OK, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import address, lanes

SEW, EEW, A_E4M3, B_E4M3 = 32, 32, 0, 0  # bound


def side_of(g: Gpu, bits: int) -> int:
    return g.te >> 1 if bits == 64 else g.te


def numbered(n: int, bits: int) -> int:
    """Whether a tile of such elements may have this number."""
    return n & ((2 if bits == 64 else bits >> 3) - 1) == 0


def subset_at(w: Warp, g: Gpu, subset: int, bits: int) -> int:
    """Host address of element 0 of a tile's row or column, or 0 (bad tile number or index)."""
    n, kind, index = (subset >> 27) & 15, (subset >> 24) & 7, subset & 0xFFFFFF
    if numbered(n, bits) == 0 or kind > 1 or index >= side_of(g, bits) or subset >> 31 != 0:
        w.fault_addr = subset
        return 0
    settle(w, g, n >> 2)
    return w.tiles + n * g.te * g.te + index * (bits >> 3) * (1 if kind == 1 else side_of(g, bits))


def gap_of(g: Gpu, subset: int, bits: int) -> int:
    """From one element of the subset to the next."""
    return side_of(g, bits) if (subset >> 24) & 7 == 1 else 1


def vtmv_vt_of(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    p = subset_at(w, g, w.x[r.rs1], SEW)
    if p == 0:
        return F_TILE
    d, gap = vreg(w, g, r.rd), gap_of(g, w.x[r.rs1], SEW)
    for i in lanes(imin(w.vl, side_of(g, SEW))):
        stb(d, i, SEW, ldb(p, i * gap, SEW))
    return OK


def vtmv_tv_of(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    p = subset_at(w, g, w.x[r.rs1], SEW)
    if p == 0:
        return F_TILE
    s, gap = vreg(w, g, r.rs2), gap_of(g, w.x[r.rs1], SEW)
    for i in lanes(imin(w.vl, side_of(g, SEW))):
        stb(p, i * gap, SEW, ldb(s, i, SEW))
    return OK


def subset_move(c: Core, w: Warp, r: Rec, g: Gpu, write: int) -> int:
    """A row or column between a tile and memory."""
    t, n, gap = subset_at(w, g, w.x[r.rs2], EEW), imin(w.vl, side_of(g, EEW)), gap_of(g, w.x[r.rs2], EEW)
    if t == 0:
        return F_TILE
    p = host(c, w, g, w.x[r.rs1], n * (EEW >> 3), write)
    if p == 0 and n > 0:
        return F_MEMORY
    for i in range(n):
        if write == 1:
            stb(p, i, EEW, ldb(t, i * gap, EEW))
        else:
            stb(t, i * gap, EEW, ldb(p, i, EEW))
    w.mem_bytes = n * (EEW >> 3)
    return OK


def vlte_of(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return subset_move(c, w, r, g, 0)


def vste_of(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return subset_move(c, w, r, g, 1)


def vtzero_of(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """[0, tm) x [0, tn) of a tile of TEW = SEW * twiden bits."""
    bits, n = SEW << imax(w.twiden - 1, 0), r.rd >> 1
    if bits == 32:
        return vtzero(c, w, r, g)
    if numbered(n, bits) == 0:
        return F_TILE
    settle(w, g, n >> 2)
    size, side = bits >> 3, side_of(g, bits)
    for row in range(w.tm):
        zero(w.tiles + n * g.te * g.te + row * side * size, size * imin(w.vl, side))
    return OK


def f8(x: int, e4m3: int) -> int:
    """An 8-bit float (OCP) as an f32 pattern. e5m2 is the upper half of f16; e4m3 has no infinities, one NaN, and the exponent's bias 7."""
    if e4m3 == 0:
        return f_cvt(x << 8, 16, 32)
    y = f_mul(f_cvt((x & 127) << 7, 16, 32), 0x43800000, 32) | ((x & 128) << 24)
    return sel((x & 127) == 127, 0x7FC00000, y)


def mm_f8(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """f32 += 8-bit float products, in pairs like 16-bit ones: acc = RN(acc + fma(a0, b0, RN(a1 b1))), then the same with k = 2 and 3; what tk
    leaves out of a pair counts as +0."""
    if w.twiden != 3 or SEW != 8:
        return F_VTYPE
    a, b, n, t, gap = vreg(w, g, r.rs2), vreg(w, g, r.rs1), w.vl, address(w.tmp), 2 * g.vlenb
    u = t + 4 * n
    settle(w, g, r.rd >> 3)
    w.macs += w.tm * n * w.tk
    for k in range(0, w.tk, 2):
        two = k + 1 < w.tk
        for i in lanes(n):
            st32(t + 4 * i, f8(ld8(b + k * gap + i), B_E4M3))
        for i in lanes(n):
            st32(u + 4 * i, f8(ld8(b + (k + 1) * gap + i), B_E4M3) if two else 0)
        for row in range(w.tm):
            x = f8(ld8(a + k * gap + row), A_E4M3)
            y = f8(ld8(a + (k + 1) * gap + row), A_E4M3) if two else 0
            q = tile_of(w, g, r.rd >> 3) + row * g.te * 4
            for i in lanes(n):
                st32(q + 4 * i, mm_pairs(ld32(q + 4 * i), x, ld32(t + 4 * i), y, ld32(u + 4 * i)))
    return OK


def mm_dd(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """f64: acc = RN(acc + RN(a b)) on tiles of TE / 2 x TE / 2."""
    if w.twiden != 1:
        return F_VTYPE
    a, b, n, tile, side = vreg(w, g, r.rs2), vreg(w, g, r.rs1), w.vl, r.rd >> 2, g.te >> 1
    settle(w, g, tile >> 1)
    w.macs += w.tm * n * w.tk
    if w.tk > 0:
        for row in range(w.tm):
            x, q = ld64(a + 8 * row), w.tiles + tile * 2 * g.te * g.te + row * side * 8
            for i in lanes(n):
                st64(q + 8 * i, f_add(ld64(q + 8 * i), f_mul(x, ld64(b + 8 * i), 64), 64))
    return OK
