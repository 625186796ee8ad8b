/* sparse.h: the first layer on CSR rows, at a cost that follows the stored elements. Each result is the chain of gemm.h
 * without the multiply-adds whose x is zero, so it is the same number as from the dense rows. Rows must be canonical:
 * columns increase within a row. Where the dense product is faster, the caller gathers the rows.
 */
#ifndef FM_SPARSE_H
#define FM_SPARSE_H

#include "fastmlp.h"
#include "gemm.h"

#define DATA float
#define INDEX int32_t
#define KIND(function) function##_float_int32_t
#include "csr_template.h"
#define DATA float
#define INDEX int64_t
#define KIND(function) function##_float_int64_t
#include "csr_template.h"
#define DATA double
#define INDEX int32_t
#define KIND(function) function##_double_int32_t
#include "csr_template.h"
#define DATA double
#define INDEX int64_t
#define KIND(function) function##_double_int64_t
#include "csr_template.h"

/* The one of the four that X needs. */
#define CSR_KIND(function, X)                                                                                          \
    ((X)->is_int64 ? ((X)->is_double ? function##_double_int64_t : function##_float_int64_t)                           \
                   : ((X)->is_double ? function##_double_int32_t : function##_float_int32_t))

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
