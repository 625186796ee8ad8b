"""ONNX: models from files of any exporter, and files from models."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

import fastmlp.core as core
from fastmlp._version import __version__
from fastmlp.interop.errors import ConversionError
from fastmlp.interop.layers import (
    Activation,
    Affine,
    Chain,
    Converted,
    Dropout,
    Norm,
    Scale,
    added,
    assemble,
    celu,
    clipped,
    elu,
    hard_sigmoid,
    leaky_relu,
    missing,
    multiplied,
    named,
    refuse,
    scaled,
    stretched,
    tails,
    unknown,
    width_of,
)
from fastmlp.interop.models import exported
from fastmlp.interop.onnx_graphs import DOMAIN, FUNCTIONS, OPSETS, label_array, write_label, write_scores
from fastmlp.network.persistence import replacing


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise missing("onnx", "onnx", "A conversion from or to ONNX") from error
    return onnx


# --- to ONNX --------------------------------------------------------------------------------------------------------


class _Graph:
    """A writer of a graph, or of a function's body, whose constants are nodes."""

    def __init__(self, dtype: np.dtype, opset: int, prefix: str = "", functions: dict[str, Any] | None = None) -> None:
        self.onnx, self.dtype, self.opset, self.prefix = _onnx(), dtype, opset, prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.functions = functions
        self._known: dict[tuple[Any, ...], str] = {}

    def _name(self, word: str) -> str:
        return f"{self.prefix}{word}_{len(self.nodes) + len(self.constants)}"

    def node(self, op: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        name = output or self._name(op)
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, array: Any) -> str:
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, tuple(array.ravel().tolist())) if array.size == 1 else (id(array),)
        if key not in self._known:
            tensor = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape))
            if self.functions is None:
                self._known[key] = self.node("Constant", value=tensor)
            else:
                tensor.name = self._known[key] = self._name("constant")
                self.constants.append(tensor)
        return self._known[key]

    def function(self, name: str, *inputs: str) -> str:
        assert self.functions is not None
        self.functions.setdefault(name, function_proto(name, self.dtype, self.opset))
        return self.node(name, *inputs, domain=DOMAIN)


def function_proto(name: str, dtype: np.dtype, opset: int) -> Any:
    """A function of fastmlp's domain."""
    onnx = _onnx()
    inputs, body = FUNCTIONS[name]
    graph = _Graph(dtype, opset)
    result = body(graph, *inputs)
    graph.node("Identity", result, output="y")
    imports = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_function(DOMAIN, name, list(inputs), ["y"], graph.nodes, imports)


