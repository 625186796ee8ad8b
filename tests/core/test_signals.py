"""Signals and ``cancel`` are handled between micro-batches: what a Trainer then holds, and what a handler may do."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import classification, rest_slow
from scipy.sparse import csr_array

from fastmlp import MLPClassifier, Network, core
from fastmlp.training.run import Method

LIMIT = 120  # seconds; what hangs, hangs for ever
needs_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")

STEPS = {
    "micro-batches": {"batch": 1500},
    "clipped": {"batch": 1500, "max_grad_norm": 0.01},
    "batch norm": {"batch": 1500, "batch_norm": True},
    "all of it": {"batch": 1500, "batch_norm": True, "max_grad_norm": 0.01, "dropout": (0.1, 0.2, 0.1)},
    "sparse": {"batch": 1500, "sparse": True},
}


class Run:
    """Three steps of one kind of STEPS on n_threads threads; the last one has fewer rows."""

    def __init__(self, kind: str, n_threads: int, sizes: tuple[int, ...] = (100, 700, 600, 3)) -> None:
        options = dict(STEPS[kind])
        self.batch, sparse, normalised = (
            options.pop("batch"),
            options.pop("sparse", False),
            options.pop("batch_norm", False),
        )
        self.options, self.n_threads, self.rows = options, n_threads, self.batch + 5
        self.order = np.arange(2 * self.batch + 5) % self.rows
        self.network = Network(sizes, batch_norm=normalised, random_state=0)
        draws = np.random.RandomState(0)
        X = draws.standard_normal((self.rows, sizes[0])).astype(np.float32)
        self.X = csr_array(np.where(draws.uniform(size=X.shape) < 0.1, X, 0)) if sparse else X
        self.y = draws.randint(sizes[-1], size=self.rows)

    def trainer(self) -> core.Trainer:
        """At its beginning."""
        trainer = core.Trainer(self.network.plan, "log_loss", "adam", self.batch, self.n_threads, **self.options)
        trainer.load(self.network.parameters, None, self.network.statistics)
        return trainer

    def go(self, trainer: core.Trainer) -> float:
        """The epoch."""
        return trainer.epoch(self.X, self.y, None, self.order, np.full(-(-len(self.order) // self.batch), 0.01), 0)

    def left(self, trainer: core.Trainer) -> str:
        """Digest of what the trainer holds."""
        parameters, statistics = self.network.parameters.copy(), self.network.statistics.copy()
        state = np.empty((core.OPTIMIZERS["adam"], parameters.size), dtype=parameters.dtype)
        trainer.store(parameters, state, statistics)
        return hashlib.sha256(parameters.tobytes() + state.tobytes() + statistics.tobytes()).hexdigest()

    def after_steps(self) -> list[str]:
        """What it holds before the first one and after each."""
        trainer = self.trainer()
        found = [self.left(trainer)]
        for first in range(0, len(self.order), self.batch):
            order = self.order[first : first + self.batch]
            trainer.epoch(self.X, self.y, None, order, np.full(1, 0.01), first // self.batch)
            found.append(self.left(trainer))
        return found


class NthPoll:
    """A Trainer's ``cancel`` that is set when it is asked for the n-th time."""

    def __init__(self, n: int) -> None:
        self.n = n

    def is_set(self) -> bool:
        self.n -= 1
        return self.n <= 0


@pytest.mark.parametrize("n_threads", rest_slow([1, 2], 2))
@pytest.mark.parametrize("kind", rest_slow(STEPS, "clipped"))
def test_cancelled_epochs_end_at_a_whole_step(kind, n_threads):
    """Whenever they are cancelled, in the middle of a step too; the trainer can be used again."""
    # Two of them so wide that a step outlasts a slice of time: signals are handled in the middle of it.
    wide = kind in ("micro-batches", "clipped")
    run = Run(kind, n_threads, (100, 1400, 1100, 3) if wide else (100, 300, 200, 3))
    whole = run.after_steps()
    found = []
    for n in range(1, 20):
        trainer = run.trainer()
        trainer.cancel = NthPoll(n)
        try:
            run.go(trainer)
        except core.Cancelled:
            found.append(whole.index(run.left(trainer)))
            last = trainer
        else:
            break
    assert found[0] == 0
    assert found == sorted(found)
    assert set(found) <= set(range(len(whole) - 1))
    if wide:
        assert len(found) > len(set(found)), "no step was cancelled in its middle"
    assert run.left(trainer) == whole[-1]
    last.cancel = None
    last.load(run.network.parameters, None, run.network.statistics)
    run.go(last)
    assert run.left(last) == whole[-1]


