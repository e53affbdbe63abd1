# Text in a writable segment: what is stored there is executed after fence.i, and not before.
    .section .text.start, "awx"
    .globl _start
_start:
    la t0, patch
    lw t1, new
    sw t1, 0(t0)
    call patch                      # the old instruction: a0 = 1
    li t2, 1
    bne a0, t2, wrong
    fence.i
    call patch                      # a0 = 2
    li t2, 2
    bne a0, t2, wrong
    lhu t1, half                    # two compressed ones in place of the one
    sh t1, 0(t0)
    lhu t1, half + 2
    sh t1, 2(t0)
    fence.i
    call patch                      # a0 = 3
    li t2, 3
    bne a0, t2, wrong
    li a0, 0
wrong:
    slli a0, a0, 1
    ori a0, a0, 1
    la t0, tohost
    sd a0, 0(t0)
1:  j 1b
    .option norvc
    .balign 4
patch:
    addi a0, zero, 1
    ret
    .section .rodata
    .balign 4
new:
    addi a0, zero, 2
    .option rvc
half:
    c.li a0, 2
    c.addi a0, 1

#include "tohost.h"