def to_onnx(model: Any, path: str | os.PathLike[str] | None = None, *, opset: int = 20, zipmap: bool = False) -> Any:
    """An ONNX model of a network, an estimator or an ensemble.

    Parameters
    ----------
    model : Network, MLPClassifier, MLPRegressor, MLPEnsembleClassifier or MLPEnsembleRegressor
        Fitted. Of a pipeline, :mod:`fastmlp.interop.sklearn_onnx` converts all steps.
    path : str or path-like, default=None
        Write the model to this file too; an existing one is replaced at once.
    opset : int, default=20
        Version of ONNX's operators, 13 to 24.
    zipmap : bool, default=False
        Give probabilities as a list of dicts by label, as skl2onnx does by default. For float32 and labels that are
        strings or integers.

    Returns
    -------
    onnx.ModelProto
        Its input ``X`` has shape (n_rows, n_features) and the network's element type. A classifier's outputs are
        ``label`` and ``probabilities`` (n_rows, n_classes), a regressor's ``variable`` (n_rows, n_outputs), a Network's
        ``output``. Activations that ONNX Runtime lacks in float64 are functions of the model.

    Raises
    ------
    ConversionError
        For estimators of tables, whose networks take coded columns, and for labels that ONNX lacks.
    ImportError
        Without the package onnx.
    ValueError
        For another opset.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import onnx
    >>> from fastmlp import Network
    >>> from fastmlp.interop import to_onnx
    >>> model = to_onnx(Network((4, 8, 3), random_state=0))
    >>> [node.op_type for node in model.graph.node][:4]
    ['Gemm', 'Relu', 'Gemm', 'Softmax']
    """
    onnx = _onnx()
    described = exported(model)
    if isinstance(opset, bool) or not OPSETS[0] <= opset <= OPSETS[1]:
        raise ValueError(f"opset must be {OPSETS[0]} to {OPSETS[1]}, got {opset!r}.")
    first = described.networks[0]
    element = onnx.helper.np_dtype_to_tensor_dtype(first.dtype)
    graph = _Graph(first.dtype, opset, functions={})
    source = onnx.helper.make_tensor_value_info("X", element, [None, first.layer_sizes[0]])
    scores = write_scores(graph, "X", described)
    n_columns = {"binary": 2, "one class": 1}.get(described.kind, first.layer_sizes[-1])
    final = {"network": "output", "regressor": "variable"}.get(described.kind, "probabilities")
    ml = []
    if described.classes is None:
        results = [onnx.helper.make_tensor_value_info(final, element, [None, n_columns])]
    else:
        label = write_label(graph, "X", scores, described)
        labels = np.zeros(0, np.int64) if described.kind == "multilabel" else label_array(described)
        kind = (
            onnx.TensorProto.STRING if labels.dtype.kind == "O" else onnx.helper.np_dtype_to_tensor_dtype(labels.dtype)
        )
        shape = [None, n_columns] if described.kind == "multilabel" else [None]
        results = [onnx.helper.make_tensor_value_info("label", kind, shape)]
        graph.node("Identity", label, output="label")
        if zipmap:
            ml.append(onnx.helper.make_opsetid("ai.onnx.ml", 1))
            keys = _zipmap_labels(described, first.dtype, labels)
            scores = graph.node("ZipMap", scores, domain="ai.onnx.ml", output=final, **keys)
            key_type = onnx.TensorProto.STRING if "classlabels_strings" in keys else onnx.TensorProto.INT64
            value = onnx.helper.make_tensor_type_proto(element, [])
            map_type = onnx.helper.make_map_type_proto(key_type, value)
            results.append(onnx.helper.make_value_info(final, onnx.helper.make_sequence_type_proto(map_type)))
        else:
            results.append(onnx.helper.make_tensor_value_info(final, element, [None, n_columns]))
    if scores != final:
        graph.node("Identity", scores, output=final)
    imports = [onnx.helper.make_opsetid("", opset), *ml]
    imports += [onnx.helper.make_opsetid(DOMAIN, 1)] if graph.functions else []
    made = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, described.name, [source], results, graph.constants),
        functions=list((graph.functions or {}).values()),
        opset_imports=imports,
        producer_name="fastmlp",
        producer_version=__version__,
        ir_version=8 if opset < 19 else 9 if opset < 21 else 10,
    )
    if path is not None:
        content = made.SerializeToString()
        with replacing(path) as temporary, open(temporary, "wb") as file:
            file.write(content)
    return made


def _zipmap_labels(model: Any, dtype: np.dtype, labels: np.ndarray) -> dict[str, Any]:
    if dtype != np.float32 or model.kind == "multilabel" or labels.dtype.kind not in "Oi":
        raise ConversionError(
            f"{model.name}: zipmap=True is for float32 and labels that are strings or integers; ONNX's ZipMap has no "
            f"other. Leave it out."
        )
    return (
        {"classlabels_strings": list(labels)} if labels.dtype.kind == "O" else {"classlabels_int64s": labels.tolist()}
    )


# --- from ONNX ------------------------------------------------------------------------------------------------------


def from_onnx(
    model: Any,
    output: str | None = None,
    *,
    batch_norm: str = "keep",
    rewrite: bool = False,
    dtype: Any = None,
) -> Converted:
    """The network that an ONNX model computes.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        Of any exporter (PyTorch, Keras, skl2onnx, tf2onnx): Gemm, MatMul, arithmetic with constants, activations,
        BatchNormalization, ``x + f(x)``, gates of silu, gelu and mish written out. Of a classifier, the probabilities
        are taken; those of two classes become one logistic output.
    output : str, default=None
        What stands behind logits: 'softmax', 'logistic'. None: nothing.
    batch_norm : {'keep', 'fold'}, default='keep'
        As in :func:`from_torch`.
    rewrite : bool, default=False
        Allow more units or layers for functions that fastmlp lacks, as in :func:`from_torch`.
    dtype : {'float32', 'float64'}, default=None
        None: that of the weights, float32 for float16 and bfloat16.

    Returns
    -------
    Converted

    Raises
    ------
    ConversionError
        A ValueError: where the model cannot be converted exactly, or is none.
    ImportError
        Without the package onnx.
    OSError
        If the file cannot be opened.

    Examples
    --------
    >>> import onnx
    >>> from fastmlp import Network
    >>> from fastmlp.interop import from_onnx, to_onnx
    >>> from_onnx(to_onnx(Network((4, 8, 3), random_state=0))).network
    Network((4, 8, 3), activation='relu', out_activation='softmax', dtype='float32')
    """
    onnx = _onnx()
    if not isinstance(model, (str, os.PathLike, bytes, onnx.ModelProto)):
        raise TypeError(f"from_onnx takes a path, bytes or an onnx.ModelProto, got {type(model).__qualname__}.")
    if isinstance(model, (str, os.PathLike)):
        with open(model, "rb"):
            pass
    try:
        if not isinstance(model, onnx.ModelProto):
            model = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(os.fsdecode(model))
        reader = _Reader(_inlined(model, onnx), onnx)
        chain = reader.read()
    except ConversionError:
        raise
    except Exception as error:  # protobuf's and onnx's own, of many kinds
        raise ConversionError(f"The model cannot be read as ONNX: {type(error).__name__}: {error}") from error
    return assemble(chain, output=output, batch_norm=batch_norm, rewrite=rewrite, dtype=dtype, notes=reader.notes)


