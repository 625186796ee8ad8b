"""The estimators: solvers and schedules, copies and pickles, layouts of X, labels, fitted attributes."""

from __future__ import annotations

import copy
import pickle
import warnings

import joblib
import numpy as np
import pytest
from helpers import classification, multilabel, regression, tolerance
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPClassifier, MLPRegressor, Network, core
from fastmlp.training.schedules import SCHEDULES
from fastmlp.training.solvers import SOLVERS, STOCHASTIC_SOLVERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (17, 9), "max_iter": 5, "random_state": 3, "batch_size": 32}


def small_classifier(n_classes=3, **settings):
    """A fitted classifier and its data."""
    X, y = classification(n_classes)
    return MLPClassifier(**{**SMALL, **settings}).fit(X, y), X, y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_solver_lowers_loss(solver, dtype):
    """Every name of the table trains, in both element types, and keeps everything finite."""
    X, y = classification(3, dtype=dtype)
    settings = {**SMALL, "max_iter": 30, "learning_rate_init": 0.01, "solver": solver}
    estimator = MLPClassifier(**settings).fit(X, y)
    assert estimator.coefs_[0].dtype == dtype
    assert estimator.history_[-1]["loss"] < 0.9 * estimator.history_[0]["loss"]
    assert np.isfinite(estimator.network_.parameters).all()


@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedule_acts_on_its_solvers(schedule, solver):
    """A schedule for sgd only leaves the other solvers at learning_rate_init."""
    X, y = classification(2)
    settings = {**SMALL, "tol": 10.0, "n_iter_no_change": 1, "max_iter": 6}
    estimator = MLPClassifier(solver=solver, learning_rate=schedule, **settings).fit(X, y)
    rates = {entry["learning_rate"] for entry in estimator.history_}
    moves = schedule != "constant" and (solver == "sgd" or not SCHEDULES[schedule].sgd_only)
    assert (len(rates) > 1) == moves


def test_history_agrees_with_curves():
    """One dict per epoch, appended to by warm_start, with the score if there is one."""
    X, y = classification(2)
    estimator = MLPClassifier(**SMALL, early_stopping=True, warm_start=True).fit(X, y).fit(X, y)
    history = estimator.history_
    assert [entry["epoch"] for entry in history] == list(range(1, 11))
    assert [entry["loss"] for entry in history] == estimator.loss_curve_
    assert [entry["validation_score"] for entry in history] == estimator.validation_scores_
    assert all(entry["time"] > 0 and entry["rows"] == 182 for entry in history)
    assert max(estimator.validation_scores_) == estimator.best_validation_score_


def test_early_stopping_restores_best():
    """The parameters are those of the epoch that scored best."""
    X, y = regression()
    settings = {**SMALL, "early_stopping": True, "learning_rate_init": 0.3}
    long = MLPRegressor(**{**settings, "max_iter": 12}).fit(X, y)
    best = int(np.argmax(long.validation_scores_)) + 1
    assert best < 12
    short = MLPRegressor(**{**settings, "max_iter": best}).fit(X, y)
    assert np.array_equal(long.network_.parameters, short.network_.parameters)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["copy", "deepcopy", "pickle"]
)
@pytest.mark.parametrize("incremental", [False, True])
def test_copies_predict_and_train_on(duplicate, incremental):
    """A copy predicts the same bits, and partial_fit goes on from it as from the original.

    A pickle does the latter where the last training was by partial_fit: else it leaves out the optimizer's memory, to
    be small.
    """
    estimator, X, y = small_classifier()
    if incremental:
        estimator.partial_fit(X, y)
    other = duplicate(estimator)
    assert np.array_equal(other.predict_proba(X), estimator.predict_proba(X))
    assert np.shares_memory(other.coefs_[0], other.network_.parameters)
    before = other.network_.parameters.copy()
    other.partial_fit(X, y)
    changed = other.network_.parameters
    assert not np.array_equal(changed, before)
    assert np.array_equal(estimator.network_.parameters, before)
    pickled_fit = duplicate not in (copy.copy, copy.deepcopy) and not incremental
    assert np.array_equal(estimator.partial_fit(X, y).network_.parameters, changed) != pickled_fit


def test_fitted_state_is_plain():
    """NumPy arrays, Python values and our Network; of the extension only the optimizer's memory, and none in a
    pickle."""

    def walk(value):
        if isinstance(value, Network):
            value = value.__getstate__()
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            return set().union(*map(walk, value)) if value else set()
        return {type(value)}

    estimator, _, _ = small_classifier(early_stopping=True)
    plain = {np.ndarray, np.random.RandomState, str, bool, int, float, type(None)}
    kept, pickled = (walk(vars(one)) for one in (estimator, pickle.loads(pickle.dumps(estimator))))
    assert {t for t in kept if not issubclass(t, (*plain, np.generic))} == {core.OptimizerPanels}
    assert {t for t in pickled if not issubclass(t, (*plain, np.generic))} == set()
    assert {t for t in walk(vars(clone(estimator))) if t not in plain} == set()


