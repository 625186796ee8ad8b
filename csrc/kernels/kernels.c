/* kernels.c: every kernel of fastmlp.h for one instruction set and one element type. Compiled once per row of isa.def
 * and element type, with FM_ISA, FM_BITS and FM_VECTOR_BYTES defined by the build; exports one symbol, the table.
 */
#ifdef FM_PREDICT_ONLY /* the static library of csrc/predict leaves out what a row's prediction does not need */
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include "codes.h"
#include "fastmlp.h"
#include "gemm.h"
#include "losses.h"
#include "members.h"
#include "random.h"
#include "sparse.h"
#include "update.h"
#include "vector.h"
#include "vmath.h"

#define FM_PASTE_(a, b, c, d) a##b##c##d
#define FM_PASTE(a, b, c, d) FM_PASTE_(a, b, c, d)
#define TABLE FM_PASTE(fm_kernels_, FM_ISA, _, FM_BITS)
extern const fm_kernels TABLE;

/* ---- Moving data in and out of panels -------------------------------------------------------------------------- */

#define DATA float
#define KIND(function) function##_float
#include "gather_template.h"
#define DATA double
#define KIND(function) function##_double
#include "gather_template.h"

static void gather(void *P, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,
                   ptrdiff_t stride) {
    if (X->is_sparse)
        CSR_KIND(gather_csr, X)(P, X, order, first, rows, stride);
    else
        (X->is_double ? gather_dense_double : gather_dense_float)(P, X, order, first, rows, stride);
}