def _inlined(model: Any, onnx: Any) -> Any:
    """The model with the functions of others in place of their calls. Ours stay, if they are what this version
    writes."""
    opset = max([entry.version for entry in model.opset_import if entry.domain == ""], default=1)
    foreign = []
    for function in model.functions:
        ours = function.domain == DOMAIN and function.name in FUNCTIONS
        expected = (
            [function_proto(function.name, np.dtype(kind), opset) for kind in ("float32", "float64")] if ours else []
        )
        if not any(function == proto for proto in expected):
            foreign.append((function.domain, function.name))
    if foreign:
        model = importlib.import_module("onnx.inliner").inline_selected_functions(model, foreign, exclude=False)
    return model


class _Value:
    """A tensor of the graph. ``pair``: 'logits' or 'probabilities' of both classes, of which the chain has the
    second's."""

    def __init__(self, chain: Chain, rank: int | None, pair: str = "") -> None:
        self.chain, self.rank, self.pair = chain, rank, pair

    def then(self, layers: Chain, rank: int | None = None) -> _Value:
        return _Value((*self.chain, *layers), self.rank if rank is None else rank, self.pair)


class _Shape:
    """A value's shape, its number of rows, or a shape made of these and -1."""

    def __init__(self, flattens: bool = False) -> None:
        self.flattens = flattens


