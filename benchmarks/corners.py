"""Shapes and forms where scikit-learn might be faster: python -m benchmarks.corners [--only WORD] [--turns N]

fastmlp and scikit-learn run each case in turn in one process, on all of its threads, with the same parameters; the
figure is the ratio of their least times. `make bench-corners` writes benchmarks/results/corners.md. No ratio should be
above 1.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn import neural_network

import fastmlp
from benchmarks.machine import describe_machine

RESULTS = Path(__file__).parent / "results" / "corners.md"
# A case is repeated until it has taken so many seconds on either side, at least TURNS times.
SECONDS, TURNS = 1.0, 7
# Seconds between two calls, after which the threads of either library sleep.
PAUSE = 0.12
# Seconds for which a turn repeats a short call.
BURST = 0.02


class Case(NamedTuple):
    """What is timed: ``run(module)`` prepares with the estimators of a module and returns the call to time."""

    name: str
    run: Callable[[Any], Callable[[], object]]


def rows(n: int, n_features: int, n_outputs: int = 0, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """X (n, n_features), and two classes or n_outputs numbers."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((n, n_features)).astype(dtype)
    if n_outputs:
        return X, rng.standard_normal((n, n_outputs)).astype(dtype)
    return X, np.arange(n) % 2


def frame_rows() -> tuple[pd.DataFrame, np.ndarray]:
    """500 rows of 20 named columns, and two classes."""
    X, y = rows(500, 20)
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])]), y


