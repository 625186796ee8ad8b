/* losses.h: output activations and losses; the rows of losses.def become functions here.
 * Sums along a row run in the order of the columns or, in wide rows, over fixed lanes of 64 bytes: the same bits for
 * every vector width.
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
    real part[V];
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

/* Up to this many columns, a softmax takes a vector of rows at a time and sums in the order of the columns.
 * Infinite logits count as the largest finite number of their sign: infinity - infinity would be NaN. */
#define MAX_NARROW_SOFTMAX 16

static void softmax_narrow(real *a, ptrdiff_t rows, ptrdiff_t columns) {
    for (ptrdiff_t r = 0; r < rows; r += V, a += V * columns) {
        const ptrdiff_t n = min_of(V, rows - r);
        real by_column[MAX_NARROW_SOFTMAX][V];
        vec largest = v_set(-(real)INFINITY), total = v_set(0);
        for (ptrdiff_t c = 0; c < columns; c++)
            for (ptrdiff_t i = 0; i < V; i++) /* lanes without a row repeat the first */
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

static inline vec exp_shifted(vec x, vec shift) { return v_exp(v_finite(x) - shift); }
static inline vec divide(vec x, vec divisor) { return x / divisor; }
static inline vec finite_less(vec x, vec shift) { return v_finite(x) - shift; }
static inline vec less(vec x, vec y) { return x - y; }

static void output_softmax(void *a, ptrdiff_t rows, ptrdiff_t columns) {
    if (columns <= MAX_NARROW_SOFTMAX) {
        softmax_narrow(a, rows, columns);
        return;
    }
    for (ptrdiff_t r = 0; r < rows; r++) {
        real *row = (real *)a + r * columns;
        real largest = -(real)INFINITY;
        for (ptrdiff_t j = 0; j < columns; j++)
            largest = row[j] > largest ? row[j] : largest;
        const vec shift = v_finite(v_set(largest));
        map_with(exp_shifted, shift, row, row, columns);
        const vec total = v_set(row_sum(row, columns));
        map_with(divide, total, row, row, columns);
    }
}

/* z - m - log1p(s), m the row's largest z and s the sum of exp(z - m) over all others. */
static void output_log_softmax(void *a, ptrdiff_t rows, ptrdiff_t columns) {
    real logs[64 / sizeof(real)];
    for (ptrdiff_t r = 0; r < rows; r++) {
        real *row = (real *)a + r * columns;
        ptrdiff_t top = 0;
        for (ptrdiff_t j = 1; j < columns; j++)
            top = row[j] > row[top] ? j : top;
        const vec shift = v_finite(v_set(row[top]));
        real total = 0;
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            const ptrdiff_t n = min_of(LANES, columns - j);
            map_with(exp_shifted, shift, logs, row + j, n);
            if (top >= j && top < j + n)
                logs[top - j] = 0;
            total += row_sum(logs, n);
        }
        v_store_n(logs, total <= 1 ? v_log1p(v_set(total)) : v_log(v_set(1 + total)), 1);
        map_with(finite_less, shift, row, row, columns);
        map_with(less, v_set(logs[0]), row, row, columns);
    }
}

#define OUTPUT_LANE(name, expression)                                                                                  \
    static inline vec output_lane_##name(vec z) { return expression; }                                                 \
    static void output_##name(void *a, ptrdiff_t rows, ptrdiff_t columns) {                                            \
        map(output_lane_##name, a, a, rows * columns);                                                                 \
    }
#define OUTPUT_ROW(name, expression)
#define OUTPUT(name, kind, expression) OUTPUT_##kind(name, expression)
#include "losses.def"
#undef OUTPUT

/* Rows of panels to row-major rows without gaps: of wide ones eight at a time, each written from left to right. */
static void rows_from_panels(real *M, const real *P, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {
    const ptrdiff_t together = columns > NR ? 8 : rows;
    for (ptrdiff_t r0 = 0; r0 < rows; r0 += together)
        for (ptrdiff_t c = 0; c < columns; c += V) { /* half panels: a vector each */
            const real *p = P + c / NR * stride + c % NR;
            const ptrdiff_t width = min_of(V, columns - c), r1 = min_of(r0 + together, rows);
            for (ptrdiff_t r = r0; r < r1; r++)
                v_store_n(M + r * columns + c, v_load(p + r * NR), width);
        }
}

static inline ptrdiff_t row_of(const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t r) {
    return order ? order[r] : first + r;
}

/* The weight of row r, mixed with that of its partner (mixup). */
static inline double weight_of(const fm_targets *targets, const ptrdiff_t *order, const ptrdiff_t *partner,
                               ptrdiff_t first, ptrdiff_t r) {
    const double weight = targets->weights[row_of(order, first, r)];
    return partner ? targets->mix * weight + (1 - targets->mix) * targets->weights[partner[r]] : weight;
}

/* Row-major rows to panels, each row times its weight; columns that pad the last panel become 0. */
static void rows_to_panels(real *P, const real *M, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride,
                           const fm_targets *targets, const ptrdiff_t *order, const ptrdiff_t *partner,
                           ptrdiff_t first_target) {
    for (ptrdiff_t c = 0; c < (columns + NR - 1) / NR * NR; c += V) {
        real *p = P + c / NR * stride + c % NR;
        const ptrdiff_t left = columns - c, width = left < 0 ? 0 : min_of(left, V);
        for (ptrdiff_t r = 0; r < rows; r++) {
            const vec m = width ? v_load_n(M + r * columns + c, width) : v_set(0);
            const int weighted = targets->weights != NULL;
            v_store(p + r * NR, weighted ? v_set((real)weight_of(targets, order, partner, first_target, r)) * m : m);
        }
    }
}

/* ---- Targets that are classes: value = -log(clip(a[class])), dz = a - onehot(class) ----------------------------- */

static inline vec negative_log(vec a) { return -v_log(v_clip(a, EPS)); }
static void negative_logs(real *logs, const real *a, ptrdiff_t n) { map(negative_log, logs, a, n); }
static inline vec subtract(vec x, vec y) { return x - y; }

/* With soft targets t = (1 - smoothing) (mix onehot(class) + (1 - mix) onehot(partner's class)) + smoothing / O:
 * value = -sum t log(clip(a)), and a becomes dz = a - t. */
static void soft_class_gradient(real *a, double *value, real *logs, const fm_targets *targets, const ptrdiff_t *order,
                                const ptrdiff_t *partner, ptrdiff_t first_target, ptrdiff_t rows, ptrdiff_t columns) {
    const real s = (real)targets->smoothing, share = s / (real)columns, mix = partner ? (real)targets->mix : 1;
    const real own = (1 - s) * mix, other = (1 - s) * (1 - mix);
    negative_logs(logs, a, rows * columns);
    map_with(subtract, v_set(share), a, a, rows * columns);
    for (ptrdiff_t r = 0; r < rows; r++, a += columns, logs += columns) {
        const ptrdiff_t i = targets->classes[row_of(order, first_target, r)];
        const ptrdiff_t j = partner ? targets->classes[partner[r]] : i;
        value[r] = (double)(own * logs[i] + other * logs[j] + share * row_sum(logs, columns));
        a[i] -= own;
        a[j] -= other;
    }
}

/* value[r] = -log(clip(a[r, class])); a[r, class] -= subtracted. */
static void class_loss(real *a, double *value, real *picked, real subtracted, const ptrdiff_t *classes,
                       const ptrdiff_t *order, ptrdiff_t first_target, ptrdiff_t rows, ptrdiff_t columns) {
    for (ptrdiff_t r = 0; r < rows; r++) {
        real *p = a + r * columns + classes[row_of(order, first_target, r)];
        picked[r] = *p;
        *p -= subtracted;
    }
    negative_logs(picked, picked, rows);
    for (ptrdiff_t r = 0; r < rows; r++)
        value[r] = (double)picked[r];
}

/* ---- Targets that are numbers: the expressions of losses.def, over all outputs of the rows as one long vector --- */

static inline vec smooth(vec y, vec smoothing) { return (v_set(1) - smoothing) * y + v_set((real)0.5) * smoothing; }

/* y[i] = bytes[i]; y[i] = mix y[i] + rest bytes[i] */
static void read_bytes(real *y, const uint8_t *bytes, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = (real)bytes[i];
}
static void mix_bytes(real *y, const uint8_t *bytes, ptrdiff_t n, real mix, real rest) {
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = mix * y[i] + rest * (real)bytes[i];
}

/* The rows' targets, mixed (mixup) and smoothed. */
static void gather_values(real *y, const fm_targets *targets, const ptrdiff_t *order, const ptrdiff_t *partner,
                          ptrdiff_t first_target, ptrdiff_t rows, ptrdiff_t columns) {
    const real *values = targets->values;
    const vec mix = v_set((real)targets->mix), rest = v_set(1 - (real)targets->mix);
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t at = row_of(order, first_target, r) * columns;
        real *to = y + r * columns;
        if (targets->bytes) {
            read_bytes(to, targets->bytes + at, columns);
            if (partner)
                mix_bytes(to, targets->bytes + partner[r] * columns, columns, (real)targets->mix,
                          1 - (real)targets->mix);
            continue;
        }
        const real *from = values + at;
        if (columns > 4)
            memcpy(to, from, (size_t)columns * sizeof(real));
        else
            for (ptrdiff_t c = 0; c < columns; c++) /* a call of memcpy takes longer */
                to[c] = from[c];
        for (ptrdiff_t c = 0; partner && c < columns; c += V) {
            const ptrdiff_t n = min_of(V, columns - c);
            v_store_n(to + c, mix * v_load_n(to + c, n) + rest * v_load_n(values + partner[r] * columns + c, n), n);
        }
    }
    if (targets->smoothing != 0)
        map_with(smooth, v_set((real)targets->smoothing), y, y, rows * columns);
}

typedef vec loss_function(vec a, vec y, vec k);

/* a[i] = value(a[i], y[i]) */
FM_INLINE void map_values(loss_function *const value, real *a, const real *y, ptrdiff_t n, real parameter) {
    const vec k = v_set(parameter);
    for (ptrdiff_t i = 0; i < n; i += V) {
        const ptrdiff_t m = min_of(V, n - i);
        v_store_n(a + i, value(v_load_n(a + i, m), v_load_n(y + i, m), k), m);
    }
}

/* a[i], y[i] = gradient(a[i], y[i]) / divisor, value(a[i], y[i]) */
FM_INLINE void map_gradients(loss_function *const value, loss_function *const gradient, real *a, real *y, ptrdiff_t n,
                             real parameter, real divisor) {
    const vec k = v_set(parameter);
    for (ptrdiff_t i = 0; i < n; i += V) {
        const ptrdiff_t m = min_of(V, n - i);
        const vec va = v_load_n(a + i, m), vy = v_load_n(y + i, m);
        v_store_n(a + i, gradient(va, vy, k) / v_set(divisor), m);
        v_store_n(y + i, value(va, vy, k), m);
    }
}

#define LOSS_CLASS(name, value_expression, gradient_expression)
#define LOSS_VALUE(name, value_expression, gradient_expression)                                                        \
    static inline vec value_##name(vec a, vec y, vec k) {                                                              \
        const real eps = EPS;                                                                                          \
        (void)eps, (void)k;                                                                                            \
        return value_expression;                                                                                       \
    }                                                                                                                  \
    static inline vec gradient_##name(vec a, vec y, vec k) { return (void)k, gradient_expression; }                    \
    static void values_##name(real *a, const real *y, ptrdiff_t n, real parameter) {                                   \
        map_values(value_##name, a, y, n, parameter);                                                                  \
    }                                                                                                                  \
    static void gradients_##name(real *a, real *y, ptrdiff_t n, real parameter, real divisor) {                        \
        map_gradients(value_##name, gradient_##name, a, y, n, parameter, divisor);                                     \
    }
