"""The learning-rate range test: its steps against the reference and against fit, its end, what it suggests, its
plot."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys

import matplotlib
import numpy as np
import pytest
from helpers import classification, counts, multilabel, regression, tolerance, varied
from matplotlib import pyplot
from scipy import sparse
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp import (
    LearningRateRange,
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPRegressor,
    core,
    learning_rate_range,
    reference,
)
from fastmlp.inspection.learning_rate_range import end_of_test, rising_rates, smooth
from fastmlp.training.solvers import STOCHASTIC_SOLVERS, update_rule

matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (17, 9), "random_state": 3, "batch_size": 32, "activation": "tanh"}
GENTLE = {"low": 1e-4, "high": 0.02, "n_steps": 25}  # of 7 steps an epoch: three whole epochs and some
METHODS = {
    "dropout": {"dropout": 0.3},
    "dropout of the input": {"dropout": (0.2, 0.1, 0.4)},
    "batch_norm": {"batch_norm": True},
    "residual": {"residual": True, "hidden_layer_sizes": (13, 9)},
    "noise": {"input_noise": 0.3, "input_mask": 0.2},
    "mixup": {"mixup": 0.4},
    "smoothing": {"label_smoothing": 0.1},
    "clipping": {"max_grad_norm": 0.05},
    "penalty": {"alpha": 1.0, "l1_ratio": 0.3},
    "decay": {"solver": "adamw", "weight_decay": 0.5},
    "no shuffle": {"shuffle": False},
    "full batches": {"batch_size": 203},
    "everything": {
        "dropout": 0.2, "batch_norm": True, "input_noise": 0.1, "input_mask": 0.1, "mixup": 0.4, "label_smoothing": 0.1,
        "max_grad_norm": 0.1, "alpha": 0.5,
    },
}  # fmt: skip
LOSSES = {
    "log_loss": lambda: (MLPClassifier, {}, *classification(3)),
    "binary": lambda: (MLPClassifier, {}, *classification(2)),
    "multilabel": lambda: (MLPClassifier, {}, *multilabel()),
    "squared_error": lambda: (MLPRegressor, {}, *regression(n_outputs=2)),
    "huber": lambda: (MLPRegressor, {"loss": "huber", "huber_delta": 0.5}, *regression()),
    "quantile": lambda: (MLPRegressor, {"loss": "quantile", "quantile": 0.2}, *regression()),
    "absolute_error": lambda: (MLPRegressor, {"loss": "absolute_error"}, *regression()),
    "poisson": lambda: (MLPRegressor, {"loss": "poisson"}, *counts()),
}


def replay(estimator, X, y, weight=None, *, low, high, n_steps):
    """The losses (n_steps,) of the test by the reference: initial draws, orders, seed and all."""
    p = estimator.get_params()
    rng = np.random.RandomState(p["random_state"])
    if isinstance(estimator, MLPClassifier):
        loss, n_outputs = (
            ("binary_log_loss", y.reshape(len(y), -1).shape[1])
            if y.ndim == 2 or y.max() == 1
            else ("log_loss", y.max() + 1)
        )
    else:
        loss, n_outputs = p["loss"], y.reshape(len(y), -1).shape[1]
    if loss != "log_loss":
        y = y.reshape(len(y), -1).astype(np.float64)
    sizes = (X.shape[1], *p["hidden_layer_sizes"], n_outputs)
    names = (p["activation"],) * (len(sizes) - 2)
    coefs, intercepts = reference.initialise(sizes, p["activation"], rng)
    if p["batch_norm"]:
        intercepts[:-1] = [np.zeros_like(b) for b in intercepts[:-1]]
    rule = update_rule(p["solver"], p["momentum"], p["nesterovs_momentum"])
    model = reference.new_model(coefs, intercepts, rule, p["batch_norm"])
    rates = p["dropout"] if np.ndim(p["dropout"]) else (0.0, *(p["dropout"],) * len(names))
    seed = 0
    if any(rates) or p["input_noise"] or p["input_mask"] or p["mixup"]:
        seed = sum(int(half) << 32 * k for k, half in enumerate(rng.randint(0, 2**32, size=2, dtype=np.uint64)))
    method = reference.Method(
        p["residual"], rates, (), p["max_grad_norm"] or 0.0,
        p.get("huber_delta" if loss == "huber" else "quantile", 1.0),
        p.get("label_smoothing", 0.0), p["input_noise"], p["input_mask"], seed, p["alpha"], p["l1_ratio"],
    )  # fmt: skip
    hyper = reference.Hyper(0.0, p["momentum"], p["beta_1"], p["beta_2"], p["epsilon"], p["rho"], p["weight_decay"])
    order = np.arange(len(X)) if weight is None else np.flatnonzero(weight)
    batches = list(reference.batches(len(order), p["batch_size"]))
    losses = []
    for k in range(n_steps):
        batch = k % len(batches)
        if batch == 0:
            if p["shuffle"]:
                rng.shuffle(order)
            if p["mixup"]:
                words = [seed & 0xFFFFFFFF, seed >> 32, k]
                mixes = np.random.RandomState(words).beta(p["mixup"], p["mixup"], len(batches))
        i = order[batches[batch]]
        data = X[i], y[i], None if weight is None else weight[i]
        mix = mixes[batch] if p["mixup"] else None
        unpenalised = method._replace(alpha=0.0)
        losses.append(reference.gradients(model, names, loss, *data, unpenalised, step=k + 1, mix=mix).loss)
        rate = hyper._replace(learning_rate=low * (high / low) ** (k / (n_steps - 1)))
        _, model = reference.step(
            model, names, loss, rule, *data, rate, k + 1, method, mix
        )  # fmt: skip
    return varied(np.array(losses))


def assert_replayed(estimator, X, y, weight=None):
    """Every loss is the reference's. Twenty-five steps, each of which may move a parameter by a rate's worth of
    rounding."""
    found = learning_rate_range(estimator, X, y, sample_weight=weight, **GENTLE)
    expected = replay(estimator, X.toarray() if sparse.issparse(X) else X, y, weight, **GENTLE)
    bound = tolerance("float64", GENTLE["n_steps"] * sum((13, 17, 9, 3)), np.abs(expected).max())
    assert found.losses.shape == expected.shape
    assert np.abs(found.losses - expected).max() <= bound


@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
def test_losses_are_the_references_by_solver(solver):
    """Step by step, over four epochs."""
    X, y = classification(3)
    for settings in [{}, {"nesterovs_momentum": False}, {"momentum": 0.0}] if solver == "sgd" else [{}]:
        assert_replayed(MLPClassifier(**SMALL, solver=solver, **settings), X, y)


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_the_references_by_method(method):
    """What training does beyond the plain; the penalty is not in the losses."""
    X, y = classification(3)
    assert_replayed(MLPClassifier(**{**SMALL, **METHODS[method]}), X, y)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_the_references_by_loss(loss):
    """Both estimators, every loss and kind of target."""
    Estimator, settings, X, y = LOSSES[loss]()
    assert_replayed(Estimator(**SMALL, **settings), X, y)


@pytest.mark.parametrize("method", ["penalty", "everything"])
def test_losses_are_the_references_with_weights(method):
    """Rows of weight 0 are left out; the others count by their weight, in sparse X too, and class_weight is a
    factor."""
    X, y = classification(3)
    X = np.where(np.abs(X) < 1, 0, X)
    weight = varied(np.random.RandomState(0).randint(0, 4, len(X)) / 2.0)
    estimator = MLPClassifier(**{**SMALL, **METHODS[method]})
    assert_replayed(estimator, X, y, weight)
    assert_replayed(estimator, sparse.csr_matrix(X), y, weight)
    of_class = {0: 0.5, 1: 2.0, 2: 1.0}
    by_class = learning_rate_range(
        clone(estimator).set_params(class_weight=of_class), X, y, sample_weight=weight, **GENTLE
    )
    by_row = learning_rate_range(estimator, X, y, sample_weight=weight * np.array([of_class[c] for c in y]), **GENTLE)
    assert np.array_equal(by_class.losses, by_row.losses)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_steps", [21, 24])
def test_steps_are_those_of_fit(method, n_steps):
    """A fit with the same rates as its schedule: the rates bit for bit, and each whole epoch's mean loss."""
    X, y = classification(3)
    settings = {**SMALL, **METHODS[method], "alpha": 0.0}
    per_epoch = -(-len(X) // settings["batch_size"])
    found = learning_rate_range(MLPClassifier(**settings), X, y, low=1e-4, high=0.1, n_steps=n_steps)
    epochs = n_steps // per_epoch
    schedule = {"learning_rate": lambda step, n: found.rates[step], "learning_rate_init": 1.0}
    fitted = MLPClassifier(**settings, **schedule, max_iter=epochs, n_iter_no_change=np.inf).fit(X, y)
    assert [entry["learning_rate"] for entry in fitted.history_] == list(found.rates[: epochs * per_epoch : per_epoch])
    rows = np.diff([*range(0, len(X), settings["batch_size"]), len(X)])
    means = [
        np.average(losses, weights=rows) for losses in found.losses[: epochs * per_epoch].reshape(epochs, per_epoch)
    ]
    assert np.abs(np.subtract(means, fitted.loss_curve_)).max() <= tolerance(
        "float64", per_epoch, max(fitted.loss_curve_)
    )


def test_rates_rise_by_the_same_ratio():
    """From low to high, both included; 0 < low < high of any size."""
    for low, high, n in [(1e-6, 10.0, 200), (0.1, 0.2, 2), (1e-12, 1e12, 7)]:
        rates = rising_rates(low, high, n)
        assert (rates[0], rates[-1], len(rates)) == (low, high, n)
        assert np.abs(rates / (low * (high / low) ** (np.arange(n) / (n - 1))) - 1).max() <= tolerance("float64", 10)


def test_the_same_seed_gives_the_same_bits():
    """Twice, on any number of threads; another seed gives others. Suggestions are in the test's range."""
    X, y = classification(3, dtype="float32", n=2000)
    settings = {**SMALL, "hidden_layer_sizes": (128, 64), "batch_size": 500, "dropout": 0.2}
    first, *others = [
        learning_rate_range(MLPClassifier(**settings, n_jobs=n_jobs), X, y) for n_jobs in (None, None, 1, 2, 3)
    ]
    for other in others:
        assert np.array_equal(other.losses, first.losses)
        assert repr(other) == repr(first)
    different = learning_rate_range(MLPClassifier(**{**settings, "random_state": 4}), X, y)
    assert different.losses[0] != first.losses[0]


def frozen(estimator):
    """Everything that an estimator holds, as bytes."""
    return pickle.dumps(vars(estimator))


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("fitted", [False, True])
def test_estimator_is_not_changed(fitted, warm_start):
    """Fitted or not, whose state a generator is part of; nor is NumPy's own generator drawn from."""
    X, y = classification(3)
    settings = {
        **SMALL,
        "random_state": np.random.RandomState(0),
        "warm_start": warm_start,
        "batch_norm": True,
        "dropout": 0.1,
    }
    estimator = MLPClassifier(**settings, max_iter=3, early_stopping=True)
    if fitted:
        estimator.fit(X, y)
    before, drawn = frozen(estimator), np.random.get_state()[1].copy()
    found = learning_rate_range(estimator, X, y)
    again = learning_rate_range(estimator, X, y)
    assert frozen(estimator) == before
    assert np.array_equal(np.random.get_state()[1], drawn)
    assert np.array_equal(found.losses, again.losses)


def test_schedule_and_stopping_do_not_matter():
    """The test is the schedule, and has an end of its own."""
    X, y = classification(3)
    expected = learning_rate_range(MLPClassifier(**SMALL, solver="sgd"), X, y)
    for settings in [
        {"learning_rate": "adaptive"}, {"learning_rate": fastmlp.CosineDecay(final=0.5)}, {"learning_rate_init": 7.0},
        {"learning_rate": "invscaling", "power_t": 2.0}, {"max_iter": 1}, {"tol": 100.0, "n_iter_no_change": 1},
        {"early_stopping": True, "validation_metric": "f1_macro"}, {"validation_metric": "accuracy"}, {"verbose": True},
    ]:  # fmt: skip
        found = learning_rate_range(MLPClassifier(**SMALL, solver="sgd", **settings), X, y)
        assert np.array_equal(found.losses, expected.losses), settings


def test_warm_start_begins_at_the_fitted_network():
    """As fit would: the first loss is the fitted network's, frozen layers stay; without warm_start all begins anew."""
    X, y = classification(3)
    estimator = MLPClassifier(**{**SMALL, "batch_size": 203}, alpha=0.0, max_iter=300, learning_rate_init=0.01).fit(
        X, y
    )
    anew = learning_rate_range(clone(estimator), X, y)
    assert np.array_equal(learning_rate_range(estimator, X, y).losses, anew.losses)
    estimator.set_params(warm_start=True)
    onward = learning_rate_range(estimator, X, y)
    losses = -np.log(estimator.predict_proba(X)[np.arange(len(X)), y])
    assert abs(onward.losses[0] - losses.mean()) <= tolerance("float64", len(X), losses.mean())
    assert onward.losses[0] < 0.5 * anew.losses[0]
    body_frozen = learning_rate_range(copy.deepcopy(estimator).freeze(), X, y)
    assert body_frozen.losses[0] == onward.losses[0]
    assert body_frozen.losses[-1] != onward.losses[-1]
    with pytest.raises(ValueError, match="All layers are frozen"):
        learning_rate_range(estimator.freeze([0, 1, 2]), X, y)


# --- the end of the test, and what the losses say ------------------------------------------------------------


@pytest.mark.parametrize(("losses", "window", "factor", "expected"), [
    ([1, 1, 1, 1], 1, 4, None),
    ([1, 4, 1, 4], 1, 4, None),
    ([1, 1, 4.5, 1], 1, 4, 3),
    ([1, 1, 1, 9, 9, 9], 3, 4, 5),          # means 1, 11/3, 19/3: only the last is more than 4
    ([0.1, 9, 1, 1, 1, 1], 3, 4, None),     # a lucky first batch is not the least of means
    ([9, 9, 9, 1, 1, 1, 9, 9], 3, 4, 8),
    ([1, 1, np.nan, 1], 3, 4, 2),
    ([1, 1, 1, np.inf], 3, 4, 3),
    ([1, 1, 9, np.nan], 1, 4, 3),
    ([np.nan, 1], 3, 4, 0),
    ([1, 1e308, 1e308], 2, 1.5, 3),
    ([1, 1e308, 1e308], 2, 1e9, None),
    ([1, 9], 3, 4, None),
    ([], 3, 4, None),
])  # fmt: skip
def test_end_of_test(losses, window, factor, expected):
    """More than factor times the least mean over the window, or not finite."""
    assert end_of_test(np.array(losses, dtype=np.float64), window, factor) == expected


@pytest.mark.parametrize("window", [1, 3, 5, 21])
@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_smooth_is_a_line_through_the_window(n, window):
    """Value and slope of NumPy's fit of a straight line; at the ends, of the widest window that is there on both
    sides."""
    losses = np.random.RandomState(0).uniform(1, 2, n)
    values, slopes = smooth(losses, window)
    for k in range(n):
        half = min(window // 2, k, n - 1 - k)
        around = losses[k - half : k + half + 1]
        if half == 0:
            assert values[k] == losses[k]
        else:
            slope, value = np.polynomial.Polynomial.fit(np.arange(-half, half + 1), around, 1).convert().coef[::-1]
            assert abs(values[k] - value) <= tolerance("float64", 4 * window)
        if half == window // 2 > 0:
            assert abs(slopes[k] - slope) <= tolerance("float64", 4 * window)
        else:
            assert np.isnan(slopes[k])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_divergence_ends_the_test(loss, solver, monkeypatch):
    """Soon after it, with finite losses only, and at the rate that the definition gives."""
    asked = []
    trainer = core.Trainer

    class Spy:
        def __init__(self, *arguments, **options):
            self.inner = trainer(*arguments, **options)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def epoch(self, *arguments, step_losses, **constants):
            asked.append(len(step_losses))
            return self.inner.epoch(*arguments, step_losses=step_losses, **constants)

    monkeypatch.setattr(core, "Trainer", Spy)
    Estimator, settings, X, y = LOSSES[loss]()
    estimator = Estimator(**SMALL, **settings, solver=solver)
    found = learning_rate_range(estimator, X, y, low=1e-3, high=1e9, n_steps=400, window=5, factor=3.0)
    n = len(found.rates)
    assert n < 400
    assert sum(asked) <= n + 400 // 20 + 1
    assert found.divergence_rate == found.rates[-1]
    assert np.isfinite(found.losses).all()
    means = np.convolve(found.losses, np.full(5, 0.2), "valid")
    over = means > 3.0 * np.minimum.accumulate(means)
    assert not over[:-1].any()
    again = learning_rate_range(estimator, X, y, low=1e-3, high=1e9, n_steps=400, window=5, factor=1e300)
    if not over[-1]:  # it was the step after that was not finite
        assert len(again.rates) == n
    assert np.array_equal(again.losses[:n], found.losses)


def test_losses_that_are_not_finite_end_the_test():
    """Rates beyond all measure: squared errors overflow, the test ends before the first that does, and says so."""
    X, y = regression(dtype="float32")
    found = learning_rate_range(
        MLPRegressor(**{**SMALL, "activation": "relu"}, solver="sgd"), X, y, high=1e30, factor=1e300
    )
    assert 10 < len(found.rates) < 200
    assert np.isfinite(found.losses).all()
    assert found.divergence_rate == found.rates[-1]
    with pytest.raises(ValueError, match="before the first step of the range test"):
        learning_rate_range(MLPRegressor(**{**SMALL, "activation": "relu"}), X * np.float32(1e30), y)


def test_whole_range_without_divergence():
    """n_steps rates, and no rate of divergence."""
    X, y = classification(3)
    found = learning_rate_range(MLPClassifier(**SMALL), X, y, low=1e-5, high=1e-2, n_steps=50)
    assert len(found.rates) == len(found.losses) == len(found.smoothed_losses) == 50
    assert found.divergence_rate is None
    assert found.suggestion == found.least_rate / 3
    assert found.steepest_rate <= found.least_rate == found.rates[found.smoothed_losses.argmin()]
    window = smooth(found.losses, 5)
    assert np.array_equal(found.smoothed_losses, window[0])
    assert window[1][found.rates == found.steepest_rate] == np.nanmin(window[1][: found.smoothed_losses.argmin() + 1])


def test_no_descent_no_steepest_rate():
    """Two steps have no line through a window around them."""
    X, y = classification(3)
    found = learning_rate_range(MLPClassifier(**SMALL), X, y, n_steps=2, low=1e-5, high=1e-4)
    assert found.steepest_rate is None
    assert "steepest_rate=None" in repr(found)


@pytest.mark.parametrize("solver", ["sgd", "adam", "momentum", "adagrad"])
@pytest.mark.parametrize("kind", ["log_loss", "squared_error"])
def test_suggestion_trains_well(kind, solver):
    """A few epochs at the suggestion lower the loss further than a thirtieth of it, and than thirty times as much."""
    Estimator, settings, X, y = LOSSES[kind]()
    estimator = Estimator(**SMALL, **settings, solver=solver, max_iter=20, n_iter_no_change=np.inf)
    rate = learning_rate_range(estimator, X, y, high=100.0).suggestion
    losses = []
    for factor in (1 / 30, 1, 30):
        losses.append(estimator.set_params(learning_rate_init=factor * rate).fit(X, y).loss_)
    assert losses[1] < min(losses[0], losses[2])


def test_result_cannot_be_changed():
    """A frozen dataclass with a short repr."""
    X, y = classification(2)
    found = learning_rate_range(MLPClassifier(**SMALL), X, y)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.least_rate = 1.0
    assert repr(found) == (
        f"LearningRateRange(suggestion={found.suggestion:.3g}, least_rate={found.least_rate:.3g}, "
        f"steepest_rate={found.steepest_rate:.3g}, divergence_rate={found.divergence_rate:.3g}, {len(found.rates)} "
        f"steps)"
    )
    assert np.array_equal(pickle.loads(pickle.dumps(found)).losses, found.losses)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"low": 0.0}, "0 < low < high, got low=0.0"),
    ({"low": -1.0}, "0 < low < high"),
    ({"low": 1.0, "high": 1.0}, "0 < low < high"),
    ({"high": np.inf}, "high must be a finite number, got inf"),
    ({"high": "10"}, "high must be a finite number, got '10'"),
    ({"low": True}, "low must be a finite number, got True"),
    ({"factor": 1.0}, "factor must be > 1, got 1.0"),
    ({"factor": np.nan}, "factor must be a finite number"),
    ({"n_steps": 1}, "n_steps must be an integer >= 2, got 1"),
    ({"n_steps": 20.0}, "n_steps must be an integer >= 2, got 20.0"),
    ({"window": 4}, "window must be an odd integer >= 1, or None for a tenth of n_steps, got 4"),
    ({"window": 0}, "window must be an odd"),
    ({"window": -1}, "window must be an odd"),
])  # fmt: skip
def test_bad_argument_is_refused(arguments, message):
    X, y = classification(2)
    with pytest.raises(ValueError, match=message):
        learning_rate_range(MLPClassifier(**SMALL), X, y, **arguments)


