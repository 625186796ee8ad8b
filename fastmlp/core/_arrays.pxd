from libc.stdint cimport uint16_t

from fastmlp.core._csrc cimport fm_codes, fm_pace, fm_rows

cdef Py_ssize_t first_outside(const Py_ssize_t *numbers, Py_ssize_t n, Py_ssize_t limit) noexcept nogil
cdef bint are_finite(const void *numbers, Py_ssize_t n, int size) noexcept nogil
cdef int format_of(Py_buffer *view) except -1
cdef void *array_address(object array, Py_ssize_t n, int kind, str name, bint writable=*) except? NULL


cdef enum:
    MAX_BLOCKS = 64


cdef class Reserve:
    cdef void *blocks[MAX_BLOCKS]
    cdef Py_ssize_t sizes[MAX_BLOCKS]
    cdef int n
    cdef fm_pace pace
    cdef tuple pace_of             # layer sizes, element type, batch size and threads of the run that `pace` is of
    cdef void *take(self, Py_ssize_t n_bytes) noexcept
    cdef bint give(self, void *block, Py_ssize_t n_bytes) noexcept
    cdef int clear(self) except -1


cdef class Buffer:
    cdef void *raw
    cdef void *at
    cdef Py_ssize_t n_bytes
    cdef Reserve reserve           # takes the block back


cdef class CodeLayout:
    cdef readonly tuple bin_counts
    cdef readonly tuple category_counts
    cdef readonly tuple offsets
    cdef readonly Py_ssize_t width
    cdef Py_ssize_t n_numbers, n_categories
    cdef Py_ssize_t *offset                 # offsets
    cdef Buffer memory


cdef class Bins:
    cdef readonly tuple bin_counts
    cdef Py_ssize_t n_numbers
    cdef double largest
    cdef double *edge              # halves of all edges
    cdef Py_ssize_t *first         # place there of each number's first, and how many it has
    cdef Py_ssize_t *count
    cdef double *fill
    cdef Buffer memory, details
    cdef bint encode_block(self, const fm_rows *X, Py_ssize_t f, Py_ssize_t first, Py_ssize_t last, uint16_t *bins,
                           char *fractions, bint wide) noexcept nogil


cdef class Codes:
    cdef readonly CodeLayout layout
    cdef readonly object bins
    cdef readonly object fractions
    cdef readonly object categories
    cdef fm_codes c
    cdef Py_ssize_t n
    cdef Py_buffer buffers[3]
    cdef int n_buffers
    cdef const void *hold(self, array, Py_ssize_t columns, str name, int kind, int other) except NULL
    cdef int check(self) except -1
    cdef Py_ssize_t first_bad_bin(self) noexcept nogil
    cdef Py_ssize_t first_bad_category(self) noexcept nogil
    cdef Py_ssize_t category(self, Py_ssize_t i) noexcept nogil


cdef class InputRows:
    cdef fm_rows rows
    cdef Codes codes                        # X, if it holds codes; rows is empty then
    cdef Py_ssize_t n
    cdef Py_buffer buffers[3]
    cdef int n_buffers
    cdef bint use_sparse                    # CSR with few enough stored elements to skip the zeros
    cdef object owner
    cdef int read_csr(self, X, Py_ssize_t columns) except -1
    cdef int hold_csr(self, X) except -1
    cdef void release(self) noexcept
    cdef Py_ssize_t first_bad_row(self, Py_ssize_t nnz) noexcept nogil
    cdef Py_ssize_t first_bad_column(self, Py_ssize_t columns) noexcept nogil
    cdef bint canonical(self) noexcept nogil
    cdef Py_ssize_t index(self, int buffer, Py_ssize_t i) noexcept nogil
    cdef Py_ssize_t longest_row(self) noexcept nogil
    cdef int hold_buffer(self, array, int flags) except -1
    cdef int is_double(self, Py_buffer *view, str name) except -1
