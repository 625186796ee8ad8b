"""Scalers folded into the first layer, and single rows in a service: the pipeline's and the estimator's own
predictions."""

from __future__ import annotations

import copy
import pickle
import warnings
from decimal import Decimal
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import classification, multilabel, name_of, regression, tolerance
from scipy.sparse import csr_matrix
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PowerTransformer, RobustScaler, StandardScaler

import fastmlp
from fastmlp import (
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    RowPredictor,
    TabularClassifier,
    TabularRegressor,
    fold_scaler,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (9, 9), "max_iter": 3, "random_state": 0}
SCALERS = {
    "standard": StandardScaler, "no mean": partial(StandardScaler, with_mean=False),
    "no std": partial(StandardScaler, with_std=False),
    "neither": partial(StandardScaler, with_mean=False, with_std=False), "min max": partial(MinMaxScaler, (-2, 3)),
    "robust": RobustScaler,
    "not centred": partial(RobustScaler, with_centering=False), "not scaled": partial(RobustScaler, with_scaling=False),
    "max abs": MaxAbsScaler,
}  # fmt: skip


def unscaled(X):
    """Columns of other scales and offsets, and one that is constant."""
    X = X * np.logspace(-3, 4, X.shape[1]) + np.linspace(-5, 9, X.shape[1])
    X[:, 3] = 7.0
    return X


X, Y = classification(3)
X = unscaled(X)
TARGET = regression()[1]
NAMES = [f"x{i}" for i in range(X.shape[1])]
FRAME = pd.DataFrame(X, columns=NAMES)


def output(model, rows):
    return model.predict_proba(rows) if hasattr(model, "predict_proba") else model.predict(rows)


def assert_same(folded, pipeline, rows=X):
    want, got = output(pipeline, rows), output(folded, rows)
    dtype = got.dtype if got.dtype == np.float32 else np.float64
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance(dtype, 1000, max(1.0, np.abs(want).max())))


# --- fold_scaler ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("scaler", SCALERS)
def test_folded_scalers_change_no_prediction(scaler, batch_norm, dtype):
    """To rounding; the new estimator takes the pipeline's names, and the pipeline stays as it was."""
    rows = unscaled(classification(3)[0]) / 1e3 if dtype == "float32" else X
    frame = pd.DataFrame(rows, columns=NAMES)
    pipeline = make_pipeline(SCALERS[scaler](), MLPClassifier(**SMALL, batch_norm=batch_norm, dtype=dtype)).fit(
        frame, Y
    )
    before = pipeline[-1].network_.parameters.copy()
    folded = fold_scaler(pipeline)
    assert_same(folded, pipeline, frame)
    assert folded.feature_names_in_.tolist() == NAMES
    assert np.array_equal(pipeline[-1].network_.parameters, before)
    with pytest.raises(ValueError, match="feature names"):
        folded.predict(frame[NAMES[::-1]])


@pytest.mark.parametrize(
    "last",
    [
        MLPRegressor(**SMALL), MLPRegressor(**{**SMALL, "hidden_layer_sizes": ()}, batch_norm=True),
        MLPRegressor(**SMALL, residual=True),
        MLPEnsembleRegressor(MLPRegressor(**SMALL), 2, random_state=0), MLPRegressor("poisson", **SMALL),
    ],
    ids=lambda last: type(last).__name__,
)  # fmt: skip
def test_other_last_steps_are_folded(last):
    pipeline = make_pipeline(StandardScaler(), last).fit(FRAME, np.abs(TARGET))
    folded = fold_scaler(pipeline)
    assert type(folded) is type(last)
    assert_same(folded, pipeline, FRAME)


def scale_target(regressor, transformer):
    return TransformedTargetRegressor(regressor, transformer=transformer)