@needs_timer
def test_signal_handlers_run_meanwhile():
    """One that does not raise changes nothing, and cannot read the Trainer in the middle of an epoch."""
    run = Run("micro-batches", 2)
    whole = run.after_steps()
    seen = []

    def handler(number, frame) -> None:
        try:
            assert run.left(trainer) in (whole[0], whole[-1])  # before the epoch, or after it
        except RuntimeError as error:  # within, where weights may be half updated
            seen.append(str(error)[:22])
        estimator = MLPClassifier((4,), max_iter=20, n_iter_no_change=2, tol=1e9, random_state=0)
        seen.append(estimator.fit(*classification(3, n=60)).n_iter_)
        signal.setitimer(
            signal.ITIMER_REAL, 0.004
        )  # not before: where a fit takes longer, handlers would nest without end

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(8):
            trainer = run.trainer()
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            run.go(trainer)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert run.left(trainer) == whole[-1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(seen) == {4, "this Trainer is in use"}


@needs_timer
@pytest.mark.parametrize("early_stopping", rest_slow([False, True], True))
def test_interrupted_fits_are_valid(early_stopping, monkeypatch):
    """Ctrl-C at any moment of a fit of large batches."""
    X, y = classification(3, n=6000)
    make = Method.trainer

    class Arming:
        """Starts the timer when training begins, which on a slow machine takes a while."""

        armed, seconds = False, 0.0

        def is_set(self) -> bool:
            if not self.armed:
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, self.seconds)
            return False

    def made(self, *arguments) -> core.Trainer:
        trainer = make(self, *arguments)
        trainer.cancel = Arming()
        return trainer

    monkeypatch.setattr(Method, "trainer", made)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    settings = {
        "hidden_layer_sizes": (300, 200),
        "batch_size": 5000,
        "batch_norm": True,
        "early_stopping": early_stopping,
    }
    endless = {"max_iter": 10**8, "tol": 0.0, "n_iter_no_change": np.inf, "random_state": 0}
    try:
        for moment in np.random.RandomState(0).uniform(0.01, 0.1, 8):
            Arming.seconds = moment
            estimator = MLPClassifier(**settings, **endless)
            with pytest.warns(UserWarning, match="interrupted by user"):
                estimator.fit(X, y)
            assert np.isfinite(estimator.predict_proba(X)).all()
            assert estimator.n_iter_ <= len(estimator.history_)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


ENDING = """
import threading, time
import numpy as np
from fastmlp import Network, core

network = Network((100, 1500, 1500, 3), batch_norm=True, random_state=0)
X, y = np.ones((8000, 100), dtype="float32"), np.zeros(8000, dtype=np.intp)
training = threading.Event()

class Beginning:
    def is_set(self):
        training.set()

def train():
    trainer = core.Trainer(network.plan, "log_loss", "adam", len(X), 2)
    trainer.cancel = Beginning()
    trainer.load(network.parameters, None, network.statistics)
    while True:
        trainer.epoch(X, y, None, None, np.ones(1), 0)

threading.Thread(target=train, daemon=True).start()
training.wait()
time.sleep(0.2)
"""


def test_interpreter_that_ends_meanwhile():
    """With a daemon thread in the middle of a step."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-P", "-c", ENDING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert done.returncode == 0, done.stderr


FORKING = """
import os, signal, sys
import numpy as np
from fastmlp import MLPClassifier, Network, core

network = Network((100, 600, 500, 3), random_state=0)
X, y = np.random.RandomState(0).standard_normal((6000, 100)).astype("float32"), np.arange(6000) % 3
children = []

def handler(number, frame):
    if not children:
        children.append(os.fork())

def go():
    trainer = core.Trainer(network.plan, "log_loss", "adam", 3000, 2)
    trainer.load(network.parameters, None, network.statistics)
    trainer.epoch(X, y, None, None, np.full(2, 0.01), 0)
    parameters = network.parameters.copy()
    trainer.store(parameters)
    return parameters

expected = go()
signal.signal(signal.SIGALRM, handler)
while not children:
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    same = np.array_equal(go(), expected)
same = same and np.array_equal(go(), expected)
if children[0] == 0:
    os._exit(0 if same else 1)
assert same
assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
print("same")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_handler_that_forks():
    """In the middle of an epoch: parent and child go on with it, and end with the same bits."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    program = [sys.executable, "-P", "-c", FORKING]
    process = subprocess.Popen(
        program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        printed, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, printed
    assert printed == "same\n"
