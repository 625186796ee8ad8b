"""Rows that are not trained on: what they are, how they are split off, what scores them.

It refuses to train and to predict. Imported by ``base`` only.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from fastmlp.training.loop import TrainingData


class HeldOut(NamedTuple):
    """Rows to score on: as the network reads them, and y as the user gave it."""

    X: Any
    target: np.ndarray
    y: Any
    sample_weight: np.ndarray | None


def one_pair(eval_set: Any, X_val: Any, y_val: Any) -> Any:
    """``eval_set``, or ``X_val`` and ``y_val``, two names for one thing, as a pair."""
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val must be given together.")
    if X_val is None:
        return eval_set
    if eval_set is not None:
        raise ValueError("Rows to score on must be given as eval_set or as X_val and y_val, not as both.")
    return X_val, y_val


def split_off(
    data: TrainingData,
    y: Any,
    fraction: float,
    strata: Callable[[np.ndarray], np.ndarray | None],
    must_stratify: bool,
    rng: np.random.RandomState,
) -> tuple[TrainingData, HeldOut]:
    """A fraction of the rows for early stopping, and the others to train on, with ``train_test_split``'s draws.

    strata: labels to stratify by, from targets, None if there are none; must_stratify: it is an error if that is not possible.
    """
    rows = np.arange(data.X.shape[0], dtype=np.intp) if data.rows is None else data.rows
    labels = strata(data.y[rows])
    if labels is not None and not must_stratify and not can_stratify(labels, fraction):
        warnings.warn(
            "Too few rows of some class to stratify the validation split of early_stopping; it is drawn "
            "without regard to classes.",
            stacklevel=8,
        )
        labels = None
    train, test = train_test_split(rows, random_state=rng, test_size=fraction, stratify=labels)
    if len(test) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    weight = data.sample_weight
    held_out = HeldOut(data.X[test], data.y[test], y[test], None if weight is None else weight[test])
    return TrainingData(data.X, data.y, weight, np.ascontiguousarray(train, dtype=np.intp)), held_out


def can_stratify(labels: np.ndarray, test_fraction: float) -> bool:
    """Whether each class has a row for each side of a split."""
    counts = np.unique(labels, return_counts=True)[1]
    n_test = int(np.ceil(test_fraction * len(labels)))
    return counts.min() >= 2 and min(n_test, len(labels) - n_test) >= len(counts)


def takes_weights(metric: Any) -> bool:
    """Whether a scorer, or the metric that it was made from, has a place for ``sample_weight``."""
    function = getattr(metric, "_score_func", metric)
    parameters = inspect.signature(function).parameters
    return "sample_weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
