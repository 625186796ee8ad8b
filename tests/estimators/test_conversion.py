"""from_sklearn and to_sklearn: the same predictions, and training that goes on as the other library's would have."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import numpy as np
import pytest
from helpers import SKLEARN_CURVE_RTOL, SKLEARN_LBFGS_RTOL, classification, counts, multilabel, regression, tolerance
from scipy.sparse import csr_matrix, issparse
from scipy.special import expit, softmax
from sklearn import neural_network as theirs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:lbfgs failed")

X, Y = classification(3)
SMALL = {"hidden_layer_sizes": (9, 7), "max_iter": 4, "random_state": 5, "batch_size": 50}
# name -> (kind of estimator, parameters, targets)
TASKS = {
    "multiclass": ("MLPClassifier", {}, np.array(["a", "b", "c"])[Y]), "binary": ("MLPClassifier", {}, Y > 0),
    "multilabel": ("MLPClassifier", {}, multilabel()[1]),
    "one output": ("MLPRegressor", {}, regression()[1]), "poisson": ("MLPRegressor", {"loss": "poisson"}, counts()[1]),
    "early stopping": ("MLPClassifier", {"early_stopping": True}, Y > 0),
    "tanh": ("MLPRegressor", {"activation": "tanh"}, regression()[1]),
}  # fmt: skip
SOLVERS = {
    "adam": {}, "nesterov": {"solver": "sgd"}, "momentum": {"solver": "sgd", "nesterovs_momentum": False},
    "sgd": {"solver": "sgd", "momentum": 0.0},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling"}, "lbfgs": {"solver": "lbfgs"},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 1},
}  # fmt: skip


def output(estimator, rows=X):
    """Probabilities or predictions."""
    return estimator.predict_proba(rows) if hasattr(estimator, "predict_proba") else estimator.predict(rows)


def assert_close(got, expected, n_terms=1000):
    """Equal to rounding; training on multiplies it."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance(expected.dtype, n_terms, np.abs(expected).max()))


def both_ways(task, solver):
    """A fitted estimator of each library, and its counterpart in the other."""
    name, settings, y = TASKS[task]
    # Each library draws orders of its own in partial_fit, so that neither shuffles here.
    settings = {**SMALL, "shuffle": False, **settings, **SOLVERS[solver]}
    for library, convert in ((theirs, fastmlp.from_sklearn), (fastmlp, lambda estimator: estimator.to_sklearn())):
        estimator = getattr(library, name)(**settings).fit(X, y)
        yield estimator, convert(estimator), y


@pytest.mark.crossed
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("task", TASKS)
def test_predictions_are_the_same(task, solver):
    """To rounding; labels exactly; parameters and what training has left too."""
    for estimator, other, y in both_ways(task, solver):
        assert type(other).__module__.split(".")[0] != type(estimator).__module__.split(".")[0]
        assert_close(output(other), output(estimator))
        assert output(other).shape == output(estimator).shape
        assert other.score(X, y) == pytest.approx(estimator.score(X, y), rel=SKLEARN_CURVE_RTOL)
        if hasattr(estimator, "classes_"):
            assert np.array_equal(other.predict(X), estimator.predict(X))
            assert other.classes_.dtype == estimator.classes_.dtype
        shared = set(other.get_params()) & set(estimator.get_params())
        assert len(shared) > 20
        assert {n: other.get_params()[n] for n in shared} == {n: estimator.get_params()[n] for n in shared}
        for name in (
            "n_iter_",
            "t_",
            "loss_",
            "loss_curve_",
            "best_loss_",
            "validation_scores_",
            "n_layers_",
            "n_outputs_",
            "out_activation_",
        ):
            assert getattr(other, name, None) == getattr(estimator, name, None), name
        assert other.coefs_[0].dtype == estimator.coefs_[0].dtype
        other.coefs_[0][:] = 0
        assert estimator.coefs_[0].any()


@pytest.mark.crossed
@pytest.mark.parametrize("solver", [solver for solver in SOLVERS if solver != "lbfgs"])
@pytest.mark.parametrize("task", [task for task in TASKS if task != "early stopping"])
def test_partial_fit_goes_on(task, solver):
    """With the optimizer's memory and the rate: as the original goes on."""
    for estimator, other, y in both_ways(task, solver):
        fresh = copy.deepcopy(other)
        for name in ("_optimizer", "_optimizer_state"):
            fresh.__dict__.pop(name, None)
        start = output(estimator)
        for each in (estimator, other, fresh):
            for _ in range(3):
                each.partial_fit(X, y)
        assert_close(output(other), output(estimator))
        assert not np.array_equal(output(estimator), start)
        np.testing.assert_allclose(other.loss_curve_, estimator.loss_curve_, rtol=SKLEARN_CURVE_RTOL)
        if solver != "sgd" and SOLVERS[solver].get("learning_rate") is None:  # the memory matters
            assert np.abs(output(fresh) - output(estimator)).max() > np.abs(output(other) - output(estimator)).max()


