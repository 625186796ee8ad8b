/* gemm.h: panels, and the product of two matrices in panels.
 *
 * A panel holds NR columns of a matrix, row after row, so a matrix of C columns is ceil(C / NR) panels:
 *
 *     element (r, c) is panels[(c / NR) * stride + r * NR + c % NR],   stride >= rows * NR
 *
 * All data of a training run is in panels: weights (fan-in rows), optimizer state, activations and gradients (a row per
 * sample). One layout serves every product, so only W^T is packed during a step:
 *
 *     forward           z = x W       broadcasts of x along its rows      vectors of W
 *     backward          dx = dz W^T   broadcasts of dz along its rows     vectors of W^T, transposed in chunks
 *     weight gradient   dW = x^T dz   broadcasts of x down its columns    vectors of dz
 *
 * (if the right operand has few columns, the operands change places, see gemm_nn_narrow.) A block of 32 rows of a
 * weight panel is contiguous; the update rule streams through it.
 *
 * Every element of a product is one chain of fused multiply-adds in the order of k, whatever the tile, the vector width
 * or the thread, so results are the same bits everywhere. Chunks of k keep the chain: the sum is stored and loaded
 * again.
 */
#ifndef FM_GEMM_H
#define FM_GEMM_H

#include "vector.h"

/* Rows of a tile: 2 MR accumulators, 2 vectors of the right operand and 1 broadcast fill 16 registers (32 with AVX-512
 * and on AArch64). */
#if FM_AVX512 || FM_NEON
#define MR 12
#else
#define MR 6
#endif
/* Rows of a tile one vector wide, for a panel at most half full: as many accumulators, to hide the latency of the
 * chains. */
#define MR_NARROW 12

/* Chunk of k: KC rows of a panel (16 or 32 KiB) stay in L1 for all rows of the left operand. A multiple of every NR. */
#define KC 256

/* What a tile prefetches: its rows of n panels, from `at` on. */
typedef struct prefetch {
    real *const *panel;
    int n;
    ptrdiff_t at;
} prefetch;

static const prefetch no_prefetch = {0};

/* tile: C[r, :] = start + sum over k of left(r, k) * B[k, :]   for r < mr, over nv vectors
 * left(r, k)   A along its rows (transposed = 0): element (r, k) of a matrix in panels, a_stride apart;
 *              down its columns (transposed = 1): element (k, r), all r within one panel
 * start        C itself (bias = NULL, accumulate), bias[:], or zero
 * next         mr rows of these are prefetched (transposed only), one before each mr-th part of k;
 *              all at once would fill the core's miss buffers and stall it */
FM_INLINE void tile(real *restrict C, const real *restrict A, const real *restrict B, const real *restrict bias,
                    int accumulate, ptrdiff_t k, ptrdiff_t a_stride, const prefetch *next, const int mr, const int nv,
                    const int transposed) {
    vec sum[MR_NARROW][2];
    for (int r = 0; r < mr; r++)
        for (int j = 0; j < nv; j++)
            sum[r][j] = accumulate ? v_load(C + r * NR + j * V) : bias ? v_load(bias + j * V) : v_set(0);
    if (transposed) {
        for (int part = 0; part <= mr; part++) {
            const ptrdiff_t links = part < mr ? k / mr : k % mr;
            for (int x = 0; x < next->n && part < mr; x++)
                for (ptrdiff_t line = 0; line < nv * V; line += 64 / (ptrdiff_t)sizeof(real))
                    __builtin_prefetch(next->panel[x] + next->at + part * NR + line, 1);
            for (ptrdiff_t i = 0; i < links; i++, A += NR, B += NR)
                for (int r = 0; r < mr; r++)
                    for (int j = 0; j < nv; j++)
                        sum[r][j] = v_fma(v_set(A[r]), v_load(B + j * V), sum[r][j]);
        }
    } else {
        for (; k >= NR; k -= NR, A += a_stride, B += NR * NR)
            for (ptrdiff_t i = 0; i < NR; i++)
                for (int r = 0; r < mr; r++)
                    for (int j = 0; j < nv; j++)
                        sum[r][j] = v_fma(v_set(A[r * NR + i]), v_load(B + i * NR + j * V), sum[r][j]);
        for (ptrdiff_t i = 0; i < k; i++)
            for (int r = 0; r < mr; r++)
                for (int j = 0; j < nv; j++)
                    sum[r][j] = v_fma(v_set(A[r * NR + i]), v_load(B + i * NR + j * V), sum[r][j]);
    }
    for (int r = 0; r < mr; r++)
        for (int j = 0; j < nv; j++)
            v_store(C + r * NR + j * V, sum[r][j]);
}

