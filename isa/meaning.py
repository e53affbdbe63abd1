"""What instructions compute (long: a short function for each): elements in restricted Python (sim/translate.py), bit patterns in and out.

Scalar meanings take 64-bit values. Vector meanings take `a` (vs2), `b` (vs1, a scalar or an immediate) and, for multiply-adds, `c` (old vd),
zero-extended from SEW bits; `SEW` is bound when a template is specialised. The name of a meaning is the `op` of its rows.
"""

from __future__ import annotations

from rvgpu.isa.prims import bswap as _bswap
from rvgpu.isa.prims import (
    clz,
    cpop,
    ctz,
    d_add,
    d_fma,
    d_mul,
    d_sub,
    f_add,
    f_cvt,
    f_div,
    f_eq,
    f_fma,
    f_le,
    f_lt,
    f_mul,
    f_sqrt,
    f_sub,
    f_unordered,
    imax,
    imin,
    ld8,
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

SEW = 32
W = 32
NAN_OF_16, NAN_OF_32, NAN_OF_64 = 0x7E00, 0x7FC00000, 0x7FF8000000000000


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
    if b == 0:
        return -1
    if b == -1:
        return wrap(0 - a)
    return sdiv(a, b)


def s_divu(a: int, b: int) -> int:
    if b == 0:
        return -1
    return udiv(a, b)


def s_rem(a: int, b: int) -> int:
    if b == 0:
        return a
    if b == -1:
        return 0
    return srem(a, b)


def s_remu(a: int, b: int) -> int:
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
    n = b & 63
    if n == 0:
        return a
    return wrap(a << n) | lshr(a, 64 - n)


def s_ror(a: int, b: int) -> int:
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
    x, n = trunc(a, 32), b & 31
    return sext((x << n) | (x >> (32 - n)), 32)


def s_rorw(a: int, b: int) -> int:
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


# -- scalar floating point, width W
def sign_bit(w: int) -> int:
    return wrap(1 << (w - 1))


def fp_fadd(a: int, b: int) -> int:
    return f_add(a, b, W)


def fp_fsub(a: int, b: int) -> int:
    return f_sub(a, b, W)


def fp_fmul(a: int, b: int) -> int:
    return f_mul(a, b, W)


def fp_fdiv(a: int, b: int) -> int:
    return f_div(a, b, W)


def fp_fsgnj(a: int, b: int) -> int:
    return trunc((a & (sign_bit(W) - 1)) | (b & sign_bit(W)), W)


def fp_fsgnjn(a: int, b: int) -> int:
    return trunc((a & (sign_bit(W) - 1)) | (~b & sign_bit(W)), W)


def fp_fsgnjx(a: int, b: int) -> int:
    return trunc(a ^ (b & sign_bit(W)), W)


def fp_fmin(a: int, b: int) -> int:
    """minimumNumber: NaN only when both are; -0 below +0."""
    return fmin_of(a, b)


def fp_fmax(a: int, b: int) -> int:
    return fmax_of(a, b)


def nan_of() -> int:
    return NAN_OF_16 if W == 16 else NAN_OF_32 if W == 32 else NAN_OF_64


def fmin_of(a: int, b: int) -> int:
    x = sel(f_lt(a, b, W) | (f_eq(a, b, W) & ((a & sign_bit(W)) != 0)), a, b)
    x = sel(f_unordered(a, a, W), b, x)
    x = sel(f_unordered(b, b, W), a, x)
    return sel(f_unordered(a, a, W) & f_unordered(b, b, W), nan_of(), x)


def fmax_of(a: int, b: int) -> int:
    x = sel(f_lt(b, a, W) | (f_eq(a, b, W) & ((b & sign_bit(W)) != 0)), a, b)
    x = sel(f_unordered(a, a, W), b, x)
    x = sel(f_unordered(b, b, W), a, x)
    return sel(f_unordered(a, a, W) & f_unordered(b, b, W), nan_of(), x)


def neg(a: int) -> int:
    return trunc(a ^ sign_bit(W), W)


def ma_fmadd(a: int, b: int, c: int) -> int:
    return f_fma(a, b, c, W)


def ma_fmsub(a: int, b: int, c: int) -> int:
    return f_fma(a, b, neg(c), W)


def ma_fnmsub(a: int, b: int, c: int) -> int:
    return f_fma(neg(a), b, c, W)


def ma_fnmadd(a: int, b: int, c: int) -> int:
    return f_fma(neg(a), b, neg(c), W)


def fc_fle(a: int, b: int) -> int:
    return f_le(a, b, W)


def fc_flt(a: int, b: int) -> int:
    return f_lt(a, b, W)


def fc_feq(a: int, b: int) -> int:
    return f_eq(a, b, W)


# -- vector integers
def v_vadd(a: int, b: int) -> int:
    return wrap(a + b)


def v_vsub(a: int, b: int) -> int:
    return wrap(a - b)


def v_vrsub(a: int, b: int) -> int:
    return wrap(b - a)


def v_vminu(a: int, b: int) -> int:
    return umin(a, b)


def v_vmin(a: int, b: int) -> int:
    return imin(sext(a, SEW), sext(b, SEW))


def v_vmaxu(a: int, b: int) -> int:
    return umax(a, b)


def v_vmax(a: int, b: int) -> int:
    return imax(sext(a, SEW), sext(b, SEW))


def v_vand(a: int, b: int) -> int:
    return a & b


def v_vor(a: int, b: int) -> int:
    return a | b


def v_vxor(a: int, b: int) -> int:
    return a ^ b


def v_vsll(a: int, b: int) -> int:
    return wrap(a << (b & (SEW - 1)))


def v_vsrl(a: int, b: int) -> int:
    return lshr(a, b & (SEW - 1))


def v_vsra(a: int, b: int) -> int:
    return sext(a, SEW) >> (b & (SEW - 1))


def v_vmul(a: int, b: int) -> int:
    return wrap(a * b)


def v_vmulh(a: int, b: int) -> int:
    return mulh(a, b) if SEW == 64 else (sext(a, SEW) * sext(b, SEW)) >> SEW


def v_vmulhu(a: int, b: int) -> int:
    return mulhu(a, b) if SEW == 64 else lshr(wrap(a * b), SEW)


def v_vmulhsu(a: int, b: int) -> int:
    return mulhsu(a, b) if SEW == 64 else wrap(sext(a, SEW) * b) >> SEW


def v_vdivu(a: int, b: int) -> int:
    return s_divu(a, b)


def v_vdiv(a: int, b: int) -> int:
    return s_div(sext(a, SEW), sext(b, SEW))


def v_vremu(a: int, b: int) -> int:
    return s_remu(a, b)


def v_vrem(a: int, b: int) -> int:
    return s_rem(sext(a, SEW), sext(b, SEW))


def mac_vmacc(a: int, b: int, c: int) -> int:
    return wrap(a * b + c)


def mac_vnmsac(a: int, b: int, c: int) -> int:
    return wrap(c - a * b)


def mac_vmadd(a: int, b: int, c: int) -> int:
    return wrap(b * c + a)


def mac_vnmsub(a: int, b: int, c: int) -> int:
    return wrap(a - b * c)


def c_vmseq(a: int, b: int) -> int:
    return a == b


def c_vmsne(a: int, b: int) -> int:
    return a != b


def c_vmsltu(a: int, b: int) -> int:
    return ult(a, b)


def c_vmslt(a: int, b: int) -> int:
    return sext(a, SEW) < sext(b, SEW)


def c_vmsleu(a: int, b: int) -> int:
    return 1 - ult(b, a)


def c_vmsle(a: int, b: int) -> int:
    return sext(a, SEW) <= sext(b, SEW)


def c_vmsgtu(a: int, b: int) -> int:
    return ult(b, a)


def c_vmsgt(a: int, b: int) -> int:
    return sext(a, SEW) > sext(b, SEW)


# -- vector floating point; W is SEW
def v_vfadd(a: int, b: int) -> int:
    return f_add(a, b, W)


def v_vfsub(a: int, b: int) -> int:
    return f_sub(a, b, W)


def v_vfrsub(a: int, b: int) -> int:
    return f_sub(b, a, W)


def v_vfmul(a: int, b: int) -> int:
    return f_mul(a, b, W)


def v_vfdiv(a: int, b: int) -> int:
    return f_div(a, b, W)


def v_vfrdiv(a: int, b: int) -> int:
    return f_div(b, a, W)


def v_vfmin(a: int, b: int) -> int:
    return fmin_of(a, b)


def v_vfmax(a: int, b: int) -> int:
    return fmax_of(a, b)


def v_vfsgnj(a: int, b: int) -> int:
    return fp_fsgnj(a, b)


def v_vfsgnjn(a: int, b: int) -> int:
    return fp_fsgnjn(a, b)


def v_vfsgnjx(a: int, b: int) -> int:
    return fp_fsgnjx(a, b)


def mac_vfmacc(a: int, b: int, c: int) -> int:
    return f_fma(a, b, c, W)


def mac_vfnmacc(a: int, b: int, c: int) -> int:
    return f_fma(neg(a), b, neg(c), W)


def mac_vfmsac(a: int, b: int, c: int) -> int:
    return f_fma(a, b, neg(c), W)


def mac_vfnmsac(a: int, b: int, c: int) -> int:
    return f_fma(neg(a), b, c, W)


def mac_vfmadd(a: int, b: int, c: int) -> int:
    return f_fma(b, c, a, W)


def mac_vfnmadd(a: int, b: int, c: int) -> int:
    return f_fma(neg(b), c, neg(a), W)


def mac_vfmsub(a: int, b: int, c: int) -> int:
    return f_fma(b, c, neg(a), W)


def mac_vfnmsub(a: int, b: int, c: int) -> int:
    return f_fma(neg(b), c, a, W)


def c_vmfeq(a: int, b: int) -> int:
    return f_eq(a, b, W)


def c_vmfle(a: int, b: int) -> int:
    return f_le(a, b, W)


def c_vmflt(a: int, b: int) -> int:
    return f_lt(a, b, W)


def c_vmfne(a: int, b: int) -> int:
    return 1 - f_eq(a, b, W)


def c_vmfgt(a: int, b: int) -> int:
    return f_lt(b, a, W)


def c_vmfge(a: int, b: int) -> int:
    return f_le(b, a, W)


def u_vfsqrt(a: int) -> int:
    return f_sqrt(a, W)


def u_vfexp(a: int) -> int:
    """e^a of an f32 pattern: n = round(a log2 e), r = a - n ln2 in f64, a degree-9 polynomial in f64, times 2^n, rounded once.

    0 for a <= -64 and +inf for a >= 64, as the extension's contract says.
    """
    x = f_cvt(a, 32, 64)
    ok = f_lt(0xC050000000000000, x, 64) & f_lt(x, 0x4050000000000000, 64)
    y = sel(ok, x, 0)
    m = d_add(d_mul(y, 0x3FF71547652B82FE), 0x4338000000000000)  # + 1.5 * 2^52: rounded to an integer, which its low bits are
    r = d_fma(d_sub(m, 0x4338000000000000), 0xBFE62E42FEFA39EF, y)
    q = 0x3EC71DE3A556C734  # 1/9!
    q = d_fma(q, r, 0x3EFA01A01A01A01A)
    q = d_fma(q, r, 0x3F2A01A01A01A01A)
    q = d_fma(q, r, 0x3F56C16C16C16C17)
    q = d_fma(q, r, 0x3F81111111111111)
    q = d_fma(q, r, 0x3FA5555555555555)
    q = d_fma(q, r, 0x3FC5555555555555)
    q = d_fma(q, r, 0x3FE0000000000000)
    q = d_fma(q, r, 0x3FF0000000000000)
    q = d_fma(q, r, 0x3FF0000000000000)
    out = f_cvt(wrap(q + wrap(m << 52)), 64, 32)
    out = sel(ok, out, sel(f_lt(x, 0, 64), 0, 0x7F800000))
    return sel(f_unordered(a, a, 32), NAN_OF_32, out)


# -- reductions
def r_vredsum(a: int, b: int) -> int:
    return wrap(a + b)


def r_vredand(a: int, b: int) -> int:
    return a & b


def r_vredor(a: int, b: int) -> int:
    return a | b


def r_vredxor(a: int, b: int) -> int:
    return a ^ b


def r_vredminu(a: int, b: int) -> int:
    return umin(a, b)


def r_vredmin(a: int, b: int) -> int:
    return imin(sext(a, SEW), sext(b, SEW))


def r_vredmaxu(a: int, b: int) -> int:
    return umax(a, b)


def r_vredmax(a: int, b: int) -> int:
    return imax(sext(a, SEW), sext(b, SEW))


def r_vfredusum(a: int, b: int) -> int:
    return f_add(a, b, W)


def r_vfredosum(a: int, b: int) -> int:
    return f_add(a, b, W)


def r_vfredmin(a: int, b: int) -> int:
    return fmin_of(a, b)


def r_vfredmax(a: int, b: int) -> int:
    return fmax_of(a, b)


# -- mask logic on bytes
def k_vmandn(a: int, b: int) -> int:
    return a & ~b


def k_vmand(a: int, b: int) -> int:
    return a & b


def k_vmor(a: int, b: int) -> int:
    return a | b


def k_vmxor(a: int, b: int) -> int:
    return a ^ b


def k_vmorn(a: int, b: int) -> int:
    return a | ~b


def k_vmnand(a: int, b: int) -> int:
    return ~(a & b)


def k_vmnor(a: int, b: int) -> int:
    return ~(a | b)


def k_vmxnor(a: int, b: int) -> int:
    return ~(a ^ b)


def mask_bit(v0: int, i: int) -> int:
    """Bit i of the mask register at host address v0."""
    return (ld8(v0 + (i >> 3)) >> (i & 7)) & 1
