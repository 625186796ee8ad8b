/* vmath.h: elementary functions of vectors, the same bits on every instruction set that has FMA.
 *
 * Each function reduces its argument and evaluates one polynomial by Horner's rule, or the quotient of two; they are
 * minimax fits in the relative error of the result (Remez exchange in 60-digit arithmetic), of the lowest degree whose
 * error is below a quarter of an ulp. Largest errors, measured by `python -m fastmlp check` and, from v_expm1 down, on
 * two million numbers for each instruction set, in ulps of the result:
 *
 *                float64   float32
 *   v_exp          1.1       1.1     infinity on overflow, gradual underflow to 0
 *   v_log          1.0       1.0     -infinity at 0, NaN below; subnormals are exact inputs
 *   v_tanh         1.5       1.5
 *   v_logistic     2.5       2.5
 *   v_expm1        1.1       1.0     x <= 0
 *   v_log1p        1.3       1.3     0 <= x <= 1
 *   v_softplus     1.9       1.9
 *   v_selu         2.3       1.9
 *   v_silu         3.0       3.2
 *   v_gelu         3.7       3.9
 *   v_mish         4.5       4.3
 *
 * Where exp is subnormal, silu, gelu and mish keep no relative accuracy: their error is below 1e-5 of the smallest
 * normal number. Slopes (v_gelu_slope ...) are right to 2 eps, absolutely.
 *
 * Each function of NaN is NaN, and of infinity its limit.
 */
#ifndef FM_VMATH_H
#define FM_VMATH_H

#include "vector.h"

#if FM_BITS == 64
#define FM_R(f32, f64) (f64)
#define FM_MANTISSA 52
#define FM_BIAS 1023
#define FM_TINY_SHIFT 54
#define FM_EXP_SHIFT 512
#else
#define FM_R(f32, f64) ((real)(f32))
#define FM_MANTISSA 23
#define FM_BIAS 127
#define FM_TINY_SHIFT 24
#define FM_EXP_SHIFT 64
#endif

#define FM_LARGEST FM_R(FLT_MAX, DBL_MAX)
#define FM_SMALLEST FM_R(FLT_MIN, DBL_MIN)

/* Adding MAGIC to a small number rounds it to an integer, which is then in the low bits. */
#define FM_MAGIC FM_R(12582912.0f, 6755399441055744.0)
/* exp is 0 below. */
#define FM_EXP_ZERO FM_R(-104.0f, -746.0)
#define FM_LN2_HI FM_R(0.693145751953125f, 0.6931471803691238)
#define FM_LN2_LO FM_R(1.4286068203094173e-06f, 1.9082149292705877e-10)

/* c[0] + x c[1] + x^2 c[2] + ... */
FM_INLINE vec v_polynomial(vec x, const real *c, int terms) {
    vec p = v_set(c[terms - 1]);
    for (int i = terms - 2; i >= 0; i--)
        p = v_fma(p, x, v_set(c[i]));
    return p;
}
#define V_POLYNOMIAL(x, ...)                                                                                           \
    v_polynomial((x), (const real[]){__VA_ARGS__}, (int)(sizeof((real[]){__VA_ARGS__}) / sizeof(real)))

static inline vec v_abs(vec x) { return (vec)((ivec)x & ((bits)((ubits)-1 >> 1) - (ivec){0})); }

/* 2^k for k in the range of normal exponents. */
static inline vec v_exp2_int(ivec k) { return (vec)((uvec)(k + FM_BIAS) << FM_MANTISSA); }

/* k / 2^shift, rounded down, for k >= -2^(bits - 2): AVX2 has no arithmetic shift of 64-bit lanes. */
static inline ivec v_shift_down(ivec k, int shift) {
    const ubits offset = (ubits)1 << (FM_BITS - 2);
    return (ivec)((((uvec)k + offset) >> shift) - (offset >> shift));
}

/* r = x - k ln 2, k = round(about / ln 2), |r| <= ln 2 / 2; `about` is x or a rounding of it. */
static inline vec v_reduce(vec about, vec x, ivec *k) {
    vec n = v_fma(about, v_set(FM_R(1.4426950408889634f, 1.4426950408889634)), v_set(FM_MAGIC));
    *k = (ivec)n - (ivec)v_set(FM_MAGIC);
    n = n - v_set(FM_MAGIC);
    return v_fma(n, v_set(-FM_LN2_LO), v_fma(n, v_set(-FM_LN2_HI), x));
}

