"""Data as people have them: whatever holds the same numbers trains to the same bits; what holds none is refused in
scikit-learn's words."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import classification, output_of, varied
from scipy import sparse
from sklearn import neural_network as sklearn_mlp
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.preprocessing import LabelBinarizer

from fastmlp import (
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPRegressor,
    Network,
    PiecewiseLinearEncoder,
    RowPredictor,
    TabularClassifier,
    core,
)
from fastmlp.estimators.validation import messages, rows
from fastmlp.estimators.validation.labels import classes_of

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# Small whole numbers, which float16 and int8 hold too; a fifth of them 0, for sparse forms.
DRAWS = np.random.RandomState(0)
X = varied(DRAWS.randint(-8, 9, (60, 4)) * (DRAWS.rand(60, 4) > 0.2)).astype(np.float64)
Y = varied((X[:, 0] + X[:, 1] > 0).astype(int))
NAMES = ["age", "size", "rate", "rank"]
SETTINGS = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0}


class Arrayish:
    """Something of another library that NumPy can read."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)


def read_only(array):
    """A copy that must not be written to."""
    array = array.copy()
    array.flags.writeable = False
    return array


def long_indices(array):
    """CSR with 64-bit indices."""
    csr = sparse.csr_array(array)
    csr.indices, csr.indptr = csr.indices.astype(np.int64), csr.indptr.astype(np.int64)
    return csr


def unsorted(array):
    """CSR whose columns do not increase along a row."""
    csr = sparse.csr_array(array)
    for first, last in zip(csr.indptr[:-1], csr.indptr[1:], strict=True):
        csr.indices[first:last], csr.data[first:last] = (
            csr.indices[first:last][::-1].copy(),
            csr.data[first:last][::-1].copy(),
        )
    csr.has_sorted_indices = False
    return csr


DENSE = {
    "list": lambda a: a.tolist(),
    "Fortran order": np.asfortranarray,
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "every third row": lambda a: np.repeat(a, 3, axis=0)[1::3],
    "negative strides": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "read-only": read_only,
    "masked without a mask": lambda a: np.ma.masked_array(a, np.zeros(a.shape, bool)),
    "big-endian float64": lambda a: a.astype(">f8"),
    "big-endian float32": lambda a: a.astype(">f4"),
    "little-endian float64": lambda a: a.astype("<f8"),
    "float16": lambda a: a.astype(np.float16),
    "float32": lambda a: a.astype(np.float32),
    "int8": lambda a: a.astype(np.int8),
    "int64": lambda a: a.astype(np.int64),
    "object of floats": lambda a: a.astype(object),
    "object of ints": lambda a: a.astype(int).astype(object),
    "object of number words": lambda a: a.astype(str).astype(object),
    "__array__": Arrayish,
}
SPARSE = {
    cls.__name__: cls
    for kind in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia")
    for cls in (getattr(sparse, kind + "_matrix"), getattr(sparse, kind + "_array"))
} | {
    "int64 indices": long_indices,
    "unsorted indices": unsorted,
    "sparse integers": lambda a: sparse.csr_array(a.astype(int)),
    "sparse float32": lambda a: sparse.csc_array(a.astype(np.float32)),
}
FRAMES = {
    "pandas": lambda a: pd.DataFrame(a, columns=NAMES),
    "pandas integers": lambda a: pd.DataFrame(a.astype(int), columns=NAMES),
    "pandas mixed": lambda a: pd.DataFrame(a, columns=NAMES).astype(
        {"age": "float32", "size": "int16", "rate": object}
    ),
    "pandas Int64": lambda a: pd.DataFrame(a, columns=NAMES).astype("Int64"),
    "pandas Float64": lambda a: pd.DataFrame(a, columns=NAMES).astype("Float64"),
    "pandas Float32": lambda a: pd.DataFrame(a, columns=NAMES).astype("Float32"),
    "pandas mixed with nullable": lambda a: pd.DataFrame(a, columns=NAMES).astype({"age": "Int64", "size": "Float64"}),
    "pandas sparse": lambda a: pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(a), columns=NAMES),
    "polars": lambda a: pl.DataFrame(a, schema=NAMES),
    "polars integers": lambda a: pl.DataFrame(a.astype(int), schema=NAMES),
    "polars mixed": lambda a: pl.DataFrame(a, schema=NAMES).with_columns(
        pl.col("age").cast(pl.Float32), pl.col("size").cast(pl.Int8)
    ),
}
FORMS = DENSE | SPARSE | FRAMES


def trained(form=np.asarray, labels=np.asarray, **settings):
    """A classifier trained in float64 on X and Y in these forms."""
    return MLPClassifier(**SETTINGS, dtype="float64", **settings).fit(form(X), labels(Y))