@pytest.mark.parametrize(
    "transformer", [StandardScaler(), RobustScaler(), MinMaxScaler((-1, 1)), StandardScaler(with_std=False)], ids=str
)
@pytest.mark.parametrize(
    "y", [1e5 + 1e4 * TARGET, np.column_stack([1e5 + 1e4 * TARGET, 1e-3 * TARGET])], ids=["1", "2"]
)
def test_scalers_of_the_target_are_folded(transformer, y, tmp_path):
    """Within a pipeline, around one, or alone: the regressor is left, which predicts single rows and is a file."""
    network, ensemble = MLPRegressor(**SMALL), MLPEnsembleRegressor(MLPRegressor(**SMALL), 2, random_state=0)
    for regressor in (network, ensemble):
        for model in (
            make_pipeline(StandardScaler(), scale_target(regressor, transformer)),
            scale_target(make_pipeline(MinMaxScaler(), StandardScaler(), regressor), transformer),
            scale_target(regressor, transformer),
        ):
            model.fit(FRAME, y)
            before = model.predict(FRAME)
            folded = fold_scaler(model)
            assert type(folded) is type(regressor)
            assert folded.feature_names_in_.tolist() == NAMES
            assert_same(folded, model, FRAME)
            assert np.array_equal(model.predict(FRAME), before)
    row = RowPredictor(folded).predict(FRAME[:1])
    np.testing.assert_allclose(row, before[0], rtol=1e-10)
    folded.save(tmp_path / "model.safetensors")
    assert np.array_equal(fastmlp.load(tmp_path / "model.safetensors").predict(FRAME), folded.predict(FRAME))


@pytest.mark.parametrize(("regressor", "transformer", "y"), [
    (MLPRegressor(**SMALL), PowerTransformer(), TARGET), (MLPRegressor(**SMALL), MinMaxScaler(clip=True), TARGET),
    (MLPRegressor("poisson", **SMALL), MaxAbsScaler(), np.abs(TARGET)),
    (MLPRegressor(**SMALL), StandardScaler(), TARGET[:, None]),
])  # fmt: skip
def test_transformers_of_the_target_that_are_not_linear_stay(regressor, transformer, y):
    model = scale_target(make_pipeline(StandardScaler(), regressor), transformer).fit(FRAME, y)
    folded = fold_scaler(model)
    assert isinstance(folded.regressor_, MLPRegressor)
    assert folded.feature_names_in_.tolist() == NAMES
    assert_same(folded, model, FRAME)


def test_several_scalers_and_other_steps():
    """Scalers one after another become one; steps before them stay."""
    rows = X.copy()
    rows[::7, 2] = np.nan
    pipeline = make_pipeline(
        SimpleImputer(), RobustScaler(), "passthrough", MinMaxScaler(), MLPClassifier(**SMALL)
    ).fit(rows, Y)
    folded = fold_scaler(pipeline)
    assert [type(step) for _, step in folded.steps] == [SimpleImputer, MLPClassifier]
    assert_same(folded, pipeline, rows)


def test_sparse_rows_without_centres():
    rows = csr_matrix(np.where(np.abs(X) > np.median(np.abs(X)), X, 0))
    for scaler in (StandardScaler(with_mean=False), MaxAbsScaler(), RobustScaler(with_centering=False)):
        pipeline = make_pipeline(scaler, MLPClassifier(**SMALL)).fit(rows, Y)
        assert_same(fold_scaler(pipeline), pipeline, rows)


def test_a_folded_pipeline_is_a_file(tmp_path):
    """Which is how a pipeline is saved; and it trains on."""
    folded = fold_scaler(make_pipeline(StandardScaler(), MLPClassifier(**SMALL)).fit(FRAME, Y))
    folded.save(tmp_path / "model.safetensors")
    loaded = fastmlp.load(tmp_path / "model.safetensors")
    assert np.array_equal(loaded.predict_proba(FRAME), folded.predict_proba(FRAME))
    assert loaded.feature_names_in_.tolist() == NAMES
    folded.partial_fit(FRAME, Y)


@pytest.mark.parametrize(("steps", "match"), [
    ([MinMaxScaler(clip=True), MLPClassifier(**SMALL)], "clip=True"), ([PCA(), MLPClassifier(**SMALL)], "stands a PCA"),
    ([MLPClassifier(**SMALL)], "stands nothing"),
    ([StandardScaler(), MLPClassifier((13, 9), residual=True, max_iter=3)], "residual=True"),
])  # fmt: skip
def test_what_cannot_be_folded_exactly_is_refused(steps, match):
    with pytest.raises(ValueError, match=match):
        fold_scaler(make_pipeline(*steps).fit(X, Y))


