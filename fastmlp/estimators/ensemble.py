"""MLPEnsembleClassifier and MLPEnsembleRegressor: several networks trained at once, their predictions averaged.

The input is checked once. The members, classifiers or regressors, then train in Python threads, one core each, as the
compiled core works without the GIL.
"""

from __future__ import annotations

import copy
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from fastmlp.core import commit
from fastmlp.estimators._sklearn import (
    Interval,
    MetaEstimatorMixin,
    RandomState,
    _fit_context,
    warn,
)
from fastmlp.estimators.base import BaseMLP, BaseModel, mean_output, warn_if_not_residual
from fastmlp.estimators.callbacks import FitTasks, fit_tasks
from fastmlp.estimators.classifier import ClassifierPredictions, MLPClassifier, share_classes
from fastmlp.estimators.parameters import one_of, validate
from fastmlp.estimators.regressor import MLPRegressor, RegressorScore
from fastmlp.estimators.transfer import atomic
from fastmlp.estimators.validation.held_out import column_names
from fastmlp.estimators.validation.messages import explain_labels
from fastmlp.estimators.validation.rows import check_rows
from fastmlp.estimators.validation.weights import check_outputs_have_targets, check_weight, leave_out, rows_that_count
from fastmlp.network.network import Network
from fastmlp.training.run import CANCEL, Record
from fastmlp.training.threads import choose_threads

_SEEDS, _BOOTSTRAP, _SNAPSHOTS = "seeds", "bootstrap", "snapshots"
# A snapshot's learning rate over its cycle: a name in ``schedules.CURVES``.
_CYCLE_SCHEDULE = "cosine"
# Threads pay for any problem if each has a network of its own.
_MANY_FLOPS = sys.maxsize


def bootstrap_counts(random_state: int, n_rows: int) -> np.ndarray:
    """How often a bootstrap sample of ``n_rows`` draws from ``n_rows`` rows took each row.

    Parameters
    ----------
    random_state : int
        A member's seed. The draws come from ``numpy.random.RandomState([random_state, 1])``, apart from those that
        the member makes with the seed itself.
    n_rows : int

    Returns
    -------
    ndarray of shape (n_rows,), intp
        Their sum is ``n_rows``; about 1 / e of them are 0.
    """
    draws = np.random.RandomState([random_state, 1]).randint(n_rows, size=n_rows)
    return np.bincount(draws, minlength=n_rows)


# --- threads ---------------------------------------------------------------------------------------------------


def _run_at_once(tasks: Sequence[Callable[[], Any]], n_workers: int) -> list[Any]:
    """The tasks' results, in order; at most ``n_workers`` tasks run at a time, each in a thread.

    If a task raises, later ones are stopped and earlier ones finish; then the error of the first in order is raised, as
    with a single worker. It gets a note with the task's number.

    An exception in the calling thread, such as Ctrl-C, stops all tasks, and is raised at once.

    A stopped task does not begin; if it is running, its training ends within about 0.1 s.
    """
    config = get_config()  # scikit-learn keeps it by thread
    cancels = [threading.Event() for _ in tasks]

    def stop(first: int) -> None:
        for cancel in cancels[first:]:
            cancel.set()

    def run(number: int) -> Any:
        if cancels[number].is_set():
            return None
        CANCEL.set(cancels[number])  # in the task's own context
        try:
            with config_context(**config):
                return tasks[number]()
        except BaseException:
            stop(number + 1)
            raise

    executor = ThreadPoolExecutor(n_workers, thread_name_prefix="fastmlp")
    try:
        # The caller's context variables hold NumPy's errstate.
        futures = [executor.submit(copy_context().run, run, number) for number in range(len(tasks))]
        executor.shutdown()
    except BaseException:
        stop(0)
        executor.shutdown(wait=False)
        raise
    for number, future in enumerate(futures):
        error = future.exception()
        if error is not None:
            error.add_note(f"It happened in member {number} of {len(tasks)}, counted from 0.")
            raise error
    return [future.result() for future in futures]


