"""Tensors by name, PyTorch's state_dict: as a dict, or as a safetensors file, read and written without PyTorch."""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import fastmlp.core as core
from fastmlp.interop.errors import ConversionError
from fastmlp.interop.layers import (
    Activation,
    Affine,
    Chain,
    Converted,
    Layer,
    Noise,
    Norm,
    Residual,
    added,
    assemble,
    named,
    output_name,
    refuse,
)
from fastmlp.interop.models import exported
from fastmlp.network.names import hint
from fastmlp.network.persistence import ELEMENT_TYPES, replacing

# The key of a file's metadata that holds the order of layers and activations, a JSON list.
_LAYERS_KEY = "layers"
_NORM_SUFFIXES = {"running_mean", "running_var", "num_batches_tracked", "weight", "bias"}
_WEIGHT_SUFFIXES = {
    "weight",
    "bias",
    "weight_g",
    "weight_v",
    "parametrizations.weight.original0",
    "parametrizations.weight.original1",
}
_SUFFIX = re.compile(r"(?:^|\.)(parametrizations\.weight\.original[01]|[^.]+)$")


def from_state_dict(
    source: Mapping[str, Any] | str | os.PathLike[str],
    activation: str | Sequence[str] | None = None,
    output: str | None = None,
    *,
    layers: Sequence[str] | None = None,
    epsilon: float = core.NORM_EPSILON,
    residual: bool = False,
    batch_norm: str = "keep",
    dtype: Any = None,
) -> Converted:
    """The network of tensors by name, which tell its weights, and of its activations, which they do not tell.

    Parameters
    ----------
    source : dict of arrays or tensors, or path of a safetensors file
        Weights of linear layers as PyTorch names and shapes them: ``0.weight`` (fan_out, fan_in), ``0.bias``;
        ``weight_g`` and ``weight_v`` of weight_norm; ``weight``, ``bias``, ``running_mean`` and ``running_var`` of
        batch normalisation. float16, bfloat16, float32 or float64. A file is read without PyTorch. The names do not
        tell a parametrization that follows weight_norm on the same weight; :func:`from_torch` computes both.
    activation : str or sequence of str, default=None
        Of each hidden layer, where the layers' order is plain: that of the numbers in their names or, in a dict, of its
        items. Batch normalisation must follow the linear layer directly, by its number.
    output : str, default=None
        Activation of the output; None: none.
    layers : sequence of str, default=None
        The order of computation, instead of ``activation``: names of layers, as before ``.weight``, and of activations,
        for example ``["fc1", "bn1", "relu", "fc2"]``. '+' adds the value that came before the last linear layer: a
        residual layer. None: as the file says, if ``to_state_dict`` wrote it.
    epsilon : float, default=1e-5
        Of batch normalisation.
    residual : bool, default=False
        With ``activation``: hidden layers as wide as their input add it.
    batch_norm : {'keep', 'fold'}, default='keep'
        As in :func:`from_torch`.
    dtype : {'float32', 'float64'}, default=None
        None: that of the tensors, float32 for float16 and bfloat16.

    Returns
    -------
    Converted

    Raises
    ------
    ConversionError
        If the order is not plain, or the network cannot be converted exactly.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp.interop import from_state_dict
    >>> state = {"0.weight": np.ones((8, 4)), "0.bias": np.zeros(8), "2.weight": np.ones((3, 8)), "2.bias": np.zeros(3)}
    >>> from_state_dict(state, "relu", "softmax").network
    Network((4, 8, 3), activation='relu', out_activation='softmax', dtype='float64')
    """
    written: list[str] | None = None
    if isinstance(source, Mapping):
        tensors, narrow = _from_mapping(source)
        in_order = True
    else:
        tensors, narrow, written = _from_file(source)
        in_order = False
    groups = _grouped(tensors)
    notes = [f"Weights of {', '.join(narrow)} are float32 here, and so is the arithmetic."] if narrow else []
    if activation is not None and layers is not None:
        raise ValueError("Pass activation or layers, not both.")
    if layers is None and activation is None:
        layers = written
    if layers is None and activation is None and len(groups) > 1:
        raise ConversionError(
            "Tensors do not tell the activations. Pass activation='relu', for example, or layers, the order of "
            f"computation: {_example(groups)}."
        )
    if layers is None:
        chain = _ordered(groups, [] if activation is None else activation, residual, epsilon, in_order)
    else:
        chain = _listed(groups, layers, epsilon)
    return assemble(chain, output=output, batch_norm=batch_norm, dtype=dtype, notes=notes)


