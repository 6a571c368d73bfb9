/* One problem: its operands on the way in, its results on the way out, its softmax. */
#include <float.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "draws.h"
#include "product.h"

/* An array with the strides, in elements, of its problem, head, row (token) and column axes. */
typedef struct {
    void *data;
    isize problem, head, row, column;
} View;

/* Mirrored by native.py. Absent arrays have data NULL. A name with `d` before it is a gradient, one
 * with `t` before it a direction (the gradient that reaches a gradient). */
typedef struct {
    isize problems, heads, queries, keys, dim, v_dim;
    isize total, reach;   /* packed: tokens of all problems, and at most of one */
    const isize *offsets; /* packed: queries and keys of a problem start here, else NULL */
    const uint64_t *seed; /* of the dropped weights, NULL where none are */
    float scale, dropout;
    int adds_out, adds_keys; /* out, or dk and dv, are added to what is there */
    View q, k, v, bias, mask, gate, out;
    View grad, dq, dk, dv, dbias, dgate;
    View tq, tk, tv, tbias, tgate, dgrad;
} Call;

/* What one thread works in, and the problem it works on. */
typedef struct {
    const Call *call;
    isize problem, head, start, queries, keys, width; /* width: queries rounded up to LANES */
    isize drawn;                    /* the number of the problem, for what is dropped */
    float *qt, *gt, *tqt;           /* transposed operands, (dim, width) */
    float *scores, *dp, *ds, *w;    /* (keys, width) */
    float *kept;                    /* (keys, width): 0 for a dropped weight, else 1 / (1 - dropout) */
    float *packed[2];               /* operands and results by rows, padded to whole vectors */
    float *row[4];                  /* (width): one number per query */
    const float *shared;            /* (keys, width): bias and mask where all problems share them */
    float *bias_sum;                /* (keys, width), where all problems share the bias */
    Ahead *ahead;
} Work;

static inline float *at(const Work *w, const View *x, isize row) {
    return (float *)x->data + w->problem * x->problem + w->head * x->head +
           (w->start + row) * x->row;
}

/* to[column][row] = factor * x[row][column]; whole vectors are filled up by repeating the last row. */
static void pack_transposed(const Work *w, const View *x, isize columns, float factor, float *to) {
    const float *from = at(w, x, 0);
    for (isize i = 0; i < round_up(w->queries, LANES); i += TILE) {
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
        multiply(w->ahead, p, rows, whole / LANES);
        return;
    }
    p.c = w->packed[1];
    p.c_row = whole;
    if (p.add)
        for (isize i = 0; i < rows; i++)
            memcpy(p.c + i * whole, out + i * x->row, columns * sizeof(float));
    multiply(w->ahead, p, rows, whole / LANES);
    for (isize i = 0; i < rows; i++)
        memcpy(out + i * x->row, p.c + i * whole, columns * sizeof(float));
}

/* Whether rows fill half a vector, so that a product of whole ones would be half in vain. */
static inline int narrow(isize columns) { return LANES == 2 * TILE && columns == TILE; }

/* out[query][column] (+)= factor[query] * sum over keys of weights[key][query] * x[key][column] */
static void over_keys(const Work *w, const View *out, const View *x, isize columns,
                      const float *weights, const float *factor, isize factor_row, int add) {
    isize n = w->width;
    if (!narrow(columns)) {
        Product p = {weights, 1, n, NULL, 0, NULL, 0, factor, factor_row, w->keys, add};
        p.b = by_rows(w, x, w->keys, columns, w->packed[0], &p.b_depth);
        multiply_out(w, out, w->queries, columns, p);
        return;
    }
    float *turned = w->packed[1]; /* queries across the lanes, as in the weights */
    Product p = {at(w, x, 0), 1, x->row, weights, n, turned, n, NULL, 0, w->keys, 0};
    multiply(w->ahead, p, columns, round_up(w->queries, LANES) / LANES);
    const float *row[TILE];
    for (int c = 0; c < TILE; c++) row[c] = turned + c * n;
    float *to = at(w, out, 0);
    for (isize i0 = 0; i0 < w->queries; i0 += TILE) {
        tile t[TILE];
        transpose(row, i0, t);
        for (isize i = i0; i < i0 + TILE && i < w->queries; i++, to += out->row) {
            tile y = t[i - i0] * factor[i * factor_row];
            if (add) y += *(tile *)to;
            *(tile *)to = y;
        }
    }
}

/* out[key][column] (+)= *factor * sum over queries of weights[key][query] * x[query][column] */
static void over_queries(const Work *w, const View *out, const View *x, isize columns,
                         const float *weights, const float *factor, int add) {
    Product p = {weights, w->width, 1, NULL, 0, NULL, 0, factor, 0, w->queries, add};
    if (!narrow(columns)) {
        p.b = by_rows(w, x, w->queries, columns, w->packed[0], &p.b_depth);
        multiply_out(w, out, w->keys, columns, p);
        return;
    }
#if LANES == 2 * TILE
    const float *from = at(w, x, 0);
    float *to = w->packed[0];
    for (isize i = 0; i < w->queries; i += 2, from += 2 * x->row, to += LANES) {
        tile last = {0};
        if (i + 1 < w->queries) last = *(tile *)(from + x->row);
        store(to, in_turns(*(tile *)from, last));
    }
#endif
    p.b = w->packed[0], p.c = at(w, out, 0), p.c_row = out->row;
    strip_pairs(p, w->keys, w->ahead);
}

