/* Groups of one query without tables: dot products with the rows where they lie. */

static inline float total(vec x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

static inline float dot(const float *a, const float *b, isize n) {
    vec sum = {0};
    isize i = 0;
    for (; i + LANES <= n; i += LANES) sum += load(a + i) * load(b + i);
    float rest = total(sum);
    for (; i < n; i++) rest += a[i] * b[i];
    return rest;
}

/* y += x * a */
static inline void accumulate(float *y, const float *x, float a, isize n) {
    isize i = 0;
    for (; i + LANES <= n; i += LANES) store(y + i, load(y + i) + load(x + i) * splat(a));
    for (; i < n; i++) y[i] += x[i] * a;
}

/* The weights of a query in w->s, which sum to 1. */
static void weigh_single(Work *w, const float *q) {
    const Call *c = w->call;
    isize n = c->picks, padded = round_up(n, LANES);
    const float *bias = c->slot_bias ? c->slot_bias + w->h * c->slot_bias_head : NULL;
    float top = -INFINITY;
    for (isize j = 0; j < n; j++) {
        int64_t key = w->keys[j];
        float s = bias ? LOG2E * bias[j] : 0;
        if (key >= 0) s += LOG2E * c->scale * dot(q, row_of(&c->k, w->b, w->h, key), c->dim);
        if (key < 0 ? c->masked : c->causal && key > w->queries[0]) s = -INFINITY;
        if (key == w->queries[0]) s += LOG2E * c->self_bias;
        w->s[j] = s;
        if (s > top) top = s;
    }
    for (isize j = n; j < padded; j++) w->s[j] = -INFINITY;
    if (!(top > -3e38f)) top = 0;
    vec most = splat((top + ROUND) - ROUND), sum = {0};
    for (isize j = 0; j < padded; j += LANES) {
        vec x = exp2_below(load(w->s + j), most);
        store(w->s + j, x);
        sum += x;
    }
    float all = total(sum);
    vec inverse = splat(all > 0 ? 1 / all : 1);
    for (isize j = 0; j < padded; j += LANES) store(w->s + j, load(w->s + j) * inverse);
}

static void forward_single(Work *w) {
    const Call *c = w->call;
    if (w->queries[0] < 0) return;
    weigh_single(w, row_of(&c->q, w->b, w->h, w->queries[0]));
    float *out = (float *)row_of(&c->out, w->b, w->h, out_row(w, 0));
    for (isize first = 0; first < c->v_dim; first += 4 * LANES) {
        isize wide = c->v_dim - first < 4 * LANES ? c->v_dim - first : 4 * LANES;
        if (wide == 4 * LANES) {
            vec sum[4] = {{0}};
            for (isize j = 0; j < c->picks; j++) {
                if (w->keys[j] < 0) continue;
                const float *v = row_of(&c->v, w->b, w->h, w->keys[j]) + first;
                vec p = splat(w->s[j]);
                UNROLL for (int n = 0; n < 4; n++) sum[n] += p * load(v + n * LANES);
            }
            UNROLL for (int n = 0; n < 4; n++) store(out + first + n * LANES, sum[n]);
            continue;
        }
        memset(out + first, 0, wide * sizeof(float));
        for (isize j = 0; j < c->picks; j++)
            if (w->keys[j] >= 0)
                accumulate(out + first, row_of(&c->v, w->b, w->h, w->keys[j]) + first, w->s[j],
                           wide);
    }
}

static void backward_single(Work *w) {
    const Call *c = w->call;
    if (w->queries[0] < 0) return;
    const float *q = row_of(&c->q, w->b, w->h, w->queries[0]);
    const float *grad = row_of(&c->grad, w->b, w->h, out_row(w, 0));
    float *dq = (float *)row_of(&c->dq, w->b, w->h, w->queries[0]), mean = 0;
    weigh_single(w, q);
    for (isize j = 0; j < c->picks; j++) {
        int64_t key = w->keys[j];
        w->dp[j] = key < 0 ? 0 : dot(grad, row_of(&c->v, w->b, w->h, key), c->v_dim);
        mean += w->s[j] * w->dp[j];
    }
    for (isize j = 0; j < c->picks; j++) {
        int64_t key = w->keys[j];
        float ds = w->s[j] * (w->dp[j] - mean);
        if (c->slot_bias) w->bias_sums[j] += ds;
        if (key < 0) continue;
        accumulate((float *)row_of(&c->dv, w->b, w->h, key), grad, w->s[j], c->v_dim);
        accumulate((float *)row_of(&c->dk, w->b, w->h, key), q, c->scale * ds, c->dim);
        accumulate(dq, row_of(&c->k, w->b, w->h, key), c->scale * ds, c->dim);
    }
}
