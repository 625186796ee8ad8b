"""scikit-learn's searches over parameters: grids, random and halving, with objects among the values, in processes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers import classification, regression, rest_slow
from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (the halving searches ask for it)
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    ShuffleSplit,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmlp import CosineDecay, MLPClassifier, MLPRegressor, OneCycle

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (17, 9), "max_iter": 15, "random_state": 3, "batch_size": 32}
X, Y = classification(3)
REAL = regression()[1]


def power(exponent):
    """A schedule of the user's own. Processes get such a function by value: they may not find this file."""

    def factor(step, n_steps):
        return (1 - step / n_steps) ** exponent

    return factor


FALLING = power(2)


@pytest.fixture(scope="module")
def network():
    """A trained body."""
    return MLPClassifier(**{**SMALL, "max_iter": 60}, learning_rate_init=0.01).fit(X, Y).network_


# name -> (grid, the value that must win: the others hardly train at all, or are wild)
GRIDS = {
    "learning_rate_init": ({"learning_rate_init": [1e-7, 0.01, 1e3]}, 0.01),
    "batch_size": ({"batch_size": [16, 128], "learning_rate_init": [1e-3]}, 16),
    "alpha": ({"alpha": [0.0, 1e4], "learning_rate_init": [0.01]}, 0.0),
    "momentum": ({"momentum": [0.0, 0.9], "solver": ["sgd"], "learning_rate_init": [5e-3]}, 0.9),
    "dropout": ({"dropout": [0.0, (0.99, 0.9, 0.9)], "learning_rate_init": [0.01]}, 0.0),
    "solver": ({"solver": ["adam", "sgd"], "learning_rate_init": [3e-3], "momentum": [0.0]}, "adam"),
    "learning_rate": (
        {"learning_rate": [CosineDecay(final=0.1), lambda step, n_steps: 1e-6], "learning_rate_init": [0.01]},
        CosineDecay(final=0.1),
    ),
    "hidden_layer_sizes": ({"hidden_layer_sizes": [(1,), (17, 9)], "learning_rate_init": [0.01]}, (17, 9)),
}


def scores(search):
    """Scores of each candidate and split, and the winner."""
    keys = [key for key in search.cv_results_ if key.endswith("_score") and "time" not in key]
    return {key: np.asarray(search.cv_results_[key]).tolist() for key in keys} | {"best": search.best_index_}


@pytest.mark.parametrize("name", GRIDS)
def test_grid_finds_what_trains(name):
    """One by one: the winner is the one that trains, its refit is a fit with these parameters."""
    grid, expected = GRIDS[name]
    search = GridSearchCV(MLPClassifier(**SMALL), grid, cv=3, error_score="raise").fit(X, Y)
    assert search.best_params_[name] == expected
    assert search.best_score_ > 0.55 > 1 / 3
    direct = MLPClassifier(**{**SMALL, **search.best_params_}).fit(X, Y)
    assert np.array_equal(search.best_estimator_.network_.parameters, direct.network_.parameters)


OBJECTS = {
    "learning_rate": ["constant", "cosine", CosineDecay(final=0.1), OneCycle(warmup=0.2), FALLING],
    "learning_rate_init": [1e-3, 0.03],
}


def test_grid_of_objects():
    """Schedules are values like any others: cloned by value, listed as they came, the same scores in processes."""
    searches = [
        GridSearchCV(MLPClassifier(**SMALL), OBJECTS, cv=3, n_jobs=n_jobs, error_score="raise").fit(X, Y)
        for n_jobs in (None, None, 2)
    ]
    assert scores(searches[0]) == scores(searches[1]) == scores(searches[2])
    for search in searches:
        listed = [params["learning_rate"] for params in search.cv_results_["params"]]
        assert sorted(map(repr, listed)) == sorted(map(repr, 2 * OBJECTS["learning_rate"]))
        assert list(search.cv_results_["param_learning_rate"]) == listed
        assert search.best_estimator_.learning_rate == search.best_params_["learning_rate"]
    means = dict(
        zip(map(repr, searches[0].cv_results_["params"]), searches[0].cv_results_["mean_test_score"], strict=True)
    )
    assert len(means) == 10
    assert len(set(means.values())) > 2


def test_grid_with_a_pretrained_body(network):
    """A network among the values: a new head on a frozen body beats a body of random numbers."""
    grid = {"pretrained": [None, network], "pretrained_rate": [0.0, 1.0]}
    settings = {**SMALL, "max_iter": 8, "learning_rate_init": 3e-3}
    before = network.parameters.copy()
    searches = [
        GridSearchCV(MLPClassifier(**settings), grid, cv=3, n_jobs=n_jobs, error_score="raise").fit(X, Y)
        for n_jobs in (None, 2)
    ]
    assert scores(searches[0]) == scores(searches[1])
    assert np.array_equal(network.parameters, before)
    for search in searches:
        found = search.best_estimator_
        assert np.array_equal(found.pretrained.parameters, before)
        assert search.best_params_["pretrained"] is not None
        assert found.layer_rates_ == (found.pretrained_rate, found.pretrained_rate, 1.0)
    frozen = [k for k, params in enumerate(searches[0].cv_results_["params"]) if params["pretrained_rate"] == 0]
    without, with_body = searches[0].cv_results_["mean_test_score"][frozen]
    assert with_body > without


