"""The rows that a run trains on: in memory, or read in blocks; and their order in each epoch."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from fastmlp.core import shuffle
from fastmlp.network.network import LazyRows


class Part(NamedTuple):
    """Some of an epoch's rows: whole batches, but for the epoch's last one. The fields are arguments of
    ``Trainer.epoch``."""

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None
    order: np.ndarray | None

    @property
    def n_rows(self) -> int:
        """Rows to train on."""
        return self.X.shape[0] if self.order is None else len(self.order)


class Epochs(Protocol):
    """The rows of one run, epoch after epoch."""

    def begin_epoch(self) -> None:
        """Draw the order of the next epoch."""

    def parts(self) -> Generator[Part, None, None]:
        """The rows of the present epoch in its order. A generator, which may be closed early."""


class Data(Protocol):
    """Rows to train on, in memory (``TrainingData``) or not."""

    @property
    def n_rows(self) -> int:
        """Rows in an epoch."""

    def epochs(self, batch_size: int, rng: np.random.RandomState | None, alone: bool = False) -> Epochs:
        """The rows for a run, in an order that ``rng`` draws; None: in their own. ``alone`` is that of ``shuffle``."""

    def sample(self) -> TrainingData:
        """Rows in memory to examine: all of them if they are in memory."""


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on that are in memory, or in a memory map.

    Parameters
    ----------
    X : ndarray, CSR matrix or Codes of shape (n, n_features)
        float32 or float64, any strides; never copied.
    y : ndarray
        As ``Network.check_targets`` returns it.
    sample_weight : ndarray of shape (n,) or (n, n_outputs), float64, or None
        Of rows, or of their outputs, not for classes of a softmax. A target of weight 0 is left out.
    rows : ndarray of shape (m,), intp, or None
        Indices of the rows to train on; None for all of them.
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None = None
    rows: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        """Rows in an epoch."""
        return self.X.shape[0] if self.rows is None else len(self.rows)

    def epochs(self, batch_size: int, rng: np.random.RandomState | None, alone: bool = False) -> Epochs:
        """The rows for a run."""
        return _InMemory(self, rng, alone)

    def sample(self) -> TrainingData:
        """All rows."""
        return self


class _InMemory:
    """Epochs over rows in memory, one part each. The order of each is that of the last one, shuffled, as in
    scikit-learn."""

    def __init__(self, data: TrainingData, rng: np.random.RandomState | None, alone: bool) -> None:
        self.data, self.rng, self.alone = data, rng, alone
        self.order = data.rows
        if rng is not None:
            self.order = np.arange(data.n_rows, dtype=np.intp) if data.rows is None else data.rows.copy()

    def begin_epoch(self) -> None:
        """Shuffle the order in place."""
        if self.rng is not None and self.order is not None:
            shuffle(self.order, self.rng, self.alone)

    def parts(self) -> Generator[Part, None, None]:
        """All rows."""
        yield Part(self.data.X, self.data.y, self.data.sample_weight, self.order)


class RowSource:
    """What estimators take in the place of arrays: it has X, and may have y and weights, and reads them in blocks.

    It checks its rows by the rules of the estimator that asks for them.
    """

    #: All labels there are, if a user has named them.
    _classes: Any = None

    def _learn(self, estimator: Any, *, reset: bool, incremental: bool) -> Self:
        """Learn the features and the target, or check against what was learnt; returns the source as this fit reads
        it."""
        raise NotImplementedError

    def _labels(self, estimator: Any) -> np.ndarray:
        """Some rows of y that hold each of its labels, or all values of an indicator matrix."""
        raise NotImplementedError

    def _training_data(self, estimator: Any, network: Any, loss: str) -> Any:
        """The rows that ``_learn`` has seen as a run's ``Data``. It has ``split_off(fraction, rng)`` too."""
        raise NotImplementedError

    def _validation_data(
        self, estimator: Any, network: Any, loss: str
    ) -> tuple[Any, np.ndarray, Any, np.ndarray | None]:
        """Rows to score on: X as lazy rows, the encoded target, y, and weights."""
        raise NotImplementedError

    def _checked_by(self, estimator: Any) -> LazyRows:
        """X for a prediction of a fitted estimator."""
        raise NotImplementedError

    def _target_and_weight(self) -> tuple[np.ndarray, np.ndarray | None]:
        """y and the weights of all rows, in memory."""
        raise NotImplementedError
