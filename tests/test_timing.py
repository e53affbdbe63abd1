"""Each timing rule by its micro-benchmark: the count predicted by hand is the count of the simulator, exactly."""

from __future__ import annotations

import pytest
from benchmarks.micro import MICROS, run


@pytest.mark.parametrize("micro", MICROS, ids=lambda m: f"{m.rule}: {m.name}".replace(" ", "-"))
def test_predicted_by_hand(micro):
    assert run(micro) == micro.predicted, micro.why


def test_every_rule_has_one():
    assert {m.rule for m in MICROS} >= {"issue", "latency", "config", "lanes", "chaining", "units", "matrix", "scratchpad", "memory", "dma",
                                        "barrier", "warps", "cores", "launch"}
    assert all(m.why and m.why != "?" for m in MICROS)
