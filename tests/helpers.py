"""Shared by the tests: tolerances, the figures that README promises, generators of data, marks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import fastmlp

# What is promised to users (README): largest relative differences from scikit-learn's loss.
SKLEARN_CURVE_RTOL = 1e-9
SKLEARN_LBFGS_RTOL = 1e-6
SKLEARN_FLOAT32_RTOL = 1e-3

# Whether a sanitizer's runtime is loaded before everything else: it takes address space, and keeps what is freed.
SANITIZED = "san" in os.environ.get("LD_PRELOAD", "")

# Of a process that shall import the fastmlp that this one has imported, and after how many seconds it has hung.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(fastmlp.__file__).parent.parent)}
HANGS_AFTER = 120

# Central differences in float64 with step h: truncation h^2, rounding eps / h; h = eps^(1/3) balances them.
DIFFERENCE_STEP = np.finfo(np.float64).eps ** (1 / 3)


def tolerance(dtype: str | np.dtype, n_terms: int, scale: float = 1.0) -> float:
    """Bound for the error of a sum of ``n_terms`` products whose absolute values add up to ``scale``.

    n eps |A| |B| bounds any order of summation (Higham 2002, section 3.1); the factor 4 covers the error of
    each term (an activation's few ulps) and of later steps.
    """
    return 4 * max(n_terms, 1) * float(np.finfo(dtype).eps) * scale


def difference_tolerance(scale: float) -> float:
    """Bound for the error of central differences of a function whose third derivatives are about ``scale``."""
    return 10 * DIFFERENCE_STEP**2 * scale


def name_of(value) -> str:
    """A value as a test's id: as it prints, without addresses, so that the id is the same in every process."""
    return re.sub(" at 0x[0-9a-fA-F]+", "", str(value))


def rest_slow(values, *fast) -> list:
    """Values for ``parametrize``, all but the named ones marked slow: each takes the same path, and is kept for the
    full run."""
    values = list(values)
    assert set(fast) <= set(values)
    slow = pytest.mark.slow
    return [
        value if value in fast else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=slow)
        for value in values
    ]


def needs_sklearn(first: str, what: str) -> None:
    """Skip what can be compared with scikit-learn's own MLPs from a release on only; ours do it with any."""
    installed = version("scikit-learn")
    if [int(number) for number in re.findall(r"\d+", installed)[:2]] < [int(number) for number in first.split(".")]:
        pytest.skip(f"scikit-learn {installed} has no {what} (from {first} on)")


def output_of(code: str, *arguments: str, **environment: str) -> str:
    """What Python code prints in a process of its own, which must end well."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def output_of_fork(code: str, *arguments: str) -> str:
    """What Python code prints in a fork of this process, which must end well: for code that may crash, or that limits
    its memory.

    It need not import anything again, which takes a process of its own a second. Its environment is the tests'.
    """
    if not hasattr(os, "fork"):
        return output_of(code, *arguments)
    with tempfile.TemporaryFile("w+") as printed:
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(HANGS_AFTER)
                os.dup2(printed.fileno(), 1)
                os.dup2(printed.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                sys.argv = ["-c", *arguments]
                exec(code, {"__name__": "__main__"})
                sys.stdout.flush()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        text = printed.read()
    assert status == 0, f"status {status}: {text}"
    return text.strip()


def varied(array: np.ndarray) -> np.ndarray:
    """The array, asserted to hold more than one value: input that does not vary tests nothing."""
    assert np.ptp(array) > 0
    return array


def classification(n_classes: int, n: int = 203, n_features: int = 13, dtype: str = "float64", seed: int = 0):
    """X (n, n_features) and labels (n,) that a small network learns in part."""
    draws = np.random.RandomState(seed)
    X = draws.standard_normal((n, n_features))
    centres = draws.standard_normal((n_classes, n_features))
    y = np.argmax(X @ centres.T + draws.standard_normal((n, n_classes)), axis=1)
    return varied(X.astype(dtype)), varied(y)


def multilabel(n: int = 203, n_features: int = 13, n_labels: int = 4, seed: int = 0):
    """X (n, n_features) and indicators (n, n_labels)."""
    draws = np.random.RandomState(seed)
    X = draws.standard_normal((n, n_features))
    return varied(X), varied((X @ draws.standard_normal((n_features, n_labels)) > 0).astype(int))


def regression(n: int = 203, n_features: int = 13, n_outputs: int = 1, dtype: str = "float64", seed: int = 0):
    """X (n, n_features) and y (n,) or (n, n_outputs), not linear in X."""
    draws = np.random.RandomState(seed)
    X = draws.standard_normal((n, n_features))
    y = np.sin(X @ draws.standard_normal((n_features, n_outputs))) + 0.1 * draws.standard_normal((n, n_outputs))
    return varied(X.astype(dtype)), varied(y[:, 0] if n_outputs == 1 else y)


def counts(n: int = 203, n_features: int = 13, n_outputs: int = 1, seed: int = 0):
    """X (n, n_features) and Poisson counts, some of them 0."""
    X, y = regression(n, n_features, n_outputs, seed=seed)
    y = np.random.RandomState(seed).poisson(np.exp(y)).astype(np.float64)
    assert (y == 0).any()
    return X, varied(y)
