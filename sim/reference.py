"""The engine run by CPython: the same functions on the same state, specialised by giving a copy of each its own globals.

Slow (some ten thousand simulated instructions a second) and exact: what the compiled engine does must equal it, byte for byte and cycle for
cycle (tests/test_sim_reference.py). `Device(machine, engine=Reference())` runs a program on it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

from rvgpu.isa.prims import PRIMS
from rvgpu.isa.rows import BY_NAME
from rvgpu.sim import translate
from rvgpu.sim.engine import LOOP, PLAIN, Mode, legal, specialisation
from rvgpu.sim.program import Key
from rvgpu.sim.state import Core, Gpu, Rec, Warp

HOST = (*translate.HOST, translate.__name__)  # their functions have a CPython body of their own


def specialise(fn: Callable[..., Any], bound: Mapping[str, Any]) -> Callable[..., Any]:
    """fn, and whatever it calls, with the names in `bound` bound: what Unit.add translates."""
    return _specialise(fn, bound, {})


def _specialise(fn: Any, bound: Mapping[str, Any], made: dict[Any, Any]) -> Any:
    if not isinstance(fn, types.FunctionType) or fn.__module__ in HOST:
        return fn
    if fn not in made:
        own: dict[str, Any] = {"__builtins__": __builtins__}
        made[fn] = types.FunctionType(fn.__code__, own, fn.__name__, fn.__defaults__)
        for name in fn.__code__.co_names:
            if name in bound:
                value = bound[name]
                own[name] = PRIMS[value].python if isinstance(value, str) else _specialise(value, bound, made)
            elif name in fn.__globals__:
                own[name] = _specialise(fn.__globals__[name], bound, made)
    return made[fn]


class Reference:
    """Has the face of `Engine`; a handler's address is its number."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[Key, bool], int] = {}
        self.table: list[Callable[..., int]] = []
        self.loops: dict[Mode, dict[str, Callable[..., int]]] = {}

    def _handler(self, number: int, c: Core, w: Warp, r: Rec, g: Gpu) -> int:
        return self.table[number - 1](c, w, r, g)

    def begin(self, mode: Mode = PLAIN) -> None:
        pass

    def core(self, mode: Mode = PLAIN) -> dict[str, int]:
        if mode not in self.loops:
            bound = {"call_handler": self._handler, "CHECKED": mode[0], "SEEDED": mode[1]}
            self.loops[mode] = {fn.__name__: specialise(fn, bound) for fn in LOOP}
        return {}

    def handlers(self, wanted: set[Key]) -> dict[Key, int]:
        return self._made(wanted, False)

    def checks(self, wanted: set[Key]) -> dict[Key, int]:
        return self._made(wanted, True)

    def _made(self, wanted: set[Key], checked: bool) -> dict[Key, int]:
        for key in sorted(Key(*k) for k in wanted):
            if (key, checked) not in self.numbers and legal(BY_NAME[key.row], key.sew):
                self.table.append(specialise(*specialisation(key, checked)))
                self.numbers[key, checked] = len(self.table)
        return {k: self.numbers.get((Key(*k), checked), 0) for k in wanted}

    def call(self, name: str, *args: Any, mode: Mode = PLAIN) -> int:
        self.core(mode)
        return int(self.loops[mode][name](*args))
