"""A user's program, for mypy only (make types): what each call gives. It is checked against the installed package, as
users have it, and is not run. Where scikit-learn would make a type Any, ``assert_type`` fails.
"""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np

from fastmlp import (
    LearningRateRange,
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    Network,
    OneCycle,
    learning_rate_range,
    show_config,
)

X = np.zeros((8, 4))
y = np.arange(8) % 2

classifier = MLPClassifier(
    (16, 8), "gelu", solver="adamw", learning_rate=OneCycle(), dropout=[0.1, 0.2, 0.2], random_state=0
)
assert_type(classifier.fit(X, y), MLPClassifier)
assert_type(classifier.fit(X, y, np.ones(8), eval_set=(X, y)), MLPClassifier)
assert_type(classifier.partial_fit(X, y, classes=[0, 1]), MLPClassifier)
assert_type(classifier.set_params(alpha=0.1), MLPClassifier)
assert_type(classifier.grow((16, 16)), MLPClassifier)
assert_type(classifier.freeze([0]), MLPClassifier)
assert_type(classifier.get_params(), dict[str, Any])
assert_type(classifier.predict(X), np.ndarray)
assert_type(classifier.predict_proba(X), np.ndarray)
assert_type(classifier.score(X, y), float)
assert_type(classifier.classes_, np.ndarray)
assert_type(classifier.coefs_, list[np.ndarray])
assert_type(classifier.intercepts_, list[np.ndarray])
assert_type(classifier.loss_curve_, list[float])
assert_type(classifier.history_, list[dict[str, Any]])
assert_type(classifier.n_iter_, int)
assert_type(classifier.n_features_in_, int)
assert_type(classifier.network_, Network)

regressor = MLPRegressor("huber", weight_init=("normal", 0.1), learning_rate=lambda step, n_steps: 1 - step / n_steps)
assert_type(regressor.fit(X, y), MLPRegressor)
assert_type(regressor.predict(X), np.ndarray)
assert_type(regressor.score(X, y), float)

ensemble = MLPEnsembleClassifier(classifier, n_estimators=3)
assert_type(ensemble.fit(X, y), MLPEnsembleClassifier)
assert_type(ensemble.estimators_, list[MLPClassifier])
several = MLPEnsembleRegressor(regressor).fit(X, y)
assert_type(several.predict(X), np.ndarray)
assert_type(several.predict(X, return_std=True), tuple[np.ndarray, np.ndarray])

net = Network((4, 16, 2), dtype=np.float64)
assert_type(net.forward(X), np.ndarray)
assert_type(net.layer_sizes, tuple[int, ...])

found = learning_rate_range(classifier, X, y)
assert_type(found, LearningRateRange)
show_config()

# What must be an error is one: strict mypy complains of an ignored line that has none.
MLPClassifier(alpha="much")  # type: ignore[arg-type]
MLPClassifier(no_such_parameter=1)  # type: ignore[call-arg]
MLPRegressor(label_smoothing=0.1)  # type: ignore[call-arg]
net.forward(X, outt=X)  # type: ignore[call-arg]