#define LOSS(name, target, output, reduction, value, gradient) LOSS_##target(name, value, gradient)
#include "losses.def"
#undef LOSS

/* ---- Losses of rows --------------------------------------------------------------------------------------------- */

#define MEAN 1
#define SUM 0
#define LOSS_ROW_CLASS(name) NULL, NULL
#define LOSS_ROW_VALUE(name) values_##name, gradients_##name
static const struct {
    void (*values)(real *a, const real *y, ptrdiff_t n, real parameter); /* NULL: the target is a class */
    void (*gradients)(real *a, real *y, ptrdiff_t n, real parameter, real divisor);
    void (*output)(void *a, ptrdiff_t rows, ptrdiff_t columns);
    int mean;
} losses[FM_N_LOSSES] = {
#define LOSS(name, target, output, reduction, ...) {LOSS_ROW_##target(name), output_##output, reduction},
#include "losses.def"
#undef LOSS
};

/* x[r, o] times the weight of its output; 0 where that is 0, also for NaN. */
static void weigh_outputs(real *x, const fm_targets *targets, const ptrdiff_t *order, const ptrdiff_t *partner,
                          ptrdiff_t first_target, ptrdiff_t rows, ptrdiff_t columns) {
    for (ptrdiff_t r = 0; r < rows; r++, x += columns) {
        const double *own = targets->output_weights + row_of(order, first_target, r) * columns;
        const double *other = partner ? targets->output_weights + partner[r] * columns : own;
        for (ptrdiff_t c = 0; c < columns; c++) {
            const real weight = (real)(partner ? fm_mixed_weight(own[c], other[c], targets->mix) : own[c]);
            x[c] = weight == 0 ? 0 : weight * x[c];
        }
    }
}

