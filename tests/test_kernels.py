"""Every kernel on awkward sizes, offsets and strides, on every instruction set of this machine, against the reference.

Sentinels stand in fastmlp/_kernels.pyx: outputs are filled with NaN beforehand and whatever is written outside raises.
"""

from __future__ import annotations

import numpy as np
import pytest

from fastmlp import _core, reference
from fastmlp._kernels import BLOCK_ROWS, MATH, Kernels
from fastmlp.check import ULPS, cases, in_ulps, training_cases

MACHINE = [(isa, dtype) for isa in _core.info()["available"] for dtype in _core.info()["dtypes"]]
MISSING = [isa for isa in _core.info()["built"] if isa not in _core.info()["available"]]


@pytest.fixture(params=MACHINE, ids="-".join)
def kernels(request):
    return Kernels(*request.param)


def test_instruction_sets_all_ran():
    if MISSING:
        pytest.skip(f"built, but this CPU lacks: {', '.join(MISSING)}")


def awkward(V: int) -> list[tuple[int, int, int]]:
    """Shapes with each of {0, 1, V-1, V, V+1, 2V+3} in each place, and around the block and chunk sizes."""
    sizes = [0, 1, V - 1, V, V + 1, 2 * V + 3]
    shapes = {(sizes[i], sizes[(i + j) % 6], sizes[(i + 2 * j + 1) % 6]) for i in range(6) for j in range(6)}
    return [*sorted(shapes), (13, BLOCK_ROWS + 1, 3), (257, 2 * BLOCK_ROWS, 2 * V), (5, 259, 4 * V + 1), (300, 33, 2), (3, 19, 1030)]


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.operation)
def test_kernel_agrees_with_reference(kernels, case):
    draws = np.random.RandomState(7)
    for shape in awkward(kernels.vector):
        outcome = case.run(kernels, shape, draws)
        assert outcome.passed, f"{shape}: {outcome}"


@pytest.mark.parametrize("case", list(training_cases()), ids=lambda case: case.operation)
def test_training_agrees_with_reference(case):
    outcome = case.run(Kernels(_core.info()["isa"], "float64"), (0, 0, 0), np.random.RandomState(3))
    assert outcome.passed, outcome


@pytest.mark.parametrize("name", MATH)
def test_math_error_is_within_stated_ulps(kernels, name):
    exact = {"exp": np.exp, "log": np.log, "tanh": np.tanh, "logistic": reference.logistic}[name]
    draws = np.random.RandomState(0)
    x = np.concatenate([draws.uniform(-r, r, 50_000) for r in (1e-4, 0.7, 3, 20, 87, 740)]).astype(kernels.dtype)
    x = np.exp(np.clip(x, -80, 80)) if name == "log" else x
    with np.errstate(over="ignore", under="ignore"):
        assert in_ulps(kernels.math(name, x), exact(x.astype(np.longdouble)).astype(np.longdouble)) <= ULPS[name]


@pytest.mark.parametrize("name", MATH)
def test_math_specials(kernels, name):
    tiny = np.finfo(kernels.dtype).smallest_subnormal
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, -1.0, tiny, 1e30, -1e30], kernels.dtype)
    want = {
        "exp": [np.inf, 0, np.nan, 1, 1, np.exp(-1.0), 1, np.inf, 0],
        "log": [np.inf, np.nan, np.nan, -np.inf, -np.inf, np.nan, np.log(tiny), np.log(1e30), np.nan],
        "tanh": [1, -1, np.nan, 0, 0, np.tanh(-1.0), tiny, 1, -1],
        "logistic": [1, 0, np.nan, 0.5, 0.5, 1 / (1 + np.e), 0.5, 1, 0],
    }[name]
    got = kernels.math(name, x)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite & ~np.isnan(want)], np.array(want)[~finite & ~np.isnan(want)])
    assert in_ulps(got[finite], np.array(want, np.longdouble)[finite]) <= 2 * ULPS[name]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_input_reaches_its_row_and_no_other(kernels, bad):
    draws = np.random.RandomState(1)
    x, W, b = draws.standard_normal((9, 21)), draws.standard_normal((21, 11)), draws.standard_normal(11)
    clean, _ = kernels.forward(x, W, b, "tanh")
    x[4, 20] = bad
    y, z = kernels.forward(x, W, b, "tanh")
    assert not np.isfinite(z[4]).any()
    np.testing.assert_array_equal(np.delete(y, 4, axis=0), np.delete(clean, 4, axis=0))


def test_every_name_has_an_oracle():
    assert set(_core.ACTIVATIONS) == set(reference.ACTIVATIONS)
    assert set(_core.OUTPUTS) == set(reference.OUTPUTS)
    assert {name: row[0] for name, row in reference.LOSSES.items()} == _core.LOSSES
    assert {name: row[0] for name, row in reference.OPTIMIZERS.items()} == _core.OPTIMIZERS


def test_instruction_sets_with_fma_agree_bit_for_bit():
    fused = [isa for isa in _core.info()["available"] if isa != "base"]
    if len(fused) < 2:
        pytest.skip(f"one instruction set with FMA on this CPU: {fused}")
    for dtype in _core.info()["dtypes"]:
        results = []
        for isa in fused:
            draws, K = np.random.RandomState(5), Kernels(isa, dtype)
            x, W, b = draws.standard_normal((37, 301)), draws.standard_normal((301, 45)), draws.standard_normal(45)
            dz = draws.standard_normal((37, 45))
            results.append([*K.forward(x, W, b, "tanh"), K.backward(dz, W, x, "logistic")])
            results[-1] += [K.math(name, np.abs(x)) for name in MATH]
        for other in results[1:]:
            for mine, theirs in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(mine, theirs)
