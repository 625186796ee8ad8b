"""TabularClassifier and TabularRegressor: folds, the choice of the epoch, scales, weights, small data, files,
callbacks, searches."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import needs_sklearn
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, mean_absolute_error
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from fastmlp import FileFormatError, Network, StopAtTarget, TabularClassifier, TabularRegressor, load
from fastmlp.core import CodeLayout, memory
from fastmlp.tabular import coding
from fastmlp.tabular.base import _batch_size
from fastmlp.tabular.coding import Coder
from fastmlp.tabular.frames import Table
from fastmlp.tabular.recipes import EmbeddingNetwork
from fastmlp.tabular.training import deal, take_share

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (17,), "max_iter": 8, "n_folds": 3, "random_state": 0}
# Parameters of each method; an embedding for one member.
METHODS = {
    "plain": {"method": "plain"},
    "tabm": {"method": "tabm", "n_members": 3},
    "embedding": {"method": "plain", "embedding": 16},
    "realmlp": {"method": "realmlp"},
}
N = 203


def table(n=N, seed=0):
    """A frame with a number, gaps, text and a truth value, and what depends on them."""
    rng = np.random.RandomState(seed)
    frame = pd.DataFrame(
        {
            "number": rng.standard_normal(n),
            "gaps": np.where(rng.uniform(size=n) < 0.2, np.nan, rng.standard_normal(n)),
            "text": rng.choice(["a", "b", "c"], n),
            "truth": rng.uniform(size=n) < 0.5,
        }
    )
    signal = frame["number"] + 2 * (frame["text"] == "a") - frame["gaps"].fillna(1) * frame["truth"]
    return frame, signal.to_numpy() + 0.1 * rng.standard_normal(n)


X, SIGNAL = table()
TARGETS = {
    "binary": np.where(SIGNAL > 0.5, "yes", "no"),
    "multiclass": np.digitize(SIGNAL, [-0.5, 1.0]) + 10,
    "multilabel": np.c_[SIGNAL > 0, SIGNAL > 1].astype(int),
    "regression": SIGNAL,
    "outputs": np.c_[SIGNAL, -1000 * SIGNAL],
}


def model(kind, **parameters):
    """A small estimator for the kind of target."""
    Estimator = TabularRegressor if kind in ("regression", "outputs") else TabularClassifier
    return Estimator(**{**SMALL, **parameters})


def predictions(fitted, X=X):
    """Probabilities, or predictions of numbers."""
    return fitted.predict_proba(X) if hasattr(fitted, "predict_proba") else fitted.predict(X)


# --- folds ---------------------------------------------------------------------------------------------------------


@pytest.mark.crossed
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", TARGETS)
def test_out_of_fold_predictions(kind, method):
    """Each row is predicted by the network that did not see it; the mean of all networks is the prediction."""
    fitted = model(kind, **METHODS[method]).fit(X, TARGETS[kind])
    labels = np.searchsorted(fitted.classes_, TARGETS[kind]) if kind in ("binary", "multiclass") else None
    fold = deal(labels, N, 3, np.random.RandomState(0))
    assert fitted.oof_prediction_.shape == predictions(fitted).shape
    total = 0
    for number in range(3):
        one = clone(fitted)
        vars(one).update({name: value for name, value in vars(fitted).items() if name.endswith("_")})
        vars(one).update(
            {name: vars(fitted)[name] for name in ("_target_type", "_sparse_target") if name in vars(fitted)}
        )
        one.estimators_ = [fitted.estimators_[number]]
        own = predictions(one)
        np.testing.assert_allclose(fitted.oof_prediction_[fold == number], own[fold == number], rtol=1e-6, atol=1e-6)
        total = total + own
    np.testing.assert_allclose(predictions(fitted), total / 3, rtol=1e-6, atol=1e-6)


def test_folds_have_the_same_part_of_each_class():
    """To within one row; also where a class has fewer rows than there are folds."""
    labels = np.repeat([0, 1, 2], [100, 50, 3])
    fold = deal(labels, 153, 5, np.random.RandomState(0))
    for label in range(3):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert np.ptp(counts) <= 1
    taken = take_share(labels, 153, 0.2, np.random.RandomState(0))
    assert [taken[labels == label].sum() for label in range(3)] in ([20, 10, 1], [20, 10, 0], [20, 11, 0])
    assert not take_share(np.array([0] * 9 + [1]), 10, 0.5, np.random.RandomState(0))[-1]


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_epoch_is_that_of_the_least_loss(kind):
    """On the rows that the network did not train on."""
    fitted = model(kind, max_iter=60, n_iter_no_change=5, learning_rate_init=0.01).fit(X, TARGETS[kind])
    for member in fitted.estimators_:
        assert member.best_validation_score_ == -min(member.validation_loss_curve_)
        assert member.n_iter_ < 60
    if kind == "binary":
        loss = log_loss(TARGETS[kind], fitted.oof_prediction_)
        per_network = [min(member.validation_loss_curve_) for member in fitted.estimators_]
        assert abs(loss - np.mean(per_network)) < 1e-2


def test_one_network():
    """With a share of the rows held out, or trained on all of them for all epochs."""
    fitted = model("binary", n_folds=1).fit(X, TARGETS["binary"])
    assert len(fitted.networks_) == 1
    assert not hasattr(fitted, "oof_prediction_")
    assert fitted.estimators_[0].history_[0]["rows"] == N - round(0.2 * N)
    everything = model("regression", n_folds=1, early_stopping=False).fit(X, SIGNAL)
    assert [entry["rows"] for entry in everything.estimators_[0].history_] == [N] * 8
    with pytest.raises(ValueError, match="n_folds >= 2"):
        everything.predict(X, return_std=True)


def test_spread_of_the_networks():
    """In the unit of y, around the mean that predict returns without it."""
    fitted = model("outputs").fit(X, TARGETS["outputs"])
    mean, spread = fitted.predict(X, return_std=True)
    np.testing.assert_array_equal(mean, fitted.predict(X))
    assert spread.shape == mean.shape == (N, 2)
    np.testing.assert_allclose(spread[:, 1] / spread[:, 0], 1000, rtol=100)  # the second output is in another unit
    assert (spread > 0).any()


@pytest.mark.parametrize("dtype", ["auto", "float32", "float64"])
def test_element_type_of_the_networks(dtype):
    """float32 unless float64 is asked for; predictions are float64."""
    fitted = model("regression", dtype=dtype).fit(X, SIGNAL)
    assert {network.dtype.name for network in fitted.networks_} == {"float32" if dtype == "auto" else dtype}
    assert fitted.predict(X).dtype == np.float64


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"method": "mlp"}, "plain"), ({"n_folds": 0}, "n_folds"), ({"categorical_features": "dtype"}, "from_dtype")],
)
def test_wrong_parameter_is_named(parameters, words):
    """With what is possible."""
    with pytest.raises(ValueError, match=words):
        model("binary", **parameters).fit(X, TARGETS["binary"])


@pytest.mark.parametrize("n_rows", [1, 20, 300, 5_000, 40_000, 200_000])
def test_batch_size(n_rows):
    """Larger for more rows, within limits."""
    assert _batch_size(n_rows) == {1: 1, 20: 16, 300: 16, 5_000: 256, 40_000: 512, 200_000: 1024}[n_rows]


# --- the target ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0), (1e6, 3e9), (1e150, 0), (1e300, 0)])
def test_target_on_any_scale(scale, shift):
    """Predictions follow the target's unit, and stay within its range."""
    expected = model("regression").fit(X, SIGNAL).predict(X)
    y = SIGNAL * scale + shift
    prediction = model("regression").fit(X, y).predict(X)
    np.testing.assert_allclose((prediction - shift) / scale, expected, rtol=0.05, atol=0.02)
    assert y.min() <= prediction.min() < prediction.max() <= y.max()


