"""Arrays whose data start on a cache line. It refuses to know what they hold. Used by ``network_file``, ``network`` and ``training``."""

from __future__ import annotations

import numpy as np

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 vector


def aligned_empty(n: int, dtype: np.dtype | str) -> np.ndarray:
    """An uninitialised array (n,) whose data start on a cache line."""
    dtype = np.dtype(dtype)
    raw = np.empty(n * dtype.itemsize + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + n * dtype.itemsize].view(dtype)


def aligned_copy(values: np.ndarray, dtype: np.dtype | str | None = None) -> np.ndarray:
    """The values of a 1-D array in a new array whose data start on a cache line."""
    copy = aligned_empty(values.size, values.dtype if dtype is None else dtype)
    copy[:] = values
    return copy
