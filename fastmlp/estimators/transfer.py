"""Changing and reusing a fitted network: growing it, freezing layers, hidden layers from another network, hidden representations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any, TypeVar, cast

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastmlp.core import AtomicUpdate
from fastmlp.estimators._sklearn import ADAPTERS_MANAGER, _get_output_config
from fastmlp.estimators.fitted import forget_run
from fastmlp.estimators.parameters import layer_sizes_of
from fastmlp.network.growing import grow_network, grow_sequence
from fastmlp.network.network import Network

Function = TypeVar("Function", bound=Callable[..., Any])


def atomic(method: Function) -> Function:
    """Decorator of a method that changes its object as one ``AtomicUpdate``.

    It must be the outermost decorator of a fit: a second fit must fail before scikit-learn's callbacks see it, since they would
    take it for the running one; and they must be torn down before attributes are restored.
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
    """The method ``transform``. It is not in a subclass of TransformerMixin, whose ``transform`` scikit-learn would wrap."""

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
