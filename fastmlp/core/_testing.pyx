"""Single kernels as Python functions, for any instruction set of this machine: for check, tests and benchmarks only.

Every output lies in a guarded buffer: filled with NaN, with NaN around it, rows that the call was not given included. A
kernel that writes outside its contract raises AssertionError here, whoever the caller is.
"""

import numpy

from libc.stdint cimport int32_t
from libc.string cimport memset

from fastmlp.core._csrc cimport *
from fastmlp.core._openmp cimport fm_seconds
from fastmlp.core._arrays cimport Buffer, InputRows
from fastmlp.core._dispatch cimport kernels_of, set_hyperparameters

from fastmlp.core._dispatch import ACTIVATIONS, LOSSES, OPTIMIZERS, OUTPUTS, info

__all__ = ["BLOCK_ROWS", "MATH", "Kernels", "clock", "guarded"]

cdef const fm_kernels *_names = kernels_of(info()["isa"], "float64")
MATH = tuple([_names.math[i].name.decode() for i in range(FM_N_MATH)])
BLOCK_ROWS = FM_BLOCK_ROWS
cdef Py_ssize_t GUARD = 64

cdef double in_kernels = 0, started = 0


def clock() -> float:
    """Seconds spent inside kernels since import, without what surrounds them here: what a benchmark takes for time."""
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

    def __cinit__(self, Kernels owner, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t first=0, bint exact=False):
        # exact: no rows beyond `rows`, no gap between panels, as in weights
        self.k, self.rows, self.columns, self.first = owner.k, rows, columns, first
        self.panels = (columns + self.k.panel - 1) // self.k.panel
        self.height = rows if exact else first + rows + owner.slack
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
        """Nothing was written in this panel and those behind it, which are not their turn's yet."""
        if not numpy.isnan(self.grid[panel:]).all():
            raise AssertionError(f"{what} wrote beyond its panels")
        return self

    def check_padding(self, str what):
        """What fills up the last vector of the columns is 0, so that weights' padding stays 0 in an update."""
        cdef Py_ssize_t filled = (self.columns + self.k.vector - 1) // self.k.vector * self.k.vector
        rows = self.grid[:, self.first:self.first + self.rows].transpose(1, 0, 2).reshape(self.rows,
                                                                                          self.panels * self.k.panel)
        if rows[:, self.columns:filled].any():
            raise AssertionError(f"{what} left padding that is not 0")
        return self


def guarded(Py_ssize_t n, dtype, Py_ssize_t offset=0):
    """(array of n NaN at `offset` elements from alignment, function that raises if its surroundings changed)."""
    memory = numpy.full(n + offset + 2 * GUARD, numpy.nan, dtype)

    def check(str what):
        if not (numpy.isnan(memory[:GUARD + offset]).all() and numpy.isnan(memory[GUARD + offset + n:]).all()):
            raise AssertionError(f"{what} wrote outside its output")

    return memory[GUARD + offset:GUARD + offset + n], check


cdef void *address(array) except? NULL:
    return <void *> <size_t> array.ctypes.data


