"""The README's commands are run as they stand."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = re.findall(r"^(rvgpu .*)$", (ROOT / "README.md").read_text(), re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_command(command):
    args = shlex.split(command)[1:]
    p = subprocess.run([sys.executable, "-m", "rvgpu", *args], capture_output=True, text=True, cwd=ROOT)
    assert p.returncode == 0, p.stderr


def test_demo():
    p = subprocess.run([sys.executable, "examples/demo.py"], capture_output=True, text=True, cwd=ROOT)
    assert p.returncode == 0 and "passed" in p.stdout, p.stderr


def test_generated_documents_are_current():
    """`make docs` was run after the last change of what they state."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name, make in generate.DOCUMENTS.items():
        assert (ROOT / "docs" / name).read_text() == make(), f"docs/{name}: run make docs"
