"""Every training method through the estimators: that each parameter does what it says, and nothing else."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from conftest import regression, tolerance

from fastmlp import MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# --- Growing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "share"), [
    ({"residual": True, "activation": "tanh", "batch_norm": True}, 0.0),
    ({"residual": True, "activation": "silu"}, 0.0),
    ({"activation": "relu"}, 0.0),
    ({"activation": "relu", "batch_norm": True}, 0.1),
    ({"activation": "identity", "batch_norm": True}, 0.1),
], ids=str)  # fmt: skip
def test_deepened_network_trains_on_from_where_it_was(settings, share):
    """Not only predictions are kept: so is what training makes of a batch, which normalises by its own averages. Where these
    had to be reckoned, the loss moves by a small share."""
    X, y = regression(n=600, n_features=6)
    estimator = MLPRegressor(hidden_layer_sizes=(12, 12), max_iter=40, learning_rate_init=0.01, batch_size=200, random_state=0,
                             shuffle=False, **settings).fit(X, y)  # fmt: skip
    grown = copy.deepcopy(estimator).grow((12, 12, 12), random_state=0)
    bound = tolerance("float64", 100, np.abs(estimator.predict(X)).max())
    assert np.abs(grown.predict(X) - estimator.predict(X)).max() <= bound
    for each in (estimator, grown):
        each.set_params(learning_rate_init=1e-300, alpha=0.0).partial_fit(X, y)
    assert abs(grown.loss_ - estimator.loss_) <= share * y.var() + tolerance("float64", 1000)
    score = grown.score(X, y)
    assert abs(score - estimator.score(X, y)) <= 0.1 * share + tolerance("float64", 1000)
    grown.set_params(learning_rate_init=1e-3).partial_fit(X, y)
    assert grown.loss_ <= estimator.loss_ + 0.1 * y.var()
    for _ in range(10):
        grown.partial_fit(X, y)
    assert not np.array_equal(grown.coefs_[2], np.eye(12))
    assert grown.score(X, y) > score - 0.02
