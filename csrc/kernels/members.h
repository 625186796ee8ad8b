/* members.h: the layer behind an embedding that several members share, each of which multiplies the features by
 * scalings of its own (fm_members).
 *
 * With s[m, f] the scalings, e[r, f] the embedding of row r's feature f, and W[f] the layer's rows of W for that
 * feature, member m's product is the sum over f of s[m, f] e[r, f] W[f]. e[r, f] W[f] is the same for all members, and
 * features with the same scalings have one pattern: their products are added up first. So a row costs one product
 * instead of one for each member, and a sum of the patterns' products for each member. Backwards, the members' dz are
 * added up for each pattern, and then multiplied as those of one network.
 */
#ifndef FM_MEMBERS_H
#define FM_MEMBERS_H

#include "fastmlp.h"
#include "gemm.h"

/* Features with equal scalings get the same pattern; patterns are numbered in the order of their first features. */
static ptrdiff_t group_features(ptrdiff_t *pattern, void *grouped_, const void *scalings_, ptrdiff_t n_members,
                                ptrdiff_t n_features) {
    const real *scalings = scalings_;
    real *grouped = grouped_;
    ptrdiff_t n = 0;
    for (ptrdiff_t f = 0; f < n_features; f++) {
        ptrdiff_t g = 0;
        for (ptrdiff_t m = 0; g < n && m < n_members;)
            if (grouped[m * n_features + g] == scalings[m * n_features + f])
                m++;
            else
                g++, m = 0;
        if (g == n) {
            for (ptrdiff_t m = 0; m < n_members; m++)
                grouped[m * n_features + g] = scalings[m * n_features + f];
            n++;
        }
        pattern[f] = g;
    }
    return n;
}

/* Columns of x that a product takes at a time: of one feature and, in panels, side by side. */
static inline ptrdiff_t piece_of(const fm_members *M, ptrdiff_t most) {
    return M->width % NR ? 16 : min_of(M->width, most);
}

/* out[a] = bias (NULL: 0) + sum over b < n_in of S[a * s_out + b * s_in] in[b] for `outs` outputs, over the rows of a
 * panel, of which nv vectors are valid. */
FM_INLINE void combine_some(real *out, ptrdiff_t out_apart, const real *in, ptrdiff_t in_apart, ptrdiff_t n_in,
                            const real *S, ptrdiff_t s_out, ptrdiff_t s_in, const real *bias, ptrdiff_t rows,
                            const int outs, const int nv) {
    for (ptrdiff_t r = 0; r < rows; r++) {
        vec sum[4][2];
        for (int a = 0; a < outs; a++)
            for (int j = 0; j < nv; j++)
                sum[a][j] = bias ? v_load(bias + j * V) : v_set(0);
        for (ptrdiff_t b = 0; b < n_in; b++) {
            vec x[2];
            for (int j = 0; j < nv; j++)
                x[j] = v_load(in + b * in_apart + r * NR + j * V);
            for (int a = 0; a < outs; a++)
                for (int j = 0; j < nv; j++)
                    sum[a][j] = v_fma(v_set(S[a * s_out + b * s_in]), x[j], sum[a][j]);
        }
        for (int a = 0; a < outs; a++)
            for (int j = 0; j < nv; j++)
                v_store(out + a * out_apart + r * NR + j * V, sum[a][j]);
    }
}

FM_INLINE void combine_of(real *out, ptrdiff_t n_out, ptrdiff_t out_apart, const real *in, ptrdiff_t n_in,
                          ptrdiff_t in_apart, const real *S, ptrdiff_t s_out, ptrdiff_t s_in, const real *bias,
                          ptrdiff_t rows, const int nv) {
    ptrdiff_t a = 0;
    for (; a + 4 <= n_out; a += 4)
        combine_some(out + a * out_apart, out_apart, in, in_apart, n_in, S + a * s_out, s_out, s_in, bias, rows, 4, nv);
    for (; a + 2 <= n_out; a += 2)
        combine_some(out + a * out_apart, out_apart, in, in_apart, n_in, S + a * s_out, s_out, s_in, bias, rows, 2, nv);
    for (; a < n_out; a++)
        combine_some(out + a * out_apart, out_apart, in, in_apart, n_in, S + a * s_out, s_out, s_in, bias, rows, 1, nv);
}

