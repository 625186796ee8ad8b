"""Initial weights and biases: the names of ``weight_init`` and ``bias_init``, and their distributions. Drawn in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

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

    A product of reflections by normal vectors of decreasing length (Stewart 1980): the Q of the QR factorisation of a normal
    matrix, with signs such that R's diagonal is positive (Mezzadri 2007). LAPACK is not used because its bits depend on
    the processor and the number of threads.
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
