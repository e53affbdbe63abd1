"""Primitives that work on memory: groups of the scoreboard, the tags of a cache's set, blocks of a tile, what host threads publish. The compiled
body of each does to a buffer what the CPython body does to a copy of it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvgpu.isa.prims import copy
from rvgpu.isa.prims_float import mm_block, mm_pairs
from rvgpu.isa.prims_host import at_least, fill, later, most, most_of, observe, prefetch, publish, turn_square, wait_for, way_of
from rvgpu.isa.prims_tile import CALM, calm, least_half, most_half, pair_up, tile_block, tiles_begin, tiles_end
from rvgpu.isa.prims_turns import TAG_BITS, claim, promote, put, soonest, soonest_of_8
from rvgpu.sim.engine import Engine
from rvgpu.sim.translate import Unit

TESTED = {"most", "most_of", "fill", "at_least", "later", "way_of", "mm_block", "copy", "prefetch", "wait_for", "publish", "observe",
          "turn_square", "pair_up", "least_half", "most_half", "calm", "tiles_begin", "tiles_end", "tile_block",
          "soonest", "soonest_of_8", "promote", "put", "claim"}
Function = Callable[..., int]


def run_most(p: int, n: int) -> int:
    return most(p, n)


def run_most_of(p: int, q: int, r: int, n: int) -> int:
    return most_of(p, q, r, n)


def run_fill(p: int, n: int, x: int) -> int:
    fill(p, n, x)
    return 0


def run_at_least(p: int, n: int, x: int) -> int:
    at_least(p, n, x)
    return 0


def run_later(p: int, n: int, x: int) -> int:
    later(p, n, x)
    return 0


def run_way_of(p: int, x: int) -> int:
    return way_of(p, x)


def run_mm_block(c0: int, c1: int, a: int, b: int, pitch: int, steps: int) -> int:
    mm_block(c0, c1, a, b, pitch, steps)
    return 0


def run_turn_square(d: int, s: int, step: int) -> int:
    turn_square(d, step, s)
    return 0


def run_pair_up(d: int, lo: int, hi: int, seen: int, n: int) -> int:
    pair_up(d, lo, hi, n, seen)
    return least_half(seen) << 16 | most_half(seen + 64)


def run_calm(p: int, n: int) -> int:
    return calm(p, n)


def run_tile_block(c: int, a: int, b: int, pitch: int, gap: int, steps: int) -> int:
    tiles_begin()
    tile_block(c, pitch, a, b, gap, steps)
    tiles_end()
    return 0


def run_prefetch(p: int, x: int) -> int:
    prefetch(p + x)
    return x


def run_copy(d: int, s: int, n: int) -> int:
    copy(d, s, n)
    return 0


def run_hand_over(p: int, x: int, idle: int) -> int:
    publish(p, x)
    wait_for(p, x - 1, idle)
    return observe(p)


def run_soonest(ready: int, units: int, tags: int, room: int, rivals: int, n: int) -> int:
    return soonest(ready, units, tags, room, rivals, n)


def run_soonest_of_8(ready: int, units: int, tags: int, room: int, rivals: int, n: int) -> int:
    return soonest_of_8(ready, units, tags, room, rivals, n)


def run_promote(tags: int, mine: int, n: int) -> int:
    return promote(tags, mine, n)


def run_put(p: int, n: int, x: int) -> int:
    return put(p, n, x)


def run_claim(p: int, n: int, own: int, least: int) -> int:
    return claim(p, n, own, least)


@cache
def compiled() -> dict[str, Any]:
    own, unit = Engine(), Unit()
    functions = [run_most, run_most_of, run_fill, run_at_least, run_later, run_way_of, run_mm_block, run_copy, run_prefetch, run_hand_over,
                 run_turn_square, run_pair_up, run_calm, run_soonest, run_soonest_of_8, run_promote, run_put, run_claim]
    if own.bound["AMX"]:
        functions.append(run_tile_block)
    for fn in functions:
        unit.add(fn, name=fn.__name__)
    module = own.llvm.parse_assembly(unit.text())
    own.jit.add_object_file(own.llvm.ObjectFileRef.from_data(own.machine.emit_object(module)))
    own.jit.finalize_object()
    out: dict[str, Any] = {"engine": own}
    for fn in functions:
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * fn.__code__.co_argcount)
        out[fn.__name__] = kind(own.jit.get_function_address(fn.__name__))
    return out


def both(fn: Function, buffer: np.ndarray[Any, Any], places: tuple[int, ...], rest: tuple[int, ...]) -> tuple[int, np.ndarray[Any, Any]]:
    """The result and what the buffer became, the same for both bodies; `places` are byte offsets into the buffer."""
    a, b = buffer.copy(), buffer.copy()
    want = fn(*(int(a.ctypes.data) + at for at in places), *rest)
    got = compiled()[fn.__name__](*(int(b.ctypes.data) + at for at in places), *rest)
    assert want == got
    assert a.tobytes() == b.tobytes()
    return got, b


TIMES = st.lists(st.integers(0, 1 << 40), min_size=24, max_size=24).map(lambda v: np.array(v, np.int64))


@given(times=TIMES, n=st.integers(0, 8), x=st.integers(0, 1 << 40), at=st.integers(0, 12))
def test_groups(times, n, x, at):
    group = times[at:at + n]
    assert both(run_most, times, (8 * at,), (n,))[0] == max(group, default=0)
    for fn, wanted in ((run_fill, np.full(n, x)), (run_at_least, np.maximum(group, x)), (run_later, np.maximum(group + 1, x))):
        want = times.copy()
        want[at:at + n] = wanted
        assert (both(fn, times, (8 * at,), (n, x))[1] == want).all()


@given(times=TIMES, n=st.sampled_from([1, 2, 4, 8]), at=st.tuples(*[st.integers(0, 16)] * 3))
def test_most_of_three_groups(times, n, at):
    got, _ = both(run_most_of, times, tuple(8 * i for i in at), (n,))
    assert got == max(int(times[i:i + n].max()) for i in at)


@given(tags=st.lists(st.integers(0, 40), min_size=16, max_size=16), x=st.integers(1, 41), high=st.sampled_from([0, 0x7FFFFF00]))
def test_place_of_a_tag(tags, x, high):
    tags = [t + high if t else 0 for t in tags]
    got, _ = both(run_way_of, np.array(tags, np.uint32), (0,), (x + high,))
    assert got == (tags.index(x + high) if x + high in tags else 16)


@given(d=st.integers(0, 330), s=st.integers(0, 330), n=st.integers(-1, 300))
def test_copy_goes_byte_by_byte(d, s, n):
    start = np.random.default_rng(n + 1).integers(0, 256, 640, np.uint8)
    want = start.copy()
    for i in range(n):
        want[d + i] = want[s + i]
    assert (both(run_copy, start, (d, s), (n,))[1] == want).all()


@pytest.mark.parametrize("far", [0, 1 << 50])
def test_prefetch_of_memory_that_nobody_has(far):
    start = np.arange(16)
    got, out = both(run_prefetch, start, (8,), (far,))
    assert got == far and (out == start).all()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 30), steps=st.integers(1, 5), pitch=st.sampled_from([128, 256]), odd=st.booleans())
def test_block_of_a_tile(seed, steps, pitch, odd):
    """Against the unit's rounding one element at a time; some values infinite, NaN or subnormal."""
    rng = np.random.default_rng(seed)
    words = rng.standard_normal(64 + 4 * steps * pitch // 4 + 64).astype(np.float32)
    if odd:
        words[rng.integers(0, len(words), 40)] = rng.choice([np.inf, -np.inf, np.nan, 1e-45, 3e38, -0.0], 40)
    start = words.view(np.uint32)
    a, b = 256, 256 + 2 * steps * pitch
    _, out = both(run_mm_block, start, (0, 128, a, b), (pitch, steps))
    for row, column in ((0, 0), (0, 31), (1, 7), (1, 16)):
        acc = int(start[32 * row + column])
        for s in range(steps):
            x, y = a // 4 + 2 * s * pitch // 4 + row, b // 4 + 2 * s * pitch // 4 + column
            acc = mm_pairs(acc, int(start[x]), int(start[y]), int(start[x + pitch // 4]), int(start[y + pitch // 4]))
        assert acc == int(out[32 * row + column])


@pytest.mark.parametrize("step", [64, 128, 98])
def test_square_of_16_bit_numbers(step):
    start = np.random.default_rng(step).integers(0, 256, 4096 + 64 * 32, np.uint8)
    _, out = both(run_turn_square, start, (0, 4096), (step,))
    square = start[4096:].view(np.uint16).reshape(32, 32)
    for column in range(32):
        assert (out[column * step:column * step + 64].view(np.uint16) == square[:, column]).all()


@given(n=st.integers(0, 70), seed=st.integers(0, 99))
def test_pairs(n, seed):
    """n pairs and no more, and the range of their magnitudes."""
    words = np.random.default_rng(seed).integers(0, 1 << 16, 400).astype(np.uint16)
    words[180:186] = 0
    words[336:400] = [0xFFFF] * 32 + [0] * 32
    got, out = both(run_pair_up, words, (0, 320, 480, 672), (n,))
    lo, hi = words[160:160 + n], words[240:240 + n]
    assert (out[:2 * n].reshape(-1, 2) == np.stack([lo, hi], 1)).all() and (out[2 * n:160] == words[2 * n:160]).all()
    size = [int(x) << 1 & 0xFFFF for x in (*lo, *hi)]
    assert got == min([0xFFFF, *(x - 1 & 0xFFFF for x in size)]) << 16 | max([0, *size])


@given(n=st.integers(0, 40), at=st.integers(0, 39),
       bits=st.sampled_from([0, 1 << 31, 1, CALM << 23, (CALM << 23) - 1, 254 << 23, 255 << 23, 0xFF800001]))
def test_calm_numbers(n, at, bits):
    words = np.full(40, 0x3F800000, np.uint32)
    words[at] = bits
    assert both(run_calm, words, (0,), (n,))[0] == int(at >= n or bits in (0, CALM << 23, 254 << 23))


@pytest.mark.skipif(not Engine().bound["AMX"], reason="the host has no AMX for bf16")
@pytest.mark.parametrize(("steps", "pitch"), [(1, 128), (3, 256)])
def test_block_of_pairs(steps, pitch):
    rng = np.random.default_rng(steps)
    words = rng.standard_normal(2 * 32 * 64 + 64 * steps).astype(np.float32)
    pairs = (rng.standard_normal(128 * steps).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    words[32 * 64:32 * 64 + 64 * steps] = pairs.view(np.float32)
    both(run_tile_block, words, (0, 4 * 32 * 64, 4 * 32 * 64 + 128), (pitch, 256, steps))


@pytest.mark.parametrize("x", [1, 7, 1 << 60])
def test_hand_over(x):
    idle = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value
    assert both(run_hand_over, np.zeros(4, np.int64), (8,), (x, idle))[0] == x


@given(data=st.data(), n=st.integers(1, 32))
def test_choice_among_warps(data, n):
    """The least key, and per slot the least time of the others; then the chosen warp has place 0 and the rest keep their order."""
    time = st.integers(0, 9) | st.just(1 << 52)
    ready = data.draw(st.lists(time, min_size=n, max_size=n)) + [1 << 52] * (32 - n)
    units = data.draw(st.lists(st.integers(0, 5), min_size=32, max_size=32))
    room = data.draw(st.lists(st.integers(0, 9), min_size=8, max_size=8))
    lanes = n + 7 & -8
    places = [*data.draw(st.permutations(range(lanes))), *range(lanes, 32)]
    tags = [place << 5 | i for i, place in enumerate(places)]
    start = np.array([*ready, *units, *tags, *room, 0, 0], np.int64)
    key, after = both(run_soonest, start, (0, 256, 512, 768, 832), (n,))
    if n <= 8:
        assert both(run_soonest_of_8, start, (0, 256, 512, 768, 832), (n,))[0] == key
    issue = [max(ready[i], room[units[i]]) for i in range(lanes)]
    best = min(range(lanes), key=lambda i: (issue[i], places[i]))
    assert key == issue[best] << TAG_BITS | tags[best]
    for slot, got in enumerate(after[-2:]):
        others = [issue[i] for i in range(lanes) if i != best and (units[i] > 0) == slot]
        assert got == min(others, default=(1 << 63) - 1)
    if places[best]:
        _, moved = both(run_promote, after, (512,), (tags[best], n))
        order = sorted(range(lanes), key=lambda i: places[i])
        order.remove(best)
        assert [int(t) for t in sorted(moved[64:64 + lanes])] == [place << 5 | i for place, i in enumerate([best, *order[1:], order[0]])]


@given(times=TIMES, n=st.integers(0, 7), x=st.integers(0, 1 << 40), least=st.integers(0, 1 << 40))
def test_one_of_eight(times, n, x, least):
    want = times.copy()
    want[8 + n] = x
    assert (both(run_put, times, (0,), (8 + n, x))[1] == want).all()
    want[8:16] = np.maximum(times[8:16], least)
    want[8 + n] = x
    assert (both(run_claim, times, (64,), (n, x, least))[1] == want).all()
