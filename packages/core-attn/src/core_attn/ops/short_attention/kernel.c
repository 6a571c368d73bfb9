/* Attention for many small problems: forward, backward and the derivative of the backward.
 *
 * One (problem, head) pair is solved at a time, on chip. Scores are kept transposed, keys down and
 * queries across the vector lanes, so that maximum, sum and every other reduction of the softmax
 * runs down the rows without a horizontal step. All products go through one routine, `multiply`,
 * which holds a block of up to 4 x 3 vectors in registers: 12 multiply-adds for 7 loads.
 *
 * Per pair of n tokens and d channels the forward does 4 n n d operations, the backward 10 n n d
 * and its derivative 24 n n d, for 16 n d, 28 n d and 56 n d bytes; with n >= 16 the arithmetic
 * is the bound, not the memory.
 *
 * Plain C with GCC / clang vector extensions. No reference to torch or Python.
 */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define TILE (LANES < 8 ? 4 : 8) /* rows and columns transposed at once */
#define UNROLL _Pragma("GCC unroll 8")
#define LOG2E 1.44269504088896340736f
#define ROUND 12582912.0f /* 1.5 * 2^23: the last bit of a float of this size is worth one */

#define MOST_AHEAD 6144 /* cache lines: 384 kB, what a second-level cache spares */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float tile __attribute__((vector_size(4 * TILE), aligned(4), may_alias));
typedef int64_t isize;

/* An array with the strides, in elements, of its problem, head, row (token) and column axes. */
typedef struct {
    void *data;
    isize problem, head, row, column;
} View;

/* Mirrored by cpu.py. Absent arrays have data NULL. A name with `d` before it is a gradient, one
 * with `t` before it a direction (the gradient that reaches a gradient). */
typedef struct {
    isize problems, heads, queries, keys, dim, v_dim;
    const isize *offsets; /* packed: queries and keys of a problem start here, else NULL */
    float scale;
    View q, k, v, bias, mask, gate, out;
    View grad, dq, dk, dv, dbias, dgate;
    View tq, tk, tv, tbias, tgate, dgrad;
} Call;

/* Memory that the next problem will touch, in runs of whole cache lines. */
typedef struct {
    const float *from;
    isize stride, runs, lines;
} Area;
typedef struct {
    Area areas[15];
    int count;
    isize done, step, blocks; /* lines of the run; lines beside each block; blocks since `plan` */
} Ahead;

/* What one thread works in, and the problem it works on. */
typedef struct {
    const Call *call;
    isize problem, head, start, queries, keys, width; /* width: queries rounded up to LANES */
    float *qt, *gt, *tqt;           /* transposed operands, (dim, width) */
    float *scores, *dp, *ds, *w;    /* (keys, width) */
    float *packed[2];               /* operands and results by rows, padded to whole vectors */
    float *row[4];                  /* (width): one number per query */
    float *bias_sum;                /* (keys, width), where all problems share the bias */
    Ahead *ahead;
} Work;

static inline isize round_up(isize n, isize step) { return (n + step - 1) / step * step; }
static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec x) { *(vec *)p = x; }
static inline vec splat(float x) { return x - (vec){0}; }
static inline vec pick(ivec yes, vec a, vec b) { return (vec)((yes & (ivec)a) | (~yes & (ivec)b)); }

