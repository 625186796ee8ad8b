"""The normal form of a network, a chain of layers, which all converters read and write.

A reader of another framework's network turns each of its operations into layers of this module; ``assemble`` makes a
``Network`` of the chain, or raises a ConversionError. What fastmlp can hold is decided here and nowhere else.
Arithmetic is in float64; a result is rounded once, to the network's element type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastmlp.core as core
from fastmlp.core.memory import all_finite
from fastmlp.interop.errors import ConversionError
from fastmlp.network.names import hint
from fastmlp.network.network import Network

#: Output activations by the name that PyTorch, Keras and ONNX give them.
OUTPUT_NAMES = {"sigmoid": "logistic", "linear": "identity", "exponential": "exp", "swish": "silu"}
# f(c x) = c f(x) for c > 0: dropout may stand on either side.
_HOMOGENEOUS = ("identity", "relu", "leaky_relu")
_LEAKY_SLOPE = 0.01
_AT_THE_END = ("softmax", "log_softmax", "log_logistic", "exp")


def refuse(where: str, problem: str) -> ConversionError:
    """The error for a layer."""
    return ConversionError(f"{where}: {problem}")


def missing(package: str, extra: str, used_for: str) -> ImportError:
    """The error where an optional package is not installed."""
    return ImportError(f"{used_for} needs {package}: pip install 'fastmlp[{extra}]'.")


# --- layers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Affine:
    """z = x W + b, W of shape (fan_in, fan_out); b is None where there is none."""

    where: str
    weight: np.ndarray
    bias: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Norm:
    """z = scale (x - mean) / sqrt(variance + epsilon) + shift: batch normalisation in prediction, of shapes (n,)."""

    where: str
    mean: np.ndarray
    variance: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    epsilon: float = core.NORM_EPSILON

    def factor_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """The same as a scale and a shift, in float64."""
        factor = np.asarray(self.scale, np.float64) / np.sqrt(np.asarray(self.variance, np.float64) + self.epsilon)
        return factor, np.asarray(self.shift, np.float64) - factor * np.asarray(self.mean, np.float64)


@dataclass(frozen=True, eq=False)
class Scale:
    """z = factor x + shift, numbers or of shape (n,)."""

    where: str
    factor: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, eq=False)
class Activation:
    """A function of each unit, or of the whole row: a name of ``core.ACTIVATIONS`` or ``core.OUTPUTS``.

    With ``terms``, of shape (n, 3) or (n, 3, units), it is the piecewise linear function
    ``constant + sum_i terms[i, 0] relu(terms[i, 1] x + terms[i, 2])``, and ``remark`` says why no name fits.
    """

    where: str
    name: str
    terms: np.ndarray | None = None
    constant: Any = 0.0
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Dropout:
    """Dropout of a share of the units, in training only."""

    where: str
    rate: float


@dataclass(frozen=True, eq=False)
class Noise:
    """Normal noise that is added in training only."""

    where: str
    std: float


@dataclass(frozen=True, eq=False)
class Remark:
    """No computation in prediction; a note for the user."""

    where: str
    text: str


@dataclass(frozen=True, eq=False)
class Residual:
    """z = x + body(x)."""

    where: str
    body: Chain


Layer = Affine | Norm | Scale | Activation | Dropout | Noise | Remark | Residual
#: A value in another framework's network: the layers from the input to it.
Chain = tuple[Layer, ...]


def layers_of(network: Network) -> Chain:
    """The chain of a network, whose arrays it shares."""
    if network.embedding:
        raise ConversionError(
            "The network embeds coded features: it has no dense first layer that this form could hold."
        )
    network.adopt()
    chain: list[Layer] = []
    for i, (W, b) in enumerate(zip(network.coefs, network.intercepts, strict=True)):
        hidden = i < len(network.activations)
        layer: list[Layer]
        if hidden and network.batch_norm:
            norm = Norm(f"norm {i}", network.means[i], network.variances[i], network.scales[i], b)
            layer = [Affine(f"layer {i}", W), norm]
        else:
            layer = [Affine(f"layer {i}", W, b)]
        layer.append(Activation(f"activation {i}", network.activations[i] if hidden else network.out_activation))
        if hidden and network.residual and W.shape[0] == W.shape[1]:
            layer = [Residual(f"residual {i}", tuple(layer))]
        chain += layer
    return tuple(chain)


# --- activations of other frameworks ----------------------------------------------------------------------------------


def named(where: str, name: str) -> Chain:
    """An activation that fastmlp has, by fastmlp's name."""
    return () if name == "identity" else (Activation(where, name),)


