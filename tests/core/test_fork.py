"""A forked child trains and predicts the same bits and does not hang, whoever else uses OpenMP and whatever runs
meanwhile.

Each test runs in a process of its own, which ends with all its children when its time is over.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers import needs_sklearn, rest_slow

import fastmlp
from fastmlp import core

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
needs_threads = pytest.mark.skipif(
    not core.info()["openmp"], reason="built without OpenMP: there are no threads to lose"
)

LIMIT = 120  # seconds; what hangs, hangs for ever
PACKAGES = Path(fastmlp.__file__).parent.parent  # the processes import what this one has imported

# `digest()` trains and predicts on all threads, `digest_of_fit()` through an estimator too (import it first;
# scikit-learn takes a second), `in_child(work)` is what `work` returns in a forked child, and how many threads the
# child had.
COMMON = """
import hashlib, json, os, sys, threading, time, warnings
import numpy as np
from fastmlp import Network, core
warnings.simplefilter("ignore")
X, y = np.random.RandomState(0).randn(4000, 50).astype("float32"), np.arange(4000) % 3
network = Network((50, 256, 128, 3), random_state=0)

def train_on_all_threads():
    # Half a second of epochs: long enough for the trial of all threads to come round, whatever it then finds.
    trainer = core.Trainer(network.plan, "log_loss", "adam", 200, core.max_threads())
    trainer.load(network.parameters, None, None)
    for epoch in range(5):
        trainer.epoch(X, y, None, None, np.full(20, 1e-3), 20 * epoch)
    trained = network.parameters.copy()
    trainer.store(trained)
    return trained

def digest():
    trained = train_on_all_threads()
    predicted = network.forward(X, n_threads=core.max_threads())      # packed
    few = network.forward(X[:64], n_threads=core.max_threads())       # shared out by columns
    return hashlib.sha256(b"".join(part.tobytes() for part in (trained, predicted, few))).hexdigest()

def digest_of_fit():
    fitted = MLPClassifier((256, 128), max_iter=2, random_state=0, n_jobs=-1).fit(X, y)
    parts = fitted.network_.parameters.tobytes(), fitted.predict_proba(X).tobytes()
    return digest() + hashlib.sha256(b"".join(parts)).hexdigest()

def in_child(work):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, json.dumps([work(), core.max_threads()]).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child failed"
    return json.loads(answer)
