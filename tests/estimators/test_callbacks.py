"""Callbacks: which hooks a fit calls and with what, what a stop and an error leave, scikit-learn's own callbacks."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import classification, regression
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor, load
from fastmlp.estimators.callbacks import HAS_CALLBACKS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
if not HAS_CALLBACKS:
    pytest.skip("callbacks need scikit-learn 1.9", allow_module_level=True)

SMALL = {"hidden_layer_sizes": (11,), "random_state": 3, "max_iter": 5}
SOLVERS = ["adam", "sgd", "lbfgs"]


class Recorder:
    """Keeps what it was told, may raise in a hook, and may ask to stop."""

    def __init__(self, fails_in=None, stop_after=None, error=RuntimeError):
        self.calls: list = []
        self.fails_in, self.stop_after, self.error = fails_in, stop_after, error

    def _note(self, hook, context, fitted=None):
        self.calls.append((hook, context.task_name, context.task_id))
        if self.fails_in == (hook, context.task_name):
            raise self.error("by the callback")

    def setup(self, estimator, context):
        self._note("setup", context)

    def on_fit_task_begin(self, estimator, context):
        self._note("begin", context)

    def on_fit_task_end(self, estimator, context):
        self._note("end", context)
        return (context.task_name, context.task_id) == ("epoch", self.stop_after)

    def teardown(self, estimator, context):
        self._note("teardown", context)


class Asking(Recorder):
    """Keeps the estimator that it gets at the end of each epoch, and the data."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.fitted, self.scores, self.data = [], [], []

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None, X=None, y=None, metadata=None):
        self.data.append((X, y, metadata))
        if context.task_name == "epoch":
            self.fitted.append(fitted_estimator)
            self.scores.append(fitted_estimator.score(X, y))
        return super().on_fit_task_end(estimator, context)


class PassedOn(Recorder):
    """One that an ensemble hands to its members."""

    max_propagation_depth = 1


def data_of(cls):
    return classification(3) if "Classifier" in cls.__name__ else regression()


def same_state(one, other):
    """Whether two estimators are fitted alike, to the bit; times aside."""
    fitted = [
        {k for k in vars(e) if (k.endswith("_") or k.startswith("_")) and "callback" not in k} for e in (one, other)
    ]
    assert fitted[0] == fitted[1]
    np.testing.assert_array_equal(one.network_.parameters, other.network_.parameters)
    np.testing.assert_array_equal(one.network_.statistics, other.network_.statistics)
    np.testing.assert_equal(*([{**epoch, "time": 0} for epoch in e.history_] for e in (one, other)))
    for name in (
        "n_iter_", "t_", "loss_", "loss_curve_", "best_loss_", "validation_scores_", "validation_loss_curve_",
        "best_validation_score_", "_learning_rate", "_no_improvement_count",
    ):  # fmt: skip
        np.testing.assert_equal(getattr(one, name, None), getattr(other, name, None), name)  # NaN is NaN
    states = [getattr(e, "_optimizer_state", {"arrays": np.zeros(0)})["arrays"] for e in (one, other)]
    np.testing.assert_array_equal(*states)


# --- hooks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_hooks_are_called_per_epoch(cls, solver):
    """Once around the fit and once around each epoch, numbered from 0, in this order."""
    recorder = Recorder()
    model = cls(**SMALL, solver=solver).set_callbacks(recorder).fit(*data_of(cls))
    epochs = [(hook, "epoch", number) for number in range(model.n_iter_) for hook in ("begin", "end")]
    assert recorder.calls == [
        ("setup", "fit", 0),
        ("begin", "fit", 0),
        *epochs,
        ("end", "fit", 0),
        ("teardown", "fit", 0),
    ]
    assert model.n_iter_ == SMALL["max_iter"]


def test_context_says_where_a_task_is():
    """Parent, number of tasks below, names; one tree per fit."""
    seen = []

    class Looking(Recorder):
        def on_fit_task_begin(self, estimator, context):
            seen.append((estimator, context))

    model = MLPClassifier(**SMALL).set_callbacks(Looking())
    model.fit(*classification(2))
    (root_of, root), *epochs = seen
    assert (root.max_subtasks, root.parent, root.sequential_subtasks, root.estimator_name) == (
        5,
        None,
        True,
        "MLPClassifier",
    )
    assert list(root) == [root, *[context for _, context in epochs]]
    assert root.source_estimator_name is None
    for estimator, context in epochs:
        assert estimator is root_of is model
        assert (context.max_subtasks, context.parent, context.root_uuid) == (0, root, root.root_uuid)
    model.fit(*classification(2))
    assert seen[6][1].root_uuid != root.root_uuid


