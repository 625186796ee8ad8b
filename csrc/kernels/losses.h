/* losses.h: output activations and losses, row by row; the rows of losses.def become functions here.
 * Sums along a row run in the order of the columns, or, in wide rows, over fixed lanes of 64 bytes whatever the vector
 * width: the same bits everywhere. Included by kernels.c only.
 */
#ifndef FM_LOSSES_H
#define FM_LOSSES_H

#include "fastmlp.h"
#include "vmath.h"

#define LANES ((ptrdiff_t)(64 / sizeof(real)))
#define EPS FM_R(FLT_EPSILON, DBL_EPSILON)

/* Sum of n reals: lane i takes elements i, i + LANES, ... in order; the lanes are then added pairwise. */
static real row_sum(const real *x, ptrdiff_t n) {
    enum { VECTORS = 64 / FM_VECTOR_BYTES };
    vec lanes[VECTORS] = {v_set(0)};
    real part[FM_VECTOR_BYTES / sizeof(real)];
    if (n == 1)
        return 0 + x[0]; /* not -0 */
    for (ptrdiff_t i = 0; i < n; i += LANES)
        for (ptrdiff_t j = 0; j < VECTORS && i + j * V < n; j++)
            lanes[j] += n - i - j * V >= V ? v_load(x + i + j * V) : v_load_n(x + i + j * V, n - i - j * V);
    for (int half = VECTORS / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            lanes[j] += lanes[j + half];
    v_store(part, lanes[0]);
    for (ptrdiff_t half = V / 2; half > 0; half /= 2)
        for (ptrdiff_t j = 0; j < half; j++)
            part[j] += part[j + half];
    return part[0];
}

/* y[i] = expression in v, for i < n, in vectors; the last one partly filled. */
#define FM_MAP(y, x, n, expression)                                                                                    \
    do {                                                                                                               \
        ptrdiff_t i_ = 0;                                                                                              \
        for (; i_ + V <= (n); i_ += V) {                                                                               \
            const vec v = v_load((x) + i_);                                                                            \
            v_store((y) + i_, (expression));                                                                           \
        }                                                                                                              \
        if (i_ < (n)) {                                                                                                \
            const vec v = v_load_n((x) + i_, (n) - i_);                                                                \
            v_store_n((y) + i_, (expression), (n) - i_);                                                               \
        }                                                                                                              \
    } while (0)

/* Logits that overflowed to infinity count as the largest number of their sign: infinity - infinity would be NaN, where
 * in the limit the largest logits share the row.
 *
 * Up to so many columns, a softmax takes a vector of rows at a time, summing in the order of the columns.
 * Measured on Zen 4: the loss of 64 rows of 2 columns 3.9 -> 0.6 us, of 200 rows of 3 11.8 -> 2.3. */
#define NARROW 16

static void softmax_narrow(real *a, ptrdiff_t rows, ptrdiff_t columns) {
    for (ptrdiff_t r = 0; r < rows; r += V, a += V * columns) {
        const ptrdiff_t n = rows - r < V ? rows - r : V;
        real by_column[NARROW][FM_VECTOR_BYTES / sizeof(real)];
        vec largest = v_set(-(real)INFINITY), total = v_set(0);
        for (ptrdiff_t c = 0; c < columns; c++)
            for (ptrdiff_t i = 0; i < V; i++) /* the last rows' vector is filled up with their first */
                by_column[c][i] = a[(i < n ? i : 0) * columns + c];
        for (ptrdiff_t c = 0; c < columns; c++) {
            const vec z = v_finite(v_load(by_column[c]));
            v_store(by_column[c], z);
            largest = v_select(z > largest, z, largest);
        }
        for (ptrdiff_t c = 0; c < columns; c++) {
            const vec e = v_exp(v_load(by_column[c]) - largest);
            total += e;
            v_store(by_column[c], e);
        }
        for (ptrdiff_t c = 0; c < columns; c++)
            v_store(by_column[c], v_load(by_column[c]) / total);
        for (ptrdiff_t c = 0; c < columns; c++)
            for (ptrdiff_t i = 0; i < n; i++)
                a[i * columns + c] = by_column[c][i];
    }
}

static void output_softmax(void *a, ptrdiff_t rows, ptrdiff_t columns) {
    if (columns <= NARROW) {
        softmax_narrow(a, rows, columns);
        return;
    }
    for (ptrdiff_t r = 0; r < rows; r++) {
        real *row = (real *)a + r * columns;
        real largest = -(real)INFINITY;
        for (ptrdiff_t j = 0; j < columns; j++)
            largest = row[j] > largest ? row[j] : largest;
        const vec shift = v_finite(v_set(largest));
        FM_MAP(row, row, columns, v_exp(v_finite(v) - shift));
        const vec total = v_set(row_sum(row, columns));
        FM_MAP(row, row, columns, v / total);
    }
}

#define OUTPUT_LANE(name, expression)                                                                                  \
    static inline vec output_lane_##name(vec z) { return expression; }                                                 \
    static void output_##name(void *a, ptrdiff_t rows, ptrdiff_t columns) {                                            \
        const ptrdiff_t n = rows * columns;                                                                            \
        FM_MAP((real *)a, (const real *)a, n, output_lane_##name(v));                                                  \
    }
#define OUTPUT_ROW(name, expression)
#define OUTPUT(name, kind, expression) OUTPUT_##kind(name, expression)
#include "losses.def"
#undef OUTPUT

/* Rows of panels to row-major rows without gaps, and back; the columns that pad the last panel become 0 on the way
 * back. */
static void rows_from_panels(real *M, const real *P, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {
    for (ptrdiff_t c = 0; c < columns; c += V) { /* half panels: a vector each */
        const real *p = P + c / NR * stride + c % NR;
        const ptrdiff_t width = columns - c < V ? columns - c : V;
        for (ptrdiff_t r = 0; r < rows; r++)
            v_store_n(M + r * columns + c, v_load(p + r * NR), width);
    }
}

static inline ptrdiff_t row_of(const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t r) {
    return order ? order[r] : first + r;
}

/* What row r counts; with mixup (partner not NULL) its partner's weight has its share. */
static inline double weight_of(const fm_targets *targets, const ptrdiff_t *order, const ptrdiff_t *partner,
                               ptrdiff_t first, ptrdiff_t r) {
    const double weight = targets->weights[row_of(order, first, r)];
    return partner ? targets->mix * weight + (1 - targets->mix) * targets->weights[partner[r]] : weight;
}

static void rows_to_panels(real *P, const real *M, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride,
                           const fm_targets *targets, const ptrdiff_t *order, const ptrdiff_t *partner,
                           ptrdiff_t first_target) {
    for (ptrdiff_t c = 0; c < (columns + NR - 1) / NR * NR; c += V) {
        real *p = P + c / NR * stride + c % NR;
        const ptrdiff_t left = columns - c, width = left < 0 ? 0 : left < V ? left : V;
        for (ptrdiff_t r = 0; r < rows; r++) {
            const vec m = width ? v_load_n(M + r * columns + c, width) : v_set(0);
            v_store(p + r * NR,
                    targets->weights ? v_set((real)weight_of(targets, order, partner, first_target, r)) * m : m);
        }
    }
}

/* logs[i] = -log(clip(a[i])) */
static void negative_logs(real *logs, const real *a, ptrdiff_t n) { FM_MAP(logs, a, n, -v_log(v_clip(v, EPS))); }

/* CLASS, targets t = (1 - smoothing) (mix onehot(class) + (1 - mix) onehot(partner's class)) + smoothing / O:
 * value = -sum t log(clip(a)), and a becomes dz = a - t. */
static void soft_classes(real *a, double *value, real *logs, const fm_targets *targets, const ptrdiff_t *order,
                         const ptrdiff_t *partner, ptrdiff_t first_target, ptrdiff_t rows, ptrdiff_t columns) {
    const real s = (real)targets->smoothing, share = s / (real)columns, mix = partner ? (real)targets->mix : 1;
    const real own = (1 - s) * mix, other = (1 - s) * (1 - mix);
    negative_logs(logs, a, rows * columns);
    FM_MAP(a, a, rows * columns, v - v_set(share));
    for (ptrdiff_t r = 0; r < rows; r++, a += columns, logs += columns) {
        const ptrdiff_t i = targets->classes[row_of(order, first_target, r)],
                        j = partner ? targets->classes[partner[r]] : i;
        value[r] = (double)(own * logs[i] + other * logs[j] + share * row_sum(logs, columns));
        a[i] -= own;
        a[j] -= other;
    }
}

/* CLASS: value = -log(clip(softmax(z)[class])), dz = softmax(z) - onehot(class) */
#define LOSS_CLASS(name, output, reduction, value_expression, gradient_expression)                                     \
    static void gradient_##name(void *z, double *value, void *scratch, const fm_targets *targets,                      \
                                const ptrdiff_t *order, const ptrdiff_t *partner, ptrdiff_t first_target,              \
                                ptrdiff_t first, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {                \
        real *P = (real *)z + first * NR, *a = scratch, *picked = a + rows * columns;                                  \
        rows_from_panels(a, P, rows, columns, stride);                                                                 \
        output_##output(a, rows, columns);                                                                             \
        if (partner || targets->smoothing != 0)                                                                        \
            soft_classes(a, value, picked, targets, order, partner, first_target, rows, columns);                      \
        else {                                                                                                         \
            for (ptrdiff_t r = 0; r < rows; r++) {                                                                     \
                real *p = a + r * columns + targets->classes[row_of(order, first_target, r)];                          \
                picked[r] = *p;                                                                                        \
                *p -= 1;                                                                                               \
            }                                                                                                          \
            negative_logs(picked, picked, rows);                                                                       \
            for (ptrdiff_t r = 0; r < rows; r++)                                                                       \
                value[r] = (double)picked[r];                                                                          \
        }                                                                                                              \
        rows_to_panels(P, a, rows, columns, stride, targets, order, partner, first_target);                            \
    }                                                                                                                  \
    static void value_##name(void *a, double *value, void *scratch, const fm_targets *targets, ptrdiff_t first_target, \
                             ptrdiff_t rows, ptrdiff_t columns) {                                                      \
        real *picked = scratch;                                                                                        \
        for (ptrdiff_t r = 0; r < rows; r++)                                                                           \
            picked[r] = ((const real *)a)[r * columns + targets->classes[first_target + r]];                           \
        negative_logs(picked, picked, rows);                                                                           \
        for (ptrdiff_t r = 0; r < rows; r++)                                                                           \
            value[r] = (double)picked[r];                                                                              \
    }

/* VALUE: rows of targets, mixed and smoothed as the run wants them. */
static void gather_values(real *y, const fm_targets *targets, const ptrdiff_t *order, const ptrdiff_t *partner,
                          ptrdiff_t first_target, ptrdiff_t rows, ptrdiff_t columns) {
    const real *values = targets->values;
    const vec mix = v_set((real)targets->mix), rest = v_set(1 - (real)targets->mix);
    const vec keep = v_set(1 - (real)targets->smoothing), half = v_set((real)0.5 * (real)targets->smoothing);
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *from = values + row_of(order, first_target, r) * columns;
        real *to = y + r * columns;
        if (columns > 4)
            memcpy(to, from, (size_t)columns * sizeof(real));
        else
            for (ptrdiff_t c = 0; c < columns; c++) /* a call of memcpy takes longer */
                to[c] = from[c];
        for (ptrdiff_t c = 0; partner && c < columns; c += V) {
            const ptrdiff_t n = columns - c < V ? columns - c : V;
            v_store_n(to + c, mix * v_load_n(to + c, n) + rest * v_load_n(values + partner[r] * columns + c, n), n);
        }
        if (targets->smoothing != 0)
            FM_MAP(to, to, columns, keep * v + half);
    }
}

