"""Fixtures of all tests."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.RandomState:
    """Fresh draws from a fixed seed."""
    return np.random.RandomState(42)
