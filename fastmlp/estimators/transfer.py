"""Changing and reusing networks: growing, freezing, hidden layers of another network, hidden representations,
estimators of networks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any, TypeVar, cast

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from fastmlp.core import LOSSES, AtomicUpdate
from fastmlp.core.memory import all_finite
from fastmlp.estimators._sklearn import ADAPTERS_MANAGER, _get_output_config
from fastmlp.estimators.fitted import forget_run
from fastmlp.estimators.parameters import layer_sizes_of
from fastmlp.network.growing import grow_network, grow_sequence
from fastmlp.network.names import hint
from fastmlp.network.network import Network

Function = TypeVar("Function", bound=Callable[..., Any])


def atomic(method: Function) -> Function:
    """Decorator of a method that changes its object as one ``AtomicUpdate``.

    It must be the outermost decorator of a fit: a second fit must fail before scikit-learn's callbacks see it, since
    they would take it for the running one; and they must be torn down before attributes are restored.
    """

    @functools.wraps(method)
    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        with AtomicUpdate(self):
            return method(self, *args, **kwargs)

    return cast(Function, changed)


# --- growing, freezing, pretrained layers -----------------------------------------------------------------------


def grow(estimator: Any, hidden_layer_sizes: int | Sequence[int], random_state: Any) -> None:
    """Widen or deepen the network, and whatever has a value per layer with it."""
    sizes = layer_sizes_of(hidden_layer_sizes)
    with AtomicUpdate(estimator):
        estimator.network_.adopt()
        network, origin = grow_network(estimator.network_, sizes, check_random_state(random_state))
        if not isinstance(estimator.activation, str):
            estimator.activation = list(network.activations)
        if np.ndim(estimator.dropout):
            estimator.dropout = (estimator.dropout[0], *grow_sequence(tuple(estimator.dropout)[1:], origin))
        rates = estimator.layer_rates_
        estimator.layer_rates_ = (*grow_sequence(rates[:-1], origin, new=1.0), rates[-1])
        estimator.hidden_layer_sizes = sizes
        estimator.network_ = network
        estimator.n_layers_ = len(network.layer_sizes)
        forget_run(estimator)


def set_layer_rates(estimator: Any, layers: int | Sequence[int], rate: float) -> None:
    """Set the factor on the learning rate of some layers. Where a frozen one learns again, optimizer state is reset."""
    rates = list(estimator.layer_rates_)
    for layer in layers if isinstance(layers, Iterable) else [layers]:
        if isinstance(layer, bool) or not isinstance(layer, Integral) or not -len(rates) <= int(layer) < len(rates):
            raise ValueError(f"layers must be indices of the {len(rates)} layers, from 0, got {layer!r}.")
        rates[int(layer)] = rate
    with AtomicUpdate(estimator):
        if any(new > 0 and old == 0 for new, old in zip(rates, estimator.layer_rates_, strict=True)):
            vars(estimator).pop("_optimizer_state", None)
        estimator.layer_rates_ = tuple(rates)
        vars(estimator).pop("_position", None)


def copy_hidden_layers(network: Network, pretrained: Network) -> None:
    """Copy the hidden layers of ``pretrained`` into ``network``, which must have the same ones."""
    pretrained.check_dense()
    pretrained.adopt()
    for name in ("layer_sizes", "activations", "batch_norm", "residual"):
        ours, theirs = getattr(network, name), getattr(pretrained, name)
        if name == "layer_sizes":
            ours, theirs = ours[:-1], theirs[:-1]
        if ours != theirs:
            raise ValueError(
                f"pretrained must have the same hidden layers: its {name} are {theirs}, here they are {ours}."
            )
    n_hidden = len(network.activations)
    for name in ("coefs", "intercepts", "scales", "means", "variances"):
        for target, values in zip(getattr(network, name)[:n_hidden], getattr(pretrained, name), strict=False):
            target[...] = values


# --- hidden representations --------------------------------------------------------------------------------------


def hidden_layer(network: Network, layer: int) -> int:
    """The index of a hidden layer from 0, negative numbers counting from the last one."""
    n_hidden = len(network.activations)
    if isinstance(layer, bool) or not isinstance(layer, Integral) or not -n_hidden <= int(layer) < n_hidden:
        raise ValueError(f"layer must be the index of one of the {n_hidden} hidden layers, from 0, got {layer!r}.")
    return int(layer) % n_hidden


def network_up_to(network: Network, layer: int) -> Network:
    """A network whose output is that of hidden layer ``layer``, from 0, of ``network``: the same bits if all is finite.

    A layer that is normalised, or adds its input, must remain a hidden one: an output layer with an identity matrix
    follows it. Any other becomes the output layer.
    """
    network.check_dense()
    network.adopt()
    sizes, activations = network.layer_sizes[: layer + 2], network.activations[: layer + 1]
    coefs, intercepts = network.coefs[: layer + 1], network.intercepts[: layer + 1]
    if not network.batch_norm and not network.residual:
        parameters = np.concatenate([values.ravel() for values in (*coefs, *intercepts)])
        return Network(sizes, activations[:-1], activations[-1], network.dtype, parameters)
    width = sizes[-1]
    coefs, intercepts = [*coefs, np.eye(width)], [*intercepts, np.zeros(width)]
    parameters = np.concatenate([values.ravel() for values in (*coefs, *intercepts, *network.scales[: layer + 1])])
    statistics = np.concatenate([np.empty(0), *network.means[: layer + 1], *network.variances[: layer + 1]])
    return Network(
        (*sizes, width),
        activations,
        "identity",
        network.dtype,
        parameters,
        batch_norm=network.batch_norm,
        residual=network.residual,
        statistics=statistics,
    )


class HiddenRepresentation:
    """The method ``transform``. It is not in a subclass of TransformerMixin, whose ``transform`` scikit-learn would
    wrap."""

    network_: Network
    _run_network: Callable[[Network, Any], np.ndarray]
    get_feature_names_out: Callable[..., np.ndarray]

    def transform(self, X: Any, layer: int = -1) -> Any:
        """The output of a hidden layer for each row, after its activation, as in prediction (no dropout).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        layer : int, default=-1
            Which hidden layer, the first being 0; -1 is the last.

        Returns
        -------
        ndarray of shape (n_samples, units of the layer), or the container of ``set_output``
            Of the network's element type.

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        check_is_fitted(self)
        output = self._run_network(network_up_to(self.network_, hidden_layer(self.network_, layer)), X)
        # scikit-learn would do this itself, but with the same names for every layer.
        container = _get_output_config("transform", self)["dense"]
        if container == "default":
            return output
        names = self.get_feature_names_out(layer=layer)
        return ADAPTERS_MANAGER.adapters[container].create_container(output, X, columns=names)


