"""Piecewise-linear codes of numbers: edges at quantiles, and a number's position in each bin between them."""

from __future__ import annotations

import numpy as np

from fastmlp.core import Bins

#: Most bins: a bin's number is a uint16, of which one stands for missing numbers.
MOST_BINS = 2**16 - 1


def known_numbers(x: np.ndarray) -> np.ndarray:
    """The numbers that are not missing, in rising order.

    Parameters
    ----------
    x : ndarray of shape (n,), float64
        NaN for a missing number; the others are finite.
    """
    rising = np.sort(x)  # NaN last
    known: np.ndarray = rising[: len(x) - np.count_nonzero(np.isnan(x))]
    return known


def quantile_edges(known: np.ndarray, n_bins: int) -> np.ndarray:
    """Edges of at most ``n_bins`` bins with about as many numbers in each.

    Parameters
    ----------
    known : ndarray of shape (n,), float64
        Finite and in rising order.
    n_bins : int

    Returns
    -------
    ndarray of shape (n_edges,), float64
        The quantiles 0, 1 / n_bins ... 1, rising: equal ones are one edge. Between two numbers they are interpolated.
        One edge if all numbers are equal, none without numbers.
    """
    if not len(known):
        return np.empty(0)
    position = (len(known) - 1) * np.linspace(0.0, 1.0, n_bins + 1)
    below = np.minimum(position.astype(np.intp), len(known) - 1)
    # Halves, whose differences are finite for every finite number; from the nearer number, as NumPy has it.
    low, high = known[below] / 2.0, known[np.minimum(below + 1, len(known) - 1)] / 2.0
    share = position - below
    edges = np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1.0 - share))
    return np.unique(2.0 * edges)


def median(known: np.ndarray) -> float:
    """Median of numbers in rising order; NaN without such."""
    n = len(known)
    return float(known[(n - 1) // 2] / 2.0 + known[n // 2] / 2.0) if n else np.nan


def quartile_scaling(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Center and scale of numbers: their median, and the difference of their quartiles.

    Where the quartiles are equal, the scale is half of the range, which is 0 for numbers that are all equal. Quantiles
    are NumPy's linear ones.

    Parameters
    ----------
    values : ndarray of shape (n_values,), float64
        Finite and in rising order.
    counts : ndarray of shape (n_values,), int
        How often each of them occurs.
    """
    last = np.cumsum(counts)
    position = (last[-1] - 1) * np.array([0.25, 0.5, 0.75])
    below = position.astype(np.intp)
    # Halves, whose differences are finite for every finite number.
    first, second = (
        values[np.searchsorted(last, i, side="right")] / 2.0 for i in (below, np.minimum(below + 1, last[-1] - 1))
    )
    low, center, high = first + (second - first) * (position - below)
    scale = high - low or (values[-1] / 2.0 - values[0] / 2.0) / 2.0
    return 2.0 * float(center), float(min(scale, np.finfo(np.float64).max / 2.0)) * 2.0


def mean(known: np.ndarray) -> float:
    """Mean of numbers, whose sum may be beyond float64."""
    size = float(np.abs(known).max()) or 1.0
    return float(np.mean(known / size) * size)


def n_components(edges: np.ndarray) -> int:
    """Components of a number's dense code: one per bin."""
    return max(len(edges) - 1, 0)


def fill_codes(out: np.ndarray, x: np.ndarray, edges: np.ndarray, missing: bool, fill: float) -> None:
    """Write the dense codes of a column: 1 in the bins below a number's own, the fraction there, 0 in those above.

    Parameters
    ----------
    out : ndarray of shape (n, n_components(edges) + missing), float32 or float64
    x : ndarray of shape (n,), float32 or float64
        Finite, or NaN for a missing number.
    edges : ndarray of shape (n_edges,), float64
    missing : bool
        Whether the last column of ``out`` marks missing numbers, whose code is then 0. Otherwise they have the code of
        ``fill``.
    fill : float
    """
    if missing:
        out[:, -1] = np.isnan(x)
        out = out[:, :-1]
    if not out.shape[1]:
        return
    bins, fractions = np.empty((len(x), 1), np.uint16), np.empty((len(x), 1), out.dtype)
    largest = float(np.finfo(out.dtype).max)
    Bins([edges], [np.nan if missing else fill], largest).encode(x[:, np.newaxis], bins, fractions)
    place = np.arange(out.shape[1])
    out[...] = (place < bins) & (bins < len(place))
    known = np.flatnonzero(bins < len(place))
    out[known, bins[known, 0]] = fractions[known, 0]
