/* Attention among the edges of an atom whose products are weighed by Legendre polynomials of the
 * angle between the edges: forward, backward, and the derivative of backward.
 *
 * Per head and pair of edges: 2 dim FLOPs for the products by degree, 2 v_dim for the values, about
 * 10 for each degree; the arrays of one atom stay in the second-level cache, so that the kernel is
 * bound by arithmetic. All loops run over keys, in whole vectors.
 *
 * The third pass is the tangent of the second along (tq, tk, tv, tu, tb): with L = <grad, out>, what
 * it differentiates is <t, dL/dx>, the derivative of L along t. */
#include <stdlib.h>
#include <string.h>
#include "team.h"
#include "vectors.h"

#define MOST_DEGREES 16

typedef struct {
    int64_t atoms, heads, dim, v_dim, degrees, first_only;
    const int64_t *offsets, *channels; /* of atoms; of degrees */
    float scale;
    const float *q, *k, *v, *u, *bias;
    float *out;
    const float *grad;
    float *dq, *dk, *dv, *du, *dbias;
    const float *tq, *tk, *tv, *tu, *tbias;
    float *dgrad;
} Call;

typedef struct {
    const Call *call;
    int pass, failed;
    isize width, next;
} Job;

/* The arrays of one atom, `W` keys wide. */
typedef struct {
    isize n, W;
    float *k, *v, *dk, *dv, *tk, *tv;             /* channels of all heads by keys */
    float *u, *du, *tu;                           /* 3 by keys */
    float *bias, *dbias, *tbias, *real;           /* keys */
    float *R, *R1, *R2;                           /* degrees by keys: P_l, its derivatives */
    float *A, *At;                                /* degrees by keys: products, their tangents */
    float *S, *P, *Pt, *dP, *dPt, *dS, *dSt;      /* keys */
    float *c, *ct, *m, *dc, *dct;                 /* keys: cosines and gradients */
} Atom;

static isize floats_of(const Call *c, isize W) {
    isize wide = c->heads * c->dim, v_wide = c->heads * c->v_dim;
    return W * (3 * wide + 3 * v_wide + 9 + 4 + 5 * MOST_DEGREES + 7 + 5);
}

static Atom carve(const Call *c, isize W, float *at) {
    isize wide = c->heads * c->dim, v_wide = c->heads * c->v_dim;
    Atom a = {.W = W};
#define TAKE(name, rows) a.name = at, at += (rows) * W
    TAKE(k, wide); TAKE(v, v_wide); TAKE(dk, wide); TAKE(dv, v_wide); TAKE(tk, wide); TAKE(tv, v_wide);
    TAKE(u, 3); TAKE(du, 3); TAKE(tu, 3);
    TAKE(bias, 1); TAKE(dbias, 1); TAKE(tbias, 1); TAKE(real, 1);
    TAKE(R, MOST_DEGREES); TAKE(R1, MOST_DEGREES); TAKE(R2, MOST_DEGREES);
    TAKE(A, MOST_DEGREES); TAKE(At, MOST_DEGREES);
    TAKE(S, 1); TAKE(P, 1); TAKE(Pt, 1); TAKE(dP, 1); TAKE(dPt, 1); TAKE(dS, 1); TAKE(dSt, 1);
    TAKE(c, 1); TAKE(ct, 1); TAKE(m, 1); TAKE(dc, 1); TAKE(dct, 1);
    return a;
}

#define KEYS for (isize t = 0; t < W; t += LANES)

/* to[channel][key] = from[key][channel], 0 beyond the keys. */
static void turn(const float *from, isize n, isize rows, float *to, isize W) {
    for (isize r = 0; r < rows; r++) {
        for (isize t = 0; t < n; t++) to[r * W + t] = from[t * rows + r];
        for (isize t = n; t < W; t++) to[r * W + t] = 0;
    }
}

static void turn_back(const float *from, isize n, isize rows, float *to, isize W) {
    for (isize t = 0; t < n; t++)
        for (isize r = 0; r < rows; r++) to[t * rows + r] = from[r * W + t];
}

