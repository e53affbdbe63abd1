"""Host speed (`make bench-host`): compile and engine times cold and cached, simulated instructions and FLOP per second.

Every line is the CLI in a process of its own, as a user runs it. Cold runs have an empty cache folder of their own; cached runs use that folder
again; one host thread unless said. Times on a shared machine vary by 2x, so each is the best of `--repeat` runs (speeds: of three times as many);
nothing here is asserted but that threads change no cycle.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from benchmarks.programs import executable, gemm, scalar
from rvgpu.isa.prims import wrap
from rvgpu.isa.prims_float import mm_block
from rvgpu.sim.engine import Engine
from rvgpu.sim.translate import Unit

ROOT = Path(__file__).parents[1]
COMPILE = [("gemm", "M=512 N=512 K=512"), ("gemm", "M=1024 N=1024 K=1024"), ("attention_full", "B=1 G=8 R=4 S=512 T=512 D=128"),
           ("row_softmax", "M=4096 N=4096")]
SPEED: list[tuple[str, str, list[str], str, Callable[[dict[str, Any]], float]]] = [
    ("row_softmax", "M=1024 N=4096", ["gpu.cores=1", "core.warps=8"], "M warp instructions/s", lambda s: s["host"]["mips"]),
    ("row_softmax", "M=1024 N=4096", ["gpu.cores=1", "core.warps=8", "vector.vlen=1024"], "M warp instructions/s", lambda s: s["host"]["mips"]),
    ("gemm", "M=1024 N=1024 K=1024", [], "simulated GFLOP/s", lambda s: 2 * s["macs"] / s["host"]["simulate_s"] / 1e9)]
THREADS = [("gemm", "M=1024 N=1024 K=1024"), ("attention_full", "B=1 G=8 R=4 S=512 T=512 D=128"), ("row_softmax", "M=4096 N=4096")]
QEMU = ["qemu-riscv64", "-cpu", "rv64,v=true,vlen=512,elen=64,vext_spec=v1.0,Zfh=true"]
CHECKED = [("row_softmax", "M=1024 N=4096", ["gpu.cores=1", "core.warps=8"]), ("gemm", "M=1024 N=1024 K=1024", []),
           ("attention", "B=1 G=2 R=4 S=256 T=512 D=64", []), ("rmsnorm", "T=1024 D=4096", []), ("rope", "B=2 S=256 H=16 F=64", [])]


def run(kernel: str, dims: str, cache: str, sets: list[str], *more: str, threads: int = 1) -> dict[str, Any]:
    """The statistics of one `rvgpu run --json`."""
    args = [a for d in dims.split() for a in ("-D", d)] + [a for s in sets for a in ("--set", s)]
    if kernel.startswith("attention"):
        args += ["--arg", "scale=0.09"]
    return statistics(["run", str(ROOT / "examples" / "zoo.rvg"), "--kernel", kernel, *args, *more], cache, threads)


def statistics(args: list[str], cache: str, threads: int = 1) -> dict[str, Any]:
    p = subprocess.run([sys.executable, "-m", "rvgpu", *args, "--json"], capture_output=True, text=True, check=True,
                       env={**os.environ, "RVGPU_CACHE_DIR": cache, "RVGPU_THREADS": str(threads)})
    out: dict[str, Any] = json.loads(p.stdout)
    return out


def against_qemu(file: Path) -> float:
    """Seconds of QEMU user mode for a program, without those of a program that ends at once."""
    if shutil.which(QEMU[0]) is None:
        return float("nan")
    took = []
    for path in (file, file.with_suffix(".end")):
        begin = time.perf_counter()
        subprocess.run([*QEMU, str(path)], check=True)
        took.append(time.perf_counter() - begin)
    return took[0] - took[1]


def programs(cache: str, repeat: int) -> None:
    """Bare-metal programs: a scalar loop on eight harts, timed; an f32 GEMM in RVV without timing, and QEMU on the same file in turn."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("scalar.elf", scalar(300_000)), ("gemm.elf", gemm(64, 256, 256, 20)), ("gemm.end", executable("", 4096))):
            path = Path(folder, name)
            path.write_bytes(data)
            path.chmod(0o755)
        one = ["sim", f"{folder}/scalar.elf", "--harts", "8", "--set", "core.warps=8"]
        best = max(statistics(one, cache)["host"]["mips"] for _ in range(3 * repeat))
        print(f"{'scalar loop':15} {'8 harts of one core':32} {best:>13.1f} M instructions/s, timed, engine built", flush=True)
        plain = ["sim", f"{folder}/gemm.elf", "--timing", "none"]
        pairs = [(statistics(plain, cache), against_qemu(Path(folder, "gemm.elf"))) for _ in range(3 * repeat)]
        best, least = max(s["host"]["mips"] for s, _ in pairs), min(s["host"]["simulate_s"] for s, _ in pairs)
        print(f"{'RVV f32 GEMM':15} {'64x256x256, VLEN 512, LMUL 4':32} {best:>13.1f} M instructions/s without timing; "
              f"{min(q for _, q in pairs) / least:.1f} times QEMU user mode on the same file", flush=True)


