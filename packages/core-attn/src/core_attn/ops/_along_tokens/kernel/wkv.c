/* RWKV-4's weighted mean. A walk takes WIDTH channels of one text from token to token.
 *
 * Per token and channel: two exp (one factor of each pair is 1), some 20 flops, 12 bytes forward
 * and 20 backward; bound by exp. Backward walks forward first, keeping the sums before each token
 * in `scratch` (12 WIDTH tokens bytes, in the second-level cache to 1024 tokens), then back. */
#include "along.h"

typedef struct {
    isize batch, tokens, channels;
    const float *k, *v, *w, *u, *state;
    float *out, *last;
    const float *grad, *grad_last;
    float *dk, *dv, *dw, *du, *dstate; /* dw and du per text: (batch, channels) */
} Wkv;

/* past = e^(a - max(a, b)), present = e^(b - max(a, b)) */
#define SHARES(a, b, past, present)                              \
    float past, present;                                         \
    {                                                            \
        float apart = (a) - (b), e = exp_below(apart > 0 ? -apart : apart); \
        past = apart >= 0 ? 1.0f : e;                            \
        present = apart >= 0 ? e : 1.0f;                         \
    }

static inline __attribute__((always_inline)) void
walk_forward(const Wkv *x, isize b, isize first, isize n, float *kept, int writes) {
    isize C = x->channels;
    float p[WIDTH], q[WIDTH], o[WIDTH], w[WIDTH], u[WIDTH];
    const float *state = x->state + b * 3 * C + first;
    for (isize c = 0; c < n; c++) {
        p[c] = state[c], q[c] = state[C + c], o[c] = state[2 * C + c];
        w[c] = x->w[first + c], u[c] = x->u[first + c];
    }
    for (isize t = 0; t < x->tokens; t++) {
        isize at = (b * x->tokens + t) * C + first;
        const float *k = x->k + at, *v = x->v + at;
        float *out = x->out + at, *keep = kept + t * 3 * WIDTH;
        for (isize c = 0; c < n; c++) {
            if (!writes) keep[c] = p[c], keep[WIDTH + c] = q[c], keep[2 * WIDTH + c] = o[c];
            if (writes) {
                SHARES(o[c], u[c] + k[c], past, present)
                out[c] = (past * p[c] + present * v[c]) / (past * q[c] + present);
            }
            float decayed = o[c] + w[c];
            SHARES(decayed, k[c], old, new)
            p[c] = old * p[c] + new * v[c];
            q[c] = old * q[c] + new;
            o[c] = decayed > k[c] ? decayed : k[c];
        }
    }
    if (writes) {
        float *last = x->last + b * 3 * C + first;
        for (isize c = 0; c < n; c++) last[c] = p[c], last[C + c] = q[c], last[2 * C + c] = o[c];
    }
}

static inline __attribute__((always_inline)) void
walk_back(const Wkv *x, isize b, isize first, isize n, const float *kept) {
    isize C = x->channels;
    float dp[WIDTH], dq[WIDTH], dw[WIDTH], du[WIDTH], w[WIDTH], u[WIDTH];
    const float *grad_last = x->grad_last + b * 3 * C + first;
    for (isize c = 0; c < n; c++) {
        dp[c] = grad_last[c], dq[c] = grad_last[C + c], dw[c] = du[c] = 0;
        w[c] = x->w[first + c], u[c] = x->u[first + c];
    }
    for (isize t = x->tokens - 1; t >= 0; t--) {
        isize at = (b * x->tokens + t) * C + first;
        const float *k = x->k + at, *v = x->v + at, *grad = x->grad + at;
        const float *keep = kept + t * 3 * WIDTH;
        float *dk = x->dk + at, *dv = x->dv + at;
        for (isize c = 0; c < n; c++) {
            float p = keep[c], q = keep[WIDTH + c], o = keep[2 * WIDTH + c];
            SHARES(o + w[c], k[c], old, new)
            float gk = new * (dp[c] * v[c] + dq[c]), gv = new * dp[c];
            dw[c] += old * (p * dp[c] + q * dq[c]);
            float gp = old * dp[c], gq = old * dq[c];
            SHARES(o, u[c] + k[c], past, present)
            float below = 1.0f / (past * q + present), y = (past * p + present * v[c]) * below;
            float up = grad[c] * below, down = -up * y;
            float now = present * (up * v[c] + down);
            dk[c] = gk + now;
            du[c] += now;
            dv[c] = gv + present * up;
            dp[c] = gp + past * up;
            dq[c] = gq + past * down;
        }
    }
    float *dstate = x->dstate + b * 3 * C + first;
    for (isize c = 0; c < n; c++) {
        x->dw[b * C + first + c] = dw[c], x->du[b * C + first + c] = du[c];
        dstate[c] = dp[c], dstate[C + c] = dq[c], dstate[2 * C + c] = 0;
    }
}

static int walk(const Wkv *x, isize item, float *scratch, int back) {
    isize blocks = (x->channels + WIDTH - 1) / WIDTH;
    isize b = item / blocks, first = item % blocks * WIDTH;
    isize n = x->channels - first < WIDTH ? x->channels - first : WIDTH;
    if (n == WIDTH) { /* a number the compiler knows */
        walk_forward(x, b, first, WIDTH, scratch, !back);
        if (back) walk_back(x, b, first, WIDTH, scratch);
    } else {
        walk_forward(x, b, first, n, scratch, !back);
        if (back) walk_back(x, b, first, n, scratch);
    }
    return 0;
}

static int ahead(const void *call, isize item, float *scratch) { return walk(call, item, scratch, 0); }
static int behind(const void *call, isize item, float *scratch) { return walk(call, item, scratch, 1); }

int core_attn_wkv(const void *call, int pass, int threads, Parallel parallel) {
    const Wkv *x = call;
    isize items = x->batch * ((x->channels + WIDTH - 1) / WIDTH);
    return deal(call, pass ? behind : ahead, items, pass ? x->tokens * 3 * WIDTH : 0, threads, parallel);
}
