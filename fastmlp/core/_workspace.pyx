"""Workspace: a training run's memory and work items. OptimizerPanels: the optimizer's state, which outlives the run.

Layers and optimizer state are in panels, and so are the activations and gradients of a micro-batch.
"""

import numpy

cimport cython
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memset

from fastmlp.core._arrays cimport Buffer, InputRows, Reserve, are_finite, array_address
from fastmlp.core._csrc cimport *
from fastmlp.core._plan cimport Plan

__all__ = ["OptimizerPanels"]

# Rows of a micro-batch: with more, a layer's output has left L2 when the next layer reads it. Very large networks take
# fewer, so that signals need not wait long.
cdef Py_ssize_t MAX_MICRO_BATCH_ROWS = 512
cdef Py_ssize_t MIN_MICRO_BATCH_ROWS = 128
cdef double MICRO_BATCH_OPERATIONS = 5e9
# Cost of a panel of a bias, where a full panel's row of weights costs 32; measured on Zen 5 with batches of 64 and 200.
cdef Py_ssize_t VECTOR_COST = 70


@cython.final
cdef class OptimizerPanels:
    """The state of an optimizer, in panels as a Trainer leaves it. Nobody changes it then: copies share it.

    `numpy.asarray` makes the flat arrays (n_state, n_parameters) of it, and a pickle holds these.

    Parameters
    ----------
    plan : Plan
        Of the network. A new state is zero, and takes no memory.
    n_state : int
        Number of arrays.
    reserve : Reserve, default=None
        Where its memory returns to, once it has any.

    Attributes
    ----------
    reserve : Reserve or None
    shape : tuple of int
    dtype : numpy.dtype
    """

    def __cinit__(self, Plan plan not None, int n_state, Reserve reserve=None):
        self.plan, self.n_state, self.reserve, self.buffers = plan, n_state, reserve, []
        self.n_bytes = self.place(NULL, 0)

    cdef char *array(self, int s) except NULL:
        return <char *> (<Buffer> self.buffers[s]).at

    cdef int allocate(self, fm_layer *layers) except -1:
        """Take memory, which is not zero if it comes from the reserve; the layers' state is there."""
        cdef int s
        self.buffers = [Buffer(self.n_bytes, self.reserve is None, self.reserve) for _ in range(self.n_state)]
        for s in range(self.n_state):
            self.place(layers, s)
        return 0

    cdef Py_ssize_t place(self, fm_layer *layers, int s) except -1:
        """Let array s be the layers' state; returns its bytes. With layers = NULL, only count them.

        Rows of panels follow each other without gaps, so that each begins at a multiple of two vectors.
        """
        cdef Py_ssize_t used = 0, row, units
        cdef char *at = NULL if layers == NULL else self.array(s)
        cdef int l, layer
        for l in range(self.plan.n_matrices):
            layer = self.plan.layer_of(l)
            row = self.plan.padded(self.plan.columns(l)) * self.plan.k.element_size
            units = self.plan.padded(self.plan.sizes[layer + 1]) * self.plan.k.element_size
            if layers != NULL:
                layers[l].W_state[s], layers[l].b_state[s] = at + used, at + used + self.plan.sizes[layer] * row
            used += self.plan.sizes[layer] * row + units
            if self.plan.normalises(l):
                if layers != NULL:
                    layers[l].norm.scale_state[s] = at + used
                used += units
        return used

    cdef int clear(self) except -1:
        """Set all numbers to zero."""
        cdef int s
        for s in range(len(self.buffers)):
            memset(self.array(s), 0, self.n_bytes)
        return 0

    cdef bint fits(self, OptimizerPanels other) noexcept:
        """Whether both have the same layout."""
        return (self.n_state == other.n_state and self.plan.layer_sizes == other.plan.layer_sizes
                and self.plan.dtype == other.plan.dtype and self.plan.batch_norm == other.plan.batch_norm
                and self.plan.embedding == other.plan.embedding and self.plan.n_members == other.plan.n_members)

    @property
    def shape(self):
        return self.n_state, self.plan.n_parameters

    @property
    def dtype(self):
        return self.plan.numpy_dtype

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("OptimizerPanels cannot become an array without a copy")
        array = self.flat()
        return array if dtype is None else array.astype(dtype, copy=False)

    cdef object flat(self):
        """The flat arrays (n_state, n_parameters)."""
        cdef Buffer layers = Buffer(self.plan.n_matrices * sizeof(fm_layer))
        cdef Buffer norms = Buffer(self.plan.n_matrices * sizeof(fm_batch_norm))
        cdef fm_layer *layer = <fm_layer *> layers.at
        cdef Py_ssize_t step = self.plan.n_parameters * self.plan.k.element_size
        cdef char *at
        cdef int l, s
        array = numpy.zeros(self.shape, self.dtype)
        at = <char *> array_address(array, array.size, self.plan.kind, "array", True)
        for l in range(self.plan.n_matrices):
            self.plan.shape(&layer[l], l)
            layer[l].norm = &(<fm_batch_norm *> norms.at)[l] if self.plan.normalises(l) else NULL
        for s in range(len(self.buffers)):
            self.place(layer, s)
            with nogil:
                self.plan.unpack(at + s * step, layer, s)
        return array

    def is_finite(self) -> bool:
        """Whether all numbers are finite."""
        cdef Py_ssize_t n = self.n_bytes // self.plan.k.element_size
        cdef int s
        for s in range(len(self.buffers)):
            if not are_finite(self.array(s), n, self.plan.k.element_size):  # perhaps in a column of padding
                return bool(numpy.isfinite(numpy.asarray(self)).all())
        return True

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return numpy.asarray, (numpy.asarray(self),)


