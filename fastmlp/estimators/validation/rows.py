"""X and y by scikit-learn's rules. Errors have its messages, and a sentence that names the columns at fault may follow.

Numbers that scikit-learn accepts and an element type cannot hold are errors too. Arrays that can be read in place are
not copied.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from mmap import mmap
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.validation import validate_data

from fastmlp.core import Codes
from fastmlp.core.memory import all_finite, in_words, refuse_masked, total_memory
from fastmlp.estimators._sklearn import BaseEstimator, warn
from fastmlp.estimators.parameters import plain
from fastmlp.estimators.validation.messages import check_has_rows, explain_columns, explain_labels
from fastmlp.network.network import LazyRows
from fastmlp.training.rows import RowSource

FLOATS = (np.float64, np.float32)
# How names of Arrow's types of dates and durations begin.
_ARROW_TIMES = ("timestamp", "date", "time", "duration")
# Numbers in a DataFrame beyond which its validation takes little of a prediction's time.
_SMALL_FRAME = 2**16
# Bytes of a memory map that any machine can hold.
_ALWAYS_THERE = 2**28


def check_rows(estimator: Any, X: Any, y: Any, reset: bool = True, caller: Any = None) -> tuple[Any, Any]:
    """X and y by scikit-learn's rules; ``reset``: learn the features' number and names, instead of checking X against
    them.

    caller: the estimator that the user has called, for messages; None: ``estimator``.
    """
    if isinstance(X, RowSource):
        raise TypeError(
            f"{type(estimator if caller is None else caller).__name__} needs its rows in memory, got Blocks. "
            "MLPClassifier and MLPRegressor read them in parts."
        )
    if is_plain_y(estimator, y) and is_plain_X(estimator, X, reset) and X.shape[0] == y.shape[0]:
        if reset:
            vars(estimator).pop("feature_names_in_", None)
            estimator.n_features_in_ = X.shape[1]
        return X, y
    caller = estimator if caller is None else caller
    for argument, values in (("X", X), ("y", y)):
        check_indices(argument, values)
        refuse_masked(argument, values)
    if y is None:
        check_target(caller, y)
    with explain_columns(caller, X, y), explain_labels(y, caller) if is_classifier(estimator) else nullcontext():
        rows, target = validate_data(
            estimator,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            y_numeric=not is_classifier(estimator),
            dtype=_element_types(estimator, X),
            reset=reset,
        )
        refuse_dates("X", X)
        if not is_classifier(estimator):
            refuse_dates("y", y)
            if getattr(getattr(y, "dtype", None), "kind", "") in ("U", "S"):
                raise TypeError(
                    f"Input y must be numbers, got {y.dtype}: y.astype(float) converts text that stands for numbers."
                )
            target = target.astype(np.float64) if target.dtype.kind == "U" else target  # of a list
            assert_all_finite(target, input_name="y")  # validate_data has checked objects before it converted them
        elif not issparse(target) and target.dtype.kind in "mM" and np.isnat(target).any():
            raise ValueError("Input y contains NaT.")
    if target.ndim == 2 and target.shape[1] == 1:
        target = column_or_1d(target, warn=True)
    return _readable(rows), target


def is_plain_X(estimator: Any, X: Any, reset: bool = False) -> bool:
    """Whether X is an array that ``validate_data`` would return unchanged: there is no need to call it."""
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


def _plain_frame(estimator: Any, X: Any) -> np.ndarray | None:
    """The values of a small pandas DataFrame of finite numbers with the columns of ``fit``; None of anything else.

    For a row, ``validate_data`` takes a hundred times as long as the network.
    """
    pandas, names = sys.modules.get("pandas"), getattr(estimator, "feature_names_in_", None)
    if pandas is None or names is None or type(X) is not pandas.DataFrame or X.shape[1] != len(names):
        return None
    if not 0 < X.size <= _SMALL_FRAME:
        return None
    columns = X.columns.to_numpy()
    if not (all(type(name) is str for name in columns) and (columns == names).all()):  # pandas.NA is not comparable
        return None
    values = X.to_numpy()
    return values if values.dtype in FLOATS and all_finite(values) else None


def _is_plain_csr(estimator: Any, X: Any) -> bool:
    """Whether X is a CSR matrix, its indices checked, that ``validate_data`` would return unchanged."""
    return (
        issparse(X)
        and X.format == "csr"
        and X.dtype in FLOATS
        and X.ndim == 2
        and X.shape[0] > 0
        and X.shape[1] == getattr(estimator, "n_features_in_", None)
        and not hasattr(estimator, "feature_names_in_")
        and all_finite(X.data)
    )


def is_plain_y(estimator: Any, y: Any) -> bool:
    """The same for y: labels or numbers in one dimension."""
    if type(y) is not np.ndarray or y.ndim != 1:
        return False
    return (
        y.dtype.kind in "iu"
        or (y.dtype in FLOATS and all_finite(y))
        or (y.dtype.kind == "U" and is_classifier(estimator))
    )


def check_input(estimator: BaseEstimator, X: Any) -> Any:
    """X of a prediction, checked against the number and the names of the features in ``fit``; codes, which the package
    has made itself, as they are."""
    if isinstance(X, (Codes, LazyRows, RowSource)):
        return X._checked_by(estimator) if isinstance(X, RowSource) else X
    if is_plain_X(estimator, X):
        return X
    values = _plain_frame(estimator, X)
    if values is not None:
        return values
    check_indices("X", X)
    refuse_masked("X", X)
    if _is_plain_csr(estimator, X):
        return _readable(X)
    with explain_columns(estimator, X):
        rows = validate_data(estimator, X, accept_sparse="csr", dtype=_element_types(estimator, X), reset=False)
        refuse_dates("X", X)
    return _readable(rows)


def check_target(estimator: Any, y: Any) -> None:
    """Refuse a y that has no rows, or whose rows scikit-learn would read without looking: corrupt or masked ones."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    check_has_rows("y", y)
    check_indices("y", y)
    refuse_masked("y", y)


