"""Our OpenMP runtime beside scikit-learn's: in a wheel it is another one, and threadpoolctl and a fork must reach it
all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import fastmlp
from fastmlp import core

# Scikit-learn's runtime has worked before and ours has trained on its threads: the state of a process in the midst of
# its work.
BOTH_AT_WORK = """
    import os
    import numpy as np
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_info, threadpool_limits
    from fastmlp import MLPClassifier, core

    X = np.random.RandomState(0).standard_normal((4000, 64))
    y = (X[:, 0] > 0).astype(int)
    model = MLPClassifier((256, 256), max_iter=2, random_state=0, tol=0)

    def work():
        KMeans(3, n_init=1, max_iter=5, random_state=0).fit(X)
        return model.fit(X, y).predict_proba(X)

    first = work()
"""


def run(code: str, timeout: int = 120) -> str:
    """What the program prints, with four threads asked of each runtime."""
    program = (
        "import warnings\nwarnings.simplefilter('ignore')\n" + textwrap.dedent(BOTH_AT_WORK) + textwrap.dedent(code)
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "4", "PYTHONPATH": str(Path(fastmlp.__file__).parent.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_threadpool_limits_reach_our_runtime():
    """The runtime that our modules are linked to is in threadpoolctl's list, and its limit is ours."""
    if not core.info()["openmp"]:
        assert core.max_threads() == 1
        return
    printed = run(
        """
        outside = core.max_threads()
        with threadpool_limits(2, user_api="openmp"):
            inside = core.max_threads()
            found = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "openmp"]
        print(outside, inside, core.max_threads(), set(found))
        """
    )
    assert printed.split(maxsplit=3) == ["4", "2", "4", "{2}\n"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_while_both_runtimes_have_threads_ends():
    """A child that is forked then trains on what it has, and finds the same numbers; it does not wait for threads that
    are gone."""
    printed = run(
        """
        child = os.fork()
        if child == 0:
            again = model.fit(X, y).predict_proba(X)
            os._exit(0 if np.array_equal(again, first) else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert printed == "0\n"
