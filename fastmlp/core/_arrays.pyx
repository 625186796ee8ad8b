"""Memory and the caller's arrays: aligned buffers, X as dense rows, CSR or codes, codes of numbers, flat arrays.

Memory is zeroed when it is allocated, so that the padding of a panel is finite; a kernel that writes the padding itself
may use memory that is not zeroed.
"""

import operator
import sys
from itertools import accumulate

import numpy

__all__ = ["Bins", "CodeLayout", "Codes", "Reserve"]

cdef type ndarray = numpy.ndarray
cdef object FLOAT32 = numpy.dtype("float32")

cimport cython
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fastmlp.core._csrc cimport *

cdef extern from "runtime/pages.h" nogil:
    void fm_use_huge_pages(void *at, size_t n_bytes)

# CSR input with at most this share of stored elements is multiplied element by element, else as dense rows: measured,
# an epoch at this share takes 0.5 to 0.6 of the time.
cdef double SPARSE_SHARE = 0.2
# Rows whose codes are made at a time: they keep to the cache while one number after the other is written.
cdef Py_ssize_t BLOCK = 512
# Least size of the blocks that a Reserve keeps. The C library itself keeps smaller ones.
cdef Py_ssize_t LEAST_KEPT = 2 ** 22


@cython.final
@cython.no_gc  # it refers to numbers and text only
cdef class Reserve:
    """What a training run leaves to the next one: large blocks of memory and, to one of the same sizes, whether more
    threads helped.

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
@cython.no_gc  # a Reserve refers to numbers and text only
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


@cython.final
cdef class CodeLayout:
    """Features that are given as codes, and the columns of their dense encoding: the rows of the first layer's weights.

    A number in bin k of m, 0 <= k < m, has m + 1 columns: 1 in the first k, the number's fraction in column k, 0 in the
    others (piecewise-linear encoding: Gorishniy, Rubachev and Babenko, NeurIPS 2022). A missing number has a 1 in the
    last column and 0 in the others. A category of c has c columns: 1 in that of its code, 0 in the others. The numbers'
    columns come first.

    Parameters
    ----------
    bin_counts : sequence of int
        Bins m of each number, 1 to 65535.
    category_counts : sequence of int, default=()
        Categories c of each categorical feature, 1 to 4294967295.

    Attributes
    ----------
    bin_counts, category_counts : tuple of int
    offsets : tuple of int
        First column of each feature; then `width`.
    width : int
        Columns of the dense encoding: the first of a network's layer sizes.

    Raises
    ------
    ValueError
        For a number out of range, or if there is no feature.
    TypeError
        For what is no integer.
    """

    def __cinit__(self, bin_counts, category_counts=()):
        cdef Py_ssize_t f
        self.bin_counts = tuple([operator.index(count) for count in bin_counts])
        self.category_counts = tuple([operator.index(count) for count in category_counts])
        for name, counts, most in (
            ("bin_counts", self.bin_counts, 2**16 - 1), ("category_counts", self.category_counts, 2**32 - 1)
        ):
            if not all([1 <= count <= most for count in counts]):
                raise ValueError(f"{name} must lie in [1, {most}], got {counts}")
        owned = [count + 1 for count in self.bin_counts] + list(self.category_counts)
        if not owned:
            raise ValueError("bin_counts and category_counts must name at least one feature")
        self.n_numbers, self.n_categories = len(self.bin_counts), len(self.category_counts)
        self.offsets = tuple(accumulate(owned, initial=0))
        self.width = self.offsets[len(owned)]
        self.memory = Buffer((len(owned) + 1) * sizeof(Py_ssize_t), False)
        self.offset = <Py_ssize_t *> self.memory.at
        for f in range(len(owned) + 1):
            self.offset[f] = self.offsets[f]

    def __eq__(self, other):
        if not isinstance(other, CodeLayout):
            return NotImplemented
        return self.bin_counts == other.bin_counts and self.category_counts == other.category_counts

    def __hash__(self):
        return hash((self.bin_counts, self.category_counts))

    def __reduce__(self):
        return CodeLayout, (self.bin_counts, self.category_counts)

    def __repr__(self):
        return f"CodeLayout(bin_counts={self.bin_counts}, category_counts={self.category_counts})"


@cython.final
cdef class Codes:
    """Rows of coded features: X of a network whose first layer multiplies their dense encoding without making it.

    A step, or a prediction, takes as many multiply-adds as with one or two columns per feature.

    Parameters
    ----------
    layout : CodeLayout
        It says what the codes encode.
    bins : uint16 array (n, n_numbers), C-contiguous, default=None
        The bin of each number; the number of bins stands for a missing number. None if there are no numbers.
    fractions : float32 array (n, n_numbers), C-contiguous, default=None
        Where in its bin each number lies: any value, 0 to 1 within the bin. It must be 1 for a missing number. None if
        there are no numbers.
    categories : uint16 or uint32 array (n, n_categories), C-contiguous, default=None
        Codes from 0. The number of categories stands for none of them, an unknown category, say: the feature then adds
        nothing. None if there are no categories.

    Attributes
    ----------
    layout, bins, fractions, categories
        As given.
    shape : tuple of int
        (n, layout.width), the shape of the dense encoding.
    dtype : numpy.dtype
        float32, the type of fractions.

    Raises
    ------
    ValueError
        For another type or shape, or codes out of range.

    Notes
    -----
    The arrays are not copied. They may be overwritten between calls, which check their codes, but must not change
    during one: codes out of range would then read memory that is not the network's. ``codes[rows]`` holds the rows of a
    slice, a mask or an array of indices.
    """

    def __cinit__(self, CodeLayout layout not None, bins=None, fractions=None, categories=None):
        self.layout, self.bins, self.fractions, self.categories = layout, bins, fractions, categories
        self.n = -1
        self.c.offset, self.c.n_numbers, self.c.n_categories = layout.offset, layout.n_numbers, layout.n_categories
        self.c.bins = <const uint16_t *> self.hold(bins, layout.n_numbers, "bins", b'H', 0)
        self.c.fractions = <const float *> self.hold(fractions, layout.n_numbers, "fractions", b'f', 0)
        self.c.categories = self.hold(categories, layout.n_categories, "categories", b'H', b'I')
        self.c.is_uint32 = layout.n_categories > 0 and self.buffers[self.n_buffers - 1].itemsize == 4
        self.check()

    @property
    def shape(self):
        return self.n, self.layout.width

    @property
    def dtype(self):
        return FLOAT32

    def __len__(self):
        return self.n

    def __getitem__(self, rows):
        arrays = self.bins, self.fractions, self.categories
        return Codes(self.layout, *[None if a is None else numpy.ascontiguousarray(a[rows]) for a in arrays])

    cdef const void *hold(self, array, Py_ssize_t columns, str name, int kind, int other) except NULL:
        """The address of an array, whose buffer is held; `kind` and `other` are the letters of its type."""
        cdef Py_buffer *view = &self.buffers[self.n_buffers]
        cdef int found
        if not columns:
            if array is not None:
                raise ValueError(f"{name} must be None: the layout has no such feature")
            return self.c.offset  # not read
        try:
            PyObject_GetBuffer(array, view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        except (TypeError, ValueError, BufferError) as error:
            raise ValueError(f"{name} must be a C-contiguous array: {error}") from None
        self.n_buffers += 1
        found = format_of(view)
        if found == b'L' and view.itemsize == 4:
            found = b'I'
        if not found or found not in (kind, other) or <uintptr_t> view.buf % view.itemsize:
            wanted = "float32" if kind == b'f' else "uint16 or uint32" if other else "uint16"
            raise ValueError(f"{name} must be an aligned array of {wanted}, got format {view.format.decode()!r}")
        if view.ndim != 2 or view.shape[1] != columns or self.n not in (-1, view.shape[0]):
            n = "n" if self.n < 0 else self.n
            raise ValueError(f"{name} must have shape ({n}, {columns}), got {numpy.shape(array)}")
        self.n = view.shape[0]
        return view.buf

    cdef int check(self) except -1:
        """ValueError for codes out of range."""
        cdef Py_ssize_t i, P = self.layout.n_numbers, Q = self.layout.n_categories
        with nogil:
            i = self.first_bad_bin()
        if i < self.n * P:
            count = self.layout.bin_counts[i % P]
            if self.c.bins[i] == count:
                raise ValueError(
                    f"fractions must be 1 for missing numbers, got {self.c.fractions[i]} for feature {i % P} of row "
                    f"{i // P}"
                )
            raise ValueError(
                f"bins must lie in [0, {count}] for a number of {count} bins, got {self.c.bins[i]} for feature {i % P} "
                f"of row {i // P}"
            )
        with nogil:
            i = self.first_bad_category()
        if i < self.n * Q:
            count = self.layout.category_counts[i % Q]
            raise ValueError(
                f"categories must lie in [0, {count}] for a feature of {count} categories, got {self.category(i)} for "
                f"feature {P + i % Q} of row {i // Q}"
            )
        return 0

    cdef Py_ssize_t first_bad_bin(self) noexcept nogil:
        """Index of the first bin that is out of range, or of a missing number whose fraction is not 1; the number of
        bins if there is none."""
        cdef Py_ssize_t P = self.c.n_numbers, row, f, missing
        cdef const uint16_t *bins = self.c.bins
        cdef const float *fractions = self.c.fractions
        for row in range(self.n):
            for f in range(P):
                missing = self.c.offset[f + 1] - self.c.offset[f] - 1
                if bins[row * P + f] >= missing and (bins[row * P + f] > missing or fractions[row * P + f] != 1):
                    return row * P + f
        return self.n * P

    cdef Py_ssize_t first_bad_category(self) noexcept nogil:
        """Index of the first category's code that is out of range; the number of codes if there is none."""
        cdef Py_ssize_t Q = self.c.n_categories, row, q
        cdef const Py_ssize_t *offset = self.c.offset + self.c.n_numbers
        for row in range(self.n):
            for q in range(Q):
                if self.category(row * Q + q) > offset[q + 1] - offset[q]:
                    return row * Q + q
        return self.n * Q

    cdef Py_ssize_t category(self, Py_ssize_t i) noexcept nogil:
        if self.c.is_uint32:
            return (<const uint32_t *> self.c.categories)[i]
        return (<const uint16_t *> self.c.categories)[i]

    def __dealloc__(self):
        while self.n_buffers:
            self.n_buffers -= 1
            PyBuffer_Release(&self.buffers[self.n_buffers])


