"""transform: the hidden representation, to the bit; its names, its containers, its place in pipelines."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import sklearn.neural_network
from helpers import SKLEARN_LBFGS_RTOL, classification, regression, tolerance, varied
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, Network, core

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {
    "hidden_layer_sizes": (13, 17, 9),
    "max_iter": 8,
    "random_state": 3,
    "batch_size": 32,
    "learning_rate_init": 0.01,
}
X, Y = classification(3)
NETWORKS = [
    {},
    {"batch_norm": True},
    {"residual": True},
    {"batch_norm": True, "residual": True, "hidden_layer_sizes": (13, 13, 9)},
    {"activation": ["gelu", "tanh", "mish"], "dropout": 0.3},
]


def behind(network: Network, layer: int) -> Network:
    """What of a plain network comes after a hidden layer."""
    rest = slice(layer + 1, None)
    parameters = [values.ravel() for values in (*network.coefs[rest], *network.intercepts[rest])]
    return Network(
        network.layer_sizes[rest],
        network.activations[rest],
        network.out_activation,
        network.dtype,
        np.concatenate(parameters),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", NETWORKS)
def test_output_layer_on_the_representation_is_the_prediction(settings, dtype):
    """Bit for bit: the last hidden layer's output, times the output layer, is what predict_proba gives."""
    estimator = MLPClassifier(**{**SMALL, **settings}, dtype=dtype).fit(X, Y)
    hidden = varied(estimator.transform(X))
    assert hidden.dtype == dtype
    assert np.array_equal(behind(estimator.network_, 2).forward(hidden), estimator.predict_proba(X))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_every_layer_can_be_had(layer):
    """By index from either end; the network behind it goes on from it to the same prediction."""
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    hidden = estimator.transform(X, layer=layer)
    assert hidden.shape == (len(X), SMALL["hidden_layer_sizes"][layer])
    assert np.array_equal(hidden, estimator.transform(X, layer=layer - 3))
    assert np.array_equal(behind(estimator.network_, layer).forward(hidden), estimator.predict_proba(X))


@pytest.mark.parametrize("activation", core.ACTIVATIONS)
def test_residual_layers_add_their_input(activation):
    """The one of each kind: as wide as its input, and not."""
    estimator = MLPRegressor(**{**SMALL, "activation": activation, "residual": True}).fit(X, regression()[1])
    first = estimator.transform(X, layer=0)
    plain = copy.deepcopy(estimator.network_)
    W, b = plain.coefs[0], plain.intercepts[0]
    product = Network(
        (13, 13), out_activation=activation, dtype="float64", parameters=np.concatenate([W.ravel(), b])
    ).forward(X)
    assert np.array_equal(first, product + X)
    W, b = plain.coefs[1], plain.intercepts[1]
    product = Network(
        (13, 17), out_activation=activation, dtype="float64", parameters=np.concatenate([W.ravel(), b])
    ).forward(first)
    assert np.array_equal(estimator.transform(X, layer=1), product)


def test_transform_is_of_sklearns_network():
    """The activations that scikit-learn's own MLP computes on its way."""
    theirs, ours = (module.MLPClassifier(**SMALL).fit(X, Y) for module in (sklearn.neural_network, fastmlp))
    hidden = X
    for layer in range(3):
        hidden = np.maximum(hidden @ theirs.coefs_[layer] + theirs.intercepts_[layer], 0)
        np.testing.assert_allclose(
            ours.transform(X, layer=layer), hidden, rtol=SKLEARN_LBFGS_RTOL, atol=SKLEARN_LBFGS_RTOL
        )


@pytest.mark.parametrize("settings", NETWORKS[:3])
def test_sparse_and_dense_agree(settings):
    thin = np.where(np.abs(X) < 1, 0, X)
    estimator = MLPClassifier(**{**SMALL, **settings}).fit(thin, Y)
    hidden = estimator.transform(thin)
    assert np.abs(estimator.transform(sparse.csr_matrix(thin)) - hidden).max() < tolerance(
        "float64", X.size, np.abs(hidden).max()
    )


def test_transform_changes_nothing():
    """Nor does it follow set_params before the next fit."""
    estimator = MLPClassifier(**SMALL, batch_norm=True).fit(X, Y)
    before, expected = pickle.dumps(estimator), estimator.transform(X)
    assert pickle.dumps(estimator) == before
    estimator.set_params(activation="tanh", hidden_layer_sizes=(2,), batch_norm=False)
    assert np.array_equal(estimator.transform(X), expected)


