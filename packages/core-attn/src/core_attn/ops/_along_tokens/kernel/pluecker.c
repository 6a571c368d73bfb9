/* The mean of normed Pluecker coordinates. A walk takes one text, forward also pieces of one.
 *
 * All planes of a token share its own state u, and a plane u ^ v is u ^ v' of the part v' of v that
 * is orthogonal to u, with norm |u| |v'|. So the mean of the normed planes is u ^ w with
 * w = mean v' / max(|u| |v'|, eps): per token 4 r flops for each offset and 1.5 r^2 for the one
 * plane, whose r (r - 1) / 2 numbers are all that is written. Bound by writing them.
 *
 * Backward, with G the antisymmetric matrix of the gradient, n the number of offsets, s = u' G v' /
 * (n N), and M p for the gradient with respect to p: M v' = (G v' / n - s u |v'|^2 / N) / N and
 * M u = (G u / n + s v' |u|^2 / N) / N; terms in s vanish where the norm N is eps. Then du += M v
 * and dv -= M u. */
#include "along.h"
#include <math.h>

typedef struct {
    isize batch, tokens, dim, count;
    const isize *offsets;
    const float *z;
    float *out;
    const float *grad;
    float *dz;
    float eps;
} Pluecker;

enum { STRIDE = 256 }; /* tokens of a piece */

static inline float dot(const float *a, const float *b, isize n) {
    float sum = 0;
    for (isize i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* v' = v - along u; returns |v'|^2. */
static inline float orthogonal(const float *u, const float *v, float along, float *rest, isize r) {
    float square = 0;
    for (isize i = 0; i < r; i++) {
        rest[i] = v[i] - along * u[i];
        square += rest[i] * rest[i];
    }
    return square;
}

static inline float share_of(const float *u, const float *v, float square, isize r) {
    return square > 0 ? dot(u, v, r) / square : 0;
}

static int planes(const void *call, isize item, float *scratch) {
    const Pluecker *x = call;
    isize r = x->dim, pairs = r * (r - 1) / 2, pieces = (x->tokens + STRIDE - 1) / STRIDE;
    isize b = item / pieces, begin = item % pieces * STRIDE;
    isize end = begin + STRIDE < x->tokens ? begin + STRIDE : x->tokens;
    const float *z = x->z + b * x->tokens * r;
    float *w = scratch, *rest = scratch + r;
    for (isize t = begin; t < end; t++) {
        const float *u = z + t * r;
        float *out = x->out + (b * x->tokens + t) * pairs, square = dot(u, u, r);
        isize n = 0;
        memset(w, 0, r * sizeof(float));
        for (isize o = 0; o < x->count; o++) {
            isize partner = t - x->offsets[o];
            if (partner < 0 || partner >= x->tokens) continue;
            const float *v = z + partner * r;
            float norm = sqrtf(square * orthogonal(u, v, share_of(u, v, square, r), rest, r));
            float factor = 1 / (norm > x->eps ? norm : x->eps);
            for (isize i = 0; i < r; i++) w[i] += factor * rest[i];
            n++;
        }
        for (isize i = 0; i < r && n > 1; i++) w[i] /= n;
        for (isize i = 0; i < r - 1; i++) {
            float a = u[i], c = w[i];
            for (isize j = i + 1; j < r; j++) out[j - i - 1] = a * w[j] - c * u[j];
            out += r - i - 1;
        }
    }
    return 0;
}

/* y = G a for the antisymmetric matrix whose upper half is g. */
static inline void turned(const float *g, const float *a, float *y, isize r) {
    memset(y, 0, r * sizeof(float));
    for (isize i = 0; i < r - 1; i++) {
        float sum = 0, own = a[i];
        const float *row = g - i - 1, *b = a;
        for (isize j = i + 1; j < r; j++) {
            sum += row[j] * b[j];
            y[j] -= row[j] * own;
        }
        y[i] += sum;
        g += r - i - 1;
    }
}

static int planes_back(const void *call, isize b, float *scratch) {
    const Pluecker *x = call;
    isize r = x->dim, pairs = r * (r - 1) / 2;
    const float *z = x->z + b * x->tokens * r;
    float *dz = x->dz + b * x->tokens * r;
    float *rest = scratch, *gu = scratch + r, *gv = scratch + 2 * r;
    memset(dz, 0, x->tokens * r * sizeof(float));
    for (isize t = 0; t < x->tokens; t++) {
        const float *u = z + t * r, *g = x->grad + (b * x->tokens + t) * pairs;
        float *du = dz + t * r, square = dot(u, u, r);
        isize n = 0;
        for (isize o = 0; o < x->count; o++) {
            isize partner = t - x->offsets[o];
            n += partner >= 0 && partner < x->tokens;
        }
        if (!n) continue;
        turned(g, u, gu, r);
        for (isize o = 0; o < x->count; o++) {
            isize partner = t - x->offsets[o];
            if (partner < 0 || partner >= x->tokens) continue;
            const float *v = z + partner * r;
            float *dv = dz + partner * r, along = share_of(u, v, square, r);
            float apart = orthogonal(u, v, along, rest, r), norm = sqrtf(square * apart);
            int free = norm > x->eps;
            float N = free ? norm : x->eps;
            turned(g, rest, gv, r);
            float s = free ? dot(u, gv, r) / (n * N) : 0;
            for (isize i = 0; i < r; i++) {
                float mu = (gu[i] / n + s * rest[i] * square / N) / N;
                float mv = (gv[i] / n - s * u[i] * apart / N) / N;
                du[i] += mv + along * mu;
                dv[i] -= mu;
            }
        }
    }
    return 0;
}

int core_attn_pluecker(const void *call, int pass, int threads, Parallel parallel) {
    const Pluecker *x = call;
    isize pieces = (x->tokens + STRIDE - 1) / STRIDE;
    if (pass) return deal(call, planes_back, x->batch, 3 * x->dim, threads, parallel);
    return deal(call, planes, x->batch * pieces, 2 * x->dim, threads, parallel);
}
