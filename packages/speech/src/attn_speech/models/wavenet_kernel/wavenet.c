/* WaveNet sample by sample. One sample of one row costs 2 (kernel R G + G/2 (R + S)) layers flops,
 * 6.4 MFLOP for 24 layers of 128/256/128, and reads as many weights, 12.8 MB: it is bound by the
 * cache that holds them, unless several rows share a pass. Rows are divided among threads. */
#include <stdlib.h>
#include <string.h>

#include "team.h"
#include "vectors.h"

#define BLOCK 64 /* outputs of a product computed at once */
#define VECS (BLOCK / LANES)
#define GROUP (LANES == 16 ? 4 : 1) /* rows that share a weight in registers */

enum { SOFTMAX, LOGISTIC, GAUSSIAN };

typedef struct {
    int64_t batch, steps, time, layers, kernel, residual, half, wide_residual, wide_half, wide_skip,
        skip, channels, wide_channels, kind, components, draws, onehot;
    const int64_t *dilations, *rings_at;
    const float *first, *first_bias, *convs, *outs, *out_biases, *last1, *last1_bias, *last2,
        *last2_bias, *cond, *noise, *forced;
    float *rings, *last, *drawn, *outputs;
} Call;

/* y += W x for some rows; W lies as (blocks, in, BLOCK). */
static void product(const float *w, const float *x, isize x_row, isize in, float *y, isize y_row,
                    isize blocks, isize rows) {
    for (isize block = 0; block < blocks; block++, w += in * BLOCK, y += BLOCK) {
        isize row = 0;
        for (; row + GROUP <= rows; row += GROUP) {
            vec sums[GROUP][VECS];
            for (int r = 0; r < GROUP; r++)
                UNROLL for (int v = 0; v < VECS; v++)
                    sums[r][v] = load(y + (row + r) * y_row + v * LANES);
            for (isize i = 0; i < in; i++)
                for (int r = 0; r < GROUP; r++) {
                    vec factor = splat(x[(row + r) * x_row + i]);
                    UNROLL for (int v = 0; v < VECS; v++)
                        sums[r][v] += factor * load(w + i * BLOCK + v * LANES);
                }
            for (int r = 0; r < GROUP; r++)
                UNROLL for (int v = 0; v < VECS; v++)
                    store(y + (row + r) * y_row + v * LANES, sums[r][v]);
        }
        for (; row < rows; row++) {
            vec sums[VECS];
            UNROLL for (int v = 0; v < VECS; v++) sums[v] = load(y + row * y_row + v * LANES);
            for (isize i = 0; i < in; i++) {
                vec factor = splat(x[row * x_row + i]);
                UNROLL for (int v = 0; v < VECS; v++)
                    sums[v] += factor * load(w + i * BLOCK + v * LANES);
            }
            UNROLL for (int v = 0; v < VECS; v++) store(y + row * y_row + v * LANES, sums[v]);
        }
    }
}

static inline vec sigmoid(vec x) {
    vec below = pick(x > 0.0f, -x, x) * LOG2E;
    vec e = exp2_below(below, splat(0.0f)), s = 1.0f / (1.0f + e);
    return pick(x > 0.0f, s, e * s);
}

/* z = tanh(a) sigmoid(b), with a and b side by side. */
static void gate(const float *v, float *z, isize wide) {
    for (isize i = 0; i < wide; i += LANES)
        store(z + i, (2.0f * sigmoid(2.0f * load(v + i)) - 1.0f) * sigmoid(load(v + wide + i)));
}

static float sample(const Call *c, const float *y, const float *noise) {
    isize best = 0;
    float most = -INFINITY;
    isize choices = c->kind == SOFTMAX ? c->channels : c->components;
    int single = c->kind != SOFTMAX && c->channels == 2;
    for (isize i = 0; i < choices; i++) {
        float score = (single ? 0.0f : y[i]) - logf(-logf(noise[i]));
        if (score > most) most = score, best = i;
    }
    if (c->kind == SOFTMAX) return (float)best;
    float mean = single ? y[0] : y[c->components + best];
    float log_scale = single ? y[1] : y[2 * c->components + best];
    float u = noise[c->draws - 2], v = noise[c->draws - 1];
    float standard = c->kind == LOGISTIC ? logf(u) - logf(1.0f - u)
                                         : sqrtf(-2.0f * logf(u)) * cosf(6.28318530718f * v);
    float x = mean + expf(log_scale) * standard;
    return x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x;
}

/* What a sample or class is as an input of the first layer. */
static void enter(const Call *c, float x, float *h) {
    isize wide = c->wide_residual;
    const float *column = c->onehot ? c->first + (isize)x * wide : c->first;
    float factor = c->onehot                ? 1.0f
                   : c->kind == SOFTMAX     ? x / (float)(c->channels - 1) * 2.0f - 1.0f
                                            : x;
    for (isize i = 0; i < wide; i++) h[i] = c->first_bias[i] + factor * column[i];
}

