"""Memory and the caller's arrays: aligned buffers, X as dense or CSR rows, addresses of flat arrays.

Memory is zeroed when it is allocated, so that the padding of a panel is finite; a kernel that writes the padding itself
may use memory that is not zeroed.
"""

import sys

import numpy

cimport cython

__all__ = ["Reserve"]

cdef type ndarray = numpy.ndarray

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fastmlp.core._csrc cimport *

cdef extern from "runtime/pages.h" nogil:
    void fm_use_huge_pages(void *at, size_t n_bytes)

# CSR input with at most this share of stored elements is multiplied element by element, else as dense rows: measured,
# an epoch at this share takes 0.5 to 0.6 of the time.
cdef double SPARSE_SHARE = 0.2
# Least size of the blocks that a Reserve keeps. The C library itself keeps smaller ones.
cdef Py_ssize_t LEAST_KEPT = 2 ** 22


@cython.final
cdef class Reserve:
    """What a training run leaves to the next one of its kind: large blocks of memory, and whether more threads helped.

    A new block comes from the system page by page, which takes longer than a step of training that writes it.
    """

    cdef void *take(self, Py_ssize_t n_bytes) noexcept:
        """A block of this size, NULL if there is none."""
        cdef void *block = NULL
        cdef int i
        with cython.critical_section(self):
            for i in range(self.n):
                if self.sizes[i] == n_bytes:
                    block = self.blocks[i]
                    self.n -= 1
                    self.blocks[i], self.sizes[i] = self.blocks[self.n], self.sizes[self.n]
                    break
        return block

    cdef bint give(self, void *block, Py_ssize_t n_bytes) noexcept:
        """Keep a block; returns False if there is no room for it."""
        cdef bint kept = False
        with cython.critical_section(self):
            if self.n < MAX_BLOCKS:
                self.blocks[self.n], self.sizes[self.n] = block, n_bytes
                self.n += 1
                kept = True
        return kept

    cdef int clear(self) except -1:
        """Free all blocks."""
        with cython.critical_section(self):
            while self.n:
                self.n -= 1
                free(self.blocks[self.n])
        return 0

    def __dealloc__(self):
        while self.n:
            self.n -= 1
            free(self.blocks[self.n])


@cython.final
@cython.no_gc  # a Reserve refers to nothing
cdef class Buffer:
    """Memory aligned to 64 bytes, in huge pages if large; zeroed unless `zeroed` is False.

    A large block comes from `reserve`, if that is given and has one, and returns to it.
    """

    def __cinit__(self, Py_ssize_t n_bytes, bint zeroed=True, Reserve reserve=None):
        self.n_bytes = n_bytes
        if reserve is not None and n_bytes >= LEAST_KEPT:
            self.reserve = reserve
            self.raw = reserve.take(n_bytes)
        if self.raw != NULL and zeroed:
            memset(self.raw, 0, <size_t> (n_bytes + 128))
        if self.raw == NULL:
            self.raw = calloc(1, <size_t> (n_bytes + 128)) if zeroed else malloc(<size_t> (n_bytes + 128))
            if self.raw != NULL:
                fm_use_huge_pages(self.raw, <size_t> (n_bytes + 128))
        if self.raw == NULL:
            raise MemoryError(f"fastmlp needs {n_bytes / 2**20:.1f} MiB of working memory and could not get it")
        self.at = <void *> ((<uintptr_t> self.raw + 63) & ~<uintptr_t> 63)

    def __dealloc__(self):
        if self.raw == NULL or self.reserve is None or not self.reserve.give(self.raw, self.n_bytes):
            free(self.raw)


cdef char NATIVE_ORDER = b'<' if sys.byteorder == "little" else b'>'


cdef int format_of(Py_buffer *view) except -1:
    """The letter of a buffer's format, 0 if that is not one letter in this machine's byte order."""
    cdef const char *f = view.format
    if f == NULL:
        return b'B'
    if f[0] == b'@' or f[0] == b'=' or f[0] == NATIVE_ORDER:
        f += 1
    return f[0] if f[0] != 0 and f[1] == 0 else 0


