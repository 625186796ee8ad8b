"""Learning rates over a run: their formulas, what a run makes of them, what users may hand in."""

from __future__ import annotations

import copy
import hashlib
import pickle
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from helpers import classification, tolerance
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import fastmlp
from fastmlp import (
    CosineDecay,
    ExponentialDecay,
    FlatCosine,
    LogCosine,
    MLPClassifier,
    Network,
    OneCycle,
    StepDecay,
    WarmupCosine,
    core,
    reference,
)
from fastmlp.training import run as training
from fastmlp.training.loop import train_epochs
from fastmlp.training.rows import TrainingData
from fastmlp.training.schedules import CURVES, SCHEDULES, Constant, make_schedule
from fastmlp.training.solvers import STOCHASTIC_SOLVERS, update_rule

OTHERS = [
    StepDecay(0.5, (0.1, 0.3, 0.7)),
    StepDecay(at=()),
    ExponentialDecay(1e-7),
    ExponentialDecay(1),
    CosineDecay(0.2),
    OneCycle(0.0),
    OneCycle(0.9, start=0, final=0),
    WarmupCosine(0.0, 0.5),
    WarmupCosine(0.35),
    FlatCosine(0.0, 0.2),
    FlatCosine(0.8),
    LogCosine(1),
    LogCosine(7),
]
LENGTHS = (1, 2, 3, 7, 10, 100, 1009)


def condition(curve):
    """What an error of rounding grows by: the number of waves so far is up to n_cycles, and a wave's slope in it is up
    to pi."""
    return np.pi * curve.n_cycles if isinstance(curve, LogCosine) else 1.0


@pytest.mark.parametrize("curve", [*(cls() for cls in CURVES.values()), *OTHERS], ids=repr)
def test_curve_is_the_references(curve):
    """Every step of short and long runs; one step alone has the bits that it has among others; the last factor
    stays."""
    formula = reference.SCHEDULES[curve.name]
    for n_steps in LENGTHS:
        factors = curve.factors(np.arange(n_steps + 2), n_steps)
        expected = [formula(step, n_steps, **asdict(curve)) for step in range(n_steps)]
        assert np.abs(factors[:n_steps] - expected).max() <= tolerance("float64", 1, condition(curve))
        assert [curve(step, n_steps) for step in range(n_steps + 2)] == factors.tolist()
        assert (factors[n_steps:] == factors[n_steps - 1]).all()
        assert factors.min() >= 0
        assert factors.max() <= 1


@pytest.mark.parametrize("name", CURVES)
def test_curve_default_is_the_references(name):
    """The default values stand in both places."""
    factors = CURVES[name]().factors(np.arange(100), 100)
    expected = [reference.SCHEDULES[name](step, 100) for step in range(100)]
    assert np.abs(factors - expected).max() <= tolerance("float64", 1, condition(CURVES[name]()))


def test_curves_are_exact_at_their_ends():
    """A run begins at learning_rate_init itself, or with the very start that was asked for."""
    for curve in (
        StepDecay(),
        ExponentialDecay(0.3),
        CosineDecay(0.3),
        OneCycle(0.0, final=0.3),
        WarmupCosine(0.0, 0.3),
    ):
        assert curve(0, 12345) == 1.0
    assert OneCycle(start=0.3)(0, 12345) == 0.3
    assert OneCycle(0.25)(25, 100) == WarmupCosine(0.25)(25, 100) == 1.0


# A digest of 2 x 1000 factors each. NumPy's exp and power would give others on a machine without AVX-512.
DIGESTS = {
    "step": "a44e00dbafcdac29",
    "exponential": "c08e69e8b59082bb",
    "cosine": "3263c60e1e456c05",
    "one_cycle": "73b6e87a496efedc",
    "warmup_cosine": "2ab2fbe9ee2dac93",
    "flat_cosine": "004626af78476659",
    "coslog4": "c8a958e9e54f2f64",
}


@pytest.mark.parametrize("name", CURVES)
def test_curve_has_the_same_bits_everywhere(name):
    """The factors are part of what makes two machines train alike."""
    digest = hashlib.sha256()
    for n_steps in (1000, 1e6):
        digest.update(CURVES[name]().factors(np.linspace(0, n_steps - 1, 1000).astype(int), int(n_steps)).tobytes())
    assert digest.hexdigest()[:16] == DIGESTS[name]


def test_curves_are_values():
    """Compared by value, copied, pickled, cloned inside an estimator, shown as they are written."""
    for curve in (*OTHERS, OneCycle()):
        for other in (copy.deepcopy(curve), pickle.loads(pickle.dumps(curve)), eval(repr(curve), vars(fastmlp))):
            assert other == curve
            assert hash(other) == hash(curve)
    assert CosineDecay(0.1) != CosineDecay(0.2)
    assert StepDecay(at=[0.2, 0.4]) == StepDecay(at=(0.2, 0.4))
    assert clone(MLPClassifier(learning_rate=CosineDecay(0.1))).learning_rate == CosineDecay(0.1)
    assert {cls.__name__ for cls in CURVES.values()} <= set(fastmlp.__all__)
    assert not set(CURVES) & set(SCHEDULES)


