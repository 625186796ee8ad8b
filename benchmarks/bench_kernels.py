"""Each kernel of the chosen instruction set, on one thread, beside NumPy on one thread: agreement and time in one case.

The cases are fastmlp.check's, which are made from the tables of the C code. All of them run on the first layer of the
first workload, and the matrix products also on every layer of every workload. A kernel's time is the kernel's alone:
`_kernels.clock` counts nothing else, so the guarded buffers and conversions around a call do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from threadpoolctl import threadpool_limits

from benchmarks.calls import Recorder
from benchmarks.measure import note_agreement, note_speed, rounds_for
from benchmarks.workloads import WORKLOADS
from fastmlp import core
from fastmlp.check import Case, cases
from fastmlp.core._testing import Kernels, clock

Shape = tuple[int, int, int]
PRODUCTS = {"weight gradient", *(f"{way} {w.activation}" for way in ("forward", "backward") for w in WORKLOADS)}


def measurements() -> Iterator[tuple[Case, str, Shape]]:
    """(case, element type, (B, I, O))."""
    usual = (WORKLOADS[0].batch_size, *WORKLOADS[0].layers[0])
    for dtype in core.info()["dtypes"]:
        for case in cases():
            yield case, dtype, usual
    layers = dict.fromkeys((w.batch_size, *layer) for w in WORKLOADS for layer in w.layers)
    for case in cases():
        if case.operation in PRODUCTS:
            yield from ((case, "float32", shape) for shape in layers if shape != usual)


def label(value: Case | str | Shape) -> str:
    """A parameter in a test's name."""
    if isinstance(value, Case):
        return value.operation
    return value if isinstance(value, str) else "x".join(map(str, value))


@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize(("case", "dtype", "shape"), list(measurements()), ids=label)
def test_kernel_beside_numpy(benchmark: BenchmarkFixture, case: Case, dtype: str, shape: Shape) -> None:
    recorder = Recorder(Kernels(core.info()["isa"], dtype))
    outcome = case.run(cast(Kernels, recorder), shape, np.random.RandomState(0))
    note_agreement(benchmark, case.operation, dtype, label(shape), 1, outcome)
    call = recorder.recorded
    assert call is not None
    benchmark.pedantic(call, rounds=rounds_for(call), warmup_rounds=2)
    with threadpool_limits(1):
        note_speed(benchmark, call.counterpart(), flops=call.flops)
