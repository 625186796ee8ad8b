"""A long run at random under a memory limit: `make soak MINUTES=30`. Fits, predictions, errors, pickles, saved files,
forks and Python threads follow each other as the seed says; what they return is compared as they go. Resident memory
must stay flat, and no file descriptor, thread or child may be left behind.

Reads /proc, so it runs on Linux only. Not collected by pytest: tests/robustness/test_soak.py holds what it judges by.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import hashlib
import io
import os
import pickle
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import clone

import fastmlp
from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor, Network, core

MIB = 2**20
# Beyond what the process has mapped when it starts to work. A fit here needs less than 10 MiB.
ROOM = 1024 * MIB
# What the resident memory may gain between the first and the last third. Measured over 30 minutes without a leak: the
# thirds' medians lie within 1 MiB of each other; a leak of 1 KiB per action makes 8 MiB in two minutes.
GROWTH = 4 * MIB
# A child that has not answered by then hangs: its work takes milliseconds.
CHILD_SECONDS = 60
ESTIMATORS_KEPT = 6
M_ARENA_MAX = -8  # of malloc.h


class Sample(NamedTuple):
    """The process at one moment: seconds since the start, bytes resident, open descriptors, threads."""

    seconds: float
    resident: int
    descriptors: int
    threads: int


def sample(started: float) -> Sample:
    """Measured after what Python and malloc can give back was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        time.monotonic() - started,
        pages * resource.getpagesize(),
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
    )


def faults(samples: list[Sample]) -> list[str]:
    """What a run's samples, its warming up left out, show to be wrong."""
    third = len(samples) // 3
    if third == 0:
        return [f"{len(samples)} samples are too few to judge by"]
    found = []
    early, late = (median(s.resident for s in part) for part in (samples[:third], samples[-third:]))
    if late - early > GROWTH:
        found.append(f"resident memory grew from {early / MIB:.1f} to {late / MIB:.1f} MiB")
    for what in ("descriptors", "threads"):
        at_first, at_last = (max(getattr(s, what) for s in part) for part in (samples[:third], samples[-third:]))
        if at_last > at_first:
            found.append(f"open {what} grew from {at_first} to {at_last}")
    return found


# ---- What is done ----------------------------------------------------------------------------------------------------