def test_hooks_get_what_fit_got():
    """X, y and sample_weight as the user gave them, at each task; no weights, no metadata."""
    X, y = classification(2)
    labels = np.array(["no", "yes"])[y]
    weight = np.linspace(0.5, 2, len(y))
    asking = Asking()
    MLPClassifier(**SMALL).set_callbacks(asking).fit(X, labels, sample_weight=weight)
    assert len(asking.data) == 6
    for got_X, got_y, metadata in asking.data:
        assert got_X is X
        assert got_y is labels
        assert list(metadata) == ["sample_weight"]
        assert metadata["sample_weight"] is weight
    asking = Asking()
    MLPClassifier(**SMALL).set_callbacks(asking).fit(X, y)
    assert {metadata for *_, metadata in asking.data} == {None}


def test_hook_that_asks_for_something_else_is_refused():
    class Wrong(Recorder):
        def on_fit_task_begin(self, estimator, context, *, loss=None):
            raise AssertionError

    with pytest.raises(TypeError, match="loss"):
        MLPClassifier(**SMALL).set_callbacks(Wrong()).fit(*classification(2))


@pytest.mark.parametrize("solver", [*SOLVERS, "early_stopping", "batch_norm", "dropout"])
def test_observed_fit_has_the_same_bits(solver):
    """Looking changes nothing, however much is looked at."""
    settings = {
        **SMALL,
        **({"solver": solver} if solver in SOLVERS else {solver: True if solver != "dropout" else 0.3}),
    }
    X, y = classification(3)
    plain = MLPClassifier(**settings).fit(X, y)
    watched = MLPClassifier(**settings).set_callbacks(Asking()).fit(X, y)
    same_state(watched, plain)


def test_no_callbacks_no_context(monkeypatch):
    """Nobody listens: the tree of tasks is not made, and the optimizer's memory not written out at each epoch."""
    asked = []
    monkeypatch.setattr(MLPClassifier, "_init_callback_context", lambda *a, **k: asked.append(a))
    MLPClassifier(**SMALL).fit(*classification(2))
    MLPClassifier(**SMALL).set_callbacks(Recorder()).set_callbacks().fit(*classification(2))
    MLPEnsembleClassifier(MLPClassifier(**SMALL), n_estimators=2).fit(*classification(2))
    assert not asked


def test_partial_fit_calls_nothing():
    """One epoch at a time is the caller's own loop."""
    X, y = classification(2)
    recorder = Recorder()
    MLPClassifier(**SMALL).set_callbacks(recorder).partial_fit(X, y, classes=[0, 1])
    assert not recorder.calls


# --- as if the fit ended there ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "lbfgs"},
        {"solver": "sgd", "batch_norm": True},
        {"early_stopping": True, "learning_rate_init": 0.5, "max_iter": 8},
    ],
    ids=["adam", "lbfgs", "batch_norm", "early_stopping"],
)
def test_fitted_estimator_is_the_fit_that_ends_there(settings):
    """At the end of epoch k: what max_iter=k+1 gives, in all its attributes; and it stays that while the fit goes
    on."""
    X, y = classification(3)
    settings = {**SMALL, **settings}
    asking = Asking()
    model = MLPClassifier(**settings).set_callbacks(asking).fit(X, y)
    assert len(asking.fitted) == settings["max_iter"]
    for number, fitted in enumerate(asking.fitted):
        shorter = MLPClassifier(**{**settings, "max_iter": number + 1}).fit(X, y)
        same_state(fitted, shorter)
        assert asking.scores[number] == shorter.score(X, y)
    assert len(set(asking.scores)) > 1
    same_state(asking.fitted[-1], model)
    if settings.get("early_stopping"):  # the last is not the best, or this would test nothing
        assert np.argmax(model.validation_scores_) < model.n_iter_ - 1


