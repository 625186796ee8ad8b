"""Training runs: epochs, their order, stopping, history, best parameters.

It refuses to know labels, scores and scikit-learn: what to score with is handed down as a callable, who is told of each
epoch as an ``Observer``, and warnings are left to the caller. An epoch itself is one call of the compiled core. Used by
``estimators``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

import fastmlp.core as core
from fastmlp.core._shuffle import shuffle
from fastmlp.core.memory import aligned_copy, all_finite, claim_memory
from fastmlp.network.network import Network
from fastmlp.training.progress import Progress
from fastmlp.training.schedules import Hyperparameters, Schedule

# Who runs several fits at once gives each an event, in the context in which it runs: set, it ends the fit with Cancelled.
CANCEL: ContextVar[threading.Event | None] = ContextVar("CANCEL", default=None)

# --- memory --------------------------------------------------------------------------------------------------

# Arrays of doubles, as long as the parameters, that L-BFGS-B holds with its 10 corrections (SciPy: 2 m n + 5 n), and ours
# around it: parameters, gradient, best; W and gradient in panels.
_LBFGS_ARRAYS = 30


def claim_training_memory(layer_sizes: tuple[int, ...], dtype: np.dtype, rule: str | None) -> None:
    """Ask for what a training run holds at the very least, before its network is drawn.

    Parameters
    ----------
    layer_sizes : tuple of int
    dtype : numpy.dtype
    rule : str or None
        The core's update rule: parameters and its state, flat and in panels. None: L-BFGS.

    Raises
    ------
    MemoryError
        With the figure, if the system refuses.
    """
    n_parameters = sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(layer_sizes))
    n_bytes = 8 * _LBFGS_ARRAYS if rule is None else dtype.itemsize * 2 * (1 + core.OPTIMIZERS[rule])
    claim_memory(n_parameters * n_bytes, f"Training layers {layer_sizes} in {dtype.name} with {rule or 'lbfgs'}")


# --- data, settings, results ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingData:
    """What is trained on.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n, n_features)
        float32 or float64, any strides; never copied.
    y : ndarray
        As ``Network.check_targets`` returns it.
    sample_weight : ndarray of shape (n,), float64, or None
    rows : ndarray of shape (m,), intp, or None
        The rows to train on; None for all of them.
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None = None
    rows: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        """Rows in an epoch."""
        return self.X.shape[0] if self.rows is None else len(self.rows)


@dataclass(frozen=True)
class Settings:
    """How long to train and when to stop.

    Parameters
    ----------
    max_epochs : int
    batch_size : int
    shuffle : bool
    tol : float
        Improvement below this does not count.
    patience : float
        Epochs without improvement that are tolerated, ``n_iter_no_change``; may be infinite.
    verbose : int
        0: silence; 1: a line per epoch; 2: a bar (``progress``).
    single_epoch : bool
        ``partial_fit``: one epoch, and no complaint that it did not converge.
    name : str
        What the run is called in its lines, where several speak at once.
    draws_alone : bool
        Nobody but this run draws from its generator.
    """

    max_epochs: int
    batch_size: int
    shuffle: bool
    tol: float
    patience: float
    verbose: int = 0
    single_epoch: bool = False
    name: str = ""
    draws_alone: bool = False

    def progress(self) -> Progress | None:
        """What tells of the run, None in silence."""
        return Progress(self.verbose, 1 if self.single_epoch else self.max_epochs, self.name) if self.verbose else None


