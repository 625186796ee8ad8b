# What _workspace.pyx, _trainer.pyx and _testing.pyx take from _plan.

from fastmlp.core._csrc cimport fm_barrier, fm_kernels, fm_layer, fm_rows, fm_targets
from fastmlp.core._arrays cimport Buffer, Rows

cdef class Plan:
    cdef readonly tuple layer_sizes
    cdef readonly tuple activations
    cdef readonly str output
    cdef readonly str dtype
    cdef readonly bint batch_norm
    cdef readonly bint residual
    cdef readonly Py_ssize_t n_parameters   # flat: weights, biases, scales of the normalisation
    cdef readonly Py_ssize_t n_statistics   # flat: running means, then running variances
    cdef const fm_kernels *k
    cdef int kind                           # of dtype, for flat
    cdef object numpy_dtype
    cdef int n_layers                       # of weights: one less than layer_sizes
    cdef Buffer sizes_buffer, hidden_buffer
    cdef Py_ssize_t *sizes
    cdef int *hidden                        # activation of each layer's output; identity where output_row applies
    cdef int output_row                     # in outputs, or -1
    cdef Py_ssize_t widest, n_weights, n_units
    cdef Py_ssize_t padded(self, Py_ssize_t columns) noexcept nogil
    cdef bint normalises(self, int l) noexcept nogil
    cdef bint adds_input(self, int l) noexcept nogil
    cdef Py_ssize_t affine_bytes(self) noexcept nogil
    cdef void describe(self, fm_layer *layers, char *parameters, char *statistics, char *affine) noexcept nogil
    cdef int forward_rows(self, char *weights, char *statistics, Rows rows, char *result) except -1
    cdef void gather_row(self, char *x, const fm_rows *rows, Py_ssize_t row) noexcept nogil
    cdef int forward_few(self, char *weights, char *statistics, Rows rows, char *result, int n_threads) except -1
    cdef void forward_together(self, fm_layer *layers, Rows rows, char *result, char *scratch, Py_ssize_t chunk,
                               Py_ssize_t stride, fm_barrier *barrier, Py_ssize_t begin, Py_ssize_t end, int thread,
                               int n_threads) noexcept nogil
    cdef int forward_packed(self, char *weights, char *statistics, Rows rows, char *result, int n_threads) except -1
    cdef void forward_chunks(self, fm_layer *layers, Rows rows, char *result, Py_ssize_t chunk, Py_ssize_t stride,
                             Py_ssize_t begin, Py_ssize_t end, int thread, int n_threads) noexcept nogil
    cdef void pack(self, fm_layer *layers, char *parameters, int state) noexcept nogil
    cdef void pack_vector(self, void *to, char *vector, Py_ssize_t n) noexcept nogil
    cdef void unpack(self, char *parameters, fm_layer *layers, int state) noexcept nogil
    cdef void pack_statistics(self, fm_layer *layers, char *statistics, bint back) noexcept nogil
    cdef int take_targets(self, fm_targets *targets, int loss, Py_ssize_t n, y, sample_weight) except -1
