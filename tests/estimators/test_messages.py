"""Messages for newcomers: the name that was meant, the parameter that takes a value, the column at fault and what to do about it."""

from __future__ import annotations

import pickle
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import output_of
from scipy import sparse
from sklearn.base import clone

from fastmlp import (
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    Network,
    TimeLimit,
    core,
    load,
)
from fastmlp.estimators.callbacks import HAS_CALLBACKS
from fastmlp.network.names import near_name
from fastmlp.training.solvers import SOLVERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.RandomState(0).randn(40, 3)
Y = np.arange(40) % 2
NUMBERS = X[:, 0]
SMALL = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0}
DAYS = pd.date_range("2020-01-01", periods=40)


def frame(**columns):
    """X as a DataFrame with columns a, b and c, some replaced."""
    return pd.DataFrame(X, columns=list("abc")).assign(**columns)


def with_value(value):
    """X with one value of column 1 replaced."""
    array = X.astype(np.result_type(X, np.min_scalar_type(value)))
    array[5, 1] = value
    return array


def message(call):
    """The text of the error that a call raises."""
    with pytest.raises((ValueError, TypeError, OverflowError)) as raised:
        call()
    return str(raised.value)


# --- parameters ------------------------------------------------------------------------------------------------

# (parameter, value) -> the end of the error.
MEANT = {
    ("activation", "sigmoid"): "Did you mean 'logistic'?",
    ("activation", "Relu"): "Did you mean 'relu'?",
    ("activation", "Leaky-ReLU"): "Did you mean 'leaky_relu'?",
    ("activation", "swish"): "Did you mean 'silu'?",
    ("activation", "linear"): "Did you mean 'identity'?",
    ("activation", "softpluss"): "Did you mean 'softplus'?",
    ("activation", ("Sigmoid",)): "Did you mean 'logistic'?",
    ("activation", "gaussian"): "instead.",
    ("activation", 5): "instead.",
    ("solver", "Adam"): "Did you mean 'adam'?",
    ("solver", "AdamW"): "Did you mean 'adamw'?",
    ("solver", "RMSprop"): "Did you mean 'rmsprop'?",
    ("solver", "L-BFGS"): "Did you mean 'lbfgs'?",
    ("solver", "lbgfs"): "Did you mean 'lbfgs'?",
    ("learning_rate", 0.01): "A number is the learning_rate_init=0.01.",
    ("learning_rate", np.float32(0.5)): "A number is the learning_rate_init=0.5.",
    ("learning_rate", "0.01"): "A number is the learning_rate_init=0.01.",
    ("learning_rate", "CosineAnnealingLR"): "Did you mean 'cosine'?",
    ("learning_rate", "ReduceLROnPlateau"): "Did you mean 'adaptive'?",
    ("learning_rate", "onecycle"): "Did you mean 'one_cycle'?",
    ("learning_rate_init", "constant"): "A schedule is the learning_rate='constant'.",
    ("batch_size", "Auto"): "Did you mean 'auto'?",
    ("class_weight", "Balanced"): "Did you mean 'balanced'?",
    ("dtype", "single"): "Did you mean 'float32'?",
    ("dtype", np.int32): "instead.",
    ("weight_init", "xavier"): "Did you mean 'glorot_uniform'?",
    ("bias_init", "kaiming_normal"): "Did you mean 'he_normal'?",
    ("validation_metric", "auc"): "Did you mean 'roc_auc'?",
    ("validation_metric", "log_loss"): "Did you mean 'neg_log_loss'?",
    ("validation_metric", "f1_score"): "Did you mean 'f1'?",
    ("validation_metric", "acuracy"): "Did you mean 'accuracy'?",
    ("pretrained", MLPClassifier()): "Take the fitted estimator's network_.",
    ("random_state", np.random.default_rng(0)): "A Generator can draw one: int(generator.integers(2**32)).",
    ("hidden_layer_sizes", frozenset({3, 5})): "must be in an order, as in a tuple; got frozenset({3, 5}).",
}