def test_subclass_without_name_replaces_none():
    """A user's subclass does not take the place of its parent."""

    class Mine(CosineDecay):
        pass

    assert CURVES["cosine"] is CosineDecay
    assert Mine(0.5)(50, 100) == 0.75


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepDecay(0.0), r"factor of StepDecay must be in \(0, 1\], got 0.0"),
        (lambda: StepDecay("0.1"), "factor of StepDecay must be"),
        (lambda: StepDecay(at=0.5), "at of StepDecay must be rising shares .* got 0.5"),
        (lambda: StepDecay(at=(0.5, 0.5)), "at of StepDecay must be rising shares"),
        (lambda: StepDecay(at=(0.5, 1.0)), "at of StepDecay must be rising shares"),
        (lambda: StepDecay(at=(0.0, 0.5)), "at of StepDecay must be rising shares"),
        (lambda: StepDecay(at=(0.5, np.nan)), "at of StepDecay must be rising shares"),
        (lambda: ExponentialDecay(0), r"final of ExponentialDecay must be in \(0, 1\], got 0"),
        (lambda: ExponentialDecay(np.nan), "final of ExponentialDecay must be"),
        (lambda: CosineDecay(-0.1), r"final of CosineDecay must be in \[0, 1\], got -0.1"),
        (lambda: CosineDecay(True), "final of CosineDecay must be"),
        (lambda: OneCycle(1.0), r"warmup of OneCycle must be in \[0, 1\), got 1.0"),
        (lambda: OneCycle(start=2), "start of OneCycle must be"),
        (lambda: OneCycle(final=None), "final of OneCycle must be"),
        (lambda: FlatCosine(1), "flat of FlatCosine must be"),
        (lambda: FlatCosine(final=-1), "final of FlatCosine must be"),
        (lambda: LogCosine(0), "n_cycles of LogCosine must be"),
        (lambda: LogCosine(2.5), "n_cycles of LogCosine must be"),
        (lambda: WarmupCosine(1), "warmup of WarmupCosine must be"),
        (lambda: WarmupCosine(final=1.1), "final of WarmupCosine must be"),
        (lambda: CosineDecay()(0, 0), "n_steps must be at least 1, got 0"),
        (lambda: make_schedule("cosin", "sgd", 0.1, 0.5), r"learning_rate must be one of .*'cosine'.* got 'cosin'"),
        (lambda: make_schedule(0.1, "sgd", 0.1, 0.5), "learning_rate must be one of .* got 0.1"),
        (lambda: make_schedule(CosineDecay, "sgd", 0.1, 0.5, None, 10), r"such as CosineDecay\(\), got <class"),
        (
            lambda: make_schedule("cosine", "sgd", 0.1, 0.5),
            "total_steps must be at least 1 for learning_rate='cosine', got None",
        ),
        (lambda: make_schedule(CosineDecay(), "sgd", 0.1, 0.5, None, 0), "total_steps must be at least 1"),
    ],
)
def test_schedule_refuses(make, message):
    """An error that names the argument, what it was and what it may be."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def rates_of_run(monkeypatch):
    """A function that trains for some epochs and returns each epoch's rates, as the core got them, and the history."""
    X, y = classification(2, n=50)
    data = TrainingData(X, y)

    def run(schedule, solver, epochs, n_updates=0, batch_size=8):
        seen = []

        class Trainer(core.Trainer):
            def epoch(self, X, y, sample_weight, order, learning_rates, *args, **kwargs):
                seen.append(learning_rates.copy())
                return super().epoch(X, y, sample_weight, order, learning_rates, *args, **kwargs)

        settings = training.Settings(epochs, batch_size, shuffle=False, tol=0, patience=np.inf)
        network, record = Network((13, 5, 2), random_state=0), training.Record()
        rule = update_rule(solver, 0.9, True)
        optimizer = training.OptimizerState.new(rule, network)
        optimizer.n_updates = n_updates
        with monkeypatch.context() as patch:
            patch.setattr(core, "Trainer", Trainer)
            train_epochs(training.StochasticRun(
                network=network, loss="log_loss", data=data, settings=settings, schedule=schedule, optimizer=optimizer,
                rng=np.random.RandomState(0), record=record,
            ))  # fmt: skip
        return seen, record.epochs

    return run