# --- tensors -------------------------------------------------------------------------------------------------------


def _from_mapping(source: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of a dict, and the names of types that became float32."""
    arrays, narrow = {}, set()
    for name, value in source.items():
        if not isinstance(name, str):
            raise TypeError(f"Names of tensors must be strings, got {name!r}.")
        if hasattr(value, "detach"):  # of PyTorch
            value = value.detach().cpu()
            if value.is_floating_point() and value.dtype.itemsize < 4:
                narrow.add(str(value.dtype).removeprefix("torch."))
                value = value.float()
            value = value.numpy()
        array = np.asarray(value)
        if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
            raise refuse(name, f"an array of {array.dtype}; weights must be real numbers.")
        if array.dtype == np.float16:
            narrow.add("float16")
            array = array.astype(np.float32)
        arrays[name] = array
    return arrays, sorted(narrow)


def _from_file(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], list[str], list[str] | None]:
    """The arrays of a safetensors file, the types that became float32, and the order that ``to_state_dict`` wrote."""
    import safetensors
    from safetensors import SafetensorError, safe_open

    deserialize: Any = safetensors.deserialize
    name = os.fsdecode(path)
    with open(name, "rb") as file:
        content = file.read()
    try:
        parts = deserialize(content)
        with safe_open(name, framework="numpy") as opened:
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise ConversionError(f"{name} is not a safetensors file: {error}") from error
    arrays, narrow = {}, set()
    for key, part in parts:
        kind, data = part["dtype"], part["data"]
        if kind == "BF16":
            array = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
            narrow.add("bfloat16")
        elif kind in ELEMENT_TYPES and kind != "BOOL":
            array = np.frombuffer(data, np.dtype(ELEMENT_TYPES[kind]).newbyteorder("<"))
            if kind == "F16":
                narrow.add("float16")
                array = array.astype(np.float32)
        else:
            raise refuse(key, f"a tensor of {kind}; weights are float64, float32, float16 or bfloat16.")
        arrays[key] = array.reshape(part["shape"])
    return arrays, sorted(narrow), _written_order(metadata)


def _written_order(metadata: Mapping[str, str]) -> list[str] | None:
    try:
        order = json.loads(metadata.get(_LAYERS_KEY, "null"))
    except (ValueError, RecursionError):
        return None
    return order if isinstance(order, list) and all(isinstance(part, str) for part in order) else None


def _grouped(tensors: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The tensors of each layer, by the end of their names."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in tensors.items():
        match = _SUFFIX.search(name)
        assert match is not None or name == ""
        suffix = match.group(1) if match else ""
        groups.setdefault(name[: match.start()] if match else "", {})[suffix] = array
    if not groups:
        raise ConversionError("There are no tensors.")
    for name, own in groups.items():
        allowed = _NORM_SUFFIXES if "running_mean" in own or "running_var" in own else _WEIGHT_SUFFIXES
        if unknown := set(own) - allowed:
            raise refuse(
                name or "the tensors", f"{sorted(unknown)}; fastmlp has linear layers and batch normalisation."
            )
        if any(array.dtype.kind != "f" for suffix, array in own.items() if suffix != "num_batches_tracked"):
            raise refuse(name, "integers; quantized weights are not supported. Take the network before quantization.")
    return groups


def _is_norm(own: dict[str, np.ndarray]) -> bool:
    return "running_mean" in own


def _layer(name: str, own: dict[str, np.ndarray], epsilon: float) -> Layer:
    """The layer of a group of tensors."""
    if _is_norm(own):
        mean = own["running_mean"]
        if "running_var" not in own:
            raise refuse(name, "it has no running_var.")
        variance, scale, shift = (
            own["running_var"],
            own.get("weight", np.ones_like(mean)),
            own.get("bias", np.zeros_like(mean)),
        )
        arrays = [mean, variance, scale, shift]
        if mean.ndim != 1 or any(array.shape != mean.shape for array in arrays):
            raise refuse(name, f"tensors of shapes {[array.shape for array in arrays]}.")
        return Norm(name, mean, variance, scale, shift, epsilon)
    weight = own.get("weight")
    if weight is None:
        magnitude = own.get("weight_g", own.get("parametrizations.weight.original0"))
        direction = own.get("weight_v", own.get("parametrizations.weight.original1"))
        if magnitude is None or direction is None:
            raise refuse(name, f"it has {sorted(own)} and no weight.")
        if direction.ndim != 2 or magnitude.shape not in ((len(direction), 1), (1, direction.shape[1])):
            raise refuse(name, f"weight_norm of shapes {magnitude.shape} and {direction.shape}.")
        axis = 1 if magnitude.shape == (len(direction), 1) else 0
        norm = np.sqrt((direction.astype(np.float64) ** 2).sum(axis=axis, keepdims=True))
        weight = (magnitude * direction / norm).astype(direction.dtype)
    if weight.ndim != 2:
        what = (
            "weights of a layer or instance norm, of PReLU or of a scale"
            if weight.ndim == 1
            else f"weights of shape {weight.shape}"
        )
        raise refuse(
            name,
            f"{what}; fastmlp has linear layers (fan_out, fan_in), and batch normalisation with its running averages.",
        )
    bias = own.get("bias")
    if bias is not None and bias.shape != (len(weight),):
        raise refuse(name, f"a bias of shape {bias.shape} for {len(weight)} units.")
    return Affine(name, weight.T, bias)


# --- the order of layers ---------------------------------------------------------------------------------------------


def _example(groups: Iterable[str]) -> str:
    return f"of {reprlib.repr(list(groups))} and names of activations"


def _number(name: str) -> tuple[str, int] | None:
    """What stands before and the number at the end of a layer's name."""
    match = re.fullmatch(r"(.*?)(\d+)", name)
    return (match.group(1), int(match.group(2))) if match else None


def _ordered(
    groups: dict[str, dict[str, np.ndarray]],
    activation: str | Sequence[str],
    residual: bool,
    epsilon: float,
    in_order: bool,
) -> Chain:
    """The chain of layers in the order of their numbers, or of the dict."""
    numbers = {name: _number(name) for name in groups}
    plain = (
        len({number[0] if number else None for number in numbers.values()} - {None}) == 1
        and None not in numbers.values()
    )
    names = list(groups)
    has_norm = any(map(_is_norm, groups.values()))
    if plain:
        names = sorted(names, key=lambda name: numbers[name][1])  # type: ignore[index]
    elif (not in_order or has_norm) and len(groups) > 1:
        why = "where batch normalisation stands" if has_norm else "the order of layers"
        raise ConversionError(
            f"The names {reprlib.repr(names)} do not tell {why}. Pass layers, {_example(groups)}, in the order of "
            f"computation."
        )
    linear = [name for name in names if not _is_norm(groups[name])]
    functions = [activation] * (len(linear) - 1) if isinstance(activation, str) else list(activation)
    if len(functions) != len(linear) - 1:
        raise ValueError(
            f"activation must name one activation for each of {len(linear) - 1} hidden layers, got {functions}."
        )
    chain: Chain = ()
    last, start = "", chain
    pending = iter(functions)
    for name in names:
        layer = _layer(name, groups[name], epsilon)
        if isinstance(layer, Norm):
            if not last or numbers[name][1] != numbers[last][1] + 1:  # type: ignore[index]
                raise refuse(
                    name,
                    f"batch normalisation that does not follow a linear layer directly. Pass layers, "
                    f"{_example(groups)}.",
                )
        else:
            if last:
                chain = _hidden(chain, start, next(pending), residual)
            start = chain
        chain = (*chain, layer)
        last = name
    return chain


def _hidden(chain: Chain, start: Chain, activation: str, residual: bool) -> Chain:
    """The chain with a hidden layer's activation, and its input if it adds it."""
    chain = (*chain, *named(f"activation {activation}", _activation(activation)))
    first = chain[len(start)]
    square = isinstance(first, Affine) and first.weight.shape[0] == first.weight.shape[1]
    return added(f"the sum behind {first.where}", start, chain) if residual and square else chain


def _activation(name: str) -> str:
    ours = (
        output_name(name)
        if name in core.ACTIVATIONS + core.OUTPUTS
        else {"sigmoid": "logistic", "linear": "identity"}.get(name)
    )
    if ours is None:
        raise ValueError(
            f"activation must be one of {list(core.ACTIVATIONS)}, got {name!r}.{hint(name, list(core.ACTIVATIONS))}"
        )
    return ours


def _listed(groups: dict[str, dict[str, np.ndarray]], layers: Sequence[str], epsilon: float) -> Chain:
    """The chain of layers in the order of a list."""
    chain: Chain = ()
    start: Chain | None = None
    used = set()
    for part in layers:
        if part in groups:
            layer = _layer(part, groups[part], epsilon)
            start = chain if isinstance(layer, Affine) else start
            chain = (*chain, layer)
            used.add(part)
        elif part == "+":
            if start is None:
                raise ValueError("layers: '+' needs a linear layer before it.")
            chain, start = added(f"the sum at place {layers.index(part)}", start, chain), None
        elif part in core.ACTIVATIONS + core.OUTPUTS or part in ("sigmoid", "linear"):
            chain = (*chain, *named(part, _activation(part)))
        else:
            raise ValueError(
                f"layers: {part!r} is neither a layer, {reprlib.repr(list(groups))}, nor an "
                f"activation.{hint(part, [*groups, *core.ACTIVATIONS])}"
            )
    if unused := set(groups) - used:
        raise ConversionError(
            f"layers lacks {reprlib.repr(sorted(unused))}, which have tensors. Leave them out of the dict if they take "
            f"no part."
        )
    return chain


# --- to tensors -------------------------------------------------------------------------------------------------------


def to_state_dict(model: Any, path: str | os.PathLike[str] | None = None, *, prefix: str = "") -> dict[str, np.ndarray]:
    """Tensors by name, as the ``state_dict()`` of :func:`to_torch` has them, without PyTorch.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
        Fitted.
    path : str or path-like, default=None
        Write them to this safetensors file too, with the order of layers and activations in its metadata.
    prefix : str, default=''
        The beginning of all names, 'net.' for example.

    Returns
    -------
    dict of ndarray
        ``0.weight`` of shape (fan_out, fan_in), ``0.bias``, ``1.running_mean`` ...; the numbers count activations too.

    Raises
    ------
    ConversionError
        For an ensemble and for estimators of tables: more than one network.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from fastmlp import Network
    >>> from fastmlp.interop import to_state_dict
    >>> list(to_state_dict(Network((4, 8, 3), random_state=0)))
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    described = exported(model)
    if len(described.networks) != 1:
        raise ConversionError(
            f"{described.name} has {len(described.networks)} networks; a state_dict holds one. Take estimators_[i]."
        )
    tensors: dict[str, np.ndarray] = {}
    order: list[str] = []

    def write(chain: Chain, number: int) -> int:
        for layer in chain:
            name = f"{prefix}{number}"
            if isinstance(layer, Residual):
                number = write(layer.body, number)
                order.append("+")
                continue
            if isinstance(layer, Noise) or (isinstance(layer, Activation) and layer.name == "identity"):
                continue
            if isinstance(layer, Affine):
                tensors[f"{name}.weight"] = np.ascontiguousarray(layer.weight.T)
                if layer.bias is not None:
                    tensors[f"{name}.bias"] = layer.bias.copy()
                order.append(name)
            elif isinstance(layer, Norm):
                arrays = {
                    "weight": layer.scale,
                    "bias": layer.shift,
                    "running_mean": layer.mean,
                    "running_var": layer.variance,
                }
                tensors.update({f"{name}.{suffix}": array.copy() for suffix, array in arrays.items()})
                tensors[f"{name}.num_batches_tracked"] = np.array(0, dtype=np.int64)
                order.append(name)
            elif isinstance(layer, Activation):
                order.append(layer.name)
            number += 0 if isinstance(layer, Activation) and layer.name == "exp" else 1
        return number

    write(described.chains()[0], 0)
    if path is not None:
        from safetensors.numpy import save_file

        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt", _LAYERS_KEY: json.dumps(order)})
    return tensors