def test_constant_target():
    """Is predicted exactly."""
    np.testing.assert_array_equal(model("regression").fit(X, np.full(N, 0.3)).predict(X), 0.3)


def test_probabilities_are_float64_and_add_up():
    """log_loss of scikit-learn takes them without a warning."""
    for kind in ("binary", "multiclass"):
        fitted = model(kind).fit(X, TARGETS[kind])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            log_loss(TARGETS[kind], fitted.predict_proba(X))
        np.testing.assert_array_equal(fitted.predict(X), fitted.classes_[fitted.predict_proba(X).argmax(axis=1)])


def test_recipes():
    """'auto' is the method's value; a value that is given is taken as it is."""
    plain, tabm = (
        model("binary", method=method).fit(X, TARGETS["binary"]).networks_[0] for method in ("plain", "tabm")
    )
    assert (plain.embedding, plain.n_members, plain.layer_sizes[1:]) == (0, 1, (17, 1))
    assert (tabm.embedding, tabm.n_members, tabm.layer_sizes[1:]) == (16, 2, (4 * 16, 17, 1))
    assert tabm.activations == ("identity", "relu")
    estimators = [
        model("binary", method=method, hidden_layer_sizes="auto", **given).fit(X, TARGETS["binary"]).estimators_[0]
        for method, given in (("plain", {}), ("tabm", {}), ("tabm", {"weight_decay": 0.5, "max_grad_norm": None}))
    ]
    names = ("hidden_layer_sizes", "learning_rate_init", "weight_decay", "max_grad_norm")
    assert [tuple(getattr(estimator, name) for name in names) for estimator in estimators] == [
        ((256, 256), 0.001, 0.3, None), ((64, 128, 128), 0.002, 3e-4, 1.0), ((64, 128, 128), 0.002, 0.5, None),
    ]  # fmt: skip


