"""Vector integers, reductions and masks: elements zero-extended from SEW bits (isa/meaning.py)."""

from __future__ import annotations

from rvgpu.isa.meaning_scalar import s_div, s_divu, s_rem, s_remu
from rvgpu.isa.prims import imax, imin, ld8, lshr, mulh, mulhsu, mulhu, sext, trunc, ult, umax, umin, wrap

SEW = 32  # bound


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


def v_vnsrl(a: int, b: int) -> int:
    """a has 2 SEW bits."""
    return lshr(a, b & (2 * SEW - 1))


def v_vnsra(a: int, b: int) -> int:
    return sext(a, 2 * SEW) >> (b & (2 * SEW - 1))


def mac_vmacc(a: int, b: int, c: int) -> int:
    return wrap(a * b + c)


def mac_vnmsac(a: int, b: int, c: int) -> int:
    return wrap(c - a * b)


def mac_vmadd(a: int, b: int, c: int) -> int:
    return wrap(b * c + a)


def mac_vnmsub(a: int, b: int, c: int) -> int:
    return wrap(a - b * c)


def mac_vqdot(a: int, b: int, c: int) -> int:
    """Four products of signed bytes."""
    for j in range(4):
        c = wrap(c + sext(lshr(a, 8 * j), 8) * sext(lshr(b, 8 * j), 8))
    return c


def mac_vqdotu(a: int, b: int, c: int) -> int:
    """Four products of bytes."""
    for j in range(4):
        c = wrap(c + trunc(lshr(a, 8 * j), 8) * trunc(lshr(b, 8 * j), 8))
    return c


def mac_vqdotsu(a: int, b: int, c: int) -> int:
    """a is signed, b is not."""
    for j in range(4):
        c = wrap(c + sext(lshr(a, 8 * j), 8) * trunc(lshr(b, 8 * j), 8))
    return c


def mac_vqdotus(a: int, b: int, c: int) -> int:
    return mac_vqdotsu(b, a, c)


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
