# What _core.pyx and _kernels.pyx take from _plan.

from fastmlp._csrc cimport fm_barrier, fm_kernels, fm_layer, fm_rows

cdef int usable_threads(int wanted) noexcept
cdef void note_threads(int n_threads) noexcept
cdef const fm_kernels *kernels_of(str isa, str dtype) except NULL
cdef void *flat(object array, Py_ssize_t n, int kind, str name, bint writable=*) except? NULL


cdef class Buffer:
    cdef void *raw
    cdef void *at


cdef class Rows:
    cdef fm_rows rows
    cdef Py_ssize_t n
    cdef Py_buffer buffers[3]
    cdef int n_buffers
    cdef bint use_sparse                    # CSR whose zeros are worth leaving out
    cdef object owner
    cdef int take_csr(self, X, Py_ssize_t columns) except -1
    cdef bint canonical(self) noexcept
    cdef Py_ssize_t index(self, int buffer, Py_ssize_t i) noexcept
    cdef int take(self, array, int flags) except -1
    cdef int is_double(self, Py_buffer *view, str name) except -1


cdef class Plan:
    cdef readonly tuple layer_sizes
    cdef readonly tuple activations
    cdef readonly str output
    cdef readonly str dtype
    cdef readonly Py_ssize_t n_parameters
    cdef const fm_kernels *k
    cdef int kind                           # of dtype, for flat
    cdef object numpy_dtype
    cdef int n_layers                       # of weights: one less than layer_sizes
    cdef Buffer sizes_buffer, hidden_buffer
    cdef Py_ssize_t *sizes
    cdef int *hidden                        # activation of each layer's output; identity where output_row applies
    cdef int output_row                     # in outputs, or -1
    cdef Py_ssize_t widest
    cdef Py_ssize_t padded(self, Py_ssize_t columns) noexcept nogil
    cdef Py_ssize_t n_units(self) noexcept nogil
    cdef int forward_rows(self, char *weights, Rows rows, char *result) except -1
    cdef void gather_row(self, char *x, const fm_rows *rows, Py_ssize_t row) noexcept nogil
    cdef int forward_few(self, char *weights, Rows rows, char *result, int n_threads) except -1
    cdef void forward_together(self, fm_layer *layers, Rows rows, char *result, char *scratch, Py_ssize_t chunk,
                               Py_ssize_t stride, fm_barrier *barrier, int thread, int n_threads) noexcept nogil
    cdef int forward_packed(self, char *weights, Rows rows, char *result, int n_threads) except -1
    cdef void forward_chunks(self, fm_layer *layers, Rows rows, char *result, Py_ssize_t chunk, Py_ssize_t stride,
                             int thread, int n_threads) noexcept nogil
    cdef void pack(self, fm_layer *layers, char *parameters, int state) noexcept nogil
    cdef void unpack(self, char *parameters, fm_layer *layers, int state) noexcept nogil
