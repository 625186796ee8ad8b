"""A training run: its data, settings and training methods, the state that it continues from, and the record that it
keeps."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np

import fastmlp.core as core
from fastmlp.core.memory import all_finite
from fastmlp.network.network import Network
from fastmlp.training.progress import Progress
from fastmlp.training.rows import Data
from fastmlp.training.schedules import Curve, Schedule

#: An ensemble gives each of its members an event, in the member's own context. Once set, it ends the fit with
#: ``Cancelled``.
CANCEL: ContextVar[threading.Event | None] = ContextVar("CANCEL", default=None)
#: By ``time.perf_counter()``: a run ends with the epoch in which this passes.
DEADLINE: ContextVar[float] = ContextVar("DEADLINE", default=np.inf)


class _Zeros(np.random.bit_generator.ISeedSequence):
    """A seed for a generator whose state is replaced at once."""

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """All 0."""
        return np.zeros(n_words, dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle of the generator names a class of NumPy's."""
        return np.random.SeedSequence, (0,)


def copy_generator(rng: np.random.RandomState) -> np.random.RandomState:
    """A copy, for RandomState's own generator in two fifths of deepcopy's time, which online learning notices."""
    state = rng.get_state(legacy=False)
    if type(rng) is not np.random.RandomState or state["bit_generator"] != "MT19937":
        return copy.deepcopy(rng)
    other = np.random.RandomState(np.random.MT19937(_Zeros()))  # type: ignore[arg-type]  # the stub lacks it
    other.set_state(state)
    return other


# --- what a run needs ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How long to train, when to stop, and what to print.

    Parameters
    ----------
    max_epochs : int
        Most epochs, or iterations of L-BFGS.
    batch_size : int
    shuffle : bool
    tol : float
        A smaller improvement does not count. For L-BFGS: the gradient at which it has converged.
    patience : float, default=inf
        Epochs without improvement that are tolerated, ``n_iter_no_change``.
    max_fun : int, default=15000
        Most evaluations of the loss by L-BFGS.
    verbose : int, default=0
        0: silence; 1: a line per epoch; 2: a bar (``progress``).
    single_epoch : bool, default=False
        ``partial_fit``: one epoch, without a warning that it did not converge.
    name : str, default=''
        Name of the run in its printed lines, for runs that print at the same time.
    owns_generator : bool, default=False
        Nothing else draws from the run's random generator meanwhile.
    keeps_memory : bool, default=False
        A further run may follow soon: large blocks of memory are kept.
    drops_last : bool, default=False
        The last batch of an epoch is left out unless it is full.
    prefers_last : bool, default=False
        Of epochs with the same best score, the last one is the best.
    """

    max_epochs: int
    batch_size: int
    shuffle: bool
    tol: float
    patience: float = np.inf
    max_fun: int = 15000
    verbose: int = 0
    single_epoch: bool = False
    name: str = ""
    owns_generator: bool = False
    keeps_memory: bool = False
    drops_last: bool = False
    prefers_last: bool = False

    def n_steps(self, n_rows: int) -> int:
        """Steps of an epoch over as many rows."""
        return n_rows // self.batch_size if self.drops_last else -(-n_rows // self.batch_size)

    def progress(self, done: int = 0) -> Progress | None:
        """The reporter of the run's progress, of which ``done`` epochs are done; None if it is silent."""
        if not self.verbose:
            return None
        return Progress(self.verbose, 1 if self.single_epoch else self.max_epochs, self.name, done)


Factors = tuple[float, float, float]


