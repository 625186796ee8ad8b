"""fastmlp as most will use it: MLPClassifier, everything that fit and predict_proba do included."""

from __future__ import annotations

from benchmarks.contenders import Epochs, Fitter, Predict, _estimators, missing
from benchmarks.contenders.fastmlp_trainer import available as core_available
from benchmarks.workloads import Fit, Workload

NAME = "fastmlp.MLPClassifier"
PACKAGES = ("scikit-learn",)
EPOCHS = 5


def available() -> str | None:
    return core_available() or missing(PACKAGES)


def train(workload: Workload) -> Epochs:
    from fastmlp import MLPClassifier

    return _estimators.train(MLPClassifier, workload, EPOCHS)


def predict(workload: Workload, rows: int) -> Predict:
    from fastmlp import MLPClassifier

    return _estimators.predict(MLPClassifier, workload, rows)


def fitter(fit: Fit) -> Fitter:
    import fastmlp

    return _estimators.fitter(fastmlp, fit)
