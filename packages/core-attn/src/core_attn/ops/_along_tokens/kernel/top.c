/* The positions of the largest numbers of each row; of equal numbers the lower position.
 *
 * The least number that is taken is found by halving the range of bits, the row's keys in the cache:
 * at most 32 counts, most rows 12 to 20, of one comparison and addition a number. */
#include "along.h"

enum { PART = 1 << 14, BLOCK = 32 }; /* numbers in a part; those looked at together */

typedef struct {
    isize rows, positions, count, ascending;
    const float *scores;
    int64_t *out;
} Top;

/* Whole numbers in the order of the floats; one zero of two, NaN the largest. */
static inline int32_t ordered(float x) {
    int32_t bits;
    x += 0.0f;
    memcpy(&bits, &x, 4);
    return (bits & INT32_MAX) > 0x7f800000 ? INT32_MAX : bits ^ (bits >> 31 & INT32_MAX);
}

static inline isize at_least(const int32_t *key, isize n, int32_t least) {
    int32_t found = 0;
    for (isize i = 0; i < n; i++) found += key[i] >= least;
    return found;
}

/* Falls as a number's rank rises: its key turned round, above its position. */
static inline uint64_t place_of(int32_t key, isize i) {
    return (uint64_t)(INT32_MAX - (int64_t)key) << 32 | (uint64_t)i;
}

static int by_place(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Few numbers: each is compared with all of them. */
static void top_few(const Top *a, const float *x, int64_t *out) {
    uint64_t place[BLOCK];
    int64_t of_rank[BLOCK], taken = 0;
    isize n = a->positions, k = a->count;
    for (isize i = 0; i < BLOCK; i++) place[i] = i < n ? place_of(ordered(x[i]), i) : UINT64_MAX;
    for (isize i = 0; i < n; i++) {
        int64_t rank = 0;
        for (isize j = 0; j < BLOCK; j++) rank += place[j] < place[i];
        of_rank[a->ascending ? taken : rank] = i;
        taken += rank < k;
    }
    memcpy(out, of_rank, k * sizeof *out);
}

/* `picks` has room for count + 1, `key` for whole blocks. */
static void top_row(const Top *a, const float *x, int64_t *out, uint64_t *picks, int32_t *key) {
    isize n = a->positions, k = a->count, padded = (n + BLOCK - 1) / BLOCK * BLOCK;
    int32_t least = INT32_MAX, most = INT32_MIN;
    for (isize i = 0; i < n; i++) key[i] = ordered(x[i]);
    for (isize i = 0; i < n; i++) {
        least = key[i] < least ? key[i] : least;
        most = key[i] > most ? key[i] : most;
    }
    for (isize i = n; i < padded; i++) key[i] = INT32_MIN; /* no float's */
    int64_t low = least, high = (int64_t)most + 1;
    isize found = n; /* from `low` on, never fewer than k; from `high` on there are */
    while (found > k && high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        isize more = at_least(key, padded, middle);
        if (more < k) {
            high = middle;
        } else {
            low = middle;
            found = more;
        }
    }
    isize taken = 0, equal = k; /* how many of those at `low` are taken, at most */
    if (found > k) equal -= low < INT32_MAX ? at_least(key, padded, low + 1) : 0;
    for (isize first = 0; taken < k; first += BLOCK) {
        uint32_t above = 0;
        for (int i = 0; i < BLOCK; i++) above |= (uint32_t)(key[first + i] >= low) << i;
        for (; above && taken < k; above &= above - 1) {
            isize i = first + __builtin_ctz(above);
            picks[taken] = i;
            taken += key[i] > low || equal-- > 0;
        }
    }
    if (!a->ascending) {
        for (isize i = 0; i < k; i++) picks[i] = place_of(key[picks[i]], picks[i]);
        qsort(picks, k, sizeof *picks, by_place);
    }
    for (isize i = 0; i < k; i++) out[i] = picks[i] & UINT32_MAX;
}

static inline isize part_rows(const Top *a) {
    return a->positions < PART ? PART / a->positions : 1;
}

static int top_part(const void *call, isize part, float *scratch) {
    const Top *a = call;
    isize first = part * part_rows(a), end = first + part_rows(a);
    for (isize row = first; row < end && row < a->rows; row++) {
        const float *x = a->scores + row * a->positions;
        int64_t *out = a->out + row * a->count;
        uint64_t *picks = (uint64_t *)scratch;
        if (a->positions <= BLOCK)
            top_few(a, x, out);
        else
            top_row(a, x, out, picks, (int32_t *)(picks + a->count + 1));
    }
    return 0;
}

int core_attn_top(const void *call, int pass, int threads, Parallel parallel) {
    (void)pass;
    const Top *a = call;
    isize parts = (a->rows + part_rows(a) - 1) / part_rows(a);
    isize scratch = 2 * (a->count + 1) + a->positions + BLOCK; /* picks and keys, in floats */
    return deal(call, top_part, parts, scratch, threads, parallel);
}
