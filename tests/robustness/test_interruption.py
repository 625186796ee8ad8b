"""Whatever ends a fit in the middle, the estimator is as it was before or a valid fitted model: Ctrl-C and lack of
memory at every line of ours, callables that raise, real signals in a script, in workers of joblib and in a notebook's
kernel, real limits."""

from __future__ import annotations

import importlib.util
import itertools
import linecache
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import classification, regression, rest_slow

import fastmlp
from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor, Network, core
from fastmlp.training import run as training
from fastmlp.training.loop import train_epochs
from fastmlp.training.rows import TrainingData
from fastmlp.training.schedules import make_schedule

PACKAGE = Path(fastmlp.__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
LIMIT = 120  # seconds; a fit that is not interrupted takes hours
ENDLESS = {"max_iter": 10**8, "tol": 0.0, "n_iter_no_change": np.inf}
BASE = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0, "batch_size": 32}

# --- at every line --------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")

KINDS = {
    "fresh": BASE,
    "watched": {**BASE, "early_stopping": True, "batch_norm": True},
    "warm": {**BASE, "warm_start": True},
    "lbfgs": {**BASE, "solver": "lbfgs"},
}


# Their last event is the line of "with" again, where Python looks for no signal: the next instruction calls __exit__.
BLOCKS = ("with AtomicUpdate(", "with _blas_lock:")


def raise_at(line: int, error: type[BaseException], work) -> int:
    """Do the work, and raise the error before the line of this number that runs in the package; returns how many lines
    ran."""
    seen = 0

    def trace_lines(frame, event, argument):
        nonlocal seen
        if event == "line" and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip().startswith(
            BLOCKS
        ):
            seen += 1
            if seen == line:
                raise error
        return trace_lines

    def trace_calls(frame, event, argument):
        return trace_lines if frame.f_code.co_filename.startswith(str(PACKAGE)) else None

    before = sys.gettrace()
    sys.settrace(trace_calls)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen


def assert_valid(estimator, X) -> None:
    """It predicts, and what it says of its training agrees with itself."""
    assert np.isfinite(estimator.predict_proba(X)).all()
    assert estimator.network_.layer_sizes == (X.shape[1], 8, 3)
    assert estimator.n_iter_ <= len(estimator.history_)
    if estimator.solver != "lbfgs":
        assert len(estimator.history_) == len(estimator.loss_curve_)
        assert estimator.t_ % len(X) == 0 or estimator.early_stopping
        assert estimator.loss_ == estimator.loss_curve_[-1] if estimator.loss_curve_ else np.isnan(estimator.loss_)
    if estimator.early_stopping:
        assert len(estimator.validation_scores_) == len(estimator.validation_loss_curve_) == len(estimator.loss_curve_)
        assert all("validation_loss" in entry for entry in estimator.history_)
    pickle.loads(pickle.dumps(estimator))
    with tempfile.TemporaryDirectory() as folder:
        estimator.save(Path(folder) / "model")
        again = fastmlp.load(Path(folder) / "model")
    np.testing.assert_array_equal(again.network_.parameters, estimator.network_.parameters)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize(("kind", "step"), rest_slow(itertools.product(KINDS, [1, 7]), ("fresh", 7)))
def test_raised_at_every_line(kind, step, error):
    """Before each line, or each seventh, of the package that a fit of three epochs runs, as a signal may come or an
    allocation fail."""
    X, y = classification(3, n=90)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = MLPClassifier(**KINDS[kind]).fit(X, y)
        fitted = dict(vars(estimator))
        lengths = {name: len(value) for name, value in fitted.items() if isinstance(value, list)}
        parameters = estimator.network_.parameters.copy()
        other, labels = X + 1, np.roll(y, 1)
        n_lines = raise_at(-1, error, lambda: estimator.fit(other, labels))
        assert n_lines > 100
        kept = done = late = 0
        for line in range(1, n_lines + 1, step):
            vars(estimator).clear()
            vars(estimator).update(fitted)
            for name, length in lengths.items():  # a fit that was kept has appended to them
                del fitted[name][length:]
            try:
                raise_at(line, error, lambda: estimator.fit(other, labels))
            except error:
                if (
                    estimator.network_ is not fitted["network_"]
                ):  # it came when the fit was over: a new model, and whole
                    late += 1
                    assert_valid(estimator, X)
                    continue
                kept += 1
                assert vars(estimator).keys() == fitted.keys(), line
                assert all(value is fitted[name] for name, value in vars(estimator).items()), line
                assert {name: len(fitted[name]) for name in lengths} == lengths, line
                np.testing.assert_array_equal(estimator.network_.parameters, parameters)
            else:
                done += 1
                assert_valid(estimator, X)
            assert not np.array_equal(parameters, 0 * parameters)
        assert kept > 10 * late
        assert (done > 0) == (error is KeyboardInterrupt)  # it keeps what a run has found
        estimator.fit(X, y)  # and no lock is left