@pytest.mark.parametrize("layer", [3, -4, 1.0, True, None, "last"])
def test_unknown_layers_are_refused(layer):
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    for method in (lambda: estimator.transform(X, layer=layer), lambda: estimator.get_feature_names_out(layer=layer)):
        with pytest.raises(ValueError, match=r"layer must be the index of one of the 3 hidden layers, from 0, got"):
            method()


def test_bad_input_is_refused():
    """As in predict: not fitted, other features, no hidden layer."""
    with pytest.raises(NotFittedError):
        MLPClassifier().transform(X)
    with pytest.raises(NotFittedError):
        MLPClassifier().get_feature_names_out()
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 13 features"):
        estimator.transform(X[:, :3])
    with pytest.raises(ValueError, match="input_features should have length equal to number of features"):
        estimator.get_feature_names_out(["a", "b"])
    with pytest.raises(ValueError, match="one of the 0 hidden layers"):
        MLPClassifier(**{**SMALL, "hidden_layer_sizes": ()}).fit(X, Y).transform(X)


# --- names and containers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_names_the_columns(library):
    """A DataFrame with the names of the layer asked for, and the rows' own index."""
    frames = pytest.importorskip(library)
    estimator = MLPRegressor(**SMALL).set_output(transform=library)
    hidden = estimator.fit_transform(X, regression()[1])
    assert isinstance(hidden, frames.DataFrame)
    assert (
        list(hidden.columns) == [f"mlpregressor{unit}" for unit in range(9)] == list(estimator.get_feature_names_out())
    )
    first = estimator.transform(X, layer=0)
    assert list(first.columns) == list(estimator.get_feature_names_out(layer=0))
    plain = clone(estimator).set_output(transform="default").fit(X, regression()[1])
    assert np.array_equal(first.to_numpy(), plain.transform(X, 0))
    with config_context(transform_output=library):  # for all transformers that were told nothing
        assert isinstance(plain.transform(X), np.ndarray)
        assert isinstance(MLPRegressor(**SMALL).fit_transform(X, regression()[1]), frames.DataFrame)
    if library == "pandas":
        rows = frames.DataFrame(X, index=np.arange(len(X))[::-1])
        assert list(estimator.transform(rows).index) == list(rows.index)


# --- pipelines -------------------------------------------------------------------------------------------------------


def test_representation_inside_a_pipeline():
    """A trained body, a function behind it, a linear head: what one gets by hand from scikit-learn's own MLP."""
    squash = FunctionTransformer(np.sqrt)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL), squash, LogisticRegression()).fit(X, Y)
    scaled = StandardScaler().fit_transform(X)
    body = sklearn.neural_network.MLPClassifier(**SMALL).fit(scaled, Y)
    hidden = scaled
    for W, b in zip(body.coefs_[:-1], body.intercepts_[:-1], strict=True):
        hidden = np.maximum(hidden @ W + b, 0)
    head = LogisticRegression().fit(np.sqrt(hidden), Y)
    np.testing.assert_allclose(
        pipeline.predict_proba(X), head.predict_proba(np.sqrt(hidden)), rtol=0, atol=SKLEARN_LBFGS_RTOL
    )
    assert pipeline.score(X, Y) > 0.6


def test_representation_beside_the_features():
    """In a FeatureUnion, names and all."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"x{column}" for column in range(13)])
    union = FeatureUnion([("raw", "passthrough"), ("hidden", MLPClassifier(**SMALL))]).set_output(transform="pandas")
    both = union.fit_transform(frame, Y)
    assert list(both.columns) == [*(f"raw__x{i}" for i in range(13)), *(f"hidden__mlpclassifier{i}" for i in range(9))]
    assert np.array_equal(both.to_numpy()[:, 13:], MLPClassifier(**SMALL).fit(X, Y).transform(X))


def test_transform_follows_the_layer_through_a_function():
    """Another layer inside a pipeline: a FunctionTransformer around a fitted network."""
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    pipeline = make_pipeline(FunctionTransformer(estimator.transform, kw_args={"layer": 0}), LogisticRegression()).fit(
        X, Y
    )
    expected = LogisticRegression().fit(estimator.transform(X, 0), Y).predict_proba(estimator.transform(X, 0))
    assert np.array_equal(pipeline.predict_proba(X), expected)
