"""method='realmlp': the draws, losses and predictions of the authors' code, its inputs, and what becomes of odd
columns."""

from __future__ import annotations

import copy
import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import output_of, tolerance
from sklearn.metrics import accuracy_score

import fastmlp.training.rows as training_rows
from fastmlp import FileFormatError, RowPredictor, TabularClassifier, TabularRegressor, core, load
from fastmlp.core import memory
from fastmlp.reference import encodings
from fastmlp.tabular.coding import Scaler
from fastmlp.tabular.columns import declared_categories, learn_columns
from fastmlp.tabular.frames import Table
from fastmlp.tabular.recipes import RealMLPNetwork
from fastmlp.tabular.training import take_share
from fastmlp.training.run import Method

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names"),
]

# Made by data/make_realmlp.py with pytabkit 1.7.3.
THEIRS = np.load(Path(__file__).parent.parent / "data" / "realmlp.npz")


def their_table():
    """The columns and the signal that the authors' models were trained on."""
    X = pd.DataFrame({name.removeprefix("table."): THEIRS[name] for name in THEIRS if name.startswith("table.")})
    X["gaps"] = X["gaps"].where(X["gaps"] != "", None)
    return X, X.pop("signal").to_numpy()


# "larger": what is built of RealMLP itself, initial values from the data and weight decay, without dropout.
@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "larger"])
def test_agrees_with_the_authors(kind, monkeypatch):
    """The inputs; and from the same parameters and the same rows, 20 losses and the best epoch's predictions."""
    X, signal = their_table()
    bounds = {"binary": [0.0], "larger": [0.0], "multiclass": [-0.5, 1.0]}
    y = np.digitize(signal, bounds[kind]) if kind in bounds else signal
    given = {name.removeprefix(f"{kind}."): THEIRS[name] for name in THEIRS if name.startswith(kind)}
    train, batches, losses = given["train"], iter(given["batches"].reshape(5, 100)), []
    place = np.empty(len(X), np.intp)
    place[train] = np.arange(len(train))

    def draw_theirs(maker, run):
        network = run.network
        if not maker.from_data:
            assert not given["3.weight"].any()
            assert not network.coefs[-1].any()
            assert not network.intercepts[-1].any()
        run = adapt_ours(maker, run)
        for layer, (coefs, intercepts) in enumerate(zip(network.coefs, network.intercepts, strict=True)):
            W, b = given[f"{layer}.weight"] / np.sqrt(len(coefs)), given[f"{layer}.bias"][0]
            is_difference = coefs.shape[1] == 1 and W.shape[1] == 2
            coefs[...] = W[:, 1:] - W[:, :1] if is_difference else W
            intercepts[...] = b[1:] - b[:1] if is_difference else b
        return run

    def shuffle_theirs(order, *_):
        order[:100] = place[next(batches)]

    def note_losses(method, t, n_steps):
        losses.append(np.empty(n_steps))
        return {"step_losses": losses[-1], **schedules_ours(method, t, n_steps)}

    adapt_ours, schedules_ours = RealMLPNetwork.adapt, Method.schedules
    monkeypatch.setattr(RealMLPNetwork, "adapt", draw_theirs)
    monkeypatch.setattr(training_rows, "shuffle", shuffle_theirs)
    monkeypatch.setattr(Method, "schedules", note_losses)
    Model = TabularRegressor if kind == "regression" else TabularClassifier
    options = {"initial_values": "data", "weight_decay": 0.02} if kind == "larger" else {}
    model = Model(
        "realmlp",
        n_folds=1,
        max_iter=5,
        batch_size=25,
        hidden_layer_sizes=(16,) * 3,
        dtype="float64",
        random_state=0,
        **options,
    )
    rows = given["validation"]
    model.fit(X.iloc[train], y[train], eval_set=(X.iloc[rows], y[rows]))

    inputs = Scaler(model.columns_, "float64").codes(Table(X))
    np.testing.assert_allclose(inputs, given["inputs"], rtol=1e-6, atol=1e-6)
    factor = 2.0 if kind == "regression" else 1.0  # ours is half of the squared error
    np.testing.assert_allclose(factor * np.concatenate(losses), given["losses"], rtol=0, atol=1e-6)
    prediction = model.predict(X) if kind == "regression" else model.predict_proba(X)
    low, high = y[train].min(), y[train].max()
    expected = np.clip(given["prediction"], low, high) if kind == "regression" else given["prediction"]
    np.testing.assert_allclose(prediction, expected, rtol=1e-5, atol=1e-6)


# --- inputs --------------------------------------------------------------------------------------------------------