class Soak:
    """Fitted estimators, and actions on them drawn at random. An action raises AssertionError where a result is
    wrong."""

    def __init__(self, seed: int) -> None:
        self.draws = np.random.RandomState(seed)
        self.fitted: list[Any] = []
        self.folder = tempfile.TemporaryDirectory()
        self.fit()

    def choose(self, *values: Any) -> Any:
        return values[self.draws.randint(len(values))]

    def estimator(self) -> Any:
        return self.fitted[self.draws.randint(len(self.fitted))]

    def rows(self, n_features: int, n: int | None = None) -> Any:
        """X (n, n_features): float32 or float64, C or Fortran order, or CSR."""
        n = self.draws.randint(1, 400) if n is None else n
        X = self.draws.standard_normal((n, n_features)).astype(self.choose("float32", "float64"))
        kind = self.choose("C", "F", "CSR")
        return csr_array(np.where(X > 1, X, 0)) if kind == "CSR" else np.asarray(X, order=kind)

    def task(self, estimator: Any, n_features: int) -> tuple[Any, np.ndarray]:
        """Rows and targets that the estimator can be fitted on."""
        n = self.draws.randint(30, 400)
        X, n_classes = self.rows(n_features, n), self.choose(2, 3, 12)
        if isinstance(estimator, MLPClassifier):
            return X, np.arange(n) % n_classes
        return X, self.draws.poisson(2.0, size=(n, self.choose(1, 3))).astype(np.float64)

    def new(self) -> Any:
        """An unfitted estimator of random settings."""
        kind = self.choose(MLPClassifier, MLPRegressor)
        solver = self.choose("adam", "sgd", "lbfgs", "adamw", "nadam", "rmsprop")
        settings: dict[str, Any] = {
            "hidden_layer_sizes": tuple(self.draws.randint(1, 70, size=self.draws.randint(0, 4))),
            "activation": self.choose(*core.ACTIVATIONS),
            "solver": solver,
            "batch_size": self.choose("auto", 3, 17, 300) if solver != "lbfgs" else "auto",
            "max_iter": self.draws.randint(1, 6),
            "early_stopping": bool(self.draws.randint(2)) and solver != "lbfgs",
            "n_jobs": self.choose(None, 1, 2),
            "random_state": self.draws.randint(1000),
            "alpha": self.choose(0.0, 1e-4, 0.1),
            "learning_rate_init": 1e-4,
        }
        if solver != "lbfgs":
            settings |= {"dropout": self.choose(0.0, 0.2), "batch_norm": self.choose(False, True)}
            settings |= {"max_grad_norm": self.choose(None, 1.0), "warm_start": self.choose(False, True)}
        if kind is MLPRegressor:
            settings["loss"] = self.choose("squared_error", "poisson", "huber")
        return kind(**settings)

    def fit(self) -> None:
        estimator = self.new()
        estimator.fit(*self.task(estimator, self.draws.randint(1, 50)))
        self.fitted.append(estimator)
        if len(self.fitted) > ESTIMATORS_KEPT:
            del self.fitted[self.draws.randint(len(self.fitted))]

    def fit_again(self) -> None:
        """The same settings and rows: the same bits."""
        estimator = clone(self.estimator())
        estimator.set_params(warm_start=False)
        X, y = self.task(estimator, self.draws.randint(1, 50))
        first, second = (clone(estimator).set_params(n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2))
        assert first.predict(X).tobytes() == second.predict(X).tobytes()

    def go_on(self) -> None:
        """partial_fit, on the targets that the estimator knows."""
        estimator = self.estimator()
        if estimator.solver == "lbfgs" or estimator.early_stopping:
            return
        X = self.rows(estimator.n_features_in_, 60)
        if isinstance(estimator, MLPClassifier):
            estimator.partial_fit(X, estimator.classes_[np.arange(60) % len(estimator.classes_)])
        else:
            estimator.partial_fit(X, self.draws.poisson(2.0, size=(60, estimator.n_outputs_)).astype(np.float64))

    def predict(self) -> None:
        """One row at a time is all rows at once."""
        estimator = self.estimator()
        X = self.rows(estimator.n_features_in_, 20)
        assert digest(estimator, X[3:4]) == digest(estimator, X, slice(3, 4))

    def refuse(self) -> None:
        """What is refused leaves the estimator as it was."""
        estimator = self.estimator()
        X = self.draws.standard_normal((25, estimator.n_features_in_))
        before, bad = digest(estimator, X), X.copy()
        bad[7, 0] = np.nan
        for call in (
            lambda: estimator.fit(bad, np.zeros(25)),
            lambda: estimator.predict(X[:, :0]),
            lambda: estimator.fit(X, np.zeros(7)),
            lambda: Network((3, -1, 2)),
            lambda: core.Plan((3, 2), [], "no such output", "float32"),
        ):
            try:
                call()
            except ValueError:
                continue
            raise AssertionError("bad input was taken")
        assert digest(estimator, X) == before

    def copy(self) -> None:
        """Pickle and deepcopy: the same predictions."""
        estimator = self.estimator()
        X = self.rows(estimator.n_features_in_)
        for other in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
            assert digest(other, X) == digest(estimator, X)

    def save(self) -> None:
        """A pickle in a file, and fastmlp's own format: the same predictions."""
        estimator = self.estimator()
        X = self.rows(estimator.n_features_in_)
        path = Path(self.folder.name) / "model"
        path.write_bytes(pickle.dumps(estimator))
        with path.open("rb") as file:
            assert digest(pickle.load(file), X) == digest(estimator, X)
        if hasattr(estimator, "save") and hasattr(fastmlp, "load"):
            estimator.save(path)
            assert digest(fastmlp.load(path), X) == digest(estimator, X)

    def network(self) -> None:
        sizes = tuple(self.draws.randint(1, 60, size=self.draws.randint(2, 5)))
        net = Network(sizes, self.choose(*core.ACTIVATIONS), random_state=0, dtype=self.choose("float32", "float64"))
        X = self.draws.standard_normal((self.draws.randint(1, 300), sizes[0])).astype(net.dtype)
        assert net.forward(X, n_threads=1).tobytes() == net.forward(X, n_threads=2).tobytes()

    def fork(self) -> None:
        """A child that predicts and trains, on two threads like this process before it, finds what this process
        finds."""
        estimator, net = self.estimator(), Network((20, 40, 3), random_state=0)
        X, many = self.rows(estimator.n_features_in_), self.draws.standard_normal((1500, 20)).astype(np.float32)
        y = np.arange(X.shape[0], dtype=np.float64)
        trained = MLPRegressor(hidden_layer_sizes=(9,), max_iter=2, n_jobs=2, random_state=0)

        def work() -> str:
            forward = hashlib.sha256(net.forward(many, n_threads=2).tobytes()).hexdigest()
            return " ".join([forward, digest(estimator, X), digest(trained.fit(X, y), X)])

        want = work()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, work().encode())
            finally:
                os._exit(0)
        os.close(writer)
        ready, _, _ = select.select([reader], [], [], CHILD_SECONDS)
        if not ready:
            os.kill(child, signal.SIGKILL)
        answer = os.read(reader, 4096).decode() if ready else "none: the child hangs"
        os.close(reader)
        os.waitpid(child, 0)
        assert answer == want, answer

    def threads(self) -> None:
        """One estimator predicting from several Python threads, another one trained beside it."""
        estimator, beside, wrong = self.estimator(), self.new(), []
        X, want = self.rows(estimator.n_features_in_), None
        want = digest(estimator, X)

        def look() -> None:
            for _ in range(3):
                if digest(estimator, X) != want:
                    wrong.append(threading.current_thread().name)

        task = self.task(beside, 20)
        workers = [threading.Thread(target=look) for _ in range(3)] + [threading.Thread(target=beside.fit, args=task)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not wrong
        assert hasattr(beside, "network_")

    def ensemble(self) -> None:
        """Members trained in two threads at once are those trained in turn."""
        member = clone(self.estimator()).set_params(warm_start=False)
        X, y = self.task(member, 15)
        kind = MLPEnsembleClassifier if isinstance(member, MLPClassifier) else MLPEnsembleRegressor
        found = [kind(member, 3, n_jobs=n_jobs, random_state=0).fit(X, y).predict(X).tobytes() for n_jobs in (1, 2)]
        assert found[0] == found[1]

    def actions(self) -> list[Any]:
        """Each as often as it stands here."""
        return [
            *[self.fit] * 4, *[self.predict] * 4, *[self.copy] * 2, self.fit_again, self.go_on, self.refuse, self.save,
            self.network,
            self.fork, self.threads, self.ensemble,
        ]  # fmt: skip


def digest(estimator: Any, X: Any, rows: slice = slice(None)) -> str:
    """Of the outputs' bits, for these rows of X."""
    outputs = estimator.predict_proba(X) if isinstance(estimator, MLPClassifier) else estimator.predict(X)
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(outputs[rows]))
    return hashlib.sha256(buffer.getvalue()).hexdigest()


