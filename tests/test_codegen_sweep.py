"""Machine code for every VLEN, TE and dtype: LLVM in the worker lives through it, every instruction is one of our rows, and the listing has what
correctness and speed need: a reload after each wait, no spilled vectors, a short inner loop."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from rvgpu.codegen_rvgpu import worker
from rvgpu.codegen_rvgpu.llvm_ops import emit_llvm
from rvgpu.codegen_rvgpu.worker import WORKER, Worker
from rvgpu.errors import EXIT_INTERNAL, RvgpuError
from rvgpu.ir.dims import Dim
from rvgpu.ir.shapes import accumulator
from rvgpu.ir.tile_build import CMPS, K, KFunc, KTensor
from rvgpu.ir.tile_ops import K_OPS
from rvgpu.ir.tile_verify import verify_kernel
from rvgpu.ir.types import DType
from rvgpu.isa.codec import decode, disasm
from rvgpu.runtime.kernel import Kernel, kernel
from rvgpu.sim.elf import BASE, link
from tests.test_zoo import ZOO

SHAPES = [(vlen, te) for vlen in (128, 256, 512, 1024) for te in (vlen // 32, vlen // 16, vlen // 8, vlen // 4) if te >= 4]
INT8 = "def f(a: i8[M, K], sa: f32[M], b: i8[K, N], sb: f32[N]) -> bf16[M, N]:\n    acc: i32 = a @ b\n    return f32(acc) * sa * sb"
FP8 = "def f(a: e4m3[M, K], b: e4m3[K, N]) -> bf16[M, N]:\n    return a @ b"
# vector spill stores of attention by VLEN / TE, outside the inner loops: lane numbers that only blocks at the mask's edge need, and at VLEN / 4,
# where a vector is a quarter of the registers, what a loop carries
MOST_SPILLS = {32: 1, 16: 3, 8: 6, 4: 12}
MOST_RELOADS = {32: 0, 16: 0, 8: 0, 4: 7}  # in an inner loop
GEMM = {"M": 512, "N": 512, "K": 512}
HEADS = {"B": 1, "G": 2, "R": 4, "S": 128, "T": 128, "D": 64}


def listing(k, vlen, te, dims, **overrides):
    """(mnemonic, text) of every instruction of the program."""
    return decoded(k.compile("base", overrides={"vector.vlen": vlen, "vector.dlen": min(vlen, 512), "matrix.te": te, **overrides}).code(dims).image())


def decoded(image):
    at, end, out = image.text[0], image.text[0] + image.text[1], Listing()
    while at < end:
        word = int.from_bytes(image.data[at - BASE:at - BASE + 4], "little")
        d = decode(word)
        assert d is not None, f"{at:#x}: {word:#x} is no row"
        out.starts[at] = len(out)
        out.append((d.row.name, disasm(d, at)))
        at += d.size
    return out


class Listing(list):
    """Pairs (mnemonic, text), and the index of the instruction at each address."""

    def __init__(self):
        super().__init__()
        self.starts = {}

    def inner_loops(self):
        """The bodies of the loops around an `sf.mm` that hold no smaller such loop."""
        loops = []
        for n, (name, text) in enumerate(self):
            to = self.starts[int(text.split(", ")[-1], 0)] if re.fullmatch("b(ne|eq|lt|ge)u?", name) else n + 1
            if to <= n and any(x.startswith("sf.mm.") for x, _ in self[to:n + 1]):
                loops.append((to, n + 1))
        return [self[a:b] for a, b in loops if not any((c, d) != (a, b) and a <= c and d <= b for c, d in loops)]


def spills(lines):
    """Whole-register stores: how LLVM spills vectors (our emitters make none)."""
    return [t for n, t in lines if re.fullmatch(r"vs[1248]r\.v", n)]


def reloads(lines):
    """Whole-register loads of bytes: spilled vectors coming back (operands of products are loaded as what they are)."""
    return [t for n, t in lines if re.fullmatch(r"vl[1248]r(e8)?\.v", n)]


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "i8", "e4m3"])
@pytest.mark.parametrize("vlen,te", SHAPES)
def test_gemm(vlen, te, dtype):
    k = kernel(INT8) if dtype == "i8" else kernel(FP8) if dtype == "e4m3" else Kernel(ZOO["gemm"], {"bf16": dtype})
    lines = listing(k, vlen, te, GEMM)
    assert any(n.startswith("sf.mm.") for n, _ in lines)
    assert not spills(lines)


@pytest.mark.parametrize("vlen,te", SHAPES)
def test_gemm_with_an_epilogue(vlen, te):
    """erf on every result costs registers after the products, none between them."""
    inner = listing(Kernel(ZOO["gemm_bias_gelu"], {}), vlen, te, GEMM).inner_loops()
    assert len(inner) in (2, 3) and not any(spills(body) or reloads(body) for body in inner)  # whole tiles and the ways in which they are ragged


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("vlen,te", SHAPES)
def test_attention(vlen, te, dtype):
    k = Kernel(ZOO["attention"], {"bf16": dtype})
    lines = listing(k, vlen, te, HEADS)
    assert sum(n.startswith("sf.mm.") for n, _ in lines) >= 2 and any(n == "sf.vfexp.v" for n, _ in lines)
    assert len(spills(lines)) <= MOST_SPILLS[vlen // te]
    # scores (twice where warps lag), and what they weigh; the loop over blocks may look like another, with a left-over row
    inner = sorted({len(body): body for body in lines.inner_loops()}.values(), key=len)[:2]
    assert len(inner) == 2
    for body in inner:
        assert len(spills(body)) <= (0 if vlen // te >= 8 else 2) and len(reloads(body)) <= MOST_RELOADS[vlen // te]


# -- every op of level K

FLOATS, INTS = (DType.f32, DType.f16, DType.bf16), (DType.i32, DType.i16, DType.i8, DType.u8)
ON_FLOATS = ("neg", "abs", "sqrt", "rsqrt", "exp", "exp2", "log", "log2", "tanh", "erf", "floor", "round")
UNUSED = {"ctas", "warp", "warps", "s.pow", "vt.pow"}  # plain values; `pow` is expanded (no kernel has it at level K)


def tensors(k, *dtypes):
    """An input and an output of each dtype, rank 2 with the strides (N, 1)."""
    n, one = k.dim("N"), k.const(1)
    return [tuple(k.mem_arg(f"{way}{d}", d, [n, n], [n, one]) for way in "xy") for d in dtypes]


def func(name, vlen, te, dtypes):
    dims = (Dim.of("N"), Dim.of("N"))
    made = [KTensor(f"{way}{d}", d, dims, way == "y") for way in "xy" for d in dtypes]
    return KFunc(name, made, [("s", DType.f32), ("n", DType.i32)], ["N"], 4, vlen=vlen, te=te)


def matrix_ops(vlen, te, dtype):
    """Every matrix op: zeroed, read and written by rows and columns, an operand loaded and one packed, a product alone in its loop."""
    f = func("matrix", vlen, te, [dtype, accumulator(dtype)] if accumulator(dtype) != dtype else [dtype])
    k = K(f)
    wide = accumulator(dtype)
    ((x, y), (_, out)) = tensors(k, dtype, wide)
    n, size = k.dim("N"), k.special("te")
    vl, depth = k.idx("min", n, size), 32 // dtype.bits
    a, b = k.acc_alloc(wide), k.acc_alloc(wide)
    k.acc_zero(a, size, size)

    def step(i, _):
        left = k.opnd_load(k.mem_at(x, [i, k.const(0)]), depth, vl, k_axis=0, lane_axis=1)
        rows = [k.load(k.mem_at(y, [k.idx("add", i, r), k.const(0)]), vl, axis=1, lanes=te) for r in range(depth)]
        k.mma(a, left, k.opnd_pack(rows), vl, vl)
        return []

    k.for_(0, n, depth, [], step)
    one = k.opnd_load(x, depth, vl, k_axis=0, lane_axis=1)
    k.for_(0, n, depth, [], lambda i, _: k.mma(b, one, one, vl, vl) or [])  # LLVM aborts on such a loop without an RVV op before it

    def move(i, _):
        k.acc_write(b, i, k.acc_read(a, i, vl, axis="row"), vl, axis="col")
        k.acc_write(a, i, k.acc_read(b, i, vl, axis="col"), vl, axis="row")
        k.store(k.mem_at(out, [i, k.const(0)]), k.acc_read(a, i, vl, axis="row"), vl, axis=1)
        return []

    k.for_(0, size, 1, [], move)
    return f


def lane_ops(vlen, te, dtypes):
    """Every op on lanes and on scalars, on rows of TE lanes of each dtype, unit-stride and strided."""
    f = func("lanes", vlen, te, dtypes)
    k = K(f)
    n = k.dim("N")
    vl = k.idx("max", k.idx("min", k.idx("rem", k.idx("div", k.idx("mul", n, 3), 4), 64), te), 1)
    k.idx_select(k.cmp("lt", n, 5), n, k.idx("sub", n, vl))
    every = te * 8 == vlen  # scalars do not depend on the shape, and functions of small floats are those of f32 between two casts
    for x, y in tensors(k, *dtypes):
        d = x.type.dtype
        at = iter(range(1 << 20))

        def put(v, y=y, vl=vl, at=at):
            k.store(k.mem_at(y, [k.const(next(at)), k.const(0)]), v, vl, axis=1)

        def keep(v, y=y, at=at):
            k.s_store(k.mem_at(y, [k.const(next(at)), k.const(0)]), v)

        p = k.load(x, vl, axis=1, lanes=te)
        q = k.load(k.mem_at(x, [k.const(1), k.const(0)]), vl, axis=0, lanes=te)
        s = k.s_load(k.mem_at(x, [k.const(2), k.const(0)]))
        t = k.s_cast(k.scalar("s", DType.f32) if d.is_float else k.scalar("n", DType.i32), d)
        k.store(k.mem_at(y, [k.const(next(at)), k.const(0)]), p, vl, axis=0)
        unary = ON_FLOATS[:None if every or d == DType.f32 else 5] if d.is_float else ("neg", "abs") * (d != DType.u8)
        binary = "add sub mul div max min".split() + ["mod"] * (not d.is_float)
        for name in unary:
            put(k.vt(name, p, vl=vl))
            if every:
                keep(k.s(name, s))
        for name in binary:
            put(k.vt(name, p, q, vl=vl))
            put(k.vt(name, p, t, vl=vl))
            keep(k.s(name, s, t))
        for name in ("sub", "div"):
            put(k.vt(name, s, p, vl=vl))
        masks = [k.vt(name, p, (q, t)[j % 2], vl=vl) for j, name in enumerate([*sorted(CMPS), *sorted(CMPS, reverse=True)])]
        flags = [k.s(name, s, t) for name in sorted(CMPS)]
        some = k.vt("not", masks[0], vl=vl)
        for j, m in enumerate(masks[1:]):
            some = k.vt(("and", "or")[j % 2], some, m, vl=vl)
        flag = k.s("or", k.s("not", k.vote("all", some, vl)), k.s("and", k.vote("any", some, vl), flags[0]))
        for other in flags[1:]:
            flag = k.s("and", flag, other)
        put(k.select(some, p, t, vl))
        put(k.select(some, t, q, vl))
        keep(k.s("select", flag, s, t, dtype=d))
        put(k.select(k.bcast(flag, vl, te), p, q, vl))
        if d.is_float:
            put(k.vt("exp", p, vl=vl, anchored=True))
            put(k.vt("fma", p, q, p, vl=vl))
            put(k.vt("fma", p, s, q, vl=vl))
            put(k.vt("fms", p, s, q, vl=vl))
            keep(k.s("fma", s, t, s))
        put(k.masked_load(x, some, vl, axis=1))
        put(k.masked_load(x, some, vl, axis=0))
        put(k.gather(x, k.iota(vl, te), vl))
        put(k.bcast(s, vl, te))
        put(k.tail(p, s, k.idx("div", vl, 2), vl))
        if d is DType.i8:  # bytes of two 4-bit numbers, twice the lanes
            both = k.load(x, vl, axis=1, lanes=2 * te)
            for j in (0, 1):
                put(k.part(k.nibble(both, j, vl), j))
        for j in (0, 1):
            put(k.part(k.join([p, q]), j))
        for op in ("sum", "max", "min") if d.bits == 32 else ("max", "min"):
            keep(k.xred(op, p, vl))
        for to in (DType.f32, DType.f16, DType.bf16, DType.i32, DType.i16, DType.i8, DType.u8, DType.i1):
            put(k.cast(k.cast(p, to, vl), d, vl))
            keep(k.s_cast(k.s_cast(s, to), d))
        put(k.cast(k.iota(vl, te), d, vl))
        keep(k.s_cast(k.s_from_idx(n), d))
        if not d.is_float:
            keep(k.s_cast(k.s_from_idx(k.idx_from_s(s)), d))
        keep(k.sconst(3, d))
        k.if_(flag, lambda keep=keep, s=s: keep(s) or [], lambda keep=keep, t=t: keep(t) or [])
    return f


def dma_ops(vlen, te):
    """A load before and one after a wait, straight-line and in a loop; both transfers and the barrier."""
    f = func("moves", vlen, te, [DType.f32, DType.i32])
    k = K(f)
    (x, y), (ids, _) = tensors(k, DType.f32, DType.i32)
    size, one, zero = k.const(te), k.const(1), k.const(0)
    buffer = k.spm_alloc(DType.f32, [size, size], [size, one], name="buffer", size_bytes=4 * te * te)
    buffer.op.attrs["offset_bytes"], f.spm_bytes = 0, 4 * te * te
    vl = k.idx("min", k.special("te"), k.dim("N"))

    def fetch():
        k.dma_load(buffer, x, vl, vl, vl, vl, src_axes=(0, 1), dst_axes=(0, 1))
        k.dma_wait(0)
        return k.load(buffer, vl, axis=1, lanes=te)

    total = k.vt("add", k.load(buffer, vl, axis=1, lanes=te), fetch(), vl=vl)
    (total,) = k.for_(0, k.dim("N"), 1, [total], lambda i, c: [k.vt("add", c[0], fetch(), vl=vl)])
    k.store(k.mem_at(y, [k.special("cta"), zero]), total, vl, axis=1)
    k.bar(1)
    k.dma_load(buffer, x, vl, vl, vl, vl, src_axes=(0, 1), dst_axes=(0, 1), index=ids)
    k.dma_wait(0)
    k.dma_store(y, k.spm_view(buffer, DType.f32, [size, size], [size, one]), vl, vl, src_axes=(0, 1), dst_axes=(0, 1))
    return f


def op_names(block):
    return {op.name for op in block.walk()}


@pytest.mark.parametrize("dtype", [DType.bf16, DType.f16, DType.f32, DType.i8, DType.u8], ids=str)
@pytest.mark.parametrize("vlen,te", SHAPES)
def test_matrix_ops(vlen, te, dtype):
    code = WORKER.compile(emit_llvm(matrix_ops(vlen, te, dtype)), vlen)
    names = [n for n, _ in decoded(link([code.object]))]
    assert sum(n.startswith("sf.mm.") for n in names) == 2 and {"sf.vtzero.t", "sf.vtmv.v.t", "sf.vtmv.t.v"} <= set(names)


@pytest.mark.parametrize("vlen,te", SHAPES)
def test_lane_ops(vlen, te):
    exp = (vlen // te).bit_length() % 2 == (vlen.bit_length() % 2)  # each LMUL with and without the unit
    code = WORKER.compile(emit_llvm(lane_ops(vlen, te, [*FLOATS, *INTS]), has_exp=exp), vlen)
    assert any(n == "sf.vfexp.v" for n, _ in decoded(link([code.object]))) == exp


@pytest.mark.parametrize("vlen,te", SHAPES)
def test_a_load_after_a_wait_is_made_again(vlen, te):
    """What LLVM must not do (docs of the design: a silent miscompile): take the earlier load's value over the wait."""
    names = [n for n, _ in decoded(link([WORKER.compile(emit_llvm(dma_ops(vlen, te)), vlen).object]))]
    order = [n for n in names if n in ("vle32.v", "amoswap.d") or n.startswith(("vl1re", "vl2re", "vl4re", "vl8re"))]
    kinds = "".join("L" if n.startswith("vl") else "w" for n in order)
    assert kinds.startswith("LwwLwwL"), kinds  # GO and WAIT, then the load: straight-line, then in the loop