def test_memory_map_stays_one(tmp_path):
    """joblib's memory map predicts the same bits, read-only and uncopied."""
    estimator, X, _ = small_classifier(hidden_layer_sizes=(64, 64))
    joblib.dump(estimator, tmp_path / "estimator")
    other = joblib.load(tmp_path / "estimator", mmap_mode="r")
    assert isinstance(other.network_.parameters, np.memmap)
    assert np.array_equal(other.predict_proba(X), estimator.predict_proba(X))


def test_coefs_are_the_model():
    """Written into, replaced one by one or all at once: predict follows, pickle too."""
    estimator, X, _ = small_classifier()
    before = estimator.predict_proba(X)
    doubled = [2 * w for w in estimator.coefs_]
    for change in ("in place", "one", "all"):
        other = copy.deepcopy(estimator)
        if change == "in place":
            for w in other.coefs_:
                w *= 2
        elif change == "one":
            other.coefs_[:] = doubled
        else:
            other.coefs_ = doubled
        got = pickle.loads(pickle.dumps(other)).predict_proba(X)
        assert np.array_equal(other.predict_proba(X), got)
        assert not np.array_equal(got, before)
        expected = Network((13, 17, 9, 3), dtype="float64", parameters=other.network_.parameters).forward(X)
        assert np.array_equal(got, expected)
    estimator.coefs_[0] = np.zeros((2, 2))
    with pytest.raises(ValueError, match=r"coefs\[0\] must have shape \(13, 17\)"):
        estimator.predict(X)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layouts_train_to_the_same_bits(dtype):
    """C, Fortran, strided, read-only, the other float type, DataFrame: read where they are."""
    X, y = classification(3, dtype="float32")
    settings = {**SMALL, "dtype": dtype, "early_stopping": True}
    expected = MLPClassifier(**settings).fit(X, y)
    read_only = X.copy()
    read_only.flags.writeable = False
    for other in (np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2], read_only, X.astype(np.float64)):
        got = MLPClassifier(**settings).fit(other, y)
        assert got.coefs_[0].dtype == dtype
        assert np.array_equal(got.network_.parameters, expected.network_.parameters)
        assert np.array_equal(got.predict_proba(other), expected.predict_proba(X))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "csc_matrix", "csc_array"])
def test_sparse_trains_as_dense(kind, solver):
    """Sparse and dense input of the same values: the same curve."""
    X, y = classification(3)
    X = np.where(np.abs(X) < 1, 0, X)
    dense = MLPClassifier(**SMALL, solver=solver).fit(X, y)
    estimator = MLPClassifier(**SMALL, solver=solver).fit(getattr(sparse, kind)(X), y)
    bound = tolerance("float64", X.size, 1.0)
    assert abs(dense.loss_ - estimator.loss_) < bound
    assert np.abs(dense.predict_proba(X) - estimator.predict_proba(sparse.csr_matrix(X))).max() < bound


def test_data_are_not_copied(monkeypatch):
    """The core is handed the caller's own array, whatever its order and float type."""
    seen = []
    trainer = core.Trainer

    class Spy:
        def __init__(self, *arguments, **options):
            self.inner = trainer(*arguments, **options)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def epoch(self, X, *arguments, **constants):
            seen.append(X)
            return self.inner.epoch(X, *arguments, **constants)

    monkeypatch.setattr(core, "Trainer", Spy)
    for X, y in (classification(2, dtype="float32"), classification(2)):
        for data in (X, np.asfortranarray(X)):
            seen.clear()
            MLPClassifier(**SMALL, dtype="float32", early_stopping=True).fit(data, y)
            assert len(seen) == SMALL["max_iter"]
            assert all(np.shares_memory(x, data) for x in seen)


@pytest.mark.parametrize("names", [["no", "yes"], ["a", "b", "c"], [2.0, 5.0, 9.0], [True, False]])
def test_labels_of_any_kind(names):
    """Strings, floats, booleans: predicted as they came, columns in the order of classes_."""
    X, y = classification(len(names))
    labels = np.array(names)[y]
    estimator = MLPClassifier(**{**SMALL, "max_iter": 50}).fit(X, labels)
    assert list(estimator.classes_) == sorted(names)
    assert set(estimator.predict(X)) <= set(names)
    assert estimator.score(X, labels) > 0.8
    assert np.array_equal(estimator.classes_[estimator.predict_proba(X).argmax(axis=1)], estimator.predict(X))


