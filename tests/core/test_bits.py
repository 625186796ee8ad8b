"""Same seed, same bits: whatever the number of threads and the FMA instruction set (issue 2, point 6)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import rest_slow
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from fastmlp import MLPClassifier, Network, core
from fastmlp.core._testing import Kernels

# Sets without fused multiply-add are outside the promise.
FMA_ISAS = [name for name in core.info()["available"] if name != "base"]

# Prints the digest of all parameters and running averages after 5 epochs, by shape, type and n_jobs: shapes that are
# multiples of nothing, batches shorter, longer and much longer than any tile, more threads than the machine has cores.
# Five, because a run works alone in its first two slices of time, of which an epoch is at least one, and then tries all
# threads. Every activation goes through batch normalisation, residual layers and dropout; every training method has its
# case.
PROGRAM = """
import hashlib, json, sys, warnings
import numpy as np
from fastmlp import MLPClassifier, MLPRegressor, core
warnings.simplefilter("ignore")
digests = {}
cases = [
    (611, (13, (17, 9), 3), 37, "relu", "adam"),
    (203, (31, (67, 33, 5), 2), 7, "tanh", "sgd"),
    (1009, (129, (257, 131), 11), 333, "logistic", "rmsprop"),
    (2503, (5, (3,), 1), 2403, "relu", "adam_hat"),
    (307, (1, (1, 1), 7), 1, "identity", "adagrad"),
    (157, (9, (21,), 5), 20, "tanh", "adamw"),
    (157, (7, (33, 2), 2), 30, "relu", "nadam"),
    (157, (8, (19,), 3), 40, "logistic", "amsgrad"),
    (411, (21, (35, 19), 3), 61, "gelu", "adam"),
    (613, (13, (17, 17, 9), 3), 37, "relu", "adam", dict(dropout=(0.1, 0.2, 0.3, 0.4))),
    (2507, (5, (3, 3), 1), 2403, "relu", "sgd", dict(dropout=(0.2, 0.5, 0.1), input_noise=0.1)),
    (409, (19, (33, 33, 15), 4), 50, "tanh", "sgd", dict(batch_norm=True, residual=True)),
    (331, (31, (16, 1), 3), 33, "relu", "rmsprop", dict(input_noise=0.3, input_mask=0.2)),
    (333, (31, (16, 2), 3), 33, "silu", "rmsprop", dict(mixup=0.3, label_smoothing=0.1, class_weight="balanced")),
    (287, (65, (47, 31), 5), 64, "logistic", "adamw",
     dict(max_grad_norm=0.05, l1_ratio=0.4, alpha=0.1, weight_decay=0.1)),
    (2609, (7, (15, 15), 2), 2301, "mish", "adam",
     dict(loss="huber", dropout=0.2, batch_norm=True, residual=True, input_noise=0.1, mixup=0.2, max_grad_norm=0.5)),
    (2611, (17, (31,), 1), 2301, "relu", "adam", dict(loss="quantile", max_grad_norm=0.01)),
]
for i, activation in enumerate(core.ACTIVATIONS):
    options = dict(batch_norm=True, residual=True, dropout=0.2)
    cases.append((151 + i, (11, (18, 18), 3), 31, activation, "nadam", options))
for n, sizes, batch, activation, solver, *methods in cases[:: int(sys.argv[1])]:
    rng = np.random.RandomState(0)
    n_features, hidden, n_out = sizes
    X = rng.standard_normal((n, n_features))
    assert np.ptp(X) > 0
    settings = dict(hidden_layer_sizes=hidden, batch_size=batch, activation=activation, solver=solver, max_iter=5,
                    random_state=0, **dict(*methods))
    for dtype in ("float32", "float64"):
        for n_jobs in (1, 2, 3):
            if n_out > 2:
                estimator = MLPClassifier(**settings, dtype=dtype, n_jobs=n_jobs).fit(X, np.arange(n) % n_out)
            else:
                y = np.sin(X[:, :1] + X[:, -1:] * np.arange(n_out))
                estimator = MLPRegressor(**settings, dtype=dtype, n_jobs=n_jobs).fit(X, y)
            parameters, averages = estimator.network_.parameters, estimator.network_.statistics
            assert parameters.dtype == dtype and np.isfinite(parameters).all() and np.ptp(parameters) > 0
            digest = hashlib.sha256(parameters.tobytes() + averages.tobytes() + estimator.predict(X).tobytes())
            digest.update(repr(estimator.loss_curve_).encode())
            digests[f"{n} {sizes} {dtype} n_jobs={n_jobs}"] = digest.hexdigest()
print(json.dumps({"isa": core.info()["isa"], "threads": core.max_threads(), "digests": digests}))
"""


def run(isa: str, every: int) -> dict[str, str]:
    """The digests of each case, or each fourth, as a process of its own finds them on one instruction set, with room
    for three threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "3", "FASTMLP_ISA": isa}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, str(every)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["isa"] == isa
    assert report["threads"] in (1, 3)  # 1: built without OpenMP
    return report["digests"]


@pytest.fixture(scope="module", params=rest_slow([1, 4], 4))
def digests(request: pytest.FixtureRequest) -> dict[str, dict[str, str]]:
    """Digests by instruction set."""
    isas = FMA_ISAS or core.info()["available"]
    with ThreadPoolExecutor() as executor:
        return dict(zip(isas, executor.map(lambda isa: run(isa, request.param), isas), strict=True))


