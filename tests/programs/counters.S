# Counters: cycles and instructions counted by hand, machine-mode writes, and a stopped counter. Exit 0, or the number of what went wrong.
    .macro leave code
    li t0, (\code) << 1 | 1
    la t1, tohost
    sd t0, 0(t1)
9:  j 9b
    .endm
    .section .text.start, "ax"
    .globl _start
_start:
    .rept 2                         # (the second time nothing misses in a cache: there is none for instructions, so the first is alike)
    rdcycle s0
    rdinstret s1
    nop
    nop
    nop
    mul t0, t0, t0                  # its result is not waited for
    nop
    rdinstret s3
    rdcycle s2
    sub s2, s2, s0
    sub s3, s3, s1
    li t0, 8                        # from rdcycle to rdcycle eight issues, one each cycle
    bne s2, t0, wrong1
    li t0, 6                        # from rdinstret to rdinstret six instructions
    bne s3, t0, wrong2
    .endr
    rdtime s0
    rdtime s1
    sub s1, s1, s0
    li t0, 1
    bne s1, t0, wrong3
    li t0, 1000
    csrw minstret, t0
    csrr t1, minstret
    bne t1, t0, wrong4
    csrr t1, instret
    li t0, 1002                     # (the bne counts too)
    bne t1, t0, wrong4
    csrw mcycle, zero
    rdcycle t1
    li t0, 1
    bne t1, t0, wrong5
    li t0, 5
    csrw mcountinhibit, t0
    csrr s0, mcycle
    csrr s1, minstret
    nop
    nop
    csrr s2, mcycle
    csrr s3, minstret
    bne s0, s2, wrong6
    bne s1, s3, wrong6
    csrw mcycle, t0
    csrr s2, mcycle
    bne s2, t0, wrong6
    csrw mcountinhibit, zero
    csrr s3, mcycle
    bgeu s2, s3, wrong7
    csrr t0, hpmcounter3
    bnez t0, wrong8
    csrr t0, misa
    bgez t0, wrong8                 # MXL 2
    li t1, 1 << ('V' - 'A') | 1 << ('C' - 'A') | 1 << ('U' - 'A')
    and t2, t0, t1
    bne t1, t2, wrong8
    csrw misa, zero                 # nothing can be switched off
    csrr t1, misa
    bne t0, t1, wrong8
    csrw pmpaddr0, t0               # kept
    csrr t1, pmpaddr0
    bne t0, t1, wrong8
    li t0, -1
    csrw satp, t0                   # not kept
    csrr t1, satp
    bnez t1, wrong8
    csrw mstatus, t0
    csrr t1, mstatus
    li t2, 0x8000000200227e88       # SD, UXL 2, TW, MPRV, FS, MPP, VS, MPIE, MIE
    bne t1, t2, wrong9
    leave 0
    .irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9
wrong\n: leave \n
    .endr

#include "tohost.h"
