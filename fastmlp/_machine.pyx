"""The machine and the caller's memory: instruction sets and the names in their tables, threads, aligned memory, arrays.

The lowest module: it holds the compiled kernels, computes nothing, and knows no network. Memory is zeroed when it is got, so
what pads a panel is always finite; where a kernel writes the padding too, it need not be.
"""

import os
import sys

import numpy

cdef type ndarray = numpy.ndarray

cimport cython
from cython.parallel cimport parallel, threadid
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc

from fastmlp._csrc cimport *

from fastmlp._openmp cimport *

__all__ = [
    "ACTIVATIONS", "LOSSES", "NORM_EPSILON", "OPTIMIZERS", "OUTPUTS", "Call", "info", "max_threads", "peak_gflops",
    "usable_threads",
]

# CSR input whose share of stored elements is at most this is multiplied element by element, else as dense rows. Measured on
# Zen 4: 4,000 rows of 5,000 columns, 256 units, an epoch takes 0.04 of the dense way's time at a share of 0.002, 0.06 at
# 0.01, 0.27 at 0.1, 0.49 at 0.2; of 500 columns, 100 units, 0.6 at 0.2.
cdef double SPARSE_SHARE = 0.2


# ---- Dispatch and names ------------------------------------------------------------------------------------------------

cdef dict isa_rows = {fm_isa_name(i).decode(): i for i in range(fm_isa_count())}
cdef list available_isas = [name for name, i in isa_rows.items() if fm_isa_available(i)]


def _choose_isa() -> str:
    wanted = os.environ.get("FASTMLP_ISA")
    if not wanted:
        return available_isas[0]
    if wanted not in available_isas:
        raise ImportError(
            f"FASTMLP_ISA={wanted!r} is not an instruction set of this build and CPU; valid here: {', '.join(available_isas)}"
        )
    return wanted


cdef str chosen_isa = _choose_isa()


cdef const fm_kernels *kernels_of(str isa, str dtype) except NULL:
    if isa not in available_isas:
        raise ValueError(f"isa must be one of {available_isas}, got {isa!r}")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    return fm_isa_kernels(isa_rows[isa], 8 if dtype == "float64" else 4)


cdef const fm_kernels *_names = kernels_of(chosen_isa, "float64")

ACTIVATIONS = tuple([_names.activations[i].name.decode() for i in range(FM_N_ACTIVATIONS)])
OUTPUTS = tuple([_names.outputs[i].name.decode() for i in range(FM_N_OUTPUTS)])
LOSSES = {_names.losses[i].name.decode(): OUTPUTS[_names.losses[i].output] for i in range(FM_N_LOSSES)}
NORM_EPSILON = FM_NORM_EPSILON
OPTIMIZERS = {_names.optimizers[i].name.decode(): _names.optimizers[i].n_state for i in range(FM_N_OPTIMIZERS)}


# ---- Threads -------------------------------------------------------------------------------------------------------------

cdef extern from "fork.h" nogil:
    int fm_alone
    void fm_region_begins()
    void fm_region_ends()
    void fm_call_begins()
    void fm_call_ends()
    int fm_share(int threads)
    int fm_watch_forks()


if fm_watch_forks() != 0:
    raise MemoryError("fastmlp could not have itself told of forks")


cpdef int usable_threads(int wanted) noexcept nogil:
    """As many of the wanted threads as OpenMP and the other callers (see Call) allow, at least one."""
    return 1 if fm_alone else max(1, min(wanted, fm_share(omp_get_max_threads())))


cdef void region_begins() noexcept nogil:
    """To be called before a parallel region, and its counterpart after it."""
    fm_region_begins()


cdef void region_ends() noexcept nogil:
    fm_region_ends()


@cython.final
cdef class Call:
    """One caller among those that share the threads: from when this is made until it goes, with the call that made it."""

    def __cinit__(self):
        fm_call_begins()

    def __dealloc__(self):
        fm_call_ends()


def max_threads() -> int:
    """Threads that OpenMP would start now: OMP_NUM_THREADS, affinity and threadpoolctl are in it; 1 without OpenMP, and in
    a process that was forked while its parent's threads could not be let go (csrc/fork.h)."""
    return 1 if fm_alone else omp_get_max_threads()


def info() -> dict:
    """What was built and what runs: compiler, instruction sets (built, available, chosen), threads, element types."""
    return {
        "compiler": FM_COMPILER.decode(),
        "openmp": bool(FM_HAS_OPENMP),
        "built": list(isa_rows),
        "available": list(available_isas),
        "isa": chosen_isa,
        "dtypes": ["float32", "float64"],
        "max_threads": max_threads(),
    }


def peak_gflops(double seconds=0.2, str dtype="float32", int n_threads=1) -> float:
    """Fused multiply-add throughput of `n_threads` threads at once, in GFLOP/s, measured for about `seconds`."""
    cdef const fm_kernels *k = kernels_of(chosen_isa, dtype)
    cdef double start, elapsed, work
    cdef Py_ssize_t rounds = 100000
    n_threads = usable_threads(n_threads)
    cdef Buffer sink = Buffer(64 * n_threads)
    work = k.peak(1, sink.at) * n_threads
    while True:
        start = fm_seconds()
        region_begins()
        with nogil, parallel(num_threads=n_threads):
            k.peak(rounds, <char *> sink.at + 64 * threadid())
        region_ends()
        elapsed = fm_seconds() - start
        if elapsed >= seconds:
            return work * rounds / elapsed * 1e-9
        rounds = <Py_ssize_t> (rounds * 1.2 * seconds / max(elapsed, 1e-4)) + 1


# ---- Memory and the caller's arrays --------------------------------------------------------------------------------------

