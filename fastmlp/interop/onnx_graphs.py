"""ONNX graphs of chains and models, for to_onnx and for skl2onnx: nodes are made by one of two writers.

ONNX Runtime lacks float64 forms of several activations, and ONNX attributes are float32: these functions are written
out. ``to_onnx`` makes them functions of the model, under fastmlp's domain, by which ``from_onnx`` knows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

import fastmlp.core as core
from fastmlp.interop.errors import ConversionError
from fastmlp.interop.layers import Activation, Affine, Chain, Dropout, Noise, Norm, Residual
from fastmlp.interop.models import Exported

DOMAIN = "fastmlp"
#: Opsets that to_onnx writes; the last is the newest that was tried.
OPSETS = (13, 24)


class Writer(Protocol):
    """Where nodes go."""

    opset: int
    dtype: np.dtype

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output, whose name is returned."""

    def constant(self, array: Any) -> str:
        """The name of a constant."""

    def function(self, name: str, *inputs: str) -> str:
        """Append a call of one of ``FUNCTIONS``, or its nodes."""


# --- functions that are written out -----------------------------------------------------------------------------------


def _number(g: Writer, value: float) -> str:
    return g.constant(np.array(value, g.dtype))


def _expm1(g: Writer, x: str) -> str:
    """exp(x) - 1 = tanh(x / 2) (exp(x) + 1), which keeps the digits of small x."""
    half = g.node("Tanh", g.node("Mul", x, _number(g, 0.5)))
    return g.node("Mul", half, g.node("Add", g.node("Exp", x), _number(g, 1.0)))


def _elu(g: Writer, x: str) -> str:
    zero = _number(g, 0.0)
    return g.node("Add", g.node("Max", x, zero), _expm1(g, g.node("Min", x, zero)))


def _selu(g: Writer, x: str) -> str:
    zero, scale, alpha = _number(g, 0.0), 1.0507009873554804934, 1.6732632423543772848
    above = g.node("Mul", g.node("Max", x, zero), _number(g, scale))
    return g.node("Add", above, g.node("Mul", _expm1(g, g.node("Min", x, zero)), _number(g, scale * alpha)))


def _leaky_relu(g: Writer, x: str) -> str:
    return g.node("Max", x, g.node("Mul", x, _number(g, 0.01)))


def _softplus(g: Writer, x: str) -> str:
    """max(x, 0) + log(u) e / (u - 1), e = exp(-|x|), u = 1 + e: Kahan's log(1 + e), which keeps the digits of a small
    e."""
    e = g.node("Exp", g.node("Neg", g.node("Abs", x)))
    one = _number(g, 1.0)
    u = g.node("Add", e, one)
    logarithm = g.node("Div", g.node("Mul", g.node("Log", u), e), g.node("Sub", u, one))
    logarithm = g.node("Where", g.node("Equal", u, one), e, logarithm)
    return g.node("Add", g.node("Max", x, _number(g, 0.0)), logarithm)


def _mish(g: Writer, x: str) -> str:
    """x tanh(log(1 + e)) = x n / (n + 2), n = e (e + 2), e = exp(x); beyond 20 the factor is 1."""
    e, two = g.node("Exp", g.node("Min", x, _number(g, 20.0))), _number(g, 2.0)
    n = g.node("Mul", e, g.node("Add", e, two))
    return g.node("Mul", x, g.node("Div", n, g.node("Add", n, two)))


def _silu(g: Writer, x: str) -> str:
    """x / (1 + exp(-x)): ONNX Runtime's Sigmoid is 0 for small x."""
    return g.node("Div", x, g.node("Add", g.node("Exp", g.node("Neg", x)), _number(g, 1.0)))


def _log_logistic(g: Writer, x: str) -> str:
    return g.node("Neg", _softplus(g, g.node("Neg", x)))


