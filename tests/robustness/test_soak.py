"""The criteria of tests/robustness/soak.py: they find leaks and leftovers, and pass a run without them."""

from __future__ import annotations

import pytest
from soak import GROWTH, Sample, faults

STEADY = [Sample(float(i), 200 * GROWTH, 6, 3) for i in range(60)]


def test_soak_passes_what_is_steady():
    """Memory that goes up and down, threads that come and go within what was there from the start."""
    wavy = [s._replace(resident=s.resident + GROWTH // 2 * (i % 3), threads=3 + i % 4) for i, s in enumerate(STEADY)]
    assert faults(wavy) == []


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("resident memory", lambda i, s: s._replace(resident=s.resident + 2 * GROWTH * i // len(STEADY))),
        ("descriptors", lambda i, s: s._replace(descriptors=6 + i // 30)),
        ("threads", lambda i, s: s._replace(threads=3 + i // 59)),
    ],
)
def test_soak_sees_what_grows(what, change):
    """Memory by twice the limit over the run; one descriptor; one thread in the last sample."""
    found = faults([change(i, s) for i, s in enumerate(STEADY)])
    assert len(found) == 1
    assert what in found[0]


def test_soak_needs_samples():
    assert "too few" in faults(STEADY[:2])[0]
