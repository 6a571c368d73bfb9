/* Leaky integrate-and-fire neurons. A walk takes WIDTH channels of one text from token to token.
 *
 * Per token and channel 8 bytes forward and 12 backward, a few flops and one division backward;
 * bound by memory. Backward walks forward first, keeping the membranes before they are reset. */
#include "along.h"

typedef struct {
    isize batch, tokens, channels;
    const float *x, *state;
    float *spikes, *last;
    const float *grad, *grad_last;
    float *dx, *dstate;
    float tau, threshold;
} Lif;

static inline __attribute__((always_inline)) void
lif_forward(const Lif *a, isize b, isize first, isize n, float *kept, int writes) {
    float v[WIDTH];
    for (isize c = 0; c < n; c++) v[c] = a->state[b * a->channels + first + c];
    for (isize t = 0; t < a->tokens; t++) {
        isize at = (b * a->tokens + t) * a->channels + first;
        const float *x = a->x + at;
        float *spikes = a->spikes + at, *keep = kept + t * WIDTH;
        for (isize c = 0; c < n; c++) {
            float h = v[c] + (x[c] - v[c]) / a->tau, s = h - a->threshold >= 0 ? 1.0f : 0.0f;
            if (writes) spikes[c] = s;
            else keep[c] = h;
            v[c] = (1 - s) * h;
        }
    }
    if (writes)
        for (isize c = 0; c < n; c++) a->last[b * a->channels + first + c] = v[c];
}

static inline __attribute__((always_inline)) void
lif_back(const Lif *a, isize b, isize first, isize n, const float *kept) {
    const float pi = 3.14159265358979f;
    float dv[WIDTH], rest = 1 - 1 / a->tau;
    for (isize c = 0; c < n; c++) dv[c] = a->grad_last[b * a->channels + first + c];
    for (isize t = a->tokens - 1; t >= 0; t--) {
        isize at = (b * a->tokens + t) * a->channels + first;
        const float *grad = a->grad + at, *keep = kept + t * WIDTH;
        float *dx = a->dx + at;
        for (isize c = 0; c < n; c++) {
            float h = keep[c], z = pi * (h - a->threshold), s = z >= 0 ? 1.0f : 0.0f;
            float slope = 1 / (1 + z * z);
            float dh = grad[c] * slope + dv[c] * ((1 - s) - h * slope);
            dx[c] = dh / a->tau;
            dv[c] = dh * rest;
        }
    }
    for (isize c = 0; c < n; c++) a->dstate[b * a->channels + first + c] = dv[c];
}

static int lif_walk(const Lif *a, isize item, float *scratch, int back) {
    isize blocks = (a->channels + WIDTH - 1) / WIDTH;
    isize b = item / blocks, first = item % blocks * WIDTH;
    isize n = a->channels - first < WIDTH ? a->channels - first : WIDTH;
    if (n == WIDTH) { /* a number the compiler knows */
        lif_forward(a, b, first, WIDTH, scratch, !back);
        if (back) lif_back(a, b, first, WIDTH, scratch);
    } else {
        lif_forward(a, b, first, n, scratch, !back);
        if (back) lif_back(a, b, first, n, scratch);
    }
    return 0;
}

static int lif_ahead(const void *a, isize item, float *scratch) { return lif_walk(a, item, scratch, 0); }
static int lif_behind(const void *a, isize item, float *scratch) { return lif_walk(a, item, scratch, 1); }

int core_attn_lif(const void *call, int pass, int threads, Parallel parallel) {
    const Lif *a = call;
    isize items = a->batch * ((a->channels + WIDTH - 1) / WIDTH);
    return deal(call, pass ? lif_behind : lif_ahead, items, pass ? a->tokens * WIDTH : 0, threads, parallel);
}
