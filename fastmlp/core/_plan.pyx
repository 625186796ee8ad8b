"""Architecture: Plan describes a network's layers; parameter_layout says where their parameters lie."""

from collections import namedtuple
from itertools import accumulate, pairwise

import numpy

from libc.stdint cimport uint8_t
from libc.string cimport memset

from fastmlp.core._arrays cimport Buffer, InputRows, are_finite, array_address, first_outside
from fastmlp.core._csrc cimport *
from fastmlp.core._dispatch cimport kernels_of

from fastmlp.core._dispatch import ACTIVATIONS, OUTPUTS, info

__all__ = ["ParameterLayout", "Plan", "parameter_layout"]

cdef Py_ssize_t MOST_MEMBERS = 2**16

ParameterLayout = namedtuple(
    "ParameterLayout", "coefs intercepts scales scalings means variances n_parameters n_statistics", module=__name__
)


def parameter_layout(layer_sizes, bint batch_norm=False, embedding=0, n_members=1):
    """Where the arrays of each layer lie in a network's flat arrays.

    Parameters
    ----------
    layer_sizes : sequence of int
        Units per layer, input and output included.
    batch_norm : bool, default=False
    embedding : int, default=0
        As of a Plan.
    n_members : int, default=1
        As of a Plan.

    Returns
    -------
    ParameterLayout
        Lists of slices with one element per layer: `coefs`, each (fan_in, fan_out) in C order, but (fan_in, embedding)
        for an embedding, and (n_members, fan_in, fan_out) for the output layer of several members; and `intercepts`,
        (fan_out,) and (n_members, fan_out), in the parameters. One per hidden layer, and none without batch
        normalisation: `scales`, in the parameters; `means` and `variances`, in the statistics. `scalings`: one slice
        (n_members, n_features) of the parameters, and none with one member. `n_parameters` and `n_statistics` are the
        lengths of the two arrays.
    """
    products = [fan_in * fan_out for fan_in, fan_out in pairwise(layer_sizes)]
    n, units = len(products), list(layer_sizes[1:])
    hidden = units[:n - 1] if batch_norm else []
    n_hidden, scalings = len(hidden), []
    if embedding:
        products[0] = layer_sizes[0] * embedding
    if n_members > 1:
        products[n - 1] *= n_members
        scalings = [n_members * (units[0] // embedding)]
        units[n - 1] *= n_members
    parameters = [slice(*ends) for ends in pairwise(accumulate((*products, *units, *hidden, *scalings), initial=0))]
    statistics = [slice(*ends) for ends in pairwise(accumulate((*hidden, *hidden), initial=0))]
    last = 2 * n + n_hidden
    return ParameterLayout(
        parameters[:n], parameters[n:2 * n], parameters[2 * n:last], parameters[last:], statistics[:n_hidden],
        statistics[n_hidden:], parameters[len(parameters) - 1].stop, 2 * sum(hidden),
    )


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
    batch_norm : bool, default=False
        Hidden layers normalise their products before the activation.
    residual : bool, default=False
        Hidden layers as wide as their input add it to their output.
    embedding : int, default=0
        Units of the first layer for each feature of coded rows, a multiple of 16; 0: that layer is dense. Each of its
        units has one feature: z[f embedding + u] = b[f embedding + u] + W[i, u], summed over the columns i of feature f
        that the row has. layer_sizes[1] is the number of features times `embedding` (Gorishniy, Rubachev and Babenko,
        NeurIPS 2022). A layer must follow, and there is no batch normalisation.
    n_members : int, default=1
        Networks that share all layers but the last: each member multiplies the embedding of feature f by a number of
        its own, its scaling, and has an output layer of its own (Gorishniy, Kotelnikov and Babenko, ICLR 2025). They
        are trained on the same rows; the loss is the mean of theirs, and the output activation is applied to the mean
        of theirs. Several need an embedding and a hidden layer, to whose output `residual` does not add its input.
        Training does not change the scalings.

    Raises
    ------
    ValueError, MemoryError
    """

    def __cinit__(self, layer_sizes, activations, str output not None, str dtype not None, bint batch_norm=False,
                  bint residual=False, Py_ssize_t embedding=0, Py_ssize_t n_members=1):
        cdef int l, layer
        self.batch_norm, self.residual, self.embedding = batch_norm, residual, embedding
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
            raise ValueError(
                f"activations must name {self.n_layers - 1} hidden layers' functions, got {self.activations}"
            )
        for name in self.activations:
            if name not in ACTIVATIONS:
                raise ValueError(f"activation must be one of {ACTIVATIONS}, got {name!r}")
        if output not in OUTPUTS and output not in ACTIVATIONS:
            raise ValueError(f"output must be one of {OUTPUTS + ACTIVATIONS}, got {output!r}")
        if embedding < 0 or embedding % 16 or (embedding and self.layer_sizes[1] % embedding):
            raise ValueError(
                f"embedding must be a multiple of 16, and layer_sizes[1] one of it; got {embedding} with layer_sizes "
                f"{self.layer_sizes}"
            )
        if embedding and (batch_norm or self.n_layers < 2):
            raise ValueError("an embedding needs a layer after it, and no batch normalisation")
        if not 1 <= n_members <= MOST_MEMBERS or (n_members > 1 and not embedding):
            raise ValueError(
                f"n_members must lie in [1, {MOST_MEMBERS}], and be 1 without an embedding, got {n_members}"
            )
        if n_members > 1 and self.n_layers < 3:
            raise ValueError(f"several members need a hidden layer to share, got layer_sizes {self.layer_sizes}")
        self.n_members = <int> n_members
        self.n_matrices = self.n_layers - 1 + n_members
        layout = parameter_layout(  # Python numbers, which cannot overflow
            self.layer_sizes, batch_norm, embedding, n_members
        )
        if layout.n_parameters > 2**44:
            raise MemoryError(f"layer_sizes {self.layer_sizes} make {layout.n_parameters:.3g} parameters")
        self.n_parameters, self.n_statistics = layout.n_parameters, layout.n_statistics
        self.n_weights = layout.coefs[self.n_layers - 1].stop
        self.buffers = [
            Buffer(n * size)
            for n, size in [
                (self.n_layers + 1, sizeof(Py_ssize_t)), (self.n_layers, sizeof(int)),
                (self.n_matrices, sizeof(Offsets)),
            ]
        ]
        self.sizes = <Py_ssize_t *> (<Buffer> self.buffers[0]).at
        self.activation_rows = <int *> (<Buffer> self.buffers[1]).at
        self.offsets = <Offsets *> (<Buffer> self.buffers[2]).at
        for l in range(self.n_layers + 1):
            self.sizes[l] = self.layer_sizes[l]
        for l in range(self.n_matrices):
            layer = self.layer_of(l)
            before, size = (l - layer) * self.layer_sizes[layer + 1], self.k.element_size
            self.offsets[l].W = size * (layout.coefs[layer].start + before * self.layer_sizes[layer])
            self.offsets[l].b = size * (layout.intercepts[layer].start + before)
            if self.normalises(l):
                self.offsets[l].scale = self.k.element_size * layout.scales[l].start
                self.offsets[l].mean = self.k.element_size * layout.means[l].start
                self.offsets[l].variance = self.k.element_size * layout.variances[l].start
        for l in range(self.n_layers - 1):
            self.activation_rows[l] = ACTIVATIONS.index(self.activations[l])
        if layout.scalings:
            self.scalings = self.k.element_size * layout.scalings[0].start
        self.output_row = OUTPUTS.index(output) if output in OUTPUTS else -1
        l = self.n_layers - 1
        self.activation_rows[l] = FM_ACTIVATION_identity if self.output_row >= 0 else ACTIVATIONS.index(output)

    def __reduce__(self):
        return Plan, (self.layer_sizes, self.activations, self.output, self.dtype, self.batch_norm, self.residual,
                      self.embedding, self.n_members)

    cdef Py_ssize_t padded(self, Py_ssize_t columns) noexcept nogil:
        return (columns + self.k.panel - 1) // self.k.panel * self.k.panel

    cdef Py_ssize_t n_features(self) noexcept nogil:
        """Features of the embedding."""
        return self.sizes[1] // self.embedding

    cdef Py_ssize_t scalings_bytes(self) noexcept nogil:
        return self.n_members * self.n_features() * self.k.element_size

    cdef Py_ssize_t members_bytes(self) noexcept nogil:
        """Room for what describe_members keeps."""
        return self.n_features() * sizeof(Py_ssize_t) + self.scalings_bytes()

    cdef void describe_members(self, fm_members *members, const void *scalings, char *room) noexcept nogil:
        """The patterns of the features' scalings; `room` is kept."""
        members.n, members.n_features, members.width = self.n_members, self.n_features(), self.embedding
        members.pattern, members.scalings = <Py_ssize_t *> room, room + members.n_features * sizeof(Py_ssize_t)
        members.n_patterns = self.k.group_features(members.pattern, members.scalings, scalings, members.n,
                                                   members.n_features)

    cdef int layer_of(self, int matrix) noexcept nogil:
        return min(matrix, self.n_layers - 1)

    cdef Py_ssize_t columns(self, int matrix) noexcept nogil:
        """Columns of a matrix of weights."""
        return self.embedding if matrix == 0 and self.embedding else self.sizes[self.layer_of(matrix) + 1]

    cdef void shape(self, fm_layer *layer, int matrix) noexcept nogil:
        """Sizes and activation of a matrix's layer."""
        cdef int l = self.layer_of(matrix)
        layer.fan_in, layer.fan_out, layer.activation = self.sizes[l], self.sizes[l + 1], self.activation_rows[l]
        layer.embedding = self.embedding if matrix == 0 else 0

    cdef bint normalises(self, int l) noexcept nogil:
        return self.batch_norm and l < self.n_layers - 1

    cdef bint adds_input(self, int l) noexcept nogil:
        return (self.residual and l < self.n_layers - 1 and self.sizes[l] == self.sizes[l + 1]
                and not (l == 0 and self.embedding) and not (l == 1 and self.n_members > 1))

    cdef Py_ssize_t affine_bytes(self) noexcept nogil:
        """Room for the scale and shift of each normalised layer."""
        cdef Py_ssize_t total = 0
        cdef int l
        for l in range(self.n_layers):
            if self.normalises(l):
                total += 2 * self.padded(self.sizes[l + 1]) * self.k.element_size
        return total

    cdef void describe(self, fm_layer *layers, char *parameters, char *statistics, char *affine) noexcept nogil:
        """The layers for prediction: W and b in their place in the flat array, the normalisation as scale and shift."""
        cdef Py_ssize_t O, half
        cdef Offsets *at
        cdef fm_layer *layer
        cdef int l
        memset(layers, 0, self.n_matrices * sizeof(fm_layer))
        for l in range(self.n_matrices):
            layer, at = &layers[l], &self.offsets[l]
            self.shape(layer, l)
            O = layer.fan_out
            layer.residual = self.adds_input(l)
            layer.W, layer.b = parameters + at.W, parameters + at.b
            if self.normalises(l):
                half = self.padded(O) * self.k.element_size
                memset(affine, 0, 2 * half)
                layer.scale, layer.shift = affine, affine + half
                self.k.fold_batch_norm(affine, affine + half, parameters + at.scale, layer.b, statistics + at.mean,
                                       statistics + at.variance, O)
                affine += 2 * half

    cdef void pack(self, fm_layer *layers, char *parameters, int state) noexcept nogil:
        """Flat array into the layers' panels: the parameters (state < 0) or an array of optimizer state."""
        cdef Offsets *at
        cdef fm_layer *layer
        cdef int l
        for l in range(self.n_matrices):
            layer, at = &layers[l], &self.offsets[l]
            self.pack_matrix(layer.W if state < 0 else layer.W_state[state], parameters + at.W, layer.fan_in,
                             self.columns(l))
            self.pack_vector(layer.b if state < 0 else layer.b_state[state], parameters + at.b, layer.fan_out)
            if layer.norm != NULL:
                self.pack_vector(layer.norm.scale if state < 0 else layer.norm.scale_state[state],
                                 parameters + at.scale, layer.fan_out)

    cdef void pack_matrix(self, void *to, char *matrix, Py_ssize_t rows, Py_ssize_t columns) noexcept nogil:
        """A matrix without gaps into panels without gaps, their padding zero."""
        cdef fm_rows source
        memset(&source, 0, sizeof(source))
        source.data, source.columns, source.row_stride, source.column_stride = matrix, columns, columns, 1
        source.is_double = self.k.element_size == 8
        self.k.gather(to, &source, NULL, 0, rows, rows * self.k.panel)

    cdef void pack_vector(self, void *to, char *vector, Py_ssize_t n) noexcept nogil:
        """A row into panels, its padding zero."""
        self.pack_matrix(to, vector, 1, n)

    cdef bint unpack(self, char *parameters, fm_layer *layers, int state) noexcept nogil:
        """The layers' panels into a flat array: the inverse of pack. Returns whether the array is finite. The members'
        scalings have no state: theirs is 0.

        Some rows at a time: two panels share a cache line where their edge is within one.
        """
        cdef Py_ssize_t row, n, columns, size = self.k.element_size
        cdef bint finite = True
        cdef char *panels
        cdef char *to
        cdef Offsets *at
        cdef fm_layer *layer
        cdef int l
        for l in range(self.n_matrices):
            layer, at, columns = &layers[l], &self.offsets[l], self.columns(l)
            row = 0
            while row < layer.fan_in:
                panels = <char *> (layer.W if state < 0 else layer.W_state[state]) + row * self.k.panel * size
                n, to = min(FM_BLOCK_ROWS, layer.fan_in - row), parameters + at.W + row * columns * size
                self.k.scatter(to, panels, n, columns, layer.fan_in * self.k.panel)
                finite &= are_finite(to, n * columns, size)
                row += n
            panels = <char *> (layer.b if state < 0 else layer.b_state[state])
            finite &= self.unpack_vector(parameters + at.b, panels, layer.fan_out)
            if layer.norm != NULL:
                panels = <char *> (layer.norm.scale if state < 0 else layer.norm.scale_state[state])
                finite &= self.unpack_vector(parameters + at.scale, panels, layer.fan_out)
        if state >= 0 and self.n_members > 1:
            memset(parameters + self.scalings, 0, self.scalings_bytes())
        return finite

    cdef bint unpack_vector(self, char *vector, const void *panels, Py_ssize_t n) noexcept nogil:
        """The inverse of pack_vector. Returns whether the vector is finite."""
        self.k.scatter(vector, panels, 1, n, self.k.panel)
        return are_finite(vector, n, self.k.element_size)

    cdef void pack_statistics(self, fm_layer *layers, char *statistics) noexcept nogil:
        """The flat running averages into the layers' panels."""
        cdef int l
        for l in range(self.n_layers):
            if self.normalises(l):
                self.pack_vector(layers[l].norm.running_mean, statistics + self.offsets[l].mean, self.sizes[l + 1])
                self.pack_vector(layers[l].norm.running_variance, statistics + self.offsets[l].variance,
                                 self.sizes[l + 1])

    cdef bint unpack_statistics(self, char *statistics, fm_layer *layers) noexcept nogil:
        """The inverse of pack_statistics. Returns whether they are finite."""
        cdef bint finite = True
        cdef fm_batch_norm *norm
        cdef Offsets *at
        cdef int l
        for l in range(self.n_layers):
            if self.normalises(l):
                norm, at = layers[l].norm, &self.offsets[l]
                finite &= self.unpack_vector(statistics + at.mean, norm.running_mean, self.sizes[l + 1])
                finite &= self.unpack_vector(statistics + at.variance, norm.running_variance, self.sizes[l + 1])
        return finite

    cdef int check_rows(self, InputRows rows) except -1:
        """ValueError if the first layer cannot take this kind of input."""
        if rows.codes is not None and self.adds_input(0):
            raise ValueError("codes cannot be added to a layer's output: the first layer must not be residual")
        if self.embedding and rows.codes is None:
            raise ValueError("an embedding takes coded rows: X must be Codes")
        if self.embedding and rows.codes.c.n_numbers + rows.codes.c.n_categories != self.n_features():
            raise ValueError(
                f"the network embeds {self.n_features()} features, the codes have "
                f"{rows.codes.c.n_numbers + rows.codes.c.n_categories}"
            )
        return 0

    cdef int read_targets(self, fm_targets *targets, int loss, Py_ssize_t n, y, sample_weight) except -1:
        """y (n,) or (n, O) and the weights (n,), (n, O) or None, checked, as the loss's kernels read them."""
        cdef Py_ssize_t i, O = self.sizes[self.n_layers]
        memset(targets, 0, sizeof(targets[0]))
        targets.mix = 1
        if self.k.losses[loss].target_is_class:
            targets.classes = <Py_ssize_t *> array_address(y, n, b'i', "y")
            with nogil:
                i = first_outside(targets.classes, n, O)
            if i < n:
                raise ValueError(f"y must lie in [0, {O}), got {targets.classes[i]}")
        elif getattr(y, "dtype", None) == numpy.uint8:
            targets.bytes = <uint8_t *> array_address(y, n * O, b'B', "y")
        else:
            targets.values = array_address(y, n * O, self.kind, "y")
        if sample_weight is None:
            return 0
        if getattr(sample_weight, "ndim", 1) == 2 and targets.classes == NULL:
            targets.output_weights = <double *> array_address(sample_weight, n * O, b'd', "sample_weight")
        else:
            targets.weights = <double *> array_address(sample_weight, n, b'd', "sample_weight")
        return 0
