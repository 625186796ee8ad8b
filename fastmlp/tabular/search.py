"""Random search over a method's configurations within a time limit, and the selection of an ensemble from those that
were trained."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastmlp.core import Cancelled
from fastmlp.estimators._sklearn import BaseEstimator, ClassifierMixin, RegressorMixin
from fastmlp.estimators.ensemble import _run_at_once
from fastmlp.training.run import DivergenceError, Record

#: A network may take this many times the arithmetic of the default's.
MOST_WORK = 8
_SHARE_OF_PLAIN = 0.25
#: So many configurations are drawn at a time, and trained in the order of their work: a time limit is met by one that
#: takes long.
BLOCK = 8
# Configurations whose networks are kept until the ensemble is selected: the best ones so far.
_KEPT = 32
# Steps of the selection, each of which adds a configuration.
_N_STEPS = 50
ENDS = COMPLETE, STOPPED, FAILED = ("complete", "stopped", "failed")


# --- spaces ----------------------------------------------------------------------------------------------------


def _log_uniform(rng: np.random.RandomState, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _of_tabm(rng: np.random.RandomState) -> dict[str, Any]:
    """TabM-mini's space as its authors tune it, with fewer members and narrower layers, or a configuration of 'plain'.

    All networks read the same codes, so that the number of bins is fixed. Rates below 5e-4 need more epochs than they
    are worth. The two methods err differently: an ensemble of both is better than one of either.
    """
    if rng.uniform() < _SHARE_OF_PLAIN:
        return {"method": "plain", **_of_plain(rng)}
    width = 16 * int(rng.randint(4, 17))
    return {
        "hidden_layer_sizes": (width,) * int(rng.randint(1, 5)),
        "dropout": float(rng.uniform(0, 0.5)) * bool(rng.randint(2)),
        "learning_rate_init": _log_uniform(rng, 5e-4, 5e-3),
        "weight_decay": _log_uniform(rng, 1e-4, 1e-1) * bool(rng.randint(2)),
        "embedding": int(rng.choice([16, 32])),
        "n_members": int(rng.choice([4, 8, 16])),
    }


def _of_plain(rng: np.random.RandomState) -> dict[str, Any]:
    """The space of MLPs on piecewise-linear codes, around this method's own weight decay."""
    width = 16 * int(rng.randint(4, 33))
    return {
        "hidden_layer_sizes": (width,) * int(rng.randint(1, 4)),
        "dropout": float(rng.uniform(0, 0.5)) * bool(rng.randint(2)),
        "learning_rate_init": _log_uniform(rng, 3e-4, 5e-3),
        "weight_decay": _log_uniform(rng, 1e-2, 3.0),
    }


def _of_realmlp(rng: np.random.RandomState) -> dict[str, Any]:
    """RealMLP's space as its authors tune it, but for embeddings of numbers, which RealMLP-S has not."""
    return {
        "hidden_layer_sizes": ((256,) * 3, (64,) * 5, (512,))[rng.choice(3, p=[0.6, 0.2, 0.2])],
        "dropout": float(rng.choice([0.0, 0.15, 0.3], p=[0.3, 0.5, 0.2])),
        "learning_rate_init": _log_uniform(rng, 2e-2, 3e-1),
        "weight_decay": float(rng.choice([0.0, 2e-2])),
        "activation": str(rng.choice(["relu", "selu", "mish"])),
        "scaling_rate": float(rng.choice([6.0, 0.0], p=[0.6, 0.4])),
        "label_smoothing": float(rng.choice([0.0, 0.1], p=[0.3, 0.7])),
    }


class Space(NamedTuple):
    """What a search tries.

    Parameters
    ----------
    names : tuple of str
        The parameters; a classifier's alone are left out for numbers.
    first : sequence of dict
        Configurations that are tried among the first ``BLOCK``, the default apart.
    draw : function (RandomState) -> dict
        The values of a configuration; those that it leaves out have the method's values.
    """

    names: tuple[str, ...]
    first: Sequence[dict[str, Any]]
    draw: Callable[[np.random.RandomState], dict[str, Any]]


