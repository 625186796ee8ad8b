"""Validation of input: X, y and weights by scikit-learn's rules, a classifier's labels, the rows that are scored and not trained on.

Errors have scikit-learn's messages, and a sentence that names the columns at fault may follow. Numbers that scikit-learn
accepts and an element type cannot hold are errors too. Arrays that can be read in place are not copied.
"""

from __future__ import annotations

import copy
import inspect
import os
import re
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping, MappingView, Set
from contextlib import contextmanager, nullcontext, suppress
from decimal import Decimal
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix, issparse
from sklearn.base import is_classifier
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import assert_all_finite, check_array, column_or_1d, compute_class_weight, compute_sample_weight
from sklearn.utils.validation import validate_data

from fastmlp.core import Codes
from fastmlp.core.memory import all_finite, refuse_masked
from fastmlp.estimators._sklearn import (
    BaseEstimator,
    ClassifierMixin,
    InvalidParameterError,
    RegressorMixin,
    _check_sample_weight,
    warn,
)
from fastmlp.estimators.parameters import plain
from fastmlp.network.network import SelectedRows
from fastmlp.training.run import TrainingData, masked

FLOATS = (np.float64, np.float32)
# Columns that an error names; the others are counted.
_NAMED = 3
# Types of pandas' missing values.
_GAPS = ("NAType", "NaTType")
# How names of Arrow's types of dates and durations begin.
_ARROW_TIMES = ("timestamp", "date", "time", "duration")
# Text that holds a number and what does not belong to it: '1,5', '$5', '5 kg', '12 %'; and text that holds a date or a time.
_NUMBER_WORD = re.compile(r"\W*([A-Za-z]{1,3}\W+)?\d[\d.,'_\s]*\W*[A-Za-z]{0,4}\W*")
_DATE_WORD = re.compile(r"\W*\d{1,4}([-/.])(\d{1,2}|[A-Za-z]{3,9})\1\d{1,4}\b|\W*\d{1,2}:\d\d\b")
# No longer text is either. A column is one of numbers if half of so many values are.
_WORD_LENGTH, _LOOKED_AT = 40, 1000
# What to do about what a column of X holds, and about what one of y holds.
_REMEDIES = {
    "missing": "Fill missing values first, or leave out their rows: make_pipeline(SimpleImputer(), StandardScaler(), {name}()), for "
    "example.",
    "infinite": "Replace infinity by a finite number, or leave out its rows.",
    "date": "Turn dates and durations into numbers first: the days since one of them, or the month, for example.",
    "date word": "Turn text into dates first, with pandas.to_datetime, and dates into numbers: the days since one of them, for example.",
    "word": "Encode words as numbers first, with OneHotEncoder, for example.",
    "number word": "Convert text that stands for numbers first: remove what is not part of a number, and make a decimal comma a point "
    "(column.str.replace(',', '.')). Then pandas.to_numeric(column, errors='coerce') makes numbers of it, and missing values of "
    "what it cannot read.",
    "gap word": "Words among numbers seem to stand for gaps: pandas.to_numeric(column, errors='coerce') makes missing values of all that is "
    "not a number. Fill these next, with SimpleImputer, for example.",
    "nested": "A cell must hold one number: make columns of the parts of lists and dicts first, with pandas.DataFrame(column.tolist()), "
    "for example.",
    "complex": "Split complex numbers into real and imaginary part first.",
    "other": "A cell must hold one number.",
}
_TARGET_REMEDIES = {
    **_REMEDIES,
    "missing": "Leave out such rows. Where several targets have gaps in different rows, give sample_weight a column for each, with 0 at its "
    "gaps: sample_weight=np.isfinite(y).",
    "word": "{classifier} predicts classes that are words.",
    "gap word": "Words among numbers seem to stand for gaps: leave out their rows. pandas.to_numeric(y, errors='coerce') makes missing values "
    "of all that is not a number.",
}
# Of an error that shows all of a value.
_TEXT_LENGTH = 120
# Usual metrics of regressors, for a message.
_REGRESSION_METRICS = ("r2", "neg_mean_squared_error", "neg_mean_absolute_error")
# Standard deviations that differ by this factor are of columns that were not scaled alike.
_FAR_SCALE = 10.0
# Numbers in a DataFrame beyond which its validation takes little of a prediction's time.
_SMALL_FRAME = 2**16
# Rows whose mean says little.
_FEW_ROWS = 5


def check_rows(estimator: Any, X: Any, y: Any, reset: bool = True, caller: Any = None) -> tuple[Any, Any]:
    """X and y by scikit-learn's rules; ``reset``: learn the features' number and names, instead of checking X against them.

    caller: the estimator that the user has called, for messages; None: ``estimator``.
    """
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
    """X of a prediction, checked against the number and the names of the features in ``fit``; codes, which the package has made
    itself, as they are."""
    if isinstance(X, (Codes, SelectedRows)):
        return X
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


def check_has_rows(argument: str, values: Any) -> None:
    """Refuse what has no rows, with what to do about it: None, text, a path, a set, a dict, an iterator, a single value."""
    if text := _describe_no_rows(argument, values):
        raise InvalidParameterError(text)


