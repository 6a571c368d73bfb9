/* Attention of groups of queries over lists of keys: a window of a map, a cluster, a list.
 *
 * Keys and values of one group at a time are fetched into the cache of the core that works on it;
 * of the whole map there is no second copy. Scores lie keys down and queries across the lanes, so
 * that no reduction of the softmax is horizontal. Per group of m queries, n keys and d channels the
 * forward does 4 m n d operations and the backward 10 m n d, for 8 n d bytes read: 2 m d FLOPs a
 * byte, bound by arithmetic from a few queries on. A group of one query is bound by its loads.
 */
#include <stdlib.h>
#include <string.h>

#include "product.h"
#include "team.h"

/* Mirrored by native.py; strides count elements, channels lie side by side. */
typedef struct {
    float *data;
    isize batch, head, row;
} Rows;

/* Positions by group; -1 is none. */
typedef struct {
    const int64_t *data;
    isize batch, head, group;
} Index;

typedef struct {
    isize batch, heads, groups, members, picks, dim, v_dim, query_count;
    Rows q, k, v, out, grad, dq, dk, dv; /* out and grad by query, or by group and member */
    Index queries, keys;                 /* no queries: group g is query g */
    isize axes, window[3], inner[3];     /* of a relative table: slots and members along each axis */
    const float *table[3];               /* (1 or heads, 2 window - 1, dim) or NULL */
    float *dtable[3];                    /* (heads, 2 window - 1, dim): summed over the batch */
    isize table_head[3];
    const float *slot_bias; /* (1 or heads, picks) or NULL */
    float *dslot_bias;      /* (heads, picks) */
    isize slot_bias_head;
    int masked, by_member, causal; /* masked: -1 is forbidden, else a key and value of zeros */
    float self_bias, scale;
} Call;

typedef struct {
    const Call *call;
    isize wide, dim, v_dim; /* members at a time, dim and v_dim in whole vectors, in floats */
    isize first, count;     /* the members at hand: so few that their scores stay in the cache */
    isize rows[3], all_rows;
    float *memory;
    float *k, *v, *q, *s, *o, *t, *l;                     /* forward; q and o: channels down */
    float *grad, *dp, *dq, *q_rows, *grad_rows, *dk, *dv; /* backward */
    float *dt, *table_sums, *bias_sums;
    float *top, *sum, *mean;
    const int64_t *queries, *keys;
    int64_t own;
    isize b, h, g;
    Ahead ahead;
} Work;

static inline const float *row_of(const Rows *x, isize b, isize h, isize i) {
    return x->data + b * x->batch + h * x->head + i * x->row;
}

static inline isize place(const Index *x, isize b, isize h, isize g) {
    return b * x->batch + h * x->head + g * x->group;
}

static inline isize out_row(const Work *w, isize m) {
    return w->call->by_member ? w->g * w->call->members + w->first + m : w->queries[m];
}

static int prepare_work(Work *w, const Call *c) {
    isize n = c->picks, m = round_up(c->members, LANES);
    if (m > 2 * LANES) m = 2 * LANES;
    *w = (Work){.call = c, .wide = m, .dim = round_up(c->dim, LANES),
                .v_dim = round_up(c->v_dim, LANES), .ahead = {.step = 0}};
    isize slots = 0;
    for (isize a = 0; a < c->axes; a++) {
        w->rows[a] = 2 * c->window[a] - 1;
        w->all_rows += w->rows[a];
        slots += c->window[a];
    }
    isize sizes[] = {n * w->dim, n * w->v_dim, w->dim * m, (n + 1) * m, w->v_dim * m,
                     w->all_rows * m, slots * m, w->v_dim * m, (n + 1) * m, w->dim * m,
                     m * w->dim, m * w->v_dim, n * w->dim, n * w->v_dim, w->all_rows * m,
                     w->all_rows * w->dim, n, m, m, m};
    float **parts[] = {&w->k, &w->v, &w->q, &w->s, &w->o, &w->t, &w->l, &w->grad, &w->dp, &w->dq,
                       &w->q_rows, &w->grad_rows, &w->dk, &w->dv, &w->dt, &w->table_sums,
                       &w->bias_sums, &w->top, &w->sum, &w->mean};
    isize total = 0, count = sizeof sizes / sizeof *sizes;
    for (isize i = 0; i < count; i++) total += round_up(sizes[i], 16);
    w->memory = calloc(total + 16, sizeof(float));
    if (!w->memory) return 1;
    float *at = w->memory;
    for (isize i = 0; i < count; i++) *parts[i] = at, at += round_up(sizes[i], 16);
    return 0;
}

