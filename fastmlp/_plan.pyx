"""Below training: names and kernels of the chosen instruction set, the caller's arrays, architecture and prediction.

Plan is an architecture; its forward splits rows over threads and calls the C kernels. Training stands in _core.pyx, which
is the only one to import this module (and _kernels.pyx, for single kernels). Nothing is computed here: every product and
function is a kernel of csrc/fastmlp.h. Memory is zeroed when it is got, so what pads a panel is always finite; where a
kernel writes the padding too, it need not be.
"""

import os
import sys

import numpy

cdef object numpy_empty = numpy.empty
cdef type ndarray = numpy.ndarray

from cython.parallel cimport parallel, threadid
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fastmlp._csrc cimport *

from fastmlp._openmp cimport *

# Up to so many rows, and one in any case, prediction on one thread takes one after the other; up to so many, it packs weights
# where it uses them, the threads sharing out the columns; beyond, it packs all of them first, the threads sharing out the rows.
cdef Py_ssize_t SINGLE_ROWS = 4
cdef Py_ssize_t FEW_ROWS = 1024
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
OPTIMIZERS = {_names.optimizers[i].name.decode(): _names.optimizers[i].n_state for i in range(FM_N_OPTIMIZERS)}


# The runtime's threads do not survive a fork, and the runtime does not notice: a child that asks for them waits for ever. One
# that was forked after they were started works on one thread instead; the results are the same.
cdef bint threads_started = False
cdef bint threads_lost = False


def _after_fork_in_child():
    global threads_lost
    threads_lost = threads_started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


cdef int usable_threads(int wanted) noexcept:
    """As many of the wanted threads as OpenMP allows, at least one."""
    return 1 if threads_lost else max(1, min(wanted, omp_get_max_threads()))


cdef void note_threads(int n_threads) noexcept:
    """To be called before a parallel region."""
    global threads_started
    threads_started = threads_started or n_threads > 1


def max_threads() -> int:
    """Threads that OpenMP would start now: OMP_NUM_THREADS, affinity and threadpoolctl are in it; 1 without OpenMP, and in
    a process that was forked from one that had started them."""
    return 1 if threads_lost else omp_get_max_threads()


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
    note_threads(n_threads)
    cdef Buffer sink = Buffer(64 * n_threads)
    work = k.peak(1, sink.at) * n_threads
    while True:
        start = fm_seconds()
        with nogil, parallel(num_threads=n_threads):
            k.peak(rounds, <char *> sink.at + 64 * threadid())
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
        if view.strides[0] % view.itemsize or view.strides[1] % view.itemsize or <uintptr_t> view.buf % view.itemsize:
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
        for i in range(self.n):
            if self.index(2, i + 1) < self.index(2, i) or self.index(2, i + 1) > nnz:
                raise ValueError("X.indptr must not decrease nor exceed the number of stored elements")
        for i in range(self.index(2, self.n)):
            if self.index(1, i) < 0 or self.index(1, i) >= columns:
                raise ValueError(f"X.indices must lie in [0, {columns})")
        nnz = self.index(2, self.n) - self.index(2, 0)
        self.use_sparse = nnz <= SPARSE_SHARE * self.n * columns and self.canonical()
        return 0

    cdef bint canonical(self) noexcept:
        """Whether columns increase within each row."""
        cdef Py_ssize_t row, i
        for row in range(self.n):
            for i in range(self.index(2, row) + 1, self.index(2, row + 1)):
                if self.index(1, i) <= self.index(1, i - 1):
                    return False
        return True

    cdef Py_ssize_t index(self, int buffer, Py_ssize_t i) noexcept:
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


# ---- Architecture ----------------------------------------------------------------------------------------------------------

