"""Messages for newcomers: the name that was meant, the parameter that takes a value, the column at fault and what to do
about it."""

from __future__ import annotations

import pickle
import re
import warnings
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import name_of
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from fastmlp import (
    CosineDecay,
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    Network,
    PiecewiseLinearEncoder,
    TabularClassifier,
    TabularRegressor,
    TimeLimit,
    core,
    load,
)
from fastmlp.estimators import _sklearn
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

# parameter, value, the end of the error.
MEANT = [
    ("activation", "sigmoid", "Did you mean 'logistic'?"),
    ("activation", "Relu", "Did you mean 'relu'?"),
    ("activation", "Leaky-ReLU", "Did you mean 'leaky_relu'?"),
    ("activation", "swish", "Did you mean 'silu'?"),
    ("activation", "linear", "Did you mean 'identity'?"),
    ("activation", "softpluss", "Did you mean 'softplus'?"),
    ("activation", ("Sigmoid",), "Did you mean 'logistic'?"),
    ("activation", "gaussian", "instead."),
    ("activation", 5, "instead."),
    ("solver", "Adam", "Did you mean 'adam'?"),
    ("solver", "AdamW", "Did you mean 'adamw'?"),
    ("solver", "RMSprop", "Did you mean 'rmsprop'?"),
    ("solver", "L-BFGS", "Did you mean 'lbfgs'?"),
    ("solver", "lbgfs", "Did you mean 'lbfgs'?"),
    ("learning_rate", 0.01, "A number is the learning_rate_init=0.01."),
    ("learning_rate", np.float32(0.5), "A number is the learning_rate_init=0.5."),
    ("learning_rate", "0.01", "A number is the learning_rate_init=0.01."),
    ("learning_rate", "CosineAnnealingLR", "Did you mean 'cosine'?"),
    ("learning_rate", "ReduceLROnPlateau", "Did you mean 'adaptive'?"),
    ("learning_rate", "onecycle", "Did you mean 'one_cycle'?"),
    ("learning_rate_init", "constant", "A schedule is the learning_rate='constant'."),
    ("batch_size", "Auto", "Did you mean 'auto'?"),
    ("class_weight", "Balanced", "Did you mean 'balanced'?"),
    ("dtype", "single", "Did you mean 'float32'?"),
    ("dtype", "double", "Did you mean 'float64'?"),
    ("dtype", np.int32, "a batch at a time is converted."),
    ("dtype", "float16", "a batch at a time is converted."),
    ("dtype", "bfloat16", "a batch at a time is converted."),
    ("dtype", np.dtype("float16"), "a batch at a time is converted."),
    ("dtype", None, "a batch at a time is converted."),
    ("class_weight", (1, 2), "A dict has a weight for each label: {0: 1.0, 1: 2.0}, for example."),
    ("class_weight", [1, 2], "class_weight={0: 1, 1: 2}, for example."),
    ("class_weight", {"0": 1, "1": 2}, "class_weight={0: 1, 1: 2}, for example."),
    ("class_weight", {0: 1, 5: 2}, "class_weight={0: 1}, for example."),
    ("class_weight", {"a": 1, "b": 2}, "class_weight={0: 1.0, 1: 1.0}, for example."),
    ("class_weight", {0: "high"}, "class_weight={0: 1.0, 1: 1.0}, for example."),
    ("weight_init", "xavier", "Did you mean 'glorot_uniform'?"),
    ("bias_init", "kaiming_normal", "Did you mean 'he_normal'?"),
    ("validation_metric", "auc", "Did you mean 'roc_auc'?"),
    ("validation_metric", "log_loss", "Did you mean 'neg_log_loss'?"),
    ("validation_metric", "f1_score", "Did you mean 'f1'?"),
    ("validation_metric", "acuracy", "Did you mean 'accuracy'?"),
    ("pretrained", MLPClassifier(), "Take the fitted estimator's network_."),
    ("random_state", np.random.default_rng(0), "A Generator can draw one: int(generator.integers(2**32))."),
    ("hidden_layer_sizes", frozenset({3, 5}), "must be in an order, as in a tuple; got frozenset({3, 5})."),
]