/* Points to a group's lists. */
static void open_group(Work *w, isize b, isize h, isize g) {
    const Call *c = w->call;
    w->b = b, w->h = h, w->g = g, w->own = g;
    w->queries = c->queries.data ? c->queries.data + place(&c->queries, b, h, g) : &w->own;
    w->keys = c->keys.data + place(&c->keys, b, h, g);
}

/* Rows by a list side by side, zeros where there is none. */
static void fetch_rows(const Work *w, const Rows *x, isize dim, isize step, float *to) {
    for (isize j = 0; j < w->call->picks; j++, to += step) {
        if (w->keys[j] < 0) memset(to, 0, dim * sizeof(float));
        else memcpy(to, row_of(x, w->b, w->h, w->keys[j]), dim * sizeof(float));
    }
}

/* One row per member as columns; `rows`, if any, keeps them as rows too. */
static void fetch_columns(const Work *w, const Rows *x, int by_query, isize dim, float *to,
                          float *rows, isize step) {
    for (isize m = 0; m < w->wide; m++) {
        int exists = m < w->count && w->queries[m] >= 0;
        isize i = !exists ? 0 : by_query ? w->queries[m] : out_row(w, m);
        const float *from = exists ? row_of(x, w->b, w->h, i) : NULL;
        for (isize c = 0; c < dim; c++) to[c * w->wide + m] = from ? from[c] : 0;
        if (!rows) continue;
        if (from) memcpy(rows + m * step, from, dim * sizeof(float));
        else memset(rows + m * step, 0, dim * sizeof(float));
    }
}

/* A number along each axis of the n-th of all members or slots. */
static inline void split(const isize *sizes, isize axes, isize n, isize *along) {
    for (isize a = axes - 1; a >= 0; a--) along[a] = n % sizes[a], n /= sizes[a];
}

/* Products of the queries with the relative tables, laid out by slot along each axis. */
static void relative_scores(Work *w) {
    const Call *c = w->call;
    const float unit = LOG2E;
    float *t = w->t, *l = w->l;
    for (isize a = 0; a < c->axes; a++) {
        Product p = {.a = c->table[a] + w->h * c->table_head[a], .a_row = c->dim, .a_depth = 1,
                     .b = w->q, .b_depth = w->wide, .c = t, .c_row = w->wide, .factor = &unit,
                     .depth = c->dim};
        multiply(&w->ahead, p, w->rows[a], w->wide / LANES);
        for (isize m = 0; m < w->count; m++) {
            isize along[3];
            split(c->inner, c->axes, w->first + m, along);
            const float *from = t + (c->window[a] - 1 - along[a]) * w->wide + m;
            for (isize j = 0; j < c->window[a]; j++) l[j * w->wide + m] = from[j * w->wide];
        }
        t += w->rows[a] * w->wide, l += c->window[a] * w->wide;
    }
}

/* What is added to the scores, in units of log 2. */
static void begin_scores(Work *w) {
    const Call *c = w->call;
    if (c->axes) relative_scores(w);
    const float *bias = c->slot_bias ? c->slot_bias + w->h * c->slot_bias_head : NULL;
    isize along[3] = {0};
    for (isize j = 0; j < c->picks; j++) {
        const float *l = w->l, *part[3];
        for (isize a = 0; a < c->axes; a++) {
            part[a] = l + along[a] * w->wide;
            l += c->window[a] * w->wide;
        }
        for (isize m = 0; m < w->wide; m += LANES) {
            vec s = splat(bias ? LOG2E * bias[j] : 0.0f);
            for (isize a = 0; a < c->axes; a++) s += load(part[a] + m);
            store(w->s + j * w->wide + m, s);
        }
        for (isize a = c->axes - 1; a >= 0 && ++along[a] == c->window[a]; a--) along[a] = 0;
    }
}