typedef void tile_function(real *C, const real *A, const real *B, const real *bias, int accumulate, ptrdiff_t k,
                           ptrdiff_t a_stride, const prefetch *next);
#define TILE(mr, nv, t)                                                                                                \
    static void tile_##mr##_##nv##_##t(real *C, const real *A, const real *B, const real *bias, int accumulate,        \
                                       ptrdiff_t k, ptrdiff_t a_stride, const prefetch *next) {                        \
        tile(C, A, B, bias, accumulate, k, a_stride, next, mr, nv, t);                                                 \
    }
#define TILES(mr, nv) TILE(mr, nv, 0) TILE(mr, nv, 1)
#define TILES_UP_TO_6(nv) TILES(1, nv) TILES(2, nv) TILES(3, nv) TILES(4, nv) TILES(5, nv) TILES(6, nv)
#define TILES_FROM_7(nv) TILES(7, nv) TILES(8, nv) TILES(9, nv) TILES(10, nv) TILES(11, nv) TILES(12, nv)
#define TILE_PAIR(mr, nv) {tile_##mr##_##nv##_0, tile_##mr##_##nv##_1}
#define ROWS_UP_TO_6(nv)                                                                                               \
    TILE_PAIR(1, nv), TILE_PAIR(2, nv), TILE_PAIR(3, nv), TILE_PAIR(4, nv), TILE_PAIR(5, nv), TILE_PAIR(6, nv)
#define ROWS_FROM_7(nv)                                                                                                \
    TILE_PAIR(7, nv), TILE_PAIR(8, nv), TILE_PAIR(9, nv), TILE_PAIR(10, nv), TILE_PAIR(11, nv), TILE_PAIR(12, nv)
/* clang-format off */
TILES_UP_TO_6(1) TILES_FROM_7(1) TILES_UP_TO_6(2)
#if MR == 12
TILES_FROM_7(2)
#endif
/* [vectors - 1][rows - 1][transposed] */
static tile_function *const tiles[2][MR_NARROW][2] = {
    {ROWS_UP_TO_6(1), ROWS_FROM_7(1)},
#if MR == 12
    {ROWS_UP_TO_6(2), ROWS_FROM_7(2)},
#else
    {ROWS_UP_TO_6(2)},
#endif
};
/* clang-format on */
static inline ptrdiff_t tile_rows(int nv) { return nv == 1 ? MR_NARROW : MR; }

/* Vectors that a panel with `cols` valid columns needs: one if half the panel is empty. */
static inline int panel_vectors(ptrdiff_t cols) { return cols > V ? 2 : 1; }

/* gemm_nn_chunk: gemm_nn over kc <= KC multiply-adds of each chain. Tiles have nearly equal heights: 64 rows make 9
 * tiles of 6 and 2 of 5, not 10 of 6 and one of 4. */
static void gemm_nn_chunk(real *C, const real *A, const real *B, const real *bias, ptrdiff_t rows, int accumulate,
                          ptrdiff_t kc, ptrdiff_t a_stride, int nv) {
    const ptrdiff_t most = tile_rows(nv), n_tiles = (rows + most - 1) / most;
    for (ptrdiff_t t = 0, r = 0; t < n_tiles; t++) {
        const ptrdiff_t height = (rows - r) / (n_tiles - t);
        tiles[nv - 1][height - 1][0](C + r * NR, A + r * NR, B, bias, accumulate, kc, a_stride, &no_prefetch);
        r += height;
    }
}

/* Left operands of more bytes than this are read from beyond L2, or push all else out of it. */
#define LARGE_OPERAND (256 * 1024)

/* Panels of the right operand that take a chunk of k one after the other, before the next chunk. With one, a panel's
 * results stay in L1 for all of k; with a large left operand of (rows, k), its chunk then stays in L2 for all of them.
 */
