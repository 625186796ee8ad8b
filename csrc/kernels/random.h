/* random.h: random numbers by position, for dropout and augmentation.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011) turns a counter and a key into four words of 32 bits, without
 * state: a number depends on its position only, never on the thread or on earlier draws. Here
 *
 *     key      the run's seed, two words
 *     counter  (row / 4, column, stream, step);   row % 4 selects one of the four words
 *
 * with the row counted within the batch, the column within the layer, and a stream for each use (FM_STREAM_NOISE in
 * fastmlp.h). Oracle: fastmlp/reference, words and normals.
 */
#ifndef FM_RANDOM_H
#define FM_RANDOM_H

#include "fastmlp.h"
#include "vmath.h"

typedef uint64_t wide __attribute__((
    vector_size(FM_VECTOR_BYTES))); /* a word of 32 bits in each lane of 64; the upper half is arbitrary */
#define WIDE ((ptrdiff_t)(FM_VECTOR_BYTES / sizeof(uint64_t)))

/* Products of 64 bits of the lanes' lower halves. */
static inline wide w_multiply(wide a, wide b) {
#if FM_AVX512
    return (wide)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif FM_AVX2
    return (wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (wide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

/* word[j][c] = word j of Philox at counter (group, column + c, stream, step) */
static void philox(uint32_t word[4][NR], const fm_rng *rng, uint32_t group, ptrdiff_t column, uint32_t stream) {
    const wide zero = {0}, m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u;
    for (ptrdiff_t c = 0; c < NR; c += WIDE) {
        wide x0 = zero + group, x1 = zero, x2 = zero + stream, x3 = zero + rng->step;
        for (ptrdiff_t i = 0; i < WIDE; i++)
            x1[i] = (uint64_t)(column + c + i);
        uint32_t k0 = rng->key[0], k1 = rng->key[1];
        for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
            const wide p0 = w_multiply(m0, x0), p1 = w_multiply(m1, x2);
            x0 = (p1 >> 32) ^ x1 ^ (zero + k0);
            x2 = (p0 >> 32) ^ x3 ^ (zero + k1);
            x1 = p1;
            x3 = p0;
        }
        for (ptrdiff_t i = 0; i < WIDE; i++) {
            word[0][c + i] = (uint32_t)x0[i];
            word[1][c + i] = (uint32_t)x1[i];
            word[2][c + i] = (uint32_t)x2[i];
            word[3][c + i] = (uint32_t)x3[i];
        }
    }
}

/* P[r] = kept, or kept P[r] if multiply, where word >= rate 2^32, else 0; rows first .. first + rows of a panel whose
 * first column is `column`. */
FM_INLINE void draw_mask(real *restrict P, const fm_rng *rng, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t column,
                         uint32_t stream, double rate, real kept, const int multiply) {
    const ptrdiff_t start = rng->row + first, end = start + rows;
    const uint32_t least = (uint32_t)(rate * 4294967296.0);
    uint32_t word[4][NR];
    for (ptrdiff_t row = start; row < end; row++, P += NR) {
        if (row == start || row % 4 == 0)
            philox(word, rng, (uint32_t)(row / 4), column, stream);
        for (ptrdiff_t c = 0; c < NR; c++)
            P[c] = word[row % 4][c] >= least ? (multiply ? kept * P[c] : kept) : 0;
    }
}

/* sin(2 pi t) for |t| <= 1/4, Taylor's series. */
static inline vec v_sin_turn(vec t) {
#if FM_BITS == 64
    const vec p = V_POLYNOMIAL(t * t, 6.283185307179586, -41.341702240399755, 81.60524927607504, -76.70585975306136,
                               42.058693944897634, -15.094642576822984, 3.8199525848482803, -0.7181223017785001,
                               0.10422916220813978, -0.012031585942120619, 0.0011309237482517954);
#else
    const vec p =
        V_POLYNOMIAL(t * t, 6.2831853f, -41.341702f, 81.605249f, -76.705860f, 42.058694f, -15.094643f, 3.8199526f);
#endif
    return t * p;
}

/* (k + 1/2) / 2^23 for the upper 23 bits k of each word: exact in both element types, and never 0. */
static inline vec v_uniform(const uint32_t *word) {
    real u[V];
    for (ptrdiff_t i = 0; i < V; i++)
        u[i] = (real)(int32_t)(word[i] >> 9);
    return (v_load(u) + v_set((real)0.5)) * v_set((real)(1.0 / 8388608.0));
}

/* n0, n1 = sqrt(-2 log u0) (cos, sin)(2 pi u1): two normal numbers of two uniform ones (Box and Muller 1958). */
static inline void normals(real *n0, real *n1, const uint32_t *u0, const uint32_t *u1) {
    const vec radius = v_sqrt(v_set(-2) * v_log(v_uniform(u0)));
    const vec turn = v_uniform(u1) - v_set((real)0.5), t = v_abs(turn);
    const vec near = v_min(t, v_set((real)0.5) - t); /* the sine is the same on both sides of a quarter turn */
    v_store(n0, radius * -v_sin_turn(v_set((real)0.25) - t));
    v_store(n1, radius * v_sin_turn(v_select(turn < v_set(0), near, -near)));
}

/* P[r] += deviation * normal numbers: of rows 4 g and 4 g + 1 from words 0 and 1, of the next two from words 2 and 3.
 */
static void add_noise(real *restrict P, const fm_rng *rng, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t column,
                      uint32_t stream, real deviation) {
    const ptrdiff_t start = rng->row + first, end = start + rows;
    uint32_t word[4][NR];
    real normal[4][NR];
    for (ptrdiff_t row = start; row < end; row++, P += NR) {
        if (row == start || row % 4 == 0) {
            philox(word, rng, (uint32_t)(row / 4), column, stream);
            for (ptrdiff_t pair = 0; pair < 4; pair += 2)
                for (ptrdiff_t c = 0; c < NR; c += V)
                    normals(normal[pair] + c, normal[pair + 1] + c, word[pair] + c, word[pair + 1] + c);
        }
        for (ptrdiff_t c = 0; c < NR; c += V)
            v_store(P + c, v_load(P + c) + v_set(deviation) * v_load(normal[row % 4] + c));
    }
}
#endif
