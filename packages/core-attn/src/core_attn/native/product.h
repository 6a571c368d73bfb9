/* The one matrix product of all passes, and the memory fetched beside it. */
#include "vectors.h"

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

#define MOST_AHEAD 6144 /* cache lines: 384 kB, what a second-level cache spares */

/* Spreads the lines of all areas over as many blocks as there were since the last time. */
static void spread(Ahead *ahead) {
    isize lines = 0;
    for (int i = 0; i < ahead->count; i++) lines += ahead->areas[i].runs * ahead->areas[i].lines;
    if (lines > MOST_AHEAD) ahead->count = 0;
    if (ahead->blocks) ahead->step = lines / ahead->blocks + 1;
    ahead->blocks = 0;
}

/* C[r][n] (+)= factor[r] * (bias[n] + sum over c of A[r][c] * B[c][n]), n over whole vectors; A has
 * any strides, no factor means 1, no bias 0. `positive` cuts C off below 0. */
typedef struct {
    const float *a;
    isize a_row, a_depth;
    const float *b;
    isize b_depth;
    float *c;
    isize c_row;
    const float *factor;
    isize factor_row, depth;
    int add, positive;
    const float *bias;
} Product;

static const float zeros[4 * LANES];

/* Keeps the compiler from loading an operand again for every use. */
#if defined(__x86_64__)
#define IN_REGISTER(x) __asm__ volatile("" : "+v"(x))
#elif defined(__aarch64__)
#define IN_REGISTER(x) __asm__ volatile("" : "+w"(x))
#else
#define IN_REGISTER(x)
#endif

/* Keeps GCC from reordering sums until they no longer fit; clang does better unhindered. */
#ifdef __clang__
#define IN_ORDER(x)
#else
#define IN_ORDER(x) IN_REGISTER(x)
#endif

/* R rows by N vectors of the product, R and N constant wherever this is inlined. The side with
 * fewer vectors stays in registers while the other streams by. */