@dataclass(frozen=True)
class Method:
    """Regularisation and other options of each step; the formulas are in ``reference``.

    Parameters
    ----------
    dropout : tuple of float
        A rate for the input of each layer; () for none.
    layer_rates : tuple of float
        Factors on the learning rate of each layer, 0 for a frozen one; () for 1 everywhere.
    factors, input_scaling : tuple
        Of learning rate, epsilon and weight decay for the tensors of each layer, and for a scaling of the input: see
        ``core.Trainer``. () for neither.
    regularisation : Curve or None
        Schedule of dropout and weight decay, over ``total_steps`` steps; None: constant.
    total_steps : int
    max_grad_norm : float
        0 for no clipping.
    loss_parameter : float
        Quantile, or delta.
    label_smoothing, input_noise, input_mask : float
    loss_reduction : {'weighted_mean', 'mean'}
        What divides a sum of weighted losses: see ``mean_loss``.
    mixup : float
        Each step draws the weight of a row against its partner from Beta(mixup, mixup); 0 for no mixup.
    seed : int
        Key of the random numbers that are drawn by position, 64 bits.
    """

    dropout: tuple[float, ...] = ()
    layer_rates: tuple[float, ...] = ()
    factors: tuple[tuple[Factors, Factors], ...] = ()
    input_scaling: Factors | tuple[()] = ()
    regularisation: Curve | None = None
    total_steps: int = 1
    max_grad_norm: float = 0.0
    loss_parameter: float = 1.0
    label_smoothing: float = 0.0
    input_noise: float = 0.0
    input_mask: float = 0.0
    mixup: float = 0.0
    seed: int = 0
    loss_reduction: str = "weighted_mean"

    def trainer(
        self,
        network: Network,
        loss: str,
        rule: str,
        batch_size: int,
        n_threads: int,
        reserve: core.Reserve | None = None,
    ) -> core.Trainer:
        """The core's trainer for a run of ``network`` with this method."""
        trainer = core.Trainer(
            network.plan,
            loss,
            rule,
            batch_size,
            n_threads,
            dropout=self.dropout or None,
            layer_rates=self.layer_rates or None,
            factors=self.factors or None,
            input_scaling=self.input_scaling or None,
            max_grad_norm=self.max_grad_norm,
            reserve=reserve,
        )
        trainer.cancel = CANCEL.get()
        return trainer

    def constants(self) -> dict[str, Any]:
        """Arguments of ``Trainer.epoch`` that stay the same in all epochs."""
        names = ("loss_parameter", "label_smoothing", "input_noise", "input_mask", "seed", "loss_reduction")
        return {name: getattr(self, name) for name in names}

    def schedules(self, t: int, n_steps: int) -> dict[str, np.ndarray]:
        """Factors (n_steps,) of dropout and of weight decay in the steps after update ``t``, where they have a
        schedule."""
        if self.regularisation is None:
            return {}
        factors = self.regularisation.factors(np.arange(t, t + n_steps), self.total_steps)
        return {"dropout_factors": factors, "decay_factors": factors}

    def mix(self, t: int, n_steps: int) -> np.ndarray | None:
        """Mixup's weights (n_steps,) of the steps after update ``t``; None without mixup."""
        if not self.mixup:
            return None
        words = [self.seed & 0xFFFFFFFF, self.seed >> 32, t & 0xFFFFFFFF]
        return np.random.RandomState(words).beta(self.mixup, self.mixup, n_steps)


PLAIN = Method()


def mean_loss(
    network: Network,
    loss: str,
    output: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    loss_parameter: float,
    loss_reduction: str,
) -> float:
    """Sum of the rows' weighted losses over that of the weights ('weighted_mean'), or over the number of rows ('mean').

    output: the network's for these rows, which is overwritten; weight: as in ``TrainingData``.
    """
    if weight is not None and weight.ndim == 2:
        losses = core.row_losses(network.plan, loss, output, y, loss_parameter, weight)
        return float(losses.sum() / (weight.mean(axis=1).sum() if loss_reduction == "weighted_mean" else len(losses)))
    losses = core.row_losses(network.plan, loss, output, y, loss_parameter)
    if weight is None or loss_reduction == "weighted_mean":
        return float(np.average(losses, weights=weight))
    return float(np.mean(weight * losses))