def test_fitted_estimator_goes_on_as_the_fit_would_have():
    """With solver's memory, random numbers and record: a partial_fit from it is one from the shorter fit."""
    X, y = classification(3)
    asking = Asking()
    MLPClassifier(**SMALL).set_callbacks(asking).fit(X, y)
    shorter = MLPClassifier(**{**SMALL, "max_iter": 2}).fit(X, y)
    same_state(asking.fitted[1].partial_fit(X, y), shorter.partial_fit(X, y))


# --- stopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_callback_that_asks_to_stop_stops(cls, solver):
    """After that epoch, with that epoch's model, and without a warning that it did not converge."""
    X, y = data_of(cls)
    recorder = Recorder(stop_after=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        stopped = cls(**SMALL, solver=solver).set_callbacks(recorder).fit(X, y)
    assert (stopped.n_iter_, len(stopped.history_)) == (3, 3)
    assert recorder.calls[-3:] == [("end", "epoch", 2), ("end", "fit", 0), ("teardown", "fit", 0)]
    same_state(stopped, cls(**{**SMALL, "max_iter": 3}, solver=solver).fit(X, y))


def test_stop_with_early_stopping_leaves_the_best():
    X, y = classification(3)
    held_out = X[150:], y[150:]
    settings = {**SMALL, "early_stopping": True, "learning_rate_init": 0.5, "max_iter": 20}
    model = MLPClassifier(**settings).set_callbacks(Recorder(stop_after=7)).fit(X[:150], y[:150], eval_set=held_out)
    assert model.n_iter_ == 8
    assert model.validation_scores_[-1] < max(model.validation_scores_) == model.score(*held_out)
    same_state(model, MLPClassifier(**{**settings, "max_iter": 8}).fit(X[:150], y[:150], eval_set=held_out))


def test_diverged_run_ends_its_last_epoch():
    """The epoch that diverged ends, with the best of those before it."""
    X, y = regression()
    settings = {
        **SMALL,
        "solver": "sgd",
        "activation": "identity",
        "learning_rate_init": 3.0,
        "early_stopping": True,
        "max_iter": 200,
    }
    asking = Asking()
    with pytest.warns(ConvergenceWarning, match="no longer finite"):
        model = MLPRegressor(**settings, momentum=0.0).set_callbacks(asking).fit(X, y)
    assert len(asking.fitted) == model.n_iter_
    assert np.isfinite(asking.fitted[-1].network_.parameters).all()
    same_state(asking.fitted[-1], model)


def test_ctrl_c_in_a_callback_keeps_what_was_learnt():
    """As Ctrl-C anywhere in training: a warning, and the parameters so far."""
    X, y = classification(3)
    for solver in SOLVERS:
        recorder = Recorder(fails_in=("end", "epoch"), error=KeyboardInterrupt)
        model = MLPClassifier(**SMALL, solver=solver).set_callbacks(recorder)
        with pytest.warns(UserWarning, match="interrupted by user"):
            model.fit(X, y)
        assert model.n_iter_ == 1
        assert model.predict(X).shape == y.shape
        assert recorder.calls[-1] == ("teardown", "fit", 0)


# --- errors ----------------------------------------------------------------------------------------------------

PLACES = [(hook, "fit") for hook in ("setup", "begin", "end", "teardown")] + [("begin", "epoch"), ("end", "epoch")]


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_callback_that_raises_leaves_a_whole_estimator(place, solver):
    """As it was before while it trains; fitted when that is over. All that was set up is torn down, nothing is left
    behind."""
    X, y = classification(3)
    first, last = Recorder(), Recorder()
    failing = Recorder(fails_in=place)
    new = MLPClassifier(**SMALL, solver=solver).set_callbacks(first, failing, last)
    with pytest.raises(RuntimeError, match="by the callback"):
        new.fit(X, y)
    fitted = place in [("end", "fit"), ("teardown", "fit")]
    assert hasattr(new, "network_") == fitted
    assert {name for name in vars(new) if "callback" in name} == {"_skl_callbacks"}
    for one in (first, failing, last):
        hooks = [hook for hook, *_ in one.calls]
        assert hooks.count("setup") == hooks.count("teardown") == (one is not last or place[0] != "setup")
    if fitted:
        same_state(new, MLPClassifier(**SMALL, solver=solver).fit(X, y))

    old = MLPClassifier(**SMALL, solver=solver).fit(X, y)
    before = copy.deepcopy(old)
    with pytest.raises(RuntimeError, match="by the callback"):
        old.set_callbacks(Recorder(fails_in=place)).fit(X[:, ::-1], y)
    same_state(old, MLPClassifier(**SMALL, solver=solver).fit(X[:, ::-1], y) if fitted else before)


def test_stop_iteration_is_an_error_in_every_solver():
    """SciPy would take it for the end of the run."""
    X, y = classification(2)
    for solver, error in [("adam", StopIteration), ("lbfgs", RuntimeError)]:
        model = MLPClassifier(**SMALL, solver=solver).set_callbacks(Recorder(("end", "epoch"), error=StopIteration))
        with pytest.raises(error):
            model.fit(X, y)
        assert not hasattr(model, "network_")


def test_bad_input_tears_down():
    """An error before the first epoch, with callbacks set up already."""
    recorder = Recorder()
    with pytest.raises(ValueError, match="NaN"):
        MLPClassifier(**SMALL).set_callbacks(recorder).fit(np.full((4, 2), np.nan), [0, 1, 0, 1])
    assert [hook for hook, *_ in recorder.calls] == ["setup", "begin", "teardown"]


def test_set_callbacks_takes_what_has_the_hooks():
    model = MLPClassifier()
    for wrong in (print, Recorder, object()):
        with pytest.raises(TypeError, match="callback"):
            model.set_callbacks(Recorder(), wrong)
    assert model.set_callbacks() is model


# --- in scikit-learn's estimators ------------------------------------------------------------------------------


def test_clones_have_the_same_callbacks():
    """So they are called in searches; set_callbacks() without any takes them away."""
    recorder = Recorder()
    model = MLPClassifier(**SMALL).set_callbacks(recorder)
    X, y = classification(2)
    cross_val_score(clone(model), X, y, cv=2)
    assert [hook for hook, name, _ in recorder.calls if name == "fit"] == 2 * ["setup", "begin", "end", "teardown"]
    clone(model).set_callbacks().fit(X, y)
    assert sum(hook == "teardown" for hook, *_ in recorder.calls) == 2


def test_callbacks_are_no_parameters():
    recorder = Recorder()
    model = MLPClassifier().set_callbacks(recorder)
    assert model.get_params() == MLPClassifier().get_params()
    assert repr(model) == "MLPClassifier()"


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_scoring_monitor_in_a_search_of_pipelines(n_jobs):
    """A row for each epoch of each candidate on each split, also from other processes; scores are those of the shorter
    fits."""
    from sklearn.callback import ScoringMonitor

    X, y = classification(3)
    monitor = ScoringMonitor(scoring="accuracy")
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL).set_callbacks(monitor))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 1.0]}, cv=2, n_jobs=n_jobs).fit(X, y)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(rows) == (4 + 1) * SMALL["max_iter"]
    refit = [row["accuracy"] for row in rows if len(row["task_id_path"]) == min(len(r["task_id_path"]) for r in rows)]
    scaled = StandardScaler().fit_transform(X)
    alpha = search.best_params_["mlpclassifier__alpha"]
    shorter = [
        MLPClassifier(**{**SMALL, "max_iter": n + 1}, alpha=alpha).fit(scaled, y).score(scaled, y) for n in range(5)
    ]
    assert refit == shorter


