"""docs/performance.svg: per row of the bench its figure with bar and stretch, and where the cores' cycles went."""

from __future__ import annotations

from benchmarks.performance import Rows, measured
from benchmarks.rows import OVER
from rvgpu.runtime.svg import GROUPS, INK, box, drawing, legend, stack, text

LINE, TOP, NAME, FIGURE, WAITS, WIDTH = 17, 64, 8, 330, 620, 940  # pixels: a row, above the rows, where columns begin, the end
BAR = 230  # the length of a whole
MET, MISSED = GROUPS[0][2], GROUPS[4][2]


def chart(rows: Rows, plain: int | None) -> str:
    """An SVG of the rows that were measured."""
    shown = [(row, r, value) for row, r in rows if (value := measured(row, r, plain)) is not None]
    parts = [text(NAME, 20, "kernels of `make bench` on machine base"),
             text(FIGURE, 20, "part of the roofline reached"), text(WAITS, 20, "where the cores' cycles went")]
    parts += [box(FIGURE + BAR * g, 32, w, 9, INK) for g, w in ((0, 2), (0.32, 1))]
    parts += [text(FIGURE + 7, 41, "bar"), text(FIGURE + BAR * 0.32 + 7, 41, "stretch")]
    parts += legend(WAITS, 32, 105, 3)
    for n, (row, r, value) in enumerate(shown):
        y = TOP + LINE * n
        dims = " ".join(f"{k}={v}" for k, v in row.dims.items() if k != "B" and f"{k}={v}" not in row.title)
        parts.append(text(NAME, y + 11, f"{row.title}  {dims}"))
        if row.metric == OVER:
            parts.append(text(FIGURE, y + 11, f"{value:+.1%} cycles over the plain product"))
        else:
            parts += [box(FIGURE, y + 2, BAR * value, 11, MET if row.met(value, row.bar) else MISSED),
                      box(FIGURE + BAR * row.bar, y, 2, 15, INK), box(FIGURE + BAR * row.stretch, y, 1, 15, INK),
                      text(FIGURE + BAR + 10, y + 11, f"{value:.3f}")]
        parts += stack(WAITS, y + 2, WIDTH - WAITS - 12, 11, r["stalls"])
    return drawing(WIDTH, TOP + LINE * len(shown) + 12, parts)
