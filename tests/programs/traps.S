# Each exception in turn. A case says what mcause, mepc and mtval must be; the handler compares, counts, and goes on behind the case.
# The exit code is 0, or the number of the first case that went wrong.
    .set number, 0
    .macro case cause               # the instruction at label 1 traps; it goes on at label 2; s5: mtval
    .set number, number + 1
    la s1, 2f
    la s3, 1f
    li s4, \cause
    .endm
    .macro went                     # the trap came
2:  li t0, number
    bne s2, t0, wrong
    .endm
    .macro user                     # to the label 3 in user mode
    la t0, 3f
    csrw mepc, t0
    li t0, 3 << 11
    csrc mstatus, t0
    mret
    .endm

    .section .text.start, "ax"
    .globl _start
_start:
    li s2, 0                        # traps so far
    la t0, handler
    ori t0, t0, 1                   # vectored: exceptions go to the base all the same
    csrw mtvec, t0
    csrr t1, mtvec
    bne t0, t1, wrong

    case 2                          # 1: an illegal instruction
    li s5, 0xffffffff
1:  .word 0xffffffff
    went
    case 2                          # 2: a compressed one
    li s5, 0
1:  .half 0
    went
    case 5                          # 3: a load from nowhere
    li s5, 0x1008
1:  ld t1, 0(s5)
    went
    case 5                          # 4: a float's load
    li s5, 0x1008
1:  fld fa0, 0(s5)
    went
    case 7                          # 5: a store to nowhere
    li s5, -8
1:  sd t1, 0(s5)
    went
    case 7                          # 6: a store to text
    la s5, _start
1:  sw zero, 0(s5)
    went
    case 7                          # 7: an atomic on nothing
    li s5, 0x1008
1:  amoadd.w t1, t1, (s5)
    went
    case 6                          # 8: a misaligned one
    la s5, scratch + 2
1:  amoadd.w t1, t1, (s5)
    went
    case 4                          # 9: a misaligned lr
    la s5, scratch + 4
1:  lr.d t1, (s5)
    went
    case 5                          # 10: an lr from nowhere
    li s5, 0x1008
1:  lr.d t1, (s5)
    went
    case 3                          # 11: ebreak
    la s5, 1f
1:  ebreak
    went
    case 3                          # 12: compressed
    la s5, 1f
1:  c.ebreak
    went
    case 11                         # 13: ecall from machine mode
    li s5, 0
1:  ecall
    went
    case 1                          # 14: a jump to data: the fetch there fails
    la s5, scratch
    mv s3, s5
    jalr s6, s5
1:  went
    la t0, 1b
    bne s6, t0, wrong               # but the jump has linked
    case 1                          # 15: a jump to address 0
    li s5, 0
    li s3, 0
    jr s5
1:  went
    case 2                          # 16: a CSR that does not exist
    li s5, 0x123022f3
1:  csrr t0, 0x123
    went
    case 2                          # 17: a write to one that is read-only
    li s5, 0xf1401073
1:  csrw mhartid, zero
    went
    case 2                          # 18: the floating-point unit is off
    li s5, 0xf2000553
    li t0, 3 << 13
    csrc mstatus, t0
1:  fmv.d.x fa0, zero
    went
    case 2                          # 19: its CSRs too
    li s5, 0x003022f3
1:  csrr t0, fcsr
    went
    case 2                          # 20: the vector unit is off
    li s5, 0x0c0072d7
    li t0, 3 << 9
    csrc mstatus, t0
1:  vsetvli t0, zero, e8, m1, ta, ma
    went
    case 2                          # 21: its CSRs too
    li s5, 0xc22022f3
1:  csrr t0, vlenb
    went
    li t0, 1 << 13 | 1 << 9         # both on again
    csrs mstatus, t0
    fmv.d.x fa0, zero
    vsetvli t0, zero, e8, m1, ta, ma
    csrr t0, mstatus
    bgez t0, wrong                  # SD
    case 2                          # 22: a vtype that is not
    li s5, 0x02840457
    li t0, 0x20
    vsetvl zero, zero, t0
1:  vadd.vv v8, v8, v8
    went
    case 8                          # 23: ecall from user mode
    li s5, 0
    user
3:
1:  ecall
    went
    case 2                          # 24: machine CSRs are not for user mode
    li s5, 0x340022f3
    user
3:
1:  csrr t0, mscratch
    went
    case 2                          # 25: nor are counters without leave
    li s5, 0xc00022f3
    csrw mcounteren, zero
    user
3:
1:  rdcycle t0
    went
    case 2                          # 26: with leave they are, mret is not
    li s5, 0x30200073
    li t0, 7
    csrw mcounteren, t0
    user
3:  rdcycle t0
    rdtime t0
    rdinstret t0
1:  mret
    went

    li t0, 1 << 3                   # mret gives back MIE
    csrs mstatus, t0
    case 11                         # 27
    li s5, 0
1:  ecall
    went
    csrr t0, mstatus
    andi t0, t0, 1 << 3
    beqz t0, wrong
    li s2, 0
    j leave
wrong:
    addi s2, s2, 1                  # the case after the last good one
leave:
    slli t0, s2, 1
    ori t0, t0, 1
    la t1, tohost
    sd t0, 0(t1)
stop:
    j stop

    .align 2
handler:
    csrr t0, mstatus
    andi t1, t0, 1 << 3
    bnez t1, wrong                  # MIE is 0 in here
    csrr t1, mcause
    bne t1, s4, wrong
    csrr t1, mepc
    bne t1, s3, wrong
    csrr t1, mtval
    bne t1, s5, wrong
    srli t1, t0, 11
    andi t1, t1, 3                  # MPP: machine, but in the cases from user mode
    li t2, 3
    li t3, 23
    blt s2, t3, 1f
    li t3, 26
    bge s2, t3, 1f
    li t2, 0
1:  addi s2, s2, 1
    li t3, 23
    csrw mepc, s1
    li t3, 3 << 11
    csrs mstatus, t3                # back to machine mode
    li t4, 23
    beq s2, t4, 2f
    bne t1, t2, wrong
2:  mret

    .data
    .align 3
scratch: .dword 0

#include "tohost.h"