static void augment(void *P_, const void *Q_, double mix, const fm_augment *settings, const fm_rng *rng,
                    ptrdiff_t first, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {
    for (ptrdiff_t column = 0; column < columns; column += NR) {
        real *P = (real *)P_ + column / NR * stride;
        const real *Q = (const real *)Q_ + column / NR * stride;
        const vec own = v_set((real)mix), other = v_set(1 - (real)mix);
        for (ptrdiff_t i = 0; Q_ && i < rows * NR; i += V)
            v_store(P + i, own * v_load(P + i) + other * v_load(Q + i));
        if (settings->noise != 0)
            add_noise(P, rng, first, rows, column, FM_STREAM_NOISE, (real)settings->noise);
        if (settings->mask != 0)
            draw_mask(P, rng, first, rows, column, FM_STREAM_MASK, settings->mask, 1, 1);
        if (settings->dropout != 0)
            draw_mask(P, rng, first, rows, column, 0, settings->dropout, (real)(1 / (1 - settings->dropout)), 1);
    }
}

static void scatter(void *M, const void *P, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {
    rows_from_panels(M, P, rows, columns, stride);
}

/* ---- Activations ------------------------------------------------------------------------------------------------ */

/* d[i] *= slope(u[i]) for i < n. */
FM_INLINE void multiply_by(vec (*const slope)(vec u), real *d, const real *u, ptrdiff_t n) {
    for (; n >= V; n -= V, d += V, u += V)
        v_store(d, v_load(d) * slope(v_load(u)));
    if (n > 0)
        v_store_n(d, v_load_n(d, n) * slope(v_load_n(u, n)), n);
}

#define VARIABLE_OUTPUT y
#define VARIABLE_INPUT x
#define ACTIVATION(name, argument, forward, derivative)                                                                \
    static inline vec f_##name(vec x) { return forward; }                                                              \
    static inline vec slope_##name(vec VARIABLE_##argument) {                                                          \
        (void)VARIABLE_##argument;                                                                                     \
        return derivative;                                                                                             \
    }                                                                                                                  \
    static void forward_##name(void *y, const void *x, ptrdiff_t n) { map(f_##name, y, x, n); }                        \
    static void derivative_##name(void *d, const void *x_or_y, ptrdiff_t n) { multiply_by(slope_##name, d, x_or_y, n); }
#include "activations.def"
#undef ACTIVATION

/* ---- Layers ----------------------------------------------------------------------------------------------------- */

/* The bias of the product; with batch normalisation, b is added after it. */
static const real *gemm_bias(const fm_layer *l) { return l->norm || l->scale ? NULL : l->b; }

/* Dropout's factors of a panel's rows, member by member. */
static void draw_dropout(const fm_layer *l, ptrdiff_t p, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride) {
    const fm_rng *rng = l->rng;
    real *mask = (real *)l->dropout_mask + p * stride;
    for (ptrdiff_t n; rows > 0; first += n, rows -= n) {
        const ptrdiff_t m = first / rng->rows;
        n = min_of(rows, (m + 1) * rng->rows - first);
        draw_mask(mask + first * NR, rng, first + m * (rng->batch - rng->rows), n, p * NR, l->stream, l->dropout_rate,
                  (real)(1 / (1 - l->dropout_rate)), 0);
    }
}

/* out = (y + x) mask over a panel's rows. */
static void apply_residual_dropout(const fm_layer *l, ptrdiff_t p, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride) {
    if (!l->residual && !l->dropout_mask)
        return;
    const ptrdiff_t at = p * stride + first * NR;
    const real *y = (const real *)l->y + at, *x = l->residual ? (const real *)l->x + at : NULL;
    real *out = (real *)(l->out ? l->out : l->y) + at, *mask = l->dropout_mask ? (real *)l->dropout_mask + at : NULL;
    if (mask)
        draw_dropout(l, p, first, rows, stride);
    for (ptrdiff_t i = 0; i < rows * NR; i += V) {
        vec v = v_load(y + i);
        if (x)
            v += v_load(x + i);
        v_store(out + i, mask ? v * v_load(mask + i) : v);
    }
}

/* From the product to the layer's output, over a panel's rows, which are still in L1. */
static void activate(const fm_layer *l, ptrdiff_t p, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride) {
    const ptrdiff_t at = p * stride + first * NR;
    real *y = (real *)l->y + at, *z = l->z ? (real *)l->z + at : y;
    if (l->norm && !l->scale)
        return;
    if (l->scale) {
        const real *scale = (const real *)l->scale + p * NR, *shift = (const real *)l->shift + p * NR;
        const vec s[2] = {v_load(scale), v_load(scale + V)}, t[2] = {v_load(shift), v_load(shift + V)};
        for (ptrdiff_t r = 0; r < rows; r++)
            for (int j = 0; j < 2; j++)
                v_store(z + r * NR + j * V, v_fma(v_load(z + r * NR + j * V), s[j], t[j]));
    }
    if (l->activation != FM_ACTIVATION_identity || z != y)
        TABLE.activations[l->activation].forward(y, z, rows * NR);
    apply_residual_dropout(l, p, first, rows, stride);
}

static void forward(const fm_layer *l, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride) {
    const real *b = gemm_bias(l), *x = (const real *)l->x + first * NR;
    const ptrdiff_t together = panels_together(rows, l->fan_in);
    p1 = min_of(p1, (l->fan_out + NR - 1) / NR);
    for (ptrdiff_t q = p0, n; q < p1; q += n) {
        n = min_of(together, p1 - q);
        gemm_nn((real *)(l->z ? l->z : l->y) + q * stride + first * NR, x, (const real *)l->W + q * l->fan_in * NR,
                b ? b + q * NR : NULL, rows, l->fan_in, stride, l->fan_out - q * NR, n);
        for (ptrdiff_t p = q; p < q + n; p++)
            activate(l, p, first, rows, stride);
    }
}

static void forward_csr(const fm_layer *l, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first_row,
                        ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride) {
    const ptrdiff_t panels = (l->fan_out + NR - 1) / NR, w_stride = l->fan_in * NR;
    const real *b = gemm_bias(l);
    for (ptrdiff_t p = 0, n; p < panels; p += n) {
        n = min_of(2, panels - p);
        real *z = (real *)(l->z ? l->z : l->y) + p * stride + first * NR;
        CSR_KIND(gemm_csr, X)(z, (const real *)l->W + p * w_stride, b ? b + p * NR : NULL, X, order, first_row, rows,
                              stride, w_stride, (int)n);
        for (ptrdiff_t j = 0; j < n; j++)
            activate(l, p + j, first, rows, stride);
    }
}

static void forward_csr_unpacked(const fm_layer *l, const fm_rows *X, ptrdiff_t first_row, ptrdiff_t p0, ptrdiff_t p1,
                                 ptrdiff_t rows, ptrdiff_t stride) {
    const real *b = gemm_bias(l);
    for (ptrdiff_t p = p0, n; p < p1; p += n) {
        n = p + 2 <= p1 && (p + 2) * NR <= l->fan_out ? 2 : 1; /* of two, both are full */
        CSR_KIND(gemm_csr_unpacked, X)((real *)l->y + p * stride, (const real *)l->W + p * NR, b ? b + p * NR : NULL, X,
                                       first_row, rows, stride, l->fan_out, min_of(NR, l->fan_out - p * NR), (int)n);
        for (ptrdiff_t j = 0; j < n; j++)
            activate(l, p + j, 0, rows, stride);
    }
}

static void forward_codes(const fm_layer *l, const void *C, const fm_codes *X, const ptrdiff_t *order,
                          ptrdiff_t first_row, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride) {
    const ptrdiff_t panels = (l->fan_out + NR - 1) / NR, w_stride = l->fan_in * NR;
    const ptrdiff_t c_stride = X->offset[X->n_numbers] * NR;
    const real *b = gemm_bias(l);
    if (l->embedding) {
        CODES_KIND(embed, X)((real *)(l->z ? l->z : l->y) + first * NR, l, C, X, order, first_row, 0, panels, rows,
                             stride, NR, w_stride, c_stride);
        for (ptrdiff_t p = 0; p < panels; p++)
            activate(l, p, first, rows, stride);
        return;
    }
    for (ptrdiff_t p = 0, n; p < panels; p += n) {
        n = min_of(2, panels - p);
        real *z = (real *)(l->z ? l->z : l->y) + p * stride + first * NR;
        CODES_KIND(gemm_codes, X)(z, (const real *)l->W + p * w_stride, (const real *)C + p * c_stride,
                                  b ? b + p * NR : NULL, X, order, first_row, rows, stride, w_stride, c_stride, (int)n);
        for (ptrdiff_t j = 0; j < n; j++)
            activate(l, p + j, first, rows, stride);
    }
}

static void forward_codes_unpacked(const fm_layer *l, const void *C, const fm_codes *X, ptrdiff_t first_row,
                                   ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t rows, ptrdiff_t stride) {
    const real *b = gemm_bias(l);
    if (l->embedding) {
        CODES_KIND(embed, X)(l->y, l, C, X, NULL, first_row, p0, p1, rows, stride, l->embedding, NR, NR);
        for (ptrdiff_t p = p0; p < p1; p++)
            activate(l, p, 0, rows, stride);
        return;
    }
    for (ptrdiff_t p = p0, n; p < p1; p += n) {
        n = p + 2 <= p1 && (p + 2) * NR <= l->fan_out ? 2 : 1; /* of two, both are full */
        CODES_KIND(gemm_codes_unpacked, X)((real *)l->y + p * stride, (const real *)l->W + p * NR,
                                           C ? (const real *)C + p * NR : NULL, b ? b + p * NR : NULL, X, first_row,
                                           rows, stride, l->fan_out, min_of(NR, l->fan_out - p * NR), (int)n);
        for (ptrdiff_t j = 0; j < n; j++)
            activate(l, p + j, 0, rows, stride);
    }
}

/* W is packed into panels a chunk at a time, just before its use: for few rows, cheaper than packing all of it. */
static void forward_unpacked(const fm_layer *l, void *scratch, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t rows,
                             ptrdiff_t stride) {
    real *chunk = scratch, *bias = chunk + KC * NR;
    const real *b = gemm_bias(l);
    const ptrdiff_t together = panels_together(rows, l->fan_in);
    for (ptrdiff_t q = p0, end; q < p1; q = end) {
        end = min_of(q + together, p1);
        for (ptrdiff_t k0 = 0; k0 < l->fan_in || k0 == 0; k0 += KC)
            for (ptrdiff_t p = q; p < end; p++) {
                const ptrdiff_t width = min_of(NR, l->fan_out - p * NR), low = min_of(width, V), high = width - low;
                const ptrdiff_t kc = min_of(KC, l->fan_in - k0);
                const real *W = (const real *)l->W + k0 * l->fan_out + p * NR;
                v_store(bias, b ? v_load_n(b + p * NR, low) : v_set(0));
                v_store(bias + V, b ? v_load_n(b + p * NR + V, high) : v_set(0));
                for (ptrdiff_t i = 0; i < kc; i++, W += l->fan_out) {
                    __builtin_prefetch(W + 8 * l->fan_out);
                    if (sizeof(real) * NR > 64)
                        __builtin_prefetch(W + 8 * l->fan_out + V);
                    v_store(chunk + i * NR, low == V ? v_load(W) : v_load_n(W, low));
                    v_store(chunk + i * NR + V, high == V ? v_load(W + V) : v_load_n(W + V, high));
                }
                gemm_nn_chunk((real *)l->y + p * stride, (const real *)l->x + k0 / NR * stride, chunk, bias, rows,
                              k0 > 0, kc, stride, panel_vectors(width));
            }
        for (ptrdiff_t p = q; p < end; p++)
            activate(l, p, 0, rows, stride);
    }
}

static void forward_members(const fm_layer *l, const fm_members *M, void *scratch, ptrdiff_t first, ptrdiff_t rows,
                            ptrdiff_t stride) {
    for (ptrdiff_t p = 0; p * NR < l->fan_out; p++) {
        member_products(l, M, scratch, p, first, rows, stride);
        for (ptrdiff_t m = 0; m < M->n; m++)
            activate(l, p, m * M->rows + first, rows, stride);
    }
}

/* P[i] *= by[i], or by[i % NR] if one_row. */
static void multiply(real *P, const real *by, ptrdiff_t rows, int one_row) {
    for (ptrdiff_t i = 0; i < rows * NR; i += V)
        v_store(P + i, v_load(P + i) * v_load(by + (one_row ? i % NR : i)));
}

/* dz *= f' for rows of panel p of layer l. */
static void scale_by_activation_gradient(const fm_layer *l, real *dz, ptrdiff_t at, ptrdiff_t rows) {
    if (l->activation != FM_ACTIVATION_identity)
        TABLE.activations[l->activation].derivative(dz, (const real *)(l->z ? l->z : l->y) + at, rows * NR);
}

/* From the product to below's dz, over a panel's rows. */
static void backward_activation(const fm_layer *l, const fm_layer *below, ptrdiff_t p, ptrdiff_t first, ptrdiff_t rows,
                                ptrdiff_t stride) {
    const ptrdiff_t at = p * stride + first * NR;
    real *dz = (real *)below->dz + at;
    if (l->residual)
        for (ptrdiff_t i = 0; i < rows * NR; i += V)
            v_store(dz + i, v_load(dz + i) + v_load((const real *)l->dout + at + i));
    if (below->dropout_mask)
        multiply(dz, (const real *)below->dropout_mask + at, rows, 0);
    if (below->residual)
        memcpy((real *)below->dout + at, dz, (size_t)(rows * NR) * sizeof(real));
    if (below->norm && !below->scale)
        return;
    scale_by_activation_gradient(below, dz, at, rows);
    if (below->scale)
        multiply(dz, (const real *)below->scale + p * NR, rows, 1);
}

/* W is transposed a chunk at a time, just before its use. */
static void backward(const fm_layer *l, const fm_layer *below, void *chunk, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t first,
                     ptrdiff_t rows, ptrdiff_t stride) {
    const ptrdiff_t together = panels_together(rows, l->fan_out);
    p1 = min_of(p1, (l->fan_in + NR - 1) / NR);
    for (ptrdiff_t q = p0, end; q < p1; q = end) {
        end = min_of(q + together, p1);
        for (ptrdiff_t o0 = 0; o0 < l->fan_out || o0 == 0; o0 += KC)
            for (ptrdiff_t p = q; p < end; p++) {
                const ptrdiff_t kc = min_of(KC, l->fan_out - o0), width = min_of(NR, l->fan_in - p * NR);
                transpose_chunk(chunk, (const real *)l->W + o0 * l->fan_in + p * NR * NR, l->fan_in, width, kc);
                gemm_nn_chunk((real *)below->dz + p * stride + first * NR,
                              (const real *)l->dz + o0 / NR * stride + first * NR, chunk, NULL, rows, o0 > 0, kc,
                              stride, panel_vectors(width));
            }
        for (ptrdiff_t p = q; p < end; p++)
            backward_activation(l, below, p, first, rows, stride);
    }
}

static void backward_members(const fm_layer *l, const fm_layer *below, const fm_members *M, const void *sums,
                             ptrdiff_t sums_stride, void *chunk, ptrdiff_t first, ptrdiff_t rows) {
    for (ptrdiff_t p = 0; p * NR < l->fan_in; p++) {
        backward_product(l, below, M, sums, sums_stride, chunk, p, first, rows);
        backward_activation(l, below, p, first, rows, M->x_stride);
    }
}

/* ---- Batch normalisation ---------------------------------------------------------------------------------------- */

/* Sum of term(row of A, row of B, shift) over the rows, in four chains. */
FM_INLINE vec sum_rows(vec (*const term)(vec a, vec b, vec shift), const real *A, const real *B, vec shift,
                       ptrdiff_t rows) {
    vec chain[4] = {v_set(0), v_set(0), v_set(0), v_set(0)};
    ptrdiff_t r = 0;
    for (; r + 4 <= rows; r += 4)
        for (int i = 0; i < 4; i++)
            chain[i] += term(v_load(A + (r + i) * NR), v_load(B + (r + i) * NR), shift);
    for (; r < rows; r++)
        chain[r % 4] += term(v_load(A + r * NR), v_load(B + r * NR), shift);
    return (chain[0] + chain[1]) + (chain[2] + chain[3]);
}
static inline vec value_term(vec a, vec b, vec shift) { return (void)b, (void)shift, a; }
static inline vec deviation_term(vec a, vec b, vec mean) { return (void)b, (a - mean) * (a - mean); }
static inline vec product_term(vec a, vec b, vec shift) { return (void)shift, a * b; }

static void batch_norm_forward(const fm_layer *l, ptrdiff_t p, ptrdiff_t batch, ptrdiff_t stride) {
    const fm_batch_norm *n = l->norm;
    const vec count = v_set((real)batch), unbiased = v_set(batch > 1 ? (real)batch / (real)(batch - 1) : 1);
    const vec epsilon = v_set((real)FM_NORM_EPSILON);
    for (ptrdiff_t c = 0; c < NR; c += V) {
        real *z = (real *)l->z + p * stride + c, *y = (real *)l->y + p * stride + c;
        const ptrdiff_t at = p * NR + c;
        const vec scale = v_load((const real *)n->scale + at), b = v_load((const real *)l->b + at);
        const vec mean = sum_rows(value_term, z, z, v_set(0), batch) / count;
        const vec variance = sum_rows(deviation_term, z, z, mean, batch) / count;
        const vec slope = v_set(1) / v_sqrt(variance + epsilon);
        v_store((real *)n->inverse_std + at, slope);
        v_store((real *)n->batch_mean + at, mean);
        v_store((real *)n->batch_variance + at, variance * unbiased);
        for (ptrdiff_t row = 0; row < batch; row++) {
            const vec xhat = (v_load(z + row * NR) - mean) * slope;
            v_store(z + row * NR, xhat);
            v_store(y + row * NR, v_fma(scale, xhat, b));
        }
    }
    if (l->activation != FM_ACTIVATION_identity)
        TABLE.activations[l->activation].forward((real *)l->y + p * stride, (const real *)l->y + p * stride,
                                                 batch * NR);
    apply_residual_dropout(l, p, 0, batch, stride);
}

static void update_running_statistics(const fm_layer *l, ptrdiff_t p, const fm_hyper *hyper) {
    const fm_batch_norm *n = l->norm;
    const vec momentum = v_set((real)hyper->norm_momentum);
    real *mean = (real *)n->running_mean + p * NR, *variance = (real *)n->running_variance + p * NR;
    const real *batch_mean = (const real *)n->batch_mean + p * NR,
               *batch_variance = (const real *)n->batch_variance + p * NR;
    for (ptrdiff_t c = 0; c < NR; c += V) {
        v_store(mean + c, v_load(mean + c) + momentum * (v_load(batch_mean + c) - v_load(mean + c)));
        v_store(variance + c, v_load(variance + c) + momentum * (v_load(batch_variance + c) - v_load(variance + c)));
    }
}

static void batch_norm_backward(const fm_layer *l, ptrdiff_t p, ptrdiff_t batch, ptrdiff_t stride) {
    enum { ROWS = 32 }; /* at a time, for which u is computed again if the derivative is a function of u */
    const fm_batch_norm *n = l->norm;
    const vec count = v_set((real)batch);
    real *const dz_panel = (real *)l->dz + p * stride;
    if (TABLE.activations[l->activation].from_input)
        for (ptrdiff_t first = 0; first < batch; first += ROWS) {
            const ptrdiff_t rows = min_of(ROWS, batch - first);
            real u[ROWS * NR];
            for (ptrdiff_t i = 0; i < rows * NR; i += V) {
                const ptrdiff_t at = p * NR + i % NR;
                v_store(u + i, v_fma(v_load((const real *)n->scale + at),
                                     v_load((const real *)l->z + p * stride + first * NR + i),
                                     v_load((const real *)l->b + at)));
            }
            TABLE.activations[l->activation].derivative(dz_panel + first * NR, u, rows * NR);
        }
    else if (l->activation != FM_ACTIVATION_identity)
        TABLE.activations[l->activation].derivative(dz_panel, (const real *)l->y + p * stride, batch * NR);
    for (ptrdiff_t c = 0; c < NR; c += V) {
        const real *xhat = (const real *)l->z + p * stride + c;
        real *dz = dz_panel + c;
        const ptrdiff_t at = p * NR + c;
        const vec d_b = sum_rows(value_term, dz, dz, v_set(0), batch);
        const vec d_scale = sum_rows(product_term, dz, xhat, v_set(0), batch);
        v_store((real *)n->d_b + at, d_b);
        v_store((real *)n->d_scale + at, d_scale);
        const vec factor = v_load((const real *)n->scale + at) * v_load((const real *)n->inverse_std + at);
        const vec mean_b = d_b / count, mean_scale = d_scale / count;
        for (ptrdiff_t row = 0; row < batch; row++)
            v_store(dz + row * NR, factor * (v_load(dz + row * NR) - mean_b - v_load(xhat + row * NR) * mean_scale));
    }
}

static void fold_batch_norm(void *scale, void *shift, const void *gamma, const void *b, const void *mean,
                            const void *variance, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i += V) {
        const ptrdiff_t m = min_of(V, n - i);
        const vec root = v_sqrt(v_load_n((const real *)variance + i, m) + v_set((real)FM_NORM_EPSILON));
        const vec s = v_load_n((const real *)gamma + i, m) / root;
        v_store_n((real *)scale + i, s, m);
        v_store_n((real *)shift + i, v_load_n((const real *)b + i, m) - v_load_n((const real *)mean + i, m) * s, m);
    }
}

