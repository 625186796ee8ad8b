"""The run's machinery: the core's epochs against the reference, divergence, Ctrl-C, threads."""

from __future__ import annotations

import copy
import os
import signal
import threading

import numpy as np
import pytest
from helpers import classification, regression, subnormal_tolerance, tolerance, varied
from scipy.sparse import csr_array

from fastmlp import MLPClassifier, MLPRegressor, Network, core, reference
from fastmlp.core._shuffle import shuffle
from fastmlp.training import loop as training
from fastmlp.training import threads
from fastmlp.training.schedules import Hyperparameters, make_schedule, update_rule

SIZES = (7, 13, 5, 3)
CONSTANTS = {"momentum": 0.8, "beta_1": 0.85, "beta_2": 0.95, "epsilon": 1e-3, "rho": 0.7, "weight_decay": 0.6}


@pytest.mark.parametrize("generator", [np.random.MT19937, np.random.PCG64])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 200, 65_537])
def test_shuffle_is_numpys(n, generator):
    """The same order as RandomState.shuffle, three times over, and the same generator afterwards."""
    ours, numpys = np.random.RandomState(generator(n)), np.random.RandomState(generator(n))
    order = np.arange(n, dtype=np.intp)
    expected = order.copy()
    for _ in range(3):
        shuffle(order, ours)
        numpys.shuffle(expected)
        np.testing.assert_array_equal(order, expected)
    assert ours.randint(1 << 30) == numpys.randint(1 << 30)


def test_shuffle_refuses_what_it_cannot_write(rng):
    frozen = np.arange(5, dtype=np.intp)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="order must be a C-contiguous writeable array"):
        shuffle(frozen, rng)
    with pytest.raises(ValueError, match="order must be an aligned array of 5 intp"):
        shuffle(np.arange(5, dtype=np.int16), rng)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", sorted(core.LOSSES))