def test_embeddings_begin_as_lines():
    """Along a column of numbers, the embedding's units are straight lines of the place among the quantiles."""
    layout = CodeLayout((20, 5), (3,))
    network = EmbeddingNetwork(layout, 16, 4)((layout.width, 48, 9, 1), ["identity", "relu"], "logistic", "float32",
                                random_state=np.random.RandomState(0))  # fmt: skip
    W, b = network.coefs[0], network.intercepts[0].reshape(3, 16)
    assert np.ptp(W[:20], axis=0).max() == 0
    assert np.ptp(W[21:26], axis=0).max() == 0
    np.testing.assert_allclose(W[:20].sum(axis=0), 2 * W[20], rtol=1e-5)  # a missing number is in the middle
    np.testing.assert_allclose(W[21:26].sum(axis=0), 2 * W[26], rtol=1e-5)
    assert not W[27:].any()
    assert np.abs(b + np.array([W[20], W[26], W[27]])).max() <= 1 + 1e-6
    assert all(np.ptp(part, axis=0).all() for part in (network.coefs[2], network.intercepts[2]))


@pytest.mark.parametrize(("parameters", "words"), [
    ({"method": "plain", "n_members": 3}, "n_members=3 needs an embedding, got embedding=0"),
    ({"embedding": 0}, "set n_members=1, or take method='plain'"),
    ({"dropout": [0.3, 0.1]}, "dropout of the input must be 0, .* got 0.3"),
    ({"method": "plain", "dropout": [0.3, 0.1]}, "dropout of the input must be 0, .* got 0.3"),
    ({"activation": ["relu", "relu"]}, "one activation for each of 1 hidden layers, got .'relu', 'relu'."),
    ({"n_members": 2**40}, "n_members.*65536"),
    ({"n_members": 2, "hidden_layer_sizes": ()}, "needs a hidden layer that the members share"),
    ({"embedding": 20}, "embedding must be a multiple of 16, or 0, got 20"),
    ({"method": "tabm", "n_members": 0}, "n_members"),
    ({"hidden_layer_sizes": "none"}, "hidden_layer_sizes"),
])  # fmt: skip
def test_wrong_embedding_is_named(parameters, words):
    with pytest.raises(ValueError, match=words):
        model("binary", **parameters).fit(X, TARGETS["binary"])


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_logarithms_are_finite(kind):
    """They agree with the probabilities, and have their digits where those round to 0 or 1."""
    fitted = model(kind).fit(X, TARGETS[kind])
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), fitted.predict_proba(X), rtol=1e-5)
    for network in fitted.networks_:
        network.coefs[-1][...] *= 1000
    logarithm = fitted.predict_log_proba(X)
    assert np.isfinite(logarithm).all()
    assert logarithm.min() < -200


def test_target_of_frames():
    """Series of strings, categories, nullable integers and Arrow types."""
    y = TARGETS["binary"]
    expected = model("binary").fit(X, y).predict(X)
    for series in (pd.Series(y), pd.Series(y, dtype="category"), pd.Series(y, dtype=object), list(y)):
        np.testing.assert_array_equal(model("binary").fit(X, series).predict(X), expected)
    numbers = pd.Series((y == "yes").astype(int), dtype="Int64")
    assert (model("binary").fit(X, numbers).predict(X) == (expected == "yes")).all()


