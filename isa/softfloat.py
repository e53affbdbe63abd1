"""Floating point on integers: every rounding mode and the accrued exception flags, in restricted Python (sim/translate.py).

`EXACT` names the primitives of isa/prims.py that have a counterpart here; handlers of programs that look at fcsr are specialised with those
(sim/handlers_float.py). Formats are the primitives' (16, 32, 64, BF16 = -16); results that are NaN are canonical. The mode in force and the
flags stand in the context that `f_context` names; without one the mode is nearest even and flags go nowhere.
A finite value other than zero is taken as sign, exponent e and significand s, whose leading bit is bit 62: s * 2^(e - 62).
Rules: IEEE 754-2019 as RISC-V refines it ("F" 2.2: tininess is detected after rounding; an infinity times zero is invalid whatever is added).
"""

from __future__ import annotations

from collections.abc import Callable

from rvgpu.isa.prims import apart, clz, imax, imin, lshr, mulhu, sel, ult, wrap
from rvgpu.isa.prims_float import f_add as host_add
from rvgpu.isa.prims_float import f_cvt as host_convert
from rvgpu.isa.prims_float import f_div as host_div
from rvgpu.isa.prims_float import f_flags, f_mode, f_raise
from rvgpu.isa.prims_float import f_fma as host_fma
from rvgpu.isa.prims_float import f_mul as host_mul
from rvgpu.isa.prims_float import f_sqrt as host_sqrt
from rvgpu.isa.prims_float import f_sub as host_sub

RNE, RTZ, RDN, RUP, RMM, ODD = 0, 1, 2, 3, 4, 5  # (round to odd is no mode of fcsr)
NX, UF, OF, DZ, NV = 1, 2, 4, 8, 16
W = 32  # bound


# -- formats
def digits(w: int) -> int:
    """Bits of the fraction."""
    return sel(w == 16, 10, sel(w == 32, 23, sel(w == 64, 52, 7)))


def emax(w: int) -> int:
    return sel(w == 16, 15, sel(w == 64, 1023, 127))


def top_bit(w: int) -> int:
    return sel(w < 0, 15, w - 1)


def infinity(w: int) -> int:
    return (2 * emax(w) + 1) << digits(w)


def nan(w: int) -> int:
    return infinity(w) | 1 << (digits(w) - 1)


def sign_of(a: int, w: int) -> int:
    return lshr(a, top_bit(w)) & 1


def magnitude(a: int, w: int) -> int:
    return a & wrap((1 << top_bit(w)) - 1)


def signed(sign: int, m: int, w: int) -> int:
    """The pattern of magnitude m with a sign."""
    return m | wrap(sign << top_bit(w))


def fraction(m: int, w: int) -> int:
    """The digits of a finite magnitude, the hidden one with them."""
    p = digits(w)
    return m & ((1 << p) - 1) | (m >> p != 0) << p


def exponent(m: int, w: int) -> int:
    return imax(m >> digits(w), 1) - emax(w) - digits(w) + 63 - clz(fraction(m, w))


def significand(m: int, w: int) -> int:
    f = fraction(m, w)
    return f << (clz(f) - 1)


def signals(m: int, w: int) -> int:
    """Whether a magnitude is a signalling NaN."""
    return (m > infinity(w)) & (1 - (m >> (digits(w) - 1) & 1))


def invalid(w: int) -> int:
    f_raise(NV)
    return nan(w)


def of_nans(x: int, y: int, w: int) -> int:
    """The NaN of an operation on magnitudes one of which is one."""
    f_raise(sel(signals(x, w) | signals(y, w), NV, 0))
    return nan(w)


# -- rounding
def jam(x: int, n: int) -> int:
    """x >> n for n >= 0, the lowest bit standing for all that were lost."""
    if n > 62:
        return x != 0
    return x >> n | (x & ((1 << n) - 1) != 0)


def rest(x: int, n: int) -> int:
    """What the low n bits of x >= 0 are to bit n: 0 nothing, 1 less than half of it, 2 half, 3 more."""
    if n <= 0:
        return 0
    if n > 63:
        return x != 0
    half = 1 << (n - 1)
    low = x & wrap((1 << n) - 1)
    return sel(low > half, 3, sel(low == half, 2, low != 0))


def away(mode: int, sign: int, odd: int, lost: int) -> int:
    """Whether a number whose last digit is `odd` and that loses `lost` grows."""
    if mode == RNE:
        return lost + odd > 2
    if mode == RMM:
        return lost >= 2
    if mode == RDN:
        return sign & (lost != 0)
    if mode == RUP:
        return (1 - sign) & (lost != 0)
    return 0