def leaky_relu(where: str, slope: Any) -> Chain:
    """x where x > 0, else slope x; one slope, or one for each unit."""
    ours = {_LEAKY_SLOPE, float(np.float32(_LEAKY_SLOPE)) if np.asarray(slope).dtype == np.float32 else _LEAKY_SLOPE}
    slope = np.asarray(slope, np.float64)
    slope = slope.reshape(-1)[0] if slope.size and (slope == slope.reshape(-1)[0]).all() else slope
    if np.ndim(slope) == 0:
        if slope == 0:
            return named(where, "relu")
        if slope == 1:
            return ()
        if float(slope) in ours:
            return named(where, "leaky_relu")
    text = f"slope {float(slope):g}" if np.ndim(slope) == 0 else f"slopes {slope.min():g} to {slope.max():g}"
    one = np.ones_like(slope)
    terms = np.array([[one, one, 0 * one], [-slope, -one, 0 * one]])
    return (Activation(where, "piecewise", terms, 0.0, f"{text}; fastmlp has {_LEAKY_SLOPE}"),)


def clipped(where: str, low: float, high: float) -> Chain:
    """min(max(x, low), high)."""
    if not low <= high:
        raise refuse(where, f"the range {low:g} to {high:g}, so that its output is a constant.")
    if low == -np.inf and high == np.inf:
        return ()
    if low == 0 and high == np.inf:
        return named(where, "relu")
    remark = f"the range {low:g} to {high:g}; fastmlp has no clipped activation"
    if low == -np.inf:
        return (Activation(where, "piecewise", np.array([[-1.0, -1.0, high]]), high, remark),)
    terms = [[1.0, 1.0, -low]] + ([] if high == np.inf else [[-1.0, 1.0, -high]])
    return (Activation(where, "piecewise", np.array(terms), low, remark),)


def elu(where: str, alpha: float) -> Chain:
    """x where x > 0, else alpha (exp(x) - 1)."""
    if alpha == 1:
        return named(where, "elu")
    if alpha == 0:
        return named(where, "relu")
    raise refuse(where, f"alpha {alpha:g}; fastmlp's elu has 1. Train with 1, or with selu.")


def stretched(where: str, name: str, inner: float, outer: float) -> Chain:
    """outer f(inner x): celu, softplus with beta, the logarithm of a logistic function."""
    return (*scaled(where, inner), *named(where, name), *scaled(where, outer))


def celu(where: str, alpha: float) -> Chain:
    """max(x, 0) + min(alpha (exp(x / alpha) - 1), 0) = alpha elu(x / alpha)."""
    if not alpha > 0:
        raise refuse(where, f"alpha {alpha:g} must be > 0.")
    return stretched(where, "elu", 1 / alpha, alpha)


def softplus(where: str, beta: float) -> Chain:
    """log(1 + exp(beta x)) / beta."""
    if not beta > 0:
        raise refuse(where, f"beta {beta:g} must be > 0.")
    return stretched(where, "softplus", beta, 1 / beta)


def hard_sigmoid(where: str, slope: float = 1 / 6, middle: float = 0.5) -> Chain:
    """min(max(slope x + middle, 0), 1)."""
    return (*scaled(where, slope, middle), *clipped(where, 0.0, 1.0))


#: Of other frameworks, by their names in small letters: why there is none, and what comes near.
UNKNOWN = {
    "gelu_tanh": "the tanh form of gelu; fastmlp has the exact one, x Phi(x). Make the layer with the exact form, and "
    "fine-tune it.",
    "softsign": "fastmlp has no softsign; tanh comes near.",
    "tanhshrink": "fastmlp has no tanhshrink.",
    "softshrink": "fastmlp has no softshrink.",
    "hardshrink": "fastmlp has no hardshrink.",
    "hardswish": "fastmlp has no hardswish; silu comes near.",
    "threshold": "fastmlp has no threshold but relu's.",
    "glu": "fastmlp has no gated units.",
}


def unknown(where: str, kind: str) -> ConversionError:
    """The error for an activation or layer that fastmlp lacks."""
    reason = UNKNOWN.get(kind.lower().replace("_", "").replace("gelutanh", "gelu_tanh"))
    return refuse(where, reason or f"fastmlp has no counterpart of {kind}.")


# --- values of a graph ----------------------------------------------------------------------------------------------


def scaled(where: str, factor: Any = 1.0, shift: Any = 0.0) -> Chain:
    """A scale and a shift, numbers or one for each unit."""
    factor, shift = (_row(where, values) for values in (factor, shift))
    return () if factor.ndim == shift.ndim == 0 and factor == 1 and shift == 0 else (Scale(where, factor, shift),)


def _row(where: str, values: Any) -> np.ndarray:
    """Numbers for each unit, as an array of shape () or (n,)."""
    array = np.asarray(values, np.float64)
    if array.size == 1:
        return array.reshape(())
    if array.ndim > 1 and array.size == array.shape[-1]:
        array = array.reshape(-1)
    if array.ndim != 1:
        raise refuse(where, f"an array of shape {array.shape}, which does not act on each unit of a row alike.")
    return array


