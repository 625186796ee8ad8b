"""The estimators: scikit-learn's interface on top of training."""

from __future__ import annotations

from fastmlp.estimators.classifier import MLPClassifier, MLPRegressor
from fastmlp.estimators.ensemble import MLPEnsembleClassifier, MLPEnsembleRegressor
from fastmlp.estimators.loading import from_sklearn, load

__all__ = ["MLPClassifier", "MLPEnsembleClassifier", "MLPEnsembleRegressor", "MLPRegressor", "from_sklearn", "load"]
