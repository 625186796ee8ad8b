"""Prediction: splits rows or columns over threads and calls the C kernels, from the flat parameters of a Plan.

One dense row, or a few on one thread, are computed one by one. Up to FEW_ROWS, threads share out the columns of each
layer. They pack weights where they use them; for sparse and for coded rows, they read the first layer's weights where
they are. Beyond that threads share out the rows, and small weights are packed first.
"""

import reprlib

import numpy

cdef object numpy_empty = numpy.empty
cdef type ndarray = numpy.ndarray

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_AsDouble, PyFloat_Check
from cython.parallel cimport parallel, threadid
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from fastmlp.core._arrays cimport Buffer, CodeLayout, Codes, InputRows, are_finite, array_address, format_of
from fastmlp.core._csrc cimport *
from fastmlp.core._dispatch cimport Caller, region_begins, region_ends, usable_threads
from fastmlp.core._plan cimport Plan

from fastmlp.core._dispatch import LOSSES

ctypedef fused real:
    float
    double

__all__ = ["CodedRowForward", "RowForward", "apply_output", "bin_sums", "forward", "row_losses"]

cdef Py_ssize_t SINGLE_ROWS = 4
cdef Py_ssize_t FEW_ROWS = 1024
# Multiply-adds below which a prediction holds the interpreter's lock: some 10 us. Beside a busy Python thread, whoever
# lets go of the lock waits for milliseconds until it is free again.
cdef Py_ssize_t HELD_OPERATIONS = 200_000
cdef enum:
    ROW_BYTES = 16384  # of a row's layers, on the stack; larger rows take a buffer
# At least this number of coded rows: the sums of weights before all bins are made first; fewer rows sum up what they
# need.
cdef Py_ssize_t SUMMED_ROWS = 24
# Multiply-adds of a thread between two polls for signals: some 10 ms, and less than 0.1 s in the plainest build.
cdef double SLICE_OPERATIONS = 5e8
# Where threads share out columns, a chunk of rows has at most this many multiply-adds, but at least MIN_CHUNK_ROWS
# rows: the weights are read once per chunk, and fewer rows would wait for them.
cdef double MAX_CHUNK_OPERATIONS = 2e9
cdef Py_ssize_t MIN_CHUNK_ROWS = 24
# Rows of a chunk, if a layer's weights are packed in parts by each chunk: more than FM_CHUNK_ROWS, to pack less often,
# but few enough for their input and output to stay in L2 a part at a time.
cdef Py_ssize_t LARGE_CHUNK_ROWS = 264
# Bytes of a layer's weights that are packed once for many rows; more are packed in parts by each chunk of rows, which
# costs less than memory for all of them.
cdef Py_ssize_t PACKED_BYTES = 4_000_000
# For sparse and for coded rows, the first layer's are packed if each is read more often than this.
cdef Py_ssize_t PACKED_READS = 32


def forward(Plan plan not None, parameters, X, out=None, int n_threads=1, statistics=None, sums=None):
    """Output of the network for each row of X. Shapes and types are checked, values are not.

    Parameters
    ----------
    plan : Plan
    parameters : array (n_parameters,) in the plan's dtype
    X : ndarray or CSR of shape (n, n_features), float32 or float64, or Codes
        Codes take no residual first layer.
    out : array (n, O) in the plan's dtype, default=None
        Receives the result; None: a new array.
    n_threads : int, default=1
    statistics : array (n_statistics,), default=None
        Running averages of batch normalisation.
    sums : array in the plan's dtype, default=None
        `bin_sums` of these parameters, with which a few coded rows take less time. None: weights are summed up as
        needed.

    Returns
    -------
    ndarray of shape (n, O)

    Raises
    ------
    ValueError
    KeyboardInterrupt, or whatever a signal handler raises.
    """
    if n_threads < 1:
        raise ValueError(f"n_threads must be positive, got {n_threads}")
    cdef InputRows rows = InputRows(X, plan.sizes[0])
    cdef Py_ssize_t O = plan.sizes[plan.n_layers]
    cdef char *sums_at = NULL
    cdef char *weights = <char *> array_address(parameters, plan.n_parameters, plan.kind, "parameters")
    cdef char *averages = NULL
    if plan.batch_norm:
        averages = <char *> array_address(statistics, plan.n_statistics, plan.kind, "statistics")
    if out is None:
        out = numpy_empty((rows.n, O), plan.numpy_dtype)
    elif out.shape != (rows.n, O):
        raise ValueError(f"out must have shape {(rows.n, O)}, got {out.shape}")
    cdef char *result = <char *> array_address(out, rows.n * O, plan.kind, "out", True)
    plan.check_rows(rows)
    if rows.codes is not None:
        if sums is not None:
            sums_at = <char *> array_address(sums, sums_size(plan, rows.codes.layout), plan.kind, "sums")
    if rows.n == 0:
        return out
    cdef Caller _caller = Caller() if n_threads > 1 else None  # until this call ends
    n_threads = usable_threads(n_threads)
    cdef bint sparse = rows.use_sparse and not plan.adds_input(0)
    if plan.n_members > 1:
        forward_members(plan, weights, rows, result, n_threads, sums_at)
    elif not sparse and (rows.n == 1 or (rows.n <= SINGLE_ROWS and n_threads == 1)):
        forward_row_by_row(plan, weights, averages, rows, result, sums_at)
    elif rows.n < FEW_ROWS:
        forward_by_columns(plan, weights, averages, rows, result, n_threads, sums_at)
    else:
        forward_by_rows(plan, weights, averages, rows, result, n_threads)
    return out


cdef Py_ssize_t sums_size(Plan plan, CodeLayout layout) noexcept:
    """Elements of bin_sums."""
    return layout.offset[layout.n_numbers] * plan.columns(0)


