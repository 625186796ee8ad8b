"""Keras: networks from .keras files, which h5py alone reads, and from models; models from networks."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import os
import re
import reprlib
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastmlp.interop.errors import ConversionError
from fastmlp.interop.layers import (
    Activation,
    Affine,
    Chain,
    Converted,
    Dropout,
    Layer,
    Noise,
    Norm,
    Remark,
    Residual,
    added,
    assemble,
    celu,
    check_outputs,
    clipped,
    elu,
    hard_sigmoid,
    leaky_relu,
    missing,
    multiplied,
    named,
    refuse,
    scaled,
    unknown,
)
from fastmlp.interop.models import exported

# A file's description may be this long; Keras's own are some kilobytes.
_LONGEST = 2**26
# keras.config.epsilon(), below which Normalization divides by it.
_EPSILON = 1e-7
_LOGITS = {
    "CategoricalCrossentropy": "softmax", "SparseCategoricalCrossentropy": "softmax",
    "CategoricalFocalCrossentropy": "softmax",
    "BinaryCrossentropy": "logistic", "BinaryFocalCrossentropy": "logistic",
}  # fmt: skip
_BROKEN = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError, zipfile.BadZipFile,
    zlib.error, RecursionError, EOFError, NotImplementedError)  # fmt: skip


# --- from Keras -----------------------------------------------------------------------------------------------------


def from_keras(
    model: Any,
    output: str | None = None,
    *,
    batch_norm: str = "keep",
    rewrite: bool = False,
    dtype: Any = None,
) -> Converted:
    """The network that a Keras model computes in prediction.

    Parameters
    ----------
    model : path of a .keras file, or keras.Model
        Sequential or functional, nested or not: Dense, BatchNormalization, activations, Dropout, GaussianNoise,
        Rescaling, Normalization, Flatten, Reshape, Add. A file needs h5py, and neither Keras nor TensorFlow. Input of
        several dimensions is flattened in C order. A model runs on a few rows, and its outputs must be those of the
        network; not in mixed precision.
    output : str, default=None
        What stands behind logits: 'softmax', 'logistic'. None: what the loss says that the model was compiled with
        (``from_logits=True``), else nothing.
    batch_norm : {'keep', 'fold'}, default='keep'
        As in :func:`from_torch`.
    rewrite : bool, default=False
        Allow more units or layers for functions that fastmlp lacks: LeakyReLU's default slope of 0.3, PReLU, relu6,
        hard_sigmoid.
    dtype : {'float32', 'float64'}, default=None
        None: that of the weights, float32 for float16 and bfloat16.

    Returns
    -------
    Converted

    Raises
    ------
    ConversionError
        A ValueError: where the model cannot be converted exactly, or the file cannot be read.
    ImportError
        Without h5py.
    OSError
        If the file cannot be opened.

    Examples
    --------
    >>> import keras
    >>> from fastmlp.interop import from_keras
    >>> hidden = keras.layers.Dense(8, activation="relu")
    >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(3, activation="softmax")])
    >>> from_keras(model).network
    Network((4, 8, 3), activation='relu', out_activation='softmax', dtype='float32')
    """
    if isinstance(model, (str, os.PathLike)):
        return _from_file(os.fsdecode(model), output, batch_norm, rewrite, dtype)
    if not (hasattr(model, "get_config") and hasattr(model, "layers") and hasattr(model, "save")):
        raise TypeError(f"from_keras takes a keras.Model or the path of a .keras file, got {type(model).__qualname__}.")
    if not hasattr(model, "inputs") or not model.inputs:
        raise refuse(
            type(model).__name__,
            "a model without inputs, or with a call of its own. Make a Sequential or functional model of its layers.",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        return _from_file(path, output, batch_norm, rewrite, dtype, model)


def _check_run(model: Any, chain: Chain, rewrite: bool) -> None:
    """Compare the network with the model's own outputs, which show what its description does not tell."""
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape or any(layer.compute_dtype not in ("float32", "float64") for layer in _all_layers(model)):
        return  # outputs of mixed precision differ by more than float32's rounding
    to_numpy = importlib.import_module("keras").ops.convert_to_numpy

    def outputs(values: np.ndarray) -> list[np.ndarray]:
        source = values.reshape(len(values), *shape).astype(model.inputs[0].dtype)
        try:
            results = [model(source, training=False) for _ in range(2)]
        except Exception as error:  # of three frameworks
            raise refuse(type(model).__name__, f"it fails on rows of {values.shape[1]} numbers ({error}).") from error
        return [np.asarray(to_numpy(result), np.float64).reshape(len(values), -1) for result in results]

    check_outputs(type(model).__name__, chain, outputs, rewrite)


