/* codes_template.h: functions of coded rows, for one type of the categories' codes. Included once for each, with CODE,
 * the type, and KIND(function), the function's name for it, defined before.
 */

/* gemm_codes: z[r] = b (NULL: 0) + the terms of row r's features, for two neighbouring panels, or for one if
 * n_panels = 1. The rows of W and C are w_row apart, their panels w_stride and c_stride. C = NULL: its rows are summed
 * up where they are needed. partial: one panel of `width` columns, the others are not read. */
FM_INLINE void KIND(gemm_codes_of)(real *z, const real *W, const real *C, const real *b, const fm_codes *X,
                                   const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride,
                                   ptrdiff_t w_row, ptrdiff_t w_stride, ptrdiff_t c_stride, ptrdiff_t width,
                                   const int n_panels, const int partial) {
    const ptrdiff_t low = min_of(width, V), columns[2] = {low, width - low}; /* of each vector, if partial */
    const ptrdiff_t *offset = X->offset, n_numbers = X->n_numbers, n_features = n_numbers + X->n_categories;
#define LOAD(from, panel_stride, j)                                                                                    \
    (partial ? v_load_n((from) + (j) * V, columns[j]) : v_load((from) + (j) / 2 * (panel_stride) + (j) % 2 * V))
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t row = order ? order[r] : first + r;
        const uint16_t *bin = X->bins + row * n_numbers;
        const float *fraction = X->fractions + row * n_numbers;
        const CODE *code = (const CODE *)X->categories + row * X->n_categories;
        vec sum[4];
        for (int j = 0; j < 2 * n_panels; j++)
            sum[j] = b ? LOAD(b, NR, j) : v_set(0);
        for (ptrdiff_t f = 0; f < n_numbers; f++) {
            const ptrdiff_t at = offset[f] + bin[f];
            const vec x = v_set((real)fraction[f]);
            const real *w = W + at * w_row;
            if (C) {
                const real *c = C + at * w_row;
                for (int j = 0; j < 2 * n_panels; j++)
                    sum[j] += LOAD(c, c_stride, j);
            } else {
                vec before[4] = {v_set(0), v_set(0), v_set(0), v_set(0)};
                if (at < offset[f + 1] - 1) /* not missing */
                    for (const real *v = W + offset[f] * w_row; v < w; v += w_row)
                        for (int j = 0; j < 2 * n_panels; j++)
                            before[j] += LOAD(v, w_stride, j);
                for (int j = 0; j < 2 * n_panels; j++)
                    sum[j] += before[j];
            }
            for (int j = 0; j < 2 * n_panels; j++)
                sum[j] = v_fma(x, LOAD(w, w_stride, j), sum[j]);
        }
        for (ptrdiff_t f = n_numbers; f < n_features; f++) {
            const ptrdiff_t at = offset[f] + (ptrdiff_t)code[f - n_numbers];
            if (at < offset[f + 1])
                for (int j = 0; j < 2 * n_panels; j++)
                    sum[j] += LOAD(W + at * w_row, w_stride, j);
        }
        for (int j = 0; j < 2 * n_panels; j++)
            v_store(z + j / 2 * stride + r * NR + j % 2 * V, sum[j]);
    }
#undef LOAD
}
static void KIND(gemm_codes)(real *z, const real *W, const real *C, const real *b, const fm_codes *X,
                             const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride,
                             ptrdiff_t w_stride, ptrdiff_t c_stride, int n_panels) {
    if (n_panels == 2)
        KIND(gemm_codes_of)(z, W, C, b, X, order, first, rows, stride, NR, w_stride, c_stride, NR, 2, 0);
    else
        KIND(gemm_codes_of)(z, W, C, b, X, order, first, rows, stride, NR, w_stride, c_stride, NR, 1, 0);
}
/* W, C and b row-major without gaps, from the panel's first column on. */
static void KIND(gemm_codes_unpacked)(real *z, const real *W, const real *C, const real *b, const fm_codes *X,
                                      ptrdiff_t first, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t w_row,
                                      ptrdiff_t width, int n_panels) {
    if (n_panels == 2)
        KIND(gemm_codes_of)(z, W, C, b, X, NULL, first, rows, stride, w_row, NR, NR, NR, 2, 0);
    else if (width == NR)
        KIND(gemm_codes_of)(z, W, C, b, X, NULL, first, rows, stride, w_row, NR, NR, NR, 1, 0);
    else
        KIND(gemm_codes_of)(z, W, C, b, X, NULL, first, rows, stride, w_row, NR, NR, width, 1, 1);
}

