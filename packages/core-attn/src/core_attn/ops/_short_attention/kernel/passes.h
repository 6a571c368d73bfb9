/* The three passes over one problem: forward, backward, and the derivative of the backward. */
#include "problem.h"

/* The unnormalised weights of the problem in w->scores, 1 / sum in row[0], the gate in row[1]; it
 * is 0 for the repeated queries, so that nothing of theirs reaches a gradient. With dp, sum of
 * weights times dp in row[2]. */
static inline __attribute__((always_inline)) void weigh(const Work *w, const float *dp) {
    const Call *c = w->call;
    pack_transposed(w, &c->q, c->dim, c->scale * LOG2E, w->qt);
    score(w, &c->k, c->dim, w->qt, 0, w->scores);
    add_biases(w);
    softmax(w, w->scores, w->row[0], dp, w->row[2]);
    for (isize i = 0; i < w->width; i++) w->row[1][i] = i < w->queries;
    if (c->gate.data)
        for (isize i = 0; i < w->queries; i++) w->row[1][i] = *at(w, &c->gate, i);
}

static void write_gate(const Work *w, const View *gate, const float *x) {
    float sum = 0;
    if (gate->row)
        for (isize i = 0; i < w->queries; i++) *at(w, gate, i) = x[i];
    else {
        for (isize i = 0; i < w->queries; i++) sum += x[i];
        *at(w, gate, 0) = sum;
    }
}

static void forward(const Work *w) {
    const Call *c = w->call;
    weigh(w, NULL);
    draw_kept(w);
    drop(w, w->scores);
    float *factor = w->row[0];
    for (isize i = 0; i < w->width; i++) factor[i] *= w->row[1][i];
    over_keys(w, &c->out, &c->v, c->v_dim, w->scores, factor, 1, c->adds_out);
}

/* With h = gate * grad, P the weights: dV = P^T h; dP = grad V^T; delta = sum P dP, which is also
 * the gradient of the gate; dS = gate P (dP - delta); dQ = scale dS K; dK = scale dS^T Q. With
 * dropout D, dV = (P D)^T h and dP = D grad V^T. */
static void backward(const Work *w) {
    const Call *c = w->call;
    pack_transposed(w, &c->grad, c->v_dim, 1.0f, w->gt);
    score(w, &c->v, c->v_dim, w->gt, 0, w->dp);
    draw_kept(w);
    drop(w, w->dp);
    weigh(w, w->dp);
    isize n = w->width;
    for (isize i = 0; i < w->queries; i += LANES) {
        vec factor = load(w->row[0] + i) * load(w->row[1] + i), delta = load(w->row[2] + i);
        for (isize j = i; j < i + w->keys * n; j += n) {
            vec weight = load(w->scores + j) * factor;
            store(w->scores + j, weight);
            store(w->dp + j, weight * (load(w->dp + j) - delta));
        }
    }
    drop(w, w->scores);
    over_queries(w, &c->dv, &c->grad, c->v_dim, w->scores, NULL, c->adds_keys);
    over_queries(w, &c->dk, &c->q, c->dim, w->dp, &c->scale, c->adds_keys);
    over_keys(w, &c->dq, &c->k, c->dim, w->dp, &c->scale, 0, 0);
    finish_bias(w, w->dp);
    if (c->dgate.data) write_gate(w, &c->dgate, w->row[2]);
}

/* The derivative of the backward along directions tq, tk, tv, tbias, tgate of its five results:
 * with tS = scale (tQ K^T + Q tK^T) + tbias, W = D grad tV^T and u = sum P tS, the number
 * differentiated is sum gate P ((tS - u) dP + W) + tgate delta. */
static void backward_backward(const Work *w) {
    const Call *c = w->call;
    isize n = w->width;
    weigh(w, NULL);
    pack_transposed(w, &c->grad, c->v_dim, 1.0f, w->gt);
    pack_transposed(w, &c->tq, c->dim, c->scale, w->tqt);
    score(w, &c->v, c->v_dim, w->gt, 0, w->dp);
    score(w, &c->tv, c->v_dim, w->gt, 0, w->w);
    draw_kept(w);
    drop(w, w->dp);
    drop(w, w->w);
    score(w, &c->k, c->dim, w->tqt, 0, w->ds);
    pack_transposed(w, &c->q, c->dim, c->scale, w->qt);
    score(w, &c->tk, c->dim, w->qt, 1, w->ds);
    if (c->tbias.data) add_bias(w, &c->tbias, 1.0f, w->ds);
    for (isize i = 0; i < n; i++)
        w->row[3][i] = c->tgate.data && i < w->queries ? *at(w, &c->tgate, i) : 0.0f;
    for (isize i = 0; i < w->queries; i += LANES) {
        vec inverse = load(w->row[0] + i), gate = load(w->row[1] + i), tgate = load(w->row[3] + i);
        vec u = {0}, delta = {0}, both = {0}, direct = {0};
        for (isize j = 0; j < w->keys; j++) {
            vec p = load(w->scores + j * n + i), dp = load(w->dp + j * n + i);
            vec pts = p * load(w->ds + j * n + i);
            u += pts;
            delta += p * dp;
            both += pts * dp;
            direct += p * load(w->w + j * n + i);
        }
        u *= inverse, delta *= inverse;
        vec dgate = (both + direct) * inverse - u * delta;
        vec mean = gate * (dgate - u * delta) + tgate * delta;
        store(w->row[2] + i, dgate);
        for (isize j = 0; j < w->keys; j++) {
            vec p = load(w->scores + j * n + i) * inverse, dp = load(w->dp + j * n + i);
            vec ts = load(w->ds + j * n + i), direct = load(w->w + j * n + i);
            store(w->scores + j * n + i, gate * p);
            store(w->dp + j * n + i, gate * p * (dp - delta));
            store(w->ds + j * n + i, p * (gate * (ts - u) + tgate));
            store(w->w + j * n + i,
                  p * (gate * ((ts - u) * dp - ts * delta + direct) + tgate * dp - mean));
        }
    }
    drop(w, w->scores);
    drop(w, w->ds);
    const float one = 1;
    over_keys(w, &c->dq, &c->tk, c->dim, w->dp, &c->scale, 0, 0);
    over_keys(w, &c->dq, &c->k, c->dim, w->w, &c->scale, 0, 1);
    over_queries(w, &c->dk, &c->tq, c->dim, w->dp, &c->scale, 0);
    over_queries(w, &c->dk, &c->q, c->dim, w->w, &c->scale, 1);
    over_queries(w, &c->dv, &c->grad, c->v_dim, w->ds, NULL, 0);
    over_keys(w, &c->dgrad, &c->v, c->v_dim, w->ds, &one, 0, 0);
    over_keys(w, &c->dgrad, &c->tv, c->v_dim, w->scores, &one, 0, 1);
    finish_bias(w, w->w);
    if (c->dgate.data) write_gate(w, &c->dgate, w->row[2]);
}
