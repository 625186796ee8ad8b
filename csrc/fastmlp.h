/* fastmlp.h: the contract between the C kernels and fastmlp/core. Read it as the table of contents: names, data
 * structures, and one table of kernels per instruction set and element type.
 *
 * Kernels run on one thread, allocate nothing and keep no state. The caller splits the work over threads: the forward
 * and backward pass by rows of the batch, the update by blocks of weights.
 *
 * Letters: B batch rows, I fan-in, O fan-out; x input (B, I), W weights (I, O), b bias (O), z = x W + b, y = f(z);
 * dz, dW: gradients of the loss. `real` is the table's element type, void * here. p: number of a panel.
 * Panels (gemm.h) have `panel` columns each: a matrix of C columns takes ceil(C / panel) of them, `stride` reals apart.
 *
 * Unless a kernel says otherwise: sizes may be any number >= 0; it writes nothing but the stated output; inputs and
 * outputs do not overlap; buffers are aligned to 64 bytes if they hold panels (optimizer state: to two vectors), else
 * to their element; NaN propagates.
 */
#ifndef FASTMLP_H
#define FASTMLP_H

#include <stddef.h>
#include <stdint.h>

#define FM_BLOCK_ROWS 32     /* rows of a block of weights: one call of update */
#define FM_CHUNK_ROWS 128    /* rows that a thread takes through the network together: their activations stay in L2 */
#define FM_MEMBER_ROWS 24    /* rows whose products with all patterns of members are made together */
#define FM_MAX_STATE 3       /* arrays of optimizer state */
#define FM_CONSTANTS 8       /* constants that an update rule computes once per step */
#define FM_NORM_EPSILON 1e-5 /* added to the variance in batch normalisation */

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
enum fm_hyperparameter {
#define HYPERPARAMETER(name, ...) FM_HYPERPARAMETER_##name,
#include "hyperparameters.def"
#undef HYPERPARAMETER
    FM_N_HYPERPARAMETERS
};
#define FM_MATH_FUNCTIONS(ROW) ROW(exp) ROW(log) ROW(tanh) ROW(logistic) ROW(expm1) ROW(log1p)
enum fm_math {
#define ROW(name) FM_MATH_##name,
    FM_MATH_FUNCTIONS(ROW)
#undef ROW
        FM_N_MATH
};

/* ---- Data ------------------------------------------------------------------------------------------------------ */

/* Position in the random streams: see random.h. Row m rows + r of the matrices, which is member m's, has the number
 * m batch + row + r: it does not depend on the micro-batch. The rows of one network are those of member 0. */
typedef struct fm_rng {
    uint32_t key[2], step;
    ptrdiff_t row;         /* number within the batch of the first row of the matrices */
    ptrdiff_t rows, batch; /* rows of a member in the matrices, and in the batch */
} fm_rng;

/* Streams of random numbers. Dropout of the input of layer l has stream l. */
enum { FM_STREAM_NOISE = 0x40000000, FM_STREAM_MASK };

/* Batch normalisation (Ioffe and Szegedy 2015) of one layer: z = x W, xhat = (z - mean) / sqrt(variance + epsilon) over
 * the batch, u = scale xhat + b, y = f(u). Vectors (O,), padded to whole panels. */
typedef struct fm_batch_norm {
    void *scale, *scale_state[FM_MAX_STATE];
    void *running_mean, *running_variance; /* for prediction; the unbiased variance */
    void *batch_mean, *batch_variance;     /* of this batch, for the running statistics */
    void *inverse_std;                     /* 1 / sqrt(variance + epsilon) of this batch */
    void *d_scale, *d_b;                   /* gradients of the loss */
} fm_batch_norm;

/* One dense layer, y = f(u), u = x W + b. Matrices over the batch are in panels `stride` apart; W and its state in
 * panels without gaps. Optional members are NULL or 0. */
