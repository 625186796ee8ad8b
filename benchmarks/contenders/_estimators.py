"""What the two contenders with scikit-learn's interface share: they differ in the class only."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from benchmarks.contenders import Epochs, Fitter, Predict, Trained
from benchmarks.workloads import Fit, Workload


def estimator(cls: Any, workload: Workload, n_rows: int, epochs: int) -> Any:
    """An estimator that runs exactly `epochs` epochs, without penalty."""
    return cls(
        hidden_layer_sizes=workload.layer_sizes[1:-1],
        activation=workload.activation,
        alpha=0.0,
        batch_size=min(workload.batch_size, n_rows),
        learning_rate_init=workload.learning_rate,
        max_iter=epochs,
        n_iter_no_change=epochs + 1,
        random_state=0,
    )


def train(cls: Any, workload: Workload, epochs: int) -> Epochs:
    X, y = workload.data()
    model = estimator(cls, workload, len(X), epochs)

    def fit() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it did not converge: it was not to
            return float(model.fit(X, y).loss_)

    return fit


def predict(cls: Any, workload: Workload, rows: int) -> Predict:
    X, y = (a[: max(rows, 1000)] for a in workload.data())
    model = estimator(cls, workload, len(X), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    return lambda: model.predict_proba(X[:rows])


def fitter(module: Any, fit: Fit) -> Fitter:
    """`module` is fastmlp or sklearn.neural_network."""
    cls = module.MLPClassifier if fit.is_classifier else module.MLPRegressor

    def train(X: np.ndarray, y: np.ndarray) -> Trained:
        model = estimator(cls, fit, len(X), fit.epochs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # all epochs are run, whether it converged or not
            model.fit(X, y)
        return model.predict_proba if fit.is_classifier else model.predict

    return train