static inline float total(vec x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

static inline float dot(const float *a, const float *b, isize W) {
    vec sum = {0};
    KEYS sum += load(a + t) * load(b + t);
    return total(sum);
}

/* y += x * factor */
static inline void add(float *y, const float *x, float factor, isize W) {
    vec f = splat(factor);
    KEYS store(y + t, load(y + t) + f * load(x + t));
}

static inline void clear(float *x, isize count) { memset(x, 0, count * sizeof(float)); }

/* Cosines of edge s with all others, polynomials of them and, from pass 1 on, derivatives. */
static void angles(const Call *call, Atom *a, isize s, int pass) {
    const isize W = a->W, L = call->degrees;
    clear(a->c, W);
    for (int x = 0; x < 3; x++) add(a->c, a->u + x * W, a->u[x * W + s], W);
    vec real = splat(a->real[s]);
    KEYS store(a->m + t, real * load(a->real + t));
    if (pass == 2) {
        clear(a->ct, W);
        for (int x = 0; x < 3; x++) {
            add(a->ct, a->u + x * W, a->tu[x * W + s], W);
            add(a->ct, a->tu + x * W, a->u[x * W + s], W);
        }
    }
    KEYS {
        vec c = load(a->c + t), m = load(a->m + t), zero = {0}, one = splat(1);
        vec r0 = m, r1 = c, p0 = zero, p1 = one, s0 = zero, s1 = zero;
        store(a->R + t, one);
        store(a->R1 + t, zero);
        store(a->R2 + t, zero);
        for (isize l = 1; l < L; l++) {
            if (l > 1) {
                float up = (2 * l - 1) / (float)l, down = (l - 1) / (float)l;
                vec r2 = up * c * r1 - down * m * r0;
                vec p2 = up * (r1 + c * p1) - down * m * p0;
                vec s2 = up * (2 * p1 + c * s1) - down * m * s0;
                r0 = r1, r1 = r2, p0 = p1, p1 = p2, s0 = s1, s1 = s2;
            }
            store(a->R + l * W + t, r1);
            store(a->R1 + l * W + t, p1);
            store(a->R2 + l * W + t, s1);
        }
    }
}

/* products[l][t] (+)= sum of q k over the channels of degree l */
static void products(const Call *call, const float *q, const float *k, float *to, isize W, int more) {
    for (isize l = 0, first = 0; l < call->degrees; l++) {
        isize count = call->channels[l];
        KEYS {
            vec sum = more ? load(to + l * W + t) : (vec){0};
            for (isize ch = first; ch < first + count; ch++) sum += q[ch] * load(k + ch * W + t);
            store(to + l * W + t, sum);
        }
        first += count;
    }
}

static void softmax(Atom *a) {
    const isize W = a->W;
    vec top = splat(-INFINITY);
    KEYS top = larger(top, load(a->S + t));
    float most = -INFINITY;
    for (int i = 0; i < LANES; i++) most = top[i] > most ? top[i] : most;
    if (most == -INFINITY) { /* nothing may be seen */
        clear(a->P, W);
        return;
    }
    most = ceilf(most * LOG2E);
    vec sum = {0}, whole = splat(most);
    KEYS {
        vec p = exp2_below(load(a->S + t) * LOG2E, whole);
        store(a->P + t, p);
        sum += p;
    }
    vec share = splat(1 / total(sum));
    KEYS store(a->P + t, share * load(a->P + t));
}

/* One query and head; `row` of q, grad, their gradients and tangents. */
static void one_row(const Call *call, Atom *a, isize s, isize row, isize head, int pass) {
    const isize W = a->W, L = call->degrees, D = call->dim, V = call->v_dim;
    const isize at = (row * call->heads + head) * D, v_at = (row * call->heads + head) * V;
    const float *q = call->q + at, *k = a->k + head * D * W, *v = a->v + head * V * W;
    const float scale = call->scale;
    products(call, q, k, a->A, W, 0);
    KEYS {
        vec sum = {0};
        for (isize l = 0; l < L; l++) sum += load(a->R + l * W + t) * load(a->A + l * W + t);
        store(a->S + t, scale * sum + load(a->bias + t));
    }
    softmax(a);
    if (pass == 0) {
        for (isize ch = 0; ch < V; ch++) call->out[v_at + ch] = dot(a->P, v + ch * W, W);
        return;
    }
    const float *g = call->grad + v_at;
    clear(a->dP, W);
    for (isize ch = 0; ch < V; ch++) add(a->dP, v + ch * W, g[ch], W);
    const vec mean = splat(dot(a->P, a->dP, W));
    KEYS store(a->dS + t, load(a->P + t) * (load(a->dP + t) - mean));
    float *dk = a->dk + head * D * W, *dv = a->dv + head * V * W, *dq = call->dq + at;
    if (pass == 1) {
        for (isize ch = 0; ch < V; ch++) add(dv + ch * W, a->P, g[ch], W);
        KEYS {
            vec dS = load(a->dS + t), sum = {0};
            for (isize l = 0; l < L; l++) {
                sum += load(a->R1 + l * W + t) * load(a->A + l * W + t);
                store(a->A + l * W + t, scale * dS * load(a->R + l * W + t)); /* now its gradient */
            }
            store(a->dc + t, load(a->dc + t) + scale * dS * sum);
            store(a->dbias + t, load(a->dbias + t) + dS);
        }
        for (isize l = 0, ch = 0; l < L; l++)
            for (isize end = ch + call->channels[l]; ch < end; ch++) {
                dq[ch] = dot(a->A + l * W, k + ch * W, W);
                add(dk + ch * W, a->A + l * W, q[ch], W);
            }
        return;
    }
    const float *tq = call->tq + at, *tk = a->tk + head * D * W, *tv = a->tv + head * V * W;
    products(call, tq, k, a->At, W, 0);
    products(call, q, tk, a->At, W, 1);
    vec along = {0};
    KEYS {
        vec sum = {0}, ct = load(a->ct + t);
        for (isize l = 0; l < L; l++)
            sum += load(a->R1 + l * W + t) * ct * load(a->A + l * W + t) +
                   load(a->R + l * W + t) * load(a->At + l * W + t);
        vec St = scale * sum + load(a->tbias + t), P = load(a->P + t);
        store(a->S + t, St);
        along += P * St;
    }
    along = splat(total(along));
    KEYS store(a->Pt + t, load(a->P + t) * (load(a->S + t) - along));
    for (isize ch = 0; ch < V; ch++)
        call->dgrad[v_at + ch] = dot(a->Pt, v + ch * W, W) + dot(a->P, tv + ch * W, W);
    clear(a->dPt, W);
    for (isize ch = 0; ch < V; ch++) add(a->dPt, tv + ch * W, g[ch], W);
    const vec mean_t = splat(dot(a->Pt, a->dP, W) + dot(a->P, a->dPt, W));
    KEYS store(a->dSt + t, load(a->Pt + t) * (load(a->dP + t) - mean) +
                               load(a->P + t) * (load(a->dPt + t) - mean_t));
    for (isize ch = 0; ch < V; ch++) add(dv + ch * W, a->Pt, g[ch], W);
    KEYS {
        vec dS = load(a->dS + t), dSt = load(a->dSt + t), ct = load(a->ct + t);
        vec dc = {0}, dct = {0};
        for (isize l = 0; l < L; l++) {
            vec R = load(a->R + l * W + t), R1 = load(a->R1 + l * W + t);
            vec A = load(a->A + l * W + t), At = load(a->At + l * W + t);
            dc += R1 * A * dS;
            dct += load(a->R2 + l * W + t) * ct * A * dS + R1 * (At * dS + A * dSt);
            store(a->A + l * W + t, scale * R * dS); /* now the gradient, and its tangent */
            store(a->At + l * W + t, scale * (R1 * ct * dS + R * dSt));
        }
        store(a->dc + t, load(a->dc + t) + scale * dc);
        store(a->dct + t, load(a->dct + t) + scale * dct);
        store(a->dbias + t, load(a->dbias + t) + dSt);
    }
    for (isize l = 0, ch = 0; l < L; l++)
        for (isize end = ch + call->channels[l]; ch < end; ch++) {
            dq[ch] = dot(a->At + l * W, k + ch * W, W) + dot(a->A + l * W, tk + ch * W, W);
            add(dk + ch * W, a->At + l * W, q[ch], W);
            add(dk + ch * W, a->A + l * W, tq[ch], W);
        }
}

static void one_atom(const Call *call, Atom *a, isize atom, int pass) {
    const isize begin = call->offsets[atom], n = call->offsets[atom + 1] - begin;
    const isize W = a->W = round_up(n, LANES), H = call->heads;
    const isize wide = H * call->dim, v_wide = H * call->v_dim;
    turn(call->k + begin * wide, n, wide, a->k, W);
    turn(call->v + begin * v_wide, n, v_wide, a->v, W);
    turn(call->u + begin * 3, n, 3, a->u, W);
    for (isize t = 0; t < W; t++) {
        const float *u = a->u + t;
        a->real[t] = u[0] * u[0] + u[W] * u[W] + u[2 * W] * u[2 * W] > 0.5f;
        a->bias[t] = t >= n ? -INFINITY : call->bias ? call->bias[begin + t] : 0;
    }
    if (pass > 0) {
        clear(a->dk, wide * W);
        clear(a->dv, v_wide * W);
        clear(a->du, 3 * W);
        clear(a->dbias, W);
    }
    if (pass == 2) {
        turn(call->tk + begin * wide, n, wide, a->tk, W);
        turn(call->tv + begin * v_wide, n, v_wide, a->tv, W);
        turn(call->tu + begin * 3, n, 3, a->tu, W);
        for (isize t = 0; t < W; t++)
            a->tbias[t] = t < n && call->tbias ? call->tbias[begin + t] : 0;
    }
    for (isize s = 0; s < (call->first_only ? 1 : n); s++) {
        angles(call, a, s, pass);
        clear(a->dc, W);
        clear(a->dct, W);
        for (isize head = 0; head < H; head++)
            one_row(call, a, s, call->first_only ? atom : begin + s, head, pass);
        for (int x = 0; x < 3 && pass > 0; x++) {
            const float *dc = pass == 1 ? a->dc : a->dct;
            const float *u = a->u + x * W, *tu = a->tu + x * W;
            float *du = a->du + x * W, own = dot(dc, u, W);
            add(du, dc, u[s], W);
            if (pass == 2) {
                own += dot(a->dc, tu, W);
                add(du, a->dc, tu[s], W);
            }
            du[s] += own;
        }
    }
    if (pass == 0) return;
    turn_back(a->dk, n, wide, call->dk + begin * wide, W);
    turn_back(a->dv, n, v_wide, call->dv + begin * v_wide, W);
    turn_back(a->du, n, 3, call->du + begin * 3, W);
    if (call->dbias) memcpy(call->dbias + begin, a->dbias, n * sizeof(float));
}

#define AT_ONCE 4 /* atoms that a thread takes */

static void solve(void *data) {
    Job *job = data;
    const Call *call = job->call;
    float *memory = aligned_alloc(64, round_up(floats_of(call, job->width) * sizeof(float), 64));
    if (!memory) {
        job->failed = 1;
        return;
    }
    for (;;) {
        isize first = __atomic_fetch_add(&job->next, AT_ONCE, __ATOMIC_RELAXED);
        if (first >= call->atoms) break;
        isize last = first + AT_ONCE < call->atoms ? first + AT_ONCE : call->atoms;
        for (isize atom = first; atom < last; atom++) {
            isize n = call->offsets[atom + 1] - call->offsets[atom];
            if (n == 0) continue;
            Atom a = carve(call, round_up(n, LANES), memory);
            a.n = n;
            one_atom(call, &a, atom, job->pass);
        }
    }
    free(memory);
}

int core_attn_edge_attention(const Call *call, int pass, int threads, Parallel parallel) {
    Job job = {.call = call, .pass = pass};
    for (isize atom = 0; atom < call->atoms; atom++) {
        isize n = call->offsets[atom + 1] - call->offsets[atom];
        if (n > job.width) job.width = n;
    }
    job.width = round_up(job.width, LANES);
    if (job.width == 0) return 0;
    isize groups = (call->atoms + AT_ONCE - 1) / AT_ONCE;
    run_team(solve, &job, threads < groups ? threads : groups, parallel);
    return job.failed;
}
