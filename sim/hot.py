"""Where the warps' time went, instruction by instruction: sums over a run's trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rvgpu.sim.control import UNIT_DMA
from rvgpu.sim.state import CAUSE, CAUSES
from rvgpu.sim.trace import UNIT, Numbers, Trace


@dataclass(frozen=True)
class Hot:
    """One instruction over all warps: cycles in warps' time (of issue: one each; of waiting for it to issue, by cause) and of its unit."""

    pc: int
    text: str
    line: str
    count: int
    waits: dict[str, int]
    busy: int
    share: float  # of all warps' time, their first to their last instruction

    def json(self) -> dict[str, Any]:
        return {"pc": self.pc, "instruction": self.text, "line": self.line, "count": self.count, "waits": self.waits, "busy": self.busy,
                "share": self.share}


def waits_by(trace: Trace, key: Callable[[Numbers], Numbers]) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Sums over the instructions of a trace (rows of its events, in order of `Trace.waits`) that `key` gives the same number: the instructions, each
    one's place among the numbers, the numbers, and per number the cycles that were waited for each cause."""
    events = trace.events[trace.events[:, UNIT] != UNIT_DMA]
    order, before, turn = trace.waits()
    events = events[order]
    cause, issue = events[:, 4], events[:, 5]
    keys, at = np.unique(key(events), return_inverse=True)
    waits = np.stack([np.bincount(at, np.where(cause == n, turn - before, 0), len(keys)) for n in range(len(CAUSES))], axis=1)
    waits[:, CAUSE["unit"]] += np.bincount(at, np.maximum(issue - turn, 0), len(keys))
    return events, at, keys, waits


def hottest(trace: Trace, most: int) -> list[Hot]:
    """The `most` instructions with the largest share of the warps' time, largest first (of equals the lower address)."""
    events, at, pcs, by_cause = waits_by(trace, lambda events: events[:, 0])
    count, used = np.bincount(at, minlength=len(pcs)), np.bincount(at, events[:, 8] - events[:, 7], len(pcs))
    time = count + by_cause.sum(1)
    rows = np.lexsort((pcs, -time))[:most]
    total = max(float(time.sum()), 1)
    return [Hot(int(pcs[n]), *trace.text(int(pcs[n])), int(count[n]),
                {CAUSES[c]: int(by_cause[n, c]) for c in np.argsort(-by_cause[n], kind="stable") if by_cause[n, c]}, int(used[n]),
                float(time[n]) / total) for n in rows]


def table(rows: list[Hot]) -> str:
    """The report: cycles are per execution."""
    out = ["  hottest      share of warps' time, executions, cycles waited for it and its unit's cycles per execution"]
    for r in rows:
        waits = " ".join(f"{c} {v / r.count:.1f}" for c, v in list(r.waits.items())[:2] if v / r.count >= 0.05)
        out.append(f"  {r.share:6.1%} {r.count:>11,} {sum(r.waits.values()) / r.count:7.1f} {r.busy / r.count:6.1f}  {r.pc:x}: {r.text}"
                   + (f"  [{waits}]" if waits else "") + (f"  {r.line}" if r.line else ""))
    return "\n".join(out)
