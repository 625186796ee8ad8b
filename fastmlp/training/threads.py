"""The number of threads for a piece of work: how many pay, how many this process may use, and one for BLAS under
L-BFGS."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from threading import RLock, get_ident
from typing import Any

import numpy as np

import fastmlp.core as core
from fastmlp.core.memory import control_groups

# Waking a thread pays from this many floating-point operations per step (or per call, in prediction). Above it, a
# training run measures whether more threads help (csrc/runtime/pace.h).
FLOPS_PER_THREAD = 500_000

_blas_lock = RLock()
_blas_users: dict[object, int] = {}  # the blocks of one_blas_thread that run now, each with its thread
_blas_limits: list[Any] = []  # the limit that the first of them has set, for the last one to undo


def step_flops(layer_sizes: tuple[int, ...], n_rows: int) -> int:
    """Operations of a training step: 2 B (2 n0 n1 + 3 n1 n2 + ...); the first layer needs no input gradient."""
    products = [fan_in * fan_out for fan_in, fan_out in pairwise(layer_sizes)]
    return 2 * n_rows * (3 * sum(products) - products[0])


def forward_flops(layer_sizes: tuple[int, ...], n_rows: int) -> int:
    """Operations of a forward pass: 2 n (n0 n1 + n1 n2 + ...)."""
    return 2 * n_rows * sum(fan_in * fan_out for fan_in, fan_out in pairwise(layer_sizes))


def choose_threads(n_jobs: int | None, flops: int) -> int:
    """Threads for work of ``flops`` operations between barriers.

    None or -1: as many as pay, within the limits of OpenMP (and thereby threadpoolctl), of the process's CPU affinity
    and cgroup quota, and of a pool, whose workers get one each. An integer: at most that many. Never more than OpenMP's
    limit.
    """
    if n_jobs is not None and n_jobs > 0:
        return min(n_jobs, core.max_threads())
    useful = flops // FLOPS_PER_THREAD
    if useful < 2:
        return 1
    return int(max(1, min(useful, core.max_threads(), available_cpus())))


def available_cpus() -> int:
    """CPUs this process may use: its affinity, and its cgroup's quota rounded up; one in a worker of a
    multiprocessing.Pool.

    The workers of a pool run side by side, and none knows their number. They are slower if each uses all cores.
    """
    if _in_pool():
        return 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(os.getpid())
    return affinity if quota is None else max(1, min(affinity, int(np.ceil(quota))))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit the process's BLAS libraries, not OpenMP, to one thread while any such block runs.

    SciPy's L-BFGS-B adds vectors: its BLAS threads gain nothing, and wait for each other on a busy machine.
    """
    user = object()
    libraries = _blas_libraries()
    try:
        with _blas_lock:
            _blas_users[user] = get_ident()
            if not _blas_limits:
                _blas_limits.append(libraries.limit(limits=1))
        yield
    finally:
        with _blas_lock:
            _blas_users.pop(user, None)
            _restore_unused_blas_limit()


def _restore_unused_blas_limit() -> None:
    """Undo the limit after the last block, in whichever thread that ends."""
    if not _blas_users and _blas_limits:
        limit = _blas_limits.pop()
        _let_any_thread_limit_blas()
        limit.restore_original_limits()
        _let_any_thread_limit_blas()


def _let_any_thread_limit_blas() -> None:
    """From 3.8 on, threadpoolctl ignores limits of threads other than the one that set the last, until that ends or
    gives way."""
    for library in _blas_libraries().lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


def _keep_own_blas_users() -> None:
    """In a forked child: its only thread goes on with the blocks that it is in; nobody ends those of other threads."""
    for user, thread in list(_blas_users.items()):
        if thread != get_ident():
            del _blas_users[user]
    _restore_unused_blas_limit()
    _blas_lock.release()


if hasattr(os, "register_at_fork"):
    # A fork waits until no other thread is entering or leaving a block: the child inherits the lock and the limit
    # whole.
    os.register_at_fork(
        before=_blas_lock.acquire, after_in_parent=_blas_lock.release, after_in_child=_keep_own_blas_users
    )


@cache
def _blas_libraries() -> Any:
    """A controller of the BLAS libraries that are loaded; to find them takes milliseconds."""
    from threadpoolctl import ThreadpoolController  # scikit-learn needs it, too

    return ThreadpoolController().select(user_api="blas")


def _in_pool() -> bool:
    """Whether this process is a pool's worker, which only its name tells, whatever the start method."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and "PoolWorker" in process.current_process().name


@lru_cache(maxsize=1)
def _cgroup_quota(pid: int) -> float | None:
    """``_read_quota`` of this process, read once in each process."""
    return _read_quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))


def _read_quota(membership: Path, mount: Path) -> float | None:
    """The quota of the control groups in CPUs, None without a limit that can be read."""
    quotas: list[float] = []
    for version, folder in control_groups("cpu", membership, mount):
        with suppress(OSError):  # a group that is not mounted here, or not for this user
            quotas.extend((_quota_v2 if version == 2 else _quota_v1)(folder))
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> Iterator[float]:
    """cpu.max: "<quota|max> <period>", microseconds."""
    quota, period = (folder / "cpu.max").read_text().split()
    if quota != "max":
        yield int(quota) / int(period)


def _quota_v1(folder: Path) -> Iterator[float]:
    """cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us."""
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    if quota > 0:
        yield quota / int((folder / "cpu.cfs_period_us").read_text())
