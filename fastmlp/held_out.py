"""Rows that are not trained on: what they are, whether they can be split off by class, what scores them.

It refuses to train and to predict. Imported by ``base`` only.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np


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
