"""Columns in model files: their JSON, their arrays, and the checks of both."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from fastmlp.network.persistence import Fields, FileFormatError, Tensors, is_number
from fastmlp.tabular.bins import MOST_BINS
from fastmlp.tabular.columns import DROPPED, KINDS, TREATMENTS, Column, Columns, sort_key
from fastmlp.tabular.frames import NUMBER


def describe_columns(columns: Columns, arrays: dict[str, np.ndarray], prefix: str) -> list[dict[str, Any]]:
    """The columns as JSON; their edges go to ``arrays``, as ``<prefix>columns.<number>.edges``."""
    described = []
    for number, column in enumerate(columns):
        if len(column.edges):
            arrays[f"{prefix}columns.{number}.edges"] = column.edges
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
                "fill": column.fill if np.isfinite(column.fill) else None,
            }
        )
    return described


def build_columns(contents: list[Any], tensors: Tensors, prefix: str) -> Columns:
    """The columns that a file describes; every field is checked."""
    return Columns(
        _build_column(Fields(content, f"columns.{number}"), tensors, f"{prefix}columns.{number}.edges")
        for number, content in enumerate(contents)
    )


def _build_column(fields: Fields, tensors: Tensors, edges_name: str) -> Column:
    treatment = fields.choice("treatment", TREATMENTS)
    fill = fields.take("fill", lambda value: value is None or is_number(value), "a finite number or null")
    edges = np.empty(0)
    if treatment == NUMBER:
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
    )
    fields.end()
    is_category = bool(column.categories)
    if is_category != (treatment not in (NUMBER, DROPPED)) or (column.grouped and not is_category):
        raise FileFormatError(f"a column with the treatment {treatment} has the wrong categories")
    return column


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
