"""scikit-learn's MLPClassifier. fit checks and encodes its input once, which EPOCHS epochs share."""

from __future__ import annotations

from benchmarks.contenders import Epochs, Fitter, Predict, _estimators, missing
from benchmarks.workloads import Fit, Workload

NAME = "scikit-learn"
PACKAGES = ("scikit-learn",)
EPOCHS = 5


def available() -> str | None:
    return missing(PACKAGES)


def train(workload: Workload) -> Epochs:
    from sklearn.neural_network import MLPClassifier

    return _estimators.train(MLPClassifier, workload, EPOCHS)


def predict(workload: Workload, rows: int) -> Predict:
    from sklearn.neural_network import MLPClassifier

    return _estimators.predict(MLPClassifier, workload, rows)


def fitter(fit: Fit) -> Fitter:
    from sklearn import neural_network

    return _estimators.fitter(neural_network, fit)
