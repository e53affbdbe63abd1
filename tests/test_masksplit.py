"""P8: whatever a mask says, the result is that of the whole computation; blocks that it leaves out are not computed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rvgpu as rv
from rvgpu.passes.pipeline import parse_passes

HEAD = "def f(q: f32[G, R, S, D], k: f32[G, T, D], v: f32[G, T, D], n: i32[G], *, w: i32 = 20) -> f32[G, R, S, D]:\n    s = q @ k * 0.25\n"
TAIL = "    return softmax(s, over=T) @ v\n"
CAUSAL = "iota(T) <= iota(S) + size(T) - size(S)"
WINDOW = "(iota(T) <= iota(S)) & (iota(T) > iota(S) - w)"
MASKS = {"causal": CAUSAL, "window": WINDOW, "anticausal": "iota(S) < iota(T)", "lengths": "iota(T) < n", "not": f"~({CAUSAL})",
         "either": "(iota(T) < w) | (iota(T) == iota(S))", "not equal": "iota(T) != iota(S)", "twice": "2 * iota(T) <= iota(S)",
         "heads": "iota(T) <= iota(S) + 3 * iota(R)", "from": "(iota(T) >= n) & (iota(T) - w < n)",
         "never": "iota(T) < 0 - size(T)", "always": "iota(T) >= 0"}


def kernel(mask):
    return rv.kernel(f"{HEAD}    s = where({mask}, s, -inf)\n{TAIL}")


def arrays(g, r, s, t, d=16, seed=0):
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal(shape, dtype=np.float32) for shape in ((g, r, s, d), (g, t, d), (g, t, d)))
    return q, k, v, rng.integers(0, t + 3, g).astype(np.int32)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@settings(max_examples=6, deadline=None)
@given(st.sampled_from([1, 2, 5]), st.integers(1, 150), st.integers(1, 150), st.sampled_from([1, 7, 40, 1000]),
       st.sampled_from(["", "+tile{wo=1}", "+tile{wo=2}"]))
def test_any_mask(mask, r, s, t, w, passes):
    """Against float64, within the stated bound, whichever way heads are laid on warps; edge has TE 32."""
    if passes and r < int(passes[-2]):
        passes = ""
    compiled = kernel(mask).compile("edge", passes=parse_passes(passes)) if passes else kernel(mask).compile("edge")
    compiled.run(*arrays(2, r, s, t), w=w, check=True)


def test_layouts_agree_to_the_bit():
    """Whether a block is whole, masked or at the edge depends on the tiling; the bytes do not."""
    x = arrays(1, 4, 150, 170)
    for mask in (CAUSAL, WINDOW):
        layouts = [parse_passes(p) for p in ("+tile{wm=1}", "+tile{wm=4,wo=4}", "+tile{wm=4,wo=2}")]
        found = [kernel(mask).compile("base", passes=p).run(*x).out.tobytes() for p in layouts]
        assert len(set(found)) == 1


def macs(mask, s, t, **scalars):
    return kernel(mask).compile("edge").run(*arrays(1, 1, s, t), **scalars).stats["macs"]


def test_work_that_is_left_out():
    """Blocks of 32 keys and tiles of 32 queries on `edge`, of 8 x 8 blocks here."""
    every = macs(MASKS["always"], 256, 256)
    assert macs(CAUSAL, 256, 256) == every * 36 // 64
    assert macs("iota(S) < iota(T)", 256, 256) == every * 36 // 64
    assert macs(WINDOW, 256, 256, w=32) == every * 15 // 64
    assert macs("iota(T) < w", 256, 256, w=33) == every * 2 // 8
    assert macs("(iota(T) >= w) & (iota(T) < w + 5)", 256, 256, w=100) == every // 8
    assert macs("2 * iota(T) <= iota(S)", 256, 256) < every  # no span, but warps skip blocks