def documents(n: int = 2000, n_words: int = 20_000) -> tuple[Any, np.ndarray]:
    """TF-IDF of generated documents, as TfidfVectorizer returns it: words by Zipf's law, indices not sorted."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.RandomState(0)
    words = np.array([f"w{i}" for i in range(n_words)])
    drawn = (rng.zipf(1.3, (n, 80)) - 1) % n_words
    texts = [" ".join(words[row]) for row in drawn]
    return TfidfVectorizer().fit_transform(texts), rng.randint(0, 4, n)


def sparse_rows(n: int, n_features: int, per_row: int = 30, broken: str = "") -> tuple[Any, np.ndarray]:
    """CSR with ``per_row`` elements a row; broken: one row 'unsorted', or with a 'duplicate' column."""
    rng = np.random.RandomState(0)
    columns = np.sort(
        rng.randint(0, n_features // per_row, (n, per_row)) + np.arange(per_row) * (n_features // per_row)
    )
    if broken == "unsorted":
        columns[0] = columns[0, ::-1]
    elif broken == "duplicate":
        columns[0, 1] = columns[0, 0]
    parts = (rng.standard_normal(n * per_row), columns.ravel(), np.arange(0, n * per_row + 1, per_row))
    return sparse.csr_matrix(parts, shape=(n, n_features)), np.arange(n) % 2


def fit(
    data: Callable[[], tuple[Any, Any]], kind: str = "MLPClassifier", **settings: Any
) -> Callable[[Any], Callable[[], object]]:
    """Time of ``fit``."""

    def run(module: Any) -> Callable[[], object]:
        X, y = data()
        estimator = getattr(module, kind)(random_state=0, **settings)
        return lambda: estimator.fit(X, y)

    return run


def partial_fit(
    data: Callable[[], tuple[Any, Any]], kind: str = "MLPClassifier", **settings: Any
) -> Callable[[Any], Callable[[], object]]:
    """Time of a further ``partial_fit``."""

    def run(module: Any) -> Callable[[], object]:
        X, y = data()
        estimator = getattr(module, kind)(random_state=0, **settings)
        first = {"classes": [0, 1]} if kind == "MLPClassifier" else {}
        estimator.partial_fit(X, y, **first)
        return lambda: estimator.partial_fit(X, y)

    return run


def predict(
    data: Callable[[], tuple[Any, Any]],
    n: int | None,
    kind: str = "MLPClassifier",
    method: str = "predict",
    **settings: Any,
) -> Callable[[Any], Callable[[], object]]:
    """Time of a prediction of the first ``n`` rows, by a model of one epoch."""

    def run(module: Any) -> Callable[[], object]:
        X, y = data()
        few = X[:500] if X.shape[0] > 500 else X
        estimator = getattr(module, kind)(random_state=0, max_iter=1, **settings).fit(few, y[: few.shape[0]])
        asked = X[:n]
        call = getattr(estimator, method)
        return lambda: call(asked)

    return run


def cases() -> Iterator[Case]:
    """All of them."""
    one_epoch = {"max_iter": 1}
    yield Case("TF-IDF as it comes: fit, 3 epochs", fit(documents, max_iter=3))
    yield Case("TF-IDF as it comes: predict", predict(documents, None))
    yield Case("TF-IDF as it comes: predict of 5 rows", predict(documents, 5))
    for broken in ("unsorted", "duplicate"):
        data = partial(sparse_rows, 5000, 20_000, broken=broken)
        yield Case(f"CSR with one {broken} row: fit, an epoch", fit(data, **one_epoch))
        yield Case(f"CSR with one {broken} row: predict", predict(data, None))
    for n in (1, 10, 200, 1000):
        data = partial(sparse_rows, max(n, 500), 100_000)
        yield Case(f"sparse rows of 100,000 columns: predict of {n:,}", predict(data, n))
    yield Case("sparse rows of 100,000 columns: partial_fit of 5", partial_fit(lambda: sparse_rows(5, 100_000)))
    yield Case("sparse rows of 20,000 columns: partial_fit of 5", partial_fit(lambda: sparse_rows(5, 20_000)))
    yield Case(
        "sparse rows of 2,000 columns: batches of 1, an epoch",
        fit(lambda: sparse_rows(500, 2000), batch_size=1, **one_epoch),
    )
    yield Case("sparse rows of 2,000 columns: lbfgs", fit(lambda: sparse_rows(500, 2000), solver="lbfgs", max_iter=20))
    for size in (2000, 1000):
        for n in (1, 10, 200):
            data = partial(rows, n, 50)
            layers = {"hidden_layer_sizes": (size, size), "batch_size": n}
            yield Case(f"layers of {size}: partial_fit of {n}", partial_fit(data, **layers))
    yield Case(
        "layers of 1,000: warm_start of one epoch of 50 rows",
        fit(lambda: rows(50, 50), hidden_layer_sizes=(1000, 1000), warm_start=True, **one_epoch),
    )
    for size, n, dtype, solver in (
        (1000, 50, np.float64, "adam"),
        (1000, 200, np.float64, "adam"),
        (1000, 200, np.float64, "sgd"),
        (1000, 200, np.float32, "adam"),
        (2000, 50, np.float32, "sgd"),
        (2000, 200, np.float64, "adam"),
        (2000, 200, np.float64, "sgd"),
        (2000, 200, np.float32, "sgd"),
    ):
        yield Case(
            f"layers of {size:,}, {np.dtype(dtype).name}, {solver}: fit of {n} rows, an epoch",
            fit(partial(rows, n, 50, dtype=dtype), hidden_layer_sizes=(size, size), solver=solver, **one_epoch),
        )
    yield Case("default network: partial_fit of 1", partial_fit(lambda: rows(1, 20), batch_size=1))
    yield Case("default network: batches of 1, an epoch", fit(lambda: rows(500, 20), batch_size=1, **one_epoch))
    yield Case("10 rows: fit, 200 epochs", fit(lambda: rows(10, 4)))
    yield Case("150 rows: fit, 200 epochs", fit(lambda: rows(150, 4)))
    yield Case("150 rows: lbfgs", fit(lambda: rows(150, 4), solver="lbfgs", max_iter=100))
    yield Case("2,000 rows: lbfgs", fit(lambda: rows(2000, 20), solver="lbfgs", max_iter=30))
    yield Case("5,000 outputs: fit of 500 rows", fit(lambda: rows(500, 20, 5000), "MLPRegressor", **one_epoch))
    yield Case("5,000 outputs: predict", predict(lambda: rows(500, 20, 5000), None, "MLPRegressor"))
    for n in (512, 1000, 5000):
        data = partial(rows, n, 500)
        yield Case(f"500-2,000-2,000: predict of {n:,}", predict(data, n, hidden_layer_sizes=(2000, 2000)))
    for dtype in (np.float32, np.float64):
        data = partial(rows, 20_000, 200, dtype=dtype)
        yield Case(
            f"200-500-500, {np.dtype(dtype).name}: predict of 20,000",
            predict(data, None, hidden_layer_sizes=(500, 500)),
        )
    yield Case("2,000 outputs, 300 rows: predict", predict(lambda: rows(300, 50, 2000), None, "MLPRegressor"))
    yield Case("a DataFrame of one row: predict", predict(frame_rows, 1))
    yield Case("one row: predict", predict(lambda: rows(500, 20), 1))
    yield Case("one row: predict_proba", predict(lambda: rows(500, 20), 1, method="predict_proba"))


def least_seconds(calls: list[Callable[[], object]], turns: int) -> list[float]:
    """The least time of each call, taken in turn after a warm-up.

    OpenBLAS's threads go on spinning for about 0.1 s after a product, so a turn begins with a pause: else they take a
    core from whoever comes next.
    """
    least = [float("inf")] * len(calls)
    for call in calls:
        call()
    turn, began = 0, time.perf_counter()
    while turn < turns or (time.perf_counter() - began < SECONDS * len(calls) and turn < 1000):
        for i, call in enumerate(calls):
            time.sleep(PAUSE)
            turn_began = started = time.perf_counter()
            while started - turn_began < BURST:
                call()
                ended = time.perf_counter()
                least[i], started = min(least[i], ended - started), ended
        turn += 1
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"least number of turns (default {TURNS})")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = ["# Corners: fastmlp over scikit-learn", ""]
    lines += [f"- {name}: {value}" for name, value in describe_machine().items()]
    lines += ["", "Least of several times, in turn; a ratio below 1 means that fastmlp is faster.", ""]
    lines += ["| case | fastmlp | scikit-learn | ratio |", "| --- | ---: | ---: | ---: |"]
    print("\n".join(lines))
    worst = 0.0
    for case in cases():
        if arguments.only not in case.name:
            continue
        ours, theirs = least_seconds([case.run(fastmlp), case.run(neural_network)], arguments.turns)
        worst = max(worst, ours / theirs)
        lines.append(f"| {case.name} | {1e3 * ours:.3f} ms | {1e3 * theirs:.3f} ms | {ours / theirs:.2f} |")
        print(lines[-1], flush=True)
    lines.append(f"\nThe largest ratio: {worst:.2f}")
    print(lines[-1])
    if not arguments.only:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
