"""Rows for training and rows for scoring: folds and shares with about the same part of each class."""

from __future__ import annotations

import numpy as np


def _order(labels: np.ndarray | None, n_rows: int, rng: np.random.RandomState) -> np.ndarray:
    """The rows in random order, one class after the other: each stretch of equal steps takes its part of every class."""
    order: np.ndarray = rng.permutation(n_rows)
    return order if labels is None else order[np.argsort(labels[order], kind="stable")]


def deal(labels: np.ndarray | None, n_rows: int, n_folds: int, rng: np.random.RandomState) -> np.ndarray:
    """The fold of each row. Folds differ by at most one row, in all and in each class.

    Parameters
    ----------
    labels : ndarray of shape (n_rows,), or None
        Each row's class; None: without regard to classes.
    n_rows, n_folds : int
    rng : RandomState

    Returns
    -------
    ndarray of shape (n_rows,), intp
        From 0 to n_folds - 1.
    """
    fold = np.empty(n_rows, dtype=np.intp)
    fold[_order(labels, n_rows, rng)] = np.arange(n_rows) % n_folds
    return fold


def take_share(labels: np.ndarray | None, n_rows: int, share: float, rng: np.random.RandomState) -> np.ndarray:
    """A mask of a share of the rows: at least one and not all, of each class about its share.

    A class with a single row stays whole, where there are others.
    """
    order = _order(labels, n_rows, rng)
    if labels is not None:
        _, of_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
        several = (counts > 1)[of_class.ravel()]
        order = order[several[order]] if np.count_nonzero(several) > 1 else order
    n_taken = min(max(round(share * len(order)), 1), len(order) - 1)
    steps = np.arange(len(order) + 1) * n_taken // len(order)
    taken = np.zeros(n_rows, dtype=bool)
    taken[order[np.diff(steps) > 0]] = True
    return taken
