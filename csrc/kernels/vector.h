/* vector.h: one vector of the instruction set that is being compiled, in the element type that is being compiled.
 *
 * The build defines FM_BITS (32: float, 64: double) and FM_VECTOR_BYTES. GCC's vector extension does the rest, except
 * for fused multiply-add, the square root, the smaller of two and vectors that are partly filled, which need one
 * intrinsic each. Contraction is off in the whole build (-ffp-contract=off): a multiply-add is fused only where v_fma
 * is written, so that every compiler and every instruction set with FMA rounds alike. Included by kernels.c only.
 */
#ifndef FM_VECTOR_H
#define FM_VECTOR_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if FM_BITS == 64
typedef double real;
typedef int64_t bits;
typedef uint64_t ubits;
#else
typedef float real;
typedef int32_t bits;
typedef uint32_t ubits;
#endif
#define FM_DOUBLE (FM_BITS == 64)
#define V ((ptrdiff_t)(FM_VECTOR_BYTES / sizeof(real))) /* reals in a vector */
#define NR (2 * V)                                      /* reals in a row of a panel: see fastmlp.h */

typedef real vec __attribute__((vector_size(FM_VECTOR_BYTES)));
typedef bits ivec __attribute__((vector_size(FM_VECTOR_BYTES)));
typedef ubits uvec __attribute__((vector_size(FM_VECTOR_BYTES)));
typedef real vec_unaligned __attribute__((vector_size(FM_VECTOR_BYTES), aligned(sizeof(real)), may_alias));

static inline vec v_set(real s) { return s - (vec){0}; }
static inline vec v_load(const real *p) { return *(const vec_unaligned *)p; }
static inline void v_store(real *p, vec v) { *(vec_unaligned *)p = v; }

