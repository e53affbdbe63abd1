"""Scalar integers, branches and atomics: 64-bit values in and out (isa/meaning.py; long: a short function for each)."""

from __future__ import annotations

from rvgpu.isa.prims import bswap as _bswap
from rvgpu.isa.prims import (
    clz,
    cpop,
    ctz,
    imax,
    imin,
    lshr,
    mulh,
    mulhsu,
    mulhu,
    sdiv,
    sel,
    sext,
    srem,
    trunc,
    udiv,
    ult,
    umax,
    umin,
    urem,
    wrap,
)

W = 32  # bound


# -- scalar integers
def s_add(a: int, b: int) -> int:
    return wrap(a + b)


def s_sub(a: int, b: int) -> int:
    return wrap(a - b)


def s_sll(a: int, b: int) -> int:
    return wrap(a << (b & 63))


def s_slt(a: int, b: int) -> int:
    return a < b


def s_sltu(a: int, b: int) -> int:
    return ult(a, b)


def s_xor(a: int, b: int) -> int:
    return a ^ b


def s_srl(a: int, b: int) -> int:
    return lshr(a, b & 63)


def s_sra(a: int, b: int) -> int:
    return a >> (b & 63)


def s_or(a: int, b: int) -> int:
    return a | b


def s_and(a: int, b: int) -> int:
    return a & b


def s_mul(a: int, b: int) -> int:
    return wrap(a * b)


def s_mulh(a: int, b: int) -> int:
    return mulh(a, b)


def s_mulhu(a: int, b: int) -> int:
    return mulhu(a, b)


def s_mulhsu(a: int, b: int) -> int:
    return mulhsu(a, b)


def s_div(a: int, b: int) -> int:
    """a / b towards zero; -1 for b = 0."""
    if b == 0:
        return -1
    if b == -1:
        return wrap(0 - a)
    return sdiv(a, b)


def s_divu(a: int, b: int) -> int:
    """a / b; all ones for b = 0."""
    if b == 0:
        return -1
    return udiv(a, b)


def s_rem(a: int, b: int) -> int:
    """What a / b leaves, of a's sign; a for b = 0."""
    if b == 0:
        return a
    if b == -1:
        return 0
    return srem(a, b)


def s_remu(a: int, b: int) -> int:
    """What a / b leaves; a for b = 0."""
    if b == 0:
        return a
    return urem(a, b)


def s_sh1add(a: int, b: int) -> int:
    return wrap((a << 1) + b)


def s_sh2add(a: int, b: int) -> int:
    return wrap((a << 2) + b)


def s_sh3add(a: int, b: int) -> int:
    return wrap((a << 3) + b)


def s_andn(a: int, b: int) -> int:
    return a & ~b


def s_orn(a: int, b: int) -> int:
    return a | ~b


def s_xnor(a: int, b: int) -> int:
    return ~(a ^ b)


def s_min(a: int, b: int) -> int:
    return imin(a, b)


def s_max(a: int, b: int) -> int:
    return imax(a, b)


def s_minu(a: int, b: int) -> int:
    return umin(a, b)


def s_maxu(a: int, b: int) -> int:
    return umax(a, b)


def s_rol(a: int, b: int) -> int:
    """a rotated left."""
    n = b & 63
    if n == 0:
        return a
    return wrap(a << n) | lshr(a, 64 - n)


def s_ror(a: int, b: int) -> int:
    """a rotated right."""
    n = b & 63
    if n == 0:
        return a
    return lshr(a, n) | wrap(a << (64 - n))


def s_bclr(a: int, b: int) -> int:
    return a & ~wrap(1 << (b & 63))


def s_bext(a: int, b: int) -> int:
    return lshr(a, b & 63) & 1


def s_binv(a: int, b: int) -> int:
    return a ^ wrap(1 << (b & 63))


def s_bset(a: int, b: int) -> int:
    return a | wrap(1 << (b & 63))


def s_addw(a: int, b: int) -> int:
    return sext(a + b, 32)


def s_subw(a: int, b: int) -> int:
    return sext(a - b, 32)