def check_indices(argument: str, matrix: Any) -> None:
    """Refuse a sparse matrix whose indices lie outside of it: SciPy's conversions would read and write there."""
    if not issparse(matrix):
        return
    if matrix.format in ("csr", "csc", "bsr"):
        blocks = matrix.blocksize if matrix.format == "bsr" else (1, 1)
        n_rows, n_columns = (size // block for size, block in zip(matrix.shape, blocks, strict=True))
        n_major, n_minor = (n_columns, n_rows) if matrix.format == "csc" else (n_rows, n_columns)
        indptr, n_stored = np.asarray(matrix.indptr), min(len(matrix.indices), len(matrix.data))
        if indptr.shape != (n_major + 1,) or indptr[0] != 0 or indptr[-1] > n_stored or (np.diff(indptr) < 0).any():
            raise ValueError(
                f"Input {argument} is a corrupt sparse matrix: indptr must have {n_major + 1} numbers, which begin at "
                f"0, do not decrease, and do not exceed the number of stored elements, {n_stored}."
            )
        limits = [("indices", matrix.indices[: indptr[-1]], n_minor)]
    else:
        matrix = matrix.tocoo()
        limits = [("row", matrix.row, matrix.shape[0]), ("col", matrix.col, matrix.shape[1])]
    for name, indices, limit in limits:
        if indices.size and not 0 <= indices.min() <= indices.max() < limit:
            raise ValueError(f"Input {argument} is a corrupt sparse matrix: {name} must lie in [0, {limit}).")


def _element_types(estimator: BaseEstimator, X: Any) -> tuple[type, ...]:
    """Element types that X may keep, after the one that it is converted to: float32 if the network has it and that is
    exact."""
    dtype = getattr(X, "dtype", None)
    asked = plain(getattr(estimator, "dtype", "auto"))
    if asked == "auto" and hasattr(estimator, "network_"):
        asked = estimator.network_.dtype.name
    exact = isinstance(dtype, np.dtype) and np.can_cast(dtype, np.float32)
    return FLOATS[::-1] if exact and asked == "float32" else FLOATS


def refuse_dates(argument: str, values: Any) -> None:
    """Refuse dates and durations, which scikit-learn converts to numbers."""
    dtypes: Any = [getattr(values, "dtype", None)]
    if hasattr(values, "dtypes"):
        dtypes = values.dtypes  # of each column of a DataFrame; one of a Series
        dtypes = [dtypes] if isinstance(dtypes, np.dtype) or not hasattr(dtypes, "__iter__") else dtypes
    elif hasattr(values, "schema"):  # Arrow
        dtypes = values.schema.types
    for dtype in dtypes:
        temporal = hasattr(dtype, "is_temporal") and dtype.is_temporal()  # polars
        temporal = temporal or str(dtype).startswith(_ARROW_TIMES)
        if temporal or getattr(dtype, "kind", "") in ("m", "M"):
            raise TypeError(f"Input {argument} must be numbers, got {dtype}.")


def refuse_beside_blocks(y: Any, sample_weight: Any) -> None:
    """Blocks have y and the weights in them."""
    for name, given in (("y", y), ("sample_weight", sample_weight)):
        if given is not None:
            raise ValueError(
                f"{name} must be None with Blocks, which have it in them: Blocks([(X, y, sample_weight)])."
            )


def warn_if_too_large(X: Any, shuffles: bool) -> None:
    """Warn of a memory map whose rows would be read from the disk one by one: it does not fit the memory that there
    is."""
    mapped, base = isinstance(X, np.memmap), X
    while not mapped and isinstance(base, np.ndarray):
        base = base.base
        mapped = isinstance(base, mmap)
    if not (shuffles and mapped and X.nbytes > _ALWAYS_THERE):
        return
    limit = total_memory()
    if limit is not None and X.nbytes > limit:
        warn(
            f"X is a memory map of {in_words(X.nbytes)}, and there are {in_words(limit)} of memory: with shuffle=True, "
            "each row is read from the disk by itself. fastmlp.Blocks reads and shuffles it in blocks: "
            "fit(Blocks([(X, y)]))."
        )


def check_range(argument: str, values: Any, dtype: np.dtype) -> None:
    """Refuse finite numbers, dense or sparse, that are not finite in ``dtype``."""
    values = values.data if issparse(values) else values
    if values.dtype.kind != "f" or values.dtype.itemsize <= dtype.itemsize or values.size == 0:
        return
    largest = max(float(values.max()), -float(values.min()))
    if largest > float(np.finfo(dtype).max):  # the comparison must not round ``largest`` to float32
        raise ValueError(
            f"Input {argument} contains infinity or a value too large for {dtype!r}: it reaches {largest:.3g}; scale "
            "it, or take dtype='float64'."
        )


def _readable(X: Any) -> Any:
    """X, or a copy that the core can read: of a view of packed records or bytes, which is not aligned, or of a CSR
    matrix whose columns do not increase within a row, as those of a vectoriser or of a product.
    """
    if isinstance(X, np.ndarray):
        return np.require(X, requirements="A")
    if not X.has_canonical_format:
        # Two transpositions sort many elements in half the time of sum_duplicates.
        X = X.tocsc().tocsr() if X.nnz > X.shape[1] else X.copy()
        X.sum_duplicates()
    return X
