"""Fixtures of all tests, and the marker ``crossed``."""

from __future__ import annotations

import gc
from collections import defaultdict

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
    """Of a test that is marked ``crossed``, the fast set has each value of each parameter once; other combinations are slow."""
    tests = defaultdict(list)
    for item in items:
        if item.get_closest_marker("crossed"):
            tests[item.nodeid.partition("[")[0]].append(item)
    for combinations in tests.values():
        indices = [item.callspec.indices for item in combinations]
        sizes = {name: 1 + max(index[name] for index in indices) for name in indices[0]}
        fast = [{name: i % size for name, size in sizes.items()} for i in range(max(sizes.values()))]
        for item, index in zip(combinations, indices, strict=True):
            if index not in fast:
                item.add_marker(pytest.mark.slow)
