"""Estimators of networks: from_network."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, Network


def network(n_out=3, out="softmax", dtype="float32", sizes=(4, 6, 6), **options):
    net = Network((*sizes, n_out), "tanh", out, dtype, random_state=1, **options)
    if net.batch_norm:
        net.statistics[:] = np.random.RandomState(2).uniform(0.5, 1.5, net.n_statistics)
    return net


pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:X does not have valid feature names"
)
X = np.random.RandomState(0).normal(size=(40, 4)).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"residual": True}, {"dtype": "float64"}])
def test_classifier_is_the_network(options, tmp_path):
    net = network(**options)
    classifier = MLPClassifier.from_network(net, ["a", "b", "c"], feature_names=list("wxyz"))
    probabilities = classifier._run_network(classifier.network_, X)
    assert np.array_equal(probabilities, net.forward(X))
    assert classifier.network_ is not net
    assert classifier.hidden_layer_sizes == (6, 6)
    assert classifier.batch_norm == net.batch_norm
    assert list(classifier.feature_names_in_) == list("wxyz")
    classifier.save(tmp_path / "model.safetensors")
    for other in (fastmlp.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(classifier))):
        assert np.array_equal(other._run_network(other.network_, X), probabilities)
        assert list(other.classes_) == ["a", "b", "c"]
    assert not hasattr(clone(classifier), "network_")


def test_classes_in_another_order():
    net = network()
    classifier = MLPClassifier.from_network(net, ["c", "a", "b"])
    assert list(classifier.classes_) == ["a", "b", "c"]
    np.testing.assert_allclose(classifier.predict_proba(X), net.forward(X)[:, [1, 2, 0]], rtol=1e-6)
    assert np.array_equal(classifier.predict(X), np.array(["c", "a", "b"])[net.forward(X).argmax(axis=1)])


@pytest.mark.parametrize("classes", [[0, 1], [1, 0]])
def test_two_classes(classes):
    """One logistic output, or two softmax outputs."""
    one = MLPClassifier.from_network(network(1, "logistic"), classes)
    np.testing.assert_allclose(
        one.predict_proba(X)[:, classes.index(classes[1]) if classes[1] == 1 else 0],
        network(1, "logistic").forward(X)[:, 0],
        rtol=1e-6,
    )
    two = MLPClassifier.from_network(network(2), classes)
    assert two.n_outputs_ == 1
    np.testing.assert_allclose(two.predict_proba(X)[:, classes], network(2).forward(X), rtol=1e-5)


def test_multilabel():
    net = network(3, "logistic")
    classifier = MLPClassifier.from_network(net, range(3))
    assert np.array_equal(classifier.predict_proba(X), net.forward(X))
    assert np.array_equal(classifier.predict(X), (net.forward(X) > 0.5).astype(int))
    y = (X[:, :3] > 0).astype(int)
    classifier.partial_fit(X, y)


@pytest.mark.parametrize("labels", [[True, False], [2.0, 1.0], [np.int8(3), np.int8(4)], np.array(["x", "y"])])
def test_kinds_of_labels(labels, tmp_path):
    classifier = MLPClassifier.from_network(network(1, "logistic"), labels)
    assert set(classifier.predict(X).tolist()) <= set(np.asarray(labels).tolist())
    y = np.asarray(labels)[np.arange(len(X)) % 2]
    classifier.set_params(max_iter=2).fit(X, y)
    classifier.save(tmp_path / "model")


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_fit_keeps_the_weights(solver):
    """With a learning rate of 0, or no iterations, the network is as before; with warm_start=False it is a new one."""
    net = network()
    y = np.arange(len(X)) % 3
    parameters = {"max_iter": 1, "learning_rate_init": 1e-30, "solver": solver, "max_fun": 1, "alpha": 0.0}
    classifier = MLPClassifier.from_network(net, range(3), random_state=0, **parameters).fit(X, y)
    np.testing.assert_allclose(
        classifier.network_.parameters, net.parameters, rtol=0, atol=0.5 if solver == "lbfgs" else 1e-20
    )
    if solver != "lbfgs":
        classifier = MLPClassifier.from_network(net, range(3), **parameters).partial_fit(X, y)
        assert np.array_equal(classifier.network_.parameters, net.parameters)
        assert classifier.n_iter_ == 1
        anew = MLPClassifier.from_network(net, range(3), warm_start=False, **parameters).fit(X, y)
        assert not np.array_equal(anew.network_.parameters, net.parameters)


@pytest.mark.parametrize(("out", "loss"), [("identity", "squared_error"), ("identity", "huber"), ("exp", "poisson")])
@pytest.mark.parametrize("n_out", [1, 2])
def test_regressor(out, loss, n_out, tmp_path):
    net = network(n_out, out, residual=True)
    regressor = MLPRegressor.from_network(net, **({} if out == "exp" else {"loss": loss}))
    assert regressor.loss == loss
    assert np.array_equal(regressor.predict(X), net.forward(X).reshape(regressor.predict(X).shape))
    regressor.save(tmp_path / "model")
    assert np.array_equal(fastmlp.load(tmp_path / "model").predict(X), regressor.predict(X))
    regressor.set_params(max_iter=2).fit(X, np.abs(net.forward(X)))


def test_without_hidden_layers():
    net = Network((4, 3), out_activation="softmax", random_state=0)
    classifier = MLPClassifier.from_network(net, range(3), max_iter=2).fit(X, np.arange(len(X)) % 3)
    assert classifier.hidden_layer_sizes == ()


def test_different_activations_and_type():
    net = Network((4, 5, 6, 3), ["tanh", "gelu"], dtype="float64", random_state=0)
    classifier = MLPClassifier.from_network(net, range(3), dtype="float32")
    assert list(classifier.activation) == ["tanh", "gelu"]
    assert classifier.network_.dtype == np.float32


def not_finite():
    net = network()
    net.parameters[3] = np.nan
    return net


@pytest.mark.parametrize(
    ("net", "classes", "error", "words"),
    [
        (network(), [0, 1], ValueError, "2 classes need"),
        (network(1, "logistic"), [0, 1, 2], ValueError, "3 classes need"),
        (network(3, "identity"), range(3), ValueError, "logits"),
        (network(3, "logistic"), list("abc"), ValueError, "multi-label"),
        (network(), [0, 0, 1], ValueError, "different labels"),
        (network(), [0, 1, np.nan], ValueError, "NaN|labels"),
        (network(), [0], ValueError, "at least two"),
        (network(), 3, ValueError, "at least two"),
        (network(), [[0, 1, 2]], ValueError, "at least two"),
        (network(), ["a", "b", 3], TypeError, "of one kind"),
        (network(), ["a", "b", None], TypeError, "of one kind"),
        (network(), {"a", "b", "c"}, TypeError, "order"),
        (network(), [1.5j, 2, 3], ValueError, "labels"),
        (not_finite(), range(3), ValueError, "finite"),
        (MLPClassifier(), range(3), TypeError, "Network"),
        (Network((4, 64, 3), embedding=16, random_state=0), range(3), ValueError, "embeds"),
    ],
)  # fmt: skip
def test_refused(net, classes, error, words):
    with pytest.raises(error, match=words):
        MLPClassifier.from_network(net, classes)


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"hidden_layer_sizes": (3,)}, ValueError, "network's own"),
        ({"activation": "relu"}, ValueError, "network's own"),
        ({"batch_norm": True}, ValueError, "network's own"),
        ({"alhpa": 1}, TypeError, "Did you mean 'alpha'"),
        ({"alpha": -1}, ValueError, "alpha"),
        ({"feature_names": ["a"]}, ValueError, "4 strings"),
    ],
)
def test_refused_parameters(parameters, error, words):
    with pytest.raises(error, match=words):
        MLPClassifier.from_network(network(), range(3), **parameters)


@pytest.mark.parametrize(
    ("out", "loss"), [("softmax", None), ("tanh", None), ("exp", "squared_error"), ("identity", "poisson")]
)
def test_regressor_refuses_outputs(out, loss):
    with pytest.raises(ValueError, match="out_activation"):
        MLPRegressor.from_network(network(2, out), **({} if loss is None else {"loss": loss}))