def _describe_no_rows(argument: str, values: Any) -> str:
    """Why ``check_has_rows`` refuses the values; '' if it does not."""
    advice = f"list({argument}) holds its values."
    if values is None:
        got, advice = (
            "None",
            "Methods of pandas with inplace=True return None, for example: use the frame that they have changed.",
        )
    elif isinstance(values, (str, bytes, os.PathLike)):
        got = f"{'a path' if isinstance(values, os.PathLike) else 'text'}, {reprlib.repr(str(values))}"
        advice = "If it names a file, read that first: pandas.read_csv(path). If it names a column, pass the column: frame[name]."
    elif isinstance(values, Set) and not isinstance(values, MappingView):
        got, advice = f"a {type(values).__name__}, which has no order", "Make a list of it, in the order of the rows."
    elif isinstance(values, Mapping) and not issparse(values) and not hasattr(values, "__array__"):
        got, advice = f"a {type(values).__name__}", "Make a list of its values, in the order of the rows."
        if argument == "X":
            advice = "pandas.DataFrame makes a table of a dict of columns."
    elif isinstance(values, (Iterator, MappingView)):
        got = f"{type(values).__name__}, an iterator" if isinstance(values, Iterator) else type(values).__name__
    elif isinstance(values, Number) or (isinstance(values, (np.ndarray, np.generic)) and values.ndim == 0):
        got, advice = f"a single value, {reprlib.repr(values)}", "Each row needs its own, in an array or a list."
    else:
        return ""
    form = "a table: an array, a data frame or a list of rows" if argument == "X" else "an array, a column or a list"
    return f"Input {argument} must be {form}, got {got}. {advice}"


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
                f"Input {argument} is a corrupt sparse matrix: indptr must have {n_major + 1} numbers, which begin at 0, "
                f"do not decrease, and do not exceed the number of stored elements, {n_stored}."
            )
        limits = [("indices", matrix.indices[: indptr[-1]], n_minor)]
    else:
        matrix = matrix.tocoo()
        limits = [("row", matrix.row, matrix.shape[0]), ("col", matrix.col, matrix.shape[1])]
    for name, indices, limit in limits:
        if indices.size and not 0 <= indices.min() <= indices.max() < limit:
            raise ValueError(f"Input {argument} is a corrupt sparse matrix: {name} must lie in [0, {limit}).")


def _element_types(estimator: BaseEstimator, X: Any) -> tuple[type, ...]:
    """Element types that X may keep, after the one that it is converted to: float32 if the network has it and that is exact."""
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


def _shape(values: Any) -> tuple[int, ...]:
    """The shape of an array, a table, or what an array can be made of."""
    shape: tuple[int, ...] = values.shape if hasattr(values, "shape") else np.asarray(values).shape
    return shape


def _weight_shape(sample_weight: Any) -> tuple[int, ...]:
    """The shape of weights; errors name the argument."""
    if issparse(sample_weight):
        raise TypeError(
            "sample_weight must be dense, got a sparse matrix: sample_weight.toarray() makes an array of it."
        )
    try:
        return _shape(sample_weight)
    except ValueError as error:  # of rows of different lengths
        lengths = _lengths(sample_weight)
        differ = f" of the same length, got lengths from {lengths[0]} to {lengths[-1]}" if len(lengths) > 1 else ""
        raise ValueError(f"sample_weight must have a number for each row, or rows of numbers{differ}.") from error


def leave_out(y: Any, sample_weight: Any) -> Any:
    """y with 0 in the place of each target whose own weight, in a ``sample_weight`` of two dimensions, is 0."""
    if y is None or sample_weight is None or len(_weight_shape(sample_weight)) != 2:
        return y
    try:
        shape = _shape(y)
    except ValueError:  # rows of different lengths, of which the validation of y tells
        return y
    got = _weight_shape(sample_weight)
    if len(shape) != 2 or shape[1] == 1:
        raise ValueError(
            f"sample_weight of shape {got} has a weight for each output, but y of shape {shape} has one number or class "
            "per row: give a weight for each row, in one dimension."
        )
    if got != shape:
        raise ValueError(
            f"sample_weight must have a weight for each row, shape ({shape[0]},), or for each output, shape {shape}; got shape "
            f"{got}."
        )
    left_out = _numbers_of_weight(sample_weight, None) == 0
    if issparse(y):
        if not left_out.any():
            return y
        coo = y.tocoo()
        kept = ~left_out[coo.row, coo.col]
        return csr_matrix((coo.data[kept], (coo.row[kept], coo.col[kept])), shape=shape, dtype=y.dtype)
    if hasattr(y, "iloc"):  # a DataFrame keeps its names, for messages
        return _leave_out_of_frame(y, left_out)
    if not left_out.any() and isinstance(y, np.ndarray) and y.dtype.kind != "O":
        return y
    filled = np.array(y, subok=isinstance(y, np.ma.MaskedArray))  # a mask elsewhere stays
    filled[left_out] = 0
    return _without_objects(filled)


def _leave_out_of_frame(frame: Any, left_out: np.ndarray) -> Any:
    """The same for a pandas DataFrame, whose columns then have one type if they hold truth values and numbers."""
    pandas, columns = sys.modules["pandas"], []
    for i, out in enumerate(left_out.T):
        column = frame.iloc[:, i]
        kind = getattr(column.dtype, "kind", "O")
        if kind == "O":
            values = np.array(column, dtype=object)
            values[out] = 0
            column = pandas.Series(_without_objects(values), index=frame.index, name=column.name)
        elif kind in "biuf" and out.any():
            column = column.mask(out, False if kind == "b" else 0)
        columns.append(column)
    kinds = {getattr(column.dtype, "kind", "O") for column in columns}
    if "b" in kinds and kinds <= set("biuf"):
        dtype = "bool" if kinds == {"b"} else "float64"
        columns = [
            column.astype(dtype) if column.dtype.kind == "b" and not column.hasnans else column for column in columns
        ]
    return pandas.concat(columns, axis=1)


