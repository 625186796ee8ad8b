"""scikit-learn's own checks of an estimator, on ours: each solver, each element type, the ensembles."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor
from fastmlp.optimizers import SOLVERS

PAIRS = ((MLPClassifier, MLPEnsembleClassifier), (MLPRegressor, MLPEnsembleRegressor))
# Some checks ask for a score: solvers that take small steps at the default rate get a larger one.
RATES = {"sgd": 0.01, "momentum": 0.1, "adagrad": 0.05}


def estimators():
    """What is checked: every solver, every element type, alone and as the members of an ensemble."""
    for Estimator, Ensemble in PAIRS:
        for solver in SOLVERS:
            settings = {"solver": solver, "learning_rate_init": RATES.get(solver, 0.001), "max_iter": 100}
            yield Estimator(**settings)
            yield Ensemble(Estimator(**settings), 2)
        for dtype in ("float32", "float64"):
            yield Estimator(dtype=dtype, max_iter=100)


# No check is expected to fail: none is with scikit-learn's own.
@parametrize_with_checks(list(estimators()))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimator_passes_sklearn_check(estimator, check):
    """Every check of scikit-learn that applies."""
    check(estimator)
