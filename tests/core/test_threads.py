"""Threads of Python and of OpenMP: several estimators at once, one from many threads, one fitted twice at once; every limit kept."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import classification, regression
from scipy.sparse import csr_array
from sklearn.base import clone

import fastmlp
from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor, Network, core
from fastmlp.core._atomic import Change
from fastmlp.training import loop as training
from fastmlp.training import threads

SETTINGS = {"hidden_layer_sizes": (40, 20), "max_iter": 5, "random_state": 0}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(fastmlp.__file__).parent.parent)}
LIMIT = 120
needs_threads = pytest.mark.skipif(not core.info()["openmp"], reason="built without OpenMP")

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")

# --- several threads of Python -----------------------------------------------------------------------------------------


def at_once(work, n_threads: int) -> list:
    """``work(number)`` in so many threads, which begin together."""
    gate = threading.Barrier(n_threads, timeout=60)

    def begin(number):
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(n_threads) as executor:
        return list(executor.map(begin, range(n_threads)))


@needs_threads
def test_callers_share_the_threads():
    """Four threads: two callers take two each, five one each; a running epoch is a caller, and takes what others leave."""
    code = """
import numpy as np
from fastmlp import core, _machine
found, calls = [_machine.usable_threads(8)], []
for _ in range(5):
    calls.append(_machine.Call())
    found.append(_machine.usable_threads(8))
calls.clear()

class Look:
    def is_set(self):
        found.append(_machine.usable_threads(8))
        return False

trainer = core.Trainer(core.Plan((3, 2), [], "identity", "float64"), "squared_error", "sgd", 10, 4)
trainer.load(np.zeros(8))
trainer.cancel = Look()
for others in (0, 1, 3):
    calls = [_machine.Call() for _ in range(others)]
    trainer.epoch(np.ones((10, 3)), np.ones((10, 2)), None, None, np.full(1, 0.1), 0)
print(found, _machine.usable_threads(8) if calls.clear() is None else 0)
"""
    assert limits_of(code, OMP_NUM_THREADS="4") == f"{[4, 4, 2, 1, 1, 1, 4, 2, 1]} 4"


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
    """Another thread of Python runs on during one long call of the core, which looks up every 50 ms at most: with the lock held, it
    would get a turn then only, some dozens of times in all."""
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


# --- one estimator, changed twice at once ---------------------------------------------------------------------------------


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
    with pytest.raises(RuntimeError, match="MLPEnsembleClassifier is being fitted"), Change(ensemble):
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


# --- limits on threads ----------------------------------------------------------------------------------------------------------


def limits_of(code: str, **environment: str) -> str:
    """What the code prints in a process with that environment."""
    head = (
        "from fastmlp import core\nfrom fastmlp.training.threads import available_cpus, choose_threads\nmuch = 10**15\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", head + code],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_threads
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_omp_num_threads_is_a_limit(n_threads):
    """For an explicit n_jobs too, and beyond the machine's cores for the core itself."""
    printed = limits_of("print(core.max_threads(), choose_threads(64, much))", OMP_NUM_THREADS=str(n_threads))
    assert printed == f"{n_threads} {n_threads}"


@needs_threads
def test_threadpoolctl_is_a_limit():
    """Inside the block only, and for predictions and fits alike: what the block leaves is what they are given."""
    code = """
from threadpoolctl import threadpool_limits
found = [choose_threads(64, much)]
for limit in (2, 1):
    with threadpool_limits(limit):
        found.append(choose_threads(64, much))
    with threadpool_limits(limit, user_api="openmp"):
        found.append(choose_threads(64, much))
found.append(choose_threads(64, much))
print(found)
"""
    assert limits_of(code, OMP_NUM_THREADS="3") == "[3, 2, 2, 1, 1, 3]"