#if defined(__AVX512F__)
#include <immintrin.h>
static inline vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
#elif defined(__AVX__)
#include <immintrin.h>
static inline vec larger(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
#else
static inline vec larger(vec a, vec b) { return pick(a > b, a, b); }
#endif

/* 2^(x - most) for whole numbers `most` >= x - 0.5 below 2^22, relative error 2e-7; exactly 0 from
 * x = most - 127 down, NaN for NaN. */
static inline vec exp2_below(vec x, vec most) {
    x = larger(most - 127.0f, x);
    vec unit = ROUND - most, shifted = x + unit; /* its last bits hold the rounded x - most */
    vec f = x - (shifted - unit);
    vec p = f * 1.32647273e-3f + 9.67151299e-3f;
    p = p * f + 5.55073358e-2f;
    p = p * f + 2.40222424e-1f;
    p = p * f + 6.93147004e-1f;
    p = p * f + 1.0f;
    return (vec)((ivec)p + ((ivec)shifted << 23));
}

/* t[c][r] = row[r][first + c]; the two halves of rows 4 apart are joined as they are loaded. */
static inline void transpose(const float *const row[TILE], isize first, tile t[TILE]) {
#define MIX __builtin_shufflevector
#if TILE == 8
    typedef float half __attribute__((vector_size(16), aligned(4), may_alias));
    UNROLL for (int i = 0; i < 4; i++) {
        const half *upper = (half *)(row[i] + first), *lower = (half *)(row[i + 4] + first);
        t[i] = MIX(upper[0], lower[0], 0, 1, 2, 3, 4, 5, 6, 7);
        t[i + 4] = MIX(upper[1], lower[1], 0, 1, 2, 3, 4, 5, 6, 7);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        tile a = MIX(t[i], t[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        tile b = MIX(t[i], t[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
        tile c = MIX(t[i + 2], t[i + 3], 0, 8, 1, 9, 4, 12, 5, 13);
        tile d = MIX(t[i + 2], t[i + 3], 2, 10, 3, 11, 6, 14, 7, 15);
        t[i] = MIX(a, c, 0, 1, 8, 9, 4, 5, 12, 13);
        t[i + 1] = MIX(a, c, 2, 3, 10, 11, 6, 7, 14, 15);
        t[i + 2] = MIX(b, d, 0, 1, 8, 9, 4, 5, 12, 13);
        t[i + 3] = MIX(b, d, 2, 3, 10, 11, 6, 7, 14, 15);
    }
#else
    UNROLL for (int i = 0; i < 4; i++) t[i] = *(tile *)(row[i] + first);
    tile a = MIX(t[0], t[1], 0, 4, 1, 5), b = MIX(t[0], t[1], 2, 6, 3, 7);
    tile c = MIX(t[2], t[3], 0, 4, 1, 5), d = MIX(t[2], t[3], 2, 6, 3, 7);
    t[0] = MIX(a, c, 0, 1, 4, 5);
    t[1] = MIX(a, c, 2, 3, 6, 7);
    t[2] = MIX(b, d, 0, 1, 4, 5);
    t[3] = MIX(b, d, 2, 3, 6, 7);
#endif
#undef MIX
}

/* ---- the product ---- */

/* C[r][n] (+)= factor[r] * sum over c of A[r][c] * B[c][n], n over whole vectors; A has any
 * strides, no factor means 1. */
typedef struct {
    const float *a;
    isize a_row, a_depth;
    const float *b;
    isize b_depth;
    float *c;
    isize c_row;
    const float *factor;
    isize factor_row, depth;
    int add;
} Product;

/* Keeps the compiler from loading an operand again for every use. */
#if defined(__x86_64__)
#define IN_REGISTER(x) __asm__ volatile("" : "+v"(x))
#elif defined(__aarch64__)
#define IN_REGISTER(x) __asm__ volatile("" : "+w"(x))
#else
#define IN_REGISTER(x)
#endif

/* R rows by N vectors of the product, R and N constant wherever this is inlined. The side with
 * fewer vectors stays in registers while the other streams by. */
static inline __attribute__((always_inline)) void block(const Product p, const int R, const int N) {
    vec sum[8][4];
    const float *a = p.a, *b = p.b;
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int n = 0; n < N; n++) sum[r][n] = (vec){0};
    for (isize depth = p.depth; depth > 0; depth--, a += p.a_depth, b += p.b_depth) {
        vec x[4], y[8];
        if (N > R) {
            UNROLL for (int r = 0; r < R; r++) {
                y[r] = splat(a[r * p.a_row]);
                IN_REGISTER(y[r]);
            }
            UNROLL for (int n = 0; n < N; n++) {
                x[0] = load(b + n * LANES);
                IN_REGISTER(x[0]);
                UNROLL for (int r = 0; r < R; r++) {
                    sum[r][n] += y[r] * x[0];
                    IN_REGISTER(sum[r][n]);
                }
            }
        } else {
            UNROLL for (int n = 0; n < N; n++) {
                x[n] = load(b + n * LANES);
                IN_REGISTER(x[n]);
            }
            UNROLL for (int r = 0; r < R; r++) {
                y[0] = splat(a[r * p.a_row]);
                UNROLL for (int n = 0; n < N; n++) {
                    sum[r][n] += y[0] * x[n];
                    IN_REGISTER(sum[r][n]);
                }
            }
        }
    }
    UNROLL for (int r = 0; r < R; r++) {
        float *c = p.c + r * p.c_row;
        vec factor = splat(p.factor ? p.factor[r * p.factor_row] : 1.0f);
        UNROLL for (int n = 0; n < N; n++) {
            vec x = sum[r][n];
            if (p.factor) x *= factor;
            if (p.add) x += load(c + n * LANES);
            store(c + n * LANES, x);
        }
    }
}

/* Fetches a few lines ahead. All at once, most requests would find no free buffer and be dropped. */
static inline void fetch(Ahead *ahead) {
    ahead->blocks++;
    for (isize left = ahead->step; left > 0 && ahead->count > 0;) {
        Area *area = &ahead->areas[ahead->count - 1];
        isize end = ahead->done + left < area->lines ? ahead->done + left : area->lines;
        left -= end - ahead->done;
        for (; ahead->done < end; ahead->done++)
            __builtin_prefetch(area->from + ahead->done * 16, 0, 2);
        if (end < area->lines) return;
        ahead->done = 0;
        area->from += area->stride;
        if (--area->runs == 0) ahead->count--;
    }
}

/* N vectors of all rows, in blocks of nearly equal heights up to R: about 12 sums in registers. */
#define STRIP(N, R)                                                                       \
    static void strip_##N(Product p, isize rows, Ahead *ahead) {                          \
        isize blocks = (rows + R - 1) / R, height = rows / blocks, more = rows % blocks;  \
        for (int higher = 1; higher >= 0; higher--)                                       \
            for (isize left = higher ? more : blocks - more; left > 0;)                   \
                switch (height + higher) { CASES_##R(N) }                                 \
    }
#define CASE(R, N)                        \
    case R:                               \
        for (; left > 0; left--) {        \
            fetch(ahead);                 \
            block(p, R, N);               \
            p.a += R * p.a_row;           \
            p.c += R * p.c_row;           \
            p.factor += R * p.factor_row; \
        }                                 \
        break;
#define CASES_3(N) CASE(1, N) CASE(2, N) CASE(3, N)
#define CASES_4(N) CASES_3(N) CASE(4, N)
#define CASES_6(N) CASES_4(N) CASE(5, N) CASE(6, N)
#define CASES_8(N) CASES_6(N) CASE(7, N) CASE(8, N)
STRIP(1, 8)
STRIP(2, 6)
STRIP(3, 4)
STRIP(4, 3)

static void multiply(const Work *w, Product p, isize rows, isize vecs) {
    static void (*const strips[])(Product, isize, Ahead *) = {strip_1, strip_2, strip_3, strip_4};
    for (isize left = (vecs + 3) / 4; left > 0; left--) {
        isize wide = (vecs + left - 1) / left;
        strips[wide - 1](p, rows, w->ahead);
        p.b += wide * LANES;
        p.c += wide * LANES;
        vecs -= wide;
    }
}

/* ---- moving a problem in and out ---- */

static inline float *at(const Work *w, const View *x, isize row) {
    return (float *)x->data + w->problem * x->problem + w->head * x->head +
           (w->start + row) * x->row;
}

/* to[column][row] = factor * x[row][column]; whole vectors are filled up by repeating the last row. */
static void pack_transposed(const Work *w, const View *x, isize columns, float factor, float *to) {
    const float *from = at(w, x, 0);
    for (isize i = 0; i < w->queries; i += TILE) {
        const float *row[TILE];
        for (isize r = 0; r < TILE; r++)
            row[r] = from + (i + r < w->queries ? i + r : w->queries - 1) * x->row;
        isize j = 0;
        for (; j + TILE <= columns; j += TILE) {
            tile t[TILE];
            transpose(row, j, t);
            UNROLL for (int c = 0; c < TILE; c++)
                *(tile *)(to + (j + c) * w->width + i) = t[c] * factor;
        }
        for (; j < columns; j++)
            for (isize r = 0; r < TILE; r++) to[j * w->width + i + r] = row[r][j] * factor;
    }
}

/* Rows of x for the right side of a product: in place where they are whole vectors and close
 * together (far ones fall into few cache sets), else copied to `to` and padded with zeros. */
static const float *by_rows(const Work *w, const View *x, isize rows, isize columns, float *to,
                            isize *stride) {
    const float *from = at(w, x, 0);
    *stride = x->row;
    if (columns % LANES == 0 && x->row <= 256) return from;
    *stride = round_up(columns, LANES);
    for (isize i = 0; i < rows; i++, to += *stride, from += x->row) {
        for (isize j = columns / LANES * LANES; j < *stride; j++) to[j] = j < columns ? from[j] : 0;
        for (isize j = 0; j + LANES <= columns; j += LANES) store(to + j, load(from + j));
    }
    return to - rows * *stride;
}

/* x[rows][columns] (+)= factor * A B for a result that leaves the chip. */
static void multiply_out(const Work *w, const View *x, isize rows, isize columns, Product p) {
    float *out = at(w, x, 0);
    isize whole = round_up(columns, LANES);
    p.c = out;
    p.c_row = x->row;
    if (columns == whole) {
        multiply(w, p, rows, whole / LANES);
        return;
    }
    p.c = w->packed[1];
    p.c_row = whole;
    if (p.add)
        for (isize i = 0; i < rows; i++)
            memcpy(p.c + i * whole, out + i * x->row, columns * sizeof(float));
    multiply(w, p, rows, whole / LANES);
    for (isize i = 0; i < rows; i++)
        memcpy(out + i * x->row, p.c + i * whole, columns * sizeof(float));
}

/* scores[key][query] += factor * bias[query][key], and -inf where the mask forbids. */
static void add_bias(const Work *w, const View *bias, const View *mask, float factor,
                     float *scores) {
    typedef uint8_t bytes __attribute__((vector_size(TILE), aligned(1), may_alias));
    typedef int32_t itile __attribute__((vector_size(4 * TILE)));
    const float *b = (const float *)bias->data;
    const uint8_t *m = (const uint8_t *)mask->data;
    if (!b && !m) return;
    if (b) b += w->problem * bias->problem + w->head * bias->head;
    if (m) m += w->problem * mask->problem + w->head * mask->head;
    if ((!b || bias->row == 0) && (!m || mask->row == 0)) { /* the same for every query */
        for (isize j = 0; j < w->keys; j++) {
            float x = (b ? factor * b[j * bias->column] : 0) + (m && !m[j * mask->column] ? -INFINITY : 0);
            if (x != 0)
                for (isize i = 0; i < w->queries; i += LANES)
                    store(scores + j * w->width + i, load(scores + j * w->width + i) + x);
        }
        return;
    }
    for (isize first = 0; first < w->keys; first += TILE) {
        /* The last tile starts early, to stay inside the rows of the bias. */
        isize j0 = first + TILE <= w->keys || w->keys < TILE ? first : w->keys - TILE;
        int inside = j0 + TILE <= w->keys;
        for (isize i0 = 0; i0 < w->queries; i0 += TILE) {
            tile rows[TILE], t[TILE];
            const float *row[TILE];
            for (isize r = 0; r < TILE; r++) {
                isize i = i0 + r < w->queries ? i0 + r : w->queries - 1;
                row[r] = (float *)&rows[r];
                rows[r] = (tile){0};
                if (b && inside && bias->column == 1)
                    rows[r] = *(const tile *)(b + i * bias->row + j0) * factor;
                else if (b)
                    for (isize c = 0; c < TILE && j0 + c < w->keys; c++)
                        rows[r][c] = b[i * bias->row + (j0 + c) * bias->column] * factor;
                itile seen = {0};
                if (m && inside && mask->column == 1)
                    seen = __builtin_convertvector(*(const bytes *)(m + i * mask->row + j0), itile);
                else if (m)
                    for (isize c = 0; c < TILE && j0 + c < w->keys; c++)
                        seen[c] = m[i * mask->row + (j0 + c) * mask->column];
                if (m) rows[r] += (tile)((seen == 0) & (int32_t)0xff800000);
            }
            transpose(row, 0, t);
            for (isize c = first - j0; c < TILE && j0 + c < w->keys; c++) {
                tile *to = (tile *)(scores + (j0 + c) * w->width + i0);
                *to += t[c];
            }
        }
    }
}

/* bias[query][key] = ds[key][query] */
static void write_bias(const Work *w, const View *bias, const float *ds) {
    float *b = (float *)bias->data + w->problem * bias->problem + w->head * bias->head;
    for (isize first = 0; first < w->keys; first += TILE) {
        isize j0 = first + TILE <= w->keys || w->keys < TILE ? first : w->keys - TILE;
        isize columns = w->keys < TILE ? w->keys : TILE;
        for (isize i0 = 0; i0 < w->queries; i0 += TILE) {
            tile t[TILE];
            const float *row[TILE];
            for (isize c = 0; c < TILE; c++)
                row[c] = ds + (j0 + (c < columns ? c : 0)) * w->width + i0;
            transpose(row, 0, t);
            for (isize r = 0; r < TILE && i0 + r < w->queries; r++)
                memcpy(b + (i0 + r) * bias->row + j0, &t[r], columns * sizeof(float));
        }
    }
}

/* Adds ds to the sum over problems, or writes it to the bias gradient of this problem. */
static void finish_bias(const Work *w, const float *ds) {
    if (w->bias_sum)
        for (isize j = 0; j < w->keys; j++)
            for (isize i = j * w->width; i < j * w->width + w->queries; i += LANES)
                store(w->bias_sum + i, load(w->bias_sum + i) + load(ds + i));
    else if (w->call->dbias.data)
        write_bias(w, &w->call->dbias, ds);
}

/* to[row of x][query] (+)= sum over columns of x * transposed */
static void score(const Work *w, const View *x, isize columns, const float *transposed,
                  int add, float *to) {
    Product p = {at(w, x, 0), x->row, 1, transposed, w->width, to, w->width, NULL, 0, columns, add};
    multiply(w, p, w->keys, round_up(w->queries, LANES) / LANES);
}

/* A whole number near the maximum of a column of scores, 0 where all are -inf. */
static inline vec rounded_maximum(const Work *w, float *s) {
    isize n = w->width, end = (w->keys - 1) * n;
    vec most = load(s), other = load(s + end);
    for (isize j = n; j < end; j += 2 * n) { /* two chains; the last row may be seen twice */
        most = larger(most, load(s + j));
        other = larger(other, load(s + j + n));
    }
    most = larger(most, other);
    most = (vec)((ivec)most & (ivec)(most != splat(-INFINITY)));
    const float limit = 1 << 22;
    ivec beyond = (most > limit) | (most < -limit);
    for (int i = 0; i < LANES; i++)
        if (beyond[i]) {
            for (isize j = 0; j <= end; j += n) store(s + j, load(s + j) - most);
            return (vec){0};
        }
    return (most + ROUND) - ROUND;
}

/* Fills scores with exp(s - m), m near the maximum, and inverse with 1 / sum, 0 for a query that
 * sees no key. */
static void softmax(const Work *w, float *scores, float *inverse) {
    isize n = w->width, end = w->keys / 2 * 2 * n;
    for (isize i = 0; i < w->queries; i += LANES, scores += LANES) {
        vec most = rounded_maximum(w, scores), sum = {0}, other = {0};
        for (isize j = 0; j < end; j += 2 * n) {
            vec a = exp2_below(load(scores + j), most);
            vec b = exp2_below(load(scores + j + n), most);
            store(scores + j, a);
            store(scores + j + n, b);
            sum += a;
            other += b;
        }
        if (w->keys % 2) {
            vec a = exp2_below(load(scores + end), most);
            store(scores + end, a);
            sum += a;
        }
        sum += other;
        store(inverse + i, pick(sum == 0, sum, 1.0f / sum));
    }
}

/* The unnormalised weights of the problem in w->scores, 1 / sum in row[0], the gate in row[1]; it
 * is 0 for the repeated queries, so that nothing of theirs reaches a gradient. */
static void weigh(const Work *w) {
    const Call *c = w->call;
    pack_transposed(w, &c->q, c->dim, c->scale * LOG2E, w->qt);
    score(w, &c->k, c->dim, w->qt, 0, w->scores);
    add_bias(w, &c->bias, &c->mask, LOG2E, w->scores);
    softmax(w, w->scores, w->row[0]);
    for (isize i = 0; i < w->width; i++) w->row[1][i] = i < w->queries;
    if (c->gate.data)
        for (isize i = 0; i < w->queries; i++) w->row[1][i] = *at(w, &c->gate, i);
}

static void write_gate(const Work *w, const View *gate, const float *x) {
    float sum = 0;
    if (gate->row)
        for (isize i = 0; i < w->queries; i++) *at(w, gate, i) = x[i];
    else {
        for (isize i = 0; i < w->queries; i++) sum += x[i];
        *at(w, gate, 0) = sum;
    }
}

/* ---- the three passes over one problem ---- */

static void forward(const Work *w) {
    const Call *c = w->call;
    weigh(w);
    float *factor = w->row[0];
    for (isize i = 0; i < w->width; i++) factor[i] *= w->row[1][i];
    isize stride;
    const float *v = by_rows(w, &c->v, w->keys, c->v_dim, w->packed[0], &stride);
    Product p = {w->scores, 1, w->width, v, stride, 0, 0, factor, 1, w->keys, 0};
    multiply_out(w, &c->out, w->queries, c->v_dim, p);
}

/* With h = gate * grad, P the weights: dV = P^T h; dP = grad V^T; delta = sum P dP, which is also
 * the gradient of the gate; dS = gate P (dP - delta); dQ = scale dS K; dK = scale dS^T Q. */
static void backward(const Work *w) {
    const Call *c = w->call;
    weigh(w);
    pack_transposed(w, &c->grad, c->v_dim, 1.0f, w->gt);
    score(w, &c->v, c->v_dim, w->gt, 0, w->dp);
    isize n = w->width;
    for (isize i = 0; i < w->queries; i += LANES) {
        vec inverse = load(w->row[0] + i), gate = load(w->row[1] + i), delta = {0};
        for (isize j = 0; j < w->keys; j++)
            delta += load(w->scores + j * n + i) * load(w->dp + j * n + i);
        delta *= inverse;
        store(w->row[2] + i, delta);
        inverse *= gate;
        for (isize j = 0; j < w->keys; j++) {
            vec weight = load(w->scores + j * n + i) * inverse;
            store(w->scores + j * n + i, weight);
            store(w->dp + j * n + i, weight * (load(w->dp + j * n + i) - delta));
        }
    }
    isize stride;
    const float *x = by_rows(w, &c->grad, w->queries, c->v_dim, w->packed[0], &stride);
    Product dv = {w->scores, n, 1, x, stride, 0, 0, 0, 0, w->queries, 0};
    multiply_out(w, &c->dv, w->keys, c->v_dim, dv);
    x = by_rows(w, &c->q, w->queries, c->dim, w->packed[0], &stride);
    Product dk = {w->dp, n, 1, x, stride, 0, 0, &c->scale, 0, w->queries, 0};
    multiply_out(w, &c->dk, w->keys, c->dim, dk);
    x = by_rows(w, &c->k, w->keys, c->dim, w->packed[0], &stride);
    Product dq = {w->dp, 1, n, x, stride, 0, 0, &c->scale, 0, w->keys, 0};
    multiply_out(w, &c->dq, w->queries, c->dim, dq);
    finish_bias(w, w->dp);
    if (c->dgate.data) write_gate(w, &c->dgate, w->row[2]);
}

/* The derivative of the backward along directions tq, tk, tv, tbias, tgate of its five results:
 * with tS = scale (tQ K^T + Q tK^T) + tbias, W = grad tV^T and u = sum P tS, the number
 * differentiated is sum gate P ((tS - u) dP + W) + tgate delta. */
static void backward_backward(const Work *w) {
    static const View absent;
    const Call *c = w->call;
    isize n = w->width;
    weigh(w);
    pack_transposed(w, &c->grad, c->v_dim, 1.0f, w->gt);
    pack_transposed(w, &c->tq, c->dim, c->scale, w->tqt);
    score(w, &c->v, c->v_dim, w->gt, 0, w->dp);
    score(w, &c->tv, c->v_dim, w->gt, 0, w->w);
    score(w, &c->k, c->dim, w->tqt, 0, w->ds);
    pack_transposed(w, &c->q, c->dim, c->scale, w->qt);
    score(w, &c->tk, c->dim, w->qt, 1, w->ds);
    add_bias(w, &c->tbias, &absent, 1.0f, w->ds);
    for (isize i = 0; i < n; i++)
        w->row[3][i] = c->tgate.data && i < w->queries ? *at(w, &c->tgate, i) : 0.0f;
    for (isize i = 0; i < w->queries; i += LANES) {
        vec inverse = load(w->row[0] + i), gate = load(w->row[1] + i), tgate = load(w->row[3] + i);
        vec u = {0}, delta = {0}, both = {0}, direct = {0};
        for (isize j = 0; j < w->keys; j++) {
            vec p = load(w->scores + j * n + i), dp = load(w->dp + j * n + i);
            vec pts = p * load(w->ds + j * n + i);
            u += pts;
            delta += p * dp;
            both += pts * dp;
            direct += p * load(w->w + j * n + i);
        }
        u *= inverse, delta *= inverse;
        vec dgate = (both + direct) * inverse - u * delta;
        vec mean = gate * (dgate - u * delta) + tgate * delta;
        store(w->row[2] + i, dgate);
        for (isize j = 0; j < w->keys; j++) {
            vec p = load(w->scores + j * n + i) * inverse, dp = load(w->dp + j * n + i);
            vec ts = load(w->ds + j * n + i), direct = load(w->w + j * n + i);
            store(w->scores + j * n + i, gate * p);
            store(w->dp + j * n + i, gate * p * (dp - delta));
            store(w->ds + j * n + i, p * (gate * (ts - u) + tgate));
            store(w->w + j * n + i,
                  p * (gate * ((ts - u) * dp - ts * delta + direct) + tgate * dp - mean));
        }
    }
    isize stride;
    const float *x = by_rows(w, &c->tk, w->keys, c->dim, w->packed[0], &stride);
    Product dq = {w->dp, 1, n, x, stride, 0, 0, &c->scale, 0, w->keys, 0};
    multiply_out(w, &c->dq, w->queries, c->dim, dq);
    dq.a = w->w, dq.add = 1;
    dq.b = by_rows(w, &c->k, w->keys, c->dim, w->packed[0], &dq.b_depth);
    multiply_out(w, &c->dq, w->queries, c->dim, dq);

    x = by_rows(w, &c->tq, w->queries, c->dim, w->packed[0], &stride);
    Product dk = {w->dp, n, 1, x, stride, 0, 0, &c->scale, 0, w->queries, 0};
    multiply_out(w, &c->dk, w->keys, c->dim, dk);
    dk.a = w->w, dk.add = 1;
    dk.b = by_rows(w, &c->q, w->queries, c->dim, w->packed[0], &dk.b_depth);
    multiply_out(w, &c->dk, w->keys, c->dim, dk);

    x = by_rows(w, &c->grad, w->queries, c->v_dim, w->packed[0], &stride);
    Product dv = {w->ds, n, 1, x, stride, 0, 0, 0, 0, w->queries, 0};
    multiply_out(w, &c->dv, w->keys, c->v_dim, dv);

    x = by_rows(w, &c->v, w->keys, c->v_dim, w->packed[0], &stride);
    Product dgrad = {w->ds, 1, n, x, stride, 0, 0, 0, 0, w->keys, 0};
    multiply_out(w, &c->dgrad, w->queries, c->v_dim, dgrad);
    dgrad.a = w->scores, dgrad.add = 1;
    dgrad.b = by_rows(w, &c->tv, w->keys, c->v_dim, w->packed[0], &dgrad.b_depth);
    multiply_out(w, &c->dgrad, w->queries, c->v_dim, dgrad);
    finish_bias(w, w->w);
    if (c->dgate.data) write_gate(w, &c->dgate, w->row[2]);
}

/* ---- all problems, over threads ---- */

/* Adds the rows of x in the next problem to what is to be fetched. */
static void plan_rows(const Work *w, const View *x, isize rows, isize columns) {
    const Call *c = w->call;
    isize next = w->problem + 1;
    if (!x->data) return;
    isize start = c->offsets ? c->offsets[next] : 0;
    if (c->offsets) rows = c->offsets[next + 1] - start;
    const float *from = (float *)x->data + next * x->problem + start * x->row;
    Area area = {from, x->row, rows, c->heads * columns}; /* heads lie inside of tokens */
    if (x->row == columns) area = (Area){from, x->head, c->heads, rows * columns};
    if (area.stride == area.lines) area.lines *= area.runs, area.runs = 1;
    area.lines = (area.lines + 15) / 16;
    if (rows > 0) w->ahead->areas[w->ahead->count++] = area;
}

/* Looks ahead at the next problem; its lines are spread over as many blocks as this one's took. A
 * prefetcher of the machine loses the way between problems, and in the strides of split heads. */
static void plan(const Work *w) {
    const Call *c = w->call;
    Ahead *ahead = w->ahead;
    ahead->count = ahead->done = 0;
    if (w->problem + 1 == c->problems) return;
    const View *queries[] = {&c->q, &c->dq, &c->tq}, *keys[] = {&c->k, &c->dk, &c->tk};
    const View *values[] = {&c->v, &c->dv, &c->tv}, *outputs[] = {&c->out, &c->grad, &c->dgrad};
    const View *bias[] = {&c->bias, &c->dbias, &c->tbias};
    for (int i = 0; i < 3; i++) {
        plan_rows(w, outputs[i], c->queries, c->v_dim);
        plan_rows(w, values[i], c->keys, c->v_dim);
        plan_rows(w, keys[i], c->keys, c->dim);
        plan_rows(w, queries[i], c->queries, c->dim);
        if (bias[i]->problem && !c->offsets) plan_rows(w, bias[i], c->queries, c->keys);
    }
    isize lines = 0;
    for (int i = 0; i < ahead->count; i++) lines += ahead->areas[i].runs * ahead->areas[i].lines;
    if (lines > MOST_AHEAD) ahead->count = 0;
    if (ahead->blocks) ahead->step = lines / ahead->blocks + 1;
    ahead->blocks = 0;
}

typedef void (*Parallel)(void (*run)(void *), void *data, unsigned threads, unsigned flags);

typedef struct {
    const Call *call;
    void (*solve)(const Work *);
    isize longest_queries, longest_keys, chunks, next; /* next: taken by whoever is free */
    float *bias_sums;                                  /* (chunks, heads, keys, width) or NULL */
    int failed;
} Job;

static void solve_chunks(void *data) {
    Job *job = data;
    const Call *c = job->call;
    isize width = round_up(job->longest_queries, LANES), keys = job->longest_keys;
    isize tokens = keys > width ? keys : width;
    isize dim = round_up(c->dim > c->v_dim ? c->dim : c->v_dim, LANES);
    Ahead ahead = {.step = 8};
    Work w = {.call = c, .width = width, .ahead = &ahead};
    float **arrays[] = {&w.qt, &w.gt, &w.tqt, &w.scores, &w.dp, &w.ds, &w.w, &w.packed[0],
                        &w.packed[1], &w.row[0], &w.row[1], &w.row[2], &w.row[3]};
    isize sizes[] = {dim * width, dim * width, dim * width, keys * width, keys * width,
                     keys * width, keys * width, tokens * dim, tokens * dim, width, width, width,
                     width};
    isize total = 16, count = sizeof sizes / sizeof *sizes;
    for (isize i = 0; i < count; i++) total += sizes[i];
    float *memory = malloc(total * sizeof(float));
    if (!memory) {
        job->failed = 1;
        return;
    }
    float *free_from = (float *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    for (isize i = 0; i < count; i++, free_from += sizes[i - 1]) *arrays[i] = free_from;
    isize items = c->problems * c->heads;
    for (;;) {
        isize chunk = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (chunk >= job->chunks) break;
        isize end = items * (chunk + 1) / job->chunks;
        for (isize item = items * chunk / job->chunks; item < end; item++) {
            w.problem = item / c->heads, w.head = item % c->heads;
            w.start = c->offsets ? c->offsets[w.problem] : 0;
            w.queries = c->offsets ? c->offsets[w.problem + 1] - w.start : c->queries;
            w.keys = c->offsets ? w.queries : c->keys;
            if (job->bias_sums)
                w.bias_sum = job->bias_sums + (chunk * c->heads + w.head) * keys * width;
            if (w.head == 0) plan(&w);
            if (w.queries > 0 && w.keys > 0) job->solve(&w);
        }
    }
    free(memory);
}

static void *solve_in_thread(void *job) {
    solve_chunks(job);
    return NULL;
}

/* Adds up what the chunks gave for a bias shared by all problems. */
static void write_bias_sum(Job *job) {
    const Call *c = job->call;
    isize width = round_up(job->longest_queries, LANES), size = job->longest_keys * width;
    for (isize head = 0; head < c->heads; head++) {
        float *sum = job->bias_sums + head * size;
        for (isize chunk = 1; chunk < job->chunks; chunk++)
            for (isize i = 0; i < size; i++) sum[i] += sum[chunk * c->heads * size + i];
        Work w = {.call = c, .head = head, .width = width, .queries = job->longest_queries,
                  .keys = job->longest_keys};
        write_bias(&w, &c->dbias, sum);
    }
}

/* Asks for huge pages where a large result is about to be touched for the first time: taking 4 kB
 * faults one by one can cost more than the attention. */
static void prepare(const View *x, isize floats) {
#ifdef MADV_HUGEPAGE
    const uintptr_t huge = 1 << 21, start = (uintptr_t)x->data;
    uintptr_t from = (start + huge - 1) / huge * huge, to = (start + 4 * floats) / huge * huge;
    if (x->data && to > from) madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)x, (void)floats;
#endif
}

/* Runs pass 0 (forward), 1 (backward) or 2 (its derivative); `parallel` is GOMP_parallel of the
 * OpenMP runtime at hand, or NULL for threads of our own. Chunks, and with them every sum, do not
 * depend on the number of threads. Returns 0, or 1 where memory ran out. */
int core_attn_short_attention(const Call *call, int pass, int threads, Parallel parallel) {
    static void (*const passes[])(const Work *) = {forward, backward, backward_backward};
    Job job = {.call = call, .solve = passes[pass], .longest_queries = call->queries,
               .longest_keys = call->keys};
    isize items = call->problems * call->heads;
    if (call->offsets) {
        job.longest_queries = 0;
        for (isize p = 0; p < call->problems; p++) {
            isize tokens = call->offsets[p + 1] - call->offsets[p];
            if (tokens > job.longest_queries) job.longest_queries = tokens;
        }
        job.longest_keys = job.longest_queries;
    }
    if (items == 0 || job.longest_queries == 0) return 0;
    isize rows = call->offsets ? call->offsets[call->problems] : call->problems * call->queries;
    isize key_rows = call->offsets ? rows : call->problems * call->keys;
    prepare(&call->out, rows * call->heads * call->v_dim);
    prepare(&call->dgrad, rows * call->heads * call->v_dim);
    prepare(&call->dq, rows * call->heads * call->dim);
    prepare(&call->dk, key_rows * call->heads * call->dim);
    prepare(&call->dv, key_rows * call->heads * call->v_dim);
    int shared = call->dbias.data && call->dbias.problem == 0;
    isize most = shared ? 32 : 256;
    job.chunks = items < most ? items : most;
    if (shared) {
        isize size = job.longest_keys * round_up(job.longest_queries, LANES);
        job.bias_sums = calloc(job.chunks * call->heads * size, sizeof(float));
        if (!job.bias_sums) return 1;
    }
    if (threads > job.chunks) threads = job.chunks;
    if (threads > 1 && parallel) {
        parallel(solve_chunks, &job, threads, 0);
    } else {
        pthread_t team[threads > 1 ? threads - 1 : 1];
        int started = 0;
        while (started < threads - 1 &&
               pthread_create(&team[started], NULL, solve_in_thread, &job) == 0)
            started++;
        solve_chunks(&job);
        for (int i = 0; i < started; i++) pthread_join(team[i], NULL);
    }
    if (shared) {
        write_bias_sum(&job);
        free(job.bias_sums);
    }
    return job.failed;
}