/* scores[key][query] += factor * x[query][key] for the square of keys from j0 and queries from i0,
 * keys from `first` on; beyond the last query the last row is repeated. Where x is -inf the sum is,
 * whatever it was; the factor makes no finite x infinite, so that -FLT_MAX forbids nothing. */
static inline void add_square(const Work *w, const float *const row[TILE], isize column, isize first,
                              isize j0, isize i0, float factor, float *scores) {
    typedef int32_t itile __attribute__((vector_size(4 * TILE), may_alias));
    const tile infinite = (tile){0} + INFINITY, most = (tile){0} + FLT_MAX;
    tile t[TILE];
    transpose(row, column, t);
    for (isize c = first - j0; c < TILE && j0 + c < w->keys; c++) {
        tile *to = (tile *)(scores + (j0 + c) * w->width + i0), x = t[c] * factor;
        itile low = (itile)(x == -infinite), high = (itile)(x == infinite);
        itile forbidden = (itile)(t[c] == -infinite);
        x = (tile)((low & (itile)-most) | (high & (itile)most) | (~(low | high) & (itile)x));
        *to = (tile)((forbidden & (itile)-infinite) | (~forbidden & (itile)(*to + x)));
    }
}

/* The last square starts early, to stay inside the rows. */
static inline isize square_start(const Work *w, isize first) {
    return first + TILE <= w->keys || w->keys < TILE ? first : w->keys - TILE;
}

/* scores[key][query] += factor * bias[query][key] */
static void add_bias(const Work *w, const View *bias, float factor, float *scores) {
    const float *b = (float *)bias->data + w->problem * bias->problem + w->head * bias->head;
    for (isize first = 0; first < w->keys; first += TILE) {
        isize j0 = square_start(w, first), wide = w->keys - j0 < TILE ? w->keys - j0 : TILE;
        for (isize i0 = 0; i0 < w->queries; i0 += TILE) {
            float copy[TILE][TILE] = {0};
            const float *row[TILE];
            int in_place = bias->column == 1 && wide == TILE;
            for (isize r = 0; r < TILE; r++) {
                row[r] = b + (i0 + r < w->queries ? i0 + r : w->queries - 1) * bias->row;
                if (in_place) continue;
                for (isize c = 0; c < wide; c++) copy[r][c] = row[r][(j0 + c) * bias->column];
                row[r] = copy[r];
            }
            add_square(w, row, in_place ? j0 : 0, first, j0, i0, factor, scores);
        }
    }
}

/* scores[key][query] = -inf where the mask forbids */
static void add_mask(const Work *w, const View *mask, float *scores) {
    typedef uint8_t bytes __attribute__((vector_size(TILE), aligned(1), may_alias));
    typedef int32_t itile __attribute__((vector_size(4 * TILE), aligned(4), may_alias));
    const int32_t minus_infinity = 0xff800000;
    const uint8_t *m = (uint8_t *)mask->data + w->problem * mask->problem + w->head * mask->head;
    if (mask->row == 0) { /* the same for every query */
        for (isize j = 0; j < w->keys; j++)
            for (isize i = m[j * mask->column] ? w->queries : 0; i < w->queries; i += LANES)
                store(scores + j * w->width + i, splat(-INFINITY));
        return;
    }
    for (isize first = 0; first < w->keys; first += TILE) {
        isize j0 = square_start(w, first), wide = w->keys - j0 < TILE ? w->keys - j0 : TILE;
        for (isize i0 = 0; i0 < w->queries; i0 += TILE) {
            int32_t squared[TILE][TILE];
            const float *row[TILE];
            for (isize r = 0; r < TILE; r++) {
                const uint8_t *seen = m + (i0 + r < w->queries ? i0 + r : w->queries - 1) * mask->row;
                row[r] = (float *)squared[r];
                if (mask->column == 1 && wide == TILE) {
                    itile x = __builtin_convertvector(*(bytes *)(seen + j0), itile);
                    *(itile *)squared[r] = (x == 0) & minus_infinity;
                } else
                    for (isize c = 0; c < wide; c++)
                        squared[r][c] = seen[(j0 + c) * mask->column] ? 0 : minus_infinity;
            }
            add_square(w, row, 0, first, j0, i0, 1.0f, scores);
        }
    }
}

