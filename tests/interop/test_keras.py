"""Keras both ways, beside Keras."""

from __future__ import annotations

import os

import numpy as np
import pytest
from networks import NETWORKS, assert_agrees, network, rows, same_bits

from fastmlp import MLPClassifier, MLPEnsembleRegressor, MLPRegressor, Network
from fastmlp.interop import ConversionError, from_keras, to_keras

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
layers = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def output(model, X):
    return np.asarray(keras.ops.convert_to_numpy(model(X, training=False)))


def check(model, X=None, **options):
    X = rows() if X is None else X
    converted = from_keras(model, **options)
    assert_agrees(output(model, X), converted.network, X.reshape(len(X), -1))
    return converted


@pytest.mark.parametrize("options", NETWORKS)
def test_round_trip(options):
    net = network(**options)
    model = to_keras(net)
    X = rows(net.dtype)
    expected = net.forward(X)  # on PyTorch, Keras rounds products of float64 to float32
    np.testing.assert_allclose(output(model, X), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert same_bits(from_keras(model).network, net)


def sequential(*parts, shape=(5,)):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), *parts])
    rng = np.random.RandomState(0)
    for part in model.layers:
        if isinstance(part, layers.BatchNormalization):
            part.set_weights([rng.uniform(0.5, 2, weight.shape) for weight in part.get_weights()])
    return model


@pytest.mark.parametrize(
    "name",
    ["linear", "sigmoid", "tanh", "relu", "elu", "selu", "gelu", "silu", "softplus", "mish", "celu", "log_sigmoid",
        "exponential", "softmax", "log_softmax"],
)  # fmt: skip
def test_activations_by_name(name):
    last = name in ("exponential", "softmax", "log_softmax")
    parts = [layers.Dense(6, activation="tanh" if last else name), layers.Dense(3, activation=name)]
    check(sequential(*parts))


def test_an_article():
    """784-256-128-10 on images, with the layers that stand before such networks."""
    normalise = layers.Normalization(axis=None, mean=0.3, variance=0.1)
    model = sequential(
        layers.Rescaling(1 / 255), normalise, layers.Flatten(), layers.Dense(256, "relu"), layers.Dense(128, "relu"),
        layers.Dense(10),
        shape=(28, 28),
    )  # fmt: skip
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    X = np.random.RandomState(0).randint(0, 256, (20, 28, 28)).astype("float32")
    converted = from_keras(model)
    assert converted.network.out_activation == "softmax"
    assert any("from_logits" in note for note in converted.notes)
    logits = converted.network.forward(X.reshape(20, -1), out_activation="identity")
    np.testing.assert_allclose(logits, output(model, X), rtol=0, atol=3e-6 * np.abs(logits).max())
    assert from_keras(model, "identity").network.out_activation == "identity"
    model.compile(loss="sparse_categorical_crossentropy")
    assert from_keras(model).network.out_activation == "identity"


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)])
def test_elementwise_layers_of_several_dimensions(shape):
    rng = np.random.RandomState(0)
    normalise = layers.Normalization(axis=-1)
    normalise.adapt(rng.normal(1, 2, (30, *shape)))
    model = sequential(
        normalise, layers.BatchNormalization(),
        layers.Rescaling([2.0] * shape[-1], offset=list(map(float, range(shape[-1])))),
        layers.Reshape((-1,)), layers.Dense(6, "tanh"), layers.GaussianNoise(0.1), layers.Dense(2), shape=shape,
    )  # fmt: skip
    converted = check(model, rng.normal(size=(10, *shape)).astype("float32"))
    assert len([note for note in converted.notes if "folded" in note]) == 3


def test_batch_norm_and_dropout():
    model = sequential(layers.Dense(6), layers.BatchNormalization(), layers.Activation("relu"), layers.Dropout(0.25),
        layers.Dense(6, use_bias=False),
                       layers.BatchNormalization(center=False, scale=False), layers.ReLU(),
                       layers.Dense(2))  # fmt: skip
    converted = check(model)
    assert converted.network.batch_norm
    assert converted.parameters == {"dropout": (0.0, 0.25, 0.0)}
    assert any("epsilon 0.001" in note for note in converted.notes)
    assert not check(model, batch_norm="fold").network.batch_norm


