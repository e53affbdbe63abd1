// A console over HTIF (with -DLINUX: Linux's write) and a small printf: %d %u %x %c %s %ld %lu %lx.
#pragma once
#include <stdarg.h>
#include <stdint.h>

#ifdef LINUX
static void put(char c)
{
    register long a0 __asm__("a0") = 1, a2 __asm__("a2") = 1, a7 __asm__("a7") = 64;
    register char *a1 __asm__("a1") = &c;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
}
#else
extern volatile uint64_t tohost, fromhost;

static void put(char c)
{
    while (tohost) { }
    tohost = 1ull << 56 | 1ull << 48 | (unsigned char)c;
}

// the proxy kernel's write(fd, text, length)
__attribute__((unused)) static long system_call(long number, long a0, long a1, long a2)
{
    static volatile uint64_t block[8] __attribute__((aligned(64)));
    block[0] = number, block[1] = a0, block[2] = a1, block[3] = a2;
    __sync_synchronize();
    tohost = (uint64_t)block;
    while (!fromhost) { }
    fromhost = 0;
    return block[0];
}
#endif

static void number(unsigned long x, unsigned base)
{
    char text[20];
    int n = 0;
    do { text[n++] = "0123456789abcdef"[x % base]; x /= base; } while (x);
    while (n) put(text[--n]);
}

__attribute__((unused)) static void print(const char *form, ...)
{
    va_list args;
    va_start(args, form);
    for (; *form; form++) {
        if (*form != '%') { put(*form); continue; }
        int wide = *++form == 'l';
        form += wide;
        if (*form == 'c') put(va_arg(args, int));
        else if (*form == 's') for (const char *s = va_arg(args, const char *); *s; s++) put(*s);
        else {
            long x = wide ? va_arg(args, long) : *form == 'd' ? va_arg(args, int) : (long)va_arg(args, unsigned);
            if (*form == 'd' && x < 0) { put('-'); x = -x; }
            number(x, *form == 'x' ? 16 : 10);
        }
    }
    va_end(args);
}
