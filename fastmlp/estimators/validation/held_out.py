"""The rows that are scored and not trained on: given by the user, or split off for early stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.model_selection import train_test_split

from fastmlp.estimators._sklearn import warn
from fastmlp.training.rows import RowSource, TrainingData
from fastmlp.training.run import masked

# Standard deviations that differ by this factor are of columns that were not scaled alike.
_FAR_SCALE = 10.0
# Rows whose mean says little.
_FEW_ROWS = 5


class ValidationData(NamedTuple):
    """Rows to score on: as the network reads them, and y as the user gave it."""

    X: Any
    target: np.ndarray
    y: Any
    sample_weight: np.ndarray | None


class RowSplit(NamedTuple):
    """Rows of X to train on and, if any, to score on after each epoch: indices, intp."""

    train: np.ndarray
    score: np.ndarray | None = None


def one_validation_set(eval_set: Any, X_val: Any, y_val: Any) -> Any:
    """``eval_set``, or the pair of ``X_val`` and ``y_val``, its other names."""
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val must be given together.")
    if X_val is None:
        return eval_set
    if eval_set is not None:
        raise ValueError("Rows to score on must be given as eval_set or as X_val and y_val, not as both.")
    return X_val, y_val


@contextmanager
def explain_eval_set(eval_set: Any) -> Iterator[None]:
    """Check that eval_set is one pair; say of errors of the block, which reads the pair, that they are about it."""
    if isinstance(eval_set, (tuple, list)) and any(isinstance(part, RowSource) for part in eval_set):
        raise ValueError("eval_set must be the Blocks themselves, which have y in them: eval_set=blocks.")
    if not isinstance(eval_set, (tuple, list)) or len(eval_set) != 2 or isinstance(eval_set[0], tuple):
        parts = f" of {len(eval_set)}" if hasattr(eval_set, "__len__") else ""
        raise ValueError(f"eval_set must be one pair (X, y), got {type(eval_set).__name__}{parts}.")
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"eval_set must be one pair (X, y) like those of fit: {error}") from error


def column_names(values: Any) -> list[Any] | None:
    """Names of the columns of a table, or that of a Series, of any library; None without such."""
    if hasattr(values, "column_names"):  # of Arrow, whose columns are their data
        return list(values.column_names)
    if hasattr(values, "columns"):
        return list(values.columns)
    name = getattr(values, "name", None)
    is_named = hasattr(values, "to_numpy") and name is not None and not (isinstance(name, str) and not name)
    return [name] if is_named else None


def warn_if_unscaled(X: Any, rows: np.ndarray | None, X_val: Any, names: Any = None) -> None:
    """Warn if the columns of the rows to score on lie far outside of those to train on: the two were not transformed
    alike.

    rows: those of X that are trained on, None for all; names: of the columns.
    """
    if found := _far_outside(_some_rows(X, rows), _some_rows(X_val, None), "X", names):
        warn(
            f"The rows to score on lie far outside of those to train on: {found}. A Pipeline transforms X, but hands "
            "eval_set on as it is. Take Pipeline(..., transform_input=['X_val']) with X_val and y_val instead, or "
            "transform eval_set first."
        )


def warn_if_target_unscaled(
    data: TrainingData, rows: np.ndarray | None, validation: ValidationData, names: Any = None
) -> None:
    """The same of a regressor's targets, but for those that are left out."""
    here, there = (
        masked(_some_rows(y, chosen), None if weight is None else _some_rows(weight, chosen))
        for y, weight, chosen in (
            (data.y, data.sample_weight, rows),
            (validation.target, validation.sample_weight, None),
        )
    )
    if found := _far_outside(here, there, "y", names):
        warn(
            f"The targets to score on lie far outside of those to train on: {found}. A TransformedTargetRegressor "
            "transforms y, but hands eval_set on as it is: transform its y first, with the same transformer."
        )


