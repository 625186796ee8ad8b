"""Drop-in: the same numbers, warnings and signatures as scikit-learn's MLPs, setting by setting."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest
import sklearn.neural_network
from helpers import (
    SKLEARN_CURVE_RTOL,
    SKLEARN_FLOAT32_RTOL,
    SKLEARN_LBFGS_RTOL,
    classification,
    counts,
    multilabel,
    needs_sklearn,
    regression,
)
from sklearn import neural_network as sklearn_mlp
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network._base import DERIVATIVES as SKLEARN_ACTIVATIONS

import fastmlp
from fastmlp import core

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (17, 9), "max_iter": 20, "random_state": 3, "batch_size": 32}
SGD = [
    {"solver": "sgd", "learning_rate": rate, "nesterovs_momentum": nesterov, "learning_rate_init": 0.05}
    for rate in ("constant", "invscaling", "adaptive")
    for nesterov in (True, False)
]
# The last two make 'adaptive' act, and stop, within the epochs compared.
SOLVERS = [
    *SGD,
    {"solver": "adam"},
    {"solver": "sgd", "momentum": 0.0},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 2},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 1, "learning_rate_init": 2e-5},
]
DATA = {
    "binary": lambda: classification(2),
    "multiclass": lambda: classification(4),
    "multilabel": multilabel,
    "regression": regression,
    "poisson": counts,
    "poisson-3": lambda: counts(n_outputs=3),
}


def ident(value):
    """Readable test ids."""
    return "-".join(f"{v}" for v in value.values()) if isinstance(value, dict) else str(value)


def pair(kind, **settings):
    """scikit-learn's estimator and ours, for a kind of data."""
    if kind in ("regression", "poisson", "poisson-3"):
        if kind.startswith("poisson"):
            needs_sklearn("1.7", "loss of MLPRegressor")
            settings["loss"] = "poisson"
        return sklearn_mlp.MLPRegressor(**settings), fastmlp.MLPRegressor(**settings)
    return sklearn_mlp.MLPClassifier(**settings), fastmlp.MLPClassifier(**settings)


def weights(X, weighted=True):
    """The third argument of fit, if there is to be one."""
    if not weighted:
        return ()
    needs_sklearn("1.7", "sample_weight in MLPs")
    return (np.random.RandomState(0).uniform(0.1, 2, len(X)),)


def assert_same(theirs, ours, rtol=SKLEARN_CURVE_RTOL):
    """Same loss curve, scores, counts and shapes."""
    assert len(ours.loss_curve_) == len(theirs.loss_curve_)
    assert len(set(theirs.loss_curve_)) > 1
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=rtol, atol=0)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.t_ == theirs.t_
    assert [w.shape for w in ours.coefs_] == [w.shape for w in theirs.coefs_]
    assert [b.shape for b in ours.intercepts_] == [b.shape for b in theirs.intercepts_]
    assert [w.dtype for w in ours.coefs_] == [w.dtype for w in theirs.coefs_]
    assert ours.n_layers_ == theirs.n_layers_
    assert ours.n_outputs_ == theirs.n_outputs_
    assert ours.out_activation_ == theirs.out_activation_
    for name in ("loss_", "best_loss_", "best_validation_score_", "validation_scores_"):
        if getattr(theirs, name) is None:
            assert getattr(ours, name) is None
        else:
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=rtol, atol=0)


@pytest.mark.crossed
@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("solver", SOLVERS, ids=ident)
def test_curve_by_solver(solver, kind):
    """Every stochastic solver of scikit-learn on every kind of data."""
    X, y = DATA[kind]()
    theirs, ours = pair(kind, **SMALL, **solver)
    theirs.fit(X, y)
    ours.fit(X, y)
    assert_same(theirs, ours)
    assert np.shape(ours.predict(X)) == np.shape(theirs.predict(X))
    if hasattr(theirs, "predict_proba"):
        assert np.array_equal(ours.predict(X), theirs.predict(X))
        for name in ("predict_proba", "predict_log_proba"):
            got, expected = getattr(ours, name)(X), getattr(theirs, name)(X)
            # Its 1 - p of two classes, and the logarithm of that, have lost their digits where they are smaller.
            clear = theirs.predict_proba(X) > 1e-9
            np.testing.assert_allclose(got[clear], expected[clear], rtol=SKLEARN_LBFGS_RTOL, atol=SKLEARN_CURVE_RTOL)
    assert abs(ours.score(X, y) - theirs.score(X, y)) < SKLEARN_LBFGS_RTOL


