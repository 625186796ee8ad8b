"""skl2onnx: converters of fastmlp's estimators, so that pipelines and other estimators around them become ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastmlp.estimators.classifier import MLPClassifier
from fastmlp.estimators.ensemble import MLPEnsembleClassifier, MLPEnsembleRegressor
from fastmlp.estimators.regressor import MLPRegressor
from fastmlp.interop.errors import ConversionError
from fastmlp.interop.layers import missing
from fastmlp.interop.models import exported
from fastmlp.interop.onnx_graphs import FUNCTIONS, label_array, write_label, write_scores

_CLASSIFIERS = (MLPClassifier, MLPEnsembleClassifier)
_REGRESSORS = (MLPRegressor, MLPEnsembleRegressor)
# What skl2onnx's own classifiers have.
_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "output_class_labels": [False, True],
    "nocl": [True, False],
}


def register() -> None:
    """Let skl2onnx convert fastmlp's classifiers, regressors and ensembles, alone and inside of other estimators.

    Inside of Pipeline, ColumnTransformer, CalibratedClassifierCV, VotingClassifier and others; with the options
    'zipmap' and 'nocl'. With ``FloatTensorType`` the arithmetic is in float32, with ``DoubleTensorType`` in float64,
    whatever the network's type. Calling it again changes nothing.

    Raises
    ------
    ImportError
        Without skl2onnx.

    Examples
    --------
    >>> import skl2onnx
    >>> from fastmlp import MLPClassifier
    >>> from fastmlp.interop import sklearn_onnx
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> sklearn_onnx.register()
    >>> X, y = load_iris(return_X_y=True)
    >>> pipeline = make_pipeline(StandardScaler(), MLPClassifier(solver="lbfgs", random_state=0)).fit(X, y)
    >>> model = skl2onnx.to_onnx(pipeline, X[:1].astype("float32"))
    >>> [output.name for output in model.graph.output]
    ['output_label', 'output_probability']
    """
    try:
        from skl2onnx import update_registered_converter
    except ImportError as error:
        raise missing("skl2onnx", "interop", "Its converters") from error
    for cls in _CLASSIFIERS:
        update_registered_converter(cls, f"Fastmlp{cls.__name__}", _classifier_shape, _convert, options=_OPTIONS)
    for regressor in _REGRESSORS:
        update_registered_converter(regressor, f"Fastmlp{regressor.__name__}", _regressor_shape, _convert)


def _tensor_type(operator: Any) -> Any:
    """The type of floating-point tensors that the input asks for."""
    from skl2onnx.common.data_types import guess_numpy_type, guess_tensor_type

    kind = guess_tensor_type(operator.inputs[0].type)
    if guess_numpy_type(operator.inputs[0].type) not in (np.float32, np.float64, np.int64, np.bool_, np.int32):
        raise ConversionError(
            f"The input is of type {operator.inputs[0].type}; FloatTensorType and DoubleTensorType can be converted."
        )
    return kind


def _classifier_shape(operator: Any) -> None:
    from skl2onnx.common.data_types import BooleanTensorType, Int64TensorType, StringTensorType

    described = exported(operator.raw_operator)
    kind = _tensor_type(operator)
    n_rows = operator.inputs[0].get_first_dimension()
    assert described.classes is not None
    n_columns = len(described.classes)
    if described.kind == "multilabel":
        operator.outputs[0].type = Int64TensorType([n_rows, n_columns])
    else:
        labels = label_array(described)
        types = {"O": StringTensorType, "i": Int64TensorType, "b": BooleanTensorType}
        if labels.dtype.kind not in types:
            raise ConversionError(
                f"{described.name}: labels of {labels.dtype}; skl2onnx has integers, truth values and strings."
            )
        operator.outputs[0].type = types[labels.dtype.kind]([n_rows])
    operator.outputs[1].type = type(kind)([n_rows, n_columns])


def _regressor_shape(operator: Any) -> None:
    kind = _tensor_type(operator)
    n_outputs = exported(operator.raw_operator).networks[0].layer_sizes[-1]
    operator.outputs[0].type = type(kind)([operator.inputs[0].get_first_dimension(), n_outputs])


class _Container:
    """A writer of nodes into skl2onnx's container, with functions written out."""

    def __init__(self, scope: Any, container: Any, dtype: np.dtype) -> None:
        self.scope, self.container, self.dtype, self.opset = scope, container, dtype, container.target_opset

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name: str = self.scope.get_unique_variable_name(op)
        label = self.scope.get_unique_operator_name(op)
        self.container.add_node(op, list(inputs), [name], name=label, op_version=_version(op, self.opset), **attributes)
        return name

    def constant(self, array: Any) -> str:
        from onnx.helper import np_dtype_to_tensor_dtype
        from onnx.onnx_pb import TensorProto

        array = np.asarray(array)
        name: str = self.scope.get_unique_variable_name("constant")
        if array.dtype.kind == "O":
            kind, values = TensorProto.STRING, [label.encode() for label in array.ravel()]
        else:
            kind, values = np_dtype_to_tensor_dtype(array.dtype), array.ravel().tolist()
        self.container.add_initializer(name, kind, list(array.shape), values)
        return name

    def function(self, name: str, *inputs: str) -> str:
        return FUNCTIONS[name][1](self, *inputs)


def _version(op: str, opset: int) -> int:
    """The version of an operator that an opset has."""
    from onnx.defs import get_schema

    return int(get_schema(op, opset, "").since_version)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Append the nodes of an estimator."""
    from skl2onnx.common.data_types import DoubleTensorType

    described = exported(operator.raw_operator)
    kind = _tensor_type(operator)
    dtype = np.dtype("float64" if isinstance(kind, DoubleTensorType) else "float32")
    described.networks = [network if network.dtype == dtype else network.copy(dtype) for network in described.networks]
    graph = _Container(scope, container, dtype)
    source = operator.inputs[0].full_name
    x = graph.node("Cast", source, to=11 if dtype == np.float64 else 1)
    scores = write_scores(graph, x, described)
    results = [scores] if described.classes is None else [write_label(graph, x, scores, described), scores]
    for result, output in zip(results, operator.outputs, strict=True):
        name = scope.get_unique_operator_name("Identity")
        container.add_node("Identity", [result], [output.full_name], name=name, op_version=1)