@dataclass(frozen=True)
class Method:
    """What a run does beyond the plain one; the formulas are in ``reference``.

    Parameters
    ----------
    dropout : tuple of float
        A rate for what enters each layer; () for none.
    layer_rates : tuple of float
        What the learning rate is multiplied by in each layer, 0 where nothing changes; () for 1 everywhere.
    max_grad_norm : float
        0 for no clipping.
    loss_parameter : float
        Quantile, or delta.
    label_smoothing, input_noise, input_mask : float
    mixup : float
        Each step draws from Beta(mixup, mixup) what a row counts against its partner; 0 for no mixup.
    seed : int
        Of everything that is drawn by position, 64 bits.
    """

    dropout: tuple[float, ...] = ()
    layer_rates: tuple[float, ...] = ()
    max_grad_norm: float = 0.0
    loss_parameter: float = 1.0
    label_smoothing: float = 0.0
    input_noise: float = 0.0
    input_mask: float = 0.0
    mixup: float = 0.0
    seed: int = 0

    def trainer(self, network: Network, loss: str, rule: str, batch_size: int, n_threads: int) -> core.Trainer:
        """The core's trainer for such a run of such a network."""
        trainer = core.Trainer(
            network.plan,
            loss,
            rule,
            batch_size,
            n_threads,
            dropout=self.dropout or None,
            layer_rates=self.layer_rates or None,
            max_grad_norm=self.max_grad_norm,
        )
        trainer.cancel = CANCEL.get()
        return trainer

    def constants(self) -> dict[str, Any]:
        """What ``Trainer.epoch`` is told at each epoch."""
        names = ("loss_parameter", "label_smoothing", "input_noise", "input_mask", "seed")
        return {name: getattr(self, name) for name in names}

    def mix(self, t: int, n_steps: int) -> np.ndarray | None:
        """Shares (n_steps,) of the steps after update ``t``, None without mixup."""
        if not self.mixup:
            return None
        words = [self.seed & 0xFFFFFFFF, self.seed >> 32, t & 0xFFFFFFFF]
        return np.random.RandomState(words).beta(self.mixup, self.mixup, n_steps)


PLAIN = Method()


@dataclass(frozen=True)
class Watch:
    """Rows that are not trained on, to see how the run does.

    Parameters
    ----------
    score : callable (network) -> (score, loss)
        NaN as a score counts as no verdict.
    steers : bool
        Whether the score decides when to stop, and the best parameters are kept; else it is only recorded, and the
        best parameters are what a run that diverges falls back on.
    """

    score: Callable[[Network], tuple[float, float]]
    steers: bool = True


class Observer(Protocol):
    """Who is told of each epoch, or each iteration of L-BFGS, and may end the run. What it raises ends it too, with an error.

    Every epoch that begins also ends, unless the run ends with an error or by Ctrl-C.
    """

    def epoch_begins(self) -> None:
        """An epoch is about to begin."""

    def epoch_ends(self, parameters: np.ndarray, statistics: np.ndarray) -> bool:
        """An epoch has ended, and stands in the record; whether to stop.

        parameters, statistics: what the run would leave if it ended here. The next epoch overwrites them.
        """


@dataclass
class Record:
    """What a run reports, and what ``warm_start`` and ``partial_fit`` go on from."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    validation_loss_curve: list[float] = field(default_factory=list)
    best_loss: float = np.inf
    best_score: float = -np.inf
    #: the run's epoch that gave best_score; 0: an earlier run
    best_epoch: int = 0
    no_improvement: int = 0
    samples_seen: int = 0
    n_epochs: int = 0
    #: why the run ended: 'plateau', 'max_iter', 'planned' (max_iter, as the schedule has it), 'single_epoch', 'stopped' (by its
    #: observer), 'interrupted', 'diverged'
    ended: str = ""
    #: of a run that diverged: learning rate and layers
    divergence: str = ""
    #: whether the optimizer's averages are no longer finite though the parameters are: its steps are 0 from then on
    optimizer_overflowed: bool = False

    def mark(self) -> dict[str, Any]:
        """Where the record stands: the lengths of its lists, and its other values."""
        return {name: len(value) if isinstance(value, list) else value for name, value in vars(self).items()}

    def rewind(self, mark: dict[str, Any]) -> None:
        """Forget what was added after the mark was made."""
        for name, value in mark.items():
            if isinstance(held := getattr(self, name), list):
                del held[value:]
            else:
                setattr(self, name, value)


@dataclass
class OptimizerState:
    """The optimizer's memory between calls of ``partial_fit``.

    Parameters
    ----------
    rule : str
        The core's update rule.
    arrays : ndarray of shape (n_state, n_parameters)
    n_updates : int
    seed : int or None
        Key of what was drawn by position (``Method.seed``), whose counter is ``n_updates``; None if nothing was.
    """

    rule: str
    arrays: np.ndarray
    n_updates: int = 0
    seed: int | None = None

    @classmethod
    def new(cls, rule: str, network: Network) -> OptimizerState:
        """The state before the first update."""
        return cls(rule, np.zeros((core.OPTIMIZERS[rule], network.n_parameters), dtype=network.dtype))

    def fits(self, rule: str, network: Network) -> bool:
        """Whether ``rule`` on ``network`` can go on from this state."""
        shape = (core.OPTIMIZERS[rule], network.n_parameters)
        return self.rule == rule and self.arrays.shape == shape and self.arrays.dtype == network.dtype


class DivergenceError(ValueError):
    """Parameters became infinite or NaN."""


def non_finite_message(when: str, advice: str = "scale the input, or lower learning_rate_init") -> str:
    """What to tell about parameters that are not finite; the first sentence is scikit-learn's."""
    return (
        "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
        f"preprocessed. It happened {when}: {advice}."
    )


