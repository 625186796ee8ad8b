"""skl2onnx converts pipelines and other estimators around fastmlp's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from networks import rows
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor
from fastmlp.interop import sklearn_onnx

skl2onnx = pytest.importorskip("skl2onnx")
ort = pytest.importorskip("onnxruntime")
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::FutureWarning",
)
sklearn_onnx.register()
X = rows(n=60)
Y = np.array(list("abc"))[np.arange(60) % 3]
SMALL = {"hidden_layer_sizes": (6,), "max_iter": 5, "random_state": 0}


def run(model, given):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(None, given if isinstance(given, dict) else {"X": given}), strict=True))


def agree(ours, theirs, dtype="float32"):
    np.testing.assert_allclose(
        np.asarray(theirs).reshape(ours.shape),
        ours,
        rtol=0,
        atol=(2e-5 if dtype == "float32" else 1e-12) * np.abs(ours).max(),
    )


@pytest.mark.crossed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "elu", "gelu", "selu", "softplus", "mish", "silu", "leaky_relu"])
@pytest.mark.parametrize("labels", ["ab", "abc", [0, 1, 2]])
def test_pipelines(activation, labels, dtype):
    y = np.array(list(labels))[np.arange(60) % len(labels)]
    pipeline = make_pipeline(
        StandardScaler(), MLPClassifier(**SMALL, activation=activation, batch_norm=True, residual=True)
    ).fit(X.astype(dtype), y)
    kind = FloatTensorType if dtype == "float32" else DoubleTensorType
    model = skl2onnx.to_onnx(pipeline, initial_types=[("X", kind([None, 5]))], options={"zipmap": False})
    out = run(model, X.astype(dtype))
    assert np.array_equal(out["label"], pipeline.predict(X.astype(dtype)))
    agree(pipeline.predict_proba(X.astype(dtype)), out["probabilities"], dtype)


def test_zipmap():
    classifier = MLPClassifier(**SMALL).fit(X, Y)
    out = run(skl2onnx.to_onnx(classifier, X[:1]), X)["output_probability"]
    agree(classifier.predict_proba(X), [[row[label] for label in "abc"] for row in out])
    columns = run(skl2onnx.to_onnx(classifier, X[:1], options={"zipmap": "columns"}), X)
    assert len(columns) == 4


def test_column_transformer():
    frame = pd.DataFrame(X, columns=list("vwxyz")).assign(word=Y)
    prepare = ColumnTransformer([("numbers", StandardScaler(), list("vwxyz")), ("words", OneHotEncoder(), ["word"])])
    pipeline = make_pipeline(prepare, MLPClassifier(**SMALL)).fit(frame, Y)
    types = [(name, FloatTensorType([None, 1])) for name in "vwxyz"] + [("word", StringTensorType([None, 1]))]
    model = skl2onnx.to_onnx(pipeline, initial_types=types, options={"zipmap": False})
    out = run(model, {name: frame[[name]].to_numpy() for name in frame})
    agree(pipeline.predict_proba(frame), out["probabilities"])
    assert np.array_equal(out["label"], pipeline.predict(frame))


@pytest.mark.parametrize("labels", ["ab", "abc"])
def test_calibration(labels):
    """By sigmoids: for isotonic calibration, skl2onnx takes the nearest step, whatever the estimator."""
    y = np.array(list(labels))[np.arange(60) % len(labels)]
    calibrated = CalibratedClassifierCV(MLPClassifier(**SMALL), cv=2).fit(X, y)
    out = run(skl2onnx.to_onnx(calibrated, X[:1], options={"zipmap": False}), X)
    agree(calibrated.predict_proba(X), out["probabilities"])
    assert np.array_equal(out["label"], calibrated.predict(X))


def test_others():
    voting = VotingClassifier(
        [("a", MLPClassifier(**SMALL)), ("b", MLPEnsembleClassifier(MLPClassifier(**SMALL), n_estimators=2))],
        voting="soft",
        flatten_transform=False,
    ).fit(X, Y)
    out = run(skl2onnx.to_onnx(voting, X[:1], options={"zipmap": False}), X)
    agree(voting.predict_proba(X), out["probabilities"])
    y = np.stack([X[:, 0], X[:, 1] ** 2], axis=1)
    for regressor in (
        MLPRegressor(**SMALL).fit(X, y),
        MLPRegressor("poisson", **SMALL).fit(X, y[:, 1]),
        MLPEnsembleRegressor(MLPRegressor(**SMALL), n_estimators=2).fit(X, y),
    ):
        agree(regressor.predict(X), run(skl2onnx.to_onnx(make_pipeline(regressor), X[:1]), X)["variable"])
    several = MLPClassifier(**SMALL).fit(X, (X[:, :3] > 0).astype(int))
    out = run(skl2onnx.to_onnx(several, X[:1], options={"zipmap": False}), X)
    assert np.array_equal(out["label"], several.predict(X))


def test_labels_that_skl2onnx_lacks():
    with pytest.raises(ValueError, match="labels of float"):
        skl2onnx.to_onnx(MLPClassifier(**SMALL).fit(X, (np.arange(60) % 3).astype(float)), X[:1])