/* ---- Weights ---------------------------------------------------------------------------------------------------- */

static void update(const fm_layer *l, void *G, double *penalty, ptrdiff_t i0, ptrdiff_t n, ptrdiff_t p, ptrdiff_t batch,
                   ptrdiff_t stride, int accumulate, int rule, const fm_hyper *hyper) {
    const ptrdiff_t at = (p * l->fan_in + i0) * NR;
    const ptrdiff_t columns = (l->embedding ? l->embedding : l->fan_out) - p * NR;
    real *wanted[FM_MAX_STATE + 1] = {(real *)l->W + at}, *W = wanted[0], **state = wanted + 1;
    int n_wanted = rule >= 0;
    for (int s = 0; s < FM_MAX_STATE && l->W_state[s]; s++) {
        state[s] = (real *)l->W_state[s] + at;
        n_wanted += rule >= 0;
    }
    gemm_tn(G, (const real *)l->x + i0 / NR * stride, (const real *)l->dz + p * stride, accumulate, n, batch, stride,
            columns, wanted, n_wanted);
    if (rule < 0)
        return;
    rules[rule](W, state, G, penalty, n, panel_vectors(columns), hyper->l1, hyper->l2, hyper);
}

/* The rule for panel p of a vector, without penalty. */
static void update_vector(void *w, void *const w_state[], const real *G, ptrdiff_t p, int rule, const fm_hyper *hyper) {
    real *state[FM_MAX_STATE];
    for (int s = 0; s < FM_MAX_STATE; s++)
        state[s] = w_state[s] ? (real *)w_state[s] + p * NR : NULL;
    if (rule >= 0)
        rules[rule]((real *)w + p * NR, state, G, NULL, 1, 2, 0, 0, hyper);
}