_OF_LAYERS = ("hidden_layer_sizes", "dropout", "learning_rate_init", "weight_decay")
#: By method.
SPACES = {
    "plain": Space(_OF_LAYERS, (), _of_plain),
    "realmlp": Space((*_OF_LAYERS, "activation", "scaling_rate", "label_smoothing"), (), _of_realmlp),
    "tabm": Space(("method", *_OF_LAYERS, "embedding", "n_members"), ({"method": "plain"}, {"n_members": 8}), _of_tabm),
}


# --- configurations ------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Configuration:
    """Values of the parameters that are searched, and the networks that are trained with them, one for each fold.

    Parameters
    ----------
    number : int
        In the order of their drawing, the default being 0.
    parameters : dict
    members : list of MLPClassifier or MLPRegressor
        Empty once better configurations have taken its place.
    make_network : EmbeddingNetwork or None
    work : float
        How long its networks take, in a unit of its own.
    """

    number: int
    parameters: dict[str, Any]
    members: list[Any]
    make_network: Any
    work: float
    records: list[Record | None] = field(default_factory=list)
    #: Seconds that its networks took, added up.
    seconds: float = 0.0
    score: float = np.nan
    #: What the selection averages: see ``Judge``.
    part: np.ndarray | None = None
    ended: str = COMPLETE
    n_selected: int = 0

    def __post_init__(self) -> None:
        self.records = [None] * len(self.members)

    def drop(self) -> None:
        """Forget the networks."""
        self.members, self.part = [], None

    def describe(self, n_all: int) -> dict[str, Any]:
        """Its entry in ``configurations_``. n_all: how often the selection took any configuration."""
        return {
            "parameters": self.parameters,
            "score": float(self.score),
            "weight": self.n_selected / n_all,
            "seconds": float(self.seconds),
            "ended": self.ended,
        }


@dataclass(frozen=True)
class Judge:
    """Scores configurations by their networks' outputs on rows that these have not been trained on.

    Parameters
    ----------
    part : function (members) -> ndarray of shape (n_rows, ...)
        What is averaged over configurations: the outputs, or as much of them as the score needs.
    score : function (part) -> float
        More is better.
    """

    part: Callable[[list[Any]], np.ndarray]
    score: Callable[[np.ndarray], float]


