"""Threads of Python and of OpenMP: several estimators at once, one from many threads, one fitted twice at once."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import SANITIZED, classification, output_of, regression, rest_slow
from scipy.sparse import csr_array
from sklearn.base import clone

from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor, Network, core
from fastmlp.core import AtomicUpdate

SETTINGS = {"hidden_layer_sizes": (40, 20), "max_iter": 5, "random_state": 0}
needs_threads = pytest.mark.skipif(not core.info()["openmp"], reason="built without OpenMP")

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")

# --- several threads of Python ----------------------------------------------------------------------------------------


def at_once(work, n_threads: int) -> list:
    """``work(number)`` in ``n_threads`` threads, which begin together."""
    gate = threading.Barrier(n_threads, timeout=60)

    def begin(number):
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(n_threads) as executor:
        return list(executor.map(begin, range(n_threads)))


@needs_threads
def test_callers_share_the_threads():
    """Four threads: two callers take two each, five one each; a running epoch is a caller, and takes what others
    leave."""
    code = """
import numpy as np
from fastmlp import core
from fastmlp.core import _dispatch
found, calls = [_dispatch.usable_threads(8)], []
for _ in range(5):
    calls.append(_dispatch.Caller())
    found.append(_dispatch.usable_threads(8))
calls.clear()

class Look:
    def is_set(self):
        found.append(_dispatch.usable_threads(8))
        return False

trainer = core.Trainer(core.Plan((3, 2), [], "identity", "float64"), "squared_error", "sgd", 10, 4)
trainer.load(np.zeros(8))
trainer.cancel = Look()
for others in (0, 1, 3):
    calls = [_dispatch.Caller() for _ in range(others)]
    trainer.epoch(np.ones((10, 3)), np.ones((10, 2)), None, None, np.full(1, 0.1), 0)
print(found, _dispatch.usable_threads(8) if calls.clear() is None else 0)
"""
    assert output_of(code, OMP_NUM_THREADS="4") == f"{[4, 4, 2, 1, 1, 1, 4, 2, 1]} 4"


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("sparse", [False, True])
def test_estimators_trained_at_once_have_the_same_bits(solver, sparse):
    """On one copy of the data, some with threads of their own."""
    X, y = classification(3, n=2000, dtype="float32")
    X = csr_array(np.where(np.random.RandomState(0).rand(*X.shape) < 0.1, X, 0)) if sparse else X
    prototypes = [
        MLPClassifier(**{**SETTINGS, "random_state": seed}, solver=solver, n_jobs=1 + seed % 2) for seed in range(4)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = [clone(prototype).fit(X, y) for prototype in prototypes]
        together = at_once(lambda number: clone(prototypes[number % 4]).fit(X, y), 8)
    for number, fitted in enumerate(together):
        np.testing.assert_array_equal(fitted.network_.parameters, alone[number % 4].network_.parameters)
    assert len({fitted.network_.parameters.tobytes() for fitted in alone}) == 4


@pytest.mark.parametrize("n_rows", [1, 50, 3000])
def test_one_estimator_predicts_from_sixteen_threads(n_rows):
    """Few rows, some, and many go three different ways; half of the threads take several threads of OpenMP each."""
    X, y = classification(3, n=3000, dtype="float32")
    estimator = MLPClassifier(**SETTINGS, batch_norm=True).fit(X, y)
    parts = [np.ascontiguousarray(np.roll(X, number, axis=0)[:n_rows]) for number in range(16)]
    alone = [estimator.predict_proba(part) for part in parts]

    def predict(number):
        network = estimator.network_
        return [
            estimator.predict_proba(parts[number]) if number % 2 else network.forward(parts[number], n_threads=2)
            for _ in range(20)
        ]

    for expected, results in zip(alone, at_once(predict, 16), strict=True):
        for result in results:
            np.testing.assert_array_equal(result, expected)
    assert len({part.tobytes() for part in alone}) > 1


@pytest.mark.parametrize("work", ["train", "forward", "sparse"])
def test_no_lock_is_held_while_computing(work):
    """Another thread of Python runs on during one long call of the core, which looks up every 50 ms at most: with the
    lock held, it would get a turn then only, some dozens of times in all."""
    network = Network((200, 600, 600, 3), random_state=0)
    X, y = np.random.RandomState(0).rand(2000, 200).astype("float32"), np.zeros(2000, np.intp)
    if work == "sparse":
        X = csr_array(np.where(np.random.RandomState(0).rand(2000, 200) < 0.1, X, 0))
    trainer = core.Trainer(network.plan, "log_loss", "adam", 200, 1)
    trainer.load(network.parameters, None, None)
    counted, done = [0], threading.Event()

    def count():
        while not done.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        before = counted[0]
        if work == "forward":
            network.forward(np.tile(X, (5, 1)))
        else:
            trainer.epoch(X, y, None, np.tile(np.arange(2000), 5), np.full(50, 1e-3), 0)
        during = counted[0] - before
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert during > 1000


@needs_threads
def test_parallel_regions_touch_no_interpreter():
    """After a subinterpreter, CPython no longer finds the state of a thread by itself: a region that asks for it ends
    the process."""
    code = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
interpreters.destroy(interpreters.create())
import numpy as np
from fastmlp import Network, core
network = Network((50, 256, 128, 3), random_state=0)
X, y = np.random.RandomState(0).standard_normal((4000, 50)), np.arange(4000) % 3
trainer = core.Trainer(network.plan, "log_loss", "adam", 200, 2)
trainer.load(network.parameters)
for epoch in range(5):  # long enough for a trial of both threads
    trainer.epoch(X, y, None, None, np.full(20, 1e-3), 20 * epoch)
network.forward(X, n_threads=2)
network.forward(X[:64], n_threads=2)
core.peak_gflops(0.01, "float32", 2)
print("done")
"""
    assert output_of(code, OMP_NUM_THREADS="2") == "done"