/* exp(r) - 1 = r + r^2 Q(r), |r| <= ln 2 / 2. */
static inline vec v_expm1_reduced(vec r) {
#if FM_BITS == 64
    const vec q = V_POLYNOMIAL(r, 0.5000000000000012, 0.16666666666666385, 0.04166666666651916, 0.00833333333350766,
                               0.0013888888946918432, 0.0001984126948615369, 2.4801489353730838e-05,
                               2.7557597196123883e-06, 2.7631686875045695e-07, 2.4998989666597086e-08);
#else
    const vec q = V_POLYNOMIAL(r, 0.4999999305088872f, 0.16666514789060713f, 0.04166845673521397f,
                               0.008369419046910385f, 0.0013813147875810646f);
#endif
    return v_fma(r * r, q, r);
}

/* exp(x) = 2^k exp(r). */
static inline vec v_exp(vec x) {
    ivec k;
    x = v_min(v_max(x, v_set(FM_EXP_ZERO)), v_set(FM_R(89.0f, 710.0)));
    const vec p = v_expm1_reduced(v_reduce(x, x, &k)) + v_set(1);
    const ivec half = v_shift_down(k, 1); /* two factors: 2^k alone may be subnormal or overflow too soon */
    return p * v_exp2_int(half) * v_exp2_int(k - half);
}

/* 2^k exp(r) for results from 0 to exp(40): the bits of v_exp with one factor and a constant, of which both are normal.
 */
static inline vec v_exp_scaled(vec r, ivec k) {
    const vec p = v_expm1_reduced(r) + v_set(1);
    return p * v_exp2_int(k + FM_EXP_SHIFT) * v_set(FM_R(0x1p-64f, 0x1p-512));
}

/* exp(x), FM_EXP_ZERO <= x <= 40. */
static inline vec v_exp_bounded(vec x) {
    ivec k;
    const vec r = v_reduce(x, x, &k);
    return v_exp_scaled(r, k);
}

/* exp(x) - 1 = 2^k (exp(r) - 1) + (2^k - 1), x <= 0: the last term is 0 or at most -1/2, so little cancels. */
static inline vec v_expm1(vec x) {
    ivec k;
    x = v_max(x, v_set(FM_R(-20.0f, -40.0))); /* below, the result is -1 */
    const vec r = v_reduce(x, x, &k);
    const vec scale = v_exp2_int(k);
    return v_fma(scale, v_expm1_reduced(r), scale - v_set(1));
}

/* log(x) = k ln 2 + log(1 + f), 1 + f in [sqrt(1/2), sqrt(2)); with s = f / (2 + f), log(1 + f) = f - f^2/2 + s (f^2/2
 * + R(s^2)). The last line follows FreeBSD msun's e_log.c. */