def test_weights_that_overflow_are_refused():
    pipeline = make_pipeline(MaxAbsScaler(), MLPClassifier(**SMALL, dtype="float32")).fit(X * 1e-9, Y)
    pipeline[-1].coefs_[0][...] = 1e36
    with pytest.raises(ValueError, match="not finite in float32"):
        fold_scaler(pipeline)


def test_other_models_are_refused():
    with pytest.raises(TypeError, match="MLPClassifier"):
        fold_scaler(MLPClassifier(**SMALL).fit(X, Y))
    with pytest.raises(TypeError, match="LinearRegression"):
        fold_scaler(scale_target(LinearRegression(), StandardScaler()).fit(X, TARGET))
    with pytest.raises(TypeError, match="RobustScaler"):
        fold_scaler(make_pipeline(StandardScaler(), RobustScaler()).fit(X))
    with pytest.raises(NotFittedError):
        fold_scaler(make_pipeline(StandardScaler(), MLPClassifier()))


def test_columns_far_from_zero_are_warned_of():
    """float32 does not hold their differences; float64 does."""
    far = FRAME.assign(x4=1e7 + classification(3)[0][:, 4])
    for dtype in ("float64", "float32"):
        pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL, dtype=dtype)).fit(far, Y)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fold_scaler(pipeline)
        assert [("x4" in str(w.message), w.filename) for w in caught] == [(True, __file__)] * (dtype == "float32")


@pytest.mark.parametrize("several", [False, True])
def test_targets_far_from_zero_are_warned_of(several):
    """The output layer adds the target's offset in the network's element type."""
    target = np.c_[TARGET, 1e7 + TARGET] if several else 1e7 + TARGET
    for dtype in ("float64", "float32"):
        regressor = TransformedTargetRegressor(MLPRegressor(**SMALL, dtype=dtype), transformer=StandardScaler())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = regressor.fit(FRAME, target)
            caught.clear()
            fold_scaler(model)
        words = "Column 1 of the target" if several else "The target"
        assert [str(w.message).startswith(words) for w in caught] == [True] * (dtype == "float32")


# --- RowPredictor --------------------------------------------------------------------------------------------------

MODELS = {
    "multiclass": (MLPClassifier(**SMALL), np.array(["a", "b", "c"])[Y]), "binary": (MLPClassifier(**SMALL), Y > 0),
    "float32": (MLPClassifier(**SMALL, dtype="float32"), Y), "multilabel": (MLPClassifier(**SMALL), multilabel()[1]),
    "sparse multilabel": (MLPClassifier(**SMALL), csr_matrix(multilabel()[1])),
    "regressor": (MLPRegressor(**SMALL), TARGET),
    "outputs": (MLPRegressor(**SMALL), np.c_[TARGET, TARGET]),
    "ensemble": (MLPEnsembleClassifier(MLPClassifier(**SMALL), 2, random_state=0), Y),
}  # fmt: skip


def forms(names=NAMES):
    """The second row of FRAME in all forms."""
    values = FRAME.iloc[1].tolist()
    return {
        "dict": dict(zip(names, values, strict=True)),
        "other order": {"id": "x", **dict(zip(names[::-1], values[::-1], strict=True))}, "list": values,
        "tuple": tuple(values), "array": np.array(values), "one row": np.array([values]), "frame": FRAME[1:2],
        "frame in another order": FRAME[NAMES[::-1]][1:2],
        "objects": FRAME[1:2].astype(object),
        "numbers of several types": FRAME[1:2].assign(x3=np.array([7]), x4=FRAME["x4"][1:2].astype(object)),
        "series": FRAME.iloc[1], "polars": pl.from_pandas(FRAME[1:2]),
    }  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_one_row_is_predicted_as_by_the_model(name):
    """The same bits, in every form; labels and values of one output are Python's."""
    model, target = MODELS[name]
    model = copy.deepcopy(model).fit(FRAME, target)
    predictor = pickle.loads(pickle.dumps(RowPredictor(model)))
    expected = model.predict(FRAME[1:2])
    expected = (expected.toarray() if hasattr(expected, "toarray") else expected)[0]
    for row in forms().values():
        found = predictor.predict(row)
        assert np.array_equal(found, expected)
        assert isinstance(found, np.ndarray if np.ndim(expected) else (str, bool, int, float))
        if hasattr(model, "classes_"):
            assert np.array_equal(predictor.predict_proba(row), model.predict_proba(FRAME[1:2])[0])
            assert predictor.classes_ == model.classes_.tolist()


