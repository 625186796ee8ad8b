"""JAX with a whole epoch in one jitted lax.scan. The order is drawn by NumPy, whose shuffle is faster than XLA's sort."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.contenders import Epochs, Predict, initial, missing
from benchmarks.workloads import Workload

NAME = "JAX scan"
PACKAGES = ("jax", "jaxlib")
EPOCHS = 1


def available() -> str | None:
    return missing(PACKAGES)


def logits_function(workload: Workload) -> Any:
    """f(layers, x) -> logits, in the workload's type."""
    import jax

    jax.config.update("jax_enable_x64", workload.dtype == "float64")
    activation = {"relu": jax.nn.relu, "tanh": jax.numpy.tanh, "logistic": jax.nn.sigmoid}[workload.activation]

    def logits(layers: Any, x: Any) -> Any:
        *hidden, (W, b) = layers
        for W_hidden, b_hidden in hidden:
            x = activation(x @ W_hidden + b_hidden)
        return x @ W + b

    return logits


def train(workload: Workload) -> Epochs:
    import jax
    import jax.numpy as jnp

    logits = logits_function(workload)
    beta_1, beta_2, epsilon = 0.9, 0.999, 1e-8
    X, y = map(jnp.asarray, workload.data())

    def loss_of(layers: Any, x: Any, labels: Any) -> Any:
        log_p = jax.nn.log_softmax(logits(layers, x))
        return -jnp.take_along_axis(log_p, labels[:, None], axis=1).mean()

    def step(state: Any, rows: Any) -> Any:
        layers, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(layers, X[rows], y[rows])
        t = t + 1
        m = jax.tree.map(lambda m, g: beta_1 * m + (1 - beta_1) * g, m, g)
        v = jax.tree.map(lambda v, g: beta_2 * v + (1 - beta_2) * g * g, v, g)
        rate = (workload.learning_rate * jnp.sqrt(1 - beta_2**t) / (1 - beta_1**t)).astype(workload.dtype)
        layers = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + epsilon), layers, m, v)
        return (layers, m, v, t), loss

    run = jax.jit(lambda state, order: jax.lax.scan(step, state, order), donate_argnums=0)
    layers = jax.tree.map(jnp.asarray, initial(workload))
    state = (layers, jax.tree.map(jnp.zeros_like, layers), jax.tree.map(jnp.zeros_like, layers), jnp.float32(0))
    draws = np.random.default_rng(0)

    def epoch() -> float:
        nonlocal state
        order = draws.permutation(workload.n_rows).reshape(workload.n_steps, workload.batch_size)
        state, losses = run(state, order.astype(np.int32))
        return float(losses.mean())  # waits for the epoch's end

    return epoch


def predict(workload: Workload, rows: int) -> Predict:
    import jax

    logits = logits_function(workload)
    layers = jax.tree.map(jax.numpy.asarray, initial(workload))
    run = jax.jit(lambda layers, x: jax.nn.softmax(logits(layers, x)))
    X = workload.data().X[:rows]
    return lambda: np.asarray(run(layers, X))
