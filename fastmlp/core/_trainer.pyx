"""Training: Trainer splits the steps of a run over threads and calls the C kernels.

Nothing is computed here but sums of losses: every product, activation, loss and update is a kernel of csrc/fastmlp.h.

A step has two phases, with a barrier after each:
    1. forward and backward: each thread takes some of the rows through the network
    2. gradient and update: each thread takes some blocks of weights, over all rows of the batch
Batch normalisation cuts phase 1 into segments: its statistics are computed by columns, with a barrier before and after.
Codes begin with a phase of their own at each step: the sums of the first layer's weights before each bin.
Several members share the product of the first hidden layer, and have their own rows from there on: barriers follow and
precede it, since its rows are shared out by themselves.
Clipping cuts phase 2: all gradients first, then, when their norm is known, all updates. A scaling of the input cuts it
for the first layer's weights: the gradient of a row's scale is a sum over the whole row.
A batch of more than 512 rows (128 to 512 in very large networks) is computed in micro-batches. Phase 2 carries its sums
from one to the next, which keeps both their order and the memory small. No result depends on the number of threads:
each sum belongs to one kernel, which adds in the order of the rows, and random numbers depend on their position only.

Work goes on in slices of time, a slice being at least one micro-batch. Between slices Python handles signals.
"""

import numpy

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid
from libc.math cimport INFINITY, NAN, sqrt
from libc.stdint cimport uint32_t
from libc.string cimport memset

from fastmlp.core._arrays cimport Buffer, InputRows, Reserve, array_address, first_outside
from fastmlp.core._csrc cimport *
from fastmlp.core._dispatch cimport Caller, region_begins, region_ends, set_hyperparameters, usable_threads
from fastmlp.core._openmp cimport *
from fastmlp.core._plan cimport Plan
from fastmlp.core._workspace cimport INPUT_SCALE, SCALE, WEIGHTS, Factors, OptimizerPanels, WorkItem, Workspace

from fastmlp.core._dispatch import LOSSES, OPTIMIZERS

__all__ = ["Cancelled", "Trainer"]

# Weight of a full batch in the running averages of batch normalisation.
cdef double NORM_MOMENTUM = 0.1


cdef struct Progress:
    # How far an epoch has come. Thread 0 alone writes it, between barriers.
    Py_ssize_t step, micro_batch
    Py_ssize_t first               # position in the epoch's order of the step's first row
    Py_ssize_t rows                # rows finished in this slice
    double step_loss               # sum over the step's rows
    double loss                    # sum over steps of the mean loss times the rows
    int stop                       # the slice or the epoch ends here


cdef struct Epoch:
    # Arguments of one call of Trainer.epoch, read by all threads.
    const fm_rows *X
    const fm_codes *codes          # X, if it holds codes; else NULL
    bint use_sparse, changes_input
    bint only_sums                 # the step ends with its gradient's sums: see Trainer.sums
    bint counts_rows               # losses are divided by the number of rows, not by the sum of weights
    fm_augment input
    fm_targets targets
    const Py_ssize_t *order
    const Py_ssize_t *partners     # row that is mixed into each row of the order; NULL without mixup
    Py_ssize_t n_rows, n_outputs, batch_size, n_steps, t
    const double *learning_rates   # of each step
    const double *mix              # of each step
    const double *dropout_factors  # of each step; NULL: 1
    const double *decay_factors    # of each step; NULL: 1
    const double *weight_sums      # of each step
    Py_ssize_t fetch_t             # number of the update that reads an earlier run's state; 0: none does
    double *step_losses            # NULL: not wanted
    fm_hyper hyper
    double slice_end
    int rule


cdef double row_weight(const Epoch *e, Py_ssize_t r, double mix) noexcept nogil:
    """Weight of row r of the epoch's order; with mixup, its partner's weight in proportion. Of a row whose outputs have
    weights, their mean."""
    cdef const double *weights = e.targets.weights
    if e.targets.output_weights != NULL:
        return mean_output_weight(e, r, mix)
    if weights == NULL:
        return 1
    if e.partners != NULL:
        return mix * weights[r if e.order == NULL else e.order[r]] + (1 - mix) * weights[e.partners[r]]
    return weights[r if e.order == NULL else e.order[r]]


