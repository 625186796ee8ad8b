"""Weights of rows, and of the outputs of each row; a target of weight 0 is left out."""

from __future__ import annotations

import reprlib
import sys
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix, issparse
from sklearn.utils import check_array

from fastmlp.core.memory import refuse_masked
from fastmlp.estimators._sklearn import _check_sample_weight
from fastmlp.estimators.validation.messages import check_has_rows, describe_columns, lengths_of, shape_of
from fastmlp.estimators.validation.rows import FLOATS, refuse_dates


def weight_shape(sample_weight: Any) -> tuple[int, ...]:
    """The shape of weights; errors name the argument."""
    if issparse(sample_weight):
        raise TypeError(
            "sample_weight must be dense, got a sparse matrix: sample_weight.toarray() makes an array of it."
        )
    try:
        return shape_of(sample_weight)
    except ValueError as error:  # of rows of different lengths
        lengths = lengths_of(sample_weight)
        differ = f" of the same length, got lengths from {lengths[0]} to {lengths[-1]}" if len(lengths) > 1 else ""
        raise ValueError(f"sample_weight must have a number for each row, or rows of numbers{differ}.") from error


def leave_out(y: Any, sample_weight: Any) -> Any:
    """y with 0 in the place of each target whose own weight, in a ``sample_weight`` of two dimensions, is 0."""
    if y is None or sample_weight is None or len(weight_shape(sample_weight)) != 2:
        return y
    try:
        shape = shape_of(y)
    except ValueError:  # rows of different lengths, of which the validation of y tells
        return y
    got = weight_shape(sample_weight)
    if len(shape) != 2 or shape[1] == 1:
        raise ValueError(
            f"sample_weight of shape {got} has a weight for each output, but y of shape {shape} has one number or "
            "class per row: give a weight for each row, in one dimension."
        )
    if got != shape:
        raise ValueError(
            f"sample_weight must have a weight for each row, shape ({shape[0]},), or for each output, shape {shape}; "
            f"got shape {got}."
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
        if len(weight_shape(sample_weight)) == 2:
            weight = check_array(sample_weight, dtype=FLOATS, input_name="sample_weight")
        else:
            weight = _check_sample_weight(sample_weight, X)
    except (ValueError, TypeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        if "sample_weight" in str(error):  # scikit-learn's words
            raise
        explanation, _ = describe_columns(sample_weight, " of sample_weight", {})
        raise kind(f"sample_weight must be a number for each row: {error}\n{explanation}".rstrip()) from error
    return weight


def check_weight(sample_weight: ArrayLike | None, X: Any) -> np.ndarray | None:
    """The weights of rows or outputs by scikit-learn's rules, none of them negative, with a finite sum; None stays.

    ``leave_out`` has checked the shape of weights of outputs. Older releases of scikit-learn accept weights that are
    all 0.
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, (str, dict)):
        raise ValueError(
            f"sample_weight must be a number for each row, got {reprlib.repr(sample_weight)}. Weights of classes are "
            f"class_weight."
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


def check_weight_range(weight: np.ndarray, dtype: np.dtype) -> None:
    """Refuse weights whose largest value is out of the range of ``dtype``; smaller ones may round to 0."""
    largest = float(weight.max())
    if not float(np.finfo(dtype).tiny) <= largest <= float(np.finfo(dtype).max):
        raise ValueError(
            f"sample_weight must have its largest value in the range of {dtype.name}, got {largest:.3g}; scale it."
        )
