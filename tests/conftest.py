"""Fixtures of all tests, and the marker ``crossed``."""

from __future__ import annotations

import gc
from collections import Counter, defaultdict

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.RandomState:
    """Fresh draws from a fixed seed."""
    return np.random.RandomState(42)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collecting makes a million objects that stay: searching them for garbage would take a quarter of its time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is marked ``crossed``, the fast set has as many combinations as have each value of each parameter
    once."""
    tests = defaultdict(list)
    for item in items:
        if item.get_closest_marker("crossed"):
            tests[item.nodeid.partition("[")[0]].append(item)
    for combinations in tests.values():
        # By identity: not every value can be compared.
        left = [(item, [(name, id(value)) for name, value in item.callspec.params.items()]) for item in combinations]
        uses: Counter[tuple[str, int]] = Counter()
        while left:
            # The one with the most values that are new, and of several the one whose others are used least.
            chosen = max(
                left,
                key=lambda each: (sum(not uses[value] for value in each[1]), -sum(uses[value] for value in each[1])),
            )
            if all(uses[value] for value in chosen[1]):
                break
            left.remove(chosen)
            uses.update(chosen[1])
        for item, _ in left:
            item.add_marker(pytest.mark.slow)
