"""Arrays that start on a cache line, how much memory there is, and checks of arrays that need none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 vector
# Up to this size, np.isfinite is faster than a sum.
_SMALL = 10_000
# Memory in bytes that any machine has.
_ALWAYS_THERE = 2**28


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


def refuse_masked(argument: str, values: Any) -> None:
    """Raise a ValueError for an array of ``numpy.ma`` that has masked values: as a plain array, it would have numbers
    there."""
    if not isinstance(values, np.ma.MaskedArray) or not (masked := np.ma.getmaskarray(values)).any():
        return
    row, *column = np.argwhere(masked)[0].tolist()
    place = f"row {row}, column {column[0]}" if column else f"row {row}"
    advice = "Fill them first, with X.filled(X.mean(axis=0)), for example, or leave out their rows."
    if argument != "X":
        advice = f"Leave out such rows: ~numpy.ma.getmaskarray({argument}) tells the others."
    if argument == "y" and column and values.shape[1] > 1:
        advice = "Leave out such targets: sample_weight=~numpy.ma.getmaskarray(y)."
    if argument == "sample_weight" and column:
        advice = "Leave out such targets: sample_weight.filled(0)."
    raise ValueError(f"Input {argument} has masked values, the first in {place}. {advice}")


def total_memory() -> int | None:
    """Bytes of memory that this machine has, or that a limit of the process or of its control group (a container, say)
    allows; None if that is unknown.
    """
    try:
        import resource

        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (ImportError, ValueError, OSError):  # Windows
        return None
    own_limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if own_limit != resource.RLIM_INFINITY:
        limits.append(own_limit)
    return min([*limits, *_memory_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def control_groups(controller: str, membership: Path, mount: Path) -> Iterator[tuple[int, Path]]:
    """The version and folder of each control group of this process that may limit what ``controller`` counts.

    From its own groups up to the mount point, which is all that a container sees: any of them may set a limit.
    ``membership`` is the file that lists the process's groups, ``mount`` the folder of all groups; man 7 cgroups.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no control groups: not Linux, or /proc is not mounted
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        version, root = (1, mount / controller) if controllers else (2, mount)
        folder = root / group.lstrip("/")
        for candidate in (folder, *folder.parents):
            if candidate.is_relative_to(root):
                yield version, candidate


def _memory_limits(membership: Path, mount: Path) -> Iterator[int]:
    """The limits of control groups, as far as they can be read."""
    for version, folder in control_groups("memory", membership, mount):
        # What cannot be read: a group that is not mounted here, or not for this user; and 'max', no limit.
        with suppress(OSError, ValueError):
            yield int((folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).read_text())


def check_memory(what: str, n_bytes: int, advice: str = "Take fewer units.") -> None:
    """Raise a MemoryError if ``what`` needs more memory than there is: the system may grant it, and end the process
    later."""
    available = total_memory() if n_bytes > _ALWAYS_THERE else None
    if available is not None and n_bytes > available:
        raise MemoryError(
            f"{what} needs at least {in_words(n_bytes)} of memory, and there are {in_words(available)}. {advice}"
        )


def in_words(n_bytes: int) -> str:
    """A number of bytes in the largest unit that it fills."""
    power = min(max(n_bytes.bit_length() - 1, 0) // 10, 6)
    return f"{n_bytes / 1024**power:,.3g} {['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'][power]}"
