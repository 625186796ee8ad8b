"""The loop of epochs: the order of rows, divergence, Ctrl-C."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading

import numpy as np
import pytest
from helpers import classification, regression, rest_slow, tolerance

from fastmlp import MLPClassifier, MLPRegressor, Network, core
from fastmlp.training import loop
from fastmlp.training import run as training
from fastmlp.training.rows import TrainingData
from fastmlp.training.schedules import make_schedule
from fastmlp.training.solvers import update_rule


def test_orders_compose(monkeypatch):
    """The order of each epoch is the last one, permuted; the caller's rows are left alone."""
    orders = []

    class Trainer(core.Trainer):
        def epoch(self, X, y, sample_weight, order, *args, **kwargs):
            orders.append(order.copy())
            return super().epoch(X, y, sample_weight, order, *args, **kwargs)

    monkeypatch.setattr(core, "Trainer", Trainer)
    rows = np.array([3, 1, 4, 9, 5], dtype=np.intp)
    data = TrainingData(np.eye(10), np.arange(10) % 2, None, rows)
    network = Network((10, 2), dtype="float64", random_state=0)
    settings = training.Settings(max_epochs=2, batch_size=2, shuffle=True, tol=0, patience=5)
    rule, again = update_rule("sgd", 0.9, True), np.random.RandomState(0)
    loop.train_epochs(training.StochasticRun(
        network=network, loss="log_loss", data=data, settings=settings, rng=np.random.RandomState(0),
        schedule=make_schedule("constant", "sgd", 0.1, 0.5), optimizer=training.OptimizerState.new(rule, network),
    ))  # fmt: skip
    p, q = again.permutation(5), again.permutation(5)
    assert np.array_equal(orders[0], rows[p])
    assert np.array_equal(orders[1], rows[p][q])
    assert rows.tolist() == [3, 1, 4, 9, 5]


def test_weight_decay_reaches_the_core():
    """Where nothing else moves (epsilon is huge), each of adamw's steps leaves 1 - rate * weight_decay of the
    weights."""
    network = Network((4, 5, 2), dtype="float64", random_state=0)
    start = network.copy()
    data = TrainingData(np.eye(4), np.array([0, 1, 1, 0]))
    settings = training.Settings(max_epochs=3, batch_size=2, shuffle=False, tol=0, patience=5)
    loop.train_epochs(training.StochasticRun(
        network=network, loss="log_loss", data=data, settings=settings, rng=np.random.RandomState(0),
        schedule=make_schedule("constant", "adamw", 0.1, 0.5), optimizer=training.OptimizerState.new("adamw", network),
        hyperparameters={"epsilon": 1e300, "weight_decay": 0.5},
    ))  # fmt: skip
    for W, b, W_0, b_0 in zip(network.coefs, network.intercepts, start.coefs, start.intercepts, strict=True):
        assert np.abs(W - 0.95**6 * W_0).max() <= tolerance("float64", 6)
        assert np.array_equal(b, b_0)


DIVERGING = {"solver": "sgd", "learning_rate_init": 1e10, "max_iter": 50, "random_state": 0}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_names_the_epoch():
    """scikit-learn's words, the epoch, what to do; and the fitted estimator predicts as before."""
    X, y = regression()
    estimator = MLPRegressor(max_iter=5, random_state=0)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        estimator.fit(X, y)
    expected, before = estimator.predict(X), dict(vars(estimator))
    estimator.set_params(**DIVERGING)
    with pytest.raises(ValueError, match=r"(?s)Solver produced non-finite.*in epoch \d+.*learning_rate_init"):
        estimator.fit(X * 100, y)
    assert np.array_equal(estimator.predict(X), expected)
    assert set(vars(estimator)) == set(before)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("controls_stopping", [True, False])
def test_divergence_keeps_best_score(controls_stopping):
    """With rows to score on there is something to fall back on, whether or not they decide when to stop."""
    X, y = regression()
    network = Network((13, 8, 1), "relu", "identity", "float64", random_state=0)
    start = network.parameters.copy()
    schedule = make_schedule("constant", "sgd", 1e-6, 0.5)
    data = TrainingData(X, network.check_targets(y, "squared_error", len(X)))
    settings = training.Settings(max_epochs=20, batch_size=50, shuffle=False, tol=0.0, patience=10)
    record = training.Record()
    kept = []

    def score(network):
        kept.append(network.parameters.copy())
        schedule.rate = schedule.initial = 1e200
        return 1.0, 0.5

    optimizer = training.OptimizerState.new("sgd", network)
    loop.train_epochs(training.StochasticRun(
        network=network, loss="squared_error", data=data, settings=settings, rng=np.random, schedule=schedule,
        optimizer=optimizer, record=record, validation=training.Validation(score, controls_stopping),
    ))  # fmt: skip
    assert record.ended == "diverged"
    assert len(kept) == 1
    assert np.array_equal(network.parameters, kept[0])
    assert not np.array_equal(network.parameters, start)
    assert (record.validation_scores, record.validation_loss_curve) == ([1.0], [0.5])