def _fit_member(
    member: BaseMLP,
    number: int,
    X: Any,
    y: np.ndarray,
    sample_weight: np.ndarray | None,
    tasks: FitTasks | None,
    target_names: list[Any] | None,
) -> Record:
    """Fit a member, as a task of the ensemble's fit. The record says how the training ended; the ensemble warns of
    it."""
    with nullcontext() if tasks is None else tasks.member(number, member):
        return member._fit_member(X, y, sample_weight, f"Member {number}", None, target_names)


# --- both ensembles --------------------------------------------------------------------------------------------


class BaseMLPEnsemble(MetaEstimatorMixin, BaseModel, ABC):
    """The two ensembles but for predictions."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "members": [one_of([_SEEDS, _BOOTSTRAP, _SNAPSHOTS])],
        "n_jobs": BaseMLP._parameter_constraints["n_jobs"],
        "random_state": ["random_state"],
    }
    _member_class: ClassVar[type[BaseMLP]]

    def __init__(
        self,
        estimator: BaseMLP | None = None,
        n_estimators: int = 8,
        *,
        members: str = _SEEDS,
        n_jobs: int | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.members = members
        self.n_jobs = n_jobs
        self.random_state = random_state

    estimators_: list[Any]
    n_outputs_: int

    @abstractmethod
    def _share_target(self, member: BaseMLP, source: BaseMLP | BaseMLPEnsemble) -> None:
        """Give a member, or the ensemble itself, the target's attributes of ``source``."""

    def _validate_params(self) -> None:
        validate(type(self), self.get_params(deep=False))

    # --- fit -------------------------------------------------------------------------------------------------------

    @atomic
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the members.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Checked and, where necessary, converted once; all members read the same array.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            As for a member.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Rows, or targets, of weight 0 are left out: see the members' ``fit``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As a member's ``fit``, with the number of the first member that failed in a note. Those after it are stopped
            within about 0.1 s, or do not begin. Also for an estimator of which no snapshots can be taken.
        KeyboardInterrupt
            Ctrl-C, at once. Members that have not begun are not trained; running ones end in the background within
            about
            0.1 s. Unlike a single network's, an interrupted ensemble's training is lost: it would lack members.

        In each case the ensemble is then as before the call.
        """
        n, in_order = self.n_estimators, self.members == _SNAPSHOTS
        with fit_tasks(self, X, y, sample_weight, n, in_order=in_order, inner=self.estimator) as tasks:
            self._fit(X, y, sample_weight, tasks)
            commit(self)
        return self

    def _fit(self, X: Any, y: Any, sample_weight: ArrayLike | None, tasks: FitTasks | None) -> None:
        prototype = self._prototype()
        names = column_names(y)
        X, y = check_rows(self, X, leave_out(y, sample_weight))
        with explain_labels(y, self):
            prototype._learn_target(y, incremental=False)
        self._share_target(self, prototype)
        if sample_weight is not None:
            sample_weight = np.ascontiguousarray(check_weight(sample_weight, X), dtype=np.float64)
            check_outputs_have_targets(sample_weight)

        rng = check_random_state(self.random_state)
        n_runs = 1 if self.members == _SNAPSHOTS else self.n_estimators
        runs = [clone(prototype) for _ in range(n_runs)]
        for run, seed in zip(runs, rng.randint(np.iinfo(np.int32).max, size=n_runs), strict=True):
            run.set_params(random_state=int(seed), n_jobs=self.n_jobs)
            run.n_features_in_ = self.n_features_in_
            if hasattr(self, "feature_names_in_"):
                run.feature_names_in_ = self.feature_names_in_
            self._share_target(run, prototype)
        if self.members == _SNAPSHOTS:
            snapshots = partial(self._snapshots, runs[0], X, y, sample_weight, tasks, names)
            self.estimators_, last = _run_at_once([snapshots], 1)[0]
            if last.diagnosis:
                warn(last.diagnosis, ConvergenceWarning)
        else:
            records = self._fit_runs(runs, X, y, sample_weight, tasks, names)
            self.estimators_ = runs
            _warn_of_end(records, prototype.max_iter)
        warn_if_not_residual(self.estimators_[0].network_)
        for member in self.estimators_:
            member.n_jobs = prototype.n_jobs

    def _prototype(self) -> BaseMLP:
        """The estimator that members are clones of; for snapshots, with the settings of one cycle."""
        prototype: BaseMLP = self._member_class() if self.estimator is None else clone(self.estimator)
        prototype._validate_params()
        prototype._warn_of_unused()
        if self.members != _SNAPSHOTS:
            return prototype
        if prototype.solver == "lbfgs":
            raise ValueError("members='snapshots' needs a stochastic solver, got an estimator with solver='lbfgs'.")
        if prototype.early_stopping:
            raise ValueError(
                "members='snapshots' needs an estimator with early_stopping=False: each cycle runs to its end."
            )
        if prototype.max_iter < self.n_estimators:
            raise ValueError(
                f"members='snapshots' needs an epoch for each member: the estimator's max_iter must be at least "
                f"n_estimators={self.n_estimators}, got {prototype.max_iter}."
            )
        return prototype.set_params(
            learning_rate=_CYCLE_SCHEDULE,
            warm_start=True,
            max_iter=prototype.max_iter // self.n_estimators,
            n_iter_no_change=np.inf,
        )

    def _fit_runs(
        self,
        runs: list[BaseMLP],
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        tasks: FitTasks | None,
        target_names: list[Any] | None,
    ) -> list[Record]:
        """Fit the runs, as many at once as threads are allowed; spare threads are shared out."""
        n_threads = choose_threads(self.n_jobs, _MANY_FLOPS)
        n_workers = min(n_threads, len(runs))
        spare = n_threads % n_workers if n_workers == len(runs) else 0

        def fit(number: int) -> Record:
            run = runs[number]
            run.n_jobs = n_threads // n_workers + (number < spare)
            weight = sample_weight
            if self.members == _BOOTSTRAP:
                weight = _bootstrap_weight(run.random_state, X.shape[0], sample_weight)
            return _fit_member(run, number, X, y, weight, tasks, target_names)

        return _run_at_once([partial(fit, number) for number in range(len(runs))], n_workers)

    def _snapshots(
        self,
        run: BaseMLP,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        tasks: FitTasks | None,
        target_names: list[Any] | None,
    ) -> tuple[list[BaseMLP], Record]:
        """Train ``run`` cycle by cycle, and keep a copy after each; the record is the last cycle's."""
        snapshots = []
        seed = run.random_state
        run.random_state = np.random.RandomState(seed)  # an integer would draw the same orders in each cycle
        for number in range(self.n_estimators):
            record = _fit_member(run, number, X, y, sample_weight, tasks, target_names)
            if record.ended == "interrupted":
                raise KeyboardInterrupt
            # A shallow copy keeps the fitted attributes: a further fit replaces them, and does not write into them.
            snapshot = copy.copy(run)
            snapshot.random_state = seed
            snapshots.append(snapshot)
        return snapshots, record

    # --- predict -------------------------------------------------------------------------------------------------

    def _networks(self) -> list[Network]:
        check_is_fitted(self)
        return [network for member in self.estimators_ for network in member._networks()]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimators_")

    def __sklearn_tags__(self) -> Any:
        tags, member = super().__sklearn_tags__(), get_tags(self._member_class())
        tags.input_tags.sparse = member.input_tags.sparse
        tags.target_tags.multi_output = member.target_tags.multi_output
        return tags