def _all_layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        yield from _all_layers(layer) if hasattr(layer, "layers") else ()


def _from_file(
    path: str, output: str | None, batch_norm: str, rewrite: bool, dtype: Any, model: Any = None
) -> Converted:
    try:
        import h5py
    except ImportError as error:
        raise missing("h5py", "keras", "Reading a .keras file") from error
    with open(path, "rb") as file, _explained(path):
        archive = zipfile.ZipFile(file)
        info = archive.getinfo("config.json")
        if info.file_size > _LONGEST:
            raise ConversionError(f"{path}: its description has {info.file_size} bytes.")
        config = json.loads(archive.read(info))
        weights = archive.getinfo("model.weights.h5")
        if weights.compress_type != zipfile.ZIP_STORED and weights.file_size > 1100 * max(weights.compress_size, 1):
            raise ConversionError(f"{path}: its weights are packed more than deflate can.")
        with h5py.File(io.BytesIO(archive.read(weights)), "r") as store:
            reader = _Reader()
            chain = reader.read(config, store)
    if output is None and not (chain and isinstance(chain[-1], Activation)):
        output = _logits_of(config)
        if output is not None:
            reader.notes.append(f"The loss has from_logits=True: the output is {output} here, and logits there.")
    notes = reader.notes
    converted = assemble(chain, output=output, batch_norm=batch_norm, rewrite=rewrite, dtype=dtype, notes=notes)
    if model is not None:
        _check_run(model, chain, rewrite)
    return converted


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Errors of a file that is no .keras file, as a ConversionError."""
    try:
        yield
    except ConversionError:
        raise
    except _BROKEN as error:
        way = " Keras reads and writes it: model.save('model.keras')." if path.endswith((".h5", ".hdf5")) else ""
        raise ConversionError(
            f"{path} cannot be read as a .keras file of Keras 3: {type(error).__name__}: {error}.{way}"
        ) from error


def _logits_of(config: dict[str, Any]) -> str | None:
    """The output activation that the loss contains."""
    loss = (config.get("compile_config") or {}).get("loss")
    if isinstance(loss, list) and len(loss) == 1:
        loss = loss[0]
    if isinstance(loss, dict) and "class_name" not in loss and len(loss) == 1:
        (loss,) = loss.values()
    if (
        not isinstance(loss, dict)
        or not isinstance(loss.get("config"), dict)
        or loss["config"].get("from_logits") is not True
    ):
        return None
    return _LOGITS.get(str(loss.get("class_name")))


class _Value:
    """A tensor of the model: its layers, and its shape without that of rows."""

    def __init__(self, chain: Chain, shape: tuple[int, ...]) -> None:
        self.chain, self.shape = chain, shape

    def then(self, layers: Chain, shape: tuple[int, ...] | None = None) -> _Value:
        return _Value((*self.chain, *layers), self.shape if shape is None else shape)


def _snake(name: str) -> str:
    """A class's name as Keras writes it in files."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


