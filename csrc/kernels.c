/* kernels.c: every kernel of fastmlp.h for one instruction set and one element type. Compiled once per row of isa.def and
 * element type, with FM_ISA, FM_BITS and FM_VECTOR_BYTES defined by the build; exports one symbol, the table.
 */
#include "fastmlp.h"
#include "gemm.h"
#include "losses.h"
#include "sparse.h"
#include "update.h"
#include "vector.h"
#include "vmath.h"

static inline ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* ---- Moving data in and out of panels -------------------------------------------------------------------------- */

/* Eight rows at a time, as many streams as the prefetcher follows; the eight rows after them are fetched meanwhile, since rows
 * drawn at random are ones that no prefetcher finds (waiting for them took a tenth of a step of tab). */
#define GATHER_DENSE(type)                                                                                                       \
    static void gather_dense_##type(real *P, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,          \
                                    ptrdiff_t stride) {                                                                          \
        const ptrdiff_t rs = X->row_stride, cs = X->column_stride;                                                               \
        for (ptrdiff_t r0 = 0; r0 < rows; r0 += 8) {                                                                             \
            const ptrdiff_t r1 = smaller(r0 + 8, rows);                                                                          \
            for (ptrdiff_t c0 = 0; c0 < X->columns; c0 += NR) {                                                                  \
                const ptrdiff_t width = smaller(NR, X->columns - c0);                                                            \
                real *restrict p = P + c0 / NR * stride + r0 * NR;                                                               \
                for (ptrdiff_t r = r0; r < r1; r++, p += NR) {                                                                   \
                    const type *restrict x = (const type *)X->data + (order ? order[r] : first + r) * rs + c0 * cs;              \
                    if (cs == 1 && r + 8 < rows)                                                                                 \
                        __builtin_prefetch((const type *)X->data + (order ? order[r + 8] : first + r + 8) * rs + c0, 0, 2);      \
                    if (cs == 1 && width == NR && sizeof(type) == sizeof(real))                                                  \
                        memcpy(p, x, (size_t)NR * sizeof(real));                                                                 \
                    else if (cs == 1 && sizeof(type) == sizeof(real)) {                                                          \
                        v_store(p, v_load_n((const real *)x, smaller(width, V)));                                                \
                        v_store(p + V, v_load_n((const real *)x + V, width > V ? width - V : 0));                                \
                    } else if (cs == 1 && width == NR)                                                                           \
                        for (ptrdiff_t j = 0; j < NR; j++)                                                                       \
                            p[j] = (real)x[j];                                                                                   \
                    else                                                                                                         \
                        for (ptrdiff_t j = 0; j < NR; j++)                                                                       \
                            p[j] = j < width ? (real)x[j * cs] : 0;                                                              \
                }                                                                                                                \
            }                                                                                                                    \
        }                                                                                                                        \
    }
GATHER_DENSE(float)
GATHER_DENSE(double)

static void gather(void *P, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride) {
    if (X->is_sparse)
        CSR_KIND(gather_csr, X)(P, X, order, first, rows, stride);
    else
        (X->is_double ? gather_dense_double : gather_dense_float)(P, X, order, first, rows, stride);
}

