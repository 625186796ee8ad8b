"""Initial weights and biases: the reference's to the bit, their statistics, what users may hand in."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import name_of, tolerance, varied

from fastmlp import Network, reference
from fastmlp.network.initialisers import BIAS_INITIALISERS, PAIRS, WEIGHT_INITIALISERS, data_driven

SIZES = (7, 13, 13, 5, 3)
ACTIVATIONS = ("logistic", "tanh", "relu")


def ramp(fan_in, fan_out, rng):
    """A user's weights: some of them drawn, not all in float64."""
    return np.arange(fan_in * fan_out, dtype=np.float32).reshape(fan_in, fan_out) + rng.normal(size=(1, fan_out))


def ones(fan_in, fan_out, rng):
    """A user's biases, integers."""
    return np.arange(fan_out) + fan_in


RULES_FOR_BOTH = [*BIAS_INITIALISERS, ("normal", 0.3), ("uniform", 2), ("constant", -0.25)]
PAIRED = [(rule, "auto") for rule in [*WEIGHT_INITIALISERS, *RULES_FOR_BOTH[-3:], ramp]]
PAIRED += [("auto", rule) for rule in [*RULES_FOR_BOTH, ones]]
PAIRED += [("orthogonal", ("constant", 0.0)), (ramp, ones)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make_rng", [np.random.RandomState, np.random.default_rng], ids=["RandomState", "Generator"])
@pytest.mark.parametrize(("weight_init", "bias_init"), PAIRED, ids=name_of)
def test_parameters_are_the_references(weight_init, bias_init, make_rng, dtype):
    """Same generator, same bits, in the same order; drawn in float64 and rounded afterwards."""
    coefs, intercepts = reference.initialise(SIZES, ACTIVATIONS, make_rng(3), weight_init, bias_init)
    net = Network(
        SIZES, ACTIVATIONS, dtype=dtype, random_state=make_rng(3), weight_init=weight_init, bias_init=bias_init
    )
    for got, expected in zip(net.coefs + net.intercepts, coefs + intercepts, strict=True):
        # Orthogonal weights are computed, not only drawn, and the reference sums in another order.
        if weight_init == "orthogonal" and got.ndim == 2:
            assert np.abs(got - expected).max() <= tolerance(dtype, max(got.shape))
        else:
            assert np.array_equal(got, expected.astype(dtype))


def test_auto_is_what_it_was():
    """The first numbers that seed 0 gave before there was a choice."""
    net = Network((2, 3, 1), "logistic", dtype="float64", random_state=0)
    draws, expected = np.random.RandomState(0), []
    for fan_in, fan_out in ((2, 3), (3, 1)):
        bound = np.sqrt(2 / (fan_in + fan_out))
        expected.append((draws.uniform(-bound, bound, (fan_in, fan_out)), draws.uniform(-bound, bound, fan_out)))
    assert all(map(np.array_equal, net.coefs, [W for W, _ in expected]))
    assert all(map(np.array_equal, net.intercepts, [b for _, b in expected]))


I, O = 300, 500
# Distribution and variance of the weights of a wide relu layer.
VARIANCES = {
    "auto": ("uniform", 2 / (I + O)),
    "glorot_uniform": ("uniform", 2 / (I + O)),
    "glorot_normal": ("normal", 2 / (I + O)),
    "he_uniform": ("uniform", 2 / I),
    "he_normal": ("normal", 2 / I),
    "lecun_normal": ("normal", 1 / I),
    "orthogonal": ("normal", 1 / O),
    ("normal", 0.3): ("normal", 0.09),
    ("uniform", 0.3): ("uniform", 0.03),
}


@pytest.mark.parametrize("rule", VARIANCES, ids=str)
def test_weights_have_their_variance(rule):
    """Mean 0 and the variance of the paper, within five standard errors; bounded if uniform, with tails if normal."""
    distribution, variance = VARIANCES[rule]
    W = Network((I, O, 2), "relu", dtype="float64", random_state=1, weight_init=rule).coefs[0]
    n, furthest = W.size, np.abs(W).max() / np.sqrt(variance)
    assert abs(W.mean()) < 5 * np.sqrt(variance / n)
    assert abs(W.var() / variance - 1) < 5 * np.sqrt(2 / n)
    assert furthest <= np.sqrt(3) if distribution == "uniform" else furthest > 4


def test_variances_cover_every_name():
    """No name goes without its statistics."""
    assert set(WEIGHT_INITIALISERS) == {rule for rule in VARIANCES if isinstance(rule, str)}


@pytest.mark.parametrize("rule", [rule for rule in VARIANCES if rule != "orthogonal"], ids=str)
def test_biases_take_their_layers_sizes(rule):
    """A bias has the variance of its layer's weights."""
    b = Network((30, 5_000), "relu", dtype="float64", random_state=2, bias_init=rule).intercepts[0]
    W = Network((30, 5_000), "relu", dtype="float64", random_state=2, weight_init=rule).coefs[0]
    assert abs(b.var() / W.var() - 1) < 5 * np.sqrt(2 / b.size)


@pytest.mark.parametrize(("fan_in", "fan_out"), [(150, 150), (130, 64), (65, 90), (1, 5), (5, 1), (1, 1)])
def test_orthogonal_is_orthogonal(fan_in, fan_out):
    """W^T W = 1, or W W^T = 1 if there are fewer rows than columns; the reference agrees, beyond a block of columns
    too."""
    W = Network((fan_in, fan_out), dtype="float64", random_state=0, weight_init="orthogonal").coefs[0]
    expected = reference.orthogonal(fan_in, fan_out, np.random.RandomState(0))
    assert np.abs(W - expected).max() <= tolerance("float64", max(fan_in, fan_out))
    product = W.T @ W if fan_in >= fan_out else W @ W.T
    assert np.abs(product - np.eye(min(fan_in, fan_out))).max() <= tolerance("float64", max(fan_in, fan_out))


def test_orthogonal_has_no_preferred_sign():
    """Every entry is negative as often as positive, and so is the determinant: a bare QR factorisation is not so."""
    draws = varied(
        np.array(
            [
                Network((3, 3), dtype="float64", random_state=seed, weight_init="orthogonal").coefs[0]
                for seed in range(400)
            ]
        )
    )
    for values in (draws, np.linalg.det(draws)):
        assert np.abs((values > 0).mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(400)
    assert np.abs((draws**2).mean(axis=0) - 1 / 3).max() < 5 * np.sqrt(4 / 45 / 400)


def test_orthogonal_has_the_same_bits_for_any_blas():
    """LAPACK's factorisation would change with the number of threads and with the processor."""
    program = (
        "import hashlib; from fastmlp import Network\n"
        "net = Network((200, 150), dtype='float64', random_state=0, weight_init='orthogonal')\n"
        "print(hashlib.sha256(net.parameters.tobytes()).hexdigest())"
    )
    digests = set()
    for settings in ({"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell"}, {"OPENBLAS_NUM_THREADS": "3"}):
        done = subprocess.run(
            [sys.executable, "-P", "-c", program],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_given_parameters_are_not_drawn():
    """Nothing is drawn beside given parameters, but the names are checked."""
    rng = np.random.RandomState(0)
    net = Network((2, 2), parameters=np.arange(6), random_state=rng, weight_init="he_normal")
    assert net.parameters.tolist() == list(range(6))
    assert rng.uniform() == np.random.RandomState(0).uniform()
    with pytest.raises(ValueError, match="weight_init must be"):
        Network((2, 2), parameters=np.arange(6), weight_init="he")


@pytest.mark.parametrize("argument", ["weight_init", "bias_init"])
@pytest.mark.parametrize(
    "value",
    [
        "glorot", None, 0.1, ("normal",), ("normal", -0.1), ("normal", np.nan), ("uniform", np.inf), ("uniform", -1),
        ("constant", np.inf), ("constant", "1"), ("constant", True), ("gamma", 1.0), ("normal", 0.0, 0.1), ([], 1.0),
    ],
    ids=str,
)  # fmt: skip
def test_initialisers_refuse(value, argument):
    """The error names the argument, what it may be and what it was."""
    with pytest.raises(ValueError, match=f"^{argument} must be one of .*'he_uniform'.*a callable") as raised:
        Network((2, 3), **{argument: value})
    message = str(raised.value).removesuffix(" Did you mean 'glorot_uniform'?")
    assert ("Did you mean" in str(raised.value)) == (value == "glorot")
    assert message.endswith(f"got {value!r}.")
    assert all(f"('{name}', " in message for name in PAIRS)
    assert ("orthogonal" in message) == (argument == "weight_init")


def test_orthogonal_is_for_weights():
    """There is no orthogonal vector to draw."""
    with pytest.raises(ValueError, match="bias_init must be one of"):
        Network((2, 3), bias_init="orthogonal")


@pytest.mark.parametrize(
    ("argument", "returned", "message"),
    [
        (
            "weight_init",
            np.zeros((3, 2)),
            r"weight_init must return real numbers of shape \(2, 3\) .*, got \(3, 2\) of float64",
        ),
        ("weight_init", 0.5, r"weight_init must return .* got \(\) of float64"),
        ("weight_init", None, "weight_init must return .* of object"),
        ("weight_init", np.zeros((2, 3), complex), "weight_init must return .* of complex128"),
        (
            "weight_init",
            np.full((2, 3), np.nan),
            "weight_init must return numbers that are finite in float32, got nan for fan_in=2",
        ),
        ("weight_init", np.full((2, 3), 1e300), "weight_init must return numbers that are finite in float32, got inf"),
        ("bias_init", np.zeros((1, 3)), r"bias_init must return real numbers of shape \(3,\) .*, got \(1, 3\)"),
        ("bias_init", [0, 0, -np.inf], "bias_init must return numbers that are finite in float32, got -inf"),
    ],
)
def test_users_draw_is_checked(argument, returned, message):
    """Shape, type and finiteness of what a callable returns."""
    with pytest.raises(ValueError, match=message):
        Network((2, 3), **{argument: lambda fan_in, fan_out, rng: returned})


def test_pair_is_checked_in_the_networks_type():
    """A number that float32 does not hold."""
    assert Network((2, 3), dtype="float64", bias_init=("constant", 1e300)).intercepts[0][0] == 1e300
    with pytest.raises(ValueError, match="bias_init must return numbers that are finite in float32"):
        Network((2, 3), bias_init=("constant", 1e300))


def test_data_driven_values_are_the_references():
    """From the same draws, layer by layer; each unit's product has a standard deviation of 1, and changes its sign
    among the rows."""
    X, sizes = np.random.RandomState(1).standard_normal((50, 4)), (4, 7, 5, 2)
    coefs, intercepts = data_driven(sizes, ("tanh", "selu"), X, np.random.RandomState(0))
    rng, x = np.random.RandomState(0), X
    for layer, (W, b) in enumerate(zip(coefs, intercepts, strict=True)):
        fan_in, fan_out = W.shape
        drawn = rng.normal(0.0, fan_in**-0.5, (fan_in, fan_out))
        rows, shares = rng.randint(50, size=(fan_out, 5)), rng.exponential(size=(fan_out, 5))
        expected = reference.data_driven(x, drawn, rows, shares / shares.sum(axis=1, keepdims=True))
        assert np.abs(W - expected[0]).max() <= tolerance("float64", 50, 10)
        assert np.abs(b - expected[1]).max() <= tolerance("float64", 50, 10)
        z = x @ W + b
        np.testing.assert_allclose(z.std(axis=0), 1)
        assert (z.min(axis=0) <= 0).all()
        assert (z.max(axis=0) >= 0).all()
        x = reference.ACTIVATIONS[("tanh", "selu", "identity")[layer]][0](z)