def _bootstrap_weight(seed: int, n_rows: int, sample_weight: np.ndarray | None) -> np.ndarray:
    """Weights, of rows or outputs, of a bootstrap sample, drawn among the rows whose weight is not 0: the others change
    nothing."""
    if sample_weight is None:
        return bootstrap_counts(seed, n_rows).astype(np.float64)
    rows = np.flatnonzero(rows_that_count(sample_weight))
    weight = np.zeros_like(sample_weight)
    counts = bootstrap_counts(seed, len(rows))
    weight[rows] = sample_weight[rows] * (counts if weight.ndim == 1 else counts[:, np.newaxis])
    return weight


def _warn_of_end(records: list[Record], max_iter: int) -> None:
    """One warning for all members that ended alike. 'lbfgs' warns by itself."""
    max_iter_reached = (
        f"Stochastic Optimizer: Maximum iterations ({max_iter}) reached and the optimization hasn't converged yet"
    )
    diverged = (
        "Parameters were no longer finite after some epoch; training ended with the parameters of the best validation "
        "score"
    )
    overflowed = (
        "Gradients overflowed in the averages of the solver: some weights have stopped learning. Scale the input, or "
        "take dtype='float64'"
    )
    diagnosis = next((record.diagnosis for record in records if record.diagnosis), "").removesuffix(".")
    for message, warned in [
        (max_iter_reached, [record.ended == "max_iter" for record in records]),
        (diverged, [record.ended == "diverged" for record in records]),
        (overflowed, [record.optimizer_overflowed for record in records]),
        (diagnosis, [record.diagnosis != "" for record in records]),
    ]:
        numbers = np.flatnonzero(warned).tolist()
        if numbers:
            warn(f"{message}. It happened in {len(numbers)} of {len(records)} members: {numbers}.", ConvergenceWarning)