def test_a_predictor_keeps_its_weights():
    model = MLPRegressor(**SMALL).fit(FRAME, TARGET)
    predictor, row = RowPredictor(model), FRAME.iloc[0].to_dict()
    before = predictor.predict(row)
    model.partial_fit(FRAME, TARGET)
    model.coefs_[0][...] = 0
    assert predictor.predict(row) == before
    assert not hasattr(predictor._model, "_optimizer_state")
    with pytest.raises(AttributeError, match="predict_proba"):
        predictor.predict_proba(row)


def test_rows_without_names():
    """A dict cannot be ordered; a DataFrame's columns are taken as they stand."""
    predictor = RowPredictor(MLPRegressor(**SMALL).fit(X, TARGET))
    assert predictor.predict(FRAME[1:2]) == predictor.predict(X[1])
    with pytest.raises(ValueError, match="no feature names"):
        predictor.predict(forms()["dict"])


def test_truth_values_are_numbers():
    """Of Python and of NumPy, also where pandas makes objects of a row."""
    frame = FRAME.assign(x3=X[:, 1] > 0)
    model = MLPRegressor(**SMALL).fit(frame, TARGET)
    for row in (frame[:1], frame.iloc[0], frame.iloc[0].to_dict(), frame.iloc[0].tolist()):
        assert RowPredictor(model).predict(row) == model.predict(frame[:1])[0]


@pytest.mark.parametrize(("change", "error", "match"), [
    ({"x3": np.nan}, ValueError, "Feature 'x3' is nan"), ({"x3": 1e39}, ValueError, "finite in float32"),
    ({"x3": -np.inf}, ValueError, "-inf"),
    ({"x3": "1"}, TypeError, "numbers"), ({"x3": None}, ValueError, "'x3' is nan"),
    ({"x3": np.datetime64(0, "s")}, TypeError, "numbers"),
    ({"x3": 10**400}, ValueError, "'x3' is 1000.* finite"), ({"x3": 1j}, TypeError, "got 1j for feature 'x3'"),
    ({"x3": [3]}, TypeError, r"got \[3\] for feature 'x3'"),
])  # fmt: skip
def test_values_that_are_not_numbers_are_refused(change, error, match):
    predictor = RowPredictor(MLPRegressor(**SMALL, dtype="float32").fit(FRAME, TARGET))
    with pytest.raises(error, match=match):
        predictor.predict({**forms()["dict"], **change})


@pytest.mark.parametrize(
    ("row", "match"),
    [(X[0, :5], "13 values"), (FRAME[:2], "13 values"), ({"x0": 1.0}, "lacks features: 'x1'"),
        (FRAME[["x0"]][:1], "lacks features: 'x1'"), (1.0, "13 values")],
)  # fmt: skip
def test_rows_of_another_shape_are_refused(row, match):
    predictor = RowPredictor(MLPRegressor(**SMALL).fit(FRAME, TARGET))
    with pytest.raises(ValueError, match=match):
        predictor.predict(row)


def test_a_predictor_takes_fitted_estimators():
    with pytest.raises(NotFittedError):
        RowPredictor(MLPClassifier())
    with pytest.raises(TypeError, match="fold_scaler"):
        RowPredictor(make_pipeline(StandardScaler(), MLPClassifier(**SMALL)).fit(X, Y))


