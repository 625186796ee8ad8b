"""Search over configurations: the selection, its order and bits, weights, limits of time, interruption, files."""

from __future__ import annotations

import pickle
import signal
import threading
import time

import numpy as np
import pytest
from helpers import rest_slow
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, mean_absolute_error, roc_auc_score
from test_tabular import SIGNAL, TARGETS, X, model, predictions

from fastmlp import RowPredictor, TabularClassifier, load
from fastmlp.tabular import base, search
from fastmlp.tabular.recipes import RECIPES
from fastmlp.tabular.search import Clock, Configuration, Judge, Search, select

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def searched(kind, **parameters):
    """A small estimator that searches."""
    return model(kind, **{"n_configurations": 4, "max_iter": 5, "n_members": 2, **parameters})


def without_time(fitted):
    return [{name: value for name, value in c.items() if name != "seconds"} for c in fitted.configurations_]


# --- the selection -------------------------------------------------------------------------------------------------


def test_selection_finds_the_best_mean():
    """Of parts whose errors cancel, by forward steps; the same part may come again."""
    target = np.array([0.0, 0.0, 0.0])
    parts = [np.array([1.0, -1, 0]), np.array([-1.0, 1, 0]), np.array([0.5, 0.5, 0.5]), np.array([9.0, 9, 9])]
    score = lambda mean: -np.mean((mean - target) ** 2)  # noqa: E731
    assert select(parts[:2], score).tolist() == [1, 1]
    counts = select(parts, score)
    assert score(np.average(parts, axis=0, weights=counts)) >= max(map(score, parts))
    assert counts[3] == 0
    assert select([np.array([3.0]), np.array([-1.0])], lambda mean: -abs(mean[0])).tolist() == [1, 3]


def test_selection_with_scores_that_are_no_numbers():
    """They are the worst; of equal ones the first."""
    assert select([np.ones(2)], lambda mean: np.nan).tolist() == [1]
    assert select([np.ones(2), np.zeros(2), np.zeros(2)], lambda mean: np.nan if mean[0] else 1.0).tolist() == [0, 1, 0]


def test_spaces(monkeypatch):
    """The estimator has their parameters; a method without one cannot be searched."""
    assert set(search.SPACES) <= set(RECIPES)
    for space in search.SPACES.values():
        assert set(space.names) <= set(TabularClassifier().get_params())
        for drawn in (*space.first, *(space.draw(np.random.RandomState(seed)) for seed in range(20))):
            assert set(drawn) <= set(space.names)
    monkeypatch.delitem(search.SPACES, "plain")
    with pytest.raises(ValueError, match="no search for method='plain': take n_configurations=1, or"):
        searched("regression", method="plain", n_members="auto").fit(X, SIGNAL)


# --- configurations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", rest_slow(TARGETS, "binary"))
@pytest.mark.parametrize("method", rest_slow(search.SPACES, "tabm"))
def test_search(kind, method):
    """The default comes first, the ensemble is no worse than the best configuration, and threads change no bit."""
    parameters = {"method": method, "n_members": "auto", "hidden_layer_sizes": "auto"}
    fitted = searched(kind, **parameters, n_jobs=3).fit(X, TARGETS[kind])
    default, *others = fitted.configurations_
    assert (
        default["parameters"].items()
        >= {"hidden_layer_sizes": RECIPES[method].hidden_layer_sizes, "dropout": RECIPES[method].dropout}.items()
    )
    assert len(others) == 3
    assert len({str(c["parameters"]) for c in fitted.configurations_}) == 4
    assert sum(c["weight"] for c in fitted.configurations_) == pytest.approx(1)
    assert len(fitted.networks_) == 3 * sum(c["weight"] > 0 for c in fitted.configurations_)
    np.testing.assert_allclose(fitted.estimator_weights_.sum(), 1)
    if kind in ("binary", "multiclass"):
        loss = log_loss(TARGETS[kind], fitted.oof_prediction_)
        assert loss <= -max(c["score"] for c in fitted.configurations_) + 1e-6
        alone = model(kind, **{**parameters, "max_iter": 5}).fit(X, TARGETS[kind])
        np.testing.assert_allclose(-default["score"], log_loss(TARGETS[kind], alone.oof_prediction_), rtol=1e-5)
    again = searched(kind, **parameters, n_jobs=1).fit(X, TARGETS[kind])
    np.testing.assert_array_equal(predictions(fitted), predictions(again))
    assert without_time(fitted) == without_time(again)


def test_configurations_do_not_depend_on_later_ones():
    few, more = (searched("regression", n_configurations=n).fit(X, SIGNAL) for n in (2, 4))
    assert [c["score"] for c in few.configurations_] == [c["score"] for c in more.configurations_[:2]]
    assert not hasattr(more.set_params(n_configurations=1).fit(X, SIGNAL), "configurations_")