cdef class InputRows:
    """X as the kernels read it: a dense array of any strides, or CSR. It holds X's buffers.

    If the kernels of sparse rows are used and X is not canonical, it holds those of a canonical copy.
    """

    def __cinit__(self, X, Py_ssize_t columns):
        cdef Py_buffer *view = &self.buffers[0]
        cdef int axis
        self.n_buffers = 0
        self.owner = X
        if not isinstance(X, ndarray) and hasattr(X, "indptr"):
            self.read_csr(X, columns)
            return
        self.hold_buffer(X, PyBUF_STRIDES)
        if view.ndim != 2:
            raise ValueError(f"X must have 2 dimensions, got {view.ndim}")
        if view.shape[1] != columns:
            raise ValueError(f"X has {view.shape[1]} columns, the network takes {columns}")
        self.rows.is_double = self.is_double(view, "X")
        for axis in range(2):  # NumPy's stride of an axis of length 1 may be any number
            if <uintptr_t> view.buf % view.itemsize or (view.shape[axis] > 1 and view.strides[axis] % view.itemsize):
                raise ValueError("X must be aligned to its element size")
        self.n = view.shape[0]
        self.rows.data = view.buf
        self.rows.columns = columns
        self.rows.row_stride = view.strides[0] // view.itemsize
        self.rows.column_stride = view.strides[1] // view.itemsize

    cdef int read_csr(self, X, Py_ssize_t columns) except -1:
        cdef Py_ssize_t i, nnz
        cdef bint canonical
        if getattr(X, "format", None) != "csr":
            raise ValueError(f"sparse X must be in CSR format, got {getattr(X, 'format', type(X).__name__)!r}")
        if X.shape[1] != columns:
            raise ValueError(f"X has {X.shape[1]} columns, the network takes {columns}")
        self.n = X.shape[0]
        if self.n < 0:
            raise ValueError(f"X must not have {self.n} rows")
        self.rows.is_sparse = 1
        self.rows.columns = columns
        self.hold_csr(X)
        nnz = min(self.buffers[0].shape[0], self.buffers[1].shape[0])
        if self.buffers[2].shape[0] != self.n + 1 or self.index(2, 0) < 0:
            raise ValueError("X.indptr must have one element more than X has rows")
        with nogil:
            i = self.first_bad_row(nnz)
        if i < self.n:
            raise ValueError("X.indptr must not decrease nor exceed the number of stored elements")
        with nogil:
            i = self.first_bad_column(columns)
        if i < self.index(2, self.n):
            raise ValueError(f"X.indices must lie in [0, {columns})")
        nnz = self.index(2, self.n) - self.index(2, 0)
        with nogil:
            self.use_sparse = nnz <= SPARSE_SHARE * self.n * columns
            canonical = not self.use_sparse or self.canonical()
        if not canonical:
            # Two transpositions sort all rows at once, which takes less time unless the rows are few.
            self.owner = X.tocsc().tocsr() if nnz > columns else X.copy()
            self.owner.sum_duplicates()  # sorts too
            self.hold_csr(self.owner)
        return 0

    cdef int hold_csr(self, X) except -1:
        """Hold the three arrays of X, instead of those held before."""
        cdef int i
        indices, indptr = X.indices, X.indptr
        if indices.dtype.kind != "i" or indptr.dtype.kind != "i":
            raise ValueError(f"X.indices and X.indptr must be int32 or int64, got {indices.dtype} and {indptr.dtype}")
        if indices.dtype != indptr.dtype:
            indices, indptr = indices.astype(numpy.int64), indptr.astype(numpy.int64)
        self.release()
        for part in (X.data, indices, indptr):
            self.hold_buffer(numpy.ascontiguousarray(part), PyBUF_STRIDES)
        self.rows.is_double = self.is_double(&self.buffers[0], "X.data")
        self.rows.is_int64 = self.buffers[1].itemsize == 8
        for i in (1, 2):
            if format_of(&self.buffers[i]) not in (b'i', b'l', b'q') or self.buffers[i].itemsize not in (4, 8):
                raise ValueError("X.indices and X.indptr must be int32 or int64")
        self.rows.data = self.buffers[0].buf
        self.rows.indices = self.buffers[1].buf
        self.rows.indptr = self.buffers[2].buf
        return 0

    cdef Py_ssize_t first_bad_row(self, Py_ssize_t nnz) noexcept nogil:
        """The first row that ends before it begins or after the stored elements; n if there is none."""
        cdef Py_ssize_t row
        for row in range(self.n):
            if self.index(2, row + 1) < self.index(2, row) or self.index(2, row + 1) > nnz:
                return row
        return self.n

    cdef Py_ssize_t first_bad_column(self, Py_ssize_t columns) noexcept nogil:
        """The first stored element with an invalid column; the number of elements if there is none."""
        cdef Py_ssize_t i, nnz = self.index(2, self.n)
        for i in range(nnz):
            if self.index(1, i) < 0 or self.index(1, i) >= columns:
                return i
        return nnz

    cdef bint canonical(self) noexcept nogil:
        """Whether columns increase within each row."""
        cdef Py_ssize_t row, i
        for row in range(self.n):
            for i in range(self.index(2, row) + 1, self.index(2, row + 1)):
                if self.index(1, i) <= self.index(1, i - 1):
                    return False
        return True

    cdef Py_ssize_t longest_row(self) noexcept nogil:
        """Largest number of stored elements in a row."""
        cdef Py_ssize_t longest = 0, row
        for row in range(self.n):
            longest = max(longest, self.index(2, row + 1) - self.index(2, row))
        return longest

    cdef Py_ssize_t index(self, int buffer, Py_ssize_t i) noexcept nogil:
        if self.rows.is_int64:
            return (<int64_t *> self.buffers[buffer].buf)[i]
        return (<int32_t *> self.buffers[buffer].buf)[i]

    cdef int hold_buffer(self, array, int flags) except -1:
        PyObject_GetBuffer(array, &self.buffers[self.n_buffers], flags | PyBUF_FORMAT)
        self.n_buffers += 1
        return 0

    cdef int is_double(self, Py_buffer *view, str name) except -1:
        cdef int f = format_of(view)
        if f != b'f' and f != b'd':
            given = view.format.decode() if view.format else "B"
            raise ValueError(f"{name} must be float32 or float64, got format {given!r}")
        return f == b'd'

    cdef void release(self) noexcept:
        while self.n_buffers:
            self.n_buffers -= 1
            PyBuffer_Release(&self.buffers[self.n_buffers])

    def __dealloc__(self):
        self.release()


