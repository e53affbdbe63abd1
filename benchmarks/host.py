"""Host speed (`make bench-host`): compile and engine times cold and cached, simulated instructions and FLOP per second.

Every line is the CLI in a process of its own, as a user runs it. Cold runs have an empty cache folder of their own; cached runs use that folder
again. Times on a shared machine vary by 2x, so each is the best of `--repeat` runs (speeds: of three times as many); nothing here is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COMPILE = [("gemm", "M=512 N=512 K=512"), ("gemm", "M=1024 N=1024 K=1024"), ("attention_full", "B=1 G=8 R=4 S=512 T=512 D=128"),
           ("row_softmax", "M=4096 N=4096")]
SPEED: list[tuple[str, str, list[str], str, Callable[[dict[str, Any]], float]]] = [
    ("row_softmax", "M=1024 N=4096", ["gpu.cores=1", "core.warps=8"], "M warp instructions/s", lambda s: s["host"]["mips"]),
    ("gemm", "M=1024 N=1024 K=1024", [], "simulated GFLOP/s", lambda s: 2 * s["macs"] / s["host"]["simulate_s"] / 1e9)]


CHECKED = [("row_softmax", "M=1024 N=4096", ["gpu.cores=1", "core.warps=8"]), ("gemm", "M=1024 N=1024 K=1024", []),
           ("attention", "B=1 G=2 R=4 S=256 T=512 D=64", []), ("rmsnorm", "T=1024 D=4096", []), ("rope", "B=2 S=256 H=16 F=64", [])]


def run(kernel: str, dims: str, cache: str, sets: list[str], *more: str) -> dict[str, Any]:
    """The statistics of one `rvgpu run --json`."""
    args = [a for d in dims.split() for a in ("-D", d)] + [a for s in sets for a in ("--set", s)]
    if kernel.startswith("attention"):
        args += ["--arg", "scale=0.09"]
    p = subprocess.run([sys.executable, "-m", "rvgpu", "run", str(ROOT / "examples" / "zoo.rvg"), "--kernel", kernel, *args, *more, "--json"],
                       capture_output=True, text=True, check=True, env={**os.environ, "RVGPU_CACHE_DIR": cache})
    out: dict[str, Any] = json.loads(p.stdout)
    return out


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--repeat", type=int, default=3)
    repeat = p.parse_args().repeat
    print(f"{'kernel':15} {'dims':32} {'compile cold':>13} {'cached':>8} {'engine cold':>12} {'cached':>8}   seconds, least of {repeat}")
    for kernel, dims in COMPILE:
        cold, warm = [], []
        for _ in range(repeat):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(run(kernel, dims, cache, [])["host"])
                warm.append(run(kernel, dims, cache, [])["host"])
        least = [min(h[key] for h in runs) for key in ("compile_s", "engine_s") for runs in (cold, warm)]
        print(f"{kernel:15} {dims:32} {least[0]:>13.2f} {least[1]:>8.2f} {least[2]:>12.2f} {least[3]:>8.2f}", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        for kernel, dims, sets, unit, figure in SPEED:
            best = max(figure(run(kernel, dims, cache, sets)) for _ in range(3 * repeat))
            print(f"{kernel:15} {dims:32} {best:>13.1f} {unit}, engine built{', ' if sets else ''}{' '.join(sets)}", flush=True)
        for kernel, dims, sets in CHECKED:
            pairs = [(run(kernel, dims, cache, sets), run(kernel, dims, cache, sets, "--sanitize")) for _ in range(repeat)]
            plain, checked = (min(s["host"]["simulate_s"] for s in column) for column in zip(*pairs, strict=True))
            print(f"{kernel:15} {dims:32} {checked / plain:>13.2f} times plain in checked mode (--sanitize)", flush=True)


if __name__ == "__main__":
    main()
