"""Instruction handlers as templates in restricted Python: what an instruction does to a warp, specialised per row and SEW.

Every handler is `h(c, w, r, g) -> fault code`. Names in capitals are bound when a template is specialised: SEW, W, SIZE, OP, LD, ST, ...
"""

from __future__ import annotations

from rvgpu.isa.meaning import NAN_OF_32
from rvgpu.isa.prims import imax, imin, ld8, ld16, ld32, ld64, lshr, sext, st8, st16, st32, st64, trunc, ult, wrap
from rvgpu.isa.prims_float import f_cvt, f_sqrt, f_to_i, i_to_f
from rvgpu.sim.control import control_load, control_store
from rvgpu.sim.guard import may_store
from rvgpu.sim.state import F_CONTROL, F_JUMP, F_MEMORY, F_VTYPE, OK, REC_BYTES, Core, Gpu, Rec, Warp
from rvgpu.sim.translate import address, ptr

W, SIZE, SIGNED, IW, SRC, EXACT = 32, 4, 1, 32, 64, 0
SPM_BASE, CTL_BASE = 0x1000_0000, 0x0200_0000


def OP(a: int, b: int) -> int:
    """Bound to an instruction's meaning."""
    return a + b


def OP1(a: int) -> int:
    return a


def OP3(a: int, b: int, c: int) -> int:
    return a * b + c


# -- addresses
def host(c: Core, w: Warp, g: Gpu, addr: int, n: int, write: int) -> int:
    """The host address of n guest bytes, or 0 with the warp's fault set. Notes what kind of memory it is for the timing model."""
    at = addr - SPM_BASE
    if at >= 0 and at <= c.spm_size - n:  # (at + n could wrap)
        w.mem_kind = 1
        w.mem_addr = at
        return c.spm + at
    at = addr - g.base
    if at >= 0 and at <= g.dram_size - n:
        off = addr - g.guard
        if write == 0 or off + n <= 0 or off >= g.guard_size or may_store(c, w, g, addr, n) != 0:
            w.mem_kind = 2
            w.mem_addr = at
            return g.dram + at
    w.fault_addr = addr
    return 0


def vreg(w: Warp, g: Gpu, n: int) -> int:
    return address(w.v) + n * g.vlenb


def load_size(a: int) -> int:
    if SIZE == 1:
        return ld8(a)
    if SIZE == 2:
        return ld16(a)
    if SIZE == 4:
        return ld32(a)
    return ld64(a)


def store_size(a: int, x: int) -> int:
    if SIZE == 1:
        st8(a, x)
    if SIZE == 2:
        st16(a, x)
    if SIZE == 4:
        st32(a, x)
    if SIZE == 8:
        st64(a, x)
    return 0