cdef double mean_output_weight(const Epoch *e, Py_ssize_t r, double mix) noexcept nogil:
    """Mean of the weights of a row's outputs; with mixup, of those mixed with its partner's."""
    cdef Py_ssize_t row = r if e.order == NULL else e.order[r], O = e.n_outputs, o
    cdef const double *own = e.targets.output_weights + row * O
    cdef const double *partner = own
    cdef double total = 0
    if e.partners != NULL:
        partner = e.targets.output_weights + e.partners[r] * O
    for o in range(O):
        total += own[o] if e.partners == NULL else fm_mixed_weight(own[o], partner[o], mix)
    return total / O


cdef double weight_sum(const Epoch *e, Py_ssize_t step) noexcept nogil:
    """Sum of the weights of a step's rows, in their order; without weights, the number of rows. So it is with
    `counts_rows`, unless all weights are 0."""
    cdef Py_ssize_t first = step * e.batch_size, last = min(first + e.batch_size, e.n_rows), r
    cdef double total = 0
    if e.targets.weights == NULL and e.targets.output_weights == NULL:
        return <double> (last - first)
    for r in range(first, last):
        total += row_weight(e, r, 1 if e.mix == NULL else e.mix[step])
    return <double> (last - first) if e.counts_rows and total != 0 else total


cdef const Py_ssize_t *list_partners(const Epoch *e, list kept) except NULL:
    """Mixup's partner of each row of the epoch's order: the next row of its batch, or the first one for the last."""
    cdef Buffer room = Buffer((e.n_rows + 1) * sizeof(Py_ssize_t), False)
    cdef Py_ssize_t *partners = <Py_ssize_t *> room.at
    cdef Py_ssize_t first, last, r, next
    kept.append(room)
    for first in range(0, e.n_rows, e.batch_size):
        last = min(first + e.batch_size, e.n_rows)
        for r in range(first, last):
            next = first if r == last - 1 else r + 1
            partners[r] = next if e.order == NULL else e.order[next]
    return partners


def are_factors(factors) -> bool:
    """Whether these are two times three finite numbers >= 0."""
    return len(factors) == 2 and all(len(three) == 3 and all(0 <= f < float("inf") for f in three) for three in factors)


cdef bint same_factors(const Factors *a, const Factors *b) noexcept nogil:
    return a.rate == b.rate and a.epsilon == b.epsilon and a.decay == b.decay


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