cdef Py_ssize_t first_outside(const Py_ssize_t *numbers, Py_ssize_t n, Py_ssize_t limit) noexcept nogil:
    """Index of the first number that is not in [0, limit); n if there is none."""
    cdef Py_ssize_t i
    for i in range(n):
        if numbers[i] < 0 or numbers[i] >= limit:
            return i
    return n


cdef bint are_finite(const void *numbers, Py_ssize_t n, int size) noexcept nogil:
    """Whether n floats (size 4) or doubles (8) are finite. Where all bits of an exponent are set, adding its lowest one
    carries into the sign's place."""
    cdef uint32_t found_4 = 0
    cdef uint64_t found_8 = 0
    cdef Py_ssize_t i
    if size == 4:
        for i in range(n):
            found_4 |= ((<const uint32_t *> numbers)[i] & <uint32_t> 0x7F800000) + <uint32_t> 0x00800000
        return found_4 >> 31 == 0
    for i in range(n):
        found_8 |= ((<const uint64_t *> numbers)[i] & (<uint64_t> 0x7FF << 52)) + (<uint64_t> 1 << 52)
    return found_8 >> 63 == 0


cdef void *array_address(object array, Py_ssize_t n, int kind, str name, bint writable=False) except? NULL:
    """Address of a C-contiguous array of n elements; the caller keeps the array alive while it uses the address.

    kind: b'f' or b'd' for float32 and float64, b'i' for integers as wide as a pointer.
    """
    cdef Py_buffer view
    cdef void *at
    cdef int found
    try:
        PyObject_GetBuffer(array, &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0))
    except (TypeError, ValueError, BufferError) as error:
        raise ValueError(f"{name} must be a C-contiguous{' writeable' if writable else ''} array: {error}") from None
    at = view.buf
    found = format_of(&view)
    if found in (b'l', b'q', b'n') and view.itemsize == sizeof(Py_ssize_t):
        found = b'i'
    if found != kind or view.len != n * view.itemsize or <uintptr_t> at % view.itemsize:
        given = numpy.asarray(array)
        PyBuffer_Release(&view)
        wanted = {"f": "float32", "d": "float64", "i": "intp"}[chr(kind)]
        raise ValueError(f"{name} must be an aligned array of {n} {wanted}, got {given.size} of {given.dtype}")
    PyBuffer_Release(&view)
    return at