# -- scalar
def nop(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return OK


def set_x(w: Warp, r: Rec, value: int) -> int:
    w.x[r.rd] = value
    w.x[0] = 0
    return OK


def alu_rr(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_x(w, r, OP(w.x[r.rs1], w.x[r.rs2]))


def alu_ri(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_x(w, r, OP(w.x[r.rs1], r.imm))


def alu_r(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_x(w, r, OP1(w.x[r.rs1]))


def lui(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_x(w, r, r.imm)


def auipc(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_x(w, r, r.pc + r.imm)


def goto(w: Warp, g: Gpu, target: int) -> int:
    """The next record; address 0 (the entry's ra) ends the warp."""
    if target == 0:
        w.next = -1
        return OK
    at = target - g.text
    if at >= 0 and at < g.text_size and at & 1 == 0:
        if ptr(Rec, g.recs + (at >> 1) * REC_BYTES).size != 0:  # (0: inside an instruction)
            w.next = at >> 1
            return OK
    w.fault_addr = target
    return F_JUMP


def jal(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    set_x(w, r, r.pc + r.size)
    return goto(w, g, r.pc + r.imm)


def jalr(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    target = wrap(w.x[r.rs1] + r.imm) & -2
    set_x(w, r, r.pc + r.size)
    return goto(w, g, target)


def branch(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    if OP(w.x[r.rs1], w.x[r.rs2]):
        return goto(w, g, r.pc + r.imm)
    return OK


def is_control(addr: int, w: Warp) -> int:
    off = addr - CTL_BASE - (w.warp << 12)
    return off >= 0 and off < 4096


def load(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    addr = wrap(w.x[r.rs1] + r.imm)
    if is_control(addr, w):
        if SIZE != 8 or addr & 7 != 0 or addr & 4095 > 0x28:
            w.fault_addr = addr & 4095
            return F_CONTROL
        return set_x(w, r, control_load(w, addr & 4095))
    p = host(c, w, g, addr, SIZE, 0)
    if p == 0:
        return F_MEMORY
    x = load_size(p)
    w.mem_bytes = SIZE
    return set_x(w, r, sext(x, 8 * SIZE) if SIGNED == 1 else x)


def store(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    addr = wrap(w.x[r.rs1] + r.imm)
    if is_control(addr, w):
        return control_store(w, addr & 4095, w.x[r.rs2], SIZE)
    p = host(c, w, g, addr, SIZE, 1)
    if p == 0:
        return F_MEMORY
    w.mem_bytes = SIZE
    return store_size(p, w.x[r.rs2])


# -- scalar floating point: values are NaN-boxed
def unbox(w: Warp, n: int) -> int:
    x = w.f[n]
    if W == 64:
        return x
    if W == 32:
        return trunc(x, 32) if x >> 32 == -1 else NAN_OF_32
    return trunc(x, 16) if x >> 16 == -1 else (0x7FC0 if W == -16 else 0x7E00)


def set_f(w: Warp, n: int, x: int) -> int:
    if W == 64:
        w.f[n] = x
    elif W == 32:
        w.f[n] = x | wrap(-1 << 32)
    else:
        w.f[n] = x | wrap(-1 << 16)
    return OK


def fload(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    p = host(c, w, g, wrap(w.x[r.rs1] + r.imm), SIZE, 0)
    if p == 0:
        return F_MEMORY
    w.mem_bytes = SIZE
    w.f[r.rd] = ld64(p) if SIZE == 8 else ld32(p) | wrap(-1 << 32) if SIZE == 4 else ld16(p) | wrap(-1 << 16)
    return OK


def fstore(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    p = host(c, w, g, wrap(w.x[r.rs1] + r.imm), SIZE, 1)
    if p == 0:
        return F_MEMORY
    w.mem_bytes = SIZE
    return store_size(p, w.f[r.rs2])


def fp2(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_f(w, r.rd, OP(unbox(w, r.rs1), unbox(w, r.rs2)))


def fma(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_f(w, r.rd, OP3(unbox(w, r.rs1), unbox(w, r.rs2), unbox(w, r.rs3)))


def fsqrt(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_f(w, r.rd, f_sqrt(unbox(w, r.rs1), W))


def fcmp(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_x(w, r, OP(unbox(w, r.rs1), unbox(w, r.rs2)))


def fclass(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    x = unbox(w, r.rs1)
    mant = 10 if W == 16 else 23 if W == 32 else 52
    neg = lshr(x, W - 1) & 1
    body = x & wrap((1 << (W - 1)) - 1)
    top = wrap(((1 << (W - 1 - mant)) - 1) << mant)
    if body > top:
        return set_x(w, r, 1 << (9 if body & (1 << (mant - 1)) != 0 else 8))
    if body == top:
        return set_x(w, r, 1 if neg else 1 << 7)
    if body == 0:
        return set_x(w, r, 1 << 3 if neg else 1 << 4)
    if body < 1 << mant:
        return set_x(w, r, 1 << 2 if neg else 1 << 5)
    return set_x(w, r, 1 << 1 if neg else 1 << 6)


def fcvt_xf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    """The static rounding mode is in imm (set by the loader): 0 nearest even, 1 to zero, 2 down, 3 up, 4 nearest away, 7 dynamic (0)."""
    x = unbox(w, r.rs1)
    out = f_to_i(x, W, IW, SIGNED, 0)
    if EXACT == 1:
        return set_x(w, r, sext(out, IW))
    if r.imm == 1:
        out = f_to_i(x, W, IW, SIGNED, 1)
    elif r.imm == 2:
        out = f_to_i(x, W, IW, SIGNED, 2)
    elif r.imm == 3:
        out = f_to_i(x, W, IW, SIGNED, 3)
    elif r.imm == 4:
        out = f_to_i(x, W, IW, SIGNED, 4)
    return set_x(w, r, sext(out, IW))


def fcvt_fx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    x = w.x[r.rs1]
    return set_f(w, r.rd, i_to_f(x if IW == 64 else sext(x, 32) if SIGNED == 1 else trunc(x, 32), SIGNED, W))


def unbox_src(w: Warp, n: int) -> int:
    x = w.f[n]
    if SRC == 64:
        return x
    if SRC == 32:
        return trunc(x, 32) if x >> 32 == -1 else NAN_OF_32
    return trunc(x, 16) if x >> 16 == -1 else (0x7FC0 if SRC == -16 else 0x7E00)


def fcvt_ff(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_f(w, r.rd, f_cvt(unbox_src(w, r.rs1), SRC, W))


def fmv_xf(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_x(w, r, sext(w.f[r.rs1], W))


def fmv_fx(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_f(w, r.rd, trunc(w.x[r.rs1], W))


# -- configuration
def set_vtype(w: Warp, g: Gpu, z: int) -> int:
    """vtype from an immediate or register: fields, vill where the configuration is not supported; returns LMUL * EVE * 8 / 8."""
    w.tm = 0
    w.tk = 0
    w.sew = (z >> 3) & 3  # it selects handlers: always one of the four
    w.altfmt = (z >> 8) & 1
    w.twiden = (z >> 9) & 3
    lmul = z & 7
    bits = 8 << w.sew
    bad = z & 32 != 0 or lmul == 4 or z >> 11 != 0
    if w.twiden != 0:
        ete = g.te if bits << (w.twiden - 1) < 64 else g.te >> 1
        eve = g.vlenb * 8 // bits
        kmax = 4 if bits == 8 else 2 if bits == 16 else 1
        most = imin(imin(8 // kmax, 8 >> (w.twiden - 1)), (ete + eve - 1) // eve)
        l2 = 0
        if most >= 2:
            l2 = 1
        if most >= 4:
            l2 = 2
        if most >= 8:
            l2 = 3
        lmul = l2
        bad = bad or bits << (w.twiden - 1) > 64
        z = (z & -8) | lmul | 0xC0
    w.lmul8 = 8 << lmul if lmul < 4 else 8 >> (8 - lmul)
    if w.lmul8 < 8 and bits * 8 > w.lmul8 * 64:
        bad = True
    w.vill = bad
    if bad:
        w.vtype = wrap(1 << 63)
        w.vl = 0
        return 0
    w.vtype = z
    return w.lmul8 * g.vlenb // (bits)


def reshape(w: Warp) -> int:
    """Packs the vector configuration, and which units are off, into one number, never 0: what plans are made for."""
    w.shape = w.vl | (w.tm << 20) | (w.tk << 36) | ((w.vtype & 0xFFF) << 40) | (w.vill << 56) | (1 << 57) | ((w.vstart != 0) << 58) | w.off
    return OK


def set_vl(w: Warp, r: Rec, g: Gpu, avl: int, z: int, keep: int) -> int:
    old_vl = w.vl
    w.vstart = 0
    most = set_vtype(w, g, z)
    if w.twiden != 0 and w.vill == 0:
        bits = 8 << w.sew
        most = imin(most, g.te if bits << (w.twiden - 1) < 64 else g.te >> 1)
    if keep:
        if old_vl > most:
            w.vill = 1
            w.vtype = wrap(1 << 63)
            w.vl = 0
        else:
            w.vl = old_vl
    elif w.vill == 0:
        w.vl = avl if ult(avl, most) else most
    reshape(w)
    return set_x(w, r, w.vl)


def vsetvli(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    avl = w.x[r.rs1] if r.rs1 != 0 else -1
    return set_vl(w, r, g, avl, r.imm, r.rs1 == 0 and r.rd == 0)


def vsetivli(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    return set_vl(w, r, g, r.rs1, r.imm, 0)


def vsetvl(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    z = w.x[r.rs2]
    tm = (z >> 16) & 0x3FFF
    tk = (z >> 11) & 7
    set_vl(w, r, g, w.x[r.rs1] if r.rs1 != 0 else -1, z & ~0x3FFF3800, r.rs1 == 0 and r.rd == 0)
    if w.vill == 0:
        if tm > tile_most(w, g) or tk > most_tk(w):
            w.vill = 1
            w.vtype = wrap(1 << 63)
            w.vl = 0
            set_x(w, r, 0)
        else:
            w.tm = tm
            w.tk = tk
    return reshape(w)


def most_tk(w: Warp) -> int:
    return 4 if w.sew == 0 else 2 if w.sew == 1 else 1


def tile_most(w: Warp, g: Gpu) -> int:
    bits = 8 << w.sew
    return imin(w.lmul8 * g.vlenb // bits, g.te if bits << imax(w.twiden - 1, 0) < 64 else g.te >> 1)


def sf_vsettn(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    if w.vill != 0:
        return F_VTYPE
    most = tile_most(w, g)
    w.vstart = 0
    w.vl = w.x[r.rs1] if ult(w.x[r.rs1], most) else most
    reshape(w)
    return set_x(w, r, w.vl)


def sf_vsettm(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    if w.vill != 0:
        return F_VTYPE
    most = tile_most(w, g)
    w.vstart = 0
    w.tm = w.x[r.rs1] if ult(w.x[r.rs1], most) else most
    reshape(w)
    return set_x(w, r, w.tm)


def sf_vsettk(c: Core, w: Warp, r: Rec, g: Gpu) -> int:
    if w.vill != 0:
        return F_VTYPE
    most = most_tk(w)
    w.vstart = 0
    w.tk = w.x[r.rs1] if ult(w.x[r.rs1], most) else most
    reshape(w)
    return set_x(w, r, w.tk)
