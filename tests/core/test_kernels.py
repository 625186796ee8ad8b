"""Every kernel on awkward sizes, offsets and strides, on every instruction set of this machine, against the reference.

Sentinels stand in fastmlp/core/_testing.pyx: outputs are filled with NaN beforehand and whatever is written outside
raises.
"""

from __future__ import annotations

import platform
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import rest_slow, tolerance
from scipy import special

from fastmlp import core, reference
from fastmlp.check import ACTIVATION_ULPS, DOMAINS, EXACT, ULPS, cases, eps_of, in_ulps, largest, training_cases
from fastmlp.core._testing import BLOCK_ROWS, MATH, Kernels

MACHINE = [(isa, dtype) for isa in core.info()["available"] for dtype in core.info()["dtypes"]]
OPERATIONS = [case.operation for case in cases()]
# (instruction set, element type, operation) of the cases that have run and passed.
PASSED: set[tuple[str, str, str]] = set()
CPUINFO = Path("/proc/cpuinfo")


@pytest.fixture(params=MACHINE, ids="-".join)
def kernels(request):
    return Kernels(*request.param)


def awkward(V: int) -> list[tuple[int, int, int]]:
    """Shapes with each of {0, 1, V-1, V, V+1, 2V+3} in each place, and around the block and chunk sizes."""
    sizes = [0, 1, V - 1, V, V + 1, 2 * V + 3]
    shapes = {(sizes[i], sizes[(i + j) % 6], sizes[(i + 2 * j + 1) % 6]) for i in range(6) for j in range(6)}
    return [
        *sorted(shapes),
        (13, BLOCK_ROWS + 1, 3),
        (257, 2 * BLOCK_ROWS, 2 * V),
        (5, 259, 4 * V + 1),
        (300, 33, 2),
        (3, 19, 1030),
    ]


@pytest.mark.parametrize("every_shape", rest_slow([False, True], False))
@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.operation)
def test_kernel_agrees_with_reference(kernels, case, every_shape):
    """In the fast set, the rows of a table (activations, losses, update rules, ...) share the shapes: each has another
    third of them."""
    shapes = awkward(kernels.vector)
    if isinstance(case.run, partial) and not every_shape:
        shapes = shapes[OPERATIONS.index(case.operation) % 3 :: 3]
    draws = np.random.RandomState(7)
    for shape in shapes:
        outcome = case.run(kernels, shape, draws)
        assert outcome.passed, f"{shape}: {outcome}"
    PASSED.add((kernels.isa, kernels.dtype, case.operation))


def instruction_sets(table: str, machine: str, cpu_flags: set[str]) -> set[str]:
    """Names of the rows of csrc/isa.def whose compiler flags all name something that the CPU has."""
    rows = re.findall(r'^ISA\((\w+), (\w+), .*"(.*)"\)$', table, re.MULTILINE)
    assert len(rows) == table.count("\nISA(")
    return {
        name
        for name, architecture, flags in rows
        if architecture in ("any", machine) and set(re.findall(r"-m(\w+)(?= |$)", flags)) <= cpu_flags
    }


def not_passed(passed: set, isas: set[str]) -> set:
    """Cases that have not passed, of those that there must be on such a machine."""
    return {(isa, dtype, name) for isa in isas for dtype in ("float32", "float64") for name in OPERATIONS} - passed


@pytest.mark.skipif(not CPUINFO.exists(), reason="reads Linux's /proc/cpuinfo")
def test_instruction_sets_all_ran(request):
    """Every operation has passed on every instruction set that the kernel of the system says this CPU has, in both
    element types."""
    if not any(getattr(item, "function", None) is test_kernel_agrees_with_reference for item in request.session.items):
        pytest.skip("no kernel was to be tested in this session")
    table = (Path(__file__).parents[2] / "csrc" / "isa.def").read_text()
    flags = set(re.search(r"^(?:flags|Features)\s*: (.*)$", CPUINFO.read_text(), re.MULTILINE)[1].split())
    isas = instruction_sets(table, platform.machine(), flags)
    assert isas == set(core.info()["available"])
    assert not_passed(PASSED, isas) == set()


def test_an_instruction_set_that_did_not_run_is_noticed():
    """A set that is left out, one case that is left out, and a CPU that has less."""
    table = '\nISA(wide, x86_64, f(), 64, "-mavx512f -mfma -mprefer-vector-width=512")\nISA(base, any, 1, 16, "")\n'
    assert instruction_sets(table, "x86_64", {"avx512f", "fma", "sse2"}) == {"wide", "base"}
    assert instruction_sets(table, "x86_64", {"avx512f"}) == {"base"}
    assert instruction_sets(table, "aarch64", {"avx512f", "fma"}) == {"base"}
    everything = not_passed(set(), {"wide", "base"})
    assert len(everything) == 4 * len(OPERATIONS)
    assert not_passed(everything, {"wide", "base"}) == set()
    assert {isa for isa, *_ in not_passed(not_passed(set(), {"base"}), {"wide", "base"})} == {"wide"}
    one = min(everything)
    assert not_passed(everything - {one}, {"wide", "base"}) == {one}