# --- estimators of networks -------------------------------------------------------------------------------------------

# Parameters that the network itself has.
_OF_THE_NETWORK = ("hidden_layer_sizes", "activation", "batch_norm", "residual", "pretrained", "pretrained_rate")


def take_network(estimator: Any, network: Network) -> None:
    """Set the attributes that follow from a network, which becomes the estimator's own."""
    estimator.network_ = network
    estimator.n_outputs_, estimator.n_layers_ = network.layer_sizes[-1], len(network.layer_sizes)
    estimator.out_activation_ = network.out_activation
    estimator.layer_rates_ = (1.0,) * len(network.coefs)
    estimator._rng = None
    estimator._by_partial_fit = False


def estimator_of(cls: Any, network: Network, feature_names: Any, parameters: dict[str, Any]) -> Any:
    """An estimator of class ``cls`` with the network, its architecture as parameters, and an empty record of
    training."""
    valid = inspect.signature(cls).parameters
    for name in parameters:
        if name in _OF_THE_NETWORK:
            raise ValueError(f"{name} is the network's own: leave it out.")
        if name not in valid:
            raise TypeError(f"from_network got an unknown parameter: {name!r}.{hint(name, valid)}")
    if not isinstance(network, Network):
        raise TypeError(
            f"network must be a fastmlp.Network, got "
            f"{type(network).__qualname__}.{' Take its network_.' if hasattr(network, 'network_') else ''}"
        )
    network.check_dense()
    network = network.copy()
    if not all_finite(network.parameters) or not all_finite(network.statistics):
        raise ValueError("The network's parameters and statistics must be finite.")
    if (np.split(network.statistics, 2)[1] < 0).any():
        raise ValueError("The network's variances must not be negative.")
    names = network.activations
    shared = names[0] if len(set(names)) == 1 else list(names)
    estimator = cls(
        **{
            "warm_start": True,
            **parameters,
            "hidden_layer_sizes": network.layer_sizes[1:-1],
            "activation": shared if names else "relu",
            "batch_norm": network.batch_norm,
            "residual": network.residual,
        }
    )
    estimator._validate_params()
    if estimator._dtype_name() not in ("auto", network.dtype.name):
        network = network.copy(estimator._dtype_name())
        if not all_finite(network.parameters) or not all_finite(network.statistics):
            raise ValueError(f"The network's parameters must be finite in {network.dtype.name}.")
    take_network(estimator, network)
    estimator.n_features_in_ = network.layer_sizes[0]
    if feature_names is not None:
        labels = list(feature_names)
        if len(labels) != estimator.n_features_in_ or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"feature_names must be {estimator.n_features_in_} strings, got {feature_names!r}.")
        estimator.feature_names_in_ = np.array(labels, dtype=object)
    estimator.loss_, estimator.n_iter_, estimator.t_, estimator.history_ = np.nan, 0, 0, []
    return estimator


