"""`make demo`: causal grouped-query attention from naive math to a checked result, RISC-V assembly, cycles and their cause."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

import rvgpu as rv
from rvgpu.lang import *  # noqa: F403

B, G, R, S, T, D = rv.dims("B G R S T D")


@rv.kernel
def attention(q: bf16[B, G, R, S, D], k: bf16[B, G, T, D], v: bf16[B, G, T, D], *, scale: f32) -> bf16[B, G, R, S, D]:  # noqa: F405
    s: f32 = (q @ k) * scale  # noqa: F405
    past = size(T) - size(S)  # noqa: F405
    s = where(iota(T) <= iota(S) + past, s, -inf)  # noqa: F405
    return softmax(s, over=T) @ v  # noqa: F405


def main() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal(shape, dtype=np.float32).astype(ml_dtypes.bfloat16)
               for shape in ((1, 2, 4, 128, 64), (1, 2, 192, 64), (1, 2, 192, 64)))
    compiled = attention.compile("base")
    result = compiled.run(q, k, v, scale=0.125, check=True)
    print(result.report())
    out = Path("out")
    out.mkdir(exist_ok=True)
    code = compiled.code(result.stats["dims"])
    (out / "attention.s").write_text(code.kernels[0].asm)
    (out / "attention.elf").write_bytes(code.elf())
    trace = result.trace(str(out / "attention.pftrace"))
    print(f"  assembly     {out / 'attention.s'} ({len(code.kernels[0].asm.splitlines())} lines), binary {out / 'attention.elf'}")
    print(f"  trace        {out / 'attention.pftrace'} ({len(trace.events)} events; open it at ui.perfetto.dev)")


if __name__ == "__main__":
    main()
