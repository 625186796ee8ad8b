"""Architecture and prediction: Plan splits rows or columns over threads and calls the C kernels.

Training stands in _trainer.pyx and _workspace.pyx, which are the only ones to import this module. Nothing is computed here: every
product and function is a kernel of csrc/fastmlp.h.
"""

import numpy

cdef object numpy_empty = numpy.empty

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid
from libc.string cimport memset

from fastmlp.core._csrc cimport *
from fastmlp.core._arrays cimport Buffer, Rows, first_outside, flat
from fastmlp.core._dispatch cimport Call, kernels_of, region_begins, region_ends, usable_threads
from fastmlp.core._openmp cimport *

from fastmlp.core._dispatch import ACTIVATIONS, LOSSES, OUTPUTS, info

__all__ = ["Plan"]

# Up to so many rows, and one in any case, prediction on one thread takes one after the other; up to so many, it packs weights
# where it uses them, the threads sharing out the columns; beyond, it packs all of them first, the threads sharing out the rows.
cdef Py_ssize_t SINGLE_ROWS = 4
cdef Py_ssize_t FEW_ROWS = 1024
# Multiply-adds of a thread between two looks for signals: some 10 ms, and less than 0.1 s in the plainest build.
cdef double SLICE_OPERATIONS = 5e8
# The most for rows that go through the network together, where weights are read once for all of them; LEAST_TOGETHER rows, less
# than which would wait for the weights, may take longer.
cdef double MOST_OPERATIONS = 2e9
cdef Py_ssize_t LEAST_TOGETHER = 24

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
    batch_norm : bool
        Hidden layers normalise their products before the activation.
    residual : bool
        Hidden layers as wide as their input add it to their output.
    """

    def __cinit__(self, layer_sizes, activations, str output not None, str dtype not None, bint batch_norm=False,
                  bint residual=False):
        cdef int i
        self.batch_norm, self.residual = batch_norm, residual
        self.layer_sizes = tuple([int(size) for size in layer_sizes])
        self.activations = tuple(activations)
        self.output = output
        self.dtype = dtype
        self.k = kernels_of(info()["isa"], dtype)
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
        n_outputs = self.layer_sizes[self.n_layers]
        n_weights = sum([a * b for a, b in zip(self.layer_sizes, self.layer_sizes[1:])])  # Python numbers: they cannot overflow
        n_hidden = sum(self.layer_sizes) - self.layer_sizes[0] - n_outputs
        n_parameters = n_weights + n_hidden + n_outputs + batch_norm * n_hidden
        if n_parameters > 2**44:
            raise MemoryError(f"layer_sizes {self.layer_sizes} make {n_parameters:.3g} parameters")
        self.n_weights, self.n_units, self.n_parameters = n_weights, n_hidden + n_outputs, n_parameters
        self.n_statistics = 2 * n_hidden if batch_norm else 0
        self.sizes_buffer = Buffer((self.n_layers + 1) * sizeof(Py_ssize_t))
        self.hidden_buffer = Buffer(self.n_layers * sizeof(int))
        self.sizes = <Py_ssize_t *> self.sizes_buffer.at
        self.hidden = <int *> self.hidden_buffer.at
        self.widest = max(self.layer_sizes)
        for i in range(self.n_layers + 1):
            self.sizes[i] = self.layer_sizes[i]
        for i in range(self.n_layers - 1):
            self.hidden[i] = ACTIVATIONS.index(self.activations[i])
        self.output_row = OUTPUTS.index(output) if output in OUTPUTS else -1
        self.hidden[self.n_layers - 1] = FM_ACTIVATION_identity if self.output_row >= 0 else ACTIVATIONS.index(output)

    cdef Py_ssize_t padded(self, Py_ssize_t columns) noexcept nogil:
        return (columns + self.k.panel - 1) // self.k.panel * self.k.panel

    cdef bint normalises(self, int l) noexcept nogil:
        return self.batch_norm and l < self.n_layers - 1

    cdef bint adds_input(self, int l) noexcept nogil:
        return self.residual and l < self.n_layers - 1 and self.sizes[l] == self.sizes[l + 1]

    cdef Py_ssize_t affine_bytes(self) noexcept nogil:
        """Room for the scale and shift of each normalised layer."""
        cdef Py_ssize_t total = 0
        cdef int l
        for l in range(self.n_layers):
            if self.normalises(l):
                total += 2 * self.padded(self.sizes[l + 1]) * self.k.element_size
        return total

    cdef void describe(self, fm_layer *layers, char *parameters, char *statistics, char *affine) noexcept nogil:
        """The layers for prediction: W and b where they stand in the flat array, the normalisation as scale and shift."""
        cdef Py_ssize_t size = self.k.element_size, O, n_hidden = self.n_statistics // 2
        cdef char *W = parameters
        cdef char *b = parameters + self.n_weights * size
        cdef char *gamma = b + self.n_units * size
        cdef fm_layer *layer
        cdef int l
        memset(layers, 0, self.n_layers * sizeof(fm_layer))
        for l in range(self.n_layers):
            layer = &layers[l]
            O = self.sizes[l + 1]
            layer.fan_in, layer.fan_out, layer.activation = self.sizes[l], O, self.hidden[l]
            layer.residual = self.adds_input(l)
            layer.W, layer.b = W, b
            if self.normalises(l):
                memset(affine, 0, 2 * self.padded(O) * size)
                layer.scale, layer.shift = affine, affine + self.padded(O) * size
                self.k.fold_batch_norm(affine, affine + self.padded(O) * size, gamma, b, statistics,
                                       statistics + n_hidden * size, O)
                affine += 2 * self.padded(O) * size
                gamma += O * size
                statistics += O * size
            W += layer.fan_in * O * size
            b += O * size

    def forward(self, parameters, X, out=None, int n_threads=1, statistics=None):
        """Output of the network for each row of X: (n, O) in the plan's dtype.

        `parameters` is the flat array of Network.parameters; `out`, if given, receives the result and is returned;
        `statistics` are the running averages of batch normalisation. Nothing is checked beyond shapes and types.
        """
        if n_threads < 1:
            raise ValueError(f"n_threads must be positive, got {n_threads}")
        cdef Rows rows = Rows(X, self.sizes[0])
        cdef Py_ssize_t O = self.sizes[self.n_layers]
        cdef char *weights = <char *> flat(parameters, self.n_parameters, self.kind, "parameters")
        cdef char *averages = NULL
        if self.batch_norm:
            averages = <char *> flat(statistics, self.n_statistics, self.kind, "statistics")
        if out is None:
            out = numpy_empty((rows.n, O), self.numpy_dtype)
        elif out.shape != (rows.n, O):
            raise ValueError(f"out must have shape {(rows.n, O)}, got {out.shape}")
        cdef char *result = <char *> flat(out, rows.n * O, self.kind, "out", True)
        if rows.n == 0:
            return out
        cdef Call _call = Call() if n_threads > 1 else None  # until this one ends
        n_threads = usable_threads(n_threads)
        if rows.n == 1 or (rows.n <= SINGLE_ROWS and n_threads == 1):
            self.forward_rows(weights, averages, rows, result)
        elif rows.n < FEW_ROWS and not (rows.use_sparse and not self.adds_input(0)):
            self.forward_few(weights, averages, rows, result, n_threads)
        else:
            self.forward_packed(weights, averages, rows, result, n_threads)
        return out

    cdef int forward_rows(self, char *weights, char *statistics, Rows rows, char *result) except -1:
        """Row by row, from the weights where they are."""
        cdef Py_ssize_t size = self.k.element_size, width = self.padded(self.widest) * size, row, affine = self.affine_bytes()
        cdef Buffer memory = Buffer(2 * width + affine + self.n_layers * sizeof(fm_layer), False)
        cdef fm_layer *layers = <fm_layer *> (<char *> memory.at + 2 * width + affine)
        cdef char *x
        cdef char *y
        cdef int l
        with nogil:
            self.describe(layers, weights, statistics, <char *> memory.at + 2 * width)
            for row in range(rows.n):
                x = <char *> rows.rows.data + row * rows.rows.row_stride * (8 if rows.rows.is_double else 4)
                if rows.rows.is_sparse or rows.rows.column_stride != 1 or rows.rows.is_double != (size == 8):
                    x = <char *> memory.at + width
                    self.gather_row(x, &rows.rows, row)
                for l in range(self.n_layers):
                    y = <char *> memory.at + (l % 2) * width
                    if l == self.n_layers - 1:
                        y = result + row * self.sizes[self.n_layers] * size
                    self.k.forward_row(&layers[l], y, x)
                    x = y
            if self.output_row >= 0:
                self.k.outputs[self.output_row].apply(result, rows.n, self.sizes[self.n_layers])
        return 0

    cdef void gather_row(self, char *x, const fm_rows *rows, Py_ssize_t row) noexcept nogil:
        """One row, converted: a panel of one row is NR consecutive columns, so panels NR apart are a plain row."""
        self.k.gather(x, rows, NULL, row, 1, self.k.panel)

    cdef int forward_few(self, char *weights, char *statistics, Rows rows, char *result, int n_threads) except -1:
        """Chunks of rows one after the other, each layer's columns over the threads, from the weights where they are; now and
        then Python looks for signals."""
        cdef Py_ssize_t size = self.k.element_size, panel = self.k.panel, l
        cdef Py_ssize_t scratch = (self.k.scratch_size * size + 63) // 64 * 64
        cdef Py_ssize_t most = <Py_ssize_t> max(LEAST_TOGETHER, min(FM_CHUNK_ROWS, MOST_OPERATIONS / self.n_weights))
        cdef Py_ssize_t chunk = min(most, rows.n), stride = (chunk | 1) * panel, begin, end
        cdef Py_ssize_t slice = chunk * n_threads * <Py_ssize_t> max(1, SLICE_OPERATIONS / (<double> self.n_weights * chunk))
        cdef Py_ssize_t width = self.padded(self.widest) // panel * stride * size
        cdef Buffer memory = Buffer(2 * width + n_threads * scratch, False)
        cdef Buffer affine = Buffer(self.affine_bytes(), False), layers = Buffer(self.n_layers * sizeof(fm_layer))
        cdef fm_layer *layer = <fm_layer *> layers.at
        cdef char *scratches = <char *> memory.at + 2 * width
        cdef fm_barrier barrier
        fm_barrier_init(&barrier)
        self.describe(layer, weights, statistics, <char *> affine.at)
        for l in range(self.n_layers):
            layer[l].x = <char *> memory.at + l % 2 * width
            layer[l].y = <char *> memory.at + (1 - l % 2) * width
        for begin in range(0, rows.n, slice):
            end = min(begin + slice, rows.n)
            if n_threads == 1:
                with nogil:
                    self.forward_together(layer, rows, result, scratches, chunk, stride, &barrier, begin, end, 0, 1)
            else:
                region_begins()
                with nogil, parallel(num_threads=n_threads):
                    self.forward_together(layer, rows, result, scratches + threadid() * scratch, chunk, stride, &barrier,
                                          begin, end, threadid(), omp_get_num_threads())
                region_ends()
            PyErr_CheckSignals()
        return 0

    cdef void forward_together(self, fm_layer *layers, Rows rows, char *result, char *scratch, Py_ssize_t chunk,
                               Py_ssize_t stride, fm_barrier *barrier, Py_ssize_t begin, Py_ssize_t end, int thread,
                               int n_threads) noexcept nogil:
        """One thread's part of rows begin .. end: its rows of a chunk while data come and go, its panels of each layer then."""
        cdef Py_ssize_t first = begin, count, row, n, panels, O = self.sizes[self.n_layers], size = self.k.element_size
        cdef Py_ssize_t skip
        cdef char *out
        cdef int l
        while first < end:
            count = min(chunk, end - first)
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

    cdef int forward_packed(self, char *weights, char *statistics, Rows rows, char *result, int n_threads) except -1:
        """Chunks of rows over the threads, from weights packed into panels once; now and then Python looks for signals."""
        cdef Py_ssize_t size = self.k.element_size, panel = self.k.panel, total = 0, l
        cdef Py_ssize_t chunk = min(FM_CHUNK_ROWS, (rows.n + n_threads - 1) // n_threads)
        cdef Py_ssize_t stride = (chunk | 1) * panel, width = self.padded(self.widest) // panel * stride * size
        for l in range(self.n_layers):
            total += (self.sizes[l] + 1) * self.padded(self.sizes[l + 1])
        cdef Py_ssize_t n_chunks = (rows.n + chunk - 1) // chunk, begin, end
        n_threads = min(n_threads, n_chunks)
        cdef Py_ssize_t slice = n_threads * <Py_ssize_t> max(1, SLICE_OPERATIONS / (<double> self.n_weights * chunk))
        cdef Buffer packed = Buffer(total * size, False)
        cdef Buffer scratch = Buffer(2 * width * n_threads, False)
        cdef Buffer affine = Buffer(self.affine_bytes(), False), layers = Buffer(n_threads * self.n_layers * sizeof(fm_layer))
        cdef fm_layer *layer
        cdef char *at
        cdef int t
        with nogil:
            for t in range(n_threads):
                at = <char *> packed.at
                self.describe(<fm_layer *> layers.at + t * self.n_layers, weights, statistics, <char *> affine.at)
                for l in range(self.n_layers):
                    layer = <fm_layer *> layers.at + t * self.n_layers + l
                    layer.W = at
                    layer.b = at + layer.fan_in * self.padded(layer.fan_out) * size
                    at = <char *> layer.b + self.padded(layer.fan_out) * size
                    layer.x = <char *> scratch.at + (2 * t + l % 2) * width
                    layer.y = <char *> scratch.at + (2 * t + 1 - l % 2) * width
            self.pack(<fm_layer *> layers.at, weights, -1)
        for begin in range(0, n_chunks, slice):
            end = min(begin + slice, n_chunks)
            if n_threads == 1:
                with nogil:
                    self.forward_chunks(<fm_layer *> layers.at, rows, result, chunk, stride, begin, end, 0, 1)
            else:
                region_begins()
                with nogil, parallel(num_threads=n_threads):
                    self.forward_chunks(<fm_layer *> layers.at + threadid() * self.n_layers, rows, result, chunk, stride,
                                        begin, end, threadid(), omp_get_num_threads())
                region_ends()
            PyErr_CheckSignals()
        return 0

    cdef void forward_chunks(self, fm_layer *layers, Rows rows, char *result, Py_ssize_t chunk, Py_ssize_t stride,
                             Py_ssize_t begin, Py_ssize_t end, int thread, int n_threads) noexcept nogil:
        """One thread's share of the chunks begin .. end."""
        cdef Py_ssize_t n = rows.n, n_chunks = end - begin, c, first, count, O = self.sizes[self.n_layers]
        cdef char *out
        cdef int l
        for c in range(begin + n_chunks * thread // n_threads, begin + n_chunks * (thread + 1) // n_threads):
            first = c * chunk
            count = min(chunk, n - first)
            if rows.use_sparse and not self.adds_input(0):
                self.k.forward_csr(&layers[0], &rows.rows, NULL, first, 0, count, stride)
            else:
                self.k.gather(layers[0].x, &rows.rows, NULL, first, count, stride)
                self.k.forward(&layers[0], 0, layers[0].fan_out, 0, count, stride)
            for l in range(1, self.n_layers):
                self.k.forward(&layers[l], 0, layers[l].fan_out, 0, count, stride)
            out = result + first * O * self.k.element_size
            self.k.scatter(out, layers[self.n_layers - 1].y, count, O, stride)
            if self.output_row >= 0:
                self.k.outputs[self.output_row].apply(out, count, O)

    cdef void pack(self, fm_layer *layers, char *parameters, int state) noexcept nogil:
        """Flat array into the layers' panels: the parameters (state < 0) or an array of optimizer state."""
        cdef Py_ssize_t size = self.k.element_size
        cdef char *W = parameters
        cdef char *b = parameters + self.n_weights * size
        cdef char *scale = b + self.n_units * size
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
            self.pack_vector(layer.b if state < 0 else layer.b_state[state], b, layer.fan_out)
            if layer.norm != NULL:
                self.pack_vector(layer.norm.scale if state < 0 else layer.norm.scale_state[state], scale, layer.fan_out)
                scale += layer.fan_out * size
            W += layer.fan_in * layer.fan_out * size
            b += layer.fan_out * size

    cdef void pack_vector(self, void *to, char *vector, Py_ssize_t n) noexcept nogil:
        """A row into panels, its padding zero."""
        cdef fm_rows row
        memset(&row, 0, sizeof(row))
        row.data, row.columns, row.row_stride, row.column_stride, row.is_double = vector, n, n, 1, self.k.element_size == 8
        self.k.gather(to, &row, NULL, 0, 1, self.k.panel)

    cdef void unpack(self, char *parameters, fm_layer *layers, int state) noexcept nogil:
        """The layers' panels into a flat array: the inverse of pack."""
        cdef Py_ssize_t size = self.k.element_size
        cdef char *W = parameters
        cdef char *b = parameters + self.n_weights * size
        cdef char *scale = b + self.n_units * size
        cdef fm_layer *layer
        cdef int l
        for l in range(self.n_layers):
            layer = &layers[l]
            self.k.scatter(W, layer.W if state < 0 else layer.W_state[state], layer.fan_in, layer.fan_out,
                           layer.fan_in * self.k.panel)
            self.k.scatter(b, layer.b if state < 0 else layer.b_state[state], 1, layer.fan_out, self.k.panel)
            if layer.norm != NULL:
                self.k.scatter(scale, layer.norm.scale if state < 0 else layer.norm.scale_state[state], 1, layer.fan_out,
                               self.k.panel)
                scale += layer.fan_out * size
            W += layer.fan_in * layer.fan_out * size
            b += layer.fan_out * size

    cdef void pack_statistics(self, fm_layer *layers, char *statistics, bint back) noexcept nogil:
        """The flat running averages into the layers', or, with `back`, out of them."""
        cdef Py_ssize_t size = self.k.element_size, n_hidden = self.n_statistics // 2, O
        cdef fm_batch_norm *norm
        cdef int l
        for l in range(self.n_layers):
            if self.normalises(l):
                norm, O = layers[l].norm, self.sizes[l + 1]
                if back:
                    self.k.scatter(statistics, norm.running_mean, 1, O, self.k.panel)
                    self.k.scatter(statistics + n_hidden * size, norm.running_variance, 1, O, self.k.panel)
                else:
                    self.pack_vector(norm.running_mean, statistics, O)
                    self.pack_vector(norm.running_variance, statistics + n_hidden * size, O)
                statistics += O * size

    cdef int take_targets(self, fm_targets *targets, int loss, Py_ssize_t n, y, sample_weight) except -1:
        """y (n,) or (n, O) and the weights (n,) or None as the loss's kernels read them."""
        cdef Py_ssize_t i, O = self.sizes[self.n_layers]
        memset(targets, 0, sizeof(targets[0]))
        targets.mix = 1
        if self.k.losses[loss].target_is_class:
            targets.classes = <Py_ssize_t *> flat(y, n, b'i', "y")
            with nogil:
                i = first_outside(targets.classes, n, O)
            if i < n:
                raise ValueError(f"y must lie in [0, {O}), got {targets.classes[i]}")
        else:
            targets.values = flat(y, n * O, self.kind, "y")
        if sample_weight is not None:
            targets.weights = <double *> flat(sample_weight, n, b'd', "sample_weight")
        return 0

    def row_losses(self, str loss not None, output, y, double parameter=1.0):
        """Loss (n,), float64, of each row of the network's output (n, O), which is overwritten."""
        cdef fm_targets targets
        cdef Py_ssize_t n = len(output), O = self.sizes[self.n_layers]
        cdef int row = list(LOSSES).index(loss)
        cdef void *a = flat(output, n * O, self.kind, "output", True)
        cdef Buffer scratch = Buffer(n * (O + 1) * self.k.element_size, False)
        self.take_targets(&targets, row, n, y, None)
        targets.parameter = parameter
        values = numpy_empty(n, "float64")
        cdef double *value = <double *> flat(values, n, b'd', "values", True)
        with nogil:
            self.k.loss_value(row, a, value, scratch.at, &targets, 0, n, O)
        return values
