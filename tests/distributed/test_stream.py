"""Reading ahead, and fits of Blocks that are interrupted, stopped, saved and resumed; sorted rows; memory."""

from __future__ import annotations

import signal
import threading
import warnings

import numpy as np
import pytest
from helpers import SANITIZED, output_of_fork

import fastmlp
from fastmlp import Blocks, MLPClassifier, core
from fastmlp.distributed import stream
from fastmlp.distributed.stream import read_ahead

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
N = 900


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Units and windows that small data have many of."""
    monkeypatch.setattr(stream, "_PIECE_ROWS", 16)
    monkeypatch.setattr(stream, "_AT_ONCE", 5)


def rows():
    X = np.random.RandomState(0).standard_normal((N, 4))
    return X, (X[:, 0] + X[:, 1] > 0).astype(int)


def settings(**changed):
    return {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 5, "batch_size": 30, "dropout": 0.2, **changed}


def test_one_item_is_made_in_advance():
    made, closed = [], []

    def items():
        try:
            for i in range(6):
                made.append(i)
                yield i
        finally:
            closed.append(True)

    threads = threading.active_count()
    for i in read_ahead(items()):
        assert len(made) <= i + 2
    assert made == list(range(6))
    half = read_ahead(items())
    assert next(half) == 0
    half.close()
    assert closed == [True, True]
    assert threading.active_count() == threads


def test_an_error_reaches_the_one_who_reads():
    def items():
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


class Interrupting(core.Trainer):
    """Ctrl-C before, or in the middle of, the n-th part of a fit."""

    at = in_step = None
    calls = 0

    def epoch(self, X, y, weight, order, rates, t, **options):
        Interrupting.calls += 1
        if Interrupting.calls == Interrupting.at:
            if Interrupting.in_step:  # after the part's first step
                size, options = self.batch_size, {**options, "mix": None}
                super().epoch(X, y, weight, order[:size], rates[:1], t, **options)
            raise KeyboardInterrupt
        return super().epoch(X, y, weight, order, rates, t, **options)


@pytest.mark.parametrize("at", [1, 2, 13, 14, 25])
@pytest.mark.parametrize("in_step", [False, True])
def test_an_interrupted_fit_goes_on_to_the_same_bits(monkeypatch, at, in_step):
    """Wherever Ctrl-C comes, in the file too."""
    blocks = Blocks([rows()])
    whole = MLPClassifier(**settings()).fit(blocks)
    Interrupting.at, Interrupting.in_step, Interrupting.calls = at, in_step, 0
    with monkeypatch.context() as patch:
        patch.setattr(core, "Trainer", Interrupting)
        with pytest.warns(UserWarning, match="interrupted"):
            model = MLPClassifier(**settings()).fit(blocks)
    assert model.n_iter_ == (at - 1) // 12
    model.fit(blocks, resume=True)
    assert np.array_equal(model.network_.parameters, whole.network_.parameters)
    assert model.loss_curve_ == whole.loss_curve_


def test_a_signal_ends_a_fit_that_reads(tmp_path):
    """Ctrl-C while a function reads; the fit goes on from the file that was saved."""
    X, y = rows()
    calls = []

    def load():
        calls.append(0)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return X, y

    threads = threading.active_count()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    try:
        with pytest.warns(UserWarning, match="interrupted"):
            model = MLPClassifier(**settings(max_iter=8)).fit(Blocks([load, (X, y)]))
    finally:
        signal.signal(signal.SIGINT, before)
    assert threading.active_count() == threads
    model.save(tmp_path / "model.safetensors", optimizer_state=True)
    model = fastmlp.load(tmp_path / "model.safetensors").fit(Blocks([load, (X, y)]), resume=True)
    whole = MLPClassifier(**settings(max_iter=8)).fit(Blocks([load, (X, y)]))
    assert np.array_equal(model.network_.parameters, whole.network_.parameters)


def test_checkpoints_and_other_rows(tmp_path):
    if not fastmlp.estimators.callbacks.HAS_CALLBACKS:
        pytest.skip("callbacks need scikit-learn 1.9")
    X, y = rows()
    blocks = Blocks([(X, y)])
    whole = MLPClassifier(**settings()).fit(blocks)
    path = tmp_path / "model.safetensors"
    MLPClassifier(**settings(max_iter=2)).set_callbacks(fastmlp.Checkpoint(path)).fit(blocks)
    model = fastmlp.load(path).set_params(max_iter=5)
    with pytest.raises(ValueError, match="needs the rows of the fit that it resumes"):
        model.fit(Blocks([(X[1:], y[1:])]), resume=True)
    model.fit(blocks, resume=True)
    assert np.array_equal(model.network_.parameters, whole.network_.parameters)


def test_stopping_early_can_be_resumed():
    blocks = Blocks([rows()])
    options = settings(early_stopping=True, n_iter_no_change=100)
    whole = MLPClassifier(**options).fit(blocks)
    model = MLPClassifier(**{**options, "max_iter": 2}).fit(blocks).set_params(max_iter=5).fit(blocks, resume=True)
    assert np.array_equal(model.network_.parameters, whole.network_.parameters)
    assert model.validation_scores_ == whole.validation_scores_


def test_a_bad_fit_is_diagnosed():
    X, y = rows()
    with pytest.warns(UserWarning, match="Far from unit scale: column 2 of X"):
        MLPClassifier(**settings(max_iter=30)).fit(Blocks([(X * [1, 1, 1e6, 1], y)]))


@pytest.mark.slow
def test_rows_sorted_by_class_learn_as_shuffled_ones(monkeypatch):
    """Within half a point, with the pieces that are read by default."""
    monkeypatch.undo()
    rng = np.random.RandomState(0)
    centres = rng.standard_normal((8, 20))
    y = np.repeat(np.arange(8), 12_500)
    X = (centres[y] + 1.3 * rng.standard_normal((len(y), 20))).astype("float32")
    X_new = (centres[y] + 1.3 * rng.standard_normal((len(y), 20))).astype("float32")
    options = settings(hidden_layer_sizes=(64,), batch_size=128, dropout=0, learning_rate="cosine")
    shuffled = MLPClassifier(**options).fit(X, y).score(X_new, y)
    assert MLPClassifier(**options).fit(Blocks([(X, y)])).score(X_new, y) >= shuffled - 0.005


MEMORY = """
import resource, sys, warnings
import numpy as np
from fastmlp import Blocks, MLPRegressor
warnings.simplefilter("ignore")
peaks = []
for n in 20_000, int(sys.argv[1]):
    for name, shape in ("X", (n, 30)), ("y", (n,)):
        with open(f"{name}.npy", "wb") as file:  # zeros, which take no room on the disk
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + 4 * int(np.prod(shape)))
    blocks = Blocks.npy("X.npy", "y.npy")
    MLPRegressor(hidden_layer_sizes=(8,), batch_size=1000, max_iter=1, random_state=0).fit(blocks)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(SANITIZED, reason="the sanitizer keeps what is freed")
@pytest.mark.parametrize("n_rows", [250_000, pytest.param(13_400_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_rows(tmp_path, n_rows, monkeypatch):
    """30 MB, and 1.6 GB, of rows."""
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert int(output_of_fork(MEMORY, str(n_rows))) < 25


@pytest.mark.slow
def test_many_fits_leave_no_thread_and_no_file(tmp_path):
    import os

    X, y = rows()
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    blocks = Blocks.npy(tmp_path / "X.npy", tmp_path / "y.npy")
    model = MLPClassifier(**settings(max_iter=1))
    model.fit(blocks)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(200):
            model.fit(blocks)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors
