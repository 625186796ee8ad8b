/* vector.h: one vector of the instruction set and element type that are being compiled.
 *
 * The build defines FM_BITS (32: float, 64: double) and FM_VECTOR_BYTES. GCC's vector extension provides the
 * arithmetic; fused multiply-add, square root, minimum, maximum and partial loads and stores need an intrinsic each.
 * The whole build has -ffp-contract=off: a multiply-add is fused only where v_fma is written, so every compiler and
 * every instruction set with FMA rounds alike.
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

/* For functions with constants, or other functions, as arguments: each call compiles to code of its own. */
#define FM_INLINE static inline __attribute__((always_inline))

static inline ptrdiff_t min_of(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

static inline vec v_set(real s) { return s - (vec){0}; }
static inline vec v_load(const real *p) { return *(const vec_unaligned *)p; }
static inline void v_store(real *p, vec v) { *(vec_unaligned *)p = v; }

/* FM_INTRINSIC(max) is _mm256_max_ps on AVX2, for example; `native` is the type of its arguments. */
#if defined(__AVX512F__) && FM_VECTOR_BYTES == 64
#define FM_AVX512 1
#else
#define FM_AVX512 0
#endif
#if defined(__AVX2__) && FM_VECTOR_BYTES == 32
#define FM_AVX2 1
#else
#define FM_AVX2 0
#endif
#if defined(__aarch64__) && FM_VECTOR_BYTES == 16
#define FM_NEON 1
#else
#define FM_NEON 0
#endif
#if FM_AVX512 && FM_BITS == 64
typedef __m512d native;
#define FM_INTRINSIC(name) _mm512_##name##_pd
#define v_first(n) ((__mmask8)((1u << (n)) - 1)) /* the first n lanes */
#elif FM_AVX512
typedef __m512 native;
#define FM_INTRINSIC(name) _mm512_##name##_ps
#define v_first(n) ((__mmask16)((1u << (n)) - 1))
#elif FM_AVX2
#if FM_BITS == 64
typedef __m256d native;
#define FM_INTRINSIC(name) _mm256_##name##_pd
#else
typedef __m256 native;
#define FM_INTRINSIC(name) _mm256_##name##_ps
#endif
static inline __m256i v_first(ptrdiff_t n) {
    static const bits window[2 * FM_VECTOR_BYTES / sizeof(real)] = {
        -1, -1, -1, -1,
#if FM_BITS == 32
        -1, -1, -1, -1,
#endif
    };
    return _mm256_loadu_si256((const __m256i *)(window + V - n));
}
#endif

/* The first n of V reals, 0 <= n <= V; the rest reads as zero and is not written. */
#if FM_AVX512
static inline vec v_load_n(const real *p, ptrdiff_t n) { return (vec)FM_INTRINSIC(maskz_loadu)(v_first(n), p); }
static inline void v_store_n(real *p, vec v, ptrdiff_t n) { FM_INTRINSIC(mask_storeu)(p, v_first(n), (native)v); }
#elif FM_AVX2
static inline vec v_load_n(const real *p, ptrdiff_t n) { return (vec)FM_INTRINSIC(maskload)(p, v_first(n)); }
static inline void v_store_n(real *p, vec v, ptrdiff_t n) { FM_INTRINSIC(maskstore)(p, v_first(n), (native)v); }
#else
static inline vec v_load_n(const real *p, ptrdiff_t n) {
    vec v = {0};
    memcpy(&v, p, (size_t)n * sizeof(real));
    return v;
}
static inline void v_store_n(real *p, vec v, ptrdiff_t n) { memcpy(p, &v, (size_t)n * sizeof(real)); }
#endif

/* transpose_rows: to[j * to_stride + i] = from[i * from_stride + j] for i < V and j < TRANSPOSED_ROWS, which 16 bytes
 * hold. */
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
#define FM_UNPACK(name) _mm512_unpack##name
#elif FM_VECTOR_BYTES == 32
typedef __m256 singles;
typedef __m256d doubles;
#define FM_UNPACK(name) _mm256_unpack##name
#else
typedef __m128 singles;
typedef __m128d doubles;
#define FM_UNPACK(name) _mm_unpack##name
#endif
typedef __m128 bytes_16;
#define LOAD_16(p) _mm_loadu_ps((const float *)(p))
#define LOW_SINGLES FM_UNPACK(lo_ps)
#define HIGH_SINGLES FM_UNPACK(hi_ps)
#define LOW_DOUBLES FM_UNPACK(lo_pd)
#define HIGH_DOUBLES FM_UNPACK(hi_pd)
#endif
/* 16 bytes of every TRANSPOSED_ROWS-th row, side by side. */
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

/* mask ? a : b, lane by lane; comparing two vectors makes such a mask. */
static inline vec v_select(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }

/* min(x, bound) and max(x, bound), lane by lane; NaN in x is kept. */
static inline vec v_min(vec x, vec bound) {
#if FM_AVX512 || FM_AVX2
    return (vec)FM_INTRINSIC(min)((native)bound, (native)x);
#else
    return v_select(x > bound, bound, x);
#endif
}
static inline vec v_max(vec x, vec bound) {
#if FM_AVX512 || FM_AVX2
    return (vec)FM_INTRINSIC(max)((native)bound, (native)x);
#else
    return v_select(x < bound, bound, x);
#endif
}

/* a * b + c, rounded once; twice where the instruction set has no FMA (FM_FUSED 0). */
#define FM_FUSED (FM_AVX512 || FM_AVX2 || FM_NEON)
static inline vec v_fma(vec a, vec b, vec c) {
#if FM_AVX512 || FM_AVX2
    return (vec)FM_INTRINSIC(fmadd)((native)a, (native)b, (native)c);
#elif FM_NEON && FM_BITS == 64
    return (vec)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#elif FM_NEON
    return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

static inline vec v_sqrt(vec a) {
#if FM_AVX512 || FM_AVX2
    return (vec)FM_INTRINSIC(sqrt)((native)a);
#else
    vec r;
    for (int i = 0; i < V; i++)
        r[i] = (real)(FM_DOUBLE ? sqrt((double)a[i]) : sqrtf((float)a[i]));
    return r;
#endif
}

/* y[i] = f(x[i]) for i < n; y may be x. */
FM_INLINE void map(vec (*const f)(vec x), real *y, const real *x, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + V <= n; i += V)
        v_store(y + i, f(v_load(x + i)));
    if (i < n)
        v_store_n(y + i, f(v_load_n(x + i, n - i)), n - i);
}

/* y[i] = f(x[i], k) for i < n; y may be x. */
FM_INLINE void map_with(vec (*const f)(vec x, vec k), vec k, real *y, const real *x, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + V <= n; i += V)
        v_store(y + i, f(v_load(x + i), k));
    if (i < n)
        v_store_n(y + i, f(v_load_n(x + i, n - i), k), n - i);
}
#endif