def bin_sums(Plan plan not None, parameters, CodeLayout layout not None):
    """Sums of the first layer's weights before each bin of the numbers, for `forward` of a few rows at a time.

    Parameters
    ----------
    plan : Plan
        Of as many columns as the layout has.
    parameters : array (n_parameters,) in the plan's dtype
    layout : CodeLayout

    Returns
    -------
    ndarray of shape (layout.offsets[number of numbers], plan.layer_sizes[1] or plan.embedding)
        Row offsets[f] + k is the sum of the first k rows of number f; the row of missing numbers is 0.

    Raises
    ------
    ValueError
    """
    if layout.width != plan.sizes[0]:
        raise ValueError(f"the layout encodes {layout.width} columns, the network takes {plan.sizes[0]}")
    cdef char *W = <char *> array_address(parameters, plan.n_parameters, plan.kind, "parameters")
    sums = numpy_empty((layout.offset[layout.n_numbers], plan.columns(0)), plan.numpy_dtype)
    sum_all_bins(plan, W, layout, <char *> array_address(sums, sums_size(plan, layout), plan.kind, "sums", True))
    return sums


cdef void sum_all_bins(Plan plan, char *weights, CodeLayout layout, char *sums) noexcept:
    """bin_sums into memory for them."""
    cdef fm_codes features
    features.offset = layout.offset
    with nogil:
        plan.k.sum_bins(sums, weights + plan.offsets[0].W, &features, plan.columns(0), 0, layout.n_numbers)


cdef int forward_row_by_row(Plan plan, char *weights, char *statistics, InputRows rows, char *result,
                            char *sums) except -1:
    """One row after the other; weights are read where they are."""
    cdef bint coded = rows.codes is not None
    cdef Py_ssize_t size = plan.k.element_size, affine = plan.affine_bytes()
    cdef Py_ssize_t odd = widest(plan, 1, coded) * size, both = odd + widest(plan, 0, coded) * size
    cdef Buffer memory = Buffer(both + affine + plan.n_layers * sizeof(fm_layer), False)
    cdef fm_layer *layers = <fm_layer *> (<char *> memory.at + both + affine)
    plan.describe(layers, weights, statistics, <char *> memory.at + both)
    if rows.n * plan.n_weights < HELD_OPERATIONS:
        rows_through_layers(plan, layers, rows, result, sums, <char *> memory.at, odd)
    else:
        with nogil:
            rows_through_layers(plan, layers, rows, result, sums, <char *> memory.at, odd)
    return 0