@pytest.mark.crossed
@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("activation", [name for name in core.ACTIVATIONS if name in SKLEARN_ACTIVATIONS])
def test_curve_by_activation(activation, kind):
    """Every activation of scikit-learn, and weights, in one."""
    X, y = DATA[kind]()
    weight = weights(X)
    theirs, ours = pair(kind, activation=activation, **SMALL)
    assert_same(theirs.fit(X, y, *weight), ours.fit(X, y, *weight))


@pytest.mark.crossed
@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("weighted", [False, True])
def test_lbfgs_final_loss(weighted, kind):
    """L-BFGS: the final loss, the iterations, the absence of a curve."""
    X, y = DATA[kind]()
    weight = weights(X, weighted)
    theirs, ours = pair(kind, solver="lbfgs", **SMALL)
    theirs.fit(X, y, *weight)
    ours.fit(X, y, *weight)
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=SKLEARN_LBFGS_RTOL)
    assert ours.n_iter_ == theirs.n_iter_
    assert not hasattr(ours, "loss_curve_")
    assert len(ours.history_) == ours.n_iter_


@pytest.mark.crossed
@pytest.mark.filterwarnings("ignore:lbfgs failed")
@pytest.mark.parametrize(
    "limit", [{"max_fun": 6}, {"max_fun": 23}, {"tol": 0.05}, {"tol": 0.01}, {"max_iter": 4}], ids=ident
)
@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_lbfgs_ends_as_sklearns(kind, limit):
    """Each limit by itself: the iteration it ends at, the loss there, and the words on it."""
    X, y = DATA[kind]()
    theirs, ours = pair(kind, solver="lbfgs", **{**SMALL, "max_iter": 60, "tol": 1e-7, **limit})
    said = []
    for estimator in (theirs, ours):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator.fit(X, y)
        said.append([(w.category, str(w.message)) for w in caught])
    assert said[0] == said[1]
    assert 0 < ours.n_iter_ == theirs.n_iter_ < 60
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=SKLEARN_LBFGS_RTOL)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["binary", "multilabel", "regression", "poisson"])
def test_curve_with_early_stopping(kind, weighted):
    """Same split, same scores, same end, same parameters restored."""
    X, y = DATA[kind]()
    weight = weights(X, weighted)
    settings = {**SMALL, "max_iter": 60, "n_iter_no_change": 3, "learning_rate_init": 0.01}
    theirs, ours = pair(kind, early_stopping=True, **settings)
    theirs.fit(X, y, *weight)
    ours.fit(X, y, *weight)
    assert_same(theirs, ours)
    assert ours.n_iter_ < settings["max_iter"]
    for a, b in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=SKLEARN_LBFGS_RTOL, atol=SKLEARN_LBFGS_RTOL)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_curve_with_warm_start(kind, solver):
    """Three fits in a row; the curve goes on, the optimizer starts anew."""
    X, y = DATA[kind]()
    settings = {**SMALL, "max_iter": 5, "learning_rate": "invscaling", "warm_start": True, "solver": solver}
    theirs, ours = pair(kind, **settings)
    for _ in range(3):
        assert_same(theirs.fit(X, y), ours.fit(X, y))
    assert len(ours.loss_curve_) == 15