class _Reader:
    """An interpreter of a model's description."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def read(self, config: dict[str, Any], store: Any) -> Chain:
        return self._model(config, store, None).chain

    def _model(self, config: dict[str, Any], group: Any, value: _Value | None) -> _Value:
        """The output of a Sequential or functional model."""
        kind, own = config["class_name"], config["config"]
        if kind not in ("Sequential", "Functional", "Model") or not str(config.get("module", "keras")).startswith(
            "keras"
        ):
            raise refuse(
                str(own.get("name", kind)),
                f"a model of class {kind}. Make a Sequential or functional model of its layers.",
            )
        groups = self._groups(own["layers"], group)
        if kind == "Sequential":
            for layer in own["layers"]:
                value = (
                    self._input(layer, value)
                    if layer["class_name"] == "InputLayer"
                    else self._call(layer, groups, [self._given(value, own)])
                )
            return self._given(value, own)
        return self._functional(own, groups, value)

    @staticmethod
    def _given(value: _Value | None, own: dict[str, Any]) -> _Value:
        if value is None:
            shape = own.get("build_input_shape")
            if not shape:
                raise refuse(str(own.get("name")), "a model that was not built. Give it an Input layer.")
            return _Value((), tuple(int(size) for size in shape[1:]))
        return value

    @staticmethod
    def _input(layer: dict[str, Any], value: _Value | None) -> _Value:
        own = layer["config"]
        if value is not None:
            return value
        shape = own.get("batch_shape") or own.get("batch_input_shape")
        if own.get("sparse") or own.get("ragged") or not shape or any(size is None for size in shape[1:]):
            raise refuse(
                str(own.get("name")),
                f"an input of shape {shape}; a network has dense rows of a fixed number of features.",
            )
        return _Value((), tuple(int(size) for size in shape[1:]))

    @staticmethod
    def _groups(layers: list[dict[str, Any]], group: Any) -> dict[str, Any]:
        """The group of the file that holds each layer's weights: named by classes, and counted."""
        counts: dict[str, int] = {}
        found = {}
        inside: Any = group.get("layers", {})
        for layer in layers:
            name = _snake(layer["class_name"]) if layer["class_name"] not in ("Model",) else "functional"
            number = counts.get(name, 0)
            counts[name] = number + 1
            key = name if number == 0 else f"{name}_{number}"
            if key in inside and not hasattr(inside.get(key, getlink=True), "filename"):
                found[layer["config"]["name"]] = inside[key]
        return found

    def _functional(self, own: dict[str, Any], groups: dict[str, Any], value: _Value | None) -> _Value:
        inputs, outputs = (_histories(own[name]) for name in ("input_layers", "output_layers"))
        if len(inputs) != 1 or len(outputs) != 1:
            raise refuse(
                str(own.get("name")), f"{len(inputs)} inputs and {len(outputs)} outputs; a network has one of each."
            )
        values: dict[tuple[str, int], _Value] = {}
        waiting = [(layer, number) for layer in own["layers"] for number in range(max(len(layer["inbound_nodes"]), 1))]
        while waiting:
            left = []
            for layer, number in waiting:
                name = layer["config"]["name"]
                if layer["class_name"] == "InputLayer":
                    values[name, 0] = self._input(layer, value)
                    continue
                node = layer["inbound_nodes"][number]
                if not isinstance(node, dict):
                    raise refuse(name, "a model that was saved by Keras 2. Load it with Keras 3, and save it again.")
                needed = list(_tensors([node["args"], node["kwargs"]]))
                if any(key not in values for key in needed):
                    left.append((layer, number))
                    continue
                args = _flat(
                    [
                        _resolved(node["args"], values),
                        [_resolved(part, values) for key, part in node["kwargs"].items() if key != "training"],
                    ]
                )
                if node["kwargs"].get("training"):
                    raise refuse(
                        name,
                        "it is called with training=True: its output in prediction is random, or depends on other "
                        "rows.",
                    )
                args = [argument for argument in args if argument is not None]
                values[name, number] = self._call(layer, groups, args)
            if len(left) == len(waiting):
                raise refuse(str(left[0][0]["config"]["name"]), "its input does not come from the model's.")
            waiting = left
        key = outputs[0]
        if key not in values:
            raise refuse(key[0], "an output that no layer makes.")
        return values[key]

    def _call(self, layer: dict[str, Any], groups: dict[str, Any], args: list[Any]) -> _Value:
        """A layer's output."""
        kind, own = layer["class_name"], layer["config"]
        where = f"{own.get('name', kind)} ({kind})"
        if (
            not str(layer.get("module")).startswith("keras")
            or str(layer.get("registered_name") or kind).split(">")[-1] != kind
            or ">" in str(layer.get("registered_name") or "")
        ):
            raise refuse(where, "a class of your own, which a file does not describe.")
        policy = own.get("dtype")
        policy = policy.get("config", {}).get("name") if isinstance(policy, dict) else policy
        if isinstance(policy, str) and "float16" in policy:
            self.notes.append(f"The model computes in {policy}; the arithmetic is float32 here.")
        elif isinstance(policy, str) and "float" not in policy:
            raise refuse(
                where, f"the dtype {policy}; quantized layers are not supported. Take the model before quantization."
            )
        values = [argument for argument in args if isinstance(argument, _Value)]
        if kind in ("Sequential", "Functional", "Model"):
            return self._model(layer, groups.get(own["name"], {}), self._single(where, args))
        if kind in ("Add", "Multiply", "Subtract", "Divide", "TrueDivide"):
            return self._arithmetic(where, kind, args)
        if len(values) != 1 or len(args) != 1:
            raise refuse(where, f"it is called with {len(args)} arguments.")
        (value,) = values
        handler: Callable[[str, dict[str, Any], list[np.ndarray], _Value], _Value | Chain] | None = _LAYERS.get(kind)
        weights = _weights(where, groups.get(own.get("name", "")), self.notes)
        if handler is not None:
            result = handler(where, own, weights, value)
            return result if isinstance(result, _Value) else value.then(result)
        if weights:
            raise unknown(where, kind)
        return value.then(_per_unit(where, _function(where, _snake(kind), own), value))

    @staticmethod
    def _single(where: str, args: list[Any]) -> _Value:
        if len(args) != 1 or not isinstance(args[0], _Value):
            raise refuse(where, "a model that is called with several inputs.")
        value: _Value = args[0]
        return value

    @staticmethod
    def _arithmetic(where: str, kind: str, args: list[Any]) -> _Value:
        if len(args) != 2 or not all(isinstance(part, (_Value, int, float)) for part in args):
            raise refuse(where, f"{len(args)} arguments; two values, or a value and a number, can be converted.")
        a, b = args
        if isinstance(a, _Value) and isinstance(b, _Value):
            if a.shape != b.shape or kind in ("Divide", "TrueDivide"):
                raise refuse(
                    where,
                    f"two values of shapes {a.shape} and {b.shape}."
                    if a.shape != b.shape
                    else "a quotient of two values.",
                )
            if kind == "Multiply":
                return _Value(multiplied(where, a.chain, b.chain), a.shape)
            second = b.chain if kind == "Add" else (*b.chain, *scaled(where, -1.0))
            return _Value(added(where, a.chain, second), a.shape)
        if isinstance(a, _Value):
            layers = {"Add": scaled(where, 1.0, b), "Subtract": scaled(where, 1.0, -b), "Multiply": scaled(where, b)}
            return a.then(layers[kind] if kind in layers else scaled(where, 1 / b))
        if kind in ("Divide", "TrueDivide"):
            raise refuse(where, "a quotient with the input below.")
        value: _Value = b
        return value.then(
            {"Add": scaled(where, 1.0, a), "Subtract": scaled(where, -1.0, a), "Multiply": scaled(where, a)}[kind]
        )


