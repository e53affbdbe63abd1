// A C library's start-up code and printf, with doubles; it ends through exit().
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>

static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int main(void)
{
    const char *words[] = {"warp", "tile", "lane", "hart"};
    qsort(words, 4, sizeof *words, compare);
    char *copy = malloc(64);
    strcpy(copy, words[0]);
    printf("%s %s %s %s: %d %5.3f %.15g\n", copy, words[1], words[2], words[3], -7, sqrt(2.0), 1e100 / 3);
    free(copy);
    exit(7);
}