def test_parameters_that_are_given_stay():
    """Those that have their defaults are drawn; hidden layers are not, where another parameter has a value for each."""
    fitted = searched("regression", hidden_layer_sizes=(9,), learning_rate_init=0.01).fit(X, SIGNAL)
    assert {c["parameters"]["hidden_layer_sizes"] for c in fitted.configurations_} == {(9,)}
    assert {c["parameters"]["learning_rate_init"] for c in fitted.configurations_} == {0.01}
    assert {c["parameters"]["n_members"] for c in fitted.configurations_} == {2}
    assert len({c["parameters"]["dropout"] for c in fitted.configurations_}) > 1
    assert {c["parameters"]["method"] for c in fitted.configurations_} == {"tabm"}  # 'plain' has one member
    both = searched("regression", n_members="auto", hidden_layer_sizes=(9,), n_configurations=9, max_iter=1).fit(
        X, SIGNAL
    )
    tried = [c["parameters"] for c in both.configurations_]
    assert tried[0]["n_members"] == 2
    assert {"plain", "tabm"} == {parameters["method"] for parameters in tried}
    eight = {**tried[0], "n_members": 8}  # the default with eight members
    assert eight in tried
    lists = searched("regression", hidden_layer_sizes="auto", activation=["relu", "tanh"]).fit(X, SIGNAL)
    assert {c["parameters"]["hidden_layer_sizes"] for c in lists.configurations_} == {(128, 128)}


@pytest.mark.parametrize("kind", ["binary", "outputs"])
def test_weights_of_the_ensemble(kind):
    """Predictions, spreads and logarithms are those of the weighted networks."""
    fitted = searched(kind, hidden_layer_sizes="auto").fit(X, TARGETS[kind])
    fitted._times_selected = [1 + i % 3 for i in range(len(fitted.networks_))]
    single = []
    for member in fitted.estimators_:
        one = clone(fitted)
        vars(one).update({name: value for name, value in vars(fitted).items() if name not in one.get_params()})
        one.estimators_, one._times_selected = [member], [1]
        single.append(predictions(one))
    weights = fitted.estimator_weights_
    mean = np.average(single, axis=0, weights=weights)
    np.testing.assert_allclose(predictions(fitted), mean, rtol=1e-5, atol=1e-6)
    if kind == "binary":
        np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), mean, rtol=1e-4)
    else:
        spread = fitted.predict(X, return_std=True)[1]
        expected = np.sqrt(np.average((np.array(single) - mean) ** 2, axis=0, weights=weights))
        np.testing.assert_allclose(spread, expected, rtol=1e-3, atol=1e-6)
    row = RowPredictor(fitted)
    row = row.predict_proba if kind == "binary" else row.predict
    np.testing.assert_array_equal(row(X.iloc[3].to_dict()), predictions(fitted, X[3:4])[0])


@pytest.mark.parametrize(("kind", "metric", "score"), [
    ("binary", "roc_auc", lambda y, p: roc_auc_score(y, p[:, 1])),
    ("regression", "neg_mean_absolute_error", lambda y, p: -mean_absolute_error(y, p)),
    ("multiclass", lambda fitted, X, y: float((fitted.predict(X) == y).mean()), None),
])  # fmt: skip
def test_metric_selects(kind, metric, score):
    """In place of the loss, on the target's own scale."""
    fitted = searched(kind, validation_metric=metric).fit(X, TARGETS[kind])
    best = max(c["score"] for c in fitted.configurations_)
    if score is not None:
        assert score(TARGETS[kind], fitted.oof_prediction_) >= best - 1e-6
        alone = model(kind, max_iter=5, n_members=2, validation_metric=metric).fit(X, TARGETS[kind])
        assert score(TARGETS[kind], alone.oof_prediction_) == pytest.approx(fitted.configurations_[0]["score"])


def test_rows_that_score():
    """Those of an eval_set, or the share that a single network does not train on. Weights count."""
    y, rest = TARGETS["binary"], slice(150, None)
    fitted = searched("binary").fit(X[:150], y[:150], eval_set=(X[rest], y[rest]))
    one = model("binary", max_iter=5, n_members=2).fit(X[:150], y[:150], eval_set=(X[rest], y[rest]))
    assert -fitted.configurations_[0]["score"] == pytest.approx(log_loss(y[rest], one.predict_proba(X[rest])), rel=1e-5)
    assert len(searched("binary", n_folds=1).fit(X, y).configurations_) == 4
    with pytest.raises(ValueError, match="rows that networks are not trained on: take n_folds"):
        searched("binary", n_folds=1, early_stopping=False).fit(X, y)
    weight = np.where(np.arange(len(y)) % 3, 1.0, 0.0)
    some, all_rows = searched("binary").fit(X[weight > 0], y[weight > 0]), searched("binary").fit(X, y, weight)
    assert without_time(some)[0]["score"] == pytest.approx(without_time(all_rows)[0]["score"], rel=0.2)
    of_outputs = np.ones((len(SIGNAL), 2))
    of_outputs[::2, 0] = 0
    gaps = np.where(of_outputs, TARGETS["outputs"], np.nan)
    assert np.isfinite([c["score"] for c in searched("outputs").fit(X, gaps, of_outputs).configurations_]).all()