cdef class Plan:
    """An architecture without weights: sizes, activations, element type. Immutable.

    Parameters
    ----------
    layer_sizes : sequence of int
        Units per layer, input and output included.
    activations : sequence of str
        One of ACTIVATIONS per hidden layer.
    output : str
        Output activation: one of OUTPUTS, or a hidden activation.
    dtype : {'float32', 'float64'}
    """

    def __cinit__(self, layer_sizes, activations, str output not None, str dtype not None):
        cdef int i
        self.layer_sizes = tuple([int(size) for size in layer_sizes])
        self.activations = tuple(activations)
        self.output = output
        self.dtype = dtype
        self.k = kernels_of(chosen_isa, dtype)
        self.kind = b'd' if dtype == "float64" else b'f'
        self.numpy_dtype = numpy.dtype(dtype)
        self.n_layers = len(self.layer_sizes) - 1
        if self.n_layers < 1 or min(self.layer_sizes) < 1:
            raise ValueError(f"layer_sizes must be at least two positive numbers, got {self.layer_sizes}")
        if len(self.activations) != self.n_layers - 1:
            raise ValueError(f"activations must name {self.n_layers - 1} hidden layers' functions, got {self.activations}")
        for name in self.activations:
            if name not in ACTIVATIONS:
                raise ValueError(f"activation must be one of {ACTIVATIONS}, got {name!r}")
        if output not in OUTPUTS and output not in ACTIVATIONS:
            raise ValueError(f"output must be one of {OUTPUTS + ACTIVATIONS}, got {output!r}")
        self.sizes_buffer = Buffer((self.n_layers + 1) * sizeof(Py_ssize_t))
        self.hidden_buffer = Buffer(self.n_layers * sizeof(int))
        self.sizes = <Py_ssize_t *> self.sizes_buffer.at
        self.hidden = <int *> self.hidden_buffer.at
        self.widest = max(self.layer_sizes)
        self.n_parameters = 0
        n_parameters = 0  # a Python number: it cannot overflow
        for i in range(self.n_layers + 1):
            self.sizes[i] = self.layer_sizes[i]
            if i > 0:
                n_parameters += (self.layer_sizes[i - 1] + 1) * self.layer_sizes[i]
        if n_parameters > 2**44:
            raise MemoryError(f"layer_sizes {self.layer_sizes} make {n_parameters:.3g} parameters")
        self.n_parameters = n_parameters
        for i in range(self.n_layers - 1):
            self.hidden[i] = ACTIVATIONS.index(self.activations[i])
        self.output_row = OUTPUTS.index(output) if output in OUTPUTS else -1
        self.hidden[self.n_layers - 1] = FM_ACTIVATION_identity if self.output_row >= 0 else ACTIVATIONS.index(output)

    cdef Py_ssize_t padded(self, Py_ssize_t columns) noexcept nogil:
        return (columns + self.k.panel - 1) // self.k.panel * self.k.panel

    def forward(self, parameters, X, out=None, int n_threads=1):
        """Output of the network for each row of X: (n, O) in the plan's dtype.

        `parameters` is the flat array of Network.parameters; `out`, if given, receives the result and is returned.
        Nothing is checked beyond shapes and types.
        """
        if n_threads < 1:
            raise ValueError(f"n_threads must be positive, got {n_threads}")
        cdef Rows rows = Rows(X, self.sizes[0])
        cdef Py_ssize_t O = self.sizes[self.n_layers]
        cdef char *weights = <char *> flat(parameters, self.n_parameters, self.kind, "parameters")
        if out is None:
            out = numpy_empty((rows.n, O), self.numpy_dtype)
        elif out.shape != (rows.n, O):
            raise ValueError(f"out must have shape {(rows.n, O)}, got {out.shape}")
        cdef char *result = <char *> flat(out, rows.n * O, self.kind, "out", True)
        if rows.n == 0:
            return out
        n_threads = usable_threads(n_threads)
        if rows.n == 1 or (rows.n <= SINGLE_ROWS and n_threads == 1):
            self.forward_rows(weights, rows, result)
        elif rows.n < FEW_ROWS and not rows.use_sparse:
            self.forward_few(weights, rows, result, n_threads)
        else:
            self.forward_packed(weights, rows, result, n_threads)
        return out

    cdef int forward_rows(self, char *weights, Rows rows, char *result) except -1:
        """Row by row, from the weights where they are."""
        cdef Py_ssize_t size = self.k.element_size, width = self.padded(self.widest) * size, row, fan_in, fan_out
        cdef Buffer scratch = Buffer(2 * width, False)
        cdef char *x
        cdef char *y
        cdef char *W
        cdef char *b
        cdef int l
        with nogil:
            for row in range(rows.n):
                W = weights
                b = weights + (self.n_parameters - self.n_units()) * size
                x = <char *> rows.rows.data + row * rows.rows.row_stride * (8 if rows.rows.is_double else 4)
                if rows.rows.is_sparse or rows.rows.column_stride != 1 or rows.rows.is_double != (size == 8):
                    x = <char *> scratch.at + width
                    self.gather_row(x, &rows.rows, row)
                for l in range(self.n_layers):
                    fan_in, fan_out = self.sizes[l], self.sizes[l + 1]
                    y = <char *> scratch.at + (l % 2) * width
                    if l == self.n_layers - 1:
                        y = result + row * fan_out * size
                    self.k.forward_row(y, x, W, b, fan_in, fan_out, self.hidden[l])
                    W += fan_in * fan_out * size
                    b += fan_out * size
                    x = y
            if self.output_row >= 0:
                self.k.outputs[self.output_row].apply(result, rows.n, self.sizes[self.n_layers])
        return 0

    cdef void gather_row(self, char *x, const fm_rows *rows, Py_ssize_t row) noexcept nogil:
        """One row, converted: a panel of one row is NR consecutive columns, so panels NR apart are a plain row."""
        self.k.gather(x, rows, NULL, row, 1, self.k.panel)

    cdef Py_ssize_t n_units(self) noexcept nogil:
        cdef Py_ssize_t units = 0
        cdef int l
        for l in range(self.n_layers):
            units += self.sizes[l + 1]
        return units

    cdef int forward_few(self, char *weights, Rows rows, char *result, int n_threads) except -1:
        """Chunks of rows one after the other, each layer's columns over the threads, from the weights where they are."""
        cdef Py_ssize_t size = self.k.element_size, panel = self.k.panel, l, scratch = (self.k.chunk * size + 63) // 64 * 64
        cdef Py_ssize_t chunk = min(FM_CHUNK_ROWS, rows.n), stride = (chunk | 1) * panel
        cdef Py_ssize_t width = self.padded(self.widest) // panel * stride * size
        cdef Buffer memory = Buffer(2 * width + n_threads * scratch, False)
        cdef Buffer layers = Buffer(self.n_layers * sizeof(fm_layer))
        cdef fm_layer *layer = <fm_layer *> layers.at
        cdef char *W = weights
        cdef char *b = weights + (self.n_parameters - self.n_units()) * size
        cdef char *scratches = <char *> memory.at + 2 * width
        cdef fm_barrier barrier
        fm_barrier_init(&barrier)
        for l in range(self.n_layers):
            layer[l].fan_in, layer[l].fan_out, layer[l].activation = self.sizes[l], self.sizes[l + 1], self.hidden[l]
            layer[l].W, layer[l].b = W, b
            layer[l].x = <char *> memory.at + l % 2 * width
            layer[l].y = <char *> memory.at + (1 - l % 2) * width
            W += layer[l].fan_in * layer[l].fan_out * size
            b += layer[l].fan_out * size
        if n_threads == 1:
            with nogil:
                self.forward_together(layer, rows, result, scratches, chunk, stride, &barrier, 0, 1)
        else:
            note_threads(n_threads)
            with nogil, parallel(num_threads=n_threads):
                self.forward_together(layer, rows, result, scratches + threadid() * scratch, chunk, stride, &barrier,
                                      threadid(), omp_get_num_threads())
        return 0

    cdef void forward_together(self, fm_layer *layers, Rows rows, char *result, char *scratch, Py_ssize_t chunk,
                               Py_ssize_t stride, fm_barrier *barrier, int thread, int n_threads) noexcept nogil:
        """One thread's part: its rows of the chunk while data come and go, its panels of each layer in between."""
        cdef Py_ssize_t first = 0, count, row, n, panels, O = self.sizes[self.n_layers], size = self.k.element_size
        cdef Py_ssize_t skip
        cdef char *out
        cdef int l
        while first < rows.n:
            count = min(chunk, rows.n - first)
            row = count * thread // n_threads
            n = count * (thread + 1) // n_threads - row
            skip = row * self.k.panel * size
            self.k.gather(<char *> layers[0].x + skip, &rows.rows, NULL, first + row, n, stride)
            fm_barrier_wait(barrier, n_threads)
            for l in range(self.n_layers):
                panels = self.padded(layers[l].fan_out) // self.k.panel
                self.k.forward_unpacked(&layers[l], scratch, panels * thread // n_threads,
                                        panels * (thread + 1) // n_threads, count, stride)
                fm_barrier_wait(barrier, n_threads)
            out = result + (first + row) * O * size
            self.k.scatter(out, <char *> layers[self.n_layers - 1].y + skip, n, O, stride)
            if self.output_row >= 0:
                self.k.outputs[self.output_row].apply(out, n, O)
            fm_barrier_wait(barrier, n_threads)
            first += count

    cdef int forward_packed(self, char *weights, Rows rows, char *result, int n_threads) except -1:
        """Chunks of rows over the threads, from weights packed into panels once."""
        cdef Py_ssize_t size = self.k.element_size, panel = self.k.panel, total = 0, l
        cdef Py_ssize_t chunk = min(FM_CHUNK_ROWS, (rows.n + n_threads - 1) // n_threads)
        cdef Py_ssize_t stride = (chunk | 1) * panel, width = self.padded(self.widest) // panel * stride * size
        for l in range(self.n_layers):
            total += (self.sizes[l] + 1) * self.padded(self.sizes[l + 1])
        n_threads = min(n_threads, (rows.n + chunk - 1) // chunk)
        cdef Buffer packed = Buffer(total * size, False)
        cdef Buffer scratch = Buffer(2 * width * n_threads, False)
        cdef Buffer layers = Buffer(n_threads * self.n_layers * sizeof(fm_layer))
        cdef fm_layer *layer
        cdef char *at
        cdef int t
        with nogil:
            for t in range(n_threads):
                at = <char *> packed.at
                for l in range(self.n_layers):
                    layer = <fm_layer *> layers.at + t * self.n_layers + l
                    layer.fan_in, layer.fan_out, layer.activation = self.sizes[l], self.sizes[l + 1], self.hidden[l]
                    layer.W = at
                    layer.b = at + layer.fan_in * self.padded(layer.fan_out) * size
                    at = <char *> layer.b + self.padded(layer.fan_out) * size
                    layer.x = <char *> scratch.at + (2 * t + l % 2) * width
                    layer.y = <char *> scratch.at + (2 * t + 1 - l % 2) * width
            self.pack(<fm_layer *> layers.at, weights, -1)
        if n_threads == 1:
            with nogil:
                self.forward_chunks(<fm_layer *> layers.at, rows, result, chunk, stride, 0, 1)
        else:
            note_threads(n_threads)
            with nogil, parallel(num_threads=n_threads):
                self.forward_chunks(<fm_layer *> layers.at + threadid() * self.n_layers, rows, result, chunk, stride,
                                    threadid(), omp_get_num_threads())
        return 0

    cdef void forward_chunks(self, fm_layer *layers, Rows rows, char *result, Py_ssize_t chunk, Py_ssize_t stride,
                             int thread, int n_threads) noexcept nogil:
        cdef Py_ssize_t n = rows.n, n_chunks = (n + chunk - 1) // chunk, c, first, count, O = self.sizes[self.n_layers]
        cdef char *out
        cdef int l
        for c in range(n_chunks * thread // n_threads, n_chunks * (thread + 1) // n_threads):
            first = c * chunk
            count = min(chunk, n - first)
            if rows.use_sparse:
                self.k.forward_csr(&layers[0], &rows.rows, NULL, first, 0, count, stride)
            else:
                self.k.gather(layers[0].x, &rows.rows, NULL, first, count, stride)
                self.k.forward(&layers[0], 0, count, stride)
            for l in range(1, self.n_layers):
                self.k.forward(&layers[l], 0, count, stride)
            out = result + first * O * self.k.element_size
            self.k.scatter(out, layers[self.n_layers - 1].y, count, O, stride)
            if self.output_row >= 0:
                self.k.outputs[self.output_row].apply(out, count, O)

    cdef void pack(self, fm_layer *layers, char *parameters, int state) noexcept nogil:
        """Flat array into the layers' panels: the weights (state < 0) or an array of optimizer state."""
        cdef Py_ssize_t size = self.k.element_size
        cdef char *W = parameters
        cdef char *b = parameters + (self.n_parameters - self.n_units()) * size
        cdef fm_rows matrix
        cdef fm_layer *layer
        cdef int l
        memset(&matrix, 0, sizeof(matrix))
        matrix.is_double = size == 8
        for l in range(self.n_layers):
            layer = &layers[l]
            matrix.data, matrix.columns = W, layer.fan_out
            matrix.row_stride, matrix.column_stride = layer.fan_out, 1
            self.k.gather(layer.W if state < 0 else layer.W_state[state], &matrix, NULL, 0, layer.fan_in,
                          layer.fan_in * self.k.panel)
            if state < 0 and layer.WT != NULL:
                matrix.columns, matrix.row_stride, matrix.column_stride = layer.fan_in, 1, layer.fan_out
                self.k.gather(layer.WT, &matrix, NULL, 0, layer.fan_out, layer.fan_out * self.k.panel)
            matrix.data, matrix.columns = b, layer.fan_out
            matrix.row_stride, matrix.column_stride = layer.fan_out, 1
            self.k.gather(layer.b if state < 0 else layer.b_state[state], &matrix, NULL, 0, 1, self.k.panel)
            W += layer.fan_in * layer.fan_out * size
            b += layer.fan_out * size

    cdef void unpack(self, char *parameters, fm_layer *layers, int state) noexcept nogil:
        """The layers' panels into a flat array: the inverse of pack."""
        cdef Py_ssize_t size = self.k.element_size
        cdef char *W = parameters
        cdef char *b = parameters + (self.n_parameters - self.n_units()) * size
        cdef fm_layer *layer
        cdef int l
        for l in range(self.n_layers):
            layer = &layers[l]
            self.k.scatter(W, layer.W if state < 0 else layer.W_state[state], layer.fan_in, layer.fan_out,
                           layer.fan_in * self.k.panel)
            self.k.scatter(b, layer.b if state < 0 else layer.b_state[state], 1, layer.fan_out, self.k.panel)
            W += layer.fan_in * layer.fan_out * size
            b += layer.fan_out * size