def width_of(chain: Chain) -> int | None:
    """Units of a value; None where no layer tells."""
    for layer in reversed(chain):
        if isinstance(layer, Affine):
            return int(layer.weight.shape[-1])
        if isinstance(layer, Residual):
            return width_of(layer.body)
    return None


def tails(a: Chain, b: Chain) -> tuple[Chain, Chain, Chain]:
    """The layers that two values share, and those that each has alone."""
    n = 0
    while n < min(len(a), len(b)) and a[n] is b[n]:
        n += 1
    return a[:n], a[n:], b[n:]


def added(where: str, a: Chain, b: Chain) -> Chain:
    """The sum of two values: x + f(x)."""
    shared, first, second = tails(a, b)
    if first and second:
        raise refuse(
            where, "the sum of two branches; fastmlp adds a layer's input, as it is, to its output (residual=True)."
        )
    body = first or second
    if not body:
        return (*shared, *scaled(where, 2.0))
    return (*shared, Residual(where, body))


def multiplied(where: str, a: Chain, b: Chain) -> Chain:
    """The product of two values: silu, gelu and mish, written out."""
    shared, *own = tails(a, b)
    first, second = (tuple(layer for layer in part if not isinstance(layer, Remark)) for part in own)
    for x, gate in ((first, second), (second, first)):
        factor = _factor(x)
        if factor is None:
            continue
        *inner, outer = (*gate, None)
        if isinstance(gate[-1] if gate else None, Scale):
            *inner, outer = gate
        before = _factor(tuple(part for part in inner if isinstance(part, Scale)))
        names = [part.name for part in inner if isinstance(part, Activation)]
        if (
            before is None
            or before == 0
            or len(inner) > len(names) + 1
            or (len(inner) > len(names) and not isinstance(inner[0], Scale))
        ):
            continue
        if outer is None and names == ["logistic"]:
            return (*shared, *stretched(where, "silu", before, factor / before))
        if outer is None and names == ["softplus", "tanh"]:
            return (*shared, *stretched(where, "mish", before, factor / before))
        if (
            names == ["erf"]
            and isinstance(outer, Scale)
            and outer.factor.ndim == outer.shift.ndim == 0
            and np.isclose(outer.factor, outer.shift, rtol=1e-7, atol=0)
        ):
            k = before * np.sqrt(2.0)  # x Phi(k x)
            k = 1.0 if np.isclose(k, 1, rtol=3e-7, atol=0) else k
            return (*shared, *stretched(where, "gelu", k, 2 * factor * float(outer.factor) / k))
    raise refuse(where, "the product of two values; fastmlp has silu, gelu and mish, and no other.")


def _factor(layers: Iterable[Layer]) -> float | None:
    """The factor of layers that multiply by numbers only; None for others."""
    factor = 1.0
    for layer in layers:
        if not isinstance(layer, Scale) or layer.factor.ndim or layer.shift.ndim or layer.shift != 0:
            return None
        factor *= float(layer.factor)
    return factor


# --- from a chain to a network ------------------------------------------------------------------------------------


@dataclass
class Converted:
    """A network of another framework, as fastmlp's.

    Parameters
    ----------
    network : Network
        The network.
    parameters : dict
        Of the training, as parameters of an estimator: 'dropout', 'input_noise'.
    notes : list of str
        What was folded and no longer trains, and what differs in further training.
    """

    network: Network
    parameters: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def classifier(self, classes: Any, **parameters: Any) -> Any:
        """A fitted classifier.

        Parameters
        ----------
        classes : array-like of shape (n_classes,)
            Labels in the order of the outputs.
        **parameters
            As in :meth:`MLPClassifier.from_network`; 'dropout' and 'input_noise' are those of the network unless they
            are given.

        Returns
        -------
        MLPClassifier

        Raises
        ------
        ValueError, TypeError
            As :meth:`MLPClassifier.from_network`.
        """
        from fastmlp.estimators.classifier import MLPClassifier

        plain = self.network.out_activation.removeprefix("log_")  # log_softmax: the same logits
        network = self.network if plain == self.network.out_activation else with_output(self.network, plain)
        return MLPClassifier.from_network(network, classes, **{**self.parameters, **parameters})

    def regressor(self, **parameters: Any) -> Any:
        """A fitted regressor.

        Parameters
        ----------
        **parameters
            As in :meth:`MLPRegressor.from_network`; 'dropout' and 'input_noise' are those of the network unless they
            are given.

        Returns
        -------
        MLPRegressor

        Raises
        ------
        ValueError, TypeError
            As :meth:`MLPRegressor.from_network`.
        """
        from fastmlp.estimators.regressor import MLPRegressor

        return MLPRegressor.from_network(self.network, **{**self.parameters, **parameters})


def with_output(network: Network, out_activation: str) -> Network:
    """The network with another output activation."""
    network.adopt()
    return Network(
        network.layer_sizes, network.activations, out_activation, network.dtype, network.parameters,
        batch_norm=network.batch_norm, residual=network.residual, statistics=network.statistics,
    )  # fmt: skip


