"""From the rows of a table to the codes that networks are trained on: bins and fractions of numbers, numbers of categories."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastmlp.core import Bins, CodeLayout, Codes
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

# Types of values that NumPy takes for the numbers that they are, and that a dict finds among labels.
_PLAIN_NUMBERS = {float, int, bool, type(None), np.float64, np.float32}
_PLAIN_LABELS = {str, float, int, bool, type(None)}
# Numbers that are read at a time: 8 MB.
_PIECE = 2**20
_LEAST_ROWS = 1024
# Labels that an error lists.
_NAMED = 3
_PLURAL = {
    NUMBER: "numbers",
    DATE: "dates",
    DURATION: "durations",
    BOOLEAN: "truth values",
    TEXT: "text",
    CATEGORY: "categories",
}


class Coder:
    """Makes codes of the rows of tables.

    Parameters
    ----------
    columns : Columns
        What to do to each column.

    Attributes
    ----------
    layout : CodeLayout
        Of the codes: the columns of numbers, then those of categories, in the order of the table. If every column was dropped, a
        category that no row has.
    numbers, categories : list of (int, Column)
        These columns, with their places in the table.
    bins : Bins
        Of the numbers.
    """

    def __init__(self, columns: Columns) -> None:
        self.numbers = [(i, column) for i, column in enumerate(columns) if column.treatment == NUMBER]
        self.categories = [(i, column) for i, column in enumerate(columns) if column.treatment == CATEGORY]
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


def label_codes(column: Column) -> tuple[dict[Any, int], int]:
    """The code of each label of a column of categories, and that of missing and other ones."""
    codes = {label: code for code, label in enumerate(column.categories)}
    codes |= dict.fromkeys(column.grouped, len(column.categories))
    return codes, column.n_inputs - column.missing


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
    """Refuse text where there were numbers, and numbers where there was text: as categories, none of them has been seen."""
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
                f"Column {column.name!r} held {kinds[0]} as categories in fit, {_few(seen)}, and holds {kinds[1]} now, {_few(now)}: "
                "convert it to the type that it had."
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
            f"Column {column.name!r} held {_PLURAL[column.kind]} in fit, and holds {_PLURAL[values.kind]} now."
        )
    check_finite(numbers, column.name)
    return numbers


class RowCoder(Coder):
    """Makes codes of single rows, in a few microseconds."""

    def __init__(self, columns: Columns) -> None:
        super().__init__(columns)
        self._number_places = [i for i, _ in self.numbers]
        self._category_places = [i for i, _ in self.categories]
        found = [label_codes(column) for _, column in self.categories]
        self._code_of = [(codes.get, other) for codes, other in found]
        self._dates = [j for j, (_, column) in enumerate(self.numbers) if column.kind in (DATE, DURATION)]

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
                for number, (_, column) in zip(x[0], self.numbers, strict=True):
                    check_finite(np.array([number]), column.name)
        if self.categories:
            labels = [values[i] for i in self._category_places]
            categories = np.array([self._row_of_codes(labels)], self.category_type)
        elif not self.numbers:
            categories = np.array([[1]], self.category_type)
        return Codes(self.layout, bins, fractions, categories)

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


def _read(value: Any, column: Column) -> Values:
    """A single value of a column."""
    cell = np.empty(1, dtype=object)
    cell[0] = value
    try:
        return read_objects(cell, "object")
    except ColumnError as error:
        raise error.named(column.name) from None