"""


def run(code: str, first: str = "", **environment: str) -> str:
    """What the code prints in a process with two threads; it fails when its time is over. ``first``: what precedes
    COMMON."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", first + COMMON + code],
        env={**os.environ, "PYTHONPATH": str(PACKAGES), "OMP_NUM_THREADS": "2", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the child that hangs too
        raise
    assert process.returncode == 0, printed
    return printed


FORKS = """
before = digest()
for _ in range(3):
    assert in_child(digest) == [before, core.max_threads()]
    assert digest() == before
print("same", core.max_threads())
"""


@needs_threads
def test_child_trains_the_same_bits_on_as_many_threads():
    """Again and again; the parent too goes on with all its threads."""
    assert run(FORKS) == "same 2\n"


@pytest.mark.slow
def test_grandchild_trains_the_same_bits():
    """A child's child, each having trained itself."""
    run("""
before = digest()
assert in_child(lambda: [digest(), in_child(digest)])[0] == [before, [before, core.max_threads()]]
""")


@pytest.mark.slow
def test_child_that_trains_first():
    """The parent has started no threads of its own yet."""
    run("first = in_child(digest)\nassert first == [digest(), core.max_threads()]")


@pytest.mark.slow
def test_multiprocessing_by_fork():
    """A pool, twice, after the parent has trained."""
    run("""
import multiprocessing
from fastmlp import MLPClassifier
before = digest_of_fit()
for _ in range(2):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(digest_of_fit, [()] * 4) == [before] * 4
""")


SKLEARN = """
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingClassifier
HistGradientBoostingClassifier(max_iter=3).fit(X, y)
KMeans(3, n_init=1).fit(X)
"""
TORCH = """
import torch
torch.set_num_threads(2)
product = torch.ones(512, 512) @ torch.ones(512, 512)
"""


@needs_threads
@pytest.mark.parametrize("order", rest_slow(["before", "after"], "before"))
@pytest.mark.parametrize("other", ["sklearn", "torch"])
def test_child_beside_other_users_of_openmp(other, order):
    """Which bring their own copies of the runtime; theirs have run on several threads. torch shows its symbols to
    libraries that are loaded later, so the order of the imports counts: ours in `COMMON` come first unless the other
    one stands before."""
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    first = f"import {other}\n" if order == "before" else ""
    assert run({"sklearn": SKLEARN, "torch": TORCH}[other] + FORKS, first) == "same 2\n"


DURING = """
from fastmlp import MLPClassifier
before = digest_of_fit()
stop = threading.Event()

def train():
    while not stop.is_set():
        MLPClassifier((256, 128), max_iter=5, random_state=0, n_jobs=-1).fit(X, y)

def compute():
    while not stop.is_set():
        core.peak_gflops(1.0, "float32", 2)

thread = threading.Thread(target={work}, daemon=True)
thread.start()
counts = []
for _ in range(4):
    time.sleep(0.03)
    same, n_threads = in_child(digest_of_fit)
    assert same == before
    counts.append(n_threads)
stop.set()
thread.join()
assert digest_of_fit() == before
assert in_child(digest_of_fit) == [before, core.max_threads()]    # nothing runs now
print(sorted(set(counts)))
"""


@pytest.mark.slow
def test_fork_while_another_thread_trains():
    """The child has one thread if a region runs just then, which comes and goes here, else all; the fit goes on."""
    assert run(DURING.replace("{work}", "train")) in ("[1]\n", "[1, 2]\n", "[2]\n")


@pytest.mark.slow
@needs_threads
def test_fork_while_another_thread_is_in_a_region():
    """Nearly all the time: a child gets one thread."""
    assert run(DURING.replace("{work}", "compute")) in ("[1]\n", "[1, 2]\n")


SHUFFLES = """
from fastmlp import MLPClassifier
many = np.zeros((200_000, 2), dtype="float32")
ended = threading.Event()

def fit_on():
    while not ended.is_set():
        MLPClassifier((1,), batch_size=20_000, max_iter=5, random_state={seed}).fit(many, np.arange(200_000) % 2)

thread = threading.Thread(target=fit_on)
thread.start()
for _ in range(10):
    time.sleep(0.013)
    in_child(lambda: [float(np.random.rand()), MLPClassifier((3,), max_iter=2).fit(X[:100], y[:100]).n_iter_])
ended.set()
thread.join()
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["None", "np.random.mtrand._rand", "0"])
def test_child_can_draw_while_another_thread_shuffles(seed):
    """From NumPy's own generator: a fork in the middle of a shuffle must not leave its lock taken in the child, for
    ever."""
    assert run(SHUFFLES.replace("{seed}", seed)) == "done\n"


REFUSES = "int omp_pause_resource_all(int kind) { return -1; }"


@pytest.mark.slow
@needs_threads
def test_runtime_that_keeps_its_threads_leaves_one_to_the_child(tmp_path):
    """A call that refuses: on one thread the child has the same bits, and with more it would hang."""
    compiler = shutil.which(os.environ.get("CC", (sysconfig.get_config_var("CC") or "cc").split()[0]))
    if compiler is None or Path(compiler).name == "false" or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and LD_PRELOAD")
    (tmp_path / "refuses.c").write_text(REFUSES)
    library = tmp_path / "refuses.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(tmp_path / "refuses.c")], check=True)
    run(
        """
before = digest()
assert in_child(digest) == [before, 1]
assert in_child(lambda: in_child(digest)) == [[before, 1], 1]
assert digest() == before and core.max_threads() == 2
""",
        LD_PRELOAD=f"{os.environ.get('LD_PRELOAD', '')} {library}",
    )


@pytest.mark.slow
def test_subprocesses_do_not_mind():
    """A program that is started by fork and exec, by way of a hook in the child."""
    run("""
import subprocess
before = digest()
subprocess.run([sys.executable, "-c", "0"], preexec_fn=lambda: None, check=True)
assert digest() == before
""")


# The child and the parent both finish the fit in which the fork happens, and fit once more.
WITHIN = """
from fastmlp import MLPClassifier
import signal
children = []

def fork_once(*_):
    if not children:
        children.append(os.fork())
    return 1.0

class Forks:
    max_propagation_depth = 0
    def setup(self, estimator, context): pass
    def on_fit_begin(self, estimator): pass
    def on_fit_task_begin(self, estimator, context, **rest): pass
    def on_fit_task_end(self, estimator, context, **rest): fork_once()
    def on_fit_end(self, estimator, context): pass
    def teardown(self, estimator, context): pass

settings = {"hidden_layer_sizes": (256, 128), "max_iter": 4, "random_state": 0, "n_jobs": 2, "learning_rate": {rate}}
alone = MLPClassifier(**settings | {"learning_rate": lambda step, n_steps: 1.0}).fit(X, y).network_.parameters
model = MLPClassifier(**settings)
{before}
model.fit(X, y)
fork_once()
status = 0
for fitted in (model, model.fit(X, y)):
    if not np.array_equal(fitted.network_.parameters, alone):
        status = 3
if children[0] == 0:
    os._exit(status)
print(len(children), status, os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
"""
FORKS_WITHIN = {
    "learning rate": ("fork_once", ""),
    "signal": (
        "lambda step, n_steps: 1.0",
        "signal.signal(signal.SIGALRM, fork_once)\nsignal.setitimer(signal.ITIMER_REAL, 0.03)",
    ),
    "callback": ("lambda step, n_steps: 1.0", "model.set_callbacks(Forks())"),
}


@pytest.mark.parametrize("way", rest_slow(FORKS_WITHIN, "callback"))
def test_fork_within_a_fit(way):
    """By the user's own function: the child has the thread that fits, and ends the fit as its parent does."""
    if way == "callback":
        needs_sklearn("1.9", "callbacks")
    rate, before = FORKS_WITHIN[way]
    assert run(WITHIN.replace("{rate}", rate).replace("{before}", before)) == "1 0 0\n"
