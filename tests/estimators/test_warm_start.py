"""set_params on a fitted estimator: what each parameter does to a further fit with warm_start, and to partial_fit.

Every parameter of both estimators is in one of the tables below. Where it takes effect, the network that comes out is,
bit for bit, that of an estimator which had the value from the beginning and got the same parameters put in place.
"""

from __future__ import annotations

import copy
import inspect
import warnings

import numpy as np
import pytest
from helpers import SKLEARN_CURVE_RTOL, classification, counts, regression
from sklearn import neural_network as sklearn_mlp

import fastmlp
from fastmlp import CosineDecay, MLPClassifier, MLPRegressor, Network, core
from fastmlp.training.schedules import make_schedule

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:lbfgs failed")

SMALL = {
    "hidden_layer_sizes": (17, 9), "random_state": 3, "batch_size": 32, "max_iter": 4, "warm_start": True,
    "n_iter_no_change": np.inf,
}  # fmt: skip
SGD = {"solver": "sgd", "learning_rate_init": 0.05}
EARLY = {"early_stopping": True, "learning_rate_init": 0.01}
X, Y = classification(3)
REAL, COUNTS = regression()[1], counts()[1]
BODY = Network((13, 17, 9, 3), random_state=7, dtype="float64")

# parameter -> (other parameters, its value to begin with, its value from then on); None stands for the default.
TAKES_EFFECT = {
    "activation": [({}, None, "tanh"), ({}, None, ["relu", "tanh"])],
    "solver": [({}, None, solver) for solver in ("sgd", "rmsprop", "adamw")] + [({}, "sgd", "adam")],
    "alpha": [({}, None, 3.0)],
    "batch_size": [({}, None, 16), ({}, None, "auto")],
    "learning_rate": [
        ({}, None, "cosine"), ({}, None, CosineDecay(final=0.5)), ({}, "one_cycle", "constant"),
        (SGD, None, "invscaling"),
        (SGD, "invscaling", "constant"), (SGD, "invscaling", "adaptive"),
        ({}, None, lambda step, n_steps: 1 / (1 + step)),
    ],
    "learning_rate_init": [
        ({}, None, 0.1), ({**SGD, "learning_rate": "invscaling"}, 0.05, 0.2),
        ({**SGD, "learning_rate": "adaptive"}, 0.05, 0.2),
        ({"learning_rate": "cosine"}, None, 0.01),
    ],
    "power_t": [({**SGD, "learning_rate": "invscaling"}, None, 0.1)],
    "max_iter": [({}, None, 7), ({"learning_rate": "cosine"}, None, 7)],
    "shuffle": [({}, None, False), ({}, False, True)],
    "random_state": [({}, 3, 4), ({"shuffle": False, "dropout": 0.2}, 3, 4)],
    "tol": [({"n_iter_no_change": 1}, None, 10.0)],
    "momentum": [(SGD, None, 0.5), (SGD, None, 0.0), (SGD, 0.0, 0.9), ({"solver": "momentum"}, None, 0.3)],
    "nesterovs_momentum": [(SGD, None, False), (SGD, False, True)],
    "early_stopping": [({"learning_rate_init": 0.5}, False, True), ({"learning_rate_init": 0.5}, True, False)],
    "validation_fraction": [(EARLY, None, 0.3)],
    "validation_metric": [({**EARLY, "learning_rate_init": 0.5, "max_iter": 9}, None, "neg_log_loss")],
    "beta_1": [({}, None, 0.5)],
    "beta_2": [({}, None, 0.5)],
    "epsilon": [({}, None, 0.1)],
    "n_iter_no_change": [({"tol": 10.0}, None, 1)],
    "max_fun": [({"solver": "lbfgs"}, None, 3)],
    "dtype": [({}, "float64", "float32"), ({}, "float32", "float64")],
    "l1_ratio": [({"alpha": 1.0}, None, 0.7)],
    "rho": [({"solver": "rmsprop"}, None, 0.3)],
    "weight_decay": [({"solver": "adamw"}, None, 5.0)],
    "max_grad_norm": [(SGD, None, 0.01), (SGD, 0.01, None)],
    "class_weight": [({}, None, {0: 5.0}), ({}, None, "balanced"), ({}, {0: 5.0}, None)],
    "dropout": [({}, None, 0.4), ({}, None, (0.2, 0.0, 0.4)), ({}, 0.4, 0.0)],
    "label_smoothing": [({}, None, 0.2)],
    "input_noise": [({}, None, 0.5)],
    "input_mask": [({}, None, 0.5)],
    "mixup": [({}, None, 0.4)],
    "loss_reduction": [({"class_weight": {0: 5.0}}, None, "mean")],
    "loss": [({}, "squared_error", "huber"), ({}, "squared_error", "absolute_error"), ({}, "squared_error", "poisson")],
    "quantile": [({"loss": "quantile"}, None, 0.9)],
    "huber_delta": [({"loss": "huber"}, None, 0.1)],
}  # fmt: skip
# Of a fit that begins anew only.
ANEW = {
    "weight_init": ({}, "he_normal"),
    "bias_init": ({}, ("constant", 0.5)),
    "pretrained": ({"pretrained_rate": 1.0}, BODY),
    "pretrained_rate": ({"pretrained": BODY}, 0.5),
}
# The network would be another one.
REFUSED = {"hidden_layer_sizes": (17, 8), "batch_norm": True, "residual": True}
# Of time and output only.
WITHOUT_RESULT = {"n_jobs": 2, "verbose": 1}

