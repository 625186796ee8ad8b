"""Fine-tuning: frozen layers, pretrained networks, networks that grow."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
from helpers import classification, regression, tolerance, varied
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from fastmlp import MLPClassifier, MLPRegressor, core
from fastmlp.training.solvers import STOCHASTIC_SOLVERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# --- Frozen layers and handed on networks -----------------------------------------------------------------------------

NORMED = {
    "hidden_layer_sizes": (11, 11, 7),
    "batch_norm": True,
    "residual": True,
    "random_state": 0,
    "max_iter": 3,
    "batch_size": 32,
}


def state_of(network):
    """All arrays by layer: weights, bias, scale, averages."""
    arrays = [[W.copy(), b.copy()] for W, b in zip(network.coefs, network.intercepts, strict=True)]
    for layer, rest in enumerate(zip(network.scales, network.means, network.variances, strict=True)):
        arrays[layer] += [array.copy() for array in rest]
    return arrays


@pytest.mark.crossed
@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
@pytest.mark.parametrize("layers", [0, [0, 1], [1], [3], [-1, 0], None], ids=str)
def test_frozen_layers_stay_to_the_bit(layers, solver):
    """In partial_fit and in fits that go on, with decay, penalty, dropout and clipping; the others move; nothing is
    remembered of the frozen ones."""
    X, y = classification(3)
    settings = {**NORMED, "dropout": 0.2, "alpha": 0.1, "l1_ratio": 0.5, "max_grad_norm": 1.0, "warm_start": True}
    settings |= {"solver": solver, "weight_decay": 0.5 * (solver == "adamw")}
    estimator = MLPClassifier(**settings).fit(X, y).freeze(layers)
    chosen = [0, 1, 2] if layers is None else np.atleast_1d(layers) % 4
    assert [layer for layer, rate in enumerate(estimator.layer_rates_) if rate == 0] == sorted(chosen)
    before = state_of(estimator.network_)
    for train in (estimator.fit, estimator.partial_fit, clone(estimator).fit):
        train(X, y)
        for layer, arrays in enumerate(state_of(estimator.network_)):
            same = [np.array_equal(a, b) for a, b in zip(arrays, before[layer], strict=True)]
            assert all(same) if layer in chosen else not any(same)
    state = np.asarray(estimator._optimizer_state["arrays"])
    if len(state):
        weights = np.cumsum([0] + [W.size for W in estimator.coefs_])
        for layer in range(4):
            part = state[:, weights[layer] : weights[layer + 1]]
            assert (part == 0).all() if layer in chosen else part.any()
    estimator.unfreeze().partial_fit(X, y)
    assert not any(np.array_equal(a[0], b[0]) for a, b in zip(state_of(estimator.network_), before, strict=True))


def test_frozen_layers_cost_no_gradient():
    """With the body frozen, a step is the head's alone: the same as that of a network that is only the head."""
    X, y = classification(3)
    settings = {"random_state": 0, "max_iter": 3, "solver": "sgd", "alpha": 0.01, "shuffle": False, "batch_size": 32}
    body = MLPClassifier((9,), "tanh", **settings).fit(X, y).freeze()
    body.set_params(warm_start=True)
    hidden = np.tanh(X @ body.coefs_[0] + body.intercepts_[0])
    head = MLPClassifier((), **settings, warm_start=True).fit(hidden, y)
    head.coefs_, head.intercepts_ = [body.coefs_[-1].copy()], [body.intercepts_[-1].copy()]
    head.fit(hidden, y)
    body.fit(X, y)
    assert np.abs(body.coefs_[-1] - head.coefs_[0]).max() <= tolerance("float64", 500)
    np.testing.assert_allclose(body.loss_curve_[-3:], head.loss_curve_[-3:], rtol=tolerance("float64", 500))


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_pretrained_rate_scales_the_bodys_step(rate):
    """One step of gradient descent: each layer of the body moves by so much of what it would."""
    X, y = classification(3)
    body = (
        MLPRegressor(hidden_layer_sizes=(11, 11, 7), residual=True, random_state=1, max_iter=5).fit(X, X[:, 0]).network_
    )
    settings = {
        **NORMED,
        "batch_norm": False,
        "solver": "sgd",
        "momentum": 0.0,
        "max_iter": 1,
        "batch_size": len(X),
        "alpha": 0.0,
    }
    moved = {}
    for each in (rate, 1.0):
        estimator = MLPClassifier(**settings, pretrained=body, pretrained_rate=each).fit(X, y)
        moved[each] = [W - start for W, start in zip(estimator.coefs_[:-1], body.coefs[:-1], strict=True)]
        assert estimator.layer_rates_ == (each, each, each, 1.0)
    for slow, full in zip(moved[rate], moved[1.0], strict=True):
        assert np.abs(slow - rate * varied(full)).max() <= tolerance("float64", 10)
    if rate == 0:
        assert not any(step.any() for step in moved[0.0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_body_is_taken_whole_and_left_alone(dtype):
    """Weights, shifts, scales and averages, edited ones too, from a regressor into a classifier, whatever its type; and
    a clone or a pickle of the estimator takes them as well."""
    X, y = classification(3)
    source = MLPRegressor(**NORMED, activation=["relu", "tanh", "relu"], dtype=dtype).fit(X, X[:, 0])
    source.coefs_[0] = source.coefs_[0] + 0.5
    before = copy.deepcopy(source).predict(X)  # which adopts in the copy, not in the source
    settings = {**NORMED, "activation": ("relu", "tanh", "relu"), "learning_rate_init": 1e-300}
    estimator = MLPClassifier(**settings, pretrained=source.network_).fit(X, y)
    for each in (
        estimator,
        clone(estimator).fit(X, y),
        pickle.loads(pickle.dumps(estimator)),
        copy.deepcopy(estimator).fit(X, y),
    ):
        for ours, theirs in zip(state_of(each.network_)[:-1], state_of(source.network_)[:-1], strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a, b)
    assert estimator.network_.dtype == "float64"
    np.testing.assert_array_equal(source.predict(X), before)
    drawn = MLPClassifier(**settings).fit(X, y)
    np.testing.assert_array_equal(estimator.coefs_[-1], drawn.coefs_[-1])


def test_transfer_helps():
    """A body that was trained on much of a like task beats a fresh one on little, frozen or not."""
    X, y = regression(n=2000, n_features=4, seed=1)
    few = slice(0, 30)
    settings = {
        "hidden_layer_sizes": (32, 32),
        "random_state": 0,
        "learning_rate_init": 0.01,
        "n_iter_no_change": np.inf,
    }
    body = MLPRegressor(**settings, max_iter=60).fit(X, y)
    other = np.abs(y) + 0.5 * y
    fresh = MLPRegressor(**settings, max_iter=200).fit(X[few], other[few]).score(X, other)
    for rate in (0.0, 0.1):
        handed_on = MLPRegressor(**settings, max_iter=200, pretrained=body.network_, pretrained_rate=rate).fit(
            X[few], other[few]
        )
        assert handed_on.score(X, other) > fresh + 0.1


# --- Growing ---------------------------------------------------------------------------------------------------------


@pytest.mark.crossed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", [
    *({"activation": name} for name in core.ACTIVATIONS), {"batch_norm": True}, {"residual": True, "batch_norm": True},
    {"activation": ["relu", "tanh", "identity"], "dropout": (0.0, 0.1, 0.2, 0.3), "batch_norm": True},
], ids=str)  # fmt: skip
def test_wider_network_keeps_its_predictions(settings, dtype):
    """To rounding, on every activation; then it trains on, and gets better at what it is trained on."""
    X, y = classification(3)
    settings = {
        "hidden_layer_sizes": (9, 9, 5),
        "random_state": 0,
        "max_iter": 10,
        "learning_rate_init": 0.01,
        "dtype": dtype,
        **settings,
    }
    estimator = MLPClassifier(**settings).fit(X, y)
    before = estimator.predict_proba(X)
    estimator.grow((14, 14, 5), random_state=1)
    assert estimator.hidden_layer_sizes == estimator.network_.layer_sizes[1:-1] == (14, 14, 5)
    assert estimator.coefs_[1].shape == (14, 14)
    assert estimator.coefs_[0].dtype == dtype
    scale = max(1.0, *(np.abs(W).max() for W in estimator.coefs_))
    assert np.abs(estimator.predict_proba(X) - before).max() <= tolerance(dtype, 50, scale)
    loss = log_loss(y, before)
    for _ in range(30):
        estimator.partial_fit(X, y)
    assert log_loss(y, estimator.predict_proba(X)) < loss - 0.01


