"""Training: Trainer checks the arguments of an epoch and runs its steps on threads, which are Steps' part.

Work goes on in slices of time, a slice being at least one micro-batch. Between slices Python handles signals.
"""

import numpy

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid
from libc.stdint cimport uint32_t
from libc.string cimport memset

from fastmlp.core._arrays cimport Buffer, InputRows, Reserve, array_address, first_outside
from fastmlp.core._csrc cimport *
from fastmlp.core._dispatch cimport Caller, region_begins, region_ends, set_hyperparameters, usable_threads
from fastmlp.core._plan cimport Plan
from fastmlp.core._step cimport Epoch, Progress, Steps, list_partners, weight_sum
from fastmlp.core._workspace cimport OptimizerPanels, Workspace

from fastmlp.core._dispatch import LOSSES, OPTIMIZERS

__all__ = ["Cancelled", "Trainer"]

# Weight of a full batch in the running averages of batch normalisation.
cdef double NORM_MOMENTUM = 0.1


def are_factors(factors) -> bool:
    """Whether these are two times three finite numbers >= 0."""
    return len(factors) == 2 and all(len(three) == 3 and all(0 <= f < float("inf") for f in three) for three in factors)


class Cancelled(Exception):
    """The event `Trainer.cancel` was set."""


# ---- Training --------------------------------------------------------------------------------------------------------

@cython.final
cdef class InUse:
    """Marks a Trainer as in use, by one call at a time, for as long as this object lives."""

    cdef Trainer trainer

    def __cinit__(self, Trainer trainer):
        if trainer.memory.finished:
            raise RuntimeError("this Trainer has finished: its memory is freed")
        if atomic_flag_test_and_set(&trainer.in_use):
            raise RuntimeError("this Trainer is in use: an epoch of it runs, or another thread has it")
        self.trainer = trainer

    def __dealloc__(self):
        if self.trainer is not None:
            atomic_flag_clear(&self.trainer.in_use)