@pytest.mark.parametrize("row", ["abc", None, {1.0, 2.0}, 3.0, iter([1.0])], ids=name_of)
@pytest.mark.parametrize("frame", [X, FRAME], ids=["no names", "names"])
def test_what_is_no_row(row, frame):
    predictor = RowPredictor(MLPRegressor(**SMALL).fit(frame, TARGET))
    with pytest.raises(ValueError, match=f"13 values.*, got {type(row).__name__}, .*Pass .*a list or an array"):
        predictor.predict(row)


def test_a_value_that_is_no_number_is_named():
    row = {**forms()["dict"], "x3": "1"}
    with pytest.raises(TypeError, match="got '1' for feature 'x3': convert it first"):
        RowPredictor(MLPRegressor(**SMALL).fit(FRAME, TARGET)).predict(row)
    with pytest.raises(TypeError, match="got '1' for feature 3: convert it first"):
        RowPredictor(MLPRegressor(**SMALL).fit(X, TARGET)).predict(list(row.values()))


@pytest.mark.parametrize("make", [
    lambda regressor: scale_target(make_pipeline(SimpleImputer(), regressor), StandardScaler()),
    lambda regressor: make_pipeline(SimpleImputer(), scale_target(regressor, StandardScaler())),
    lambda regressor: scale_target(make_pipeline(SimpleImputer(), PCA(), regressor), RobustScaler()),
], ids=["around", "within", "several"])  # fmt: skip
def test_the_targets_scaler_alone_is_folded(make):
    """Where no scaler stands before the network."""
    model = make(MLPRegressor(**SMALL)).fit(X, 1e4 * TARGET)
    folded = fold_scaler(model)
    assert type(folded[-1]) is MLPRegressor
    assert type(folded[0]) is SimpleImputer
    assert_same(folded, model, X)
    alone = fold_scaler(make_pipeline(scale_target(MLPRegressor(**SMALL), StandardScaler())).fit(X, TARGET))
    assert type(alone) is MLPRegressor


def test_a_target_that_cannot_be_folded_and_no_scaler():
    model = scale_target(make_pipeline(SimpleImputer(), MLPRegressor(**SMALL)), PowerTransformer()).fit(X, TARGET)
    with pytest.raises(ValueError, match="before the last step stands a SimpleImputer"):
        fold_scaler(model)


# --- RowPredictor of tables ----------------------------------------------------------------------------------------

RNG = np.random.RandomState(0)
N_ROWS = 200
TABLE = pd.DataFrame(
    {
        "number": RNG.standard_normal(N_ROWS), "word": RNG.choice(["a", "b", "c"], N_ROWS),
        "gaps": np.where(RNG.uniform(size=N_ROWS) < 0.2, np.nan, RNG.uniform(size=N_ROWS)),
        "same": 1, "key": RNG.randint(5, size=N_ROWS), "truth": RNG.uniform(size=N_ROWS) < 0.5,
        "word and gaps": RNG.choice(np.array(["x", "y", None]), N_ROWS),
    }
)  # fmt: skip
SIGNAL = TABLE["number"].to_numpy() + (TABLE["word"] == "a")
OF_TABLES = {
    "binary": np.where(SIGNAL > 0, "yes", "no"), "multiclass": np.digitize(SIGNAL, [-0.5, 0.5]),
    "many classes": np.arange(N_ROWS) % 11, "one class": ["x"] * N_ROWS,
    "multilabel": np.c_[SIGNAL > 0, SIGNAL > 1].astype(int),
    "sparse multilabel": csr_matrix(np.c_[SIGNAL > 0, SIGNAL > 1].astype(int)),
    "regression": SIGNAL, "outputs": np.c_[SIGNAL, -1000 * SIGNAL],
}  # fmt: skip
FEW = {"hidden_layer_sizes": (17,), "max_iter": 3, "random_state": 0, "categorical_features": ["key"]}


def table_model(kind, **parameters):
    Estimator = TabularRegressor if kind in ("regression", "outputs") else TabularClassifier
    return Estimator(**{**FEW, "n_folds": 3, **parameters}).fit(TABLE, OF_TABLES[kind])


