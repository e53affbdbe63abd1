"""The bench's table and docs/performance.md say what the measured statistics say."""

from __future__ import annotations

import json

import pytest
from benchmarks.chart import chart
from benchmarks.performance import binds, document, measured, table
from benchmarks.rows import OVER, PLAIN, ROOT, ROWS
from benchmarks.run import RESULTS, figure, key, measure

from rvgpu.runtime.kernel import kernel
from rvgpu.runtime.stats import work_of


def test_the_committed_table_and_document_are_written_from_the_statistics():
    known = json.loads(RESULTS.read_text())
    rows, plain = [(r, known.get(key(r), {})) for r in ROWS], known[key(PLAIN)]["cycles"]
    assert (ROOT / "benchmarks" / "results.txt").read_text() == table(rows, plain)
    assert (ROOT / "docs" / "performance.md").read_text() == document(rows, plain)
    assert (ROOT / "docs" / "performance.svg").read_text() == chart(rows, plain)
    assert set(known) == set(map(key, ROWS)) and len(known) == len(ROWS)


def test_a_row_is_measured_and_below_its_bar_says_what_binds():
    row = ROWS[0]
    r = measure(row)
    value = measured(row, r, None)
    assert r["passed"] and value == pytest.approx(256**3 / 4096 / r["cycles"])
    assert r["used"]["matrix"] == 4096 and r["ends"]["launches"] == 620 and 0 < r["ends"]["drain"] < r["cycles"]
    assert r["used"]["scalar slot"] + r["used"]["vector slot"] < r["instructions"]  # of eight cores
    assert (r["used"]["scalar slot"] + r["used"]["vector slot"]) * 8 > 0.8 * r["instructions"]
    busy = {**r, "used": {**r["used"], "exp": r["cycles"]}}
    assert "Out of the bar's reach with these instructions: exp" in binds(row, busy, value / 2, None)


def test_rounded_sizes_and_comparison():
    ragged, epilogue = ROWS[5], next(r for r in ROWS if r.metric == OVER)
    stats = {"macs_min": 1000 * 777 * 513, "cycles": 1, "roofline": {"of_matrix_peak": 0.5}, "utilisation": {"dram": 0}}
    assert figure(ragged, stats, 128) == pytest.approx(0.5 * 1008 * 784 * 514 / (1000 * 777 * 513))
    assert measured(epilogue, {"cycles": 108, "figure": None}, 100) == pytest.approx(.08)
    assert epilogue.met(.07, epilogue.bar) and not epilogue.met(.09, epilogue.bar)


def test_a_row_that_cannot_run_says_why():
    missing = next(r for r in ROWS if r.title == "GEMM bf16")
    row = type(missing)("nothing", ("no_such_kernel",), {}, "DRAM", .5, .6)
    assert measure(row) == {"missing": "no kernel no_such_kernel yet"} and "no kernel no_such_kernel yet" in table([(row, measure(row))], None)


WORK = """def f(x: f32[M, K], y: f32[K, N], big: f32[V, N]) -> f32[M, N]:
    unused = dot(x, x, over=M)
    a = x @ y
    return a * (x @ y) + slice(big, V, 2, M)
"""


def test_the_roofline_has_what_the_results_depend_on_once():
    dims = {"M": 4, "K": 8, "N": 16, "V": 1000}
    work = work_of(kernel(WORK).func, dims)
    assert work.macs == 4 * 8 * 16
    assert work.bytes == 4 * (4 * 8 + 8 * 16 + 4 * 16 + 4 * 16)  # of `big` only the rows that are kept
