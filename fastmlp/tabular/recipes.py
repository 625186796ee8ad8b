"""Recipes: the parameters that a method sets where they are 'auto', and the networks that it begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastmlp.core import CodeLayout
from fastmlp.network.initialisers import data_driven
from fastmlp.network.network import Network
from fastmlp.training.run import StochasticRun
from fastmlp.training.schedules import FlatCosine, Planned

AUTO = "auto"


@dataclass(frozen=True)
class Recipe:
    """A kind of network and how it is trained.

    Parameters
    ----------
    embedding : int
        Units of each column's embedding; 0: the first layer multiplies the codes.
    n_members : int
        Members of each network.
    hidden_layer_sizes : tuple of int
    learning_rate_init, weight_decay : float
    max_grad_norm : float or None
    activation, dropout, learning_rate, max_iter, n_iter_no_change, beta_2, label_smoothing
        As of the estimators.
    scaling_rate : float
        Factor of the learning rate for a scaling of the columns; 0: none.
    """

    embedding: int
    n_members: int
    hidden_layer_sizes: tuple[int, ...]
    learning_rate_init: float
    weight_decay: float
    max_grad_norm: float | None
    activation: str = "relu"
    dropout: float = 0.1
    learning_rate: str = "constant"
    max_iter: int = 200
    n_iter_no_change: float = 16
    beta_2: float = 0.999
    label_smoothing: float = 0.0
    scaling_rate: float = 0.0


#: For classes.
RECIPES = {
    "plain": Recipe(0, 1, (256, 256), 0.001, 0.3, None),
    "tabm": Recipe(16, 2, (128, 128), 0.002, 3e-4, 1.0),
    "realmlp": Recipe(
        0,
        1,
        (256, 256, 256),
        0.04,
        0.0,
        None,
        "selu",
        0.0,
        "coslog4",
        256,
        np.inf,
        0.95,
        label_smoothing=0.1,
        scaling_rate=6.0,
    ),
}
#: For numbers.
REGRESSION_RECIPES = {
    **RECIPES,
    "realmlp": replace(RECIPES["realmlp"], activation="mish", learning_rate_init=0.07, label_smoothing=0.0),
}


@dataclass(frozen=True)
class EmbeddingNetwork:
    """Makes networks that embed the features of codes, in Network's place.

    A number's embedding begins as a line: its place among the quantiles, standardised as if numbers were spread evenly,
    times a direction of its own; a missing number is in the middle. All categories of a column begin alike. The other
    layers begin as uniform(-r, r), r = 1 / sqrt(fan_in), as PyTorch's Linear does.

    Parameters
    ----------
    layout : CodeLayout
    embedding, n_members : int
        As in ``Network``.
    """

    layout: CodeLayout
    embedding: int
    n_members: int

    def __call__(
        self,
        layer_sizes: Sequence[int],
        activation: str | Sequence[str],
        out_activation: str,
        dtype: Any,
        *,
        random_state: Any,
        **options: Any,
    ) -> Network:
        """A network with its first parameters; the arguments are Network's."""
        options |= {"weight_init": _uniform, "bias_init": _uniform_bias}
        options |= {"embedding": self.embedding, "n_members": self.n_members}
        network = Network(layer_sizes, activation, out_activation, dtype, random_state=random_state, **options)
        W, b = network.coefs[0], network.intercepts[0].reshape(-1, self.embedding)
        bin_counts = self.layout.bin_counts
        directions = random_state.uniform(-1, 1, (len(bin_counts), self.embedding))
        W[...] = 0
        b[...] = random_state.uniform(-1, 1, b.shape)
        for first, n_bins, direction in zip(self.layout.offsets, bin_counts, directions, strict=False):
            W[first : first + n_bins] = direction * (np.sqrt(12) / n_bins)
            W[first + n_bins] = direction * np.sqrt(3)
        b[: len(bin_counts)] -= directions * np.sqrt(3)
        return network

    def adapt(self, run: StochasticRun) -> StochasticRun:
        """The run as it is."""
        return run


# Of the learning rate.
_BIAS_RATE = 0.1