def test_interrupted_at_every_line_leaves_the_best_parameters():
    """With early stopping an interrupted run keeps the parameters of its best epoch, even if that is the last one."""
    X, y = classification(3, n=90)
    data, curve = TrainingData(X.astype(np.float32), y), (0.1, 0.3, 0.2, 0.4, 0.0)
    settings = training.Settings(max_epochs=len(curve), batch_size=32, shuffle=True, tol=0, patience=9)

    def interrupted(line: int) -> tuple[int, Network, training.Record, dict[float, tuple[np.ndarray, np.ndarray]]]:
        """A run that is interrupted before this line: how many it had, what it left, what each score was given for."""
        network, record, seen = Network((X.shape[1], 8, 3), batch_norm=True, random_state=0), training.Record(), {}
        schedule, state = make_schedule("constant", "adam", 0.01, 0.5), training.OptimizerState.new("adam", network)
        rng = np.random.RandomState(0)

        def score(net: Network) -> tuple[float, float]:
            value = curve[len(seen)]
            seen[value] = net.parameters.copy(), net.statistics.copy()
            return value, 1.0

        def run() -> None:
            train_epochs(training.StochasticRun(
                network=network, loss="log_loss", data=data, settings=settings, schedule=schedule, optimizer=state,
                rng=rng,
                record=record, validation=training.Validation(score),
            ))  # fmt: skip

        return raise_at(line, KeyboardInterrupt, run), network, record, seen

    line = checked = 0
    while True:
        line += 1
        try:
            n_lines, network, record, seen = interrupted(line)
        except KeyboardInterrupt:  # before the epochs, or when they were over
            continue
        if record.best_score > -np.inf:
            checked += 1
            assert np.array_equal(network.parameters, seen[record.best_score][0]), line
            assert np.array_equal(network.statistics, seen[record.best_score][1]), line
        if n_lines < line:
            break
    assert checked > 50


# --- callables that raise ---------------------------------------------------------------------------------------------


class Unhappy(Exception):
    """Nobody else raises it."""


@pytest.mark.parametrize("argument", ["learning_rate", "validation_metric", "weight_init"])
def test_callable_that_raises(argument):
    """Its own error comes out, and the estimator is what it was."""
    X, y = classification(3)
    estimator = MLPClassifier(**{**BASE, "max_iter": 20}, early_stopping=argument == "validation_metric").fit(X, y)
    before, parameters = dict(vars(estimator)), estimator.network_.parameters.copy()
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == (1 if argument == "weight_init" else 3):
            raise Unhappy
        return 0.5

    estimator.set_params(**{argument: fail})
    with pytest.raises(Unhappy):
        estimator.fit(X, y)
    assert {**vars(estimator), argument: before[argument]} == before
    np.testing.assert_array_equal(estimator.network_.parameters, parameters)
    assert estimator.set_params(**{argument: before[argument]}).fit(X, y).n_iter_ > 0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_interrupted_divergence_is_an_error(monkeypatch):
    """Ctrl-C just when the weights have become infinite: no model of infinities."""
    X, y = regression(200)
    estimator = MLPRegressor(**BASE).fit(X, y)
    before, epoch = dict(vars(estimator)), core.Trainer.epoch

    class Interrupted(core.Trainer):
        def epoch(self, *arguments, **constants):
            epoch(self, *arguments, **constants)
            raise KeyboardInterrupt

    monkeypatch.setattr(core, "Trainer", Interrupted)
    estimator.set_params(solver="sgd", activation="identity", learning_rate_init=1e30)
    with pytest.raises(
        ValueError,
        match=r"non-finite parameter weights.*epoch 1 \(learning rate 1e\+30, layers .*\), which was interrupted",
    ):
        estimator.fit(X, y)
    assert vars(estimator)["network_"] is before["network_"]


# --- memory -----------------------------------------------------------------------------------------------------------

