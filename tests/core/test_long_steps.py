"""A step that takes long is worked on aside, on a thread of its own: the bits are the same, it can be given up in the middle, and
what is left then is the last whole step. ``slab_seconds`` has steps that take milliseconds pass for such."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import classification, rest_slow
from scipy.sparse import csr_array

from fastmlp import MLPClassifier, Network, core
from fastmlp.training.loop import Method

LIMIT = 120  # seconds; what hangs, hangs for ever
needs_aside = pytest.mark.skipif(os.name != "posix", reason="steps are not worked on aside there")

STEPS = {
    "plain": {"batch": 500},
    "slabs": {"batch": 1500},
    "normalised": {"batch": 500, "batch_norm": True},
    "normalised, many rows": {"batch": 1500, "batch_norm": True},
    "clipped slabs": {"batch": 1500, "max_grad_norm": 0.01},
    "all of it": {"batch": 1500, "batch_norm": True, "max_grad_norm": 0.01, "dropout": (0.1, 0.2, 0.1)},
    "sparse": {"batch": 1500, "sparse": True},
}


class Run:
    """Three steps of one kind of STEPS on so many threads; the last one has fewer rows."""

    def __init__(self, kind: str, n_threads: int, sizes: tuple[int, ...] = (100, 1400, 1100, 3)) -> None:
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

    def trainer(self, slab_seconds: float = 0.0) -> core.Trainer:
        """At its beginning."""
        trainer = core.Trainer(self.network.plan, "log_loss", "adam", self.batch, self.n_threads, **self.options)
        trainer.slab_seconds = slab_seconds
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


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("kind", rest_slow(STEPS, "plain", "normalised, many rows"))
def test_bits_are_those_of_a_step_that_is_not_worked_on_aside(kind, n_threads):
    run, alone = Run(kind, n_threads), Run(kind, 1)
    aside, plain = run.trainer(slab_seconds=1.0), alone.trainer()
    assert run.go(aside) == alone.go(plain)
    assert run.left(aside) == alone.left(plain)


def test_a_product_in_pieces_has_the_bits_of_one_in_a_whole():
    """Layers so wide that a chunk of 128 rows is several pieces; with 20 rows it is one, and rows do not depend on each other."""
    draws = np.random.RandomState(0)
    X, y = draws.standard_normal((128, 1700)).astype(np.float32), draws.randint(3, size=128)
    network = Network((1700, 1700, 1300, 3), random_state=0)

    def gradient(first: int, last: int) -> np.ndarray:
        """Of these rows, which is what tells of what they passed through; rows beyond them have weight 0."""
        weights = np.zeros(128)
        weights[first:last] = 1
        trainer = core.Trainer(network.plan, "log_loss", "gradient", 128, 2)
        out = np.empty(network.n_parameters, dtype=np.float32)
        trainer.loss_gradient(network.parameters, X, y, weights, out)
        few = core.Trainer(network.plan, "log_loss", "gradient", last - first, 1)
        expected = np.empty_like(out)
        few.loss_gradient(network.parameters, X[first:last], y[first:last], np.ones(last - first), expected)
        assert out.tobytes() == expected.tobytes()
        return out

    assert not np.array_equal(gradient(0, 20), gradient(100, 120))


class Caller:
    """A Trainer's ``cancel`` that is set so long after its look of this number: looks come too seldom to find each moment."""

    def __init__(self, number: int, seconds: float) -> None:
        self.number, self.seconds = number, seconds

    def is_set(self) -> bool:
        self.number -= 1
        if self.number >= 0:
            return False
        time.sleep(self.seconds)
        return True


@needs_aside
@pytest.mark.parametrize("n_threads", rest_slow([1, 2], 2))
@pytest.mark.parametrize("kind", rest_slow(STEPS, "clipped slabs"))
def test_given_up_at_any_moment(kind, n_threads):
    """The trainer holds what it did after a whole step, and can be used again."""
    run, draws = Run(kind, n_threads), np.random.RandomState(0)
    whole = run.after_steps()
    found = set()
    for _ in range(12):
        trainer = run.trainer(slab_seconds=1.0)
        trainer.cancel = Caller(draws.randint(1, 5), draws.uniform(0, 0.01))
        with contextlib.suppress(core.Cancelled):
            run.go(trainer)
        found.add(whole.index(run.left(trainer)))
    assert min(found) < len(whole) - 1
    trainer.cancel, trainer.slab_seconds = None, 0.0
    trainer.load(run.network.parameters, None, run.network.statistics)
    run.go(trainer)
    assert run.left(trainer) == whole[-1]


