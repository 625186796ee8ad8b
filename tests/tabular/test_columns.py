"""Columns of every kind, from every kind of table: what is done to them, what later rows may hold, and errors that name
them."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from fastmlp import TabularClassifier, TabularRegressor, load
from fastmlp.tabular.columns import learn_columns
from fastmlp.tabular.frames import Table

N = 60
RNG = np.random.RandomState(0)
Y = RNG.randint(2, size=N)
SMALL = {"hidden_layer_sizes": (8,), "max_iter": 2, "n_folds": 2, "random_state": 0}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def fitted(X, eval_set=None, **parameters):
    """A small classifier."""
    return TabularClassifier(**{**SMALL, **parameters}).fit(X, Y, eval_set=eval_set)


def only(X, **parameters):
    """What was done to the one column of X beside a number."""
    frame = pd.DataFrame({"number": np.arange(N), "x": X})
    return fitted(frame, **parameters).columns_[1]


def pick(*values):
    """N of the values, in random order, each at least once."""
    chosen = [*values, *(values[i] for i in RNG.randint(len(values), size=N - len(values)))]
    return [chosen[i] for i in RNG.permutation(N)]


DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(N)]
NUMBERS = {
    "integers": RNG.randint(9, size=N),
    "float32": RNG.standard_normal(N).astype(np.float32),
    "nullable": pd.array(pick(1, 2, None), dtype="Int64"),
    "Decimal": pick(decimal.Decimal("1.5"), decimal.Decimal("2.5"), None),
    "objects": pd.Series(pick(1, 2.5, None), dtype=object),
    "sparse": pd.arrays.SparseArray(RNG.randint(3, size=N)),
}
CATEGORIES = {
    "text": (pick("a", "b", None), ("a", "b"), True),
    "str dtype": (pd.array(pick("a", "b", "c"), dtype="str"), ("a", "b", "c"), False),
    "category": (pd.Categorical(pick("b", "a"), categories=["b", "a", "unseen"]), ("a", "b"), False),
    "bool": (np.array(pick(True, False)), (False, True), False),
    "nullable bool": (pd.array(pick(True, False, None), dtype="boolean"), (False, True), True),
    "numbers and text": (pick("a", 1, 2.5), (1, 2.5, "a"), False),
    "categories of numbers": (pd.Categorical(pick(10, 2)), (2, 10), False),
}
DATES = {
    "datetime": pd.date_range("2024", periods=N),
    "with a zone": pd.date_range("2024", periods=N, tz="Europe/Berlin"),
    "dates as objects": DAYS,
    "with gaps": [None, *DAYS[1:]],
    "periods": pd.period_range("2024", periods=N, freq="D"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_number(name):
    """Numbers in any type are numbers, and gaps in them are marked."""
    column = only(NUMBERS[name])
    assert column.treatment == "number"
    assert column.missing == bool(pd.isna(pd.Series(NUMBERS[name])).any())


@pytest.mark.parametrize("name", CATEGORIES)
def test_category(name):
    """Text, categories and truth values are categories, in rising order, and those that do not occur are none."""
    values, categories, missing = CATEGORIES[name]
    column = only(values)
    assert (column.treatment, column.categories, column.missing) == ("category", categories, missing)
    assert column.n_inputs == len(categories) + missing


@pytest.mark.parametrize("name", DATES)
def test_date(name):
    """Dates are days since 1970."""
    column = only(DATES[name])
    assert (column.treatment, column.remark) == ("number", "days since 1970")
    assert abs(column.edges[-1] - (DAYS[-1] - datetime.date(1970, 1, 1)).days) < 1


def test_dates_of_arrow_in_pandas():
    """Their accessor has no time zone."""
    pytest.importorskip("pyarrow")
    column = only(pd.Series(DAYS).astype("date32[pyarrow]"))
    assert (column.treatment, column.remark) == ("number", "days since 1970")


def test_duration():
    """Durations are days."""
    column = only(pd.to_timedelta(np.arange(N), unit="h"))
    assert (column.remark, column.edges[-1]) == ("days", (N - 1) / 24)


@pytest.mark.parametrize(
    ("values", "reason"), [([7] * N, "always the same"), (["a"] * N, "always the same"), ([None] * N, "no values")]
)
def test_useless_column_is_dropped(values, reason):
    """It is not looked at again: later rows may hold anything there."""
    frame = pd.DataFrame({"number": np.arange(N), "x": values})
    model = fitted(frame)
    assert (model.columns_[1].treatment, model.columns_[1].remark, model.columns_[1].n_inputs) == ("dropped", reason, 0)
    other = frame.assign(x=pd.Series([["?"]] * N))
    np.testing.assert_array_equal(model.predict_proba(other), model.predict_proba(frame))


def test_one_value_and_gaps_are_a_mark():
    """Whether there is a value may tell something."""
    assert only([7, None] * (N // 2)).describe() == "number, 0 bins, missing values marked"
    assert only(["a", None] * (N // 2)).describe() == "1 category, missing values marked"


def test_nothing_but_constants():
    """The model predicts the classes' shares."""
    model = fitted(np.ones((N, 3)), max_iter=200, learning_rate_init=0.01)
    assert np.abs(model.predict_proba(np.ones((2, 3)))[:, 1] - Y.mean()).max() < 0.1