@cython.final
cdef class Bins:
    """The bins of some numbers: makes codes of them.

    A number x between the edges e[k] <= x < e[k + 1] is in bin k, with the fraction (x - e[k]) / (e[k + 1] - e[k]). The
    outer bins have no outer limit.

    Parameters
    ----------
    edges : sequence of float64 array (n_edges,), C-contiguous
        Of each number, rising and finite, 1 to 65536. With a single one, any number is in bin 0 with the fraction 0.
    fills : sequence of float
        The number that a missing one counts as; NaN: it is missing in the codes too.
    largest : float, default=1e6
        Fractions are limited to this size, so that a product with them is finite.

    Attributes
    ----------
    bin_counts : tuple of int
        Of a `CodeLayout`.

    Raises
    ------
    ValueError
        For edges that do not rise or are not finite.
    """

    def __cinit__(self, edges, fills, double largest=1e6):
        cdef Py_ssize_t f, i, n
        cdef const double *given
        cdef double *edge
        edges = tuple(edges)
        sizes = [len(own) for own in edges]
        if not all([1 <= size <= 2**16 for size in sizes]):
            raise ValueError(f"edges must be 1 to 65536 of each number, got {sizes}")
        self.n_numbers, self.largest = len(edges), largest
        self.bin_counts = tuple([max(size - 1, 1) for size in sizes])
        self.memory = Buffer(sum(sizes) * sizeof(double), False)
        self.details = Buffer(self.n_numbers * (2 * sizeof(Py_ssize_t) + sizeof(double)), False)
        self.first, self.fill = <Py_ssize_t *> self.details.at, <double *> self.details.at + 2 * self.n_numbers
        self.count = self.first + self.n_numbers
        self.edge = <double *> self.memory.at
        n = 0
        for f, (own, fill) in enumerate(zip(edges, fills, strict=True)):
            self.first[f], self.count[f], self.fill[f] = n, sizes[f], fill
            given, edge = <double *> array_address(own, sizes[f], b'd', "edges"), self.edge + n
            for i in range(sizes[f]):  # halves, whose differences are finite
                edge[i] = given[i] / 2
                if not -INFINITY < edge[i] < INFINITY or (i > 0 and not edge[i] > edge[i - 1]):
                    raise ValueError(f"edges must be finite and rise, got {numpy.asarray(own)} for number {f}")
            n += sizes[f]

    def encode(self, x, bins, fractions):
        """Write the codes of numbers.

        Parameters
        ----------
        x : float32 or float64 array (n, n_numbers)
            Any strides; NaN for missing numbers. Infinity gets the largest fraction.
        bins : uint16 array (n, n_numbers), C-contiguous
            Receives the bins; the number of bins stands for a missing number.
        fractions : float32 or float64 array (n, n_numbers), C-contiguous
            Receives the fractions, 1 for missing numbers. They are computed in float64.

        Returns
        -------
        bool
            Whether no number was infinite.

        Raises
        ------
        ValueError
            For another type or shape.
        """
        cdef InputRows rows = InputRows(x, self.n_numbers)
        if rows.rows.is_sparse or rows.codes is not None:
            raise ValueError("x must be an array")
        cdef bint wide = fractions.itemsize == 8
        cdef uint16_t *bin = <uint16_t *> array_address(bins, rows.n * self.n_numbers, b'H', "bins", True)
        cdef char *fraction = <char *> array_address(fractions, rows.n * self.n_numbers, b'd' if wide else b'f',
                                                     "fractions", True)
        cdef Py_ssize_t first = 0, f
        cdef bint finite = True
        with nogil:
            while first < rows.n:
                for f in range(self.n_numbers):
                    finite &= self.encode_block(&rows.rows, f, first, min(first + BLOCK, rows.n), bin, fraction, wide)
                first += BLOCK
        return finite

    cdef bint encode_block(self, const fm_rows *X, Py_ssize_t f, Py_ssize_t first, Py_ssize_t last, uint16_t *bins,
                           char *fractions, bint wide) noexcept nogil:
        """The codes of number f of some rows; returns whether no number was infinite."""
        cdef const double *edge = self.edge + self.first[f]
        cdef const double *low
        cdef Py_ssize_t inner = max(self.count[f] - 2, 0), last_bin = max(self.count[f] - 2, 0), r, i, n, half, k
        cdef double x, fraction, largest = self.largest
        cdef bint finite = True
        for r in range(first, last):
            i = r * X.row_stride + f * X.column_stride
            x = (<const double *> X.data)[i] if X.is_double else (<const float *> X.data)[i]
            if x != x:
                x = self.fill[f]
            finite &= x != INFINITY and x != -INFINITY
            x = x / 2
            low, n = edge + 1, inner
            while n > 1:  # without a branch that the processor could mispredict
                half = n >> 1
                low += half & -<Py_ssize_t> (low[half - 1] <= x)
                n -= half
            k = low - (edge + 1)
            k += n == 1 and low[0] <= x
            if x != x:
                k, fraction = last_bin + 1, 1
            elif self.count[f] == 1:
                fraction = 0
            else:
                fraction = (x - edge[k]) / (edge[k + 1] - edge[k])
                fraction = min(max(fraction, -largest), largest)
            i = r * self.n_numbers + f
            bins[i] = <uint16_t> k
            if wide:
                (<double *> fractions)[i] = fraction
            else:
                (<float *> fractions)[i] = <float> fraction
        return finite


