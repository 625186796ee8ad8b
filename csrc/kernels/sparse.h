/* sparse.h: the first layer on CSR rows, at a cost that follows the stored elements. Each result is the chain that
 * gemm.h takes, without the links whose x is zero, so it is the same number as from the dense rows. Rows must be
 * canonical: columns increasing within a row. Included by kernels.c only.
 *
 * Where a product with all elements is faster (few zeros), or rows are not canonical, the caller gathers them densely.
 */
#ifndef FM_SPARSE_H
#define FM_SPARSE_H

#include "fastmlp.h"
#include "gemm.h"

/* Expands ROW(type, index) for the four kinds of CSR; CSR_KIND picks the function name##_type_index that X needs. */
#define CSR_KINDS(ROW) ROW(float, int32_t) ROW(float, int64_t) ROW(double, int32_t) ROW(double, int64_t)
#define CSR_KIND(name, X)                                                                                              \
    ((X)->is_int64 ? ((X)->is_double ? name##_double_int64_t : name##_float_int64_t)                                   \
                   : ((X)->is_double ? name##_double_int32_t : name##_float_int32_t))

/* Duplicate entries of a CSR row add up, as they do in SciPy. */
#define GATHER_CSR(type, index)                                                                                        \
    static void gather_csr_##type##_##index(real *P, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first,        \
                                            ptrdiff_t rows, ptrdiff_t stride) {                                        \
        const index *indptr = X->indptr, *indices = X->indices;                                                        \
        const type *data = X->data;                                                                                    \
        for (ptrdiff_t c0 = 0; c0 < X->columns; c0 += NR)                                                              \
            memset(P + c0 / NR * stride, 0, (size_t)(rows * NR) * sizeof(real));                                       \
        for (ptrdiff_t r = 0; r < rows; r++) {                                                                         \
            const ptrdiff_t row = order ? order[r] : first + r;                                                        \
            for (index i = indptr[row]; i < indptr[row + 1]; i++)                                                      \
                P[indices[i] / NR * stride + r * NR + indices[i] % NR] += (real)data[i];                               \
        }                                                                                                              \
    }
CSR_KINDS(GATHER_CSR)

/* z[r] = b (NULL: 0) + x[r] W for two neighbouring panels (W's lie w_stride apart), or for one if n_panels = 1. */
#define PRODUCT_CSR(type, index)                                                                                       \
    FM_INLINE void gemm_csr_of_##type##_##index(real *z, const real *W, const real *b, const fm_rows *X,               \
                                                const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,               \
                                                ptrdiff_t stride, ptrdiff_t w_stride, const int n_panels) {            \
        const index *indptr = X->indptr, *indices = X->indices;                                                        \
        const type *data = X->data;                                                                                    \
        for (ptrdiff_t r = 0; r < rows; r++) {                                                                         \
            const ptrdiff_t row = order ? order[r] : first + r;                                                        \
            vec sum[4];                                                                                                \
            for (int j = 0; j < 2 * n_panels; j++)                                                                     \
                sum[j] = b ? v_load(b + j * V) : v_set(0);                                                             \
            for (index i = indptr[row]; i < indptr[row + 1]; i++) {                                                    \
                const vec x = v_set((real)data[i]);                                                                    \
                const real *w = W + indices[i] * NR;                                                                   \
                for (int j = 0; j < 2 * n_panels; j++)                                                                 \
                    sum[j] = v_fma(x, v_load(w + j / 2 * w_stride + j % 2 * V), sum[j]);                               \
            }                                                                                                          \
            for (int j = 0; j < 2 * n_panels; j++)                                                                     \
                v_store(z + j / 2 * stride + r * NR + j % 2 * V, sum[j]);                                              \
        }                                                                                                              \
    }                                                                                                                  \
    static void gemm_csr_##type##_##index(real *z, const real *W, const real *b, const fm_rows *X,                     \
                                          const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride,   \
                                          ptrdiff_t w_stride, int n_panels) {                                          \
        if (n_panels == 2)                                                                                             \
            gemm_csr_of_##type##_##index(z, W, b, X, order, first, rows, stride, w_stride, 2);                         \
        else                                                                                                           \
            gemm_csr_of_##type##_##index(z, W, b, X, order, first, rows, stride, w_stride, 1);                         \
    }
