"""Reading tables: the columns of pandas, polars, pyarrow and other data frames, of NumPy arrays and of lists, in one
form.

No data frame library is imported: a frame is known by its methods.
"""

from __future__ import annotations

import copy
import datetime
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, NoReturn

import numpy as np
from scipy.sparse import issparse

from fastmlp.estimators.validation.messages import check_has_rows

NUMBER, DATE, DURATION, BOOLEAN, TEXT, CATEGORY = "number", "date", "duration", "boolean", "text", "category"
_DAY = 86_400.0
# float64 holds all integers up to this one.
_LARGEST_EXACT = 2.0**53
_NESTED = (list, tuple, dict, set, frozenset, np.ndarray)
_NUMBERS = (int, float, np.integer, np.floating, Decimal, Fraction)
_BOOLS = (bool, np.bool_)
_LABELS = (str, bytes, *_BOOLS, *_NUMBERS)
# pandas' scalars of its dtypes for intervals and periods, which ``pandas.cut`` and others make. Their text says what
# they are.
_AS_TEXT = ("Interval", "Period")
# How pandas' names of Arrow's types of dates begin.
_ARROW_DATES = ("date32", "date64")

_NOT_2D = (
    "Expected 2D array, got {} instead. Reshape your data either using array.reshape(-1, 1) if your data has a single "
    "feature or array.reshape(1, -1) if it contains a single sample."
)


@dataclass(frozen=True)
class Values:
    """The values of a column: numbers, or categories as codes.

    Parameters
    ----------
    kind : str
        'number', 'date', 'duration', 'boolean', 'text' or 'category'.
    dtype : str
        The column's type as its library calls it.
    numbers : ndarray of shape (n,), float64, or None
        NaN for a missing value; dates are days since 1970, durations days.
    codes : ndarray of shape (n,), intp, or None
        Indices into ``labels``, -1 for a missing value.
    labels : list
        Different strings, numbers or truth values.
    exact : function () -> sequence of shape (n,), or None
        The numbers as Python's objects, where float64 may not hold all of them: it takes different integers beyond 2^53
        for one.
    """

    kind: str
    dtype: str
    numbers: np.ndarray | None = None
    codes: np.ndarray | None = None
    labels: Sequence[Any] = ()
    exact: Callable[[], Sequence[Any]] | None = None

    def as_categories(self) -> Values:
        """The same with every number, date and duration a category."""
        if self.numbers is None:
            return self
        if self.exact is not None and self.has_rounded():
            index: dict[Any, int] = {}
            found = [-1 if is_missing(v) else index.setdefault(_whole(v), len(index)) for v in self.exact()]
            return Values(CATEGORY, self.dtype, codes=np.array(found, dtype=np.intp), labels=list(index))
        known = ~np.isnan(self.numbers)
        distinct, inverse = np.unique(self.numbers[known], return_inverse=True)
        codes = np.full(len(self.numbers), -1, dtype=np.intp)
        codes[known] = inverse
        if self.kind == DATE:
            labels: list[Any] = _texts_of_dates(distinct)
        elif self.kind == DURATION:
            labels = [_text_of_duration(days) for days in distinct.tolist()]
        else:
            labels = [int(label) if label.is_integer() else label for label in distinct.tolist()]
        return Values(CATEGORY, self.dtype, codes=codes, labels=labels)

    def has_rounded(self) -> bool:
        """Whether there are numbers so large that float64 rounds integers to them."""
        return self.numbers is not None and bool((np.abs(self.numbers) >= _LARGEST_EXACT).any())


