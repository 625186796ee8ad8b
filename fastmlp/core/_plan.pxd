from fastmlp.core._arrays cimport Buffer, InputRows
from fastmlp.core._csrc cimport fm_kernels, fm_layer, fm_members, fm_targets

cdef struct Offsets:
    # Bytes from the start of the flat parameters (W, b, scale) or statistics (mean, variance) to a layer's arrays.
    Py_ssize_t W, b, scale, mean, variance


cdef class Plan:
    cdef readonly tuple layer_sizes
    cdef readonly tuple activations
    cdef readonly str output
    cdef readonly str dtype
    cdef readonly bint batch_norm
    cdef readonly bint residual
    cdef readonly Py_ssize_t embedding
    cdef readonly int n_members
    cdef readonly Py_ssize_t n_parameters
    cdef readonly Py_ssize_t n_statistics
    cdef const fm_kernels *k
    cdef int kind                  # of dtype, for array_address
    cdef object numpy_dtype
    cdef int n_layers              # of weights: one less than layer_sizes
    cdef int n_matrices            # of weights: each member has an output layer of its own, after the layers of all
    cdef list buffers
    cdef Py_ssize_t *sizes
    cdef Offsets *offsets          # of each matrix
    cdef Py_ssize_t scalings       # bytes from the start of the parameters to the members' scalings
    cdef int *activation_rows      # of each layer, in the table of activations; identity where output_row applies
    cdef int output_row            # in the table of outputs, or -1
    cdef Py_ssize_t n_weights
    cdef Py_ssize_t padded(self, Py_ssize_t columns) noexcept nogil
    cdef Py_ssize_t n_features(self) noexcept nogil
    cdef Py_ssize_t scalings_bytes(self) noexcept nogil
    cdef Py_ssize_t members_bytes(self) noexcept nogil
    cdef void describe_members(self, fm_members *members, const void *scalings, char *room) noexcept nogil
    cdef int layer_of(self, int matrix) noexcept nogil
    cdef void shape(self, fm_layer *layer, int matrix) noexcept nogil
    cdef Py_ssize_t columns(self, int matrix) noexcept nogil
    cdef bint normalises(self, int l) noexcept nogil
    cdef bint adds_input(self, int l) noexcept nogil
    cdef Py_ssize_t affine_bytes(self) noexcept nogil
    cdef void describe(self, fm_layer *layers, char *parameters, char *statistics, char *affine) noexcept nogil
    cdef void pack(self, fm_layer *layers, char *parameters, int state) noexcept nogil
    cdef void pack_matrix(self, void *to, char *matrix, Py_ssize_t rows, Py_ssize_t columns) noexcept nogil
    cdef void pack_vector(self, void *to, char *vector, Py_ssize_t n) noexcept nogil
    cdef bint unpack(self, char *parameters, fm_layer *layers, int state) noexcept nogil
    cdef void pack_statistics(self, fm_layer *layers, char *statistics) noexcept nogil
    cdef bint unpack_vector(self, char *vector, const void *panels, Py_ssize_t n) noexcept nogil
    cdef bint unpack_statistics(self, char *statistics, fm_layer *layers) noexcept nogil
    cdef int check_rows(self, InputRows rows) except -1
    cdef int read_targets(self, fm_targets *targets, int loss, Py_ssize_t n, y, sample_weight) except -1
