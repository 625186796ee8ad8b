"""Ensembles: members are those fitted by hand, at once and on one X; errors and Ctrl-C; scikit-learn's own ensembles of
ours."""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
import signal
import threading
import time
import tracemalloc
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import sklearn.neural_network
from helpers import SKLEARN_CURVE_RTOL, classification, multilabel, needs_sklearn, regression, rest_slow, tolerance
from scipy import sparse
from sklearn import ensemble as sklearn_ensemble
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, mean_squared_error
from sklearn.model_selection import GridSearchCV
from sklearn.utils import estimator_html_repr, get_tags

import fastmlp
from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor, core
from fastmlp.estimators import ensemble
from fastmlp.estimators.ensemble import bootstrap_counts

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (17, 9), "max_iter": 6, "batch_size": 32}


def case(kind: str, n: int = 203):
    """The ensemble's class, its members' class, X and y."""
    if kind == "regression":
        return MLPEnsembleRegressor, MLPRegressor, *regression(n)
    if kind == "outputs":
        return MLPEnsembleRegressor, MLPRegressor, *regression(n, n_outputs=3)
    if kind == "multilabel":
        return MLPEnsembleClassifier, MLPClassifier, *multilabel(n)
    X, y = classification(2 if kind == "binary" else 3, n)
    return MLPEnsembleClassifier, MLPClassifier, X, np.array(["no", "perhaps", "yes"])[y]


KINDS = ["binary", "multiclass", "multilabel", "regression", "outputs"]


def parameters(fitted) -> list[np.ndarray]:
    """Each member's parameters, copied."""
    return [member.network_.parameters.copy() for member in fitted.estimators_]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Whether two lists of arrays have the same bits."""
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads for members whatever the machine allows."""
    monkeypatch.setattr(ensemble, "choose_threads", lambda n_jobs, flops: 2)


# --- members ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("members", ["seeds", "bootstrap"])
@pytest.mark.parametrize("kind", KINDS)
def test_members_are_those_fitted_by_hand(kind, members, weighted, two_threads):
    """A member's parameters are those of its clone, fitted to the labels themselves by one thread."""
    Ensemble, Member, X, y = case(kind)
    weight = np.random.RandomState(0).randint(0, 4, len(X)).astype(float) if weighted else None
    settings = {**SMALL, "early_stopping": kind == "multiclass"}
    fitted = Ensemble(Member(**settings), 3, members=members, random_state=1).fit(X, y, weight)
    seeds = [member.random_state for member in fitted.estimators_]
    assert len(set(seeds)) == 3
    for member in fitted.estimators_:
        drawn = np.ones(len(X)) if weight is None else weight
        if members == "bootstrap":
            drawn = drawn.copy()
            drawn[drawn > 0] *= bootstrap_counts(member.random_state, np.count_nonzero(drawn))
        elif weight is None:
            drawn = None
        alone = clone(member).fit(X, y, drawn)
        assert np.array_equal(member.network_.parameters, alone.network_.parameters)
        assert member.loss_curve_ == alone.loss_curve_
        assert np.array_equal(member.predict(X), alone.predict(X))
        assert {**member.get_params(), "random_state": None} == Member(**settings).get_params()
        assert set(vars(member)) == set(vars(alone))


def test_bootstrap_counts_are_draws():
    """As many draws as rows, a share of about 1 / e of them never drawn, another sample for another seed."""
    counts = bootstrap_counts(5, 10_000)
    assert counts.sum() == 10_000
    deviation = np.sqrt((np.exp(-1) - 2 * np.exp(-2)) / 10_000)  # of the share of empty cells in n draws into n cells
    assert abs(np.mean(counts == 0) - np.exp(-1)) < 5 * deviation
    assert np.array_equal(counts, bootstrap_counts(5, 10_000))
    assert not np.array_equal(counts, bootstrap_counts(6, 10_000))