/* combine_some for any number of outputs. */
static void combine(real *out, ptrdiff_t n_out, ptrdiff_t out_apart, const real *in, ptrdiff_t n_in, ptrdiff_t in_apart,
                    const real *S, ptrdiff_t s_out, ptrdiff_t s_in, const real *bias, ptrdiff_t rows, int nv) {
    if (nv == 2)
        combine_of(out, n_out, out_apart, in, n_in, in_apart, S, s_out, s_in, bias, rows, 2);
    else
        combine_of(out, n_out, out_apart, in, n_in, in_apart, S, s_out, s_in, bias, rows, 1);
}

/* The members' z, panel p: forward_members before the activation. */
static void member_products(const fm_layer *l, const fm_members *M, real *products, ptrdiff_t p, ptrdiff_t first,
                            ptrdiff_t rows, ptrdiff_t stride) {
    const ptrdiff_t d = M->width, piece = piece_of(M, KC), n_tiles = (rows + FM_MEMBER_ROWS - 1) / FM_MEMBER_ROWS;
    const int nv = panel_vectors(l->fan_out - p * NR);
    real *z = (real *)(l->z ? l->z : l->y) + p * stride;
    for (ptrdiff_t t = 0, n; t < n_tiles; t++, first += n, rows -= n) {
        ptrdiff_t begun = 0; /* patterns */
        n = rows / (n_tiles - t);
        for (ptrdiff_t f = 0; f < M->n_features; f++) {
            const ptrdiff_t g = M->pattern[f];
            for (ptrdiff_t c = f * d; c < (f + 1) * d; c += piece)
                gemm_nn_chunk(products + g * n * NR, (const real *)l->x + c / NR * M->x_stride + first * NR + c % NR,
                              (const real *)l->W + (p * l->fan_in + c) * NR, NULL, n, g < begun || c > f * d,
                              min_of(piece, (f + 1) * d - c), M->x_stride, nv);
            begun += g == begun;
        }
        combine(z + first * NR, M->n, M->rows * NR, products, M->n_patterns, n * NR, M->scalings, M->n_features, 1,
                (const real *)l->b + p * NR, n, nv);
    }
}

static void sum_members(const fm_layer *l, const fm_members *M, void *sums, ptrdiff_t sums_stride, ptrdiff_t first,
                        ptrdiff_t rows, ptrdiff_t stride) {
    for (ptrdiff_t p = 0; p * NR < l->fan_out; p++)
        combine((real *)sums + p * sums_stride + first * NR, M->n_patterns, M->rows * NR,
                (const real *)l->dz + p * stride + first * NR, M->n, M->rows * NR, M->scalings, 1, M->n_features, NULL,
                rows, panel_vectors(l->fan_out - p * NR));
}

/* sums W^T into panel p of below's dz: backward_members before the activation. */
static void backward_product(const fm_layer *l, const fm_layer *below, const fm_members *M, const real *sums,
                             ptrdiff_t sums_stride, real *chunk, ptrdiff_t p, ptrdiff_t first, ptrdiff_t rows) {
    const ptrdiff_t width = piece_of(M, NR);
    for (ptrdiff_t c = p * NR; c < min_of((p + 1) * NR, l->fan_in); c += width) {
        const real *dz = sums + (M->pattern[c / M->width] * M->rows + first) * NR;
        for (ptrdiff_t o0 = 0; o0 < l->fan_out; o0 += KC) {
            const ptrdiff_t kc = min_of(KC, l->fan_out - o0);
            transpose_chunk(chunk, (const real *)l->W + o0 * l->fan_in + c * NR, l->fan_in, width, kc);
            gemm_nn_chunk((real *)below->dz + p * M->x_stride + first * NR + c % NR, dz + o0 / NR * sums_stride, chunk,
                          NULL, rows, o0 > 0, kc, sums_stride, panel_vectors(width));
        }
    }
}

static void gradient_members(const fm_layer *l, const fm_members *M, void *G, const void *sums, ptrdiff_t sums_stride,
                             ptrdiff_t i0, ptrdiff_t n, ptrdiff_t p, int accumulate) {
    const ptrdiff_t width = piece_of(M, NR);
    for (ptrdiff_t c = i0; c < i0 + n; c += width)
        gemm_tn_wide((real *)G + (c - i0) * NR, (const real *)l->x + c / NR * M->x_stride + c % NR,
                     (const real *)sums + p * sums_stride + M->pattern[c / M->width] * M->rows * NR, accumulate, width,
                     M->rows, M->x_stride, panel_vectors(l->fan_out - p * NR), NULL, 0);
}
#endif