static void update_bias(const fm_layer *l, void *G, ptrdiff_t p, ptrdiff_t batch, ptrdiff_t stride, int accumulate,
                        int rule, const fm_hyper *hyper) {
    real *sum = G;
    const real *dz = (const real *)l->dz + p * stride;
    vec low = accumulate ? v_load(sum) : v_set(0), high = accumulate ? v_load(sum + V) : v_set(0);
    if (l->norm) {
        low = v_load((const real *)l->norm->d_b + p * NR);
        high = v_load((const real *)l->norm->d_b + p * NR + V);
        batch = 0;
    }
    for (ptrdiff_t r = 0; r < batch; r++, dz += NR) {
        low += v_load(dz);
        high += v_load(dz + V);
    }
    v_store(sum, low);
    v_store(sum + V, high);
    update_vector(l->b, l->b_state, sum, p, rule, hyper);
}

static void update_scale(const fm_layer *l, void *G, ptrdiff_t p, int rule, const fm_hyper *hyper) {
    memcpy(G, (const real *)l->norm->d_scale + p * NR, (size_t)NR * sizeof(real));
    update_vector(l->norm->scale, l->norm->scale_state, G, p, rule, hyper);
}

static void scaling_gradient(const fm_layer *l, void *G_, void *ds_, const void *s_, ptrdiff_t i0, ptrdiff_t n) {
    enum { CHAINS = 64 / sizeof(real), VECTORS = CHAINS / V }; /* the same chains for every width of a vector */
    const ptrdiff_t vectors = (l->fan_out + V - 1) / V;
    for (ptrdiff_t r = 0; r < n; r++) {
        const vec s = v_set(((const real *)s_)[r]);
        real chain[CHAINS];
        vec sum[VECTORS];
        for (int c = 0; c < VECTORS; c++)
            sum[c] = v_set(0);
        for (ptrdiff_t v = 0; v < vectors; v++) {
            const ptrdiff_t p = v * V / NR, c = v * V % NR;
            real *g = (real *)G_ + (p * FM_BLOCK_ROWS + r) * NR + c;
            const real *w = (const real *)l->W + (p * l->fan_in + i0 + r) * NR + c;
            const ptrdiff_t columns = min_of(V, l->fan_out - v * V); /* what pads a panel may be any number */
            sum[v % VECTORS] = v_fma(v_load_n(g, columns), v_load_n(w, columns), sum[v % VECTORS]);
            v_store(g, s * v_load(g));
        }
        for (int c = 0; c < VECTORS; c++)
            v_store(chain + c * V, sum[c]);
        for (int half = CHAINS / 2; half > 0; half /= 2)
            for (int c = 0; c < half; c++)
                chain[c] += chain[c + half];
        ((real *)ds_)[r] = chain[0];
    }
}