# --- libraries -----------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(
    {
        "number": RNG.standard_normal(N),
        "gaps": pd.array(pick(1, 2, 3, None), dtype="Int64"),
        "text": pick("a", "b", None),
        "category": pd.Categorical(pick("u", "v")),
        "truth": np.array(pick(True, False)),
        "date": pd.date_range("2024-01-01 12:30", periods=N, unit="us"),
        "duration": pd.to_timedelta(np.arange(N), unit="h").astype("timedelta64[us]"),
    }
)


def in_library(library):
    """The frame in another library's form."""
    if library == "pandas":
        return FRAME
    if library == "polars":
        return pl.DataFrame(
            {name: _plain(FRAME[name]) for name in FRAME}, schema_overrides={"category": pl.Categorical}
        )
    pa = pytest.importorskip("pyarrow")
    if library == "pandas with Arrow types":
        return pd.DataFrame({name: pd.Series(_arrow(pa, name)) for name in FRAME})
    table = pa.table({name: _arrow_array(pa, name) for name in FRAME})
    return table if library == "pyarrow" else Capsule(table)


def _plain(series):
    return [None if pd.isna(value) else value for value in series.astype(object)]


def _arrow_array(pa, name):
    array = pa.array(_plain(FRAME[name]))
    return array.dictionary_encode() if name == "category" else array


def _arrow(pa, name):
    return pd.array(_arrow_array(pa, name), dtype=pd.ArrowDtype(_arrow_array(pa, name).type))


