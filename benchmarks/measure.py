"""How a benchmark measures: NumPy's time, the FMA peak, and what a case leaves in pytest-benchmark's record for
`table`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from fastmlp import core
from fastmlp.check import Outcome

# Seconds that one case may take for its rounds, on either side; and how many rounds that may be.
BUDGET = 0.25
FEWEST, MOST = 5, 200


def rounds_for(function: Callable[[], Any]) -> int:
    """Rounds of `function` that fit into BUDGET, from one call of it."""
    started = time.perf_counter()
    function()
    return int(min(max(BUDGET / (time.perf_counter() - started), FEWEST), MOST))


def median_seconds(function: Callable[[], Any]) -> float:
    """Median time of a call, after a warm-up."""
    function()
    seconds = []
    for _ in range(rounds_for(function)):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


@lru_cache
def peak_gflops(dtype: str, n_threads: int) -> float:
    """FMA peak of n_threads threads, measured once per run."""
    return float(core.peak_gflops(0.3, dtype, n_threads))


def note_agreement(
    benchmark: BenchmarkFixture, case: str, dtype: str, shape: str, n_threads: int, outcome: Outcome
) -> None:
    """Record what was compared and how far apart the two sides are; raise if that is too far."""
    assert outcome.passed, f"{case} {dtype} {shape}: {outcome}"
    benchmark.extra_info.update(case=case, dtype=dtype, shape=shape, threads=n_threads)
    benchmark.extra_info.update(error=float(outcome.error), bound=float(outcome.bound), unit=outcome.unit)


def note_speed(benchmark: BenchmarkFixture, numpy: Callable[[], Any], calls: int = 1, flops: int | None = None) -> None:
    """Record seconds per call, NumPy's, their ratio, and GFLOP/s with its share of the peak where there are `flops`.

    `calls` is how many of them one round of the benchmark made. Nothing is recorded under --benchmark-disable.
    """
    if benchmark.stats is None:
        return
    info = benchmark.extra_info
    with np.errstate(over="ignore", under="ignore"):  # numbers of all sizes are among the data
        seconds, numpy_seconds = benchmark.stats.stats.median / calls, median_seconds(numpy)
    info.update(seconds=seconds, numpy_seconds=numpy_seconds, ratio=seconds / numpy_seconds)
    if flops is not None:
        gflops = flops / seconds * 1e-9
        info.update(gflops=gflops, peak_share=gflops / peak_gflops(info["dtype"], info["threads"]))