static void scale_rows(const fm_layer *l, void *V_, const void *s_, ptrdiff_t i0, ptrdiff_t n) {
    for (ptrdiff_t p = 0; p * NR < l->fan_out; p++)
        for (ptrdiff_t r = 0; r < n; r++) {
            const ptrdiff_t at = (p * l->fan_in + i0 + r) * NR;
            const vec s = v_set(((const real *)s_)[r]);
            for (ptrdiff_t c = 0; c < NR; c += V)
                v_store((real *)V_ + at + c, s * v_load((const real *)l->W + at + c));
        }
}

/* In double: the square of a large float overflows, and clipping is for large gradients. */
static void sum_squared_gradient(const fm_layer *l, const void *G_, double *sum, ptrdiff_t i0, ptrdiff_t n, ptrdiff_t p,
                                 const fm_hyper *h) {
    const real *G = G_, *W = (const real *)l->W + (p * l->fan_in + i0) * NR;
    const vec l1 = v_set((real)h->l1), l2 = v_set((real)h->l2), divide = v_set((real)(1 / h->weight_sum));
    real lanes[NR];
    memset(sum, 0, (size_t)NR * sizeof(*sum));
    for (ptrdiff_t r = 0; r < (n ? n : 1); r++) {
        for (ptrdiff_t c = 0; c < NR; c += V) {
            vec g = v_load(G + r * NR + c);
            if (n) {
                const vec w = v_load(W + r * NR + c);
                g = (g + l2 * w) + l1 * v_sign(w);
            }
            v_store(lanes + c, g * divide);
        }
        for (ptrdiff_t c = 0; c < NR; c++)
            sum[c] += (double)lanes[c] * (double)lanes[c];
    }
}