def test_bits_do_not_depend_on_threads(digests):
    """n_jobs 1, 2 and 3."""
    for isa, found in digests.items():
        assert found
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


@pytest.mark.slow
def test_bits_do_not_depend_on_the_run():
    """A second process finds the same."""
    isa = (FMA_ISAS or core.info()["available"])[0]
    assert run(isa, 4) == run(isa, 4)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_layer_sizes": (67, 33), "batch_size": 100},
        {"hidden_layer_sizes": (40,), "batch_size": 2500, "solver": "sgd"},
        {"hidden_layer_sizes": (35, 19), "activation": "silu"},
        {"hidden_layer_sizes": (), "batch_size": 64},
        {"hidden_layer_sizes": (9,), "solver": "lbfgs"},
    ],
    ids=str,
)
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_sparse_rows_leave_out_zeros_and_nothing_else(settings, n_jobs):
    """CSR with few stored elements takes kernels of its own, in training and prediction; the numbers are the dense
    ones."""
    draws = np.random.RandomState(0)
    X = np.where(draws.uniform(size=(2600, 75)) < 0.05, draws.standard_normal((2600, 75)), 0)
    assert 0 < np.count_nonzero(X) < 0.1 * X.size
    y = draws.randint(3, size=len(X))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        dense, few = (
            MLPClassifier(random_state=0, max_iter=3, n_jobs=n_jobs, dtype="float32", **settings).fit(data, y)
            for data in (X, csr_array(X))
        )
    for ours, theirs in zip(few.coefs_ + few.intercepts_, dense.coefs_ + dense.intercepts_, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(few.predict_proba(csr_array(X)), dense.predict_proba(X))


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(5, 33, 2), (300, 129, 70, 11), (19, 1100, 3)], ids=str)
def test_prediction_does_not_depend_on_how_many_rows(sizes, n_threads):
    """One row, few rows and many rows take different paths through the kernels."""
    net = Network(sizes, "tanh", random_state=0)
    X = np.random.RandomState(0).standard_normal((1100, sizes[0])).astype(np.float32)
    many = net.forward(X, n_threads=n_threads)
    for n in (1, 2, 4, 5, 127, 128, 129, 300, 1023, 1024):
        np.testing.assert_array_equal(net.forward(X[:n], n_threads=n_threads), many[:n])


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(900, 3), (900, 33, 2), (900, 70, 129, 11)], ids=str)
def test_sparse_prediction_does_not_depend_on_how_many_rows(sizes, dtype, n_threads):
    """Few rows read the weights where they are, many rows read packed ones, and dense rows multiply zeros too."""
    network = Network(sizes, dtype=dtype, random_state=0)
    draws = np.random.RandomState(1)
    X = np.where(draws.uniform(size=(1100, 900)) < 0.02, draws.standard_normal((1100, 900)), 0).astype(dtype)
    every = network.forward(csr_array(X), n_threads=n_threads)
    np.testing.assert_array_equal(every, network.forward(X))
    for n in (1, 2, 7, 300):
        np.testing.assert_array_equal(network.forward(csr_array(X[5 : 5 + n]), n_threads=n_threads), every[5 : 5 + n])


@pytest.mark.parametrize("dtype", rest_slow(["float32", "float64"], "float32"))
def test_large_layers_predict_the_bits_of_single_rows(dtype):
    # Products too large for a cache are taken in parts: packed or not, by rows or by columns.
    network = Network((300, 1100, 1100, 3), dtype=dtype, random_state=0)
    X = np.random.RandomState(0).standard_normal((1100, 300)).astype(dtype)
    single = np.concatenate([network.forward(X[i : i + 1]) for i in range(len(X))])
    for n in (129, 300, 1100):
        for n_threads in (1, 2, 5):
            np.testing.assert_array_equal(network.forward(X[:n], n_threads=n_threads), single[:n])


@pytest.mark.parametrize("isa", core.info()["available"])
@pytest.mark.parametrize(
    ("loss", "options"), [("squared_error", {}), ("log_loss", {}), ("log_loss", {"smoothing": 0.1})]
)
def test_loss_of_many_outputs_has_the_bits_of_single_rows(isa, loss, options):
    kernels, rng = Kernels(isa, "float64"), np.random.RandomState(0)
    z = rng.standard_normal((7, 3001))
    y = rng.randint(0, 3001, 7) if loss == "log_loss" else rng.standard_normal((7, 3001))
    weights = rng.uniform(size=7)
    gradient, value, _ = kernels.loss(loss, z, y, weights, np.arange(7)[::-1].copy(), **options)
    for i in range(7):
        of_one = kernels.loss(loss, z[i : i + 1], y, weights, np.array([6 - i]), **options)
        np.testing.assert_array_equal(gradient[i], of_one[0][0])
        assert value[i] == of_one[1][0]


@pytest.mark.parametrize("n_rows", [1, 60, 1500])
def test_unsorted_rows_and_duplicates_predict_the_bits_of_canonical_ones(n_rows):
    rng, network = np.random.RandomState(0), Network((40, 100, 3), random_state=0)
    columns = np.tile([7, 3, 3, 0, 39], n_rows)
    X = csr_array((rng.standard_normal(columns.size), columns, np.arange(0, columns.size + 1, 5)), shape=(n_rows, 40))
    canonical = X.copy()
    canonical.sum_duplicates()
    np.testing.assert_array_equal(network.forward(X, n_threads=2), network.forward(canonical, n_threads=2))
