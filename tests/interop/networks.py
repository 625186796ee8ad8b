"""Networks for the converters' tests: a grid of architectures with random parameters, and the agreement asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastmlp.core as core
from fastmlp import Network
from fastmlp.estimators.conversion import has_residual_layers

# Largest differences of outputs, relative to the largest output (docs/interop.md).
AGREEMENT = {"float32": 2e-6, "float64": 5e-15}
N_FEATURES = 5


def network(
    activation="relu", sizes=(6, 6), out="identity", dtype="float32", n_out=3, batch_norm=False, residual=False, seed=0
) -> Network:
    """A network with random parameters and statistics."""
    net = Network(
        (N_FEATURES, *sizes, n_out), activation, out, dtype, random_state=seed, batch_norm=batch_norm, residual=residual
    )
    rng = np.random.RandomState(seed + 1)
    net.parameters += 0.1 * rng.normal(size=net.n_parameters).astype(net.dtype)
    if net.batch_norm:
        net.statistics[:] = rng.uniform(0.2, 2, net.n_statistics)
    return net


def rows(dtype="float32", n=40, n_features=N_FEATURES) -> np.ndarray:
    return np.random.RandomState(7).normal(size=(n, n_features)).astype(dtype)


def same_bits(a: Network, b: Network) -> bool:
    """Whether two networks have the same layers and parameters; residual=True may say nothing about either."""
    return (
        (a.layer_sizes, a.activations, a.out_activation, a.dtype)
        == (b.layer_sizes, b.activations, b.out_activation, b.dtype)
        and has_residual_layers(a) == has_residual_layers(b)
        and np.array_equal(a.parameters, b.parameters)
        and np.array_equal(a.statistics, b.statistics)
    )


def assert_agrees(output, net: Network, X: np.ndarray) -> None:
    expected = net.forward(X)
    scale = max(np.abs(expected).max(), 1e-30)
    np.testing.assert_allclose(
        np.asarray(output).reshape(expected.shape), expected, rtol=0, atol=AGREEMENT[net.dtype.name] * scale
    )


# Every activation at each element type; every combination of the rest.
GRID = [
    {"activation": name, "dtype": dtype} for name in core.ACTIVATIONS for dtype in ("float32", "float64")
] + [
    {"sizes": sizes, "batch_norm": norm, "residual": residual, "dtype": dtype, "out": out,
        "activation": ["tanh", "relu", "gelu"][: len(sizes)]}
    for sizes, norm, residual, dtype, out in itertools.product(
        [(), (7,), (6, 6), (5, 5, 4)], [False, True], [False, True], ["float32", "float64"],
        ["identity", "softmax", "logistic", "exp"]
    )
]  # fmt: skip
# The fast set has each activation at one element type, and a part of the rest.
NETWORKS = [
    pytest.param(
        options,
        id="-".join(map(str, options.values())),
        marks=() if (i % 4 in (0, 3) if i < 2 * len(core.ACTIVATIONS) else i % 13 == 0) else pytest.mark.slow,
    )
    for i, options in enumerate(GRID)
]
