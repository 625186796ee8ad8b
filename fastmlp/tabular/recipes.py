"""Recipes: the parameters that a method sets where they are 'auto', and the networks that it begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmlp.core import CodeLayout
from fastmlp.network.network import Network

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
    """

    embedding: int
    n_members: int
    hidden_layer_sizes: tuple[int, ...]
    learning_rate_init: float
    weight_decay: float
    max_grad_norm: float | None


RECIPES = {
    "plain": Recipe(0, 1, (256, 256), 0.001, 0.3, None),
    "tabm": Recipe(16, 2, (128, 128), 0.002, 3e-4, 1.0),
}


@dataclass(frozen=True)
class EmbeddingNetwork:
    """Makes networks that embed the features of codes, in Network's place.

    A number's embedding begins as a line: its place among the quantiles, standardised as if numbers were spread evenly, times a
    direction of its own; a missing number is in the middle. All categories of a column begin alike. The other layers begin as
    uniform(-r, r), r = 1 / sqrt(fan_in), as PyTorch's Linear does.

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


def _uniform(fan_in: int, fan_out: int, rng: Any) -> np.ndarray:
    drawn: np.ndarray = rng.uniform(-(fan_in**-0.5), fan_in**-0.5, (fan_in, fan_out))
    return drawn


def _uniform_bias(fan_in: int, fan_out: int, rng: Any) -> np.ndarray:
    drawn: np.ndarray = rng.uniform(-(fan_in**-0.5), fan_in**-0.5, fan_out)
    return drawn
