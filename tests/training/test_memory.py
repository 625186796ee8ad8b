"""How much memory training takes, counted in copies of the parameters."""

import sys

import pytest
from helpers import SANITIZED, output_of, output_of_fork, rest_slow

WIDTH = 2048
CHILD = f"""
import sys, warnings
from pathlib import Path
import numpy as np
from fastmlp import MLPClassifier

def peak():  # not getrusage's, which begins with the parent's
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

warnings.simplefilter("ignore")
draws = np.random.default_rng(0)
X, y = draws.standard_normal((640, 8), dtype=np.float32), draws.integers(0, 3, 640)
constants = dict(dtype="float32", batch_size=64, random_state=0, n_iter_no_change=9)
constants["early_stopping"] = bool(int(sys.argv[1]))
MLPClassifier((8,), max_iter=2, **constants).fit(X, y)
before = peak()
MLPClassifier(({WIDTH}, {WIDTH}), max_iter=4, learning_rate_init=1e-6, **constants).fit(X, y)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or SANITIZED, reason="reads Linux's /proc, and sanitizers keep what is freed"
)
@pytest.mark.parametrize(("early_stopping", "copies"), rest_slow([(False, 4), (True, 5)], (True, 5)))
def test_training_takes_few_copies_of_the_parameters(early_stopping, copies):
    """The estimator's, the weights in panels and Adam's moments, and the best ones; what comes after the epochs takes
    no more."""
    found = output_of(CHILD, str(int(early_stopping)))
    parameters = 4 * (8 * WIDTH + WIDTH**2 + WIDTH * 3 + 2 * WIDTH + 3)
    assert int(found) < (copies + 0.6) * parameters


LARGE = """
import sys, warnings
from pathlib import Path
import numpy as np
from scipy.sparse import csr_matrix
from fastmlp import MLPClassifier

def peak():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

warnings.simplefilter("ignore")
draws = np.random.default_rng(0)
constants = dict(dtype="float32", max_iter=1, random_state=0)
kind, classes = sys.argv[1], 2000
X = draws.standard_normal((12000, 4), dtype=np.float32)
small = MLPClassifier((4,), **constants).fit(X[:600], np.arange(600) % 3)
small.predict(X[:2000])
if kind == "labels":
    model = MLPClassifier((4,), **constants).fit(X[:2000], np.arange(2000))
    call = lambda: model.predict(X)
elif kind.startswith("sparse"):
    Y = csr_matrix((np.ones(12000, int), (np.arange(12000), np.arange(12000) % classes)), shape=(12000, classes))
    model = MLPClassifier((4,), **constants).fit(X[:500], Y[:500])
    model.intercepts_[-1][...] = -9  # few labels, as after a longer training
    call = (lambda: model.predict(X)) if kind == "sparse predict" else (lambda: model.fit(X, Y))
else:
    small = MLPClassifier((4,), **constants).fit(np.zeros((9, 2000), "f"), np.arange(9) % 3)
    bytes_ = draws.integers(0, 2, (12000, 2000), dtype=np.uint8).astype(kind)
    call = lambda: small.fit(bytes_, np.arange(12000) % 3).predict(bytes_)
before = peak()
call()
print(peak() - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or SANITIZED, reason="reads Linux's /proc, and sanitizers keep what is freed"
)
@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("labels", 0.5),
        ("sparse predict", 0.5),
        ("sparse fit", 1.5),
        *rest_slow([("uint8", 1.5), ("bool", 1.5), ("float16", 1.5)], ("uint8", 1.5)),
    ],
)
def test_large_input_and_output_is_held_once_at_most(kind, share):
    """In float32: outputs of a prediction in pieces, an indicator matrix once, and small numbers of X without a detour
    over float64."""
    assert int(output_of_fork(LARGE, kind)) < share * 4 * 12000 * 2000
