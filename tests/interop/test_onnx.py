"""ONNX both ways, beside ONNX Runtime."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from networks import NETWORKS, assert_agrees, network, rows, same_bits
from sklearn.datasets import make_multilabel_classification

from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor, Network, TabularClassifier
from fastmlp.interop import ConversionError, from_onnx, to_onnx

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = rows(), np.array(list("abc"))[np.arange(40) % 3]
SMALL = {"hidden_layer_sizes": (6,), "max_iter": 3, "random_state": 0}


def run(model, X):
    """ONNX Runtime's outputs, by name."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: X}), strict=True))


@pytest.mark.parametrize("options", NETWORKS)
def test_round_trip(options):
    net = network(**options)
    model = to_onnx(net)
    onnx.checker.check_model(model, full_check=True)
    X = rows(net.dtype)
    assert_agrees(run(model, X)["output"], net, X)
    assert same_bits(from_onnx(model).network, net)


@pytest.mark.crossed
@pytest.mark.parametrize("opset", [13, 15, 17, 18, 19, 21, 22])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_opsets(opset, dtype):
    net = network(["gelu", "mish", "elu"], (6, 6, 6), "log_logistic", dtype, batch_norm=True, residual=True)
    model = to_onnx(net, opset=opset)
    onnx.checker.check_model(model)
    assert_agrees(run(model, rows(dtype))["output"], net, rows(dtype))
    assert same_bits(from_onnx(model).network, net)


@pytest.mark.parametrize("name", ["gelu", "elu", "selu", "softplus", "mish", "leaky_relu", "silu", "log_logistic"])
def test_written_functions_are_exact(name):
    """In float64, on a wide range."""
    net = Network((1, 1), out_activation=name, dtype="float64", parameters=[1.0, 0.0])
    x = np.concatenate([np.linspace(-45, 45, 3001), np.geomspace(1e-12, 1, 50), -np.geomspace(1e-12, 1, 50)])[:, None]
    np.testing.assert_allclose(run(to_onnx(net), x)["output"], net.forward(x), rtol=3e-15, atol=3e-16)


def agrees(ours, theirs, dtype="float32"):
    np.testing.assert_allclose(
        theirs.reshape(ours.shape), ours, rtol=0, atol=(2e-6 if dtype == "float32" else 1e-14) * np.abs(ours).max()
    )


@pytest.mark.crossed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", ["ab", "abc", [3, 1, 2], [True, False], [1.0, 2.0, 3.0], np.array([7, 9], np.uint8)])
def test_classifiers(labels, dtype, tmp_path):
    """Labels of any kind, and probabilities."""
    labels = np.array(list(labels))
    y = labels[np.arange(40) % len(labels)]
    classifier = MLPClassifier(**SMALL, activation="gelu", dtype=dtype).fit(X, y)
    to_onnx(classifier, tmp_path / "model.onnx")
    out = run((tmp_path / "model.onnx").read_bytes(), X.astype(dtype))
    assert list(out) == ["label", "probabilities"]
    assert np.array_equal(out["label"], classifier.predict(X))
    agrees(classifier.predict_proba(X), out["probabilities"], dtype)
    back = from_onnx(tmp_path / "model.onnx").classifier(classifier.classes_)
    assert np.array_equal(back.predict_proba(X), classifier.predict_proba(X))


@pytest.mark.parametrize("labels", ["ab", "abc", [3, 1, 2]])
def test_zipmap(labels):
    labels = np.array(list(labels))
    classifier = MLPClassifier(**SMALL).fit(X, labels[np.arange(40) % len(labels)])
    model = to_onnx(classifier, zipmap=True)
    out = run(model, X)["probabilities"]
    table = np.array([[row[label] for label in classifier.classes_.tolist()] for row in out])
    agrees(classifier.predict_proba(X), table)
    assert np.array_equal(
        from_onnx(model).classifier(classifier.classes_).predict_proba(X), classifier.predict_proba(X)
    )
    with pytest.raises(ConversionError, match="zipmap"):
        to_onnx(MLPClassifier(**SMALL, dtype="float64").fit(X, Y), zipmap=True)


@pytest.mark.filterwarnings("ignore:y contains only one class")
def test_one_class_and_multilabel():
    one = MLPClassifier(**SMALL).fit(X, np.full(40, "a"))
    out = run(to_onnx(one), X)
    assert np.array_equal(out["label"], one.predict(X))
    assert np.array_equal(out["probabilities"], one.predict_proba(X))
    A, B = make_multilabel_classification(40, 5, n_classes=4, random_state=0)
    several = MLPClassifier(**SMALL).fit(A.astype("float32"), B)
    out = run(to_onnx(several), A.astype("float32"))
    assert np.array_equal(out["label"], several.predict(A.astype("float32")))
    agrees(several.predict_proba(A.astype("float32")), out["probabilities"])