cdef class Buffer:
    """Memory aligned to 64 bytes; zeroed unless `zeroed` is False."""

    def __cinit__(self, Py_ssize_t n_bytes, bint zeroed=True):
        self.raw = calloc(1, <size_t> (n_bytes + 128)) if zeroed else malloc(<size_t> (n_bytes + 128))
        if self.raw == NULL:
            raise MemoryError(f"fastmlp needs {n_bytes / 2**20:.1f} MiB of working memory and could not get it")
        self.at = <void *> ((<uintptr_t> self.raw + 63) & ~<uintptr_t> 63)

    def __dealloc__(self):
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


cdef class Rows:
    """X as the kernels see it: a dense array of any strides, or CSR. Holds the buffers for as long as it lives."""

    def __cinit__(self, X, Py_ssize_t columns):
        cdef Py_buffer *view = &self.buffers[0]
        cdef int axis
        self.n_buffers = 0
        self.owner = X
        if not isinstance(X, ndarray) and hasattr(X, "indptr"):
            self.take_csr(X, columns)
            return
        self.take(X, PyBUF_STRIDES)
        if view.ndim != 2:
            raise ValueError(f"X must have 2 dimensions, got {view.ndim}")
        if view.shape[1] != columns:
            raise ValueError(f"X has {view.shape[1]} columns, the network takes {columns}")
        self.rows.is_double = self.is_double(view, "X")
        for axis in range(2):  # where there is one place only, NumPy's stride may be anything
            if <uintptr_t> view.buf % view.itemsize or (view.shape[axis] > 1 and view.strides[axis] % view.itemsize):
                raise ValueError("X must be aligned to its element size")
        self.n = view.shape[0]
        self.rows.data = view.buf
        self.rows.columns = columns
        self.rows.row_stride = view.strides[0] // view.itemsize
        self.rows.column_stride = view.strides[1] // view.itemsize

    cdef int take_csr(self, X, Py_ssize_t columns) except -1:
        cdef Py_ssize_t i, nnz
        if getattr(X, "format", None) != "csr":
            raise ValueError(f"sparse X must be in CSR format, got {getattr(X, 'format', type(X).__name__)!r}")
        if X.shape[1] != columns:
            raise ValueError(f"X has {X.shape[1]} columns, the network takes {columns}")
        indices, indptr = X.indices, X.indptr
        if indices.dtype.kind != "i" or indptr.dtype.kind != "i":
            raise ValueError(f"X.indices and X.indptr must be int32 or int64, got {indices.dtype} and {indptr.dtype}")
        if indices.dtype != indptr.dtype:
            indices, indptr = indices.astype(numpy.int64), indptr.astype(numpy.int64)
        for part in (X.data, indices, indptr):
            self.take(numpy.ascontiguousarray(part), PyBUF_STRIDES)
        self.n = X.shape[0]
        if self.n < 0:
            raise ValueError(f"X must not have {self.n} rows")
        self.rows.is_sparse = 1
        self.rows.is_double = self.is_double(&self.buffers[0], "X.data")
        self.rows.is_int64 = self.buffers[1].itemsize == 8
        for i in (1, 2):
            if format_of(&self.buffers[i]) not in (b'i', b'l', b'q') or self.buffers[i].itemsize not in (4, 8):
                raise ValueError("X.indices and X.indptr must be int32 or int64")
        self.rows.data = self.buffers[0].buf
        self.rows.indices = self.buffers[1].buf
        self.rows.indptr = self.buffers[2].buf
        self.rows.columns = columns
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
            self.use_sparse = nnz <= SPARSE_SHARE * self.n * columns and self.canonical()
        return 0

    cdef Py_ssize_t first_bad_row(self, Py_ssize_t nnz) noexcept nogil:
        """The first row that ends before it begins or behind the stored elements; n if there is none."""
        cdef Py_ssize_t row
        for row in range(self.n):
            if self.index(2, row + 1) < self.index(2, row) or self.index(2, row + 1) > nnz:
                return row
        return self.n

    cdef Py_ssize_t first_bad_column(self, Py_ssize_t columns) noexcept nogil:
        """The first stored element whose column is none; their number if there is none."""
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
        """Most stored elements in a row."""
        cdef Py_ssize_t longest = 0, row
        for row in range(self.n):
            longest = max(longest, self.index(2, row + 1) - self.index(2, row))
        return longest

    cdef Py_ssize_t index(self, int buffer, Py_ssize_t i) noexcept nogil:
        if self.rows.is_int64:
            return (<int64_t *> self.buffers[buffer].buf)[i]
        return (<int32_t *> self.buffers[buffer].buf)[i]

    cdef int take(self, array, int flags) except -1:
        PyObject_GetBuffer(array, &self.buffers[self.n_buffers], flags | PyBUF_FORMAT)
        self.n_buffers += 1
        return 0

    cdef int is_double(self, Py_buffer *view, str name) except -1:
        cdef int f = format_of(view)
        if f != b'f' and f != b'd':
            raise ValueError(f"{name} must be float32 or float64, got format {view.format.decode() if view.format else 'B'!r}")
        return f == b'd'

    def __dealloc__(self):
        cdef int i
        for i in range(self.n_buffers):
            PyBuffer_Release(&self.buffers[i])


cdef Py_ssize_t first_outside(const Py_ssize_t *numbers, Py_ssize_t n, Py_ssize_t limit) noexcept nogil:
    """Index of the first number that is not in [0, limit); n if there is none."""
    cdef Py_ssize_t i
    for i in range(n):
        if numbers[i] < 0 or numbers[i] >= limit:
            return i
    return n


cdef void *flat(object array, Py_ssize_t n, int kind, str name, bint writable=False) except? NULL:
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