# Not early stopping: there, the next fit of scikit-learn overwrites its copy of the best weights.
@pytest.mark.crossed
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("task", [task for task in TASKS if task != "early stopping"])
def test_warm_start_goes_on(task, solver):
    """From the same parameters, with the same draws."""
    for estimator, other, y in both_ways(task, solver):
        for each in (estimator, other):
            each.set_params(warm_start=True, max_iter=3, shuffle=True).fit(X, y)
        if solver == "lbfgs":  # line searches multiply rounding
            assert other.loss_ == pytest.approx(estimator.loss_, rel=SKLEARN_LBFGS_RTOL)
            continue
        assert_close(output(other), output(estimator))
        np.testing.assert_allclose(other.loss_curve_, estimator.loss_curve_, rtol=SKLEARN_CURVE_RTOL)


def test_float32_stays(rng):
    """Element types on both sides."""
    rows = X.astype(np.float32)
    for estimator, convert in (
        (theirs.MLPRegressor(**SMALL).fit(rows, Y), fastmlp.from_sklearn),
        (MLPRegressor(**SMALL).fit(rows, Y), lambda e: e.to_sklearn()),
    ):  # fmt: skip
        other = convert(estimator)
        assert other.coefs_[0].dtype == np.float32
        assert_close(output(other, rows), output(estimator, rows))


def test_there_and_back_is_the_same():
    """The same bits, parameters and optimizer's memory."""
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    other = fastmlp.from_sklearn(estimator.to_sklearn())
    assert np.array_equal(other.network_.parameters, estimator.network_.parameters)
    assert np.array_equal(other._optimizer_state["arrays"], estimator._optimizer_state["arrays"])
    assert other._optimizer_state["n_updates"] == estimator._optimizer_state["n_updates"]
    assert other._run_terms == estimator._run_terms
    assert other.get_params() == estimator.get_params()


def test_converted_models_can_be_saved(tmp_path):
    """What came from scikit-learn, and what names features had there."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    other = fastmlp.from_sklearn(theirs.MLPClassifier(**SMALL).fit(frame, Y))
    other.save(tmp_path / "model", optimizer_state=True)
    again = fastmlp.load(tmp_path / "model")
    assert list(again.feature_names_in_) == list(frame.columns)
    assert np.array_equal(
        again.partial_fit(frame, Y).predict_proba(frame), other.partial_fit(frame, Y).predict_proba(frame)
    )


def test_sparse_multilabel_stays_sparse():
    """Both ways."""
    target = csr_matrix(multilabel()[1])
    assert issparse(fastmlp.from_sklearn(theirs.MLPClassifier(**SMALL).fit(X, target)).predict(X))
    assert issparse(MLPClassifier(**SMALL).fit(X, target).to_sklearn().predict(X))


def test_batch_normalisation_goes_into_the_weights():
    """It changes no prediction; the optimizer's memory is of other weights."""
    estimator = MLPClassifier(**SMALL, batch_norm=True).fit(X, Y)
    with pytest.warns(UserWarning, match="batch_norm=True"):
        other = estimator.to_sklearn()
    assert_close(output(other), output(estimator))
    assert not hasattr(other, "_optimizer")
    other.partial_fit(X, Y)


@pytest.mark.parametrize(("settings", "match"), [
    ({"activation": "gelu"}, "activation='gelu'"),
    ({"activation": ["relu", "tanh"]}, "activation: scikit-learn has one"),
    ({"residual": True, "hidden_layer_sizes": (9, 9)}, "residual=True"),
])  # fmt: skip
def test_what_sklearn_cannot_compute_is_refused(settings, match):
    """By the parameter's name."""
    with pytest.raises(ValueError, match=match):
        MLPClassifier(**{**SMALL, **settings}).fit(X, Y).to_sklearn()