static void scatter(void *M, const void *P, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {
    rows_from_panels(M, P, rows, columns, stride);
}

/* ---- Activations ------------------------------------------------------------------------------------------------ */

#define VARIABLE_OUTPUT y
#define VARIABLE_INPUT x
#define ACTIVATION(name, argument, forward, derivative)                                                                          \
    static inline vec f_##name(vec x) { return forward; }                                                                        \
    static inline vec slope_##name(vec VARIABLE_##argument) {                                                                    \
        (void)VARIABLE_##argument;                                                                                               \
        return derivative;                                                                                                       \
    }                                                                                                                            \
    static void forward_##name(void *y, const void *x, ptrdiff_t n) { FM_MAP((real *)y, (const real *)x, n, f_##name(v)); }      \
    static void derivative_##name(void *d, const void *from, ptrdiff_t n) {                                                      \
        const real *u = from;                                                                                                    \
        real *dx = d;                                                                                                            \
        for (; n >= V; n -= V, dx += V, u += V)                                                                                  \
            v_store(dx, v_load(dx) * slope_##name(v_load(u)));                                                                   \
        if (n > 0)                                                                                                               \
            v_store_n(dx, v_load_n(dx, n) * slope_##name(v_load_n(u, n)), n);                                                    \
    }
#include "activations.def"
#undef ACTIVATION

#define FM_ARGUMENT_OUTPUT 0
#define FM_ARGUMENT_INPUT 1
static const struct {
    void (*forward)(void *y, const void *x, ptrdiff_t n);
    void (*derivative)(void *d, const void *x_or_y, ptrdiff_t n);
} activation[FM_N_ACTIVATIONS] = {
#define ACTIVATION(name, ...) {forward_##name, derivative_##name},
#include "activations.def"
#undef ACTIVATION
};

/* ---- Layers ----------------------------------------------------------------------------------------------------- */

/* y = f(z) over a panel's rows, which were just computed and are still in L1; z may be y. */
static void activate(const fm_layer *l, real *y, const real *z, ptrdiff_t rows) {
    if (l->activation != FM_ACTIVATION_identity || z != y)
        activation[l->activation].forward(y, z, rows * NR);
}

static void forward(const fm_layer *l, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride) {
    for (ptrdiff_t p = 0; p * NR < l->fan_out; p++) {
        const ptrdiff_t at = p * stride + first * NR;
        real *y = (real *)l->y + at, *z = l->z ? (real *)l->z + at : y;
        product(z, (const real *)l->x + first * NR, (const real *)l->W + p * l->fan_in * NR, (const real *)l->b + p * NR, rows,
                l->fan_in, stride, panel_vectors(l->fan_out - p * NR));
        activate(l, y, z, rows);
    }
}

static void forward_csr(const fm_layer *l, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first_row, ptrdiff_t first,
                        ptrdiff_t rows, ptrdiff_t stride) {
    const ptrdiff_t panels = (l->fan_out + NR - 1) / NR, w_stride = l->fan_in * NR;
    for (ptrdiff_t p = 0, n; p < panels; p += n) {
        n = smaller(2, panels - p);
        const ptrdiff_t at = p * stride + first * NR;
        real *y = (real *)l->y + at, *z = l->z ? (real *)l->z + at : y;
        CSR_KIND(product_csr, X)(z, (const real *)l->W + p * w_stride, (const real *)l->b + p * NR, X, order, first_row, rows,
                                 stride, w_stride, (int)n);
        for (ptrdiff_t j = 0; j < n; j++)
            activate(l, y + j * stride, z + j * stride, rows);
    }
}

/* A chunk of W is brought into a panel's shape where it is used: for few rows that is cheaper than packing all of W before. */
static void forward_unpacked(const fm_layer *l, void *chunk_, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t rows, ptrdiff_t stride) {
    real *chunk = chunk_, *bias = chunk + KC * NR;
    for (ptrdiff_t p = p0; p < p1; p++) {
        const ptrdiff_t width = smaller(NR, l->fan_out - p * NR), low = smaller(width, V), high = width - low;
        const real *W = (const real *)l->W + p * NR, *b = (const real *)l->b + p * NR;
        real *y = (real *)l->y + p * stride;
        v_store(bias, v_load_n(b, low));
        v_store(bias + V, v_load_n(b + V, high));
        for (ptrdiff_t k0 = 0; k0 < l->fan_in || k0 == 0; k0 += KC) {
            const ptrdiff_t kc = smaller(KC, l->fan_in - k0);
            for (ptrdiff_t i = 0; i < kc; i++, W += l->fan_out) {
                __builtin_prefetch(W + 8 * l->fan_out);
                if (sizeof(real) * NR > 64)
                    __builtin_prefetch(W + 8 * l->fan_out + V);
                v_store(chunk + i * NR, low == V ? v_load(W) : v_load_n(W, low));
                v_store(chunk + i * NR + V, high == V ? v_load(W + V) : v_load_n(W + V, high));
            }
            product_chunk(y, (const real *)l->x + k0 / NR * stride, chunk, bias, rows, k0 > 0, kc, stride, panel_vectors(width));
        }
        activate(l, y, y, rows);
    }
}

static void backward(const fm_layer *l, const fm_layer *below, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride) {
    for (ptrdiff_t p = 0; p * NR < l->fan_in; p++) {
        const ptrdiff_t at = p * stride + first * NR;
        real *dz = (real *)below->dz + at;
        product(dz, (const real *)l->dz + first * NR, (const real *)l->WT + p * l->fan_out * NR, NULL, rows, l->fan_out, stride,
                panel_vectors(l->fan_in - p * NR));
        if (below->activation != FM_ACTIVATION_identity)
            activation[below->activation].derivative(dz, (const real *)(below->z ? below->z : below->y) + at, rows * NR);
    }
}

/* WT's block for rows i0..i0+n of panel p of W. */
static void transpose_block(const fm_layer *l, const real *W, ptrdiff_t i0, ptrdiff_t n, ptrdiff_t p) {
    const ptrdiff_t columns = smaller(NR, l->fan_out - p * NR);
    for (ptrdiff_t i = 0; i < n; i += NR) {
        real *wt = (real *)l->WT + ((i0 + i) / NR * l->fan_out + p * NR) * NR;
        const real *w = W + i * NR;
        const ptrdiff_t rows = smaller(NR, n - i), even = rows / FM_SQUARE * FM_SQUARE;
        ptrdiff_t o = 0;
        for (; o + FM_SQUARE <= columns; o += FM_SQUARE)
            for (ptrdiff_t j = 0; j < even; j += FM_SQUARE)
                transpose_square(wt + o * NR + j, NR, w + j * NR + o, NR);
        const ptrdiff_t squared = o;
        for (o = 0; o < columns; o++)
            for (ptrdiff_t j = o < squared ? even : 0; j < rows; j++)
                wt[o * NR + j] = w[j * NR + o];
    }
}

static void update(const fm_layer *l, void *G, double *penalty, ptrdiff_t i0, ptrdiff_t n, ptrdiff_t p, ptrdiff_t batch,
                   ptrdiff_t stride, int accumulate, int rule, const fm_hyper *hyper) {
    const ptrdiff_t at = (p * l->fan_in + i0) * NR;
    const int nv = panel_vectors(l->fan_out - p * NR);
    real *wanted[FM_MAX_STATE + 1] = {(real *)l->W + at}, *W = wanted[0], **state = wanted + 1;
    int n_wanted = rule >= 0;
    for (int s = 0; s < FM_MAX_STATE && l->W_state[s]; s++) {
        state[s] = (real *)l->W_state[s] + at;
        n_wanted += rule >= 0;
    }
    product_transposed(G, (const real *)l->x + i0 / NR * stride, (const real *)l->dz + p * stride, accumulate, n, batch, stride,
                       nv, wanted, n_wanted);
    if (rule < 0)
        return;
    rules[rule](W, state, G, penalty, n, nv, hyper->l1, hyper->l2, hyper);
    if (l->WT)
        transpose_block(l, W, i0, n, p);
}

static void update_bias(const fm_layer *l, void *G, ptrdiff_t p, ptrdiff_t batch, ptrdiff_t stride, int accumulate, int rule,
                        const fm_hyper *hyper) {
    real *sum = G, *state[FM_MAX_STATE];
    const real *dz = (const real *)l->dz + p * stride;
    for (int s = 0; s < FM_MAX_STATE; s++)
        state[s] = l->b_state[s] ? (real *)l->b_state[s] + p * NR : NULL;
    vec low = accumulate ? v_load(sum) : v_set(0), high = accumulate ? v_load(sum + V) : v_set(0);
    for (ptrdiff_t r = 0; r < batch; r++, dz += NR) {
        low += v_load(dz);
        high += v_load(dz + V);
    }
    v_store(sum, low);
    v_store(sum + V, high);
    if (rule >= 0)
        rules[rule]((real *)l->b + p * NR, state, sum, NULL, 1, 2, 0, 0, hyper);
}

/* Columns. Measured on Zen 4, one row, two layers of so many: 4,096 take 2.7 ms instead of 5.7, 2,000 0.43 instead of 0.49, 1,024
 * the same. */
#define ROW_WIDE 1024

/* y = b + x W by streaming through W in the order of memory, eight of its rows side by side, y coming and going from L1: where
 * W's rows are long, the columns' way below meets a new page at every step, which no prefetcher follows. */
static void forward_row_wide(real *y, const real *x, const real *W, const real *b, ptrdiff_t fan_in, ptrdiff_t fan_out) {
    for (ptrdiff_t i = 0; i < fan_in || i == 0; i += 8) {
        const ptrdiff_t n = smaller(8, fan_in - i);
        const real *from = i ? y : b, *w = W + i * fan_out;
        ptrdiff_t o = 0;
        if (n == 8)
            for (; o + V <= fan_out; o += V) {
                vec sum = v_load(from + o);
                for (ptrdiff_t j = 0; j < 8; j++)
                    sum = v_fma(v_set(x[i + j]), v_load(w + j * fan_out + o), sum);
                v_store(y + o, sum);
            }
        for (; o < fan_out; o += V) {
            const ptrdiff_t width = smaller(V, fan_out - o);
            vec sum = v_load_n(from + o, width);
            for (ptrdiff_t j = 0; j < n; j++)
                sum = v_fma(v_set(x[i + j]), v_load_n(w + j * fan_out + o, width), sum);
            v_store_n(y + o, sum, width);
        }
    }
}

/* Eight vectors of outputs at a time; where W's row ends inside a vector, the load runs on into the next row, except in W's
 * last rows. */
static void forward_row(void *y_, const void *x_, const void *W_, const void *b_, ptrdiff_t fan_in, ptrdiff_t fan_out, int f) {
    real *y = y_;
    const real *x = x_, *W = W_, *b = b_;
    ptrdiff_t o = 0;
    if (fan_out > ROW_WIDE) {
        forward_row_wide(y, x, W, b, fan_in, fan_out);
        o = fan_out;
    }
#define FORWARD_ROW_BLOCK(n)                                                                                                     \
    for (; o + (n) * V <= fan_out; o += (n) * V) {                                                                               \
        vec sum[n];                                                                                                              \
        for (int j = 0; j < (n); j++)                                                                                            \
            sum[j] = v_load(b + o + j * V);                                                                                      \
        const real *w = W + o;                                                                                                   \
        for (ptrdiff_t i = 0; i < fan_in; i++, w += fan_out)                                                                     \
            for (int j = 0; j < (n); j++)                                                                                        \
                sum[j] = v_fma(v_set(x[i]), v_load(w + j * V), sum[j]);                                                          \
        for (int j = 0; j < (n); j++)                                                                                            \
            v_store(y + o + j * V, sum[j]);                                                                                      \
    }
    FORWARD_ROW_BLOCK(8)
    FORWARD_ROW_BLOCK(4)
    FORWARD_ROW_BLOCK(2)
    FORWARD_ROW_BLOCK(1)
#undef FORWARD_ROW_BLOCK
    if (o < fan_out) {
        const ptrdiff_t rest = fan_out - o, end = fan_in * fan_out;
        vec sum = v_load_n(b + o, rest);
        for (ptrdiff_t i = 0, at = o; i < fan_in; i++, at += fan_out)
            sum = v_fma(v_set(x[i]), at + V <= end ? v_load(W + at) : v_load_n(W + at, rest), sum);
        v_store_n(y + o, sum, rest);
    }
    if (f != FM_ACTIVATION_identity)
        activation[f].forward(y, y, fan_out);
}

/* ---- Single functions, for checks and benchmarks ---------------------------------------------------------------- */

#define ROW(name)                                                                                                                \
    static void map_##name(void *y, const void *x, ptrdiff_t n) { FM_MAP((real *)y, (const real *)x, n, v_##name(v)); }
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
#define FM_PASTE_(a, b, c, d) a##b##c##d
#define FM_PASTE(a, b, c, d) FM_PASTE_(a, b, c, d)
#define FM_STRING_(s) #s
#define FM_STRING(s) FM_STRING_(s)

extern const fm_kernels FM_PASTE(fm_kernels_, FM_ISA, _, FM_BITS);
const fm_kernels FM_PASTE(fm_kernels_, FM_ISA, _, FM_BITS) = {
    .isa = FM_STRING(FM_ISA),
    .element_size = sizeof(real),
    .vector = V,
    .panel = NR,
    .gather = gather,
    .scatter = scatter,
    .forward = forward,
    .forward_csr = forward_csr,
    .columns_csr = columns_csr,
    .gradient_csr = gradient_csr,
    .backward = backward,
    .update = update,
    .update_bias = update_bias,
    .forward_row = forward_row,
    .forward_unpacked = forward_unpacked,
    .chunk = (KC + 1) * NR,
    .activations =
        {
#define ACTIVATION(name, argument, ...) {#name, FM_ARGUMENT_##argument, forward_##name, derivative_##name},
#include "activations.def"
#undef ACTIVATION
        },
    .outputs =
        {
#define OUTPUT(name, ...) {#name, output_##name},
#include "losses.def"
#undef OUTPUT
        },
    .losses =
        {
#define LOSS(name, target, output, ...) {#name, FM_TARGET_##target, FM_OUTPUT_##output, gradient_##name},
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
};
