"""What docs/developers/promises.md names as holding a promise exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "developers" / "promises.md").read_text().splitlines()
    if line.startswith("| ")
][1:]
HELD_BY = sorted({name for row in ROWS for name in re.findall(r"`([^`]+)`", row[2])})


def test_every_promise_is_held_by_something():
    """Each row names tests or commands, and the table has a row for each kind of promise."""
    assert [row[0] for row in ROWS if row[0]] == [str(i) for i in range(1, 10)]
    for row in ROWS:
        assert re.findall(r"`(?:tests/|make )[^`]+`", row[2]), row


@pytest.mark.parametrize("name", HELD_BY)
def test_what_holds_a_promise_exists(name):
    """A file of tests, a test in it, or a target of the Makefile."""
    if name.startswith("make "):
        assert re.search(rf"^{name[len('make ') :]}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    file, _, test = name.partition("::")
    defined = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert test in defined if test else any(function.startswith("test_") for function in defined)