static void relu(float *x, isize count, float factor) {
    for (isize i = 0; i < count; i++) x[i] = x[i] > 0.0f ? factor * x[i] : 0.0f;
}

/* All steps of the rows from `row` on. */
static int run_rows(const Call *c, isize row, isize rows) {
    isize wr = c->wide_residual, wh = c->wide_half, ws = c->wide_skip, wo = c->wide_channels;
    isize both = wr + ws, size = rows * (wr + 2 * wh + wh + both + 2 * ws + wo);
    float *work = aligned_alloc(64, round_up(size * 4, 64));
    if (!work) return 1;
    float *h = work, *v = h + rows * wr, *z = v + rows * 2 * wh, *o = z + rows * wh,
          *s = o + rows * both, *s2 = s + rows * ws, *y = s2 + rows * ws;
    isize conv_size = c->kernel * c->residual * 2 * wh, out_size = c->half * both;
    for (isize step = 0; step < c->steps; step++) {
        isize now = c->time + step;
        for (isize r = 0; r < rows; r++) {
            isize at = step * c->batch + row + r;
            enter(c, c->forced ? c->forced[at] : c->last[row + r], h + r * wr);
        }
        memset(s, 0, rows * ws * 4);
        for (isize layer = 0; layer < c->layers; layer++) {
            isize gap = c->dilations[layer], length = (c->kernel - 1) * gap + 1;
            float *ring = c->rings + c->rings_at[layer];
            memcpy(ring + (now % length * c->batch + row) * wr, h, rows * wr * 4);
            for (isize r = 0; r < rows; r++) {
                isize place = ((step * c->batch + row + r) * c->layers + layer) * 2 * wh;
                memcpy(v + r * 2 * wh, c->cond + place, 2 * wh * 4);
            }
            const float *w = c->convs + layer * conv_size;
            for (isize tap = 0; tap < c->kernel; tap++, w += c->residual * 2 * wh) {
                isize then = now - (c->kernel - 1 - tap) * gap;
                if (then < 0) continue;
                const float *x = ring + (then % length * c->batch + row) * wr;
                product(w, x, wr, c->residual, v, 2 * wh, 2 * wh / BLOCK, rows);
            }
            for (isize r = 0; r < rows; r++) {
                gate(v + r * 2 * wh, z + r * wh, wh);
                memcpy(o + r * both, c->out_biases + layer * both, both * 4);
            }
            product(c->outs + layer * out_size, z, wh, c->half, o, both, both / BLOCK, rows);
            for (isize r = 0; r < rows; r++) {
                for (isize i = 0; i < wr; i++)
                    h[r * wr + i] = (o[r * both + i] + h[r * wr + i]) * 0.70710678118654752f;
                for (isize i = 0; i < ws; i++) s[r * ws + i] += o[r * both + wr + i];
            }
        }
        relu(s, rows * ws, 1.0f / sqrtf((float)c->layers));
        for (isize r = 0; r < rows; r++) memcpy(s2 + r * ws, c->last1_bias, ws * 4);
        product(c->last1, s, ws, c->skip, s2, ws, ws / BLOCK, rows);
        relu(s2, rows * ws, 1.0f);
        for (isize r = 0; r < rows; r++) memcpy(y + r * wo, c->last2_bias, wo * 4);
        product(c->last2, s2, ws, c->skip, y, wo, wo / BLOCK, rows);
        for (isize r = 0; r < rows; r++) {
            isize at = step * c->batch + row + r;
            float x = sample(c, y + r * wo, c->noise + at * c->draws);
            c->drawn[at] = c->last[row + r] = x;
            if (c->outputs) memcpy(c->outputs + at * wo, y + r * wo, wo * 4);
        }
    }
    free(work);
    return 0;
}

typedef struct {
    const Call *call;
    isize share, failed, next;
} Job;

static void take_share(void *data) {
    Job *job = data;
    for (;;) {
        isize row = __atomic_fetch_add(&job->next, job->share, __ATOMIC_RELAXED);
        if (row >= job->call->batch) return;
        isize rows = job->call->batch - row < job->share ? job->call->batch - row : job->share;
        if (run_rows(job->call, row, rows)) __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
    }
}

int attn_speech_wavenet(const void *call, int pass, int threads, Parallel parallel) {
    (void)pass;
    const Call *c = call;
    if (threads > c->batch) threads = (int)c->batch;
    Job job = {c, (c->batch + threads - 1) / threads, 0, 0};
    run_team(take_share, &job, threads, parallel);
    return (int)job.failed;
}