# partial_fit makes one epoch, whatever the loss does, holds no rows out, and does not see all rows.
NOT_IN_PARTIAL_FIT = {
    "max_fun",
    "tol",
    "n_iter_no_change",
    "early_stopping",
    "validation_fraction",
    "validation_metric",
}
CASES = [(name, *case) for name, cases in TAKES_EFFECT.items() for case in cases]
PARTIAL_CASES = [
    (name, settings, *values)
    for name, settings, *values in CASES
    if name not in NOT_IN_PARTIAL_FIT
    and "balanced" not in values
    and (name != "max_iter" or "learning_rate" in settings)
]


def ident(case):
    """Readable test ids."""
    return case if isinstance(case, str) else None


def estimators(name, settings):
    """The classes that have a parameter, and data for them."""
    for Estimator, y in ((MLPClassifier, Y), (MLPRegressor, REAL)):
        known = inspect.signature(Estimator).parameters
        if name in known and set(settings) <= set(known):
            yield Estimator, COUNTS if Estimator is MLPRegressor and name == "loss" else y


def adapted(Estimator, name, value):
    """The value; a metric of classification is not for numbers."""
    return "neg_mean_absolute_error" if name == "validation_metric" and Estimator is MLPRegressor else value


def put_in_place(estimator, source):
    """Give an estimator that was trained otherwise the parameters, the record and the generator of ``source``."""
    estimator.network_.adopt()
    estimator.network_.parameters = source.network_.parameters
    estimator.network_.statistics[:] = source.network_.statistics
    estimator._rng = copy.deepcopy(source._rng) if estimator.random_state == source.random_state else None
    for attribute in (
        "history_", "loss_curve_", "best_loss_", "validation_scores_", "validation_loss_curve_",
        "best_validation_score_", "t_", "_no_improvement_count", "_run_terms",
    ):  # fmt: skip
        if hasattr(source, attribute):
            setattr(estimator, attribute, copy.deepcopy(getattr(source, attribute)))
    kept, own = (getattr(e, "_optimizer_state", None) for e in (source, estimator))
    if kept is not None and kept["rule"] == own["rule"] and kept["arrays"].dtype == own["arrays"].dtype:
        estimator._optimizer_state = copy.deepcopy(kept)
        if estimator.random_state != source.random_state:
            estimator._optimizer_state["seed"] = None  # another key is drawn
    elif own is not None:
        del estimator._optimizer_state


