"""Bare-metal programs for `make bench-host`: a scalar loop, and an f32 GEMM in RVV that QEMU user mode runs as well, byte for byte the same file.

They end by a semihosting call, which both know.
"""

from __future__ import annotations

import struct

from rvgpu.isa.asm import assemble
from rvgpu.sim.elf import BASE

DATA = BASE + 0x10_0000
# SYS_EXIT with (ADP_Stopped_ApplicationExit, 0)
END = f"li a1, {DATA}\nli a0, 131110\nsd a0, 0(a1)\nsd zero, 8(a1)\nli a0, 24\nslli zero, zero, 31\nebreak\nsrai zero, zero, 7\n"


def executable(text: str, data_bytes: int) -> bytes:
    """Text at BASE, and `data_bytes` of zeros at DATA."""
    code = assemble(text + END)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + b"\0" * 9, 2, 243, 1, BASE, 64, 0, 5, 64, 56, 2, 64, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 5, 4096, BASE, BASE, len(code), len(code), 4096)
    head += struct.pack("<IIQQQQQQ", 1, 6, 0, DATA, DATA, 0, data_bytes, 4096)
    return head.ljust(4096, b"\0") + code


def scalar(times: int) -> bytes:
    """Eight scalar instructions a turn: additions, logic, shifts, one taken branch."""
    return executable(f"""li a5, {times}
loop: addi a7, a7, 3
xor t0, a7, a6
slli t1, t0, 3
add t2, t1, a5
sub t3, t2, a7
and t4, t3, a6
addi a5, a5, -1
bnez a5, loop
""", 4096)


def gemm(m: int, n: int, k: int, times: int) -> bytes:
    """C[m, n] = A[m, k] @ B[k, n] in f32, `times` over: for each row a strip of C in a group of four registers, one multiply-add for each k."""
    a, b, c = DATA, DATA + 4 * m * k, DATA + 4 * (m * k + k * n)
    return executable(f"""li s0, {times}
again: li s1, {a}
li s2, {c}
li s3, {m}
row: li s4, {n}
li s5, {b}
strip: vsetvli s6, s4, e32, m4, ta, ma
vmv.v.i v8, 0
mv t0, s1
mv t1, s5
li t2, {k}
li t3, {4 * n}
inner: flw ft0, 0(t0)
vle32.v v16, (t1)
addi t0, t0, 4
add t1, t1, t3
addi t2, t2, -1
vfmacc.vf v8, ft0, v16
bnez t2, inner
vse32.v v8, (s2)
slli t4, s6, 2
add s2, s2, t4
add s5, s5, t4
sub s4, s4, s6
bnez s4, strip
addi s1, s1, {4 * k}
addi s3, s3, -1
bnez s3, row
addi s0, s0, -1
bnez s0, again
""", 4 * (m * k + k * n + m * n))