# --- the two ensembles -----------------------------------------------------------------------------------------


class MLPEnsembleClassifier(ClassifierPredictions, BaseMLPEnsemble):
    """Several :class:`MLPClassifier`, trained at once, whose probabilities are averaged.

    Members that differ only in where they begin already err differently: their mean has a log-loss no larger than the
    members' mean log-loss, and is usually better calibrated than any of them (Lakshminarayanan, Pritzel and Blundell,
    NeurIPS 2017).

    Parameters
    ----------
    estimator : MLPClassifier, default=None
        The members are clones of it, with a ``random_state`` each; None stands for ``MLPClassifier()``. Its own
        ``random_state`` and ``n_jobs`` do not matter.
    n_estimators : int, default=8
        Number of members.
    members : {'seeds', 'bootstrap', 'snapshots'}, default='seeds'
        What sets the members apart.

        - 'seeds': initial parameters, orders, and validation split. All see the same rows.
        - 'bootstrap': these, and a weight on each row, the number of times it was drawn in as many draws as there are
          rows (Breiman 1996, "Bagging predictors"), times ``sample_weight``. Rows that were not drawn are left out: an
          epoch has about 0.63 as many rows, of which a batch takes ``batch_size`` whatever their weights, so there are
          fewer steps, and an epoch is shorter. The draws are ``bootstrap_counts`` of the member's ``random_state`` and
          the number of rows with a weight other than 0.
        - 'snapshots': the time. One run of ``n_estimators`` cycles, each of ``estimator.max_iter // n_estimators``
          epochs; a copy of the network is kept at the end of each. The learning rate falls over a cycle as in
          ``learning_rate='cosine'`` and starts anew with the next, as does the solver's memory (Huang et al., ICLR
          2017, "Snapshot ensembles: train 1, get M for free"). The estimator's ``learning_rate``, ``n_iter_no_change``
          and ``warm_start`` do not matter; 'lbfgs' and ``early_stopping`` are errors.
    n_jobs : int or None, default=None
        Threads to train and predict with. None and -1: as many as OpenMP, threadpoolctl, CPU affinity and cgroup allow.
        An integer: at most that many. Each trains a member of its own; where there are more threads than members, a
        member has several, and one run of snapshots has all. The result does not depend on it.
    random_state : int, RandomState instance or None, default=None
        Draws the members' seeds, before anything is trained.

    Attributes
    ----------
    estimators_ : list of MLPClassifier
        The fitted members. ``clone(member).fit(X, y)`` finds the same parameters for 'seeds', and so it does for
        'bootstrap' with the weights above. Snapshots are in the order of their cycles and have one ``random_state``.
    classes_ : ndarray of shape (n_classes,)
        Class labels; the columns' indices in multi-label.
    n_outputs_ : int
        Outputs of a member's network.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    ``fit`` warns once of the members that did not converge, except for 'lbfgs', where each warns for itself.

    Examples
    --------
    >>> from fastmlp import MLPClassifier, MLPEnsembleClassifier
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(n_samples=100, random_state=1)
    >>> ensemble = MLPEnsembleClassifier(MLPClassifier(solver="lbfgs"), n_estimators=3, random_state=1)
    >>> ensemble.fit(X, y).predict_proba(X[:2]).shape
    (2, 2)
    """

    _parameter_constraints = {**BaseMLPEnsemble._parameter_constraints, "estimator": [MLPClassifier, None]}
    _member_class = MLPClassifier

    estimators_: list[MLPClassifier]

    def _share_target(self, member: Any, source: Any) -> None:
        share_classes(member, source)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = get_tags(self._member_class()).classifier_tags.multi_label
        return tags