@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
@pytest.mark.parametrize("name", CURVES)
def test_run_follows_curve(name, solver, rates_of_run):
    """Every solver gets the planned rate at every step, and the history holds each epoch's first."""
    rates, history = rates_of_run(make_schedule(name, solver, 0.01, 0.5, None, 5 * 7), solver, 5)
    expected = 0.01 * CURVES[name]().factors(np.arange(35), 35)
    assert len(set(expected)) > 2
    assert np.array_equal(np.concatenate(rates), expected)
    assert [entry["learning_rate"] for entry in history] == expected[::7].tolist()


def test_run_asks_a_function_for_each_step(rates_of_run):
    """A user's function gets whole numbers, and what it returns is used; beyond the plan its last factor stays."""
    asked = []

    def factor(step, n_steps):
        asked.append((step, n_steps))
        return np.where(step < 9, 1, 0.5 / (step + 1))

    rates, history = rates_of_run(make_schedule(factor, "adam", 0.1, 0.5, None, 10), "adam", 3)
    expected = [0.1] * 9 + [0.1 * 0.05] * 12
    assert np.concatenate(rates).tolist() == expected
    assert [entry["learning_rate"] for entry in history] == expected[::7]
    assert {step for step, _ in asked} == set(range(10))
    assert {(type(step), n_steps) for step, n_steps in asked} == {(int, 10)}


@pytest.mark.parametrize("schedule", ["cosine", lambda step, n_steps: 1 / (step + 1)], ids=["curve", "function"])
def test_run_goes_on_where_it_stopped(schedule, rates_of_run):
    """Steps made before count, also past the plan's end; the rate that is handed over is not needed."""
    whole, _ = rates_of_run(make_schedule(schedule, "sgd", 0.1, 0.5, None, 12), "sgd", 3)
    for epoch in range(3):
        part = make_schedule(schedule, "sgd", 0.1, 0.5, 123.0, 12, step=7 * epoch)
        rates, history = rates_of_run(part, "sgd", 1, n_updates=7 * epoch)
        assert np.array_equal(rates[0], whole[epoch])
        assert history[0]["learning_rate"] == whole[epoch][0]
        assert part.rate == whole[min(epoch + 1, 2)][-1 if epoch == 2 else 0]


def test_long_epochs_follow_curve(rates_of_run):
    """Epochs longer than the steps that a curve is asked for ahead."""
    schedule = make_schedule("exponential", "sgd", 0.1, 0.5, None, 300)
    schedule.look_ahead = 3
    rates, _ = rates_of_run(schedule, "sgd", 6, batch_size=1)
    assert np.array_equal(np.concatenate(rates), 0.1 * ExponentialDecay().factors(np.arange(300), 300))


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, None, "1", 1j, np.ones(1)])
def test_run_refuses_factor(value, rates_of_run):
    """What a user's function returns is checked; the message names the step and the value."""

    def factor(step, n_steps):
        return value if step == 9 else 1.0

    schedule = make_schedule(factor, "sgd", 0.1, 0.5, None, 14)
    with pytest.raises(ValueError, match=r"learning_rate must return .* for step 9 of 14"):
        rates_of_run(schedule, "sgd", 2)


def test_scikit_learns_schedules_need_no_plan():
    """They are what they were, and act on sgd only."""
    for name, cls in SCHEDULES.items():
        assert type(make_schedule(name, "sgd", 0.1, 0.5)) is cls
        assert type(make_schedule(name, "adam", 0.1, 0.5)) is Constant


def test_inverse_scaling_ends_at_0():
    """Where the power lies beyond float64, the rate is what it tends to."""
    schedule = make_schedule("invscaling", "sgd", 0.1, 1e4)
    schedule.epoch_ends(0)
    assert schedule.rate == 0.1
    schedule.epoch_ends(100)
    assert schedule.rate == 0


def test_a_plan_carried_out_is_no_failure_to_converge():
    """max_iter epochs without a plateau warn; where the rate was planned for max_iter epochs, they are what was asked
    for."""
    X, y = classification(3)
    with pytest.warns(ConvergenceWarning):
        MLPClassifier((5,), max_iter=3, random_state=0).fit(X, y)
    for learning_rate in (*CURVES, lambda step, n_steps: 0.5):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            estimator = MLPClassifier((5,), max_iter=3, random_state=0, learning_rate=learning_rate).fit(X, y)
        assert estimator.n_iter_ == 3


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_constant_follows_learning_rate_init():
    """Changed between two calls of partial_fit, it is the rate of the next one; after a plan is carried out, too."""
    X, y = classification(2)
    estimator = MLPClassifier((4,), solver="sgd", learning_rate="cosine", max_iter=2, random_state=0).fit(X, y)
    estimator.set_params(learning_rate="constant").partial_fit(X, y)
    estimator.set_params(learning_rate_init=0.25).partial_fit(X, y)
    assert [entry["learning_rate"] for entry in estimator.history_[2:]] == [0.001, 0.25]