def scaled_columns(frame, dtype="float64"):
    """The columns as they are learnt from a frame, and its inputs."""
    columns = learn_columns(Table(frame), declared_categories([], list(frame)), None, 48, 256, True)
    return columns, Scaler(columns, dtype).codes(Table(frame))


@pytest.mark.parametrize("name", ["spread", "equal quartiles", "two values", "few", "one", "far", "tiny"])
def test_numbers_are_the_references(name, rng):
    """The median, the quartiles or the range, and the limit."""
    x = {
        "spread": rng.standard_normal(101) ** 3,
        "equal quartiles": np.r_[np.zeros(90), rng.standard_normal(11)],
        "two values": np.r_[np.full(70, 2.0), np.full(30, 5.0)],
        "few": np.array([3.0, 1.0]),
        "one": np.array([1.0, 1.0, 4.0]),
        "far": 1e9 + rng.standard_normal(50),
        "tiny": 1e-300 * rng.standard_normal(50),
    }[name]
    _, inputs = scaled_columns(pd.DataFrame({"x": x}))
    bound = tolerance("float64", 8, 3 * max(np.abs(x).max() / max(np.ptp(x), 1e-300), 1))
    assert np.abs(inputs[:, 0] - encodings.scaled(x, x)).max() <= bound
    assert np.abs(inputs).max() < 3


def test_missing_numbers_are_the_mean_and_flagged(rng):
    """The flag is scaled as a number is; without gaps in fit, a later one is the mean too, without a flag."""
    x = rng.standard_normal(60)
    gaps = np.where(np.arange(60) % 4 == 0, np.nan, x)
    columns, inputs = scaled_columns(pd.DataFrame({"whole": x, "gaps": gaps}))
    filled = np.where(np.isnan(gaps), np.nanmean(gaps), gaps)
    expected = [encodings.scaled(column, column) for column in (x, filled, np.isnan(gaps).astype(float))]
    np.testing.assert_allclose(inputs, np.stack(expected, axis=1), rtol=0, atol=tolerance("float64", 8, 3))
    assert repr(columns).splitlines()[1:] == [
        "whole   float64       1  number, scaled by its quartiles",
        "gaps    float64       2  number, scaled by its quartiles, missing values marked",
    ]
    later = Scaler(columns, "float64").codes(Table(pd.DataFrame({"whole": [np.nan], "gaps": [1.0]})))
    assert later[0, 0] == pytest.approx(encodings.scaled(np.array([x.mean()]), x)[0], abs=1e-12)


@pytest.mark.parametrize("values", [
    ["a"] * 30 + ["b"] * 50, ["a", None] * 20, ["a"] * 5 + ["b"] * 9 + [None] * 3, ["a"] * 40 + ["b"] * 30 + ["c"] * 30,
    list("aabbbccccdd") + [None] * 4,
], ids=str)  # fmt: skip
def test_categories_are_the_references(values):
    """One input for each but two; one of 1 and -1 for two, or for one with gaps; zeros for missing and unknown ones,
    all scaled."""
    names = sorted({value for value in values if value is not None})
    _, inputs = scaled_columns(pd.DataFrame({"x": pd.Series(values, dtype=object)}))
    if len(names) == 1:
        raw = np.array([[1.0 if value else -1.0] for value in values])
    elif len(names) == 2:
        raw = np.array([[{names[0]: 1.0, names[1]: -1.0}.get(value, 0.0)] for value in values])
    else:
        raw = np.array([[float(value == name) for name in names] for value in values])
    expected = np.stack([encodings.scaled(column, column) for column in raw.T], axis=1)
    np.testing.assert_allclose(inputs, expected, rtol=0, atol=tolerance("float64", 8, 3))


def test_extreme_numbers():
    """Differences beyond float64, and outliers far beyond the quartiles: no input is NaN or beyond 3."""
    frame = pd.DataFrame(
        {
            "huge": [-1.7e308, 1.7e308, 0.0, 1e308] * 5,
            "outlier": [1e300, *range(19)],
            "subnormal": [0.0, 5e-324] * 10,
        }
    )
    for dtype in ("float32", "float64"):
        columns, inputs = scaled_columns(frame, dtype)
        assert np.isfinite(inputs).all()
        assert np.abs(inputs).max() <= 3
        assert (np.ptp(inputs, axis=0) > 0.5).all()
        assert all(np.isfinite(column.scaling).all() for column in columns)
    with pytest.raises(ValueError, match="Column 'huge' holds inf"):
        TabularRegressor("realmlp").fit(frame.assign(huge=np.inf), np.arange(20.0))


