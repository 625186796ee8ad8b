"""The conductor of training: splits the work of a step over threads and calls the C kernels.

It knows nothing of epochs' ends, stopping or estimators (training.py), and computes nothing itself: every sum of products,
loss and update is a kernel of csrc/fastmlp.h. Re-exports _plan's names, so that the floors above see one module.

A step has two phases, with a barrier after each:
    1. along the network, each thread its rows: gather, forward, loss, backward
    2. across the batch, each thread its blocks of weights: gradient and update in one
A batch of more than 2048 rows (fewer in very large networks) is taken in slabs, the sums of phase 2 carried from slab to
slab, which keeps both their order and the memory small. No result depends on the number of threads: a sum is always one
kernel's, in the order of the rows.
"""

import numpy

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid
from libc.stdint cimport int32_t
from libc.string cimport memset

from fastmlp._csrc cimport *
from fastmlp._openmp cimport *
from fastmlp._plan cimport Buffer, Plan, Rows, flat, note_threads, usable_threads

from fastmlp._plan import ACTIVATIONS, LOSSES, OPTIMIZERS, OUTPUTS, info, max_threads, peak_gflops

__all__ = ["ACTIVATIONS", "LOSSES", "OPTIMIZERS", "OUTPUTS", "Plan", "Trainer", "info", "max_threads", "peak_gflops"]
globals()["Plan"] = Plan  # a cimported name is not yet one of the Python module

# Seconds between two looks for signals; half of what is promised, since a slab is finished first.
cdef double SIGNAL_SLICE = 0.05
# Rows of a batch whose activations are kept at once: fewer where so many would take longer than a slice.
cdef Py_ssize_t SLAB_ROWS = 2048
cdef Py_ssize_t SLAB_ROWS_LEAST = 128
cdef double SLAB_OPERATIONS = 5e9


# A second thread that other programs keep from running holds the first one up at every barrier, and one that a small step
# does not need costs more than it does. Which is the case changes while a run goes on, so it is measured: now and then a
# short slice tries the other way, and the faster way goes on. Results do not depend on it.
cdef double TRIAL_SLICE = 0.002
cdef double[2] TRY_EVERY = [0.1, 0.5]   # seconds between trials of the other way: while on one thread, while on all
cdef double FRESH = 0.02                    # seconds for which a measured rate is good enough to change over


cdef struct Pace:
    # Two ways: 0, one thread; 1, all of them.
    int way, trial           # the way that was found faster; the way of the slice that runs now
    int slices               # so far
    double start             # of the slice
    double rate[2]           # rows per second
    double measured[2]       # when


cdef struct Unit:
    # A piece of phase 2: rows i0 .. i0 + n of weight panel p, or, with n = 0, panel p of the bias.
    int layer
    Py_ssize_t i0, n, p
    Py_ssize_t cost        # of all units before this one


cdef struct Position:
    # How far an epoch has come. Written by thread 0 only, between barriers.
    Py_ssize_t step, slab, first   # first: row of the epoch's order at which the step begins
    Py_ssize_t rows                # that went through both phases in this slice
    double step_loss, loss         # sums over rows: of this step; of the epoch, each step's mean times its rows
    int stop                       # leave the parallel region: time to look for signals, or the end


cdef struct Epoch:
    # What one call of Trainer.epoch works on; read by all threads.
    const fm_rows *X
    bint use_sparse
    const fm_targets *targets
    const Py_ssize_t *order
    Py_ssize_t n_rows, batch_size, n_steps, t
    const double *learning_rates
    const double *weight_sums
    fm_hyper hyper
    double slice_end
    int rule


