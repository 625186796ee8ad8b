"""From the rows of a table to what networks are trained on: codes of numbers and categories, or scaled numbers."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastmlp.core import Bins, CodeLayout, Codes
from fastmlp.core.memory import check_memory
from fastmlp.tabular.columns import Column, Columns, as_categories, check_finite
from fastmlp.tabular.frames import (
    BOOLEAN,
    CATEGORY,
    DATE,
    DURATION,
    NUMBER,
    TEXT,
    ColumnError,
    Table,
    Values,
    read_objects,
)

#: What networks take: codes, or scaled numbers (n_rows, n_inputs).
Inputs = Codes | np.ndarray

# Types of values that NumPy takes for the numbers that they are, and that a dict finds among labels.
_PLAIN_NUMBERS = {float, int, bool, type(None), np.float64, np.float32}
_PLAIN_LABELS = {str, float, int, bool, type(None)}
# Numbers that are read at a time: 8 MB.
_PIECE = 2**20
_LEAST_ROWS = 1024
# Labels that an error lists.
_NAMED = 3
# Functions that make numbers, dates and durations of text.
_BY = {
    NUMBER: " (pandas.to_numeric, say)",
    DATE: " (pandas.to_datetime, say)",
    DURATION: " (pandas.to_timedelta, say)",
}
_PLURAL = {
    NUMBER: "numbers",
    DATE: "dates",
    DURATION: "durations",
    BOOLEAN: "truth values",
    TEXT: "text",
    CATEGORY: "categories",
}


class Reader:
    """Reads the columns of numbers, and those of categories, which come after them in the networks' input.

    Parameters
    ----------
    columns : Columns
        What to do to each column.

    Attributes
    ----------
    numbers, categories : list of (int, Column)
        These columns, with their places in the table.
    """

    def __init__(self, columns: Columns) -> None:
        self.numbers = [(i, column) for i, column in enumerate(columns) if column.treatment == NUMBER]
        self.categories = [(i, column) for i, column in enumerate(columns) if column.treatment == CATEGORY]


class Coder(Reader):
    """Makes codes of the rows of tables.

    Parameters
    ----------
    columns : Columns
        What to do to each column.

    Attributes
    ----------
    layout : CodeLayout
        Of the codes: the columns of numbers, then those of categories, in the order of the table. If every column was
        dropped, a category that no row has.
    bins : Bins
        Of the numbers.
    """

    def __init__(self, columns: Columns) -> None:
        super().__init__(columns)
        counts = [column.n_inputs for _, column in self.categories]
        self.layout = CodeLayout(
            [column.n_inputs - 1 for _, column in self.numbers], counts if counts or self.numbers else [1]
        )
        self.bins = Bins(
            [column.edges for _, column in self.numbers],
            [np.nan if column.missing else column.fill for _, column in self.numbers],
        )
        #: Rows that are read at a time.
        self.n_rows = max(_PIECE // max(len(self.numbers), 1), _LEAST_ROWS)
        self.category_type = np.uint16 if max([0, *self.layout.category_counts]) < 2**16 else np.uint32

    def codes(self, *tables: Table) -> Codes:
        """The codes of all rows of the tables, one table after the other.

        Raises
        ------
        TypeError, ValueError
            If a column of numbers holds anything else, or infinity.
        """
        codes = self.empty(sum(table.shape[0] for table in tables))
        first = 0
        for table in tables:
            self.fill(codes, first, table)
            first += table.shape[0]
        return codes

    def empty(self, n_rows: int) -> Codes:
        """Codes of as many rows, to be overwritten."""
        n_numbers, n_categories = len(self.layout.bin_counts), len(self.layout.category_counts)
        bins, fractions = np.zeros((n_rows, n_numbers), np.uint16), np.zeros((n_rows, n_numbers), np.float32)
        categories = np.zeros((n_rows, n_categories), self.category_type)
        if not self.categories:
            categories[...] = 1  # none
        return Codes(
            self.layout,
            bins if n_numbers else None,
            fractions if n_numbers else None,
            categories if n_categories else None,
        )

    def fill(self, codes: Codes, first: int, table: Table) -> None:
        """Write the rows of a table, from row ``first`` on."""
        n_rows = table.shape[0]
        if codes.categories is not None:
            for place, (i, column) in enumerate(self.categories):
                codes.categories[first : first + n_rows, place] = category_codes(table.column(i), column)
        if codes.bins is None or codes.fractions is None:
            return
        numbers = np.empty((len(self.numbers), min(self.n_rows, n_rows)))
        for begin in range(0, n_rows, self.n_rows):
            end = min(begin + self.n_rows, n_rows)
            part, some = table.rows(begin, end), numbers[:, : end - begin]
            for own, (i, column) in zip(some, self.numbers, strict=True):
                own[...] = numbers_of(part.column(i), column)
            rows = slice(first + begin, first + end)
            self.bins.encode(some.T, codes.bins[rows], codes.fractions[rows])


class Scaler(Reader):
    """Makes scaled numbers of the rows of tables, for ``method='realmlp'``.

    Each input, of a number, of its flag for missing values, or of a category, becomes y = (x - center) / scale, 0 where
    the scale is 0, and then y / sqrt(1 + (y / 3)^2), so that no input is beyond 3.

    Parameters
    ----------
    columns : Columns
        What to do to each column; all are scaled or dropped.
    dtype : {'float32', 'float64'}
        Of the result.

    Attributes
    ----------
    width : int
        Inputs: the numbers, the flags of those that had missing values in ``fit``, and those of the categories.
    owners : ndarray of shape (width,), intp
        The column of each input: of the numbers, then of the categories.
    """

    def __init__(self, columns: Columns, dtype: str) -> None:
        super().__init__(columns)
        self.dtype = np.dtype(dtype)
        self._flagged = [j for j, (_, column) in enumerate(self.numbers) if column.missing]
        self._fill = np.array([column.fill for _, column in self.numbers])
        self._scaling = np.array([column.scaling[0] for _, column in self.numbers]).reshape(-1, 2)
        flags = [self.numbers[j][1].scaling[1] for j in self._flagged]
        self._flags = [_scaled(np.array([0.0, 1.0]), center, scale).astype(self.dtype) for center, scale in flags]
        self._one_hot = [
            _scaled(column.one_hot(), *column.scaling.T).astype(self.dtype) for _, column in self.categories
        ]
        widths = [table.shape[1] for table in self._one_hot]
        n_numbers = len(self.numbers)
        self.owners = np.concatenate(
            [np.arange(n_numbers), self._flagged, np.repeat(np.arange(n_numbers, n_numbers + len(widths)), widths)]
        ).astype(np.intp)
        self.width = len(self.owners)
        #: Rows that are read at a time.
        self.n_rows = max(_PIECE // max(self.width, 1), _LEAST_ROWS)

    def codes(self, *tables: Table) -> np.ndarray:
        """The inputs (n_rows, width) of all rows of the tables, one table after the other.

        Raises
        ------
        TypeError, ValueError
            If a column of numbers holds anything else, or infinity.
        MemoryError
            If there is no room for them.
        """
        shape = sum(table.shape[0] for table in tables), self.width
        check_memory(
            f"method='realmlp' makes {self.width} inputs of the columns. To hold them for {shape[0]:,} rows",
            shape[0] * self.width * self.dtype.itemsize,
            "Lower max_categories, or take another method, which holds codes.",
        )
        inputs, first = np.empty(shape, self.dtype), 0
        for table in tables:
            for begin in range(0, table.shape[0], self.n_rows):
                part = table.rows(begin, min(begin + self.n_rows, table.shape[0]))
                numbers = np.empty((part.shape[0], len(self.numbers)))
                for own, (i, column) in zip(numbers.T, self.numbers, strict=True):
                    own[...] = numbers_of(part.column(i), column)
                codes = [category_codes(part.column(i), column) for i, column in self.categories]
                self._write(inputs[first : first + part.shape[0]], numbers, codes)
                first += part.shape[0]
        return inputs

    def _write(self, out: np.ndarray, numbers: np.ndarray, codes: Sequence[Any]) -> None:
        """The inputs of rows, from their numbers (n_rows, n_numbers), which it overwrites, and the codes of each
        category."""
        n_numbers = len(self.numbers)
        missing = np.isnan(numbers)
        for at, (j, flag) in enumerate(zip(self._flagged, self._flags, strict=True), start=n_numbers):
            out[:, at] = flag[missing[:, j].view(np.uint8)]
        np.copyto(numbers, self._fill, where=missing)
        out[:, :n_numbers] = _scaled(numbers, *self._scaling.T)
        at = n_numbers + len(self._flags)
        for own, one_hot in zip(codes, self._one_hot, strict=True):
            out[:, at : at + one_hot.shape[1]] = one_hot[own]
            at += one_hot.shape[1]


# Numbers at this distance from the center are at the limit, to the last bit of float64; their squares are finite.
_FAR = 1e100


def _scaled(x: np.ndarray, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(x - center) / scale, smoothly limited to 3; 0 where the scale is 0. Halves: differences of finite numbers are
    finite."""
    with np.errstate(over="ignore"):
        y = (x / 2.0 - center / 2.0) / np.where(scale == 0, np.inf, scale / 2.0)
    y = np.clip(y, -_FAR, _FAR)
    limited: np.ndarray = y / np.sqrt(1.0 + (y / 3.0) ** 2)
    return limited


