"""Each timing rule by its micro-benchmark: the count predicted by hand is the count of the simulator, exactly."""

from __future__ import annotations

import random

import numpy as np
import pytest
from benchmarks.micro import MICROS, run
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.sim.memory import WINDOW, WINDOWS, take
from rvgpu.sim.state import Queue


@pytest.mark.parametrize("micro", MICROS, ids=lambda m: f"{m.rule}: {m.name}".replace(" ", "-"))
def test_predicted_by_hand(micro):
    assert run(micro) == micro.predicted, micro.why


def test_every_rule_has_one():
    assert {m.rule for m in MICROS} >= {"issue", "latency", "config", "lanes", "chaining", "units", "matrix", "scratchpad", "memory", "dma",
                                        "barrier", "warps", "cores", "launch", "classes", "results"}
    assert all(m.why and m.why != "?" for m in MICROS)

@settings(max_examples=30)
@given(seed=st.integers(0, 1 << 30), cost=st.sampled_from([8, 32, 256, 4096, 5000, 8192]), step=st.sampled_from([0, 1, 40, 3000]),
       early=st.sampled_from([0, 60]))
def test_a_shared_queue_never_beats_its_bandwidth(seed, cost, step, early):
    """Requests in almost any order of time, to backlogs beyond what the windows hold: no stretch of time serves more than fits into it, none
    is served before it arrives, and with no gap between arrivals nothing much is wasted."""
    pick, t, served = random.Random(seed), 100, []
    windows = np.zeros(WINDOWS * 4, np.uint32)
    queue = Queue(int(windows.ctypes.data), cost, 0, 0, 0)
    for _ in range(3000):
        t += pick.choice((0, 0, 0, step))
        arrival = t + pick.randrange(-early, early + 1)
        start = take(queue, arrival)
        assert start >= arrival
        served.append(start)
    served.sort()
    slack = 2 * (WINDOW >> 8)  # a window's lines may stand anywhere in it
    for n in (1, 10, 100, 1000, 2999):
        for i in range(0, len(served) - n, 7):
            assert n * cost <= (served[i + n] - served[i] + slack) << 8
    if step == 0 and early == 0 and 8192 % cost == 0:
        assert served[-1] <= 100 + 64 + (len(served) * cost >> 8)
