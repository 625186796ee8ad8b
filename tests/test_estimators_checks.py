"""scikit-learn's own checks of an estimator, on ours: each solver, each element type, the ensembles."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor
from fastmlp.optimizers import SOLVERS

PAIRS = ((MLPClassifier, MLPEnsembleClassifier), (MLPRegressor, MLPEnsembleRegressor))
SMALL = {"hidden_layer_sizes": (30,), "max_iter": 100}
# Some checks ask for a score: solvers that take small steps at the default rate get a larger one.
RATES = {"sgd": 0.01, "momentum": 0.1, "adagrad": 0.05}


def estimators():
    """What is checked: every solver, every element type, alone and as the members of an ensemble."""
    for Estimator, Ensemble in PAIRS:
        for solver in SOLVERS:
            settings = {**SMALL, "solver": solver, "learning_rate_init": RATES.get(solver, 0.005)}
            yield Estimator(**settings)
            yield Ensemble(Estimator(**settings), 2)
        for dtype in ("float32", "float64"):
            yield Estimator(dtype=dtype, max_iter=100)


def expected_failures(estimator):
    """None in the data's own type, as with scikit-learn's MLPs; in float32, what float32 cannot hold."""
    if getattr(estimator, "dtype", None) != "float32":
        return {}
    reason = "asks for agreement to 1e-7, less than float32's rounding error, of sums that are taken in another order"
    return dict.fromkeys(["check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"], reason)


@parametrize_with_checks(list(estimators()), expected_failed_checks=expected_failures)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimator_passes_sklearn_check(estimator, check):
    """Every check of scikit-learn that applies."""
    check(estimator)