def assert_same_run(got, expected, unchanged):
    """Same parameters and losses, which are not those of a run without the change."""
    assert got.network_.dtype == expected.network_.dtype
    assert got.network_.activations == expected.network_.activations
    assert got.network_.out_activation == expected.network_.out_activation
    assert np.array_equal(got.network_.parameters, expected.network_.parameters)
    assert got.loss_ == expected.loss_
    assert got.n_iter_ == expected.n_iter_
    assert (
        got.n_iter_ != unchanged.n_iter_
        or got.network_.dtype != unchanged.network_.dtype
        or not np.array_equal(got.network_.parameters, unchanged.network_.parameters)
    )


def test_every_parameter_is_in_a_table():
    """A new one needs a row above."""
    tables = [TAKES_EFFECT, ANEW, REFUSED, WITHOUT_RESULT, {"warm_start": None}]
    names = [name for table in tables for name in table]
    assert len(set(names)) == len(names)
    assert set(names) == set(MLPClassifier().get_params()) | set(MLPRegressor().get_params())


@pytest.mark.parametrize(("name", "settings", "first", "then"), CASES, ids=ident)
def test_fit_goes_on_with_the_new_value(name, settings, first, then):
    """fit, set_params, fit: as if the value had been there from the beginning."""
    for Estimator, y in estimators(name, settings):
        default = inspect.signature(Estimator).parameters[name].default
        settings, value = {**SMALL, **settings}, adapted(Estimator, name, default if then is None else then)
        if first is not None:
            settings[name] = first
        estimator = Estimator(**settings).fit(X, y)
        unchanged = copy.deepcopy(estimator).fit(X, y)
        expected = Estimator(**{**settings, name: value}).fit(X, y)
        put_in_place(expected, estimator)
        start = estimator.network_.parameters.copy()
        assert_same_run(estimator.set_params(**{name: value}).fit(X, y), expected.fit(X, y), unchanged)
        assert not np.array_equal(estimator.network_.parameters, start)


@pytest.mark.parametrize(("name", "settings", "first", "then"), PARTIAL_CASES, ids=ident)
def test_partial_fit_goes_on_with_the_new_value(name, settings, first, then):
    """Three times partial_fit, set_params, partial_fit; the optimizer's memory is kept where the rule stays."""
    for Estimator, y in estimators(name, settings):
        default = inspect.signature(Estimator).parameters[name].default
        settings, value = {**SMALL, **settings}, default if then is None else then
        if first is not None:
            settings[name] = first
        classes = {"classes": [0, 1, 2]} if Estimator is MLPClassifier else {}
        estimator, expected = Estimator(**settings), Estimator(**{**settings, name: value})
        for each in (estimator, expected):
            each.partial_fit(X, y, **classes).partial_fit(X, y).partial_fit(X, y)
        unchanged = copy.deepcopy(estimator).partial_fit(X, y)
        put_in_place(expected, estimator)
        expected._run_terms = expected._terms()
        assert_same_run(estimator.set_params(**{name: value}).partial_fit(X, y), expected.partial_fit(X, y), unchanged)
        assert estimator.history_[-1]["learning_rate"] == expected.history_[-1]["learning_rate"]


@pytest.mark.parametrize("name", ANEW)
def test_of_a_fit_that_begins_anew_only(name):
    """No matter to what goes on; with warm_start=False it takes effect."""
    settings, value = ANEW[name]
    settings = {**SMALL, **settings}
    for go_on in ("fit", "partial_fit"):
        estimator = MLPClassifier(**settings).fit(X, Y)
        unchanged, changed = copy.deepcopy(estimator), copy.deepcopy(estimator).set_params(**{name: value})
        getattr(unchanged, go_on)(X, Y)
        getattr(changed, go_on)(X, Y)
        assert np.array_equal(changed.network_.parameters, unchanged.network_.parameters)
        assert changed.layer_rates_ == unchanged.layer_rates_
    for each in (estimator, changed):
        each.set_params(warm_start=False).fit(X, Y)
    assert not np.array_equal(changed.network_.parameters, estimator.network_.parameters)
    expected = MLPClassifier(**{**settings, "warm_start": False, name: value}).fit(X, Y)
    assert np.array_equal(changed.network_.parameters, expected.network_.parameters)