def _without_objects(values: np.ndarray) -> np.ndarray:
    """An array of objects that are all numbers or truth values as an array of these; any other as it is."""
    if values.dtype.kind != "O" or isinstance(values, np.ma.MaskedArray):
        return values
    if not all(isinstance(value, (Number, np.bool_)) for value in values.ravel().tolist()):
        return values
    numbers = np.array(values.tolist())
    return numbers if numbers.dtype.kind in "biuf" else values


def _numbers_of_weight(sample_weight: Any, X: Any) -> np.ndarray:
    """The weights as finite numbers, by scikit-learn's rules; X: the rows, which weights of outputs do not need."""
    refuse_masked("sample_weight", sample_weight)
    refuse_dates("sample_weight", sample_weight)
    try:
        weight: np.ndarray
        if len(_weight_shape(sample_weight)) == 2:
            weight = check_array(sample_weight, dtype=FLOATS, input_name="sample_weight")
        else:
            weight = _check_sample_weight(sample_weight, X)
    except (ValueError, TypeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        if "sample_weight" in str(error):  # scikit-learn's words
            raise
        explanation, _ = _describe_columns(sample_weight, " of sample_weight", {})
        raise kind(f"sample_weight must be a number for each row: {error}\n{explanation}".rstrip()) from error
    return weight


def check_weight(sample_weight: ArrayLike | None, X: Any) -> np.ndarray | None:
    """The weights of rows or outputs by scikit-learn's rules, none of them negative, with a finite sum; None stays.

    ``leave_out`` has checked the shape of weights of outputs. Older releases of scikit-learn accept weights that are all 0.
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, (str, dict)):
        raise ValueError(
            f"sample_weight must be a number for each row, got {reprlib.repr(sample_weight)}. Weights of classes are class_weight."
        )
    if not isinstance(sample_weight, Number):  # scikit-learn takes one for all rows
        check_has_rows("sample_weight", sample_weight)
    weight = _numbers_of_weight(sample_weight, X)
    if weight.min() < 0:
        at = np.unravel_index(np.argmax(weight < 0), weight.shape)
        of_output = "" if weight.ndim == 1 else f"output {at[1]} of "
        raise ValueError(f"sample_weight must not be negative, got {weight[at]:.6g} for {of_output}row {at[0]}.")
    if not weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    if not np.isfinite(total := weight_sum(weight)):
        raise ValueError(f"sample_weight must have a finite sum, got {total}.")
    return weight


def check_outputs_have_targets(weight: np.ndarray | None) -> None:
    """Refuse weights of outputs that leave out all targets of one: it would learn nothing."""
    if weight is not None and weight.ndim == 2 and (empty := np.flatnonzero(~weight.any(axis=0)).tolist()):
        raise ValueError(f"sample_weight leaves out all targets of the outputs {empty}.")


def weight_of_rows(weight: np.ndarray) -> np.ndarray | None:
    """The weights (n,) of rows that weights of outputs (n, n_outputs) amount to; None if those of some row differ."""
    first: np.ndarray = weight[:, 0]
    return first if (weight == first[:, np.newaxis]).all() else None


def rows_that_count(weight: np.ndarray) -> np.ndarray:
    """Whether each row (n,) has a weight other than 0, of its own or of an output."""
    return np.asarray(weight.any(axis=1) if weight.ndim == 2 else weight != 0)


def weight_sum(weight: np.ndarray) -> float:
    """Sum of the weights, infinite or NaN without a warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(weight.sum(dtype=np.float64))


def check_range(argument: str, values: Any, dtype: np.dtype) -> None:
    """Refuse finite numbers, dense or sparse, that are not finite in ``dtype``."""
    values = values.data if issparse(values) else values
    if values.dtype.kind != "f" or values.dtype.itemsize <= dtype.itemsize or values.size == 0:
        return
    largest = max(float(values.max()), -float(values.min()))
    if largest > float(np.finfo(dtype).max):  # the comparison must not round ``largest`` to float32
        raise ValueError(
            f"Input {argument} contains infinity or a value too large for {dtype!r}: it reaches {largest:.3g}; scale it, or take "
            "dtype='float64'."
        )


def check_weight_range(weight: np.ndarray, dtype: np.dtype) -> None:
    """Refuse weights whose largest value is out of the range of ``dtype``; smaller ones may round to 0."""
    largest = float(weight.max())
    if not float(np.finfo(dtype).tiny) <= largest <= float(np.finfo(dtype).max):
        raise ValueError(
            f"sample_weight must have its largest value in the range of {dtype.name}, got {largest:.3g}; scale it."
        )


def _readable(X: Any) -> Any:
    """X, or a copy that the core can read: of a view of packed records or bytes, which is not aligned, or of a CSR matrix whose
    columns do not increase within a row, as those of a vectoriser or of a product.
    """
    if isinstance(X, np.ndarray):
        return np.require(X, requirements="A")
    if not X.has_canonical_format:
        # Two transpositions sort many elements in half the time of sum_duplicates.
        X = X.tocsc().tocsr() if X.nnz > X.shape[1] else X.copy()
        X.sum_duplicates()
    return X


# --- errors that name columns --------------------------------------------------------------------------------------


@contextmanager
def explain_columns(estimator: Any, X: Any, y: Any = None, allow_gaps: bool = False) -> Iterator[None]:
    """Say in an error of the block which columns are not finite numbers, and what to do about it: those of X or, if none is,
    those of a regressor's y. Columns are examined only then.

    estimator: the one that the user has called; allow_gaps: X may have missing values.
    """
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        if no_rows := _describe_no_rows("X", X) or (y is not None and _describe_no_rows("y", y)):
            text = str(error).splitlines()[0]
            shortened = text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]} ..."
            raise InvalidParameterError(f"{shortened}\n{no_rows}") from error
        names = _names(estimator)
        explanation, held = _describe_columns(X, "", {k: v.format(**names) for k, v in _REMEDIES.items()}, allow_gaps)
        argument = "X"
        if not explanation and not is_classifier(estimator) and y is not None:
            remedies = {k: v.format(**names) for k, v in _TARGET_REMEDIES.items()}
            if not _has_several_columns(y):
                remedies["missing"] = "Leave out such rows."
            explanation, held = _describe_columns(y, " of y", remedies)
            argument = "y"
        explanation = explanation or _describe_form(X)
        if not explanation:
            raise
        text = str(error).rstrip()
        if "contains NaN" in text.splitlines()[0]:
            text = text.splitlines()[0]  # the rest sends the reader to other estimators
        elif (
            isinstance(error, TypeError) and not text.startswith("Input") and (held == {"date"} or "NA is amb" in text)
        ):
            text = f"Input {argument} must be numbers."
        kind = next(kind for kind in (ValueError, TypeError, OverflowError) if isinstance(error, kind))
        raise kind(f"{text}\n{explanation}") from error


