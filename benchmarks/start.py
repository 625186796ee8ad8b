"""What passes before anything is computed: python -m benchmarks.start

Milliseconds from the call of ``fit`` to its first step, by the form of X and y, beside one pass over y; and the import
of ``fastmlp.network`` beside NumPy's, each in a process of its own. In turns; medians.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from fastmlp import MLPClassifier, MLPRegressor, core

ROWS, FEATURES, TURNS, IMPORTS = 1000, 20, 40, 15


class FirstStep(Exception):
    """Raised in place of it."""


class Started(core.Trainer):
    """A trainer whose first epoch ends the fit."""

    def epoch(self, *arguments: Any, **constants: Any) -> float:
        raise FirstStep


def milliseconds(function: Callable[[], object]) -> float:
    """Time of a call, which may end at its first step."""
    started = time.perf_counter()
    with suppress(FirstStep):
        function()
    return (time.perf_counter() - started) * 1e3


def fits() -> dict[str, Callable[[], object]]:
    """Name -> what is timed."""
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((ROWS, FEATURES)), rng.randint(0, 3, ROWS)
    names = np.array(["one", "two", "three"])[y]
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(FEATURES)])

    def fit(X: Any, y: Any, kind: Any = MLPClassifier, **settings: Any) -> Callable[[], object]:
        return lambda: kind(hidden_layer_sizes=(32,), random_state=0, **settings).fit(X, y)

    return {
        "a pass over y (numpy.unique)": lambda: np.unique(y, return_inverse=True),
        "classifier, arrays": fit(X, y),
        "classifier, float32": fit(X.astype(np.float32), y),
        "classifier, early stopping": fit(X, y, early_stopping=True),
        "classifier, words as labels": fit(X, names),
        "classifier, DataFrame": fit(frame, pd.Series(y)),
        "classifier, CSR": fit(sparse.csr_array(X), y),
        "regressor, arrays": fit(X, X[:, 0].copy(), MLPRegressor),
    }


def import_milliseconds(module: str) -> float:
    """Time of an import in a new process."""
    code = f"import time; started = time.perf_counter(); import {module}; print(time.perf_counter() - started)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout) * 1e3


def in_turns(cases: dict[str, Callable[[], float]], turns: int) -> dict[str, float]:
    """Median of each case's figures, after a warm-up."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(turns + 1):
        for name, case in cases.items():
            figure = case()
            found[name] += [figure] if turn else []
    return {name: statistics.median(figures) for name, figures in found.items()}


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    core.Trainer = Started
    medians = in_turns({name: lambda call=call: milliseconds(call) for name, call in fits().items()}, TURNS)
    imports = in_turns(
        {name: lambda name=name: import_milliseconds(name) for name in ("numpy", "fastmlp.network")}, IMPORTS
    )
    print(f"| before the first step, {ROWS:,} rows by {FEATURES} | ms |\n| --- | ---: |")
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} |")
    print(f"\nimport of fastmlp.network / of numpy: {imports['fastmlp.network'] / imports['numpy']:.2f}")


if __name__ == "__main__":
    main()