def test_target_with_gaps_is_an_error():
    """As for an MLP."""
    with pytest.raises(ValueError, match="NaN"):
        model("regression").fit(X, np.where(np.arange(N) == 3, np.nan, SIGNAL))
    with pytest.raises(ValueError, match="requires y to be passed"):
        model("binary").fit(X, None)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model("binary").fit(X, TARGETS["binary"][1:])


# --- small and odd data ----------------------------------------------------------------------------------------------


@pytest.mark.crossed
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("n", [2, 3, 20])
@pytest.mark.filterwarnings("ignore:y contains only one class")
def test_few_rows(kind, n, method):
    """There are at most as many networks as rows."""
    fitted = model(kind, n_folds=5, **METHODS[method]).fit(X[:n], TARGETS[kind][:n])
    assert len(fitted.networks_) == min(n, 5)
    assert np.isfinite(predictions(fitted)).all()


def test_one_row_is_an_error():
    """So are rows that all but one have no weight."""
    with pytest.raises(ValueError, match="n_samples=1"):
        model("regression").fit(X[:1], SIGNAL[:1])
    with pytest.raises(ValueError, match="n_samples=1"):
        model("regression").fit(X, SIGNAL, np.arange(N) == 0)


def test_rare_class():
    """A class with a single row, with several networks and with one."""
    y = np.where(np.arange(N) == 5, "rare", TARGETS["binary"])
    for n_folds in (1, 3):
        fitted = model("binary", n_folds=n_folds).fit(X, y)
        assert fitted.classes_.tolist() == ["no", "rare", "yes"]
        assert predictions(fitted).shape == (N, 3)


def test_one_class():
    """It is predicted for every row, after a warning."""
    with pytest.warns(UserWarning, match="only one class"):
        fitted = model("binary").fit(X, ["same"] * N)
    assert fitted.predict(X).tolist() == ["same"] * N
    np.testing.assert_array_equal(fitted.predict_proba(X), 1.0)