/* embed: z[r] for the panels p0 <= p < p1 of an embedding, a vector of units at a time, which are one feature's. Rows
 * and panels of W and C as in gemm_codes_of. */
static void KIND(embed)(real *z, const fm_layer *l, const real *C, const fm_codes *X, const ptrdiff_t *order,
                        ptrdiff_t first, ptrdiff_t p0, ptrdiff_t p1, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t w_row,
                        ptrdiff_t w_stride, ptrdiff_t c_stride) {
    const ptrdiff_t *offset = X->offset, n_numbers = X->n_numbers;
    for (ptrdiff_t column = p0 * NR; column < p1 * NR; column += V) {
        const ptrdiff_t f = column / l->embedding, unit = column % l->embedding;
        real *to = z + column / NR * stride + column % NR;
        if (column >= l->fan_out) { /* padding */
            for (ptrdiff_t r = 0; r < rows; r++)
                v_store(to + r * NR, v_set(0));
            continue;
        }
        const real *W = (const real *)l->W + unit / NR * w_stride + unit % NR;
        const real *sums = C ? C + unit / NR * c_stride + unit % NR : NULL;
        const vec b = v_load((const real *)l->b + column);
        for (ptrdiff_t r = 0; r < rows; r++) {
            const ptrdiff_t row = order ? order[r] : first + r;
            vec sum = b;
            if (f < n_numbers) {
                const ptrdiff_t at = offset[f] + X->bins[row * n_numbers + f];
                const real *w = W + at * w_row;
                vec before = v_set(0);
                if (sums)
                    before = v_load(sums + at * w_row);
                else if (at < offset[f + 1] - 1) /* not missing */
                    for (const real *v = W + offset[f] * w_row; v < w; v += w_row)
                        before += v_load(v);
                sum = v_fma(v_set((real)X->fractions[row * n_numbers + f]), v_load(w), sum + before);
            } else {
                const CODE *code = (const CODE *)X->categories + row * X->n_categories;
                const ptrdiff_t at = offset[f] + (ptrdiff_t)code[f - n_numbers];
                if (at < offset[f + 1])
                    sum += v_load(W + at * w_row);
            }
            v_store(to + r * NR, sum);
        }
    }
}

/* A counting sort of the codes of features f0 <= f < f1; rows stay in order within a column. */
static void KIND(codes_to_csc)(fm_csc *C, const fm_codes *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,
                               ptrdiff_t f0, ptrdiff_t f1) {
    const ptrdiff_t *offset = X->offset, n_numbers = X->n_numbers, c0 = offset[f0], columns = offset[f1] - c0;
    const ptrdiff_t split = min_of(f1, n_numbers), begin = f0 < n_numbers ? n_numbers : f0;
    ptrdiff_t *start = C->indptr, total = 0;
    memset(start, 0, (size_t)(columns + 1) * sizeof(*start));
    C->first_column = c0;
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t row = order ? order[r] : first + r;
        const uint16_t *bin = X->bins + row * n_numbers;
        const CODE *code = (const CODE *)X->categories + row * X->n_categories;
        for (ptrdiff_t f = f0; f < split; f++)
            start[offset[f] - c0 + bin[f]]++;
        for (ptrdiff_t f = begin; f < f1; f++)
            if ((ptrdiff_t)code[f - n_numbers] < offset[f + 1] - offset[f])
                start[offset[f] - c0 + (ptrdiff_t)code[f - n_numbers]]++;
    }
    for (ptrdiff_t c = 0; c <= columns; c++) { /* from counts to starts */
        const ptrdiff_t count = start[c];
        start[c] = total;
        total += count;
    }
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t row = order ? order[r] : first + r;
        const uint16_t *bin = X->bins + row * n_numbers;
        const float *fraction = X->fractions + row * n_numbers;
        const CODE *code = (const CODE *)X->categories + row * X->n_categories;
        for (ptrdiff_t f = f0; f < split; f++) {
            const ptrdiff_t at = start[offset[f] - c0 + bin[f]]++;
            C->indices[at] = (int32_t)r;
            ((real *)C->data)[at] = (real)fraction[f];
        }
        for (ptrdiff_t f = begin; f < f1; f++)
            if ((ptrdiff_t)code[f - n_numbers] < offset[f + 1] - offset[f]) {
                const ptrdiff_t at = start[offset[f] - c0 + (ptrdiff_t)code[f - n_numbers]]++;
                C->indices[at] = (int32_t)r;
                ((real *)C->data)[at] = 1;
            }
    }
    memmove(start + 1, start, (size_t)columns * sizeof(*start)); /* from ends back to starts */
    start[0] = 0;
}

#undef CODE
#undef KIND