/* Beyond this many columns, gemv_wide is faster. */
#define GEMV_WIDE_COLUMNS 1024

/* y = b + x W, eight rows of W at a time in the order of memory, with y in L1. Taking W by columns, as below, would
 * touch a new page at every step if its rows are long, which no prefetcher follows. */
static void gemv_wide(real *y, const real *x, const real *W, const real *b, ptrdiff_t fan_in, ptrdiff_t fan_out) {
    for (ptrdiff_t i = 0; i < fan_in || i == 0; i += 8) {
        const ptrdiff_t n = min_of(8, fan_in - i);
        const real *from = i ? y : b, *w = W + i * fan_out; /* b = NULL: zeros */
        ptrdiff_t o = 0;
        if (n == 8)
            for (; o + V <= fan_out; o += V) {
                vec sum = from ? v_load(from + o) : v_set(0);
                for (ptrdiff_t j = 0; j < 8; j++)
                    sum = v_fma(v_set(x[i + j]), v_load(w + j * fan_out + o), sum);
                v_store(y + o, sum);
            }
        for (; o < fan_out; o += V) {
            const ptrdiff_t width = min_of(V, fan_out - o);
            vec sum = from ? v_load_n(from + o, width) : v_set(0);
            for (ptrdiff_t j = 0; j < n; j++)
                sum = v_fma(v_set(x[i + j]), v_load_n(w + j * fan_out + o, width), sum);
            v_store_n(y + o, sum, width);
        }
    }
}

/* Distance of the prefetch, in rows of W: hardware prefetchers follow the pieces of rows less well. */
#define GEMV_PREFETCH_ROWS 12

/* Outputs from o on, n vectors at a time; returns the first output not computed. */
FM_INLINE ptrdiff_t gemv_block(real *y, const real *x, const real *W, const real *b, ptrdiff_t fan_in,
                               ptrdiff_t fan_out, ptrdiff_t o, const int n) {
    for (; o + n * V <= fan_out; o += n * V) {
        vec sum[8];
        for (int j = 0; j < n; j++)
            sum[j] = b ? v_load(b + o + j * V) : v_set(0);
        const real *w = W + o;
        for (ptrdiff_t i = 0; i < fan_in; i++, w += fan_out) {
            for (int j = 0; j < n * V; j += 64 / (int)sizeof(real))
                __builtin_prefetch(w + GEMV_PREFETCH_ROWS * fan_out + j);
            for (int j = 0; j < n; j++)
                sum[j] = v_fma(v_set(x[i]), v_load(w + j * V), sum[j]);
        }
        for (int j = 0; j < n; j++)
            v_store(y + o + j * V, sum[j]);
    }
    return o;
}

