# Ends at once with CODE.
    .section .text.start, "ax"
    .globl _start
_start:
    li t0, ((CODE) << 1) | 1
    la t1, tohost
    sd t0, 0(t1)
1:  j 1b
#include "tohost.h"
