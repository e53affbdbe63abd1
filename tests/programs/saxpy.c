// RVV with intrinsics: saxpy in strips, and the length of a text by fault-only-first loads that run up to the end of memory.
#include "console.h"
#include <riscv_vector.h>

static void saxpy(unsigned long n, float a, const float *x, float *y)
{
    for (unsigned long vl; n; n -= vl, x += vl, y += vl) {
        vl = __riscv_vsetvl_e32m8(n);
        vfloat32m8_t at = __riscv_vle32_v_f32m8(x, vl);
        __riscv_vse32_v_f32m8(y, __riscv_vfmacc_vf_f32m8(__riscv_vle32_v_f32m8(y, vl), a, at, vl), vl);
    }
}

static unsigned long length(const char *s)
{
    unsigned long n = 0;
    for (;;) {
        unsigned long vl;
        vuint8m1_t v = __riscv_vle8ff_v_u8m1((const unsigned char *)s + n, &vl, __riscv_vsetvlmax_e8m1());
        long at = __riscv_vfirst_m_b8(__riscv_vmseq_vx_u8m1_b8(v, 0, vl), vl);
        if (at >= 0) return n + at;
        n += vl;
    }
}

static float x[1000], y[1000];

int program(int hart)
{
    (void)hart;
    for (int i = 0; i < 1000; i++) x[i] = i * 0.5f, y[i] = 1000 - i;
    saxpy(1000, 3.0f, x, y);
    float sum = 0;
    int wrong = 0;
    for (int i = 0; i < 1000; i++) wrong += y[i] != 1000 - i + 1.5f * i, sum += y[i];
    print("wrong %d sum %ld vlenb %ld\n", wrong, (long)sum, (long)__riscv_vlenb());
#ifndef NO_FF
    static char text[300];
    for (int i = 0; i < 299; i++) text[i] = 'a' + i % 26;
    print("length %lu %lu\n", length(text), length(""));
#endif
    return wrong;
}
