"""Sums that do not depend on who adds: the shards of a batch, and the tree over their numbers.

A batch is divided into S shards of neighbouring rows. Each is summed in the order of its rows, and the sums of the
shards are added in a fixed binary tree over their numbers: 0 + 1, 2 + 3, ..., then pairs of these. So a result is a
function of the data, the parameters, the seed and S, whatever adds the shards: threads, processes or machines. It has
smaller errors than one chain of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def shards(n_rows: int, n_shards: int) -> list[slice]:
    """The rows of each shard of a batch; their numbers differ by one at most, and may be 0.

    Parameters
    ----------
    n_rows, n_shards : int
        Rows of the batch; shards, at least 1.

    Returns
    -------
    list of slice
    """
    ends = [n_rows * (shard + 1) // n_shards for shard in range(n_shards)]
    return [slice(first, last) for first, last in zip([0, *ends[:-1]], ends, strict=True)]


def additions(n_shards: int) -> Iterator[tuple[int, int]]:
    """The tree: pairs (to, source) of numbers, in an order in which ``sum[to] += sum[source]`` leaves the total in
    number 0.

    Additions of one level, whose distance ``source - to`` is the same, may be made at the same time.

    Parameters
    ----------
    n_shards : int
        At least 1.

    Yields
    ------
    tuple of int
    """
    distance = 1
    while distance < n_shards:
        for to in range(0, n_shards - distance, 2 * distance):
            yield to, to + distance
        distance *= 2


def tree_sum(sums: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of the shards' arrays by the tree, in place: the first array receives it, the others are overwritten.

    Parameters
    ----------
    sums : sequence of ndarray
        One for each shard, all of one shape and type.

    Returns
    -------
    ndarray
        The first array.
    """
    for to, source in additions(len(sums)):
        sums[to] += sums[source]
    return sums[0]