def _names(estimator: Any) -> dict[str, str]:
    """This package's class of an estimator, and the classifier and the regressor of the same kind."""
    package = __name__.partition(".")[0]
    name = next((c.__name__ for c in type(estimator).__mro__ if c.__module__.startswith(package)), "MLP")
    kind = name.replace("Classifier", "").replace("Regressor", "")
    kind = kind if kind != name else "MLP"
    return {"name": name, "classifier": f"{kind}Classifier", "regressor": f"{kind}Regressor"}


def _describe_columns(values: Any, of: str, remedies: dict[str, str], allow_gaps: bool = False) -> tuple[str, set[str]]:
    """Sentences about columns that do not hold finite numbers, and the kinds of values that these hold; ('', set()) without such."""
    found = [
        (name, fault)
        for name, column in _columns(values)
        if (of or name is not None) and (fault := _fault(column)) and not (allow_gaps and fault[0] == "missing")
    ]
    sentences = [
        f"Column {name!r}{of} holds {value}." if name is not None else f"Row {row}{of} holds {value}."
        for name, (_, value, row) in found[:_NAMED]
    ]
    if len(found) > _NAMED:
        sentences.append(f"So it is with {len(found) - _NAMED} more.")
    kinds = {kind for _, (kind, _, _) in found}
    advice = [text for kind, text in remedies.items() if kind in kinds]
    return "\n".join(filter(None, (" ".join(sentences), *advice))), kinds


def _columns(values: Any) -> Iterator[tuple[Any, Any]]:
    """Names and columns of a table of pandas, polars or Arrow, of a list of rows, or of a 2-D array, sparse too; the name of
    one-dimensional values is None. Of anything else, none.
    """
    if hasattr(values, "iloc"):
        if hasattr(values, "columns"):
            yield from ((name, values.iloc[:, i]) for i, name in enumerate(values.columns))
        elif getattr(values, "name", None) is not None:
            yield values.name, values
        else:
            yield None, values
    elif hasattr(values, "get_columns"):
        yield from zip(values.columns, values.get_columns(), strict=True)
    elif hasattr(values, "column_names"):
        yield from zip(values.column_names, values.columns, strict=True)
    elif issparse(values):
        coo = values.tocoo()
        faulty = ~np.isfinite(coo.data) if coo.data.dtype.kind == "f" else np.zeros(len(coo.data), dtype=bool)
        yield from ((int(i), coo.data[faulty & (coo.col == i)]) for i in np.unique(coo.col[faulty]))
    elif isinstance(values, (np.ndarray, list, tuple)) or hasattr(values, "to_numpy"):
        try:
            array = np.asarray(values, dtype=None if isinstance(values, np.ndarray) else object)
        except ValueError:  # rows of different lengths
            return
        if array.ndim == 2:
            yield from enumerate(array.T)
        elif array.ndim == 1:
            yield getattr(values, "name", None) or None, array


