"""fit(resume=True): whatever ended a fit, and wherever, it goes on to the bits of one that was not interrupted."""

from __future__ import annotations

import copy
import itertools
import pickle
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import classification, regression, rest_slow
from test_interruption import ENVIRONMENT, raise_at

from fastmlp import Checkpoint, MLPClassifier, MLPEnsembleClassifier, MLPRegressor, core, load

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer", "ignore:Training interrupted by user")

BASE = {"hidden_layer_sizes": (7, 7), "max_iter": 6, "random_state": 0, "batch_size": 32, "learning_rate_init": 0.01}
KINDS = {
    "plain": {},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 2, "tol": 0.05, "max_iter": 12},
    "one cycle": {"learning_rate": "one_cycle"},
    "random steps": {"dropout": 0.3, "mixup": 0.4, "input_noise": 0.1},
    "batch norm": {"batch_norm": True, "early_stopping": True, "dtype": "float32"},
    "in order": {"shuffle": False, "solver": "sgd", "learning_rate": "invscaling"},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1},
    "generator": {"random_state": "RandomState", "max_grad_norm": 0.5},
    "frozen": {"early_stopping": True, "validation_metric": "neg_log_loss", "alpha": 0.1, "l1_ratio": 0.5},
}


def make(kind, **settings):
    values = {**BASE, **KINDS[kind], **settings}
    if values["random_state"] == "RandomState":
        values["random_state"] = np.random.RandomState(5)
    return MLPClassifier(**values)


def data():
    return classification(3, n=110)