@pytest.mark.crossed
@pytest.mark.parametrize(
    ("kind", "n_folds"), [*((kind, 3) for kind in OF_TABLES), ("regression", 1), ("binary", 10), ("many classes", 10)]
)
@pytest.mark.filterwarnings("ignore:y contains only one class")
def test_row_of_a_table_is_predicted_as_by_the_model(kind, n_folds):
    """The same bits, in every form."""
    model = table_model(kind, n_folds=n_folds)
    predictor = pickle.loads(pickle.dumps(RowPredictor(model)))
    for i in range(0, 40, 9):
        frame, values = TABLE[i : i + 1], TABLE.iloc[i].tolist()
        expected = model.predict(frame)
        expected = (expected.toarray() if hasattr(expected, "toarray") else expected)[0]
        named = dict(zip(TABLE.columns, values, strict=True))
        rows = [
            values, tuple(values), [values], np.array(values, dtype=object), np.array([values], dtype=object), named,
            {"id": 3, **dict(reversed(named.items()))},
            TABLE.iloc[i], frame, frame[frame.columns[::-1]], pl.from_pandas(frame),
        ]  # fmt: skip
        for row in rows:
            found = predictor.predict(row)
            assert np.array_equal(found, expected)
            assert isinstance(found, np.ndarray if np.ndim(expected) else (str, int, float))
            if hasattr(model, "classes_"):
                assert np.array_equal(predictor.predict_proba(row), model.predict_proba(frame)[0])
    assert predictor.feature_names_in_ == TABLE.columns.tolist()
    assert not hasattr(predictor, "classes_") or predictor.classes_ == model.classes_.tolist()


@pytest.mark.parametrize("change", [
    {"number": None}, {"number": np.nan}, {"number": pd.NA}, {"number": 3}, {"number": True},
    {"number": np.float32(0.3)}, {"number": np.int8(3)},
    {"number": Decimal("0.3")}, {"gaps": None}, {"gaps": 1e300}, {"word": None}, {"word": "other"},
    {"word": np.str_("b")}, {"word": b"b"}, {"key": 3.0},
    {"key": np.int64(3)}, {"key": 77}, {"key": None}, {"key": 2**53 + 1}, {"truth": 1}, {"truth": 0.0},
    {"truth": np.True_}, {"truth": None}, {"same": object()}, {"key": 2**1100},
], ids=str)  # fmt: skip
def test_values_of_any_type_count_as_in_a_table(change):
    """Those that NumPy and a dict take as they are, and the others."""
    model = table_model("binary")
    values = list({**TABLE.iloc[1].to_dict(), **change}.values())
    np.testing.assert_array_equal(RowPredictor(model).predict_proba(values), model.predict_proba([values])[0])


@pytest.mark.parametrize(("name", "value"), [("key", "3"), ("word", 3), ("word", 1.5), ("truth", "True")])
def test_categories_of_another_type_are_refused_as_in_a_table(name, value):
    model = table_model("binary")
    values = list({**TABLE.iloc[1].to_dict(), name: value}.values())
    texts = []
    for call in (partial(RowPredictor(model).predict, values), partial(model.predict, [values])):
        with pytest.raises(TypeError, match=f"Column '{name}' held .* now, {value!r}: convert it") as caught:
            call()
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_dates_in_a_row():
    """Of Python, pandas and NumPy, beside integers that are too large for a float."""
    frame = TABLE.assign(day=pd.date_range("2024", periods=N_ROWS), long=pd.to_timedelta(np.arange(N_ROWS), unit="h"))
    model = TabularRegressor(**FEW, n_folds=2).fit(frame, SIGNAL)
    predictor, row = RowPredictor(model), frame.iloc[5].to_dict()
    for day in (row["day"], row["day"].to_pydatetime(), row["day"].to_datetime64(), None):
        values = {**row, "day": day}
        assert (
            predictor.predict(values)
            == model.predict(frame[5:6].assign(day=pd.Series([day], index=[5], dtype="datetime64[us]")))[0]
        )
    for change, words in [
        ({"day": 19000.0}, "'day' held dates in fit, and holds numbers now"),
        ({"number": 10**400}, "'number' holds inf"),
    ]:
        with pytest.raises((TypeError, ValueError), match=words):
            predictor.predict({**row, **change})