@pytest.mark.parametrize("go_on", ["fit", "partial_fit"])
@pytest.mark.parametrize("name", REFUSED)
def test_another_network_is_refused(name, go_on):
    """The error names the parameter, what it was and what it is; the estimator is as before, and begins anew if told
    to."""
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    before = dict(vars(estimator))
    estimator.set_params(**{name: REFUSED[name]})
    named = name if name != "hidden_layer_sizes" else r"13, 17, 8, 3"
    words = rf"fitted network has layers .*; to go on from it, .*{named}"
    with pytest.raises(ValueError, match=words):
        getattr(estimator, go_on)(X, Y)
    assert {**vars(estimator), name: before[name]} == before
    estimator.set_params(warm_start=False).fit(X, Y)
    expected = MLPClassifier(**{**SMALL, name: REFUSED[name]}).fit(X, Y)
    assert np.array_equal(estimator.network_.parameters, expected.network_.parameters)


@pytest.mark.parametrize("name", WITHOUT_RESULT)
def test_without_result(name):
    """Not a bit."""
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    unchanged = copy.deepcopy(estimator).fit(X, Y)
    estimator.set_params(**{name: WITHOUT_RESULT[name]}).fit(X, Y)
    assert np.array_equal(estimator.network_.parameters, unchanged.network_.parameters)


def test_warm_start_itself():
    """Switched on after a fit that began anew, it goes on; switched off, it begins anew."""
    settings = {**SMALL, "warm_start": False}
    estimator = MLPClassifier(**settings).fit(X, Y)
    first = estimator.network_.parameters.copy()
    expected = MLPClassifier(**SMALL).fit(X, Y).fit(X, Y)
    assert np.array_equal(
        estimator.set_params(warm_start=True).fit(X, Y).network_.parameters, expected.network_.parameters
    )
    assert np.array_equal(estimator.set_params(warm_start=False).fit(X, Y).network_.parameters, first)


@pytest.mark.parametrize(
    "name", [name for name in core.ACTIVATIONS if name in ("identity", "logistic", "tanh", "relu")]
)
@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_activation_changes_as_in_sklearn(kind, name):
    """scikit-learn goes on with the new activation, and so do we; of the rest, the same curve."""
    settings = {**SMALL, "max_iter": 20, "activation": "logistic" if name != "logistic" else "tanh"}
    pair, y = {"classifier": ("MLPClassifier", Y), "regressor": ("MLPRegressor", REAL)}[kind]
    theirs, ours = (getattr(module, pair)(**settings).fit(X, y) for module in (sklearn_mlp, fastmlp))
    for estimator in (theirs, ours):
        estimator.set_params(
            activation=name, learning_rate_init=0.01, alpha=0.01, beta_1=0.8, batch_size=50, shuffle=False
        ).fit(X, y)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=SKLEARN_CURVE_RTOL, atol=0)
    assert len(ours.loss_curve_) == 2 * 20


def test_prediction_waits_for_the_next_fit():
    """set_params alone changes no prediction: the fitted network has its own activation, output and type."""
    estimator = MLPRegressor(**SMALL).fit(X, COUNTS)
    before = estimator.predict(X)
    estimator.set_params(activation="tanh", loss="poisson", dtype="float32", dropout=0.5)
    assert np.array_equal(estimator.predict(X), before)
    assert (estimator.fit(X, COUNTS).predict(X) > 0).all()