/* What forbids keys, or changes the score of a token for itself. */
static void end_scores(Work *w) {
    const Call *c = w->call;
    for (isize j = 0; j < c->picks; j++) {
        float *s = w->s + j * w->wide;
        int64_t key = w->keys[j];
        if (key < 0 && c->masked)
            for (isize m = 0; m < w->wide; m++) s[m] = -INFINITY;
        if (key < 0 || (!c->causal && c->self_bias == 0)) continue;
        for (isize m = 0; m < w->count; m++) {
            if (c->causal && key > w->queries[m]) s[m] = -INFINITY;
            if (key == w->queries[m]) s[m] += LOG2E * c->self_bias;
        }
    }
}

/* The weights of a group over 1 / sum, keys down. */
static void weigh(Work *w) {
    const Call *c = w->call;
    const float unit = LOG2E * c->scale;
    begin_scores(w);
    Product p = {.a = w->k, .a_row = c->dim, .a_depth = 1, .b = w->q, .b_depth = w->wide,
                 .c = w->s, .c_row = w->wide, .factor = &unit, .depth = c->dim, .add = 1};
    multiply(&w->ahead, p, c->picks, w->wide / LANES);
    end_scores(w);
    for (isize m = 0; m < w->wide; m += LANES) {
        vec top = splat(-INFINITY), sum = {0};
        for (isize j = 0; j < c->picks; j++) top = larger(load(w->s + j * w->wide + m), top);
        top = pick(top > splat(-3e38f), top, (vec){0});
        vec most = (top + ROUND) - ROUND;
        for (isize j = 0; j < c->picks; j++) {
            float *s = w->s + j * w->wide + m;
            vec x = exp2_below(load(s), most);
            store(s, x);
            sum += x;
        }
        sum = pick(sum > (vec){0}, sum, splat(1.0f));
        store(w->sum + m, 1.0f / sum);
    }
}

static void forward_members(Work *w) {
    const Call *c = w->call;
    fetch_columns(w, &c->q, 1, c->dim, w->q, NULL, 0);
    weigh(w);
    Product p = {.a = w->v, .a_row = 1, .a_depth = c->v_dim, .b = w->s, .b_depth = w->wide,
                 .c = w->o, .c_row = w->wide, .depth = c->picks};
    multiply(&w->ahead, p, c->v_dim, w->wide / LANES);
    for (isize m = 0; m < w->count; m++) {
        if (w->queries[m] < 0) continue;
        float *out = (float *)row_of(&c->out, w->b, w->h, out_row(w, m));
        for (isize d = 0; d < c->v_dim; d++) out[d] = w->o[d * w->wide + m] * w->sum[m];
    }
}

/* Adds the rows of a group to those of the map. */
static void add_rows(const Work *w, const Rows *x, const float *from, isize dim, isize step) {
    for (isize j = 0; j < w->call->picks; j++, from += step) {
        if (w->keys[j] < 0) continue;
        float *to = (float *)row_of(x, w->b, w->h, w->keys[j]);
        for (isize d = 0; d < dim; d++) to[d] += from[d];
    }
}

/* The gradients of the relative tables and what goes through them to the queries. */
static void relative_gradients(Work *w) {
    const Call *c = w->call;
    float *dt = w->dt, *sums = w->table_sums;
    for (isize a = 0; a < c->axes; a++) {
        isize after = 1;
        for (isize b = a + 1; b < c->axes; b++) after *= c->window[b];
        memset(w->l, 0, c->window[a] * w->wide * sizeof(float));
        for (isize j = 0; j < c->picks; j++) {
            float *l = w->l + j / after % c->window[a] * w->wide, *ds = w->dp + j * w->wide;
            for (isize m = 0; m < w->wide; m += LANES) store(l + m, load(l + m) + load(ds + m));
        }
        memset(dt, 0, w->rows[a] * w->wide * sizeof(float));
        for (isize m = 0; m < w->count; m++) {
            isize along[3];
            split(c->inner, c->axes, w->first + m, along);
            float *to = dt + (c->window[a] - 1 - along[a]) * w->wide + m;
            for (isize j = 0; j < c->window[a]; j++) to[j * w->wide] = w->l[j * w->wide + m];
        }
        Product to_q = {.a = c->table[a] + w->h * c->table_head[a], .a_row = 1, .a_depth = c->dim,
                        .b = dt, .b_depth = w->wide, .c = w->dq, .c_row = w->wide,
                        .depth = w->rows[a], .add = 1};
        multiply(&w->ahead, to_q, c->dim, w->wide / LANES);
        Product to_table = {.a = dt, .a_row = w->wide, .a_depth = 1, .b = w->q_rows,
                            .b_depth = w->dim, .c = sums, .c_row = w->dim, .depth = w->count,
                            .add = 1};
        multiply(&w->ahead, to_table, w->rows[a], w->dim / LANES);
        dt += w->rows[a] * w->wide, sums += w->rows[a] * w->dim;
    }
}

