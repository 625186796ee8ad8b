"""Growing a trained network, wider or deeper, without changing what it computes (Chen, Goodfellow, Shlens, ICLR 2016).

When that is possible:

    wider   always; in a residual network, if the same layers stay as wide as their input
    deeper  a new layer starts as the identity. Without a residual connection, this needs an activation with
            f(f(x)) = f(x): identity or relu; before the first hidden layer, identity only. With a residual connection,
            it needs f(0) = 0 and a slope at 0 that is not 0, or the layer could never learn: not relu, not logistic.

With batch normalisation, the output in training is kept too. A new residual layer has scale 0. Without residual
connections, a new layer's scale and shift are the standard deviation and the mean of its input, computed from the layer
before as if the sums there were normally distributed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any, TypeVar

import numpy as np

import fastmlp.core as core
from fastmlp.network.network import Network

T = TypeVar("T")

# f(f(x)) = f(x)
_IDEMPOTENT = ("identity", "relu")


def grow_sequence(values: Sequence[T], origin: Sequence[int | None], new: T | None = None) -> list[T]:
    """One value per layer of a grown network. A new layer takes ``new``, or the value of the layer before it."""
    grown: list[T] = []
    for old in origin:
        if old is not None:
            grown.append(values[old])
        else:
            grown.append(new if new is not None else grown[-1] if grown else values[0])
    return grown


def grow_network(
    network: Network, hidden_layer_sizes: Sequence[int], rng: np.random.RandomState
) -> tuple[Network, list[int | None]]:
    """Grow a network to these hidden layers. Returns it and the old index of each hidden layer, None for a new one.

    Raises
    ------
    ValueError
        If a layer would become narrower, there would be fewer of them, or the function could not be kept.
    """
    network.check_dense()
    sizes, old = tuple(hidden_layer_sizes), network.layer_sizes[1:-1]
    if len(sizes) < len(old) or not old:
        raise ValueError(
            f"hidden_layer_sizes must keep the {len(old)} hidden layers {old}, of which there is at least one, got "
            f"{sizes}."
        )
    reasons = []
    for places in combinations(range(len(sizes)), len(old)):  # new layers as late as possible first
        origin: list[int | None] = [places.index(place) if place in places else None for place in range(len(sizes))]
        reason = _why_not(network, sizes, origin)
        if not reason:
            return _widened(_deepened(network, origin, rng), sizes, rng), origin
        reasons.append(reason)
    raise ValueError(f"The network {old} cannot grow into {sizes} and keep its function: {reasons[0]}.")


def _thin_sizes(network: Network, origin: Sequence[int | None]) -> list[int]:
    """Units per layer, input included, before layers are widened: a new layer is as wide as its input."""
    thin = [network.layer_sizes[0]]
    for old in origin:
        thin.append(thin[-1] if old is None else network.layer_sizes[1 + old])
    return thin


def _why_not(network: Network, sizes: Sequence[int], origin: Sequence[int | None]) -> str:
    """Why the network cannot grow this way; '' if it can."""
    thin, wide = _thin_sizes(network, origin), [network.layer_sizes[0], *sizes]
    if any(size < least for size, least in zip(wide, thin, strict=True)):
        return f"layers of {thin[1:]} units would become {tuple(sizes)}, which is narrower"
    if network.residual and [a == b for a, b in pairwise(thin)] != [a == b for a, b in pairwise(wide)]:
        return (
            f"its residual connections, where layers are as wide as their input, would change between {thin} and {wide}"
        )
    for place, (old, name) in enumerate(zip(origin, grow_sequence(network.activations, origin), strict=True)):
        if old is not None:
            continue
        if network.residual:
            flat = Network((1, 1), out_activation=name, dtype="float64", parameters=[1.0, 0.0])
            at_zero, beyond = flat.forward(np.array([[0.0], [-1e-3]])).ravel()
            if at_zero != 0 or beyond == 0:
                return f"a residual layer with {name} cannot start as the identity and learn"
        elif name not in _IDEMPOTENT or (place == 0 and name != "identity"):
            return f"a layer with {name} at position {place} cannot be the identity"
    return ""


def _deepened(network: Network, origin: Sequence[int | None], rng: np.random.RandomState) -> Network:
    """Insert the new layers, as wide as their input; each computes the identity."""
    thin = _thin_sizes(network, origin)
    names = grow_sequence(network.activations, origin)
    grown = _empty(network, [*thin, network.layer_sizes[-1]], names, rng)
    before = "identity", np.zeros(thin[0]), np.ones(thin[0])  # for the input, whose moments are unknown
    for layer, old in enumerate([*origin, len(network.coefs) - 1]):
        normalised = layer < len(grown.scales)
        if old is not None:
            grown.coefs[layer][...], grown.intercepts[layer][...] = network.coefs[old], network.intercepts[old]
            if normalised:
                grown.scales[layer][...] = network.scales[old]
                grown.means[layer][...], grown.variances[layer][...] = network.means[old], network.variances[old]
                before = names[layer], network.intercepts[old], network.scales[old]
            continue
        grown.intercepts[layer][...] = 0
        if not network.residual:
            grown.coefs[layer][...] = np.eye(thin[layer])
        elif not normalised:
            grown.coefs[layer][...] = 0
        if normalised and network.residual:
            # W = 0 would be undone by normalisation in the first training step.
            grown.scales[layer][...] = 0
        elif normalised:
            mean, variance = _moments(*before)
            grown.means[layer][...], grown.variances[layer][...] = mean, variance
            grown.scales[layer][...], grown.intercepts[layer][...] = np.sqrt(variance + core.NORM_EPSILON), mean
    return grown


def _moments(activation: str, mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of f(u), u normal with this mean and deviation, for the two activations that a new layer may
    have."""
    m, d = mean.astype(np.float64), np.maximum(np.abs(deviation.astype(np.float64)), np.finfo(np.float32).tiny)
    if activation == "identity":
        return m, d * d
    positive = 0.5 * np.array([math.erfc(-x) for x in m / d / math.sqrt(2)])  # P(u > 0)
    density = d * np.exp(-0.5 * (m / d) ** 2) / math.sqrt(2 * math.pi)
    first = m * positive + density
    return first, np.maximum((m * m + d * d) * positive + m * density - first * first, 0)