class Capsule:
    """A frame of an unknown library that speaks Arrow's protocol."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)

    def __len__(self):
        return len(self.table)

    @property
    def shape(self):
        return self.table.shape


@pytest.mark.parametrize("library", ["polars", "pyarrow", "pandas with Arrow types", "Arrow's protocol"])
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_every_library_gives_the_same_model(library):
    """A model of a pandas frame predicts another library's to the same bits, and one fitted on that is the same
    model."""
    expected = fitted(FRAME).predict_proba(FRAME)
    table = in_library(library)
    np.testing.assert_array_equal(fitted(FRAME).predict_proba(table), expected)
    model = fitted(table)
    np.testing.assert_array_equal(model.predict_proba(table), expected)
    assert [column.describe() for column in model.columns_] == [column.describe() for column in fitted(FRAME).columns_]


def test_rows_of_a_list():
    """Values keep their types: numbers beside text stay numbers."""
    rows = [[1.0, "a", True, None], [2.0, "b", False, 3], [0.5, None, None, 4]] * 20
    model = fitted(rows)
    assert [column.treatment for column in model.columns_] == ["number", "category", "category", "number"]
    assert model.predict_proba([[1.0, "a", True, None]]).shape == (1, 2)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint64", "float16", "bool", "U3", "S3", "O", "datetime64[D]", "timedelta64[s]"]
)
def test_arrays(dtype):
    """Of any type that has a place in a table."""
    X = RNG.randint(2, size=(N, 2)).astype("int64" if "64[" in dtype else "int8").astype(dtype)
    assert fitted(X).predict(X).shape == (N,)


def test_masked_values_are_missing():
    """Of a masked array of numbers or objects."""
    text = np.array([pick("a", "b", "c")] * 2, dtype=object).T
    for X in (np.ma.masked_equal(RNG.randint(4, size=(N, 2)), 3), np.ma.masked_array(text, text == "c")):
        column = fitted(X).columns_[0]
        assert (column.missing, 3 in column.edges, "c" in column.categories) == (True, False, False)


# --- categories ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "features",
    [[1], [False, True], ["code"], np.array([1]), ("code",), ["code", 1], np.array(["code"]), [np.int64(1)]],
    ids=str,
)
def test_categorical_features(features):
    """Indices, a mask or names; they make numbers categories."""
    frame = pd.DataFrame({"number": np.arange(N), "code": pick(1, 2, 30)})
    model = fitted(frame, categorical_features=features)
    assert model.columns_[1].categories == (1, 2, 30)
    assert model.categories_ == {"code": [1, 2, 30]}
    as_float = frame.astype({"code": float})
    np.testing.assert_array_equal(model.predict_proba(as_float), model.predict_proba(frame))


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (
            [2],
            r"holds 2, which is not a column of X. It takes names of columns \('a', 'b'\), indices from 0 to 1",
        ),
        (["no"], "'no'"),
        ([True], "2 columns"),
        ([[1]], "one-dimensional"),
        ([-1], "holds -1, which is not a column"),
        (["a", 2], "holds 2, which is not a column"),
        ([False, True, 1], "holds False, which is not a column"),
        ([1.0], "holds 1.0, which is not a column"),
        ({"code"}, "must be a list of columns, got a set: make a list of it, \\['code'\\]"),
        ({"code": 1}, "must be a list of columns, got a dict"),
        ("code", "Take a list"),
        (1, "Take a list"),
    ],
)
def test_wrong_categorical_features(features, words):
    """The message says what was expected."""
    with pytest.raises(ValueError, match=words):
        fitted(pd.DataFrame({"a": np.arange(N), "b": np.arange(N)}), categorical_features=features)


IDS = [2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, 2**63 - 2, -(2**53) - 1, 5]
INTEGERS = {
    "pandas": lambda ids: pd.DataFrame({"id": ids, "x": 0.0}),
    "pandas Int64": lambda ids: pd.DataFrame({"id": pd.array(ids, dtype="Int64"), "x": 0.0}),
    "pandas objects": lambda ids: pd.DataFrame({"id": np.array(ids, dtype=object), "x": 0.0}),
    "pandas categories": lambda ids: pd.DataFrame({"id": pd.Categorical(ids), "x": 0.0}),
    "pandas Arrow": lambda ids: pd.DataFrame({"id": pd.array(ids, dtype="int64[pyarrow]"), "x": 0.0}),
    "decimals": lambda ids: pd.DataFrame({"id": [decimal.Decimal(i) for i in ids], "x": 0.0}),
    "polars": lambda ids: pl.DataFrame({"id": ids, "x": [0.0] * len(ids)}),
    "Arrow": lambda ids: pytest.importorskip("pyarrow").table({"id": ids, "x": [0.0] * len(ids)}),
    "array": lambda ids: np.column_stack([np.array(ids), np.zeros(len(ids), int)]),
    "list": lambda ids: [[i, 0] for i in ids],
}


@pytest.mark.filterwarnings("ignore:X has feature names|X does not have valid feature names")
@pytest.mark.parametrize("name", INTEGERS)
def test_integers_that_float64_rounds_are_different_categories(name, tmp_path):
    """Identifiers, for example; in files too."""
    ids = pick(*IDS)
    table = INTEGERS[name](ids)
    model = fitted(table, categorical_features=[0])
    assert model.columns_[0].categories == tuple(sorted(IDS))
    assert len(np.unique(model.predict_proba(table)[:, 0])) == len(IDS)
    model.save(tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").columns_[0].categories == tuple(sorted(IDS))


def test_floats_that_were_integers_are_warned_of():
    """As pandas makes of integers with gaps: what was different is the same."""
    ids = pd.Series([*pick(*IDS)[:-1], None])
    assert ids.dtype == np.float64
    frame = pd.DataFrame({"id": ids, "x": 0.0})
    with pytest.warns(UserWarning, match=r"Column 'id' holds categories as floats beyond 2\*\*53.*Int64") as caught:
        fitted(frame, categorical_features=["id"])
    assert all(one.filename == __file__ for one in caught)
    model = fitted(frame.assign(id=pick(*IDS)), categorical_features=["id"])
    with pytest.warns(UserWarning, match="Column 'id' holds categories as floats"):
        model.predict(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted(frame)  # numbers
        fitted(frame.assign(id=pick(1.5, 2e15, None)), categorical_features=["id"])


@pytest.mark.parametrize("gap", [None, pd.NA])
def test_gaps_among_large_integers(gap):
    ids = [*pick(*IDS)[:-2], gap, gap]
    column = only(pd.array(ids, dtype="Int64"), categorical_features=["x"])
    assert column.missing
    assert set(column.categories) <= set(IDS)
    assert 2**53 + 1 in column.categories


def test_integers_beyond_64_bits_are_categories():
    column = only(np.array(pick(10**400, 10**400 + 1, 1.5, 2), dtype=object), categorical_features=["x"])
    assert column.categories == (1.5, 2, 10**400, 10**400 + 1)


# What a column of categories held in fit, what it holds later, and the same as in fit; None if it is not the same.
CHANGES = {
    "integers, text": ([1, 2, 30], ["1", "2"], None),
    "text, integers": (["1", "2", "30"], [1, 2], None),
    "categories, text": (pd.Categorical([1, 2, 30]), ["1", "30"], None),
    "text, categories": (["a", "b"], pd.Categorical([1, 2]), None),
    "truth values, text": ([True, False], ["True", "False"], None),
    "text, truth values": (["True", "False"], [True, False], None),
    "integers, words": ([1, 2, 30], ["a", "b"], None),
    "integers, floats": ([1, 2, 30], [1.0, 30.0], [1, 30]),
    "floats, integers": ([1.0, 2.0, 30.0], [2, 30], [2.0, 30.0]),
    "integers, objects": ([1, 2, 30], np.array([1, 30], dtype=object), [1, 30]),
    "truth values, integers": ([True, False], [1, 0], [True, False]),
    "truth values, floats": ([True, False], [1.0, 0.0], [True, False]),
    "integers, truth values": ([1, 0], [True, False], [1, 0]),
    "categories, integers": (pd.Categorical([1, 2, 30]), [1, 30], pd.Categorical([1, 30])),
    "text, categories of text": (["a", "b"], pd.Categorical(["b", "a"]), ["b", "a"]),
    "dates, their text": (DAYS[:3], ["2024-01-01", "2024-01-03"], [DAYS[0], DAYS[2]]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_categories_of_another_type_are_known_or_named(name):
    """Text is no number: all of it would count as unseen."""
    before, later, same = CHANGES[name]
    values = pd.Series(before)
    x = pd.concat([values] * N, ignore_index=True)[:N].astype(values.dtype)
    frame = pd.DataFrame({"number": np.arange(N), "x": x})
    model = fitted(frame, categorical_features=["x"])
    changed = pd.DataFrame({"number": np.arange(len(later)), "x": later})
    if same is not None:
        np.testing.assert_array_equal(model.predict_proba(changed), model.predict_proba(changed.assign(x=same)))
        return
    words = "Column 'x' held (numbers|text) as categories in fit, .* now, .*: convert it to the type that it had"
    with pytest.raises(TypeError, match=words):
        model.predict(changed)
    with pytest.raises(TypeError, match=words):
        fitted(frame, categorical_features=["x"], eval_set=(changed, Y[: len(later)]))


def test_some_categories_of_another_type_count_as_missing():
    """Where others are known, or nothing but gaps is there."""
    frame = pd.DataFrame({"number": np.arange(N), "x": pick("a", "b", None)})
    model = fitted(frame)
    missing = model.predict_proba(frame.assign(x=None))
    mixed = model.predict_proba(frame.assign(x=["a"] + [1] * (N - 1)))
    np.testing.assert_array_equal(mixed[1:], missing[1:])


def test_unknown_categories_count_as_missing():
    """Whether or not there were gaps in fit."""
    for text in (pick("a", "b"), pick("a", "b", None)):
        frame = pd.DataFrame({"number": np.arange(N), "text": text})
        model = fitted(frame)
        unknown, missing = model.predict_proba(frame.assign(text="new")), model.predict_proba(frame.assign(text=None))
        np.testing.assert_array_equal(unknown, missing)


@pytest.mark.parametrize("value", [datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, 3), datetime.timedelta(2)])
def test_dates_among_words_are_the_same_category_in_a_row_alone(value):
    """The type of a single row's column is that of its value."""
    frame = pd.DataFrame({"x": [value, "never"] * (N // 2), "number": np.arange(N)})
    model = fitted(frame)
    alone = [model.predict_proba(frame[i : i + 1])[0] for i in range(2)]
    np.testing.assert_array_equal(alone, model.predict_proba(frame)[:2])


def test_categories_with_one_name_are_one():
    """Durations are read to the microsecond."""
    categories = pd.Categorical([pd.Timedelta(1), pd.Timedelta(2), pd.Timedelta(5000)] * (N // 3))
    assert only(categories).categories == ("0:00:00", "0:00:00.000005")


def test_many_categories_share_an_input():
    """50,000 categories of a declared column: the most frequent have an input each, and a rare one is not an unknown
    one."""
    n = 60_000
    codes = np.concatenate([np.arange(50_000), np.repeat(np.arange(10), 1000)])
    column = np.array([f"c{code}" for code in codes], dtype=object)
    frame = pd.DataFrame({"x": pd.Categorical(column), "y": np.arange(n) % 7})
    settings = {**SMALL, "max_categories": 20, "max_iter": 1}
    model = TabularRegressor(**settings).fit(frame, np.arange(n) % 3)
    assert (len(model.columns_[0].categories), len(model.columns_[0].grouped)) == (19, 49_981)
    assert model.columns_[0].describe() == "19 categories, 49981 rarer ones as one"
    assert {f"c{code}" for code in range(10)} <= set(model.columns_[0].categories)
    rows = frame[:1].assign(x="c40000"), frame[:1].assign(x="c40001"), frame[:1].assign(x="never")
    rare, other_rare, unknown = (model.predict(row)[0] for row in rows)
    assert rare == other_rare != unknown


def test_too_much_text_is_an_error():
    """Above 1,000 different values, unless it is declared; text that reads as numbers or dates gets other advice."""
    n = 1500
    y = np.arange(n) % 2
    frame = pd.DataFrame({"name": [f"person {i}" for i in range(n)], "x": np.arange(n)})
    with pytest.raises(ValueError, match=r"Column 'name' is text with 1500 different values, more than 1000 .*drop it"):
        TabularClassifier(**SMALL).fit(frame, y)
    with pytest.raises(ValueError, match=r"Column 'name' .*convert it to numbers"):
        TabularClassifier(**SMALL).fit(frame.assign(name=[f"{i},000.5" for i in range(n)]), y)
    days = pd.date_range("2020", periods=n).strftime("%Y-%m-%d")
    with pytest.raises(ValueError, match=r"Column 'name' .*convert it to dates"):
        TabularClassifier(**SMALL).fit(frame.assign(name=days), y)
    declared = TabularClassifier(**SMALL, categorical_features=["name"]).fit(frame, y)
    assert declared.columns_[0].n_inputs == 256


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pd.Series([[1, 2]] * N), "Column 'x' holds a list"),
        (pd.Series([{"a": 1}] * N), "Column 'x' holds a dict"),
        (pd.Series([object()] * N), "Column 'x' holds objects of type object"),
        (np.full(N, 1j), "Column 'x' holds complex numbers"),
        (np.where(np.arange(N) == 3, np.inf, 0.5), "Column 'x' holds inf: replace"),
        (np.where(np.arange(N) == 3, -np.inf, 0.5), "Column 'x' holds -inf: replace"),
    ],
)
def test_impossible_column_is_named(values, words):
    """With what it holds, and the remedy."""
    with pytest.raises((TypeError, ValueError), match=words):
        only(values)


@pytest.mark.parametrize(
    ("later", "words"),
    [
        ({"number": ["a"] * N}, "Column 'number' held numbers in fit, and holds text now"),
        ({"number": pd.date_range("2024", periods=N)}, "Column 'number' held numbers in fit, and holds dates now"),
        ({"date": np.arange(N)}, "Column 'date' held dates in fit, and holds numbers now"),
        ({"number": np.full(N, np.inf)}, "Column 'number' holds inf"),
    ],
)
def test_later_column_of_another_kind_is_named(later, words):
    """Numbers must stay numbers, dates dates."""
    frame = pd.DataFrame({"number": np.arange(N), "date": pd.date_range("2024", periods=N)})
    with pytest.raises((TypeError, ValueError), match=words):
        fitted(frame).predict(frame.assign(**later))


def test_later_columns_may_be_empty():
    """All missing, in any type."""
    model = fitted(FRAME)
    empty = pd.DataFrame(dict.fromkeys(FRAME, [None] * 3))
    assert np.isfinite(model.predict_proba(empty)).all()


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (sparse.csr_matrix(np.eye(N)), "dense data is required"),
        (pl.DataFrame({"a": np.arange(N)}).lazy(), "collect"),
        ("text", "data frame"),
        ({"a": [1, 2]}, "pandas.DataFrame"),
        ([{"a": 1}, {"a": 2}], "list of dicts.*pandas.DataFrame"),
        (pd.Series(np.ones(N)), "Reshape your data.*to_frame"),
        (pl.Series(np.ones(N)), "Reshape your data.*to_frame"),
        (pd.DataFrame(np.ones((N, 2)), columns=["a", "a"]), "more than one column named 'a'"),
        ([[1, 2], [1]], "rows of one length"),
        (np.ones(N), "Reshape your data"),
        ([1, 2, 3], "Reshape your data"),
        (pd.DataFrame(index=range(N)), "0 feature"),
        (np.ones((0, 2)), "0 sample"),
        (np.ones((N, 2), dtype=complex), "Complex data"),
    ],
)
def test_no_table(X, words):
    """What is not a table is an error that says so."""
    with pytest.raises((TypeError, ValueError), match=words):
        fitted(X)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_column_names_are_checked():
    """Other names, and another order, are errors, as in scikit-learn."""
    model = fitted(FRAME)
    assert model.feature_names_in_.tolist() == list(FRAME)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(FRAME[list(FRAME)[::-1]])
    with pytest.raises(ValueError, match="features"):
        model.predict(FRAME.to_numpy()[:, :3])