@dataclass
class _Hidden:
    """A layer as ``Network`` has it, in float64."""

    where: str
    weight: np.ndarray
    bias: np.ndarray
    norm: Norm | None = None
    activation: str = ""
    residual: str = ""
    dropout: float = 0.0
    # A dropout that stands before the activation.
    inner_dropout: tuple[str, float] | None = None


def _goes_on(chain: Chain) -> bool:
    """Whether a part of a chain computes anything."""
    return any(not isinstance(layer, (Dropout, Noise, Remark)) for layer in chain)


def _is_minus_one(pending: tuple[Any, np.ndarray, np.ndarray]) -> bool:
    """Whether what is pending changes the sign, and nothing else."""
    _, factor, shift = pending
    return factor.ndim == shift.ndim == 0 and factor == -1 and shift == 0


def _both(first: float, second: float) -> float:
    """The rate of two dropouts in a row."""
    return first + second if first * second == 0 else 1 - (1 - first) * (1 - second)


class _Assembly:
    """The layers so far, and what stands behind the last activation: x = pending(last output)."""

    def __init__(self, rewrite: bool, notes: list[str]) -> None:
        self.rewrite, self.notes = rewrite, notes
        self.layers: list[_Hidden] = []
        self.open: _Hidden | None = None  # a layer whose activation has not come
        self.pending: list[tuple[Scale | Norm | Activation, np.ndarray, np.ndarray]] = []  # factor or matrix, shift
        self.ended = ""  # the place of a softmax, or another activation of the output only
        self.input_dropout, self.noise = 0.0, 0.0

    def take(self, chain: Chain) -> None:
        for i, layer in enumerate(chain):
            if isinstance(layer, Activation) and layer.name == "log_logistic" and _goes_on(chain[i + 1 :]):
                self.take(stretched(layer.where, "softplus", -1.0, -1.0))  # log(logistic(x)) = -softplus(-x)
                continue
            if self.ended and not isinstance(layer, (Dropout, Noise, Remark)):
                raise refuse(
                    self.ended,
                    f"{self.layers[-1].activation} before other layers; fastmlp has it as the last one only.",
                )
            getattr(self, f"take_{type(layer).__name__.lower()}")(layer)

    def take_affine(self, layer: Affine) -> None:
        weight = np.asarray(layer.weight, np.float64)
        if weight.ndim != 2:
            raise refuse(layer.where, f"weights of shape {weight.shape}; fastmlp's layers have matrices.")
        bias = np.zeros(weight.shape[1]) if layer.bias is None else np.asarray(layer.bias, np.float64).reshape(-1)
        if layer.bias is None:
            self.notes.append(f"{layer.where} has no bias: it is 0 here, and trains.")
        if bias.size == 1 and bias.size != weight.shape[1]:
            bias = np.repeat(bias, weight.shape[1])
        if bias.shape != (weight.shape[1],) or 0 in weight.shape:
            raise refuse(layer.where, f"weights of shape {weight.shape} and a bias of shape {bias.shape}.")
        if self.open is not None:
            self.close("identity")
        for source, matrix, shift in reversed(self.pending):
            shape = matrix.shape if matrix.ndim == 2 else (max(matrix.size, shift.size),)
            if shape[-1] not in (1, weight.shape[0]):
                raise refuse(layer.where, f"{weight.shape[0]} inputs behind {shape[-1]} units of {source.where}.")
            bias = bias + np.broadcast_to(shift, weight.shape[:1]) @ weight
            weight = (
                matrix @ weight if matrix.ndim == 2 else np.broadcast_to(matrix, weight.shape[:1])[:, None] * weight
            )
            if isinstance(source, Norm):
                self.notes.append(
                    f"{source.where} is folded into the weights of {layer.where}: its normalisation no longer trains."
                )
            elif isinstance(source, Scale):
                self.notes.append(f"{source.where} is folded into the weights of {layer.where}.")
        self.pending = []
        if self.layers and self.layers[-1].weight.shape[1] != weight.shape[0]:
            raise refuse(layer.where, f"{weight.shape[0]} inputs behind {self.layers[-1].weight.shape[1]} units.")
        self.open = _Hidden(layer.where, weight, bias)

    def take_norm(self, layer: Norm) -> None:
        arrays = {
            name: np.asarray(getattr(layer, name), np.float64).reshape(-1)
            for name in ("mean", "variance", "scale", "shift")
        }
        layer = Norm(layer.where, **arrays, epsilon=layer.epsilon)
        if (layer.variance < 0).any():
            raise refuse(layer.where, "negative variances.")
        if self.open is None:
            self.pending.append((layer, *layer.factor_and_shift()))
            return
        self._check_units(layer.where, layer.mean)
        if self.open.norm is not None:
            self._scale_open(layer.where, *layer.factor_and_shift())
            self.notes.append(
                f"{layer.where} is folded into {self.open.norm.where}: a second normalisation does not train."
            )
            return
        self._leave_inner_dropout()
        self.open.norm = layer

    def take_scale(self, layer: Scale) -> None:
        if self.open is None:
            self.pending.append((layer, layer.factor, layer.shift))
        else:
            self._scale_open(layer.where, layer.factor, layer.shift)

    def _scale_open(self, where: str, factor: np.ndarray, shift: np.ndarray) -> None:
        """Fold a scale and a shift into the layer that is open."""
        layer = self.open
        assert layer is not None
        self._check_units(where, factor)
        self._check_units(where, shift)
        if np.any(shift != 0):
            self._leave_inner_dropout()
        if layer.norm is None:
            layer.weight, layer.bias = layer.weight * factor, layer.bias * factor + shift
        else:
            norm = layer.norm
            layer.norm = Norm(
                norm.where, norm.mean, norm.variance, norm.scale * factor, norm.shift * factor + shift, norm.epsilon
            )

    def _check_units(self, where: str, values: np.ndarray) -> None:
        assert self.open is not None
        if values.size not in (1, len(self.open.bias)):
            raise refuse(where, f"{values.size} units behind {len(self.open.bias)} of {self.open.where}.")

    def _leave_inner_dropout(self) -> None:
        """A dropout that stands before the activation, and cannot be moved behind it."""
        if self.open is not None and self.open.inner_dropout is not None:
            where, rate = self.open.inner_dropout
            self.open.inner_dropout = None
            self.notes.append(f"{where}: dropout of {rate:g} before the activation is left out of 'dropout'.")

    def take_activation(self, layer: Activation) -> None:
        if layer.terms is not None:
            self._take_piecewise(layer)
            return
        if layer.name not in core.ACTIVATIONS + core.OUTPUTS:
            raise refuse(layer.where, f"fastmlp has no {layer.name}.")
        last = self.layers[-1] if self.layers else None
        if (
            self.open is None
            and not self.pending
            and last is not None
            and layer.name == last.activation == "relu"
            and not last.residual
        ):
            return
        if self.open is None:
            self._open_identity(
                layer.where, f"{layer.name} without weights before it; in fastmlp weights stand before each activation"
            )
        self.close(layer.name, layer.where)
        if layer.name in _AT_THE_END:
            self.ended = layer.where

    def _open_identity(self, where: str, problem: str) -> None:
        """A layer with an identity matrix, which takes what is pending."""
        width = self.layers[-1].weight.shape[1] if self.layers else 0
        for _, matrix, shift in self.pending:
            width = (
                matrix.shape[1]
                if matrix.ndim == 2
                else max(width, matrix.size if matrix.ndim else 0, shift.size if shift.ndim else 0)
            )
        if not self.rewrite or width == 0:
            way = "rewrite=True adds a layer with an identity matrix." if width else "Put a linear layer there."
            raise refuse(where, f"{problem}. {way}")
        self.notes.append(f"{where}: a layer with an identity matrix is added.")
        self.take_affine(Affine(f"the layer added for {where}", np.eye(width), np.zeros(width)))

    def _take_piecewise(self, layer: Activation) -> None:
        """A piecewise linear function as a layer of relu, with as many units for each unit as the function has
        terms."""
        terms = layer.terms
        assert terms is not None
        n_terms = len(terms)
        if not self.rewrite:
            times = {1: "of relu", 2: "twice as wide"}.get(n_terms, f"{n_terms} times as wide")
            raise refuse(layer.where, f"{layer.remark}. rewrite=True puts it into a relu layer {times}.")
        if self.open is None:
            self._open_identity(layer.where, f"{layer.remark}, and no weights before it")
        opened = self.open
        assert opened is not None
        self._leave_inner_dropout()
        units = len(opened.bias)
        for values in (*terms.reshape(n_terms * 3, -1), np.atleast_1d(layer.constant)):
            self._check_units(layer.where, values)
        if terms.ndim == 2:
            terms = np.repeat(terms[:, :, None], units, axis=2)
        outer, inner, shift = terms.transpose(1, 0, 2)
        if opened.norm is None:
            weight = np.concatenate([opened.weight * factor for factor in inner], axis=1)
            bias = np.concatenate([opened.bias * factor + t for factor, t in zip(inner, shift, strict=True)])
            norm = None
        else:
            old = opened.norm
            weight, bias = np.tile(opened.weight, n_terms), np.tile(opened.bias, n_terms)
            norm = Norm(
                old.where,
                np.tile(old.mean, n_terms),
                np.tile(old.variance, n_terms),
                np.concatenate([old.scale * factor for factor in inner]),
                np.concatenate([old.shift * factor + t for factor, t in zip(inner, shift, strict=True)]),
                old.epsilon,
            )
        self.open = _Hidden(opened.where, weight, bias, norm)
        self.close("relu", layer.where)
        matrix = np.concatenate([np.diag(row) for row in outer])
        self.pending = [(layer, matrix, np.broadcast_to(np.asarray(layer.constant, np.float64), (units,)))]
        self.notes.append(f"{layer.where} ({layer.remark}) is a relu layer {n_terms} times as wide here.")

    def close(self, activation: str, where: str = "") -> None:
        """End the open layer with its activation."""
        layer = self.open
        assert layer is not None
        layer.activation = activation
        if layer.inner_dropout is not None:
            if activation in _HOMOGENEOUS:
                layer.dropout = layer.inner_dropout[1]
            else:
                self._leave_inner_dropout()
        self.layers.append(layer)
        self.open = None

    def take_dropout(self, layer: Dropout) -> None:
        if layer.rate == 0:
            return
        left_out = f"{layer.where}: dropout of {layer.rate:g} is left out of 'dropout'"
        if not 0 < layer.rate < 1:
            self.notes.append(f"{left_out}, whose rates are below 1.")
        elif self.open is not None:
            rate = 0.0 if self.open.inner_dropout is None else self.open.inner_dropout[1]
            self.open.inner_dropout = (layer.where, _both(rate, layer.rate))
        elif self.ended or (
            self.pending and any(matrix.ndim == 2 or np.any(shift != 0) for _, matrix, shift in self.pending)
        ):
            self.notes.append(f"{left_out}: it stands behind {'the output' if self.ended else 'a shift'}.")
        elif self.layers:
            self.layers[-1].dropout = _both(self.layers[-1].dropout, layer.rate)
        else:
            self.input_dropout = _both(self.input_dropout, layer.rate)

    def take_noise(self, layer: Noise) -> None:
        if self.layers or self.open is not None or self.pending:
            self.notes.append(f"{layer.where}: noise of {layer.std:g} is left out: fastmlp adds it to the input only.")
        else:
            self.noise = float(np.hypot(self.noise, layer.std))

    def take_remark(self, layer: Remark) -> None:
        self.notes.append(f"{layer.where}: {layer.text}")

    def take_residual(self, layer: Residual) -> None:
        inside = _Assembly(False, self.notes)
        try:
            inside.take(layer.body)
        except ConversionError as error:
            raise ConversionError(f"{error} It stands in the branch that {layer.where} adds.") from None
        if not inside.layers and inside.open is None:
            if inside.pending and all(matrix.ndim < 2 for _, matrix, _ in inside.pending):  # x + (c x + d)
                factor, shift = np.array(1.0), np.array(0.0)
                for _, own, own_shift in inside.pending:
                    factor, shift = factor * own, shift * own + own_shift
                self.take_scale(Scale(layer.where, 1 + factor, shift))
                return
            raise refuse(layer.where, "a sum without weights.")
        first = inside.layers[0] if inside.layers else inside.open
        assert first is not None
        if first.weight.shape[0] != (inside.open or inside.layers[-1]).weight.shape[1]:
            raise refuse(
                layer.where,
                f"a sum of {first.weight.shape[0]} units and {(inside.open or inside.layers[-1]).weight.shape[1]}.",
            )
        if inside.input_dropout or inside.noise or any(part.dropout for part in inside.layers) or first.inner_dropout:
            self.notes.append(f"{layer.where}: dropout and noise inside of the branch are left out.")
        if inside.open is not None and not inside.layers:  # x + (x W + b) = x (W + I) + b
            opened = _folded(inside.open, self.notes)
            weight = opened.weight + np.eye(len(opened.bias))
            self.take_affine(Affine(opened.where, weight, opened.bias))
            self.notes.append(f"{layer.where} is folded into the weights of {opened.where}.")
            return
        if len(inside.layers) != 1 or inside.open is not None or inside.pending or inside.ended:
            raise refuse(
                layer.where,
                "a branch of several layers, or with a scale behind its activation; fastmlp adds a layer's input to "
                "the output of one layer, x + f(x W + b).",
            )
        if self.open is not None:
            self.close("identity")
        if self.pending:
            raise refuse(
                self.pending[0][0].where,
                f"its output is both the input of {first.where} and added to the output, so that it cannot be folded "
                f"into weights.",
            )
        hidden = inside.layers[0]
        if self.layers and self.layers[-1].weight.shape[1] != hidden.weight.shape[0]:
            raise refuse(
                layer.where, f"{hidden.weight.shape[0]} inputs behind {self.layers[-1].weight.shape[1]} units."
            )
        hidden.residual, hidden.dropout = layer.where, 0.0
        self.layers.append(hidden)

    def end(self, output: str | None) -> tuple[list[_Hidden], _Hidden]:
        """The hidden layers and the output layer."""
        if (
            self.layers
            and self.layers[-1].activation == "softplus"
            and len(self.pending) == 1
            and _is_minus_one(self.pending[0])
        ):
            last = self.layers[-1]  # -softplus(z) = log(logistic(-z))
            self.pending, self.open = [], self.layers.pop()
            last.activation = ""
            self._scale_open(last.where, np.array(-1.0), np.array(0.0))
            self.close("log_logistic")
        if self.open is not None:
            self._leave_inner_dropout()
            self.close("identity")
        elif not self.layers and not self.pending:
            raise ConversionError("There is no layer with weights: a Network has at least one.")
        elif self.pending or self.layers[-1].residual:
            if self.pending:
                self._open_identity(
                    self.pending[-1][0].where, "a scale behind the last activation; fastmlp has none there"
                )
            else:
                self._open_identity(
                    self.layers[-1].residual, "a sum at the end; fastmlp adds the inputs of hidden layers only"
                )
            self.close("identity")
        *hidden, last_layer = self.layers
        if last_layer.dropout:
            self.notes.append(f"{last_layer.where}: dropout of the output is left out.")
        if output is not None:
            own = last_layer.activation
            if own not in ("identity", output, f"log_{output}"):
                raise refuse(
                    last_layer.where,
                    f"output={output!r} says what follows logits, but the network ends with {own}. Leave it out.",
                )
            last_layer.activation = output
        return hidden, last_layer