def label_codes(column: Column) -> tuple[dict[Any, int], int]:
    """The code of each label of a column of categories, and that of missing and other ones."""
    codes = {label: code for code, label in enumerate(column.categories)}
    codes |= dict.fromkeys(column.grouped, len(column.categories))
    return codes, len(column.categories) + bool(column.grouped)


def category_codes(values: Values, column: Column) -> np.ndarray:
    """The code of each value of a column of categories."""
    values = as_categories(values, column.name)
    assert values.codes is not None
    codes, other = label_codes(column)
    # The last one is that of missing values, which the code -1 finds.
    found: np.ndarray = np.array([*(codes.get(label, other) for label in values.labels), other])[values.codes]
    if (found == other).all():
        _check_kind(values, column)
    return found


def _check_kind(values: Values, column: Column) -> None:
    """Refuse text where there were numbers, and numbers where there was text: as categories, none of them has been
    seen."""
    assert values.codes is not None
    seen, now = (
        (*column.categories, *column.grouped),
        [values.labels[i] for i in np.unique(values.codes[values.codes >= 0])],
    )
    for was_text in (True, False):
        if (
            now
            and all(isinstance(label, str) is was_text for label in seen)
            and not any(isinstance(label, str) is was_text for label in now)
        ):
            kinds = (_PLURAL[TEXT], _PLURAL[NUMBER])[:: 1 if was_text else -1]
            raise TypeError(
                f"Column {column.name!r} held {kinds[0]} as categories in fit, {_few(seen)}, and holds {kinds[1]} now, "
                f"{_few(now)}: convert it to the type that it had."
            )