@pytest.mark.parametrize("early_stopping", [False, True])
def test_interrupt_keeps_parameters(early_stopping, monkeypatch):
    """Ctrl-C in the third epoch: a warning, and the parameters of the second, or the best ones."""
    X, y = classification(2)
    settings = {"random_state": 0, "early_stopping": early_stopping, "tol": 0.0}
    with pytest.warns(UserWarning, match="Maximum iterations"):
        expected = MLPClassifier(max_iter=2, **settings).fit(X, y)
    judge, calls = loop._EpochLoop.reason_to_stop, []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judge(*arguments)

    monkeypatch.setattr(loop._EpochLoop, "reason_to_stop", interrupt)
    estimator = MLPClassifier(max_iter=20, **settings)
    with pytest.warns(UserWarning, match="interrupted by user"):
        estimator.fit(X, y)
    assert estimator.n_iter_ == 2
    assert np.array_equal(estimator.network_.parameters, expected.network_.parameters)


@pytest.mark.parametrize("solver", rest_slow(["adam", "lbfgs"], "adam"))
def test_interrupt_by_signal(solver, monkeypatch):
    """A real SIGINT in the middle of an epoch that would take minutes: ended soon, warned, and it predicts."""
    X, y = classification(2, n=20000, n_features=50)
    X = np.repeat(X, 20, axis=0)
    sent = []

    def send():
        sent.append(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    class Beginning(core.Trainer):
        def load(self, *arguments):
            if timer.ident is None:
                timer.start()
            super().load(*arguments)

    monkeypatch.setattr(core, "Trainer", Beginning)
    estimator = MLPClassifier((700, 700), solver=solver, random_state=0, batch_size=200, n_jobs=1)
    timer = threading.Timer(0.2, send)
    # A shell that starts a job in the background has it ignore SIGINT; without this the fit would then last for hours.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.warns(UserWarning, match="interrupted by user"):
            estimator.fit(X, np.repeat(y, 20))
    finally:
        signal.signal(signal.SIGINT, before)
    assert sent
    assert estimator.n_iter_ == 0
    assert np.isfinite(estimator.predict_proba(X[:10])).all()


def test_interrupt_ends_lbfgs_with_best(monkeypatch):
    """Ctrl-C in L-BFGS: the best parameters seen, and a warning."""
    X, y = classification(2)
    gradient, losses = core.Trainer, []

    class Interrupted:
        def __init__(self, *arguments, **options):
            self.inner = gradient(*arguments, **options)

        def loss_gradient(self, *arguments, **constants):
            if len(losses) == 7:
                raise KeyboardInterrupt
            losses.append(self.inner.loss_gradient(*arguments, **constants))
            return losses[-1]

    monkeypatch.setattr(core, "Trainer", Interrupted)
    estimator = MLPClassifier(solver="lbfgs", random_state=0)
    with pytest.warns(UserWarning, match="interrupted by user"):
        estimator.fit(X, y)
    assert estimator.loss_ == min(losses)
    assert len(set(losses)) == 7
    assert np.isfinite(estimator.predict_proba(X)).all()


def test_settings_survive_deepcopy():
    """Records and states are plain: copies share nothing."""
    record = training.Record(loss_curve=[1.0])
    other = copy.deepcopy(record)
    other.loss_curve.append(2.0)
    assert record.loss_curve == [1.0]


@pytest.mark.parametrize("bits", [np.random.MT19937, np.random.PCG64])
def test_copied_generator_draws_the_same(bits):
    """With a number of the normal distribution in store, too; the original is as it was."""
    rng = np.random.RandomState(bits(3))
    rng.standard_normal(5)
    copied = training.copy_generator(rng)
    draws = [copied.standard_normal(3), copied.permutation(50)]
    assert all(map(np.array_equal, draws, [rng.standard_normal(3), rng.permutation(50)]))
    pickled = pickle.dumps(copied)
    assert b"fastmlp" not in pickled  # a later release may have other names
    assert pickle.loads(pickled).standard_normal() == copied.standard_normal()