def non_finite_layers(network: Network) -> list[int]:
    """Layers, from 0, with parameters or running averages that are not finite."""
    groups = (network.coefs, network.intercepts, network.scales, network.means, network.variances)
    return sorted({layer for arrays in groups for layer, array in enumerate(arrays) if not all_finite(array)})


def _divergence(network: Network, rates: np.ndarray) -> str:
    """Where a run diverged, but for the epoch."""
    low, high = rates.min(), rates.max()
    rate = f"{high:g}" if low == high else f"{low:g} to {high:g}"
    return f"learning rate {rate}, layers {non_finite_layers(network)} of {len(network.coefs)}"


# --- stochastic solvers --------------------------------------------------------------------------------------


def run_epochs(
    network: Network,
    loss: str,
    data: TrainingData,
    settings: Settings,
    hyperparameters: Hyperparameters,
    schedule: Schedule,
    optimizer: OptimizerState,
    rng: np.random.RandomState,
    record: Record,
    watch: Watch | None = None,
    n_threads: int = 1,
    method: Method = PLAIN,
    observer: Observer | None = None,
) -> None:
    """Train ``network`` in place; ``record``, ``schedule`` and ``optimizer`` move on with it.

    Each epoch shuffles the order of the epoch before in place, which takes order[q] for q = shuffle(arange(m)), as
    scikit-learn's epochs do. With a ``watch`` that steers, the run goes by its score instead of by the loss, and ends on
    the parameters with the best score, if any score was a number. ``record.ended`` says why it ended; Ctrl-C ends it with
    the parameters after the last whole step, or the best ones. Whenever the ``observer`` is called, ``record``, ``schedule``
    and ``optimizer`` stand where they would if the run ended there.

    Raises
    ------
    DivergenceError
        If an epoch leaves parameters or running averages that are not finite and there is no best score to fall back on.
        ``network`` is then of no use.
    """
    n_rows = data.n_rows
    n_steps = -(-n_rows // settings.batch_size)
    constants = {**asdict(hyperparameters), **method.constants()}
    trainer = method.trainer(network, loss, optimizer.rule, settings.batch_size, n_threads)
    trainer.load(network.parameters, optimizer.arrays, network.statistics)
    current = network.parameters, network.statistics
    best: tuple[np.ndarray, np.ndarray] | None = None
    held = -1  # the epoch that ``best`` is of
    fallback = False  # whether there is a best score, and this run did not diverge at once
    order = data.rows
    if settings.shuffle:
        order = np.arange(n_rows, dtype=np.intp) if order is None else order.copy()
    record.n_epochs, record.best_epoch, record.ended = 0, 0, ""
    progress = settings.progress()

    def hold() -> None:
        """Copy the parameters, which are about to be overwritten, if they are the best ones: a copy that lives no earlier."""
        nonlocal best, held
        if watch is None or not record.best_epoch == record.n_epochs != held:
            return
        if best is None:
            best = aligned_copy(network.parameters), network.statistics.copy()
        else:
            best[0][:], best[1][:] = current
        held = record.best_epoch

    def kept() -> tuple[np.ndarray, np.ndarray]:
        """What the run leaves if it ends now."""
        if watch is None or best is None or record.best_score == -np.inf or record.best_epoch != held:
            return current
        return best if watch.steers or record.ended == "diverged" else current

    whole = record.mark()  # after the last whole epoch: Ctrl-C may come between any two lines
    try:
        while not record.ended:
            if observer is not None:
                observer.epoch_begins()
            started = time.perf_counter()
            if settings.shuffle and order is not None:
                shuffle(order, rng, settings.draws_alone)
            rate, rates = schedule.rate, schedule.rates(optimizer.n_updates, n_steps)
            epoch_loss = trainer.epoch(
                data.X,
                data.y,
                data.sample_weight,
                order,
                rates,
                optimizer.n_updates,
                mix=method.mix(optimizer.n_updates, n_steps),
                **constants,
            )
            optimizer.n_updates += n_steps
            hold()
            trainer.store(network.parameters, None if observer is None else optimizer.arrays, network.statistics)
            record.n_epochs += 1
            record.samples_seen += n_rows
            record.loss_curve.append(epoch_loss)
            entry = {
                "epoch": len(record.loss_curve),
                "loss": epoch_loss,
                "learning_rate": rate,
                "rows": n_rows,
                "time": time.perf_counter() - started,
            }
            record.epochs.append(entry)
            # Averages alone: a square that overflows leaves a normalised layer silent, and its parameters as they were.
            if not _is_finite(network):
                record.divergence = _divergence(network, rates)
                if not fallback:
                    raise DivergenceError(non_finite_message(f"in epoch {record.n_epochs} ({record.divergence})"))
                record.ended = "diverged"
                optimizer.arrays[...], optimizer.n_updates = 0, 0  # what it remembers is not finite either
            else:
                if watch is not None:
                    entry["validation_score"], entry["validation_loss"] = watch.score(network)
                    _judge_score(record, settings, entry, watch.steers)
                    fallback = record.best_score > -np.inf
                if watch is None or not watch.steers:
                    _judge_loss(record, settings)
                whole = record.mark()
                if progress is not None:
                    progress.epoch(entry)
                schedule.epoch_ends(record.samples_seen)
                record.ended = _verdict(record, settings, schedule, watch is not None and watch.steers, progress)
            if observer is not None and observer.epoch_ends(*kept()) and not record.ended:
                record.ended = "stopped"
    except KeyboardInterrupt:
        if record.ended != "diverged":
            record.rewind(whole)
            record.ended = "interrupted"
    finally:
        if progress is not None:
            progress.close()
    hold()
    trainer.finish(network.parameters, None if record.ended == "diverged" else optimizer.arrays, network.statistics)
    if record.ended == "interrupted" and not _is_finite(network):  # it was diverging
        record.divergence = _divergence(network, rates)
        if not fallback:
            raise DivergenceError(
                non_finite_message(f"in epoch {record.n_epochs + 1} ({record.divergence}), which was interrupted")
            )
        record.ended = "diverged"
        optimizer.arrays[...], optimizer.n_updates = 0, 0
    record.optimizer_overflowed = not all_finite(optimizer.arrays)
    if kept() is not current:
        network.parameters[:], network.statistics[:] = kept()


def _is_finite(network: Network) -> bool:
    """Whether all numbers that make up its function are."""
    return all_finite(network.parameters) and all_finite(network.statistics)


def _judge_loss(record: Record, settings: Settings) -> None:
    """Count the epoch as one without improvement unless its loss is below best - tol."""
    loss = record.loss_curve[-1]
    record.no_improvement = record.no_improvement + 1 if loss > record.best_loss - settings.tol else 0
    if loss < record.best_loss:
        record.best_loss = loss


def _judge_score(record: Record, settings: Settings, entry: dict[str, Any], steers: bool) -> None:
    """Count the epoch as one without improvement if it scores below best + tol; note it if it is the best one."""
    value = entry["validation_score"]
    record.validation_scores.append(value)
    record.validation_loss_curve.append(entry["validation_loss"])
    if steers:
        record.no_improvement = record.no_improvement + 1 if value < record.best_score + settings.tol else 0
    if value > record.best_score:
        record.best_score, record.best_epoch = value, record.n_epochs


def _verdict(record: Record, settings: Settings, schedule: Schedule, by_score: bool, progress: Progress | None) -> str:
    """Why to stop after this epoch, '' to go on."""
    if record.no_improvement > settings.patience:
        stop, words = schedule.on_plateau()
        if progress is not None:
            what = "Validation score" if by_score else "Training loss"
            progress.say(
                f"{what} did not improve more than tol={settings.tol:f} for {settings.patience} "
                f"consecutive epochs. {words}"
            )
        if stop:
            return "plateau"
        record.no_improvement = 0
    if settings.single_epoch:
        return "single_epoch"
    if record.n_epochs < settings.max_epochs:
        return ""
    return "planned" if schedule.planned else "max_iter"
