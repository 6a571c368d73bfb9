/* Steps of the sparse optimisers, a table's row at a time: what torch does in a dozen passes over
 * gathered copies, done while the row is in the cache. */
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>

#include "team.h"

enum { LINE = 16, AHEAD = 12 }; /* floats of a cache line; rows fetched ahead */
enum { NEAR = 512 };            /* gaps below this are looked up */

typedef struct {
    int64_t count, width, stride; /* stride: from a row's moments to those of the next row */
    const int64_t *rows, *order;  /* rows ascend where there is an order: that of the gradients */
    const float *grad;            /* (count, width) before ordering; NULL: only catch up */
    const float *value;           /* (count) and (count, width), to read the rows times a value */
    float *out;
    float *weight, *mean, *square;
    int32_t *at;          /* the step each row is at */
    const double *missed; /* (3, capacity): A_n from step start + i to now */
    int64_t capacity, start, now;
    double beta1, beta2; /* 1 - beta2 would lose five digits in single precision */
    float lr, eps;
} Adam;

typedef struct {
    int64_t count, width;
    const int64_t *rows, *order;
    const float *grad;
    float *weight, *total; /* the accumulators, one a row */
    float lr, eps;
} Adagrad;

/* Steps the rows that a part of the work owns. */
typedef void (*Step)(const void *call, int part, int parts);

typedef struct {
    Step step;
    const void *call;
    int parts;
    atomic_int next;
} Job;

/* GCC drops calls of functions that only prefetch: these are inlined before it looks. */
#define INLINE static inline __attribute__((always_inline))

INLINE void fetch(const float *from, int64_t floats) {
    for (int64_t c = 0; c < floats; c += LINE) __builtin_prefetch(from + c, 1);
}

/* Whether a part owns a row; every row has one owner, so that no two threads write to it. */
static inline int owns(int64_t row, int part, int parts) {
    return parts == 1 || row % parts == part;
}

/* Sums the gradients of the row at place i into `sum`; returns the place after its last one. */
static int64_t gather(const int64_t *rows, const int64_t *order, const float *grad, int64_t i,
                      int64_t count, int64_t width, float *sum) {
    const float *first = grad + order[i] * width;
    for (int64_t c = 0; c < width; c++) sum[c] = first[c];
    int64_t row = rows[i++];
    for (; i < count && rows[i] == row; i++) {
        const float *more = grad + order[i] * width;
        for (int64_t c = 0; c < width; c++) sum[c] += more[c];
    }
    return i;
}

/* beta^gap, of which the smaller ones are known. */
typedef struct {
    double log_beta;
    float known[NEAR];
} Powers;

static Powers powers(double beta) {
    Powers p = {log2(beta), {1}};
    for (int gap = 1; gap < NEAR; gap++) p.known[gap] = exp2f(gap * p.log_beta);
    return p;
}

static inline float power(const Powers *p, int64_t gap) {
    return gap < NEAR ? p->known[gap] : exp2f(gap * p->log_beta);
}

INLINE void fetch_row(const Adam *a, int64_t row) {
    fetch(a->weight + row * a->width, a->width);
    fetch(a->mean + row * a->stride, a->width);
    fetch(a->square + row * a->stride, a->width);
    __builtin_prefetch(a->at + row, 1);
}

/* What a row has missed, in the closed form of DeferredAdam. */
typedef struct {
    float zeroth, first, second;
} Missed;

static inline Missed missed(const Adam *a, int64_t row) {
    const double *since = a->missed + (a->at[row] - a->start);
    return (Missed){since[0], since[a->capacity], since[2 * a->capacity]};
}

static inline float moved(const Missed *m, float weight, float mean, float square, float eps) {
    float damped = sqrtf(square) + eps, share = eps / damped;
    return weight - mean / damped * ((share * m->second - m->first) * share + m->zeroth);
}

/* Takes the steps a row has missed. */
static void catch_up(const Adam *a, int64_t row, const Powers *beta1, const Powers *beta2) {
    const Missed m = missed(a, row);
    int64_t gap = a->now - a->at[row];
    float fade1 = power(beta1, gap), fade2 = power(beta2, gap), eps = a->eps;
    float *restrict weight = a->weight + row * a->width;
    float *restrict mean = a->mean + row * a->stride;
    float *restrict square = a->square + row * a->stride;
    for (int64_t c = 0; c < a->width; c++) {
        weight[c] = moved(&m, weight[c], mean[c], square[c], eps);
        mean[c] *= fade1;
        square[c] *= fade2;
    }
    a->at[row] = a->now;
}