@pytest.mark.crossed
@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
@pytest.mark.parametrize("kind", ["one output", "three"])
def test_twins_part(kind, solver):
    """Units that were doubled have the same weights at first, and learn different things: they part by a share of how
    far they go, even where a rule takes no notice of a gradient's size and one output is all there is to tell them
    apart."""
    X, y = regression(n=600, n_features=6) if kind == "one output" else classification(3, n=600, n_features=6)
    cls = MLPRegressor if kind == "one output" else MLPClassifier
    rate = {"sgd": 0.05, "momentum": 0.5, "adagrad": 0.05}.get(solver, 0.01)
    estimator = cls(
        hidden_layer_sizes=(8,), solver=solver, learning_rate_init=rate, max_iter=30, random_state=0, batch_size=50
    )
    estimator.fit(X, y).grow((16,), random_state=0)
    start = estimator.coefs_[0].copy()
    twins = [(i, j) for j in range(8, 16) for i in range(8) if np.array_equal(start[:, i], start[:, j])]
    assert len(twins) == 8
    for _ in range(100):
        estimator.partial_fit(X, y)
    W = estimator.coefs_[0]
    moved = np.mean([np.linalg.norm(W[:, j] - start[:, j]) for _, j in twins])
    apart = np.mean([np.linalg.norm(W[:, i] - W[:, j]) for i, j in twins])
    assert moved > 0.01
    assert apart > 0.03 * moved