def test_columns_are_printed_as_a_table():
    """A line for each, below a line with the names."""
    lines = repr(fitted(FRAME).columns_).splitlines()
    assert lines[0].split() == ["column", "type", "inputs", "treatment"]
    assert lines[3].endswith("2 categories, missing values marked")
    assert len(lines) == 1 + FRAME.shape[1]


def test_dates_with_a_zone_at_the_ends_of_the_calendar():
    """In UTC they are later, or earlier, than what Python's own dates hold."""
    west, east = (datetime.timezone(datetime.timedelta(hours=hours)) for hours in (-5, 5))
    ends = [datetime.datetime.max.replace(tzinfo=west), datetime.datetime.min.replace(tzinfo=east)]
    column = only(np.array(pick(*ends, datetime.datetime(2020, 1, 1)), dtype=object))
    assert (column.kind, column.treatment) == ("date", "number")
    days = datetime.datetime.max - datetime.datetime(1970, 1, 1) + datetime.timedelta(hours=5)
    assert column.edges[-1] == pytest.approx(days.total_seconds() / 86_400, rel=1e-12)


def test_signalling_nan_is_a_gap():
    for gap in (decimal.Decimal("sNaN"), decimal.Decimal("NaN")):
        column = only(np.array([gap, decimal.Decimal(1), decimal.Decimal(2)] * (N // 3), dtype=object))
        assert (column.treatment, column.missing) == ("number", True)


def test_categories_of_lone_surrogates_are_saved(tmp_path):
    frame = pd.DataFrame({"x": pd.Series(pick("\ud800", "b"), dtype=object), "number": np.arange(N)})
    model = fitted(frame)
    model.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.columns_[0].categories == ("b", "\ud800")
    np.testing.assert_array_equal(loaded.predict_proba(frame), model.predict_proba(frame))
    assert "2 categories" in repr(model.columns_)


# --- what is probably something else --------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "words"), [
    ([f"2020-01-{i % 28 + 1:02}" for i in range(60)], "look like dates .*pandas.to_datetime"),
    ([f"{i % 28 + 1}.3.2024" for i in range(60)], "look like dates"),
    ([f"1,{i:03}" for i in range(60)], "look like numbers .*pandas.to_numeric"),
    ([*(f"${i / 2}" for i in range(58)), "?", None], "look like numbers"),
    ([f"Miss Jones {i}" for i in range(60)], "60 different values in 60 rows .*Drop it if it is a key"),
])  # fmt: skip
def test_text_that_is_no_category_is_said(values, words):
    """Once for the column; not if it is named as one of categories."""
    frame = pd.DataFrame({"a": np.arange(60.0), "d": values})
    with pytest.warns(UserWarning, match=f"Column 'd' is text .*{words}"):
        columns = learn_columns(Table(frame), np.array([False, False]), None, 48, 256)
    assert columns[1].treatment == "category"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn_columns(Table(frame), np.array([False, True]), None, 48, 256)


@pytest.mark.parametrize("values", [
    [f"{80331 + i % 25}" for i in range(60)],  # postal codes
    [f"2024-0{i % 9 + 1}" for i in range(60)],  # few
    [f"town {i % 25}" for i in range(60)],
])  # fmt: skip
def test_text_of_categories_is_not(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn_columns(Table(pd.DataFrame({"d": values})), np.array([False]), None, 48, 256)


@pytest.mark.parametrize("values", [2**60 + np.arange(9), np.array([2**70 + i for i in range(9)], dtype=object)])
def test_integers_that_are_one_float(values):
    """Are not called constant."""
    with pytest.warns(UserWarning, match="Column 'd' was dropped: .* Subtract the smallest"):
        (column,) = learn_columns(Table(pd.DataFrame({"d": values})), np.array([False]), None, 48, 256)
    assert (column.treatment, column.remark) == ("dropped", "the same in float64")


def test_record_batches_and_periods():
    """A batch of Arrow, and pandas' periods as objects: a row of a frame holds such."""
    pa = pytest.importorskip("pyarrow")
    batch = pa.record_batch({"s": ["a", "b", None], "x": [1.0, 2.0, None]})
    assert Table(batch).column(0).labels == ["a", "b"]
    np.testing.assert_array_equal(Table(batch).column(1).numbers, [1, 2, np.nan])
    periods = pd.DataFrame({"p": pd.period_range("2024-01", periods=3, freq="M")})
    np.testing.assert_array_equal(Table(periods.astype(object)).column(0).numbers, Table(periods).column(0).numbers)


def test_records_become_a_frame_first():
    """Of NumPy and of Python."""
    record = dataclasses.make_dataclass("Record", ["a", "b"])
    for X, kind in (
        (np.zeros(N, dtype=[("a", float), ("b", int)]), "records"),
        ([record(1, 2)] * N, "a list of dataclasses"),
    ):
        with pytest.raises(TypeError, match=f"got {kind}. pandas.DataFrame"):
            fitted(X)


@pytest.mark.parametrize(("before", "now", "words"), [
    (np.arange(N), ["1"] * N,
        "held numbers in fit, and holds text now: convert it to numbers first .pandas.to_numeric"),
    (pd.date_range("2024", periods=N), ["2024-01-01"] * N,
        "held dates in fit, and holds text now: .* .pandas.to_datetime"),
])  # fmt: skip
def test_another_kind_of_value_later(before, now, words):
    """With what to do."""
    model = fitted(pd.DataFrame({"x": before}))
    with pytest.raises(TypeError, match=f"Column 'x' {words}"):
        model.predict(pd.DataFrame({"x": now}))


def test_labels_without_an_order():
    """Members of an enumeration are named, with what to do."""
    colour = enum.Enum("Colour", ["RED", "BLUE"])
    with pytest.raises(TypeError, match=r"labels of type Colour\. Convert them to strings or numbers"):
        TabularClassifier(**SMALL).fit(np.zeros((4, 1)), [colour.RED, colour.BLUE] * 2)
