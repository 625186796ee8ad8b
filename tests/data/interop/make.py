"""Makes the files of this folder with other frameworks: python tests/data/interop/make.py keras, or onnx.

They are read by the tests without the framework that wrote them. Each has the rows that it was given and its outputs in answers.npz.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def keep(answers: dict[str, np.ndarray]) -> None:
    """Add rows and outputs to the answers."""
    path = HERE / "answers.npz"
    old = dict(np.load(path)) if path.exists() else {}
    np.savez_compressed(path, **{**old, **answers})


def make_keras() -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    rng = np.random.RandomState(0)
    images = rng.uniform(0, 255, (8, 4, 3)).astype("float32")
    normalise = layers.Normalization()
    normalise.adapt(rng.normal(2, 3, (50, 12)))
    logits = keras.Sequential(
        [
            keras.Input((4, 3)), layers.Rescaling(1 / 255), layers.Flatten(), normalise, layers.Dense(7, activation="relu"), layers.Dropout(0.2),
            keras.Sequential([layers.Dense(6), layers.BatchNormalization(), layers.Activation("gelu")]), layers.Dense(3),
        ]
    )  # fmt: skip
    logits.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logits.build((None, 4, 3))
    for layer in logits.layers[5].layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2, 6) for _ in range(4)])
    source = keras.Input((5,), name="features")
    value = source
    for name in ("first", "second"):
        value = layers.Add()([value, layers.Dense(5, "tanh", name=name)(value)])
    functional = keras.Model(source, layers.Dense(1, "sigmoid", use_bias=False)(value))
    rows = rng.normal(size=(8, 5)).astype("float32")
    half = keras.Sequential([keras.Input((5,)), layers.Dense(4, "selu"), layers.Dense(2, "softmax")])
    for model, name, given in ((logits, "logits", images), (functional, "functional", rows), (half, "small", rows)):
        model.save(HERE / f"{name}.keras")
        keep({f"{name}.X": given, f"{name}.y": np.asarray(model.predict(given, verbose=0))})


if __name__ == "__main__":
    {"keras": make_keras}[sys.argv[1]]()
