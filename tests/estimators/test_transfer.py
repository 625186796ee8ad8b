"""What happens around a fit: scores that steer it, rows that it is scored on, networks that grow, freeze and are handed on."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
from helpers import classification, multilabel, regression, tolerance, varied
from sklearn.base import clone
from sklearn.metrics import get_scorer, log_loss, make_scorer
from sklearn.model_selection import train_test_split

from fastmlp import MLPClassifier, MLPRegressor, Network, core, reference
from fastmlp.training.schedules import STOCHASTIC_SOLVERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# --- Scores that steer --------------------------------------------------------------------------------------------------

WATCHED = {
    "hidden_layer_sizes": (12, 6), "batch_norm": True, "dropout": 0.2, "random_state": 0, "learning_rate_init": 0.03, "max_iter": 60,
    "n_iter_no_change": 4, "tol": 0.001, "batch_size": 32, "early_stopping": True,
}  # fmt: skip


def capturing(scorer, seen):
    """A callable metric that notes the score, the parameters and the running averages that it sees."""

    def metric(estimator, X, y, sample_weight=None):
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        value = scorer(estimator, X, y, **weights)
        seen.append((value, estimator.network_.parameters.copy(), estimator.network_.statistics.copy()))
        return value

    return metric


def epochs_until_patience_ends(scores, tol, patience):
    """scikit-learn's rule, written out: the count rises below best + tol, with the best of the epochs before."""
    best, count = -np.inf, 0
    for epoch, score in enumerate(scores, 1):
        count = count + 1 if score < best + tol else 0
        best = max(best, score)
        if count > patience:
            return epoch
    return None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("given", [False, True], ids=["split", "eval_set"])
@pytest.mark.parametrize("metric", [
    "neg_log_loss", "roc_auc_ovr", make_scorer(log_loss, greater_is_better=False, response_method="predict_proba"), None,
], ids=["neg_log_loss", "roc_auc_ovr", "make_scorer", "None"])  # fmt: skip
def test_score_steers(metric, given, weighted):
    """It is the metric's own value of the network after each epoch, the patience goes by it, and the best epoch's parameters AND
    running averages are what is left. A name, a scorer and a callable are the same thing."""
    X, y = classification(3, n=240)
    names = np.array(["a", "b", "c"])[y]
    train, held = slice(None, 160), slice(160, None)
    weight = np.random.RandomState(0).uniform(0.5, 2, len(y)) if weighted else None
    arguments = (
        {"eval_set": (X[held], names[held]), "sample_weight_eval": None if weight is None else weight[held]}
        if given
        else {}
    )
    rows = train if given else slice(None)
    fit = (X[rows], names[rows], None if weight is None else weight[rows])
    seen = []
    by_callable = MLPClassifier(**WATCHED, validation_metric=capturing(get_scorer(metric or "accuracy"), seen)).fit(
        *fit, **arguments
    )
    estimator = MLPClassifier(**WATCHED, validation_metric=metric).fit(*fit, **arguments)
    scores = [score for score, _, _ in seen]
    assert varied(np.array(scores)).size == estimator.n_iter_
    np.testing.assert_allclose(estimator.validation_scores_, scores, rtol=tolerance("float64", 100))
    assert estimator.n_iter_ == epochs_until_patience_ends(scores, 0.001, 4) < 60
    best = int(np.argmax(scores))
    assert best < len(scores) - 1
    assert estimator.best_validation_score_ == pytest.approx(scores[best])
    for each in (estimator, by_callable):
        np.testing.assert_array_equal(each.network_.parameters, seen[best][1])
        np.testing.assert_array_equal(each.network_.statistics, seen[best][2])
    assert [entry["validation_score"] for entry in estimator.history_] == estimator.validation_scores_
    assert [entry["validation_loss"] for entry in estimator.history_] == estimator.validation_loss_curve_
    # The estimator itself scores so on these rows.
    if given:
        score = get_scorer(metric or "accuracy")(
            estimator, X[held], names[held], **({} if weight is None else {"sample_weight": weight[held]})
        )
        assert score == pytest.approx(scores[best])