cdef void rows_through_layers(Plan plan, fm_layer *layers, InputRows rows, char *result, char *sums, char *memory,
                              Py_ssize_t odd) noexcept nogil:
    """All rows, one after the other. The layers' outputs are in two buffers in turn, at `memory` and `odd` bytes on."""
    cdef bint coded = rows.codes is not None
    cdef Py_ssize_t size = plan.k.element_size, O = plan.sizes[plan.n_layers], row
    cdef char *x
    for row in range(rows.n):
        if coded:  # the first layer, in whole panels: of one row, they make a plain row
            x = memory
            layers[0].y = x
            plan.k.forward_codes_unpacked(&layers[0], sums, &rows.codes.c, row, 0,
                                          plan.padded(plan.sizes[1]) // plan.k.panel, 1, plan.k.panel)
            if plan.n_layers == 1:
                memcpy(result + row * O * size, x, O * size)
        else:
            x = <char *> rows.rows.data + row * rows.rows.row_stride * (8 if rows.rows.is_double else 4)
            if rows.rows.is_sparse or rows.rows.column_stride != 1 or rows.rows.is_double != (size == 8):
                x = memory + odd
                plan.k.gather(x, &rows.rows, NULL, row, 1, plan.k.panel)  # a plain row, too
        row_through_layers(plan, layers, coded, x, result + row * O * size, memory, odd)
    if plan.output_row >= 0:
        plan.k.outputs[plan.output_row].apply(result, rows.n, O)


cdef inline void row_through_layers(Plan plan, const fm_layer *layers, int first, const char *x, char *result,
                                    char *memory, Py_ssize_t odd) noexcept nogil:
    """A row's way from layer `first` to the last, whose output is `result`."""
    cdef char *y
    cdef int l
    for l in range(first, plan.n_layers):
        y = result if l == plan.n_layers - 1 else memory + (l % 2) * odd
        plan.k.forward_row(&layers[l], y, x)
        x = y


cdef Py_ssize_t widest(Plan plan, int parity, bint skips_input) noexcept nogil:
    """Padded width of the widest layer with an even (parity 0) or odd number: layers are in two buffers in turn.
    Layer 0 is the input, which sparse and coded rows do not need there."""
    cdef Py_ssize_t width = 0
    cdef int l
    for l in range(parity + 2 * (skips_input and parity == 0), plan.n_layers + 1, 2):
        width = max(width, plan.padded(plan.sizes[l]))
    return width


cdef void mark_finite(Plan plan, fm_layer *layers, const char *parameters) noexcept:
    """Let forward_row leave out inputs that are 0, if that is right."""
    cdef bint finite = are_finite(parameters, plan.n_parameters, plan.k.element_size)
    cdef int l
    for l in range(plan.n_matrices):
        layers[l].is_finite = finite


@cython.final
cdef class RowForward:
    """Output for one dense row at a time: the mean of several networks' outputs. The layers are described once.

    Threads may share it. It reads the arrays where they are, but for batch normalisation, which it folds at the start.

    Parameters
    ----------
    plan : Plan
        Without an embedding.
    networks : sequence of (parameters, statistics)
        Arrays (n_parameters,) and (n_statistics,) in the plan's dtype, of each network; at least one.

    Raises
    ------
    ValueError
    """

    cdef Plan plan
    cdef readonly tuple networks
    cdef Buffer memory          # the layers of each network, and their scales and shifts
    cdef fm_layer *layers
    cdef Py_ssize_t width, n_outputs
    # Bytes from the start of a row's memory to the outputs of the layers with odd numbers, the row, a network's output
    # and the mean; all of it.
    cdef Py_ssize_t odd, input, own, result, n_bytes

    def __cinit__(self, Plan plan not None, networks):
        cdef Py_ssize_t n, i, layers
        if plan.embedding:
            raise ValueError("a network that embeds coded rows takes no dense row")
        self.plan, self.networks = plan, tuple(networks)
        n, layers = len(self.networks), plan.n_layers * sizeof(fm_layer)
        if n == 0:
            raise ValueError("there must be at least one network")
        self.memory = Buffer(n * (layers + plan.affine_bytes()))
        self.layers = <fm_layer *> (<char *> self.memory.at + n * plan.affine_bytes())
        for i, (parameters, statistics) in enumerate(self.networks):
            plan.describe(
                self.layers + i * plan.n_layers,
                <char *> array_address(parameters, plan.n_parameters, plan.kind, "parameters"),
                <char *> array_address(statistics, plan.n_statistics, plan.kind, "statistics")
                if plan.batch_norm else NULL,
                <char *> self.memory.at + i * plan.affine_bytes(),
            )
            mark_finite(plan, self.layers + i * plan.n_layers, <char *> array_address(
                parameters, plan.n_parameters, plan.kind, "parameters"))
        self.width, self.n_outputs = plan.sizes[0], plan.sizes[plan.n_layers]
        self.odd = self.room(widest(plan, 1, False))
        self.input = self.odd + self.room(widest(plan, 0, True))
        self.own = self.input + self.room(self.width)
        self.result = self.own + self.room(self.n_outputs)
        self.n_bytes = self.result + self.room(self.n_outputs)

    cdef Py_ssize_t room(self, Py_ssize_t columns):
        """Bytes of a row of panels, to a multiple of 64."""
        return (self.plan.padded(columns) * self.plan.k.element_size + 63) // 64 * 64

    def __reduce__(self):
        return RowForward, (self.plan, self.networks)

    def __call__(self, row, out=None):
        """The output for a row. Its shape and type are checked, its values are not.

        Parameters
        ----------
        row : float32 or float64 array (n_features,) or (1, n_features), or a list or tuple of n_features numbers
        out : array (n_outputs,) in the plan's dtype, default=None
            Receives the result; None: a new array.

        Returns
        -------
        ndarray of shape (n_outputs,)

        Raises
        ------
        ValueError, TypeError
        """
        cdef char local[ROW_BYTES]
        cdef char *memory = local + (-<uintptr_t> local) % 64
        cdef Buffer own
        cdef char *result
        if self.n_bytes > ROW_BYTES - 64:
            own = Buffer(self.n_bytes, False)
            memory = <char *> own.at
        if out is None:
            out = numpy_empty(self.n_outputs, self.plan.numpy_dtype)
        if not self.read(row, memory + self.input, False):
            raise ValueError(
                f"a row must be an array or list of {self.width} numbers, float32 or float64, got {self.described(row)}"
            )
        result = <char *> array_address(out, self.n_outputs, self.plan.kind, "out", True)
        self.predict(result, memory)
        return out

    def values(self, row):
        """The output for a row as a list of floats, or None if that needs a closer look: if the row is neither an array
        nor a list or tuple of floats and integers, has another length, or if it or the output is not finite."""
        cdef char local[ROW_BYTES]
        cdef char *memory = local + (-<uintptr_t> local) % 64
        cdef Buffer own
        cdef char *result
        cdef Py_ssize_t i, size = self.plan.k.element_size
        if self.n_bytes > ROW_BYTES - 64:
            own = Buffer(self.n_bytes, False)
            memory = <char *> own.at
        result = memory + self.result
        if not self.read(row, memory + self.input, True) or not are_finite(memory + self.input, self.width, size):
            return None
        self.predict(result, memory)
        if not are_finite(result, self.n_outputs, size):
            return None
        if size == 8:
            return [(<double *> result)[i] for i in range(self.n_outputs)]
        return [(<float *> result)[i] for i in range(self.n_outputs)]

    cdef str described(self, row):
        return f"{type(row).__name__} of shape {numpy.shape(row)} and type {numpy.asarray(row).dtype}"

    cdef bint read(self, row, char *to, bint strict) except -1:
        """Copy a row into the plan's type; returns False for what is no such row. strict: no other numbers in a list
        than floats and integers."""
        cdef Py_ssize_t i = 0
        cdef double value
        if type(row) is not list and type(row) is not tuple:
            return self.read_array(row, to)
        for item in row:
            if i == self.width:
                return False
            if PyFloat_Check(item):
                value = PyFloat_AS_DOUBLE(item)
            elif strict and type(item) is not int:
                return False
            else:
                try:
                    value = PyFloat_AsDouble(item)
                except (TypeError, OverflowError) as error:
                    if strict:
                        return False
                    if isinstance(error, TypeError):
                        raise TypeError(f"row[{i}] must be a real number, got {reprlib.repr(item)}") from None
                    raise ValueError(f"row[{i}] = {reprlib.repr(item)} is too large for float64") from None
            if self.plan.k.element_size == 8:
                (<double *> to)[i] = value
            else:
                (<float *> to)[i] = <float> value
            i += 1
        return i == self.width

    cdef bint read_array(self, row, char *to) except -1:
        """The same for an array of any strides."""
        cdef Py_buffer view
        cdef fm_rows source
        cdef int kind
        cdef Py_ssize_t last
        if type(row) is not ndarray:
            if not isinstance(row, ndarray):
                return False
            if numpy.ma.is_masked(row):
                raise ValueError("the row has masked values: fill them first, row.filled(0.0), for example")
        memset(&source, 0, sizeof(source))
        PyObject_GetBuffer(row, &view, PyBUF_FORMAT | PyBUF_STRIDES)
        try:
            kind, last = format_of(&view), view.ndim - 1
            if kind not in (b'f', b'd') or not 0 <= last <= 1 or view.shape[last] != self.width:
                return False
            if (last == 1 and view.shape[0] != 1) or <uintptr_t> view.buf % view.itemsize:
                return False
            if view.strides[last] % view.itemsize and self.width > 1:
                return False
            source.data, source.columns, source.is_double = view.buf, self.width, kind == b'd'
            source.column_stride = view.strides[last] // view.itemsize
            self.plan.k.gather(to, &source, NULL, 0, 1, self.plan.k.panel)  # of one row, panels make a plain row
        finally:
            PyBuffer_Release(&view)
        return True

    cdef int predict(self, char *result, char *memory) except -1:
        """Output for the row at memory + input."""
        cdef Py_ssize_t n = len(self.networks)
        if self.plan.n_weights * n < HELD_OPERATIONS:
            self.mean(self.plan, result, memory, n)
        else:
            with nogil:
                self.mean(self.plan, result, memory, n)
        return 0

    cdef void mean(self, Plan plan, char *result, char *memory, Py_ssize_t n_networks) noexcept nogil:
        """The mean of the networks' outputs, summed up in their order."""
        cdef Py_ssize_t size = plan.k.element_size, i, o
        cdef char *own = memory + self.own
        cdef char *to = result
        for i in range(n_networks):
            row_through_layers(plan, self.layers + i * plan.n_layers, 0, memory + self.input, to, memory, self.odd)
            if plan.output_row >= 0:
                plan.k.outputs[plan.output_row].apply(to, 1, self.n_outputs)
            if i > 0:
                for o in range(self.n_outputs):
                    if size == 8:
                        (<double *> result)[o] += (<double *> own)[o]
                    else:
                        (<float *> result)[o] += (<float *> own)[o]
            to = own
        if n_networks > 1:
            for o in range(self.n_outputs):
                if size == 8:
                    (<double *> result)[o] /= <double> n_networks
                else:
                    (<float *> result)[o] /= <float> n_networks


cdef Py_ssize_t chunk_rows(Plan plan, Py_ssize_t n, int n_threads, bint skips_input) noexcept:
    """Rows that go through the network together, of n that threads share out in chunks (1: they share the columns).

    skips_input: the first layer takes sparse or coded rows."""
    cdef Py_ssize_t largest = 0, most = FM_CHUNK_ROWS, n_chunks
    cdef int l
    for l in range(skips_input, plan.n_layers):
        largest = max(largest, plan.sizes[l] * plan.sizes[l + 1] * plan.k.element_size)
    if largest > PACKED_BYTES:
        most = LARGE_CHUNK_ROWS
    if n_threads == 1:
        most = <Py_ssize_t> max(MIN_CHUNK_ROWS, min(most, MAX_CHUNK_OPERATIONS / plan.n_weights))
    if most <= FM_CHUNK_ROWS:
        return min(most, (n + n_threads - 1) // n_threads)
    n_chunks = (n + most * n_threads - 1) // (most * n_threads) * n_threads  # as many for each thread
    return (n + n_chunks - 1) // n_chunks


cdef int forward_by_columns(Plan plan, char *weights, char *statistics, InputRows rows, char *result, int n_threads,
                            char *sums) except -1:
    """Chunks of rows one after the other; threads share each layer's columns and read the weights where they are.
    Signals are handled between slices."""
    cdef Py_ssize_t size = plan.k.element_size, panel = plan.k.panel, l
    cdef Py_ssize_t scratch = (plan.k.scratch_size * size + 63) // 64 * 64
    cdef bint skips_input = rows.codes is not None or (rows.use_sparse and not plan.adds_input(0))
    cdef Py_ssize_t chunk = chunk_rows(plan, rows.n, 1, skips_input), stride = (chunk | 1) * panel, begin, end
    cdef Py_ssize_t n_chunks = <Py_ssize_t> max(1, SLICE_OPERATIONS / (<double> plan.n_weights * chunk))
    cdef Py_ssize_t slice = chunk * n_threads * n_chunks
    cdef Py_ssize_t even = widest(plan, 0, skips_input) // panel * stride * size
    cdef Py_ssize_t both = even + widest(plan, 1, skips_input) // panel * stride * size
    cdef Buffer memory = Buffer(both + n_threads * scratch, False)
    cdef Buffer affine = Buffer(plan.affine_bytes(), False), layers = Buffer(plan.n_layers * sizeof(fm_layer))
    cdef fm_layer *layer = <fm_layer *> layers.at
    cdef char *scratches = <char *> memory.at + both
    cdef Buffer own_sums
    cdef fm_barrier barrier
    cdef fm_counter counter
    cdef int usable
    fm_barrier_init(&barrier)
    if rows.codes is not None and sums == NULL and rows.n >= SUMMED_ROWS:
        own_sums = Buffer(sums_size(plan, rows.codes.layout) * size, False)
        sums = <char *> own_sums.at
        sum_all_bins(plan, weights, rows.codes.layout, sums)
    plan.describe(layer, weights, statistics, <char *> affine.at)
    for l in range(plan.n_layers):
        layer[l].x = <char *> memory.at + l % 2 * even
        layer[l].y = <char *> memory.at + (1 - l % 2) * even
    for begin in range(0, rows.n, slice):
        end = min(begin + slice, rows.n)
        fm_counter_set(&counter, 0)
        if n_threads == 1:
            with nogil:
                forward_columns_thread(plan, layer, rows, sums, result, scratches, chunk, stride, &barrier, &counter,
                                       begin, end, 0, 1)
        else:
            usable = region_begins(n_threads)
            with nogil, parallel(num_threads=usable):
                forward_columns_thread(plan, layer, rows, sums, result, scratches + threadid() * scratch, chunk,
                                       stride, &barrier, &counter, begin, end, threadid(), omp_get_num_threads())
            region_ends()
        PyErr_CheckSignals()
    return 0


cdef void forward_columns_thread(Plan plan, fm_layer *layers, InputRows rows, char *sums, char *result, char *scratch,
                                 Py_ssize_t chunk, Py_ssize_t stride, fm_barrier *barrier, fm_counter *counter,
                                 Py_ssize_t begin, Py_ssize_t end, int thread, int n_threads) noexcept nogil:
    """One thread's part of rows begin .. end: it gathers and scatters its rows of a chunk, and computes shares of a
    layer's panels as it becomes free."""
    cdef Py_ssize_t first = begin, count, row, n, panels, O = plan.sizes[plan.n_layers], size = plan.k.element_size
    cdef Py_ssize_t skip, p0, p1, shares, share, n_shared = 0
    cdef bint sparse = rows.use_sparse and not plan.adds_input(0), coded = rows.codes is not None
    cdef char *out
    cdef int l
    while first < end:
        count = min(chunk, end - first)
        row = count * thread // n_threads
        n = count * (thread + 1) // n_threads - row
        skip = row * plan.k.panel * size
        if not sparse and not coded:
            plan.k.gather(<char *> layers[0].x + skip, &rows.rows, NULL, first + row, n, stride)
            fm_barrier_wait(barrier, n_threads)
        for l in range(plan.n_layers):
            panels = plan.padded(layers[l].fan_out) // plan.k.panel
            shares = min(panels, max(n_threads, min(4 * n_threads, panels // 8)))
            share = fm_claim(counter, n_shared + shares)
            while share >= 0:
                p0, p1 = panels * (share - n_shared) // shares, panels * (share - n_shared + 1) // shares
                if l == 0 and coded:
                    plan.k.forward_codes_unpacked(&layers[0], sums, &rows.codes.c, first, p0, p1, count, stride)
                elif l == 0 and sparse:
                    plan.k.forward_csr_unpacked(&layers[0], &rows.rows, first, p0, p1, count, stride)
                else:
                    plan.k.forward_unpacked(&layers[l], scratch, p0, p1, count, stride)
                share = fm_claim(counter, n_shared + shares)
            n_shared += shares
            fm_barrier_wait(barrier, n_threads)
        out = result + (first + row) * O * size
        plan.k.scatter(out, <char *> layers[plan.n_layers - 1].y + skip, n, O, stride)
        if plan.output_row >= 0:
            plan.k.outputs[plan.output_row].apply(out, n, O)
        fm_barrier_wait(barrier, n_threads)
        first += count


cdef int forward_by_rows(Plan plan, char *weights, char *statistics, InputRows rows, char *result,
                         int n_threads) except -1:
    """Threads take chunks of rows as they become free. A layer's weights are packed into panels once, or are read where
    they are. Signals are handled between slices."""
    cdef Py_ssize_t size = plan.k.element_size, panel = plan.k.panel, total = 0, l
    cdef bint skips_input = rows.codes is not None or (rows.use_sparse and not plan.adds_input(0))
    cdef Py_ssize_t chunk = chunk_rows(plan, rows.n, n_threads, skips_input)
    cdef Py_ssize_t stride = (chunk | 1) * panel, even = widest(plan, 0, skips_input) // panel * stride * size
    cdef Py_ssize_t both = even + widest(plan, 1, skips_input) // panel * stride * size
    cdef Py_ssize_t scratch = (plan.k.scratch_size * size + 63) // 64 * 64
    for l in range(plan.n_layers):
        if packs_layer(plan, rows, l):
            total += plan.sizes[l] * plan.padded(plan.columns(l)) + plan.padded(plan.sizes[l + 1])
    cdef Py_ssize_t n_chunks = (rows.n + chunk - 1) // chunk, begin, end
    n_threads = min(n_threads, n_chunks)
    cdef Py_ssize_t slice = n_threads * <Py_ssize_t> max(1, SLICE_OPERATIONS / (<double> plan.n_weights * chunk))
    cdef Buffer packed = Buffer(total * size, False)
    cdef Buffer memory = Buffer((both + scratch) * n_threads, False)
    cdef Buffer affine = Buffer(plan.affine_bytes(), False)
    cdef Buffer layers = Buffer(n_threads * plan.n_layers * sizeof(fm_layer)), sums = None
    cdef char *scratches = <char *> memory.at + both * n_threads
    cdef fm_layer *layer
    cdef fm_counter counter
    cdef char *at
    cdef int t, usable
    if rows.codes is not None:
        sums = Buffer(rows.codes.c.offset[rows.codes.c.n_numbers] * plan.padded(plan.columns(0)) * size, False)
    with nogil:
        for t in range(n_threads):
            at = <char *> packed.at
            plan.describe(<fm_layer *> layers.at + t * plan.n_layers, weights, statistics, <char *> affine.at)
            for l in range(plan.n_layers):
                layer = <fm_layer *> layers.at + t * plan.n_layers + l
                layer.x = <char *> memory.at + t * both + l % 2 * even
                layer.y = <char *> memory.at + t * both + (1 - l % 2) * even
                if packs_layer(plan, rows, l):
                    if t == 0:
                        plan.pack_matrix(at, <char *> layer.W, layer.fan_in, plan.columns(l))
                    layer.W = at
                    at += layer.fan_in * plan.padded(plan.columns(l)) * size
                    if t == 0:
                        plan.pack_vector(at, <char *> layer.b, layer.fan_out)
                    layer.b = at
                    at += plan.padded(layer.fan_out) * size
    if sums is not None and packs_layer(plan, rows, 0):
        pack_sums(plan, <fm_layer *> layers.at, &rows.codes.c, <char *> sums.at)
    elif sums is not None:
        sum_all_bins(plan, weights, rows.codes.layout, <char *> sums.at)
    for begin in range(0, n_chunks, slice):
        end = min(begin + slice, n_chunks)
        fm_counter_set(&counter, begin)
        if n_threads == 1:
            with nogil:
                forward_rows_thread(plan, <fm_layer *> layers.at, rows, NULL if sums is None else sums.at, result,
                                    scratches, chunk, stride, &counter, end)
        else:
            usable = region_begins(n_threads)
            with nogil, parallel(num_threads=usable):
                forward_rows_thread(plan, <fm_layer *> layers.at + threadid() * plan.n_layers, rows,
                                    NULL if sums is None else sums.at, result, scratches + threadid() * scratch, chunk,
                                    stride, &counter, end)
            region_ends()
        PyErr_CheckSignals()
    return 0


cdef int forward_members(Plan plan, char *weights, InputRows rows, char *result, int n_threads,
                         char *sums) except -1:
    """The output for the mean of the members' logits. Threads take chunks of rows as they become free; behind the
    embedding, a chunk has each row once for each member. Signals are handled between slices."""
    cdef Py_ssize_t size = plan.k.element_size, k = plan.n_members, begin, end
    cdef Py_ssize_t chunk = max(FM_CHUNK_ROWS // k, min(FM_MEMBER_ROWS, 8 * FM_CHUNK_ROWS // k))
    cdef MemberRoom room
    cdef Buffer layers = Buffer(plan.n_matrices * sizeof(fm_layer)), patterns = Buffer(plan.members_bytes(), False)
    cdef Buffer memory, own_sums, _packed  # _packed: until this call ends
    cdef Py_ssize_t n_chunks, slice
    cdef fm_counter counter
    cdef int usable
    plan.describe(<fm_layer *> layers.at, weights, NULL, NULL)
    memset(&room, 0, sizeof(room))
    plan.describe_members(&room.members, weights + plan.scalings, <char *> patterns.at)
    if rows.n <= SINGLE_ROWS:
        place_members(plan, &room, 1)
        memory = Buffer(room.total * size, False)
        with nogil:
            for begin in range(rows.n):
                forward_row_members(plan, <fm_layer *> layers.at, &room, rows, sums, begin, result, <char *> memory.at)
        return 0
    chunk = max(1, min(chunk, (rows.n + n_threads - 1) // n_threads))
    place_members(plan, &room, chunk)
    n_chunks = (rows.n + chunk - 1) // chunk
    n_threads = min(n_threads, n_chunks)
    memory = Buffer(room.total * size * n_threads, False)
    _packed = pack_shared(plan, <fm_layer *> layers.at)
    slice = n_threads * <Py_ssize_t> max(1, SLICE_OPERATIONS / (<double> plan.n_weights * chunk * k))
    if sums == NULL and rows.n >= SUMMED_ROWS:
        own_sums = Buffer(sums_size(plan, rows.codes.layout) * size, False)
        sums = <char *> own_sums.at
        sum_all_bins(plan, weights, rows.codes.layout, sums)
    for begin in range(0, n_chunks, slice):
        end = min(begin + slice, n_chunks)
        fm_counter_set(&counter, begin)
        if n_threads == 1:
            with nogil:
                forward_members_thread(plan, <fm_layer *> layers.at, &room, rows, sums, result, <char *> memory.at,
                                       &counter, end)
        else:
            usable = region_begins(n_threads)
            with nogil, parallel(num_threads=usable):
                forward_members_thread(plan, <fm_layer *> layers.at, &room, rows, sums, result,
                                       <char *> memory.at + threadid() * room.total * size, &counter, end)
            region_ends()
        PyErr_CheckSignals()
    return 0


cdef struct MemberRoom:
    # A thread's memory for a chunk of rows, in elements: the embedding, two layers' outputs, scratch, the logits.
    fm_members members
    Py_ssize_t chunk, width, stride, scratch, logits, total
    Py_ssize_t[2] outputs


cdef void place_members(Plan plan, MemberRoom *room, Py_ssize_t chunk) noexcept:
    """Lay out the memory for chunks of this number of rows."""
    cdef Py_ssize_t panel = plan.k.panel, products
    cdef int l
    room.chunk, room.width = chunk, 0
    room.members.x_stride = (chunk | 1) * panel
    room.stride = (chunk * plan.n_members | 1) * panel
    for l in range(2, plan.n_layers + 1):
        room.width = max(room.width, plan.padded(plan.sizes[l]))
    products = room.members.n_patterns * max(FM_MEMBER_ROWS * panel, plan.padded(plan.sizes[2]))
    room.outputs[0] = plan.padded(plan.sizes[1]) // panel * room.members.x_stride
    room.outputs[1] = room.outputs[0] + room.width // panel * room.stride
    room.scratch = room.outputs[1] + room.width // panel * room.stride
    room.logits = room.scratch + max(products, plan.k.scratch_size)
    room.total = (room.logits + chunk * plan.n_members * plan.sizes[plan.n_layers] + 15) // 16 * 16


cdef Buffer pack_shared(Plan plan, fm_layer *layers):
    """Pack the weights of all layers but the embedding into panels; the buffer that holds them."""
    cdef Py_ssize_t size = plan.k.element_size, total = 0
    cdef Buffer packed
    cdef fm_layer *layer
    cdef char *at
    cdef int l
    for l in range(1, plan.n_matrices):
        total += (layers[l].fan_in + 1) * plan.padded(layers[l].fan_out)
    packed = Buffer(total * size, False)
    at = <char *> packed.at
    with nogil:
        for l in range(1, plan.n_matrices):
            layer = &layers[l]
            plan.pack_matrix(at, <char *> layer.W, layer.fan_in, layer.fan_out)
            layer.W, at = at, at + layer.fan_in * plan.padded(layer.fan_out) * size
            plan.pack_vector(at, <char *> layer.b, layer.fan_out)
            layer.b, at = at, at + plan.padded(layer.fan_out) * size
    return packed


cdef void forward_members_thread(Plan plan, const fm_layer *layers, const MemberRoom *room, InputRows rows,
                                 const void *sums, char *result, char *memory, fm_counter *counter,
                                 Py_ssize_t end) noexcept nogil:
    """One thread's chunks before `end`."""
    cdef Py_ssize_t c = fm_claim(counter, end), size = plan.k.element_size, panel = plan.k.panel, first, n, at
    cdef Py_ssize_t O = plan.sizes[plan.n_layers], m
    cdef char *logits = memory + room.logits * size
    cdef fm_members members = room.members
    cdef fm_layer layer
    cdef int l, last = plan.n_layers - 1
    while c >= 0:
        first = c * room.chunk
        n = members.rows = min(room.chunk, rows.n - first)
        layer = layers[0]
        layer.y = memory
        plan.k.forward_codes_unpacked(&layer, sums, &rows.codes.c, first, 0, plan.padded(layer.fan_out) // panel, n,
                                      members.x_stride)
        layer = layers[1]
        layer.x, layer.y = memory, memory + room.outputs[1] * size
        plan.k.forward_members(&layer, &members, memory + room.scratch * size, 0, n, room.stride)
        for l in range(2, last):
            layer = layers[l]
            layer.x, layer.y = memory + room.outputs[(l - 1) % 2] * size, memory + room.outputs[l % 2] * size
            plan.k.forward(&layer, 0, layer.fan_out, 0, n * plan.n_members, room.stride)
        for m in range(plan.n_members):
            layer, at = layers[last + m], m * n * panel
            layer.x = memory + (room.outputs[(last - 1) % 2] + at) * size
            layer.y = memory + (room.outputs[last % 2] + at) * size
            plan.k.forward(&layer, 0, O, 0, n, room.stride)
        plan.k.scatter(logits, memory + room.outputs[last % 2] * size, n * plan.n_members, O, room.stride)
        finish_members(plan, result + first * O * size, logits, n)
        c = fm_claim(counter, end)


cdef void forward_row_members(Plan plan, const fm_layer *layers, const MemberRoom *room, InputRows rows,
                              const void *sums, Py_ssize_t row, char *result, char *memory) noexcept nogil:
    """One row; weights are read where they are."""
    cdef Py_ssize_t size = plan.k.element_size, panel = plan.k.panel, O = plan.sizes[plan.n_layers], m
    cdef Py_ssize_t apart = plan.padded(plan.sizes[2]) * size
    cdef char *scratch = memory + room.scratch * size
    cdef char *logits = memory + room.logits * size
    cdef char *own = memory + room.outputs[1] * size
    cdef fm_layer layer = layers[0]
    cdef char *x
    cdef char *y
    cdef int l
    layer.y = memory
    plan.k.forward_codes_unpacked(&layer, sums, &rows.codes.c, row, 0, plan.padded(layer.fan_out) // panel, 1, panel)
    plan.k.forward_row_members(&layers[1], &room.members, scratch, own, memory)
    for m in range(plan.n_members):
        x = own + m * apart
        for l in range(2, plan.n_layers):
            y = memory + (room.outputs[0] + l % 2 * room.width) * size
            if l == plan.n_layers - 1:
                y = logits + m * O * size
            plan.k.forward_row(&layers[l + m if l == plan.n_layers - 1 else l], y, x)
            x = y
    finish_members(plan, result + row * O * size, logits, 1)


cdef void finish_members(Plan plan, char *result, const char *logits, Py_ssize_t n) noexcept nogil:
    """The output activation of the mean of the members' logits (members, n, O)."""
    cdef Py_ssize_t O = plan.sizes[plan.n_layers], i
    for i in range(n * O):
        if plan.k.element_size == 8:
            (<double *> result)[i] = mean_of[double](<const double *> logits + i, plan.n_members, n * O)
        else:
            (<float *> result)[i] = mean_of[float](<const float *> logits + i, plan.n_members, n * O)
    if plan.output_row >= 0:
        plan.k.outputs[plan.output_row].apply(result, n, O)


cdef struct CodedNetwork:
    # What the prediction of a coded row needs of a network.
    fm_layer *layers
    char *sums
    MemberRoom room             # with several members
    Py_ssize_t odd              # with one: bytes from a row's memory to the outputs of the layers with odd numbers


@cython.final
cdef class CodedRowForward:
    """Outputs of several networks for one coded row at a time. The layers are described once.

    Threads may share it. It reads the arrays where they are.

    Parameters
    ----------
    layout : CodeLayout
        Of the rows.
    networks : sequence of (plan, parameters, sums)
        Of each network, which has neither batch normalisation nor a residual first layer, the array (n_parameters,) in
        the plan's dtype and its `bin_sums`. Types and numbers of outputs are the same; there is at least one network.

    Raises
    ------
    ValueError
    """

    cdef CodeLayout layout
    cdef readonly tuple networks
    cdef list plans, buffers
    cdef CodedNetwork *each
    cdef Py_ssize_t n_outputs, n_bytes, n_operations
    cdef int kind

    def __cinit__(self, CodeLayout layout not None, networks):
        cdef Buffer memory
        cdef int i
        self.layout, self.networks, self.plans, self.buffers = layout, tuple(networks), [], []
        if not self.networks:
            raise ValueError("there must be at least one network")
        memory = Buffer(len(self.networks) * sizeof(CodedNetwork))
        self.buffers.append(memory)
        self.each = <CodedNetwork *> memory.at
        for i, (plan, parameters, sums) in enumerate(self.networks):
            self.describe(plan, &self.each[i], parameters, sums)

    cdef int describe(self, Plan plan, CodedNetwork *own, parameters, sums) except -1:
        """Describe a network's layers, and find out how much memory its prediction takes."""
        cdef Py_ssize_t size = plan.k.element_size, layers = plan.n_matrices * sizeof(fm_layer)
        cdef Py_ssize_t n_features = self.layout.n_numbers + self.layout.n_categories, n_bytes
        cdef Buffer memory = Buffer(layers + (plan.members_bytes() if plan.n_members > 1 else 0))
        cdef char *weights = <char *> array_address(parameters, plan.n_parameters, plan.kind, "parameters")
        if plan.batch_norm or plan.adds_input(0) or plan.sizes[0] != self.layout.width or (
                plan.embedding and plan.n_features() != n_features):
            raise ValueError("a network must take rows of the layout, without batch normalisation")
        if self.plans and (plan.kind != self.kind or plan.sizes[plan.n_layers] != self.n_outputs):
            raise ValueError("all networks must have the same dtype and number of outputs")
        self.plans.append(plan)
        self.buffers.append(memory)
        self.kind, self.n_outputs = plan.kind, plan.sizes[plan.n_layers]
        own.layers = <fm_layer *> memory.at
        own.sums = <char *> array_address(sums, sums_size(plan, self.layout), plan.kind, "sums")
        plan.describe(own.layers, weights, NULL, NULL)
        mark_finite(plan, own.layers, weights)
        if plan.n_members > 1:
            plan.describe_members(&own.room.members, weights + plan.scalings, <char *> memory.at + layers)
            place_members(plan, &own.room, 1)
            n_bytes = own.room.total * size
        else:
            own.odd = widest(plan, 1, True) * size
            n_bytes = own.odd + widest(plan, 0, True) * size
        self.n_bytes = max(self.n_bytes, n_bytes)
        self.n_operations += plan.n_weights
        return 0

    def __reduce__(self):
        return CodedRowForward, (self.layout, self.networks)

    def __call__(self, Codes row not None, out):
        """Write the networks' outputs for a row into `out`, and return it.

        Parameters
        ----------
        row : Codes
            One row of the layout.
        out : array (number of networks, n_outputs) in the plans' dtype

        Raises
        ------
        ValueError
        """
        cdef InputRows rows = InputRows(row, self.layout.width)
        cdef Py_ssize_t n = len(self.plans), i
        cdef char *result = <char *> array_address(out, n * self.n_outputs, self.kind, "out", True)
        cdef Buffer memory = Buffer(self.n_bytes, False)
        cdef Plan plan
        if rows.n != 1 or (row.layout is not self.layout and row.layout.offsets != self.layout.offsets):
            raise ValueError(f"X must be one row of the networks' layout, got {rows.n}")
        for i in range(n):
            plan = self.plans[i]
            if self.n_operations < HELD_OPERATIONS:
                self.predict(plan, &self.each[i], rows, result, <char *> memory.at)
            else:
                with nogil:
                    self.predict(plan, &self.each[i], rows, result, <char *> memory.at)
            result += self.n_outputs * plan.k.element_size
        return out

    cdef void predict(self, Plan plan, const CodedNetwork *own, InputRows rows, char *result,
                      char *memory) noexcept nogil:
        """A network's output."""
        cdef Py_ssize_t panel = plan.k.panel, O = self.n_outputs
        cdef fm_layer first = own.layers[0]
        if plan.n_members > 1:
            forward_row_members(plan, own.layers, &own.room, rows, own.sums, 0, result, memory)
            return
        first.y = memory
        plan.k.forward_codes_unpacked(&first, own.sums, &rows.codes.c, 0, 0, plan.padded(first.fan_out) // panel, 1,
                                      panel)
        if plan.n_layers == 1:
            memcpy(result, memory, O * plan.k.element_size)
        row_through_layers(plan, own.layers, 1, memory, result, memory, own.odd)
        if plan.output_row >= 0:
            plan.k.outputs[plan.output_row].apply(result, 1, O)


cdef real mean_of(const real *numbers, Py_ssize_t n, Py_ssize_t apart) noexcept nogil:
    """Mean of n numbers that lie apart from each other, summed up in their order."""
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(n):
        total += numbers[i * apart]
    return <real> (total / n)


cdef void pack_sums(Plan plan, fm_layer *layers, const fm_codes *X, char *sums) noexcept nogil:
    """bin_sums in panels, from packed weights."""
    cdef Py_ssize_t panel = plan.k.panel, row = panel * plan.k.element_size, p
    for p in range(plan.padded(plan.columns(0)) // panel):
        plan.k.sum_bins(sums + p * X.offset[X.n_numbers] * row, <char *> layers[0].W + p * plan.sizes[0] * row, X,
                        panel, 0, X.n_numbers)


cdef bint packs_layer(Plan plan, InputRows rows, int l) noexcept nogil:
    """Whether forward_by_rows packs the weights of layer l: if they are few, or sparse or coded rows read each of them
    often."""
    if l == 0 and rows.codes is not None:
        return rows.n * (rows.codes.c.n_numbers + rows.codes.c.n_categories) > PACKED_READS * plan.sizes[0]
    if l == 0 and rows.use_sparse and not plan.adds_input(0):
        return rows.index(2, rows.n) - rows.index(2, 0) > PACKED_READS * plan.sizes[0]
    return plan.sizes[l] * plan.sizes[l + 1] * plan.k.element_size <= PACKED_BYTES


cdef void forward_rows_thread(Plan plan, fm_layer *layers, InputRows rows, const void *sums, char *result,
                              char *scratch, Py_ssize_t chunk, Py_ssize_t stride, fm_counter *counter,
                              Py_ssize_t end) noexcept nogil:
    """One thread's chunks before `end`."""
    cdef Py_ssize_t c = fm_claim(counter, end), first, count, O = plan.sizes[plan.n_layers]
    cdef fm_layer *layer
    cdef char *out
    cdef int l
    while c >= 0:
        first = c * chunk
        count = min(chunk, rows.n - first)
        for l in range(plan.n_layers):
            layer = &layers[l]
            if l == 0 and rows.codes is not None:
                if packs_layer(plan, rows, 0):
                    plan.k.forward_codes(layer, sums, &rows.codes.c, NULL, first, 0, count, stride)
                else:
                    plan.k.forward_codes_unpacked(layer, sums, &rows.codes.c, first, 0,
                                                  plan.padded(layer.fan_out) // plan.k.panel, count, stride)
                continue
            if l == 0 and rows.use_sparse and not plan.adds_input(0):
                if packs_layer(plan, rows, 0):
                    plan.k.forward_csr(layer, &rows.rows, NULL, first, 0, count, stride)
                else:
                    plan.k.forward_csr_unpacked(layer, &rows.rows, first, 0,
                                                plan.padded(layer.fan_out) // plan.k.panel, count, stride)
                continue
            if l == 0:
                plan.k.gather(layer.x, &rows.rows, NULL, first, count, stride)
            if packs_layer(plan, rows, l):
                plan.k.forward(layer, 0, layer.fan_out, 0, count, stride)
            else:
                plan.k.forward_unpacked(layer, scratch, 0, plan.padded(layer.fan_out) // plan.k.panel, count, stride)
        out = result + first * O * plan.k.element_size
        plan.k.scatter(out, layers[plan.n_layers - 1].y, count, O, stride)
        if plan.output_row >= 0:
            plan.k.outputs[plan.output_row].apply(out, count, O)
        c = fm_claim(counter, end)


def apply_output(Plan plan not None, values):
    """The plan's output activation of logits (n, columns), in place; returns them. It must be one of OUTPUTS."""
    cdef Py_ssize_t n = len(values), columns = values.shape[1]
    cdef void *a = array_address(values, n * columns, plan.kind, "values", True)
    with nogil:
        plan.k.outputs[plan.output_row].apply(a, n, columns)
    return values


def row_losses(Plan plan not None, str loss not None, output, y, double parameter=1.0, output_weight=None):
    """Loss (n,), float64, of each row of the network's output (n, O), which is overwritten.

    output_weight: float64 array (n, O), factors on the outputs' losses, or None; not for a softmax.
    """
    cdef fm_targets targets
    cdef Py_ssize_t n = len(output), O = plan.sizes[plan.n_layers]
    cdef int row = list(LOSSES).index(loss)
    cdef void *a = array_address(output, n * O, plan.kind, "output", True)
    cdef Buffer scratch = Buffer(n * (O + 1) * plan.k.element_size, False)
    plan.read_targets(&targets, row, n, y, output_weight)
    targets.parameter = parameter
    values = numpy_empty(n, "float64")
    cdef double *value = <double *> array_address(values, n, b'd', "values", True)
    with nogil:
        plan.k.loss_value(row, a, value, scratch.at, &targets, 0, n, O)
    return values