typedef struct fm_layer {
    ptrdiff_t fan_in, fan_out;
    /* Units of each feature, of a first layer that embeds coded features; 0: a dense layer. O is then a multiple of it,
     * W (I, embedding), and feature f has units f embedding <= o < (f + 1) embedding. A multiple of 16, so that a
     * vector of units belongs to one feature. */
    ptrdiff_t embedding;
    int activation;              /* f; identity for the output layer: its output activation belongs to the loss */
    int residual;                /* out = y + x; I = O */
    int is_finite;               /* W holds no infinity or NaN: forward_row may leave out rows of W whose x is 0 */
    void *W, *b;                 /* (I, O) and (O,), columns padded to whole panels */
    void *W_state[FM_MAX_STATE]; /* like W */
    void *b_state[FM_MAX_STATE]; /* like b */
    fm_batch_norm *norm;         /* u = batch normalisation of x W; z then holds xhat */
    const void *scale, *shift;   /* u = scale x W + shift: batch normalisation by running statistics */
    void *x, *z, *y, *dz;        /* (B, I), (B, O) ...; z, which holds u, only if the derivative is a function of u */
    void *out;          /* (B, O): the layer's output, x of the next layer; y itself without residual or dropout */
    void *dout;         /* (B, O): gradient of out; residual layers only */
    void *dropout_mask; /* (B, O): dropout's factors of out, 0 or 1 / (1 - rate) */
    double dropout_rate;
    const fm_rng *rng;
    uint32_t stream;
} fm_layer;

/* Several members on an embedding: each multiplies the units of feature f by its scaling of f. Features with the same
 * scalings have one pattern. In the layer behind the embedding, x has `rows` rows, which all members share; member m's
 * rows of z and y are m rows <= r < (m + 1) rows. */
typedef struct fm_members {
    ptrdiff_t n, n_features, n_patterns, rows;
    ptrdiff_t width;    /* units of each feature */
    ptrdiff_t x_stride; /* of that layer's x, and of the embedding's matrices */
    ptrdiff_t *pattern; /* of each feature */
    void *scalings;     /* (n, n_features), of which the first n_patterns columns: of each member and pattern */
} fm_members;

/* The caller's data X: dense (any strides, in elements) or CSR. */
typedef struct fm_rows {
    const void *data;             /* float or double: is_double */
    const void *indices, *indptr; /* CSR only; int32 or int64: is_int64 */
    ptrdiff_t row_stride, column_stride, columns;
    int is_double, is_sparse, is_int64;
} fm_rows;

/* The caller's data as codes, instead of fm_rows: each row has one code per feature. Feature f owns the rows
 * offset[f] <= i < offset[f + 1] of the first layer's W, numbers before categories, and as many columns of x:
 *
 *     number      a bin and a fraction: 1 in the bins before its own, the fraction there, 0 in those behind. The last
 *                 column is that of missing numbers: their fraction, which is 1, and 0 in all bins
 *     category    a code: 1 in its column. offset[f + 1] - offset[f], or more, stands for none: 0 in all columns
 */
typedef struct fm_codes {
    const uint16_t *bins;    /* (rows, n_numbers) */
    const float *fractions;  /* (rows, n_numbers) */
    const void *categories;  /* (rows, n_categories); uint16 or uint32: is_uint32 */
    const ptrdiff_t *offset; /* n_numbers + n_categories + 1 */
    ptrdiff_t n_numbers, n_categories;
    int is_uint32;
} fm_codes;

/* CSC of some rows and columns: column first_column + c has elements indptr[c] .. indptr[c + 1], rows in order. */
typedef struct fm_csc {
    ptrdiff_t first_column, *indptr;
    int32_t *indices; /* row, counted from the first of the rows */
    void *data;       /* reals */
} fm_csc;

/* The caller's targets and sample weights, by row number. */
typedef struct fm_targets {
    const ptrdiff_t *classes;     /* CLASS losses */
    const void *values;           /* VALUE losses: (rows, O), reals */
    const uint8_t *bytes;         /* the same in a byte each, instead of values: labels */
    const double *weights;        /* NULL: ones */
    const double *output_weights; /* (rows, O), instead of weights; 0: the target is left out, whatever it is */
    double parameter;             /* of the loss: quantile, delta */
    double smoothing;             /* label smoothing (Szegedy et al. 2016): share spread evenly over the classes */
    double mix; /* mixup (Zhang et al. 2018): weight of a row; its partner has the rest; 1: no mixup */
} fm_targets;

/* Weight of a row's output, mixed with that of the partner (mixup): 0 if either target is left out. */
static inline double fm_mixed_weight(double own, double partner, double mix) {
    return own == 0 || partner == 0 ? 0 : mix * own + (1 - mix) * partner;
}

