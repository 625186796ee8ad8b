"""What the exports need to know of a model: its networks, what their outputs mean, the training's dropout and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmlp.interop.errors import ConversionError
from fastmlp.interop.layers import Activation, Chain, Dropout, Layer, Noise, layers_of
from fastmlp.network.network import Network


@dataclass
class Exported:
    """A model, as its exports see it.

    Attributes
    ----------
    name : str
        Class of the model.
    networks : list of Network
        Their outputs are averaged.
    kind : {'network', 'regressor', 'binary', 'multiclass', 'multilabel', 'one class'}
    classes : ndarray or None
    dropout : tuple of float
        Rates of the input and of each hidden layer.
    input_noise : float
    """

    name: str
    networks: list[Network]
    kind: str
    classes: np.ndarray | None = None
    dropout: tuple[float, ...] = ()
    input_noise: float = 0.0

    def chains(self, logits: bool = False) -> list[Chain]:
        """The chain of each network, with dropout and noise; ``logits`` leaves out the output activation."""
        if logits and len(self.networks) > 1:
            raise ConversionError(
                f"{self.name}: a mean of several networks' outputs has no logits. Leave logits=True out."
            )
        return [self.chain_of(network, logits) for network in self.networks]

    def chain_of(self, network: Network, logits: bool = False) -> Chain:
        """One network's chain."""
        layers: list[Layer] = [Noise("input", self.input_noise)] if self.input_noise else []
        rates: Sequence[float] = self.dropout or (0.0,) * (len(network.activations) + 1)
        layers += [Dropout("input", rates[0])] if rates[0] else []
        hidden = 0
        for layer in layers_of(network):
            output = layer.where == f"activation {len(network.activations)}"
            if not (isinstance(layer, Activation) and (layer.name == "identity" or (output and logits))):
                layers.append(layer)
            if layer.where in (f"activation {hidden}", f"residual {hidden}") and not output:
                hidden += 1
                layers += [Dropout(f"dropout {hidden}", rates[hidden])] if rates[hidden] else []
        return tuple(layers)


def exported(model: Any) -> Exported:
    """The description of a Network, a fitted estimator or an ensemble.

    Raises
    ------
    TypeError
        For another object.
    NotFittedError
        For an estimator that is not fitted.
    ConversionError
        For an estimator of tables, whose networks take coded columns.
    """
    name = type(model).__name__
    if isinstance(model, Network):
        return Exported(name, [model], "network")
    if hasattr(model, "columns_"):
        raise ConversionError(
            f"{name}: its networks take coded columns, which only fastmlp makes. save(), pickle and RowPredictor keep "
            f"the whole model."
        )
    if not hasattr(model, "_networks"):
        raise TypeError(
            f"The model must be a Network or an estimator of fastmlp, got {type(model).__qualname__}. Of a pipeline, "
            f"take its last step."
        )
    networks = model._networks()
    kind, classes = "regressor", None
    if hasattr(model, "classes_"):
        classes = model.classes_
        kind = "multilabel" if model._target_type.startswith("multilabel") else model._target_type
        kind = "one class" if len(classes) == 1 and kind != "multilabel" else kind
    if hasattr(model, "estimators_"):
        return Exported(name, networks, kind, classes)
    rates = tuple(float(rate) for rate in model._dropout_rates(len(networks[0].activations) + 1))
    return Exported(name, networks, kind, classes, rates, float(model.input_noise))