@pytest.mark.parametrize("optimizer", sorted(core.OPTIMIZERS))
def test_epoch_is_the_references(optimizer, loss, dtype, rng):
    """Two epochs, with order, weights, a weightless batch, rates per step and penalty: loss, parameters, state."""
    output = core.LOSSES[loss]
    network = Network(SIZES, "tanh", output, dtype, random_state=0)
    X = varied(rng.standard_normal((50, 7)).astype(dtype))
    y = rng.randint(0, 3, 50) if output == "softmax" else rng.randint(0, 2, (50, 3)).astype(dtype)
    varied(y)
    order = rng.permutation(50)[:46].astype(np.intp)
    weight = rng.uniform(0.5, 1.5, 50)
    weight[order[8:16]] = 0
    rates = rng.uniform(0.001, 0.01, 6)
    penalty = {"alpha": 0.1, "l1_ratio": 0.3}

    wide = [w.astype(np.float64) for w in network.coefs + network.intercepts]
    model = reference.new_model(wide[:3], wide[3:], optimizer)
    trainer = core.Trainer(network.plan, loss, optimizer, 8, 1)
    trainer.load(network.parameters)
    for t in (0, 6):
        expected_loss, model = reference.epoch(
            model, network.activations, loss, optimizer, 8, X.astype(np.float64), y, weight, order, rates, t,
            reference.Hyper(0.0, **CONSTANTS), **penalty, eps=np.finfo(dtype).eps,
        )  # fmt: skip
        got_loss = trainer.epoch(X, y, weight, order, rates, t, **penalty, **CONSTANTS)
        assert abs(got_loss - expected_loss) <= tolerance(dtype, 50, max(1.0, abs(expected_loss)))
    state = np.empty((core.OPTIMIZERS[optimizer], network.n_parameters), dtype=dtype)
    trainer.store(network.parameters, state)
    # Twelve steps, each of which may move a parameter by a rate's worth of relative error in its gradient.
    expected = np.concatenate([w.ravel() for w in model.coefs + model.intercepts])
    assert np.abs(network.parameters - expected).max() <= tolerance(dtype, 12 * sum(SIZES))
    for k, array in enumerate(state):
        expected = np.concatenate([s[k].ravel() for s in model.state])
        assert np.abs(array - expected).max() <= tolerance(dtype, 12 * sum(SIZES), max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", sorted(rule for rule, n_state in core.OPTIMIZERS.items() if n_state))
def test_subnormal_averages_count_as_0_from_time_to_time(optimizer, dtype):
    """After every 128th update, as in the reference, signs kept; gradients and averages of squares stay as they are."""
    network = Network(SIZES, "identity", "identity", dtype, random_state=0)
    network.parameters = 0
    n_state, update = reference.OPTIMIZERS[optimizer]
    limits = np.finfo(dtype)
    small = float(limits.tiny) * np.array([0, -0.0, 3e-3, -3e-3, 0.5, -0.5, 1.5, -2.5, 1e9, -1e9])
    before = np.resize(small, (n_state, network.n_parameters)).astype(dtype)
    if optimizer not in reference.AVERAGES:
        before[0] = np.abs(before[0])
    before[1:] = np.abs(before[1:])
    X, y = np.zeros((8, SIZES[0]), dtype), np.full((8, SIZES[-1]), 0.5 * limits.tiny, dtype)
    biases = slice(-SIZES[-1], None)  # they alone have a gradient: a subnormal one
    for t in (63, 64, 127, 128, 129, 192, 256):  # the update that is made
        trainer = core.Trainer(network.plan, "squared_error", optimizer, 8, 1)
        trainer.load(network.parameters, before)
        trainer.epoch(X, y, None, None, np.zeros(1), t - 1, **CONSTANTS)
        after = np.empty_like(before)
        trainer.store(network.parameters, after)
        hyper, zeros = reference.Hyper(0.0, **CONSTANTS), np.zeros(network.n_parameters, dtype)
        _, want = update(zeros, zeros, tuple(before), hyper, t)
        cleared = t % 128 == 0 and optimizer in reference.AVERAGES
        want = np.array(reference.tidy(want) if cleared else want)
        got, want = after[:, : biases.start], want[:, : biases.start]
        np.testing.assert_allclose(got, want, rtol=0, atol=subnormal_tolerance(dtype))
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
        is_small = (after != 0) & (np.abs(after) < limits.tiny)
        assert is_small[0].any() == (not cleared)
        assert is_small[1:].any() == (n_state > 1)
        assert optimizer != "gradient" or is_small[0, biases].all()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("activation", core.ACTIVATIONS)
def test_epoch_is_the_references_by_activation(activation, sparse, rng):
    """Every hidden activation, its slope taken from the input or from the output; dense rows and CSR."""
    network = Network(SIZES, activation, "identity", "float64", random_state=0)
    X = varied(np.where(rng.uniform(size=(50, 7)) < 0.1, rng.standard_normal((50, 7)), 0))
    y, rates = varied(rng.standard_normal((50, 3))), np.full(7, 0.1)
    model = reference.new_model(network.coefs, network.intercepts, "sgd")
    hyper = reference.Hyper(0.0, **CONSTANTS)
    expected_loss, model = reference.epoch(
        model, network.activations, "squared_error", "sgd", 8, X, y, None, None, rates, 0, hyper
    )
    trainer = core.Trainer(network.plan, "squared_error", "sgd", 8, 2)
    trainer.load(network.parameters)
    got_loss = trainer.epoch(csr_array(X) if sparse else X, y, None, None, rates, 0, **CONSTANTS)
    trainer.store(network.parameters)
    expected = np.concatenate([w.ravel() for w in model.coefs + model.intercepts])
    assert abs(got_loss - expected_loss) <= tolerance("float64", 50, max(1.0, abs(expected_loss)))
    assert np.abs(network.parameters - expected).max() <= tolerance("float64", 7 * sum(SIZES))


@pytest.mark.parametrize("activation", core.ACTIVATIONS)
def test_estimator_learns_with_activation(activation):
    """Each name of the table is one that the estimators take, and the loss falls."""
    X, y = classification(3)
    estimator = MLPClassifier((11, 5), activation, random_state=0, max_iter=30, tol=0.0)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        estimator.fit(X, y)
    assert estimator.loss_curve_[-1] < min(estimator.loss_curve_[:10])
    assert np.isfinite(estimator.predict_proba(X)).all()


def test_epoch_resumes_from_stored_state(rng):
    """store and load in between change no bit."""
    network = Network(SIZES, "relu", random_state=0)
    X, y, rates = varied(rng.standard_normal((50, 7))), varied(rng.randint(0, 3, 50)), np.full(7, 0.01)
    results = []
    for interrupted in (False, True):
        parameters, state = network.parameters.copy(), np.zeros((2, network.n_parameters), np.float32)
        trainer = core.Trainer(network.plan, "log_loss", "adam", 8, 1)
        trainer.load(parameters)
        for epoch in range(3):
            trainer.epoch(X, y, None, None, rates, 7 * epoch)
            if interrupted:
                trainer.store(parameters, state)
                trainer = core.Trainer(network.plan, "log_loss", "adam", 8, 1)
                trainer.load(parameters, state)
        trainer.store(parameters, state)
        results.append((parameters, state))
    assert all(map(np.array_equal, *results))


def test_orders_compose(monkeypatch):
    """The order of each epoch is the last one, permuted; the caller's rows are left alone."""
    orders = []

    class Trainer(core.Trainer):
        def epoch(self, X, y, sample_weight, order, *args, **kwargs):
            orders.append(order.copy())
            return super().epoch(X, y, sample_weight, order, *args, **kwargs)

    monkeypatch.setattr(training.core, "Trainer", Trainer)
    rows = np.array([3, 1, 4, 9, 5], dtype=np.intp)
    data = training.TrainingData(np.eye(10), np.arange(10) % 2, None, rows)
    network = Network((10, 2), dtype="float64", random_state=0)
    settings = training.Settings(max_epochs=2, batch_size=2, shuffle=True, tol=0, patience=5)
    rule, again = update_rule("sgd", 0.9, True), np.random.RandomState(0)
    training.run_epochs(
        network,
        "log_loss",
        data,
        settings,
        Hyperparameters(),
        make_schedule("constant", "sgd", 0.1, 0.5),
        training.OptimizerState.new(rule, network),
        np.random.RandomState(0),
        training.Record(),
    )
    p, q = again.permutation(5), again.permutation(5)
    assert np.array_equal(orders[0], rows[p])
    assert np.array_equal(orders[1], rows[p][q])
    assert rows.tolist() == [3, 1, 4, 9, 5]


def test_weight_decay_reaches_the_core():
    """Where nothing else moves (epsilon is huge), each of adamw's steps leaves 1 - rate * weight_decay of the weights."""
    network = Network((4, 5, 2), dtype="float64", random_state=0)
    start = network.copy()
    data = training.TrainingData(np.eye(4), np.array([0, 1, 1, 0]))
    settings = training.Settings(max_epochs=3, batch_size=2, shuffle=False, tol=0, patience=5)
    training.run_epochs(
        network,
        "log_loss",
        data,
        settings,
        Hyperparameters(epsilon=1e300, weight_decay=0.5),
        make_schedule("constant", "adamw", 0.1, 0.5),
        training.OptimizerState.new("adamw", network),
        np.random.RandomState(0),
        training.Record(),
    )
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
@pytest.mark.parametrize("steers", [True, False])
def test_divergence_keeps_best_score(steers):
    """With rows to score on there is something to fall back on, whether or not they decide when to stop."""
    X, y = regression()
    network = Network((13, 8, 1), "relu", "identity", "float64", random_state=0)
    start = network.parameters.copy()
    schedule = make_schedule("constant", "sgd", 1e-6, 0.5)
    data = training.TrainingData(X, network.check_targets(y, "squared_error", len(X)))
    settings = training.Settings(max_epochs=20, batch_size=50, shuffle=False, tol=0.0, patience=10)
    record = training.Record()
    kept = []

    def score(network):
        kept.append(network.parameters.copy())
        schedule.rate = schedule.initial = 1e200
        return 1.0, 0.5

    optimizer = training.OptimizerState.new("sgd", network)
    training.run_epochs(
        network, "squared_error", data, settings, Hyperparameters(), schedule, optimizer, np.random, record,
        training.Watch(score, steers),
    )  # fmt: skip
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
    judge, calls = training._verdict, []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judge(*arguments)

    monkeypatch.setattr(training, "_verdict", interrupt)
    estimator = MLPClassifier(max_iter=20, **settings)
    with pytest.warns(UserWarning, match="interrupted by user"):
        estimator.fit(X, y)
    assert estimator.n_iter_ == 2
    assert np.array_equal(estimator.network_.parameters, expected.network_.parameters)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_interrupt_by_signal(solver):
    """A real SIGINT in the middle of an epoch that would take minutes: ended soon, warned, and it predicts."""
    X, y = classification(2, n=20000, n_features=50)
    X = np.repeat(X, 20, axis=0)
    sent = []

    def send():
        sent.append(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    estimator = MLPClassifier((700, 700), solver=solver, random_state=0, batch_size=200, n_jobs=1)
    timer = threading.Timer(1.0, send)
    # A shell that starts a job in the background has it ignore SIGINT; without this the fit would then last for hours.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
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


def test_threads_follow_the_work(monkeypatch):
    """One for little, as many as pay up to every limit for much; an integer is a limit, not a wish."""
    limits = {"openmp": 64, "affinity": 16, "quota": None}
    monkeypatch.setattr(core, "max_threads", lambda: limits["openmp"], raising=True)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: range(limits["affinity"]), raising=False)
    monkeypatch.setattr(threads, "_cgroup_quota", lambda pid: limits["quota"])
    per_thread = threads.FLOPS_PER_THREAD
    for n_jobs in (None, -1):
        assert threads.choose_threads(n_jobs, 0) == 1
        assert threads.choose_threads(n_jobs, 3 * per_thread) == 3
        assert threads.choose_threads(n_jobs, 1000 * per_thread) == 16
    limits["quota"] = 2.5
    assert threads.choose_threads(None, 1000 * per_thread) == 3
    limits["openmp"] = 2
    assert threads.choose_threads(None, 1000 * per_thread) == 2
    assert threads.choose_threads(7, 0) == 2
    assert threads.choose_threads(1, 1000 * per_thread) == 1


def test_flops_are_those_of_the_table():
    """seed of performance.md: 784-256-128-10, batch 128, 304 microseconds at 425 GFLOP/s."""
    sizes = (784, 256, 128, 10)
    assert threads.step_flops(sizes, 128) == 2 * 128 * (2 * 784 * 256 + 3 * 256 * 128 + 3 * 128 * 10)
    assert threads.forward_flops(sizes, 1) == 2 * (784 * 256 + 256 * 128 + 128 * 10)


def test_cgroup_quota_reads_files(tmp_path):
    """Both versions' files, with and without a limit."""
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert list(threads._quota_v2(tmp_path)) == [1.5]
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert list(threads._quota_v2(tmp_path)) == []
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert list(threads._quota_v1(tmp_path)) == []
    (tmp_path / "cpu.cfs_quota_us").write_text("50000\n")
    assert list(threads._quota_v1(tmp_path)) == [0.5]


def test_settings_survive_deepcopy():
    """Records and states are plain: copies share nothing."""
    record = training.Record(loss_curve=[1.0])
    other = copy.deepcopy(record)
    other.loss_curve.append(2.0)
    assert record.loss_curve == [1.0]
