"""Dims are linear forms over names (`2*F`, `S+1`), kept canonical; two dims are the same iff their forms are equal.

A name `T.256` counts the parts of 256 that T is cut into (the last one may be short); nothing binds it, its value follows from T's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Dim:
    """const + sum(coefficient * name); terms are sorted by name and never zero. `Dim.of("K")` is the plain dim K."""

    terms: tuple[tuple[str, int], ...] = ()
    const: int = 0

    @staticmethod
    def of(name: str) -> Dim:
        return Dim(((name, 1),))

    @staticmethod
    def make(terms: Mapping[str, int], const: int = 0) -> Dim:
        return Dim(tuple(sorted((n, c) for n, c in terms.items() if c)), const)

    @property
    def name(self) -> str | None:
        """The name of a plain dim, else None."""
        return self.terms[0][0] if self.const == 0 and len(self.terms) == 1 and self.terms[0][1] == 1 else None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(n for n, _ in self.terms)

    def __add__(self, other: Dim | int) -> Dim:
        other = Dim((), other) if isinstance(other, int) else other
        terms = dict(self.terms)
        for n, c in other.terms:
            terms[n] = terms.get(n, 0) + c
        return Dim.make(terms, self.const + other.const)

    def __mul__(self, k: int) -> Dim:
        return Dim.make({n: c * k for n, c in self.terms}, self.const * k)

    __rmul__ = __mul__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim | int) -> Dim:
        return self + (-other)

    def value(self, binding: Mapping[str, int]) -> int:
        """The extent under a binding of every name; KeyError names the unbound one."""
        return self.const + sum(c * value_of(n, binding) for n, c in self.terms)

    def subst(self, binding: Mapping[str, Dim]) -> Dim:
        out = Dim((), self.const)
        for n, c in self.terms:
            out = out + binding.get(n, Dim.of(n)) * c
        return out

    def __str__(self) -> str:
        out = ""
        for n, c in self.terms:
            sign = "-" if c < 0 else "+" if out else ""
            out += sign + (n if abs(c) == 1 else f"{abs(c)}*{n}")
        if self.const or not out:
            out += ("+" if out and self.const >= 0 else "") + str(self.const)
        return out


def parts_of(name: str, size: int) -> Dim:
    """The number of parts of `size` that the dim `name` is cut into."""
    return Dim.of(f"{name}.{size}")


def value_of(name: str, binding: Mapping[str, int]) -> int:
    """A name's value; KeyError when neither it nor what it is cut from is bound."""
    whole, _, size = name.rpartition(".")
    return binding[name] if name in binding or not whole else -(-value_of(whole, binding) // int(size))


def is_bound(name: str, binding: Mapping[str, int]) -> bool:
    """Whether a name has a value."""
    return name in binding or "." in name and is_bound(name.rpartition(".")[0], binding)
