"""What is done to each column of a table: learnt from the training rows, and shown by ``columns_``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np

from fastmlp.estimators._sklearn import warn
from fastmlp.estimators.validation.messages import kind_of_text
from fastmlp.tabular.bins import known_numbers, mean, median, n_components, quantile_edges, quartile_scaling
from fastmlp.tabular.frames import BOOLEAN, CATEGORY, DATE, DURATION, NUMBER, TEXT, Table, Values

DROPPED = "dropped"
TREATMENTS = (NUMBER, CATEGORY, DROPPED)
KINDS = (NUMBER, DATE, DURATION, BOOLEAN, TEXT, CATEGORY)
#: Most different values of a column of text that nobody has declared a category.
MOST_TEXTS = 1000
# A column of text with fewer values is one of categories, whatever they look like; with more, it is not if most look
# like something else.
_FEW_TEXTS, _MOST = 20, 0.9
# Columns that an error lists.
_NAMED = 5
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
        Whether it had missing values in ``fit``, which are then told from others.
    fill : float
        Of a number: its median, which stands in for missing values if there were none in ``fit``. Of one that is
        scaled: its mean, which always does.
    kind : {'number', 'date', 'duration', 'boolean', 'text', 'category'}
        What its values are.
    scaling : ndarray of shape (n_inputs, 2)
        Center and scale of each input, with ``method='realmlp'``: the number, and a flag for missing ones; of a
        category, 1 in one input and 0 in the others, or 1 and -1 in a single input for two categories. Empty for codes.
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
    scaling: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))

    @property
    def n_inputs(self) -> int:
        """Inputs of the network that the column becomes: of a number, its bins and one for missing values."""
        if self.treatment == DROPPED:
            return 0
        if self.is_scaled:
            return len(self.scaling)
        if self.treatment == NUMBER:
            return max(n_components(self.edges), 1) + 1
        return len(self.categories) + bool(self.grouped) + self.missing

    @property
    def is_scaled(self) -> bool:
        """Whether its inputs are scaled numbers, not codes."""
        return len(self.scaling) > 0

    def one_hot(self) -> np.ndarray:
        """The inputs (n_codes, n_inputs) of each category, before they are scaled; the last row is that of missing and
        other ones."""
        n_categories = len(self.categories) + bool(self.grouped)
        if n_categories > 2:
            return np.eye(n_categories + 1, n_categories)
        # With a single category, the missing ones are the second of two.
        return np.array([[1.0], [-1.0], [0.0]] if n_categories == 2 else [[1.0], [-1.0]])

    def describe(self) -> str:
        """What is done to it, in words."""
        if self.treatment == DROPPED:
            return f"dropped: {self.remark}"
        if self.treatment == NUMBER and self.is_scaled:
            words = f"{self.remark or NUMBER}, scaled by its quartiles"
        elif self.treatment == NUMBER:
            n_bins = n_components(self.edges)
            words = f"{self.remark or NUMBER}, {n_bins} bin{'s' * (n_bins != 1)}"
        else:
            n_categories = len(self.categories)
            words = f"{n_categories} categories" if n_categories != 1 else "1 category"
            words += f", {len(self.grouped)} rarer ones as one" if self.grouped else ""
        marks = self.missing and (self.treatment == NUMBER or not self.is_scaled)
        return words + (", missing values marked" if marks else "")


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

    @property
    def are_scaled(self) -> bool:
        """Whether the networks take scaled numbers, not codes."""
        return any(column.is_scaled for column in self)


# --- learning ------------------------------------------------------------------------------------------------------


def learn_columns(
    table: Table, declared: np.ndarray, rows: np.ndarray | None, n_bins: int, max_categories: int, scaled: bool = False
) -> Columns:
    """What to do to each column. They are read one after the other.

    Parameters
    ----------
    table : Table
    declared : ndarray of shape (n_columns,), bool
        Columns that the user calls categories.
    rows : ndarray of intp, or None
        Rows to learn from; None for all.
    n_bins, max_categories : int
        As in the estimators.
    scaled : bool, default=False
        Whether the columns become scaled numbers, instead of codes.
    """
    return Columns(
        _learn_column(table.column(i), name, rows, n_bins, max_categories, bool(is_category), scaled)
        for i, (name, is_category) in enumerate(zip(table.names, declared, strict=True))
    )


def _learn_column(
    values: Values, name: Any, rows: np.ndarray | None, n_bins: int, max_categories: int, declared: bool, scaled: bool
) -> Column:
    name = name if isinstance(name, str) or type(name) is int else str(name)
    values = as_categories(values, name) if declared else values
    if values.numbers is not None:
        return _learn_number(values, name, rows, n_bins, scaled)
    return _learn_category(values, name, rows, max_categories, declared, scaled)


def as_categories(values: Values, name: Any) -> Values:
    """The values of a column as categories, with a warning if they are floats to which different integers were
    rounded."""
    if values.exact is None and values.kind == NUMBER and values.has_rounded():
        warn(
            f"Column {name!r} holds categories as floats beyond 2**53, which cannot tell integers from their "
            "neighbours. Read it as integers (in pandas as Int64, if there are gaps) or as text."
        )
    return values.as_categories()


def _learn_number(values: Values, name: Any, rows: np.ndarray | None, n_bins: int, scaled: bool) -> Column:
    assert values.numbers is not None
    check_finite(values.numbers, name)
    x = values.numbers if rows is None else values.numbers[rows]
    known = known_numbers(x)
    edges, missing = quantile_edges(known, 1 if scaled else n_bins), len(known) < len(x)
    if len(edges) == 0:
        return Column(name, values.dtype, DROPPED, "no values", kind=values.kind)
    if len(edges) == 1 and not missing:
        if values.exact is not None and values.has_rounded() and len(set(values.exact())) > 1:
            warn(
                f"Column {name!r} was dropped: it holds integers that are the same number in float64. Subtract the "
                "smallest from them, or name it in categorical_features if they are categories."
            )
            return Column(name, values.dtype, DROPPED, "the same in float64", kind=values.kind)
        return Column(name, values.dtype, DROPPED, "always the same", kind=values.kind)
    remark = _UNITS.get(values.kind, "")
    if scaled:
        fill = mean(known)
        n_missing = len(x) - len(known)
        at = np.searchsorted(known, fill)
        filled = np.concatenate([known[:at], np.full(n_missing, fill), known[at:]])
        scaling = [quartile_scaling(filled, np.ones(len(filled), dtype=np.intp))]
        if missing:
            scaling.append(quartile_scaling(np.array([0.0, 1.0]), np.array([len(known), n_missing])))
        return Column(
            name, values.dtype, NUMBER, remark, missing=missing, fill=fill, kind=values.kind, scaling=np.array(scaling)
        )
    return Column(
        name, values.dtype, NUMBER, remark, edges=edges, missing=missing, fill=median(known), kind=values.kind
    )


def _learn_category(
    values: Values, name: Any, rows: np.ndarray | None, max_categories: int, declared: bool, scaled: bool
) -> Column:
    assert values.codes is not None
    codes = values.codes if rows is None else values.codes[rows]
    missing = bool((codes < 0).any())
    counts = np.bincount(codes[codes >= 0], minlength=len(values.labels))
    seen = sorted(np.flatnonzero(counts).tolist(), key=lambda code: sort_key(values.labels[code]))
    if values.kind == TEXT and not declared and len(seen) > MOST_TEXTS:
        raise _too_much_text([values.labels[code] for code in seen], name)
    if values.kind == TEXT and not declared:
        _warn_of_text([values.labels[code] for code in seen], int(counts.sum()), name)
    if not seen:
        return Column(name, values.dtype, DROPPED, "no values", kind=values.kind)
    if len(seen) == 1 and not missing:
        return Column(name, values.dtype, DROPPED, "always the same", kind=values.kind)
    kept = seen
    if len(seen) > max_categories:
        kept = sorted(seen, key=lambda code: -counts[code])[: max_categories - 1]
    own = set(kept)
    column = Column(
        name,
        values.dtype,
        CATEGORY,
        categories=tuple(values.labels[code] for code in seen if code in own),
        grouped=tuple(values.labels[code] for code in seen if code not in own),
        missing=missing,
        kind=values.kind,
    )
    if not scaled:
        return column
    rows_of = [counts[code] for code in seen if code in own]
    rows_of += [sum(counts[code] for code in seen if code not in own)] if column.grouped else []
    return replace(
        column, scaling=_scaling_of_inputs(column.one_hot(), np.array([*rows_of, len(codes) - sum(rows_of)]))
    )


def _scaling_of_inputs(one_hot: np.ndarray, n_rows: np.ndarray) -> np.ndarray:
    """Center and scale of each input of a category, from the number of rows of each code."""
    scaling = []
    for own in one_hot.T:
        values, place = np.unique(own, return_inverse=True)
        counts = np.bincount(place, weights=n_rows).astype(np.intp)
        scaling.append(quartile_scaling(values[counts > 0], counts[counts > 0]))
    return np.array(scaling)


def sort_key(label: Any) -> tuple[int, Any]:
    """A key that sorts numbers before strings."""
    return (1, label) if isinstance(label, str) else (0, label)


def _too_much_text(labels: list[Any], name: Any) -> ValueError:
    """The error for a column of free text, of keys, or of numbers that were read as text."""
    advice = (
        "drop it, make columns of it (the page on text shows how), or name it in categorical_features to keep its most "
        "frequent values."
    )
    kinds = [kind_of_text(str(label)) for label in labels]
    if kinds.count("number") > len(labels) / 2:
        advice = (
            "its values look like numbers: convert it to numbers first. pandas.to_numeric(column, errors='coerce') "
            "makes missing values of those that it cannot read, so take out commas and units before."
        )
    elif kinds.count("date") > len(labels) / 2:
        advice = "its values look like dates: convert it to dates first (pandas.to_datetime, say)."
    return ValueError(
        f"Column {name!r} is text with {len(labels)} different values, more than {MOST_TEXTS} ({_some(labels)}): "
        f"{advice}"
    )


def _some(labels: list[Any]) -> str:
    return ", ".join(repr(str(label)[:30]) for label in labels[:3]) + (" ..." if len(labels) > 3 else "")


def _warn_of_text(labels: list[Any], n_rows: int, name: Any) -> None:
    """Warn of text that is probably something else than categories: dates, numbers, or a key of the rows."""
    n = len(labels)
    if n < _FEW_TEXTS:
        return
    texts = [str(label) for label in labels]
    kinds = [kind_of_text(text) for text in texts]
    are_codes = all(text.isdigit() for text in texts) and len(set(map(len, texts))) == 1  # postal codes, say
    if kinds.count("date") > _MOST * n:
        found = "text whose values look like dates"
        advice = "Convert it to dates (pandas.to_datetime, say)"
    elif kinds.count("number") > _MOST * n and not are_codes:
        found = "text whose values look like numbers"
        advice = (
            "Convert it to numbers (pandas.to_numeric(column, errors='coerce') makes missing values of those that it "
            "cannot read)"
        )
    elif 2 * n > n_rows:
        found = f"text with {n} different values in {n_rows} rows"
        advice = "Drop it if it is a key or free text"
    else:
        return
    warn(
        f"Column {name!r} is {found} ({_some(labels)}), and each value was taken for a category. {advice}, or name it "
        "in categorical_features to keep it as it is."
    )


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
    if isinstance(categorical_features, (Set, Mapping)):
        raise ValueError(
            f"categorical_features must be a list of columns, got a {type(categorical_features).__name__}: make a list "
            f"of it, {list(categorical_features)!r}."
        )
    # NumPy would make text of numbers beside names, and numbers of truth values beside numbers.
    is_list = isinstance(categorical_features, (list, tuple))
    asked = np.empty(len(categorical_features), dtype=object) if is_list else np.asarray(categorical_features)
    if is_list:
        asked[:] = categorical_features
    items = asked.tolist()
    if asked.ndim != 1 or any(isinstance(item, (list, tuple, np.ndarray)) for item in items):
        raise ValueError(f"categorical_features must be one-dimensional, got {categorical_features!r}.")
    if items and all(isinstance(item, (bool, np.bool_)) for item in items):
        if len(asked) != n_columns:
            raise ValueError(
                f"categorical_features must have a truth value for each of {n_columns} columns, got {len(asked)}."
            )
        return asked.astype(bool)
    for item in items:
        places = [i for i, name in enumerate(names) if isinstance(item, str) and name == item]
        is_index = isinstance(item, Integral) and not isinstance(item, bool) and 0 <= int(item) < n_columns
        if not places and is_index:
            places = [int(item)]
        if not places:
            kind = "names" if isinstance(item, str) else "holds"
            some = ", ".join(map(repr, names[:_NAMED])) + (" ..." if n_columns > _NAMED else "")
            raise ValueError(
                f"categorical_features {kind} {item!r}, which is not a column of X. It takes names of columns "
                f"({some}), indices from 0 to {n_columns - 1}, or a truth value for each column."
            )
        mask[places] = True
    return mask
