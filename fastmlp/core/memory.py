"""Memory: arrays whose data start on a cache line, asking for much of it beforehand, looking through it without more of it.

It refuses to know what it holds. Used by all floors above.
"""

from __future__ import annotations

import sys

import numpy as np

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 vector
# Less than this is not asked for beforehand: what allocates it says so soon enough.
_WORTH_ASKING = 2**30
# An array of so many numbers is looked through at once: a sum takes no memory, but longer to begin.
_FEW = 10_000


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


def claim_memory(n_bytes: int, purpose: str) -> None:
    """Ask for so much memory at once, and give it back: what cannot be had is refused before hours of drawing or training.

    Raises
    ------
    MemoryError
        If the system refuses; the message has ``purpose`` and the figure.
    """
    if n_bytes < _WORTH_ASKING:
        return
    try:
        if n_bytes > sys.maxsize:
            raise MemoryError
        np.empty(n_bytes, dtype=np.uint8)
    except MemoryError:
        raise MemoryError(
            f"{purpose} needs at least {n_bytes / 2**30:,.1f} GiB of memory, and could not get it."
        ) from None


def all_finite(array: np.ndarray) -> bool:
    """Whether all numbers are finite; of many, their sum says so faster and without memory, unless it overflows itself."""
    if array.size <= _FEW:
        return bool(np.isfinite(array).all())
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())
