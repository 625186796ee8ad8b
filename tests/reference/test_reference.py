"""The reference itself: its derivatives against differences, its rules by hand; and the core's tables against it."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import DIFFERENCE_STEP, difference_tolerance, tolerance, varied

from fastmlp import core, reference
from fastmlp.network.initialisers import BIAS_INITIALISERS, WEIGHT_INITIALISERS
from fastmlp.training.schedules import CURVES

EPS = np.finfo(np.float64).eps


def away_from_kinks(rng, shape):
    """Values with |x| in [0.1, 3.1]: differences of step 1e-5 do not cross 0."""
    return varied(rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 3.1, shape))


def test_names_are_the_cores():
    """Every name has an oracle and every oracle a name."""
    assert set(reference.ACTIVATIONS) == set(core.ACTIVATIONS)
    assert set(reference.OUTPUTS) == set(core.OUTPUTS)
    assert {name: row[0] for name, row in reference.LOSSES.items()} == dict(core.LOSSES)
    assert {name: row[0] for name, row in reference.OPTIMIZERS.items()} == dict(core.OPTIMIZERS)
    assert set(reference.SCHEDULES) == set(CURVES)
    assert {*reference.INITIALISERS, "auto"} == set(BIAS_INITIALISERS)
    assert {*BIAS_INITIALISERS, "orthogonal"} == set(WEIGHT_INITIALISERS)


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_activation_derivative(name, rng):
    """derivative(x, y) is the slope of forward(x)."""
    forward, derivative = reference.ACTIVATIONS[name]
    x, h = away_from_kinks(rng, 200), DIFFERENCE_STEP
    slope = (forward(x + h) - forward(x - h)) / (2 * h)
    assert np.abs(derivative(x, forward(x)) - slope).max() < difference_tolerance(1.0)


def targets_for(loss, rng, n, n_out):
    """Targets that the loss is defined for."""
    output = reference.LOSSES[loss][0]
    if output == "softmax":
        return varied(rng.randint(0, n_out, n))
    if output == "logistic":
        return varied(rng.randint(0, 2, (n, n_out)).astype(np.float64))
    return varied(rng.poisson(2.0, (n, n_out)).astype(np.float64))


@pytest.mark.parametrize("loss", reference.LOSSES)
def test_loss_derivative(loss, rng):
    """dz(y, a) is the slope of value(y, output(z)) in each z."""
    output, value, dz = reference.LOSSES[loss]
    f, h = reference.OUTPUTS[output], DIFFERENCE_STEP
    z = away_from_kinks(rng, (9, 4))
    y = targets_for(loss, rng, 9, 4)
    gradient = dz(y, f(z))
    for j in range(4):
        e = h * (np.arange(4) == j)
        slope = (value(y, f(z + e), EPS) - value(y, f(z - e), EPS)) / (2 * h)
        assert np.abs(gradient[:, j] - slope).max() < difference_tolerance(np.exp(3.1))


def test_loss_clips_value_not_gradient():
    """A certain and wrong answer costs -log eps, and its gradient is not cut."""
    a = np.array([[1.0, 0.0]])
    y = np.array([1])
    assert reference.log_loss(y, a, EPS)[0] == -np.log(EPS)
    assert np.array_equal(reference.log_loss_dz(y, a), [[1.0, -1.0]])


@pytest.mark.parametrize("sample_weight", [None, "random"])
@pytest.mark.parametrize("loss", reference.LOSSES)
def test_loss_gradient(loss, sample_weight, rng):
    """The gradient of the penalised loss, along random directions."""
    activations, sizes = ["tanh", "logistic"], (5, 6, 4, 3)
    coefs, intercepts = reference.initialise(sizes, "tanh", rng)
    X = varied(rng.standard_normal((11, 5)))
    y = targets_for(loss, rng, 11, 3)
    s = None if sample_weight is None else rng.uniform(0.1, 2.0, 11)
    method = reference.Method(alpha=0.3, l1_ratio=0.4)

    def found(parameters):
        return reference.gradients(reference.Model(parameters[:3], parameters[3:]), activations, loss, X, y, s, method)

    def value(step):
        return found([w + step * d for w, d in zip(coefs + intercepts, directions, strict=True)]).loss

    gradient = found(coefs + intercepts).parameters
    for _ in range(5):
        directions = [rng.standard_normal(w.shape) for w in coefs + intercepts]
        slope = (value(DIFFERENCE_STEP) - value(-DIFFERENCE_STEP)) / (2 * DIFFERENCE_STEP)
        along = sum((g * d).sum() for g, d in zip(gradient, directions, strict=True))
        size = sum((d * d).sum() for d in directions)
        assert abs(slope - along) < difference_tolerance(size**1.5)


def test_gradient_of_the_inputs_scale(rng):
    """Along random directions of weights, biases and scale."""
    coefs, intercepts = reference.initialise((5, 6, 3), "tanh", rng)
    X, y, scale = rng.standard_normal((11, 5)), rng.randint(0, 3, 11), rng.uniform(0.5, 2.0, 5)
    at = [*coefs, *intercepts, scale]

    def found(parameters):
        model = reference.Model(parameters[:2], parameters[2:4], input_scale=parameters[4:])
        return reference.gradients(model, ["tanh"], "log_loss", X, y)

    for _ in range(5):
        directions = [rng.standard_normal(w.shape) for w in at]
        low, high = (found([w + h * d for w, d in zip(at, directions, strict=True)]).loss for h in (-1e-5, 1e-5))
        along = sum((g * d).sum() for g, d in zip(found(at).parameters, directions, strict=True))
        assert abs((high - low) / 2e-5 - along) < difference_tolerance(sum((d * d).sum() for d in directions) ** 1.5)


def test_penalty_ignores_sign_at_zero():
    """The L1 part has no slope at W = 0, the L2 part alone gives alpha W."""
    W = np.array([[0.0, 2.0]])
    assert np.array_equal(reference.penalty_gradient(W, reference.Method(alpha=0.5, l1_ratio=1.0)), [[0.0, 0.5]])
    assert np.array_equal(reference.penalty_gradient(W, reference.Method(alpha=0.5)), [[0.0, 1.0]])


HYPER = reference.Hyper(
    learning_rate=0.5, momentum=0.5, beta_1=0.5, beta_2=0.75, epsilon=0.25, rho=0.5, weight_decay=0.25
)
# Parameter after the second of two steps from w = 1 with gradients 1 and 2, worked out from the rules' formulas. A
# check of the oracle itself, for the rules that the interface promises.
BY_HAND = {
    "gradient": 1.0,
    "sgd": 1 - 0.5 * (1 + 2),
    "sgd_momentum": 1 + (-0.5) + (0.5 * -0.5 - 1),
    "sgd_nesterov": 1 + (0.5 * -0.5 - 0.5) + (0.5 * (0.5 * -0.5 - 1) - 1),
    "momentum": 1 - 0.5 * 0.5 - 0.5 * (0.5 * 0.5 + 0.5 * 2),
    "adagrad": 1 - 0.5 / 1.25**0.5 - 0.5 * 2 / 5.25**0.5,
    "rmsprop": 1 - 0.5 / 0.75**0.5 - 0.5 * 2 / (0.25 + 2 + 0.25) ** 0.5,
    "adam": 1
    - 0.5 * 0.25**0.5 / 0.5 * 0.5 / (0.25**0.5 + 0.25)
    - 0.5 * (1 - 0.75**2) ** 0.5 / 0.75 * 1.25 / (1.1875**0.5 + 0.25),
    "adam_hat": 1 - 0.5 * 1 / (1 + 0.25) - 0.5 * (1.25 / 0.75) / ((1.1875 / (1 - 0.75**2)) ** 0.5 + 0.25),
    "adamw": (1 - 0.5 * 1 / (1 + 0.25) - 0.125) * (1 - 0.125)
    - 0.5 * (1.25 / 0.75) / ((1.1875 / (1 - 0.75**2)) ** 0.5 + 0.25),
    "nadam": 1
    - 0.5 * (0.5 * 0.5 / 0.75 + 0.5 * 1 / 0.5) / (1 + 0.25)
    - 0.5 * (0.5 * 1.25 / 0.875 + 0.5 * 2 / 0.75) / ((1.1875 / (1 - 0.75**2)) ** 0.5 + 0.25),
    "amsgrad": 1 - 0.5 * 1 / (1 + 0.25) - 0.5 * (1.25 / 0.75) / ((1.1875 / (1 - 0.75**2)) ** 0.5 + 0.25),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_update_rule_by_hand(name):
    """Two steps of one parameter, worked out by hand."""
    n_state, update = reference.OPTIMIZERS[name]
    w, state = np.array([1.0]), (np.zeros(1),) * n_state
    for t, gradient in enumerate((1.0, 2.0), start=1):
        w, state = update(w, np.array([gradient]), state, HYPER, t)
    assert len(state) == n_state
    assert abs(w[0] - BY_HAND[name]) <= tolerance("float64", 4)


# Factors at steps of a run of 100, worked out from the formulas.
SCHEDULES_BY_HAND = {
    "step": {0: 1.0, 49: 1.0, 50: 0.1, 74: 0.1, 75: 0.01, 99: 0.01},
    "exponential": {0: 1.0, 50: 0.1, 25: 10**-0.5},
    "cosine": {0: 1.0, 25: 0.5 + 8**-0.5, 50: 0.5},
    "one_cycle": {0: 0.04, 15: 0.52, 30: 1.0, 65: (1 + 1e-5) / 2},
    "flat_cosine": {0: 1.0, 50: 1.0, 75: 0.5},
    "coslog4": {0: 0.0, 20: 0.0, 60: 0.7183546884620604},
    "warmup_cosine": {0: 1 / 11, 9: 10 / 11, 10: 1.0, 55: 0.5},
}


@pytest.mark.parametrize("name", SCHEDULES_BY_HAND)
def test_schedule_by_hand(name):
    """Some factors, worked out by hand."""
    for step, factor in SCHEDULES_BY_HAND[name].items():
        assert abs(reference.SCHEDULES[name](step, 100) - factor) <= tolerance("float64", 1)


def test_amsgrad_remembers_the_largest():
    """Gradients 2 and 0: v falls from 1 to 0.75, v_max stays 1."""
    w, state = np.array([1.0]), (np.zeros(1),) * 3
    for t, gradient in enumerate((2.0, 0.0), start=1):
        w, state = reference.amsgrad(w, np.array([gradient]), state, HYPER, t)
    assert [float(s[0]) for s in state] == [0.5, 0.75, 1.0]
    by_hand = 1 - 0.5 * 2 / (2 + 0.25) - 0.5 * (0.5 / 0.75) / ((1 / (1 - 0.75**2)) ** 0.5 + 0.25)
    assert abs(w[0] - by_hand) <= tolerance("float64", 4)


def test_weight_decay_spares_biases(rng):
    """With no gradient, adamw multiplies weights by 1 - lr weight_decay and leaves biases alone."""
    model = reference.new_model(*reference.initialise((3, 4, 2), "relu", rng), "adamw")
    X, y = varied(rng.standard_normal((6, 3))), np.array([0, 1] * 3)
    hyper = reference.Hyper(0.1, beta_1=0.0, epsilon=1e300, weight_decay=0.5)
    _, trained = reference.step(model, ["relu"], "log_loss", "adamw", X, y, None, hyper, 1)
    for new, old in zip(trained.coefs, model.coefs, strict=True):
        assert np.abs(new - 0.95 * old).max() <= tolerance("float64", 1)
    assert all(map(np.array_equal, trained.intercepts, model.intercepts))


def test_epoch_skips_weightless_batch(rng):
    """A batch whose weights sum to 0 changes no parameter and adds no loss."""
    model = reference.new_model(*reference.initialise((3, 4, 2), "relu", rng), "adam")
    X, y = varied(rng.standard_normal((6, 3))), np.array([0, 1] * 3)
    weight = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    rates, hyper = np.full(2, 0.1), reference.Hyper(0.1)
    settings = (["relu"], "log_loss", "adam", 3, X, y)
    loss, trained = reference.epoch(model, *settings, weight, None, rates, 0, hyper)
    alone, expected = reference.step(model, *settings[:3], X[3:], y[3:], weight[3:], hyper, t=2)
    assert loss == alone * 3 / 6
    assert all(map(np.array_equal, trained.coefs, expected.coefs))


def test_epoch_weights_batches_by_rows(rng):
    """7 rows in batches of 3: three steps, the last of one row."""
    model = reference.new_model(*reference.initialise((3, 4, 1), "tanh", rng), "sgd")
    X, y = varied(rng.standard_normal((7, 3))), varied(rng.standard_normal((7, 1)))
    order = np.array([6, 0, 3, 1, 2, 5, 4])
    settings = (["tanh"], "squared_error", "sgd")
    rates = np.array([0.1, 0.2, 0.3])
    loss, trained = reference.epoch(model, *settings, 3, X, y, None, order, rates, 0, reference.Hyper(0.0))
    expected, total = model, 0.0
    for k, rows in enumerate(([6, 0, 3], [1, 2, 5], [4])):
        part, expected = reference.step(expected, *settings, X[rows], y[rows], None, reference.Hyper(rates[k]), t=k + 1)
        total += part * len(rows)
    assert loss == total / 7
    assert all(map(np.array_equal, trained.coefs + trained.intercepts, expected.coefs + expected.intercepts))
