"""Out of core: partial_fit over chunks trains to the bits of one epoch of fit over all rows in the same order."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import classification, counts, multilabel, regression, rest_slow
from scipy import sparse
from sklearn.base import clone

import fastmlp
from fastmlp import MLPClassifier, MLPRegressor, core
from fastmlp.training.solvers import STOCHASTIC_SOLVERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ROWS, BATCH = 203, 16
SETTINGS = {"hidden_layer_sizes": (9, 7), "batch_size": BATCH, "shuffle": False, "random_state": 0}
X, Y = classification(3)
REAL, COUNTS = regression()[1], counts()[1]
LABELS = multilabel()[1]
# Of different sizes, all multiples of the batch but the last.
CHUNKS = [slice(0, 32), slice(32, 48), slice(48, 160), slice(160, ROWS)]


def at_once(Estimator, data, y, sample_weight=None, **settings):
    """One epoch of fit."""
    return Estimator(**{**SETTINGS, "max_iter": 1, **settings}).fit(data, y, sample_weight)


def by_chunks(Estimator, data, y, sample_weight=None, chunks=CHUNKS, **settings):
    """One call of partial_fit for each chunk."""
    estimator = Estimator(**{**SETTINGS, **settings})
    classes = {"classes": np.unique(y)} if Estimator is MLPClassifier else {}
    for chunk in chunks:
        rows = data.iloc[chunk] if hasattr(data, "iloc") else data[chunk]
        estimator.partial_fit(rows, y[chunk], None if sample_weight is None else sample_weight[chunk], **classes)
        classes = {}
    return estimator


def assert_same_model(got, want, steps=-(-ROWS // BATCH)):
    """Parameters, running averages and the optimizer's memory, bit for bit; and the rows' losses add up."""
    assert np.array_equal(got.network_.parameters, want.network_.parameters)
    assert np.array_equal(got.network_.statistics, want.network_.statistics)
    assert np.array_equal(got._optimizer_state["arrays"], want._optimizer_state["arrays"])
    assert got._optimizer_state["n_updates"] == want._optimizer_state["n_updates"] == steps
    assert got.t_ == want.t_ == ROWS
    losses = [entry["loss"] * entry["rows"] for entry in got.history_]
    np.testing.assert_allclose(sum(losses) / ROWS, want.loss_)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", STOCHASTIC_SOLVERS)
def test_chunks_are_one_epoch(solver, dtype):
    """Every solver takes up its averages and its count of updates where the last chunk left them."""
    settings = {"solver": solver, "dtype": dtype, "alpha": 0.1, "l1_ratio": 0.5}
    assert_same_model(by_chunks(MLPClassifier, X, Y, **settings), at_once(MLPClassifier, X, Y, **settings))


@pytest.mark.parametrize("settings", [
    {"solver": "sgd", "nesterovs_momentum": False}, {"solver": "sgd", "momentum": 0.0},
    {"batch_norm": True, "residual": True},
    {"max_grad_norm": 0.01}, {"activation": "gelu"}, {"solver": "adamw", "weight_decay": 0.1}, {"n_jobs": 2},
    {"warm_start": True},
    {"learning_rate": "adaptive", "solver": "sgd"}, {"learning_rate": "invscaling"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize(
    ("Estimator", "y"), [(MLPClassifier, Y), (MLPClassifier, Y > 0), (MLPRegressor, REAL)], ids=["3", "2", "real"]
)
def test_chunks_are_one_epoch_by_any_method(Estimator, y, settings):
    assert_same_model(by_chunks(Estimator, X, y, **settings), at_once(Estimator, X, y, **settings))


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile", "poisson"])
def test_chunks_are_one_epoch_of_any_loss(loss):
    assert_same_model(by_chunks(MLPRegressor, X, COUNTS, loss=loss), at_once(MLPRegressor, X, COUNTS, loss=loss))


def test_chunks_of_many_labels_and_outputs():
    assert_same_model(by_chunks(MLPClassifier, X, LABELS), at_once(MLPClassifier, X, LABELS))
    many = np.stack([REAL, -2 * REAL], axis=1)
    assert_same_model(by_chunks(MLPRegressor, X, many), at_once(MLPRegressor, X, many))


@pytest.mark.parametrize("form", [
    sparse.csr_array, sparse.csr_matrix, lambda a: pd.DataFrame(a, columns=[f"x{i}" for i in range(a.shape[1])]),
    np.asfortranarray,
], ids=["csr_array", "csr_matrix", "pandas", "Fortran"])  # fmt: skip
def test_chunks_of_any_form(form):
    thin = np.where(np.abs(X) > 1.5, X, 0)
    assert_same_model(by_chunks(MLPClassifier, form(thin), Y), at_once(MLPClassifier, form(thin), Y))


def test_chunks_of_a_memory_map(tmp_path):
    """What it is for: rows that are read chunk by chunk from a file."""
    mapped = np.memmap(tmp_path / "x", "float32", "w+", shape=X.shape)
    mapped[:] = X
    mapped.flush()
    mapped = np.memmap(tmp_path / "x", "float32", "r", shape=X.shape)
    assert_same_model(by_chunks(MLPClassifier, mapped, Y), at_once(MLPClassifier, np.array(mapped), Y))


def test_chunks_with_weights():
    """Positive weights, and those of classes as a dict."""
    weight, settings = np.linspace(0.5, 1.5, ROWS), {"class_weight": {0: 2.0, 1: 1.0, 2: 0.5}}
    assert_same_model(
        by_chunks(MLPClassifier, X, Y, weight, **settings), at_once(MLPClassifier, X, Y, weight, **settings)
    )


@pytest.mark.parametrize(
    "learning_rate",
    ["step", "exponential", "cosine", "one_cycle", "warmup_cosine", lambda step, n_steps: 1 / (1 + step)],
)
def test_a_plan_over_equal_chunks_is_the_plan_over_all_rows(learning_rate):
    """Each call plans max_iter epochs of its own rows: as many as there are chunks make the plan of one epoch over
    all."""
    chunks, rows = [slice(first, first + 64) for first in (0, 64, 128)], 192
    settings = {"learning_rate": learning_rate, "learning_rate_init": 0.01}
    got = by_chunks(MLPClassifier, X[:rows], Y[:rows], chunks=chunks, max_iter=3, **settings)
    want = at_once(MLPClassifier, X[:rows], Y[:rows], **settings)
    assert np.array_equal(got.network_.parameters, want.network_.parameters)
    assert not np.array_equal(
        want.network_.parameters,
        at_once(MLPClassifier, X[:rows], Y[:rows], learning_rate_init=0.01).network_.parameters,
    )


@pytest.mark.parametrize("settings", [{"dropout": 0.3}, {"input_noise": 0.5}, {"input_mask": 0.3}], ids=str)
def test_chunks_draw_what_one_epoch_draws(settings):
    """Masks and noise are drawn by the number of the update and the row of the batch, under one key."""
    assert_same_model(by_chunks(MLPClassifier, X, Y, **settings), at_once(MLPClassifier, X, Y, **settings))


def test_several_passes_over_chunks_are_several_epochs():
    """Rows in the same order in each pass."""
    got = by_chunks(MLPRegressor, X, REAL, chunks=CHUNKS * 3)
    want = at_once(MLPRegressor, X, REAL, max_iter=3, n_iter_no_change=np.inf)
    assert np.array_equal(got.network_.parameters, want.network_.parameters)


@pytest.mark.parametrize(("chunks", "settings"), [
    ([slice(0, 30), slice(30, ROWS)], {}), (CHUNKS, {"solver": "sgd", "learning_rate": "invscaling"}),
    (CHUNKS, {"batch_size": "auto"}), (CHUNKS, {"shuffle": True}), (CHUNKS, {"mixup": 0.4}),
], ids=["odd chunks", "invscaling", "auto", "shuffle", "mixup"])  # fmt: skip
def test_what_must_hold_for_chunks(chunks, settings):
    """The conditions of the promise are conditions: batches that end elsewhere; rates, orders and shares that are set
    per call."""
    got, want = by_chunks(MLPClassifier, X, Y, chunks=chunks, **settings), at_once(MLPClassifier, X, Y, **settings)
    assert not np.array_equal(got.network_.parameters, want.network_.parameters)


def test_a_chunk_that_fails_leaves_the_others():
    """A bad chunk in the middle can be left out, or mended and sent again."""
    estimator = MLPClassifier(**SETTINGS)
    for chunk in CHUNKS:
        bad = X[chunk].copy()
        bad[-1, 0] = np.nan
        with pytest.raises(ValueError, match="contains NaN"):
            estimator.partial_fit(bad, Y[chunk], classes=[0, 1, 2])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            estimator.partial_fit(X[chunk], Y[chunk], classes=[0, 1, 2])
    assert_same_model(estimator, at_once(MLPClassifier, X, Y))


# --- between two calls -----------------------------------------------------------------------------------------------


def saved(estimator, folder):
    estimator.save(folder / "model", optimizer_state=True)
    return fastmlp.load(folder / "model")


BETWEEN = {
    "pickle": lambda estimator, folder: pickle.loads(pickle.dumps(estimator)),
    "save": saved,
    "deepcopy": lambda estimator, folder: copy.deepcopy(estimator),
    "to_sklearn": lambda estimator, folder: estimator.to_sklearn() and estimator,
    "clone": lambda estimator, folder: clone(estimator) and estimator,
    "predict": lambda estimator, folder: estimator.predict(X) is not None and estimator,
}


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("way", BETWEEN)
def test_chunks_go_on_after_anything(way, solver, tmp_path):
    """Whatever was done with the model, or with a copy, between two calls."""
    estimator = MLPClassifier(**SETTINGS, solver=solver)
    for chunk in CHUNKS:
        estimator.partial_fit(X[chunk], Y[chunk], classes=[0, 1, 2] if chunk.start == 0 else None)
        estimator = BETWEEN[way](estimator, tmp_path)
    assert_same_model(estimator, at_once(MLPClassifier, X, Y, solver=solver))


def test_copies_go_on_alone():
    """A deep copy and the model itself, whose memory they share at first, in turn on other rows."""
    estimator = by_chunks(MLPClassifier, X, Y)
    other = copy.deepcopy(estimator)
    alone = pickle.loads(pickle.dumps(estimator))
    for _ in range(3):
        other.partial_fit(X[::-1], Y[::-1])
        estimator.partial_fit(X, Y)
        alone.partial_fit(X, Y)
    assert np.array_equal(estimator.network_.parameters, alone.network_.parameters)
    assert np.array_equal(estimator._optimizer_state["arrays"], alone._optimizer_state["arrays"])
    assert not np.array_equal(other.network_.parameters, alone.network_.parameters)


@pytest.mark.parametrize("replaced", [False, True])
def test_weights_changed_between_calls_count(replaced):
    """Written into or replaced: as if a model with these weights had been loaded."""
    estimator = by_chunks(MLPClassifier, X, Y)
    other = pickle.loads(pickle.dumps(estimator))
    for model in (estimator, other):
        if replaced:
            model.coefs_[1] = model.coefs_[1] / 2
        else:
            model.coefs_[1][:] /= 2
    other = pickle.loads(pickle.dumps(other))
    for model in (estimator, other):
        model.partial_fit(X, Y)
    assert np.array_equal(estimator.network_.parameters, other.network_.parameters)
    unchanged = by_chunks(MLPClassifier, X, Y).partial_fit(X, Y)
    assert not np.array_equal(estimator.network_.parameters, unchanged.network_.parameters)


@pytest.mark.parametrize("error", [KeyError, MemoryError])
@pytest.mark.parametrize("moment", ["epoch", "store", "finish"])
def test_error_within_a_call_leaves_the_model(moment, error, monkeypatch):
    """After the weights and the optimizer's state have been computed; the next call is as if this one had not been."""
    estimator = by_chunks(MLPClassifier, X, Y)
    expected = pickle.loads(pickle.dumps(estimator))
    function = getattr(core.Trainer, moment)

    class Failing(core.Trainer):
        pass

    def fail(self, *args, **kwargs):
        function(self, *args, **kwargs)
        raise error

    setattr(Failing, moment, fail)
    with monkeypatch.context() as patch:
        patch.setattr(core, "Trainer", Failing)
        with pytest.raises(error):
            estimator.partial_fit(X, Y)
    assert np.array_equal(estimator.network_.parameters, expected.network_.parameters)
    assert np.array_equal(estimator._optimizer_state["arrays"], expected._optimizer_state["arrays"])
    estimator.partial_fit(X[:20], Y[:20])
    expected.partial_fit(X[:20], Y[:20])
    assert np.array_equal(estimator.network_.parameters, expected.network_.parameters)


@pytest.mark.slow
@pytest.mark.parametrize("method", rest_slow(["partial_fit", "fit"], "partial_fit"))
def test_large_networks_take_over_the_memory_of_the_last_call(method):
    """Weights and state of 35 MB each, which the C library returns to the system: a call takes new pages for the new
    network's weights at most. So does fit with warm_start."""
    resource = pytest.importorskip("resource")
    estimator = MLPRegressor(hidden_layer_sizes=(2100, 2100), warm_start=True, max_iter=1, random_state=0)
    for _ in range(2):
        getattr(estimator, method)(X, REAL)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    getattr(estimator, method)(X, REAL)
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()
    assert taken < 1.5 * estimator.network_.parameters.nbytes