@pytest.mark.parametrize("case", list(training_cases()), ids=lambda case: case.operation)
def test_training_agrees_with_reference(case):
    outcome = case.run(Kernels(core.info()["isa"], "float64"), (0, 0, 0), np.random.RandomState(3))
    assert outcome.passed, outcome


@pytest.mark.parametrize("n", rest_slow([10_000, 50_000], 10_000))
@pytest.mark.parametrize("name", MATH)
def test_math_error_is_within_stated_ulps(kernels, name, n):
    draws = np.random.RandomState(0)
    x = np.concatenate([draws.uniform(-r, r, n) for r in (1e-4, 0.7, 3, 20, 87, 740)]).astype(kernels.dtype)
    x = np.exp(np.clip(x, -80, 80)) if name == "log" else DOMAINS.get(name, np.array)(x)
    with np.errstate(over="ignore", under="ignore"):
        assert in_ulps(kernels.math(name, x), EXACT[name](x.astype(np.longdouble)).astype(np.longdouble)) <= ULPS[name]


@pytest.mark.parametrize("name", MATH)
def test_math_specials(kernels, name):
    tiny = np.finfo(kernels.dtype).smallest_subnormal
    x = {
        "expm1": [-np.inf, np.nan, 0.0, -0.0, -1.0, -tiny, -1e30],
        "log1p": [np.nan, 0.0, -0.0, 1.0, tiny],
    }.get(name, [np.inf, -np.inf, np.nan, 0.0, -0.0, -1.0, tiny, 1e30, -1e30])
    want = {
        "exp": [np.inf, 0, np.nan, 1, 1, np.exp(-1.0), 1, np.inf, 0],
        "log": [np.inf, np.nan, np.nan, -np.inf, -np.inf, np.nan, np.log(tiny), np.log(1e30), np.nan],
        "tanh": [1, -1, np.nan, 0, 0, np.tanh(-1.0), tiny, 1, -1],
        "logistic": [1, 0, np.nan, 0.5, 0.5, 1 / (1 + np.e), 0.5, 1, 0],
        "expm1": [-1, np.nan, 0, 0, np.expm1(-1.0), -tiny, -1],
        "log1p": [np.nan, 0, 0, np.log(2.0), tiny],
    }[name]
    got = kernels.math(name, x)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite & ~np.isnan(want)], np.array(want)[~finite & ~np.isnan(want)])
    assert in_ulps(got[finite], np.array(want, np.longdouble)[finite]) <= 2 * ULPS[name]


# Arguments that an activation treats apart: special values, and the ends of the exponential functions' ranges.
SPECIAL = [
    0.0,
    1e-30,
    0.5,
    1.0,
    14.5,
    20.0,
    38.7,
    40.0,
    88.8,
    103.9,
    104.0,
    150.0,
    709.8,
    745.2,
    746.0,
    1e4,
    1e30,
    np.inf,
]


@pytest.mark.parametrize("name", core.ACTIVATIONS)
def test_activation_specials(kernels, name):
    """NaN stays, infinity gives the limit, and no finite x gives NaN; the same for the slopes."""
    limits = np.finfo(kernels.dtype)
    sizes = [
        *SPECIAL,
        limits.smallest_subnormal,
        3 * limits.smallest_subnormal,
        limits.tiny / 3,
        limits.tiny,
        limits.max / 2,
    ]
    x = np.array([np.nan, *sizes, *(-size for size in sizes)], kernels.dtype)
    f, slope = reference.ACTIVATIONS[name]
    wide = x.astype(np.longdouble)
    want, want_slope = f(wide).astype(np.longdouble), slope(wide, f(wide)).astype(np.longdouble)
    got, got_slope = kernels.activation(name, x), kernels.derivative(name, np.ones_like(x), x)
    assert np.isnan(got).tolist() == [True] + [False] * (len(x) - 1)
    assert in_ulps(got[1:], want[1:], 1e3 * float(limits.tiny)) <= ACTIVATION_ULPS
    np.testing.assert_array_equal(np.isnan(got_slope), np.isnan(want_slope))
    assert largest(got_slope[1:] - want_slope[1:], eps_of(kernels)) <= ACTIVATION_ULPS
    ends = np.array([limits.max, -limits.max], kernels.dtype)
    assert not np.isnan(kernels.activation(name, ends)).any()
    assert np.isfinite(kernels.derivative(name, np.ones_like(ends), ends)).all()


@pytest.mark.parametrize("n", rest_slow([2_000, 50_000], 2_000))
@pytest.mark.parametrize("name", core.ACTIVATIONS)
def test_activation_error_is_within_stated_ulps(kernels, name, n):
    """Values and slopes where the functions change, and far out on both sides."""
    draws = np.random.RandomState(0)
    x = np.concatenate([draws.uniform(-r, r, n) for r in (1e-4, 0.7, 3, 15, 40, 110, 760)]).astype(kernels.dtype)
    wide = x.astype(np.longdouble)
    f, slope = reference.ACTIVATIONS[name]
    want = f(wide)
    assert in_ulps(kernels.activation(name, x), want, 1e3 * float(np.finfo(kernels.dtype).tiny)) <= ACTIVATION_ULPS
    got_slope = kernels.derivative(name, np.ones_like(x), x)
    assert largest(got_slope - slope(wide, want), eps_of(kernels)) <= ACTIVATION_ULPS


