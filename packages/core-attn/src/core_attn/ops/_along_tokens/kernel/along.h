/* What the walks along the tokens share: how they are dealt to threads, and exp. */
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "team.h"

typedef int64_t isize;
enum { WIDTH = 64 }; /* channels that a walk takes side by side */

typedef struct Work Work;
struct Work {
    const void *call;
    int (*walk)(const void *call, isize item, float *scratch); /* one item */
    isize items, scratch;                                      /* floats of memory a thread needs */
    atomic_llong next;
    atomic_int failed;
};

static void member(void *data) {
    Work *work = data;
    float *scratch = work->scratch ? malloc(work->scratch * sizeof(float)) : NULL;
    if (work->scratch && !scratch) {
        work->failed = 1;
        return;
    }
    for (;;) {
        isize item = atomic_fetch_add(&work->next, 1);
        if (item >= work->items) break;
        work->walk(work->call, item, scratch);
    }
    free(scratch);
}

static int deal(const void *call, int (*walk)(const void *, isize, float *), isize items,
                isize scratch, int threads, Parallel parallel) {
    Work work = {call, walk, items, scratch};
    if (items < 1) return 0;
    run_team(member, &work, threads < items ? threads : (int)items, parallel);
    return work.failed;
}

/* e^x for x <= 0, relative error 2e-7; 0 from -87 down. */
static inline float exp_below(float x) {
    const float round = 12582912.0f; /* 1.5 * 2^23 */
    float y = x * 1.44269504088896340736f;
    y = y < -126.0f ? -126.0f : y;
    float shifted = y + round, f = y - (shifted - round);
    float p = f * 1.32647273e-3f + 9.67151299e-3f;
    p = p * f + 5.55073358e-2f;
    p = p * f + 2.40222424e-1f;
    p = p * f + 6.93147004e-1f;
    p = p * f + 1.0f;
    int32_t bits, scale;
    memcpy(&bits, &p, 4);
    memcpy(&scale, &shifted, 4);
    bits += (int32_t)((uint32_t)scale << 23);
    memcpy(&p, &bits, 4);
    return y <= -126.0f ? 0.0f : p;
}