def test_a_configuration_that_diverges_has_no_weight(monkeypatch):
    """The others are trained on."""
    space = search.Space(("learning_rate_init",), (), lambda rng: {"learning_rate_init": 1e38})
    monkeypatch.setitem(search.SPACES, "tabm", space)
    fitted = searched("regression", n_configurations=3, max_grad_norm=None, early_stopping=False).fit(X, SIGNAL)
    assert [c["ended"] for c in fitted.configurations_] == ["complete", "failed", "failed"]
    assert fitted.configurations_[1]["weight"] == 0
    assert np.isnan(fitted.configurations_[1]["score"])


def test_only_the_best_networks_are_kept(monkeypatch):
    """The entries of the others stay, and the result does not depend on the order in which they end."""
    monkeypatch.setattr(search, "_KEPT", 2)
    fitted = [searched("regression", n_configurations=6, n_jobs=n).fit(X, SIGNAL) for n in (1, 4)]
    assert len(fitted[0].configurations_) == 6
    assert len(fitted[0].networks_) <= 2 * 3
    np.testing.assert_array_equal(fitted[0].predict(X), fitted[1].predict(X))


def test_errors_name_the_configuration():
    calls = []

    def metric(model, X, y):
        calls.append(0)
        if len(calls) > 3 * 5 + 1:
            raise OSError("no disk")
        return float(len(calls))

    with pytest.raises(OSError, match="no disk") as error:
        searched("regression", validation_metric=metric, n_jobs=1).fit(X, SIGNAL)
    assert "configuration 1, network 0" in error.value.__notes__[0]


def test_progress(capsys):
    """A line for each configuration, and from 2 on those of epochs."""
    searched("regression", verbose=1).fit(X, SIGNAL)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("Configuration 0: score = -")
    searched("regression", verbose=2, n_configurations=2).fit(X, SIGNAL)
    assert "Configuration 1, fold 2: Iteration 5, loss" in capsys.readouterr().out


# --- limits of time, interruption ----------------------------------------------------------------------------------


def test_time_that_is_too_short_for_the_default():
    """Each network is trained for an epoch at least, and a warning says for how many."""
    with pytest.warns(ConvergenceWarning, match="time_limit=1e-06 was up before the default .* for .1, 1, 1. epochs"):
        fitted = model("regression", time_limit=1e-6).fit(X, SIGNAL)
    assert [c["ended"] for c in fitted.configurations_] == ["stopped"]
    assert fitted.n_iter_.tolist() == [1, 1, 1]
    assert np.isfinite(fitted.configurations_[0]["score"])
    alone = model("regression", time_limit=1e-6, n_configurations=1, n_folds=1, early_stopping=False).fit(X, SIGNAL)
    assert alone.configurations_[0]["weight"] == 1


def test_model_of_a_time_limit_can_be_made_again():
    """By the number of configurations, if none was stopped."""
    limited = model("binary", max_iter=5, time_limit=0.6).fit(X, TARGETS["binary"])
    n = len(limited.configurations_)
    assert n >= 1
    if all(c["ended"] == "complete" for c in limited.configurations_):
        again = model("binary", max_iter=5, n_configurations=n).fit(X, TARGETS["binary"])
        np.testing.assert_array_equal(predictions(limited), predictions(again))


def test_no_configuration_begins_that_would_end_too_late(monkeypatch):
    """By the time that the others took, for as much work."""
    monkeypatch.setattr(Clock, "left", lambda self: 1000.0)
    monkeypatch.setattr(Clock, "expected", lambda self, work: 1e6)
    assert len(model("regression", max_iter=2, time_limit=1000).fit(X, SIGNAL).configurations_) == 1
    monkeypatch.setattr(Clock, "expected", lambda self, work: 1.0)
    assert len(model("regression", max_iter=2, time_limit=1000, n_configurations=3).fit(X, SIGNAL).configurations_) == 3


def test_clock():
    """Shares what is left, and learns how long work takes."""
    clock = Clock(100.0)
    clock.add(3.0, 10.0)
    clock.add(1.0, 10.0)
    assert clock.expected(5.0) == 1.0
    assert clock.left() == pytest.approx(100, abs=5)
    assert clock.end - clock.share(4) == pytest.approx(75, abs=5)
    assert Clock(None).share(3) == np.inf


