"""Level K: what the passes make verifies and prints back; each way to break a kernel is named; the evaluator's barriers and DMA."""

from __future__ import annotations

import numpy as np
import pytest

from rvgpu.ir.bounds import compare, reference
from rvgpu.ir.core import Op, Value
from rvgpu.ir.dims import Dim
from rvgpu.ir.numeric import numpy_dtype, round_to
from rvgpu.ir.parse import parse_kernel
from rvgpu.ir.text import print_func, same
from rvgpu.ir.tile_build import K, KFunc, KTensor
from rvgpu.ir.tile_eval import Deadlock, multiply, run_kernel
from rvgpu.ir.tile_ops import K_OPS
from rvgpu.ir.tile_verify import verify_kernel
from rvgpu.ir.types import DType, OpndType, ScalarType, VecType
from rvgpu.ir.verify import VerifyError, verify
from rvgpu.passes.context import Context
from rvgpu.passes.pipeline import PIPELINE, run_passes
from tests import level_t, streams
from tests.test_lowering import SPM, facts

F32 = DType.f32
SIZES = {"M": 9, "N": 11, "K": 13, "B": 1, "G": 2, "R": 2, "S": 5, "T": 17, "D": 8}


def stages(func):
    """The kernel after each pass from P7 to P9."""
    upper = {n: 1 << (v - 1).bit_length() for n, v in SIZES.items()}
    context = Context(facts(8, 128, 2), {"D": 8}, upper)
    for p in PIPELINE[5:]:
        func, = run_passes([func], [p], context)
        yield func


@pytest.mark.parametrize("func", [streams.gemm(bias=True), streams.softmax(), streams.attention(lse=True)], ids=lambda f: f.name)
def test_what_the_passes_make(func):
    for kf in stages(func):
        verify_kernel(kf, SPM)
        text = print_func(kf)
        again = parse_kernel(text)
        assert print_func(again) == text and same(kf, again)
        verify_kernel(again, SPM)
    with pytest.raises(VerifyError, match="bytes of scratchpad, the machine has 64"):
        verify_kernel(kf, 64)


def test_a_parsed_kernel_runs_the_same():
    *_, kf = stages(streams.softmax())
    x = np.random.default_rng(0).standard_normal((9, 11)).astype(np.float32)
    outs = []
    for k in (kf, parse_kernel(print_func(kf))):
        out = np.zeros_like(x)
        run_kernel(k, {"x": x, "out": out}, {}, {"M": 9, "N": 11}, ctas=2)
        outs.append(out)
    assert (outs[0] == outs[1]).all() and np.allclose(outs[0].sum(1), 1)


def kernel(warps=2):
    m = (Dim.of("M"),)
    f = KFunc("k", [KTensor("x", F32, m), KTensor("out", F32, m, True)], [("scale", F32)], ["M"], warps, te=4, vlen=128)
    return f, K(f)


def vector(name, k):
    return k.mem_arg(name, F32, [k.dim("M")], [k.const(1)])


def scaled():
    """out = x * scale, by way of the scratchpad."""
    f, k = kernel()
    m, zero = k.dim("M"), k.const(0)
    buffer = k.spm_alloc(F32, [m, k.const(1)], [k.const(1), k.const(1)], name="b", size_bytes=64)
    src = k.mem_arg("x", F32, [m, k.const(1)], [k.const(1), k.const(1)])
    k.dma_load(buffer, src, m, k.const(1), m, k.const(1), src_axes=(0, 1), dst_axes=(0, 1))
    k.dma_wait(0)
    k.bar()
    row = k.load(k.mem_at(buffer, [zero, zero]), m, axis=0, lanes=16)
    k.store(vector("out", k), k.vt("mul", row, k.scalar("scale", F32), vl=m), m, axis=0)
    f.spm_bytes = 64
    next(op for op in f.body.ops if op.name == "spm.alloc").attrs["offset_bytes"] = 0
    return f, k


def find(f, name):
    return next(op for op in f.body.walk() if op.name == name)


def test_the_small_kernel():
    f, _ = scaled()
    verify_kernel(f, 64)
    x, out = np.arange(7, dtype=np.float32), np.zeros(7, np.float32)
    run_kernel(f, {"x": x, "out": out}, {"scale": 2.0}, {"M": 7})
    assert (out == 2 * x).all()


def early(f, k):
    f.body.ops.remove(find(f, "dma.wait"))


def bfloat_scale(f, k):
    find(f, "scalar").results[0].type = ScalarType(DType.bf16)


def no_such_tensor(f, k):
    find(f, "mem.arg").attrs["name"] = "y"


def wide_result(f, k):
    find(f, "vt.mul").results[0].type = VecType(32, F32)


def no_axis(f, k):
    find(f, "vt.load").attrs["axis"] = 2


def one_index(f, k):
    find(f, "mem.at").operands.pop()