def _folded(layer: _Hidden, notes: list[str]) -> _Hidden:
    """The layer without its normalisation."""
    if layer.norm is None:
        return layer
    factor, shift = layer.norm.factor_and_shift()
    notes.append(f"{layer.norm.where} is folded into the weights of {layer.where}: its normalisation no longer trains.")
    return _Hidden(
        layer.where,
        layer.weight * factor,
        layer.bias * factor + shift,
        None,
        layer.activation,
        layer.residual,
        layer.dropout,
    )


def output_name(output: str | None) -> str | None:
    """The parameter ``output``, checked, by fastmlp's name."""
    valid = dict.fromkeys(core.OUTPUTS + core.ACTIVATIONS)
    name = OUTPUT_NAMES.get(output, output) if isinstance(output, str) else output
    if name is not None and name not in valid:
        raise ValueError(f"output must be one of {list(valid)}, got {output!r}.{hint(str(name), list(valid))}")
    return name


def assemble(
    chain: Chain,
    *,
    output: str | None = None,
    batch_norm: str = "keep",
    rewrite: bool = False,
    dtype: Any = None,
    notes: Sequence[str] = (),
) -> Converted:
    """The network of a chain.

    Parameters
    ----------
    chain : tuple of layers
    output : str, default=None
        What stands behind the logits; None: the last activation of the chain.
    batch_norm : {'keep', 'fold'}, default='keep'
        Keep batch normalisation where all hidden layers have it, between weights and activation; or fold all of it.
    rewrite : bool, default=False
        Whether layers may be added or widened.
    dtype : {'float32', 'float64'}, default=None
        None: float64 if any weight is, else float32.
    notes : sequence of str, default=()
        The first notes.

    Returns
    -------
    Converted

    Raises
    ------
    ConversionError
    """
    if batch_norm not in ("keep", "fold"):
        raise ValueError(f"batch_norm must be 'keep' or 'fold', got {batch_norm!r}.")
    if dtype is not None and np.dtype(dtype).name not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}.")
    remarks = list(notes)
    assembly = _Assembly(rewrite, remarks)
    assembly.take(chain)
    hidden, last = assembly.end(output_name(output))
    for layer in hidden:
        if layer.activation not in core.ACTIVATIONS:
            raise refuse(layer.where, f"{layer.activation} before other layers; fastmlp has it as the last one only.")
    residual = _residual(hidden)
    with_norm = [layer for layer in hidden if layer.norm is not None]
    keeps = batch_norm == "keep" and 0 < len(with_norm) == len(hidden)
    if not keeps:
        hidden = [_folded(layer, remarks) for layer in hidden]
    last = _folded(last, remarks)
    layers = [*hidden, last]
    values = [layer.weight for layer in layers]
    statistics: list[np.ndarray] = []
    if keeps:
        norms = [_ours(layer, remarks) for layer in hidden]
        values += [*(norm.shift for norm in norms), last.bias, *(norm.scale for norm in norms)]
        statistics = [*(norm.mean for norm in norms), *(norm.variance for norm in norms)]
    else:
        values += [layer.bias for layer in layers]
    wide = any(array.dtype == np.float64 for array in _arrays(chain))
    element = np.dtype(dtype or ("float64" if wide else "float32"))
    with np.errstate(over="ignore", invalid="ignore"):
        for layer in layers:
            own = [
                layer.weight,
                layer.bias,
                *([] if layer.norm is None else [layer.norm.shift, layer.norm.scale, layer.norm.mean]),
            ]
            if not all(all_finite(np.ascontiguousarray(array, dtype=element)) for array in own):
                raise refuse(layer.where, f"weights that are not finite in {element.name}.")
    network = Network(
        [layers[0].weight.shape[0], *(layer.weight.shape[1] for layer in layers)],
        [layer.activation for layer in hidden],
        last.activation,
        element,
        np.concatenate([array.ravel() for array in values]).astype(element),
        batch_norm=keeps,
        residual=residual,
        statistics=np.concatenate([np.empty(0), *statistics]).astype(element),
    )
    if not all_finite(network.parameters) or not all_finite(network.statistics):
        raise ConversionError(f"The parameters are not finite in {element.name}.")
    parameters: dict[str, Any] = {}
    rates = (assembly.input_dropout, *(layer.dropout for layer in hidden))
    if any(rates):
        parameters["dropout"] = rates
    if assembly.noise:
        parameters["input_noise"] = assembly.noise
    return Converted(network, parameters, list(dict.fromkeys(remarks)))