def _fault(column: Any) -> tuple[str, str, int] | None:
    """The kind of a value of the column that is not a finite number, the value, and its row; None without such.

    A word counts before a gap: what a column of words lacks is not a number.
    """
    values = np.asarray(column)
    if values.ndim != 1 or values.dtype.names:  # of structs
        return "nested", reprlib.repr(column[0]), 0
    if values.dtype.kind in "mM":
        return "date", str(values.dtype), 0
    if values.dtype.kind in "biuf":
        rows = np.flatnonzero(~np.isfinite(values))
        if not len(rows):
            return None
        value = values[rows[0]].item()
        return "missing" if np.isnan(value) else "infinite", str(value), int(rows[0])
    gap = None
    for row, value in enumerate(values.tolist()):
        if _is_number(value):
            continue
        kind = _kind_of(value)
        if kind == "word" and len(words := [v for v in values[:_LOOKED_AT].tolist() if _kind_of(v) != "missing"]):
            kind = "gap word" if 2 * sum(map(_is_number, words)) >= len(words) else kind
        if kind != "missing":
            return kind, reprlib.repr(value), row
        gap = gap or (kind, reprlib.repr(value), row)
    return gap


def _is_number(value: Any) -> bool:
    """Whether a value is, or can be read as, a finite number."""
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError, OverflowError):
        return False


def _kind_of(value: Any) -> str:
    """The kind of a value that is not a finite number; one of _REMEDIES."""
    if isinstance(value, (str, bytes)):
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if len(text) <= _WORD_LENGTH and _DATE_WORD.match(text):
            return "date word"
        return "number word" if len(text) <= _WORD_LENGTH and _NUMBER_WORD.fullmatch(text) else "word"
    if value is None or type(value).__name__ in _GAPS or (isinstance(value, float) and np.isnan(value)):
        return "missing"
    if isinstance(value, Decimal):  # a signalling NaN cannot become a float
        return "missing" if value.is_qnan() else "other" if value.is_snan() else "infinite"
    if hasattr(value, "strftime"):
        return "date"
    if isinstance(value, complex):
        return "complex"
    if isinstance(value, Number):
        return "infinite"
    return "nested" if hasattr(value, "__len__") else "other"


def _describe_form(X: Any) -> str:
    """What to do about an X that is not a table of numbers; '' if there is nothing to say."""
    if hasattr(X, "collect") and not hasattr(X, "shape"):
        return "X is not computed yet: collect() it first."
    if getattr(getattr(X, "dtype", None), "names", None):
        return "numpy.lib.recfunctions.structured_to_unstructured makes columns of a structured array."
    if getattr(X, "ndim", 0) > 2:
        return "Each row must be flat: X.reshape(len(X), -1)."
    first = next(iter(X), None) if isinstance(X, (list, tuple, np.ndarray)) and np.ndim(X[:1]) == 1 else None
    if isinstance(first, str):
        return "Turn texts into numbers first, with TfidfVectorizer, for example."
    if isinstance(first, dict):
        return "Turn dicts into columns first, with DictVectorizer, for example."
    lengths = _lengths(X)
    return f"The rows of X differ in length: from {lengths[0]} to {lengths[-1]} values." if len(lengths) > 1 else ""


def _has_several_columns(y: Any) -> bool:
    """Whether y is a table of several targets or labels."""
    try:
        shape = _shape(y)
    except ValueError:  # rows of different lengths
        return False
    return len(shape) == 2 and shape[1] > 1


def _lengths(rows: Any) -> list[int]:
    """The different lengths of a list's rows, in order; of anything else, none."""
    return sorted({len(row) for row in rows if hasattr(row, "__len__")}) if isinstance(rows, (list, tuple)) else []


@contextmanager
def explain_labels(y: Any, caller: Any = None) -> Iterator[None]:
    """Say in an error of the block what a classifier's y holds instead of labels, and what to do about it.

    caller: the estimator that the user has called.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        if isinstance(error, ValueError):
            explanation = _describe_labels(y, str(error), _names(caller)["regressor"])
        else:
            explanation = _describe_types(y)
        if not explanation:
            raise
        raise (ValueError if isinstance(error, ValueError) else TypeError)(f"{error}\n{explanation}") from error


def _describe_types(y: Any) -> str:
    """The types of labels that y mixes: missing ones do not compare with others. '' if there is one."""
    labels = np.asarray(y, dtype=object).ravel().tolist()
    kinds = sorted({"number" if isinstance(label, Number) else type(label).__name__ for label in labels})
    if len(kinds) < 2:
        return ""
    remedy = _first_gap(y) or "Convert them to one type: [str(label) for label in y], for example."
    return f"Input y holds labels of different types, or missing ones: {', '.join(kinds)}.\n{remedy}"


def _first_gap(y: Any) -> str:
    """Sentences about the first row of y without a label; '' if each has one."""
    labels = np.asarray(y, dtype=object)
    rows = labels.reshape(len(labels), -1).tolist() if labels.ndim else []
    advice = "Leave out rows without a label: pandas.notna(y) tells the others."
    if labels.ndim == 2 and labels.shape[1] > 1:
        advice = "Leave out such rows, or give sample_weight the shape of y, with 0 at its gaps: sample_weight=pandas.notna(y)."
    for row, values in enumerate(rows):
        for value in values:
            if _kind_of(value) == "missing":
                return f"Row {row} of y holds {value!r}. {advice}"
    return ""


def _describe_labels(y: Any, text: str, regressor: str) -> str:
    """A remedy for labels of which scikit-learn's error says ``text``; '' if there is none."""
    if text.startswith("Unknown label type"):
        return f"{regressor} predicts numbers; classes need whole numbers or words."
    if "contains Na" in text and not text.startswith("Input X"):
        return _first_gap(y)
    if text.startswith("Multioutput target data"):
        return "MultiOutputClassifier fits a classifier for each column of classes."
    if len(_lengths(y)) > 1:
        return "MultiLabelBinarizer makes an indicator matrix of lists of labels."
    return ""