@needs_aside
def test_looks_come_while_a_step_goes_on():
    """A step of seconds, given up at once: nothing has changed, and there was more than one look in it."""
    network = Network((100, 1500, 1500, 3), batch_norm=True, random_state=0)
    X = np.random.RandomState(0).standard_normal((40_000, 100)).astype(np.float32)
    trainer = core.Trainer(network.plan, "log_loss", "adam", len(X), 1)
    looks = []

    class Third:
        def is_set(self) -> bool:
            looks.append(time.perf_counter())
            return len(looks) >= 3

    trainer.cancel = Third()
    trainer.load(network.parameters, None, network.statistics)
    with pytest.raises(core.Cancelled):
        trainer.epoch(X, np.zeros(len(X), np.intp), None, None, np.ones(1), 0)
    assert len(looks) == 3
    parameters, statistics = np.empty_like(network.parameters), np.empty_like(network.statistics)
    trainer.store(parameters, None, statistics)
    assert np.array_equal(parameters, network.parameters)
    assert np.array_equal(statistics, network.statistics)


@needs_aside
def test_signal_handlers_run_meanwhile():
    """They run in the thread that called, and one that does not raise changes nothing."""
    run = Run("normalised, many rows", 2)
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
            trainer = run.trainer(slab_seconds=1.0)
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            run.go(trainer)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert run.left(trainer) == whole[-1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(seen) == {4, "this Trainer is in use"}


@needs_aside
@pytest.mark.parametrize("early_stopping", rest_slow([False, True], True))
def test_interrupted_fits_are_valid(early_stopping, monkeypatch):
    """Ctrl-C at moments of its own in fits whose steps are worked on aside."""
    X, y = classification(3, n=6000)
    make = Method.trainer

    class Arming:
        """Starts the timer at its first look, when training begins: on a slow machine a fit takes long to come to it."""

        armed, seconds = False, 0.0

        def is_set(self) -> bool:
            if not self.armed:
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, self.seconds)
            return False

    def made(self, *arguments) -> core.Trainer:
        trainer = make(self, *arguments)
        trainer.slab_seconds = 1.0
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
        for moment in np.random.RandomState(0).uniform(0.01, 0.2, 8):
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
import sys, threading, time
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

def deep(work, depth):      # on a stack of which the system takes most back
    return list(map(lambda _: deep(work, depth - 1), [0])) if depth else work()

class Slow:
    def __del__(self, clock=time.perf_counter):
        end = clock() + 0.3
        while clock() < end:
            pass

sys.keep = Slow()           # so that the interpreter takes long to end
threading.Thread(target=deep, args=(train, 60), daemon=True).start()
training.wait()
time.sleep(0.2)
"""


@needs_aside
def test_interpreter_that_ends_meanwhile():
    """A daemon thread is ended where it stands, and its stack goes: what works aside must not have its orders there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", ENDING],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr


FORKING = """
import os, signal, sys
import numpy as np
from fastmlp import MLPClassifier, Network, core

network = Network((100, 300, 200, 3), batch_norm=True, random_state=0)
X, y = np.random.RandomState(0).standard_normal((6000, 100)).astype("float32"), np.arange(6000) % 3
children = []

def handler(number, frame):
    if not children:
        children.append(os.fork())

def go():
    trainer = core.Trainer(network.plan, "log_loss", "adam", 3000, 2)
    trainer.slab_seconds = 1.0
    trainer.load(network.parameters, None, network.statistics)
    trainer.epoch(X, y, None, None, np.full(2, 0.01), 0)
    parameters = network.parameters.copy()
    trainer.store(parameters)
    return parameters

expected = go()
signal.signal(signal.SIGALRM, handler)
while not children:
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    try:
        same = np.array_equal(go(), expected)
    except RuntimeError as error:       # in the child, which does not have the thread
        same = "forked" in str(error)
# Either way one goes on: in a child that has lost its step, with the next.
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
    """The child is told that its step is lost, instead of waiting for a thread that it does not have; the parent goes on."""
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
