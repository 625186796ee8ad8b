/* fastmlp.h: the contract between the C kernels and whoever drives them (fastmlp/core/_trainer.pyx). Reads as the table
 * of contents: names, data structures, and one table of kernels per instruction set and element type.
 *
 * The kernels are single-threaded, allocate nothing and keep no state. Work is split over threads by the caller: by
 * rows of the batch along the network, by blocks of weights across the batch.
 *
 * Letters: B batch rows, I fan-in, O fan-out; x input (B, I), W weights (I, O), b bias (O), z = x W + b, y = f(z);
 * dz, dW: gradients of the loss. `real` is the table's element type, behind void * here.
 * Panels: see gemm.h. `panel` columns each; a matrix of C columns takes ceil(C / panel) of them, `stride` reals apart.
 * Unless a contract says otherwise: sizes may be any number >= 0; nothing outside the stated output is written; buffers
 * must be aligned to 64 bytes where they hold panels and to their element elsewhere; NaN propagates.
 */
#ifndef FASTMLP_H
#define FASTMLP_H

#include <stddef.h>
#include <stdint.h>

#define FM_BLOCK_ROWS 32 /* rows of a weight panel that are updated as one piece, on every instruction set */
#define FM_CHUNK_ROWS                                                                                                  \
    128                /* rows that pass through the network together in one thread: their activations stay in L2      \
                        */
#define FM_MAX_STATE 3 /* arrays of optimizer state */
#define FM_CONSTANTS 8 /* numbers that an update rule computes once per step */
#define FM_NORM_EPSILON 1e-5 /* beside the variance, in batch normalisation */

/* ---- Names, from the .def files ------------------------------------------------------------------------------- */

enum fm_activation {
#define ACTIVATION(name, ...) FM_ACTIVATION_##name,
#include "activations.def"
#undef ACTIVATION
    FM_N_ACTIVATIONS
};
enum fm_output {
#define OUTPUT(name, ...) FM_OUTPUT_##name,
#include "losses.def"
#undef OUTPUT
    FM_N_OUTPUTS
};
enum fm_loss {
#define LOSS(name, ...) FM_LOSS_##name,
#include "losses.def"
#undef LOSS
    FM_N_LOSSES
};
enum fm_optimizer {
#define OPTIMIZER(name, ...) FM_OPTIMIZER_##name,
#include "optimizers.def"
#undef OPTIMIZER
    FM_N_OPTIMIZERS
};
#define FM_MATH_FUNCTIONS(ROW) ROW(exp) ROW(log) ROW(tanh) ROW(logistic) ROW(expm1) ROW(log1p)
enum fm_math {
#define ROW(name) FM_MATH_##name,
    FM_MATH_FUNCTIONS(ROW)
#undef ROW
        FM_N_MATH
};

/* ---- Data ------------------------------------------------------------------------------------------------------ */

/* Where random numbers are drawn: see random.h. */
typedef struct fm_rng {
    uint32_t key[2], step;
    ptrdiff_t row; /* of the batch: the first of the rows that are at hand */
} fm_rng;

/* Streams of random numbers: dropout on what enters layer l takes stream l, the input's noise and mask these. */
enum { FM_STREAM_NOISE = 0x40000000, FM_STREAM_MASK };

/* Batch normalisation (Ioffe and Szegedy 2015) of one layer, between its product and its activation:
 * xhat = (z - mean) / sqrt(variance + epsilon) over the batch, u = scale xhat + b. All vectors (O,), padded to whole
 * panels. */
typedef struct fm_batch_norm {
    void *scale, *scale_state[FM_MAX_STATE];
    void *running_mean, *running_variance; /* running averages, for prediction; the variance is the unbiased one */
    void *batch_mean, *batch_variance;     /* what the batch at hand adds to them */
    void *inverse_std;                     /* 1 / sqrt(variance + epsilon) of the batch at hand */
    void *d_scale, *d_b;                   /* gradients of its loss */
} fm_batch_norm;

/* One dense layer, y = f(u), u = x W + b. Matrices over the batch lie in panels `stride` apart, W and the state in
 * panels of I rows, without gaps. What is NULL or 0 is not there. */