def test_grow_carries_what_belongs_to_layers():
    """Rates of freezing, lists of activations and dropout; predictions after pickle, clone and another fit."""
    X, y = classification(3)
    settings = {
        "activation": ["relu", "tanh"],
        "dropout": (0.1, 0.2, 0.3),
        "random_state": 0,
        "max_iter": 3,
        "batch_norm": True,
    }
    estimator = MLPClassifier((8, 6), **settings).fit(X, y).freeze(0)
    estimator.grow((9, 9, 6), random_state=0)
    assert estimator.activation == ["relu", "relu", "tanh"]
    assert estimator.dropout == (0.1, 0.2, 0.2, 0.3)
    assert estimator.layer_rates_ == (0.0, 1.0, 1.0, 1.0)
    assert estimator.n_layers_ == 5
    frozen = estimator.coefs_[0].copy()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).predict_proba(X), estimator.predict_proba(X))
    estimator.set_params(warm_start=True).fit(X, y)
    np.testing.assert_array_equal(estimator.coefs_[0], frozen)
    again = clone(estimator).fit(X, y)
    assert again.network_.layer_sizes == (13, 9, 9, 6, 3)
    assert again.layer_rates_ == (1.0,) * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="cannot grow"):
            again.grow((9, 8, 6))


@pytest.mark.parametrize(("settings", "share"), [
    ({"residual": True, "activation": "tanh", "batch_norm": True}, 0.0),
    ({"residual": True, "activation": "silu"}, 0.0),
    ({"activation": "relu"}, 0.0),
    ({"activation": "relu", "batch_norm": True}, 0.1),
    ({"activation": "identity", "batch_norm": True}, 0.1),
], ids=str)  # fmt: skip
def test_deepened_network_trains_on_from_where_it_was(settings, share):
    """Not only predictions are kept: so is what training makes of a batch, which normalises by its own averages. Where
    these had to be reckoned, the loss moves by a small share."""
    X, y = regression(n=600, n_features=6)
    estimator = MLPRegressor(hidden_layer_sizes=(12, 12), max_iter=40, learning_rate_init=0.01, batch_size=200,
        random_state=0,
                             shuffle=False, **settings).fit(X, y)  # fmt: skip
    grown = copy.deepcopy(estimator).grow((12, 12, 12), random_state=0)
    bound = tolerance("float64", 100, np.abs(estimator.predict(X)).max())
    assert np.abs(grown.predict(X) - estimator.predict(X)).max() <= bound
    for each in (estimator, grown):
        each.set_params(learning_rate_init=1e-300, alpha=0.0).partial_fit(X, y)
    assert abs(grown.loss_ - estimator.loss_) <= share * y.var() + tolerance("float64", 1000)
    score = grown.score(X, y)
    assert abs(score - estimator.score(X, y)) <= 0.1 * share + tolerance("float64", 1000)
    grown.set_params(learning_rate_init=1e-3).partial_fit(X, y)
    assert grown.loss_ <= estimator.loss_ + 0.1 * y.var()
    for _ in range(10):
        grown.partial_fit(X, y)
    assert not np.array_equal(grown.coefs_[2], np.eye(12))
    assert grown.score(X, y) > score - 0.02


def test_grow_takes_a_number():
    """As the constructor does."""
    X, y = classification(2)
    estimator = MLPClassifier(8, max_iter=2, random_state=0)
    with pytest.warns(ConvergenceWarning):
        estimator.fit(X, y)
    assert estimator.grow(32).network_.layer_sizes == (X.shape[1], 32, 1)


def test_unfrozen_layers_begin_with_small_steps():
    """adam's first step is the learning rate, its later ones are not much more. For layers that had been frozen it took
    the count of all updates, and made their steps six times as large."""
    X, y = classification(3)
    rate = 1e-6
    estimator = MLPClassifier((8,), random_state=0, batch_size=20, learning_rate_init=rate, shuffle=False)
    estimator.partial_fit(X, y, classes=[0, 1, 2]).freeze(0)
    for _ in range(40):
        estimator.partial_fit(X, y)
    before = estimator.coefs_[0].copy()
    estimator.unfreeze().partial_fit(X, y)
    n_steps = -(-len(X) // 20)
    moved = np.abs(estimator.coefs_[0] - before).max()
    assert 0.5 * rate < moved <= 1.5 * rate * n_steps