def masked(y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """y or, with weights of outputs, a masked array without the targets that are left out."""
    return y if weight is None or weight.ndim == 1 else np.ma.masked_array(y, weight == 0)


@dataclass(frozen=True)
class Validation:
    """Rows that are not trained on, scored after each epoch.

    Parameters
    ----------
    score : callable (network) -> (score, loss)
        A NaN score is ignored.
    controls_stopping : bool, default=True
        The score decides when to stop, and the run returns the parameters that scored best. Otherwise scores are only
        recorded, and a run that diverges falls back on the best parameters.
    """

    score: Callable[[Network], tuple[float, float]]
    controls_stopping: bool = True


class Observer(Protocol):
    """Is told of each epoch, or each iteration of L-BFGS, and may end the run. An exception that it raises ends the run
    too.

    Each epoch that begins also ends, unless an error or Ctrl-C ends the run.
    """

    def epoch_begins(self) -> None:
        """An epoch is about to begin."""

    def epoch_ends(self, parameters: np.ndarray, statistics: np.ndarray) -> bool:
        """An epoch has ended, and is in the record; returns whether to stop.

        parameters, statistics: what the run would return if it ended here. The next epoch overwrites them.
        """


# --- what a run reports --------------------------------------------------------------------------------------


@dataclass
class Record:
    """What a run reports, and what ``warm_start`` and ``partial_fit`` continue."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    validation_loss_curve: list[float] = field(default_factory=list)
    best_loss: float = np.inf
    best_score: float = -np.inf
    #: Epoch of this run that gave best_score; 0 if an earlier run did.
    best_epoch: int = 0
    no_improvement: int = 0
    samples_seen: int = 0
    n_epochs: int = 0
    #: Why the run ended: 'plateau', 'max_iter', 'planned' (max_iter, as the schedule has it), 'single_epoch', 'stopped'
    #: (by its
    #: observer, or at its deadline), 'interrupted', 'diverged'.
    ended: str = ""
    #: Learning rate and layers of a run that diverged.
    divergence: str = ""
    #: Why the fit cannot have gone well, and the remedy; '' if it may have.
    diagnosis: str = ""
    #: The optimizer's averages have overflowed, though the parameters are finite: its steps are 0 from then on.
    optimizer_overflowed: bool = False
    #: Settings of the caller that rates, losses and scores depend on; the next run compares them with its own.
    terms: dict[str, dict[str, Any]] = field(default_factory=dict)

    def snapshot(self) -> dict[str, Any]:
        """The present state: the lengths of the lists, and the other values."""
        return {name: len(value) if isinstance(value, list) else value for name, value in vars(self).items()}

    def copy(self) -> Record:
        """A record with lists of its own."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, list):
                setattr(other, name, list(value))
        return other

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Remove what was added after the snapshot."""
        for name, value in snapshot.items():
            if isinstance(current := getattr(self, name), list):
                del current[value:]
            else:
                setattr(self, name, value)


@dataclass
class OptimizerState:
    """The optimizer's memory between calls of ``partial_fit``.

    Parameters
    ----------
    rule : str
        The core's update rule.
    arrays : OptimizerPanels or ndarray, of shape (n_state, n_parameters)
        A run puts its own in their place.
    n_updates : int
    seed : int or None
        Key of the numbers drawn by position (``Method.seed``), whose counter is ``n_updates``; None if none were drawn.
    """

    rule: str
    arrays: core.OptimizerPanels | np.ndarray
    n_updates: int = 0
    seed: int | None = None

    @classmethod
    def new(cls, rule: str, network: Network, reserve: core.Reserve | None = None) -> OptimizerState:
        """The state before the first update."""
        return cls(rule, core.OptimizerPanels(network.plan, core.OPTIMIZERS[rule], reserve))

    def fits(self, rule: str, network: Network) -> bool:
        """Whether ``rule`` on ``network`` can continue from this state."""
        shape = (core.OPTIMIZERS[rule], network.n_parameters)
        return self.rule == rule and self.arrays.shape == shape and self.arrays.dtype == network.dtype

    def reset(self, network: Network) -> None:
        """Forget all updates."""
        self.arrays, self.n_updates = OptimizerState.new(self.rule, network, self.reserve).arrays, 0

    @property
    def reserve(self) -> core.Reserve | None:
        """Memory that the last run left to the next one."""
        return self.arrays.reserve if isinstance(self.arrays, core.OptimizerPanels) else None

    def is_finite(self) -> bool:
        """Whether all numbers are finite."""
        return all_finite(self.arrays) if isinstance(self.arrays, np.ndarray) else self.arrays.is_finite()

    def copy(self) -> OptimizerState:
        """A copy that further epochs do not change."""
        return replace(self, arrays=np.array(self.arrays))


@dataclass
class Position:
    """How far a run came: what resuming it needs besides its network, its record and the optimizer's memory.

    Parameters
    ----------
    generator : RandomState
        As it was before the first draw of the run. Initial weights, validation split, seed and orders are drawn again.
    warm : bool
        The run began with a fitted network.
    n_rows, batch_size : int
    shuffle : bool
    best_epoch : int
        As in the record.
    unfinished : bool
        It was interrupted or stopped, or is still running.
    returns_best : bool
        The network has the best parameters, not the last ones.
    parameters, statistics : ndarray or None
        The last ones if the network has the best, and the best ones otherwise; None if they are the same.
    n_steps : int
        Steps of an epoch that was interrupted.
    loss, penalties : float, ndarray or None
        Sums over these steps, from ``Trainer.position``.
    """

    generator: np.random.RandomState
    warm: bool
    n_rows: int
    batch_size: int
    shuffle: bool
    best_epoch: int = 0
    unfinished: bool = True
    returns_best: bool = False
    parameters: np.ndarray | None = None
    statistics: np.ndarray | None = None
    n_steps: int = 0
    loss: float = 0.0
    penalties: np.ndarray | None = None


# --- the run -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Run:
    """Everything that a training run needs, and its state; by itself a run of L-BFGS.

    The network is trained in place, and the record grows.

    Parameters
    ----------
    network : Network
    loss : str
        The core's name of it.
    data : Data
    settings : Settings
    rng : RandomState
        Draws the order of the rows.
    record : Record
    hyperparameters : mapping of str to float, default={}
        Constants of the update rules (``core.HYPERPARAMETERS``) and of the penalty
        alpha (l1_ratio sum |W| + (1 - l1_ratio) / 2 sum W^2).
    method : Method
    n_threads : int, default=1
    observer : Observer, default=None
    target_names : list, default=None
        Names of the targets, for messages; None: their numbers.
    """

    network: Network
    loss: str
    data: Data
    settings: Settings
    rng: np.random.RandomState
    record: Record = field(default_factory=Record)
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    method: Method = PLAIN
    n_threads: int = 1
    observer: Observer | None = None
    target_names: list[Any] | None = None

    def as_if_ended(self, parameters: np.ndarray, statistics: np.ndarray) -> Self:
        """The run as if it ended now, with these parameters: a copy that further epochs do not change."""
        network = self.network.copy()
        network.parameters[:], network.statistics[:] = parameters, statistics
        return replace(self, network=network, record=self.record.copy(), rng=copy_generator(self.rng))


@dataclass(kw_only=True)
class StochasticRun(Run):
    """A run of a stochastic solver.

    Parameters
    ----------
    schedule : Schedule
        Learning rates.
    optimizer : OptimizerState
    validation : Validation, default=None
    position : Position, default=None
        Where the run is, whenever the observer is told of an epoch's end, and at the end. None: the run cannot be
        resumed.
    resumes : bool, default=False
        The run begins at ``position``. The network has the last parameters, the position the best ones, if there are
        other ones, and the record the epochs so far.
    """

    schedule: Schedule
    optimizer: OptimizerState
    validation: Validation | None = None
    position: Position | None = None
    resumes: bool = False

    def as_if_ended(self, parameters: np.ndarray, statistics: np.ndarray) -> Self:
        """As for L-BFGS, with copies of the optimizer's memory and of the position."""
        ended = super().as_if_ended(parameters, statistics)
        return replace(ended, optimizer=self.optimizer.copy(), position=copy.deepcopy(self.position))


# --- divergence ----------------------------------------------------------------------------------------------


class DivergenceError(ValueError):
    """Parameters became infinite or NaN."""


def non_finite_message(when: str, advice: str = "scale the input, or lower learning_rate_init") -> str:
    """Error message for parameters that are not finite; the first sentence is scikit-learn's."""
    return (
        "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
        f"preprocessed. It happened {when}: {advice}."
    )


def non_finite_layers(network: Network) -> list[int]:
    """Layers, from 0, with parameters or running averages that are not finite."""
    groups = (network.coefs, network.intercepts, network.scales, network.means, network.variances)
    return sorted({layer for arrays in groups for layer, array in enumerate(arrays) if not all_finite(array)})