def test_bootstrap_leaves_out_weightless_rows():
    """Rows of weight 0 change nothing, not even the draws."""
    X, y = classification(3)
    weight = np.random.RandomState(0).randint(0, 3, len(X)).astype(float)
    settings = {"estimator": MLPClassifier(**SMALL), "n_estimators": 2, "members": "bootstrap", "random_state": 0}
    weightless = MLPEnsembleClassifier(**settings).fit(X, y, weight)
    kept = weight > 0
    without = MLPEnsembleClassifier(**settings).fit(X[kept], y[kept], weight[kept])
    assert same(parameters(weightless), parameters(without))


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_snapshots_are_one_run(kind):
    """Cycle after cycle of one run with warm_start, each from the rate and the solver state of the beginning."""
    Ensemble, Member, X, y = case(kind)
    fitted = Ensemble(Member(**{**SMALL, "max_iter": 11}), 3, members="snapshots", random_state=1).fit(X, y)
    run = clone(fitted.estimators_[0])
    assert (run.max_iter, run.learning_rate, run.n_iter_no_change) == (3, ensemble._CYCLE_SCHEDULE, np.inf)
    run.random_state = np.random.RandomState(run.random_state)
    for cycle, snapshot in enumerate(fitted.estimators_):
        run.fit(X, y)
        assert np.array_equal(snapshot.network_.parameters, run.network_.parameters)
        assert snapshot.loss_curve_ == run.loss_curve_
        assert len(snapshot.history_) == 3 * (cycle + 1)
    assert len({member.random_state for member in fitted.estimators_}) == 1
    first, *others = parameters(fitted)
    assert not any(np.array_equal(first, other) for other in others)