class _Reader:
    """An interpreter of a graph. What cannot be converted is an error that its consumers inherit: labels may be
    such."""

    def __init__(self, model: Any, onnx: Any) -> None:
        self.onnx, self.graph = onnx, model.graph
        self.opset = max([entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")], default=1)
        self.notes: list[str] = []
        self.wide = False

    def _array(self, tensor: Any) -> np.ndarray:
        array: np.ndarray = self.onnx.numpy_helper.to_array(tensor)
        if array.dtype.kind not in "fiubOSU" or (array.dtype.kind == "f" and array.dtype.itemsize < 4):
            if tensor.data_type in (self.onnx.TensorProto.FLOAT16, self.onnx.TensorProto.BFLOAT16):
                self.notes.append("Weights of float16 or bfloat16 are float32 here, and so is the arithmetic.")
                return array.astype(np.float32)
            raise refuse(tensor.name, "a constant of a type that fastmlp has no counterpart of.")
        self.wide = self.wide or array.dtype == np.float64
        return array

    def read(self) -> Chain:
        graph, floats = self.graph, (1, 10, 11, 16)
        values: dict[str, Any] = {tensor.name: self._array(tensor) for tensor in graph.initializer}
        inputs = [entry for entry in graph.input if entry.name not in values]
        if len(inputs) != 1 or graph.sparse_initializer:
            raise refuse(graph.name or "The graph", f"{len(inputs)} inputs; a network has one.")
        kind = inputs[0].type.tensor_type
        if kind.elem_type not in floats:
            raise refuse(inputs[0].name, "an input that is not a tensor of floating-point numbers.")
        values[inputs[0].name] = _Value((), len(kind.shape.dim) if kind.HasField("shape") else None)
        for node in graph.node:
            where = f"{node.name or node.output[0]} ({node.op_type})"
            given = [values.get(name) if name else None for name in node.input]
            failed = next((part for part in given if isinstance(part, ConversionError)), None)
            try:
                if failed is not None:
                    raise failed
                if any(name and name not in values for name in node.input):
                    raise refuse(where, "an input that no node makes.")
                result = self._node(where, node, given)
            except ConversionError as error:
                result = error
            values[node.output[0]] = result
            for name in node.output[1:]:
                values[name] = refuse(where, f"its output {name}.")
        found: list[_Value] = []
        for entry in graph.output:
            result = values.get(entry.name, refuse(entry.name, "an output that no node makes."))
            if isinstance(result, _Value):
                found.append(result)
            elif entry.name in _LABELS:
                continue
            elif entry.type.HasField("sequence_type") or entry.type.tensor_type.elem_type in floats:
                raise (
                    result
                    if isinstance(result, ConversionError)
                    else refuse(entry.name, "an output that does not depend on the input.")
                )
        if not found or any(value.chain != found[0].chain for value in found):
            raise refuse(
                graph.name or "The graph", f"{len(found)} outputs of floating-point numbers; a network has one."
            )
        if found[0].pair == "logits":
            raise refuse(graph.name or "The graph", "logits of both classes, one being the other's negative.")
        if found[0].pair:
            self.notes.append("Probabilities of two classes are one logistic output, that of the second.")
        return found[0].chain

    def _node(self, where: str, node: Any, given: list[Any]) -> Any:
        attributes = {entry.name: self.onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        op, values = node.op_type, [part for part in given if isinstance(part, _Value)]
        if node.domain == DOMAIN:
            return self._own(where, op, given)
        if node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
            raise refuse(where, f"an operator of the domain {node.domain!r}.")
        if op == "Constant":
            return self._constant(where, attributes)
        if any(isinstance(part, _Shape) for part in given) or op == "Shape":
            return self._shape(where, op, given, attributes)
        if not values:
            return _folded(where, op, given, attributes)
        if any(value.pair for value in values):
            return self._of_pair(where, op, values, given, attributes)
        handler: Callable[..., Any] | None = getattr(self, f"_{op.lower()}", None)
        if handler is not None:
            return handler(where, given, attributes)
        if op in _ARITHMETIC:
            return self._arithmetic(where, op, given)
        if not isinstance(given[0], _Value):
            raise refuse(where, "a constant in place of its input.")
        layers = self._function(where, op, given, attributes)
        if any(isinstance(layer, Activation) and "softmax" in layer.name for layer in layers):
            self._check_rank(where, given[0])
        return given[0].then(layers)

    def _check_rank(self, where: str, value: _Value) -> None:
        if value.rank not in (2, None):
            raise refuse(
                where, f"it acts on an axis of a tensor of {value.rank} dimensions; rows have two. Flatten it first."
            )

    def _own(self, where: str, op: str, given: list[Any]) -> _Value:
        """A function that to_onnx wrote."""
        if not isinstance(given[0], _Value) or given[0].pair or op not in FUNCTIONS:
            raise refuse(where, "an unknown function of fastmlp.")
        value: _Value = given[0]
        if op == "batch_norm":
            scale, shift, mean, variance = given[1:]
            return value.then((Norm(where, mean, variance, scale, shift),))
        return value.then(named(where, op))

    def _constant(self, where: str, attributes: dict[str, Any]) -> np.ndarray:
        if "value" in attributes:
            return self._array(attributes["value"])
        for name, kind in (
            ("value_float", np.float32),
            ("value_floats", np.float32),
            ("value_int", np.int64),
            ("value_ints", np.int64),
        ):
            if name in attributes:
                return np.array(attributes[name], kind)
        raise refuse(where, f"a constant by {sorted(attributes)}.")

    def _shape(self, where: str, op: str, given: list[Any], attributes: dict[str, Any]) -> _Shape | _Value:
        """Flattening by a shape that is computed."""
        if op == "Shape" and isinstance(given[0], _Value):
            return _Shape()
        if op in ("Gather", "Slice", "Unsqueeze", "Squeeze", "Cast", "Identity") and isinstance(given[0], _Shape):
            if op in ("Gather", "Slice") and np.any(np.asarray(given[1]) != 0):
                raise refuse(where, "the number of a row's numbers, as a value.")
            return given[0]
        if (
            op == "Concat"
            and len(given) == 2
            and isinstance(given[0], _Shape)
            and np.size(given[1]) == 1
            and np.all(given[1] == -1)
        ):
            return _Shape(flattens=True)
        if op == "Reshape" and isinstance(given[0], _Value) and isinstance(given[1], _Shape) and given[1].flattens:
            return given[0].then((), 2)
        raise refuse(where, "it computes with shapes.")

    def _of_pair(
        self, where: str, op: str, values: list[_Value], given: list[Any], attributes: dict[str, Any]
    ) -> _Value:
        """An operation on both classes' values."""
        value = values[0]
        if len(values) == 1 and op in ("Identity", "ZipMap"):
            return value
        if op == "Cast" and attributes.get("to") in (1, 11):
            return value
        if len(values) == 1 and op == "Sigmoid" and value.pair == "logits":
            return _Value((*value.chain, *named(where, "logistic")), value.rank, "probabilities")
        raise refuse(where, "an operation on the probabilities of both classes.")

    # Operators by name.

    def _gemm(self, where: str, given: list[Any], attributes: dict[str, Any]) -> _Value:
        value, weight, bias = (*given, None)[:3]
        if (
            not isinstance(value, _Value)
            or not isinstance(weight, np.ndarray)
            or attributes.get("transA", 0)
            or isinstance(bias, _Value)
        ):
            raise refuse(where, "a product that is not of the input and constant weights.")
        self._check_rank(where, value)
        weight = weight.T if attributes.get("transB", 0) else weight
        alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
        weight = weight if alpha == 1 else weight * weight.dtype.type(alpha)
        if bias is None:
            return value.then((Affine(where, weight),), 2)
        if bias.ndim > 2 or bias.size not in (1, weight.shape[-1]) or (bias.size > 1 and bias.shape[-1] != bias.size):
            raise refuse(where, f"a bias of shape {bias.shape}.")
        bias = np.broadcast_to(bias.reshape(-1), weight.shape[-1:])
        return value.then((Affine(where, weight, bias if beta == 1 else bias * bias.dtype.type(beta)),), 2)

    def _matmul(self, where: str, given: list[Any], attributes: dict[str, Any]) -> _Value:
        value, weight = given
        if not isinstance(value, _Value) or not isinstance(weight, np.ndarray):
            raise refuse(where, "a product of a constant, or of two values, with the input.")
        self._check_rank(where, value)
        return value.then((Affine(where, weight, np.zeros(weight.shape[-1], weight.dtype)),), 2)

    def _batchnormalization(self, where: str, given: list[Any], attributes: dict[str, Any]) -> _Value:
        value, *arrays = given
        if (
            attributes.get("training_mode", 0)
            or not isinstance(value, _Value)
            or not all(isinstance(array, np.ndarray) for array in arrays)
        ):
            raise refuse(where, "batch normalisation by the averages of a batch.")
        self._check_rank(where, value)
        scale, shift, mean, variance = arrays
        epsilon = float(attributes.get("epsilon", 1e-5))
        if not self.wide and np.float32(epsilon) == np.float32(core.NORM_EPSILON):
            epsilon = core.NORM_EPSILON
        return value.then((Norm(where, mean, variance, scale, shift, epsilon),))

    def _concat(self, where: str, given: list[Any], attributes: dict[str, Any]) -> _Value:
        """Both classes' probabilities, 1 - p and p, or logits, -z and z."""
        if len(given) == 2 and all(isinstance(part, _Value) for part in given) and attributes.get("axis") in (1, -1):
            _, first, second = tails(given[0].chain, given[1].chain)
            if not second and len(first) == 1 and isinstance(first[0], Scale) and width_of(given[1].chain) == 1:
                factor, shift = first[0].factor, first[0].shift
                ends = given[1].chain[-1]
                if factor.ndim == shift.ndim == 0 and factor == -1:
                    if shift == 1 and isinstance(ends, Activation) and ends.name == "logistic":
                        return _Value(given[1].chain, 2, "probabilities")
                    if shift == 0:
                        return _Value(given[1].chain, 2, "logits")
        raise refuse(where, "values side by side; a network has one branch.")

    def _zipmap(self, where: str, given: list[Any], attributes: dict[str, Any]) -> _Value:
        result: _Value = given[0]
        return result

    def _flatten(self, where: str, given: list[Any], attributes: dict[str, Any]) -> _Value:
        if attributes.get("axis", 1) != 1:
            raise refuse(where, f"axis {attributes['axis']}; rows are flattened with 1.")
        result: _Value = given[0].then((), 2)
        return result

    def _reshape(self, where: str, given: list[Any], attributes: dict[str, Any]) -> _Value:
        value, shape = given
        sizes = np.asarray(shape).ravel().tolist()
        width = width_of(value.chain)
        known = len(sizes) == 2 and (
            sizes == [0, -1] or (sizes[0] in (0, -1) and sizes[1] > 0 and sizes[1] == (width or sizes[1]))
        )
        if not known or (sizes[0] == 0 and sizes[1] != -1 and width is None):
            raise refuse(where, f"a reshape to {sizes}; rows are flattened.")
        result: _Value = value.then((), 2)
        return result

    def _cast(self, where: str, given: list[Any], attributes: dict[str, Any]) -> _Value:
        kinds = self.onnx.TensorProto
        if attributes["to"] in (kinds.FLOAT16, kinds.BFLOAT16):
            self.notes.append(f"{where}: it rounds to float16 or bfloat16 there.")
        elif attributes["to"] not in (kinds.FLOAT, kinds.DOUBLE):
            raise refuse(where, "a cast to another type than floating-point numbers.")
        result: _Value = given[0]
        return result

    def _sum(self, where: str, given: list[Any], attributes: dict[str, Any]) -> _Value:
        total = given[0]
        for part in given[1:]:
            total = self._arithmetic(where, "Add", [total, part])
        result: _Value = total
        return result

    def _arithmetic(self, where: str, op: str, given: list[Any]) -> _Value:
        a, b = given
        if isinstance(a, _Value) and isinstance(b, _Value):
            rank = a.rank if a.rank == b.rank else None
            if op == "Mul":
                return _Value(multiplied(where, a.chain, b.chain), rank)
            if op == "Div":
                raise refuse(where, "a quotient of two values.")
            return _Value(added(where, a.chain, b.chain if op == "Add" else (*b.chain, *scaled(where, -1.0))), rank)
        array = b if isinstance(a, _Value) else a
        value: _Value = a if isinstance(a, _Value) else b
        if array.dtype.kind not in "fiu":
            raise refuse(where, f"arithmetic with {array.dtype}.")
        if array.size > 1 and value.rank not in (2, None):
            raise refuse(
                where, f"a constant of shape {array.shape} for a tensor of {value.rank} dimensions. Flatten it first."
            )
        if array.ndim > (value.rank or 2):
            raise refuse(where, f"a constant of shape {array.shape}, which adds dimensions to a row's two.")
        number = array.astype(np.float64)
        if op == "Add":
            return value.then(scaled(where, 1.0, number))
        if op == "Mul":
            return value.then(scaled(where, number))
        if op == "Sub":
            return value.then(scaled(where, 1.0, -number) if value is a else scaled(where, -1.0, number))
        if value is not a:
            raise refuse(where, "a quotient with the input below.")
        result: _Value = value.then(scaled(where, 1 / number))
        return result

    def _function(self, where: str, op: str, given: list[Any], attributes: dict[str, Any]) -> Chain:
        """The layers of an operator with one input."""
        chain = given[0].chain
        if op in _NAMES:
            return named(where, _NAMES[op])
        if op == "LeakyRelu":
            slope = np.float32(attributes.get("alpha", 0.01))
            return leaky_relu(where, np.float64(slope) if self.wide else slope)
        if op == "PRelu" and isinstance(given[1], np.ndarray):
            return leaky_relu(where, given[1])
        if op in ("Elu", "Celu"):
            return (elu if op == "Elu" else celu)(where, float(attributes.get("alpha", 1.0)))
        if op == "Selu":
            alpha, gamma = (
                attributes.get("alpha", 1.67326319217681884765625),
                attributes.get("gamma", 1.05070102214813232421875),
            )
            if (
                not np.allclose([alpha, gamma], [1.6732632423543772, 1.0507009873554805], rtol=2e-7, atol=0)
                or self.wide
            ):
                raise refuse(
                    where, f"alpha {alpha} and gamma {gamma}; fastmlp's selu has 1.67326324235 and 1.05070098736."
                )
            return named(where, "selu")
        if op == "Gelu":
            if attributes.get("approximate", b"none") != b"none":
                raise unknown(where, "gelu_tanh")
            return named(where, "gelu")
        if op == "Swish":
            alpha = float(attributes.get("alpha", 1.0))
            if alpha == 0:
                raise refuse(where, "alpha 0; x / 2 is no activation.")
            return stretched(where, "silu", alpha, 1 / alpha)
        if op == "HardSigmoid":
            return hard_sigmoid(where, float(attributes.get("alpha", 0.2)), float(attributes.get("beta", 0.5)))
        if op in ("Softmax", "LogSoftmax"):
            axis = attributes.get("axis", -1 if self.opset >= 13 else 1)
            if axis not in (1, -1):
                raise refuse(where, f"axis {axis}; fastmlp's softmax is over each row's outputs.")
            return named(where, "softmax" if op == "Softmax" else "log_softmax")
        if op in ("Clip", "Max", "Min"):
            return clipped(where, *_bounds(where, op, given, attributes))
        if op == "Neg":
            return scaled(where, -1.0)
        if op == "Dropout":
            if len(given) > 2 and given[2] is not None and np.any(given[2]):
                raise refuse(where, "dropout in prediction (training_mode).")
            rate = given[1] if len(given) > 1 and given[1] is not None else attributes.get("ratio", 0.5)
            return (Dropout(where, float(np.asarray(rate))),)
        if op == "Scaler":
            offset, scale = (np.array(attributes[name], np.float64) for name in ("offset", "scale"))
            self._check_rank(where, given[0])
            return scaled(where, scale, -offset * scale)
        if op == "Log" and chain and isinstance(chain[-1], Activation) and chain[-1].name in ("softmax", "logistic"):
            raise refuse(
                where,
                f"the logarithm of {chain[-1].name}, which rounds to infinity. Export the log-softmax as one layer.",
            )
        raise unknown(where, op)


# Of a classifier: labels may be floating-point numbers.
_LABELS = ("label", "output_label")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_NAMES = {
    "Relu": "relu", "Sigmoid": "logistic", "Tanh": "tanh", "Softplus": "softplus", "Mish": "mish", "Exp": "exp",
    "Erf": "erf", "Identity": "identity",
}  # fmt: skip


def _bounds(where: str, op: str, given: list[Any], attributes: dict[str, Any]) -> tuple[float, float]:
    """The range of Clip, or of Max or Min with a number."""
    if op != "Clip":
        if len(given) != 2 or not isinstance(given[1], np.ndarray) or given[1].size != 1 or given[1].ndim > 2:
            raise refuse(where, f"a {op} that is not of a value and a number.")
        bound = float(given[1].reshape(()))
        return (bound, np.inf) if op == "Max" else (-np.inf, bound)
    low = given[1] if len(given) > 1 and given[1] is not None else attributes.get("min", -np.inf)
    high = given[2] if len(given) > 2 and given[2] is not None else attributes.get("max", np.inf)
    if isinstance(low, _Value) or isinstance(high, _Value):
        raise refuse(where, "bounds that depend on the input.")
    largest = float(np.finfo(np.float32).max)
    low, high = float(np.asarray(low).reshape(())), float(np.asarray(high).reshape(()))
    return (-np.inf if low <= -largest else low), (np.inf if high >= largest else high)


def _folded(where: str, op: str, given: list[Any], attributes: dict[str, Any]) -> np.ndarray:
    """An operator on constants."""
    simple: dict[str, Callable[..., Any]] = {
        "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Sqrt": np.sqrt, "Neg": np.negative,
        "Exp": np.exp,
        "Reciprocal": np.reciprocal, "Identity": np.copy, "MatMul": np.matmul,
    }  # fmt: skip
    arrays = [np.asarray(part) for part in given if part is not None]
    if op in simple and all(array.dtype.kind == "f" for array in arrays):
        result: np.ndarray = np.asarray(simple[op](*arrays))
        return result
    if op == "Transpose":
        return arrays[0].transpose(attributes.get("perm"))
    if op == "Reshape" and 0 not in arrays[1]:
        return arrays[0].reshape(arrays[1].tolist())
    if op in ("Unsqueeze", "Squeeze"):
        axes = attributes.get("axes", arrays[1].tolist() if len(arrays) > 1 else None)
        if op == "Unsqueeze" and axes is not None:
            return np.expand_dims(arrays[0], tuple(axes))
        return arrays[0].squeeze(None if axes is None else tuple(axes))
    if op == "Cast" and attributes.get("to") in (1, 7, 11):
        return arrays[0].astype({1: np.float32, 7: np.int64, 11: np.float64}[attributes["to"]])
    if op == "Concat":
        return np.concatenate(arrays, axis=attributes["axis"])
    raise refuse(where, "an operator on constants that is not known.")
