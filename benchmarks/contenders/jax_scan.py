"""JAX with a whole epoch in one jitted lax.scan. The order is drawn by NumPy, whose shuffle is faster than XLA's
sort."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.contenders import Epochs, Fitter, Predict, Trained, initial, missing
from benchmarks.workloads import Fit, Workload

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


def step_function(workload: Workload, loss: str = "log_loss") -> Any:
    """f(state, (x, y)) -> (state, loss), one step of Adam."""
    import jax
    import jax.numpy as jnp

    logits = logits_function(workload)
    beta_1, beta_2, epsilon = 0.9, 0.999, 1e-8

    def loss_of(layers: Any, x: Any, y: Any) -> Any:
        z = logits(layers, x)
        if loss == "squared_error":
            return ((z[:, 0] - y) ** 2).mean()
        return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()

    def step(state: Any, batch: Any) -> Any:
        layers, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(layers, *batch)
        t = t + 1
        m = jax.tree.map(lambda m, g: beta_1 * m + (1 - beta_1) * g, m, g)
        v = jax.tree.map(lambda v, g: beta_2 * v + (1 - beta_2) * g * g, v, g)
        rate = (workload.learning_rate * jnp.sqrt(1 - beta_2**t) / (1 - beta_1**t)).astype(workload.dtype)
        layers = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + epsilon), layers, m, v)
        return (layers, m, v, t), loss

    return step


def initial_state(workload: Workload) -> Any:
    """(layers, two averages of gradients, updates made)."""
    import jax
    import jax.numpy as jnp

    layers = jax.tree.map(jnp.asarray, initial(workload))
    return layers, jax.tree.map(jnp.zeros_like, layers), jax.tree.map(jnp.zeros_like, layers), jnp.float32(0)


def train(workload: Workload) -> Epochs:
    import jax
    import jax.numpy as jnp

    step = step_function(workload)
    X, y = map(jnp.asarray, workload.data())
    run = jax.jit(
        lambda state, order: jax.lax.scan(lambda state, rows: step(state, (X[rows], y[rows])), state, order),
        donate_argnums=0,
    )
    state, draws = initial_state(workload), np.random.default_rng(0)

    def epoch() -> float:
        nonlocal state
        order = draws.permutation(workload.n_rows).reshape(workload.n_steps, workload.batch_size)
        state, losses = run(state, order.astype(np.int32))
        return float(losses.mean())  # waits for the epoch's end

    return epoch


def fitter(fit: Fit) -> Fitter:
    """What was compiled for one fit serves the next one of the same shape."""
    import jax
    import jax.numpy as jnp

    step = step_function(fit, fit.loss)

    @partial(jax.jit, donate_argnums=0)
    def steps(state: Any, X: Any, y: Any, order: Any) -> Any:
        """One step for each row of `order`."""
        return jax.lax.scan(lambda state, rows: step(state, (X[rows], y[rows])), state, order)[0]

    def train(X: np.ndarray, y: np.ndarray) -> Trained:
        X_here, y_here, state = jnp.asarray(X), jnp.asarray(y), initial_state(fit)
        draws, n_whole = np.random.default_rng(0), len(X) // fit.batch_size * fit.batch_size
        for _ in range(fit.epochs):
            order = draws.permutation(len(X)).astype(np.int32)
            state = steps(state, X_here, y_here, order[:n_whole].reshape(-1, fit.batch_size))
            if n_whole < len(X):  # the smaller last batch is a shape of its own
                state = steps(state, X_here, y_here, order[np.newaxis, n_whole:])
        layers = jax.block_until_ready(state)[0]
        logits = logits_function(fit)
        return lambda X: np.asarray(logits(layers, X))

    return train


def predict(workload: Workload, rows: int) -> Predict:
    import jax

    logits = logits_function(workload)
    layers = jax.tree.map(jax.numpy.asarray, initial(workload))
    run = jax.jit(lambda layers, x: jax.nn.softmax(logits(layers, x)))
    X = workload.data().X[:rows]
    return lambda: np.asarray(run(layers, X))