# --- labels of a classifier ------------------------------------------------------------------------------------


def classes_of(y: Any) -> tuple[np.ndarray, str]:
    """Sorted classes of labels, and the kind of target by scikit-learn's names."""
    if type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "biuU" and y.dtype.isnative:
        classes = np.unique(y)
        if 0 < 2 * len(classes) <= len(y):  # scikit-learn warns if there are more classes
            if classes.dtype.kind == "U":  # as wide as the longest
                classes = np.array(classes.tolist())
            return classes, "binary" if len(classes) <= 2 else "multiclass"
    binarizer = LabelBinarizer().fit(y)
    return binarizer.classes_, binarizer.y_type_


def check_labels(labels: np.ndarray, classes: np.ndarray, all_of_them: bool) -> None:
    """The labels of a later call must be those of the first, in ``warm_start`` all of them; scikit-learn's messages."""
    if all_of_them:
        if set(labels) != set(classes):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {classes}, `y` has {labels}"
            )
    elif len(np.setdiff1d(labels, classes, assume_unique=True)):
        raise ValueError(f"`y` has classes not in `self.classes_`. `self.classes_` has {classes}. 'y' has {labels}.")


def check_form(y: Any, target_type: str, n_outputs: int | None = None) -> None:
    """y must be labels, or an indicator matrix with ``n_outputs`` columns (None: any number), as in the first call."""
    multilabel = target_type.startswith("multilabel")
    if (y.ndim == 2) != multilabel or (multilabel and n_outputs not in (None, y.shape[1])):
        raise ValueError(f"y must be of the same type as before, {target_type}, got shape {y.shape}.")


def check_known(y: Any, classes: np.ndarray) -> None:
    """Labels to score on must be among the classes, an indicator matrix of 0 and 1."""
    if y.ndim == 2:
        if not np.isin(y.data if issparse(y) else y, (0, 1)).all():
            raise ValueError("y must be an indicator matrix, of 0 and 1 only.")
    elif len(unknown := np.setdiff1d(y, classes)):
        raise ValueError(f"y has labels that are not among classes_: {reprlib.repr(unknown.tolist())}.")


def _other_class_weight(class_weight: Any, classes: np.ndarray, ndim: int) -> str:
    """What class_weight must be instead, with the given weights if it is clear which class each of them is for."""
    labels, example = classes.tolist(), {}
    if ndim == 2:
        return "class_weight must be 'balanced' or a list with a dict for each column of y: [{0: 1, 1: 2}, ...]."
    if isinstance(class_weight, dict):
        by_text = {str(key): value for key, value in class_weight.items()}
        example = {label: by_text[str(label)] for label in labels if str(label) in by_text}
    elif isinstance(class_weight, list) and len(class_weight) == len(labels):
        example = dict(zip(labels, class_weight, strict=True))
    if not example or not all(isinstance(value, Number) for value in example.values()):
        example = dict.fromkeys(labels, 1.0)
    return (
        "class_weight must be 'balanced' or a dict of numbers, whose keys are labels of the type that y has: "
        f"class_weight={reprlib.repr(example)}, for example."
    )


def apply_class_weight(class_weight: Any, classes: np.ndarray, y: Any, weight: np.ndarray | None) -> np.ndarray:
    """The weights (n,) or (n, n_outputs), or ones, times those of the rows' classes."""
    try:
        if weight is not None and weight.ndim == 2:
            own = _class_weight_of_known(class_weight, y.toarray() if issparse(y) else y, weight)[:, np.newaxis]
        elif y.ndim == 1 and class_weight != "balanced":  # for all classes, which a batch of partial_fit need not have
            if isinstance(class_weight, list):
                raise ValueError("class_weight is a list, which is for several columns of y, and y has one")
            own = compute_class_weight(class_weight, classes=classes, y=y)[np.searchsorted(classes, y)]
        else:  # rows of weight 0 change nothing and are not counted
            counted = None if weight is None or class_weight != "balanced" else np.flatnonzero(weight)
            own = compute_sample_weight(class_weight, y.toarray() if issparse(y) else y, indices=counted)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(error).rstrip('.')}. {_other_class_weight(class_weight, classes, y.ndim)}") from error
    weighed: np.ndarray = own if weight is None else weight * own
    total = weight_sum(weighed)
    if total == 0 or not np.isfinite(total) or weighed.min() < 0:
        raise ValueError(
            f"class_weight must leave weights that are finite and not negative, whose sum is finite and not 0, got {class_weight!r}."
        )
    return weighed