typedef struct fm_layer {
    ptrdiff_t fan_in, fan_out;
    int activation;              /* f; identity for the output layer, whose output activation belongs to the loss */
    int residual;                /* what leaves the layer is f(u) + x; I = O */
    void *W, *b;                 /* (I, O) and (O,), columns padded to whole panels */
    void *W_state[FM_MAX_STATE]; /* like W */
    void *b_state[FM_MAX_STATE]; /* like b */
    fm_batch_norm *norm;         /* u = batch normalisation of x W; z then holds xhat */
    const void *scale, *shift;   /* u = scale x W + shift instead: a normalisation that no longer changes */
    void *x, *z, *y, *dz;        /* (B, I), (B, O) ...; z (which holds u) only where the derivative is taken from it */
    void *out;                   /* (B, O): what leaves, x of the next layer; y itself, but for residual and dropout */
    void *dout;                  /* (B, O): gradient of what leaves, kept where the layer is residual */
    void *dropout_mask;          /* (B, O): dropout's factors on what leaves, 0 or 1 / (1 - rate) */
    double dropout_rate;         /* of that dropout */
    const fm_rng *rng;
    uint32_t stream;
} fm_layer;

/* Rows of the caller's data: X is dense (any strides, in elements) or CSR. */
typedef struct fm_rows {
    const void *data;             /* float or double: is_double */
    const void *indices, *indptr; /* CSR only, int32 or int64: is_int64 */
    ptrdiff_t row_stride, column_stride, columns;
    int is_double, is_sparse, is_int64;
} fm_rows;

/* Stored elements of some rows of CSR data by column: column first_column + c holds elements indptr[c] .. indptr[c +
 * 1], rows rising. */
typedef struct fm_csc {
    ptrdiff_t first_column, *indptr;
    int32_t *indices; /* counted from the first of the rows */
    void *data;       /* reals */
} fm_csc;

/* The caller's targets and weights, by row number; order maps the batch's rows to row numbers (NULL: row0, row0 + 1,
 * ...). */
typedef struct fm_targets {
    const ptrdiff_t *classes; /* CLASS losses */
    const void *values;       /* VALUE losses: (rows, O), reals */
    const double *weights;    /* NULL: ones */
    double parameter;         /* of the loss: quantile, delta */
    double smoothing;         /* label smoothing (Szegedy et al. 2016): what is shared out evenly over the classes */
    double mix;               /* mixup (Zhang et al. 2018): a row counts so much, its partner the rest; 1 without */
} fm_targets;

/* What is done to the rows of the input while they are gathered, in this order; 0 does nothing. */
typedef struct fm_augment {
    double noise;   /* standard deviation of what is added */
    double mask;    /* share of the numbers that become 0 */
    double dropout; /* dropout: share that become 0, the others growing by 1 / (1 - rate) */
} fm_augment;

/* One step's hyperparameters. */
typedef struct fm_hyper {
    double learning_rate, momentum, beta_1, beta_2, epsilon, rho, weight_decay;
    double l1, l2;          /* penalty = l1 sum |W| + l2 / 2 sum W^2 */
    double clip;            /* the gradient is multiplied by this; 1 without clipping */
    double weight_sum;      /* of the batch: divides the gradient and the penalty */
    double penalty_scale;   /* what the step's penalty counts in the epoch's sum */
    double norm_momentum;   /* what the batch counts in the running averages of batch normalisation */
    ptrdiff_t t;            /* number of this update, from 1 */
    double c[FM_CONSTANTS]; /* filled by optimizers[].prepare */
} fm_hyper;

/* ---- Kernels --------------------------------------------------------------------------------------------------- */

typedef struct fm_activation_row {
    const char *name;
    int from_input;                                               /* the derivative wants z, not y */
    void (*forward)(void *y, const void *x, ptrdiff_t n);         /* y may be x */
    void (*derivative)(void *d, const void *x_or_y, ptrdiff_t n); /* d *= f' */
} fm_activation_row;

typedef struct fm_output_row {
    const char *name;
    void (*apply)(void *a, ptrdiff_t rows, ptrdiff_t columns); /* in place, row-major without gaps */
} fm_output_row;

typedef struct fm_loss_row {
    const char *name;
    int target_is_class, output;
} fm_loss_row;

typedef struct fm_optimizer_row {
    const char *name;
    int n_state;
    void (*prepare)(fm_hyper *hyper);
} fm_optimizer_row;

typedef struct fm_math_row {
    const char *name;
    void (*map)(void *y, const void *x, ptrdiff_t n);
} fm_math_row;