def adds(p: int, n: int) -> int:
    """A chain of scalar operations."""
    for i in range(n):
        p = wrap(p * 5) ^ i
    return p


def products(p: int, n: int) -> int:
    """The tile multiply's loop on operands that stay where they are: vector arithmetic and nothing else."""
    mm_block(p, p + 128, p + 256, p + 384, 0, n)
    return 0


def processors(repeat: int) -> None:
    """What this computer's second processor is worth: two threads that share nothing, each with as much to do as one alone."""
    own, unit = Engine(), Unit()
    for fn in (adds, products):
        unit.add(fn, name=fn.__name__)
    own.jit.add_object_file(own.llvm.ObjectFileRef.from_data(own.machine.emit_object(own.llvm.parse_assembly(unit.text()))))
    own.jit.finalize_object()
    memory = [np.zeros(256, np.float32) for _ in range(2)]
    for fn, n, what in ((adds, 100_000_000, "scalar loops"), (products, 40_000_000, "vector loops")):
        call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(own.jit.get_function_address(fn.__name__))

        def seconds(count: int) -> float:
            threads = [Thread(target=call, args=(int(m.ctypes.data), n)) for m in memory[:count]]  # noqa: B023
            begin = time.perf_counter()
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            return time.perf_counter() - begin

        pairs = [(seconds(1), seconds(2)) for _ in range(2 * repeat)]
        alone, both = (min(column) for column in zip(*pairs, strict=True))
        print(f"{'two processors':15} {what:32} {2 * alone / both:>13.2f} times what one does, two threads that share nothing", flush=True)


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
        programs(cache, repeat)
        processors(repeat)
        for kernel, dims in THREADS:
            pairs = [(run(kernel, dims, cache, []), run(kernel, dims, cache, [], threads=2)) for _ in range(2 * repeat)]
            assert len({(s["cycles"], json.dumps(s["stalls"])) for pair in pairs for s in pair}) == 1
            alone, both = (min(s["host"]["simulate_s"] for s in column) for column in zip(*pairs, strict=True))
            print(f"{kernel:15} {dims:32} {alone / both:>13.2f} times as fast with two host threads, cycles and stalls the same", flush=True)
        for kernel, dims, sets in CHECKED:
            pairs = [(run(kernel, dims, cache, sets), run(kernel, dims, cache, sets, "--sanitize")) for _ in range(repeat)]
            plain, checked = (min(s["host"]["simulate_s"] for s in column) for column in zip(*pairs, strict=True))
            print(f"{kernel:15} {dims:32} {checked / plain:>13.2f} times plain in checked mode (--sanitize)", flush=True)


if __name__ == "__main__":
    main()
