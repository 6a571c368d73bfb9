/* Vectors as wide as the processor's, exp2, and the transposition of small squares. */
#include <math.h>
#include <stdint.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define TILE (LANES < 8 ? 4 : 8) /* rows and columns transposed at once */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define LOG2E 1.44269504088896340736f
#define ROUND 12582912.0f /* 1.5 * 2^23: the last bit of a float of this size is worth one */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float tile __attribute__((vector_size(4 * TILE), aligned(4), may_alias));
typedef int64_t isize;

/* Numbers of two tiles by their places in the pair of them; GCC has clang's word for it since 12. */
#if defined(__clang__) || __GNUC__ >= 12
#define MIX __builtin_shufflevector
#else
typedef int32_t places __attribute__((vector_size(4 * TILE)));
#define MIX(a, b, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

static inline isize round_up(isize n, isize step) { return (n + step - 1) / step * step; }
static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec x) { *(vec *)p = x; }
static inline vec splat(float x) { return x - (vec){0}; }
static inline vec pick(ivec yes, vec a, vec b) { return (vec)((yes & (ivec)a) | (~yes & (ivec)b)); }

#if LANES == 2 * TILE
/* Two numbers in turns in all lanes. */
static inline vec splat_pair(const float *p) {
    typedef int64_t pair __attribute__((aligned(4), may_alias));
    typedef int64_t pairs __attribute__((vector_size(4 * LANES)));
    return (vec)(*(const pair *)p + (pairs){0});
}
/* The sums of neighbouring lanes. */
static inline tile even_and_odd(vec x) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    __m512 apart = _mm512_permutexvar_ps(even, (__m512)x);
    __m256d odd = _mm512_extractf64x4_pd((__m512d)apart, 1);
    return (tile)_mm512_castps512_ps256(apart) + (tile)odd;
}
/* The numbers of a and b in turns. */
static inline vec in_turns(tile a, tile b) {
    const __m512i turns = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    __m512 first = _mm512_castps256_ps512((__m256)a), second = _mm512_castps256_ps512((__m256)b);
    return (vec)_mm512_permutex2var_ps(first, turns, second);
}
#endif

#if defined(__AVX512F__)
static inline vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
/* Whether a comparison holds in any lane. */
static inline int any(ivec x) { return _mm512_test_epi32_mask((__m512i)x, (__m512i)x) != 0; }
#elif defined(__AVX__)
static inline vec larger(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
static inline int any(ivec x) { return _mm256_movemask_ps((__m256)x) != 0; }
#else
static inline vec larger(vec a, vec b) { return pick(a > b, a, b); }
static inline int any(ivec x) {
    for (int i = 0; i < LANES; i++)
        if (x[i]) return 1;
    return 0;
}
#endif

/* 2^(x - most) for whole numbers `most` >= x - 0.5 below 2^22, relative error 2e-7; exactly 0 from
 * x = most - 127 down, NaN for NaN. */
static inline vec exp2_below(vec x, vec most) {
    x = larger(most - 127.0f, x);
    vec unit = ROUND - most, shifted = x + unit; /* its last bits hold the rounded x - most */
    vec f = x - (shifted - unit);
    vec p = f * 1.32647273e-3f + 9.67151299e-3f;
    p = p * f + 5.55073358e-2f;
    p = p * f + 2.40222424e-1f;
    p = p * f + 6.93147004e-1f;
    p = p * f + 1.0f;
    return (vec)((ivec)p + ((ivec)shifted << 23));
}

/* t[c][r] = row[r][first + c]; the two halves of rows 4 apart are joined as they are loaded. */
static inline void transpose(const float *const row[TILE], isize first, tile t[TILE]) {
#if TILE == 8
    UNROLL for (int i = 0; i < 4; i++) {
        const float *upper = row[i] + first, *lower = row[i + 4] + first;
        t[i] = (tile)_mm256_loadu2_m128(lower, upper);
        t[i + 4] = (tile)_mm256_loadu2_m128(lower + 4, upper + 4);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        tile a = MIX(t[i], t[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        tile b = MIX(t[i], t[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
        tile c = MIX(t[i + 2], t[i + 3], 0, 8, 1, 9, 4, 12, 5, 13);
        tile d = MIX(t[i + 2], t[i + 3], 2, 10, 3, 11, 6, 14, 7, 15);
        t[i] = MIX(a, c, 0, 1, 8, 9, 4, 5, 12, 13);
        t[i + 1] = MIX(a, c, 2, 3, 10, 11, 6, 7, 14, 15);
        t[i + 2] = MIX(b, d, 0, 1, 8, 9, 4, 5, 12, 13);
        t[i + 3] = MIX(b, d, 2, 3, 10, 11, 6, 7, 14, 15);
    }
#else
    UNROLL for (int i = 0; i < 4; i++) t[i] = *(tile *)(row[i] + first);
    tile a = MIX(t[0], t[1], 0, 4, 1, 5), b = MIX(t[0], t[1], 2, 6, 3, 7);
    tile c = MIX(t[2], t[3], 0, 4, 1, 5), d = MIX(t[2], t[3], 2, 6, 3, 7);
    t[0] = MIX(a, c, 0, 1, 4, 5);
    t[1] = MIX(a, c, 2, 3, 6, 7);
    t[2] = MIX(b, d, 0, 1, 4, 5);
    t[3] = MIX(b, d, 2, 3, 6, 7);
#endif
}