@pytest.mark.parametrize("name", FORMS)
def test_forms_train_and_predict_to_the_same_bits(name):
    """fit, partial_fit, predict and an eval_set read a form as the plain array that it stands for."""
    form, plain = FORMS[name], trained()
    fitted = trained(form)
    assert np.array_equal(fitted.network_.parameters, plain.network_.parameters)
    assert np.array_equal(fitted.predict_proba(form(X)), plain.predict_proba(X))
    want, got = (e.partial_fit(f(X), Y).network_.parameters for e, f in ((plain, np.asarray), (fitted, form)))
    assert np.array_equal(got, want)
    assert list(getattr(fitted, "feature_names_in_", [])) == (NAMES if name in FRAMES else [])


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_an_eval_set_score_the_same(name):
    form, settings = FORMS[name], {**SETTINGS, "dtype": "float64"}
    plain = MLPClassifier(**settings).fit(X, Y, eval_set=(X[:30], Y[:30]))
    given = pd.DataFrame(X, columns=NAMES) if name in FRAMES else X
    got = MLPClassifier(**settings).fit(given, Y, eval_set=(form(X[:30]), Y[:30]))
    assert got.validation_loss_curve_ == plain.validation_loss_curve_
    assert got.validation_scores_ == plain.validation_scores_


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("name", FORMS)
def test_forms_are_those_that_sklearn_takes(name):
    """Nobody has to convert what scikit-learn's MLP reads: same type of the result, same loss."""
    ours, theirs = (
        module.fit(FORMS[name](X), Y) for module in (MLPClassifier(**SETTINGS), sklearn_mlp.MLPClassifier(**SETTINGS))
    )
    assert ours.predict_proba(X).dtype == ours.network_.dtype == theirs.coefs_[0].dtype


