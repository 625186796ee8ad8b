"""The shuffle of an epoch's rows: NumPy's order, and NumPy's generator afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from fastmlp.core._shuffle import shuffle


@pytest.mark.parametrize("generator", [np.random.MT19937, np.random.PCG64])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 200, 65_537])
def test_shuffle_is_numpys(n, generator):
    """The same order as RandomState.shuffle, three times over, and the same generator afterwards."""
    ours, numpys = np.random.RandomState(generator(n)), np.random.RandomState(generator(n))
    order = np.arange(n, dtype=np.intp)
    expected = order.copy()
    for _ in range(3):
        shuffle(order, ours)
        numpys.shuffle(expected)
        np.testing.assert_array_equal(order, expected)
    assert ours.randint(1 << 30) == numpys.randint(1 << 30)


def test_shuffle_refuses_what_it_cannot_write(rng):
    frozen = np.arange(5, dtype=np.intp)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="order must be a C-contiguous writeable array"):
        shuffle(frozen, rng)
    with pytest.raises(ValueError, match="order must be an aligned array of 5 intp"):
        shuffle(np.arange(5, dtype=np.int16), rng)