static inline ptrdiff_t panels_together(ptrdiff_t rows, ptrdiff_t k) {
    return k > KC && rows * k * (ptrdiff_t)sizeof(real) > LARGE_OPERAND ? 16 : 1;
}

/* gemm_nn for any number of columns. */
static void gemm_nn_wide(real *C, const real *A, const real *B, const real *bias, ptrdiff_t rows, ptrdiff_t k,
                         ptrdiff_t a_stride, ptrdiff_t columns, ptrdiff_t n_panels) {
    for (ptrdiff_t k0 = 0; k0 < k || k0 == 0; k0 += KC)
        for (ptrdiff_t p = 0; p < n_panels; p++)
            gemm_nn_chunk(C + p * a_stride, A + k0 / NR * a_stride, B + (p * k + k0) * NR, bias ? bias + p * NR : NULL,
                          rows, k0 > 0, min_of(KC, k - k0), a_stride, panel_vectors(columns - p * NR));
}

/* gemm_tn for any number of columns; nv vectors. */
static void gemm_tn_wide(real *G, const real *A, const real *B, int accumulate, ptrdiff_t n, ptrdiff_t k,
                         ptrdiff_t a_stride, int nv, real *const next[], int n_next) {
    const ptrdiff_t most = tile_rows(nv);
    for (ptrdiff_t k0 = 0; k0 < k; k0 += KC) {
        const ptrdiff_t kc = min_of(KC, k - k0);
        for (ptrdiff_t i0 = 0; i0 < n; i0 += NR) {
            const ptrdiff_t width = min_of(NR, n - i0), n_tiles = (width + most - 1) / most;
            const real *a = A + i0 / NR * a_stride + k0 * NR;
            for (ptrdiff_t t = 0, i = 0; t < n_tiles; t++) {
                const ptrdiff_t height = (width - i) / (n_tiles - t), at = (i0 + i) * NR;
                const prefetch own_rows = {next, k0 + KC >= k ? n_next : 0, at};
                tiles[nv - 1][height - 1][1](G + at, a + i, B + k0 * NR, NULL, accumulate || k0 > 0, kc, a_stride,
                                             &own_rows);
                i += height;
            }
        }
    }
}

/* chunk[o, i] = W[i, o] for `width` <= NR rows i and kc columns o, both from the first of a panel, NR x NR at a time; 0
 * in the lanes that pad the last vector. */
static void transpose_chunk(real *chunk, const real *W, ptrdiff_t fan_in, ptrdiff_t width, ptrdiff_t kc) {
    real rest[NR * NR]; /* the rows of the last NR x NR, if they are not whole vectors */
    for (ptrdiff_t o = 0; o < kc; o += NR, W += fan_in * NR, chunk += NR * NR) {
        const ptrdiff_t columns = min_of(NR, kc - o); /* the last vector may reach into the padding of W and chunk */
        const real *from = W;
        if (width % V) {
            from = rest;
            for (ptrdiff_t i = 0; i < NR; i++)
                for (ptrdiff_t c = 0; c < columns; c += V)
                    v_store(rest + i * NR + c, i < width ? v_load(W + i * NR + c) : v_set(0));
        }
        for (ptrdiff_t c = 0; c < columns; c += TRANSPOSED_ROWS)
            for (ptrdiff_t i = 0; i < width; i += V)
                transpose_rows(chunk + c * NR + i, NR, from + i * NR + c, NR);
    }
}

/* If B has few columns, the product is computed transposed, with its rows along the vectors: transposing input and
 * output costs less than mostly empty vectors. At the limits both take the same time. */
static inline int use_narrow_nn(ptrdiff_t columns, ptrdiff_t k) {
    return 0 < columns && columns <= (FM_DOUBLE ? V / 8 : V / 2) && k >= 16;
}
static inline int use_narrow_tn(ptrdiff_t columns, ptrdiff_t n) {
    return 5 * columns * ((n + NR - 1) / NR) < 2 * n && n >= V / 2;
}
#define MAX_NARROW_COLUMNS (4 * V / 5) /* of use_narrow_tn; they are a tile's rows */
_Static_assert(MAX_NARROW_COLUMNS <= MR && V / 2 <= MR, "a narrow product has more columns than a tile has rows");

/* gemm_nn for few columns: C^T = B^T A^T, NR or V rows of A transposed at a time, the last few by gemm_nn_wide. The
 * same chains. */