@pytest.mark.parametrize("form", [
    lambda a: a, lambda a: pd.DataFrame(a).astype("boolean"), lambda a: pl.DataFrame(a), sparse.csr_array,
    lambda a: a.astype(object),
], ids=["array", "pandas", "polars", "sparse", "object"])  # fmt: skip
def test_booleans_are_zeros_and_ones(form):
    settings = {**SETTINGS, "dtype": "float64"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X has feature names|X does not have")
        got = MLPClassifier(**settings).fit(form(X > 0), Y)
    assert np.array_equal(
        got.network_.parameters, MLPClassifier(**settings).fit((X > 0).astype(float), Y).network_.parameters
    )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_memory_maps_are_read_where_they_are(tmp_path, order, dtype, monkeypatch):
    """Read-only, in either order; the core gets the map itself, not a copy."""
    mapped = np.memmap(tmp_path / "x", dtype, "w+", shape=X.shape, order=order)
    mapped[:] = X
    mapped.flush()
    mapped = np.memmap(tmp_path / "x", dtype, "r", shape=X.shape, order=order)
    handed_down = []
    original = MLPClassifier._train
    monkeypatch.setattr(
        MLPClassifier, "_train", lambda self, run, *rest: (handed_down.append(run.data.X), original(self, run, *rest))
    )
    got = MLPClassifier(**SETTINGS).fit(mapped, Y)
    assert np.shares_memory(handed_down[0], mapped)
    assert np.array_equal(
        got.network_.parameters, MLPClassifier(**SETTINGS).fit(X.astype(dtype), Y).network_.parameters
    )
    assert np.array_equal(got.predict_proba(mapped), got.predict_proba(np.array(mapped)))


LABELS = {
    "list": (lambda y: y.tolist(), False),
    "tuple": (lambda y: tuple(y.tolist()), False),
    "column": (lambda y: y[:, np.newaxis], True),
    "Series": (pd.Series, False),
    "Series with an index": (lambda y: pd.Series(y, index=np.arange(len(y))[::-1] + 7), False),
    "DataFrame of one column": (lambda y: pd.DataFrame({"y": y}), True),
    "Int64": (lambda y: pd.Series(y).astype("Int64"), False),
    "boolean": (lambda y: pd.Series(y == 1).astype("boolean"), False),
    "polars": (pl.Series, False),
    "polars of one column": (lambda y: pl.DataFrame({"y": y}), True),
    "bool": (lambda y: y == 1, False),
    "float16": (lambda y: y.astype(np.float16), False),
    "big-endian": (lambda y: y.astype(">i4"), False),
    "read-only": (read_only, False),
    "negative strides": (lambda y: np.ascontiguousarray(y[::-1])[::-1], False),
    "words": (lambda y: np.where(y, "yes", "no"), False),
    "words as objects": (lambda y: np.where(y, "yes", "no").astype(object), False),
    "words in pandas": (lambda y: pd.Series(np.where(y, "yes", "no"), dtype="string"), False),
    "categories": (lambda y: pd.Series(pd.Categorical.from_codes(y, ["no", "yes"])), False),
    "words in polars": (lambda y: pl.Series(np.where(y, "yes", "no")), False),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_train_to_the_same_bits(name):
    """In every form, with scikit-learn's warning for a column; and in an eval_set."""
    labels, warns = LABELS[name]
    plain = MLPClassifier(**SETTINGS).fit(X, Y, eval_set=(X, Y))
    for Estimator in (MLPClassifier, sklearn_mlp.MLPClassifier):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            got = Estimator(**SETTINGS).fit(X, labels(Y))
        assert {w.category for w in caught} == {ConvergenceWarning} | ({DataConversionWarning} if warns else set())
        assert (
            np.array_equal(got.predict(X) == got.classes_[1], plain.predict(X) == 1) or Estimator is not MLPClassifier
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = MLPClassifier(**SETTINGS).fit(X, labels(Y), eval_set=(X, labels(Y)))
    assert np.array_equal(got.network_.parameters, plain.network_.parameters)
    assert got.validation_scores_ == plain.validation_scores_


@pytest.mark.parametrize(
    "name", [name for name in LABELS if "word" not in name and name not in ("bool", "boolean", "categories")]
)
def test_targets_train_to_the_same_bits(name):
    """The same forms hold a regressor's numbers."""
    labels, warns = LABELS[name]
    plain = MLPRegressor(**SETTINGS).fit(X, Y, eval_set=(X, Y))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = MLPRegressor(**SETTINGS).fit(X, labels(Y), eval_set=(X, labels(Y)))
    assert {w.category for w in caught} == {ConvergenceWarning} | ({DataConversionWarning} if warns else set())
    assert np.array_equal(got.network_.parameters, plain.network_.parameters)
    assert got.validation_scores_ == plain.validation_scores_


def frame(**columns):
    """X as a DataFrame, some columns replaced."""
    return pd.DataFrame(X, columns=NAMES).assign(**columns)


def replaced(array, value):
    """A copy with one number of column 2 replaced."""
    array = array.copy()
    array[5, 2] = value
    return array


MIXED, HUGE = replaced(X.astype(object), "low"), np.full((len(X), 1), 10**400, object)
# X, y, scikit-learn's type of error, and what ours also says.
REFUSED = {
    "words": (frame(size="Rome"), Y, ValueError, "Column 'size' holds 'Rome'."),
    "words in two columns": (
        frame(size="Rome", rank="Oslo"),
        Y,
        ValueError,
        "Column 'size' holds 'Rome'. Column 'rank' holds 'Oslo'.",
    ),
    "words in polars": (
        pl.DataFrame(X, schema=NAMES).with_columns(size=pl.lit("Rome")),
        Y,
        ValueError,
        "Column 'size' holds 'Rome'.",
    ),
    "categories": (frame(size=pd.Categorical(["x", "y"] * 30)), Y, ValueError, "Column 'size' holds 'x'."),
    "dates": (frame(size=pd.Timestamp("2020-01-01")), Y, TypeError, "Column 'size' holds datetime64"),
    "NA": (frame().astype("Int64").mask(lambda f: f == 8), Y, ValueError, "Column 'age' holds "),
    "NA among booleans": (
        frame(age=pd.array([True, None] * 30, dtype="boolean")),
        Y,
        ValueError,
        "Column 'age' holds <NA>.",
    ),
    "null in polars": (
        pl.DataFrame(X, schema=NAMES).with_columns(size=pl.lit(None, pl.Float64)),
        Y,
        ValueError,
        "Column 'size' holds",
    ),
    "NaN in a frame": (frame(rate=np.nan), Y, ValueError, "Column 'rate' holds nan."),
    "infinity": (replaced(X, -np.inf), Y, ValueError, "Column 2 holds -inf."),
    "a word in an array": (MIXED, Y, ValueError, "Column 2 holds 'low'."),
    "None": (replaced(X.astype(object), None), Y, ValueError, "Column 2 holds None."),
    "a list in an array": (replaced(X.astype(object), [1, 2]), Y, (ValueError, TypeError), "Column 2 holds [1, 2]."),
    "an integer beyond float64": (replaced(X.astype(object), 10**400), Y, OverflowError, "Column 2 holds 1000"),
    "a word and such an integer": (
        np.hstack([MIXED[:, :3], HUGE]),
        Y,
        (ValueError, OverflowError),
        "'low'. Column 3 holds 1000",
    ),
    "all columns words": (
        np.full(X.shape, "low", object),
        Y,
        ValueError,
        "Column 2 holds 'low'. So it is with 1 more.",
    ),
    "matrix": (np.matrix(X), Y, TypeError, ""),
    "0-d": (np.float64(3), Y, ValueError, ""),
    "1-d": (X[:, 0], Y, ValueError, ""),
    "a Series": (pd.Series(X[:, 0]), Y, ValueError, ""),
    "3-d": (X[np.newaxis], Y, ValueError, ""),
    "None alone": (None, Y, ValueError, ""),
    "a word": ("both", Y, ValueError, ""),
    "a dict": ({"age": X[:, 0]}, Y, TypeError, ""),
    "complex": (X + 1j, Y, ValueError, ""),
    "mixed names": (pd.DataFrame(X, columns=["a", "b", 0, 1]), Y, TypeError, ""),
    "masked": (np.where(X > 7, np.nan, X), Y, ValueError, "holds nan."),
    "y of NA": (X, pd.Series(Y).astype("Int64").mask(Y == 1), ValueError, ""),
    "y of null": (X, pl.Series([None, *Y.tolist()[1:]]), ValueError, ""),
    "y of words and NA": (
        X,
        pd.Series(np.where(Y, "yes", None), dtype="string"),
        TypeError,
        "missing ones: NAType, str.",
    ),
    "y of words and None": (X, np.where(Y, "yes", None), TypeError, "missing ones: NoneType, str."),
    "y of words and numbers": (
        X,
        np.array(["yes" if y else 0 for y in Y], dtype=object),
        TypeError,
        "missing ones: number, str.",
    ),
    "0-d y": (X, np.int64(1), TypeError, ""),
    "sparse y": (X, sparse.csr_matrix(Y[:, np.newaxis]), (TypeError, ValueError), ""),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_bad_forms_are_refused_in_sklearns_words(name):
    """Same type and words as scikit-learn's MLP, the columns at fault, and nothing has changed."""
    bad_X, bad_y, kind, words = REFUSED[name]
    with pytest.raises(kind) as theirs:
        sklearn_mlp.MLPClassifier(**SETTINGS).fit(bad_X, bad_y)
    fresh = MLPClassifier(**SETTINGS)
    with pytest.raises(kind) as ours:
        fresh.fit(bad_X, bad_y)
    first_line = str(theirs.value).splitlines()[0].split("array=")[0]
    if name == "dates":  # NumPy's text on promotion does not help
        first_line = "Input X must be numbers."
    assert first_line in str(ours.value)
    assert words in str(ours.value)
    assert vars(fresh) == vars(MLPClassifier(**SETTINGS))


@pytest.mark.parametrize("name", ["words", "words in polars", "NA", "infinity", "a word in an array"])
def test_columns_are_named_wherever_x_is_read(name):
    """predict, partial_fit and eval_set, too; an eval_set's error says that it is one."""
    bad_X, _, kind, words = REFUSED[name]
    fitted = MLPClassifier(**SETTINGS).fit(frame() if hasattr(bad_X, "columns") else X, Y)
    given = frame() if hasattr(bad_X, "columns") else X
    for call in (fitted.predict, fitted.predict_proba, lambda bad: fitted.partial_fit(bad, Y)):
        with pytest.raises(kind, match=words):
            call(bad_X)
    with pytest.raises(kind, match=r"(?s)eval_set must be one pair \(X, y\).*" + words):
        fitted.fit(given, Y, eval_set=(bad_X, Y))


def test_numbers_at_fault_are_not_looked_for_without_an_error(monkeypatch):
    """Naming columns costs nothing where nothing is wrong."""
    monkeypatch.setattr(messages, "_columns", lambda given: pytest.fail("looked at"))
    MLPClassifier(**SETTINGS).fit(frame(), Y).predict(frame())


# --- names of features ---------------------------------------------------------------------------------------------


PREDICTIONS = ("predict", "predict_proba", "predict_log_proba")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", PREDICTIONS)
def test_names_are_looked_at_before_the_fast_path(method, dtype):
    """A plain array may go straight down only where no names were learnt; a frame never."""
    plain = X.astype(dtype)
    named, nameless = MLPClassifier(**SETTINGS).fit(frame().astype(dtype), Y), MLPClassifier(**SETTINGS).fit(plain, Y)
    with pytest.warns(
        UserWarning, match="X does not have valid feature names, but MLPClassifier was fitted with feature names"
    ):
        got = getattr(named, method)(plain)
    with pytest.warns(UserWarning, match="X has feature names, but MLPClassifier was fitted without feature names"):
        also = getattr(nameless, method)(frame().astype(dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        want = getattr(named, method)(frame().astype(dtype))
        again = getattr(nameless, method)(plain)
    for each in (got, also, again):
        assert np.array_equal(each, want)


@pytest.mark.parametrize("method", PREDICTIONS)
def test_names_in_another_order_are_refused(method):
    fitted = MLPClassifier(**SETTINGS).fit(frame(), Y)
    for make in (pd.DataFrame, lambda data: pl.DataFrame({name: data[name].to_numpy() for name in data})):
        with pytest.raises(ValueError, match=r"(?s)feature names should match.*same order"):
            getattr(fitted, method)(make(frame()[NAMES[::-1]]))
        with pytest.raises(ValueError, match=r"(?s)feature names should match.*unseen at fit time.*weight"):
            getattr(fitted, method)(make(frame().rename(columns={"age": "weight"})))


PLAIN = (X, np.asfortranarray(X), X[::2], X.astype(np.float32), read_only(X))
NOT_PLAIN = (
    X.astype(int),
    X.astype(">f8"),
    X.tolist(),
    frame(),
    sparse.csr_array(X),
    replaced(X, np.nan),
    X[:0],
    X[:, :0],
)


def test_small_frames_take_the_fast_path(monkeypatch):
    """In a prediction, a small DataFrame of finite numbers with the columns of fit; nothing else."""
    named = pd.DataFrame(X, columns=NAMES)
    fitted = MLPClassifier(**SETTINGS).fit(named, Y)
    want, validate = fitted.predict_proba(named), rows.validate_data
    monkeypatch.setattr(rows, "validate_data", lambda *given, **how: pytest.fail("validated"))
    for count in (1, 7, len(named)):
        assert np.array_equal(fitted.predict_proba(named[:count]), want[:count])
    assert np.array_equal(fitted.predict_proba(named[::2]), want[::2])
    others = (
        named[:0], named[NAMES[::-1]], named[NAMES[1:]], named.rename(columns={"age": "old"}),
        named.replace(X[0, 0], np.nan), named.astype(object),
        named.astype("Float64").mask(named > 1), named.assign(age=pd.Timestamp(0)), named.assign(age=True),
        pl.DataFrame(X, schema=NAMES),
    )  # fmt: skip
    for other in others:
        with pytest.raises(pytest.fail.Exception, match="validated"):
            fitted.predict(other)
    monkeypatch.setattr(rows, "validate_data", validate)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(named[NAMES[::-1]])


def test_sparse_rows_take_the_fast_path(monkeypatch):
    """In a prediction, CSR of finite numbers, also with columns out of order; nothing else."""
    matrix = sparse.csr_matrix(X)
    fitted = MLPClassifier(**SETTINGS).fit(matrix, Y)
    backwards = np.concatenate([np.arange(matrix.indptr[i], matrix.indptr[i + 1])[::-1] for i in range(len(X))])
    unsorted = sparse.csr_matrix((matrix.data[backwards], matrix.indices[backwards], matrix.indptr), matrix.shape)
    assert not unsorted.has_sorted_indices
    want, few = fitted.predict_proba(matrix), unsorted[:1]
    monkeypatch.setattr(rows, "validate_data", lambda *given, **how: pytest.fail("validated"))
    for same in (matrix, unsorted, sparse.csr_array(unsorted)):
        assert np.array_equal(fitted.predict_proba(same), want)
    assert np.array_equal(fitted.predict_proba(few), want[:1])
    assert not few.has_sorted_indices
    missing = matrix.copy()
    missing.data[3] = np.nan
    for other in (missing, matrix[:, :3], matrix[:0], matrix.tocsc(), matrix.astype(int), matrix.astype(complex)):
        with pytest.raises(pytest.fail.Exception, match="validated"):
            fitted.predict(other)


def test_fast_path_is_fast(monkeypatch):
    """Plain arrays do not pass through scikit-learn's validation, neither of data nor of defaults; anything else
    does."""
    fitted = MLPClassifier(**SETTINGS).fit(X, Y)
    MLPRegressor(**SETTINGS).fit(X, X[:, 0])  # the defaults of each class are checked once
    checked = []
    monkeypatch.setattr(
        "fastmlp.estimators.validation.rows.validate_data", lambda *given, **how: pytest.fail("validated")
    )
    monkeypatch.setattr(
        "fastmlp.estimators.parameters.validate_parameter_constraints",
        lambda how, given, name: checked.append(set(given)),
    )
    for plain in PLAIN:
        fitted.predict(plain)
        MLPClassifier(**SETTINGS).fit(plain, Y[: len(plain)], eval_set=(plain, Y[: len(plain)]))
        MLPRegressor(**SETTINGS).fit(plain, plain[:, 0])
        MLPClassifier(**SETTINGS).fit(plain, Y[: len(plain)].astype(str))
    assert checked == [set(SETTINGS)] * 3 * len(PLAIN)
    for other in (*NOT_PLAIN, X[:, :3]):
        if not sparse.issparse(other):
            with pytest.raises(pytest.fail.Exception, match="validated"):
                fitted.predict(other)
    for other in NOT_PLAIN:
        with pytest.raises(pytest.fail.Exception, match="validated"):
            MLPClassifier(**SETTINGS).fit(other, Y)
    for other in (Y[:-1], Y.tolist(), Y.astype(object), Y.astype("S"), np.c_[Y, Y], np.r_[Y[1:], np.nan], pd.Series(Y)):
        with pytest.raises(pytest.fail.Exception, match="validated"):
            MLPClassifier(**SETTINGS).fit(X, other)
    with pytest.raises(pytest.fail.Exception, match="validated"):
        MLPRegressor(**SETTINGS).fit(X, Y.astype(str))


def test_fast_path_learns_what_sklearns_learns(monkeypatch):
    """The same attributes, also after a fit with names, and the same bits."""
    fitted = []
    for asked in (False, True):
        if asked:
            monkeypatch.setattr(rows, "is_plain_X", lambda *given: False)
        for plain in PLAIN:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", ConvergenceWarning)
                fitted.append(MLPClassifier(**SETTINGS).fit(frame(), Y).fit(plain, Y[: len(plain)]))
    for short, long in zip(fitted[: len(PLAIN)], fitted[len(PLAIN) :], strict=True):
        assert vars(short).keys() == vars(long).keys()
        assert short.n_features_in_ == long.n_features_in_ == 4
        assert not hasattr(short, "feature_names_in_")
        assert np.array_equal(short.network_.parameters, long.network_.parameters)


@pytest.mark.parametrize("values", [[2, 0], [5, -3, 7], [0], range(40), range(41), range(79)], ids=len)
@pytest.mark.parametrize("dtype", ["int64", "int8", "uint16", "bool", ">i4", "float64", "str", ">U2"])
def test_classes_are_sklearns(values, dtype):
    """Same labels of the same type, same kind of target, same warning where there are nearly as many as rows."""
    y = np.resize(list(values), 80).astype(dtype)
    heard, learnt = [], []
    for learn in (classes_of, lambda y: vars(LabelBinarizer().fit(y))):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            learnt.append(learn(y))
        heard.append([str(warning.message) for warning in caught])
    (classes, kind), theirs = learnt
    assert (classes.dtype, classes.tolist(), kind) == (
        theirs["classes_"].dtype,
        theirs["classes_"].tolist(),
        theirs["y_type_"],
    )
    assert heard[0] == heard[1]


def test_defaults_of_a_subclass_are_checked():
    """Only a default that is valid is passed over."""

    class Odd(MLPClassifier):
        def __init__(self, alpha=-1, tol=1e-3):
            super().__init__(alpha=alpha, tol=tol)

    for settings, name in (({}, "alpha"), ({"alpha": -1}, "alpha"), ({"alpha": 0, "tol": -1}, "tol")):
        with pytest.raises(ValueError, match=f"'{name}' parameter of Odd must be"):
            Odd(**settings).fit(X, Y)
    Odd(alpha=0).fit(X, Y)


def test_names_of_an_eval_set_are_held_to_those_of_x():
    """As X in predict: another order is an error, none at all a warning."""
    named, nameless = MLPClassifier(**SETTINGS), MLPClassifier(**SETTINGS)
    with pytest.raises(
        ValueError, match=r"(?s)eval_set must be one pair \(X, y\).*feature names should match.*same order"
    ):
        named.fit(frame(), Y, eval_set=(frame()[NAMES[::-1]], Y))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        named.fit(frame(), Y, eval_set=(X, Y))
    with pytest.warns(UserWarning, match="X has feature names"):
        nameless.fit(X, Y, eval_set=(frame(), Y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        named.fit(frame(), Y, eval_set=(frame(), Y)).fit(frame(), Y, eval_set=(pl.DataFrame(X, schema=NAMES), Y))


def test_names_of_a_further_partial_fit_are_held_to_the_first():
    fitted = MLPClassifier(**SETTINGS).partial_fit(frame(), Y, classes=[0, 1])
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.partial_fit(frame()[NAMES[::-1]], Y)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        fitted.partial_fit(X, Y)


def test_one_row_has_no_stride():
    """What stands between its numbers and a next row's is nobody's business; between its own numbers it must be
    theirs."""
    records = np.zeros(5, dtype=[("name", "S3"), ("x", "f8", 4)])
    records["x"] = np.arange(20).reshape(5, 4)
    unaligned = np.frombuffer(bytes(33), dtype=np.uint8)[1:].view(np.float64).reshape(1, 4)
    aligned = np.ndarray((1, 4), np.float64, np.zeros(8), strides=(35, 8))
    network = Network((4, 3, 2), dtype="float64", random_state=0)
    assert network.forward(aligned).tobytes() == network.forward(np.zeros((1, 4))).tobytes()
    one = np.ndarray((3, 1), np.float64, np.arange(8.0), strides=(8, 3))
    assert Network((1, 2), dtype="float64", random_state=0).forward(one).shape == (3, 2)
    for bad in (records["x"], unaligned):
        with pytest.raises(ValueError, match="aligned"):
            network.forward(bad)


@pytest.mark.parametrize("dtype", ["datetime64[D]", "timedelta64[s]"])
def test_dates_are_no_numbers(dtype):
    """NumPy would take days or nanoseconds for them. In X, when predicting too, and in a regressor's y; classes they
    may be."""
    X, y = classification(2, n=40)
    dates = np.arange(40).astype("int64").astype(dtype)
    for odd in (
        dates[:, np.newaxis],
        pd.DataFrame({"when": dates}),
        pl.DataFrame({"when": dates.astype(dtype[:-2] + "ms]")}),
    ):
        with pytest.raises(TypeError, match="X must be numbers, got "):
            MLPClassifier((4,), max_iter=2).fit(odd, y)
    one = MLPClassifier((4,), max_iter=2).fit(X[:, :1], y)
    with pytest.raises(TypeError, match="X must be numbers"):
        one.predict(dates[:, np.newaxis])
    for values in (dates, np.array(["1", "2"] * 20)):
        with pytest.raises(TypeError, match="y must be numbers"):
            MLPRegressor(hidden_layer_sizes=(4,), max_iter=2).fit(X, values)
    assert MLPClassifier((4,), max_iter=2).fit(X, np.where(y == 1, dates[0], dates[1])).classes_.dtype.kind in "mM"


def test_packed_records_are_read():
    X, y = classification(3)
    records = np.zeros(len(X), [("flag", "i1"), ("x", "f8", (X.shape[1],))])
    records["x"] = X
    settings = {"hidden_layer_sizes": (7,), "max_iter": 2, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want, got = MLPClassifier(**settings).fit(X, y), MLPClassifier(**settings).fit(records["x"], y)
    np.testing.assert_array_equal(got.predict_proba(records["x"]), want.predict_proba(X))


def shuffled_within_rows(matrix):
    """The same matrix with its elements in another order, as those of a vectoriser or of a product."""
    order = np.concatenate([
        np.arange(first, last)[::-1] for first, last in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    ])  # fmt: skip
    return type(matrix)((matrix.data[order], matrix.indices[order], matrix.indptr.copy()), shape=matrix.shape)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array])
def test_order_of_stored_elements_does_not_matter(container, dtype, solver, monkeypatch):
    """The core gets rows whose columns increase, for which alone it can skip zeros; the numbers are the same, and the
    user's matrix stays as it is."""
    ordered = container(sparse.random(300, 80, 0.05, format="csr", dtype=dtype, random_state=0))
    mixed, y = shuffled_within_rows(ordered), np.arange(300) % 3
    copies, seen = [mixed.indices.copy(), mixed.data.copy()], []

    class Watched(core.Trainer):
        def epoch(self, X, *arguments, **options):
            seen.append(X.has_canonical_format)
            return super().epoch(X, *arguments, **options)

    monkeypatch.setattr(core, "Trainer", Watched)
    settings = {"hidden_layer_sizes": (9,), "max_iter": 3, "random_state": 0, "solver": solver, "dtype": dtype}
    expected = MLPClassifier(**settings).fit(ordered, y)
    fitted = MLPClassifier(**settings).fit(mixed, y)
    for n in (1, 7, 300):
        np.testing.assert_array_equal(fitted.predict_proba(mixed[:n]), expected.predict_proba(ordered[:n]))
        np.testing.assert_array_equal(fitted.network_.forward(mixed[:n]), fitted.network_.forward(ordered[:n]))
    if solver == "adam":
        np.testing.assert_array_equal(
            fitted.partial_fit(mixed, y).network_.parameters, expected.partial_fit(ordered, y).network_.parameters
        )
    assert seen
    assert all(seen)
    np.testing.assert_array_equal(mixed.indices, copies[0])
    np.testing.assert_array_equal(mixed.data, copies[1])


def test_duplicates_in_a_sparse_row_add_up():
    """As in SciPy, at the cost of sparse rows."""
    X = sparse.random(300, 80, 0.05, format="csr", random_state=0)
    halves = sparse.csr_matrix((np.repeat(X.data / 2, 2), np.repeat(X.indices, 2), 2 * X.indptr), shape=X.shape)
    model = MLPClassifier((9,), max_iter=3, random_state=0).fit(halves, np.arange(300) % 3)
    expected = MLPClassifier((9,), max_iter=3, random_state=0).fit(X, np.arange(300) % 3)
    np.testing.assert_array_equal(model.predict_proba(halves), expected.predict_proba(X))
    np.testing.assert_array_equal(model.network_.forward(halves[:3]), model.network_.forward(X[:3]))
    assert halves.nnz == 2 * X.nnz


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("target", ["labels", "indicator", "sparse"])
def test_labels_predicted_in_pieces_are_those_of_the_whole(target, form, monkeypatch):
    """Rows beyond a piece, and a last piece of one row."""
    monkeypatch.setattr("fastmlp.estimators.classifier._PIECE", 1)
    X = form(np.random.RandomState(0).randn(2049, 6) * (np.random.RandomState(1).rand(2049, 6) < 0.1))
    number = np.arange(2049) % 5
    indicator = np.eye(5, dtype=int)[number]
    y = {"labels": np.array(list("abcde"))[number], "indicator": indicator, "sparse": sparse.csr_matrix(indicator)}[
        target
    ]
    model = MLPClassifier((7,), max_iter=2, random_state=0).fit(X, y)
    found, probability = model.predict(X), model.predict_proba(X)
    if target == "labels":
        assert np.array_equal(found, model.classes_[probability.argmax(axis=1)])
    else:
        assert (found.format if target == "sparse" else type(found)) == ("csr" if target == "sparse" else np.ndarray)
        dense = found.toarray() if target == "sparse" else found
        assert np.array_equal(dense, probability > 0.5)
        assert found.dtype == np.dtype(int)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float16", "int16"])
def test_small_numbers_in_float32_are_exact(dtype):
    """Converted straight to float32: the bits of float64 rows."""
    X = np.random.RandomState(0).randint(0, 2, (90, 6)).astype(dtype)
    settings = {"max_iter": 3, "random_state": 0, "dtype": "float32"}
    ours, wide = (MLPClassifier((7,), **settings).fit(rows, np.arange(90) % 3) for rows in (X, X.astype(float)))
    assert np.array_equal(ours.network_.parameters, wide.network_.parameters)
    assert np.array_equal(ours.predict_proba(X), wide.predict_proba(X.astype(float)))


MASKED = np.ma.masked_array(X, np.quantile(X, 0.9) < X)
MASKED_Y = np.ma.masked_array(Y, np.arange(len(Y)) == 3)
WEIGHT = np.ma.masked_array(np.ones(len(X)), np.arange(len(X)) == 3)


@pytest.mark.parametrize(
    ("argument", "call"),
    {
        "X of fit": ("X", lambda: MLPClassifier(**SETTINGS).fit(MASKED, Y)),
        "X of a regressor": ("X", lambda: MLPRegressor(**SETTINGS).fit(MASKED, X[:, 0])),
        "y of fit": ("y", lambda: MLPClassifier(**SETTINGS).fit(X, MASKED_Y)),
        "y of a regressor": ("y", lambda: MLPRegressor(**SETTINGS).fit(X, MASKED_Y.astype(float))),
        "targets": ("y", lambda: MLPRegressor(**SETTINGS).fit(X, MASKED)),
        "sample_weight": ("sample_weight", lambda: MLPClassifier(**SETTINGS).fit(X, Y, sample_weight=WEIGHT)),
        "X of partial_fit": ("X", lambda: MLPClassifier(**SETTINGS).partial_fit(MASKED, Y, classes=[0, 1])),
        "y of partial_fit": ("y", lambda: MLPClassifier(**SETTINGS).partial_fit(X, MASKED_Y, classes=[0, 1])),
        "X of eval_set": ("X", lambda: MLPClassifier(**SETTINGS).fit(X, Y, eval_set=(MASKED, Y))),
        "y of eval_set": ("y", lambda: MLPClassifier(**SETTINGS).fit(X, Y, eval_set=(X, MASKED_Y))),
        "its weights": ("sample_weight",
            lambda: MLPClassifier(**SETTINGS).fit(X, Y, eval_set=(X, Y), sample_weight_eval=WEIGHT)),
        "predict": ("X", lambda: trained().predict(MASKED)),
        "predict_proba": ("X", lambda: trained().predict_proba(MASKED)),
        "transform": ("X", lambda: trained().transform(MASKED)),
        "score": ("y", lambda: trained().score(X, MASKED_Y)),
        "a regressor's score": ("y",
            lambda: MLPRegressor(**SETTINGS).fit(X, X[:, 0]).score(X, np.ma.masked_array(X[:, 0], X[:, 0] > 0))),
        "an ensemble": ("X", lambda: MLPEnsembleClassifier(MLPClassifier(**SETTINGS), 2).fit(MASKED, Y)),
        "y of a table": ("y", lambda: TabularClassifier(max_iter=1).fit(X, MASKED_Y)),
        "a network": ("X", lambda: trained().network_.forward(MASKED)),
        "a network's targets": ("y",
            lambda: Network((4, 2, 1), out_activation="identity").loss_gradient(X,
                np.ma.masked_array(X[:, 0], X[:, 0] > 0), "squared_error")),
        "one row": ("row", lambda: RowPredictor(trained()).predict(np.ma.masked_array(X[0], X[0] == X[0, 0]))),
    }.values(),
)  # fmt: skip
def test_masked_values_are_refused(argument, call):
    """scikit-learn reads the numbers below the mask."""
    with pytest.raises(
        ValueError,
        match=rf"Input {argument} has masked values, the first (in row \d|that of feature \d).*[Ff]ill|eave out such "
        rf"(rows|targets)",
    ):
        call()


def test_masked_values_are_gaps_to_the_encoder():
    gaps = MASKED.filled(np.nan)
    encoder, other = PiecewiseLinearEncoder(4).fit(MASKED), PiecewiseLinearEncoder(4).fit(gaps)
    assert encoder.missing_.any()
    assert np.array_equal(encoder.transform(MASKED), other.transform(gaps))


def test_small_sparse_frames_are_predicted_to_the_same_bits():
    """On the fast path, as dense rows; a larger one is read as CSR."""
    fitted = MLPClassifier(**SETTINGS).fit(pd.DataFrame(X, columns=NAMES), Y)
    frame = pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(X), columns=NAMES)
    copies = pd.concat([frame] * (rows._SMALL_FRAME // X.size + 1), ignore_index=True)
    assert np.array_equal(fitted.predict_proba(frame), fitted.predict_proba(copies)[: len(X)])


def test_a_missing_name_of_a_column_is_not_compared():
    """pandas.NA has no truth value: the error is scikit-learn's for other names."""
    fitted = MLPClassifier(**SETTINGS).fit(pd.DataFrame(X, columns=NAMES), Y)
    frame = pd.DataFrame(X, columns=pd.Index([pd.NA, *NAMES[1:]], dtype=object))
    with pytest.raises(TypeError, match="Feature names are only supported if all input features have string names"):
        fitted.predict(frame)


def test_masked_targets_may_be_left_out():
    """By their own weights, as the error says."""
    masked = np.ma.masked_array(X[:, :2], X[:, :2] > np.quantile(X[:, :2], 0.9))
    counts = ~np.ma.getmaskarray(masked)
    left_out = MLPRegressor(**SETTINGS).fit(X, masked, sample_weight=counts)
    zeros = MLPRegressor(**SETTINGS).fit(X, masked.filled(0), sample_weight=counts)
    assert np.array_equal(left_out.predict(X), zeros.predict(X))
    with pytest.raises(ValueError, match=r"Leave out such targets: sample_weight=~numpy\.ma\.getmaskarray\(y\)"):
        MLPRegressor(**SETTINGS).fit(X, masked)
    half = np.where(np.arange(len(X))[:, np.newaxis] < len(X) // 2, counts, True)
    with pytest.raises(ValueError, match="Input y has masked values"):
        MLPRegressor(**SETTINGS).fit(X, masked, sample_weight=half)


@pytest.mark.parametrize("settings", [
    {}, {"mixup": 0.3}, {"label_smoothing": 0.1}, {"solver": "lbfgs"},
    {"early_stopping": True, "validation_metric": "loss"},
    {"early_stopping": True, "dtype": "float32"},
], ids=str)  # fmt: skip
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sparse_labels_train_as_dense_ones(settings, rng):
    """To the same bits: in training they are a byte each."""
    X, labels = rng.standard_normal((80, 6)), (rng.uniform(size=(80, 21)) < 0.2).astype(int)
    fits = [
        MLPClassifier((9,), max_iter=4, random_state=0, **settings).fit(X, y)
        for y in (sparse.csr_matrix(labels), labels)
    ]
    ours, theirs = (fit.network_.parameters for fit in fits)
    np.testing.assert_array_equal(ours, theirs)
    assert fits[0].loss_ == fits[1].loss_
    assert getattr(fits[0], "validation_scores_", None) == getattr(fits[1], "validation_scores_", None)


SPARSE_LABELS = """
import warnings
from pathlib import Path
import numpy as np
from scipy import sparse
from fastmlp import MLPClassifier

def peak():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

warnings.simplefilter("ignore")
n, n_labels = 10_000, 2_000
rows, columns = np.repeat(np.arange(n), 3), np.random.RandomState(0).randint(0, n_labels, 3 * n)
y = sparse.csr_matrix((np.ones(3 * n), (rows, columns)), (n, n_labels))
y.data[:] = 1
X = np.random.RandomState(1).standard_normal((n, 10))
model = MLPClassifier((8,), max_iter=1, random_state=0)
model.fit(X[:50], y[:50])
before = peak()
model.fit(X, y)
print((peak() - before) / (n * n_labels))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_sparse_labels_take_a_byte_each():
    """Beside the networks' own memory; as numbers they would take eight."""
    assert float(output_of(SPARSE_LABELS)) < 2.5