class Table:
    """The columns of X, read one at a time.

    Parameters
    ----------
    X : data frame, array or list of rows

    Raises
    ------
    TypeError, ValueError
        If X is not a table, in scikit-learn's words where it has such.
    """

    names: list[Any]
    shape: tuple[int, int]

    def __init__(self, X: Any) -> None:
        if issparse(X):
            raise TypeError(
                "Sparse data was passed for X, but dense data is required. Use '.toarray()' to convert it, or an "
                "MLPClassifier or MLPRegressor, which read sparse rows as they are."
            )
        check_has_rows("X", X)
        if hasattr(X, "collect_schema") and hasattr(X, "collect"):
            raise TypeError(f"X must hold its rows, got a {type(X).__name__}: call collect() first.")
        if hasattr(X, "to_frame") and not hasattr(X, "columns"):
            raise ValueError(_NOT_2D.format("a column") + " Of a Series, to_frame() makes a table.")
        if hasattr(X, "iloc") and hasattr(X, "columns"):
            self._open(list(X.columns), X, _PANDAS)
        elif hasattr(X, "get_columns") and hasattr(X, "schema"):
            self._open(list(X.columns), X, _POLARS)
        elif hasattr(X, "column_names") and hasattr(X, "num_rows"):
            table = X if hasattr(X, "combine_chunks") else _to_arrow(X)  # of a record batch
            self._open(list(table.column_names), table, _ARROW)
        elif hasattr(X, "__dataframe__") or hasattr(X, "__arrow_c_stream__"):
            arrow = _to_arrow(X)
            self._open(list(arrow.column_names), arrow, _ARROW)
        else:
            array = _to_array(X)
            self._open(list(range(array.shape[1])), array, _NUMPY)

    def _open(self, names: list[Any], frame: Any, library: _Library) -> None:
        shape = frame.shape
        self.names, self.shape, self._frame, self._library = names, shape, frame, library
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise ValueError(f"X has more than one column named {twice!r}: rename them.")
        if shape[1] == 0:
            raise ValueError(f"0 feature(s) (shape={shape}) while a minimum of 1 is required.")
        if shape[0] == 0:
            raise ValueError(f"Found array with 0 sample(s) (shape={shape}) while a minimum of 1 is required.")

    def column(self, i: int) -> Values:
        """The values of column ``i``.

        Raises
        ------
        TypeError, ValueError
            If it holds what has no place in a table; the message names the column.
        """
        try:
            return self._library.read(self._library.column(self._frame, i))
        except ColumnError as error:
            raise error.named(self.names[i]) from None

    def rows(self, first: int, last: int) -> Table:
        """The table of the rows ``first`` to ``last - 1``, which are not copied."""
        part = copy.copy(self)
        part._frame, part.shape = self._library.rows(self._frame, first, last), (last - first, self.shape[1])
        return part


class ColumnError(TypeError):
    """A column cannot be used. The message goes on after the column's name."""

    def named(self, name: Any) -> TypeError:
        """The error for the user."""
        return TypeError(f"Column {name!r} {self}")


# --- libraries -----------------------------------------------------------------------------------------------------


def _to_arrow(X: Any) -> Any:
    """A frame of another library as a pyarrow table."""
    try:
        import pyarrow
    except ImportError:
        raise TypeError(
            f"X of type {type(X).__module__}.{type(X).__name__} is read by pyarrow, which is not installed. Install "
            "it, or convert X to a DataFrame of pandas or polars."
        ) from None
    if hasattr(X, "__arrow_c_stream__"):
        return pyarrow.table(X)
    return pyarrow.interchange.from_dataframe(X)


def _to_array(X: Any) -> np.ndarray:
    """An array of two dimensions: of numbers, strings or objects."""
    if isinstance(X, np.ma.MaskedArray):
        array = np.array(X.data, dtype=np.float64 if X.dtype.kind in "iuf" else object)
        array[np.ma.getmaskarray(X)] = None
    else:
        array = np.asarray(X) if hasattr(X, "__array__") else _of_rows(X)
    if array.dtype.names is not None:
        raise TypeError(
            "X must be a data frame, an array or a list of rows, got records. pandas.DataFrame(X) makes a frame of "
            "them."
        )
    if array.ndim != 2:
        raise ValueError(_NOT_2D.format(f"{array.ndim}D array"))
    if array.dtype.kind == "c":
        raise ValueError("Complex data not supported.")
    if array.dtype.kind not in "biufmMOSU":
        raise TypeError(f"X must be a table of numbers, text, dates and truth values, got an array of {array.dtype}.")
    return array


