"""Workspace: the memory of a training run and its work items.

Layers and optimizer state are in panels, and so are the activations and gradients of a micro-batch.
"""

cimport cython
from libc.stdint cimport int32_t
from libc.string cimport memcpy

from fastmlp.core._arrays cimport Buffer, InputRows, array_address
from fastmlp.core._csrc cimport *
from fastmlp.core._plan cimport Plan

# Rows of a micro-batch: with more, a layer's output has left L2 when the next layer reads it. Very large networks take
# fewer, so that signals need not wait long.
cdef Py_ssize_t MAX_MICRO_BATCH_ROWS = 512
cdef Py_ssize_t MIN_MICRO_BATCH_ROWS = 128
cdef double MICRO_BATCH_OPERATIONS = 5e9
# Cost of a panel of a bias, where a full panel's row of weights costs 32; measured on Zen 5 with batches of 64 and 200.
cdef Py_ssize_t VECTOR_COST = 70


@cython.final
cdef class Workspace:
    """Memory of a training run: layers in panels, optimizer state, activations of a micro-batch; and its work items."""

    def __cinit__(self, Plan plan, int n_state, Py_ssize_t batch_size, int n_threads, dropout, layer_rates, bint clips):
        cdef int l
        self.plan, self.k, self.n_layers = plan, plan.k, plan.n_layers
        self.n_state, self.n_threads, self.buffers = n_state, n_threads, []
        self.rates = <double *> self.allocate(self.n_layers * sizeof(double))
        self.first_learning = self.n_layers
        for l in range(self.n_layers - 1, -1, -1):
            self.rates[l] = layer_rates[l]
            self.first_learning = l if self.rates[l] > 0 else self.first_learning
        self.micro_batch_rows = <Py_ssize_t> max(
            MIN_MICRO_BATCH_ROWS, min(MAX_MICRO_BATCH_ROWS, MICRO_BATCH_OPERATIONS / (6.0 * plan.n_parameters))
        )
        for l in range(self.n_layers):
            if plan.normalises(l) and self.rates[l] > 0:
                self.micro_batch_rows = batch_size  # statistics are those of a whole batch
        cdef bint carries = batch_size > self.micro_batch_rows
        self.micro_batch_rows = min(batch_size, self.micro_batch_rows)
        self.check_size()
        self.allocate_layers(dropout)
        self.list_segments()
        self.list_items()
        # Phase 1 keeps a chunk's targets and outputs there, or a chunk of weights; phase 2 an item's gradient. In whole
        # cache lines.
        self.scratch_bytes = max(
            2 * FM_CHUNK_ROWS * (plan.sizes[self.n_layers] + 1), FM_BLOCK_ROWS * self.k.panel, self.k.scratch_size
        )
        self.scratch_bytes = (self.scratch_bytes * self.k.element_size + 127) // 64 * 64
        self.scratch = <char *> self.allocate(n_threads * self.scratch_bytes)
        self.allocate_profiles()
        self.row_losses = <double *> self.allocate(self.micro_batch_rows * sizeof(double))
        if carries or clips:
            self.gradients = <char *> self.allocate(self.n_items * FM_BLOCK_ROWS * self.k.panel * self.k.element_size)
        if clips:
            self.squares = <double *> self.allocate(self.n_items * self.k.panel * sizeof(double))

    cdef int check_size(self) except -1:
        """MemoryError where sizes in bytes, of a batch or of threads, could overflow later; a Plan's own cannot."""
        rows, threads, size = self.micro_batch_rows, self.n_threads, self.k.element_size  # Python numbers
        widths = sum([self.plan.padded(units) for units in self.plan.layer_sizes])
        n_bytes = size * (2 * rows * widths + 2 * threads * FM_CHUNK_ROWS * self.plan.layer_sizes[self.n_layers])
        if n_bytes > 2**47:
            raise MemoryError(
                f"batches of {rows} rows on {threads} threads need at least {n_bytes / 2**30:,.1f} GiB of working "
                f"memory for layers {self.plan.layer_sizes}"
            )
        return 0

    cdef void *allocate(self, Py_ssize_t n_bytes) except NULL:
        cdef Buffer new = Buffer(n_bytes)
        self.buffers.append(new)
        return new.at

    cdef int free(self, void *memory) except -1:
        self.buffers = [buffer for buffer in self.buffers if (<Buffer> buffer).at != memory]
        return 0

    cdef int allocate_layers(self, dropout) except -1:
        """Panels for weights, state, and a micro-batch's activations and gradients.

        An odd number of rows between panels keeps a row's pieces out of a common cache set.
        """
        cdef Py_ssize_t size = self.k.element_size, rows = self.micro_batch_rows | 1, O, batch
        cdef fm_layer *layer
        cdef bint learns, hidden
        cdef int l, s
        self.stride = rows * self.k.panel
        self.layers = <fm_layer *> self.allocate(self.n_layers * sizeof(fm_layer))
        for l in range(self.n_layers):
            layer = &self.layers[l]
            layer.fan_in, layer.fan_out = self.plan.sizes[l], self.plan.sizes[l + 1]
            layer.activation = self.plan.activation_rows[l]
            learns, hidden = self.rates[l] > 0, l < self.n_layers - 1
            O = self.plan.padded(layer.fan_out)
            batch = O // self.k.panel * self.stride * size
            layer.W = self.allocate(layer.fan_in * O * size)
            layer.b = self.allocate(O * size)
            for s in range(self.n_state):
                layer.W_state[s] = self.allocate(layer.fan_in * O * size)
                layer.b_state[s] = self.allocate(O * size)
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
                layer.dropout_rate, layer.stream, layer.rng = dropout[l + 1], l + 1, &self.rng
                if layer.dropout_rate > 0:
                    layer.dropout_mask = self.allocate(batch)
                if layer.residual:
                    layer.dout = self.allocate(batch)
            layer.out = self.allocate(batch) if layer.residual or layer.dropout_rate > 0 else layer.y
        return 0

    cdef int allocate_norm(self, fm_layer *layer, Py_ssize_t n_bytes, bint learns) except -1:
        cdef fm_batch_norm *norm = <fm_batch_norm *> self.allocate(sizeof(fm_batch_norm))
        cdef int s
        layer.norm = norm
        norm.scale = self.allocate(n_bytes)
        norm.running_mean = self.allocate(n_bytes)
        norm.running_variance = self.allocate(n_bytes)
        for s in range(self.n_state):
            norm.scale_state[s] = self.allocate(n_bytes)
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
        for l in range(self.n_layers):
            self.add_items(l, NULL)
        self.items = <WorkItem *> self.allocate(self.n_items * sizeof(WorkItem))
        self.penalties = <double *> self.allocate(self.n_items * self.k.panel * sizeof(double))
        self.n_items = self.total_cost = 0
        for l in range(self.n_layers):
            self.add_items(l, self.items)
        return 0

    cdef Py_ssize_t row_cost(self, Py_ssize_t columns) noexcept:
        """Cost of a row of weights, gradient and update, in a panel of this many columns: 32 for a full one."""
        return 32 if columns > self.k.vector else min(18, 5 + 16 * columns // self.k.vector)

    cdef int add_items(self, int l, WorkItem *items) except -1:
        """Append the items of layer l; with items = NULL, only count them."""
        cdef fm_layer *layer = &self.layers[l]
        cdef Py_ssize_t panel = self.k.panel, panels = self.plan.padded(layer.fan_out) // panel, i, p, cost
        cdef WorkItem item
        if self.rates[l] == 0:
            return 0
        item.layer = l
        for item.kind in (WEIGHTS, BIAS, SCALE):
            if item.kind == SCALE and layer.norm == NULL:
                continue
            for i in range(0, layer.fan_in if item.kind == WEIGHTS else 1, FM_BLOCK_ROWS):
                for p in range(panels):
                    item.i0, item.p = i, p
                    item.n = min(FM_BLOCK_ROWS, layer.fan_in - i) if item.kind == WEIGHTS else 0
                    cost = item.n * self.row_cost(layer.fan_out - p * panel) if item.kind == WEIGHTS else VECTOR_COST
                    item.cost = self.total_cost + cost // 2
                    self.total_cost += cost
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

    cdef int load(self, parameters, state, statistics) except -1:
        """Copy flat arrays in: see Trainer.load."""
        cdef Py_ssize_t n = self.plan.n_parameters, size = self.k.element_size
        cdef char *at = <char *> array_address(parameters, n, self.plan.kind, "parameters")
        cdef char *state_at = NULL
        cdef Buffer zeros = None
        cdef Py_ssize_t step = n * size if state is not None else 0  # the same zeros for each array
        cdef fm_layer *layer
        cdef int s, l
        if state is not None:
            state_at = <char *> array_address(state, n * self.n_state, self.plan.kind, "state")
        elif self.n_state:
            zeros = Buffer(n * size)
            state_at = <char *> zeros.at
        with nogil:
            self.plan.pack(self.layers, at, -1)
            for s in range(self.n_state):
                self.plan.pack(self.layers, state_at + s * step, s)
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

    cdef int store(self, parameters, state, statistics) except -1:
        """Copy out into flat arrays: see Trainer.store."""
        cdef Py_ssize_t n = self.plan.n_parameters, size = self.k.element_size
        cdef char *at = <char *> array_address(parameters, n, self.plan.kind, "parameters", True)
        cdef char *state_at = NULL
        cdef int s
        if state is not None:
            state_at = <char *> array_address(state, n * self.n_state, self.plan.kind, "state", True)
        with nogil:
            self.plan.unpack(at, self.layers, -1)
            for s in range(self.n_state if state_at != NULL else 0):
                self.plan.unpack(state_at + s * n * size, self.layers, s)
        if self.plan.batch_norm and statistics is not None:
            at = <char *> array_address(statistics, self.plan.n_statistics, self.plan.kind, "statistics", True)
            self.plan.unpack_statistics(at, self.layers)
        return 0

    cdef int finish(self, parameters, state, statistics) except -1:
        """store, freeing each array as soon as it is copied: see Trainer.finish."""
        cdef Py_ssize_t n = self.plan.n_parameters, size = self.k.element_size
        cdef char *at = NULL
        cdef int l, s
        if state is not None:
            at = <char *> array_address(state, n * self.n_state, self.plan.kind, "state", True)
        self.store(parameters, None, statistics)
        self.finished = True
        for l in range(self.n_layers):
            self.free(self.layers[l].W)
        for s in range(self.n_state):
            if at != NULL:
                with nogil:
                    self.plan.unpack(at + s * n * size, self.layers, s)
            for l in range(self.n_layers):
                self.free(self.layers[l].W_state[s])
        return 0

    cdef Py_ssize_t first_item(self, int thread, int n_threads) noexcept nogil:
        """Items are shared out by cost: the first one whose middle lies in this thread's share or after it."""
        cdef Py_ssize_t low = 0, high = self.n_items, middle, share = self.total_cost * thread // n_threads
        if thread == n_threads:
            return self.n_items
        while low < high:
            middle = (low + high) // 2
            if self.items[middle].cost < share:
                low = middle + 1
            else:
                high = middle
        return low

    cdef Py_ssize_t item_columns(self, Py_ssize_t i) noexcept nogil:
        """Columns of an item that are not padding."""
        return min(self.k.panel, self.layers[self.items[i].layer].fan_out - self.items[i].p * self.k.panel)

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
