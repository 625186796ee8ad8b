"""A fit that cannot have gone well says so, once, and names the columns; a fit that went well is silent."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from helpers import rest_slow
from scipy.sparse import csr_matrix
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor

BAD = "cannot have gone well"
SCALES = np.array([1, 10, 1e3, 1e5, 1e6, 1])


def messages(estimator, X, y) -> list[str]:
    """What the fit warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(X, y)
    assert {warning.category for warning in caught} <= {ConvergenceWarning}
    return [str(warning.message) for warning in caught]


def unscaled(rng):
    X = rng.rand(500, 6) * SCALES
    return X, X[:, 4] > 5e5


def salaries(rng, n_outputs=1):
    X = rng.standard_normal((500, 6))
    y = 180_000 + 40_000 * X[:, :n_outputs]
    return X, y[:, 0] if n_outputs == 1 else y


@pytest.mark.parametrize("form", [np.asarray, csr_matrix])
def test_loss_that_grew(rng, form):
    X, y = unscaled(rng)
    fitted = MLPClassifier(solver="sgd", random_state=0)
    (message,) = messages(fitted, form(X), y)
    assert BAD in message
    assert "in the first epoch" in message
    assert "Scaler before the network" in message
    assert min(fitted.loss_curve_) == fitted.loss_curve_[0]
    places = [message.index(f"column {i} of X") for i in (4, 3, 2)]
    assert places == sorted(places)  # the farthest first
    assert "column 0" not in message
    assert "target" not in message


def test_columns_have_the_names_of_a_data_frame(rng):
    pandas = pytest.importorskip("pandas")
    X, y = unscaled(rng)
    X = pandas.DataFrame(X, columns=list("abcdef"))
    for estimator in (MLPClassifier(), MLPEnsembleClassifier(n_estimators=2, random_state=0)):
        (message,) = messages(estimator, X, y)
        assert BAD in message
        assert "column 'e' of X" in message


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_target_on_its_own_scale(rng, loss, early_stopping):
    X, y = salaries(rng)
    estimator = MLPRegressor(loss, early_stopping=early_stopping, max_iter=20, random_state=0)
    (message,) = messages(estimator, X, y)  # that of max_iter is not a second one
    assert BAD in message
    assert "the target" in message
    assert "TransformedTargetRegressor" in message
    assert "of X" not in message
    estimator.set_params(max_iter=200)
    assert not any("unit scale" in text or BAD in text for text in messages(estimator, X, (y - 180_000) / 40_000))


def test_one_of_two_targets(rng):
    X, y = salaries(rng, 2)
    y[:, 0] /= 180_000
    (message,) = messages(MLPRegressor(random_state=0), X, y)
    assert "column 1 of y" in message
    assert "column 0" not in message


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("members", [None, "seeds", "snapshots"])
def test_targets_are_named_as_in_a_frame(rng, library, members):
    X, y = salaries(rng, 2)
    y[:, 0] /= 180_000
    frame = pytest.importorskip(library).DataFrame({"share": y[:, 0], "salary": y[:, 1]})
    regressor = MLPRegressor(random_state=0)
    if members:
        regressor = MLPEnsembleRegressor(regressor, 2, members=members, random_state=0)
    found = " ".join(messages(regressor, X, frame))
    assert "column 'salary' of y (mean 1" in found
    assert "'share'" not in found
    assert "the target 'salary' (mean 1" in " ".join(messages(regressor, X, frame["salary"]))


def test_target_that_is_tiny(rng):
    X, y = salaries(rng)
    (message,) = messages(MLPRegressor(random_state=0), X, y / 1e9)
    assert BAD in message
    assert "the target" in message


def test_ensemble_warns_once(rng):
    X, y = salaries(rng)
    found = [text for text in messages(MLPEnsembleRegressor(n_estimators=3, random_state=0), X, y) if BAD in text]
    assert len(found) == 1
    assert "3 of 3 members" in found[0]
    assert "TransformedTargetRegressor" in found[0]
    found = messages(MLPEnsembleRegressor(n_estimators=3, members="snapshots", random_state=0), X, y)
    assert len(found) == 1
    assert BAD in found[0]


def test_divergence_names_the_columns(rng):
    X, y = salaries(rng)
    with pytest.raises(ValueError, match=r"non-finite.*the target \(mean 1\.8"):
        MLPRegressor(solver="sgd", random_state=0).fit(X, y)


def test_learning_rate_that_is_too_large(rng):
    X = rng.standard_normal((500, 6))
    y = X[:, 0] * X[:, 1] + X[:, 2] > 0
    for solver in ("sgd", "adam"):
        (message,) = messages(MLPClassifier(solver=solver, learning_rate_init=100, random_state=0), X, y)
        assert BAD in message
        assert "learning_rate_init" in message
        assert "unit scale" not in message