cdef class Kernels:
    """The kernels of one instruction set and element type.

    Parameters
    ----------
    isa : str
        One of info()['available'].
    dtype : {'float32', 'float64'}
    offset, first, slack : int
        Where the cases of check.py put what they compute: elements from alignment; rows before it and rows behind it,
        which a panel's stride then spans.
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

    def _array(self, x):
        return numpy.ascontiguousarray(x, self.dtype)

    cdef void map(self, void (*f)(void *y, const void *x, Py_ssize_t n) noexcept nogil, void *y, const void *x,
                  Py_ssize_t n) noexcept:
        start()
        f(y, x, n)
        stop()

    def math(self, str name, x, Py_ssize_t offset=0):
        """exp, log, ... of a vector."""
        x = self._array(x)
        y, check = guarded(x.size, self.dtype, offset)
        self.map(self.k.math[MATH.index(name)].map, address(y), address(x), x.size)
        check(name)
        return y

    def activation(self, str name, x, Py_ssize_t offset=0):
        x = self._array(x)
        y, check = guarded(x.size, self.dtype, offset)
        self.map(self.k.activations[ACTIVATIONS.index(name)].forward, address(y), address(x), x.size)
        check(name)
        return y

    def derivative(self, str name, d, x, Py_ssize_t offset=0):
        """d * f'(x), taken from x or from f(x) as the activation's row says."""
        cdef const fm_activation_row *row = &self.k.activations[ACTIVATIONS.index(name)]
        u = self._array(x).copy()
        if not row.from_input:
            row.forward(address(u), address(u), u.size)
        out, check = guarded(u.size, self.dtype, offset)
        out[:] = d
        self.map(row.derivative, address(out), address(u), u.size)
        check(name)
        return out

    def output(self, str name, z):
        """Output activation of a matrix."""
        z = self._array(z)
        a, check = guarded(z.size, self.dtype)
        a[:] = z.ravel()
        cdef const fm_output_row *row = &self.k.outputs[OUTPUTS.index(name)]
        cdef Py_ssize_t rows = z.shape[0], columns = z.shape[1]
        cdef void *at = address(a)
        start()
        row.apply(at, rows, columns)
        stop()
        check(name)
        return a.reshape(z.shape)

    def loss(self, str name, z, y, weights=None, order=None, *, double parameter=1.0, double smoothing=0.0,
             partner=None, double mix=1.0):
        """(dz, value per row, value alone) at z for the targets y[order], mixed with y[partner]; the last from z's
        output, for the plain targets y[:rows]."""
        cdef fm_targets targets
        cdef int loss = list(LOSSES).index(name)
        cdef Py_ssize_t rows = z.shape[0], O = z.shape[1]
        cdef Panels dz = Panels(self, rows, O, 3).set(z)
        scratch = numpy.empty(2 * rows * (O + 1) + 64, self.dtype)
        value, check = guarded(rows, "float64")
        memset(&targets, 0, sizeof(targets))
        targets.parameter, targets.smoothing, targets.mix = parameter, smoothing, mix
        y = numpy.ascontiguousarray(y, numpy.intp if self.k.losses[loss].target_is_class else self.dtype)
        targets.classes = <Py_ssize_t *> address(y)
        targets.values = address(y)
        if weights is not None:
            weights = numpy.ascontiguousarray(weights, numpy.float64)
            targets.weights = <double *> address(weights)
        if order is not None:
            order = numpy.ascontiguousarray(order, numpy.intp)
        if partner is not None:
            partner = numpy.ascontiguousarray(partner, numpy.intp)
        a, check_output = guarded(rows * O, self.dtype)
        a[:] = self.output(LOSSES[name], z).ravel()
        plain, check_plain = guarded(rows, "float64")
        cdef double *value_at = <double *> address(value)
        cdef double *plain_at = <double *> address(plain)
        cdef void *a_at = address(a)
        cdef void *scratch_at = address(scratch)
        cdef Py_ssize_t *order_at = <Py_ssize_t *> address(order) if order is not None else NULL
        cdef Py_ssize_t *partner_at = <Py_ssize_t *> address(partner) if partner is not None else NULL
        start()
        self.k.loss_gradient(loss, dz.at, value_at, scratch_at, &targets, order_at, partner_at, 0, 3, rows, O,
                             dz.stride)
        self.k.loss_value(loss, a_at, plain_at, scratch_at, &targets, 0, rows, O)
        stop()
        for guard in (check, check_output, check_plain):
            guard(name)
        return dz.check(name).get(), value, plain

    def gather(self, X, order=None, Py_ssize_t first=0, rows=None):
        """X[order], through panels."""
        cdef InputRows source = InputRows(X, X.shape[1])
        if order is not None:
            order = numpy.ascontiguousarray(order, numpy.intp)
        cdef Py_ssize_t n = rows if rows is not None else len(order) if order is not None else X.shape[0] - first
        cdef Panels panels = Panels(self, n, X.shape[1])
        cdef Py_ssize_t *order_at = <Py_ssize_t *> address(order) if order is not None else NULL
        start()
        self.k.gather(panels.at, &source.rows, order_at, first, n, panels.stride)
        stop()
        panels.check("gather")
        M, check = guarded(n * X.shape[1], self.dtype)
        self.k.scatter(address(M), panels.at, n, X.shape[1], panels.stride)
        check("scatter")
        return M.reshape(n, X.shape[1])

    def forward(self, x, W, b, str activation="identity", Py_ssize_t first=0):
        """(y, z) of a layer; rows from `first` of the batch are computed, panels in two pieces, as training might take
        them."""
        cdef fm_layer layer
        cdef Py_ssize_t rows = x.shape[0]
        cdef Panels X = Panels(self, rows, W.shape[0], first).set(x), Y = Panels(self, rows, W.shape[1], first)
        cdef Panels Z = Panels(self, rows, W.shape[1], first), P = Panels(self, W.shape[0], W.shape[1], 0, True).set(W)
        cdef Panels B = Panels(self, 1, W.shape[1], 0, True).set(b)
        memset(&layer, 0, sizeof(layer))
        layer.fan_in, layer.fan_out, layer.activation = W.shape[0], W.shape[1], ACTIVATIONS.index(activation)
        layer.x, layer.W, layer.b, layer.y, layer.z = X.at, P.at, B.at, Y.at, Z.at
        start()
        self.k.forward(&layer, 0, Y.panels // 2, first, rows, X.stride)
        stop()
        Y.check_from(Y.panels // 2, "forward")
        Z.check_from(Y.panels // 2, "forward")
        start()
        self.k.forward(&layer, Y.panels // 2, Y.panels, first, rows, X.stride)
        stop()
        return Y.check("forward").get(), Z.check("forward").get()

    def forward_row(self, x, W, b, str activation="identity", Py_ssize_t offset=0):
        x, W, b = self._array(x), self._array(W), self._array(b)
        y, check = guarded(W.shape[1], self.dtype, offset)
        cdef void *y_at = address(y)
        cdef void *x_at = address(x)
        cdef fm_layer layer
        memset(&layer, 0, sizeof(layer))
        layer.fan_in, layer.fan_out, layer.activation = W.shape[0], W.shape[1], ACTIVATIONS.index(activation)
        layer.W, layer.b = address(W), address(b)
        start()
        self.k.forward_row(&layer, y_at, x_at)
        stop()
        check("forward_row")
        return y

    def forward_unpacked(self, x, W, b, str activation="identity"):
        """y of a layer from row-major W, in two shares of the panels, as two threads would take them."""
        cdef fm_layer layer
        cdef Py_ssize_t rows = x.shape[0], panels
        W, b = self._array(W), self._array(b)
        cdef Panels X = Panels(self, rows, W.shape[0]).set(x), Y = Panels(self, rows, W.shape[1])
        cdef Buffer chunk = Buffer(self.k.scratch_size * self.k.element_size)
        memset(&layer, 0, sizeof(layer))
        layer.fan_in, layer.fan_out, layer.activation = W.shape[0], W.shape[1], ACTIVATIONS.index(activation)
        layer.x, layer.W, layer.b, layer.y = X.at, address(W), address(b), Y.at
        panels = Y.panels
        start()
        self.k.forward_unpacked(&layer, chunk.at, 0, panels // 2, rows, X.stride)
        self.k.forward_unpacked(&layer, chunk.at, panels // 2, panels, rows, X.stride)
        stop()
        return Y.check("forward_unpacked").get()

    def forward_csr(self, X, order, W, b, str activation="identity", Py_ssize_t first=0):
        """y of the first layer for the rows `order` of canonical CSR X."""
        cdef fm_layer layer
        cdef InputRows source = InputRows(X, X.shape[1])
        order = numpy.ascontiguousarray(order, numpy.intp)
        cdef Py_ssize_t rows = len(order)
        cdef Py_ssize_t *order_at = <Py_ssize_t *> address(order)
        cdef Panels Y = Panels(self, rows, W.shape[1], first), P = Panels(self, W.shape[0], W.shape[1], 0, True).set(W)
        cdef Panels B = Panels(self, 1, W.shape[1], 0, True).set(b)
        memset(&layer, 0, sizeof(layer))
        layer.fan_in, layer.fan_out, layer.activation = W.shape[0], W.shape[1], ACTIVATIONS.index(activation)
        layer.W, layer.b, layer.y = P.at, B.at, Y.at
        start()
        self.k.forward_csr(&layer, &source.rows, order_at, 0, first, rows, Y.stride)
        stop()
        return Y.check("forward_csr").get()

    def gradient_csr(self, X, order, dz):
        """X[order]^T dz for canonical CSR X: columns sorted in two shares, rows in two micro-batches, as in
        training."""
        cdef InputRows source = InputRows(X, X.shape[1])
        order = numpy.ascontiguousarray(order, numpy.intp)
        cdef Py_ssize_t rows = len(order), I = X.shape[1], c0, c1, first, n, p, size = self.k.element_size
        cdef Py_ssize_t *order_at = <Py_ssize_t *> address(order)
        cdef Panels D = Panels(self, rows, dz.shape[1]).set(dz), G = Panels(self, I, dz.shape[1], 0, True)
        cdef fm_csc columns
        starts, row = numpy.empty(I + 1, numpy.intp), numpy.empty(rows * I + 1, numpy.int32)
        value = numpy.empty(rows * I + 1, self.dtype)
        columns.indptr, columns.indices = <Py_ssize_t *> address(starts), <int32_t *> address(row)
        columns.data = address(value)
        start()
        for first, n in ((0, rows // 2), (rows // 2, rows - rows // 2)):
            for c0, c1 in ((0, I // 2), (I // 2, I)):
                self.k.csr_to_csc(&columns, &source.rows, order_at + first, 0, n, c0, c1)
                for p in range(G.panels):
                    self.k.gradient_csr(<char *> G.at + (p * G.stride + c0 * self.panel) * size, &columns,
                                        <char *> D.at + (p * D.stride + first * self.panel) * size, c0, c1 - c0,
                                        first > 0)
        stop()
        return G.check("gradient_csr").get()

    def backward(self, dz, W, x, str activation="identity", Py_ssize_t first=0):
        """Gradient at the input of the activation below, whose input was x: (dz W^T) * f'(x); panels in two pieces."""
        cdef fm_layer layer, below
        cdef Py_ssize_t rows = dz.shape[0], I = W.shape[0], O = W.shape[1]
        cdef Panels D = Panels(self, rows, O, first).set(dz), P = Panels(self, I, O, 0, True).set(W)
        cdef Panels out = Panels(self, rows, I, first), Y = Panels(self, rows, I, first)
        cdef Panels Z = Panels(self, rows, I, first).set(x)
        memset(&layer, 0, sizeof(layer))
        memset(&below, 0, sizeof(below))
        chunk, check = guarded(self.k.scratch_size, self.dtype)
        cdef void *chunk_at = address(chunk)
        y = numpy.array(x, self.dtype)
        self.k.activations[ACTIVATIONS.index(activation)].forward(address(y), address(y), y.size)
        Y.set(y)
        layer.fan_in, layer.fan_out, layer.dz, layer.W = I, O, D.at, P.at
        below.activation, below.fan_out, below.dz, below.y = ACTIVATIONS.index(activation), I, out.at, Y.at
        if self.k.activations[below.activation].from_input:
            below.z = Z.at
        start()
        self.k.backward(&layer, &below, chunk_at, 0, out.panels // 2, first, rows, D.stride)
        stop()
        out.check_from(out.panels // 2, "backward")
        start()
        self.k.backward(&layer, &below, chunk_at, out.panels // 2, out.panels, first, rows, D.stride)
        stop()
        check("backward")
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
        cdef Panels X = Panels(self, rows, I).set(x), D = Panels(self, rows, O).set(dz)
        cdef Panels PW = Panels(self, I, O, 0, True).set(W)
        cdef Panels PB = Panels(self, 1, O, 0, True).set(b), panels
        memset(&layer, 0, sizeof(layer))
        memset(&h, 0, sizeof(h))
        layer.fan_in, layer.fan_out, layer.W, layer.b = I, O, PW.at, PB.at
        states = [[Panels(self, I, O, 0, True).set(state_W[s]) for s in range(n_state)],
                  [Panels(self, 1, O, 0, True).set(state_b[s]) for s in range(n_state)]]
        for s in range(n_state):
            panels = states[0][s]
            layer.W_state[s] = panels.at
            panels = states[1][s]
            layer.b_state[s] = panels.at
        h.clip = 1
        h.t, h.weight_sum, h.l1, h.l2, h.penalty_scale = t, weight_sum, l1, l2, 1
        h.learning_rate = learning_rate
        set_hyperparameters(&h, hyperparameters)
        self.k.optimizers[rule].prepare(&h)
        penalty = numpy.zeros(PW.panels * self.panel)
        cdef double *paid = <double *> address(penalty)
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
                    self.k.update(&layer, G + (block * PW.panels + p) * step, paid + p * self.panel, i,
                                  min(FM_BLOCK_ROWS, I - i), p,
                                  n, X.stride, accumulate, rule, &h)
            for p in range(PW.panels):
                self.k.update_bias(&layer, G + (n_blocks * PW.panels + p) * step, p, n, X.stride, accumulate, rule, &h)
            stop()
        for panels in [PW, PB, *states[0], *states[1]]:
            panels.check(optimizer)
        PW.check_padding(optimizer)
        return (PW.get(), PB.get()[0], [panels.get() for panels in states[0]],
                [panels.get()[0] for panels in states[1]], penalty[:O])

    def layer_output(self, x, W, b, str activation="identity", *, scale=None, shift=None, bint residual=False,
                     double rate=0.0, seed=0, int stream=1, int step=1, Py_ssize_t row=0, Py_ssize_t first=0):
        """(output by forward, by forward_unpacked, by forward_row, dropout's mask); only forward applies dropout."""
        cdef fm_layer layer, plain
        cdef fm_rng rng
        cdef Py_ssize_t rows = x.shape[0], r
        W, b, x = self._array(W), self._array(b), self._array(x)
        cdef Panels X = Panels(self, rows, W.shape[0], first).set(x), Y = Panels(self, rows, W.shape[1], first)
        cdef Panels U = Panels(self, rows, W.shape[1], 0), X0 = Panels(self, rows, W.shape[0], 0).set(x)
        cdef Panels out = Panels(self, rows, W.shape[1], first), keep = Panels(self, rows, W.shape[1], first)
        cdef Panels P = Panels(self, W.shape[0], W.shape[1], 0, True).set(W)
        cdef Panels B = Panels(self, 1, W.shape[1], 0, True).set(b)
        cdef Panels S = Panels(self, 1, W.shape[1], 0, True), T = Panels(self, 1, W.shape[1], 0, True)
        cdef Buffer chunk = Buffer(self.k.scratch_size * self.k.element_size)
        memset(&layer, 0, sizeof(layer))
        rng.key[0], rng.key[1], rng.step, rng.row = seed & 0xffffffff, seed >> 32, step, row
        layer.fan_in, layer.fan_out, layer.activation = W.shape[0], W.shape[1], ACTIVATIONS.index(activation)
        layer.residual = residual
        layer.x, layer.W, layer.b, layer.y, layer.out = X.at, P.at, B.at, Y.at, out.at
        if scale is not None:
            S.set(scale)
            T.set(shift)
            layer.scale, layer.shift = S.at, T.at
        plain = layer
        plain.x, plain.W, plain.b, plain.y, plain.out = X0.at, address(W), address(b), U.at, NULL
        if rate > 0:
            layer.dropout_mask, layer.dropout_rate, layer.rng, layer.stream = keep.at, rate, &rng, stream
        single, check = guarded(rows * W.shape[1], self.dtype)
        cdef char *single_at = <char *> address(single)
        cdef char *x_at = <char *> address(x)
        start()
        self.k.forward(&layer, 0, Y.panels, first, rows, X.stride)
        self.k.forward_unpacked(&plain, chunk.at, 0, U.panels, rows, X0.stride)
        for r in range(rows):
            self.k.forward_row(&plain, single_at + r * layer.fan_out * self.k.element_size,
                               x_at + r * layer.fan_in * self.k.element_size)
        stop()
        check("forward_row")
        result = out if residual or rate > 0 else Y
        factors = keep.check("dropout").get() if rate > 0 else None
        single = single.reshape(rows, W.shape[1])
        return result.check("forward").get(), U.check("forward_unpacked").get(), single, factors

    def batch_norm(self, z, scale, b, dy, str activation="identity"):
        """Batch normalisation of z forth and of dy, the gradient at y, back: (y, mean, variance, dz, d_scale, d_b), the
        averages after one batch from 0 and 1."""
        cdef fm_layer layer
        cdef fm_batch_norm norm
        cdef fm_hyper hyper
        cdef Py_ssize_t rows = z.shape[0], O = z.shape[1], p
        cdef Panels Z = Panels(self, rows, O).set(z), Y = Panels(self, rows, O), D = Panels(self, rows, O).set(dy)
        cdef Panels S = Panels(self, 1, O, 0, True).set(scale), B = Panels(self, 1, O, 0, True).set(b)
        cdef Panels mean = Panels(self, 1, O, 0, True).set(numpy.zeros(O)), slope = Panels(self, 1, O, 0, True)
        cdef Panels variance = Panels(self, 1, O, 0, True).set(numpy.ones(O))
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

    def augment(self, x, partner=None, *, double mix=1.0, double noise=0.0, double mask=0.0, double rate=0.0, seed=0,
                int step=1, Py_ssize_t row=0):
        """Rows of input, the first being number `row` of their batch, changed in place: mixed, with noise, masked,
        dropped."""
        cdef fm_augment how
        cdef fm_rng rng
        cdef Py_ssize_t rows = x.shape[0]
        cdef Panels P = Panels(self, rows, x.shape[1]).set(x), Q = Panels(self, rows, x.shape[1])
        rng.key[0], rng.key[1], rng.step, rng.row = seed & 0xffffffff, seed >> 32, step, row
        how.noise, how.mask, how.dropout = noise, mask, rate
        if partner is not None:
            Q.set(partner)
        start()
        self.k.augment(P.at, Q.at if partner is not None else NULL, mix, &how, &rng, 0, rows, x.shape[1], P.stride)
        stop()
        return P.check("augment").get()
