/* vmath.h: elementary functions of vectors, the same bits on every instruction set that has FMA.
 *
 * Each function reduces its argument and evaluates one polynomial by Horner's rule; the polynomials are minimax fits
 * in the relative error of the result (Remez exchange in 60-digit arithmetic), whose degrees were raised until the fit's
 * error fell below a quarter of an ulp. Largest errors, measured by `python -m fastmlp check`, in ulps of the result:
 *
 *                float64   float32
 *   v_exp          1.1       1.1     overflow gives infinity, underflow goes gradually to 0
 *   v_log          1.0       1.0     0 gives -infinity, negative numbers NaN, subnormals are exact inputs
 *   v_tanh         1.5       1.5
 *   v_logistic     2.5       2.5
 *
 * NaN gives NaN everywhere. Included by kernels.c only.
 */
#ifndef FM_VMATH_H
#define FM_VMATH_H

#include "vector.h"

#if FM_BITS == 64
#define FM_R(f32, f64) (f64)
#define FM_MANTISSA 52
#define FM_BIAS 1023
#define FM_TINY_SHIFT 54
#else
#define FM_R(f32, f64) ((real)(f32))
#define FM_MANTISSA 23
#define FM_BIAS 127
#define FM_TINY_SHIFT 24
#endif

/* Adding MAGIC to a small number rounds it to an integer, which then stands in the low bits. */
#define FM_MAGIC FM_R(12582912.0f, 6755399441055744.0)
#define FM_LN2_HI FM_R(0.693145751953125f, 0.6931471803691238)
#define FM_LN2_LO FM_R(1.4286068203094173e-06f, 1.9082149292705877e-10)

/* c[0] + x c[1] + x^2 c[2] + ... */
static inline __attribute__((always_inline)) vec v_polynomial(vec x, const real *c, int terms) {
    vec p = v_set(c[terms - 1]);
    for (int i = terms - 2; i >= 0; i--)
        p = v_fma(p, x, v_set(c[i]));
    return p;
}
#define V_POLYNOMIAL(x, ...) v_polynomial((x), (const real[]){__VA_ARGS__}, (int)(sizeof((real[]){__VA_ARGS__}) / sizeof(real)))

static inline vec v_abs(vec x) { return (vec)((ivec)x & ((bits)((ubits)-1 >> 1) - (ivec){0})); }
static inline vec v_min(vec x, vec bound) { return v_select(x > bound, bound, x); } /* NaN stays */
static inline vec v_max(vec x, vec bound) { return v_select(x < bound, bound, x); } /* NaN stays */

/* 2^k for k in the range of normal exponents. */
static inline vec v_exp2_int(ivec k) { return (vec)((uvec)(k + FM_BIAS) << FM_MANTISSA); }

/* k / 2^shift, rounded down, for k >= -2^(bits - 2): AVX2 has no arithmetic shift of 64-bit lanes. */
static inline ivec v_shift_down(ivec k, int shift) {
    const ubits offset = (ubits)1 << (FM_BITS - 2);
    return (ivec)((((uvec)k + offset) >> shift) - (offset >> shift));
}

/* exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, exp(r) = 1 + (r + r^2 Q(r)). */
static inline vec v_exp(vec x) {
    x = v_min(v_max(x, v_set(FM_R(-104.0f, -746.0))), v_set(FM_R(89.0f, 710.0)));
    vec n = v_fma(x, v_set(FM_R(1.4426950408889634f, 1.4426950408889634)), v_set(FM_MAGIC));
    const ivec k = (ivec)n - (ivec)v_set(FM_MAGIC);
    n = n - v_set(FM_MAGIC);
    vec r = v_fma(n, v_set(-FM_LN2_HI), x);
    r = v_fma(n, v_set(-FM_LN2_LO), r);
#if FM_BITS == 64
    const vec q = V_POLYNOMIAL(r, 0.5000000000000012, 0.16666666666666385, 0.04166666666651916, 0.00833333333350766,
                               0.0013888888946918432, 0.0001984126948615369, 2.4801489353730838e-05, 2.7557597196123883e-06,
                               2.7631686875045695e-07, 2.4998989666597086e-08);
#else
    const vec q = V_POLYNOMIAL(r, 0.4999999305088872f, 0.16666514789060713f, 0.04166845673521397f, 0.008369419046910385f,
                               0.0013813147875810646f);
#endif
    const vec p = v_fma(r * r, q, r) + v_set(1);
    const ivec half = v_shift_down(k, 1); /* two factors: 2^k alone may be subnormal or overflow too soon */
    return p * v_exp2_int(half) * v_exp2_int(k - half);
}