/* value[r] = sum or mean of the row's values */
static void reduce_rows(double *value, const real *values, ptrdiff_t rows, ptrdiff_t columns, real divisor) {
    for (ptrdiff_t r = 0; r < rows; r++)
        value[r] = (double)(row_sum(values + r * columns, columns) / divisor);
}

/* loss_gradient of rows whose scratch stays in the cache; P: from the first of them. */
static void loss_gradient_block(int loss, real *P, double *value, void *scratch, const fm_targets *targets,
                                const ptrdiff_t *order, const ptrdiff_t *partner, ptrdiff_t first_target,
                                ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {
    real *a = scratch, *y = a + rows * columns;
    const real divisor = losses[loss].mean ? (real)columns : 1;
    rows_from_panels(a, P, rows, columns, stride);
    losses[loss].output(a, rows, columns);
    if (losses[loss].gradients) {
        gather_values(y, targets, order, partner, first_target, rows, columns);
        losses[loss].gradients(a, y, rows * columns, (real)targets->parameter, divisor);
        if (targets->output_weights) {
            weigh_outputs(a, targets, order, partner, first_target, rows, columns);
            weigh_outputs(y, targets, order, partner, first_target, rows, columns);
        }
        reduce_rows(value, y, rows, columns, divisor);
    } else if (partner || targets->smoothing != 0)
        soft_class_gradient(a, value, y, targets, order, partner, first_target, rows, columns);
    else
        class_loss(a, value, y, 1, targets->classes, order, first_target, rows, columns);
    rows_to_panels(P, a, rows, columns, stride, targets, order, partner, first_target);
}

/* Outputs in a block of rows: its scratch of twice as many reals stays in L2. */
#define LOSS_BLOCK 8192

static void loss_gradient(int loss, void *z, double *value, void *scratch, const fm_targets *targets,
                          const ptrdiff_t *order, const ptrdiff_t *partner, ptrdiff_t first_target, ptrdiff_t first,
                          ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {
    const ptrdiff_t most = columns < LOSS_BLOCK ? LOSS_BLOCK / columns : 1;
    for (ptrdiff_t r = 0; r < rows; r += most)
        loss_gradient_block(loss, (real *)z + (first + r) * NR, value + r, scratch, targets, order ? order + r : NULL,
                            partner ? partner + r : NULL, first_target + r, min_of(most, rows - r), columns, stride);
}

static void loss_value(int loss, void *a, double *value, void *scratch, const fm_targets *targets,
                       ptrdiff_t first_target, ptrdiff_t rows, ptrdiff_t columns) {
    const real divisor = losses[loss].mean ? (real)columns : 1;
    if (losses[loss].values) {
        const real *y = (const real *)targets->values + first_target * columns;
        if (targets->bytes) {
            read_bytes(scratch, targets->bytes + first_target * columns, rows * columns);
            y = scratch;
        }
        losses[loss].values(a, y, rows * columns, (real)targets->parameter);
        if (targets->output_weights)
            weigh_outputs(a, targets, NULL, NULL, first_target, rows, columns);
        reduce_rows(value, a, rows, columns, divisor);
    } else
        class_loss(a, value, scratch, 0, targets->classes, NULL, first_target, rows, columns);
}
#endif