def overflow(sign: int, w: int, mode: int) -> int:
    f_raise(OF | NX)
    return signed(sign, infinity(w) - 1 + away(mode, sign, 1, 3), w)


@apart
def pack(sign: int, e: int, s: int, w: int, mode: int) -> int:
    """The value rounded to format w."""
    p, low = digits(w), 1 - emax(w)
    if e > emax(w):
        return overflow(sign, w, mode)
    n = 62 - p + imax(low - e, 0)
    kept, lost = s >> imin(n, 63), rest(s, n)
    m = kept | (lost != 0) if mode == ODD else kept + away(mode, sign, kept & 1, lost)
    m = m + (imax(e - low, 0) << p)
    if m >= infinity(w):
        return overflow(sign, w, mode)
    if lost != 0:
        tiny: int = e < low
        if e == low - 1 and s >> (62 - p) == (2 << p) - 1:  # with another digit it may round to the least normal number
            tiny = 1 - away(mode, sign, 1, rest(s, 62 - p))
        f_raise(NX | sel(tiny, UF, 0))
    return signed(sign, m, w)


# -- arithmetic
@apart
def add(a: int, b: int, w: int) -> int:
    x, y, sx, sy, mode = magnitude(a, w), magnitude(b, w), sign_of(a, w), sign_of(b, w), f_mode()
    inf = infinity(w)
    if x >= inf or y >= inf:
        if x > inf or y > inf:
            return of_nans(x, y, w)
        if x == y and sx != sy:
            return invalid(w)
        return a if x == inf else b
    if x == 0 or y == 0:
        if x == y:
            return signed(sx if sx == sy else mode == RDN, 0, w)
        return a if y == 0 else b
    if x < y:
        x, y, sx, sy = y, x, sy, sx
    e = exponent(x, w)
    s, t = significand(x, w) >> 1, jam(significand(y, w) >> 1, e - exponent(y, w))
    v = s + t if sx == sy else s - t
    if v == 0:
        return signed(mode == RDN, 0, w)
    n = clz(v) - 1
    return pack(sx, e + 1 - n, v << n, w, mode)


def sub(a: int, b: int, w: int) -> int:
    return add(a, b ^ wrap(1 << top_bit(w)), w)


@apart
def mul(a: int, b: int, w: int) -> int:
    x, y, sign = magnitude(a, w), magnitude(b, w), sign_of(a, w) ^ sign_of(b, w)
    inf = infinity(w)
    if x >= inf or y >= inf:
        if x > inf or y > inf:
            return of_nans(x, y, w)
        return invalid(w) if x == 0 or y == 0 else signed(sign, inf, w)
    if x == 0 or y == 0:
        return signed(sign, 0, w)
    s, t = significand(x, w), significand(y, w)
    v = mulhu(s, t) | (wrap(s * t) != 0)
    n = clz(v) - 1
    return pack(sign, exponent(x, w) + exponent(y, w) + 2 - n, v << n, w, f_mode())


@apart
def fma(a: int, b: int, c: int, w: int) -> int:
    x, y, z, sign, sz, mode = magnitude(a, w), magnitude(b, w), magnitude(c, w), sign_of(a, w) ^ sign_of(b, w), sign_of(c, w), f_mode()
    inf = infinity(w)
    if x >= inf or y >= inf or z >= inf:
        if x <= inf and y <= inf and imax(x, y) == inf and imin(x, y) == 0:
            return invalid(w)
        if x > inf or y > inf or z > inf:
            f_raise(sel(signals(z, w), NV, 0))
            return of_nans(x, y, w)
        if imax(x, y) < inf:
            return c
        return invalid(w) if z == inf and sz != sign else signed(sign, inf, w)
    if x == 0 or y == 0:
        if z == 0:
            return signed(sign if sign == sz else mode == RDN, 0, w)
        return c
    return fused(x, y, z, w, sign, sz, mode)


def fused(x: int, y: int, z: int, w: int, sign: int, sz: int, mode: int) -> int:
    """x*y + z of finite magnitudes, x and y not 0: the product and the addend as 128-bit numbers (h, k) and (u, v), bit 124 for 2^e."""
    s, t, e = significand(x, w), significand(y, w), exponent(x, w) + exponent(y, w)
    h, k = mulhu(s, t), wrap(s * t)
    u, v = 0, 0
    if z != 0:
        s, t = significand(z, w), exponent(z, w)
        u, v = s >> 2, wrap(s << 62)
        if e >= t:
            v = jam_low(u, v, e - t)
            u = u >> imin(e - t, 63)
        else:
            k = jam_low(h, k, t - e)
            h = h >> imin(t - e, 63)
            e = t
    if sign == sz:
        k = wrap(k + v)
        h = h + u + ult(k, v)
    elif h > u or (h == u and not ult(k, v)):
        h = h - u - ult(k, v)
        k = wrap(k - v)
    else:
        h, k = u - h - ult(v, k), wrap(v - k)
        sign = sz
    if h == 0 and k == 0:
        return signed(mode == RDN, 0, w)
    n = clz(h) if h != 0 else 64 + clz(k)
    if n >= 64:
        h, k = wrap(k << (n - 64)), 0
    else:  # (n is at least 1)
        h, k = wrap(h << n) | lshr(k, 64 - n), wrap(k << n)
    return pack(sign, e + 3 - n, lshr(h, 1) | h & 1 | (k != 0), w, mode)


