# Start-up under Linux (qemu-riscv64), to judge what a program says: program(0), its result is the exit code.
    .globl _start
_start:
    li a0, 0
    call program
    li a7, 93
    ecall
