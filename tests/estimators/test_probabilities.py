"""Probabilities of confident rows, their logarithms, and the memory of predictions."""

import tracemalloc

import numpy as np
import pytest
from helpers import classification, tolerance

from fastmlp import MLPClassifier, MLPEnsembleClassifier, RowPredictor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
KINDS = ("binary", "multiclass", "multilabel")


def confident(kind, dtype, Ensemble=False):
    """A fitted model, and rows whose probabilities are near 0 and 1."""
    X, y = classification(5 if kind == "multiclass" else 2)
    y = np.stack([y, 1 - y, y], axis=1) if kind == "multilabel" else y
    model = MLPClassifier((8,), random_state=0, dtype=dtype, learning_rate_init=0.05, max_iter=30)
    model = MLPEnsembleClassifier(model, 3, random_state=0) if Ensemble else model
    return model.fit(X, y), np.concatenate([X, 20 * X, 2000 * X])


def logits(network, X):
    """The output layer before its activation, by hand, in float64."""
    hidden = np.maximum(X @ network.coefs[0].astype(np.float64) + network.intercepts[0], 0)
    return hidden @ network.coefs[1].astype(np.float64) + network.intercepts[1]


def log_probabilities(network, X, kind):
    z = logits(network, X)
    if kind == "multiclass":
        return z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    both = z if kind == "multilabel" else np.concatenate([-z, z], axis=1)
    return -np.logaddexp(0, -both)


@pytest.mark.parametrize("Ensemble", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_the_logits(kind, dtype, Ensemble):
    """Finite where the probability rounds to 0; for an ensemble, the logarithm of the mean."""
    model, X = confident(kind, dtype, Ensemble)
    members = model.estimators_ if Ensemble else [model]
    each = [log_probabilities(member.network_, X, kind) for member in members]
    want = np.logaddexp.reduce(each, axis=0) - np.log(len(each))
    got = model.predict_log_proba(X)
    assert got.dtype == dtype
    assert np.isfinite(got).all()
    assert (model.predict_proba(X) == 0).any()
    size = max(np.abs(logits(member.network_, X)).max() for member in members)
    assert np.abs(got - want).max() <= tolerance(dtype, 30) * size
    assert np.abs(np.exp(got) - model.predict_proba(X)).max() <= tolerance(dtype, 30)


@pytest.mark.parametrize("Ensemble", [False, True])
@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_alone_has_the_bits_it_has_in_a_batch(kind, method, Ensemble):
    model, X = confident(kind, "float32", Ensemble)
    X = X[::7]
    together = getattr(model.set_params(n_jobs=2), method)(X)
    alone = np.concatenate([getattr(model.set_params(n_jobs=1), method)(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_probabilities_of_two_classes_come_from_the_logit(dtype):
    """1 - p is 0 where p rounds to 1; the second column is the network's output, to the bit."""
    model, X = confident("binary", dtype)
    z = logits(model.network_, X)[:, 0]
    certain = (z > -np.log(np.finfo(dtype).eps) + 2) & (z < 50)
    assert certain.any()
    probability = model.predict_proba(X)
    np.testing.assert_allclose(probability[certain, 0], np.exp(-z[certain]), rtol=tolerance(dtype, 2000))
    np.testing.assert_array_equal(probability[:, 1], model.network_.forward(X)[:, 0])
    predictor = RowPredictor(model)
    for row in X[::50]:
        np.testing.assert_array_equal(predictor.predict_proba(row), model.predict_proba(row[np.newaxis])[0])


@pytest.mark.slow
def test_an_ensemble_predicts_in_pieces():
    """Without the probabilities of all rows at once; the labels are those of the probabilities."""
    n_rows, n_classes = 6000, 3000
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((n_rows, 4)).astype(np.float32), np.arange(n_rows) % n_classes
    settings = {"max_iter": 1, "random_state": 0, "batch_size": 3000, "n_jobs": 1}
    model = MLPEnsembleClassifier(MLPClassifier((4,), **settings), 2, random_state=0, n_jobs=1).fit(X, y)
    tracemalloc.start()
    labels = model.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n_rows * n_classes * 4
    np.testing.assert_array_equal(labels, model.classes_[model.predict_proba(X).argmax(axis=1)])
