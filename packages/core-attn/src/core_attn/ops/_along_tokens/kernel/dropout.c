/* Dropout: zeroes numbers at random and scales the others up; backward, the same with a gradient.
 *
 * 8 bytes a number and 20 integer operations; bound by memory. */
#include "along.h"
#include "draws.h"

enum { PART = 1 << 14 }; /* numbers that share their keys */

typedef struct {
    isize count;
    const float *x;
    const uint64_t *seed;
    float *out;
    float dropout;
} Dropout;

static int drop_part(const void *call, isize part, float *scratch) {
    (void)scratch;
    const Dropout *a = call;
    uint32_t keys[2];
    draw_keys(*a->seed, part, keys);
    const float *x = a->x + part * PART;
    float *out = a->out + part * PART;
    const float factor = 1 / (1 - a->dropout);
    const int32_t least = a->dropout * 0x1p31f, n = a->count - part * PART < PART ? a->count - part * PART : PART;
    for (int32_t i = 0; i < n; i++) {
        uint32_t bits = i;
        DRAW(bits, keys)
        float kept = x[i] * factor;
        out[i] = (int32_t)(bits >> 1) >= least ? kept : 0.0f;
    }
    return 0;
}

int core_attn_dropout(const void *call, int pass, int threads, Parallel parallel) {
    (void)pass;
    const Dropout *a = call;
    return deal(call, drop_part, (a->count + PART - 1) / PART, 0, threads, parallel);
}