# Each way of starting threads, 40,000 of them wanted, after the limit was set; `threads` is how many the process has.
LIMITED = """
import os, resource
import numpy as np
import numpy.testing
from fastmlp import Network, core
threads = lambda: len(os.listdir("/proc/self/task"))
network = Network((50, 256, 128, 3), random_state=0)
X, y = np.random.RandomState(0).standard_normal((4000, 50)), np.arange(4000) % 3
alone, before = network.forward(X), threads()
{limit}
wanted = core.max_threads()
np.testing.assert_array_equal(network.forward(X[:64], n_threads=wanted), alone[:64])
np.testing.assert_array_equal(network.forward(X, n_threads=wanted), alone)
trainer = core.Trainer(network.plan, "log_loss", "adam", 200, wanted)
trainer.load(network.parameters)
for epoch in range(5):  # long enough for a trial of all threads
    trainer.epoch(X, y, None, None, np.full(20, 1e-3), 20 * epoch)
core.peak_gflops(0.01, "float32", wanted)
{fit}
print(wanted, threads() - before)
"""
NO_MORE_THREADS = "resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))"
FIT = "MLPClassifier((256, 128), max_iter=1, n_jobs=40000).fit(X, y).predict(X)"
THREE_MORE_THREADS = "resource.setrlimit(resource.RLIMIT_NPROC, (before + 3, before + 3))"
AS_ANOTHER_USER = "user = 50_000 + os.getpid() % 10_000\nos.setresuid(user, user, user)\n"


@needs_threads
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are the system's own")
@pytest.mark.parametrize(
    ("limit", "started"), rest_slow([(NO_MORE_THREADS, 0), (THREE_MORE_THREADS, 2)], (THREE_MORE_THREADS, 2))
)
def test_threads_that_cannot_be_created_are_done_without(limit, started):
    """OpenMP would end the process. One thread stays in reserve."""
    if os.getuid() == 0:  # the limit is not for the superuser
        limit = AS_ANOTHER_USER + limit
    elif started:
        pytest.skip("needs a user without other processes, whom only the superuser can become")
    code = LIMITED.format(limit=limit, fit="" if started else FIT)
    if not started:  # the user may not read scikit-learn's files
        code = "from fastmlp import MLPClassifier\n" + code
    assert output_of(code, OMP_NUM_THREADS="40000") == f"1024 {started}"


@needs_threads
@pytest.mark.skipif(SANITIZED or not sys.platform.startswith("linux"), reason="limits are the system's own")
def test_stacks_that_do_not_fit_into_memory_are_done_without():
    """The stacks are as large as the environment says, here too large for any."""
    limit = "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
    limit += "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))"
    assert output_of(LIMITED.format(limit=limit, fit=""), OMP_NUM_THREADS="40", OMP_STACKSIZE=" 256 M ") == "40 0"


# --- one estimator, changed twice at once -----------------------------------------------------------------------------


