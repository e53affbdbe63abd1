// Scalar: a shell sort, a CRC-32 and a product of matrices, told over HTIF.
#include "console.h"

static uint32_t next(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

static uint32_t crc32(const unsigned char *p, int n)
{
    uint32_t crc = ~0u;
    while (n--) {
        crc ^= *p++;
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static uint32_t values[200];
static double a[8][8], b[8][8];

int program(int hart)
{
    uint32_t state = 7;
    for (int i = 0; i < 200; i++) values[i] = next(&state);
    for (int gap = 100; gap; gap /= 2)
        for (int i = gap; i < 200; i++)
            for (int j = i - gap; j >= 0 && values[j] > values[j + gap]; j -= gap) {
                uint32_t t = values[j];
                values[j] = values[j + gap], values[j + gap] = t;
            }
    int sorted = 1;
    for (int i = 1; i < 200; i++) sorted &= values[i - 1] <= values[i];
    print("sorted %d: %u .. %u\n", sorted, values[0], values[199]);
    print("crc %x\n", crc32((const unsigned char *)"123456789", 9));
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) a[i][j] = i + j, b[i][j] = i - 2 * j;
    double trace = 0;
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < 8; k++) trace += a[i][k] * b[k][i];
    print("trace %ld\n", (long)trace);
    return hart + 3;
}