def _gelu(g: Writer, x: str) -> str:
    """x Phi(x): in float32 by Erf, in float64 by Cody's rational functions (Mathematics of Computation 23, 1969)."""
    if g.dtype == np.float32:
        inner = g.node("Add", g.node("Erf", g.node("Mul", x, _number(g, 0.5**0.5))), _number(g, 1.0))
        return g.node("Mul", g.node("Mul", x, _number(g, 0.5)), inner)
    z = g.node("Mul", x, _number(g, 0.5**0.5))
    size = g.node("Abs", z)
    square = g.node("Mul", z, z)
    near = g.node("Min", square, _number(g, 0.46875**2))
    erf = g.node("Mul", z, _ratio(g, near, _A, _B))
    tail = g.node("Exp", g.node("Neg", square))
    middle = g.node(
        "Mul", tail, _ratio(g, g.node("Min", g.node("Max", size, _number(g, 0.46875)), _number(g, 4.0)), _C, _D)
    )
    far = g.node("Max", size, _number(g, 4.0))
    inverse = g.node("Div", _number(g, 1.0), g.node("Mul", far, far))
    inner = g.node("Sub", _number(g, np.pi**-0.5), g.node("Mul", inverse, _ratio(g, inverse, _P, _Q)))
    beyond = g.node("Div", g.node("Mul", tail, inner), far)
    upper = g.node("Where", g.node("Greater", size, _number(g, 4.0)), beyond, middle)  # erfc(|z|)
    one = _number(g, 1.0)
    outer = g.node(
        "Where", g.node("Less", z, _number(g, 0.0)), upper, g.node("Sub", _number(g, 2.0), upper)
    )  # erfc(-z)
    whole = g.node("Where", g.node("Greater", size, _number(g, 0.46875)), outer, g.node("Add", one, erf))
    return g.node("Mul", g.node("Mul", x, _number(g, 0.5)), whole)


# Coefficients of numerators and denominators, the highest power first.
_A = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_C = (
    2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1, 2.98635138197400131e2,
    8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3,
)  # fmt: skip
_D = (
    1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
)  # fmt: skip
_P = (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
    1.60837851487422766e-2, 6.58749161529837803e-4)  # fmt: skip
_Q = (
    1.0,
    2.56852019228982242e0,
    1.87295284992346725e0,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
    2.33520497626869185e-3,
)


def _ratio(g: Writer, x: str, above: tuple[float, ...], below: tuple[float, ...]) -> str:
    return g.node("Div", _polynomial(g, x, above), _polynomial(g, x, below))


def _polynomial(g: Writer, x: str, coefficients: tuple[float, ...]) -> str:
    value = _number(g, coefficients[0])
    for coefficient in coefficients[1:]:
        value = g.node("Add", g.node("Mul", value, x), _number(g, coefficient))
    return value


def _batch_norm(g: Writer, x: str, scale: str, shift: str, mean: str, variance: str) -> str:
    deviation = g.node("Sqrt", g.node("Add", variance, _number(g, core.NORM_EPSILON)))
    return g.node("Add", g.node("Mul", g.node("Sub", x, mean), g.node("Div", scale, deviation)), shift)


#: Name -> inputs, and the nodes that compute it.
FUNCTIONS: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "elu": (("x",), _elu),
    "selu": (("x",), _selu),
    "leaky_relu": (("x",), _leaky_relu),
    "softplus": (("x",), _softplus),
    "mish": (("x",), _mish),
    "silu": (("x",), _silu),
    "gelu": (("x",), _gelu),
    "log_logistic": (("x",), _log_logistic),
    "batch_norm": (("x", "scale", "shift", "mean", "variance"), _batch_norm),
}


# --- layers ----------------------------------------------------------------------------------------------------------