def _far_outside(train: Any, held_out: Any, argument: str, names: Any) -> str:
    """Which column of ``held_out`` lies far outside of ``train``, with its mean and standard deviation; '' if none
    does.

    The mean is compared with the training rows' range, and the standard deviations; of sparse rows the sizes of
    the stored elements.
    """
    if issparse(train) or issparse(held_out):
        here, there = (_stored_size(part) for part in (train, held_out))
        if not here or not there or 1 / _FAR_SCALE <= there / here <= _FAR_SCALE:
            return ""
        return (
            f"the elements that are not 0 have a root mean square of {there:.3g} there and of {here:.3g} in {argument}"
        )
    # np.ma.filled: of a column of which all targets are left out
    mean, mean_there = (np.ma.filled(part.mean(axis=0, dtype=np.float64), np.nan) for part in (train, held_out))
    spread, spread_there = (np.ma.filled(part.std(axis=0, dtype=np.float64), 0) for part in (train, held_out))
    low, high = np.ma.filled(train.min(axis=0), np.nan), np.ma.filled(train.max(axis=0), np.nan)
    varies = spread > 0
    beyond = np.maximum(mean_there - high, low - mean_there) > 0
    few = np.ma.count(held_out, axis=0) < _FEW_ROWS  # one row may be an outlier
    far = varies & beyond & (np.abs(mean_there - mean) > np.where(few, 10, 2) * spread)
    ratio = spread_there[varies & ~few] / spread[varies & ~few]
    other = (ratio > _FAR_SCALE) | (ratio < 1 / _FAR_SCALE)
    other_scale = len(other) > 0 and np.mean(other) >= 0.5 and spread_there.any()
    if not far.any() and not other_scale:
        return ""
    distance = np.nan_to_num(np.abs(mean_there - mean) / np.where(varies, spread, np.inf))
    i = int(np.argmax(np.where(far, distance, 0) if far.any() else distance))
    column = f"column {i if names is None else repr(names[i])}"
    return (
        f"{column} has mean {mean_there[i]:.3g} and standard deviation {spread_there[i]:.3g} there, "
        f"{mean[i]:.3g} and {spread[i]:.3g} in {argument}"
    )


def _some_rows(X: Any, rows: np.ndarray | None) -> Any:
    """At most 2,000 rows, and few if they are wide, spread over X, or over ``rows`` of it."""
    X = X.sample() if hasattr(X, "sample") else X  # of blocks
    n_rows, width = X.shape[0] if rows is None else len(rows), X.shape[1] if X.ndim == 2 else 1
    chosen = np.linspace(0, n_rows - 1, min(n_rows, 2000, max(200, 2**16 // width))).astype(np.intp)
    return X[chosen if rows is None else rows[chosen]]


def _stored_size(rows: Any) -> float:
    """Root mean square of the elements that are not 0; 0 without such."""
    stored = (rows.data if issparse(rows) else rows).ravel()
    stored = stored[stored != 0]
    return float(np.sqrt(np.mean(np.square(stored, dtype=np.float64)))) if len(stored) else 0.0


def split_off(
    data: TrainingData,
    y: Any,
    fraction: float,
    strata: Callable[[np.ndarray], np.ndarray | None],
    must_stratify: bool,
    rng: np.random.RandomState,
) -> tuple[TrainingData, ValidationData]:
    """Split the rows into those to train on and a fraction for early stopping, with ``train_test_split``'s draws.

    strata: function (targets) -> labels to stratify by, or None; must_stratify: an error if that is not possible.
    """
    rows = np.arange(data.X.shape[0], dtype=np.intp) if data.rows is None else data.rows
    labels = strata(data.y[rows])
    if labels is not None and not must_stratify and not can_stratify(labels, fraction):
        warn(
            "Too few rows of some class to stratify the validation split of early_stopping; it is drawn "
            "without regard to classes."
        )
        labels = None
    train, test = train_test_split(rows, random_state=rng, test_size=fraction, stratify=labels)
    if labels is not None and (all_labels := strata(data.y)) is not None:
        _give_each_class_a_row(all_labels, train, test)
    if len(test) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    weight = data.sample_weight
    validation = ValidationData(data.X[test], data.y[test], y[test], None if weight is None else weight[test])
    return TrainingData(data.X, data.y, weight, np.ascontiguousarray(train, dtype=np.intp)), validation


def _give_each_class_a_row(labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> None:
    """Exchange rows, in place, so that each class with two rows has one in ``test``: a stratified share of few rounds
    to none."""
    for label in np.setdiff1d(labels[train], labels[test]):
        of_class = np.flatnonzero(labels[train] == label)
        _, places, counts = np.unique(labels[test], return_index=True, return_counts=True)
        if len(of_class) >= 2 and counts.max() >= 2:
            i, j = of_class[0], places[counts.argmax()]
            train[i], test[j] = test[j], train[i]


def can_stratify(labels: np.ndarray, test_fraction: float) -> bool:
    """Whether each class has a row for each side of a split."""
    counts = np.unique(labels, return_counts=True)[1]
    n_test = int(np.ceil(test_fraction * len(labels)))
    return counts.min() >= 2 and min(n_test, len(labels) - n_test) >= len(counts)
