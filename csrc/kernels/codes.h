/* codes.h: the first layer on coded rows (fm_codes), at a cost per row that follows the number of features and not of
 * their bins and categories. Where all sums are exact, each result is that of the dense encoding. An embedding is such
 * a layer in which each unit has one feature.
 *
 * A number in bin k of m adds W[0] + ... + W[k - 1] + fraction W[k], of its own rows of W. The sums of the rows before
 * each bin, C, are the same for all rows of a batch. Backwards, with F[i] = sum of fraction dz and S[i] = sum of dz
 * over the batch's rows in bin i, dW[i] = F[i] + S[i + 1] + ... + S[m - 1]: one running sum from the last bin down.
 */
#ifndef FM_CODES_H
#define FM_CODES_H

#include "fastmlp.h"
#include "gemm.h"

#define CODE uint16_t
#define KIND(function) function##_uint16
#include "codes_template.h"
#define CODE uint32_t
#define KIND(function) function##_uint32
#include "codes_template.h"

/* The one of the two that X needs. */
#define CODES_KIND(function, X) ((X)->is_uint32 ? function##_uint32 : function##_uint16)

static void sum_bins(void *C_, const void *W_, const fm_codes *X, ptrdiff_t columns, ptrdiff_t f0, ptrdiff_t f1) {
    for (ptrdiff_t f = f0; f < f1; f++)
        for (ptrdiff_t c = 0; c < columns; c += V) {
            const ptrdiff_t width = min_of(V, columns - c), missing = X->offset[f + 1] - 1;
            const real *W = (const real *)W_ + c;
            real *C = (real *)C_ + c;
            vec sum = v_set(0);
            for (ptrdiff_t i = X->offset[f]; i < missing; i++) {
                v_store_n(C + i * columns, sum, width);
                sum += v_load_n(W + i * columns, width);
            }
            v_store_n(C + missing * columns, v_set(0), width);
        }
}

/* The feature that owns row i of W, by bisection. */
static ptrdiff_t feature_of(const fm_codes *X, ptrdiff_t i) {
    ptrdiff_t low = 0, high = X->n_numbers + X->n_categories - 1;
    while (low < high) {
        const ptrdiff_t middle = high - (high - low) / 2;
        if (X->offset[middle] <= i)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static void codes_to_csc(fm_csc *C, const fm_codes *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,
                         ptrdiff_t c0, ptrdiff_t c1) {
    if (c0 < c1)
        CODES_KIND(codes_to_csc, X)(C, X, order, first, rows, feature_of(X, c0), feature_of(X, c1 - 1) + 1);
}

/* sum[j] = sum of dz[j] over the elements begin .. end, in four chains (element % 4). */
FM_INLINE void sum_elements(vec sum[2], const fm_csc *C, const real *const dz[2], ptrdiff_t begin, ptrdiff_t end,
                            const int vectors) {
    vec chain[4][2];
    for (int i = 0; i < 4; i++)
        chain[i][0] = chain[i][1] = v_set(0);
    ptrdiff_t e = begin;
    for (; e + 4 <= end; e += 4)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < vectors; j++)
                chain[i][j] += v_load(dz[j] + C->indices[e + i] * NR);
    for (; e < end; e++)
        for (int j = 0; j < vectors; j++)
            chain[(e - begin) % 4][j] += v_load(dz[j] + C->indices[e] * NR);
    for (int j = 0; j < vectors; j++)
        sum[j] = (chain[0][j] + chain[1][j]) + (chain[2][j] + chain[3][j]);
}

/* vectors: those of the panel that are not padding. */
FM_INLINE void gradient_codes_of(const fm_layer *l, void *G, const fm_csc *C, const fm_codes *X, ptrdiff_t i0,
                                 ptrdiff_t n, ptrdiff_t p, ptrdiff_t stride, int accumulate, const int vectors) {
    const real *data = C->data, *dz[2];
    const ptrdiff_t *offset = X->offset, *start = C->indptr, c0 = C->first_column;
    ptrdiff_t f = feature_of(X, i0 + n - 1);
    for (ptrdiff_t i = i0 + n - 1; i >= i0; f--) {
        const ptrdiff_t begin = offset[f] > i0 ? offset[f] : i0;
        const ptrdiff_t bins_end = f < X->n_numbers ? offset[f + 1] - 1 : offset[f];
        vec behind[2] = {v_set(0), v_set(0)};
        for (int j = 0; j < vectors; j++) {
            const ptrdiff_t column = f * l->embedding + p * NR + j * V;
            dz[j] = (const real *)l->dz + column / NR * stride + column % NR;
        }
        if (bins_end > i + 1)
            sum_elements(behind, C, dz, start[i + 1 - c0], start[bins_end - c0], vectors);
        for (; i >= begin; i--) {
            real *g = (real *)G + (i - i0) * NR;
            if (accumulate && i >= bins_end && start[i - c0] == start[i + 1 - c0])
                continue; /* nothing to add: of many categories, most are in no row */
            vec sum[2] = {v_set(0), v_set(0)}, own[2] = {v_set(0), v_set(0)};
            for (int j = 0; j < vectors && accumulate; j++)
                sum[j] = v_load(g + j * V);
            for (ptrdiff_t e = start[i - c0]; e < start[i + 1 - c0]; e++) {
                const vec x = v_set(data[e]);
                for (int j = 0; j < vectors; j++) {
                    const vec d = v_load(dz[j] + C->indices[e] * NR);
                    sum[j] = v_fma(x, d, sum[j]);
                    own[j] += d;
                }
            }
            for (int j = 0; j < 2; j++) {
                v_store(g + j * V, i < bins_end ? sum[j] + behind[j] : sum[j]);
                if (i < bins_end) /* missing numbers are in no bin */
                    behind[j] += own[j];
            }
        }
    }
}

static void gradient_codes(const fm_layer *l, void *G, const fm_csc *C, const fm_codes *X, ptrdiff_t i0, ptrdiff_t n,
                           ptrdiff_t p, ptrdiff_t stride, int accumulate) {
    if (l->embedding && p * NR + V >= l->embedding)
        gradient_codes_of(l, G, C, X, i0, n, p, stride, accumulate, 1);
    else
        gradient_codes_of(l, G, C, X, i0, n, p, stride, accumulate, 2);
}
#endif
