"""Coded rows: the dense encoding that they stand for, and the first layer on them in the order of the compiled code;
embeddings.

A number has a bin k of m and a fraction, a category a code of c. Numbers come first; ``bins``, ``fractions`` and
``categories`` have a column for each feature, ``bin_counts`` holds each m, ``category_counts`` each c. A missing number
has the bin m and the fraction 1, no category the code c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np

from fastmlp.reference.functions import Array

Counts = Sequence[int]


def owned_rows(bin_counts: Counts, category_counts: Counts) -> list[slice]:
    """Each feature's columns of the encoding, its rows of W: m + 1 of a number, the last for missing ones; c of a
    category."""
    sizes = [m + 1 for m in bin_counts] + list(category_counts)
    return [slice(*ends) for ends in pairwise(accumulate(sizes, initial=0))]


def encode(bins: Array, fractions: Array, categories: Array, bin_counts: Counts, category_counts: Counts) -> Array:
    """The dense encoding: of a number [1, .., 1, fraction, 0, .., 0 | 0] with k ones, or [0, .., 0 | 1] (Gorishniy et
    al. 2022); of a category its indicators."""
    owned = owned_rows(bin_counts, category_counts)
    X = np.zeros((max(len(bins), len(categories)), owned[-1].stop))
    for f, m in enumerate(bin_counts):
        place, k = np.arange(m + 1), bins[:, f, np.newaxis]
        before = (place < k) & (k < m)
        X[:, owned[f]] = np.where(place == k, fractions[:, f, np.newaxis], before)
    for q, c in enumerate(category_counts):
        X[:, owned[len(bin_counts) + q]] = categories[:, q, np.newaxis] == np.arange(c)
    return X


def find_bin(x: float, edges: Array, fill: float, largest: float) -> tuple[int, float]:
    """The bin k of a number, the last one with edges[k] <= x or the first, and its fraction (x - edges[k]) / (edges[k +
    1] - edges[k]), limited to +-largest; (m, 1) for a number that is missing (NaN, as ``fill``). A single edge makes
    one bin, whose fraction is 0."""
    m = max(len(edges) - 1, 1)
    x = fill if np.isnan(x) else x
    if np.isnan(x):
        return m, 1.0
    if len(edges) == 1:
        return 0, 0.0
    k = min(max(sum(edge <= x for edge in edges) - 1, 0), m - 1)
    half = edges / 2  # whose differences are finite
    with np.errstate(over="ignore"):
        return k, float(np.clip((x / 2 - half[k]) / (half[k + 1] - half[k]), -largest, largest))


def sum_bins(W: Array, bin_counts: Counts) -> Array:
    """C: in the row of bin k the sum of W's rows of the bins before it; 0 in the row of missing numbers."""
    owned = owned_rows(bin_counts, ())
    C = np.zeros((owned[-1].stop if owned else 0, W.shape[1]))
    for own, m in zip(owned, bin_counts, strict=True):
        for k in range(1, m):
            C[own.start + k] = C[own.start + k - 1] + W[own.start + k - 1]
    return C


def code_product(
    W: Array, b: Array, bins: Array, fractions: Array, categories: Array, bin_counts: Counts, category_counts: Counts
) -> Array:
    """z = encode(...) W + b: from b on, feature by feature, + C[i] + fraction W[i] with i the row of the number's bin,
    or + W[i] with i the row of the category."""
    C, owned = sum_bins(W, bin_counts), owned_rows(bin_counts, category_counts)
    z = np.tile(b.astype(np.float64), (max(len(bins), len(categories)), 1))
    for f in range(len(bin_counts)):
        i = owned[f].start + bins[:, f].astype(np.intp)
        z = z + C[i]
        z = z + fractions[:, f, np.newaxis] * W[i]
    for q, c in enumerate(category_counts):
        known = categories[:, q] < c
        z[known] += W[owned[len(bin_counts) + q].start + categories[known, q].astype(np.intp)]
    return z


def code_gradient(
    dz: Array, bins: Array, fractions: Array, categories: Array, bin_counts: Counts, category_counts: Counts
) -> Array:
    """dW = encode(...)^T dz: of a number F[k] + S[k + 1] + .. + S[m - 1], with S[k] the sum of dz over the rows in bin
    k and F[k] that of fraction dz; of missing numbers, and of a category, the sum of dz."""
    return np.vstack(list(_code_gradients(dz, bins, fractions, categories, bin_counts, category_counts)))


def _code_gradients(
    dz: Array, bins: Array, fractions: Array, categories: Array, bin_counts: Counts, category_counts: Counts
) -> Iterator[Array]:
    """dW of each feature."""
    for f, m in enumerate(bin_counts):
        F, S = np.zeros((m + 1, dz.shape[1])), np.zeros((m + 1, dz.shape[1]))
        np.add.at(F, bins[:, f], fractions[:, f, np.newaxis] * dz)
        np.add.at(S, bins[:, f], dz)
        behind = np.zeros(dz.shape[1])
        for k in reversed(range(m)):
            F[k] += behind
            behind = behind + S[k]
        yield F
    for q, c in enumerate(category_counts):
        S = np.zeros((c + 1, dz.shape[1]))
        np.add.at(S, categories[:, q], dz)
        yield S[:c]


# --- Embeddings: a first layer with d units for each feature ---------------------------------------------------


def dense_embedding(W: Array, bin_counts: Counts, category_counts: Counts) -> Array:
    """The dense layer (I, F d) that an embedding W (I, d) of F features is: feature f's rows of W in the units f d ..
    (f + 1) d of its own rows, and 0 elsewhere."""
    owned, d = owned_rows(bin_counts, category_counts), W.shape[1]
    dense = np.zeros((len(W), len(owned) * d))
    for f, own in enumerate(owned):
        dense[own, f * d : (f + 1) * d] = W[own]
    return dense


def embedding_gradient(dense: Array, d: int, bin_counts: Counts, category_counts: Counts) -> Array:
    """The gradient (I, d) of an embedding, from that (I, F d) of the dense layer."""
    owned = owned_rows(bin_counts, category_counts)
    return np.vstack([dense[own, f * d : (f + 1) * d] for f, own in enumerate(owned)])


def scale_features(y: Array, s: Array) -> Array:
    """y (B, F d) with feature f's units times s[f], s (F,)."""
    return y * np.repeat(s, y.shape[1] // len(s))