static void gemm_nn_narrow(real *C, const real *A, const real *B, const real *bias, ptrdiff_t rows, ptrdiff_t k,
                           ptrdiff_t a_stride, ptrdiff_t columns) {
    real A_t[NR * NR], C_t[V * NR];
    memset(C_t, 0, sizeof(C_t));
    while (rows >= V) {
        const int nv = rows >= NR ? 2 : 1;
        const ptrdiff_t height = nv * V;
        for (ptrdiff_t c = 0; c < columns; c++)
            for (int j = 0; j < nv; j++)
                v_store(C_t + c * NR + j * V, v_set(bias ? bias[c] : 0));
        for (ptrdiff_t k0 = 0; k0 < k; k0 += NR) {
            const ptrdiff_t kc = min_of(NR, k - k0);
            for (ptrdiff_t i = 0; i < kc; i += TRANSPOSED_ROWS)
                for (ptrdiff_t r = 0; r < height; r += V)
                    transpose_rows(A_t + i * NR + r, NR, A + k0 / NR * a_stride + r * NR + i, NR);
            tiles[nv - 1][columns - 1][1](C_t, B + k0 * NR, A_t, NULL, 1, kc, 0, &no_prefetch);
        }
        for (ptrdiff_t r = 0; r < height; r += TRANSPOSED_ROWS)
            transpose_rows(C + r * NR, NR, C_t + r, NR);
        rows -= height, A += height * NR, C += height * NR;
    }
    if (rows > 0)
        gemm_nn_wide(C, A, B, bias, rows, k, a_stride, 1, 1);
}

/* gemm_tn for few columns: G^T = B^T A. The same chains. */
static void gemm_tn_narrow(real *G, const real *A, const real *B, int accumulate, ptrdiff_t n, ptrdiff_t k,
                           ptrdiff_t a_stride, ptrdiff_t columns) {
    real G_t[V * NR];
    memset(G_t, 0, sizeof(G_t));
    for (ptrdiff_t i0 = 0; i0 < n; i0 += NR, A += a_stride, G += NR * NR) {
        const ptrdiff_t width = min_of(NR, n - i0);
        for (ptrdiff_t c = 0; c < columns && accumulate; c++)
            for (ptrdiff_t i = 0; i < NR; i++)
                G_t[c * NR + i] = i < width ? G[i * NR + c] : 0;
        tiles[1][columns - 1][1](G_t, B, A, NULL, accumulate, k, 0, &no_prefetch);
        for (ptrdiff_t i = 0; i < width; i += TRANSPOSED_ROWS)
            transpose_rows(G + i * NR, NR, G_t + i, NR);
    }
}

/* gemm_nn: C (rows, columns) = bias (NULL: 0) + A B, with A (rows, k) and C in panels, `stride` apart, and B (k,
 * columns) n_panels of weights, or of more, the first with `columns` valid columns from it on. */
static void gemm_nn(real *C, const real *A, const real *B, const real *bias, ptrdiff_t rows, ptrdiff_t k,
                    ptrdiff_t stride, ptrdiff_t columns, ptrdiff_t n_panels) {
    const ptrdiff_t last = (n_panels - 1) * NR;
    const int narrow = use_narrow_nn(columns - last, k);
    gemm_nn_wide(C, A, B, bias, rows, k, stride, columns, n_panels - narrow);
    if (narrow)
        gemm_nn_narrow(C + (n_panels - 1) * stride, A, B + last * k, bias ? bias + last : NULL, rows, k, stride,
                       columns - last);
}

/* gemm_tn: G (n, NR) = (accumulate ? G : 0) + A^T B, with A (k, n) in panels, from the first column of one; B (k, NR)
 * one panel with `columns` valid columns. next: n_next arrays shaped like G, to prefetch. */
static void gemm_tn(real *G, const real *A, const real *B, int accumulate, ptrdiff_t n, ptrdiff_t k, ptrdiff_t a_stride,
                    ptrdiff_t columns, real *const next[], int n_next) {
    if (use_narrow_tn(columns, n) && k > 0)
        gemm_tn_narrow(G, A, B, accumulate, n, k, a_stride, columns);
    else
        gemm_tn_wide(G, A, B, accumulate, n, k, a_stride, panel_vectors(columns), next, n_next);
}
#endif
