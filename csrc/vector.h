/* vector.h: one vector of the instruction set that is being compiled, in the element type that is being compiled.
 *
 * The build defines FM_BITS (32: float, 64: double) and FM_VECTOR_BYTES. GCC's vector extension does the rest, except
 * for fused multiply-add, the square root, the smaller of two and vectors that are partly filled, which need one intrinsic each.
 * Contraction is off in the whole build (-ffp-contract=off): a multiply-add is fused only where v_fma is written,
 * so that every compiler and every instruction set with FMA rounds alike.
 * Included by kernels.c only.
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

/* to[j * to_stride + i] = from[i * from_stride + j] for i, j < FM_SQUARE: the squares that 16-byte registers turn over. Measured
 * on Zen 4 for transposed weights, against element by element: 2 % of a deep or wide step on one thread, 7 % of deep on two.
 */
#define FM_SQUARE (FM_DOUBLE ? 2 : 4)
static inline void transpose_square(real *to, ptrdiff_t to_stride, const real *from, ptrdiff_t from_stride) {
#if defined(__SSE2__) && FM_BITS == 64
    const __m128d a = _mm_loadu_pd(from), b = _mm_loadu_pd(from + from_stride);
    _mm_storeu_pd(to, _mm_unpacklo_pd(a, b));
    _mm_storeu_pd(to + to_stride, _mm_unpackhi_pd(a, b));
#elif defined(__SSE2__)
    __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + from_stride);
    __m128 c = _mm_loadu_ps(from + 2 * from_stride), d = _mm_loadu_ps(from + 3 * from_stride);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(to, a);
    _mm_storeu_ps(to + to_stride, b);
    _mm_storeu_ps(to + 2 * to_stride, c);
    _mm_storeu_ps(to + 3 * to_stride, d);
#else
    for (ptrdiff_t j = 0; j < FM_SQUARE; j++)
        for (ptrdiff_t i = 0; i < FM_SQUARE; i++)
            to[j * to_stride + i] = from[i * from_stride + j];
#endif
}

/* mask ? a : b, lane by lane; a comparison of vectors gives such a mask. */
static inline vec v_select(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }

#define FM_LANEWISE(r, expression)                                                                                               \
    do {                                                                                                                         \
        for (int i = 0; i < V; i++)                                                                                              \
            (r)[i] = (real)(expression);                                                                                         \
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
#if (defined(__AVX512F__) && FM_VECTOR_BYTES == 64) || (defined(__FMA__) && FM_VECTOR_BYTES == 32) ||                            \
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
