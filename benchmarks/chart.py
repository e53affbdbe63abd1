"""docs/performance.svg: per row of the bench its figure with bar and stretch, and where the cores' cycles went."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.performance import Rows, measured
from benchmarks.rows import OVER

LINE, TOP, NAME, FIGURE, WAITS, WIDTH = 17, 64, 8, 330, 620, 940  # pixels: a row, above the rows, where columns begin, the end
BAR = 230  # the length of a whole
CAUSES = (  # waits that are drawn alike, and the colour
    ("issued", ("issued",), "#2a6f97"),
    ("unit busy", ("unit",), "#89c2d9"),
    ("units' results", ("data.vector", "data.matrix", "data.exp"), "#f4a259"),
    ("scratchpad, L1", ("data.scratchpad", "data.l1"), "#ffd899"),
    ("L2, DRAM, DMA", ("data.l2", "data.dram", "data.dma"), "#bc4b51"),
    ("barrier, idle", ("barrier", "dispatch", "idle"), "#c9c9c9"))


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = "#222") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, colour: str, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" fill="{colour}">{inside}</rect>'


def chart(rows: Rows, plain: int | None) -> str:
    """An SVG of the rows that were measured."""
    shown = [(row, r, value) for row, r in rows if (value := measured(row, r, plain)) is not None]
    parts = [box(0, 0, WIDTH, TOP + LINE * len(shown) + 12, "#fff"),
             text(NAME, 20, "kernels of `make bench` on machine base"),
             text(FIGURE, 20, "part of the roofline reached"), text(WAITS, 20, "where the cores' cycles went")]
    parts += [box(FIGURE + BAR * g, 32, w, 9, "#222") for g, w in ((0, 2), (0.32, 1))]
    parts += [text(FIGURE + 7, 41, "bar"), text(FIGURE + BAR * 0.32 + 7, 41, "stretch")]
    for n, (label, _, colour) in enumerate(CAUSES):
        x, y = WAITS + n % 3 * 105, 32 + n // 3 * 15
        parts += [box(x, y, 9, 9, colour), text(x + 13, y + 9, label)]
    for n, (row, r, value) in enumerate(shown):
        y = TOP + LINE * n
        dims = " ".join(f"{k}={v}" for k, v in row.dims.items() if k != "B" and f"{k}={v}" not in row.title)
        parts.append(text(NAME, y + 11, f"{row.title}  {dims}"))
        if row.metric == OVER:
            parts.append(text(FIGURE, y + 11, f"{value:+.1%} cycles over the plain product"))
        else:
            parts += [box(FIGURE, y + 2, BAR * value, 11, "#2a6f97" if row.met(value, row.bar) else "#bc4b51"),
                      box(FIGURE + BAR * row.bar, y, 2, 15, "#222"), box(FIGURE + BAR * row.stretch, y, 1, 15, "#222"),
                      text(FIGURE + BAR + 10, y + 11, f"{value:.3f}")]
        parts += stack(y, [(sum(r["stalls"][c] for c in causes), colour, label) for label, causes, colour in CAUSES])
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {TOP + LINE * len(shown) + 12}" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="11">\n' + "\n".join(parts) + "\n</svg>\n")


def stack(y: float, shares: Sequence[tuple[float, str, str]]) -> list[str]:
    out, x, length = [], float(WAITS), WIDTH - WAITS - 12
    for share, colour, label in shares:
        out.append(box(x, y + 2, length * share, 11, colour, f"{label} {share:.1%}"))
        x += length * share
    return out
