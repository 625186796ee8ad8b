"""Columns in model files: their JSON, their arrays, and the checks of both."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from fastmlp.network.persistence import Fields, FileFormatError, Tensors, is_number
from fastmlp.tabular.bins import MOST_BINS
from fastmlp.tabular.columns import DROPPED, KINDS, TREATMENTS, Column, Columns, sort_key
from fastmlp.tabular.frames import CATEGORY, NUMBER
from fastmlp.tabular.search import ENDS


def describe_columns(columns: Columns, arrays: dict[str, np.ndarray], prefix: str) -> list[dict[str, Any]]:
    """The columns as JSON; their edges and scalings go to ``arrays``, as ``<prefix>columns.<number>.edges`` and
    ``.scaling``."""
    described = []
    for number, column in enumerate(columns):
        if len(column.edges):
            arrays[f"{prefix}columns.{number}.edges"] = column.edges
        if column.is_scaled:
            arrays[f"{prefix}columns.{number}.scaling"] = column.scaling
        described.append(
            {
                "name": column.name,
                "dtype": column.dtype,
                "kind": column.kind,
                "treatment": column.treatment,
                "remark": column.remark,
                "categories": [_label_to_json(label) for label in column.categories],
                "grouped": [_label_to_json(label) for label in column.grouped],
                "missing": column.missing,
                **({"scaled": True} if column.is_scaled else {}),
                "fill": column.fill if np.isfinite(column.fill) else None,
            }
        )
    return described


def build_columns(contents: list[Any], tensors: Tensors, prefix: str) -> Columns:
    """The columns that a file describes; every field is checked."""
    return Columns(
        _build_column(Fields(content, f"columns.{number}"), tensors, f"{prefix}columns.{number}")
        for number, content in enumerate(contents)
    )


def _build_column(fields: Fields, tensors: Tensors, name: str) -> Column:
    treatment = fields.choice("treatment", TREATMENTS)
    fill = fields.take("fill", lambda value: value is None or is_number(value), "a finite number or null")
    scaled = "scaled" in fields and fields.flag("scaled")
    edges, scaling, edges_name = np.empty(0), np.empty((0, 2)), f"{name}.edges"
    if scaled:
        tensors.require(f"{name}.scaling", ("float64",), (None, 2))
        scaling = np.array(tensors.read(f"{name}.scaling"))
    elif treatment == NUMBER:
        tensors.require(edges_name, ("float64",), (None,))
        edges = np.array(tensors.read(edges_name))
        if not 0 < len(edges) <= MOST_BINS + 1 or not (np.diff(edges / 2.0) > 0).all() or fill is None:
            raise FileFormatError(
                f"{edges_name} must be 1 to {MOST_BINS + 1} that rise, and its column must have a fill"
            )
    column = Column(
        name=fields.take("name", lambda value: isinstance(value, str) or type(value) is int, "a string or an integer"),
        dtype=fields.take("dtype", lambda value: isinstance(value, str), "a string"),
        treatment=treatment,
        remark=fields.take("remark", lambda value: isinstance(value, str), "a string"),
        edges=edges,
        categories=_labels(fields, "categories"),
        grouped=_labels(fields, "grouped"),
        missing=fields.flag("missing"),
        fill=np.nan if fill is None else float(fill),
        kind=fields.choice("kind", KINDS),
        scaling=scaling,
    )
    fields.end()
    if scaled:
        _check_scaling(column, name)
    is_category = bool(column.categories)
    if is_category != (treatment not in (NUMBER, DROPPED)) or (column.grouped and not is_category):
        raise FileFormatError(f"a column with the treatment {treatment} has the wrong categories")
    return column


def _check_scaling(column: Column, name: str) -> None:
    """Refuse the scaling of a column with other inputs, or none, and numbers that are no scaling."""
    n_inputs = column.one_hot().shape[1] if column.treatment == CATEGORY else 1 + column.missing
    needs_fill = column.treatment == NUMBER and np.isnan(column.fill)
    if (
        column.treatment == DROPPED
        or len(column.scaling) != n_inputs
        or needs_fill
        or not (column.scaling[:, 1] >= 0).all()
    ):
        raise FileFormatError(f"{name}.scaling must be {n_inputs} centers and scales >= 0 of a column that is used")


def _label_to_json(label: Any) -> Any:
    return label if not isinstance(label, float) or np.isfinite(label) else {"float": str(label)}


def _labels(fields: Fields, name: str) -> tuple[Any, ...]:
    """Categories: strings, numbers and truth values, rising."""
    labels = []
    for item in fields.items(name):
        label = item
        if isinstance(item, dict) and item.get("float") in ("inf", "-inf") and len(item) == 1:
            label = float(item["float"])
        if not isinstance(label, (str, int, float)):
            raise FileFormatError(f"{name} must be strings, numbers and truth values")
        labels.append(label)
    keys = [sort_key(label) for label in labels]
    if any(first >= second for first, second in pairwise(keys)):
        raise FileFormatError(f"{name} must be different and rise")
    return tuple(labels)


# Fields of an entry of ``configurations_`` that are numbers.
_NUMBERS_OF_ENTRY = ("score", "weight", "seconds")


def describe_search(configurations: list[dict[str, Any]], times_selected: list[int]) -> dict[str, Any]:
    """A search as JSON."""
    entries = []
    for configuration in configurations:
        numbers = {name: configuration[name] for name in _NUMBERS_OF_ENTRY}
        entry = {name: value if np.isfinite(value) else str(value) for name, value in numbers.items()}
        entries.append({**configuration, **entry})
    return {"configurations": entries, "times_selected": times_selected}


def build_search(fields: Fields) -> tuple[list[dict[str, Any]], list[int]]:
    """The configurations of a search, and how often each network was selected."""
    configurations = []
    for number, content in enumerate(fields.items("configurations")):
        entry = Fields(content, f"configurations.{number}")
        parameters = entry.take("parameters", _are_parameters, "an object of numbers, strings and lists of integers")
        built: dict[str, Any] = {
            "parameters": {name: tuple(v) if isinstance(v, list) else v for name, v in parameters.items()}
        }
        for name in _NUMBERS_OF_ENTRY:
            built[name] = float(entry.take(name, lambda v: is_number(v) or v in ("nan", "-inf", "inf"), "a number"))
        built["ended"] = entry.choice("ended", ENDS)
        entry.end()
        configurations.append(built)
    counts = fields.items("times_selected")
    if not all(type(count) is int and 0 < count < 2**31 for count in counts):
        raise FileFormatError("search.times_selected must be integers from 1")
    fields.end()
    return configurations, list(counts)


def _are_parameters(content: Any) -> bool:
    """Whether this is an object of numbers, strings and lists of integers."""
    return isinstance(content, dict) and all(
        value is None or isinstance(value, (str, bool, int, float)) or _is_sizes(value) for value in content.values()
    )


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int for size in value)