def spm_to_spm(f, k):
    op = find(f, "dma.load")
    op.operands[1] = op.operands[0]


def same_axes(f, k):
    find(f, "dma.load").attrs["dst_axes"] = (0, 0)


def mistyped(f, k):
    find(f, "vt.mul").name = "vt.mull"


def use_first(f, k):
    f.body.ops.insert(0, f.body.ops.pop())


def two_buffers(f, k):
    z = k.const(0)
    k.emit("spm.alloc", [z, z], [find(f, "spm.alloc").results[0].type.__class__("spm", 1, F32)], name="c", size_bytes=8, per_warp=False,
           offset_bytes=60)


def five_accs(f, k):
    for _ in range(5):
        k.acc_alloc()


def warp_bar(f, k):
    k.if_(k.cmp("eq", k.special("warp"), 0), lambda: [k.bar()][:0])


def warp_loop_bar(f, k):
    """The trip count is carried out of a loop in which it grew by `warp`."""
    n, = k.for_(0, 3, 1, [k.const(0)], lambda i, c: [k.idx("add", c[0], k.special("warp"))])
    k.for_(0, n, 1, [], lambda i, c: [k.bar()][:0])


def acc_vote_bar(f, k):
    vl = k.const(4)
    row = k.acc_read(k.acc_alloc(), k.const(0), vl, axis="row")
    k.if_(k.vote("any", k.vt("gt", row, k.sconst(0.0, F32), vl=vl), vl), lambda: [k.bar()][:0])


def uneven_if(f, k):
    k.if_(k.cmp("eq", k.const(0), 0), lambda: [k.const(1)], lambda: [k.sconst(1, DType.i32)])


def mixed_mma(f, k):
    vl = k.const(4)
    a = Value(OpndType(2, DType.bf16))
    b = Value(OpndType(2, DType.f16))
    for v in (a, b):
        op = Op("opnd.pack", [k.cast(k.bcast(k.sconst(1.0, F32), vl, 4), v.type.dtype, vl)] * 2)
        op.results, v.op = [v], op
        k.block.ops.append(op)
    k.mma(k.acc_alloc(), a, b, vl, vl)


def load_meets_loop_start(f, k):
    """The end of an iteration leaves a transfer under way into the view that the next one reads."""
    z, m = k.const(0), k.dim("M")
    load = find(f, "dma.load")
    view = k.mem_at(load.operands[0], [z, z])

    def body(i, c):
        k.load(view, m, axis=0, lanes=16)
        k.emit("dma.load", [view, *load.operands[1:]], [load.results[0].type], **load.attrs)
        return []

    k.for_(0, 2, 1, [], body)


@pytest.mark.parametrize("change,message", [
    (early, None), (bfloat_scale, "one dtype needed, found f32 and bf16"), (no_such_tensor, "the kernel has no mem.arg 'y'"),
    (wide_result, "vectors of one capacity needed"), (no_axis, "`axis` is an axis below 2, found 2"), (one_index, "an index per axis needed"),
    (spm_to_spm, "operand 1 is dram"), (same_axes, "`dst_axes` is two axes below 2"), (mistyped, "no level K op is called vt.mull"),
    (use_first, "used before its definition"), (two_buffers, "overlaps b, which ends at byte 64"), (five_accs, "5 accumulators, a warp has 4"),
    (warp_bar, "a barrier inside `if`"), (warp_loop_bar, "a barrier inside `for`"), (acc_vote_bar, "a barrier inside `if`"),
    (uneven_if, "region 1 yields (idx), found (i32)"), (mixed_mma, "one dtype needed, found bf16 and f16"),
    (load_meets_loop_start, "reads a buffer whose transfer was not waited for"),
], ids=lambda x: getattr(x, "__name__", ""))
def test_what_is_refused(change, message):
    f, k = scaled()
    change(f, k)
    if message is None:  # the read goes through another view: the evaluator finds it
        verify_kernel(f)
        out = np.zeros(7, np.float32)
        run_kernel(f, {"x": np.ones(7, np.float32), "out": out}, {"scale": 2.0}, {"M": 7})
        assert np.isnan(out).all()
        return
    with pytest.raises(VerifyError) as e:
        verify_kernel(f)
    assert message in str(e.value)


