"""What becomes of a table's numbers: piecewise-linear encoding (Gorishniy, Rubachev and Babenko, NeurIPS 2022, equation
1), number by number; and robust scaling with a smooth limit (Holzmüller, Grinsztajn and Steinwart, NeurIPS 2024)."""

from __future__ import annotations

import math

import numpy as np


def quantile_edges(values: list[float], n_bins: int) -> list[float]:
    """The quantiles 0, 1 / n_bins ... 1 of the numbers that are not missing, without repetitions.

    The quantile q of n sorted numbers is at the position q (n - 1); between two numbers it is interpolated.
    """
    known = sorted(value for value in values if not math.isnan(value))
    edges: list[float] = []
    for i in range(n_bins + 1 if known else 0):
        position = i * (len(known) - 1) / n_bins
        below = min(math.floor(position), len(known) - 1)
        above = min(below + 1, len(known) - 1)
        edge = known[below] + (position - below) * (known[above] - known[below])
        if not edges or edge > edges[-1]:
            edges.append(edge)
    return edges


def piecewise_linear(x: float, edges: list[float]) -> np.ndarray:
    """The components of a number's code, one for each pair of neighbouring edges; all 0 for a missing number."""
    n_bins = max(len(edges) - 1, 0)
    code = np.zeros(n_bins)
    for i in range(n_bins if not math.isnan(x) else 0):
        code[i] = (x - edges[i]) / (edges[i + 1] - edges[i])
        if n_bins > 1 and i < n_bins - 1:
            code[i] = min(code[i], 1.0)
        if n_bins > 1 and i > 0:
            code[i] = max(code[i], 0.0)
    return code


def scaled(x: np.ndarray, learnt_from: np.ndarray) -> np.ndarray:
    """y / sqrt(1 + (y / 3)^2), y = f (x - median), f = 1 / (q75 - q25) of the numbers that are learnt from.

    Where the quartiles are equal, f = 2 / (max - min); where all are equal, f = 0.
    """
    low, median, high = np.quantile(learnt_from, [0.25, 0.5, 0.75])
    spread = high - low if high > low else (learnt_from.max() - learnt_from.min()) / 2.0
    y = (x - median) / spread if spread > 0 else np.zeros_like(x)
    limited: np.ndarray = y / np.sqrt(1.0 + (y / 3.0) ** 2)
    return limited