# --- weights, validation rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TARGETS)
def test_rows_of_weight_0_change_nothing(kind):
    """The same bits as without them, though they hold other values and categories."""
    y = TARGETS[kind]
    expected = model(kind).fit(X, y)
    strange = X.iloc[:20].assign(number=1e6, text="other", gaps=np.nan)
    more = model(kind).fit(pd.concat([strange, X]), np.concatenate([y[:20], y]), np.repeat([0.0, 1.0], [20, N]))
    plain = model(kind).fit(X, y, np.ones(N))
    np.testing.assert_array_equal(predictions(more), predictions(plain))
    np.testing.assert_allclose(predictions(plain), predictions(expected), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(more.oof_prediction_[20:], plain.oof_prediction_)
    assert np.isfinite(more.oof_prediction_).all()


def test_class_weight():
    """The same as the rows' weights, and 'balanced' raises the rare class."""
    y = np.where(SIGNAL > 2.5, 1, 0)
    by_class = model("binary", class_weight={0: 1.0, 1: 5.0}).fit(X, y)
    by_row = model("binary").fit(X, y, np.where(y == 1, 5.0, 1.0))
    np.testing.assert_array_equal(predictions(by_class), predictions(by_row))
    balanced, plain = model("binary", class_weight="balanced").fit(X, y), model("binary").fit(X, y)
    assert predictions(balanced)[:, 1].mean() > predictions(plain)[:, 1].mean()


@pytest.mark.parametrize("n_folds", [1, 3])
def test_eval_set(n_folds):
    """It decides about the epoch; a single network then trains on all rows."""
    X_val, signal = table(80, seed=1)
    y_val = np.where(signal > 0.5, "yes", "no")
    fitted = model("binary", n_folds=n_folds).fit(X, TARGETS["binary"], eval_set=(X_val, y_val))
    member = fitted.estimators_[0]
    loss = log_loss(y_val, member.predict_proba(Coder(fitted.columns_).codes(Table(X_val))))
    assert abs(loss - min(member.validation_loss_curve_)) < 1e-6
    assert member.history_[0]["rows"] == (N if n_folds == 1 else N - 68)
    again = model("binary", n_folds=n_folds).fit(X, TARGETS["binary"], X_val=X_val, y_val=y_val)
    np.testing.assert_array_equal(predictions(again), predictions(fitted))


@pytest.mark.parametrize(
    ("eval_set", "words"),
    [
        ((X, ["other"] * N), "not among classes_"),
        ((X[["number"]], TARGETS["binary"]), "feature names"),
        (X, "one pair"),
        ((X.assign(number="a"), TARGETS["binary"]), "Column 'number' held numbers"),
    ],
)
def test_wrong_eval_set(eval_set, words):
    """The message says that it is about eval_set."""
    with pytest.raises((TypeError, ValueError), match=rf"(?s)eval_set.*{words}"):
        model("binary").fit(X, TARGETS["binary"], eval_set=eval_set)


def test_validation_metric():
    """A scorer of the user's sees predictions on the target's own scale, and chooses the epoch."""
    y = 1000 * SIGNAL + 5000
    fitted = model("regression", validation_metric="neg_mean_absolute_error", n_folds=2).fit(X, y)
    fold = deal(None, N, 2, np.random.RandomState(0))
    member = fitted.estimators_[0]
    error = mean_absolute_error(y[fold == 0], fitted.oof_prediction_[fold == 0])
    np.testing.assert_allclose(-member.best_validation_score_, error, rtol=1e-5)
    accuracy = model("binary", validation_metric="accuracy").fit(X, TARGETS["binary"])
    assert all(0.3 < member.best_validation_score_ <= 1 for member in accuracy.estimators_)
    pickle.loads(pickle.dumps(fitted))


# --- the house's promises --------------------------------------------------------------------------------------------


@pytest.mark.crossed
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", TARGETS)
def test_same_bits_for_any_number_of_threads(kind, method):
    """In training and prediction."""
    one = model(kind, n_jobs=1, **METHODS[method]).fit(X, TARGETS[kind])
    many = model(kind, n_jobs=4, **METHODS[method]).fit(X, TARGETS[kind])
    np.testing.assert_array_equal(predictions(many), predictions(one))
    np.testing.assert_array_equal(many.oof_prediction_, one.oof_prediction_)


@pytest.mark.crossed
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", TARGETS)
def test_file_pickle_and_clone(kind, method, tmp_path):
    """The same predictions, columns and attributes; a clone fits to the same bits."""
    fitted = model(kind, **METHODS[method]).fit(X, TARGETS[kind])
    fitted.save(tmp_path / "model.safetensors")
    for other in (
        load(tmp_path / "model.safetensors"),
        pickle.loads(pickle.dumps(fitted)),
        clone(fitted).fit(X, TARGETS[kind]),
    ):
        np.testing.assert_array_equal(predictions(other), predictions(fitted))
        np.testing.assert_array_equal(other.predict(X), fitted.predict(X))
        np.testing.assert_array_equal(other.oof_prediction_, fitted.oof_prediction_)
        assert repr(other.columns_) == repr(fitted.columns_)
        assert other.categories_ == fitted.categories_
        assert other.n_iter_.tolist() == fitted.n_iter_.tolist()
        assert other.get_params() == fitted.get_params()


def test_file_of_strange_columns(tmp_path):
    """Dates, dropped columns, mixed categories, names that are no strings, settings that are arrays."""
    frame = pd.DataFrame(
        {
            0: pd.date_range("2024", periods=N),
            1: 7,
            2: np.resize(np.array(["a", 1, 2.5, None], dtype=object), N),
            3: np.resize([1, 2, 3, 4, 5], N),
        }
    )
    fitted = model("binary", categorical_features=np.array([3]), max_categories=3).fit(frame, TARGETS["binary"])
    fitted.save(tmp_path / "model.safetensors")
    other = load(tmp_path / "model.safetensors")
    assert repr(other.columns_) == repr(fitted.columns_)
    np.testing.assert_array_equal(predictions(other, frame), predictions(fitted, frame))


def test_file_needs_its_columns(tmp_path):
    """A file whose columns do not fit its networks is not loaded."""
    fitted = model("regression").fit(X, SIGNAL)
    fitted.columns_[0] = fitted.columns_[2]
    with pytest.raises(FileFormatError):
        fitted.save(tmp_path / "model.safetensors")


def test_failed_fit_leaves_the_old_model():
    """All of it or nothing."""
    fitted = model("binary").fit(X, TARGETS["binary"])
    expected = predictions(fitted)
    with pytest.raises(TypeError):
        fitted.fit(X.assign(text=[["a"]] * N), TARGETS["binary"])
    np.testing.assert_array_equal(predictions(fitted), expected)
    with pytest.raises(NotFittedError):
        model("binary").predict(X)


def test_pipeline_search_and_cross_validation():
    """Behind a step that makes columns, and with its parameters searched."""
    add = FunctionTransformer(lambda frame: frame.assign(product=frame["number"] * frame["truth"]))
    pipeline = make_pipeline(add, model("binary"))
    assert cross_val_score(pipeline, X, TARGETS["binary"], cv=2).mean() > 0.5
    search = GridSearchCV(model("binary"), {"n_bins": [4, 16], "dropout": [0.0, 0.2]}, cv=2).fit(X, TARGETS["binary"])
    assert set(search.best_params_) == {"n_bins", "dropout"}


def test_metadata_routing():
    """Weights reach fit through a pipeline."""
    weight = np.random.RandomState(0).uniform(0.1, 2, N)
    expected = predictions(model("binary").fit(X, TARGETS["binary"], weight))
    with config_context(enable_metadata_routing=True):
        asking = model("binary").set_fit_request(sample_weight=True)
        pipeline = make_pipeline(FunctionTransformer(), asking).fit(X, TARGETS["binary"], sample_weight=weight)
    np.testing.assert_array_equal(predictions(pipeline), expected)


def test_callbacks_see_every_networks_epochs():
    """One that stops, stops each network; the fitted networks have none left."""
    needs_sklearn("1.9", "callbacks")
    fitted = model("binary").set_callbacks(StopAtTarget(1e9, of="loss")).fit(X, TARGETS["binary"])
    assert fitted.n_iter_.tolist() == [1, 1, 1]
    assert not any(hasattr(member, "_skl_callbacks") for member in fitted.estimators_)
    assert len(fitted._skl_callbacks) == 1


def test_verbose_names_the_folds(capsys):
    """A line per epoch and network."""
    model("binary", verbose=1, max_iter=2).fit(X, TARGETS["binary"])
    lines = capsys.readouterr().out
    assert all(f"Fold {number}" in lines for number in range(3))


def test_long_tables_are_predicted_in_pieces(monkeypatch):
    """To the same bits as at once."""
    fitted = model("regression").fit(X, SIGNAL)
    expected = fitted.predict(X)
    monkeypatch.setattr(coding, "_PIECE", 14)  # seven rows of two numbers
    monkeypatch.setattr(coding, "_LEAST_ROWS", 1)
    np.testing.assert_array_equal(fitted.predict(X), expected)


@pytest.mark.slow
def test_quality():
    """Better than a constant by far on data that it can learn, with no setting but the seed."""
    frame, signal = table(1000)
    fitted = TabularRegressor(random_state=0).fit(frame[:800], signal[:800])
    assert fitted.score(frame[800:], signal[800:]) > 0.9


def test_networks_that_memory_cannot_train_are_refused(monkeypatch):
    """With the optimizer's memory, as of an MLP."""
    monkeypatch.setattr(memory, "_ALWAYS_THERE", 0)
    monkeypatch.setattr(memory, "total_memory", lambda: 40 * 2**20)
    for method in ("plain", "tabm"):
        with pytest.raises(MemoryError, match=r"hidden_layer_sizes=.*2500.* needs at least .* and there are 40 MiB"):
            model("regression", method=method, hidden_layer_sizes=(2500, 2500)).fit(X, SIGNAL)


def test_networks_without_hidden_layers_have_one_member():
    """The mean of several would be one additive model, too."""
    fitted = model("regression", n_folds=1, hidden_layer_sizes=()).fit(X, SIGNAL)
    assert [network.n_members for network in fitted.networks_] == [1]
    assert fitted.score(X, SIGNAL) > 0.5


def test_file_of_another_embedding_is_refused(tmp_path):
    """A network for other columns than the file's."""
    fitted = model("regression", n_folds=1).fit(X, SIGNAL)
    fitted.save(tmp_path / "good.safetensors")
    network = fitted.estimators_[0].network_
    width, n_features = network.layer_sizes[0], network.layer_sizes[1] // 16
    fitted.estimators_[0].network_ = Network(
        (width, 32 * n_features // 2, 17, 1), ["identity", "relu"], "identity", embedding=32, n_members=2
    )
    with pytest.raises(FileFormatError, match=r"members\.0 must have the features"):
        fitted.save(tmp_path / "bad.safetensors")
