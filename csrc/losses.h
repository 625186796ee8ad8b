/* losses.h: output activations and losses, row by row; the rows of losses.def become functions here.
 * Sums along a row run in the order of the columns, or, in wide rows, over fixed lanes of 64 bytes whatever the vector width: the
 * same bits everywhere.
 * Included by kernels.c only.
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
#define FM_MAP(y, x, n, expression)                                                                                              \
    do {                                                                                                                         \
        ptrdiff_t i_ = 0;                                                                                                        \
        for (; i_ + V <= (n); i_ += V) {                                                                                         \
            const vec v = v_load((x) + i_);                                                                                      \
            v_store((y) + i_, (expression));                                                                                     \
        }                                                                                                                        \
        if (i_ < (n)) {                                                                                                          \
            const vec v = v_load_n((x) + i_, (n) - i_);                                                                          \
            v_store_n((y) + i_, (expression), (n) - i_);                                                                         \
        }                                                                                                                        \
    } while (0)

/* Up to so many columns, a softmax takes a vector of rows at a time, summing in the order of the columns.
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
            const vec z = v_load(by_column[c]);
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
        const vec shift = v_set(largest);
        FM_MAP(row, row, columns, v_exp(v - shift));
        const vec total = v_set(row_sum(row, columns));
        FM_MAP(row, row, columns, v / total);
    }
}

#define OUTPUT_LANE(name, expression)                                                                                            \
    static inline vec output_lane_##name(vec z) { return expression; }                                                           \
    static void output_##name(void *a, ptrdiff_t rows, ptrdiff_t columns) {                                                      \
        const ptrdiff_t n = rows * columns;                                                                                      \
        FM_MAP((real *)a, (const real *)a, n, output_lane_##name(v));                                                            \
    }
#define OUTPUT_ROW(name, expression)
#define OUTPUT(name, kind, expression) OUTPUT_##kind(name, expression)
#include "losses.def"
#undef OUTPUT

/* Rows of panels to row-major rows without gaps, and back; the columns that pad the last panel become 0 on the way back. */
static void rows_from_panels(real *M, const real *P, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {
    for (ptrdiff_t c = 0; c < columns; c += V) { /* half panels: a vector each */
        const real *p = P + c / NR * stride + c % NR;
        const ptrdiff_t width = columns - c < V ? columns - c : V;
        for (ptrdiff_t r = 0; r < rows; r++)
            v_store_n(M + r * columns + c, v_load(p + r * NR), width);
    }
}

static void rows_to_panels(real *P, const real *M, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride, const double *weights,
                           const ptrdiff_t *order, ptrdiff_t first_target) {
    for (ptrdiff_t c = 0; c < (columns + NR - 1) / NR * NR; c += V) {
        real *p = P + c / NR * stride + c % NR;
        const ptrdiff_t left = columns - c, width = left < 0 ? 0 : left < V ? left : V;
        for (ptrdiff_t r = 0; r < rows; r++) {
            const vec m = width ? v_load_n(M + r * columns + c, width) : v_set(0);
            v_store(p + r * NR, weights ? v_set((real)weights[order ? order[r] : first_target + r]) * m : m);
        }
    }
}

/* CLASS: value = -log(clip(softmax(z)[class])), dz = softmax(z) - onehot(class) */
#define GRADIENT_CLASS(name, output, reduction, value_expression, gradient_expression)                                           \
    static void gradient_##name(void *z, double *value, void *scratch, const fm_targets *targets, const ptrdiff_t *order,        \
                                ptrdiff_t first_target, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {  \
        real *P = (real *)z + first * NR, *a = scratch, *picked = a + rows * columns;                                            \
        rows_from_panels(a, P, rows, columns, stride);                                                                           \
        output_##output(a, rows, columns);                                                                                       \
        for (ptrdiff_t r = 0; r < rows; r++) {                                                                                   \
            real *p = a + r * columns + targets->classes[order ? order[r] : first_target + r];                                   \
            picked[r] = *p;                                                                                                      \
            *p -= 1;                                                                                                             \
        }                                                                                                                        \
        FM_MAP(picked, picked, rows, -v_log(v_clip(v, EPS)));                                                                    \
        for (ptrdiff_t r = 0; r < rows; r++)                                                                                     \
            value[r] = (double)picked[r];                                                                                        \
        rows_to_panels(P, a, rows, columns, stride, targets->weights, order, first_target);                                      \
    }

/* VALUE: the expressions of losses.def, over all outputs of the rows as one long vector. */
#define REDUCTION_SUM(columns) 1
#define REDUCTION_MEAN(columns) (columns)
#define GRADIENT_VALUE(name, output, reduction, value_expression, gradient_expression)                                           \
    static inline vec value_##name(vec a, vec y, real eps) {                                                                     \
        (void)eps;                                                                                                               \
        return value_expression;                                                                                                 \
    }                                                                                                                            \
    static inline vec slope_##name(vec a, vec y) { return gradient_expression; }                                                 \
    static void gradient_##name(void *z, double *value, void *scratch, const fm_targets *targets, const ptrdiff_t *order,        \
                                ptrdiff_t first_target, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {  \
        real *P = (real *)z + first * NR, *a = scratch, *y = a + rows * columns;                                                 \
        const ptrdiff_t n = rows * columns;                                                                                      \
        const real divisor = (real)REDUCTION_##reduction(columns);                                                               \
        rows_from_panels(a, P, rows, columns, stride);                                                                           \
        output_##output(a, rows, columns);                                                                                       \
        for (ptrdiff_t r = 0; r < rows; r++)                                                                                     \
            memcpy(y + r * columns, (const real *)targets->values + (order ? order[r] : first_target + r) * columns,             \
                   (size_t)columns * sizeof(real));                                                                              \
        for (ptrdiff_t i = 0; i < n; i += V) {                                                                                   \
            const ptrdiff_t m = n - i < V ? n - i : V;                                                                           \
            const vec va = v_load_n(a + i, m), vy = v_load_n(y + i, m);                                                          \
            v_store_n(a + i, slope_##name(va, vy) / v_set(divisor), m);                                                          \
            v_store_n(y + i, value_##name(va, vy, EPS), m);                                                                      \
        }                                                                                                                        \
        for (ptrdiff_t r = 0; r < rows; r++)                                                                                     \
            value[r] = (double)(row_sum(y + r * columns, columns) / divisor);                                                    \
        rows_to_panels(P, a, rows, columns, stride, targets->weights, order, first_target);                                      \
    }
#define LOSS(name, target, output, reduction, value, gradient) GRADIENT_##target(name, output, reduction, value, gradient)
#include "losses.def"
#undef LOSS
#endif