static void step_adam(const void *call, int part, int parts) {
    const Adam *a = call;
    float sum[a->width], lr = a->lr, eps = a->eps;
    float rest1 = 1 - a->beta1, keep2 = a->beta2, rest2 = 1 - a->beta2;
    Powers beta1 = powers(a->beta1), beta2 = powers(a->beta2);
    for (int64_t i = 0; i < a->count;) {
        if (i + AHEAD < a->count && owns(a->rows[i + AHEAD], part, parts)) {
            fetch_row(a, a->rows[i + AHEAD]);
            if (a->grad) fetch(a->grad + a->order[i + AHEAD] * a->width, a->width);
        }
        int64_t row = a->rows[i];
        if (!owns(row, part, parts)) {
            i++;
            continue;
        }
        if (a->at[row] < a->now) catch_up(a, row, &beta1, &beta2);
        if (!a->grad) {
            i++;
            continue;
        }
        i = gather(a->rows, a->order, a->grad, i, a->count, a->width, sum);
        float *restrict weight = a->weight + row * a->width;
        float *restrict mean = a->mean + row * a->stride;
        float *restrict square = a->square + row * a->stride;
        for (int64_t c = 0; c < a->width; c++) {
            mean[c] += rest1 * (sum[c] - mean[c]);
            square[c] = keep2 * square[c] + rest2 * sum[c] * sum[c];
            weight[c] -= lr * mean[c] / (sqrtf(square[c]) + eps);
        }
        a->at[row] = a->now + 1;
    }
}

/* out = value times the rows after the steps they missed; the table stays as it is. */
static void read_adam(const void *call, int part, int parts) {
    const Adam *a = call;
    float eps = a->eps;
    int64_t end = a->count * (part + 1) / parts;
    for (int64_t i = a->count * part / parts; i < end; i++) {
        if (i + AHEAD < end) fetch_row(a, a->rows[i + AHEAD]);
        int64_t row = a->rows[i];
        const float *weight = a->weight + row * a->width;
        const float *mean = a->mean + row * a->stride, *square = a->square + row * a->stride;
        float value = a->value[i], *restrict out = a->out + i * a->width;
        if (a->at[row] < a->now) {
            const Missed m = missed(a, row);
            for (int64_t c = 0; c < a->width; c++)
                out[c] = value * moved(&m, weight[c], mean[c], square[c], eps);
        } else
            for (int64_t c = 0; c < a->width; c++) out[c] = value * weight[c];
    }
}

static void step_adagrad(const void *call, int part, int parts) {
    const Adagrad *a = call;
    float sum[a->width];
    for (int64_t i = 0; i < a->count;) {
        if (i + AHEAD < a->count && owns(a->rows[i + AHEAD], part, parts)) {
            fetch(a->weight + a->rows[i + AHEAD] * a->width, a->width);
            __builtin_prefetch(a->total + a->rows[i + AHEAD], 1);
        }
        int64_t row = a->rows[i];
        if (!owns(row, part, parts)) {
            i++;
            continue;
        }
        i = gather(a->rows, a->order, a->grad, i, a->count, a->width, sum);
        float squares = 0, *restrict weight = a->weight + row * a->width;
        for (int64_t c = 0; c < a->width; c++) squares += sum[c] * sum[c];
        a->total[row] += squares / a->width;
        float step = a->lr / (sqrtf(a->total[row]) + a->eps);
        for (int64_t c = 0; c < a->width; c++) weight[c] -= step * sum[c];
    }
}

static void take_parts(void *data) {
    Job *job = data;
    for (int part; (part = atomic_fetch_add(&job->next, 1)) < job->parts;)
        job->step(job->call, part, job->parts);
}

static int solve(Step step, const void *call, int threads, Parallel parallel) {
    Job job = {step, call, threads};
    run_team(take_parts, &job, threads, parallel);
    return 0;
}

int attn_recsys_adam(const Adam *call, int pass, int threads, Parallel parallel) {
    return solve(call->out ? read_adam : step_adam, call, threads, parallel);
}

int attn_recsys_adagrad(const Adagrad *call, int pass, int threads, Parallel parallel) {
    return solve(step_adagrad, call, threads, parallel);
}
