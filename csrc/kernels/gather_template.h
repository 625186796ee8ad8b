/* gather_template.h: rows of dense data to panels. Included once for each type of data, with DATA, the type, and
 * KIND(function), the function's name for it, defined before.
 *
 * Eight rows at a time, as many streams as the prefetcher follows. The next eight are prefetched meanwhile: no hardware
 * prefetcher finds rows in random order.
 */
static void KIND(gather_dense)(real *P, const fm_rows *X, const ptrdiff_t *order, ptrdiff_t first, ptrdiff_t rows,
                               ptrdiff_t stride) {
    const ptrdiff_t rs = X->row_stride, cs = X->column_stride;
    for (ptrdiff_t r0 = 0; r0 < rows; r0 += 8) {
        const ptrdiff_t r1 = min_of(r0 + 8, rows);
        for (ptrdiff_t c0 = 0; c0 < X->columns; c0 += NR) {
            const ptrdiff_t width = min_of(NR, X->columns - c0);
            real *restrict p = P + c0 / NR * stride + r0 * NR;
            for (ptrdiff_t r = r0; r < r1; r++, p += NR) {
                const DATA *restrict x = (const DATA *)X->data + (order ? order[r] : first + r) * rs + c0 * cs;
                if (cs == 1 && r + 8 < rows)
                    __builtin_prefetch((const DATA *)X->data + (order ? order[r + 8] : first + r + 8) * rs + c0, 0, 2);
                if (cs == 1 && width == NR && sizeof(DATA) == sizeof(real))
                    memcpy(p, x, (size_t)NR * sizeof(real));
                else if (cs == 1 && sizeof(DATA) == sizeof(real)) {
                    v_store(p, v_load_n((const real *)x, min_of(width, V)));
                    v_store(p + V, v_load_n((const real *)x + V, width > V ? width - V : 0));
                } else if (cs == 1 && width == NR)
                    for (ptrdiff_t j = 0; j < NR; j++)
                        p[j] = (real)x[j];
                else
                    for (ptrdiff_t j = 0; j < NR; j++)
                        p[j] = j < width ? (real)x[j * cs] : 0;
            }
        }
    }
}

#undef DATA
#undef KIND