def _few(labels: Sequence[Any]) -> str:
    """The first labels, for a message."""
    return ", ".join(map(reprlib.repr, labels[:_NAMED])) + (" ..." if len(labels) > _NAMED else "")


def numbers_of(values: Values, column: Column) -> np.ndarray:
    """The numbers of a column that had numbers in ``fit``."""
    numbers = values.numbers
    if numbers is None and values.kind == BOOLEAN and values.codes is not None:
        numbers = np.where(values.codes < 0, np.nan, values.codes)
    if numbers is None and values.codes is not None and (values.codes < 0).all():
        numbers = np.full(len(values.codes), np.nan)
    empty = numbers is not None and np.isnan(numbers).all()
    if numbers is None or (values.kind != column.kind and not empty and {values.kind, column.kind} & {DATE, DURATION}):
        raise TypeError(
            f"Column {column.name!r} held {_PLURAL[column.kind]} in fit, and holds {_PLURAL[values.kind]} now: convert "
            f"it to {_PLURAL[column.kind]} first{_BY.get(column.kind, '')}."
        )
    check_finite(numbers, column.name)
    return numbers


class _RowReader(Reader):
    """Reads single rows, in a few microseconds."""

    def _prepare(self) -> None:
        """Note what depends on the columns alone."""
        self._number_places = [i for i, _ in self.numbers]
        self._category_places = [i for i, _ in self.categories]
        found = [label_codes(column) for _, column in self.categories]
        self._code_of = [(codes.get, other) for codes, other in found]
        self._dates = [j for j, (_, column) in enumerate(self.numbers) if column.kind in (DATE, DURATION)]

    def _check_finite(self, numbers: np.ndarray) -> None:
        """Refuse infinity among the numbers (1, n_numbers) of a row."""
        for number, (_, column) in zip(numbers[0], self.numbers, strict=True):
            check_finite(np.array([number]), column.name)

    def _row_of_numbers(self, values: list[Any]) -> np.ndarray:
        """The numbers (1, n_numbers) of a row, NaN for missing ones."""
        is_plain = set(map(type, values)) <= _PLAIN_NUMBERS
        for j in self._dates if is_plain else range(len(values)):
            column = self.numbers[j][1]
            values[j] = numbers_of(_read(values[j], column), column)[0]
        try:
            return np.array([values], np.float64)
        except OverflowError:  # of an integer
            largest = sys.float_info.max
            return np.array([[np.inf if type(x) is int and abs(x) > largest else x for x in values]], np.float64)

    def _row_of_codes(self, labels: list[Any]) -> list[int]:
        """The codes of a row's categories."""
        is_plain = set(map(type, labels)) <= _PLAIN_LABELS
        found = []
        for label, (code_of, other), (_, column) in zip(labels, self._code_of, self.categories, strict=True):
            code = code_of(label, other) if is_plain else other
            if code == other and label is not None:  # missing in another way, of another type, or not seen
                code = int(category_codes(_read(label, column), column)[0])
            found.append(code)
        return found