/* VALUE: the expressions of losses.def, over all outputs of the rows as one long vector. */
#define REDUCTION_SUM(columns) 1
#define REDUCTION_MEAN(columns) (columns)
#define LOSS_VALUE(name, output, reduction, value_expression, gradient_expression)                                     \
    static inline vec value_of_##name(vec a, vec y, vec k, real eps) {                                                 \
        (void)eps, (void)k;                                                                                            \
        return value_expression;                                                                                       \
    }                                                                                                                  \
    static inline vec slope_of_##name(vec a, vec y, vec k) {                                                           \
        (void)k;                                                                                                       \
        return gradient_expression;                                                                                    \
    }                                                                                                                  \
    static void gradient_##name(void *z, double *value, void *scratch, const fm_targets *targets,                      \
                                const ptrdiff_t *order, const ptrdiff_t *partner, ptrdiff_t first_target,              \
                                ptrdiff_t first, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {                \
        real *P = (real *)z + first * NR, *a = scratch, *y = a + rows * columns;                                       \
        const ptrdiff_t n = rows * columns;                                                                            \
        const real divisor = (real)REDUCTION_##reduction(columns);                                                     \
        const vec k = v_set((real)targets->parameter);                                                                 \
        rows_from_panels(a, P, rows, columns, stride);                                                                 \
        output_##output(a, rows, columns);                                                                             \
        gather_values(y, targets, order, partner, first_target, rows, columns);                                        \
        for (ptrdiff_t i = 0; i < n; i += V) {                                                                         \
            const ptrdiff_t m = n - i < V ? n - i : V;                                                                 \
            const vec va = v_load_n(a + i, m), vy = v_load_n(y + i, m);                                                \
            v_store_n(a + i, slope_of_##name(va, vy, k) / v_set(divisor), m);                                          \
            v_store_n(y + i, value_of_##name(va, vy, k, EPS), m);                                                      \
        }                                                                                                              \
        for (ptrdiff_t r = 0; r < rows; r++)                                                                           \
            value[r] = (double)(row_sum(y + r * columns, columns) / divisor);                                          \
        rows_to_panels(P, a, rows, columns, stride, targets, order, partner, first_target);                            \
    }                                                                                                                  \
    static void value_##name(void *a_, double *value, void *scratch, const fm_targets *targets,                        \
                             ptrdiff_t first_target, ptrdiff_t rows, ptrdiff_t columns) {                              \
        real *a = a_;                                                                                                  \
        const real *y = (const real *)targets->values + first_target * columns;                                        \
        const real divisor = (real)REDUCTION_##reduction(columns);                                                     \
        const vec k = v_set((real)targets->parameter);                                                                 \
        (void)scratch;                                                                                                 \
        for (ptrdiff_t i = 0; i < rows * columns; i += V) {                                                            \
            const ptrdiff_t m = rows * columns - i < V ? rows * columns - i : V;                                       \
            v_store_n(a + i, value_of_##name(v_load_n(a + i, m), v_load_n(y + i, m), k, EPS), m);                      \
        }                                                                                                              \
        for (ptrdiff_t r = 0; r < rows; r++)                                                                           \
            value[r] = (double)(row_sum(a + r * columns, columns) / divisor);                                          \
    }
#define LOSS(name, target, output, reduction, value, gradient) LOSS_##target(name, output, reduction, value, gradient)
#include "losses.def"
#undef LOSS
#endif