@pytest.mark.parametrize("depth", [0, 1, None])
def test_callback_of_a_pipeline_reaches_our_epochs(depth):
    """As deep as it says."""
    X, y = classification(3)
    passed = PassedOn()
    passed.max_propagation_depth = depth
    make_pipeline(StandardScaler(), MLPClassifier(**SMALL)).set_callbacks(passed).fit(X, y)
    assert sum(name == "epoch" for _, name, _ in passed.calls) == (0 if depth == 0 else 2 * SMALL["max_iter"])
    assert sum(hook == "setup" for hook, *_ in passed.calls) == 1


@pytest.mark.parametrize("make", [
    lambda bar: MLPClassifier(**SMALL).set_callbacks(bar),
    lambda bar: MLPRegressor(**SMALL, solver="lbfgs").set_callbacks(bar),
    lambda bar: MLPEnsembleClassifier(MLPClassifier(**SMALL), n_estimators=2).set_callbacks(bar),
    lambda bar: GridSearchCV(MLPClassifier(**SMALL), {"alpha": [0, 1]}, cv=2, n_jobs=2).set_callbacks(bar),
], ids=["classifier", "regressor", "ensemble", "search"])  # fmt: skip
def test_progress_bar_reaches_the_end(make, capfd):
    """scikit-learn's own bar, which needs rich."""
    pytest.importorskip("rich", reason='rich is missing: pip install "fastmlp[test]"')
    from sklearn.callback import ProgressBar

    make(ProgressBar()).fit(*classification(2))
    lines = capfd.readouterr().out.splitlines()
    assert any("MLP" in line for line in lines)
    for line in lines:
        assert " 100% " in line
        assert " - fit" in line or " - search" in line or " - refit" in line


