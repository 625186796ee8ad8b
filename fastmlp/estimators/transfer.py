"""What changes an estimator, one change at a time: growing it, freezing layers, hidden layers from another network.

It refuses to train and to see data. Imported by ``base``, ``estimators`` and ``ensemble``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any, Self, TypeVar, cast

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastmlp.core import AtomicUpdate
from fastmlp.estimators._sklearn import BaseEstimator
from fastmlp.estimators.parameters import Parameters, whole_sizes
from fastmlp.network.growing import grow_network, grow_sequence
from fastmlp.network.network import Network

Method = TypeVar("Method", bound=Callable[..., Any])


def atomic(method: Method) -> Method:
    """Decorator of a method that is one ``AtomicUpdate`` of its object, from its first line to its last.

    Outermost on what fits: a second fit must be refused before scikit-learn's callbacks hear of it, as they would take it for
    the one that is running; and they are torn down before attributes are put back.
    """

    @functools.wraps(method)
    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        with AtomicUpdate(self):
            return method(self, *args, **kwargs)

    return cast(Method, changed)


class Exclusive(BaseEstimator):
    """An estimator, or an ensemble, that is changed by one caller at a time."""

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator, all of them or, on an error, none.

        Parameters
        ----------
        **params : dict
            By name.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For a name that is no parameter's.
        RuntimeError
            While a fit is running, which would go by a mixture of them.
        """
        with AtomicUpdate(self):
            super().set_params(**params)
        return self


class Adaptable(Exclusive, Parameters):
    """An estimator whose fitted network can be changed."""

    network_: Network
    n_layers_: int
    layer_rates_: tuple[float, ...]

    def grow(self, hidden_layer_sizes: int | Sequence[int], random_state: Any = None) -> Self:
        """Widen or deepen the fitted network; its predictions stay what they are, to rounding.

        Go on with ``partial_fit``, or ``fit`` with ``warm_start=True``. Optimizer state begins anew.

        Parameters
        ----------
        hidden_layer_sizes : int or sequence of int
            All hidden layers as they shall be. Layers keep their order, none becomes narrower, and new ones may stand
            between them or behind. ``hidden_layer_sizes``, and lists given for ``activation`` and ``dropout``, follow.
        random_state : None, int or RandomState, default=None
            Chooses which units are doubled, and how their outgoing weights are shared.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the function could not be kept: ``fastmlp.network.growing`` says when it can.

        References
        ----------
        Chen, Goodfellow, Shlens. Net2Net: accelerating learning via knowledge transfer. ICLR 2016. Here a doubled unit's
        outgoing weight is split into unequal parts, so that the two learn different things without noise.
        """
        check_is_fitted(self)
        with AtomicUpdate(self):
            self._grow(whole_sizes(hidden_layer_sizes), random_state)
        return self

    def _grow(self, sizes: tuple[int, ...], random_state: Any) -> None:
        self.network_.adopt()
        network, origin = grow_network(self.network_, sizes, check_random_state(random_state))
        if not isinstance(self.activation, str):
            self.activation = list(network.activations)
        if np.ndim(self.dropout):
            self.dropout = (self.dropout[0], *grow_sequence(tuple(self.dropout)[1:], origin))
        self.layer_rates_ = (*grow_sequence(self.layer_rates_[:-1], origin, new=1.0), self.layer_rates_[-1])
        self.hidden_layer_sizes = sizes
        self.network_ = network
        self.n_layers_ = len(network.layer_sizes)
        self.__dict__.pop("_optimizer_state", None)

    def freeze(self, layers: int | Sequence[int] | None = None) -> Self:
        """Let layers stay as they are in further training: not a bit of theirs changes, and they cost no update.

        Parameters
        ----------
        layers : int or sequence of int, default=None
            By index, the first hidden layer being 0; None: all but the output layer. ``layer_rates_`` shows the state,
            which a ``fit`` that begins anew resets.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        return self._set_layer_rates(range(self.n_layers_ - 2) if layers is None else layers, 0.0)

    def unfreeze(self, layers: int | Sequence[int] | None = None) -> Self:
        """Let layers learn at the full rate.

        Where some of them did not learn at all, optimizer state begins anew: theirs is empty, and adam, say, would take
        it for an average over all updates so far, and make its steps several times too large.

        Parameters
        ----------
        layers : int or sequence of int, default=None
            By index, as in ``freeze``; None: all.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        return self._set_layer_rates(range(self.n_layers_ - 1) if layers is None else layers, 1.0)

    def _set_layer_rates(self, layers: int | Sequence[int], rate: float) -> Self:
        rates = list(self.layer_rates_)
        for layer in layers if isinstance(layers, Iterable) else [layers]:
            if isinstance(layer, bool) or not isinstance(layer, Integral) or not -len(rates) <= int(layer) < len(rates):
                raise ValueError(f"layers must be indices of the {len(rates)} layers, from 0, got {layer!r}.")
            rates[int(layer)] = rate
        with AtomicUpdate(self):
            if any(new > 0 and old == 0 for new, old in zip(rates, self.layer_rates_, strict=True)):
                self.__dict__.pop("_optimizer_state", None)
            self.layer_rates_ = tuple(rates)
        return self


def take_body(network: Network, body: Network) -> None:
    """Copy the hidden layers of ``body`` into ``network``, which must have the same ones."""
    body.adopt()
    for name in ("layer_sizes", "activations", "batch_norm", "residual"):
        ours, theirs = getattr(network, name), getattr(body, name)
        if name == "layer_sizes":
            ours, theirs = ours[:-1], theirs[:-1]
        if ours != theirs:
            raise ValueError(
                f"pretrained must have the same hidden layers: its {name} are {theirs}, here they are {ours}."
            )
    for name in ("coefs", "intercepts"):
        for to, values in zip(getattr(network, name)[:-1], getattr(body, name)[:-1], strict=True):
            to[...] = values
    for to, values in zip(network.scales, body.scales, strict=True):
        to[...] = values
    network.statistics[...] = body.statistics