def test_regressors_and_ensembles():
    y = np.stack([X[:, 0], X[:, 1] ** 2], axis=1)
    for regressor in (
        MLPRegressor(**SMALL, residual=True).fit(X, y),
        MLPRegressor("poisson", **SMALL).fit(X, y[:, 1]),
        MLPEnsembleRegressor(MLPRegressor(**SMALL), n_estimators=3).fit(X, y),
    ):
        agrees(regressor.predict(X), run(to_onnx(regressor), X)["variable"])
    for labels in (Y, Y == "a"):
        ensemble = MLPEnsembleClassifier(MLPClassifier(**SMALL), n_estimators=3).fit(X, labels)
        out = run(to_onnx(ensemble), X)
        agrees(ensemble.predict_proba(X), out["probabilities"])
        assert np.array_equal(out["label"], ensemble.predict(X))
        with pytest.raises(ConversionError, match=r"two branches|both classes"):
            from_onnx(to_onnx(ensemble))


def test_refused_exports():
    with pytest.raises(ConversionError, match="coded columns"):
        to_onnx(TabularClassifier(max_iter=1).fit(X, Y))
    with pytest.raises(ValueError, match="opset must be"):
        to_onnx(network(), opset=9)
    with pytest.raises(ConversionError, match="int64"):
        to_onnx(MLPClassifier.from_network(network(out="logistic", n_out=1), np.array([1, 2**64 - 1], np.uint64)))


# --- graphs of others -------------------------------------------------------------------------------------------------


def graph(nodes, constants=None, shape=(None, 5), outputs=("y",), opset=17, kind=1):
    constants = {
        name: np.asarray(array, np.float32 if np.asarray(array).dtype.kind == "f" else None)
        for name, array in (constants or {}).items()
    }
    made = [
        helper.make_node(op, ins.split(), outs.split(), domain="ai.onnx.ml" if op in ("Scaler",) else "", **attributes)
        for op, ins, outs, attributes in nodes
    ]
    graph = helper.make_graph(
        made, "graph", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8
    )


RNG = np.random.RandomState(3)
C = {"W": RNG.normal(size=(5, 6)), "V": RNG.normal(size=(6, 2)), "b": RNG.normal(size=6), "S": RNG.normal(size=(5, 5)),
    "half": np.array(0.5),
     "one": np.array(1.0), "root": np.array(0.5**0.5), "two": np.array(2.0), "c": RNG.normal(size=5),
     "m": RNG.uniform(0.5, 2, 6), "six": np.array(6.0),
     "zero": np.array(0.0), "t": RNG.normal(size=(6, 5)), "shape": np.array([-1, 5]), "k": np.array(1.702)}  # fmt: skip
M = ("MatMul", "x W", "h", {})
L = ("MatMul", "a V", "y", {})

