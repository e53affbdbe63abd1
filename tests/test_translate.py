"""What the translator refuses, with file and line; that it agrees with CPython otherwise is tests/test_sim_reference.py's matter."""

from __future__ import annotations

import pytest

from rvgpu.sim.state import Warp
from rvgpu.sim.translate import TranslateError, Unit, ptr


def either(a: int, b: int, n: int) -> int:
    w = ptr(Warp, a)
    if n > 0:
        w = ptr(Warp, b)
    return w.pc


def outlives(a: int, n: int) -> int:
    while n > 0:
        w = ptr(Warp, a)
        n -= w.pc
    return w.pc


def text(a: int) -> int:
    return a + "1"  # type: ignore[operator]


def nowhere(a: int) -> int:
    return elsewhere(a)  # type: ignore[name-defined]  # noqa: F821


def each_its_own(a: int, b: int, n: int) -> int:
    total = 0
    if n > 0:
        w = ptr(Warp, a)
        total += w.pc
    else:
        w = ptr(Warp, b)
        total -= w.pc
    w = ptr(Warp, a)
    w = ptr(Warp, b)
    return total + w.pc


@pytest.mark.parametrize(("fn", "message"), [(either, "w would be one of two pointers"), (outlives, "name w"), (text, "constant '1'"),
                                             (nowhere, "unknown function elsewhere")])
def test_refused(fn, message):
    with pytest.raises(TranslateError, match=message) as e:
        Unit().add(fn, name="f")
    assert f"{__file__}:" in str(e.value)


def test_pointers_of_one_place():
    Unit().add(each_its_own, name="f")