@dataclass(frozen=True)
class RealMLPNetwork:
    """Makes the networks of RealMLP-S, in Network's place, and trains them as its authors do.

    A layer of the authors is z = x W / sqrt(fan_in) + b, with W and b from N(0, 1), and zeros in the output layer. Here
    it is z = x w + b, w = W / sqrt(fan_in). Adam's steps do not depend on the scale of a gradient, but for epsilon: so
    w learns as W does, at the rate / sqrt(fan_in) and with epsilon sqrt(fan_in). In the same way, the difference of the
    outputs for two classes, which begin as zeros, learns as a single output at twice the rate; and the squared error
    learns as half of it, with half of epsilon.

    Parameters
    ----------
    scaling_rate : float
        Factor of the learning rate for a scaling of the inputs; 0: none.
    from_data : bool
        Draw the first parameters from the data, as in RealMLP: see ``data_driven``.
    """

    scaling_rate: float
    from_data: bool = False
    embedding: int = 0
    n_members: int = 1

    def __call__(
        self,
        layer_sizes: Sequence[int],
        activation: str | Sequence[str],
        out_activation: str,
        dtype: Any,
        *,
        random_state: Any,
        **options: Any,
    ) -> Network:
        """A network with its first parameters; the arguments are Network's."""
        options |= {"weight_init": "lecun_normal", "bias_init": ("normal", 1.0)}
        network = Network(layer_sizes, activation, out_activation, dtype, random_state=random_state, **options)
        network.coefs[-1][...] = network.intercepts[-1][...] = 0
        return network

    def adapt(self, run: StochasticRun) -> StochasticRun:
        """The run with the factors of each tensor, and RealMLP's schedule of dropout and weight decay, if it has any.
        The last batch of an epoch is left out unless it is full, and of equal epochs the last one is the best."""
        if self.from_data:
            _draw_from_data(run)
        network, last = run.network, len(run.network.coefs) - 1
        of_output = 2.0 if network.out_activation == "logistic" else 1.0
        epsilon = 0.5 if network.out_activation == "identity" else 1.0
        factors = []
        for layer, fan_in in enumerate(network.layer_sizes[:-1]):
            rate, root = of_output if layer == last else 1.0, float(np.sqrt(fan_in))
            factors.append(((rate / root, epsilon * root, root / rate), (_BIAS_RATE * rate, epsilon, 1.0)))
        scaling = (self.scaling_rate, epsilon, self.scaling_rate) if self.scaling_rate else ()
        settings = replace(run.settings, drops_last=True, prefers_last=True)
        total_steps = max(settings.max_epochs * settings.n_steps(run.data.n_rows), 1)
        schedule = run.schedule
        if isinstance(schedule, Planned):
            schedule = replace(schedule, total_steps=total_steps)
        method = replace(run.method, factors=tuple(factors), input_scaling=scaling)
        if any(method.dropout) or run.hyperparameters["weight_decay"]:
            method = replace(method, regularisation=FlatCosine(), total_steps=total_steps)
        return replace(run, settings=settings, schedule=schedule, method=method)


# Rows that initial values are drawn from, at most.
_MOST_DRAWN_FROM = 2**14


def _draw_from_data(run: StochasticRun) -> None:
    """Give the run's network first parameters that are drawn from its rows."""
    network, data = run.network, run.data.sample()
    if not isinstance(data.X, np.ndarray):  # codes of no column
        return
    rows = np.arange(len(data.X)) if data.rows is None else data.rows
    if len(rows) > _MOST_DRAWN_FROM:
        rows = rows[run.rng.randint(len(rows), size=_MOST_DRAWN_FROM)]
    *hidden, n_outputs = network.layer_sizes
    is_difference = network.out_activation == "logistic"  # of the outputs for two classes
    sizes = (*hidden, 2 * n_outputs if is_difference else n_outputs)
    coefs, intercepts = data_driven(sizes, network.activations, data.X[rows], run.rng)
    if is_difference:
        coefs[-1] = coefs[-1][:, n_outputs:] - coefs[-1][:, :n_outputs]
        intercepts[-1] = intercepts[-1][n_outputs:] - intercepts[-1][:n_outputs]
    for own, drawn in zip(network.coefs + network.intercepts, coefs + intercepts, strict=True):
        own[...] = drawn


def _uniform(fan_in: int, fan_out: int, rng: Any) -> np.ndarray:
    drawn: np.ndarray = rng.uniform(-(fan_in**-0.5), fan_in**-0.5, (fan_in, fan_out))
    return drawn


def _uniform_bias(fan_in: int, fan_out: int, rng: Any) -> np.ndarray:
    drawn: np.ndarray = rng.uniform(-(fan_in**-0.5), fan_in**-0.5, fan_out)
    return drawn
