"""How many threads a fit or a prediction uses: the work, n_jobs, and every limit that the system, a library or a pool
of workers sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ENVIRONMENT, HANGS_AFTER, classification, output_of, rest_slow

from fastmlp import MLPClassifier, Network, core
from fastmlp.core.memory import _memory_limits
from fastmlp.training import threads

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")

needs_threads = pytest.mark.skipif(not core.info()["openmp"], reason="built without OpenMP")


def limits_of(code: str, **environment: str) -> str:
    """What the code prints in a process with that environment."""
    head = (
        "from fastmlp import core\nfrom fastmlp.training.threads import available_cpus, choose_threads\nmuch = 10**15\n"
    )
    return output_of(head + code, **environment)


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
    trainer, forward = core.Trainer, Network.forward

    class Watched(trainer):
        def __init__(self, plan, loss, rule, batch_size, n_threads, **options):
            seen.append(n_threads)

    def watch(self, X, out=None, n_threads=1):
        seen.append(n_threads)
        return forward(self, X, out, n_threads)

    monkeypatch.setattr(core, "Trainer", Watched)
    monkeypatch.setattr(Network, "forward", watch)
    monkeypatch.setattr(threads, "available_cpus", lambda: 2)
    for limit in (1, 2):
        with threadpoolctl.threadpool_limits(limit):
            estimator = MLPClassifier((300, 300), max_iter=1, random_state=0).fit(X, y)
            estimator.predict(X)
        assert seen == [limit] * 3  # training, the diagnosis of a run of one epoch, prediction
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


INSIDE = (
    "def threads(_):\n    import os\n    from fastmlp.training.threads import choose_threads\n    return "
    "choose_threads({n_jobs}, 10**15), os.getpid()\n"
)


@needs_threads
@pytest.mark.parametrize("n_jobs", rest_slow([None, 64], None))
def test_loky_worker_keeps_to_its_share(n_jobs):
    """Workers on all cores, two of them on two: one thread in each, so that none waits for a core; and joblib's inner
    limit."""
    code = (
        INSIDE.replace("{n_jobs}", str(n_jobs))
        + """
import joblib, os
cores = joblib.cpu_count()
calls = (joblib.delayed(threads)(i) for i in range(4 * cores))
found = dict.fromkeys(joblib.Parallel(n_jobs=cores, backend="loky")(calls))
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
    """The others of the pool run beside it; an integer n_jobs is obeyed. joblib's backend multiprocessing is such a
    pool."""
    (tmp_path / "pool.py").write_text(POOL)
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, tmp_path / "pool.py"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"[[1, 1, 3], [1, 1, 3]] {min(3, threads.available_cpus())}"


def test_threads_follow_the_work(monkeypatch):
    """One for little, as many as pay up to every limit for much; an integer is a limit, not a wish."""
    limits = {"openmp": 64, "affinity": 16, "quota": None}
    monkeypatch.setattr(core, "max_threads", lambda: limits["openmp"], raising=True)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: range(limits["affinity"]), raising=False)
    monkeypatch.setattr(threads, "_cgroup_quota", lambda pid: limits["quota"])
    per_thread = threads.FLOPS_PER_THREAD
    for n_jobs in (None, -1):
        assert threads.choose_threads(n_jobs, 0) == 1
        assert threads.choose_threads(n_jobs, 3 * per_thread) == 3
        assert threads.choose_threads(n_jobs, 1000 * per_thread) == 16
    limits["quota"] = 2.5
    assert threads.choose_threads(None, 1000 * per_thread) == 3
    limits["openmp"] = 2
    assert threads.choose_threads(None, 1000 * per_thread) == 2
    assert threads.choose_threads(7, 0) == 2
    assert threads.choose_threads(1, 1000 * per_thread) == 1


def test_flops_are_those_of_the_table():
    """seed of performance.md: 784-256-128-10, batch 128, 304 microseconds at 425 GFLOP/s."""
    sizes = (784, 256, 128, 10)
    assert threads.step_flops(sizes, 128) == 2 * 128 * (2 * 784 * 256 + 3 * 256 * 128 + 3 * 128 * 10)
    assert threads.forward_flops(sizes, 1) == 2 * (784 * 256 + 256 * 128 + 128 * 10)


def test_cgroup_quota_reads_files(tmp_path):
    """Both versions' files, with and without a limit."""
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert list(threads._quota_v2(tmp_path)) == [1.5]
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert list(threads._quota_v2(tmp_path)) == []
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert list(threads._quota_v1(tmp_path)) == []
    (tmp_path / "cpu.cfs_quota_us").write_text("50000\n")
    assert list(threads._quota_v1(tmp_path)) == [0.5]


