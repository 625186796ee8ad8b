"""Keras on TensorFlow, compiled by XLA; fit runs many steps per call of the compiled function, over EPOCHS epochs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from benchmarks.contenders import Epochs, Fitter, Predict, Trained, missing
from benchmarks.workloads import Fit, Workload

NAME = "Keras jit_compile"
PACKAGES = ("keras", "tensorflow-cpu")
EPOCHS = 5


def available() -> str | None:
    return missing(("keras",)) or (missing(("tensorflow-cpu",)) and missing(("tensorflow",)))


def network(workload: Workload, output: str = "softmax") -> Any:
    """The workload's layers, to be compiled for training."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
    import keras

    keras.utils.set_random_seed(0)
    keras.config.set_floatx(workload.dtype)
    activation = {"logistic": "sigmoid"}.get(workload.activation, workload.activation)
    hidden = [keras.layers.Dense(n, activation) for n in workload.layer_sizes[1:-1]]
    layers = [*hidden, keras.layers.Dense(workload.layer_sizes[-1], output)]
    return keras.Sequential([keras.Input((workload.n_features,)), *layers])


def train(workload: Workload) -> Epochs:
    model, (X, y) = network(workload), workload.data()
    import keras  # once network() has chosen the backend

    model.compile(
        keras.optimizers.Adam(workload.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(),
        jit_compile=True,
        steps_per_execution=min(workload.n_steps, 50),
    )
    return lambda: float(model.fit(X, y, workload.batch_size, epochs=EPOCHS, verbose=0).history["loss"][-1])


def predict(workload: Workload, rows: int) -> Predict:
    import tensorflow as tf

    model, X = network(workload), workload.data().X[:rows]
    run = tf.function(lambda x: model(x, training=False), jit_compile=True)
    return lambda: run(tf.convert_to_tensor(X)).numpy()


def fitter(fit: Fit) -> Fitter:
    """`compile` and `fit` with Keras's defaults: the training step is a TensorFlow graph, without XLA on a CPU."""
    network(fit)
    import keras  # once network() has chosen the backend

    output, loss = ("softmax", "sparse_categorical_crossentropy") if fit.is_classifier else ("linear", "mse")

    def train(X: np.ndarray, y: np.ndarray) -> Trained:
        model = network(fit, output)
        model.compile(keras.optimizers.Adam(fit.learning_rate), loss)
        model.fit(X, y, fit.batch_size, fit.epochs, verbose=0)
        return lambda X: np.asarray(model(X))

    return train
