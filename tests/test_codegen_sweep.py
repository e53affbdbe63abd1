"""Machine code for every VLEN, TE and dtype: LLVM in the worker lives through it, every instruction is one of our rows, and the listing has what
correctness and speed need: a reload after each wait, no spilled vectors, a short inner loop."""

from __future__ import annotations

import re

import pytest

from rvgpu.codegen_rvgpu.worker import WORKER
from rvgpu.errors import EXIT_INTERNAL, RvgpuError
from rvgpu.isa.codec import decode, disasm
from rvgpu.runtime.kernel import Kernel, kernel
from rvgpu.sim.elf import BASE
from tests.test_zoo import ZOO

SHAPES = [(vlen, te) for vlen in (128, 256, 512, 1024) for te in (vlen // 32, vlen // 16, vlen // 8, vlen // 4) if te >= 4]
INT8 = "def f(a: i8[M, K], sa: f32[M], b: i8[K, N], sb: f32[N]) -> bf16[M, N]:\n    acc: i32 = a @ b\n    return f32(acc) * sa * sb"
MOST_SPILLS = {32: 0, 16: 2, 8: 12, 4: 22}  # vector spill stores of attention by VLEN / TE, in its prologues and epilogues too: docs/status.md
TOO_LARGE = {(512, 128, "f32"), (1024, 128, "f32"), *((1024, 256, d) for d in ("bf16", "f16", "f32"))}  # E310: no smaller staging yet
GEMM = {"M": 512, "N": 512, "K": 512}
HEADS = {"B": 1, "G": 2, "R": 4, "S": 128, "T": 128, "D": 64}


def listing(k, vlen, te, dims, **overrides):
    """(mnemonic, text) of every instruction of the program."""
    code = k.compile("base", overrides={"vector.vlen": vlen, "vector.dlen": min(vlen, 512), "matrix.te": te, **overrides}).code(dims)
    image = code.image()
    at, end, out = image.text[0], image.text[0] + image.text[1], []
    while at < end:
        word = int.from_bytes(image.data[at - BASE:at - BASE + 4], "little")
        d = decode(word)
        assert d is not None, f"{at:#x}: {word:#x} is no row"
        out.append((d.row.name, disasm(d, at)))
        at += d.size
    return out


def spills(lines):
    """Whole-register stores: how LLVM spills vectors (our emitters make none)."""
    return [t for n, t in lines if re.fullmatch(r"vs[1248]r\.v", n)]


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "i8"])
@pytest.mark.parametrize("vlen,te", SHAPES)
def test_gemm(vlen, te, dtype):
    k = kernel(INT8) if dtype == "i8" else Kernel(ZOO["gemm"], {"bf16": dtype})
    lines = listing(k, vlen, te, GEMM)
    assert any(n.startswith("sf.mm.") for n, _ in lines) or dtype == "i8"  # 8-bit products run on the vector unit so far
    assert not spills(lines)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("vlen,te", SHAPES)
def test_attention(vlen, te, dtype):
    k = Kernel(ZOO["attention"], {"bf16": dtype})
    if (vlen, te, dtype) in TOO_LARGE:
        with pytest.raises(RvgpuError, match="E310"):
            listing(k, vlen, te, HEADS)
        return
    lines = listing(k, vlen, te, HEADS)
    assert sum(n.startswith("sf.mm.") for n, _ in lines) >= 2 and any(n == "sf.vfexp.v" for n, _ in lines)
    assert len(spills(lines)) <= MOST_SPILLS[vlen // te]


@pytest.mark.parametrize("exp", [True, False], ids=["exp unit", "polynomial"])
@pytest.mark.parametrize("vlen", [128, 256, 512, 1024])
def test_rows(vlen, exp):
    for name, dims in (("row_softmax", {"M": 64, "N": 1000}), ("rmsnorm", {"T": 64, "D": 1000}), ("rope", {"B": 1, "S": 64, "H": 2, "F": 32})):
        lines = listing(Kernel(ZOO[name], {}), vlen, vlen // 8, dims, **{"exp.present": exp})
        assert any(n == "sf.vfexp.v" for n, _ in lines) == (exp and name == "row_softmax")
        assert len(spills(lines)) <= (0 if exp or name != "row_softmax" else 4)


@pytest.mark.parametrize("dims", [{"M": 1024, "N": 1024, "K": 1024}, {"M": 1000, "N": 777, "K": 513}], ids=["whole tiles", "ragged"])
def test_inner_loop_of_the_gemm(dims):
    """At most 40 instructions for a step of 2 x 2 whole tiles (41 in the variant for masked edges), no spill and no reload: no stack in the loop."""
    lines = listing(Kernel(ZOO["gemm"], {}), 512, 64, dims)
    image, starts, at = Kernel(ZOO["gemm"], {}).compile("base").code(dims).image(), {}, BASE
    for n, _ in enumerate(lines):
        starts[at] = n
        at += decode(int.from_bytes(image.data[at - BASE:at - BASE + 4], "little")).size
    loops = []
    for n, (name, text) in enumerate(lines):
        to = starts.get(int(text.split(", ")[-1], 0), n + 1) if name in ("bne", "beq", "blt", "bge", "bltu", "bgeu") else n + 1
        if to <= n and any(x == "sf.mm.f.f" for x, _ in lines[to:n + 1]):
            loops.append((to, n + 1))
    inner = [lines[a:b] for a, b in loops if not any((c, d) != (a, b) and a <= c and d <= b for c, d in loops)]
    assert inner
    lengths = [len(body) / (sum(x == "sf.mm.f.f" for x, _ in body) / 4) for body in inner]
    assert min(lengths) <= 40 and max(lengths) <= 41, lengths
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
    asm = WORKER.compile(WAIT.format(body=body), 512).asm
    order = re.findall(r"\b(vle32\.v|amoswap)", asm)
    assert order == ["vle32.v", "amoswap", "vle32.v"], asm


def test_an_abort_of_llvm_is_an_error_with_a_reproducer():
    """Inline assembly kills llvmlite's RISC-V back end; the user's process lives, and the next module compiles."""
    body = """  br label %head
head:
  %i = phi i64 [0, %entry], [%j, %head]
  call void asm sideeffect "vadd.vv v0, v0, v0", ""()
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %cta
  br i1 %more, label %head, label %done
done:
  ret void"""
    with pytest.raises(RvgpuError) as e:
        WORKER.compile(WAIT.format(body=body), 512)
    assert e.value.exit_code == EXIT_INTERNAL and e.value.code == "E900"
    path = re.search(r"reproducer: (\S+)", e.value.render())
    assert path and "define void @k" in open(path[1]).read()
    assert "ret" in WORKER.compile(WAIT.format(body="  ret void"), 512).asm