# --- BLAS -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_blas_has_one_thread_under_lbfgs():
    """Also with several fits at once, whose ends must not undo each other's limit, in any order; OpenMP keeps its
    threads."""
    code = """
import threading
import numpy as np
import scipy.optimize
from threadpoolctl import threadpool_info
from fastmlp import MLPClassifier, core
from fastmlp.training import threads

minimize, gate, seen = scipy.optimize.minimize, threading.Barrier(2), []

def blas():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

def watched(*arguments, **options):
    gate.wait()
    result = minimize(*arguments, **options)
    seen.append((blas(), core.max_threads()))
    return result

scipy.optimize.minimize = watched
X, y = np.random.RandomState(0).rand(50, 4), np.arange(50) % 2
before = blas()
fits = [threading.Thread(target=MLPClassifier((3,), solver="lbfgs", max_iter=n).fit, args=(X, y)) for n in (1, 60)]
for fit in fits:
    fit.start()
for fit in fits:
    fit.join()

first, last, limited, done = threading.Event(), threading.Event(), threading.Event(), threading.Event()

def outlive():  # the thread that has set the limit is alive when another undoes it
    with threads.one_blas_thread():
        limited.set()
        first.wait()
    last.set()
    done.wait()

owner = threading.Thread(target=outlive)
owner.start()
limited.wait()
with threads.one_blas_thread():
    first.set()
    last.wait()
print(before, seen, blas())
done.set()
"""
    printed = output_of(code, OPENBLAS_NUM_THREADS="2", MKL_NUM_THREADS="2", OMP_NUM_THREADS="2")
    openmp = 2 if core.info()["openmp"] else 1
    known = f"{{2}} [({{1}}, {openmp}), ({{1}}, {openmp})] {{2}}"
    assert printed in (
        known,
        f"set() [(set(), {openmp}), (set(), {openmp})] set()",
    )  # threadpoolctl does not know all BLAS


FORKED = """
import os, signal, threading, time
from threadpoolctl import threadpool_info
from fastmlp.training import threads

libraries, forking, entered, leave = threads._blas_libraries(), threading.Event(), threading.Event(), threading.Event()

class Slow:
    def limit(self, limits):
        asking.set()
        forking.wait()
        time.sleep(0.2)
        return libraries.limit(limits=limits)

def blas():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

def fit():
    with threads.one_blas_thread():
        entered.set()
        leave.wait()

def child():
    number = os.fork()
    if number:
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    signal.alarm(20)
    restored = blas() == before
    with threads.one_blas_thread():
        limited = blas() <= {1}
    os._exit(0 if restored and limited and blas() == before else 1)

before, asking = blas(), threading.Event()
threads._blas_libraries = Slow
os.register_at_fork(before=forking.set)
other = threading.Thread(target=fit)
other.start()
asking.wait()
threads._blas_libraries = lambda: libraries
found = [child()]
entered.wait()
found.append(child())
with threads.one_blas_thread():
    if (number := os.fork()) == 0:
        os._exit(0 if blas() <= {1} else 1)
    found.append(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))
leave.set()
other.join()
print(found, blas() == before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_child_of_a_fork_under_lbfgs_has_its_blas_threads():
    """Another thread enters a fit of L-BFGS, or is in one: the child gets the threads back. In a fit itself, it keeps
    the limit."""
    printed = output_of(FORKED, OPENBLAS_NUM_THREADS="2", MKL_NUM_THREADS="2", OMP_NUM_THREADS="2")
    assert printed == "[0, 0, 0] True"


def test_memory_of_control_groups(tmp_path):
    """Of both versions, and of the groups above; what cannot be read, or has no limit, says nothing."""
    membership, mount = tmp_path / "cgroup", tmp_path / "mount"
    membership.write_text("12:cpu,memory:/m/n\n4:pids:/x\n0::/a/b\n")
    for folder, name, text in (
        ("memory/m/n", "memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory/m", "memory.limit_in_bytes", "3000\n"),
        ("a/b", "memory.max", "max\n"), ("a", "memory.max", "2000\n"), ("x", "memory.max", "1000\n"),
    ):  # fmt: skip
        (mount / folder).mkdir(parents=True, exist_ok=True)
        (mount / folder / name).write_text(text)
    assert sorted(_memory_limits(membership, mount)) == [2000, 3000, 9223372036854771712]
    membership.write_text("4:pids:/" + "x/" * 3000 + "\n0::/" + "y" * 5000 + "\n")  # a name that is too long to look up
    assert list(_memory_limits(membership, mount)) == []
    assert list(_memory_limits(tmp_path / "none", mount)) == []
    assert threads._read_quota(membership, mount) is None