/* Augmentation of the input, applied in this order; 0: none. */
typedef struct fm_augment {
    double noise;   /* standard deviation of the noise added */
    double mask;    /* share of the numbers set to 0 */
    double dropout; /* rate: share set to 0; all else times 1 / (1 - rate) */
} fm_augment;

/* One step's hyperparameters. */
typedef struct fm_hyper {
    double learning_rate;
#define HYPERPARAMETER(name, ...) double name;
#include "hyperparameters.def"
#undef HYPERPARAMETER
    double l1, l2;          /* penalty = l1 sum |W| + l2 / 2 sum W^2 */
    double clip;            /* factor of the gradient; 1 without clipping */
    double weight_sum;      /* sum of the batch's sample weights; divides the gradient and the penalty */
    double penalty_scale;   /* factor of the step's penalty in the epoch's sum */
    double norm_momentum;   /* weight of the batch in the running statistics */
    ptrdiff_t t;            /* number of this update, from 1 */
    double c[FM_CONSTANTS]; /* filled by optimizers[].prepare */
} fm_hyper;

typedef struct fm_hyperparameter_row {
    const char *name;
    size_t offset; /* of its field in fm_hyper, a double */
    double standard;
} fm_hyperparameter_row;

/* ---- Kernels --------------------------------------------------------------------------------------------------- */

