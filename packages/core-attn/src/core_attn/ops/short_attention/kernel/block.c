/* A layer around the attention, as in AutoInt: with queries, keys, values and residual that are one
 * product of the input, layer_norm(relu(attention + residual)) or relu(layer_norm(...)), with or
 * without the norm; forward and backward.
 *
 * A few problems at a time, 48 rows or so, pass through all of it while they are in the caches. Per
 * row of n tokens, input c, width w and p parts (3, or 4 with a mapped residual) the forward does
 * 2 c p w + 4 n w operations and the backward 4 c p w + 10 n w, for 4 (c + p w + 2 w) and
 * 4 (2 c + p w + 2 w) bytes; from w = 16 on the arithmetic is the bound.
 */
#include "passes.h"
#include "team.h"

enum { NONE, INPUT, MAPPED }; /* what is added to the attention */

/* Mirrored by native.py. All arrays are dense; width and in are whole vectors. */
typedef struct {
    isize problems, tokens, in, width, heads;
    isize stride;              /* of a row of packed: parts * width and some more */
    isize activated, residual; /* bit i: part i passes a relu; see above */
    isize norm_first;          /* the norm comes before the last relu, not after it */
    const uint64_t *seed;
    float scale, dropout, eps;
    const float *x;             /* (problems, tokens, in) */
    const float *weight, *bias; /* (parts * width, in) and (parts * width) or NULL */
    const float *gain, *shift;  /* (width), or NULL without a norm */
    float *packed;              /* (problems, tokens, stride), NULL where not to be kept */
    float *y, *out;             /* (problems, tokens, width) before and after the norm; may be one */
    const float *grad;
    float *dx, *dweight, *dbias, *dgain, *dshift;
} Block;

