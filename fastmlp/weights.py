"""Weights of rows: what may be one, and which rows count.

It refuses to see the rows themselves but for their number. Imported by ``base`` and ``ensemble``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import _check_sample_weight


def check_weight(sample_weight: ArrayLike | None, X: Any) -> np.ndarray | None:
    """Weights of the rows of X by scikit-learn's rules; that they must not all be 0 is not one of them in its older releases."""
    if sample_weight is None:
        return None
    weight = _check_sample_weight(sample_weight, X)
    if not weight.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weight


def rows_that_count(weight: np.ndarray) -> np.ndarray | None:
    """Indices of the rows with a weight other than 0; None if these are all rows."""
    return None if weight.all() else np.flatnonzero(weight).astype(np.intp)