def test_wide_inputs_that_do_not_fit_are_named(monkeypatch):
    """A column of many categories has as many inputs, in each row."""
    monkeypatch.setattr(memory, "total_memory", lambda: 2**21)
    monkeypatch.setattr(memory, "_ALWAYS_THERE", 0)
    X = pd.DataFrame({"town": np.arange(4000).astype(str)})
    model = TabularRegressor("realmlp", n_folds=2, max_iter=1, categorical_features=["town"])
    with pytest.raises(
        MemoryError, match=r"makes 256 inputs of the columns.*4,000 rows needs at least 3.91 MiB.*Lower max_categories"
    ):
        model.fit(X, np.arange(4000.0))


def test_columns_without_values_are_dropped():
    """Nothing is left of such a table but the mean."""
    model = TabularRegressor("realmlp", n_folds=2, max_iter=2, random_state=0)
    model.fit(pd.DataFrame({"same": [1.0] * 8, "none": [np.nan] * 8}), np.arange(8.0))
    assert {column.treatment for column in model.columns_} == {"dropped"}
    assert np.ptp(model.predict([[1.0, None], [2.0, None]])) == 0


# --- training --------------------------------------------------------------------------------------------------------

SMALL = {"method": "realmlp", "hidden_layer_sizes": (17, 9), "max_iter": 6, "n_folds": 2, "random_state": 0}


def small_table(n=90):
    rng = np.random.RandomState(1)
    X = pd.DataFrame({"x": rng.standard_normal(n),
        "gaps": np.where(rng.uniform(size=n) < 0.2, np.nan, rng.standard_normal(n)),
                      "word": rng.choice(["a", "b", "c", None], n)})  # fmt: skip
    return X, X["x"].to_numpy() + (X["word"] == "a")


@pytest.mark.parametrize("Model", [TabularRegressor, TabularClassifier])
def test_single_network_learns_nothing_from_held_out_rows(Model):
    """The same columns and scale of the target as without these rows."""
    X, y = small_table()
    y = y if Model is TabularRegressor else y > 0
    alone = Model(**{**SMALL, "n_folds": 1}).fit(X, y)
    taken = take_share(None if Model is TabularRegressor else y.astype(int), len(X), 0.2, np.random.RandomState(0))
    given = Model(**{**SMALL, "n_folds": 1}).fit(X[~taken], y[~taken], eval_set=(X[taken], y[taken]))
    for one, other in zip(alone.columns_, given.columns_, strict=True):
        np.testing.assert_array_equal(one.scaling, other.scaling)
    assert getattr(alone, "target_mean_", 0) == getattr(given, "target_mean_", 0)
    everything = Model(**{**SMALL, "n_folds": 1}, early_stopping=False).fit(X, y)
    assert (everything.columns_[0].scaling != alone.columns_[0].scaling).any()


def test_last_rows_of_an_epoch_are_left_out():
    """Unless they are a full batch; with fewer rows than a batch, all of them are one."""
    X, y = small_table()
    for batch_size, rows in ((20, 40), (45, 45), ("auto", 45)):
        fitted = TabularRegressor(**SMALL, batch_size=batch_size).fit(X, y)
        assert {entry["rows"] for entry in fitted.estimators_[0].history_} == {rows}


def test_last_of_the_best_epochs_is_kept():
    """The accuracy of few rows is often the same."""
    X, signal = small_table()
    y = np.where(signal > 0.5, 1, 0)
    model = TabularClassifier(**{**SMALL, "max_iter": 12, "n_folds": 1}, learning_rate_init=0.1)
    seen = []

    def keep(estimator, X, y):
        seen.append((accuracy_score(y, estimator.predict(X)), estimator.network_.parameters.copy()))
        return seen[-1][0]

    fitted = model.set_params(validation_metric=keep).fit(X, y)
    best = max(score for score, _ in seen)
    last = [parameters for score, parameters in seen if score == best]
    assert len(last) > 1
    np.testing.assert_array_equal(fitted.networks_[0].parameters, last[-1])
    by_default = TabularClassifier(**{**SMALL, "max_iter": 12, "n_folds": 1}, learning_rate_init=0.1).fit(X, y)
    np.testing.assert_array_equal(by_default.networks_[0].parameters, last[-1])