def test_functional_and_nested():
    keras.utils.set_random_seed(0)
    source = keras.Input((5,))
    value = layers.GaussianNoise(0.1)(source)
    for _ in range(2):
        value = value + layers.Dense(5, activation="gelu")(value)
    inner = keras.Sequential([layers.Dense(4), layers.LeakyReLU(0.01), layers.Dense(3)], name="inner")
    converted = check(keras.Model(source, layers.Softmax()(inner(value))))
    assert converted.parameters == {"input_noise": 0.1}
    shared = layers.Dense(5, "relu")
    check(keras.Model(source, layers.Dense(2)(shared(shared(source)))))


@pytest.mark.parametrize(
    "parts",
    [
        (lambda: layers.Dense(6), lambda: layers.LeakyReLU(), lambda: layers.Dense(2)),
        (lambda: layers.Dense(6, activation="leaky_relu"), lambda: layers.Dense(2)),
        (lambda: layers.Dense(6, activation=layers.LeakyReLU(0.2)), lambda: layers.Dense(2)),
        (lambda: layers.Dense(6), lambda: layers.PReLU("uniform"), lambda: layers.Dense(2)),
        (lambda: layers.Dense(6, activation="relu6"), lambda: layers.Dense(2)),
        (lambda: layers.Dense(6), lambda: layers.ReLU(max_value=0.5), lambda: layers.Dense(2)),
        (lambda: layers.Dense(6, activation="hard_sigmoid"),),
        (lambda: layers.Dense(6, activation="hard_tanh"), lambda: layers.Rescaling(2.0)),
        (lambda: layers.Dense(6, activation="tanh"), lambda: layers.Activation("tanh"), lambda: layers.Dense(2)),
    ],
)
def test_rewritten(parts):
    model = sequential(*(part() for part in parts))
    with pytest.raises(ConversionError, match="rewrite=True"):
        from_keras(model)
    assert check(model, rewrite=True).notes


def own(x):
    return x * 2


REFUSED = {
    "layer norm": (lambda: sequential(layers.Dense(4), layers.LayerNormalization(), layers.Dense(2)),
        "LayerNormalization"),
    "convolution": (lambda: sequential(layers.Conv1D(2, 2), layers.Flatten(), layers.Dense(2), shape=(4, 3)), "Conv1D"),
    "dense of images": (lambda: sequential(layers.Dense(4), layers.Flatten(), layers.Dense(2), shape=(4, 3)),
        "Put a Flatten"),
    "threshold": (lambda: sequential(layers.Dense(4), layers.ReLU(threshold=0.5), layers.Dense(2)), "threshold"),
    "alpha": (lambda: sequential(layers.Dense(4), layers.ELU(0.5), layers.Dense(2)), "alpha 0.5"),
    "softsign": (lambda: sequential(layers.Dense(4, "softsign"), layers.Dense(2)), "softsign"),
    "hard_silu": (lambda: sequential(layers.Dense(4, "hard_silu"), layers.Dense(2)), "silu comes near"),
    "a function": (lambda: sequential(layers.Dense(4, activation=own), layers.Dense(2)), "does not describe"),
    "lambda": (lambda: sequential(layers.Lambda(own), layers.Dense(2)), "Lambda"),
    "concatenate": (lambda: functional(lambda x: layers.Concatenate()([x, layers.Dense(3)(x)])), "Concatenate"),
    "two branches": (lambda: functional(lambda x: layers.Add()([layers.Dense(3, "relu")(x),
        layers.Dense(3, "relu")(x)])), "two branches"),
    "product": (lambda: functional(lambda x: layers.Multiply()([layers.Dense(5)(x), x])), "product"),
    "three": (lambda: functional(lambda x: layers.Add()([x, x, x])), "3 arguments"),
    "training": (lambda: functional(lambda x: layers.Dropout(0.5)(x, training=True)), "training=True"),
    "sequence": (lambda: sequential(layers.LSTM(3), layers.Dense(2), shape=(4, 3)), "LSTM"),
    "softmax of axis": (lambda: sequential(layers.Softmax(), layers.Flatten(), layers.Dense(2), shape=(4, 3)),
        "softmax"),
    "not adapted": (lambda: sequential(layers.Normalization(), layers.Dense(2)), None),
    "units": (lambda: sequential(layers.Dense(4), layers.UnitNormalization(), layers.Dense(2)),
        "UnitNormalization|unit_normalization"),
}  # fmt: skip


