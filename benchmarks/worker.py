"""One contender in a process of its own: `python -m benchmarks.worker <contender>`, started by peers.py and fits.py.

A process each, so that no library meets another's thread pools, OpenMP runtime or memory, and so that each may live in
its own environment. Between measurements it sleeps in a read. Requests and replies are lines of JSON on stdin and
stdout; whatever the library prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

# Before NumPy or anything else counts the CPUs.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(os.environ["OMP_NUM_THREADS"])])

import numpy as np

from benchmarks.contenders import Contender, installed, load
from benchmarks.workloads import BY_NAME, Fit, Workload

WARM_UP_EPOCHS = 5


class Worker:
    """A contender and what it was last asked to prepare."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.run: Callable[[], Any] = lambda: None
        self.units = 1  # that the time of a call is divided by: steps in training
        self.calls = 1  # in a measurement

    def hello(self) -> dict[str, Any]:
        """Name and versions, or why there is nothing to measure."""
        reason = self.contender.available()
        versions = {name: found for name in self.contender.PACKAGES if (found := installed(name))}
        return {"name": self.contender.NAME, "versions": versions, **({"skip": reason} if reason else {})}

    def prepare(self, task: str, workload: str, rows: int, seconds: float) -> dict[str, Any]:
        """Build, warm up, and choose as many calls per measurement as fill `seconds`."""
        self.run, w = lambda: None, BY_NAME[workload]  # frees the last one's data first
        run = self.contender.train(w) if task == "train" else self.contender.predict(w, rows)
        if run is None:
            return {"skip": f"no {task}"}
        self.run, self.units = run, w.n_steps * self.contender.EPOCHS if task == "train" else 1
        reply = self.warm_up_training(w) if task == "train" else self.warm_up_prediction(w, rows)
        started = time.perf_counter()
        run()
        self.calls = max(1, round(seconds / (time.perf_counter() - started)))
        return reply

    def warm_up_training(self, workload: Workload) -> dict[str, Any]:
        """WARM_UP_EPOCHS epochs, after which it must have learned more than the number of classes."""
        for _ in range(WARM_UP_EPOCHS // self.contender.EPOCHS):
            loss = self.run()
        if not loss < np.log(workload.n_classes):
            raise AssertionError(f"loss {loss} after {WARM_UP_EPOCHS} epochs: nothing was learned")
        return {"loss": loss}

    def warm_up_prediction(self, workload: Workload, rows: int) -> dict[str, Any]:
        """One prediction, which must be probabilities."""
        p = self.run()
        if p.shape != (rows, workload.n_classes) or not np.allclose(p.sum(axis=1), 1, atol=1e-4):
            raise AssertionError(f"no probabilities: shape {p.shape}, sums {p.sum(axis=1)[:3]}")
        return {}

    def measure(self) -> dict[str, Any]:
        """Seconds per step, or per prediction."""
        run, calls = self.run, range(self.calls)
        started = time.perf_counter()
        for _ in calls:
            run()
        return {"seconds": (time.perf_counter() - started) / (self.calls * self.units)}

    def prepare_fit(self, fit: dict[str, Any], data: str) -> dict[str, Any]:
        """Import what is needed, and read the rows to train on and to test on."""
        self.fit_settings = Fit(**{**fit, "layer_sizes": tuple(fit["layer_sizes"])})
        with np.load(data) as arrays:
            self.arrays = dict(arrays)
        self.train = self.contender.fitter(self.fit_settings)
        return {}

    def fit(self) -> dict[str, Any]:
        """Seconds of a whole fit, from arrays in memory to a trained model; and its score on the test rows."""
        X, y, X_test, y_test = (self.arrays[name] for name in ("X", "y", "X_test", "y_test"))
        started = time.perf_counter()
        predict = self.train(X, y)
        seconds = time.perf_counter() - started
        outputs = predict(X_test)
        if self.fit_settings.is_classifier:
            score = np.mean(outputs.argmax(axis=1) == y_test)
        else:
            score = 1 - np.mean((outputs.ravel() - y_test) ** 2) / np.var(y_test)
        return {"seconds": seconds, "score": float(score)}

    def peak(self, dtype: str) -> dict[str, Any]:
        """The FMA peak; only fastmlp has a probe."""
        return {"gflops": self.contender.peak(dtype)}  # type: ignore[attr-defined]


def main(name: str) -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker(load(name))
    print(json.dumps(worker.hello()), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(worker, request.pop("do"))(**request)
        except Exception as error:
            traceback.print_exc()
            reply = {"skip": f"failed: {type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