CSR_KINDS(PRODUCT_CSR)

/* Where the columns c0 .. c1 of a row begin; its end where there are none. */
#define CSR_TO_CSC(type, index)                                                                                        \
    static ptrdiff_t from_column_##type##_##index(const fm_rows *X, ptrdiff_t row, ptrdiff_t c0) {                     \
        const index *indices = X->indices;                                                                             \
        ptrdiff_t low = ((const index *)X->indptr)[row], high = ((const index *)X->indptr)[row + 1];                   \
        while (low < high) {                                                                                           \
            const ptrdiff_t middle = low + (high - low) / 2;                                                           \
            if (indices[middle] < c0)                                                                                  \
                low = middle + 1;                                                                                      \
            else                                                                                                       \
                high = middle;                                                                                         \
        }                                                                                                              \
        return low;                                                                                                    \
    }                                                                                                                  \
    /* A counting sort by column: rows stay in order within one. */                                                    \
    static void csr_to_csc_##type##_##index(fm_csc *C, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first,      \
                                            ptrdiff_t rows, ptrdiff_t c0, ptrdiff_t c1) {                              \
        const index *indices = X->indices, *indptr = X->indptr;                                                        \
        ptrdiff_t *start = C->indptr, total = 0;                                                                       \
        memset(start, 0, (size_t)(c1 - c0 + 1) * sizeof(*start));                                                      \
        C->first_column = c0;                                                                                          \
        for (ptrdiff_t r = 0; r < rows; r++) {                                                                         \
            const ptrdiff_t row = order ? order[r] : first + r;                                                        \
            for (ptrdiff_t i = from_column_##type##_##index(X, row, c0); i < indptr[row + 1] && indices[i] < c1; i++)  \
                start[indices[i] - c0]++;                                                                              \
        }                                                                                                              \
        for (ptrdiff_t c = 0; c <= c1 - c0; c++) { /* counts to where each column begins */                            \
            const ptrdiff_t count = start[c];                                                                          \
            start[c] = total;                                                                                          \
            total += count;                                                                                            \
        }                                                                                                              \
        for (ptrdiff_t r = 0; r < rows; r++) {                                                                         \
            const ptrdiff_t row = order ? order[r] : first + r;                                                        \
            for (ptrdiff_t i = from_column_##type##_##index(X, row, c0); i < indptr[row + 1] && indices[i] < c1;       \
                 i++) {                                                                                                \
                const ptrdiff_t at = start[indices[i] - c0]++;                                                         \
                C->indices[at] = (int32_t)r;                                                                           \
                ((real *)C->data)[at] = (real)((const type *)X->data)[i];                                              \
            }                                                                                                          \
        }                                                                                                              \
        memmove(start + 1, start, (size_t)(c1 - c0) * sizeof(*start)); /* from ends back to beginnings */              \
        start[0] = 0;                                                                                                  \
    }
CSR_KINDS(CSR_TO_CSC)

static void csr_to_csc(fm_csc *C, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,
                       ptrdiff_t c0, ptrdiff_t c1) {
    CSR_KIND(csr_to_csc, X)(C, X, order, first, rows, c0, c1);
}

static void gradient_csr(void *G, const fm_csc *C, const void *dz_, ptrdiff_t i0, ptrdiff_t n, int accumulate) {
    const real *dz = dz_;
    for (ptrdiff_t i = 0; i < n; i++) {
        real *g = (real *)G + i * NR;
        vec low = accumulate ? v_load(g) : v_set(0), high = accumulate ? v_load(g + V) : v_set(0);
        for (ptrdiff_t e = C->indptr[i0 + i - C->first_column]; e < C->indptr[i0 + i + 1 - C->first_column]; e++) {
            const vec x = v_set(((const real *)C->data)[e]);
            low = v_fma(x, v_load(dz + C->indices[e] * NR), low);
            high = v_fma(x, v_load(dz + C->indices[e] * NR + V), high);
        }
        v_store(g, low);
        v_store(g + V, high);
    }
}
#endif