@pytest.mark.parametrize("settings", [
    {"solver": "adamw", "weight_decay": 0.1}, {"learning_rate": "cosine"}, {"dropout": 0.2}, {"loss": "huber"},
    {"max_grad_norm": 1.0},
    {"dropout": np.array([0.0, 0.1, 0.1])}, {"learning_rate": fastmlp.OneCycle()},
], ids=str)  # fmt: skip
def test_what_matters_to_training_only_is_warned_of(settings):
    """By name, and the predictions are the same; what scikit-learn then has is valid there."""
    estimator = MLPRegressor(**{**SMALL, **settings}).fit(X, Y)
    with pytest.warns(UserWarning, match="scikit-learn lacks") as caught:
        other = estimator.to_sklearn()
    assert caught[0].filename == __file__
    assert all(f"{name}=" in str(caught[0].message) for name in settings)
    assert_close(output(other), output(estimator))
    other.partial_fit(X, Y)


def by_hand(estimator, rows):
    """The output of a fitted MLP as converters compute it: from four attributes that scikit-learn has."""
    functions = {
        "relu": lambda z: np.maximum(z, 0),
        "tanh": np.tanh,
        "logistic": expit,
        "softmax": partial(softmax, axis=1),
    }
    names = [estimator.activation] * (estimator.n_layers_ - 2) + [estimator.out_activation_]
    for name, W, b in zip(names, estimator.coefs_, estimator.intercepts_, strict=True):
        rows = functions[name](rows @ W + b)
    return rows


@pytest.mark.parametrize("settings", [
    {"batch_norm": True}, {"residual": True}, {"batch_norm": True, "residual": True}, {"activation": "leaky_relu"},
    {"activation": ["relu", "tanh"]},
    {"activation": "tanh"}, {"residual": True, "hidden_layer_sizes": (9, 8)},
], ids=str)  # fmt: skip
def test_who_reads_weights_and_biases_gets_this_network_or_an_error(settings):
    """Never another network; and so it is after ``to_sklearn``."""
    estimator = MLPClassifier(**{**SMALL, "hidden_layer_sizes": (9, 9), **settings}).fit(X, Y)
    plain = settings in ({"activation": "tanh"}, {"residual": True, "hidden_layer_sizes": (9, 8)})
    if plain:
        assert_close(by_hand(estimator, X), estimator.predict_proba(X))
    else:
        with pytest.raises((AttributeError, KeyError, TypeError)):
            by_hand(estimator, X)
    if plain or settings == {"batch_norm": True}:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_close(by_hand(estimator.to_sklearn(), X), estimator.predict_proba(X))
    else:
        with pytest.raises(ValueError, match="scikit-learn has"):
            estimator.to_sklearn()


@pytest.mark.parametrize(
    ("settings", "way"), [({"batch_norm": True}, "to_sklearn"), ({"residual": True}, "no such network")]
)
def test_biases_that_are_not_all_are_not_available(settings, way):
    """Neither to read nor to replace; weights are, and both are in the network."""
    estimator = MLPClassifier(**{**SMALL, "hidden_layer_sizes": (9, 9), **settings}).fit(X, Y)
    with pytest.raises(AttributeError, match=way):
        estimator.intercepts_  # noqa: B018
    with pytest.raises(AttributeError, match=r"network_\.intercepts"):
        estimator.intercepts_ = estimator.network_.intercepts
    estimator.coefs_ = [2 * W for W in estimator.coefs_]
    assert all(np.shares_memory(W, estimator.network_.parameters) for W in estimator.coefs_)


def test_frozen_layers_are_warned_of():
    """scikit-learn would train them."""
    with pytest.warns(UserWarning, match=r"layer_rates_=\(0.0, 0.0, 1.0\)"):
        MLPClassifier(**SMALL).fit(X, Y).freeze().to_sklearn()


def test_what_sklearn_can_express_is_not_warned_of():
    """Weights' beginnings and threads do not matter any more; one activation in a list is one."""
    estimator = MLPRegressor(
        **SMALL, n_jobs=1, weight_init="orthogonal", dtype="float64", activation=["tanh", "tanh"], residual=True
    )
    estimator.fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert estimator.to_sklearn().activation == "tanh"


def test_other_estimators_are_refused():
    """Not fitted, of other classes."""
    with pytest.raises(TypeError, match="LogisticRegression"):
        fastmlp.from_sklearn(LogisticRegression())
    with pytest.raises(NotFittedError):
        fastmlp.from_sklearn(theirs.MLPClassifier())
    with pytest.raises(NotFittedError):
        MLPClassifier().to_sklearn()
