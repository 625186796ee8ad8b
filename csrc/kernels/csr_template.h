/* csr_template.h: functions of CSR rows, for one type of data and of index. Included once for each pair, with
 * DATA and INDEX, the types, and KIND(function), the function's name for them, defined before.
 */

/* Duplicate entries of a CSR row add up, as in SciPy. */
static void KIND(gather_csr)(real *P, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,
                             ptrdiff_t stride) {
    const INDEX *indptr = X->indptr, *indices = X->indices;
    const DATA *data = X->data;
    for (ptrdiff_t c0 = 0; c0 < X->columns; c0 += NR)
        memset(P + c0 / NR * stride, 0, (size_t)(rows * NR) * sizeof(real));
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t row = order ? order[r] : first + r;
        for (INDEX i = indptr[row]; i < indptr[row + 1]; i++)
            P[indices[i] / NR * stride + r * NR + indices[i] % NR] += (real)data[i];
    }
}

/* gemm_csr: z[r] = b (NULL: 0) + x[r] W for two neighbouring panels, or for one if n_panels = 1.
 * W's rows are w_row apart, its panels w_stride. partial: one panel of `width` columns, the others are not read. */
FM_INLINE void KIND(gemm_csr_of)(real *z, const real *W, const real *b, const fm_rows *X, const ptrdiff_t *order,
                                 ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t w_row, ptrdiff_t w_stride,
                                 ptrdiff_t width, const int n_panels, const int partial) {
    const INDEX *indptr = X->indptr, *indices = X->indices;
    const DATA *data = X->data;
    const ptrdiff_t low = min_of(width, V), columns[2] = {low, width - low}; /* of each vector, if partial */
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t row = order ? order[r] : first + r;
        vec sum[4];
        for (int j = 0; j < 2 * n_panels; j++)
            sum[j] = !b ? v_set(0) : partial ? v_load_n(b + j * V, columns[j]) : v_load(b + j * V);
        for (INDEX i = indptr[row]; i < indptr[row + 1]; i++) {
            const vec x = v_set((real)data[i]);
            const real *w = W + indices[i] * w_row;
            for (int j = 0; j < 2 * n_panels; j++)
                sum[j] = v_fma(x, partial ? v_load_n(w + j * V, columns[j]) : v_load(w + j / 2 * w_stride + j % 2 * V),
                               sum[j]);
        }
        for (int j = 0; j < 2 * n_panels; j++)
            v_store(z + j / 2 * stride + r * NR + j % 2 * V, sum[j]);
    }
}
static void KIND(gemm_csr)(real *z, const real *W, const real *b, const fm_rows *X, const ptrdiff_t *order,
                           ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t w_stride, int n_panels) {
    if (n_panels == 2)
        KIND(gemm_csr_of)(z, W, b, X, order, first, rows, stride, NR, w_stride, NR, 2, 0);
    else
        KIND(gemm_csr_of)(z, W, b, X, order, first, rows, stride, NR, w_stride, NR, 1, 0);
}
/* W and b row-major without gaps, from the panel's first column on. */
static void KIND(gemm_csr_unpacked)(real *z, const real *W, const real *b, const fm_rows *X, ptrdiff_t first,
                                    ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t w_row, ptrdiff_t width, int n_panels) {
    if (n_panels == 2)
        KIND(gemm_csr_of)(z, W, b, X, NULL, first, rows, stride, w_row, NR, NR, 2, 0);
    else if (width == NR)
        KIND(gemm_csr_of)(z, W, b, X, NULL, first, rows, stride, w_row, NR, NR, 1, 0);
    else
        KIND(gemm_csr_of)(z, W, b, X, NULL, first, rows, stride, w_row, NR, width, 1, 1);
}

/* The row's first stored element whose column is c0 or more, by bisection. */
static ptrdiff_t KIND(lower_bound)(const fm_rows *X, ptrdiff_t row, ptrdiff_t c0) {
    const INDEX *indices = X->indices;
    ptrdiff_t low = ((const INDEX *)X->indptr)[row], high = ((const INDEX *)X->indptr)[row + 1];
    while (low < high) {
        const ptrdiff_t middle = low + (high - low) / 2;
        if (indices[middle] < c0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* A counting sort by column; rows stay in order within one. */
static void KIND(csr_to_csc)(fm_csc *C, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,
                             ptrdiff_t c0, ptrdiff_t c1) {
    const INDEX *indices = X->indices, *indptr = X->indptr;
    ptrdiff_t *start = C->indptr, total = 0;
    memset(start, 0, (size_t)(c1 - c0 + 1) * sizeof(*start));
    C->first_column = c0;
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t row = order ? order[r] : first + r;
        for (ptrdiff_t i = KIND(lower_bound)(X, row, c0); i < indptr[row + 1] && indices[i] < c1; i++)
            start[indices[i] - c0]++;
    }
    for (ptrdiff_t c = 0; c <= c1 - c0; c++) { /* from counts to starts */
        const ptrdiff_t count = start[c];
        start[c] = total;
        total += count;
    }
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t row = order ? order[r] : first + r;
        for (ptrdiff_t i = KIND(lower_bound)(X, row, c0); i < indptr[row + 1] && indices[i] < c1; i++) {
            const ptrdiff_t at = start[indices[i] - c0]++;
            C->indices[at] = (int32_t)r;
            ((real *)C->data)[at] = (real)((const DATA *)X->data)[i];
        }
    }
    memmove(start + 1, start, (size_t)(c1 - c0) * sizeof(*start)); /* from ends back to starts */
    start[0] = 0;
}

#undef DATA
#undef INDEX
#undef KIND