@cython.final
@cython.no_gc_clear  # the state must still be there when this is deallocated
cdef class Workspace:
    """Memory of a training run: layers in panels, optimizer state, activations of a micro-batch; and its work items."""

    def __cinit__(self, Plan plan, int n_state, Py_ssize_t batch_size, int n_threads, dropout, layer_rates, factors,
                  input_scaling, bint clips, Reserve reserve):
        cdef int l, kind
        self.plan, self.k, self.n_layers, self.n_matrices = plan, plan.k, plan.n_layers, plan.n_matrices
        self.n_state, self.n_threads, self.buffers, self.reserve = n_state, n_threads, [], reserve
        self.rates = <double *> self.allocate(self.n_matrices * sizeof(double))
        self.first_learning = self.n_layers
        for l in range(self.n_matrices - 1, -1, -1):
            self.rates[l] = layer_rates[plan.layer_of(l)]
            self.first_learning = l if self.rates[l] > 0 else self.first_learning
        self.dropout = <double *> self.allocate(self.n_layers * sizeof(double))
        for l in range(self.n_layers):
            self.dropout[l] = dropout[l]
        self.factors = <Factors *> self.allocate(2 * self.n_matrices * sizeof(Factors))
        for l in range(self.n_matrices):
            for kind in range(2):
                rate, epsilon, decay = (1.0, 1.0, 1.0) if factors is None else factors[plan.layer_of(l)][kind]
                self.factors[2 * l + kind] = Factors(self.rates[l] * rate, epsilon, decay)
        self.micro_batch_rows = <Py_ssize_t> max(
            MIN_MICRO_BATCH_ROWS, min(MAX_MICRO_BATCH_ROWS, MICRO_BATCH_OPERATIONS / (6.0 * plan.n_parameters))
        )
        self.micro_batch_rows = max(1, self.micro_batch_rows // plan.n_members)
        for l in range(self.n_layers):
            if plan.normalises(l) and self.rates[l] > 0:
                self.micro_batch_rows = batch_size  # statistics are those of a whole batch
        cdef bint carries = batch_size > self.micro_batch_rows
        self.micro_batch_rows = min(batch_size, self.micro_batch_rows)
        self.check_size()
        self.allocate_layers()
        if input_scaling is not None:
            rate, epsilon, decay = input_scaling
            self.scaling_factors = Factors(self.rates[0] * rate, epsilon, decay)
            self.allocate_scaling()
        self.list_segments()
        self.list_items()
        # Phase 1 keeps a chunk's targets and outputs there, or a chunk of weights; phase 2 an item's gradient. In whole
        # cache lines.
        self.scratch_bytes = max(
            2 * FM_CHUNK_ROWS * (plan.sizes[self.n_layers] + 1), FM_BLOCK_ROWS * self.k.panel, self.k.scratch_size,
            FM_MEMBER_ROWS * self.k.panel * plan.n_features() if plan.n_members > 1 else 0
        )
        self.scratch_bytes = (self.scratch_bytes * self.k.element_size + 127) // 64 * 64
        self.scratch = <char *> self.allocate(n_threads * self.scratch_bytes)
        self.allocate_profiles()
        self.row_losses = <double *> self.allocate(self.micro_batch_rows * plan.n_members * sizeof(double))
        if carries or clips or self.unscaled != NULL:
            self.gradients = <char *> self.allocate(self.n_items * FM_BLOCK_ROWS * self.k.panel * self.k.element_size)
        if clips:
            self.squares = <double *> self.allocate(self.n_items * self.k.panel * sizeof(double))

    cdef Py_ssize_t stride_of(self, int l) noexcept nogil:
        """Stride of the panels over the batch of layer l; members share those of their embedding."""
        return self.members.x_stride if l == 0 else self.stride

    cdef Py_ssize_t learning_rows(self, int matrix, Py_ssize_t count) noexcept nogil:
        """Rows that a matrix of weights learns from, of `count` rows of the input: behind the layer that multiplies the
        embedding, shared layers learn from each member's."""
        return count * self.plan.n_members if 1 < matrix < self.n_layers - 1 else count

    cdef int check_size(self) except -1:
        """MemoryError where sizes in bytes, of a batch or of threads, could overflow later; a Plan's own cannot."""
        rows, threads, size = self.micro_batch_rows, self.n_threads, self.k.element_size  # Python numbers
        rows *= self.plan.n_members
        widths = sum([self.plan.padded(units) for units in self.plan.layer_sizes])
        n_bytes = size * (2 * rows * widths + 2 * threads * FM_CHUNK_ROWS * self.plan.layer_sizes[self.n_layers])
        if n_bytes > 2**47:
            raise MemoryError(
                f"batches of {rows} rows on {threads} threads need at least {n_bytes / 2**30:,.1f} GiB of working "
                f"memory for layers {self.plan.layer_sizes}"
            )
        return 0

    cdef void *allocate(self, Py_ssize_t n_bytes, bint zeroed=True) except NULL:
        cdef Buffer new = Buffer(n_bytes, zeroed, self.reserve)
        self.buffers.append(new)
        return new.at

    cdef int free(self, void *memory) except -1:
        self.buffers = [buffer for buffer in self.buffers if (<Buffer> buffer).at != memory]
        return 0

    cdef int allocate_layers(self) except -1:
        """Panels for weights, state, and a micro-batch's activations and gradients.

        An odd number of rows between panels keeps a row's pieces out of a common cache set.
        """
        cdef Py_ssize_t size = self.k.element_size, O, batch
        cdef fm_layer *layer
        cdef bint learns, hidden
        cdef int l
        self.stride = (self.micro_batch_rows * self.plan.n_members | 1) * self.k.panel
        self.members.x_stride = (self.micro_batch_rows | 1) * self.k.panel
        self.layers = <fm_layer *> self.allocate(self.n_matrices * sizeof(fm_layer))
        for l in range(self.n_layers):
            layer = &self.layers[l]
            self.plan.shape(layer, l)
            learns, hidden = self.rates[l] > 0, l < self.n_layers - 1
            O = self.plan.padded(layer.fan_out)
            batch = O // self.k.panel * self.stride_of(l) * size
            layer.W = self.allocate(layer.fan_in * self.plan.padded(self.plan.columns(l)) * size, self.reserve is None)
            layer.b = self.allocate(O * size)
            layer.x = self.layers[l - 1].out if l > 0 else NULL  # of the first layer: see make_room_for_input
            layer.dz = self.allocate(batch)
            layer.y = layer.dz
            if self.plan.normalises(l):
                self.allocate_norm(layer, O * size, learns)
            if hidden:
                layer.y = self.allocate(batch)
                if self.k.activations[layer.activation].from_input or (layer.norm != NULL and learns):
                    layer.z = self.allocate(batch)
                layer.residual = self.plan.adds_input(l)
                layer.dropout_rate, layer.stream, layer.rng = self.dropout[l + 1], l + 1, &self.rng
                if layer.dropout_rate > 0:
                    layer.dropout_mask = self.allocate(batch)
                if layer.residual:
                    layer.dout = self.allocate(batch)
            layer.out = self.allocate(batch) if layer.residual or layer.dropout_rate > 0 else layer.y
        self.allocate_outputs(&self.layers[self.n_layers - 1])
        self.state = OptimizerPanels(self.plan, self.n_state, self.reserve)
        self.state.allocate(self.layers)
        self.blank = self.reserve is None
        return 0

    cdef int allocate_scaling(self) except -1:
        """The first layer's weights before their rows are scaled, the scaling, its optimizer state and its gradient."""
        cdef Py_ssize_t size = self.k.element_size, n_bytes = self.plan.padded(self.plan.sizes[0]) * size
        cdef fm_layer *first = &self.layers[0]
        cdef int s
        self.unscaled = self.allocate(first.fan_in * self.plan.padded(first.fan_out) * size)
        self.scaling.fan_in, self.scaling.fan_out = 1, first.fan_in
        self.scaling.x = self.scaling.dz = first.dz  # of no rows
        self.scaling.W, self.scaling_gradient = self.allocate(n_bytes), self.allocate(n_bytes)
        for s in range(self.n_state):
            self.scaling.W_state[s] = self.allocate(n_bytes)
        return 0

    cdef fm_layer unscaled_layer(self) noexcept nogil:
        """The first layer with its weights before their rows are scaled."""
        cdef fm_layer layer = self.layers[0]
        layer.W = self.unscaled
        return layer

    cdef int allocate_outputs(self, const fm_layer *first) except -1:
        """The output layers of further members, and all members' scalings. The first one's batch has all their rows."""
        cdef Py_ssize_t size = self.k.element_size, O = self.plan.padded(first.fan_out)
        cdef int l
        if self.plan.n_members > 1:
            self.scalings = <char *> self.allocate(self.plan.scalings_bytes())
            self.patterns = <char *> self.allocate(self.plan.members_bytes())
        for l in range(self.n_layers, self.n_matrices):
            self.layers[l] = first[0]
            self.layers[l].W = self.allocate(first.fan_in * O * size, self.reserve is None)
            self.layers[l].b = self.allocate(O * size)
        return 0

    cdef int allocate_norm(self, fm_layer *layer, Py_ssize_t n_bytes, bint learns) except -1:
        cdef fm_batch_norm *norm = <fm_batch_norm *> self.allocate(sizeof(fm_batch_norm))
        layer.norm = norm
        norm.scale = self.allocate(n_bytes)
        norm.running_mean = self.allocate(n_bytes)
        norm.running_variance = self.allocate(n_bytes)
        if learns:
            norm.inverse_std = self.allocate(n_bytes)
            norm.d_scale, norm.d_b = self.allocate(n_bytes), self.allocate(n_bytes)
            norm.batch_mean, norm.batch_variance = self.allocate(n_bytes), self.allocate(n_bytes)
        else:
            layer.scale, layer.shift = self.allocate(n_bytes), self.allocate(n_bytes)
        return 0

    cdef int allocate_profiles(self) except -1:
        cdef int t
        self.profiles = <fm_profile *> self.allocate(self.n_threads * sizeof(fm_profile))
        if FM_HAS_PROFILE:
            for t in range(self.n_threads):
                self.profiles[t].seconds = <double *> self.allocate(FM_N_SECTIONS * self.n_layers * sizeof(double))
        return 0

    cdef int list_segments(self) except -1:
        """A segment ends with a layer that is normalised by the batch, or with the last layer."""
        cdef int l
        self.segment_ends = <int *> self.allocate(self.n_layers * sizeof(int))
        for l in range(self.n_layers):
            if l == self.n_layers - 1 or (self.layers[l].norm != NULL and self.layers[l].scale == NULL):
                self.segment_ends[self.n_segments] = l
                self.n_segments += 1
        return 0

    cdef int list_items(self) except -1:
        """Work items of phase 2, small enough to share out and large enough to stream; none of layers with rate 0."""
        cdef int l
        for l in range(self.n_matrices):
            self.add_items(l, NULL)
        self.items = <WorkItem *> self.allocate(self.n_items * sizeof(WorkItem))
        self.penalties = <double *> self.allocate(self.n_items * self.k.panel * sizeof(double))
        self.n_items = self.total_cost = self.input_cost = 0
        for l in range(self.n_matrices):
            self.add_items(l, self.items)
        return 0

    cdef Py_ssize_t row_cost(self, Py_ssize_t columns) noexcept:
        """Cost of a row of weights, gradient and update, in a panel of this many columns: 32 for a full one."""
        return 32 if columns > self.k.vector else min(18, 5 + 16 * columns // self.k.vector)

    cdef int add_items(self, int l, WorkItem *items) except -1:
        """Append the items of layer l; with items = NULL, only count them."""
        cdef fm_layer *layer = &self.layers[l]
        cdef Py_ssize_t panel = self.k.panel, columns, i, p, cost
        # A row of weights costs two multiply-adds for each row that it learns from, and as much as 60 for its update.
        cdef double share = (60 + 2 * self.learning_rows(l, self.micro_batch_rows)) / (60.0 + 2 * self.micro_batch_rows)
        cdef WorkItem item
        if self.rates[l] == 0:
            return 0
        item.layer = l
        for item.kind in (WEIGHTS, BIAS, SCALE, INPUT_SCALE):
            if item.kind == SCALE and layer.norm == NULL:
                continue
            if item.kind == INPUT_SCALE and (l > 0 or self.unscaled == NULL):
                continue
            columns = self.plan.columns(l) if item.kind == WEIGHTS else layer.fan_out
            if item.kind == INPUT_SCALE:
                columns = layer.fan_in
            for i in range(0, layer.fan_in if item.kind == WEIGHTS else 1, FM_BLOCK_ROWS):
                for p in range(self.plan.padded(columns) // panel):
                    item.i0, item.p = i, p
                    item.n = min(FM_BLOCK_ROWS, layer.fan_in - i) if item.kind == WEIGHTS else 0
                    cost = item.n * self.row_cost(columns - p * panel) if item.kind == WEIGHTS else VECTOR_COST
                    cost = <Py_ssize_t> (cost * share)
                    item.cost = self.total_cost + cost // 2
                    self.total_cost += cost
                    if l == 0 and item.kind == WEIGHTS:
                        self.input_cost += cost
                    if items != NULL:
                        items[self.n_items] = item
                    self.n_items += 1
        return 0

    cdef int make_room_for_input(self, bint mixes) except -1:
        """x of the first layer, which CSR input does not need; and as much again for mixup's partners."""
        cdef Py_ssize_t panels = self.plan.padded(self.plan.sizes[0]) // self.k.panel
        cdef Py_ssize_t n_bytes = panels * self.stride * self.k.element_size
        if self.layers[0].x == NULL:
            self.layers[0].x = self.allocate(n_bytes)
        if mixes and self.partners == NULL:
            self.partners = <char *> self.allocate(n_bytes)
        return 0

    cdef int make_room_for_columns(self, InputRows rows, Py_ssize_t m, list kept) except -1:
        """Room for the stored elements of a micro-batch, by column, in each thread; `kept` holds it for the epoch."""
        cdef Py_ssize_t longest, t, n
        cdef Buffer new
        with nogil:
            longest = rows.longest_row()
        n = longest * min(self.micro_batch_rows, m)
        new = Buffer(self.n_threads * sizeof(fm_csc))
        kept.append(new)
        self.columns = <fm_csc *> new.at
        for t in range(self.n_threads):
            new = Buffer(
                (self.plan.sizes[0] + 1) * sizeof(Py_ssize_t) + n * (self.k.element_size + sizeof(int32_t)), False
            )
            kept.append(new)
            self.columns[t].indptr = <Py_ssize_t *> new.at
            self.columns[t].data = self.columns[t].indptr + self.plan.sizes[0] + 1
            self.columns[t].indices = <int32_t *> (<char *> self.columns[t].data + n * self.k.element_size)
        return 0

    cdef int make_room_for_codes(self, InputRows rows, Py_ssize_t m, list kept) except -1:
        """Room for a micro-batch's codes, by column, and for the sums of the first layer's weights before each bin."""
        cdef const fm_codes *X = &rows.codes.c
        cdef Py_ssize_t row = self.plan.padded(self.plan.columns(0)) * self.k.element_size
        cdef Buffer sums = Buffer(X.offset[X.n_numbers] * row, False)
        # Per row of weights: of dense input 2 multiply-adds for each row of the batch, of codes some 8 for each element
        # in its column; in both cases the update, which costs as much as 60.
        cdef double m_rows = min(self.micro_batch_rows, m), features = X.n_numbers + X.n_categories
        self.make_room_for_columns(rows, m, kept)
        kept.append(sums)
        self.bin_sums = <char *> sums.at
        self.input_share = min(1, (60 + 8 * m_rows * features / self.plan.sizes[0]) / (60 + 2 * m_rows))
        return 0

    cdef int load(self, parameters, state, statistics) except -1:
        """Copy flat arrays in: see Trainer.load."""
        cdef char *at = <char *> array_address(parameters, self.plan.n_parameters, self.plan.kind, "parameters")
        cdef fm_layer *layer
        cdef int l
        self.load_state(state)
        with nogil:
            self.plan.pack(self.layers, at, -1)
        if self.unscaled != NULL:
            self.reset_scaling()
        if self.scalings != NULL:
            self.load_members(at + self.plan.scalings)
        if self.plan.batch_norm:
            at = <char *> array_address(statistics, self.plan.n_statistics, self.plan.kind, "statistics")
            self.plan.pack_statistics(self.layers, at)
        for l in range(self.n_layers):
            layer = &self.layers[l]
            if layer.scale != NULL:
                self.k.fold_batch_norm(<void *> layer.scale, <void *> layer.shift, layer.norm.scale, layer.b,
                                       layer.norm.running_mean, layer.norm.running_variance,
                                       self.plan.padded(layer.fan_out))
        return 0

    cdef void reset_scaling(self) noexcept:
        """Begin with a scaling of ones, and without a memory of its updates."""
        cdef Py_ssize_t columns = self.plan.padded(self.plan.sizes[0]), size = self.k.element_size, i
        cdef int s
        memcpy(self.unscaled, self.layers[0].W, self.plan.sizes[0] * self.plan.padded(self.plan.sizes[1]) * size)
        for i in range(columns):
            if size == 8:
                (<double *> self.scaling.W)[i] = 1
            else:
                (<float *> self.scaling.W)[i] = 1
        for s in range(self.n_state):
            memset(self.scaling.W_state[s], 0, columns * size)

    cdef int load_members(self, const char *scalings) except -1:
        """Copy scalings in, and take memory for the sums over the members of each of their patterns."""
        cdef fm_members *members = &self.members
        memcpy(self.scalings, scalings, self.plan.scalings_bytes())
        self.plan.describe_members(members, self.scalings, self.patterns)
        if members.n_patterns > self.most_patterns and self.rates[1] + self.rates[0] > 0:
            if self.member_sums != NULL:
                self.free(self.member_sums)
            self.most_patterns = members.n_patterns
            self.sums_stride = (self.most_patterns * self.micro_batch_rows | 1) * self.k.panel
            self.member_sums = <char *> self.allocate(
                self.plan.padded(self.plan.sizes[2]) // self.k.panel * self.sums_stride * self.k.element_size
            )
        return 0

    cdef int load_state(self, state) except -1:
        """Take over an earlier state: OptimizerPanels, flat arrays, or None for zeros."""
        cdef Py_ssize_t n = self.plan.n_parameters, size = self.k.element_size
        cdef char *at
        cdef int s
        self.source = None
        if isinstance(state, OptimizerPanels):
            if not self.state.fits(state):
                raise ValueError(f"state must be of shape {self.state.shape} and for this network, got {state.shape}")
            if not (<OptimizerPanels> state).buffers:
                state = None
        if state is None:
            if not self.blank:
                self.state.clear()
            self.blank = True
            return 0
        if self.unscaled != NULL:
            raise ValueError("a run with input_scaling begins without optimizer state: it lacks that of the scaling")
        self.blank = False
        if isinstance(state, OptimizerPanels):
            self.follow(state)
        else:
            at = <char *> array_address(state, n * self.n_state, self.plan.kind, "state")
            with nogil:
                for s in range(self.n_state):
                    self.plan.pack(self.layers, at + s * n * size, s)
        return 0

    cdef int follow(self, OptimizerPanels source) except -1:
        """Let the first update of each weight read its state from an earlier run's: a copy costs more when it is made
        before. Layers that do not learn get theirs here."""
        cdef Py_ssize_t n_bytes
        cdef fm_layer *layer
        cdef char *end
        cdef int l, s
        self.source = source
        for s in range(self.n_state):
            self.distance[s] = source.array(s) - self.state.array(s)
            for l in range(self.n_matrices):
                if self.rates[l] == 0:
                    layer = &self.layers[l]
                    end = self.state.array(s) + self.state.n_bytes
                    if l < self.n_matrices - 1:
                        end = <char *> self.layers[l + 1].W_state[s]
                    n_bytes = end - <char *> layer.W_state[s]
                    memcpy(layer.W_state[s], <char *> layer.W_state[s] + self.distance[s], n_bytes)
        return 0

    cdef void fetch_state(self, const WorkItem *item) noexcept nogil:
        """Copy an item's state from the source."""
        cdef Py_ssize_t row = self.k.panel * self.k.element_size, n = max(item.n, 1)
        cdef fm_layer *layer = &self.layers[item.layer]
        cdef char *to
        cdef int s
        for s in range(self.n_state):
            if item.kind == WEIGHTS:
                to = <char *> layer.W_state[s] + (item.p * layer.fan_in + item.i0) * row
            else:
                to = <char *> (layer.b_state[s] if item.kind == BIAS else layer.norm.scale_state[s]) + item.p * row
            memcpy(to, to + self.distance[s], n * row)

    cdef int settle_state(self) except -1:
        """Copy from the source what no update has read."""
        cdef int s
        if self.source is not None:
            for s in range(self.n_state):
                memcpy(self.state.array(s), self.source.array(s), self.state.n_bytes)
            self.source = None
        return 0

    cdef bint store(self, parameters, state, statistics) except -1:
        """Copy out into flat arrays: see Trainer.store."""
        cdef Py_ssize_t n = self.plan.n_parameters, size = self.k.element_size
        cdef char *at = <char *> array_address(parameters, n, self.plan.kind, "parameters", True)
        cdef bint finite
        cdef int s
        with nogil:
            finite = self.plan.unpack(at, self.layers, -1)
        if self.scalings != NULL:
            memcpy(at + self.plan.scalings, self.scalings, self.plan.scalings_bytes())
        if state is not None:
            self.settle_state()
            at = <char *> array_address(state, n * self.n_state, self.plan.kind, "state", True)
            with nogil:
                for s in range(self.n_state):
                    self.plan.unpack(at + s * n * size, self.layers, s)
        if self.plan.batch_norm and statistics is not None:
            at = <char *> array_address(statistics, self.plan.n_statistics, self.plan.kind, "statistics", True)
            finite &= self.plan.unpack_statistics(at, self.layers)
        return finite

    cdef OptimizerPanels finish(self):
        """The state; the weights' memory is freed: see Trainer.finish."""
        cdef int l
        self.settle_state()
        self.finished = True
        for l in range(self.n_matrices):
            self.free(self.layers[l].W)
        return self.state

    cdef int make_room_for_gradients(self) except -1:
        """The gradient of all items, which a step of one micro-batch does not keep."""
        if self.gradients == NULL:
            self.gradients = <char *> self.allocate(self.n_items * FM_BLOCK_ROWS * self.k.panel * self.k.element_size)
        return 0

    cdef void copy_gradients(self, char *flat, bint into) noexcept nogil:
        """The gradient of all items out of a flat array (n_parameters,), or into it."""
        cdef Py_ssize_t size = self.k.element_size, panel = self.k.panel * size, i, r, row, n_bytes
        cdef const WorkItem *item
        cdef char *own
        cdef char *at
        for i in range(self.n_items):
            item, n_bytes = &self.items[i], self.item_columns(i) * size
            own = self.gradients + i * FM_BLOCK_ROWS * panel
            row = self.plan.columns(item.layer) * size
            at = flat + self.plan.offsets[item.layer].b + item.p * panel
            if item.kind == WEIGHTS:
                at = flat + self.plan.offsets[item.layer].W + item.i0 * row + item.p * panel
            for r in range(max(item.n, 1)):
                memcpy(own + r * panel if into else at + r * row, at + r * row if into else own + r * panel, n_bytes)

    cdef Py_ssize_t first_item(self, int thread, int n_threads) noexcept nogil:
        """Items are shared out by cost: the first one whose middle lies in this thread's share or after it."""
        cdef Py_ssize_t low = 0, high = self.n_items, middle, share, saved
        if thread == n_threads:
            return self.n_items
        saved = <Py_ssize_t> (self.input_cost * (1 - self.input_share))
        share = (self.total_cost - saved) * thread // n_threads
        if share < self.input_cost - saved:
            share = <Py_ssize_t> (share / self.input_share)
        else:
            share += saved
        while low < high:
            middle = (low + high) // 2
            if self.items[middle].cost < share:
                low = middle + 1
            else:
                high = middle
        return low

    cdef Py_ssize_t item_columns(self, Py_ssize_t i) noexcept nogil:
        """Columns of an item that are not padding."""
        cdef const WorkItem *item = &self.items[i]
        cdef Py_ssize_t columns = self.layers[item.layer].fan_out
        if item.kind == WEIGHTS:
            columns = self.plan.columns(item.layer)
        elif item.kind == INPUT_SCALE:
            columns = self.scaling.fan_out
        return min(self.k.panel, columns - item.p * self.k.panel)

    cdef Py_ssize_t count_columns(self) noexcept nogil:
        """Columns of all items."""
        cdef Py_ssize_t i, total = 0
        for i in range(self.n_items):
            total += self.item_columns(i)
        return total

    cdef int copy_penalties(self, array, bint into) except -1:
        """The penalties of all items' columns, without padding, into the trainer from an array, or out of it."""
        cdef Py_ssize_t i, columns
        cdef double *at = <double *> array_address(array, self.count_columns(), b'd', "penalties", not into)
        cdef double *own
        for i in range(self.n_items):
            columns, own = self.item_columns(i), self.penalties + i * self.k.panel
            memcpy(own if into else at, at if into else own, columns * sizeof(double))
            at += columns
        return 0

    cdef double sum_in_order(self, const double *numbers) noexcept nogil:
        """Sum over the items' columns, by layer, block of rows and column, in four chains (column % 4): the same order
        for every panel width."""
        cdef double[4] chain
        cdef Py_ssize_t i, j, columns
        chain[0] = chain[1] = chain[2] = chain[3] = 0
        for i in range(self.n_items):
            columns = self.item_columns(i)
            for j in range(columns):
                chain[j % 4] += numbers[i * self.k.panel + j]
        return (chain[0] + chain[1]) + (chain[2] + chain[3])