def classifier_of(cls: Any, network: Network, classes: Any, feature_names: Any, parameters: dict[str, Any]) -> Any:
    """``MLPClassifier.from_network``."""
    estimator = estimator_of(cls, network, feature_names, parameters)
    labels, network = _checked_classes(classes), estimator.network_
    n_outputs, output = network.layer_sizes[-1], network.out_activation
    order = np.argsort(labels, kind="stable")
    kind = "multiclass"
    if output == "logistic" and n_outputs == len(labels) > 1:
        kind = "multilabel-indicator"
        if labels.dtype.kind not in "iu" or not np.array_equal(labels, np.arange(n_outputs)):
            raise ValueError(
                f"A network with {n_outputs} logistic outputs is a multi-label classifier, whose classes are the "
                f"outputs' numbers: pass range({n_outputs}). Of exclusive classes, out_activation is 'softmax', or "
                "there is one logistic output for two."
            )
    elif output == "logistic" and n_outputs == 1 and len(labels) == 2:
        kind = "binary"
        if order[0] == 1:  # the logit of the other class
            network = _with_output(network, -network.coefs[-1], -network.intercepts[-1], "logistic")
    elif output == "softmax" and n_outputs == len(labels):
        W, b = network.coefs[-1][:, order], network.intercepts[-1][order]
        if n_outputs == 2:
            kind, W, b, output = "binary", W[:, 1:] - W[:, :1], b[1:] - b[:1], "logistic"
        network = _with_output(network, W, b, output)
        if not all_finite(network.parameters):
            raise ValueError("The difference of the two outputs' weights is not finite.")
    else:
        way = (
            " For logits, make a Network of the same parameters with that out_activation; the converters of "
            "fastmlp.interop take output='softmax'."
        )
        raise ValueError(
            f"{len(labels)} classes need out_activation='softmax' and {len(labels)} "
            f"outputs{', or one logistic output' * (len(labels) == 2)}, "
            f"got out_activation={output!r} and n_outputs={n_outputs}.{way * (output not in ('softmax', 'logistic'))}"
        )
    take_network(estimator, network)
    estimator.classes_, estimator._target_type, estimator._sparse_target = labels[order], kind, False
    return estimator


def _checked_classes(classes: Any) -> np.ndarray:
    """The labels, as an array of the type that ``fit`` would give them."""
    labels = np.asarray(list(classes) if isinstance(classes, (range, set, frozenset, tuple)) else classes)
    if isinstance(classes, (set, frozenset)):
        raise TypeError("classes must have the order of the network's outputs; a set has none.")
    if labels.ndim != 1 or len(labels) < 2:
        raise ValueError(f"classes must be a list of at least two labels, got {classes!r}.")
    if labels.dtype.kind == "O" and not all(isinstance(label, str) for label in labels):
        raise TypeError("classes must be numbers, truth values or strings, all of one kind.")
    if labels.dtype.kind == "U" and not all(
        isinstance(label, str) for label in classes
    ):  # NumPy makes text of numbers beside text
        raise TypeError("classes must be numbers, truth values or strings, all of one kind.")
    if labels.dtype.kind not in "biufUO" or type_of_target(labels) not in ("binary", "multiclass"):
        raise ValueError(f"classes must be labels of a classifier, got {classes!r}.")
    if len(np.unique(labels)) != len(labels):
        raise ValueError(f"classes must be different labels, got {classes!r}.")
    return labels


def _with_output(network: Network, W: np.ndarray, b: np.ndarray, out_activation: str) -> Network:
    """The network with another output layer."""
    values = [*network.coefs[:-1], W, *network.intercepts[:-1], b, *network.scales]
    return Network(
        (*network.layer_sizes[:-1], W.shape[1]),
        network.activations,
        out_activation,
        network.dtype,
        np.concatenate([array.ravel() for array in values]),
        batch_norm=network.batch_norm,
        residual=network.residual,
        statistics=network.statistics,
    )


def regressor_of(cls: Any, network: Network, feature_names: Any, parameters: dict[str, Any]) -> Any:
    """``MLPRegressor.from_network``."""
    if isinstance(network, Network) and network.out_activation == "exp":
        parameters = {"loss": "poisson", **parameters}
    estimator = estimator_of(cls, network, feature_names, parameters)
    output = estimator.network_.out_activation
    if output != LOSSES[estimator.loss]:
        valid = sorted({LOSSES[loss] for loss in LOSSES if LOSSES[loss] in ("identity", "exp")})
        raise ValueError(
            f"loss={estimator.loss!r} needs out_activation={LOSSES[estimator.loss]!r}, the network has {output!r}."
            if output in valid
            else f"A regressor's network has out_activation 'identity', or 'exp' with loss='poisson', got {output!r}. "
            "Network.forward computes this one."
        )
    return estimator