/* Most inputs of which those that are not 0 are listed. */
#define GEMV_LISTED_ROWS 1024

/* gemv_block with the listed rows of W only. */
FM_INLINE ptrdiff_t gemv_listed(real *y, const real *x, const real *W, const real *b, const int32_t *rows,
                                ptrdiff_t n_rows, ptrdiff_t fan_out, ptrdiff_t o, const int n) {
    for (; o + n * V <= fan_out; o += n * V) {
        vec sum[8];
        for (int j = 0; j < n; j++)
            sum[j] = b ? v_load(b + o + j * V) : v_set(0);
        for (ptrdiff_t e = 0; e < n_rows; e++) {
            const real *w = W + rows[e] * fan_out + o;
            const real *next = W + rows[min_of(e + GEMV_PREFETCH_ROWS, n_rows - 1)] * fan_out + o;
            for (int j = 0; j < n * V; j += 64 / (int)sizeof(real))
                __builtin_prefetch(next + j);
            for (int j = 0; j < n; j++)
                sum[j] = v_fma(v_set(x[rows[e]]), v_load(w + j * V), sum[j]);
        }
        for (int j = 0; j < n; j++)
            v_store(y + o + j * V, sum[j]);
    }
    return o;
}

/* The first outputs of gemv, without those rows of W whose input is 0, if there are enough of these: of relu's outputs,
 * half are. W must be finite. Returns the first output not computed. */
static ptrdiff_t gemv_without_zeros(real *y, const real *x, const real *W, const real *b, ptrdiff_t fan_in,
                                    ptrdiff_t fan_out) {
    int32_t rows[GEMV_LISTED_ROWS];
    ptrdiff_t n_rows = 0;
    if (fan_in > GEMV_LISTED_ROWS || fan_out < 4 * V || fan_out > GEMV_WIDE_COLUMNS)
        return 0;
    for (ptrdiff_t i = 0; i < fan_in; i++) {
        rows[n_rows] = (int32_t)i;
        n_rows += x[i] != 0;
    }
    if (n_rows == 0 || 4 * n_rows > 3 * fan_in)
        return 0;
    const ptrdiff_t o = gemv_listed(y, x, W, b, rows, n_rows, fan_out, 0, 8);
    return gemv_listed(y, x, W, b, rows, n_rows, fan_out, o, 4);
}

/* Outputs of y = b + x W from o on. If W's row ends inside a vector, the load runs on into the next row, except in W's
 * last rows. */
static void gemv_from(ptrdiff_t o, real *y, const real *x, const real *W, const real *b, ptrdiff_t fan_in,
                      ptrdiff_t fan_out) {
    if (fan_out > GEMV_WIDE_COLUMNS) {
        gemv_wide(y, x, W, b, fan_in, fan_out);
        o = fan_out;
    }
    o = gemv_block(y, x, W, b, fan_in, fan_out, o, 8);
    o = gemv_block(y, x, W, b, fan_in, fan_out, o, 4);
    o = gemv_block(y, x, W, b, fan_in, fan_out, o, 2);
    o = gemv_block(y, x, W, b, fan_in, fan_out, o, 1);
    if (o < fan_out) {
        const ptrdiff_t rest = fan_out - o, end = fan_in * fan_out;
        vec sum = b ? v_load_n(b + o, rest) : v_set(0);
        for (ptrdiff_t i = 0, at = o; i < fan_in; i++, at += fan_out)
            sum = v_fma(v_set(x[i]), at + V <= end ? v_load(W + at) : v_load_n(W + at, rest), sum);
        v_store_n(y + o, sum, rest);
    }
}

static void gemv(real *y, const real *x, const real *W, const real *b, ptrdiff_t fan_in, ptrdiff_t fan_out) {
    gemv_from(0, y, x, W, b, fan_in, fan_out);
}

static void forward_row_members(const fm_layer *l, const fm_members *M, void *products_, void *y_, const void *x) {
    real *products = products_;
    const ptrdiff_t O = l->fan_out, apart = (O + NR - 1) / NR * NR;
    ptrdiff_t begun = 0; /* patterns */
    for (ptrdiff_t f = 0; f < M->n_features; f++) {
        const ptrdiff_t g = M->pattern[f], c = f * M->width;
        real *product = products + g * apart;
        gemv(product, (const real *)x + c, (const real *)l->W + c * O, g < begun ? product : NULL, M->width, O);
        begun += g == begun;
    }
    for (ptrdiff_t m = 0; m < M->n; m++) {
        const real *S = (const real *)M->scalings + m * M->n_features;
        real *y = (real *)y_ + m * apart;
        for (ptrdiff_t o = 0; o < O; o += V) {
            const ptrdiff_t n = min_of(V, O - o);
            vec sum = v_load_n((const real *)l->b + o, n);
            for (ptrdiff_t g = 0; g < M->n_patterns; g++)
                sum = v_fma(v_set(S[g]), v_load_n(products + g * apart + o, n), sum);
            v_store_n(y + o, sum, n);
        }
        if (l->activation != FM_ACTIVATION_identity)
            TABLE.activations[l->activation].forward(y, y, O);
    }
}