@pytest.mark.parametrize(("name", "value", "end"), MEANT, ids=str)
def test_an_error_says_what_was_meant(name, value, end):
    estimator = MLPClassifier(**{**SMALL, name: value})
    text = message(lambda: estimator.fit(X, Y))
    assert name in text
    assert text.endswith(end)


def test_class_weights_of_several_columns():
    estimator = MLPClassifier(**SMALL, class_weight=[1, 2])
    assert "a list with a dict for each column of y" in message(lambda: estimator.fit(X, np.c_[Y, 1 - Y]))


# A parameter with a function that takes other arguments -> how the error begins.
FUNCTIONS = [
    ("learning_rate", lambda step: 1.0,
        "learning_rate must be a function (step, n_steps) -> factor on learning_rate_init, got <lambda>(step)"),
    ("learning_rate", lambda a, b, c: 1.0, "learning_rate must be a function (step, n_steps)"),
    ("learning_rate", lambda *, step, n_steps: 1.0, "learning_rate must be a function (step, n_steps)"),
    ("weight_init", lambda shape: np.zeros(shape),
        "weight_init must be a function (fan_in, fan_out, rng) -> array, got <lambda>(shape)"),
    ("bias_init", lambda: 0.0, "bias_init must be a function (fan_in, fan_out, rng) -> array"),
    ("validation_metric", lambda y, prediction: 0.0, "validation_metric must be a function (estimator, X, y) -> score"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "beginning"), FUNCTIONS)
def test_a_function_that_takes_other_arguments(name, function, beginning):
    estimator = MLPClassifier(**SMALL, early_stopping=True).set_params(**{name: function})
    assert message(lambda: estimator.fit(X, Y)).startswith(beginning)


@pytest.mark.parametrize(
    "function", [lambda step, n_steps=1: 1.0, lambda *steps: 1.0, np.hypot, CosineDecay()], ids=name_of
)
def test_a_function_that_takes_the_arguments(function):
    MLPClassifier(**SMALL, learning_rate=function).fit(X, Y)


def test_errors_within_a_function_stay():
    def rate(step, n_steps):
        return {}[step]

    with pytest.raises(KeyError):
        MLPClassifier(**SMALL, learning_rate=rate).fit(X, Y)


@pytest.mark.parametrize("sizes", [10**12, (10**6, 10**6), 10**30, (2**63, 2**63)])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_network_larger_than_memory(sizes, solver):
    """Before anything is allocated: the system might grant it, and end the process when it is used."""
    with pytest.raises(
        MemoryError, match=r"hidden_layer_sizes=.* parameters\. Training them .* of memory, and there are"
    ):
        MLPClassifier(sizes, solver=solver).fit(X, Y)
    with pytest.raises(MemoryError, match=r"^A network of layers .* parameters\. It needs"):
        Network((3, *np.atleast_1d(np.array(sizes, dtype=object)), 1), out_activation="logistic")


