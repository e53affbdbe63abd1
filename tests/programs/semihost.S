# Semihosting: each operation that is there, two that are not, and the exit with code 42.
    .macro semihost operation, block
    li a0, \operation
    la a1, \block
    .option push
    .option norvc
    .balign 16                      # (the three must not be split by a page, says the specification)
    slli x0, x0, 0x1f
    ebreak
    srai x0, x0, 7
    .option pop
    .endm
    .macro expect value
    li t0, \value
    bne a0, t0, wrong
    .endm

    .section .text.start, "ax"
    .globl _start
_start:
    semihost 4, hello               # write0
    semihost 3, mark                # writec
    semihost 1, terminal            # open :tt to write: handle 1
    expect 1
    semihost 9, handle              # istty
    expect 1
    semihost 5, text                # write: all is written
    expect 0
    semihost 5, nowhere             # to a handle that is none: nothing is
    expect 6
    semihost 6, text                # read: nothing comes
    expect 6
    semihost 1, file                # open a file: no
    expect -1
    semihost 0x12, hello            # system(): no
    expect -1
    semihost 7, hello               # readc: nothing comes
    expect -1
    semihost 2, handle              # close
    expect 0
    semihost 0x20, exit             # exit_extended
wrong:
    semihost 0x18, panic            # exit for another reason: 1
1:  j 1b

    .section .rodata
hello:    .asciz "hello"
mark:     .ascii "!"
line:     .ascii " text\n"
tt:       .ascii ":tt"
name:     .asciz "/etc/passwd"
    .align 3
terminal: .dword tt, 4, 3
file:     .dword name, 0, 11
handle:   .dword 1
text:     .dword 1, line, 6
nowhere:  .dword 7, line, 6
exit:     .dword 0x20026, 42
panic:    .dword 0x20023, 0