def test_selection_is_expected_to_take_the_time_of_its_scores(monkeypatch):
    """Each of its steps scores each configuration; predictions are made once, before."""
    now = [0.0]

    def spend(seconds, result):
        now[0] += seconds
        return result

    monkeypatch.setattr("fastmlp.tabular.search.time.perf_counter", lambda: now[0])
    judge = Judge(lambda members: spend(10.0, np.zeros(3)), lambda part: spend(1.0, 0.0))
    clock = Clock(1000.0)
    Search(None, None, judge, clock, None, 1, lambda ended: None).take_first(Configuration(0, {}, [None], None, 1.0))
    assert clock.selection == 50.0


def test_interrupt_keeps_what_is_finished():
    """Of a search; the model is selected from it."""
    calls = []

    def metric(model, X, y):
        calls.append(0)
        if len(calls) == 3 * 5 + 1 + 7:  # the first configuration, its score, some epochs of the second
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.3)
        return float(len(calls) % 5)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    try:
        with pytest.warns(UserWarning, match="The search was interrupted .* from 1 configuration"):
            fitted = searched("regression", validation_metric=metric, n_jobs=1, n_configurations=50).fit(X, SIGNAL)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(fitted.configurations_) == 1
    assert np.isfinite(fitted.predict(X)).all()


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_and_pickles(tmp_path):
    """Have the configurations and their weights."""
    fitted = searched("multiclass", hidden_layer_sizes="auto", time_limit=60, n_configurations=3).fit(
        X, TARGETS["multiclass"]
    )
    fitted.save(tmp_path / "m.safetensors")
    for other in (load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(predictions(other), predictions(fitted))
        assert other.configurations_ == fitted.configurations_
        np.testing.assert_array_equal(other.estimator_weights_, fitted.estimator_weights_)
    assert clone(fitted).get_params()["time_limit"] == 60


@pytest.mark.parametrize(("parameters", "words"), [
    ({"n_configurations": 0}, "n_configurations"), ({"n_configurations": "all"}, "n_configurations"),
    ({"time_limit": 0}, "time_limit"), ({"time_limit": "1 min"}, "time_limit"),
])  # fmt: skip
def test_wrong_limits(parameters, words):
    with pytest.raises(ValueError, match=words):
        model("regression", **parameters).fit(X, SIGNAL)


# --- importances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", rest_slow(TARGETS, "binary", "regression"))
def test_importances(kind, tmp_path, monkeypatch):
    """Columns that matter have them, others hardly; a column that was dropped has 0. On a sample of many rows too."""
    frame = X.assign(constant=1, noise=np.random.RandomState(1).normal(size=len(X)))
    parameters = {"n_permutations": 3, "max_iter": 30, "learning_rate_init": 0.01}
    fitted = model(kind, **parameters).fit(frame, TARGETS[kind])
    columns = dict(zip(frame, fitted.feature_importances_, strict=True))
    assert columns["constant"] == 0
    assert columns["number"] > 5 * abs(columns["noise"])
    assert columns["text"] > 5 * abs(columns["noise"])
    assert fitted.feature_importances_std_.shape == (6,)
    np.testing.assert_array_equal(
        predictions(fitted, frame), predictions(model(kind, **parameters, n_jobs=1).fit(frame, TARGETS[kind]), frame)
    )
    fitted.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "m.safetensors").feature_importances_, fitted.feature_importances_)
    monkeypatch.setattr(base, "_MOST_PERMUTED", 60)
    some = model(kind, **parameters).fit(frame, TARGETS[kind])
    assert some.feature_importances_[0] > some.feature_importances_[5]


def test_importances_of_a_search():
    """By the metric, of the weighted ensemble, on the rows of an eval_set."""
    y = TARGETS["binary"]
    fitted = searched("binary", n_permutations=2, validation_metric="roc_auc", n_configurations=3, max_iter=15)
    fitted.fit(X, y, eval_set=(X, y))
    assert fitted.feature_importances_.argmax() in (0, 2)
    assert (np.abs(fitted.feature_importances_) <= 1).all()
    with pytest.raises(ValueError, match="n_permutations > 0 needs rows"):
        model("binary", n_permutations=1, n_folds=1, early_stopping=False).fit(X, y)


def test_spread_of_probabilities():
    """The standard deviation over the networks."""
    fitted = model("multiclass").fit(X, TARGETS["multiclass"])
    mean, spread = fitted.predict_proba(X, return_std=True)
    np.testing.assert_array_equal(mean, fitted.predict_proba(X))
    assert spread.shape == mean.shape
    assert 0 < spread.max() <= 0.5
    with pytest.raises(ValueError, match="n_folds >= 2"):
        model("multiclass", n_folds=1).fit(X, TARGETS["multiclass"]).predict_proba(X, return_std=True)