static void forward_row(const fm_layer *l, void *y_, const void *x_) {
    real *y = y_;
    const real *x = x_;
    const real *b = gemm_bias(l);
    const ptrdiff_t done = l->is_finite ? gemv_without_zeros(y, x, l->W, b, l->fan_in, l->fan_out) : 0;
    gemv_from(done, y, x, l->W, b, l->fan_in, l->fan_out);
    for (ptrdiff_t o = 0; l->scale && o < l->fan_out; o += V) { /* scale and shift are padded */
        const ptrdiff_t n = min_of(V, l->fan_out - o);
        v_store_n(y + o,
                  v_fma(v_load_n(y + o, n), v_load((const real *)l->scale + o), v_load((const real *)l->shift + o)), n);
    }
    if (l->activation != FM_ACTIVATION_identity)
        TABLE.activations[l->activation].forward(y, y, l->fan_out);
    for (ptrdiff_t o = 0; l->residual && o < l->fan_out; o += V) {
        const ptrdiff_t n = min_of(V, l->fan_out - o);
        v_store_n(y + o, v_load_n(y + o, n) + v_load_n(x + o, n), n);
    }
}

/* ---- Single functions, for checks and benchmarks ---------------------------------------------------------------- */

#define ROW(name)                                                                                                      \
    static void map_##name(void *y, const void *x, ptrdiff_t n) { map(v_##name, y, x, n); }
FM_MATH_FUNCTIONS(ROW)
#undef ROW

static double peak(ptrdiff_t n, void *sink) {
    vec sum[12];
    const vec a = v_set((real)0.999), b = v_set((real)1e-3);
    for (int j = 0; j < 12; j++)
        sum[j] = v_set((real)j);
    for (ptrdiff_t i = 0; i < n; i++)
        for (int repeat = 0; repeat < 2; repeat++)
            for (int j = 0; j < 12; j++)
                sum[j] = v_fma(sum[j], a, b);
    for (int j = 1; j < 12; j++)
        sum[0] += sum[j];
    v_store(sink, sum[0]);
    return (double)n * 2 * 12 * 2 * (double)V;
}

/* ---- The table -------------------------------------------------------------------------------------------------- */

#define FM_TARGET_CLASS 1
#define FM_TARGET_VALUE 0
#define FM_ARGUMENT_OUTPUT 0
#define FM_ARGUMENT_INPUT 1
#define FM_STRING_(s) #s
#define FM_STRING(s) FM_STRING_(s)

#ifdef FM_PREDICT_ONLY
#define FM_TRAINING(function) NULL
#else
#define FM_TRAINING(function) function
#endif

const fm_kernels TABLE = {
    .isa = FM_STRING(FM_ISA),
    .element_size = sizeof(real),
    .vector = V,
    .panel = NR,
    .fold_batch_norm = fold_batch_norm,
    .forward_row = forward_row,
#ifndef FM_PREDICT_ONLY
    .gather = gather,
    .augment = augment,
    .scatter = scatter,
    .forward = forward,
    .forward_csr = forward_csr,
    .forward_csr_unpacked = forward_csr_unpacked,
    .csr_to_csc = csr_to_csc,
    .gradient_csr = gradient_csr,
    .sum_bins = sum_bins,
    .forward_codes = forward_codes,
    .forward_codes_unpacked = forward_codes_unpacked,
    .codes_to_csc = codes_to_csc,
    .gradient_codes = gradient_codes,
    .group_features = group_features,
    .forward_members = forward_members,
    .forward_row_members = forward_row_members,
    .sum_members = sum_members,
    .backward_members = backward_members,
    .gradient_members = gradient_members,
    .batch_norm_forward = batch_norm_forward,
    .update_running_statistics = update_running_statistics,
    .backward = backward,
    .batch_norm_backward = batch_norm_backward,
    .sum_squared_gradient = sum_squared_gradient,
    .update = update,
    .update_bias = update_bias,
    .update_scale = update_scale,
    .scaling_gradient = scaling_gradient,
    .scale_rows = scale_rows,
    .forward_unpacked = forward_unpacked,
    .loss_gradient = loss_gradient,
    .loss_value = loss_value,
#endif
    .scratch_size = (KC + 1) * NR,
    .activations =
        {
#define ACTIVATION(name, argument, ...) {#name, FM_ARGUMENT_##argument, forward_##name, FM_TRAINING(derivative_##name)},
#include "activations.def"
#undef ACTIVATION
        },
    .outputs =
        {
#define OUTPUT(name, ...) {#name, output_##name},
#include "losses.def"
#undef OUTPUT
        },
#ifndef FM_PREDICT_ONLY
    .losses =
        {
#define LOSS(name, target, output, ...) {#name, FM_TARGET_##target, FM_OUTPUT_##output},
#include "losses.def"
#undef LOSS
        },
    .optimizers =
        {
#define OPTIMIZER(name, state, ...) {#name, state, prepare_##name},
#include "optimizers.def"
#undef OPTIMIZER
        },
    .math =
        {
#define ROW(name) {#name, map_##name},
            FM_MATH_FUNCTIONS(ROW)
#undef ROW
        },
    .peak = peak,
#endif
};