/* log(x) = k ln 2 + log(1 + f), 1 + f in [sqrt(1/2), sqrt(2)); with s = f / (2 + f), log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)).
 * The way of writing the last line is FreeBSD msun's e_log.c. */
static inline vec v_log(vec x) {
    const ivec tiny = x < v_set(FM_R(FLT_MIN, DBL_MIN));
    const vec normal = v_select(tiny, x * v_set((real)((ubits)1 << FM_TINY_SHIFT)), x);
    const ivec half = (ivec)v_set(FM_R(0.70710678f, 0.7071067811865476));
    ivec k = v_shift_down((ivec)normal - half, FM_MANTISSA);
    const vec f = (vec)((uvec)normal - ((uvec)k << FM_MANTISSA)) - v_set(1);
    k = k - (tiny & ((bits)FM_TINY_SHIFT - (ivec){0}));
    const vec n = (vec)(k + (ivec)v_set(FM_MAGIC)) - v_set(FM_MAGIC);
    const vec s = f / (v_set(2) + f);
    const vec z = s * s;
#if FM_BITS == 64
    const vec R = z * V_POLYNOMIAL(z, 0.666666666666674, 0.39999999999377983, 0.2857142875130256, 0.222221975873682,
                                   0.18183618987765865, 0.1531256987711606, 0.14811540318258035);
#else
    const vec R = z * V_POLYNOMIAL(z, 0.666666797668738f, 0.3997707945547245f, 0.29885185677275755f);
#endif
    const vec h = v_set((real)0.5) * f * f;
    vec y = v_fma(n, v_set(FM_LN2_HI), f - (h - v_fma(s, h + R, n * v_set(FM_LN2_LO))));
    y = v_select(x < v_set((real)INFINITY), y, x);
    y = v_select(x == v_set(0), v_set(-(real)INFINITY), y);
    return v_select(x < v_set(0), v_set((real)NAN), y);
}

/* |x| < 0.625: x + x^3 P(x^2); beyond: 1 - 2 / (exp(2|x|) + 1), with the sign of x. */
static inline vec v_tanh(vec x) {
    const vec a = v_abs(x);
    const vec z = x * x;
#if FM_BITS == 64
    const vec P = V_POLYNOMIAL(z, -0.3333333333333277, 0.1333333333325092, -0.053968253926140033, 0.021869487460112632,
                               -0.008863219501738937, 0.0035919772067720063, -0.001454898091958924, 0.0005861193830203664,
                               -0.000228169005767616, 7.66984098707833e-05, -1.5855967461484446e-05);
#else
    const vec P = V_POLYNOMIAL(z, -0.3333327805786004f, 0.1333133098899543f, -0.05373000625386276f, 0.02060617406565884f,
                               -0.005666974427291872f);
#endif
    const vec near = v_fma(x * z, P, x);
    const vec far = v_set(1) - v_set(2) / (v_exp(v_min(a, v_set(40)) * v_set(2)) + v_set(1));
    const ivec sign = (ivec)x ^ (ivec)a;
    return v_select(a < v_set((real)0.625), near, (vec)((ivec)far | sign));
}

/* 1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow. */
static inline vec v_logistic(vec x) {
    const vec e = v_exp(-v_abs(x));
    return v_select(x < v_set(0), e, v_set(1)) / (v_set(1) + e);
}

static inline vec v_relu(vec x) { return (vec)(~(x <= v_set(0)) & (ivec)x); }       /* NaN stays */
static inline vec v_step(vec y) { return (vec)((y != v_set(0)) & (ivec)v_set(1)); } /* 0 at 0, else 1 */
static inline vec v_clip(vec p, real eps) { return v_min(v_max(p, v_set(eps)), v_set(1 - eps)); }
static inline vec v_xlogy(vec x, vec y) { return v_select(x == v_set(0), v_set(0), x * v_log(y)); }
static inline vec v_sign(vec x) { return v_select(x > v_set(0), v_set(1), v_select(x < v_set(0), v_set(-1), x)); }
#endif