# ---- The run ---------------------------------------------------------------------------------------------------------


def run(minutes: float, seed: int) -> list[str]:
    """What was found wrong."""
    # Each thread's malloc would take an arena of its own, up to eight per core: measured, 10 MiB that grow for half an
    # hour.
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    soak, done, samples = Soak(seed), Counter(), []
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, mapped + ROOM))
    started = time.monotonic()
    end, warm = started + 60 * minutes, started + 60 * minutes / 6
    every = 60 * minutes / 120
    while time.monotonic() < end:
        until = time.monotonic() + every
        while time.monotonic() < until:
            action = soak.choose(*soak.actions())
            action()
            done[action.__name__] += 1
        if time.monotonic() >= warm:
            samples.append(sample(started))
            if len(samples) % 10 == 1:
                s = samples[-1]
                print(
                    f"{s.seconds:7.0f} s  {done.total():8d} actions  {s.resident / MIB:7.1f} MiB resident  "
                    f"{s.descriptors:3d} descriptors  {s.threads:3d} threads",
                    flush=True,
                )
    print("  ".join(f"{name} {count}" for name, count in sorted(done.items())))
    third = len(samples) // 3
    early, late = (median(s.resident for s in part) / MIB for part in (samples[:third], samples[-third:]))
    print(f"resident memory, median of the first and of the last third: {early:.1f} and {late:.1f} MiB")
    missing = {action.__name__ for action in soak.actions()} - set(done)
    return faults(samples) + [f"{name} never had its turn" for name in sorted(missing)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.error("reads /proc, which only Linux has")
    warnings.simplefilter("ignore")
    found = run(arguments.minutes, arguments.seed)
    for fault in found:
        print(f"FAULT: {fault}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