def check_outputs(where: str, chain: Chain, outputs: Callable[[np.ndarray], list[np.ndarray]], rewrite: bool) -> None:
    """Refuse a chain whose network does not compute what the model itself does.

    ``outputs`` runs the model on rows (n_rows, n_features) of float64, several times. Differences below the rounding of
    float32 pass; how much a network's outputs feel it is measured by a change of all its parameters.
    """
    network = assemble(chain, rewrite=rewrite, dtype="float64").network
    sizes, n_outputs = network.layer_sizes, network.layer_sizes[-1]
    n_rows = next(n for n in range(40, 80) if n not in sizes)  # so that no transpose passes
    random = np.random.RandomState(0)
    rows = random.standard_normal((n_rows, sizes[0])) * np.resize([0.1, 1.0, 10.0, 1000.0], n_rows)[:, None]
    rows = rows.astype(np.float32).astype(np.float64)
    runs = outputs(rows)
    with np.errstate(all="ignore"):
        expected = network.forward(rows)
        unit = float(np.finfo(np.float32).eps)
        for values in (network.parameters, network.statistics):
            values *= 1 + unit * random.standard_normal(values.shape)
        noise = np.abs(network.forward(rows) - expected).max(1) + unit * np.abs(expected).max(1) + 1e-30
        known = np.abs(expected).max(1) < 1e30
        for run in runs:
            if run.shape not in (expected.shape, *([(n_rows,)] if n_outputs == 1 else [])):
                raise refuse(where, f"its output for {n_rows} rows has shape {run.shape}, not {expected.shape}.")
        largest = 0.0
        for run, other in [*((run, expected) for run in runs), *((run, runs[0]) for run in runs[1:])]:
            difference = np.abs(run.reshape(expected.shape) - other.reshape(expected.shape)).max(1)[known]
            if not np.all(difference <= 100 * noise[known]):
                largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
    if largest:
        raise refuse(
            where,
            f"its outputs differ by up to {largest:.3g} from those of the network, or from one run to the next: its "
            f"forward does something that the conversion did not see, such as random numbers, a state, a branch on "
            f"the kind of tensor, autocast or a change in place.",
        )