def test_snapshots_run_to_the_end_of_their_cycles():
    """No plateau ends a cycle, and none warns."""
    X, y = classification(2)
    estimator = MLPClassifier(**{**SMALL, "max_iter": 12, "tol": 10.0, "n_iter_no_change": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = MLPEnsembleClassifier(estimator, 3, members="snapshots", random_state=0).fit(X, y)
    assert [member.n_iter_ for member in fitted.estimators_] == [4, 4, 4]


def test_snapshots_anneal_by_cosine():
    """In each cycle the rate falls from its beginning, and starts anew in the next."""
    X, y = classification(2)
    fitted = MLPEnsembleClassifier(
        MLPClassifier(**{**SMALL, "max_iter": 12}), 3, members="snapshots", random_state=0
    ).fit(X, y)
    rates = [epoch["learning_rate"] for epoch in fitted.estimators_[-1].history_]
    assert len(rates) == 12
    for cycle in (rates[:4], rates[4:8], rates[8:]):
        assert cycle[0] == 0.001
        assert all(later < earlier for earlier, later in pairwise(cycle))


@pytest.mark.parametrize("members", ["seeds", "bootstrap", "snapshots"])
def test_n_jobs_changes_no_bit(members, monkeypatch):
    """One thread after another, several at once, several threads in each member."""
    X, y = classification(3)
    monkeypatch.setattr(ensemble, "choose_threads", lambda n_jobs, flops: n_jobs)
    found = []
    for n_jobs in (1, 2, 3, 7):
        fitted = MLPEnsembleClassifier(MLPClassifier(**SMALL), 3, members=members, n_jobs=n_jobs, random_state=0).fit(
            X, y
        )
        found.append([*parameters(fitted), fitted.predict_proba(X)])
    assert all(same(found[0], other) for other in found[1:])


@pytest.mark.parametrize(
    ("n_threads", "n_estimators", "shares"),
    [(1, 3, [1, 1, 1]), (2, 3, [1, 1, 1]), (3, 3, [1, 1, 1]), (7, 3, [3, 2, 2]), (4, 1, [4])],
)
def test_threads_are_shared_out(n_threads, n_estimators, shares, monkeypatch):
    """Each member gets a thread, the first ones get the rest; afterwards members have the estimator's n_jobs again."""
    X, y = regression()
    monkeypatch.setattr(ensemble, "choose_threads", lambda n_jobs, flops: n_threads)
    seen = {}
    fit = MLPRegressor._fit_member

    def spy(self, *arguments):
        seen[self.random_state] = self.n_jobs
        return fit(self, *arguments)

    monkeypatch.setattr(MLPRegressor, "_fit_member", spy)
    fitted = MLPEnsembleRegressor(MLPRegressor(**SMALL, n_jobs=5), n_estimators, random_state=0).fit(X, y)
    assert [seen[member.random_state] for member in fitted.estimators_] == shares
    assert all(member.n_jobs == 5 for member in fitted.estimators_)


def test_random_state_draws_the_seeds():
    """The same integer, the same members; a RandomState goes on."""
    X, y = regression()
    rng = np.random.RandomState(0)
    found = [
        parameters(MLPEnsembleRegressor(MLPRegressor(**SMALL), 2, random_state=state).fit(X, y))
        for state in (0, 0, rng, rng)
    ]
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    assert not same(found[0], found[3])


class _Spied:
    """A Trainer that calls ``watch(X)`` at each epoch."""

    def __init__(self, watch, inner):
        self.watch, self.inner = watch, inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def epoch(self, X, *arguments, **constants):
        self.watch(X)
        return self.inner.epoch(X, *arguments, **constants)


@pytest.fixture
def spy_on_epochs(monkeypatch):
    """Takes a function to call with X at each epoch."""
    trainer = core.Trainer

    def spy(watch):
        monkeypatch.setattr(
            core, "Trainer", lambda *arguments, **options: _Spied(watch, trainer(*arguments, **options))
        )

    return spy


def test_members_train_at_once(spy_on_epochs, two_threads):
    """Two members meet inside their epochs, which they cannot if one waits for the other's end."""
    X, y = classification(2)
    meeting = threading.Barrier(2, timeout=30)
    spy_on_epochs(lambda X: meeting.wait())
    MLPEnsembleClassifier(MLPClassifier(**SMALL), 2, random_state=0).fit(X, y)
    assert not meeting.broken


@pytest.mark.parametrize("members", ["seeds", "bootstrap", "snapshots"])
@pytest.mark.parametrize("layout", ["C", "F", "list", "csr", "csc"])
def test_members_read_one_array(members, layout, spy_on_epochs):
    """The caller's own array if it can be read as it is, else one copy for all."""
    X, y = classification(2, dtype="float32")
    given = {
        "C": lambda: X,
        "F": lambda: np.asfortranarray(X),
        "list": X.tolist,
        "csr": lambda: sparse.csr_matrix(X),
        "csc": lambda: sparse.csc_matrix(X),
    }[layout]()
    seen = []
    spy_on_epochs(lambda X: seen.append(X.data if sparse.issparse(X) else X))
    MLPEnsembleClassifier(MLPClassifier(**SMALL), 3, members=members, random_state=0).fit(given, y)
    assert len(seen) == SMALL["max_iter"] * (1 if members == "snapshots" else 3)
    assert all(np.shares_memory(seen[0], other) for other in seen)
    if layout in "CF":
        assert np.shares_memory(seen[0], given)
    elif layout == "csr":
        assert np.shares_memory(seen[0], given.data)


def test_memory_does_not_grow_with_members():
    """NumPy's allocations while eight members train stay below one X."""
    X, y = classification(2, n=2000, n_features=200)
    fitted = MLPEnsembleClassifier(MLPClassifier((5,), max_iter=1), 8, members="bootstrap", random_state=0)
    tracemalloc.start()
    try:
        fitted.fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes


# --- predictions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_prediction_is_the_mean(kind, dtype):
    """Of probabilities, or of predictions, by hand."""
    Ensemble, Member, X, y = case(kind)
    X = X.astype(dtype)
    fitted = Ensemble(Member(**SMALL), 5, random_state=0).fit(X, y)
    assert fitted.n_outputs_ == fitted.estimators_[0].n_outputs_
    bound = tolerance(dtype, len(fitted.estimators_))
    if Ensemble is MLPEnsembleRegressor:
        each = np.stack([member.predict(X) for member in fitted.estimators_])
        mean, std = fitted.predict(X, return_std=True)
        assert np.array_equal(mean, fitted.predict(X))
        assert mean.shape == std.shape == y.shape
        assert mean.dtype == std.dtype == dtype
        assert (np.abs(mean - each.mean(axis=0)) <= bound * np.abs(each).max()).all()
        assert (np.abs(std - each.std(axis=0)) <= bound * np.abs(each).max()).all()
        assert std.min() > 0
        return
    each = np.stack([member.predict_proba(X) for member in fitted.estimators_])
    mean = fitted.predict_proba(X)
    assert mean.dtype == dtype
    assert np.abs(mean - each.mean(axis=0)).max() <= bound
    assert np.abs(np.exp(fitted.predict_log_proba(X)) - mean).max() <= bound
    if kind == "multilabel":
        assert np.array_equal(fitted.predict(X), (mean > 0.5).astype(int))
        assert sparse.issparse(Ensemble(Member(**SMALL), 2, random_state=0).fit(X, sparse.csr_matrix(y)).predict(X))
    else:
        assert list(fitted.classes_) == sorted(set(y))
        assert np.array_equal(fitted.predict(X), fitted.classes_[mean.argmax(axis=1)])
        assert np.abs(mean.sum(axis=1) - 1).max() <= bound
        assert fitted.score(X, y) == np.mean(fitted.predict(X) == y)


def test_mean_is_no_worse_than_members():
    """Log-loss and squared error are convex in the prediction (Jensen): on any data, fitted well or badly."""
    X, y = classification(3, n=400)
    fitted = MLPEnsembleClassifier(MLPClassifier(**SMALL), 4, members="bootstrap", random_state=0).fit(X[:200], y[:200])
    losses = [log_loss(y[200:], member.predict_proba(X[200:])) for member in fitted.estimators_]
    assert log_loss(y[200:], fitted.predict_proba(X[200:])) < np.mean(losses)
    X, y = regression(400)
    fitted = MLPEnsembleRegressor(MLPRegressor(**SMALL), 4, random_state=0).fit(X[:200], y[:200])
    mean, std = fitted.predict(X[200:], return_std=True)
    errors = [mean_squared_error(y[200:], member.predict(X[200:])) for member in fitted.estimators_]
    bound = tolerance("float64", 200, max(errors))
    assert abs(mean_squared_error(y[200:], mean) - (np.mean(errors) - np.mean(std**2))) < bound  # Krogh and Vedelsby


def test_feature_names_reach_the_members():
    """Members answer for a DataFrame as the ensemble does."""
    pandas = pytest.importorskip("pandas")
    X, y = classification(2)
    frame = pandas.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    fitted = MLPEnsembleClassifier(MLPClassifier(**SMALL), 2, random_state=0).fit(frame, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.predict(frame)
        fitted.estimators_[0].predict(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame.rename(columns={"x0": "other"}))


# --- scikit-learn's ways -----------------------------------------------------------------------------------------


def test_parameters_nest_and_clone():
    """estimator__alpha, in a search too; None for the estimator; pickle."""
    X, y = classification(2)
    whole = MLPEnsembleClassifier(MLPClassifier(**SMALL), 2, random_state=0)
    whole.set_params(estimator__alpha=0.5, n_estimators=3)
    assert whole.estimator.alpha == 0.5
    copy = clone(whole)
    assert copy.get_params()["estimator__alpha"] == 0.5
    assert copy.estimator is not whole.estimator
    search = GridSearchCV(whole, {"estimator__alpha": [1e-4, 1.0], "members": ["seeds", "snapshots"]}, cv=2).fit(X, y)
    assert {len(search.best_estimator_.estimators_)} == {3}
    fitted = copy.fit(X, y)
    assert [member.alpha for member in fitted.estimators_] == [0.5] * 3
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(X), fitted.predict_proba(X))
    assert isinstance(MLPEnsembleRegressor(n_estimators=1).fit(X[:20], y[:20]).estimators_[0], MLPRegressor)


def test_html_and_tags_tell_of_the_members():
    """The diagram has the estimator inside; tags are the members'."""
    whole = MLPEnsembleClassifier(MLPClassifier(alpha=0.125))
    assert "estimator: MLPClassifier" in estimator_html_repr(whole)
    assert "0.125" in estimator_html_repr(whole)
    for ours, member in ((whole, MLPClassifier()), (MLPEnsembleRegressor(), MLPRegressor())):
        assert get_tags(ours) == replace(
            get_tags(member), transformer_tags=None
        )  # only members have hidden layers to show
    assert inspect.signature(MLPEnsembleClassifier) == inspect.signature(MLPEnsembleRegressor)


def test_unconverged_members_are_told_of_once(two_threads):
    """One warning, in the caller's name; none from the members."""
    X, y = classification(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MLPEnsembleClassifier(MLPClassifier(**SMALL), 4, random_state=0).fit(X, y)
    assert [(w.category, w.filename) for w in caught] == [(ConvergenceWarning, __file__)]
    text = str(caught[0].message)
    assert text.startswith(
        "Stochastic Optimizer: Maximum iterations (6) reached and the optimization hasn't converged yet"
    )
    assert text.endswith("It happened in 4 of 4 members: [0, 1, 2, 3].")


def test_warning_as_error_leaves_the_ensemble_as_it_was():
    X, y = classification(2)
    whole = MLPEnsembleClassifier(MLPClassifier(**SMALL), 2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning, match="2 of 2 members"):
            whole.fit(X, y)
    assert set(vars(whole)) == set(whole.get_params(deep=False))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_diverged_members_are_told_of():
    """Members that grow by a factor with each step of a linear model, until early stopping falls back on an early
    epoch."""
    X, y = regression(300, n_features=2)
    settings = {
        "max_iter": 200,
        "n_iter_no_change": np.inf,
        "solver": "sgd",
        "momentum": 0.0,
        "learning_rate_init": 30.0,
    }
    estimator = MLPRegressor(hidden_layer_sizes=(), batch_size=32, early_stopping=True, **settings)
    with pytest.warns(ConvergenceWarning, match="no longer finite .* in 3 of 3 members"):
        fitted = MLPEnsembleRegressor(estimator, 3, random_state=0).fit(X, y)
    assert np.isfinite(fitted.predict(X)).all()


# --- errors and interruption --------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"estimator": MLPRegressor()},
            "'estimator' parameter of MLPEnsembleClassifier must be an instance of .*MLPClassifier",
        ),
        ({"estimator": LogisticRegression()}, "'estimator' parameter of MLPEnsembleClassifier"),
        ({"n_estimators": 0}, "'n_estimators' parameter"),
        ({"members": "stumps"}, "'members' parameter of MLPEnsembleClassifier must be a str among"),
        ({"n_jobs": 0}, "'n_jobs' parameter"),
        ({"random_state": "x"}, "'random_state' parameter"),
        ({"estimator": MLPClassifier(alpha=-1)}, "'alpha' parameter of MLPClassifier"),
        ({"members": "snapshots", "estimator": MLPClassifier(max_iter=0)}, "'max_iter' parameter of MLPClassifier"),
        ({"members": "snapshots", "estimator": MLPClassifier(solver="lbfgs")}, "stochastic solver.*'lbfgs'"),
        ({"members": "snapshots", "estimator": MLPClassifier(early_stopping=True)}, "early_stopping=False"),
        (
            {"members": "snapshots", "estimator": MLPClassifier(max_iter=7)},
            "max_iter must be at least n_estimators=8, got 7",
        ),
    ],
    ids=str,
)
def test_bad_parameter_is_refused(settings, message):
    """By name, before anything is trained, and without a trace in a fitted ensemble."""
    X, y = classification(2)
    whole = MLPEnsembleClassifier(MLPClassifier(**SMALL), 2, random_state=0).fit(X, y)
    before = dict(vars(whole))
    whole.set_params(**{"n_estimators": 8, **settings})
    with pytest.raises(ValueError, match=message):
        whole.fit(X, y)
    assert {name: value for name, value in vars(whole).items() if name.endswith("_")} == {
        name: value for name, value in before.items() if name.endswith("_")
    }


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_error_in_a_member(n_threads, monkeypatch):
    """The first member in order that fails is named, whichever failed first; later ones do not begin."""
    X, y = classification(2)
    whole = MLPEnsembleClassifier(MLPClassifier(**SMALL), 8, random_state=0).fit(X, y)
    before = dict(vars(whole))
    seeds = [member.random_state for member in whole.estimators_]
    monkeypatch.setattr(ensemble, "choose_threads", lambda n_jobs, flops: n_threads)
    begun, failed = [], threading.Event()
    fit = MLPClassifier._fit_member

    def fail(self, *arguments):
        number = seeds.index(self.random_state)
        begun.append(number)
        if number == 3:
            failed.set()
            raise ValueError("third")
        if number == 2:
            if n_threads > 1:
                assert failed.wait(30)
            raise ValueError("second")
        return fit(self, *arguments)

    monkeypatch.setattr(MLPClassifier, "_fit_member", fail)
    with pytest.raises(ValueError, match="second") as caught:
        whole.fit(X, y)
    assert caught.value.__notes__ == ["It happened in member 2 of 8, counted from 0."]
    assert sorted(begun) in {1: [[0, 1, 2]], 2: [[0, 1, 2, 3]], 3: [[0, 1, 2, 3], [0, 1, 2, 3, 4]]}[n_threads]
    assert dict(vars(whole)) == before