typedef struct fm_kernels {
    const char *isa;
    int element_size, vector, panel; /* bytes; reals in a vector; columns of a panel */

    /* gather: P[r, :] = X[order[r], :] for r < rows; order = NULL means X[first + r, :]
     * P (rows, columns) in panels, converted to real; columns that pad the last panel become 0.
     * oracle: numpy indexing */
    void (*gather)(void *P, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,
                   ptrdiff_t stride);

    /* augment: the gathered rows P (rows, columns), from row `first` of the micro-batch, in place: P = mix P + (1 -
     * mix) Q, Q the partners' rows (NULL: none); then `settings`. oracle: augment */
    void (*augment)(void *P, const void *Q, double mix, const fm_augment *settings, const fm_rng *rng, ptrdiff_t first,
                    ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride);

    /* scatter: M[r, c] = P[r, c]; M (rows, columns) row-major without gaps. The inverse of gather. */
    void (*scatter)(void *M, const void *P, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride);

    /* forward: y[r] = f(x[r] W + b), z[r] = x[r] W + b if z is not NULL, and what leaves the layer, for rows
     * first <= r < first + rows, panels p0 <= p < p1 of the outputs that there are. With norm: z[r] = x[r] W only, the
     * rest is batch_norm_forward's. numerics: z is b followed by one chain of multiply-adds in the order of I. oracle:
     * forward */
    void (*forward)(const fm_layer *layer, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t first, ptrdiff_t rows,
                    ptrdiff_t stride);

    /* forward_csr: forward of the first layer without gather: x[r] = X[order[r], :], or X[first_row + r, :], canonical
     * CSR numerics: the same chains without the links where x is 0. oracle: forward */
    void (*forward_csr)(const fm_layer *layer, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first_row,
                        ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride);

    /* csr_to_csc: the rows' elements in columns c0 .. c1, by column; C has room for c1 - c0 + 1 starts and all
     * elements. */
    void (*csr_to_csc)(fm_csc *C, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first_row, ptrdiff_t rows,
                       ptrdiff_t c0, ptrdiff_t c1);

    /* gradient_csr: G (n, panel) = (accumulate ? G : 0) + x[:, i0 .. i0 + n]^T dz, dz one panel. Then update with batch
     * = 0 and accumulate = 1 applies the rule. numerics: as in update, without the links where x is 0. oracle: gradient
     */
    void (*gradient_csr)(void *G, const fm_csc *C, const void *dz, ptrdiff_t i0, ptrdiff_t n, int accumulate);

    /* batch_norm_forward: panel p of z, all `batch` rows: xhat in z's place, y = f(scale xhat + b), what leaves, the
     * batch's averages. numerics: sums over rows in four chains (row % 4), (0 + 1) + (2 + 3). oracle: normalise */
    void (*batch_norm_forward)(const fm_layer *layer, ptrdiff_t p, ptrdiff_t batch, ptrdiff_t stride);

    /* update_running_statistics: panel p of the running averages moves towards the batch's. oracle: normalise */
    void (*update_running_statistics)(const fm_layer *layer, ptrdiff_t p, const fm_hyper *hyper);

    /* loss_gradient: dz[r] = weight dJ/dz of row r, in z's place, and value[r] = the row's loss, unweighted. z in
     * panels, row r at first + r; the targets of row order[r] (NULL: first_target + r), with mixup those of partner[r]
     * too. scratch: 2 rows (O + 1) reals. oracle: LOSSES */
    void (*loss_gradient)(int loss, void *z, double *value, void *scratch, const fm_targets *targets,
                          const ptrdiff_t *order, const ptrdiff_t *partner, ptrdiff_t first_target, ptrdiff_t first,
                          ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride);

    /* loss_value: value[r] alone, from a = output(z), row-major without gaps, which it overwrites.
     * scratch: rows (O + 1) reals. oracle: LOSSES */
    void (*loss_value)(int loss, void *a, double *value, void *scratch, const fm_targets *targets,
                       ptrdiff_t first_target, ptrdiff_t rows, ptrdiff_t columns);

    /* backward: below.dz[r] = (layer.dz[r] W^T) * f'(below)[r], f' from below's y or z; before f', what residual and
     * dropout make of it; panels p0 <= p < p1 of below that there are. With below.norm: without f', the rest is
     * batch_norm_backward's. scratch: scratch of `scratch_size` reals, aligned. numerics: one chain in the order of O.
     * oracle: backward */
    void (*backward)(const fm_layer *layer, const fm_layer *below, void *scratch, ptrdiff_t p0, ptrdiff_t p1,
                     ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride);

    /* batch_norm_backward: panel p of dz, gradient of y, becomes that of z; d_scale and d_b are its sums. oracle:
     * normalise_gradient */
    void (*batch_norm_backward)(const fm_layer *layer, ptrdiff_t p, ptrdiff_t batch, ptrdiff_t stride);

    /* update: one block of weights, rows i0 <= i < i0 + n (i0 a multiple of FM_BLOCK_ROWS, n <= FM_BLOCK_ROWS), panel p
     *     G  = (accumulate ? G : 0) + x[:, i]^T dz[:, p]         over all `batch` rows
     *     g  = (G + l2 W + l1 sign(W)) clip / weight_sum
     *     W, state = rule(W, state, g);  penalty[column] += penalty_scale * column's penalty, before the update
     * After every 128th update what is subnormal in an average of gradients becomes 0.
     * rule < 0: stops after G (before the last micro-batch). G: FM_BLOCK_ROWS * panel reals, the caller's.
     * numerics: G is one chain in the order of the batch. oracle: gradient, OPTIMIZERS */
    void (*update)(const fm_layer *layer, void *G, double *penalty, ptrdiff_t i0, ptrdiff_t n, ptrdiff_t p,
                   ptrdiff_t batch, ptrdiff_t stride, int accumulate, int rule, const fm_hyper *hyper);

    /* sum_squared_gradient: sum[column] = sum of g^2 over the block's rows, g as in update with clip = 1, from a G that
     * is done. n = 0: a vector without penalty. numerics: squares and sums in double, in the order of the rows. oracle:
     * loss_gradient */
    void (*sum_squared_gradient)(const fm_layer *layer, const void *G, double *sum, ptrdiff_t i0, ptrdiff_t n,
                                 ptrdiff_t p, const fm_hyper *hyper);

    /* update_bias: the same for panel p of b, without penalty: G = sum over the batch of dz; with norm, its d_b. G:
     * panel reals.
     */
    void (*update_bias)(const fm_layer *layer, void *G, ptrdiff_t p, ptrdiff_t batch, ptrdiff_t stride, int accumulate,
                        int rule, const fm_hyper *hyper);

    /* update_scale: the same for panel p of norm's scale: G = d_scale. */
    void (*update_scale)(const fm_layer *layer, void *G, ptrdiff_t p, int rule, const fm_hyper *hyper);

    /* fold_batch_norm: scale = gamma / sqrt(variance + FM_NORM_EPSILON), shift = b - mean scale, n numbers each: a
     * normalisation by running averages as a layer's scale and shift. oracle: normalise_fixed */
    void (*fold_batch_norm)(void *scale, void *shift, const void *gamma, const void *b, const void *mean,
                            const void *variance, ptrdiff_t n);

    /* forward_row: what leaves the layer, in y, for one row x, from row-major W and b without gaps: nothing is packed.
     * numerics: the same bits as forward */
    void (*forward_row)(const fm_layer *layer, void *y, const void *x);

    /* forward_unpacked: panels p0 <= p < p1 of what leaves the layer, x and y in panels, from row-major W and b without
     * gaps scratch: `scratch_size` reals, aligned. numerics: the same bits as forward */
    void (*forward_unpacked)(const fm_layer *layer, void *scratch, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t rows,
                             ptrdiff_t stride);
    ptrdiff_t scratch_size; /* reals of scratch that backward and forward_unpacked want */

    fm_activation_row activations[FM_N_ACTIVATIONS];
    fm_output_row outputs[FM_N_OUTPUTS];
    fm_loss_row losses[FM_N_LOSSES];
    fm_optimizer_row optimizers[FM_N_OPTIMIZERS];
    fm_math_row math[FM_N_MATH];

    /* peak: runs n rounds of 2 * 12 independent multiply-adds per vector lane; returns the floating-point operations
     * done. For the FMA peak that benchmarks divide by. */
    double (*peak)(ptrdiff_t n, void *sink);
} fm_kernels;

/* ---- Dispatch (dispatch.c) ------------------------------------------------------------------------------------- */

/* Rows of isa.def in this build, best first: name, whether the running CPU has it. */
int fm_isa_count(void);
const char *fm_isa_name(int i);
int fm_isa_available(int i);
/* The table of row i; element_size 4 or 8. */
const fm_kernels *fm_isa_kernels(int i, int element_size);
#endif