def _residual(hidden: list[_Hidden]) -> bool:
    """Whether the hidden layers as wide as their inputs add these; all of them, or none."""
    added = [layer for layer in hidden if layer.residual]
    plain = [layer for layer in hidden if layer.weight.shape[0] == layer.weight.shape[1] and not layer.residual]
    if added and plain:
        raise refuse(
            added[0].residual,
            f"it adds its input, and {plain[0].where} does not, which is as wide as its input too; with residual=True "
            "all such layers of fastmlp do. Give that layer another width.",
        )
    return bool(added)


def _ours(layer: _Hidden, notes: list[str]) -> Norm:
    """The layer's normalisation with fastmlp's epsilon; a bias of the product is in the mean."""
    norm = layer.norm
    assert norm is not None
    scale = norm.scale
    if norm.epsilon != core.NORM_EPSILON:
        if not np.all(norm.variance + norm.epsilon > 0):
            raise refuse(norm.where, "a variance and an epsilon of 0.")
        scale = scale * np.sqrt((norm.variance + core.NORM_EPSILON) / (norm.variance + norm.epsilon))
        notes.append(
            f"{norm.where}: epsilon {norm.epsilon:g} is in the scales; further training has {core.NORM_EPSILON:g}."
        )
    return Norm(norm.where, norm.mean - layer.bias, norm.variance, scale, norm.shift)


def _arrays(chain: Chain) -> Iterable[np.ndarray]:
    """The weights of a chain, of Affine and Norm, as they were given."""
    for layer in chain:
        if isinstance(layer, Affine):
            yield layer.weight
        elif isinstance(layer, Norm):
            yield np.asarray(layer.mean)
        elif isinstance(layer, Residual):
            yield from _arrays(layer.body)