class At:
    """Interrupts, or stops, the fit at the end of an epoch."""

    def __init__(self, epoch, stop):
        self.epoch, self.stop = epoch, stop

    def setup(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...
    def teardown(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == self.epoch:
            if self.stop:
                return True
            raise KeyboardInterrupt
        return False


def in_file(model, folder):
    model.save(folder / "model", optimizer_state=True)
    return load(folder / "model")


AWAY = [
    lambda model, folder: model,
    lambda model, folder: copy.deepcopy(model),
    lambda model, folder: pickle.loads(pickle.dumps(model)),
    in_file,
]


def take_away(model, way, folder):
    """The model itself, a copy, or what comes back from a pickle or a file; a finished fit is not pickled for
    resuming."""
    return AWAY[way % 4 if model._position["unfinished"] else 0](model, folder)


def state(model):
    """Everything of a fitted model that has no times, by name."""
    values = {name: value for name, value in vars(model).items() if name.endswith("_") and name != "network_"}
    values["history_"] = [{key: value for key, value in entry.items() if key != "time"} for entry in model.history_]
    network, optimizer = model.network_, model._optimizer_state
    arrays = {
        "parameters": network.parameters,
        "statistics": network.statistics,
        "optimizer": np.asarray(optimizer["arrays"]),
    }
    rest = [optimizer["n_updates"], optimizer["seed"], model._no_improvement_count, model._learning_rate]
    return {
        **{name: repr(np.asarray(value).tolist()) for name, value in values.items()},
        **{name: array.tobytes() for name, array in arrays.items()},
        "rest": rest,
    }


def assert_same(resumed, expected):
    ours, theirs = state(resumed), state(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_after_any_epoch(kind, tmp_path):
    """By Ctrl-C or by a callback; kept, copied, pickled or in a file; also twice."""
    X, y = data()
    expected = make(kind).fit(X, y)
    for epoch in range(expected.n_iter_):
        for stop in (False, True):
            model = make(kind).set_callbacks(At(epoch, stop)).fit(X, y)
            assert model.n_iter_ == epoch + 1
            model.set_callbacks(At(0, not stop))
            resumed = take_away(model, epoch + stop, tmp_path).fit(X, y, resume=True)
            if hasattr(resumed, "_skl_callbacks"):  # interrupted again
                resumed.set_callbacks()
                resumed = take_away(resumed, epoch + stop + 1, tmp_path).fit(X, y, resume=True)
            assert_same(resumed, expected)


@pytest.mark.parametrize("kind", rest_slow(KINDS, "batch norm"))
def test_interrupted_at_any_line(kind, tmp_path):
    """Before every so many lines of the package that a fit runs."""
    X, y = data()
    expected = make(kind).fit(X, y)
    n_lines = raise_at(-1, KeyboardInterrupt, lambda: make(kind).fit(X, y))
    resumed = 0
    for line in range(1, n_lines + 1, 11):
        model = make(kind)
        try:
            raise_at(line, KeyboardInterrupt, lambda model=model: model.fit(X, y))
        except KeyboardInterrupt:
            continue
        resumed += 1
        assert_same(take_away(model, line, tmp_path).fit(X, y, resume=True), expected)
    assert resumed > 10


class Alarm(At):
    """Has a signal sent in the middle of an epoch."""

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == self.epoch:
            signal.setitimer(signal.ITIMER_REAL, 0.02)

    def on_fit_task_end(self, estimator, context): ...


@pytest.mark.parametrize("kind", rest_slow(KINDS, "random steps"))
def test_interrupted_between_steps(kind, tmp_path):
    """The steps that were made are not made again, and the epoch's loss has the same bits."""
    X, y = data()
    X, y = np.tile(X, (400, 1)), np.tile(y, 400)
    settings = {"max_iter": 2, "hidden_layer_sizes": (130, 130), "batch_size": 16, "n_jobs": 1}
    expected = make(kind, **settings).fit(X, y)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        model = make(kind, **settings).set_callbacks(Alarm(1, False)).fit(X, y)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert model.n_iter_ == 1
    assert model._position["n_steps"] > 0
    assert_same(in_file(model, tmp_path).fit(X, y, resume=True), expected)


def test_trainer_resumes_after_any_step():
    """Parameters, loss and penalty of an epoch that was cut in two."""
    X, y = data()
    plan = core.Plan((X.shape[1], 37, 3), ("relu",), "softmax", "float64")
    start = np.random.RandomState(0).randn(plan.n_parameters) * 0.1
    arguments = {"alpha": 0.3, "l1_ratio": 0.5}

    def trainer():
        made = core.Trainer(plan, "log_loss", "adam", 16, 1)
        made.load(start)
        return made

    whole, expected = trainer(), np.empty(plan.n_parameters)
    loss = whole.epoch(X, y, None, None, np.full(7, 0.01), 0, **arguments)
    whole.store(expected)
    assert whole.position()[0] == 7
    for steps in range(8):
        first, state = trainer(), np.empty((2, plan.n_parameters))
        rows = np.arange(min(16 * steps, len(X)), dtype=np.intp)
        first.epoch(X, y, None, rows, np.full(steps, 0.01), 0, **arguments)
        n_updates, so_far, penalties = first.position()
        assert n_updates == steps
        parameters = np.empty(plan.n_parameters)
        first.store(parameters, state)
        second = core.Trainer(plan, "log_loss", "adam", 16, 1)
        second.load(parameters, state)
        second.resume(0, steps, so_far, penalties)
        assert second.epoch(X, y, None, None, np.full(7, 0.01), 0, **arguments) == loss
        second.store(parameters)
        np.testing.assert_array_equal(parameters, expected)
        with pytest.raises(ValueError, match="penalties"):
            second.resume(0, 1, 0.0, penalties[1:])


@pytest.mark.parametrize("settings", [{}, {"solver": "sgd", "learning_rate": "adaptive"}], ids=["adam", "adaptive"])
def test_more_epochs(settings):
    """A fit that reached max_iter goes on with a larger one; one that is complete does not change."""
    X, y = regression()
    model = MLPRegressor(**BASE, **settings).fit(X, y)
    parameters = model.network_.parameters.copy()
    model.fit(X, y, resume=True)
    np.testing.assert_array_equal(model.network_.parameters, parameters)
    assert (model.n_iter_, len(model.history_)) == (6, 6)
    model.set_params(max_iter=9).fit(X, y, resume=True)
    assert_same(model, MLPRegressor(**{**BASE, **settings, "max_iter": 9}).fit(X, y))


def test_of_a_warm_start_with_weights_and_an_eval_set(tmp_path):
    """The run that is resumed may itself have begun with fitted weights."""
    X, y = data()
    weight = np.arange(len(y)) % 3
    arguments = {"sample_weight": weight, "eval_set": (X[:20], y[:20])}
    first = MLPClassifier(**BASE, warm_start=True).fit(X, y)
    expected = copy.deepcopy(first).set_params(dropout=0.2).fit(X, y, **arguments)
    model = copy.deepcopy(first).set_params(dropout=0.2).set_callbacks(At(2, False)).fit(X, y, **arguments)
    resumed = in_file(model, tmp_path)
    assert_same(resumed.fit(X, y, resume=True, **arguments), expected)


@pytest.mark.parametrize("away", [False, True])
def test_of_numpys_global_generator(away, tmp_path):
    """With random_state=None the fit's own draws are repeated, whatever was drawn since; the global generator is left
    alone."""
    X, y = data()
    np.random.seed(3)
    expected = make("early stopping", random_state=None, dropout=0.2).fit(X, y)
    np.random.seed(3)
    model = make("early stopping", random_state=None, dropout=0.2).set_callbacks(At(2, True)).fit(X, y)
    np.random.seed(4)
    before = np.random.get_state()[1].copy()
    resumed = (in_file(model, tmp_path) if away else model.set_callbacks()).fit(X, y, resume=True)
    assert_same(resumed, expected)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_what_cannot_be_resumed():
    X, y = data()
    with pytest.raises(ValueError, match="not fitted yet"):
        make("plain").fit(X, y, resume=True)
    with pytest.raises(ValueError, match="no fit to resume"):
        make("plain").partial_fit(X, y, classes=[0, 1, 2]).fit(X, y, resume=True)
    with pytest.raises(ValueError, match=r"lbfgs.* cannot resume"):
        make("plain", solver="lbfgs").fit(X, y).fit(X, y, resume=True)
    model = make("plain").set_callbacks(At(2, True)).fit(X, y)
    with pytest.raises(ValueError, match="no fit to resume"):
        copy.deepcopy(model).freeze(0).fit(X, y, resume=True)
    before = state(model)
    for change, words in [
        ({"learning_rate_init": 0.3}, "learning_rate_init changed"), ({"alpha": 0.3}, "alpha changed"),
        ({"batch_size": 10}, "batch_size changed"), ({"shuffle": False}, "shuffle changed"),
        ({"solver": "sgd"}, "needs the solver"), ({"activation": "tanh"}, "activations"),
        ({"hidden_layer_sizes": (3,)}, r"\['layer_sizes', 'activations'\] changed"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            copy.deepcopy(model).set_params(**change).fit(X, y, resume=True)
    with pytest.raises(ValueError, match="trained on 110 rows, these give 60"):
        model.fit(X[:60], y[:60], resume=True)
    with pytest.raises(ValueError, match="eval_set changed"):
        model.fit(X, y, eval_set=(X, y), resume=True)
    assert state(model) == before


def test_warning_says_how_to_go_on():
    X, y = data()
    with pytest.warns(UserWarning, match=r"after 3 of at most 6 epochs.*resume=True"):
        make("plain").set_callbacks(At(2, False)).fit(X, y)
    with pytest.warns(UserWarning, match=r"after 3 iterations.*warm_start=True"):
        make("plain", solver="lbfgs").set_callbacks(At(2, False)).fit(X, y)


def test_pickle_of_a_finished_fit_keeps_nothing_to_resume():
    X, y = data()
    finished = pickle.loads(pickle.dumps(make("early stopping", max_iter=40).fit(X, y)))
    assert not hasattr(finished, "_position")
    assert not hasattr(finished, "_optimizer_state")


# --- checkpoints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", rest_slow(KINDS, "early stopping", "batch norm"))
def test_checkpoint_of_any_epoch(kind, tmp_path):
    """A fit that dies of an error goes on from the last file, and every file is a whole model."""
    X, y = data()
    expected = make(kind).fit(X, y)

    class Dies(At):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch" and context.task_id == self.epoch:
                raise RuntimeError("died")

    for epoch in range(1, expected.n_iter_, 2):
        path = tmp_path / f"{epoch}"
        with pytest.raises(RuntimeError, match="died"):
            make(kind).set_callbacks(Checkpoint(path, every=2), Dies(epoch, False)).fit(X, y)
        loaded = load(path)
        assert loaded.n_iter_ == epoch + 1 - (epoch + 1) % 2
        assert_same(loaded.set_callbacks(Checkpoint(path, every=3)).fit(X, y, resume=True), expected)
        assert_same(load(path), expected)
        assert_same(load(path).fit(X, y, resume=True), expected)  # there is nothing left to do


def test_checkpoint_by_time(tmp_path, monkeypatch):
    X, y = data()
    model, files = make("plain", max_iter=20), []
    monkeypatch.setattr("fastmlp.estimators.callbacks.time.perf_counter", lambda: float(len(files)))
    monkeypatch.setattr(MLPClassifier, "save", lambda self, path, optimizer_state: files.append(self.n_iter_))
    model.set_callbacks(Checkpoint(tmp_path / "a", every=None, seconds=1.0)).fit(X, y)
    assert files == [20]  # the clock stood still: only at the end
    files.clear()
    monkeypatch.setattr("fastmlp.estimators.callbacks.time.perf_counter", itertools.count().__next__)
    model.fit(X, y)
    assert len(files) > 5
    assert files[-1] == 20


def test_checkpoint_of_an_interrupted_fit(tmp_path):
    """Ctrl-C ends the fit with a last file."""
    X, y = data()
    model = make("plain").set_callbacks(Checkpoint(tmp_path / "a", every=100), At(3, False)).fit(X, y)
    assert model.n_iter_ == 4
    assert_same(load(tmp_path / "a").fit(X, y, resume=True), make("plain").fit(X, y))


def test_checkpoint_that_cannot_be(tmp_path):
    X, y = data()
    for arguments in ({"every": None}, {"every": 0}, {"every": 1.5}, {"seconds": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            Checkpoint(tmp_path / "a", **arguments)
    with pytest.raises(ValueError, match="ensemble"):
        MLPEnsembleClassifier(make("plain").set_callbacks(Checkpoint(tmp_path / "a"))).fit(X, y)
    with pytest.raises(TypeError, match="learning_rate"):
        make("plain", learning_rate=lambda step, n: 1.0).set_callbacks(Checkpoint(tmp_path / "a")).fit(X, y)


JOB = """
import os, sys
import numpy as np
import fastmlp

path = sys.argv[1]
rng = np.random.RandomState(0)
X = rng.randn(600, 20)
y = (X[:, 0] * X[:, 1] > 0).astype(int)
arguments = {}
if os.path.exists(path):
    model, arguments = fastmlp.load(path), {"resume": True}
else:
    model = fastmlp.MLPClassifier(
        (50, 50), dropout=0.1, learning_rate="one_cycle", learning_rate_init=0.01, early_stopping=True,
        n_iter_no_change=1000, max_iter=150, random_state=0,
    )
print("begun", flush=True)
model.set_callbacks(fastmlp.Checkpoint(path)).fit(X, y, **arguments)
print(model.n_iter_, model.network_.parameters.tobytes().hex(), model.loss_curve_, model.validation_scores_)
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """SIGKILL, thirty times; the job is started again each time, and a new one begins when one is done."""
    command = [sys.executable, "-P", "-W", "ignore", "-c", JOB]

    def result(path):
        done = subprocess.run(
            [*command, path], env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=True
        )
        return done.stdout

    expected = result(tmp_path / "whole")
    moments, killed, run = random.Random(0), 0, 0
    while killed < 30:
        path = tmp_path / f"{run}"
        job = subprocess.Popen([*command, path], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        assert job.stdout.readline() == "begun\n"
        time.sleep(moments.uniform(0, 0.3))
        if job.poll() is None:
            killed += 1
        job.kill()
        job.communicate()
        if job.returncode == 0 or killed % 10 == 0:
            assert result(path) == expected
            run += 1