@pytest.mark.parametrize(
    ("loss", "end"),
    {
        "MSELoss": "Did you mean 'squared_error'?", "mean_squared_error": "Did you mean 'squared_error'?",
        "mae": "Did you mean 'absolute_error'?", "smooth_l1": "Did you mean 'huber'?",
        "pinball": "Did you mean 'quantile'?",
        "cross_entropy": "It is the loss of MLPClassifier.", "log_loss": "It is the loss of MLPClassifier.",
        "x": "instead.",
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
    """In every process then, whatever its hash seed."""
    listed = re.findall(r"\{(.*)\}", message(lambda: MLPClassifier(activation="x").fit(X, Y)))[0]
    assert listed == ", ".join(map(repr, core.ACTIVATIONS))
    listed = re.findall(r"\{(.*)\}", message(lambda: MLPRegressor(loss="x").fit([[1.0], [2.0]], [1.0, 2.0])))[0]
    assert listed == ", ".join(repr(loss) for loss, output in core.LOSSES.items() if output in ("identity", "exp"))


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
        {"l1_ratio": 0.5}, {"residual": True, "hidden_layer_sizes": (4, 4)},
        {"residual": True, "hidden_layer_sizes": (3,)},
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


@pytest.mark.parametrize(("action", "times"), [("default", 1), ("always", 10), ("ignore", 0)])
def test_a_search_warns_once_of_a_parameter_that_nothing_uses(action, times, monkeypatch):
    """A fit that the user calls warns as well. Filters that ask for all warnings get them."""
    monkeypatch.setattr(_sklearn, "_told", set())
    shown = []
    search = GridSearchCV(MLPRegressor(**SMALL, huber_delta=2.0), {"alpha": [0.1, 0.2]}, cv=2)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.filterwarnings(action, message="huber", category=UserWarning)
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: shown.append(str(message)))
        search.fit(X, NUMBERS)
        search.fit(X, NUMBERS)
        assert shown == ["huber_delta=2.0 has no effect without loss='huber'."] * times
        MLPRegressor(**SMALL, huber_delta=2.0).fit(X, NUMBERS)
        assert len(shown) == times + (action != "ignore")
        make_pipeline(MLPRegressor(**SMALL, huber_delta=2.0)).fit(X, NUMBERS)  # the user's call as well
        assert len(shown) == times + 2 * (action != "ignore")


def test_a_hidden_warning_is_shown_when_filters_let_it(monkeypatch):
    monkeypatch.setattr(_sklearn, "_told", set())
    search = GridSearchCV(MLPRegressor(**SMALL, huber_delta=2.0), {"alpha": [0.1]}, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X, NUMBERS)
    with pytest.warns(UserWarning, match="huber_delta"):
        search.fit(X, NUMBERS)


# --- data ------------------------------------------------------------------------------------------------------

STRUCTS = pl.DataFrame({"a": [{"u": 1}] * 40})
ONE_IS_NO_NUMBER = np.lib.NumpyVersion(np.__version__) >= "2.4.0"
FILL, ENCODE, DATES, TEXT_DATES = (
    "Fill missing values first",
    "Encode words",
    "Turn dates and durations",
    "Turn text into dates first",
)
CONVERT, GAPS, NESTED = (
    "Convert text that stands for numbers first",
    "Words among numbers",
    "A cell must hold one number: make columns",
)
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
    "currency": (frame(b=["$5", "$6"] * 20), "Column 'b' holds '$5'.", CONVERT),
    "units": (frame(b=["5 kg", "EUR 6"] * 20), "Column 'b' holds '5 kg'.", CONVERT),
    "question marks": (frame(b=["?", "1"] * 20), "Column 'b' holds '?'.", GAPS),
    "a word for gaps": (frame(b=["N/A", *NUMBERS[1:]]), "Column 'b' holds 'N/A'.", GAPS),
    "empty text": (frame(b=["", *NUMBERS[1:]]), "Column 'b' holds ''.", GAPS),
    "words with digits": (frame(b=["A12", "B7"] * 20), "Column 'b' holds 'A12'.", ENCODE),
    "ranges": (frame(b=["10-20", "20-30"] * 20), "Column 'b' holds '10-20'.", ENCODE),
    "dates as text": (frame(b=["2020-01-31", "2020-02-01"] * 20), "Column 'b' holds '2020-01-31'.", TEXT_DATES),
    "times as text": (frame(b=["12:30", "8:15"] * 20), "Column 'b' holds '12:30'.", TEXT_DATES),
    "lists": (frame(b=[[1, 2]] * 40), "Column 'b' holds [1, 2].", NESTED),
    "arrays": (frame(b=[np.ones(2)] * 40), "Column 'b' holds array([1., 1.]).", NESTED),
    "dicts": (frame(b=[{"u": 1}] * 40), "Column 'b' holds {'u': 1}.", NESTED),
    "polars lists": (pl.DataFrame({"a": [[1, 2]] * 40}), "Column 'a' holds array([1, 2]).", NESTED),
    # polars makes arrays of one number of them, which an older NumPy takes for the number.
    **({"polars structs": (STRUCTS, "Column 'a' holds {'u': 1}.", NESTED)} if ONE_IS_NO_NUMBER else {}),
    "infinity": (with_value(np.inf), "Column 1 holds inf.", "Replace infinity"),
    "Decimal NaN": (frame(b=[Decimal("NaN"), Decimal(1)] * 20), "Column 'b' holds Decimal('NaN').", FILL),
    "signalling NaN": (
        frame(b=[Decimal("sNaN"), Decimal(1)] * 20),
        "Column 'b' holds Decimal('sNaN').",
        "A cell must hold one number.",
    ),
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
    if advice not in (FILL, "A cell must hold one number."):
        assert fault in message(lambda: PiecewiseLinearEncoder().fit(table)).splitlines()[-2]


def test_complex_numbers():
    """Behind scikit-learn's error, which shows them."""
    lines = message(lambda: MLPClassifier(**SMALL).fit(with_value(1j), Y)).splitlines()
    assert lines[-2].startswith("Column 0 holds (1.76")
    assert lines[-1] == "Split complex numbers into real and imaginary part first."


def test_the_encoder_takes_gaps_beside_words():
    """A missing number is not at fault there."""
    text = message(lambda: PiecewiseLinearEncoder().fit(frame(a=np.nan, b="u")))
    assert "Column 'b' holds 'u'." in text
    assert "Column 'a'" not in text


FORMS = {
    "texts": (["one text", "another"] * 20, "TfidfVectorizer"),
    "array of texts": (np.array(["one text", "another"] * 20), "TfidfVectorizer"),
    "dicts": ([{"a": 1}] * 40, "DictVectorizer"),
    "ragged": ([[1, 2], [3]] * 20, "The rows of X differ in length: from 1 to 2 values."),
    "images": (np.zeros((40, 8, 8)), "X.reshape(len(X), -1)"),
    "lazy": (pl.DataFrame(X).lazy(), "collect()"),
    "records": (np.array([(1, 2.0)] * 40, dtype=[("a", int), ("b", float)]), "structured_to_unstructured"),
}


@pytest.mark.parametrize("name", FORMS)
def test_another_form_of_x(name):
    form, words = FORMS[name]
    assert words in message(lambda: MLPClassifier(**SMALL).fit(form, Y)).splitlines()[-1]


# What has no rows -> words of the error.
NO_ROWS = {
    "None": (None, ""),
    "text": ("train.csv", "text, 'train.csv'. If it names a file, read that first"),
    "a path": (Path("train.csv"), "a path, 'train.csv'. If it names a file, read that first"),
    "a set": ({1, 2}, "a set, which has no order. Make a list of it"),
    "a frozenset": (frozenset({1, 2}), "a frozenset, which has no order. Make a list of it"),
    "a dict": ({"a": [1, 2]}, "a dict. "),
    "an iterator": (lambda: iter(NUMBERS), "an iterator. list("),
    "a generator": (lambda: (row for row in X), "generator, an iterator. list("),
    "keys": ({1: 2}.keys(), "dict_keys. list("),
    "values": ({1: 2}.values(), "dict_values. list("),
    "a number": (3, "a single value, 3."),
    "NumPy's number": (np.float64(3), "a single value, "),
    "an array of one": (np.array(3), "a single value, array(3)."),
}  # fmt: skip
FIT = {
    "X of fit": ("X", lambda values: MLPClassifier(**SMALL).fit(values, Y)),
    "y of fit": ("y", lambda values: MLPClassifier(**SMALL).fit(X, values)),
    "y of a regressor": ("y", lambda values: MLPRegressor(**SMALL).fit(X, values)),
    "X of an ensemble": ("X", lambda values: MLPEnsembleClassifier(MLPClassifier(**SMALL)).fit(values, Y)),
    "X of a table": ("X", lambda values: TabularClassifier(**SMALL).fit(values, Y)),
    "y of a table": ("y", lambda values: TabularRegressor(**SMALL).fit(X, values)),
    "X of the encoder": ("X", lambda values: PiecewiseLinearEncoder().fit(values)),
    "y of partial_fit": ("y", lambda values: MLPClassifier(**SMALL).partial_fit(X, values, classes=[0, 1])),
    "classes": ("classes", lambda values: MLPClassifier(**SMALL).partial_fit(X, Y, classes=values)),
    "X of eval_set": ("X", lambda values: MLPClassifier(**SMALL).fit(X, Y, eval_set=(values, Y))),
    "y of eval_set": ("y", lambda values: MLPClassifier(**SMALL).fit(X, Y, eval_set=(X, values))),
    "X of predict": ("X", lambda values: FITTED.predict(values)),
    "X of predict_proba": ("X", lambda values: FITTED.predict_proba(values)),
    "y of score": ("y", lambda values: FITTED.score(X, values)),
    "y of a regressor's score": ("y", lambda values: MLPRegressor(**SMALL).fit(X, NUMBERS).score(X, values)),
    "sample_weight": ("sample_weight", lambda values: MLPClassifier(**SMALL).fit(X, Y, sample_weight=values)),
}  # fmt: skip
FITTED = MLPClassifier(**SMALL).partial_fit(X, Y, classes=[0, 1])
# What a call takes, or refuses in words of its own.
OTHERWISE = {
    ("classes", "None"), ("sample_weight", "None"), ("sample_weight", "text"), ("sample_weight", "a dict"),
    ("sample_weight", "a number"),
    ("sample_weight", "NumPy's number"),
}  # fmt: skip


@pytest.mark.parametrize("call", FIT)
@pytest.mark.parametrize("name", NO_ROWS)
def test_what_has_no_rows(call, name):
    if (call, name) in OTHERWISE:
        return
    argument, fit = FIT[call]
    values, words = NO_ROWS[name]
    text = message(lambda: fit(values() if callable(values) else values))
    if values is None and argument == "y":
        assert text.endswith("requires y to be passed, but the target y is None.")
    else:
        assert f"Input {argument} must be " in text
        assert words in text
    assert len(text) < 450


TARGETS = X[:, :2].copy()
TARGETS[3, 1] = np.nan
# y of a regressor -> the sentence that names the column, and a word of the advice.
REGRESSION = {
    "NaN": (np.where(Y, np.nan, 1.0), "Row 1 of y holds nan.", "Leave out"),
    "a Series": (pd.Series(np.where(Y, np.nan, 1.0), name="price"), "Column 'price' of y holds nan.", "Leave out"),
    "targets": (TARGETS, "Column 1 of y holds nan.", "sample_weight=np.isfinite(y)"),
    "infinity": (np.where(np.isnan(TARGETS), np.inf, TARGETS), "Column 1 of y holds inf.", "Replace infinity"),
    "decimal commas": (["1,5", "2,5"] * 20, "Row 0 of y holds '1,5'.", "pandas.to_numeric(column, errors='coerce')"),
    "a word for gaps": (["N/A", "2.5"] * 20, "Row 0 of y holds 'N/A'.", "leave out their rows"),
    "words and NA": (pd.Series(["a", pd.NA] * 20, dtype="string"), "Row 0 of y holds 'a'.",
        "MLPClassifier predicts classes"),
    "objects": (TARGETS.astype(object), "Column 1 of y holds nan.", "sample_weight=np.isfinite(y)"),
    "a frame": (pd.DataFrame(TARGETS, columns=["u", "v"]), "Column 'v' of y holds nan.",
        "sample_weight=np.isfinite(y)"),
    "polars": (pl.DataFrame(TARGETS, schema=["u", "v"]), "Column 'v' of y holds nan.", "sample_weight=np.isfinite(y)"),
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


def test_words_as_a_regressors_target_name_the_classifier_of_its_kind():
    for regressor, name in (
        (TabularRegressor(**SMALL), "TabularClassifier"),
        (MLPEnsembleRegressor(MLPRegressor(**SMALL)), "MLPEnsembleClassifier"),
        (type("Own", (MLPRegressor,), {})(), "MLPClassifier"),
    ):
        assert message(partial(regressor.fit, X, ["a", "b"] * 20)).endswith(
            f"\n{name} predicts classes that are words."
        )
    assert message(lambda: TabularClassifier(**SMALL).fit(X, NUMBERS)).splitlines()[-1].startswith("TabularRegressor")


@pytest.mark.parametrize(
    "regressor", [MLPRegressor(**SMALL), TabularRegressor(**SMALL)], ids=lambda r: type(r).__name__
)
@pytest.mark.parametrize("dtype", [str, bytes])
def test_an_array_of_text_as_a_regressors_target(regressor, dtype):
    y = NUMBERS.astype(dtype)
    assert message(lambda: regressor.fit(X, y)).endswith("y.astype(float) converts text that stands for numbers.")
    regressor.fit(X, y.astype(float))


# y of a classifier -> a word of the advice.
LABELS = {
    "continuous": (NUMBERS, "Regressor predicts numbers"),
    "two columns": (np.c_[np.arange(40) % 3, Y], "MultiOutputClassifier"),
    "lists": ([["a", "b"], ["c"]] * 20, "MultiLabelBinarizer"),
    "NaN": (np.where(Y, np.nan, 1.0), "rows without a label"),
    "words with NaN": (np.array([np.nan, "a"] * 20, dtype=object), "rows without a label"),
    "NA": (pd.Series(["a", pd.NA] * 20, dtype="string"), "rows without a label"),
    "integers with NA": (pd.Series([1, pd.NA] * 20, dtype="Int64"), "rows without a label"),
    "categories with gaps": (pd.Series(pd.Categorical(["a", None] * 20)), "rows without a label"),
    "words with None": (["a", None] * 20, "rows without a label"),
    "numbers with None": ([0, 1, None, 1] * 10, "rows without a label"),
    "polars null": (pl.Series(["a", None] * 20), "rows without a label"),
    "NaT": (DAYS.to_series().where(Y == 0), "rows without a label"),
    "words and numbers": (np.array(["a", 1] * 20, dtype=object), "[str(label) for label in y]"),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_classifiers_labels(name):
    y, words = LABELS[name]
    for estimator in (MLPClassifier(**SMALL), TabularClassifier(**SMALL)):
        text = message(partial(estimator.fit, X, y))
        assert words in text.splitlines()[-1]
        if words == "rows without a label":
            assert re.search(r"Row \d of y holds (nan|None|<NA>|NaT)\.", text)


@pytest.mark.parametrize("weight", ["balanced", {0: 1.0, 1: 2.0}])
def test_weights_of_classes_as_sample_weight(weight):
    text = message(lambda: MLPClassifier(**SMALL).fit(X, Y, sample_weight=weight))
    assert text.startswith("sample_weight must be a number for each row")
    assert text.endswith("Weights of classes are class_weight.")


def test_dates_are_no_weights():
    assert "sample_weight must be numbers" in message(lambda: MLPClassifier(**SMALL).fit(X, Y, sample_weight=DAYS))


@pytest.mark.parametrize("weight", [["heavy"] * 40, [{}, 1.0] * 20], ids=str)
def test_weights_that_are_no_numbers(weight):
    text = message(lambda: MLPClassifier(**SMALL).fit(X, Y, sample_weight=weight))
    assert text.startswith("sample_weight must be a number for each row: ")
    assert re.search(r"\nRow 0 of sample_weight holds ('heavy'|{})\.$", text)


# --- metrics and callbacks -------------------------------------------------------------------------------------

CLASSES = np.arange(40) % 3
# validation_metric, estimator, y -> the end of the error.
METRICS = {
    "roc_auc": ("roc_auc", MLPClassifier, CLASSES, "take 'roc_auc_ovr'."),
    "f1": ("f1", MLPClassifier, CLASSES, "take 'f1_macro'."),
    "precision": ("precision", MLPClassifier, CLASSES, "take 'precision_macro'."),
    "multi-label": ("f1", MLPClassifier, np.c_[Y, 1 - Y], "take 'f1_macro'."),
    "r2 of words": ("r2", MLPClassifier, np.where(Y, "a", "b"), "'accuracy', 'neg_log_loss', 'roc_auc', among others."),
    "accuracy of numbers": ("accuracy", MLPRegressor, NUMBERS,
        "'r2', 'neg_mean_squared_error', 'neg_mean_absolute_error', among others."),
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


def test_a_metric_may_need_weights():
    """Which it gets where there are some."""
    seen = []

    def metric(estimator, X, y, sample_weight):
        seen.append(sample_weight)
        return 1.0

    MLPRegressor(**{**SMALL, "max_iter": 2}, validation_metric=metric, early_stopping=True).fit(
        X, NUMBERS, np.ones(len(X))
    )
    assert len(seen) == 2
    assert all(weight is not None for weight in seen)