def test_recipe_and_parameters():
    """'auto' is the authors' value, which differs for classes and numbers."""
    X, y = small_table(20)
    names = (
        "hidden_layer_sizes",
        "activation",
        "learning_rate_init",
        "learning_rate",
        "beta_2",
        "batch_size",
        "dropout",
        "weight_decay",
    )
    for Model, target, own in ((TabularClassifier, y > 0, ("selu", 0.04)), (TabularRegressor, y, ("mish", 0.07))):
        member = Model("realmlp", n_folds=2, random_state=0).fit(X, target).estimators_[0]
        assert tuple(getattr(member, name) for name in names) == ((256,) * 3, *own, "coslog4", 0.95, 10, 0.0, 0.0)
        assert member.n_iter_ == 256
    classifier = TabularClassifier(**SMALL).fit(X, y > 0)
    assert classifier.estimators_[0].label_smoothing == 0.1
    changed = [
        {"label_smoothing": 0.0}, {"beta_2": 0.9}, {"scaling_rate": 0}, {"dropout": 0.3}, {"weight_decay": 0.1},
        {"learning_rate": "constant"}, {"initial_values": "data"},
    ]  # fmt: skip
    for given in changed:
        other = TabularClassifier(**SMALL, **given).fit(X, y > 0)
        assert not np.array_equal(other.predict_proba(X), classifier.predict_proba(X)), given


@pytest.mark.parametrize(("parameters", "words"), [
    ({"embedding": 16}, "embedding must be 0 or 'auto' for method='realmlp', got 16"),
    ({"n_members": 3}, "n_members must be 1 or 'auto' for method='realmlp', got 3"),
    ({"method": "tabm", "initial_values": "data"}, "initial_values must be 'auto' for method='tabm', got 'data'"),
    ({"method": "tabm", "scaling_rate": 2.0}, "scaling_rate must be 0 or 'auto' for method='tabm', got 2.0"),
    ({"scaling_rate": -1}, "scaling_rate"), ({"label_smoothing": 2}, "label_smoothing"),
    ({"dropout": [0.1]}, "dropout"),
])  # fmt: skip
def test_wrong_parameter_is_named(parameters, words):
    X, y = small_table()
    with pytest.raises(ValueError, match=words):
        TabularClassifier(**{**SMALL, **parameters}).fit(X, y > 0)


def digest():
    """Of networks with and without what the recipe leaves out, in both element types."""
    X, y = small_table(300)
    found = hashlib.sha256()
    for dtype in ("float32", "float64"):
        for given in ({}, {"initial_values": "data", "dropout": 0.2, "weight_decay": 0.1, "max_grad_norm": 0.5}):
            fitted = TabularClassifier(**SMALL, dtype=dtype, **given).fit(X, np.digitize(y, [-0.5, 1.0]))
            found.update(b"".join(network.parameters.tobytes() for network in fitted.networks_))
    return found.hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(len(core.info()["available"]) < 3, reason="this CPU or build has one FMA instruction set or none")
def test_bits_do_not_depend_on_instruction_set():
    code = "import sys; sys.path[:0] = sys.argv[1:2]\nfrom tabular.test_realmlp import digest\nprint(digest())"
    folder = __file__.rpartition("/tabular/")[0]
    with ThreadPoolExecutor() as executor:
        found = list(executor.map(lambda isa: output_of(code, folder, FASTMLP_ISA=isa), ["avx2", "avx512"]))
    assert found[0] == found[1]


# --- files and single rows --------------------------------------------------------------------------------------------


def test_single_rows():
    """The same bits as in a table, for values of any type."""
    X, y = small_table()
    for model in (TabularRegressor(**SMALL).fit(X, y), TabularClassifier(**SMALL).fit(X, y > 0)):
        predictor = pickle.loads(pickle.dumps(RowPredictor(model)))
        rows = [
            *X[:20].to_numpy(dtype=object).tolist(),
            [None, None, None],
            [1, 2, "other"],
            [np.float32(0.5), np.nan, "b"],
        ]
        for row in rows:
            assert predictor.predict(row) == model.predict([row])[0]
        with pytest.raises(ValueError, match="Column 'x' holds inf"):
            predictor.predict([np.inf, 1.0, "a"])


@pytest.mark.parametrize("change", [
    lambda scaling: scaling[:0], lambda scaling: -scaling - 1, lambda scaling: np.r_[scaling, scaling],
    lambda scaling: scaling * np.nan,
])  # fmt: skip
def test_wrong_scaling_in_a_file_is_named(change, tmp_path):
    X, y = small_table()
    model = TabularRegressor(**SMALL).fit(X, y)
    model.save(tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").columns_.are_scaled
    broken = copy.copy(model)
    column = copy.copy(model.columns_[1])
    object.__setattr__(column, "scaling", change(column.scaling))
    broken.columns_ = type(model.columns_)([model.columns_[0], column, model.columns_[2]])
    with pytest.raises(FileFormatError, match="columns"):  # what is written is read before
        broken.save(tmp_path / "broken.safetensors")
