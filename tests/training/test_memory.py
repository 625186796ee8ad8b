"""How much memory training takes, counted in copies of the parameters."""

import sys

import pytest
from helpers import SANITIZED, output_of, rest_slow

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
constants = dict(dtype="float32", batch_size=64, random_state=0, early_stopping=bool(int(sys.argv[1])), n_iter_no_change=9)
MLPClassifier((8,), max_iter=2, **constants).fit(X, y)
before = peak()
MLPClassifier(({WIDTH}, {WIDTH}), max_iter=4, learning_rate_init=1e-6, **constants).fit(X, y)
print(peak() - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or SANITIZED, reason="reads Linux's /proc, and sanitizers keep what is freed"
)
@pytest.mark.parametrize(("early_stopping", "copies"), rest_slow([(False, 4), (True, 5)], (True, 5)))
def test_training_takes_few_copies_of_the_parameters(early_stopping, copies):
    """The estimator's, the weights in panels and Adam's moments, and the best ones; what comes after the epochs takes no more."""
    found = output_of(CHILD, str(int(early_stopping)))
    parameters = 4 * (8 * WIDTH + WIDTH**2 + WIDTH * 3 + 2 * WIDTH + 3)
    assert int(found) < (copies + 0.6) * parameters
