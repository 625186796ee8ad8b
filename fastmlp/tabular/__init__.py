"""Tables: from a data frame as it is to a model."""

from __future__ import annotations

from fastmlp.estimators.persistence import load
from fastmlp.tabular.classifier import TabularClassifier
from fastmlp.tabular.encoder import PiecewiseLinearEncoder
from fastmlp.tabular.regressor import TabularRegressor

__all__ = ["PiecewiseLinearEncoder", "TabularClassifier", "TabularRegressor", "load"]