class Waits:
    """A learning rate that stops a fit at its first step, until it is told to go on."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, step, n_steps):
        self.begun.set()
        assert self.go_on.wait(60)
        return 1.0

    def __reduce__(self):
        return Waits, ()

    def __deepcopy__(self, memo):
        return Waits()


CHANGES = {
    "fit": lambda estimator, X, y: estimator.fit(X, y),
    "partial_fit": lambda estimator, X, y: estimator.partial_fit(X, y),
    "set_params": lambda estimator, X, y: estimator.set_params(alpha=0.5),
    "grow": lambda estimator, X, y: estimator.grow((80, 40)),
    "freeze": lambda estimator, X, y: estimator.freeze([0]),
    "unfreeze": lambda estimator, X, y: estimator.unfreeze(),
    "coefs_": lambda estimator, X, y: setattr(estimator, "coefs_", [2 * W for W in estimator.coefs_]),
    "intercepts_": lambda estimator, X, y: setattr(estimator, "intercepts_", [2 * b for b in estimator.intercepts_]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_changing_an_estimator_that_is_being_fitted_is_an_error(kind, change):
    """The fit goes on undisturbed; pickles and copies can be made meanwhile, and are not locked."""
    X, y = classification(3) if kind is MLPClassifier else regression()
    expected = kind(**SETTINGS).fit(X, y).fit(X, y)
    estimator, waits = kind(**SETTINGS).fit(X, y), Waits()
    estimator.set_params(learning_rate=waits)
    with ThreadPoolExecutor(1) as executor:
        fit = executor.submit(estimator.fit, X, y)
        try:
            assert waits.begun.wait(60)
            with pytest.raises(RuntimeError, match=f"This {kind.__name__} is being fitted or changed"):
                CHANGES[change](estimator, X, y)
            others = [
                pickle.loads(pickle.dumps(estimator)),
                copy.deepcopy(estimator),
                copy.copy(estimator),
                clone(estimator),
            ]
            for other in others:
                other.set_params(learning_rate="constant").fit(X, y)
            estimator.predict(X)
        finally:
            waits.go_on.set()
        assert fit.result(60) is estimator
    assert estimator.get_params()["alpha"] == expected.alpha
    for fitted in (estimator, *others):
        np.testing.assert_array_equal(fitted.network_.parameters, expected.network_.parameters)
    CHANGES[change](estimator.set_params(learning_rate="constant"), X, y)  # free again


def test_change_from_within_the_fit_is_an_error():
    """A callable that fits the very estimator: the error comes out, the estimator is as before and free."""
    X, y = classification(3)
    estimator = MLPClassifier(**SETTINGS).fit(X, y)
    before = dict(vars(estimator))
    estimator.set_params(learning_rate=lambda step, n_steps: estimator.fit(X, y) and 1.0)
    with pytest.raises(RuntimeError, match="being fitted"):
        estimator.fit(X, y)
    estimator.set_params(learning_rate="constant")
    assert vars(estimator) == before
    estimator.fit(X, y)


def test_fitting_an_ensemble_twice_at_once_is_an_error():
    """The ensemble's members are its own: only itself is guarded."""
    X, y = classification(3)
    waits = Waits()
    ensemble = MLPEnsembleClassifier(MLPClassifier(**SETTINGS), 2, random_state=0)
    with pytest.raises(RuntimeError, match="MLPEnsembleClassifier is being fitted"), AtomicUpdate(ensemble):
        ensemble.fit(X, y)
    assert not waits.begun.is_set()
    assert len(ensemble.fit(X, y).estimators_) == 2


def test_racing_fits_leave_one_model():
    """Sixteen threads begin at once: each fit ran to its end or was refused, and the model is that of a fit alone."""
    X, y = classification(3)
    expected = MLPClassifier(**SETTINGS).fit(X, y)
    estimator = MLPClassifier(**SETTINGS)
    refused = []

    def fit(number):
        try:
            estimator.fit(X, y)
        except RuntimeError:
            refused.append(number)

    at_once(fit, 16)
    assert len(refused) < 16
    np.testing.assert_array_equal(estimator.network_.parameters, expected.network_.parameters)
    assert estimator.loss_curve_ == expected.loss_curve_


def test_refused_set_params_sets_nothing():
    """A name that there is not, behind one that there is."""
    estimator = MLPClassifier()
    with pytest.raises(ValueError, match="Invalid parameter 'colour'"):
        estimator.set_params(alpha=3.0, colour="red")
    assert estimator.alpha == MLPClassifier().alpha


# --- free threading ---------------------------------------------------------------------------------------------------


def test_extensions_declare_themselves_free_threaded():
    """Importing them must not switch the lock on again; said to be untested where there is no such interpreter."""
    if not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled():
        pytest.skip("this interpreter is not free-threaded (or has been told to use the lock)")
    assert output_of("import sys, fastmlp.core\nprint(sys._is_gil_enabled())", PYTHON_GIL="") == "False"