@pytest.mark.crossed
@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("kind", DATA)
def test_curve_with_partial_fit(kind, solver):
    """Chunk after chunk, optimizer state kept. Without shuffling: with it each call of ours draws anew."""
    X, y = DATA[kind]()
    theirs, ours = pair(kind, **{**SMALL, "shuffle": False, "solver": solver})
    classes = {"classes": np.unique(y)} if kind in ("binary", "multiclass") else {}
    if kind == "multilabel":
        classes = {"classes": np.arange(4)}
    for start in (0, 60, 120):
        rows = slice(start, start + 60)
        theirs.partial_fit(X[rows], y[rows], **classes)
        ours.partial_fit(X[rows], y[rows], **classes)
    assert_same(theirs, ours)


def test_curve_goes_on_from_fit():
    """partial_fit after fit keeps the optimizer's state, like scikit-learn."""
    X, y = classification(3)
    theirs, ours = pair("multiclass", **{**SMALL, "shuffle": False})
    for estimator in (theirs, ours):
        estimator.fit(X, y).partial_fit(X[:50], y[:50]).partial_fit(X[50:], y[50:])
    assert_same(theirs, ours)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_curve_in_float32(solver, kind):
    """float32 data: float32 parameters, and the curve within the contract's 1e-3."""
    X, y = DATA[kind]()
    X = X.astype(np.float32)
    theirs, ours = pair(kind, solver=solver, **SMALL)
    theirs.fit(X, y)
    ours.fit(X, y)
    assert all(w.dtype == np.float32 for w in ours.coefs_ + ours.intercepts_)
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=SKLEARN_FLOAT32_RTOL)
    if solver != "lbfgs":
        assert_same(theirs, ours, SKLEARN_FLOAT32_RTOL)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": "auto"},
        {"batch_size": 1, "max_iter": 2},
        {"batch_size": 203},
        {"batch_size": 500},
        {"shuffle": False},
        {"alpha": 1.0},
        {"alpha": 0.0},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": 5},
        {"hidden_layer_sizes": [3, 1, 4, 1, 5]},
        {"random_state": np.random.RandomState(5)},
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"n_iter_no_change": np.inf},
    ],
    ids=ident,
)
@pytest.mark.filterwarnings("ignore:Got `batch_size`")
def test_curve_by_other_settings(settings):
    """The parameters that the other tests leave alone."""
    X, y = classification(3)
    theirs, ours = pair("multiclass", **{**SMALL, **settings})
    if isinstance(theirs.random_state, np.random.RandomState):
        theirs.random_state = np.random.RandomState(5)
    assert_same(theirs.fit(X, y), ours.fit(X, y))