# --- ensembles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", ["seeds", "bootstrap", "snapshots"])
@pytest.mark.parametrize("cls", [MLPEnsembleClassifier, MLPEnsembleRegressor])
def test_ensemble_has_a_task_for_each_member(cls, members):
    """Whether it is passed on to the members or not."""
    X, y = data_of(cls)
    member = cls._member_class(**{**SMALL, "max_iter": 6})
    recorder, passed = Recorder(), PassedOn()
    ensemble = cls(member, 3, members=members, n_jobs=2, random_state=0).set_callbacks(recorder, passed).fit(X, y)
    assert sorted(call for call in recorder.calls if call[0] == "end") == [
        ("end", "fit", 0),
        *[("end", "member", k) for k in range(3)],
    ]
    assert [hook for hook, *_ in recorder.calls][:: len(recorder.calls) - 1] == ["setup", "teardown"]
    n_epochs = sum(one.n_iter_ for one in ensemble.estimators_)
    assert n_epochs == (6 if members == "snapshots" else 18)
    assert sum(hook == "end" and name == "epoch" for hook, name, _ in passed.calls) == n_epochs
    # The member's own root is the ensemble's task: it is told of once.
    assert sum(hook == "end" and name == "fit" for hook, name, _ in passed.calls) == 3 + 1
    assert sum(hook == "setup" for hook, *_ in passed.calls) == 1
    for one in ensemble.estimators_:
        assert not {name for name in vars(one) if "callback" in name or name.startswith(("_run_name", "_warn"))}
    plain = cls(cls._member_class(**{**SMALL, "max_iter": 6}), 3, members=members, random_state=0).fit(X, y)
    np.testing.assert_array_equal(ensemble.predict(X), plain.predict(X))


def test_callbacks_of_members_see_the_ensemble():
    """Set on the estimator: set up in each member, whose root knows whose member it is; a stop ends that member's
    run."""
    X, y = classification(3)
    roots = []

    class Looking(Recorder):
        def setup(self, estimator, context):
            super().setup(estimator, context)
            roots.append(context)

    member = MLPClassifier(**SMALL).set_callbacks(looking := Looking(stop_after=1))
    ensemble = MLPEnsembleClassifier(member, 3, random_state=0).fit(X, y)
    assert [one.n_iter_ for one in ensemble.estimators_] == [2, 2, 2]
    assert sum(hook == "teardown" for hook, *_ in looking.calls) == 3
    assert sorted(root.task_id for root in roots) == [0, 1, 2]
    assert {(root.source_estimator_name, root.source_task_name) for root in roots} == {
        ("MLPEnsembleClassifier", "member")
    }
    assert len({root.root_uuid for root in roots}) == len({root.parent for root in roots}) == 1


def test_ensemble_is_as_before_when_a_callback_raises():
    X, y = classification(3)
    ensemble = MLPEnsembleClassifier(MLPClassifier(**SMALL), 3, random_state=0).fit(X, y)
    before = ensemble.predict_proba(X)
    for failing in (PassedOn(("end", "epoch")), Recorder(("begin", "member")), Recorder(("end", "member"))):
        ensemble.set_callbacks(failing)
        with pytest.raises(RuntimeError, match="by the callback") as caught:
            ensemble.fit(X[:, ::-1], y)
        assert "member 0" in caught.value.__notes__[0]
        np.testing.assert_array_equal(ensemble.predict_proba(X), before)
        assert {name for name in vars(ensemble) if "callback" in name} == {"_skl_callbacks"}
        assert failing.calls[-1][0] == "teardown"