def write_chain(g: Writer, x: str, chain: Chain) -> str:
    """Append a chain's nodes; returns the name of its output."""
    for layer in chain:
        if isinstance(layer, Residual):
            x = g.node("Add", x, write_chain(g, x, layer.body))
        elif isinstance(layer, Affine):
            bias = () if layer.bias is None else (g.constant(layer.bias),)
            x = g.node("Gemm", x, g.constant(layer.weight), *bias)
        elif isinstance(layer, Norm):
            arrays = [g.constant(array) for array in (layer.scale, layer.shift, layer.mean, layer.variance)]
            if g.dtype == np.float64:
                x = g.function("batch_norm", x, *arrays)
            else:
                x = g.node("BatchNormalization", x, *arrays, epsilon=float(layer.epsilon))
        elif isinstance(layer, Activation):
            x = _activation(g, x, layer.name)
        else:
            assert isinstance(layer, (Dropout, Noise))
    return x


_OPS = {"logistic": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "exp": "Exp"}
# Operators that ONNX Runtime has in float32 only, and the first opset that has them.
_NARROW = {
    "elu": ("Elu", 1),
    "selu": ("Selu", 1),
    "softplus": ("Softplus", 1),
    "gelu": ("Gelu", 20),
    "mish": ("Mish", 18),
}


def _activation(g: Writer, x: str, name: str) -> str:
    if name == "identity":
        return x
    if name in _OPS:
        return g.node(_OPS[name], x)
    if name in ("softmax", "log_softmax"):
        return g.node("Softmax" if name == "softmax" else "LogSoftmax", x, axis=1)
    if name == "leaky_relu" and g.dtype == np.float32:
        return g.node("LeakyRelu", x, alpha=0.01)
    if name in _NARROW and g.dtype == np.float32 and g.opset >= _NARROW[name][1]:
        return g.node(_NARROW[name][0], x)
    return g.function(name, x)


# --- models -----------------------------------------------------------------------------------------------------------


def write_scores(g: Writer, x: str, model: Exported) -> str:
    """The model's probabilities, a column for each class, or its predictions (n_rows, n_outputs)."""
    if model.kind == "one class":
        shape = g.node("Concat", _n_rows(g, x), g.constant(np.array([1])), axis=0)
        return g.node("Expand", g.constant(np.ones((1, 1), g.dtype)), shape)
    results = []
    for network in model.networks:
        if model.kind == "binary":
            logit = write_chain(g, x, model.chain_of(network, logits=True))
            results.append(g.node("Sigmoid", g.node("Concat", g.node("Neg", logit), logit, axis=1)))
        else:
            results.append(write_chain(g, x, model.chain_of(network)))
    total = results[0]
    for result in results[1:]:
        total = g.node("Add", total, result)
    return g.node("Div", total, _number(g, len(results))) if len(results) > 1 else total


def write_label(g: Writer, x: str, probabilities: str, model: Exported) -> str:
    """The labels that ``predict`` gives."""
    if model.kind == "multilabel":
        return g.node("Cast", g.node("Greater", probabilities, _number(g, 0.5)), to=7)
    if model.kind == "one class":
        place = g.node("Expand", g.constant(np.zeros(1, np.int64)), _n_rows(g, x))
    elif model.kind == "binary":
        second = g.node("Gather", probabilities, g.constant(np.array(1)), axis=1)
        place = g.node("Cast", g.node("Greater", second, _number(g, 0.5)), to=7)
    else:
        place = g.node("ArgMax", probabilities, axis=1, keepdims=0)
    return g.node("Gather", g.constant(label_array(model)), place, axis=0)


def _n_rows(g: Writer, x: str) -> str:
    return g.node("Slice", g.node("Shape", x), g.constant(np.array([0])), g.constant(np.array([1])))


def label_array(model: Exported) -> np.ndarray:
    """The classes in a type that ONNX has."""
    assert model.classes is not None
    classes = model.classes
    if classes.dtype.kind in "OU":
        return np.array([str(label) for label in classes], dtype=object)
    if classes.dtype.kind in "iu":
        if len(classes) and classes.max() > np.iinfo(np.int64).max:
            raise ConversionError(
                f"{model.name}: labels up to {classes.max()}; ONNX's labels are int64. Take smaller numbers or strings."
            )
        return classes.astype(np.int64)
    return np.ascontiguousarray(classes)