def test_error_stops_later_members(two_threads, monkeypatch):
    """The first member fails while the second is in a fit that would take hours."""
    X, y = classification(2)
    begun = threading.Event()
    fit, numbers = MLPClassifier._fit_member, itertools.count()

    def fail(self, *arguments):
        if next(numbers) == 0:
            assert begun.wait(30)
            raise ValueError("first")
        begun.set()
        return fit(self, *arguments)

    monkeypatch.setattr(MLPClassifier, "_fit_member", fail)
    endless = MLPClassifier(max_iter=10**8, tol=0.0, n_iter_no_change=np.inf)
    with pytest.raises(ValueError, match="first"):
        MLPEnsembleClassifier(endless, 2, random_state=0).fit(X, y)


def test_divergence_of_a_member_is_raised():
    """A real failure, with its own type and message."""
    X, y = regression()
    estimator = MLPRegressor(**SMALL, solver="sgd", activation="identity", learning_rate_init=1e30)
    for members in ("seeds", "snapshots"):
        with pytest.raises(ValueError, match="Solver produced non-finite parameter weights") as caught:
            MLPEnsembleRegressor(estimator, 2, members=members, random_state=0).fit(X, y)
        assert "member 0" in caught.value.__notes__[0]


@pytest.mark.filterwarnings("ignore:Training interrupted by user")
@pytest.mark.parametrize(
    ("members", "solver"), rest_slow([("seeds", "adam"), ("seeds", "lbfgs"), ("snapshots", "adam")], ("seeds", "adam"))
)
def test_interrupt_by_signal(members, solver, monkeypatch):
    """A real SIGINT during fits that would take hours: KeyboardInterrupt at once, and soon nobody trains any more."""
    X, y = classification(2, n=20_000, n_features=50)
    y = np.random.RandomState(0).permutation(y)  # nothing to learn, which L-BFGS takes longest to find
    whole = MLPEnsembleClassifier(MLPClassifier(**SMALL), 2, random_state=0).fit(X, y)
    before = dict(vars(whole))
    whole.set_params(members=members, n_jobs=1, n_estimators=5)
    settings = {"max_iter": 10**7, "max_fun": 10**7, "tol": 0.0, "n_iter_no_change": np.inf}
    whole.set_params(estimator=MLPClassifier((300,), solver=solver, **settings))
    begun = []
    fit = MLPClassifier._fit_member

    def spy(self, *arguments):
        begun.append(self.random_state)
        if len(begun) == 1:
            timer.start()
        return fit(self, *arguments)

    monkeypatch.setattr(MLPClassifier, "_fit_member", spy)
    sent = []

    def send():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.2, send)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            whole.fit(X, y)
        timer.join()
        assert sent
    finally:
        signal.signal(signal.SIGINT, handler)
    assert {name: value for name, value in vars(whole).items() if name.endswith("_")} == {
        name: value for name, value in before.items() if name.endswith("_")
    }
    deadline = time.monotonic() + 60
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("fastmlp")]
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
    assert not any(worker.is_alive() for worker in workers)
    assert len(begun) == 1


