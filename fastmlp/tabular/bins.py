"""Piecewise-linear codes of numbers: edges at quantiles, and a number's position in each bin between them."""

from __future__ import annotations

import numpy as np


def quantile_edges(x: np.ndarray, n_bins: int) -> np.ndarray:
    """Edges of at most ``n_bins`` bins with about as many numbers in each.

    Parameters
    ----------
    x : ndarray of shape (n,), float64
        NaN for a missing number; the others are finite.
    n_bins : int

    Returns
    -------
    ndarray of shape (n_edges,), float64
        The quantiles 0, 1 / n_bins ... 1 (NumPy's linear ones), rising: equal ones are one edge. One edge if all numbers are equal,
        none if all are missing.
    """
    known = x[~np.isnan(x)]
    if not len(known):
        return np.empty(0)
    # Halves, whose differences are finite for every finite x.
    return np.unique(2.0 * np.quantile(known / 2.0, np.linspace(0.0, 1.0, n_bins + 1)))


def n_components(edges: np.ndarray) -> int:
    """Components of a number's code: one per bin."""
    return max(len(edges) - 1, 0)


def piecewise_linear(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The code of each number.

    Parameters
    ----------
    x : ndarray of shape (n,), float64
        Finite, or NaN for a missing number.
    edges : ndarray of shape (n_edges,), float64
        Rising.

    Returns
    -------
    ndarray of shape (n, n_components(edges)), float64
        ``(x - edges[i]) / (edges[i + 1] - edges[i])``, at most 1 in the first component, at least 0 in the last, and in [0, 1] in
        those between. A single component has no limits. NaN for a missing number.
    """
    half = edges / 2.0
    with np.errstate(over="ignore"):  # a number far from a narrow bin
        code: np.ndarray = (x[:, np.newaxis] / 2.0 - half[:-1]) / np.diff(half)
    if code.shape[1] > 1:
        np.minimum(code[:, :-1], 1.0, out=code[:, :-1])
        np.maximum(code[:, 1:], 0.0, out=code[:, 1:])
    return code


def median(x: np.ndarray) -> float:
    """Median of the numbers that are not missing; NaN without such."""
    known = x[~np.isnan(x)]
    return float(2.0 * np.median(known / 2.0)) if len(known) else np.nan


def fill_codes(
    out: np.ndarray, x: np.ndarray, edges: np.ndarray, missing: bool, fill: float, largest: float = np.inf
) -> None:
    """Write the codes of a column.

    Parameters
    ----------
    out : ndarray of shape (n, n_components(edges) + missing)
    x : ndarray of shape (n,), float64
        Finite, or NaN for a missing number.
    edges : ndarray of shape (n_edges,), float64
    missing : bool
        Whether the last column of ``out`` marks missing numbers, whose code is then 0. Otherwise they have the code of ``fill``.
    fill : float
    largest : float, default=inf
        Codes are limited to this size, and to that of the largest number of ``out``'s type.
    """
    gaps = np.isnan(x)
    if not missing and gaps.any():
        x = np.where(gaps, fill, x)
    code = piecewise_linear(x, edges)
    if missing:
        code[gaps] = 0.0
        out[:, -1] = gaps
        out = out[:, :-1]
    largest = min(largest, float(np.finfo(out.dtype).max))
    np.clip(code, -largest, largest, out=code)
    out[...] = code