static void backward_members(Work *w) {
    const Call *c = w->call;
    isize vecs = w->wide / LANES;
    fetch_columns(w, &c->q, 1, c->dim, w->q, w->q_rows, w->dim);
    fetch_columns(w, &c->grad, 0, c->v_dim, w->grad, w->grad_rows, w->v_dim);
    weigh(w);
    Product dp = {.a = w->v, .a_row = c->v_dim, .a_depth = 1, .b = w->grad, .b_depth = w->wide,
                  .c = w->dp, .c_row = w->wide, .depth = c->v_dim};
    multiply(&w->ahead, dp, c->picks, vecs);
    for (isize m = 0; m < w->wide; m += LANES) {
        vec mean = {0}, inverse = load(w->sum + m);
        for (isize j = 0; j < c->picks; j++) {
            float *s = w->s + j * w->wide + m;
            store(s, load(s) * inverse);
            mean += load(s) * load(w->dp + j * w->wide + m);
        }
        for (isize j = 0; j < c->picks; j++) {
            float *d = w->dp + j * w->wide + m;
            store(d, load(w->s + j * w->wide + m) * (load(d) - mean));
        }
    }
    Product dv = {.a = w->s, .a_row = w->wide, .a_depth = 1, .b = w->grad_rows,
                  .b_depth = w->v_dim, .c = w->dv, .c_row = w->v_dim, .depth = w->count, .add = 1};
    multiply(&w->ahead, dv, c->picks, w->v_dim / LANES);
    Product dk = {.a = w->dp, .a_row = w->wide, .a_depth = 1, .b = w->q_rows, .b_depth = w->dim,
                  .c = w->dk, .c_row = w->dim, .factor = &c->scale, .depth = w->count, .add = 1};
    multiply(&w->ahead, dk, c->picks, w->dim / LANES);
    Product dq = {.a = w->k, .a_row = 1, .a_depth = c->dim, .b = w->dp, .b_depth = w->wide,
                  .c = w->dq, .c_row = w->wide, .factor = &c->scale, .depth = c->picks};
    multiply(&w->ahead, dq, c->dim, vecs);
    if (c->axes) relative_gradients(w);
    if (c->slot_bias)
        for (isize j = 0; j < c->picks; j++)
            for (isize m = 0; m < w->count; m++) w->bias_sums[j] += w->dp[j * w->wide + m];
    for (isize m = 0; m < w->count; m++) {
        if (w->queries[m] < 0) continue;
        float *to = (float *)row_of(&c->dq, w->b, w->h, w->queries[m]);
        for (isize d = 0; d < c->dim; d++) to[d] += w->dq[d * w->wide + m];
    }
}

/* Solves a group, some members at a time. */
static void solve_group(Work *w, int backward) {
    const Call *c = w->call;
    const int64_t *queries = w->queries;
    fetch_rows(w, &c->k, c->dim, c->dim, w->k);
    fetch_rows(w, &c->v, c->v_dim, c->v_dim, w->v);
    if (backward) {
        memset(w->dk, 0, c->picks * w->dim * sizeof(float));
        memset(w->dv, 0, c->picks * w->v_dim * sizeof(float));
    }
    for (w->first = 0; w->first < c->members; w->first += w->wide) {
        w->count = c->members - w->first < w->wide ? c->members - w->first : w->wide;
        w->queries = queries + w->first;
        if (backward) backward_members(w);
        else forward_members(w);
    }
    if (!backward) return;
    add_rows(w, &c->dk, w->dk, c->dim, w->dim);
    add_rows(w, &c->dv, w->dv, c->v_dim, w->v_dim);
}

static void forward_group(Work *w) { solve_group(w, 0); }
static void backward_group(Work *w) { solve_group(w, 1); }
