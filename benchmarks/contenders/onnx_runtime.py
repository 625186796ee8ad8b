"""ONNX Runtime: prediction only. One Gemm per layer, fused with what follows by the runtime's own optimiser."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import Predict, initial, missing, n_threads
from benchmarks.workloads import Workload

NAME = "ONNX Runtime"
PACKAGES = ("onnxruntime", "onnx")
EPOCHS = 1


def available() -> str | None:
    return missing(PACKAGES)


def train(workload: Workload) -> None:
    return None


def model_of(workload: Workload) -> Any:
    """The network as an ONNX model: x (n, features) -> probabilities (n, classes)."""
    from onnx import TensorProto, helper, numpy_helper

    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[workload.dtype]
    activation = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid"}[workload.activation]
    nodes, weights, value = [], [], "x"
    for i, (W, b) in enumerate(initial(workload)):
        weights += [numpy_helper.from_array(W, f"W{i}"), numpy_helper.from_array(b, f"b{i}")]
        last = i == len(workload.layers) - 1
        nodes.append(helper.make_node("Gemm", [value, f"W{i}", f"b{i}"], [f"z{i}"]))
        value = "p" if last else f"a{i}"
        nodes.append(helper.make_node("Softmax" if last else activation, [f"z{i}"], [value]))
    inputs = [helper.make_tensor_value_info("x", kind, ["n", workload.n_features])]
    outputs = [helper.make_tensor_value_info("p", kind, ["n", workload.n_classes])]
    graph = helper.make_graph(nodes, workload.name, inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def predict(workload: Workload, rows: int) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads()
    session = onnxruntime.InferenceSession(model_of(workload).SerializeToString(), options, ["CPUExecutionProvider"])
    X = workload.data().X[:rows]
    return lambda: session.run(None, {"x": X})[0]