class Predicted(BaseEstimator):
    """Predictions that were made, as a fitted estimator for scorers; X is the column of the rows' numbers.

    Parameters
    ----------
    model : TabularClassifier or TabularRegressor
    prediction : ndarray of shape (n_rows, n_columns)
        Probabilities, or numbers.
    """

    def __init__(self, model: Any = None, prediction: Any = None) -> None:
        self.model = model
        self.prediction = prediction
        for name in ("classes_", "n_outputs_", "validation_metric"):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    def fit(self, X: Any, y: Any) -> Predicted:
        """For scikit-learn, to which an estimator has a ``fit``."""
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Labels or numbers."""
        predicted: np.ndarray = self.model._predicted(self.prediction[X[:, 0]])
        return predicted

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        return self.model.__sklearn_tags__()


class PredictedClasses(ClassifierMixin, Predicted):
    """Probabilities of classes."""

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities."""
        probabilities: np.ndarray = self.prediction[X[:, 0]]
        return probabilities

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Their logarithms."""
        return np.asarray(np.log(np.maximum(self.predict_proba(X), np.finfo(np.float32).tiny)))


class PredictedNumbers(RegressorMixin, Predicted):
    """Predictions of numbers."""


def weighted_mean(values: np.ndarray, weight: np.ndarray | None) -> float:
    """Mean of values (n_rows, ...) with weights of rows, or of values; one of weight 0 may be NaN."""
    if weight is None:
        return float(values.mean())
    values = values.reshape(len(values), -1).mean(axis=1) if weight.ndim == 1 else values.reshape(weight.shape)
    return float(np.average(np.where(weight > 0, values, 0.0), weights=weight))


def select(parts: Sequence[np.ndarray], score: Callable[[np.ndarray], float], n_steps: int = _N_STEPS) -> np.ndarray:
    """How often each part is in the mean with the best score that forward selection with replacement finds.

    Each step adds the part that makes the mean's score best, of equal ones the first; parts may be added again. The
    best mean of all steps is returned.

    Parameters
    ----------
    parts : sequence of ndarray, all of one shape
    score : function (mean) -> float
        More is better; NaN counts as the worst.
    n_steps : int

    Returns
    -------
    ndarray of shape (n_parts,), intp

    References
    ----------
    Caruana, Niculescu-Mizil, Crew and Ksikes. Ensemble selection from libraries of models. ICML 2004.
    """
    counts, best, best_score = np.zeros(len(parts), dtype=np.intp), None, -np.inf
    total = np.zeros(parts[0].shape)
    for step in range(1, n_steps + 1 if len(parts) > 1 else 2):
        scores = np.array([score((total + part) / step) for part in parts])
        chosen = int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))
        counts[chosen] += 1
        total += parts[chosen]
        if best is None or scores[chosen] > best_score:
            best, best_score = counts.copy(), scores[chosen]
    assert best is not None
    reduced: np.ndarray = best // np.gcd.reduce(best)
    return reduced


# --- time ----------------------------------------------------------------------------------------------------------


class Clock:
    """The time that a search has, and how long it takes.

    Parameters
    ----------
    seconds : float or None
        From now on; None: without end.
    """

    def __init__(self, seconds: float | None) -> None:
        self.end = np.inf if seconds is None else time.perf_counter() + seconds
        self._seconds = self._work = 0.0
        #: Seconds of the selection for each configuration.
        self.selection = 0.0

    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.perf_counter()

    def share(self, n_rounds: int) -> float:
        """When a network must end that is the first of so many rounds of networks."""
        now = time.perf_counter()
        return now + (self.end - now) / max(n_rounds, 1)

    def add(self, seconds: float, work: float) -> None:
        """Networks have taken so many seconds of a thread."""
        self._seconds += seconds
        self._work += work

    def expected(self, work: float) -> float:
        """Seconds of a thread that networks will take."""
        return work * self._seconds / self._work if self._work else 0.0


class Search:
    """Trains configurations, the networks of several at once, until all have been trained or time is up.

    Parameters
    ----------
    begin : function () -> Configuration
        The next configuration. Calls are never at the same time.
    fit : function (configuration, number, deadline) -> Record
        Trains a network, which ends at the end of the epoch in which ``time.perf_counter()`` passes the deadline.
    judge : Judge
    clock : Clock
    n_configurations : int or None
        Configurations in all; None: as many as there is time for.
    n_workers : int
        Networks that are trained at the same time, with a thread each.
    report : function (configuration)
        Is told of each configuration that has ended.
    """

    def __init__(
        self,
        begin: Callable[[], Configuration],
        fit: Callable[[Configuration, int, float], Record],
        judge: Judge,
        clock: Clock,
        n_configurations: int | None,
        n_workers: int,
        report: Callable[[Configuration], None],
    ) -> None:
        self._begin, self._fit, self._judge, self._clock, self._report = begin, fit, judge, clock, report
        self._n_configurations, self._n_workers = n_configurations, n_workers
        self._lock = threading.Lock()
        self._queue: deque[tuple[Configuration, int]] = deque()
        self._running = 0.0  # work of the networks that are being trained
        self._closed = False
        self._begun: list[Configuration] = []
        self._ended: list[Configuration] = []
        self._error: Exception | None = None
        #: Whether Ctrl-C ended it.
        self.interrupted = False

    def take_first(self, first: Configuration) -> None:
        """The configuration that has been trained already."""
        self._begun.append(first)
        self._clock.add(first.seconds, first.work)
        self._end(first)
        if self._clock.end < np.inf and first.part is not None:
            self._clock.selection = _N_STEPS * min(self._seconds_of_a_score(first.part) for _ in range(3))

    def _seconds_of_a_score(self, part: np.ndarray) -> float:
        """Seconds of the score of a mean of parts; the first of several may take longer."""
        began = time.perf_counter()
        self._judge.score((part + part) / 2)
        return time.perf_counter() - began

    def run(self) -> list[Configuration]:
        """Train the others; all that have ended, in their order. Ctrl-C ends the search, and keeps those."""
        try:
            _run_at_once([self._work] * self._n_workers, self._n_workers)
        except KeyboardInterrupt:
            with self._lock:
                self.interrupted = self._closed = True
        if self._error is not None:
            raise self._error
        with self._lock:
            return sorted(self._ended, key=lambda configuration: configuration.number)

    def _work(self) -> None:
        """Train networks until there are no more."""
        while (taken := self._next()) is not None:
            configuration, number, deadline = taken
            try:
                self._train(configuration, number, deadline)
            except Cancelled:
                raise
            except Exception as error:
                with self._lock:
                    if self._error is None:
                        error.add_note(
                            f"It happened in configuration {configuration.number}, network {number}, counted from 0."
                        )
                        self._error = error
                    self._closed = True
                return

    def _next(self) -> tuple[Configuration, int, float] | None:
        """The next network to train, and when it must end."""
        with self._lock:
            if not self._queue and not self._closed:
                self._extend()
            if self._closed or not self._queue:
                return None
            n_rounds = -(-len(self._queue) // self._n_workers)
            configuration, number = self._queue.popleft()
            self._running += configuration.work / len(configuration.members)
            return configuration, number, self._clock.share(n_rounds)

    def _extend(self) -> None:
        """Begin another configuration, if there is one and it should end in time."""
        if self._n_configurations is not None and len(self._begun) >= self._n_configurations:
            self._closed = True
            return
        configuration = self._begin()
        if self._clock.end < np.inf:
            seconds = self._clock.expected(configuration.work)
            rounds = -(-len(configuration.members) // self._n_workers) / len(configuration.members)
            busy = self._clock.expected(self._running) / 2  # on average, a network that is being trained is half done
            needed = max((busy + seconds) / self._n_workers, rounds * seconds)
            selection = self._clock.selection * min(len(self._begun) + 1, _KEPT)
            if needed + selection > self._clock.left():
                self._closed = True
                return
        self._begun.append(configuration)
        self._queue.extend((configuration, number) for number in range(len(configuration.members)))

    def _train(self, configuration: Configuration, number: int, deadline: float) -> None:
        began, work = time.perf_counter(), configuration.work / len(configuration.members)
        record: Record | None = None
        if configuration.ended != FAILED:
            try:
                record = self._fit(configuration, number, deadline)
            except (DivergenceError, MemoryError):  # others will do
                configuration.ended = FAILED
        seconds = time.perf_counter() - began
        with self._lock:
            configuration.records[number] = record if record is not None else Record()
            configuration.seconds += seconds
            self._running -= work
            if record is not None:
                self._clock.add(seconds, work)
            is_last = all(configuration.records)
        if is_last:
            self._end(configuration)

    def _end(self, configuration: Configuration) -> None:
        """Score a configuration whose networks have all been trained, and keep it if it is one of the best."""
        if configuration.ended == FAILED:
            configuration.drop()
        else:
            if any(record is not None and record.ended == "stopped" for record in configuration.records):
                configuration.ended = STOPPED
            configuration.part = self._judge.part(configuration.members)
            configuration.score = self._judge.score(configuration.part)
        with self._lock:
            if self.interrupted:
                return
            self._ended.append(configuration)
            kept = [other for other in self._begun if other.part is not None]
            kept.sort(key=lambda other: -other.score if np.isfinite(other.score) else np.inf)
            for worst in kept[_KEPT:]:
                worst.drop()
        self._report(configuration)
