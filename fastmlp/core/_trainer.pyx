"""The conductor of training: splits the work of a step over threads and calls the C kernels.

It knows nothing of epochs' ends, stopping or estimators (training.py), and computes nothing itself: every sum of products,
loss and update is a kernel of csrc/fastmlp.h. Re-exports the names of _machine and _plan, so that the floors above see one
module.

A step has two phases, with a barrier after each:
    1. along the network, each thread its rows: gather, forward, loss, backward
    2. across the batch, each thread its blocks of weights: gradient and update in one
Batch normalisation cuts phase 1 into segments: its statistics are taken by columns, with a barrier before and after. Clipping
cuts phase 2: all gradients first, then, when their norm is known, all updates.
A batch of more than 512 rows (fewer in very large networks) is taken in slabs, the sums of phase 2 carried from slab to
slab, which keeps both their order and the memory small. No result depends on the number of threads: a sum is always one
kernel's, in the order of the rows, and random numbers are drawn by position.

Between slices of time Python looks for signals. A slab that outlasts a slice is worked on aside (csrc/runtime/aside.h), and given up if
a signal's handler raises: then nothing has changed that lasts, since phase 1 writes what belongs to the batch only. Phase 2 is
finished, but where it would take long too, gradients come first and may be given up.
"""

import numpy

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid
from libc.math cimport INFINITY, NAN, sqrt
from libc.stdint cimport uint32_t
from libc.string cimport memset

from fastmlp.core._csrc cimport *
from fastmlp.core._epoch cimport Epoch, Position, row_weight, weight_sum
from fastmlp.core._arrays cimport Buffer, Rows, first_outside, flat
from fastmlp.core._dispatch cimport Call, region_begins, region_ends, usable_threads
from fastmlp.core._openmp cimport *
from fastmlp.core._plan cimport Plan
from fastmlp.core._workspace cimport SCALE, Unit, Workspace

from fastmlp.core._dispatch import ACTIVATIONS, LOSSES, NORM_EPSILON, OPTIMIZERS, OUTPUTS, info, max_threads, peak_gflops

__all__ = [
    "ACTIVATIONS", "LOSSES", "NORM_EPSILON", "OPTIMIZERS", "OUTPUTS", "Cancelled", "Plan", "Trainer", "info", "max_threads",
    "peak_gflops",
]
globals()["Plan"] = Plan  # a cimported name is not yet one of the Python module


cdef enum:  # what may be left, see aside.h
    ROWS = 1
    GRADIENTS = 2

# Multiply-adds after which a thread asks whether to leave: some milliseconds.
cdef Py_ssize_t PIECE = 250_000_000


cdef inline Py_ssize_t piece_of(Py_ssize_t of_column, Py_ssize_t columns) noexcept nogil:
    """Panels to compute between two such questions, where a column takes so many multiply-adds; all, if they are few."""
    return columns if of_column * columns <= PIECE else 1 + PIECE // (32 * of_column)


class Cancelled(Exception):
    """Someone set the event of `Trainer.cancel`."""


cdef struct Work:
    # A slice that is worked on aside.
    void *trainer
    Epoch *epoch
    int n_threads


@cython.final
cdef class Turn:
    """One thread's use of a Trainer: from when this is made until it goes, with the call that made it."""

    cdef fm_turn *turn

    def __cinit__(self, Trainer trainer):
        trainer.refuse_finished()
        if not fm_take(&trainer.turn):
            raise RuntimeError("this Trainer is in use: an epoch of it runs, or another thread has it")
        self.turn = &trainer.turn

    def __dealloc__(self):
        if self.turn != NULL:
            fm_give(self.turn)