/* The first n of V reals, 0 <= n <= V; the rest reads as zero and is not written. */
#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64
static inline vec v_load_n(const real *p, ptrdiff_t n) {
    if (FM_DOUBLE)
        return (vec)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
static inline void v_store_n(real *p, vec v, ptrdiff_t n) {
    if (FM_DOUBLE)
        _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
    else
        _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
#elif defined(__AVX2__) && FM_VECTOR_BYTES == 32
static inline __m256i v_first(ptrdiff_t n) { /* all bits set in the first n lanes */
    static const bits window[2 * FM_VECTOR_BYTES / sizeof(real)] = {
        -1, -1, -1, -1,
#if FM_BITS == 32
        -1, -1, -1, -1,
#endif
    };
    return _mm256_loadu_si256((const __m256i *)(window + V - n));
}
static inline vec v_load_n(const real *p, ptrdiff_t n) {
    if (FM_DOUBLE)
        return (vec)_mm256_maskload_pd((const double *)p, v_first(n));
    return (vec)_mm256_maskload_ps((const float *)p, v_first(n));
}
static inline void v_store_n(real *p, vec v, ptrdiff_t n) {
    if (FM_DOUBLE)
        _mm256_maskstore_pd((double *)p, v_first(n), (__m256d)v);
    else
        _mm256_maskstore_ps((float *)p, v_first(n), (__m256)v);
}
#else
static inline vec v_load_n(const real *p, ptrdiff_t n) {
    vec v = {0};
    memcpy(&v, p, (size_t)n * sizeof(real));
    return v;
}
static inline void v_store_n(real *p, vec v, ptrdiff_t n) { memcpy(p, &v, (size_t)n * sizeof(real)); }
#endif

/* to[j * to_stride + i] = from[i * from_stride + j] for i < V and j < TRANSPOSED_ROWS: 16 bytes of each row, turned
 * over within them.
 */
#define TRANSPOSED_ROWS (FM_DOUBLE ? 2 : 4)
#if defined(__SSE2__) || defined(__aarch64__)
#if !defined(__SSE2__)
typedef float32x4_t singles, bytes_16;
typedef float64x2_t doubles;
#define LOAD_16(p) vld1q_f32((const float *)(p))
#define LOW_SINGLES vzip1q_f32
#define HIGH_SINGLES vzip2q_f32
#define LOW_DOUBLES vzip1q_f64
#define HIGH_DOUBLES vzip2q_f64
#else
#if FM_VECTOR_BYTES == 64
typedef __m512 singles;
typedef __m512d doubles;
#define FM_OF_WIDTH(name) _mm512_##name
#elif FM_VECTOR_BYTES == 32
typedef __m256 singles;
typedef __m256d doubles;
#define FM_OF_WIDTH(name) _mm256_##name
#else
typedef __m128 singles;
typedef __m128d doubles;
#define FM_OF_WIDTH(name) _mm_##name
#endif
typedef __m128 bytes_16;
#define LOAD_16(p) _mm_loadu_ps((const float *)(p))
#define LOW_SINGLES FM_OF_WIDTH(unpacklo_ps)
#define HIGH_SINGLES FM_OF_WIDTH(unpackhi_ps)
#define LOW_DOUBLES FM_OF_WIDTH(unpacklo_pd)
#define HIGH_DOUBLES FM_OF_WIDTH(unpackhi_pd)
#endif
/* Every TRANSPOSED_ROWS-th row's 16 bytes side by side. */
static inline singles load_rows(const real *from, ptrdiff_t stride) {
    const ptrdiff_t step = TRANSPOSED_ROWS * stride;
    const bytes_16 first = LOAD_16(from);
    (void)step;
#if FM_VECTOR_BYTES == 64
    const __m512 two = _mm512_insertf32x4(_mm512_castps128_ps512(first), LOAD_16(from + step), 1);
    return _mm512_insertf32x4(_mm512_insertf32x4(two, LOAD_16(from + 2 * step), 2), LOAD_16(from + 3 * step), 3);
#elif FM_VECTOR_BYTES == 32
    return _mm256_insertf128_ps(_mm256_castps128_ps256(first), LOAD_16(from + step), 1);
#else
    return first;
#endif
}
static inline void transpose_rows(real *to, ptrdiff_t to_stride, const real *from, ptrdiff_t from_stride) {
    const singles a = load_rows(from, from_stride), b = load_rows(from + from_stride, from_stride);
#if FM_BITS == 32
    const singles c = load_rows(from + 2 * from_stride, from_stride),
                  d = load_rows(from + 3 * from_stride, from_stride);
    const doubles low_ab = (doubles)LOW_SINGLES(a, b), high_ab = (doubles)HIGH_SINGLES(a, b);
    const doubles low_cd = (doubles)LOW_SINGLES(c, d), high_cd = (doubles)HIGH_SINGLES(c, d);
    v_store(to, (vec)LOW_DOUBLES(low_ab, low_cd));
    v_store(to + to_stride, (vec)HIGH_DOUBLES(low_ab, low_cd));
    v_store(to + 2 * to_stride, (vec)LOW_DOUBLES(high_ab, high_cd));
    v_store(to + 3 * to_stride, (vec)HIGH_DOUBLES(high_ab, high_cd));
#else
    v_store(to, (vec)LOW_DOUBLES((doubles)a, (doubles)b));
    v_store(to + to_stride, (vec)HIGH_DOUBLES((doubles)a, (doubles)b));
#endif
}
#else
static inline void transpose_rows(real *to, ptrdiff_t to_stride, const real *from, ptrdiff_t from_stride) {
    for (ptrdiff_t j = 0; j < TRANSPOSED_ROWS; j++)
        for (ptrdiff_t i = 0; i < V; i++)
            to[j * to_stride + i] = from[i * from_stride + j];
}
#endif

/* mask ? a : b, lane by lane; a comparison of vectors gives such a mask. */
static inline vec v_select(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }

#define FM_LANEWISE(r, expression)                                                                                     \
    do {                                                                                                               \
        for (int i = 0; i < V; i++)                                                                                    \
            (r)[i] = (real)(expression);                                                                               \
    } while (0)

/* x > bound ? bound : x and x < bound ? bound : x, lane by lane: NaN in x stays. */
static inline vec v_min(vec x, vec bound) {
#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64
    if (FM_DOUBLE)
        return (vec)_mm512_min_pd((__m512d)bound, (__m512d)x);
    return (vec)_mm512_min_ps((__m512)bound, (__m512)x);
#elif defined(__AVX__) && FM_VECTOR_BYTES == 32
    if (FM_DOUBLE)
        return (vec)_mm256_min_pd((__m256d)bound, (__m256d)x);
    return (vec)_mm256_min_ps((__m256)bound, (__m256)x);
#else
    return v_select(x > bound, bound, x);
#endif
}
static inline vec v_max(vec x, vec bound) {
#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64
    if (FM_DOUBLE)
        return (vec)_mm512_max_pd((__m512d)bound, (__m512d)x);
    return (vec)_mm512_max_ps((__m512)bound, (__m512)x);
#elif defined(__AVX__) && FM_VECTOR_BYTES == 32
    if (FM_DOUBLE)
        return (vec)_mm256_max_pd((__m256d)bound, (__m256d)x);
    return (vec)_mm256_max_ps((__m256)bound, (__m256)x);
#else
    return v_select(x < bound, bound, x);
#endif
}

/* a * b + c, rounded once (twice on the base instruction set, which has no FMA: FM_FUSED). */
#if (defined(__AVX512F__) && FM_VECTOR_BYTES == 64) || (defined(__FMA__) && FM_VECTOR_BYTES == 32) ||                  \
    (defined(__aarch64__) && FM_VECTOR_BYTES == 16)
#define FM_FUSED 1
#else
#define FM_FUSED 0
#endif
static inline vec v_fma(vec a, vec b, vec c) {
#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64
    if (FM_DOUBLE)
        return (vec)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && FM_VECTOR_BYTES == 32
    if (FM_DOUBLE)
        return (vec)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__) && FM_VECTOR_BYTES == 16
    if (FM_DOUBLE)
        return (vec)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
    return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

static inline vec v_sqrt(vec a) {
#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64
    if (FM_DOUBLE)
        return (vec)_mm512_sqrt_pd((__m512d)a);
    return (vec)_mm512_sqrt_ps((__m512)a);
#elif defined(__AVX__) && FM_VECTOR_BYTES == 32
    if (FM_DOUBLE)
        return (vec)_mm256_sqrt_pd((__m256d)a);
    return (vec)_mm256_sqrt_ps((__m256)a);
#else
    vec r;
    FM_LANEWISE(r, FM_DOUBLE ? sqrt((double)a[i]) : sqrtf((float)a[i]));
    return r;
#endif
}
#endif