MEMORY = """
import resource, sys
import numpy as np
from fastmlp import MLPClassifier
X, y = np.random.RandomState(0).randn(300, 20), np.arange(300) % 3
estimator = MLPClassifier((16,), max_iter=2, random_state=0).fit(X, y)
before, predicted = dict(vars(estimator)), estimator.predict_proba(X)
size = 4096 * int(open("/proc/self/statm").read().split()[0])
refused = 0
for spare in (1, 2, 4, 12, 24, 48, 96):  # MiB: too few for the parameters, then for one more of their copies
    resource.setrlimit(resource.RLIMIT_AS, (size + spare * 2**20, resource.RLIM_INFINITY))
    estimator.hidden_layer_sizes = (1500, 1500)
    try:
        estimator.fit(X, y)
    except MemoryError:
        refused += 1
        estimator.hidden_layer_sizes = (16,)
        assert {name for name in vars(estimator)} == set(before) and estimator.network_ is before["network_"], spare
        assert np.array_equal(estimator.predict_proba(X), predicted), spare
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert refused >= 4, refused
estimator.hidden_layer_sizes = (16,)
estimator.fit(X, y)
print("kept")
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and /proc")
def test_real_lack_of_memory_keeps_the_model():
    """Wherever in a fit the system refuses."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import warnings; warnings.simplefilter('ignore')\n" + MEMORY],
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=LIMIT,
    )  # fmt: skip
    assert done.stdout == "kept\n", done.stderr


# --- real signals -----------------------------------------------------------------------------------------------------

SCRIPT = """
import signal, sys, time, warnings
import numpy as np
from fastmlp import MLPClassifier, Network
signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell may have had it ignored
X, y = np.random.RandomState(0).randn(20000, 100).astype("float32"), np.arange(20000) % 3
endless = {"max_iter": 10**8, "tol": 0.0, "n_iter_no_change": np.inf, "random_state": 0}
"""
SCRIPTS = {
    "fit": """
told = []

def rate(step, n_steps):
    if not told:
        told.append(print("begun", flush=True))
    return 1.0

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    estimator = MLPClassifier((200,), learning_rate=rate, **endless).fit(X, y)
assert any("interrupted by user" in str(warning.message) for warning in caught)
assert np.isfinite(estimator.predict_proba(X)).all()
""",
    "predict": """
network = Network((100, 1000, 1000, 3), random_state=0)
many = np.tile(X, (3, 1))
try:
    print("begun", flush=True)
    while True:
        network.forward(many)
except KeyboardInterrupt:
    pass
""",
    "search": """
import os, pathlib
from sklearn.model_selection import GridSearchCV

def rate(step, n_steps):
    pathlib.Path(__file__).with_name(f"{os.getpid()}.begun").touch()
    return 1.0

if __name__ == "__main__":
    learner = MLPClassifier((200,), learning_rate=rate, **endless)
    search = GridSearchCV(learner, {"alpha": [1e-4, 1e-3, 1e-2]}, n_jobs=2, cv=2)
    try:
        print("begun", flush=True)
        search.fit(X, y)
    except KeyboardInterrupt:
        pass
    assert not hasattr(search, "best_estimator_")
""",
}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends signals")
def test_large_network_looks_for_signals_between_few_rows():
    """Of 1,000 rows at 16 million weights: a handler that raises ends the prediction before its last rows."""
    network = Network((4, 4000, 4000, 2), "relu", random_state=0)
    X, out = np.ones((1000, 4), dtype=np.float32), np.full((1000, 2), np.nan, dtype=np.float32)

    def refuse(number, frame):
        raise Unhappy

    before = signal.signal(signal.SIGALRM, refuse)
    try:
        with pytest.raises(Unhappy):  # noqa: PT012 (the timer may be early)
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            core.forward(network.plan, network.parameters, X, out)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert np.isnan(out[-1]).all()