def s_sllw(a: int, b: int) -> int:
    return sext(a << (b & 31), 32)


def s_srlw(a: int, b: int) -> int:
    return sext(trunc(a, 32) >> (b & 31), 32)


def s_sraw(a: int, b: int) -> int:
    return sext(a, 32) >> (b & 31)


def s_mulw(a: int, b: int) -> int:
    return sext(wrap(a * b), 32)


def s_divw(a: int, b: int) -> int:
    return sext(s_div(sext(a, 32), sext(b, 32)), 32)


def s_divuw(a: int, b: int) -> int:
    return sext(s_divu(trunc(a, 32), trunc(b, 32)), 32)


def s_remw(a: int, b: int) -> int:
    return sext(s_rem(sext(a, 32), sext(b, 32)), 32)


def s_remuw(a: int, b: int) -> int:
    return sext(s_remu(trunc(a, 32), trunc(b, 32)), 32)


def s_add_uw(a: int, b: int) -> int:
    return wrap(trunc(a, 32) + b)


def s_sh1add_uw(a: int, b: int) -> int:
    return wrap((trunc(a, 32) << 1) + b)


def s_sh2add_uw(a: int, b: int) -> int:
    return wrap((trunc(a, 32) << 2) + b)


def s_sh3add_uw(a: int, b: int) -> int:
    return wrap((trunc(a, 32) << 3) + b)


def s_slli_uw(a: int, b: int) -> int:
    return wrap(trunc(a, 32) << b)


def s_rolw(a: int, b: int) -> int:
    """The low word rotated left."""
    x, n = trunc(a, 32), b & 31
    return sext((x << n) | (x >> (32 - n)), 32)


def s_rorw(a: int, b: int) -> int:
    """The low word rotated right."""
    x, n = trunc(a, 32), b & 31
    return sext((x >> n) | (x << (32 - n)), 32)


def s_clz(a: int) -> int:
    return clz(a)


def s_ctz(a: int) -> int:
    return ctz(a)


def s_cpop(a: int) -> int:
    return cpop(a)


def s_clzw(a: int) -> int:
    return clz(trunc(a, 32)) - 32


def s_ctzw(a: int) -> int:
    return imin(ctz(trunc(a, 32)), 32)


def s_cpopw(a: int) -> int:
    return cpop(trunc(a, 32))


def s_sext_b(a: int) -> int:
    return sext(a, 8)


def s_sext_h(a: int) -> int:
    return sext(a, 16)


def s_zext_h(a: int) -> int:
    return trunc(a, 16)


def s_rev8(a: int) -> int:
    return _bswap(a)


def s_orc_b(a: int) -> int:
    """Each byte all ones unless it is 0."""
    out = 0
    for i in range(8):
        out = out | sel(lshr(a, 8 * i) & 255, wrap(255 << (8 * i)), 0)
    return out


# -- branches
def b_beq(a: int, b: int) -> int:
    return a == b


def b_bne(a: int, b: int) -> int:
    return a != b


def b_blt(a: int, b: int) -> int:
    return a < b


def b_bge(a: int, b: int) -> int:
    return a >= b


def b_bltu(a: int, b: int) -> int:
    return ult(a, b)


def b_bgeu(a: int, b: int) -> int:
    return 1 - ult(a, b)


# -- atomics: old memory value and register to new memory value, at the access's width W
def a_amoswap(a: int, b: int) -> int:
    return b


def a_amoadd(a: int, b: int) -> int:
    return wrap(a + b)


def a_amoxor(a: int, b: int) -> int:
    return a ^ b


def a_amoor(a: int, b: int) -> int:
    return a | b


def a_amoand(a: int, b: int) -> int:
    return a & b


def a_amomin(a: int, b: int) -> int:
    return imin(sext(a, W), sext(b, W))


def a_amomax(a: int, b: int) -> int:
    return imax(sext(a, W), sext(b, W))


def a_amominu(a: int, b: int) -> int:
    return umin(trunc(a, W), trunc(b, W))


def a_amomaxu(a: int, b: int) -> int:
    return umax(trunc(a, W), trunc(b, W))
