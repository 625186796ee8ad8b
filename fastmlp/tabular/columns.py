"""What is done to each column of a table: learnt from the training rows, shown by ``columns_``, applied to any rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from fastmlp.tabular.bins import fill_codes, median, n_components, quantile_edges
from fastmlp.tabular.frames import BOOLEAN, CATEGORY, DATE, DURATION, NUMBER, TEXT, Table, Values

DROPPED = "dropped"
TREATMENTS = (NUMBER, CATEGORY, DROPPED)
KINDS = (NUMBER, DATE, DURATION, BOOLEAN, TEXT, CATEGORY)
#: Most different values of a column of text that nobody has declared a category.
MOST_TEXTS = 1000
# Codes of numbers far beyond the training rows' are limited to this size, which float32 can multiply and add up.
_LARGEST_CODE = 1e6
_PLURAL = {
    NUMBER: "numbers",
    DATE: "dates",
    DURATION: "durations",
    BOOLEAN: "truth values",
    TEXT: "text",
    CATEGORY: "categories",
}
_UNITS = {DATE: "days since 1970", DURATION: "days"}


@dataclass(frozen=True)
class Column:
    """What is done to one column.

    Parameters
    ----------
    name : str or int
        The column's name, or its number where there are no names.
    dtype : str
        Its type in ``fit``.
    treatment : {'number', 'category', 'dropped'}
        Encoded piecewise linearly; one input for each category; not used at all.
    remark : str
        Details in words: why it was dropped, the unit of a date.
    edges : ndarray of shape (n_edges,)
        Of a number: the edges of its bins.
    categories : tuple
        Of a category: those with an input of their own, in rising order.
    grouped : tuple
        The rarer ones, which share an input.
    missing : bool
        Whether it had missing values in ``fit``, and so has an input that marks them.
    fill : float
        Of a number: its median, which stands in for missing values if there were none in ``fit``.
    """

    name: Any
    dtype: str
    treatment: str
    remark: str = ""
    edges: np.ndarray = field(default_factory=lambda: np.empty(0))
    categories: tuple[Any, ...] = ()
    grouped: tuple[Any, ...] = ()
    missing: bool = False
    fill: float = np.nan
    kind: str = NUMBER

    @property
    def n_inputs(self) -> int:
        """Inputs of the network that the column becomes."""
        if self.treatment == DROPPED:
            return 0
        own = n_components(self.edges) if self.treatment == NUMBER else len(self.categories) + bool(self.grouped)
        return own + self.missing

    def describe(self) -> str:
        """What is done to it, in words."""
        if self.treatment == DROPPED:
            return f"dropped: {self.remark}"
        if self.treatment == NUMBER:
            n_bins = n_components(self.edges)
            words = f"{self.remark or NUMBER}, {n_bins} bin{'s' * (n_bins != 1)}"
        else:
            n_categories = len(self.categories)
            words = f"{n_categories} categories" if n_categories != 1 else "1 category"
            words += f", {len(self.grouped)} rarer ones as one" if self.grouped else ""
        return words + (", missing values marked" if self.missing else "")


class Columns(list[Column]):
    """The columns of a table; printed, a line for each."""

    def __repr__(self) -> str:
        rows = [("column", "type", "inputs", "treatment")]
        rows += [(str(c.name), c.dtype, str(c.n_inputs), c.describe()) for c in self]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(
            f"{name:<{widths[0]}}  {dtype:<{widths[1]}}  {inputs:>{widths[2]}}  {words}"
            for name, dtype, inputs, words in rows
        )

    @property
    def n_inputs(self) -> int:
        """Inputs of the network: at least one, which is always 0 if every column was dropped."""
        return max(sum(column.n_inputs for column in self), 1)


# --- learning ------------------------------------------------------------------------------------------------------


def learn_columns(
    values: Sequence[Values],
    names: Sequence[Any],
    declared: np.ndarray,
    rows: np.ndarray | None,
    n_bins: int,
    max_categories: int,
) -> Columns:
    """What to do to each column.

    Parameters
    ----------
    values : sequence of Values
        One per column.
    names : sequence
    declared : ndarray of shape (n_columns,), bool
        Columns that the user calls categories.
    rows : ndarray of intp, or None
        Rows to learn from; None for all.
    n_bins, max_categories : int
        As in the estimators.
    """
    names = [name if isinstance(name, str) or type(name) is int else str(name) for name in names]
    return Columns(
        _learn_number(own, name, rows, n_bins)
        if own.numbers is not None
        else _learn_category(own, name, rows, max_categories, bool(is_category))
        for own, name, is_category in zip(values, names, declared, strict=True)
    )


def _learn_number(values: Values, name: Any, rows: np.ndarray | None, n_bins: int) -> Column:
    assert values.numbers is not None
    check_finite(values.numbers, name)
    x = values.numbers if rows is None else values.numbers[rows]
    edges, missing = quantile_edges(x, n_bins), bool(np.isnan(x).any())
    if len(edges) == 0:
        return Column(name, values.dtype, DROPPED, "no values", kind=values.kind)
    if len(edges) == 1 and not missing:
        return Column(name, values.dtype, DROPPED, "always the same", kind=values.kind)
    remark = _UNITS.get(values.kind, "")
    return Column(name, values.dtype, NUMBER, remark, edges=edges, missing=missing, fill=median(x), kind=values.kind)


def _learn_category(values: Values, name: Any, rows: np.ndarray | None, max_categories: int, declared: bool) -> Column:
    assert values.codes is not None
    codes = values.codes if rows is None else values.codes[rows]
    missing = bool((codes < 0).any())
    counts = np.bincount(codes[codes >= 0], minlength=len(values.labels))
    seen = sorted(np.flatnonzero(counts).tolist(), key=lambda code: sort_key(values.labels[code]))
    if values.kind == TEXT and not declared and len(seen) > MOST_TEXTS:
        raise _too_much_text([values.labels[code] for code in seen], name)
    if not seen:
        return Column(name, values.dtype, DROPPED, "no values", kind=values.kind)
    if len(seen) == 1 and not missing:
        return Column(name, values.dtype, DROPPED, "always the same", kind=values.kind)
    kept = seen
    if len(seen) > max_categories:
        kept = sorted(seen, key=lambda code: -counts[code])[: max_categories - 1]
    own = set(kept)
    return Column(
        name,
        values.dtype,
        CATEGORY,
        categories=tuple(values.labels[code] for code in seen if code in own),
        grouped=tuple(values.labels[code] for code in seen if code not in own),
        missing=missing,
        kind=values.kind,
    )


def sort_key(label: Any) -> tuple[int, Any]:
    """A key that sorts numbers before strings."""
    return (1, label) if isinstance(label, str) else (0, label)


def _too_much_text(labels: list[Any], name: Any) -> ValueError:
    """The error for a column of free text, of keys, or of numbers that were read as text."""
    some = ", ".join(repr(str(label)[:30]) for label in labels[:3])
    advice = "drop it, make columns of it (the page on text shows how), or name it in categorical_features to keep its most frequent values."
    if sum(_reads_as(lambda text: float(text.replace(",", "")), label) for label in labels) > len(labels) / 2:
        advice = "its values look like numbers: convert it to numbers first (pandas.to_numeric, say)."
    elif sum(_reads_as(datetime.fromisoformat, label) for label in labels) > len(labels) / 2:
        advice = "its values look like dates: convert it to dates first (pandas.to_datetime, say)."
    return ValueError(
        f"Column {name!r} is text with {len(labels)} different values, more than {MOST_TEXTS} ({some} ...): {advice}"
    )


def _reads_as(read: Callable[[str], Any], label: Any) -> bool:
    try:
        read(str(label))
    except ValueError:
        return False
    return True


def check_finite(numbers: np.ndarray, name: Any) -> None:
    """Refuse infinity, which no bin holds."""
    infinite = np.isinf(numbers)
    if infinite.any():
        raise ValueError(
            f"Column {name!r} holds {numbers[infinite][0]}: replace infinity by a missing value (NaN), or by a number."
        )


def declared_categories(categorical_features: Any, names: Sequence[Any]) -> np.ndarray:
    """The columns that ``categorical_features`` declares, as a mask (n_columns,).

    Raises
    ------
    ValueError
        If it is no mask of the columns, and no list of their indices or names.
    """
    n_columns = len(names)
    mask = np.zeros(n_columns, dtype=bool)
    if isinstance(categorical_features, str):  # 'from_dtype', the only valid string
        return mask
    asked = np.asarray(categorical_features)
    if asked.ndim != 1:
        raise ValueError(f"categorical_features must be one-dimensional, got shape {asked.shape}.")
    if asked.dtype.kind == "b":
        if len(asked) != n_columns:
            raise ValueError(
                f"categorical_features must have a truth value for each of {n_columns} columns, got {len(asked)}."
            )
        return asked.copy()
    for item in asked.tolist():
        if isinstance(item, str):
            places = [i for i, name in enumerate(names) if name == item]
            if not places:
                raise ValueError(f"categorical_features names {item!r}, which is not a column of X.")
            mask[places] = True
        elif isinstance(item, int) and 0 <= item < n_columns:
            mask[item] = True
        else:
            raise ValueError(
                f"categorical_features must be indices from 0 to {n_columns - 1} or names of columns, got {item!r}."
            )
    return mask


# --- applying ------------------------------------------------------------------------------------------------------


def read_values(table: Table, declared: Iterable[bool]) -> list[Values]:
    """All columns of a table to fit on; those that are declared as categories in any case."""
    return [
        table.column(i).as_categories() if is_category else table.column(i) for i, is_category in enumerate(declared)
    ]


def codes_of(table: Table, columns: Columns) -> list[np.ndarray | None]:
    """Each column's values as ``fill_inputs`` takes them: numbers, or places among the column's inputs; None if it is dropped.

    Raises
    ------
    TypeError, ValueError
        If a column of numbers holds anything else, or infinity.
    """
    return [None if column.treatment == DROPPED else _code(table.column(i), column) for i, column in enumerate(columns)]


def _code(values: Values, column: Column) -> np.ndarray:
    if column.treatment == NUMBER:
        return _numbers(values, column)
    values = values.as_categories()
    assert values.codes is not None
    place = {label: i for i, label in enumerate(column.categories)}
    place |= dict.fromkeys(column.grouped, len(column.categories))
    # The last place is that of missing values, which the code -1 finds.
    places = np.array([*(place.get(label, -1) for label in values.labels), -1], dtype=np.intp)
    found: np.ndarray = places[values.codes]
    return found


def _numbers(values: Values, column: Column) -> np.ndarray:
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


def fill_inputs(out: np.ndarray, columns: Columns, codes: Sequence[np.ndarray | None], rows: slice) -> None:
    """Write the network's input (n_rows, columns.n_inputs) for these rows of the coded columns."""
    first = 0
    for column, own in zip(columns, codes, strict=True):
        if own is None:
            continue
        inputs = out[:, first : first + column.n_inputs]
        first += column.n_inputs
        if column.treatment == NUMBER:
            fill_codes(inputs, own[rows], column.edges, column.missing, column.fill, _LARGEST_CODE)
        else:
            inputs[...] = 0
            places = own[rows]
            known = np.flatnonzero(places >= 0)
            inputs[known, places[known]] = 1
            if column.missing:
                inputs[:, -1] = places < 0
    out[:, first:] = 0
