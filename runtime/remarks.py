"""`--remarks`: per kernel its tiling, what the model says a core's resources are needed for and which one binds, and after a run the
cycles beside the predicted ones; fusions and tilings that were refused, with the reason, at the user's line. All on stderr."""

from __future__ import annotations

import sys

from rvgpu.passes.context import Context, Planned
from rvgpu.sim.device import RunStats

SHOWN = 0.05  # of the predicted cycles: resources that are needed for less are left out


def show_remarks(context: Context) -> None:
    for r in context.remarks:
        loc = r.op.loc if r.op is not None else None
        _say(f"{f'{loc}: ' if loc else ''}remark: {r.text}")
    for name, planned in context.planned.items():
        _say(f"remark: {name}: a core needs {needs(planned)}")


def needs(p: Planned) -> str:
    """The resources in order of need, in cycles and of the predicted ones."""
    used = sorted(p.price.busy.items(), key=lambda kv: -kv[1])
    shown = [f"{name} {cycles:,.0f} ({cycles / p.price.cycles:.0%})" for name, cycles in used if cycles >= SHOWN * p.price.cycles]
    return f"{', '.join(shown) or 'nothing for long'} of {p.price.cycles:,.0f} predicted cycles"


def compare_cycles(context: Context, raw: RunStats) -> None:
    """Simulated beside predicted cycles, launch by launch."""
    for launch in raw.launches:
        planned = context.planned.get(launch.name)
        if planned is not None:
            ratio = launch.cycles / planned.price.cycles
            _say(f"remark: {launch.name}: {launch.cycles:,} cycles simulated, {ratio:.2f} of the {planned.price.cycles:,.0f} predicted")
    units = sorted(((v, k) for k, v in raw.busy.items() if k != "issue"), reverse=True)
    slots = f"issue slots {raw.busy['issue']:.0%}"
    _say(f"remark: simulated: {', '.join(f'{k} {v:.0%}' for v, k in units if v >= SHOWN)} busy, {slots}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
