/* Random numbers as hashes: the same in every pass, on every machine, for any number of threads. */
#include <stdint.h>

/* The two keys of part number `part` of what a seed draws. */
static inline void draw_keys(uint64_t seed, uint64_t part, uint32_t keys[2]) {
    uint64_t pair = seed + (part + 1) * 0x9e3779b97f4a7c15u;
    pair = (pair ^ pair >> 30) * 0xbf58476d1ce4e5b9u;
    pair = (pair ^ pair >> 27) * 0x94d049bb133111ebu;
    pair ^= pair >> 31;
    keys[0] = pair;
    keys[1] = pair >> 32;
}

/* Turns places in a part, one or a vector of them, into random bits. */
#define DRAW(x, keys)                         \
    for (int key = 0; key < 2; key++) {       \
        x ^= keys[key];                       \
        x = (x ^ x >> 16) * 0x7feb352du;      \
        x = (x ^ x >> 15) * 0x846ca68bu;      \
        x ^= x >> 16;                         \
    }