/* scores += bias and mask: what all problems share from its table, the rest from its arrays. */
static void add_biases(const Work *w) {
    const View *bias = &w->call->bias, *mask = &w->call->mask;
    if (w->shared)
        for (isize j = 0; j < w->keys; j++)
            for (isize i = j * w->width; i < j * w->width + w->queries; i += LANES)
                store(w->scores + i, load(w->scores + i) + load(w->shared + i));
    if (bias->data && bias->problem) add_bias(w, bias, LOG2E, w->scores);
    if (mask->data && mask->problem) add_mask(w, mask, w->scores);
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
    multiply(w->ahead, p, w->keys, round_up(w->queries, LANES) / LANES);
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
    if (any((most > limit) | (most < -limit))) {
        for (isize j = 0; j <= end; j += n) store(s + j, load(s + j) - most);
        return (vec){0};
    }
    return (most + ROUND) - ROUND;
}

/* Fills scores with exp(s - m), m near the maximum, and inverse with 1 / sum, 0 for a query that
 * sees no key. Where there is dp, delta becomes the sum of weights times dp, while both are near. */
static inline __attribute__((always_inline)) void softmax(const Work *w, float *scores,
                                                          float *inverse, const float *dp,
                                                          float *delta) {
    isize n = w->width, end = w->keys / 2 * 2 * n;
    for (isize i = 0; i < w->queries; i += LANES, scores += LANES) {
        vec most = rounded_maximum(w, scores), sum = {0}, other = {0}, dot = {0}, other_dot = {0};
        for (isize j = 0; j < end; j += 2 * n) {
            vec a = exp2_below(load(scores + j), most);
            vec b = exp2_below(load(scores + j + n), most);
            store(scores + j, a);
            store(scores + j + n, b);
            sum += a;
            other += b;
            if (dp) dot += a * load(dp + i + j), other_dot += b * load(dp + i + j + n);
        }
        if (w->keys % 2) {
            vec a = exp2_below(load(scores + end), most);
            store(scores + end, a);
            sum += a;
            if (dp) dot += a * load(dp + i + end);
        }
        sum += other;
        vec factor = pick(sum == 0, sum, 1.0f / sum);
        store(inverse + i, factor);
        if (dp) store(delta + i, (dot + other_dot) * factor);
    }
}

/* Draws which weights stay, by the seed and their problem, head, key and query. */
static void draw_kept(const Work *w) {
    const Call *c = w->call;
    if (!c->seed) return;
    uint32_t keys[2];
    draw_keys(*c->seed, w->drawn * c->heads + w->head, keys);
    const int32_t least = c->dropout * 0x1p31f;
    const vec factor = splat(1 / (1 - c->dropout));
    uvec lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    for (isize j = 0; j < w->keys; j++)
        for (isize i = 0; i < w->queries; i += LANES) {
            uvec x = lane + (uint32_t)(j << 16 | i);
            UNROLL DRAW(x, keys)
            store(w->kept + j * w->width + i, (vec)(((ivec)(x >> 1) >= least) & (ivec)factor));
        }
}

static void drop(const Work *w, float *x) {
    if (!w->call->seed) return;
    for (isize j = 0; j < w->keys; j++)
        for (isize i = j * w->width; i < j * w->width + w->queries; i += LANES)
            store(x + i, load(x + i) * load(w->kept + i));
}

/* Memory for the arrays of w, for problems up to a size; to be freed. NULL where there is none. */
static void *work_memory(Work *w, const Call *c, isize queries, isize keys) {
    isize width = round_up(queries, LANES), tokens = keys > width ? keys : width;
    isize dim = round_up(c->dim > c->v_dim ? c->dim : c->v_dim, LANES);
    struct { float **array; isize floats; } parts[] = {
        {&w->qt, dim * width}, {&w->gt, dim * width}, {&w->tqt, dim * width},
        {&w->scores, keys * width}, {&w->dp, keys * width}, {&w->ds, keys * width},
        {&w->w, keys * width}, {&w->kept, keys * width},
        {&w->packed[0], tokens * dim}, {&w->packed[1], tokens * dim},
        {&w->row[0], width}, {&w->row[1], width}, {&w->row[2], width}, {&w->row[3], width},
    };
    isize total = 16, count = sizeof parts / sizeof *parts;
    for (isize i = 0; i < count; i++) total += parts[i].floats;
    float *memory = malloc(total * sizeof(float));
    float *from = (float *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    for (isize i = 0; i < count; from += parts[i++].floats) *parts[i].array = from;
    w->width = width;
    return memory;
}

/* Asks for huge pages where a large result is about to be touched for the first time: taking 4 kB
 * faults one by one can cost more than the attention. The heap, below the break, keeps its pages
 * for the next result, and huge ones can be slow to get. */
static void prepare(void *data, isize floats) {
#ifdef MADV_HUGEPAGE
    const uintptr_t huge = 1 << 21, start = (uintptr_t)data;
    uintptr_t from = (start + huge - 1) / huge * huge, to = (start + 4 * floats) / huge * huge;
    if (start > (uintptr_t)sbrk(0) && to > from) madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)data, (void)floats;
#endif
}
