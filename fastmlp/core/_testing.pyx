"""Single kernels as Python functions, for any instruction set of this machine: for check, tests and benchmarks only.

Every output lies in a guarded buffer: filled with NaN, with NaN around it, rows that the call was not given included. A
kernel that writes outside its contract raises AssertionError here, whoever the caller is.
"""

import numpy

from libc.stdint cimport int32_t
from libc.string cimport memset

from fastmlp.core._csrc cimport *
from fastmlp.core._arrays cimport Buffer, CodeLayout, Codes, InputRows
from fastmlp.core._dispatch cimport kernels_of, set_hyperparameters

from fastmlp.core._dispatch import ACTIVATIONS, LOSSES, OPTIMIZERS, OUTPUTS, info

__all__ = ["BLOCK_ROWS", "MATH", "Kernels", "clock"]

cdef const fm_kernels *_names = kernels_of(info()["isa"], "float64")
MATH = tuple([_names.math[i].name.decode() for i in range(FM_N_MATH)])
BLOCK_ROWS = FM_BLOCK_ROWS
cdef Py_ssize_t GUARD = 64

cdef double in_kernels = 0, started = 0


def clock() -> float:
    """Seconds spent inside kernels since import, without the Python code around them: the clock of the benchmarks."""
    return in_kernels


cdef void start() noexcept:
    global started
    started = fm_seconds()


cdef void stop() noexcept:
    global in_kernels
    in_kernels += fm_seconds() - started


