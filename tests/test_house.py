"""The house's laws that a machine can check: links, absolute imports, who may import whom, lazy heavy imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("frontend", "ir", "passes", "codegen_rvgpu", "sim", "runtime", "isa")
ALLOWED = {"isa": set(), "ir": set(), "frontend": {"ir"}, "passes": {"ir", "isa"}, "codegen_rvgpu": {"ir", "isa"}, "sim": {"isa"},
           "runtime": set(PARTS)}
FILES = [p for part in PARTS for p in (ROOT / part).glob("*.py")]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
        elif isinstance(node, ast.Import):
            for a in node.names:
                yield 0, a.name


@pytest.mark.parametrize("part", PARTS)
def test_links(part):
    link = ROOT / "src" / "rvgpu" / part
    assert link.is_symlink() and link.resolve() == (ROOT / part).resolve()
    tracked = subprocess.run(["git", "ls-files", "-s", f"src/rvgpu/{part}"], cwd=ROOT, capture_output=True, text=True).stdout
    assert tracked.startswith("120000") or not (ROOT / ".git").exists()


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_import_direction(path):
    part = path.parent.name
    for level, module in imports(path):
        assert level == 0, "absolute imports only"
        first, _, rest = module.partition(".")
        assert first not in PARTS, f"{module}: write rvgpu.{module}"
        if first == "rvgpu" and rest:
            other = rest.split(".")[0]
            assert other in {part, "errors", "cache"} | ALLOWED[part], f"{part} may not import {module}"
        if first == "llvmlite":
            assert (part, path.name) in {("codegen_rvgpu", "riscv.py"), ("sim", "engine.py")}
        if first == "lark":
            assert part == "frontend"


def test_import_is_light():
    code = "import rvgpu, sys; print([m for m in ('llvmlite', 'lark', 'ml_dtypes', 'msgspec') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
