"""Rows as users bring them: X, y and weights, checked by scikit-learn's rules, and errors that name the column at fault.

What scikit-learn refuses is refused in its words; a sentence about X's columns may follow. What it lets pass and an element
type cannot hold is refused here too. It refuses to know networks, and to copy what can be read where it is. Imported by
``base``, ``labels`` and ``ensemble``.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from fastmlp.core.memory import all_finite

FLOATS = (np.float64, np.float32)
# Columns that an error names; the others are counted.
_NAMED = 3


def check_rows(estimator: BaseEstimator, X: Any, y: Any, reset: bool = True) -> tuple[Any, Any]:
    """X and y by scikit-learn's rules; ``reset``: learn the features' number and names, instead of holding X to them."""
    if plainly_target(estimator, y) and plainly_rows(estimator, X, reset) and X.shape[0] == y.shape[0]:
        if reset:
            vars(estimator).pop("feature_names_in_", None)
            estimator.n_features_in_ = X.shape[1]
        return X, y
    with _naming_columns(X), naming_labels(y):
        rows, target = validate_data(
            estimator,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            y_numeric=not is_classifier(estimator),
            dtype=FLOATS,
            reset=reset,
        )
        _refuse_dates("X", X)
        if not is_classifier(estimator):
            _refuse_dates("y", y, also="US")
            assert_all_finite(target, input_name="y")  # objects were looked at before they were numbers
    if target.ndim == 2 and target.shape[1] == 1:
        target = column_or_1d(target, warn=True)
    return _aligned(rows), target


def plainly_rows(estimator: Any, X: Any, reset: bool = False) -> bool:
    """Whether X is so plainly what ``validate_data`` would pass as it is that there is no need to ask it."""
    return (
        type(X) is np.ndarray
        and X.dtype in FLOATS
        and X.ndim == 2
        and X.flags.aligned
        and X.shape[0] > 0
        and X.shape[1] > 0
        and (
            reset
            or (
                X.shape[1] == getattr(estimator, "n_features_in_", None) and not hasattr(estimator, "feature_names_in_")
            )
        )
        and all_finite(X)
    )


def plainly_target(estimator: Any, y: Any) -> bool:
    """The same for y: labels or numbers in one dimension."""
    if type(y) is not np.ndarray or y.ndim != 1:
        return False
    return (
        y.dtype.kind in "iu"
        or (y.dtype in FLOATS and all_finite(y))
        or (y.dtype.kind == "U" and is_classifier(estimator))
    )


def check_input(estimator: BaseEstimator, X: Any) -> Any:
    """X of a prediction, held to the number and the names of the features that were learnt."""
    if plainly_rows(estimator, X):
        return X
    with _naming_columns(X):
        rows = validate_data(estimator, X, accept_sparse="csr", dtype=FLOATS, reset=False)
        _refuse_dates("X", X)
    return _aligned(rows)


def _refuse_dates(argument: str, values: Any, also: str = "") -> None:
    """Dates and durations, which scikit-learn takes for numbers where there is nothing else; ``also``: NumPy's kinds of words."""
    dtypes: Any = values.dtypes if hasattr(values, "columns") else [getattr(values, "dtype", None)]
    for dtype in dtypes:
        temporal = hasattr(dtype, "is_temporal") and dtype.is_temporal()  # polars'
        if temporal or getattr(dtype, "kind", "") in ("m", "M", *also):
            raise TypeError(f"Input {argument} must be numbers, got {dtype}.")


def check_weight(sample_weight: ArrayLike | None, X: Any) -> np.ndarray | None:
    """The rows' weights by scikit-learn's rules, with a sum that can be divided by; None stays.

    That they must not all be 0 is not one of the rules of scikit-learn's older releases.
    """
    if sample_weight is None:
        return None
    weight: np.ndarray = _check_sample_weight(sample_weight, X)
    if not weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    total = weight_sum(weight)
    if total == 0 or not np.isfinite(total):
        raise ValueError(f"sample_weight must have a sum that is finite and not 0, got {total}.")
    return weight