def test_multilabel_predicts_indicators():
    """An indicator for each label; sparse if y was."""
    X, y = multilabel()
    dense = MLPClassifier(**SMALL).fit(X, y)
    other = MLPClassifier(**SMALL).fit(X, sparse.csr_matrix(y))
    assert dense.predict(X).shape == y.shape == dense.predict_proba(X).shape
    assert sparse.issparse(other.predict(X))
    assert np.array_equal(other.predict(X).toarray(), dense.predict(X))


def test_l1_ratio_silences_idle_inputs():
    """Only the first feature matters: an L1 penalty brings the others' weights lower than an L2 penalty does."""
    X, _ = regression()
    idle = []
    for l1_ratio in (0.0, 0.5, 1.0):
        settings = {**SMALL, "max_iter": 100, "alpha": 5.0, "solver": "lbfgs", "activation": "identity"}
        estimator = MLPRegressor(l1_ratio=l1_ratio, **settings).fit(X, np.sin(X[:, 0]))
        idle.append(np.abs(estimator.coefs_[0][1:]).mean())
    assert idle[0] > max(idle[1:])


def test_n_jobs_changes_no_bit():
    """Threads are a matter of time only."""
    expected, X, _ = small_classifier()
    for n_jobs in (1, 2, 3, -1):
        estimator, _, _ = small_classifier(n_jobs=n_jobs)
        assert np.array_equal(estimator.network_.parameters, expected.network_.parameters)
        assert np.array_equal(estimator.predict_proba(X), expected.predict_proba(X))


def test_partial_fit_changes_of_mind():
    """Between calls: another solver begins with fresh state, another learning_rate_init is heeded."""
    X, y = classification(2)
    estimator = MLPClassifier(**SMALL).partial_fit(X, y, classes=[0, 1])
    estimator.set_params(solver="rmsprop", learning_rate_init=0.5).partial_fit(X, y)
    assert [entry["learning_rate"] for entry in estimator.history_] == [0.001, 0.5]
    assert estimator._optimizer_state["rule"] == "rmsprop"
    assert estimator._optimizer_state["n_updates"] == -(-len(X) // 32)


@pytest.mark.slow
def test_works_in_sklearns_tools():
    """Pipeline and cross-validation with processes."""
    X, y = classification(3)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL))
    assert np.isfinite(cross_val_score(pipeline, X, y, cv=3, n_jobs=2, error_score="raise")).all()


def test_refused_coefs_leave_the_model_as_it_was():
    X, y = classification(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((7,), max_iter=2, random_state=0).fit(X, y)
    before = model.predict_proba(X)
    good = [W.copy() for W in model.coefs_]
    for bad in ([np.zeros((2, 2))] * 2, good[:1], [np.zeros_like(good[0]), good[1] * 1j]):
        with pytest.raises(ValueError, match="coefs"):
            model.coefs_ = bad
        np.testing.assert_array_equal(model.predict_proba(X), before)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:lbfgs failed")
@pytest.mark.parametrize(("name", "value"), [
    *(("solver", solver) for solver in ("lbfgs", "sgd", "adam", "rmsprop")), ("loss", "huber"), ("activation", "tanh"),
    ("activation", ["tanh"]), ("dtype", "float32"), ("learning_rate", "cosine"), ("weight_init", "he_normal"),
    ("validation_metric", "r2"),
])  # fmt: skip
def test_names_may_be_numpys(name, value):
    """What a grid over an array of names hands in: NumPy's strings, which are a subclass of Python's."""
    X, y = regression()
    settings = {
        "hidden_layer_sizes": (4,),
        "max_iter": 2,
        "random_state": 0,
        "early_stopping": name == "validation_metric",
    }
    given = np.array(value)[()]
    assert type(value) is not type(given)
    want, got = (MLPRegressor(**settings, **{name: each}).fit(X, y) for each in (value, given))
    np.testing.assert_array_equal(got.predict(X), want.predict(X))


def test_coefs_of_an_unfitted_estimator_are_missing_by_name():
    for name in ("coefs_", "intercepts_"):
        with pytest.raises(AttributeError, match=f"'MLPClassifier' object has no attribute '{name}'"):
            getattr(MLPClassifier(), name)


@pytest.mark.parametrize("activation", core.ACTIVATIONS)
def test_estimator_learns_with_activation(activation):
    """Each name of the table is one that the estimators take, and the loss falls."""
    X, y = classification(3)
    estimator = MLPClassifier((11, 5), activation, random_state=0, max_iter=30, tol=0.0)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        estimator.fit(X, y)
    assert estimator.loss_curve_[-1] < min(estimator.loss_curve_[:10])
    assert np.isfinite(estimator.predict_proba(X)).all()