@pytest.mark.parametrize(("name", "value"), MEANT, ids=str)
def test_an_error_says_what_was_meant(name, value):
    estimator = MLPClassifier(**{**SMALL, name: value})
    assert message(lambda: estimator.fit(X, Y)).endswith(MEANT[name, value])


@pytest.mark.parametrize(
    ("loss", "end"),
    {
        "MSELoss": "Did you mean 'squared_error'?", "mean_squared_error": "Did you mean 'squared_error'?",
        "mae": "Did you mean 'absolute_error'?", "smooth_l1": "Did you mean 'huber'?", "pinball": "Did you mean 'quantile'?",
        "cross_entropy": "It is the loss of MLPClassifier.", "log_loss": "It is the loss of MLPClassifier.", "x": "instead.",
    }.items(),
)  # fmt: skip
def test_a_loss_by_another_name(loss, end):
    assert message(lambda: MLPRegressor(loss).fit(X, NUMBERS)).endswith(end)


def test_an_ensembles_parameters_and_its_members():
    assert message(lambda: MLPEnsembleRegressor(members="Seed").fit(X, NUMBERS)).endswith("Did you mean 'seeds'?")
    inner = MLPEnsembleClassifier(MLPClassifier(activation="sigmoid"))
    assert message(lambda: inner.fit(X, Y)).endswith("Did you mean 'logistic'?")


def test_networks_names():
    assert message(lambda: Network((2, 2), "Sigmoid")).endswith("Did you mean 'logistic'?")


def test_near_names_are_valid_ones():
    assert near_name("cross entropy", ["accuracy"]) is None
    assert near_name(3, SOLVERS) is None
    assert all(near_name(name.upper(), names) == name for names in (SOLVERS, core.ACTIVATIONS) for name in names)


def test_choices_have_the_order_of_the_table():
    """In every process, whatever its hash seed."""
    listed = re.findall(r"\{(.*)\}", message(lambda: MLPClassifier(activation="x").fit(X, Y)))[0]
    assert listed == ", ".join(map(repr, core.ACTIVATIONS))
    code = "import fastmlp\ntry: fastmlp.MLPRegressor(loss='x').fit([[1.], [2.]], [1., 2.])\nexcept ValueError as e: print(e)"
    texts = {output_of(code, PYTHONHASHSEED=seed) for seed in ("1", "2")}
    assert len(texts) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.dtype("float32"), np.float64, np.dtype("float64"), float])
