"""The training of a fit's networks: rows for training and rows for scoring, and the configurations of a search on
them."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from fastmlp.core import Codes
from fastmlp.estimators._sklearn import warn
from fastmlp.estimators.base import BaseMLP
from fastmlp.estimators.callbacks import FitTasks, callbacks_on_epochs
from fastmlp.estimators.ensemble import _run_at_once, _warn_of_end
from fastmlp.estimators.persistence import _data_of_terms, _defaults
from fastmlp.estimators.validation.held_out import RowSplit
from fastmlp.tabular.coding import Inputs
from fastmlp.tabular.search import BLOCK, MOST_WORK, SPACES, STOPPED, Clock, Configuration
from fastmlp.training.run import DEADLINE, Record
from fastmlp.training.threads import choose_threads, forward_flops


def _order(labels: np.ndarray | None, n_rows: int, rng: np.random.RandomState) -> np.ndarray:
    """The rows in random order, one class after the other: each stretch of equal steps takes its part of every
    class."""
    order: np.ndarray = rng.permutation(n_rows)
    return order if labels is None else order[np.argsort(labels[order], kind="stable")]


def deal(labels: np.ndarray | None, n_rows: int, n_folds: int, rng: np.random.RandomState) -> np.ndarray:
    """The fold of each row. Folds differ by at most one row, in all and in each class.

    Parameters
    ----------
    labels : ndarray of shape (n_rows,), or None
        Each row's class; None: without regard to classes.
    n_rows, n_folds : int
    rng : RandomState

    Returns
    -------
    ndarray of shape (n_rows,), intp
        From 0 to n_folds - 1.
    """
    fold = np.empty(n_rows, dtype=np.intp)
    fold[_order(labels, n_rows, rng)] = np.arange(n_rows) % n_folds
    return fold


def take_share(labels: np.ndarray | None, n_rows: int, share: float, rng: np.random.RandomState) -> np.ndarray:
    """A mask of a share of the rows: at least one and not all, of each class about its share.

    A class with a single row stays whole, where there are others.
    """
    order = _order(labels, n_rows, rng)
    if labels is not None:
        _, of_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
        several = (counts > 1)[of_class.ravel()]
        order = order[several[order]] if np.count_nonzero(several) > 1 else order
    n_taken = min(max(round(share * len(order)), 1), len(order) - 1)
    steps = np.arange(len(order) + 1) * n_taken // len(order)
    taken = np.zeros(n_rows, dtype=bool)
    taken[order[np.diff(steps) > 0]] = True
    return taken


class Training:
    """Trains the networks of one fit. All read the same codes.

    Parameters
    ----------
    model : BaseTabular
    codes : Codes or ndarray
        The networks' input.
    y : array-like
        As the user gave it.
    weight : ndarray or None
    n_networks : int
        Of each configuration.
    split : function (number) -> RowSplit
        The rows of each of them.
    rng : RandomState
        Draws configurations, and each network's seed.
    tasks : FitTasks or None
    clock : Clock
    """

    def __init__(
        self,
        model: Any,
        codes: Inputs,
        y: Any,
        weight: np.ndarray | None,
        n_networks: int,
        split: Callable[[int], RowSplit],
        rng: np.random.RandomState,
        tasks: FitTasks | None,
        clock: Clock,
    ) -> None:
        self.model, self.codes, self.y, self.weight, self.clock = model, codes, y, weight, clock
        self.n_networks, self._split, self.rng, self._tasks = n_networks, split, rng, tasks
        self._target = model._network_target(y)
        self._n_train = len(split(0).train)  # no other has fewer: the first folds are the largest
        self._n_begun = 0
        first = SPACES[model.method].first if model.method in SPACES else ()
        self._first = [allowed for drawn in first if (allowed := self._allowed(drawn)) is not None]
        self._waiting: list[dict[str, Any]] = []
        self.n_threads = choose_threads(model.n_jobs, sys.maxsize)

    def draw(self) -> Configuration:
        """The next configuration of the search."""
        if not self._waiting:
            drawn = [*self._first, *(self._drawn() for _ in range(BLOCK - len(self._first)))]
            self._waiting, self._first = sorted(drawn, key=self._work_of), []
        configuration = self._configuration(self._waiting.pop(0))
        self._n_begun += 1
        return configuration

    def _drawn(self) -> dict[str, Any]:
        """Parameters from the space, of networks that are not much larger than the default's."""
        while True:
            parameters = self._allowed(SPACES[self.model.method].draw(self.rng))
            if parameters is None:
                continue
            if self._work_of(parameters) <= MOST_WORK * self._work_of({}) or "hidden_layer_sizes" not in parameters:
                return parameters

    def _allowed(self, drawn: dict[str, Any]) -> dict[str, Any] | None:
        """What the search may change of these parameters; None if they are another method's, which has no place for
        what the user has set."""
        method, searched = self.model.method, self._searched()
        if drawn.get("method", method) != method and not searched >= {"embedding", "n_members"}:
            return None
        return {name: value for name, value in drawn.items() if name in searched}

    def _searched(self) -> set[str]:
        """The parameters that the search may change: those that have their defaults."""
        model, defaults = self.model, _defaults(type(self.model))
        names = set()
        for name, value in model.get_params(deep=False).items():
            if type(value) is type(defaults[name]) and not np.ndim(value) and value == defaults[name]:
                names.add(name)
        if np.ndim(model.activation) or np.ndim(model.dropout):  # of as many layers
            names.discard("hidden_layer_sizes")
        return names

    def _variant(self, parameters: dict[str, Any]) -> tuple[Any, BaseMLP, Any]:
        """The model with other parameters, a network's estimator, and what makes its network."""
        model = self.model
        if parameters:
            model = copy.copy(model)
            model.__dict__.update(parameters)
        prototype = model._member()
        return model, prototype, model._embed(prototype, self.codes)

    def _work_of(self, parameters: dict[str, Any]) -> float:
        model, prototype, make_network = self._variant(parameters)
        return _work(prototype, model.n_outputs_, self.codes, make_network)

    def _configuration(self, parameters: dict[str, Any]) -> Configuration:
        """A configuration whose networks have not been trained."""
        model, prototype, make_network = self._variant(parameters)
        members = [clone(prototype) for _ in range(self.n_networks)]
        for member, seed in zip(members, self.rng.randint(np.iinfo(np.int32).max, size=len(members)), strict=True):
            member.random_state = int(seed)
            member.batch_size = min(model._rows_per_step(self._n_train), self._n_train)
            member.n_features_in_ = self.codes.shape[1]
            model._share_target(member, model)
            if callbacks := callbacks_on_epochs(model):
                member.set_callbacks(*callbacks)
        names = SPACES[self.model.method].names if self.model.method in SPACES else ()
        shown = {name: model._own(name) for name in names if hasattr(model, name)}
        work = _work(prototype, model.n_outputs_, self.codes, make_network)
        return Configuration(self._n_begun, shown, members, make_network, work)

    def default(self) -> Configuration:
        """The model's own configuration, trained: as many networks at once as threads are allowed; spare threads are
        shared out."""
        configuration = self._configuration({})
        self._n_begun = 1
        n_networks = len(configuration.members)
        n_workers = min(self.n_threads, n_networks)
        spare = self.n_threads % n_workers if n_workers == n_networks else 0
        seconds = np.zeros(n_networks)

        def fit(number: int) -> Record:
            began, n_threads = time.perf_counter(), self.n_threads // n_workers + (number < spare)
            deadline = self.clock.share(-(-(n_networks - number) // n_workers))
            record = self.fit(configuration, number, deadline, n_threads)
            seconds[number] = (time.perf_counter() - began) * n_threads
            return record

        records = _run_at_once([partial(fit, number) for number in range(n_networks)], n_workers)
        for record in records:
            record.diagnosis = ""  # it speaks of scales, and codes have none
            early_stopping = self.model.early_stopping
            record.ended = "planned" if record.ended == "max_iter" and not early_stopping else record.ended
        _warn_of_end(records, self.model._own("max_iter"))
        if any(record.ended == "stopped" for record in records):
            configuration.ended = STOPPED
            if self.clock.left() <= 0:
                warn(
                    f"time_limit={self.model.time_limit} was up before the default configuration's networks had "
                    f"converged: they were trained for {[record.n_epochs for record in records]} epochs.",
                    ConvergenceWarning,
                )
        configuration.records, configuration.seconds = list(records), float(seconds.sum())
        return configuration

    def fit(self, configuration: Configuration, number: int, deadline: float, n_threads: int = 1) -> Record:
        """Train a network."""
        member, tasks = configuration.members[number], self._tasks
        member.n_jobs = n_threads
        of_all = configuration.number * len(configuration.members) + number
        name = f"Fold {number}"
        if self.model._searches():
            name = f"Configuration {configuration.number}, fold {number}"
        DEADLINE.set(deadline)
        with nullcontext() if tasks is None else tasks.member(of_all, member):
            record: Record = member._fit_member(
                self.codes,
                self._target,
                self.weight,
                name,
                self._split(number),
                make_network=configuration.make_network,
            )
        member.n_jobs = self.model.n_jobs
        member.validation_metric = self.model._metric()
        member._run_terms = _data_of_terms(member._run_terms)
        for attribute in ("_skl_callbacks", "_optimizer_state", "_position"):  # of no use any more, and large
            vars(member).pop(attribute, None)
        return record


def _work(member: BaseMLP, n_outputs: int, codes: Any, make_network: Any) -> float:
    """How long a network's training takes for a row, in a unit of its own."""
    hidden, n_features = member._hidden_layer_sizes(), codes.shape[1] / 2
    if isinstance(codes, Codes):
        n_features = len(codes.layout.bin_counts) + len(codes.layout.category_counts)
    n_members = 1 if make_network is None else make_network.n_members
    dense = forward_flops((*hidden, n_outputs), 1) if hidden else 0
    first = hidden[0] if hidden else n_outputs
    return float(dense * n_members + 2 * n_features * first + 2000)