cdef class Trainer:
    """The workspace of one training run: packed weights, optimizer state, activations of a batch.

    Parameters
    ----------
    plan : Plan
        Its output activation must be the loss's.
    loss : str
        One of LOSSES.
    optimizer : str
        One of OPTIMIZERS. 'gradient' updates nothing and is what `loss_gradient` needs.
    batch_size : int
        Largest number of rows in a step.
    n_threads : int
        At most so many threads: fewer when fewer are faster. The result does not depend on it.
    """

    cdef Plan plan
    cdef readonly str loss
    cdef readonly str optimizer
    cdef readonly Py_ssize_t batch_size
    cdef readonly int n_threads
    cdef int loss_row, rule, n_state, n_layers
    cdef const fm_kernels *k
    cdef fm_layer *layers
    cdef Unit *units
    cdef Py_ssize_t n_units, stride, total_cost, scratch_bytes, slab_rows
    cdef char *sums                # of each unit, kept over the slabs; NULL where one slab is enough
    cdef double *penalties         # of each unit's columns, over the epoch
    cdef double *values            # losses of a slab's rows
    cdef char *scratch             # of each thread
    cdef fm_profile *profiles      # of each thread
    cdef fm_columns *columns       # of each thread: a slab's stored elements in the thread's part of the first layer
    cdef list buffers
    cdef fm_barrier barrier
    cdef Position position
    cdef Pace pace
    cdef bint busy

    def __cinit__(self, Plan plan not None, str loss not None, str optimizer not None, Py_ssize_t batch_size,
                  int n_threads=1):
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {tuple(LOSSES)}, got {loss!r}")
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {tuple(OPTIMIZERS)}, got {optimizer!r}")
        if LOSSES[loss] != plan.output:
            raise ValueError(f"loss {loss!r} needs a plan with output {LOSSES[loss]!r}, got {plan.output!r}")
        if batch_size < 1 or n_threads < 1:
            raise ValueError(f"batch_size and n_threads must be positive, got {batch_size} and {n_threads}")
        self.plan, self.loss, self.optimizer = plan, loss, optimizer
        self.batch_size, self.n_threads = batch_size, n_threads
        self.k, self.n_layers = plan.k, plan.n_layers
        self.loss_row = list(LOSSES).index(loss)
        self.rule = list(OPTIMIZERS).index(optimizer)
        self.n_state = OPTIMIZERS[optimizer]
        self.slab_rows = <Py_ssize_t> max(SLAB_ROWS_LEAST, min(SLAB_ROWS, SLAB_OPERATIONS / (6.0 * plan.n_parameters)))
        self.buffers = []
        fm_barrier_init(&self.barrier)
        self.allocate_layers()
        self.list_units()
        # Of a thread: a chunk's targets and outputs in phase 1, a unit's gradient in phase 2; rounded to cache lines.
        self.scratch_bytes = max(2 * FM_CHUNK_ROWS * (plan.sizes[self.n_layers] + 1), FM_BLOCK_ROWS * self.k.panel)
        self.scratch_bytes = (self.scratch_bytes * self.k.element_size + 127) // 64 * 64
        self.scratch = <char *> self.buffer(self.n_threads * self.scratch_bytes)
        self.allocate_profiles()
        self.values = <double *> self.buffer(min(batch_size, self.slab_rows) * sizeof(double))
        if batch_size > self.slab_rows:
            self.sums = <char *> self.buffer(self.n_units * FM_BLOCK_ROWS * self.k.panel * self.k.element_size)

    cdef void *buffer(self, Py_ssize_t n_bytes) except NULL:
        cdef Buffer new = Buffer(n_bytes)
        self.buffers.append(new)
        return new.at

    cdef int allocate_layers(self) except -1:
        """Panels for weights, state, and a slab's activations and deltas.

        An odd number of rows between panels, so that a row's pieces do not fall into one cache set.
        """
        cdef Py_ssize_t size = self.k.element_size, rows = min(self.batch_size, self.slab_rows) | 1, O, I
        cdef fm_layer *layer
        cdef int l, s
        self.stride = rows * self.k.panel
        self.layers = <fm_layer *> self.buffer(self.n_layers * sizeof(fm_layer))
        for l in range(self.n_layers):
            layer = &self.layers[l]
            layer.fan_in, layer.fan_out, layer.activation = self.plan.sizes[l], self.plan.sizes[l + 1], self.plan.hidden[l]
            I, O = self.plan.padded(layer.fan_in), self.plan.padded(layer.fan_out)
            layer.W = self.buffer(layer.fan_in * O * size)
            layer.b = self.buffer(O * size)
            for s in range(self.n_state):
                layer.W_state[s] = self.buffer(layer.fan_in * O * size)
                layer.b_state[s] = self.buffer(O * size)
            layer.x = self.layers[l - 1].y if l > 0 else NULL  # of the first: see epoch
            layer.dz = self.buffer(O // self.k.panel * self.stride * size)
            layer.y = layer.dz
            if l > 0:
                layer.WT = self.buffer(layer.fan_out * I * size)
            if l < self.n_layers - 1:
                layer.y = self.buffer(O // self.k.panel * self.stride * size)
                if self.k.activations[layer.activation].from_input:
                    layer.z = self.buffer(O // self.k.panel * self.stride * size)
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

    cdef int list_units(self) except -1:
        """Phase 2's work, in pieces small enough to share out and large enough to stream."""
        cdef Py_ssize_t panel = self.k.panel, n = 0, p, i, width
        cdef Unit *unit
        cdef fm_layer *layer
        cdef int l
        for l in range(self.n_layers):
            p = self.plan.padded(self.layers[l].fan_out) // panel
            n += p * ((self.layers[l].fan_in + FM_BLOCK_ROWS - 1) // FM_BLOCK_ROWS + 1)
        self.units = <Unit *> self.buffer(n * sizeof(Unit))
        self.penalties = <double *> self.buffer(n * panel * sizeof(double))
        self.n_units, self.total_cost = n, 0
        unit = self.units
        for l in range(self.n_layers):
            layer = &self.layers[l]
            for i in range(0, layer.fan_in, FM_BLOCK_ROWS):
                for p in range(self.plan.padded(layer.fan_out) // panel):
                    unit.layer, unit.i0, unit.n, unit.p = l, i, min(FM_BLOCK_ROWS, layer.fan_in - i), p
                    unit.cost = self.total_cost
                    width = min(panel, layer.fan_out - p * panel)
                    self.total_cost += unit.n * (2 if width > self.k.vector else 1)
                    unit += 1
            for p in range(self.plan.padded(layer.fan_out) // panel):
                unit.layer, unit.i0, unit.n, unit.p, unit.cost = l, 0, 0, p, self.total_cost
                self.total_cost += 2
                unit += 1
        return 0

    def load(self, parameters, state=None):
        """Copy flat parameters, and the optimizer's arrays (n_state, n_parameters; None: zeros), into the workspace."""
        cdef Py_ssize_t n = self.plan.n_parameters, size = self.k.element_size
        cdef char *at = <char *> flat(parameters, n, self.plan.kind, "parameters")
        cdef char *state_at = <char *> flat(state, n * self.n_state, self.plan.kind, "state") if state is not None else NULL
        cdef Buffer zeros = Buffer(n * size) if state is None and self.n_state else None
        cdef int s
        self.plan.pack(self.layers, at, -1)
        for s in range(self.n_state):
            self.plan.pack(self.layers, <char *> zeros.at if state is None else state_at + s * n * size, s)

    def store(self, parameters, state=None):
        """Copy the parameters, and the optimizer's arrays if `state` is given, out of the workspace."""
        cdef Py_ssize_t n = self.plan.n_parameters, size = self.k.element_size
        cdef char *at = <char *> flat(parameters, n, self.plan.kind, "parameters", True)
        cdef char *state_at = <char *> flat(state, n * self.n_state, self.plan.kind, "state", True) if state is not None else NULL
        cdef int s
        self.plan.unpack(at, self.layers, -1)
        if state is not None:
            for s in range(self.n_state):
                self.plan.unpack(state_at + s * n * size, self.layers, s)

    def epoch(self, X, y, sample_weight, order, learning_rates, Py_ssize_t t, *, double alpha=0.0, double l1_ratio=0.0,
              double momentum=0.9, double beta_1=0.9, double beta_2=0.999, double epsilon=1e-8, double rho=0.9,
              double weight_decay=0.0):
        """One pass over the rows `order` of X in batches of `batch_size`, the last one being the rest.

        Parameters
        ----------
        X : ndarray or CSR of shape (n, n_features), float32 or float64
        y : intp array (n,) of class indices for a softmax, else array (n, O) in the plan's dtype
        sample_weight : float64 array (n,) or None
        order : intp array or None
            None takes all rows in order.
        learning_rates : float64 array, one per step
        t : int
            Updates made before.

        Returns
        -------
        float
            Sum over batches of (weighted mean loss + penalty / weight sum) * rows, divided by all rows. A batch whose
            weights sum to zero changes nothing and adds nothing.

        Raises
        ------
        KeyboardInterrupt, or whatever a signal handler raises; the parameters are then those of the last whole step.
        """
        cdef Rows rows = Rows(X, self.plan.sizes[0])
        cdef Epoch e
        cdef fm_targets targets
        cdef Py_ssize_t m = rows.n if order is None else len(order), s
        memset(&e, 0, sizeof(e))
        self.take_targets(&targets, rows.n, y, sample_weight)
        cdef list memory = []
        e.use_sparse = rows.use_sparse
        if e.use_sparse:
            self.make_room_for_columns(rows, m, memory)
        elif self.layers[0].x == NULL:
            self.layers[0].x = self.buffer(
                self.plan.padded(self.plan.sizes[0]) // self.k.panel * self.stride * self.k.element_size
            )
        e.X, e.targets, e.n_rows, e.batch_size, e.t, e.rule = &rows.rows, &targets, m, self.batch_size, t, self.rule
        e.n_steps = (m + self.batch_size - 1) // self.batch_size
        e.order = self.take_order(order, rows.n)
        e.learning_rates = <double *> flat(learning_rates, e.n_steps, b'd', "learning_rates")
        cdef Buffer sums = Buffer(e.n_steps * sizeof(double))
        e.weight_sums = <double *> sums.at
        for s in range(e.n_steps):
            (<double *> sums.at)[s] = weight_sum(&e, s)
        e.hyper.weight_decay = weight_decay
        e.hyper.l1, e.hyper.l2 = alpha * l1_ratio, alpha * (1 - l1_ratio)
        e.hyper.momentum, e.hyper.beta_1, e.hyper.beta_2 = momentum, beta_1, beta_2
        e.hyper.epsilon, e.hyper.rho = epsilon, rho
        self.run(&e)
        return (self.position.loss + self.penalty()) / m if m else 0.0

    def loss_gradient(self, parameters, X, y, sample_weight, out, *, double alpha=0.0, double l1_ratio=0.0):
        """Loss of all rows of X at `parameters`, and its gradient into the flat array `out`."""
        if self.optimizer != "gradient":
            raise ValueError(f"loss_gradient needs a Trainer with optimizer 'gradient', this one has {self.optimizer!r}")
        if len(X) > self.batch_size if isinstance(X, numpy.ndarray) else X.shape[0] > self.batch_size:
            raise ValueError(f"X has more rows than the batch size {self.batch_size}")
        cdef Py_ssize_t n = self.plan.n_parameters
        cdef char *at = <char *> flat(out, n, self.plan.kind, "out", True)
        self.plan.pack(self.layers, <char *> flat(parameters, n, self.plan.kind, "parameters"), -1)
        loss = self.epoch(X, y, sample_weight, None, numpy.zeros(1), 0, alpha=alpha, l1_ratio=l1_ratio)
        self.plan.unpack(at, self.layers, 0)
        return loss

    cdef int make_room_for_columns(self, Rows rows, Py_ssize_t m, list memory) except -1:
        """Room for each thread's columns_csr; `memory` keeps it for the epoch. A slab has at most the elements that as many
        rows of the longest kind have, and at most all there are."""
        cdef Py_ssize_t longest = 0, r, t, n
        cdef Buffer new
        for r in range(rows.n):
            longest = max(longest, rows.index(2, r + 1) - rows.index(2, r))
        n = longest * min(self.slab_rows, self.batch_size, m)
        new = Buffer(self.n_threads * sizeof(fm_columns))
        memory.append(new)
        self.columns = <fm_columns *> new.at
        for t in range(self.n_threads):
            new = Buffer((self.plan.sizes[0] + 1) * sizeof(Py_ssize_t) + n * (self.k.element_size + sizeof(int32_t)), False)
            memory.append(new)
            self.columns[t].start = <Py_ssize_t *> new.at
            self.columns[t].value = self.columns[t].start + self.plan.sizes[0] + 1
            self.columns[t].row = <int32_t *> (<char *> self.columns[t].value + n * self.k.element_size)
        return 0

    cdef int take_targets(self, fm_targets *targets, Py_ssize_t n, y, sample_weight) except -1:
        cdef Py_ssize_t i, O = self.plan.sizes[self.n_layers]
        memset(targets, 0, sizeof(targets[0]))
        if self.k.losses[self.loss_row].target_is_class:
            targets.classes = <Py_ssize_t *> flat(y, n, b'i', "y")
            for i in range(n):
                if targets.classes[i] < 0 or targets.classes[i] >= O:
                    raise ValueError(f"y must lie in [0, {O}), got {targets.classes[i]}")
        else:
            targets.values = flat(y, n * O, self.plan.kind, "y")
        if sample_weight is not None:
            targets.weights = <double *> flat(sample_weight, n, b'd', "sample_weight")
        return 0

    cdef const Py_ssize_t *take_order(self, order, Py_ssize_t n) except? NULL:
        cdef Py_ssize_t i
        cdef const Py_ssize_t *at
        if order is None:
            return NULL
        at = <Py_ssize_t *> flat(order, len(order), b'i', "order")
        for i in range(len(order)):
            if at[i] < 0 or at[i] >= n:
                raise IndexError(f"order must lie in [0, {n}), got {at[i]}")
        return at

    cdef int run(self, Epoch *e) except -1:
        """The epoch's steps, in time slices between which Python looks for signals."""
        cdef Position *position = &self.position
        cdef int n_threads = usable_threads(self.n_threads)
        if self.busy:
            raise RuntimeError("this Trainer is in use in another thread")
        self.busy = True
        memset(position, 0, sizeof(Position))
        memset(self.penalties, 0, self.n_units * self.k.panel * sizeof(double))
        try:
            while position.step < e.n_steps:
                position.stop = 0
                self.begin_slice(e, n_threads)
                if self.pace.trial == 0:
                    with nogil:
                        self.work(e, 0, 1)
                else:
                    note_threads(n_threads)
                    with nogil, parallel(num_threads=n_threads):
                        self.work(e, threadid(), omp_get_num_threads())
                self.end_slice(position.rows)
                PyErr_CheckSignals()
        finally:
            self.busy = False
        return 0

    cdef void begin_slice(self, Epoch *e, int n_threads) noexcept:
        """Choose between one thread and all of them, and the slice's length.

        One thread begins, so that a short fit wakes no other. The first slice of each way is with cold caches, or wakes the
        threads: it teaches nothing.
        """
        cdef Pace *pace = &self.pace
        cdef double length = TRIAL_SLICE, age
        cdef int other = 1 - pace.way
        pace.start = fm_seconds()
        age = pace.start - pace.measured[other]
        pace.trial = pace.way
        if n_threads == 1:
            pace.trial, length = 0, SIGNAL_SLICE
        elif pace.slices < 4:
            pace.trial = pace.slices >= 2
        elif pace.rate[other] > pace.rate[pace.way] and age < FRESH:
            pace.way = pace.trial = other
            length = SIGNAL_SLICE
        elif pace.rate[other] > pace.rate[pace.way] or age > TRY_EVERY[pace.way]:
            pace.trial = other
        else:
            length = SIGNAL_SLICE
        self.position.rows = 0
        e.slice_end = pace.start + length

    cdef void end_slice(self, Py_ssize_t rows) noexcept:
        cdef Pace *pace = &self.pace
        cdef double now = fm_seconds()
        if pace.slices == 1 or pace.slices >= 3:
            pace.rate[pace.trial] = rows / max(now - pace.start, 1e-9)
            pace.measured[pace.trial] = now
        pace.slices = min(pace.slices + 1, 4)

    cdef void work(self, Epoch *e, int thread, int n_threads) noexcept nogil:
        """One thread's part of the steps, from the current position until the slice or the epoch ends."""
        cdef Position *position = &self.position
        cdef fm_hyper hyper = e.hyper
        cdef Py_ssize_t begin = self.first_unit(thread, n_threads), end = self.first_unit(thread + 1, n_threads)
        cdef Py_ssize_t step, slab, n_slabs, rows, first, count
        cdef fm_profile *profile = &self.profiles[thread]
        fm_profile_begin(profile)
        while not position.stop:
            step, slab = position.step, position.slab
            rows = min(e.batch_size, e.n_rows - position.first)
            n_slabs = (rows + self.slab_rows - 1) // self.slab_rows
            first = rows * slab // n_slabs
            count = rows * (slab + 1) // n_slabs - first
            first += position.first
            if e.weight_sums[step] != 0:
                self.along_network(e, first, count, thread, n_threads)
                fm_barrier_wait(&self.barrier, n_threads)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)
                hyper.learning_rate, hyper.t = e.learning_rates[step], e.t + step + 1
                hyper.weight_sum, hyper.penalty_scale = e.weight_sums[step], rows / e.weight_sums[step]
                self.k.optimizers[e.rule].prepare(&hyper)
                self.across_batch(e, &hyper, begin, end, first, count, slab > 0, e.rule if slab == n_slabs - 1 else -1, thread)
            else:
                fm_barrier_wait(&self.barrier, n_threads)
            if thread == 0:
                self.advance(e, rows, first, count, n_slabs)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_bookkeeping, 0)
            fm_barrier_wait(&self.barrier, n_threads)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)

    cdef Py_ssize_t first_unit(self, int thread, int n_threads) noexcept nogil:
        """Units are shared out by cost: the first one that is not before this thread's share of it."""
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

    cdef void along_network(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread, int n_threads) noexcept nogil:
        """Phase 1: this thread's rows of the slab, in chunks."""
        cdef Py_ssize_t row = count * thread // n_threads, end = count * (thread + 1) // n_threads
        cdef Py_ssize_t n_chunks = (end - row + FM_CHUNK_ROWS - 1) // FM_CHUNK_ROWS, size = self.k.element_size, n
        cdef Py_ssize_t panel = self.k.panel, O = self.plan.sizes[self.n_layers]
        cdef const Py_ssize_t *order
        cdef fm_layer *last = &self.layers[self.n_layers - 1]
        cdef fm_profile *profile = &self.profiles[thread]
        cdef int l
        for n_chunks in range(n_chunks, 0, -1):
            n = (end - row) // n_chunks
            order = NULL
            if e.order != NULL:
                order = e.order + first + row
            if not e.use_sparse:
                self.k.gather(<char *> self.layers[0].x + row * panel * size, e.X, order, first + row, n, self.stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_gather, 0)
            for l in range(self.n_layers):
                if l == 0 and e.use_sparse:
                    self.k.forward_csr(&self.layers[0], e.X, order, first + row, row, n, self.stride)
                else:
                    self.k.forward(&self.layers[l], row, n, self.stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, l)
            self.k.losses[self.loss_row].gradient(last.dz, self.values + row, self.scratch + thread * self.scratch_bytes,
                                                  e.targets, order, first + row, row, n, O, self.stride)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_loss, 0)
            for l in range(self.n_layers - 1, 0, -1):
                self.k.backward(&self.layers[l], &self.layers[l - 1], row, n, self.stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_backward, l)
            row += n

    cdef void across_batch(self, Epoch *e, const fm_hyper *hyper, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first,
                           Py_ssize_t rows, int accumulate, int rule, int thread) noexcept nogil:
        """Phase 2: this thread's blocks of weights and biases."""
        cdef Py_ssize_t i, block = FM_BLOCK_ROWS * self.k.panel * self.k.element_size
        if e.use_sparse:
            self.sort_columns(e, begin, end, first, rows, thread)
        cdef Unit *unit
        cdef void *G = self.scratch + thread * self.scratch_bytes
        cdef fm_profile *profile = &self.profiles[thread]
        for i in range(begin, end):
            unit = &self.units[i]
            if i > begin and unit.layer != self.units[i - 1].layer:
                fm_profile_mark(profile, self.n_layers, FM_SECTION_update, unit.layer - 1)
            if self.sums != NULL:
                G = self.sums + i * block
            if unit.n and unit.layer == 0 and e.use_sparse:
                self.k.gradient_csr(G, &self.columns[thread],
                                    <char *> self.layers[0].dz + unit.p * self.stride * self.k.element_size, unit.i0, unit.n,
                                    accumulate)
                self.k.update(&self.layers[0], G, self.penalties + i * self.k.panel, unit.i0, unit.n, unit.p, 0, self.stride,
                              1, rule, hyper)
            elif unit.n:
                self.k.update(&self.layers[unit.layer], G, self.penalties + i * self.k.panel, unit.i0, unit.n, unit.p, rows,
                              self.stride, accumulate, rule, hyper)
            else:
                self.k.update_bias(&self.layers[unit.layer], G, unit.p, rows, self.stride, accumulate, rule, hyper)
        if begin < end:
            fm_profile_mark(profile, self.n_layers, FM_SECTION_update, self.units[end - 1].layer)

    cdef void sort_columns(self, Epoch *e, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first, Py_ssize_t rows,
                           int thread) noexcept nogil:
        """The slab's stored elements in the columns of this thread's units, which come first and in the columns' order."""
        cdef Py_ssize_t last = begin
        cdef const Py_ssize_t *order = NULL
        if e.order != NULL:
            order = e.order + first
        while last < end and self.units[last].layer == 0 and self.units[last].n:
            last += 1
        if last > begin:
            self.k.columns_csr(&self.columns[thread], e.X, order, first, rows, self.units[begin].i0,
                               self.units[last - 1].i0 + self.units[last - 1].n)

    cdef void advance(self, Epoch *e, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t count,
                      Py_ssize_t n_slabs) noexcept nogil:
        """Thread 0, while the others finish phase 2: sum the slab's losses in the order of the rows, move on."""
        cdef Position *position = &self.position
        cdef Py_ssize_t r, row
        if e.weight_sums[position.step] != 0:
            for r in range(count):
                row = first + r if e.order == NULL else e.order[first + r]
                if e.targets.weights == NULL:
                    position.step_loss += self.values[r]
                elif e.targets.weights[row] != 0:
                    position.step_loss += e.targets.weights[row] * self.values[r]
        position.rows += count
        position.slab += 1
        if position.slab == n_slabs:
            if e.weight_sums[position.step] != 0:
                position.loss += position.step_loss / e.weight_sums[position.step] * rows
            position.step_loss = 0
            position.slab = 0
            position.step += 1
            position.first += rows
        if position.step == e.n_steps or fm_seconds() >= e.slice_end:
            position.stop = 1

    cdef double penalty(self) noexcept:
        """Sum of the epoch's penalties, by layer, block of rows and column: one order for every panel width."""
        cdef double total = 0
        cdef Py_ssize_t u, j, columns
        for u in range(self.n_units):
            if self.units[u].n:
                columns = self.layers[self.units[u].layer].fan_out - self.units[u].p * self.k.panel
                for j in range(min(self.k.panel, columns)):
                    total += self.penalties[u * self.k.panel + j]
        return total


cdef double weight_sum(const Epoch *e, Py_ssize_t step) noexcept nogil:
    """Sum of a step's sample weights, in the order of its rows; without weights, their number."""
    cdef Py_ssize_t first = step * e.batch_size, last = min(first + e.batch_size, e.n_rows), r
    cdef double total = 0
    if e.targets.weights == NULL:
        return <double> (last - first)
    for r in range(first, last):
        total += e.targets.weights[r if e.order == NULL else e.order[r]]
    return total