def test_transfers_transpose_and_land_at_their_wait():
    """x[2, 3] into the scratchpad transposed, then its rows back out; `left` transfers may still be under way."""
    dims = tuple(Dim.of(n) for n in "MN")
    f = KFunc("t", [KTensor("x", F32, dims), KTensor("out", F32, dims[::-1], True)], [], ["M", "N"], 1)
    k = K(f)
    m, n, one = k.dim("M"), k.dim("N"), k.const(1)
    buffer = k.spm_alloc(F32, [n, m], [m, one], name="b", size_bytes=24)
    find(f, "spm.alloc").attrs["offset_bytes"], f.spm_bytes = 0, 24
    k.dma_load(buffer, k.mem_arg("x", F32, [m, n], [n, one]), m, n, m, n, src_axes=(0, 1), dst_axes=(1, 0))
    k.dma_wait(0)
    out = k.mem_arg("out", F32, [n, m], [m, one])
    k.dma_store(out, buffer, n, m, src_axes=(0, 1), dst_axes=(0, 1))
    k.dma_store(out, buffer, k.const(0), m, src_axes=(0, 1), dst_axes=(0, 1))
    verify_kernel(f, 24)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for left in (None, 2, 1, 0):
        if left is not None:
            k.dma_wait(left)
        got = np.full((3, 2), 9, np.float32)
        run_kernel(f, {"x": x, "out": got}, {}, {"M": 2, "N": 3})
        assert (got == (x.T if left in (0, 1) else 9)).all()


def test_uniform_control_may_hold_barriers():
    f, k = scaled()
    k.for_(k.special("cta"), k.dim("M"), k.special("ctas"), [], lambda i, c: [k.bar()][:0])
    verify_kernel(f)


def test_deadlocks():
    f, k = kernel()
    k.if_(k.cmp("eq", k.special("warp"), 0), lambda: [k.bar()][:0])
    with pytest.raises(Deadlock, match="a warp returned while others wait"):
        run_kernel(f, {}, {}, {"M": 1})
    f, k = kernel()
    k.if_(k.cmp("eq", k.special("warp"), 0), lambda: [k.bar(0)][:0], lambda: [k.bar(1)][:0])
    with pytest.raises(Deadlock, match="different barriers"):
        run_kernel(f, {}, {}, {"M": 1})


def test_matrix_rounding():
    """16-bit: acc = RN(acc + fma(a0, b0, RN(a1 b1))); f32: acc = RN(acc + RN(a b)), k ascending; integers wrap."""
    rng = np.random.default_rng(0)
    a, b = (round_to(rng.standard_normal((2, 3)), DType.f16) for _ in range(2))
    acc = rng.standard_normal((3, 3)).astype(np.float32)
    want = acc.copy()
    for m in range(3):
        for n in range(3):
            low = np.float32(np.float64(a[1, m]) * np.float64(b[1, n]))
            want[m, n] += np.float32(np.float64(a[0, m]) * np.float64(b[0, n]) + np.float64(low))
    multiply(acc, a, b)
    assert (acc == want).all()
    big = np.full((1, 1), 2**31 - 1, np.int32)
    multiply(big, np.ones((4, 1), np.int8), np.ones((4, 1), np.int8))
    assert big[0, 0] == -(2**31) + 3


def test_scalars_and_lanes_convert_as_the_machine_does():
    f, k = kernel(1)
    m = k.dim("M")
    x = k.load(vector("x", k), m, axis=0, lanes=8)
    k.store(vector("out", k), k.cast(k.cast(x, DType.e4m3, m), F32, m), m, axis=0)
    verify_kernel(f)
    out = np.zeros(3, np.float32)
    run_kernel(f, {"x": np.array([500, -1e9, 0.3], np.float32), "out": out}, {}, {"M": 3})
    assert out.tolist() == [448, -448, 0.3125]


@pytest.mark.parametrize("name", ["gemm", "softmax", "attention"])
def test_lowered_kernels_are_within_bounds(name):
    """User's function -> P2 -> P4 -> P7..P12 -> meaning of level K, against the bounds of the unlowered function."""
    func = getattr(level_t, name)()
    sizes = {n: min(SIZES[n], 8) if n == "D" else SIZES[n] for n in func.dim_names()}
    rng = np.random.default_rng(1)
    arrays = {p.name: round_to(rng.standard_normal([d.value(sizes) for d in p.value.tensor.dims]), p.value.tensor.dtype)
              for p in func.params if not p.keyword}
    scalars = {"scale": 0.3} if name == "attention" else {}
    func.result_names = ["out"]
    (ref,), (bound,) = reference(func, arrays, scalars)
    cluster, = run_passes([func], PIPELINE[:4], Context(facts(8, 128, 2)))
    verify(cluster)
    *_, kf = stages(cluster)
    verify_kernel(kf, SPM)
    out = np.zeros(ref.shape, numpy_dtype(func.result_types[0].dtype))
    run_kernel(kf, {**arrays, "out": out}, scalars, sizes, ctas=2)
    check = compare(out, ref, bound)
    assert check.passed and check.bound_fraction > 0.05, check


def test_the_builder_s_ops_have_rows():
    used = {op.name for func in (streams.gemm(bias=True), streams.softmax(), streams.attention(lse=True))
            for kf in stages(func) for op in kf.body.walk()}
    assert used <= set(K_OPS) | {"for", "if", "yield", "grid.work", "pipe"}
