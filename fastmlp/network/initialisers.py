"""Initial weights and biases: the names of ``weight_init`` and ``bias_init``, and their distributions. Drawn in
float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

import fastmlp.core as core
from fastmlp.network.callables import check_takes
from fastmlp.network.names import hint


class Layer(NamedTuple):
    """The properties of a layer that initial values depend on."""

    fan_in: int
    fan_out: int
    activation: str


Draw = Callable[[Any, Layer, tuple[int, ...]], np.ndarray]  # (rng, layer, shape) -> array of that shape, float64
Size = Callable[[Layer], float]


def _uniform(bound: Size) -> Draw:
    """uniform(-bound, bound)."""
    return lambda rng, layer, shape: rng.uniform(-bound(layer), bound(layer), shape)


def _normal(std: Size) -> Draw:
    """Normal around 0 with standard deviation ``std``."""
    return lambda rng, layer, shape: rng.normal(0.0, std(layer), shape)


def _constant(value: Size) -> Draw:
    """One number everywhere."""
    return lambda rng, layer, shape: np.full(shape, value(layer))


# Columns per block: all reflections are applied to a block before the next, so that it stays in L2.
_COLUMNS = 64


def _orthogonal(rng: Any, layer: Layer, shape: tuple[int, ...]) -> np.ndarray:
    """Orthonormal columns, or rows where those are fewer, evenly distributed over all such matrices.

    A product of reflections by normal vectors of decreasing length (Stewart 1980): the Q of the QR factorisation of a
    normal matrix, with signs such that R's diagonal is positive (Mezzadri 2007). LAPACK is not used because its bits
    depend on the processor and the number of threads.
    """
    n, m = min(shape), max(shape)
    vectors = rng.normal(size=(n, m))
    signs = np.empty(n)
    for k in range(n):  # (1 - v v^T) e_1 = -sign x / |x|, with v = x + sign |x| e_1 scaled to length sqrt(2)
        v = vectors[k, k:]
        signs[k] = -np.copysign(1.0, v[0])
        v[0] -= signs[k] * np.sqrt((v * v).sum())
        v *= np.sqrt(2.0 / (v * v).sum())
    q = np.eye(m, n)
    for first in range(0, n, _COLUMNS):
        columns = q[:, first : first + _COLUMNS].copy()
        for k in reversed(range(min(first + _COLUMNS, n))):
            v = vectors[k, k:, np.newaxis]
            columns[k:] -= v * (v * columns[k:]).sum(axis=0)
        q[:, first : first + _COLUMNS] = columns
    q *= signs
    return q if shape[0] == m else q.T


#: Names of ``bias_init``; fan_in and fan_out are those of the layer's weights.
BIAS_INITIALISERS: dict[str, Draw] = {
    # scikit-learn's form of glorot_uniform
    "auto": _uniform(lambda l: np.sqrt((2.0 if l.activation == "logistic" else 6.0) / (l.fan_in + l.fan_out))),
    # Glorot and Bengio, AISTATS 2010: variance 2 / (fan_in + fan_out)
    "glorot_uniform": _uniform(lambda l: np.sqrt(6.0 / (l.fan_in + l.fan_out))),
    "glorot_normal": _normal(lambda l: np.sqrt(2.0 / (l.fan_in + l.fan_out))),
    # He, Zhang, Ren and Sun, ICCV 2015: variance 2 / fan_in, for relu
    "he_uniform": _uniform(lambda l: np.sqrt(6.0 / l.fan_in)),
    "he_normal": _normal(lambda l: np.sqrt(2.0 / l.fan_in)),
    # LeCun, Bottou, Orr and Müller 1998, Efficient BackProp: variance 1 / fan_in
    "lecun_normal": _normal(lambda l: np.sqrt(1.0 / l.fan_in)),
}
#: Names of ``weight_init``.
WEIGHT_INITIALISERS: dict[str, Draw] = {
    **BIAS_INITIALISERS,
    # Saxe, McClelland and Ganguli, ICLR 2014
    "orthogonal": _orthogonal,
}
#: Pairs (name, number) of either: the number's name, its least value, the distribution.
PAIRS: dict[str, tuple[str, float, Callable[[Size], Draw]]] = {
    "normal": ("std >= 0", 0.0, _normal),
    "uniform": ("bound >= 0", 0.0, _uniform),
    "constant": ("value", -math.inf, _constant),
}


def initialiser(argument: str, value: Any) -> Draw:
    """The function that draws initial values for ``weight_init`` or ``bias_init``, which ``Network`` describes.

    It raises ValueError if a user's callable returns an array of another shape, or anything else.
    """
    names = WEIGHT_INITIALISERS if argument == "weight_init" else BIAS_INITIALISERS
    if isinstance(value, str) and value in names:
        return names[value]
    if callable(value):
        return _checked(argument, value)
    if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], str) and value[0] in PAIRS:
        _, least, draw_with = PAIRS[value[0]]
        number = float(value[1]) if isinstance(value[1], Real) and not isinstance(value[1], bool) else math.nan
        if math.isfinite(number) and number >= least:
            return draw_with(lambda layer: number)
    forms = ", ".join(f"({name!r}, {words})" for name, (words, _, _) in PAIRS.items())
    raise ValueError(
        f"{argument} must be one of {list(names)}, one of {forms} with a finite number, or a callable "
        f"(fan_in, fan_out, rng), got {value!r}.{hint(value, names)}"
    )


def _checked(argument: str, function: Callable[[int, int, Any], Any]) -> Draw:
    """The user's function, with a check of shape and type; ``Network`` checks that the numbers are finite."""
    check_takes(argument, function, ("fan_in", "fan_out", "rng"), "array")

    def draw(rng: Any, layer: Layer, shape: tuple[int, ...]) -> np.ndarray:
        array = np.asarray(function(layer.fan_in, layer.fan_out, rng))
        if array.shape != shape or array.dtype.kind not in "fiub":
            raise ValueError(
                f"{argument} must return real numbers of shape {shape} for fan_in={layer.fan_in}, "
                f"fan_out={layer.fan_out}, got {array.shape} of {array.dtype}."
            )
        return array.astype(np.float64)

    return draw


