"""Goldens: `pytest --accept` writes what the code says now into the files that differ; look at the diff before committing it.

Hypothesis draws the same examples in every run; `pytest --hypothesis-profile=random` draws others (and more), `make fuzz` does it for long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("random", derandomize=False, deadline=None, print_blob=True, max_examples=1000)
settings.load_profile("default")
os.environ.setdefault("RVGPU_THREADS", "1")  # the workers of pytest-xdist have the host's processors already
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--accept", action="store_true", help="write golden files instead of comparing with them")
    parser.addoption("--sanitize", action="store_true", help="every simulated run of this process is in checked mode")


def pytest_configure(config):
    if config.getoption("--sanitize"):
        from rvgpu.sim.device import Device

        Device.sanitize = True


@pytest.fixture
def golden(request):
    """golden(path, text): the file under tests/golden holds exactly this text."""
    def compare(name, text):
        path = GOLDEN / name
        if request.config.getoption("--accept"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing: run pytest --accept"
        assert text == path.read_text(), f"{path.name} differs: look at it, then run pytest --accept"
    return compare
