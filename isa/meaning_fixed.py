"""Fixed point: saturating and averaging sums, rounding shifts, the fractional product, clips, and sums with carry (isa/meaning.py).

`x_...` takes `a` (vs2), `b` (vs1, scalar or immediate) and the rounding mode vxrm; `sat_...` says whether the result saturated, which sets vxsat.
"""

from __future__ import annotations

from rvgpu.isa.prims import imax, imin, lshr, mulh, sel, sext, trunc, ult, umin, wrap

SEW = 32  # bound


def increment(odd: int, half: int, rest: int, rm: int) -> int:
    """What vxrm adds to a truncated number: from its lowest bit, the first bit lost and whether any lower one was set.

    0 nearest, ties up; 1 nearest, ties to even; 2 down; 3 to odd (jam)."""
    return sel(rm == 0, half, sel(rm == 1, half & (rest | odd), sel(rm == 2, 0, (1 - odd) & (half | rest))))


def shifted_increment(a: int, n: int, rm: int) -> int:
    """The increment of a >> n."""
    below = imax(n - 1, 0)
    half, rest = sel(n, lshr(a, below) & 1, 0), (a & wrap(wrap(1 << below) - 1)) != 0
    return increment(lshr(a, n) & 1, half, rest, rm)


def never(a: int, b: int, rm: int) -> int:
    return 0


# -- saturating sums
def x_vsaddu(a: int, b: int, rm: int) -> int:
    return sel(sat_vsaddu(a, b, rm), -1, wrap(a + b))


def sat_vsaddu(a: int, b: int, rm: int) -> int:
    return ult(trunc(wrap(a + b), SEW), a)


def x_vsadd(a: int, b: int, rm: int) -> int:
    return sel(sat_vsadd(a, b, rm), limit_of(a), wrap(a + b))


def sat_vsadd(a: int, b: int, rm: int) -> int:
    """The sum's sign is not that of both operands."""
    s = wrap(a + b)
    return lshr((a ^ s) & (b ^ s), SEW - 1) & 1


def limit_of(a: int) -> int:
    """The greatest number, or the least when a is negative."""
    return wrap((1 << (SEW - 1)) - 1 + (lshr(a, SEW - 1) & 1))


def x_vssubu(a: int, b: int, rm: int) -> int:
    return sel(ult(a, b), 0, wrap(a - b))


def sat_vssubu(a: int, b: int, rm: int) -> int:
    return ult(a, b)


def x_vssub(a: int, b: int, rm: int) -> int:
    return sel(sat_vssub(a, b, rm), limit_of(a), wrap(a - b))


def sat_vssub(a: int, b: int, rm: int) -> int:
    return lshr((a ^ b) & (a ^ wrap(a - b)), SEW - 1) & 1


# -- averages: a + b = 2 (a & b) + (a ^ b) and a - b = (a ^ b) - 2 (~a & b), halved without a bit more
def x_vaaddu(a: int, b: int, rm: int) -> int:
    """(a + b) / 2, rounded."""
    return rounded_half(wrap((a & b) + lshr(a ^ b, 1)), a ^ b, rm)


def x_vaadd(a: int, b: int, rm: int) -> int:
    """(a + b) / 2, rounded."""
    x, y = sext(a, SEW), sext(b, SEW)
    return rounded_half((x & y) + ((x ^ y) >> 1), a ^ b, rm)


def x_vasubu(a: int, b: int, rm: int) -> int:
    """(a - b) / 2, rounded."""
    return rounded_half(wrap(lshr(a ^ b, 1) - (~a & b)), a ^ b, rm)


def x_vasub(a: int, b: int, rm: int) -> int:
    """(a - b) / 2, rounded."""
    x, y = sext(a, SEW), sext(b, SEW)
    return rounded_half(wrap(((x ^ y) >> 1) - (~x & y)), a ^ b, rm)


def rounded_half(x: int, lost: int, rm: int) -> int:
    return wrap(x + increment(x & 1, lost & 1, 0, rm))


# -- the fractional product: of 2 SEW bits the sign and the SEW - 1 below it are kept
def x_vsmul(a: int, b: int, rm: int) -> int:
    """The upper half of a * b * 2, rounded."""
    x, y = sext(a, SEW), sext(b, SEW)
    if SEW == 64:
        low = wrap(x * y)
        out = wrap(mulh(x, y) << 1) | lshr(low, 63)
        out = wrap(out + increment(out & 1, lshr(low, 62) & 1, (low & ((1 << 62) - 1)) != 0, rm))
    else:
        p = x * y
        out = (p >> (SEW - 1)) + shifted_increment(p, SEW - 1, rm)
    return sel(sat_vsmul(a, b, rm), (1 << (SEW - 1)) - 1, out)


def sat_vsmul(a: int, b: int, rm: int) -> int:
    """Only -1 * -1 is too great."""
    least = sext(1 << (SEW - 1), SEW)
    return (sext(a, SEW) == least) & (sext(b, SEW) == least)


# -- rounding shifts
def x_vssrl(a: int, b: int, rm: int) -> int:
    """a >> b, rounded."""
    n = b & (SEW - 1)
    return wrap(lshr(a, n) + shifted_increment(a, n, rm))


def x_vssra(a: int, b: int, rm: int) -> int:
    """a >> b, rounded."""
    x, n = sext(a, SEW), b & (SEW - 1)
    return (x >> n) + shifted_increment(x, n, rm)


# -- clips: a has 2 SEW bits
def shifted(a: int, b: int, rm: int) -> int:
    x, n = sext(a, 2 * SEW), b & (2 * SEW - 1)
    return (x >> n) + shifted_increment(x, n, rm)


def shifted_unsigned(a: int, b: int, rm: int) -> int:
    n = b & (2 * SEW - 1)
    return wrap(lshr(a, n) + shifted_increment(a, n, rm))


def x_vnclip(a: int, b: int, rm: int) -> int:
    return imin(imax(shifted(a, b, rm), 0 - (1 << (SEW - 1))), (1 << (SEW - 1)) - 1)


def sat_vnclip(a: int, b: int, rm: int) -> int:
    x = shifted(a, b, rm)
    return x != sext(x, SEW)


def x_vnclipu(a: int, b: int, rm: int) -> int:
    return umin(shifted_unsigned(a, b, rm), (1 << SEW) - 1)


def sat_vnclipu(a: int, b: int, rm: int) -> int:
    return ult((1 << SEW) - 1, shifted_unsigned(a, b, rm))


# -- sums with carry; c is the carry or borrow that comes in
def v_vadc(a: int, b: int, c: int) -> int:
    return wrap(wrap(a + b) + c)


def v_vsbc(a: int, b: int, c: int) -> int:
    return wrap(wrap(a - b) - c)


def v_vmadc(a: int, b: int, c: int) -> int:
    """Whether a + b + c does not fit."""
    s = trunc(wrap(wrap(a + b) + c), SEW)
    return ult(s, a) | ((s == a) & c)


def v_vmsbc(a: int, b: int, c: int) -> int:
    return ult(a, b) | ((a == b) & c)
