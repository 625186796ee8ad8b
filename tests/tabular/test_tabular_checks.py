"""scikit-learn's own checks of an estimator, on the estimators for tables and the encoder."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastmlp import PiecewiseLinearEncoder, TabularClassifier, TabularRegressor

SMALL = {"hidden_layer_sizes": (30,), "max_iter": 60, "learning_rate_init": 0.005, "random_state": 0}
WEIGHTS = ("check_sample_weight_equivalence_on_dense_data",)


# Several networks, with members; one of the other method, which trains on all rows, alone and in float64. (With
# members, a thousand epochs without early stopping learn even the class whose rows weigh ten million times less, which
# one check does not expect.)
IN_FOLDS = {**SMALL, "n_folds": 2}
REALMLP = {"method": "realmlp", "hidden_layer_sizes": (30,), "n_folds": 2, "random_state": 0}
ALONE = {**SMALL, "method": "plain", "n_folds": 1, "early_stopping": False, "n_iter_no_change": 100, "dtype": "float64"}


def expected_failures(estimator):
    """Rows that are repeated lie in several folds, and move the bins' edges; weights do neither."""
    return dict.fromkeys(WEIGHTS, "bins and folds count rows, not weights") if hasattr(estimator, "n_folds") else {}


@parametrize_with_checks(
    [TabularClassifier(**IN_FOLDS), PiecewiseLinearEncoder()],
    expected_failed_checks=expected_failures,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_tabular_estimator_passes_sklearn_check(estimator, check):
    """Every check of scikit-learn that applies."""
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        TabularClassifier(**ALONE),
        TabularRegressor(**ALONE),
        TabularRegressor(**IN_FOLDS),
        TabularClassifier(**REALMLP),
        TabularRegressor(**REALMLP),
        PiecewiseLinearEncoder(n_bins=3, dtype="float32"),
    ],
    expected_failed_checks=expected_failures,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_other_tabular_estimator_passes_sklearn_check(estimator, check):
    """The same checks the other way round."""
    check(estimator)