cdef class Trainer(Steps):
    """One training run: its memory, and epochs over it.

    Parameters
    ----------
    plan : Plan
        Its output activation must be the one that belongs to the loss.
    loss : str
        One of LOSSES.
    optimizer : str
        One of OPTIMIZERS. 'gradient' updates nothing; `loss_gradient` needs it.
    batch_size : int
        Largest number of rows in a step.
    n_threads : int, default=1
        Most threads to use; fewer run when fewer are faster. The result does not depend on it.
    dropout : sequence of float, one per layer, default=None
        Rates in [0, 1) of dropout on each layer's input. None: no dropout.
    layer_rates : sequence of float, one per layer, default=None
        Factors of the learning rate in each layer; None: 1. A layer with factor 0 does not change and pays no penalty;
        batch normalisation then uses its running averages, not the batch's.
    factors : sequence of ((float, float, float), (float, float, float)), one per layer, default=None
        Factors of the learning rate, of epsilon and of the weight decay: for the layer's weights, and for its biases
        and scales, which have no decay. Those of `layer_rates` multiply the rates too. None: 1 everywhere.
    input_scaling : (float, float, float), default=None
        The same factors of a scaling s of the input, which begins as ones and is trained with the first layer: (s x) W
        in x W's place. `load` takes W from the parameters, and `store` makes diag(s) W of it, so that the network needs
        no scaling; s and its optimizer state stay in the Trainer. None: no scaling. Not for a first layer that embeds,
        is residual or is frozen.
    max_grad_norm : float, default=0.0
        The gradient of all layers that learn is scaled down to this Euclidean norm; 0: never.
    reserve : Reserve, default=None
        Lends the memory that earlier Trainers have returned to it, and gets this one's. What does not fit is freed.
        `load` must then come before the first epoch.

    Attributes
    ----------
    cancel : threading.Event or None
        If it is set, from any thread, an epoch ends within 0.1 s, or one micro-batch if that takes longer: at most 512
        rows, but a whole batch with batch normalisation. So does Ctrl-C in the main thread.

    paced : bool
        Whether it begins with as many threads as helped the last run of the reserve, one of the same sizes.

    Raises
    ------
    ValueError, MemoryError
    """

    cdef readonly str loss
    cdef readonly str optimizer
    cdef readonly Py_ssize_t batch_size
    cdef readonly int n_threads
    cdef readonly bint paced
    cdef public object cancel
    cdef Reserve reserve
    cdef int rule
    cdef atomic_flag in_use
    cdef fm_pace pace
    cdef Py_ssize_t t              # updates before the epoch that `progress` is of
    cdef bint resumes              # the next epoch begins where `progress` is
    cdef double shard_weight       # sum of its rows' weights
    cdef bint only_sums            # the call is one of `sums`

    def __cinit__(self, Plan plan not None, str loss not None, str optimizer not None, Py_ssize_t batch_size,
                  int n_threads=1, *, dropout=None, layer_rates=None, factors=None, input_scaling=None,
                  double max_grad_norm=0.0, Reserve reserve=None):
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
        if factors is not None and not (len(factors) == plan.n_layers and all(map(are_factors, factors))):
            raise ValueError(f"factors must hold 2 x 3 numbers >= 0 for each of {plan.n_layers} layers, got {factors}")
        if input_scaling is not None:
            if not are_factors((input_scaling, input_scaling)):
                raise ValueError(f"input_scaling must be None or three numbers >= 0, got {input_scaling}")
            if plan.embedding or plan.adds_input(0) or layer_rates[0] == 0:
                raise ValueError("input_scaling needs a dense first layer, neither residual nor frozen")
        if not max_grad_norm >= 0:
            raise ValueError(f"max_grad_norm must be >= 0, got {max_grad_norm}")
        self.plan, self.loss, self.optimizer = plan, loss, optimizer
        self.batch_size, self.n_threads, self.max_grad_norm = batch_size, n_threads, max_grad_norm
        self.loss_row = list(LOSSES).index(loss)
        self.rule = list(OPTIMIZERS).index(optimizer)
        self.norm_momentum = 0 if optimizer == "gradient" else NORM_MOMENTUM
        self.input_rate = dropout[0]
        self.memory = Workspace(plan, OPTIMIZERS[optimizer], batch_size, n_threads, dropout, layer_rates,
                                factors, input_scaling, max_grad_norm > 0, reserve)
        self.reserve = reserve
        if reserve is not None:
            reserve.clear()
            self.paced = reserve.pace_of == self.pace_of()
            if self.paced:
                self.pace = reserve.pace
        self.k, self.n_layers, self.layers = plan.k, plan.n_layers, self.memory.layers
        atomic_flag_clear(&self.in_use)
        fm_barrier_init(&self.barrier)

    def epoch(self, X, y, sample_weight, order, learning_rates, Py_ssize_t t, *, double alpha=0.0, double l1_ratio=0.0,
              double loss_parameter=1.0, double label_smoothing=0.0, double input_noise=0.0, double input_mask=0.0,
              mix=None, dropout_factors=None, decay_factors=None, seed=0, str loss_reduction="weighted_mean",
              step_losses=None, Py_ssize_t before=0, **hyperparameters):
        """One pass over the rows `order` of X, in batches of `batch_size`; the last one may be smaller.

        An epoch whose rows are not all in memory takes several calls, each with whole batches but for the last one.

        Parameters
        ----------
        X : ndarray or CSR of shape (n, n_features), float32 or float64, or Codes
            Codes take no noise, mask, mixup or dropout of the input, and no residual first layer.
        y : intp array (n,) of class indices for a softmax, else array (n, O) in the plan's dtype or uint8
        sample_weight : float64 array (n,), (n, O) or None
            (n, O), not for a softmax: of each output; 0 leaves the target out, which may then be NaN. The weight of a
            row is their mean.
        order : intp array or None
            None takes all rows in order.
        learning_rates : float64 array, one per step
        t : int
            Number of updates before this call.
        loss_parameter : float
            Quantile or delta, for the losses that have one.
        label_smoothing : float
        input_noise, input_mask : float
            Standard deviation of the noise that is added to X; share of the numbers in X that become 0.
        mix : float64 array, one per step, or None
            Mixup: share of each row itself; the rest is the next row of its batch (the first one for the last).
        dropout_factors, decay_factors : float64 array, one per step, or None
            Factors in [0, 1] of all rates of dropout, and of the weight decay; None: 1.
        seed : int
            Key, of 64 bits, of dropout, noise and mask; their counters are t + step, layer, row in the batch and
            column.
        loss_reduction : {'weighted_mean', 'mean'}
            What divides a step's sum of weighted losses, and its penalty: the sum of weights, or the number of rows.
        step_losses : float64 array, one per step, or None
            Receives each step's mean loss, without penalty.
        before : int, default=0
            Rows of the epoch in earlier calls, to whose losses those of this call are added.
        **hyperparameters : float
            Constants of the update rules, by the names of csrc/hyperparameters.def; defaults as in its table.

        Returns
        -------
        float
            Sum over the epoch's batches so far of (weighted mean loss + penalty / weight sum) * rows, divided by the
            number of rows, for 'mean' with the batch's rows for its weight sum. A batch whose weights sum to zero
            changes nothing and adds
            nothing.

        Raises
        ------
        KeyboardInterrupt, or whatever a signal handler raises; Cancelled. The parameters are then those of the last
        whole step.
        """
        cdef InUse _in_use = InUse(self)  # until this call ends
        cdef InputRows rows = InputRows(X, self.plan.sizes[0])
        cdef int n_members = self.plan.n_members
        cdef Workspace memory = self.memory
        cdef Epoch e
        cdef Py_ssize_t m = rows.n if order is None else len(order), s
        cdef list kept = []
        memset(&e, 0, sizeof(Epoch))
        self.plan.read_targets(&e.targets, self.loss_row, rows.n, y, sample_weight)
        e.targets.parameter, e.targets.smoothing = loss_parameter, label_smoothing
        e.input.noise, e.input.mask, e.input.dropout = input_noise, input_mask, self.input_rate
        e.changes_input = input_noise != 0 or input_mask != 0 or self.input_rate != 0 or mix is not None
        if loss_reduction not in ("weighted_mean", "mean"):
            raise ValueError(f"loss_reduction must be 'weighted_mean' or 'mean', got {loss_reduction!r}")
        e.counts_rows = loss_reduction == "mean"
        e.use_sparse = rows.use_sparse and not e.changes_input and not self.layers[0].residual
        memory.input_share = 1
        self.plan.check_rows(rows)
        if rows.codes is not None:
            if e.changes_input:
                raise ValueError("codes cannot be changed: input_noise, input_mask, mix and dropout[0] need other rows")
            e.codes = &rows.codes.c
            memory.make_room_for_codes(rows, m, kept)
        elif e.use_sparse:
            memory.make_room_for_columns(rows, m, kept)
        else:
            memory.make_room_for_input(mix is not None)
        e.X, e.n_rows, e.batch_size, e.t, e.rule = &rows.rows, m, self.batch_size, t, self.rule
        e.n_outputs = self.plan.sizes[self.n_layers]
        e.n_steps = (m + self.batch_size - 1) // self.batch_size
        e.order = self.read_order(order, rows.n)
        e.learning_rates = <double *> array_address(learning_rates, e.n_steps, b'd', "learning_rates")
        if mix is not None:
            e.mix = <double *> array_address(mix, e.n_steps, b'd', "mix")
            e.partners = list_partners(&e, kept)
        self.set_dropout(&e, 1)
        if dropout_factors is not None:
            e.dropout_factors = <double *> array_address(dropout_factors, e.n_steps, b'd', "dropout_factors")
        if decay_factors is not None:
            e.decay_factors = <double *> array_address(decay_factors, e.n_steps, b'd', "decay_factors")
        if step_losses is not None:
            e.step_losses = <double *> array_address(step_losses, e.n_steps, b'd', "step_losses", True)
        cdef Buffer sums = Buffer(e.n_steps * sizeof(double))
        e.weight_sums = <double *> sums.at
        with nogil:
            for s in range(e.n_steps):
                (<double *> sums.at)[s] = weight_sum(&e, s)
        set_hyperparameters(&e.hyper, hyperparameters)
        # The members' losses are added up, and their number divides the sum of weights.
        e.hyper.l1, e.hyper.l2 = n_members * alpha * l1_ratio, n_members * alpha * (1 - l1_ratio)
        e.hyper.clip = 1
        memory.rng.key[0], memory.rng.key[1] = <uint32_t> (seed & 0xffffffff), <uint32_t> (seed >> 32 & 0xffffffff)
        if self.only_sums:
            e.only_sums, self.shard_weight = True, e.weight_sums[0]
            (<double *> sums.at)[0] = 1 if self.shard_weight != 0 else 0
        elif memory.source is not None:
            s = self.progress.step if self.resumes else 0
            while s < e.n_steps and e.weight_sums[s] == 0:
                s += 1
            e.fetch_t = t + s + 1
        memory.blank = False
        try:
            self.run_epoch(&e, before > 0 or self.only_sums)
        finally:
            if e.fetch_t > 0 and t + self.progress.step >= e.fetch_t:
                memory.source = None
        m += before
        return (self.progress.loss + memory.sum_in_order(memory.penalties)) / m if m else 0.0

    def position(self) -> tuple:
        """How far the last epoch came, also if it was interrupted.

        Returns
        -------
        n_updates : int
            Updates so far, with those before the epoch: whole steps.
        loss : float
            Sum over the epoch's steps of the mean loss times the rows.
        penalties : float64 array
            Sums over the epoch's steps by layer, block of rows and column, the same for every panel width.
        """
        cdef InUse _in_use = InUse(self)
        penalties = numpy.zeros(self.memory.count_columns())
        self.memory.copy_penalties(penalties, False)
        return self.t + self.progress.step, self.progress.loss, penalties

    def resume(self, Py_ssize_t t, Py_ssize_t steps, double loss, penalties):
        """Let the next epoch begin after `steps` steps, with the sums of `position`; `t` as the epoch gets it.

        Raises
        ------
        ValueError
            If `penalties` are not those of such a network.
        """
        cdef InUse _in_use = InUse(self)
        self.memory.copy_penalties(penalties, True)
        memset(&self.progress, 0, sizeof(Progress))
        self.t, self.progress.step, self.progress.loss, self.resumes = t, steps, loss, True

    def load(self, parameters, state=None, statistics=None):
        """Copy in flat parameters, the optimizer's state, and the running averages of batch normalisation.

        state: OptimizerPanels, arrays (n_state, n_parameters), or None for zeros. RuntimeError during an epoch, also in
        a signal handler.
        """
        cdef InUse _in_use = InUse(self)
        self.memory.load(parameters, state, statistics)

    def store(self, parameters, state=None, statistics=None):
        """Copy out the parameters, and the other arrays that are given. RuntimeError during an epoch, also in a signal
        handler: weights may be half updated. Returns whether parameters and running averages are finite."""
        cdef InUse _in_use = InUse(self)
        return self.memory.store(parameters, state, statistics)

    cdef tuple pace_of(self):
        """What decides whether more threads help."""
        return (self.plan.layer_sizes, self.plan.embedding, self.plan.n_members, self.plan.dtype, self.batch_size,
                self.n_threads)

    def optimizer_state(self) -> OptimizerPanels:
        """The optimizer's state, without a copy: the next epoch changes it."""
        cdef InUse _in_use = InUse(self)
        self.memory.settle_state()
        return self.memory.state

    def finish(self) -> OptimizerPanels:
        """The optimizer's state, without a copy, for good: the Trainer cannot be used afterwards."""
        cdef InUse _in_use = InUse(self)
        if self.reserve is not None:
            self.reserve.pace, self.reserve.pace_of = self.pace, self.pace_of()
        return self.memory.finish()

    def loss_gradient(self, parameters, X, y, sample_weight, out, *, statistics=None, **constants):
        """Loss of all rows of X at `parameters`; its gradient goes to the flat array `out`; `constants` as in epoch."""
        if self.optimizer != "gradient":
            raise ValueError(f"loss_gradient needs optimizer 'gradient', this Trainer has {self.optimizer!r}")
        if len(X) > self.batch_size if isinstance(X, numpy.ndarray) else X.shape[0] > self.batch_size:
            raise ValueError(f"X has more rows than the batch size {self.batch_size}")
        cdef char *at = <char *> array_address(out, self.plan.n_parameters, self.plan.kind, "out", True)
        self.load(parameters, None, statistics)
        loss = self.epoch(X, y, sample_weight, None, numpy.zeros(1), 0, **constants)
        self.plan.unpack(at, self.layers, 0)
        return loss

    def sums(self, X, y, sample_weight, order, out, Py_ssize_t t, *, Py_ssize_t first_row=0, **constants) -> tuple:
        """Sums of a shard's rows, which are some of a step's: gradient, losses and weights. Nothing is updated.

        Those of all shards of the step, added up, are what `update` takes. The sums of a step of one shard give the
        bits of `epoch`. Rows are added in their order, dropout, noise and mask are drawn by the row in the batch.

        Parameters
        ----------
        X, y, sample_weight, order, t : as in `epoch`
            At most `batch_size` rows; mixup's partners are rows of the shard.
        out : array (n_parameters,)
            Receives the gradient of the sum of weighted losses; 0 for layers that do not learn.
        first_row : int, default=0
            Rows of the batch in the shards before this one.
        **constants
            As in `epoch`, but for the penalty and the constants of the update rule, which are those of `update`.

        Returns
        -------
        loss, weight : float
            Sum of weighted losses, and of weights; with loss_reduction='mean', of rows. Both are 0 if all weights are.

        Raises
        ------
        ValueError
            With batch normalisation, an embedding, members or a scaling of the input.
        """
        cdef InUse _in_use = InUse(self)
        cdef Progress progress = self.progress
        cdef Py_ssize_t before = self.t
        cdef char *at = <char *> array_address(out, self.plan.n_parameters, self.plan.kind, "out", True)
        cdef Py_ssize_t m = X.shape[0] if order is None else len(order)
        self.check_sums()
        memset(at, 0, self.plan.n_parameters * self.k.element_size)
        if m > self.batch_size:
            raise ValueError(f"a shard of {m} rows does not fit batches of {self.batch_size}")
        if m == 0:
            return 0.0, 0.0
        loss = numpy.zeros(1)
        self.only_sums, self.first_row = True, first_row
        _in_use = None  # for the epoch
        try:
            self.epoch(X, y, sample_weight, order, numpy.zeros(1), t, step_losses=loss, **constants)
        finally:
            self.only_sums, self.first_row, self.progress, self.t = False, 0, progress, before
        if self.shard_weight == 0:
            return 0.0, 0.0
        self.memory.copy_gradients(at, False)
        return float(loss[0]), self.shard_weight

    def update(self, sums, double weight, Py_ssize_t rows, double learning_rate, Py_ssize_t t, *, double alpha=0.0,
               double l1_ratio=0.0, **hyperparameters) -> float:
        """One update from the sums of a step's shards.

        Parameters
        ----------
        sums : array (n_parameters,)
            Gradient of the sum of weighted losses, from `sums`.
        weight, rows : float, int
            Sum of the weights, which divides the gradient; rows of the step. With weight 0 nothing changes.
        learning_rate : float
        t : int
            Number of updates before this one.
        alpha, l1_ratio, **hyperparameters
            As in `epoch`.

        Returns
        -------
        float
            Sum over the updates since `load` or `resume` of penalty / weight * rows.
        """
        cdef InUse _in_use = InUse(self)
        cdef Caller _caller = Caller()
        cdef char *at = <char *> array_address(sums, self.plan.n_parameters, self.plan.kind, "sums")
        cdef int n_threads
        cdef Epoch e
        self.check_sums()
        if weight == 0:
            return self.memory.sum_in_order(self.memory.penalties)
        memset(&e, 0, sizeof(Epoch))
        set_hyperparameters(&e.hyper, hyperparameters)
        e.rule, e.t = self.rule, t
        e.hyper.l1, e.hyper.l2, e.hyper.clip = alpha * l1_ratio, alpha * (1 - l1_ratio), 1
        e.hyper.learning_rate, e.hyper.t = learning_rate, t + 1
        e.hyper.weight_sum, e.hyper.penalty_scale = weight, rows / weight
        e.fetch_t = t + 1 if self.memory.source is not None else 0
        self.memory.blank, self.memory.input_share = False, 1
        self.memory.copy_gradients(at, True)
        n_threads = usable_threads(self.n_threads)
        if n_threads == 1:
            with nogil:
                self.update_thread(&e, 0, 1)
        else:
            n_threads = region_begins(n_threads)
            with nogil, parallel(num_threads=n_threads):
                self.update_thread(&e, threadid(), omp_get_num_threads())
            region_ends()
        if e.fetch_t > 0:
            self.memory.source = None
        self.t, self.progress.step = t + 1, 0
        return self.memory.sum_in_order(self.memory.penalties)

    cdef int check_sums(self) except -1:
        """ValueError for networks that shards cannot train; room for the gradient."""
        if self.memory.finished:
            raise RuntimeError("this Trainer has finished: its memory is freed")
        if self.plan.batch_norm or self.plan.embedding or self.plan.n_members > 1 or self.memory.unscaled != NULL:
            raise ValueError(
                "shards cannot train batch normalisation, an embedding, members, or a scaling of the input"
            )
        self.memory.make_room_for_gradients()
        return 0

    cdef void update_thread(self, Epoch *e, int thread, int n_threads) noexcept nogil:
        """This thread's items, updated from the gradient that is there."""
        cdef Py_ssize_t begin = self.memory.first_item(thread, n_threads)
        cdef Py_ssize_t end = self.memory.first_item(thread + 1, n_threads)
        cdef fm_hyper hyper = e.hyper
        if self.memory.squares != NULL:
            self.gradient_norms(&hyper, begin, end)
            fm_barrier_wait(&self.barrier, n_threads)
            hyper.clip = self.clip_factor()
        self.gradient_update(e, &hyper, begin, end, 0, 0, 1, e.rule, thread)

    def profile(self) -> dict:
        """Seconds so far by (section, layer), a list with one number per thread. Sections that belong to no layer are
        counted at layer 0. Raises RuntimeError unless the package was built with FASTMLP_PROFILE=1."""
        cdef int section, l, t
        if not FM_HAS_PROFILE:
            raise RuntimeError("profiles are compiled in on request only: build with FASTMLP_PROFILE=1")
        return {
            (fm_section_name(section).decode(), l): [
                self.memory.profiles[t].seconds[section * self.n_layers + l] for t in range(self.n_threads)
            ]
            for section in range(FM_N_SECTIONS) for l in range(self.n_layers)
        }

    cdef const Py_ssize_t *read_order(self, order, Py_ssize_t n) except? NULL:
        cdef Py_ssize_t i, m
        cdef const Py_ssize_t *at
        if order is None:
            return NULL
        m = len(order)
        at = <Py_ssize_t *> array_address(order, m, b'i', "order")
        with nogil:
            i = first_outside(at, m, n)
        if i < m:
            raise IndexError(f"order must lie in [0, {n}), got {at[i]}")
        return at

    cdef int run_epoch(self, Epoch *e, bint continues) except -1:
        """The steps, in slices of time."""
        cdef Caller _caller = Caller()  # until this call ends
        cdef Progress *progress = &self.progress
        cdef int n_threads
        if continues and not self.resumes:
            progress.step = progress.micro_batch = 0
            progress.step_loss = 0
        elif not self.resumes:
            memset(progress, 0, sizeof(Progress))
            memset(self.memory.penalties, 0, self.memory.n_items * self.k.panel * sizeof(double))
        progress.step = min(progress.step, e.n_steps)
        progress.first = min(progress.step * e.batch_size, e.n_rows)
        self.t, self.resumes = e.t, False
        self.begin_micro_batch(e)
        if self.pace.measured[0] == self.pace.measured[1] == 0 and self.seconds_on_one(e) > FM_FIRST:
            fm_pace_begin_on_all(&self.pace, fm_seconds())
        while progress.step < e.n_steps:
            self.poll_signals()
            progress.stop, progress.rows = 0, 0
            n_threads = usable_threads(self.n_threads)  # the number of other callers may have changed
            e.slice_end = fm_pace_begin(&self.pace, n_threads, fm_seconds())
            self.run_slice(e, 1 if self.pace.trial == 0 else n_threads)
            if n_threads > 1:
                fm_pace_end(&self.pace, progress.rows, fm_seconds())
        PyErr_CheckSignals()
        return 0

    cdef double seconds_on_one(self, const Epoch *e) noexcept nogil:
        """Rough duration of a micro-batch on one thread: three products' arithmetic and an update's memory."""
        cdef double bytes = <double> self.plan.n_weights * self.k.element_size
        cdef Py_ssize_t rows = min(min(e.batch_size, e.n_rows), self.memory.micro_batch_rows) * self.plan.n_members
        return rows * bytes / 1e11 + 2 * (1 + self.memory.n_state) * bytes / 1e10

    cdef int poll_signals(self) except -1:
        """Run signal handlers; raise what they raise, or Cancelled."""
        PyErr_CheckSignals()
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled
        return 0

    cdef int run_slice(self, Epoch *e, int n_threads) except -1:
        """Steps from the current one until the slice or the epoch ends.

        It holds the GIL and gives it up around the region: within a nogil function, Cython would save the state of each
        thread, which is fatal once the process has had a subinterpreter.
        """
        if n_threads == 1:
            with nogil:
                self.run_thread(e, 0, 1)
            return 0
        n_threads = region_begins(n_threads)
        with nogil, parallel(num_threads=n_threads):
            self.run_thread(e, threadid(), omp_get_num_threads())
        region_ends()
        return 0