@pytest.mark.parametrize("value", [CosineDecay(final=0.1), OneCycle(), FALLING, "network"])
def test_clone_keeps_objects(value, network):
    """By value, not by identity for what can be changed, and the clone trains to the same bits."""
    settings = {"pretrained": network, "pretrained_rate": 0.5} if value == "network" else {"learning_rate": value}
    estimator = MLPClassifier(**SMALL, **settings)
    other = clone(estimator)
    if value == "network":
        assert other.pretrained is not network
        assert np.array_equal(other.pretrained.parameters, network.parameters)
    else:
        assert other.learning_rate == value
    assert np.array_equal(other.fit(X, Y).network_.parameters, estimator.fit(X, Y).network_.parameters)


DISTRIBUTIONS = {
    "learning_rate_init": loguniform(1e-4, 1e-1), "alpha": loguniform(1e-6, 1e-1), "batch_size": [16, 32, 64],
    "momentum": uniform(0.5, 0.5),
    "dropout": uniform(0.0, 0.5), "solver": ["adam", "sgd", "rmsprop"],
    "learning_rate": ["constant", CosineDecay(final=0.1)],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_random_search(kind):
    """The same draws and scores each time, in processes too, and the best of them trains."""
    estimator, y = (MLPClassifier(**SMALL), Y) if kind == "classifier" else (MLPRegressor(**SMALL), REAL)
    searches = [
        RandomizedSearchCV(
            estimator, DISTRIBUTIONS, n_iter=8, cv=3, random_state=0, n_jobs=n_jobs, error_score="raise"
        ).fit(X, y)
        for n_jobs in (None, None, 2)
    ]
    assert scores(searches[0]) == scores(searches[1]) == scores(searches[2])
    assert repr(searches[0].best_params_) == repr(searches[2].best_params_)
    assert len({tuple(map(repr, params.values())) for params in searches[0].cv_results_["params"]}) == 8
    assert searches[0].best_score_ > (0.6 if kind == "classifier" else 0.0)
    assert searches[0].best_params_["learning_rate_init"] > 5e-4


@pytest.mark.parametrize(
    ("kind", "resource"),
    rest_slow(
        itertools.product(["grid", "random"], ["n_samples", "max_iter"]), ("grid", "max_iter"), ("random", "n_samples")
    ),
)
def test_halving_search(kind, resource):
    """With rows or epochs as the resource, the rates that cannot train are out after the first round."""
    rates = [1e-7, 1e-6, 3e-3, 0.01, 0.03, 1e3, 1e4, 1e5]
    budget = {
        "min_resources": 60 if resource == "n_samples" else 3,
        "max_resources": 180 if resource == "n_samples" else 27,
    }
    settings = {name: value for name, value in SMALL.items() if name != resource}
    common = {
        "resource": resource, **budget, "factor": 3, "cv": ShuffleSplit(3, test_size=0.3, random_state=0),
        "random_state": 0,
        "error_score": "raise",
    }  # fmt: skip
    searches = []
    for n_jobs in (None, None, 2):
        if kind == "grid":
            search = HalvingGridSearchCV(
                MLPClassifier(**settings), {"learning_rate_init": rates}, n_jobs=n_jobs, **common
            )
        else:
            values = {"learning_rate_init": rates, "learning_rate": ["constant", CosineDecay(final=0.1)]}
            search = HalvingRandomSearchCV(MLPClassifier(**settings), values, n_candidates=12, n_jobs=n_jobs, **common)
        searches.append(search.fit(X, Y))
    assert scores(searches[0]) == scores(searches[1]) == scores(searches[2])
    first = searches[0]
    assert first.n_candidates_[0] > first.n_candidates_[-1] > 0
    assert first.best_params_["learning_rate_init"] in (3e-3, 0.01, 0.03)
    if resource == "max_iter":
        assert first.best_params_["max_iter"] == first.n_resources_[-1]
        assert first.best_estimator_.n_iter_ <= first.n_resources_[-1]


def test_search_in_a_pipeline():
    """Parameters by the step's name, the scaler fitted within each split."""
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL))
    grid = {f"mlpclassifier__{name}": values for name, values in OBJECTS.items()}
    searches = [
        GridSearchCV(pipeline, grid, cv=3, n_jobs=n_jobs, error_score="raise").fit(100 * X + 7, Y)
        for n_jobs in (None, 2)
    ]
    assert scores(searches[0]) == scores(searches[1])
    assert searches[0].best_score_ > 0.6


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_threads_of_the_estimator_change_no_score(n_jobs):
    """n_jobs of the estimator within n_jobs of the search."""
    grid = {"learning_rate_init": [1e-3, 0.01]}
    found = [
        GridSearchCV(MLPClassifier(**SMALL, n_jobs=n), grid, cv=3, n_jobs=n_jobs, error_score="raise").fit(X, Y)
        for n in (None, 2)
    ]
    assert scores(found[0]) == scores(found[1])


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_failed_candidates_are_scored_so():
    """A candidate whose training diverges is a failed fit to the search, with NaN as its score, and does not win."""
    grid = {"learning_rate_init": [0.01, 1e30], "solver": ["sgd"]}
    with pytest.warns(RuntimeWarning, match="3 fits failed out of a total of 6"):
        search = GridSearchCV(MLPRegressor(**{**SMALL, "activation": "identity"}), grid, cv=3, error_score=np.nan).fit(
            X, REAL
        )
    assert search.best_params_["learning_rate_init"] == 0.01
    assert np.isnan(search.cv_results_["mean_test_score"][1])
