"""Hidden representations: what a hidden layer makes of rows, as a transformer's output, with names for its columns.

It refuses to train and to check rows: both are the estimator's. Imported by ``base`` only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from fastmlp.estimators._sklearn import TransformerMixin
from fastmlp.network.network import Network


def body(network: Network, layer: int) -> Network:
    """A network whose output is that of hidden layer ``layer``, from 0, of ``network``; to the bit, where all is finite.

    A layer that is normalised, or adds its input, has to stay a hidden one: behind it stands a layer that hands on
    what it gets, an identity matrix. Any other becomes the output layer.
    """
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


class _Hidden(ABC):
    """``transform``, in a class of its own: what scikit-learn wraps in DataFrames must not come before TransformerMixin."""

    network_: Network

    @abstractmethod
    def _run(self, network: Network, X: Any) -> np.ndarray:
        """The output of ``network``, which takes what the fitted one takes, for rows as the user brings them."""

    @abstractmethod
    def get_feature_names_out(self, input_features: ArrayLike | None = None, layer: int = -1) -> np.ndarray:
        """Names of the columns of ``transform``."""

    def transform(self, X: Any, layer: int = -1) -> Any:
        """What a hidden layer makes of each row: its output, activation and all, as in prediction (no dropout).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        layer : int, default=-1
            Which hidden layer, the first being 0; -1 is the last.

        Returns
        -------
        ndarray of shape (n_samples, units of the layer), or what ``set_output`` asks for
            Of the network's element type.

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        check_is_fitted(self)
        output = self._run(body(self.network_, hidden_layer(self.network_, layer)), X)
        # scikit-learn would do this itself, but with the names of one layer for all.
        container = _get_output_config("transform", self)["dense"]
        if container == "default":
            return output
        names = self.get_feature_names_out(layer=layer)
        return ADAPTERS_MANAGER.adapters[container].create_container(output, X, columns=names)


class Representation(_Hidden, TransformerMixin):
    """An estimator whose hidden layers are a transformer's output."""

    # An argument of transform that is not data, and so not for scikit-learn to route.
    __metadata_request__transform = {"layer": UNUSED}

    dtype: str

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"] if self.dtype == "auto" else [self.dtype]
        return tags

    def get_feature_names_out(self, input_features: ArrayLike | None = None, layer: int = -1) -> np.ndarray:
        """Names of the columns of ``transform``: the class's name in small letters and the unit's number.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Only checked against the names seen in ``fit``.
        layer : int, default=-1
            As in ``transform``.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        width = self.network_.layer_sizes[hidden_layer(self.network_, layer) + 1]
        return np.asarray([f"{type(self).__name__.lower()}{unit}" for unit in range(width)], dtype=object)


def hidden_layer(network: Network, layer: int) -> int:
    """The index of a hidden layer from 0, negative numbers counting from the last one."""
    n_hidden = len(network.activations)
    if isinstance(layer, bool) or not isinstance(layer, Integral) or not -n_hidden <= int(layer) < n_hidden:
        raise ValueError(f"layer must be the index of one of the {n_hidden} hidden layers, from 0, got {layer!r}.")
    return int(layer) % n_hidden