def test_constant_predictions(rng):
    X = rng.standard_normal((300, 4))
    (message,) = messages(MLPClassifier(random_state=0, alpha=1000), X, X[:, 0] > 0)
    assert "predicts the same for all rows" in message
    assert "smaller alpha" in message


def test_loss_that_stays_above_a_constants(rng):
    X = rng.standard_normal((300, 4))
    (message,) = messages(MLPClassifier((20,), "logistic", solver="sgd", random_state=0), X, X[:, 0] * X[:, 1] > 0)
    assert BAD in message
    assert "learning_rate_init" in message


def test_inputs_that_are_tiny(rng):
    X = rng.standard_normal((300, 3))
    (message,) = messages(MLPClassifier(random_state=0), X * 1e-5, X[:, 0] > 0)
    assert "column 0 of X" in message
    assert "StandardScaler" in message


def test_all_that_partial_fit_sees_is_one_step(rng):
    X, y = salaries(rng)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLPRegressor(random_state=0).partial_fit(X, y)


def test_labels_that_are_all_0_are_a_constant(rng):
    """A network cannot do better than to predict them, and need not."""
    X, Y = rng.standard_normal((200, 3)), np.zeros((200, 3), int)
    assert messages(MLPClassifier(random_state=0, tol=1e-2), X, Y) == []


def test_rows_that_come_one_by_one_are_not_judged(rng):
    """After n_iter_no_change calls without a lower loss, too: of one row, a constant prediction is always right."""
    X = rng.standard_normal((40, 3))
    classifier, regressor = MLPClassifier(random_state=0), MLPRegressor(random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in range(len(X)):
            one = slice(row, row + 1)
            classifier.partial_fit(X[one], X[one, 0] > 0, classes=[False, True])
            regressor.partial_fit(X[one], X[one, 0])


WELL = {
    "default": {},
    "short": {"max_iter": 2},
    "sgd": {"solver": "sgd"},
    "lbfgs": {"solver": "lbfgs", "max_iter": 1000},
    "early": {"early_stopping": True},
    "dropout": {"dropout": 0.5},
    "mixup": {"mixup": 0.4, "max_iter": 30},
    "planned": {"learning_rate": "one_cycle", "learning_rate_init": 0.01, "max_iter": 20},
}
CLASSIFICATION = [load_iris, load_wine, load_breast_cancer, load_digits]
REGRESSION = [load_diabetes, load_linnerud]


@pytest.mark.parametrize(
    ("load", "way"),
    rest_slow(
        itertools.product([*CLASSIFICATION, *REGRESSION], WELL),
        *((load, "default") for load in [*CLASSIFICATION, *REGRESSION]),
        *((load, way) for load in (load_wine, load_linnerud) for way in WELL if way != "default"),
    ),
)
def test_silent_of_scaled_data(load, way):
    parameters = WELL[way]
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    estimator = MLPClassifier(random_state=0, **parameters)
    if load in REGRESSION:
        y = StandardScaler().fit_transform(y.reshape(len(y), -1)).reshape(y.shape)
        estimator = MLPRegressor(random_state=0, **parameters)
    found = messages(estimator, X, y)
    assert not any(BAD in text or "unit scale" in text for text in found), found


@pytest.mark.crossed
@pytest.mark.parametrize("load", CLASSIFICATION)
@pytest.mark.parametrize(
    "parameters", [{}, {"dtype": "float32"}, {"early_stopping": True}], ids=["default", "float32", "early"]
)
def test_as_they_come_silent_if_it_went_well(load, parameters):
    """A warning if and only if the labels are no better than the most frequent one."""
    X, y = load(return_X_y=True)
    estimator = MLPClassifier(random_state=0, **parameters)
    found = [text for text in messages(estimator, X, y) if BAD in text]
    accuracy, chance = estimator.score(X, y), np.bincount(y).max() / len(y)
    assert accuracy > 0.6 or accuracy < chance + 0.05
    assert bool(found) == (accuracy < chance + 0.05)


def test_pure_noise_of_many_rows_is_no_fault_of_scale(rng):
    X, y = rng.standard_normal((2000, 5)), rng.standard_normal(2000)
    assert not any("unit scale" in text for text in messages(MLPRegressor(random_state=0), X, y))


def test_constant_target_is_silent(rng):
    X = rng.standard_normal((100, 3))
    assert not any(BAD in text for text in messages(MLPRegressor(random_state=0), X, np.ones(100)))
