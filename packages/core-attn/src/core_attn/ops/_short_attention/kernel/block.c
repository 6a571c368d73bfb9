/* A layer around the attention, as in AutoInt: with queries, keys, values and residual that are one
 * product of the input, layer_norm(relu(attention + residual)) or relu(layer_norm(...)), with or
 * without the norm; forward and backward.
 *
 * A few problems at a time, 48 rows or so, pass through all of it while they are in the caches. Per
 * row of n tokens, input c, width w and p parts (3, or 4 with a mapped residual) the forward does
 * 2 c p w + 4 n w operations and the backward 4 c p w + 10 n w, for 4 (c + 3 w + 2 w) and
 * 4 (2 c + 3 w + 2 w) bytes; from w = 16 on the arithmetic is the bound.
 *
 * Where the input is no wider than a head, the block is factored: with z_h = x Wq_h^T Wk_h and
 * u_h = softmax(z_h x^T) x, a head is u_h Wv_h^T, and scores and sums run over c columns instead of
 * w / heads. The stacked weights begin with the maps to z then, and packed holds z and u.
 */
#include "passes.h"
#include "team.h"

enum { NONE, INPUT, MAPPED, RECTIFIED }; /* what is added: nothing, x, a map of x, or its relu */

/* Mirrored by native.py. All arrays are dense; width and in are whole vectors. */
typedef struct {
    isize problems, tokens, in, width, heads;
    isize stride;              /* of a row of packed: q, k and v, or z and u; rectified residual */
    isize activated, residual; /* whether queries, keys and values pass a relu; see above */
    isize norm_first;          /* the norm comes before the last relu, not after it */
    const uint64_t *seed;
    float scale, dropout, eps;
    const float *x;                    /* (problems, tokens, in) */
    const float *weight, *bias;        /* (parts * width, in) and (parts * width) or NULL; factored,
                                          heads * in rows stand for the first three parts */
    const float *values, *values_bias; /* factored: (width, in), and (width) or NULL; else NULL */
    const float *gain, *shift;         /* (width), or NULL without a norm */
    float *packed;                     /* (problems, tokens, stride), NULL where not to be kept */
    float *y, *out;                    /* (problems, tokens, width) around the norm; may be one */
    const float *grad;
    float *dx, *dweight, *dbias, *dvalues, *dvalues_bias, *dgain, *dshift;
} Block;

typedef struct {
    const Block *block;
    int backward;
    isize inner, mapped, mixed;        /* columns of q, k and v, or z; of a mapped residual; of u */
    isize group, chunks, next;         /* group: problems at a time; next: the first free takes it */
    float *weight, *residual, *values; /* in strips */
    float *sums;                       /* (chunks, sizes of the parameters' gradients) */
    isize sum_size;
    int failed;
} Job;

/* What one thread works in, and the group it works on. */
typedef struct {
    const Job *job;
    Call call;
    Work work;
    Ahead ahead;
    isize first, problems, rows;
    float *packed, *dpacked, *dy; /* scratch: (rows, stride) twice, (rows, width) */
    float *dweight, *dbias, *dvalues, *dvalues_bias, *dgain, *dshift;
} Group;

