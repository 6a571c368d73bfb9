/* The passes over all groups of a call, on a team of threads. */
#include "groups.h"
#include "single.h"

#define CHUNK 16 /* groups that a thread takes at a time in the forward pass */

typedef struct {
    const Call *call;
    int backward, failed;
    isize next, units, chunks;
    float *table_sums, *bias_sums; /* per batch and head */
    isize table_size;
} Job;

static void work_on(void *data) {
    Job *job = data;
    const Call *c = job->call;
    Work w;
    if (prepare_work(&w, c)) {
        job->failed = 1;
        return;
    }
    int single = c->members == 1 && !c->axes;
    void (*solve)(Work *) = single ? (job->backward ? backward_single : forward_single)
                                   : (job->backward ? backward_group : forward_group);
    for (;;) {
        isize unit = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (unit >= job->units) break;
        isize item = unit / job->chunks, part = unit % job->chunks;
        isize from = job->chunks == 1 ? 0 : part * CHUNK;
        isize to = job->chunks == 1 || from + CHUNK > c->groups ? c->groups : from + CHUNK;
        if (job->backward) {
            w.table_sums = job->table_sums + item * job->table_size;
            w.bias_sums = job->bias_sums + item * c->picks;
        }
        for (isize g = from; g < to; g++) {
            open_group(&w, item / c->heads, item % c->heads, g);
            solve(&w);
        }
    }
    free(w.memory);
}

/* Adds up what each batch entry gave for a head's tables and biases, in order. */
static void sum_up(const Job *job, isize dim) {
    const Call *c = job->call;
    for (isize item = 0; item < c->batch * c->heads; item++) {
        const float *from = job->table_sums + item * job->table_size;
        isize h = item % c->heads;
        for (isize a = 0; a < c->axes; a++) {
            isize rows = 2 * c->window[a] - 1;
            float *to = c->dtable[a] + h * rows * c->dim;
            for (isize r = 0; r < rows; r++, from += dim)
                for (isize d = 0; d < c->dim; d++) to[r * c->dim + d] += from[d];
        }
        if (!c->slot_bias) continue;
        const float *bias = job->bias_sums + item * c->picks;
        for (isize j = 0; j < c->picks; j++) c->dslot_bias[h * c->picks + j] += bias[j];
    }
}

/* Runs pass 0 (forward) or 1 (backward, which adds to gradients of zeros); sums do not depend on
 * the number of threads: one thread has all groups of a head. Returns 0, or 1 without memory. */
int core_attn_gather(const Call *call, int pass, int threads, Parallel parallel) {
    isize items = call->batch * call->heads, dim = round_up(call->dim, LANES);
    Job job = {.call = call, .backward = pass == 1, .chunks = 1};
    if (!job.backward) job.chunks = (call->groups + CHUNK - 1) / CHUNK;
    if (items == 0 || call->groups == 0) return 0;
    job.units = items * job.chunks;
    for (isize a = 0; a < call->axes; a++) job.table_size += (2 * call->window[a] - 1) * dim;
    if (job.backward) {
        job.table_sums = calloc(items * job.table_size + 1, sizeof(float));
        job.bias_sums = calloc(items * call->picks + 1, sizeof(float));
        if (!job.table_sums || !job.bias_sums) job.failed = 1;
    }
    if (!job.failed) run_team(work_on, &job, threads < job.units ? threads : job.units, parallel);
    if (job.backward && !job.failed) sum_up(&job, dim);
    free(job.table_sums);
    free(job.bias_sums);
    return job.failed;
}
