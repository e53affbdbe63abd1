"""`--report`: the page is well-formed, and what it says is what the run's statistics and trace say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvgpu.cli import main
from rvgpu.isa.machine import load_machine
from rvgpu.runtime.inputs import random_inputs
from rvgpu.runtime.kernel import Kernel, load_file
from rvgpu.runtime.report import covered, html, shares
from rvgpu.sim.hot import hottest

ZOO = Path(__file__).parents[1] / "examples" / "zoo.rvg"
DIMS = {"B": 1, "G": 1, "R": 2, "S": 48, "T": 80, "D": 64}


class Page(HTMLParser):
    """Tags open and close in order; text and what an SVG's titles say are kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.words, self.tags = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def run():
    kernel = Kernel(load_file(str(ZOO))["attention"])
    return kernel.compile("base").run(*random_inputs(kernel.func, DIMS), scale=0.125)


def test_the_page(run):
    page = html(run.stats, load_machine("base"), run.traced(), str(ZOO))
    found = Page(page)
    text = " ".join(found.words)
    assert f"{run.cycles:,}" in text and "matrix peak" in text and "s: f32 = (q @ k) * scale" in text
    assert not re.search(r"\b(NaN|nan|inf)\b", " ".join(v or "" for _, a in found.tags for v in a.values()))
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert len([r for r in found.tags if r[0] == "tr"]) > len(hottest(run.traced(), 1 << 20))  # the listing has them all


def test_a_warp_s_time_is_all_told(run):
    trace = run.traced()
    issue = trace.events[trace.events[:, 6] < 6]
    for (core, warp), parts in shares(trace).items():
        own = issue[(issue[:, 1] == core) & (issue[:, 2] == warp), 5]
        assert sum(parts.values()) == own.max() - own.min() + 1


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20))), st.integers(1, 9))
def test_what_bins_cover(intervals, bins):
    start = np.array([s for s, _ in intervals], np.int64)
    end = start + np.array([n for _, n in intervals], np.int64)
    edges = np.arange(bins + 1) * 8.0
    slow = [sum(max(0, min(e, b) - max(s, a)) for s, e in zip(start, end, strict=True)) for a, b in zip(edges, edges[1:], strict=False)]
    assert covered(start, end, edges).tolist() == slow


@pytest.mark.parametrize("command", [
    f"run {ZOO} --kernel row_softmax -D M=8 -D N=100", f"run {ZOO} --kernel gemm -D M=32 -D N=32 -D K=32 --set core.matrix=none"])
def test_other_kernels(command, tmp_path, capsys):
    out = tmp_path / "r.html"
    assert main([*command.split(), "--report", str(out)]) == 0
    assert f"report       {out}" in capsys.readouterr().out
    Page(out.read_text())
    assert main([*command.split(), "--report", str(tmp_path / "none" / "r.html")]) == 2
