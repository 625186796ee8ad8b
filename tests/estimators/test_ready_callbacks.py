"""The ready-made callbacks but for Checkpoint, which tests/robustness/test_resuming.py has, and NotebookProgress."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest
from helpers import classification

from fastmlp import CSVLogger, MLPClassifier, MLPEnsembleClassifier, StopAtTarget, TimeLimit
from fastmlp.estimators.callbacks import HAS_CALLBACKS

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
if not HAS_CALLBACKS:
    pytest.skip("callbacks need scikit-learn 1.9", allow_module_level=True)

SMALL = {"hidden_layer_sizes": (9,), "random_state": 0, "max_iter": 8, "tol": 0.0}


def rows(path):
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "settings", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=["adam", "scored", "lbfgs"]
)
def test_csv_file_is_the_history(settings, tmp_path):
    model = MLPClassifier(**SMALL, **settings).set_callbacks(CSVLogger(tmp_path / "log.csv"))
    for _ in range(2):
        model.fit(*classification(3))
        assert rows(tmp_path / "log.csv") == model.history_


def test_csv_file_of_a_resumed_fit(tmp_path):
    """Lines of epochs after the point from which a fit goes on are replaced."""
    X, y = classification(3)
    path = tmp_path / "log.csv"
    model = MLPClassifier(**{**SMALL, "max_iter": 3}).set_callbacks(CSVLogger(path, append=True)).fit(X, y)
    with open(path, "a") as file:
        file.write("4,0.5,0.1,1,1\n5,0.5,0.1,1,1\n")
    model.set_params(max_iter=8).fit(X, y, resume=True)
    assert rows(path) == model.history_
    assert len(model.history_) == 8


class Clock:
    """A callback that counts the epochs of a fit, and a clock that shows their number as seconds."""

    seconds = 0.0

    def setup(self, estimator, context):
        self.seconds = 0.0

    def on_fit_task_begin(self, estimator, context): ...
    def teardown(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context):
        self.seconds += 1.0


def test_time_limit(monkeypatch):
    """It ends the fit after the epoch in which the time is up; each call of fit has its own time."""
    X, y = classification(3)
    clock = Clock()
    monkeypatch.setattr("fastmlp.estimators.callbacks.time", SimpleNamespace(perf_counter=lambda: clock.seconds))
    model = MLPClassifier(**SMALL).set_callbacks(clock, TimeLimit(2.5))
    assert [model.fit(X, y, resume=resume).n_iter_ for resume in (False, True, True)] == [3, 6, 8]
    assert model.loss_curve_ == MLPClassifier(**SMALL).fit(X, y).loss_curve_


@pytest.mark.parametrize("of", ["loss", "validation_loss", "validation_score"])
def test_stop_at_target(of):
    """At the first epoch that reaches it, the target itself included."""
    X, y = classification(3)
    settings = {**SMALL, "early_stopping": of != "loss", "n_iter_no_change": 100}
    values = [entry[of] for entry in MLPClassifier(**settings).fit(X, y).history_]
    target = values[4]
    reached = [value >= target if of == "validation_score" else value <= target for value in values]
    model = MLPClassifier(**settings).set_callbacks(StopAtTarget(target, of)).fit(X, y)
    assert model.n_iter_ == reached.index(True) + 1
    if of == "loss":
        members = MLPEnsembleClassifier(model, 2, random_state=0).fit(X, y).estimators_
        assert all(member.loss_ <= target or member.n_iter_ == 8 for member in members)


def test_what_is_refused():
    with pytest.raises(ValueError, match="seconds"):
        TimeLimit(0)
    with pytest.raises(ValueError, match="of must be one of"):
        StopAtTarget(0.5, "accuracy")
    with pytest.raises(ValueError, match="needs early_stopping=True or an eval_set"):
        MLPClassifier(**SMALL).set_callbacks(StopAtTarget(0.5)).fit(*classification(3))