def _histories(places: list[Any]) -> list[tuple[str, int]]:
    """Layers and nodes of a model's inputs or outputs, in any of Keras's forms."""
    if isinstance(places, dict):
        places = list(places.values())
    if places and isinstance(places[0], str):
        places = [places]
    return [(str(place[0]), int(place[1])) for place in places]


def _tensors(part: Any) -> Iterator[tuple[str, int]]:
    if isinstance(part, dict):
        if part.get("class_name") == "__keras_tensor__":
            history = part["config"]["keras_history"]
            yield str(history[0]), int(history[1])
        else:
            for inner in part.values():
                yield from _tensors(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _tensors(inner)


def _resolved(part: Any, values: dict[tuple[str, int], _Value]) -> Any:
    if isinstance(part, list):
        return [_resolved(inner, values) for inner in part]
    if isinstance(part, dict) and part.get("class_name") == "__keras_tensor__":
        return values[next(_tensors(part))]
    return part


def _flat(part: Any) -> list[Any]:
    return [inner for one in part for inner in _flat(one)] if isinstance(part, list) else [part]


def _weights(where: str, group: Any, notes: list[str]) -> list[np.ndarray]:
    """A layer's arrays."""
    if group is None or "vars" not in group:
        return []
    arrays = []
    inside = group["vars"]
    for number in range(len(inside)):
        link = inside.get(str(number), getlink=True)
        if hasattr(link, "filename"):
            raise refuse(where, "weights that are not in the file.")
        data = inside[str(number)]
        if data.external or data.is_virtual or data.chunks or data.id.get_storage_size() < data.nbytes:
            raise refuse(where, "weights that are not in the file.")
        array = np.array(data)
        if data.attrs.get("dtype") == "bfloat16":
            array = (array.view(np.uint16).reshape(data.shape).astype(np.uint32) << 16).view(np.float32)
            notes.append("Weights of bfloat16 are float32 here, and so is the arithmetic.")
        elif array.dtype == np.float16:
            array = array.astype(np.float32)
        arrays.append(array)
    return arrays


def _dense(where: str, own: dict[str, Any], weights: list[np.ndarray], value: _Value) -> _Value:
    units, biased = own["units"], own.get("use_bias", True)
    if len(value.shape) != 1:
        raise refuse(where, f"it acts on the last axis of rows of shape {value.shape}. Put a Flatten before it.")
    shapes = [(value.shape[0], units), *([(units,)] if biased else [])]
    if [array.shape for array in weights] != shapes or any(array.dtype.kind != "f" for array in weights):
        raise refuse(
            where,
            f"weights of shapes {[array.shape for array in weights]} and types "
            f"{[str(array.dtype) for array in weights]}; expected floats of {shapes}.",
        )
    after = value.then((Affine(where, weights[0], weights[1] if biased else None),), (units,))
    return after.then(_activation(where, own.get("activation"), after))


def _batch_norm(where: str, own: dict[str, Any], weights: list[np.ndarray], value: _Value) -> Chain:
    axis = own.get("axis", -1)
    (axis,) = axis if isinstance(axis, list) else [axis]
    names = [name for name, there in (("scale", own.get("scale", True)), ("center", own.get("center", True))) if there]
    if len(weights) != len(names) + 2:
        raise refuse(where, f"{len(weights)} arrays; expected {len(names) + 2}.")
    given = dict(
        zip(
            [*names, "mean", "variance"], (_spread(where, array, [axis], value.shape) for array in weights), strict=True
        )
    )
    mean = given["mean"]
    one, zero = np.ones_like(mean), np.zeros_like(mean)
    return (
        Norm(where, mean, given["variance"], given.get("scale", one), given.get("center", zero), float(own["epsilon"])),
    )


def _spread(where: str, array: Any, axes: list[int] | None, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers along some axes, one for each number of a row, flattened."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise refuse(where, f"an array of {array.dtype}.")
    full = (1, *shape)
    if axes is not None and array.size > 1:
        places = sorted(axis % len(full) for axis in axes)
        wanted = tuple(full[place] for place in places)
        if array.reshape(-1).shape != (math.prod(wanted),):
            raise refuse(where, f"numbers of shape {array.shape} for axes of {wanted}.")
        array = array.reshape([size if place in places else 1 for place, size in enumerate(full)])
    return np.ascontiguousarray(np.broadcast_to(array, full).reshape(-1))


def _normalization(where: str, own: dict[str, Any], weights: list[np.ndarray], value: _Value) -> Chain:
    axis = own.get("axis", -1)
    axes = None if axis is None else list(axis) if isinstance(axis, (list, tuple)) else [axis]
    mean, variance = own.get("mean"), own.get("variance")
    if mean is None:
        if len(weights) != 3:
            raise refuse(where, "it was not adapted, and has no mean and variance.")
        mean, variance = weights[:2]
    mean, variance = (_spread(where, np.asarray(part, np.float64), axes, value.shape) for part in (mean, variance))
    deviation = np.maximum(np.sqrt(variance), _EPSILON)
    if own.get("invert"):
        return scaled(where, deviation, mean)
    return scaled(where, 1 / deviation, -mean / deviation)


def _rescaling(where: str, own: dict[str, Any], weights: list[np.ndarray], value: _Value) -> Chain:
    scale, offset = (
        _spread(where, np.asarray(own[name], np.float64), None, value.shape) for name in ("scale", "offset")
    )
    same = [part[:1].reshape(()) if (part == part[0]).all() else part for part in (scale, offset)]
    return scaled(where, *same)


def _flatten(where: str, own: dict[str, Any], weights: list[np.ndarray], value: _Value) -> _Value:
    if own.get("data_format") == "channels_first" and len(value.shape) > 1:
        raise refuse(where, "data_format='channels_first', which changes the order of a row's numbers.")
    return value.then((), (math.prod(value.shape),))


def _reshape(where: str, own: dict[str, Any], weights: list[np.ndarray], value: _Value) -> _Value:
    size, target = math.prod(value.shape), [int(part) for part in own["target_shape"]]
    known = math.prod(part for part in target if part != -1)
    target = [size // known if part == -1 and known else part for part in target]
    if math.prod(target) != size:
        raise refuse(where, f"a reshape of {value.shape} to {target}.")
    return value.then((), tuple(target))


def _relu(where: str, own: dict[str, Any], weights: list[np.ndarray], value: _Value) -> Chain:
    top, slope, threshold = (
        own.get("max_value"),
        own.get("negative_slope", own.get("alpha", 0.0)) or 0.0,
        own.get("threshold", 0.0),
    )
    if threshold or (slope and top is not None):
        raise refuse(where, f"threshold {threshold}, slope {slope}, max_value {top}; fastmlp's relu has none of them.")
    return leaky_relu(where, slope) if slope else clipped(where, 0.0, math.inf if top is None else float(top))


def _prelu(where: str, own: dict[str, Any], weights: list[np.ndarray], value: _Value) -> Chain:
    (alpha,) = weights
    shared = own.get("shared_axes") or []
    if alpha.shape != tuple(1 if i + 1 in shared else size for i, size in enumerate(value.shape)):
        raise refuse(where, f"slopes of shape {alpha.shape} for rows of shape {value.shape}.")
    spread = np.broadcast_to(alpha, value.shape).reshape(-1)
    return leaky_relu(where, spread)


def _left_out(kind: str) -> Callable[[str, dict[str, Any], list[np.ndarray], _Value], Chain]:
    return lambda where, own, weights, value: (
        Remark(where, f"{kind} is left out: fastmlp has plain dropout of units, and noise of the input."),
    )


def _activation(where: str, spec: Any, value: _Value) -> Chain:
    """An activation, by its name or as a layer."""
    if spec is None:
        return ()
    if isinstance(spec, str):
        return _per_unit(where, _function(where, spec, {}), value)
    kind = spec.get("class_name")
    if kind == "function" and isinstance(spec.get("config"), str) and str(spec.get("module")).startswith("keras"):
        return _per_unit(where, _function(where, spec["config"], {}), value)
    if str(spec.get("module")).startswith("keras.layers") and kind in _LAYERS and kind != "PReLU":
        result = _LAYERS[kind](f"{where}, {kind}", spec["config"], [], value)
        if not isinstance(result, _Value):
            return result
    raise refuse(where, f"the activation {reprlib.repr(spec)}, which a file does not describe, or fastmlp lacks.")


def _per_unit(where: str, layers: Chain, value: _Value) -> Chain:
    """Refuse a softmax over one of several axes."""
    if len(value.shape) != 1 and any(isinstance(layer, Activation) and "softmax" in layer.name for layer in layers):
        raise refuse(where, f"a softmax over the last axis of rows of shape {value.shape}.")
    return layers


_NAMES = {
    "linear": "identity", "identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu", "selu": "selu",
    "silu": "silu",
    "swish": "silu", "softplus": "softplus", "mish": "mish", "softmax": "softmax", "log_softmax": "log_softmax",
    "exponential": "exp", "exp": "exp",
    "log_sigmoid": "log_logistic",
}  # fmt: skip


def _function(where: str, name: str, own: dict[str, Any]) -> Chain:
    """An activation function of Keras, by its name; ``own`` has the arguments of an operation."""
    if name in ("softmax", "log_softmax") and own.get("axis", -1) not in (-1, 1, [-1], [1]):
        raise refuse(where, f"axis {own['axis']}; fastmlp's {name} is over each row's outputs.")
    if name in _NAMES:
        return named(where, _NAMES[name])
    if name == "gelu":
        if own.get("approximate", False):
            raise unknown(where, "gelu_tanh")
        return named(where, "gelu")
    if name == "leaky_relu":
        return leaky_relu(where, float(own.get("negative_slope", 0.2)))
    if name == "elu":
        return elu(where, float(own.get("alpha", 1.0)))
    if name == "celu":
        return celu(where, float(own.get("alpha", 1.0)))
    if name == "relu6":
        return clipped(where, 0.0, 6.0)
    if name == "hard_tanh":
        return clipped(where, -1.0, 1.0)
    if name == "hard_sigmoid":
        return hard_sigmoid(where)
    if name == "negative":
        return scaled(where, -1.0)
    raise unknown(where, {"hard_silu": "hardswish", "hard_swish": "hardswish"}.get(name, name))


_LAYERS: dict[str, Callable[[str, dict[str, Any], list[np.ndarray], _Value], _Value | Chain]] = {
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Activation": lambda where, own, weights, value: _activation(where, own["activation"], value),
    "ReLU": _relu,
    "LeakyReLU": lambda where, own, weights, value: leaky_relu(
        where, float(own.get("negative_slope", own.get("alpha", 0.3)))
    ),
    "PReLU": _prelu,
    "ELU": lambda where, own, weights, value: elu(where, float(own.get("alpha", 1.0))),
    "Softmax": lambda where, own, weights, value: _per_unit(where, _function(where, "softmax", own), value),
    "Dropout": lambda where, own, weights, value: (Dropout(where, float(own["rate"])),),
    "GaussianNoise": lambda where, own, weights, value: (Noise(where, float(own["stddev"])),),
    "GaussianDropout": _left_out("Gaussian dropout"),
    "AlphaDropout": _left_out("alpha dropout"),
    "ActivityRegularization": lambda where, own, weights, value: (),
    "Identity": lambda where, own, weights, value: (),
}


# --- to Keras -------------------------------------------------------------------------------------------------------

_KERAS_NAMES = {ours: theirs for theirs, ours in reversed(_NAMES.items())} | {"gelu": "gelu", "elu": "elu"}


def to_keras(model: Any, *, logits: bool = False) -> Any:
    """A Keras model that computes what the networks of a model do.

    Parameters
    ----------
    model : Network, MLPClassifier, MLPRegressor, MLPEnsembleClassifier or MLPEnsembleRegressor
        Fitted. Of an estimator, dropout and noise of the input are layers of the Keras model too.
    logits : bool, default=False
        Leave out the output activation, as losses with ``from_logits=True`` want it. Not for an ensemble.

    Returns
    -------
    keras.Sequential or keras.Model
        Not compiled, of the network's element type (saved and loaded again, one of float64 rounds its input unless
        ``keras.config.set_floatx('float64')`` was called); functional where there are residual layers or several
        networks. Its output has shape (n_rows, n_outputs): probabilities, for two classes that of the second, or
        predictions.

    Raises
    ------
    ConversionError
        For estimators of tables, whose networks take coded columns.
    ImportError
        Without Keras.

    Examples
    --------
    >>> import keras
    >>> from fastmlp import Network
    >>> from fastmlp.interop import to_keras
    >>> [type(layer).__name__ for layer in to_keras(Network((4, 8, 3), random_state=0)).layers]
    ['Dense', 'Activation', 'Dense', 'Activation']
    """
    try:
        import keras
    except ImportError as error:
        raise missing("Keras", "keras", "A Keras model") from error
    described = exported(model)
    chains = described.chains(logits)
    first = described.networks[0]
    source = keras.Input((first.layer_sizes[0],), dtype=first.dtype.name)
    if len(chains) == 1 and not any(isinstance(layer, Residual) for layer in chains[0]):
        layers = [_layer(layer, keras, first.dtype.name) for layer in chains[0]]
        result = keras.Sequential([source, *layers])
        result.dtype_policy = first.dtype.name  # else it rounds its input to the type of all others
        for layer, made in zip(chains[0], layers, strict=True):
            _set_weights(layer, made)
        return result
    outputs = [_write(source, chain, keras, first.dtype.name) for chain in chains]
    output = keras.layers.Average(dtype=first.dtype.name)(outputs) if len(outputs) > 1 else outputs[0]
    result = keras.Model(source, output)
    result.dtype_policy = first.dtype.name
    return result


def _write(value: Any, chain: Chain, keras: Any, dtype: str) -> Any:
    """A value after the layers of a chain."""
    for layer in chain:
        if isinstance(layer, Residual):
            value = keras.layers.Add(dtype=dtype)([value, _write(value, layer.body, keras, dtype)])
        elif not (isinstance(layer, Activation) and layer.name == "identity"):
            made = _layer(layer, keras, dtype)
            value = made(value)
            _set_weights(layer, made)
    return value


def _layer(layer: Layer, keras: Any, dtype: str) -> Any:
    """The Keras layer of a layer, without weights."""
    layers = keras.layers
    if isinstance(layer, Affine):
        return layers.Dense(layer.weight.shape[1], use_bias=layer.bias is not None, dtype=dtype)
    if isinstance(layer, Norm):
        return layers.BatchNormalization(epsilon=layer.epsilon, momentum=0.9, dtype=dtype)
    if isinstance(layer, Dropout):
        return layers.Dropout(layer.rate, dtype=dtype)
    if isinstance(layer, Noise):
        return layers.GaussianNoise(layer.std, dtype=dtype)
    assert isinstance(layer, Activation)
    if layer.name == "leaky_relu":
        return layers.LeakyReLU(negative_slope=0.01, dtype=dtype)
    return layers.Activation(_KERAS_NAMES[layer.name], dtype=dtype)


def _set_weights(layer: Layer, made: Any) -> None:
    if isinstance(layer, Affine):
        made.set_weights([layer.weight, *([] if layer.bias is None else [layer.bias])])
    elif isinstance(layer, Norm):
        made.set_weights([layer.scale, layer.shift, layer.mean, layer.variance])
