"""Same seed, same bits: whatever the number of threads and the FMA instruction set (issue 2, point 6)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fastmlp import _core

# Sets without fused multiply-add are outside the promise.
FMA_ISAS = [name for name in _core.info()["available"] if name != "base"]

# Prints the digest of coefs_ and intercepts_ after 5 epochs, by shape, type and n_jobs: shapes that are multiples
# of nothing, batches shorter, longer and much longer than any tile, more threads than the machine has cores.
PROGRAM = """
import hashlib, json, sys, warnings
import numpy as np
from fastmlp import MLPClassifier, MLPRegressor, _core
warnings.simplefilter("ignore")
digests = {}
for n, sizes, batch, activation, solver in [
    (611, (13, (17, 9), 3), 37, "relu", "adam"),
    (203, (31, (67, 33, 5), 2), 7, "tanh", "sgd"),
    (1009, (129, (257, 131), 11), 333, "logistic", "rmsprop"),
    (2503, (5, (3,), 1), 2403, "relu", "adam_hat"),
    (307, (1, (1, 1), 7), 1, "identity", "adagrad"),
]:
    rng = np.random.RandomState(0)
    n_features, hidden, n_out = sizes
    X = rng.standard_normal((n, n_features))
    assert np.ptp(X) > 0
    settings = dict(hidden_layer_sizes=hidden, batch_size=batch, activation=activation, solver=solver, max_iter=5, random_state=0)
    for dtype in ("float32", "float64"):
        for n_jobs in (1, 2, 3):
            if n_out > 2:
                estimator = MLPClassifier(**settings, dtype=dtype, n_jobs=n_jobs).fit(X, np.arange(n) % n_out)
            else:
                estimator = MLPRegressor(**settings, dtype=dtype, n_jobs=n_jobs).fit(X, np.sin(X[:, :1] + X[:, -1:] * np.arange(n_out)))
            parameters = np.concatenate([w.ravel() for w in estimator.coefs_ + estimator.intercepts_])
            assert parameters.dtype == dtype and np.isfinite(parameters).all() and np.ptp(parameters) > 0
            digest = hashlib.sha256(parameters.tobytes() + estimator.predict(X).tobytes() + repr(estimator.loss_curve_).encode())
            digests[f"{n} {sizes} {dtype} n_jobs={n_jobs}"] = digest.hexdigest()
print(json.dumps({"isa": _core.info()["isa"], "threads": _core.max_threads(), "digests": digests}))
"""


def run(isa: str) -> dict[str, str]:
    """The digests as a process of its own finds them on one instruction set, with room for three threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "3", "FASTMLP_ISA": isa}
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["isa"] == isa
    assert report["threads"] in (1, 3)  # 1: built without OpenMP
    return report["digests"]


@pytest.fixture(scope="module")
def digests() -> dict[str, dict[str, str]]:
    """Digests by instruction set."""
    return {isa: run(isa) for isa in FMA_ISAS or _core.info()["available"]}


def test_bits_do_not_depend_on_threads(digests):
    """n_jobs 1, 2 and 3."""
    for isa, found in digests.items():
        for case, digest in found.items():
            assert digest == found[case[: -len("1")] + "1"], (isa, case)
        distinct = len(set(found.values()))
        assert distinct == len(found) / 3, "cases that differ in more than n_jobs should differ in bits"


@pytest.mark.skipif(len(FMA_ISAS) < 2, reason=f"this CPU and build have one FMA instruction set or none: {FMA_ISAS}")
def test_bits_do_not_depend_on_instruction_set(digests):
    """avx2 and avx512, or whatever FMA sets there are."""
    first, *others = FMA_ISAS
    for other in others:
        assert digests[other] == digests[first]


def test_bits_do_not_depend_on_the_run(digests):
    """A second process finds the same."""
    isa = next(iter(digests))
    assert run(isa) == digests[isa]