class RowCoder(_RowReader, Coder):
    """Makes codes of single rows."""

    def __init__(self, columns: Columns) -> None:
        super().__init__(columns)
        self._prepare()

    def row(self, values: Sequence[Any]) -> Codes:
        """The codes of a row: those of a table of it alone.

        Parameters
        ----------
        values : sequence
            Of each column of the table, those that were dropped included.

        Raises
        ------
        TypeError, ValueError
            As ``codes``.
        """
        bins, fractions, categories = None, None, None
        if self.numbers:
            x = self._row_of_numbers([values[i] for i in self._number_places])
            bins, fractions = np.empty(x.shape, np.uint16), np.empty(x.shape, np.float32)
            if not self.bins.encode(x, bins, fractions):
                self._check_finite(x)
        if self.categories:
            labels = [values[i] for i in self._category_places]
            categories = np.array([self._row_of_codes(labels)], self.category_type)
        elif not self.numbers:
            categories = np.array([[1]], self.category_type)
        return Codes(self.layout, bins, fractions, categories)


class RowScaler(_RowReader, Scaler):
    """Makes scaled numbers of single rows."""

    def __init__(self, columns: Columns, dtype: str) -> None:
        super().__init__(columns, dtype)
        self._prepare()

    def row(self, values: Sequence[Any]) -> np.ndarray:
        """The inputs (1, width) of a row; values and errors as for a ``RowCoder``."""
        inputs = np.empty((1, self.width), self.dtype)
        numbers = self._row_of_numbers([values[i] for i in self._number_places])
        if np.isinf(numbers).any():
            self._check_finite(numbers)
        self._write(inputs, numbers, self._row_of_codes([values[i] for i in self._category_places]))
        return inputs


def _read(value: Any, column: Column) -> Values:
    """A single value of a column."""
    cell = np.empty(1, dtype=object)
    cell[0] = value
    try:
        return read_objects(cell, "object")
    except ColumnError as error:
        raise error.named(column.name) from None
