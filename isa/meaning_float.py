"""Floating point, scalar and vector, on bit patterns of W bits (isa/meaning.py)."""

from __future__ import annotations

from rvgpu.isa.prims import clz, imax, lshr, sel, trunc, wrap
from rvgpu.isa.prims_float import (
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
    f_raise,
    f_sqrt,
    f_sub,
    f_unordered,
)
from rvgpu.isa.prims_float import f_add as host_add
from rvgpu.isa.prims_float import f_div as host_div
from rvgpu.isa.prims_float import f_sqrt as host_sqrt
from rvgpu.isa.prims_float import f_sub as host_sub
from rvgpu.isa.prims_float import f_to_i as host_to_int
from rvgpu.isa.prims_float import i_to_f as host_of_int
from rvgpu.isa.softfloat import DZ, NV, NX, OF

W = 32  # bound
NAN_OF_16, NAN_OF_32, NAN_OF_64 = 0x7E00, 0x7FC00000, 0x7FF8000000000000


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


def magnitude(a: int) -> int:
    return a & wrap(sign_bit(W) - 1)


def mantissa() -> int:
    """Bits after the leading one."""
    return 10 if W == 16 else 23 if W == 32 else 52


def u_vfclass(a: int) -> int:
    """One bit of ten: -inf, -normal, -subnormal, -0, +0, +subnormal, +normal, +inf, signalling NaN, quiet NaN."""
    body, least, inf = magnitude(a), 1 << mantissa(), infinity()
    at = sel(body == inf, 3, sel(body >= least, 2, sel(body, 1, 0)))
    nan = sel(body & (least >> 1), 9, 8)
    return 1 << sel(body > inf, nan, sel(a & sign_bit(W), 3 - at, 4 + at))


def infinity() -> int:
    return 0x7C00 if W == 16 else 0x7F800000 if W == 32 else 0x7FF0000000000000


def normal_exponent(body: int) -> int:
    """The biased exponent; of a subnormal 0, -1, .. as if it had more bits."""
    e = body >> mantissa()
    return sel(e, e, 64 - clz(body) - mantissa())


def normal_fraction(body: int, e: int, n: int) -> int:
    """The first n bits after the leading one."""
    return (wrap(body << imax(1 - e, 0)) >> (mantissa() - n)) & ((1 << n) - 1)


def u_vfrsqrt7(a: int) -> int:
    """1/sqrt(a) to seven bits. The exponent's lowest bit and six of the fraction say an interval from x to x' = x + 1/64 of [1, 2), or twice that.
    The answer is the multiple y of 1/256 with the least relative error at the worse end: y sqrt(x') - 1 at the upper, 1 - y sqrt(x) at the lower."""
    body = magnitude(a)
    inf, bias = infinity(), (1 << (W - 2 - mantissa())) - 1
    e = normal_exponent(body)
    double = (e + bias) & 1  # the exponent is odd: the interval is in [2, 4)
    n = (64 + normal_fraction(body, e, 6)) << double
    low, high = host_sqrt(host_of_int(n, 0, 64), 64), host_sqrt(host_of_int(n + 1 + double, 0, 64), 64)
    y = host_to_int(host_div(host_sub(0x40B0000000000000, high, 64), host_add(low, high, 64), 64), 64, 64, 0, 3)
    # (2 * 256 * sqrt(64) - high) / sum, up
    out = (((3 * bias - 1 - e) >> 1) << mantissa()) | ((y & 127) << (mantissa() - 7))
    out = sel(body == 0, (a & sign_bit(W)) | inf, sel(body == inf, 0, out))
    f_raise(sel(signals(a) | ((a != body) & (body != 0) & (body <= inf)), NV, sel(body == 0, DZ, 0)))
    return sel((body > inf) | ((a != body) & (body != 0)), nan_of(), out)


def u_vfrec7(a: int, rm: int) -> int:
    """1/a to seven bits: of the interval that seven bits of the fraction say, from x to x + 1/128, the multiple of 1/256 nearest to
    2 / (2 x + 1/128), where the relative errors at both ends are equal. A reciprocal that is too great is infinity or the greatest number, as `rm`
    rounds."""
    body, sign = magnitude(a), a & sign_bit(W)
    inf, bias = infinity(), (1 << (W - 2 - mantissa())) - 1
    e = normal_exponent(body)
    d = 257 + 2 * normal_fraction(body, e, 7)
    y = (65536 + (d >> 1)) // d
    to = 2 * bias - 1 - e
    fraction = (y & 127) << (mantissa() - 7)
    tiny = (fraction | (1 << mantissa())) >> imax(1 - to, 0)  # `to` is 0 or -1: a subnormal
    out = sel(to > 0, (to << mantissa()) | fraction, tiny)
    finite = (rm == 1) | ((rm == 2) & (sign == 0)) | ((rm == 3) & (sign != 0))
    out = sel(e < -1, inf - finite, out)
    out = sign | sel(body == 0, inf, sel(body == inf, 0, out))
    f_raise(sel(signals(a), NV, sel(body == 0, DZ, sel(e < -1, OF | NX, 0))))
    return sel(body > inf, nan_of(), out)


def signals(a: int) -> int:
    """Whether it is a signalling NaN."""
    return (magnitude(a) > infinity()) & (1 - (lshr(a, mantissa() - 1) & 1))


def v_vfncvt_odd(a: int) -> int:
    return narrow_odd(a)


def narrow_odd(a: int) -> int:
    """From 2 W bits, rounded to odd: what is not exact gets the lowest bit set, so that a second rounding is right."""
    y = f_cvt(a, 2 * W, W)
    back, most = f_cvt(y, W, 2 * W), wrap(wrap(1 << (2 * W - 1)) - 1)
    above = (back & most) > (a & most)
    return sel(f_unordered(a, a, 2 * W) | f_eq(back, a, 2 * W), y, (y - above) | 1)


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
def r_vfredusum(a: int, b: int) -> int:
    return f_add(a, b, W)


def r_vfredosum(a: int, b: int) -> int:
    return f_add(a, b, W)


def r_vfredmin(a: int, b: int) -> int:
    return fmin_of(a, b)


def r_vfredmax(a: int, b: int) -> int:
    return fmax_of(a, b)
