# Mirror of csrc/fastmlp.h and csrc/runtime, and C11's atomic_flag.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

cdef extern from "fastmlp.h" nogil:
    enum:
        FM_BLOCK_ROWS
        FM_CHUNK_ROWS
        FM_MEMBER_ROWS
        FM_MAX_STATE
        FM_N_ACTIVATIONS
        FM_N_OUTPUTS
        FM_N_LOSSES
        FM_N_OPTIMIZERS
        FM_N_HYPERPARAMETERS
        FM_N_MATH
        FM_ACTIVATION_identity
        FM_STREAM_NOISE
        FM_STREAM_MASK

    const double FM_NORM_EPSILON

    ctypedef struct fm_rng:
        uint32_t key[2]
        uint32_t step
        Py_ssize_t row
        Py_ssize_t rows
        Py_ssize_t batch

    ctypedef struct fm_batch_norm:
        void *scale
        void *scale_state[3]
        void *running_mean
        void *running_variance
        void *batch_mean
        void *batch_variance
        void *inverse_std
        void *d_scale
        void *d_b

    ctypedef struct fm_layer:
        Py_ssize_t fan_in, fan_out
        Py_ssize_t embedding
        int activation, residual, is_finite
        void *W
        void *b
        void *W_state[3]
        void *b_state[3]
        fm_batch_norm *norm
        const void *scale
        const void *shift
        void *x
        void *z
        void *y
        void *dz
        void *out
        void *dout
        void *dropout_mask
        double dropout_rate
        const fm_rng *rng
        uint32_t stream

    ctypedef struct fm_members:
        Py_ssize_t n, n_features, n_patterns, rows, width, x_stride
        Py_ssize_t *pattern
        void *scalings

    ctypedef struct fm_rows:
        const void *data
        const void *indices
        const void *indptr
        Py_ssize_t row_stride, column_stride, columns
        int is_double, is_sparse, is_int64

    ctypedef struct fm_codes:
        const uint16_t *bins
        const float *fractions
        const void *categories
        const Py_ssize_t *offset
        Py_ssize_t n_numbers, n_categories
        int is_uint32

    ctypedef struct fm_csc:
        Py_ssize_t first_column
        Py_ssize_t *indptr
        int32_t *indices
        void *data

    ctypedef struct fm_targets:
        const Py_ssize_t *classes
        const void *values
        const uint8_t *bytes
        const double *weights
        const double *output_weights
        double parameter, smoothing, mix

    double fm_mixed_weight(double own, double partner, double mix) noexcept nogil

    ctypedef struct fm_augment:
        double noise, mask, dropout

    ctypedef struct fm_hyper:
        double learning_rate, epsilon, weight_decay
        double l1, l2, clip, weight_sum, penalty_scale, norm_momentum
        Py_ssize_t t

    ctypedef struct fm_hyperparameter_row:
        const char *name
        size_t offset
        double standard

    ctypedef struct fm_activation_row:
        const char *name
        int from_input
        void (*forward)(void *y, const void *x, Py_ssize_t n) noexcept nogil
        void (*derivative)(void *d, const void *x_or_y, Py_ssize_t n) noexcept nogil

    ctypedef struct fm_output_row:
        const char *name
        void (*apply)(void *a, Py_ssize_t rows, Py_ssize_t columns) noexcept nogil

    ctypedef struct fm_loss_row:
        const char *name
        int target_is_class, output

    ctypedef struct fm_optimizer_row:
        const char *name
        int n_state
        void (*prepare)(fm_hyper *hyper) noexcept nogil

    ctypedef struct fm_math_row:
        const char *name
        void (*map)(void *y, const void *x, Py_ssize_t n) noexcept nogil

    ctypedef struct fm_kernels:
        const char *isa
        int element_size, vector, panel
        void (*gather)(void *P, const fm_rows *X, const Py_ssize_t *order, Py_ssize_t first, Py_ssize_t rows,
                       Py_ssize_t stride) noexcept nogil
        void (*augment)(void *P, const void *Q, double mix, const fm_augment *settings, const fm_rng *rng,
                        Py_ssize_t first, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t stride) noexcept nogil
        void (*scatter)(void *M, const void *P, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t stride) noexcept nogil
        void (*forward)(const fm_layer *layer, Py_ssize_t p0, Py_ssize_t p1, Py_ssize_t first, Py_ssize_t rows,
                        Py_ssize_t stride) noexcept nogil
        void (*forward_csr)(const fm_layer *layer, const fm_rows *X, const Py_ssize_t *order, Py_ssize_t first_row,
                            Py_ssize_t first, Py_ssize_t rows, Py_ssize_t stride) noexcept nogil
        void (*csr_to_csc)(fm_csc *C, const fm_rows *X, const Py_ssize_t *order, Py_ssize_t first_row, Py_ssize_t rows,
                           Py_ssize_t c0, Py_ssize_t c1) noexcept nogil
        void (*gradient_csr)(void *G, const fm_csc *C, const void *dz, Py_ssize_t i0, Py_ssize_t n,
                             int accumulate) noexcept nogil
        void (*sum_bins)(void *C, const void *W, const fm_codes *X, Py_ssize_t columns, Py_ssize_t f0,
                         Py_ssize_t f1) noexcept nogil
        void (*forward_codes)(const fm_layer *layer, const void *C, const fm_codes *X, const Py_ssize_t *order,
                              Py_ssize_t first_row, Py_ssize_t first, Py_ssize_t rows,
                              Py_ssize_t stride) noexcept nogil
        void (*forward_codes_unpacked)(const fm_layer *layer, const void *C, const fm_codes *X, Py_ssize_t first_row,
                                       Py_ssize_t p0, Py_ssize_t p1, Py_ssize_t rows,
                                       Py_ssize_t stride) noexcept nogil
        void (*codes_to_csc)(fm_csc *C, const fm_codes *X, const Py_ssize_t *order, Py_ssize_t first_row,
                             Py_ssize_t rows, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil
        void (*gradient_codes)(const fm_layer *layer, void *G, const fm_csc *C, const fm_codes *X, Py_ssize_t i0,
                               Py_ssize_t n, Py_ssize_t p, Py_ssize_t stride, int accumulate) noexcept nogil
        Py_ssize_t (*group_features)(Py_ssize_t *pattern, void *grouped, const void *scalings, Py_ssize_t n_members,
                                     Py_ssize_t n_features) noexcept nogil
        void (*forward_members)(const fm_layer *layer, const fm_members *members, void *scratch, Py_ssize_t first,
                                Py_ssize_t rows, Py_ssize_t stride) noexcept nogil
        void (*forward_row_members)(const fm_layer *layer, const fm_members *members, void *scratch, void *y,
                                    const void *x) noexcept nogil
        void (*sum_members)(const fm_layer *layer, const fm_members *members, void *sums, Py_ssize_t sums_stride,
                            Py_ssize_t first, Py_ssize_t rows, Py_ssize_t stride) noexcept nogil
        void (*backward_members)(const fm_layer *layer, const fm_layer *below, const fm_members *members,
                                 const void *sums, Py_ssize_t sums_stride, void *scratch, Py_ssize_t first,
                                 Py_ssize_t rows) noexcept nogil
        void (*gradient_members)(const fm_layer *layer, const fm_members *members, void *G, const void *sums,
                                 Py_ssize_t sums_stride, Py_ssize_t i0, Py_ssize_t n, Py_ssize_t p,
                                 int accumulate) noexcept nogil
        void (*batch_norm_forward)(const fm_layer *layer, Py_ssize_t p, Py_ssize_t batch,
                                   Py_ssize_t stride) noexcept nogil
        void (*update_running_statistics)(const fm_layer *layer, Py_ssize_t p, const fm_hyper *hyper) noexcept nogil
        void (*loss_gradient)(int loss, void *z, double *value, void *scratch, const fm_targets *targets,
                              const Py_ssize_t *order, const Py_ssize_t *partner, Py_ssize_t first_target,
                              Py_ssize_t first, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t stride) noexcept nogil
        void (*loss_value)(int loss, void *a, double *value, void *scratch, const fm_targets *targets,
                           Py_ssize_t first_target, Py_ssize_t rows, Py_ssize_t columns) noexcept nogil
        void (*backward)(const fm_layer *layer, const fm_layer *below, void *scratch, Py_ssize_t p0, Py_ssize_t p1,
                         Py_ssize_t first, Py_ssize_t rows, Py_ssize_t stride) noexcept nogil
        void (*batch_norm_backward)(const fm_layer *layer, Py_ssize_t p, Py_ssize_t batch,
                                    Py_ssize_t stride) noexcept nogil
        void (*update)(const fm_layer *layer, void *G, double *penalty, Py_ssize_t i0, Py_ssize_t n, Py_ssize_t p,
                       Py_ssize_t batch, Py_ssize_t stride, int accumulate, int rule,
                       const fm_hyper *hyper) noexcept nogil
        void (*update_bias)(const fm_layer *layer, void *G, Py_ssize_t p, Py_ssize_t batch, Py_ssize_t stride,
                            int accumulate, int rule, const fm_hyper *hyper) noexcept nogil
        void (*update_scale)(const fm_layer *layer, void *G, Py_ssize_t p, int rule,
                             const fm_hyper *hyper) noexcept nogil
        void (*scaling_gradient)(const fm_layer *layer, void *G, void *ds, const void *s, Py_ssize_t i0,
                                 Py_ssize_t n) noexcept nogil
        void (*scale_rows)(const fm_layer *layer, void *V, const void *s, Py_ssize_t i0, Py_ssize_t n) noexcept nogil
        void (*sum_squared_gradient)(const fm_layer *layer, const void *G, double *sum, Py_ssize_t i0, Py_ssize_t n,
                                     Py_ssize_t p, const fm_hyper *hyper) noexcept nogil
        void (*fold_batch_norm)(void *scale, void *shift, const void *gamma, const void *b, const void *mean,
                                const void *variance, Py_ssize_t n) noexcept nogil
        void (*forward_row)(const fm_layer *layer, void *y, const void *x) noexcept nogil
        void (*forward_csr_unpacked)(const fm_layer *layer, const fm_rows *X, Py_ssize_t first_row, Py_ssize_t p0,
                                     Py_ssize_t p1, Py_ssize_t rows, Py_ssize_t stride) noexcept nogil
        void (*forward_unpacked)(const fm_layer *layer, void *scratch, Py_ssize_t p0, Py_ssize_t p1, Py_ssize_t rows,
                                 Py_ssize_t stride) noexcept nogil
        Py_ssize_t scratch_size
        fm_activation_row *activations
        fm_output_row *outputs
        fm_loss_row *losses
        fm_optimizer_row *optimizers
        fm_math_row *math
        double (*peak)(Py_ssize_t n, void *sink) noexcept nogil

    const fm_hyperparameter_row *fm_hyperparameters()
    int fm_isa_count()
    const char *fm_isa_name(int i)
    int fm_isa_available(int i)
    const fm_kernels *fm_isa_kernels(int i, int element_size)

cdef extern from "<stdatomic.h>" nogil:
    ctypedef struct atomic_flag:
        pass
    bint atomic_flag_test_and_set(atomic_flag *flag)
    void atomic_flag_clear(atomic_flag *flag)

cdef extern from "runtime/barrier.h" nogil:
    ctypedef struct fm_barrier:
        pass
    void fm_barrier_init(fm_barrier *b)
    void fm_barrier_wait(fm_barrier *b, int n)

cdef extern from "runtime/claim.h" nogil:
    ctypedef struct fm_counter:
        pass
    void fm_counter_set(fm_counter *counter, Py_ssize_t next)
    Py_ssize_t fm_claim(fm_counter *counter, Py_ssize_t end)

cdef extern from "runtime/pace.h" nogil:
    ctypedef struct fm_pace:
        int trial
        double measured[2]
    double FM_FIRST
    double fm_pace_begin(fm_pace *pace, int n_threads, double now)
    void fm_pace_begin_on_all(fm_pace *pace, double now)
    void fm_pace_end(fm_pace *pace, Py_ssize_t rows, double now)

cdef extern from "runtime/profile.h" nogil:
    enum:
        FM_HAS_PROFILE
        FM_N_SECTIONS
        FM_SECTION_gather
        FM_SECTION_forward
        FM_SECTION_loss
        FM_SECTION_backward
        FM_SECTION_update
        FM_SECTION_bookkeeping
        FM_SECTION_barrier
    const char *fm_section_name(int section)
    ctypedef struct fm_profile:
        double *seconds
    void fm_profile_begin(fm_profile *p)
    void fm_profile_mark(fm_profile *p, int layers, int section, int layer)


# OpenMP, with counterparts for builds without it, and a clock.
cdef extern from *:
    """
    #ifdef _WIN32
    #ifndef WIN32_LEAN_AND_MEAN
    #define WIN32_LEAN_AND_MEAN
    #endif
    #include <windows.h>
    #else
    #include <time.h>
    #endif
    #ifdef _OPENMP
    #include <omp.h>
    #define FM_HAS_OPENMP 1
    #else
    #define FM_HAS_OPENMP 0
    static inline int omp_get_max_threads(void) { return 1; }
    static inline int omp_get_num_threads(void) { return 1; }
    #endif
    /* Of the calling thread, outside of a region. Returns 1, or 0 on failure. setup.py defines FM_HAS_PAUSE. */
    static inline int fm_stop_threads(void) {
    #if defined(FM_HAS_PAUSE)
        return omp_pause_resource_all(omp_pause_hard) == 0;
    #else
        return 0;
    #endif
    }
    static inline double fm_seconds(void) { /* from a fixed point; never decreases */
    #ifdef _WIN32
        LARGE_INTEGER now, per_second;
        QueryPerformanceCounter(&now);
        QueryPerformanceFrequency(&per_second);
        return (double)now.QuadPart / (double)per_second.QuadPart;
    #else
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    #endif
    }
    #if defined(__clang__)
    #define FM_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define FM_COMPILER "gcc " __VERSION__
    #else
    #define FM_COMPILER "unknown"
    #endif
    """
    const int FM_HAS_OPENMP
    const char *FM_COMPILER
    int omp_get_max_threads() nogil
    int omp_get_num_threads() nogil
    int fm_stop_threads() nogil
    double fm_seconds() nogil
