/* A sweep of sequential Glauber dynamics on factors, all replicas side by side.
 *
 * Cost of an update: F multiplications for the field, F more where the spin turns, one exponential;
 * the factors are read once a sweep, 4 F bytes a spin. Replicas share the order, so that a spin's
 * factors lie in one run of memory and the chains, which are independent, overlap in time. */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 4, TOGETHER = 4 }; /* doubles of a vector; vectors summed side by side */
#define TIE 1e-9                  /* of a field times N, below which it cancels */

typedef double Vector __attribute__((vector_size(8 * LANES)));
typedef float Half __attribute__((vector_size(4 * LANES)));

typedef struct {
    int64_t spins, replicas, factors;
    double scale;          /* 2 beta / N; infinite at zero temperature */
    const int64_t *order;  /* (spins) */
    const float *factor;   /* (spins, replicas, factors) */
    const double *own;     /* (spins, replicas): |A_i|^2 */
    const double *uniform; /* (spins, replicas) in [0, 1); not read at zero temperature */
    double *spin;          /* (spins, replicas) */
    double *overlap;       /* (replicas, factors): A^T s */
} Sweep;

static inline double dot(const float *a, const double *b, int64_t count) {
    double total = 0;
    int64_t f = 0;
    if (count >= LANES * TOGETHER) {
        Vector sum[TOGETHER] = {{0}}, y;
        Half x;
        for (; f + LANES * TOGETHER <= count; f += LANES * TOGETHER)
            for (int k = 0; k < TOGETHER; k++) {
                memcpy(&x, a + f + k * LANES, sizeof x);
                memcpy(&y, b + f + k * LANES, sizeof y);
                sum[k] += __builtin_convertvector(x, Vector) * y;
            }
        for (int k = 0; k < TOGETHER; k++)
            for (int lane = 0; lane < LANES; lane++) total += sum[k][lane];
    }
    for (; f < count; f++) total += a[f] * b[f];
    return total;
}

int attn_theory_glauber(const void *call, int pass, int threads, void *parallel) {
    (void)pass, (void)threads, (void)parallel;
    const Sweep *s = call;
    int frozen = isinf(s->scale);
    for (int64_t step = 0; step < s->spins; step++) {
        int64_t i = s->order[step];
        for (int64_t r = 0; r < s->replicas; r++) {
            int64_t at = i * s->replicas + r;
            const float *a = s->factor + at * s->factors;
            double *overlap = s->overlap + r * s->factors, old = s->spin[at], new;
            double field = dot(a, overlap, s->factors) - s->own[at] * old;
            if (frozen)
                new = fabs(field) <= TIE ? old : field > 0 ? 1.0 : -1.0;
            else
                new = s->uniform[at] * (1 + exp(-s->scale * field)) < 1 ? 1.0 : -1.0;
            if (new == old) continue;
            for (int64_t f = 0; f < s->factors; f++) overlap[f] += 2 * new * a[f];
            s->spin[at] = new;
        }
    }
    return 0;
}