@pytest.mark.parametrize(("change", "error", "match"), [
    ({"number": np.inf}, ValueError, "Column 'number' holds inf"),
    ({"gaps": -np.inf}, ValueError, "Column 'gaps' holds -inf"),
    ({"number": "1"}, TypeError, "Column 'number' held numbers in fit, and holds text now"),
    ({"word": ["a"]}, TypeError, "Column 'word' holds a list"),
    ({"number": {}}, TypeError, "Column 'number' holds a dict"),
])  # fmt: skip
def test_values_that_a_table_cannot_hold_are_refused(change, error, match):
    with pytest.raises(error, match=match):
        RowPredictor(table_model("regression")).predict({**TABLE.iloc[1].to_dict(), **change})


@pytest.mark.parametrize(("row", "match"), [
    ([1.0, "a"], "7 values, of .*, got 2"), ("abcdefg", "got str, 'abcdefg'"), (None, "got NoneType"),
    ({1, 2}, "got set"), (TABLE[:2], r"got shape \(2, 7\)"),
    ({"number": 1.0}, "lacks features: 'word'"), (TABLE[["word"]][:1], "lacks features: 'number'"),
    (np.zeros((2, 7)), "got 14"),
])  # fmt: skip
def test_what_is_no_row_of_a_table(row, match):
    with pytest.raises(ValueError, match=match):
        RowPredictor(table_model("regression")).predict(row)


def test_rows_of_a_table_without_names():
    """The columns of a DataFrame are taken as they stand."""
    model = TabularRegressor(**{**FEW, "categorical_features": [4]}).fit(TABLE.to_numpy(), SIGNAL)
    predictor = RowPredictor(model)
    assert (
        predictor.predict(TABLE[1:2])
        == predictor.predict(TABLE.iloc[1].tolist())
        == model.predict(TABLE[1:2].to_numpy())[0]
    )
    with pytest.raises(ValueError, match="no feature names"):
        predictor.predict(TABLE.iloc[1].to_dict())
    nothing = TabularRegressor(**{**FEW, "categorical_features": "from_dtype"}).fit([[1, "a"]] * 20, np.arange(20))
    assert RowPredictor(nothing).predict([3, None]) == nothing.predict([[3, None]])[0]


def test_tables_need_no_scaler():
    """They are estimators of this package, whose columns are binned."""
    table = TabularRegressor(hidden_layer_sizes=(3,), max_iter=2, n_folds=2)
    for model in (make_pipeline(StandardScaler(), table), scale_target(table, StandardScaler())):
        with pytest.raises(TypeError, match=r"the last step is a TabularRegressor\. It needs no scaler"):
            fold_scaler(model.fit(X, TARGET))


@pytest.mark.parametrize("model", [None, "model", MLPClassifier, MLPClassifier(), StandardScaler()], ids=str)
def test_fold_scaler_says_what_it_takes(model):
    with pytest.raises(TypeError, match="fold_scaler takes a fitted Pipeline or TransformedTargetRegressor, got "):
        fold_scaler(model)


@pytest.mark.parametrize("nest", [
    lambda network: make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), network)),
    lambda network: make_pipeline(StandardScaler(),
        TransformedTargetRegressor(make_pipeline(StandardScaler(), network))),
    lambda network: TransformedTargetRegressor(TransformedTargetRegressor(network, transformer=StandardScaler()),
        transformer=StandardScaler()),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_fold_scaler_names_what_is_nested(nest, rng):
    model = nest(MLPRegressor(hidden_layer_sizes=(3,), max_iter=1)).fit(
        rng.standard_normal((20, 2)), rng.standard_normal(20)
    )
    with pytest.raises(TypeError, match=r"fold_scaler takes no .* within another: put their steps into one"):
        fold_scaler(model)
