"""The Perfetto trace, read back with Perfetto's own message types: its sums are the run's numbers."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from rvgpu.runtime.inputs import random_inputs
from rvgpu.runtime.kernel import Kernel, load_file
from rvgpu.sim.control import UNIT_DMA
from rvgpu.sim.state import CAUSE, CAUSES
from rvgpu.sim.trace import SEQUENCE, UNIT_NAMES, Slice, Trace

pb = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
DIMS = {"M": 70, "N": 50, "K": 90}


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    kernel = Kernel(load_file("examples/zoo.rvg")["gemm_bias_gelu"])
    r = kernel.compile("base").run(*random_inputs(kernel.func, DIMS))
    path = tmp_path_factory.mktemp("trace") / "t.pftrace"
    r.trace(str(path))
    return r, path


def read(path):
    """(tracks by uuid, slices by track name) of a trace file."""
    trace = pb.Trace()
    trace.ParseFromString(path.read_bytes())
    process, tracks, names, open_, slices = {}, {}, {}, defaultdict(list), defaultdict(list)
    for p in trace.packet:
        assert p.trusted_packet_sequence_id == SEQUENCE
        if p.HasField("track_descriptor"):
            d = p.track_descriptor
            if d.HasField("process"):
                process[d.uuid] = d.process.process_name
            else:
                tracks[d.uuid] = f"{process[d.parent_uuid]} {d.name}"
        for n in p.interned_data.event_names:
            names[n.iid] = n.name
        if p.HasField("track_event"):
            e = p.track_event
            if e.type == e.TYPE_SLICE_BEGIN:
                open_[e.track_uuid].append((names[e.name_iid], p.timestamp))
            else:
                name, start = open_[e.track_uuid].pop()
                slices[tracks[e.track_uuid]].append(Slice(tracks[e.track_uuid], name, start, p.timestamp))
    assert not any(open_.values())
    return slices


def one_by_one(trace):
    """The slices, event by event."""
    last, lanes = {}, {}
    for pc, core, warp, ready, cause, at, unit, start, end in trace.events.tolist():
        if unit == UNIT_DMA:
            free = lanes.setdefault(core, [])
            n = next((i for i, t in enumerate(free) if t <= start), len(free))
            free[n:n + 1] = [end]
            yield Slice(f"core {core} dma {n}", f"transfer by warp {warp}", start, end)
            continue
        name, track, before = trace.mnemonic(pc), f"core {core} warp {warp}", last.get((core, warp))
        if before is not None and at > before:
            ready = min(max(ready, before), at)
            yield from (s for s in (Slice(track, CAUSES[cause], before, ready), Slice(track, "unit", ready, at)) if s.end > s.start)
        if before is None or at + 1 > before:  # two instructions of one cycle (two slots): one slice
            yield Slice(track, name, at, at + 1)
            last[core, warp] = at + 1
        if unit in UNIT_NAMES and end > start:
            yield Slice(f"core {core} {UNIT_NAMES[unit]}", name, start, end)


def test_what_is_read_is_what_was_recorded(traced):
    r, path = traced
    by_track = defaultdict(list)
    for s in one_by_one(r.traced()):
        by_track[s.track].append(s)
    assert dict(read(path)) == dict(by_track)
    again = defaultdict(list)
    for s in r.traced().slices():
        again[s.track].append(s)
    assert again == by_track


def test_warp_slices_tile_time(traced):
    r, path = traced
    warps = {t: s for t, s in read(path).items() if " warp " in t}
    assert len(warps) == 32
    for slices in warps.values():
        for a, b in zip(slices, slices[1:], strict=False):
            assert a.end == b.start, (a, b)
        assert slices[-1].end <= r.cycles


def test_unit_slices_sum_to_the_run_s_busy_cycles(traced):
    r, path = traced
    total = defaultdict(int)
    for track, slices in read(path).items():
        assert all(a.end <= b.start for a, b in zip(slices, slices[1:], strict=False)), track
        total[" ".join(track.split()[2:])] += sum(s.end - s.start for s in slices)
    core_cycles = 8 * r.cycles
    for name, key in (("matrix", "matrix"), ("vector", "vector"), ("exp", "exp"), ("vector memory", "memory"), ("tile port", "tile")):
        assert total[name] == round(r.raw.busy[key] * core_cycles), name
    instructions = sum(s.name not in CAUSE for t, ss in read(path).items() if " warp " in t for s in ss)
    assert r.raw.instructions * 0.5 < instructions <= r.raw.instructions


def test_dma_slices(traced):
    _, path = traced
    transfers = [s for t, ss in read(path).items() if " dma " in t for s in ss]
    assert transfers and all(s.end >= s.start and s.name.startswith("transfer by warp") for s in transfers)


def test_same_run_same_trace(traced, tmp_path):
    r, path = traced
    r.trace(str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_full_buffer_says_so():
    t = Trace(np.array([[0x80000000, 0, 0, 5, 0, 5, 0, 5, 6]]), 3, lambda pc: "addi", lambda pc: ("addi a0, a0, 1", ""))
    assert list(t.slices()) == [Slice("core 0 warp 0", "addi", 5, 6)] and t.dropped == 3