def test_every_op_has_code():
    used = set()
    for f in (matrix_ops(512, 64, DType.bf16), lane_ops(512, 64, [*FLOATS, *INTS]), dma_ops(512, 64)):
        verify_kernel(f, 1 << 18)
        used |= op_names(f.body)
    assert set(K_OPS) - used == UNUSED


@pytest.mark.parametrize("exp", [True, False], ids=["exp unit", "polynomial"])
@pytest.mark.parametrize("vlen", [128, 256, 512, 1024])
def test_rows(vlen, exp):
    for name, dims in (("row_softmax", {"M": 64, "N": 1000}), ("rmsnorm", {"T": 64, "D": 1000}), ("rope", {"B": 1, "S": 64, "H": 2, "F": 32})):
        lines = listing(Kernel(ZOO[name], {}), vlen, vlen // 8, dims, **{"exp.present": exp})
        assert any(n == "sf.vfexp.v" for n, _ in lines) == (exp and name == "row_softmax")
        # a row of 1000 stands in registers: at most one group of them goes to the stack, once a row; a run of RoPE at VLEN 128 is all of them
        assert len(spills(lines)) <= (4 if name == "rope" and vlen == 128 or name == "row_softmax" and not exp else 1)
        assert not any(spills(body) for body in lines.inner_loops())


@pytest.mark.parametrize("dims", [{"M": 1024, "N": 1024, "K": 1024}, {"M": 1000, "N": 777, "K": 513}], ids=["whole tiles", "ragged"])
def test_inner_loop_of_the_gemm(dims):
    """At most 40 instructions for a step of 2 x 2 whole tiles (41 in the variant for masked edges), 38 for one of 1 x 3 and 21 for one of 1 x 2, no
    spill and no reload: no stack in the loop."""
    lines = listing(Kernel(ZOO["gemm"], tune="model"), 512, 64, dims)  # whatever tilings the table has
    inner = lines.inner_loops()
    assert inner
    for body in inner:
        assert len(body) <= {4: 41, 3: 38, 2: 21}[sum(x == "sf.mm.f.f" for x, _ in body)], body
    assert not any("(sp)" in t for body in inner for _, t in body)


WAIT = """target datalayout = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
target triple = "riscv64-unknown-none-elf"
define void @k(ptr %args, i64 %cta, i64 %warp, ptr %ctl, ptr %spm) #0 {{
entry:
{body}
}}
declare <vscale x 2 x float> @llvm.riscv.vle.nxv2f32.p0.i64(<vscale x 2 x float>, ptr, i64)
declare <vscale x 2 x float> @llvm.riscv.vfadd.nxv2f32.nxv2f32.i64(<vscale x 2 x float>, <vscale x 2 x float>, <vscale x 2 x float>, i64, i64)
declare void @llvm.riscv.vse.nxv2f32.p0.i64(<vscale x 2 x float>, ptr, i64)
attributes #0 = {{ "no-builtins" "no-jump-tables"="true" nounwind vscale_range(8,8) }}
"""
LOAD = "call <vscale x 2 x float> @llvm.riscv.vle.nxv2f32.p0.i64(<vscale x 2 x float> poison, ptr %spm, i64 8)"
SWAP = "%w{n} = getelementptr i8, ptr %ctl, i64 144\n  %t{n} = atomicrmw volatile xchg ptr %w{n}, i64 1 seq_cst"
ADD = ("call <vscale x 2 x float> @llvm.riscv.vfadd.nxv2f32.nxv2f32.i64(<vscale x 2 x float> poison, <vscale x 2 x float> {a}, "
       "<vscale x 2 x float> {b}, i64 7, i64 8)")
STORE = "call void @llvm.riscv.vse.nxv2f32.p0.i64(<vscale x 2 x float> {x}, ptr %args, i64 8)\n  ret void"
STRAIGHT = f"  %a = {LOAD}\n  {SWAP.format(n=1)}\n  %b = {LOAD}\n  %c = {ADD.format(a='%a', b='%b')}\n  {STORE.format(x='%c')}"
LOOP = (f"  %first = {LOAD}\n  br label %head\nhead:\n  %i = phi i64 [0, %entry], [%j, %head]\n"
        "  %s = phi <vscale x 2 x float> [%first, %entry], [%c, %head]\n"
        f"  {SWAP.format(n=1)}\n  %b = {LOAD}\n  %c = {ADD.format(a='%s', b='%b')}\n  %j = add i64 %i, 1\n  %more = icmp slt i64 %j, %cta\n"
        f"  br i1 %more, label %head, label %done\ndone:\n  {STORE.format(x='%c')}")


@pytest.mark.parametrize("body", [STRAIGHT, LOOP], ids=["straight", "loop"])
def test_a_load_after_a_wait_stays(body):
    """What DMA writes is loaded again after the wait: the swap on the control page is no `noalias` neighbour of the scratchpad."""
    asm = WORKER.compile(module(body), 512).asm
    order = re.findall(r"\b(vle32\.v|amoswap)", asm)
    assert order == ["vle32.v", "amoswap", "vle32.v"], asm


def module(body):
    return WAIT.format(body=body)


LIVES = "  ret void"
DIES = """  br label %head
head:
  %i = phi i64 [0, %entry], [%j, %head]
  call void asm sideeffect "vadd.vv v0, v0, v0", ""()
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %cta
  br i1 %more, label %head, label %done
done:
  ret void"""


@pytest.fixture
def reproducer():
    """What a failure must be: an internal error that names a file with the module. The file goes away."""
    made = []

    def check(e):
        assert e.exit_code == EXIT_INTERNAL and e.code == "E900" and e.message.removeprefix("internal error in code generation:").strip()
        path = re.search(r"reproducer: (\S+)", e.render())
        assert path
        made.append(Path(path[1]))
        assert "define void @k" in made[0].read_text()

    yield check
    for p in made:
        p.unlink()


def test_an_abort_of_llvm_is_an_error_with_a_reproducer(reproducer):
    """Inline assembly kills llvmlite's RISC-V back end; the user's process lives, and the next module compiles in a new worker."""
    WORKER.compile(module(LIVES), 512)
    before = WORKER.process
    for _ in range(2):
        with pytest.raises(RvgpuError) as e:
            WORKER.compile(module(DIES), 512)
        reproducer(e.value)
        assert before.poll() not in (None, 0)
        assert "ret" in WORKER.compile(module(LIVES), 512).asm
        assert WORKER.process.pid != before.pid
        before = WORKER.process


def test_what_llvm_reports_is_an_error_with_a_reproducer(reproducer):
    """Here the worker lives on."""
    WORKER.compile(module(LIVES), 512)
    before = WORKER.process
    with pytest.raises(RvgpuError, match="undefined value") as e:
        WORKER.compile(module("  %x = add i64 %nothing, 1\n  ret void"), 512)
    reproducer(e.value)
    assert WORKER.process is before and "ret" in WORKER.compile(module(LIVES), 512).asm


def test_a_worker_that_does_not_answer(monkeypatch, reproducer):
    w = Worker()
    w.compile(module(LIVES), 512)
    monkeypatch.setattr(worker, "TIMEOUT_S", 0.2)
    os.kill(w.process.pid, signal.SIGSTOP)
    with pytest.raises(RvgpuError, match=r"no answer in 0\.2 s") as e:
        w.compile(module(LIVES), 512)
    reproducer(e.value)
    w.stop()


def test_an_interrupted_compile_leaves_no_answer_behind(monkeypatch):
    """The answer of a request that was given up is not taken for the next one's."""
    w = Worker()
    w.compile(module(LIVES), 512)
    with monkeypatch.context() as m:
        m.setattr(worker, "receive", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            w.compile(module(STRAIGHT), 512)
    assert "amoswap" not in w.compile(module(LIVES), 512).asm
    w.stop()
