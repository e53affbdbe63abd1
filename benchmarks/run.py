"""`make bench`: simulated cycles of the benchmark kernels on `base`, deterministic, into benchmarks/results.txt; host times to the terminal."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

from rvgpu.runtime.kernel import Kernel, load_file

ROOT = Path(__file__).parents[1]
CASES = [("gemm", {"M": 256, "N": 256, "K": 256}), ("gemm", {"M": 512, "N": 512, "K": 512}), ("gemm", {"M": 1024, "N": 1024, "K": 1024}),
         ("gemm", {"M": 1, "N": 4096, "K": 4096}), ("gemm", {"M": 16, "N": 4096, "K": 4096}),
         ("attention_full", {"B": 1, "G": 8, "R": 4, "S": 512, "T": 512, "D": 128}),
         ("attention", {"B": 1, "G": 8, "R": 4, "S": 512, "T": 512, "D": 128}), ("row_softmax", {"M": 4096, "N": 4096}),
         ("rmsnorm", {"T": 4096, "D": 4096})]


def main() -> None:
    kernels = load_file(str(ROOT / "examples" / "zoo.rvg"))
    table = [f"{'kernel':16} {'dims':40} {'cycles':>10} {'matrix peak':>12} {'DRAM':>7} {'bound used':>11}"]
    for name, dims in CASES:
        kernel = Kernel(kernels[name])
        rng = np.random.default_rng(0)
        arrays = []
        for p in kernel.func.params:
            if not p.keyword:
                x = rng.standard_normal([d.value(dims) for d in p.value.tensor.dims], dtype=np.float32)
                arrays.append(x if p.value.tensor.dtype.name == "f32" else x.astype(ml_dtypes.bfloat16))
        scalars = {"scale": dims["D"] ** -0.5} if "scale" in {p.name for p in kernel.func.params} else {}
        r = kernel.compile("base").run(*arrays, check=True, **scalars)
        s = r.stats
        text = " ".join(f"{k}={v}" for k, v in dims.items())
        table.append(f"{name:16} {text:40} {r.cycles:>10,} {s['roofline']['of_matrix_peak']:>12.3f} {s['utilisation']['dram']:>7.3f} "
                     f"{s['check']['bound_fraction']:>11.3f}")
        h = s["host"]
        print(f"{table[-1]}   host: compile {h['compile_s']:.2f} s, engine {h['engine_s']:.2f} s, simulate {h['simulate_s']:.2f} s, "
              f"{h['mips']:.1f} MIPS, {2 * s['macs'] / h['simulate_s'] / 1e9:.1f} GFLOP/s")
    (ROOT / "benchmarks" / "results.txt").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
