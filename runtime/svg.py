"""Shapes and colours of our pictures: SVG text by hand, the waits of a stall stack in groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

GROUPS = (  # label, causes (sim/state.py) that are drawn alike, colour
    ("issued", ("issued",), "#2a6f97"),
    ("unit busy", ("unit",), "#89c2d9"),
    ("units' results", ("data.vector", "data.matrix", "data.exp"), "#f4a259"),
    ("scratchpad, L1", ("data.scratchpad", "data.l1"), "#ffd899"),
    ("L2, DRAM, DMA", ("data.l2", "data.dram", "data.dma"), "#bc4b51"),
    ("barrier, idle", ("barrier", "dispatch", "idle"), "#c9c9c9"))
INK = "#222"


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, colour: str, title: str = "", opacity: float = 1) -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    faint = f' fill-opacity="{opacity:.3f}"' if opacity < 1 else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:g}" fill="{colour}"{faint}>{inside}</rect>'


def line(x: float, y: float, to_x: float, to_y: float, colour: str = INK, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}"{dashes}/>'


def stack(x: float, y: float, length: float, height: float, shares: Mapping[str, float]) -> list[str]:
    """Shares of a whole by cause, as one bar."""
    out = []
    for label, causes, colour in GROUPS:
        share = sum(shares.get(c, 0) for c in causes)
        if share > 0:
            out.append(box(x, y, length * share, height, colour, f"{label} {share:.1%}"))
        x += length * share
    return out


def legend(x: float, y: float, step: float, columns: int) -> list[str]:
    """What the groups' colours mean."""
    out = []
    for n, (label, _, colour) in enumerate(GROUPS):
        left, top = x + n % columns * step, y + n // columns * 15
        out += [box(left, top, 9, 9, colour), text(left + 13, top + 9, label)]
    return out


def drawing(width: float, height: float, parts: Iterable[str]) -> str:
    """On white, so that it reads on a dark page."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="Helvetica, Arial, sans-serif" font-size="11">\n'
            + "\n".join([box(0, 0, width, height, "#fff"), *parts]) + "\n</svg>\n")
