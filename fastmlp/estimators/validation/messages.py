"""What an error says of the values at fault: the columns of a table, their kinds, the labels of y, and what to do about
them."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Iterator, Mapping, MappingView, Set
from contextlib import contextmanager
from decimal import Decimal
from numbers import Number
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_classifier

from fastmlp.estimators._sklearn import InvalidParameterError

# Columns that an error names; the others are counted.
_NAMED = 3
# Types of pandas' missing values.
_GAPS = ("NAType", "NaTType")
# Text that holds a number and what does not belong to it: '1,5', '$5', '5 kg', '12 %'; and text that holds a date or a
# time.
_NUMBER_WORD = re.compile(r"\W*([A-Za-z]{1,3}\W+)?\d[\d.,'_\s]*\W*[A-Za-z]{0,4}\W*")
_DATE_WORD = re.compile(r"\W*\d{1,4}([-/.])(\d{1,2}|[A-Za-z]{3,9})\1\d{1,4}\b|\W*\d{1,2}:\d\d\b")
# No longer text is either. A column is one of numbers if half of so many values are.
_WORD_LENGTH, _LOOKED_AT = 40, 1000
# What to do about what a column of X holds, and about what one of y holds.
_REMEDIES = {
    "missing": "Fill missing values first, or leave out their rows: make_pipeline(SimpleImputer(), StandardScaler(), "
    "{name}()), for "
    "example.",
    "infinite": "Replace infinity by a finite number, or leave out its rows.",
    "date": "Turn dates and durations into numbers first: the days since one of them, or the month, for example.",
    "date word": "Turn text into dates first, with pandas.to_datetime, and dates into numbers: the days since one of "
    "them, for example.",
    "word": "Encode words as numbers first, with OneHotEncoder, for example.",
    "number word": "Convert text that stands for numbers first: remove what is not part of a number, and make a "
    "decimal comma a point (column.str.replace(',', '.')). Then pandas.to_numeric(column, errors='coerce') makes "
    "numbers of it, and missing values of what it cannot read.",
    "gap word": "Words among numbers seem to stand for gaps: pandas.to_numeric(column, errors='coerce') makes missing "
    "values of all that is "
    "not a number. Fill these next, with SimpleImputer, for example.",
    "nested": "A cell must hold one number: make columns of the parts of lists and dicts first, with "
    "pandas.DataFrame(column.tolist()), "
    "for example.",
    "complex": "Split complex numbers into real and imaginary part first.",
    "other": "A cell must hold one number.",
}
_TARGET_REMEDIES = {
    **_REMEDIES,
    "missing": "Leave out such rows. Where several targets have gaps in different rows, give sample_weight a column "
    "for each, with 0 at its "
    "gaps: sample_weight=np.isfinite(y).",
    "word": "{classifier} predicts classes that are words.",
    "gap word": "Words among numbers seem to stand for gaps: leave out their rows. pandas.to_numeric(y, "
    "errors='coerce') makes missing values "
    "of all that is not a number.",
}
# Of an error that shows all of a value.
_TEXT_LENGTH = 120


def check_has_rows(argument: str, values: Any) -> None:
    """Refuse what has no rows, with what to do about it: None, text, a path, a set, a dict, an iterator, a single
    value."""
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
        advice = (
            "If it names a file, read that first: pandas.read_csv(path). If it names a column, pass the column: "
            "frame[name]."
        )
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


def shape_of(values: Any) -> tuple[int, ...]:
    """The shape of an array, a table, or what an array can be made of."""
    shape: tuple[int, ...] = values.shape if hasattr(values, "shape") else np.asarray(values).shape
    return shape


@contextmanager
def explain_columns(estimator: Any, X: Any, y: Any = None, allow_gaps: bool = False) -> Iterator[None]:
    """Say in an error of the block which columns are not finite numbers, and what to do about it: those of X or, if
    none is, those of a regressor's y. Columns are examined only then.

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
        explanation, held = describe_columns(X, "", {k: v.format(**names) for k, v in _REMEDIES.items()}, allow_gaps)
        argument = "X"
        if not explanation and not is_classifier(estimator) and y is not None:
            remedies = {k: v.format(**names) for k, v in _TARGET_REMEDIES.items()}
            if not _has_several_columns(y):
                remedies["missing"] = "Leave out such rows."
            explanation, held = describe_columns(y, " of y", remedies)
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


def describe_columns(values: Any, of: str, remedies: dict[str, str], allow_gaps: bool = False) -> tuple[str, set[str]]:
    """Sentences about columns that do not hold finite numbers, and the kinds of values that these hold; ('', set())
    without such."""
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
    """Names and columns of a table of pandas, polars or Arrow, of a list of rows, or of a 2-D array, sparse too; the
    name of one-dimensional values is None. Of anything else, none.
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


def kind_of_text(text: str) -> str:
    """What a text holds: 'date', 'number' (perhaps with a unit, or commas), or '' for anything else."""
    if _is_number(text):
        return "number"
    return {"date word": "date", "number word": "number"}.get(_kind_of(text), "")


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
    lengths = lengths_of(X)
    return f"The rows of X differ in length: from {lengths[0]} to {lengths[-1]} values." if len(lengths) > 1 else ""


def _has_several_columns(y: Any) -> bool:
    """Whether y is a table of several targets or labels."""
    try:
        shape = shape_of(y)
    except ValueError:  # rows of different lengths
        return False
    return len(shape) == 2 and shape[1] > 1


def lengths_of(rows: Any) -> list[int]:
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
    """The types of labels that y mixes: missing ones do not compare with others; or the one that has no order. '' if
    all is well."""
    labels = np.asarray(y, dtype=object).ravel().tolist()
    kinds = sorted({"number" if isinstance(label, Number) else type(label).__name__ for label in labels})
    if len(kinds) == 1 and not isinstance(labels[0], (Number, str, bytes)):
        return (
            f"Input y holds labels of type {kinds[0]}. Convert them to strings or numbers: [str(label) for label in "
            f"y], for example."
        )
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
        advice = (
            "Leave out such rows, or give sample_weight the shape of y, with 0 at its gaps: "
            "sample_weight=pandas.notna(y)."
        )
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
    if len(lengths_of(y)) > 1:
        return "MultiLabelBinarizer makes an indicator matrix of lists of labels."
    return ""