@pytest.mark.parametrize("loss", core.LOSSES)
def test_validation_loss_is_the_plain_loss(loss):
    """Of the network as it predicts: by running averages, without dropout, smoothing, penalty or mixup, rows by their weights."""
    settings = {**WATCHED, "early_stopping": False, "max_iter": 4, "alpha": 1.0, "mixup": 0.3}
    if loss == "log_loss":
        X, y = classification(3)
        estimator, target = MLPClassifier(**settings, label_smoothing=0.2), y
    elif loss == "binary_log_loss":
        X, y = multilabel()
        estimator, target = MLPClassifier(**settings, label_smoothing=0.2), y.astype(float)
    else:
        X, y = regression(n_outputs=2)
        y = np.abs(y)
        estimator, target = MLPRegressor(loss, quantile=0.7, huber_delta=0.7, **settings), y
    weight = np.random.RandomState(0).uniform(0, 2, len(y))
    seen = []
    value = capturing(lambda estimator, X, y, sample_weight: 0.0, seen)
    watched = clone(estimator).set_params(validation_metric=value)
    watched.fit(X[:100], y[:100], eval_set=(X[100:], y[100:]), sample_weight_eval=weight[100:])
    expected = []
    for _, parameters, statistics in seen:
        network = watched.network_.copy()
        network.parameters, network.statistics[:] = parameters, statistics
        output, row_loss, _ = reference.LOSSES[loss]
        model = reference.Model(network.coefs, network.intercepts, [], network.scales, network.means, network.variances)
        a = reference.predict(model, network.activations, output, X[100:])
        expected.append(np.average(row_loss(target[100:], a, np.finfo(float).eps, 0.7), weights=weight[100:]))
    bound = tolerance("float64", 200, max(expected))
    assert np.abs(np.subtract(watched.validation_loss_curve_, varied(np.array(expected)))).max() <= bound
    assert watched.validation_scores_ == [0.0] * 4
    # Without early stopping the score changes nothing: not the end, not the parameters.
    plain = clone(estimator).fit(X[:100], y[:100])
    np.testing.assert_array_equal(plain.network_.parameters, watched.network_.parameters)
    assert plain.validation_loss_curve_ is None


@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("weighted", [False, True])
def test_eval_set_is_as_good_as_a_split(cls, weighted):
    """The rows that early stopping would set aside, given by hand: the same bits."""
    X, y = classification(2) if cls is MLPClassifier else regression()
    weight = np.random.RandomState(0).uniform(0.5, 2, len(y)) if weighted else None
    settings = {**WATCHED, "dropout": 0.0, "shuffle": False, "validation_fraction": 0.3}
    split = cls(**settings).fit(X, y, weight)
    rng = np.random.RandomState(0)
    Network(split.network_.layer_sizes, random_state=rng)
    train, held = train_test_split(
        np.arange(len(y)), random_state=rng, test_size=0.3, stratify=y if cls is MLPClassifier else None
    )
    given = cls(**settings).fit(
        X[train], y[train], None if weight is None else weight[train], eval_set=(X[held], y[held]),
        sample_weight_eval=None if weight is None else weight[held],
    )  # fmt: skip
    assert given.validation_scores_ == split.validation_scores_
    assert given.validation_loss_curve_ == split.validation_loss_curve_
    np.testing.assert_array_equal(given.network_.parameters, split.network_.parameters)
    np.testing.assert_array_equal(given.network_.statistics, split.network_.statistics)
    assert given.history_[0]["rows"] == len(train)


def test_eval_set_keeps_all_rows_for_training():
    """Nothing is split off when rows to score on are given."""
    X, y = classification(2)
    estimator = MLPClassifier(**WATCHED).fit(X, y, eval_set=(X[:9].tolist(), y[:9].tolist()))
    assert {entry["rows"] for entry in estimator.history_} == {len(X)}


def test_interrupted_run_restores_averages_with_parameters():
    """Ctrl-C in the sixth score: the best of five, all of it."""
    X, y = classification(2)
    seen = []
    score = capturing(get_scorer("neg_log_loss"), seen)

    def metric(estimator, X, y):
        if len(seen) == 5:
            raise KeyboardInterrupt
        return score(estimator, X, y)

    with pytest.warns(UserWarning, match="interrupted by user"):
        estimator = MLPClassifier(
            **{**WATCHED, "n_iter_no_change": np.inf, "learning_rate_init": 0.3}, validation_metric=metric
        ).fit(X, y)
    best = int(np.argmax([each[0] for each in seen]))
    assert best < 4
    np.testing.assert_array_equal(estimator.network_.parameters, seen[best][1])
    np.testing.assert_array_equal(estimator.network_.statistics, seen[best][2])
    assert estimator.predict_proba(X).shape == (len(X), 2)


# --- Frozen layers and handed on networks ---------------------------------------------------------------------------------

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


@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
@pytest.mark.parametrize("layers", [0, [0, 1], [1], [3], [-1, 0], None], ids=str)
def test_frozen_layers_stay_to_the_bit(layers, solver):
    """In partial_fit and in fits that go on, with decay, penalty, dropout and clipping; the others move; nothing is remembered
    of the frozen ones."""
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
    state = estimator._optimizer_state["arrays"]
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
    """Weights, shifts, scales and averages, edited ones too, from a regressor into a classifier, whatever its type; and a clone
    or a pickle of the estimator takes them as well."""
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


@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
@pytest.mark.parametrize("kind", ["one output", "three"])
def test_twins_part(kind, solver):
    """Units that were doubled have the same weights at first, and learn different things: they part by a share of how far they go,
    even where a rule takes no notice of a gradient's size and one output is all there is to tell them apart."""
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
    """Not only predictions are kept: so is what training makes of a batch, which normalises by its own averages. Where these
    had to be reckoned, the loss moves by a small share."""
    X, y = regression(n=600, n_features=6)
    estimator = MLPRegressor(hidden_layer_sizes=(12, 12), max_iter=40, learning_rate_init=0.01, batch_size=200, random_state=0,
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
