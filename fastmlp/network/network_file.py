"""How a Network is written to a file and read back: its description, and an array per layer. docs/saving.md has the format.

It refuses to import scikit-learn, and to know files (``container``) and estimators (``saving``). Imported by ``network``, whose
methods ``save`` and ``load`` are here, and by ``saving``.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any, Self

import numpy as np

import fastmlp.core as core
from fastmlp.core.memory import aligned_empty
from fastmlp.network import container
from fastmlp.network.container import Fields, FileFormatError, Tensors

# Lists of arrays: one array per layer, and one per hidden layer.
_EACH, _HIDDEN = ("coefs", "intercepts"), ("scales", "means", "variances")


def describe_network(network: Any, prefix: str = "") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Description and arrays of a network; ``prefix`` begins the arrays' names."""
    network.adopt()
    description = {
        "layer_sizes": list(network.layer_sizes),
        "activations": list(network.activations),
        "out_activation": network.out_activation,
        "dtype": network.dtype.name,
        "batch_norm": network.batch_norm,
        "residual": network.residual,
    }
    arrays = {
        f"{prefix}{name}.{layer}": array
        for name in (*_EACH, *_HIDDEN)
        for layer, array in enumerate(getattr(network, name))
    }
    return description, arrays


def network_state(fields: Fields, tensors: Tensors, prefix: str = "") -> dict[str, Any]:
    """What ``Network.__setstate__`` takes, from a description and its arrays.

    All types and shapes are checked before there is memory for the first of them.
    """
    sizes = fields.counts("layer_sizes", fewest=2, least=1)
    activations = fields.items("activations")
    if len(activations) != len(sizes) - 2 or not all(
        isinstance(name, str) and name in core.ACTIVATIONS for name in activations
    ):
        raise FileFormatError(
            f"activations must be names of {list(core.ACTIVATIONS)}, one for each of {len(sizes) - 2} hidden layers"
        )
    out_activation = fields.name("out_activation", dict.fromkeys(core.OUTPUTS + core.ACTIVATIONS))
    dtype = fields.name("dtype", ("float32", "float64"))
    batch_norm, residual = fields.flag("batch_norm"), fields.flag("residual")
    fields.end()

    shapes: dict[str, tuple[int, ...]] = {f"coefs.{layer}": shape for layer, shape in enumerate(pairwise(sizes))}
    shapes |= {f"intercepts.{layer}": (size,) for layer, size in enumerate(sizes[1:])}
    hidden = list(enumerate(sizes[1:-1])) if batch_norm else []
    shapes |= {f"scales.{layer}": (size,) for layer, size in hidden}
    n_parameters = len(shapes)
    shapes |= {f"{name}.{layer}": (size,) for name in ("means", "variances") for layer, size in hidden}
    for name, shape in shapes.items():
        tensors.require(prefix + name, (dtype,), shape)
    parts = list(shapes.items())
    statistics = _joined(parts[n_parameters:], tensors, dtype, prefix)
    if (np.split(statistics, 2)[1] < 0).any():
        raise FileFormatError(f"tensors {prefix}variances must hold no negative numbers")
    return {
        "layer_sizes": sizes,
        "activations": tuple(activations),
        "out_activation": out_activation,
        "dtype": dtype,
        "batch_norm": batch_norm,
        "residual": residual,
        "parameters": _joined(parts[:n_parameters], tensors, dtype, prefix),
        "statistics": statistics,
    }


def _joined(parts: list[tuple[str, tuple[int, ...]]], tensors: Tensors, dtype: str, prefix: str) -> np.ndarray:
    """The arrays, one after another, in one array: layer by layer, so that there are never two of the whole."""
    flat = aligned_empty(sum(int(np.prod(shape, dtype=object)) for _, shape in parts), dtype)
    start = 0
    for name, _ in parts:
        array = tensors.read(prefix + name).ravel()
        flat[start : start + array.size] = array
        start += array.size
        del array  # before the next one is read
    return flat


class NetworkFile:
    """The methods of a Network that have to do with files."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced as a whole: whoever reads it, and whatever happens meanwhile, finds the old one or
            the new one.

        Raises
        ------
        ImportError
            Without the package safetensors.
        FileFormatError
            If parameters or statistics are not finite. The file is then as it was, as after an OSError.
        """
        description, arrays = describe_network(self)
        container.write(path, {"class": "Network", "network": description}, arrays, self._from_fields)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a network that ``save`` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        Network

        Raises
        ------
        FileFormatError
            For a file that is not one of a Network; :func:`fastmlp.load` reads those of estimators.
        """
        return container.read(path, cls._from_fields)

    @classmethod
    def _from_fields(cls, fields: Fields, tensors: Tensors, made_by: str) -> Self:
        fields.name("class", ("Network",))
        return cls._from_state(network_state(fields.inner("network"), tensors))

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> Self:
        network = cls.__new__(cls)
        network.__setstate__(state)
        return network

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise NotImplementedError