def weight_sum(weight: np.ndarray) -> float:
    """Sum of the rows' weights, infinite or NaN without a warning; a run divides by it."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(weight.sum(dtype=np.float64))


def rows_that_count(weight: np.ndarray) -> np.ndarray | None:
    """Indices of the rows with a weight other than 0; None if these are all rows."""
    return None if weight.all() else np.flatnonzero(weight).astype(np.intp)


def check_range(argument: str, values: Any, dtype: np.dtype) -> None:
    """Whether finite numbers, dense or sparse, are finite in ``dtype`` too."""
    values = values.data if issparse(values) else values
    if values.dtype.kind != "f" or values.dtype.itemsize <= dtype.itemsize or values.size == 0:
        return
    largest = max(float(values.max()), -float(values.min()))
    if largest > float(np.finfo(dtype).max):  # a float32 would make one of ``largest``
        raise ValueError(
            f"Input {argument} contains infinity or a value too large for {dtype!r}: it reaches {largest:.3g}; scale it, or take "
            "dtype='float64'."
        )


def check_weight_range(weight: np.ndarray, dtype: np.dtype) -> None:
    """Whether weights keep their meaning in ``dtype``: they may reach from large to 0, but not lie beyond it as a whole."""
    largest = float(np.abs(weight).max())
    if not float(np.finfo(dtype).tiny) <= largest <= float(np.finfo(dtype).max):
        raise ValueError(
            f"sample_weight must have its largest value in the range of {dtype.name}, got {largest:.3g}; scale it."
        )


def _aligned(X: Any) -> Any:
    """X, or a copy if it is a view of packed records or bytes, whose numbers do not stand where the core may read them."""
    return np.require(X, requirements="A") if isinstance(X, np.ndarray) else X


# --- errors that name columns --------------------------------------------------------------------------------------


@contextmanager
def _naming_columns(X: Any) -> Iterator[None]:
    """Errors of the block also say which columns of X are not finite numbers. Nothing is looked at unless there is one."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        faults = [fault for name, column in _columns(X) if (fault := _fault(name, column))]
        if not faults:
            raise
        rest = f" So it is with {len(faults) - _NAMED} more." if len(faults) > _NAMED else ""
        kind = next(kind for kind in (ValueError, TypeError, OverflowError) if isinstance(error, kind))
        raise kind(f"{str(error).rstrip()}\n{' '.join(faults[:_NAMED])}{rest}") from error


def _columns(X: Any) -> Iterator[tuple[Any, Any]]:
    """Names and columns of a DataFrame of pandas or polars, or of a 2-D array; of anything else, none."""
    if hasattr(X, "iloc") and hasattr(X, "columns"):
        yield from ((name, X.iloc[:, i]) for i, name in enumerate(X.columns))
    elif hasattr(X, "get_columns"):
        yield from zip(X.columns, X.get_columns(), strict=True)
    elif isinstance(X, np.ndarray) and X.ndim == 2:
        yield from enumerate(X.T)


def _fault(name: Any, column: Any) -> str:
    """What keeps a column from being finite numbers, in a sentence; '' if nothing does."""
    values = np.asarray(column)
    if values.dtype.kind in "mM":
        return f"Column {name!r} holds {values.dtype}."
    if values.dtype.kind in "biuf":
        found = values[~np.isfinite(values)][:1].tolist()
        return f"Column {name!r} holds {found[0]}." if found else ""
    for value in values.tolist():
        try:
            if np.isfinite(float(value)):
                continue
        except (TypeError, ValueError, OverflowError):  # what is not a number: the very thing that is looked for
            pass
        return f"Column {name!r} holds {reprlib.repr(value)}."
    return ""


@contextmanager
def naming_labels(y: Any) -> Iterator[None]:
    """A TypeError of the block also says what kinds of labels y mixes: those that are missing do not compare with others."""
    try:
        yield
    except TypeError as error:
        labels = np.asarray(y, dtype=object).ravel().tolist()
        kinds = sorted({"number" if isinstance(label, Number) else type(label).__name__ for label in labels})
        if len(kinds) < 2:
            raise
        raise TypeError(
            f"{error}\nInput y holds labels of different types, or missing ones: {', '.join(kinds)}."
        ) from error