# --- scikit-learn's ensembles of our plain estimators ----------------------------------------------------------------

LEARNERS = {
    "hidden_layer_sizes": (15,),
    "max_iter": 40,
    "learning_rate_init": 0.01,
    "batch_size": 64,
    "random_state": 0,
}


def sklearns(name: str, module):
    """scikit-learn's ensemble ``name`` of a module's MLPs."""
    kind = "Classifier" if name.endswith("Classifier") else "Regressor"
    first = getattr(module, f"MLP{kind}")(**LEARNERS)
    second = clone(first).set_params(activation="tanh", alpha=0.01)
    whole = getattr(sklearn_ensemble, name)
    if name.startswith(("Bagging", "AdaBoost")):
        return whole(first, n_estimators=3, random_state=0)
    settings = {}
    if name.startswith("Stacking"):
        settings = {"cv": 2, "final_estimator": LogisticRegression() if kind == "Classifier" else Ridge()}
    elif kind == "Classifier":
        settings = {"voting": "soft"}
    return whole([("relu", first), ("tanh", second)], **settings)


@pytest.mark.crossed
@pytest.mark.parametrize("kind", ["Classifier", "Regressor"])
@pytest.mark.parametrize("name", ["Bagging", "AdaBoost", "Voting", "Stacking"])
def test_sklearns_ensembles_take_our_estimators(name, kind):
    """They learn, and predict what they do with scikit-learn's own MLPs, which draw the same and find the same numbers.

    Not so for bagging: it gives rows that it did not draw a weight of 0, and those count in scikit-learn's batches.
    """
    if name + kind == "AdaBoostClassifier":
        needs_sklearn("1.7", "sample_weight in MLPs")
    X, y = classification(3, n=300) if kind == "Classifier" else regression(300, n_features=2)
    ours, theirs = (sklearns(name + kind, module).fit(X[:200], y[:200]) for module in (fastmlp, sklearn.neural_network))
    chance = np.bincount(y[200:]).max() / 100 if kind == "Classifier" else 0.0
    assert ours.score(X[200:], y[200:]) > chance
    if name == "Bagging":
        assert abs(ours.score(X[200:], y[200:]) - theirs.score(X[200:], y[200:])) < 0.5 * (1 - chance)
    elif kind == "Classifier":
        assert np.array_equal(ours.predict(X), theirs.predict(X))
    else:
        np.testing.assert_allclose(
            ours.predict(X), theirs.predict(X), atol=SKLEARN_CURVE_RTOL * np.abs(y).max(), rtol=0
        )