def test_type_auto_is_that_of_the_network():
    """What goes on keeps its element type, whatever that of X."""
    estimator = MLPClassifier(**SMALL).fit(X.astype(np.float32), Y)
    assert estimator.fit(X, Y).network_.dtype == np.float32
    assert estimator.set_params(dtype="float64").fit(X, Y).network_.dtype == np.float64
    assert estimator.set_params(dtype="auto").fit(X.astype(np.float32), Y).network_.dtype == np.float64


@pytest.mark.parametrize(("schedule", "expected"), [
    ("constant", lambda t: 0.2), ("invscaling", lambda t: 0.2 / (t + 1) ** 0.5), ("adaptive", lambda t: 0.2),
    ("cosine", lambda t: 0.2 * CosineDecay()(3, 4)),
])  # fmt: skip
def test_partial_fit_takes_the_new_rate_at_once(schedule, expected):
    """Not an epoch later, and at the time that the run has come to."""
    estimator = MLPClassifier(
        **{**SMALL, "batch_size": len(X)}, solver="sgd", learning_rate=schedule, learning_rate_init=0.1
    )
    for _ in range(3):
        estimator.partial_fit(X, Y, classes=[0, 1, 2])
    estimator.set_params(learning_rate_init=0.2).partial_fit(X, Y)
    assert estimator.history_[-1]["learning_rate"] == expected(3 * len(X))
    assert estimator._optimizer_state["n_updates"] == 4


def test_constant_schedule_has_one_rate():
    """Whatever the last call ended with."""
    assert make_schedule("constant", "sgd", 0.2, 0.5, rate=0.1).rate == 0.2
    assert make_schedule("adaptive", "adam", 0.2, 0.5, rate=0.1).rate == 0.2


def test_adaptive_rate_is_kept_while_nothing_changes():
    """Further partial_fits go on from the rate that stalling has led to; another learning_rate_init begins anew."""
    settings = {
        **SMALL,
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 0.1,
        "tol": 100.0,
        "n_iter_no_change": 1,
    }
    estimator = MLPClassifier(**settings)
    for _ in range(5):
        estimator.partial_fit(X, Y, classes=[0, 1, 2])
    rates = [entry["learning_rate"] for entry in estimator.history_]
    assert rates[0] == 0.1 > rates[-1]
    estimator.set_params(momentum=0.8, alpha=0.1).partial_fit(X, Y)
    assert estimator.history_[-1]["learning_rate"] <= rates[-1]
    assert estimator.set_params(learning_rate_init=0.3).partial_fit(X, Y).history_[-1]["learning_rate"] == 0.3