def test_passed_on_callback_does_not_belong_on_a_member():
    member = MLPClassifier(**SMALL).set_callbacks(PassedOn())
    with pytest.raises(TypeError):
        MLPEnsembleClassifier(member, 2).fit(*classification(2))


# --- one fit at a time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_refused_fit_leaves_the_callbacks_of_the_one_that_runs(call):
    """In a hook, as from another thread: the refusal comes before anything is set up or torn down."""
    X, y = classification(2)
    refused = []

    class Again(Recorder):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch":
                with pytest.raises(RuntimeError, match="being fitted or changed"):
                    getattr(estimator, call)(X, y)
                refused.append(context.task_id)
            return super().on_fit_task_end(estimator, context)

    again, other = Again(), Recorder()
    model = MLPClassifier(**SMALL).set_callbacks(again, other).fit(X, y)
    assert refused == list(range(5))
    for one in (again, other):
        assert (
            [hook for hook, *_ in one.calls].count("setup") == [hook for hook, *_ in one.calls].count("teardown") == 1
        )
        assert one.calls[-1][0] == "teardown"
    same_state(model, MLPClassifier(**SMALL).fit(X, y))


def test_members_of_a_fitting_ensemble_are_not_fitted_or_changed():
    """Nor is the ensemble itself."""
    X, y = classification(2)
    refused = []

    class Meddler(Recorder):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch":
                for change in (
                    lambda: estimator.fit(X, y),
                    lambda: estimator.set_params(alpha=3.0),
                    lambda: ensemble.set_params(n_estimators=3),
                ):
                    with pytest.raises(RuntimeError, match="being fitted or changed"):
                        change()
                refused.append(1)

    member = MLPClassifier(**SMALL).set_callbacks(Meddler())
    ensemble = MLPEnsembleClassifier(member, 2, n_jobs=1, random_state=0)
    ensemble.fit(X, y)
    assert len(refused) == 10


class Keeper(Recorder):
    """Keeps what a fit would leave after each epoch, pickled and in a file too."""

    folder: Path

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "epoch":
            kept.append(fitted_estimator)
            pickle.dumps(fitted_estimator)
            fitted_estimator.save(self.folder / "checkpoint.safetensors")


kept: list = []


@pytest.mark.parametrize("ensemble", [False, True])
def test_checkpoints_are_models_of_their_own(ensemble, tmp_path):
    """They can be saved, pickled and trained on, in the hook and later, and nobody's callbacks are torn down by it."""
    X, y = classification(2)
    kept.clear()
    keeper = Keeper()
    keeper.folder = tmp_path
    model = MLPClassifier(**SMALL).set_callbacks(keeper)
    fitted = MLPEnsembleClassifier(model, 2, n_jobs=1, random_state=0).fit(X, y) if ensemble else model.fit(X, y)
    calls = list(keeper.calls)
    assert len(kept) == (10 if ensemble else 5)
    for one in kept:
        assert not set(vars(one)) & {"_callback_fit_ctx", "_parent_callback_ctx", "_warn_of_end", "_run_name"}
        one.partial_fit(X, y)
    assert keeper.calls == calls
    fitted.save(tmp_path / "all.safetensors")
    loaded = load(tmp_path / "all.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert not hasattr(loaded, "_skl_callbacks")


@pytest.mark.parametrize(("depth", "watched"), [(0, {"GridSearchCV"}), (1, {"GridSearchCV", "MLPClassifier"})])
def test_a_search_hands_a_callback_down_as_deep_as_it_asks(depth, watched):
    """With depth 0, a bar on a search shows the search's own tasks only, and no fit's epochs."""
    names = []

    class Bar(Recorder):
        max_propagation_depth = depth

        def on_fit_task_begin(self, estimator, context):
            names.append(type(estimator).__name__)

    search = GridSearchCV(MLPClassifier(**SMALL), {"alpha": [0.1, 1.0]}, cv=2).set_callbacks(Bar())
    search.fit(*classification(2))
    assert set(names) == watched
    assert names.count("MLPClassifier") == depth * 5 * (1 + SMALL["max_iter"])  # four fits, and that of the best