cdef class InputRows:
    """X as the kernels read it: a dense array of any strides, CSR, or codes. It holds X's buffers.

    If the kernels of sparse rows are used and X is not canonical, it holds those of a canonical copy.
    """

    def __cinit__(self, X, Py_ssize_t columns):
        cdef Py_buffer *view = &self.buffers[0]
        cdef int axis
        self.n_buffers = 0
        self.owner = X
        if isinstance(X, Codes):
            self.codes = X
            self.n = self.codes.n
            if self.codes.layout.width != columns:
                raise ValueError(f"X encodes {self.codes.layout.width} columns, the network takes {columns}")
            self.codes.check()
            return
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
        """Largest number of stored elements in a row, of CSR; of codes, the number of features."""
        cdef Py_ssize_t longest = 0, row
        if self.codes is not None:
            return self.codes.c.n_numbers + self.codes.c.n_categories
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

    kind: b'f' or b'd' for float32 and float64, b'B' or b'H' for uint8 and uint16, b'i' for integers as wide as a
    pointer.
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
        wanted = {"f": "float32", "d": "float64", "B": "uint8", "H": "uint16", "i": "intp"}[chr(kind)]
        raise ValueError(f"{name} must be an aligned array of {n} {wanted}, got {given.size} of {given.dtype}")
    PyBuffer_Release(&view)
    return at