@pytest.mark.parametrize(("change", "kept"), [
    ({"alpha": 0.5}, True), ({"momentum": 0.5}, True), ({"batch_size": 16}, True), ({"learning_rate_init": 0.5}, True),
    ({"activation": "tanh"}, True), ({"dropout": 0.2}, True),
    ({"solver": "adam"}, False), ({"momentum": 0.0}, False), ({"nesterovs_momentum": False}, False),
    ({"dtype": "float32"}, False),
])  # fmt: skip
def test_optimizer_memory_outlives_what_it_can(change, kept):
    """Between calls of partial_fit; another update rule or element type begins with an empty memory."""
    estimator = MLPClassifier(**SMALL, **SGD).partial_fit(X, Y, classes=[0, 1, 2])
    updates = estimator._optimizer_state["n_updates"]
    estimator.set_params(**change).partial_fit(X, Y)
    assert estimator._optimizer_state["n_updates"] == kept * updates + -(-len(X) // estimator.batch_size)


# --- what was best by other terms ----------------------------------------------------------------------------

OTHER_LOSSES = {
    "alpha": (MLPClassifier, {}, 30.0),
    "l1_ratio": (MLPClassifier, {"alpha": 3.0}, 1.0),
    "class_weight": (MLPClassifier, {"class_weight": {0: 100.0, 1: 0.01, 2: 0.01}}, None),
    "label_smoothing": (MLPClassifier, {}, 0.5),
    "dropout": (MLPClassifier, {}, 0.8),
    "input_noise": (MLPClassifier, {}, 5.0),
    "input_mask": (MLPClassifier, {}, 0.8),
    "mixup": (MLPClassifier, {}, 1.0),
    "loss": (MLPRegressor, {}, "absolute_error"),
    "quantile": (MLPRegressor, {"loss": "quantile", "quantile": 0.02}, 0.5),
    "huber_delta": (MLPRegressor, {"loss": "huber", "huber_delta": 0.01}, 10.0),
}


@pytest.mark.parametrize("name", OTHER_LOSSES)
def test_best_loss_begins_anew_with_another_loss(name):
    """A loss that is larger by definition is no stall: neither its least value nor the count of epochs goes on."""
    Estimator, settings, value = OTHER_LOSSES[name]
    y = Y if Estimator is MLPClassifier else REAL
    settings = {**SMALL, **settings, "max_iter": 50, "learning_rate_init": 0.01}
    estimator = Estimator(**settings).fit(X, y)
    best, n = estimator.best_loss_, len(estimator.loss_curve_)
    same = copy.deepcopy(estimator).set_params(max_iter=1).fit(X, y)
    assert same.best_loss_ == min(best, same.loss_)
    estimator.set_params(**{name: value}, n_iter_no_change=3, max_iter=5).fit(X, y)
    assert best < estimator.best_loss_ == min(estimator.loss_curve_[n:])
    assert len(estimator.loss_curve_) == len(estimator.history_) == n + estimator.n_iter_


@pytest.mark.parametrize("change", [
    {"validation_metric": "neg_log_loss"},
    {"validation_metric": lambda estimator, X, y: -1.0 + 1e-3 * estimator.score(X, y)},
])  # fmt: skip
def test_best_score_begins_anew_with_another_metric(change):
    """No score below 0 is better than an accuracy of old: all epochs would be thrown away."""
    estimator = MLPClassifier(**{**SMALL, **EARLY, "max_iter": 20}).fit(X, Y)
    best, start = estimator.best_validation_score_, estimator.network_.parameters.copy()
    same = copy.deepcopy(estimator).set_params(alpha=0.5, max_iter=1).fit(X, Y)
    assert same.best_validation_score_ == max(best, same.validation_scores_[-1])
    estimator.set_params(**change).fit(X, Y)
    assert estimator.best_validation_score_ == max(estimator.validation_scores_[-estimator.n_iter_ :]) < 0 < best
    assert not np.array_equal(estimator.network_.parameters, start)
    assert len(estimator.validation_scores_) == len(estimator.loss_curve_)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_best_score_is_carried_over(kind):
    """A further fit that only does worse changes neither the best score nor a bit of the parameters that scored so."""
    Estimator, y = (MLPClassifier, Y) if kind == "classifier" else (MLPRegressor, REAL)
    held_out = (X[150:], y[150:])
    estimator = Estimator(**{**SMALL, **EARLY, "max_iter": 40}).fit(X[:150], y[:150], eval_set=held_out)
    best, start = estimator.best_validation_score_, estimator.network_.parameters.copy()
    estimator.set_params(learning_rate_init=30.0, solver="sgd", momentum=0.0, alpha=0.0, activation="logistic")
    estimator.fit(X[:150], y[:150], eval_set=held_out)
    assert max(estimator.validation_scores_[-estimator.n_iter_ :]) < best == estimator.best_validation_score_
    assert np.array_equal(estimator.network_.parameters, start)


def test_best_score_of_a_run_without_early_stopping_steers_nothing():
    """The parameters that scored so were not kept, so the next run has to find better ones than it begins with only."""
    held_out = classification(3, seed=1)
    estimator = MLPClassifier(**{**SMALL, "max_iter": 30, "learning_rate_init": 0.01}).fit(X, Y, eval_set=held_out)
    estimator.best_validation_score_ = 1.0  # as if it had come close
    start = estimator.network_.parameters.copy()
    estimator.set_params(early_stopping=True, max_iter=5).fit(X, Y, eval_set=held_out)
    assert estimator.best_validation_score_ == max(estimator.validation_scores_[30:])
    assert not np.array_equal(estimator.network_.parameters, start)


def test_solvers_of_both_kinds_take_turns():
    """L-BFGS has a history but no curve: what follows it begins a new one of each, from its network."""
    estimator = MLPClassifier(**SMALL, solver="lbfgs").fit(X, Y)
    start = estimator.network_.copy()
    estimator.set_params(solver="adam").fit(X, Y)
    assert [entry["loss"] for entry in estimator.history_] == estimator.loss_curve_
    assert [entry["epoch"] for entry in estimator.history_] == [1, 2, 3, 4]
    expected = MLPClassifier(**SMALL).fit(X, Y)
    expected.network_.parameters = start.parameters
    assert np.array_equal(expected.fit(X, Y).network_.parameters, estimator.network_.parameters)
    assert estimator.t_ == 4 * len(X)
    start = estimator.network_.copy()
    estimator.set_params(solver="lbfgs").fit(X, Y)
    assert not hasattr(estimator, "loss_curve_")
    expected = MLPClassifier(**SMALL, solver="lbfgs").fit(X, Y)
    expected.network_.parameters = start.parameters
    assert np.array_equal(expected.fit(X, Y).network_.parameters, estimator.network_.parameters)
    estimator.set_params(solver="sgd").partial_fit(X, Y)
    assert len(estimator.history_) == 1


CONVERGED = {
    "hidden_layer_sizes": (8,),
    "learning_rate_init": 0.02,
    "max_iter": 500,
    "random_state": 0,
    "warm_start": True,
    "tol": 1e-3,
}


@pytest.mark.parametrize(
    "change",
    [
        lambda estimator: estimator.grow((24,), random_state=0),
        lambda estimator: estimator.freeze(),
        lambda estimator: estimator.freeze().unfreeze(1).freeze(0),
    ],
    ids=["grow", "freeze", "freeze both ways"],
)
def test_a_changed_network_gets_its_own_patience(change):
    """After a plateau the count of epochs without improvement stood at its limit: one epoch, and the next fit was
    over."""
    X, y = classification(3)
    estimator = MLPClassifier(**CONVERGED).fit(X, y)
    assert estimator.n_iter_ < 500
    estimator.set_params(learning_rate_init=1.0)  # nothing gets better now
    assert copy.deepcopy(estimator).fit(X, y).n_iter_ == 1  # unchanged, as in scikit-learn
    change(estimator)
    estimator.fit(X, y)
    assert estimator.n_iter_ > estimator.n_iter_no_change
    assert estimator.best_loss_ == min(estimator.loss_curve_[-estimator.n_iter_ :])


def test_a_changed_metric_is_a_new_measure():
    """No log-loss, which is below 0 as a score, is better than an accuracy: the run ended at once, where it had
    begun."""
    X, y = classification(3)
    estimator = MLPClassifier(**CONVERGED, early_stopping=True).fit(X, y)
    start = estimator.network_.parameters.copy()
    estimator.set_params(validation_metric="neg_log_loss", learning_rate_init=1e-4, max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(X, y)
    assert estimator.n_iter_ == 3
    assert estimator.best_validation_score_ == max(estimator.validation_scores_[-3:]) < 0
    assert not np.array_equal(estimator.network_.parameters, start)


def test_partial_fit_of_a_row_that_lacks_a_class():
    """warm_start is about ``fit``: a batch of ``partial_fit`` need not have all classes."""
    X, y = np.eye(6), np.array([0, 1, 2, 0, 1, 2])
    warm, cold = (MLPClassifier((3,), warm_start=warm, max_iter=2, random_state=0).fit(X, y) for warm in (True, False))
    assert np.array_equal(warm.partial_fit(X[:1], y[:1]).coefs_[0], cold.partial_fit(X[:1], y[:1]).coefs_[0])
    with pytest.raises(ValueError, match="same classes as in the previous call"):
        warm.fit(X[:2], y[:2])
