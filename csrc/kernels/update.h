/* update.h: update rules over a block of weights; the rows of optimizers.def become functions here. */
#ifndef FM_UPDATE_H
#define FM_UPDATE_H

#include "fastmlp.h"
#include "vmath.h"

/* b^n by repeated squaring: the same bits on every machine, which libm's pow does not promise. */
static double power(double b, ptrdiff_t n) {
    double p = 1;
    for (; n > 0; n >>= 1, b *= b)
        if (n & 1)
            p *= b;
    return p;
}

/* Every FLUSH_INTERVAL updates, subnormal numbers in averages of gradients become 0: the averages of a dead unit or an
 * absent feature shrink until they are subnormal, where some processors compute slowly. A flush at each update would
 * cost more. Averages of squares are not flushed: with a tiny epsilon, a step divided by 0 instead would be huge. */
#define FLUSH_INTERVAL 128

static void flush_subnormals(real *S, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += V) {
        const vec s = v_load(S + i);
        v_store(S + i, v_select(v_abs(s) < v_set(FM_R(FLT_MIN, DBL_MIN)), v_set(0) * s, s));
    }
}

/* A rule over `rows` rows of a panel, nv vectors of each: the gradient g = (G + l2 w + l1 sign(w)) clip / weight_sum,
 * then the row of optimizers.def. penalty[column] (NULL: a bias) grows by the column's penalty before the update. */
typedef void rule_function(real *W, real *const state[], const real *G, double *penalty, ptrdiff_t rows, int nv,
                           double l1, double l2, const fm_hyper *hyper);

/* For adam_hat and its variants: c[0] m / (sqrt(c[6] v) + c[1]), with m and v by c[2] .. c[5]. */
static void adam_constants(fm_hyper *h) {
    double *c = h->c;
    c[0] = h->learning_rate / (1 - power(h->beta_1, h->t));
    c[1] = h->epsilon;
    c[2] = h->beta_1, c[3] = 1 - h->beta_1;
    c[4] = h->beta_2, c[5] = 1 - h->beta_2;
    c[6] = 1 / (1 - power(h->beta_2, h->t));
}

/* One update of a vector of weights: the new w, from gradient g; s is the state, k the constants. */
typedef vec step_function(vec w, vec g, vec s[], const vec k[], vec decay);

FM_INLINE void update_block(step_function *const step, const int n_state, real *restrict W, real *restrict S0,
                            real *restrict S1, real *restrict S2, const real *restrict G, double *penalty,
                            ptrdiff_t rows, const int nv, double l1, double l2, const fm_hyper *hyper) {
    const vec decay = v_set((real)(penalty ? hyper->learning_rate * hyper->weight_decay : 0)); /* no penalty: a bias */
    const vec a1 = v_set((real)l1), a2 = v_set((real)l2), scale = v_set((real)(hyper->clip / hyper->weight_sum));
    vec k[FM_CONSTANTS], paid[2] = {v_set(0), v_set(0)};
    for (int i = 0; i < FM_CONSTANTS; i++)
        k[i] = v_set((real)hyper->c[i]);
    for (ptrdiff_t r = 0; r < rows; r++, W += NR, S0 += NR, S1 += NR, S2 += NR, G += NR)
        for (int j = 0; j < nv; j++) {
            vec w = v_load(W + j * V), g = v_load(G + j * V), s[FM_MAX_STATE] = {v_set(0), v_set(0), v_set(0)};
            if (n_state > 0)
                s[0] = v_load(S0 + j * V);
            if (n_state > 1)
                s[1] = v_load(S1 + j * V);
            if (n_state > 2)
                s[2] = v_load(S2 + j * V);
            const vec shrink = a2 * w;
            paid[j] += v_set((real)0.5) * (w * shrink);
            g += shrink;
            if (l1 != 0) {
                paid[j] += a1 * v_abs(w);
                g += a1 * v_sign(w);
            }
            g *= scale;
            v_store(W + j * V, step(w, g, s, k, decay));
            if (n_state > 0)
                v_store(S0 + j * V, s[0]);
            if (n_state > 1)
                v_store(S1 + j * V, s[1]);
            if (n_state > 2)
                v_store(S2 + j * V, s[2]);
        }
    if (penalty && (l1 != 0 || l2 != 0)) {
        real sum[NR];
        for (int j = 0; j < nv; j++)
            v_store(sum + j * V, paid[j]);
        for (ptrdiff_t column = 0; column < nv * V; column++)
            penalty[column] += hyper->penalty_scale * (double)sum[column];
    }
}

FM_INLINE void apply_rule(step_function *const step, const int n_state, const int average, real *W, real *const state[],
                          const real *G, double *penalty, ptrdiff_t rows, int nv, double l1, double l2,
                          const fm_hyper *hyper) {
    /* An array that the rule does not have is neither read nor written. */
    real *S0 = n_state > 0 ? state[0] : W, *S1 = n_state > 1 ? state[1] : W, *S2 = n_state > 2 ? state[2] : W;
    if (nv == 2)
        update_block(step, n_state, W, S0, S1, S2, G, penalty, rows, 2, l1, l2, hyper);
    else
        update_block(step, n_state, W, S0, S1, S2, G, penalty, rows, 1, l1, l2, hyper);
    if (average && hyper->t % FLUSH_INTERVAL == 0)
        flush_subnormals(S0, rows * NR);
}

#define OPTIMIZER(name, n_state, average, constants, update)                                                           \
    static void prepare_##name(fm_hyper *h) {                                                                          \
        double *c = h->c;                                                                                              \
        (void)c;                                                                                                       \
        constants;                                                                                                     \
    }                                                                                                                  \
    static inline vec step_##name(vec w, vec g, vec s[], const vec k[], vec decay) {                                   \
        (void)s, (void)k, (void)decay;                                                                                 \
        update;                                                                                                        \
        return w;                                                                                                      \
    }                                                                                                                  \
    static void rule_##name(real *W, real *const state[], const real *G, double *penalty, ptrdiff_t rows, int nv,      \
                            double l1, double l2, const fm_hyper *hyper) {                                             \
        apply_rule(step_##name, n_state, average, W, state, G, penalty, rows, nv, l1, l2, hyper);                      \
    }
#include "optimizers.def"
#undef OPTIMIZER

static rule_function *const rules[FM_N_OPTIMIZERS] = {
#define OPTIMIZER(name, ...) rule_##name,
#include "optimizers.def"
#undef OPTIMIZER
};
#endif