class MLPEnsembleRegressor(RegressorScore, BaseMLPEnsemble):
    """Several :class:`MLPRegressor`, trained at once, whose predictions are averaged.

    The squared error of the mean is no larger than the members' mean squared error, the difference being the members'
    spread (Krogh and Vedelsby, NIPS 1994), which ``predict`` gives on request.

    Parameters
    ----------
    estimator : MLPRegressor, default=None
        The members are clones of it, with a ``random_state`` each; None stands for ``MLPRegressor()``.
    n_estimators, members, n_jobs, random_state
        As in :class:`MLPEnsembleClassifier`, with the same defaults.

    Attributes
    ----------
    estimators_ : list of MLPRegressor
        The fitted members, as in :class:`MLPEnsembleClassifier`.
    n_outputs_ : int
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> from fastmlp import MLPEnsembleRegressor, MLPRegressor
    >>> from sklearn.datasets import make_regression
    >>> X, y = make_regression(n_samples=100, n_features=5, random_state=1)
    >>> ensemble = MLPEnsembleRegressor(MLPRegressor(solver="lbfgs"), n_estimators=3, random_state=1)
    >>> mean, spread = ensemble.fit(X, y).predict(X[:2], return_std=True)
    >>> mean.shape, spread.shape
    ((2,), (2,))
    """

    _parameter_constraints = {**BaseMLPEnsemble._parameter_constraints, "estimator": [MLPRegressor, None]}
    _member_class = MLPRegressor
    estimators_: list[MLPRegressor]
    # An argument of predict that is not data, and so not for scikit-learn to route.
    __metadata_request__predict = {"return_std": UNUSED}

    def _share_target(self, member: Any, source: Any) -> None:
        member.n_outputs_ = source.n_outputs_

    @overload
    def predict(self, X: Any, return_std: Literal[False] = False) -> np.ndarray: ...
    @overload
    def predict(self, X: Any, return_std: Literal[True]) -> tuple[np.ndarray, np.ndarray]: ...
    def predict(self, X: Any, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Mean of the members' predictions for each row and, if asked for, their spread.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        return_std : bool, default=False
            Return the members' standard deviation too. It tells how far they disagree, in the unit of y, with
            n_estimators as the divisor; the noise in y is not in it. All members' predictions are then held at once.

        Returns
        -------
        mean : ndarray of shape (n_samples,) or, with several outputs, (n_samples, n_outputs)
        std : ndarray of the same shape
            Only with ``return_std``.
        """
        networks, shaped = self._networks(), self.estimators_[0]._shaped
        rows, n_threads = self._rows_and_threads(networks[0], X)
        if not return_std:
            return shaped(mean_output(networks, rows, n_threads))
        outputs = [network.forward(rows, n_threads=n_threads) for network in networks]
        return shaped(sum(outputs[1:], outputs[0]) / len(outputs)), shaped(np.std(outputs, axis=0))