@needs_threads
def test_threadpoolctl_limits_what_is_computed(monkeypatch):
    """By way of the estimators: the number of threads that the core is given."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    X, y = classification(3, n=4000, n_features=50)
    seen = []
    trainer, forward = training.core.Trainer, Network.forward

    class Watched(trainer):
        def __init__(self, plan, loss, rule, batch_size, n_threads, **options):
            seen.append(n_threads)

    def watch(self, X, out=None, n_threads=1):
        seen.append(n_threads)
        return forward(self, X, out, n_threads)

    monkeypatch.setattr(training.core, "Trainer", Watched)
    monkeypatch.setattr(Network, "forward", watch)
    monkeypatch.setattr(threads, "available_cpus", lambda: 2)
    for limit in (1, 2):
        with threadpoolctl.threadpool_limits(limit):
            estimator = MLPClassifier((300, 300), max_iter=1, random_state=0).fit(X, y)
            estimator.predict(X)
        assert seen == [limit, limit]
        seen.clear()


@needs_threads
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_affinity_is_a_limit():
    """Set before the runtime starts it bounds OpenMP; set later, still what is chosen."""
    code = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert limits_of(code + "print(available_cpus(), choose_threads(None, much))", OMP_NUM_THREADS="8") == "1 1"


def write(folder: Path, **files: str) -> None:
    """Files of a control group; _ stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / (name.replace("_", ".", 1))).write_text(text)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, None),
        ({"": "max 100000"}, None),
        ({"a/b": "150000 100000"}, 1.5),
        ({"a": "150000 100000"}, 1.5),
        ({"": "50000 100000"}, 0.5),
        ({"a": "200000 100000", "a/b": "400000 100000"}, 2.0),
        ({"a": "300000 50000", "a/b": "50000 20000"}, 2.5),
        ({"a": "max 100000", "a/b": "700000 100000"}, 7.0),
        ({"a/b/below": "10000 100000", "beside": "10000 100000"}, None),
    ],
)
def test_quota_of_cgroup_2(limits, expected, tmp_path):
    """The least of the group's own limit and of those above it, up to the mount point; not those below or beside it."""
    membership, mount = tmp_path / "cgroup", tmp_path / "mount"
    membership.write_text("0::/a/b\n")
    mount.mkdir()
    write(tmp_path, cpu_max="1000 100000\n")  # above the mount point: nobody's
    for folder, text in limits.items():
        write(mount / folder, cpu_max=text + "\n")
    assert threads._read_quota(membership, mount) == expected


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, None),
        ({"a/b": (-1, 100000)}, None),
        ({"a/b": (150000, 100000)}, 1.5),
        ({"": (50000, 100000)}, 0.5),  # in a container, whose own group is the mount point
        ({"a": (300000, 100000), "a/b": (50000, 20000)}, 2.5),
        ({"a": (-1, 100000), "a/b": (700000, 100000)}, 7.0),
    ],
)
def test_quota_of_cgroup_1(limits, expected, tmp_path):
    """The hierarchy of the controller cpu, alone or beside others; hierarchies of other controllers say nothing."""
    membership, mount = tmp_path / "cgroup", tmp_path / "mount"
    membership.write_text("12:memory:/m\n4:cpu,cpuacct:/a/b\n3:cpuset:/c\n1:name=systemd:/s\n")
    for folder, (quota, period) in limits.items():
        write(mount / "cpu" / folder)
        (mount / "cpu" / folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (mount / "cpu" / folder / "cpu.cfs_period_us").write_text(f"{period}\n")
    for other in ("m", "c", "s"):
        write(mount / "cpu" / other)
        (mount / "cpu" / other / "cpu.cfs_quota_us").write_text("1000\n")
        (mount / "cpu" / other / "cpu.cfs_period_us").write_text("100000\n")
    assert threads._read_quota(membership, mount) == expected


def test_both_versions_of_cgroups_at_once(tmp_path):
    """The least counts, a group's name may hold a colon, and without control groups there is no quota."""
    membership, mount = tmp_path / "cgroup", tmp_path / "mount"
    membership.write_text("4:cpu:/x\n0::/pod:1/b\n")
    write(mount / "pod:1" / "b", cpu_max="300000 100000\n")
    write(mount / "cpu" / "x")
    (mount / "cpu" / "x" / "cpu.cfs_quota_us").write_text("200000\n")
    (mount / "cpu" / "x" / "cpu.cfs_period_us").write_text("100000\n")
    assert threads._read_quota(membership, mount) == 2.0
    membership.write_text("0::/pod:1/b\n")
    assert threads._read_quota(membership, mount) == 3.0
    assert threads._read_quota(tmp_path / "absent", mount) is None


@pytest.mark.parametrize(("quota", "cpus"), [(None, 4), (0.2, 1), (1.0, 1), (1.5, 2), (3.01, 4), (64.0, 4)])
def test_quota_bounds_cpus(quota, cpus, monkeypatch):
    """Rounded up, at least one, at most the affinity."""
    monkeypatch.setattr(threads, "_cgroup_quota", lambda pid: quota)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: range(4), raising=False)
    assert threads.available_cpus() == cpus


INSIDE = "def threads(_):\n    import os\n    from fastmlp.training.threads import choose_threads\n    return choose_threads({n_jobs}, 10**15), os.getpid()\n"


@needs_threads
@pytest.mark.parametrize("n_jobs", [None, 64])
def test_loky_worker_keeps_to_its_share(n_jobs):
    """Workers on all cores, two of them on two: one thread in each, so that none waits for a core; and joblib's inner limit."""
    code = (
        INSIDE.replace("{n_jobs}", str(n_jobs))
        + """
import joblib, os
cores = joblib.cpu_count()
found = dict.fromkeys(joblib.Parallel(n_jobs=cores, backend="loky")(joblib.delayed(threads)(i) for i in range(4 * cores)))
assert os.getpid() not in {pid for _, pid in found}
inner = set()
for limit in (1, 3):
    with joblib.parallel_config("loky", inner_max_num_threads=limit):
        inner |= {(limit, n) for n, _ in joblib.Parallel(n_jobs=2)(joblib.delayed(threads)(i) for i in range(4))}
print(sorted({n for n, _ in found}), sorted(inner), available_cpus())
"""
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    found, inner, cpus = limits_of(code, **environment).replace("] [", "]|[").replace("] ", "]|").split("|")
    assert found == "[1]"
    assert inner == str([(1, 1), (3, 3 if n_jobs else min(3, int(cpus)))])


POOL = """
import multiprocessing, sys
from fastmlp.training.threads import choose_threads
if __name__ == "__main__":
    found = []
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(1) as pool:
            found.append([pool.apply(choose_threads, (n_jobs, 10**15)) for n_jobs in (None, -1, 3)])
    print(found, choose_threads(None, 10**15))
"""


@needs_threads
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_worker_of_a_pool_works_on_one_thread(tmp_path):
    """The others of the pool run beside it; an integer n_jobs is obeyed. joblib's backend multiprocessing is such a pool."""
    (tmp_path / "pool.py").write_text(POOL)
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, tmp_path / "pool.py"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[[1, 1, 3], [1, 1, 3]] {min(3, threads.available_cpus())}"


# --- what is shared between threads ---------------------------------------------------------------------------------------------------


def test_extensions_declare_themselves_free_threaded():
    """Importing them must not switch the lock on again; said to be untested where there is no such interpreter."""
    if not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled():
        pytest.skip("this interpreter is not free-threaded (or has been told to use the lock)")
    assert limits_of("import sys, fastmlp\nprint(sys._is_gil_enabled())", PYTHON_GIL="") == "False"
