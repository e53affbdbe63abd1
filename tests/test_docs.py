"""The README's commands are run as they stand."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rvgpu.frontend.functions import FUNCTIONS
from rvgpu.ir.types import DType
from tests.programs_build import need

ROOT = Path(__file__).parents[1]
COMMANDS = re.findall(r"^(rvgpu .*)$", (ROOT / "README.md").read_text(), re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_command(command):
    args = shlex.split(command)[1:]
    p = subprocess.run([sys.executable, "-m", "rvgpu", *args], capture_output=True, text=True, cwd=ROOT)
    assert p.returncode == 0, p.stderr


PROGRAMS = re.search(r"```\n(.*?)```", (ROOT / "docs" / "programs.md").read_text(), re.S)[1].splitlines()


def test_commands_about_programs():
    """The commands of docs/programs.md, in their order."""
    need(importlib.util.find_spec("ziglang"), "ziglang", "pip install ziglang")
    (ROOT / "out").mkdir(exist_ok=True)
    assert len(PROGRAMS) >= 6
    for command in PROGRAMS:
        first, *args = shlex.split(command)
        program = {"rvgpu": [sys.executable, "-m", "rvgpu"], "python": [sys.executable]}[first]
        p = subprocess.run([*program, *args], capture_output=True, text=True, cwd=ROOT)
        assert p.returncode == 0, (command, p.stderr)
        if first == "rvgpu":
            assert ("guarded" if "harts" in command else "wrong 0 sum 1249750") in p.stdout + p.stderr


def test_demo():
    p = subprocess.run([sys.executable, "examples/demo.py"], capture_output=True, text=True, cwd=ROOT)
    assert p.returncode == 0 and "passed" in p.stdout, p.stderr


def test_generated_documents_are_current():
    """`make docs` was run after the last change of what they state."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name, make in generate.DOCUMENTS.items():
        assert (ROOT / "docs" / name).read_text() == make(), f"docs/{name}: run make docs"


LANGUAGE = (ROOT / "docs" / "language.md").read_text()


def test_the_language_page_runs(tmp_path):
    """Its Python blocks, one after the other, as one program."""
    program = tmp_path / "page.py"
    program.write_text("\n".join(re.findall(r"```python\n(.*?)```", LANGUAGE, re.S)))
    p = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, cwd=ROOT)
    assert p.returncode == 0 and "check        passed" in p.stdout, p.stderr


def test_the_language_page_names_every_function_and_dtype():
    words = set(re.findall(r"[a-z]\w*", " ".join(re.findall(r"`([^`\n]*)`", LANGUAGE))))
    assert set(FUNCTIONS) | {d.name for d in DType} <= words