def functional(make):
    source = keras.Input((5,))
    return keras.Model(source, layers.Dense(2)(make(source)))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, words = REFUSED[name]
    if words is None:
        check(make())
        return
    with pytest.raises(ConversionError, match=words):
        from_keras(make())


def test_other_models():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model(rows())
    with pytest.raises(ConversionError, match="Make a Sequential"):
        from_keras(model)
    with pytest.raises(TypeError, match=r"keras\.Model"):
        from_keras(3)
    several = keras.Model([a := keras.Input((2,)), b := keras.Input((2,))], layers.Dense(1)(layers.Add()([a, b])))
    with pytest.raises(ConversionError, match="2 inputs"):
        from_keras(several)


def test_a_call_that_was_replaced():
    model = sequential(layers.Dense(4, "relu"), layers.Dense(2))
    first = model.layers[0]
    plain = first.call
    first.call = lambda inputs, **options: 2 * plain(inputs, **options)
    with pytest.raises(ConversionError, match="did not see"):
        from_keras(model)
    del first.call
    check(model)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "float16"])
def test_narrow_types(policy):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, "relu", dtype=policy), layers.Dense(2, dtype=policy)])
    converted = from_keras(model)
    assert converted.network.dtype == np.float32
    assert converted.notes
    weights = [np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))) for weight in model.weights]
    assert np.array_equal(converted.network.coefs[0], weights[0])


PARTS = [
    lambda rng: layers.Dense(int(rng.randint(1, 7)),
        activation=[None, "relu", "tanh", "gelu", "softplus", "leaky_relu"][rng.randint(6)]),
    lambda rng: layers.BatchNormalization(center=bool(rng.randint(2)), scale=bool(rng.randint(2))),
    lambda rng: layers.Activation(["relu", "elu", "silu", "log_sigmoid", "hard_sigmoid", "softmax"][rng.randint(6)]),
    lambda rng: [layers.PReLU("uniform"), layers.LeakyReLU(0.01), layers.ReLU(6.0), layers.Dropout(0.3),
        layers.Rescaling(0.5, 1.0)][rng.randint(5)],
]  # fmt: skip


@pytest.mark.parametrize("seed", [*range(25), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(25, 120))])
def test_random_models_convert_right_or_not_at_all(seed):
    rng = np.random.RandomState(seed)
    model = sequential(*(PARTS[rng.randint(len(PARTS))](rng) for _ in range(rng.randint(1, 7))))
    for rewrite in (False, True):
        try:
            net = from_keras(model, rewrite=rewrite).network
        except ConversionError:
            continue
        expected = output(model, rows())
        np.testing.assert_allclose(net.forward(rows()), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_estimators_become_models(tmp_path):
    X, y = rows(), np.arange(40) % 3
    classifier = MLPClassifier((6,), max_iter=2, dropout=0.2, input_noise=0.1, batch_norm=True).fit(X, y)
    model = to_keras(classifier)
    assert [type(layer).__name__ for layer in model.layers] == [
        "GaussianNoise", "Dense", "BatchNormalization", "Activation", "Dropout", "Dense", "Activation",
    ]  # fmt: skip
    assert_agrees(output(model, X), classifier.network_, X)
    model.save(tmp_path / "model.keras")
    back = from_keras(tmp_path / "model.keras").classifier([0, 1, 2])
    assert np.array_equal(back.predict_proba(X), classifier.predict_proba(X))
    assert (back.dropout, back.input_noise) == ((0.0, 0.2), 0.1)
    model = to_keras(classifier, logits=True)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, y, verbose=0)
    ensemble = MLPEnsembleRegressor(MLPRegressor("poisson", (6,), max_iter=2), n_estimators=3).fit(X, y)
    np.testing.assert_allclose(output(to_keras(ensemble), X)[:, 0], ensemble.predict(X), rtol=1e-5)


def test_without_hidden_layers():
    net = Network((5, 2), out_activation="log_softmax", random_state=0)
    assert same_bits(from_keras(to_keras(net)).network, net)