def _widened(network: Network, sizes: Sequence[int], rng: np.random.RandomState) -> Network:
    """Widen layers by copying units. Copies have the same incoming weights and share the outgoing ones in unequal
    parts."""
    grown = _empty(network, [network.layer_sizes[0], *sizes, network.layer_sizes[-1]], network.activations, rng)
    copies, shares = np.arange(network.layer_sizes[0]), np.ones(network.layer_sizes[0])
    last = len(network.coefs) - 1
    for layer, (W, b) in enumerate(zip(network.coefs, network.intercepts, strict=True)):
        entering = W[copies].astype(np.float64) * shares[:, np.newaxis]
        fan_in, fan_out = W.shape
        if layer == last:
            copies = np.arange(fan_out)
        elif not (network.residual and fan_in == fan_out):  # there, the copies are those of the layer below
            copies, shares = _copies(fan_out, sizes[layer], rng)
        grown.coefs[layer][...], grown.intercepts[layer][...] = entering[:, copies], b[copies]
        if layer < len(grown.scales):
            for name in ("scales", "means", "variances"):
                getattr(grown, name)[layer][...] = getattr(network, name)[layer][copies]
    return grown


def _copies(n: int, wanted: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """For each of ``wanted`` units, the index of the unit that it copies and its share of the outgoing weights (sum 1
    per unit)."""
    copies = np.concatenate([np.arange(n), rng.randint(n, size=wanted - n)])
    drawn = rng.uniform(0.5, 1.5, wanted)
    total = np.bincount(copies, weights=drawn, minlength=n)
    alone = np.bincount(copies, minlength=n) == 1
    return copies, np.where(alone[copies], 1.0, drawn / total[copies])


def _empty(
    network: Network, layer_sizes: Sequence[int], activations: Sequence[Any], rng: np.random.RandomState
) -> Network:
    return Network(
        layer_sizes,
        list(activations),
        network.out_activation,
        network.dtype,
        random_state=rng,
        batch_norm=network.batch_norm,
        residual=network.residual,
    )
