"""Fits a machine's timing classes to a table of measured throughputs, by running the loops on the simulator; and says how far off a machine is.

A class's parameters reach a loop only through the whole cycles for which its instruction occupies its unit. So a loop's time is measured once per
such number, and the search over parameters looks it up. Per class: the parameters that fit as many loops exactly as there are terms (among them the
least sum of absolute relative errors) for each factor per SEW doubling and each set of terms, rounded to a grid; then steps on the grid along each
parameter while the error falls. A further parameter must pay for itself. Nothing is random but the halves of cross-validation, which come from a
seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import msgspec
import numpy as np

from rvgpu.isa.classes import PARAMETERS, VECTOR, resolve
from rvgpu.isa.machine import Classes, Machine, Occupancy
from rvgpu.sim.loops import Loops, Measured

GRID = (1 / 4, 1 / 16, 1 / 64)  # of start_up, per_register, per_element
FACTORS = (1.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 8.0)
PRICE = 0.1  # of summed error, for each parameter
AT_MOST = ("vslideup.vx",)  # may take less than the class's time: the measured ones slide by random amounts, and write only what lies above
NEAR = 0.10  # the share of rows within this error is reported

Terms = tuple[float, float, float, float]


@dataclass(frozen=True)
class Score:
    """Of some rows: how many, mean absolute relative error, share within NEAR."""

    rows: int
    mean: float
    near: float

    @staticmethod
    def of(errors: Iterable[float]) -> Score:
        e = np.abs(np.array(list(errors)))
        return Score(len(e), float(e.mean()), float((e <= NEAR).mean())) if len(e) else Score(0, 0.0, 0.0)


def errors(loops: Loops, machine: Machine) -> list[float]:
    """Relative error of every loop on the machine (simulated / measured - 1)."""
    loops.machine(machine)
    return [loops.run(n) / r.cycles - 1 for n, r in enumerate(loops.rows)]


def chime(machine: Machine, row: Measured) -> float:
    """The baseline: LMUL x VLEN / DLEN."""
    return row.lmul8 / 8 * machine.vector.vlen / machine.vector.dlen


def bare(machine: Machine) -> Machine:
    """The machine without classes of its own: everything from VLEN, DLEN and latencies."""
    return msgspec.structs.replace(machine, classes=Classes())


def _cycles(p: Terms, n: Any, passes: Any, k: Any, longest: bool) -> Any:
    """The rule of occupancy.class_cycles on arrays."""
    lanes, datapath = p[3] ** k * (p[0] + p[2] * n), p[1] * passes
    return np.maximum(1, np.ceil((np.maximum(lanes, datapath) if longest else lanes + datapath) - 1e-6)).astype(int)


class _Class:
    """The loops of one class among `members`."""

    def __init__(self, loops: Loops, name: str, machine: Machine, members: Sequence[int]) -> None:
        self.loops, self.members = loops, list(members)
        counts = [loops.counts(n) for n in members]
        self.n, self.passes = np.array([c[0] for c in counts], float), np.array([c[1] for c in counts])
        self.k = np.array([np.log2(loops.rows[n].sew / 32) for n in members])
        self.measured = np.array([loops.rows[n].cycles for n in members])
        self.wanted = np.array([self.nearest(n) for n in members], float)
        self.price = PRICE / len(members)
        self.at_most = np.array([loops.rows[n].name in AT_MOST for n in members])
        self.default = resolve(name, Occupancy(), machine)  # also what the class that it is like was fitted to
        self.longest = VECTOR[name].longest

    def nearest(self, n: int) -> int:
        """The occupancy with which loop n comes nearest to what was measured."""
        goal = self.loops.rows[n].cycles
        low, high = 1, 2
        while self.loops.at(n, high) < goal:
            low, high = high, 2 * high
        while high - low > 1:
            mid = (low + high) // 2
            low, high = (mid, high) if self.loops.at(n, mid) < goal else (low, mid)
        return low if goal - self.loops.at(n, low) < self.loops.at(n, high) - goal else high

    def mean(self, p: Terms) -> float:
        c = _cycles(p, self.n, self.passes, self.k, self.longest)
        if c.max() > 20000:
            return float("inf")
        got = np.array([self.loops.at(n, int(x)) for n, x in zip(self.members, c, strict=True)])
        e = np.abs(got / self.measured - 1)
        e[self.at_most & (got > self.measured)] *= 0.2
        return float(np.where(e > 0.5, 0.45 + e / 10, e).mean() + 0.1 * (e > NEAR).mean())

    def candidates(self, terms: Sequence[int], factor: float) -> list[Terms]:
        """Parameters through as many loops as there are terms: among all such lies the least sum of absolute errors. Of many loops, some. The best
        three on the sum of errors, on the grid."""
        scale = factor ** self.k
        columns = np.stack([scale, self.passes, scale * self.n])[list(terms)].T / self.wanted[:, None]
        rows = range(len(self.measured))
        picks = list(product(rows, repeat=len(terms)) if self.longest else combinations(rows, len(terms)))
        picks = picks[::1 + len(picks) // 600]
        at = np.array(picks)
        a, wanted = columns[at], np.ones(at.shape)
        if self.longest:  # each term through its own loop
            x = wanted / np.maximum(np.diagonal(a, axis1=1, axis2=2), 1e-9)
        else:
            good = np.abs(np.linalg.det(a)) > 1e-9
            x = np.linalg.solve(a[good], wanted[good][..., None])[..., 0]
        got = (x[:, None, :] * columns[None]).max(-1) if self.longest else x @ columns.T
        loss = np.minimum(np.abs(got - 1), 0.5).mean(1)
        out = []
        for n in np.argsort(loss, kind="stable")[:3]:
            p = [0.0, 0.0, 0.0, factor]
            for t, v in zip(terms, x[n], strict=True):
                p[t] = float(np.clip(round(v / GRID[t]) * GRID[t], -64, 4096))
            out.append((p[0], p[1], p[2], p[3]))
        return out

    def fit(self) -> tuple[Terms, float]:
        best = self.default
        least = self.mean(best)
        sews = len(set(self.k))
        for size in (1, 2, 3):
            for terms in combinations(range(3), size):
                if size > len(self.members):
                    continue
                found = []
                for factor in FACTORS if sews > 1 and terms != (1,) else (1.0,):
                    found += [(self.mean(p) + self.paid(terms, factor), p) for p in self.candidates(terms, factor)]
                for at, p in sorted(found)[:3]:
                    p, at = self.descend(p, at, terms)
                    if at < least - 1e-9:
                        best, least = p, at
        return self.plain(best), least

    def plain(self, p: Terms) -> Terms:
        """The same error with rounder numbers, where there are."""
        for t in range(3):
            for unit in (1.0, 0.5, 0.25, 0.125):
                q = [*p]
                q[t] = round(p[t] / unit) * unit
                if abs(q[t] - p[t]) < 0.3 and self.mean((q[0], q[1], q[2], q[3])) <= self.mean(p) + 1e-9:
                    p = (q[0], q[1], q[2], q[3])
                    break
        return p

    def paid(self, terms: Sequence[int], factor: float) -> float:
        """The price of the parameters: least for those that the class has by default, then for a start-up."""
        return self.price * (sum(1.0 if self.default[t] else 1.5 if t == 0 else 6.0 for t in terms) + 2 * (factor != 1))

    def descend(self, p: Terms, at: float, terms: Sequence[int]) -> tuple[Terms, float]:
        """Steps on the grid along one parameter or two at once, while they help."""
        moves = [{t: k * GRID[t]} for t in terms for k in (1, -1, 4, -4)]
        moves += [{a: i * GRID[a], b: j * GRID[b]} for a, b in combinations(terms, 2) for i in (2, -2) for j in (1, -1, 2, -2)]
        improved = True
        while improved:
            improved = False
            for move in moves:
                q = [*p]
                for t, step in move.items():
                    q[t] += step
                new = self.mean((q[0], q[1], q[2], q[3])) + self.paid(terms, p[3])
                if new < at - 1e-9:
                    p, at, improved = (q[0], q[1], q[2], q[3]), new, True
        return p, at


def fit(loops: Loops, machine: Machine, use: Sequence[int] | None = None) -> Machine:
    """The machine with every class that has loops among `use` (all) fitted to them; other classes keep what they have. A class that is
    like another starts from what the other was fitted to."""
    groups: dict[str, list[int]] = {}
    for n in range(len(loops.rows)) if use is None else use:
        groups.setdefault(loops.rows[n].cls, []).append(n)
    classes = {name: getattr(machine.classes, name) for name in VECTOR}
    for name in sorted(groups, key=_depth):
        now = msgspec.structs.replace(machine, classes=Classes(**(classes | {name: Occupancy()})))
        p, _ = _Class(loops, name, now, groups[name]).fit()
        classes[name] = Occupancy(**dict(zip(PARAMETERS, p, strict=True)))
    return msgspec.structs.replace(machine, classes=Classes(**classes))


def _depth(name: str) -> int:
    """How many classes stand behind it that it is like."""
    like = VECTOR[name].like
    return 1 + _depth(like) if like else 0


def cross_validate(loops: Loops, machine: Machine, seed: int) -> tuple[Score, Score]:
    """Fits on a random half of the rows: the error on that half, and on the other."""
    order = list(range(len(loops.rows)))
    random.Random(seed).shuffle(order)
    half = sorted(order[:len(order) // 2])
    e = errors(loops, fit(loops, bare(machine), half))
    inside = set(half)
    return Score.of(e[n] for n in half), Score.of(x for n, x in enumerate(e) if n not in inside)


def by_class(loops: Loops, e: Sequence[float]) -> Iterator[tuple[str, Score]]:
    for name in VECTOR:
        found = [x for x, r in zip(e, loops.rows, strict=True) if r.cls == name]
        if found:
            yield name, Score.of(found)


def classes_toml(machine: Machine, scores: Mapping[str, Score]) -> str:
    """The section [classes], each line with its source."""
    lines = ["[classes]"]
    for name in VECTOR:
        o = getattr(machine.classes, name)
        if o != Occupancy():
            said = {p: getattr(o, p) for p in PARAMETERS}
            keep = {p: v for p, v in said.items() if v is not None and not (p == "sew_factor" and v == 1)}
            text = f"{name} = {{ " + ", ".join(f"{p} = {_number(v)}" for p, v in keep.items()) + " }"
            score = scores.get(name)
            why = f"fitted: rvgpu calibrate, {score.rows} rows, mean error {100 * score.mean:.1f} %" if score else "assumption"
            lines.append(f"{text:100} # {why}")
    return "\n".join(lines) + "\n"


def _number(x: float) -> str:
    return f"{x:.6f}".rstrip("0").rstrip(".")