def jam_low(h: int, k: int, n: int) -> int:
    """The low word of (h, k) >> n for n >= 0, its lowest bit standing for all that were lost; h >= 0."""
    if n == 0:
        return k
    if n < 64:
        return lshr(k, n) | wrap(h << (64 - n)) | (wrap(k << (64 - n)) != 0)
    return jam(h, n - 64) | (k != 0)


@apart
def div(a: int, b: int, w: int) -> int:
    x, y, sign = magnitude(a, w), magnitude(b, w), sign_of(a, w) ^ sign_of(b, w)
    inf = infinity(w)
    if x >= inf or y >= inf:
        if x > inf or y > inf:
            return of_nans(x, y, w)
        return invalid(w) if x == y else signed(sign, inf if x == inf else 0, w)
    if x == 0 or y == 0:
        if x == y:
            return invalid(w)
        f_raise(sel(y == 0, DZ, 0))
        return signed(sign, inf if y == 0 else 0, w)
    r, d = significand(x, w) >> 10, significand(y, w) >> 10  # no digit lies lower
    q = r // d
    r = r - q * d
    for _i in range(6):  # ten digits at a time
        t = (r << 10) // d
        r = (r << 10) - t * d
        q = q << 10 | t
    n = clz(q) - 1
    return pack(sign, exponent(x, w) - exponent(y, w) + 2 - n, (q | (r != 0)) << n, w, f_mode())


@apart
def sqrt(a: int, w: int) -> int:
    x, sign = magnitude(a, w), sign_of(a, w)
    if x > infinity(w):
        return of_nans(x, x, w)
    if x == 0:
        return a
    if sign != 0:
        return invalid(w)
    if x == infinity(w):
        return a
    e, s = exponent(x, w), significand(x, w) >> 9
    if e & 1 == 0:
        s = s << 1
    root, r = 0, 0  # of s * 4^29, whose digits come in pairs
    for i in range(57):
        r = r << 2 | (lshr(s, 54 - 2 * i) & 3 if i < 28 else 0)
        t = root << 2 | 1
        root = root << 1 | (r >= t)
        r = r - sel(r >= t, t, 0)
    n = clz(root) - 1
    return pack(0, e >> 1, root << n | (r != 0), w, f_mode())


# -- conversions
def convert_by(a: int, src: int, dst: int, mode: int) -> int:
    x, sign = magnitude(a, src), sign_of(a, src)
    if x > infinity(src):
        f_raise(sel(signals(x, src), NV, 0))
        return nan(dst)
    if x == infinity(src):
        return signed(sign, infinity(dst), dst)
    if x == 0:
        return signed(sign, 0, dst)
    return pack(sign, exponent(x, src), significand(x, src), dst, mode)


@apart
def convert(a: int, src: int, dst: int) -> int:
    return convert_by(a, src, dst, f_mode())


@apart
def convert_odd(a: int, src: int, dst: int) -> int:
    return convert_by(a, src, dst, ODD)


def narrow_odd(a: int) -> int:
    """From 2 W bits."""
    return convert_odd(a, 2 * W, W)


def saturated(sign: int, iw: int, of_signed: int) -> int:
    """The integer nearest to a number too large: zero- or sign-extended."""
    f_raise(NV)
    if of_signed:
        most = lshr(-1, 65 - iw)
        return ~most if sign else most
    return 0 if sign else lshr(-1, 64 - iw)


@apart
def to_int(a: int, w: int, iw: int, of_signed: int, rm: int) -> int:
    """rm = 0: the mode in force."""
    x, sign, mode = magnitude(a, w), sign_of(a, w), rm if rm != 0 else f_mode()
    if x > infinity(w):
        return saturated(0, iw, of_signed)
    if x == 0:
        return 0
    e = exponent(x, w) if x < infinity(w) else 64
    if e > 63:
        return saturated(sign, iw, of_signed)
    s = significand(x, w)
    kept, lost = s >> imin(62 - e, 63) if e < 63 else wrap(s << 1), rest(s, 62 - e)
    kept = kept + away(mode, sign, kept & 1, lost)
    most = lshr(-1, 65 - iw) + sign if of_signed else 0 if sign else lshr(-1, 64 - iw)
    if ult(wrap(most), kept):
        return saturated(sign, iw, of_signed)
    f_raise(lost != 0)
    return wrap(0 - kept) if sign else kept