cdef class Trainer(Workspace):
    """One training run: its workspace, and epochs over it.

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
    dropout : sequence of float, one per layer, or None
        Rates in [0, 1) of what enters each layer.
    layer_rates : sequence of float, one per layer, or None
        What the learning rate is multiplied by in each layer. Where it is 0 nothing changes, not even the running averages of
        batch normalisation, which are then used in place of the batch's; such a layer pays no penalty.
    max_grad_norm : float
        The gradient of all that learns is scaled down to this Euclidean norm; 0: never.

    Attributes
    ----------
    slab_seconds : float
        What a slab took in the last slice; before the first one, an estimate. From 0.02 on a slice is worked on aside.
    cancel : threading.Event or None
        Set from any thread, it ends an epoch within about 0.1 s, as Ctrl-C does in the main thread; on Windows, where the rows of
        one slab take longer, after them: 128 rows of a network of more than 20 million weights, or a large batch with batch
        normalisation.
    """

    cdef fm_barrier barrier
    cdef Position position
    cdef fm_pace pace
    cdef fm_turn turn
    # What other threads read is here, not on the stack of a call: a daemon thread ends where it stands when the interpreter ends.
    cdef Epoch now
    cdef fm_targets targets
    cdef fm_leave leave
    cdef fm_aside aside
    cdef Work work_now
    cdef public double slab_seconds
    cdef public object cancel

    def __cinit__(self, *args, **kwargs):
        fm_barrier_init(&self.barrier)
        self.slab_seconds = 6e-11 * self.plan.n_parameters * min(self.batch_size, self.slab_rows)

    def epoch(self, X, y, sample_weight, order, learning_rates, Py_ssize_t t, *, double alpha=0.0, double l1_ratio=0.0,
              double momentum=0.9, double beta_1=0.9, double beta_2=0.999, double epsilon=1e-8, double rho=0.9,
              double weight_decay=0.0, double loss_parameter=1.0, double label_smoothing=0.0, double input_noise=0.0,
              double input_mask=0.0, mix=None, seed=0, step_losses=None):
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
        loss_parameter : float
            Quantile or delta, for the losses that have one.
        label_smoothing : float
        input_noise, input_mask : float
            Standard deviation of what is added to each number of X; share of them that become 0.
        mix : float64 array, one per step, or None
            Mixup: each row counts so much, the next one of its batch (the first one for the last) the rest.
        seed : int
            Key, of 64 bits, of dropout, noise and mask; their counters are t + step, layer, row in the batch and column.
        step_losses : float64 array, one per step, or None
            Receives each step's weighted mean loss, without penalty.

        Returns
        -------
        float
            Sum over batches of (weighted mean loss + penalty / weight sum) * rows, divided by all rows. A batch whose
            weights sum to zero changes nothing and adds nothing.

        Raises
        ------
        KeyboardInterrupt, or whatever a signal handler raises; Cancelled. The parameters are then those of the last whole step.
        RuntimeError in a child that was forked by a signal handler while a step that takes long was worked on aside.
        """
        cdef Turn _turn = Turn(self)  # until this call ends
        cdef Rows rows = Rows(X, self.plan.sizes[0])
        cdef Epoch *e = &self.now
        cdef fm_targets *targets = &self.targets
        cdef Py_ssize_t m = rows.n if order is None else len(order), s
        cdef list memory = []
        memset(e, 0, sizeof(Epoch))
        self.plan.take_targets(targets, self.loss_row, rows.n, y, sample_weight)
        targets.parameter, targets.smoothing = loss_parameter, label_smoothing
        e.input.noise, e.input.mask, e.input.dropout = input_noise, input_mask, self.input_rate
        e.changes_input = input_noise != 0 or input_mask != 0 or self.input_rate != 0 or mix is not None
        e.use_sparse = rows.use_sparse and not e.changes_input and not self.layers[0].residual
        if e.use_sparse:
            self.make_room_for_columns(rows, m, memory)
        else:
            self.make_room_for_input(mix is not None)
        e.X, e.targets, e.n_rows, e.batch_size, e.t, e.rule = &rows.rows, targets, m, self.batch_size, t, self.rule
        e.n_steps = (m + self.batch_size - 1) // self.batch_size
        e.order = self.take_order(order, rows.n)
        e.learning_rates = <double *> flat(learning_rates, e.n_steps, b'd', "learning_rates")
        if mix is not None:
            e.mix = <double *> flat(mix, e.n_steps, b'd', "mix")
            e.partners = list_partners(e, memory)
        if step_losses is not None:
            e.step_losses = <double *> flat(step_losses, e.n_steps, b'd', "step_losses", True)
        cdef Buffer sums = Buffer(e.n_steps * sizeof(double))
        e.weight_sums = <double *> sums.at
        with nogil:
            for s in range(e.n_steps):
                (<double *> sums.at)[s] = weight_sum(e, s)
        e.hyper.weight_decay = weight_decay
        e.hyper.l1, e.hyper.l2 = alpha * l1_ratio, alpha * (1 - l1_ratio)
        e.hyper.momentum, e.hyper.beta_1, e.hyper.beta_2 = momentum, beta_1, beta_2
        e.hyper.epsilon, e.hyper.rho, e.hyper.clip = epsilon, rho, 1
        self.rng.key[0], self.rng.key[1] = <uint32_t> (seed & 0xffffffff), <uint32_t> (seed >> 32 & 0xffffffff)
        self.run(e)
        return (self.position.loss + self.in_order(self.penalties)) / m if m else 0.0

    def load(self, parameters, state=None, statistics=None):
        """As Workspace; refused during an epoch, to signal handlers too."""
        cdef Turn _turn = Turn(self)
        Workspace.load(self, parameters, state, statistics)

    def store(self, parameters, state=None, statistics=None):
        """As Workspace; refused during an epoch, to signal handlers too: weights may be half updated."""
        cdef Turn _turn = Turn(self)
        Workspace.store(self, parameters, state, statistics)

    def finish(self, parameters, state=None, statistics=None):
        """store for the last time: what has been copied is let go before the next is, so that training never takes more memory
        than it did in its epochs. The Trainer is of no use then."""
        cdef Turn _turn = Turn(self)
        cdef int l, s
        cdef char *at = NULL
        cdef Py_ssize_t n = self.plan.n_parameters, size = self.k.element_size
        if state is not None:
            at = <char *> flat(state, n * self.n_state, self.plan.kind, "state", True)
        Workspace.store(self, parameters, None, statistics)
        self.finished = True
        for l in range(self.n_layers):
            self.release(self.layers[l].W)
        for s in range(self.n_state):
            if at != NULL:
                with nogil:
                    self.plan.unpack(at + s * n * size, self.layers, s)
            for l in range(self.n_layers):
                self.release(self.layers[l].W_state[s])

    def loss_gradient(self, parameters, X, y, sample_weight, out, *, statistics=None, **constants):
        """Loss of all rows of X at `parameters`, and its gradient into the flat array `out`; `constants` as in epoch."""
        if self.optimizer != "gradient":
            raise ValueError(f"loss_gradient needs a Trainer with optimizer 'gradient', this one has {self.optimizer!r}")
        if len(X) > self.batch_size if isinstance(X, numpy.ndarray) else X.shape[0] > self.batch_size:
            raise ValueError(f"X has more rows than the batch size {self.batch_size}")
        cdef char *at = <char *> flat(out, self.plan.n_parameters, self.plan.kind, "out", True)
        self.load(parameters, None, statistics)
        loss = self.epoch(X, y, sample_weight, None, numpy.zeros(1), 0, **constants)
        self.plan.unpack(at, self.layers, 0)
        return loss

    cdef const Py_ssize_t *take_order(self, order, Py_ssize_t n) except? NULL:
        cdef Py_ssize_t i, m
        cdef const Py_ssize_t *at
        if order is None:
            return NULL
        m = len(order)
        at = <Py_ssize_t *> flat(order, m, b'i', "order")
        with nogil:
            i = first_outside(at, m, n)
        if i < m:
            raise IndexError(f"order must lie in [0, {n}), got {at[i]}")
        return at

    cdef int run(self, Epoch *e) except -1:
        """The epoch's steps, in time slices between which Python looks for signals."""
        cdef Call _call = Call()  # until this one ends
        cdef Position *position = &self.position
        cdef int n_threads, used
        cdef double began, now
        memset(position, 0, sizeof(Position))
        memset(self.penalties, 0, self.n_units * self.k.panel * sizeof(double))
        fm_leave_begin(&self.leave)
        self.arrive(e)
        while position.step < e.n_steps:
            self.look()
            position.stop, position.rows = 0, 0
            n_threads = usable_threads(self.n_threads)  # others may have come, or gone
            began = fm_seconds()
            e.slice_end = fm_pace_begin(&self.pace, n_threads, began)
            used = 1 if self.pace.trial == 0 else n_threads
            if self.slab_seconds <= FM_LONG or not self.slice_aside(e, used):
                with nogil:
                    self.work_all(e, used)
            now = fm_seconds()
            if n_threads > 1:
                fm_pace_end(&self.pace, position.rows, now)
            if position.rows:
                self.slab_seconds = (now - began) * min(self.batch_size, self.slab_rows) / position.rows
        PyErr_CheckSignals()
        return 0

    cdef int look(self) except -1:
        """Whether to go on; signal handlers run here."""
        PyErr_CheckSignals()
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled
        return 0

    cdef bint slice_aside(self, Epoch *e, int n_threads) except -1:
        """A slice on a thread of its own, this one looking for signals meanwhile; False if there is no thread to be had."""
        cdef Work *work = &self.work_now
        cdef bint ended = False
        work.trainer, work.epoch, work.n_threads = <void *> self, e, n_threads
        if not fm_aside_begin(&self.aside, work_aside, work):
            return False
        try:
            while not ended:
                with nogil:
                    ended = fm_aside_wait(&self.aside)
                if not ended:
                    self.look()
        finally:
            fm_leave_ask(&self.leave)  # of no effect on a slice that has ended
            with nogil:
                ended = fm_aside_end(&self.aside)
            if not ended:
                self.finished = True  # a step may be half done
                raise RuntimeError("a signal handler forked this process in the middle of a training step, which is lost here")
        fm_leave_begin(&self.leave)
        return True

    cdef void work_all(self, Epoch *e, int n_threads) noexcept nogil:
        """Steps from the current position until the slice or the epoch ends, or all are asked to leave."""
        if n_threads == 1:
            self.work(e, 0, 1)
            return
        region_begins()
        with parallel(num_threads=n_threads):
            self.work(e, threadid(), omp_get_num_threads())
        region_ends()

    cdef void work(self, Epoch *e, int thread, int n_threads) noexcept nogil:
        """One thread's part of a slice."""
        cdef Position *position = &self.position
        cdef fm_hyper hyper = e.hyper
        cdef Py_ssize_t begin = self.first_unit(thread, n_threads), end = self.first_unit(thread + 1, n_threads)
        cdef Py_ssize_t step, slab, n_slabs, rows, first, count
        cdef bint last
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
                if fm_left(&self.leave, ROWS):
                    return
                hyper.learning_rate, hyper.t = e.learning_rates[step], e.t + step + 1
                hyper.weight_sum, hyper.penalty_scale = e.weight_sums[step], rows / e.weight_sums[step]
                # A batch counts by its rows: the last of an epoch may be one, of variance 0. Measured on 401 rows in batches of
                # 200: with a whole batch's say it takes R^2 from 0.98 to 0.30.
                hyper.norm_momentum = self.norm_momentum * (rows / <double> e.batch_size)
                last = slab == n_slabs - 1
                if not self.apart:
                    self.across_batch(e, &hyper, begin, end, first, count, slab > 0, e.rule if last else -1, thread)
                else:
                    self.across_batch(e, &hyper, begin, end, first, count, slab > 0, -1, thread)
                    if last:
                        hyper.clip = 1
                        if self.squares != NULL:
                            self.measure(&hyper, begin, end)
                        fm_barrier_wait(&self.barrier, n_threads)
                        if fm_left(&self.leave, GRADIENTS):
                            return
                        if self.squares != NULL:
                            hyper.clip = self.clip_factor()
                        self.across_batch(e, &hyper, begin, end, first, 0, 1, e.rule, thread)
            else:
                fm_barrier_wait(&self.barrier, n_threads)
            if thread == 0:
                self.advance(e, rows, first, count, n_slabs)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_bookkeeping, 0)
            fm_barrier_wait(&self.barrier, n_threads)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)

    # ---- Phase 1 -----------------------------------------------------------------------------------------------------

    cdef void along_network(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread, int n_threads) noexcept nogil:
        """This thread's rows of the slab up the segments and down again; its columns of what stands between them."""
        cdef int s
        for s in range(self.n_segments):
            self.through(e, s, first, count, thread, n_threads)
            if s < self.n_segments - 1:
                self.between(self.ends[s], count, thread, n_threads, False)
        for s in range(self.n_segments - 2, -1, -1):
            self.between(self.ends[s], count, thread, n_threads, True)
            self.down(s, count * thread // n_threads, count * (thread + 1) // n_threads, thread)

    cdef void through(self, Epoch *e, int s, Py_ssize_t first, Py_ssize_t count, int thread, int n_threads) noexcept nogil:
        """This thread's rows through segment s, in chunks; through the last one down again too, while they are in the cache."""
        cdef Py_ssize_t row = count * thread // n_threads, end = count * (thread + 1) // n_threads
        cdef Py_ssize_t n_chunks = (end - row + FM_CHUNK_ROWS - 1) // FM_CHUNK_ROWS, n
        cdef Py_ssize_t O = self.plan.sizes[self.n_layers]
        cdef const Py_ssize_t *order
        cdef const Py_ssize_t *partner
        cdef fm_layer *last = &self.layers[self.n_layers - 1]
        cdef fm_profile *profile = &self.profiles[thread]
        cdef int l
        for n_chunks in range(n_chunks, 0, -1):
            if fm_leaves(&self.leave, ROWS):
                return
            n = (end - row) // n_chunks
            order, partner = NULL, NULL
            if e.order != NULL:
                order = e.order + first + row
            if e.partners != NULL:
                partner = e.partners + first + row
            if s == 0 and not e.use_sparse:
                self.fetch(e, order, partner, first + row, row, n)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_gather, 0)
            for l in range(self.ends[s - 1] + 1 if s > 0 else 0, self.ends[s] + 1):
                if l == 0 and e.use_sparse:
                    self.k.forward_csr(&self.layers[0], e.X, order, first + row, row, n, self.stride)
                else:
                    self.up(&self.layers[l], row, n)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, l)
            if s == self.n_segments - 1:
                self.k.loss_gradient(self.loss_row, last.dz, self.values + row, self.scratch + thread * self.scratch_bytes,
                                     e.targets, order, partner, first + row, row, n, O, self.stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_loss, 0)
                self.down(s, row, row + n, thread)
            row += n

    @cython.final
    cdef void up(self, const fm_layer *layer, Py_ssize_t row, Py_ssize_t n) noexcept nogil:
        """Rows through one layer."""
        cdef Py_ssize_t p = 0, piece = piece_of(n * layer.fan_in, layer.fan_out)
        while p * self.k.panel < layer.fan_out and not fm_leaves(&self.leave, ROWS):
            self.k.forward(layer, p, p + piece, row, n, self.stride)
            p += piece

    cdef void fetch(self, Epoch *e, const Py_ssize_t *order, const Py_ssize_t *partner, Py_ssize_t first_row, Py_ssize_t row,
                    Py_ssize_t n) noexcept nogil:
        """Rows of the input, changed as the run wants them."""
        cdef Py_ssize_t skip = row * self.k.panel * self.k.element_size
        cdef char *x = <char *> self.layers[0].x + skip
        cdef char *mixed = NULL
        self.k.gather(x, e.X, order, first_row, n, self.stride)
        if partner != NULL:
            mixed = self.partners + skip
            self.k.gather(mixed, e.X, partner, 0, n, self.stride)
        if e.changes_input:
            self.k.augment(x, mixed, e.targets.mix, &e.input, &self.rng, row, n, self.plan.sizes[0], self.stride)

    cdef void down(self, int s, Py_ssize_t row, Py_ssize_t end, int thread) noexcept nogil:
        """Rows back through segment s, as far as there is a layer that learns."""
        cdef Py_ssize_t n_chunks = (end - row + FM_CHUNK_ROWS - 1) // FM_CHUNK_ROWS, n
        cdef int l, bottom = max(self.lowest, self.ends[s - 1] if s > 0 else 0)
        for n_chunks in range(n_chunks, 0, -1):
            n = (end - row) // n_chunks
            for l in range(self.ends[s], bottom, -1):
                self.back(&self.layers[l], &self.layers[l - 1], row, n, thread)
                fm_profile_mark(&self.profiles[thread], self.n_layers, FM_SECTION_backward, l)
            row += n

    @cython.final
    cdef void back(self, const fm_layer *layer, const fm_layer *below, Py_ssize_t row, Py_ssize_t n, int thread) noexcept nogil:
        """Rows back through one layer."""
        cdef Py_ssize_t p = 0, piece = piece_of(n * layer.fan_out, layer.fan_in)
        while p * self.k.panel < layer.fan_in and not fm_leaves(&self.leave, ROWS):
            self.k.backward(layer, below, self.scratch + thread * self.scratch_bytes, p, p + piece, row, n, self.stride)
            p += piece

    cdef void between(self, int l, Py_ssize_t count, int thread, int n_threads, bint back) noexcept nogil:
        """This thread's columns of layer l's normalisation, forth or back, while no thread touches its rows."""
        cdef Py_ssize_t panels = self.plan.padded(self.layers[l].fan_out) // self.k.panel, p
        fm_barrier_wait(&self.barrier, n_threads)
        fm_profile_mark(&self.profiles[thread], self.n_layers, FM_SECTION_barrier, 0)
        for p in range(panels * thread // n_threads, panels * (thread + 1) // n_threads):
            if fm_leaves(&self.leave, ROWS):
                pass
            elif back:
                self.k.batch_norm_backward(&self.layers[l], p, count, self.stride)
            else:
                self.k.batch_norm_forward(&self.layers[l], p, count, self.stride)
        fm_profile_mark(&self.profiles[thread], self.n_layers, FM_SECTION_backward if back else FM_SECTION_forward, l)
        fm_barrier_wait(&self.barrier, n_threads)
        fm_profile_mark(&self.profiles[thread], self.n_layers, FM_SECTION_barrier, 0)

    # ---- Phase 2 -----------------------------------------------------------------------------------------------------

    cdef void across_batch(self, Epoch *e, const fm_hyper *common, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first,
                           Py_ssize_t rows, int accumulate, int rule, int thread) noexcept nogil:
        """This thread's blocks of weights and biases. With rows = 0 the gradients are there already."""
        cdef Py_ssize_t i, size = self.k.element_size, block = FM_BLOCK_ROWS * self.k.panel * size
        cdef int layer = -1
        cdef fm_hyper hyper = common[0]
        cdef bint sparse
        cdef Unit *unit
        cdef fm_layer *l
        cdef void *G = self.scratch + thread * self.scratch_bytes
        cdef fm_profile *profile = &self.profiles[thread]
        if e.use_sparse and rows:
            self.sort_columns(e, begin, end, first, rows, thread)
        for i in range(begin, end):
            if rule < 0 and fm_leaves(&self.leave, GRADIENTS):
                break
            unit = &self.units[i]
            l = &self.layers[unit.layer]
            if unit.layer != layer:
                if layer >= 0:
                    fm_profile_mark(profile, self.n_layers, FM_SECTION_update, layer)
                if layer < 0 or self.rates[unit.layer] != self.rates[layer]:
                    hyper.learning_rate = common.learning_rate * self.rates[unit.layer]
                    self.k.optimizers[e.rule].prepare(&hyper)
                layer = unit.layer
            if self.sums != NULL:
                G = self.sums + i * block
            if unit.n:
                sparse = unit.layer == 0 and e.use_sparse and rows > 0
                if sparse:
                    self.k.gradient_csr(G, &self.columns[thread], <char *> l.dz + unit.p * self.stride * size, unit.i0, unit.n,
                                        accumulate)
                self.k.update(l, G, self.penalties + i * self.k.panel, unit.i0, unit.n, unit.p, 0 if sparse else rows,
                              self.stride, 1 if sparse else accumulate, rule, &hyper)
            elif unit.kind == SCALE:
                if rule >= 0 and hyper.norm_momentum != 0:
                    self.k.update_running_statistics(l, unit.p, &hyper)
                self.k.update_scale(l, G, unit.p, rule, &hyper)
            else:
                self.k.update_bias(l, G, unit.p, rows, self.stride, accumulate, rule, &hyper)
        if begin < end:
            fm_profile_mark(profile, self.n_layers, FM_SECTION_update, layer)

    cdef void measure(self, const fm_hyper *hyper, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
        """Sums of squares of this thread's gradients, by column."""
        cdef Py_ssize_t i, block = FM_BLOCK_ROWS * self.k.panel * self.k.element_size
        cdef Unit *unit
        for i in range(begin, end):
            unit = &self.units[i]
            self.k.sum_squared_gradient(&self.layers[unit.layer], self.sums + i * block, self.squares + i * self.k.panel,
                                        unit.i0, unit.n, unit.p, hyper)

    cdef double clip_factor(self) noexcept nogil:
        """min(1, max_grad_norm / norm); not a number for a norm that is none or infinite, which then shows in the parameters:
        with 0 instead, training would stand still without a word."""
        cdef double norm = sqrt(self.in_order(self.squares))
        return 1 if norm <= self.max_grad_norm else self.max_grad_norm / norm if norm < INFINITY else NAN

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
            self.k.csr_to_csc(&self.columns[thread], e.X, order, first, rows, self.units[begin].i0,
                               self.units[last - 1].i0 + self.units[last - 1].n)

    # ---- Bookkeeping -------------------------------------------------------------------------------------------------

    cdef void arrive(self, Epoch *e) noexcept nogil:
        """Thread 0: what depends on where the epoch stands, before the threads go on."""
        cdef Position *position = &self.position
        cdef Py_ssize_t rows = min(e.batch_size, e.n_rows - position.first)
        self.rng.step = <uint32_t> (e.t + position.step + 1)
        self.rng.row = rows * position.slab // ((rows + self.slab_rows - 1) // self.slab_rows) if rows > 0 else 0
        if e.mix != NULL and position.step < e.n_steps:
            e.targets.mix = e.mix[position.step]

    cdef void advance(self, Epoch *e, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t count,
                      Py_ssize_t n_slabs) noexcept nogil:
        """Thread 0, while the others finish phase 2: sum the slab's losses in the order of the rows, move on."""
        cdef Position *position = &self.position
        cdef double weight
        cdef Py_ssize_t r
        if e.weight_sums[position.step] != 0:
            for r in range(count):
                weight = row_weight(e, first + r, e.targets.mix)
                if weight != 0:
                    position.step_loss += weight * self.values[r]
        position.rows += count
        position.slab += 1
        if position.slab == n_slabs:
            if e.weight_sums[position.step] != 0:
                position.step_loss /= e.weight_sums[position.step]
                position.loss += position.step_loss * rows
            if e.step_losses != NULL:
                e.step_losses[position.step] = position.step_loss
            position.step_loss = 0
            position.slab = 0
            position.step += 1
            position.first += rows
        self.arrive(e)
        if position.step == e.n_steps or fm_leave_asked(&self.leave) or fm_seconds() >= e.slice_end:
            position.stop = 1


cdef void work_aside(void *what) noexcept nogil:
    cdef Work *work = <Work *> what
    (<Trainer> work.trainer).work_all(work.epoch, work.n_threads)


cdef const Py_ssize_t *list_partners(const Epoch *e, list memory) except NULL:
    """Of each row of the epoch's order: the next one of its batch, the first one for the last."""
    cdef Buffer room = Buffer((e.n_rows + 1) * sizeof(Py_ssize_t), False)
    cdef Py_ssize_t *partners = <Py_ssize_t *> room.at
    cdef Py_ssize_t first, last, r, next
    memory.append(room)
    for first in range(0, e.n_rows, e.batch_size):
        last = min(first + e.batch_size, e.n_rows)
        for r in range(first, last):
            next = first if r == last - 1 else r + 1
            partners[r] = next if e.order == NULL else e.order[next]
    return partners
