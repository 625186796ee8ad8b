"""The memory of a training run: layers in panels, optimizer state, a batch's activations, and the list of what there is to do.

Workspace allocates, loads and stores; it refuses to compute and to know threads' ways, which is _trainer.pyx, the only one to
import it.
"""

from libc.stdint cimport int32_t

from fastmlp.core._csrc cimport *
from fastmlp.core._arrays cimport Buffer, Rows, flat
from fastmlp.core._plan cimport Plan

from fastmlp.core._dispatch import LOSSES, OPTIMIZERS

__all__ = ["Workspace"]

# Rows of a batch whose activations are kept at once: with more, what a layer has written has left L2 when the next reads it.
# Fewer where so many would take longer than a slice.
cdef Py_ssize_t SLAB_ROWS = 512
cdef Py_ssize_t SLAB_ROWS_LEAST = 128
cdef double SLAB_OPERATIONS = 5e9
# What a panel of a bias takes, where a row of weights takes 32; these figures were measured on Zen 5, batches of 64 and 200.
cdef Py_ssize_t VECTOR_COST = 70
# What a batch counts in the running averages of batch normalisation.
cdef double NORM_MOMENTUM = 0.1


cdef class Workspace:
    """See Trainer in _trainer.pyx, which names the arguments."""

    def __cinit__(self, Plan plan not None, str loss not None, str optimizer not None, Py_ssize_t batch_size,
                  int n_threads=1, *, dropout=None, layer_rates=None, double max_grad_norm=0.0):
        cdef int l
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {tuple(LOSSES)}, got {loss!r}")
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {tuple(OPTIMIZERS)}, got {optimizer!r}")
        if LOSSES[loss] != plan.output:
            raise ValueError(f"loss {loss!r} needs a plan with output {LOSSES[loss]!r}, got {plan.output!r}")
        if batch_size < 1 or n_threads < 1:
            raise ValueError(f"batch_size and n_threads must be positive, got {batch_size} and {n_threads}")
        dropout = (0.0,) * plan.n_layers if dropout is None else tuple(dropout)
        layer_rates = (1.0,) * plan.n_layers if layer_rates is None else tuple(layer_rates)
        if len(dropout) != plan.n_layers or not all(0 <= rate < 1 for rate in dropout):
            raise ValueError(f"dropout must hold {plan.n_layers} rates in [0, 1), one per layer, got {dropout}")
        if len(layer_rates) != plan.n_layers or not all(0 <= rate < float("inf") for rate in layer_rates):
            raise ValueError(f"layer_rates must hold {plan.n_layers} numbers >= 0, one per layer, got {layer_rates}")
        if not max_grad_norm >= 0:
            raise ValueError(f"max_grad_norm must be >= 0, got {max_grad_norm}")
        self.plan, self.loss, self.optimizer = plan, loss, optimizer
        self.batch_size, self.n_threads, self.max_grad_norm = batch_size, n_threads, max_grad_norm
        self.k, self.n_layers = plan.k, plan.n_layers
        self.loss_row = list(LOSSES).index(loss)
        self.rule = list(OPTIMIZERS).index(optimizer)
        self.n_state = OPTIMIZERS[optimizer]
        self.norm_momentum = 0 if optimizer == "gradient" else NORM_MOMENTUM
        self.buffers = []
        self.rates = <double *> self.buffer(self.n_layers * sizeof(double))
        self.lowest = self.n_layers
        for l in range(self.n_layers - 1, -1, -1):
            self.rates[l] = layer_rates[l]
            self.lowest = l if self.rates[l] > 0 else self.lowest
        self.slab_rows = <Py_ssize_t> max(SLAB_ROWS_LEAST, min(SLAB_ROWS, SLAB_OPERATIONS / (6.0 * plan.n_parameters)))
        for l in range(self.n_layers):
            if plan.normalises(l) and self.rates[l] > 0:
                self.slab_rows = batch_size  # statistics are of a whole batch
        self.apart = max_grad_norm > 0 or self.slab_rows > SLAB_ROWS
        self.refuse_absurd()
        self.allocate_layers(dropout)
        self.list_segments()
        self.list_units()
        # Of a thread: a chunk's targets and outputs, or a chunk of weights, in phase 1, a unit's gradient in phase 2; rounded to
        # cache lines.
        self.scratch_bytes = max(2 * FM_CHUNK_ROWS * (plan.sizes[self.n_layers] + 1), FM_BLOCK_ROWS * self.k.panel,
                                 self.k.scratch_size)
        self.scratch_bytes = (self.scratch_bytes * self.k.element_size + 127) // 64 * 64
        self.scratch = <char *> self.buffer(self.n_threads * self.scratch_bytes)
        self.allocate_profiles()
        self.values = <double *> self.buffer(min(batch_size, self.slab_rows) * sizeof(double))
        if batch_size > self.slab_rows or self.apart:
            self.sums = <char *> self.buffer(self.n_units * FM_BLOCK_ROWS * self.k.panel * self.k.element_size)
        if max_grad_norm > 0:
            self.squares = <double *> self.buffer(self.n_units * self.k.panel * sizeof(double))

    cdef int release(self, void *memory) except -1:
        """Give a buffer back; who still points to it must not look."""
        self.buffers = [buffer for buffer in self.buffers if (<Buffer> buffer).at != memory]
        return 0

    cdef int refuse_finished(self) except -1:
        if self.finished:
            raise RuntimeError("this Trainer has finished: its memory is gone")
        return 0

    cdef int refuse_absurd(self) except -1:
        """MemoryError where sizes in bytes, of a batch or of threads, could overflow further down; a Plan's own cannot."""
        rows, threads, size = min(self.batch_size, self.slab_rows), self.n_threads, self.k.element_size  # Python numbers
        widths = sum([self.plan.padded(units) for units in self.plan.layer_sizes])
        n_bytes = size * (2 * rows * widths + 2 * threads * FM_CHUNK_ROWS * self.plan.layer_sizes[self.n_layers])
        if n_bytes > 2**47:
            raise MemoryError(
                f"batches of {rows} rows on {threads} threads need at least {n_bytes / 2**30:,.1f} GiB of working memory for "
                f"layers {self.plan.layer_sizes}"
            )
        return 0

    cdef void *buffer(self, Py_ssize_t n_bytes) except NULL:
        cdef Buffer new = Buffer(n_bytes)
        self.buffers.append(new)
        return new.at

    cdef int allocate_layers(self, dropout) except -1:
        """Panels for weights, state, and a slab's activations and deltas.

        An odd number of rows between panels, so that a row's pieces do not fall into one cache set.
        """
        cdef Py_ssize_t size = self.k.element_size, rows = min(self.batch_size, self.slab_rows) | 1, O, batch
        cdef fm_layer *layer
        cdef bint learns, hidden
        cdef int l, s
        self.stride = rows * self.k.panel
        self.layers = <fm_layer *> self.buffer(self.n_layers * sizeof(fm_layer))
        self.input_rate = dropout[0]
        for l in range(self.n_layers):
            layer = &self.layers[l]
            layer.fan_in, layer.fan_out, layer.activation = self.plan.sizes[l], self.plan.sizes[l + 1], self.plan.hidden[l]
            learns, hidden = self.rates[l] > 0, l < self.n_layers - 1
            O = self.plan.padded(layer.fan_out)
            batch = O // self.k.panel * self.stride * size
            layer.W = self.buffer(layer.fan_in * O * size)
            layer.b = self.buffer(O * size)
            for s in range(self.n_state):
                layer.W_state[s] = self.buffer(layer.fan_in * O * size)
                layer.b_state[s] = self.buffer(O * size)
            layer.x = self.layers[l - 1].out if l > 0 else NULL  # of the first: see make_room_for_input
            layer.dz = self.buffer(batch)
            layer.y = layer.dz
            if self.plan.normalises(l):
                self.allocate_norm(layer, O * size, learns)
            if hidden:
                layer.y = self.buffer(batch)
                if self.k.activations[layer.activation].from_input or (layer.norm != NULL and learns):
                    layer.z = self.buffer(batch)
                layer.residual = self.plan.adds_input(l)
                layer.dropout_rate, layer.stream, layer.rng = dropout[l + 1], l + 1, &self.rng
                if layer.dropout_rate > 0:
                    layer.dropout_mask = self.buffer(batch)
                if layer.residual:
                    layer.dout = self.buffer(batch)
            layer.out = self.buffer(batch) if layer.residual or layer.dropout_rate > 0 else layer.y
        return 0

    cdef int allocate_norm(self, fm_layer *layer, Py_ssize_t n_bytes, bint learns) except -1:
        cdef fm_batch_norm *norm = <fm_batch_norm *> self.buffer(sizeof(fm_batch_norm))
        cdef int s
        layer.norm = norm
        norm.scale, norm.running_mean, norm.running_variance = self.buffer(n_bytes), self.buffer(n_bytes), self.buffer(n_bytes)
        for s in range(self.n_state):
            norm.scale_state[s] = self.buffer(n_bytes)
        if learns:
            norm.inverse_std, norm.d_scale, norm.d_b = self.buffer(n_bytes), self.buffer(n_bytes), self.buffer(n_bytes)
            norm.batch_mean, norm.batch_variance = self.buffer(n_bytes), self.buffer(n_bytes)
        else:
            layer.scale, layer.shift = self.buffer(n_bytes), self.buffer(n_bytes)
        return 0

    cdef int allocate_profiles(self) except -1:
        cdef int t
        self.profiles = <fm_profile *> self.buffer(self.n_threads * sizeof(fm_profile))
        if FM_HAS_PROFILE:
            for t in range(self.n_threads):
                self.profiles[t].seconds = <double *> self.buffer(FM_N_SECTIONS * self.n_layers * sizeof(double))
        return 0

    def profile(self) -> dict:
        """Seconds so far by (section, layer), a list with one number per thread. Sections that belong to no layer are
        counted at layer 0. Raises RuntimeError unless the package was built with FASTMLP_PROFILE=1."""
        cdef int section, l, t
        if not FM_HAS_PROFILE:
            raise RuntimeError("profiles are compiled in on request only: build with FASTMLP_PROFILE=1")
        return {
            (fm_section_name(section).decode(), l): [
                self.profiles[t].seconds[section * self.n_layers + l] for t in range(self.n_threads)
            ]
            for section in range(FM_N_SECTIONS) for l in range(self.n_layers)
        }

    cdef int list_segments(self) except -1:
        """A segment ends with a layer that normalises by the batch, or with the last one."""
        cdef int l
        self.ends = <int *> self.buffer(self.n_layers * sizeof(int))
        for l in range(self.n_layers):
            if l == self.n_layers - 1 or (self.layers[l].norm != NULL and self.layers[l].scale == NULL):
                self.ends[self.n_segments] = l
                self.n_segments += 1
        return 0

    cdef int list_units(self) except -1:
        """Phase 2's work, in pieces small enough to share out and large enough to stream. Layers that do not learn have none."""
        cdef int l
        for l in range(self.n_layers):
            self.add_units(l, NULL)
        self.units = <Unit *> self.buffer(self.n_units * sizeof(Unit))
        self.penalties = <double *> self.buffer(self.n_units * self.k.panel * sizeof(double))
        self.n_units = self.total_cost = 0
        for l in range(self.n_layers):
            self.add_units(l, self.units)
        return 0

    cdef Py_ssize_t cost_of_row(self, Py_ssize_t columns) noexcept:
        """What gradient and update of a row of weights take in a panel with so many columns: 32 for a full one."""
        return 32 if columns > self.k.vector else min(18, 5 + 16 * columns // self.k.vector)

    cdef int add_units(self, int l, Unit *units) except -1:
        """The units of layer l behind those that are there; with NULL they are only counted."""
        cdef fm_layer *layer = &self.layers[l]
        cdef Py_ssize_t panel = self.k.panel, panels = self.plan.padded(layer.fan_out) // panel, i, p, cost
        cdef Unit unit
        if self.rates[l] == 0:
            return 0
        unit.layer = l
        for unit.kind in (WEIGHTS, BIAS, SCALE):
            if unit.kind == SCALE and layer.norm == NULL:
                continue
            for i in range(0, layer.fan_in if unit.kind == WEIGHTS else 1, FM_BLOCK_ROWS):
                for p in range(panels):
                    unit.i0, unit.p = i, p
                    unit.n = min(FM_BLOCK_ROWS, layer.fan_in - i) if unit.kind == WEIGHTS else 0
                    cost = unit.n * self.cost_of_row(layer.fan_out - p * panel) if unit.kind == WEIGHTS else VECTOR_COST
                    unit.cost = self.total_cost + cost // 2
                    self.total_cost += cost
                    if units != NULL:
                        units[self.n_units] = unit
                    self.n_units += 1
        return 0

    cdef int make_room_for_input(self, bint mixes) except -1:
        """x of the first layer: only dense input, or what is made dense, needs it; and as much again for mixup's partners."""
        cdef Py_ssize_t n_bytes = self.plan.padded(self.plan.sizes[0]) // self.k.panel * self.stride * self.k.element_size
        if self.layers[0].x == NULL:
            self.layers[0].x = self.buffer(n_bytes)
        if mixes and self.partners == NULL:
            self.partners = <char *> self.buffer(n_bytes)
        return 0

    cdef int make_room_for_columns(self, Rows rows, Py_ssize_t m, list memory) except -1:
        """Room for each thread's csr_to_csc; `memory` keeps it for the epoch. A slab has at most the elements that as many
        rows of the longest kind have, and at most all there are."""
        cdef Py_ssize_t longest, t, n
        cdef Buffer new
        with nogil:
            longest = rows.longest_row()
        n = longest * min(self.slab_rows, self.batch_size, m)
        new = Buffer(self.n_threads * sizeof(fm_csc))
        memory.append(new)
        self.columns = <fm_csc *> new.at
        for t in range(self.n_threads):
            new = Buffer((self.plan.sizes[0] + 1) * sizeof(Py_ssize_t) + n * (self.k.element_size + sizeof(int32_t)), False)
            memory.append(new)
            self.columns[t].indptr = <Py_ssize_t *> new.at
            self.columns[t].data = self.columns[t].indptr + self.plan.sizes[0] + 1
            self.columns[t].indices = <int32_t *> (<char *> self.columns[t].data + n * self.k.element_size)
        return 0

    def load(self, parameters, state=None, statistics=None):
        """Copy flat parameters, the optimizer's arrays (n_state, n_parameters; None: zeros), and the running averages of batch
        normalisation into the workspace."""
        cdef Py_ssize_t n = self.plan.n_parameters, size = self.k.element_size
        cdef char *at = <char *> flat(parameters, n, self.plan.kind, "parameters")
        cdef char *state_at = <char *> flat(state, n * self.n_state, self.plan.kind, "state") if state is not None else NULL
        cdef Buffer zeros = Buffer(n * size) if state is None and self.n_state else None
        cdef Py_ssize_t between = n * size if state is not None else 0  # the same zeros for each array
        cdef fm_layer *layer
        cdef int s, l
        self.refuse_finished()
        if state is None and self.n_state:
            state_at = <char *> zeros.at
        with nogil:
            self.plan.pack(self.layers, at, -1)
            for s in range(self.n_state):
                self.plan.pack(self.layers, state_at + s * between, s)
        if self.plan.batch_norm:
            self.plan.pack_statistics(
                self.layers, <char *> flat(statistics, self.plan.n_statistics, self.plan.kind, "statistics"), False
            )
        for l in range(self.n_layers):
            layer = &self.layers[l]
            if layer.scale != NULL:
                self.k.fold_batch_norm(<void *> layer.scale, <void *> layer.shift, layer.norm.scale, layer.b,
                                       layer.norm.running_mean, layer.norm.running_variance, self.plan.padded(layer.fan_out))

    def store(self, parameters, state=None, statistics=None):
        """Copy the parameters, and what else is given, out of the workspace."""
        cdef Py_ssize_t n = self.plan.n_parameters, size = self.k.element_size
        cdef char *at = <char *> flat(parameters, n, self.plan.kind, "parameters", True)
        cdef char *state_at = <char *> flat(state, n * self.n_state, self.plan.kind, "state", True) if state is not None else NULL
        cdef int s
        self.refuse_finished()
        with nogil:
            self.plan.unpack(at, self.layers, -1)
            for s in range(self.n_state if state_at != NULL else 0):
                self.plan.unpack(state_at + s * n * size, self.layers, s)
        if self.plan.batch_norm and statistics is not None:
            self.plan.pack_statistics(
                self.layers, <char *> flat(statistics, self.plan.n_statistics, self.plan.kind, "statistics", True), True
            )

    cdef Py_ssize_t first_unit(self, int thread, int n_threads) noexcept nogil:
        """Units are shared out by cost: the first one whose middle is not before this thread's share of it."""
        cdef Py_ssize_t low = 0, high = self.n_units, middle, share = self.total_cost * thread // n_threads
        if thread == n_threads:
            return self.n_units
        while low < high:
            middle = (low + high) // 2
            if self.units[middle].cost < share:
                low = middle + 1
            else:
                high = middle
        return low

    cdef double in_order(self, const double *numbers) noexcept nogil:
        """Sum over the units' columns, by layer, block of rows and column, in four chains (column % 4): one order for every
        panel width."""
        cdef double[4] chain
        cdef Py_ssize_t u, j, columns
        chain[0] = chain[1] = chain[2] = chain[3] = 0
        for u in range(self.n_units):
            columns = min(self.k.panel, self.layers[self.units[u].layer].fan_out - self.units[u].p * self.k.panel)
            for j in range(columns):
                chain[j % 4] += numbers[u * self.k.panel + j]
        return (chain[0] + chain[1]) + (chain[2] + chain[3])