@pytest.mark.skipif(os.name != "posix", reason="needs process groups and SIGINT")
@pytest.mark.parametrize("name", rest_slow(SCRIPTS, "fit"))
def test_interrupt_of_a_script(name, tmp_path):
    """Ctrl-C reaches all processes of the terminal's group: workers too. Soon none is left, and nothing was lost but
    the work."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + SCRIPTS[name] + "\nprint('ended', flush=True)\n")
    process = subprocess.Popen(
        [sys.executable, "-P", str(script)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.2)
        deadline = time.monotonic() + LIMIT
        while name == "search" and len(list(tmp_path.glob("*.begun"))) < 2:  # both workers are at it
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        printed, errors = process.communicate(timeout=LIMIT)
        assert printed == "ended\n", errors
        assert process.returncode == 0, errors
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


KERNEL = """
import warnings
import numpy as np
from fastmlp import MLPClassifier
X, y = np.random.RandomState(0).randn(20000, 100).astype("float32"), np.arange(20000) % 3
def rate(step, n_steps):
    open({begun!r}, "w").close()
    return 1.0
estimator = MLPClassifier((200,), learning_rate=rate, max_iter=10**8, tol=0.0, n_iter_no_change=np.inf, random_state=0)
"""


@pytest.mark.slow
def test_interrupt_of_a_notebook_kernel(tmp_path):
    """A kernel's interrupt ends the cell's fit; the estimator then predicts in the next cell."""
    for module in ("ipykernel", "jupyter_client"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    from jupyter_client.manager import start_new_kernel

    arguments = ["--IPKernelApp.log_level=CRITICAL"]
    # In a folder of its own: in a checkout it would find the sources.
    manager, client = start_new_kernel(
        kernel_name="python3", env=ENVIRONMENT, cwd=str(tmp_path), extra_arguments=arguments
    )
    try:
        begun = tmp_path / "begun"
        first = client.execute_interactive(KERNEL.replace("{begun!r}", repr(str(begun))), timeout=LIMIT)
        assert first["content"]["status"] == "ok"

        def interrupt():
            while not begun.exists():
                time.sleep(0.05)
            manager.interrupt_kernel()

        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        reply = client.execute_interactive("estimator.fit(X, y)", timeout=LIMIT, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok"  # fit ends with a warning, the cell as it would have
        check = "assert np.isfinite(estimator.predict_proba(X)).all() and estimator.n_iter_ >= 0"
        assert client.execute_interactive(check, timeout=LIMIT)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_cancel_ends_an_epoch():
    """From another thread, in the middle of an epoch that would take half a minute; the trainer can be used again."""
    network = Network((100, 300, 3), random_state=0)
    X, y = np.random.RandomState(0).rand(1000, 100).astype("float32"), np.zeros(1000, np.intp)
    order = np.tile(np.arange(1000), 5000)  # of more rows, the check alone takes as long as the timer
    trainer = core.Trainer(network.plan, "log_loss", "adam", 10, 1)
    trainer.load(network.parameters, None, None)
    trainer.cancel = threading.Event()
    timer = threading.Timer(0.5, trainer.cancel.set)
    timer.start()
    with pytest.raises(core.Cancelled):
        trainer.epoch(X, y, None, order, np.full(500_000, 1e-3), 0)
    timer.join()
    parameters = network.parameters.copy()
    trainer.store(parameters)
    assert np.isfinite(parameters).all()
    assert not np.array_equal(parameters, network.parameters)
    trainer.cancel.clear()
    trainer.epoch(X, y, None, order[:10], np.full(1, 1e-3), 0)


def test_failing_member_ends_others_within_their_epoch(monkeypatch):
    """The first fails while the second is in an epoch of a million rows and 25 million operations each."""
    from fastmlp.estimators import ensemble

    monkeypatch.setattr(ensemble, "choose_threads", lambda n_jobs, flops: 2)
    X, y = classification(2, n=100)
    begun, fit, numbers = threading.Event(), MLPClassifier._fit_member, iter((0, 1))

    def fail(self, *arguments):
        if next(numbers) == 0:
            assert begun.wait(30)
            raise Unhappy
        begun.set()
        return fit(self, *arguments)

    def endless_order(self, *arguments, **constants):
        arguments = (*arguments[:3], np.tile(arguments[3], 10**4), np.full(10**4 * 4, 1e-3), *arguments[5:])
        finished.append(epoch(self, *arguments, **constants))
        return finished[-1]

    class Endless(core.Trainer):
        epoch = endless_order

    epoch, finished = core.Trainer.epoch, []
    monkeypatch.setattr(core, "Trainer", Endless)
    monkeypatch.setattr(MLPClassifier, "_fit_member", fail)
    with pytest.raises(Unhappy):
        MLPEnsembleClassifier(MLPClassifier((2000, 2000), batch_size=25, **ENDLESS), 2, random_state=0).fit(X, y)
    assert not finished