def test_dtype_may_be_a_type(dtype, tmp_path):
    """The parameter stays what it was; a file has its name."""
    name = np.dtype(dtype).name
    estimator = MLPClassifier(**SMALL, dtype=dtype)
    fitted = clone(estimator).fit(X, Y)
    named = MLPClassifier(**SMALL, dtype=name).fit(X, Y)
    assert estimator.get_params()["dtype"] is dtype
    assert fitted.network_.dtype == dtype
    assert np.array_equal(fitted.network_.parameters, named.network_.parameters)
    assert pickle.loads(pickle.dumps(fitted)).dtype == dtype
    fitted.save(tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").dtype == name
    assert clone(fitted).set_params(warm_start=True).fit(X, Y).fit(X, Y).network_.dtype == dtype
    assert np.array_equal(fitted.predict(X), named.predict(X))


UNUSED = {
    "validation_metric": ({"validation_metric": "r2"}, "early_stopping=True or an eval_set"),
    "quantile": ({"quantile": 0.9}, "loss='quantile'"),
    "huber_delta": ({"huber_delta": 2.0}, "loss='huber'"),
    "rho": ({"rho": 0.5}, "solver='rmsprop'"),
    "l1_ratio": ({"l1_ratio": 0.5, "alpha": 0}, "alpha > 0"),
    "pretrained_rate": ({"pretrained_rate": 0.5}, "pretrained"),
    "residual": ({"residual": True}, "no hidden layer is as wide as its input"),
}


@pytest.mark.parametrize("name", UNUSED)
@pytest.mark.parametrize("of_ensemble", [False, True])
def test_a_parameter_that_nothing_uses_warns(name, of_ensemble):
    """Once, in an ensemble too."""
    settings, words = UNUSED[name]
    estimator = MLPRegressor(**SMALL, **settings)
    if of_ensemble:
        estimator = MLPEnsembleRegressor(estimator, n_estimators=2, random_state=0)
    with pytest.warns(UserWarning, match=f"^{name}=.* has no effect") as caught:
        estimator.fit(X, NUMBERS)
    assert [words in str(one.message) for one in caught if "no effect" in str(one.message)] == [True]
    assert all(one.filename == __file__ for one in caught)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "quantile", "quantile": 0.9}, {"loss": "huber", "huber_delta": 2.0}, {"solver": "rmsprop", "rho": 0.5},
        {"l1_ratio": 0.5}, {"residual": True, "hidden_layer_sizes": (4, 4)}, {"residual": True, "hidden_layer_sizes": (3,)},
        {"validation_metric": "r2", "early_stopping": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_parameter_that_is_used_does_not_warn(settings):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        MLPRegressor(**{**SMALL, **settings}).fit(X, NUMBERS)
        MLPRegressor(**SMALL, validation_metric="r2").fit(X, NUMBERS, eval_set=(X, NUMBERS))
        MLPRegressor(**SMALL, validation_metric="r2").partial_fit(X, NUMBERS)
    assert not [one for one in caught if "no effect" in str(one.message)]


# --- data ------------------------------------------------------------------------------------------------------

FILL, ENCODE, CONVERT, DATES = "Fill missing values first", "Encode words", "Convert words", "Turn dates and durations"
# X -> the sentence that names the column, and how the advice begins.
TABLES = {
    "NaN": (with_value(np.nan), "Column 1 holds nan.", FILL),
    "NaN in a frame": (frame(b=np.nan), "Column 'b' holds nan.", FILL),
    "None in lists": ([[1.0, None, 2.0]] * 40, "Column 1 holds None.", FILL),
    "sparse NaN": (sparse.csr_matrix(with_value(np.nan)), "Column 1 holds nan.", FILL),
    # Releases of pandas differ in what NumPy gets for a missing integer.
    "Int64 with NA": (
        frame(b=pd.array([1, None] * 20, dtype="Int64")),
        f"Column 'b' holds {np.asarray(pd.array([None], 'Int64'))[0]}.",
        FILL,
    ),
    "boolean with NA": (frame(b=pd.array([True, None] * 20, dtype="boolean")), "Column 'b' holds <NA>.", FILL),
    "polars null": (pl.DataFrame({"a": [1, None] * 20}), "Column 'a' holds nan.", FILL),
    "words": (frame(b=["u", "v"] * 20), "Column 'b' holds 'u'.", ENCODE),
    "words with None": (frame(b=[None, "u"] * 20), "Column 'b' holds 'u'.", ENCODE),
    "words with NaN": (frame(b=[np.nan] * 3 + ["u"] * 37), "Column 'b' holds 'u'.", ENCODE),
    "polars words": (pl.DataFrame({"a": [None, "u"] * 20}), "Column 'a' holds 'u'.", ENCODE),
    "categories with gaps": (frame(b=pd.Categorical([None, "u"] * 20)), "Column 'b' holds 'u'.", ENCODE),
    "decimal commas": (frame(b=["1,5", "2,5"] * 20), "Column 'b' holds '1,5'.", CONVERT),
    "question marks": (frame(b=["?", "1"] * 20), "Column 'b' holds '?'.", CONVERT),
    "dates": (frame(b=DAYS), "Column 'b' holds datetime64", DATES),
    "dates alone": (pd.DataFrame({"b": DAYS}), "Column 'b' holds datetime64", DATES),
    "dates of a zone": (frame(b=DAYS.tz_localize("UTC")), "Column 'b' holds Timestamp", DATES),
    "durations": (frame(b=DAYS - DAYS[0]), "Column 'b' holds timedelta64", DATES),
    "days": (frame(b=[day.date() for day in DAYS]), "Column 'b' holds datetime.date(2020, 1, 1).", DATES),
    "no dates": (frame(b=pd.NaT), "Column 'b' holds datetime64", DATES),
    "polars dates": (pl.DataFrame({"a": DAYS.to_list()}), "Column 'a' holds datetime64", DATES),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_columns_error_says_what_to_do(name):
    table, fault, advice = TABLES[name]
    text = message(lambda: MLPClassifier(**SMALL).fit(table, Y))
    assert fault in text.splitlines()[1]
    assert text.splitlines()[2].startswith(advice)
    assert len(text.splitlines()) == 3
    assert "HistGradientBoosting" not in text
    assert "DType" not in text


FORMS = {
    "texts": (["one text", "another"] * 20, "TfidfVectorizer"),
    "array of texts": (np.array(["one text", "another"] * 20), "TfidfVectorizer"),
    "dicts": ([{"a": 1}] * 40, "DictVectorizer"),
    "a dict": ({"a": X[:, 0]}, "pandas.DataFrame"),
    "ragged": ([[1, 2], [3]] * 20, "The rows of X differ in length: from 1 to 2 values."),
    "images": (np.zeros((40, 8, 8)), "X.reshape(len(X), -1)"),
    "iterator": ((row for row in X), "X is an iterator"),
    "lazy": (pl.DataFrame(X).lazy(), "collect()"),
    "records": (np.array([(1, 2.0)] * 40, dtype=[("a", int), ("b", float)]), "structured_to_unstructured"),
}


@pytest.mark.parametrize("name", FORMS)
def test_another_form_of_x(name):
    form, words = FORMS[name]
    assert words in message(lambda: MLPClassifier(**SMALL).fit(form, Y)).splitlines()[-1]


TARGETS = X[:, :2].copy()
TARGETS[3, 1] = np.nan
# y of a regressor -> the sentence that names the column, and a word of the advice.
REGRESSION = {
    "NaN": (np.where(Y, np.nan, 1.0), "Row 1 of y holds nan.", "Leave out"),
    "a Series": (pd.Series(np.where(Y, np.nan, 1.0), name="price"), "Column 'price' of y holds nan.", "Leave out"),
    "targets": (TARGETS, "Column 1 of y holds nan.", "fit a model for each"),
    "infinity": (np.where(np.isnan(TARGETS), np.inf, TARGETS), "Column 1 of y holds inf.", ""),
    "objects": (TARGETS.astype(object), "Column 1 of y holds nan.", "fit a model for each"),
    "a frame": (pd.DataFrame(TARGETS, columns=["u", "v"]), "Column 'v' of y holds nan.", "fit a model for each"),
    "polars": (pl.DataFrame(TARGETS, schema=["u", "v"]), "Column 'v' of y holds nan.", "fit a model for each"),
    "polars null": (pl.DataFrame({"u": NUMBERS, "v": [None, 1.0] * 20}), "Column 'v' of y holds nan.", "Leave out"),
    "dates": (pd.DataFrame({"u": NUMBERS, "v": DAYS}), "Column 'v' of y holds datetime64", "Turn dates"),
    "words": (["a", "b"] * 20, "Row 0 of y holds 'a'.", "MLPClassifier predicts classes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REGRESSION)
def test_a_regressors_target_is_named(name):
    y, fault, advice = REGRESSION[name]
    text = message(lambda: MLPRegressor(**SMALL).fit(X, y))
    assert fault in text.splitlines()[1]
    assert advice in text.splitlines()[-1]
    assert "DType" not in text


# y of a classifier -> a word of the advice.
LABELS = {
    "continuous": (NUMBERS, "MLPRegressor"),
    "two columns": (np.c_[np.arange(40) % 3, Y], "MultiOutputClassifier"),
    "lists": ([["a", "b"], ["c"]] * 20, "MultiLabelBinarizer"),
    "NaN": (np.where(Y, np.nan, 1.0), "rows without a label"),
    "words with NaN": (np.array([np.nan, "a"] * 20, dtype=object), "rows without a label"),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_classifiers_labels(name):
    y, words = LABELS[name]
    assert words in message(lambda: MLPClassifier(**SMALL).fit(X, y)).splitlines()[-1]


@pytest.mark.parametrize("weight", ["balanced", {0: 1.0, 1: 2.0}])
def test_weights_of_classes_as_sample_weight(weight):
    text = message(lambda: MLPClassifier(**SMALL).fit(X, Y, sample_weight=weight))
    assert text.startswith("sample_weight must be a number for each row")
    assert text.endswith("Weights of classes are class_weight.")


def test_dates_are_no_weights():
    assert "sample_weight must be numbers" in message(lambda: MLPClassifier(**SMALL).fit(X, Y, sample_weight=DAYS))


# --- metrics and callbacks -------------------------------------------------------------------------------------

CLASSES = np.arange(40) % 3
# validation_metric, estimator, y -> the end of the error.
METRICS = {
    "roc_auc": ("roc_auc", MLPClassifier, CLASSES, "take 'roc_auc_ovr'."),
    "f1": ("f1", MLPClassifier, CLASSES, "take 'f1_macro'."),
    "precision": ("precision", MLPClassifier, CLASSES, "take 'precision_macro'."),
    "multi-label": ("f1", MLPClassifier, np.c_[Y, 1 - Y], "take 'f1_macro'."),
    "r2 of words": ("r2", MLPClassifier, np.where(Y, "a", "b"), "'accuracy', 'neg_log_loss', 'roc_auc', among others."),
    "accuracy of numbers": ("accuracy", MLPRegressor, NUMBERS, "'r2', 'neg_mean_squared_error', 'neg_mean_absolute_error', among others."),
    "roc_auc of numbers": ("roc_auc", MLPRegressor, NUMBERS, "among others."),
    "no number": (lambda estimator, X, y: "high", MLPClassifier, Y, "must return a number, got 'high'."),
    "nothing": (lambda estimator, X, y: None, MLPRegressor, NUMBERS, "must return a number, got None."),
}  # fmt: skip


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_for_another_target(name):
    """Of early stopping and of an eval_set; the metric that the error names is one that works."""
    metric, cls, y, end = METRICS[name]
    estimator = cls(**SMALL, validation_metric=metric)
    text = message(lambda: estimator.fit(X, y, eval_set=(X, y)))
    assert text.startswith("validation_metric")
    assert text.endswith(end)
    assert message(lambda: clone(estimator).set_params(early_stopping=True).fit(X, y)).endswith(end)
    if named := re.search(r"take '(\w+)'", text):
        estimator.set_params(validation_metric=named[1]).fit(X, y, eval_set=(X, y))


class Half:
    def setup(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        pass


@pytest.mark.skipif(not HAS_CALLBACKS, reason="callbacks need scikit-learn 1.9")
@pytest.mark.parametrize("estimator", [MLPRegressor(), MLPEnsembleClassifier()], ids=lambda e: type(e).__name__)
def test_callbacks_without_a_method(estimator):
    text = message(lambda: estimator.set_callbacks(Half()))
    assert text.endswith("Half lacks on_fit_task_begin, teardown.")
    assert message(lambda: estimator.set_callbacks(print)).endswith(
        "lacks setup, on_fit_task_begin, on_fit_task_end, teardown."
    )
    assert "got the class TimeLimit" in message(lambda: estimator.set_callbacks(TimeLimit))
    assert "set_callbacks(*callbacks)" in message(lambda: estimator.set_callbacks([TimeLimit(1)]))
    assert not hasattr(estimator, "_skl_callbacks")