# Rows in the convex combination of a bias.
_COMBINED = 5


def data_driven(
    layer_sizes: Sequence[int], activations: Sequence[str], X: np.ndarray, rng: Any
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and biases of each layer from the rows that it will see.

    Weights are normal, each unit's divided by the standard deviation of its product over the rows. The bias is minus a
    random convex combination of the unit's products for five rows, with shares Exp(1) divided by their sum: the unit
    changes its sign somewhere among the rows (Steinwart 2019; Holzmüller, Grinsztajn and Steinwart, NeurIPS 2024).

    Parameters
    ----------
    layer_sizes : sequence of int
        From input to output.
    activations : sequence of str
        Of the hidden layers.
    X : ndarray of shape (n, layer_sizes[0])
    rng : RandomState
    """
    coefs, intercepts = [], []
    a = X.astype(np.float64)
    for (fan_in, fan_out), activation in zip(pairwise(layer_sizes), [*activations, "identity"], strict=True):
        W, zeros = rng.normal(0.0, fan_in**-0.5, (fan_in, fan_out)), np.zeros(fan_out)
        z = _layer(a, W, zeros, "identity")
        spread = z.std(axis=0)
        spread[spread == 0] = 1.0
        W, z = W / spread, z / spread
        rows = rng.randint(len(a), size=(fan_out, _COMBINED))
        shares = rng.exponential(size=(fan_out, _COMBINED))
        shares /= shares.sum(axis=1, keepdims=True)
        b = -(shares * z[rows, np.arange(fan_out)[:, np.newaxis]]).sum(axis=1)
        a = _layer(a, W, b, activation)
        coefs.append(W)
        intercepts.append(b)
    return coefs, intercepts


def _layer(x: np.ndarray, W: np.ndarray, b: np.ndarray, activation: str) -> np.ndarray:
    """f(x W + b), to the same bits on every machine, which BLAS does not promise."""
    plan = core.Plan(W.shape, (), activation, "float64")
    return core.forward(plan, np.concatenate([W.ravel(), b]), x)
