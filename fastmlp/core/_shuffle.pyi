"""Stub of _shuffle.pyx: the order of an epoch's rows."""

import numpy as np
from numpy.typing import NDArray

def shuffle(order: NDArray[np.intp], rng: np.random.RandomState, alone: bool = False) -> None: ...