static inline vec v_log(vec x) {
    const ivec tiny = x < v_set(FM_SMALLEST);
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

/* log(1 + x), 0 <= x <= 1: with s = x / (2 + x), it is 2 artanh(s) = 2 s + s R(s^2), and 2 s = x - s x. */
static inline vec v_log1p(vec x) {
    const vec s = x / (v_set(2) + x);
    const vec z = s * s;
#if FM_BITS == 64
    const vec R = z * V_POLYNOMIAL(z, 0.6666666666666631, 0.400000000001559, 0.2857142854801267, 0.22222223960563517,
                                   0.1818174422329367, 0.1538655407957499, 0.13301043809036997, 0.12105580037156832,
                                   0.08342107691916224, 0.170152205467102);
#else
    const vec R =
        z * V_POLYNOMIAL(z, 0.666664183139801f, 0.40021437406539917f, 0.2800302803516388f, 0.28006765246391296f);
#endif
    return v_fma(s, R - x, x);
}

/* |x| < 0.625: x + x^3 P(x^2); beyond: 1 - 2 / (exp(2|x|) + 1), with the sign of x. */
static inline vec v_tanh(vec x) {
    const vec a = v_abs(x);
    const vec z = x * x;
#if FM_BITS == 64
    const vec P =
        V_POLYNOMIAL(z, -0.3333333333333277, 0.1333333333325092, -0.053968253926140033, 0.021869487460112632,
                     -0.008863219501738937, 0.0035919772067720063, -0.001454898091958924, 0.0005861193830203664,
                     -0.000228169005767616, 7.66984098707833e-05, -1.5855967461484446e-05);
#else
    const vec P = V_POLYNOMIAL(z, -0.3333327805786004f, 0.1333133098899543f, -0.05373000625386276f,
                               0.02060617406565884f, -0.005666974427291872f);
#endif
    const vec near = v_fma(x * z, P, x);
    const vec far = v_set(1) - v_set(2) / (v_exp(v_min(a, v_set(40)) * v_set(2)) + v_set(1));
    const ivec sign = (ivec)x ^ (ivec)a;
    return v_select(a < v_set((real)0.625), near, (vec)((ivec)far | sign));
}

/* |x|, but no more than it takes for exp(-|x|) to be 0: |x| exp(-|x|) is then 0 for infinity too, not NaN. */
static inline vec v_exp_range(vec x) { return v_min(v_abs(x), v_set(-FM_EXP_ZERO)); }

/* 1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow. */
static inline vec v_logistic(vec x) {
    const vec e = v_exp_bounded(-v_exp_range(x));
    return v_select(x < v_set(0), e, v_set(1)) / (v_set(1) + e);
}

/* log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)) */
static inline vec v_softplus(vec x) { return v_max(x, v_set(0)) + v_log1p(v_exp_bounded(-v_exp_range(x))); }

/* x logistic(x) = max(x, 0) - a e / (1 + e), a = |x|, e = exp(-a) */
static inline vec v_silu(vec x) {
    const vec a = v_exp_range(x), e = v_exp_bounded(-a);
    return v_max(x, v_set(0)) - a * e / (v_set(1) + e);
}
/* Its slope at -a: l - a l (1 - l), l = logistic(-a) = e / (1 + e); at a: 1 less that. */
static inline vec v_silu_slope(vec x) {
    const vec a = v_exp_range(x), e = v_exp_bounded(-a);
    const vec r = v_set(1) / (v_set(1) + e), t = e * r * (v_set(1) - a * r);
    return v_select(x < v_set(0), t, v_set(1) - t);
}

/* From FM_MISH_ONE on, tanh(softplus(x)) = n / (n + 2) is 1; n = e (e + 2), e = exp(x). */
#define FM_MISH_ONE 40
static inline vec v_mish(vec x) {
    x = v_max(x, v_set(FM_EXP_ZERO));
    const vec e = v_exp_bounded(v_min(x, v_set(FM_MISH_ONE))), n = e * (e + v_set(2));
    return x * (n / (n + v_set(2)));
}
/* n / (n + 2) + x 4 e (e + 1) / (n + 2)^2 */
static inline vec v_mish_slope(vec x) {
    x = v_min(v_max(x, v_set(FM_EXP_ZERO)), v_set(FM_MISH_ONE));
    const vec e = v_exp_bounded(x), n = e * (e + v_set(2)), r = v_set(1) / (n + v_set(2));
    return r * v_fma(x, v_set(4) * e * (e + v_set(1)) * r, n);
}

/* The normal distribution function, Phi(-u) = exp(-u^2 / 2) / H(u) for u >= 0, has a smooth H(u) = 2 / erfcx(u / sqrt
 * 2). From FM_NORMAL_ZERO on, exp(-u^2 / 2) is 0. */
#define FM_NORMAL_ZERO FM_R(14.5f, 38.7)

/* exp(-u^2 / 2), 0 <= u <= FM_NORMAL_ZERO: the rounding error of u^2 would be exp's relative error, so u^2 comes in two
 * parts. Without fused multiply-add: (u + h) (u - h) and h^2, which is exact since h is u with half of the bits. */
static inline vec v_gaussian(vec u) {
    const vec g = v_set((real)-0.5) * u, about = g * u;
#if FM_FUSED
    const vec high = about, low = v_fma(g, u, -about);
#else
    const vec h = (vec)((uvec)u & ((ubits)-1 << (FM_MANTISSA + 2) / 2));
    const vec high = v_set((real)-0.5) * h * h, low = v_set((real)-0.5) * (u - h) * (u + h);
#endif
    ivec k;
    const vec r = v_reduce(about, high, &k) + low;
    return v_exp_scaled(r, k);
}

/* H(u), 0 <= u <= FM_NORMAL_ZERO, as sqrt(2 pi) u + R(u) / P(u), where the first term is the larger one from u = 0.7
 * on: errors of the second count for less. Rational minimax fit in the relative error of H, 1.5e-17 (float32: 6.5e-9,
 * with the first coefficient free); all coefficients are positive, nothing cancels. */
static inline vec v_normal_ratio(vec u) {
#if FM_BITS == 64
    const vec R = V_POLYNOMIAL(u, 2.0, 2.475814186829134, 1.5673665026326673, 0.6441544078060281, 0.1866483361879109,
                               0.03924899029240691, 0.005973459892322288, 0.0006352446312621774, 4.306646781868551e-05,
                               1.4349903066390167e-06);
    const vec P = V_POLYNOMIAL(u, 1.0, 1.693336669927202, 1.418259081427029, 0.7606250194163954, 0.28680078195678044,
                               0.07912492219746124, 0.016161500103797636, 0.0024174277412771948, 0.00025457089919143124,
                               1.7181034871365412e-05, 5.724783053326667e-07);
#else
    const vec R =
        V_POLYNOMIAL(u, 2.0f, 0.8393958210945129f, 0.2067943960428238f, 0.02017960138618946f, 1.5601524864905514e-05f);
    const vec P =
        V_POLYNOMIAL(u, 1.0f, 0.8751121759414673f, 0.3653199374675751f, 0.08086246252059937f, 0.008167831227183342f);
#endif
    return v_fma(u, v_set(FM_R(2.5065982341766357f, 2.5066282746310007)), R / P);
}

/* x Phi(x) = max(x, 0) - a Phi(-a), a = |x| */
static inline vec v_gelu(vec x) {
    const vec a = v_min(v_abs(x), v_set(FM_NORMAL_ZERO));
    return v_max(x, v_set(0)) - a * v_gaussian(a) / v_normal_ratio(a);
}
/* Its slope at -a: Phi(-a) - a exp(-a^2 / 2) / sqrt(2 pi); at a: 1 less that. */
static inline vec v_gelu_slope(vec x) {
    const vec a = v_min(v_abs(x), v_set(FM_NORMAL_ZERO));
    const vec t = v_gaussian(a) * (v_set(1) / v_normal_ratio(a) - v_set((real)0.3989422804014327) * a);
    return v_select(x < v_set(0), t, v_set(1) - t);
}

/* scale x, x > 0; scale alpha (exp(x) - 1), x <= 0; the numbers are those of Klambauer et al. 2017. */
#define FM_SELU_SCALE ((real)1.0507009873554804934)
#define FM_SELU_SCALE_ALPHA ((real)1.7580993408473768599)
static inline vec v_selu(vec x) {
    const vec below = v_expm1(v_min(x, v_set(0))), above = v_max(x, v_set(0));
    return v_fma(v_set(FM_SELU_SCALE_ALPHA), below, v_set(FM_SELU_SCALE) * above);
}

static inline vec v_relu(vec x) { return (vec)(~(x <= v_set(0)) & (ivec)x); }       /* NaN stays */
static inline vec v_step(vec y) { return (vec)((y != v_set(0)) & (ivec)v_set(1)); } /* 0 at 0, else 1 */
static inline vec v_clip(vec p, real eps) { return v_min(v_max(p, v_set(eps)), v_set(1 - eps)); }
static inline vec v_finite(vec x) { return v_min(v_max(x, v_set(-FM_LARGEST)), v_set(FM_LARGEST)); } /* NaN stays */
static inline vec v_xlogy(vec x, vec y) { return v_select(x == v_set(0), v_set(0), x * v_log(y)); }
/* y log(y / a) - y + a, infinite for infinite a. If y / a underflows, log(0) would be -infinity. */
static inline vec v_poisson(vec y, vec a) {
    const vec value = v_xlogy(y, v_max(y / a, v_set(FM_SMALLEST))) - y + a;
    return v_select(a < v_set((real)INFINITY), value, a);
}
static inline vec v_sign(vec x) { return v_select(x > v_set(0), v_set(1), v_select(x < v_set(0), v_set(-1), x)); }
#endif