typedef struct {
    const Block *block;
    int backward;
    isize parts, group, chunks, next; /* group: problems at a time; next: taken by whoever is free */
    float *weight;                    /* in strips */
    float *sums;                      /* (chunks, sizes of dweight, dbias, dgain and dshift) */
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
    float *dweight, *dbias, *dgain, *dshift;
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

static View rows_of(const float *data, const Block *b, isize stride) {
    return (View){(void *)data, b->tokens * stride, b->width / b->heads, stride, 1};
}

/* Points the attention to its rows of queries, keys and values; solves every problem and head. */
static void attend(Group *g, const float *packed, void (*pass)(const Work *)) {
    const Block *b = g->job->block;
    View *views[] = {&g->call.q, &g->call.k, &g->call.v};
    for (int i = 0; i < 3; i++) *views[i] = rows_of(packed + i * b->width, b, b->stride);
    for (isize p = 0; p < g->problems; p++)
        for (isize head = 0; head < b->heads; head++) {
            g->work.problem = p, g->work.drawn = g->first + p, g->work.head = head;
            pass(&g->work);
        }
}

/* Adds the biases to a row of packed; the activated parts pass the relu. */
static void activate(float *to, const float *bias, isize activated, isize width, isize end) {
    for (isize start = 0; start < end; start += width, activated >>= 1)
        for (isize j = start; j < start + width; j += LANES) {
            vec sum = load(to + j);
            if (bias) sum += load(bias + j);
            store(to + j, activated & 1 ? positive(sum) : sum);
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
    const Block *b = g->job->block;
    isize width = b->width, packed_width = g->job->parts * width, row = g->first * b->tokens;
    const float *x = b->x + row * b->in;
    float *packed = b->packed ? b->packed + row * b->stride : g->packed;
    float *y = b->y + row * width, *out = b->out + row * width;
    Product p = {x, b->in, 1, g->job->weight, 0, packed, b->stride, 0, 0, b->in, 0};
    multiply_strips(&g->ahead, p, g->rows, packed_width / LANES);
    if (b->bias || b->activated)
        for (float *to = packed; to < packed + g->rows * b->stride; to += b->stride)
            activate(to, b->bias, b->activated, width, packed_width);
    g->call.out = rows_of(y, b, width);
    attend(g, packed, forward);
    const float *added = b->residual == MAPPED ? packed + 3 * width : x;
    isize added_stride = b->residual == MAPPED ? b->stride : b->in;
    if (b->residual == NONE) added = NULL;
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

/* The gradient before the relu of a row of packed, and its part of the biases'. */
static void deactivate(float *to, const float *at, float *dbias, isize activated, isize width,
                       isize end) {
    for (isize start = 0; start < end; start += width, activated >>= 1)
        for (isize j = start; j < start + width; j += LANES) {
            vec d = load(to + j);
            if (activated & 1) store(to + j, d = where_positive(load(at + j), d));
            store(dbias + j, load(dbias + j) + d);
        }
}

static void backward_group(Group *g) {
    const Block *b = g->job->block;
    isize width = b->width, packed_width = g->job->parts * width, row = g->first * b->tokens;
    const float *x = b->x + row * b->in, *packed = b->packed + row * b->stride;
    float *dx = b->dx + row * b->in;
    for (isize i = 0; i < g->rows; i++)
        row_backward(g, b->y + (row + i) * width, b->grad + (row + i) * width, g->dy + i * width);
    g->call.grad = rows_of(g->dy, b, width);
    View *views[] = {&g->call.dq, &g->call.dk, &g->call.dv};
    for (int i = 0; i < 3; i++) *views[i] = rows_of(g->dpacked + i * width, b, b->stride);
    attend(g, packed, backward);
    for (isize i = 0; i < g->rows; i++) {
        float *to = g->dpacked + i * b->stride;
        if (b->residual == MAPPED) memcpy(to + 3 * width, g->dy + i * width, width * sizeof(float));
        if (b->bias || b->activated)
            deactivate(to, packed + i * b->stride, g->dbias, b->activated, width, packed_width);
    }
    if (b->residual == INPUT) memcpy(dx, g->dy, g->rows * width * sizeof(float));
    Product p = {g->dpacked, b->stride, 1, g->job->weight, 0, dx, b->in, 0, 0, width, 0};
    for (isize part = 0; part < g->job->parts; part++, p.a += width, p.b += width * b->in) {
        p.add = part > 0 || b->residual == INPUT;
        multiply_strips(&g->ahead, p, g->rows, b->in / LANES);
    }
    Product dw = {g->dpacked, 1, b->stride, x, b->in, g->dweight, b->in, 0, 0, g->rows, 1};
    multiply(&g->ahead, dw, packed_width, b->in / LANES);
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

static void solve_chunks(void *data) {
    Job *job = data;
    const Block *b = job->block;
    isize head_dim = b->width / b->heads, rows = job->group * b->tokens;
    isize packed_width = job->parts * b->width;
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
            g.dweight = job->sums + chunk * job->sum_size, g.dbias = g.dweight + packed_width * b->in;
            g.dgain = g.dbias + packed_width, g.dshift = g.dgain + b->width;
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
    const Block *b = job->block;
    isize packed_width = job->parts * b->width;
    struct { float *to; isize floats; } parts[] = {
        {b->dweight, packed_width * b->in}, {b->dbias, packed_width},
        {b->dgain, b->width}, {b->dshift, b->width},
    };
    for (isize chunk = 1; chunk < job->chunks; chunk++)
        for (isize i = 0; i < job->sum_size; i += LANES) {
            float *sum = job->sums + i;
            store(sum, load(sum) + load(sum + chunk * job->sum_size));
        }
    const float *from = job->sums;
    for (int i = 0; i < 4; from += parts[i++].floats)
        if (parts[i].to) memcpy(parts[i].to, from, parts[i].floats * sizeof(float));
}

/* Runs the forward or the backward; chunks, and with them every sum, do not depend on the number of
 * threads. Returns 0, or 1 where memory ran out. */
int core_attn_block(const Block *b, int backward, int threads, Parallel parallel) {
    Job job = {.block = b, .backward = backward, .parts = b->residual == MAPPED ? 4 : 3};
    isize packed_width = job.parts * b->width, rows = b->problems * b->tokens;
    if (rows == 0) return 0;
    job.group = b->tokens < 48 ? 48 / b->tokens : 1;
    job.chunks = (b->problems + job.group - 1) / job.group;
    isize most = backward ? 32 : 256;
    if (job.chunks > most) job.chunks = most;
    job.sum_size = packed_width * (b->in + 1) + 2 * b->width;
    job.weight = malloc(packed_width * b->in * sizeof(float));
    if (backward) job.sums = calloc(job.chunks * job.sum_size, sizeof(float));
    job.failed = !job.weight || (backward && !job.sums);
    if (!job.failed && !backward) {
        into_strips(b->weight, 1, b->in, b->in, packed_width / LANES, job.weight);
        prepare(b->packed, rows * b->stride);
        prepare(b->y, rows * b->width);
        prepare(b->out, rows * b->width);
    } else if (!job.failed) {
        float *to = job.weight;
        for (isize part = 0; part < job.parts; part++) {
            const float *from = b->weight + part * b->width * b->in;
            to = into_strips(from, b->in, 1, b->width, b->in / LANES, to);
        }
        prepare(b->dx, rows * b->in);
    }
    if (!job.failed) {
        run_team(solve_chunks, &job, threads < job.chunks ? threads : job.chunks, parallel);
        if (backward) write_sums(&job);
    }
    free(job.weight);
    free(job.sums);
    return job.failed;
}

const int core_attn_lanes = LANES;