typedef struct fm_activation_row {
    const char *name;
    int from_input;                                               /* the derivative is a function of x, not y */
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
    ptrdiff_t scratch_size;          /* reals of scratch that backward and forward_unpacked need */

    /* ---- Input */

    /* gather: P[r, :] = X[order[r], :] for r < rows; order NULL: X[first + r, :]
     * P (rows, columns) in panels, converted to real; columns that pad the last panel become 0. oracle: NumPy indexing
     */
    void (*gather)(void *P, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,
                   ptrdiff_t stride);

    /* augment: P = mix P + (1 - mix) Q, then noise, mask and dropout by `settings`, in place
     * P (rows, columns) in panels, from row `first` of the micro-batch; Q (NULL: none) the partners' rows.
     * oracle: augment */
    void (*augment)(void *P, const void *Q, double mix, const fm_augment *settings, const fm_rng *rng, ptrdiff_t first,
                    ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride);

    /* scatter: M[r, c] = P[r, c]; M (rows, columns) row-major without gaps. The inverse of gather. */
    void (*scatter)(void *M, const void *P, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride);

    /* csr_to_csc: C = columns c0 .. c1 of the rows X[order[r], :], or X[first_row + r, :]
     * C has room for c1 - c0 + 1 indptr and all elements. */
    void (*csr_to_csc)(fm_csc *C, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first_row, ptrdiff_t rows,
                       ptrdiff_t c0, ptrdiff_t c1);

    /* codes_to_csc: C = the columns of the features that own columns c0 .. c1, of the coded rows X[order[r]], or
     * X[first_row + r]: in a row's column its fraction, or 1
     * C has room for indptr of these features' columns and 1 more, and for an element of each of them in each row. */
    void (*codes_to_csc)(fm_csc *C, const fm_codes *X, const ptrdiff_t *order, ptrdiff_t first_row, ptrdiff_t rows,
                         ptrdiff_t c0, ptrdiff_t c1);

    /* ---- Forward */

    /* forward: z = x W + b (if z is not NULL), y = f(z), out, for rows first <= r < first + rows, panels p0 <= p < p1
     * With norm: z = x W only; batch_norm_forward does the rest.
     * numerics: z is b plus one chain of multiply-adds in the order of I. oracle: predict */
    void (*forward)(const fm_layer *layer, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t first, ptrdiff_t rows,
                    ptrdiff_t stride);

    /* forward_csr: forward of the first layer without gather: x[r] = X[order[r], :], or X[first_row + r, :]
     * X canonical CSR. numerics: as forward, without the multiply-adds whose x is 0. oracle: predict */
    void (*forward_csr)(const fm_layer *layer, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first_row,
                        ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride);

    /* sum_bins: C[offset[f] + i] = sum of W[offset[f] + k] over k < i for the bins i of numbers f0 <= f < f1; 0 for the
     * row of missing numbers
     * W a matrix of `columns` columns, row-major without gaps, or one panel of one; C like its first
     * offset[n_numbers] rows. numerics: one chain of additions in the order of the rows. oracle: sum_bins */
    void (*sum_bins)(void *C, const void *W, const fm_codes *X, ptrdiff_t columns, ptrdiff_t f0, ptrdiff_t f1);

    /* forward_codes: forward of the first layer for coded rows: those of X in the order of forward_csr
     * C: the sums of W's bins, in panels without gaps of offset[n_numbers] rows.
     * numerics: one chain from b in the order of the features: + C[i], then a multiply-add fraction W[i], i the row of
     * the number's bin; + W[i], i the row of the category. With an embedding, a unit's chain has its own feature only.
     * oracle: code_product, dense_embedding */
    void (*forward_codes)(const fm_layer *layer, const void *C, const fm_codes *X, const ptrdiff_t *order,
                          ptrdiff_t first_row, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride);

    /* forward_codes_unpacked: forward_codes of rows first_row <= r < first_row + rows, panels p0 <= p < p1 of out (in
     * y); W, b and C row-major without gaps. C = NULL: its sums are made on the way, which suits few rows.
     * numerics: the same bits as forward_codes */
    void (*forward_codes_unpacked)(const fm_layer *layer, const void *C, const fm_codes *X, ptrdiff_t first_row,
                                   ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t rows, ptrdiff_t stride);

    /* group_features: the patterns of features: pattern (n_features,) and the columns of `grouped`, like scalings
     * (n_members, n_features), as in fm_members; returns n_patterns. oracle: patterns */
    ptrdiff_t (*group_features)(ptrdiff_t *pattern, void *grouped, const void *scalings, ptrdiff_t n_members,
                                ptrdiff_t n_features);

    /* forward_members: forward of the layer that members share, all panels:
     *     z[m rows + r] = b + sum over patterns g of S[m, g] (sum over the features f of g of x[r, f] W[f])
     * for first <= r < first + rows and every member m; scratch: FM_MEMBER_ROWS rows of a panel for each feature.
     * numerics: the inner sum is a chain of multiply-adds from 0, the outer one from b, both in their order.
     * oracle: member_products */
    void (*forward_members)(const fm_layer *layer, const fm_members *members, void *scratch, ptrdiff_t first,
                            ptrdiff_t rows, ptrdiff_t stride);

    /* forward_row_members: forward_members of one row x; member m's y is m O behind y, O padded to whole panels; W and
     * b row-major without gaps. scratch: O reals, padded likewise, for each pattern. numerics: the same bits as
     * forward_members */
    void (*forward_row_members)(const fm_layer *layer, const fm_members *members, void *scratch, void *y,
                                const void *x);

    /* batch_norm_forward: panel p, all `batch` rows: xhat in z's place, y = f(scale xhat + b), out, batch statistics
     * numerics: sums over rows in four chains (row % 4), (0 + 1) + (2 + 3). oracle: normalise */
    void (*batch_norm_forward)(const fm_layer *layer, ptrdiff_t p, ptrdiff_t batch, ptrdiff_t stride);

    /* update_running_statistics: running += norm_momentum (batch - running), panel p. oracle: running */
    void (*update_running_statistics)(const fm_layer *layer, ptrdiff_t p, const fm_hyper *hyper);

    /* fold_batch_norm: scale = gamma / sqrt(variance + FM_NORM_EPSILON), shift = b - mean scale, n numbers each
     * For a layer's scale and shift. oracle: normalise_fixed */
    void (*fold_batch_norm)(void *scale, void *shift, const void *gamma, const void *b, const void *mean,
                            const void *variance, ptrdiff_t n);

    /* forward_row: out (in y) for one row x; W and b row-major without gaps. numerics: the same
     * bits as forward, but for the sign of a sum that is 0 */
    void (*forward_row)(const fm_layer *layer, void *y, const void *x);

    /* forward_unpacked: panels p0 <= p < p1 of out (in y); x and y in panels, W and b row-major without gaps
     * scratch: scratch_size reals, aligned. numerics: the same bits as forward */
    void (*forward_unpacked)(const fm_layer *layer, void *scratch, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t rows,
                             ptrdiff_t stride);

    /* forward_csr_unpacked: forward_csr of rows first_row <= r < first_row + rows, panels p0 <= p < p1 of out (in y);
     * W and b row-major without gaps. numerics: the same bits as forward_csr */
    void (*forward_csr_unpacked)(const fm_layer *layer, const fm_rows *X, ptrdiff_t first_row, ptrdiff_t p0,
                                 ptrdiff_t p1, ptrdiff_t rows, ptrdiff_t stride);

    /* ---- Loss */

    /* loss_gradient: dz[r] = weight dJ/dz of row r, in place of z; value[r] = the row's loss, unweighted
     * z in panels, row r at first + r. Targets of row order[r] (NULL: first_target + r), with mixup of partner[r] too.
     * With output_weights (VALUE losses), both are sums or means over the weighted outputs.
     * scratch: 2 rows (O + 1) reals. oracle: LOSSES */
    void (*loss_gradient)(int loss, void *z, double *value, void *scratch, const fm_targets *targets,
                          const ptrdiff_t *order, const ptrdiff_t *partner, ptrdiff_t first_target, ptrdiff_t first,
                          ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride);

    /* loss_value: value[r] from a = output(z), row-major without gaps, which it overwrites; weighted by output_weights
     * scratch: rows (O + 1) reals. oracle: LOSSES */
    void (*loss_value)(int loss, void *a, double *value, void *scratch, const fm_targets *targets,
                       ptrdiff_t first_target, ptrdiff_t rows, ptrdiff_t columns);

    /* ---- Backward */

    /* backward: below.dz = (layer.dz W^T) * f'(below), f' from below's y or z; residual and dropout come before f'
     * Rows first <= r < first + rows, panels p0 <= p < p1 of below. With below.norm: no f'; batch_norm_backward does
     * the rest. scratch: scratch_size reals, aligned. numerics: one chain in the order of O. oracle: gradients */
    void (*backward)(const fm_layer *layer, const fm_layer *below, void *scratch, ptrdiff_t p0, ptrdiff_t p1,
                     ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride);

    /* sum_members: sums[g rows + r] = sum over the members m of S[m, g] dz[m rows + r] for every pattern g, first <= r
     * < first + rows; sums (n_patterns rows, O) in panels sums_stride apart. numerics: one chain of multiply-adds in
     * the order of the members. oracle: sum_members */
    void (*sum_members)(const fm_layer *layer, const fm_members *members, void *sums, ptrdiff_t sums_stride,
                        ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride);

    /* backward_members: backward of the layer that members share, all panels, with the sums of feature f's pattern in
     * place of dz. oracle: gradients */
    void (*backward_members)(const fm_layer *layer, const fm_layer *below, const fm_members *members, const void *sums,
                             ptrdiff_t sums_stride, void *scratch, ptrdiff_t first, ptrdiff_t rows);

    /* gradient_members: G (n, panel) = (accumulate ? G : 0) + x[:, i0 .. i0 + n]^T sums, panel p, over all rows of x;
     * update with batch = 0 and accumulate = 1 then applies the rule. numerics: as update. oracle: gradients */
    void (*gradient_members)(const fm_layer *layer, const fm_members *members, void *G, const void *sums,
                             ptrdiff_t sums_stride, ptrdiff_t i0, ptrdiff_t n, ptrdiff_t p, int accumulate);

    /* batch_norm_backward: dz, panel p, from the gradient of y to that of z, in place; d_scale and d_b
     * oracle: normalise_gradient */
    void (*batch_norm_backward)(const fm_layer *layer, ptrdiff_t p, ptrdiff_t batch, ptrdiff_t stride);

    /* gradient_csr: G (n, panel) = (accumulate ? G : 0) + x[:, i0 .. i0 + n]^T dz; dz one panel
     * update with batch = 0 and accumulate = 1 then applies the rule.
     * numerics: as update, without the multiply-adds whose x is 0. oracle: gradients */
    void (*gradient_csr)(void *G, const fm_csc *C, const void *dz, ptrdiff_t i0, ptrdiff_t n, int accumulate);

    /* gradient_codes: the same for coded rows and panel p of layer's W; dz (B, O) is the layer's. C has whole features,
     * those that own a row of i0 .. i0 + n
     * numerics: F[i], the sum of fraction dz, is a chain of multiply-adds from G; S[i], the sum of dz, a chain of
     * additions, both in the order of the rows. G[i] = F[i] + S[i + 1] + S[i + 2] ..., the bins up to the number's last
     * being added from behind; those beyond i0 + n come first, by element in four chains (element % 4),
     * (0 + 1) + (2 + 3). oracle: code_gradient */
    void (*gradient_codes)(const fm_layer *layer, void *G, const fm_csc *C, const fm_codes *X, ptrdiff_t i0,
                           ptrdiff_t n, ptrdiff_t p, ptrdiff_t stride, int accumulate);

    /* ---- Update */

    /* update: one block of weights, rows i0 <= i < i0 + n (i0 a multiple of FM_BLOCK_ROWS, n <= FM_BLOCK_ROWS), panel p
     *     G  = (accumulate ? G : 0) + x[:, i]^T dz[:, p]         over all `batch` rows
     *     g  = (G + l2 W + l1 sign(W)) clip / weight_sum
     *     W, state = rule(W, state, g);  penalty[column] += penalty_scale * column's penalty, before the update
     * Every 128th update flushes subnormal numbers in averages of gradients to 0.
     * rule < 0: G only (not the batch's last micro-batch). G: FM_BLOCK_ROWS * panel reals of the caller's.
     * numerics: G is one chain in the order of the batch. oracle: gradients, OPTIMIZERS, flush_subnormals */
    void (*update)(const fm_layer *layer, void *G, double *penalty, ptrdiff_t i0, ptrdiff_t n, ptrdiff_t p,
                   ptrdiff_t batch, ptrdiff_t stride, int accumulate, int rule, const fm_hyper *hyper);

    /* update_bias: the same for panel p of b, without penalty: G = sum over the batch of dz, or norm's d_b; panel reals
     */
    void (*update_bias)(const fm_layer *layer, void *G, ptrdiff_t p, ptrdiff_t batch, ptrdiff_t stride, int accumulate,
                        int rule, const fm_hyper *hyper);

    /* update_scale: the same for panel p of norm's scale: G = d_scale */
    void (*update_scale)(const fm_layer *layer, void *G, ptrdiff_t p, int rule, const fm_hyper *hyper);

    /* scaling_gradient: of a first layer whose weights are diag(s) W, rows i0 <= i < i0 + n of all panels; layer.W = W
     *     ds[r] = sum over o of G[r, o] W[i0 + r, o];  G[r, :] *= s[r]
     * so that G, the gradient of diag(s) W, becomes that of W, and ds is that of s. G: blocks of FM_BLOCK_ROWS rows,
     * one for each panel; ds, s: n reals. numerics: ds in chains of multiply-adds by column (column % (64 /
     * element_size)), which are added in pairs. oracle: gradients */
    void (*scaling_gradient)(const fm_layer *layer, void *G, void *ds, const void *s, ptrdiff_t i0, ptrdiff_t n);

    /* scale_rows: V[i, :] = s[i - i0] W[i, :] for the same rows; V in panels like layer.W. oracle: gradients */
    void (*scale_rows)(const fm_layer *layer, void *V, const void *s, ptrdiff_t i0, ptrdiff_t n);

    /* sum_squared_gradient: sum[column] = sum of g^2 over a block's rows; g of update with clip = 1, from a finished G
     * n = 0: a vector without penalty. numerics: in double, in the order of the rows. oracle: clip */
    void (*sum_squared_gradient)(const fm_layer *layer, const void *G, double *sum, ptrdiff_t i0, ptrdiff_t n,
                                 ptrdiff_t p, const fm_hyper *hyper);

    /* ---- Tables */

    fm_activation_row activations[FM_N_ACTIVATIONS];
    fm_output_row outputs[FM_N_OUTPUTS];
    fm_loss_row losses[FM_N_LOSSES];
    fm_optimizer_row optimizers[FM_N_OPTIMIZERS];
    fm_math_row math[FM_N_MATH];

    /* peak: n rounds of 24 independent multiply-adds per vector lane; returns the number of floating-point operations.
     * Benchmarks measure the FMA peak with it. */
    double (*peak)(ptrdiff_t n, void *sink);
} fm_kernels;

/* ---- Dispatch (dispatch.c) ------------------------------------------------------------------------------------- */

/* Rows of isa.def in this build, best first: name, whether the running CPU has it, table for element_size 4 or 8. */
int fm_isa_count(void);
const char *fm_isa_name(int i);
int fm_isa_available(int i);
const fm_kernels *fm_isa_kernels(int i, int element_size);

/* Rows of hyperparameters.def, FM_N_HYPERPARAMETERS of them. */
const fm_hyperparameter_row *fm_hyperparameters(void);
#endif