static inline float total(vec x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

/* The mean of a row and 1 / sqrt(variance + eps). */
static inline void moments(const float *y, isize width, float eps, float *mean, float *scale) {
    vec sum = {0}, squares = {0};
    for (isize j = 0; j < width; j += LANES) sum += load(y + j);
    *mean = total(sum) / width;
    for (isize j = 0; j < width; j += LANES) {
        vec apart = load(y + j) - *mean;
        squares += apart * apart;
    }
    *scale = 1 / sqrtf(total(squares) / width + eps);
}

static inline vec positive(vec x) { return larger((vec){0}, x); } /* a NaN stays one */

/* Rows of a group whose heads are `head` columns apart. */
static View rows_of(const float *data, isize tokens, isize head, isize stride) {
    return (View){(void *)data, tokens * stride, head, stride, 1};
}

/* Solves every problem and head. */
static void attend(Group *g, void (*pass)(const Work *)) {
    for (isize p = 0; p < g->problems; p++)
        for (isize head = 0; head < g->job->block->heads; head++) {
            g->work.problem = p, g->work.drawn = g->first + p, g->work.head = head;
            pass(&g->work);
        }
}

/* Points the attention to a group's queries, keys and values, or to z and x. */
static void read_operands(Group *g, const float *x, const float *packed) {
    const Block *b = g->job->block;
    isize n = b->tokens, head = g->call.dim, part = g->job->inner / 3;
    g->call.q = rows_of(packed, n, head, b->stride);
    g->call.k = rows_of(packed + part, n, head, b->stride);
    g->call.v = rows_of(packed + 2 * part, n, head, b->stride);
    if (b->values) g->call.k = g->call.v = rows_of(x, n, 0, b->in);
}

/* c_h (+)= a_h times a head's map, (columns of a_h) by (those of c_h), which lies in strips. */
static void map_heads(Group *g, Product p, isize columns, const float *strips) {
    const Block *b = g->job->block;
    for (isize head = 0; head < b->heads; head++) {
        p.b = strips + head * p.depth * columns;
        multiply_strips(&g->ahead, p, g->rows, columns / LANES);
        p.a += p.depth, p.c += columns;
        if (p.bias) p.bias += columns;
    }
}

/* y becomes the heads and what is added to them, out what follows: relu and norm. */
static void finish_row(const float *gain, const float *shift, float eps, int norm_first,
                       isize width, const float *added, float *y, float *out) {
    for (isize j = 0; j < width; j += LANES) {
        vec sum = load(y + j);
        if (added) sum += load(added + j);
        store(y + j, norm_first ? sum : positive(sum));
    }
    if (!gain) return;
    float mean, scale;
    moments(y, width, eps, &mean, &scale);
    for (isize j = 0; j < width; j += LANES) {
        vec normal = (load(y + j) - mean) * scale * load(gain + j) + load(shift + j);
        store(out + j, norm_first ? positive(normal) : normal);
    }
}

static void forward_group(Group *g) {
    const Job *job = g->job;
    const Block *b = job->block;
    isize width = b->width, n = b->tokens, row = g->first * n, head_dim = width / b->heads;
    const float *x = b->x + row * b->in;
    float *packed = b->packed ? b->packed + row * b->stride : g->packed;
    float *y = b->y + row * width, *out = b->out + row * width;
    float *u = packed + job->inner, *rectified = u + job->mixed;
    Product p = {.a = x, .a_row = b->in, .a_depth = 1, .depth = b->in, .b = job->weight,
                 .c = packed, .c_row = b->stride, .bias = b->bias, .positive = b->activated};
    multiply_strips(&g->ahead, p, g->rows, job->inner / LANES);
    if (job->mapped) {
        p.b = job->residual, p.positive = b->residual == RECTIFIED;
        if (b->bias) p.bias += job->inner;
        if (b->residual == MAPPED) p.c = y, p.c_row = width;
        else p.c = rectified;
        multiply_strips(&g->ahead, p, g->rows, width / LANES);
    }
    read_operands(g, x, packed);
    g->call.out = b->values ? rows_of(u, n, b->in, b->stride) : rows_of(y, n, head_dim, width);
    g->call.adds_out = b->residual == MAPPED && !b->values;
    attend(g, forward);
    if (b->values) {
        Product mix = {.a = u, .a_row = b->stride, .a_depth = 1, .depth = b->in, .c = y,
                       .c_row = width, .add = b->residual == MAPPED, .bias = b->values_bias};
        map_heads(g, mix, head_dim, job->values);
    }
    const float *added = b->residual == INPUT ? x : b->residual == RECTIFIED ? rectified : NULL;
    isize added_stride = b->residual == INPUT ? b->in : b->stride;
    for (isize i = 0; i < g->rows; i++, y += width, out += width) {
        finish_row(b->gain, b->shift, b->eps, b->norm_first, width, added, y, out);
        if (added) added += added_stride;
    }
}

static inline vec where_positive(vec at, vec x) { return (vec)((ivec)x & ~(at <= 0)); }

/* The gradient of one row before norm and relu. */
static void row_backward(Group *g, const float *y, const float *grad, float *dy) {
    const Block *b = g->job->block;
    isize width = b->width;
    float mean = 0, scale = 1, along_one = 0, along_y = 0;
    if (b->gain) {
        moments(y, width, b->eps, &mean, &scale);
        vec one = {0}, other = {0};
        for (isize j = 0; j < width; j += LANES) {
            vec normal = (load(y + j) - mean) * scale, gain = load(b->gain + j), d = load(grad + j);
            if (b->norm_first) d = where_positive(normal * gain + load(b->shift + j), d);
            store(g->dgain + j, load(g->dgain + j) + d * normal);
            store(g->dshift + j, load(g->dshift + j) + d);
            d *= gain;
            store(dy + j, d);
            one += d;
            other += d * normal;
        }
        along_one = total(one) / width, along_y = total(other) / width;
        grad = dy;
    }
    for (isize j = 0; j < width; j += LANES) {
        vec at = load(y + j), d = load(grad + j);
        if (b->gain) d = scale * (d - along_one - (at - mean) * scale * along_y);
        store(dy + j, b->norm_first ? d : where_positive(at, d));
    }
}

/* to[i] = 0 where a relu gave at[i] = 0 */
static void deactivate(float *to, const float *at, isize stride, isize rows, isize columns) {
    for (isize i = 0; i < rows; i++, to += stride, at += stride)
        for (isize j = 0; j < columns; j += LANES)
            store(to + j, where_positive(load(at + j), load(to + j)));
}

/* sums[column] += sum over rows of x */
static void add_rows(const float *x, isize stride, isize rows, isize columns, float *sums) {
    for (isize j = 0; j < columns; j += LANES) {
        vec sum = {0}, other = {0};
        isize i = 0;
        for (; i + 2 <= rows; i += 2) {
            sum += load(x + i * stride + j);
            other += load(x + (i + 1) * stride + j);
        }
        if (i < rows) sum += load(x + i * stride + j);
        store(sums + j, load(sums + j) + (sum + other));
    }
}

/* Gradients of maps, and their biases, that made `columns` columns of x. */
static void add_weights(Group *g, const float *d, isize stride, isize columns, const float *x,
                        isize x_stride, isize in, float *dweight, float *dbias) {
    Product p = {.a = d, .a_row = 1, .a_depth = stride, .depth = g->rows, .b = x,
                 .b_depth = x_stride, .c = dweight, .c_row = in, .add = 1};
    multiply(&g->ahead, p, columns, in / LANES);
    if (dbias) add_rows(d, stride, g->rows, columns, dbias);
}

#define DEEP 96 /* rows of a weight whose strip stays in the first-level cache */

/* dx (+)= d times a weight that lies in strips, DEEP rows at a time */
static void add_input(Group *g, Product p, isize rows) {
    isize in = g->job->block->in;
    for (; rows > 0; rows -= DEEP, p.a += DEEP, p.b += DEEP * in, p.add = 1) {
        p.depth = rows < DEEP ? rows : DEEP;
        multiply_strips(&g->ahead, p, g->rows, in / LANES);
    }
}

static float *deep_strips(const float *weight, isize in, isize rows, float *to) {
    for (; rows > 0; rows -= DEEP, weight += DEEP * in)
        to = into_strips(weight, in, 1, rows < DEEP ? rows : DEEP, in / LANES, to);
    return to;
}

static void backward_group(Group *g) {
    const Job *job = g->job;
    const Block *b = job->block;
    isize width = b->width, n = b->tokens, row = g->first * n, head_dim = width / b->heads;
    isize stride = b->stride, in = b->in, inner = job->inner;
    const float *x = b->x + row * in, *packed = b->packed + row * stride;
    float *dx = b->dx + row * in, *dpacked = g->dpacked, *du = dpacked + inner;
    for (isize i = 0; i < g->rows; i++)
        row_backward(g, b->y + (row + i) * width, b->grad + (row + i) * width, g->dy + i * width);

    Product to_x = {.a = g->dy, .a_row = width, .a_depth = 1, .b = job->residual,
                    .c = dx, .c_row = in};
    if (job->mapped) {
        if (b->residual == RECTIFIED) {
            isize at = inner + job->mixed;
            to_x.a = dpacked + at, to_x.a_row = stride;
            for (isize i = 0; i < g->rows; i++)
                memcpy(dpacked + at + i * stride, g->dy + i * width, width * sizeof(float));
            deactivate(dpacked + at, packed + at, stride, g->rows, width);
        }
        add_input(g, to_x, width);
        add_weights(g, to_x.a, to_x.a_row, width, x, in, in, g->dweight + inner * in,
                    b->bias ? g->dbias + inner : NULL);
    } else if (b->residual == INPUT)
        memcpy(dx, g->dy, g->rows * width * sizeof(float));
    else
        memset(dx, 0, g->rows * in * sizeof(float));

    read_operands(g, x, packed);
    isize part = inner / 3;
    g->call.grad = rows_of(g->dy, n, head_dim, width);
    g->call.dq = rows_of(dpacked, n, g->call.dim, stride);
    g->call.dk = rows_of(dpacked + part, n, head_dim, stride);
    g->call.dv = rows_of(dpacked + 2 * part, n, head_dim, stride);
    if (b->values) {
        Product mix = {.a = g->dy, .a_row = width, .a_depth = 1, .depth = head_dim,
                       .c = du, .c_row = stride};
        map_heads(g, mix, in, job->values);
        for (isize head = 0; head < b->heads; head++)
            add_weights(g, g->dy + head * head_dim, width, head_dim, packed + inner + head * in,
                        stride, in, g->dvalues + head * head_dim * in, NULL);
        if (b->values_bias) add_rows(g->dy, width, g->rows, width, g->dvalues_bias);
        g->call.grad = rows_of(du, n, in, stride);
        g->call.dk = g->call.dv = rows_of(dx, n, 0, in);
        g->call.adds_keys = 1;
    }
    attend(g, backward);
    if (b->activated) deactivate(dpacked, packed, stride, g->rows, inner);
    to_x.a = dpacked, to_x.a_row = stride, to_x.b = job->weight, to_x.add = 1;
    add_input(g, to_x, inner);
    add_weights(g, dpacked, stride, inner, x, in, in, g->dweight, b->bias ? g->dbias : NULL);
}

/* Looks ahead at the next group. */
static void plan(Group *g) {
    const Block *b = g->job->block;
    isize first = g->first + g->problems, left = b->problems - first;
    isize rows = (left < g->job->group ? left : g->job->group) * b->tokens, row = first * b->tokens;
    struct { const float *data; isize columns; } arrays[] = {
        {b->dx, b->in}, {b->out, b->width}, {b->packed, b->stride},
        {b->y, b->width}, {b->grad, b->width}, {b->x, b->in},
    };
    g->ahead.count = g->ahead.done = 0;
    for (int i = 0; i < 6 && left > 0; i++)
        if (arrays[i].data) {
            const float *from = arrays[i].data + row * arrays[i].columns;
            Area area = {from, 0, 1, (rows * arrays[i].columns + 15) / 16};
            g->ahead.areas[g->ahead.count++] = area;
        }
    spread(&g->ahead);
}

#define PARTS 6
typedef struct {
    float *to;
    isize floats;
} Part;

/* The gradients of the parameters, in the order of their sums. */
static void parameters(const Job *job, Part *parts) {
    const Block *b = job->block;
    isize rows = job->inner + job->mapped, width = b->width;
    parts[0] = (Part){b->dweight, rows * b->in};
    parts[1] = (Part){b->dbias, b->bias ? rows : 0};
    parts[2] = (Part){b->dvalues, b->values ? width * b->in : 0};
    parts[3] = (Part){b->dvalues_bias, b->values_bias ? width : 0};
    parts[4] = (Part){b->dgain, b->gain ? width : 0};
    parts[5] = (Part){b->dshift, b->gain ? width : 0};
}

static void solve_chunks(void *data) {
    Job *job = data;
    const Block *b = job->block;
    isize head_dim = b->values ? b->in : b->width / b->heads, rows = job->group * b->tokens;
    Group g = {.job = job, .ahead.step = 8};
    g.call = (Call){.problems = b->problems, .heads = b->heads, .queries = b->tokens,
                    .keys = b->tokens, .dim = head_dim, .v_dim = head_dim, .seed = b->seed,
                    .scale = b->scale, .dropout = b->dropout};
    g.work = (Work){.call = &g.call, .queries = b->tokens, .keys = b->tokens, .ahead = &g.ahead};
    void *memory = work_memory(&g.work, &g.call, b->tokens, b->tokens);
    g.packed = malloc((rows + 1) * (2 * b->stride + b->width) * sizeof(float));
    if (!memory || !g.packed) {
        job->failed = 1;
        free(memory);
        free(g.packed);
        return;
    }
    g.dpacked = g.packed + rows * b->stride, g.dy = g.dpacked + rows * b->stride;
    isize groups = (b->problems + job->group - 1) / job->group;
    for (;;) {
        isize chunk = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (chunk >= job->chunks) break;
        if (job->sums) {
            Part parts[PARTS];
            float **sums[PARTS] = {&g.dweight, &g.dbias, &g.dvalues, &g.dvalues_bias,
                                   &g.dgain, &g.dshift};
            float *sum = job->sums + chunk * job->sum_size;
            parameters(job, parts);
            for (int i = 0; i < PARTS; sum += parts[i++].floats) *sums[i] = sum;
        }
        isize end = groups * (chunk + 1) / job->chunks;
        for (isize group = groups * chunk / job->chunks; group < end; group++) {
            g.first = group * job->group, g.problems = b->problems - g.first;
            if (g.problems > job->group) g.problems = job->group;
            g.rows = g.problems * b->tokens;
            plan(&g);
            job->backward ? backward_group(&g) : forward_group(&g);
        }
    }
    free(memory);
    free(g.packed);
}

/* Adds up what the chunks gave for the parameters. */
static void write_sums(const Job *job) {
    for (isize chunk = 1; chunk < job->chunks; chunk++)
        for (isize i = 0; i < job->sum_size; i += LANES) {
            float *sum = job->sums + i;
            store(sum, load(sum) + load(sum + chunk * job->sum_size));
        }
    Part parts[PARTS];
    parameters(job, parts);
    const float *from = job->sums;
    for (int i = 0; i < PARTS; from += parts[i++].floats)
        if (parts[i].floats) memcpy(parts[i].to, from, parts[i].floats * sizeof(float));
}

/* Lays out the weights as the pass reads them. */
static void lay_out(Job *job) {
    const Block *b = job->block;
    isize in = b->in, head_dim = b->width / b->heads;
    const float *residual = b->weight + job->inner * in;
    if (job->backward) {
        job->residual = deep_strips(b->weight, in, job->inner, job->weight);
        job->values = deep_strips(residual, in, job->mapped, job->residual);
    } else {
        job->residual = into_strips(b->weight, 1, in, in, job->inner / LANES, job->weight);
        job->values = into_strips(residual, 1, in, in, job->mapped / LANES, job->residual);
    }
    float *to = job->values;
    for (isize head = 0; b->values && head < b->heads; head++) {
        const float *from = b->values + head * head_dim * in;
        to = job->backward ? into_strips(from, in, 1, head_dim, in / LANES, to)
                           : into_strips(from, 1, in, in, head_dim / LANES, to);
    }
}

/* Runs the forward or the backward; chunks, and with them every sum, do not depend on the number of
 * threads. Returns 0, or 1 where memory ran out. */
int core_attn_block(const Block *b, int backward, int threads, Parallel parallel) {
    Job job = {.block = b, .backward = backward};
    isize rows = b->problems * b->tokens;
    if (rows == 0) return 0;
    job.inner = b->values ? b->heads * b->in : 3 * b->width;
    job.mapped = b->residual >= MAPPED ? b->width : 0;
    job.mixed = b->values ? b->heads * b->in : 0;
    job.group = b->tokens < 48 ? 48 / b->tokens : 1;
    job.chunks = (b->problems + job.group - 1) / job.group;
    isize most = backward ? 32 : 256;
    if (job.chunks > most) job.chunks = most;
    Part parts[PARTS];
    parameters(&job, parts);
    for (int i = 0; i < PARTS; i++) job.sum_size += parts[i].floats;
    isize weights = (job.inner + job.mapped + (b->values ? b->width : 0)) * b->in;
    job.weight = malloc(weights * sizeof(float));
    if (backward) job.sums = calloc(job.chunks * job.sum_size, sizeof(float));
    job.failed = !job.weight || (backward && !job.sums);
    if (!job.failed) {
        lay_out(&job);
        if (backward) prepare(b->dx, rows * b->in);
        else {
            prepare(b->packed, rows * b->stride);
            prepare(b->y, rows * b->width);
            prepare(b->out, rows * b->width);
        }
        run_team(solve_chunks, &job, threads < job.chunks ? threads : job.chunks, parallel);
        if (backward) write_sums(&job);
    }
    free(job.weight);
    free(job.sums);
    return job.failed;
}

const int core_attn_lanes = LANES;