cdef class Panels:
    """A matrix in panels: `rows` rows from row `first` on, in a buffer of NaN that holds more rows than that."""

    cdef const fm_kernels *k
    cdef Py_ssize_t rows, columns, first, height, stride, panels
    cdef object memory
    cdef void *at

    def __cinit__(self, Kernels owner, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t first=0, bint packed=False):
        # packed: no rows beyond `rows`, no gap between panels, as in weights
        self.k, self.rows, self.columns, self.first = owner.k, rows, columns, first
        self.panels = (columns + self.k.panel - 1) // self.k.panel
        self.height = rows if packed else first + rows + owner.slack
        self.stride = self.height * self.k.panel
        raw = numpy.full(2 * GUARD + self.stride * self.panels + GUARD, numpy.nan, owner.dtype)
        skip = (-raw.ctypes.data // raw.itemsize) % (64 // raw.itemsize)
        self.memory = raw[skip:]
        self.at = <char *> <size_t> self.memory.ctypes.data + GUARD * self.k.element_size

    @property
    def grid(self):
        """All rows, guards included: (panels, height, panel)."""
        body = self.memory[GUARD:GUARD + self.stride * self.panels]
        return body.reshape(self.panels, self.height, self.k.panel)

    def set(self, matrix):
        padded = numpy.zeros((self.rows, self.panels * self.k.panel), self.memory.dtype)
        padded[:, :self.columns] = matrix
        self.grid[:, self.first:self.first + self.rows] = padded.reshape(self.rows, self.panels,
                                                                         self.k.panel).transpose(1, 0, 2)
        return self

    def get(self):
        grid = self.grid[:, self.first:self.first + self.rows]
        return grid.transpose(1, 0, 2).reshape(self.rows, self.panels * self.k.panel)[:, :self.columns].copy()

    def check(self, str what):
        """Nothing outside the rows first .. first + rows was written."""
        outside = [self.memory[:GUARD], self.memory[GUARD + self.stride * self.panels:],
                   self.grid[:, :self.first], self.grid[:, self.first + self.rows:]]
        if not all(numpy.isnan(part).all() for part in outside):
            raise AssertionError(f"{what} wrote outside its output")
        return self

    def check_from(self, Py_ssize_t panel, str what):
        """Nothing was written in this panel or after it: the kernel was not called for these yet."""
        if not numpy.isnan(self.grid[panel:]).all():
            raise AssertionError(f"{what} wrote beyond its panels")
        return self

    def check_padding(self, str what):
        """The padding of the columns' last vector is 0, so that weights' padding stays 0 in an update."""
        cdef Py_ssize_t filled = (self.columns + self.k.vector - 1) // self.k.vector * self.k.vector
        rows = self.grid[:, self.first:self.first + self.rows].transpose(1, 0, 2).reshape(self.rows,
                                                                                          self.panels * self.k.panel)
        if rows[:, self.columns:filled].any():
            raise AssertionError(f"{what} left padding that is not 0")
        return self


cdef class Given:
    """A contiguous array that a kernel reads, and its address: NULL for None."""

    cdef object array
    cdef void *at

    def __init__(self, values, dtype):
        if values is not None:
            self.array = numpy.ascontiguousarray(values, dtype)
            self.at = <void *> <size_t> self.array.ctypes.data


cdef class Guarded(Given):
    """An array that a kernel writes: n NaN at `offset` elements from alignment, between guards."""

    cdef object memory

    def __init__(self, Py_ssize_t n, dtype, Py_ssize_t offset=0):
        self.memory = numpy.full(n + offset + 2 * GUARD, numpy.nan, dtype)
        super().__init__(self.memory[GUARD + offset:GUARD + offset + n], dtype)

    def check(self, str what):
        """The array; nothing around it was written."""
        before = (self.array.ctypes.data - self.memory.ctypes.data) // self.memory.itemsize
        around = self.memory[:before], self.memory[before + len(self.array):]
        if not all(numpy.isnan(part).all() for part in around):
            raise AssertionError(f"{what} wrote outside its output")
        return self.array


cdef class Layer:
    """A layer's description, and the arrays that it points to: x and y in panels from row `first` on; W and b packed,
    or row-major for the kernels that take them so. With more elements of b than columns of W, an embedding."""

    cdef fm_layer c
    cdef fm_rng rng
    cdef Panels x, y, out, mask
    cdef tuple parameters

    def __init__(self, Kernels owner, x, W, b, str activation, Py_ssize_t first=0, *, bint packed=True, scale=None,
                 shift=None, bint residual=False, double rate=0.0, seed=0, int stream=1, int step=1, Py_ssize_t row=0):
        cdef Py_ssize_t rows = x.shape[0], columns = len(b)
        cdef Panels P = owner.packed(W), B = owner.packed(b), S, T
        cdef Given W_rows = Given(W, owner.dtype), b_row = Given(b, owner.dtype)
        self.x, self.y = owner.batch(x, first), Panels(owner, rows, columns, first)
        self.out, self.mask = Panels(owner, rows, columns, first), Panels(owner, rows, columns, first)
        self.c.fan_in, self.c.fan_out, self.c.activation = W.shape[0], columns, ACTIVATIONS.index(activation)
        self.c.embedding = W.shape[1] if columns > W.shape[1] else 0
        self.c.x, self.c.y, self.c.residual = self.x.at, self.y.at, residual
        self.c.W, self.c.b = (P.at, B.at) if packed else (W_rows.at, b_row.at)
        self.parameters = P, B, W_rows, b_row
        if scale is not None:
            S, T = owner.packed(scale), owner.packed(shift)
            self.c.scale, self.c.shift = S.at, T.at
            self.parameters += S, T
        if rate > 0:
            self.rng.key[0], self.rng.key[1], self.rng.step, self.rng.row = seed & 0xffffffff, seed >> 32, step, row
            self.rng.rows = self.rng.batch = first + rows
            self.c.dropout_mask, self.c.dropout_rate, self.c.rng, self.c.stream = self.mask.at, rate, &self.rng, stream


cdef class MembersGiven:
    """Members with these scalings (members, features), and the memory of their patterns."""

    cdef fm_members c
    cdef tuple arrays

    def __init__(self, Kernels owner, scalings, Py_ssize_t rows, Py_ssize_t columns):
        cdef Given pattern, grouped = Given(numpy.zeros(scalings.shape), owner.dtype)
        cdef Py_ssize_t n_features = scalings.shape[1]
        numbers, found = owner.group_features(scalings)
        grouped.array[:, :found.shape[1]] = found
        pattern = Given(numbers, numpy.intp)
        self.arrays = pattern, grouped
        self.c.n, self.c.n_features, self.c.n_patterns = scalings.shape[0], n_features, found.shape[1]
        self.c.rows, self.c.width = rows, columns // n_features
        self.c.pattern, self.c.scalings = <Py_ssize_t *> pattern.at, grouped.at


cdef class Kernels:
    """The kernels of one instruction set and element type.

    Parameters
    ----------
    isa : str
        One of info()['available'].
    dtype : {'float32', 'float64'}
    offset, first, slack : int
        Place of the output in the cases of check.py: elements from alignment; rows before and after it, which a panel's
        stride then spans.
    """

    cdef const fm_kernels *k
    cdef readonly str isa
    cdef readonly str dtype
    cdef readonly int vector
    cdef readonly int panel
    cdef readonly Py_ssize_t offset
    cdef readonly Py_ssize_t first
    cdef readonly Py_ssize_t slack

    def __init__(self, str isa, str dtype, *, Py_ssize_t offset=1, Py_ssize_t first=3, Py_ssize_t slack=2):
        self.k = kernels_of(isa, dtype)
        self.offset, self.first, self.slack = offset, first, slack
        self.isa, self.dtype, self.vector, self.panel = isa, dtype, self.k.vector, self.k.panel

    cdef Panels batch(self, x, Py_ssize_t first=0):
        return Panels(self, x.shape[0], x.shape[1], first).set(x)

    cdef Panels packed(self, W):
        W = numpy.atleast_2d(W)
        return Panels(self, W.shape[0], W.shape[1], 0, True).set(W)

    cdef map(self, str name, void (*f)(void *y, const void *x, Py_ssize_t n) noexcept nogil, x, y,
             Py_ssize_t offset):
        """f of a vector x, whose output holds y before."""
        cdef Given source = Given(x, self.dtype)
        cdef Guarded target = Guarded(source.array.size, self.dtype, offset)
        cdef Py_ssize_t n = source.array.size
        if y is not None:
            target.array[:] = y
        start()
        f(target.at, source.at, n)
        stop()
        return target.check(name)

    def math(self, str name, x, Py_ssize_t offset=0):
        """exp, log, ... of a vector."""
        return self.map(name, self.k.math[MATH.index(name)].map, x, None, offset)

    def activation(self, str name, x, Py_ssize_t offset=0):
        return self.map(name, self.k.activations[ACTIVATIONS.index(name)].forward, x, None, offset)

    def derivative(self, str name, d, x, Py_ssize_t offset=0):
        """d * f'(x), computed from x or from f(x), depending on the activation's row."""
        cdef const fm_activation_row *row = &self.k.activations[ACTIVATIONS.index(name)]
        u = x if row.from_input else self.activation(name, x)
        return self.map(name, row.derivative, u, d, offset)

    def output(self, str name, z):
        """Output activation of a matrix."""
        cdef const fm_output_row *row = &self.k.outputs[OUTPUTS.index(name)]
        cdef Guarded a = Guarded(z.size, self.dtype)
        cdef Py_ssize_t rows = z.shape[0], columns = z.shape[1]
        a.array[:] = z.ravel()
        start()
        row.apply(a.at, rows, columns)
        stop()
        return a.check(name).reshape(z.shape)

    def loss(self, str name, z, y, weights=None, order=None, *, double parameter=1.0, double smoothing=0.0,
             partner=None, double mix=1.0):
        """(dz, value per row, value alone) at z for the targets y[order], mixed with y[partner]; the last from z's
        output, for the plain targets y[:rows]. Weights of two dimensions are those of outputs."""
        cdef int loss = list(LOSSES).index(name)
        cdef Py_ssize_t rows = z.shape[0], O = z.shape[1]
        cdef Panels dz = self.batch(z, 3)
        cdef Given target = Given(y, numpy.intp if self.k.losses[loss].target_is_class else self.dtype)
        cdef Given weight = Given(weights, "float64"), rows_at = Given(order, numpy.intp)
        cdef Given partners = Given(partner, numpy.intp)
        cdef Guarded scratch = Guarded(2 * rows * (O + 1), self.dtype), a = Guarded(rows * O, self.dtype)
        cdef Guarded value = Guarded(rows, "float64"), plain = Guarded(rows, "float64")
        cdef bint of_outputs = weights is not None and weights.ndim == 2
        cdef fm_targets targets
        memset(&targets, 0, sizeof(targets))
        targets.classes, targets.values = <Py_ssize_t *> target.at, target.at
        targets.parameter, targets.smoothing, targets.mix = parameter, smoothing, mix
        if of_outputs:
            targets.output_weights = <double *> weight.at
        else:
            targets.weights = <double *> weight.at
        a.array[:] = self.output(LOSSES[name], z).ravel()
        start()
        self.k.loss_gradient(loss, dz.at, <double *> value.at, scratch.at, &targets, <Py_ssize_t *> rows_at.at,
                             <Py_ssize_t *> partners.at, 0, 3, rows, O, dz.stride)
        self.k.loss_value(loss, a.at, <double *> plain.at, scratch.at, &targets, 0, rows, O)
        stop()
        a.check(name)
        scratch.check(name)
        return dz.check(name).get(), value.check(name), plain.check(name)

    def gather(self, X, order):
        """X[order], through panels."""
        cdef InputRows source = InputRows(X, X.shape[1])
        cdef Given rows_at = Given(order, numpy.intp)
        cdef Py_ssize_t n = len(order)
        cdef Panels panels = Panels(self, n, X.shape[1])
        cdef Guarded M = Guarded(n * X.shape[1], self.dtype)
        start()
        self.k.gather(panels.at, &source.rows, <Py_ssize_t *> rows_at.at, 0, n, panels.stride)
        stop()
        panels.check("gather")
        self.k.scatter(M.at, panels.at, n, X.shape[1], panels.stride)
        return M.check("scatter").reshape(n, X.shape[1])

    def forward(self, x, W, b, str activation="identity", Py_ssize_t first=0):
        """(y, z) of a layer; rows from `first` of the batch are computed, panels in two pieces, as training might take
        them."""
        cdef Layer layer = Layer(self, x, W, b, activation, first)
        cdef Panels Y = layer.y, Z = Panels(self, Y.rows, Y.columns, first)
        layer.c.z = Z.at
        start()
        self.k.forward(&layer.c, 0, Y.panels // 2, first, Y.rows, Y.stride)
        stop()
        Y.check_from(Y.panels // 2, "forward")
        Z.check_from(Y.panels // 2, "forward")
        start()
        self.k.forward(&layer.c, Y.panels // 2, Y.panels, first, Y.rows, Y.stride)
        stop()
        return Y.check("forward").get(), Z.check("forward").get()

    def layer_output(self, x, W, b, str activation="identity", Py_ssize_t first=0, **options):
        """(output of a layer with these options of Layer, dropout's mask or None)."""
        cdef Layer layer = Layer(self, x, W, b, activation, first, **options)
        cdef bint dropout = layer.c.dropout_mask != NULL
        cdef Panels Y = layer.out if dropout or layer.c.residual else layer.y
        layer.c.out = layer.out.at
        start()
        self.k.forward(&layer.c, 0, Y.panels, first, Y.rows, Y.stride)
        stop()
        return Y.check("forward").get(), layer.mask.check("dropout").get() if dropout else None

    def forward_row(self, x, W, b, str activation="identity", Py_ssize_t offset=0, **options):
        cdef Layer layer = Layer(self, x[numpy.newaxis], W, b, activation, packed=False, **options)
        cdef Given row = Given(x, self.dtype)
        cdef Guarded y = Guarded(layer.c.fan_out, self.dtype, offset)
        start()
        self.k.forward_row(&layer.c, y.at, row.at)
        stop()
        return y.check("forward_row")

    def forward_unpacked(self, x, W, b, str activation="identity", **options):
        """y of a layer from row-major W, in two shares of the panels, as two threads would take them."""
        cdef Layer layer = Layer(self, x, W, b, activation, packed=False, **options)
        cdef Panels Y = layer.y
        cdef Buffer chunk = Buffer(self.k.scratch_size * self.k.element_size)
        start()
        self.k.forward_unpacked(&layer.c, chunk.at, 0, Y.panels // 2, Y.rows, Y.stride)
        self.k.forward_unpacked(&layer.c, chunk.at, Y.panels // 2, Y.panels, Y.rows, Y.stride)
        stop()
        return Y.check("forward_unpacked").get()

    def forward_csr(self, X, order, W, b, str activation="identity", Py_ssize_t first=0):
        """y of the first layer for the rows `order` of canonical CSR X."""
        cdef Layer layer = Layer(self, numpy.zeros((len(order), X.shape[1])), W, b, activation, first)
        cdef InputRows source = InputRows(X, X.shape[1])
        cdef Given rows_at = Given(order, numpy.intp)
        cdef Panels Y = layer.y
        layer.c.x = NULL
        start()
        self.k.forward_csr(&layer.c, &source.rows, <Py_ssize_t *> rows_at.at, 0, first, Y.rows, Y.stride)
        stop()
        return Y.check("forward_csr").get()

    def forward_csr_unpacked(self, X, Py_ssize_t first, Py_ssize_t rows, W, b, str activation="identity"):
        """y of the first layer for `rows` rows of canonical CSR X, from row-major W, in two shares of the panels."""
        cdef Layer layer = Layer(self, numpy.zeros((rows, X.shape[1])), W, b, activation, packed=False)
        cdef InputRows source = InputRows(X, X.shape[1])
        cdef Panels Y = layer.y
        layer.c.x = NULL
        start()
        self.k.forward_csr_unpacked(&layer.c, &source.rows, first, 0, Y.panels // 2, Y.rows, Y.stride)
        self.k.forward_csr_unpacked(&layer.c, &source.rows, first, Y.panels // 2, Y.panels, Y.rows, Y.stride)
        stop()
        return Y.check("forward_csr_unpacked").get()

    def gradient_csr(self, X, order, dz):
        """X[order]^T dz for canonical CSR X: columns sorted in two shares, rows in two micro-batches, as in
        training."""
        cdef InputRows source = InputRows(X, X.shape[1])
        cdef Given rows_at = Given(order, numpy.intp)
        cdef Py_ssize_t rows = len(order), I = X.shape[1], c0, c1, first, n, p, size = self.k.element_size
        cdef Panels D = self.batch(dz), G = Panels(self, I, dz.shape[1], 0, True)
        cdef Given starts = Given(numpy.zeros(I + 1), numpy.intp), row = Given(numpy.zeros(rows * I + 1), numpy.int32)
        cdef Given value = Given(numpy.zeros(rows * I + 1), self.dtype)
        cdef fm_csc columns = fm_csc(0, <Py_ssize_t *> starts.at, <int32_t *> row.at, value.at)
        start()
        for first, n in ((0, rows // 2), (rows // 2, rows - rows // 2)):
            for c0, c1 in ((0, I // 2), (I // 2, I)):
                self.k.csr_to_csc(&columns, &source.rows, <Py_ssize_t *> rows_at.at + first, 0, n, c0, c1)
                for p in range(G.panels):
                    self.k.gradient_csr(<char *> G.at + (p * G.stride + c0 * self.panel) * size, &columns,
                                        <char *> D.at + (p * D.stride + first * self.panel) * size, c0, c1 - c0,
                                        first > 0)
        stop()
        return G.check("gradient_csr").get()

    def sum_bins(self, W, CodeLayout layout):
        """Sums of W's rows before each bin: of a matrix in panels, whose numbers are shared out, and of a plain one."""
        cdef fm_codes X
        cdef Py_ssize_t size = self.k.element_size, p, f, n_rows
        X.offset, n_rows = layout.offset, layout.offset[layout.n_numbers]
        cdef Panels P = self.packed(W), C = Panels(self, n_rows, W.shape[1], 0, True)
        cdef Given W_rows = Given(W, self.dtype)
        cdef Guarded plain = Guarded(n_rows * W.shape[1], self.dtype)
        start()
        for p in range(C.panels):
            for f in range(layout.n_numbers):
                self.k.sum_bins(<char *> C.at + p * C.stride * size, <char *> P.at + p * P.stride * size, &X,
                                self.panel, f, f + 1)
        stop()
        self.k.sum_bins(plain.at, W_rows.at, &X, W.shape[1], 0, layout.n_numbers)
        return C.check("sum_bins").get(), plain.check("sum_bins").reshape(n_rows, W.shape[1])

    def forward_codes(self, Codes X, order, W, b, str activation="identity", Py_ssize_t first=0):
        """y of the first layer for the rows `order` of codes."""
        cdef Layer layer = Layer(self, numpy.zeros((len(order), W.shape[0])), W, b, activation, first)
        cdef Given rows_at = Given(order, numpy.intp)
        cdef Panels Y = layer.y, C = self.packed(self.sum_bins(W, X.layout)[0])
        layer.c.x = NULL
        start()
        self.k.forward_codes(&layer.c, C.at, &X.c, <Py_ssize_t *> rows_at.at, 0, first, Y.rows, Y.stride)
        stop()
        return Y.check("forward_codes").get()

    def forward_codes_unpacked(self, Codes X, Py_ssize_t first, Py_ssize_t rows, W, b, str activation="identity",
                               sums=None):
        """y of the first layer for `rows` rows of codes, from row-major W, in two shares of the panels."""
        cdef Layer layer = Layer(self, numpy.zeros((rows, W.shape[0])), W, b, activation, packed=False)
        cdef Panels Y = layer.y
        cdef Given C = Given(sums, self.dtype)
        layer.c.x = NULL
        start()
        self.k.forward_codes_unpacked(&layer.c, C.at, &X.c, first, 0, Y.panels // 2, Y.rows, Y.stride)
        self.k.forward_codes_unpacked(&layer.c, C.at, &X.c, first, Y.panels // 2, Y.panels, Y.rows, Y.stride)
        stop()
        return Y.check("forward_codes_unpacked").get()

    def gradient_codes(self, Codes X, order, dz, Py_ssize_t embedding=0):
        """The gradient of W for the rows `order` of codes: blocks of W in two shares, rows in two micro-batches, as in
        training."""
        cdef Given rows_at = Given(order, numpy.intp)
        cdef Py_ssize_t rows = len(order), I = X.layout.width, half, c0, c1, first, n, i, p, size = self.k.element_size
        cdef Py_ssize_t features = X.c.n_numbers + X.c.n_categories
        cdef Panels D = self.batch(dz), G = Panels(self, I, embedding or dz.shape[1], 0, True)
        cdef fm_layer layer
        cdef Given starts = Given(numpy.zeros(I + 1), numpy.intp)
        cdef Given row = Given(numpy.zeros(rows * features + 1), numpy.int32)
        cdef Given value = Given(numpy.zeros(rows * features + 1), self.dtype)
        cdef fm_csc columns = fm_csc(0, <Py_ssize_t *> starts.at, <int32_t *> row.at, value.at)
        memset(&layer, 0, sizeof(layer))
        layer.fan_in, layer.fan_out, layer.embedding = I, dz.shape[1], embedding
        half = I // FM_BLOCK_ROWS // 2 * FM_BLOCK_ROWS
        start()
        for first, n in ((0, rows // 2), (rows // 2, rows - rows // 2)):
            layer.dz = <char *> D.at + first * self.panel * size
            for c0, c1 in ((0, half), (half, I)):
                self.k.codes_to_csc(&columns, &X.c, <Py_ssize_t *> rows_at.at + first, 0, n, c0, c1)
                for i in range(c0, c1, FM_BLOCK_ROWS):
                    for p in range(G.panels):
                        self.k.gradient_codes(&layer, <char *> G.at + (p * G.stride + i * self.panel) * size, &columns,
                                              &X.c, i, min(FM_BLOCK_ROWS, c1 - i), p, D.stride, first > 0)
        stop()
        return G.check("gradient_codes").get()

    def group_features(self, scalings):
        """The pattern of each feature, and the scalings (members, patterns) of the patterns."""
        cdef Given given = Given(scalings, self.dtype), pattern = Guarded(scalings.shape[1], numpy.intp)
        cdef Guarded grouped = Guarded(scalings.size, self.dtype)
        start()
        cdef Py_ssize_t n = self.k.group_features(<Py_ssize_t *> pattern.at, grouped.at, given.at, scalings.shape[0],
                                                  scalings.shape[1])
        stop()
        return pattern.array, grouped.check("group_features").reshape(scalings.shape)[:, :n].copy()

    def forward_members(self, x, W, b, scalings, str activation="identity"):
        """y (members, rows, O) of the layer that members share, in two shares of the rows."""
        cdef MembersGiven members = MembersGiven(self, scalings, x.shape[0], x.shape[1])
        cdef Panels X = self.batch(x), P = self.packed(W), B = self.packed(b)
        cdef Panels Y = Panels(self, members.c.n * X.rows, W.shape[1])
        cdef Guarded scratch = Guarded(FM_MEMBER_ROWS * self.panel * members.c.n_features, self.dtype)
        cdef Py_ssize_t half = X.rows // 3
        cdef fm_layer layer
        memset(&layer, 0, sizeof(layer))
        layer.fan_in, layer.fan_out, layer.activation = W.shape[0], W.shape[1], ACTIVATIONS.index(activation)
        layer.x, layer.y, layer.W, layer.b, members.c.x_stride = X.at, Y.at, P.at, B.at, X.stride
        start()
        self.k.forward_members(&layer, &members.c, scratch.at, 0, half, Y.stride)
        self.k.forward_members(&layer, &members.c, scratch.at, half, X.rows - half, Y.stride)
        stop()
        scratch.check("forward_members")
        return Y.check("forward_members").get().reshape(members.c.n, X.rows, W.shape[1])

    def forward_row_members(self, x, W, b, scalings, str activation="identity"):
        """y (members, O) of one row x."""
        cdef MembersGiven members = MembersGiven(self, scalings, 1, len(x))
        cdef Given row = Given(x, self.dtype), weights = Given(W, self.dtype), bias = Given(b, self.dtype)
        cdef Py_ssize_t O = W.shape[1], apart = (O + self.panel - 1) // self.panel * self.panel
        cdef Guarded scratch = Guarded(members.c.n_patterns * apart, self.dtype)
        cdef Guarded y = Guarded(members.c.n * apart, self.dtype)
        cdef fm_layer layer
        memset(&layer, 0, sizeof(layer))
        layer.fan_in, layer.fan_out, layer.activation = W.shape[0], O, ACTIVATIONS.index(activation)
        layer.W, layer.b = weights.at, bias.at
        start()
        self.k.forward_row_members(&layer, &members.c, scratch.at, y.at, row.at)
        stop()
        scratch.check("forward_row_members")
        return y.check("forward_row_members").reshape(members.c.n, apart)[:, :O].copy()

    def backward_members(self, dz, W, x, scalings, str activation="identity"):
        """The sums (patterns, rows, O) of the members' dz (members, rows, O), and from them the gradients by W
        and at the input of the activation below, whose input was x."""
        cdef Py_ssize_t rows = x.shape[0], I = W.shape[0], O = W.shape[1], half = rows // 3, i, p
        cdef Py_ssize_t size = self.k.element_size
        cdef MembersGiven members = MembersGiven(self, scalings, rows, I)
        cdef Panels D = self.batch(dz.reshape(-1, O)), P = self.packed(W), Z = self.batch(x)
        cdef Panels Y = self.batch(self.activation(activation, x.ravel()).reshape(x.shape))
        cdef Panels sums = Panels(self, members.c.n_patterns * rows, O), out = Panels(self, rows, I)
        cdef Panels G = Panels(self, I, O, 0, True)
        cdef Guarded chunk = Guarded(self.k.scratch_size, self.dtype)
        cdef fm_layer layer, below
        memset(&layer, 0, sizeof(layer))
        memset(&below, 0, sizeof(below))
        layer.fan_in, layer.fan_out, layer.dz, layer.W, layer.x = I, O, D.at, P.at, Y.at
        below.activation, below.fan_out, below.dz, below.y = ACTIVATIONS.index(activation), I, out.at, Y.at
        if self.k.activations[below.activation].from_input:
            below.z = Z.at
        members.c.x_stride = Y.stride
        start()
        for i, p in ((0, half), (half, rows - half)):
            self.k.sum_members(&layer, &members.c, sums.at, sums.stride, i, p, D.stride)
            self.k.backward_members(&layer, &below, &members.c, sums.at, sums.stride, chunk.at, i, p)
        for i in range(0, I, FM_BLOCK_ROWS):
            for p in range(G.panels):
                self.k.gradient_members(&layer, &members.c, <char *> G.at + (p * G.stride + i * self.panel) * size,
                                        sums.at, sums.stride, i, min(FM_BLOCK_ROWS, I - i), p, False)
        stop()
        chunk.check("backward_members")
        return (sums.check("sum_members").get().reshape(-1, rows, O), G.check("gradient_members").get(),
                out.check("backward_members").get())

    def backward(self, dz, W, x, str activation="identity", Py_ssize_t first=0):
        """Gradient at the input of the activation below, whose input was x: (dz W^T) * f'(x); panels in two pieces."""
        cdef Py_ssize_t rows = dz.shape[0], I = W.shape[0], O = W.shape[1]
        cdef Panels D = self.batch(dz, first), P = self.packed(W), Z = self.batch(x, first)
        cdef Panels Y = self.batch(self.activation(activation, x.ravel()).reshape(x.shape), first)
        cdef Panels out = Panels(self, rows, I, first)
        cdef Guarded chunk = Guarded(self.k.scratch_size, self.dtype)
        cdef fm_layer layer, below
        memset(&layer, 0, sizeof(layer))
        memset(&below, 0, sizeof(below))
        layer.fan_in, layer.fan_out, layer.dz, layer.W = I, O, D.at, P.at
        below.activation, below.fan_out, below.dz, below.y = ACTIVATIONS.index(activation), I, out.at, Y.at
        if self.k.activations[below.activation].from_input:
            below.z = Z.at
        start()
        self.k.backward(&layer, &below, chunk.at, 0, out.panels // 2, first, rows, D.stride)
        stop()
        out.check_from(out.panels // 2, "backward")
        start()
        self.k.backward(&layer, &below, chunk.at, out.panels // 2, out.panels, first, rows, D.stride)
        stop()
        chunk.check("backward")
        return out.check("backward").check_padding("backward").get()

    def update(self, str optimizer, x, dz, W, b, state_W, state_b, *, int t=1, double weight_sum=1, double l1=0,
               double l2=0, double learning_rate=0.1, micro_batches=1, **hyperparameters):
        """One update of a layer: (W, b, state_W, state_b, penalty per column)."""
        cdef fm_layer layer
        cdef fm_hyper h
        cdef Py_ssize_t rows = x.shape[0], I = W.shape[0], O = W.shape[1], i, p, n, n_state = OPTIMIZERS[optimizer], s
        cdef Py_ssize_t at
        cdef Py_ssize_t n_blocks = (I + FM_BLOCK_ROWS - 1) // FM_BLOCK_ROWS, block
        cdef int rule = list(OPTIMIZERS).index(optimizer), accumulate
        # One micro-batch needs its sums no longer than a block takes, as in training; more micro-batches keep all of
        # them.
        cdef Py_ssize_t size = FM_BLOCK_ROWS * self.panel * self.k.element_size, step = size if micro_batches > 1 else 0
        cdef Panels X = self.batch(x), D = self.batch(dz), PW = self.packed(W), PB = self.packed(b), panels
        memset(&layer, 0, sizeof(layer))
        memset(&h, 0, sizeof(h))
        layer.fan_in, layer.fan_out, layer.W, layer.b = I, O, PW.at, PB.at
        states = [[self.packed(state[s]) for s in range(n_state)] for state in (state_W, state_b)]
        for s in range(n_state):
            panels = states[0][s]
            layer.W_state[s] = panels.at
            panels = states[1][s]
            layer.b_state[s] = panels.at
        h.clip = 1
        h.t, h.weight_sum, h.l1, h.l2, h.penalty_scale, h.learning_rate = t, weight_sum, l1, l2, 1, learning_rate
        set_hyperparameters(&h, hyperparameters)
        self.k.optimizers[rule].prepare(&h)
        cdef Given penalty = Given(numpy.zeros(PW.panels * self.panel), "float64")
        cdef Buffer sums = Buffer(size + (n_blocks + 1) * PW.panels * step)
        cdef char *G = <char *> sums.at
        for s in range(micro_batches):
            at = rows * s // micro_batches
            n = rows * (s + 1) // micro_batches - at
            accumulate = s > 0
            rule = list(OPTIMIZERS).index(optimizer) if s == micro_batches - 1 else -1
            layer.x = <char *> X.at + at * self.panel * self.k.element_size
            layer.dz = <char *> D.at + at * self.panel * self.k.element_size
            start()
            for block in range(n_blocks):
                i = block * FM_BLOCK_ROWS
                for p in range(PW.panels):
                    self.k.update(&layer, G + (block * PW.panels + p) * step, <double *> penalty.at + p * self.panel, i,
                                  min(FM_BLOCK_ROWS, I - i), p, n, X.stride, accumulate, rule, &h)
            for p in range(PW.panels):
                self.k.update_bias(&layer, G + (n_blocks * PW.panels + p) * step, p, n, X.stride, accumulate, rule, &h)
            stop()
        for panels in [PW, PB, *states[0], *states[1]]:
            panels.check(optimizer)
        PW.check_padding(optimizer)
        return (PW.get(), PB.get()[0], [panels.get() for panels in states[0]],
                [panels.get()[0] for panels in states[1]], penalty.array[:O])

    def scaling_gradient(self, G, W, s):
        """From G, the gradient of diag(s) W: those of s and of W, and diag(s) W itself."""
        cdef Py_ssize_t I = W.shape[0], O = W.shape[1], i, n, p, at, size = self.k.element_size
        cdef Py_ssize_t block = FM_BLOCK_ROWS * self.panel
        cdef Panels PW = self.packed(W), PG = self.packed(G), V = Panels(self, I, O, 0, True)
        cdef Given s_at = Given(s, self.dtype)
        cdef Guarded ds = Guarded(I, self.dtype)
        cdef Guarded blocks = Guarded((I + FM_BLOCK_ROWS - 1) // FM_BLOCK_ROWS * PW.panels * block, self.dtype)
        cdef fm_layer layer
        memset(&layer, 0, sizeof(layer))
        layer.fan_in, layer.fan_out, layer.W = I, O, PW.at
        for i in range(0, I, FM_BLOCK_ROWS):
            n = min(FM_BLOCK_ROWS, I - i)
            for p in range(PW.panels):
                at = (i // FM_BLOCK_ROWS * PW.panels + p) * block
                blocks.array[at:at + n * self.panel] = PG.grid[p, i:i + n].ravel()
            start()
            self.k.scaling_gradient(&layer, <char *> blocks.at + i // FM_BLOCK_ROWS * PW.panels * block * size,
                                    <char *> ds.at + i * size, <char *> s_at.at + i * size, i, n)
            self.k.scale_rows(&layer, V.at, <char *> s_at.at + i * size, i, n)
            stop()
            for p in range(PW.panels):
                at = (i // FM_BLOCK_ROWS * PW.panels + p) * block
                PG.grid[p, i:i + n] = blocks.array[at:at + n * self.panel].reshape(n, self.panel)
        blocks.check("scaling_gradient")
        PW.check("scaling_gradient")
        return ds.check("scaling_gradient"), PG.get(), V.check("scale_rows").check_padding("scale_rows").get()

    def batch_norm(self, z, scale, b, dy, str activation="identity"):
        """Batch normalisation of z forth and of dy, the gradient at y, back: (y, mean, variance, dz, d_scale, d_b), the
        averages after one batch from 0 and 1."""
        cdef fm_layer layer
        cdef fm_batch_norm norm
        cdef fm_hyper hyper
        cdef Py_ssize_t rows = z.shape[0], O = z.shape[1], p
        cdef Panels Z = self.batch(z), Y = Panels(self, rows, O), D = self.batch(dy)
        cdef Panels S = self.packed(scale), B = self.packed(b), slope = Panels(self, 1, O, 0, True)
        cdef Panels mean = self.packed(numpy.zeros(O)), variance = self.packed(numpy.ones(O))
        cdef Panels batch_mean = Panels(self, 1, O, 0, True), batch_variance = Panels(self, 1, O, 0, True)
        cdef Panels d_scale = Panels(self, 1, O, 0, True), d_b = Panels(self, 1, O, 0, True)
        memset(&layer, 0, sizeof(layer))
        memset(&norm, 0, sizeof(norm))
        hyper.norm_momentum = 0.1
        layer.fan_out, layer.activation, layer.norm = O, ACTIVATIONS.index(activation), &norm
        layer.b, layer.z, layer.y, layer.dz = B.at, Z.at, Y.at, D.at
        norm.scale, norm.running_mean, norm.running_variance, norm.inverse_std = S.at, mean.at, variance.at, slope.at
        norm.batch_mean, norm.batch_variance = batch_mean.at, batch_variance.at
        norm.d_scale, norm.d_b = d_scale.at, d_b.at
        start()
        for p in range(Z.panels):
            self.k.batch_norm_forward(&layer, p, rows, Z.stride)
            self.k.update_running_statistics(&layer, p, &hyper)
        stop()
        y = Y.check("batch_norm_forward").get()
        start()
        for p in range(Z.panels):
            self.k.batch_norm_backward(&layer, p, rows, Z.stride)
        stop()
        for panels in (mean, variance, batch_mean, batch_variance, slope):
            panels.check("batch_norm_forward")
        for panels in (Z, D):
            panels.check("batch_norm_backward")
        return (y, mean.get()[0], variance.get()[0], D.get(), d_scale.check("batch_norm_backward").get()[0],
                d_b.check("batch_norm_backward").get()[0])

    def augment(self, x, partner, *, double mix, double noise, double mask, double rate, seed, int step,
                Py_ssize_t row):
        """Rows of input, the first being number `row` of their batch, changed in place: mixed, with noise, masked,
        dropped."""
        cdef fm_augment how = fm_augment(noise, mask, rate)
        cdef fm_rng rng
        cdef Panels P = self.batch(x), Q = self.batch(partner)
        rng.key[0], rng.key[1], rng.step, rng.row = seed & 0xffffffff, seed >> 32, step, row
        start()
        self.k.augment(P.at, Q.at, mix, &how, &rng, 0, P.rows, P.columns, P.stride)
        stop()
        return P.check("augment").get()