def _of_rows(X: Any) -> np.ndarray:
    """A list of rows as an array; of objects, unless all are numbers, since NumPy would turn numbers beside text into
    text."""
    odd = {type(row) for row in X if isinstance(row, dict) or is_dataclass(row)} if hasattr(X, "__len__") else set()
    if not hasattr(X, "__len__") or odd:
        kind = f"a list of {'dicts' if dict in odd else 'dataclasses'}" if odd else type(X).__name__
        raise TypeError(
            f"X must be a data frame, an array or a list of rows, got {kind}. pandas.DataFrame(X) may make a frame of "
            f"it."
        )
    lengths = {len(row) if hasattr(row, "__len__") and not isinstance(row, (str, bytes, dict)) else -1 for row in X}
    if len(lengths) > 1:
        raise ValueError(f"X must have rows of one length, got rows of {sorted(lengths)[:3]} values.")
    if lengths in ({-1}, set()):
        return np.empty(len(X))
    array = np.empty((len(X), lengths.pop()), dtype=object)
    for i, row in enumerate(X):
        array[i] = row if isinstance(row, (list, tuple)) else list(row)
    return array


def _of_pandas(series: Any) -> Values:
    dtype, name = series.dtype, str(series.dtype)
    kind = getattr(dtype, "kind", "O")
    if hasattr(dtype, "categories"):
        index: dict[Any, int] = {}  # of labels, which two categories may share
        places = [index.setdefault(_label(label), len(index)) for label in series.cat.categories.tolist()]
        codes = np.array([*places, -1], dtype=np.intp)[series.cat.codes.to_numpy()]
        return Values(CATEGORY, "category", codes=codes, labels=list(index))
    if type(dtype).__name__ == "SparseDtype":
        series = series.sparse.to_dense()
    if type(dtype).__name__ == "PeriodDtype":
        series, kind = series.dt.to_timestamp(), "M"
    if kind == "M":
        if name.startswith(_ARROW_DATES):  # whose accessor has no time zone
            series = series.astype("timestamp[us][pyarrow]")
        if getattr(series.dt, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return Values(DATE, name, numbers=_days(series.to_numpy(dtype="datetime64[us]", na_value=np.datetime64("NaT"))))
    if kind == "m":
        return Values(
            DURATION, name, numbers=_days(series.to_numpy(dtype="timedelta64[us]", na_value=np.timedelta64("NaT")))
        )
    if kind == "c":
        raise ColumnError(f"holds complex numbers ({name}): split it into real and imaginary part.")
    if kind in "iuf":
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return Values(NUMBER, name, numbers=numbers, exact=None if kind == "f" else series.tolist)
    if kind == "b":
        missing = series.isna().to_numpy(dtype=bool)
        return _truths(series.to_numpy(dtype=bool, na_value=False), missing, name)
    try:
        missing = series.isna().to_numpy(dtype=bool)
        if not missing.all() and _is_text(series, kind, name):
            codes, labels = series.factorize()
            return Values(TEXT, name, codes=codes, labels=[str(label) for label in labels])
    except ArithmeticError:  # of a signalling NaN
        missing = None
    return read_objects(series.astype(object).to_numpy(), name, missing)


def _is_text(series: Any, kind: str, name: str) -> bool:
    """Whether a series of pandas holds strings and missing values only."""
    if type(series.dtype).__name__ == "StringDtype" or name in ("string[pyarrow]", "large_string[pyarrow]"):
        return True
    return kind == "O" and sys.modules["pandas"].api.types.infer_dtype(series, skipna=True) == "string"


def _of_polars(series: Any) -> Values:
    dtype, name = series.dtype, str(series.dtype)
    if dtype.is_numeric():
        numbers = np.array(series.cast(_polars().Float64).to_numpy(), dtype=np.float64)
        return Values(NUMBER, name, numbers=numbers, exact=None if dtype.is_float() else series.to_list)
    if name == "Boolean":
        missing = series.is_null().to_numpy()
        return _truths(series.fill_null(False).to_numpy(), missing, name)
    if dtype.is_temporal():
        if name.startswith("Duration"):
            return Values(DURATION, name, numbers=_of_counts(series.dt.total_microseconds(), 1e6))
        if name.startswith("Time"):
            return Values(DURATION, name, numbers=_of_counts(series.to_physical(), 1e9))
        return Values(DATE, name, numbers=_of_counts(series.cast(_polars().Datetime("us")).dt.epoch("us"), 1e6))
    is_category = name.startswith(("Categorical", "Enum"))
    if (is_category or name == "String") and series.null_count() < len(series):
        text = series.cast(_polars().String)
        labels = text.drop_nulls().unique()
        codes = text.replace_strict(labels, range(len(labels)), default=-1, return_dtype=_polars().Int64).to_numpy()
        kind, name = (CATEGORY, name.split("(")[0]) if is_category else (TEXT, name)
        return Values(kind, name, codes=codes.astype(np.intp), labels=labels.to_list())
    return read_objects(_object_array(series.to_list()), name)


def _polars() -> Any:
    return sys.modules["polars"]


def _of_counts(series: Any, per_second: float) -> np.ndarray:
    """Days, NaN for missing ones, of a polars series of counts."""
    days: np.ndarray = np.array(series.cast(_polars().Float64).to_numpy()) / (per_second * _DAY)
    return days


def _of_arrow(column: Any) -> Values:
    name = str(column.type)
    if name.startswith(("int", "uint", "float", "double", "halffloat")):
        exact = column.to_pylist if name.startswith(("int", "uint")) else None
        return Values(NUMBER, name, numbers=np.array(column.to_numpy(), dtype=np.float64), exact=exact)
    if name.startswith(("date", "timestamp")):
        return Values(DATE, name, numbers=_days(np.asarray(column.to_numpy(), dtype="datetime64[us]")))
    if name.startswith("duration"):
        return Values(DURATION, name, numbers=_days(np.asarray(column.to_numpy(), dtype="timedelta64[us]")))
    is_category = name.startswith("dictionary")
    if (str(column.type.value_type) if is_category else name) in ("string", "large_string") and column.null_count < len(
        column
    ):
        text = column.cast("string") if is_category else column
        encoded = text.dictionary_encode().unify_dictionaries().combine_chunks()
        codes = encoded.indices.fill_null(-1).to_numpy().astype(np.intp)
        return Values(CATEGORY if is_category else TEXT, name, codes=codes, labels=encoded.dictionary.to_pylist())
    values = read_objects(_object_array(column.to_pylist()), name)
    if is_category and values.numbers is None:
        return Values(CATEGORY, name, codes=values.codes, labels=values.labels)
    return values


def _of_numpy(column: np.ndarray) -> Values:
    name, kind = str(column.dtype), column.dtype.kind
    if kind in "iuf":
        return Values(NUMBER, name, numbers=column.astype(np.float64), exact=None if kind == "f" else column.tolist)
    if kind == "b":
        return _truths(column, np.zeros(len(column), dtype=bool), name)
    if kind in "mM":
        micro = "datetime64[us]" if kind == "M" else "timedelta64[us]"
        return Values(DATE if kind == "M" else DURATION, name, numbers=_days(column.astype(micro)))
    return read_objects(column.astype(object) if kind in "SU" else column, "text" if kind in "SU" else name)


class _Library(NamedTuple):
    """How to take a column from a frame, or rows of it, and how to read a column."""

    column: Callable[[Any, int], Any]
    rows: Callable[[Any, int, int], Any]
    read: Callable[[Any], Values]


_PANDAS = _Library(lambda X, i: X.iloc[:, i], lambda X, first, last: X.iloc[first:last], _of_pandas)
_POLARS = _Library(lambda X, i: X.to_series(i), lambda X, first, last: X.slice(first, last - first), _of_polars)
_ARROW = _Library(lambda X, i: X.column(i), lambda X, first, last: X.slice(first, last - first), _of_arrow)
_NUMPY = _Library(lambda X, i: X[:, i], lambda X, first, last: X[first:last], _of_numpy)


def _object_array(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


# --- values --------------------------------------------------------------------------------------------------------


def _days(moments: np.ndarray) -> np.ndarray:
    """Days, since 1970 for dates, of NumPy's dates or durations in microseconds; NaN for NaT."""
    days = moments.astype(np.int64) / (1e6 * _DAY)
    days[np.isnat(moments)] = np.nan
    return days


def _texts_of_dates(days: np.ndarray) -> list[str]:
    """Days since 1970 as text, without the parts of the time that are 0."""
    moments = np.rint(days * (1e6 * _DAY)).astype(np.int64).astype("datetime64[us]")
    return [str(np.datetime_as_string(moment, unit="auto")) for moment in moments]


def _text_of_duration(days: float) -> str:
    return str(datetime.timedelta(days=days))


def _truths(truths: np.ndarray, missing: np.ndarray, dtype: str) -> Values:
    return Values(BOOLEAN, dtype, codes=np.where(missing, -1, truths.astype(np.intp)), labels=[False, True])


def is_missing(value: Any) -> bool:
    """Whether a value stands for a missing one: None, NaN, NaT, pandas.NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return bool(np.isnat(value))
    if isinstance(value, Decimal):  # a signalling NaN cannot be compared
        return value.is_nan()
    return isinstance(value, (float, np.floating)) and value != value


def read_objects(values: np.ndarray, dtype: str, missing: np.ndarray | None = None) -> Values:
    """Python objects: numbers, truth values, dates or durations if all are, otherwise labels."""
    if missing is None:
        missing = np.fromiter((is_missing(value) for value in values), dtype=bool, count=len(values))
    known = values[~missing].tolist()
    types = tuple(set(map(type, known)))

    def all_are(*kinds: type) -> bool:
        return all(issubclass(kind, kinds) for kind in types)

    if not types:  # nothing but missing values
        return Values(NUMBER, dtype, numbers=np.full(len(values), np.nan))
    if all_are(*_BOOLS):
        truths = np.zeros(len(values), dtype=bool)
        truths[~missing] = known
        return _truths(truths, missing, dtype)
    if all_are(*_NUMBERS) and not any(issubclass(kind, _BOOLS) for kind in types):
        numbers = _spread(np.array([_float(value) for value in known]), missing)
        return Values(NUMBER, dtype, numbers=numbers, exact=values.tolist)
    if types and all(kind.__name__ == "Period" for kind in types):
        known = [value.to_timestamp() for value in known]
        types = tuple(set(map(type, known)))
    if all_are(datetime.date, np.datetime64):
        return Values(DATE, dtype, numbers=_spread(_days(_moments(known)), missing))
    if all_are(datetime.timedelta, np.timedelta64):
        return Values(DURATION, dtype, numbers=_spread(_days(np.array(known, dtype="timedelta64[us]")), missing))
    if all_are(datetime.time):
        seconds = [t.hour * 3600 + t.minute * 60 + t.second + t.microsecond / 1e6 for t in known]
        return Values(DURATION, dtype, numbers=_spread(np.array(seconds) / _DAY, missing))
    index: dict[Any, int] = {}
    codes = np.full(len(values), -1, dtype=np.intp)
    if types == (str,):
        codes[~missing] = [index.setdefault(value, len(index)) for value in known]
    else:
        codes[~missing] = [index.setdefault(_label(value), len(index)) for value in known]
    return Values(TEXT, dtype, codes=codes, labels=list(index))


def _whole(value: Any) -> Any:
    """A number as Python's: an integer if it is whole."""
    try:
        whole = int(value)
    except OverflowError:  # of infinity
        return float(value)
    return whole if whole == value else _float(value)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf


def _moments(values: list[Any]) -> np.ndarray:
    """Dates, those with a time zone in UTC, as NumPy's."""
    offsets = [value.utcoffset() if getattr(value, "tzinfo", None) is not None else None for value in values]
    plain = [
        value if offset is None else value.replace(tzinfo=None) for value, offset in zip(values, offsets, strict=True)
    ]
    # The difference is NumPy's: the last date that Python has may be later in UTC.
    distances = np.array([offset or datetime.timedelta() for offset in offsets], dtype="timedelta64[us]")
    moments: np.ndarray = np.array(plain, dtype="datetime64[us]") - distances
    return moments


def _spread(known: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Numbers at the places that are not missing, NaN at the others."""
    numbers = np.full(len(missing), np.nan)
    numbers[~missing] = known
    return numbers


def _label(value: Any) -> Any:
    """A category as a plain string, number or truth value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (datetime.date, np.datetime64)):
        return _texts_of_dates(_days(_moments([value])))[0]
    if isinstance(value, (datetime.timedelta, np.timedelta64)):
        return _text_of_duration(_days(np.array([value], dtype="timedelta64[us]"))[0])
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (Decimal, Fraction)):
        return _whole(value)
    if type(value).__name__ in _AS_TEXT:
        return str(value)
    _refuse(value)


def _refuse(value: Any) -> NoReturn:
    """The error for an object that is neither number nor label nor date."""
    if isinstance(value, _NESTED):
        raise ColumnError(
            f"holds a {type(value).__name__} in each cell: make columns of its parts first, or drop it. A cell must be "
            "a number, a string, a truth value or a date."
        )
    raise ColumnError(
        f"holds objects of type {type(value).__name__}: convert them first, to strings for example. A cell must be a "
        "number, a string, a truth value or a date."
    )
