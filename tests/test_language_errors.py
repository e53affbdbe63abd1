"""Each error of the language once: the kernel and the exact message stand in one file of tests/golden/language, and both doors say it.

The first line of a kernel is a comment; the decorated function has its imports there, so lines and columns are the same."""

from __future__ import annotations

import importlib.util

import pytest

from rvgpu.errors import RvgpuError
from rvgpu.runtime.kernel import Kernel, load_file
from tests.conftest import GOLDEN

IMPORTS = "from __future__ import annotations; import rvgpu as rv; from rvgpu.lang import *"
FILES = sorted((GOLDEN / "language").glob("*.txt"))
TEXT_ONLY = "# text only:"  # what is no Python at all has no decorated form


def kernel_text(path):
    return path.read_text().partition("\n---\n")[0] + "\n"


def said_by_text(tmp_path, text):
    (tmp_path / "kernel.rvg").write_text(text)
    with pytest.raises(RvgpuError) as e:
        list(map(Kernel, load_file(str(tmp_path / "kernel.rvg")).values()))
    return e.value.render().replace(f"{tmp_path}/", "")


def said_by_python(tmp_path, text):
    path = tmp_path / "kernel.py"
    path.write_text(IMPORTS + "\n" + text.partition("\n")[2])
    spec = importlib.util.spec_from_file_location("kernel_under_test", path)
    with pytest.raises(RvgpuError) as e:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return e.value.render().replace(str(path), "kernel.rvg")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_message(path, tmp_path, golden):
    text = kernel_text(path)
    said = said_by_text(tmp_path, text)
    assert f"error[E{path.stem[1:4]}]" in said, said
    golden(f"language/{path.name}", f"{text}---\n{said}\n")
    if not text.startswith(TEXT_ONLY):
        assert said_by_python(tmp_path, text) == said


def test_every_code_has_one():
    """The codes that frontend/ raises are the codes of the files."""
    import re

    used = {c for p in (GOLDEN.parents[1] / "frontend").glob("*.py") for c in re.findall(r'"(E1\d\d)"', p.read_text())}
    assert used - {p.stem.upper()[:4] for p in FILES} == set()
