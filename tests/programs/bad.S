# What a program can do wrong, by CASE.
    .section .text.start, "ax"
    .globl _start
_start:
    la sp, __stacks
#if CASE == 1                       // jumps into its data
    la t0, data
    jr t0
#elif CASE == 2                     // runs off the end of its text
    j last
#elif CASE == 3                     // loops for ever
1:  j 1b
#elif CASE == 4                     // recurses until its stack has reached its text
recurse:
    addi sp, sp, -64
    sd ra, 8(sp)                    // (past tohost)
    call recurse
#elif CASE == 5                     // writes over its text
    la t0, _start
    li t1, 0x13
1:  sw t1, 0(t0)
    addi t0, t0, 4
    j 1b
#elif CASE == 6                     // returns from its entry
    ret
#elif CASE == 7                     // jumps into an instruction
    la t0, 1f + 2
    jr t0
    .option norvc
1:  lui t0, 5
#elif CASE == 8                     // its trap vector is data
    la t0, data
    csrw mtvec, t0
    .half 0
#elif CASE == 9                     // traps in its trap handler, for ever
    la t0, 1f
    csrw mtvec, t0
    .balign 4
1:  .half 0
#elif CASE == 10                    // waits for a key that nobody presses
    li t0, 1 << 56
    la t1, tohost
    sd t0, 0(t1)
    la t1, fromhost
1:  ld t0, 0(t1)
    beqz t0, 1b
#elif CASE == 11                    // an HTIF device that is none
    li t0, 5 << 56 | 2
    la t1, tohost
    sd t0, 0(t1)
1:  j 1b
#elif CASE == 12                    // writes what is not there to the console
    la a1, block
#elif CASE == 13                    // more than there can be
    la a1, block2
#endif
#if CASE == 12 || CASE == 13
    li a0, 5
    .option norvc
    slli x0, x0, 0x1f
    ebreak
    srai x0, x0, 7
#elif CASE == 14                    // waits for others at a barrier of the control page
    li t0, 0x02000100
    li t1, 1
    amoswap.d t1, t1, (t0)
    li t1, 2
    amoswap.d t1, t1, (t0)
    j last
#elif CASE == 15                    // its DMA writes over its text
    li a3, 0x02000000
    la t0, data
    sd t0, 0x40(a3)
    la t0, _start
    sd t0, 0x48(a3)
    li t0, 1
    sd t0, 0x50(a3)
    li t0, 8
    sd t0, 0x58(a3)
    addi t1, a3, 0x88
    amoswap.d zero, zero, (t1)
#elif CASE == 16                    // switches its floating-point unit off and uses it
    csrw mstatus, zero
    fadd.d fa0, fa0, fa0
#endif
last:
    nop

    .data
    .align 3
data:   .dword 0x0000001300000013
block:  .dword 1, 0x10000, 5
block2: .dword 1, data, -1
#include "tohost.h"