def test_bad_estimator_is_refused():
    """What has no learning rate, and what fit would refuse."""
    X, y = classification(3)
    with pytest.raises(ValueError, match=r"solver='lbfgs' has no learning rate to test; \['sgd', "):
        learning_rate_range(MLPClassifier(solver="lbfgs"), X, y)
    for other in (make_pipeline(StandardScaler(), MLPClassifier()), MLPEnsembleClassifier(), MLPClassifier, None):
        with pytest.raises(TypeError, match="estimator must be an MLPClassifier or an MLPRegressor, got"):
            learning_rate_range(other, X, y)
    for settings, message in [
        ({"alpha": -1.0}, "alpha"), ({"solver": "adma"}, "solver"), ({"weight_decay": 0.1}, "weight_decay belongs to "
            "solver='adamw'"),
        ({"validation_metric": "acuracy"}, "validation_metric"), ({"learning_rate": "falling"}, "learning_rate"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            learning_rate_range(MLPClassifier(**SMALL, **settings), X, y)
    for bad_X, bad_y in [(X[:, 0], y), (X, y[:-1]), (np.full_like(X, np.nan), y)]:
        with pytest.raises(ValueError, match=r"2D array|inconsistent|NaN"):
            learning_rate_range(MLPClassifier(**SMALL), bad_X, bad_y)


def test_large_batch_size_warns_of_the_callers_line():
    """As fit does."""
    X, y = classification(2)
    estimator = MLPClassifier(**{**SMALL, "batch_size": 999})
    with pytest.warns(UserWarning, match="Got `batch_size`") as caught:
        learning_rate_range(estimator, X, y)
    assert caught[0].filename == __file__


# --- plots -----------------------------------------------------------------------------------------------------


def test_plot_shows_the_test():
    """On the axes given or on new ones: the losses, the smoothed ones, the suggestion."""
    X, y = classification(3)
    arguments = {"n_steps": 100, "window": 7, "low": 1e-5, "high": 50.0, "factor": 5.0}
    found = learning_rate_range(MLPClassifier(**SMALL), X, y, **arguments)
    figure, left = pyplot.subplots()
    assert found.plot(ax=left, color="red", label="adam") is left
    right = found.plot(c="red")
    assert right.figure is not figure
    for ax in (left, right):
        assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "Learning rate", "Loss")
        smoothed_line, losses_line, suggestion_line = ax.lines
        for line, losses in ((smoothed_line, found.smoothed_losses), (losses_line, found.losses)):
            assert np.array_equal(line.get_xdata(), found.rates)
            assert np.array_equal(line.get_ydata(), losses)
            assert line.get_color() == "red"
        assert losses_line.get_zorder() < smoothed_line.get_zorder()
        assert set(suggestion_line.get_xdata()) == {found.suggestion}
        bottom, top = ax.get_ylim()
        before = found.smoothed_losses[: found.smoothed_losses.argmin() + 1]
        assert bottom < before.min() < before.max() < top < 2 * before.max()
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["adam"]
    assert right.get_legend() is None
    pyplot.close("all")


def test_plot_of_two_tests_holds_both():
    """The limits widen for the second. A loss that never falls keeps matplotlib's limits."""
    rates, low, high = np.array([0.1, 1.0, 10.0]), np.array([1.0, 0.5, 2.0]), np.array([9.0, 5.0, 30.0])
    ax = LearningRateRange(rates, low, low, 1.0, None, None).plot()
    LearningRateRange(rates, high, high, 1.0, None, None).plot(ax=ax)
    bottom, top = ax.get_ylim()
    assert bottom < 0.5
    assert 9.0 < top < 30.0
    rising = LearningRateRange(rates, rates, rates, 0.1, None, None).plot()
    assert rising.get_ylim()[1] > 10.0
    pyplot.close("all")


def test_plot_without_matplotlib_names_the_extra(monkeypatch):
    X, y = classification(2)
    found = learning_rate_range(MLPClassifier(**SMALL), X, y, n_steps=10)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"matplotlib: pip install 'fastmlp\[plot\]'"):
        found.plot()