def _class_weight_of_known(class_weight: Any, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Product (n,) over a row's outputs of the weights of their classes, without those of targets that are left out."""
    both = np.repeat([[0], [1]], y.shape[1], axis=1)
    compute_sample_weight(class_weight, both)  # checks the form of ``class_weight``
    product = np.ones(len(y))
    for output, labels in enumerate(y.T):
        known = np.flatnonzero(weight[:, output])
        of_output = class_weight if isinstance(class_weight, str) else class_weight[output]
        if isinstance(of_output, dict):
            product[known] *= np.where(labels[known] == 1, of_output.get(1, 1), of_output.get(0, 1))
        elif len(known):
            product[known] *= compute_sample_weight(of_output, labels[known])
    return product


# --- rows to score on ------------------------------------------------------------------------------------------


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
    """Warn if the columns of the rows to score on lie far outside of those to train on: the two were not transformed alike.

    rows: those of X that are trained on, None for all; names: of the columns.
    """
    if found := _far_outside(_some_rows(X, rows), _some_rows(X_val, None), "X", names):
        warn(
            f"The rows to score on lie far outside of those to train on: {found}. A Pipeline transforms X, but hands eval_set on as it "
            "is. Take Pipeline(..., transform_input=['X_val']) with X_val and y_val instead, or transform eval_set first."
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
            f"The targets to score on lie far outside of those to train on: {found}. A TransformedTargetRegressor transforms y, but "
            "hands eval_set on as it is: transform its y first, with the same transformer."
        )


def _far_outside(train: Any, held_out: Any, argument: str, names: Any) -> str:
    """Which column of ``held_out`` lies far outside of ``train``, with its mean and standard deviation; '' if none does.

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
    """Exchange rows, in place, so that each class with two rows has one in ``test``: a stratified share of few rounds to none."""
    for label in np.setdiff1d(labels[train], labels[test]):
        of_class = np.flatnonzero(labels[train] == label)
        _, places, counts = np.unique(labels[test], return_index=True, return_counts=True)
        if len(of_class) >= 2 and counts.max() >= 2:
            i, j = of_class[0], places[counts.argmax()]
            train[i], test[j] = test[j], train[i]


def tell_labels(metric: Any, classes: np.ndarray) -> Any:
    """The scorer, told what it cannot infer: the classes that its rows lack, and which class is the positive one.

    A metric of probabilities is told the classes if it takes labels. A metric of two classes takes 1 to be the positive one;
    where there is no class 1, it is the second, as for ``decision_function`` in scikit-learn.
    """
    function = getattr(metric, "_score_func", None)
    if function is None:
        return metric
    parameters = inspect.signature(function).parameters
    arguments: dict[str, Any] = {}
    if "labels" in parameters and getattr(metric, "_response_method", "predict") != "predict":
        arguments["labels"] = classes
    takes_one = "pos_label" in parameters and parameters["pos_label"].default == 1
    if (
        takes_one
        and len(classes) == 2
        and 1 not in classes.tolist()
        and metric._kwargs.get("average", "binary") == "binary"
    ):
        arguments["pos_label"] = classes[1]
    told = copy.copy(metric)
    told._kwargs = {**arguments, **metric._kwargs}
    return told


def score_by(metric: Any, estimator: Any, rows: ValidationData) -> float:
    """The score by the estimator's ``validation_metric``.

    metric: its scorer, which gets the weights if it takes them. A ValueError names the metric, and one that suits the target instead.
    """
    given = estimator.validation_metric
    try:
        value = score_weighted(metric, estimator, rows.X, rows.y, rows.sample_weight)
    except (ValueError, TypeError, AttributeError) as error:
        if not isinstance(given, str):  # the user's own
            raise
        raise ValueError(
            f"validation_metric={given!r} cannot score this target: {error}{_other_metric(estimator)}"
        ) from error
    try:
        return float(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"validation_metric must return a number, got {value!r}.") from error


def _other_metric(estimator: Any) -> str:
    """A sentence with a metric of the same kind for the estimator's target; '' if there is none."""
    given, names = estimator.validation_metric, get_scorer_names()
    if not is_classifier(estimator):
        return (
            ""
            if given in _REGRESSION_METRICS
            else f" Metrics of a regressor are {', '.join(map(repr, _REGRESSION_METRICS))}, among others."
        )
    if given in _REGRESSION_METRICS:
        return " Metrics of a classifier are 'accuracy', 'neg_log_loss', 'roc_auc', among others."
    several = len(estimator.classes_) > 2 or estimator.n_outputs_ > 1
    other = next((name for name in (f"{given}_ovr", f"{given}_macro") if name in names), "")
    return f" For more than two classes, take {other!r}." if several and other else ""


def can_stratify(labels: np.ndarray, test_fraction: float) -> bool:
    """Whether each class has a row for each side of a split."""
    counts = np.unique(labels, return_counts=True)[1]
    n_test = int(np.ceil(test_fraction * len(labels)))
    return counts.min() >= 2 and min(n_test, len(labels) - n_test) >= len(counts)


def score_weighted(metric: Any, estimator: Any, X: Any, y: Any, weight: np.ndarray | None) -> Any:
    """The score by a scorer or a function (estimator, X, y), which gets the weights if it takes ``sample_weight``.

    Weights of outputs that are equal in each row are those of the rows, if the scorer takes several outputs. Otherwise it
    judges each output by itself, on the rows where its weight is not 0, and the score is the mean over outputs: of a
    classifier's, with ``average='macro'``, the mean over labels of ``average='binary'``; with 'weighted', each counts by the
    weight of its rows that have the label; with 'micro', all labels are those of one output. 'samples' is an error. A
    function gets weights of outputs as they are.
    """
    takes_weights = weight is not None and accepts_weights(metric)
    if weight is None or weight.ndim == 1 or not hasattr(metric, "_score_func"):
        return metric(estimator, X, y, **({"sample_weight": weight} if takes_weights else {}))
    if (of_rows := weight_of_rows(weight)) is not None:
        rows = slice(None) if of_rows.all() else np.flatnonzero(of_rows)
        some_X = X if isinstance(rows, slice) else X[rows]
        with suppress(ValueError):  # the metric is one of a single output
            return metric(estimator, some_X, y[rows], **({"sample_weight": of_rows[rows]} if takes_weights else {}))
    kind, predict = (_Yes, estimator.predict_proba) if is_classifier(estimator) else (_Number, estimator.predict)
    output = predict(X)
    y = y.toarray() if issparse(y) else np.asarray(y)
    average = None
    if is_classifier(estimator):
        metric, average, labels = _of_one_label(metric)
        if labels is not None:
            output, y, weight = output[:, labels], y[:, labels], weight[:, labels]
    if average == "micro":
        output, y, weight = (values.reshape(-1, 1) for values in (output, y, weight))
    counted = weight if takes_weights else (weight != 0).astype(np.float64)

    def score(o: int, known: np.ndarray) -> float:
        arguments = {"sample_weight": weight[known, o]} if takes_weights else {}
        return float(metric(kind(output[known, o]), None, y[known, o], **arguments))

    return mean_over_outputs(score, weight, (counted * y).sum(axis=0) if average == "weighted" else None)


def _of_one_label(metric: Any) -> tuple[Any, Any, Any]:
    """A scorer of several labels as one of a single label, how it averages over them, and which of them; None: all."""
    told, averages = (
        tell_labels(metric, np.array([0, 1])),
        inspect.signature(metric._score_func).parameters.get("average"),
    )
    if averages is None:
        return told, None, None
    average, labels = metric._kwargs.get("average", averages.default), None
    if average == "samples":
        raise ValueError(
            "average='samples', a mean over rows, cannot weigh the labels of a row differently: take average='macro' or 'micro', "
            "as 'f1_macro' does, for example."
        )
    if averages.default == "binary":
        told._kwargs["average"] = "binary"
        if told._kwargs.get("pos_label", 1) is None:  # as of 'f1_macro'
            del told._kwargs["pos_label"]
        labels = told._kwargs.pop("labels", None)
    return told, average, labels


def mean_over_outputs(
    score: Callable[[int, np.ndarray], float], weight: np.ndarray, shares: np.ndarray | None = None
) -> float:
    """Mean of ``score(output, rows)`` over the outputs for which it is a number; rows: those where the output has a weight.

    shares: what each output counts for; None, or 0 for all: all alike.
    """
    outputs = [o for o, column in enumerate(weight.T) if column.any()]
    scores = np.array([score(o, np.flatnonzero(weight[:, o])) for o in outputs])
    numbers = ~np.isnan(scores)
    if not numbers.any():
        return np.nan
    own = None if shares is None else shares[outputs][numbers]
    return float(np.average(scores[numbers], weights=own if own is not None and own.any() else None))


def leave_out_of_score(estimator: Any, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """y, and the weights, for a score: those of rows (n,) if weights of outputs are equal in each row."""
    y = leave_out(y, sample_weight)
    check_target(estimator, y)
    if sample_weight is None or len(_weight_shape(sample_weight)) != 2:
        return y, sample_weight
    weight = check_weight(sample_weight, X)
    of_rows = None if weight is None else weight_of_rows(weight)
    return y, weight if of_rows is None else of_rows


def mean_metric(metric: Callable[..., float], y: Any, prediction: Any, weight: np.ndarray) -> float:
    """The mean over outputs of a metric (true, predicted, sample_weight), for weights of outputs."""
    true, predicted = (
        values.toarray() if issparse(values) else values
        for values in (check_array(y, accept_sparse="csr", dtype=None, input_name="y"), prediction)
    )
    if true.shape != predicted.shape:
        raise ValueError(f"y must have the shape of predict(X), {predicted.shape}, got {true.shape}.")
    return mean_over_outputs(
        lambda o, known: metric(true[known, o], predicted[known, o], sample_weight=weight[known, o]), weight
    )


class _Number(RegressorMixin, BaseEstimator):
    """A fitted regressor of one output, for scorers: it predicts what it is given."""

    def __init__(self, output: Any = None) -> None:
        self.output = output

    def fit(self, X: Any, y: Any) -> _Number:
        """For scikit-learn, to which an estimator has a ``fit``."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Any) -> np.ndarray:
        """The output."""
        return np.asarray(self.output)


class _Yes(ClassifierMixin, BaseEstimator):
    """The same for a label of yes or no, whose probabilities it is given."""

    def __init__(self, output: Any = None) -> None:
        self.output = output
        self.classes_ = np.array([0, 1])

    def fit(self, X: Any, y: Any) -> _Yes:
        """For scikit-learn, to which an estimator has a ``fit``."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Any) -> np.ndarray:
        """Whether yes is more probable than no."""
        return (np.asarray(self.output) > 0.5).astype(int)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of no and of yes."""
        return np.stack([1 - self.output, self.output], axis=1)


def accepts_weights(metric: Any) -> bool:
    """Whether a scorer, or the metric that it was made from, has a parameter ``sample_weight``."""
    function = getattr(metric, "_score_func", metric)
    parameters = inspect.signature(function).parameters
    return "sample_weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