ACCEPTED = {
    "gemm": [("Gemm", "x t b", "h", {"transB": 1, "alpha": 0.5, "beta": 2.0}), ("Relu", "h", "a", {}), L],
    "bias": [M, ("Add", "b h", "g", {}), ("Tanh", "g", "a", {}), L],
    "scales": [("Sub", "x c", "u", {}), ("Div", "u two", "v", {}), ("MatMul", "v W", "h", {}), ("Mul", "m h", "g", {}),
        ("Sub", "one g", "q", {}), ("Elu", "q", "a", {}), L],
    "silu": [M, ("Sigmoid", "h", "s", {}), ("Mul", "h s", "a", {}), L],
    "quick gelu": [M, ("Mul", "h k", "u", {}), ("Sigmoid", "u", "s", {}), ("Mul", "h s", "a", {}), L],
    "gelu": [M, ("Div", "h sqrt2", "u", {}), ("Erf", "u", "e", {}), ("Add", "e one", "f", {}), ("Mul", "h f", "p", {}),
        ("Mul", "p half", "a", {}), L],
    "gelu the other way": [M, ("Mul", "h root", "u", {}), ("Erf", "u", "e", {}), ("Add", "one e", "f", {}),
        ("Mul", "half h", "p", {}), ("Mul", "f p", "a", {}), L],
    "mish": [M, ("Softplus", "h", "s", {}), ("Tanh", "s", "u", {}), ("Mul", "h u", "a", {}), L],
    "residual": [("MatMul", "x S", "h", {}), ("Relu", "h", "g", {}), ("Add", "g x", "z", {}),
        ("MatMul", "z W", "y", {})],
    "norm": [M, ("BatchNormalization", "h m b b m", "g", {"epsilon": 1e-3}), ("Selu", "g", "a", {}), L],
    "norm behind": [M, ("Relu", "h", "g", {}), ("BatchNormalization", "g m b b m", "a", {}), L],
    "clip to relu": [M, ("Clip", "h zero", "a", {}), L],
    "max": [M, ("Max", "h zero", "a", {}), L],
    "flatten": [("Flatten", "x", "u", {}), ("MatMul", "u W", "y", {})],
    "reshape": [("Reshape", "x shape", "u", {}), ("MatMul", "u W", "y", {})],
    "flatten by shape": [("Shape", "x", "s", {}), ("Gather", "s i", "n", {}), ("Unsqueeze", "n ax", "n1", {}),
        ("Concat", "n1 minus", "to", {"axis": 0}), ("Reshape", "x to", "u", {}), ("MatMul", "u W", "y", {})],
    "constants": [("Transpose", "t", "T", {"perm": [1, 0]}), ("Mul", "T half", "U", {}), ("MatMul", "x U", "y", {})],
    "dropout": [M, ("Dropout", "h", "a", {}), L],
    "scaler": [("Scaler", "x", "u", {"offset": [1.0] * 5, "scale": [0.5] * 5}), ("MatMul", "u W", "y", {})],
    "log sigmoid": [M, ("Neg", "h", "n", {}), ("Softplus", "n", "s", {}), ("Neg", "s", "y", {})],
    "log softmax": [M, ("LogSoftmax", "h", "y", {})],
    "two classes": [("MatMul", "x c1", "h", {}), ("Sigmoid", "h", "p", {}), ("Sub", "one p", "q", {}),
        ("Concat", "q p", "y", {"axis": 1})],
}  # fmt: skip
C |= {
    "sqrt2": np.array(2**0.5),
    "i": np.array(0),
    "ax": np.array([0]),
    "minus": np.array([-1]),
    "c1": RNG.normal(size=(5, 1)),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_graphs(name):
    model = graph(ACCEPTED[name], C)
    net = from_onnx(model).network
    expected = run(model, X)["y"]
    np.testing.assert_allclose(
        net.forward(X), expected[:, -net.layer_sizes[-1] :], rtol=0, atol=3e-6 * np.abs(expected).max()
    )


REWRITTEN = {
    "leaky": [M, ("LeakyRelu", "h", "a", {"alpha": 0.3}), L],
    "prelu": [M, ("PRelu", "h m", "a", {}), L],
    "clip": [M, ("Clip", "h zero six", "a", {}), L],
    "hard sigmoid": [M, ("HardSigmoid", "h", "a", {}), L],
    "scale at the end": [M, ("Tanh", "h", "a", {}), ("Mul", "a two", "y", {})],
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_rewritten_graphs(name):
    model = graph(REWRITTEN[name], C)
    with pytest.raises(ConversionError, match="rewrite=True"):
        from_onnx(model)
    agrees(run(model, X)["y"], from_onnx(model, rewrite=True).network.forward(X))


REFUSED = {
    "convolution": ([("Conv", "x W", "y", {})], "Conv"),
    "two products": ([M, ("MatMul", "x W", "g", {}), ("Mul", "h g", "a", {}), L], "product"),
    "branches": ([M, ("Relu", "h", "g", {}), ("Tanh", "h", "f", {}), ("Add", "g f", "a", {}), L], "two branches"),
    "softmax of rows": ([M, ("Softmax", "h", "y", {"axis": 0})], "axis 0"),
    "hidden softmax": ([M, ("Softmax", "h", "a", {}), L], "as the last one only"),
    "gelu": ([M, ("Tanh", "h", "g", {}), ("Mul", "h g", "a", {}), L], "product"),
    "mean": ([("ReduceMean", "x", "m1", {"axes": [0]}), ("Sub", "x m1", "u", {}), ("MatMul", "u W", "y", {})],
        "ReduceMean"),
    "training": ([M, ("BatchNormalization", "h m b b m", "a r s", {"training_mode": 1}), L], "averages of a batch"),
    "transposed": ([("Gemm", "x W", "y", {"transA": 1})], "product"),
    "reshaped": ([M, ("Reshape", "h wrong", "a", {}), L], "reshape"),
    "erf": ([M, ("Erf", "h", "a", {}), L], "no erf"),
    "selu": ([M, ("Selu", "h", "a", {"alpha": 2.0}), L], "selu has"),
    "elu": ([M, ("Elu", "h", "a", {"alpha": 0.5}), L], "elu has 1"),
    "side by side": ([M, ("Concat", "h h", "y", {"axis": 1})], "side by side"),
    "both logits": ([("MatMul", "x c1", "h", {}), ("Neg", "h", "q", {}), ("Concat", "q h", "y", {"axis": 1})],
        "negative"),
    "pair goes on": ([("MatMul", "x c1", "h", {}), ("Sigmoid", "h", "p", {}), ("Sub", "one p", "q", {}),
        ("Concat", "q p", "g", {"axis": 1}), ("Mul", "g two", "y", {})], "both classes"),
    "bias of a column": ([("Gemm", "x W column", "h", {}), ("Relu", "h", "a", {}), L], "bias of shape"),
    "three dimensions": ([M, ("Add", "h cube", "g", {}), ("Softmax", "g", "y", {"axis": 1})], "adds dimensions"),
    "number of three": ([M, ("Mul", "h cube1", "g", {}), ("Softmax", "g", "y", {"axis": 1})], "adds dimensions"),
    "largest with a cube": ([M, ("Max", "h cube1", "g", {}), ("Softmax", "g", "y", {"axis": 1})], "a Max"),
    "bounds": ([M, ("Clip", "h one zero", "a", {}), L], "output is a constant"),
    "gate of 0": ([M, ("Mul", "h zero", "u", {}), ("Sigmoid", "u", "s", {}), ("Mul", "h s", "a", {}), L], "product"),
    "swish of 0": ([M, ("Swish", "h", "a", {"alpha": 0.0}), L], "alpha 0"),
}  # fmt: skip
C |= {"column": np.ones((6, 1)), "cube": np.ones((1, 1, 6)), "cube1": np.full((1, 1, 1), 2.0)}
C["wrong"] = np.array([-1, 3])


@pytest.mark.parametrize("name", REFUSED)
def test_refused_graphs(name):
    nodes, words = REFUSED[name]
    with pytest.raises(ConversionError, match=words):
        from_onnx(graph(nodes, C), rewrite=True)


def test_other_models(tmp_path):
    with pytest.raises(ConversionError, match="outputs of floating-point"):
        from_onnx(graph([M, ("Relu", "h", "y", {})], C, outputs=("h", "y")))
    with pytest.raises(ConversionError, match="3 dimensions"):
        from_onnx(graph([("MatMul", "x W", "y", {})], C, shape=(None, 4, 5)))
    with pytest.raises(ConversionError, match="not a tensor of floating-point"):
        from_onnx(graph([("MatMul", "x W", "y", {})], C, kind=7))
    for content in (b"", b"nothing"):
        with pytest.raises(ConversionError):
            from_onnx(content)
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "none.onnx")
    with pytest.raises(TypeError, match="path"):
        from_onnx(3)


def test_functions_of_another_body_are_not_taken_for_ours():
    model = to_onnx(network("elu", (6,), dtype="float64"))
    for node in model.functions[0].node:
        if node.op_type == "Exp":
            node.op_type = "Neg"
    with pytest.raises(ConversionError):
        from_onnx(model)


def test_mutated_models():
    rng = np.random.RandomState(0)
    content = to_onnx(network("gelu", (6,), dtype="float64", batch_norm=True)).SerializeToString()
    for _ in range(60):
        changed = bytearray(content)
        for place in rng.randint(0, len(changed), rng.randint(1, 4)):
            changed[place] = rng.randint(256)
        with contextlib.suppress(ConversionError):
            from_onnx(bytes(changed))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("dynamo", [False, True])
def test_exports_of_pytorch(dynamo, tmp_path):
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    from fastmlp.interop import to_torch

    for options in (
        {"activation": "gelu", "batch_norm": True},
        {"activation": "silu", "residual": True},
        {"activation": "mish", "out": "softmax"},
    ):
        module = to_torch(network(**options))
        torch.onnx.export(module, (torch.from_numpy(X),), tmp_path / "x.onnx", dynamo=dynamo)
        with torch.no_grad():
            agrees(module(torch.from_numpy(X)).numpy(), from_onnx(tmp_path / "x.onnx").network.forward(X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_exports_of_skl2onnx():
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPClassifier as Theirs

    for y in (Y, Y == "a"):
        theirs = Theirs((6,), max_iter=5, random_state=0).fit(X, y)
        for zipmap in (False, True):
            model = skl2onnx.to_onnx(theirs, X[:1], options={"zipmap": zipmap})
            back = from_onnx(model).classifier(theirs.classes_)
            agrees(theirs.predict_proba(X), back.predict_proba(X))