# With SciPy's functions, in float64: an opinion from outside on kernels and reference.
KNOWN = {
    "elu": lambda x: np.where(x > 0, x, special.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * special.ndtr(x),
    "silu": lambda x: x * special.expit(x),
    "softplus": lambda x: np.maximum(x, 0) + special.log1p(np.exp(-np.abs(x))),
    "mish": lambda x: x * np.tanh(special.log1p(np.exp(x))),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("isa", core.info()["available"])
def test_activation_is_scipys(isa, name):
    """Relative to the value, tails included; SciPy's exp(-x^2 / 2) has the rounding error of x^2."""
    x = np.linspace(-37, 37, 10_001)
    want, n = KNOWN[name](x), 2 + x * x / 2
    for got in (Kernels(isa, "float64").activation(name, x), reference.ACTIVATIONS[name][0](x.astype(np.longdouble))):
        assert largest(got - want, n * tolerance("float64", 1) * np.abs(want)) <= 1


@pytest.mark.parametrize(("rows", "units"), [(9, 11), (40, 1), (40, 2), (40, 3)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_input_reaches_its_row_and_no_other(kernels, bad, rows, units):
    draws = np.random.RandomState(1)
    x, W, b = draws.standard_normal((rows, 21)), draws.standard_normal((21, units)), draws.standard_normal(units)
    clean, _ = kernels.forward(x, W, b, "tanh")
    x[4, 20] = bad
    y, z = kernels.forward(x, W, b, "tanh")
    assert not np.isfinite(z[4]).any()
    np.testing.assert_array_equal(np.delete(y, 4, axis=0), np.delete(clean, 4, axis=0))


def test_every_name_has_an_oracle():
    assert set(core.ACTIVATIONS) == set(reference.ACTIVATIONS)
    assert set(core.OUTPUTS) == set(reference.OUTPUTS)
    assert {name: row[0] for name, row in reference.LOSSES.items()} == core.LOSSES
    assert {name: row[0] for name, row in reference.OPTIMIZERS.items()} == core.OPTIMIZERS


def test_instruction_sets_with_fma_agree_bit_for_bit():
    fused = [isa for isa in core.info()["available"] if isa != "base"]
    if len(fused) < 2:
        pytest.skip(f"one instruction set with FMA on this CPU: {fused}")
    for dtype in core.info()["dtypes"]:
        results = []
        for isa in fused:
            draws, K = np.random.RandomState(5), Kernels(isa, dtype)
            x, W, b = draws.standard_normal((37, 301)), draws.standard_normal((301, 45)), draws.standard_normal(45)
            dz = draws.standard_normal((37, 45))
            results.append([*K.forward(x, W, b, "tanh"), K.backward(dz, W, x, "logistic")])
            results[-1] += [K.math(name, DOMAINS.get(name, np.abs)(x)) for name in MATH]
            results[-1] += [K.activation(name, 9 * x.ravel()) for name in core.ACTIVATIONS]
            results[-1] += [K.derivative(name, x.ravel(), 9 * x.ravel()) for name in core.ACTIVATIONS]
        for other in results[1:]:
            for mine, theirs in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("rows", rest_slow([1, 7, 16, 33, 70, 300], 7, 300))
@pytest.mark.parametrize("fan_in", rest_slow([1, 3, 31, 64, 261], 3, 261))
def test_few_columns_have_the_bits_of_many(kernels, rows, fan_in):
    """A layer of few units is computed the other way round; its numbers are those it has as part of a wide layer."""
    draws, wide = np.random.RandomState(rows), 2 * kernels.panel
    x, W, b = draws.standard_normal((rows, fan_in)), draws.standard_normal((fan_in, wide)), draws.standard_normal(wide)
    dz, moments = draws.standard_normal((rows, wide)), [0.1 * W, W * W]
    of_b = [0.1 * b, b * b]

    def results(units, micro_batches):
        state = [m[:, :units] for m in moments], [m[:units] for m in of_b]
        y, _ = kernels.forward(x, W[:, :units], b[:units], "tanh")
        W_new, b_new, W_state, b_state, _ = kernels.update(
            "adam",
            x,
            dz[:, :units],
            W[:, :units],
            b[:units],
            *state,
            t=2,
            weight_sum=rows,
            l2=0.1,
            micro_batches=micro_batches,
        )
        return [y, W_new, b_new, *W_state, *b_state]

    for micro_batches in {1, min(3, rows)}:
        many = results(wide, micro_batches)
        for units in [*range(1, kernels.panel), kernels.panel + 1]:
            for few, all_units in zip(results(units, micro_batches), many, strict=True):
                np.testing.assert_array_equal(
                    few, all_units[..., :units], err_msg=f"{units} units, {micro_batches} parts"
                )
