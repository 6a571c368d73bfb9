/* Row-wise work of the network: root mean square norms with two derivatives, and products with a
 * matrix of which each row meets only a band. */
#include <stdlib.h>
#include <string.h>
#include "team.h"
#include "vectors.h"

typedef struct {
    int64_t rows, dim, band, chunks;
    float eps;
    const float *x, *weight, *grad, *tx, *tweight;
    const int64_t *first;
    float *out, *dx, *dweight; /* dweight: (chunks, dim), to be summed */
} Call;

typedef struct {
    const Call *call;
    int pass;
    isize next;
} Job;

/* sum of a b c over a row; c may be NULL */
static float sum3(const float *a, const float *b, const float *c, isize n) {
    vec sum = {0};
    isize i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec x = load(a + i) * load(b + i);
        if (c) x *= load(c + i);
        sum += x;
    }
    float total = 0;
    for (int j = 0; j < LANES; j++) total += sum[j];
    for (; i < n; i++) total += a[i] * b[i] * (c ? c[i] : 1);
    return total;
}

/* y = x r w with r = (mean x^2 + eps)^(-1/2); its gradient; that one's along (tx, tweight). */
static void norm_row(const Call *c, isize row, float *dweight, int pass) {
    const isize n = c->dim, at = row * n;
    const float *x = c->x + at, *w = c->weight;
    const float r = 1 / sqrtf(sum3(x, x, NULL, n) / n + c->eps);
    if (pass == 0) {
        float *out = c->out + at;
        for (isize i = 0; i < n; i++) out[i] = x[i] * r * w[i];
        return;
    }
    const float *g = c->grad + at;
    float *dx = c->dx + at;
    const float cube = r * r * r, m = sum3(g, w, x, n) / n;
    if (pass == 1) {
        for (isize i = 0; i < n; i++) {
            dx[i] = r * g[i] * w[i] - x[i] * cube * m;
            dweight[i] += g[i] * x[i] * r;
        }
        return;
    }
    const float *tx = c->tx + at, *tw = c->tweight;
    float *out = c->out + at;
    const float rt = -cube * sum3(x, tx, NULL, n) / n;
    const float mt = (sum3(g, tw, x, n) + sum3(g, w, tx, n)) / n;
    for (isize i = 0; i < n; i++) {
        out[i] = rt * x[i] * w[i] + r * (tx[i] * w[i] + x[i] * tw[i]);
        dx[i] = rt * g[i] * w[i] + r * g[i] * tw[i] - tx[i] * cube * m -
                x[i] * (3 * r * r * rt * m + cube * mt);
        dweight[i] += g[i] * (tx[i] * r + x[i] * rt);
    }
}

/* x is (rows, band), weight (functions, dim); row e meets weight[first[e]] to [first[e] + band]. */
static void band_row(const Call *c, isize row, int pass) {
    const isize n = c->dim;
    const float *w = c->weight + c->first[row] * n;
    if (pass == 3) { /* out = x W */
        float *out = c->out + row * n;
        const float *x = c->x + row * c->band;
        isize i = 0;
        for (; i + 4 * LANES <= n; i += 4 * LANES) {
            vec s[4] = {{0}};
            for (isize b = 0; b < c->band; b++)
                UNROLL for (int j = 0; j < 4; j++) s[j] += x[b] * load(w + b * n + i + j * LANES);
            UNROLL for (int j = 0; j < 4; j++) store(out + i + j * LANES, s[j]);
        }
        for (; i < n; i++) {
            float s = 0;
            for (isize b = 0; b < c->band; b++) s += x[b] * w[b * n + i];
            out[i] = s;
        }
    } else { /* dx = grad W^T */
        const float *g = c->grad + row * n;
        for (isize b = 0; b < c->band; b++) c->dx[row * c->band + b] = sum3(g, w + b * n, NULL, n);
    }
}

/* Columns [from, to) of dweight (functions, dim) += x^T grad. */
static void band_weight(const Call *c, isize from, isize to) {
    for (isize row = 0; row < c->rows; row++) {
        const float *x = c->x + row * c->band, *g = c->grad + row * c->dim;
        for (isize b = 0; b < c->band; b++) {
            float *d = c->dweight + (c->first[row] + b) * c->dim;
            for (isize i = from; i < to; i++) d[i] += x[b] * g[i];
        }
    }
}

static void solve(void *data) {
    Job *job = data;
    const Call *c = job->call;
    for (;;) {
        isize chunk = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (chunk >= c->chunks) return;
        if (job->pass == 5) {
            band_weight(c, chunk * c->dim / c->chunks, (chunk + 1) * c->dim / c->chunks);
            continue;
        }
        isize from = chunk * c->rows / c->chunks, to = (chunk + 1) * c->rows / c->chunks;
        for (isize row = from; row < to; row++) {
            if (job->pass < 3)
                norm_row(c, row, c->dweight + chunk * c->dim, job->pass);
            else
                band_row(c, row, job->pass);
        }
    }
}

/* Passes 0, 1, 2: norm, backward, its derivative; 3, 4, 5: band product, gradients of x, weight. */
int attn_molecular_rows(const Call *call, int pass, int threads, Parallel parallel) {
    Job job = {.call = call, .pass = pass};
    run_team(solve, &job, threads < call->chunks ? threads : call->chunks, parallel);
    return 0;
}
