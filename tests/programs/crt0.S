# Start-up: a stack for each hart, units on, .bss cleared by hart 0, program(hart), its result is the exit code.
    .section .text.start, "ax"
    .globl _start
_start:
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    li t0, 0x2600               # FS and VS: initial
    csrs mstatus, t0
    csrr a0, mhartid
    la sp, __stacks
    li t1, 0x4000
    addi t2, a0, 1
    mul t1, t1, t2
    add sp, sp, t1
    bnez a0, 2f
    la t0, __bss_start
    la t1, __bss_end
1:  bgeu t0, t1, 3f
    sd zero, 0(t0)
    addi t0, t0, 8
    j 1b
3:  la t0, ready
    li t1, 1
    fence rw, w
    sw t1, 0(t0)
    j 4f
2:  la t0, ready
    lw t1, 0(t0)
    beqz t1, 2b
    fence r, rw
4:  call program
    csrr t0, mhartid
    bnez t0, halt               # only hart 0's result ends the program
    slli a0, a0, 1
    ori a0, a0, 1
    la t0, tohost
    sd a0, 0(t0)
halt:
    wfi
    j halt

    .section .data
    .align 2
ready: .word 0                  # hart 0 has cleared .bss

#include "tohost.h"
