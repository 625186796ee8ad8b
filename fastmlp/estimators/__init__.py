"""The estimators: scikit-learn's interface on top of training."""

from __future__ import annotations

from fastmlp.estimators.classifier import MLPClassifier
from fastmlp.estimators.conversion import from_sklearn
from fastmlp.estimators.ensemble import MLPEnsembleClassifier, MLPEnsembleRegressor
from fastmlp.estimators.persistence import load
from fastmlp.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPEnsembleClassifier", "MLPEnsembleRegressor", "MLPRegressor", "from_sklearn", "load"]