static inline __attribute__((always_inline)) void block(const Product p, const int R, const int N) {
    vec sum[8][4];
    const float *a = p.a, *b = p.b;
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int n = 0; n < N; n++) sum[r][n] = load(p.bias + n * LANES);
    const vec least = splat(p.positive ? 0 : -INFINITY);
    for (isize depth = p.depth; depth > 0; depth--, a += p.a_depth, b += p.b_depth) {
        vec x[4], y[8];
        if (N > R) {
            UNROLL for (int r = 0; r < R; r++) {
                y[r] = splat(a[r * p.a_row]);
                IN_ORDER(y[r]);
            }
            UNROLL for (int n = 0; n < N; n++) {
                x[0] = load(b + n * LANES);
                IN_REGISTER(x[0]);
                UNROLL for (int r = 0; r < R; r++) {
                    sum[r][n] += y[r] * x[0];
                    IN_ORDER(sum[r][n]);
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
                    IN_ORDER(sum[r][n]);
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
            store(c + n * LANES, larger(least, x)); /* a NaN stays one */
        }
    }
}

static inline __attribute__((always_inline)) void block_1(Product p, int R) { block(p, R, 1); }
static inline __attribute__((always_inline)) void block_2(Product p, int R) { block(p, R, 2); }
static inline __attribute__((always_inline)) void block_3(Product p, int R) { block(p, R, 3); }
static inline __attribute__((always_inline)) void block_4(Product p, int R) { block(p, R, 4); }

/* R rows of a product half a vector wide, two steps of its depth at once: a row of B holds two rows
 * in turns, column by column, and those of A are contiguous. */
static inline __attribute__((always_inline)) void block_pairs(Product p, int R) {
#if LANES == 2 * TILE
    vec sum[8] = {0};
    for (isize depth = p.depth; depth > 0; depth -= 2, p.a += 2, p.b += LANES) {
        vec x = load(p.b);
        UNROLL for (int r = 0; r < R; r++) sum[r] += splat_pair(p.a + r * p.a_row) * x;
    }
    UNROLL for (int r = 0; r < R; r++) {
        tile *c = (tile *)(p.c + r * p.c_row), x = even_and_odd(sum[r]);
        if (p.factor) x *= p.factor[r * p.factor_row];
        if (p.add) x += *c;
        *c = x;
    }
#endif
}

/* All rows of a product, in blocks of nearly equal heights up to R: about 12 sums in registers. */
#define STRIP(NAME, BLOCK, R)                                                             \
    static void NAME(Product p, isize rows, Ahead *ahead) {                               \
        isize blocks = (rows + R - 1) / R, height = rows / blocks, more = rows % blocks;  \
        for (int higher = 1; higher >= 0; higher--)                                       \
            for (isize left = higher ? more : blocks - more; left > 0;)                   \
                switch (height + higher) { CASES_##R(BLOCK) }                             \
    }
#define CASE(R, BLOCK)                    \
    case R:                               \
        for (; left > 0; left--) {        \
            fetch(ahead);                 \
            BLOCK(p, R);                  \
            p.a += R * p.a_row;           \
            p.c += R * p.c_row;           \
            p.factor += R * p.factor_row; \
        }                                 \
        break;
#define CASES_3(BLOCK) CASE(1, BLOCK) CASE(2, BLOCK) CASE(3, BLOCK)
#define CASES_4(BLOCK) CASES_3(BLOCK) CASE(4, BLOCK)
#define CASES_6(BLOCK) CASES_4(BLOCK) CASE(5, BLOCK) CASE(6, BLOCK)
#define CASES_8(BLOCK) CASES_6(BLOCK) CASE(7, BLOCK) CASE(8, BLOCK)
STRIP(strip_1, block_1, 8)
STRIP(strip_2, block_2, 6)
STRIP(strip_3, block_3, 4)
STRIP(strip_4, block_4, 3)
STRIP(strip_pairs, block_pairs, 8)

/* The width in vectors of the next strip where `vecs` are left: up to 4, nearly equal. */
static inline isize strip_of(isize vecs) {
    isize strips = (vecs + 3) / 4;
    return (vecs + strips - 1) / strips;
}

static void (*const strips[])(Product, isize, Ahead *) = {strip_1, strip_2, strip_3, strip_4};

/* The product for `rows` rows and `vecs` vectors. */
static void multiply(Ahead *ahead, Product p, isize rows, isize vecs) {
    const float *bias = p.bias;
    if (!bias) p.bias = zeros;
    for (isize wide; vecs > 0; vecs -= wide) {
        wide = strip_of(vecs);
        strips[wide - 1](p, rows, ahead);
        p.b += wide * LANES;
        p.c += wide * LANES;
        if (bias) p.bias += wide * LANES;
    }
}

/* The same for a B that lies in strips, one behind the other. */
static void multiply_strips(Ahead *ahead, Product p, isize rows, isize vecs) {
    const float *bias = p.bias;
    if (!bias) p.bias = zeros;
    for (isize wide; vecs > 0; vecs -= wide) {
        wide = strip_of(vecs);
        p.b_depth = wide * LANES;
        strips[wide - 1](p, rows, ahead);
        p.b += p.depth * p.b_depth;
        p.c += wide * LANES;
        if (bias) p.bias += wide * LANES;
    }
}

/* Lays out B[depth][n] in strips: a strip's rows follow one another, as it is read. */
static float *into_strips(const float *b, isize b_depth, isize b_column, isize depth, isize vecs,
                          float *to) {
    for (isize wide; vecs > 0; vecs -= wide, b += wide * LANES * b_column) {
        wide = strip_of(vecs);
        for (isize d = 0; d < depth; d++)
            for (isize n = 0; n < wide * LANES; n++) *to++ = b[d * b_depth + n * b_column];
    }
    return to;
}
