/* Threads that work on one job. */
#include <pthread.h>

typedef void (*Parallel)(void (*run)(void *), void *job, unsigned threads, unsigned flags);

typedef struct {
    void (*run)(void *);
    void *job;
} Member;

static void *run_member(void *data) {
    Member *member = data;
    member->run(member->job);
    return NULL;
}

/* Calls run(job) on every thread; `parallel` is GOMP_parallel of the OpenMP runtime at hand, or
 * NULL for threads of our own. */
static void run_team(void (*run)(void *), void *job, int threads, Parallel parallel) {
    if (threads > 1 && parallel) {
        parallel(run, job, threads, 0);
        return;
    }
    pthread_t team[threads];
    Member member = {run, job};
    int started = 0;
    while (started < threads - 1 && !pthread_create(&team[started], NULL, run_member, &member))
        started++;
    run(job);
    while (started > 0) pthread_join(team[--started], NULL);
}
