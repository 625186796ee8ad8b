"""Metadata routing: weights and validation rows reach the network through pipelines and searches, transformed as X
is."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import classification
from sklearn import config_context
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPClassifier, MLPEnsembleClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (17, 9), "max_iter": 12, "random_state": 3, "batch_size": 32, "learning_rate_init": 0.01}
X, Y = classification(3)
X = 50 * X + 7  # of no use to a network that gets it unscaled
X_VAL, Y_VAL = X[150:], Y[150:]
X, Y = X[:150], Y[:150]
WEIGHT, WEIGHT_VAL = (
    np.random.RandomState(0).uniform(0.1, 2, len(X)),
    np.random.RandomState(1).uniform(0.1, 2, len(X_VAL)),
)


@pytest.fixture(autouse=True)
def routing():
    """Metadata routing, for the length of a test."""
    with config_context(enable_metadata_routing=True):
        yield


def pipeline(**requests):
    """A scaler and a network that asks for these, in front of which X_val is transformed."""
    network = MLPClassifier(**SMALL, early_stopping=True).set_fit_request(**requests)
    return make_pipeline(StandardScaler().set_fit_request(sample_weight=False), network, transform_input=["X_val"])


def by_hand(X, Y, weight=None, **settings):
    """Scaler and network, fitted without routing."""
    scaler = StandardScaler().fit(X)
    network = MLPClassifier(**{**SMALL, **settings}, early_stopping=True)
    return scaler, network.fit(
        scaler.transform(X), Y, weight, eval_set=(scaler.transform(X_VAL), Y_VAL), sample_weight_eval=WEIGHT_VAL
    )


ASKED = {"sample_weight": True, "X_val": True, "y_val": True, "sample_weight_eval": True}
PASSED = {"sample_weight": WEIGHT, "X_val": X_VAL, "y_val": Y_VAL, "sample_weight_eval": WEIGHT_VAL}


def test_pipeline_scores_on_transformed_rows():
    """X_val is scaled as X is; weights of both kinds arrive."""
    fitted = pipeline(**ASKED).fit(X, Y, **PASSED)[-1]
    expected = by_hand(X, Y, WEIGHT)[1]
    assert fitted.validation_scores_ == expected.validation_scores_
    assert len(set(expected.validation_scores_)) > 1
    assert np.array_equal(fitted.network_.parameters, expected.network_.parameters)
    for unweighted in ("sample_weight", "sample_weight_eval"):
        other = pipeline(**{**ASKED, unweighted: False}).fit(
            X, Y, **{k: v for k, v in PASSED.items() if k != unweighted}
        )[-1]
        assert other.validation_scores_ != expected.validation_scores_


def test_search_over_a_pipeline_scores_on_transformed_rows():
    """In each split the scaler is that of the split, the weights those of its rows; X_val stays whole."""
    grid = {"mlpclassifier__alpha": [1e-4, 10.0]}
    scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
    search = GridSearchCV(pipeline(**ASKED), grid, scoring=scorer, cv=KFold(3), error_score="raise").fit(X, Y, **PASSED)
    for place, alpha in enumerate(grid["mlpclassifier__alpha"]):
        for split, (train, test) in enumerate(KFold(3).split(X)):
            scaler, network = by_hand(X[train], Y[train], WEIGHT[train], alpha=alpha)
            expected = accuracy_score(Y[test], network.predict(scaler.transform(X[test])), sample_weight=WEIGHT[test])
            assert search.cv_results_[f"split{split}_test_score"][place] == expected
    best = by_hand(X, Y, WEIGHT, alpha=search.best_params_["mlpclassifier__alpha"])[1]
    assert np.array_equal(search.best_estimator_[-1].network_.parameters, best.network_.parameters)


def test_eval_set_passes_through_as_it_is():
    """A pair goes whole through search and pipeline: its X must be what the network takes."""
    scaler = StandardScaler().fit(X)
    pair = (scaler.transform(X_VAL), Y_VAL)
    expected = MLPClassifier(**SMALL, early_stopping=True).fit(scaler.transform(X), Y, eval_set=pair)
    network = MLPClassifier(**SMALL, early_stopping=True).set_fit_request(eval_set=True, sample_weight=True)
    through = make_pipeline(StandardScaler(), network).fit(X, Y, eval_set=pair)[-1]
    assert np.array_equal(through.network_.parameters, expected.network_.parameters)
    assert through.validation_scores_ == expected.validation_scores_
    search = GridSearchCV(network.set_score_request(sample_weight=True), {"alpha": [1e-4]}, cv=3, error_score="raise")
    search.fit(scaler.transform(X), Y, eval_set=pair, sample_weight=WEIGHT)
    weighted = MLPClassifier(**SMALL, early_stopping=True).fit(scaler.transform(X), Y, WEIGHT, eval_set=pair)
    assert np.array_equal(search.best_estimator_.network_.parameters, weighted.network_.parameters)
    assert not np.array_equal(weighted.network_.parameters, expected.network_.parameters)


def test_half_a_pair_cannot_be_transformed():
    """transform_input takes both halves of eval_set for X: an error, not a training run on nonsense."""
    network = MLPClassifier(**SMALL).set_fit_request(eval_set=True)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        make_pipeline(StandardScaler(), network, transform_input=["eval_set"]).fit(X, Y, eval_set=(X_VAL, Y_VAL))


@pytest.mark.parametrize("name", ["sample_weight", "eval_set", "X_val"])
def test_nothing_is_routed_unasked(name):
    """Passed but neither requested nor refused: scikit-learn's error, which names it."""
    values = {"sample_weight": WEIGHT, "eval_set": (X_VAL, Y_VAL), "X_val": X_VAL}
    steps = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), MLPClassifier(**SMALL))
    with pytest.raises(UnsetMetadataPassedError, match=name):
        steps.fit(X, Y, **{name: values[name]})


def test_ensembles_route_weights():
    ensemble = MLPEnsembleClassifier(MLPClassifier(**SMALL), 2, random_state=0)
    steps = make_pipeline(
        StandardScaler().set_fit_request(sample_weight=False), ensemble.set_fit_request(sample_weight=True)
    )
    got = steps.fit(X, Y, sample_weight=WEIGHT).predict_proba(X)
    scaled = StandardScaler().fit_transform(X)
    assert np.array_equal(
        got,
        MLPEnsembleClassifier(MLPClassifier(**SMALL), 2, random_state=0).fit(scaled, Y, WEIGHT).predict_proba(scaled),
    )


@pytest.mark.parametrize("given", [{"X_val": X_VAL}, {"y_val": Y_VAL}])
def test_half_of_the_validation_rows_is_refused(given):
    with pytest.raises(ValueError, match="X_val and y_val must be given together"):
        MLPClassifier(**SMALL).fit(X, Y, **given)


def test_validation_rows_come_once():
    with pytest.raises(ValueError, match="not as both"):
        MLPClassifier(**SMALL).fit(X, Y, eval_set=(X_VAL, Y_VAL), X_val=X_VAL, y_val=Y_VAL)
