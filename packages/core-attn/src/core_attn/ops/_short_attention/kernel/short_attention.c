/* Attention for many small problems: forward, backward and the derivative of the backward.
 *
 * One (problem, head) pair is solved at a time, on chip. Scores are kept transposed, keys down and
 * queries across the vector lanes, so that maximum, sum and every other reduction of the softmax
 * runs down the rows without a horizontal step. All products go through one routine, `multiply`,
 * which holds a block of up to 4 x 3 vectors in registers: 12 multiply-adds for 7 loads. Where a row
 * fills half a vector, sums over keys are kept turned, and sums over queries take two at a time.
 *
 * Per pair of n tokens and d channels the forward does 4 n n d operations, the backward 10 n n d
 * and its derivative 24 n n d, for 16 n d, 28 n d and 56 n d bytes; with n >= 16 the arithmetic
 * is the bound, not the memory.
 *
 * Plain C with GCC / clang vector extensions. No reference to torch or Python.
 */

#include "passes.h"
#include "team.h"

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
    spread(ahead);
}

typedef struct {
    const Call *call;
    void (*solve)(const Work *);
    isize longest_queries, longest_keys, chunks, next; /* next: taken by whoever is free */
    float *bias_sums;                                  /* (chunks, heads, keys, width) or NULL */
    float *shared;                                     /* (heads, keys, width) or NULL */
    int failed;
} Job;

static void solve_chunks(void *data) {
    Job *job = data;
    const Call *c = job->call;
    Ahead ahead = {.step = 8};
    Work w = {.call = c, .ahead = &ahead};
    void *memory = work_memory(&w, c, job->longest_queries, job->longest_keys);
    if (!memory) {
        job->failed = 1;
        return;
    }
    isize keys = job->longest_keys, width = w.width;
    isize items = c->problems * c->heads;
    for (;;) {
        isize chunk = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (chunk >= job->chunks) break;
        isize end = items * (chunk + 1) / job->chunks;
        for (isize item = items * chunk / job->chunks; item < end; item++) {
            w.problem = w.drawn = item / c->heads, w.head = item % c->heads;
            w.start = c->offsets ? c->offsets[w.problem] : 0;
            w.queries = c->offsets ? c->offsets[w.problem + 1] - w.start : c->queries;
            w.keys = c->offsets ? w.queries : c->keys;
            if (job->shared) w.shared = job->shared + w.head * keys * width;
            if (job->bias_sums)
                w.bias_sum = job->bias_sums + (chunk * c->heads + w.head) * keys * width;
            if (w.head == 0) plan(&w);
            if (w.queries > 0 && w.keys > 0) job->solve(&w);
        }
    }
    free(memory);
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

/* Results are dense arrays; rows of them belong to queries or to keys. */
static void prepare_results(const Call *c) {
    isize rows = c->heads * (c->offsets ? c->offsets[c->problems] : c->problems * c->queries);
    isize key_rows = c->offsets ? rows : c->heads * c->problems * c->keys;
    prepare(c->out.data, rows * c->v_dim);
    prepare(c->dgrad.data, rows * c->v_dim);
    prepare(c->dq.data, rows * c->dim);
    prepare(c->dk.data, key_rows * c->dim);
    prepare(c->dv.data, key_rows * c->v_dim);
    if (c->dbias.problem) prepare(c->dbias.data, rows * c->keys);
}

static int is_shared(const View *x) { return x->data && x->problem == 0; }

/* Lays out bias and mask, where all problems share them, as the scores are. */
static void share(Job *job) {
    const Call *c = job->call;
    Work w = {.call = c, .queries = job->longest_queries, .keys = job->longest_keys};
    w.width = round_up(w.queries, LANES);
    for (; w.head < c->heads; w.head++) {
        float *table = job->shared + w.head * w.keys * w.width;
        if (is_shared(&c->bias)) add_bias(&w, &c->bias, LOG2E, table);
        if (is_shared(&c->mask)) add_mask(&w, &c->mask, table);
    }
}

/* Runs pass 0 (forward), 1 (backward) or 2 (its derivative); `parallel` is GOMP_parallel of the
 * OpenMP runtime at hand, or NULL for threads of our own. Chunks, and with them every sum, do not
 * depend on the number of threads. Returns 0, 1 where memory ran out, or 2 where offsets do not fit. */
int core_attn_short_attention(const Call *call, int pass, int threads, Parallel parallel) {
    static void (*const passes[])(const Work *) = {forward, backward, backward_backward};
    Job job = {.call = call, .solve = passes[pass], .longest_queries = call->queries,
               .longest_keys = call->keys};
    for (isize p = 0; call->offsets && p < call->problems; p++) {
        isize tokens = call->offsets[p + 1] - call->offsets[p];
        if (tokens < 0 || tokens > call->reach) return 2;
        if (tokens > job.longest_queries) job.longest_queries = job.longest_keys = tokens;
    }
    if (call->offsets && (call->offsets[0] || call->offsets[call->problems] != call->total)) return 2;
    isize items = call->problems * call->heads;
    if (items == 0 || job.longest_queries == 0) return 0;
    int sums_bias = is_shared(&call->dbias);
    int shares = is_shared(&call->bias) || is_shared(&call->mask);
    isize most = sums_bias ? 32 : 256;
    job.chunks = items < most ? items : most;
    isize table = call->heads * job.longest_keys * round_up(job.longest_queries, LANES);
    if (sums_bias) job.bias_sums = calloc(job.chunks * table, sizeof(float));
    if (shares) job.shared = calloc(table, sizeof(float));
    job.failed = (sums_bias && !job.bias_sums) || (shares && !job.shared);
    if (!job.failed) {
        prepare_results(call);
        if (shares) share(&job);
        run_team(solve_chunks, &job, threads < job.chunks ? threads : job.chunks, parallel);
        if (sums_bias) write_bias_sum(&job);
    }
    free(job.bias_sums);
    free(job.shared);
    return job.failed;
}
