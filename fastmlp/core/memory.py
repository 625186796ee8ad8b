"""Arrays that start on a cache line, and a check for finite numbers that needs no memory."""

from __future__ import annotations

import sys

import numpy as np

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 vector
# Up to this size, np.isfinite is faster than a sum.
_SMALL = 10_000


def aligned_empty(n: int, dtype: np.dtype | str) -> np.ndarray:
    """An uninitialised array (n,) whose data start on a cache line."""
    dtype = np.dtype(dtype)
    if n * dtype.itemsize > sys.maxsize - ALIGNMENT:
        raise MemoryError(f"Unable to allocate {n * dtype.itemsize / 2**30:,.1f} GiB for an array of {n} numbers")
    raw = np.empty(n * dtype.itemsize + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + n * dtype.itemsize].view(dtype)


def aligned_copy(values: np.ndarray, dtype: np.dtype | str | None = None) -> np.ndarray:
    """The values of a 1-D array in a new array whose data start on a cache line."""
    copy = aligned_empty(values.size, values.dtype if dtype is None else dtype)
    copy[:] = values
    return copy


def all_finite(array: np.ndarray) -> bool:
    """Whether all numbers are finite. For a large array the sum shows it, unless the sum itself overflows."""
    if array.size <= _SMALL:
        return bool(np.isfinite(array).all())
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())