cdef class Trainer:
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
    cdef Plan plan
    cdef Workspace memory
    cdef Reserve reserve
    cdef const fm_kernels *k
    cdef fm_layer *layers          # of the workspace
    cdef int n_layers, loss_row, rule
    cdef double norm_momentum, max_grad_norm, input_rate
    cdef atomic_flag in_use
    cdef fm_barrier barrier
    cdef fm_pace pace
    cdef Progress progress
    cdef Py_ssize_t t              # updates before the epoch that `progress` is of
    cdef bint resumes              # the next epoch begins where `progress` is
    cdef double shard_weight       # sum of its rows' weights
    cdef bint only_sums            # the call is one of `sums`
    cdef Py_ssize_t first_row      # of its shard, in the batch

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

    cdef void run_thread(self, Epoch *e, int thread, int n_threads) noexcept nogil:
        """One thread's part of a slice."""
        cdef Progress *progress = &self.progress
        cdef fm_hyper hyper = e.hyper
        cdef Py_ssize_t begin = self.memory.first_item(thread, n_threads)
        cdef Py_ssize_t end = self.memory.first_item(thread + 1, n_threads)
        cdef Py_ssize_t step, micro_batch, n_micro_batches, rows, first, count
        cdef bint last
        cdef fm_profile *profile = &self.memory.profiles[thread]
        fm_profile_begin(profile)
        while not progress.stop:
            step, micro_batch = progress.step, progress.micro_batch
            rows = min(e.batch_size, e.n_rows - progress.first)
            n_micro_batches = self.count_micro_batches(rows)
            first = rows * micro_batch // n_micro_batches
            count = rows * (micro_batch + 1) // n_micro_batches - first
            first += progress.first
            if e.weight_sums[step] != 0:
                if e.codes != NULL and micro_batch == 0:
                    self.sum_bins(e.codes, thread, n_threads)
                if self.plan.n_members > 1:
                    self.forward_backward_members(e, first, count, thread, n_threads)
                else:
                    self.forward_backward(e, first, count, thread, n_threads)
                fm_barrier_wait(&self.barrier, n_threads)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)
                hyper.learning_rate, hyper.t = e.learning_rates[step], e.t + step + 1
                if e.decay_factors != NULL:
                    hyper.weight_decay = e.hyper.weight_decay * e.decay_factors[step]
                hyper.weight_sum = self.plan.n_members * e.weight_sums[step]
                hyper.penalty_scale = rows / hyper.weight_sum
                # In proportion to its rows: the last batch of an epoch may have one row, of variance 0. Measured with
                # 401 rows in batches of 200: the full momentum for the last one takes R^2 from 0.98 to 0.30.
                hyper.norm_momentum = self.norm_momentum * (rows / <double> e.batch_size)
                last = micro_batch == n_micro_batches - 1 and not e.only_sums
                if self.memory.squares == NULL:
                    self.gradient_update(e, &hyper, begin, end, first, count, micro_batch > 0, e.rule if last else -1,
                                         thread)
                    if last and self.memory.unscaled != NULL:
                        fm_barrier_wait(&self.barrier, n_threads)
                        self.scaling_gradients(thread, n_threads)
                        self.update_scaled(e, &hyper, thread, n_threads)
                else:
                    self.gradient_update(e, &hyper, begin, end, first, count, micro_batch > 0, -1, thread)
                    if last:
                        if self.memory.unscaled != NULL:
                            fm_barrier_wait(&self.barrier, n_threads)
                            self.scaling_gradients(thread, n_threads)
                            fm_barrier_wait(&self.barrier, n_threads)
                        hyper.clip = 1
                        self.gradient_norms(&hyper, begin, end)
                        fm_barrier_wait(&self.barrier, n_threads)
                        hyper.clip = self.clip_factor()
                        self.gradient_update(e, &hyper, begin, end, first, 0, 1, e.rule, thread)
                        if self.memory.unscaled != NULL:
                            self.update_scaled(e, &hyper, thread, n_threads)
            else:
                fm_barrier_wait(&self.barrier, n_threads)
            if thread == 0:
                self.end_micro_batch(e, rows, first, count, n_micro_batches)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_bookkeeping, 0)
            fm_barrier_wait(&self.barrier, n_threads)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)

    cdef Py_ssize_t count_micro_batches(self, Py_ssize_t rows) noexcept nogil:
        return (rows + self.memory.micro_batch_rows - 1) // self.memory.micro_batch_rows

    # ---- Phase 1 -----------------------------------------------------------------------------------------------------

    cdef void sum_bins(self, const fm_codes *X, int thread, int n_threads) noexcept nogil:
        """This thread's share, by panel and number, of the sums of the first layer's weights before each bin."""
        cdef fm_layer *layer = &self.layers[0]
        cdef Py_ssize_t panel = self.k.panel, bytes = panel * self.k.element_size, numbers = X.n_numbers, p, f0, f1
        cdef Py_ssize_t total = self.plan.padded(self.plan.columns(0)) // panel * numbers
        cdef Py_ssize_t begin = total * thread // n_threads, end = total * (thread + 1) // n_threads
        cdef fm_profile *profile = &self.memory.profiles[thread]
        while begin < end:
            p, f0 = begin // numbers, begin % numbers
            f1 = min(numbers, f0 + end - begin)
            self.k.sum_bins(self.memory.bin_sums + p * X.offset[numbers] * bytes,
                            <char *> layer.W + p * layer.fan_in * bytes, X, panel, f0, f1)
            begin += f1 - f0
        fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, 0)
        fm_barrier_wait(&self.barrier, n_threads)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)

    cdef void forward_backward(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread,
                               int n_threads) noexcept nogil:
        """This thread's rows of the micro-batch through all segments and back; its columns of the normalisations
        between."""
        cdef int s
        for s in range(self.memory.n_segments):
            self.forward_segment(e, s, first, count, thread, n_threads)
            if s < self.memory.n_segments - 1:
                self.batch_norm_barrier(self.memory.segment_ends[s], count, thread, n_threads, False)
        for s in range(self.memory.n_segments - 2, -1, -1):
            self.batch_norm_barrier(self.memory.segment_ends[s], count, thread, n_threads, True)
            self.backward_segment(s, count * thread // n_threads, count * (thread + 1) // n_threads, thread)

    cdef void forward_segment(self, Epoch *e, int s, Py_ssize_t first, Py_ssize_t count, int thread,
                              int n_threads) noexcept nogil:
        """This thread's rows forward through segment s, in chunks; in the last segment also back, while they are in the
        cache."""
        cdef Py_ssize_t row = count * thread // n_threads, end = count * (thread + 1) // n_threads
        cdef Py_ssize_t n_chunks = (end - row + FM_CHUNK_ROWS - 1) // FM_CHUNK_ROWS, n, stride = self.memory.stride
        cdef Py_ssize_t O = self.plan.sizes[self.n_layers]
        cdef const Py_ssize_t *order
        cdef const Py_ssize_t *partner
        cdef fm_layer *layer
        cdef fm_profile *profile = &self.memory.profiles[thread]
        cdef int l, bottom = self.memory.segment_ends[s - 1] + 1 if s > 0 else 0
        if s == 0 and e.codes != NULL:
            self.forward_codes(e, first + row, row, end - row, thread)
            bottom = 1
        for n_chunks in range(n_chunks, 0, -1):
            n = (end - row) // n_chunks
            order, partner = NULL, NULL
            if e.order != NULL:
                order = e.order + first + row
            if e.partners != NULL:
                partner = e.partners + first + row
            if bottom == 0 and not e.use_sparse:
                self.gather_inputs(e, order, partner, first + row, row, n)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_gather, 0)
            for l in range(bottom, self.memory.segment_ends[s] + 1):
                layer = &self.layers[l]
                if l == 0 and e.use_sparse:
                    self.k.forward_csr(layer, e.X, order, first + row, row, n, stride)
                else:
                    self.k.forward(layer, 0, layer.fan_out, row, n, stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, l)
            if s == self.memory.n_segments - 1:
                layer = &self.layers[self.n_layers - 1]
                self.k.loss_gradient(self.loss_row, layer.dz, self.memory.row_losses + row, self.thread_scratch(thread),
                                     &e.targets, order, partner, first + row, row, n, O, stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_loss, 0)
                self.backward_segment(s, row, row + n, thread)
            row += n

    cdef void forward_codes(self, Epoch *e, Py_ssize_t first_row, Py_ssize_t row, Py_ssize_t n,
                            int thread) noexcept nogil:
        """The first layer, for coded rows: all of this thread's at once, for each chunk would read weights and sums
        again."""
        cdef const Py_ssize_t *order = NULL
        if e.order != NULL:
            order = e.order + first_row
        self.k.forward_codes(&self.layers[0], self.memory.bin_sums, e.codes, order, first_row, row, n,
                             self.memory.stride_of(0))
        fm_profile_mark(&self.memory.profiles[thread], self.n_layers, FM_SECTION_forward, 0)

    cdef void gather_inputs(self, Epoch *e, const Py_ssize_t *order, const Py_ssize_t *partner, Py_ssize_t first_row,
                            Py_ssize_t row, Py_ssize_t n) noexcept nogil:
        """Rows of the input into panels, mixed, with noise, masked and dropped as the run wants."""
        cdef Py_ssize_t skip = row * self.k.panel * self.k.element_size, stride = self.memory.stride
        cdef char *x = <char *> self.layers[0].x + skip
        cdef char *mixed = NULL
        self.k.gather(x, e.X, order, first_row, n, stride)
        if partner != NULL:
            mixed = self.memory.partners + skip
            self.k.gather(mixed, e.X, partner, 0, n, stride)
        if e.changes_input:
            self.k.augment(x, mixed, e.targets.mix, &e.input, &self.memory.rng, row, n, self.plan.sizes[0], stride)

    cdef void backward_segment(self, int s, Py_ssize_t row, Py_ssize_t end, int thread) noexcept nogil:
        """Gradients of rows back through segment s, down to the first layer that learns."""
        cdef Py_ssize_t n_chunks = (end - row + FM_CHUNK_ROWS - 1) // FM_CHUNK_ROWS, n
        cdef int l, bottom = max(self.memory.first_learning, self.memory.segment_ends[s - 1] if s > 0 else 0)
        for n_chunks in range(n_chunks, 0, -1):
            n = (end - row) // n_chunks
            for l in range(self.memory.segment_ends[s], bottom, -1):
                self.k.backward(&self.layers[l], &self.layers[l - 1], self.thread_scratch(thread), 0,
                                self.layers[l].fan_in, row, n, self.memory.stride)
                fm_profile_mark(&self.memory.profiles[thread], self.n_layers, FM_SECTION_backward, l)
            row += n

    cdef void forward_backward_members(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread,
                                       int n_threads) noexcept nogil:
        """This thread's part of a micro-batch through the network and back: rows of the input in the embedding and the
        layer that multiplies it, rows of all members, m count + r, in the layers behind it."""
        cdef fm_profile *profile = &self.memory.profiles[thread]
        cdef fm_layer *shared = &self.layers[1]
        cdef Py_ssize_t row = count * thread // n_threads, n = count * (thread + 1) // n_threads - row
        cdef fm_members members = self.memory.members
        members.rows = count
        self.forward_codes(e, first + row, row, n, thread)
        self.k.forward_members(shared, &members, self.thread_scratch(thread), row, n, self.memory.stride)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, 1)
        fm_barrier_wait(&self.barrier, n_threads)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)
        self.member_rows(e, first, count, thread, n_threads)
        if self.memory.first_learning <= 1:
            fm_barrier_wait(&self.barrier, n_threads)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)
            self.k.sum_members(shared, &members, self.memory.member_sums, self.memory.sums_stride, row, n,
                               self.memory.stride)
            if self.memory.first_learning == 0:
                self.k.backward_members(shared, &self.layers[0], &members, self.memory.member_sums,
                                        self.memory.sums_stride, self.thread_scratch(thread), row, n)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_backward, 1)

    cdef void member_rows(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, int thread,
                          int n_threads) noexcept nogil:
        """This thread's part of all members' rows, from the output of the layer behind the embedding to its delta."""
        cdef Py_ssize_t total = count * self.plan.n_members, row = total * thread // n_threads
        cdef Py_ssize_t end = total * (thread + 1) // n_threads, n
        cdef Py_ssize_t n_chunks = (end - row + FM_CHUNK_ROWS - 1) // FM_CHUNK_ROWS
        cdef fm_profile *profile = &self.memory.profiles[thread]
        cdef int l, last = self.n_layers - 1
        for n_chunks in range(n_chunks, 0, -1):
            n = (end - row) // n_chunks
            for l in range(2, last):
                self.k.forward(&self.layers[l], 0, self.layers[l].fan_out, row, n, self.memory.stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, l)
            self.member_outputs(e, first, count, row, row + n, thread)
            for l in range(last - 1, max(self.memory.first_learning, 1), -1):
                self.k.backward(&self.layers[l], &self.layers[l - 1], self.thread_scratch(thread), 0,
                                self.layers[l].fan_in, row, n, self.memory.stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_backward, l)
            row += n

    cdef void member_outputs(self, Epoch *e, Py_ssize_t first, Py_ssize_t count, Py_ssize_t row, Py_ssize_t end,
                             int thread) noexcept nogil:
        """Each member's output layer, loss and gradient for its rows among row .. end."""
        cdef fm_profile *profile = &self.memory.profiles[thread]
        cdef Py_ssize_t n, first_row
        cdef const Py_ssize_t *order
        cdef fm_layer *layer
        cdef int l = self.n_layers - 1
        while row < end:
            n = min(end, (row // count + 1) * count) - row
            layer, first_row, order = &self.layers[l + row // count], first + row % count, NULL
            if e.order != NULL:
                order = e.order + first_row
            self.k.forward(layer, 0, layer.fan_out, row, n, self.memory.stride)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_forward, l)
            self.k.loss_gradient(self.loss_row, layer.dz, self.memory.row_losses + row, self.thread_scratch(thread),
                                 &e.targets, order, NULL, first_row, row, n, layer.fan_out, self.memory.stride)
            fm_profile_mark(profile, self.n_layers, FM_SECTION_loss, 0)
            if l > self.memory.first_learning:
                self.k.backward(layer, &self.layers[l - 1], self.thread_scratch(thread), 0, layer.fan_in, row, n,
                                self.memory.stride)
                fm_profile_mark(profile, self.n_layers, FM_SECTION_backward, l)
            row += n

    cdef void batch_norm_barrier(self, int l, Py_ssize_t count, int thread, int n_threads,
                                 bint backward) noexcept nogil:
        """This thread's columns of layer l's normalisation, or of its gradient, between two barriers."""
        cdef Py_ssize_t panels = self.plan.padded(self.layers[l].fan_out) // self.k.panel, p
        cdef fm_profile *profile = &self.memory.profiles[thread]
        fm_barrier_wait(&self.barrier, n_threads)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)
        for p in range(panels * thread // n_threads, panels * (thread + 1) // n_threads):
            if backward:
                self.k.batch_norm_backward(&self.layers[l], p, count, self.memory.stride)
            else:
                self.k.batch_norm_forward(&self.layers[l], p, count, self.memory.stride)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_backward if backward else FM_SECTION_forward, l)
        fm_barrier_wait(&self.barrier, n_threads)
        fm_profile_mark(profile, self.n_layers, FM_SECTION_barrier, 0)

    cdef char *thread_scratch(self, int thread) noexcept nogil:
        return self.memory.scratch + thread * self.memory.scratch_bytes

    # ---- Phase 2 -----------------------------------------------------------------------------------------------------

    cdef void gradient_update(self, Epoch *e, const fm_hyper *common, Py_ssize_t begin, Py_ssize_t end,
                              Py_ssize_t first, Py_ssize_t rows, int accumulate, int rule, int thread) noexcept nogil:
        """This thread's items: gradient, and update unless rule < 0. With rows = 0 the gradients are there already."""
        cdef Py_ssize_t i, size = self.k.element_size, block = FM_BLOCK_ROWS * self.k.panel * size, batch
        cdef Py_ssize_t stride
        cdef int l = -1
        cdef bint scales = self.memory.unscaled != NULL  # of the weights below it, only the gradient is made here
        cdef fm_layer member
        cdef fm_members members = self.memory.members
        cdef fm_hyper hyper = common[0]
        cdef const Factors *factors
        cdef const Factors *last = NULL
        cdef bint sorts = (e.use_sparse or e.codes != NULL) and rows > 0, has_gradient
        cdef bint fetches = rule >= 0 and common.t == e.fetch_t
        cdef WorkItem *item
        cdef fm_layer *layer
        cdef void *G = self.thread_scratch(thread)
        cdef fm_profile *profile = &self.memory.profiles[thread]
        if sorts:
            self.sort_columns(e, begin, end, first, rows, thread)
        for i in range(begin, end):
            item = &self.memory.items[i]
            layer, batch, stride = &self.layers[item.layer], rows, self.memory.stride_of(item.layer)
            if self.plan.n_members > 1 and item.layer > 0:
                batch = self.memory.learning_rows(item.layer, rows)
                if item.layer >= self.n_layers:
                    layer = self.member_of(item.layer, rows, &member)
                elif item.layer == 1 and not item.n:
                    batch = rows * self.plan.n_members
            if item.kind == INPUT_SCALE or (scales and item.layer == 0 and item.kind == WEIGHTS and rows == 0):
                continue
            if item.layer != l:
                if l >= 0:
                    fm_profile_mark(profile, self.n_layers, FM_SECTION_update, self.plan.layer_of(l))
                l = item.layer
            factors = &self.memory.factors[2 * item.layer + (item.kind != WEIGHTS)]
            if last == NULL or not same_factors(factors, last):
                self.prepare(e, &hyper, common, factors)
                last = factors
            if self.memory.gradients != NULL:
                G = self.memory.gradients + i * block
            if fetches:
                self.memory.fetch_state(item)
            if item.n:
                has_gradient = True
                if l == 0 and sorts and e.codes != NULL:
                    self.k.gradient_codes(layer, G, &self.memory.columns[thread], e.codes, item.i0, item.n, item.p,
                                          stride, accumulate)
                elif l == 0 and sorts:
                    self.k.gradient_csr(G, &self.memory.columns[thread], <char *> layer.dz + item.p * stride * size,
                                        item.i0, item.n, accumulate)
                elif l == 1 and members.n > 1 and rows > 0:
                    members.rows = rows
                    self.k.gradient_members(layer, &members, G, self.memory.member_sums, self.memory.sums_stride,
                                            item.i0, item.n, item.p, accumulate)
                else:
                    has_gradient = False
                self.k.update(layer, G, self.memory.penalties + i * self.k.panel, item.i0, item.n, item.p,
                              0 if has_gradient else batch, stride, 1 if has_gradient else accumulate,
                              -1 if scales and l == 0 else rule, &hyper)
            elif item.kind == SCALE:
                if rule >= 0 and hyper.norm_momentum != 0:
                    self.k.update_running_statistics(layer, item.p, &hyper)
                self.k.update_scale(layer, G, item.p, rule, &hyper)
            else:
                self.k.update_bias(layer, G, item.p, batch, stride, accumulate, rule, &hyper)
        if l >= 0:
            fm_profile_mark(profile, self.n_layers, FM_SECTION_update, self.plan.layer_of(l))

    cdef void prepare(self, const Epoch *e, fm_hyper *hyper, const fm_hyper *common,
                      const Factors *factors) noexcept nogil:
        """A tensor's hyperparameters."""
        hyper.learning_rate = common.learning_rate * factors.rate
        hyper.epsilon = common.epsilon * factors.epsilon
        hyper.weight_decay = common.weight_decay * factors.decay
        self.k.optimizers[e.rule].prepare(hyper)

    cdef void scaling_gradients(self, int thread, int n_threads) noexcept nogil:
        """From the gradient of the first layer's weights diag(s) W to those of s and W, this thread's rows."""
        cdef Py_ssize_t size = self.k.element_size, fan_in = self.layers[0].fan_in, block, i0
        cdef Py_ssize_t n_blocks = (fan_in + FM_BLOCK_ROWS - 1) // FM_BLOCK_ROWS
        cdef fm_layer layer = self.memory.unscaled_layer()
        for block in range(n_blocks * thread // n_threads, n_blocks * (thread + 1) // n_threads):
            i0 = block * FM_BLOCK_ROWS
            self.k.scaling_gradient(&layer, self.scaled_block(block), <char *> self.memory.scaling_gradient + i0 * size,
                                    <char *> self.memory.scaling.W + i0 * size, i0, min(FM_BLOCK_ROWS, fan_in - i0))

    cdef char *scaled_block(self, Py_ssize_t block) noexcept nogil:
        """The gradients of a block of rows of the first layer's weights: those of its panels follow each other."""
        cdef Py_ssize_t panels = self.plan.padded(self.layers[0].fan_out) // self.k.panel
        return self.memory.gradients + block * panels * FM_BLOCK_ROWS * self.k.panel * self.k.element_size

    cdef void update_scaled(self, Epoch *e, const fm_hyper *common, int thread, int n_threads) noexcept nogil:
        """The first layer's weights W and their scaling s, from their gradients, and diag(s) W, this thread's rows."""
        cdef Py_ssize_t size = self.k.element_size, panel = self.k.panel, fan_in = self.layers[0].fan_in
        cdef Py_ssize_t n_blocks = (fan_in + FM_BLOCK_ROWS - 1) // FM_BLOCK_ROWS, block, i0, n, p, i
        cdef Py_ssize_t panels = self.plan.padded(self.layers[0].fan_out) // panel, stride = self.memory.stride
        cdef fm_layer layer = self.memory.unscaled_layer()
        cdef fm_layer *scaling = &self.memory.scaling
        cdef fm_hyper hyper = common[0], own = common[0]
        cdef double *penalty = self.memory.penalties  # to which the scaling adds nothing
        own.l1 = own.l2 = 0
        self.prepare(e, &hyper, common, &self.memory.factors[0])
        self.prepare(e, &own, common, &self.memory.scaling_factors)
        for block in range(n_blocks * thread // n_threads, n_blocks * (thread + 1) // n_threads):
            i0 = block * FM_BLOCK_ROWS
            n = min(FM_BLOCK_ROWS, fan_in - i0)
            for p in range(panels):
                i = block * panels + p
                self.k.update(&layer, self.memory.gradients + i * FM_BLOCK_ROWS * panel * size,
                              self.memory.penalties + i * panel, i0, n, p, 0, stride, 1, e.rule, &hyper)
            for p in range(i0 // panel, (i0 + n + panel - 1) // panel):
                self.k.update(scaling, <char *> self.memory.scaling_gradient + p * panel * size, penalty, 0, 1, p, 0,
                              stride, 1, e.rule, &own)
            self.k.scale_rows(&layer, self.layers[0].W, <char *> scaling.W + i0 * size, i0, n)
        fm_profile_mark(&self.memory.profiles[thread], self.n_layers, FM_SECTION_update, 0)

    cdef fm_layer *member_of(self, int matrix, Py_ssize_t count, fm_layer *member) noexcept nogil:
        """A further member's output layer, where its rows begin in a micro-batch of `count` rows of the input."""
        cdef Py_ssize_t first = (matrix - self.n_layers + 1) * count * self.k.panel * self.k.element_size
        member[0] = self.layers[matrix]
        member.x, member.dz = <char *> member.x + first, <char *> member.dz + first
        return member

    cdef void gradient_norms(self, const fm_hyper *hyper, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
        """Sums of squares of this thread's gradients, by column."""
        cdef Py_ssize_t i, block = FM_BLOCK_ROWS * self.k.panel * self.k.element_size
        cdef fm_layer first = self.layers[0]
        cdef const fm_layer *layer
        cdef char *G
        cdef WorkItem *item
        if self.memory.unscaled != NULL:
            first = self.memory.unscaled_layer()
        for i in range(begin, end):
            item = &self.memory.items[i]
            layer, G = &self.layers[item.layer], self.memory.gradients + i * block
            if item.layer == 0:
                layer = &first
            if item.kind == INPUT_SCALE:
                G = <char *> self.memory.scaling_gradient + item.p * self.k.panel * self.k.element_size
            self.k.sum_squared_gradient(layer, G, self.memory.squares + i * self.k.panel, item.i0, item.n, item.p,
                                        hyper)

    cdef double clip_factor(self) noexcept nogil:
        """min(1, max_grad_norm / norm); NaN for a norm that is NaN or infinite, which then shows in the parameters:
        with 0 instead, training would stand still silently."""
        cdef double norm = sqrt(self.memory.sum_in_order(self.memory.squares))
        return 1 if norm <= self.max_grad_norm else self.max_grad_norm / norm if norm < INFINITY else NAN

    cdef void sort_columns(self, Epoch *e, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t first, Py_ssize_t rows,
                           int thread) noexcept nogil:
        """The micro-batch's stored elements in the columns of this thread's items of the first layer, by column."""
        cdef Py_ssize_t last = begin
        cdef const WorkItem *items = self.memory.items
        cdef const Py_ssize_t *order = NULL
        if e.order != NULL:
            order = e.order + first
        while last < end and items[last].layer == 0 and items[last].n:
            last += 1
        if last > begin and e.codes != NULL:
            self.k.codes_to_csc(&self.memory.columns[thread], e.codes, order, first, rows, items[begin].i0,
                                items[last - 1].i0 + items[last - 1].n)
        elif last > begin:
            self.k.csr_to_csc(&self.memory.columns[thread], e.X, order, first, rows, items[begin].i0,
                              items[last - 1].i0 + items[last - 1].n)

    # ---- Bookkeeping -------------------------------------------------------------------------------------------------

    cdef void begin_micro_batch(self, Epoch *e) noexcept nogil:
        """Thread 0, before the threads go on: where random numbers are drawn, and the step's share of mixup."""
        cdef Progress *progress = &self.progress
        cdef Py_ssize_t rows = min(e.batch_size, e.n_rows - progress.first)
        self.memory.rng.step = <uint32_t> (e.t + progress.step + 1)
        self.memory.rng.row = rows * progress.micro_batch // self.count_micro_batches(rows) if rows > 0 else 0
        self.memory.rng.row = (self.memory.rng.row + self.first_row) * self.plan.n_members
        if e.mix != NULL and progress.step < e.n_steps:
            e.targets.mix = e.mix[progress.step]
        if e.dropout_factors != NULL and progress.step < e.n_steps:
            self.set_dropout(e, e.dropout_factors[progress.step])

    cdef void set_dropout(self, Epoch *e, double factor) noexcept nogil:
        """The step's rates of dropout."""
        cdef int l
        e.input.dropout = factor * self.input_rate
        for l in range(self.n_layers - 1):
            self.layers[l].dropout_rate = factor * self.memory.dropout[l + 1]

    cdef void end_micro_batch(self, Epoch *e, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t count,
                              Py_ssize_t n_micro_batches) noexcept nogil:
        """Thread 0, while the others finish phase 2: sum the losses in the order of the rows, move on."""
        cdef Progress *progress = &self.progress
        cdef double weight
        cdef Py_ssize_t r
        if e.weight_sums[progress.step] != 0:
            for r in range(count * self.plan.n_members):
                weight = 1  # a row whose outputs have weights comes weighted
                if e.targets.output_weights == NULL:
                    weight = row_weight(e, first + r % count, e.targets.mix)
                if weight != 0:
                    progress.step_loss += weight * self.memory.row_losses[r]
        progress.rows += count
        progress.micro_batch += 1
        if progress.micro_batch == n_micro_batches:
            if e.weight_sums[progress.step] != 0:
                progress.step_loss /= self.plan.n_members * e.weight_sums[progress.step]
                progress.loss += progress.step_loss * rows
            if e.step_losses != NULL:
                e.step_losses[progress.step] = progress.step_loss
            progress.step_loss = 0
            progress.micro_batch = 0
            progress.step += 1
            progress.first += rows
        self.begin_micro_batch(e)
        if progress.step == e.n_steps or fm_seconds() >= e.slice_end:
            progress.stop = 1