@apart
def of_int(x: int, of_signed: int, w: int) -> int:
    if x == 0:
        return 0
    sign = of_signed & (x < 0)
    m = wrap(0 - x) if sign else x
    if m < 0:
        return pack(sign, 63, lshr(m, 1) | m & 1, w, f_mode())
    n = clz(m) - 1
    return pack(sign, 62 - n, m << n, w, f_mode())


# -- comparisons: quiet ones are invalid for signalling NaNs only
def key(a: int, w: int) -> int:
    """Numbers in order as integers; both zeros are 0."""
    m = magnitude(a, w)
    return 0 - m if sign_of(a, w) else m


def nans(a: int, b: int, w: int) -> int:
    return (magnitude(a, w) > infinity(w)) | (magnitude(b, w) > infinity(w))


def equal(a: int, b: int, w: int) -> int:
    if nans(a, b, w):
        of_nans(magnitude(a, w), magnitude(b, w), w)
        return 0
    return key(a, w) == key(b, w)


def less(a: int, b: int, w: int) -> int:
    if nans(a, b, w):
        invalid(w)
        return 0
    return key(a, w) < key(b, w)


def less_equal(a: int, b: int, w: int) -> int:
    if nans(a, b, w):
        invalid(w)
        return 0
    return key(a, w) <= key(b, w)


def pick(a: int, b: int, lower: int, w: int) -> int:
    """minimumNumber (lower = 1) or maximumNumber: a NaN only when both are; -0 below +0."""
    x, y, inf = magnitude(a, w), magnitude(b, w), infinity(w)
    if x > inf or y > inf:
        of_nans(x, y, w)
        return nan(w) if x > inf and y > inf else b if x > inf else a
    if key(a, w) == key(b, w):  # the same, or zeros
        return a | b if lower else a & b
    return a if (key(a, w) < key(b, w)) == lower else b


def least(a: int, b: int) -> int:
    return pick(a, b, 1, W)


def greatest(a: int, b: int) -> int:
    return pick(a, b, 0, W)


# -- the host's arithmetic where it must give the same: to nearest even, when inexactness has been noted already and the result is a number well
# inside its range, so that nothing else was to be noted
def settled() -> int:
    return f_flags() & NX and f_mode() == RNE


def inside(r: int, w: int) -> int:
    """Above the least normal number (which a tiny one may round to) and finite."""
    return ult((magnitude(r, w) >> digits(w)) - 2, 2 * emax(w) - 1)


def quick_add(a: int, b: int, FORM: int) -> int:
    if settled():
        r = host_add(a, b, FORM)
        if inside(r, FORM):
            return r
    return add(a, b, FORM)


def quick_sub(a: int, b: int, FORM: int) -> int:
    if settled():
        r = host_sub(a, b, FORM)
        if inside(r, FORM):
            return r
    return sub(a, b, FORM)


def quick_mul(a: int, b: int, FORM: int) -> int:
    if settled():
        r = host_mul(a, b, FORM)
        if inside(r, FORM):
            return r
    return mul(a, b, FORM)


def quick_fma(a: int, b: int, c: int, FORM: int) -> int:
    if settled():
        r = host_fma(a, b, c, FORM)
        if inside(r, FORM):
            return r
    return fma(a, b, c, FORM)


def quick_div(a: int, b: int, FORM: int) -> int:
    if settled():
        r = host_div(a, b, FORM)
        if inside(r, FORM):
            return r
    return div(a, b, FORM)


def quick_sqrt(a: int, FORM: int) -> int:
    if settled():
        r = host_sqrt(a, FORM)
        if inside(r, FORM):
            return r
    return sqrt(a, FORM)


def quick_convert(a: int, FROM: int, TO: int) -> int:
    if settled():
        r = host_convert(a, FROM, TO)
        if inside(r, TO):
            return r
    return convert(a, FROM, TO)


EXACT: dict[str, Callable[..., int]] = {
    "f_add": quick_add, "f_sub": quick_sub, "f_mul": quick_mul, "f_div": quick_div, "f_sqrt": quick_sqrt, "f_fma": quick_fma,
    "f_cvt": quick_convert, "f_to_i": to_int, "i_to_f": of_int,
    "f_eq": equal, "f_lt": less, "f_le": less_equal, "narrow_odd": narrow_odd, "fmin_of": least, "fmax_of": greatest}