def test_signature_begins_as_sklearns():
    """Same parameters, order, kinds and defaults; ours come after, keyword only."""
    needs_sklearn("1.7", "loss of MLPRegressor")
    for name in ("MLPClassifier", "MLPRegressor"):
        theirs = list(inspect.signature(getattr(sklearn_mlp, name)).parameters.values())
        ours = list(inspect.signature(getattr(fastmlp, name)).parameters.values())
        assert [(p.name, p.kind, p.default) for p in ours[: len(theirs)]] == [
            (p.name, p.kind, p.default) for p in theirs
        ]
        assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(theirs) :])
        missing = {a for a in dir(getattr(sklearn_mlp, name)) if not a.startswith("_")} - set(
            dir(getattr(fastmlp, name))
        )
        assert not missing


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1},
        {"early_stopping": True, "n_iter_no_change": 1},
    ],
)
def test_verbose_lines_begin_as_sklearns(settings, capsys):
    """One line per epoch, which goes on with score and speed; the same words at the end."""
    X, y = classification(2)
    outputs = []
    for estimator in pair("binary", **{**SMALL, **settings}, verbose=True):
        estimator.fit(X, y)
        outputs.append(capsys.readouterr().out.splitlines())
    theirs, ours = sorted(outputs, key=lambda lines: "rows/s" in lines[0])
    scores = [line.split(": ")[1] for line in theirs if line.startswith("Validation score: ")]
    theirs = [line for line in theirs if not line.startswith("Validation score: ")]
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our.startswith(their)
        assert our.endswith(" rows/s") == their.startswith("Iteration")
    epochs = [line for line in ours if line.startswith("Iteration")]
    assert bool(scores) == bool(settings.get("early_stopping"))
    for line, score in zip(epochs, scores, strict=bool(scores)):
        assert f"validation score = {score}" in line


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("settings", [{"max_iter": 2}, {"batch_size": 999}, {"solver": "lbfgs", "max_iter": 2}])
def test_warnings_are_sklearns(settings):
    """Same categories and the same words, blamed on the caller's line."""
    X, y = classification(2)
    seen = []
    for estimator in pair("binary", **{**SMALL, **settings}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator.fit(X, y)
        seen.append([(w.category, str(w.message)) for w in caught])
    assert seen[0]
    assert seen[0] == seen[1]
    if settings.get("solver") != "lbfgs":
        assert caught[-1].filename == __file__


def test_difference_squared_error_gradient():
    """#8349: with several outputs the gradient is the loss's own: as scikit-learn's with a rate O times larger."""
    X, y = regression(n_outputs=3)
    settings = {**SMALL, "solver": "sgd", "momentum": 0.0, "alpha": 0.0}
    theirs = sklearn_mlp.MLPRegressor(**settings, learning_rate_init=0.01).fit(X, y)
    ours = fastmlp.MLPRegressor(**settings, learning_rate_init=0.03).fit(X, y)
    assert_same(theirs, ours)


def test_difference_partial_fit_orders():
    """#12505: the first order is scikit-learn's, the next ones are new."""
    X, y = classification(2)
    theirs, ours = pair("binary", **SMALL)
    for estimator in (theirs, ours):
        estimator.partial_fit(X, y, classes=[0, 1])
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=SKLEARN_CURVE_RTOL)
    theirs.partial_fit(X, y)
    ours.partial_fit(X, y)
    assert abs(ours.loss_curve_[1] / theirs.loss_curve_[1] - 1) > SKLEARN_CURVE_RTOL
    again = fastmlp.MLPClassifier(**SMALL).partial_fit(X, y, classes=[0, 1]).partial_fit(X, y)
    assert again.loss_curve_ == ours.loss_curve_


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_difference_weightless_rows(early_stopping, solver, class_weight, multilabel):
    """Rows of weight 0 change nothing: not the batches, not the split, not what is balanced, not the result."""
    X, y = classification(2)
    y = np.column_stack([y, X[:, 0] > 0.5]).astype(int) if multilabel else y
    kept = np.random.RandomState(1).uniform(size=len(X)) < 0.7
    X_more = np.where(kept[:, np.newaxis], X, 1e3)
    settings = {**SMALL, "early_stopping": early_stopping, "solver": solver, "class_weight": class_weight}
    without = fastmlp.MLPClassifier(**settings).fit(X[kept], y[kept], np.ones(kept.sum()))
    with_them = fastmlp.MLPClassifier(**settings).fit(X_more, y, kept.astype(float))
    assert all(map(np.array_equal, with_them.coefs_, without.coefs_))


def test_difference_early_stopping_stratifies():
    """Multi-class is stratified where scikit-learn draws at random; where it cannot be, a warning says so."""
    X, y = classification(4)
    rare = np.where(np.arange(len(y)) == 7, 9, y)
    settings = {**SMALL, "early_stopping": True, "max_iter": 2}
    with pytest.warns(UserWarning, match="Too few rows of some class"):
        ours = fastmlp.MLPClassifier(**settings).fit(X, rare)
    theirs = sklearn_mlp.MLPClassifier(**settings).fit(X, rare)
    assert_same(theirs, ours)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        fastmlp.MLPClassifier(**settings).fit(X, y)


@pytest.mark.parametrize("activation", [name for name in core.ACTIVATIONS if name in SKLEARN_ACTIVATIONS])
def test_no_hidden_layer_draws_as_sklearn(activation):
    X, y = classification(3)
    curves = []
    for module in (sklearn.neural_network, fastmlp):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator = module.MLPClassifier((), activation=activation, max_iter=5, random_state=5).fit(X, y)
        curves.append(estimator.loss_curve_)
    np.testing.assert_allclose(curves[1], curves[0], rtol=SKLEARN_CURVE_RTOL)
